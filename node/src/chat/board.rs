//! What this node knows of channels: which are open here and who of its sessions is in them, and which other nodes want to hear
//! which. One lock, briefly held; what is said to sockets and nodes under it goes into their queues.
//!
//! The rules of order and of crowds are in `order` and `crowd`; the store is asked by `task` and `requests`. The invariant: every
//! node that answers knows of an open channel here before a client is told that it is in it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rookery_gossip::SendError;
use rookery_protocol::client::{ChannelMessage, ChannelRequest, ChatLine, Encoding, ServerMessage};
use rookery_protocol::peer::{self, ChatWord};
use rookery_protocol::{NodeLife, NodeName, PlayerId, SessionId};

use super::crowd::{Change, Crowd};
use super::name::ChannelName;
use super::order::{Entry, Hole, Order};
use crate::peer::CHAT;
use crate::session::Session;
use crate::session::hub::{Hub, node_id};
use crate::session::listener::Listener;
use crate::store::ChannelView;

/// Channels that another node may want to hear. It cannot have more members than sockets.
const WANTED_MAX: usize = 1 << 20;

/// Channels named in one message to another node.
const NAMED_AT_ONCE: usize = 500;

/// How long a `dm:` is kept in order after its last line.
const DM_QUIET_MS: u64 = 60_000;

/// A channel that is open on this node.
#[derive(Default)]
pub(super) struct Open {
    pub(super) order: Order,
    pub(super) crowd: Crowd,
    members: BTreeMap<SessionId, Member>,
    /// Sessions on their way in.
    entering: u32,
    /// The number under which other nodes were told that we want to hear it.
    told_as: u64,
    heard_ms: u64,
}

/// A session in a channel: it has every line up to `floor`, by its own account.
struct Member {
    session: Arc<Session>,
    floor: u64,
}

/// A session that uses chat.
struct Visitor {
    session: Arc<Session>,
    joined: BTreeSet<ChannelName>,
    /// Conversations that it asked to join from a line on: it is served what it missed, so it hears nothing of them before that.
    catching_up: BTreeMap<ChannelName, CatchingUp>,
    waiting: VecDeque<Wish>,
    /// Whether a task is at its wishes.
    served: bool,
}

/// What a session does not hear yet of a conversation.
struct CatchingUp {
    /// Lines above this one are withheld.
    above: u64,
    /// How often it asked and was not served.
    asked: u32,
}

/// A request that waits for its turn.
pub(super) struct Wish {
    pub(super) id: Option<i64>,
    pub(super) request: ChannelRequest,
}

/// Another node.
struct Peer {
    generation: u64,
    wants: BTreeSet<ChannelName>,
    /// What we said up to this number is known there.
    knows: u64,
    /// Something did not fit into the queue: all is said anew when there is room.
    owed: bool,
}

/// See the file.
#[derive(Default)]
pub(super) struct Board {
    channels: BTreeMap<ChannelName, Open>,
    visitors: HashMap<SessionId, Visitor>,
    peers: BTreeMap<NodeName, Peer>,
    /// Counts what was said of our interest.
    said: u64,
    /// Channels with something in doubt: who came and went.
    restless: BTreeSet<ChannelName>,
    /// Channels that may have a hole.
    holed: BTreeSet<ChannelName>,
}

/// What came of hearing a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is delivered, held, or nobody here wants it.
    Done,
    /// The first line of a `dm:` in a while: the store is to say what was before it.
    Opened,
}

impl Board {
    // Sessions

    /// Queues a wish of a session, unless so many wait already. [`Board::begin`] says whether anybody serves them.
    pub(super) fn wish(&mut self, session: &Arc<Session>, wish: Wish, waiting_max: usize) -> Result<(), Wish> {
        let visitor = self.visitors.entry(session.id()).or_insert_with(|| Visitor {
            session: Arc::clone(session),
            joined: BTreeSet::new(),
            catching_up: BTreeMap::new(),
            waiting: VecDeque::new(),
            served: false,
        });
        if visitor.waiting.len() >= waiting_max {
            return Err(wish);
        }
        if let ChannelRequest::Join {
            channel,
            since: Some(since),
        } = &wish.request
            && let Ok(name) = ChannelName::read(channel, session.player())
            && name.players().is_some()
        {
            let delivered = self.channels.get(&name).and_then(|open| open.order.delivered());
            let above = delivered.unwrap_or(0).max(*since);
            let catching_up = visitor.catching_up.entry(name);
            catching_up.or_insert(CatchingUp { above, asked: 0 }).asked += 1;
        }
        visitor.waiting.push_back(wish);
        Ok(())
    }

