//! What waits to be said to each node: sets of keys, so that what changes twice before it is said is said once, in its newest state.
//! A set that has grown past its bound takes no more: touching and watching again heal what was not said.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use super::digest::Sum;
use super::holder::Holder;
use super::home::Home;
use super::rendezvous::Rendezvous;
use super::{Key, Lives, Message, Same};
use crate::peer::{Life, NodeId};
use crate::suspicion::Time;

/// Keys in one message: with values of a hundred bytes some 150 KiB, which a link takes in one piece.
const BATCH_LEN_MAX: usize = 1_024;

/// Keys of one kind that wait for one node. Twice as many matches as a large node runs.
const WAITING_MAX: usize = 1 << 18;

#[derive(Debug, Default)]
pub(super) struct Post {
    to: BTreeMap<NodeId, Outgoing>,
}

impl Post {
    pub(super) fn to(&mut self, node: NodeId) -> &mut Outgoing {
        self.to.entry(node).or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.to.values().all(Outgoing::is_empty)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut Outgoing)> {
        self.to.iter_mut()
    }

    /// Takes everything for one node.
    pub(super) fn take(&mut self, node: &NodeId) -> Option<Outgoing> {
        self.to.remove(node).filter(|outgoing| !outgoing.is_empty())
    }

    /// Drops what was for nodes that are no more.
    pub(super) fn retain(&mut self, stays: impl Fn(&NodeId) -> bool) {
        self.to.retain(|node, _| stays(node));
    }

    pub(super) fn tidy(&mut self) {
        self.to.retain(|_, outgoing| !outgoing.is_empty());
    }
}

/// What is so now, for messages to say.
pub(super) struct Source<'a> {
    pub(super) now: Time,
    pub(super) rendezvous: &'a Rendezvous,
    pub(super) holder: &'a mut Holder,
    pub(super) home: &'a Home,
    pub(super) lives: &'a Lives,
}

/// What waits for one node.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    withdrawn: BTreeMap<Key, u64>,
    puts: BTreeSet<Key>,
    touches: BTreeSet<Key>,
    missing: BTreeSet<Key>,
    unwatches: BTreeSet<Key>,
    watches: BTreeSet<Key>,
    /// With who took its entry back since it was last said.
    changed: BTreeMap<Key, BTreeMap<Life, u64>>,
    /// The sums of all that the node should keep of ours.
    digest: bool,
    /// What a digest of the node was compared with.
    differs: Option<Vec<Sum>>,
    /// The buckets that are the same at both ends, as bits, and those of which all is to be said.
    same: u64,
    stands: BTreeSet<u8>,
    /// What others told us by mistake, with who took its entry back.
    forwards: BTreeMap<Key, BTreeMap<Life, u64>>,
    forwarded_watches: BTreeSet<(Key, NodeId)>,
}

fn add(set: &mut BTreeSet<Key>, key: Key) {
    if set.len() < WAITING_MAX {
        set.insert(key);
    }
}

fn note(gone: &mut BTreeMap<Life, u64>, withdrawn: Option<(&Life, u64)>) {
    if let Some((life, version)) = withdrawn {
        let latest = gone.entry(life.clone()).or_default();
        *latest = version.max(*latest);
    }
}

/// Takes the first of a set, at most a message full.
fn first(set: &mut BTreeSet<Key>) -> Vec<Key> {
    let mut taken = Vec::new();
    while taken.len() < BATCH_LEN_MAX
        && let Some(key) = set.pop_first()
    {
        taken.push(key);
    }
    taken
}

impl Outgoing {
    pub(super) fn put(&mut self, key: Key) {
        self.touches.remove(&key);
        add(&mut self.puts, key);
    }

    pub(super) fn withdraw(&mut self, key: Key, version: u64) {
        self.puts.remove(&key);
        self.touches.remove(&key);
        if self.withdrawn.len() < WAITING_MAX {
            self.withdrawn.insert(key, version);
        }
    }

