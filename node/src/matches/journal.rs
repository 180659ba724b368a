//! The records of a match since some point, as bytes: what happened, what became of it, and a sum of what came out. With the state at
//! that point they are the match; who replays them is `machine`.
//!
//! Compact, because every event of every match is written: a tick that says nothing takes three bytes, what comes rarely is a
//! MessagePack map, so that it can grow. Nothing is allocated for an event but room in the one buffer. Invariant:
//! reading what was written gives the same records, and reading anything else ends with an error, in memory bounded by its length.

#![deny(clippy::disallowed_methods)]

use bytes::Bytes;
use rookery_protocol::client::LeaveReason;
use rookery_protocol::peer;
use rookery_protocol::{MatchId, Seat};
use xxhash_rust::xxh3::xxh3_64;

use super::effect::{Effect, EffectId};
use super::event::{Event, Outcome, Record, TrapKind};
use super::output::{Audience, Body, Output};
use super::part::{SEAT_MAX, TIME_MS_MAX};

/// The first byte of an encoded journal. What a sum is made of belongs to it: a record's sum must mean the same to whoever replays.
const VERSION: u8 = 1;

/// Numbers of events and inputs that a record may name; no match lives to see them.
const NUMBER_MAX: u64 = 1 << 53;

/// The kinds of events, as they stand in the low five bits of a record's first byte. Never reused.
mod tag {
    /// A MessagePack map with its length before it.
    pub(super) const NAMED: u8 = 0;
    pub(super) const START: u8 = 1;
    pub(super) const SAVE: u8 = 2;
    pub(super) const TICK: u8 = 3;
    pub(super) const MESSAGE: u8 = 4;
    pub(super) const TIMER: u8 = 5;
    pub(super) const LEAVE: u8 = 6;
    pub(super) const SETTLED: u8 = 7;
    pub(super) const ADDRESSED: u8 = 8;
    pub(super) const RESYNC: u8 = 9;
}

const TAG_MASK: u8 = 0x1f;
const OUTCOME_SHIFT: u8 = 5;
/// Nothing came out, and no sum follows.
const SILENT: u8 = 0x80;

const LEAVE_REASONS: [LeaveReason; 5] = [
    LeaveReason::Left,
    LeaveReason::TimedOut,
    LeaveReason::Kicked,
    LeaveReason::Transferred,
    LeaveReason::Ended,
];

/// Records, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    bytes: Vec<u8>,
    /// The number and the time of the event before the first one.
    after: (u64, u64),
    last_ms: u64,
    events: u64,
}

/// One record, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub no: u64,
    pub at_ms: u64,
    pub event: Event,
    pub outcome: Outcome,
    /// Of what came out; see [`Sum`]. 0 when nothing did.
    pub sum: u64,
}

/// A journal that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the journal has encoding {found}, this version reads {VERSION}")]
    Version { found: u8 },
    #[error("the journal is damaged at event {event}: {what}")]
    Damaged { event: u64, what: &'static str },
}

impl Journal {
    /// A journal whose first record will be that of the event after this one.
    pub fn after(event_no: u64, at_ms: u64) -> Journal {
        Journal {
            bytes: Vec::new(),
            after: (event_no, at_ms),
            last_ms: at_ms,
            events: 0,
        }
    }

    /// Appends the record of the next event.
    pub fn push(&mut self, record: &Record, sum: u64) {
        debug_assert_eq!(record.no, self.after.0 + self.events + 1, "records follow each other");
        let out = &mut self.bytes;
        let (outcome, kind) = match record.outcome {
            Outcome::Applied => (0, None),
            Outcome::Refused => (1, None),
            Outcome::Trapped(kind) => (2, Some(kind)),
            Outcome::Stale => (3, None),
        };
        let silent = if sum == 0 { SILENT } else { 0 };
        out.push(tag_of(&record.event) | (outcome << OUTCOME_SHIFT) | silent);
        put_number(out, record.at_ms - self.last_ms);
        put_event(out, &record.event);
        if let Some(kind) = kind {
            out.push(kind.code());
        }
        if sum != 0 {
            out.extend_from_slice(&sum.to_le_bytes());
        }
        self.last_ms = record.at_ms;
        self.events += 1;
    }

