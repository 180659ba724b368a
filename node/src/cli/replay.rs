//! `rookery match replay`: plays a recording again, without a node, and says whether it comes to the same.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use crate::matches::effect::Effect;
use crate::matches::machine::{Applied, Diverged};
use crate::matches::output::{Body, Output};
use crate::matches::recording::{Player, Recording};
use crate::wasm::{Engine, EngineConfig};

/// What differs is no fault of the command's (EX_DATAERR).
const EXIT_DIVERGED: u8 = 65;

/// Play a recording of a match again. The last line is the state hash and the number of the last event.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery match replay arena.recording --until 1200 --effects")]
pub(super) struct Replay {
    /// What `rookery match export` wrote.
    file: PathBuf,
    /// Stop after the event of this number.
    #[arg(long, value_name = "EVENT")]
    until: Option<u64>,
    /// Print outputs and requests as they happen, one JSON line each.
    #[arg(long)]
    effects: bool,
    /// Print what was said otherwise than it was recorded, by number, one JSON line each: of the recent outputs that the recording has.
    #[arg(long)]
    diff: bool,
}

impl Replay {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let file = std::fs::read(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        let recording = Recording::decode(&file.into()).with_context(|| self.file.display().to_string())?;
        let engine = Engine::new(EngineConfig::default())?;
        let mut player = recording
            .play(&engine)
            .with_context(|| self.file.display().to_string())?;
        let mut out = std::io::stdout().lock();
        let played = self.play(&mut player, &mut out)?;
        if self.diff {
            print_differences(&mut player, &mut out)?;
        }
        match played {
            Ok(hash) => {
                let event = player.game().part().event_no();
                writeln!(out, "hash {hash} events {event}")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(diverged) => {
                eprintln!("rookery: {diverged}");
                writeln!(out, "diverged at event {}", diverged.event)?;
                Ok(ExitCode::from(EXIT_DIVERGED))
            }
        }
    }

    /// Plays to the end, or as far as was asked for. Returns the state hash there.
    fn play(&self, player: &mut Player, out: &mut impl Write) -> std::io::Result<Result<String, Diverged>> {
        let mut applied = Applied::default();
        let is_enough = |player: &mut Player| {
            let event = player.game().part().event_no();
            self.until.is_some_and(|until| event >= until)
        };
        while !is_enough(player) {
            let Some(played) = player.next(&mut applied) else {
                return Ok(player.finish().map(shown));
            };
            if self.effects {
                print_effects(&applied, out)?;
            }
            if let Err(diverged) = played {
                return Ok(Err(diverged));
            }
        }
        Ok(Ok(shown(player.game().state_hash())))
    }
}

fn shown(hash: Option<rookery_protocol::Digest>) -> String {
    hash.map_or_else(|| "none".into(), |hash| hash.to_string())
}

fn print_effects(applied: &Applied, out: &mut impl Write) -> std::io::Result<()> {
    let (event, at_ms) = (applied.record.no, applied.record.at_ms);
    for output in &applied.outputs {
        let mut line = said(output);
        line["event"] = event.into();
        writeln!(out, "{line}")?;
    }
    for (id, effect) in &applied.effects {
        writeln!(
            out,
            "{}",
            json!({"event": event, "at_ms": at_ms, "index": id.index, "effect": asked(effect)})
        )?;
    }
    Ok(())
}

fn print_differences(player: &mut Player, out: &mut impl Write) -> std::io::Result<()> {
    let replayed: BTreeMap<u64, Arc<Output>> = numbered(player.game().part().recent());
    let last = player.game().part().last_seq();
    let recorded = numbered(player.recorded().recent());
    // What one of them does not have any more is no difference, nor is what was not played.
    let first = |outputs: &BTreeMap<u64, Arc<Output>>| outputs.keys().next().copied().unwrap_or(u64::MAX);
    let from = first(&replayed).max(first(&recorded));
    let numbers: std::collections::BTreeSet<u64> = replayed.keys().chain(recorded.keys()).copied().collect();
    for seq in numbers.into_iter().filter(|seq| (from..=last).contains(seq)) {
        let (then, now) = (recorded.get(&seq), replayed.get(&seq));
        if then != now {
            let shown = |output: Option<&Arc<Output>>| output.map(|output| said(output));
            writeln!(
                out,
                "{}",
                json!({"seq": seq, "recorded": shown(then), "replayed": shown(now)})
            )?;
        }
    }
    Ok(())
}

fn numbered<'a>(outputs: impl Iterator<Item = &'a Arc<Output>>) -> BTreeMap<u64, Arc<Output>> {
    outputs.map(|output| (output.seq, Arc::clone(output))).collect()
}

/// An output for people.
fn said(output: &Output) -> Value {
    let body = match &output.body {
        Body::Data { data } => json!({"data": payload(data)}),
        Body::Published { key, data } => json!({"key": key, "data": data.as_ref().map(payload)}),
        Body::Players { .. } | Body::Kicked { .. } | Body::Transferring => json!(output.body),
        Body::Joined(joined) => json!({"joined": joined.seat, "n": joined.n}),
    };
    json!({"seq": output.seq, "at_ms": output.at_ms, "to": output.audience, "said": body})
}

fn asked(effect: &Effect) -> Value {
    match effect {
        Effect::Tell { request, target, data } => json!({"tell": target, "request": request, "data": payload(data)}),
        Effect::Transfer {
            request,
            seat,
            player,
            target,
            ctx,
            ..
        } => json!({"transfer": target, "request": request, "seat": seat, "player": player, "ctx": payload(ctx)}),
        Effect::StorageWrite {
            request,
            owner,
            collection,
            key,
            value,
            version,
        } => json!({
            "write": format!("{collection}/{key}"), "request": request, "owner": owner,
            "value": value.as_ref().map(payload), "version": version,
        }),
        Effect::Say { .. }
        | Effect::Claim { .. }
        | Effect::Release { .. }
        | Effect::StorageRead { .. }
        | Effect::StorageScan { .. }
        | Effect::ContentRead { .. } => json!(effect),
    }
}

/// The JSON that it is, or base64.
fn payload(data: &Bytes) -> Value {
    serde_json::from_slice(data).unwrap_or_else(|_| BASE64_STANDARD.encode(data).into())
}
