//! One small match in five languages (examples/languages), and what all of them must answer: `conformance.txt` there is the table, a
//! line `> ..` an event and the lines after it all that comes of it. The committed components (Rust, C, AssemblyScript) always play;
//! others (JavaScript, Python, fresh builds) play when `ROOKERY_CONFORMANCE` names them, as scripts/languages does.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rookery_protocol::client::{LeaveReason, Role};
use rookery_protocol::{PlayerId, Seat};

use super::super::effect::Effect;
use super::super::event::{EndReason, Entry, Event, Outcome, Topic};
use super::super::part::{Admission, HostPart, Invitee};
use super::stage::{Stage, attachment, engine, occupant, start_record};
use super::{Applied, Ending, Match, RingIn};
use crate::wasm::Module;
use crate::wasm::host::LogLevel;

mod handed_over;
mod kept;

/// Read when the tests run: a table or a component that has changed needs no new build of the server.
const LANGUAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/languages");
const TABLE: &str = "conformance.txt";
const COMMITTED: &[&str] = &["rust", "c", "assemblyscript"];

/// Paths of more components, separated by colons.
const MORE: &str = "ROOKERY_CONFORMANCE";

/// Interpreters need milliseconds for their first call; what is tested is what a match says, not how fast.
const CALL_CPU_US: u64 = 200_000;

/// The language is what the component itself says in its manifest.
struct Candidate {
    language: String,
    module: Module,
    component: Vec<u8>,
}

/// All of them, each compiled once: the interpreters take a while.
fn candidates() -> &'static [Candidate] {
    static CANDIDATES: OnceLock<Vec<Candidate>> = OnceLock::new();
    CANDIDATES.get_or_init(compiled)
}

fn compiled() -> Vec<Candidate> {
    let more = std::env::var_os(MORE).unwrap_or_default();
    let more = std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty());
    let committed = COMMITTED.iter().copied().map(committed);
    committed.chain(more).map(|path| candidate(read(&path))).collect()
}

fn committed(language: &str) -> PathBuf {
    Path::new(LANGUAGES).join(language).join("conformance.wasm")
}

