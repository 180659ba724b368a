//! What a match hears from gateways: who sits down and gets up, inputs in their order, connections that break and come back, and what
//! each of them missed.
//!
//! Pure, as the room is. Invariants: input `n` of a seat is applied only after `n - 1`, and once; only the connection with the
//! highest attachment number speaks for a seat; what a gateway says again is answered again and done once.

use std::cmp::Ordering;

use bytes::Bytes;
use rookery_protocol::client::{JoinRole, LeaveReason, Payload, Role};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::output::Attachment;
use rookery_protocol::peer::{Item, JoinRequest, Up, UpBody};
use rookery_protocol::{NodeLife, NodeName, PlayerId, Seat, SessionId};

use super::{Phase, Room, RoomEffect, Verdict, mail};
use crate::matches::event::{Event, Occupant, Outcome, Topic};
use crate::matches::part::Admission;
use crate::owner::stream::Stream;

/// Streams of one match at once: one a node of the cluster, and some that are ending.
pub(super) const STREAMS_MAX: usize = 1_024;

impl Room {
    /// Takes one message of a gateway.
    pub fn up(&mut self, now_ms: u64, from: &NodeLife, up: Up, out: &mut Vec<RoomEffect>) {
        if let Phase::Over { .. } = self.phase {
            let following = match &up.body {
                UpBody::Join(request) if request.is_following => Some(request.clone()),
                _ => None,
            };
            let req = following.as_ref().map(|request| request.req);
            if following.is_some_and(|request| self.follow(now_ms, from, up.stream, *request, out)) {
                return;
            }
            self.up_after_the_end(from, &up);
            if let Some(req) = req {
                // It waits for this answer, and the end alone is none: the player may have gone on before it.
                let refusal = not_here();
                self.say_of_seat(from, up.stream, Item::Refused { req, refusal });
            }
            return;
        }
        match up.body {
            UpBody::Join(request) => self.join(now_ms, from, up.stream, *request, out),
            UpBody::Leave { req, seat, attachment } => self.leave(now_ms, from, up.stream, req, seat, attachment, out),
            UpBody::Input {
                seat,
                attachment,
                n,
                id,
                data,
            } => {
                self.input(
                    now_ms,
                    from,
                    up.stream,
                    Input {
                        seat,
                        attachment,
                        n,
                        id,
                        data,
                    },
                    out,
                );
            }
            UpBody::Detach { req, seat, attachment } => {
                self.detach(now_ms, seat, attachment, out);
                if let Some(stream) = self.stream_mut(from, up.stream) {
                    stream.item(Item::Left { req, seat });
                }
            }
            UpBody::Here { seats, players } => self.seat_again(now_ms, from, up.stream, &seats, &players, out),
            UpBody::Resume { last } => self.resume(now_ms, from, up.stream, last, out),
            UpBody::Confirm { last } => {
                if let Some(stream) = self.stream_mut(from, up.stream) {
                    stream.confirm(last);
                }
            }
        }
    }

    /// A gateway that missed the end is told again.
    fn up_after_the_end(&mut self, from: &NodeLife, up: &Up) {
        let Some(over) = self.verdict.as_ref().map(Verdict::over) else {
            return;
        };
        if let UpBody::Confirm { last } = up.body {
            if let Some(stream) = self.stream_mut(from, up.stream) {
                stream.confirm(last);
            }
            return;
        }
        let stream = match self.stream_index(from, up.stream) {
            Some(index) => index,
            None => match self.open_stream(from, up.stream) {
                Some(index) => index,
                None => return,
            },
        };
        if let UpBody::Resume { last } = up.body {
            self.serve_from_ring(stream, last);
        }
        let end_seq = self.game.part().last_seq() + 1;
        self.streams[stream].finish(over, end_seq);
    }

