//! The conformance match in Rust. What it does is said in ../README.md; the same match is written beside it in four other languages,
//! and ../conformance.txt says what all five answer.

use std::hint::black_box;

use rookery_sdk::prelude::*;

struct Conformance {
    /// How many things were heard, and a hash over all of them.
    count: u32,
    hash: u32,
    /// Moved by every tick: arithmetic that must give the same bits everywhere.
    clock: f64,
    /// What somebody asked to be kept.
    kept: String,
    /// What `grow` took.
    held: Vec<u8>,
}

impl Match for Conformance {
    fn manifest() -> Manifest {
        Manifest::binary("conformance")
            .version("1.0.0")
            .players(1..=4)
            .spectators(2)
            .tick_hz(10)
            .grace_ms(5_000)
            .quick_play()
            .extra("language", "rust")
    }

    fn start(ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        let params = text(&setup.params);
        if let Some(reason) = params.strip_prefix("refuse ") {
            return Err(reason.into());
        }
        let mut conformance = Self::new();
        let name = setup.name.as_deref().unwrap_or("-");
        ctx.publish("match", format!("{} {name} {params}", setup.match_id).as_bytes());
        for (index, invitee) in setup.invited.iter().enumerate() {
            let party = invitee.party.as_deref().unwrap_or("-");
            let value = format!("{} {} {party} {}", invitee.player_id, invitee.team, invitee.properties);
            ctx.publish(&format!("invited.{index}"), value.as_bytes());
        }
        let unix_ms = ctx.unix_ms();
        ctx.info(&format!("started at {unix_ms}"));
        conformance.announce(ctx, &format!("started {}", setup.invited.len()));
        Ok(conformance)
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, data: Payload) -> Result<(), Refusal> {
        let data = text(&data);
        if let Some(reason) = data.strip_prefix("refuse ") {
            return Err(reason.into());
        }
        let role = match player.role {
            Role::Player => "player",
            Role::Spectator => "spectator",
            Role::Bot => "bot",
        };
        let team = player.team.map_or("-".to_owned(), |team| team.to_string());
        let mut line = format!(
            "joined {} {role} {team} {} {} {}",
            player.seat,
            player.id,
            player.name,
            player.extra.len()
        );
        for (name, value) in &player.extra {
            line += &format!(" {name}={value}");
        }
        self.announce(ctx, &format!("{line} {data}"));
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, reason: LeaveReason) {
        let reason = match reason {
            LeaveReason::Left => "left",
            LeaveReason::TimedOut => "timed-out",
            LeaveReason::Kicked => "kicked",
            LeaveReason::Transferred => "transferred",
            LeaveReason::Ended => "ended",
        };
        self.announce(ctx, &format!("left {seat} {reason}"));
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        self.hear(&input);
        let message = text(&input);
        if let Some(reply) = self.obey(ctx, &message) {
            ctx.send(from, reply.as_bytes());
        }
    }

    fn tick(&mut self, ctx: &mut Context, elapsed_ms: u32) {
        self.clock = self.clock * 1.0001 + f64::from(elapsed_ms) / 3.0;
        ctx.publish("clock", halves(self.clock.to_bits()).as_bytes());
    }

    fn timer(&mut self, ctx: &mut Context, id: u32) {
        let now_ms = ctx.now_ms();
        self.announce(ctx, &format!("timer {id} {now_ms}"));
    }

    fn receive(&mut self, ctx: &mut Context, sender: &str, data: Payload) {
        self.announce(ctx, &format!("mail {sender} {}", text(&data)));
    }

    fn answer(&mut self, ctx: &mut Context, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        let mut line = format!("answer {request}");
        match outcome {
            Ok(entries) => {
                line += " ok";
                for entry in entries {
                    line += &format!(" {} {} {}", entry.key, entry.version, text(&entry.data));
                }
            }
            Err(failure) => line += &format!(" error {}", word_of(&failure)),
        }
        self.announce(ctx, &line);
    }

    fn signal(&mut self, ctx: &mut Context, signal: Signal) {
        self.announce(ctx, &format!("signal {} {}", signal.topic, signal.data));
    }

