//! A match: the guest, the host's part, and what each event does to both. Deterministic: the same start record and the same events
//! at the same times give the same outputs, effects and state, on any machine. It has no clock and performs nothing.
//!
//! An event has two shares. The host's share (the input is used up, the timer has run, the seat is empty) stands whatever the guest
//! does. The guest's share (outputs, timers, random draws, published values, requests) counts only if its call came back; otherwise the
//! host's part is as if the guest had not been asked.
//!
//! The guest's own memory is put back by playing again: a match that remembers ([`History`]) makes a new instance of its base, replays
//! what was recorded since, and goes on with the host's part as it is. A replay never decides again: what was undone is not asked of
//! the guest, and what came back runs without a time limit.

#![deny(clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_protocol::client::{Departure, LeaveReason, Role};
use rookery_protocol::peer::{Budget, MatchUsage};
use rookery_protocol::{Digest, MatchId, PlayerId, Seat};
use wasmtime::Store;

use super::effect::{Effect, EffectId};
use super::event::{Attachment, EndReason, Entry, Event, Occupant, Outcome, Record, Stamp, Topic, TrapKind, Traveller};
use super::history::History;
use super::journal::{JournalError, Recorded, Sum};
use super::output::{Audience, Body, Joined, Output};
use super::part::{
    Admission, COLLECTIONS_HEARD_MAX, Finishing, FollowUp, HostPart, StartRecord, player_info, player_text,
};
use super::recording::Taken;
use super::ring::Ring;
use super::seats::SeatState;
use crate::wasm::host::bindings::MatchLogic;
use crate::wasm::host::{HostState, bindings};
use crate::wasm::instance::{Instance, thread_cpu_time};
use crate::wasm::module::digest_of;
use crate::wasm::{Image, Module};

pub use crate::wasm::Failure;
pub use crate::wasm::host::LogLevel;

/// The processor time that it may take within a minute to put a match back, all in all. A guest with 64 MiB of its own making takes a
/// hundred times as long as others (0.7 ms a MiB for the image, 0.9 ms for an instance of it), and the matches beside it wait.
const UNDOING_MAX: Duration = Duration::from_secs(1);

/// The text of a refusal, as a player reads it.
const REASON_BYTES_MAX: usize = 1_024;

/// One running match.
pub struct Match {
    instance: Instance,
    module: Module,
    state: State,
    asking: Asking,
    undoing: Undoing,
    /// How it can be put back, or why it cannot.
    history: Result<History, Arc<str>>,
}

/// How the guest is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Within its budgets, for the first time.
    Live,
    /// Again, without a time limit.
    Again,
    /// Not at all: it was cut off then.
    Never(TrapKind),
}

/// A replay that does not come to what was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("diverged at event {event}: {how}")]
pub struct Diverged {
    /// The event's number.
    pub event: u64,
    pub how: Divergence,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    #[error("the record is that of another event than the next one, or of another time")]
    Order,
    #[error("it was {recorded:?} then and is {replayed:?} now{}", detail(.failure))]
    Outcome {
        recorded: Outcome,
        replayed: Outcome,
        failure: Option<Failure>,
    },
    #[error("what comes out of it is not what came out then")]
    Outputs,
    #[error("what the host keeps afterwards is not what it kept then")]
    State,
    #[error("there is no instance to replay it on: {0}")]
    Instance(Failure),
    #[error("its record cannot be read: {0}")]
    Record(JournalError),
}

fn detail(failure: &Option<Failure>) -> String {
    failure
        .as_ref()
        .map_or(String::new(), |failure| format!(" ({failure})"))
}

/// Why a match does not go on after a call that was cut off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GivenUp {
    #[error("the match had not begun")]
    AtTheStart,
    #[error("it was once too often lately")]
    TooOften,
    /// Other matches wait while this one is put back.
    #[error("putting the match back took too long lately: more than {} ms within a minute", UNDOING_MAX.as_millis())]
    TooSlow,
    /// Nothing is kept to put it back to.
    #[error("the call cannot be undone: {0}")]
    Forgetful(String),
    /// Played again it was not the same.
    #[error("the call could not be undone: the match {0}")]
    Diverged(#[source] Diverged),
}

/// Whether recent outputs are part of an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingIn {
    Encoding,
    Nowhere,
}

/// The processor time that went into putting a match back, as far as it still counts: as much as it may take within a minute runs off
/// in one. Like that of a call it is no part of what the match is: it decides whether the match goes on, which nobody decides again.
#[derive(Debug, Clone, Copy, Default)]
struct Undoing {
    took: Duration,
    at_ms: u64,
}

impl Undoing {
    fn note(&mut self, now_ms: u64, took: Duration) {
        *self = Undoing {
            took: self.counting(now_ms) + took,
            at_ms: now_ms,
        };
    }

    fn is_too_slow(&self, now_ms: u64) -> bool {
        self.counting(now_ms) > UNDOING_MAX
    }

    fn counting(&self, now_ms: u64) -> Duration {
        let since = Duration::from_millis(now_ms.saturating_sub(self.at_ms));
        self.took
            .saturating_sub(since * UNDOING_MAX.as_millis() as u32 / 60_000)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Ended,
    /// The guest's memory is in the middle of something.
    Failed,
}

/// What one event did. The same value can be given to [`Match::apply`] again and again, so that its buffers are reused.
#[derive(Debug, Default)]
pub struct Applied {
    pub record: Record,
    /// Numbered, and in the ring already.
    pub outputs: Vec<Arc<Output>>,
    /// New entries of the outbox.
    pub effects: Vec<(EffectId, Effect)>,
    /// To be applied next, in this order, before other events of this match; but answers ("busy") may wait their turn.
    pub follow_ups: Vec<Event>,
    /// Why `start` or `join` said no.
    pub refused: Option<String>,
    pub ended: Option<Ending>,
    /// Why the guest's share was undone.
    pub failure: Option<Failure>,
    /// The processor time that went into the failed call, and into putting the match back.
    pub cost: Duration,
    /// The match does not go on after that failure.
    pub given_up: Option<GivenUp>,
    /// What a save came to.
    pub saved: Option<Bytes>,
    pub log: Vec<(LogLevel, String)>,
}

/// The logical state of a match, for another version of its module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The version that saved it.
    pub by: String,
    pub state: Bytes,
}

