//! Data links: the ordered messages between this node and one life of another one. A link has a bounded queue for each channel, at most
//! one data connection, dialled when there is something to send, and on that connection one long-lived stream a channel and direction.
//!
//! The invariants:
//! - A message is written to one connection only, so it is never doubled. What was written when a connection broke may be lost, and
//!   `Lost` says so for each channel that had been written to; what was still queued goes out on the next connection.
//! - A new connection is taken into use under the same lock that delivery holds, so nothing from an older connection is delivered
//!   after anything from a newer one.
//! - Both ends take connections into use in the same order (`choice.rs` decides), so crossing dials neither reorder nor lose anything.
//!
//! Locks are taken in the order telling, delivering, that of `reach.rs`, state, outbox; the owner is called under the first two only, and
//! may send from there.

mod choice;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{BufMut, Bytes, BytesMut};
use quinn::{Connection, RecvStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::choice::Choice;
use crate::collision::Begun;
use crate::control::Control;
use crate::error::SendError;
use crate::frame::{Decoder, Encoder};
use crate::inbound::{Channel, Inbound, LinkEvent};
use crate::peer::{Identity, Life, NodeId};
use crate::quic::{CloseCode, DialError, Established, Kind, Quic};
use crate::reach::Reach;
use crate::stats::Counters;
use crate::turnstile::Turnstile;

/// The channels of the owner and our own two, for broadcasts and for the directory of groups.
const CHANNELS: usize = Channel::COUNT as usize + 2;

/// How much a writer takes out of the queue at once. Larger batches gain nothing and are lost together when the connection breaks.
const BATCH_BYTES: usize = 256 << 10;

/// What a queued message costs beside its bytes, so that empty messages do not make an endless queue.
const MESSAGE_COST: usize = 32;

/// How much a reader takes from a stream at once.
const READ_BYTES: usize = 256 << 10;

/// How soon a broken connection is dialled again: after 50 ms, doubling up to 2 s, with jitter.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(2);

/// Handshakes of ours that may be under way at once, and how long one that gets no answer counts among them. More of them gain nothing on
/// one processor, and what comes from the other end while a dial waits need not be dialled at all: a hundred nodes that all had
/// something for all others at the same moment, in one process on two cores, were not through after two minutes without this. A peer
/// that is a member is there, so one that does not answer is rare.
const DIALS_AT_ONCE: usize = 3;
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// The first byte of a channel's stream, before the channel's number.
const TAG_CHANNEL: u8 = 6;

/// What links need of the rest.
pub(crate) struct Surroundings {
    pub(crate) quic: Arc<Quic>,
    pub(crate) control: Arc<Control>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) inbound: Arc<dyn Inbound>,
    pub(crate) reach: Arc<Reach>,
    pub(crate) queue_bytes_max: usize,
    pub(crate) message_bytes_max: usize,
    /// How many peers may be linked.
    pub(crate) peers_max: usize,
    pub(crate) started_at: Instant,
    pub(crate) runtime: Handle,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// The links to all members.
pub(crate) struct Links {
    around: Arc<Surroundings>,
    /// Read on every send, changed when members come and go.
    by_node: ArcSwap<HashMap<NodeId, Arc<Link>>>,
    changing: Mutex<()>,
    turnstile: Arc<Turnstile>,
}

impl Links {
    pub(crate) fn new(around: Surroundings) -> Self {
        Self {
            around: Arc::new(around),
            by_node: ArcSwap::default(),
            changing: Mutex::new(()),
            turnstile: Turnstile::new(DIALS_AT_ONCE, DIAL_PATIENCE),
        }
    }

    /// Who is linked under this name.
    pub(crate) fn identity(&self, node: &NodeId) -> Option<Identity> {
        self.by_node.load().get(node).map(|link| link.identity.clone())
    }

    /// Whether a node is linked: a member, and not gone.
    pub(crate) fn is_linked(&self, node: &NodeId) -> bool {
        self.by_node.load().contains_key(node)
    }

    pub(crate) fn send(&self, to: &NodeId, channel: Channel, message: Bytes) -> Result<(), SendError> {
        if self.around.stop.is_cancelled() {
            return Err(SendError::Closed);
        }
        match self.by_node.load().get(to) {
            Some(link) => link.send(channel, message),
            None => Err(SendError::UnknownNode { node: to.clone() }),
        }
    }

    /// Makes sure that there is a link to this life, ending the link to an older one; none when a newer one is linked.
    pub(crate) fn ensure(&self, identity: &Identity) -> Option<Arc<Link>> {
        let changing = self.changing.lock().expect("nothing panics under this lock");
        let life = identity.peer.life();
        let links = self.by_node.load_full();
        let older = match links.get(&life.node) {
            Some(link) if link.life.generation > life.generation => return None,
            Some(link) if link.life.generation == life.generation => return Some(link.clone()),
            older => older.cloned(),
        };
        let link = Arc::new(Link::new(self.around.clone(), self.turnstile.clone(), identity.clone()));
        let mut links = (*links).clone();
        links.insert(life.node, link.clone());
        // The older life is over before a message can go to the newer one.
        if let Some(older) = older {
            older.end();
        }
        self.by_node.store(Arc::new(links));
        drop(changing);
        Some(link)
    }

    /// Ends the link to a life that is over.
    pub(crate) fn retire(&self, life: &Life) {
        let _changing = self.changing.lock().expect("nothing panics under this lock");
        let links = self.by_node.load_full();
        let Some(link) = links.get(&life.node).filter(|link| link.life == *life) else {
            return;
        };
        let mut links = (*links).clone();
        links.remove(&life.node);
        self.by_node.store(Arc::new(links));
        link.end();
    }

    /// Takes a data connection that a peer began.
    pub(crate) async fn accept(&self, established: Established) {
        let Some(welcome) = established.prepare_welcome().await else {
            return;
        };
        match self.admit(&established) {
            Ok(link) => {
                welcome.say().await;
                self.around.control.seen(link.life.clone()).await;
            }
            Err(code) => code.close(&established.connection),
        }
    }

    fn admit(&self, established: &Established) -> Result<Arc<Link>, CloseCode> {
        let links = self.by_node.load();
        if links.len() >= self.around.peers_max && !links.contains_key(&established.identity.peer.node) {
            self.around.quic.note_crowded(established, self.around.peers_max);
            return Err(CloseCode::Crowded);
        }
        if let Some(code) = self.around.control.turn_away(&established.identity.peer.life()) {
            return Err(code);
        }
        let link = self.ensure(&established.identity).ok_or(CloseCode::Superseded)?;
        link.adopt(established)?;
        Ok(link)
    }

    /// Cuts every data connection, as a fault of the network would; they come back when there is something to send.
    pub(crate) fn cut(&self) {
        for link in self.by_node.load().values() {
            link.cut();
        }
    }

    /// Waits until every queue is empty and all that was written has been received.
    pub(crate) async fn flush(&self) {
        let links = self.by_node.load_full();
        for link in links.values() {
            link.finish();
        }
        for link in links.values() {
            link.finished().await;
        }
    }
}

/// The link to one life of a node.
pub(crate) struct Link {
    around: Arc<Surroundings>,
    turnstile: Arc<Turnstile>,
    identity: Identity,
    life: Life,
    /// Held while the owner is told of events, so that they come one after the other.
    telling: Mutex<()>,
    state: Mutex<State>,
    channels: [ChannelState; CHANNELS],
    over: CancellationToken,
}

struct State {
    choice: Choice,
    current: Option<Connection>,
    /// A task dials until there is a connection.
    dialling: bool,
    over: bool,
}

#[derive(Default)]
struct ChannelState {
    out: Mutex<Outbox>,
    /// Rings when an empty queue gets a message.
    ready: Notify,
    /// Which connection's messages may be delivered; held while they are.
    delivering: Mutex<u64>,
}

#[derive(Default)]
struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
    full: bool,
    /// The connection whose writer serves this queue.
    writer: Option<u64>,
    /// The current connection has been given something.
    written: bool,
    finishing: bool,
    finished: bool,
    over: bool,
}

