//! A village: a small text adventure for many, of nine zones that may run on nine machines. Each zone is a match of this module;
//! players walk from one to the next, and do not notice. In JSON.
//!
//! A client sends one line of text as a JSON string (`"look"`, `"go north"`, `"tell ben hello"`; `"help"` lists them). It hears
//! - the published key `view`, its own: where it is, the exits, who and what is here, what it carries;
//! - sent: `{"event", "line"}`, where `line` is for reading, and more fields by event: `said` and `told` have `from` and `text`.
//!
//! Which zone a match is, its name says (`village/mill` is the mill of the world `village`), or its parameters,
//! `{"zone": "mill"}`; without a world the roads to other zones are closed, and a zone that is on no map is a meadow. Zones know each other only by mail:
//! `letter.rs` is what they write, `map.rs` where the roads lead. The rest of the rules is by subject: `walking.rs`, `things.rs`,
//! `talk.rs`, `actors.rs`.

mod actors;
mod command;
mod letter;
mod map;
mod talk;
mod things;
mod walking;

use std::collections::BTreeMap;

use rookery_sdk::Value;
use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

use actors::Presence;
use command::{Command, Unclear};
use letter::{Letter, Passage};
use things::Description;

const PLAYERS_MAX: u32 = 100;
/// A dropped connection is back within this, or the player has gone home.
const GRACE_MS: u32 = 30_000;

/// The timers of a zone.
mod timer {
    /// The actors of this zone think.
    pub(crate) const ACTORS: u32 = 1;
    /// Who is here has changed: the other zones are told, once for all changes of a moment.
    pub(crate) const ROSTER: u32 = 2;
    /// Now and then: what got lost is said again and sought again.
    pub(crate) const UPKEEP: u32 = 3;
    /// The chapel's clock.
    pub(crate) const HOUR: u32 = 4;
}

const ROSTER_AFTER_MS: u32 = 200;
const UPKEEP_EVERY_MS: u32 = 15_000;
/// An hour of the village.
const HOUR_MS: u32 = 60_000;

/// Requests that may still be answered; the oldest is forgotten beyond, and its failure then told to nobody.
const REQUESTS_MAX: usize = 256;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    zone: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Village {
    /// The world's name; none when this match is a zone by itself.
    world: Option<String>,
    zone: String,
    /// What lies in each room.
    floors: BTreeMap<String, Vec<String>>,
    people: BTreeMap<Seat, Person>,
    /// Who is here of those whom no player plays, by id.
    actors: BTreeMap<String, Presence>,
    /// Who has set out from here and is not known to have arrived: for how many upkeeps their name was kept.
    on_the_road: BTreeMap<String, u32>,
    /// Who is in the other zones, as they said last.
    roster: BTreeMap<String, Vec<String>>,
    /// How items look, as far as the shared content has said.
    catalogue: BTreeMap<String, Description>,
    requests: BTreeMap<u32, Purpose>,
    next_request: u32,
    hour: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Person {
    name: String,
    room: String,
    carried: Vec<String>,
}

/// What a numbered request was for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Purpose {
    Describe {
        item: String,
    },
    Claim {
        id: String,
    },
    /// An actor on the way to another zone; comes back if the letter cannot arrive.
    Journey {
        id: String,
    },
    Crossing {
        seat: Seat,
    },
    /// Something a player told somebody elsewhere.
    Telling {
        seat: Seat,
        to: String,
    },
    /// Nobody waits for what becomes of it: it is said again anyway.
    Notice,
}

impl Match for Village {
    rookery_sdk::serde_state!();

    fn manifest() -> Manifest {
        Manifest::json("village")
            .version(env!("CARGO_PKG_VERSION"))
            .players(1..=PLAYERS_MAX)
            .grace_ms(GRACE_MS)
            .durability(Durability::Stored)
    }

