//! What match logic may ask for: the typed face of the imports of `match.wit`. The same calls reach the node when compiled for
//! wasm32 and the mock host otherwise; nothing here keeps state of its own, so nothing here can escape a snapshot.

use serde::Serialize;

use crate::payload::{to_json, to_msgpack};
use crate::types::{Seat, To};

#[cfg(target_arch = "wasm32")]
use crate::guest::Node as Host;
#[cfg(not(target_arch = "wasm32"))]
use crate::mock::Recorder as Host;

/// The imports of `match.wit`, one method each. Implemented by the node's side (`guest`) and by the mock (`mock`).
pub(crate) trait Imports {
    fn send(&mut self, to: To, data: &[u8]);
    fn publish(&mut self, to: Option<Seat>, key: &str, data: Option<&[u8]>);
    fn kick(&mut self, seat: Seat, reason: &str);
    fn add_bot(&mut self, display_name: &str) -> Option<Seat>;
    fn set_joinable(&mut self, joinable: bool);
    fn set_label(&mut self, label: &[(&str, &str)]);
    fn finish(&mut self, outcome: &[u8]);
    fn now(&self) -> f64;
    fn unix(&self) -> f64;
    fn set_timer(&mut self, id: u32, after_ms: u32);
    fn cancel_timer(&mut self, id: u32);
    fn random_bits(&mut self) -> u64;
    fn random_below(&mut self, limit: u32) -> u32;
    fn random_unit(&mut self) -> f64;
    fn log(&mut self, level: Level, line: &str);
    fn tell(&mut self, request: u32, target: &str, data: &[u8]);
    fn transfer(&mut self, request: u32, seat: Seat, target: &str, ctx: &[u8]);
    fn say(&mut self, channel: &str, text: &str);
    fn claim(&mut self, request: u32, name: &str);
    fn release(&mut self, name: &str);
    fn storage_read(&mut self, request: u32, at: Place<'_>, key: &str);
    fn storage_write(&mut self, request: u32, at: Place<'_>, key: &str, value: Option<&[u8]>, version: Option<&str>);
    fn storage_scan(&mut self, request: u32, at: Place<'_>, prefix: &str, limit: u32);
    fn content_read(&mut self, request: u32, collection: &str, key: &str);
    fn backfill_open(&mut self, seats: u32);
    fn backfill_close(&mut self);
}

/// How much a line in the match's log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the author.
    Debug,
    /// Worth knowing.
    Info,
    /// Odd, and the match goes on.
    Warn,
    /// Somebody should look.
    Error,
}

/// A collection of durable values: the module's own, or the module's for one player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) owner: Option<&'a str>,
    pub(crate) collection: &'a str,
}

/// What match logic may do during one call. Outputs are heard in the order in which they were made; requests carry a number
/// of the caller's choice and are answered later, by [`Match::answer`](crate::Match::answer).
pub struct Context {
    pub(crate) host: Host,
    pub(crate) input_number: u32,
}

/// Talking to the players.
impl Context {
    /// Sends bytes, reliably and in order. In a module that speaks JSON they must be one JSON text.
    pub fn send(&mut self, to: impl Into<To>, data: &[u8]) {
        self.host.send(to.into(), data);
    }

    /// Sends a value as JSON, reliably and in order.
    ///
    /// # Panics
    /// When the type's own `Serialize` fails, or a map has keys that are not strings.
    pub fn send_json<T: Serialize + ?Sized>(&mut self, to: impl Into<To>, value: &T) {
        self.send(to, &to_json(value));
    }

    /// Sends a value as MessagePack with field names, reliably and in order; for modules that speak binary.
    ///
    /// # Panics
    /// When the type's own `Serialize` fails.
    pub fn send_msgpack<T: Serialize + ?Sized>(&mut self, to: impl Into<To>, value: &T) {
        self.send(to, &to_msgpack(value));
    }

