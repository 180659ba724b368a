//! What this node keeps for others as a home: entries with the time until which they stand, and who wants to hear of them. Those who
//! hold the same key hear of each other without asking.
//!
//! Of one holder only a higher (generation, version) replaces what is there; a dead life's entries are gone at once. An entry falls at
//! its time unless its holder touches it, or says a digest that agrees with what is kept of its bucket.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::digest::{BUCKETS, Sum, Tally, bucket};
use super::holder::keys_in;
use super::post::Post;
use super::rendezvous::Rendezvous;
use super::{Digest, ENTRY_TTL, Entry, FORMER_HOME_FOR, FORWARDED_FOR, Key, Lives, Put, Same, Stand, State, WATCH_TTL};
use crate::peer::{Life, NodeId};
use crate::suspicion::Time;

#[derive(Debug)]
pub(super) struct Home {
    table: BTreeMap<Key, Kept>,
    /// Who holds what is kept here.
    holders: BTreeMap<NodeId, Of>,
    /// When to look whether something has fallen. What was renewed meanwhile is put back at its new time.
    falling: BTreeSet<(Time, Key, NodeId, Kind)>,
    kept_max: usize,
    entries: usize,
    watches: usize,
    refused_total: u64,
    expired_total: u64,
    repaired_total: u64,
}

/// What is kept of one holder, as it told us itself.
#[derive(Debug)]
struct Of {
    tally: Tally,
    keys: BTreeMap<Key, ()>,
    /// Those of them that the holder named no longer: they fall at their own time, until it names them again.
    unnamed: BTreeSet<Key>,
    /// Until when everything in a bucket stands, since the last digest that agreed with it.
    stand: Box<[Time; BUCKETS]>,
}

impl Default for Of {
    fn default() -> Self {
        Self {
            tally: Tally::default(),
            keys: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            stand: Box::new([Time::ZERO; BUCKETS]),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Entry,
    Watch,
}

#[derive(Debug, Default)]
struct Kept {
    entries: Vec<Held>,
    watchers: Vec<(NodeId, Time)>,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    /// When it falls by itself; it may stand longer with its bucket.
    until: Time,
    way: Way,
}

/// How an entry came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From its holder, whose digests count it.
    Direct,
    /// Through a node that took us for a home, as its holder did not; it has nothing but its own time.
    Forwarded,
}

impl Way {
    fn lasts(self) -> Duration {
        match self {
            Way::Direct => ENTRY_TTL,
            Way::Forwarded => FORWARDED_FOR,
        }
    }
}

impl Kept {
    fn of(&self, node: &NodeId) -> Option<&Held> {
        self.entries.iter().find(|held| held.entry.holder.node == *node)
    }

    fn of_mut(&mut self, node: &NodeId) -> Option<&mut Held> {
        self.entries.iter_mut().find(|held| held.entry.holder.node == *node)
    }

    /// Everybody who is to hear of a change that `by` made: watchers, and the other holders.
    fn hearers(&self, by: &NodeId) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.watchers.iter().map(|(node, _)| node.clone()).collect();
        let others = self.entries.iter().any(|held| held.entry.holder.node != *by);
        for Held { entry, .. } in &self.entries {
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
            holders: BTreeMap::new(),
            falling: BTreeSet::new(),
            kept_max,
            entries: 0,
            watches: 0,
            refused_total: 0,
            expired_total: 0,
            repaired_total: 0,
        }
    }

    pub(super) fn put(&mut self, now: Time, from: &Life, puts: Vec<Put>, post: &mut Post) {
        for put in puts {
            let entry = Entry {
                holder: from.clone(),
                epoch: put.epoch,
                version: put.version,
                value: put.value,
            };
            self.keep(now, put.key, entry, Way::Direct, post);
        }
    }

    /// Takes what another node was told by mistake of ours or of theirs: of each holder the newest counts, as ever.
    pub(super) fn forwarded(&mut self, now: Time, states: Vec<State>, lives: &Lives, post: &mut Post) {
        for state in states {
            for (life, version) in state.withdrawn {
                self.withdraw(&life, vec![(state.key, version)], post);
            }
            for entry in state.entries {
                if !lives.is_over(&entry.holder) {
                    self.keep(now, state.key, entry, Way::Forwarded, post);
                }
            }
        }
    }

    fn keep(&mut self, now: Time, key: Key, entry: Entry, way: Way, post: &mut Post) {
        let node = entry.holder.node.clone();
        let full = self.entries >= self.kept_max;
        match self.table.get_mut(&key).and_then(|kept| kept.of_mut(&node)) {
            Some(held) => {
                let age = |entry: &Entry| (entry.holder.generation, entry.version);
                if age(&held.entry) > age(&entry) {
                    // Said late. It is no word on what is here.
                    return;
                }
                let same = age(&held.entry) == age(&entry);
                if same && way == Way::Forwarded {
                    held.until = held.until.max(now + FORWARDED_FOR);
                    return;
                }
                held.until = now + way.lasts();
                uncount(&mut self.holders, key, held);
                held.way = way;
                held.entry = entry;
                count(&mut self.holders, key, held);
                if same {
                    return;
                }
            }
            None if full => {
                self.refused_total += 1;
                return;
            }
            None => {
                self.entries += 1;
                let until = now + way.lasts();
                let held = Held { entry, until, way };
                count(&mut self.holders, key, &held);
                self.table.entry(key).or_default().entries.push(held);
                self.falling.insert((until, key, node.clone(), Kind::Entry));
            }
        }
        if let Some(kept) = self.table.get(&key) {
            kept.tell(key, &node, None, post);
        }
    }

