//! A worker: one process that runs one target for a while. It prints how far it is, once a second, and writes findings as files.
//! Before each run its input is in the file `current`, so that whoever finds the process dead knows of what it died.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;

use crate::corpus::{self, Corpus, Tally};
use crate::coverage;
use crate::execute::{Fault, execute, note_panics};
use crate::mutate::{Chance, Mutator};
use crate::target::Target;

/// Targets run on a stack as large as the server's threads have, so that what would overflow there does so here.
const STACK_LEN: usize = 2 << 20;

/// A run that is not over after this time never will be, and the worker ends itself.
const HANG_AFTER: Duration = Duration::from_secs(20);

/// How a worker says that it ended itself because of a hang.
pub const HANGING: i32 = 70;

/// Different findings after which a target is not run any more.
const FINDINGS_MAX: usize = 8;

/// Runs that making a finding smaller may take.
const TRIM_RUNS_MAX: usize = 3_000;

/// How often progress is printed.
const REPORT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct Options {
    #[arg(long)]
    pub target: String,
    #[arg(long)]
    pub seconds: u64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the kept corpora are.
    #[arg(long)]
    pub corpus: PathBuf,
    /// Where findings are written.
    #[arg(long)]
    pub findings: PathBuf,
    /// Where the file of the current input is.
    #[arg(long)]
    pub work: PathBuf,
    /// Writes a choice of what was found worth keeping back into the corpus.
    #[arg(long)]
    pub keep: bool,
}

/// When the present run began, in milliseconds since the start, plus one; 0 between runs.
static RUNNING_SINCE: AtomicU64 = AtomicU64::new(0);

/// Runs the target until its time is over.
pub fn run(target: &'static Target, options: &Options) -> ExitCode {
    if coverage::edges_counted() == 0 {
        eprintln!("this build counts no edges; scripts/fuzz makes one that does");
        return ExitCode::from(64);
    }
    let began = Instant::now();
    std::thread::spawn(move || watch_for_hangs(began));
    std::thread::scope(|scope| {
        let fuzzing = std::thread::Builder::new()
            .stack_size(STACK_LEN)
            .spawn_scoped(scope, || Worker::new(target, options, began).and_then(Worker::run));
        match fuzzing.map(|fuzzing| fuzzing.join()) {
            Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
            Ok(Ok(Err(error))) | Err(error) => {
                eprintln!("{}: {error}", target.name);
                ExitCode::from(74)
            }
            Ok(Err(_)) => {
                eprintln!("{}: the fuzzer itself failed", target.name);
                ExitCode::from(75)
            }
        }
    })
}

fn watch_for_hangs(began: Instant) {
    loop {
        std::thread::sleep(HANG_AFTER / 20);
        let since = RUNNING_SINCE.load(Relaxed);
        let now = began.elapsed();
        if since != 0 && now > Duration::from_millis(since - 1) + HANG_AFTER {
            std::process::exit(HANGING);
        }
    }
}

struct Worker<'a> {
    target: &'static Target,
    options: &'a Options,
    began: Instant,
    current: File,
    corpus: Corpus,
    tally: Tally,
    reported: Instant,
}

impl<'a> Worker<'a> {
    fn new(target: &'static Target, options: &'a Options, began: Instant) -> std::io::Result<Self> {
        std::fs::create_dir_all(&options.work)?;
        note_panics();
        Ok(Self {
            target,
            options,
            began,
            current: File::create(current_file(&options.work, target.name))?,
            corpus: Corpus::default(),
            tally: Tally::default(),
            reported: Instant::now(),
        })
    }

    fn run(mut self) -> std::io::Result<()> {
        let seeds: Vec<Vec<u8>> = (self.target.seeds)()
            .into_iter()
            .chain(self.target.kept(&self.options.corpus))
            .chain([Vec::new()])
            .collect();
        let mutator = Mutator::new(self.target.shape, self.target.len_max, &seeds);
        let mut chance = Chance::new(self.options.seed);
        for seed in &seeds {
            self.try_input(seed)?;
        }
        if self.corpus.is_empty() {
            // Every seed is a finding; mutations of nothing are a beginning.
            self.corpus.judge(&[]);
        }
        let deadline = Duration::from_secs(self.options.seconds);
        while self.tally.elapsed() < deadline && self.tally.findings.len() < FINDINGS_MAX && !self.corpus.is_empty() {
            let input = mutator.mutate(
                self.corpus.pick(&mut chance),
                self.corpus.pick_other(&mut chance),
                &mut chance,
            );
            self.try_input(&input)?;
        }
        self.report();
        if self.options.keep {
            let chosen = self.corpus.choose(self.target);
            corpus::write(&self.target.corpus_dir(&self.options.corpus), &chosen)?;
        }
        Ok(())
    }

