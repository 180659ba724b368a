//! Rooms in which every message goes to everyone: what most real-time games do all the time.

use super::report::Report;
use super::traffic::{self, Audience, Plan};
use super::{Clock, Common};

/// Options of `load fanout`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  rookery load fanout --connections 500 --room-size 10 --rate 10 --server-pid 4711")]
pub struct Fanout {
    #[command(flatten)]
    pub common: Common,

    #[command(flatten)]
    pub clock: Clock,

    /// Players, each with a connection of its own.
    #[arg(long, default_value = "500")]
    pub connections: usize,

    /// Players in one match.
    #[arg(long, default_value = "10")]
    pub room_size: usize,

    /// Messages a second and player; 0: as fast as they come back.
    #[arg(long, default_value = "10")]
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

    /// The module that sends to everyone what begins with `all:`.
    #[arg(long, default_value = "echo")]
    pub module: String,
}

impl Fanout {
    pub(super) fn run(&self) -> anyhow::Result<Report> {
        let plan = Plan {
            scenario: "fanout",
            audience: Audience::Room,
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