    /// Whether a session has wishes that nobody serves yet; whoever is told so does.
    pub(super) fn begin(&mut self, session: SessionId) -> bool {
        self.visitors
            .get_mut(&session)
            .is_some_and(|visitor| !std::mem::replace(&mut visitor.served, true))
    }

    /// The next wishes of a session: one, or several lines to be sent. None when all are served or the session is gone.
    pub(super) fn next_wishes(&mut self, session: SessionId) -> Option<Vec<Wish>> {
        let visitor = self.visitors.get_mut(&session)?;
        let is_line = |wish: &Wish| matches!(wish.request, ChannelRequest::Send { .. });
        let lines = visitor.waiting.iter().take_while(|wish| is_line(wish)).count();
        let wishes: Vec<Wish> = visitor
            .waiting
            .drain(..lines.max(1).min(visitor.waiting.len()))
            .collect();
        visitor.served = !wishes.is_empty();
        visitor.served.then_some(wishes)
    }

    /// A session has what it missed of a conversation, and hears it from here on unless it has asked again. Above which line it was
    /// withheld from it.
    pub(super) fn caught_up(&mut self, session: SessionId, name: &ChannelName) -> Option<u64> {
        let visitor = self.visitors.get_mut(&session)?;
        let catching_up = visitor.catching_up.get_mut(name)?;
        catching_up.asked -= 1;
        if catching_up.asked > 0 {
            return None;
        }
        visitor.catching_up.remove(name).map(|catching_up| catching_up.above)
    }

    /// A session is not served what it asked for, so it hears a conversation as if it had not asked: first what was withheld
    /// meanwhile, as far as it is kept.
    pub(super) fn not_caught_up(&mut self, session: &Session, name: &ChannelName) {
        let Some(above) = self.caught_up(session.id(), name) else {
            return;
        };
        let Some(open) = self.channels.get(name) else { return };
        let floor = open.members.get(&session.id()).map_or(0, |member| member.floor);
        for line in open.order.kept_after(above.max(floor)) {
            let (channel, line) = (name.seen_by(session.player()), line.clone());
            session.send(None, &ServerMessage::Channel(ChannelMessage::Line { channel, line }));
        }
    }

    /// The session is gone, from every channel too.
    pub(super) fn forget_session(&mut self, hub: &Hub, session: SessionId) {
        let Some(visitor) = self.visitors.remove(&session) else {
            return;
        };
        for name in visitor.joined {
            self.remove_member(hub, &name, session, visitor.session.player());
        }
    }

    pub(super) fn is_member(&self, session: SessionId, name: &ChannelName) -> bool {
        self.visitors
            .get(&session)
            .is_some_and(|visitor| visitor.joined.contains(name))
    }

    /// How many channels a session is in.
    pub(super) fn joined(&self, session: SessionId) -> usize {
        self.visitors.get(&session).map_or(0, |visitor| visitor.joined.len())
    }

    // Channels

    /// Opens a channel for a session on its way in, and tells the other nodes if they do not know yet; the number under which
    /// they are told. [`Board::enter`] or [`Board::turn_back`] must follow.
    pub(super) fn approach(&mut self, hub: &Hub, name: &ChannelName) -> u64 {
        if !self.channels.contains_key(name) {
            let told_as = self.tell_interest(hub, name, true);
            let open = Open {
                told_as,
                heard_ms: hub.now_ms(),
                ..Open::default()
            };
            self.channels.insert(name.clone(), open);
        }
        let open = self.channels.get_mut(name).expect("it was just put there");
        open.entering += 1;
        open.told_as
    }

    /// The store said that the channel stands at `last`: lines that came meanwhile are delivered.
    pub(super) fn open(&mut self, hub: &Hub, name: &ChannelName, last: u64) {
        self.with_order(hub, name, |order, now_ms, out| order.open(now_ms, last, out));
    }

    /// Whether lines of a channel wait until it is known where it stands.
    pub(super) fn is_unopened(&self, name: &ChannelName) -> bool {
        let open = self.channels.get(name);
        open.is_some_and(|open| open.order.delivered().is_none())
    }

