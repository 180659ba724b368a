//! One stream from a match to one gateway: which of its seats are there, what was sent last, and what waits for the next frame.
//!
//! Pure. The invariant: every frame names in `prev` the highest `seq` sent in this stream before it, and an output is in the
//! stream if and only if one of the stream's seats is in its audience. What is not an output (acknowledgements, answers) is
//! cumulative or asked for again by the gateway, so it may be lost with a frame.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::sync::Arc;

use rookery_protocol::client::Role;
use rookery_protocol::output::Output;
use rookery_protocol::peer::{DownFrame, HandedSeat, HandedStream, Item, MatchHead, Over};
use rookery_protocol::{MatchId, NodeLife, Seat};

/// A seat in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StreamSeat {
    role: Role,
    /// The join that brought it here, so that a repeated one is known.
    req: u64,
    /// The last `seq` before it came: a gateway that has no more than this has not heard that it sits.
    since: u64,
    /// Set when the seat was given up: it still hears what was said to it up to this `seq`, until the gateway has confirmed that.
    left_at: Option<u64>,
    /// The last of its inputs that was applied, set with it: an acknowledgement that was lost is said again.
    left_n: u64,
}

/// The owner's end of one stream.
#[derive(Debug)]
pub struct Stream {
    gateway: NodeLife,
    number: u64,
    seats: BTreeMap<Seat, StreamSeat>,
    /// The highest `seq` handed to the transport.
    sent: u64,
    /// The highest `seq` that the gateway said it has.
    confirmed: u64,
    /// The highest `seq` among `items`, or `sent`.
    collected: u64,
    items: Vec<Item>,
    acks: Vec<(Seat, u64, u64)>,
    /// What is said of single inputs goes before the acknowledgement that covers them.
    before_acks: Vec<Item>,
    head_due: bool,
    /// An empty frame is due, so that the gateway can compare `prev` with what it has.
    check_due: bool,
    /// The transport refused a frame: nothing is sent until it says that it has room.
    stalled: bool,
}

impl Stream {
    /// A stream without seats, at its beginning.
    pub fn new(gateway: NodeLife, number: u64) -> Self {
        Self {
            gateway,
            number,
            seats: BTreeMap::new(),
            sent: 0,
            confirmed: 0,
            collected: 0,
            items: Vec::new(),
            acks: Vec::new(),
            before_acks: Vec::new(),
            head_due: true,
            check_due: false,
            stalled: false,
        }
    }

    /// A stream that goes on from another owner, after what the gateway said it has. What is missing comes from the ring.
    pub fn handed(handed: HandedStream) -> Self {
        let seats = handed.seats.into_iter().map(|seat| {
            let HandedSeat {
                seat,
                role,
                req,
                since,
                left_at,
                left_n,
            } = seat;
            let state = StreamSeat {
                role,
                req,
                since,
                left_at,
                left_n,
            };
            (seat, state)
        });
        Self {
            seats: seats.collect(),
            sent: handed.confirmed,
            confirmed: handed.confirmed,
            collected: handed.confirmed,
            ..Self::new(handed.gateway, handed.number)
        }
    }

    /// The stream for the next owner.
    pub fn hand_over(&self) -> HandedStream {
        let seats = self.seats.iter().map(|(seat, state)| HandedSeat {
            seat: *seat,
            role: state.role,
            req: state.req,
            since: state.since,
            left_at: state.left_at,
            left_n: state.left_n,
        });
        HandedStream {
            gateway: self.gateway.clone(),
            number: self.number,
            confirmed: self.confirmed,
            seats: seats.collect(),
        }
    }

    pub fn gateway(&self) -> &NodeLife {
        &self.gateway
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Seats that are here now.
    pub fn seats(&self) -> impl Iterator<Item = Seat> + '_ {
        self.seats
            .iter()
            .filter(|(_, seat)| seat.left_at.is_none())
            .map(|(number, _)| *number)
    }

    pub fn has(&self, seat: Seat) -> bool {
        self.seats.get(&seat).is_some_and(|seat| seat.left_at.is_none())
    }

    /// Whether this seat came by this very request.
    pub fn has_join(&self, seat: Seat, req: u64) -> bool {
        self.seats
            .get(&seat)
            .is_some_and(|seat| seat.left_at.is_none() && seat.req == req)
    }

    /// From now on the seat's outputs go this way.
    pub fn seat(&mut self, seat: Seat, role: Role, req: u64, since: u64) {
        self.seats.insert(
            seat,
            StreamSeat {
                role,
                req,
                since,
                left_at: None,
                left_n: 0,
            },
        );
    }

    /// Whether a gateway that has everything up to `last` has not heard yet that the seat is here.
    pub fn is_news(&self, seat: Seat, last: u64) -> bool {
        self.seats.get(&seat).is_some_and(|seat| last <= seat.since)
    }

