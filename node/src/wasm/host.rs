//! The imports of match.wit, over the host's part of one match. What a call of the guest asks for is collected, and put into
//! force by `matches::machine` when the event is committed; what the guest reads back within the call (published limits, timers,
//! random draws) changes at once and is undone when the call is cut off.
//!
//! Invariants: no function here waits, allocates without having charged the call's budget for it, or lets the guest see anything
//! that is not part of the match.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rookery_protocol::Seat;
use rookery_protocol::client::{LeaveReason, PayloadCodec, Role};
use wasmtime::ResourceLimiter;
use wasmtime::component::WasmList;

use super::limits::Limits;
use super::trap::Failure;
use crate::matches::effect::Effect;
use crate::matches::event::{Event, TrapKind};
use crate::matches::output::{Audience, Body, PublishedValue};
use crate::matches::part::{FOLLOW_UP_DEPTH_MAX, HostPart, player_info};
use crate::matches::seats::SeatState;

/// What wasmtime generates from match.wit.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../wasm-sdk/wit/match.wit",
        world: "match-logic",
        imports: { default: trappable },
    });

    pub use rookery::game::types::{Audience, Codec, Durability, Invitee, Level, Role};
}

/// Label keys of a match, and the text in them.
const LABEL_KEYS_MAX: usize = 16;
const LABEL_TEXT_BYTES_MAX: usize = 256;

/// Levels of a JSON payload: what widespread parsers take by default.
const JSON_DEPTH_MAX: usize = 127;

/// One log line; the rest is cut off.
const LOG_LINE_BYTES_MAX: usize = 4_096;

/// A bot's display name: 1 to 32 characters, as for people.
const BOT_NAME_CHARS_MAX: usize = 32;

/// Seats that a match plays itself. Everybody who joins is told of all of them, and the host keeps what it knows of each.
const BOTS_MAX: usize = 1_000;

/// How serious the guest thinks a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// What a store holds: the match's host part, and what the running event has asked for so far.
pub struct HostState {
    pub part: HostPart,
    pub(crate) call: Call,
    pub(crate) guard: Guard,
    /// What the accessor has just shown: a piece of a linear memory.
    pub(crate) shown: Option<WasmList<u8>>,
    pub(crate) peak: Peak,
}

/// The most that single calls of this instance have asked of the host.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peak {
    pub(crate) host_calls: u32,
    pub(crate) bytes: u64,
    pub(crate) log_lines: u32,
}

impl HostState {
    pub(crate) fn new(part: HostPart) -> HostState {
        let guard = Guard::new(&part.start.limits);
        let call = Call::new(part.random.clone());
        let peak = Peak::default();
        HostState {
            part,
            call,
            guard,
            shown: None,
            peak,
        }
    }

    /// A call is over.
    pub(crate) fn note_peak(&mut self) {
        let (peak, call) = (&mut self.peak, &self.call);
        peak.host_calls = peak.host_calls.max(call.host_calls);
        peak.bytes = peak.bytes.max(call.bytes);
        peak.log_lines = peak.log_lines.max(call.log_lines);
    }
}

/// What one event has asked for, and how to take back what took effect already. Empty between events.
pub(crate) struct Call {
    pub(crate) outputs: Vec<(Audience, Body)>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) follow_ups: Vec<Event>,
    pub(crate) finished: Option<Bytes>,
    pub(crate) log: Vec<(LogLevel, String)>,
    /// In the order in which things were changed; to be undone from the end.
    pub(crate) undo: Vec<Undo>,
    pub(crate) random_was: Xoshiro256PlusPlus,
    /// What the host objected to; the call ends with it.
    pub(crate) cut: Option<Failure>,
    /// How many of the outputs are the host's own words on the event, which stand also when the guest is cut off.
    pub(crate) host_outputs: usize,
    /// The same of the follow-ups.
    pub(crate) host_follow_ups: usize,
    /// Time is not counted: the call is known to come back.
    pub(crate) is_untimed: bool,
    /// How many causes the event has behind it.
    pub(crate) depth: u32,
    /// Nobody sat in the match when the event came.
    pub(crate) was_empty: bool,
    /// What the outbox holds, with what this call has put into it; counted when it is first asked.
    outbox_bytes: Option<usize>,
    /// A test has the next call cut off at this one of its host calls.
    #[cfg(test)]
    pub(crate) cut_at: Option<u32>,
    /// The thread's CPU time when the call was first seen running.
    cpu_from: Option<Duration>,
    /// What the last call has used since then, if it was cut off.
    pub(crate) cpu_used: Duration,
    host_calls: u32,
    bytes: u64,
    log_lines: u32,
}

