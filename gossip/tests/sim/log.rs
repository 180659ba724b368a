//! What the nodes log. Always that a probe was answered and that a member is dead, in the order in which it happened; and all the rest, each line with the network's
//! time and the node's name, when a single seed is looked at.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Copy)]
struct Running {
    node: usize,
    /// A moment of the node's clock, and the network's time at it.
    began_at: Instant,
    began_at_network: Duration,
}

thread_local! {
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
    static FINDINGS: RefCell<Vec<Finding>> = const { RefCell::new(Vec::new()) };
}

/// From now on it is this node that logs.
pub(crate) fn running(node: usize, began_at: Instant, began_at_network: Duration) {
    RUNNING.set(Some(Running {
        node,
        began_at,
        began_at_network,
    }));
}

impl Running {
    fn now(self) -> Duration {
        self.began_at_network + self.began_at.elapsed()
    }
}

/// What a node found out about another one by probing it.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) at: Duration,
    pub(crate) observer: usize,
    pub(crate) node: String,
    /// Which of its lives.
    pub(crate) generation: u64,
    pub(crate) kind: FindingKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FindingKind {
    /// A probe was answered, directly or through others.
    Answered,
    Dead,
    /// Some other line of the log.
    Other,
}

/// What was found out since the last time, in that order.
pub(crate) fn findings() -> Vec<Finding> {
    FINDINGS.take()
}

/// The target of the events about probes and verdicts.
const VERDICTS: &str = "rookery_gossip::cluster::task";

struct Findings;

impl<S: Subscriber> Layer<S> for Findings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(running) = RUNNING.get() else {
            return;
        };
        let mut finding = Finding {
            at: running.now(),
            observer: running.node,
            node: String::new(),
            generation: 0,
            kind: FindingKind::Other,
        };
        event.record(&mut finding);
        if finding.kind != FindingKind::Other {
            FINDINGS.with_borrow_mut(|findings| findings.push(finding));
        }
    }
}

impl Visit for Finding {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "node" => self.node = format!("{value:?}"),
            "generation" => self.generation = format!("{value:?}").parse().unwrap(),
            "message" => {
                self.kind = match format!("{value:?}").as_str() {
                    "a probe was answered" | "a probe through another was answered" => FindingKind::Answered,
                    "member dead" => FindingKind::Dead,
                    _ => FindingKind::Other,
                }
            }
            _ => {}
        }
    }
}

struct NetworkTime;

impl FormatTime for NetworkTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Some(running) = RUNNING.get() else {
            return Ok(());
        };
        write!(writer, "{:>7} ms n{:02}", running.now().as_millis(), running.node)
    }
}

/// Takes down answers and verdicts; and logs to the terminal, as much as `RUST_LOG` asks for or else what happens to members, if that is
/// wanted.
pub(crate) fn begin(to_the_terminal: bool) {
    let verdicts = Targets::new().with_target(VERDICTS, LevelFilter::TRACE);
    let registry = tracing_subscriber::registry().with(Findings.with_filter(verdicts));
    if !to_the_terminal {
        return registry.init();
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("rookery_gossip=info"));
    let terminal = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_timer(NetworkTime)
        .with_filter(filter);
    registry.with(terminal).init();
}
