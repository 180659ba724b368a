//! What this node holds: each entry with the number under which it was last changed. Which homes know of it is their business; the
//! holder touches every entry there once in [`REFRESH`], some at each wake, so that the work is even.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::{Key, Put, REFRESH};

#[derive(Debug, Default)]
pub(super) struct Holder {
    entries: BTreeMap<Key, Holding>,
    /// Numbers everything that this life of the node says.
    version: u64,
    /// The last key that was touched.
    touched: Option<Key>,
}

#[derive(Debug)]
struct Holding {
    epoch: u64,
    version: u64,
    value: Bytes,
}

impl Holder {
    /// Says whether that is new.
    pub(super) fn hold(&mut self, key: Key, epoch: u64, value: Bytes) -> bool {
        let same = |held: &Holding| held.epoch == epoch && held.value == value;
        if self.entries.get(&key).is_some_and(same) {
            return false;
        }
        self.version += 1;
        let version = self.version;
        self.entries.insert(key, Holding { epoch, version, value });
        true
    }

    /// Returns the number that takes the entry back; none when there was none.
    pub(super) fn release(&mut self, key: Key) -> Option<u64> {
        self.entries.remove(&key)?;
        self.version += 1;
        Some(self.version)
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

    /// The entries whose turn it is when this much time has passed.
    pub(super) fn due(&mut self, passed: Duration) -> Vec<Key> {
        let due = turn(&self.entries, self.touched, passed, REFRESH);
        self.touched = due.last().copied().or(self.touched);
        due
    }
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
