//! The whole village on mock hosts: nine zones, and a post between them that carries letters, players and names as nodes would.

use std::collections::{BTreeMap, VecDeque};

use rookery_sdk::Value;
use rookery_sdk::mock::{Host, Request};
use rookery_sdk::prelude::*;

use crate::Village;
use crate::command::{Command, TEXT_MAX, Unclear};
use crate::map::{self, Way};

/// The content that is published; the fallback is tested without.
const ITEMS: &[(&str, &str, &str)] = &[
    ("coin", "a worn coin", "Somebody's head, worn to a smile."),
    ("lantern", "a brass lantern", "It smells of oil."),
];

/// All zones, and what is on the way between them.
struct World {
    zones: BTreeMap<&'static str, Host<Village>>,
    names: BTreeMap<String, &'static str>,
    published: bool,
    /// Zones that nobody reaches.
    closed: Vec<&'static str>,
    said: Vec<(String, String)>,
}

impl World {
    fn new() -> Self {
        Self::with_seed(1)
    }

    fn with_seed(seed: u64) -> Self {
        let zones = map::ZONES.iter().enumerate().map(|(index, zone)| {
            let builder = Host::builder().name(&format!("village/{}", zone.name));
            (zone.name, builder.seed(seed * 100 + index as u64).start().unwrap())
        });
        let mut world = Self {
            zones: zones.collect(),
            names: BTreeMap::new(),
            published: true,
            closed: Vec::new(),
            said: Vec::new(),
        };
        world.deliver();
        world
    }

    fn at(&mut self, zone: &str) -> &mut Host<Village> {
        self.zones.get_mut(zone).unwrap()
    }