    /// What a session that approached is served; see [`Order::enter`].
    pub(super) fn entry(
        &self,
        name: &ChannelName,
        session: SessionId,
        since: Option<u64>,
        view: ChannelView,
    ) -> Option<Entry> {
        let open = self.channels.get(name)?;
        let mut entry = open.order.enter(since, view)?;
        if let Some(member) = open.members.get(&session) {
            // It may have been served more than this node has heard.
            entry.last = entry.last.max(member.floor);
        }
        Some(entry)
    }

    /// A session that approached is in, from here on. What it is told is queued before any line that comes later. False when the
    /// session is gone.
    pub(super) fn enter(&mut self, hub: &Hub, name: &ChannelName, session: &Arc<Session>, floor: u64) -> bool {
        let Some(visitor) = self.visitors.get_mut(&session.id()) else {
            self.turn_back(hub, name);
            return false;
        };
        let is_new = visitor.joined.insert(name.clone());
        if let Some(open) = self.channels.get_mut(name) {
            let session = Arc::clone(session);
            let player = session.player();
            open.members.insert(session.id(), Member { session, floor });
            if is_new && name.players().is_none() {
                open.crowd.enter(player);
                self.restless.insert(name.clone());
            }
        }
        self.turn_back(hub, name);
        true
    }

    /// Who is in a channel, as somebody who joins is told.
    pub(super) fn everyone(&self, name: &ChannelName) -> Vec<PlayerId> {
        match name.players() {
            Some(players) => players.to_vec(),
            None => self.channels.get(name).map_or(Vec::new(), |open| open.crowd.everyone()),
        }
    }

    /// Tells the members of a channel here who came and went, now.
    pub(super) fn tell_crowd(&mut self, hub: &Hub, name: &ChannelName) {
        let Some(open) = self.channels.get_mut(name) else {
            return;
        };
        let there = open.crowd.tell_there();
        let here = open.crowd.tell();
        if !here.is_empty() {
            let message = members_message(name, &here);
            let mut frames = Frames::default();
            for member in open.members.values() {
                let session = &member.session;
                if !here.joined.contains(&session.player()) {
                    session.push(frames.of(&message, session.encoding()));
                    continue;
                }
                // Who came has been answered; what they have not heard is who else did.
                let change = here.without(session.player());
                if !change.is_empty() {
                    session.send(None, &members_message(name, &change));
                }
            }
        }
        if !there.is_empty() {
            let word = ChatWord::Members {
                channel: name.to_string(),
                anew: false,
                joined: there.joined,
                left: there.left,
            };
            self.say_to_listeners(hub, name, &word);
        }
    }

    /// Tells of all who came and went lately.
    pub(super) fn tell_crowds(&mut self, hub: &Hub) {
        for name in std::mem::take(&mut self.restless) {
            self.tell_crowd(hub, &name);
        }
    }

    /// A session that approached does not come in, or is in already.
    pub(super) fn turn_back(&mut self, hub: &Hub, name: &ChannelName) {
        if let Some(open) = self.channels.get_mut(name) {
            open.entering -= 1;
            self.close_if_empty(hub, name);
        }
    }

    /// A session leaves a channel, if it is in it.
    pub(super) fn leave(&mut self, hub: &Hub, name: &ChannelName, session: &Session) {
        if name.players().is_some() && self.is_ahead(name, session.id()) {
            // It goes on hearing the conversation, and would hear again what it was served. So it stays until its socket is gone.
            return;
        }
        let visitor = self.visitors.get_mut(&session.id());
        if visitor.is_some_and(|visitor| visitor.joined.remove(name)) {
            self.remove_member(hub, name, session.id(), session.player());
        }
    }

    /// Whether a member was served lines that are still on their way to this node.
    fn is_ahead(&self, name: &ChannelName, session: SessionId) -> bool {
        self.channels.get(name).is_some_and(|open| {
            let member = open.members.get(&session);
            member.is_some_and(|member| open.order.delivered() < Some(member.floor))
        })
    }

    fn remove_member(&mut self, hub: &Hub, name: &ChannelName, session: SessionId, player: PlayerId) {
        if let Some(open) = self.channels.get_mut(name) {
            open.members.remove(&session);
            if name.players().is_none() {
                open.crowd.leave(player);
                self.restless.insert(name.clone());
            }
            self.close_if_empty(hub, name);
        }
    }

