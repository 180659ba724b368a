//! `rookery config check` and `rookery config print`: what a node would start with.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::say;
use crate::config::{self, Sources};

/// Check or print what a node would start with.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery config check --config rookery.toml")]
pub(super) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report all faults of the file and the environment at once, or `ok`.
    #[command(after_help = "Example:\n  rookery config check --config rookery.toml")]
    Check(FileOption),
    /// Print the effective configuration as TOML, secrets masked.
    #[command(after_help = "Example:\n  ROOKERY_LIMITS__FRAME=128KiB rookery config print")]
    Print(FileOption),
    /// List every key with its default and what it does, as Markdown.
    #[command(after_help = "Example:\n  rookery config reference > docs/configuration.md")]
    Reference,
}

#[derive(Debug, Clone, Args)]
pub(super) struct FileOption {
    /// The configuration file. The environment (ROOKERY_SECTION__KEY) wins over it.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Config {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            ConfigCommand::Check(file) => load(file).map(|_| say("ok"))?,
            ConfigCommand::Print(file) => say(load(file)?.to_toml().trim_end()),
            ConfigCommand::Reference => say(config::Config::reference_page().trim_end()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn load(file: FileOption) -> anyhow::Result<config::Config> {
    Ok(config::Config::load(Sources::of_process(file.config))?)
}
