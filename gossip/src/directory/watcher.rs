//! What this node watches, as the homes of each key told it, and what it hears of keys that it holds beside others.
//!
//! The homes of a key may differ for a while. What counts is the newest version of each holder at any home, unless a home says that
//! the holder took it back; a home's word counts for a few seconds after it has stopped being one, because the next one may not know
//! yet what it knew.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::holder::turn;
use super::rendezvous::Rendezvous;
use super::{Entry, Key, Lives, State, WATCH_REFRESH};
use crate::peer::{Life, NodeId};
use crate::suspicion::Time;

#[derive(Debug, Default)]
pub(super) struct Watcher {
    table: BTreeMap<Key, Seen>,
    /// Those of the table that are watched; the others are only held here, beside other holders.
    watched: BTreeMap<Key, ()>,
    changed: BTreeSet<Key>,
    renewed: Option<Key>,
    /// Keys with the word of a former home, and when it no longer counts.
    former: BTreeSet<(Time, Key)>,
}

#[derive(Debug, Default)]
struct Seen {
    homes: BTreeMap<NodeId, Told>,
    /// Up to which version each holder took its entry back.
    withdrawn: BTreeMap<NodeId, (u64, u64)>,
}

#[derive(Debug)]
struct Told {
    entries: Vec<Entry>,
    /// Set when the node stopped being a home.
    until: Option<Time>,
}

/// Whose word it is that a watcher takes, and what that is worth.
pub(super) struct Word<'a> {
    pub(super) home: &'a NodeId,
    /// It counts only until then, when the node is no home in our eyes.
    pub(super) until: Option<Time>,
    /// The key is held here.
    pub(super) held: bool,
}

impl Watcher {
    /// Says whether that is new.
    pub(super) fn watch(&mut self, key: Key) -> bool {
        if self.watched.insert(key, ()).is_some() {
            return false;
        }
        // What was heard as a holder may lack what a watcher is told.
        self.table.insert(key, Seen::default());
        true
    }

    /// Says whether it was watched. `held`: what others say of it is still of interest.
    pub(super) fn unwatch(&mut self, key: Key, held: bool) -> bool {
        let watched = self.watched.remove(&key).is_some();
        if watched && !held {
            self.table.remove(&key);
        }
        watched
    }

    /// The key is not held here any more.
    pub(super) fn released(&mut self, key: Key) {
        if !self.watched.contains_key(&key) {
            self.table.remove(&key);
        }
    }

    pub(super) fn has_answer_of(&self, key: Key, home: &NodeId) -> bool {
        self.table.get(&key).is_some_and(|seen| seen.homes.contains_key(home))
    }

    pub(super) fn has_answer(&self, key: Key) -> bool {
        self.table.get(&key).is_some_and(|seen| !seen.homes.is_empty())
    }

    /// The newest entry of each holder that lives and did not take it back.
    pub(super) fn seen(&self, key: Key, lives: &Lives) -> Vec<Entry> {
        let Some(seen) = self.table.get(&key) else {
            return Vec::new();
        };
        let mut newest: BTreeMap<&NodeId, &Entry> = BTreeMap::new();
        for entry in seen.homes.values().flat_map(|told| &told.entries) {
            let age = |entry: &Entry| (entry.holder.generation, entry.version);
            let taken_back = seen
                .withdrawn
                .get(&entry.holder.node)
                .is_some_and(|gone| *gone >= age(entry));
            if taken_back || lives.is_over(&entry.holder) {
                continue;
            }
            let known = newest.entry(&entry.holder.node).or_insert(entry);
            if age(entry) > age(known) {
                *known = entry;
            }
        }
        newest.into_values().cloned().collect()
    }

    /// Takes what a home says; false when this node has no interest in the key.
    pub(super) fn told(&mut self, word: &Word<'_>, state: State, local: &Life) -> bool {
        let key = state.key;
        if !self.watched.contains_key(&key) {
            let others = state.entries.iter().any(|entry| entry.holder.node != local.node);
            if !word.held {
                return false;
            }
            if !others && !self.table.contains_key(&key) {
                return true;
            }
        }
        let seen = self.table.entry(key).or_default();
        for (life, version) in state.withdrawn {
            let gone = (life.generation, version);
            let latest = seen.withdrawn.entry(life.node).or_insert(gone);
            *latest = gone.max(*latest);
        }
        let told = Told {
            entries: state.entries,
            until: word.until,
        };
        seen.homes.insert(word.home.clone(), told);
        self.former.extend(word.until.map(|until| (until, key)));
        self.changed.insert(key);
        true
    }

    /// A life ended or began: every key may look otherwise.
    pub(super) fn lives_changed(&mut self) {
        self.changed.extend(self.table.keys().copied());
    }

    /// What former homes said counts until then.
    pub(super) fn homes_changed(&mut self, until: Time, rendezvous: &Rendezvous) {
        for (key, seen) in &mut self.table {
            let homes = rendezvous.homes(*key);
            for (node, told) in &mut seen.homes {
                let is_home = homes.contains(node);
                if is_home {
                    told.until = None;
                } else if told.until.is_none() {
                    told.until = Some(until);
                    self.former.insert((until, *key));
                }
            }
        }
    }

    pub(super) fn expire(&mut self, now: Time) {
        while self.former.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, key)) = self.former.pop_first() else {
                return;
            };
            if let Some(seen) = self.table.get_mut(&key) {
                seen.homes.retain(|_, told| told.until.is_none_or(|until| until > now));
                self.changed.insert(key);
            }
        }
    }

    /// The watched keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.watched.keys().copied()
    }

    /// The watches whose turn it is to be renewed when this much time has passed.
    pub(super) fn due(&mut self, passed: Duration) -> Vec<Key> {
        let due = turn(&self.watched, self.renewed, passed, WATCH_REFRESH);
        self.renewed = due.last().copied().or(self.renewed);
        due
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<Key> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.retain(|key| self.table.contains_key(key));
        changed
    }
}