    /// How many bytes the records take.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// How many events are in it.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// All of it, to be read on another machine.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 24);
        out.push(VERSION);
        put_number(&mut out, self.after.0);
        put_number(&mut out, self.after.1);
        out.extend_from_slice(&self.bytes);
        out
    }

    /// The records, from the first.
    pub fn records(&self) -> Records {
        Records {
            reader: Reader {
                bytes: Bytes::copy_from_slice(&self.bytes),
                at: 0,
            },
            no: self.after.0,
            at_ms: self.after.1,
            is_over: false,
        }
    }
}

/// The records of an encoded journal, in order. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Records {
    reader: Reader,
    no: u64,
    at_ms: u64,
    is_over: bool,
}

impl Records {
    /// Reads what [`Journal::encode`] wrote.
    ///
    /// # Errors
    /// It is of a version that this one does not know, or has no head.
    pub fn read(bytes: Bytes) -> Result<Records, JournalError> {
        let damaged = |what| JournalError::Damaged { event: 0, what };
        match bytes.first() {
            None => return Err(damaged("it is empty")),
            Some(&VERSION) => {}
            Some(&found) => return Err(JournalError::Version { found }),
        }
        let mut reader = Reader { bytes, at: 1 };
        let no = reader.number_up_to(NUMBER_MAX).map_err(damaged)?;
        let at_ms = reader.number_up_to(TIME_MS_MAX).map_err(damaged)?;
        Ok(Records {
            reader,
            no,
            at_ms,
            is_over: false,
        })
    }

    /// The number and the time of the event before the first record that has not been read.
    pub fn after(&self) -> (u64, u64) {
        (self.no, self.at_ms)
    }

    fn record(&mut self) -> Result<Recorded, &'static str> {
        let reader = &mut self.reader;
        let first = reader.byte()?;
        let at_ms = self.at_ms + reader.number_up_to(TIME_MS_MAX)?;
        if at_ms > TIME_MS_MAX || self.no >= NUMBER_MAX {
            return Err("a time or a number that no match comes to");
        }
        let event = read_event(reader, first & TAG_MASK)?;
        let outcome = match (first & !SILENT) >> OUTCOME_SHIFT {
            0 => Outcome::Applied,
            1 => Outcome::Refused,
            2 => Outcome::Trapped(TrapKind::of_code(reader.byte()?).ok_or("an unknown kind of trap")?),
            _ => Outcome::Stale,
        };
        let sum = match first & SILENT {
            0 => u64::from_le_bytes(reader.take(8)?.as_ref().try_into().map_err(|_| "it is cut off")?),
            _ => 0,
        };
        self.no += 1;
        self.at_ms = at_ms;
        Ok(Recorded {
            no: self.no,
            at_ms,
            event,
            outcome,
            sum,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Recorded, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over || self.reader.at == self.reader.bytes.len() {
            return None;
        }
        let event = self.no + 1;
        let record = self.record().map_err(|what| JournalError::Damaged { event, what });
        self.is_over = record.is_err();
        Some(record)
    }
}

fn tag_of(event: &Event) -> u8 {
    match event {
        Event::Start => tag::START,
        Event::Save => tag::SAVE,
        Event::Tick { .. } => tag::TICK,
        Event::Message { .. } => tag::MESSAGE,
        Event::Timer { .. } => tag::TIMER,
        Event::Leave { .. } => tag::LEAVE,
        Event::Settled { .. } => tag::SETTLED,
        Event::Addressed { .. } => tag::ADDRESSED,
        Event::Resync { attach: None, .. } => tag::RESYNC,
        Event::Load { .. }
        | Event::Upgrade { .. }
        | Event::Join { .. }
        | Event::Receive { .. }
        | Event::Arrive { .. }
        | Event::Return { .. }
        | Event::Answer { .. }
        | Event::Signal { .. }
        | Event::Resync { attach: Some(_), .. }
        | Event::Unreserve { .. }
        | Event::Kick { .. }
        | Event::End { .. } => tag::NAMED,
    }
}

fn put_event(out: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Start | Event::Save => {}
        Event::Tick { elapsed_ms } => put_number(out, u64::from(*elapsed_ms)),
        Event::Message { seat, n, data } => {
            put_number(out, u64::from(*seat));
            put_number(out, *n);
            put_number(out, data.len() as u64);
            out.extend_from_slice(data);
        }
        Event::Timer { id } => put_number(out, u64::from(*id)),
        Event::Leave { seat, reason } => {
            put_number(out, u64::from(*seat));
            let code = LEAVE_REASONS.iter().position(|known| known == reason);
            out.push(code.expect("every reason is in the list") as u8);
        }
        Event::Settled { effect } => put_effect_id(out, *effect),
        Event::Addressed { effect, to } => {
            put_effect_id(out, *effect);
            out.extend_from_slice(&to.to_u128().to_le_bytes());
        }
        Event::Resync { seat, attach: None } => put_number(out, u64::from(*seat)),
        Event::Load { .. }
        | Event::Upgrade { .. }
        | Event::Join { .. }
        | Event::Receive { .. }
        | Event::Arrive { .. }
        | Event::Return { .. }
        | Event::Answer { .. }
        | Event::Signal { .. }
        | Event::Resync { attach: Some(_), .. }
        | Event::Unreserve { .. }
        | Event::Kick { .. }
        | Event::End { .. } => {
            // Four bytes are kept for the length, which is not known before.
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            rmp_serde::encode::write_named(out, event).expect("plain data into memory");
            let len = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&len.to_le_bytes());
        }
    }
}

