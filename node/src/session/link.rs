//! A gateway's end of one match: which sessions here sit in it, how far its outputs have come, and what is still asked of its
//! owner.
//!
//! No task, clock or transport of its own: it is stepped under a lock, and says through [`Uplink`] what goes to the owner.
//! Invariants: an output reaches a session once and in `seq` order, or the session is told of a reset; a frame whose `prev` is
//! not where we are is not delivered but asked for again; what a client asked is kept until it was answered or timed out.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rookery_protocol::client::{
    Encoding, JoinRole, MatchJoined, Payload, PayloadOut, Role, ServerMessage, encode_match_ack, encode_match_data,
};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::output::{Audience, Body, Joined, Output, PublishedValue};
use rookery_protocol::peer::{DownFrame, Item, JoinRequest, MatchHead, Over, UpBody, WirePayload};
use rookery_protocol::{MatchId, NodeLife, NodeName, Seat};

use tokio::sync::oneshot;

use super::inputs::{Inputs, Kept, Offer};
use super::listener::{Listener, Moved};
use crate::matches::event::TrapKind;
use crate::matches::part::SEQ_PER_INCARNATION;
use crate::store::MatchStatus;

/// How long joins and inputs without a number are held while the owner cannot be reached: the bound of a take-over (10 s) and 5 s.
pub const HOLD_MS: u64 = 15_000;

/// How long after an input its acknowledgement may wait for an output to lead.
const ACK_WITHIN_MS: u64 = 80;

/// What nobody answered for this long is said again: the frame with the answer may have met a full queue.
const SAY_AGAIN_MS: u64 = 2_000;

/// Inputs without a number that wait for an answer, for each seat.
const WAITING_MAX: usize = 1_024;

/// The way from a link to the owner of its match.
pub trait Uplink {
    /// Sends to the owner. What cannot be sent now is lost: the link says it again.
    fn up(&self, owner: &NodeLife, target: MatchId, stream: u64, body: UpBody);
    /// Finds out where the match is, and calls [`Link::located`] or [`Link::over`].
    fn locate(&self, target: MatchId);
}

/// Where the owner is, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Known {
        owner: NodeLife,
        epoch: u64,
    },
    /// A look-up is under way, since then.
    Looking {
        epoch: u64,
    },
}

/// One match, as this gateway knows it.
pub struct Link<L> {
    target: MatchId,
    stream: u64,
    route: Route,
    head: Option<Arc<MatchHead>>,
    /// The highest `seq` that came.
    last: u64,
    confirmed: u64,
    /// We asked for what comes after `last`; frames that do not follow are dropped until it comes.
    resuming_since_ms: Option<u64>,
    seats: BTreeMap<Seat, LocalSeat<L>>,
    pending: BTreeMap<u64, Pending<L>>,
    detaching: BTreeMap<u64, Detaching>,
    next_req: u64,
    /// The match has ended, and how that is said: only connections that follow their players still wait for an answer of it.
    ending: Option<ServerMessage>,
    over: bool,
    retired: bool,
}

/// A session in the match.
struct LocalSeat<L> {
    session: Arc<L>,
    role: Role,
    inputs: Inputs,
    /// An acknowledgement that the client was not told yet, and since when.
    ack: Option<(u64, u64, u64)>,
    /// Requests of inputs without a number, which wait for their answer.
    waiting: Vec<Waiting>,
    /// Inputs were refused: the client is told to send again from the expected number, then.
    resend_at_ms: Option<u64>,
    sent_at_ms: u64,
    /// The match goes on from an older state, and the client was not told yet from which input.
    is_unsettled: bool,
}

/// A request of an input without a number.
struct Waiting {
    id: i64,
    until_ms: u64,
    /// The answer may have come in a frame that was lost, and is not said again.
    is_in_doubt: bool,
}

/// A join or a leave that was not answered yet.
struct Pending<L> {
    session: Arc<L>,
    id: Option<i64>,
    until_ms: u64,
    sent_at_ms: u64,
    ask: Ask,
    verdict: Option<Verdict>,
    /// The reason that a client hears whose player is nowhere when it follows them.
    otherwise: &'static str,
}

impl<L: Listener> Pending<L> {
    /// The match from which the player was transferred, if that is how they come.
    fn moved_from(&self) -> Option<MatchId> {
        match &self.ask {
            Ask::Join(seating) => seating.moved_from,
            Ask::Leave { .. } => None,
        }
    }

    /// The match has ended, and its owner says nothing of the player whom this connection follows.
    fn end(self, target: MatchId, ending: &ServerMessage) {
        self.session.forget_match(target);
        if let Some(from) = self.moved_from().filter(|from| *from != target) {
            // They had not heard yet that they left that match for this one.
            let (seq, reason) = (0, self.otherwise.to_owned());
            let kicked = ServerMessage::MatchKicked {
                target: from,
                seq,
                reason,
            };
            self.session.send(None, &kicked);
        }
        self.session.send(None, ending);
    }

    /// The join was refused.
    fn refuse(self, target: MatchId, seq: u64, refusal: Refusal) {
        if let Some(from) = self.moved_from() {
            // They lost the seat where they are, before this connection had heard of it.
            self.session.forget_match(target);
            let seq = if from == target { seq } else { 0 };
            let (target, reason) = (from, self.otherwise.to_owned());
            self.session
                .send(None, &ServerMessage::MatchKicked { target, seq, reason });
            return;
        }
        self.session.join_refused(target);
        match self.verdict {
            // Whoever asked is gone with the session.
            Some(verdict) => drop(verdict.send(Err(refusal))),
            None => self.session.refuse(self.id, refusal),
        }
    }
}

enum Ask {
    Join(Seating),
    Leave { seat: Seat },
}

/// How a session wants to sit down.
#[derive(Debug, Clone)]
pub struct Seating {
    pub role: JoinRole,
    pub ctx: WirePayload,
    /// The player was transferred from that match, and sits here already or will.
    pub moved_from: Option<MatchId>,
}

