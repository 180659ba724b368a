//! A match's mail: what it sends to other matches and what it hears from them, and players on their way from one to another.
//!
//! Pure, as the room is. Invariants: a letter has one number and one target for ever; the receiver hears each once and in the order
//! of the numbers, because a letter names the one before it that is still held and waits for it; a sender lets go of a letter when
//! it is confirmed, or when it is certain that it never arrived; a player who was refused comes back.

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::peer::{Item, JoinRequest, Letter, LetterBody, Receipt, Standing};
use rookery_protocol::{MatchId, NodeLife, PlayerId, Seat};

use super::{Phase, Room, RoomEffect};
use crate::matches::effect::{Effect, EffectId};
use crate::matches::event::{Event, Stamp};
use crate::matches::part::Posted;

/// Letters to one match that have no receipt yet. More wait in the outbox, which is bounded for each match.
pub(crate) const IN_FLIGHT_MAX: usize = 64;

/// What has no receipt for this long is said again: it may have met a full queue, or a match that was moving.
pub(crate) const AGAIN_MS: u64 = 1_000;

/// How long a match that is over goes on trying to deliver its last letters.
const AFTER_THE_END_MS: u64 = 60_000;

/// How long a player who has arrived may be without a connection before they count as away. The connection follows as soon as the
/// match that they left has heard of it.
const CLAIMED_WITHIN_MS: u64 = 10_000;

/// A connection that does not follow within this time is told where its player is, and again each time it is over: the match that
/// they left may be gone.
const CALL_EVERY_MS: u64 = 1_000;

/// Matches that players went to from here whose owners are remembered. Past this all are forgotten: whoever follows finds the way.
const ROUTES_MAX: usize = 1_024;

/// What a room keeps of its mail besides the host's part; all of it can be lost with the room.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Something has a number that was not sent yet.
    pub(super) is_due: bool,
    /// Names that are being looked up.
    finding: BTreeSet<String>,
    /// Letters that this room gave to the post.
    sent: BTreeSet<u64>,
    /// Letters that the post carried somewhere, each with how often it did without word that nobody heard it there: they may have
    /// been heard, whatever is known of their target later.
    carried: BTreeMap<u64, u32>,
    /// Letters that whoever had the match before may have sent.
    inherited: BTreeSet<u64>,
    again_at_ms: Option<u64>,
    /// Players who arrived, and until when their connection may follow.
    expected: BTreeMap<Seat, u64>,
    /// Players who arrived from another match and whose connection has not followed, and when all of those are called.
    arrivals: BTreeMap<Seat, Arrival>,
    call_at_ms: Option<u64>,
    /// Where the matches were that players went to, when they said that the player had come.
    routes: BTreeMap<MatchId, (NodeLife, u64)>,
    /// Connections that wait to hear where their player is.
    followers: BTreeMap<PlayerId, Follower>,
}

/// A player who has arrived.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// The match that they left.
    from: MatchId,
    at_ms: u64,
}

/// A connection that waits to hear where its player is.
#[derive(Debug, Clone)]
struct Follower {
    gateway: NodeLife,
    stream: u64,
    request: JoinRequest,
}

/// How a look-up of a match ended, for mail that is to go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// It is over, or there never was one.
    Gone,
    /// This node does not carry mail.
    NoPost,
}

impl Mailbox {
    /// The seat's connection is there.
    pub(super) fn claimed(&mut self, seat: Seat, player: PlayerId) {
        self.expected.remove(&seat);
        self.arrivals.remove(&seat);
        self.followers.remove(&player);
    }

    fn may_be_heard(&self, number: u64) -> bool {
        self.carried.contains_key(&number) || self.inherited.contains(&number)
    }

    fn forget(&mut self, number: u64) {
        self.sent.remove(&number);
        self.carried.remove(&number);
        self.inherited.remove(&number);
    }
}

impl Room {
    /// A mail was made, or was made before the match went on here: finds out where it goes.
    pub(super) fn address(&mut self, id: EffectId, effect: &Effect, out: &mut Vec<RoomEffect>) {
        let Some(target) = effect.mail_target() else { return };
        if self.game.part().posted().values().any(|posted| posted.effect == id) {
            self.mail.is_due = true;
            // Whoever had the match before may have sent it.
            let numbers: Vec<u64> = self.game.part().posted().keys().copied().collect();
            self.mail.inherited.extend(numbers);
        } else if let Ok(to) = target.parse() {
            self.follow_ups.push_back(Event::Addressed { effect: id, to });
        } else if self.mail.finding.insert(target.to_owned()) {
            out.push(RoomEffect::Find {
                name: target.to_owned(),
            });
        }
    }

