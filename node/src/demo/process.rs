//! One node of the demo as a child process: its start, its ready line, its log lines under its name, and its end.

use std::env;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Two for each life of a node; nobody is kept from saying more.
pub(super) const REPORTS_MAX: usize = 64;

/// From the signal to the kill. The demo promises to be gone within 5 s.
const END_WITHIN: Duration = Duration::from_secs(3);

/// What became of a node.
#[derive(Debug)]
pub(super) enum Report {
    Ready,
    /// It ended and was not told to.
    Exited {
        index: u16,
        status: ExitStatus,
    },
}

/// A running node. Dropping it kills the process.
pub(super) struct NodeProcess {
    pid: Option<Pid>,
    /// Held, never written: the node ends when it closes.
    stdin: Option<ChildStdin>,
    told_to_end: CancellationToken,
    /// Waits for the process, and kills it in the end.
    keeper: JoinHandle<()>,
}

/// Nodes are counted from 1 for people.
pub(super) fn name(index: u16) -> String {
    format!("node-{}", index + 1)
}

impl NodeProcess {
    pub(super) fn start(
        index: u16,
        config: &Path,
        environment: &[(&'static str, String)],
        log_level: &str,
        reports: mpsc::Sender<Report>,
    ) -> anyhow::Result<Self> {
        let name = name(index);
        let binary = env::current_exe().context("this binary's path is not known")?;
        let mut command = Command::new(binary);
        command.args(["node", "--exit-with-stdin", "--log-level", log_level, "--config"]);
        command.arg(config);
        // The operator's own configuration is not the demo's.
        let inherited = env::vars_os().map(|(key, _)| key);
        for key in inherited.filter(|key| key.to_str().is_some_and(|key| key.starts_with("ROOKERY_"))) {
            command.env_remove(key);
        }
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("{name} could not be started"))?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(print_lines(name.clone(), stderr));
        }
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(watch_stdout(name.clone(), stdout, reports.clone()));
        }
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let told_to_end = CancellationToken::new();
        Ok(Self {
            pid,
            stdin: child.stdin.take(),
            keeper: tokio::spawn(keep(index, child, told_to_end.clone(), reports)),
            told_to_end,
        })
    }

    fn tell_to_end(&mut self) {
        self.told_to_end.cancel();
        // The process is waited for only after this, so that its id is still its own.
        if let Some(pid) = self.pid.filter(|_| !self.keeper.is_finished()) {
            let _ = kill_process(pid, Signal::INT);
        }
        self.stdin = None;
    }
}

/// Ends all nodes, those that do not listen by force; returns when no process is left.
pub(super) async fn end_all(mut nodes: Vec<NodeProcess>) {
    nodes.iter_mut().for_each(NodeProcess::tell_to_end);
    for node in nodes {
        // It ends by itself; a panic in it has killed the process by dropping it.
        let _ = node.keeper.await;
    }
}

async fn keep(index: u16, mut child: Child, told_to_end: CancellationToken, reports: mpsc::Sender<Report>) {
    let exited = tokio::select! {
        exited = child.wait() => exited,
        () = told_to_end.cancelled() => {
            if tokio::time::timeout(END_WITHIN, child.wait()).await.is_err() {
                eprintln!("demo: {} does not end, killing it", name(index));
                let _ = child.kill().await;
            }
            return;
        }
    };
    if let Ok(status) = exited {
        // Nobody listens any more when the demo is ending already.
        let _ = reports.send(Report::Exited { index, status }).await;
    }
}

async fn watch_stdout(name: String, stdout: impl AsyncRead + Unpin, reports: mpsc::Sender<Report>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("rookery ready ") {
            let _ = reports.send(Report::Ready).await;
        } else {
            eprintln!("{name} | {line}");
        }
    }
}

async fn print_lines(name: String, stderr: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln!("{name} | {line}");
    }
}
