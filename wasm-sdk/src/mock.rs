//! A host for tests: it plays one match natively, with time, seats and chance in the test's hands, and records what the match
//! asked for. It is not the node: budgets, replication and delivery are the node's. What a match may rely on is kept the same: the
//! order of calls, seats that are never reused, `leave` after a kick, payloads that fit the codec.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;

use serde_json::Value;

use crate::context::{Context, Imports, Level, Place};
use crate::manifest::{Codec, Manifest};
use crate::matches::Match;
use crate::payload::Payload;
use crate::types::{Entry, FROM, Failure, Invitee, LeaveReason, Player, Refusal, Role, Saved, Seat, Setup, Signal, To};

/// Unix time at which every mock match starts: the first second of 2024.
const EPOCH_MS: u64 = 1_704_067_200_000;

/// A reliable output, as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Who hears it.
    pub to: To,
    /// What is said.
    pub data: Payload,
    /// The seats that were taken when it was made, and hear it.
    pub heard_by: Vec<Seat>,
}

/// A request on the outside, as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the parameters of the calls of the same name")]
pub enum Request {
    Tell {
        request: u32,
        target: String,
        data: Payload,
    },
    Transfer {
        request: u32,
        seat: Seat,
        target: String,
        ctx: Payload,
    },
    Say {
        channel: String,
        text: String,
    },
    Claim {
        request: u32,
        name: String,
    },
    Release {
        name: String,
    },
    Read {
        request: u32,
        owner: Option<String>,
        collection: String,
        key: String,
    },
    Write {
        request: u32,
        owner: Option<String>,
        collection: String,
        key: String,
        value: Option<Payload>,
        version: Option<String>,
    },
    Scan {
        request: u32,
        owner: Option<String>,
        collection: String,
        prefix: String,
        limit: u32,
    },
    Content {
        request: u32,
        collection: String,
        key: String,
    },
    Backfill {
        seats: u32,
    },
    EndBackfill,
}

/// Why a player did not get a seat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Every seat of that role is taken.
    #[error("the match is full")]
    Full,
    /// The match closed itself to further players.
    #[error("the match is not joinable")]
    Closed,
    /// The match refused.
    #[error("the match refused: {0}")]
    Refused(String),
}

/// Who sits where, as the node would know it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Occupant {
    player_id: String,
    name: String,
    role: Role,
}

/// What the match asked for so far. Natively it is the host of [`Context`].
pub(crate) struct Recorder {
    manifest: Manifest,
    now_ms: u64,
    random: u64,
    scripted: VecDeque<u64>,
    next_seat: u32,
    seats: BTreeMap<Seat, Occupant>,
    outputs: Vec<Output>,
    published: BTreeMap<(Option<Seat>, String), Payload>,
    publishes: usize,
    timers: BTreeMap<u32, u64>,
    kicked: VecDeque<(Seat, LeaveReason)>,
    joinable: bool,
    label: BTreeMap<String, String>,
    outcome: Option<Payload>,
    requests: Vec<Request>,
    log: Vec<(Level, String)>,
}

/// One match and the world around it.
pub struct Host<M: Match> {
    game: M,
    ctx: Context,
    setup: Setup,
    last_tick_ms: u64,
    ticks: u64,
}

impl<M: Match> fmt::Debug for Host<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("now_ms", &self.ctx.host.now_ms)
            .field("seats", &self.ctx.host.seats)
            .finish_non_exhaustive()
    }
}

/// How a mock match is created.
#[derive(Debug, Clone)]
pub struct Builder<M> {
    seed: u64,
    setup: Setup,
    rules: PhantomData<M>,
}

impl<M: Match> Builder<M> {
    /// Sets the parameters: a `serde_json::Value`, JSON text, or bytes.
    pub fn params(mut self, params: impl Into<Payload>) -> Self {
        self.setup.params = params.into();
        self
    }