    /// A name was looked up. All mail to it that waits goes to that match, in its order; or is answered that there is none.
    pub fn found(&mut self, now_ms: u64, name: &str, found: Result<MatchId, Absence>, out: &mut Vec<RoomEffect>) {
        if !self.mail.finding.remove(name) {
            return;
        }
        let part = self.game.part();
        let numbered: BTreeSet<EffectId> = part.posted().values().map(|posted| posted.effect).collect();
        let is_meant =
            |(id, effect): &(&EffectId, &Effect)| effect.mail_target() == Some(name) && !numbered.contains(id);
        let waiting: Vec<EffectId> = part.outbox().iter().filter(is_meant).map(|(id, _)| *id).collect();
        for effect in waiting {
            match found {
                Ok(to) => self.apply(now_ms, Event::Addressed { effect, to }, out),
                Err(absence) => self.return_to_sender(effect, absence),
            }
        }
        self.begin_follow_ups(now_ms, out);
    }

    /// There is no such match any more, or never was: what was not sent there is answered, players come back, and of the rest
    /// nobody can say whether it was heard.
    pub fn target_gone(&mut self, now_ms: u64, to: MatchId, absence: Absence, out: &mut Vec<RoomEffect>) {
        for (number, Posted { effect, .. }) in self.posted_to(to) {
            let is_transfer = matches!(self.game.part().outbox().get(&effect), Some(Effect::Transfer { .. }));
            if is_transfer || !self.mail.may_be_heard(number) {
                self.return_to_sender(effect, absence);
            } else {
                self.apply(now_ms, Event::Settled { effect }, out);
            }
            self.mail.forget(number);
        }
        self.begin_follow_ups(now_ms, out);
    }

    fn posted_to(&self, to: MatchId) -> Vec<(u64, Posted)> {
        let posted = self.game.part().posted().iter();
        posted
            .filter(|(_, posted)| posted.to == to)
            .map(|(number, posted)| (*number, *posted))
            .collect()
    }

    fn return_to_sender(&mut self, effect: EffectId, absence: Absence) {
        let error = match absence {
            Absence::Gone => "no_target",
            Absence::NoPost => "unavailable",
        };
        self.answer_mail(effect, error);
    }

    /// Puts the answer behind what waits already: of a flood of mail to nowhere there are as many as the outbox holds.
    fn answer_mail(&mut self, effect: EffectId, error: &str) {
        let Some(request) = self.game.part().outbox().get(&effect).and_then(Effect::request) else {
            return;
        };
        self.follow_ups.push_back(Event::Answer {
            request,
            effect: Some(effect),
            outcome: Err(error.into()),
        });
    }

    /// Sends what may be sent: `again`, also what was sent before and has no receipt.
    pub(super) fn send_mail(&mut self, now_ms: u64, again: bool, out: &mut Vec<RoomEffect>) {
        self.mail.is_due = false;
        // The row must say `running` first; what is said of players is said when the match may speak.
        if self.phase == Phase::Starting {
            return;
        }
        let part = self.game.part();
        let mut under_way: BTreeMap<MatchId, (u64, u64, usize)> = BTreeMap::new();
        for (number, Posted { effect, to }) in part.posted() {
            let (held, after, count) = under_way.entry(*to).or_insert((*number, 0, 0));
            let is_new = !self.mail.sent.contains(number);
            if *count < IN_FLIGHT_MAX
                && (is_new || again)
                && let Some(body) = part.outbox().get(effect).and_then(letter_body)
            {
                self.mail.sent.insert(*number);
                out.push(RoomEffect::Letter(Box::new(Letter {
                    from: part.start().match_id,
                    to: *to,
                    number: *number,
                    after: *after,
                    held: *held,
                    body,
                })));
            }
            *after = *number;
            *count += 1;
        }
        self.mail.again_at_ms = (!part.posted().is_empty()).then_some(now_ms + AGAIN_MS);
    }

    /// The post has carried a letter somewhere.
    pub fn carried(&mut self, number: u64) {
        *self.mail.carried.entry(number).or_default() += 1;
    }

    /// Where the post carried a letter, nobody heard it. Said at most once of each time that it was carried.
    pub fn not_heard(&mut self, number: u64) {
        if let Some(times) = self.mail.carried.get_mut(&number) {
            *times -= 1;
            if *times == 0 {
                self.mail.carried.remove(&number);
            }
        }
    }

