//! Links between nodes that a test can cut and slow down: each node is told the address of a relay of every other node, and the relay
//! drops, delays, reorders or doubles what nodes say to each other. Sockets stay open and nobody is told, as with a cable that is
//! pulled.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Network, side_of};
use crate::free_ports;

/// The largest datagram.
const DATAGRAM_MAX: usize = 65_535;

/// Datagrams that are late at one time; more than these are lost, as in a router whose queue is full.
const LATE_LEN_MAX: usize = 65_536;

/// What happens to datagrams on their way. Each direction between two nodes draws from a generator of its own, so its nth datagram
/// has the same fate in every run of the same seed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// The share that is lost, from 0 to 1.
    pub loss: f64,
    /// The share that comes twice.
    pub duplicate: f64,
    /// How long each is on its way.
    pub delay: Duration,
    /// By how much longer at most; drawn for each, so that later ones overtake.
    pub jitter: Duration,
    /// The share that is held back until those after it have passed, for `held`.
    pub reorder: f64,
    pub held: Duration,
}

impl Weather {
    /// When each copy of a datagram arrives, counted from when it was sent; none when it is lost.
    fn fate(&self, random: &mut StdRng) -> Vec<Duration> {
        // All are drawn, so that the fate of one datagram does not shift those of the next.
        let (lost, doubled, held) = (random.random::<f64>(), random.random::<f64>(), random.random::<f64>());
        let jitters = [random.random::<f64>(), random.random::<f64>()];
        if lost < self.loss {
            return Vec::new();
        }
        let held = if held < self.reorder { self.held } else { Duration::ZERO };
        let copies = if doubled < self.duplicate { 2 } else { 1 };
        let late = |jitter: &f64| self.delay + held + self.jitter.mul_f64(*jitter);
        jitters.iter().take(copies).map(late).collect()
    }
}

/// What is between the nodes, and how much was dropped.
#[derive(Debug)]
struct Sky {
    cuts: Mutex<BTreeSet<(usize, usize)>>,
    ways: Mutex<Ways>,
    dropped: AtomicU64,
    late: mpsc::Sender<Late>,
}

#[derive(Debug)]
struct Ways {
    seed: u64,
    everywhere: Weather,
    /// Where it differs from everywhere.
    weather: BTreeMap<(usize, usize), Weather>,
    random: BTreeMap<(usize, usize), StdRng>,
}

