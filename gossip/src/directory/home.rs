//! What this node keeps for others as a home: entries with the time until which they stand, and who wants to hear of them. Those who
//! hold the same key hear of each other without asking.
//!
//! Of one holder only a higher (generation, version) replaces what is there; a dead life's entries are gone at once, and one that is
//! not touched falls at its time.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use super::post::Post;
use super::{ENTRY_TTL, Entry, Key, Lives, Put, State, WATCH_TTL};
use crate::peer::{Life, NodeId};
use crate::suspicion::Time;

#[derive(Debug)]
pub(super) struct Home {
    table: BTreeMap<Key, Kept>,
    /// When to look whether something has fallen. What was renewed meanwhile is put back at its new time.
    falling: BTreeSet<(Time, Key, NodeId, Kind)>,
    kept_max: usize,
    entries: usize,
    watches: usize,
    refused_total: u64,
    expired_total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Entry,
    Watch,
}

#[derive(Debug, Default)]
struct Kept {
    entries: Vec<(Entry, Time)>,
    watchers: Vec<(NodeId, Time)>,
}

impl Kept {
    /// Everybody who is to hear of a change that `by` made: watchers, and the other holders.
    fn hearers(&self, by: &NodeId) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.watchers.iter().map(|(node, _)| node.clone()).collect();
        let others = self.entries.iter().any(|(entry, _)| entry.holder.node != *by);
        for (entry, _) in &self.entries {
            // Who has just put an entry beside others hears of those, too.
            if others && !nodes.contains(&entry.holder.node) {
                nodes.push(entry.holder.node.clone());
            }
        }
        nodes
    }

    fn tell(&self, key: Key, by: &NodeId, withdrawn: Option<(&Life, u64)>, post: &mut Post) {
        for node in self.hearers(by) {
            post.to(node).changed(key, withdrawn);
        }
    }
}

impl Home {
    pub(super) fn new(kept_max: usize) -> Self {
        Self {
            table: BTreeMap::new(),
            falling: BTreeSet::new(),
            kept_max,
            entries: 0,
            watches: 0,
            refused_total: 0,
            expired_total: 0,
        }
    }

    pub(super) fn put(&mut self, now: Time, from: &Life, puts: Vec<Put>, post: &mut Post) {
        for put in puts {
            let key = put.key;
            let entry = Entry {
                holder: from.clone(),
                epoch: put.epoch,
                version: put.version,
                value: put.value,
            };
            let full = self.entries >= self.kept_max;
            let kept = self.table.get_mut(&key);
            let held = kept.and_then(|kept| kept.entries.iter_mut().find(|(held, _)| held.holder.node == from.node));
            match held {
                Some((held, until)) => {
                    *until = now + ENTRY_TTL;
                    if (held.holder.generation, held.version) >= (from.generation, entry.version) {
                        continue;
                    }
                    *held = entry;
                }
                None if full => {
                    self.refused_total += 1;
                    continue;
                }
                None => {
                    self.entries += 1;
                    let until = now + ENTRY_TTL;
                    self.table.entry(key).or_default().entries.push((entry, until));
                    self.falling.insert((until, key, from.node.clone(), Kind::Entry));
                }
            }
            if let Some(kept) = self.table.get(&key) {
                kept.tell(key, &from.node, None, post);
            }
        }
    }

    pub(super) fn withdraw(&mut self, from: &Life, keys: Vec<(Key, u64)>, post: &mut Post) {
        for (key, version) in keys {
            let Some(kept) = self.table.get_mut(&key) else { continue };
            let before = kept.entries.len();
            kept.entries.retain(|(held, _)| {
                held.holder.node != from.node || (held.holder.generation, held.version) > (from.generation, version)
            });
            if kept.entries.len() < before {
                self.entries -= 1;
                kept.tell(key, &from.node, Some((from, version)), post);
                self.drop_if_empty(key);
            }
        }
    }

    pub(super) fn touch(&mut self, now: Time, from: &Life, keys: Vec<(Key, u64)>, post: &mut Post) {
        for (key, version) in keys {
            let held = self.table.get_mut(&key).and_then(|kept| {
                let of_holder = |(held, _): &&mut (Entry, Time)| held.holder == *from && held.version >= version;
                kept.entries.iter_mut().find(of_holder)
            });
            match held {
                Some((_, until)) => *until = now + ENTRY_TTL,
                None => post.to(from.node.clone()).missing(key),
            }
        }
    }

    pub(super) fn watch(&mut self, now: Time, from: &NodeId, keys: Vec<Key>, post: &mut Post) {
        for key in keys {
            let watcher = self
                .table
                .get_mut(&key)
                .and_then(|kept| kept.watchers.iter_mut().find(|(node, _)| node == from));
            let until = now + WATCH_TTL;
            match watcher {
                Some((_, stands)) => *stands = until,
                None if self.watches >= self.kept_max => {
                    self.refused_total += 1;
                    continue;
                }
                None => {
                    self.watches += 1;
                    self.table.entry(key).or_default().watchers.push((from.clone(), until));
                    self.falling.insert((until, key, from.clone(), Kind::Watch));
                }
            }
            post.to(from.clone()).changed(key, None);
        }
    }

