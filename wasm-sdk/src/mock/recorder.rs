//! What a match asked for, and who sits in it: natively the host of [`Context`](crate::Context). It holds no match and calls none;
//! what follows from a call (`leave` after a kick) waits here for the `Host` to play it.

use std::collections::{BTreeMap, VecDeque};

use super::budget::{self, Meter, fail};
use super::{EPOCH_MS, Output, Request};
use crate::context::{Imports, Level, Place};
use crate::manifest::{Codec, Manifest};
use crate::payload::Payload;
use crate::types::{Failure, LeaveReason, Role, Seat, To};

/// Who sits where, as the node would know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occupant {
    pub(super) player_id: String,
    pub(super) name: String,
    pub(super) role: Role,
}

/// What a call has brought about, to be played after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FollowUp {
    Leave { seat: Seat, reason: LeaveReason },
    Answer { request: u32, failure: Failure },
}

/// What the match asked for so far.
pub(crate) struct Recorder {
    pub(super) manifest: Manifest,
    pub(super) unix_start_ms: u64,
    pub(super) now_ms: u64,
    random: u64,
    pub(super) scripted: VecDeque<u64>,
    next_seat: u32,
    pub(super) seats: BTreeMap<Seat, Occupant>,
    pub(super) outputs: Vec<Output>,
    pub(super) published: BTreeMap<(Option<Seat>, String), Payload>,
    pub(super) publishes: usize,
    pub(super) timers: BTreeMap<u32, u64>,
    /// With how many causes each has behind it.
    pub(super) follow_ups: VecDeque<(u32, FollowUp)>,
    /// How many causes the running call has behind it.
    pub(super) depth: u32,
    pub(super) joinable: bool,
    pub(super) label: BTreeMap<String, String>,
    pub(super) outcome: Option<Payload>,
    pub(super) requests: Vec<Request>,
    pub(super) log: Vec<(Level, String)>,
    pub(super) meter: Meter,
    /// Requests of the running call and what they carry.
    requested: (usize, usize),
}

impl Recorder {
    pub(super) fn new(manifest: Manifest, seed: u64) -> Self {
        let faults = manifest.faults();
        assert!(
            faults.is_empty(),
            "the node would refuse this manifest: {}",
            faults.join("; ")
        );
        Self {
            manifest,
            unix_start_ms: EPOCH_MS,
            now_ms: 0,
            random: seed,
            scripted: VecDeque::new(),
            next_seat: 1,
            seats: BTreeMap::new(),
            outputs: Vec::new(),
            published: BTreeMap::new(),
            publishes: 0,
            timers: BTreeMap::new(),
            follow_ups: VecDeque::new(),
            depth: 0,
            joinable: true,
            label: BTreeMap::new(),
            outcome: None,
            requests: Vec::new(),
            log: Vec::new(),
            meter: Meter::default(),
            requested: (0, 0),
        }
    }

    /// Budgets start anew with each call.
    pub(super) fn begin(&mut self, depth: u32) {
        self.depth = depth;
        self.meter = Meter::default();
        self.requested = (0, 0);
    }

    pub(super) fn seat(&mut self, occupant: Occupant) -> Seat {
        let seat = Seat(self.next_seat);
        self.next_seat += 1;
        self.seats.insert(seat, occupant);
        seat
    }

    /// False if nobody sat there.
    pub(super) fn free(&mut self, seat: Seat) -> bool {
        self.published.retain(|(owner, _), _| *owner != Some(seat));
        self.seats.remove(&seat).is_some()
    }