    fn target(&self, target: &str) -> Option<&'static str> {
        let zone = match target.strip_prefix("village/").or(target.strip_prefix("id:")) {
            Some(zone) => map::zone(zone).map(|zone| zone.name),
            None => self.names.get(target).copied(),
        };
        zone.filter(|zone| !self.closed.contains(zone))
    }

    /// Carries until nothing is on the way. A zone is known to others by `id:<zone>`, as a node tells match ids.
    fn deliver(&mut self) {
        let mut waiting: VecDeque<(&'static str, Request)> = VecDeque::new();
        let mut seats: BTreeMap<(&'static str, Seat), String> = BTreeMap::new();
        for _ in 0..10_000 {
            for (zone, host) in &mut self.zones {
                for (seat, person) in &host.game().people {
                    seats.insert((*zone, *seat), person.name.clone());
                }
                waiting.extend(host.take_requests().into_iter().map(|request| (*zone, request)));
            }
            let Some((zone, request)) = waiting.pop_front() else {
                return;
            };
            let sender = format!("id:{zone}");
            match request {
                Request::Tell { request, target, data } => match self.target(&target) {
                    Some(target) => self.at(target).receive(&sender, data),
                    None => self.at(zone).answer(request, Err(Failure::NoTarget)),
                },
                Request::Transfer {
                    request, target, ctx, ..
                } => {
                    // The seat is gone by now; the passage knows from where, and the player is who crossed last.
                    let name = TRAVELLER.with_borrow(|name| name.clone());
                    match self.target(&target) {
                        Some(target) => {
                            self.at(target).transfer(&name, &sender, ctx).unwrap();
                        }
                        None => {
                            self.at(zone).answer(request, Err(Failure::NoTarget));
                            self.at(zone).turn_back(&name, &target, ctx);
                        }
                    }
                }
                Request::Claim { request, name } => {
                    let holder = *self.names.entry(name).or_insert(zone);
                    let outcome = if holder == zone {
                        Ok(Vec::new())
                    } else {
                        Err(Failure::Taken)
                    };
                    self.at(zone).answer(request, outcome);
                }
                Request::Release { name } => {
                    if self.names.get(&name) == Some(&zone) {
                        self.names.remove(&name);
                    }
                }
                Request::Content {
                    request,
                    collection,
                    key,
                } => {
                    assert_eq!(collection, "items");
                    let entry = ITEMS
                        .iter()
                        .find(|(id, _, _)| self.published && *id == key)
                        .map(|(_, name, text)| Entry {
                            key,
                            data: json!({ "name": name, "text": text }).into(),
                            version: "1".into(),
                        });
                    self.at(zone).answer(request, Ok(entry.into_iter().collect()));
                }
                Request::Say { channel, text } => self.said.push((channel, text)),
                other => panic!("the village asks for {other:?}"),
            }
        }
        panic!("the zones never stop writing to each other");
    }

    fn type_line(&mut self, zone: &str, seat: Seat, line: &str) {
        let name = self.at(zone).game().people.get(&seat).map(|person| person.name.clone());
        TRAVELLER.with_borrow_mut(|traveller| *traveller = name.unwrap_or_default());
        self.at(zone).message(seat, json!(line));
        self.deliver();
    }

    /// Where a player is.
    fn find(&self, name: &str) -> Vec<(&'static str, Seat)> {
        let all = self.zones.iter().flat_map(|(zone, host)| {
            let people = host.game().people.iter();
            people.map(move |(seat, person)| (*zone, *seat, person.name.clone()))
        });
        all.filter(|(_, _, one)| one == name)
            .map(|(zone, seat, _)| (zone, seat))
            .collect()
    }

    fn does(&mut self, name: &str, line: &str) {
        let [(zone, seat)] = self.find(name)[..] else {
            panic!("{name} is at {:?}", self.find(name));
        };
        self.type_line(zone, seat, line);
    }

    fn advance(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            for host in self.zones.values_mut() {
                host.advance(100);
            }
            self.deliver();
        }
    }

    fn lines(&mut self, name: &str) -> Vec<String> {
        let [(zone, seat)] = self.find(name)[..] else {
            panic!("{name} is at {:?}", self.find(name));
        };
        let heard = self.at(zone).heard_json(seat);
        heard
            .iter()
            .map(|event| event["line"].as_str().unwrap().to_owned())
            .collect()
    }

    fn view(&mut self, name: &str) -> Value {
        let [(zone, seat)] = self.find(name)[..] else {
            panic!("{name} is at {:?}", self.find(name));
        };
        self.at(zone).published_to(seat, "view").unwrap().json().unwrap()
    }

    /// Every item in the world, on floors and in hands.
    fn items(&self) -> Vec<String> {
        let mut items: Vec<String> = Vec::new();
        for host in self.zones.values() {
            items.extend(host.game().floors.values().flatten().cloned());
            items.extend(host.game().people.values().flat_map(|person| person.carried.clone()));
        }
        items.sort();
        items
    }

    fn homes(&self, actor: &str) -> Vec<&'static str> {
        let zones = self
            .zones
            .iter()
            .filter(|(_, host)| host.game().actors.contains_key(actor));
        zones.map(|(zone, _)| *zone).collect()
    }
}