    /// Sets where chance begins. The same seed and the same calls give the same match.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the registered name.
    pub fn name(mut self, name: &str) -> Self {
        self.setup.name = Some(name.to_owned());
        self
    }

    /// Adds a player whom the matchmaker invited.
    pub fn invite(mut self, player_id: &str, team: u32) -> Self {
        let player_id = player_id.to_owned();
        self.setup.invited.push(Invitee {
            player_id,
            team,
            party: None,
            properties: "{}".to_owned(),
        });
        self
    }

    /// Starts the match.
    ///
    /// # Panics
    /// When the manifest has faults.
    pub fn start(self) -> Result<Host<M>, Refusal> {
        let mut ctx = Context {
            host: Recorder::new(M::manifest(), self.seed),
            input_number: 0,
        };
        let game = M::start(&mut ctx, &self.setup)?;
        let mut host = Host {
            game,
            ctx,
            setup: self.setup,
            last_tick_ms: 0,
            ticks: 0,
        };
        host.settle();
        Ok(host)
    }
}

impl<M: Match> Host<M> {
    /// Returns a builder, for matches that need more than parameters.
    pub fn builder() -> Builder<M> {
        Builder {
            seed: 1,
            setup: Setup {
                match_id: "01MOCKMATCH".to_owned(),
                ..Setup::default()
            },
            rules: PhantomData,
        }
    }

    /// Starts a match with these parameters.
    ///
    /// # Panics
    /// When the manifest has faults.
    pub fn start(params: impl Into<Payload>) -> Result<Self, Refusal> {
        Self::builder().params(params).start()
    }

    /// Seats a player whose id and name are `name`.
    pub fn join(&mut self, name: &str) -> Result<Seat, JoinError> {
        self.join_as(name, Role::Player, Payload::default())
    }

    /// Seats a spectator whose id and name are `name`.
    pub fn watch(&mut self, name: &str) -> Result<Seat, JoinError> {
        self.join_as(name, Role::Spectator, Payload::default())
    }

    /// Seats somebody who passes `data`. Who is seated already gets the same seat, and the match is not asked.
    pub fn join_as(&mut self, name: &str, role: Role, data: impl Into<Payload>) -> Result<Seat, JoinError> {
        self.admit(name, role, data.into(), None)
    }

    /// Seats a player whom the match `from` transfers with `ctx`.
    pub fn transfer(&mut self, name: &str, from: &str, ctx: impl Into<Payload>) -> Result<Seat, JoinError> {
        self.admit(name, Role::Player, ctx.into(), Some(from))
    }

    /// Brings back a player whom the match `from` did not take in, on a new seat, with the `ctx` of the transfer.
    ///
    /// # Panics
    /// When the match refuses, which it may not.
    pub fn turn_back(&mut self, name: &str, from: &str, ctx: impl Into<Payload>) -> Seat {
        let seated = self.admit(name, Role::Player, ctx.into(), Some(from));
        seated.expect("a match may not refuse a player who comes back")
    }

    fn admit(&mut self, name: &str, role: Role, data: Payload, from: Option<&str>) -> Result<Seat, JoinError> {
        let recorder = &mut self.ctx.host;
        if let Some((seat, _)) = recorder.seats.iter().find(|(_, occupant)| occupant.player_id == name) {
            return Ok(*seat);
        }
        if recorder.is_full(role) {
            return Err(JoinError::Full);
        }
        if role == Role::Player && !recorder.joinable {
            return Err(JoinError::Closed);
        }
        let seat = recorder.seat(Occupant {
            player_id: name.to_owned(),
            name: name.to_owned(),
            role,
        });
        let team = self
            .setup
            .invited
            .iter()
            .find(|invitee| invitee.player_id == name)
            .map(|invitee| invitee.team);
        let player = Player {
            seat,
            id: name.to_owned(),
            name: name.to_owned(),
            role,
            team,
            extra: from
                .map(|from| (FROM.to_owned(), from.to_owned()))
                .into_iter()
                .collect(),
        };
        let joined = self.game.join(&mut self.ctx, &player, data);
        if let Err(refusal) = joined {
            self.ctx.host.seats.remove(&seat);
            self.settle();
            return Err(JoinError::Refused(refusal.to_string()));
        }
        self.settle();
        Ok(seat)
    }