/// How a match came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The match logic finished it.
    Finished {
        outcome: Bytes,
    },
    Stopped(EndReason),
}

/// Why a match stays with the version of the module that runs it. Nothing has happened to it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotUpgraded {
    #[error("the match is over, or ending")]
    Over,
    #[error("the match runs {ours}, and this is a version of {theirs}")]
    OtherModule { ours: String, theirs: String },
    /// Clients were told how payloads travel when they joined, and the match's row says what survives.
    #[error("the new version says another {0}: that is for new matches only")]
    OtherPromise(&'static str),
    #[error("the new version does not go on from what this one saved: {0}")]
    Refused(String),
    #[error("the new version failed: {0}")]
    Failed(Failure),
}

/// What the guest had to say to its share of an event.
enum Verdict {
    Done,
    Saved(Vec<u8>),
    /// `start` or `join` returned an error.
    Refused(String),
    /// The guest was not asked.
    Stale,
    /// The match is over from outside.
    Ended(EndReason),
    Failed(Failure),
}

impl From<Result<(), Failure>> for Verdict {
    fn from(result: Result<(), Failure>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(failure) => Self::Failed(failure),
        }
    }
}

impl From<Result<Result<(), String>, Failure>> for Verdict {
    fn from(result: Result<Result<(), String>, Failure>) -> Self {
        match result {
            Ok(Ok(())) => Self::Done,
            Ok(Err(reason)) => Self::Refused(cut_text(reason)),
            Err(failure) => Self::Failed(failure),
        }
    }
}

impl Match {
    /// An instance to which nothing has happened; its first event is [`Event::Start`].
    pub fn create(module: &Module, start: StartRecord) -> Result<Match, Failure> {
        Self::restore(module, HostPart::new(start))
    }

    /// A fresh instance with the host's part of a match that went on elsewhere; its first event is [`Event::Load`]. The match may have
    /// run another version of the module there.
    pub fn restore(module: &Module, part: HostPart) -> Result<Match, Failure> {
        Self::at(module, part.under(module), None)
    }

    /// A match that goes on from an image of its guest and the host's part of the same moment, as if it had never stopped.
    pub fn from_image(module: &Module, part: HostPart, image: &Image) -> Result<Match, Failure> {
        Self::at(module, part, Some(image))
    }

    /// A match as it was at some moment: the host's part, and the guest's image; none for a fresh instance.
    pub(super) fn at(module: &Module, part: HostPart, image: Option<&Image>) -> Result<Match, Failure> {
        let mut instance = match image {
            Some(image) => module.restore(part, image)?,
            None => module.instantiate(part)?,
        };
        // What a component does while it is instantiated is no event, so it goes nowhere.
        instance.state_mut().roll_back();
        instance.state_mut().call.log.clear();
        Ok(Match {
            instance,
            module: module.clone(),
            state: State::Running,
            asking: Asking::Live,
            undoing: Undoing::default(),
            history: Err("nothing is kept of this match".into()),
        })
    }

    /// From now on a failed call is undone, and the match can be recorded; unless its module cannot be captured. Said before its first
    /// event.
    pub fn remember(&mut self) {
        self.history = match self.module.captures() {
            Ok(()) => Ok(History::beginning(self.part().clone())),
            Err(why) => Err(format!("the module cannot be captured: {why}").into()),
        };
    }

