//! What this node says about itself in gossip: its state, its facts, its groups, and the keys they are carried under. Pure. Everything
//! that goes into gossip passes here, so this is the one place that checks keys and values: gossip itself panics on a key that does
//! not start with ASCII, and a value longer than a packet blocks everything behind it for ever.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Limits;
use crate::error::{FactError, GroupError};
use crate::group::{self, Groups, Room, TOMBSTONE_FOR, TooMany};
use crate::member::MemberState;
use crate::suspicion::Time;

pub(crate) const STATE_KEY: &str = "st";
pub(crate) const ADDR_KEY: &str = "addr";
/// Up to which version the node understands what the mesh says to itself. A node that does not state it is of the first version.
pub(crate) const VERSION_KEY: &str = "mv";
/// The second version compares digests in the directory and keeps groups in it.
pub(crate) const MESH_VERSION: u32 = 2;
/// Says that the node has groups in the directory. Stated while it has, so that nobody asks the directory of a cluster without any.
pub(crate) const SPILL_KEY: &str = "gd";
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
    /// Facts that were taken back, and when: gossip keeps their keys for a while, so they count.
    taken_back: BTreeMap<String, Time>,
    groups: Groups,
    /// Some node here does not know of groups in the directory.
    elders: bool,
    /// What gossip carries for us is not what it should be.
    changed: bool,
    groups_refused: u64,
    limits: Limits,
}

impl Own {
    pub(crate) fn new(addr: String, limits: Limits) -> Self {
        Self {
            state: MemberState::Joining,
            addr,
            facts: Arc::default(),
            taken_back: BTreeMap::new(),
            groups: Groups::new(limits.keys_soft.min(limits.keys_hard)),
            elders: false,
            changed: true,
            groups_refused: 0,
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
        self.changed |= self.state != state;
        self.state = state;
    }

    /// Says whether there are nodes that do not know of groups in the directory.
    pub(crate) fn set_elders(&mut self, elders: bool) {
        self.elders = elders;
    }

    pub(crate) fn set_fact(&mut self, now: Time, key: &str, value: &str) -> Result<(), FactError> {
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
        self.taken_back.retain(|_, since| now < *since + TOMBSTONE_FOR);
        let is_new = !self.facts.contains_key(key) && !self.taken_back.contains_key(key);
        if is_new && self.key_count() + self.taken_back.len() >= self.limits.keys_hard {
            return Err(FactError::Budget {
                max: self.limits.keys_hard,
            });
        }
        if self.facts.get(key).is_none_or(|before| before != value) {
            self.taken_back.remove(key);
            Arc::make_mut(&mut self.facts).insert(key.to_owned(), value.to_owned());
            self.changed = true;
        }
        Ok(())
    }

    pub(crate) fn remove_fact(&mut self, now: Time, key: &str) {
        if self.facts.contains_key(key) {
            Arc::make_mut(&mut self.facts).remove(key);
            self.taken_back.insert(key.to_owned(), now);
            self.changed = true;
        }
    }

    /// What gossip has room for now.
    fn room(&self) -> Room {
        let max = if self.elders {
            self.limits.keys_hard
        } else {
            self.limits.keys_soft.min(self.limits.keys_hard)
        };
        Room {
            keys: max.saturating_sub(self.key_count()),
            elders: self.elders,
        }
    }

    pub(crate) fn join(&mut self, now: Time, name: &str) -> Result<(), GroupError> {
        let max = KEY_LEN_MAX - GROUP_PREFIX.len();
        if name.is_empty() || group::encode(name).len() > max {
            return Err(GroupError::Name { max });
        }
        let (room, max) = (self.room(), self.limits.groups_max);
        self.groups.join(now, name, room, max).map_err(|TooMany| {
            self.groups_refused += 1;
            GroupError::TooMany { max }
        })
    }

    pub(crate) fn leave(&mut self, now: Time, name: &str) {
        self.groups.leave(now, name);
    }

    /// Forgets groups that have been empty for long enough, and moves groups into gossip that has room.
    pub(crate) fn sweep(&mut self, now: Time) {
        let room = self.room();
        self.groups.sweep(now, room);
    }

    /// Whether what gossip carries for us is to be brought up to date.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed || self.groups.is_gossip_changed()
    }

    /// The same, once: it is about to be.
    pub(crate) fn take_changed(&mut self) -> bool {
        let groups = self.groups.take_gossip_changed();
        std::mem::take(&mut self.changed) | groups
    }

    /// Returns the groups of which the directory should hear, with the coarse count that it should hold, or nothing.
    pub(crate) fn take_unsaid(&mut self) -> Vec<(String, Option<u32>)> {
        self.groups.take_unsaid()
    }

    pub(crate) fn has_unsaid(&self) -> bool {
        self.groups.has_unsaid()
    }

    /// How many groups are in gossip, in the directory, and were refused.
    pub(crate) fn group_counts(&self) -> (u64, u64, u64) {
        let (gossip, directory) = (self.groups.in_gossip(), self.groups.in_directory());
        (gossip as u64, directory as u64, self.groups_refused)
    }

    pub(crate) fn members_of(&self, group: &str) -> u32 {
        self.groups.members(group)
    }

    /// How many facts and groups we state in gossip.
    pub(crate) fn key_count(&self) -> usize {
        self.facts.len() + self.groups.in_gossip()
    }

    /// Everything that gossip should carry for us.
    pub(crate) fn keys(&self) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::from([
            (STATE_KEY.to_owned(), self.state.as_str().to_owned()),
            (ADDR_KEY.to_owned(), self.addr.clone()),
            (VERSION_KEY.to_owned(), MESH_VERSION.to_string()),
        ]);
        if self.groups.hint() {
            keys.insert(SPILL_KEY.to_owned(), "1".to_owned());
        }
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
mod tests;
