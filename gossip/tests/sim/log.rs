//! What the nodes log. Always that a probe was answered, which nothing else would tell; and all the rest, each line with the network's
//! time and the node's name, when a single seed is looked at.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
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
    static ANSWERS: RefCell<Vec<Answer>> = const { RefCell::new(Vec::new()) };
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

/// A node heard an answer to one of its probes, directly or through others.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) at: Duration,
    pub(crate) observer: usize,
    pub(crate) node: String,
    pub(crate) generation: u64,
}

/// The answers heard since the last time.
pub(crate) fn answers() -> Vec<Answer> {
    ANSWERS.take()
}

/// The target of the events about probes.
const PROBES: &str = "rookery_gossip::cluster::task";

struct Answers;

impl<S: Subscriber> Layer<S> for Answers {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(running) = RUNNING.get().filter(|_| *event.metadata().level() == Level::TRACE) else {
            return;
        };
        let mut answer = Answer {
            at: running.now(),
            observer: running.node,
            node: String::new(),
            generation: 0,
        };
        event.record(&mut answer);
        ANSWERS.with_borrow_mut(|answers| answers.push(answer));
    }
}

impl Visit for Answer {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "node" {
            self.node = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "generation" {
            self.generation = value;
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

/// Takes down answers to probes; and logs to the terminal, as much as `RUST_LOG` asks for or else what happens to members, if that is
/// wanted.
pub(crate) fn begin(to_the_terminal: bool) {
    let probes = Targets::new().with_target(PROBES, LevelFilter::TRACE);
    let terminal = to_the_terminal.then(|| {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("rookery_gossip=info"));
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_timer(NetworkTime)
            .with_filter(filter)
    });
    tracing_subscriber::registry()
        .with(Answers.with_filter(probes))
        .with(terminal)
        .init();
}
