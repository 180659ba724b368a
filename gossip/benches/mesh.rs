//! How the mesh fares with many nodes: a whole cluster in this process, real QUIC on loopback. It measures how long it takes until
//! everybody sees everybody ready, and what a node costs in processor time and memory when nothing happens, with control connections
//! alone and with every data connection open. `scripts/bench mesh` runs it and holds the figures against our limits.
//!
//!     cargo bench -p rookery-gossip --bench mesh -- --nodes 100 --profile default --idle 30
//!
//! prints one line of JSON. Memory is the resident set of the process over the number of nodes, so the allocator is the server's own.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_gossip::{
    BoxFuture, Channel, Cluster, Config, Inbound, Limits, LinkEvent, MemberState, NodeId, Peer, Profile, Secret,
};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANNEL: Channel = Channel::new(0);

/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long nothing may change before a cluster counts as settled.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

struct Options {
    nodes: usize,
    seeds: usize,
    profile: Profile,
    idle: Duration,
    data: bool,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut options = Self {
            nodes: 100,
            seeds: 3,
            profile: Profile::Default,
            idle: Duration::from_secs(30),
            data: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || -> Result<usize, String> {
                let value = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
                value.parse().map_err(|_| format!("{arg}: {value} is no number"))
            };
            match arg.as_str() {
                "--nodes" => options.nodes = number()?.max(2),
                "--seeds" => options.seeds = number()?.max(1),
                "--idle" => options.idle = Duration::from_secs(number()? as u64),
                "--data" => options.data = true,
                "--profile" => {
                    options.profile = match args.next().as_deref() {
                        Some("default") => Profile::Default,
                        Some("lan") => Profile::Lan,
                        other => return Err(format!("{other:?} is no profile")),
                    }
                }
                // Cargo says this to every benchmark.
                "--bench" => {}
                other => return Err(format!("{other} is no option")),
            }
        }
        Ok(options)
    }
}

/// Keeps who was heard, and to whom something may have been lost.
#[derive(Default)]
struct Ear {
    heard: Mutex<BTreeSet<NodeId>>,
    lost: Mutex<Vec<NodeId>>,
}

impl Ear {
    fn heard(&self) -> usize {
        self.heard.lock().expect("nobody panics holding it").len()
    }

    fn take_lost(&self) -> Vec<NodeId> {
        std::mem::take(&mut *self.lost.lock().expect("nobody panics holding it"))
    }
}

impl Inbound for Ear {
    fn message(&self, from: &Peer, _: Channel, _: Bytes) {
        self.heard
            .lock()
            .expect("nobody panics holding it")
            .insert(from.node.clone());
    }

    fn request(&self, _: Peer, bytes: Bytes) -> BoxFuture<'static, Bytes> {
        Box::pin(std::future::ready(bytes))
    }

    fn link(&self, peer: &Peer, event: LinkEvent) {
        if matches!(event, LinkEvent::Lost { .. }) {
            let mut lost = self.lost.lock().expect("nobody panics holding it");
            lost.push(peer.node.clone());
        }
    }

    fn broadcast(&self, _: &Peer, _: &str, _: Bytes) {}
}

struct Node {
    cluster: Cluster,
    ear: Arc<Ear>,
}

/// Starts all nodes at once, the first few of them being everybody's seeds.
async fn start(options: &Options, shutdown: &CancellationToken) -> Vec<Node> {
    let sockets: Vec<UdpSocket> = (0..options.nodes)
        .map(|_| UdpSocket::bind("127.0.0.1:0").expect("loopback has ports"))
        .collect();
    let addrs: Vec<String> = sockets
        .iter()
        .map(|socket| socket.local_addr().expect("it is bound").to_string())
        .collect();
    let seeds = addrs[..options.seeds.min(addrs.len())].to_vec();
    let mut starting = tokio::task::JoinSet::new();
    for (index, (socket, advertise)) in sockets.into_iter().zip(addrs).enumerate() {
        let config = Config {
            node: format!("n{index}").parse().expect("a plain name"),
            generation: 1,
            cluster_name: "bench".into(),
            secret: Secret::new([7; 32]).expect("it is long enough"),
            secret_next: None,
            certificates: None,
            listen: socket.into(),
            advertise,
            seeds: seeds.clone(),
            dns: Vec::new(),
            poll_interval: Duration::from_secs(10),
            profile: options.profile,
            dns_server: None,
            limits: Limits::default(),
        };
        let shutdown = shutdown.clone();
        starting.spawn(async move {
            let ear = Arc::new(Ear::default());
            let cluster = Cluster::start(config, ear.clone(), shutdown)
                .await
                .expect("a node starts");
            // What a server states about itself.
            cluster
                .set_fact("client", "http://127.0.0.1:7700")
                .expect("a plain fact");
            cluster.set_fact("version", "0.1.0").expect("a plain fact");
            cluster.set_fact("load", "0").expect("a plain fact");
            cluster.set_state(MemberState::Ready);
            Node { cluster, ear }
        });
    }
    starting.join_all().await
}

fn all_see_all(nodes: &[Node]) -> bool {
    nodes
        .iter()
        .all(|node| node.cluster.members().borrow().count(MemberState::Ready) == nodes.len())
}

fn control_connections(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.cluster.stats().control_connections).sum()
}

