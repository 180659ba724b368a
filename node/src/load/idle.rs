//! What waiting costs: the memory of sessions that say nothing, or of matches that only tick, and the CPU time of both. Memory is
//! the growth of the server's resident set from just before they were opened to when the set has settled, so kernel socket buffers are not in it.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::report::Report;
use super::swarm::{Deaf, Swarm};
use super::{Clock, Common, accounts, process, rooms, swarm};

/// Matches that one player creates, with room to spare below the default `limits.created_per_player` of 200.
const MATCHES_PER_PLAYER: usize = 150;

/// Options of `load idle`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Example:\n  rookery load idle --connections 5000 --server-pid 4711\n  \
    rookery load idle --matches 1000 --server-pid 4711 --ops http://127.0.0.1:7702"
)]
pub struct Idle {
    #[command(flatten)]
    pub common: Common,

    #[command(flatten)]
    pub clock: Clock,

    /// Sessions to open; ignored with --matches, which opens as many as it needs.
    #[arg(long, default_value = "1000")]
    pub connections: usize,

    /// Open this many matches instead, with nobody in them.
    #[arg(long, default_value = "0")]
    pub matches: usize,

    /// The module of those matches.
    #[arg(long, default_value = "ticker")]
    pub module: String,

    /// Ticks a second of that module, where --ops does not tell how many there really were.
    #[arg(long, default_value = "20")]
    pub tick_hz: f64,

    /// The node's ops address, to read from its metrics how many events the matches really had.
    #[arg(long, value_name = "URL")]
    pub ops: Option<String>,
}

impl Idle {
    pub(super) fn run(&self) -> anyhow::Result<Report> {
        anyhow::ensure!(
            !self.common.server_pid.is_empty(),
            "idle measures a process: give --server-pid"
        );
        if self.matches > 0 {
            self.idle_matches()
        } else {
            self.idle_sessions()
        }
    }

    fn idle_sessions(&self) -> anyhow::Result<Report> {
        let count = self.connections;
        let targets = self.common.targets()?;
        let mut swarm = Swarm::new(count)?;
        let mut before = Cost::now(&self.common)?;
        match self.common.wire() {
            None => swarm.connect(&targets, count, None, |_| "/echo".to_owned())?,
            Some(wire) => {
                let tokens = accounts::guests(&targets, count)?;
                self.settle(&mut swarm)?;
                before = Cost::now(&self.common)?;
                swarm.connect(&targets, count, Some(wire.subprotocol()), |_| "/v1/ws".to_owned())?;
                swarm::open_sessions(&mut swarm, wire, 0, &tokens)?;
            }
        }
        let opened = Cost::now(&self.common)?;
        self.settle(&mut swarm)?;
        let settled = Cost::now(&self.common)?;
        wait(&mut swarm, self.clock.measure()?)?;
        let after = Cost::now(&self.common)?;

        let mut report = Report::new("idle");
        report.count("connections", count as u64);
        report.count("server_rss_before_kib", before.rss_kib);
        report.count("server_rss_kib", settled.rss_kib);
        report.figure("kib_per_connection", settled.kib_since(&before) / count as f64);
        report.figure("open_cpu_us_each", opened.cpu_us_since(&before) / count as f64);
        report.figure("idle_cpu_percent", after.cpu_percent_since(&settled));
        failures(&swarm, &mut report);
        Ok(report)
    }

