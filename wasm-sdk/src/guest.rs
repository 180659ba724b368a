//! The node's side of the SDK, compiled for wasm32 only: the generated bindings, the conversions between them and our types, and
//! the place where a component keeps its one match. It holds no rules of a game.

use std::cell::RefCell;

use crate::context::{Context, Imports, Level, Place};
use crate::manifest::{Codec, Durability, Manifest};
use crate::matches::Match;
use crate::payload::Payload;
use crate::types::{Entry, Failure, Invitee, LeaveReason, Player, Refusal, Role, Saved, Seat, Setup, Signal, To};

use bindings::rookery::game as wit;

/// What `wit-bindgen` makes of `wit/match.wit`. Its glue to the component model's memory layout is unsafe by nature, and it is the
/// only unsafe code in this crate.
#[allow(unsafe_code, unreachable_pub, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "match-logic",
        pub_export_macro: true,
        export_macro_name: "export_guest",
        default_bindings_module: "rookery_sdk::guest::bindings",
    });
}

/// Where a component keeps its match. `export!` implements it, because a static cannot be generic.
pub trait Slot {
    /// The rules.
    type Game: Match;

    /// Calls `f` with the place.
    fn with<R>(f: impl FnOnce(&RefCell<Option<Self::Game>>) -> R) -> R;
}

/// The imports as the node provides them.
pub(crate) struct Node;

fn context() -> Context {
    Context {
        host: Node,
        input_number: 0,
    }
}

/// Calls a method of the running match.
fn play<S: Slot, R>(f: impl FnOnce(&mut S::Game) -> R) -> R {
    S::with(|slot| {
        let mut slot = slot.borrow_mut();
        f(slot.as_mut().expect("the node calls start or load first"))
    })
}

/// Puts a fresh match into its place, or says why there is none.
fn begin<S: Slot>(made: Result<S::Game, Refusal>) -> Result<(), String> {
    match made {
        Ok(game) => {
            S::with(|slot| *slot.borrow_mut() = Some(game));
            Ok(())
        }
        Err(refusal) => Err(refusal.to_string()),
    }
}

/// A panic traps, and a trap has no words: they go to the match's log, where the author finds them.
fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| Node.log(Level::Error, &panic.to_string())));
}

impl<S: Slot> bindings::Guest for S {
    fn describe() -> bindings::Manifest {
        tell_panics();
        manifest(S::Game::manifest())
    }

    fn start(made: bindings::Setup) -> Result<(), String> {
        tell_panics();
        begin::<S>(S::Game::start(&mut context(), &setup(made)))
    }

    fn join(joined: bindings::Player, ctx: Vec<u8>) -> Result<(), String> {
        play::<S, _>(|game| game.join(&mut context(), &player(joined), Payload::from(ctx)))
            .map_err(|refusal| refusal.to_string())
    }

    fn leave(seat: u32, reason: bindings::LeaveReason) {
        let reason = match reason {
            bindings::LeaveReason::Left => LeaveReason::Left,
            bindings::LeaveReason::TimedOut => LeaveReason::TimedOut,
            bindings::LeaveReason::Kicked => LeaveReason::Kicked,
            bindings::LeaveReason::Transferred => LeaveReason::Transferred,
            bindings::LeaveReason::Ended => LeaveReason::Ended,
        };
        play::<S, _>(|game| game.leave(&mut context(), Seat(seat), reason));
    }

    fn message(seat: u32, n: u32, data: Vec<u8>) {
        let mut context = Context {
            host: Node,
            input_number: n,
        };
        play::<S, _>(|game| game.message(&mut context, Seat(seat), Payload::from(data)));
    }

    fn tick(elapsed_ms: u32) {
        play::<S, _>(|game| game.tick(&mut context(), elapsed_ms));
    }

    fn timer(id: u32) {
        play::<S, _>(|game| game.timer(&mut context(), id));
    }

    fn receive(sender: String, data: Vec<u8>) {
        play::<S, _>(|game| game.receive(&mut context(), &sender, Payload::from(data)));
    }

    fn answer(request: u32, outcome: Result<Vec<bindings::Entry>, String>) {
        let outcome = match outcome {
            Ok(entries) => Ok(entries.into_iter().map(entry).collect()),
            Err(reason) => Err(Failure::from(reason.as_str())),
        };
        play::<S, _>(|game| game.answer(&mut context(), request, outcome));
    }

    fn signal(topic: String, data: String) {
        play::<S, _>(|game| game.signal(&mut context(), Signal { topic, data }));
    }

    fn resync(seat: u32) {
        play::<S, _>(|game| game.resync(&mut context(), Seat(seat)));
    }

    fn save() -> Vec<u8> {
        play::<S, _>(|game| game.save())
    }

    fn load(made: bindings::Setup, saved_by: String, state: Vec<u8>) -> Result<(), String> {
        tell_panics();
        begin::<S>(S::Game::load(
            &mut context(),
            &setup(made),
            Saved { by: saved_by, state },
        ))
    }
}

impl Imports for Node {
    fn send(&mut self, to: To, data: &[u8]) {
        wit::room::send(&audience(to), data);
    }

    fn publish(&mut self, to: Option<Seat>, key: &str, data: Option<&[u8]>) {
        wit::room::publish(to.map(|seat| seat.0), key, data);
    }