fn table() -> String {
    String::from_utf8(read(&Path::new(LANGUAGES).join(TABLE))).unwrap()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn candidate(component: Vec<u8>) -> Candidate {
    let module = engine().compile(&component).unwrap();
    let [(name, language)] = module.manifest().extra.as_slice() else {
        panic!("extra: {:?}", module.manifest().extra)
    };
    assert_eq!(name, "language");
    Candidate {
        language: language.clone(),
        module,
        component,
    }
}

#[test]
fn every_language_gives_the_answers_that_are_written_down() {
    let table = table();
    if std::env::var_os("ROOKERY_WRITE_GOLDEN").is_some() {
        let Candidate { module, .. } = &candidates()[0];
        let played = Play::of(module, module).script(&table);
        std::fs::write(Path::new(LANGUAGES).join(TABLE), played).unwrap();
        return;
    }
    for Candidate { language, module, .. } in candidates() {
        check(language, &Play::of(module, module).script(&table), &table);
    }
}

/// The first line that differs is what one wants to see.
fn check(language: &str, played: &str, expected: &str) {
    for (line, (said, expected)) in played.lines().zip(expected.lines()).enumerate() {
        assert_eq!(said, expected, "{language}, line {}; all of it:\n{played}", line + 1);
    }
    assert_eq!(
        played.lines().count(),
        expected.lines().count(),
        "{language} said more, or less:\n{played}"
    );
}

#[test]
fn every_language_describes_the_same_module() {
    let candidates = candidates();
    for (candidate, language) in candidates.iter().zip(COMMITTED) {
        assert_eq!(&candidate.language, language);
    }
    let mut manifests = candidates.iter().map(|candidate| candidate.module.manifest().clone());
    let mut first = manifests.next().unwrap();
    for mut manifest in manifests {
        first.extra.clear();
        manifest.extra.clear();
        assert_eq!(manifest, first);
    }
}

/// Every word of the language of messages occurs in the table, so that none is in the rules without being tested.
#[test]
fn the_table_uses_every_import_and_every_export() {
    let table = table();
    let events = || table.lines().filter_map(|line| line.strip_prefix("> "));
    for verb in VERBS {
        let (verb, _) = split(verb);
        let says = |event: &str| event.starts_with("say") && event.split(' ').nth(2) == Some(verb);
        assert!(events().any(says) || verb == "nonsense", "{verb}");
    }
    for event in [
        "start", "join", "leave", "say", "tick", "timer", "mail", "answer", "away", "operator", "resync", "save",
        "load",
    ] {
        assert!(events().any(|line| split(line).0 == event), "{event}");
    }
}

#[test]
fn random_play_is_the_same_in_every_language() {
    let candidates = candidates();
    let script = random_script(7, 1_000);
    let [first, others @ ..] = candidates else { panic!() };
    let expected = Play::of(&first.module, &first.module).script(&script);
    assert!(expected.lines().count() > 2_000, "nothing much happened:\n{expected}");
    for Candidate { language, module, .. } in others {
        check(language, &Play::of(module, module).script(&script), &expected);
    }
}

/// The state that one saves is what the next one goes on from: rules may be written anew in another language while a match runs.
#[test]
fn a_match_goes_on_in_another_language() {
    let candidates = candidates();
    let script = format!(
        "{}> save\n> load\n> tick 100\n{}",
        random_script(8, 100),
        random_events(9, 100)
    );
    let played = |from: &Candidate, to: &Candidate| Play::of(&from.module, &to.module).script(&script);
    let expected = played(&candidates[0], &candidates[0]);
    assert!(expected.contains("loaded=1.0.0"), "{expected}");
    for (index, from) in candidates.iter().enumerate() {
        let to = &candidates[(index + 1) % candidates.len()];
        check(
            &format!("{} to {}", from.language, to.language),
            &played(from, to),
            &expected,
        );
    }
}

/// A match, played by the lines of a script.
struct Play<'a> {
    module: &'a Module,
    /// Where it goes on after `> load`.
    next: &'a Module,
    invited: Vec<Invitee>,
    stage: Option<Stage>,
    saved: Bytes,
    told: Told,
    transcript: String,
}

/// What is written down only when it has changed.
#[derive(Debug, Default, PartialEq)]
struct Told {
    is_joinable: bool,
    label: Vec<(String, String)>,
    backfill: Option<u32>,
    timer: Option<(u64, u32)>,
}