thread_local! {
    static TRAVELLER: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

#[test]
fn the_map_has_nine_zones_and_every_way_leads_back() {
    assert_eq!(map::ZONES.len(), 9);
    let back = |direction: &str| match direction {
        "north" => "south",
        "south" => "north",
        "east" => "west",
        "west" => "east",
        "in" => "out",
        "out" => "in",
        other => panic!("{other} is no way"),
    };
    for zone in map::ZONES {
        for room in zone.rooms {
            for (direction, way) in room.exits {
                let (there, target, home) = match way {
                    Way::Room(name) => (zone.name, *name, Way::Room(room.name)),
                    Way::Zone(there, name) => (*there, *name, Way::Zone(zone.name, room.name)),
                };
                let other = map::zone(there).and_then(|zone| zone.room(target)).unwrap();
                assert_eq!(other.way(back(direction)), Some(home), "{} {direction}", room.title);
            }
        }
    }
}

#[test]
fn lines_are_read_as_people_write_them() {
    let cases = [
        (" look ", Command::Look(None)),
        ("look at the Brass LANTERN", Command::Look(Some("lantern".into()))),
        ("n", Command::Go("north".into())),
        ("go west", Command::Go("west".into())),
        ("'hello there", Command::Say("hello there".into())),
        ("say  hello  there ", Command::Say("hello  there".into())),
        ("take the coin", Command::Get("coin".into())),
        ("i", Command::Inventory),
    ];
    for (line, wanted) in cases {
        assert_eq!(Command::parse(line), Ok(wanted), "{line}");
    }
    let told = Command::parse("tell Ben come to the mill");
    let (to, text) = ("ben".to_owned(), "come to the mill".to_owned());
    assert_eq!(told, Ok(Command::Tell { to, text }));
    for line in ["", "   ", "say", "tell ben", "get", "dance", "go"] {
        assert!(matches!(Command::parse(line), Err(Unclear(_))), "{line}");
    }
    let long = format!("say {}\u{7}", "x".repeat(10_000));
    assert_eq!(Command::parse(&long), Ok(Command::Say("x".repeat(TEXT_MAX))));
}

#[test]
fn a_zone_is_what_its_name_or_its_parameters_say() {
    let mill = Host::<Village>::builder().name("village/mill").start().unwrap();
    assert_eq!((mill.game().zone.as_str(), mill.label("zone")), ("mill", Some("mill")));
    let chosen = Host::<Village>::builder()
        .name("isle/x")
        .params(json!({ "zone": "gate" }))
        .start()
        .unwrap();
    assert_eq!(chosen.game().zone, "gate");
    assert!(Host::<Village>::start(json!({ "zone": "moon" })).is_err());
}

#[test]
fn a_zone_that_is_not_on_the_map_is_a_meadow_and_parameters_of_others_are_no_fault() {
    let mut well = Host::<Village>::builder()
        .name("village/well")
        .params(json!({ "gate": "north" }))
        .start()
        .unwrap();
    let ana = well.join("Ana").unwrap();
    assert_eq!((well.game().zone.as_str(), well.label("zone")), ("well", Some("well")));
    let view: Value = serde_json::from_slice(well.published_to(ana, "view").unwrap()).unwrap();
    assert_eq!(
        view["exits"],
        json!([{ "go": "back", "to": "The village green", "zone": "square" }])
    );
}

#[test]
fn people_in_one_room_see_and_hear_each_other() {
    let mut world = World::new();
    let ana = world.at("square").join("Ana").unwrap();
    let ben = world.at("square").join("Ben").unwrap();
    world.deliver();
    assert_eq!(world.view("Ana")["people"], json!(["Ben"]));
    world.type_line("square", ben, "say good morning");
    let heard = world.at("square").heard_json(ana);
    let said = heard.iter().find(|event| event["event"] == "said").unwrap();
    assert_eq!((&said["from"], &said["text"]), (&json!("Ben"), &json!("good morning")));
    world.does("Ben", "in");
    assert_eq!(world.view("Ana")["people"], json!([]));
    assert!(world.lines("Ana").contains(&"Ben goes in.".to_owned()));
    world.type_line("square", ben, "say anybody?");
    assert!(!world.lines("Ana").contains(&"Ben says: anybody?".to_owned()));
    assert!(
        world
            .said
            .contains(&("world:village".to_owned(), "Ana has come to the village.".to_owned()))
    );
}

#[test]
fn a_player_walks_round_the_village_with_what_they_carry() {
    let mut world = World::new();
    let before = world.items();
    world.at("square").join("Ana").unwrap();
    world.deliver();
    world.does("Ana", "get coin");
    for (way, zone) in [
        ("north", "chapel"),
        ("west", "orchard"),
        ("south", "mill"),
        ("south", "river"),
        ("east", "market"),
        ("east", "gate"),
        ("north", "smithy"),
        ("north", "forest"),
        ("west", "chapel"),
    ] {
        world.does("Ana", way);
        assert_eq!(world.view("Ana")["zone"], json!(zone), "{way}");
        assert_eq!(world.view("Ana")["carried"][0]["name"], json!("a worn coin"));
        assert_eq!(world.items(), before);
    }
    world.does("Ana", "drop coin");
    assert_eq!(world.view("Ana")["carried"], json!([]));
    assert_eq!(world.items(), before);
}

#[test]
fn a_player_whom_the_next_zone_does_not_take_turns_back_with_everything() {
    let mut world = World::new();
    let before = world.items();
    world.at("square").join("Ana").unwrap();
    world.deliver();
    world.does("Ana", "get coin");
    world.closed.push("mill");
    world.does("Ana", "west");
    assert_eq!(world.view("Ana")["zone"], json!("square"));
    assert_eq!(world.view("Ana")["carried"][0]["id"], json!("coin"));
    assert!(world.lines("Ana").iter().any(|line| line.contains("turn back")));
    assert_eq!(world.items(), before);
    world.closed.clear();
    world.does("Ana", "west");
    assert_eq!(world.view("Ana")["zone"], json!("mill"));
}

#[test]
fn what_a_client_claims_to_carry_is_not_believed() {
    let mut world = World::new();
    let passage = json!({
        "from": { "zone": "mill", "room": "wheel" },
        "to": { "zone": "square", "room": "hall" },
        "carried": ["crown"],
    });
    world.at("square").join_as("Eve", Role::Player, passage).unwrap();
    let view = world.view("Eve");
    assert_eq!((&view["carried"], &view["room"]), (&json!([]), &json!("green")));
}

#[test]
fn who_and_tell_reach_the_whole_village() {
    let mut world = World::new();
    world.at("square").join("Ana").unwrap();
    world.at("gate").join("Ben Miller").unwrap();
    world.advance(1_000);
    world.does("Ana", "who");
    let lines = world.lines("Ana");
    assert!(
        lines.contains(&"In the village: Ben Miller (gate) and Ana (square).".to_owned()),
        "{lines:?}"
    );
    assert_eq!(world.view("Ana")["in_village"], json!(2));
    world.does("Ana", "tell BEN meet me at the mill");
    assert!(
        world
            .lines("Ben Miller")
            .contains(&"Ana tells you: meet me at the mill".to_owned())
    );
    assert!(
        world
            .lines("Ana")
            .contains(&"You tell Ben Miller: meet me at the mill".to_owned())
    );
    world.does("Ana", "tell zoe hello");
    assert!(
        world
            .lines("Ana")
            .contains(&"There is no zoe in the village.".to_owned())
    );
    // Gone before the others were told.
    let (zone, seat) = world.find("Ben Miller")[0];
    world.at(zone).leave(seat, LeaveReason::Left);
    world.does("Ana", "tell ben still there?");
    assert!(
        world
            .lines("Ana")
            .contains(&"Ben Miller has just walked on. Try again.".to_owned())
    );
    world.closed.push("gate");
    world.does("Ana", "tell ben and now?");
    assert!(
        world
            .lines("Ana")
            .contains(&"No word reaches Ben Miller now.".to_owned())
    );
}

#[test]
fn an_actor_is_found_by_name_wherever_they_are() {
    let mut world = World::new();
    world.at("gate").join("Ana").unwrap();
    world.does("Ana", "tell wren where are you?");
    let lines = world.lines("Ana");
    assert!(lines.contains(&"You tell Wren: where are you?".to_owned()), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.starts_with("Wren tells you: ")),
        "{lines:?}"
    );
    world.does("Ana", "tell marta a loaf, please");
    assert!(
        world
            .lines("Ana")
            .iter()
            .any(|line| line.starts_with("Marta tells you: "))
    );
}