    /// Says again what has no receipt: the way to a node was broken, or a match was found.
    pub fn mail_again(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        if !self.game.part().posted().is_empty() {
            self.send_mail(now_ms, true, out);
        }
    }

    /// Takes a letter, and says what has come so far.
    pub fn letter(&mut self, now_ms: u64, from: &NodeLife, letter: Letter, out: &mut Vec<RoomEffect>) {
        let sender = letter.from;
        let stamp = Stamp {
            from: sender,
            number: letter.number,
            held: letter.held,
        };
        let last = self.game.part().mark(sender).last;
        if self.verdict.is_none() && letter.number > last && letter.after <= last {
            match letter.body {
                LetterBody::Tell { data } => {
                    let sender = sender.to_string();
                    let stamp = Some(stamp);
                    self.apply(now_ms, Event::Receive { sender, data, stamp }, out);
                }
                LetterBody::Player(traveller) => {
                    let player = traveller.player;
                    let traveller = *traveller;
                    self.apply(now_ms, Event::Arrive { stamp, traveller }, out);
                    self.applied.refused = None;
                    self.expect(now_ms, player, Some(sender));
                }
            }
            self.run_follow_ups(now_ms, out);
        }
        let mark = self.game.part().mark(sender);
        out.push(RoomEffect::Receipt {
            to: from.clone(),
            receipt: Receipt {
                from: self.id(),
                to: sender,
                last: mark.last,
                refused: mark.refused.into_iter().collect(),
                is_over: self.verdict.is_some(),
                epoch: self.config.epoch,
            },
        });
    }

    /// A player sits whose connection has to follow.
    fn expect(&mut self, now_ms: u64, player: PlayerId, from: Option<MatchId>) {
        let part = self.game.part();
        let seat = part.seat_of(player);
        if let Some(seat) = seat.filter(|seat| part.seat(*seat).is_some_and(|seated| seated.is_unclaimed)) {
            self.mail.expected.insert(seat, now_ms + CLAIMED_WITHIN_MS);
            if let Some(from) = from {
                self.mail.arrivals.insert(seat, Arrival { from, at_ms: now_ms });
                self.mail.call_at_ms.get_or_insert(now_ms + CALL_EVERY_MS);
            }
        }
    }

    /// Lets go of letters that have arrived, and of those that never will.
    pub fn receipt(&mut self, now_ms: u64, from: &NodeLife, receipt: Receipt, out: &mut Vec<RoomEffect>) {
        for (number, Posted { effect, .. }) in self.posted_to(receipt.from) {
            if number > receipt.last {
                if receipt.is_over {
                    self.return_to_sender(effect, Absence::Gone);
                }
                continue;
            }
            self.mail.forget(number);
            if receipt.refused.contains(&number) {
                self.answer_mail(effect, "refused");
                continue;
            }
            let traveller = self.game.part().outbox().get(&effect).and_then(Effect::traveller);
            if traveller.is_some() {
                if self.mail.routes.len() >= ROUTES_MAX {
                    self.mail.routes.clear();
                }
                self.mail.routes.insert(receipt.from, (from.clone(), receipt.epoch));
            }
            self.apply(now_ms, Event::Settled { effect }, out);
            self.run_follow_ups(now_ms, out);
            if let Some(traveller) = traveller {
                self.tell_follower(now_ms, traveller.player, out);
            }
        }
        self.begin_follow_ups(now_ms, out);
        // What waited for room in the window goes now.
        self.send_mail(now_ms, false, out);
    }

    fn say_moved(&mut self, gateway: &NodeLife, stream: u64, req: u64, to: MatchId) {
        // Where that match is may be forgotten: this one went on elsewhere since. The gateway asks itself then, as it would ask an
        // owner that is wrong, and finds the way.
        let known = self.mail.routes.get(&to).cloned();
        let (owner, epoch) = known.unwrap_or_else(|| (gateway.clone(), 0));
        if let Some(index) = self.open_stream(gateway, stream) {
            self.streams[index].item(Item::Moved { req, to, owner, epoch });
        }
    }

    /// A player who was refused is back: whoever waits for them finds them here.
    pub(super) fn has_returned(&mut self, now_ms: u64, player: PlayerId, out: &mut Vec<RoomEffect>) {
        self.expect(now_ms, player, None);
        self.tell_follower(now_ms, player, out);
    }