    pub(super) fn touch(&mut self, key: Key) {
        if !self.puts.contains(&key) {
            add(&mut self.touches, key);
        }
    }

    pub(super) fn missing(&mut self, key: Key) {
        add(&mut self.missing, key);
    }

    pub(super) fn watch(&mut self, key: Key) {
        self.unwatches.remove(&key);
        add(&mut self.watches, key);
    }

    pub(super) fn unwatch(&mut self, key: Key) {
        self.watches.remove(&key);
        add(&mut self.unwatches, key);
    }

    pub(super) fn changed(&mut self, key: Key, withdrawn: Option<(&Life, u64)>) {
        if self.changed.len() < WAITING_MAX || self.changed.contains_key(&key) {
            note(self.changed.entry(key).or_default(), withdrawn);
        }
    }

    pub(super) fn digest(&mut self) {
        self.digest = true;
    }

    pub(super) fn differs(&mut self, sums: Vec<Sum>) {
        self.differs = Some(sums);
    }

    pub(super) fn stands(&mut self, same: u64, buckets: impl IntoIterator<Item = u8>) {
        self.same |= same;
        self.stands.extend(buckets);
    }

    pub(super) fn forward(&mut self, key: Key, withdrawn: Option<(&Life, u64)>) {
        if self.forwards.len() < WAITING_MAX || self.forwards.contains_key(&key) {
            note(self.forwards.entry(key).or_default(), withdrawn);
        }
    }