    fn join(&mut self, now_ms: u64, from: &NodeLife, number: u64, request: JoinRequest, out: &mut Vec<RoomEffect>) {
        let Some(index) = self.open_stream(from, number) else {
            return;
        };
        let refuse = |room: &mut Self, refusal: Refusal| {
            room.streams[index].item(Item::Refused {
                req: request.req,
                refusal,
            });
        };
        if request.is_following {
            let req = request.req;
            if !self.follow(now_ms, from, number, request, out) {
                self.streams[index].item(Item::Refused {
                    req,
                    refusal: not_here(),
                });
            }
            return;
        }
        if self.game.part().transfer_of(request.player).is_some() {
            // Let in now, they would be in two matches.
            let refusal = Refusal::new(ErrorCode::Unavailable, "the player is on the way to another match");
            return refuse(self, refusal.with("retry_ms", mail::AGAIN_MS));
        }
        let ctx = match Payload::from(request.ctx.clone()).into_bytes(self.head.codec) {
            Ok(ctx) => ctx,
            Err(error) => return refuse(self, Refusal::new(ErrorCode::BadMessage, format!("ctx: {error}"))),
        };
        let role = match request.role {
            JoinRole::Player => Role::Player,
            JoinRole::Spectator => Role::Spectator,
        };
        match self.game.part().admit(request.player, role) {
            Admission::Full => refuse(self, Refusal::new(ErrorCode::MatchFull, "no seat is free")),
            Admission::Closed => refuse(
                self,
                Refusal::new(ErrorCode::MatchClosed, "the match takes no more players"),
            ),
            Admission::Seated { seat } => self.sit_again(now_ms, index, seat, request, out),
            Admission::Free { seat, team } => {
                let occupant = Occupant {
                    player: request.player,
                    name: request.name,
                    role,
                    team,
                    attachment: request.attachment,
                };
                let since = self.game.part().last_seq();
                self.streams[index].seat(seat, role, request.req, since);
                self.apply(now_ms, Event::Join { seat, occupant, ctx }, out);
                if let Some(reason) = self.applied.refused.take() {
                    self.streams[index].remove(seat);
                    let refusal =
                        Refusal::new(ErrorCode::MatchRefused, "the match refused the player").with("reason", reason);
                    self.streams[index].item(Item::Refused {
                        req: request.req,
                        refusal,
                    });
                } else if self.applied.failure.is_some() {
                    self.streams[index].remove(seat);
                    if self.verdict.is_none() {
                        let message = "the match logic failed on the join, which had no effect";
                        let refusal = Refusal::new(ErrorCode::MatchInputFailed, message);
                        let req = request.req;
                        self.streams[index].item(Item::Refused { req, refusal });
                    }
                }
                self.begin_follow_ups(now_ms, out);
            }
        }
    }

    /// Who is seated already gets the same seat, whichever connection asks.
    pub(super) fn sit_again(
        &mut self,
        now_ms: u64,
        index: usize,
        seat: Seat,
        request: JoinRequest,
        out: &mut Vec<RoomEffect>,
    ) {
        let Some(current) = self.game.part().seat(seat) else {
            return;
        };
        let role = current.role;
        let Some(held) = current.attachment.clone() else { return };
        if request.attachment.number < held.number {
            let refusal = Refusal::new(ErrorCode::Forbidden, "a newer connection of this player holds the seat");
            self.streams[index].item(Item::Refused {
                req: request.req,
                refusal,
            });
            return;
        }
        if self.streams[index].has_join(seat, request.req) {
            // The answer is in this stream already, or will be served from the ring.
            return;
        }
        self.mail.claimed(seat, request.player);
        self.unseat_from_streams(seat, &held, Some(&request.attachment));
        let since = self.game.part().last_seq();
        self.streams[index].seat(seat, role, request.req, since);
        self.apply(
            now_ms,
            Event::Resync {
                seat,
                attach: Some(request.attachment),
            },
            out,
        );
        self.run_follow_ups(now_ms, out);
    }