    fn close_if_empty(&mut self, hub: &Hub, name: &ChannelName) {
        let Some(open) = self.channels.get(name) else { return };
        // A conversation goes on without its players having joined it.
        let is_talked_in = name.players().is_some() && hub.now_ms() < open.heard_ms + DM_QUIET_MS;
        if open.members.is_empty() && open.entering == 0 && !is_talked_in {
            self.tell_crowd(hub, name);
            self.channels.remove(name);
            self.holed.remove(name);
            self.restless.remove(name);
            self.tell_interest(hub, name, false);
        }
    }

    /// Closes conversations in which nothing was said for a while.
    pub(super) fn close_quiet(&mut self, hub: &Hub) {
        let is_dm = |name: &&ChannelName| name.players().is_some();
        let dms: Vec<ChannelName> = self.channels.keys().filter(is_dm).cloned().collect();
        for name in dms {
            self.close_if_empty(hub, &name);
        }
    }

    pub(super) fn open_count(&self) -> usize {
        self.channels.len()
    }

    /// The names of all channels that are in order here, as the store knows them.
    pub(super) fn names(&self) -> Vec<String> {
        let open = self
            .channels
            .iter()
            .filter(|(_, open)| open.order.delivered().is_some());
        open.map(|(name, _)| name.to_string()).collect()
    }

    // Lines

    /// A line was written, by this node or another.
    pub(super) fn hear(&mut self, hub: &Hub, name: &ChannelName, line: ChatLine) -> Heard {
        let mut heard = Heard::Done;
        if !self.channels.contains_key(name) {
            let Some(players) = name.players() else {
                return Heard::Done;
            };
            if players.iter().all(|player| hub.sessions_of(*player).is_empty()) {
                return Heard::Done;
            }
            self.channels.insert(name.clone(), Open::default());
        }
        if let Some(open) = self.channels.get_mut(name) {
            open.heard_ms = hub.now_ms();
            // A session on its way into a conversation opens it as well, but it may be refused.
            if name.players().is_some() && open.order.begin_opening() {
                heard = Heard::Opened;
            }
        }
        self.with_order(hub, name, |order, now_ms, out| order.hear(now_ms, line, out));
        heard
    }

    /// The store says that a channel has lines up to `last`.
    pub(super) fn exists(&mut self, hub: &Hub, name: &ChannelName, last: u64) {
        self.with_order(hub, name, |order, now_ms, _| order.exists(now_ms, last));
    }

    /// The holes that are to be read now.
    pub(super) fn holes(&mut self, now_ms: u64) -> Vec<(ChannelName, Hole)> {
        let mut holes = Vec::new();
        for name in &self.holed {
            if let Some(hole) = self.channels.get_mut(name).and_then(|open| open.order.hole(now_ms)) {
                holes.push((name.clone(), hole));
            }
        }
        holes
    }

    /// What the store has of a hole.
    pub(super) fn read(&mut self, hub: &Hub, name: &ChannelName, hole: Hole, lines: Vec<ChatLine>) {
        self.with_order(hub, name, |order, now_ms, out| order.read(now_ms, hole, lines, out));
    }

    /// The store did not say.
    pub(super) fn unread(&mut self, hub: &Hub, name: &ChannelName) {
        self.with_order(hub, name, |order, now_ms, _| order.unread(now_ms));
    }

    /// Steps a channel's order, and says to its members what is to be delivered.
    fn with_order(&mut self, hub: &Hub, name: &ChannelName, step: impl FnOnce(&mut Order, u64, &mut Vec<ChatLine>)) {
        let Some(open) = self.channels.get_mut(name) else {
            return;
        };
        let (now_ms, mut lines) = (hub.now_ms(), Vec::new());
        step(&mut open.order, now_ms, &mut lines);
        if open.order.next_wake().is_some() {
            self.holed.insert(name.clone());
        } else {
            self.holed.remove(name);
        }
        if !lines.is_empty() {
            open.heard_ms = now_ms;
        }
        for line in lines {
            say_line(hub, name, &open.members, &self.visitors, &line);
        }
    }

    // Other nodes

    /// The nodes that want to hear a channel.
    pub(super) fn listeners(&self, name: &ChannelName) -> Vec<NodeName> {
        let wanting = self.peers.iter().filter(|(_, peer)| peer.wants.contains(name));
        wanting.map(|(node, _)| node.clone()).collect()
    }