/// A session's wish to sit down.
pub struct JoinAsk<L> {
    pub session: Arc<L>,
    pub id: Option<i64>,
    pub seating: Seating,
    /// Hears of a refusal instead of the client: somebody who tries another match then.
    pub verdict: Option<Verdict>,
}

impl<L: Listener> JoinAsk<L> {
    /// The session gets no seat.
    pub fn refuse(self, refusal: Refusal) {
        match self.verdict {
            // Whoever asked is gone with the session.
            Some(verdict) => drop(verdict.send(Err(refusal))),
            None => self.session.refuse(self.id, refusal),
        }
    }
}

/// Whether a session got its seat. The client hears of a seat itself.
pub type Verdict = oneshot::Sender<Result<(), Refusal>>;

/// A client's input.
#[derive(Debug)]
pub struct SendAsk {
    pub id: Option<i64>,
    pub n: Option<u64>,
    pub data: Payload,
}

/// A seat whose socket closed, until the owner has heard of it.
struct Detaching {
    seat: Seat,
    attachment: u64,
    until_ms: u64,
    sent_at_ms: u64,
}

impl<L: Listener> Link<L> {
    /// A link that nobody uses yet. `stream` rises from link to link of one gateway.
    pub fn new(target: MatchId, stream: u64, route: Route) -> Self {
        Self {
            target,
            stream,
            route,
            head: None,
            last: 0,
            confirmed: 0,
            resuming_since_ms: None,
            seats: BTreeMap::new(),
            pending: BTreeMap::new(),
            detaching: BTreeMap::new(),
            next_req: 1,
            ending: None,
            over: false,
            retired: false,
        }
    }

    pub fn target(&self) -> MatchId {
        self.target
    }

    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The hub no longer has this link: whoever still holds it must ask for another.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether the owner has said what the match is.
    pub fn is_known(&self) -> bool {
        self.head.is_some()
    }

    /// What the match is, from elsewhere than its owner.
    pub fn describe(&mut self, head: MatchHead) {
        self.head.get_or_insert(Arc::new(head));
    }

