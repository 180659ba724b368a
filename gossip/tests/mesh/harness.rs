//! Nodes of a mesh for tests, what they received, and what they logged.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_gossip::{
    BoxFuture, CertificateFiles, Changes, Channel, Cluster, Config, Inbound, Limits, LinkEvent, Member, MemberState,
    Members, NodeId, Peer, Profile, Secret, StartError,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) const ONE: Channel = Channel::new(0);
pub(crate) const OTHER: Channel = Channel::new(7);

pub(crate) fn number(index: u64) -> Bytes {
    Bytes::copy_from_slice(&index.to_le_bytes())
}

pub(crate) fn numbers(inbox: &Inbox, channel: Channel) -> Vec<u64> {
    let messages = inbox.messages(channel);
    messages
        .iter()
        .map(|bytes| u64::from_le_bytes(bytes[..8].try_into().unwrap()))
        .collect()
}

pub(crate) fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32]).unwrap()
}

/// Waits until something is so; fails after 15 s.
#[track_caller]
pub(crate) fn eventually(condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    eventually_for(Duration::from_secs(15), condition)
}

#[track_caller]
pub(crate) fn eventually_for(bound: Duration, mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < bound, "not so within {bound:?}: {caller}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Everything that was logged in this process, and nothing of it on the terminal.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// How many lines contain this text, followed by nothing that would lengthen its last word.
    pub(crate) fn count(&self, text: &str) -> usize {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric());
        log.lines()
            .filter(|line| line.split_once(text).is_some_and(|(_, rest)| ends(rest)))
            .count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn log() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO);
        subscriber.with_writer(move || writer.clone()).init();
        log
    })
    .clone()
}

/// Keeps what a node is handed.
#[derive(Default)]
pub(crate) struct Inbox {
    name: String,
    messages: Mutex<BTreeMap<Channel, Vec<Bytes>>>,
    events: Mutex<Vec<(Peer, LinkEvent)>>,
    broadcasts: Mutex<Vec<(String, String, Bytes)>>,
}

impl Inbox {
    pub(crate) fn messages(&self, channel: Channel) -> Vec<Bytes> {
        self.messages.lock().unwrap().get(&channel).cloned().unwrap_or_default()
    }

    pub(crate) fn count(&self, channel: Channel) -> usize {
        self.messages.lock().unwrap().get(&channel).map_or(0, Vec::len)
    }

    pub(crate) fn broadcasts(&self) -> Vec<(String, String, Bytes)> {
        self.broadcasts.lock().unwrap().clone()
    }

    pub(crate) fn events(&self) -> Vec<LinkEvent> {
        self.events.lock().unwrap().iter().map(|(_, event)| *event).collect()
    }

    /// How often each channel heard that something may be lost.
    pub(crate) fn lost(&self) -> BTreeMap<Channel, u64> {
        let mut lost = BTreeMap::new();
        for event in self.events() {
            if let LinkEvent::Lost { channel } = event {
                *lost.entry(channel).or_default() += 1;
            }
        }
        lost
    }

    pub(crate) fn gone(&self) -> Vec<Peer> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter(|(_, event)| *event == LinkEvent::Gone)
            .map(|(peer, _)| peer.clone())
            .collect()
    }
}

impl Inbound for Inbox {
    fn message(&self, _: &Peer, channel: Channel, bytes: Bytes) {
        self.messages.lock().unwrap().entry(channel).or_default().push(bytes);
    }

    fn request(&self, from: Peer, bytes: Bytes) -> BoxFuture<'static, Bytes> {
        assert_ne!(from.node.as_str(), self.name);
        Box::pin(async move {
            if bytes[..] == b"never"[..] {
                std::future::pending::<()>().await;
            }
            [&bytes[..], b" from ", from.node.as_str().as_bytes()].concat().into()
        })
    }

    fn link(&self, peer: &Peer, event: LinkEvent) {
        self.events.lock().unwrap().push((peer.clone(), event));
    }

    fn broadcast(&self, from: &Peer, group: &str, bytes: Bytes) {
        self.broadcasts
            .lock()
            .unwrap()
            .push((from.node.to_string(), group.to_owned(), bytes));
    }
}

#[derive(Clone)]
pub(crate) struct NodeOptions {
    pub(crate) secret: Secret,
    pub(crate) secret_next: Option<Secret>,
    pub(crate) certificates: Option<CertificateFiles>,
    pub(crate) cluster_name: &'static str,
    pub(crate) seeds: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_server: Option<SocketAddr>,
    pub(crate) profile: Profile,
    pub(crate) generation: u64,
    pub(crate) port: u16,
    pub(crate) socket: Option<Arc<UdpSocket>>,
    pub(crate) advertise: Option<String>,
    pub(crate) queue_bytes: usize,
    pub(crate) keys_soft: usize,
    pub(crate) groups_max: usize,
    pub(crate) peers: usize,
    pub(crate) everyone_is_a_seed: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            secret: secret(1),
            secret_next: None,
            certificates: None,
            cluster_name: "rookery",
            seeds: Vec::new(),
            dns: Vec::new(),
            dns_server: None,
            profile: Profile::Lan,
            generation: 1,
            port: 0,
            socket: None,
            advertise: None,
            queue_bytes: Limits::default().queue_bytes,
            keys_soft: Limits::default().keys_soft,
            groups_max: Limits::default().groups_max,
            peers: Limits::default().peers,
            everyone_is_a_seed: false,
        }
    }
}

pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) inbox: Arc<Inbox>,
    shutdown: CancellationToken,
    /// A runtime of its own, for a node that is to be killed.
    runtime: Option<Runtime>,
}

impl Node {
    pub(crate) async fn start(name: &str, options: NodeOptions) -> Node {
        Self::try_start(name, options).await.unwrap()
    }

    pub(crate) async fn try_start(name: &str, options: NodeOptions) -> Result<Node, StartError> {
        log();
        let socket = match &options.socket {
            Some(socket) => socket.try_clone().unwrap(),
            None => bind(options.port).await,
        };
        let config = Config {
            node: name.parse().unwrap(),
            generation: options.generation,
            cluster_name: options.cluster_name.into(),
            secret: options.secret,
            secret_next: options.secret_next,
            certificates: options.certificates,
            advertise: options
                .advertise
                .unwrap_or_else(|| socket.local_addr().unwrap().to_string()),
            listen: socket.into(),
            seeds: options.seeds,
            dns: options.dns,
            poll_interval: Duration::from_secs(10),
            profile: options.profile,
            dns_server: options.dns_server,
            limits: Limits {
                queue_bytes: options.queue_bytes,
                keys_soft: options.keys_soft,
                groups_max: options.groups_max,
                peers: options.peers,
                ..Limits::default()
            },
        };
        let inbox = Arc::new(Inbox {
            name: name.into(),
            ..Inbox::default()
        });
        let shutdown = CancellationToken::new();
        let cluster = Cluster::start(config, inbox.clone(), shutdown.clone()).await?;
        cluster.set_state(MemberState::Ready);
        Ok(Node {
            cluster,
            inbox,
            shutdown,
            runtime: None,
        })
    }

    /// Starts a node in a runtime of its own.
    pub(crate) fn start_apart(name: &str, options: NodeOptions) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let name = name.to_owned();
        let starting = runtime.spawn(async move { Node::start(&name, options).await });
        let mut node = tokio::task::block_in_place(|| runtime.block_on(starting)).unwrap();
        node.runtime = Some(runtime);
        node
    }

    /// Stops a node that was started apart as a crash would, without a word to anybody. Returns its port.
    pub(crate) fn kill(mut self) -> u16 {
        let port = self.cluster.local().addr.rsplit_once(':').unwrap().1.parse().unwrap();
        self.runtime
            .take()
            .expect("only a node that was started apart can be killed")
            .shutdown_background();
        // Shutting the runtime down takes a moment, and a task that still ran would see the token and say goodbye.
        self.shutdown = CancellationToken::new();
        port
    }

    /// Holds up everything that a node which was started apart does, as a stopped process would be.
    pub(crate) fn pause(&self, duration: Duration) {
        let runtime = self
            .runtime
            .as_ref()
            .expect("only a node that was started apart can be paused");
        runtime.spawn(async move { std::thread::sleep(duration) });
    }

    /// Starts nodes n0, n1, … and waits until all see each other ready.
    pub(crate) async fn cluster(count: usize, options: NodeOptions) -> Vec<Node> {
        let sockets: Vec<_> = (0..count)
            .map(|_| Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap()))
            .collect();
        let addrs: Vec<String> = sockets
            .iter()
            .map(|socket| socket.local_addr().unwrap().to_string())
            .collect();
        let seeds = if options.everyone_is_a_seed {
            addrs
        } else {
            vec![addrs[0].clone()]
        };
        let mut nodes = Vec::new();
        for (index, socket) in sockets.into_iter().enumerate() {
            let options = NodeOptions {
                socket: Some(socket),
                seeds: seeds.clone(),
                ..options.clone()
            };
            nodes.push(Node::start(&format!("n{index}"), options).await);
        }
        eventually_for(Duration::from_secs(30), || {
            nodes.iter().all(|node| node.count(MemberState::Ready) == count)
        })
        .await;
        nodes
    }

    pub(crate) fn name(&self) -> NodeId {
        self.cluster.local().node.clone()
    }

    pub(crate) fn addr(&self) -> String {
        self.cluster.local().addr.clone()
    }

    pub(crate) fn count(&self, state: MemberState) -> usize {
        self.cluster.members().borrow().count(state)
    }

    pub(crate) fn member(&self, name: &str) -> Option<Member> {
        self.cluster.members().borrow().get(&name.parse().unwrap()).cloned()
    }

    /// Whether folding the stream up to now gives the members that are shown.
    pub(crate) fn agrees(&self, changes: &mut Changes) -> bool {
        while changes.try_next().is_some() {}
        let shown = self.cluster.members().borrow().clone();
        let of = |members: &Members| -> Vec<Member> {
            let members = members.iter().cloned();
            members.map(|member| Member { rtt: None, ..member }).collect()
        };
        of(changes.members()) == of(&shown)
    }

    pub(crate) fn members(&self) -> Vec<String> {
        self.cluster
            .members()
            .borrow()
            .iter()
            .map(|member| member.peer.node.to_string())
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A killed node's socket may take a moment to go.
async fn bind(port: u16) -> UdpSocket {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let start = Instant::now();
    loop {
        match UdpSocket::bind(addr) {
            Ok(socket) => return socket,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(5), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