    /// Frees a seat and tells the match.
    ///
    /// # Panics
    /// When nobody sits there: the test is wrong about the match.
    pub fn leave(&mut self, seat: Seat, reason: LeaveReason) {
        assert!(self.ctx.host.seats.contains_key(&seat), "nobody sits on seat {seat}");
        self.ctx.host.kicked.push_back((seat, reason));
        self.settle();
    }

    /// Sends an input without a number.
    ///
    /// # Panics
    /// When nobody sits there, the match has ended, or the payload does not fit the codec: the node would not pass it on.
    pub fn message(&mut self, from: Seat, data: impl Into<Payload>) {
        self.message_numbered(from, 0, data);
    }

    /// Sends input `n` of this seat; 0 is an input without a number.
    ///
    /// # Panics
    /// As [`message`](Host::message).
    pub fn message_numbered(&mut self, from: Seat, n: u32, data: impl Into<Payload>) {
        assert!(self.ctx.host.seats.contains_key(&from), "nobody sits on seat {from}");
        assert!(self.ctx.host.outcome.is_none(), "the match has ended");
        let data = data.into();
        self.ctx.host.check(&data);
        self.ctx.input_number = n;
        self.game.message(&mut self.ctx, from, data);
        self.ctx.input_number = 0;
        self.settle();
    }

    /// Lets time pass: every timer and tick that becomes due is played at its time, timers before the tick of the same moment.
    pub fn advance(&mut self, ms: u64) {
        let until_ms = self.ctx.host.now_ms + ms;
        while self.ctx.host.outcome.is_none() {
            let timer = self.ctx.host.timers.iter().map(|(id, due_ms)| (*due_ms, *id)).min();
            let tick_ms = self.next_tick_ms();
            match (timer, tick_ms) {
                (Some((due_ms, id)), tick_ms)
                    if due_ms <= until_ms && tick_ms.is_none_or(|tick_ms| due_ms <= tick_ms) =>
                {
                    self.ctx.host.now_ms = due_ms.max(self.ctx.host.now_ms);
                    self.ctx.host.timers.remove(&id);
                    self.game.timer(&mut self.ctx, id);
                }
                (_, Some(tick_ms)) if tick_ms <= until_ms => {
                    self.ctx.host.now_ms = tick_ms;
                    self.ticks += 1;
                    let elapsed_ms = u32::try_from(tick_ms - self.last_tick_ms).unwrap_or(u32::MAX);
                    self.last_tick_ms = tick_ms;
                    self.game.tick(&mut self.ctx, elapsed_ms);
                }
                _ => break,
            }
            self.settle();
        }
        self.ctx.host.now_ms = until_ms;
    }

    /// Passes one tick's time.
    ///
    /// # Panics
    /// When the manifest has no ticks.
    pub fn tick(&mut self) {
        let tick_ms = self.next_tick_ms().expect("the manifest has no ticks");
        self.advance(tick_ms - self.ctx.host.now_ms);
    }

    /// Delivers mail.
    pub fn receive(&mut self, sender: &str, data: impl Into<Payload>) {
        self.game.receive(&mut self.ctx, sender, data.into());
        self.settle();
    }

    /// Answers a request.
    pub fn answer(&mut self, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        self.game.answer(&mut self.ctx, request, outcome);
        self.settle();
    }

    /// Sends a signal, such as `("seat.away", json!({"seat": seat}))`.
    pub fn signal(&mut self, topic: &str, data: Value) {
        self.game.signal(
            &mut self.ctx,
            Signal {
                topic: topic.to_owned(),
                data: data.to_string(),
            },
        );
        self.settle();
    }