    /// Publishes a value of the match's state to everyone: a slow client gets only the newest one of each key, and who joins or
    /// comes back gets the current ones.
    pub fn publish(&mut self, key: &str, data: &[u8]) {
        self.host.publish(None, key, Some(data));
    }

    /// Publishes a value as JSON to everyone.
    ///
    /// # Panics
    /// As [`send_json`](Context::send_json).
    pub fn publish_json<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.publish(key, &to_json(value));
    }

    /// Publishes a value that only this seat sees.
    pub fn publish_to(&mut self, seat: Seat, key: &str, data: &[u8]) {
        self.host.publish(Some(seat), key, Some(data));
    }

    /// Publishes a value as JSON that only this seat sees.
    ///
    /// # Panics
    /// As [`send_json`](Context::send_json).
    pub fn publish_json_to<T: Serialize + ?Sized>(&mut self, seat: Seat, key: &str, value: &T) {
        self.publish_to(seat, key, &to_json(value));
    }

    /// Publishes a value as MessagePack to everyone.
    ///
    /// # Panics
    /// As [`send_msgpack`](Context::send_msgpack).
    pub fn publish_msgpack<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.publish(key, &to_msgpack(value));
    }

    /// Publishes a value as MessagePack that only this seat sees.
    ///
    /// # Panics
    /// As [`send_msgpack`](Context::send_msgpack).
    pub fn publish_msgpack_to<T: Serialize + ?Sized>(&mut self, seat: Seat, key: &str, value: &T) {
        self.publish_to(seat, key, &to_msgpack(value));
    }

    /// Removes a published value: everyone's, or that of one seat.
    pub fn unpublish(&mut self, seat: Option<Seat>, key: &str) {
        self.host.publish(seat, key, None);
    }

    /// Frees a seat; its player is told the reason, and [`leave`](crate::Match::leave) follows.
    pub fn kick(&mut self, seat: Seat, reason: &str) {
        self.host.kick(seat, reason);
    }

    /// Takes a seat that the match plays itself, or none when the match is full or has a thousand of them. [`kick`](Context::kick) frees it.
    pub fn add_bot(&mut self, display_name: &str) -> Option<Seat> {
        self.host.add_bot(display_name)
    }

    /// Opens or closes the match for further players.
    pub fn set_joinable(&mut self, joinable: bool) {
        self.host.set_joinable(joinable);
    }

    /// Sets what lists show and filters find; at most 16 keys.
    pub fn set_label(&mut self, label: &[(&str, &str)]) {
        self.host.set_label(label);
    }

    /// Ends the match after this call; the outcome is stored and told to the players.
    pub fn finish(&mut self, outcome: &[u8]) {
        self.host.finish(outcome);
    }

    /// Ends the match after this call, with an outcome as JSON.
    ///
    /// # Panics
    /// As [`send_json`](Context::send_json).
    pub fn finish_json<T: Serialize + ?Sized>(&mut self, outcome: &T) {
        self.finish(&to_json(outcome));
    }

    /// Ends the match after this call, with an outcome as MessagePack.
    ///
    /// # Panics
    /// As [`send_msgpack`](Context::send_msgpack).
    pub fn finish_msgpack<T: Serialize + ?Sized>(&mut self, outcome: &T) {
        self.finish(&to_msgpack(outcome));
    }

    /// Returns the client's number of the input that is being applied; none when the client did not number it, and outside
    /// [`message`](crate::Match::message).
    pub fn input_number(&self) -> Option<u32> {
        (self.input_number > 0).then_some(self.input_number)
    }
}

/// Time, as of the event that is being applied.
impl Context {
    /// Returns the milliseconds since the match started. They never run back, and go on after a take-over.
    pub fn now_ms(&self) -> u64 {
        self.host.now() as u64
    }

