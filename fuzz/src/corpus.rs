//! The inputs that are worth mutating: each reached something that none before it did.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::coverage;
use crate::execute::execute;
use crate::mutate::Chance;
use crate::target::Target;

/// What is kept of a target's inputs in the repository.
const KEPT_FILES_MAX: usize = 100;
const KEPT_BYTES_MAX: usize = 40 << 10;
/// Longer ones are left out: the same edges are nearly always reached by a shorter one.
const KEPT_LEN_MAX: usize = 1 << 10;

/// Inputs and what they reached together.
#[derive(Debug)]
pub struct Corpus {
    inputs: Vec<Vec<u8>>,
    /// Of each counter, which of its classes were seen.
    seen: Vec<u8>,
    edges: usize,
}

impl Default for Corpus {
    fn default() -> Self {
        Self {
            inputs: Vec::new(),
            seen: vec![0; coverage::len()],
            edges: 0,
        }
    }
}

impl Corpus {
    /// Takes note of the last run and keeps its input if it reached something new; says whether it did.
    pub fn judge(&mut self, input: &[u8]) -> bool {
        let mut news = false;
        let (seen, edges) = (&mut self.seen, &mut self.edges);
        coverage::for_each_taken(|edge, class| {
            let before = seen[edge];
            if before & class == 0 {
                news = true;
                *edges += usize::from(before == 0);
                seen[edge] = before | class;
            }
        });
        if news {
            self.inputs.push(input.to_vec());
        }
        news
    }

    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// How many edges were taken by any input.
    pub fn edges(&self) -> usize {
        self.edges
    }

    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// Picks an input to mutate: the newest ones, at the border of what was reached, as often as all others.
    pub fn pick(&self, chance: &mut Chance) -> &[u8] {
        let len = self.inputs.len();
        let newest = (len / 8).clamp(1, 32);
        let index = match chance.one_in(2) {
            true => len - 1 - chance.below(newest),
            false => chance.below(len),
        };
        &self.inputs[index]
    }

    /// Picks an input to take parts from.
    pub fn pick_other(&self, chance: &mut Chance) -> &[u8] {
        &self.inputs[chance.below(self.inputs.len())]
    }

    /// Chooses few short inputs that take most of the edges, as far as the bounds of what is kept allow: again and again the one that
    /// brings the most new edges for its length.
    pub fn choose(&self, target: &Target) -> Vec<Vec<u8>> {
        let mut candidates: Vec<(&Vec<u8>, Vec<usize>)> = Vec::new();
        for input in self.inputs.iter().filter(|input| input.len() <= KEPT_LEN_MAX) {
            if execute(target, input).is_ok() {
                let mut edges = Vec::new();
                coverage::for_each_taken(|edge, _| edges.push(edge));
                candidates.push((input, edges));
            }
        }
        let mut taken = vec![false; coverage::len()];
        let (mut kept, mut bytes) = (Vec::new(), 0);
        while kept.len() < KEPT_FILES_MAX {
            candidates
                .iter_mut()
                .for_each(|(_, edges)| edges.retain(|edge| !taken[*edge]));
            candidates.retain(|(input, edges)| !edges.is_empty() && bytes + input.len() <= KEPT_BYTES_MAX);
            // A file costs something beside its bytes.
            let worth = |(input, edges): &&(&Vec<u8>, Vec<usize>)| (edges.len() << 16) / (input.len() + 64);
            let Some((input, edges)) = candidates.iter().max_by_key(worth) else {
                break;
            };
            edges.iter().for_each(|edge| taken[*edge] = true);
            bytes += input.len();
            kept.push((*input).clone());
        }
        kept
    }
}

/// Writes what is kept of a target, each input under a name made of its content. Files named `found-…` were findings and stay.
pub fn write(dir: &Path, inputs: &[Vec<u8>]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        if !file.file_name().to_string_lossy().starts_with("found-") {
            std::fs::remove_file(file.path())?;
        }
    }
    inputs
        .iter()
        .try_for_each(|input| std::fs::write(dir.join(name(input)), input))
}

/// A file name made of the content (FNV-1a), so that the same input is the same file everywhere.
pub fn name(input: &[u8]) -> String {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Counts what happens while a target runs.
#[derive(Debug)]
pub struct Tally {
    pub began: Instant,
    pub executions: u64,
    /// Findings by where they were.
    pub findings: BTreeMap<String, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            executions: 0,
            findings: BTreeMap::new(),
        }
    }
}

impl Tally {
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_the_content() {
        assert_eq!(name(b""), "cbf29ce484222325");
        assert_ne!(name(b"a"), name(b"b"));
    }

    #[test]
    fn writing_replaces_what_was_kept_but_not_what_was_found() {
        let dir = std::env::temp_dir().join(format!("rookery-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("found-overflow"), "x").unwrap();
        std::fs::write(dir.join("0123456789abcdef"), "x").unwrap();
        write(&dir, &[b"one".to_vec()]).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [name(b"one"), "found-overflow".to_owned()]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
