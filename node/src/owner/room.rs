//! A match and those who listen to it: seats' connections, the order of numbered inputs, streams to gateways, graces, and when
//! a match with nobody in it ends.
//!
//! Pure: no clock, socket, task or database. The match logic behind it is deterministic; what this machine adds is who hears
//! it. Invariants: input `n` of a seat is applied only after `n - 1`, and once; only the connection with the highest attachment
//! number speaks for a seat; nothing leaves before the match's row says `running`; every wait has a wake-up.

#![deny(clippy::disallowed_methods)]

mod gateways;
mod mail;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_protocol::client::{LeaveReason, ListedMatch, Role};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::output::Output;
use rookery_protocol::peer::{DownFrame, HandedStream, Letter, MatchFailure, MatchHead, MatchView, Over, Receipt};
use rookery_protocol::{MatchId, NodeLife, NodeName, PlayerId, Seat, SessionId};

use self::gateways::STREAMS_MAX;
pub use self::mail::Absence;
use self::mail::Mailbox;
use super::debts::DEBT_MAX;
use super::lines::{self, Lines};
use super::saving::Saving;
use super::stream::Stream;
use crate::matches::effect::{Effect, EffectId};
use crate::matches::event::{EndReason, Entry, Event, Outcome, Topic, TrapKind};
use crate::matches::incident::Incidents;
use crate::matches::machine::{Applied, Ending, GivenUp, LogLevel, Match, NotUpgraded, RingIn, Saved};
use crate::matches::part::StartRecord;
use crate::matches::recording::Taken;
use crate::wasm::Module;

/// Answers and signals that wait until a match is released: a full outbox, and as many changes of content.
const EARLY_MAX: usize = 512;

/// Failed inputs that are remembered, for gateways that missed a frame; who is further behind hears that it was applied.
const FAILED_INPUTS_MAX: usize = 64;

/// A call that was cut off may cost this much processor time and no more comes of it: to put a match of ordinary size back takes less.
const COST_FREE: Duration = Duration::from_millis(4);

/// For one that costs more the match rests this many times as long as it took, five seconds at most: so it cannot take more than a hundredth
/// of its thread's time by failing, and 99 of 100 ticks of the matches beside it are not held up.
const REST_TIMES: u32 = 100;

/// How long a match that is over answers gateways that have not confirmed its end.
const OVER_FOR_MS: u64 = 10_000;

/// How long after a match went on elsewhere a seat may be silent before its player counts as away. Its gateway says who sits there
/// as soon as it has found the match, which it looks for four times a second.
const HEARD_WITHIN_MS: u64 = 10_000;

/// What a room is told besides its match.
#[derive(Debug, Clone)]
pub struct RoomConfig {
    pub epoch: u64,
    pub node: NodeName,
    /// Ends when nobody has been seated or away for this long; none for zones.
    pub empty_after_ms: Option<u64>,
    pub private: bool,
    /// The version of the module, for whoever goes on from what it saves.
    pub version: Arc<str>,
    /// It is heard only while this node's lease holds.
    pub leased: bool,
    /// How often it is saved; none when it is not.
    pub save_every_ms: Option<u64>,
    /// How long the seats of invited players are kept, from when the match runs.
    pub reserve_ms: u64,
}

#[cfg(test)]
impl RoomConfig {
    /// Of a match of this node, under no lease, that is not saved and does not end by itself.
    pub(crate) fn of_tests(node: NodeName, epoch: u64) -> Self {
        RoomConfig {
            epoch,
            node,
            empty_after_ms: None,
            private: false,
            version: "1.0.0".into(),
            leased: false,
            save_every_ms: None,
            reserve_ms: 30_000,
        }
    }
}

/// Why a match goes on from what was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// From the store: its owner is gone.
    Restored,
    /// From its owner, which handed it over.
    Moved,
}

impl Resumption {
    /// The reason that the match logic hears.
    fn reason(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Moved => "moved",
        }
    }
}

/// What the outside must do after a step, in order.
#[derive(Debug)]
pub enum RoomEffect {
    /// Perform an effect of the match logic, and answer it.
    Perform { id: EffectId, effect: Effect },
    /// Which match has this name? Answered by [`Room::found`].
    Find { name: String },
    /// Carry this to the match it is for. It is said again until a receipt comes.
    Letter(Box<Letter>),
    /// Tell a node what came from a match of its.
    Receipt { to: NodeLife, receipt: Receipt },
    /// Write this state into the store.
    Save(Box<SavedState>),
    /// The match is over: its row must say so.
    Over(Verdict),
    /// Tell the node of this session that its player has come here from that match.
    Call {
        to: NodeLife,
        from: MatchId,
        session: SessionId,
    },
    /// Somebody plays who did not before.
    Seated { player: PlayerId },
    /// For the author of the module.
    Log { level: LogLevel, line: String },
    /// A call of the match logic was cut off.
    Failure(Box<MatchFailure>),
    /// The match failed for good, and this is what led to it.
    Keep(Box<Taken>),
}

