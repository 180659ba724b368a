//! `rookery health`: whether one node takes players, for supervisors and container images that have no HTTP client.

use std::process::ExitCode;

use super::operator::OpsOptions;

/// Exit with 0 when the node is ready for players, with 1 and the reason when it is not.
///
/// Asks `/readyz` of one node. With --alive it asks `/healthz`: whether the process answers at all, ready or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rookery health --ops http://127.0.0.1:7712")]
pub(super) struct Health {
    /// Ask only whether the process answers.
    #[arg(long)]
    alive: bool,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Health {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let path = if self.alive { "/healthz" } else { "/readyz" };
        let (is_well, said) = self.ops.client()?.probe(path)?;
        let said = said.trim_end();
        if self.ops.json {
            super::say(serde_json::json!({ "ok": is_well, "said": said }).to_string());
        } else {
            super::say(said);
        }
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