    /// Returns the milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        self.host.unix() as u64
    }

    /// Calls [`timer`](crate::Match::timer) once, after this many milliseconds. Setting an id again moves it.
    pub fn set_timer(&mut self, id: u32, after_ms: u32) {
        self.host.set_timer(id, after_ms);
    }

    /// Stops a timer; one that is not set may be stopped too.
    pub fn cancel_timer(&mut self, id: u32) {
        self.host.cancel_timer(id);
    }
}

/// The match's log, which its author and the operator read.
impl Context {
    /// Writes a line.
    pub fn log(&mut self, level: Level, line: &str) {
        self.host.log(level, line);
    }

    /// Writes a line at [`Level::Info`].
    pub fn info(&mut self, line: &str) {
        self.log(Level::Info, line);
    }

    /// Writes a line at [`Level::Warn`].
    pub fn warn(&mut self, line: &str) {
        self.log(Level::Warn, line);
    }
}

/// The other services.
impl Context {
    /// Returns the match's own chance: seeded, and the same in a replay.
    pub fn random(&mut self) -> Random<'_> {
        Random { host: &mut self.host }
    }

    /// Returns the ways to other matches and to chat.
    pub fn mail(&mut self) -> Mail<'_> {
        Mail { host: &mut self.host }
    }

    /// Returns the module's own durable values of a collection.
    pub fn storage<'a>(&'a mut self, collection: &'a str) -> Storage<'a> {
        Storage {
            host: &mut self.host,
            place: Place {
                owner: None,
                collection,
            },
        }
    }

    /// Returns the durable values that the module keeps for one player, who may read but not write them.
    pub fn storage_of<'a>(&'a mut self, player_id: &'a str, collection: &'a str) -> Storage<'a> {
        Storage {
            host: &mut self.host,
            place: Place {
                owner: Some(player_id),
                collection,
            },
        }
    }

    /// Asks for a value of the shared read-only data (items, skills, help texts). Answered.
    pub fn read_content(&mut self, request: u32, collection: &str, key: &str) {
        self.host.content_read(request, collection, key);
    }

    /// Asks the matchmaker for this many more players while the match runs.
    pub fn open_backfill(&mut self, seats: u32) {
        self.host.backfill_open(seats);
    }

    /// Asks for no more players.
    pub fn close_backfill(&mut self) {
        self.host.backfill_close();
    }
}

/// Chance that a replay repeats.
pub struct Random<'a> {
    host: &'a mut Host,
}

impl Random<'_> {
    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.host.random_bits()
    }

    /// Returns a number from 0 to `limit` - 1, each as likely; 0 for a limit of 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.host.random_below(limit)
    }

    /// Returns a number from 0 to 1, 1 excluded.
    pub fn unit(&mut self) -> f64 {
        self.host.random_unit()
    }

    /// Returns whether a chance of `numerator` in `denominator` came up.
    pub fn chance(&mut self, numerator: u32, denominator: u32) -> bool {
        self.below(denominator) < numerator
    }

    /// Returns one of the items, or none of none.
    pub fn pick<'t, T>(&mut self, items: &'t [T]) -> Option<&'t T> {
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        items.get(self.below(count) as usize)
    }

    /// Puts the items into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let limit = u32::try_from(last + 1).unwrap_or(u32::MAX);
            items.swap(last, self.below(limit) as usize);
        }
    }
}

/// Between matches, on whichever node they run. A target is a match id or a registered name.
pub struct Mail<'a> {
    host: &'a mut Host,
}