#[test]
fn a_player_who_bears_an_actors_name_is_told_what_is_meant_for_them() {
    let mut world = World::new();
    world.at("gate").join("Ana").unwrap();
    world.at("mill").join("Wren").unwrap();
    world.advance(1_000);
    world.does("Ana", "tell Wren wait for me");
    assert!(world.lines("Wren").contains(&"Ana tells you: wait for me".to_owned()));
    let lines = world.lines("Ana");
    assert!(lines.contains(&"You tell Wren: wait for me".to_owned()), "{lines:?}");
    assert!(
        !lines.iter().any(|line| line.starts_with("Wren tells you: ")),
        "the pedlar has answered: {lines:?}"
    );
    // With the player gone home the pedlar has the name alone.
    let (zone, seat) = world.find("Wren")[0];
    world.at(zone).leave(seat, LeaveReason::Left);
    world.advance(1_000);
    world.does("Ana", "tell wren and you?");
    let lines = world.lines("Ana");
    assert!(
        lines.iter().any(|line| line.starts_with("Wren tells you: ")),
        "{lines:?}"
    );
}

#[test]
fn two_actors_wander_the_village_and_are_never_in_two_places() {
    for seed in 1..=5 {
        let mut world = World::with_seed(seed);
        let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for _ in 0..600 {
            world.advance(1_000);
            for actor in map::CAST {
                let [zone] = world.homes(actor.id)[..] else {
                    panic!("{} is at {:?}", actor.name, world.homes(actor.id));
                };
                assert_eq!(
                    world.names.get(&format!("village-{}", actor.id)),
                    Some(&zone),
                    "{}",
                    actor.name
                );
                let visited = seen.entry(actor.id).or_default();
                if !visited.contains(&zone) {
                    visited.push(zone);
                }
            }
        }
        let wanderers = map::CAST.iter().filter(|actor| actor.wanders);
        assert_eq!(wanderers.clone().count(), 2);
        for actor in wanderers {
            assert!(
                seen[actor.id].len() >= 4,
                "{} saw only {:?}",
                actor.name,
                seen[actor.id]
            );
        }
        assert_eq!(seen["bakery"], ["market"]);
    }
}