    fn start(ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        let params = setup.params.json::<Option<Params>>()?.unwrap_or_default();
        let (world, named) = match setup.name.as_deref().and_then(|name| name.split_once('/')) {
            Some((world, zone)) => (Some(world.to_owned()), Some(zone.to_owned())),
            None => (None, None),
        };
        // Who asks for a zone by parameter means one of the map; a world may have zones of any name.
        if let Some(zone) = params.zone.as_deref().filter(|zone| map::zone(zone).is_none()) {
            return Err(Refusal::new(format!("the village has no zone `{zone}`")));
        }
        let zone = params.zone.or(named).unwrap_or_else(|| "square".to_owned());
        let map = map::zone(&zone).unwrap_or(&map::MEADOW);
        let floors = map.rooms.iter().map(|room| {
            let items = room.items.iter().map(|item| (*item).to_owned()).collect();
            (room.name.to_owned(), items)
        });
        let mut village = Self {
            world,
            zone,
            floors: floors.collect(),
            people: BTreeMap::new(),
            actors: BTreeMap::new(),
            on_the_road: BTreeMap::new(),
            roster: BTreeMap::new(),
            catalogue: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 1,
            hour: 0,
        };
        ctx.set_label(&[("zone", &village.zone)]);
        village.describe_unknown(ctx);
        village.bring_home(ctx, actors::Home::AtStart);
        village.wind_clocks(ctx);
        ctx.set_timer(timer::ROSTER, ROSTER_AFTER_MS);
        Ok(village)
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, data: Payload) -> Result<(), Refusal> {
        // A client may pass anything; only what another match handed over counts.
        let passage = match player.transferred_from() {
            Some(_) => data.json::<Option<Passage>>().unwrap_or_default(),
            None => None,
        };
        self.arrive(ctx, player, passage);
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, reason: LeaveReason) {
        self.depart(ctx, seat, reason);
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let command = match input.json::<String>() {
            Ok(line) => Command::parse(&line),
            Err(_) => Err(Unclear("A line of text is wanted, as a JSON string.".into())),
        };
        let done = command.and_then(|command| self.obey(ctx, from, command));
        if let Err(Unclear(why)) = done {
            tell(ctx, from, "error", &why);
        }
    }

    fn timer(&mut self, ctx: &mut Context, id: u32) {
        match id {
            timer::ACTORS => {
                self.actors_think(ctx);
                let pause_ms = actors::pause_ms(ctx);
                ctx.set_timer(timer::ACTORS, pause_ms);
            }
            timer::ROSTER => self.announce(ctx),
            timer::UPKEEP => {
                self.describe_unknown(ctx);
                self.give_lost_names_up(ctx);
                self.bring_home(ctx, actors::Home::IfLost);
                self.announce(ctx);
                ctx.set_timer(timer::UPKEEP, UPKEEP_EVERY_MS);
            }
            timer::HOUR => {
                self.strike(ctx);
                ctx.set_timer(timer::HOUR, HOUR_MS);
            }
            _ => {}
        }
    }

    fn receive(&mut self, ctx: &mut Context, sender: &str, data: Payload) {
        match data.json::<Letter>() {
            Ok(letter) => self.read(ctx, sender, letter),
            Err(error) => ctx.warn(&format!("a letter that nobody can read: {error}")),
        }
    }

    fn answer(&mut self, ctx: &mut Context, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        let Some(purpose) = self.requests.remove(&request) else {
            return;
        };
        match purpose {
            Purpose::Describe { item } => self.described(ctx, item, outcome),
            Purpose::Claim { id } => self.claimed(ctx, &id, outcome.err()),
            Purpose::Journey { id } => self.journey_failed(ctx, &id),
            Purpose::Crossing { seat } => self.crossing_failed(ctx, seat),
            Purpose::Telling { seat, to } => tell(ctx, seat, "error", &format!("No word reaches {to} now.")),
            Purpose::Notice => {}
        }
    }

    fn signal(&mut self, ctx: &mut Context, signal: Signal) {
        match signal.read() {
            Notice::ContentChanged { collection, key } if collection == things::COLLECTION => {
                self.describe_again(ctx, key);
            }
            // What happened since the state was saved is forgotten here, and known elsewhere.
            Notice::Resumed { .. } => {
                self.settle_names(ctx);
                self.wind_clocks(ctx);
                self.announce(ctx);
                self.refresh_all(ctx);
            }
            _ => {}
        }
    }

    /// Views are published and follow by themselves; the rest is talk, and over.
    fn resync(&mut self, ctx: &mut Context, seat: Seat) {
        self.show(ctx, seat);
    }
}

impl Village {
    fn obey(&mut self, ctx: &mut Context, seat: Seat, command: Command) -> Result<(), Unclear> {
        match command {
            Command::Look(None) => self.look(ctx, seat),
            Command::Look(Some(thing)) => self.examine(ctx, seat, &thing),
            Command::Go(direction) => self.go(ctx, seat, &direction),
            Command::Say(text) => self.say(ctx, seat, &text),
            Command::Tell { to, text } => self.tell(ctx, seat, &to, text),
            Command::Shout(text) => self.shout(ctx, seat, &text),
            Command::Who => self.who(ctx, seat),
            Command::Get(thing) => self.get(ctx, seat, &thing),
            Command::Drop(thing) => self.put_down(ctx, seat, &thing),
            Command::Inventory => self.inventory(ctx, seat),
            Command::Help => {
                tell(ctx, seat, "help", command::HELP);
                Ok(())
            }
        }
    }

