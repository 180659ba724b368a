//! Matches created, joined and left, back to back, by a number of workers side by side. The leave of one match and the creation of the
//! next travel together; what is measured is the time from asking for a match to sitting in it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::report::{Latency, Report};
use super::socket::Outgoing;
use super::swarm::{Play, Swarm};
use super::wire::{Request, Wire};
use super::{Clock, Common, process, rooms};

/// The last answers have this long to come when the run ends.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Options of `load create`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  rookery load create --workers 64 --server-pid 4711\n\n\
    The node under test needs room: limits.control above a worker's rate, limits.created_per_player above what it creates in \
    matches.empty_after.")]
pub struct Create {
    #[command(flatten)]
    pub common: Common,

    #[command(flatten)]
    pub clock: Clock,

    /// Players that do so, each on a connection of its own.
    #[arg(long, default_value = "64")]
    pub workers: usize,

    /// The module of the matches.
    #[arg(long, default_value = "echo")]
    pub module: String,
}

impl Create {
    pub(super) fn run(&self) -> anyhow::Result<Report> {
        let wire = self.common.wire_or_refuse()?;
        let (warmup, measure) = (self.clock.warmup()?, self.clock.measure()?);
        let mut swarm = Swarm::new(self.workers)?;
        rooms::open(&mut swarm, wire, &self.common.targets()?, self.workers)?;
        let mut shift = Shift::new(wire, &self.module, self.workers);
        for index in 0..self.workers {
            shift.create(index, swarm.socket_mut(index).out());
            swarm.flush(index);
        }
        shift.work_until(&mut swarm, Instant::now() + warmup)?;
        shift.measuring = true;
        let (begun, seated_before) = (Instant::now(), shift.seated);
        let (cpu_before, own_before) = (process::cpu(&self.common.server_pid)?, process::own_cpu()?);
        shift.work_until(&mut swarm, begun + measure)?;
        shift.measuring = false;
        let seconds = begun.elapsed().as_secs_f64();
        let count = (shift.seated - seated_before) as f64;
        let cpu = process::cpu(&self.common.server_pid)? - cpu_before;
        let own = process::own_cpu()? - own_before;
        shift.stopping = true;
        let patience = Instant::now() + LAST_ANSWERS_WITHIN;
        while shift.resting < self.workers && Instant::now() < patience {
            swarm.turn(Duration::from_millis(20), &mut shift)?;
        }

        let mut report = Report::new("create");
        report.count("workers", self.workers as u64);
        report.figure("seconds", seconds);
        report.figure("created_and_joined_per_s", count / seconds);
        if !self.common.server_pid.is_empty() {
            report.figure("server_cpu_percent", cpu.as_secs_f64() / seconds * 100.0);
            report.figure("server_cpu_ms_each", cpu.as_secs_f64() * 1e3 / count.max(1.0));
            report.count("server_rss_kib", process::rss_kib(&self.common.server_pid)?);
        }
        report.figure("client_cpu_percent", own.as_secs_f64() / seconds * 100.0);
        report.latency(&shift.latency);
        report.count("seated", shift.seated);
        report.must_be_zero("doubled", shift.doubled);
        report.must_be_zero("unanswered", (self.workers - shift.resting) as u64);
        let (failed, why) = swarm.failures();
        report.must_be_zero("connections_failed", failed);
        why.into_iter().for_each(|why| report.complain(why.to_owned()));
        if count == 0.0 {
            report.complain("no match was created and joined".to_owned());
        }
        Ok(report)
    }
}

// The numbers under which each request of a worker is answered.
const CREATE_ID: u64 = 1;
const JOIN_ID: u64 = 2;
const LEAVE_ID: u64 = 3;

/// One worker's round.
#[derive(Debug, Clone)]
struct Worker {
    asked_at: Instant,
    target: String,
    /// Leaves without an answer yet; a slow one may be overtaken by the next round.
    leaving: u32,
    /// Whether it has stopped because the run is over.
    stopped: bool,
}

/// All workers.
struct Shift {
    wire: Wire,
    create: Vec<u8>,
    workers: Vec<Worker>,
    created: HashSet<String>,
    latency: Latency,
    measuring: bool,
    stopping: bool,
    seated: u64,
    doubled: u64,
    /// Workers that have stopped and have all their answers.
    resting: usize,
}

impl Shift {
    fn new(wire: Wire, module: &str, workers: usize) -> Self {
        let create = Request {
            kind: "match.create",
            id: CREATE_ID,
            module: Some(module),
            ..Request::default()
        };
        let idle = Worker {
            asked_at: Instant::now(),
            target: String::new(),
            leaving: 0,
            stopped: false,
        };
        Self {
            wire,
            create: wire.request(&create),
            workers: vec![idle; workers],
            created: HashSet::new(),
            latency: Latency::new(),
            measuring: false,
            stopping: false,
            seated: 0,
            doubled: 0,
            resting: 0,
        }
    }

    fn work_until(&mut self, swarm: &mut Swarm, end: Instant) -> anyhow::Result<()> {
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            swarm.turn(left, self)?;
            // A worker that failed would only lower the rate, which is not what a rate should mean.
            if let (1.., Some(why)) = swarm.failures() {
                bail!("{why}");
            }
        }
        Ok(())
    }

    fn create(&mut self, index: usize, out: &mut Outgoing) {
        self.workers[index].asked_at = Instant::now();
        out.push(self.wire.opcode(), &self.create);
    }

    fn ask(&self, index: usize, kind: &str, id: u64, out: &mut Outgoing) {
        let target = Some(self.workers[index].target.as_str());
        out.push(
            self.wire.opcode(),
            &self.wire.request(&Request {
                kind,
                id,
                target,
                ..Request::default()
            }),
        );
    }
}

impl Play for Shift {
    fn message(&mut self, index: usize, out: &mut Outgoing, payload: &[u8]) -> anyhow::Result<()> {
        let message = self.wire.read(payload)?;
        match (message.kind, message.id) {
            ("match.created", Some(CREATE_ID)) => {
                let target = message.target.context("match.created names no match")?;
                self.workers[index].target = target.to_owned();
                if !self.created.insert(target.to_owned()) {
                    self.doubled += 1;
                }
                self.ask(index, "match.join", JOIN_ID, out);
            }
            ("match.joined", Some(JOIN_ID)) => {
                self.seated += 1;
                if message.target != Some(self.workers[index].target.as_str()) {
                    bail!("joined another match than it asked for");
                }
                if self.measuring {
                    self.latency
                        .record_ns(self.workers[index].asked_at.elapsed().as_nanos() as u64);
                }
                self.ask(index, "match.leave", LEAVE_ID, out);
                self.workers[index].leaving += 1;
                if self.stopping {
                    self.workers[index].stopped = true;
                } else {
                    self.create(index, out);
                }
            }
            ("match.left", Some(LEAVE_ID)) => {
                let worker = &mut self.workers[index];
                worker.leaving = worker.leaving.checked_sub(1).context("match.left without a leave")?;
                self.resting += usize::from(worker.stopped && worker.leaving == 0);
            }
            ("match.players", None) => {}
            (_, _) => bail!("{}", message.describe()),
        }
        Ok(())
    }
}
