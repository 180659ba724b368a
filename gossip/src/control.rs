//! Control connections: one to each peer, for gossip, probes and requests. Dials on demand, keeps one connection of two that cross
//! (`collision.rs` rules), and tells the membership who is connected.
//!
//! It does not know who is a member, and nothing here is ordered: what must be ordered goes through `link.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadToEndError, RecvStream, SendDatagramError, SendStream, VarInt};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::budget::{Budget, Budgets, NotRead};
use crate::collision::{self, Begun, Present, Ruling};
use crate::error::RequestError;
use crate::inbound::Inbound;
use crate::names::Names;
use crate::peer::{Identity, Life, NodeId};
use crate::quic::{CloseCode, DialError, Established, Kind, Quic};
use crate::stats::Counters;
use crate::suspicion::Time;
use crate::transport::Letter;
use crate::turnstile::Turnstile;
use crate::view::Parting;

/// Gossip that waits for one peer; when it is full the oldest goes, because old gossip only delays new gossip.
const GOSSIP_QUEUE_LEN: usize = 16;

/// The longest gossip message. The library keeps to 64 KiB but for its digest, which grows by 55 bytes a node.
const GOSSIP_LEN_MAX: usize = 1 << 20;

/// How long a stream with a gossip message or a probe may take.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection that another one replaces stays open for what is under way on it.
const REPLACED_GRACE: Duration = Duration::from_secs(1);

/// How long an address that did not answer is left alone: 0.2 s after the first time, doubling up to 5 s.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Handshakes of ours that may be under way at once, and how long one that gets no answer counts among them. Gossip begins three or four
/// a tick; discovery may come with hundreds of addresses, of which all may swallow what is sent to them. Four of those hold the others up
/// for 250 ms, so sixteen begin a second, and the turns go to those that wait at random. With sixteen at once a hundred nodes on half a
/// processor ran into each other's timeouts and never became one cluster.
const DIALS_AT_ONCE: usize = 4;
const DIAL_PATIENCE: Duration = Duration::from_millis(250);

/// Addresses whose failures are remembered.
const BACKOFFS_MAX: usize = 1_024;

/// Addresses of those who said goodbye that are remembered.
const DEPARTED_MAX: usize = 1_024;

/// When a helper says that the node which it probes on behalf of another one is silent so far, and how long it goes on probing: to the
/// end of the asker's round, with either profile.
const NACK_AFTER: Duration = Duration::from_millis(400);
const HELPER_TIMEOUT: Duration = Duration::from_millis(1000);

/// Between two tries of one probe, when the first fails at once.
pub(crate) const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// What stands first on a stream or datagram.
const TAG_GOSSIP: u8 = 2;
const TAG_REQUEST: u8 = 3;
const TAG_PROBE: u8 = 4;
const TAG_PROBE_FOR: u8 = 5;
const TAG_FORGET: u8 = 6;

/// The answer to a probe, and of a helper whose probe was answered. A helper that has said silent may say alive after it.
const ALIVE: u8 = 1;
const SILENT: u8 = 0;

/// How long a request may take to arrive, and an answer to be fetched: 4 MiB in that time are a tenth of what the slowest link between
/// two nodes should carry. Askers give up much sooner.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Tells an asker that its request was too long, or that it has too much under way, so that it does not take it for a broken connection.
const STOP_TOO_LONG: VarInt = VarInt::from_u32(1);
const STOP_NO_ROOM: VarInt = VarInt::from_u32(2);
const STOP_TOO_SLOW: VarInt = VarInt::from_u32(3);
/// Tells an asker that this node does not know what it is asked, or failed over it.
const STOP_UNKNOWN: VarInt = VarInt::from_u32(4);
const STOP_FAILED: VarInt = VarInt::from_u32(5);

/// What the membership hears of.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(Identity),
    Disconnected {
        life: Life,
        parting: Parting,
    },
    /// The life was seen on a data connection.
    Seen(Life),
    /// An operator says, through another node, that the life need not be listed any more.
    Forget(Life),
    /// A newer process bears our name.
    Superseded {
        by_generation: Option<u64>,
    },
}

/// What control connections need of the rest.
pub(crate) struct Surroundings {
    pub(crate) quic: Arc<Quic>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) inbound: Arc<dyn Inbound>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) gossip_inbox: mpsc::Sender<Letter>,
    pub(crate) message_bytes_max: usize,
    /// How many peers may be connected.
    pub(crate) peers_max: usize,
    pub(crate) started_at: Instant,
    pub(crate) runtime: Handle,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
}

pub(crate) struct Control {
    around: Surroundings,
    table: Mutex<Table>,
    budgets: Budgets,
    /// Rings whenever somebody connected or a dial ended.
    changed: Notify,
    turnstile: Arc<Turnstile>,
}

