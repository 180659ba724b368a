//! Everything that the host keeps for a match, as one value that can be encoded: with the guest's image it is the whole match. The
//! rules on it that need no guest are here (who is admitted, what is due next, what a seat may see); there is no clock, and what an
//! event does to it is `machine`.
//!
//! Invariant: `decode(encode(part)) == part`, and everything in it follows from the start record and the events.

#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rookery_protocol::client::{PayloadCodec, PlayerInfo, Role};
use rookery_protocol::peer::{self, PeerDecodeError};
use rookery_protocol::{Digest, MatchId, PlayerId, Seat};
use serde::{Deserialize, Serialize};

use super::effect::{Effect, EffectId};
use super::event::{EndReason, Event, Stamp, TrapKind};
use super::output::{Body, Output, PublishedValue};
use super::published::Published;
use super::ring::Ring;
use super::seats::{SeatState, Seats};
use super::timers::Timers;
use crate::wasm::manifest::TICK_HZ_MAX;
use crate::wasm::{Durability, Limits, Manifest, Module};

/// Numbers of one incarnation: `seq` = incarnation × 2^40 + count, which stays an exact integer in a double (2^53).
pub const SEQ_PER_INCARNATION: u64 = 1 << 40;

/// Follow-ups of follow-ups. They are applied at once, so a guest that answers each with another (a bot that is replaced whenever it
/// is kicked, a request that is made again whenever it is refused) would never let time go on.
pub(crate) const FOLLOW_UP_DEPTH_MAX: u32 = 8;

/// Collections of shared content whose changes a match hears of: the first that it reads. A match that reads more reads them when
/// it needs them.
pub(crate) const COLLECTIONS_HEARD_MAX: usize = 64;

/// What a player who was transferred may have missed before their connection followed, to be told in one piece; past it the match
/// logic is asked for the full view.
const MISSED_MAX: usize = 256;
const MISSED_BYTES_MAX: usize = 64 << 10;

/// Senders of mail that a match remembers. A letter of one that it has forgotten would be heard twice if it came twice, and that
/// one has been silent while this many others wrote.
pub(crate) const SENDERS_MAX: usize = 4_096;

/// Players who went to another match, remembered for connections that ask late and for sessions that open again. The oldest is
/// forgotten first.
pub(crate) const FORWARDS_MAX: usize = 1_024;

/// How long they are. Whoever asks later than this has lost the seat where they went: its connection is taken to be gone after 10 s,
/// and then a grace runs, which is some seconds as a rule.
pub(crate) const FORWARDED_FOR_MS: u64 = 120_000;

/// The first byte of an encoded part. Fields are named in the encoding, so adding one with a default needs no new version.
const ENCODING_VERSION: u8 = 1;

/// What a part that was read may say at most: sums of these do not overflow, and no match lives to see them.
pub(crate) const TIME_MS_MAX: u64 = 1 << 53;
const INCARNATION_MAX: u32 = 1 << 22;
pub(crate) const SEAT_MAX: Seat = 1 << 31;

/// What a match is started with. It does not change afterwards, but for what its module says of itself: that is what the version
/// says which runs it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartRecord {
    pub match_id: MatchId,
    /// The module's name.
    pub module: String,
    pub digest: Digest,
    pub codec: PayloadCodec,
    pub durability: Durability,
    pub tick_hz: u32,
    pub min_players: u32,
    pub max_players: u32,
    pub max_spectators: u32,
    pub grace_ms: u32,
    pub quick_play: bool,
    pub listed: bool,
    /// The registered name, for zones and other named matches.
    pub name: Option<String>,
    /// What the creator passed, in the module's codec.
    pub params: Bytes,
    pub seed: u64,
    pub limits: Limits,
    pub invited: Vec<Invitee>,
    /// The match's clock starts here.
    pub unix_start_ms: u64,
    /// Counts how often the match was restored from less than it had released.
    pub incarnation: u32,
}

