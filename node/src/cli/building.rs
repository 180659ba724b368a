//! `rookery build` on the command line. What it does is `build`, which the tool that builds this repository's own modules shares.

use std::path::PathBuf;
use std::process::ExitCode;

/// Compile a Rust crate of match logic and make the component.
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
        super::say(format!(
            "{} ({} KiB)",
            built.component.display(),
            built.size_bytes.div_ceil(1024)
        ));
        Ok(ExitCode::SUCCESS)
    }
}
