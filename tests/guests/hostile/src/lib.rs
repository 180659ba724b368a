//! A match that misbehaves on request, to show that a node bears it. A JSON object says what to do and in which call:
//! `{"do": "loop", "in": "tick"}`. In the parameters it is armed from the start, in a message from then on (`"in": "message"`, or
//! no `in`, means at once); `{"do": "calm"}` disarms everything. Other messages come back to their sender, so that a test sees whether
//! the match still lives.

use std::hint::black_box;

use rookery_sdk::prelude::*;
use serde::Deserialize;

struct Hostile {
    armed: Vec<Order>,
    match_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Order {
    #[serde(rename = "do")]
    deed: Deed,
    #[serde(rename = "in", default)]
    call: Call,
    /// How long `slow` is: rounds of a multiplication.
    #[serde(default = "default_rounds")]
    rounds: u32,
}

fn default_rounds() -> u32 {
    2_000_000
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Deed {
    /// Never returns.
    Loop,
    /// Takes memory until there is none; of each piece it touches little, so that memory runs out before time.
    Grow,
    /// Recurses with all its state in the engine's stack.
    Recurse,
    /// Recurses with its state in the guest's own memory.
    Overflow,
    /// Calls the host without end.
    Flood,
    /// Logs without end.
    Logflood,
    /// Sends 32 MiB at once.
    Huge,
    /// Panics.
    Trap,
    /// Sends what is not JSON.
    BadJson,
    /// Refuses, where a call can refuse.
    Refuse,
    /// Computes for a while, and returns.
    Slow,
    /// Disarms.
    Calm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Start,
    Join,
    Leave,
    #[default]
    Message,
    Tick,
    Timer,
    Resync,
    Signal,
    Receive,
    Answer,
}

impl Match for Hostile {
    fn manifest() -> Manifest {
        Manifest::json("hostile").players(1..=100).spectators(10).tick_hz(20)
    }

    fn start(ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        let mut hostile = Self {
            armed: Vec::new(),
            match_id: setup.match_id.clone(),
        };
        if let Some(order) = setup.params.json::<Option<Order>>()? {
            hostile.arm(ctx, order);
        }
        hostile.act(ctx, Call::Start)?;
        Ok(hostile)
    }

    fn join(&mut self, ctx: &mut Context, _player: &Player, _data: Payload) -> Result<(), Refusal> {
        self.act(ctx, Call::Join)
    }

    fn leave(&mut self, ctx: &mut Context, _seat: Seat, _reason: LeaveReason) {
        let _ = self.act(ctx, Call::Leave);
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        match input.json::<Order>() {
            Ok(Order { deed: Deed::Calm, .. }) => self.armed.clear(),
            Ok(Order {
                call: Call::Message,
                deed,
                rounds,
            }) => {
                let _ = perform(ctx, deed, rounds);
            }
            Ok(order) => self.arm(ctx, order),
            Err(_) => {
                let _ = self.act(ctx, Call::Message);
            }
        }
        ctx.send(from, &input);
    }

    fn tick(&mut self, ctx: &mut Context, _elapsed_ms: u32) {
        let _ = self.act(ctx, Call::Tick);
    }

    fn timer(&mut self, ctx: &mut Context, _id: u32) {
        let _ = self.act(ctx, Call::Timer);
    }

    fn receive(&mut self, ctx: &mut Context, _sender: &str, _data: Payload) {
        let _ = self.act(ctx, Call::Receive);
    }

    fn answer(&mut self, ctx: &mut Context, _request: u32, _outcome: Result<Vec<Entry>, Failure>) {
        let _ = self.act(ctx, Call::Answer);
    }

    fn signal(&mut self, ctx: &mut Context, _signal: Signal) {
        let _ = self.act(ctx, Call::Signal);
    }

    fn resync(&mut self, ctx: &mut Context, _seat: Seat) {
        let _ = self.act(ctx, Call::Resync);
    }
}

impl Hostile {
    /// Keeps an order, and sees to it that calls which come only when asked for do come.
    fn arm(&mut self, ctx: &mut Context, order: Order) {
        self.armed.push(order);
        match order.call {
            Call::Timer => ctx.set_timer(1, 50),
            Call::Receive => ctx.mail().tell(1, &self.match_id, b"null"),
            Call::Answer => ctx.storage("hostile").read(1, "nothing"),
            Call::Start | Call::Join | Call::Leave | Call::Message | Call::Tick | Call::Resync | Call::Signal => {}
        }
    }

    /// Does what is armed for this call.
    fn act(&self, ctx: &mut Context, call: Call) -> Result<(), Refusal> {
        self.armed
            .iter()
            .filter(|order| order.call == call)
            .try_for_each(|order| perform(ctx, order.deed, order.rounds))
    }
}

fn perform(ctx: &mut Context, deed: Deed, rounds: u32) -> Result<(), Refusal> {
    match deed {
        Deed::Loop => loop {
            black_box(());
        },
        Deed::Grow => {
            let mut held = Vec::new();
            loop {
                let mut piece = Vec::with_capacity(1024 * 1024);
                piece.push(1u8);
                held.push(black_box(piece));
            }
        }
        Deed::Recurse => {
            black_box(recurse(black_box(1)));
        }
        Deed::Overflow => {
            black_box(overflow(black_box(1)));
        }
        Deed::Flood => loop {
            ctx.send(To::Everyone, b"0");
        },
        Deed::Logflood => loop {
            ctx.info("flood");
        },
        Deed::Huge => {
            let mut text = vec![b'x'; 32 * 1024 * 1024];
            if let [first, .., last] = text.as_mut_slice() {
                (*first, *last) = (b'"', b'"');
            }
            ctx.send(To::Everyone, &text);
        }
        Deed::Trap => panic!("a trap on purpose"),
        Deed::BadJson => ctx.send(To::Everyone, b"{not json"),
        Deed::Refuse => return Err("refused on purpose".into()),
        Deed::Slow => {
            black_box((0..rounds).fold(1u32, |sum, round| black_box(sum.wrapping_mul(31).wrapping_add(round))));
        }
        Deed::Calm => {}
    }
    Ok(())
}

/// Each call needs the result of the next one, so that none can be turned into a loop.
fn recurse(depth: u64) -> u64 {
    if depth == 0 {
        0
    } else {
        recurse(depth.wrapping_add(2)).wrapping_mul(depth | 1).rotate_left(7) ^ depth
    }
}

/// The array has an address, and so a place in the guest's memory.
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == 0 {
        0
    } else {
        overflow(depth.wrapping_add(2)).wrapping_add(frame[(depth % 64) as usize])
    }
}

rookery_sdk::export!(Hostile);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_carried_out_in_the_call_that_it_names_and_in_no_other() {
        let mut host = mock::Host::<Hostile>::start(json!({ "do": "refuse", "in": "join" })).unwrap();
        assert!(host.join("ana").is_err());
        assert!(mock::Host::<Hostile>::start(json!({ "do": "refuse", "in": "start" })).is_err());

        let mut host = mock::Host::<Hostile>::start(json!(null)).unwrap();
        let ana = host.join("ana").unwrap();
        host.message(ana, json!({ "do": "slow", "rounds": 10 }));
        host.message(ana, json!("hello"));
        assert_eq!(host.heard_json(ana).last(), Some(&json!("hello")));
        host.message(ana, json!({ "do": "trap", "in": "tick" }));
        host.message(ana, json!({ "do": "calm" }));
        host.tick();
    }

    #[test]
    #[should_panic(expected = "a trap on purpose")]
    fn a_trap_in_a_timer_comes_by_itself() {
        let mut host = mock::Host::<Hostile>::start(json!({ "do": "trap", "in": "timer" })).unwrap();
        host.advance(60);
    }
}