    fn resync(&mut self, ctx: &mut Context, seat: Seat) {
        ctx.send(seat, format!("view {}", self.view()).as_bytes());
    }

    fn save(&self) -> Vec<u8> {
        let (count, hash, clock) = (self.count, self.hash, halves(self.clock.to_bits()));
        format!("v1 {count} {hash} {clock} {}", self.kept).into_bytes()
    }

    fn load(ctx: &mut Context, _setup: &Setup, saved: Saved) -> Result<Self, Refusal> {
        let state = text(&saved.state);
        let Some(state) = state.strip_prefix("v1 ") else {
            return Err("not a state of this match".into());
        };
        let mut words = Words(state);
        let mut conformance = Self::new();
        conformance.count = words.number();
        conformance.hash = words.number();
        let (high, low) = (words.number(), words.number());
        conformance.clock = f64::from_bits(u64::from(high) << 32 | u64::from(low));
        conformance.kept = words.rest().to_owned();
        ctx.publish("loaded", format!("{} {}", saved.by, conformance.count).as_bytes());
        Ok(conformance)
    }
}

rookery_sdk::export!(Conformance);

impl Conformance {
    fn new() -> Self {
        Self {
            count: 0,
            hash: 2_166_136_261,
            clock: 0.0,
            kept: String::new(),
            held: Vec::new(),
        }
    }

    /// Takes something into the count and the hash (FNV-1a).
    fn hear(&mut self, heard: &[u8]) {
        self.count = self.count.wrapping_add(1);
        for byte in heard {
            self.hash = (self.hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
        }
    }

    fn announce(&mut self, ctx: &mut Context, line: &str) {
        self.hear(line.as_bytes());
        ctx.send(To::Everyone, line.as_bytes());
    }

    fn view(&self) -> String {
        format!("{} {} {}", self.count, self.hash, self.kept)
    }

    /// Does what a message says, and returns what its sender is told.
    fn obey(&mut self, ctx: &mut Context, message: &str) -> Option<String> {
        let mut words = Words(message);
        match words.next() {
            "send" => {
                let audience = audience(words.next());
                ctx.send(audience, words.rest().as_bytes());
            }
            "publish" => {
                let to = option(words.next()).map(|seat| Seat(number(seat)));
                let key = words.next();
                match (to, option(words.rest())) {
                    (None, Some(value)) => ctx.publish(key, value.as_bytes()),
                    (Some(seat), Some(value)) => ctx.publish_to(seat, key, value.as_bytes()),
                    (to, None) => ctx.unpublish(to, key),
                }
            }
            "kick" => ctx.kick(Seat(words.number()), words.rest()),
            "bot" => {
                let seat = ctx.add_bot(words.rest());
                return Some(format!("bot {}", seat.map_or("none".into(), |seat| seat.to_string())));
            }
            "joinable" => ctx.set_joinable(words.next() == "yes"),
            "label" => {
                let pairs = words.rest().split(' ').filter(|pair| !pair.is_empty());
                let label: Vec<(&str, &str)> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
                ctx.set_label(&label);
            }
            "finish" => ctx.finish(words.rest().as_bytes()),
            "now" => return Some(format!("now {} {}", ctx.now_ms(), ctx.unix_ms())),
            "timer" => ctx.set_timer(words.number(), words.number()),
            "cancel" => ctx.cancel_timer(words.number()),
            "bits" => return Some(format!("bits {}", halves(ctx.random().bits()))),
            "below" => return Some(format!("below {}", ctx.random().below(words.number()))),
            "unit" => return Some(format!("unit {}", (ctx.random().unit() * 4_294_967_296.0) as u32)),
            "log" => {
                let level = match words.next() {
                    "info" => Level::Info,
                    "warn" => Level::Warn,
                    "error" => Level::Error,
                    _ => Level::Debug,
                };
                ctx.log(level, words.rest());
            }
            "tell" => ctx.mail().tell(words.number(), words.next(), words.rest().as_bytes()),
            "transfer" => {
                let (request, seat, target) = (words.number(), Seat(words.number()), words.next());
                ctx.mail().transfer(request, seat, target, words.rest().as_bytes());
            }
            "say" => ctx.mail().say(words.next(), words.rest()),
            "claim" => ctx.mail().claim(words.number(), words.rest()),
            "release" => ctx.mail().release(words.rest()),
            "read" => {
                let (request, owner, collection) = (words.number(), option(words.next()), words.next());
                storage(ctx, owner, collection).read(request, words.rest());
            }
            "write" => {
                let (request, owner, collection) = (words.number(), option(words.next()), words.next());
                let (key, version) = (words.next(), option(words.next()));
                let condition = match version {
                    None => If::Any,
                    Some("") => If::Absent,
                    Some(version) => If::Version(version),
                };
                let mut storage = storage(ctx, owner, collection);
                match option(words.rest()) {
                    Some(value) => storage.write(request, key, value.as_bytes(), condition),
                    None => storage.delete(request, key, condition),
                }
            }
            "scan" => {
                let (request, owner, collection) = (words.number(), option(words.next()), words.next());
                let limit = words.number();
                storage(ctx, owner, collection).scan(request, words.rest(), limit);
            }
            "content" => ctx.read_content(words.number(), words.next(), words.rest()),
            "backfill" => match option(words.next()) {
                Some(seats) => ctx.open_backfill(number(seats)),
                None => ctx.close_backfill(),
            },
            "keep" => self.kept = words.rest().to_owned(),
            "kept" => return Some(format!("kept {}", self.view())),
            "number" => return Some(format!("number {}", ctx.input_number().unwrap_or(0))),
            "trap" => {
                self.announce(ctx, words.rest());
                panic!("a trap on demand")
            }
            "spend" => {
                let rounds = words.number();
                let value = (0..rounds).fold(1_u32, |value, round| {
                    black_box(value.wrapping_mul(31).wrapping_add(round))
                });
                return Some(format!("spent {value}"));
            }
            "grow" => {
                let bytes = words.number();
                self.held = vec![0; bytes as usize];
                self.held.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
                black_box(&self.held);
                return Some(format!("grown {bytes}"));
            }
            _ => return Some(format!("? {message}")),
        }
        None
    }
}

fn storage<'a>(ctx: &'a mut Context, owner: Option<&'a str>, collection: &'a str) -> rookery_sdk::context::Storage<'a> {
    match owner {
        Some(player_id) => ctx.storage_of(player_id, collection),
        None => ctx.storage(collection),
    }
}