impl<'a> Play<'a> {
    fn of(module: &'a Module, next: &'a Module) -> Play<'a> {
        Play {
            module,
            next,
            invited: Vec::new(),
            stage: None,
            saved: Bytes::new(),
            told: Told::default(),
            transcript: String::new(),
        }
    }

    /// Plays the events of a script and returns it with what came of them, in place of what stands there.
    fn script(mut self, script: &str) -> String {
        self.run(script);
        self.transcript
    }

    fn run(&mut self, script: &str) {
        for line in script.lines() {
            if let Some(event) = line.strip_prefix("> ") {
                self.write(line);
                self.event(event);
            } else if line.is_empty() || line.starts_with('#') {
                self.write(line);
            }
        }
    }

    fn write(&mut self, line: &str) {
        self.transcript += line;
        self.transcript.push('\n');
    }

    fn event(&mut self, line: &str) {
        let line = self.with_seats(line);
        let (word, rest) = split(&line);
        match word {
            "invite" => {
                let (person, rest) = split(rest);
                let (team, rest) = split(rest);
                let (party, properties) = split(rest);
                self.invited.push(Invitee {
                    player: PlayerId::from_u128(person.parse().unwrap()),
                    team: team.parse().unwrap(),
                    party: (party != "-").then(|| party.to_owned()),
                    properties: properties.to_owned(),
                });
            }
            "start" => self.start(rest),
            "load" if rest.is_empty() => self.load(self.saved.clone()),
            "load" => self.load(Bytes::copy_from_slice(rest.as_bytes())),
            "save" => {
                self.saved = self.stage().save().unwrap();
                self.write(&format!("state {}", String::from_utf8_lossy(&self.saved.clone())));
            }
            "wait" => self.stage().now_ms += rest.parse::<u64>().unwrap(),
            "join" => self.join(rest),
            _ => {
                let event = self.plain_event(word, rest);
                self.apply(event);
            }
        }
    }

    /// `~K` stands for a seat that is taken, the Kth in a circle: random play does not know who has left.
    fn with_seats(&self, line: &str) -> String {
        let seats = self.stage.iter().flat_map(|stage| stage.game.part().seats());
        let seats: Vec<Seat> = seats.map(|(seat, _)| seat).collect();
        let mut pieces = line.split('~');
        let mut whole = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let digits = piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
            let turn: usize = piece[..digits].parse().unwrap();
            let seat = seats.get(turn % seats.len().max(1)).copied().unwrap_or_default();
            whole += &format!("{seat}{}", &piece[digits..]);
        }
        whole
    }

    fn stage(&mut self) -> &mut Stage {
        self.stage.as_mut().expect("the match was started")
    }

    fn start(&mut self, rest: &str) {
        let (name, params) = split(rest);
        let mut start = start_record(self.module);
        start.name = (name != "-").then(|| name.to_owned());
        start.params = Bytes::copy_from_slice(params.as_bytes());
        start.invited = std::mem::take(&mut self.invited);
        start.limits.call_cpu_us = CALL_CPU_US;
        let mut game = Match::create(self.module, start).unwrap();
        game.remember();
        self.stage = Some(Stage {
            game,
            now_ms: 0,
            last: Applied::default(),
        });
        self.told = Told {
            is_joinable: true,
            ..Told::default()
        };
        self.apply(Event::Start);
    }

    /// Goes on from a state, on a fresh instance.
    fn load(&mut self, state: Bytes) {
        let next = self.next;
        let saved_by = self.module.manifest().version.clone();
        let stage = self.stage();
        let part = HostPart::decode(&stage.game.encode_part(RingIn::Encoding)).unwrap();
        stage.game = Match::restore(next, part).unwrap();
        stage.game.remember();
        self.apply(Event::Load { saved_by, state });
    }

    fn join(&mut self, rest: &str) {
        let (person, rest) = split(rest);
        let (role, ctx) = split(rest);
        let role = match role {
            "player" => Role::Player,
            "spectator" => Role::Spectator,
            other => panic!("no role {other}"),
        };
        let person: u128 = person.parse().unwrap();
        let admission = self.stage().game.part().admit(PlayerId::from_u128(person), role);
        let Admission::Free { seat, team } = admission else {
            self.write("no seat");
            return;
        };
        let occupant = occupant(person, role, team);
        let ctx = Bytes::copy_from_slice(ctx.as_bytes());
        self.apply(Event::Join { seat, occupant, ctx });
    }

    /// Events that one line says in full.
    fn plain_event(&mut self, word: &str, rest: &str) -> Event {
        let (first, last) = split(rest);
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let seat = || first.parse::<Seat>().unwrap();
        let signal = |topic: Topic| Event::Signal { topic };
        match word {
            "leave" => Event::Leave {
                seat: seat(),
                reason: match last {
                    "left" => LeaveReason::Left,
                    "timed-out" => LeaveReason::TimedOut,
                    "ended" => LeaveReason::Ended,
                    other => panic!("no reason {other}"),
                },
            },
            "say" => Event::Message {
                seat: seat(),
                n: 0,
                data: bytes(last),
            },
            "say#5" => Event::Message {
                seat: seat(),
                n: 5,
                data: bytes(last),
            },
            "tick" => Event::Tick {
                elapsed_ms: first.parse().unwrap(),
            },
            "timer" => Event::Timer {
                id: first.parse().unwrap(),
            },
            "mail" => Event::Receive {
                sender: first.to_owned(),
                data: bytes(last),
                stamp: None,
            },
            "answer" => self.answer(first.parse().unwrap(), last),
            "away" => signal(Topic::SeatAway { seat: seat() }),
            "operator" => signal(Topic::Operator { data: rest.to_owned() }),
            "resumed" => signal(Topic::MatchResumed {
                reason: rest.to_owned(),
            }),
            "content" => signal(Topic::ContentChanged {
                collection: first.to_owned(),
                key: last.to_owned(),
            }),
            "back" => Event::Resync {
                seat: seat(),
                attach: Some(attachment(99)),
            },
            "resync" => Event::Resync {
                seat: seat(),
                attach: None,
            },
            "kick" => Event::Kick {
                seat: seat(),
                reason: last.to_owned(),
            },
            "end" => Event::End {
                reason: EndReason::Operator,
            },
            other => panic!("no event {other}"),
        }
    }

    /// `error WORD`, or `ok` and for each entry its key, version and data. It answers the request that waits under this number.
    fn answer(&mut self, request: u32, rest: &str) -> Event {
        let outbox = self.stage().game.part().outbox();
        let waits = outbox.iter().find(|(_, effect)| effect.request() == Some(request));
        let effect = waits.map(|(id, _)| *id);
        let words: Vec<&str> = rest.split(' ').collect();
        let outcome = match words.as_slice() {
            ["error", error] => Err((*error).to_owned()),
            ["ok", entries @ ..] => Ok(entries
                .chunks_exact(3)
                .map(|entry| Entry {
                    key: entry[0].to_owned(),
                    version: entry[1].to_owned(),
                    data: Bytes::copy_from_slice(entry[2].as_bytes()),
                })
                .collect()),
            other => panic!("no outcome {other:?}"),
        };
        Event::Answer {
            request,
            effect,
            outcome,
        }
    }

    fn apply(&mut self, event: Event) {
        self.stage().apply(event);
        let stage = self.stage();
        let mut lines = stage.heard();
        let last = &stage.last;
        match last.record.outcome {
            Outcome::Applied => {}
            Outcome::Refused => lines.push(format!("refused {}", last.refused.as_deref().unwrap_or_default())),
            Outcome::Trapped(kind) => lines.push(format!("trapped {}", kind.as_str())),
            Outcome::Stale => lines.push("stale".into()),
        }
        lines.extend(last.effects.iter().map(|(_, effect)| effect_text(effect)));
        if let Some(given_up) = &last.given_up {
            lines.push(format!("given up: {given_up}"));
        }
        // What a language says of a trap is its own business.
        if last.failure.is_none() {
            lines.extend(
                last.log
                    .iter()
                    .map(|(level, line)| format!("log {} {line}", level_text(*level))),
            );
        }
        match &last.ended {
            Some(Ending::Finished { outcome }) => lines.push(format!("finished {}", String::from_utf8_lossy(outcome))),
            Some(Ending::Stopped(reason)) => lines.push(format!("stopped {reason:?}")),
            None => {}
        }
        let follow_ups = last.follow_ups.clone();
        let now = Told::of(stage.game.part());
        lines.extend(self.told.changes(&now));
        self.told = now;
        for line in lines {
            self.write(line.trim_end());
        }
        for event in follow_ups {
            self.apply(event);
        }
    }
}

