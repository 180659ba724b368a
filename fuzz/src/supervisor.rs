//! Runs workers, a few at a time, and says in a table what came of them. A worker that dies leaves the input that it died of,
//! which is a finding, and the target goes on in a new worker for what is left of its time.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::execute::Fault;
use crate::worker::{self, Stats};

/// Deaths after which a target is given up.
const DEATHS_MAX: u64 = 4;

#[derive(Debug, Args)]
pub struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How many run at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only these targets.
    #[arg(long = "target")]
    targets: Vec<String>,
    /// Determines all mutations; drawn from the clock when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Writes a small choice of the inputs that reached something back into the corpus.
    #[arg(long)]
    keep: bool,
    /// Another binary with targets, run along with those of this one.
    #[arg(long = "with")]
    others: Vec<PathBuf>,
    #[arg(long, default_value = "fuzz/corpus")]
    corpus: PathBuf,
    #[arg(long, default_value = "fuzz/findings")]
    findings: PathBuf,
    #[arg(long, default_value = "target/fuzz-work")]
    work: PathBuf,
}

struct Job {
    program: PathBuf,
    target: String,
}

struct Row {
    target: String,
    stats: Stats,
}

/// Runs what was asked for; exit code 1 when anything was found, 64 when a target does not exist.
pub fn run(options: &Options) -> ExitCode {
    let Some(jobs) = jobs(options) else {
        return ExitCode::from(64);
    };
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs())
    });
    println!(
        "{} targets, {} s each, {} at a time, seed {seed}",
        jobs.len(),
        options.seconds,
        options.jobs
    );
    let (queue, rows) = (Mutex::new(VecDeque::from(jobs)), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(job) = queue.lock().expect("nothing panics under this lock").pop_front() else {
                        return;
                    };
                    let stats = supervise(&job, options, seed);
                    let row = Row {
                        target: job.target,
                        stats,
                    };
                    rows.lock().expect("nothing panics under this lock").push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("nothing panics under this lock");
    rows.sort_by(|a, b| a.target.cmp(&b.target));
    print(&rows);
    ExitCode::from(u8::from(
        rows.iter()
            .any(|row| row.stats.findings > 0 || row.stats.executions == 0),
    ))
}

fn jobs(options: &Options) -> Option<Vec<Job>> {
    let own = std::env::current_exe().ok()?;
    let mut jobs = Vec::new();
    for program in std::iter::once(&own).chain(&options.others) {
        let listed = Command::new(program).arg("list").output();
        let listed = match listed {
            Ok(listed) if listed.status.success() => String::from_utf8_lossy(&listed.stdout).into_owned(),
            Ok(_) | Err(_) => {
                eprintln!("{} does not list its targets", program.display());
                return None;
            }
        };
        jobs.extend(
            listed
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .map(|target| Job {
                    program: program.clone(),
                    target: target.to_owned(),
                }),
        );
    }
    if let Some(unknown) = options
        .targets
        .iter()
        .find(|wanted| !jobs.iter().any(|job| job.target == **wanted))
    {
        eprintln!("no target is called `{unknown}`; --list names them");
        return None;
    }
    if !options.targets.is_empty() {
        jobs.retain(|job| options.targets.contains(&job.target));
    }
    Some(jobs)
}

fn supervise(job: &Job, options: &Options, seed: u64) -> Stats {
    let began = Instant::now();
    let time = Duration::from_secs(options.seconds);
    let mut sum = Stats::default();
    for life in 0..=DEATHS_MAX {
        let left = time.saturating_sub(began.elapsed());
        if life > 0 && left < Duration::from_secs(1) {
            break;
        }
        let (stats, status) = work(job, options, left.as_secs().max(1), seed.wrapping_add(life));
        sum.executions += stats.executions;
        sum.milliseconds += stats.milliseconds;
        sum.edges = sum.edges.max(stats.edges);
        sum.corpus = sum.corpus.max(stats.corpus);
        sum.findings = sum.findings.max(stats.findings);
        let Some(status) = status else {
            eprintln!("{}: the worker did not start", job.target);
            sum.findings += 1;
            break;
        };
        if status.success() {
            break;
        }
        sum.findings += 1;
        note_death(job, options, status);
    }
    sum
}

fn work(job: &Job, options: &Options, seconds: u64, seed: u64) -> (Stats, Option<ExitStatus>) {
    let mut stats = Stats::default();
    let mut command = Command::new(&job.program);
    command
        .args([
            "worker",
            "--target",
            &job.target,
            "--seconds",
            &seconds.to_string(),
            "--seed",
            &seed.to_string(),
        ])
        .args([
            Path::new("--corpus"),
            &options.corpus,
            Path::new("--findings"),
            &options.findings,
        ])
        .args([Path::new("--work"), &options.work])
        .args(options.keep.then_some("--keep"))
        .stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return (stats, None);
    };
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            stats = Stats::read(&line).unwrap_or(stats);
        }
    }
    (stats, child.wait().ok())
}

fn note_death(job: &Job, options: &Options, status: ExitStatus) {
    let what = match (status.code(), status.signal()) {
        (Some(worker::HANGING), _) => "the input runs for ever".to_owned(),
        (_, Some(signal)) => format!("the process died of signal {signal}: a stack overflow, an abort, or no memory"),
        (Some(code), None) => format!("the process ended with code {code}"),
        (None, None) => "the process ended".to_owned(),
    };
    let fault = Fault {
        place: "the whole process".into(),
        what,
    };
    let input = worker::current_input(&options.work, &job.target).unwrap_or_default();
    if let Err(error) = worker::write_finding(&options.findings, &job.target, &input, &fault) {
        eprintln!("{}: {error}", options.findings.display());
    }
}

fn print(rows: &[Row]) {
    println!(
        "\n{:<20} {:>12} {:>9} {:>7} {:>7} {:>9}",
        "target", "executions", "execs/s", "edges", "corpus", "findings"
    );
    let mut sum = Stats::default();
    for Row { target, stats } in rows {
        let rate = stats.executions * 1_000 / stats.milliseconds.max(1);
        println!(
            "{target:<20} {:>12} {rate:>9} {:>7} {:>7} {:>9}",
            stats.executions, stats.edges, stats.corpus, stats.findings
        );
        sum.executions += stats.executions;
        sum.corpus += stats.corpus;
        sum.findings += stats.findings;
    }
    println!(
        "{:<20} {:>12} {:>9} {:>7} {:>7} {:>9}",
        "all", sum.executions, "", "", sum.corpus, sum.findings
    );
}