    /// What it can be put back with.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref().ok()
    }

    /// All that is needed to play the match again elsewhere.
    ///
    /// # Errors
    /// Why nothing is kept of it.
    pub fn take_down(&mut self) -> Result<Taken, Arc<str>> {
        let hash = self.state_hash();
        let history = self.history.as_ref().map_err(Arc::clone)?;
        Ok(Taken {
            image: history.image().cloned(),
            base: history.part().clone(),
            journal: history.journal().encode(),
            last: self.part().clone(),
            hash,
        })
    }

    /// Notes how long the last events took, and says whether it is time for a new base: [`Match::renew_base`].
    pub fn took(&mut self, took: Duration) -> bool {
        let is_idle = self.part().human_count() == 0;
        self.state == State::Running
            && self
                .history
                .as_mut()
                .is_ok_and(|history| history.is_long_after(took, is_idle))
    }

    /// Counts this time as spent on putting the match back.
    #[cfg(test)]
    pub(super) fn undoing_took(&mut self, took: Duration) {
        let now_ms = self.part().now_ms;
        self.undoing.note(now_ms, took);
    }

    /// Makes what the match is now its base: from here it is put back, and from here it is recorded. Takes time of its own. A match that
    /// is over keeps its last one, since what is made of a base plays.
    pub fn renew_base(&mut self) {
        let Ok(history) = &self.history else { return };
        if self.state != State::Running {
            return;
        }
        self.history = match self.instance.image(history.image()) {
            Ok(image) => Ok(history.renewed(image, self.instance.state().part.clone())),
            Err(failure) => Err(format!("the match could not be captured: {failure}").into()),
        };
    }

    /// Notes how long the making of the base took.
    pub fn base_took(&mut self, took: Duration) {
        if let Ok(history) = &mut self.history {
            history.base_took(took);
        }
    }

    /// Has calls of the guest cut off at this one of their host calls, in the middle of whatever they do, until one was.
    #[cfg(test)]
    pub(super) fn cut_off_at(&mut self, host_call: Option<u32>) {
        self.host().call.cut_at = host_call;
    }

    /// What the guest has in memory, between two events. Pages that did not change since the image before are shared with it. Fails
    /// if the module cannot be captured, and after a failed call.
    pub fn image(&mut self, previous: Option<&Image>) -> Result<Image, Failure> {
        self.instance.image(previous)
    }

    pub fn part(&self) -> &HostPart {
        &self.instance.state().part
    }

    /// What it holds and what its calls have used at most, beside what they may.
    pub fn usage(&self) -> MatchUsage {
        let HostState { part, guard, peak, .. } = self.instance.state();
        let limits = &part.start.limits;
        MatchUsage {
            events: part.event_no,
            budgets: vec![
                Budget::new("memory_bytes", guard.memory_bytes(), limits.memory_bytes),
                Budget::new(
                    "published_keys",
                    part.published.keys() as u64,
                    limits.published_keys.into(),
                ),
                Budget::new("published_bytes", part.published.bytes() as u64, limits.published_bytes),
                Budget::new("requests", part.outbox.len() as u64, limits.outbox.into()),
                Budget::new("timers", part.timers.len() as u64, limits.timers.into()),
                Budget::new("call_host_calls", peak.host_calls.into(), limits.host_calls.into()),
                Budget::new("call_bytes", peak.bytes, limits.bytes_out),
                Budget::new("call_log_lines", peak.log_lines.into(), limits.log_lines.into()),
            ],
        }
    }

    /// Whether events still do anything.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// The host's part, encoded with the ring or without. Without: for a state from which the match goes on as a new incarnation,
    /// whose numbers begin above all that is in the ring.
    pub fn encode_part(&mut self, ring: RingIn) -> Bytes {
        let part = &mut self.host().part;
        part.forget_old_forwards();
        match ring {
            RingIn::Encoding => part.encode().into(),
            RingIn::Nowhere => {
                let none = Ring::starting_after(part.last_seq());
                let ring = std::mem::replace(&mut part.ring, none);
                let bytes = part.encode();
                part.ring = ring;
                bytes.into()
            }
        }
    }

    /// Goes on under another version of the module, from what this one has saved: as one event, which either is applied in full or
    /// has not happened. What `applied` says of it counts only then.
    ///
    /// # Errors
    /// Why it does not. The match is as it was, and goes on.
    pub fn upgrade(
        &mut self,
        at_ms: u64,
        module: &Module,
        saved: Saved,
        applied: &mut Applied,
    ) -> Result<(), NotUpgraded> {
        self.may_upgrade(module)?;
        let mut next = Self::restore(module, self.part().clone()).map_err(NotUpgraded::Failed)?;
        if self.history.is_ok() {
            next.remember();
        }
        let event = Event::Upgrade {
            from: self.part().start.digest,
            to: module.digest(),
            saved_by: saved.by,
            state: saved.state,
        };
        next.apply(at_ms, event, applied);
        if let Some(reason) = applied.refused.take() {
            return Err(NotUpgraded::Refused(reason));
        }
        if let Some(failure) = applied.failure.take() {
            return Err(NotUpgraded::Failed(failure));
        }
        *self = next;
        Ok(())
    }

    /// Whether another version may run this match at all.
    ///
    /// # Errors
    /// Why not.
    pub fn may_upgrade(&self, module: &Module) -> Result<(), NotUpgraded> {
        let (start, manifest) = (&self.part().start, module.manifest());
        if self.state != State::Running || self.part().is_finishing() {
            return Err(NotUpgraded::Over);
        }
        if start.module != manifest.name {
            let (ours, theirs) = (start.module.clone(), manifest.name.clone());
            return Err(NotUpgraded::OtherModule { ours, theirs });
        }
        if start.codec != manifest.codec {
            return Err(NotUpgraded::OtherPromise("codec"));
        }
        if start.durability != manifest.durability {
            return Err(NotUpgraded::OtherPromise("durability"));
        }
        Ok(())
    }

    /// The hash that two copies of a match compare: of all that follows from its events, but not of where its players are connected.
    /// None when the guest's memory is in the middle of something. A guest that cannot be captured is not part of it.
    pub fn state_hash(&mut self) -> Option<Digest> {
        let mut state = self.part().comparable();
        if self.module.captures().is_ok() {
            let before = self.history.as_ref().ok().and_then(History::image);
            let image = self.instance.image(before).ok()?;
            state.extend_from_slice(&image.hash().0);
        }
        Some(digest_of(&state))
    }

    /// Applies one event at a match time; time that would run back stands still. `applied` is overwritten.
    pub fn apply(&mut self, at_ms: u64, event: Event, applied: &mut Applied) {
        self.asking = Asking::Live;
        self.step(at_ms, event, applied);
        if let Ok(history) = &mut self.history {
            history.note(&applied.record, applied.sum());
        }
        if applied.failure.is_some() {
            self.undo(applied);
        }
    }

    /// Applies an event as it was recorded. Nothing is decided again: the outcome is the recorded one, or the replay has failed and the
    /// match is of no use any more.
    ///
    /// # Errors
    /// The event, its outcome or what comes out of it is not what was recorded.
    pub fn replay(&mut self, recorded: Recorded, applied: &mut Applied) -> Result<(), Diverged> {
        let Recorded {
            no,
            at_ms,
            event,
            outcome,
            sum,
        } = recorded;
        let diverged = |how| Err(Diverged { event: no, how });
        if no != self.part().event_no + 1 || at_ms < self.part().now_ms {
            return diverged(Divergence::Order);
        }
        self.asking = match outcome {
            Outcome::Trapped(kind) => Asking::Never(kind),
            Outcome::Applied | Outcome::Refused | Outcome::Stale => Asking::Again,
        };
        self.host().call.is_untimed = true;
        self.step(at_ms, event, applied);
        self.host().call.is_untimed = false;
        if applied.record.outcome != outcome {
            return diverged(Divergence::Outcome {
                recorded: outcome,
                replayed: applied.record.outcome,
                failure: applied.failure.take(),
            });
        }
        if applied.sum().value() != sum {
            return diverged(Divergence::Outputs);
        }
        Ok(())
    }

    /// Puts the guest back to where it was before a call that was cut off.
    fn undo(&mut self, applied: &mut Applied) {
        applied.cost = self.host().call.cpu_used;
        if applied.given_up == Some(GivenUp::AtTheStart) {
            return;
        }
        let now_ms = self.part().now_ms;
        if self.undoing.is_too_slow(now_ms) {
            applied.given_up.get_or_insert(GivenUp::TooSlow);
            self.state = State::Failed;
            return;
        }
        let began = thread_cpu_time();
        self.put_right(applied);
        let took = thread_cpu_time().saturating_sub(began);
        self.undoing.note(now_ms, took);
        applied.cost += took;
    }

    fn put_right(&mut self, applied: &mut Applied) {
        let history = match &self.history {
            Ok(history) => history,
            Err(why) => {
                let why = why.to_string();
                applied.given_up.get_or_insert(GivenUp::Forgetful(why));
                self.state = State::Failed;
                return;
            }
        };
        match history.again(&self.module).and_then(|again| self.put_back(again)) {
            // Who fails once fails again: the next time there is nothing to replay. When it was the end, what led there is what somebody
            // will want to look at.
            Ok(()) => self.renew_base(),
            Err(diverged) => {
                applied.given_up = Some(GivenUp::Diverged(diverged));
                self.state = State::Failed;
            }
        }
    }

    /// Takes the guest of a copy to which the same happened.
    fn put_back(&mut self, mut again: Match) -> Result<(), Diverged> {
        let (ours, theirs) = (self.part(), again.part());
        let marks = |part: &HostPart| (part.event_no, part.now_ms, part.last_seq(), part.next_seat);
        if marks(ours) != marks(theirs) || ours.random != theirs.random {
            let event = ours.event_no;
            let how = Divergence::State;
            return Err(Diverged { event, how });
        }
        again.host().peak = self.host().peak;
        std::mem::swap(&mut self.host().part, &mut again.host().part);
        self.instance = again.instance;
        Ok(())
    }

    fn step(&mut self, at_ms: u64, event: Event, applied: &mut Applied) {
        self.begin();
        let part = &mut self.host().part;
        part.now_ms = part.now_ms.max(at_ms);
        part.event_no += 1;
        let pending = part.pending.iter().position(|follow_up| follow_up.event == event);
        let depth = pending
            .and_then(|index| part.pending.remove(index))
            .map_or(0, |follow_up| follow_up.depth);
        let was_empty = self.part().human_count() == 0;
        let call = &mut self.host().call;
        (call.depth, call.was_empty) = (depth, was_empty);
        let verdict = match self.state {
            State::Running => self.run(&event),
            State::Ended | State::Failed => self.after_the_end(&event),
        };
        self.commit(event, verdict, applied);
    }

    /// Asks the guest, unless it is known not to come back.
    fn ask<R>(
        &mut self,
        call: impl FnOnce(&MatchLogic, &mut Store<HostState>) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        match self.asking {
            Asking::Live | Asking::Again => self.instance.call(call),
            Asking::Never(kind) => Err(Failure::new(kind, "it was cut off when it was recorded")),
        }
    }

    /// The guest's logical state. What it asks for meanwhile goes nowhere.
    fn save(&mut self) -> Verdict {
        let saved = match self.asking {
            Asking::Live | Asking::Again => self.instance.save(),
            Asking::Never(kind) => Err(Failure::new(kind, "it was cut off when it was recorded")),
        };
        match saved {
            Ok(saved) => {
                self.host().roll_back();
                self.host().call.log.clear();
                Verdict::Saved(saved)
            }
            Err(failure) => Verdict::Failed(failure),
        }
    }

    fn host(&mut self) -> &mut HostState {
        self.instance.state_mut()
    }

    fn begin(&mut self) {
        let host = self.host();
        host.call.random_was = host.part.random.clone();
        host.call.host_outputs = 0;
        host.call.host_follow_ups = 0;
    }

    /// Mail that a match left behind goes on; nothing else happens to it any more.
    fn after_the_end(&mut self, event: &Event) -> Verdict {
        if matches!(event, Event::Save) && self.state == State::Ended {
            return self.save();
        }
        let part = &mut self.host().part;
        let done = match event {
            Event::Addressed { effect, to } => part.post(*effect, *to),
            Event::Settled { effect } => {
                part.note_forward(*effect);
                part.settle(*effect).is_some()
            }
            Event::Answer {
                effect: Some(effect), ..
            } => part.settle(*effect).is_some(),
            _ => false,
        };
        if done { Verdict::Done } else { Verdict::Stale }
    }

    /// The host's share, then the guest's.
    fn run(&mut self, event: &Event) -> Verdict {
        if self.part().is_finishing() {
            match event {
                Event::Join { .. }
                | Event::Message { .. }
                | Event::Tick { .. }
                | Event::Timer { .. }
                | Event::Receive { .. } => return Verdict::Stale,
                _ => {}
            }
        }
        match event {
            Event::Start => {
                let setup = setup(&self.part().start);
                self.ask(|guest, store| guest.call_start(store, &setup)).into()
            }
            Event::Load { saved_by, state } => {
                let setup = setup(&self.part().start);
                self.ask(|guest, store| guest.call_load(store, &setup, saved_by, state))
                    .into()
            }
            Event::Upgrade { saved_by, state, .. } => self.load_upgraded(saved_by, state),
            Event::Join { seat, occupant, ctx } => self.join(*seat, occupant, ctx),
            Event::Leave { seat, reason } => self.leave(*seat, *reason),
            Event::Message { seat, n, data } => {
                if !self.host().part.seats.note_input(*seat, *n) {
                    return Verdict::Stale;
                }
                let n = u32::try_from(*n).unwrap_or(u32::MAX);
                self.ask(|guest, store| guest.call_message(store, *seat, n, data))
                    .into()
            }
            Event::Tick { elapsed_ms } => {
                let part = &mut self.host().part;
                part.last_tick_ms = part.now_ms;
                self.ask(|guest, store| guest.call_tick(store, *elapsed_ms)).into()
            }
            Event::Timer { id } => {
                let part = &mut self.host().part;
                // It may have been moved or cancelled since the event was made.
                if part.timers.due_ms(*id).is_none_or(|due_ms| due_ms > part.now_ms) {
                    return Verdict::Stale;
                }
                part.timers.put(*id, None);
                self.ask(|guest, store| guest.call_timer(store, *id)).into()
            }
            Event::Receive { sender, data, stamp } => {
                if stamp.is_some_and(|stamp| !self.host().part.note_mail(&stamp)) {
                    return Verdict::Stale;
                }
                self.ask(|guest, store| guest.call_receive(store, sender, data)).into()
            }
            Event::Arrive { stamp, traveller } => self.arrive(stamp, traveller),
            Event::Return { traveller } => {
                let seat = self.part().next_seat;
                let (team, own) = (traveller.team, self.part().start().match_id);
                let state = sitting(traveller, team);
                match self.sit(seat, state.clone(), &traveller.ctx, Some(own)) {
                    Verdict::Done | Verdict::Refused(_) => self.sits(seat, traveller),
                    // Nobody else has the player: they sit here, though the match logic does not know.
                    Verdict::Failed(failure) => {
                        self.give_seat(seat, state);
                        self.sits(seat, traveller);
                        let call = &mut self.host().call;
                        call.host_outputs = call.outputs.len();
                        call.host_follow_ups = call.follow_ups.len();
                        Verdict::Failed(failure)
                    }
                    other => other,
                }
            }
            Event::Addressed { effect, to } => match self.host().part.post(*effect, *to) {
                true => Verdict::Done,
                false => Verdict::Stale,
            },
            Event::Answer {
                request,
                effect,
                outcome,
            } => self.answer(*request, *effect, outcome),
            Event::Settled { effect } => {
                let part = &mut self.host().part;
                part.note_forward(*effect);
                match part.settle(*effect) {
                    Some(_) => Verdict::Done,
                    None => Verdict::Stale,
                }
            }
            Event::Signal { topic } => self.signal(topic),
            Event::Resync { seat, attach } => self.resync(*seat, attach.as_ref()),
            Event::Unreserve { player } => {
                let reservations = &mut self.host().part.reservations;
                let before = reservations.len();
                reservations.retain(|invitee| invitee.player != *player);
                if reservations.len() < before {
                    Verdict::Done
                } else {
                    Verdict::Stale
                }
            }
            Event::Kick { seat, reason } => match self.host().throw_out(*seat, reason.clone()) {
                Ok(true) => Verdict::Done,
                // It has no cause behind it, so it cannot be too deep.
                Ok(false) | Err(_) => Verdict::Stale,
            },
            Event::End { reason } => Verdict::Ended(*reason),
            Event::Save => self.save(),
        }
    }

    /// Both calls are one event: a version that loads and then fails at once has not taken over.
    fn load_upgraded(&mut self, saved_by: &str, state: &[u8]) -> Verdict {
        let setup = setup(&self.part().start);
        let loaded = self.ask(|guest, store| guest.call_load(store, &setup, saved_by, state));
        match loaded {
            Ok(Ok(())) => {
                let reason = "upgrade".to_owned();
                self.call_signal(&Topic::MatchResumed { reason }).into()
            }
            refused_or_failed => refused_or_failed.into(),
        }
    }

    fn join(&mut self, seat: Seat, occupant: &Occupant, ctx: &[u8]) -> Verdict {
        let host = self.host();
        if seat < host.part.next_seat {
            return Verdict::Stale;
        }
        let state = SeatState {
            player: Some(occupant.player),
            name: occupant.name.clone(),
            role: occupant.role,
            team: occupant.team,
            attachment: Some(occupant.attachment.clone()),
            last_n: 0,
            away_since_ms: None,
            joined_seq: 0,
            is_unclaimed: false,
        };
        let verdict = self.sit(seat, state, ctx, None);
        match &verdict {
            Verdict::Done => self.take_reservation(occupant.player),
            Verdict::Refused(_) => self.host().forget_refused(seat),
            Verdict::Failed(_) | Verdict::Stale | Verdict::Ended(_) | Verdict::Saved(_) => {}
        }
        verdict
    }

    /// A player comes from another match.
    fn arrive(&mut self, stamp: &Stamp, traveller: &Traveller) -> Verdict {
        if !self.host().part.note_mail(stamp) {
            return Verdict::Stale;
        }
        let part = self.part();
        let verdict = match part.admit(traveller.player, traveller.role) {
            _ if part.is_finishing() => Verdict::Refused("the match is ending".into()),
            Admission::Seated { .. } => Verdict::Refused("the player sits here already".into()),
            Admission::Full => Verdict::Refused("no seat is free".into()),
            Admission::Closed => Verdict::Refused("the match takes no more players".into()),
            Admission::Free { seat, team } => {
                match self.sit(seat, sitting(traveller, team), &traveller.ctx, Some(stamp.from)) {
                    Verdict::Done => {
                        self.take_reservation(traveller.player);
                        self.sits(seat, traveller)
                    }
                    refused @ Verdict::Refused(_) => {
                        self.host().forget_refused(seat);
                        refused
                    }
                    other => other,
                }
            }
        };
        // Also who was not let in because the match logic failed goes back.
        if let Verdict::Refused(_) | Verdict::Failed(_) = verdict {
            let mark = self.host().part.inbox.entry(stamp.from).or_default();
            mark.refused.insert(stamp.number);
        }
        verdict
    }

    /// Somebody who came without a connection is away from the first.
    fn sits(&mut self, seat: Seat, traveller: &Traveller) -> Verdict {
        if traveller.is_away || traveller.attachment.is_none() {
            let topic = Topic::SeatAway { seat };
            self.host().call.follow_ups.push(Event::Signal { topic });
        }
        Verdict::Done
    }

    fn take_reservation(&mut self, player: PlayerId) {
        self.host().part.reservations.retain(|invitee| invitee.player != player);
    }

    /// Seats somebody, and has the others told.
    fn give_seat(&mut self, seat: Seat, state: SeatState) {
        let host = self.host();
        host.part.next_seat = seat + 1;
        let is_unclaimed = state.is_unclaimed;
        host.part.seats.insert(seat, state);
        if !is_unclaimed {
            host.say_joined(seat, Vec::new());
        }
        let joined = vec![player_info(seat, host.part.seats.get(seat).expect("seated above"))];
        host.call.outputs.push((
            Audience::Except(seat),
            Body::Players {
                joined,
                left: Vec::new(),
                away: Vec::new(),
                back: Vec::new(),
            },
        ));
    }

    /// Gives a seat and asks the guest. The caller decides what a refusal means. `from`: the match that handed the player over, this
    /// one for who comes back; what the player brings is then that match's word, and otherwise the client's.
    fn sit(&mut self, seat: Seat, state: SeatState, ctx: &[u8], from: Option<MatchId>) -> Verdict {
        let next_seat_was = self.part().next_seat;
        let role = state.role;
        let (player_id, name, team) = (player_text(seat, state.player), state.name.clone(), state.team);
        self.give_seat(seat, state);
        let player = bindings::Player {
            seat,
            player_id,
            display_name: name,
            role: match role {
                Role::Player => bindings::Role::Player,
                Role::Spectator => bindings::Role::Spectator,
                Role::Bot => bindings::Role::Bot,
            },
            team,
            extra: from
                .map(|from| ("from".to_owned(), from.to_string()))
                .into_iter()
                .collect(),
        };
        let verdict: Verdict = self.ask(|guest, store| guest.call_join(store, &player, ctx)).into();
        match &verdict {
            Verdict::Done => {
                let part = &mut self.host().part;
                if let Some(player) = part.seats.get(seat).and_then(|state| state.player) {
                    part.forwards.remove(&player);
                }
            }
            // The guest's share is undone in full when the event is committed.
            Verdict::Failed(_) => {
                let host = self.host();
                host.roll_back();
                host.part.seats.remove(seat);
                host.part.next_seat = next_seat_was;
            }
            Verdict::Refused(_) | Verdict::Stale | Verdict::Ended(_) | Verdict::Saved(_) => {}
        }
        verdict
    }

    fn leave(&mut self, seat: Seat, reason: LeaveReason) -> Verdict {
        let host = self.host();
        let Some(state) = host.part.seats.remove(seat) else {
            return Verdict::Stale;
        };
        host.part.published.forget(seat);
        if reason == LeaveReason::Transferred && state.attachment.is_some() {
            host.call.outputs.push((Audience::One(seat), Body::Transferring));
        }
        let left = vec![Departure { seat, reason }];
        host.tell_others(
            seat,
            Body::Players {
                joined: Vec::new(),
                left,
                away: Vec::new(),
                back: Vec::new(),
            },
        );
        let reason = match reason {
            LeaveReason::Left => bindings::LeaveReason::Left,
            LeaveReason::TimedOut => bindings::LeaveReason::TimedOut,
            LeaveReason::Kicked => bindings::LeaveReason::Kicked,
            LeaveReason::Transferred => bindings::LeaveReason::Transferred,
            LeaveReason::Ended => bindings::LeaveReason::Ended,
        };
        self.ask(|guest, store| guest.call_leave(store, seat, reason)).into()
    }

    fn answer(&mut self, request: u32, effect: Option<EffectId>, outcome: &Result<Vec<Entry>, String>) -> Verdict {
        let settled = match effect {
            Some(effect) => match self.host().part.settle(effect) {
                Some(settled) => Some(settled),
                None => return Verdict::Stale,
            },
            None => None,
        };
        let back = settled
            .filter(|_| outcome.is_err())
            .and_then(|settled| settled.traveller());
        let outcome = match outcome {
            Ok(entries) => Ok(entries.iter().map(guest_entry).collect::<Vec<_>>()),
            Err(error) => Err(error.clone()),
        };
        let outcome = outcome.as_ref().map(Vec::as_slice).map_err(String::as_str);
        let answered = self.ask(|guest, store| guest.call_answer(store, request, outcome));
        if let Some(traveller) = back {
            let host = self.host();
            // They come back whatever the match logic has to say to it.
            if answered.is_err() {
                host.roll_back();
            }
            host.call.follow_ups.push(Event::Return { traveller });
            host.call.host_follow_ups = host.call.follow_ups.len();
        }
        answered.into()
    }

    fn signal(&mut self, topic: &Topic) -> Verdict {
        match topic {
            Topic::SeatAway { seat } => {
                let host = self.host();
                let now_ms = host.part.now_ms;
                if !host.part.seats.go_away(*seat, now_ms) {
                    return Verdict::Stale;
                }
                let away = vec![*seat];
                host.tell_others(
                    *seat,
                    Body::Players {
                        joined: Vec::new(),
                        left: Vec::new(),
                        away,
                        back: Vec::new(),
                    },
                );
            }
            Topic::SeatBack { seat } => {
                if !self.host().come_back(*seat) {
                    return Verdict::Stale;
                }
            }
            Topic::Operator { .. } | Topic::MatchResumed { .. } | Topic::ContentChanged { .. } => {}
        }
        self.call_signal(topic).into()
    }

    fn resync(&mut self, seat: Seat, attach: Option<&Attachment>) -> Verdict {
        let host = self.host();
        if !host.part.seats.contains(seat) {
            return Verdict::Stale;
        }
        let mut has_all = false;
        if let Some(attachment) = attach {
            let missed = host.part.missed_before_claim(seat);
            has_all = missed.is_some();
            host.part.seats.attach(seat, attachment.clone());
            host.say_joined(seat, missed.unwrap_or_default());
            host.call.host_outputs = host.call.outputs.len();
            if host.come_back(seat)
                && let Err(failure) = self.call_signal(&Topic::SeatBack { seat })
            {
                return Verdict::Failed(failure);
            }
        }
        if has_all {
            return Verdict::Done;
        }
        self.ask(|guest, store| guest.call_resync(store, seat)).into()
    }

    fn call_signal(&mut self, topic: &Topic) -> Result<(), Failure> {
        let (topic, data) = signal_text(topic);
        self.ask(|guest, store| guest.call_signal(store, topic, &data))
    }

    /// Puts into force what the event has gathered, or takes it back.
    fn commit(&mut self, event: Event, verdict: Verdict, applied: &mut Applied) {
        let host = self.instance.state_mut();
        applied.clear();
        let outcome = match verdict {
            Verdict::Done => Outcome::Applied,
            Verdict::Saved(state) => {
                applied.saved = Some(state.into());
                Outcome::Applied
            }
            Verdict::Stale => Outcome::Stale,
            Verdict::Ended(reason) => {
                host.part.finishing.get_or_insert(Finishing::Stopped { reason });
                Outcome::Applied
            }
            Verdict::Refused(reason) => {
                applied.refused = Some(reason);
                Outcome::Refused
            }
            Verdict::Failed(failure) => {
                host.roll_back();
                applied.given_up = match event {
                    _ if host.part.note_trap(failure.kind) => Some(GivenUp::TooOften),
                    Event::Start | Event::Load { .. } | Event::Upgrade { .. } => Some(GivenUp::AtTheStart),
                    _ => None,
                };
                if applied.given_up.is_some() && self.state == State::Running {
                    self.state = State::Failed;
                }
                Outcome::Trapped(applied.failure.insert(failure).kind)
            }
        };
        host.call.undo.clear();
        host.number_outputs(&mut applied.outputs);
        host.post_effects(&mut applied.effects);
        let depth = host.call.depth + 1;
        host.part.pending.extend(
            host.call
                .follow_ups
                .iter()
                .cloned()
                .map(|event| FollowUp { depth, event }),
        );
        applied.follow_ups.append(&mut host.call.follow_ups);
        applied.log.append(&mut host.call.log);
        if let Some(outcome) = host.call.finished.take() {
            host.part.finishing.get_or_insert(Finishing::Finished { outcome });
        }
        // Whoever is on the way may have to come back: the match ends when they are settled.
        if self.state == State::Running
            && let Some(finishing) = &host.part.finishing
            && !host.part.has_travellers()
        {
            applied.ended = Some(match finishing.clone() {
                Finishing::Finished { outcome } => Ending::Finished { outcome },
                Finishing::Stopped { reason } => Ending::Stopped(reason),
            });
            self.state = State::Ended;
        }
        applied.record = Record {
            no: host.part.event_no,
            at_ms: host.part.now_ms,
            event,
            outcome,
            answers: Vec::new(),
        };
    }
}

