//! What this node says about itself in gossip: its state, its facts, its groups, and the keys they are carried under. Pure. Everything
//! that goes into gossip passes here, so this is the one place that checks keys and values: gossip itself panics on a key that does
//! not start with ASCII, and a value longer than a packet blocks everything behind it for ever.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Limits;
use crate::error::{FactError, GroupError};
use crate::group::{self, Groups};
use crate::member::MemberState;
use crate::suspicion::Time;

pub(crate) const STATE_KEY: &str = "st";
pub(crate) const ADDR_KEY: &str = "addr";
/// Up to which version the node understands what the mesh says to itself. A node that does not state it is of the first version.
pub(crate) const VERSION_KEY: &str = "mv";
/// The second version compares digests in the directory and keeps groups in it.
pub(crate) const MESH_VERSION: u32 = 2;
/// Facts and groups have a prefix each, so that no fact can pass for something else.
pub(crate) const FACT_PREFIX: &str = "f/";
pub(crate) const GROUP_PREFIX: &str = "g/";

/// The longest key, prefix included, and the longest value, in bytes.
const KEY_LEN_MAX: usize = 128;
const VALUE_LEN_MAX: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Own {
    state: MemberState,
    addr: String,
    facts: Arc<BTreeMap<String, String>>,
    groups: Groups,
    limits: Limits,
}

impl Own {
    pub(crate) fn new(addr: String, limits: Limits) -> Self {
        Self {
            state: MemberState::Joining,
            addr,
            facts: Arc::default(),
            groups: Groups::default(),
            limits,
        }
    }

    pub(crate) fn state(&self) -> MemberState {
        self.state
    }

    pub(crate) fn facts(&self) -> &Arc<BTreeMap<String, String>> {
        &self.facts
    }

    pub(crate) fn set_state(&mut self, state: MemberState) {
        self.state = state;
    }

    pub(crate) fn set_fact(&mut self, key: &str, value: &str) -> Result<(), FactError> {
        let max = KEY_LEN_MAX - FACT_PREFIX.len();
        if key.is_empty() || key.len() > max || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FactError::Key { max });
        }
        if value.len() > VALUE_LEN_MAX {
            return Err(FactError::Value {
                len: value.len(),
                max: VALUE_LEN_MAX,
            });
        }
        if !self.facts.contains_key(key) && self.key_count() >= self.limits.keys_hard {
            return Err(FactError::Budget {
                max: self.limits.keys_hard,
            });
        }
        Arc::make_mut(&mut self.facts).insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    pub(crate) fn remove_fact(&mut self, key: &str) {
        Arc::make_mut(&mut self.facts).remove(key);
    }

    pub(crate) fn join(&mut self, name: &str) -> Result<(), GroupError> {
        let max = KEY_LEN_MAX - GROUP_PREFIX.len();
        if name.is_empty() || group::encode(name).len() > max {
            return Err(GroupError::Name { max });
        }
        if !self.groups.is_stated(name) && self.key_count() >= self.limits.keys_hard {
            return Err(GroupError::Budget {
                max: self.limits.keys_hard,
            });
        }
        self.groups.join(name);
        Ok(())
    }

    pub(crate) fn leave(&mut self, now: Time, name: &str) {
        self.groups.leave(now, name);
    }

    /// Forgets groups that have been empty for long enough; says whether there were any.
    pub(crate) fn sweep(&mut self, now: Time) -> bool {
        self.groups.sweep(now)
    }

    pub(crate) fn members_of(&self, group: &str) -> u32 {
        self.groups.members(group)
    }

    /// How many facts and groups we state.
    pub(crate) fn key_count(&self) -> usize {
        self.facts.len() + self.groups.len()
    }

    /// Everything that gossip should carry for us.
    pub(crate) fn keys(&self) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::from([
            (STATE_KEY.to_owned(), self.state.as_str().to_owned()),
            (ADDR_KEY.to_owned(), self.addr.clone()),
            (VERSION_KEY.to_owned(), MESH_VERSION.to_string()),
        ]);
        keys.extend(
            self.facts
                .iter()
                .map(|(key, value)| (format!("{FACT_PREFIX}{key}"), value.clone())),
        );
        keys.extend(
            self.groups
                .stated()
                .map(|(name, count)| (format!("{GROUP_PREFIX}{}", group::encode(name)), count.to_string())),
        );
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(keys_hard: usize) -> Own {
        Own::new(
            "host:1".into(),
            Limits {
                keys_hard,
                ..Limits::default()
            },
        )
    }

    #[test]
    fn facts_are_checked() {
        let mut own = own(10);
        let longest = "k".repeat(126);
        assert_eq!(own.set_fact(&longest, &"v".repeat(1_000)), Ok(()));
        assert!(own.keys().keys().all(|key| key.len() <= KEY_LEN_MAX));
        let too_long = "k".repeat(127);
        for key in ["", "ä", "a b", "a\n", too_long.as_str()] {
            assert_eq!(own.set_fact(key, "v"), Err(FactError::Key { max: 126 }), "{key:?}");
        }
        assert_eq!(
            own.set_fact("k", &"v".repeat(1_001)),
            Err(FactError::Value { len: 1_001, max: 1_000 })
        );
        own.remove_fact(&longest);
        assert!(own.facts().is_empty());
    }

    #[test]
    fn the_budget_counts_facts_and_groups_together() {
        let mut own = own(2);
        own.set_fact("a", "1").unwrap();
        own.join("room").unwrap();
        assert_eq!(own.set_fact("b", "1"), Err(FactError::Budget { max: 2 }));
        assert_eq!(own.join("other"), Err(GroupError::Budget { max: 2 }));
        own.set_fact("a", "2").unwrap();
        own.join("room").unwrap();
        assert_eq!(own.key_count(), 2);
    }

    #[test]
    fn group_names_may_be_any_text_that_is_short_enough() {
        let mut own = own(10);
        own.join("room:räuber/höhle").unwrap();
        assert!(own.keys().keys().all(|key| key.is_ascii()));
        assert_eq!(own.join(""), Err(GroupError::Name { max: 126 }));
        assert_eq!(own.join(&"ä".repeat(22)), Err(GroupError::Name { max: 126 }));
    }
}