    /// Seats that are no longer here and are owed what they were told last, each with the last of its inputs that was applied.
    pub fn left(&self) -> impl Iterator<Item = (Seat, u64)> + '_ {
        self.seats
            .iter()
            .filter(|(_, seat)| seat.left_at.is_some())
            .map(|(number, seat)| (*number, seat.left_n))
    }

    /// The seat was given up, and what it was told until `seq` is still owed. `last_n` is the last of its inputs that was applied.
    pub fn give_up(&mut self, seat: Seat, seq: u64, last_n: u64) {
        if seq <= self.confirmed || (!self.stalled && self.collected <= self.confirmed) {
            self.seats.remove(&seat);
        } else if let Some(seat) = self.seats.get_mut(&seat)
            && seat.left_at.is_none()
        {
            (seat.left_at, seat.left_n) = (Some(seq), last_n);
        }
    }

    /// The seat is elsewhere, or its socket is gone: it is owed nothing here.
    pub fn remove(&mut self, seat: Seat) {
        self.seats.remove(&seat);
    }

    /// Whether one of the stream's seats is in the output's audience.
    pub fn hears(&self, output: &Output) -> bool {
        self.seats.iter().any(|(number, seat)| {
            seat.left_at.is_none_or(|left_at| output.seq <= left_at) && output.audience.includes(*number, seat.role)
        })
    }

    /// Takes an output if it belongs here. Outputs come in `seq` order.
    pub fn collect(&mut self, output: &Arc<Output>) {
        if !self.stalled && self.hears(output) {
            self.collected = output.seq;
            self.items.push(Item::Output(Arc::clone(output)));
        }
    }

    /// Takes something that is not an output.
    pub fn item(&mut self, item: Item) {
        if !self.stalled {
            self.items.push(item);
        }
    }

    /// The place of whatever is said next, for [`Stream::item_at`].
    pub fn place(&self) -> usize {
        self.items.len()
    }

    /// Takes something that is not an output and goes before what was said since.
    pub fn item_at(&mut self, place: usize, item: Item) {
        if !self.stalled {
            self.items.insert(place.min(self.items.len()), item);
        }
    }

    /// Takes what became of an input; it goes before all acknowledgements.
    pub fn input_failed(&mut self, item: Item) {
        if !self.stalled {
            self.before_acks.push(item);
        }
    }

    /// Takes the end of the match, as if it were an output with this `seq`: a gateway that misses it asks for it again.
    pub fn finish(&mut self, over: Over, seq: u64) {
        if !self.stalled {
            self.collected = self.collected.max(seq);
            self.items.push(Item::Over(over));
        }
    }

    /// Inputs of the seat up to `n` are in outputs up to `seq`. The newest for each seat counts; it leads its frame.
    pub fn acknowledge(&mut self, seat: Seat, n: u64, seq: u64) {
        match self.acks.iter_mut().find(|(acked, ..)| *acked == seat) {
            Some(ack) => *ack = (seat, n, seq),
            None => self.acks.push((seat, n, seq)),
        }
    }

    /// The connection broke: the gateway is to compare what it has with what was sent.
    pub fn check(&mut self) {
        self.check_due = true;
    }

    /// The gateway has everything up to `seq`.
    pub fn confirm(&mut self, seq: u64) {
        self.confirmed = self.confirmed.max(seq.min(self.sent));
        let confirmed = self.confirmed;
        // What was said last to a seat that left may be lower than the match's last output, which was for others.
        let settled = !self.stalled && self.collected <= confirmed;
        self.seats
            .retain(|_, seat| seat.left_at.is_none_or(|left_at| !settled && left_at > confirmed));
    }

    /// Whether the gateway has said that it has all that was sent.
    pub fn is_settled(&self) -> bool {
        !self.stalled && self.items.is_empty() && self.acks.is_empty() && self.confirmed >= self.sent
    }

    /// Nobody is here, and nothing is owed.
    pub fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.items.is_empty() && self.acks.is_empty() && !self.check_due
    }

    /// Starts over after `last`: what waits is dropped, since the ring has it. The caller collects from the ring next.
    pub fn rewind(&mut self, last: u64) {
        self.items.clear();
        self.before_acks.clear();
        self.sent = last;
        self.collected = last;
        self.stalled = false;
        self.head_due = true;
        self.check_due = true;
    }

    /// From where the ring has to serve a stream that was stalled.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// What was missed is gone: the stream goes on from `seq`.
    pub fn reset(&mut self, seq: u64) {
        self.collected = self.collected.max(seq);
    }

    /// The next frame, if there is anything to say. The caller reports a refusal of the transport by [`Stream::refused`].
    pub fn take_frame(&mut self, target: MatchId, epoch: u64, head: &Arc<MatchHead>) -> Option<DownFrame> {
        if self.stalled
            || (self.items.is_empty() && self.acks.is_empty() && self.before_acks.is_empty() && !self.check_due)
        {
            return None;
        }
        let items = if self.acks.is_empty() && self.before_acks.is_empty() {
            std::mem::take(&mut self.items)
        } else {
            let mut items = Vec::with_capacity(self.before_acks.len() + self.acks.len() + self.items.len());
            items.append(&mut self.before_acks);
            items.extend(self.acks.drain(..).map(|(seat, n, seq)| Item::Ack { seat, n, seq }));
            items.append(&mut self.items);
            items
        };
        let frame = DownFrame {
            target,
            stream: self.number,
            epoch,
            prev: self.sent,
            last: self.collected,
            head: std::mem::take(&mut self.head_due).then(|| Arc::clone(head)),
            items,
        };
        self.sent = self.collected;
        self.check_due = false;
        Some(frame)
    }

    /// The transport had no room for the frame that began after `prev`.
    pub fn refused(&mut self, prev: u64) {
        self.sent = prev;
        self.collected = prev;
        self.head_due = true;
        self.stalled = true;
    }
}

