//! Groups that this node has members in: where each is said, and how its name travels. Pure.
//!
//! A group is stated in gossip while there is room: below the soft budget of keys, and only as many new ones as [`Tokens`] allow, since a
//! deleted key stays in every node's gossip for a quarter of an hour. Every other group is held in the directory. One that has stood
//! there for a minute moves into gossip when there is room; it is said in both places meanwhile, so a reader always sees it in one. No
//! group moves the other way, so none moves to and fro.
//!
//! What a node adds to gossip by joining and leaving is bounded: with a soft budget of `n` at most `n` groups are stated, and within the
//! quarter of an hour that a deleted key stays at most `2n` are new (a full bucket of tokens and as many again). So of one node there
//! are never more than `3n` keys of groups in gossip, deleted ones included, whatever the churn.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::suspicion::Time;

/// How long an empty group is still stated in gossip, so that leaving and joining in turn leaves no trail of deleted keys.
const EMPTY_FOR: Duration = Duration::from_secs(10);

/// How long gossip keeps a deleted key, and so the time in which the bucket of tokens fills once.
pub(crate) const TOMBSTONE_FOR: Duration = Duration::from_secs(15 * 60);

/// How long a group stands in the directory before it may move into gossip: what comes and goes is not worth a key.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// How long a group that moves is said in both places: several times what gossip needs to reach everybody.
const MOVING_FOR: Duration = Duration::from_secs(15);

/// How long after the last group in the directory this node still says that it has some there.
const HINT_FOR: Duration = Duration::from_secs(60);

/// Groups that are looked at in one sweep for one that may move.
const LOOKED_AT: usize = 256;

#[derive(Debug)]
pub(crate) struct Groups {
    local: BTreeMap<String, Local>,
    /// Those that gossip states, and those that the directory holds; one that moves is in both.
    stated: BTreeSet<String>,
    spilled: BTreeSet<String>,
    /// Those of which the directory has not been told the newest.
    unsaid: BTreeSet<String>,
    tokens: Tokens,
    /// The last group that was looked at for moving.
    looked_at: Option<String>,
    /// Since when nothing is in the directory; none while something is, or nothing ever was.
    unspilled_since: Option<Time>,
    hint: bool,
    gossip_changed: bool,
}

#[derive(Debug)]
struct Local {
    members: u32,
    /// Set when the last member left.
    empty_since: Option<Time>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Gossip,
    Directory {
        since: Time,
    },
    /// In gossip, and in the directory until then.
    Moving {
        until: Time,
    },
}

/// What gossip has room for when a group is joined.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Groups that may still be stated.
    pub(crate) keys: usize,
    /// Some node does not know of groups in the directory, and would miss one that is only there: tokens are not asked for.
    pub(crate) elders: bool,
}

