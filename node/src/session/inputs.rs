//! The inputs of one seat at its gateway: what the owner has not acknowledged is kept, to be said again to this owner or the
//! next one.
//!
//! Pure. Invariants: what is kept is dense (`acked + 1`, `acked + 2`, …) and within [`KEPT_BYTES_MAX`]; an input that was
//! refused does not use up its number, and nothing above it is taken until it comes again.

#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use bytes::Bytes;

/// Unacknowledged payload bytes kept for one seat. More are refused as for rate: one waiting match must not stop the
/// session's others.
pub const KEPT_BYTES_MAX: usize = 64 * 1_024;

/// Counted for each kept input besides its payload, so that empty payloads are bounded too.
const KEPT_OVERHEAD: usize = 64;

/// Further requests that wait for the answer to one input. A client repeats one now and then; who does nothing else is refused.
const REPEATS_MAX: usize = 8;

/// An input that waits for its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub n: u64,
    /// The client's request number, if it wants an answer.
    pub id: Option<i64>,
    /// The numbers of requests that repeated it meanwhile: each has its one answer.
    repeats: Vec<i64>,
    pub data: Bytes,
}

impl Kept {
    /// The numbers of all requests that are answered when this is applied, or when it is not.
    pub fn ids(&self) -> impl Iterator<Item = i64> + '_ {
        self.id.into_iter().chain(self.repeats.iter().copied())
    }
}

/// What to do with a numbered input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is kept now: send it to the owner.
    Taken,
    /// It was applied before.
    Applied,
    /// It is on its way already; whoever asked again is answered with it.
    Underway,
    /// It is on its way already, and was repeated so often that this request is not noted.
    Repeated,
    /// Numbers before it are missing: the client is to send again from `expected`. `tell` is set the first time.
    Missing { expected: u64, tell: bool },
    /// Too much waits for acknowledgement.
    Full,
}

/// The numbered inputs of one seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    acked: u64,
    /// The client was told to send again from here and has not yet.
    asked: bool,
}

impl Inputs {
    /// Inputs that go on after `n`.
    pub fn after(n: u64) -> Self {
        Self {
            kept: VecDeque::new(),
            kept_bytes: 0,
            acked: n,
            asked: false,
        }
    }

    /// The number that comes next.
    pub fn expected(&self) -> u64 {
        self.kept.back().map_or(self.acked, |kept| kept.n) + 1
    }

    /// All up to here were applied.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Takes an input, or says why not.
    pub fn offer(&mut self, n: u64, id: Option<i64>, data: Bytes) -> Offer {
        let expected = self.expected();
        if n <= self.acked {
            return Offer::Applied;
        }
        if n < expected {
            return self.repeat(n, id);
        }
        if n > expected {
            return Offer::Missing {
                expected,
                tell: !std::mem::replace(&mut self.asked, true),
            };
        }
        let bytes = data.len() + KEPT_OVERHEAD;
        if self.kept_bytes + bytes > KEPT_BYTES_MAX && !self.kept.is_empty() {
            return Offer::Full;
        }
        self.asked = false;
        self.kept_bytes += bytes;
        let repeats = Vec::new();
        self.kept.push_back(Kept { n, id, repeats, data });
        Offer::Taken
    }

    fn repeat(&mut self, n: u64, id: Option<i64>) -> Offer {
        let (Some(id), Some(kept)) = (id, self.kept.iter_mut().find(|kept| kept.n == n)) else {
            return Offer::Underway;
        };
        if kept.repeats.len() == REPEATS_MAX {
            return Offer::Repeated;
        }
        kept.repeats.push(id);
        Offer::Underway
    }

    /// The client knows that it is to send again from [`Inputs::expected`]: no need to say so for each higher number.
    pub fn told(&mut self) {
        self.asked = true;
    }

