//! `rookery records`: matches that are over, by player or module.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::operator::{OpsOptions, pretty, segment};
use super::say;
use super::table::{or_dash, table};
use crate::ops::view::{RecordPage, RecordView};

/// List matches that are over: ended, failed and lost ones, the newest first.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery records --player 01k7x0w3m5c2s8j4q6r9t1v0yz --limit 20")]
pub(super) struct Records {
    /// Only matches that this player played in.
    #[arg(long)]
    player: Option<String>,
    /// Only matches of this module.
    #[arg(long)]
    module: Option<String>,
    /// The most that are listed.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Records {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.ops.client()?;
        let mut filter = String::new();
        for (name, value) in [("player", &self.player), ("module", &self.module)] {
            if let Some(value) = value {
                filter.push_str(&format!("&{name}={}", segment(value)));
            }
        }
        let mut all = RecordPage::default();
        loop {
            let limit = (self.limit - all.records.len()).clamp(1, 1_000);
            let cursor = all.cursor.map(|cursor| format!("&cursor={}", segment(&cursor)));
            let cursor = cursor.unwrap_or_default();
            let page: RecordPage = client.get(&format!("/v1/records?limit={limit}{filter}{cursor}"))?;
            let is_empty = page.records.is_empty();
            all.records.extend(page.records);
            all.cursor = page.cursor;
            if all.cursor.is_none() || is_empty || all.records.len() >= self.limit {
                all.records.truncate(self.limit);
                break;
            }
        }
        if self.ops.json {
            say(pretty(&all));
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<_> = all.records.iter().map(row).collect();
        say(table(
            &["MATCH", "MODULE", "NAME", "STATUS", "ENDED", "PLAYERS", "WHAT"],
            &rows,
        ));
        if all.cursor.is_some() {
            eprintln!("rookery: there are more than {}; raise --limit", self.limit);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(record: &RecordView) -> Vec<String> {
    let what = match (&record.outcome, &record.reason) {
        (Some(outcome), _) => Some(outcome.to_string()),
        (None, Some(reason)) => Some(reason.clone()),
        (None, None) => None,
    };
    vec![
        record.id.to_string(),
        record.module.clone(),
        or_dash(record.name.as_deref()),
        record.status.clone(),
        time(record.ended_at),
        record.players.len().to_string(),
        or_dash(what.map(|what| shortened(&what))),
    ]
}

/// What fits beside the other columns.
fn shortened(what: &str) -> String {
    const CHARS_MAX: usize = 60;
    match what.char_indices().nth(CHARS_MAX) {
        None => what.to_owned(),
        Some((end, _)) => format!("{}…", &what[..end]),
    }
}

/// A time in UTC, to the second.
pub(super) fn time(unix_ms: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(at).to_string()
}
