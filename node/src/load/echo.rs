//! Every message goes through a match and comes back to its sender alone.

use super::report::Report;
use super::traffic::{self, Audience, Plan};
use super::{Clock, Common};

/// Options of `load echo`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  rookery load echo --connections 1000 --seconds 10 --server-pid 4711")]
pub struct Echo {
    #[command(flatten)]
    pub common: Common,

    #[command(flatten)]
    pub clock: Clock,

    /// Players, each with a connection of its own.
    #[arg(long, default_value = "100")]
    pub connections: usize,

    /// Players in one match.
    #[arg(long, default_value = "10")]
    pub room_size: usize,

    /// Messages a second and player; 0: as fast as they come back.
    #[arg(long, default_value = "0")]
    pub rate: f64,

    /// Messages under way per player when there is no rate.
    #[arg(long, default_value = "1")]
    pub window: usize,

    /// Bytes of one payload.
    #[arg(long, default_value = "64")]
    pub payload: usize,

    /// Number the inputs (`n`) and check that all are acknowledged.
    #[arg(long)]
    pub numbered: bool,

    /// The module that sends back what it hears.
    #[arg(long, default_value = "echo")]
    pub module: String,
}

impl Echo {
    pub(super) fn run(&self) -> anyhow::Result<Report> {
        let plan = Plan {
            scenario: "echo",
            audience: Audience::Sender,
            connections: self.connections,
            room_size: self.room_size,
            module: self.module.clone(),
            rate: (self.rate > 0.0).then_some(self.rate),
            window: self.window,
            numbered: self.numbered,
            payload_bytes: self.payload,
            warmup: self.clock.warmup()?,
            measure: self.clock.measure()?,
        };
        traffic::run(&self.common, &plan)
    }
}
