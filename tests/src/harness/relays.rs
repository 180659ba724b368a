//! Links between nodes that a test can cut: each node is told the address of a relay of every other node, and the relay drops
//! what two nodes that are cut off from each other say. Sockets stay open and nobody is told, as with a cable that is pulled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::{Builder, free_udp_ports};

/// The largest datagram.
const DATAGRAM_MAX: usize = 65_535;

/// What is cut, and how much was dropped by it.
#[derive(Debug, Default)]
struct Cuts {
    pairs: Mutex<BTreeSet<(usize, usize)>>,
    dropped: AtomicU64,
}

impl Cuts {
    /// Whether a datagram between these two arrives.
    fn passes(&self, one: Option<usize>, other: usize) -> bool {
        let Some(one) = one else { return true };
        let is_cut = self
            .pairs
            .lock()
            .expect("no thread panics holding it")
            .contains(&pair(one, other));
        if is_cut {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        !is_cut
    }
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

/// The relays of a cluster's nodes. They run until this is dropped.
#[derive(Debug)]
pub struct Relays {
    /// Where each node listens, and where it says that it does.
    nodes: Vec<(SocketAddr, SocketAddr)>,
    cuts: Arc<Cuts>,
    _tasks: JoinSet<()>,
}

impl Relays {
    pub async fn start(nodes: usize) -> Self {
        let ports = free_udp_ports(nodes);
        let listens: Vec<SocketAddr> = ports
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
            .collect();
        let (cuts, mut tasks) = (Arc::new(Cuts::default()), JoinSet::new());
        let mut relays = Vec::new();
        for (node, listen) in listens.iter().enumerate() {
            let relay = UdpSocket::bind("127.0.0.1:0").await.expect("there are free ports");
            relays.push((*listen, relay.local_addr().expect("it is bound")));
            tasks.spawn(run(Arc::new(relay), node, listens.clone(), Arc::clone(&cuts)));
        }
        Self {
            nodes: relays,
            cuts,
            _tasks: tasks,
        }
    }

    /// Makes every node of the cluster speak to the others through the relays.
    pub fn between(&self, builder: Builder) -> Builder {
        let (_, first) = self.nodes[0];
        self.nodes
            .iter()
            .enumerate()
            .fold(builder, |builder, (node, (listen, relay))| {
                let builder = builder
                    .set_on(node, "listen.peer", listen)
                    .set_on(node, "advertise.peer", relay);
                match node {
                    0 => builder,
                    _ => builder.set_on(node, "cluster.seeds", first),
                }
            })
    }

    /// Nothing that these two say to each other arrives any more.
    pub fn cut(&self, one: usize, other: usize) {
        let mut pairs = self.cuts.pairs.lock().expect("no thread panics holding it");
        pairs.insert(pair(one, other));
    }

    pub fn heal(&self, one: usize, other: usize) {
        let mut pairs = self.cuts.pairs.lock().expect("no thread panics holding it");
        pairs.remove(&pair(one, other));
    }

    /// Datagrams that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.cuts.dropped.load(Ordering::Relaxed)
    }
}

/// Carries what comes for one node: each source has a socket of its own towards it, on which the answers come back.
async fn run(relay: Arc<UdpSocket>, node: usize, listens: Vec<SocketAddr>, cuts: Arc<Cuts>) {
    let mut ways: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answering = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        // An error here is of a datagram that nobody took, which is like one that was lost.
        let Ok((length, source)) = relay.recv_from(&mut datagram).await else {
            continue;
        };
        let from = listens.iter().position(|listen| *listen == source);
        let way = match ways.get(&source) {
            Some(way) => Arc::clone(way),
            None => {
                let way = UdpSocket::bind("127.0.0.1:0").await.expect("there are free ports");
                way.connect(listens[node]).await.expect("loopback is there");
                let way = Arc::new(way);
                ways.insert(source, Arc::clone(&way));
                let (relay, back, cuts) = (Arc::clone(&relay), Arc::clone(&way), Arc::clone(&cuts));
                answering.spawn(async move {
                    let mut datagram = vec![0; DATAGRAM_MAX];
                    loop {
                        if let Ok(length) = back.recv(&mut datagram).await
                            && cuts.passes(from, node)
                        {
                            let _ = relay.send_to(&datagram[..length], source).await;
                        }
                    }
                });
                way
            }
        };
        if cuts.passes(from, node) {
            let _ = way.send(&datagram[..length]).await;
        }
    }
}
