//! A small world of three matches on three nodes and a post that delays, reorders, doubles and loses. Players walk between the
//! matches and their connections follow as far as they are told; the matches write to each other, and are moved to other nodes at
//! any time. Each seed is one run, and a failing one prints its number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::OnceLock;

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rookery_protocol::client::{JoinRole, Role};
use rookery_protocol::output::{Attachment, Audience, Body};
use rookery_protocol::peer::{Item, JoinRequest, Letter, Receipt, Standing, Up, UpBody, WirePayload};
use rookery_protocol::{MatchId, NodeLife, PlayerId, Seat, SessionId};

use super::super::{Resumption, Room, RoomConfig, RoomEffect};
use super::Absence;
use crate::matches::effect::{Effect, EffectId};
use crate::matches::event::EndReason;
use crate::matches::machine::Match;
use crate::matches::part::{FORWARDED_FOR_MS, FORWARDS_MAX, HostPart, StartRecord};
use crate::session::trail::{Found, Next, Trail, Word as Answer};
use crate::wasm::{Engine, EngineConfig, Module};

const SEEDS: u64 = 200;
const STEP_MS: u64 = 20;
const PLAYERS: u128 = 9;
const ITEMS: u64 = 10;

fn courier() -> &'static Module {
    static COURIER: OnceLock<Module> = OnceLock::new();
    COURIER.get_or_init(|| {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let component = include_bytes!("../../../../../tests/guests/courier/courier.wasm");
        engine.compile(component).unwrap()
    })
}

fn life(name: &str) -> NodeLife {
    NodeLife {
        name: name.parse().unwrap(),
        generation: 1,
    }
}

enum Word {
    Letter(Box<Letter>),
    Receipt(Receipt),
}

struct Place {
    life: NodeLife,
    room: Room,
    /// What each sender's letters said, in the order in which the match heard them.
    heard: BTreeMap<String, Vec<u64>>,
    answers: Vec<String>,
    held: Vec<u64>,
    told: u64,
    /// The highest output that the gateway has of it: whoever goes on with the match says some again.
    last: u64,
}

/// A player's connection: what it was told of where its player is.
#[derive(Debug, Clone, Copy)]
struct Connection {
    at: usize,
    /// None while it asks.
    seat: Option<Seat>,
}

struct World {
    rng: Xoshiro256PlusPlus,
    now_ms: u64,
    places: Vec<Place>,
    connections: Vec<Connection>,
    /// How often a match was moved.
    moves: usize,
    /// Sessions that were called after their players.
    calls: Vec<SessionId>,
    /// When, to which place, from which node.
    post: VecDeque<(u64, usize, NodeLife, Word)>,
    /// When the last of what is on its way from one place to another arrives: most things stay in their order.
    last_ms: BTreeMap<(usize, usize), u64>,
    faults: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let places = (0..3usize).map(|index| {
            let mut start = StartRecord::new(MatchId::from_u128(index as u128 + 1), courier(), seed, 0);
            start.params = Bytes::from(format!("{{\"refuse\":{}}}", if index == 2 { 3 } else { 0 }));
            let life = life(["a", "b", "c"][index]);
            let mut room = Room::new(
                Match::create(courier(), start).unwrap(),
                RoomConfig::of_tests(life.name.clone(), 1),
            );
            room.start(0, &mut Vec::new()).unwrap();
            room.release(0, &mut Vec::new());
            Place {
                life,
                room,
                heard: BTreeMap::new(),
                answers: Vec::new(),
                held: Vec::new(),
                told: 0,
                last: 0,
            }
        });
        let places = places.collect();
        let mut world = World {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            now_ms: 0,
            places,
            connections: (0..PLAYERS as usize)
                .map(|player| Connection {
                    at: player % 2,
                    seat: None,
                })
                .collect(),
            moves: 0,
            calls: Vec::new(),
            post: VecDeque::new(),
            last_ms: BTreeMap::new(),
            faults: false,
        };
        for player in 0..PLAYERS {
            // The third turns some away.
            let place = (player % 2) as usize;
            let request = JoinRequest {
                req: player as u64,
                player: PlayerId::from_u128(player + 100),
                name: format!("p{player}"),
                role: JoinRole::Player,
                ctx: WirePayload::Json(Bytes::from(format!("{{\"items\":{ITEMS}}}"))),
                attachment: attachment(player),
                is_following: false,
            };
            world.up(place, UpBody::Join(Box::new(request)));
        }
        world
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    fn up(&mut self, place: usize, body: UpBody) {
        let target = self.places[place].room.id();
        let now_ms = self.now_ms;
        let up = Up {
            target,
            stream: 1,
            body,
        };
        self.step_room(place, |room, out| room.up(now_ms, &life("gateway"), up, out));
    }