#[test]
fn an_actor_who_was_doubled_is_single_again_and_one_who_was_lost_comes_home() {
    let mut world = World::new();
    // Two zones remember Wren, as after the restore of one from an older state.
    world
        .at("gate")
        .receive("id:mill", json!({ "actor": { "id": "wren", "room": "arch" } }));
    world.deliver();
    assert_eq!(world.homes("wren").len(), 2);
    world.advance(40_000);
    assert_eq!(world.homes("wren").len(), 1);
    // The zone that has Tom is replaced by one that never met him, and holds his name no more after its restore.
    let zone = world.homes("tom")[0];
    let fresh = Host::builder()
        .name(&format!("village/{zone}"))
        .params(json!({ "zone": "river" }));
    world.zones.insert(zone, fresh.start().unwrap());
    world.names.retain(|_, holder| *holder != zone);
    world.advance(40_000);
    assert_eq!(world.homes("tom").len(), 1, "{zone}");
}

#[test]
fn an_actor_who_never_arrives_comes_home_in_the_end() {
    let mut world = World::new();
    let zone = world.homes("wren")[0];
    assert_eq!(zone, "square");
    // The letter arrived, and the zone that read it went on from what it was before.
    for _ in 0..600 {
        world.at("square").advance(100);
        if !world.at("square").game().actors.contains_key("wren") {
            break;
        }
    }
    let requests = world.at("square").take_requests();
    assert!(requests.iter().any(
        |request| matches!(request, Request::Tell { data, .. } if String::from_utf8_lossy(data).contains("actor"))
    ));
    world.advance(10_000);
    assert_eq!(world.homes("wren").len(), 0);
    world.advance(90_000);
    assert_eq!(world.homes("wren").len(), 1);
}

#[test]
fn an_actor_whose_road_is_closed_stays_in_the_zone() {
    let mut world = World::new();
    world.closed = map::ZONES
        .iter()
        .map(|zone| zone.name)
        .filter(|zone| *zone != "square")
        .collect();
    world.advance(120_000);
    assert_eq!(world.homes("wren"), ["square"]);
}