impl StartRecord {
    /// The record of an unnamed match of this module with default limits and nobody invited; the rest is the caller's to set.
    pub fn new(match_id: MatchId, module: &Module, seed: u64, unix_start_ms: u64) -> StartRecord {
        Self::of_manifest(match_id, module.manifest(), module.digest(), seed, unix_start_ms)
    }

    pub(crate) fn of_manifest(
        match_id: MatchId,
        manifest: &Manifest,
        digest: Digest,
        seed: u64,
        unix_start_ms: u64,
    ) -> StartRecord {
        StartRecord {
            match_id,
            module: manifest.name.clone(),
            digest,
            codec: manifest.codec,
            durability: manifest.durability,
            tick_hz: manifest.tick_hz,
            min_players: manifest.min_players,
            max_players: manifest.max_players,
            max_spectators: manifest.max_spectators,
            grace_ms: manifest.grace_ms,
            quick_play: manifest.quick_play,
            listed: manifest.listed,
            name: None,
            params: Bytes::new(),
            seed,
            limits: Limits::default(),
            invited: Vec::new(),
            unix_start_ms,
            incarnation: 0,
        }
    }

    /// This match under another version of its module.
    fn under(self, module: &Module) -> StartRecord {
        let own = Self::of_manifest(
            self.match_id,
            module.manifest(),
            module.digest(),
            self.seed,
            self.unix_start_ms,
        );
        StartRecord {
            name: self.name,
            params: self.params,
            limits: self.limits,
            invited: self.invited,
            incarnation: self.incarnation,
            ..own
        }
    }
}

/// A player for whom a seat is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitee {
    pub player: PlayerId,
    pub team: u32,
    pub party: Option<String>,
    /// The ticket's properties, a JSON object as text.
    pub properties: String,
}

/// Whether a player may take a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// They sit already.
    Seated {
        seat: Seat,
    },
    /// This is the seat to put into the event, and the team of their reservation.
    Free {
        seat: Seat,
        team: Option<u32>,
    },
    Full,
    /// The match takes no new players.
    Closed,
}

/// An encoded part that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the match's state has encoding {found}, this version reads {ENCODING_VERSION}")]
    Version { found: u8 },
    #[error("the match's state is damaged")]
    Damaged(#[source] PeerDecodeError),
    #[error("the match's state is empty")]
    Empty,
    /// It is well formed, but no match ever comes to it, and going on from it would overflow.
    #[error("the match's state cannot be: {what}")]
    Impossible { what: &'static str },
}

/// A tick that ought to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueTick {
    /// When it fell due, for those who count late ones.
    pub due_ms: u64,
    pub elapsed_ms: u32,
}

/// An event that an event has caused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FollowUp {
    /// How many causes it has behind it; see [`FOLLOW_UP_DEPTH_MAX`].
    pub(crate) depth: u32,
    pub(crate) event: Event,
}

/// What has come from one sender of mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The number of the last mail.
    pub last: u64,
    /// Players who were not let in, until the sender has heard of it.
    pub refused: BTreeSet<u64>,
    /// The event that heard from it last: the one that was silent longest is forgotten first.
    pub at_event: u64,
}

/// A mail on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    pub effect: EffectId,
    pub to: MatchId,
}

/// Where a player went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub to: MatchId,
    /// When it was heard that they sit there, in match time.
    pub at_ms: u64,
    /// The transfer: a player may be back and gone again before the first one is heard of.
    pub by: EffectId,
}

/// How a match is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finishing {
    Finished { outcome: Bytes },
    Stopped { reason: EndReason },
}