    pub(super) fn unwatch(&mut self, from: &NodeId, keys: Vec<Key>) {
        for key in keys {
            if let Some(kept) = self.table.get_mut(&key) {
                let before = kept.watchers.len();
                kept.watchers.retain(|(node, _)| node != from);
                self.watches -= before - kept.watchers.len();
                self.drop_if_empty(key);
            }
        }
    }

    /// Drops the entries and watches of lives that are over. A scan of the table, for a death or a restart.
    pub(super) fn bury(&mut self, lives: &Lives, post: &mut Post) {
        let mut emptied = Vec::new();
        for (key, kept) in &mut self.table {
            let gone: Vec<Life> = kept
                .entries
                .iter()
                .map(|(entry, _)| &entry.holder)
                .filter(|holder| lives.is_over(holder))
                .cloned()
                .collect();
            let watching = kept.watchers.len();
            // A node that restarted watches anew; one that lives keeps its watches.
            kept.watchers
                .retain(|(node, _)| lives.known.get(node).is_none_or(|(_, alive)| *alive));
            self.watches -= watching - kept.watchers.len();
            for life in gone {
                kept.entries.retain(|(entry, _)| entry.holder != life);
                self.entries -= 1;
                kept.tell(*key, &life.node, None, post);
            }
            if kept.entries.is_empty() && kept.watchers.is_empty() {
                emptied.push(*key);
            }
        }
        for key in emptied {
            self.table.remove(&key);
        }
    }

    /// Tells a watcher all that it watches and holds beside others, since something on the way to it may be lost.
    pub(super) fn say_again(&self, node: &NodeId, post: &mut Post) {
        for (key, kept) in &self.table {
            let watches = kept.watchers.iter().any(|(watcher, _)| watcher == node);
            let shares = kept.entries.len() > 1 && kept.entries.iter().any(|(entry, _)| entry.holder.node == *node);
            if watches || shares {
                post.to(node.clone()).changed(*key, None);
            }
        }
    }

    /// Forgets what was not refreshed in time.
    pub(super) fn expire(&mut self, now: Time, post: &mut Post) {
        while self.falling.first().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, key, node, kind)) = self.falling.pop_first() else {
                return;
            };
            let Some(kept) = self.table.get_mut(&key) else { continue };
            let until = match kind {
                Kind::Entry => kept
                    .entries
                    .iter()
                    .find(|(held, _)| held.holder.node == node)
                    .map(|(_, until)| *until),
                Kind::Watch => kept
                    .watchers
                    .iter()
                    .find(|(watcher, _)| *watcher == node)
                    .map(|(_, until)| *until),
            };
            let Some(until) = until else { continue };
            if until > now {
                self.falling.insert((until, key, node, kind));
                continue;
            }
            match kind {
                Kind::Entry => {
                    kept.entries.retain(|(held, _)| held.holder.node != node);
                    self.entries -= 1;
                    self.expired_total += 1;
                    kept.tell(key, &node, None, post);
                }
                Kind::Watch => {
                    kept.watchers.retain(|(watcher, _)| *watcher != node);
                    self.watches -= 1;
                }
            }
            self.drop_if_empty(key);
        }
    }

    pub(super) fn entries(&self, now: Time, key: Key, lives: &Lives) -> Vec<Entry> {
        let stands = |(entry, until): &&(Entry, Time)| *until > now && !lives.is_over(&entry.holder);
        let kept = self.table.get(&key).into_iter().flat_map(|kept| &kept.entries);
        kept.filter(stands).map(|(entry, _)| entry.clone()).collect()
    }

    pub(super) fn state(&self, now: Time, key: Key, withdrawn: Vec<(Life, u64)>, lives: &Lives) -> State {
        State {
            key,
            entries: self.entries(now, key, lives),
            withdrawn,
        }
    }

    pub(super) fn keys_of(&self, class: u8) -> impl Iterator<Item = Key> {
        let held = |(_, kept): &(&Key, &Kept)| !kept.entries.is_empty();
        self.table
            .range(Key::first_of(class)..)
            .take_while(move |(key, _)| key.class() == class)
            .filter(held)
            .map(|(key, _)| *key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    pub(super) fn watches(&self) -> usize {
        self.watches
    }

    pub(super) fn refused_total(&self) -> u64 {
        self.refused_total
    }

    pub(super) fn expired_total(&self) -> u64 {
        self.expired_total
    }

    fn drop_if_empty(&mut self, key: Key) {
        if self
            .table
            .get(&key)
            .is_some_and(|kept| kept.entries.is_empty() && kept.watchers.is_empty())
        {
            self.table.remove(&key);
        }
    }
}