impl Applied {
    fn clear(&mut self) {
        self.outputs.clear();
        self.effects.clear();
        self.follow_ups.clear();
        self.refused = None;
        self.ended = None;
        self.failure = None;
        self.cost = Duration::ZERO;
        self.given_up = None;
        self.saved = None;
        self.log.clear();
    }

    /// What came out, as it stands in the event's record.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::NOTHING;
        self.outputs.iter().for_each(|output| sum.output(output));
        self.effects.iter().for_each(|(_, effect)| sum.effect(effect));
        if let Some(reason) = &self.refused {
            sum.bytes(reason.as_bytes());
        }
        if let Some(saved) = &self.saved {
            sum.bytes(saved);
        }
        if let Some(Ending::Finished { outcome }) = &self.ended {
            sum.bytes(outcome);
        }
        sum
    }
}

/// What the host itself says about seats.
impl HostState {
    /// Tells a seat's connection where it sits and what it may see.
    fn say_joined(&mut self, seat: Seat, missed: Vec<Arc<Output>>) {
        let Some(state) = self.part.seats.get(seat) else { return };
        let Some(attachment) = state.attachment.clone() else {
            return;
        };
        let joined = Joined {
            seat,
            attachment,
            role: state.role,
            n: state.last_n,
            players: self.part.players(),
            values: self.part.visible_values(seat),
            missed,
        };
        self.call
            .outputs
            .push((Audience::One(seat), Body::Joined(Arc::new(joined))));
    }

