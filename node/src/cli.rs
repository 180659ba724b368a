//! The commands of the `rookery` binary: what may be written after its name, and how a command ends. Each command is a file.
//!
//! A command says what it was asked for on stdout; errors go to stderr and name the remedy. It exits with 0, with 64 for wrong
//! usage or configuration, and with 1 for everything else that went wrong.

pub mod build;
mod building;
mod call;
mod config;
mod content;
mod demo;
mod dev;
mod drain;
mod health;
mod load;
mod matches;
mod mesh;
mod module;
mod new;
mod node;
pub(crate) mod operator;
mod records;
mod replay;
pub(crate) mod secret;
mod table;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use self::node::ready_line;
use crate::config::Faults;
use crate::log::{LevelError, LogFormat};

/// `EX_USAGE` of sysexits.h: the command line or the configuration is wrong.
pub const EXIT_USAGE: u8 = 64;

/// A multiplayer game server: one process, or a cluster of equal ones.
#[derive(Debug, Parser)]
#[command(name = "rookery", version, after_help = "Example:\n  rookery demo")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Dev(dev::Dev),
    Node(node::Node),
    Secret(secret::Secret),
    Config(config::Config),
    Status(mesh::Status),
    Drain(drain::Drain),
    Health(health::Health),
    Join(mesh::Join),
    Module(module::Module),
    Match(matches::Match),
    Records(records::Records),
    Content(content::Content),
    New(new::New),
    Build(building::Build),
    Sdk(new::Sdk),
    Call(call::Call),
    Load(load::Load),
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(command) => command.run(),
            Self::Dev(command) => command.run(),
            Self::Node(command) => command.run(),
            Self::Secret(command) => command.run(),
            Self::Config(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Drain(command) => command.run(),
            Self::Health(command) => command.run(),
            Self::Join(command) => command.run(),
            Self::Module(command) => command.run(),
            Self::Match(command) => command.run(),
            Self::Records(command) => command.run(),
            Self::Content(command) => command.run(),
            Self::New(command) => command.run(),
            Self::Build(command) => command.run(),
            Self::Sdk(command) => command.run(),
            Self::Call(command) => command.run(),
            Self::Load(command) => command.run(),
        }
    }
}

/// Options of commands that run nodes.
#[derive(Debug, Clone, clap::Args)]
struct LogOptions {
    /// How log lines are written, on stderr.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged: a level, or levels by target such as `warn,rookery=debug`. The variable ROOKERY_LOG says it too.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl LogOptions {
    /// The level of the flag, of the variable, or this one.
    fn level_or(&self, default: &str) -> String {
        let variable = || std::env::var("ROOKERY_LOG").ok().filter(|level| !level.is_empty());
        self.log_level
            .clone()
            .or_else(variable)
            .unwrap_or_else(|| default.into())
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, and go to stdout; a closed pipe is no reason to fail.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn report(error: &anyhow::Error) {
    match error.downcast_ref::<Faults>() {
        Some(faults) => faults
            .iter()
            .for_each(|fault| eprintln!("rookery: configuration: {fault}")),
        None => eprintln!("rookery: {error:#}"),
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let is_usage = error.is::<Faults>()
        || error.is::<LevelError>()
        || error.is::<operator::BadUrl>()
        || error.is::<new::BadArgument>()
        || error.is::<call::BadStep>()
        || error.is::<call::BadUrl>()
        || error.is::<crate::load::BadUrl>();
    if is_usage { EXIT_USAGE } else { 1 }
}

/// Writes a line to stdout. Who closes the pipe early (`rookery match list | head`) has seen enough.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
