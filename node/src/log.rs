//! Logs: one line an event, on stderr, as text or JSON. Standard output is for what a command was asked to say.

use std::io::IsTerminal;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::traces::{self, Traces};

/// What is logged when nobody says: our own events, and what others warn of.
pub const DEFAULT_LEVEL: &str = "warn,rookery=info,rookery_gossip=info";

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// The level is not a filter such as `info` or `warn,rookery=debug`. Nothing is logged.
#[derive(Debug, thiserror::Error)]
#[error("`{level}` is not a log level such as `info`, or `warn,rookery=debug`")]
pub struct LevelError {
    level: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging for this process, and tracing to a collector if there is one; a second call changes nothing.
pub fn init(format: LogFormat, level: &str, traces: Option<&Traces>) -> Result<(), LevelError> {
    let filter = EnvFilter::builder().parse(level).map_err(|source| LevelError {
        level: level.into(),
        source,
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // A process has one subscriber; in tests an earlier one may be there.
    let started = match traces {
        None => Registry::default().with(lines).with(filter).try_init(),
        Some(traces) => {
            let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer());
            let only_ours = Targets::new().with_target(traces::TARGET, tracing::Level::INFO);
            Registry::default()
                .with(lines.with_filter(filter))
                .with(spans.with_filter(only_ours))
                .try_init()
        }
    };
    drop(started);
    Ok(())
}
