//! A coverage-guided fuzzer for the stable toolchain: it mutates inputs, runs them through a decoder, and keeps those that reach
//! something new.
//!
//! `scripts/fuzz` builds our crates with LLVM's edge counters (`scripts/fuzz-rustc`), which [`coverage`] reads in process. A
//! **target** is a function that takes bytes and panics when a promise is broken; a **worker** is a process that runs one target
//! for a while; the **supervisor** starts workers, and starts them again when an input kills one.
//!
//! What counts as a finding: a panic (debug assertions and overflow checks are on), a death of the process (stack overflow, abort),
//! more memory than the target's bound, more time than [`worker`]'s limit. It is no sanitizer: our crates have no `unsafe` that it
//! would be needed for.

pub mod corpus;
pub mod coverage;
pub mod execute;
pub mod memory;
pub mod mutate;
pub mod supervisor;
pub mod target;
pub mod tree;
pub mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use crate::coverage::feature;
pub use crate::target::{Shape, Target};

#[derive(Debug, Parser)]
#[command(about = "Runs fuzz targets; scripts/fuzz builds this as it has to be built and calls it")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names the targets, one a line, with what each is about.
    List,
    /// Runs targets and prints a table; exit code 1 when there are findings.
    Run(supervisor::Options),
    /// Runs one target in this process.
    Worker(worker::Options),
    /// Runs one input and lets it fail as it fails.
    Reproduce { target: String, file: PathBuf },
}

/// Is the `main` of a binary of fuzz targets.
pub fn main(targets: &'static [Target]) -> ExitCode {
    let find = |name: &str| {
        let found = targets.iter().find(|target| target.name == name);
        if found.is_none() {
            eprintln!("no target is called `{name}`; `list` names them");
        }
        found
    };
    match Arguments::parse().command {
        Command::List => {
            for target in targets {
                println!("{:<20} {}", target.name, target.about);
            }
            ExitCode::SUCCESS
        }
        Command::Run(options) => supervisor::run(&options),
        Command::Worker(options) => {
            find(&options.target).map_or(ExitCode::from(64), |target| worker::run(target, &options))
        }
        Command::Reproduce { target, file } => {
            let Some(target) = find(&target) else {
                return ExitCode::from(64);
            };
            execute::reproduce(target, &file)
        }
    }
}
