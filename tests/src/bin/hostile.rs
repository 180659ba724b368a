//! Plays every way to misbehave that the runtime's own tests know (`node/src/matches/machine/hostile/cases.rs`) against a node, beside
//! hundreds of matches that tick: whether each comes to what the table says, how late the others tick meanwhile by the node's own
//! histogram, and whether the node's memory returns. `scripts/bench hostile` starts the node, runs it and holds it against our limits.
//!
//!     hostile CLIENT OPS PID CASES [MATCHES [SECONDS]]
//!
//! prints one line of JSON, and on standard error a line a case. `CASES` is the directory that the runtime's test writes. Every case
//! is played twice: once so that whatever is made once is there, and then for `SECONDS` while the others are watched.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rookery_tests::harness::{Account, Client, Encoding, Ops};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long what a match does by itself may take to show.
const SHOWN_WITHIN: Duration = Duration::from_secs(20);

/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Messages to one match that fail, before another one takes its place: fifty failures within a minute would end it, and what is kept of
/// them for the author is asked of one that goes on.
const FAILURES_MAX: u64 = 40;

/// The same of messages that do not.
const MESSAGES_MAX: u64 = 1_000;

/// How long a match that does something by itself is left alone, when nothing is to come of it.
const LEFT_ALONE: Duration = Duration::from_millis(2_500);

/// A match that is over is kept for ten seconds; then nothing of it is there.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    file: String,
    export: String,
    trigger: String,
    expected: Expected,
    kind: Option<String>,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    /// The call is cut off; whether the match goes on is not looked at.
    Undone,
    Fatal,
    Borne,
    Unwritten,
    Slow,
}

impl Case {
    /// Whether a call may have been cut off for this. Ten thousand calls of the host are some 10 ms, and either limit may be the first.
    fn may_be(&self, kind: &Value) -> bool {
        let expected = self.kind.as_deref();
        kind.as_str() == expected || (expected == Some("host_calls") && kind == "time")
    }

    /// The metrics of which one counts it.
    fn counters(&self) -> Vec<String> {
        let traps = |kind: &str| format!("rookery_match_traps_total{{kind=\"{kind}\",module=\"hostile\"}}");
        match (self.kind.as_deref(), self.expected) {
            (Some("host_calls"), _) => vec![traps("host_calls"), traps("time")],
            (Some(kind), _) => vec![traps(kind)],
            (None, Expected::Unwritten) => vec!["rookery_match_log_dropped_total{module=\"hostile\"}".into()],
            (None, _) => Vec::new(),
        }
    }
}

/// How late ticks began: how many by each bound, in seconds.
#[derive(Debug, Clone, Default)]
struct Lateness(Vec<(f64, f64)>);

impl Lateness {
    fn read(metrics: &str) -> Lateness {
        let samples = metrics.lines().filter_map(|line| {
            let rest = line.strip_prefix("rookery_match_tick_late_seconds_bucket{module=\"ticker\",le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().ok()?
            };
            Some((bound, count.parse().ok()?))
        });
        Lateness(samples.collect())
    }

    fn since(&self, before: &Lateness) -> Lateness {
        let both = self.0.iter().zip(&before.0);
        Lateness(both.map(|((bound, count), (_, then))| (*bound, count - then)).collect())
    }

    fn ticks(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The bound below which 99 of 100 lie, in milliseconds; 10,000 when it is above the last.
    fn p99_ms(&self) -> f64 {
        let enough = 0.99 * self.ticks();
        let bound = self.0.iter().find(|(_, count)| *count >= enough);
        bound.map_or(0.0, |(bound, _)| (bound * 1e3).min(10_000.0))
    }
}

/// Where everything is, and who plays.
struct Driver {
    client: SocketAddr,
    ops: Ops,
    ana: Client,
    ben: Account,
    wrong: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client, ops, pid, dir, rest @ ..] = &arguments[..] else {
        anyhow::bail!("hostile CLIENT OPS PID CASES [MATCHES [SECONDS]]");
    };
    let client: SocketAddr = client.parse().context("CLIENT is an address")?;
    let ops = Ops::new(ops.parse().context("OPS is an address")?);
    let pid: u32 = pid.parse().context("PID is a number")?;
    let matches: usize = rest.first().map_or(Ok(500), |count| count.parse())?;
    let seconds: f64 = rest.get(1).map_or(Ok(2.0), |seconds| seconds.parse())?;
    let cases = read_plan(&PathBuf::from(dir))?;

    let account = Account::guest(client).await;
    let ana = Client::open(client, Encoding::Json, &account).await;
    let ben = Account::guest(client).await;
    for _ in 0..matches {
        ana.create("ticker").await;
    }
    let mut digests = Vec::new();
    for case in &cases {
        let component = std::fs::read(Path::new(dir).join(&case.file))?;
        digests.push(ops.publish(&component).await);
    }
    let mut driver = Driver {
        client,
        ops,
        ana,
        ben,
        wrong: Vec::new(),
    };

