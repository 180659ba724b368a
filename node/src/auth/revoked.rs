//! The revoked families, in memory: what is asked with every token, and never waits.

use std::collections::HashMap;
use std::sync::RwLock;
use std::time::{Duration, Instant};

/// Families whose tokens do not count any more. Each is kept until the last token of it has expired by itself.
pub(super) struct Revoked {
    families: RwLock<HashMap<String, Instant>>,
    keep_for: Duration,
}

impl Revoked {
    pub(super) fn new(keep_for: Duration) -> Self {
        Self {
            families: RwLock::default(),
            keep_for,
        }
    }

    pub(super) fn contains(&self, family: &str) -> bool {
        self.families.read().expect("no holder panics").contains_key(family)
    }

    pub(super) fn add(&self, families: impl IntoIterator<Item = String>, now: Instant) {
        let mut known = self.families.write().expect("no holder panics");
        for family in families {
            known.entry(family).or_insert(now);
        }
    }

    pub(super) fn forget_old(&self, now: Instant) {
        let mut known = self.families.write().expect("no holder panics");
        known.retain(|_, heard_at| now.duration_since(*heard_at) < self.keep_for);
    }
}