/// A group that was not joined because this node has as many as it may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Groups {
    /// `burst`: how many groups may be new in gossip at once, and again in each [`TOMBSTONE_FOR`].
    pub(crate) fn new(burst: usize) -> Self {
        Self {
            local: BTreeMap::new(),
            stated: BTreeSet::new(),
            spilled: BTreeSet::new(),
            unsaid: BTreeSet::new(),
            tokens: Tokens::new(burst),
            looked_at: None,
            unspilled_since: None,
            hint: false,
            gossip_changed: false,
        }
    }

    /// Adds a member; a group that is new here gets its place.
    pub(crate) fn join(&mut self, now: Time, name: &str, room: Room, groups_max: usize) -> Result<(), TooMany> {
        if let Some(local) = self.local.get_mut(name) {
            let before = coarse(local.members);
            local.members += 1;
            local.empty_since = None;
            if coarse(local.members) != before {
                self.changed(name);
            }
            return Ok(());
        }
        if self.local.len() >= groups_max {
            return Err(TooMany);
        }
        let place = if room.keys > 0 && (room.elders || self.tokens.take(now)) {
            self.stated.insert(name.to_owned());
            Place::Gossip
        } else {
            self.spilled.insert(name.to_owned());
            self.unspilled_since = None;
            self.gossip_changed |= !std::mem::replace(&mut self.hint, true);
            Place::Directory { since: now }
        };
        let local = Local {
            members: 1,
            empty_since: None,
            place,
        };
        self.local.insert(name.to_owned(), local);
        self.changed(name);
        Ok(())
    }

    pub(crate) fn leave(&mut self, now: Time, name: &str) {
        let Some(local) = self.local.get_mut(name).filter(|local| local.members > 0) else {
            return;
        };
        let before = coarse(local.members);
        local.members -= 1;
        if local.members == 0 {
            local.empty_since = Some(now);
        }
        if coarse(local.members) != before {
            self.changed(name);
        }
    }

    /// What is said of a group is to be said anew, wherever it is.
    fn changed(&mut self, name: &str) {
        self.gossip_changed |= self.stated.contains(name);
        if self.spilled.contains(name) {
            self.unsaid.insert(name.to_owned());
        }
    }

    /// Forgets what has been empty for long enough, and moves what has settled into gossip.
    pub(crate) fn sweep(&mut self, now: Time, room: Room) {
        let gone = |name: &&String| {
            let since = self.local.get(*name).and_then(|local| local.empty_since);
            since.is_some_and(|since| now >= since + EMPTY_FOR)
        };
        for name in self.stated.iter().filter(gone).cloned().collect::<Vec<_>>() {
            self.stated.remove(&name);
            self.local.remove(&name);
            self.gossip_changed = true;
            if self.spilled.remove(&name) {
                self.unsaid.insert(name);
            }
        }
        let arrived = |name: &&String| {
            let place = self.local.get(*name).map(|local| local.place);
            matches!(place, Some(Place::Moving { until }) if until <= now)
        };
        let arrived: Vec<String> = self
            .stated
            .intersection(&self.spilled)
            .filter(arrived)
            .cloned()
            .collect();
        for name in arrived {
            self.spilled.remove(&name);
            if let Some(local) = self.local.get_mut(&name) {
                local.place = Place::Gossip;
            }
            self.unsaid.insert(name);
        }
        self.settle(now, room);
        if !self.spilled.is_empty() {
            self.unspilled_since = None;
        } else if self.hint && now >= *self.unspilled_since.get_or_insert(now) + HINT_FOR {
            self.hint = false;
            self.gossip_changed = true;
        }
    }

    /// Begins to move groups that have stood in the directory for a while. Half of the tokens are kept for what is yet to be joined.
    fn settle(&mut self, now: Time, room: Room) {
        let after = self.looked_at.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let names: Vec<String> = self
            .spilled
            .range::<str, _>((after, Bound::Unbounded))
            .take(LOOKED_AT)
            .cloned()
            .collect();
        // At the end it begins anew.
        self.looked_at = names.last().filter(|_| names.len() == LOOKED_AT).cloned();
        let mut keys = room.keys;
        for name in names {
            if keys == 0 || !self.tokens.is_half_full(now) {
                return;
            }
            let Some(local) = self.local.get_mut(&name) else {
                continue;
            };
            if local.members == 0 || !matches!(local.place, Place::Directory { since } if now >= since + SETTLED_AFTER)
            {
                continue;
            }
            self.tokens.take(now);
            keys -= 1;
            local.place = Place::Moving {
                until: now + MOVING_FOR,
            };
            self.stated.insert(name);
            self.gossip_changed = true;
        }
    }

    /// Whether what gossip should carry has changed.
    pub(crate) fn is_gossip_changed(&self) -> bool {
        self.gossip_changed
    }

    /// The same since the last call.
    pub(crate) fn take_gossip_changed(&mut self) -> bool {
        std::mem::take(&mut self.gossip_changed)
    }

    /// Returns the groups of which the directory should hear, each with what it should hold: a coarse count, or nothing. A group that
    /// was left, and was only there, is forgotten by this.
    pub(crate) fn take_unsaid(&mut self) -> Vec<(String, Option<u32>)> {
        let unsaid = std::mem::take(&mut self.unsaid);
        let mut said = Vec::with_capacity(unsaid.len());
        for name in unsaid {
            let members = match self.local.get(&name) {
                Some(local) if self.spilled.contains(&name) => local.members,
                // In gossip by now, or forgotten.
                Some(_) | None => 0,
            };
            let only_there = self.spilled.contains(&name) && !self.stated.contains(&name);
            if members == 0 && only_there {
                self.spilled.remove(&name);
                self.local.remove(&name);
            }
            said.push((name, (members > 0).then(|| coarse(members))));
        }
        said
    }

    pub(crate) fn has_unsaid(&self) -> bool {
        !self.unsaid.is_empty()
    }

    pub(crate) fn members(&self, name: &str) -> u32 {
        self.local.get(name).map_or(0, |local| local.members)
    }

    /// Whether this node has, or had a moment ago, groups in the directory.
    pub(crate) fn hint(&self) -> bool {
        self.hint
    }

    /// How many groups gossip states.
    pub(crate) fn in_gossip(&self) -> usize {
        self.stated.len()
    }

    /// How many groups the directory holds.
    pub(crate) fn in_directory(&self) -> usize {
        self.spilled.len()
    }

    /// Every group that gossip states, with a coarse count.
    pub(crate) fn stated(&self) -> impl Iterator<Item = (&str, u32)> {
        self.stated
            .iter()
            .map(|name| (name.as_str(), coarse(self.members(name))))
    }
}

/// The power of ten at or below the number of members, so that not every join is told to everybody.
fn coarse(members: u32) -> u32 {
    members.checked_ilog10().map_or(0, |digits| 10u32.pow(digits))
}

/// How many groups may yet be new in gossip: a bucket that fills evenly, once in [`TOMBSTONE_FOR`].
#[derive(Debug)]
struct Tokens {
    burst: f64,
    left: f64,
    at: Time,
}

impl Tokens {
    fn new(burst: usize) -> Self {
        let burst = burst as f64;
        Self {
            burst,
            left: burst,
            at: Time::ZERO,
        }
    }

    fn fill(&mut self, now: Time) {
        let passed = now.saturating_sub(self.at).as_secs_f64() / TOMBSTONE_FOR.as_secs_f64();
        self.left = (self.left + passed * self.burst).min(self.burst);
        self.at = now.max(self.at);
    }

    fn take(&mut self, now: Time) -> bool {
        self.fill(now);
        let there = self.left >= 1.0;
        if there {
            self.left -= 1.0;
        }
        there
    }

    fn is_half_full(&mut self, now: Time) -> bool {
        self.fill(now);
        self.left >= (self.burst / 2.0).max(1.0)
    }
}

/// Percent-encodes everything but a-z, A-Z, 0-9, '-', '_', '.': user text must never begin a gossip key as it is.
pub(crate) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The reverse of `encode`; none when that did not make it.
pub(crate) fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    // One name has one spelling: a node that states two would be reached twice.
    (encode(&name) == encoded).then_some(name)
}

#[cfg(test)]
mod tests;