#[derive(Default)]
struct Table {
    active: BTreeMap<NodeId, Active>,
    by_addr: BTreeMap<SocketAddr, NodeId>,
    /// Gossip that waits for a dial.
    dialling: BTreeMap<SocketAddr, VecDeque<Bytes>>,
    backoffs: BTreeMap<SocketAddr, Backoff>,
    /// Where somebody lived who said goodbye. Gossip remembers them for a while and would have them dialled again and again; when to look
    /// whether they have come back is discovery's business.
    departed: BTreeMap<SocketAddr, Life>,
    names: Names,
}

struct Active {
    identity: Identity,
    connection: Connection,
    begun: Begun,
    since: Instant,
    gossip: Arc<GossipQueue>,
    /// The address by which we came to the peer, if we did and if it is not the one that the peer advertises.
    reached_by: Option<SocketAddr>,
}

#[derive(Default)]
struct GossipQueue {
    letters: Mutex<VecDeque<Bytes>>,
    ready: Notify,
}

struct Backoff {
    failures: u32,
    not_before: Instant,
}

impl Control {
    pub(crate) fn new(around: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            budgets: Budgets::new(around.message_bytes_max),
            around,
            table: Mutex::default(),
            changed: Notify::new(),
            turnstile: Turnstile::new(DIALS_AT_ONCE, DIAL_PATIENCE),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics under this lock")
    }

    /// Every address that leads to a connected peer, and to which life of it.
    pub(crate) fn connected(&self) -> BTreeMap<SocketAddr, Life> {
        let table = self.table();
        let ways = table.active.values().flat_map(|active| {
            let ways = [Some(active.identity.gossip_addr), active.reached_by];
            ways.into_iter()
                .flatten()
                .map(|addr| (addr, active.identity.peer.life()))
        });
        ways.collect()
    }

    /// The addresses under which gossip knows the connected peers.
    pub(crate) fn gossip_addrs(&self) -> Vec<SocketAddr> {
        self.table().by_addr.keys().copied().collect()
    }

    /// The round trip to each connected peer.
    pub(crate) fn round_trips(&self) -> BTreeMap<NodeId, Duration> {
        self.table()
            .active
            .iter()
            .map(|(node, active)| (node.clone(), active.connection.rtt()))
            .collect()
    }

    /// Passes a gossip message on to whoever is at `to`, dialling if need be. Never waits.
    pub(crate) fn gossip(self: &Arc<Self>, to: SocketAddr, bytes: Bytes) {
        if to == self.around.quic.local().gossip_addr {
            // A former life of ours, which gossip still remembers.
            return;
        }
        let mut table = self.table();
        let table = &mut *table;
        if let Some(active) = table.by_addr.get(&to).and_then(|node| table.active.get(node)) {
            let dropped = active.gossip.push(bytes);
            self.around.counters.gossip_dropped.add(dropped);
            return;
        }
        if table.departed.contains_key(&to) {
            return;
        }
        if self.begin_dial(table, to, Patience::Backoff) {
            let waiting = table.dialling.get_mut(&to).expect("a dial is under way");
            self.around.counters.gossip_dropped.add(enqueue(waiting, bytes));
        } else {
            self.around.counters.gossip_dropped.add(1);
        }
    }

    /// Sees to it that a dial to `addr` is under way; false when the address is being left alone after failures.
    fn begin_dial(self: &Arc<Self>, table: &mut Table, addr: SocketAddr, patience: Patience) -> bool {
        if table.dialling.contains_key(&addr) {
            return true;
        }
        let backed_off = table
            .backoffs
            .get(&addr)
            .is_some_and(|backoff| Instant::now() < backoff.not_before);
        if (backed_off && patience == Patience::Backoff) || self.around.stop.is_cancelled() {
            return false;
        }
        table.dialling.insert(addr, VecDeque::new());
        let control = self.clone();
        let dial = async move {
            if let Err(error) = control.finish_dial(addr).await {
                debug!(peer_addr = %addr, %error, "no control connection");
            }
        };
        self.around.tracker.spawn_on(
            self.around.stop.clone().run_until_cancelled_owned(dial),
            &self.around.runtime,
        );
        true
    }

    /// Connects to whoever is at `addr` and says who that is.
    pub(crate) async fn dial(self: &Arc<Self>, addr: SocketAddr) -> Result<Identity, DialError> {
        {
            let mut table = self.table();
            // By the address that it advertises, or by the one that led to it before.
            let known = |active: &&Active| active.identity.gossip_addr == addr || active.reached_by == Some(addr);
            if let Some(active) = table.active.values().find(known) {
                return Ok(active.identity.clone());
            }
            if table.dialling.contains_key(&addr) {
                return Err(DialError::UnderWay);
            }
            table.dialling.insert(addr, VecDeque::new());
        }
        self.finish_dial(addr).await
    }