/// A change that took effect before its event was committed.
pub(crate) enum Undo {
    Published {
        to: Option<Seat>,
        key: Arc<str>,
        was: Option<PublishedValue>,
    },
    Timer {
        id: u32,
        was: Option<u64>,
    },
    Label(Vec<(String, String)>),
    Joinable(bool),
    Backfill(Option<u32>),
    /// The seat was given in this event.
    Seated(Seat),
}

impl Call {
    fn new(random: Xoshiro256PlusPlus) -> Call {
        Call {
            outputs: Vec::new(),
            effects: Vec::new(),
            follow_ups: Vec::new(),
            finished: None,
            log: Vec::new(),
            undo: Vec::new(),
            random_was: random,
            cut: None,
            host_outputs: 0,
            host_follow_ups: 0,
            is_untimed: false,
            depth: 0,
            was_empty: false,
            outbox_bytes: None,
            #[cfg(test)]
            cut_at: None,
            cpu_from: None,
            cpu_used: Duration::ZERO,
            host_calls: 0,
            bytes: 0,
            log_lines: 0,
        }
    }

    /// Budgets start anew; what the event has gathered stays.
    pub(crate) fn begin(&mut self) {
        self.cut = None;
        self.cpu_from = None;
        self.cpu_used = Duration::ZERO;
        self.outbox_bytes = None;
        self.host_calls = 0;
        self.bytes = 0;
        self.log_lines = 0;
    }

    /// The call was cut off, now.
    pub(crate) fn note_used(&mut self, cpu_now: Duration) {
        self.cpu_used = self
            .cpu_from
            .map_or(Duration::ZERO, |from| cpu_now.saturating_sub(from));
    }

    /// Whether the call has asked the host for anything.
    pub(crate) fn has_asked(&self) -> bool {
        self.host_calls > 0
    }

    /// Judges how long the call has run, by the CPU time of its thread. The first look, at most a tick after the call began, only
    /// reads the clock: so short calls never pay for a system call.
    pub(crate) fn is_over_time(&mut self, cpu_now: Duration, limits: &Limits) -> bool {
        if self.is_untimed {
            return false;
        }
        let from = *self.cpu_from.get_or_insert(cpu_now);
        let budget = Duration::from_micros(limits.call_cpu_us);
        if cpu_now.saturating_sub(from) <= budget {
            return false;
        }
        self.cut.get_or_insert_with(|| {
            Failure::new(
                TrapKind::Time,
                format!("used more than {} of CPU time in one call", Millis(budget)),
            )
        });
        true
    }
}

struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ms", self.0.as_secs_f64() * 1_000.0)
    }
}

/// The call is over: an import refused, and says why in [`Call::cut`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct CutOff(Failure);

/// Growth of memories and tables, over all of the match's instances.
pub(crate) struct Guard {
    memory_bytes: u64,
    memory_bytes_max: u64,
    table_elements: u64,
    table_elements_max: u64,
    instances_max: usize,
    /// Growth was refused in this call, which is often what a trap after it is about.
    pub(crate) memory_refused: bool,
}

