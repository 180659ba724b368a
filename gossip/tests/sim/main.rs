//! The mesh in virtual time: real `Cluster`s with real QUIC over a network in memory (`rookery_gossip::sim`), under whatever a seed makes
//! go wrong. Each seed runs in a process of its own, in which everything that is drawn at random comes from the seed, so that a seed
//! is a trace: it can be run again, step by step, with more logging.
//!
//! | | |
//! | --- | --- |
//! | `ROOKERY_SEED=17 cargo test -p rookery-gossip --test sim` | runs one seed and shows its plan and what the nodes log (`RUST_LOG`) |
//! | `ROOKERY_SIM_SEEDS=2000 cargo test -p rookery-gossip --test sim` | runs that many, as `scripts/test sim` does |
//!
//! `plan.rs` says what goes wrong, `promises.rs` what must hold all the while, and `world.rs` what must hold in the end.

mod entropy;
mod log;
mod node;
mod plan;
mod promises;
mod scenarios;
mod told;
mod world;

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plan::Plan;
use world::World;

/// How many seeds run when nobody says; a few, because these run beside all other tests.
const SEEDS: u64 = 30;

/// So many failures are enough to look at.
const FAILURES_MAX: usize = 5;

/// The test by which a seed runs in a process of its own, and the variable that says which one.
const CHILD: &str = "a_run_keeps_every_promise";
const CHILD_SEED: &str = "ROOKERY_SIM_CHILD";

/// Before the line that a run which kept its promises ends with.
const KEPT: &str = "kept: ";

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
    )
}

/// Runs a seed in a process of its own. Returns what it printed: the line about what it did, or all of it when a promise was broken.
fn run_apart(seed: u64) -> Result<String, String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_SEED, seed.to_string())
        .env_remove("ROOKERY_SEED")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let kept = printed.lines().find_map(|line| line.split_once(KEPT));
    match kept {
        Some((_, kept)) if output.status.success() => Ok(kept.to_owned()),
        Some(_) | None => Err(printed + &String::from_utf8_lossy(&output.stderr)),
    }
}

/// Runs one seed for somebody who looks on.
fn run_and_show(seed: u64) {
    print!("{}", Plan::draw(seed));
    let status = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_SEED, seed.to_string())
        .env("ROOKERY_SIM_SHOW", "1")
        .env_remove("ROOKERY_SEED")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "seed {seed} breaks a promise");
}

/// What it runs in this process is the one seed that it is told, or the first one.
#[test]
fn a_run_keeps_every_promise() {
    let seed = variable(CHILD_SEED).unwrap_or(0);
    log::begin(variable("ROOKERY_SIM_SHOW").is_some());
    // In a thread of its own, on which nothing has been drawn yet.
    let outcome = std::thread::spawn(move || {
        entropy::seed_this_thread(seed);
        World::new(Plan::draw(seed)).run()
    })
    .join()
    .unwrap();
    println!("{KEPT}{outcome}");
}

#[test]
fn a_seed_is_a_trace() {
    for seed in [3, 4] {
        assert_eq!(run_apart(seed), run_apart(seed));
    }
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = variable("ROOKERY_SEED") {
        return run_and_show(seed);
    }
    let first = variable("ROOKERY_SIM_FIRST").unwrap_or(0);
    let seeds = first..first + variable("ROOKERY_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let kept = Mutex::new(Vec::new());
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end || failures.lock().unwrap().len() >= FAILURES_MAX {
            return;
        }
        match run_apart(seed) {
            Ok(line) => kept.lock().unwrap().push(line),
            Err(printed) => {
                eprintln!("seed {seed} breaks a promise:\n{printed}");
                failures.lock().unwrap().push(seed);
            }
        }
    };
    let began = std::time::Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    println!("{}", summary(&kept.into_inner().unwrap(), began.elapsed()));
    assert!(
        failures.is_empty(),
        "seeds {failures:?} break a promise; ROOKERY_SEED={} cargo test -p rookery-gossip --test sim -- --nocapture",
        failures[0]
    );
}

/// What all runs did together.
fn summary(kept: &[String], took: Duration) -> String {
    let mut lines = Vec::new();
    for line in kept {
        let figures: Vec<u64> = line
            .split(' ')
            .filter_map(|word| word.split_once('='))
            .filter(|(name, _)| *name != "trace")
            .map(|(_, figure)| figure.parse().unwrap())
            .collect();
        lines.push(figures);
    }
    let Some(first) = kept.first() else {
        return "no run kept its promises".into();
    };
    let names = first
        .split(' ')
        .filter_map(|word| word.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| *name != "trace");
    let mut text = format!("{} runs in {:.1} s", kept.len(), took.as_secs_f64());
    for (column, name) in names.enumerate() {
        let mut figures: Vec<u64> = lines.iter().map(|line| line[column]).collect();
        figures.sort_unstable();
        let (sum, most): (u64, u64) = (figures.iter().sum(), figures[figures.len() - 1]);
        let median = figures[figures.len() / 2];
        text += &format!("\n{name:>20}: {sum} in all, {median} in the middle, {most} at most");
    }
    text
}