    /// Whether a node knows what we said under this number.
    pub(super) fn knows(&self, node: &NodeName, said: u64) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.knows >= said)
    }

    /// Meets a life of a node, and tells it what we want to hear if it is new to us. False for a life that is over.
    pub(super) fn meet(&mut self, hub: &Hub, life: &NodeLife) -> bool {
        match self.peers.get(&life.name).map(|peer| peer.generation) {
            Some(known) if known > life.generation => return false,
            Some(known) if known == life.generation => return true,
            Some(_) => self.part(&life.name, life.generation),
            None => {}
        }
        let peer = Peer {
            generation: life.generation,
            wants: BTreeSet::new(),
            knows: 0,
            owed: false,
        };
        self.peers.insert(life.name.clone(), peer);
        self.tell_all(hub, &life.name);
        true
    }

    /// The lives of a node up to this one are over.
    pub(super) fn part(&mut self, node: &NodeName, generation: u64) {
        if self.peers.get(node).is_some_and(|peer| peer.generation > generation) {
            return;
        }
        self.peers.remove(node);
        for (name, open) in &mut self.channels {
            open.crowd.forget(node);
            self.restless.insert(name.clone());
        }
    }

    /// A queue has room again: what did not fit is said anew.
    pub(super) fn tell_owed(&mut self, hub: &Hub, node: &NodeName) {
        if self.peers.get(node).is_some_and(|peer| peer.owed) {
            self.tell_all(hub, node);
        }
    }

    /// Tells a node all that it should know of us.
    pub(super) fn tell_all(&mut self, hub: &Hub, node: &NodeName) {
        self.tell_crowds(hub);
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.owed = false;
        let wanted = self.channels.keys().filter(|name| name.players().is_none());
        let names: Vec<String> = wanted.map(ToString::to_string).collect();
        let mut words = Vec::new();
        let mut chunks: VecDeque<&[String]> = names.chunks(NAMED_AT_ONCE).collect();
        if chunks.is_empty() {
            chunks.push_back(&[]);
        }
        while let Some(chunk) = chunks.pop_front() {
            words.push(ChatWord::Interest {
                seq: self.said,
                anew: words.is_empty(),
                more: !chunks.is_empty(),
                add: chunk.to_vec(),
                drop: Vec::new(),
            });
        }
        words.extend(peer.wants.iter().filter_map(|name| {
            let open = self.channels.get(name)?;
            Some(all_members(name, open))
        }));
        words.push(ChatWord::Check);
        for word in words {
            self.say(hub, node, &word);
        }
    }

    /// Takes what another node says of itself. Lines are for [`Board::hear`].
    pub(super) fn take(&mut self, hub: &Hub, from: &NodeName, word: ChatWord) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        match word {
            ChatWord::Interest {
                seq,
                anew,
                more,
                add,
                drop,
            } => {
                if anew {
                    peer.wants.clear();
                }
                let added: Vec<ChannelName> = add.iter().filter_map(|name| ChannelName::parse(name)).collect();
                for name in &added {
                    if peer.wants.len() < WANTED_MAX {
                        peer.wants.insert(name.clone());
                    }
                }
                for name in drop.iter().filter_map(|name| ChannelName::parse(name)) {
                    peer.wants.remove(&name);
                    if let Some(open) = self.channels.get_mut(&name) {
                        open.crowd.forget(from);
                        self.restless.insert(name);
                    }
                }
                if !more && anew {
                    // Where it wants to hear nothing it has nobody.
                    for (name, open) in &mut self.channels {
                        if !peer.wants.contains(name) {
                            open.crowd.forget(from);
                            self.restless.insert(name.clone());
                        }
                    }
                }
                for name in &added {
                    // Nobody is in doubt then: who leaves later is told of.
                    self.tell_crowd(hub, name);
                    if let Some(open) = self.channels.get(name) {
                        let word = all_members(name, open);
                        self.say(hub, from, &word);
                    }
                }
                if !more {
                    self.say(hub, from, &ChatWord::Heard { seq });
                }
            }
            ChatWord::Heard { seq } => peer.knows = peer.knows.max(seq),
            ChatWord::Members {
                channel,
                anew,
                joined,
                left,
            } => {
                let Some(name) = ChannelName::parse(&channel) else {
                    return;
                };
                if let Some(open) = self.channels.get_mut(&name) {
                    if anew {
                        open.crowd.anew(from, joined);
                    } else {
                        open.crowd.changed(from, Change { joined, left });
                    }
                    self.restless.insert(name);
                }
            }
            ChatWord::Lines { .. } | ChatWord::Check => {}
        }
    }

    /// Says to every other node that we want to hear a channel, or no longer. A `dm:` goes to where its players are.
    fn tell_interest(&mut self, hub: &Hub, name: &ChannelName, wanted: bool) -> u64 {
        if name.players().is_some() {
            return 0;
        }
        self.said += 1;
        let names = vec![name.to_string()];
        let (add, drop) = if wanted {
            (names, Vec::new())
        } else {
            (Vec::new(), names)
        };
        let word = ChatWord::Interest {
            seq: self.said,
            anew: false,
            more: false,
            add,
            drop,
        };
        let nodes: Vec<NodeName> = self.peers.keys().cloned().collect();
        for node in nodes {
            self.say(hub, &node, &word);
        }
        self.said
    }

    fn say_to_listeners(&mut self, hub: &Hub, name: &ChannelName, word: &ChatWord) {
        for node in self.listeners(name) {
            self.say(hub, &node, word);
        }
    }

    fn say(&mut self, hub: &Hub, node: &NodeName, word: &ChatWord) {
        let Some(peer) = self.peers.get_mut(node).filter(|peer| !peer.owed) else {
            return;
        };
        peer.owed = !send(hub, node, peer::encode(word));
    }

    /// Something did not go to a node: it hears of it when there is room.
    pub(super) fn owe(&mut self, node: &NodeName) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.owed = true;
        }
    }
}

