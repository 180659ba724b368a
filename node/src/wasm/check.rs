//! What `rookery module check` finds out: everything that compiling refuses (so does publishing), and a short match that is
//! played with nobody watching. A module that passes can still be wrong; one that fails here fails its first player.

use std::fmt;

use bytes::Bytes;
use rookery_protocol::client::{LeaveReason, PayloadCodec, Role};
use rookery_protocol::{Digest, MatchId, NodeName, PlayerId, SessionId};

use super::engine::Engine;
use super::host::LogLevel;
use super::manifest::Manifest;
use super::module::digest_of;
use crate::matches::event::{Attachment, Event, Occupant, Outcome, Topic};
use crate::matches::machine::{Applied, Match};
use crate::matches::part::{Admission, StartRecord};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Note,
    Warning,
    Error,
}

/// One thing that the author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub text: String,
}

/// All findings about a component, in the order in which they came up.
#[derive(Debug, Clone)]
pub struct Report {
    pub digest: Digest,
    /// None if the component did not get as far as describing itself.
    pub manifest: Option<Manifest>,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether it may be published.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(manifest) = &self.manifest {
            writeln!(f, "{} {}", manifest.name, manifest.version)?;
        }
        writeln!(f, "digest {}", self.digest)?;
        if let Some(manifest) = &self.manifest {
            writeln!(f, "{}", manifest.summary())?;
        }
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Note => "note",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            writeln!(f, "{severity}: {}", finding.text)?;
        }
        f.write_str(if self.is_ok() { "ok" } else { "not usable" })
    }
}

pub(super) fn check(engine: &Engine, component: &[u8]) -> Report {
    let mut report = Report {
        digest: digest_of(component),
        manifest: None,
        findings: Vec::new(),
    };
    let module = match engine.compile(component) {
        Ok(module) => module,
        Err(error) => {
            report.findings.push(Finding {
                severity: Severity::Error,
                text: error.to_string(),
            });
            return report;
        }
    };
    report.manifest = Some(module.manifest().clone());
    if let Err(reason) = module.captures() {
        let (severity, text) = match module.manifest().declines_images() {
            true => (
                Severity::Warning,
                format!("a match lives on by save and load only, for no image is taken of it: {reason}"),
            ),
            false => (Severity::Error, reason.remedy()),
        };
        report.findings.push(Finding { severity, text });
    }
    let start = StartRecord::new(MatchId::from_u128(0), &module, 1, 0);
    match Match::create(&module, start) {
        Ok(game_match) => DryRun {
            game_match,
            findings: &mut report.findings,
            at_ms: 0,
        }
        .play(),
        Err(failure) => {
            report.findings.push(Finding {
                severity: Severity::Error,
                text: format!("instantiating failed, {failure}"),
            });
        }
    }
    report
}

struct DryRun<'a> {
    game_match: Match,
    findings: &'a mut Vec<Finding>,
    at_ms: u64,
}

impl DryRun<'_> {
    fn play(mut self) {
        self.game();
        // `save` is asked last: what it does to a match that goes on is not the dry run's business.
        if self.game_match.is_running() {
            self.step("save", Event::Save);
        }
    }

    /// Ends early when the match does.
    fn game(&mut self) -> Option<()> {
        self.step("start", Event::Start)?;
        let player = PlayerId::from_u128(1);
        let (seat, team) = match self.game_match.part().admit(player, Role::Player) {
            Admission::Free { seat, team } => (seat, team),
            Admission::Seated { .. } | Admission::Full | Admission::Closed => {
                self.find(
                    Severity::Note,
                    "takes no player right after start, so join was not tried".into(),
                );
                return self.idle();
            }
        };
        let attachment = Attachment {
            number: 1,
            session: SessionId::from_u128(1),
            node: "check".parse::<NodeName>().expect("a node's name"),
            generation: 1,
        };
        let occupant = Occupant {
            player,
            name: "Ana".into(),
            role: Role::Player,
            team,
            attachment: attachment.clone(),
        };
        self.step(
            "join",
            Event::Join {
                seat,
                occupant,
                ctx: Bytes::new(),
            },
        )?;
        if self.game_match.part().seat(seat).is_none() {
            return self.idle();
        }
        let data = match self.game_match.part().start().codec {
            PayloadCodec::Json => Bytes::from_static(b"{}"),
            PayloadCodec::Binary => Bytes::from_static(&[0]),
        };
        self.step("message", Event::Message { seat, n: 1, data })?;
        self.idle()?;
        self.step(
            "signal seat.away",
            Event::Signal {
                topic: Topic::SeatAway { seat },
            },
        )?;
        self.step(
            "resync",
            Event::Resync {
                seat,
                attach: Some(attachment),
            },
        )?;
        self.step(
            "leave",
            Event::Leave {
                seat,
                reason: LeaveReason::Left,
            },
        )
    }

    /// Some ticks, where the module has them.
    fn idle(&mut self) -> Option<()> {
        for _ in 0..3 {
            let part = self.game_match.part();
            let Some(due_ms) = part.next_tick_ms() else { break };
            let Some(tick) = part.due_tick(due_ms) else { break };
            self.at_ms = due_ms;
            self.step(
                "tick",
                Event::Tick {
                    elapsed_ms: tick.elapsed_ms,
                },
            )?;
        }
        Some(())
    }

    fn step(&mut self, name: &str, event: Event) -> Option<()> {
        let mut applied = Applied::default();
        self.game_match.apply(self.at_ms, event, &mut applied);
        if let Some(failure) = applied.failure {
            // A panic's words are the last that it logged.
            let words = match applied.log.last() {
                Some((LogLevel::Error, words)) => format!("; its log says: {words}"),
                Some(_) | None => String::new(),
            };
            self.find(Severity::Error, format!("{name} failed, {failure}{words}"));
        } else if applied.record.outcome == Outcome::Refused {
            let reason = applied.refused.unwrap_or_default();
            let severity = if name == "start" {
                Severity::Error
            } else {
                Severity::Warning
            };
            self.find(severity, format!("{name} was refused without any params: {reason}"));
            return (name != "start").then_some(());
        } else if applied.ended.is_some() {
            self.find(Severity::Note, format!("the match ended at {name}"));
        }
        for event in applied.follow_ups {
            self.step("leave", event)?;
        }
        self.game_match.is_running().then_some(())
    }

    fn find(&mut self, severity: Severity, text: String) {
        self.findings.push(Finding { severity, text });
    }
}