impl Guard {
    fn new(limits: &Limits) -> Guard {
        Guard {
            memory_bytes: 0,
            memory_bytes_max: limits.memory_bytes,
            table_elements: 0,
            table_elements_max: limits.table_elements,
            // The accessor is an instance more, and none of the author's.
            instances_max: limits.instances as usize + 1,
            memory_refused: false,
        }
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl ResourceLimiter for Guard {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let after = self.memory_bytes + (desired - current) as u64;
        if after > self.memory_bytes_max || maximum.is_some_and(|maximum| desired > maximum) {
            self.memory_refused = true;
            return Ok(false);
        }
        self.memory_bytes = after;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The limits allowed it and this machine could not: an answer that a replay elsewhere would not repeat, so there is none.
        Err(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let after = self.table_elements + (desired - current) as u64;
        if after > self.table_elements_max || maximum.is_some_and(|maximum| desired > maximum) {
            self.memory_refused = true;
            return Ok(false);
        }
        self.table_elements = after;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn instances(&self) -> usize {
        self.instances_max
    }

    fn tables(&self) -> usize {
        self.instances_max
    }

    fn memories(&self) -> usize {
        self.instances_max
    }
}

impl HostState {
    /// Every import begins here: one host call, and the bytes it brought.
    fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let limits = &self.part.start.limits;
        self.call.host_calls += 1;
        #[cfg(test)]
        if self.call.cut_at == Some(self.call.host_calls) {
            return self.cut(TrapKind::Trap, "a test has it cut off here");
        }
        if self.call.host_calls > limits.host_calls {
            let message = format!("more than {} calls of the host in one call", limits.host_calls);
            return self.cut(TrapKind::HostCalls, message);
        }
        self.call.bytes += bytes as u64;
        if self.call.bytes > limits.bytes_out {
            let message = format!("more than {} bytes to the host in one call", limits.bytes_out);
            return self.cut(TrapKind::Bytes, message);
        }
        Ok(())
    }

    fn cut<T>(&mut self, kind: TrapKind, message: impl std::fmt::Display) -> wasmtime::Result<T> {
        let failure = self.call.cut.get_or_insert_with(|| Failure::new(kind, message));
        Err(wasmtime::Error::new(CutOff(failure.clone())))
    }

    /// What goes to clients of a `json` module is embedded in their frames as it is, so it must be one JSON text.
    fn check_payload(&mut self, what: &str, data: &[u8]) -> wasmtime::Result<()> {
        if self.part.start.codec == PayloadCodec::Binary {
            return Ok(());
        }
        match json_fault(data) {
            None => Ok(()),
            Some(fault) => self.cut(TrapKind::BadOutput, format!("{what} is not one JSON text: {fault}")),
        }
    }

    /// The audience, or none if nobody hears it: outputs to seats that are empty are not made.
    fn audience(&self, to: bindings::Audience) -> Option<Audience> {
        let seated = |seat: &Seat| self.part.seats.contains(*seat);
        match to {
            bindings::Audience::Everyone => Some(Audience::Everyone),
            bindings::Audience::Players => Some(Audience::Players),
            bindings::Audience::Spectators => Some(Audience::Spectators),
            bindings::Audience::One(seat) => seated(&seat).then_some(Audience::One(seat)),
            bindings::Audience::Some(seats) => {
                let mut seats = seats;
                seats.retain(seated);
                seats.sort_unstable();
                seats.dedup();
                (!seats.is_empty()).then(|| Audience::Some(seats.into()))
            }
            bindings::Audience::Except(seat) => Some(Audience::Except(seat)),
        }
    }

    /// Puts a request into the outbox, or answers that it is full. Answers wait to become events, so there is an end to them too:
    /// otherwise a guest that asks twice for every "busy" would fill the host's memory.
    fn request(&mut self, effect: Effect) -> wasmtime::Result<()> {
        if self.outbox_takes(&effect) {
            self.call.effects.push(effect);
            return Ok(());
        }
        match effect.request() {
            Some(request) => self.answer(request, "busy"),
            None => {
                self.note(
                    LogLevel::Warn,
                    "the outbox is full: a request without an answer was dropped".into(),
                );
                Ok(())
            }
        }
    }

    fn outbox_takes(&mut self, effect: &Effect) -> bool {
        let limits = &self.part.start.limits;
        if self.part.outbox.len() + self.call.effects.len() >= limits.outbox as usize {
            return false;
        }
        let (outbox, effects) = (&self.part.outbox, &self.call.effects);
        let held = || outbox.values().chain(effects).map(Effect::bytes).sum();
        let bytes = self.call.outbox_bytes.unwrap_or_else(held) + effect.bytes();
        let takes = bytes as u64 <= limits.outbox_bytes;
        if takes {
            self.call.outbox_bytes = Some(bytes);
        }
        takes
    }

    fn answer(&mut self, request: u32, error: &str) -> wasmtime::Result<()> {
        let limit = self.part.start.limits.outbox as usize;
        let waiting = self.part.pending().chain(&self.call.follow_ups);
        if waiting.filter(|event| matches!(event, Event::Answer { .. })).count() >= limit {
            let message = format!("more than {limit} refused requests that have not been answered yet");
            return self.cut(TrapKind::HostCalls, message);
        }
        self.follow_up(Event::Answer {
            request,
            effect: None,
            outcome: Err(error.into()),
        })
    }

    fn follow_up(&mut self, event: Event) -> wasmtime::Result<()> {
        if self.call.depth >= FOLLOW_UP_DEPTH_MAX {
            let message = format!(
                "more than {FOLLOW_UP_DEPTH_MAX} times in a row it met a refusal or a leaving with the next one"
            );
            return self.cut(TrapKind::HostCalls, message);
        }
        self.call.follow_ups.push(event);
        Ok(())
    }

    /// A line of the host's own in the match's log.
    fn note(&mut self, level: LogLevel, line: String) {
        if self.call.log.len() < self.part.start.limits.log_lines as usize {
            self.call.log.push((level, line));
        }
    }

    /// Takes back everything that the guest has asked for in this event.
    pub(crate) fn roll_back(&mut self) {
        let part = &mut self.part;
        while let Some(undo) = self.call.undo.pop() {
            match undo {
                Undo::Published { to, key, was } => part.published.undo(to, &key, was),
                Undo::Timer { id, was } => {
                    part.timers.put(id, was);
                }
                Undo::Label(was) => part.label = was,
                Undo::Joinable(was) => part.joinable = was,
                Undo::Backfill(was) => part.backfill = was,
                Undo::Seated(seat) => {
                    part.seats.remove(seat);
                    part.next_seat = seat;
                }
            }
        }
        part.random = self.call.random_was.clone();
        self.call.outputs.truncate(self.call.host_outputs);
        self.call.effects.clear();
        self.call.follow_ups.truncate(self.call.host_follow_ups);
        self.call.finished = None;
    }
}

/// Why these bytes are not exactly one JSON text.
pub(crate) fn json_fault(data: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Some(error.to_string());
    }
    // Skipping over values takes any depth; the parsers of those who read them do not.
    let may_be_deep =
        data.len() > 2 * JSON_DEPTH_MAX && memchr::memchr2_iter(b'[', b'{', data).nth(JSON_DEPTH_MAX).is_some();
    (may_be_deep && json_depth(data) > JSON_DEPTH_MAX).then(|| format!("deeper than {JSON_DEPTH_MAX} levels"))
}

/// How deep a valid JSON text nests.
fn json_depth(data: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in data {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

fn truncate(line: &mut String, bytes_max: usize) {
    if line.len() > bytes_max {
        let mut end = bytes_max;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
    }
}

fn opt_len(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

impl bindings::rookery::game::types::Host for HostState {}

impl bindings::rookery::game::room::Host for HostState {
    fn send(&mut self, to: bindings::Audience, data: Vec<u8>) -> wasmtime::Result<()> {
        let listed = if let bindings::Audience::Some(seats) = &to {
            seats.len() * 4
        } else {
            0
        };
        self.charge(data.len() + listed)?;
        self.check_payload("what was sent", &data)?;
        if let Some(audience) = self.audience(to) {
            self.call.outputs.push((audience, Body::Data { data: data.into() }));
        }
        Ok(())
    }

    fn publish(&mut self, to: Option<Seat>, key: String, data: Option<Vec<u8>>) -> wasmtime::Result<()> {
        self.charge(key.len() + data.as_ref().map_or(0, Vec::len))?;
        if let Some(data) = &data {
            self.check_payload("what was published", data)?;
        }
        if to.is_some_and(|seat| !self.part.seats.contains(seat)) {
            return Ok(());
        }
        let data = data.map(Bytes::from);
        let is_removal = data.is_none();
        let (key, was) = self.part.published.put(to, &key, data.clone());
        if is_removal && was.is_none() {
            return Ok(());
        }
        self.call.undo.push(Undo::Published {
            to,
            key: key.clone(),
            was,
        });
        let limits = &self.part.start.limits;
        if self.part.published.keys() > limits.published_keys as usize {
            let message = format!("more than {} published keys", limits.published_keys);
            return self.cut(TrapKind::Bytes, message);
        }
        if self.part.published.bytes() as u64 > limits.published_bytes {
            let message = format!("more than {} bytes of published state", limits.published_bytes);
            return self.cut(TrapKind::Bytes, message);
        }
        let audience = to.map_or(Audience::Everyone, Audience::One);
        self.call.outputs.push((audience, Body::Published { key, data }));
        Ok(())
    }

    fn kick(&mut self, seat: Seat, reason: String) -> wasmtime::Result<()> {
        self.charge(reason.len())?;
        self.throw_out(seat, reason)?;
        Ok(())
    }

    fn add_bot(&mut self, display_name: String) -> wasmtime::Result<Option<Seat>> {
        self.charge(display_name.len())?;
        if !self.part.has_room(self.part.reservations.len()) || self.part.seats.bots() >= BOTS_MAX {
            return Ok(None);
        }
        let seat = self.part.next_seat;
        let state = SeatState {
            player: None,
            name: display_name
                .chars()
                .filter(|c| !c.is_control())
                .take(BOT_NAME_CHARS_MAX)
                .collect(),
            role: Role::Bot,
            team: None,
            attachment: None,
            last_n: 0,
            away_since_ms: None,
            joined_seq: 0,
            is_unclaimed: false,
        };
        let joined = Body::Players {
            joined: vec![player_info(seat, &state)],
            left: Vec::new(),
            away: Vec::new(),
            back: Vec::new(),
        };
        self.call.undo.push(Undo::Seated(seat));
        self.part.seats.insert(seat, state);
        self.part.next_seat += 1;
        self.call.outputs.push((Audience::Everyone, joined));
        Ok(Some(seat))
    }

    fn set_joinable(&mut self, joinable: bool) -> wasmtime::Result<()> {
        self.charge(0)?;
        let was = std::mem::replace(&mut self.part.joinable, joinable);
        self.call.undo.push(Undo::Joinable(was));
        Ok(())
    }

    fn set_label(&mut self, label: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.charge(label.iter().map(|(key, value)| key.len() + value.len()).sum())?;
        if label.len() > LABEL_KEYS_MAX {
            return self.cut(TrapKind::Bytes, format!("a label of more than {LABEL_KEYS_MAX} keys"));
        }
        if label
            .iter()
            .any(|(key, value)| key.len().max(value.len()) > LABEL_TEXT_BYTES_MAX)
        {
            return self.cut(
                TrapKind::Bytes,
                format!("a label's text of more than {LABEL_TEXT_BYTES_MAX} bytes"),
            );
        }
        let was = std::mem::replace(&mut self.part.label, label);
        self.call.undo.push(Undo::Label(was));
        Ok(())
    }

    fn finish(&mut self, outcome: Vec<u8>) -> wasmtime::Result<()> {
        self.charge(outcome.len())?;
        self.check_payload("the outcome", &outcome)?;
        self.call.finished.get_or_insert_with(|| outcome.into());
        Ok(())
    }
}

impl HostState {
    /// Tells a seat that it has to go; `leave` follows. False if nobody sits there or they are on their way already.
    pub(crate) fn throw_out(&mut self, seat: Seat, reason: String) -> wasmtime::Result<bool> {
        let Some(state) = self.part.seats.get(seat) else {
            return Ok(false);
        };
        if self.is_leaving(seat) {
            return Ok(false);
        }
        if state.role != Role::Bot {
            self.call.outputs.push((Audience::One(seat), Body::Kicked { reason }));
        }
        self.follow_up(Event::Leave {
            seat,
            reason: LeaveReason::Kicked,
        })?;
        Ok(true)
    }

    /// Whether this event has sent the seat away already.
    fn is_leaving(&self, seat: Seat) -> bool {
        self.call
            .follow_ups
            .iter()
            .any(|event| matches!(event, Event::Leave { seat: leaving, .. } if *leaving == seat))
    }
}

impl bindings::rookery::game::clock::Host for HostState {
    fn now(&mut self) -> wasmtime::Result<f64> {
        self.charge(0)?;
        Ok(self.part.now_ms as f64)
    }

    fn unix(&mut self) -> wasmtime::Result<f64> {
        self.charge(0)?;
        Ok((self.part.start.unix_start_ms + self.part.now_ms) as f64)
    }

    fn set_timer(&mut self, id: u32, after_ms: u32) -> wasmtime::Result<()> {
        self.charge(0)?;
        // At the earliest one millisecond later: a timer that set itself for at once would never let time go on.
        let due_ms = self.part.now_ms + u64::from(after_ms.max(1));
        let was = self.part.timers.put(id, Some(due_ms));
        self.call.undo.push(Undo::Timer { id, was });
        let limit = self.part.start.limits.timers;
        if self.part.timers.len() > limit as usize {
            return self.cut(TrapKind::HostCalls, format!("more than {limit} timers"));
        }
        Ok(())
    }

    fn cancel_timer(&mut self, id: u32) -> wasmtime::Result<()> {
        self.charge(0)?;
        if let Some(was) = self.part.timers.put(id, None) {
            self.call.undo.push(Undo::Timer { id, was: Some(was) });
        }
        Ok(())
    }
}

impl bindings::rookery::game::random::Host for HostState {
    fn bits(&mut self) -> wasmtime::Result<u64> {
        self.charge(0)?;
        Ok(self.part.random_bits())
    }

    fn below(&mut self, limit: u32) -> wasmtime::Result<u32> {
        self.charge(0)?;
        if limit == 0 {
            return Ok(0);
        }
        // Lemire's multiplication: the high half of a 32 x 32 bit product, thrown again where the low half would bias it.
        let limit = u64::from(limit);
        let threshold = (1_u64 << 32) % limit;
        loop {
            let product = (self.part.random_bits() >> 32) * limit;
            if product & 0xffff_ffff >= threshold {
                return Ok((product >> 32) as u32);
            }
        }
    }

    fn unit(&mut self) -> wasmtime::Result<f64> {
        self.charge(0)?;
        // The 53 bits that a double has.
        Ok((self.part.random_bits() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

impl bindings::rookery::game::log::Host for HostState {
    fn write(&mut self, level: bindings::Level, mut line: String) -> wasmtime::Result<()> {
        self.charge(line.len())?;
        self.call.log_lines += 1;
        let limit = self.part.start.limits.log_lines;
        if self.call.log_lines > limit {
            return self.cut(TrapKind::LogLines, format!("more than {limit} log lines in one call"));
        }
        truncate(&mut line, LOG_LINE_BYTES_MAX);
        let level = match level {
            bindings::Level::Debug => LogLevel::Debug,
            bindings::Level::Info => LogLevel::Info,
            bindings::Level::Warn => LogLevel::Warn,
            bindings::Level::Error => LogLevel::Error,
        };
        self.call.log.push((level, line));
        Ok(())
    }
}

impl bindings::rookery::game::mail::Host for HostState {
    fn tell(&mut self, request: u32, target: String, data: Vec<u8>) -> wasmtime::Result<()> {
        self.charge(target.len() + data.len())?;
        self.request(Effect::Tell {
            request,
            target,
            data: data.into(),
        })
    }

    fn transfer(&mut self, request: u32, seat: Seat, target: String, ctx: Vec<u8>) -> wasmtime::Result<()> {
        self.charge(target.len() + ctx.len())?;
        let traveller = match self.part.seats.get(seat) {
            Some(SeatState {
                player: Some(player),
                name,
                role,
                team,
                attachment,
                away_since_ms,
                ..
            }) if !self.is_leaving(seat) => {
                let is_away = away_since_ms.is_some();
                Some((*player, name.clone(), *role, *team, attachment.clone(), is_away))
            }
            _ => None,
        };
        // Nobody sits there, or only a bot, which belongs to this match.
        let Some((player, name, role, team, attachment, is_away)) = traveller else {
            return self.answer(request, "refused");
        };
        let effects = self.call.effects.len();
        self.request(Effect::Transfer {
            request,
            seat,
            player,
            name,
            role,
            team,
            attachment,
            is_away,
            target,
            ctx: ctx.into(),
        })?;
        if self.call.effects.len() > effects {
            self.follow_up(Event::Leave {
                seat,
                reason: LeaveReason::Transferred,
            })?;
        }
        Ok(())
    }

    fn say(&mut self, channel: String, text: String) -> wasmtime::Result<()> {
        self.charge(channel.len() + text.len())?;
        self.request(Effect::Say { channel, text })
    }

    fn claim(&mut self, request: u32, name: String) -> wasmtime::Result<()> {
        self.charge(name.len())?;
        self.request(Effect::Claim { request, name })
    }

    fn release(&mut self, name: String) -> wasmtime::Result<()> {
        self.charge(name.len())?;
        self.request(Effect::Release { name })
    }
}

impl bindings::rookery::game::storage::Host for HostState {
    fn read(&mut self, request: u32, owner: Option<String>, collection: String, key: String) -> wasmtime::Result<()> {
        self.charge(opt_len(&owner) + collection.len() + key.len())?;
        self.request(Effect::StorageRead {
            request,
            owner,
            collection,
            key,
        })
    }

    fn write(
        &mut self,
        request: u32,
        owner: Option<String>,
        collection: String,
        key: String,
        value: Option<Vec<u8>>,
        version: Option<String>,
    ) -> wasmtime::Result<()> {
        let text = opt_len(&owner) + collection.len() + key.len() + opt_len(&version);
        self.charge(text + value.as_ref().map_or(0, Vec::len))?;
        // Players read these values in their frames too.
        if let Some(value) = &value {
            self.check_payload("what was stored", value)?;
        }
        let value = value.map(Bytes::from);
        self.request(Effect::StorageWrite {
            request,
            owner,
            collection,
            key,
            value,
            version,
        })
    }

    fn scan(
        &mut self,
        request: u32,
        owner: Option<String>,
        collection: String,
        prefix: String,
        limit: u32,
    ) -> wasmtime::Result<()> {
        self.charge(opt_len(&owner) + collection.len() + prefix.len())?;
        self.request(Effect::StorageScan {
            request,
            owner,
            collection,
            prefix,
            limit,
        })
    }
}

impl bindings::rookery::game::content::Host for HostState {
    fn read(&mut self, request: u32, collection: String, key: String) -> wasmtime::Result<()> {
        self.charge(collection.len() + key.len())?;
        self.request(Effect::ContentRead {
            request,
            collection,
            key,
        })
    }
}

impl bindings::rookery::game::backfill::Host for HostState {
    fn open(&mut self, seats: u32) -> wasmtime::Result<()> {
        self.charge(0)?;
        let was = self.part.backfill.replace(seats);
        self.call.undo.push(Undo::Backfill(was));
        Ok(())
    }

    fn close(&mut self) -> wasmtime::Result<()> {
        self.charge(0)?;
        let was = self.part.backfill.take();
        self.call.undo.push(Undo::Backfill(was));
        Ok(())
    }
}
