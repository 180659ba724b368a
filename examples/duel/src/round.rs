//! What comes of two moves made at once. Pure: no seats, no time, no server.

use serde::{Deserialize, Serialize};

const HEALS: u32 = 3;

/// What a duellist does in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Move {
    /// Hurts by 2, and by 3 who heals.
    Strike,
    /// Stops a strike, and hurts the striker by 1.
    Guard,
    /// Gives 2 health back, unless struck; three times in a duel.
    Heal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fighter {
    pub(crate) health: i32,
    pub(crate) heals_left: u32,
}

impl Fighter {
    pub(crate) fn new(health: i32) -> Self {
        Self {
            health,
            heals_left: HEALS,
        }
    }

    /// What this fighter's move and the other's mean for this fighter.
    fn suffer(&mut self, own: Move, other: Move, health_max: i32) {
        let change = match (own, other) {
            (Move::Strike, Move::Strike) => -2,
            (Move::Strike, Move::Guard) => -1,
            (Move::Heal, Move::Strike) => -3,
            (Move::Heal, Move::Guard | Move::Heal) => 2,
            (Move::Strike, Move::Heal) | (Move::Guard, _) => 0,
        };
        if own == Move::Heal {
            self.heals_left = self.heals_left.saturating_sub(1);
        }
        self.health = (self.health + change).min(health_max);
    }
}

/// Plays both moves at once.
pub(crate) fn clash(left: &mut Fighter, left_move: Move, right: &mut Fighter, right_move: Move, health_max: i32) {
    left.suffer(left_move, right_move, health_max);
    right.suffer(right_move, left_move, health_max);
}