    fn come_back(&mut self, seat: Seat) -> bool {
        let was_away = self.part.seats.come_back(seat);
        if was_away {
            let back = vec![seat];
            self.tell_others(
                seat,
                Body::Players {
                    joined: Vec::new(),
                    left: Vec::new(),
                    away: Vec::new(),
                    back,
                },
            );
        }
        was_away
    }

    fn tell_others(&mut self, seat: Seat, body: Body) {
        self.call.outputs.push((Audience::Except(seat), body));
        self.call.host_outputs = self.call.outputs.len();
    }

    /// The guest refused to seat a player. It has run, so what it said to the others stands; what was about this seat does not.
    fn forget_refused(&mut self, seat: Seat) {
        self.part.seats.remove(seat);
        self.part.published.forget(seat);
        let call = &mut self.call;
        call.outputs.retain(|(audience, body)| match (audience, body) {
            (Audience::One(to), _) => *to != seat,
            (_, Body::Players { joined, .. }) => joined.iter().all(|player| player.seat != seat),
            _ => true,
        });
        call.follow_ups
            .retain(|event| !matches!(event, Event::Leave { seat: leaving, .. } if *leaving == seat));
        call.effects
            .retain(|effect| !matches!(effect, Effect::Transfer { seat: leaving, .. } if *leaving == seat));
    }

