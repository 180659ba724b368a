//! `rookery load`: the load generator's place among the commands.

use std::process::ExitCode;

use clap::Args;

use crate::load::{self, Scenario};

/// Put a server under load, verify order and loss meanwhile, and report rates, latencies and cost.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery load echo --connections 100 --seconds 5")]
pub(super) struct Load {
    #[command(subcommand)]
    scenario: Scenario,
}

impl Load {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        load::run(&self.scenario)
    }
}