    fn kick(&mut self, seat: Seat, reason: &str) {
        wit::room::kick(seat.0, reason);
    }

    fn add_bot(&mut self, display_name: &str) -> Option<Seat> {
        wit::room::add_bot(display_name).map(Seat)
    }

    fn set_joinable(&mut self, joinable: bool) {
        wit::room::set_joinable(joinable);
    }

    fn set_label(&mut self, label: &[(&str, &str)]) {
        let label: Vec<(String, String)> = label
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        wit::room::set_label(&label);
    }

    fn finish(&mut self, outcome: &[u8]) {
        wit::room::finish(outcome);
    }

    fn now(&self) -> f64 {
        wit::clock::now()
    }

    fn unix(&self) -> f64 {
        wit::clock::unix()
    }

    fn set_timer(&mut self, id: u32, after_ms: u32) {
        wit::clock::set_timer(id, after_ms);
    }

    fn cancel_timer(&mut self, id: u32) {
        wit::clock::cancel_timer(id);
    }

    fn random_bits(&mut self) -> u64 {
        wit::random::bits()
    }

    fn random_below(&mut self, limit: u32) -> u32 {
        wit::random::below(limit)
    }

    fn random_unit(&mut self) -> f64 {
        wit::random::unit()
    }

    fn log(&mut self, level: Level, line: &str) {
        let level = match level {
            Level::Debug => wit::types::Level::Debug,
            Level::Info => wit::types::Level::Info,
            Level::Warn => wit::types::Level::Warn,
            Level::Error => wit::types::Level::Error,
        };
        wit::log::write(level, line);
    }

    fn tell(&mut self, request: u32, target: &str, data: &[u8]) {
        wit::mail::tell(request, target, data);
    }

    fn transfer(&mut self, request: u32, seat: Seat, target: &str, ctx: &[u8]) {
        wit::mail::transfer(request, seat.0, target, ctx);
    }

    fn say(&mut self, channel: &str, text: &str) {
        wit::mail::say(channel, text);
    }

    fn claim(&mut self, request: u32, name: &str) {
        wit::mail::claim(request, name);
    }

    fn release(&mut self, name: &str) {
        wit::mail::release(name);
    }

    fn storage_read(&mut self, request: u32, at: Place<'_>, key: &str) {
        wit::storage::read(request, at.owner, at.collection, key);
    }

    fn storage_write(&mut self, request: u32, at: Place<'_>, key: &str, value: Option<&[u8]>, version: Option<&str>) {
        wit::storage::write(request, at.owner, at.collection, key, value, version);
    }

    fn storage_scan(&mut self, request: u32, at: Place<'_>, prefix: &str, limit: u32) {
        wit::storage::scan(request, at.owner, at.collection, prefix, limit);
    }

    fn content_read(&mut self, request: u32, collection: &str, key: &str) {
        wit::content::read(request, collection, key);
    }

    fn backfill_open(&mut self, seats: u32) {
        wit::backfill::open(seats);
    }

    fn backfill_close(&mut self) {
        wit::backfill::close();
    }
}

fn audience(to: To) -> wit::types::Audience {
    use wit::types::Audience;
    match to {
        To::Everyone => Audience::Everyone,
        To::Players => Audience::Players,
        To::Spectators => Audience::Spectators,
        To::Seat(seat) => Audience::One(seat.0),
        To::Seats(seats) => Audience::Some(seats.into_iter().map(|seat| seat.0).collect()),
        To::Except(seat) => Audience::Except(seat.0),
    }
}

fn manifest(manifest: Manifest) -> bindings::Manifest {
    bindings::Manifest {
        name: manifest.name,
        version: manifest.version,
        codec: match manifest.codec {
            Codec::Json => wit::types::Codec::Json,
            Codec::Binary => wit::types::Codec::Binary,
        },
        durability: match manifest.durability {
            Durability::Memory => wit::types::Durability::Memory,
            Durability::Replicated => wit::types::Durability::Replicated,
            Durability::Stored => wit::types::Durability::Stored,
        },
        tick_hz: manifest.tick_hz,
        min_players: manifest.min_players,
        max_players: manifest.max_players,
        max_spectators: manifest.max_spectators,
        grace_ms: manifest.grace_ms,
        quick_play: manifest.quick_play,
        listed: manifest.listed,
        extra: manifest.extra,
    }
}

fn setup(setup: bindings::Setup) -> Setup {
    let invitee = |invitee: wit::types::Invitee| Invitee {
        player_id: invitee.player_id,
        team: invitee.team,
        party: invitee.party,
        properties: invitee.properties,
    };
    Setup {
        match_id: setup.match_id,
        name: setup.name,
        params: Payload::from(setup.params),
        invited: setup.invited.into_iter().map(invitee).collect(),
        extra: setup.extra,
    }
}

fn player(player: bindings::Player) -> Player {
    Player {
        seat: Seat(player.seat),
        id: player.player_id,
        name: player.display_name,
        role: match player.role {
            wit::types::Role::Player => Role::Player,
            wit::types::Role::Spectator => Role::Spectator,
            wit::types::Role::Bot => Role::Bot,
        },
        team: player.team,
        extra: player.extra,
    }
}

fn entry(entry: bindings::Entry) -> Entry {
    Entry {
        key: entry.key,
        data: Payload::from(entry.data),
        version: entry.version,
    }
}