/// A room on its way to another node.
#[derive(Debug, Clone, PartialEq)]
pub struct HandedRoom {
    pub state: Bytes,
    /// The host's part, encoded, its ring included.
    pub part: Bytes,
    pub streams: Vec<HandedStream>,
}

/// A state on its way to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedState {
    /// The last event that is in it.
    pub event: u64,
    pub state: Bytes,
    /// The host's part, encoded.
    pub part: Bytes,
}

/// How a match ended, for its row and its players.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Ended { outcome: Bytes },
    Failed { reason: String },
}

impl Verdict {
    /// The same for the players.
    pub fn over(&self) -> Over {
        match self {
            Verdict::Ended { outcome } => Over::Ended {
                result: outcome.clone(),
            },
            Verdict::Failed { reason } => Over::Failed { reason: reason.clone() },
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// The row does not say `running` yet: nothing is let in or out.
    Starting,
    Running,
    Over {
        since_ms: u64,
    },
}

/// Counts of what happened in a step, for metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    /// Those of them whose call was cut off and undone.
    pub undone: u64,
    pub ticks_late: u64,
    /// How long after it was due the tick began, if there was one.
    pub tick_late_ms: Option<u64>,
    /// Log lines that were not written.
    pub log_dropped: u64,
    /// For how long it has to rest for what its calls have cost that were cut off.
    pub rest: Duration,
}

/// One owned match.
pub struct Room {
    game: Match,
    config: RoomConfig,
    head: Arc<MatchHead>,
    phase: Phase,
    verdict: Option<Verdict>,
    streams: Vec<Stream>,
    follow_ups: VecDeque<Event>,
    /// What came from outside before the match was released.
    early: Vec<Event>,
    grace_ms: u64,
    tick_ms: u64,
    /// Since when nobody has been seated or away.
    empty_since_ms: Option<u64>,
    saving: Option<Saving>,
    mail: Mailbox,
    /// It went on from what was saved, and has not been released since.
    resumption: Option<Resumption>,
    /// Seats of which nothing was heard by then are away: their gateways are gone, or have forgotten them.
    heard_by_ms: Option<u64>,
    /// Until when seats are kept for those who were invited; none before the match runs.
    reserved_until_ms: Option<u64>,
    counts: Counts,
    applied: Applied,
    lines: Lines,
    /// Nothing happens to the match before this.
    rests_until_ms: u64,
    incidents: Incidents,
    /// Inputs with numbers on which the match logic failed lately; said again to gateways that may have missed it.
    failed_inputs: VecDeque<FailedInput>,
}

/// An input with a number on which the match logic failed.
#[derive(Debug, Clone, Copy)]
struct FailedInput {
    seat: Seat,
    n: u64,
    kind: TrapKind,
}

impl Room {
    /// A room for a match that has been created, and whose `start` was not applied yet.
    pub fn new(mut game: Match, config: RoomConfig) -> Self {
        game.remember();
        let start = game.part().start();
        let (head, grace_ms, tick_ms) = (head_of(start), u64::from(start.grace_ms), tick_ms_of(start));
        let now_ms = game.part().now_ms();
        let saving = config.save_every_ms.map(|every_ms| Saving::new(every_ms, 0));
        Self {
            game,
            config,
            head,
            phase: Phase::Starting,
            verdict: None,
            streams: Vec::new(),
            follow_ups: VecDeque::new(),
            early: Vec::new(),
            grace_ms,
            tick_ms,
            empty_since_ms: Some(now_ms),
            saving,
            mail: Mailbox::default(),
            resumption: None,
            heard_by_ms: None,
            reserved_until_ms: None,
            counts: Counts::default(),
            applied: Applied::default(),
            lines: Lines::default(),
            rests_until_ms: 0,
            incidents: Incidents::default(),
            failed_inputs: VecDeque::new(),
        }
    }

    pub fn id(&self) -> MatchId {
        self.game.part().start().match_id
    }

    pub fn module(&self) -> &str {
        &self.head.module
    }

    pub fn epoch(&self) -> u64 {
        self.config.epoch
    }

    pub fn game(&self) -> &Match {
        &self.game
    }

    pub fn config(&self) -> &RoomConfig {
        &self.config
    }

    /// The gateways that listen, and the numbers of their streams.
    pub fn gateways(&self) -> impl Iterator<Item = (&NodeLife, u64)> {
        self.streams.iter().map(|stream| (stream.gateway(), stream.number()))
    }

    pub fn is_private(&self) -> bool {
        self.config.private
    }

    /// The end of the match, once it is over.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The match, to be played again elsewhere.
    pub fn take_down(&mut self) -> Result<Taken, Arc<str>> {
        self.game.take_down()
    }

    /// Notes how long the last events took, and says whether the match ought to have a new base: [`Room::renew_base`].
    pub fn took(&mut self, took: Duration) -> bool {
        self.game.took(took)
    }

