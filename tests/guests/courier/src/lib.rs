//! A match that writes to others and sends players there, with the number of items that each carries in the `ctx`.
//!
//! Parameters: `{"refuse": 3}` refuses every third player who arrives with items; `{"claim": "name"}` claims a name. Messages:
//! `{"take": 2}` picks up items; `{"go": target}` is a transfer; `{"tell": target, "text": …}` is mail; `{"finish": true}` ends it;
//! `{"door": false}` closes it. What is heard is said aloud: `{"mail": text, "from": …}`, `{"answer": request, "error": …}`,
//! `{"here": items}` to who has sat down, `{"ask": …}` is answered with `{"held": items}`.

use std::collections::BTreeMap;

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Courier {
    carried: BTreeMap<Seat, u32>,
    refuse: u32,
    arrivals: u32,
    next_request: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params {
    refuse: u32,
    claim: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Luggage {
    items: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Order {
    take: u32,
    go: Option<String>,
    tell: Option<String>,
    text: String,
    door: Option<bool>,
    finish: bool,
    ask: bool,
}

impl Match for Courier {
    fn manifest() -> Manifest {
        Manifest::json("courier").players(1..=60).spectators(5).grace_ms(20_000)
    }

    fn start(ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        let params = setup.params.json::<Option<Params>>()?.unwrap_or_default();
        if let Some(name) = params.claim {
            ctx.mail().claim(1, &name);
        }
        Ok(Self {
            refuse: params.refuse,
            next_request: 100,
            ..Self::default()
        })
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, data: Payload) -> Result<(), Refusal> {
        let luggage = data.json::<Option<Luggage>>()?.unwrap_or_default();
        if luggage.items > 0 {
            self.arrivals += 1;
            // Said even when it is refused later: nobody may hear it then, and nobody may have the items twice.
            if self.refuse > 0 && self.arrivals.is_multiple_of(self.refuse) {
                self.carried.insert(player.seat, luggage.items);
                return Err(Refusal::new("not today"));
            }
        }
        self.carried.insert(player.seat, luggage.items);
        ctx.send_json(player.seat, &json!({ "here": luggage.items }));
        Ok(())
    }

    fn leave(&mut self, _ctx: &mut Context, seat: Seat, _reason: LeaveReason) {
        self.carried.remove(&seat);
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let order = match input.json::<Order>() {
            Ok(order) => order,
            Err(error) => return ctx.send_json(from, &json!({ "error": error.to_string() })),
        };
        let items = self.carried.entry(from).or_default();
        *items += order.take;
        let items = *items;
        self.next_request += 1;
        if order.ask {
            ctx.send_json(from, &json!({ "held": items }));
        }
        if let Some(open) = order.door {
            ctx.set_joinable(open);
        }
        if let Some(target) = order.tell {
            ctx.mail().tell(self.next_request, &target, order.text.as_bytes());
        }
        if let Some(target) = order.go {
            let luggage = json!({ "items": items }).to_string();
            ctx.mail()
                .transfer(self.next_request, from, &target, luggage.as_bytes());
        }
        if order.finish {
            ctx.finish_json(&json!("done"));
        }
    }

    fn receive(&mut self, ctx: &mut Context, sender: &str, data: Payload) {
        let text = String::from_utf8_lossy(&data.into_bytes()).into_owned();
        ctx.send_json(To::Everyone, &json!({ "mail": text, "from": sender }));
    }

    fn answer(&mut self, ctx: &mut Context, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        if let Err(failure) = outcome {
            let error = format!("{failure:?}");
            ctx.send_json(To::Everyone, &json!({ "answer": request, "error": error }));
        }
    }

    fn resync(&mut self, ctx: &mut Context, seat: Seat) {
        let items = self.carried.get(&seat).copied().unwrap_or_default();
        ctx.send_json(seat, &json!({ "here": items, "again": true }));
    }

    fn save(&self) -> Vec<u8> {
        rookery_sdk::state::write(self)
    }

    fn load(_ctx: &mut Context, _setup: &Setup, saved: Saved) -> Result<Self, Refusal> {
        Ok(rookery_sdk::state::read(&saved.state)?)
    }
}

rookery_sdk::export!(Courier);