impl Mail<'_> {
    /// Sends mail, heard by the target as [`receive`](crate::Match::receive): in order, once. Answered only when the target
    /// certainly never got it.
    pub fn tell(&mut self, request: u32, target: &str, data: &[u8]) {
        self.host.tell(request, target, data);
    }

    /// Sends mail as JSON, as [`tell`](Mail::tell).
    ///
    /// # Panics
    /// As [`Context::send_json`].
    pub fn tell_json<T: Serialize + ?Sized>(&mut self, request: u32, target: &str, value: &T) {
        self.tell(request, target, &to_json(value));
    }

    /// Sends mail as MessagePack, as [`tell`](Mail::tell).
    ///
    /// # Panics
    /// As [`Context::send_msgpack`].
    pub fn tell_msgpack<T: Serialize + ?Sized>(&mut self, request: u32, target: &str, value: &T) {
        self.tell(request, target, &to_msgpack(value));
    }

    /// Moves a player to another match. [`leave`](crate::Match::leave) follows this call; if the target does not take the player,
    /// the answer says so, and the player comes back by [`join`](crate::Match::join) with `ctx`, which may not be refused.
    pub fn transfer(&mut self, request: u32, seat: Seat, target: &str, ctx: &[u8]) {
        self.host.transfer(request, seat, target, ctx);
    }

    /// Moves a player to another match with a `ctx` as JSON, as [`transfer`](Mail::transfer).
    ///
    /// # Panics
    /// As [`Context::send_json`].
    pub fn transfer_json<T: Serialize + ?Sized>(&mut self, request: u32, seat: Seat, target: &str, ctx: &T) {
        self.transfer(request, seat, target, &to_json(ctx));
    }

    /// Moves a player to another match with a `ctx` as MessagePack, as [`transfer`](Mail::transfer).
    ///
    /// # Panics
    /// As [`Context::send_msgpack`].
    pub fn transfer_msgpack<T: Serialize + ?Sized>(&mut self, request: u32, seat: Seat, target: &str, ctx: &T) {
        self.transfer(request, seat, target, &to_msgpack(ctx));
    }

    /// Writes to a chat channel in the match's name.
    pub fn say(&mut self, channel: &str, text: &str) {
        self.host.say(channel, text);
    }

    /// Registers another cluster-wide name for this match (an NPC, a shop). Answered.
    pub fn claim(&mut self, request: u32, name: &str) {
        self.host.claim(request, name);
    }

    /// Gives a claimed name up.
    pub fn release(&mut self, name: &str) {
        self.host.release(name);
    }
}

/// When a write is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum If<'a> {
    /// Whatever is there.
    Any,
    /// When there is no value yet.
    Absent,
    /// When the value still has this version.
    Version(&'a str),
}

impl<'a> If<'a> {
    fn version(self) -> Option<&'a str> {
        match self {
            Self::Any => None,
            Self::Absent => Some(""),
            Self::Version(version) => Some(version),
        }
    }
}

/// One collection of durable values. Every request is answered.
pub struct Storage<'a> {
    host: &'a mut Host,
    place: Place<'a>,
}

impl Storage<'_> {
    /// Asks for a value.
    pub fn read(&mut self, request: u32, key: &str) {
        self.host.storage_read(request, self.place, key);
    }

    /// Writes a value.
    pub fn write(&mut self, request: u32, key: &str, value: &[u8], condition: If<'_>) {
        self.host
            .storage_write(request, self.place, key, Some(value), condition.version());
    }

    /// Writes a value as JSON.
    ///
    /// # Panics
    /// As [`Context::send_json`].
    pub fn write_json<T: Serialize + ?Sized>(&mut self, request: u32, key: &str, value: &T, condition: If<'_>) {
        self.write(request, key, &to_json(value), condition);
    }

    /// Writes a value as MessagePack.
    ///
    /// # Panics
    /// As [`Context::send_msgpack`].
    pub fn write_msgpack<T: Serialize + ?Sized>(&mut self, request: u32, key: &str, value: &T, condition: If<'_>) {
        self.write(request, key, &to_msgpack(value), condition);
    }

    /// Deletes a value.
    pub fn delete(&mut self, request: u32, key: &str, condition: If<'_>) {
        self.host
            .storage_write(request, self.place, key, None, condition.version());
    }

    /// Asks for the values whose keys begin with `prefix`, in key order, at most `limit` of them.
    pub fn scan(&mut self, request: u32, prefix: &str, limit: u32) {
        self.host.storage_scan(request, self.place, prefix, limit);
    }
}
