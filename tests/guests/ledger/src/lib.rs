//! A match whose every step can be counted: players add numbers to a sum, ticks add to another, and everyone hears both. It is
//! `stored`, so that tests see what comes back after its nodes are gone, and what does not.
//!
//! Messages: `{"add": 5}`; `{"wait": 200}` rings in as many milliseconds; `{"put": "key"}` writes a durable value and tells the
//! answer; `{"stubborn": true}` makes it refuse to go on from what it saves then; `{"finish": true}`.

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// The timer of `wait`.
const BELL: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Ledger {
    sum: i64,
    adds: u32,
    ticks: u64,
    stubborn: bool,
    /// Why it went on elsewhere, each time.
    resumed: Vec<String>,
    /// Seats that left, with the word for why.
    left: Vec<(Seat, LeaveReason)>,
}

#[derive(Deserialize)]
struct Order {
    add: Option<i64>,
    wait: Option<u32>,
    put: Option<String>,
    stubborn: Option<bool>,
    finish: Option<bool>,
}

impl Match for Ledger {
    fn manifest() -> Manifest {
        Manifest::json("ledger")
            .players(1..=50)
            .tick_hz(10)
            .grace_ms(30_000)
            .durability(Durability::Stored)
    }

    fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
        Ok(Self {
            sum: 0,
            adds: 0,
            ticks: 0,
            stubborn: false,
            resumed: Vec::new(),
            left: Vec::new(),
        })
    }

    fn leave(&mut self, _ctx: &mut Context, seat: Seat, reason: LeaveReason) {
        self.left.push((seat, reason));
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let order = match input.json::<Order>() {
            Ok(order) => order,
            Err(error) => return ctx.send_json(from, &json!({ "error": error.to_string() })),
        };
        if let Some(add) = order.add {
            self.sum = self.sum.saturating_add(add);
            self.adds += 1;
            ctx.send_json(To::Everyone, &json!({ "sum": self.sum, "adds": self.adds, "by": from }));
        }
        if let Some(after_ms) = order.wait {
            ctx.set_timer(BELL, after_ms);
        }
        if let Some(key) = order.put {
            ctx.storage("ledger").write_json(self.adds, &key, &self.sum, If::Any);
        }
        if let Some(stubborn) = order.stubborn {
            self.stubborn = stubborn;
        }
        if order.finish == Some(true) {
            ctx.finish_json(&json!({ "sum": self.sum }));
        }
    }

    fn tick(&mut self, ctx: &mut Context, _elapsed_ms: u32) {
        self.ticks += 1;
        ctx.publish_json("ticks", &self.ticks);
    }

    fn timer(&mut self, ctx: &mut Context, _id: u32) {
        let at = ctx.now_ms();
        ctx.send_json(To::Everyone, &json!({ "rang": at }));
    }

    fn answer(&mut self, ctx: &mut Context, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        ctx.send_json(To::Everyone, &json!({ "put": request, "ok": outcome.is_ok() }));
    }

    fn signal(&mut self, ctx: &mut Context, signal: Signal) {
        if let Notice::Resumed { reason } = signal.read() {
            self.resumed.push(reason);
            ctx.publish_json("resumed", &self.resumed);
        }
    }

    fn resync(&mut self, ctx: &mut Context, seat: Seat) {
        ctx.send_json(
            seat,
            &json!({ "view": { "sum": self.sum, "adds": self.adds, "ticks": self.ticks, "resumed": self.resumed } }),
        );
    }

    fn save(&self) -> Vec<u8> {
        rookery_sdk::state::write(self)
    }

    fn load(_ctx: &mut Context, _setup: &Setup, saved: Saved) -> Result<Self, Refusal> {
        let ledger: Self = rookery_sdk::state::read(&saved.state)?;
        if ledger.stubborn {
            return Err("stubborn on purpose".into());
        }
        Ok(ledger)
    }
}

rookery_sdk::export!(Ledger);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_goes_on_from_what_it_saved() {
        let mut host = mock::Host::<Ledger>::start(json!(null)).unwrap();
        let ana = host.join("ana").unwrap();
        host.message(ana, json!({ "add": 5 }));
        host.tick();
        host.save_and_load().unwrap();
        host.message(ana, json!({ "add": 2 }));
        assert_eq!(
            host.heard_json(ana).last(),
            Some(&json!({ "sum": 7, "adds": 2, "by": ana }))
        );
        assert_eq!(host.published("ticks").unwrap().json::<u64>().unwrap(), 1);
    }

    #[test]
    fn a_stubborn_ledger_does_not_go_on() {
        let mut host = mock::Host::<Ledger>::start(json!(null)).unwrap();
        let ana = host.join("ana").unwrap();
        host.message(ana, json!({ "stubborn": true }));
        assert!(host.save_and_load().is_err());
    }
}