    /// Takes a seat out of the streams, and tells the connection that had it when another has it now.
    fn unseat_from_streams(&mut self, seat: Seat, held: &Attachment, newer: Option<&Attachment>) {
        let replaced = newer.is_some_and(|newer| newer.session != held.session);
        for stream in &mut self.streams {
            if stream.has(seat) {
                if replaced {
                    stream.item(Item::Replaced {
                        seat,
                        attachment: held.number,
                    });
                }
                stream.remove(seat);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn leave(
        &mut self,
        now_ms: u64,
        from: &NodeLife,
        number: u64,
        req: u64,
        seat: Seat,
        attachment: u64,
        out: &mut Vec<RoomEffect>,
    ) {
        if self.speaks_for(seat, attachment) {
            self.apply(
                now_ms,
                Event::Leave {
                    seat,
                    reason: LeaveReason::Left,
                },
                out,
            );
            self.begin_follow_ups(now_ms, out);
        }
        // Said again when the first answer was lost: the seat is gone, and that is what was asked.
        if let Some(stream) = self.stream_mut(from, number) {
            stream.item(Item::Left { req, seat });
        }
    }

    fn input(&mut self, now_ms: u64, from: &NodeLife, number: u64, input: Input, out: &mut Vec<RoomEffect>) {
        let Some(seated) = self.game.part().seat(input.seat) else {
            return;
        };
        let Some(held) = seated.attachment.as_ref().map(|attachment| attachment.number) else {
            return;
        };
        let expected = seated.last_n + 1;
        if input.attachment != held {
            if let Some(stream) = self.stream_mut(from, number).filter(|_| input.attachment < held) {
                stream.item(Item::Replaced {
                    seat: input.seat,
                    attachment: input.attachment,
                });
            }
            return;
        }
        let Some(index) = self.stream_index(from, number) else {
            return;
        };
        let Input { seat, n, id, data, .. } = input;
        if n > expected {
            self.streams[index].item(Item::Resend { seat, n: expected });
            return;
        }
        // The answer goes before what the input caused: that may be the end of the seat, which answers what is still open.
        let place = self.streams[index].place();
        // One that was said again was applied before.
        let mut is_applied = true;
        if n == 0 || n == expected {
            self.apply(now_ms, Event::Message { seat, n, data }, out);
            is_applied = self.applied.record.outcome == Outcome::Applied;
            let failed = self
                .applied
                .failure
                .as_ref()
                .filter(|_| self.applied.given_up.is_none());
            if let Some(failure) = failed {
                let reason = failure.kind.as_str().to_owned();
                // It is used up, and acknowledged like any other.
                is_applied = n > 0;
                if n > 0 || id.is_some() {
                    let id = id.filter(|_| n == 0);
                    self.streams[index].input_failed(Item::Failed { seat, n, id, reason });
                }
            }
            self.begin_follow_ups(now_ms, out);
        } else {
            self.say_failed(index, seat);
        }
        let seq = self.game.part().last_seq();
        // An input on which the match ends is not acknowledged: that is its answer.
        if n > 0 && is_applied {
            let acked = self.game.part().seat(seat).map_or(n, |seated| seated.last_n);
            self.streams[index].acknowledge(seat, acked, seq);
        } else if let Some(id) = id.filter(|_| is_applied && n == 0) {
            self.streams[index].item_at(place, Item::Applied { seat, id });
        }
    }

    /// A gateway says who sits there. It is news when the gateway was given up meanwhile, and its streams with it, and when the
    /// match goes on from a state that does not know all of them.
    fn seat_again(
        &mut self,
        now_ms: u64,
        from: &NodeLife,
        number: u64,
        seats: &[(Seat, u64)],
        players: &[(PlayerId, SessionId)],
        out: &mut Vec<RoomEffect>,
    ) {
        // A gateway that still has its stream hears in it what became of its seats.
        let is_forgotten = self.stream_index(from, number).is_none();
        for (index, (seat, attachment)) in seats.iter().enumerate() {
            let is_known = self
                .stream_index(from, number)
                .is_some_and(|index| self.streams[index].has(*seat));
            if is_known {
                continue;
            }
            match self.standing(*seat, *attachment, players.get(index), from) {
                Claim::Holds(attach) => self.take_back(now_ms, from, number, *seat, attach, out),
                Claim::Replaced if is_forgotten => self.say_of_seat(
                    from,
                    number,
                    Item::Replaced {
                        seat: *seat,
                        attachment: *attachment,
                    },
                ),
                Claim::Unknown if is_forgotten => self.say_of_seat(
                    from,
                    number,
                    Item::Gone {
                        seat: *seat,
                        attachment: *attachment,
                    },
                ),
                Claim::Replaced | Claim::Unknown => {}
            }
        }
    }

    /// What a connection that a gateway says it has is to this match.
    fn standing(&self, seat: Seat, attachment: u64, who: Option<&(PlayerId, SessionId)>, from: &NodeLife) -> Claim {
        let Some(seated) = self.game.part().seat(seat) else {
            return Claim::Unknown;
        };
        if who.is_some_and(|(player, _)| seated.player != Some(*player)) {
            return Claim::Unknown;
        }
        let Some(held) = &seated.attachment else {
            return Claim::Unknown;
        };
        match (attachment.cmp(&held.number), who) {
            (Ordering::Less, _) => Claim::Replaced,
            (Ordering::Equal, _) => Claim::Holds(held.clone()),
            // It took the seat after the state that we go on from.
            (Ordering::Greater, Some((_, session))) => Claim::Holds(Attachment {
                number: attachment,
                session: *session,
                node: from.name.clone(),
                generation: from.generation,
            }),
            (Ordering::Greater, None) => Claim::Unknown,
        }
    }

    fn take_back(
        &mut self,
        now_ms: u64,
        from: &NodeLife,
        number: u64,
        seat: Seat,
        attach: Attachment,
        out: &mut Vec<RoomEffect>,
    ) {
        let Some(index) = self.open_stream(from, number) else {
            return;
        };
        let Some(role) = self.game.part().seat(seat).map(|seated| seated.role) else {
            return;
        };
        let since = self.game.part().last_seq();
        self.streams[index].seat(seat, role, 0, since);
        let attach = Some(attach);
        self.apply(now_ms, Event::Resync { seat, attach }, out);
        self.run_follow_ups(now_ms, out);
    }

    fn say_of_seat(&mut self, from: &NodeLife, number: u64, item: Item) {
        if let Some(index) = self.open_stream(from, number) {
            self.streams[index].item(item);
        }
    }

    fn detach(&mut self, now_ms: u64, seat: Seat, attachment: u64, out: &mut Vec<RoomEffect>) {
        if !self.speaks_for(seat, attachment) {
            return;
        }
        for stream in &mut self.streams {
            stream.remove(seat);
        }
        self.go_away(now_ms, seat, out);
    }

    pub(super) fn go_away(&mut self, now_ms: u64, seat: Seat, out: &mut Vec<RoomEffect>) {
        if self
            .game
            .part()
            .seat(seat)
            .is_none_or(|seated| seated.away_since_ms.is_some())
        {
            return;
        }
        if self.grace_ms == 0 {
            self.apply(
                now_ms,
                Event::Leave {
                    seat,
                    reason: LeaveReason::TimedOut,
                },
                out,
            );
        } else {
            self.apply(
                now_ms,
                Event::Signal {
                    topic: Topic::SeatAway { seat },
                },
                out,
            );
        }
        self.run_follow_ups(now_ms, out);
    }

    /// That life of a node is over: its streams end, and the seats whose current connection was there are away.
    pub fn gateway_gone(&mut self, now_ms: u64, node: &NodeName, generation: u64, out: &mut Vec<RoomEffect>) {
        self.streams
            .retain(|stream| stream.gateway().name != *node || stream.gateway().generation > generation);
        if self.phase != Phase::Running {
            return;
        }
        let gone: Vec<Seat> = self
            .game
            .part()
            .seats()
            .filter(|(_, seated)| {
                seated
                    .attachment
                    .as_ref()
                    .is_some_and(|attachment| attachment.node == *node && attachment.generation <= generation)
            })
            .map(|(seat, _)| seat)
            .collect();
        for seat in gone {
            self.go_away(now_ms, seat, out);
        }
    }

    /// The connection to that node broke: both ends compare what was sent with what came.
    pub fn link_lost(&mut self, node: &NodeName) {
        self.streams
            .iter_mut()
            .filter(|stream| stream.gateway().name == *node)
            .for_each(Stream::check);
    }

    /// There is room again towards that node: what was held back comes from the ring.
    pub fn writable(&mut self, now_ms: u64, node: &NodeName, out: &mut Vec<RoomEffect>) {
        for index in 0..self.streams.len() {
            let stream = &self.streams[index];
            if stream.is_stalled() && stream.gateway().name == *node {
                let last = stream.sent();
                self.catch_up(now_ms, index, last, out);
            }
        }
    }

    fn resume(&mut self, now_ms: u64, from: &NodeLife, number: u64, last: u64, out: &mut Vec<RoomEffect>) {
        if let Some(index) = self.stream_index(from, number) {
            self.catch_up(now_ms, index, last, out);
        }
    }

    /// Serves a stream from the ring, or resets its seats when the ring no longer reaches back that far.
    pub(super) fn catch_up(&mut self, now_ms: u64, index: usize, last: u64, out: &mut Vec<RoomEffect>) {
        let complete = self.serve_from_ring(index, last);
        if let Some(verdict) = &self.verdict {
            let end_seq = self.game.part().last_seq() + 1;
            self.streams[index].finish(verdict.over(), end_seq);
            return;
        }
        if complete {
            return;
        }
        let seats: Vec<Seat> = self.streams[index].seats().collect();
        let seq = self.game.part().last_seq();
        self.streams[index].reset(seq);
        for seat in &seats {
            let Some(seated) = self.game.part().seat(*seat) else {
                continue;
            };
            if !self.streams[index].is_news(*seat, last) {
                let (n, values) = (seated.last_n, self.game.part().visible_values(*seat));
                self.streams[index].item(Item::Reset {
                    seat: *seat,
                    seq,
                    n,
                    values,
                });
            }
        }
        for seat in seats {
            // Whose join was not answered yet is told where it sits instead.
            let is_news = self.streams[index].is_news(seat, last);
            let attachment = self.game.part().seat(seat).and_then(|seated| seated.attachment.clone());
            self.apply(
                now_ms,
                Event::Resync {
                    seat,
                    attach: attachment.filter(|_| is_news),
                },
                out,
            );
            self.run_follow_ups(now_ms, out);
        }
    }

    /// Says again on which of a seat's inputs the match logic failed: it goes before their acknowledgement.
    fn say_failed(&mut self, index: usize, seat: Seat) {
        for failed in self.failed_inputs.iter().filter(|failed| failed.seat == seat) {
            self.streams[index].input_failed(Item::Failed {
                seat,
                n: failed.n,
                id: None,
                reason: failed.kind.as_str().to_owned(),
            });
        }
    }

    /// Returns whether the ring had everything after `last`.
    fn serve_from_ring(&mut self, index: usize, last: u64) -> bool {
        self.streams[index].rewind(last);
        let seats: Vec<Seat> = self.streams[index].seats().collect();
        seats.into_iter().for_each(|seat| self.say_failed(index, seat));
        let stream = &mut self.streams[index];
        let part = self.game.part();
        let here = stream.seats().filter_map(|seat| Some((seat, part.seat(seat)?.last_n)));
        let applied: Vec<(Seat, u64)> = here.chain(stream.left()).filter(|(_, n)| *n > 0).collect();
        for (seat, n) in applied {
            stream.acknowledge(seat, n, part.last_seq());
        }
        match part.since(last) {
            Some(missed) => {
                missed.for_each(|output| stream.collect(output));
                true
            }
            None => false,
        }
    }

    pub(super) fn speaks_for(&self, seat: Seat, attachment: u64) -> bool {
        self.game
            .part()
            .seat(seat)
            .is_some_and(|seated| seated.attachment.as_ref().is_some_and(|held| held.number == attachment))
    }

    fn stream_index(&self, from: &NodeLife, number: u64) -> Option<usize> {
        self.streams
            .iter()
            .position(|stream| stream.gateway() == from && stream.number() == number)
    }

    fn stream_mut(&mut self, from: &NodeLife, number: u64) -> Option<&mut Stream> {
        self.stream_index(from, number).map(|index| &mut self.streams[index])
    }

    /// The stream with this number, opened if it is newer than the gateway's last one. None for an older one, and when there
    /// are too many.
    pub(super) fn open_stream(&mut self, from: &NodeLife, number: u64) -> Option<usize> {
        if let Some(index) = self.stream_index(from, number) {
            return Some(index);
        }
        if let Some(index) = self.streams.iter().position(|stream| stream.gateway() == from) {
            if self.streams[index].number() > number {
                return None;
            }
            // The gateway began anew: whom it still had here it has given up.
            self.streams[index] = Stream::new(from.clone(), number);
            return Some(index);
        }
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        self.streams.push(Stream::new(from.clone(), number));
        Some(self.streams.len() - 1)
    }
}

/// What a connection hears that follows a player of whom this match knows nothing.
fn not_here() -> Refusal {
    Refusal::new(ErrorCode::MatchNotJoined, "the player is not here any more")
}

/// What a connection is to the match that it says it has a seat in.
enum Claim {
    /// It speaks for the seat, under this attachment.
    Holds(Attachment),
    /// A newer one does.
    Replaced,
    /// The match has no such seat, or somebody else sits there.
    Unknown,
}

/// One input of a seat, as a gateway sent it.
struct Input {
    seat: Seat,
    attachment: u64,
    n: u64,
    id: Option<i64>,
    data: Bytes,
}
