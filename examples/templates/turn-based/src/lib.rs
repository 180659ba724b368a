//! Three in a row, for two players. Turn-based, in JSON.
//!
//! A client sends `{"cell": 0}` to `{"cell": 8}`. It hears the published key `board`, `{"cells": [seat or null; 9], "turn": seat or
//! null}`, and, when the rules forbid what it sent, `{"error": why}` for itself alone. The outcome is `{"winner": seat or null, "why"}`.

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// The only timer: whoever is to move has thought too long.
const TURN: u32 = 1;
const TURN_MS: u32 = 30_000;

const ROWS: [[usize; 3]; 8] = [
    [0, 1, 2],
    [3, 4, 5],
    [6, 7, 8],
    [0, 3, 6],
    [1, 4, 7],
    [2, 5, 8],
    [0, 4, 8],
    [2, 4, 6],
];

/// The whole match. What serde can write, `serde_state!` saves and loads.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Game {
    cells: [Option<Seat>; 9],
    /// The first one begins.
    players: Vec<Seat>,
    turn: Option<Seat>,
}

/// What a client sends.
#[derive(Debug, Serialize, Deserialize)]
struct Move {
    cell: usize,
}

/// What everybody sees.
#[derive(Debug, Serialize)]
struct Board<'a> {
    cells: &'a [Option<Seat>; 9],
    turn: Option<Seat>,
}

/// How it ended.
#[derive(Debug, Serialize)]
struct Outcome {
    winner: Option<Seat>,
    why: &'static str,
}

/// Why a move changed nothing.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Illegal {
    NotAMove,
    NotYourTurn,
    Taken,
}

impl Match for Game {
    rookery_sdk::serde_state!();

    fn manifest() -> Manifest {
        Manifest::json(env!("CARGO_PKG_NAME"))
            .version(env!("CARGO_PKG_VERSION"))
            .players(2..=2)
            .spectators(20)
            .quick_play()
    }

    fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
        Ok(Self::default())
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, _data: Payload) -> Result<(), Refusal> {
        if player.role != Role::Player {
            return Ok(());
        }
        self.players.push(player.seat);
        if self.players.len() == 2 {
            ctx.set_joinable(false);
            let first = ctx.random().below(2) as usize;
            self.give_turn(ctx, self.players[first]);
        }
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, _reason: LeaveReason) {
        self.players.retain(|player| *player != seat);
        // Who leaves before there are two leaves an open match; afterwards the other one has won.
        if self.turn.is_some() && self.players.len() == 1 {
            self.finish(ctx, Some(self.players[0]), "left");
        }
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let placed = input
            .json::<Move>()
            .map_err(|_| Illegal::NotAMove)
            .and_then(|Move { cell }| self.place(from, cell));
        match placed {
            Err(illegal) => ctx.send_json(from, &json!({ "error": illegal })),
            Ok(()) if self.has_row(from) => self.finish(ctx, Some(from), "row"),
            Ok(()) if self.cells.iter().all(Option::is_some) => self.finish(ctx, None, "full"),
            Ok(()) => self.give_turn(ctx, self.other(from)),
        }
    }

    fn timer(&mut self, ctx: &mut Context, id: u32) {
        if let (TURN, Some(slow)) = (id, self.turn) {
            self.finish(ctx, Some(self.other(slow)), "time");
        }
    }
}

impl Game {
    /// Takes a cell, or says why not.
    fn place(&mut self, seat: Seat, cell: usize) -> Result<(), Illegal> {
        if self.turn != Some(seat) {
            return Err(Illegal::NotYourTurn);
        }
        match self.cells.get_mut(cell) {
            None => Err(Illegal::NotAMove),
            Some(Some(_)) => Err(Illegal::Taken),
            Some(free) => {
                *free = Some(seat);
                Ok(())
            }
        }
    }

    fn has_row(&self, seat: Seat) -> bool {
        ROWS.iter()
            .any(|row| row.iter().all(|cell| self.cells[*cell] == Some(seat)))
    }

    fn other(&self, seat: Seat) -> Seat {
        let mut others = self.players.iter().filter(|player| **player != seat);
        others.next().copied().unwrap_or(seat)
    }

    fn give_turn(&mut self, ctx: &mut Context, seat: Seat) {
        self.turn = Some(seat);
        ctx.set_timer(TURN, TURN_MS);
        self.publish(ctx);
    }

    fn finish(&mut self, ctx: &mut Context, winner: Option<Seat>, why: &'static str) {
        self.turn = None;
        ctx.cancel_timer(TURN);
        self.publish(ctx);
        ctx.finish_json(&Outcome { winner, why });
    }

    /// A published value is state: who joins, watches or comes back gets the newest one without being asked for it.
    fn publish(&self, ctx: &mut Context) {
        ctx.publish_json(
            "board",
            &Board {
                cells: &self.cells,
                turn: self.turn,
            },
        );
    }
}

rookery_sdk::export!(Game);

#[cfg(test)]
mod tests;
