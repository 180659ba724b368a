//! A place of a world: people come, talk, and walk on to the next place, which may be on another machine. Zones, in JSON.
//!
//! A client sends `{"say": text}` or `{"go": zone}`. It hears the published key `place`, `{"zone", "exits", "people": [name]}`, and
//! `{"said": text, "by": name}`, `{"steps": count}` (its own: how far it has walked in its life), `{"error": why}`.
//!
//! Every zone of the world is a match of this module. Its name says which one it is (`world/mill` is the mill), its parameters say
//! where its exits lead: `{"exits": ["square"]}`. README.md has the node's configuration for a world of two.

use std::collections::BTreeMap;

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// What a person has walked is kept here between visits, for each player.
const COLLECTION: &str = "walkers";
const KEY: &str = "steps";

const TEXT_CHARS_MAX: usize = 200;

/// The number of every request to walk on. Nothing is answered when it goes well, and who could not be taken in comes back by `join`,
/// so nobody needs to know which one it was. The others are numbered from 1.
const WALK: u32 = 0;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    exits: Vec<String>,
}

/// The whole zone. It is `Stored`: what serde writes of it survives a restart of all nodes.
#[derive(Debug, Serialize, Deserialize)]
struct Game {
    world: String,
    zone: String,
    exits: Vec<String>,
    people: BTreeMap<Seat, Person>,
    /// What the requests that are still to be answered were for.
    requests: BTreeMap<u32, Purpose>,
    next_request: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Person {
    player_id: String,
    name: String,
    /// None until the store has answered.
    steps: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Purpose {
    /// How far somebody here has walked.
    Recall(Seat),
    /// Writing it down; nobody waits for it.
    Remember,
}

/// What a client sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Input {
    Say(String),
    Go(String),
}

/// What a person carries from zone to zone.
#[derive(Debug, Serialize, Deserialize)]
struct Luggage {
    steps: u32,
}

impl Match for Game {
    rookery_sdk::serde_state!();

    fn manifest() -> Manifest {
        Manifest::json(env!("CARGO_PKG_NAME"))
            .version(env!("CARGO_PKG_VERSION"))
            .players(1..=100)
            .grace_ms(30_000)
            .durability(Durability::Stored)
    }

    fn start(_ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        let params: Option<Params> = setup.params.json()?;
        // A match that is no zone of a world has a name without `/`, or none: it is a place by itself.
        let name = setup.name.as_deref().unwrap_or("somewhere");
        let (world, zone) = name.split_once('/').unwrap_or(("", name));
        Ok(Self {
            world: world.to_owned(),
            zone: zone.to_owned(),
            exits: params.unwrap_or_default().exits,
            people: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
        })
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, data: Payload) -> Result<(), Refusal> {
        // What comes with a player is another zone's word only when a zone handed them over; a client may write anything.
        let luggage = player.transferred_from().and_then(|_| data.json::<Luggage>().ok());
        let person = Person {
            player_id: player.id.clone(),
            name: player.name.clone(),
            steps: luggage.map(|luggage| luggage.steps),
        };
        let is_known = person.steps.is_some();
        self.people.insert(player.seat, person);
        if !is_known {
            let request = self.request(Purpose::Recall(player.seat));
            ctx.storage_of(&player.id, COLLECTION).read(request, KEY);
        }
        self.tell_steps(ctx, player.seat);
        self.publish(ctx);
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, reason: LeaveReason) {
        let Some(person) = self.people.remove(&seat) else {
            return;
        };
        // Who walks on carries it along; who goes home is remembered.
        if let (Some(steps), true) = (person.steps, reason != LeaveReason::Transferred) {
            let request = self.request(Purpose::Remember);
            ctx.storage_of(&person.player_id, COLLECTION)
                .write_json(request, KEY, &steps, If::Any);
        }
        self.publish(ctx);
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        match input.json() {
            Ok(Input::Say(text)) => self.say(ctx, from, &text),
            Ok(Input::Go(exit)) => self.walk(ctx, from, &exit),
            Err(error) => ctx.send_json(from, &json!({ "error": error.to_string() })),
        }
    }

    fn answer(&mut self, ctx: &mut Context, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        match (self.requests.remove(&request), outcome) {
            (None, Err(failure)) => ctx.info(&format!("a way was closed: {failure:?}")),
            (Some(Purpose::Recall(seat)), Ok(entries)) => {
                let steps = entries.first().and_then(|entry| entry.data.json().ok());
                if let Some(person) = self.people.get_mut(&seat) {
                    person.steps = Some(steps.unwrap_or(0));
                    self.tell_steps(ctx, seat);
                }
            }
            // Nothing is written over what could not be read: the steps stay unknown, and are not stored.
            (Some(Purpose::Recall(_) | Purpose::Remember), Err(failure)) => {
                ctx.warn(&format!("the store said {failure:?} to request {request}"));
            }
            (Some(Purpose::Remember) | None, Ok(_)) => {}
        }
    }

    /// Said lines are gone for who missed them; what is now can be shown again. The published place follows by itself.
    fn resync(&mut self, ctx: &mut Context, seat: Seat) {
        self.tell_steps(ctx, seat);
    }
}

impl Game {
    fn say(&self, ctx: &mut Context, seat: Seat, text: &str) {
        let Some(person) = self.people.get(&seat) else { return };
        let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
        ctx.send_json(To::Everyone, &json!({ "said": text, "by": person.name }));
    }

    /// Hands a person over to the zone behind an exit. `leave` follows this call.
    fn walk(&self, ctx: &mut Context, seat: Seat, exit: &str) {
        if !self.exits.iter().any(|known| known == exit) {
            return ctx.send_json(seat, &json!({ "error": format!("no way leads to {exit}") }));
        }
        let Some(person) = self.people.get(&seat) else { return };
        let Some(steps) = person.steps else {
            return ctx.send_json(seat, &json!({ "error": "wait a moment" }));
        };
        let target = format!("{}/{exit}", self.world);
        ctx.mail()
            .transfer_json(WALK, seat, &target, &Luggage { steps: steps + 1 });
    }

    fn request(&mut self, purpose: Purpose) -> u32 {
        self.next_request = self.next_request.wrapping_add(1);
        self.requests.insert(self.next_request, purpose);
        self.next_request
    }

    fn tell_steps(&self, ctx: &mut Context, seat: Seat) {
        if let Some(steps) = self.people.get(&seat).and_then(|person| person.steps) {
            ctx.send_json(seat, &json!({ "steps": steps }));
        }
    }

    fn publish(&self, ctx: &mut Context) {
        let people: Vec<&str> = self.people.values().map(|person| person.name.as_str()).collect();
        let place = json!({ "zone": self.zone, "exits": self.exits, "people": people });
        ctx.publish_json("place", &place);
    }
}

rookery_sdk::export!(Game);

#[cfg(test)]
mod tests;
