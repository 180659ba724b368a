//! What this node holds: each entry with the number under which it was last changed, and for each home the sums of what it should
//! know (`digest.rs`). Once in [`REFRESH`] the sums are compared; a home of the version before has every entry touched instead,
//! some at each wake, so that the work is even.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::digest::{BUCKETS, Sum, Tally};
use super::rendezvous::Rendezvous;
use super::{Digest, Key, Put, REFRESH, Stand};
use crate::peer::NodeId;
use crate::suspicion::Time;

/// How often a home that should know nothing any more is told so: a withdrawal may have been lost on its way there.
const EMPTY_ROUNDS: u8 = 3;

#[derive(Debug)]
pub(super) struct Holder {
    generation: u64,
    entries: BTreeMap<Key, Holding>,
    /// Numbers everything that this life of the node says.
    version: u64,
    /// The last key that was touched.
    touched: Option<Key>,
    toward: BTreeMap<NodeId, Toward>,
}

#[derive(Debug)]
struct Holding {
    epoch: u64,
    version: u64,
    value: Bytes,
}

/// What one home should know.
#[derive(Debug)]
struct Toward {
    tally: Tally,
    /// The sums at the last digest: the home's answer is about those.
    said: Vec<Sum>,
    due: Time,
    /// Digests in a row that said that there is nothing.
    empty_rounds: u8,
}

impl Holder {
    pub(super) fn new(generation: u64) -> Self {
        Self {
            generation,
            entries: BTreeMap::new(),
            version: 0,
            touched: None,
            toward: BTreeMap::new(),
        }
    }

    /// Says whether that is new.
    pub(super) fn hold(&mut self, now: Time, key: Key, epoch: u64, value: Bytes, homes: &[NodeId]) -> bool {
        let same = |held: &Holding| held.epoch == epoch && held.value == value;
        if self.entries.get(&key).is_some_and(same) {
            return false;
        }
        self.version += 1;
        let version = self.version;
        let before = self.entries.insert(key, Holding { epoch, version, value });
        let generation = self.generation;
        for home in homes {
            let tally = &mut self.toward(now, home).tally;
            if let Some(before) = &before {
                tally.remove(key, generation, before.version);
            }
            tally.add(key, generation, version);
        }
        true
    }

    /// Returns the number that takes the entry back; none when there was none.
    pub(super) fn release(&mut self, now: Time, key: Key, homes: &[NodeId]) -> Option<u64> {
        let before = self.entries.remove(&key)?;
        self.version += 1;
        let generation = self.generation;
        for home in homes {
            self.toward(now, home).tally.remove(key, generation, before.version);
        }
        Some(self.version)
    }

    fn toward(&mut self, now: Time, home: &NodeId) -> &mut Toward {
        if !self.toward.contains_key(home) {
            let toward = Toward {
                tally: Tally::default(),
                said: Vec::new(),
                due: now + REFRESH,
                empty_rounds: 0,
            };
            self.toward.insert(home.clone(), toward);
        }
        self.toward.get_mut(home).expect("it was just put there")
    }

    /// The homes are others now, and know other keys.
    pub(super) fn rehome(&mut self, now: Time, rendezvous: &Rendezvous) {
        self.toward.values_mut().for_each(|toward| toward.tally.clear());
        let known: Vec<(Key, u64)> = self.entries.iter().map(|(key, held)| (*key, held.version)).collect();
        let generation = self.generation;
        for (key, version) in known {
            for home in rendezvous.homes(key) {
                self.toward(now, &home).tally.add(key, generation, version);
            }
        }
    }

    /// The homes whose turn it is to compare.
    pub(super) fn homes_due(&mut self, now: Time) -> Vec<NodeId> {
        let mut due = Vec::new();
        self.toward.retain(|home, toward| {
            if toward.due > now {
                return true;
            }
            toward.due = now + REFRESH;
            let rounds = toward.empty_rounds + 1;
            toward.empty_rounds = if toward.tally.is_empty() { rounds } else { 0 };
            due.push(home.clone());
            toward.empty_rounds < EMPTY_ROUNDS
        });
        due
    }