/// The number of a connection from which nothing may be delivered any more.
const NONE_MAY_DELIVER: u64 = u64::MAX;

impl Link {
    fn new(around: Arc<Surroundings>, turnstile: Arc<Turnstile>, identity: Identity) -> Self {
        let choice = Choice::new(around.quic.local().peer.node < identity.peer.node);
        Self {
            life: identity.peer.life(),
            identity,
            around,
            turnstile,
            telling: Mutex::new(()),
            state: Mutex::new(State {
                choice,
                current: None,
                dialling: false,
                over: false,
            }),
            channels: Default::default(),
            over: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    fn channel(&self, channel: Channel) -> &ChannelState {
        &self.channels[usize::from(channel.index())]
    }

    fn out(&self, channel: Channel) -> MutexGuard<'_, Outbox> {
        self.channel(channel)
            .out
            .lock()
            .expect("nothing panics under this lock")
    }

    fn every_channel() -> impl Iterator<Item = Channel> {
        (0..=Channel::DIRECTORY.index()).filter_map(Channel::from_wire)
    }

    fn tell(&self, event: LinkEvent) {
        self.around.inbound.link(&self.identity.peer, event);
    }

    /// Tells the owner of its channels that may have lost something; the directory says again what it has.
    fn tell_lost(&self, lost: Vec<Channel>) {
        for channel in lost {
            if channel == Channel::DIRECTORY {
                self.around.reach.say_again(&self.life.node);
            } else if channel.is_owners() {
                self.tell(LinkEvent::Lost { channel });
            }
        }
    }

    fn tell_writable(&self, channel: Channel) {
        if channel == Channel::DIRECTORY {
            self.around.reach.ring();
        }
        if !channel.is_owners() {
            return;
        }
        let _telling = self
            .telling
            .lock()
            .expect("an owner that panics when told ends the mesh");
        // Nothing is told after `Gone`.
        if !self.state().over {
            self.tell(LinkEvent::Writable { channel });
        }
    }

    /// Queues a message. Never waits.
    fn send(self: &Arc<Self>, channel: Channel, message: Bytes) -> Result<(), SendError> {
        let max = self.around.message_bytes_max;
        if message.len() > max {
            return Err(SendError::TooLarge {
                len: message.len(),
                max,
            });
        }
        let mut out = self.out(channel);
        if out.over {
            return Err(SendError::UnknownNode {
                node: self.life.node.clone(),
            });
        }
        let cost = message.len() + MESSAGE_COST;
        // An empty queue takes any message, so that a small limit cannot block a large message for ever.
        if out.bytes + cost > self.around.queue_bytes_max && !out.queue.is_empty() {
            out.full = true;
            self.around.counters.queue_full.add(1);
            return Err(SendError::Full);
        }
        let was_empty = out.queue.is_empty();
        out.queue.push_back(message);
        out.bytes += cost;
        let served = out.writer.is_some();
        drop(out);
        if !served {
            self.begin_writing(channel);
        } else if was_empty {
            self.channel(channel).ready.notify_one();
        }
        Ok(())
    }

    /// Sees to it that a channel with something to send has a writer, or that a connection is dialled.
    fn begin_writing(self: &Arc<Self>, channel: Channel) {
        let mut state = self.state();
        if state.over {
            return;
        }
        match &state.current {
            Some(connection) => {
                let mut out = self.out(channel);
                if out.writer.is_none() {
                    let number = state.choice.number();
                    out.writer = Some(number);
                    drop(out);
                    self.spawn_writer(channel, number, connection.clone());
                }
            }
            // One is just being taken into use, and then every queue is looked at.
            None if state.choice.is_connected() => {}
            None => self.begin_dial(&mut state),
        }
    }

    fn spawn_writer(self: &Arc<Self>, channel: Channel, number: u64, connection: Connection) {
        let link = self.clone();
        let write = async move {
            if let Err(error) = link.write(channel, number, &connection).await {
                // The connection is broken: the task that watches it says what is lost.
                debug!(peer = %link.identity.peer, %error, "a channel's stream broke");
            }
        };
        self.around.tracker.spawn_on(write, &self.around.runtime);
    }

    fn begin_dial(self: &Arc<Self>, state: &mut State) {
        if state.dialling || state.over {
            return;
        }
        state.dialling = true;
        let link = self.clone();
        let dial = async move {
            tokio::select! {
                () = link.dial() => {}
                () = link.over.cancelled() => {}
                () = link.around.stop.cancelled() => {}
            }
        };
        self.around.tracker.spawn_on(dial, &self.around.runtime);
    }

    /// Dials until there is a connection, whoever began it.
    async fn dial(self: &Arc<Self>) {
        let mut wait = REDIAL_MIN;
        loop {
            let turn = self.turnstile.enter().await;
            // Only now: while we waited the peer may have come to us.
            if !self.state().choice.begin_attempt() {
                break;
            }
            let dial = self.around.quic.dial(self.identity.gossip_addr, Kind::Data);
            let result = turn.spend(dial).await;
            match result {
                Ok(established) => match self.adopt_dialled(&established) {
                    Ok(()) => return,
                    Err(code) => code.close(&established.connection),
                },
                // The other end has the last word and is dialling us.
                Err(DialError::Closed(CloseCode::Duplicate)) => {}
                Err(error) => {
                    self.around.counters.dial_failures.add(1);
                    debug!(peer = %self.identity.peer, %error, "no data connection");
                }
            }
            self.state().choice.attempt_failed();
            sleep(wait.mul_f64(rand::random_range(0.8..1.2))).await;
            wait = (wait * 2).min(REDIAL_MAX);
        }
        // A connection that broke before we got here found us dialling and left the redial to us.
        let mut state = self.state();
        state.dialling = false;
        if !state.choice.is_connected() && self.has_something_to_send() {
            self.begin_dial(&mut state);
        }
    }

    fn has_something_to_send(&self) -> bool {
        Self::every_channel().any(|channel| !self.out(channel).queue.is_empty())
    }

    fn adopt_dialled(self: &Arc<Self>, established: &Established) -> Result<(), CloseCode> {
        if established.identity.peer.life() != self.life {
            // Somebody else lives there now; the control connection will find that out too.
            return Err(CloseCode::Gone);
        }
        self.adopt(established)
    }

    /// Takes a connection into use, or says with which code to close it.
    fn adopt(self: &Arc<Self>, established: &Established) -> Result<(), CloseCode> {
        let _telling = self
            .telling
            .lock()
            .expect("an owner that panics when told ends the mesh");
        let (number, replaced) = {
            let mut state = self.state();
            if state.over {
                return Err(CloseCode::Gone);
            }
            let now = self.around.started_at.elapsed();
            if !state.choice.admits(now, established.begun) {
                return Err(CloseCode::Duplicate);
            }
            (state.choice.take(now, established.begun), state.current.take())
        };
        // Not under the state's lock: whoever is being handed a message may be sending one. What is sent meanwhile stays queued.
        self.only_deliver(number);
        let mut state = self.state();
        state.current = Some(established.connection.clone());
        if established.begun == Begun::ByUs {
            state.dialling = false;
        }
        let lost = self.take_lost();
        for channel in Self::every_channel() {
            let mut out = self.out(channel);
            out.writer = None;
            if !out.queue.is_empty() {
                out.writer = Some(number);
                drop(out);
                self.spawn_writer(channel, number, established.connection.clone());
            }
        }
        drop(state);
        match replaced {
            Some(replaced) => {
                CloseCode::Duplicate.close(&replaced);
                self.around.counters.links_lost.add(1);
            }
            None => self.around.counters.data_connections.add(1),
        }
        self.tell_lost(lost);
        self.tell(LinkEvent::Connected);
        self.around.reach.say_again(&self.life.node);
        let (link, connection) = (self.clone(), established.connection.clone());
        self.around
            .tracker
            .spawn_on(async move { link.read(number, connection).await }, &self.around.runtime);
        Ok(())
    }

    /// From now on only this connection's messages are delivered. The caller tells, so no two do this at once.
    fn only_deliver(&self, number: u64) {
        for channel in &self.channels {
            *channel
                .delivering
                .lock()
                .expect("an owner that panics on a message ends the mesh") = number;
        }
    }

    /// The channels that were written to on the connection that is over.
    fn take_lost(&self) -> Vec<Channel> {
        let lost = |channel: &Channel| std::mem::take(&mut self.out(*channel).written);
        Self::every_channel().filter(lost).collect()
    }

    /// The connection with this number broke.
    fn lost(self: &Arc<Self>, number: u64) {
        let _telling = self
            .telling
            .lock()
            .expect("an owner that panics when told ends the mesh");
        let mut state = self.state();
        if state.over || !state.choice.lost(number) {
            return;
        }
        state.current = None;
        self.around.counters.data_connections.subtract(1);
        self.around.counters.links_lost.add(1);
        for channel in Self::every_channel() {
            self.out(channel).writer = None;
        }
        let lost = self.take_lost();
        if self.has_something_to_send() {
            self.begin_dial(&mut state);
        }
        drop(state);
        self.tell_lost(lost);
    }

    /// This life is over: nothing more is delivered from it, and what is queued for it is dropped.
    fn end(&self) {
        let _telling = self
            .telling
            .lock()
            .expect("an owner that panics when told ends the mesh");
        if std::mem::replace(&mut self.state().over, true) {
            return;
        }
        self.over.cancel();
        self.only_deliver(NONE_MAY_DELIVER);
        let mut state = self.state();
        if let Some(connection) = state.current.take() {
            CloseCode::Gone.close(&connection);
            self.around.counters.data_connections.subtract(1);
        }
        for channel in &self.channels {
            let mut out = channel.out.lock().expect("nothing panics under this lock");
            self.around.counters.dropped.add(out.queue.len() as u64);
            *out = Outbox {
                over: true,
                finished: true,
                ..Outbox::default()
            };
            channel.ready.notify_one();
        }
        drop(state);
        self.tell(LinkEvent::Gone);
    }

    fn cut(&self) {
        if let Some(connection) = &self.state().current {
            CloseCode::Cut.close(connection);
        }
    }

    /// Lets writers end once their queues are empty.
    fn finish(&self) {
        for channel in &self.channels {
            let mut out = channel.out.lock().expect("nothing panics under this lock");
            out.finishing = true;
            out.finished = out.queue.is_empty() && !out.written;
            channel.ready.notify_one();
        }
    }

    /// Waits until `finish` has had its effect. The caller bounds the time.
    async fn finished(&self) {
        while !Self::every_channel().all(|channel| self.out(channel).finished) {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn write(
        self: &Arc<Self>,
        channel: Channel,
        number: u64,
        connection: &Connection,
    ) -> Result<(), quinn::WriteError> {
        let mut stream = connection.open_uni().await?;
        stream.write_all(&[TAG_CHANNEL, channel.index()]).await?;
        let mut encoder = Encoder::default();
        loop {
            match self.take_batch(channel, number, &mut encoder) {
                Batch::Some { has_room_again } => {
                    if has_room_again {
                        self.tell_writable(channel);
                    }
                    stream.write_all_chunks(&mut encoder.take()).await?;
                }
                Batch::None => {
                    tokio::select! {
                        () = self.channel(channel).ready.notified() => {}
                        // Otherwise the writer of an idle channel would outlive its connection.
                        _ = connection.closed() => return Ok(()),
                    }
                }
                Batch::Finished => {
                    let _ = stream.finish();
                    let _ = stream.stopped().await;
                    self.out(channel).finished = true;
                    return Ok(());
                }
                Batch::NotOurs => return Ok(()),
            }
        }
    }

    fn take_batch(&self, channel: Channel, number: u64, encoder: &mut Encoder) -> Batch {
        let mut out = self.out(channel);
        if out.writer != Some(number) {
            // A writer may have been woken in the place of its successor.
            drop(out);
            self.channel(channel).ready.notify_one();
            return Batch::NotOurs;
        }
        let (mut bytes, mut count) = (0, 0);
        while bytes < BATCH_BYTES {
            let Some(message) = out.queue.pop_front() else {
                break;
            };
            bytes += message.len() + MESSAGE_COST;
            count += 1;
            encoder.push(message);
        }
        if count == 0 {
            return if out.finishing { Batch::Finished } else { Batch::None };
        }
        out.bytes -= bytes;
        out.written = true;
        self.around.counters.messages_sent.add(count);
        // Half empty, so that a sender which waits can then send more than one message.
        let has_room_again = out.full && out.bytes <= self.around.queue_bytes_max / 2;
        if has_room_again {
            out.full = false;
        }
        Batch::Some { has_room_again }
    }

    async fn read(self: Arc<Self>, number: u64, connection: Connection) {
        let error = loop {
            match connection.accept_uni().await {
                Ok(stream) => {
                    let (link, connection) = (self.clone(), connection.clone());
                    let read = async move {
                        if let Err(why) = link.read_channel(number, stream).await
                            && connection.close_reason().is_none()
                        {
                            let node = &link.identity.peer.node;
                            link.around.quic.note_malformed(&connection, node, why);
                            CloseCode::Malformed.close(&connection);
                        }
                    };
                    self.around.tracker.spawn_on(read, &self.around.runtime);
                }
                Err(error) => break error,
            }
        };
        debug!(peer = %self.identity.peer, %error, "data connection lost");
        self.lost(number);
    }

    async fn read_channel(self: &Arc<Self>, number: u64, mut stream: RecvStream) -> Result<(), String> {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await.map_err(|error| error.to_string())?;
        let channel = match head {
            [TAG_CHANNEL, channel] => Channel::from_wire(channel).ok_or("no such channel")?,
            // Of a later version.
            _ => return Ok(()),
        };
        let mut decoder = Decoder::new(self.around.message_bytes_max);
        while let Some(chunk) = stream
            .read_chunk(READ_BYTES, true)
            .await
            .map_err(|error| error.to_string())?
        {
            decoder.feed(chunk.bytes);
            if !self.deliver(channel, number, &mut decoder)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands on what is complete; false when this connection's messages are not wanted any more.
    fn deliver(&self, channel: Channel, number: u64, decoder: &mut Decoder) -> Result<bool, String> {
        let delivering = self
            .channel(channel)
            .delivering
            .lock()
            .expect("an owner that panics on a message ends the mesh");
        if *delivering != number {
            return Ok(false);
        }
        let mut count = 0;
        while let Some(message) = decoder.next().map_err(|error| error.to_string())? {
            count += 1;
            if channel == Channel::BROADCAST {
                let (group, message) = read_broadcast(message).ok_or("a broadcast that cannot be read")?;
                // Its sender may not have heard yet that we left, or not have known who is a member.
                if self.around.reach.is_member(&group) {
                    self.around.inbound.broadcast(&self.identity.peer, &group, message);
                }
            } else if channel == Channel::DIRECTORY {
                if !self.around.reach.message(&self.life, &message) {
                    // Of a later version, perhaps: what it would have said is compared again later.
                    debug!(peer = %self.identity.peer, "a message of the directory of groups cannot be read");
                }
            } else {
                self.around.inbound.message(&self.identity.peer, channel, message);
            }
        }
        self.around.counters.messages_received.add(count);
        Ok(true)
    }
}

enum Batch {
    Some {
        has_room_again: bool,
    },
    None,
    /// The queue is empty and will stay so.
    Finished,
    /// Another writer serves the queue.
    NotOurs,
}

/// Two bytes of length, the group's name, the message.
pub(crate) fn write_broadcast(group: &str, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(2 + group.len() + message.len());
    bytes.put_u16_le(u16::try_from(group.len()).expect("a group's name is checked when it is joined"));
    bytes.extend_from_slice(group.as_bytes());
    bytes.extend_from_slice(message);
    bytes.freeze()
}

pub(crate) fn read_broadcast(mut bytes: Bytes) -> Option<(String, Bytes)> {
    let len = usize::from(u16::from_le_bytes(*bytes.first_chunk()?));
    if bytes.len() < 2 + len {
        return None;
    }
    let message = bytes.split_off(2 + len);
    let group = std::str::from_utf8(&bytes[2..]).ok()?.to_owned();
    Some((group, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_survives_the_wire() {
        let bytes = write_broadcast("räume", b"hello");
        assert_eq!(
            read_broadcast(bytes.clone()),
            Some(("räume".into(), Bytes::from_static(b"hello")))
        );
        for len in 0..8 {
            assert_eq!(read_broadcast(bytes.slice(..len)), None, "cut at {len}");
        }
    }
}
