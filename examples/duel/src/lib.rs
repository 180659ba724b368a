//! A duel: two players choose in secret, both choices are shown at once, until one has no health left. Turn-based, in JSON.
//!
//! A client sends `{"move": "strike" | "guard" | "heal"}`. What it hears has an `event`: `view` (everything, after a join or a
//! gap), `begin`, `chosen` (who, not what), `round` (both moves and what came of them), or, to the sender of an input that the
//! rules forbid and to nobody else, `error`. The outcome is `{"winner": seat or null, "why", "health"}`.
//!
//! The rules of a round are in `round.rs`, which has never heard of the server; here is who sits where, and time.

mod round;

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

use round::{Fighter, Move, clash};

/// The only timer: the turn is over, whoever has not chosen.
const TURN: u32 = 1;
/// Two may be a bad connection, three in a row is somebody who went away.
const MISSED_IN_A_ROW_MAX: u32 = 3;

/// What the creator may ask for.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    /// Shown in lists, to find a duel of one's liking.
    mode: String,
    health: i32,
    turn_ms: u32,
    rounds_max: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            mode: "classic".to_owned(),
            health: 10,
            turn_ms: 20_000,
            rounds_max: 30,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Duel {
    health_max: i32,
    turn_ms: u32,
    rounds_max: u32,
    /// The round that is being chosen for, from 1; 0 until there are two.
    round: u32,
    duellists: Vec<Duellist>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Duellist {
    seat: Seat,
    name: String,
    fighter: Fighter,
    choice: Option<Move>,
    missed_in_a_row: u32,
}

#[derive(Deserialize)]
struct Input {
    #[serde(rename = "move")]
    chosen: Move,
}

/// Why an input changed nothing.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Illegal {
    NotAMove,
    NotBegun,
    OnlyWatching,
    AlreadyChosen,
    NoHealsLeft,
}

impl Match for Duel {
    rookery_sdk::serde_state!();

    fn manifest() -> Manifest {
        Manifest::json("duel")
            .version(env!("CARGO_PKG_VERSION"))
            .players(2..=2)
            .spectators(50)
            .grace_ms(30_000)
            .durability(Durability::Replicated)
            .quick_play()
    }

    fn start(ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        let params = setup.params.json::<Option<Params>>()?.unwrap_or_default();
        if !(1..=1_000).contains(&params.health) || params.turn_ms < 100 || params.rounds_max == 0 {
            return Err("health is 1 to 1000, turn_ms at least 100, rounds_max at least 1".into());
        }
        ctx.set_label(&[("mode", &params.mode)]);
        Ok(Self {
            health_max: params.health,
            turn_ms: params.turn_ms,
            rounds_max: params.rounds_max,
            round: 0,
            duellists: Vec::new(),
        })
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, _data: Payload) -> Result<(), Refusal> {
        if player.role != Role::Player {
            self.send_view(ctx, player.seat);
            return Ok(());
        }
        if self.duellists.len() == 2 {
            return Err("two are fighting already".into());
        }
        self.duellists.push(Duellist {
            seat: player.seat,
            name: player.name.clone(),
            fighter: Fighter::new(self.health_max),
            choice: None,
            missed_in_a_row: 0,
        });
        self.send_view(ctx, player.seat);
        if self.duellists.len() == 2 {
            ctx.set_joinable(false);
            self.begin_round(ctx);
            let duellists: Vec<_> = self.duellists.iter().map(Duellist::view).collect();
            ctx.send_json(
                To::Everyone,
                &json!({ "event": "begin", "round": self.round, "duellists": duellists, "turn_ms": self.turn_ms }),
            );
        }
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, _reason: LeaveReason) {
        let before = self.duellists.len();
        self.duellists.retain(|duellist| duellist.seat != seat);
        if before == 2 && self.duellists.len() == 1 {
            self.finish(ctx, self.duellists.first().map(|duellist| duellist.seat), "left");
        }
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let chosen = input
            .json::<Input>()
            .map_err(|_| Illegal::NotAMove)
            .and_then(|input| self.choose(from, input.chosen));
        if let Err(illegal) = chosen {
            return ctx.send_json(from, &json!({ "event": "error", "code": illegal }));
        }
        ctx.send_json(
            To::Everyone,
            &json!({ "event": "chosen", "round": self.round, "seat": from }),
        );
        if self.duellists.iter().all(|duellist| duellist.choice.is_some()) {
            self.end_round(ctx);
        }
    }

    fn timer(&mut self, ctx: &mut Context, id: u32) {
        if id == TURN && self.round > 0 {
            self.end_round(ctx);
        }
    }