    fn try_input(&mut self, input: &[u8]) -> std::io::Result<()> {
        match self.execute(input)? {
            Ok(()) => {
                self.corpus.judge(input);
            }
            Err(fault) => self.finding(input, fault)?,
        }
        if self.reported.elapsed() > REPORT_EVERY {
            self.report();
        }
        Ok(())
    }

    fn execute(&mut self, input: &[u8]) -> std::io::Result<Result<(), Fault>> {
        let mut noted = u32::try_from(input.len())
            .expect("inputs are bounded")
            .to_le_bytes()
            .to_vec();
        noted.extend_from_slice(input);
        self.current.write_all_at(&noted, 0)?;
        RUNNING_SINCE.store(self.began.elapsed().as_millis() as u64 + 1, Relaxed);
        let outcome = execute(self.target, input);
        RUNNING_SINCE.store(0, Relaxed);
        self.tally.executions += 1;
        Ok(outcome)
    }

    fn finding(&mut self, input: &[u8], fault: Fault) -> std::io::Result<()> {
        let known = self.tally.findings.entry(fault.place.clone()).or_default();
        *known += 1;
        if *known > 1 {
            return Ok(());
        }
        let smaller = self.trim(input.to_vec(), &fault)?;
        write_finding(&self.options.findings, self.target.name, &smaller, &fault)
    }

    /// Cuts pieces out of a finding as long as it stays the same finding.
    fn trim(&mut self, mut input: Vec<u8>, fault: &Fault) -> std::io::Result<Vec<u8>> {
        let (mut piece, mut runs) = ((input.len() / 2).max(1), 0);
        loop {
            let mut at = 0;
            while at < input.len() && runs < TRIM_RUNS_MAX {
                let mut shorter = input.clone();
                shorter.drain(at..input.len().min(at + piece));
                runs += 1;
                match self.execute(&shorter)? {
                    Err(same) if same.place == fault.place => input = shorter,
                    Err(_) | Ok(()) => at += piece,
                }
            }
            if piece == 1 || runs >= TRIM_RUNS_MAX {
                return Ok(input);
            }
            piece /= 2;
        }
    }

    fn report(&mut self) {
        self.reported = Instant::now();
        let stats = Stats {
            executions: self.tally.executions,
            milliseconds: self.tally.elapsed().as_millis() as u64,
            edges: self.corpus.edges() as u64,
            corpus: self.corpus.len() as u64,
            findings: self.tally.findings.len() as u64,
        };
        println!("{}", stats.line());
    }
}

/// The file with the input that a worker runs: its length in four bytes, then it.
pub fn current_file(work: &Path, target: &str) -> PathBuf {
    work.join(format!("{target}.current"))
}

/// Reads the input that a worker died of.
pub fn current_input(work: &Path, target: &str) -> Option<Vec<u8>> {
    let noted = std::fs::read(current_file(work, target)).ok()?;
    let (len, rest) = noted.split_first_chunk()?;
    rest.get(..u32::from_le_bytes(*len) as usize).map(<[u8]>::to_vec)
}

/// Writes a finding, and beside it what it is and how to see it again.
pub fn write_finding(dir: &Path, target: &str, input: &[u8], fault: &Fault) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{target}-{}", corpus::name(input)));
    std::fs::write(&path, input)?;
    let mut about = File::create(path.with_extension("txt"))?;
    writeln!(about, "{}\nat {}\n", fault.what, fault.place)?;
    writeln!(about, "scripts/fuzz --reproduce {target} {}", path.display())?;
    eprintln!(
        "finding in {target}: {} at {}\n    scripts/fuzz --reproduce {target} {}",
        fault.what,
        fault.place,
        path.display()
    );
    Ok(())
}

/// What a worker says of itself, in one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub executions: u64,
    pub milliseconds: u64,
    pub edges: u64,
    pub corpus: u64,
    pub findings: u64,
}

impl Stats {
    pub fn line(&self) -> String {
        let Stats {
            executions,
            milliseconds,
            edges,
            corpus,
            findings,
        } = self;
        format!("stats {executions} {milliseconds} {edges} {corpus} {findings}")
    }

    pub fn read(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix("stats ")?.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        Some(Stats {
            executions: next()?,
            milliseconds: next()?,
            edges: next()?,
            corpus: next()?,
            findings: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_is_read_back() {
        let stats = Stats {
            executions: 1,
            milliseconds: 2,
            edges: 3,
            corpus: 4,
            findings: 5,
        };
        assert_eq!(Stats::read(&stats.line()), Some(stats));
        assert_eq!(Stats::read("stats 1 2"), None);
        assert_eq!(Stats::read("else"), None);
    }
}