fn read_event(reader: &mut Reader, tag: u8) -> Result<Event, &'static str> {
    let event = match tag {
        tag::START => Event::Start,
        tag::SAVE => Event::Save,
        tag::TICK => Event::Tick {
            elapsed_ms: reader.small()?,
        },
        tag::MESSAGE => {
            let seat = reader.seat()?;
            let n = reader.number_up_to(NUMBER_MAX)?;
            let len = reader.number_up_to(u64::from(u32::MAX))?;
            let data = reader.take(len as usize)?;
            Event::Message { seat, n, data }
        }
        tag::TIMER => Event::Timer { id: reader.small()? },
        tag::LEAVE => {
            let seat = reader.seat()?;
            let reason = LEAVE_REASONS.get(usize::from(reader.byte()?));
            let reason = *reason.ok_or("an unknown reason of leaving")?;
            Event::Leave { seat, reason }
        }
        tag::SETTLED => Event::Settled {
            effect: reader.effect_id()?,
        },
        tag::ADDRESSED => {
            let effect = reader.effect_id()?;
            let id: [u8; 16] = reader.take(16)?.as_ref().try_into().map_err(|_| "it is cut off")?;
            let to = MatchId::from_u128(u128::from_le_bytes(id));
            Event::Addressed { effect, to }
        }
        tag::RESYNC => Event::Resync {
            seat: reader.seat()?,
            attach: None,
        },
        tag::NAMED => {
            let len = u32::from_le_bytes(reader.take(4)?.as_ref().try_into().map_err(|_| "it is cut off")?);
            let bytes = reader.take(len as usize)?;
            let event: Event = peer::decode(&bytes).map_err(|_| "an event that cannot be read")?;
            if tag_of(&event) != tag::NAMED {
                return Err("an event in an encoding that is not its own");
            }
            match &event {
                Event::Join { seat, .. } | Event::Kick { seat, .. } | Event::Resync { seat, .. }
                    if *seat > SEAT_MAX =>
                {
                    return Err("a seat that no match comes to");
                }
                _ => event,
            }
        }
        _ => return Err("an unknown kind of event"),
    };
    Ok(event)
}

/// Seven bits a byte, the lowest first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_effect_id(out: &mut Vec<u8>, id: EffectId) {
    put_number(out, u64::from(id.incarnation));
    put_number(out, id.event);
    put_number(out, u64::from(id.index));
}

#[derive(Debug, Clone)]
struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let byte = self.bytes.get(self.at).copied().ok_or("it is cut off")?;
        self.at += 1;
        Ok(byte)
    }

    /// The next bytes, without copying them.
    fn take(&mut self, len: usize) -> Result<Bytes, &'static str> {
        if len > self.bytes.len() - self.at {
            return Err("it is cut off");
        }
        let taken = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(taken)
    }

    fn number_up_to(&mut self, max: u64) -> Result<u64, &'static str> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err("a number that is too large");
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return if number <= max {
                    Ok(number)
                } else {
                    Err("a number that is too large")
                };
            }
        }
        Err("a number that does not end")
    }

    fn small(&mut self) -> Result<u32, &'static str> {
        Ok(self.number_up_to(u64::from(u32::MAX))? as u32)
    }

    fn seat(&mut self) -> Result<Seat, &'static str> {
        Ok(self.number_up_to(u64::from(SEAT_MAX))? as Seat)
    }

    fn effect_id(&mut self) -> Result<EffectId, &'static str> {
        Ok(EffectId {
            incarnation: self.small()?,
            event: self.number_up_to(NUMBER_MAX)?,
            index: self.small()?,
        })
    }
}