    fn resync(&mut self, ctx: &mut Context, seat: Seat) {
        self.send_view(ctx, seat);
    }
}

impl Duel {
    /// Keeps a choice, or says why it is none.
    fn choose(&mut self, seat: Seat, chosen: Move) -> Result<(), Illegal> {
        let duellist = self
            .duellists
            .iter_mut()
            .find(|duellist| duellist.seat == seat)
            .ok_or(Illegal::OnlyWatching)?;
        if self.round == 0 {
            return Err(Illegal::NotBegun);
        }
        if duellist.choice.is_some() {
            return Err(Illegal::AlreadyChosen);
        }
        if chosen == Move::Heal && duellist.fighter.heals_left == 0 {
            return Err(Illegal::NoHealsLeft);
        }
        duellist.choice = Some(chosen);
        Ok(())
    }

    fn begin_round(&mut self, ctx: &mut Context) {
        self.round += 1;
        for duellist in &mut self.duellists {
            duellist.choice = None;
        }
        ctx.set_timer(TURN, self.turn_ms);
    }

    /// Plays the round with the choices made; who made none stands on guard.
    fn end_round(&mut self, ctx: &mut Context) {
        let [left, right] = self.duellists.as_mut_slice() else {
            return;
        };
        let moves = [&mut *left, &mut *right].map(|duellist| {
            duellist.missed_in_a_row = if duellist.choice.is_some() {
                0
            } else {
                duellist.missed_in_a_row + 1
            };
            duellist.choice.take().unwrap_or(Move::Guard)
        });
        clash(
            &mut left.fighter,
            moves[0],
            &mut right.fighter,
            moves[1],
            self.health_max,
        );
        let fought: Vec<_> = [(&*left, moves[0]), (&*right, moves[1])]
            .map(|(duellist, chosen)| json!({ "seat": duellist.seat, "move": chosen, "health": duellist.fighter.health }))
            .into();
        ctx.send_json(
            To::Everyone,
            &json!({ "event": "round", "round": self.round, "duellists": fought }),
        );
        match self.verdict() {
            Some((winner, why)) => self.finish(ctx, winner, why),
            None => self.begin_round(ctx),
        }
    }

    /// Says who has won and why, once it is over; no winner is a draw.
    fn verdict(&self) -> Option<(Option<Seat>, &'static str)> {
        let [left, right] = self.duellists.as_slice() else {
            return None;
        };
        let gone = |duellist: &Duellist| duellist.missed_in_a_row >= MISSED_IN_A_ROW_MAX;
        let (health_left, health_right) = (left.fighter.health, right.fighter.health);
        let better = match health_left.cmp(&health_right) {
            std::cmp::Ordering::Less => Some(right.seat),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(left.seat),
        };
        match (gone(left), gone(right)) {
            _ if health_left <= 0 || health_right <= 0 => Some((better, "health")),
            (true, true) => Some((None, "idle")),
            (true, false) => Some((Some(right.seat), "idle")),
            (false, true) => Some((Some(left.seat), "idle")),
            (false, false) if self.round >= self.rounds_max => Some((better, "rounds")),
            (false, false) => None,
        }
    }

    fn finish(&mut self, ctx: &mut Context, winner: Option<Seat>, why: &str) {
        ctx.cancel_timer(TURN);
        self.round = 0;
        let health: Vec<_> = self
            .duellists
            .iter()
            .map(|duellist| json!({ "seat": duellist.seat, "health": duellist.fighter.health }))
            .collect();
        ctx.finish_json(&json!({ "winner": winner, "why": why, "duellists": health }));
    }

    /// The full view for one seat: what everybody may know, and its own choice.
    fn send_view(&self, ctx: &mut Context, seat: Seat) {
        let duellists: Vec<_> = self.duellists.iter().map(Duellist::view).collect();
        let own = self.duellists.iter().find(|duellist| duellist.seat == seat);
        let choice = own.and_then(|duellist| duellist.choice);
        let view = json!({
            "event": "view",
            "round": self.round,
            "turn_ms": self.turn_ms,
            "health_max": self.health_max,
            "duellists": duellists,
            "choice": choice,
        });
        ctx.send_json(seat, &view);
    }
}

impl Duellist {
    /// What everybody may know.
    fn view(&self) -> impl Serialize + use<> {
        json!({
            "seat": self.seat,
            "name": self.name,
            "health": self.fighter.health,
            "heals_left": self.fighter.heals_left,
            "chosen": self.choice.is_some(),
        })
    }
}

rookery_sdk::export!(Duel);

#[cfg(test)]
mod tests;