    /// Nobody here needs it.
    pub fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.pending.is_empty() && self.detaching.is_empty()
    }

    /// The match is over for this gateway: a new link must be made for whoever asks again.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the owner is this life of that node, or an earlier one.
    pub fn is_owned_by(&self, node: &NodeName, generation: u64) -> bool {
        matches!(&self.route, Route::Known { owner, .. } if owner.name == *node && owner.generation <= generation)
    }

    /// A session wants a seat.
    pub fn join(&mut self, now_ms: u64, ask: JoinAsk<L>, up: &impl Uplink) {
        let asks_after_the_end = self.ending.is_some() && ask.seating.moved_from.is_none();
        if self.over || asks_after_the_end {
            ask.session.join_refused(self.target);
            return ask.refuse(closed(self.ending.as_ref()));
        }
        let JoinAsk {
            session,
            id,
            seating,
            verdict,
        } = ask;
        let until_ms = match seating.moved_from {
            // However long it takes, the player is somewhere.
            Some(_) => u64::MAX,
            None => now_ms + HOLD_MS,
        };
        self.ask(
            Pending {
                session,
                id,
                until_ms,
                sent_at_ms: now_ms,
                ask: Ask::Join(seating),
                verdict,
                otherwise: "gone",
            },
            up,
        );
    }

    fn ask(&mut self, pending: Pending<L>, up: &impl Uplink) {
        let req = self.next_req;
        self.next_req += 1;
        self.send_pending(req, &pending, up);
        self.pending.insert(req, pending);
    }

    /// A session gives its seat up; false if it has none here.
    pub fn leave(&mut self, now_ms: u64, session: &Arc<L>, id: Option<i64>, up: &impl Uplink) -> bool {
        let Some(seat) = self.seat_of(session) else {
            return false;
        };
        let (session, until_ms) = (Arc::clone(session), now_ms + HOLD_MS);
        self.ask(
            Pending {
                session,
                id,
                until_ms,
                sent_at_ms: now_ms,
                ask: Ask::Leave { seat },
                verdict: None,
                otherwise: "gone",
            },
            up,
        );
        true
    }

    fn send_pending(&self, req: u64, pending: &Pending<L>, up: &impl Uplink) {
        let Route::Known { owner, .. } = &self.route else {
            return;
        };
        let session = &pending.session;
        let body = match &pending.ask {
            Ask::Join(seating) => UpBody::Join(Box::new(JoinRequest {
                req,
                player: session.player(),
                name: session.name().to_owned(),
                role: seating.role,
                ctx: seating.ctx.clone(),
                attachment: session.attachment().clone(),
                is_following: seating.moved_from.is_some(),
            })),
            Ask::Leave { seat } => UpBody::Leave {
                req,
                seat: *seat,
                attachment: session.attachment().number,
            },
        };
        up.up(owner, self.target, self.stream, body);
    }

    /// Takes a client's input: keeps it, sends it, or answers it.
    pub fn send(&mut self, now_ms: u64, session: &Arc<L>, number: Seat, ask: SendAsk, up: &impl Uplink) {
        let (target, stream) = (self.target, self.stream);
        let SendAsk { id, n, data } = ask;
        let Some(head) = &self.head else {
            return session.refuse(id, not_joined());
        };
        let Some(seat) = self
            .seats
            .get_mut(&number)
            .filter(|local| Arc::ptr_eq(&local.session, session))
        else {
            // An input that nobody waits for, of a player on their way: the client cannot know yet, and hears where it is next.
            if id.is_some() || !self.is_following(session) {
                session.refuse(id, not_joined());
            }
            return;
        };
        let data = match data.into_bytes(head.codec) {
            Ok(data) => data,
            Err(error) => return session.refuse(id, Refusal::new(ErrorCode::BadMessage, format!("data: {error}"))),
        };
        let owner = match &self.route {
            Route::Known { owner, .. } => Some(owner),
            Route::Looking { .. } => None,
        };
        let attachment = session.attachment().number;
        let n = match n {
            None | Some(0) => {
                if let Some(id) = id {
                    if seat.waiting.len() >= WAITING_MAX || owner.is_none() {
                        return session.refuse(Some(id), unavailable());
                    }
                    seat.waiting.push(Waiting {
                        id,
                        until_ms: now_ms + HOLD_MS,
                        is_in_doubt: false,
                    });
                }
                // Without a number and without a way: at most once, and this is none.
                if let Some(owner) = owner {
                    up.up(
                        owner,
                        target,
                        stream,
                        UpBody::Input {
                            seat: number,
                            attachment,
                            n: 0,
                            id,
                            data,
                        },
                    );
                }
                return;
            }
            Some(n) => n,
        };
        if seat.is_unsettled {
            // The reset that follows says which input comes next.
            if id.is_some() {
                session.refuse(id, unavailable());
            }
            return;
        }
        match seat.inputs.offer(n, id, data.clone()) {
            Offer::Taken => {
                seat.resend_at_ms = None;
                seat.sent_at_ms = now_ms;
                if let Some(owner) = owner {
                    up.up(
                        owner,
                        target,
                        stream,
                        UpBody::Input {
                            seat: number,
                            attachment,
                            n,
                            id: None,
                            data,
                        },
                    );
                }
            }
            Offer::Applied => {
                if id.is_some() {
                    session.send(
                        id,
                        &ServerMessage::MatchApplied {
                            target,
                            n: Some(n),
                            data: None,
                        },
                    );
                }
            }
            Offer::Underway => {}
            Offer::Repeated => session.refuse_input(id, "the input is on its way: wait for it", ACK_WITHIN_MS),
            Offer::Missing { expected, tell } => {
                // Dropped, and with `id` that is said of each.
                if id.is_some() {
                    session.refuse(id, out_of_turn(expected));
                }
                if tell && seat.resend_at_ms.is_none() {
                    session.send(None, &ServerMessage::MatchResend { target, n: expected });
                }
            }
            Offer::Full => {
                seat.inputs.told();
                seat.resend_at_ms.get_or_insert(now_ms + ACK_WITHIN_MS);
                session.refuse_input(id, "inputs wait for the match: send again when asked", ACK_WITHIN_MS);
            }
        }
    }

    /// A numbered input was refused for its rate: the client is asked for it after `retry_ms`.
    pub fn input_refused(&mut self, now_ms: u64, session: &Arc<L>, retry_ms: u64) {
        if let Some(number) = self.seat_of(session)
            && let Some(seat) = self.seats.get_mut(&number)
        {
            seat.inputs.told();
            seat.resend_at_ms.get_or_insert(now_ms + retry_ms);
        }
    }

    /// The session's socket closed. Its seat is kept by the owner for the grace.
    pub fn detach(&mut self, now_ms: u64, session: &L, up: &impl Uplink) {
        self.pending
            .retain(|_, pending| matches!(pending.ask, Ask::Leave { .. }) || !std::ptr::eq(&*pending.session, session));
        if let Some(seat) = self.seat_of(session) {
            self.seats.remove(&seat);
            self.ask_detach(now_ms, seat, session.attachment().number, up);
        }
    }

    fn ask_detach(&mut self, now_ms: u64, seat: Seat, attachment: u64, up: &impl Uplink) {
        let req = self.next_req;
        self.next_req += 1;
        let detaching = Detaching {
            seat,
            attachment,
            until_ms: now_ms + HOLD_MS,
            sent_at_ms: now_ms,
        };
        self.send_detaching(req, &detaching, up);
        self.detaching.insert(req, detaching);
    }

    fn send_detaching(&self, req: u64, detaching: &Detaching, up: &impl Uplink) {
        if let Route::Known { owner, .. } = &self.route {
            let body = UpBody::Detach {
                req,
                seat: detaching.seat,
                attachment: detaching.attachment,
            };
            up.up(owner, self.target, self.stream, body);
        }
    }

    /// Takes a frame of the owner.
    pub fn frame(&mut self, now_ms: u64, from: &NodeLife, frame: DownFrame, up: &impl Uplink) {
        if frame.stream != self.stream || self.over {
            return;
        }
        let mut is_new_owner = false;
        match &self.route {
            Route::Known { epoch, .. } | Route::Looking { epoch } if frame.epoch < *epoch => return,
            Route::Known { owner, epoch } if owner == from && *epoch == frame.epoch => {}
            Route::Known { .. } | Route::Looking { .. } => {
                self.route = Route::Known {
                    owner: from.clone(),
                    epoch: frame.epoch,
                };
                is_new_owner = true;
            }
        }
        if incarnation_of(frame.last) > incarnation_of(self.last) {
            self.begin_incarnation();
        }
        let reset = frame.items.iter().any(|item| matches!(item, Item::Reset { .. }));
        if frame.prev > self.last && !reset {
            // Something was lost on the way.
            if self
                .resuming_since_ms
                .is_none_or(|since_ms| now_ms >= since_ms + SAY_AGAIN_MS)
            {
                self.resuming_since_ms = Some(now_ms);
                up.up(from, self.target, self.stream, UpBody::Resume { last: self.last });
            }
            return;
        }
        self.resuming_since_ms = None;
        if let Some(head) = frame.head {
            // The stream begins here or begins anew: what was in frames that did not come, and is no output, is not said again.
            for local in self.seats.values_mut() {
                local.waiting.iter_mut().for_each(|waiting| waiting.is_in_doubt = true);
            }
            self.head = Some(head);
        }
        for item in frame.items {
            self.item(now_ms, item, from, up);
        }
        self.last = self.last.max(frame.last);
        if self.ending.is_some() && !self.has_followers() {
            self.over = true;
        }
        if self.over {
            // The owner may forget the match now.
            up.up(from, self.target, self.stream, UpBody::Confirm { last: self.last });
        } else if is_new_owner {
            self.say_again(now_ms, up);
        }
    }

    /// The match goes on from less than it had said: what it acknowledged counts no more, and what waits for it is the client's to
    /// send again, from the number that the reset names.
    fn begin_incarnation(&mut self) {
        for local in self.seats.values_mut() {
            for id in local.inputs.ids() {
                local.session.refuse(Some(id), unavailable());
            }
            local.inputs.restart(0);
            local.ack = None;
            local.is_unsettled = true;
        }
    }

    fn item(&mut self, now_ms: u64, item: Item, from: &NodeLife, up: &impl Uplink) {
        match item {
            Item::Output(output) => {
                if output.seq > self.last {
                    self.last = output.seq;
                    self.output(now_ms, &output, up);
                }
            }
            Item::Ack { seat, n, seq } => self.acknowledged(now_ms, seat, n, seq),
            Item::Applied { seat, id } => {
                if let Some(local) = self.seats.get_mut(&seat)
                    && let Some(index) = local.waiting.iter().position(|waiting| waiting.id == id)
                {
                    local.waiting.swap_remove(index);
                    let applied = ServerMessage::MatchApplied {
                        target: self.target,
                        n: None,
                        data: None,
                    };
                    local.session.send(Some(id), &applied);
                }
            }
            Item::Failed { seat, n, id, reason } => {
                if let Some(local) = self.seats.get_mut(&seat) {
                    local.input_failed(n, id, &reason);
                }
            }
            Item::Resend { seat, n } => self.resend(now_ms, seat, n, from, up),
            Item::Refused { req, refusal } => {
                if let Some(pending) = self.pending.remove(&req) {
                    match &self.ending {
                        Some(ending) => pending.end(self.target, ending),
                        None => pending.refuse(self.target, self.last, refusal),
                    }
                }
            }
            Item::Moved { req, to, owner, epoch } => {
                if let Some(pending) = self.pending.remove(&req)
                    && let Ask::Join(Seating {
                        role,
                        moved_from: Some(moved_from),
                        ..
                    }) = pending.ask
                {
                    pending.session.forget_match(self.target);
                    let moved = Moved {
                        from: moved_from,
                        to,
                        owner,
                        epoch,
                        role,
                    };
                    pending.session.follow(moved);
                }
            }
            Item::Left { req, seat } if self.detaching.remove(&req).is_some() => {
                if let Some(mut local) = self.seats.remove(&seat) {
                    local.dismiss(&not_joined());
                }
            }
            Item::Left { req, seat } => {
                if let Some(pending) = self.pending.remove(&req) {
                    pending.session.forget_match(self.target);
                    pending
                        .session
                        .send(pending.id, &ServerMessage::MatchLeft { target: self.target });
                }
                if let Some(mut local) = self.seats.remove(&seat) {
                    local.dismiss(&not_joined());
                }
            }
            Item::Replaced { seat, attachment } => {
                let replaced = self
                    .seats
                    .get(&seat)
                    .is_some_and(|local| local.session.attachment().number == attachment);
                if replaced && let Some(mut local) = self.seats.remove(&seat) {
                    // What its inputs did is told to the connection that has the seat now.
                    local.dismiss(&unavailable());
                    local.session.forget_match(self.target);
                    let reason = "replaced".to_owned();
                    local.session.send(
                        None,
                        &ServerMessage::MatchKicked {
                            target: self.target,
                            seq: self.last,
                            reason,
                        },
                    );
                }
            }
            Item::Gone { seat, attachment } => {
                let is_here = self
                    .seats
                    .get(&seat)
                    .is_some_and(|local| local.session.attachment().number == attachment);
                if is_here {
                    // It may have been given up by a transfer of which nothing was heard here.
                    self.let_go(now_ms, seat, "restored", up);
                }
            }
            Item::Reset { seat, seq, n, values } => {
                self.last = self.last.max(seq);
                if let (Some(local), Some(head)) = (self.seats.get_mut(&seat), &self.head) {
                    local.reset(self.target, head, seq, n, &values);
                }
            }
            Item::Over(over) => self.end(&over),
        }
    }

    fn output(&mut self, now_ms: u64, output: &Arc<Output>, up: &impl Uplink) {
        let target = self.target;
        let Some(head) = self.head.clone() else { return };
        match &output.body {
            Body::Joined(joined) => self.joined(now_ms, output, joined, &head, up),
            Body::Data { data } => {
                let out = PayloadOut {
                    codec: head.codec,
                    bytes: data.clone(),
                };
                let mut shared = SharedFrame::default();
                for (seat, local) in &mut self.seats {
                    if output.audience.includes(*seat, local.role) {
                        local.flush_ack(target);
                        let frame = shared.frame(local.session.encoding(), |encoding| {
                            encode_match_data(encoding, target, output.seq, output.at_ms, None, Some(&out), false)
                        });
                        local.session.push(frame);
                    }
                }
            }
            Body::Published { key, data } => {
                let out = data.as_ref().map(|data| PayloadOut {
                    codec: head.codec,
                    bytes: data.clone(),
                });
                let mut shared = SharedFrame::default();
                for (seat, local) in &mut self.seats {
                    if output.audience.includes(*seat, local.role) {
                        local.flush_ack(target);
                        let frame = shared.frame(local.session.encoding(), |encoding| {
                            let removed = out.is_none();
                            let (seq, at_ms) = (output.seq, output.at_ms);
                            encode_match_data(encoding, target, seq, at_ms, Some(key), out.as_ref(), removed)
                        });
                        local.session.push_latest(target, Arc::clone(key), frame);
                    }
                }
            }
            Body::Players {
                joined,
                left,
                away,
                back,
            } => {
                let message = ServerMessage::MatchPlayers {
                    target,
                    seq: output.seq,
                    joined: joined.clone(),
                    left: left.clone(),
                    away: away.clone(),
                    back: back.clone(),
                };
                let mut shared = SharedFrame::default();
                for (seat, local) in &self.seats {
                    if output.audience.includes(*seat, local.role) {
                        let frame = shared.frame(local.session.encoding(), |encoding| message.encode(None, encoding));
                        local.session.push(frame);
                    }
                }
            }
            Body::Transferring => {
                let Audience::One(seat) = output.audience else { return };
                self.let_go(now_ms, seat, "gone", up);
            }
            Body::Kicked { reason } => {
                let Audience::One(seat) = output.audience else { return };
                if let Some(mut local) = self.seats.remove(&seat) {
                    local.dismiss(&not_joined());
                    local.session.forget_match(target);
                    let message = ServerMessage::MatchKicked {
                        target,
                        seq: output.seq,
                        reason: reason.clone(),
                    };
                    local.session.send(None, &message);
                }
            }
        }
    }

    /// The seat's player is on their way to another match: its session goes after them. If the match knows nothing of that, they are
    /// out of it for this reason.
    fn let_go(&mut self, now_ms: u64, seat: Seat, otherwise: &'static str, up: &impl Uplink) {
        let Some(mut local) = self.seats.remove(&seat) else {
            return;
        };
        local.flush_ack(self.target);
        local.dismiss(&not_joined());
        let seating = Seating {
            role: match local.role {
                Role::Spectator => JoinRole::Spectator,
                Role::Player | Role::Bot => JoinRole::Player,
            },
            ctx: WirePayload::Absent,
            moved_from: Some(self.target),
        };
        let pending = Pending {
            session: local.session,
            id: None,
            until_ms: u64::MAX,
            sent_at_ms: now_ms,
            ask: Ask::Join(seating),
            verdict: None,
            otherwise,
        };
        self.ask(pending, up);
    }

    fn has_followers(&self) -> bool {
        self.pending.values().any(|pending| pending.moved_from().is_some())
    }

    /// The session need not ask here any more where its player is: it has heard. Returns the match that they left, as the client
    /// knows it; none when the session does not ask.
    pub fn stop_following(&mut self, session: &L) -> Option<MatchId> {
        let asks = |pending: &Pending<L>| pending.moved_from().is_some() && std::ptr::eq(&*pending.session, session);
        let (req, from) = self
            .pending
            .iter()
            .find(|(_, pending)| asks(pending))
            .map(|(req, pending)| (*req, pending.moved_from()))?;
        self.pending.remove(&req);
        from
    }

    fn is_following(&self, session: &Arc<L>) -> bool {
        let mut pending = self.pending.values();
        pending.any(|pending| pending.moved_from().is_some() && Arc::ptr_eq(&pending.session, session))
    }

    fn joined(&mut self, now_ms: u64, output: &Output, joined: &Joined, head: &MatchHead, up: &impl Uplink) {
        let waiting = self
            .pending
            .iter()
            .find(|(_, pending)| {
                matches!(pending.ask, Ask::Join(_)) && *pending.session.attachment() == joined.attachment
            })
            .map(|(req, _)| *req);
        let pending = waiting.and_then(|req| self.pending.remove(&req));
        let Some(pending) = pending.filter(|pending| !pending.session.is_closed()) else {
            match self.seats.get_mut(&joined.seat) {
                // The owner had given this node up, and seats its players again: what was said between is gone.
                Some(local) if *local.session.attachment() == joined.attachment => {
                    // Acknowledgements lead their frame, and this output may come from the ring: it may know less.
                    let n = joined.n.max(local.inputs.acked());
                    local.reset(self.target, head, output.seq, n, &joined.values);
                }
                Some(_) => {}
                // Its socket closed meanwhile.
                None => self.ask_detach(now_ms, joined.seat, joined.attachment.number, up),
            }
            return;
        };
        let moved_from = pending.moved_from();
        let session = pending.session;
        let inputs = match self.seats.remove(&joined.seat) {
            Some(before) if Arc::ptr_eq(&before.session, &session) && !before.is_unsettled => before.inputs,
            Some(before) if Arc::ptr_eq(&before.session, &session) => {
                Inputs::after(joined.n.max(before.inputs.acked()))
            }
            Some(_) | None => Inputs::after(joined.n),
        };
        session.seated(self.target, joined.seat);
        let message = MatchJoined {
            target: self.target,
            module: head.module.clone(),
            seat: joined.seat,
            // What was missed has numbers below this output's, and follows.
            seq: joined.missed.first().map_or(output.seq, |missed| missed.seq - 1),
            n: joined.n,
            at: output.at_ms,
            players: joined.players.clone(),
            codec: head.codec,
            tick_hz: head.tick_hz,
        };
        let message = match moved_from {
            Some(from) => ServerMessage::MatchMoved { from, joined: message },
            None => ServerMessage::MatchJoined(message),
        };
        session.send(pending.id, &message);
        if let Some(verdict) = pending.verdict {
            // Whoever asked may have stopped waiting; the session sits all the same.
            let _ = verdict.send(Ok(()));
        }
        send_values(&*session, self.target, head, &joined.values);
        send_missed(&*session, self.target, head, &joined.missed);
        let local = LocalSeat {
            session,
            role: joined.role,
            inputs,
            ack: None,
            waiting: Vec::new(),
            resend_at_ms: None,
            sent_at_ms: 0,
            is_unsettled: false,
        };
        self.seats.insert(joined.seat, local);
    }

    fn acknowledged(&mut self, now_ms: u64, seat: Seat, n: u64, seq: u64) {
        let target = self.target;
        let Some(local) = self.seats.get_mut(&seat) else { return };
        if n <= local.inputs.acked() {
            return;
        }
        let session = &local.session;
        for kept in local.inputs.acknowledge(n) {
            say_applied(&**session, target, &kept);
        }
        local.sent_at_ms = now_ms;
        let since_ms = local.ack.map_or(now_ms, |(_, _, since_ms)| since_ms);
        local.ack = Some((n, seq, since_ms));
    }

    /// The owner misses `n`: it is said again if it is kept, and asked of the client if not.
    fn resend(&mut self, now_ms: u64, seat: Seat, n: u64, from: &NodeLife, up: &impl Uplink) {
        let (target, stream) = (self.target, self.stream);
        let Some(local) = self.seats.get_mut(&seat) else { return };
        if local.inputs.kept().next().is_some_and(|first| first.n == n) {
            local.say_again(now_ms, seat, target, stream, from, up);
        } else if n > local.inputs.acked() + 1 || local.inputs.kept().next().is_none() {
            for id in local.inputs.ids() {
                local.session.refuse(Some(id), out_of_turn(n));
            }
            local.inputs.restart(n - 1);
            local.session.send(None, &ServerMessage::MatchResend { target, n });
        }
    }

    /// The match is over, and nobody is there to ask: everyone here hears how, and is out.
    pub fn over(&mut self, over: &Over) {
        self.end(over);
        if let Some(ending) = &self.ending {
            for (_, pending) in std::mem::take(&mut self.pending) {
                pending.end(self.target, ending);
            }
        }
        self.over = true;
    }

    /// The match is over: everyone in it hears how, and is out. Whoever follows a player still waits for the owner's answer: the
    /// player may have gone elsewhere before the end.
    fn end(&mut self, over: &Over) {
        if self.ending.is_some() {
            return;
        }
        let target = self.target;
        let message = match (over, &self.head) {
            (Over::Ended { result }, Some(head)) => ServerMessage::MatchEnded {
                target,
                result: PayloadOut {
                    codec: head.codec,
                    bytes: result.clone(),
                },
            },
            (Over::Ended { .. }, None) | (Over::Lost, _) => ServerMessage::MatchLost { target },
            (Over::Failed { reason }, _) => ServerMessage::MatchFailed {
                target,
                reason: reason.clone(),
            },
        };
        let unanswered = match over {
            Over::Failed { reason } if TrapKind::ALL.iter().any(|kind| kind.as_str() == reason) => input_failed(reason),
            Over::Failed { .. } | Over::Ended { .. } | Over::Lost => closed(Some(&message)),
        };
        let mut shared = SharedFrame::default();
        for (_, mut local) in std::mem::take(&mut self.seats) {
            local.flush_ack(target);
            local.session.forget_match(target);
            let frame = shared.frame(local.session.encoding(), |encoding| message.encode(None, encoding));
            local.session.push(frame);
            local.dismiss(&unanswered);
        }
        self.detaching.clear();
        for (_, pending) in self.pending.extract_if(.., |_, pending| pending.moved_from().is_none()) {
            match pending.ask {
                Ask::Join(_) => pending.refuse(target, self.last, closed(Some(&message))),
                Ask::Leave { .. } => pending.session.send(pending.id, &ServerMessage::MatchLeft { target }),
            }
        }
        self.ending = Some(message);
    }

    /// Nobody knows the match: joins are refused, and whoever sat in it has lost it.
    pub fn not_found(&mut self) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            pending.refuse(
                self.target,
                self.last,
                Refusal::new(ErrorCode::MatchNotFound, "there is no such match"),
            );
        }
        self.over(&Over::Lost);
    }

    /// The route may lead to a node that is gone: nobody would answer, and nobody would say so.
    pub fn doubt(&mut self, owner: &NodeLife, up: &impl Uplink) {
        if let Route::Known { owner: known, epoch } = &self.route
            && known == owner
        {
            self.route = Route::Looking { epoch: *epoch };
            up.locate(self.target);
        }
    }

    /// The owner does not have the match (any more): find out who has.
    pub fn not_here(&mut self, from: &NodeLife, stream: u64, epoch: u64, up: &impl Uplink) {
        if stream != self.stream {
            return;
        }
        match &self.route {
            Route::Known { owner, epoch: known } if owner == from && epoch <= *known => {
                self.route = Route::Looking { epoch: *known };
                up.locate(self.target);
            }
            Route::Known { .. } | Route::Looking { .. } => {}
        }
    }

    /// The owner was found: what it has not answered is said again, in order.
    pub fn located(&mut self, now_ms: u64, owner: NodeLife, epoch: u64, incarnation: u64, up: &impl Uplink) {
        let (Route::Known { epoch: known, .. } | Route::Looking { epoch: known }) = &self.route;
        if epoch < *known {
            return;
        }
        if self.last > 0 && incarnation > incarnation_of(self.last) {
            self.begin_incarnation();
        }
        self.route = Route::Known { owner, epoch };
        self.say_again(now_ms, up);
    }

    /// The connection to the owner broke, or another owner was found: says again what was not answered.
    pub fn say_again(&mut self, now_ms: u64, up: &impl Uplink) {
        let Route::Known { owner, .. } = self.route.clone() else {
            return;
        };
        let (target, stream) = (self.target, self.stream);
        self.say_who_is_here(&owner, up);
        for (req, pending) in &self.pending {
            self.send_pending(*req, pending, up);
        }
        for (req, detaching) in &self.detaching {
            self.send_detaching(*req, detaching, up);
        }
        self.pending
            .values_mut()
            .for_each(|pending| pending.sent_at_ms = now_ms);
        self.detaching
            .values_mut()
            .for_each(|detaching| detaching.sent_at_ms = now_ms);
        for (seat, local) in &mut self.seats {
            local.say_again(now_ms, *seat, target, stream, &owner, up);
        }
    }

    /// A new connection to the owner is in use. If we wait for what we missed, the question or its answer may have been lost with
    /// the connection before: it is asked again at once, because the ring at the owner holds less than a busy match says
    /// while we would wait.
    pub fn connected(&mut self, now_ms: u64, up: &impl Uplink) {
        if let Route::Known { owner, .. } = &self.route {
            self.say_who_is_here(owner, up);
        }
        if let (Route::Known { owner, .. }, Some(_)) = (&self.route, self.resuming_since_ms) {
            self.resuming_since_ms = Some(now_ms);
            up.up(owner, self.target, self.stream, UpBody::Resume { last: self.last });
        }
    }

    /// An owner that gave this node up meanwhile has to seat its players again.
    fn say_who_is_here(&self, owner: &NodeLife, up: &impl Uplink) {
        if !self.seats.is_empty() {
            let here = self
                .seats
                .iter()
                .map(|(seat, local)| (*seat, local.session.attachment().number));
            let players = self
                .seats
                .values()
                .map(|local| (local.session.player(), local.session.attachment().session));
            let body = UpBody::Here {
                seats: here.collect(),
                players: players.collect(),
            };
            up.up(owner, self.target, self.stream, body);
        }
    }

    /// The players hear that the match pauses.
    pub fn waiting(&self, why: &str) {
        let message = ServerMessage::MatchWaiting {
            target: self.target,
            why: why.to_owned(),
        };
        for local in self.seats.values() {
            local.session.send(None, &message);
        }
    }

    /// Does what is due: acknowledgements that found no output to lead, requests that waited too long, what is to be said again,
    /// and the confirmation of what came. Called every 50 ms.
    pub fn wake(&mut self, now_ms: u64, up: &impl Uplink) {
        let target = self.target;
        let owner = match &self.route {
            Route::Known { owner, .. } => Some(owner.clone()),
            Route::Looking { .. } => None,
        };
        for (number, local) in &mut self.seats {
            if local
                .ack
                .is_some_and(|(_, _, since_ms)| now_ms >= since_ms + ACK_WITHIN_MS / 2)
            {
                local.flush_ack(target);
            }
            if local.resend_at_ms.is_some_and(|at_ms| now_ms >= at_ms) && local.inputs.has_room() {
                local.resend_at_ms = None;
                let n = local.inputs.expected();
                local.session.send(None, &ServerMessage::MatchResend { target, n });
            }
            let session = &local.session;
            local.waiting.retain(|waiting| {
                let waits = now_ms < waiting.until_ms;
                if !waits {
                    session.refuse(Some(waiting.id), unavailable());
                }
                waits
            });
            if let Some(owner) = &owner
                && now_ms >= local.sent_at_ms + SAY_AGAIN_MS
                && local.inputs.kept().next().is_some()
            {
                local.say_again(now_ms, *number, target, self.stream, owner, up);
            }
        }
        self.wake_requests(now_ms, up);
        if let Some(owner) = owner {
            if self
                .resuming_since_ms
                .is_some_and(|since_ms| now_ms >= since_ms + SAY_AGAIN_MS)
            {
                self.resuming_since_ms = Some(now_ms);
                up.up(&owner, target, self.stream, UpBody::Resume { last: self.last });
            }
            // An owner may forget a match when its end is confirmed, and here is somebody who waits for its answer.
            if self.confirmed < self.last && self.ending.is_none() {
                self.confirmed = self.last;
                up.up(&owner, target, self.stream, UpBody::Confirm { last: self.last });
            }
        }
    }

    /// Requests that waited too long are answered; the others are said again from time to time.
    fn wake_requests(&mut self, now_ms: u64, up: &impl Uplink) {
        for (_, pending) in self.pending.extract_if(.., |_, pending| now_ms >= pending.until_ms) {
            pending.refuse(self.target, self.last, unavailable());
        }
        self.detaching.retain(|_, detaching| now_ms < detaching.until_ms);
        let silent = |sent_at_ms: u64| now_ms >= sent_at_ms + SAY_AGAIN_MS;
        for (req, pending) in self.pending.iter().filter(|(_, pending)| silent(pending.sent_at_ms)) {
            self.send_pending(*req, pending, up);
        }
        for (req, detaching) in self
            .detaching
            .iter()
            .filter(|(_, detaching)| silent(detaching.sent_at_ms))
        {
            self.send_detaching(*req, detaching, up);
        }
        let again = self.pending.values_mut().map(|pending| &mut pending.sent_at_ms);
        again
            .chain(self.detaching.values_mut().map(|detaching| &mut detaching.sent_at_ms))
            .for_each(|sent_at_ms| {
                if silent(*sent_at_ms) {
                    *sent_at_ms = now_ms;
                }
            });
    }

    /// Whether [`Link::wake`] has anything to do.
    pub fn is_restless(&self) -> bool {
        self.confirmed < self.last
            || !self.pending.is_empty()
            || !self.detaching.is_empty()
            || self.resuming_since_ms.is_some()
            || self.seats.values().any(|local| {
                local.ack.is_some()
                    || local.resend_at_ms.is_some()
                    || !local.waiting.is_empty()
                    || local.inputs.kept().next().is_some()
            })
    }

    /// Joins, leaves and inputs that the owner has not answered.
    pub fn unanswered(&self) -> usize {
        let seats = self.seats.values();
        let inputs = seats.map(|local| local.inputs.kept().count() + local.waiting.len());
        self.pending.len() + inputs.sum::<usize>()
    }

    fn seat_of(&self, session: &L) -> Option<Seat> {
        self.seats
            .iter()
            .find(|(_, local)| std::ptr::eq(&*local.session, session))
            .map(|(seat, _)| *seat)
    }
}

