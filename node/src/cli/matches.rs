//! `rookery match …`: acts on any match from any node.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use rookery_protocol::peer::MatchFailure;
use serde_json::{Value, json};

use super::operator::{OpsClient, OpsError, OpsOptions, pretty, segment};
use super::records::time;
use super::replay::Replay;
use super::say;
use super::table::{list, or_dash, table};
use crate::ops::view::{KickRequest, MatchPage, MatchView, MoveRequest, Moved, UpgradeRequest, Upgraded};

/// List, show, move and end matches.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match list")]
pub(super) struct Match {
    #[command(subcommand)]
    command: MatchCommand,
}

#[derive(Debug, Subcommand)]
enum MatchCommand {
    List(List),
    Show(Show),
    End(End),
    Move(Move),
    Upgrade(Upgrade),
    Kick(Kick),
    Export(Export),
    Replay(Replay),
}

impl Match {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            MatchCommand::List(command) => command.run(),
            MatchCommand::Show(command) => command.run(),
            MatchCommand::End(command) => command.run(),
            MatchCommand::Move(command) => command.run(),
            MatchCommand::Upgrade(command) => command.run(),
            MatchCommand::Kick(command) => command.run(),
            MatchCommand::Export(command) => command.run(),
            MatchCommand::Replay(command) => command.run(),
        }
    }
}

