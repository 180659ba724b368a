//! `rookery demo`.

use std::process::ExitCode;

use clap::Args;

use super::LogOptions;
use crate::{demo, log};

/// Start a cluster of real nodes on loopback with the example modules and some bots, to play on and to watch.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery demo --nodes 5 --port 8800")]
pub(super) struct Demo {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=demo::NODES_MAX as i64))]
    nodes: u16,
    /// The first node's client port; node i listens on this + 10 i (client), + 1 (peer), + 2 (ops).
    #[arg(long, default_value_t = 7700, value_parser = clap::value_parser!(u16).range(1..=64_000))]
    port: u16,
    /// Leave arena and village to people.
    #[arg(long)]
    no_bots: bool,
    /// Services that the nodes are to run without (node.without), to see what depends on them.
    #[arg(long, value_name = "SERVICES")]
    without: Option<String>,
    #[command(flatten)]
    log: LogOptions,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let level = self.log.level_or("warn");
        log::init(self.log.log_format, &level, None)?;
        let bots = if self.no_bots {
            demo::Bots::None
        } else {
            demo::Bots::Some
        };
        let options = demo::Options {
            nodes: self.nodes,
            port: self.port,
            bots,
            without: self.without.unwrap_or_default(),
            log_level: level,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(demo::run(options))
    }
}