/// The host's part of a match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostPart {
    pub(crate) start: StartRecord,
    /// The number of the last event.
    pub(crate) event_no: u64,
    /// The time of the last event, milliseconds since the match started.
    pub(crate) now_ms: u64,
    pub(crate) random: Xoshiro256PlusPlus,
    /// Outputs of this incarnation so far.
    pub(crate) outputs: u64,
    pub(crate) ring: Ring,
    pub(crate) seats: Seats,
    pub(crate) next_seat: Seat,
    pub(crate) timers: Timers,
    pub(crate) published: Published,
    pub(crate) label: Vec<(String, String)>,
    pub(crate) joinable: bool,
    /// Invited players who have not come yet.
    pub(crate) reservations: Vec<Invitee>,
    /// How many more players the match asks the matchmaker for.
    pub(crate) backfill: Option<u32>,
    /// Effects without an answer yet.
    pub(crate) outbox: BTreeMap<EffectId, Effect>,
    /// Follow-ups that have not been applied yet: a snapshot may be taken between an event and those.
    #[serde(default)]
    pub(crate) pending: VecDeque<FollowUp>,
    /// What has come from each sender of mail.
    pub(crate) inbox: BTreeMap<MatchId, Mark>,
    /// Mail that has a number, by it; its effect stands in the outbox.
    #[serde(default)]
    pub(crate) posted: BTreeMap<u64, Posted>,
    /// How many mails have been numbered.
    #[serde(default)]
    pub(crate) mailed: u64,
    /// Players who went to another match lately, and have not come back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) forwards: BTreeMap<PlayerId, Forward>,
    /// The match is to end like this, once nobody is on the way from it.
    #[serde(default)]
    pub(crate) finishing: Option<Finishing>,
    /// The collections of shared content that the match has read: it hears of their changes.
    #[serde(default)]
    pub(crate) collections: BTreeSet<String>,
    /// Calls that were cut off.
    pub(crate) traps: BTreeMap<TrapKind, u32>,
    /// When the last of them were, in match time: as many as may be before the match fails.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub(crate) traps_at_ms: VecDeque<u64>,
    pub(crate) last_tick_ms: u64,
}

impl HostPart {
    /// The part of a match to which nothing has happened yet.
    pub fn new(start: StartRecord) -> HostPart {
        HostPart {
            event_no: 0,
            now_ms: 0,
            random: Xoshiro256PlusPlus::seed_from_u64(start.seed),
            outputs: 0,
            ring: Ring::starting_after(u64::from(start.incarnation) * SEQ_PER_INCARNATION),
            seats: Seats::default(),
            next_seat: 1,
            timers: Timers::default(),
            published: Published::default(),
            label: Vec::new(),
            joinable: true,
            reservations: start.invited.clone(),
            backfill: None,
            outbox: BTreeMap::new(),
            pending: VecDeque::new(),
            inbox: BTreeMap::new(),
            posted: BTreeMap::new(),
            mailed: 0,
            forwards: BTreeMap::new(),
            finishing: None,
            collections: BTreeSet::new(),
            traps: BTreeMap::new(),
            traps_at_ms: VecDeque::new(),
            last_tick_ms: 0,
            start,
        }
    }

    /// Goes on where it was left, on another node or in another incarnation. The match's clock stood still meanwhile; that it shows
    /// the right time of day is what `unix_now_ms` is for.
    pub fn resumed(mut self, incarnation: u32, unix_now_ms: u64) -> HostPart {
        self.start.unix_start_ms = unix_now_ms.saturating_sub(self.now_ms);
        if incarnation != self.start.incarnation {
            self.start.incarnation = incarnation;
            self.outputs = 0;
            self.ring = Ring::starting_after(self.last_seq());
        }
        self
    }

    /// Goes on under this version of the module, which may be another one than so far.
    pub fn under(mut self, module: &Module) -> HostPart {
        if self.start.digest == module.digest() {
            return self;
        }
        let ticked = self.start.tick_hz > 0;
        self.start = self.start.under(module);
        // Ticks that there were none of are not made up.
        if !ticked {
            self.last_tick_ms = self.now_ms;
        }
        self
    }