    /// Steps a room, and puts what it says into the post.
    fn step_room(&mut self, place: usize, step: impl FnOnce(&mut Room, &mut Vec<RoomEffect>)) {
        let mut out = Vec::new();
        let now_ms = self.now_ms;
        let room = &mut self.places[place].room;
        room.finish_busy(now_ms, &mut out);
        step(room, &mut out);
        for effect in out {
            let (to, word) = match effect {
                RoomEffect::Letter(letter) => (letter.to, Word::Letter(letter)),
                RoomEffect::Receipt { receipt, .. } => (receipt.to, Word::Receipt(receipt)),
                RoomEffect::Over(_) | RoomEffect::Seated { .. } | RoomEffect::Log { .. } => continue,
                RoomEffect::Call { to, from, session } => {
                    let here = self.places[place].room.id();
                    assert!(to == life("gateway") && from != here, "{to:?} is told of {from}");
                    self.calls.push(session);
                    continue;
                }
                other => panic!("nothing else is asked for: {other:?}"),
            };
            let from = self.places[place].life.clone();
            let index = self.places.iter().position(|place| place.room.id() == to);
            let index = index.expect("all mail is for one of the three");
            let mut due_ms = self.now_ms + self.below(80);
            let last_ms = self.last_ms.get(&(place, index)).copied().unwrap_or_default();
            if !self.faults || self.below(16) > 0 {
                due_ms = due_ms.max(last_ms);
            }
            self.last_ms.insert((place, index), due_ms.max(last_ms));
            self.post.push_back((due_ms, index, from, word));
        }
        self.listen(place);
    }

    fn listen(&mut self, place: usize) {
        let ids: Vec<MatchId> = self.places.iter().map(|place| place.room.id()).collect();
        let connections = &mut self.connections;
        let Place {
            room,
            heard,
            answers,
            held,
            last,
            ..
        } = &mut self.places[place];
        room.flush(|_, frame| {
            for item in frame.items {
                match &item {
                    Item::Moved { req, to, .. } => {
                        let at = ids.iter().position(|id| id == to).expect("one of the three");
                        connections[*req as usize] = Connection { at, seat: None };
                    }
                    Item::Refused { req, refusal } => panic!("nobody knows where player {req} is: {refusal:?}"),
                    _ => {}
                }
                let Item::Output(output) = item else { continue };
                if output.seq <= *last {
                    continue;
                }
                *last = output.seq;
                match (&output.body, &output.audience) {
                    (Body::Joined(joined), _) => {
                        let player = joined.attachment.session.to_u128() - 1;
                        let seat = Some(joined.seat);
                        connections[player as usize] = Connection { at: place, seat };
                    }
                    (Body::Transferring, Audience::One(seat)) => {
                        let sat =
                            |connection: &&mut Connection| connection.at == place && connection.seat == Some(*seat);
                        if let Some(connection) = connections.iter_mut().find(sat) {
                            connection.seat = None;
                        }
                    }
                    _ => {}
                }
                let Body::Data { data } = &output.body else { continue };
                let said: serde_json::Value = serde_json::from_slice(data).unwrap();
                if let Some(text) = said["mail"].as_str() {
                    let from = said["from"].as_str().unwrap().to_owned();
                    heard.entry(from).or_default().push(text.parse().unwrap());
                }
                if let Some(error) = said["error"].as_str() {
                    answers.push(error.to_owned());
                }
                held.extend(said["held"].as_u64());
            }
            true
        });
    }

    fn say(&mut self, place: usize, player: u128, data: String) {
        let player_id = PlayerId::from_u128(player + 100);
        let Some(seat) = self.places[place].room.game().part().seat_of(player_id) else {
            return;
        };
        self.up(
            place,
            UpBody::Input {
                seat,
                attachment: 1,
                n: 0,
                id: None,
                data: data.into(),
            },
        );
    }

    fn where_is(&self, player: u128) -> Vec<usize> {
        let player = PlayerId::from_u128(player + 100);
        let sits = |index: &usize| self.places[*index].room.game().part().seat_of(player).is_some();
        (0..3).filter(sits).collect()
    }