    /// Takes the entry of a holder out, without telling anybody; says whether there was one.
    fn drop_entry(&mut self, key: Key, node: &NodeId, goes: impl Fn(&Entry) -> bool) -> bool {
        let Some(kept) = self.table.get_mut(&key) else {
            return false;
        };
        let found = |held: &Held| held.entry.holder.node == *node && goes(&held.entry);
        let Some(index) = kept.entries.iter().position(found) else {
            return false;
        };
        let held = kept.entries.remove(index);
        uncount(&mut self.holders, key, &held);
        self.entries -= 1;
        true
    }

    fn tell(&self, key: Key, by: &NodeId, withdrawn: Option<(&Life, u64)>, post: &mut Post) {
        if let Some(kept) = self.table.get(&key) {
            kept.tell(key, by, withdrawn, post);
        }
    }

    pub(super) fn withdraw(&mut self, from: &Life, keys: Vec<(Key, u64)>, post: &mut Post) {
        for (key, version) in keys {
            let goes = |entry: &Entry| (entry.holder.generation, entry.version) <= (from.generation, version);
            if self.drop_entry(key, &from.node, goes) {
                self.tell(key, &from.node, Some((from, version)), post);
                self.drop_if_empty(key);
            }
        }
    }

    pub(super) fn touch(&mut self, now: Time, from: &Life, keys: &[(Key, u64)], post: &mut Post) {
        for (key, version) in keys {
            let held = self.table.get_mut(key).and_then(|kept| kept.of_mut(&from.node));
            match held {
                Some(held)
                    if held.way == Way::Direct && held.entry.holder == *from && held.entry.version >= *version =>
                {
                    held.until = now + ENTRY_TTL;
                    if let Some(of) = self.holders.get_mut(&from.node) {
                        of.unnamed.remove(key);
                    }
                }
                Some(_) | None => post.to(from.node.clone()).missing(*key),
            }
        }
    }

    /// Compares what is kept of a holder with what it says in sum. Where both are the same all of it stands, without a word; else the
    /// holder is told the sums of its buckets.
    pub(super) fn digest(&mut self, now: Time, from: &Life, digest: &Digest, post: &mut Post) {
        let of = self.holders.get_mut(&from.node);
        let total = of.as_ref().map_or((0, 0), |of| of.tally.total());
        if total != (digest.count, digest.hash) {
            let sums = self.sums(&from.node);
            post.to(from.node.clone()).differs(sums);
        } else if let Some(of) = of {
            of.stand.fill(now + ENTRY_TTL);
            of.unnamed.clear();
        }
    }

    /// What is kept of a holder, in sums.
    pub(super) fn sums(&self, holder: &NodeId) -> Vec<Sum> {
        let of = self.holders.get(holder);
        of.map(|of| of.tally.sums()).unwrap_or_default()
    }

    /// Takes it that these buckets are the same here and at their holder.
    pub(super) fn same(&mut self, now: Time, from: &Life, same: &Same) {
        let Some(of) = self.holders.get_mut(&from.node) else {
            return;
        };
        for index in (0..BUCKETS).filter(|index| same.buckets & (1 << index) != 0) {
            of.stand[index] = now + ENTRY_TTL;
        }
        of.unnamed.retain(|key| same.buckets & (1 << bucket(*key)) == 0);
    }

    /// Takes everything that a holder has for us in a bucket: what is lacking here is asked for, and what its holder names no longer falls
    /// soon. Not at once, for a holder that takes other nodes for the homes has only just told those.
    pub(super) fn stand(&mut self, now: Time, from: &Life, stand: &Stand, rendezvous: &Rendezvous, post: &mut Post) {
        if usize::from(stand.bucket) >= BUCKETS {
            return;
        }
        self.repaired_total += 1;
        self.touch(now, from, &stand.entries, post);
        let Some(of) = self.holders.get_mut(&from.node) else {
            return;
        };
        let named: BTreeSet<Key> = stand.entries.iter().map(|(key, _)| *key).collect();
        let extra: Vec<Key> = keys_in(&of.keys, stand.bucket)
            .filter(|key| !named.contains(key))
            .collect();
        for key in extra {
            let held = self.table.get_mut(&key).and_then(|kept| kept.of_mut(&from.node));
            let Some(held) = held.filter(|held| held.entry.holder == *from && held.entry.version <= stand.version)
            else {
                continue;
            };
            if rendezvous.is_home(key, rendezvous.local()) && of.unnamed.insert(key) {
                held.until = held.until.min(now + FORMER_HOME_FOR);
                self.falling.insert((held.until, key, from.node.clone(), Kind::Entry));
            }
        }
    }