impl<L: Listener> LocalSeat<L> {
    /// Tells the client that it missed something, and from where it goes on.
    fn reset(&mut self, target: MatchId, head: &MatchHead, seq: u64, n: u64, values: &[PublishedValue]) {
        for kept in self.inputs.acknowledge(n) {
            say_applied(&*self.session, target, &kept);
        }
        // What is above `n` is the client's to send again; whoever waits for an answer to it waits for nothing.
        for id in self.inputs.ids() {
            self.session.refuse(Some(id), unavailable());
        }
        self.inputs.restart(n);
        self.ack = None;
        self.is_unsettled = false;
        self.session.send(None, &ServerMessage::MatchReset { target, seq, n });
        send_values(&*self.session, target, head, values);
    }

    /// Its seat is given up: whoever waits for an answer hears that the input was not applied, if that is sure.
    fn dismiss(&mut self, refusal: &Refusal) {
        for waiting in self.waiting.drain(..) {
            let refusal = if waiting.is_in_doubt {
                unavailable()
            } else {
                refusal.clone()
            };
            self.session.refuse(Some(waiting.id), refusal);
        }
        for id in self.inputs.ids() {
            self.session.refuse(Some(id), refusal.clone());
        }
    }

    /// The match logic failed on an input: whoever waits for its answer hears that.
    fn input_failed(&mut self, n: u64, id: Option<i64>, reason: &str) {
        let index = id.and_then(|id| self.waiting.iter().position(|waiting| waiting.id == id));
        let unnumbered = index.map(|index| self.waiting.swap_remove(index).id);
        for id in self.inputs.failed(n).into_iter().chain(unnumbered) {
            self.session.refuse(Some(id), input_failed(reason));
        }
    }