/// List the live matches of the cluster.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match list --module arena --limit 20")]
struct List {
    /// Only matches of this module.
    #[arg(long)]
    module: Option<String>,
    /// The most that are listed.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    #[command(flatten)]
    ops: OpsOptions,
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let page = self.fetch(&self.ops.client()?)?;
        if self.ops.json {
            say(pretty(&page));
            return Ok(ExitCode::SUCCESS);
        }
        let row = |game_match: &MatchView| {
            vec![
                game_match.id.to_string(),
                game_match.module.clone(),
                or_dash(game_match.name.as_deref()),
                game_match.status.clone(),
                game_match.players.to_string(),
                game_match.owner.clone(),
                or_dash(game_match.backup.as_deref()),
            ]
        };
        let rows: Vec<_> = page.matches.iter().map(row).collect();
        say(table(
            &["MATCH", "MODULE", "NAME", "STATUS", "PLAYERS", "OWNER", "BACKUP"],
            &rows,
        ));
        if page.cursor.is_some() {
            eprintln!("rookery: there are more than {}; raise --limit", self.limit);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Pages until there are enough.
    fn fetch(&self, client: &OpsClient) -> Result<MatchPage, OpsError> {
        let module = self
            .module
            .as_ref()
            .map(|module| format!("&module={}", segment(module)))
            .unwrap_or_default();
        let mut all = MatchPage::default();
        loop {
            let limit = (self.limit - all.matches.len()).clamp(1, 1_000);
            let cursor = all
                .cursor
                .map(|cursor| format!("&cursor={}", segment(&cursor)))
                .unwrap_or_default();
            let page: MatchPage = client.get(&format!("/v1/matches?limit={limit}{module}{cursor}"))?;
            let is_empty = page.matches.is_empty();
            all.matches.extend(page.matches);
            all.cursor = page.cursor;
            if all.cursor.is_none() || is_empty || all.matches.len() >= self.limit {
                all.matches.truncate(self.limit);
                return Ok(all);
            }
        }
    }
}

/// Show one match; also an ended, lost or failed one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match show village/square")]
struct Show {
    /// The match's id or name.
    #[arg(value_name = "ID")]
    target: String,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Show {
    fn run(self) -> anyhow::Result<ExitCode> {
        let shown: MatchView = self
            .ops
            .client()?
            .get(&format!("/v1/matches/{}", segment(&self.target)))?;
        if self.ops.json {
            say(pretty(&shown));
            return Ok(ExitCode::SUCCESS);
        }
        let mut entries = vec![
            ("match", shown.id.to_string()),
            ("module", shown.module),
            ("digest", shown.digest.to_string()),
            ("name", or_dash(shown.name)),
            ("status", shown.status),
            ("owner", shown.owner),
            ("backup", or_dash(shown.backup)),
            ("epoch", shown.epoch.to_string()),
            ("players", shown.players.to_string()),
            ("durability", shown.durability),
            ("state_hash", or_dash(shown.state_hash)),
        ];
        entries.extend(shown.outcome.map(|outcome| ("outcome", outcome.to_string())));
        entries.extend(shown.reason.map(|reason| ("reason", reason)));
        for failure in shown.failures {
            let MatchFailure {
                event,
                at_ms,
                call,
                input,
                kind,
                message,
                backtrace,
                undone,
                ..
            } = failure;
            let undone = if undone { "undone" } else { "the end" };
            entries.push((
                "failure",
                format!("event {event} at {at_ms} ms, {call} {input}: {kind}, {message} ({undone})"),
            ));
            entries.extend(backtrace.into_iter().map(|frame| ("", frame)));
        }
        if let Some(record) = shown.record {
            let players: Vec<_> = record.players.iter().map(ToString::to_string).collect();
            entries.push((
                "played",
                or_dash(Some(players.join(" ")).filter(|players| !players.is_empty())),
            ));
            entries.push(("created", time(record.created_at)));
            entries.push(("started", or_dash(record.started_at.map(time))));
            entries.push(("ended", time(record.ended_at)));
        }
        if let Some(saved) = shown.saved {
            let (at, by, bytes) = (time(saved.saved_at), saved.saved_by, saved.bytes);
            entries.push(("saved", format!("{at}, event {}, {bytes} bytes by {by}", saved.event)));
            entries.push(("state", or_dash(saved.state.map(|state| state.to_string()))));
        }
        say(list(&entries));
        Ok(ExitCode::SUCCESS)
    }
}

/// End a match; its players are told.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match end 01k7x0w3m5c2s8j4q6r9t1v0yz")]
struct End {
    /// The match's id or name.
    #[arg(value_name = "ID")]
    target: String,
    #[command(flatten)]
    ops: OpsOptions,
}

impl End {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = format!("/v1/matches/{}/end", segment(&self.target));
        let answer: Value = self.ops.client()?.post(&path, json!({}))?;
        say(if self.ops.json {
            pretty(&answer)
        } else {
            format!("{} ends", self.target)
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// Move a match to another node; its players notice a short pause.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match move village/square --to rook-2")]
struct Move {
    /// The match's id or name.
    #[arg(value_name = "ID")]
    target: String,
    /// The node that is to own it. The less loaded of two others when it is not given.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Move {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = format!("/v1/matches/{}/move", segment(&self.target));
        let answer: Moved = self.ops.client()?.post(&path, MoveRequest { to: self.to })?;
        say(if self.ops.json {
            pretty(&answer)
        } else {
            format!("{} is on {}", self.target, answer.owner)
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// Have a match go on under another version of its module. One that does not go on from what this one saves leaves it as it is.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match upgrade village/square")]
struct Upgrade {
    /// The match's id or name.
    #[arg(value_name = "ID")]
    target: String,
    /// The digest of the version. The newest one when it is not given.
    #[arg(long, value_name = "DIGEST")]
    to: Option<String>,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Upgrade {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = format!("/v1/matches/{}/upgrade", segment(&self.target));
        let answer: Upgraded = self.ops.client()?.post(&path, UpgradeRequest { to: self.to })?;
        say(if self.ops.json {
            pretty(&answer)
        } else {
            let Upgraded {
                module,
                version,
                digest,
                ..
            } = answer;
            format!("{} runs {module} {version} {digest}", self.target)
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// Write a recording of a match into a file: its component, a state, and all that happened since. Also of one that failed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match export village/square --out square.recording")]
struct Export {
    /// The match's id or name.
    #[arg(value_name = "ID")]
    target: String,
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Export {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = format!("/v1/matches/{}/recording", segment(&self.target));
        let file = self.ops.client()?.get_bytes(&path)?;
        std::fs::write(&self.out, &file).with_context(|| format!("writing {}", self.out.display()))?;
        let (out, bytes) = (self.out.display().to_string(), file.len());
        say(if self.ops.json {
            pretty(&json!({"file": out, "bytes": bytes}))
        } else {
            format!("{out}: {bytes} bytes")
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// Remove a player from a match.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match kick village/square 01k7x0w3m5c2s8j4q6r9t1v0yz --reason spam")]
struct Kick {
    /// The match's id or name.
    #[arg(value_name = "ID")]
    target: String,
    /// The player's id.
    player: String,
    /// What the player is told.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    ops: OpsOptions,
}

impl Kick {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = format!("/v1/matches/{}/kick", segment(&self.target));
        let request = KickRequest {
            player: self.player.clone(),
            reason: self.reason,
        };
        let answer: Value = self.ops.client()?.post(&path, request)?;
        say(if self.ops.json {
            pretty(&answer)
        } else {
            format!("{} is out of {}", self.player, self.target)
        });
        Ok(ExitCode::SUCCESS)
    }
}
