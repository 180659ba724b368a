//! What is fuzzed: a function over bytes, and what its inputs look like.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// What well-formed inputs are, so that mutations can keep them well-formed more often than chance would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Bytes,
    /// Text in which words matter more than bits.
    Text,
    Json,
    MsgPack,
}

/// What a run of a decoder may take of the processor. Inputs are at most 64 KiB, which a sound decoder reads in about a millisecond; the
/// build counts edges and is optimised little.
pub const DECODED_WITHIN: Duration = Duration::from_millis(150);

/// One thing that is fuzzed.
#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    /// Which bytes it reads, and from whom.
    pub about: &'static str,
    pub shape: Shape,
    /// The longest input, in bytes: what the server bounds such bytes to, or less where length brings nothing.
    pub len_max: usize,
    /// How much memory a run may take: so many bytes for each byte of input, and so many more.
    pub memory: Memory,
    /// How much processor time a run may take.
    pub time_max: Duration,
    /// Well-formed inputs to begin with, beside the kept corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
}

/// A bound of what a run takes at its peak.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub per_byte: usize,
    pub fixed: usize,
}

impl Memory {
    /// What a decoder may take: a small multiple of its input, since a value in memory is larger than on the wire. And some: for each
    /// list that is under way, serde reserves up to 1 MiB on the word of its length.
    pub const DECODER: Memory = Memory {
        per_byte: 64,
        fixed: 8 << 20,
    };

    /// Returns the bound for an input of this length.
    pub fn bound(&self, len: usize) -> usize {
        self.per_byte * len + self.fixed
    }
}

impl Target {
    /// Returns where the kept corpus of this target is, below the directory of all of them.
    pub fn corpus_dir(&self, corpus: &Path) -> PathBuf {
        corpus.join(self.name)
    }

    /// Returns the kept corpus, in the order of its files' names.
    pub fn kept(&self, corpus: &Path) -> Vec<Vec<u8>> {
        let Ok(files) = std::fs::read_dir(self.corpus_dir(corpus)) else {
            return Vec::new();
        };
        let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        paths.into_iter().filter_map(|path| std::fs::read(path).ok()).collect()
    }

    /// Runs the seeds and the kept corpus, as a test: inputs that once were findings stay fixed.
    pub fn replay(&self, corpus: &Path) -> usize {
        let inputs: Vec<Vec<u8>> = (self.seeds)().into_iter().chain(self.kept(corpus)).collect();
        inputs.iter().for_each(|input| (self.run)(input));
        inputs.len()
    }
}
