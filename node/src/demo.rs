//! `rookery demo`: a cluster of real node processes on loopback, with the example modules and some bots, gone without a trace
//! when it ends.
//!
//! The nodes are this binary's `node` command, configured by the environment as an operator would: nothing here reaches into a
//! node. Three things keep processes from being left behind: the nodes are told to end, those that do not are killed, and each
//! ends by itself when the pipe to this process closes, which the kernel does even when the demo is killed.

mod bots;
mod process;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cli::operator::OpsClient;
use crate::cli::secret;
use crate::examples;
use crate::ops::view::{ClusterView, Published};
use process::{NodeProcess, Report};

/// More nodes than this on one machine show nothing new.
pub const NODES_MAX: u16 = 20;

/// From the start of the processes to a cluster in which all see all. A debug build on a busy machine takes most of it.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Nine zones start within a second or two of their module's publication.
const WORLDS_WITHIN: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A node that ended is started again after this long: time to see in the picture that it is gone.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A node that ends so many times in a row, each time before it has run for a while, will do so again.
const LIVES_MAX: u32 = 3;
const SETTLED_AFTER: Duration = Duration::from_secs(20);
/// Two bots a node make an arena that moves, and leave room for people.
const BOTS_PER_NODE: usize = 2;

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub nodes: u16,
    /// The first node's client port.
    pub port: u16,
    pub bots: Bots,
    /// What the nodes are to run without, as `node.without` lists it.
    pub without: String,
    /// What the nodes log.
    pub log_level: String,
}

/// Whether bots play the arena and walk about the village.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bots {
    None,
    Some,
}

/// Where node i (from 0) listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    client: u16,
    peer: u16,
    ops: u16,
}

impl Ports {
    fn of(first: u16, index: u16) -> Self {
        let client = first + 10 * index;
        Self {
            client,
            peer: client + 1,
            ops: client + 2,
        }
    }

    fn ops_client(self) -> OpsClient {
        let url = format!("http://127.0.0.1:{}", self.ops);
        OpsClient::new(&url, None).expect("an address of loopback is a good URL")
    }
}

/// The nodes' processes, and what each is started with.
struct Nodes<'a> {
    options: &'a Options,
    ports: &'a [Ports],
    secret: String,
    directory: &'a Path,
    config: PathBuf,
    reports: mpsc::Sender<Report>,
    running: BTreeMap<u16, Life>,
}

/// One node from its start to its end.
struct Life {
    process: NodeProcess,
    began: Instant,
    /// Lives before this one that were short, in a row.
    short: u32,
}

impl Nodes<'_> {
    fn start(&mut self, index: u16, short: u32) -> anyhow::Result<()> {
        let mut environment = environment(self.ports, index, &self.secret, self.directory);
        environment.push(("ROOKERY_NODE__WITHOUT", self.options.without.clone()));
        let (level, reports) = (&self.options.log_level, self.reports.clone());
        let process = NodeProcess::start(index, &self.config, &environment, level, reports)?;
        let began = Instant::now();
        self.running.insert(index, Life { process, began, short });
        Ok(())
    }

    /// A node ended, because somebody drained or killed it: starts it again after a while.
    ///
    /// # Errors
    /// It ends again and again.
    async fn again(&mut self, index: u16, status: ExitStatus) -> anyhow::Result<()> {
        let name = process::name(index);
        let short = match self.running.remove(&index) {
            Some(life) if life.began.elapsed() < SETTLED_AFTER => life.short + 1,
            Some(_) | None => 0,
        };
        if short >= LIVES_MAX {
            bail!("{name} ended: {status}, {short} times in a row");
        }
        eprintln!("demo: {name} ended ({status}) and is started again");
        tokio::time::sleep(AGAIN_AFTER).await;
        self.start(index, short)
    }
}

