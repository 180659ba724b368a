//! `rookery secret`.

use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};

/// Print a new cluster secret.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rookery secret > cluster.secret
  ROOKERY_CLUSTER__SECRET_FILE=cluster.secret rookery node")]
pub(super) struct Secret {}

impl Secret {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        super::say(fresh());
        Ok(ExitCode::SUCCESS)
    }
}

/// 32 random bytes, 256 bits, as 43 letters, digits, `-` and `_` that need no quoting anywhere.
pub(crate) fn fresh() -> String {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}
