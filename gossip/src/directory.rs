//! The directory: where is what, for things that are too many for gossip. Pure; its driver carries the messages.
//!
//! A **key** is opaque. Nodes **hold** entries under keys (a value with an epoch), and every entry is kept at two **homes**, the
//! nodes that a rendezvous hash of the key picks among those that take work. Who wants to know asks a home, or **watches** the key
//! there and hears of each change. Several nodes may hold the same key; a reader sees all their entries and decides (the highest
//! epoch, or any).
//!
//! It is soft state and best effort: nothing here proves ownership, which is the store's business. What keeps it right:
//! - each holder numbers what it says ([`Entry::version`]), and of one holder the higher number wins everywhere;
//! - a holder tells every home the sum of what that one should know every [`REFRESH`] (`digest.rs`): while both agree no entry is
//!   named, else those of the buckets that differ are, and the home asks for what it lacks and drops what is named no longer. So any
//!   lost message heals by itself, and what no digest or word of its holder has confirmed for [`ENTRY_TTL`] is gone;
//! - a node that is told or asked of a key whose home it is not, in its own eyes, keeps it and passes it on to those that are. What was
//!   passed on is never passed on again, so views that differ cost one hop and no loop;
//! - the entries of a dead life of a node are gone at once, at homes and in the eyes of watchers;
//! - what waits to be sent is a set of keys and not a queue of messages: it is bounded by the tables, and the newest state goes out.
//!
//! The invariants: no entry outlives its holder's death by more than the TTL; after healing, every home of a key and every watcher
//! shows exactly what is held.
#![deny(clippy::disallowed_methods)]

mod digest;
mod holder;
mod home;
mod post;
mod rendezvous;
#[cfg(test)]
mod tests;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::digest::Sum;
use self::holder::Holder;
use self::home::Home;
use self::post::{Outgoing, Post, Source};
use self::rendezvous::Rendezvous;
use self::watcher::Watcher;
use crate::member::{Member, MemberState, Members};
use crate::peer::{Life, NodeId};
use crate::suspicion::Time;

/// A holder says that its entries stand once in this time.
const REFRESH: Duration = Duration::from_secs(8);

/// An entry that was not touched for this long is gone: three refreshes, of which two may be lost.
const ENTRY_TTL: Duration = Duration::from_secs(25);

/// What another node passed on stands for this long: by then the views agree, and its holder has told us itself.
const FORWARDED_FOR: Duration = Duration::from_secs(10);

/// The version of the mesh from which on nodes compare digests and pass on; one of a version before has its entries touched one by one.
const DIGESTS_SINCE: u32 = 2;

/// A watcher says that its watches stand once in this time.
const WATCH_REFRESH: Duration = Duration::from_secs(30);

/// A watch that was not renewed for this long is gone.
const WATCH_TTL: Duration = Duration::from_secs(75);

/// What a node said that is no longer a home counts for this long, since the new home may not have heard of the entry yet.
const FORMER_HOME_FOR: Duration = Duration::from_secs(5);

/// What a node held that said goodbye stands for this long: its players may be on their way to another node.
const PARTING_FOR: Duration = Duration::from_secs(3);

/// How often refreshing and expiring are looked after.
const WAKE_EVERY: Duration = Duration::from_millis(500);

/// Names a thing in the directory: one byte that says what kind of thing, which the directory counts by, and fifteen that are
/// as good as random. Two things have the same key with a chance of one in 2^120.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key([u8; 16]);

impl Key {
    /// Returns the key of the thing of that kind whose name are these bytes.
    pub fn new(class: u8, name: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, name);
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_ref()[..16]);
        key[0] = class;
        Self(key)
    }

    /// Returns what kind of thing it names.
    pub fn class(self) -> u8 {
        self.0[0]
    }

    /// The lowest key of a class.
    fn first_of(class: u8) -> Self {
        let mut key = [0; 16];
        key[0] = class;
        Self(key)
    }

    /// The lowest key of a class in a bucket, and the highest.
    fn first_in(class: u8, bucket: u8) -> Self {
        let mut key = Self::first_of(class);
        key.0[1] = bucket << 2;
        key
    }

    fn last_in(class: u8, bucket: u8) -> Self {
        let mut key = [u8::MAX; 16];
        (key[0], key[1]) = (class, (bucket << 2) | 3);
        Self(key)
    }

    fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.0[0])?;
        self.0[1..5].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What one node holds under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The life of the node that holds it.
    #[serde(rename = "h")]
    pub holder: Life,
    /// What the holder gave it, for readers to choose by.
    #[serde(rename = "e")]
    pub epoch: u64,
    /// The holder's number for this state of the entry; rises with everything that it says.
    #[serde(rename = "n")]
    pub version: u64,
    /// What the holder says.
    #[serde(rename = "v")]
    pub value: Bytes,
}

