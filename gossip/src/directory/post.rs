//! What waits to be said to each node: sets of keys, so that what changes twice before it is said is said once, in its newest state.
//! A set that has grown past its bound takes no more: touching and watching again heal what was not said.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use super::holder::Holder;
use super::home::Home;
use super::{Key, Lives, Message};
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
}

fn add(set: &mut BTreeSet<Key>, key: Key) {
    if set.len() < WAITING_MAX {
        set.insert(key);
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
            let gone = self.changed.entry(key).or_default();
            if let Some((life, version)) = withdrawn {
                let latest = gone.entry(life.clone()).or_default();
                *latest = version.max(*latest);
            }
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
    }

    /// Takes out at most one message of each kind, each saying what is so now. What is taken back goes before what is put, since
    /// it may be the same key.
    pub(super) fn take(
        &mut self,
        now: Time,
        holder: &Holder,
        home: &Home,
        lives: &Lives,
        mut say: impl FnMut(Message),
    ) {
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
                .filter_map(|key| holder.put(key))
                .collect();
            if !puts.is_empty() {
                say(Message::Put(puts));
            }
        }
        let touched = first(&mut self.touches).into_iter();
        let touches: Vec<_> = touched.filter_map(|key| Some((key, holder.version(key)?))).collect();
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
        let mut states = Vec::new();
        while states.len() < BATCH_LEN_MAX
            && let Some((key, withdrawn)) = self.changed.pop_first()
        {
            states.push(home.state(now, key, withdrawn.into_iter().collect(), lives));
        }
        if !states.is_empty() {
            say(Message::Changed(states));
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
        }
    }
}