/// Waits until a figure has not changed for a while, and returns it.
async fn settle(mut figure: impl FnMut() -> u64) -> u64 {
    let began = Instant::now();
    let (mut last, mut since) = (figure(), Instant::now());
    while since.elapsed() < SETTLED_AFTER && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = figure();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// Processor time of this process so far, user and system.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let after_name = stat.rsplit_once(')').expect("the name is in parentheses").1;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    // A tick is 10 ms on every Linux that we run on.
    Duration::from_millis(ticks * 10)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("every process has it");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number");
    kib * 1024
}

/// Percent of a core and MB that a node takes while nothing happens.
async fn idle(options: &Options) -> (f64, f64) {
    let (began, before) = (Instant::now(), cpu());
    tokio::time::sleep(options.idle).await;
    let share = (cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    let nodes = options.nodes as f64;
    (share * 100.0 / nodes, resident_bytes() as f64 / 1e6 / nodes)
}

/// How many dials are under way in all nodes.
fn dials(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.cluster.stats().dials_under_way).sum()
}

/// Lets every node say something to every other one, and again to those of whom it hears that it may be lost: a dial that its own end
/// gives up may have been taken by the other one. Returns how long it took until all were heard, and how often something was said again.
async fn open_every_data_connection(nodes: &[Node]) -> (Duration, u64) {
    let (began, mut again) = (Instant::now(), 0);
    let say = |node: &Node, to: &NodeId| {
        // A queue that is full holds what was said before.
        let _ = node.cluster.send(to, CHANNEL, Bytes::from_static(b"hello"));
    };
    for node in nodes {
        for other in nodes {
            if other.cluster.local() != node.cluster.local() {
                say(node, &other.cluster.local().node);
            }
        }
    }
    while nodes.iter().any(|node| node.ear.heard() < nodes.len() - 1) {
        if began.elapsed() > PATIENCE {
            let heard: Vec<usize> = nodes.iter().map(|node| node.ear.heard()).collect();
            panic!("not everybody heard everybody: {heard:?}");
        }
        for node in nodes {
            for lost in node.ear.take_lost() {
                again += 1;
                say(node, &lost);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (began.elapsed(), again)
}

#[tokio::main]
async fn main() {
    let options = Options::read().unwrap_or_else(|why| {
        eprintln!("mesh: {why}");
        std::process::exit(64);
    });
    let shutdown = CancellationToken::new();
    let empty_mb = resident_bytes() as f64 / 1e6;
    let began = Instant::now();
    let nodes = start(&options, &shutdown).await;
    let started = began.elapsed();
    let mut dials_most = 0;
    while !all_see_all(&nodes) {
        if began.elapsed() > PATIENCE {
            let counts: Vec<_> = nodes
                .iter()
                .map(|node| node.cluster.members().borrow().count(MemberState::Ready))
                .collect();
            for node in nodes.iter().take(3) {
                eprintln!("{:?}", node.cluster.stats());
            }
            panic!("not everybody sees everybody ready: {counts:?}");
        }
        dials_most = dials(&nodes).max(dials_most);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (live, live_cpu, live_connections) = (began.elapsed(), cpu(), control_connections(&nodes));
    let connections = settle(|| control_connections(&nodes)).await;
    let (settled, settled_cpu) = (began.elapsed() - SETTLED_AFTER, cpu());
    let (idle_percent, idle_mb) = idle(&options).await;
    print!(
        "{{\"nodes\":{},\"started_s\":{:.2},\"live_s\":{:.2},\"live_cpu_s\":{:.2},\"live_connections\":{live_connections},\"dials_most\":{dials_most},\"settled_s\":{:.1},\"settled_cpu_s\":{:.2},\"connections\":{connections},\"idle_cpu_percent_per_node\":{idle_percent:.3},\"idle_mb_per_node\":{idle_mb:.2},\"empty_mb\":{empty_mb:.1}",
        options.nodes,
        started.as_secs_f64(),
        live.as_secs_f64(),
        live_cpu.as_secs_f64(),
        settled.as_secs_f64(),
        settled_cpu.as_secs_f64(),
    );
    if options.data {
        let (opened, again) = open_every_data_connection(&nodes).await;
        let data = settle(|| nodes.iter().map(|node| node.cluster.stats().data_connections).sum()).await;
        let (percent, mb) = idle(&options).await;
        print!(
            ",\"data_opened_s\":{:.2},\"said_again\":{again},\"data_connections\":{data},\"data_cpu_percent_per_node\":{percent:.3},\"data_mb_per_node\":{mb:.2}",
            opened.as_secs_f64()
        );
    }
    let (mut suspicions, mut failures, mut dropped, mut ticks, mut late) = (0, 0, 0, 0, 0);
    let mut late_max = Duration::ZERO;
    for node in &nodes {
        let stats = node.cluster.stats();
        suspicions += stats.suspicions_total;
        failures += stats.dial_failures_total;
        dropped += stats.gossip_dropped_total;
        ticks += stats.gossip_ticks_total;
        late += stats.gossip_ticks_late_20ms_total;
        late_max = stats.gossip_tick_late_max.max(late_max);
    }
    println!(
        ",\"suspicions\":{suspicions},\"dial_failures\":{failures},\"gossip_dropped\":{dropped},\"ticks\":{ticks},\"ticks_late_20ms\":{late},\"tick_late_max_ms\":{:.1}}}",
        late_max.as_secs_f64() * 1e3
    );
    shutdown.cancel();
}
