//! Logs: one line an event, on stderr, as text or JSON. Standard output is for what a command was asked to say.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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

/// Starts logging for this process; a second call changes nothing.
pub fn init(format: LogFormat, level: &str) -> Result<(), LevelError> {
    let filter = EnvFilter::builder().parse(level).map_err(|source| LevelError {
        level: level.into(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A process has one subscriber; in tests an earlier one may be there.
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(started);
    Ok(())
}