    /// Makes what the match is now what a failed call puts it back from. Takes time of its own, which is to be noted.
    pub fn renew_base(&mut self) {
        self.game.renew_base();
    }

    /// Notes how long that took.
    pub fn base_took(&mut self, took: Duration) {
        self.game.base_took(took);
    }

    /// Takes what was counted since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Applies `start`. A refusal ends the match before it began: nobody has heard of it.
    pub fn start(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) -> Result<(), Refusal> {
        self.apply(now_ms, Event::Start, out);
        if let Some(reason) = self.applied.refused.take() {
            return Err(
                Refusal::new(ErrorCode::MatchRefused, "the module refused to start this match").with("reason", reason),
            );
        }
        match &self.verdict {
            Some(Verdict::Failed { reason }) => {
                Err(Refusal::new(ErrorCode::ModuleInvalid, "the match failed to start").with("reason", reason.as_str()))
            }
            Some(Verdict::Ended { .. }) | None => Ok(()),
        }
    }

    /// Goes on from a saved state, in place of [`Room::start`].
    ///
    /// # Errors
    /// The match logic cannot go on from it. The room is useless then; nobody has heard of it.
    pub fn load(
        &mut self,
        now_ms: u64,
        why: Resumption,
        saved_by: String,
        state: Bytes,
        out: &mut Vec<RoomEffect>,
    ) -> Result<(), Refusal> {
        self.apply(now_ms, Event::Load { saved_by, state }, out);
        if let Some(reason) = self.applied.refused.take() {
            let message = "the module does not go on from what was saved";
            return Err(Refusal::new(ErrorCode::MatchRefused, message).with("reason", reason));
        }
        if let Some(Verdict::Failed { reason }) = &self.verdict {
            let message = "the module failed to go on from what was saved";
            return Err(Refusal::new(ErrorCode::ModuleInvalid, message).with("reason", reason.as_str()));
        }
        self.resumption = Some(why);
        Ok(())
    }

    /// Takes the streams of the match's last owner.
    pub fn take_streams(&mut self, streams: Vec<HandedStream>) {
        self.streams = streams.into_iter().take(STREAMS_MAX).map(Stream::handed).collect();
    }

    /// All that the next owner needs, as of now; the match must not hear or say anything more here. None when it is over, or its
    /// `save` failed: then it stays.
    pub fn hand_over(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) -> Option<HandedRoom> {
        if self.phase != Phase::Running {
            return None;
        }
        self.apply(now_ms, Event::Save, out);
        let state = self.applied.saved.take()?;
        Some(HandedRoom {
            state,
            part: self.game.encode_part(RingIn::Encoding),
            streams: self.streams.iter().map(Stream::hand_over).collect(),
        })
    }

    /// Goes on under another version of the module, at this event boundary. What the new version says is heard like anything else.
    ///
    /// # Errors
    /// Why the match goes on as it is, for the author of the new version.
    pub fn upgrade(&mut self, now_ms: u64, module: &Module, out: &mut Vec<RoomEffect>) -> Result<(), String> {
        if self.phase != Phase::Running || self.verdict.is_some() {
            return Err(NotUpgraded::Over.to_string());
        }
        self.game.may_upgrade(module).map_err(|why| why.to_string())?;
        self.apply(now_ms, Event::Save, out);
        let Some(state) = self.applied.saved.take() else {
            let failure = self.applied.failure.take();
            let why = failure.map(|failure| failure.to_string()).unwrap_or_default();
            return Err(format!("the match could not be saved: {why}"));
        };
        let by = self.config.version.to_string();
        let upgraded = self
            .game
            .upgrade(now_ms, module, Saved { by, state }, &mut self.applied);
        if let Err(why) = upgraded {
            let applied = std::mem::take(&mut self.applied);
            // A panic's words are the last that it logged.
            let words = match applied.log.last() {
                Some((LogLevel::Error, words)) => format!("; its log says: {words}"),
                Some(_) | None => String::new(),
            };
            return Err(format!("{why}{words}"));
        }
        self.config.version = module.manifest().version.as_str().into();
        let start = self.game.part().start();
        (self.head, self.grace_ms, self.tick_ms) = (head_of(start), u64::from(start.grace_ms), tick_ms_of(start));
        self.take_up(now_ms, None, out);
        self.run_follow_ups(now_ms, out);
        Ok(())
    }

    /// The match stayed, under this epoch.
    pub fn stay(&mut self, epoch: u64) {
        self.config.epoch = epoch;
    }