/// Runs the demo until a signal ends it (exit code 0), or it goes wrong (1): nodes do not come up, or end again and again.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let ports: Vec<Ports> = (0..options.nodes).map(|index| Ports::of(options.port, index)).collect();
    ports.iter().try_for_each(|ports| check_free(*ports))?;
    let mut stop = Stop::listen()?;
    let directory = tempfile::Builder::new()
        .prefix("rookery-demo-")
        .tempdir()
        .context("no temporary directory")?;
    let (reports, mut inbox) = mpsc::channel(process::REPORTS_MAX);
    let config = directory.path().join("rookery.toml");
    std::fs::write(&config, examples::WORLD).context("the nodes' configuration could not be written")?;
    let mut nodes = Nodes {
        options: &options,
        ports: &ports,
        secret: secret::fresh(),
        directory: directory.path(),
        config,
        reports,
        running: BTreeMap::new(),
    };
    (0..options.nodes).try_for_each(|index| nodes.start(index, 0))?;

    let ended = tokio::select! {
        () = stop.signalled() => Ok(ExitCode::SUCCESS),
        ended = play(&mut nodes, &mut inbox) => ended,
    };
    process::end_all(nodes.running.into_values().map(|life| life.process).collect()).await;
    if let Err(error) = directory.close() {
        eprintln!("demo: the temporary directory stays behind: {error}");
    }
    ended
}

/// Brings the cluster up and keeps it up. Ends only when something goes wrong.
async fn play(nodes: &mut Nodes<'_>, inbox: &mut mpsc::Receiver<Report>) -> anyhow::Result<ExitCode> {
    let (options, ports) = (nodes.options, nodes.ports);
    let deadline = Instant::now() + READY_WITHIN;
    let mut not_ready = ports.len();
    while not_ready > 0 {
        match tokio::time::timeout_at(deadline, inbox.recv()).await {
            Ok(Some(Report::Ready)) => not_ready -= 1,
            Ok(Some(Report::Exited { index, status })) => bail!("{} ended: {status}", process::name(index)),
            Ok(None) => bail!("all nodes are gone"),
            Err(_) => bail!("{not_ready} nodes are not ready after {} s", READY_WITHIN.as_secs()),
        }
    }
    let prepared = tokio::select! {
        prepared = prepare(ports, deadline) => prepared,
        died = died(inbox) => Err(died),
    };
    prepared?;
    let _bots = match options.bots {
        Bots::None => None,
        Bots::Some => Some(bots::Crowd::start(ports, BOTS_PER_NODE * ports.len())?),
    };
    let mut stdout = std::io::stdout();
    writeln!(stdout, "open http://127.0.0.1:{}/", options.port)?;
    stdout.flush()?;
    loop {
        match inbox.recv().await {
            Some(Report::Ready) => {}
            Some(Report::Exited { index, status }) => nodes.again(index, status).await?,
            None => bail!("all nodes are gone"),
        }
    }
}

async fn died(inbox: &mut mpsc::Receiver<Report>) -> anyhow::Error {
    loop {
        match inbox.recv().await {
            Some(Report::Ready) => {}
            Some(Report::Exited { index, status }) => {
                return anyhow::anyhow!("{} ended: {status}", process::name(index));
            }
            None => return anyhow::anyhow!("all nodes are gone"),
        }
    }
}

