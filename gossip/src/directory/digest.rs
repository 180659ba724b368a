//! How a holder and a home find out cheaply whether they know the same entries: each sums up what it knows of the other in a fixed
//! number of buckets, and only the sums travel while they agree. A flat Merkle tree of one level, as anti-entropy in Dynamo uses
//! deeper ones (DeCandia et al., 2007): with some thousand entries between two nodes a second level would save nothing.
//!
//! A sum is the count and the wrapping sum of a 64-bit hash of (key, generation, version), so an entry is put in or taken out in constant time.
//! Two different sets agree by chance once in 2^64, and then only until the next change.
#![deny(clippy::disallowed_methods)]

use super::Key;

/// Of 10,000 entries between two nodes, 160 are in each: that many are named when one of them differs.
pub(super) const BUCKETS: usize = 64;

/// The bucket of a key: the first bits that are as good as random, so that the keys of a class and bucket lie side by side.
pub(super) fn bucket(key: Key) -> u8 {
    key.bytes()[1] >> 2
}

/// How many entries, and the sum of their hashes.
pub(super) type Sum = (u32, u64);

/// What one node knows of another's entries, in sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    sums: Box<[Sum; BUCKETS]>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            sums: Box::new([(0, 0); BUCKETS]),
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, key: Key, generation: u64, version: u64) {
        let (count, hash) = &mut self.sums[usize::from(bucket(key))];
        *count += 1;
        *hash = hash.wrapping_add(fingerprint(key, generation, version));
    }

    pub(super) fn remove(&mut self, key: Key, generation: u64, version: u64) {
        let (count, hash) = &mut self.sums[usize::from(bucket(key))];
        *count -= 1;
        *hash = hash.wrapping_sub(fingerprint(key, generation, version));
    }

    pub(super) fn clear(&mut self) {
        self.sums.fill((0, 0));
    }

    pub(super) fn total(&self) -> Sum {
        self.sums.iter().fold((0, 0), |(counts, hashes), (count, hash)| {
            (counts + count, hashes.wrapping_add(*hash))
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total().0 == 0
    }

    pub(super) fn sums(&self) -> Vec<Sum> {
        self.sums.to_vec()
    }
}

/// Twice the finaliser of splitmix64. Both ends must come to the same number in every version.
fn fingerprint(key: Key, generation: u64, version: u64) -> u64 {
    let bytes = key.bytes();
    let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
    let first = mix(half(0) ^ generation.rotate_left(17));
    mix(first ^ half(8) ^ mix(version))
}

fn mix(mut mixed: u64) -> u64 {
    mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_number_of_an_entry_is_the_same_in_every_version() {
        assert_eq!(fingerprint(Key::new(1, b"x"), 2, 3), 10_031_235_579_838_229_949);
    }

    proptest! {
        /// Whatever the order, equal sets have equal sums, and taking all out leaves nothing.
        #[test]
        fn sums_are_of_sets(entries in prop::collection::btree_set((0u8..40, 0u64..3, 0u64..5), 0..60), skipped in 0usize..60) {
            let put = |tally: &mut Tally, (name, generation, version): &(u8, u64, u64)| {
                tally.add(Key::new(1, &[*name]), *generation, *version);
            };
            let (mut forth, mut back) = (Tally::default(), Tally::default());
            entries.iter().for_each(|entry| put(&mut forth, entry));
            entries.iter().rev().for_each(|entry| put(&mut back, entry));
            prop_assert_eq!(&forth, &back);
            prop_assert_eq!(forth.total().0 as usize, entries.len());
            if let Some((name, generation, version)) = entries.iter().nth(skipped) {
                back.remove(Key::new(1, &[*name]), *generation, *version);
                prop_assert_ne!(forth.total(), back.total());
            }
            for (name, generation, version) in &entries {
                forth.remove(Key::new(1, &[*name]), *generation, *version);
            }
            prop_assert_eq!(forth, Tally::default());
        }
    }
}
