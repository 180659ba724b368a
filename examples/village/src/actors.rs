//! Those whom no player plays: two who wander the whole village and a baker who does not. An actor is in one zone at a time,
//! walks to the next one by letter, and claims a name in each, `<world>-<id>`, so that mail to the name finds them. The zone that
//! they leave keeps the name until they have arrived, so that nobody takes them for lost while they are on the road.
//!
//! The name keeps them single and alive. A zone that was restored from an older state may remember an actor who has walked
//! on: the name is taken, and it forgets them. A zone whose node died may take an actor along: nobody has the name, and the
//! actor's home brings them back.

use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

use crate::command::Unclear;
use crate::letter::Letter;
use crate::map::{self, Actor, Way};
use crate::talk::told;
use crate::{Purpose, Village, tell};

/// An actor wanders or speaks once in so many milliseconds, and half as much again by chance.
const PAUSE_MS: u32 = 6_000;
/// One thought in so many is spoken, the others are steps.
const SPEAKS_ONE_IN: u32 = 3;
/// A name changes hands within a few letters: after so many refusals the actor is somewhere else.
const REFUSALS_MAX: u32 = 3;
/// Upkeeps for which the name of somebody on the road is kept; who has not arrived after a minute is lost.
const KEPT_FOR_MAX: u32 = 4;

/// An actor in this zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Presence {
    room: String,
    /// Whether the name is this zone's.
    named: bool,
    refusals: u32,
}

/// When an actor is put into their home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// The zone begins; if the world is older than the zone, the name will tell.
    AtStart,
    /// Only if nobody has their name.
    IfLost,
}

/// Until the actors think again.
pub(crate) fn pause_ms(ctx: &mut Context) -> u32 {
    PAUSE_MS + ctx.random().below(PAUSE_MS / 2)
}