    fn person(&self, seat: Seat) -> Result<&Person, Unclear> {
        self.people
            .get(&seat)
            .ok_or_else(|| Unclear("You are not here.".into()))
    }

    fn map(&self) -> &'static map::Zone {
        map::zone(&self.zone).unwrap_or(&map::MEADOW)
    }

    fn room(&self, name: &str) -> &'static map::Room {
        self.map().room(name).unwrap_or(self.map().entrance())
    }

    fn in_room(&self, room: &str) -> Vec<Seat> {
        let here = self.people.iter().filter(|(_, person)| person.room == room);
        here.map(|(seat, _)| *seat).collect()
    }

    /// The name of another zone's match; none when the roads are closed.
    fn address(&self, zone: &str) -> Option<String> {
        self.world.as_ref().map(|world| format!("{world}/{zone}"))
    }

    /// Numbers a request.
    fn ask(&mut self, purpose: Purpose) -> u32 {
        let number = self.next_request;
        self.next_request = self.next_request.checked_add(1).unwrap_or(1);
        self.requests.insert(number, purpose);
        while self.requests.len() > REQUESTS_MAX {
            self.requests.pop_first();
        }
        number
    }

    fn write(&mut self, ctx: &mut Context, to: &str, letter: &Letter, purpose: Purpose) {
        let number = self.ask(purpose);
        ctx.mail().tell_json(number, to, letter);
    }

    fn wind_clocks(&self, ctx: &mut Context) {
        let pause_ms = actors::pause_ms(ctx);
        ctx.set_timer(timer::ACTORS, pause_ms);
        ctx.set_timer(timer::UPKEEP, UPKEEP_EVERY_MS);
        if self.zone == talk::CLOCK_ZONE && self.world.is_some() {
            ctx.set_timer(timer::HOUR, HOUR_MS);
        }
    }

    /// Says to everyone in a room, but one, what they see happen.
    fn narrate(&self, ctx: &mut Context, room: &str, except: Option<Seat>, line: &str) {
        let mut hearing = self.in_room(room);
        hearing.retain(|seat| Some(*seat) != except);
        if !hearing.is_empty() {
            ctx.send_json(To::Seats(hearing), &json!({ "event": "seen", "line": line }));
        }
    }

    fn refresh(&self, ctx: &mut Context, room: &str) {
        for seat in self.in_room(room) {
            self.show(ctx, seat);
        }
    }

    fn refresh_all(&self, ctx: &mut Context) {
        for seat in self.people.keys() {
            self.show(ctx, *seat);
        }
    }

    /// Publishes what one player sees.
    fn show(&self, ctx: &mut Context, seat: Seat) {
        let Some(person) = self.people.get(&seat) else { return };
        let room = self.room(&person.room);
        let exits: Vec<Value> = room
            .exits
            .iter()
            .map(|(direction, way)| match way {
                map::Way::Room(name) => json!({ "go": direction, "to": self.room(name).title }),
                map::Way::Zone(zone, name) => {
                    let title = map::zone(zone).and_then(|zone| zone.room(name)).map(|room| room.title);
                    json!({ "go": direction, "to": title, "zone": zone })
                }
            })
            .collect();
        let others = self
            .people
            .iter()
            .filter(|(other, one)| **other != seat && one.room == person.room);
        let people: Vec<&str> = others.map(|(_, one)| one.name.as_str()).collect();
        let in_village = self.people.len() + self.roster.values().map(Vec::len).sum::<usize>();
        let view = json!({
            "zone": self.zone,
            "room": room.name,
            "title": room.title,
            "text": room.text,
            "exits": exits,
            "people": people,
            "actors": self.actors_in(room.name),
            "items": self.named(self.floors.get(room.name)),
            "carried": self.named(Some(&person.carried)),
            "in_village": in_village,
        });
        ctx.publish_json_to(seat, "view", &view);
    }
}

/// Says something to one player.
fn tell(ctx: &mut Context, seat: Seat, event: &str, line: &str) {
    ctx.send_json(seat, &json!({ "event": event, "line": line }));
}

/// `a, b and c`.
fn list(words: &[String]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

rookery_sdk::export!(Village);

#[cfg(test)]
mod tests;
