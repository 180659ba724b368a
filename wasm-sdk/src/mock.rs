//! A host for tests: it plays one match natively, with time, seats and chance in the test's hands, and records what the match
//! asked for.
//!
//! It keeps what a match may rely on as the node keeps it: the order of calls, seats that are never reused, `leave` after a kick,
//! payloads that fit the codec. A call that asks for more than a node gives (calls of the host, bytes, log lines, published
//! state, timers, see docs/modding.md) panics in the words of the node, so that the test fails where the match would. Three things
//! are the node's alone: processor time and memory, which natively mean something else, and what becomes of outputs on the way to
//! clients.
//!
//! A call that fails (a panic, a budget) has not happened. A test that expects one says so with [`Host::undone`]: the match is then
//! as it was just before that call, and can be played on.
//!
//! ```
//! # use rookery_sdk::prelude::*;
//! struct Dice {
//!     thrown: u32,
//! }
//!
//! impl Match for Dice {
//!     fn manifest() -> Manifest {
//!         Manifest::json("dice")
//!     }
//!
//!     fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
//!         Ok(Dice { thrown: 0 })
//!     }
//!
//!     fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
//!         let sides: u32 = input.json().expect("a number of sides");
//!         self.thrown += 1;
//!         let eyes = 1 + ctx.random().below(sides);
//!         ctx.send_json(To::Everyone, &json!({ "seat": from, "eyes": eyes }));
//!     }
//! }
//!
//! let mut host = mock::Host::<Dice>::builder().random([3, 0]).start().unwrap();
//! let ana = host.join("ana").unwrap();
//! host.message(ana, json!(6));
//! assert_eq!(host.heard_json(ana), [json!({ "seat": ana, "eyes": 4 })]);
//! // What a client sends may be anything; this match should not have panicked.
//! let words = host.undone(|host| host.message(ana, json!("many")));
//! assert!(words.contains("a number of sides"));
//! assert_eq!(host.game().thrown, 1);
//! ```

mod budget;
mod recorder;

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::{Context, Level};
use crate::matches::Match;
use crate::payload::Payload;
use crate::types::{Entry, FROM, Failure, Invitee, LeaveReason, Player, Refusal, Role, Saved, Seat, Setup, Signal, To};

use recorder::{FollowUp, Occupant};

pub(crate) use recorder::Recorder;

/// Unix time at which a mock match starts unless the test says otherwise: the first second of 2024.
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

/// One match and the world around it.
pub struct Host<M: Match> {
    game: M,
    ctx: Context,
    beginning: Beginning,
    /// What the test has done since, so that the match can be played again up to a call that failed.
    steps: Vec<Step>,
    last_tick_ms: u64,
    ticks: u64,
}

/// Everything that a match begins from.
#[derive(Debug, Clone)]
struct Beginning {
    seed: u64,
    scripted: Vec<u64>,
    unix_ms: u64,
    setup: Setup,
}

/// What a test did.
#[derive(Debug, Clone)]
enum Step {
    Join {
        name: String,
        role: Role,
        data: Payload,
        from: Option<String>,
    },
    Leave(Seat, LeaveReason),
    Message(Seat, u32, Payload),
    Advance(u64),
    Receive(String, Payload),
    Answer(u32, Result<Vec<Entry>, Failure>),
    Signal(Signal),
    Resync(Seat),
    Save,
    Load(Saved),
    Script(Vec<u64>),
    TakeOutputs,
    TakeRequests,
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
    beginning: Beginning,
    rules: PhantomData<M>,
}

impl<M: Match> Builder<M> {
    /// Sets the parameters: a `serde_json::Value`, JSON text, or bytes.
    pub fn params(mut self, params: impl Into<Payload>) -> Self {
        self.beginning.setup.params = params.into();
        self
    }

    /// Sets where chance begins. The same seed and the same calls give the same match.
    pub fn seed(mut self, seed: u64) -> Self {
        self.beginning.seed = seed;
        self
    }