/// Waits until all nodes see each other, publishes the example modules and the items of the village, and gives the village a
/// moment to come online.
async fn prepare(ports: &[Ports], deadline: Instant) -> anyhow::Result<()> {
    let everyone = ports.len();
    for ports in ports.iter().copied() {
        loop {
            let asked =
                tokio::task::spawn_blocking(move || ports.ops_client().get::<ClusterView>("/v1/cluster")).await?;
            let problem = match asked {
                Ok(view) => {
                    let ready = view.nodes.iter().filter(|node| node.state == "ready").count();
                    if ready == everyone {
                        break;
                    }
                    format!("it sees {ready} ready nodes of {everyone}")
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                bail!(
                    "the node at port {} is not part of the cluster: {problem}",
                    ports.client
                );
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
    let first = ports[0].ops_client();
    let published = tokio::task::spawn_blocking(move || {
        let items: BTreeMap<String, Value> = serde_json::from_str(examples::ITEMS)?;
        for (item, description) in items {
            let path = format!("/v1/content/items/{item}");
            let put = first.put_bytes::<Value>(&path, description.to_string().as_bytes());
            if let Err(error) = put {
                // The village goes on with plain items.
                eprintln!("demo: items are not published: {error}");
                break;
            }
        }
        for (name, component) in examples::BUNDLED {
            let published: Result<Published, _> = first.publish(component, None);
            published.with_context(|| format!("the module {name} could not be published"))?;
        }
        anyhow::Ok(())
    });
    published.await??;
    wait_for_worlds(ports[0]).await
}

/// Waits until every world is online. One that takes long is no reason not to begin: the page says what it waits for.
async fn wait_for_worlds(ports: Ports) -> anyhow::Result<()> {
    let deadline = Instant::now() + WORLDS_WITHIN;
    loop {
        let asked = tokio::task::spawn_blocking(move || ports.ops_client().get::<Value>("/v1/worlds")).await?;
        let offline = match asked {
            Ok(view) => view["worlds"]
                .as_array()
                .is_some_and(|worlds| worlds.iter().any(|world| world["online"] != true)),
            // This node does not run worlds.
            Err(_) => return Ok(()),
        };
        if !offline {
            return Ok(());
        }
        if Instant::now() >= deadline {
            eprintln!("demo: the village is not online yet; `rookery call` with world.list says why");
            return Ok(());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The configuration of node `index`, as variables.
fn environment(ports: &[Ports], index: u16, secret: &str, directory: &Path) -> Vec<(&'static str, String)> {
    let own = ports[usize::from(index)];
    let address = |port: u16| format!("127.0.0.1:{port}");
    let others = ports
        .iter()
        .filter(|ports| **ports != own)
        .map(|ports| address(ports.peer));
    let name = process::name(index);
    vec![
        ("ROOKERY_NODE__DATA_DIR", directory.join(&name).display().to_string()),
        ("ROOKERY_NODE__NAME", name),
        ("ROOKERY_NODE__DEMO_PAGE", "true".into()),
        ("ROOKERY_CLUSTER__NAME", "rookery-demo".into()),
        ("ROOKERY_CLUSTER__SECRET", secret.into()),
        ("ROOKERY_CLUSTER__SEEDS", others.collect::<Vec<_>>().join(",")),
        ("ROOKERY_CLUSTER__PROFILE", "lan".into()),
        ("ROOKERY_LISTEN__CLIENT", address(own.client)),
        ("ROOKERY_LISTEN__PEER", address(own.peer)),
        ("ROOKERY_LISTEN__OPS", address(own.ops)),
        (
            "ROOKERY_STORE__URL",
            format!("sqlite://{}", directory.join("rookery.db").display()),
        ),
    ]
}

/// Says which port is taken before any process is started.
fn check_free(ports: Ports) -> anyhow::Result<()> {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let taken = |port: u16| format!("port {port} is taken; end what uses it, or choose another first port with --port");
    for port in [ports.client, ports.ops] {
        TcpListener::bind(address(port)).with_context(|| taken(port))?;
    }
    UdpSocket::bind(address(ports.peer)).with_context(|| taken(ports.peer))?;
    Ok(())
}

/// Signals that end the demo. The nodes are in process groups of their own, so that a terminal's Ctrl-C reaches only this
/// process, which then knows why they end.
struct Stop {
    signals: [tokio::signal::unix::Signal; 3],
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self {
            signals: [signal(interrupt)?, signal(terminate)?, signal(hangup)?],
        })
    }

    async fn signalled(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