    /// Tells the client what was acknowledged, if it was not told yet.
    fn flush_ack(&mut self, target: MatchId) {
        if let Some((n, seq, _)) = self.ack.take() {
            let encoding = self.session.encoding();
            self.session.push(encode_match_ack(encoding, target, n, seq));
        }
    }

    fn say_again(&mut self, now_ms: u64, seat: Seat, target: MatchId, stream: u64, owner: &NodeLife, up: &impl Uplink) {
        self.sent_at_ms = now_ms;
        let attachment = self.session.attachment().number;
        for kept in self.inputs.kept() {
            let body = UpBody::Input {
                seat,
                attachment,
                n: kept.n,
                id: None,
                data: kept.data.clone(),
            };
            up.up(owner, target, stream, body);
        }
    }
}

/// Which of the match's incarnations a number belongs to.
fn incarnation_of(seq: u64) -> u64 {
    seq / SEQ_PER_INCARNATION
}

/// A frame that is encoded at most once for each encoding.
#[derive(Default)]
struct SharedFrame {
    json: Option<Bytes>,
    msgpack: Option<Bytes>,
}

impl SharedFrame {
    fn frame(&mut self, encoding: Encoding, encode: impl FnOnce(Encoding) -> Bytes) -> Bytes {
        let slot = match encoding {
            Encoding::Json => &mut self.json,
            Encoding::MsgPack => &mut self.msgpack,
        };
        slot.get_or_insert_with(|| encode(encoding)).clone()
    }
}

