//! Who says what to whom: in a room, to somebody anywhere in the village, and to everyone by the world's chat channel. Each zone
//! tells the others who is in it; by that roster a telling finds its zone, and comes back if its hearer has just walked on.

use rookery_sdk::prelude::*;

use crate::command::Unclear;
use crate::letter::Letter;
use crate::walking::other_zones;
use crate::{Purpose, Village, list, map, tell};

/// Where the hours are struck for the whole world.
pub(crate) const CLOCK_ZONE: &str = "chapel";

impl Village {
    pub(crate) fn say(&mut self, ctx: &mut Context, seat: Seat, text: &str) -> Result<(), Unclear> {
        let person = self.person(seat)?;
        let (name, room) = (&person.name, &person.room);
        let hearing = self.in_room(room);
        let line = format!("{name} says: {text}");
        ctx.send_json(
            To::Seats(hearing),
            &json!({ "event": "said", "from": name, "text": text, "line": line }),
        );
        Ok(())
    }

    pub(crate) fn shout(&mut self, ctx: &mut Context, seat: Seat, text: &str) -> Result<(), Unclear> {
        let person = self.person(seat)?;
        let Some(world) = &self.world else {
            return Err(Unclear("Nobody hears you.".into()));
        };
        ctx.mail()
            .say(&format!("world:{world}"), &format!("{} shouts: {text}", person.name));
        tell(ctx, seat, "shouted", &format!("You shout: {text}"));
        Ok(())
    }

    pub(crate) fn who(&self, ctx: &mut Context, seat: Seat) -> Result<(), Unclear> {
        let mut zones = self.roster.clone();
        zones.insert(self.zone.clone(), self.names());
        zones.retain(|_, people| !people.is_empty());
        let parts: Vec<String> = zones
            .iter()
            .map(|(zone, people)| format!("{} ({zone})", people.join(", ")))
            .collect();
        let line = format!("In the village: {}.", list(&parts));
        ctx.send_json(seat, &json!({ "event": "who", "line": line, "zones": zones }));
        Ok(())
    }

    pub(crate) fn tell(&mut self, ctx: &mut Context, seat: Seat, to: &str, text: String) -> Result<(), Unclear> {
        let from = self.person(seat)?.name.clone();
        if let Some((hearer, name)) = self.known_as(to) {
            told(ctx, hearer, &from, &text);
            tell(ctx, seat, "telling", &format!("You tell {name}: {text}"));
            return Ok(());
        }
        let found = self
            .roster
            .iter()
            .find_map(|(zone, people)| people.iter().find(|name| answers_to(name, to)).map(|name| (zone, name)));
        let found = found.and_then(|(zone, name)| Some((self.address(zone)?, name.clone())));
        let Some((address, name)) = found else {
            // After the players, near and far: nobody who bears an actor's name is out of reach because of it.
            let mut cast = map::CAST.iter();
            return match cast.find(|actor| answers_to(actor.name, to) || actor.id == to) {
                Some(actor) => self.ask_actor(ctx, seat, actor, from, text),
                None => Err(Unclear(format!("There is no {to} in the village."))),
            };
        };
        let letter = Letter::Tell {
            seat,
            from,
            to: name.clone(),
            text,
        };
        self.write(ctx, &address, &letter, Purpose::Telling { seat, to: name });
        Ok(())
    }

    /// What another zone wrote.
    pub(crate) fn read(&mut self, ctx: &mut Context, sender: &str, letter: Letter) {
        match letter {
            Letter::Roster { zone, people } => {
                if map::zone(&zone).is_some() && self.roster.get(&zone) != Some(&people) {
                    self.roster.insert(zone, people);
                    self.refresh_all(ctx);
                }
            }
            Letter::Actor { id, room } => self.actor_arrives(ctx, sender, id, &room),
            Letter::Arrived { id } => self.give_name_up(ctx, sender, id),
            Letter::Free { id } => self.name_is_free(ctx, &id),
            Letter::Tell { seat, from, to, text } => {
                let answer = match self.known_as(&to) {
                    Some((hearer, name)) => {
                        told(ctx, hearer, &from, &text);
                        Letter::Heard { seat, to: name, text }
                    }
                    None => Letter::Missed { seat, to },
                };
                self.write(ctx, sender, &answer, Purpose::Notice);
            }
            Letter::Heard { seat, to, text } => tell(ctx, seat, "telling", &format!("You tell {to}: {text}")),
            Letter::Missed { seat, to } => {
                tell(ctx, seat, "error", &format!("{to} has just walked on. Try again."));
            }
            Letter::Ask { seat, id, from, text } => self.asked_from_afar(ctx, sender, seat, &id, &from, &text),
            Letter::Reply { seat, name, text } => told(ctx, seat, &name, &text),
        }
    }

    /// Tells the other zones who is here, if they know of this one.
    pub(crate) fn announce(&mut self, ctx: &mut Context) {
        if map::zone(&self.zone).is_none() {
            return self.refresh_all(ctx);
        }
        let letter = Letter::Roster {
            zone: self.zone.clone(),
            people: self.names(),
        };
        let addresses: Vec<String> = other_zones(&self.zone).filter_map(|zone| self.address(zone)).collect();
        for address in addresses {
            self.write(ctx, &address, &letter, Purpose::Notice);
        }
        self.refresh_all(ctx);
    }

    /// The chapel's clock strikes for the whole world.
    pub(crate) fn strike(&mut self, ctx: &mut Context) {
        self.hour = self.hour % 12 + 1;
        if let Some(world) = &self.world {
            let line = format!("The chapel clock strikes {}.", self.hour);
            ctx.mail().say(&format!("world:{world}"), &line);
        }
    }

    fn names(&self) -> Vec<String> {
        self.people.values().map(|person| person.name.clone()).collect()
    }

    fn known_as(&self, word: &str) -> Option<(Seat, String)> {
        let mut people = self.people.iter();
        let found = people.find(|(_, person)| answers_to(&person.name, word));
        found.map(|(seat, person)| (*seat, person.name.clone()))
    }
}

/// People are called by their whole name or by its first word, in any case.
pub(crate) fn answers_to(name: &str, word: &str) -> bool {
    let (name, word) = (name.to_ascii_lowercase(), word.to_ascii_lowercase());
    name == word || name.split_whitespace().next() == Some(word.as_str())
}

/// Somebody hears what was meant for them alone.
pub(crate) fn told(ctx: &mut Context, hearer: Seat, from: &str, text: &str) {
    let line = format!("{from} tells you: {text}");
    ctx.send_json(
        hearer,
        &json!({ "event": "told", "from": from, "text": text, "line": line }),
    );
}
