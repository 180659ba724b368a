//! How bots move: most of the time to the nearest pellet, sometimes after the leader, sometimes nowhere in particular. A
//! decision holds for a while, so that bots look as if they meant it.

use rookery_sdk::Seat;
use rookery_sdk::context::Random;

use crate::world::{Mover, Place, World};

const DECISION_MS_MIN: u32 = 250;
const DECISION_MS_SPREAD: u32 = 650;
/// Bots are a little slower than players, who should be able to win.
const BOT_PACE: f32 = 0.78;

/// Lets every bot whose last decision is over decide again.
pub(crate) fn think(world: &mut World, now_ms: u64, random: &mut Random<'_>) {
    let leader = leader(world);
    let pellets = world.pellets().to_vec();
    let mut dashing: Vec<Seat> = Vec::new();
    for bot in world
        .movers_mut()
        .filter(|mover| mover.is_bot && mover.decided_until_ms <= now_ms)
    {
        let goal = match random.below(10) {
            0 => None,
            1 | 2 => leader.filter(|(seat, _)| *seat != bot.seat).map(|(_, place)| place),
            _ => nearest(bot.place, &pellets),
        };
        match goal {
            Some(goal) => go(bot, goal),
            None => bot.head((random.unit() - 0.5) as f32, (random.unit() - 0.5) as f32),
        }
        if random.chance(1, 12) {
            dashing.push(bot.seat);
        }
        bot.decided_until_ms = now_ms + u64::from(DECISION_MS_MIN + random.below(DECISION_MS_SPREAD));
    }
    for seat in dashing {
        world.dash(seat);
    }
}

fn go(bot: &mut Mover, goal: Place) {
    let distance = bot.place.distance(goal);
    if distance > 0.0 {
        let (x, y) = ((goal.x - bot.place.x) / distance, (goal.y - bot.place.y) / distance);
        bot.head(x * BOT_PACE, y * BOT_PACE);
    }
}

fn nearest(from: Place, pellets: &[Place]) -> Option<Place> {
    pellets
        .iter()
        .copied()
        .min_by(|left, right| from.distance(*left).total_cmp(&from.distance(*right)))
}

fn leader(world: &World) -> Option<(Seat, Place)> {
    world
        .movers()
        .max_by_key(|mover| mover.score)
        .map(|mover| (mover.seat, mover.place))
}