#[test]
fn a_saved_zone_goes_on_as_it_was() {
    let mut world = World::new();
    world.at("square").join("Ana").unwrap();
    world.does("Ana", "get coin");
    let (before, items) = (world.view("Ana"), world.items());
    let pending = world.at("square").game().next_request;
    world.at("square").save_and_load().unwrap();
    world.deliver();
    assert_eq!(world.view("Ana"), before);
    assert_eq!(world.items(), items);
    assert!(
        world.at("square").game().next_request > pending,
        "the restored zone makes itself known"
    );
    assert_eq!(world.homes("wren").len(), 1);
    world.does("Ana", "north");
    assert_eq!(world.view("Ana")["carried"][0]["id"], json!("coin"));
}

#[test]
fn things_are_plain_until_their_description_is_published_and_change_with_it() {
    let mut world = World::new();
    world.published = false;
    let fresh = Host::builder().name("village/square").start().unwrap();
    world.zones.insert("square", fresh);
    let ana = world.at("square").join("Ana").unwrap();
    world.deliver();
    world.does("Ana", "look coin");
    assert!(
        world
            .lines("Ana")
            .contains(&"a plain coin. There is nothing more to say about it yet.".to_owned())
    );
    world.published = true;
    world
        .at("square")
        .signal("content.changed", json!({ "collection": "items", "key": "coin" }));
    world.deliver();
    assert_eq!(
        world.view("Ana")["items"],
        json!([{ "id": "coin", "name": "a worn coin" }])
    );
    world.type_line("square", ana, "look coin");
    assert!(
        world
            .lines("Ana")
            .contains(&"a worn coin: Somebody's head, worn to a smile.".to_owned())
    );
    // Without a signal too: what is not known is asked for again.
    world.does("Ana", "in");
    world.advance(16_000);
    assert_eq!(world.view("Ana")["items"][0]["name"], json!("a brass lantern"));
}

#[test]
fn who_goes_home_leaves_behind_what_they_carried() {
    let mut world = World::new();
    let before = world.items();
    let ana = world.at("square").join("Ana").unwrap();
    world.deliver();
    world.does("Ana", "get coin");
    world.does("Ana", "get moon");
    assert!(world.lines("Ana").contains(&"There is no moon here.".to_owned()));
    world.does("Ana", "inventory");
    assert!(world.lines("Ana").contains(&"You carry a worn coin.".to_owned()));
    world.at("square").leave(ana, LeaveReason::TimedOut);
    assert_eq!(world.at("square").game().floors["green"], ["coin"]);
    assert_eq!(world.items(), before);
}

#[test]
fn the_chapel_clock_is_heard_in_the_whole_world() {
    let mut world = World::new();
    world.advance(121_000);
    let strikes: Vec<&str> = world
        .said
        .iter()
        .map(|(_, text)| text.as_str())
        .filter(|text| text.contains("clock"))
        .collect();
    assert_eq!(strikes, ["The chapel clock strikes 1.", "The chapel clock strikes 2."]);
}

#[test]
fn nonsense_is_answered_and_changes_nothing() {
    let mut world = World::new();
    let ana = world.at("square").join("Ana").unwrap();
    world.deliver();
    let saved = serde_json::to_value(world.at("square").game()).unwrap();
    for input in [
        json!(7),
        json!(null),
        json!({"say": 1}),
        json!("dance"),
        json!("go up"),
        json!("drop moon"),
    ] {
        world.at("square").take_outputs();
        world.at("square").message(ana, input.clone());
        assert_eq!(
            world.at("square").heard_json(ana)[0]["event"],
            json!("error"),
            "{input}"
        );
    }
    world.at("square").receive("id:mill", json!({ "from the future": {} }));
    assert_eq!(serde_json::to_value(world.at("square").game()).unwrap(), saved);
}