    /// Decides the first results of chance, as [`Host::script_random`] does for later ones.
    pub fn random(mut self, results: impl IntoIterator<Item = u64>) -> Self {
        self.beginning.scripted.extend(results);
        self
    }

    /// Sets the Unix time at which the match starts.
    pub fn unix_ms(mut self, unix_ms: u64) -> Self {
        self.beginning.unix_ms = unix_ms;
        self
    }

    /// Sets the registered name.
    pub fn name(mut self, name: &str) -> Self {
        self.beginning.setup.name = Some(name.to_owned());
        self
    }

    /// Adds a player whom the matchmaker invited.
    pub fn invite(mut self, player_id: &str, team: u32) -> Self {
        let player_id = player_id.to_owned();
        self.beginning.setup.invited.push(Invitee {
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
        Host::begin(self.beginning)
    }
}

/// Creating a match.
impl<M: Match> Host<M> {
    /// Returns a builder, for matches that need more than parameters.
    pub fn builder() -> Builder<M> {
        let setup = Setup {
            match_id: "01MOCKMATCH".to_owned(),
            ..Setup::default()
        };
        Builder {
            beginning: Beginning {
                seed: 1,
                scripted: Vec::new(),
                unix_ms: EPOCH_MS,
                setup,
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

    fn begin(beginning: Beginning) -> Result<Self, Refusal> {
        let mut recorder = Recorder::new(M::manifest(), beginning.seed);
        recorder.scripted.extend(&beginning.scripted);
        recorder.unix_start_ms = beginning.unix_ms;
        let mut ctx = Context {
            host: recorder,
            input_number: 0,
        };
        let game = M::start(&mut ctx, &beginning.setup)?;
        let mut host = Host {
            game,
            ctx,
            beginning,
            steps: Vec::new(),
            last_tick_ms: 0,
            ticks: 0,
        };
        host.settle();
        Ok(host)
    }
}

/// Playing it.
impl<M: Match> Host<M> {
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
        self.steps.push(Step::Join {
            name: name.to_owned(),
            role,
            data: data.clone(),
            from: from.map(str::to_owned),
        });
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
        let invited = &self.beginning.setup.invited;
        let team = invited
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
        self.ctx.host.begin(0);
        let joined = self.game.join(&mut self.ctx, &player, data);
        if let Err(refusal) = joined {
            self.ctx.host.free(seat);
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
        self.steps.push(Step::Leave(seat, reason));
        assert!(self.ctx.host.seats.contains_key(&seat), "nobody sits on seat {seat}");
        self.follow(0, FollowUp::Leave { seat, reason });
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
        let data = data.into();
        self.steps.push(Step::Message(from, n, data.clone()));
        assert!(self.ctx.host.seats.contains_key(&from), "nobody sits on seat {from}");
        assert!(self.ctx.host.outcome.is_none(), "the match has ended");
        self.ctx.host.check("the input", &data);
        self.ctx.input_number = n;
        self.ctx.host.begin(0);
        self.game.message(&mut self.ctx, from, data);
        self.ctx.input_number = 0;
        self.settle();
    }

    /// Lets time pass: every timer and tick that becomes due is played at its time, timers before the tick of the same moment.
    pub fn advance(&mut self, ms: u64) {
        self.steps.push(Step::Advance(ms));
        let until_ms = self.ctx.host.now_ms + ms;
        while self.ctx.host.outcome.is_none() {
            let timer = self.ctx.host.timers.iter().map(|(id, due_ms)| (*due_ms, *id)).min();
            let tick_ms = self.next_tick_ms();
            self.ctx.host.begin(0);
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
        let data = data.into();
        self.steps.push(Step::Receive(sender.to_owned(), data.clone()));
        self.ctx.host.begin(0);
        self.game.receive(&mut self.ctx, sender, data);
        self.settle();
    }

    /// Answers a request.
    pub fn answer(&mut self, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        self.steps.push(Step::Answer(request, outcome.clone()));
        self.ctx.host.begin(0);
        self.game.answer(&mut self.ctx, request, outcome);
        self.settle();
    }

    /// Sends a signal, such as `("seat.away", json!({"seat": seat}))`.
    pub fn signal(&mut self, topic: &str, data: Value) {
        self.signal_text(Signal {
            topic: topic.to_owned(),
            data: data.to_string(),
        });
    }

    fn signal_text(&mut self, signal: Signal) {
        self.steps.push(Step::Signal(signal.clone()));
        self.hear(signal);
    }

    fn hear(&mut self, signal: Signal) {
        self.ctx.host.begin(0);
        self.game.signal(&mut self.ctx, signal);
        self.settle();
    }

    /// Tells the match that a seat missed outputs.
    pub fn resync(&mut self, seat: Seat) {
        self.steps.push(Step::Resync(seat));
        self.ctx.host.begin(0);
        self.game.resync(&mut self.ctx, seat);
        self.settle();
    }

    /// Asks the match for its logical state.
    ///
    /// # Panics
    /// When the state is larger than a node takes.
    pub fn save(&mut self) -> Vec<u8> {
        self.steps.push(Step::Save);
        self.ctx.host.begin(0);
        let state = self.game.save();
        if state.len() > budget::SAVE_BYTES_MAX {
            budget::fail(
                "bytes",
                format_args!("more data at once than the host takes from a module"),
            );
        }
        state
    }

    /// Goes on from a logical state that the version `saved_by` of the module wrote, as after a hot upgrade. A refusal leaves the
    /// match as it was.
    pub fn load(&mut self, saved_by: &str, state: impl Into<Payload>) -> Result<(), Refusal> {
        let saved = Saved {
            by: saved_by.to_owned(),
            state: state.into().into_bytes(),
        };
        self.steps.push(Step::Load(saved.clone()));
        self.ctx.host.begin(0);
        self.game = M::load(&mut self.ctx, &self.beginning.setup, saved)?;
        self.hear(Signal {
            topic: "match.resumed".to_owned(),
            data: r#"{"reason":"upgrade"}"#.to_owned(),
        });
        Ok(())
    }

    /// Saves the match and goes on from what it saved, as a hot upgrade would.
    pub fn save_and_load(&mut self) -> Result<(), Refusal> {
        let state = self.save();
        let saved_by = self.ctx.host.manifest.version.clone();
        self.load(&saved_by, state)
    }

    /// Decides the next results of [`Random::below`](crate::context::Random::below) and
    /// [`Random::bits`](crate::context::Random::bits); afterwards the seed decides again.
    pub fn script_random(&mut self, results: impl IntoIterator<Item = u64>) {
        let results: Vec<u64> = results.into_iter().collect();
        self.ctx.host.scripted.extend(&results);
        self.steps.push(Step::Script(results));
    }

    /// Decides the next results of [`Random::unit`](crate::context::Random::unit), each in 0 .. 1.
    pub fn script_units(&mut self, results: impl IntoIterator<Item = f64>) {
        // The inverse of how a unit is made of 64 bits, of which it has 53.
        let bits = |unit: f64| ((unit * (1u64 << 53) as f64) as u64) << 11;
        self.script_random(results.into_iter().map(bits));
    }

    /// Plays `play`, whose last call must fail, and takes that call back: the match, its seats, timers, chance and everything it
    /// asked for are as they were just before it, and the test goes on. Returns what was said, which begins with the kind of the
    /// failure when a budget ran out (`host_calls: ...`). An [`advance`](Host::advance) is taken back as a whole.
    ///
    /// The match is played again from its beginning up to there, as a node does it, so match logic that keeps anything outside of
    /// itself (a static, a file) shows itself here.
    ///
    /// # Panics
    /// When nothing fails.
    pub fn undone(&mut self, play: impl FnOnce(&mut Self)) -> String {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(self))) else {
            panic!("nothing failed, so there is nothing to undo");
        };
        let mut steps = std::mem::take(&mut self.steps);
        steps.pop();
        let started = Self::begin(self.beginning.clone());
        *self = started.expect("the match started before, and match logic is deterministic");
        for step in steps {
            self.repeat(step);
        }
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default()
    }

    /// Does again what went well before.
    fn repeat(&mut self, step: Step) {
        match step {
            Step::Join { name, role, data, from } => {
                let _ = self.admit(&name, role, data, from.as_deref());
            }
            Step::Leave(seat, reason) => self.leave(seat, reason),
            Step::Message(from, n, data) => self.message_numbered(from, n, data),
            Step::Advance(ms) => self.advance(ms),
            Step::Receive(sender, data) => self.receive(&sender, data),
            Step::Answer(request, outcome) => self.answer(request, outcome),
            Step::Signal(signal) => self.signal_text(signal),
            Step::Resync(seat) => self.resync(seat),
            Step::Save => {
                self.save();
            }
            Step::Load(saved) => {
                let _ = self.load(&saved.by, saved.state);
            }
            Step::Script(results) => self.script_random(results),
            Step::TakeOutputs => {
                self.take_outputs();
            }
            Step::TakeRequests => {
                self.take_requests();
            }
        }
    }
}

/// What came of it.
impl<M: Match> Host<M> {
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
        self.steps.push(Step::TakeOutputs);
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

    /// Returns what this seat hears, as values that are written as MessagePack.
    ///
    /// # Panics
    /// When an output is no such value.
    pub fn heard_msgpack<T: DeserializeOwned>(&self, seat: Seat) -> Vec<T> {
        self.heard(seat)
            .iter()
            .map(|data| data.msgpack().expect("the output is not this type in MessagePack"))
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

    /// Returns the published value of a key that everyone sees, as a value that is written as MessagePack.
    ///
    /// # Panics
    /// When it is no such value.
    pub fn published_msgpack<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.published(key)
            .map(|data| data.msgpack().expect("the value is not this type in MessagePack"))
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

    /// Returns the outcome as a value that is written as MessagePack, once the match has ended.
    ///
    /// # Panics
    /// When it is no such value.
    pub fn outcome_msgpack<T: DeserializeOwned>(&self) -> Option<T> {
        self.outcome()
            .map(|data| data.msgpack().expect("the outcome is not this type in MessagePack"))
    }

    /// Returns the seats that are taken, bots included, with their roles.
    pub fn seats(&self) -> Vec<(Seat, Role)> {
        let seats = self.ctx.host.seats.iter();
        seats.map(|(seat, occupant)| (*seat, occupant.role)).collect()
    }

    /// Returns the name of who sits there.
    pub fn name_of(&self, seat: Seat) -> Option<&str> {
        let occupant = self.ctx.host.seats.get(&seat);
        occupant.map(|occupant| occupant.name.as_str())
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
        self.steps.push(Step::TakeRequests);
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

    /// Plays what the last call brought about.
    fn settle(&mut self) {
        while let Some((depth, follow_up)) = self.ctx.host.follow_ups.pop_front() {
            self.follow(depth, follow_up);
        }
    }

    fn follow(&mut self, depth: u32, follow_up: FollowUp) {
        self.ctx.host.begin(depth);
        match follow_up {
            FollowUp::Leave { seat, reason } => {
                // The seat is free when the match hears of it: a bot may take it at once.
                if self.ctx.host.free(seat) {
                    self.game.leave(&mut self.ctx, seat, reason);
                }
            }
            FollowUp::Answer { request, failure } => self.game.answer(&mut self.ctx, request, Err(failure)),
        }
    }
}

#[cfg(test)]
mod tests;