    /// Tells the match that a seat missed outputs.
    pub fn resync(&mut self, seat: Seat) {
        self.game.resync(&mut self.ctx, seat);
        self.settle();
    }

    /// Saves the match and goes on from what it saved, as a hot upgrade would.
    pub fn save_and_load(&mut self) -> Result<(), Refusal> {
        let saved = Saved {
            by: self.ctx.host.manifest.version.clone(),
            state: self.game.save(),
        };
        self.game = M::load(&mut self.ctx, &self.setup, saved)?;
        self.signal("match.resumed", serde_json::json!({ "reason": "upgrade" }));
        Ok(())
    }

    /// Decides the next results of [`Random::below`](crate::context::Random::below) and
    /// [`Random::bits`](crate::context::Random::bits); afterwards the seed decides again.
    pub fn script_random(&mut self, results: impl IntoIterator<Item = u64>) {
        self.ctx.host.scripted.extend(results);
    }

    /// Returns the match itself.
    pub fn game(&self) -> &M {
        &self.game
    }

    /// Returns the milliseconds since the match started.
    pub fn now_ms(&self) -> u64 {
        self.ctx.host.now_ms
    }

    /// Takes every reliable output made since the last call, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.ctx.host.outputs)
    }

    /// Returns the reliable outputs that this seat hears, in order, of those not yet taken.
    pub fn heard(&self, seat: Seat) -> Vec<Payload> {
        let outputs = self.ctx.host.outputs.iter();
        outputs
            .filter(|output| output.heard_by.contains(&seat))
            .map(|output| output.data.clone())
            .collect()
    }

    /// Returns what this seat hears, as JSON.
    ///
    /// # Panics
    /// When an output is not JSON.
    pub fn heard_json(&self, seat: Seat) -> Vec<Value> {
        self.heard(seat)
            .iter()
            .map(|data| data.json().expect("the output is not JSON"))
            .collect()
    }

    /// Returns the published value of a key that everyone sees.
    pub fn published(&self, key: &str) -> Option<&Payload> {
        self.ctx.host.published.get(&(None, key.to_owned()))
    }

    /// Returns the published value of a key that this seat alone sees.
    pub fn published_to(&self, seat: Seat, key: &str) -> Option<&Payload> {
        self.ctx.host.published.get(&(Some(seat), key.to_owned()))
    }

    /// Returns the published value of a key that everyone sees, as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn published_json(&self, key: &str) -> Option<Value> {
        self.published(key)
            .map(|data| data.json().expect("the value is not JSON"))
    }

    /// Returns how often anything was published.
    pub fn publishes(&self) -> usize {
        self.ctx.host.publishes
    }

    /// Returns the outcome, once the match has ended.
    pub fn outcome(&self) -> Option<&Payload> {
        self.ctx.host.outcome.as_ref()
    }

    /// Returns the outcome as JSON, once the match has ended.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn outcome_json(&self) -> Option<Value> {
        self.outcome().map(|data| data.json().expect("the outcome is not JSON"))
    }

    /// Returns the seats that are taken, bots included, with their roles.
    pub fn seats(&self) -> Vec<(Seat, Role)> {
        self.ctx
            .host
            .seats
            .iter()
            .map(|(seat, occupant)| (*seat, occupant.role))
            .collect()
    }

    /// Returns whether further players may join.
    pub fn is_joinable(&self) -> bool {
        self.ctx.host.joinable
    }

    /// Returns a property of the label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.ctx.host.label.get(name).map(String::as_str)
    }

    /// Takes the requests made since the last call, in order.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.ctx.host.requests)
    }

    /// Returns the lines that the match logged.
    pub fn log(&self) -> &[(Level, String)] {
        &self.ctx.host.log
    }

    /// Ticks are counted from the start, so that 60 a second are 60 and not 62 (a tick each 16 ms).
    fn next_tick_ms(&self) -> Option<u64> {
        let tick_hz = u64::from(self.ctx.host.manifest.tick_hz);
        (tick_hz > 0).then(|| (self.ticks + 1) * 1_000 / tick_hz)
    }

    /// Plays the departures that the last call caused.
    fn settle(&mut self) {
        while let Some((seat, reason)) = self.ctx.host.kicked.pop_front() {
            if self.ctx.host.seats.contains_key(&seat) {
                self.game.leave(&mut self.ctx, seat, reason);
                self.ctx.host.seats.remove(&seat);
                self.ctx.host.published.retain(|(owner, _), _| *owner != Some(seat));
            }
        }
    }
}