fn send_values<L: Listener>(session: &L, target: MatchId, head: &MatchHead, values: &[PublishedValue]) {
    for value in values {
        let out = PayloadOut {
            codec: head.codec,
            bytes: value.data.clone(),
        };
        let encoding = session.encoding();
        let frame = encode_match_data(
            encoding,
            target,
            value.seq,
            value.at_ms,
            Some(&value.key),
            Some(&out),
            false,
        );
        session.push(frame);
    }
}

/// What was said to a seat before its connection followed, in its order.
fn send_missed<L: Listener>(session: &L, target: MatchId, head: &MatchHead, missed: &[Arc<Output>]) {
    for output in missed {
        match &output.body {
            Body::Data { data } => {
                let out = PayloadOut {
                    codec: head.codec,
                    bytes: data.clone(),
                };
                let encoding = session.encoding();
                let (seq, at_ms) = (output.seq, output.at_ms);
                session.push(encode_match_data(encoding, target, seq, at_ms, None, Some(&out), false));
            }
            Body::Players {
                joined,
                left,
                away,
                back,
            } => {
                let message = ServerMessage::MatchPlayers {
                    target,
                    seq: output.seq,
                    joined: joined.clone(),
                    left: left.clone(),
                    away: away.clone(),
                    back: back.clone(),
                };
                session.send(None, &message);
            }
            Body::Published { .. } | Body::Kicked { .. } | Body::Transferring | Body::Joined(_) => {}
        }
    }
}