    /// The dial proper; `addr` has been entered as being dialled.
    async fn finish_dial(self: &Arc<Self>, addr: SocketAddr) -> Result<Identity, DialError> {
        let guard = DialGuard::new(self, addr);
        let turn = self.turnstile.enter().await;
        let result = turn.spend(self.around.quic.dial(addr, Kind::Control)).await;
        let waiting = guard.finish(&result);
        let established = match result {
            Ok(established) => established,
            Err(error) => {
                if error == DialError::Closed(CloseCode::Superseded) {
                    self.tell(Event::Superseded { by_generation: None }).await;
                }
                if !matches!(error, DialError::Closed(CloseCode::Duplicate) | DialError::Ourselves) {
                    self.around.counters.dial_failures.add(1);
                }
                return Err(error);
            }
        };
        let identity = established.identity.clone();
        match self.adopt(&established, (addr != identity.gossip_addr).then_some(addr)) {
            Ok(queue) => {
                for letter in waiting {
                    queue.push(letter);
                }
                self.serve(established, queue).await;
                Ok(identity)
            }
            Err(CloseCode::Duplicate) => {
                self.yield_to_the_other(established);
                Ok(identity)
            }
            Err(code) => {
                code.close(&established.connection);
                Err(DialError::Closed(code))
            }
        }
    }

    /// Gives a dial of ours up for the connection that the peer began. The peer has welcomed the dial and uses it until its own has
    /// come to an end, so it is served for a while: closed at once, it looked to the peer as if we had gone.
    fn yield_to_the_other(self: &Arc<Self>, established: Established) {
        self.close_later(established.connection.clone());
        let control = self.clone();
        let reader = async move {
            control.read(&established).await;
        };
        self.around.tracker.spawn_on(reader, &self.around.runtime);
    }

    /// Takes a control connection that a peer began.
    pub(crate) async fn accept(self: &Arc<Self>, established: Established) {
        let Some(welcome) = established.prepare_welcome().await else {
            return;
        };
        match self.adopt(&established, None) {
            Ok(queue) => {
                welcome.say().await;
                self.serve(established, queue).await;
            }
            Err(code) => {
                let peer = &established.identity.peer;
                if code == CloseCode::Crowded {
                    self.around.quic.note_crowded(&established, self.around.peers_max);
                }
                if code == CloseCode::Superseded {
                    self.around.counters.refused_superseded.add(1);
                    warn!(%peer, addr = %established.connection.remote_address(), "peer refused: a newer process bears its name");
                }
                if peer.node == self.around.quic.local().peer.node && code == CloseCode::Gone {
                    self.tell(Event::Superseded {
                        by_generation: Some(peer.generation),
                    })
                    .await;
                }
                code.close(&established.connection);
            }
        }
    }

    /// Whether this life of a node is over because a newer one is known, or is a namesake of ours.
    pub(crate) fn turn_away(&self, life: &Life) -> Option<CloseCode> {
        let local = &self.around.quic.local().peer;
        if life.node == local.node {
            // The newer of two namesakes stays; it must not be told that it is the one to go.
            return Some(if life.generation < local.generation {
                CloseCode::Superseded
            } else {
                CloseCode::Gone
            });
        }
        let is_over = self.table().names.is_over(self.now(), life);
        is_over.then_some(CloseCode::Superseded)
    }

    fn now(&self) -> Time {
        self.around.started_at.elapsed()
    }

    /// Makes a connection the one that is used, or says with which code to close it.
    fn adopt(&self, established: &Established, reached_by: Option<SocketAddr>) -> Result<Arc<GossipQueue>, CloseCode> {
        let Established {
            connection,
            identity,
            begun,
            ..
        } = established;
        let life = identity.peer.life();
        if let Some(code) = self.turn_away(&life) {
            return Err(code);
        }
        let mut table = self.table();
        if !table.active.contains_key(&life.node) && table.active.len() >= self.around.peers_max {
            return Err(CloseCode::Crowded);
        }
        let present = table.active.get(&life.node).map(|active| Present {
            generation: active.identity.peer.generation,
            begun: active.begun,
            age: active.since.elapsed(),
        });
        match collision::rule(&self.around.quic.local().peer.node, &life, present.as_ref(), *begun) {
            Ruling::Use => {}
            Ruling::Duplicate => return Err(CloseCode::Duplicate),
            Ruling::Superseded => return Err(CloseCode::Superseded),
        }
        let queue = Arc::new(GossipQueue::default());
        let active = Active {
            identity: identity.clone(),
            connection: connection.clone(),
            begun: *begun,
            since: Instant::now(),
            gossip: queue.clone(),
            reached_by,
        };
        table.names.here(&life);
        let replaced = table.active.insert(life.node.clone(), active);
        if let Some(replaced) = replaced {
            if table.by_addr.get(&replaced.identity.gossip_addr) == Some(&life.node) {
                table.by_addr.remove(&replaced.identity.gossip_addr);
            }
            self.replaced(&replaced, life.generation);
        }
        table.by_addr.insert(identity.gossip_addr, life.node);
        table.backoffs.remove(&identity.gossip_addr);
        table.departed.remove(&identity.gossip_addr);
        self.around.counters.control_connections.set(table.active.len() as u64);
        Ok(queue)
    }