    fn step(&mut self, faults: bool) {
        self.faults = faults;
        self.now_ms += STEP_MS;
        let now_ms = self.now_ms;
        let waiting = std::mem::take(&mut self.post);
        let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(due_ms, ..)| *due_ms <= now_ms);
        self.post.extend(later);
        let loses = faults && self.below(6) == 0;
        for (_, place, from, word) in due {
            if loses && self.below(2) == 0 {
                continue;
            }
            let twice = faults && self.below(8) == 0;
            match word {
                Word::Letter(letter) => {
                    for _ in 0..=usize::from(twice) {
                        let (from, letter) = (from.clone(), (*letter).clone());
                        self.step_room(place, |room, out| room.letter(now_ms, &from, letter, out));
                    }
                }
                Word::Receipt(receipt) => {
                    for _ in 0..=usize::from(twice) {
                        let (from, receipt) = (from.clone(), receipt.clone());
                        self.step_room(place, |room, out| room.receipt(now_ms, &from, receipt, out));
                    }
                }
            }
        }
        for place in 0..3 {
            self.step_room(place, |room, out| room.wake(now_ms, || true, out));
        }
        for player in 0..PLAYERS {
            assert!(self.where_is(player).len() <= 1, "player {player} is in two places");
        }
    }

    /// Somebody walks, and somebody writes. Walkers' connections follow at once.
    fn live(&mut self) {
        let player = u128::from(self.below(u64::from(PLAYERS as u32)));
        let to = self.below(3) as usize;
        let target = self.places[to].room.id();
        if let [place] = self.where_is(player)[..] {
            if place != to && self.below(2) == 0 {
                self.say(place, player, format!("{{\"go\":\"{target}\"}}"));
            } else {
                self.places[place].told += 1;
                let text = self.places[place].told;
                self.say(place, player, format!("{{\"tell\":\"{target}\",\"text\":\"{text}\"}}"));
            }
        }
        self.follow();
    }

    /// Connections that have no seat ask where they were told last that their player is.
    fn follow(&mut self) {
        for player in 0..PLAYERS {
            let Connection { at, seat: None } = self.connections[player as usize] else {
                continue;
            };
            self.ask_for(at, player);
        }
    }

    fn ask_for(&mut self, place: usize, player: u128) {
        let request = JoinRequest {
            req: player as u64,
            player: PlayerId::from_u128(player + 100),
            name: format!("p{player}"),
            role: JoinRole::Player,
            ctx: WirePayload::Absent,
            attachment: attachment(player),
            is_following: true,
        };
        self.up(place, UpBody::Join(Box::new(request)));
    }

    /// What the player is to a match, as its owner says.
    fn standing(&self, target: MatchId, player: u128) -> Standing {
        let place = self.places.iter().find(|place| place.room.id() == target);
        let place = place.expect("one of the three");
        place.room.standing_of(PlayerId::from_u128(player + 100))
    }

    /// Asks where a player is, from a match on, while everything goes on and some questions have no answer. Says after how many
    /// transfers that is known, if it is.
    fn trace(&mut self, first: usize, player: u128, faults: bool) -> (Found, usize) {
        let mut trail = Trail::new(self.places[first].room.id());
        let mut hops = 0;
        for _ in 0..30 {
            let is_silent = faults && self.below(4) == 0;
            let answer = match is_silent {
                true => Answer::Silence,
                false => Answer::Standing(self.standing(trail.at(), player)),
            };
            match trail.heard(answer) {
                Next::Found(found) => return (found, hops),
                Next::Ask => hops += 1,
                Next::AskAgain => {}
            }
            if faults {
                self.step(true);
                self.live();
            }
        }
        (trail.out_of_time(), hops)
    }

    fn heal(&mut self) {
        for _ in 0..400 {
            self.step(false);
            self.follow();
        }
    }

    /// The match goes on on another node, with what its owner hands over; what is said to it meanwhile is lost.
    fn move_place(&mut self, place: usize) {
        self.moves += 1;
        let (now_ms, mut out) = (self.now_ms, Vec::new());
        let Place { room, life, .. } = &mut self.places[place];
        let handed = room.hand_over(now_ms, &mut out).expect("it runs");
        assert!(out.is_empty(), "{out:?}");
        life.generation += 1;
        let part = HostPart::decode(&handed.part).unwrap().resumed(0, 0);
        let epoch = room.epoch() + 1;
        *room = Room::new(
            Match::restore(courier(), part).unwrap(),
            RoomConfig::of_tests(life.name.clone(), epoch),
        );
        room.take_streams(handed.streams);
        let loaded = room.load(now_ms, Resumption::Moved, "1.0.0".into(), handed.state, &mut out);
        loaded.unwrap();
        self.post.retain(|(_, to, ..)| *to != place);
        self.step_room(place, |room, out| room.release(now_ms, out));
    }
}