    /// Bots sit on players' seats.
    pub(super) fn is_full(&self, role: Role) -> bool {
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

    /// Clients of a JSON module get JSON and send it.
    pub(super) fn check(&self, what: &str, data: &[u8]) {
        if self.manifest.codec == Codec::Json
            && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(data)
        {
            fail("bad_output", format_args!("{what} is not one JSON text: {error}"));
        }
    }

    fn follow_up(&mut self, follow_up: FollowUp) {
        if self.depth >= budget::FOLLOW_UP_DEPTH_MAX {
            fail(
                "host_calls",
                format_args!(
                    "more than {} times in a row it met a refusal or a leaving with the next one",
                    budget::FOLLOW_UP_DEPTH_MAX
                ),
            );
        }
        self.follow_ups.push_back((self.depth + 1, follow_up));
    }

    fn answer(&mut self, request: u32, failure: Failure) {
        let waiting = self.follow_ups.iter();
        if waiting
            .filter(|(_, follow_up)| matches!(follow_up, FollowUp::Answer { .. }))
            .count()
            >= budget::REQUESTS_MAX
        {
            fail(
                "host_calls",
                format_args!(
                    "more than {} refused requests that have not been answered yet",
                    budget::REQUESTS_MAX
                ),
            );
        }
        self.follow_up(FollowUp::Answer { request, failure });
    }

    fn is_leaving(&self, seat: Seat) -> bool {
        let mut waiting = self.follow_ups.iter();
        waiting.any(|(_, follow_up)| matches!(follow_up, FollowUp::Leave { seat: leaving, .. } if *leaving == seat))
    }

    fn throw_out(&mut self, seat: Seat, reason: LeaveReason) {
        if self.seats.contains_key(&seat) && !self.is_leaving(seat) {
            self.follow_up(FollowUp::Leave { seat, reason });
        }
    }

    /// Writes a request down, or answers that there are too many. Nobody here knows when those of earlier calls are settled, so
    /// only the call's own are counted: what is `busy` here is `busy` on a node.
    fn request(&mut self, bytes: usize, number: Option<u32>, request: Request) -> bool {
        self.meter.charge(bytes);
        let (count, sum) = (self.requested.0 + 1, self.requested.1 + bytes);
        if count <= budget::REQUESTS_MAX && sum <= budget::REQUEST_BYTES_MAX {
            self.requested = (count, sum);
            self.requests.push(request);
            return true;
        }
        match number {
            Some(request) => self.answer(request, Failure::Busy),
            None => self.log.push((
                Level::Warn,
                "the outbox is full: a request without an answer was dropped".to_owned(),
            )),
        }
        false
    }
}

impl Imports for Recorder {
    fn send(&mut self, to: To, data: &[u8]) {
        let listed = if let To::Seats(seats) = &to { 4 * seats.len() } else { 0 };
        self.meter.charge(data.len() + listed);
        self.check("what was sent", data);
        let hears = |(seat, occupant): &(&Seat, &Occupant)| Self::hears(&to, **seat, occupant.role);
        let heard_by = self.seats.iter().filter(hears).map(|(seat, _)| *seat).collect();
        let data = Payload::from(data);
        self.outputs.push(Output { to, data, heard_by });
    }

    fn publish(&mut self, to: Option<Seat>, key: &str, data: Option<&[u8]>) {
        self.meter.charge(key.len() + data.map_or(0, <[u8]>::len));
        if let Some(data) = data {
            self.check("what was published", data);
        }
        if to.is_some_and(|seat| !self.seats.contains_key(&seat)) {
            return;
        }
        self.publishes += 1;
        let key = (to, key.to_owned());
        match data {
            Some(data) => self.published.insert(key, Payload::from(data)),
            None => self.published.remove(&key),
        };
        if self.published.len() > budget::PUBLISHED_KEYS_MAX {
            fail(
                "bytes",
                format_args!("more than {} published keys", budget::PUBLISHED_KEYS_MAX),
            );
        }
        let bytes: usize = self
            .published
            .iter()
            .map(|((_, key), data)| key.len() + data.len())
            .sum();
        if bytes > budget::PUBLISHED_BYTES_MAX {
            fail(
                "bytes",
                format_args!("more than {} bytes of published state", budget::PUBLISHED_BYTES_MAX),
            );
        }
    }

    fn kick(&mut self, seat: Seat, reason: &str) {
        self.meter.charge(reason.len());
        self.throw_out(seat, LeaveReason::Kicked);
    }

    fn add_bot(&mut self, display_name: &str) -> Option<Seat> {
        self.meter.charge(display_name.len());
        let bots = self
            .seats
            .values()
            .filter(|occupant| occupant.role == Role::Bot)
            .count();
        if self.is_full(Role::Bot) || bots >= budget::BOTS_MAX {
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
        self.meter.charge(0);
        self.joinable = joinable;
    }

    fn set_label(&mut self, label: &[(&str, &str)]) {
        self.meter
            .charge(label.iter().map(|(key, value)| key.len() + value.len()).sum());
        if label.len() > budget::LABEL_KEYS_MAX {
            fail(
                "bytes",
                format_args!("a label of more than {} keys", budget::LABEL_KEYS_MAX),
            );
        }
        let longest = label.iter().map(|(key, value)| key.len().max(value.len())).max();
        if longest.is_some_and(|longest| longest > budget::LABEL_TEXT_BYTES_MAX) {
            fail(
                "bytes",
                format_args!("a label's text of more than {} bytes", budget::LABEL_TEXT_BYTES_MAX),
            );
        }
        self.label = label
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
    }

    fn finish(&mut self, outcome: &[u8]) {
        self.meter.charge(outcome.len());
        self.check("the outcome", outcome);
        self.outcome.get_or_insert_with(|| Payload::from(outcome));
    }

    fn now(&self) -> f64 {
        self.meter.charge(0);
        self.now_ms as f64
    }

    fn unix(&self) -> f64 {
        self.meter.charge(0);
        (self.unix_start_ms + self.now_ms) as f64
    }

    fn set_timer(&mut self, id: u32, after_ms: u32) {
        self.meter.charge(0);
        // At the earliest one millisecond later, as on the node: otherwise time would never go on.
        self.timers.insert(id, self.now_ms + u64::from(after_ms.max(1)));
        if self.timers.len() > budget::TIMERS_MAX {
            fail("host_calls", format_args!("more than {} timers", budget::TIMERS_MAX));
        }
    }

    fn cancel_timer(&mut self, id: u32) {
        self.meter.charge(0);
        self.timers.remove(&id);
    }

    /// SplitMix64: enough for tests, and short.
    fn random_bits(&mut self) -> u64 {
        self.meter.charge(0);
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
            0 => {
                self.meter.charge(0);
                0
            }
            limit => (self.random_bits() % u64::from(limit)) as u32,
        }
    }