    fn replaced(&self, active: &Active, by_generation: u64) {
        let connection = active.connection.clone();
        if active.identity.peer.generation < by_generation {
            CloseCode::Superseded.close(&connection);
            return;
        }
        self.close_later(connection);
    }

    fn close_later(&self, connection: Connection) {
        let close = async move {
            tokio::select! {
                _ = connection.closed() => {}
                () = sleep(REPLACED_GRACE) => CloseCode::Duplicate.close(&connection),
            }
        };
        self.around.tracker.spawn_on(close, &self.around.runtime);
    }

    /// Starts what runs for as long as a connection does.
    async fn serve(self: &Arc<Self>, established: Established, queue: Arc<GossipQueue>) {
        self.tell(Event::Connected(established.identity.clone())).await;
        self.changed.notify_waiters();
        let writer = write_gossip(established.connection.clone(), queue);
        self.around.tracker.spawn_on(writer, &self.around.runtime);
        let control = self.clone();
        let reader = async move {
            let error = control.read(&established).await;
            control.ended(&established, &error).await;
        };
        self.around.tracker.spawn_on(reader, &self.around.runtime);
    }

    async fn tell(&self, event: Event) {
        // The membership has stopped: so do we.
        let _ = self.around.events.send(event).await;
    }

    /// Tells that a life was seen on a data connection.
    pub(crate) async fn seen(&self, life: Life) {
        self.tell(Event::Seen(life)).await;
    }

