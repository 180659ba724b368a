//! A node that is nothing but its mesh, for tests: real process, real sockets, and no server. It does what it is told on standard
//! input and says on standard output what it sees, in the words of `order.rs`; it ends when standard input does. It logs to standard
//! error (`RUST_LOG`).

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, Write};
use std::net::UdpSocket;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rookery_gossip::{
    BoxFuture, ChangeKind, Changes, Channel, Cluster, Config, Departure, Inbound, Limits, LinkEvent, MemberState,
    Membership, Peer, Profile, Secret, SendError, Stats,
};
use rookery_mesh_tests::{Answer, Event, EventKind, Numbered, Order, Pace, Report, Said, Seen, Setup, Tally, Try};
use rookery_mesh_tests::{now_us, used_us};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

// As the server has it: what is measured of memory here should hold there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often the nodes of watched groups are looked at. The handle has no other way to hear of their changes.
const LOOK_AT_GROUPS_EVERY: Duration = Duration::from_millis(2);

/// Between two turns of `Order::Churn`.
const CHURN_EVERY: Duration = Duration::from_millis(5);

/// Orders that wait; whoever writes them waits when there are more.
const ORDERS_LEN_MAX: usize = 1_024;

/// How long a sender waits for room when it has missed the word that there is some.
const ROOM_TIMEOUT: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    // A test that is killed takes its nodes with it, stopped ones too.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,rookery_gossip=debug,chitchat=warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let setup = std::env::args().nth(1).unwrap_or_default();
    let setup: Setup = match serde_json::from_str(&setup) {
        Ok(setup) => setup,
        Err(error) => {
            eprintln!("the one argument is a setup in JSON (tests/mesh/src/order.rs): {error}");
            return ExitCode::from(64);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = runtime.expect("a runtime can be built").block_on(run(setup));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(setup: Setup) -> Result<(), String> {
    let inbox = Arc::new(Inbox {
        name: setup.name.clone(),
        generation: match setup.generation {
            0 => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| since.as_millis() as u64),
            given => given,
        },
        ..Inbox::default()
    });
    let cluster = start(&setup, inbox.clone()).await?;
    cluster.set_state(MemberState::Ready);
    say(EventKind::Ready {
        generation: inbox.generation,
        addr: cluster.local().addr.clone(),
    });
    let node = Node {
        cluster,
        inbox,
        memberships: Mutex::default(),
        watched: watch::Sender::default(),
    };
    let node = Arc::new(node);
    tokio::spawn(say_members(node.cluster.changes()));
    tokio::spawn(say_groups(node.clone()));
    let mut orders = orders();
    loop {
        tokio::select! {
            fault = node.cluster.closed() => {
                say(EventKind::Fault { why: fault.to_string() });
                return Err(fault.to_string());
            }
            order = orders.recv() => {
                let Some(Numbered { id, order }) = order else {
                    return Ok(());
                };
                if matches!(order, Order::Goodbye) {
                    node.cluster.leave().await;
                    answer(id, Answer::Done);
                    return Ok(());
                }
                let node = node.clone();
                tokio::spawn(async move { answer(id, node.obey(order).await) });
            }
        }
    }
}

async fn start(setup: &Setup, inbox: Arc<Inbox>) -> Result<Cluster, String> {
    let socket =
        UdpSocket::bind(setup.listen).map_err(|error| format!("cannot listen on {}: {error}", setup.listen))?;
    let bound = socket.local_addr().map_err(|error| error.to_string())?;
    let config = Config {
        node: setup.name.parse().map_err(|error| format!("{error}"))?,
        generation: inbox.generation,
        cluster_name: setup.cluster_name.clone(),
        secret: Secret::new(&setup.secret).map_err(|error| error.to_string())?,
        secret_next: None,
        certificates: None,
        listen: socket.into(),
        advertise: setup.advertise.clone().unwrap_or_else(|| bound.to_string()),
        seeds: setup.seeds.clone(),
        dns: setup.dns.clone(),
        poll_interval: Duration::from_millis(setup.poll_ms),
        profile: match setup.profile {
            Pace::Default => Profile::Default,
            Pace::Lan => Profile::Lan,
        },
        dns_server: None,
        limits: Limits::default(),
    };
    let started = Cluster::start(config, inbox, CancellationToken::new()).await;
    started.map_err(|error| error.to_string())
}

/// Reads orders in a thread of its own, for as long as there are any.
fn orders() -> mpsc::Receiver<Numbered> {
    let (send, orders) = mpsc::channel(ORDERS_LEN_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            match serde_json::from_str(&line) {
                Ok(order) => {
                    if send.blocking_send(order).is_err() {
                        return;
                    }
                }
                Err(error) => eprintln!("this is no order ({error}): {line}"),
            }
        }
    });
    orders
}