    fn random_unit(&mut self) -> f64 {
        (self.random_bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn log(&mut self, level: Level, line: &str) {
        self.meter.charge(line.len());
        self.meter.charge_log_line();
        let end = line.floor_char_boundary(budget::LOG_LINE_BYTES_MAX);
        self.log.push((level, line[..end].to_owned()));
    }

    fn tell(&mut self, request: u32, target: &str, data: &[u8]) {
        let tell = Request::Tell {
            request,
            target: target.to_owned(),
            data: data.into(),
        };
        self.request(target.len() + data.len(), Some(request), tell);
    }

    fn transfer(&mut self, request: u32, seat: Seat, target: &str, ctx: &[u8]) {
        let bytes = target.len() + ctx.len();
        // Nobody sits there, or only a bot, which belongs to this match.
        let is_player = self.seats.get(&seat).is_some_and(|occupant| occupant.role != Role::Bot);
        if !is_player || self.is_leaving(seat) {
            self.meter.charge(bytes);
            return self.answer(request, Failure::Refused);
        }
        let transfer = Request::Transfer {
            request,
            seat,
            target: target.to_owned(),
            ctx: ctx.into(),
        };
        if self.request(bytes, Some(request), transfer) {
            self.throw_out(seat, LeaveReason::Transferred);
        }
    }

    fn say(&mut self, channel: &str, text: &str) {
        let say = Request::Say {
            channel: channel.to_owned(),
            text: text.to_owned(),
        };
        self.request(channel.len() + text.len(), None, say);
    }

    fn claim(&mut self, request: u32, name: &str) {
        let claim = Request::Claim {
            request,
            name: name.to_owned(),
        };
        self.request(name.len(), Some(request), claim);
    }

    fn release(&mut self, name: &str) {
        self.request(name.len(), None, Request::Release { name: name.to_owned() });
    }

    fn storage_read(&mut self, request: u32, at: Place<'_>, key: &str) {
        let bytes = at.bytes() + key.len();
        let (owner, collection) = at.owned();
        let read = Request::Read {
            request,
            owner,
            collection,
            key: key.to_owned(),
        };
        self.request(bytes, Some(request), read);
    }

    fn storage_write(&mut self, request: u32, at: Place<'_>, key: &str, value: Option<&[u8]>, version: Option<&str>) {
        let bytes = at.bytes() + key.len() + value.map_or(0, <[u8]>::len) + version.map_or(0, str::len);
        if let Some(value) = value {
            self.check("what was stored", value);
        }
        let (owner, collection) = at.owned();
        let write = Request::Write {
            request,
            owner,
            collection,
            key: key.to_owned(),
            value: value.map(Payload::from),
            version: version.map(str::to_owned),
        };
        self.request(bytes, Some(request), write);
    }

    fn storage_scan(&mut self, request: u32, at: Place<'_>, prefix: &str, limit: u32) {
        let bytes = at.bytes() + prefix.len();
        let (owner, collection) = at.owned();
        let scan = Request::Scan {
            request,
            owner,
            collection,
            prefix: prefix.to_owned(),
            limit,
        };
        self.request(bytes, Some(request), scan);
    }

    fn content_read(&mut self, request: u32, collection: &str, key: &str) {
        let read = Request::Content {
            request,
            collection: collection.to_owned(),
            key: key.to_owned(),
        };
        self.request(collection.len() + key.len(), Some(request), read);
    }

    /// Not a request to the outside: the node keeps what was asked for last.
    fn backfill_open(&mut self, seats: u32) {
        self.meter.charge(0);
        self.requests.push(Request::Backfill { seats });
    }

    fn backfill_close(&mut self) {
        self.meter.charge(0);
        self.requests.push(Request::EndBackfill);
    }
}

impl Place<'_> {
    fn owned(self) -> (Option<String>, String) {
        (self.owner.map(str::to_owned), self.collection.to_owned())
    }

    fn bytes(self) -> usize {
        self.owner.map_or(0, str::len) + self.collection.len()
    }
}