    async fn read(self: &Arc<Self>, established: &Established) -> ConnectionError {
        let Established {
            connection, identity, ..
        } = established;
        let budget = self.budgets.of(&identity.peer.node);
        loop {
            tokio::select! {
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => {
                        let (control, from, budget) = (self.clone(), identity.gossip_addr, budget.clone());
                        self.spawn_on_connection(connection, async move { control.read_uni(from, stream, &budget).await });
                    }
                    Err(error) => return error,
                },
                stream = connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        let (control, identity, budget) = (self.clone(), identity.clone(), budget.clone());
                        self.spawn_on_connection(connection, async move { control.answer(identity, budget, send, receive).await });
                    }
                    Err(error) => return error,
                },
                datagram = connection.read_datagram() => match datagram {
                    Ok(datagram) => self.take_gossip(identity.gossip_addr, datagram, &budget),
                    Err(error) => return error,
                },
            }
        }
    }

    /// Runs until the connection closes; how many of these there are is bounded by the streams that a peer may open.
    fn spawn_on_connection(&self, connection: &Connection, task: impl Future<Output = ()> + Send + 'static) {
        let connection = connection.clone();
        let task = async move {
            tokio::select! {
                () = task => {}
                _ = connection.closed() => {}
            }
        };
        self.around.tracker.spawn_on(task, &self.around.runtime);
    }

    async fn ended(self: &Arc<Self>, established: &Established, error: &ConnectionError) {
        let life = established.identity.peer.life();
        let code = CloseCode::of(error);
        if code == Some(CloseCode::Superseded) {
            self.tell(Event::Superseded { by_generation: None }).await;
        }
        let was_active = {
            let mut table = self.table();
            let id = established.connection.stable_id();
            let was_active = table
                .active
                .get(&life.node)
                .is_some_and(|active| active.connection.stable_id() == id);
            if was_active {
                table.remove(&life.node);
                if code == Some(CloseCode::Leaving) {
                    table.note_departure(established.identity.gossip_addr, life.clone());
                }
                self.around.counters.control_connections.set(table.active.len() as u64);
            }
            was_active
        };
        if was_active {
            debug!(peer = %established.identity.peer, %error, "control connection lost");
            let parting = if code == Some(CloseCode::Leaving) {
                Parting::Goodbye
            } else {
                Parting::Lost
            };
            self.tell(Event::Disconnected { life, parting }).await;
        }
    }

    /// Lets an older life have the name of one that an operator has counted as dead.
    pub(crate) fn free_name(&self, life: &Life) {
        self.table().names.free(life);
    }

    /// Closes the connection to a life that is over.
    pub(crate) fn retire(&self, life: &Life) {
        let mut table = self.table();
        table.names.gone(self.now(), life);
        let over = table
            .active
            .get(&life.node)
            .is_some_and(|active| active.identity.peer.generation == life.generation);
        if over {
            let active = table.remove(&life.node).expect("it was just there");
            CloseCode::Gone.close(&active.connection);
            self.around.counters.control_connections.set(table.active.len() as u64);
        }
    }

    /// Takes note of a life that gossip knows, which may be the next one where another has said goodbye.
    pub(crate) fn note_arrival(&self, identity: &Identity) {
        let life = identity.peer.life();
        let mut table = self.table();
        if table
            .departed
            .get(&identity.gossip_addr)
            .is_some_and(|departed| *departed != life)
        {
            table.departed.remove(&identity.gossip_addr);
        }
        table.names.here(&life);
    }

    async fn read_uni(&self, from: SocketAddr, mut stream: RecvStream, budget: &Budget) {
        match timeout(STREAM_TIMEOUT, stream.read_to_end(GOSSIP_LEN_MAX)).await {
            Ok(Ok(bytes)) => match bytes.split_first() {
                Some((&TAG_FORGET, life)) => {
                    if let Some((life, _)) = decode_suspect(life) {
                        self.tell(Event::Forget(life)).await;
                    }
                }
                _ => self.take_gossip(from, bytes.into(), budget),
            },
            Ok(Err(error)) => debug!(peer_addr = %from, %error, "a gossip message did not come"),
            Err(_) => debug!(peer_addr = %from, "a gossip message did not come in time"),
        }
    }

    /// Tells every connected peer that a life need not be listed any more. Who is not connected lists it until its time is over.
    pub(crate) fn forget_everywhere(&self, life: &Life, addr: SocketAddr) {
        let mut framed = vec![TAG_FORGET];
        framed.extend(encode_suspect(life, addr));
        let framed = Bytes::from(framed);
        for active in self.table().active.values() {
            let (connection, framed) = (active.connection.clone(), framed.clone());
            let telling = async move {
                // An error of the stream is one of the connection, of which others take care.
                let _ = timeout(STREAM_TIMEOUT, write_stream(&connection, framed)).await;
            };
            self.around.tracker.spawn_on(
                self.around.stop.clone().run_until_cancelled_owned(telling),
                &self.around.runtime,
            );
        }
    }

    fn take_gossip(&self, from: SocketAddr, mut bytes: Bytes, budget: &Budget) {
        if bytes.first() != Some(&TAG_GOSSIP) {
            // Of a later version, perhaps.
            return;
        }
        let message = bytes.split_off(1);
        let Some(place) = budget.gossip(message.len()) else {
            self.around.counters.limited_gossip.add(1);
            return;
        };
        if self.around.gossip_inbox.try_send((from, message, place)).is_err() {
            self.around.counters.gossip_dropped.add(1);
        }
    }

    async fn answer(self: Arc<Self>, from: Identity, budget: Arc<Budget>, send: SendStream, mut receive: RecvStream) {
        let mut tag = [0];
        if timeout(STREAM_TIMEOUT, receive.read_exact(&mut tag))
            .await
            .is_ok_and(|read| read.is_ok())
        {
            match tag[0] {
                TAG_REQUEST => self.answer_request(from, budget, send, receive).await,
                TAG_PROBE => reply(send, &[ALIVE]).await,
                TAG_PROBE_FOR => self.answer_helper(send, receive).await,
                // Of a later version. A stream that is dropped ends like one that is written to its end, and the asker would take that for an
                // empty answer.
                _ => no_answer(send, STOP_UNKNOWN),
            }
        }
    }

    async fn answer_request(&self, from: Identity, budget: Arc<Budget>, mut send: SendStream, mut receive: RecvStream) {
        let max = self.around.message_bytes_max;
        let (request, room) = match timeout(REQUEST_TIMEOUT, budget.read(&mut receive, max)).await {
            Ok(Ok(read)) => read,
            Ok(Err(NotRead::TooLong)) => {
                // The asker checks the length as well; one that does not finds its stream stopped.
                let _ = receive.stop(STOP_TOO_LONG);
                return no_answer(send, STOP_TOO_LONG);
            }
            Ok(Err(NotRead::NoRoom)) => {
                self.around.counters.limited_requests.add(1);
                let _ = receive.stop(STOP_NO_ROOM);
                return no_answer(send, STOP_NO_ROOM);
            }
            Ok(Err(NotRead::Broken)) => return,
            Err(_) => {
                self.around.counters.limited_slow.add(1);
                return no_answer(send, STOP_TOO_SLOW);
            }
        };
        let Some(place) = budget.request() else {
            self.around.counters.limited_requests.add(1);
            return no_answer(send, STOP_NO_ROOM);
        };
        let answering = self.around.inbound.request(from.peer.clone(), request);
        let whole_budget = budget.clone();
        let answering = async move {
            let answer = answering.await;
            // Only now: a share is taken for as long as the work is under way, whatever becomes of the connection.
            drop((room, place, whole_budget));
            answer
        };
        // In a task of its own: what a request began must not stop half-way because the asker's connection broke.
        let Ok(answer) = self.around.tracker.spawn_on(answering, &self.around.runtime).await else {
            return no_answer(send, STOP_FAILED);
        };
        if answer.len() > max {
            warn!(peer = %from.peer.node, len = answer.len(), "an answer is too long to be sent");
            return no_answer(send, STOP_TOO_LONG);
        }
        let Some(_room) = budget.bytes(answer.len()) else {
            self.around.counters.limited_requests.add(1);
            return no_answer(send, STOP_NO_ROOM);
        };
        match timeout(ANSWER_TIMEOUT, send.write_all(&answer)).await {
            Ok(Ok(())) => drop(send.finish()),
            // Who asked and went away needs no answer.
            Ok(Err(_)) => {}
            Err(_) => {
                self.around.counters.limited_slow.add(1);
                no_answer(send, STOP_TOO_SLOW);
            }
        }
    }

    /// Probes a node on behalf of another one.
    async fn answer_helper(self: &Arc<Self>, send: SendStream, mut receive: RecvStream) {
        let Ok(Ok(bytes)) = timeout(STREAM_TIMEOUT, read_rest(&mut receive, 256)).await else {
            return;
        };
        let Some((life, addr)) = decode_suspect(&bytes) else {
            return;
        };
        // Whom we have never met we do not dial because somebody says so.
        if !self.table().names.knows(&life.node) {
            reply(send, &[SILENT]).await;
            return;
        }
        self.help(&life, addr, send).await;
    }

    /// Probes, and says at once when there is an answer, and soon when there is none: then the asker knows at least that we are there.
    async fn help(self: &Arc<Self>, life: &Life, addr: SocketAddr, mut send: SendStream) {
        let probing = async {
            while !self.probe(life, addr).await {
                sleep(PROBE_PAUSE).await;
            }
        };
        tokio::pin!(probing);
        if timeout(NACK_AFTER, &mut probing).await.is_ok() {
            return reply(send, &[ALIVE]).await;
        }
        // Who asked may have gone away meanwhile.
        if send.write_all(&[SILENT]).await.is_err() {
            return;
        }
        match timeout(HELPER_TIMEOUT - NACK_AFTER, probing).await {
            Ok(()) => reply(send, &[ALIVE]).await,
            Err(_) => reply(send, &[]).await,
        }
    }

    /// Asks a life whether it is there. The caller bounds the time.
    pub(crate) async fn probe(self: &Arc<Self>, life: &Life, addr: SocketAddr) -> bool {
        self.ask(life, addr, &[&[TAG_PROBE]], 1)
            .await
            .is_ok_and(|answer| answer[..] == [ALIVE])
    }

    /// Asks `helper` to probe `life`. What it says comes from [`Helped::next`]; none when it cannot be asked. The caller bounds the time.
    pub(crate) async fn probe_through(
        self: &Arc<Self>,
        helper: &Identity,
        life: &Life,
        addr: SocketAddr,
    ) -> Option<Helped> {
        let suspect = encode_suspect(life, addr);
        let question: [&[u8]; 2] = [&[TAG_PROBE_FOR], &suspect];
        let asked = self.put(&helper.peer.life(), helper.gossip_addr, &question).await;
        asked.ok().map(Helped)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn request(
        self: &Arc<Self>,
        to: &Identity,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        let max = self.around.message_bytes_max;
        if request.len() > max {
            return Err(RequestError::TooLarge { max });
        }
        let life = to.peer.life();
        let question: [&[u8]; 2] = [&[TAG_REQUEST], &request];
        let asked = self.ask(&life, to.gossip_addr, &question, max);
        tokio::select! {
            answer = timeout(deadline, asked) => answer.unwrap_or(Err(RequestError::Deadline)).map(Bytes::from),
            () = self.around.stop.cancelled() => Err(RequestError::Closed),
        }
    }

    async fn ask(
        self: &Arc<Self>,
        life: &Life,
        addr: SocketAddr,
        question: &[&[u8]],
        answer_len_max: usize,
    ) -> Result<Vec<u8>, RequestError> {
        let mut receive = self.put(life, addr, question).await?;
        receive.read_to_end(answer_len_max).await.map_err(|error| match error {
            ReadToEndError::TooLong => RequestError::TooLarge { max: answer_len_max },
            ReadToEndError::Read(_) => RequestError::Lost,
        })
    }

    /// Writes a question and returns where the answer will come.
    async fn put(
        self: &Arc<Self>,
        life: &Life,
        addr: SocketAddr,
        question: &[&[u8]],
    ) -> Result<RecvStream, RequestError> {
        let connection = self
            .connection(life, addr)
            .await
            .ok_or_else(|| RequestError::UnknownNode {
                node: life.node.clone(),
            })?;
        let (mut send, receive) = connection.open_bi().await.map_err(|_| RequestError::Lost)?;
        for part in question {
            send.write_all(part).await.map_err(|_| RequestError::Lost)?;
        }
        send.finish().map_err(|_| RequestError::Lost)?;
        Ok(receive)
    }

    /// The control connection to a life, dialling until there is one; none when another life of the node is connected, or another node
    /// at that address. The caller bounds the time.
    async fn connection(self: &Arc<Self>, life: &Life, addr: SocketAddr) -> Option<Connection> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut table = self.table();
                if let Some(active) = table.active.get(&life.node) {
                    return (active.identity.peer.generation == life.generation).then(|| active.connection.clone());
                }
                // Addresses are handed out anew, as among containers. A dial would come to whoever has this one now, and replace the
                // connection that it has already, again and again for as long as the former owner is looked for.
                if table.by_addr.get(&addr).is_some_and(|holder| *holder != life.node) {
                    return None;
                }
                self.begin_dial(&mut table, addr, Patience::None);
            }
            // A dial that ended without a connection rings too; the pause keeps a peer that refuses us from being dialled in a loop.
            changed.await;
            if !self.table().active.contains_key(&life.node) {
                sleep(BACKOFF_MIN).await;
            }
        }
    }
}

