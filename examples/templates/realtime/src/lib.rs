//! Tag, 20 times a second: whoever is it runs after the others. Realtime, in MessagePack.
//!
//! A client sends an [`Input`]. It hears a [`Field`] as the published key `field` after each tick that changed it, and a [`Tagged`] for
//! each tag. All of them are maps with these field names.

use std::collections::BTreeMap;

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// The field's sides, in steps.
const SIDE: f32 = 100.0;
const STEPS_A_SECOND: f32 = 20.0;
/// Nearer than this is a touch.
const REACH: f32 = 3.0;
/// For this long after a tag nobody is tagged, so that two do not tag each other at every tick.
const REST_MS: u64 = 1_000;

/// The whole match. A `BTreeMap` and not a `HashMap`: the order in which movers are looked at is part of the rules, and a match that
/// is played again must come out the same.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Game {
    movers: BTreeMap<Seat, Mover>,
    it: Option<Seat>,
    rest_until_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mover {
    x: f32,
    y: f32,
    /// Where to, at most 1 long.
    heading: (f32, f32),
    tags: u32,
}

/// What a client sends.
#[derive(Debug, Serialize, Deserialize)]
enum Input {
    /// A direction at most 1 long; 0 0 stops.
    Steer { x: f32, y: f32 },
}

/// What everybody sees.
#[derive(Debug, Serialize, Deserialize)]
struct Field {
    it: Option<Seat>,
    movers: Vec<(Seat, f32, f32)>,
}

/// What everybody hears of once.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tagged {
    by: Seat,
    seat: Seat,
}

impl Match for Game {
    rookery_sdk::serde_state!(msgpack);

    fn manifest() -> Manifest {
        Manifest::binary(env!("CARGO_PKG_NAME"))
            .version(env!("CARGO_PKG_VERSION"))
            .players(1..=16)
            .spectators(100)
            .tick_hz(20)
            .quick_play()
    }

    fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
        Ok(Self::default())
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, _data: Payload) -> Result<(), Refusal> {
        if player.role != Role::Player {
            return Ok(());
        }
        let mut somewhere = || ctx.random().unit() as f32 * SIDE;
        let mover = Mover {
            x: somewhere(),
            y: somewhere(),
            heading: (0.0, 0.0),
            tags: 0,
        };
        self.movers.insert(player.seat, mover);
        self.it.get_or_insert(player.seat);
        self.publish(ctx);
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, _reason: LeaveReason) {
        if self.movers.remove(&seat).is_none() {
            return;
        }
        if self.it == Some(seat) {
            let left: Vec<Seat> = self.movers.keys().copied().collect();
            self.it = ctx.random().pick(&left).copied();
        }
        self.publish(ctx);
    }

    fn message(&mut self, _ctx: &mut Context, from: Seat, input: Payload) {
        // What cannot be read is a client of another version: the game goes on without its wish.
        if let (Ok(Input::Steer { x, y }), Some(mover)) = (input.msgpack(), self.movers.get_mut(&from)) {
            mover.steer(x, y);
        }
    }

    fn tick(&mut self, ctx: &mut Context, elapsed_ms: u32) {
        let seconds = elapsed_ms as f32 / 1_000.0;
        let mut moved = false;
        for mover in self.movers.values_mut() {
            moved |= mover.step(seconds);
        }
        if let Some(tagged) = self.tag(ctx.now_ms()) {
            ctx.send_msgpack(To::Everyone, &tagged);
            moved = true;
        }
        // Nothing is said of a tick in which nothing happened.
        if moved {
            self.publish(ctx);
        }
    }
}

impl Mover {
    fn steer(&mut self, x: f32, y: f32) {
        let length = x.hypot(y);
        // The client's numbers may be anything, also none.
        if length.is_finite() {
            let scale = length.max(1.0);
            self.heading = (x / scale, y / scale);
        }
    }

    /// Goes on, and says whether it moved.
    fn step(&mut self, seconds: f32) -> bool {
        let was = (self.x, self.y);
        self.x = (self.x + self.heading.0 * STEPS_A_SECOND * seconds).clamp(0.0, SIDE);
        self.y = (self.y + self.heading.1 * STEPS_A_SECOND * seconds).clamp(0.0, SIDE);
        was != (self.x, self.y)
    }

    fn is_near(&self, other: &Self) -> bool {
        (self.x - other.x).hypot(self.y - other.y) < REACH
    }
}

impl Game {
    /// Lets the one who is it touch the first one within reach.
    fn tag(&mut self, now_ms: u64) -> Option<Tagged> {
        let by = self.it.filter(|_| now_ms >= self.rest_until_ms)?;
        let hunter = self.movers.get(&by)?;
        let (seat, _) = self
            .movers
            .iter()
            .find(|(seat, mover)| **seat != by && mover.is_near(hunter))?;
        let seat = *seat;
        self.it = Some(seat);
        self.rest_until_ms = now_ms + REST_MS;
        if let Some(hunter) = self.movers.get_mut(&by) {
            hunter.tags += 1;
        }
        Some(Tagged { by, seat })
    }

    /// A slow client skips to the newest field, and who joins or comes back gets the current one.
    fn publish(&self, ctx: &mut Context) {
        let movers = self.movers.iter().map(|(seat, mover)| (*seat, mover.x, mover.y));
        let field = Field {
            it: self.it,
            movers: movers.collect(),
        };
        ctx.publish_msgpack("field", &field);
    }
}

rookery_sdk::export!(Game);

#[cfg(test)]
mod tests;