impl Sky {
    fn cuts(&self) -> MutexGuard<'_, BTreeSet<(usize, usize)>> {
        self.cuts.lock().expect("no thread panics holding it")
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().expect("no thread panics holding it")
    }

    /// Brings a datagram to its end, or does not. A sender that is none of the nodes has fair weather.
    async fn carry(
        &self,
        from: Option<usize>,
        to: Option<usize>,
        datagram: &[u8],
        on: &Arc<UdpSocket>,
        at: Option<SocketAddr>,
    ) {
        let (Some(from), Some(to)) = (from, to) else {
            put(on, at, datagram).await;
            return;
        };
        if self.cuts().contains(&(from, to)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let arrivals = {
            let mut ways = self.ways();
            let Ways {
                seed,
                everywhere,
                weather,
                random,
            } = &mut *ways;
            let weather = weather.get(&(from, to)).unwrap_or(everywhere);
            if *weather == Weather::default() {
                vec![Duration::ZERO]
            } else {
                let seed = *seed ^ (from as u64) << 32 ^ (to as u64) << 48;
                weather.fate(random.entry((from, to)).or_insert_with(|| StdRng::seed_from_u64(seed)))
            }
        };
        if arrivals.is_empty() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        for late in arrivals {
            if late.is_zero() {
                put(on, at, datagram).await;
                continue;
            }
            let late = Late {
                due: Instant::now() + late,
                datagram: datagram.to_vec(),
                on: Arc::clone(on),
                at,
                way: (from, to),
            };
            if self.late.try_send(late).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn put(on: &UdpSocket, at: Option<SocketAddr>, datagram: &[u8]) {
    // A datagram that nobody takes is like one that was lost.
    let _ = match at {
        Some(at) => on.send_to(datagram, at).await,
        None => on.send(datagram).await,
    };
}

/// A datagram that is on its way.
#[derive(Debug)]
struct Late {
    due: Instant,
    datagram: Vec<u8>,
    on: Arc<UdpSocket>,
    at: Option<SocketAddr>,
    way: (usize, usize),
}

/// Delivers what is late when it is due.
async fn deliver(sky: std::sync::Weak<Sky>, mut late: mpsc::Receiver<Late>) {
    let mut waiting: BTreeMap<u64, Late> = BTreeMap::new();
    let mut order: BinaryHeap<std::cmp::Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut number = 0;
    loop {
        let next = order.peek().map(|next| next.0.0);
        let due = async {
            match next {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {
                let std::cmp::Reverse((_, number)) = order.pop().expect("it was just there");
                let Some(late) = waiting.remove(&number) else { continue };
                let Some(sky) = sky.upgrade() else { return };
                // A link that was cut meanwhile has lost what was on it.
                let is_cut = sky.cuts().contains(&late.way);
                if is_cut {
                    sky.dropped.fetch_add(1, Ordering::Relaxed);
                } else {
                    put(&late.on, late.at, &late.datagram).await;
                }
            }
            came = late.recv() => {
                let Some(came) = came else { return };
                if waiting.len() < LATE_LEN_MAX {
                    order.push(std::cmp::Reverse((came.due, number)));
                    waiting.insert(number, came);
                    number += 1;
                } else if let Some(sky) = sky.upgrade() {
                    sky.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The relays of a cluster's nodes. They run until this is dropped.
#[derive(Debug)]
pub struct Relays {
    /// Where each node listens, and where it says that it does.
    nodes: Vec<(SocketAddr, SocketAddr)>,
    sky: Arc<Sky>,
    _tasks: JoinSet<()>,
}

impl Relays {
    /// Starts relays with fair weather.
    pub async fn start(nodes: usize) -> Self {
        Self::seeded(nodes, 1).await
    }

    /// Starts relays whose weather, once there is any, comes from this seed.
    pub async fn seeded(nodes: usize, seed: u64) -> Self {
        let ports = free_ports(nodes);
        let listens: Vec<SocketAddr> = ports
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
            .collect();
        let (late, late_ones) = mpsc::channel(LATE_LEN_MAX);
        let sky = Arc::new(Sky {
            cuts: Mutex::default(),
            ways: Mutex::new(Ways {
                seed,
                everywhere: Weather::default(),
                weather: BTreeMap::new(),
                random: BTreeMap::new(),
            }),
            dropped: AtomicU64::new(0),
            late,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(deliver(Arc::downgrade(&sky), late_ones));
        let mut relays = Vec::new();
        for (node, listen) in listens.iter().enumerate() {
            let relay = UdpSocket::bind("127.0.0.1:0").await.expect("there are free ports");
            relays.push((*listen, relay.local_addr().expect("it is bound")));
            tasks.spawn(run(Arc::new(relay), node, listens.clone(), Arc::clone(&sky)));
        }
        Self {
            nodes: relays,
            sky,
            _tasks: tasks,
        }
    }

    /// Sets what happens to datagrams between all nodes.
    pub fn weather(&self, weather: Weather) {
        let mut ways = self.sky.ways();
        ways.everywhere = weather;
        ways.weather.clear();
    }

    /// Sets what happens to datagrams in one direction between two nodes.
    pub fn weather_one_way(&self, from: usize, to: usize, weather: Weather) {
        self.sky.ways().weather.insert((from, to), weather);
    }

    /// Datagrams that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.sky.dropped.load(Ordering::Relaxed)
    }
}

impl Network for Relays {
    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn listen(&self, node: usize) -> SocketAddr {
        self.nodes[node].0
    }

    fn advertised(&self, node: usize) -> SocketAddr {
        self.nodes[node].1
    }

    fn enter(&self, _: usize) -> Vec<String> {
        Vec::new()
    }

    fn cut_one_way(&self, from: usize, to: usize) {
        self.sky.cuts().insert((from, to));
    }

    fn heal_one_way(&self, from: usize, to: usize) {
        self.sky.cuts().remove(&(from, to));
    }

    fn partition(&self, sides: &[&[usize]]) {
        let nodes = 0..self.nodes.len();
        let pairs = nodes.clone().flat_map(|from| nodes.clone().map(move |to| (from, to)));
        let apart = pairs.filter(|(from, to)| side_of(sides, *from) != side_of(sides, *to));
        self.sky.cuts().extend(apart);
    }

    fn isolate(&self, node: usize) {
        self.partition(&[&[node]]);
    }

    fn heal_all(&self) {
        self.sky.cuts().clear();
    }
}

/// Carries what comes for one node: each source has a socket of its own towards it, on which the answers come back.
async fn run(relay: Arc<UdpSocket>, node: usize, listens: Vec<SocketAddr>, sky: Arc<Sky>) {
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
                let (relay, back, sky) = (Arc::clone(&relay), Arc::clone(&way), Arc::clone(&sky));
                answering.spawn(async move {
                    let mut datagram = vec![0; DATAGRAM_MAX];
                    loop {
                        if let Ok(length) = back.recv(&mut datagram).await {
                            sky.carry(Some(node), from, &datagram[..length], &relay, Some(source))
                                .await;
                        }
                    }
                });
                way
            }
        };
        sky.carry(from, Some(node), &datagram[..length], &way, None).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_weather_in_every_run() {
        let weather = Weather {
            loss: 0.2,
            duplicate: 0.1,
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(5),
            reorder: 0.1,
            held: Duration::from_millis(50),
        };
        let fates = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            (0..1_000).map(|_| weather.fate(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        let fates = fates(7);
        let share = |is: fn(&Vec<Duration>) -> bool| fates.iter().filter(|fate| is(fate)).count();
        assert!((150..250).contains(&share(|fate| fate.is_empty())), "a fifth is lost");
        assert!(
            (50..120).contains(&share(|fate| fate.len() == 2)),
            "a tenth of the rest comes twice"
        );
        assert!(
            (50..120).contains(&share(|fate| fate.iter().any(|late| late.as_millis() > 50))),
            "a tenth is held back"
        );
    }

    #[tokio::test]
    async fn relays_cut_one_way_and_pairs_and_sides() {
        let relays = Relays::start(3).await;
        let mut sockets = Vec::new();
        for node in 0..3 {
            sockets.push(UdpSocket::bind(relays.listen(node)).await.unwrap());
        }
        // A word goes from one node to another and an answer comes back; which of the two arrived.
        let talk = async |one: usize, other: usize| {
            let mut buffer = [0; 16];
            let wait = Duration::from_millis(300);
            sockets[one].send_to(b"word", relays.advertised(other)).await.unwrap();
            let Ok(Ok((_, source))) = tokio::time::timeout(wait, sockets[other].recv_from(&mut buffer)).await else {
                return (false, false);
            };
            sockets[other].send_to(b"answer", source).await.unwrap();
            let answer = tokio::time::timeout(wait, sockets[one].recv_from(&mut buffer)).await;
            (true, answer.is_ok())
        };
        assert_eq!(talk(0, 1).await, (true, true));
        relays.cut_one_way(1, 0);
        assert_eq!(talk(0, 1).await, (true, false));
        assert_eq!(talk(1, 0).await, (false, false));
        relays.heal_one_way(1, 0);
        relays.cut(0, 1);
        assert_eq!(talk(0, 1).await, (false, false));
        assert_eq!(talk(0, 2).await, (true, true));
        relays.heal(0, 1);
        relays.partition(&[&[0, 1], &[2]]);
        assert_eq!(talk(0, 1).await, (true, true));
        assert_eq!(talk(2, 1).await, (false, false));
        relays.heal_all();
        relays.isolate(1);
        assert_eq!(talk(2, 1).await, (false, false));
        assert_eq!(talk(2, 0).await, (true, true));
        relays.heal_all();
        relays.weather(Weather {
            delay: Duration::from_millis(50),
            ..Weather::default()
        });
        let began = Instant::now();
        assert_eq!(talk(1, 2).await, (true, true));
        assert!(began.elapsed() >= Duration::from_millis(100), "50 ms each way");
        relays.weather_one_way(
            1,
            2,
            Weather {
                loss: 1.0,
                ..Weather::default()
            },
        );
        assert_eq!(talk(1, 2).await, (false, false));
        assert!(relays.dropped() > 4);
    }
}