/// A sum of what came out of an event: two runs that say the same have the same. What it takes of an output or an effect is listed
/// here and does not follow from their encodings, which grow. Which connection a seat has is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const NOTHING: Sum = Sum(0);

    /// What stands in a record.
    pub fn value(self) -> u64 {
        self.0
    }

    fn number(&mut self, number: u64) {
        // The multiplier is 2^64 divided by the golden ratio; the rotation keeps high bits from being lost.
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    }

    /// Some bytes; their length is part of the hash.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(xxh3_64(bytes));
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn opt_text(&mut self, text: Option<&str>) {
        self.number(u64::from(text.is_some()));
        self.text(text.unwrap_or_default());
    }

    /// An output that everyone in its audience hears.
    pub fn output(&mut self, output: &Output) {
        self.number(output.seq);
        self.number(output.at_ms);
        match &output.audience {
            Audience::Everyone => self.number(0),
            Audience::Players => self.number(1),
            Audience::Spectators => self.number(2),
            Audience::One(seat) => self.number(3 | u64::from(*seat) << 8),
            Audience::Except(seat) => self.number(4 | u64::from(*seat) << 8),
            Audience::Some(seats) => {
                self.number(5 | (seats.len() as u64) << 8);
                seats.iter().for_each(|seat| self.number(u64::from(*seat)));
            }
        }
        match &output.body {
            Body::Data { data } => self.bytes(data),
            Body::Published { key, data } => {
                self.text(key);
                self.number(u64::from(data.is_some()));
                self.bytes(data.as_deref().unwrap_or_default());
            }
            Body::Players {
                joined,
                left,
                away,
                back,
            } => {
                for player in joined {
                    self.number(1 | u64::from(player.seat) << 8);
                    self.text(&player.player);
                    self.text(&player.name);
                    self.number(player.role as u64);
                }
                for departure in left {
                    self.number(2 | u64::from(departure.seat) << 8);
                    self.number(departure.reason as u64);
                }
                away.iter().for_each(|seat| self.number(3 | u64::from(*seat) << 8));
                back.iter().for_each(|seat| self.number(4 | u64::from(*seat) << 8));
            }
            Body::Kicked { reason } => self.text(reason),
            Body::Transferring => self.number(7),
            Body::Joined(joined) => {
                self.number(joined.n);
                for player in &joined.players {
                    self.number(u64::from(player.seat));
                    self.text(&player.player);
                }
                for value in &joined.values {
                    self.number(value.seq);
                    self.text(&value.key);
                    self.bytes(&value.data);
                }
                joined.missed.iter().for_each(|missed| self.number(missed.seq));
            }
        }
    }

    /// A request to the outside.
    pub fn effect(&mut self, effect: &Effect) {
        self.number(u64::from(effect.request().unwrap_or(0)));
        match effect {
            Effect::Tell { target, data, .. } => {
                self.number(1);
                self.text(target);
                self.bytes(data);
            }
            Effect::Transfer {
                seat,
                player,
                name,
                role,
                target,
                ctx,
                ..
            } => {
                self.number(2 | u64::from(*seat) << 8);
                self.bytes(&player.to_u128().to_le_bytes());
                self.text(name);
                self.number(*role as u64);
                self.text(target);
                self.bytes(ctx);
            }
            Effect::Say { channel, text } => {
                self.number(3);
                self.text(channel);
                self.text(text);
            }
            Effect::Claim { name, .. } => {
                self.number(4);
                self.text(name);
            }
            Effect::Release { name } => {
                self.number(5);
                self.text(name);
            }
            Effect::StorageRead {
                owner, collection, key, ..
            } => {
                self.number(6);
                self.opt_text(owner.as_deref());
                self.text(collection);
                self.text(key);
            }
            Effect::StorageWrite {
                owner,
                collection,
                key,
                value,
                version,
                ..
            } => {
                self.number(7 | u64::from(value.is_some()) << 8);
                self.opt_text(owner.as_deref());
                self.text(collection);
                self.text(key);
                self.bytes(value.as_deref().unwrap_or_default());
                self.opt_text(version.as_deref());
            }
            Effect::StorageScan {
                owner,
                collection,
                prefix,
                limit,
                ..
            } => {
                self.number(8 | u64::from(*limit) << 8);
                self.opt_text(owner.as_deref());
                self.text(collection);
                self.text(prefix);
            }
            Effect::ContentRead { collection, key, .. } => {
                self.number(9);
                self.text(collection);
                self.text(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