    /// The match's row says `running` under our epoch: it may speak.
    pub fn release(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        if self.phase != Phase::Starting {
            return;
        }
        if self.verdict.is_some() {
            self.phase = Phase::Over { since_ms: now_ms };
            return;
        }
        self.phase = Phase::Running;
        self.reserved_until_ms = Some(now_ms + self.config.reserve_ms);
        if let Some(why) = self.resumption.take() {
            self.resume_play(now_ms, why, out);
        }
        for event in std::mem::take(&mut self.early) {
            self.outside_event(now_ms, event, out);
            self.run_follow_ups(now_ms, out);
        }
        self.run_follow_ups(now_ms, out);
        self.send_mail(now_ms, false, out);
    }

    /// What was under way when the state was saved goes on: follow-ups, requests without an answer, and the seats, which are heard
    /// of by their gateways. A request that was performed already is answered like the first time, since it keeps its id.
    fn resume_play(&mut self, now_ms: u64, why: Resumption, out: &mut Vec<RoomEffect>) {
        let part = self.game.part();
        let pending: Vec<Event> = part.pending().cloned().collect();
        let asked: Vec<(EffectId, Effect)> = part.outbox().iter().map(|(id, effect)| (*id, effect.clone())).collect();
        self.follow_ups = pending.into();
        for (id, effect) in asked {
            self.ask(id, effect, out);
        }
        self.heard_by_ms = Some(now_ms + HEARD_WITHIN_MS);
        // Gateways that listened to the last owner hear from us what they have not confirmed.
        for index in 0..self.streams.len() {
            let last = self.streams[index].sent();
            self.catch_up(now_ms, index, last, out);
        }
        self.run_follow_ups(now_ms, out);
        let reason = why.reason().into();
        self.apply(
            now_ms,
            Event::Signal {
                topic: Topic::MatchResumed { reason },
            },
            out,
        );
        self.run_follow_ups(now_ms, out);
    }

    /// The save that was under way is over.
    pub fn saved(&mut self, written: bool) {
        if let Some(saving) = &mut self.saving {
            saving.ended(written);
        }
    }

    /// Saves the match before its node stops, if it changed since the last save.
    pub fn save_last(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        let event_no = self.game.part().event_no();
        if self.phase == Phase::Running && self.saving.as_ref().is_some_and(|saving| saving.lacks(event_no)) {
            self.save_now(now_ms, out);
        }
    }

    fn save_now(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        self.apply(now_ms, Event::Save, out);
        let state = self.applied.saved.take();
        let event = self.game.part().event_no();
        let Some(saving) = &mut self.saving else { return };
        match state {
            Some(state) => {
                saving.began(now_ms, event);
                let part = self.game.encode_part(RingIn::Nowhere);
                out.push(RoomEffect::Save(Box::new(SavedState { event, state, part })));
            }
            // It plays on without having been saved.
            None => saving.failed(now_ms),
        }
    }

    /// Whether gateways may send here: a match that is not released is answered as if it were not here yet.
    pub fn is_open(&self) -> bool {
        self.phase != Phase::Starting
    }

    /// An answer from outside, or (without one) the news that the effect was performed.
    pub fn answer(
        &mut self,
        now_ms: u64,
        id: EffectId,
        answer: Option<(u32, Result<Vec<Entry>, String>)>,
        out: &mut Vec<RoomEffect>,
    ) {
        let event = match answer {
            Some((request, outcome)) => Event::Answer {
                request,
                effect: Some(id),
                outcome,
            },
            None => Event::Settled { effect: id },
        };
        self.outside_event(now_ms, event, out);
    }

    /// What comes from outside the match but from no gateway: it waits until the match is released.
    fn outside_event(&mut self, now_ms: u64, event: Event, out: &mut Vec<RoomEffect>) {
        match self.phase {
            // What `start` asked for may be answered before the row says `running`; the answer must not be lost.
            Phase::Starting if self.early.len() < EARLY_MAX => self.early.push(event),
            Phase::Running if self.verdict.is_none() => {
                self.apply(now_ms, event, out);
                self.begin_follow_ups(now_ms, out);
            }
            Phase::Starting | Phase::Running | Phase::Over { .. } => {}
        }
    }

    /// Whether the match has read this collection of shared content.
    pub fn has_read(&self, collection: &str) -> bool {
        self.game.part().has_read(collection)
    }

    /// A value of shared content is another one, or gone.
    pub fn content_changed(&mut self, now_ms: u64, collection: &str, key: &str, out: &mut Vec<RoomEffect>) {
        let topic = Topic::ContentChanged {
            collection: collection.into(),
            key: key.into(),
        };
        self.outside_event(now_ms, Event::Signal { topic }, out);
    }

    /// Ends the match from outside.
    pub fn end(&mut self, now_ms: u64, reason: EndReason, out: &mut Vec<RoomEffect>) {
        if self.verdict.is_none() {
            self.apply(now_ms, Event::End { reason }, out);
        }
    }

