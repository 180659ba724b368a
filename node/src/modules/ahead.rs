//! Which modules a node compiles before anybody asks for them: the newest version of each name, one after the other, as far as there
//! is room. What does not fit or does not compile is left for its first use.
//!
//! It knows no bytes and no store: it is told what is published and what came of a try. Invariant: what is kept ready never takes
//! more than the room that there is, and a module that failed is not tried again before its time.

#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::Digest;

/// The first pause after a try that failed, doubled with each further one up to the longest.
const RETRY_MS: u64 = 1_000;
const RETRY_MS_MAX: u64 = 300_000;

/// The newest version of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub digest: Digest,
    /// Length of the component.
    pub bytes: u64,
    pub published_at_ms: u64,
}

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ready,
    /// It may work another time.
    Failed,
    /// These bytes will never do.
    Hopeless,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    tries: u32,
    /// None when it is hopeless.
    again_ms: Option<u64>,
}

/// What is to be compiled ahead of use.
#[derive(Debug)]
pub struct Ahead {
    bytes_max: u64,
    /// What there is room for, newest first.
    wanted: Vec<Digest>,
    ready: BTreeSet<Digest>,
    failed: BTreeMap<Digest, Failure>,
}

impl Ahead {
    /// With room for components of so many bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            wanted: Vec::new(),
            ready: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// What is published now and may run, and which of it is compiled already. The newest get the room first.
    pub fn published(&mut self, mut heads: Vec<Head>, is_ready: impl Fn(&Digest) -> bool) {
        heads.sort_by_key(|head| (std::cmp::Reverse(head.published_at_ms), head.digest));
        let mut room = self.bytes_max;
        self.wanted.clear();
        for head in heads {
            if let Some(left) = room.checked_sub(head.bytes) {
                room = left;
                self.wanted.push(head.digest);
            }
        }
        self.ready = self.wanted.iter().copied().filter(is_ready).collect();
        let Self { wanted, failed, .. } = self;
        failed.retain(|digest, _| wanted.contains(digest));
    }

    /// Whether a module is to be kept compiled.
    pub fn wants(&self, digest: &Digest) -> bool {
        self.wanted.contains(digest)
    }

    /// The module to compile next.
    pub fn next(&self, now_ms: u64) -> Option<Digest> {
        let is_due = |digest: &&Digest| match self.failed.get(digest) {
            None => true,
            Some(failure) => failure.again_ms.is_some_and(|again_ms| again_ms <= now_ms),
        };
        self.missing().find(is_due).copied()
    }

    /// When something is to be tried again.
    pub fn next_wake_ms(&self) -> Option<u64> {
        self.missing()
            .filter_map(|digest| self.failed.get(digest)?.again_ms)
            .min()
    }

    pub fn tried(&mut self, now_ms: u64, digest: Digest, outcome: Outcome) {
        let tries = self.failed.remove(&digest).map_or(0, |failure| failure.tries);
        let again_ms = match outcome {
            Outcome::Ready => {
                self.ready.insert(digest);
                return;
            }
            Outcome::Failed => {
                let pause_ms = RETRY_MS.saturating_mul(1 << tries.min(20)).min(RETRY_MS_MAX);
                Some(now_ms + pause_ms)
            }
            Outcome::Hopeless => None,
        };
        let tries = tries + 1;
        self.failed.insert(digest, Failure { tries, again_ms });
    }

    /// How many modules are still to be compiled, those that are tried again later included.
    pub fn waiting_len(&self) -> usize {
        let is_hopeless = |digest: &&Digest| {
            self.failed
                .get(digest)
                .is_some_and(|failure| failure.again_ms.is_none())
        };
        self.missing().filter(|digest| !is_hopeless(digest)).count()
    }

    fn missing(&self) -> impl Iterator<Item = &Digest> {
        self.wanted.iter().filter(|digest| !self.ready.contains(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(no: u8, bytes: u64) -> Head {
        Head {
            digest: Digest([no; 32]),
            bytes,
            published_at_ms: no.into(),
        }
    }

    fn nothing_is_ready(_: &Digest) -> bool {
        false
    }

    /// The numbers of what is compiled, in order, when everything works.
    fn compiled(ahead: &mut Ahead) -> Vec<u8> {
        let mut order = Vec::new();
        while let Some(digest) = ahead.next(0) {
            order.push(digest.0[0]);
            ahead.tried(0, digest, Outcome::Ready);
        }
        order
    }

    #[test]
    fn the_newest_come_first_and_what_has_no_room_is_left_out() {
        let mut ahead = Ahead::new(100);
        ahead.published(
            vec![head(1, 30), head(2, 60), head(3, 50), head(4, 10)],
            nothing_is_ready,
        );
        assert_eq!(ahead.waiting_len(), 3);
        assert_eq!(
            compiled(&mut ahead),
            [4, 3, 1],
            "the second does not fit beside the newer ones"
        );
        assert_eq!((ahead.waiting_len(), ahead.next_wake_ms()), (0, None));
        assert!(ahead.wants(&Digest([1; 32])) && !ahead.wants(&Digest([2; 32])));
        let mut none = Ahead::new(0);
        none.published(vec![head(1, 30)], nothing_is_ready);
        assert_eq!(none.next(0), None);
    }

    #[test]
    fn a_look_compiles_what_is_new_and_what_was_dropped() {
        let mut ahead = Ahead::new(100);
        ahead.published(vec![head(1, 10), head(2, 10)], nothing_is_ready);
        assert_eq!(compiled(&mut ahead), [2, 1]);
        ahead.published(vec![head(1, 10), head(2, 10), head(3, 10)], |digest| digest.0[0] == 2);
        assert_eq!(compiled(&mut ahead), [3, 1]);
        // A newer version of a name takes its place.
        ahead.published(vec![head(4, 10)], nothing_is_ready);
        assert!(!ahead.wants(&Digest([1; 32])));
        assert_eq!(compiled(&mut ahead), [4]);
    }

    #[test]
    fn what_fails_is_tried_again_ever_more_rarely_and_does_not_hold_up_the_rest() {
        let mut ahead = Ahead::new(100);
        ahead.published(vec![head(1, 10), head(2, 10)], nothing_is_ready);
        let bad = Digest([2; 32]);
        let mut now_ms = 0;
        let mut pauses = Vec::new();
        for _ in 0..11 {
            assert_eq!(ahead.next(now_ms), Some(bad));
            ahead.tried(now_ms, bad, Outcome::Failed);
            // The other one has its turn meanwhile.
            assert_eq!(ahead.next(now_ms), Some(Digest([1; 32])));
            let wake_ms = ahead.next_wake_ms().unwrap();
            pauses.push(wake_ms - now_ms);
            // A look in between changes nothing about that.
            ahead.published(vec![head(1, 10), head(2, 10)], nothing_is_ready);
            assert_eq!(ahead.next_wake_ms(), Some(wake_ms));
            now_ms = wake_ms;
        }
        assert_eq!(pauses[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(pauses[10], RETRY_MS_MAX);
        ahead.tried(now_ms, bad, Outcome::Hopeless);
        ahead.tried(now_ms, Digest([1; 32]), Outcome::Ready);
        assert_eq!(
            (ahead.next(u64::MAX), ahead.next_wake_ms(), ahead.waiting_len()),
            (None, None, 0)
        );
        // Published anew after it was gone, it gets another chance.
        ahead.published(vec![head(1, 10)], nothing_is_ready);
        ahead.published(vec![head(2, 10)], nothing_is_ready);
        assert_eq!(ahead.next(now_ms), Some(bad));
    }
}
