//! What the nodes log, when a single seed is looked at: each line with the network's time and the node's name.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

#[derive(Clone, Copy)]
struct Running {
    node: usize,
    /// A moment of the node's clock, and the network's time at it.
    began_at: Instant,
    began_at_network: Duration,
}

thread_local! {
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
}

/// From now on it is this node that logs.
pub(crate) fn running(node: usize, began_at: Instant, began_at_network: Duration) {
    RUNNING.set(Some(Running {
        node,
        began_at,
        began_at_network,
    }));
}

struct NetworkTime;

impl FormatTime for NetworkTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let Some(running) = RUNNING.get() else {
            return Ok(());
        };
        let now = running.began_at_network + running.began_at.elapsed();
        write!(writer, "{:>7} ms n{:02}", now.as_millis(), running.node)
    }
}

/// Logs to the terminal, as much as `RUST_LOG` asks for, or what happens to members.
pub(crate) fn show() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("rookery_gossip=info"));
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_timer(NetworkTime)
        .with_env_filter(filter)
        .init();
}