impl Village {
    pub(crate) fn actors_in(&self, room: &str) -> Vec<&'static str> {
        let here = self.actors.iter().filter(|(_, presence)| presence.room == room);
        here.filter_map(|(id, _)| map::actor(id))
            .map(|actor| actor.name)
            .collect()
    }

    pub(crate) fn bring_home(&mut self, ctx: &mut Context, when: Home) {
        for actor in map::CAST {
            if actor.home != self.zone || self.actors.contains_key(actor.id) {
                continue;
            }
            match (when, self.world.is_some()) {
                (Home::AtStart, _) | (Home::IfLost, false) => self.place(ctx, actor, actor.room),
                (Home::IfLost, true) => self.claim(ctx, actor.id),
            }
        }
    }

    /// Each actor here takes a step or says something.
    pub(crate) fn actors_think(&mut self, ctx: &mut Context) {
        let here: Vec<&'static Actor> = self.actors.keys().filter_map(|id| map::actor(id)).collect();
        for actor in here {
            let Some(presence) = self.actors.get(actor.id).cloned() else {
                continue;
            };
            if !presence.named && self.world.is_some() {
                self.claim(ctx, actor.id);
            }
            if !actor.wanders || ctx.random().chance(1, SPEAKS_ONE_IN) {
                let says = ctx.random().pick(actor.says).copied();
                if let Some(text) = says {
                    self.speak(ctx, actor, &presence.room, text);
                }
                continue;
            }
            let step = ctx.random().pick(self.room(&presence.room).exits).copied();
            match step {
                Some((direction, Way::Room(next))) => self.step(ctx, actor, &presence.room, direction, next),
                Some((direction, Way::Zone(zone, next))) => self.set_out(ctx, actor, presence, direction, zone, next),
                None => {}
            }
        }
    }

    fn step(&mut self, ctx: &mut Context, actor: &'static Actor, room: &str, direction: &str, next: &str) {
        self.narrate(ctx, room, None, &format!("{} goes {direction}.", actor.name));
        if let Some(presence) = self.actors.get_mut(actor.id) {
            presence.room = next.to_owned();
        }
        self.narrate(ctx, next, None, &format!("{} comes in.", actor.name));
        self.refresh(ctx, room);
        self.refresh(ctx, next);
    }

    /// Only an actor whose name this zone has may leave it: they are the one.
    fn set_out(
        &mut self,
        ctx: &mut Context,
        actor: &'static Actor,
        presence: Presence,
        direction: &str,
        zone: &str,
        next: &str,
    ) {
        let Some(address) = self.address(zone).filter(|_| presence.named) else {
            return;
        };
        self.actors.remove(actor.id);
        self.on_the_road.insert(actor.id.to_owned(), 0);
        self.narrate(ctx, &presence.room, None, &format!("{} goes {direction}.", actor.name));
        self.refresh(ctx, &presence.room);
        let letter = Letter::Actor {
            id: actor.id.to_owned(),
            room: next.to_owned(),
        };
        let id = actor.id.to_owned();
        self.write(ctx, &address, &letter, Purpose::Journey { id });
    }

    pub(crate) fn journey_failed(&mut self, ctx: &mut Context, id: &str) {
        if let Some(actor) = map::actor(id) {
            self.place(ctx, actor, self.map().entrance().name);
        }
    }

    pub(crate) fn actor_arrives(&mut self, ctx: &mut Context, sender: &str, id: String, room: &str) {
        if let Some(actor) = map::actor(&id) {
            self.put(ctx, actor, room);
            self.write(ctx, sender, &Letter::Arrived { id }, Purpose::Notice);
        }
    }

    pub(crate) fn give_name_up(&mut self, ctx: &mut Context, sender: &str, id: String) {
        // Unless they have come back already, by another road.
        if !self.actors.contains_key(&id) {
            self.on_the_road.remove(&id);
            self.release(ctx, &id);
            self.write(ctx, sender, &Letter::Free { id }, Purpose::Notice);
        }
    }

    /// The zone they went to may have forgotten them: then nobody would ever say that they have arrived.
    pub(crate) fn give_lost_names_up(&mut self, ctx: &mut Context) {
        self.on_the_road.values_mut().for_each(|upkeeps| *upkeeps += 1);
        let lost: Vec<String> = self
            .on_the_road
            .extract_if(.., |_, upkeeps| *upkeeps > KEPT_FOR_MAX)
            .map(|(id, _)| id)
            .collect();
        for id in lost {
            self.release(ctx, &id);
        }
    }

    pub(crate) fn name_is_free(&mut self, ctx: &mut Context, id: &str) {
        if self.actors.contains_key(id) {
            self.claim(ctx, id);
        }
    }

    fn release(&self, ctx: &mut Context, id: &str) {
        if let Some(name) = self.name_to_claim(id) {
            ctx.mail().release(&name);
        }
    }

    fn place(&mut self, ctx: &mut Context, actor: &'static Actor, room: &str) {
        self.put(ctx, actor, room);
        self.claim(ctx, actor.id);
    }

    fn put(&mut self, ctx: &mut Context, actor: &'static Actor, room: &str) {
        let room = self.room(room).name;
        let presence = Presence {
            room: room.to_owned(),
            named: false,
            refusals: 0,
        };
        self.actors.insert(actor.id.to_owned(), presence);
        self.on_the_road.remove(actor.id);
        self.narrate(ctx, room, None, &format!("{} comes in.", actor.name));
        self.refresh(ctx, room);
    }

    fn claim(&mut self, ctx: &mut Context, id: &str) {
        let asked = Purpose::Claim { id: id.to_owned() };
        if self.requests.values().any(|purpose| *purpose == asked) {
            return;
        }
        if let Some(name) = self.name_to_claim(id) {
            let number = self.ask(asked);
            ctx.mail().claim(number, &name);
        }
    }

    pub(crate) fn claimed(&mut self, ctx: &mut Context, id: &str, failure: Option<Failure>) {
        let Some(actor) = map::actor(id) else { return };
        match (failure, self.actors.get_mut(id)) {
            (None, Some(presence)) => {
                presence.named = true;
                presence.refusals = 0;
            }
            // Nobody had the name: they were lost.
            (None, None) if actor.home == self.zone => self.place(ctx, actor, actor.room),
            (None, None) => self.release(ctx, id),
            (Some(Failure::Taken), Some(presence)) => {
                presence.refusals += 1;
                if presence.refusals >= REFUSALS_MAX {
                    let room = presence.room.clone();
                    self.actors.remove(id);
                    self.narrate(ctx, &room, None, &format!("{} hurries off.", actor.name));
                    self.refresh(ctx, &room);
                }
            }
            // They are elsewhere, or the store is away: the next thought or upkeep asks again.
            (Some(_), _) => {}
        }
    }

    /// After a restore: the names of who is here are claimed again, and of who is not given up.
    pub(crate) fn settle_names(&mut self, ctx: &mut Context) {
        for actor in map::CAST {
            match self.actors.get_mut(actor.id) {
                Some(presence) => {
                    presence.named = false;
                    presence.refusals = 0;
                    self.claim(ctx, actor.id);
                }
                None => self.release(ctx, actor.id),
            }
        }
    }

    pub(crate) fn ask_actor(
        &mut self,
        ctx: &mut Context,
        seat: Seat,
        actor: &'static Actor,
        from: String,
        text: String,
    ) -> Result<(), Unclear> {
        tell(ctx, seat, "telling", &format!("You tell {}: {text}", actor.name));
        if self.actors.contains_key(actor.id) {
            self.hear(ctx, actor, &from, &text);
            let answer = ctx.random().pick(actor.answers).copied().unwrap_or_default();
            told(ctx, seat, actor.name, answer);
            return Ok(());
        }
        let Some(name) = self.name_to_claim(actor.id) else {
            return Err(Unclear(format!("{} is not here.", actor.name)));
        };
        let letter = Letter::Ask {
            seat,
            id: actor.id.to_owned(),
            from,
            text,
        };
        let to = actor.name.to_owned();
        self.write(ctx, &name, &letter, Purpose::Telling { seat, to });
        Ok(())
    }

    pub(crate) fn asked_from_afar(
        &mut self,
        ctx: &mut Context,
        sender: &str,
        seat: Seat,
        id: &str,
        from: &str,
        text: &str,
    ) {
        let Some(actor) = map::actor(id) else { return };
        if !self.actors.contains_key(id) {
            let to = actor.name.to_owned();
            self.write(ctx, sender, &Letter::Missed { seat, to }, Purpose::Notice);
            return;
        }
        self.hear(ctx, actor, from, text);
        let answer = ctx.random().pick(actor.answers).copied().unwrap_or_default();
        let reply = Letter::Reply {
            seat,
            name: actor.name.to_owned(),
            text: answer.to_owned(),
        };
        self.write(ctx, sender, &reply, Purpose::Notice);
    }

    /// Those near an actor see that a word has reached them.
    fn hear(&self, ctx: &mut Context, actor: &Actor, from: &str, text: &str) {
        if let Some(presence) = self.actors.get(actor.id) {
            let line = format!("{} listens: {from} has said “{text}”.", actor.name);
            self.narrate(ctx, &presence.room, None, &line);
        }
    }

    fn speak(&self, ctx: &mut Context, actor: &Actor, room: &str, text: &str) {
        let hearing = self.in_room(room);
        if !hearing.is_empty() {
            let line = format!("{} says: {text}", actor.name);
            ctx.send_json(
                To::Seats(hearing),
                &json!({ "event": "said", "from": actor.name, "text": text, "line": line }),
            );
        }
    }

    fn name_to_claim(&self, id: &str) -> Option<String> {
        self.world.as_ref().map(|world| format!("{world}-{id}"))
    }
}