    /// Takes a player's seat away; returns whether there was one.
    pub fn kick(&mut self, now_ms: u64, player: PlayerId, reason: &str, out: &mut Vec<RoomEffect>) -> bool {
        let seat = self.game.part().seat_of(player);
        let Some(seat) = seat.filter(|_| self.phase == Phase::Running) else {
            return false;
        };
        self.apply(
            now_ms,
            Event::Kick {
                seat,
                reason: reason.into(),
            },
            out,
        );
        self.run_follow_ups(now_ms, out);
        true
    }

    /// When [`Room::wake`] is due if nothing else comes first.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let due_ms = self.due_ms()?;
        Some(match self.phase {
            Phase::Running => due_ms.max(self.rests_until_ms),
            Phase::Starting | Phase::Over { .. } => due_ms,
        })
    }

    /// When there is something to do.
    fn due_ms(&self) -> Option<u64> {
        if self.is_busy() {
            return Some(self.game.part().now_ms());
        }
        match self.phase {
            Phase::Starting => None,
            Phase::Over { since_ms } => match self.mail_until_ms(since_ms) {
                Some(until_ms) => Some(self.mail_due_ms().map_or(until_ms, |due_ms| due_ms.min(until_ms))),
                None => Some(since_ms + OVER_FOR_MS),
            },
            Phase::Running => {
                let part = self.game.part();
                let grace = part.first_away_since_ms().map(|since_ms| since_ms + self.grace_ms);
                let empty = self
                    .config
                    .empty_after_ms
                    .and_then(|after_ms| self.empty_since_ms.map(|since_ms| since_ms + after_ms));
                let save = self.saving.as_ref().and_then(|saving| saving.due_ms(part.event_no()));
                let reserved = self.reserved_until_ms.filter(|_| !part.reservations().is_empty());
                let play = part.next_wake_ms().filter(|_| !part.is_finishing());
                let (empty, mail) = (empty.filter(|_| !part.is_finishing()), self.mail_due_ms());
                [play, grace, empty, save, reserved, self.heard_by_ms, mail]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// Does what is due: seats whose grace is over, the end of an empty match, timers, a tick, a save. Of what can be many it does one, and
    /// others while there is time; the rest stays due. What the match itself wants comes after what is due to its players, and does not keep
    /// it from being saved: it may have to rest after each of its ticks.
    pub fn wake(&mut self, now_ms: u64, has_time: impl Fn() -> bool, out: &mut Vec<RoomEffect>) {
        if self.phase == Phase::Starting || self.rests(now_ms) || !self.settle(now_ms, &has_time, out) {
            return;
        }
        if self.mail_due_ms().is_some_and(|due_ms| now_ms >= due_ms) {
            self.wake_mail(now_ms, out);
        }
        if self.phase != Phase::Running || !self.settle(now_ms, &has_time, out) {
            return;
        }
        while let Some(seat) = self.game.part().first_away_seat(now_ms.saturating_sub(self.grace_ms)) {
            if self.phase != Phase::Running {
                return;
            }
            self.apply(
                now_ms,
                Event::Leave {
                    seat,
                    reason: LeaveReason::TimedOut,
                },
                out,
            );
            if !self.settle(now_ms, &has_time, out) {
                return;
            }
            if !has_time() {
                break;
            }
        }
        if self.heard_by_ms.is_some_and(|by_ms| now_ms >= by_ms) {
            self.heard_by_ms = None;
            self.give_up_silent_seats(now_ms, out);
        }
        if self.reserved_until_ms.is_some_and(|until_ms| now_ms >= until_ms) {
            self.free_reserved(now_ms, out);
        }
        if let (Some(after_ms), Some(since_ms)) = (self.config.empty_after_ms, self.empty_since_ms)
            && now_ms >= since_ms + after_ms
            && !self.game.part().is_finishing()
        {
            self.end(now_ms, EndReason::Empty, out);
        }
        self.play_due(now_ms, &has_time, out);
        let event_no = self.game.part().event_no();
        if self.phase == Phase::Running
            && !self.is_busy()
            && self
                .saving
                .as_ref()
                .is_some_and(|saving| saving.is_due(now_ms, event_no))
        {
            self.save_now(now_ms, out);
        }
    }

    /// Timers and the tick.
    fn play_due(&mut self, now_ms: u64, has_time: &impl Fn() -> bool, out: &mut Vec<RoomEffect>) {
        if self.phase != Phase::Running || !self.settle(now_ms, has_time, out) {
            return;
        }
        while !self.game.part().is_finishing()
            && let Some(id) = self.game.part().due_timer(now_ms)
        {
            self.apply(now_ms, Event::Timer { id }, out);
            if !self.settle(now_ms, has_time, out) || self.phase != Phase::Running {
                return;
            }
            // A thousand timers of one moment may each use up their call's time.
            if self.game.part().due_timer(now_ms).is_some() && !has_time() {
                break;
            }
        }
        if !self.game.part().is_finishing()
            && let Some(due) = self.game.part().due_tick(now_ms)
        {
            if self.tick_ms > 0 && now_ms >= due.due_ms + self.tick_ms {
                self.counts.ticks_late += 1;
            }
            self.counts.tick_late_ms = Some(now_ms.saturating_sub(due.due_ms));
            self.apply(
                now_ms,
                Event::Tick {
                    elapsed_ms: due.elapsed_ms,
                },
                out,
            );
            self.settle(now_ms, has_time, out);
        }
    }

    /// Players whose gateway did not say that it has them are away from now on.
    fn give_up_silent_seats(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        let part = self.game.part();
        let is_heard = |seat: Seat| self.streams.iter().any(|stream| stream.has(seat));
        let silent: Vec<Seat> = part
            .seats()
            .filter(|(seat, seated)| seated.player.is_some() && !is_heard(*seat))
            .map(|(seat, _)| seat)
            .collect();
        for seat in silent {
            self.go_away(now_ms, seat, out);
        }
    }

    /// Frees the seats of those who were invited and have not come.
    fn free_reserved(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        let players: Vec<PlayerId> = self
            .game
            .part()
            .reservations()
            .iter()
            .map(|invitee| invitee.player)
            .collect();
        for player in players {
            if self.phase != Phase::Running {
                return;
            }
            self.apply(now_ms, Event::Unreserve { player }, out);
            self.run_follow_ups(now_ms, out);
        }
    }

    /// Whether the room may be dropped: the match is over, and everyone knows or had time to.
    pub fn is_done(&self, now_ms: u64) -> bool {
        match self.phase {
            Phase::Over { .. } if self.is_busy() => false,
            Phase::Over { since_ms } => match self.mail_until_ms(since_ms) {
                Some(until_ms) => now_ms >= until_ms,
                None => now_ms >= since_ms + OVER_FOR_MS || self.streams.iter().all(Stream::is_settled),
            },
            Phase::Starting | Phase::Running => false,
        }
    }

    /// Hands the frames that wait to `send`, which says whether the transport took them.
    pub fn flush(&mut self, mut send: impl FnMut(&NodeLife, DownFrame) -> bool) {
        if self.phase == Phase::Starting {
            return;
        }
        let (target, epoch) = (self.id(), self.config.epoch);
        for stream in &mut self.streams {
            if let Some(frame) = stream.take_frame(target, epoch, &self.head) {
                let prev = frame.prev;
                let gateway = stream.gateway().clone();
                if !send(&gateway, frame) {
                    stream.refused(prev);
                }
            }
        }
        if self.phase == Phase::Running {
            self.streams.retain(|stream| !stream.is_idle());
        }
    }

    /// Whether lists that show the match like this are right. Asked after every batch of events, so it copies nothing.
    pub fn is_listed_as(&self, shown: Option<&ListedMatch>) -> bool {
        let part = self.game.part();
        let listed = self.phase == Phase::Running && part.start().listed && !self.config.private;
        match shown {
            None => !listed,
            Some(shown) => {
                listed
                    && shown.players == part.player_count() as u32
                    && shown.joinable == (part.is_joinable() && part.has_free_seat())
                    && shown.label == part.label()
            }
        }
    }

    /// How the match shows in lists; none while it should not.
    pub fn listing(&self) -> Option<ListedMatch> {
        let part = self.game.part();
        let start = part.start();
        (self.phase == Phase::Running && start.listed && !self.config.private).then(|| ListedMatch {
            target: start.match_id,
            module: start.module.clone(),
            players: part.player_count() as u32,
            max_players: start.max_players,
            label: part.label().to_vec(),
            joinable: part.is_joinable() && part.has_free_seat(),
            node: self.config.node.to_string(),
        })
    }

    /// The match as operators see it. Hashes its state.
    pub fn view(&mut self) -> MatchView {
        let state_hash = self.game.state_hash().map(|hash| hash.to_string());
        let part = self.game.part();
        let start = part.start();
        MatchView {
            target: start.match_id,
            module: start.module.clone(),
            digest: start.digest,
            name: start.name.clone(),
            owner: Some(self.config.node.clone()),
            backup: None,
            epoch: self.config.epoch,
            status: match (&self.phase, &self.verdict) {
                (Phase::Starting, _) => "starting",
                (Phase::Running, _) => "running",
                (Phase::Over { .. }, Some(Verdict::Failed { .. })) => "failed",
                (Phase::Over { .. }, _) => "ended",
            }
            .into(),
            players: part.player_count() as u32,
            durability: start.durability.as_str().into(),
            state_hash,
            outcome: None,
            failures: self.incidents.kept().cloned().collect(),
            usage: Some(self.game.usage()),
        }
    }

    /// Whether the last event has caused others that wait: nothing else may happen to the match before them.
    pub fn is_busy(&self) -> bool {
        self.phase != Phase::Starting && !self.follow_ups.is_empty()
    }

    /// Whether the match has to rest, since one of its calls that was cut off took too much of the thread's time. What comes for it may
    /// wait until then.
    pub fn rests(&self, now_ms: u64) -> bool {
        self.phase == Phase::Running && now_ms < self.rests_until_ms
    }

    /// Has it rest for this long at least.
    pub fn rest(&mut self, now_ms: u64, rest: Duration) {
        self.rests_until_ms = self.rests_until_ms.max(now_ms + rest.as_millis() as u64);
    }

    /// Until when it rests; a moment that has passed if it does not.
    pub fn rests_until_ms(&self) -> u64 {
        self.rests_until_ms
    }

    /// Applies what waits, all of it: something else is about to happen to the match. Whoever can wait until the room is not busy any
    /// more should, for it may take long.
    pub fn finish_busy(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        if self.is_busy() {
            self.run_follow_ups(now_ms, out);
        }
    }

    /// Applies all that the last events have caused.
    fn run_follow_ups(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        while self.run_follow_up(now_ms, out) {}
    }

    /// Applies what the last event has caused up to the second call of the guest, and leaves the others to the next wake-up, which is at
    /// once: a match that throws out a thousand players hears a thousand leavings, and may take all of a call's time for each.
    fn begin_follow_ups(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        let mut has_asked = false;
        while let Some(next) = self.follow_ups.front()
            && !self.rests(now_ms)
        {
            let asks = !matches!(next, Event::Addressed { .. } | Event::Settled { .. });
            if asks && std::mem::replace(&mut has_asked, asks) {
                return;
            }
            self.run_follow_up(now_ms, out);
        }
    }

    /// Applies what waits, as far as there is time, but one in any case; whether nothing waits any more, and the match need not rest.
    fn settle(&mut self, now_ms: u64, has_time: &impl Fn() -> bool, out: &mut Vec<RoomEffect>) -> bool {
        while !self.rests(now_ms) && self.run_follow_up(now_ms, out) {
            if !self.follow_ups.is_empty() && !has_time() {
                return false;
            }
        }
        !self.rests(now_ms)
    }

    /// Applies the next event that another has caused; false when there is none.
    fn run_follow_up(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) -> bool {
        let Some(event) = self.follow_ups.pop_front() else {
            return false;
        };
        // A match that is over still posts what it said last, and hears what became of it.
        let outlives_it = matches!(event, Event::Addressed { .. } | Event::Answer { effect: Some(_), .. });
        if self.verdict.is_none() || outlives_it {
            self.apply(now_ms, event, out);
        }
        true
    }

    /// Applies one event, and sorts what came of it.
    fn apply(&mut self, now_ms: u64, event: Event, out: &mut Vec<RoomEffect>) {
        let (left, returned) = match &event {
            Event::Leave { seat, .. } => {
                let last_n = self.game.part().seat(*seat).map_or(0, |seated| seated.last_n);
                (Some((*seat, last_n)), None)
            }
            Event::Return { traveller } => (None, Some(traveller.player)),
            Event::Addressed { .. } => {
                self.mail.is_due = true;
                (None, None)
            }
            _ => (None, None),
        };
        self.game.apply(now_ms, event, &mut self.applied);
        self.take_up(now_ms, left, out);
        if let Some(player) = returned {
            self.has_returned(now_ms, player, out);
        }
    }

    /// Sorts what came of an event; `left` is the seat that it freed, with its last input.
    fn take_up(&mut self, now_ms: u64, left: Option<(Seat, u64)>, out: &mut Vec<RoomEffect>) {
        self.counts.events += 1;
        for output in &self.applied.outputs {
            collect(&mut self.streams, output);
        }
        if let Some((seat, last_n)) = left {
            let seq = self.game.part().last_seq();
            self.streams
                .iter_mut()
                .for_each(|stream| stream.give_up(seat, seq, last_n));
        }
        let record = &self.applied.record;
        let came = match &record.event {
            Event::Join { occupant, .. } => Some((occupant.player, occupant.role)),
            Event::Arrive { traveller, .. } => Some((traveller.player, traveller.role)),
            _ => None,
        };
        if let Some((player, Role::Player)) = came.filter(|_| record.outcome == Outcome::Applied) {
            out.push(RoomEffect::Seated { player });
        }
        for (level, line) in self.applied.log.drain(..) {
            let Some(dropped) = self.lines.takes(now_ms, level) else {
                self.counts.log_dropped += 1;
                continue;
            };
            if dropped > 0 {
                let line = format!(
                    "{dropped} lines before this were not written: the match writes more than {} a second",
                    lines::A_SECOND
                );
                out.push(RoomEffect::Log {
                    level: LogLevel::Warn,
                    line,
                });
            }
            out.push(RoomEffect::Log { level, line });
        }
        self.follow_ups.extend(self.applied.follow_ups.drain(..));
        if !self.applied.effects.is_empty() {
            for (id, effect) in std::mem::take(&mut self.applied.effects) {
                self.ask(id, effect, out);
            }
        }
        if self.applied.failure.is_some() {
            self.counts.undone += u64::from(self.applied.given_up.is_none());
            let rest = rest_for(self.applied.cost);
            self.counts.rest += rest;
            self.rest(now_ms, rest);
            self.note_failure(out);
        }
        let verdict = match (&self.applied.given_up, self.applied.ended.take()) {
            (Some(given_up), _) => Some(Verdict::Failed {
                reason: match (given_up, &self.applied.failure) {
                    (GivenUp::Diverged(_), _) | (_, None) => "diverged".into(),
                    (
                        GivenUp::AtTheStart | GivenUp::TooOften | GivenUp::TooSlow | GivenUp::Forgetful(_),
                        Some(failure),
                    ) => failure.kind.as_str().into(),
                },
            }),
            (None, Some(Ending::Finished { outcome })) => Some(Verdict::Ended { outcome }),
            (None, Some(Ending::Stopped(EndReason::Operator | EndReason::Empty))) => {
                Some(Verdict::Ended { outcome: Bytes::new() })
            }
            (None, Some(Ending::Stopped(EndReason::Draining))) => Some(Verdict::Failed {
                reason: "draining".into(),
            }),
            (None, None) => None,
        };
        if let Some(verdict) = verdict {
            self.finish(now_ms, verdict, out);
        }
        self.note_emptiness(now_ms);
        if self.mail.is_due {
            self.send_mail(now_ms, false, out);
        }
    }

    /// The match logic was cut off, and the match was put back to before the call, or is over.
    fn note_failure(&mut self, out: &mut Vec<RoomEffect>) {
        self.incidents.note(self.game.part().start(), &self.applied);
        if let Some(incident) = self.incidents.last() {
            out.push(RoomEffect::Failure(Box::new(incident.clone())));
        }
        if let (Event::Message { seat, n, .. }, Some(failure)) = (&self.applied.record.event, &self.applied.failure)
            && *n > 0
        {
            if self.failed_inputs.len() == FAILED_INPUTS_MAX {
                self.failed_inputs.pop_front();
            }
            self.failed_inputs.push_back(FailedInput {
                seat: *seat,
                n: *n,
                kind: failure.kind,
            });
        }
    }

    /// Has an effect performed; mail goes by the room's own rules.
    fn ask(&mut self, id: EffectId, effect: Effect, out: &mut Vec<RoomEffect>) {
        if effect.is_mail() {
            self.address(id, &effect, out);
        } else {
            out.push(RoomEffect::Perform { id, effect });
        }
    }

    fn finish(&mut self, now_ms: u64, verdict: Verdict, out: &mut Vec<RoomEffect>) {
        if self.verdict.is_some() {
            return;
        }
        if let Verdict::Ended { .. } = verdict {
            // What it came to stays findable, and the last state with it. A match that fails here has ended all the same.
            if let Some(saving) = &mut self.saving {
                // Whoever applied the event that ended it still reads what came of that one.
                let mut applied = Applied::default();
                self.game.apply(now_ms, Event::Save, &mut applied);
                if let Some(state) = applied.saved {
                    let event = self.game.part().event_no();
                    saving.began(now_ms, event);
                    let part = self.game.encode_part(RingIn::Nowhere);
                    out.push(RoomEffect::Save(Box::new(SavedState { event, state, part })));
                }
            }
        }
        if self.applied.given_up.is_some()
            && let Ok(taken) = self.game.take_down()
        {
            out.push(RoomEffect::Keep(Box::new(taken)));
        }
        let end_seq = self.game.part().last_seq() + 1;
        for stream in &mut self.streams {
            stream.finish(verdict.over(), end_seq);
        }
        if self.phase == Phase::Running {
            self.phase = Phase::Over { since_ms: now_ms };
        }
        self.verdict = Some(verdict.clone());
        out.push(RoomEffect::Over(verdict));
    }

    fn note_emptiness(&mut self, now_ms: u64) {
        if self.game.part().human_count() > 0 {
            self.empty_since_ms = None;
        } else {
            self.empty_since_ms.get_or_insert(now_ms);
        }
    }
}

/// What gateways are told of the match.
fn head_of(start: &StartRecord) -> Arc<MatchHead> {
    Arc::new(MatchHead {
        module: start.module.clone(),
        codec: start.codec,
        tick_hz: start.tick_hz,
    })
}

fn tick_ms_of(start: &StartRecord) -> u64 {
    1_000u64.checked_div(u64::from(start.tick_hz)).unwrap_or(0)
}

fn collect(streams: &mut [Stream], output: &Arc<Output>) {
    for stream in streams {
        stream.collect(output);
    }
}

/// How long a match rests after a call that was cut off, with what it took to undo it. Just above what is free it is little, so that a
/// microsecond more is not half a second.
fn rest_for(cost: Duration) -> Duration {
    let counting = cost.min(cost.saturating_sub(COST_FREE) * 2);
    (counting * REST_TIMES).min(DEBT_MAX)
}

#[cfg(test)]
mod tests;