    pub(super) fn forward_watch(&mut self, key: Key, watcher: NodeId) {
        if self.forwarded_watches.len() < WAITING_MAX {
            self.forwarded_watches.insert((key, watcher));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.withdrawn.is_empty()
            && self.puts.is_empty()
            && self.touches.is_empty()
            && self.missing.is_empty()
            && self.unwatches.is_empty()
            && self.watches.is_empty()
            && self.changed.is_empty()
            && !self.digest
            && self.differs.is_none()
            && self.same == 0
            && self.stands.is_empty()
            && self.forwards.is_empty()
            && self.forwarded_watches.is_empty()
    }

    /// Takes out at most one message of each kind, each saying what is so now. What is taken back goes before what is put, since
    /// it may be the same key.
    pub(super) fn take(&mut self, to: &NodeId, source: &mut Source<'_>, mut say: impl FnMut(Message)) {
        let mut withdrawn = Vec::new();
        while withdrawn.len() < BATCH_LEN_MAX
            && let Some(taken) = self.withdrawn.pop_first()
        {
            withdrawn.push(taken);
        }
        if !withdrawn.is_empty() {
            say(Message::Withdraw(withdrawn));
        }
        // A put waits while an older withdrawal of its key has not been said.
        if self.withdrawn.is_empty() {
            let puts: Vec<_> = first(&mut self.puts)
                .into_iter()
                .filter_map(|key| source.holder.put(key))
                .collect();
            if !puts.is_empty() {
                say(Message::Put(puts));
            }
        }
        // Only of what has all been said: otherwise the ends would differ for no reason. They keep their order on the way.
        if self.withdrawn.is_empty() && self.puts.is_empty() {
            self.take_repairs(to, source, &mut say);
        }
        let touched = first(&mut self.touches).into_iter();
        let touches: Vec<_> = touched
            .filter_map(|key| Some((key, source.holder.version(key)?)))
            .collect();
        if !touches.is_empty() {
            say(Message::Touch(touches));
        }
        type Kind = fn(Vec<Key>) -> Message;
        let sets: [(&mut BTreeSet<Key>, Kind); 3] = [
            (&mut self.missing, Message::Missing),
            (&mut self.unwatches, Message::Unwatch),
            (&mut self.watches, Message::Watch),
        ];
        for (set, message) in sets {
            let keys = first(set);
            if !keys.is_empty() {
                say(message(keys));
            }
        }
        let Source { now, home, lives, .. } = source;
        let mut states = Vec::new();
        while states.len() < BATCH_LEN_MAX
            && let Some((key, withdrawn)) = self.changed.pop_first()
        {
            states.push(home.state(*now, key, withdrawn.into_iter().collect(), lives));
        }
        if !states.is_empty() {
            say(Message::Changed(states));
        }
        let mut states = Vec::new();
        while states.len() < BATCH_LEN_MAX
            && let Some((key, withdrawn)) = self.forwards.pop_first()
        {
            states.push(home.to_forward(*now, key, withdrawn.into_iter().collect(), lives));
        }
        if !states.is_empty() {
            say(Message::Forward(states));
        }
        let mut watches = Vec::new();
        while watches.len() < BATCH_LEN_MAX
            && let Some(watch) = self.forwarded_watches.pop_first()
        {
            watches.push(watch);
        }
        if !watches.is_empty() {
            say(Message::ForwardWatch(watches));
        }
    }

    /// What two nodes say to find out whether they know the same.
    fn take_repairs(&mut self, to: &NodeId, source: &mut Source<'_>, say: &mut impl FnMut(Message)) {
        if std::mem::take(&mut self.digest) {
            say(Message::Digest(source.holder.digest(to)));
        }
        if let Some(sums) = self.differs.take() {
            say(Message::Differs(sums));
        }
        let buckets = std::mem::take(&mut self.same);
        if buckets != 0 {
            say(Message::Same(Same { buckets }));
        }
        let (mut stands, mut count) = (Vec::new(), 0);
        while count < BATCH_LEN_MAX
            && let Some(bucket) = self.stands.pop_first()
        {
            let stand = source.holder.stand(to, bucket, source.rendezvous);
            count += stand.entries.len();
            stands.push(stand);
        }
        if !stands.is_empty() {
            say(Message::Stand(stands));
        }
    }

    /// What could not be said waits again. What has changed meanwhile stays as it is.
    pub(super) fn put_back(&mut self, message: &Message) {
        match message {
            Message::Put(puts) => puts.iter().for_each(|put| {
                // Taken back meanwhile: the holder has nothing to put, and nothing is said.
                add(&mut self.puts, put.key);
            }),
            Message::Withdraw(keys) => keys.iter().for_each(|(key, version)| {
                let latest = self.withdrawn.entry(*key).or_insert(*version);
                *latest = (*latest).max(*version);
            }),
            Message::Touch(keys) => keys.iter().for_each(|(key, _)| self.touch(*key)),
            Message::Missing(keys) => keys.iter().for_each(|key| self.missing(*key)),
            Message::Watch(keys) => keys.iter().for_each(|key| {
                if !self.unwatches.contains(key) {
                    add(&mut self.watches, *key);
                }
            }),
            Message::Unwatch(keys) => keys.iter().for_each(|key| {
                if !self.watches.contains(key) {
                    add(&mut self.unwatches, *key);
                }
            }),
            Message::Changed(states) => states.iter().for_each(|state| {
                self.changed(state.key, None);
                for (life, version) in &state.withdrawn {
                    self.changed(state.key, Some((life, *version)));
                }
            }),
            Message::Digest(_) => self.digest = true,
            // A later comparison is about a later digest.
            Message::Differs(sums) => self.differs = self.differs.take().or_else(|| Some(sums.clone())),
            Message::Same(same) => self.same |= same.buckets,
            Message::Stand(stands) => self.stands.extend(stands.iter().map(|stand| stand.bucket)),
            Message::Forward(states) => states.iter().for_each(|state| {
                self.forward(state.key, None);
                for (life, version) in &state.withdrawn {
                    self.forward(state.key, Some((life, *version)));
                }
            }),
            Message::ForwardWatch(watches) => watches.iter().for_each(|(key, watcher)| {
                self.forward_watch(*key, watcher.clone());
            }),
        }
    }
}