    /// A transfer of this player is decided. They may have come back since, or be on another one.
    fn tell_follower(&mut self, now_ms: u64, player: PlayerId, out: &mut Vec<RoomEffect>) {
        if let Some(Follower {
            gateway,
            stream,
            request,
        }) = self.mail.followers.remove(&player)
        {
            self.follow(now_ms, &gateway, stream, request, out);
        }
    }

    /// The connection of a player who was transferred asks where they are. Returns false when this match does not know.
    pub(super) fn follow(
        &mut self,
        now_ms: u64,
        gateway: &NodeLife,
        stream: u64,
        request: JoinRequest,
        out: &mut Vec<RoomEffect>,
    ) -> bool {
        let player = request.player;
        let part = self.game.part();
        if let Some(seat) = part.seat_of(player).filter(|_| self.verdict.is_none()) {
            if let Some(index) = self.open_stream(gateway, stream) {
                self.sit_again(now_ms, index, seat, request, out);
            }
            return true;
        }
        if part.transfer_of(player).is_some() {
            let gateway = gateway.clone();
            let follower = Follower {
                gateway,
                stream,
                request,
            };
            self.mail.followers.insert(player, follower);
            return true;
        }
        if let Some(to) = part.forward_of(player) {
            self.say_moved(gateway, stream, request.req, to);
            return true;
        }
        false
    }

    /// What a player is to this match.
    pub fn standing_of(&self, player: PlayerId) -> Standing {
        let part = self.game.part();
        if self.verdict.is_none() && part.seat_of(player).is_some() {
            Standing::Seated
        } else if part.transfer_of(player).is_some() {
            Standing::OnTheWay
        } else {
            part.forward_of(player).map_or(Standing::Unknown, Standing::Went)
        }
    }

    /// When there is something to do for the mail.
    pub(super) fn mail_due_ms(&self) -> Option<u64> {
        let claimed = self.mail.expected.values().next().copied();
        let due = [self.mail.again_at_ms, self.mail.call_at_ms, claimed];
        due.into_iter().flatten().min()
    }

    /// Says again what has no receipt, and gives up waiting for connections.
    pub(super) fn wake_mail(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        if self.mail.again_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            self.send_mail(now_ms, true, out);
        }
        if self.mail.call_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            self.call_connections(now_ms, out);
        }
        while let Some((seat, _)) = self
            .mail
            .expected
            .first_key_value()
            .filter(|(_, by_ms)| now_ms >= **by_ms)
        {
            let seat = *seat;
            self.mail.expected.remove(&seat);
            let is_unclaimed = self.game.part().seat(seat).is_some_and(|seated| seated.is_unclaimed);
            if is_unclaimed && self.phase == Phase::Running {
                self.go_away(now_ms, seat, out);
            }
        }
    }

    /// Tells the nodes of those who have been here for a moment without a connection that they are.
    fn call_connections(&mut self, now_ms: u64, out: &mut Vec<RoomEffect>) {
        let part = self.game.part();
        let is_heard = self.phase == Phase::Running;
        self.mail.arrivals.retain(|seat, Arrival { from, at_ms }| {
            let seated = part.seat(*seat).filter(|seated| seated.is_unclaimed && is_heard);
            let Some(attachment) = seated.and_then(|seated| seated.attachment.as_ref()) else {
                return false;
            };
            if now_ms >= *at_ms + CALL_EVERY_MS {
                out.push(RoomEffect::Call {
                    to: NodeLife {
                        name: attachment.node.clone(),
                        generation: attachment.generation,
                    },
                    from: *from,
                    session: attachment.session,
                });
            }
            true
        });
        self.mail.call_at_ms = (!self.mail.arrivals.is_empty()).then_some(now_ms + CALL_EVERY_MS);
    }

    /// Until when a match that is over waits for receipts of its last letters.
    pub(super) fn mail_until_ms(&self, over_since_ms: u64) -> Option<u64> {
        let waits = !self.mail.finding.is_empty() || !self.game.part().posted().is_empty();
        waits.then_some(over_since_ms + AFTER_THE_END_MS)
    }
}

fn letter_body(effect: &Effect) -> Option<LetterBody> {
    match effect {
        Effect::Tell { data, .. } => Some(LetterBody::Tell { data: data.clone() }),
        _ => effect
            .traveller()
            .map(|traveller| LetterBody::Player(Box::new(traveller))),
    }
}

#[cfg(test)]
mod tests;