    fn number_outputs(&mut self, outputs: &mut Vec<Arc<Output>>) {
        let part = &mut self.part;
        let at_ms = part.now_ms;
        let is_for_nobody = self.call.was_empty && part.seats.humans() == 0;
        let number = |(audience, body): (Audience, Body)| {
            part.outputs += 1;
            let seq = part.last_seq();
            match &body {
                Body::Published { key, data } => {
                    let to = if let Audience::One(seat) = &audience {
                        Some(*seat)
                    } else {
                        None
                    };
                    let was = data.as_ref().and_then(|_| part.published.number(to, key, seq, at_ms));
                    if let Some(was) = was {
                        part.ring.supersede(was);
                    }
                }
                Body::Players { joined, .. } => {
                    for player in joined {
                        part.seats.note_joined(player.seat, seq);
                    }
                }
                Body::Data { .. } | Body::Kicked { .. } | Body::Joined(_) | Body::Transferring => {}
            }
            let output = Arc::new(Output {
                seq,
                at_ms,
                audience,
                body,
            });
            match is_for_nobody {
                true => part.ring.pass_over(at_ms),
                false => part.ring.push(output.clone()),
            }
            output
        };
        outputs.extend(self.call.outputs.drain(..).map(number));
    }

    fn post_effects(&mut self, effects: &mut Vec<(EffectId, Effect)>) {
        let (incarnation, event) = (self.part.start.incarnation, self.part.event_no);
        let (outbox, collections) = (&mut self.part.outbox, &mut self.part.collections);
        let post = |(index, effect): (usize, Effect)| {
            if let Effect::ContentRead { collection, .. } = &effect
                && collections.len() < COLLECTIONS_HEARD_MAX
            {
                collections.insert(collection.clone());
            }
            let id = EffectId {
                incarnation,
                event,
                index: index as u32,
            };
            outbox.insert(id, effect.clone());
            (id, effect)
        };
        effects.extend(self.call.effects.drain(..).enumerate().map(post));
    }
}