impl Told {
    fn of(part: &HostPart) -> Told {
        Told {
            is_joinable: part.is_joinable(),
            label: part.label().to_vec(),
            backfill: part.backfill(),
            timer: part.timers.first(),
        }
    }

    fn changes(&self, now: &Told) -> Vec<String> {
        let mut lines = Vec::new();
        if self.is_joinable != now.is_joinable {
            lines.push(format!("joinable {}", now.is_joinable));
        }
        if self.label != now.label {
            let pairs: Vec<String> = now
                .label
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            lines.push(format!("label {}", pairs.join(" ")));
        }
        if self.backfill != now.backfill {
            lines.push(
                now.backfill
                    .map_or("no backfill".into(), |seats| format!("backfill {seats}")),
            );
        }
        if self.timer != now.timer {
            let next = now.timer.map(|(due_ms, id)| format!("next timer {id} at {due_ms}"));
            lines.push(next.unwrap_or("no timer".into()));
        }
        lines
    }
}

fn split(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

fn level_text(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

fn effect_text(effect: &Effect) -> String {
    let text = |data: &Bytes| String::from_utf8_lossy(data).into_owned();
    let option = |value: &Option<String>| value.as_ref().map_or("-".to_owned(), |value| format!("{value:?}"));
    match effect {
        Effect::Tell { request, target, data } => format!("tell {request} {target} {}", text(data)),
        Effect::Transfer {
            request,
            seat,
            target,
            ctx,
            ..
        } => format!("transfer {request} {seat} {target} {}", text(ctx)),
        Effect::Say { channel, text } => format!("say {channel} {text}"),
        Effect::Claim { request, name } => format!("claim {request} {name}"),
        Effect::Release { name } => format!("release {name}"),
        Effect::StorageRead {
            request,
            owner,
            collection,
            key,
        } => format!("read {request} {} {collection} {key}", option(owner)),
        Effect::StorageWrite {
            request,
            owner,
            collection,
            key,
            value,
            version,
        } => {
            let value = value.as_ref().map(text);
            let (owner, version, value) = (option(owner), option(version), option(&value));
            format!("write {request} {owner} {collection} {key} {version} {value}")
        }
        Effect::StorageScan {
            request,
            owner,
            collection,
            prefix,
            limit,
        } => format!("scan {request} {} {collection} {limit} {prefix}", option(owner)),
        Effect::ContentRead {
            request,
            collection,
            key,
        } => format!("content {request} {collection} {key}"),
    }
}

/// Every verb, with arguments in which `S` stands for a seat and `N` for a number.
const VERBS: &[&str] = &[
    "send everyone hello to N",
    "send players N",
    "send spectators N",
    "send one:S psst",
    "send some:S,S,S a few",
    "send except:S the others",
    "publish - key.S vN",
    "publish - key.S -",
    "publish S own.N vN",
    "publish S own.N .",
    "kick S too slow",
    "bot robot N",
    "joinable yes",
    "joinable no",
    "label a=N b=c=d flag",
    "label",
    "now",
    "timer 3 N",
    "timer 7 N",
    "cancel 3",
    "bits",
    "below N",
    "unit",
    "log debug line N",
    "log info line",
    "log warn line",
    "log error line",
    "tell N town hello N",
    "transfer N S town with N",
    "say lobby hello N",
    "claim N inn",
    "release inn",
    "read N - scores best",
    "read N pS scores best of N",
    "write N - scores best - vN",
    "write N pS scores best . .",
    "write N pS scores best v1 -",
    "scan N - scores 10 b",
    "scan N pS scores N .",
    "content N items sword",
    "backfill N",
    "backfill -",
    "keep something: ünïcödé N",
    "keep",
    "kept",
    "number",
    "spend N",
    "grow N",
    "nonsense N",
    "trap goodbye",
    "finish N",
];

fn random_script(seed: u64, events: usize) -> String {
    format!(
        "> start zone-N with params\n> join 1 player\n> join 2 player hello\n{}",
        random_events(seed, events)
    )
}

/// Events of every kind but those that end a match.
fn random_events(seed: u64, events: usize) -> String {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut script = String::new();
    let mut next = |limit: u64| random.next_u64() % limit;
    for person in (0..events).map(|index| 10 + seed * 10_000 + index as u64) {
        let (seat, number) = (format!("~{}", next(6)), next(5_000));
        let event = match next(16) {
            0 => format!("join {person} player ctx {number}"),
            1 => format!("join {person} spectator"),
            2 => format!("join {person} player refuse you"),
            3 => format!("leave {seat} left"),
            4 => format!("tick {number}"),
            5 => format!("timer {}", number % 12),
            6 => format!("mail town hello {number}"),
            7 => format!("answer {number} ok key v1 data key v{number} more"),
            8 => format!("answer {number} error conflict"),
            9 => format!("away {seat}"),
            10 => format!("back {seat}"),
            11 => format!("wait {number}"),
            _ => {
                let verb = VERBS[next(VERBS.len() as u64 - 2) as usize];
                let verb = verb.replace('S', &seat).replace('N', &number.to_string());
                format!("say ~{} {verb}", next(6))
            }
        };
        script += &format!("> {event}\n");
    }
    script
}
