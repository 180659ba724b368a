//! Coming, going and crossing over. A player who crosses leaves this match and joins the next one with a `Passage`; if the next
//! one does not take them in, they come back with the same passage, and what they carry is theirs throughout.

use rookery_sdk::prelude::*;

use crate::command::Unclear;
use crate::letter::{Passage, Place};
use crate::map::{self, Way};
use crate::{Person, Purpose, ROSTER_AFTER_MS, Village, tell, timer};

impl Village {
    /// Takes a player in: from outside at the entrance, by a passage where it leads, or where it began if they had to turn back.
    pub(crate) fn arrive(&mut self, ctx: &mut Context, player: &Player, passage: Option<Passage>) {
        let entrance = self.map().entrance().name;
        let (room, carried, turned_back, by_road) = match passage {
            Some(Passage { from, carried, .. }) if from.zone == self.zone => (from.room, carried, true, true),
            Some(Passage { to, carried, .. }) => (to.room, carried, false, true),
            None => (entrance.to_owned(), Vec::new(), false, false),
        };
        let room = self.room(&room);
        let name = player.name.clone();
        self.describe(ctx, &carried);
        self.people.insert(
            player.seat,
            Person {
                name: name.clone(),
                room: room.name.to_owned(),
                carried,
            },
        );
        let seen = match (turned_back, by_road) {
            (true, _) => format!("{name} turns back."),
            (false, true) => format!("{name} comes along the road."),
            (false, false) => format!("{name} has come to the village."),
        };
        self.narrate(ctx, room.name, Some(player.seat), &seen);
        if turned_back {
            tell(
                ctx,
                player.seat,
                "error",
                "You cannot get through there now, and turn back.",
            );
        }
        if !by_road && let Some(world) = &self.world {
            ctx.mail().say(&format!("world:{world}"), &seen);
        }
        self.announce_soon(ctx);
        self.refresh(ctx, room.name);
    }

    /// Sees a player off. Whoever leaves the world leaves behind what they carried.
    pub(crate) fn depart(&mut self, ctx: &mut Context, seat: Seat, reason: LeaveReason) {
        let Some(person) = self.people.remove(&seat) else {
            return;
        };
        // Somebody who crosses has said which way, and keeps what they carry.
        if reason != LeaveReason::Transferred {
            self.narrate(ctx, &person.room, None, &format!("{} has gone home.", person.name));
            self.floors
                .entry(person.room.clone())
                .or_default()
                .extend(person.carried);
        }
        self.announce_soon(ctx);
        self.refresh(ctx, &person.room);
    }

    pub(crate) fn go(&mut self, ctx: &mut Context, seat: Seat, direction: &str) -> Result<(), Unclear> {
        let person = self.person(seat)?.clone();
        let room = self.room(&person.room);
        match room.way(direction) {
            None => Err(Unclear("There is no way there.".into())),
            Some(Way::Room(next)) => {
                self.narrate(
                    ctx,
                    room.name,
                    Some(seat),
                    &format!("{} goes {direction}.", person.name),
                );
                self.narrate(ctx, next, None, &format!("{} comes in.", person.name));
                if let Some(person) = self.people.get_mut(&seat) {
                    person.room = next.to_owned();
                }
                self.refresh(ctx, room.name);
                self.refresh(ctx, next);
                self.look(ctx, seat)
            }
            Some(Way::Zone(zone, next)) => self.cross(ctx, seat, person, direction, zone, next),
        }
    }

    fn cross(
        &mut self,
        ctx: &mut Context,
        seat: Seat,
        person: Person,
        direction: &str,
        zone: &str,
        next: &str,
    ) -> Result<(), Unclear> {
        let Some(target) = self.address(zone) else {
            return Err(Unclear("The road is closed.".into()));
        };
        if self
            .requests
            .values()
            .any(|purpose| *purpose == Purpose::Crossing { seat })
        {
            return Err(Unclear("You are on your way already.".into()));
        }
        self.narrate(
            ctx,
            &person.room,
            Some(seat),
            &format!("{} goes {direction}.", person.name),
        );
        let place = |zone: &str, room: &str| Place {
            zone: zone.to_owned(),
            room: room.to_owned(),
        };
        let passage = Passage {
            from: place(&self.zone, &person.room),
            to: place(zone, next),
            carried: person.carried,
        };
        let number = self.ask(Purpose::Crossing { seat });
        ctx.mail().transfer_json(number, seat, &target, &passage);
        Ok(())
    }

    /// A player who left comes back by `join`; one who could not even leave is told here.
    pub(crate) fn crossing_failed(&mut self, ctx: &mut Context, seat: Seat) {
        if self.people.contains_key(&seat) {
            tell(ctx, seat, "error", "The road is closed.");
        }
    }

    /// The description of a room as a line, for those who have no `view`.
    pub(crate) fn look(&self, ctx: &mut Context, seat: Seat) -> Result<(), Unclear> {
        let person = self.person(seat)?;
        let room = self.room(&person.room);
        let exits: Vec<String> = room
            .exits
            .iter()
            .map(|(direction, _)| (*direction).to_owned())
            .collect();
        let mut line = format!("{}. {} You can go {}.", room.title, room.text, crate::list(&exits));
        let items: Vec<String> = self
            .floors
            .get(room.name)
            .into_iter()
            .flatten()
            .map(|item| self.name_of(item))
            .collect();
        if !items.is_empty() {
            line += &format!(" Here lies {}.", crate::list(&items));
        }
        let mut present: Vec<String> = self
            .in_room(room.name)
            .into_iter()
            .filter(|other| *other != seat)
            .filter_map(|other| self.people.get(&other).map(|one| one.name.clone()))
            .collect();
        present.extend(self.actors_in(room.name).into_iter().map(str::to_owned));
        if !present.is_empty() {
            line += &format!(" Here is {}.", crate::list(&present));
        }
        tell(ctx, seat, "look", &line);
        Ok(())
    }

    pub(crate) fn announce_soon(&self, ctx: &mut Context) {
        ctx.set_timer(timer::ROSTER, ROSTER_AFTER_MS);
    }
}

/// The neighbours of a zone, in the order of the map.
pub(crate) fn other_zones(zone: &str) -> impl Iterator<Item = &'static str> + '_ {
    map::ZONES
        .iter()
        .map(|other| other.name)
        .filter(move |other| *other != zone)
}