    /// The sums of all that a home should know now.
    pub(super) fn digest(&mut self, home: &NodeId) -> Digest {
        let (count, hash) = match self.toward.get_mut(home) {
            Some(toward) => {
                toward.said = toward.tally.sums();
                toward.tally.total()
            }
            None => (0, 0),
        };
        Digest { count, hash }
    }

    /// Compares what a home knew when it got our last digest, or when it found us alive again, with what we said then: the buckets in which it knew the same, as bits,
    /// the buckets of which it knew nothing, and the others.
    pub(super) fn compare(&self, home: &NodeId, known: &[Sum]) -> Differences {
        let mut found = Differences::default();
        let toward = self.toward.get(home);
        // A home that took us for dead may say what it has before the first digest.
        let unsaid = toward
            .filter(|toward| toward.said.is_empty())
            .map(|toward| toward.tally.sums());
        let said = unsaid
            .as_deref()
            .or(toward.map(|toward| &toward.said[..]))
            .unwrap_or_default();
        for index in 0..BUCKETS {
            let said = said.get(index).copied().unwrap_or_default();
            let bucket = u8::try_from(index).expect("there are 64 buckets");
            let known = known.get(index).copied().unwrap_or_default();
            if known == said {
                found.same |= 1 << bucket;
            } else if known.0 == 0 {
                found.unknown.push(bucket);
            } else {
                found.differing.push(bucket);
            }
        }
        found
    }

    /// Everything that a home should know in a bucket.
    pub(super) fn stand(&self, home: &NodeId, bucket: u8, rendezvous: &Rendezvous) -> Stand {
        let keys = keys_in(&self.entries, bucket).filter(|key| rendezvous.homes(*key).contains(home));
        Stand {
            bucket,
            version: self.version,
            entries: keys.map(|key| (key, self.entries[&key].version)).collect(),
        }
    }

    /// Whether that home should know anything.
    pub(super) fn has_for(&self, home: &NodeId) -> bool {
        self.toward.contains_key(home)
    }

    pub(super) fn holds(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.entries.keys().copied()
    }

    pub(super) fn version(&self, key: Key) -> Option<u64> {
        self.entries.get(&key).map(|held| held.version)
    }

    pub(super) fn put(&self, key: Key) -> Option<Put> {
        let held = self.entries.get(&key)?;
        Some(Put {
            key,
            epoch: held.epoch,
            version: held.version,
            value: held.value.clone(),
        })
    }

    /// The entries whose turn it is to be touched when this much time has passed.
    pub(super) fn due(&mut self, passed: Duration) -> Vec<Key> {
        let due = turn(&self.entries, self.touched, passed, REFRESH);
        self.touched = due.last().copied().or(self.touched);
        due
    }
}

/// In which buckets a home knows the same as its holder, nothing at all, and something else.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) same: u64,
    pub(super) unknown: Vec<u8>,
    pub(super) differing: Vec<u8>,
}

/// The keys of a table in a bucket: side by side within each class.
pub(super) fn keys_in<V>(table: &BTreeMap<Key, V>, bucket: u8) -> impl Iterator<Item = Key> {
    debug_assert!(usize::from(bucket) < BUCKETS);
    let class_from = |class: u8| table.range(Key::first_of(class)..).next().map(|(key, _)| key.class());
    let next = move |class: &u8| class.checked_add(1).and_then(class_from);
    std::iter::successors(class_from(0), next).flat_map(move |class| {
        let within = Key::first_in(class, bucket)..=Key::last_in(class, bucket);
        table.range(within).map(|(key, _)| *key)
    })
}

/// The part of a table whose turn it is: all of it comes once in `round`, beginning after `last`.
pub(super) fn turn<V>(table: &BTreeMap<Key, V>, last: Option<Key>, passed: Duration, round: Duration) -> Vec<Key> {
    let share = passed.as_secs_f64() / round.as_secs_f64();
    // Rounded up, so that a round is never longer than it should be.
    let count = ((table.len() as f64 * share).ceil() as usize).min(table.len());
    let after = last.map_or(Bound::Unbounded, Bound::Excluded);
    let behind = table.range((after, Bound::Unbounded)).map(|(key, _)| *key);
    behind.chain(table.keys().copied()).take(count).collect()
}