fn say(kind: EventKind) {
    print(&Said::Event(Event { at_us: now_us(), kind }));
}

fn answer(id: u64, answer: Answer) {
    print(&Said::Answer {
        id,
        at_us: now_us(),
        answer,
    });
}

fn print(said: &Said) {
    let mut line = serde_json::to_vec(said).expect("these types have a form in JSON");
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    // Whoever listened has gone, and standard input ends as well.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

/// Says each transition of a member.
async fn say_members(mut changes: Changes) {
    while let Some(change) = changes.next().await {
        let state = match change.kind {
            ChangeKind::Arrived { state, .. } | ChangeKind::Remembered { state, .. } => Some(state),
            ChangeKind::State { to, .. } => Some(to),
            ChangeKind::Facts { .. } => continue,
            ChangeKind::Departed { why: Departure::Died } => Some(MemberState::Dead),
            ChangeKind::Departed { why: Departure::Left } => Some(MemberState::Leaving),
            ChangeKind::Departed {
                why: Departure::Superseded | Departure::Missed,
            }
            | ChangeKind::Forgotten => None,
        };
        say(EventKind::Member {
            node: change.peer.node.to_string(),
            generation: change.peer.generation,
            state: state.map(|state| state.to_string()),
        });
    }
}

/// Says each change of the nodes of watched groups.
async fn say_groups(node: Arc<Node>) {
    let mut watched = node.watched.subscribe();
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut looks = interval(LOOK_AT_GROUPS_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let groups = watched.borrow_and_update().clone();
        if groups.is_empty() {
            shown.clear();
            if watched.changed().await.is_err() {
                return;
            }
            continue;
        }
        shown.retain(|group, _| groups.contains_key(group));
        for group in groups.keys() {
            let nodes = node.nodes(group);
            if shown.get(group) != Some(&nodes) {
                say(EventKind::Group {
                    group: group.clone(),
                    nodes: nodes.clone(),
                });
                shown.insert(group.clone(), nodes);
            }
        }
        looks.tick().await;
    }
}

struct Node {
    cluster: Cluster,
    inbox: Arc<Inbox>,
    memberships: Mutex<BTreeMap<String, Vec<Membership>>>,
    watched: watch::Sender<BTreeMap<String, ()>>,
}

impl Node {
    fn nodes(&self, group: &str) -> Vec<String> {
        let mut nodes: Vec<String> = self.cluster.nodes(group).iter().map(ToString::to_string).collect();
        nodes.sort_unstable();
        nodes
    }

    fn memberships(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Membership>>> {
        self.memberships.lock().expect("nothing panics under this lock")
    }

    async fn obey(&self, order: Order) -> Answer {
        match order {
            Order::Join { groups } => self.join(groups),
            Order::Leave { groups } => {
                let mut memberships = self.memberships();
                for group in groups {
                    if memberships.get_mut(&group).and_then(Vec::pop).is_none() {
                        let why = format!("this node is not in {group}");
                        return Answer::Refused { why };
                    }
                    memberships.retain(|_, held| !held.is_empty());
                }
                Answer::Done
            }
            Order::Fact { key, value } => done(self.cluster.set_fact(&key, &value)),
            Order::RemoveFact { key } => {
                self.cluster.remove_fact(&key);
                Answer::Done
            }
            Order::State { state } => match MemberState::ALL.into_iter().find(|known| known.as_str() == state) {
                Some(state) => {
                    self.cluster.set_state(state);
                    Answer::Done
                }
                None => Answer::Refused {
                    why: format!("{state} is no state"),
                },
            },
            Order::Groups { groups } => {
                let nodes = groups.into_iter().map(|group| (group.clone(), self.nodes(&group)));
                Answer::Groups { nodes: nodes.collect() }
            }
            Order::Watch { groups } => {
                let groups = groups.into_iter().map(|group| (group, ()));
                self.watched.send_modify(|watched| watched.extend(groups));
                Answer::Done
            }
            Order::Unwatch { groups } => {
                self.watched
                    .send_modify(|watched| watched.retain(|group, ()| !groups.contains(group)));
                Answer::Done
            }
            Order::Churn {
                prefix,
                joins_per_s,
                stay_one_of,
                for_ms,
            } => {
                let lasts = Duration::from_millis(for_ms);
                self.churn(&prefix, joins_per_s, stay_one_of, lasts).await
            }
            Order::Broadcast { group, count, bytes } => {
                let (mut copies, mut refused) = (0, 0);
                for number in 0..count {
                    let outcome = self.cluster.broadcast(&group, &numbered(number, bytes));
                    copies += outcome.copies as u64;
                    refused += outcome.refused as u64;
                }
                Answer::Broadcast { copies, refused }
            }
            Order::Bulk {
                to,
                channels,
                bytes,
                for_ms,
                bytes_per_s,
            } => {
                let load = Load {
                    bytes,
                    lasts: Duration::from_millis(for_ms),
                    bytes_per_s,
                };
                self.bulk(&to, &channels, load).await
            }
            Order::Ask {
                to,
                every_ms,
                deadline_ms,
                for_ms,
            } => {
                self.ask(&to, every_ms, Duration::from_millis(deadline_ms), for_ms)
                    .await
            }
            Order::Report => Answer::Report(Box::new(self.report())),
            Order::Goodbye => Answer::Refused {
                why: "the goodbye is not said here".into(),
            },
        }
    }

    fn join(&self, groups: Vec<String>) -> Answer {
        for group in groups {
            match self.cluster.join(&group) {
                Ok(membership) => self.memberships().entry(group).or_default().push(membership),
                Err(error) => return refused(&error),
            }
        }
        Answer::Done
    }

    async fn churn(&self, prefix: &str, joins_per_s: u64, stay_one_of: u64, lasts: Duration) -> Answer {
        let began = Instant::now();
        let (mut joined, mut slowest, mut staying) = (0u64, Duration::ZERO, Vec::new());
        let mut passing = VecDeque::new();
        let mut turns = interval(CHURN_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while began.elapsed() < lasts {
            turns.tick().await;
            let due = began.elapsed().as_micros() as u64 * joins_per_s / 1_000_000;
            while joined < due {
                let (group, asked_at) = (format!("{prefix}/{joined}"), Instant::now());
                let membership = match self.cluster.join(&group) {
                    Ok(membership) => membership,
                    Err(error) => return refused(&error),
                };
                slowest = slowest.max(asked_at.elapsed());
                if joined.is_multiple_of(stay_one_of) {
                    self.memberships().entry(group.clone()).or_default().push(membership);
                    staying.push(group);
                } else {
                    passing.push_back((asked_at, membership));
                }
                joined += 1;
            }
            while passing
                .front()
                .is_some_and(|(at, _)| at.elapsed() >= Duration::from_secs(1))
            {
                let left_at = Instant::now();
                passing.pop_front();
                slowest = slowest.max(left_at.elapsed());
            }
        }
        drop(passing);
        Answer::Churned {
            joined,
            slowest_us: slowest.as_micros() as u64,
            staying,
        }
    }

    /// One sender for each channel, so that a channel that is full does not hold up another one.
    async fn bulk(&self, to: &str, channels: &[u8], load: Load) -> Answer {
        let Ok(to) = to.parse::<rookery_gossip::NodeId>() else {
            return refused(&"that is no name of a node");
        };
        let began = Instant::now();
        let mut senders = JoinSet::new();
        for index in channels {
            let Some(channel) = Channel::from_index(*index) else {
                return refused(&"there is no such channel");
            };
            let (cluster, inbox, to) = (self.cluster.clone(), self.inbox.clone(), to.clone());
            let rate = load.bytes_per_s.map(|rate| rate / channels.len() as u64);
            let load = Load {
                bytes_per_s: rate,
                ..load
            };
            senders.spawn(async move { send_bulk(&cluster, &inbox, &to, channel, load).await });
        }
        let (mut messages, mut why) = (0, None);
        while let Some(ended) = senders.join_next().await {
            match ended.expect("a sender does not panic") {
                Ok(sent) => messages += sent,
                Err(error) => why = Some(error),
            }
        }
        match why {
            Some(error) => refused(&error),
            None => Answer::Bulk {
                messages,
                bytes: messages * load.bytes as u64,
                took_us: began.elapsed().as_micros() as u64,
            },
        }
    }

    async fn ask(&self, to: &str, every_ms: u64, deadline: Duration, for_ms: u64) -> Answer {
        let Ok(to) = to.parse::<rookery_gossip::NodeId>() else {
            return refused(&"that is no name of a node");
        };
        let until = Instant::now() + Duration::from_millis(for_ms);
        let mut turns = interval(Duration::from_millis(every_ms.max(1)));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asking = JoinSet::new();
        while Instant::now() < until {
            turns.tick().await;
            let (cluster, to) = (self.cluster.clone(), to.clone());
            asking.spawn(async move {
                let asked_us = now_us();
                let answer = cluster.request(&to, Bytes::from_static(b"who"), deadline).await.ok();
                let generation = answer.and_then(|answer| Some(u64::from_le_bytes(*answer.first_chunk()?)));
                Try {
                    asked_us,
                    answered_us: generation.map(|_| now_us()),
                    generation,
                }
            });
        }
        let mut tries = asking.join_all().await;
        tries.sort_unstable_by_key(|one| one.asked_us);
        Answer::RoundTrips { tries }
    }

    fn report(&self) -> Report {
        let members = self.cluster.members().borrow().clone();
        let members = members.iter().map(|member| {
            let seen = Seen {
                generation: member.peer.generation,
                state: member.state.to_string(),
                facts: (*member.facts).clone(),
                rtt_us: member.rtt.map(|rtt| rtt.as_micros() as u64),
            };
            (member.peer.node.to_string(), seen)
        });
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let fds = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let metrics = tokio::runtime::Handle::current().metrics();
        Report {
            members: members.collect(),
            stats: figures(&self.cluster.stats()),
            rss: field(&status, "VmRSS:") * 1_024,
            fds: fds as u64,
            threads: field(&status, "Threads:"),
            tasks: metrics.num_alive_tasks() as u64,
            used_us: used_us(),
            received: self.inbox.received().clone(),
        }
    }
}

/// How much is sent, and for how long.
#[derive(Clone, Copy)]
struct Load {
    bytes: usize,
    lasts: Duration,
    bytes_per_s: Option<u64>,
}

async fn send_bulk(
    cluster: &Cluster,
    inbox: &Inbox,
    to: &rookery_gossip::NodeId,
    channel: Channel,
    load: Load,
) -> Result<u64, SendError> {
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < load.lasts {
        let room = inbox.room.notified();
        match cluster.send(to, channel, numbered(sent, load.bytes)) {
            Ok(()) => sent += 1,
            Err(SendError::Full) => {
                tokio::select! {
                    () = room => {}
                    () = sleep(ROOM_TIMEOUT) => {}
                }
            }
            Err(error) => return Err(error),
        }
        if let Some(rate) = load.bytes_per_s {
            let due = Duration::from_secs_f64((sent * load.bytes as u64) as f64 / rate.max(1) as f64);
            sleep_until(began + due).await;
        } else if sent.is_multiple_of(64) {
            // Sending never waits, so this task would keep its thread to itself.
            tokio::task::yield_now().await;
        }
    }
    Ok(sent)
}

/// A message that carries its number.
fn numbered(number: u64, bytes: usize) -> Bytes {
    let mut message = vec![0; bytes.max(8)];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message.into()
}

fn done(result: Result<(), impl std::fmt::Display>) -> Answer {
    result.map_or_else(|error| refused(&error), |()| Answer::Done)
}

fn refused(error: &dyn std::fmt::Display) -> Answer {
    Answer::Refused { why: error.to_string() }
}

/// A number of `/proc/self/status`.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn figures(stats: &Stats) -> BTreeMap<String, u64> {
    let figures = [
        ("control_connections", stats.control_connections),
        ("data_connections", stats.data_connections),
        ("own_keys", stats.own_keys),
        ("own_keys_deleted", stats.own_keys_deleted),
        ("groups_in_gossip", stats.groups_in_gossip),
        ("groups_in_directory", stats.groups_in_directory),
        ("groups_watched", stats.groups_watched),
        ("group_unanswered_total", stats.group_unanswered_total),
        ("directory_kept", stats.directory.kept),
        ("directory_watches", stats.directory.watches),
        ("directory_expired_total", stats.directory.expired_total),
        ("directory_repaired_total", stats.directory.repaired_total),
        ("directory_forwarded_total", stats.directory.forwarded_total),
        ("cluster_keys", stats.cluster_keys),
        ("groups_in_gossip", stats.groups_in_gossip),
        ("groups_in_directory", stats.groups_in_directory),
        ("gossip_lives", stats.gossip_lives),
        ("gossip_bytes", stats.gossip_bytes),
        ("messages_sent_total", stats.messages_sent_total),
        ("messages_received_total", stats.messages_received_total),
        ("queue_full_total", stats.queue_full_total),
        ("dropped_total", stats.dropped_total),
        ("gossip_dropped_total", stats.gossip_dropped_total),
        ("links_lost_total", stats.links_lost_total),
        ("gossip_ticks_total", stats.gossip_ticks_total),
        ("gossip_ticks_late_20ms_total", stats.gossip_ticks_late_20ms_total),
        (
            "gossip_ticks_late_interval_total",
            stats.gossip_ticks_late_interval_total,
        ),
        ("gossip_tick_late_max_us", stats.gossip_tick_late_max.as_micros() as u64),
        ("dial_failures_total", stats.dial_failures_total),
        ("suspicions_total", stats.suspicions_total),
        ("false_suspicions_total", stats.false_suspicions_total),
        ("self_late_total", stats.self_late_total),
    ];
    figures
        .into_iter()
        .map(|(name, figure)| (name.to_owned(), figure))
        .collect()
}

/// Counts what comes and answers requests with the generation.
#[derive(Default)]
struct Inbox {
    name: String,
    generation: u64,
    received: Mutex<BTreeMap<String, Tally>>,
    /// Rings when some channel has room again.
    room: Notify,
}

impl Inbox {
    fn received(&self) -> MutexGuard<'_, BTreeMap<String, Tally>> {
        self.received.lock().expect("nothing panics under this lock")
    }

    fn count(&self, stream: String, bytes: &Bytes) {
        let number = bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        let mut received = self.received();
        let tally = received.entry(stream).or_default();
        if tally.count > 0 && number != tally.last.wrapping_add(1) {
            tally.jumps += 1;
        }
        tally.count += 1;
        tally.bytes += bytes.len() as u64;
        tally.last = number;
    }
}

impl Inbound for Inbox {
    fn message(&self, from: &Peer, channel: Channel, bytes: Bytes) {
        self.count(format!("{}/{}", from.node, channel.index()), &bytes);
    }

    fn request(&self, _: Peer, _: Bytes) -> BoxFuture<'static, Bytes> {
        let answer = [&self.generation.to_le_bytes(), self.name.as_bytes()].concat();
        Box::pin(async move { answer.into() })
    }

    fn link(&self, peer: &Peer, event: LinkEvent) {
        let gone = match event {
            LinkEvent::Connected => false,
            LinkEvent::Gone => true,
            LinkEvent::Writable { .. } => return self.room.notify_waiters(),
            LinkEvent::Lost { .. } => return,
        };
        say(EventKind::Link {
            node: peer.node.to_string(),
            generation: peer.generation,
            gone,
        });
    }

    fn broadcast(&self, from: &Peer, group: &str, bytes: Bytes) {
        self.count(format!("{}/{group}", from.node), &bytes);
    }
}