impl Recorder {
    fn new(manifest: Manifest, seed: u64) -> Self {
        let faults = manifest.faults();
        assert!(
            faults.is_empty(),
            "the node would refuse this manifest: {}",
            faults.join("; ")
        );
        Self {
            manifest,
            now_ms: 0,
            random: seed,
            scripted: VecDeque::new(),
            next_seat: 1,
            seats: BTreeMap::new(),
            outputs: Vec::new(),
            published: BTreeMap::new(),
            publishes: 0,
            timers: BTreeMap::new(),
            kicked: VecDeque::new(),
            joinable: true,
            label: BTreeMap::new(),
            outcome: None,
            requests: Vec::new(),
            log: Vec::new(),
        }
    }

    fn seat(&mut self, occupant: Occupant) -> Seat {
        let seat = Seat(self.next_seat);
        self.next_seat += 1;
        self.seats.insert(seat, occupant);
        seat
    }

    /// Bots sit on players' seats.
    fn is_full(&self, role: Role) -> bool {
        let watching = self
            .seats
            .values()
            .filter(|occupant| occupant.role == Role::Spectator)
            .count();
        match role {
            Role::Player | Role::Bot => self.seats.len() - watching >= self.manifest.max_players as usize,
            Role::Spectator => watching >= self.manifest.max_spectators as usize,
        }
    }

    fn hears(to: &To, seat: Seat, role: Role) -> bool {
        match to {
            To::Everyone => true,
            To::Players => role != Role::Spectator,
            To::Spectators => role == Role::Spectator,
            To::Seat(one) => *one == seat,
            To::Seats(seats) => seats.contains(&seat),
            To::Except(one) => *one != seat,
        }
    }

    /// What the node would end the match for: an output of a JSON module that is not one JSON text.
    fn check(&self, data: &[u8]) {
        if self.manifest.codec == Codec::Json {
            let text = serde_json::from_slice::<serde::de::IgnoredAny>(data);
            assert!(text.is_ok(), "not one JSON text: {}", String::from_utf8_lossy(data));
        }
    }
}

impl Imports for Recorder {
    fn send(&mut self, to: To, data: &[u8]) {
        self.check(data);
        let hears = |(seat, occupant): &(&Seat, &Occupant)| Self::hears(&to, **seat, occupant.role);
        let heard_by = self.seats.iter().filter(hears).map(|(seat, _)| *seat).collect();
        let data = Payload::from(data);
        self.outputs.push(Output { to, data, heard_by });
    }

    fn publish(&mut self, to: Option<Seat>, key: &str, data: Option<&[u8]>) {
        self.publishes += 1;
        let key = (to, key.to_owned());
        match data {
            Some(data) => {
                self.check(data);
                self.published.insert(key, Payload::from(data));
            }
            None => {
                self.published.remove(&key);
            }
        }
    }

    fn kick(&mut self, seat: Seat, _reason: &str) {
        self.kicked.push_back((seat, LeaveReason::Kicked));
    }

    fn add_bot(&mut self, display_name: &str) -> Option<Seat> {
        if self.is_full(Role::Bot) {
            return None;
        }
        let player_id = format!("bot:{}", self.next_seat);
        Some(self.seat(Occupant {
            player_id,
            name: display_name.to_owned(),
            role: Role::Bot,
        }))
    }

