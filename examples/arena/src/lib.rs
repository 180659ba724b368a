//! An endless arena, 20 times a second: movers chase pellets, and bots keep a lonely player company. Realtime, in bytes of its
//! own; all numbers little-endian (README.md beside this crate says the same for authors of clients).
//!
//! Client to match, byte 0 says what:
//! - `1` steer: `i8 dx, i8 dy`, a direction of length 127 (shorter is slower, 0 0 stops),
//! - `2` dash: a short burst in the direction of steering,
//! - `3` colour: `u8 hue`.
//!
//! Match to client:
//! - published key `w`, the whole world: `u8 version = 1, u16 width, u16 height, u8 count`, then for each mover
//!   `u32 seat, u16 x, u16 y, u8 hue, u8 flags (1 bot, 2 dashing), u16 score`, then `u8 pellets` and for each `u16 x, u16 y`;
//! - sent: `1, u32 seat, u16 score` (a mover has taken a pellet), `2, u32 a, u32 b` (two movers have bumped into each other).
//!
//! The rules are in `world.rs`, the bots in `bots.rs`; here is the server's side: seats, bytes, and when to publish.

mod bots;
mod world;

use rookery_sdk::prelude::*;

use world::{Happening, World};

/// Below this many movers the match plays some itself.
const MOVERS_MIN: usize = 4;
const BOT_NAMES: [&str; MOVERS_MIN] = ["Rook", "Jackdaw", "Magpie", "Crow"];
/// The version of the published world.
const WORLD_VERSION: u8 = 1;

struct Arena {
    world: World,
}

/// What a client may ask of its mover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Steer { dx: i8, dy: i8 },
    Dash,
    Colour { hue: u8 },
}

impl Match for Arena {
    fn manifest() -> Manifest {
        Manifest::binary("arena")
            .version(env!("CARGO_PKG_VERSION"))
            .players(1..=32)
            .spectators(100)
            .tick_hz(20)
            .grace_ms(10_000)
            .quick_play()
    }

    fn start(ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
        let mut arena = Self { world: World::new() };
        arena.world.scatter(&mut ctx.random());
        arena.keep_company(ctx);
        arena.publish(ctx);
        Ok(arena)
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, _data: Payload) -> Result<(), Refusal> {
        if player.role == Role::Player {
            self.world.enter(player.seat, false, &mut ctx.random());
            self.keep_company(ctx);
            self.publish(ctx);
        }
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, _reason: LeaveReason) {
        if self.world.exit(seat) {
            self.keep_company(ctx);
            self.publish(ctx);
        }
    }

    fn message(&mut self, _ctx: &mut Context, from: Seat, input: Payload) {
        match Input::decode(&input) {
            Some(Input::Steer { dx, dy }) => self.world.steer(from, dx, dy),
            Some(Input::Dash) => self.world.dash(from),
            Some(Input::Colour { hue }) => self.world.paint(from, hue),
            // A client of another version: the world goes on without its wish.
            None => {}
        }
    }

    fn tick(&mut self, ctx: &mut Context, elapsed_ms: u32) {
        let now_ms = ctx.now_ms();
        bots::think(&mut self.world, now_ms, &mut ctx.random());
        let mut happenings = Vec::new();
        let moved = self.world.step(now_ms, elapsed_ms, &mut ctx.random(), &mut happenings);
        for happening in happenings {
            ctx.send(To::Everyone, &encode_happening(happening));
        }
        if moved {
            self.publish(ctx);
        }
    }

    /// The whole view is one published value; said again, it overtakes whatever was missed.
    fn resync(&mut self, ctx: &mut Context, _seat: Seat) {
        self.publish(ctx);
    }
}

impl Arena {
    /// Adds bots while there are too few movers, and sends the youngest away as players come.
    fn keep_company(&mut self, ctx: &mut Context) {
        while self.world.movers().len() < MOVERS_MIN {
            let taken = self.world.movers().filter(|mover| mover.is_bot).count();
            let Some(seat) = ctx.add_bot(BOT_NAMES[taken % BOT_NAMES.len()]) else {
                return;
            };
            self.world.enter(seat, true, &mut ctx.random());
        }
        while self.world.movers().len() > MOVERS_MIN {
            let Some(bot) = self
                .world
                .movers()
                .filter(|mover| mover.is_bot)
                .map(|mover| mover.seat)
                .next_back()
            else {
                return;
            };
            self.world.exit(bot);
            ctx.kick(bot, "a player has come");
        }
    }

    fn publish(&self, ctx: &mut Context) {
        ctx.publish("w", &encode_world(&self.world));
    }
}

impl Input {
    fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [1, dx, dy] => Some(Self::Steer {
                dx: dx.cast_signed(),
                dy: dy.cast_signed(),
            }),
            [2] => Some(Self::Dash),
            [3, hue] => Some(Self::Colour { hue }),
            _ => None,
        }
    }
}

/// Counts fit a byte: at most 32 seats, and as many pellets as `world` has places for.
fn encode_world(world: &World) -> Vec<u8> {
    let (movers, pellets) = (world.movers(), world.pellets());
    let mut bytes = Vec::with_capacity(7 + 14 * movers.len() + 4 * pellets.len());
    bytes.push(WORLD_VERSION);
    bytes.extend_from_slice(&world::WIDTH.to_le_bytes());
    bytes.extend_from_slice(&world::HEIGHT.to_le_bytes());
    bytes.push(u8::try_from(movers.len()).unwrap_or(u8::MAX));
    for mover in movers.take(usize::from(u8::MAX)) {
        let (x, y) = mover.place.rounded();
        bytes.extend_from_slice(&mover.seat.0.to_le_bytes());
        bytes.extend_from_slice(&x.to_le_bytes());
        bytes.extend_from_slice(&y.to_le_bytes());
        bytes.push(mover.hue);
        bytes.push(u8::from(mover.is_bot) | u8::from(mover.is_dashing()) << 1);
        bytes.extend_from_slice(&mover.score.to_le_bytes());
    }
    bytes.push(u8::try_from(pellets.len()).unwrap_or(u8::MAX));
    for pellet in pellets.iter().take(usize::from(u8::MAX)) {
        let (x, y) = pellet.rounded();
        bytes.extend_from_slice(&x.to_le_bytes());
        bytes.extend_from_slice(&y.to_le_bytes());
    }
    bytes
}

fn encode_happening(happening: Happening) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9);
    match happening {
        Happening::Scored { seat, score } => {
            bytes.push(1);
            bytes.extend_from_slice(&seat.0.to_le_bytes());
            bytes.extend_from_slice(&score.to_le_bytes());
        }
        Happening::Bumped { a, b } => {
            bytes.push(2);
            bytes.extend_from_slice(&a.0.to_le_bytes());
            bytes.extend_from_slice(&b.0.to_le_bytes());
        }
    }
    bytes
}

rookery_sdk::export!(Arena);

#[cfg(test)]
mod tests;