/// What a helper says, as it comes.
pub(crate) struct Helped(RecvStream);

impl Helped {
    /// Whether the suspect has answered the helper; none when the helper says nothing more.
    pub(crate) async fn next(&mut self) -> Option<bool> {
        let mut word = [SILENT];
        self.0.read_exact(&mut word).await.ok()?;
        Some(word == [ALIVE])
    }
}

/// Whether an address that has just failed is dialled anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Backoff,
    None,
}

impl Table {
    fn remove(&mut self, node: &NodeId) -> Option<Active> {
        let active = self.active.remove(node)?;
        if self.by_addr.get(&active.identity.gossip_addr) == Some(node) {
            self.by_addr.remove(&active.identity.gossip_addr);
        }
        Some(active)
    }

    fn note_departure(&mut self, addr: SocketAddr, life: Life) {
        if self.departed.len() >= DEPARTED_MAX {
            self.departed.pop_first();
        }
        self.departed.insert(addr, life);
    }

    fn note_failure(&mut self, addr: SocketAddr) {
        let now = Instant::now();
        if self.backoffs.len() >= BACKOFFS_MAX {
            self.backoffs
                .retain(|_, backoff| now < backoff.not_before + BACKOFF_MAX);
        }
        if self.backoffs.len() >= BACKOFFS_MAX {
            self.backoffs.pop_first();
        }
        let backoff = self.backoffs.entry(addr).or_insert(Backoff {
            failures: 0,
            not_before: now,
        });
        let wait = BACKOFF_MIN
            .saturating_mul(1 << backoff.failures.min(10))
            .min(BACKOFF_MAX);
        backoff.failures += 1;
        backoff.not_before = now + wait.mul_f64(rand::random_range(0.8..1.2));
    }
}