    fn set_joinable(&mut self, joinable: bool) {
        self.joinable = joinable;
    }

    fn set_label(&mut self, label: &[(&str, &str)]) {
        assert!(label.len() <= 16, "a label of {} keys: at most 16", label.len());
        self.label = label
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
    }

    fn finish(&mut self, outcome: &[u8]) {
        self.check(outcome);
        self.outcome.get_or_insert_with(|| Payload::from(outcome));
    }

    fn now(&mut self) -> f64 {
        self.now_ms as f64
    }

    fn unix(&mut self) -> f64 {
        (EPOCH_MS + self.now_ms) as f64
    }

    fn set_timer(&mut self, id: u32, after_ms: u32) {
        self.timers.insert(id, self.now_ms + u64::from(after_ms));
    }

    fn cancel_timer(&mut self, id: u32) {
        self.timers.remove(&id);
    }

    /// SplitMix64: enough for tests, and short.
    fn random_bits(&mut self) -> u64 {
        if let Some(bits) = self.scripted.pop_front() {
            return bits;
        }
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn random_below(&mut self, limit: u32) -> u32 {
        match limit {
            0 => 0,
            limit => (self.random_bits() % u64::from(limit)) as u32,
        }
    }

    fn random_unit(&mut self) -> f64 {
        (self.random_bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn log(&mut self, level: Level, line: &str) {
        self.log.push((level, line.to_owned()));
    }

    fn tell(&mut self, request: u32, target: &str, data: &[u8]) {
        self.requests.push(Request::Tell {
            request,
            target: target.to_owned(),
            data: data.into(),
        });
    }

    fn transfer(&mut self, request: u32, seat: Seat, target: &str, ctx: &[u8]) {
        self.requests.push(Request::Transfer {
            request,
            seat,
            target: target.to_owned(),
            ctx: ctx.into(),
        });
        self.kicked.push_back((seat, LeaveReason::Transferred));
    }

    fn say(&mut self, channel: &str, text: &str) {
        self.requests.push(Request::Say {
            channel: channel.to_owned(),
            text: text.to_owned(),
        });
    }

    fn claim(&mut self, request: u32, name: &str) {
        self.requests.push(Request::Claim {
            request,
            name: name.to_owned(),
        });
    }

    fn release(&mut self, name: &str) {
        self.requests.push(Request::Release { name: name.to_owned() });
    }

    fn storage_read(&mut self, request: u32, at: Place<'_>, key: &str) {
        let (owner, collection) = at.owned();
        self.requests.push(Request::Read {
            request,
            owner,
            collection,
            key: key.to_owned(),
        });
    }

    fn storage_write(&mut self, request: u32, at: Place<'_>, key: &str, value: Option<&[u8]>, version: Option<&str>) {
        let (owner, collection) = at.owned();
        let (value, version) = (value.map(Payload::from), version.map(str::to_owned));
        self.requests.push(Request::Write {
            request,
            owner,
            collection,
            key: key.to_owned(),
            value,
            version,
        });
    }

    fn storage_scan(&mut self, request: u32, at: Place<'_>, prefix: &str, limit: u32) {
        let (owner, collection) = at.owned();
        self.requests.push(Request::Scan {
            request,
            owner,
            collection,
            prefix: prefix.to_owned(),
            limit,
        });
    }

    fn content_read(&mut self, request: u32, collection: &str, key: &str) {
        self.requests.push(Request::Content {
            request,
            collection: collection.to_owned(),
            key: key.to_owned(),
        });
    }

    fn backfill_open(&mut self, seats: u32) {
        self.requests.push(Request::Backfill { seats });
    }

    fn backfill_close(&mut self) {
        self.requests.push(Request::EndBackfill);
    }
}

impl Place<'_> {
    fn owned(self) -> (Option<String>, String) {
        (self.owner.map(str::to_owned), self.collection.to_owned())
    }
}

#[cfg(test)]
mod tests;
