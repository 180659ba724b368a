//! The load generator: `rookery load`. One thread, one epoll, framing written for the purpose, so that the server is the limit and not
//! this. It uses nothing of the node: it is a client that trusts nobody, checks order, loss and doubles while it measures, and
//! fails (exit 1) when it finds any. With `--floor` it speaks to the bench's bare relay instead, which has no protocol.

mod accounts;
mod create;
mod echo;
mod fanout;
mod idle;
mod order;
mod process;
mod report;
mod rooms;
mod socket;
mod swarm;
mod traffic;
mod websocket;
mod wire;

#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::time::Duration;

pub use create::Create;
pub use echo::Echo;
pub use fanout::Fanout;
pub use idle::Idle;
pub use report::Report;
pub use swarm::BadUrl;
pub use wire::Wire;

use swarm::Target;

/// What to put a server under.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Scenario {
    /// Every message comes back to its sender: the cost of one message through a match.
    Echo(Echo),
    /// Rooms in which everyone hears everyone: the cost of one delivery.
    Fanout(Fanout),
    /// Sessions, or matches, that do nothing: what they hold and what they cost.
    Idle(Idle),
    /// Matches created, joined and left as fast as possible.
    Create(Create),
}

/// Options of every scenario.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// A node's client address; repeat it to spread the sessions over several nodes.
    #[arg(long = "url", value_name = "URL", default_value = "http://127.0.0.1:7700")]
    pub urls: Vec<String>,

    /// How messages are written.
    #[arg(long, value_enum, default_value = "json")]
    pub encoding: Wire,

    /// Process of a server on this machine, to read its CPU time and memory; repeat it for several.
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,

    /// The server is the bench's bare relay (`floor`): no accounts, no sessions, rooms by path.
    #[arg(long)]
    pub floor: bool,

    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
}

impl Common {
    fn targets(&self) -> anyhow::Result<Vec<Target>> {
        self.urls.iter().map(|url| Target::parse(url)).collect()
    }

    /// The protocol to speak; none against the floor.
    fn wire(&self) -> Option<Wire> {
        (!self.floor).then_some(self.encoding)
    }

    /// The protocol, for scenarios that make no sense without one.
    fn wire_or_refuse(&self) -> anyhow::Result<Wire> {
        self.wire()
            .ok_or_else(|| anyhow::anyhow!("the floor has no matches: run this one without --floor"))
    }
}

/// How long to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Clock {
    /// Seconds measured.
    #[arg(long, default_value = "5")]
    pub seconds: f64,

    /// Seconds before that, which do not count.
    #[arg(long, default_value = "2")]
    pub warmup: f64,
}

impl Clock {
    fn measure(&self) -> anyhow::Result<Duration> {
        anyhow::ensure!(self.seconds > 0.0, "--seconds must be above 0");
        Ok(Duration::try_from_secs_f64(self.seconds)?)
    }

    fn warmup(&self) -> anyhow::Result<Duration> {
        Ok(Duration::try_from_secs_f64(self.warmup)?)
    }
}

/// Runs a scenario, prints what it found, and says how to exit: 0 when nothing was lost, doubled, reordered or refused.
pub fn run(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let (common, report) = match scenario {
        Scenario::Echo(echo) => (&echo.common, echo.run()?),
        Scenario::Fanout(fanout) => (&fanout.common, fanout.run()?),
        Scenario::Idle(idle) => (&idle.common, idle.run()?),
        Scenario::Create(create) => (&create.common, create.run()?),
    };
    if common.json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(report.exit_code())
}