/// One entry on its way from its holder to a home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    #[serde(rename = "k")]
    key: Key,
    #[serde(rename = "e")]
    epoch: u64,
    #[serde(rename = "n")]
    version: u64,
    #[serde(rename = "v")]
    value: Bytes,
}

/// All that a home knows of a key, on its way to a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    #[serde(rename = "k")]
    key: Key,
    #[serde(rename = "e")]
    entries: Vec<Entry>,
    /// Who took its entry back since the last state, and up to which number: the other home may not have heard of it yet.
    #[serde(rename = "w", default)]
    withdrawn: Vec<(Life, u64)>,
}

/// The sum of all that a holder has for one home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    #[serde(rename = "c")]
    count: u32,
    #[serde(rename = "s")]
    hash: u64,
}

/// The buckets in which a home and a holder know the same, one bit each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Same {
    #[serde(rename = "b")]
    buckets: u64,
}

/// Everything that a holder has for one home in one bucket, up to a number of its.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    #[serde(rename = "b")]
    bucket: u8,
    #[serde(rename = "n")]
    version: u64,
    #[serde(rename = "k")]
    entries: Vec<(Key, u64)>,
}

/// What one node's directory says to another's. Each is a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// From a holder to a home: these are new, or have changed.
    Put(Vec<Put>),
    /// From a holder to a home: these are gone, up to that version.
    Withdraw(Vec<(Key, u64)>),
    /// From a holder to a home: these stand, with that version.
    Touch(Vec<(Key, u64)>),
    /// From a home to a holder: these were touched and are not here, say them again.
    Missing(Vec<Key>),
    /// To a home: tell me of these, now and at each change.
    Watch(Vec<Key>),
    /// To a home: no more of these.
    Unwatch(Vec<Key>),
    /// From a home to a watcher.
    Changed(Vec<State>),
    /// From a holder to a home: this is the sum of what you should know of me. Answered only when it is not.
    Digest(Digest),
    /// From a home to a holder: these were the sums of my buckets when that digest came.
    Differs(Vec<Sum>),
    /// From a holder to a home: these buckets were the same.
    Same(Same),
    /// From a holder to a home: this is all in the buckets that were not.
    Stand(Vec<Stand>),
    /// From a node that is no home of these to one that is: holders told me of them. Never passed on again.
    Forward(Vec<State>),
    /// From a node that is no home of these to one that is: that node watches them. Never passed on again.
    ForwardWatch(Vec<(Key, NodeId)>),
}