fn attachment(player: u128) -> Attachment {
    Attachment {
        number: 1,
        session: SessionId::from_u128(player + 1),
        node: "gateway".parse().unwrap(),
        generation: 1,
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("ROOKERY_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    }
}

#[test]
fn whatever_the_post_does_mail_is_heard_once_and_in_order_and_nobody_is_lost() {
    let (mut refused, mut moves) = (0, 0);
    for seed in seeds() {
        let mut world = World::new(seed);
        for _ in 0..300 {
            world.step(true);
            world.live();
            if world.below(60) == 0 {
                let place = world.below(3) as usize;
                world.move_place(place);
            }
        }
        world.heal();
        moves += world.moves;
        for player in 0..PLAYERS {
            let places = world.where_is(player);
            assert_eq!(places.len(), 1, "seed {seed}: player {player} is in {places:?}");
            let Connection { at, seat } = world.connections[player as usize];
            assert!(
                places[0] == at && seat.is_some(),
                "seed {seed}: player {player} is in {places:?}, and their connection is at {at} with the seat {seat:?}"
            );
            world.places[places[0]].held.clear();
            world.say(places[0], player, "{\"ask\":true}".into());
            let held = &world.places[places[0]].held;
            assert_eq!(held[..], [ITEMS], "seed {seed}: what player {player} carries");
        }
        let mut numbers: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for place in &world.places {
            assert!(
                place.room.game().part().posted().is_empty() && place.room.game().part().outbox().is_empty(),
                "seed {seed}: something is still on the way"
            );
            assert!(
                place.answers.iter().all(|answer| answer == "Refused"),
                "{:?}",
                place.answers
            );
            refused += place.answers.len();
            for (from, heard) in &place.heard {
                assert!(heard.is_sorted(), "seed {seed}: out of order from {from}: {heard:?}");
                let distinct: BTreeSet<u64> = heard.iter().copied().collect();
                assert_eq!(
                    distinct.len(),
                    heard.len(),
                    "seed {seed}: something from {from} was heard twice"
                );
                numbers.entry(from.clone()).or_default().extend(distinct);
            }
        }
    }
    assert!(
        (refused > 0 && moves > 0) || std::env::var("ROOKERY_SEED").is_ok(),
        "nobody was turned away, or no match was moved"
    );
}

#[test]
fn who_follows_a_player_is_told_where_they_sit_now_whatever_has_been_heard_of_their_transfers() {
    let mut far = 0;
    for seed in seeds().into_iter().take(40) {
        let mut world = World::new(seed);
        for _ in 0..100 {
            world.step(true);
            world.live();
            if world.below(60) == 0 {
                let place = world.below(3) as usize;
                world.move_place(place);
            }
            let player = u128::from(world.below(u64::from(PLAYERS as u32)));
            let first = world.below(3) as usize;
            let from = world.places[first].room.id();
            let (found, hops) = world.trace(first, player, true);
            match found {
                Found::Elsewhere(at) => {
                    let there = world.where_is(player);
                    let there: Vec<MatchId> = there.iter().map(|index| world.places[*index].room.id()).collect();
                    assert_eq!(there, [at], "seed {seed}: player {player}, followed from {from}");
                    far += usize::from(hops > 1);
                }
                Found::There => assert!(
                    matches!(world.standing(from, player), Standing::Seated | Standing::Unknown),
                    "seed {seed}: player {player} has left {from} by a transfer"
                ),
                Found::OnTheWay => {}
            }
        }
        world.heal();
        for player in 0..PLAYERS {
            let there = world.places[world.where_is(player)[0]].room.id();
            for first in 0..3 {
                let from = world.places[first].room.id();
                let expected = match world.standing(from, player) {
                    Standing::Seated | Standing::Unknown => Found::There,
                    Standing::OnTheWay | Standing::Went(_) => Found::Elsewhere(there),
                };
                let (found, _) = world.trace(first, player, false);
                assert_eq!(found, expected, "seed {seed}: player {player}, followed from {from}");
            }
        }
    }
    assert!(
        far > 0 || std::env::var("ROOKERY_SEED").is_ok(),
        "nobody was followed along two transfers"
    );
}

#[test]
fn a_match_with_players_on_the_way_ends_when_they_are_settled() {
    let mut world = World::new(1);
    let target = world.places[1].room.id();
    world.say(0, 0, format!("{{\"go\":\"{target}\",\"finish\":true}}"));
    assert!(
        world.places[0].room.verdict().is_none(),
        "somebody may have to come back"
    );
    for _ in 0..50 {
        world.step(false);
    }
    assert!(world.places[0].room.verdict().is_some());
    assert_eq!(world.where_is(0), [1]);

    // A match that is over turns nobody in, and says so.
    world.say(1, 0, format!("{{\"go\":\"{}\"}}", world.places[0].room.id()));
    for _ in 0..50 {
        world.step(false);
    }
    assert_eq!(world.where_is(0), [1], "back, with a new seat");
    assert!(world.places[1].answers.contains(&"NoTarget".to_owned()));
}

#[test]
fn letters_on_their_way_are_part_of_the_match_and_go_on_elsewhere() {
    let mut world = World::new(2);
    let target = world.places[1].room.id();
    world.say(0, 0, format!("{{\"tell\":\"{target}\",\"text\":\"1\"}}"));
    world.say(0, 0, format!("{{\"go\":\"{target}\"}}"));
    let part = world.places[0].room.game().part();
    assert_eq!((part.posted().len(), part.outbox().len()), (2, 2));
    assert_eq!(HostPart::decode(&part.encode()).unwrap(), *part);
    world.post.clear();
    // Said again after a second, and after another if they overtake each other.
    for _ in 0..200 {
        world.step(false);
    }
    assert_eq!(world.where_is(0), [1], "what was lost is said again");
    assert_eq!(
        world.places[1].heard.values().flatten().copied().collect::<Vec<_>>(),
        [1]
    );
}

#[test]
fn a_connection_that_asks_late_is_told_where_its_player_is_though_the_match_was_moved_meanwhile() {
    let mut world = World::new(5);
    let target = world.places[1].room.id();
    world.say(0, 0, format!("{{\"go\":\"{target}\"}}"));
    for _ in 0..20 {
        world.step(false);
    }
    assert!(world.places[0].room.game().part().outbox().is_empty(), "it is settled");
    world.move_place(0);
    assert_eq!(world.connections[0].seat, None, "it has not asked yet");
    world.follow();
    assert_eq!(world.connections[0].at, 1);
    world.follow();
    assert!(world.connections[0].seat.is_some());

    // Who has come back is nowhere else, and later nobody asks any more.
    let here = world.places[0].room.id();
    world.say(1, 0, format!("{{\"go\":\"{here}\"}}"));
    for _ in 0..20 {
        world.step(false);
        world.follow();
    }
    let player = PlayerId::from_u128(100);
    let went = |world: &World, place: usize| world.places[place].room.game().part().forward_of(player);
    assert_eq!((went(&world, 0), went(&world, 1)), (None, Some(here)));
    for _ in 0..FORWARDED_FOR_MS / STEP_MS {
        world.step(false);
    }
    world.say(1, 1, "{\"ask\":true}".into());
    assert_eq!(went(&world, 1), None);
}

#[test]
fn the_oldest_of_too_many_players_who_went_is_forgotten_first() {
    let world = World::new(6);
    let part = world.places[0].room.game().part();
    let mut part = HostPart::decode(&part.encode()).unwrap();
    let target = world.places[1].room.id();
    for who in 0..=FORWARDS_MAX as u128 {
        // The newest have the lowest ids.
        let player = PlayerId::from_u128(10_000 - who);
        let at_ms = who as u64;
        part.now_ms = at_ms;
        let effect = EffectId {
            incarnation: 0,
            event: at_ms,
            index: 0,
        };
        part.outbox.insert(effect, transfer(player));
        assert!(part.post(effect, target));
        part.note_forward(effect);
        part.settle(effect);
    }
    assert_eq!(part.forwards.len(), FORWARDS_MAX);
    assert_eq!(part.forward_of(PlayerId::from_u128(10_000)), None);
    assert_eq!(part.forward_of(PlayerId::from_u128(9_999)), Some(target));
}

fn transfer(player: PlayerId) -> Effect {
    Effect::Transfer {
        request: 1,
        seat: 1,
        player,
        name: String::new(),
        role: Role::Player,
        team: None,
        attachment: None,
        is_away: false,
        target: String::new(),
        ctx: Bytes::new(),
    }
}

#[test]
fn an_input_that_sends_its_player_away_is_answered_before_the_player_is_gone() {
    for n in [0, 1] {
        let mut world = World::new(7);
        let target = world.places[1].room.id();
        let room = &mut world.places[0].room;
        let seat = room.game().part().seat_of(PlayerId::from_u128(100)).unwrap();
        let up = Up {
            target: room.id(),
            stream: 1,
            body: UpBody::Input {
                seat,
                attachment: 1,
                n,
                id: (n == 0).then_some(9),
                data: format!("{{\"go\":\"{target}\"}}").into(),
            },
        };
        room.up(0, &life("gateway"), up, &mut Vec::new());
        let items = said(room);
        let answered = items.iter().position(|item| match item {
            Item::Applied { id, .. } => *id == 9,
            Item::Ack { n: acked, .. } => *acked == n,
            _ => false,
        });
        let is_away = |item: &Item| matches!(item, Item::Output(output) if output.body == Body::Transferring);
        let gone = items.iter().position(is_away);
        assert!(answered.is_some() && answered < gone, "{n}: {items:?}");

        // The frame is lost: what has a number is acknowledged again, before the seat is gone again.
        let (target, body) = (room.id(), UpBody::Resume { last: 0 });
        room.up(
            0,
            &life("gateway"),
            Up {
                target,
                stream: 1,
                body,
            },
            &mut Vec::new(),
        );
        let again = said(room);
        let acked = again.iter().position(|item| matches!(item, Item::Ack { n: 1, .. }));
        assert_eq!(acked.is_some(), n == 1, "{again:?}");
        assert!(acked.is_none() || acked < again.iter().position(is_away), "{again:?}");
    }
}

/// What the gateway is told now.
fn said(room: &mut Room) -> Vec<Item> {
    let mut items = Vec::new();
    room.flush(|_, frame| {
        items.extend(frame.items);
        true
    });
    items
}

#[test]
fn a_player_whose_connection_does_not_follow_is_away() {
    let mut world = World::new(3);
    let target = world.places[1].room.id();
    world.say(0, 0, format!("{{\"go\":\"{target}\"}}"));
    for _ in 0..700 {
        world.step(false);
    }
    let part = world.places[1].room.game().part();
    let seat = part.seat_of(PlayerId::from_u128(100)).unwrap();
    assert!(part.seat(seat).unwrap().away_since_ms.is_some());
    // It is called each second, until it follows.
    let calls = world.calls.len();
    assert!((10..=14).contains(&calls), "{calls} calls in 14 s");
    assert!(world.calls.iter().all(|session| *session == attachment(0).session));
    world.ask_for(1, 0);
    assert!(world.connections[0].seat.is_some());
    for _ in 0..200 {
        world.step(false);
    }
    assert_eq!(world.calls.len(), calls);
    world.places[1]
        .room
        .end(world.now_ms, EndReason::Operator, &mut Vec::new());
    assert!(world.places[1].room.verdict().is_some());
}

#[test]
fn what_certainly_was_not_heard_is_answered_and_what_may_have_been_is_not() {
    // How often the letter was carried, how often nobody heard it there, and whether its sender is told.
    for (carried, not_heard, is_told) in [(0, 0, true), (1, 1, true), (2, 2, true), (1, 0, false), (2, 1, false)] {
        let mut world = World::new(4);
        let target = world.places[1].room.id();
        world.say(0, 0, format!("{{\"tell\":\"{target}\",\"text\":\"1\"}}"));
        let number = *world.places[0].room.game().part().posted().first_key_value().unwrap().0;
        for _ in 0..carried {
            world.places[0].room.carried(number);
        }
        for _ in 0..not_heard {
            world.places[0].room.not_heard(number);
        }
        world.step_room(0, |room, out| room.target_gone(0, target, Absence::Gone, out));
        let answers = &world.places[0].answers;
        // Everybody in the match hears it.
        assert_eq!(
            answers.contains(&"NoTarget".to_owned()),
            is_told,
            "carried {carried} times: {answers:?}"
        );
        assert!(world.places[0].room.game().part().outbox().is_empty());
    }
}
