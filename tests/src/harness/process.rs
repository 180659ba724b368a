//! One node as a child process: its configuration, its start, its signals, its log and its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rookery_mesh_tests::{Lines, Running, free_ports};

use super::{Account, Client, Encoding, Ops, PATIENCE, rookery_binary, until_within};

/// Log lines printed of each node when a test fails.
const PRINTED_LINES: usize = 200;

const LISTENERS: [&str; 3] = ["listen.client", "listen.peer", "listen.ops"];

/// A free port, another one each time that a node is started.
const ANY_PORT: &str = "127.0.0.1:0";

/// How a node is configured. Everything goes by the environment; the operator's own variables are not the test's.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    name: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    working_dir: PathBuf,
}

impl NodeSpec {
    /// A node alone, on free ports of loopback, with its files in a folder of its own below `dir`.
    pub fn new(name: &str, dir: &std::path::Path) -> Self {
        let mut spec = Self::bare(name, dir);
        spec.set("node.name", name)
            .set("node.data_dir", dir.join(name).display());
        for listener in LISTENERS {
            spec.set(listener, ANY_PORT);
        }
        spec
    }

    /// A node with no configuration at all, in this working directory. `name` is only what its log is printed under.
    pub fn bare(name: &str, dir: &std::path::Path) -> Self {
        Self {
            name: name.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            working_dir: dir.into(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets a configuration key, such as `limits.inputs`.
    pub fn set(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Self {
        self.variable(&variable_of(key), value)
    }

    /// Sets an environment variable as it is.
    pub fn variable(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        self.environment.insert(name.into(), value.to_string());
        self
    }

    /// Adds an argument to `rookery node`.
    pub fn argument(&mut self, argument: impl std::fmt::Display) -> &mut Self {
        self.arguments.push(argument.to_string());
        self
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(&self) -> NodeProcess {
        let mut command = Command::new(rookery_binary());
        command.args([
            "node",
            "--log-level",
            "info,module=debug,rookery=debug,rookery_gossip=debug,chitchat=warn",
        ]);
        let mut spec = self.clone();
        for listener in LISTENERS {
            let address = spec.environment.get_mut(&variable_of(listener));
            if let Some(address) = address.filter(|address| *address == ANY_PORT) {
                *address = format!("127.0.0.1:{}", free_ports(1)[0]);
            }
        }
        command.args(&self.arguments).current_dir(&self.working_dir);
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(|key| key.starts_with("ROOKERY_")) {
                command.env_remove(key);
            }
        }
        command
            .envs(&spec.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        let (said, logged) = (Lines::default(), Lines::default());
        said.collect(child.stdout.take().expect("it is piped"));
        logged.collect(child.stderr.take().expect("it is piped"));
        NodeProcess {
            spec,
            running: Running::new(child),
            said,
            logged,
            addresses: None,
        }
    }
}

/// The environment variable of a configuration key.
fn variable_of(key: &str) -> String {
    format!("ROOKERY_{}", key.replace('.', "__").to_uppercase())
}

/// Where a node listens, as its ready line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addresses {
    client: SocketAddr,
    peer: SocketAddr,
    ops: SocketAddr,
}

impl Addresses {
    fn of_ready_line(line: &str) -> Option<Self> {
        let fields = line.strip_prefix("rookery ready ")?;
        let field = |name: &str| {
            let mut words = fields.split(' ');
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        Some(Self {
            client: field("client")?,
            peer: field("peer")?,
            ops: field("ops")?,
        })
    }
}

/// A node that was started. Dropping it kills the process; if the test is failing then, its log is printed.
#[derive(Debug)]
pub struct NodeProcess {
    spec: NodeSpec,
    running: Running,
    said: Lines,
    logged: Lines,
    addresses: Option<Addresses>,
}

impl NodeProcess {
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Waits for the ready line.
    ///
    /// # Panics
    /// When the process ends instead, or takes longer than tests have patience.
    pub async fn ready(&mut self) -> &mut Self {
        let name = self.spec.name.clone();
        let what = format!("{name} is ready");
        let addresses = until_within(PATIENCE, &what, async || {
            let ready = self.said.find_map(Addresses::of_ready_line);
            if ready.is_none()
                && let Some(status) = self.try_exited()
            {
                panic!("{name} ended with {status} instead of becoming ready");
            }
            ready
        })
        .await;
        self.addresses = Some(addresses);
        self
    }

    pub fn is_ready(&self) -> bool {
        self.said.find_map(Addresses::of_ready_line).is_some()
    }

    /// Waits for the process to end by itself, within what it promises.
    pub async fn exited(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ended", self.spec.name);
        until_within(within, &what, async || self.try_exited()).await
    }

    /// The process's status, if it has ended.
    pub fn try_exited(&mut self) -> Option<ExitStatus> {
        self.running.try_exited()
    }

    pub fn client_address(&self) -> SocketAddr {
        self.listening().client
    }

    pub fn peer_address(&self) -> SocketAddr {
        self.listening().peer
    }

    pub fn ops_address(&self) -> SocketAddr {
        self.listening().ops
    }

    pub fn ops(&self) -> Ops {
        Ops::new(self.ops_address())
    }

    /// A new guest with an open session on this node.
    pub async fn guest(&self, encoding: Encoding) -> Client {
        let account = Account::guest(self.client_address()).await;
        Client::open(self.client_address(), encoding, &account).await
    }

    /// All that it printed on standard output.
    pub fn said(&self) -> String {
        self.said.text()
    }

    /// All that it logged so far.
    pub fn log(&self) -> String {
        self.logged.text()
    }

    /// The lines of the log that contain a text.
    pub fn log_lines(&self, needle: &str) -> Vec<String> {
        self.log()
            .lines()
            .filter(|line| line.contains(needle))
            .map(str::to_owned)
            .collect()
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// `kill -9`: the process is gone when this returns.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// SIGSTOP: the process keeps its sockets and does nothing.
    pub fn stop(&mut self) {
        self.running.stop();
    }

    /// SIGCONT, after [`NodeProcess::stop`].
    pub fn cont(&mut self) {
        self.running.cont();
    }

    /// SIGTERM: an orderly end.
    pub fn terminate(&mut self) {
        self.running.terminate();
    }

    /// How the next process of this node will be configured; this one is as it was.
    pub fn next_life(&mut self) -> &mut NodeSpec {
        &mut self.spec
    }

    /// A new process with the same configuration, on the addresses that this one had. This one is killed if it lives.
    pub fn restart(&mut self) -> NodeProcess {
        self.kill();
        self.spec.spawn()
    }

    fn listening(&self) -> &Addresses {
        self.addresses.as_ref().expect("wait for `ready` first")
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- {} (pid {}) said: {}",
                self.spec.name,
                self.pid(),
                self.said().trim_end()
            );
            self.logged.print_last(PRINTED_LINES, &self.spec.name);
        }
    }
}
