//! A match that writes to others and sends players there, with the number of items that each carries in the `ctx`; it says what it is
//! told to in chat, and keeps for each player what they give it.
//!
//! Parameters: `{"refuse": 3}` refuses every third player who arrives with items; `{"claim": "name"}` claims a name. Messages:
//! `{"take": 2}` picks up items; `{"go": target}` is a transfer, of whoever sits in the seat `who` if that is named too;
//! `{"tell": target, "text": …}` is mail; `{"finish": true}` ends it;
//! `{"door": false}` closes it; `{"say": [channel, text]}` is chat; `{"keep": key, "value": 5, "version": "…"}` writes a value of the
//! player's (any without a version, an absent one with an empty one), `{"recall": key}` reads one, and both are answered by
//! `{"kept": request, "values": [[key, version, value]]}`. What is heard is said aloud: `{"mail": text, "from": …}`, `{"answer": request, "error": …}`,
//! `{"here": items}` to who has sat down, `{"ask": …}` is answered with `{"held": items}`. Spectators hear who comes and goes, and how
//! many borders they have crossed: `{"in": player, "hops": n}` and `{"out": player, "hops": n}`.

use std::collections::BTreeMap;

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// Requests from this one on are of storage, whose success is answered.
const OF_STORAGE: u32 = 1_000_000;

const COLLECTION: &str = "keepsakes";

#[derive(Default, Serialize, Deserialize)]
struct Courier {
    id: String,
    carried: BTreeMap<Seat, Carried>,
    refuse: u32,
    arrivals: u32,
    next_request: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Carried {
    player: String,
    luggage: Luggage,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params {
    refuse: u32,
    claim: Option<String>,
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Luggage {
    items: u32,
    hops: u32,
    /// The match that they left.
    from: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Order {
    take: u32,
    go: Option<String>,
    who: Option<u32>,
    tell: Option<String>,
    text: String,
    door: Option<bool>,
    say: Option<(String, String)>,
    keep: Option<String>,
    value: i64,
    version: Option<String>,
    recall: Option<String>,
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
            id: setup.match_id.clone(),
            refuse: params.refuse,
            next_request: 100,
            ..Self::default()
        })
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, data: Payload) -> Result<(), Refusal> {
        let luggage = data.json::<Option<Luggage>>()?.unwrap_or_default();
        let came = json!({ "in": player.id, "hops": luggage.hops });
        let is_counted = luggage.items > 0 && luggage.from != self.id;
        // Said and noted even when it is refused later: nobody may hear it then, and nobody may have the items twice.
        ctx.send_json(player.seat, &json!({ "here": luggage.items }));
        let id = player.id.clone();
        self.carried.insert(player.seat, Carried { player: id, luggage });
        if is_counted {
            self.arrivals += 1;
            if self.refuse > 0 && self.arrivals.is_multiple_of(self.refuse) {
                return Err(Refusal::new("not today"));
            }
        }
        ctx.send_json(To::Spectators, &came);
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, _reason: LeaveReason) {
        if let Some(Carried { player, luggage }) = self.carried.remove(&seat) {
            ctx.send_json(To::Spectators, &json!({ "out": player, "hops": luggage.hops }));
        }
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let order = match input.json::<Order>() {
            Ok(order) => order,
            Err(error) => return ctx.send_json(from, &json!({ "error": error.to_string() })),
        };
        let who = order.who.map_or(from, Seat);
        let luggage = &mut self.carried.entry(who).or_default().luggage;
        luggage.items += order.take;
        let (items, hops) = (luggage.items, luggage.hops);
        let player = self.carried.entry(from).or_default().player.clone();
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
            let luggage = json!({ "items": items, "hops": hops + 1, "from": self.id }).to_string();
            ctx.mail().transfer(self.next_request, who, &target, luggage.as_bytes());
        }
        if let Some((channel, text)) = order.say {
            ctx.mail().say(&channel, &text);
        }
        if let Some(key) = order.keep {
            let condition = match order.version.as_deref() {
                None => If::Any,
                Some("") => If::Absent,
                Some(version) => If::Version(version),
            };
            ctx.storage_of(&player, COLLECTION).write_json(
                OF_STORAGE + self.next_request,
                &key,
                &order.value,
                condition,
            );
        }
        if let Some(key) = order.recall {
            ctx.storage_of(&player, COLLECTION)
                .read(OF_STORAGE + self.next_request, &key);
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
        match outcome {
            Err(failure) => {
                let error = format!("{failure:?}");
                ctx.send_json(To::Everyone, &json!({ "answer": request, "error": error }));
            }
            Ok(entries) if request >= OF_STORAGE => {
                let values = entries.into_iter().map(|entry| {
                    // The answer to a write has no value.
                    let value = entry.data.json::<i64>().ok();
                    (entry.key, entry.version, value)
                });
                let values: Vec<_> = values.collect();
                ctx.send_json(To::Everyone, &json!({ "kept": request, "values": values }));
            }
            Ok(_) => {}
        }
    }

    fn resync(&mut self, ctx: &mut Context, seat: Seat) {
        let items = self.carried.get(&seat).map_or(0, |carried| carried.luggage.items);
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