/// Queues a message of chat to a node; false when the queue is full. A node that is not there is told all when it is.
pub(super) fn send(hub: &Hub, node: &NodeName, bytes: Bytes) -> bool {
    let Some(node) = node_id(node) else { return true };
    match hub.cluster().send(&node, CHAT, bytes) {
        Err(SendError::Full) => false,
        Ok(()) | Err(SendError::UnknownNode { .. } | SendError::Closed | SendError::TooLarge { .. }) => true,
    }
}

fn all_members(name: &ChannelName, open: &Open) -> ChatWord {
    ChatWord::Members {
        channel: name.to_string(),
        anew: true,
        joined: open.crowd.here(),
        left: Vec::new(),
    }
}

fn members_message(name: &ChannelName, change: &Change) -> ServerMessage {
    let text = |players: &[PlayerId]| players.iter().map(PlayerId::to_string).collect();
    ServerMessage::Channel(ChannelMessage::Members {
        channel: name.to_string(),
        joined: text(&change.joined),
        left: text(&change.left),
    })
}

/// Says a line to everybody here who is to hear it, encoded once for each encoding.
fn say_line(
    hub: &Hub,
    name: &ChannelName,
    members: &BTreeMap<SessionId, Member>,
    visitors: &HashMap<SessionId, Visitor>,
    line: &ChatLine,
) {
    let message = |channel: String| {
        ServerMessage::Channel(ChannelMessage::Line {
            channel,
            line: line.clone(),
        })
    };
    match name.players() {
        None => {
            let (message, mut frames) = (message(name.to_string()), Frames::default());
            for member in members.values().filter(|member| member.floor < line.message) {
                member.session.push(frames.of(&message, member.session.encoding()));
            }
        }
        Some(players) => {
            for player in players {
                let (message, mut frames) = (message(name.seen_by(player)), Frames::default());
                for session in hub.sessions_of(player) {
                    let floor = members.get(&session.id()).map_or(0, |member| member.floor);
                    let visitor = visitors.get(&session.id());
                    let is_served = visitor.is_some_and(|visitor| visitor.catching_up.contains_key(name));
                    if floor < line.message && !is_served {
                        session.push(frames.of(&message, session.encoding()));
                    }
                }
            }
        }
    }
}

/// One message in the encodings in which it is heard.
#[derive(Default)]
struct Frames {
    json: Option<Bytes>,
    msgpack: Option<Bytes>,
}

impl Frames {
    fn of(&mut self, message: &ServerMessage, encoding: Encoding) -> Bytes {
        let frame = match encoding {
            Encoding::Json => &mut self.json,
            Encoding::MsgPack => &mut self.msgpack,
        };
        frame.get_or_insert_with(|| message.encode(None, encoding)).clone()
    }
}