/// Takes an address out of the table of dials, also when the dial is dropped half-way.
struct DialGuard<'a> {
    control: &'a Control,
    addr: SocketAddr,
}

impl<'a> DialGuard<'a> {
    fn new(control: &'a Control, addr: SocketAddr) -> Self {
        control.around.counters.dials_under_way.add(1);
        Self { control, addr }
    }

    /// Ends the dial and returns the gossip that waited for it.
    fn finish<T>(self, result: &Result<T, DialError>) -> VecDeque<Bytes> {
        let mut table = self.control.table();
        let waiting = table.dialling.remove(&self.addr).unwrap_or_default();
        match result {
            Ok(_) => {
                table.backoffs.remove(&self.addr);
            }
            // The peer is dialling us: there will be a connection in a moment.
            Err(DialError::Closed(CloseCode::Duplicate)) => {}
            Err(_) => table.note_failure(self.addr),
        }
        waiting
    }
}

impl Drop for DialGuard<'_> {
    fn drop(&mut self) {
        self.control.around.counters.dials_under_way.subtract(1);
        self.control.table().dialling.remove(&self.addr);
        self.control.changed.notify_waiters();
    }
}

impl GossipQueue {
    /// Returns how many letters were dropped to make room.
    fn push(&self, letter: Bytes) -> u64 {
        let dropped = enqueue(
            &mut self.letters.lock().expect("nothing panics under this lock"),
            letter,
        );
        self.ready.notify_one();
        dropped
    }
}

