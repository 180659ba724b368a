//! Groups that this node has members in, and how their names travel. Pure. A group is stated in gossip while it has members here and
//! for ten seconds after, so that leaving and joining in turn leaves no trail of deleted keys.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::suspicion::Time;

/// How long an empty group is still stated.
const EMPTY_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Groups {
    local: BTreeMap<String, Local>,
}

#[derive(Debug, Default)]
struct Local {
    members: u32,
    /// Set when the last member left.
    empty_since: Option<Time>,
}

impl Groups {
    pub(crate) fn join(&mut self, name: &str) {
        let local = self.local.entry(name.to_owned()).or_default();
        local.members += 1;
        local.empty_since = None;
    }

    pub(crate) fn leave(&mut self, now: Time, name: &str) {
        if let Some(local) = self.local.get_mut(name) {
            local.members = local.members.saturating_sub(1);
            if local.members == 0 {
                local.empty_since = Some(now);
            }
        }
    }

    /// Forgets what has been empty for long enough; says whether there was anything.
    pub(crate) fn sweep(&mut self, now: Time) -> bool {
        let before = self.local.len();
        self.local
            .retain(|_, local| local.empty_since.is_none_or(|since| now < since + EMPTY_FOR));
        self.local.len() != before
    }

    pub(crate) fn members(&self, name: &str) -> u32 {
        self.local.get(name).map_or(0, |local| local.members)
    }

    pub(crate) fn is_stated(&self, name: &str) -> bool {
        self.local.contains_key(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.local.len()
    }

    /// Every stated group with a coarse count: the power of ten at or below the number of members, so that not every join is gossip.
    pub(crate) fn stated(&self) -> impl Iterator<Item = (&str, u32)> {
        self.local.iter().map(|(name, local)| {
            (
                name.as_str(),
                local.members.checked_ilog10().map_or(0, |digits| 10u32.pow(digits)),
            )
        })
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
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_group_is_stated_for_ten_more_seconds() {
        let second = Duration::from_secs;
        let mut groups = Groups::default();
        groups.join("room");
        groups.join("room");
        groups.leave(second(1), "room");
        groups.leave(second(2), "room");
        assert_eq!(groups.members("room"), 0);
        assert!(!groups.sweep(second(11)));
        assert!(groups.is_stated("room"));
        groups.join("room");
        assert!(!groups.sweep(second(20)));
        groups.leave(second(20), "room");
        assert!(groups.sweep(second(30)));
        assert_eq!(groups.len(), 0);
    }

    #[test]
    fn the_stated_count_is_coarse() {
        let mut groups = Groups::default();
        for _ in 0..99 {
            groups.join("room");
        }
        assert_eq!(groups.stated().collect::<Vec<_>>(), [("room", 10)]);
        groups.join("room");
        assert_eq!(groups.stated().collect::<Vec<_>>(), [("room", 100)]);
    }

    proptest! {
        #[test]
        fn names_survive_encoding(name in ".*") {
            let encoded = encode(&name);
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(decode(&encoded), Some(name));
        }

        #[test]
        fn decoding_never_panics(text in ".*") {
            decode(&text);
        }
    }
}
