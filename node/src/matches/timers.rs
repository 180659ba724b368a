//! The timers of one match: when each id is due, in match time. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Ids and when they are due. At one moment they fall due in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timers {
    by_id: BTreeMap<u32, u64>,
    by_due: BTreeSet<(u64, u32)>,
}

impl Timers {
    /// Sets or moves a timer, or takes it away; says when it was due before.
    pub fn put(&mut self, id: u32, due_ms: Option<u64>) -> Option<u64> {
        let was = match due_ms {
            Some(due_ms) => self.by_id.insert(id, due_ms),
            None => self.by_id.remove(&id),
        };
        if let Some(was) = was {
            self.by_due.remove(&(was, id));
        }
        if let Some(due_ms) = due_ms {
            self.by_due.insert((due_ms, id));
        }
        was
    }

    pub fn due_ms(&self, id: u32) -> Option<u64> {
        self.by_id.get(&id).copied()
    }

    /// The next one: when, and which.
    pub fn first(&self) -> Option<(u64, u32)> {
        self.by_due.first().copied()
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

impl Serialize for Timers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_id.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_id = BTreeMap::<u32, u64>::deserialize(deserializer)?;
        let by_due = by_id.iter().map(|(id, due_ms)| (*due_ms, *id)).collect();
        Ok(Self { by_id, by_due })
    }
}