fn enqueue(queue: &mut VecDeque<Bytes>, letter: Bytes) -> u64 {
    queue.push_back(letter);
    let dropped = queue.len().saturating_sub(GOSSIP_QUEUE_LEN);
    queue.drain(..dropped);
    dropped as u64
}

async fn write_gossip(connection: Connection, queue: Arc<GossipQueue>) {
    loop {
        let letter = queue
            .letters
            .lock()
            .expect("nothing panics under this lock")
            .pop_front();
        let Some(letter) = letter else {
            tokio::select! {
                () = queue.ready.notified() => continue,
                _ = connection.closed() => return,
            }
        };
        let mut framed = Vec::with_capacity(1 + letter.len());
        framed.push(TAG_GOSSIP);
        framed.extend_from_slice(&letter);
        let framed = Bytes::from(framed);
        match connection.send_datagram(framed.clone()) {
            Ok(()) => {}
            Err(SendDatagramError::ConnectionLost(_)) => return,
            Err(SendDatagramError::TooLarge | SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => {
                // An error of the stream is one of the connection, and then the loop ends at the next turn.
                let _ = timeout(STREAM_TIMEOUT, write_stream(&connection, framed)).await;
            }
        }
    }
}

async fn write_stream(connection: &Connection, bytes: Bytes) -> Result<(), quinn::WriteError> {
    let mut stream = connection.open_uni().await?;
    stream.write_chunk(bytes).await?;
    let _ = stream.finish();
    Ok(())
}

/// Tells the asker that there will be no answer.
fn no_answer(mut send: SendStream, why: VarInt) {
    // An error says that the asker has gone.
    let _ = send.reset(why);
}

/// Reads what is left of a stream of which the first byte has been read. Not by `RecvStream::read_to_end`, which reads out of order: when
/// the same data had come in two packets before the first byte was taken out of one, quinn 0.11 reads that byte again out of the other,
/// so that a request began with the tag, and with overflow checks the stream panicked when it was dropped.
async fn read_rest(stream: &mut RecvStream, len_max: usize) -> Result<Vec<u8>, ReadToEndError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream
        .read_chunk(usize::MAX, true)
        .await
        .map_err(ReadToEndError::Read)?
    {
        if bytes.len() + chunk.bytes.len() > len_max {
            return Err(ReadToEndError::TooLong);
        }
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(bytes)
}

async fn reply(mut send: SendStream, bytes: &[u8]) {
    // Who asked and went away needs no answer.
    if send.write_all(bytes).await.is_ok() {
        let _ = send.finish();
    }
}

/// `generation|address|node`.
pub(crate) fn encode_suspect(life: &Life, addr: SocketAddr) -> Vec<u8> {
    format!("{}|{addr}|{}", life.generation, life.node).into_bytes()
}

pub(crate) fn decode_suspect(bytes: &[u8]) -> Option<(Life, SocketAddr)> {
    let mut parts = std::str::from_utf8(bytes).ok()?.splitn(3, '|');
    let generation = parts.next()?.parse().ok()?;
    let addr = parts.next()?.parse().ok()?;
    let node = parts.next()?.parse().ok()?;
    Some((Life { node, generation }, addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_survives_the_wire() {
        let life = Life {
            node: "n-1".parse().unwrap(),
            generation: u64::MAX,
        };
        let addr = "[::1]:7701".parse().unwrap();
        assert_eq!(decode_suspect(&encode_suspect(&life, addr)), Some((life, addr)));
        for wrong in [&b""[..], b"1|2|3", b"1|1.2.3.4:5|a b", b"x|1.2.3.4:5|a", b"\xff"] {
            assert_eq!(decode_suspect(wrong), None);
        }
    }

    #[test]
    fn a_full_gossip_queue_drops_the_oldest() {
        let mut queue = VecDeque::new();
        let dropped: u64 = (0..20u8)
            .map(|index| enqueue(&mut queue, Bytes::copy_from_slice(&[index])))
            .sum();
        assert_eq!(dropped, 4);
        assert_eq!((queue.len(), queue[0][0]), (GOSSIP_QUEUE_LEN, 4));
    }
}
