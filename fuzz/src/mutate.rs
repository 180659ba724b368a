//! New inputs from old ones. Bytes are flipped, cut, copied and spliced, numbers put at their borders, words from a dictionary put
//! in; inputs with a shape are half of the time mutated as trees.

use std::collections::BTreeSet;

use crate::target::Shape;
use crate::tree::Tree;

/// Words that are taken from the seeds.
const WORDS_MAX: usize = 2_000;
const WORD_LEN: std::ops::RangeInclusive<usize> = 2..=40;

/// A stream of numbers that a seed determines (SplitMix64, Steele, Lea and Flood 2014), so that a worker can be run again.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.draw()) * bound as u128) >> 64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn byte(&mut self) -> u8 {
        self.draw() as u8
    }
}

/// Mutates the inputs of one target.
#[derive(Debug)]
pub struct Mutator {
    shape: Shape,
    len_max: usize,
    words: Vec<Vec<u8>>,
}

impl Mutator {
    /// Learns its words from well-formed inputs.
    pub fn new(shape: Shape, len_max: usize, seeds: &[Vec<u8>]) -> Self {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:/-@".contains(byte);
        let words: BTreeSet<&[u8]> = seeds
            .iter()
            .flat_map(|seed| seed.split(|byte| !is_word(byte)))
            .filter(|word| WORD_LEN.contains(&word.len()))
            .take(WORDS_MAX)
            .collect();
        Self {
            shape,
            len_max,
            words: words.into_iter().map(<[u8]>::to_vec).collect(),
        }
    }

    /// Returns a changed copy of `input`; `other` is an input to take parts from.
    pub fn mutate(&self, input: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
        let mut out = self
            .as_tree(input, other, chance)
            .unwrap_or_else(|| self.as_bytes(input, other, chance));
        out.truncate(self.len_max);
        out
    }

    fn as_tree(&self, input: &[u8], other: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
        if matches!(self.shape, Shape::Bytes | Shape::Text) || chance.one_in(3) {
            return None;
        }
        let mut tree = Tree::read(self.shape, input)?;
        let other = Tree::read(self.shape, other);
        for _ in 0..1 + chance.below(3) {
            tree.mutate(self.shape, other.as_ref(), chance);
        }
        let mut out = Vec::new();
        tree.write(self.shape, &mut out);
        if chance.one_in(8) {
            self.change(&mut out, input, chance);
        }
        Some(out)
    }

    fn as_bytes(&self, input: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
        let mut out = input.to_vec();
        for _ in 0..1 << chance.below(4) {
            self.change(&mut out, other, chance);
        }
        out
    }

    /// Makes one change.
    fn change(&self, out: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
        if out.is_empty() {
            out.extend((0..1 + chance.below(8)).map(|_| chance.byte()));
            return;
        }
        let at = chance.below(out.len());
        match chance.below(13) {
            0 => out[at] ^= 1 << chance.below(8),
            1 => out[at] = chance.byte(),
            2 => out[at] = out[at].wrapping_add(chance.below(33) as u8).wrapping_sub(16),
            3 => border(&mut out[at..], chance),
            4 => {
                let end = at + 1 + chance.below((out.len() - at).min(64));
                out.drain(at..end.min(out.len()));
            }
            5 => out.truncate(at),
            6 => {
                // A piece of itself again, at another place.
                let end = out.len().min(at + 1 + chance.below(128));
                let piece = out[at..end].to_vec();
                insert(out, chance, &piece);
            }
            7 => {
                let piece: Vec<u8> = (0..1 + chance.below(16)).map(|_| chance.byte()).collect();
                insert(out, chance, &piece);
            }
            8 if !other.is_empty() => {
                let from = chance.below(other.len());
                let end = other.len().min(from + 1 + chance.below(128));
                insert(out, chance, &other[from..end]);
            }
            9 if !other.is_empty() => {
                // The beginning of one and the end of the other.
                out.truncate(at);
                out.extend_from_slice(&other[chance.below(other.len())..]);
            }
            10 if !other.is_empty() => {
                let from = chance.below(other.len());
                let len = (other.len() - from).min(out.len() - at).min(1 + chance.below(32));
                out[at..at + len].copy_from_slice(&other[from..from + len]);
            }
            11 if self.shape == Shape::Text => {
                const MARKS: &[u8] = b".:,;/\\|-_=+\"'[]{}()<>@#%&?! \t\r\n0129azAZ\0\x7f";
                out[at] = MARKS[chance.below(MARKS.len())];
            }
            _ if !self.words.is_empty() => {
                let word = &self.words[chance.below(self.words.len())];
                match chance.one_in(2) {
                    true => insert(out, chance, word),
                    false => {
                        let end = out.len().min(at + word.len());
                        out.splice(at..end, word.iter().copied());
                    }
                }
            }
            _ => out[at] = !out[at],
        }
    }
}

fn insert(out: &mut Vec<u8>, chance: &mut Chance, piece: &[u8]) {
    let at = chance.below(out.len() + 1);
    out.splice(at..at, piece.iter().copied());
}

/// Puts a number at a border of its range, in one of the widths and orders of bytes that formats use.
fn border(bytes: &mut [u8], chance: &mut Chance) {
    const BORDERS: &[u64] = &[
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0x100,
        0x7fff,
        0x8000,
        0xffff,
        0x1_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        i64::MAX as u64,
        i64::MIN as u64,
        u64::MAX,
        u64::MAX - 1,
    ];
    let value = BORDERS[chance.below(BORDERS.len())];
    let width = (1 << chance.below(4)).min(bytes.len());
    if chance.one_in(2) {
        bytes[..width].copy_from_slice(&value.to_le_bytes()[..width]);
    } else {
        bytes[..width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_every_mutation() {
        let seeds = [br#"{"type":"match.join","id":7}"#.to_vec(), b"[1,2,3]".to_vec()];
        let mutator = Mutator::new(Shape::Json, 1_000, &seeds);
        let run = |seed| {
            let mut chance = Chance::new(seed);
            (0..200)
                .map(|_| mutator.mutate(&seeds[0], &seeds[1], &mut chance))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn mutations_change_nearly_always_and_stay_within_the_length() {
        let seed = b"some.words here and:there".to_vec();
        for shape in [Shape::Bytes, Shape::Text, Shape::Json, Shape::MsgPack] {
            let mutator = Mutator::new(shape, 40, std::slice::from_ref(&seed));
            let mut chance = Chance::new(3);
            let changed = (0..1_000)
                .map(|_| mutator.mutate(&seed, &seed, &mut chance))
                .inspect(|out| assert!(out.len() <= 40))
                .filter(|out| *out != seed);
            assert!(changed.count() > 900);
        }
    }

    #[test]
    fn nothing_is_a_fine_input() {
        let mutator = Mutator::new(Shape::Bytes, 10, &[]);
        let mut chance = Chance::new(3);
        assert!((0..100).any(|_| !mutator.mutate(&[], &[], &mut chance).is_empty()));
    }
}