/// `everyone`, `players`, `spectators`, `one:SEAT`, `some:SEAT,SEAT`, `except:SEAT`.
fn audience(word: &str) -> To {
    let (who, seats) = word.split_once(':').unwrap_or((word, ""));
    match who {
        "players" => To::Players,
        "spectators" => To::Spectators,
        "one" => To::Seat(Seat(number(seats))),
        "some" => To::Seats(seats.split(',').map(|seat| Seat(number(seat))).collect()),
        "except" => To::Except(Seat(number(seats))),
        _ => To::Everyone,
    }
}

/// `-` is none, `.` the empty text.
fn option(word: &str) -> Option<&str> {
    match word {
        "-" => None,
        "." => Some(""),
        word => Some(word),
    }
}

/// Rust would take a plus sign, too.
fn number(word: &str) -> u32 {
    let is_decimal = word.bytes().all(|byte| byte.is_ascii_digit());
    if is_decimal { word.parse().unwrap_or(0) } else { 0 }
}

/// The words of a message, one after the other, and what is left of it.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> &'a str {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        word
    }

    fn number(&mut self) -> u32 {
        number(self.next())
    }

    fn rest(&self) -> &'a str {
        self.0
    }
}

/// 64 bits as two decimal numbers, the high half first.
fn halves(bits: u64) -> String {
    format!("{} {}", bits >> 32, bits & 0xffff_ffff)
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

fn word_of(failure: &Failure) -> &str {
    match failure {
        Failure::Conflict => "conflict",
        Failure::NotFound => "not_found",
        Failure::TooLarge => "too_large",
        Failure::NoTarget => "no_target",
        Failure::Refused => "refused",
        Failure::Taken => "taken",
        Failure::Busy => "busy",
        Failure::Unavailable => "unavailable",
        Failure::Other(reason) => reason,
    }
}