/// The seat of somebody who comes by a transfer; their connection follows.
fn sitting(traveller: &Traveller, team: Option<u32>) -> SeatState {
    SeatState {
        player: Some(traveller.player),
        name: traveller.name.clone(),
        role: traveller.role,
        team,
        attachment: traveller.attachment.clone(),
        last_n: 0,
        away_since_ms: None,
        joined_seq: 0,
        is_unclaimed: true,
    }
}

fn setup(start: &StartRecord) -> bindings::Setup {
    let invited = start.invited.iter().map(|invitee| bindings::Invitee {
        player_id: invitee.player.to_string(),
        team: invitee.team,
        party: invitee.party.clone(),
        properties: invitee.properties.clone(),
    });
    bindings::Setup {
        match_id: start.match_id.to_string(),
        name: start.name.clone(),
        params: start.params.to_vec(),
        invited: invited.collect(),
        extra: Vec::new(),
    }
}

fn guest_entry(entry: &Entry) -> bindings::Entry {
    bindings::Entry {
        key: entry.key.clone(),
        data: entry.data.to_vec(),
        version: entry.version.clone(),
    }
}

/// A topic's name and its JSON. An operator's text is embedded as it is when it is JSON, and as a string when it is not.
fn signal_text(topic: &Topic) -> (&'static str, String) {
    match topic {
        Topic::SeatAway { seat } => ("seat.away", format!("{{\"seat\":{seat}}}")),
        Topic::SeatBack { seat } => ("seat.back", format!("{{\"seat\":{seat}}}")),
        Topic::Operator { data } => {
            let data = match serde_json::from_str::<&serde_json::value::RawValue>(data) {
                Ok(json) => json.get().to_owned(),
                Err(_) => serde_json::Value::from(data.as_str()).to_string(),
            };
            ("operator", format!("{{\"data\":{data}}}"))
        }
        Topic::MatchResumed { reason } => ("match.resumed", serde_json::json!({ "reason": reason }).to_string()),
        Topic::ContentChanged { collection, key } => (
            "content.changed",
            serde_json::json!({ "collection": collection, "key": key }).to_string(),
        ),
    }
}

fn cut_text(mut text: String) -> String {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod images;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod undo;
#[cfg(test)]
mod upgrade;