/// A message that is not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("directory message does not decode")]
pub struct MessageError(#[from] rmp_serde::decode::Error);

impl Message {
    /// Returns its bytes.
    pub fn encode(&self) -> Bytes {
        Bytes::from(rmp_serde::to_vec_named(self).expect("messages have string keys and known lengths"))
    }

    /// Reads a message of another node.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

/// What a home says of its table to metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectoryStats {
    /// Entries that this node holds.
    pub held: u64,
    /// Entries kept here, of all holders.
    pub kept: u64,
    /// Watches kept here, of all nodes.
    pub watches: u64,
    /// Entries and watches that were not taken because the tables were full.
    pub refused_total: u64,
    /// Entries whose holder fell silent.
    pub expired_total: u64,
    /// Buckets whose entries were gone through because a digest did not agree.
    pub repaired_total: u64,
    /// Entries, withdrawals and watches that were passed on to the nodes that this one takes for their homes.
    pub forwarded_total: u64,
}

/// One node's part of the directory: what it holds, what it keeps for others, and what it watches.
#[derive(Debug)]
pub struct Directory {
    local: Life,
    rendezvous: Rendezvous,
    lives: Lives,
    holder: Holder,
    home: Home,
    watcher: Watcher,
    post: Post,
    /// The living nodes that do not compare digests.
    without_digests: BTreeSet<NodeId>,
    forwarded_total: u64,
    next_wake: Time,
}

/// Which life of each node is the living one.
#[derive(Debug, Default)]
struct Lives {
    known: BTreeMap<NodeId, (u64, bool)>,
    /// Those that said goodbye, until they count as over.
    parting: BTreeMap<NodeId, Time>,
}

impl Lives {
    /// Whether that life is known to be over: dead, gone with a goodbye, or followed by another.
    fn is_over(&self, life: &Life) -> bool {
        self.known.get(&life.node).is_some_and(|(generation, alive)| {
            *generation > life.generation || (*generation == life.generation && !alive)
        })
    }
}

impl Directory {
    /// Begins with nothing; `kept_max` bounds the entries, and the watches, that are kept here for others.
    pub fn new(local: Life, kept_max: usize) -> Self {
        Self {
            rendezvous: Rendezvous::new(&local.node),
            lives: Lives::default(),
            holder: Holder::new(local.generation),
            home: Home::new(kept_max),
            watcher: Watcher::default(),
            post: Post::default(),
            without_digests: BTreeSet::new(),
            forwarded_total: 0,
            next_wake: WAKE_EVERY,
            local,
        }
    }

    /// Holds an entry, or changes the one that is held. The same again changes nothing.
    pub fn hold(&mut self, now: Time, key: Key, epoch: u64, value: Bytes) {
        let homes = self.rendezvous.homes(key);
        if self.holder.hold(now, key, epoch, value, &homes) {
            for home in homes {
                self.post.to(home).put(key);
            }
            self.settle(now);
        }
    }

    /// Takes an entry back.
    pub fn release(&mut self, now: Time, key: Key) {
        let homes = self.rendezvous.homes(key);
        if let Some(version) = self.holder.release(now, key, &homes) {
            for home in homes {
                self.post.to(home).withdraw(key, version);
            }
            self.watcher.released(key);
            self.settle(now);
        }
    }

    /// Watches a key, until `unwatch`.
    pub fn watch(&mut self, now: Time, key: Key) {
        if self.watcher.watch(key) {
            for home in self.rendezvous.homes(key) {
                self.post.to(home).watch(key);
            }
            self.settle(now);
        }
    }

    /// Watches a key no longer.
    pub fn unwatch(&mut self, now: Time, key: Key) {
        if self.watcher.unwatch(key, self.holder.holds(key)) {
            for home in self.rendezvous.homes(key) {
                self.post.to(home).unwatch(key);
            }
            self.settle(now);
        }
    }

    /// Returns how many of a watched key's homes have not answered yet; those that do not live are not waited for.
    pub fn unanswered(&self, key: Key) -> usize {
        let answered = |home: &NodeId| self.watcher.has_answer_of(key, home);
        self.rendezvous.homes(key).iter().filter(|home| !answered(home)).count()
    }

    /// Returns whether any home of a watched key has answered.
    pub fn is_known(&self, key: Key) -> bool {
        self.watcher.has_answer(key)
    }

    /// Returns the entries of a key that is watched or held here, as its homes told, each holder's newest, in the order of nodes.
    pub fn seen(&self, key: Key) -> Vec<Entry> {
        self.watcher.seen(key, &self.lives)
    }

    /// Returns the watched or held keys about which something new was heard since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Key> {
        self.watcher.take_changed()
    }

    /// Returns the nodes that keep this key, the first one first; this node itself may be among them.
    pub fn homes(&self, key: Key) -> Vec<NodeId> {
        self.rendezvous.homes(key)
    }

    /// Returns what this node keeps under a key as one of its homes.
    pub fn kept(&self, now: Time, key: Key) -> Vec<Entry> {
        self.home.entries(now, key, &self.lives)
    }

    /// Returns how many keys of a class this node is the first home of: the sum over all nodes is how many there are.
    pub fn count(&self, class: u8) -> u64 {
        let first = |key: &Key| self.rendezvous.homes(*key).first() == Some(&self.local.node);
        self.home.keys_of(class).filter(first).count() as u64
    }

    /// Takes news of the members: homes may change, and lives end.
    pub fn members(&mut self, now: Time, members: &Members) {
        let mut news = false;
        for member in members.iter() {
            let node = &member.peer.node;
            let alive = match member.state {
                MemberState::Joining | MemberState::Ready | MemberState::Draining | MemberState::Suspect => true,
                MemberState::Leaving => {
                    self.lives.parting.entry(node.clone()).or_insert(now + PARTING_FOR);
                    continue;
                }
                MemberState::Dead => false,
            };
            self.lives.parting.remove(node);
            let known = (member.peer.generation, alive);
            let before = self.lives.known.insert(node.clone(), known);
            news |= before != Some(known);
            if alive && before == Some((member.peer.generation, false)) && member.mesh_version >= DIGESTS_SINCE {
                // It was taken for dead, so what it held was dropped here, and what it said meanwhile was not heard. It may never have
                // noticed: it is told what is here without having asked.
                self.post.to(node.clone()).differs(self.home.sums(node));
            }
        }
        let absent = self
            .lives
            .known
            .iter()
            .filter(|(node, (_, alive))| *alive && members.get(node).is_none());
        for node in absent.map(|(node, _)| node.clone()).collect::<Vec<_>>() {
            self.lives.parting.entry(node).or_insert(now + PARTING_FOR);
        }
        if news {
            self.bury();
        }
        let without = |member: &&Member| member.mesh_version < DIGESTS_SINCE;
        let node = |member: &Member| member.peer.node.clone();
        self.without_digests = members.iter().filter(without).map(node).collect();
        let before = self.rendezvous.clone();
        if self.rendezvous.update(members) {
            self.holder.rehome(now, &self.rendezvous);
            for key in self.holder.keys() {
                for home in self.rendezvous.homes_not_in(key, &before) {
                    self.post.to(home).put(key);
                }
            }
            let until = now + FORMER_HOME_FOR;
            for key in self.watcher.keys() {
                for home in self.rendezvous.homes_not_in(key, &before) {
                    self.post.to(home).watch(key);
                }
            }
            self.watcher.homes_changed(until, &self.rendezvous);
        }
        self.settle(now);
    }

    /// There is a new connection to that node, or what was sent over the one before may be lost: both ends say again what stands.
    pub fn say_again(&mut self, now: Time, node: &NodeId) {
        if self.without_digests.contains(node) {
            for key in self.holder.keys() {
                if self.rendezvous.is_home(key, node) {
                    self.post.to(node.clone()).touch(key);
                }
            }
        } else if self.holder.has_for(node) {
            self.post.to(node.clone()).digest();
        }
        for key in self.watcher.keys() {
            if self.rendezvous.homes(key).contains(node) {
                self.post.to(node.clone()).watch(key);
            }
        }
        self.home.say_again(node, &mut self.post);
        self.settle(now);
    }

    /// Takes a message of another node.
    pub fn message(&mut self, now: Time, from: &Life, message: Message) {
        if !self.lives.is_over(from) {
            self.take(now, from, message);
            self.settle(now);
        }
    }

    /// Refreshes what this node holds and watches, and forgets what others no longer refresh.
    pub fn wake(&mut self, now: Time) {
        if now < self.next_wake {
            return;
        }
        let late = now.saturating_sub(self.next_wake);
        self.next_wake = now + WAKE_EVERY;
        for home in self.holder.homes_due(now) {
            if !self.without_digests.contains(&home) {
                self.post.to(home).digest();
            }
        }
        if !self.without_digests.is_empty() {
            for key in self.holder.due(WAKE_EVERY + late) {
                for home in self.rendezvous.homes(key) {
                    if self.without_digests.contains(&home) {
                        self.post.to(home).touch(key);
                    }
                }
            }
        }
        for key in self.watcher.due(WAKE_EVERY + late) {
            for home in self.rendezvous.homes(key) {
                self.post.to(home).watch(key);
            }
        }
        let gone = |until: &Time| *until <= now;
        if self.lives.parting.values().any(gone) {
            let parted: Vec<NodeId> = self
                .lives
                .parting
                .extract_if(.., |_, until| gone(until))
                .map(|(node, _)| node)
                .collect();
            for node in parted {
                if let Some((_, alive)) = self.lives.known.get_mut(&node) {
                    *alive = false;
                }
            }
            self.bury();
        }
        self.home.expire(now, &mut self.post);
        self.watcher.expire(now);
        self.settle(now);
    }

    /// Returns when `wake` is due.
    pub fn next_wake(&self) -> Time {
        self.next_wake
    }

    /// Returns whether anything waits to be sent.
    pub fn has_mail(&self) -> bool {
        !self.post.is_empty()
    }

    /// Returns what is to be sent now, for each node at most one message of a kind; call again while `has_mail`.
    pub fn mail(&mut self, now: Time) -> Vec<(NodeId, Message)> {
        let mut mail = Vec::new();
        let mut source = Source {
            now,
            rendezvous: &self.rendezvous,
            holder: &mut self.holder,
            home: &self.home,
            lives: &self.lives,
        };
        for (node, outgoing) in self.post.iter_mut() {
            outgoing.take(node, &mut source, |message| mail.push((node.clone(), message)));
        }
        self.post.tidy();
        mail
    }

    /// A message could not be sent now: what it said goes out later, in its newest state.
    pub fn put_back(&mut self, node: &NodeId, message: &Message) {
        self.post.to(node.clone()).put_back(message);
    }

    /// Returns the figures for metrics.
    pub fn stats(&self) -> DirectoryStats {
        DirectoryStats {
            held: self.holder.len() as u64,
            kept: self.home.len() as u64,
            watches: self.home.watches() as u64,
            refused_total: self.home.refused_total(),
            expired_total: self.home.expired_total(),
            repaired_total: self.home.repaired_total(),
            forwarded_total: self.forwarded_total,
        }
    }

    /// What the lives that are over held is gone.
    fn bury(&mut self) {
        self.home.bury(&self.lives, &mut self.post);
        self.watcher.lives_changed();
        let lives = &self.lives;
        self.post
            .retain(|node| lives.known.get(node).is_none_or(|(_, alive)| *alive));
    }

    /// Does at once what this node has to say to itself, being a home of its own.
    fn settle(&mut self, now: Time) {
        let local = self.local.clone();
        while let Some(outgoing) = self.post.take(&local.node) {
            let mut messages = Vec::new();
            let mut outgoing = outgoing;
            while !outgoing.is_empty() {
                let mut source = Source {
                    now,
                    rendezvous: &self.rendezvous,
                    holder: &mut self.holder,
                    home: &self.home,
                    lives: &self.lives,
                };
                outgoing.take(&local.node, &mut source, |message| messages.push(message));
            }
            for message in messages {
                self.take(now, &local, message);
            }
        }
    }

    fn take(&mut self, now: Time, from: &Life, message: Message) {
        match message {
            Message::Put(puts) => {
                let keys: Vec<Key> = puts.iter().map(|put| put.key).collect();
                self.home.put(now, from, puts, &mut self.post);
                for key in keys {
                    self.forward(from, key, |outgoing| outgoing.forward(key, None));
                }
            }
            Message::Withdraw(keys) => {
                for (key, version) in &keys {
                    self.forward(from, *key, |outgoing| outgoing.forward(*key, Some((from, *version))));
                }
                self.home.withdraw(from, keys, &mut self.post);
            }
            Message::Touch(keys) => self.home.touch(now, from, &keys, &mut self.post),
            Message::Missing(keys) => {
                for key in keys.into_iter().filter(|key| self.holder.holds(*key)) {
                    if self.rendezvous.homes(key).contains(&from.node) {
                        self.post.to(from.node.clone()).put(key);
                    }
                }
            }
            Message::Watch(keys) => {
                for key in &keys {
                    self.forward(from, *key, |outgoing| outgoing.forward_watch(*key, from.node.clone()));
                }
                self.home.watch(now, &from.node, keys, &mut self.post);
            }
            Message::Unwatch(keys) => self.home.unwatch(&from.node, keys),
            Message::Changed(states) => {
                for state in states {
                    let key = state.key;
                    let is_home = self.rendezvous.homes(key).contains(&from.node);
                    let word = watcher::Word {
                        home: &from.node,
                        until: (!is_home).then(|| now + FORMER_HOME_FOR),
                        held: self.holder.holds(key),
                    };
                    if !self.watcher.told(&word, state, &self.local) {
                        self.post.to(from.node.clone()).unwatch(key);
                    }
                }
            }
            Message::Digest(digest) => self.home.digest(now, from, &digest, &mut self.post),
            // It would not understand what follows.
            Message::Differs(_) if self.without_digests.contains(&from.node) => {}
            Message::Differs(sums) => {
                let found = self.holder.compare(&from.node, &sums);
                // What a home knows nothing of it would only ask for: it gets it at once.
                for bucket in found.unknown {
                    for (key, _) in self.holder.stand(&from.node, bucket, &self.rendezvous).entries {
                        self.post.to(from.node.clone()).put(key);
                    }
                }
                let outgoing = self.post.to(from.node.clone());
                outgoing.stands(found.same, found.differing);
            }
            Message::Same(same) => self.home.same(now, from, &same),
            Message::Stand(stands) => {
                for stand in stands {
                    self.home.stand(now, from, &stand, &self.rendezvous, &mut self.post);
                }
            }
            Message::Forward(states) => self.home.forwarded(now, states, &self.lives, &mut self.post),
            Message::ForwardWatch(watches) => {
                for (key, watcher) in watches {
                    self.home.watch(now, &watcher, vec![key], &mut self.post);
                }
            }
        }
    }

    /// Passes on what another node told us of a key whose home we are not, in our own eyes.
    fn forward(&mut self, from: &Life, key: Key, say: impl Fn(&mut Outgoing)) {
        let homes = self.rendezvous.homes(key);
        if homes.contains(&self.local.node) || from.node == self.local.node {
            return;
        }
        for home in homes {
            if home != from.node && !self.without_digests.contains(&home) {
                self.forwarded_total += 1;
                say(self.post.to(home));
            }
        }
    }
}