#[cfg(test)]
mod tests {
    use rookery_protocol::output::{Audience, Body};

    use super::*;

    fn output(seq: u64, audience: Audience) -> Arc<Output> {
        Arc::new(Output {
            seq,
            at_ms: 0,
            audience,
            body: Body::Kicked { reason: String::new() },
        })
    }

    fn stream() -> Stream {
        Stream::new(
            NodeLife {
                name: "a".parse().unwrap(),
                generation: 1,
            },
            1,
        )
    }

    fn frame(stream: &mut Stream) -> Option<DownFrame> {
        let head = Arc::new(MatchHead {
            module: "m".into(),
            codec: rookery_protocol::client::PayloadCodec::Json,
            tick_hz: 0,
        });
        stream.take_frame(MatchId::from_u128(1), 1, &head)
    }

    #[test]
    fn frames_name_the_seq_before_them_though_the_numbering_is_not_dense() {
        let mut stream = stream();
        stream.seat(1, Role::Player, 1, 0);
        stream.collect(&output(1, Audience::Everyone));
        stream.collect(&output(2, Audience::One(9)));
        stream.collect(&output(3, Audience::One(1)));
        let first = frame(&mut stream).unwrap();
        assert_eq!((first.prev, first.last, first.items.len()), (0, 3, 2));
        assert!(first.head.is_some());
        stream.collect(&output(7, Audience::Except(9)));
        let second = frame(&mut stream).unwrap();
        assert_eq!((second.prev, second.last), (3, 7));
        assert!(second.head.is_none());
        assert!(frame(&mut stream).is_none());
    }

    #[test]
    fn a_seat_that_left_is_owed_what_was_said_to_it_until_confirmed() {
        let mut stream = stream();
        stream.seat(1, Role::Player, 1, 0);
        stream.collect(&output(4, Audience::One(1)));
        frame(&mut stream).unwrap();
        stream.give_up(1, 4, 0);
        assert!(!stream.has(1));
        assert!(stream.hears(&output(4, Audience::One(1))));
        assert!(!stream.hears(&output(5, Audience::Everyone)));
        assert!(!stream.is_idle());
        stream.confirm(4);
        assert!(stream.is_idle());
    }

    #[test]
    fn a_seat_that_left_is_owed_nothing_once_all_that_was_sent_is_confirmed() {
        let mut stream = stream();
        stream.seat(1, Role::Player, 1, 0);
        stream.collect(&output(4, Audience::One(1)));
        // Output 5 tells the others that it left, and is not in this stream.
        stream.give_up(1, 5, 0);
        frame(&mut stream).unwrap();
        assert!(!stream.is_idle());
        stream.confirm(4);
        assert!(stream.is_idle());
    }

    #[test]
    fn a_refused_frame_is_sent_again_from_the_ring() {
        let mut stream = stream();
        stream.seat(1, Role::Player, 1, 0);
        let said: Vec<_> = (1..=3).map(|seq| output(seq, Audience::Everyone)).collect();
        stream.collect(&said[0]);
        let refused = frame(&mut stream).unwrap();
        stream.refused(refused.prev);
        stream.collect(&said[1]);
        assert!(frame(&mut stream).is_none());
        stream.rewind(stream.sent());
        said.iter().for_each(|output| stream.collect(output));
        let again = frame(&mut stream).unwrap();
        assert_eq!((again.prev, again.last, again.items.len()), (0, 3, 3));
    }

    #[test]
    fn acknowledgements_lead_their_frame_and_the_newest_counts() {
        let mut stream = stream();
        stream.seat(1, Role::Player, 1, 0);
        stream.collect(&output(1, Audience::Everyone));
        stream.acknowledge(1, 1, 1);
        stream.acknowledge(1, 2, 1);
        let frame = frame(&mut stream).unwrap();
        assert_eq!(frame.items[0], Item::Ack { seat: 1, n: 2, seq: 1 });
        assert_eq!(frame.items.len(), 2);
    }
}
