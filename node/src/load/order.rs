//! Whether a stream of numbered messages arrived whole: each number once, in order. One [`Stream`] for each (receiver, sender). It
//! counts and never stops, so that a run says how bad it was.

use std::collections::BTreeSet;

/// What was wrong with what arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) out_of_order: u64,
}

impl Faults {
    /// Adds another stream's faults to these.
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
    }
}

/// Messages numbered from 0, from one sender to one receiver.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    next: u64,
    /// Numbers below `next` that have not come. Empty on every good run, and then it owns no memory.
    missing: BTreeSet<u64>,
    doubled: u64,
    out_of_order: u64,
}

impl Stream {
    /// Takes the number of a message that arrived.
    pub(crate) fn arrived(&mut self, number: u64) {
        if number == self.next {
            self.next += 1;
        } else if number > self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.out_of_order += 1;
        } else {
            self.doubled += 1;
        }
    }

    /// How many different messages have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.next - self.missing.len() as u64
    }

    /// The verdict when `sent` messages were sent and no more will come.
    pub(crate) fn faults(&self, sent: u64) -> Faults {
        Faults {
            lost: sent.saturating_sub(self.received()),
            doubled: self.doubled,
            out_of_order: self.out_of_order,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn faults(arrivals: &[u64], sent: u64) -> (u64, u64, u64) {
        let mut stream = Stream::default();
        arrivals.iter().for_each(|number| stream.arrived(*number));
        let Faults {
            lost,
            doubled,
            out_of_order,
        } = stream.faults(sent);
        (lost, doubled, out_of_order)
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        assert_eq!(faults(&[0, 1, 2], 3), (0, 0, 0));
        assert_eq!(faults(&[0, 1], 3), (1, 0, 0));
        assert_eq!(faults(&[0, 2], 3), (1, 0, 0));
        assert_eq!(faults(&[0, 1, 1, 2], 3), (0, 1, 0));
        assert_eq!(faults(&[0, 2, 1], 3), (0, 0, 1));
        assert_eq!(faults(&[0, 2, 1, 1], 3), (0, 1, 1));
        assert_eq!(faults(&[], 0), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn a_stream_is_clean_only_when_it_is_whole(arrivals in proptest::collection::vec(0u64..6, 0..8), sent in 0u64..6) {
            let arrivals: Vec<u64> = arrivals.into_iter().filter(|number| *number < sent).collect();
            let whole = arrivals == (0..sent).collect::<Vec<_>>();
            prop_assert_eq!(faults(&arrivals, sent) == (0, 0, 0), whole);
        }
    }
}