    /// Everything up to `n` was applied. Returns what is no longer kept, in order.
    pub fn acknowledge(&mut self, n: u64) -> impl Iterator<Item = Kept> + '_ {
        self.acked = self.acked.max(n);
        std::iter::from_fn(move || {
            let first = self.kept.pop_front_if(|kept| kept.n <= n)?;
            self.kept_bytes -= first.data.len() + KEPT_OVERHEAD;
            Some(first)
        })
    }

    /// The match logic failed on input `n`, which will be acknowledged like the others. Returns the numbers of the requests that
    /// are answered by this.
    pub fn failed(&mut self, n: u64) -> Vec<i64> {
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.n == n) else {
            return Vec::new();
        };
        let ids = kept.ids().collect();
        kept.id = None;
        kept.repeats.clear();
        ids
    }

    /// Goes on after `n`, whatever was kept: the match was restored from less, or forgot the seat.
    pub fn restart(&mut self, n: u64) {
        *self = Self::after(n);
    }

    /// What the owner has not acknowledged, in order.
    pub fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter()
    }

    /// The numbers of all requests that wait for an answer.
    pub fn ids(&self) -> impl Iterator<Item = i64> + '_ {
        self.kept.iter().flat_map(Kept::ids)
    }

    /// Whether an input of this size would be taken.
    pub fn has_room(&self) -> bool {
        self.kept.is_empty() || self.kept_bytes < KEPT_BYTES_MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data() -> Bytes {
        Bytes::from_static(b"x")
    }

    #[test]
    fn numbers_are_taken_in_order_and_each_once() {
        let mut inputs = Inputs::after(0);
        assert_eq!(
            inputs.offer(2, None, data()),
            Offer::Missing {
                expected: 1,
                tell: true
            }
        );
        assert_eq!(
            inputs.offer(3, None, data()),
            Offer::Missing {
                expected: 1,
                tell: false
            }
        );
        assert_eq!(inputs.offer(1, Some(7), data()), Offer::Taken);
        assert_eq!(inputs.offer(1, None, data()), Offer::Underway);
        assert_eq!(
            inputs.offer(3, None, data()),
            Offer::Missing {
                expected: 2,
                tell: true
            }
        );
        assert_eq!(inputs.offer(2, None, data()), Offer::Taken);
        let freed: Vec<_> = inputs.acknowledge(1).map(|kept| (kept.n, kept.id)).collect();
        assert_eq!(freed, [(1, Some(7))]);
        assert_eq!(inputs.offer(1, None, data()), Offer::Applied);
        assert_eq!(inputs.kept().map(|kept| kept.n).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_is_kept_is_bounded_and_one_large_input_is_still_taken() {
        let mut inputs = Inputs::after(0);
        let large = Bytes::from(vec![0; KEPT_BYTES_MAX]);
        assert_eq!(inputs.offer(1, None, large), Offer::Taken);
        assert_eq!(inputs.offer(2, None, data()), Offer::Full);
        assert_eq!(inputs.acknowledge(1).count(), 1);
        assert_eq!(inputs.offer(2, None, data()), Offer::Taken);
    }

    #[test]
    fn each_request_that_repeats_an_input_is_answered_with_it() {
        let mut inputs = Inputs::after(0);
        assert_eq!(inputs.offer(1, None, data()), Offer::Taken);
        for id in 0..8 {
            assert_eq!(inputs.offer(1, Some(id), data()), Offer::Underway);
        }
        assert_eq!(inputs.offer(1, Some(8), data()), Offer::Repeated);
        assert_eq!(inputs.offer(1, None, data()), Offer::Underway);
        assert!(inputs.ids().eq(0..8));
        let ids: Vec<i64> = inputs
            .acknowledge(1)
            .flat_map(|kept| kept.ids().collect::<Vec<_>>())
            .collect();
        assert!(ids.into_iter().eq(0..8));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_dense(steps in prop::collection::vec((0u64..20, any::<bool>()), 0..200)) {
            let mut inputs = Inputs::after(0);
            for (n, is_ack) in steps {
                if is_ack {
                    let n = n.min(inputs.expected() - 1);
                    inputs.acknowledge(n).for_each(drop);
                } else {
                    inputs.offer(n, None, data());
                }
                let kept: Vec<u64> = inputs.kept().map(|kept| kept.n).collect();
                let dense: Vec<u64> = (inputs.acked() + 1..inputs.expected()).collect();
                prop_assert_eq!(kept, dense);
            }
        }
    }
}
