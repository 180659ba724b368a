//! `rookery build` on the command line. What it does is `build`, which the tool that builds this repository's own modules shares; here
//! what was built is also checked, as `rookery module check` does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::wasm::{Engine, EngineConfig};

/// Compile a Rust crate of match logic, make the component and check it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rookery build examples/duel --out duel.wasm")]
pub(super) struct Build {
    /// The crate's directory.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Where the component goes; <DIR>/<crate name>.wasm when it is not said.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Build {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let built = super::build::build(&self.dir, self.out.as_deref())?;
        let path = built.component.display();
        super::say(format!("{path} ({} KiB)", built.size_bytes.div_ceil(1024)));
        let component = std::fs::read(&built.component).with_context(|| format!("cannot read {path}"))?;
        let report = Engine::new(EngineConfig::default())?.check(&component);
        super::say(&report);
        if !report.is_ok() {
            anyhow::bail!("{path} was built, but it would be refused or fail its first player: see the errors above");
        }
        Ok(ExitCode::SUCCESS)
    }
}
