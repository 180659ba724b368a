//! A match that ticks 20 times a second and does nothing: what an idle match costs is measured with it.

use rookery_sdk::prelude::*;

struct Ticker;

impl Match for Ticker {
    fn manifest() -> Manifest {
        Manifest::json("ticker").players(1..=1_000).tick_hz(20)
    }

    fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
        Ok(Self)
    }
}

rookery_sdk::export!(Ticker);