fn not_joined() -> Refusal {
    Refusal::new(ErrorCode::MatchNotJoined, "this session has no seat in that match")
}

fn unavailable() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the match cannot be reached")
}

/// The same as the store says of it, with how it ended.
fn closed(ending: Option<&ServerMessage>) -> Refusal {
    let refusal = Refusal::new(ErrorCode::MatchClosed, "the match is over");
    let status = match ending {
        Some(ServerMessage::MatchEnded { .. }) => MatchStatus::Ended,
        Some(ServerMessage::MatchFailed { .. }) => MatchStatus::Failed,
        Some(ServerMessage::MatchLost { .. }) => MatchStatus::Lost,
        _ => return refusal,
    };
    refusal.with("status", status.as_str())
}

/// An input that failed the match, or that the match did not live to see.
fn input_failed(reason: &str) -> Refusal {
    Refusal::new(
        ErrorCode::MatchInputFailed,
        "the match logic failed on the input, which had no effect",
    )
    .with("reason", reason)
}

/// An input that came before the one that is due, and was dropped.
fn out_of_turn(due: u64) -> Refusal {
    Refusal::new(
        ErrorCode::Unavailable,
        "inputs before it are missing: send again from `n`",
    )
    .with("n", due)
}

/// Answers every request for an input that was applied.
fn say_applied(session: &impl Listener, target: MatchId, kept: &Kept) {
    for id in kept.ids() {
        let (n, data) = (Some(kept.n), None);
        session.send(Some(id), &ServerMessage::MatchApplied { target, n, data });
    }
}
