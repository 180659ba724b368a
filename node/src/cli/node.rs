//! `rookery node`: one node in this process, from the configuration to the exit code. What a node is made of is `crate::node`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::config::FileOption;
use super::operator::{OpsOptions, pretty, segment};
use super::{LogOptions, say};
use crate::config::{Config, Sources};
use crate::log;
use crate::node::Addresses;
use crate::traces::Traces;

/// How long a drained node may take to stop: its last states go into the store, and its peers hear that it leaves.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// How long a node that was told to end at once may take to close its files.
const END_AT_ONCE_WITHIN: Duration = Duration::from_secs(2);
/// How long tasks that block (a statement, a compilation) may hold up the exit after everything else has stopped.
pub(super) const BLOCKED_TASKS_WITHIN: Duration = Duration::from_millis(500);

/// Run one node. With no configuration at all: alone, SQLite in ./rookery-data, on loopback.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  ROOKERY_CLUSTER__SEEDS=10.0.0.7:7701 rookery node --config rookery.toml --name rook-2"
)]
pub(super) struct Node {
    #[command(subcommand)]
    command: Option<NodeCommand>,
    #[command(flatten)]
    file: FileOption,
    /// This node's name, `node.name`.
    #[arg(long)]
    name: Option<String>,
    /// Where it keeps its files, `node.data_dir`.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where players connect, `listen.client`.
    #[arg(long, value_name = "ADDRESS")]
    listen_client: Option<String>,
    /// Where other nodes connect, `listen.peer`.
    #[arg(long, value_name = "ADDRESS")]
    listen_peer: Option<String>,
    /// Where operators connect, `listen.ops`.
    #[arg(long, value_name = "ADDRESS")]
    listen_ops: Option<String>,
    /// Peers to join through, with commas between them, `cluster.seeds`.
    #[arg(long, value_name = "HOST:PORT,…")]
    seeds: Option<String>,
    #[command(flatten)]
    log: LogOptions,
    /// End when standard input ends: the parent holds the other end of the pipe, and is gone then, however it died.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    Forget(Forget),
}

/// Count a node that will not return as dead, so that nobody waits for its leases to end.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery node forget rook-3 --ops http://127.0.0.1:7702")]
struct Forget {
    /// The node's name.
    name: String,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Forget {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = format!("/v1/nodes/{}/forget", segment(&self.name));
        let answer: Value = self.ops.client()?.post(&path, json!({}))?;
        say(if self.ops.json {
            pretty(&answer)
        } else {
            format!("{} counts as dead; what it held goes on elsewhere", self.name)
        });
        Ok(ExitCode::SUCCESS)
    }
}

impl Node {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(NodeCommand::Forget(forget)) = self.command {
            return forget.run();
        }
        let config = Config::load(self.sources())?;
        let traces = config.telemetry.otlp.as_deref();
        let traces = traces
            .map(|endpoint| Traces::start(endpoint, config.node_name().as_str()))
            .transpose()?;
        log::init(
            self.log.log_format,
            &self.log.level_or(log::DEFAULT_LEVEL),
            traces.as_ref(),
        )?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(run(config, self.exit_with_stdin));
        runtime.shutdown_timeout(BLOCKED_TASKS_WITHIN);
        // Last, so that what the end of the node did is traced too.
        drop(traces);
        ended.map(|()| ExitCode::SUCCESS)
    }

    fn sources(&self) -> Sources {
        let flags = [
            ("node.name", &self.name),
            ("node.data_dir", &self.data_dir),
            ("listen.client", &self.listen_client),
            ("listen.peer", &self.listen_peer),
            ("listen.ops", &self.listen_ops),
            ("cluster.seeds", &self.seeds),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        Sources {
            flags: given.collect(),
            ..Sources::of_process(self.file.config.clone())
        }
    }
}

async fn run(config: Config, exit_with_stdin: bool) -> anyhow::Result<()> {
    let node_orders = crate::node::Orders::default();
    let is_ready = AtomicBool::new(false);
    let mut orders = Orders::listen(exit_with_stdin)?;
    let graceful_within = config.drain.deadline + STOP_WITHIN;
    let ready = |addresses: &Addresses| {
        is_ready.store(true, Ordering::Release);
        say(ready_line(addresses));
    };
    let mut node = std::pin::pin!(crate::node::run(config, ready, node_orders.clone()));
    let within = tokio::select! {
        // It ended by itself: it could not start, or a vital task failed.
        ended = &mut node => return ended,
        order = orders.next() => match order {
            // What has not begun need not be handed over.
            Order::Stop if is_ready.load(Ordering::Acquire) => {
                node_orders.drain.cancel();
                graceful_within
            }
            Order::EndAtOnce | Order::Stop => {
                node_orders.end.cancel();
                END_AT_ONCE_WITHIN
            }
        },
    };
    info!("stopping");
    tokio::select! {
        ended = &mut node => ended,
        () = orders.signal() => Ok(()),
        () = tokio::time::sleep(within) => {
            warn!(within_ms = within.as_millis() as u64, "the node did not stop in time; ending it");
            Ok(())
        }
    }
}

/// The line by which scripts know that a node may be used.
pub(crate) fn ready_line(addresses: &Addresses) -> String {
    let Addresses {
        name,
        client,
        peer,
        ops,
    } = addresses;
    format!("rookery ready node={name} client={client} peer={peer} ops={ops}")
}

/// What the world outside wants of this process.
enum Order {
    /// SIGINT, or the parent is gone.
    EndAtOnce,
    /// SIGTERM: drain, then end. Another signal ends at once.
    Stop,
}

struct Orders {
    interrupt: Signal,
    terminate: Signal,
    parent_gone: CancellationToken,
}

impl Orders {
    fn listen(exit_with_stdin: bool) -> std::io::Result<Self> {
        let parent_gone = CancellationToken::new();
        if exit_with_stdin {
            let gone = parent_gone.clone();
            // A thread of its own: a blocking read cannot be cancelled, and must not keep the runtime from ending.
            let watch = move || {
                let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
                gone.cancel();
            };
            std::thread::Builder::new().name("parent".into()).spawn(watch)?;
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            parent_gone,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.interrupt.recv() => Order::EndAtOnce,
            () = self.parent_gone.cancelled() => Order::EndAtOnce,
            _ = self.terminate.recv() => Order::Stop,
        }
    }

    /// Someone lost patience.
    async fn signal(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