    /// Until when an entry stands: by itself, or with its bucket.
    fn stands_until(&self, key: Key, held: &Held) -> Time {
        let of = self.holders.get(&held.entry.holder.node);
        let with_bucket = of
            .filter(|of| held.way == Way::Direct && !of.unnamed.contains(&key))
            .map(|of| of.stand[usize::from(bucket(key))]);
        with_bucket.map_or(held.until, |stands| stands.max(held.until))
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
        let mut gone = Vec::new();
        let mut emptied = Vec::new();
        for (key, kept) in &mut self.table {
            let watching = kept.watchers.len();
            // A node that restarted watches anew; one that lives keeps its watches.
            kept.watchers
                .retain(|(node, _)| lives.known.get(node).is_none_or(|(_, alive)| *alive));
            self.watches -= watching - kept.watchers.len();
            let over = |held: &&Held| lives.is_over(&held.entry.holder);
            gone.extend(
                kept.entries
                    .iter()
                    .filter(over)
                    .map(|held| (*key, held.entry.holder.node.clone())),
            );
            if kept.entries.is_empty() && kept.watchers.is_empty() {
                emptied.push(*key);
            }
        }
        for (key, node) in gone {
            self.drop_entry(key, &node, |_| true);
            self.tell(key, &node, None, post);
            self.drop_if_empty(key);
        }
        for key in emptied {
            self.table.remove(&key);
        }
    }

    /// Tells a watcher all that it watches and holds beside others, since something on the way to it may be lost.
    pub(super) fn say_again(&self, node: &NodeId, post: &mut Post) {
        for (key, kept) in &self.table {
            let watches = kept.watchers.iter().any(|(watcher, _)| watcher == node);
            let shares = kept.entries.len() > 1 && kept.of(node).is_some();
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
            let Some(kept) = self.table.get(&key) else { continue };
            let until = match kind {
                Kind::Entry => kept.of(&node).map(|held| self.stands_until(key, held)),
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
                    let unnamed = self.holders.get(&node).is_some_and(|of| of.unnamed.contains(&key));
                    // What its holder named no longer has not fallen silent: the withdrawal was lost.
                    self.expired_total += u64::from(!unnamed);
                    self.drop_entry(key, &node, |_| true);
                    self.tell(key, &node, None, post);
                }
                Kind::Watch => {
                    let kept = self.table.get_mut(&key).expect("it was just looked at");
                    kept.watchers.retain(|(watcher, _)| *watcher != node);
                    self.watches -= 1;
                }
            }
            self.drop_if_empty(key);
        }
    }

    pub(super) fn entries(&self, now: Time, key: Key, lives: &Lives) -> Vec<Entry> {
        self.entries_by(now, key, lives, |_| true)
    }

    fn entries_by(&self, now: Time, key: Key, lives: &Lives, wanted: impl Fn(&Held) -> bool) -> Vec<Entry> {
        let stands =
            |held: &&Held| wanted(held) && !lives.is_over(&held.entry.holder) && self.stands_until(key, held) > now;
        let kept = self.table.get(&key).into_iter().flat_map(|kept| &kept.entries);
        kept.filter(stands).map(|held| held.entry.clone()).collect()
    }

    /// What holders told us of a key, for the nodes that we take for its homes. Not what was forwarded to us: nothing goes on twice.
    pub(super) fn to_forward(&self, now: Time, key: Key, withdrawn: Vec<(Life, u64)>, lives: &Lives) -> State {
        State {
            key,
            entries: self.entries_by(now, key, lives, |held| held.way == Way::Direct),
            withdrawn,
        }
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

    /// Buckets whose entries were gone through because their sums differed.
    pub(super) fn repaired_total(&self) -> u64 {
        self.repaired_total
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

/// Enters what a holder told us itself into the sums that its digests are compared with.
fn count(holders: &mut BTreeMap<NodeId, Of>, key: Key, held: &Held) {
    if held.way == Way::Direct {
        let Life { node, generation } = &held.entry.holder;
        if !holders.contains_key(node) {
            holders.insert(node.clone(), Of::default());
        }
        let of = holders.get_mut(node).expect("it was just put there");
        of.tally.add(key, *generation, held.entry.version);
        of.keys.insert(key, ());
    }
}

fn uncount(holders: &mut BTreeMap<NodeId, Of>, key: Key, held: &Held) {
    let Life { node, generation } = &held.entry.holder;
    if held.way == Way::Direct
        && let Some(of) = holders.get_mut(node)
    {
        of.tally.remove(key, *generation, held.entry.version);
        of.keys.remove(&key);
        of.unnamed.remove(&key);
        if of.keys.is_empty() {
            holders.remove(node);
        }
    }
}