    /// All of it, for snapshots and for other nodes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![ENCODING_VERSION];
        rmp_serde::encode::write_named(&mut bytes, self).expect("plain data into memory");
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<HostPart, DecodeError> {
        match bytes.split_first() {
            None => Err(DecodeError::Empty),
            Some((&ENCODING_VERSION, body)) => {
                let part: HostPart = peer::decode(body).map_err(DecodeError::Damaged)?;
                part.impossible()
                    .map_or(Ok(part), |what| Err(DecodeError::Impossible { what }))
            }
            Some((&found, _)) => Err(DecodeError::Version { found }),
        }
    }

    /// What no match comes to. It is another node that says all this, and our own sums rely on it.
    fn impossible(&self) -> Option<&'static str> {
        let times = [self.now_ms, self.last_tick_ms, self.start.unix_start_ms];
        let away = self.seats.iter().filter_map(|(_, state)| state.away_since_ms);
        let forwarded = self.forwards.values().map(|forward| forward.at_ms);
        let counts = [self.outputs, self.mailed, self.event_no];
        let rules = [
            (
                times
                    .into_iter()
                    .chain(away)
                    .chain(forwarded)
                    .all(|ms| ms <= TIME_MS_MAX),
                "a time in more than a hundred thousand years",
            ),
            (
                counts.into_iter().all(|count| count < SEQ_PER_INCARNATION),
                "more events or outputs than have numbers",
            ),
            (self.start.incarnation <= INCARNATION_MAX, "too many incarnations"),
            (self.start.tick_hz <= TICK_HZ_MAX, "too many ticks a second"),
            (self.next_seat <= SEAT_MAX, "too many seats"),
            (self.ring.is_ordered(), "outputs out of order"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what)
    }

    /// The number of the last output; what a view that is complete now may be called.
    pub fn last_seq(&self) -> u64 {
        u64::from(self.start.incarnation) * SEQ_PER_INCARNATION + self.outputs
    }

    /// The number of the next output.
    pub fn next_seq(&self) -> u64 {
        self.last_seq() + 1
    }

    pub fn start(&self) -> &StartRecord {
        &self.start
    }

    /// Whether the match has read this collection of shared content.
    pub fn has_read(&self, collection: &str) -> bool {
        self.collections.contains(collection)
    }

    /// The number of the last event.
    pub fn event_no(&self) -> u64 {
        self.event_no
    }

    /// The match's clock: the time of the last event.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The recent outputs above a number, oldest first; none if some of them are gone. See [`Ring`].
    pub fn since(&self, seq: u64) -> Option<impl Iterator<Item = &Arc<Output>>> {
        self.ring.since(seq)
    }