    let beginning = driver.lateness().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let quiet = driver.lateness().await.since(&beginning);
    for (case, digest) in cases.iter().zip(&digests) {
        driver.play(case, digest, Duration::ZERO).await;
    }
    tokio::time::sleep(SETTLED_AFTER).await;

    let before_kib = resident_kib(pid)?;
    let began = driver.lateness().await;
    let (mut worst_ms, mut worst) = (0.0, String::new());
    for (case, digest) in cases.iter().zip(&digests) {
        let before = driver.lateness().await;
        let played = driver.play(case, digest, Duration::from_secs_f64(seconds)).await;
        let late = driver.lateness().await.since(&before);
        let p99_ms = late.p99_ms();
        eprintln!(
            "{:>6.1} ms p99 of {:>6} ticks, {played:>5} times: {}",
            p99_ms,
            late.ticks(),
            case.name
        );
        if p99_ms > worst_ms {
            (worst_ms, worst) = (p99_ms, case.name.clone());
        }
    }
    let all = driver.lateness().await.since(&began);
    tokio::time::sleep(SETTLED_AFTER).await;
    let after_kib = resident_kib(pid)?;
    let running = "rookery_matches{module=\"ticker\",role=\"owner\"}";
    if driver.ops.metric(running).await != Some(matches as f64) {
        driver.wrong.push("a match beside them has ended".into());
    }
    for wrong in &driver.wrong {
        eprintln!("WRONG: {wrong}");
    }
    println!(
        "{}",
        json!({
            "cases": cases.len(),
            "wrong": driver.wrong.len(),
            "ticks": all.ticks(),
            "quiet_p99_ms": quiet.p99_ms(),
            "p99_ms": all.p99_ms(),
            "worst_p99_ms": worst_ms,
            "worst": worst,
            "rss_before_kib": before_kib,
            "rss_after_kib": after_kib,
            "rss_grown_kib": after_kib as i64 - before_kib as i64,
        })
    );
    ensure!(
        driver.wrong.is_empty(),
        "{} cases came to something else",
        driver.wrong.len()
    );
    Ok(())
}

fn read_plan(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let path = dir.join("plan.jsonl");
    let plan = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    plan.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.context("a process has a resident set")
}

impl Driver {
    async fn lateness(&self) -> Lateness {
        Lateness::read(&self.ops.metrics().await)
    }

    /// What these come to together.
    async fn counted(&self, samples: &[String]) -> f64 {
        let mut sum = 0.0;
        for sample in samples {
            sum += self.ops.metric(sample).await.unwrap_or_default();
        }
        sum
    }

    /// Plays a case again and again for this long, once at least; returns how often.
    async fn play(&mut self, case: &Case, digest: &str, time: Duration) -> u64 {
        let counters = case.counters();
        let before = self.counted(&counters).await;
        let (since, mut times) = (Instant::now(), 0);
        loop {
            times += 1;
            if let Err(wrong) = self.once(case, digest, since + time).await {
                self.wrong.push(format!("{}: {wrong:#}", case.name));
                break;
            }
            if since.elapsed() >= time {
                break;
            }
        }
        if !counters.is_empty() && self.counted(&counters).await <= before {
            self.wrong
                .push(format!("{}: {} have not moved", case.name, counters.join(" and ")));
        }
        times
    }

    /// One match of it.
    async fn once(&self, case: &Case, digest: &str, until: Instant) -> anyhow::Result<()> {
        let created = self
            .ana
            .create_with(json!({"module": format!("hostile@{digest}")}))
            .await;
        if case.export == "start" && case.expected == Expected::Undone {
            let refused = created.err().context("it was created")?;
            ensure!(
                refused.code == "module.invalid" && refused.details["reason"].as_str() == case.kind.as_deref(),
                "it was refused as {refused:?}"
            );
            return Ok(());
        }
        let target = created.map_err(|refused| anyhow::anyhow!("it was not created: {refused:?}"))?;
        let played = self.played(case, &target, until).await;
        self.ops.post(&format!("/v1/matches/{target}/end"), json!({})).await;
        played
    }

