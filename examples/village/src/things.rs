//! Things that lie about and can be carried. A thing is its id; how it looks is the shared content `items/<id>`,
//! `{"name": "a brass lantern", "text": "…"}`, which operators may change while the world runs. Until it is published a thing is
//! plainly what its id says.

use rookery_sdk::Value;
use rookery_sdk::prelude::*;
use serde::{Deserialize, Serialize};

use crate::command::Unclear;
use crate::{Purpose, Village, list, tell};

/// Where the shared content keeps how items look.
pub(crate) const COLLECTION: &str = "items";
/// More than this nobody can carry.
const CARRIED_MAX: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    name: String,
    #[serde(default)]
    text: String,
}

impl Village {
    pub(crate) fn get(&mut self, ctx: &mut Context, seat: Seat, thing: &str) -> Result<(), Unclear> {
        let person = self.person(seat)?;
        if person.carried.len() >= CARRIED_MAX {
            return Err(Unclear("Your hands are full.".into()));
        }
        let (room, name) = (person.room.clone(), person.name.clone());
        let floor = self.floors.get(&room);
        let Some(at) = floor.and_then(|floor| self.find(floor, thing)) else {
            return Err(Unclear(format!("There is no {thing} here.")));
        };
        let item = self.floors.entry(room.clone()).or_default().remove(at);
        let called = self.name_of(&item);
        if let Some(person) = self.people.get_mut(&seat) {
            person.carried.push(item);
        }
        tell(ctx, seat, "got", &format!("You take {called}."));
        self.narrate(ctx, &room, Some(seat), &format!("{name} takes {called}."));
        self.refresh(ctx, &room);
        Ok(())
    }

    pub(crate) fn put_down(&mut self, ctx: &mut Context, seat: Seat, thing: &str) -> Result<(), Unclear> {
        let person = self.person(seat)?;
        let (room, name) = (person.room.clone(), person.name.clone());
        let Some(at) = self.find(&person.carried, thing) else {
            return Err(Unclear(format!("You have no {thing}.")));
        };
        let Some(person) = self.people.get_mut(&seat) else {
            return Ok(());
        };
        let item = person.carried.remove(at);
        let called = self.name_of(&item);
        self.floors.entry(room.clone()).or_default().push(item);
        tell(ctx, seat, "dropped", &format!("You put down {called}."));
        self.narrate(ctx, &room, Some(seat), &format!("{name} puts down {called}."));
        self.refresh(ctx, &room);
        Ok(())
    }

    pub(crate) fn inventory(&self, ctx: &mut Context, seat: Seat) -> Result<(), Unclear> {
        let carried: Vec<String> = self
            .person(seat)?
            .carried
            .iter()
            .map(|item| self.name_of(item))
            .collect();
        tell(ctx, seat, "inventory", &format!("You carry {}.", list(&carried)));
        Ok(())
    }

    pub(crate) fn examine(&self, ctx: &mut Context, seat: Seat, thing: &str) -> Result<(), Unclear> {
        let person = self.person(seat)?;
        let floor = self.floors.get(&person.room).map(Vec::as_slice).unwrap_or_default();
        let near = [floor, &person.carried];
        let found = near
            .iter()
            .find_map(|items| self.find(items, thing).map(|at| &items[at]));
        let Some(item) = found else {
            return Err(Unclear(format!("You see no {thing} here.")));
        };
        let line = match self.catalogue.get(item) {
            Some(description) if !description.text.is_empty() => format!("{}: {}", description.name, description.text),
            _ => format!("{}. There is nothing more to say about it yet.", self.name_of(item)),
        };
        tell(ctx, seat, "look", &line);
        Ok(())
    }

    /// Things as clients see them.
    pub(crate) fn named(&self, items: Option<&Vec<String>>) -> Vec<Value> {
        let items = items.into_iter().flatten();
        items
            .map(|item| json!({ "id": item, "name": self.name_of(item) }))
            .collect()
    }

    pub(crate) fn name_of(&self, item: &str) -> String {
        match self.catalogue.get(item) {
            Some(description) => description.name.clone(),
            None => format!("a plain {item}"),
        }
    }

    /// Asks how every thing here looks whose looks are not known: the content may not have been published yet, or the store away.
    pub(crate) fn describe_unknown(&mut self, ctx: &mut Context) {
        let carried = self.people.values().flat_map(|person| &person.carried);
        let items: Vec<String> = self.floors.values().flatten().chain(carried).cloned().collect();
        self.describe(ctx, &items);
    }

    pub(crate) fn describe(&mut self, ctx: &mut Context, items: &[String]) {
        for item in items {
            let asked = Purpose::Describe { item: item.clone() };
            if !self.catalogue.contains_key(item) && !self.requests.values().any(|purpose| *purpose == asked) {
                let number = self.ask(asked);
                ctx.read_content(number, COLLECTION, item);
            }
        }
    }

    /// The content of an item was changed; only what this zone has met is of interest.
    pub(crate) fn describe_again(&mut self, ctx: &mut Context, item: String) {
        self.catalogue.remove(&item);
        self.describe_unknown(ctx);
        self.refresh_all(ctx);
    }

    pub(crate) fn described(&mut self, ctx: &mut Context, item: String, outcome: Result<Vec<Entry>, Failure>) {
        let entry = outcome.ok().and_then(|entries| entries.into_iter().next());
        let Some(entry) = entry else {
            // Not published: asked again at the next upkeep.
            return;
        };
        match entry.data.json::<Description>() {
            Ok(description) => {
                self.catalogue.insert(item, description);
                self.refresh_all(ctx);
            }
            Err(error) => ctx.warn(&format!("items/{item} is not a description: {error}")),
        }
    }

    /// A thing by its id or by a word of its name.
    fn find(&self, items: &[String], word: &str) -> Option<usize> {
        items.iter().position(|item| {
            item == word
                || self
                    .name_of(item)
                    .to_ascii_lowercase()
                    .split_whitespace()
                    .any(|part| part == word)
        })
    }
}