    /// The recent outputs, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &Arc<Output>> {
        self.ring.iter()
    }

    /// Whether this player may sit down. Nothing is changed: the seat is taken when the event is applied.
    pub fn admit(&self, player: PlayerId, role: Role) -> Admission {
        if let Some(seat) = self.seats.seat_of(player) {
            return Admission::Seated { seat };
        }
        let seat = self.next_seat;
        let reservation = self.reservations.iter().find(|invitee| invitee.player == player);
        match (role, reservation) {
            // `set-joinable` is about playing: a duel that has begun may be watched.
            (Role::Spectator, _) if self.seats.spectators() < self.start.max_spectators as usize => {
                Admission::Free { seat, team: None }
            }
            (Role::Spectator, _) => Admission::Full,
            (Role::Player | Role::Bot, Some(invitee)) if self.has_room(0) => Admission::Free {
                seat,
                team: Some(invitee.team),
            },
            (Role::Player | Role::Bot, Some(_)) => Admission::Full,
            (Role::Player | Role::Bot, None) if !self.joinable => Admission::Closed,
            (Role::Player | Role::Bot, None) if !self.has_room(self.reservations.len()) => Admission::Full,
            (Role::Player | Role::Bot, None) => Admission::Free { seat, team: None },
        }
    }

    /// Whether one more can play while this many seats are kept free for others.
    pub(crate) fn has_room(&self, reserved: usize) -> bool {
        self.seats.playing() + reserved < self.start.max_players as usize
    }

    /// Whether a player whom nobody invited would find the door open and a seat free.
    pub fn has_free_seat(&self) -> bool {
        self.joinable && self.has_room(self.reservations.len())
    }

    /// Invited players who have not come yet.
    pub fn reservations(&self) -> &[Invitee] {
        &self.reservations
    }

    pub fn seat(&self, seat: Seat) -> Option<&SeatState> {
        self.seats.get(seat)
    }

    pub fn seats(&self) -> impl Iterator<Item = (Seat, &SeatState)> {
        self.seats.iter()
    }

    pub fn seat_of(&self, player: PlayerId) -> Option<Seat> {
        self.seats.seat_of(player)
    }

    /// Who plays, bots included, and who watches.
    pub fn players(&self) -> Vec<PlayerInfo> {
        self.seats
            .iter()
            .map(|(seat, state)| player_info(seat, state))
            .collect()
    }

    /// Players and bots.
    pub fn player_count(&self) -> usize {
        self.seats.playing()
    }

    /// Players and spectators that are people, whether present or away.
    pub fn human_count(&self) -> usize {
        self.seats.humans()
    }

    /// Since when the seat has been away that has been away longest.
    pub fn first_away_since_ms(&self) -> Option<u64> {
        self.seats.first_away().map(|(since_ms, _)| since_ms)
    }

    /// The seat that has been away longest, if since this time or before.
    pub fn first_away_seat(&self, since_at_most_ms: u64) -> Option<Seat> {
        self.seats
            .first_away()
            .filter(|(since_ms, _)| *since_ms <= since_at_most_ms)
            .map(|(_, seat)| seat)
    }

    /// The published values that a seat may see, in key order.
    pub fn visible_values(&self, seat: Seat) -> Vec<PublishedValue> {
        self.published.visible(seat).cloned().collect()
    }

    /// The published value of a key, for everyone or for one seat.
    pub fn published(&self, to: Option<Seat>, key: &str) -> Option<&PublishedValue> {
        self.published.get(to, key)
    }

    /// What lists show and filter by.
    pub fn label(&self) -> &[(String, String)] {
        &self.label
    }

    pub fn is_joinable(&self) -> bool {
        self.joinable
    }

    /// How many more players the match asks the matchmaker for.
    pub fn backfill(&self) -> Option<u32> {
        self.backfill
    }

    /// Effects whose answer has not become an event yet.
    pub fn outbox(&self) -> &BTreeMap<EffectId, Effect> {
        &self.outbox
    }

    /// Mail on its way, by its number.
    pub fn posted(&self) -> &BTreeMap<u64, Posted> {
        &self.posted
    }

    /// What has come from a sender of mail.
    pub fn mark(&self, sender: MatchId) -> Mark {
        self.inbox.get(&sender).cloned().unwrap_or_default()
    }

    /// The transfer that a player is on.
    pub fn transfer_of(&self, player: PlayerId) -> Option<EffectId> {
        let is_theirs =
            |effect: &Effect| matches!(effect, Effect::Transfer { player: on_the_way, .. } if *on_the_way == player);
        self.outbox
            .iter()
            .find(|(_, effect)| is_theirs(effect))
            .map(|(id, _)| *id)
    }

    /// The match that a player went to from here, if that was lately.
    pub fn forward_of(&self, player: PlayerId) -> Option<MatchId> {
        let forward = self.forwards.get(&player)?;
        (!self.is_old(forward)).then_some(forward.to)
    }

    fn is_old(&self, forward: &Forward) -> bool {
        self.now_ms >= forward.at_ms + FORWARDED_FOR_MS
    }

    /// Drops what nobody may ask for any more. Nothing can tell whether it was called.
    pub(crate) fn forget_old_forwards(&mut self) {
        let now_ms = self.now_ms;
        self.forwards
            .retain(|_, forward| now_ms < forward.at_ms + FORWARDED_FOR_MS);
    }

    /// If the effect is a transfer: its player sits where they went.
    pub(crate) fn note_forward(&mut self, effect: EffectId) {
        let Some(Effect::Transfer { player, .. }) = self.outbox.get(&effect) else {
            return;
        };
        let player = *player;
        let Some(to) = self.posted.values().find(|posted| posted.effect == effect) else {
            return;
        };
        let to = to.to;
        let is_newer = |forward: &Forward| forward.by < effect;
        if self.seats.seat_of(player).is_some() || !self.forwards.get(&player).is_none_or(is_newer) {
            return;
        }
        self.forget_old_forwards();
        if self.forwards.len() >= FORWARDS_MAX {
            let oldest = self.forwards.iter().min_by_key(|(_, forward)| forward.at_ms);
            oldest
                .map(|(player, _)| *player)
                .and_then(|player| self.forwards.remove(&player));
        }
        let at_ms = self.now_ms;
        let by = effect;
        self.forwards.insert(player, Forward { to, at_ms, by });
    }

    /// Whether somebody is on the way from here, or just coming back.
    pub(crate) fn has_travellers(&self) -> bool {
        self.outbox
            .values()
            .any(|effect| matches!(effect, Effect::Transfer { .. }))
            || self.pending().any(|event| matches!(event, Event::Return { .. }))
    }

    /// The match is to end, and waits for those who are on the way.
    pub fn is_finishing(&self) -> bool {
        self.finishing.is_some()
    }

    /// What was said to a seat before its player's connection followed; none when that is not all there any more, or not how the
    /// player came.
    pub(crate) fn missed_before_claim(&self, seat: Seat) -> Option<Vec<Arc<Output>>> {
        let state = self.seats.get(seat).filter(|state| state.is_unclaimed)?;
        let is_heard = |output: &&Arc<Output>| {
            let said = matches!(output.body, Body::Data { .. } | Body::Players { .. });
            said && output.audience.includes(seat, state.role)
        };
        let missed: Vec<Arc<Output>> = self.since(state.joined_seq)?.filter(is_heard).cloned().collect();
        let bytes: usize = missed
            .iter()
            .map(|output| match &output.body {
                Body::Data { data } => data.len(),
                _ => 0,
            })
            .sum();
        (missed.len() <= MISSED_MAX && bytes <= MISSED_BYTES_MAX).then_some(missed)
    }

    /// Gives a mail its number.
    pub(crate) fn post(&mut self, effect: EffectId, to: MatchId) -> bool {
        if !self.outbox.contains_key(&effect) || self.posted.values().any(|posted| posted.effect == effect) {
            return false;
        }
        self.mailed += 1;
        let number = u64::from(self.start.incarnation) * SEQ_PER_INCARNATION + self.mailed;
        self.posted.insert(number, Posted { effect, to });
        true
    }

    /// The effect is settled: it leaves the outbox.
    pub(crate) fn settle(&mut self, effect: EffectId) -> Option<Effect> {
        let settled = self.outbox.remove(&effect)?;
        if settled.is_mail() {
            self.posted.retain(|_, posted| posted.effect != effect);
        }
        Some(settled)
    }

    /// Notes that a call was cut off, and says whether that was once too often.
    pub(crate) fn note_trap(&mut self, kind: TrapKind) -> bool {
        *self.traps.entry(kind).or_default() += 1;
        let (max, window_ms) = (self.start.limits.traps_max, self.start.limits.traps_window_ms);
        let since_ms = self.now_ms.saturating_sub(window_ms);
        while self.traps_at_ms.front().is_some_and(|at_ms| *at_ms < since_ms) {
            self.traps_at_ms.pop_front();
        }
        self.traps_at_ms.push_back(self.now_ms);
        self.traps_at_ms.len() >= max as usize
    }

    /// Calls of the match logic that were cut off, by their kind.
    pub fn traps(&self) -> &BTreeMap<TrapKind, u32> {
        &self.traps
    }

    /// Notes that a mail has come; false if it had come before.
    pub(crate) fn note_mail(&mut self, stamp: &Stamp) -> bool {
        if self.inbox.len() >= SENDERS_MAX && !self.inbox.contains_key(&stamp.from) {
            let oldest = self
                .inbox
                .iter()
                .min_by_key(|(_, mark)| mark.at_event)
                .map(|(sender, _)| *sender);
            oldest.and_then(|sender| self.inbox.remove(&sender));
        }
        let mark = self.inbox.entry(stamp.from).or_default();
        if stamp.number <= mark.last {
            return false;
        }
        mark.last = stamp.number;
        mark.at_event = self.event_no;
        mark.refused = mark.refused.split_off(&stamp.held);
        true
    }

    /// Follow-ups of earlier events that have not been applied; for an owner that takes the match over.
    pub fn pending(&self) -> impl Iterator<Item = &Event> {
        self.pending.iter().map(|follow_up| &follow_up.event)
    }

    /// When the match has to be woken if nothing else happens, in match time.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(due_ms, _)| due_ms);
        [timer, self.next_tick_ms()].into_iter().flatten().min()
    }

    /// The timer to run first among those that are due.
    pub fn due_timer(&self, now_ms: u64) -> Option<u32> {
        self.timers
            .first()
            .filter(|(due_ms, _)| *due_ms <= now_ms)
            .map(|(_, id)| id)
    }

    /// The tick that is due. Ticks that were missed are not made up: the next one is on the grid after this one ran.
    pub fn due_tick(&self, now_ms: u64) -> Option<DueTick> {
        let due_ms = self.next_tick_ms().filter(|due_ms| *due_ms <= now_ms)?;
        let elapsed_ms = u32::try_from(now_ms.saturating_sub(self.last_tick_ms)).unwrap_or(u32::MAX);
        Some(DueTick { due_ms, elapsed_ms })
    }

    /// The first point above the last tick on the grid of 1000 / tick_hz milliseconds, rounded up to whole ones.
    pub fn next_tick_ms(&self) -> Option<u64> {
        let hz = u64::from(self.start.tick_hz);
        if hz == 0 || self.event_no == 0 {
            return None;
        }
        let number = self.last_tick_ms * hz / 1_000 + 1;
        Some((number * 1_000).div_ceil(hz))
    }

    /// What two copies of a match compare of the host's part: seats without their attachments, which say where a player is and not
    /// what has happened in the match.
    pub(crate) fn comparable(&self) -> Vec<u8> {
        let seats: BTreeMap<Seat, SeatState> = self
            .seats
            .iter()
            .map(|(seat, state)| {
                (
                    seat,
                    SeatState {
                        attachment: None,
                        ..state.clone()
                    },
                )
            })
            .collect();
        let state = (
            &self.random,
            self.next_seq(),
            (seats, self.next_seat),
            &self.timers,
            &self.published,
            &self.outbox,
        );
        rmp_serde::to_vec_named(&state).expect("plain data into memory")
    }

    /// 64 random bits from the match's own generator.
    pub(crate) fn random_bits(&mut self) -> u64 {
        self.random.next_u64()
    }
}

/// A seat as clients see it.
pub(crate) fn player_info(seat: Seat, state: &SeatState) -> PlayerInfo {
    PlayerInfo {
        seat,
        player: player_text(seat, state.player),
        name: state.name.clone(),
        role: state.role,
    }
}

/// The player's id; bots have a name space of their own.
pub(crate) fn player_text(seat: Seat, player: Option<PlayerId>) -> String {
    match player {
        Some(player) => player.to_string(),
        None => format!("bot:{seat}"),
    }
}

#[cfg(test)]
mod tests;