    async fn played(&self, case: &Case, target: &str, until: Instant) -> anyhow::Result<()> {
        // One that cannot be put back may be over before anybody has joined it.
        let joined = match case.expected {
            Expected::Fatal => Ok(Value::Null),
            Expected::Undone | Expected::Borne | Expected::Unwritten | Expected::Slow => self.ana.join(target).await,
        };
        match (&case.trigger[..], joined) {
            ("join", Err(refused)) if case.expected == Expected::Undone => {
                ensure!(
                    refused.code == "match.input_failed",
                    "the join was refused as {refused:?}"
                );
            }
            (_, Err(refused)) => anyhow::bail!("the join was refused as {refused:?}"),
            ("leave", Ok(_)) => {
                let left = self.ana.ask("match.leave", json!({"match": target})).await;
                ensure!(left.is_ok(), "leaving was refused as {left:?}");
            }
            ("signal", Ok(_)) => {
                let ben = Client::open(self.client, Encoding::MsgPack, &self.ben).await;
                let joined = ben.join(target).await;
                ensure!(joined.is_ok(), "the second join was refused as {joined:?}");
            }
            ("resync", Ok(_)) => self.ana.tell("match.join", json!({"match": target})).await,
            ("message", Ok(_)) if case.expected == Expected::Slow => return self.slowly(target, until).await,
            ("message", Ok(_)) => self.messages(case, target, until).await?,
            (_, Ok(_)) => {}
        }
        let Some(kind) = &case.kind else {
            if case.trigger != "message" {
                tokio::time::sleep(LEFT_ALONE).await;
            }
            let view = self.ops.match_view(target).await;
            let unhurt = view["status"] == "running" && view["failures"].as_array().is_none_or(Vec::is_empty);
            ensure!(unhurt, "it was not borne: {view}");
            return Ok(());
        };
        let failure = self.failure(case, target).await?;
        let says = |said: &str| failure["kind"] != kind.as_str() || said.contains(&case.message);
        ensure!(
            case.may_be(&failure["kind"])
                && failure["message"]
                    .as_str()
                    .map_or(case.expected == Expected::Fatal, says),
            "the failure is {failure}"
        );
        Ok(())
    }

    /// The failure of this export, as it is kept for the author.
    async fn failure(&self, case: &Case, target: &str) -> anyhow::Result<Value> {
        let since = Instant::now();
        loop {
            let view = self.ops.match_view(target).await;
            let failures = view["failures"].as_array().cloned().unwrap_or_default();
            // The row of one that has failed for good says why, and no more.
            if case.expected == Expected::Fatal && view["status"] == "failed" {
                return Ok(json!({"kind": view["reason"]}));
            }
            if let Some(failure) = failures
                .into_iter()
                .find(|failure| failure["call"] == case.export.as_str())
            {
                return Ok(failure);
            }
            ensure!(since.elapsed() < SHOWN_WITHIN, "no failure is kept: {view}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Messages, one after the other, until there is no more time, or the match has had enough.
    async fn messages(&self, case: &Case, target: &str, until: Instant) -> anyhow::Result<()> {
        let mut failed = 0;
        for n in 1..=MESSAGES_MAX {
            let answer = self
                .ana
                .ask("match.send", json!({"match": target, "n": n, "data": "go"}))
                .await;
            match (answer, case.expected) {
                (Ok(_), _) => {}
                (Err(refused), Expected::Undone) if refused.code == "match.input_failed" => {
                    ensure!(case.may_be(&refused.details["reason"]), "{refused:?}");
                    failed += 1;
                }
                // It has failed for good.
                (Err(_), Expected::Undone) => break,
                (Err(refused), _) => anyhow::bail!("message {n} was refused as {refused:?}"),
            }
            let has_failed = failed > 0 || case.expected != Expected::Undone || case.export != case.trigger;
            if failed == FAILURES_MAX || has_failed && Instant::now() >= until {
                break;
            }
            // What is borne is heard by its sender, who is to be able to read all of it.
            if failed == 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Finds out how slow a call may be, and is that slow.
    async fn slowly(&self, target: &str, until: Instant) -> anyhow::Result<()> {
        let mut n = 0;
        let mut is_borne = async |len: usize| {
            n += 1;
            let data = "x".repeat(len);
            let answer = self
                .ana
                .ask("match.send", json!({"match": target, "n": n, "data": data}))
                .await;
            match answer {
                Ok(_) => Ok(true),
                Err(refused) if refused.code == "match.input_failed" && refused.details["reason"] == "time" => {
                    Ok(false)
                }
                Err(refused) => Err(anyhow::anyhow!("a slow message was refused as {refused:?}")),
            }
        };
        let mut borne = 8;
        while is_borne(2 * borne).await? {
            borne *= 2;
            ensure!(borne < 1 << 16, "no message is too slow");
        }
        let mut too_slow = 2 * borne;
        while too_slow - borne > borne / 32 + 1 {
            let between = borne.midpoint(too_slow);
            match is_borne(between).await? {
                true => borne = between,
                false => too_slow = between,
            }
        }
        let (mut times, mut failed) = (0, 0);
        while Instant::now() < until {
            times += 1;
            failed += u32::from(!is_borne(borne * 9 / 10).await?);
        }
        ensure!(
            failed * 10 <= times,
            "{failed} of {times} messages just under the budget were cut off"
        );
        Ok(())
    }
}
