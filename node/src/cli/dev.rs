//! `rookery dev` on the command line. What it does is `crate::dev`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::LogOptions;
use super::config::FileOption;
use crate::config::{Config, Sources};
use crate::{dev, log};

/// What an author wants to see: what goes wrong, and all that match logic logs.
const LEVEL: &str = "warn,module=debug";

/// Run one node with this module and a playground, where one person plays it as several.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery dev chess.wasm --watch")]
pub(super) struct Dev {
    /// The component, as `rookery build` makes it.
    #[arg(value_name = "MODULE.wasm")]
    module: PathBuf,
    /// Put each new version of the file under the running matches.
    #[arg(long)]
    watch: bool,
    /// Where players connect; peers' port is this + 1 and operators' this + 2. 0 takes any that are free.
    #[arg(long, default_value_t = 7700, value_parser = clap::value_parser!(u16).range(..=64_000))]
    port: u16,
    /// More configuration, such as a world.
    #[command(flatten)]
    file: FileOption,
    #[command(flatten)]
    log: LogOptions,
}

impl Dev {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let directory = tempfile::Builder::new()
            .prefix("rookery-dev-")
            .tempdir()
            .context("no temporary directory")?;
        let address = |offset: u16| match self.port {
            0 => "127.0.0.1:0".to_owned(),
            port => format!("127.0.0.1:{}", port + offset),
        };
        let config = Config::load(Sources {
            flags: vec![
                ("node.name", "dev".into()),
                ("node.data_dir", directory.path().display().to_string()),
                ("node.playground", "true".into()),
                // Every build is published here.
                ("limits.module_versions", "100000".into()),
                ("listen.client", address(0)),
                ("listen.peer", address(1)),
                ("listen.ops", address(2)),
            ],
            ..Sources::of_process(self.file.config)
        })?;
        log::init(self.log.log_format, &self.log.level_or(LEVEL), None)?;
        let options = dev::Options {
            module: self.module,
            watch: self.watch,
            config,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(dev::run(options));
        runtime.shutdown_timeout(super::node::BLOCKED_TASKS_WITHIN);
        ended
    }
}