    fn idle_matches(&self) -> anyhow::Result<Report> {
        let wire = self.common.wire_or_refuse()?;
        let count = self.matches;
        let players = count.div_ceil(MATCHES_PER_PLAYER);
        let targets = self.common.targets()?;
        let mut swarm = Swarm::new(players)?;
        rooms::open(&mut swarm, wire, &targets, players)?;
        // The first match of a module may compile it and start what all of them share.
        rooms::create(&mut swarm, wire, &self.module, vec![0])?;
        self.settle(&mut swarm)?;

        let before = Cost::now(&self.common)?;
        rooms::create(
            &mut swarm,
            wire,
            &self.module,
            (0..count).map(|number| number % players).collect(),
        )?;
        let created = Cost::now(&self.common)?;
        self.settle(&mut swarm)?;
        let settled = Cost::now(&self.common)?;
        let ticks_before = self.events()?;
        wait(&mut swarm, self.clock.measure()?)?;
        let after = Cost::now(&self.common)?;
        let ticks = match (ticks_before, self.events()?) {
            (Some(before), Some(after)) => after - before,
            _ => self.tick_hz * count as f64 * (after.at - settled.at).as_secs_f64(),
        };

        let mut report = Report::new("idle matches");
        report.count("matches", count as u64);
        report.count("server_rss_before_kib", before.rss_kib);
        report.count("server_rss_kib", after.rss_kib);
        report.figure("kib_per_match", after.kib_since(&before) / count as f64);
        report.figure("create_cpu_us_each", created.cpu_us_since(&before) / count as f64);
        report.figure("idle_cpu_percent", after.cpu_percent_since(&settled));
        report.figure("ticks_per_s", ticks / (after.at - settled.at).as_secs_f64());
        report.figure("server_cpu_us_per_tick", after.cpu_us_since(&settled) / ticks.max(1.0));
        if ticks < 1.0 {
            report.complain(format!("no match of module {} has ticked", self.module));
        }
        failures(&swarm, &mut report);
        Ok(report)
    }

    fn settle(&self, swarm: &mut Swarm) -> anyhow::Result<()> {
        wait(swarm, self.clock.warmup()?)
    }

    /// Events that matches of this module have had, from the node's metrics.
    fn events(&self) -> anyhow::Result<Option<f64>> {
        let Some(ops) = &self.ops else { return Ok(None) };
        let url = format!("{}/metrics", ops.trim_end_matches('/'));
        let text = ureq::get(&url)
            .call()
            .with_context(|| format!("cannot read {url}"))?
            .body_mut()
            .read_to_string()?;
        Ok(Some(events_of(&text, &self.module)))
    }
}

/// The value of `rookery_match_events_total` for this module; 0 when there is none yet.
fn events_of(metrics: &str, module: &str) -> f64 {
    let wanted = format!("module=\"{module}\"");
    metrics
        .lines()
        .filter(|line| line.starts_with("rookery_match_events_total{") && line.contains(&wanted))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

fn failures(swarm: &Swarm, report: &mut Report) {
    let (failed, why) = swarm.failures();
    report.must_be_zero("connections_failed", failed);
    why.into_iter().for_each(|why| report.complain(why.to_owned()));
}

/// Lets time pass while pings are answered.
fn wait(swarm: &mut Swarm, time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        swarm.turn(left, &mut Deaf)?;
    }
    Ok(())
}

/// What the server has used up to a moment.
struct Cost {
    at: Instant,
    cpu: Duration,
    rss_kib: u64,
}

impl Cost {
    fn now(common: &Common) -> anyhow::Result<Self> {
        let (cpu, rss_kib) = (process::cpu(&common.server_pid)?, process::rss_kib(&common.server_pid)?);
        Ok(Self {
            at: Instant::now(),
            cpu,
            rss_kib,
        })
    }

    fn kib_since(&self, before: &Self) -> f64 {
        self.rss_kib as f64 - before.rss_kib as f64
    }

    fn cpu_us_since(&self, before: &Self) -> f64 {
        (self.cpu - before.cpu).as_secs_f64() * 1e6
    }

    fn cpu_percent_since(&self, before: &Self) -> f64 {
        (self.cpu - before.cpu).as_secs_f64() / (self.at - before.at).as_secs_f64() * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_the_metrics_of_the_right_module() {
        let text = "# TYPE rookery_match_events_total counter\nrookery_match_events_total{module=\"ticker\"} 120\n\
                    rookery_match_events_total{module=\"tick\"} 7\nrookery_match_events_totally{module=\"ticker\"} 9\n";
        assert_eq!(events_of(text, "ticker"), 120.0);
        assert_eq!(events_of(text, "arena"), 0.0);
    }
}
