//! How many lives of nodes the gossip library may know. Pure.
//!
//! Each message of the library has a digest of all lives that it knows, and it subtracts the digest's length from 64 KiB to learn what
//! else fits in: with some 1,100 lives, of which the dead of the last half hour count, that is less than nothing, and its task ends. Nodes
//! that crash in a loop make as many, and so does one peer that names lives which never were.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::Duration;

use chitchat::{ChitchatId, Deserializable, Serializable};

use super::{Refusal, SYN, SYN_ACK, read};
use crate::suspicion::Time;

/// What the digest of all lives may take of a message's 64 KiB: some 850 lives, and a quarter is left for what they state.
const DIGEST_LEN_MAX: usize = 48 << 10;

/// What stands beside each life in a digest: heartbeat, deletions, version.
const NUMBERS_LEN: usize = 24;

/// A life that no message has named for this long is not counted. The library forgets the dead after half of it.
const NAMED_FOR: Duration = Duration::from_secs(30 * 60);

/// The lives that messages have named.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    /// When each was named last.
    named: BTreeMap<ChitchatId, Time>,
    digest_len: usize,
}

impl Lives {
    /// Takes note of the lives in a message that `check` has passed; refused, and not noted, when there is no room for the new ones.
    pub(crate) fn admit(&mut self, now: Time, message: &[u8]) -> Result<(), Refusal> {
        let named = named_in(message)?;
        let wanted = named
            .iter()
            .filter(|id| !self.named.contains_key(id))
            .map(digest_len)
            .sum::<usize>();
        if self.digest_len + wanted > DIGEST_LEN_MAX {
            self.named.retain(|_, at| now.saturating_sub(*at) < NAMED_FOR);
            self.digest_len = self.named.keys().map(digest_len).sum();
        }
        if self.digest_len + wanted > DIGEST_LEN_MAX {
            return Err(Refusal::TooMuch { max: DIGEST_LEN_MAX });
        }
        for id in named {
            let len = digest_len(&id);
            if self.named.insert(id, now).is_none() {
                self.digest_len += len;
            }
        }
        Ok(())
    }
}

fn digest_len(id: &ChitchatId) -> usize {
    id.serialized_len() + NUMBERS_LEN
}

/// A delta changes only lives that a digest has named.
fn named_in(message: &[u8]) -> Result<Vec<ChitchatId>, Refusal> {
    let (head, mut rest) = message.split_at_checked(4).ok_or(Refusal::Malformed)?;
    if !matches!(head[3], SYN | SYN_ACK) {
        return Ok(Vec::new());
    }
    let count: u16 = read(&mut rest)?;
    let mut named = Vec::new();
    for _ in 0..count {
        named.push(ChitchatId::deserialize(&mut rest).map_err(|_| Refusal::Malformed)?);
        rest = rest.get(NUMBERS_LEN..).ok_or(Refusal::Malformed)?;
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::Written;

    fn syn(generations: std::ops::Range<u64>) -> Vec<u8> {
        let lives: Vec<_> = generations
            .map(|generation| ("crash-loop", generation, [1, 0, 1]))
            .collect();
        Written::head(SYN).digest(&lives).text("rookery").0
    }

    #[test]
    fn more_lives_than_gossip_can_carry_are_refused_until_others_are_forgotten() {
        let mut lives = Lives::default();
        let mut known = 0;
        while lives.admit(Duration::ZERO, &syn(known..known + 10)).is_ok() {
            known += 10;
            assert!(known < 5_000, "there is no end to it");
        }
        assert!(known > 500, "only {known}");
        // What is known is no news, and time makes room.
        assert_eq!(lives.admit(Duration::from_secs(1), &syn(0..10)), Ok(()));
        assert!(
            lives
                .admit(NAMED_FOR - Duration::from_secs(1), &syn(known..known + 10))
                .is_err()
        );
        assert_eq!(lives.admit(NAMED_FOR, &syn(known..known + 10)), Ok(()));
    }
}
