use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use rookery_protocol::client::{LeaveReason, Role};
use rookery_protocol::output::Attachment;
use rookery_protocol::{MatchId, PlayerId, Seat, SessionId};

use super::super::event::{Event, Occupant, Outcome};
use super::super::journal::{Journal, Recorded, Records};
use super::super::machine::RingIn;
use super::super::part::{Admission, StartRecord};
use super::*;
use crate::wasm::{EngineConfig, Module};

const ARENA: &[u8] = include_bytes!("../../../../examples/arena/arena.wasm");
const VILLAGE: &[u8] = include_bytes!("../../../../examples/village/village.wasm");
const DUEL: &[u8] = include_bytes!("../../../../examples/duel/duel.wasm");
const HOSTILE: &[u8] = include_bytes!("../../../../tests/guests/hostile/hostile.wasm");

/// Set to `full`, the long run is a million events long.
const SCALE: &str = "ROOKERY_SCALE";

fn engine() -> Engine {
    Engine::new(EngineConfig::default()).unwrap()
}

fn start(module: &Module) -> StartRecord {
    let mut start = StartRecord::new(MatchId::from_u128(5), module, 7, 1_700_000_000_000);
    start.limits.traps_max = u32::MAX;
    start
}

/// Plays whatever comes, from a seed, as an owner would: with follow-ups at once, and time that goes on.
struct Play {
    game: Match,
    chance: Xoshiro256PlusPlus,
    now_ms: u64,
    applied: Applied,
    traps: usize,
    /// All that happened, from the start.
    tape: Journal,
}

impl Play {
    fn of(module: &Module, seed: u64) -> Play {
        let mut game = Match::create(module, start(module)).unwrap();
        game.remember();
        assert!(game.history().is_some(), "the module can be captured");
        let mut play = Play {
            game,
            chance: Xoshiro256PlusPlus::seed_from_u64(seed),
            now_ms: 0,
            applied: Applied::default(),
            traps: 0,
            tape: Journal::after(0, 0),
        };
        play.apply(Event::Start);
        play
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.chance.next_u64() % limit
    }

    fn apply(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.game.apply(self.now_ms, event, &mut self.applied);
            self.tape.push(&self.applied.record, self.applied.sum().value());
            self.traps += usize::from(matches!(self.applied.record.outcome, Outcome::Trapped(_)));
            assert_eq!(self.applied.given_up, None, "{:?}", self.applied.failure);
            events.extend(self.applied.follow_ups.drain(..));
        }
    }

    /// One thing that may happen in a running match.
    fn step(&mut self, inputs: &[&'static [u8]]) {
        let seats: Vec<Seat> = self.game.part().seats().map(|(seat, _)| seat).collect();
        match self.below(64) {
            0 | 1 => {
                let player = PlayerId::from_u128(self.below(20).into());
                if let Admission::Free { seat, team } = self.game.part().admit(player, Role::Player) {
                    self.join(player, seat, team);
                }
            }
            2 if seats.len() > 1 => {
                let seat = seats[self.below(seats.len() as u64) as usize];
                let reason = LeaveReason::Left;
                self.apply(Event::Leave { seat, reason });
            }
            3 if !seats.is_empty() => {
                let seat = seats[self.below(seats.len() as u64) as usize];
                self.apply(Event::Resync { seat, attach: None });
            }
            4 => self.apply(Event::Save),
            5..=40 => {
                self.now_ms += self.below(60);
                while let Some(id) = self.game.part().due_timer(self.now_ms) {
                    self.apply(Event::Timer { id });
                }
                if let Some(due) = self.game.part().due_tick(self.now_ms) {
                    let elapsed_ms = due.elapsed_ms;
                    self.apply(Event::Tick { elapsed_ms });
                }
            }
            _ if !seats.is_empty() => {
                let seat = seats[self.below(seats.len() as u64) as usize];
                let input = inputs[self.below(inputs.len() as u64) as usize];
                let n = self.game.part().seat(seat).map_or(0, |state| state.last_n + 1);
                let data = Bytes::from_static(input);
                self.apply(Event::Message { seat, n, data });
            }
            _ => {}
        }
    }

    fn join(&mut self, player: PlayerId, seat: Seat, team: Option<u32>) {
        let attachment = Attachment {
            number: 1,
            session: SessionId::from_u128(player.to_u128()),
            node: "node-1".parse().unwrap(),
            generation: 1,
        };
        let occupant = Occupant {
            player,
            name: "Ana".into(),
            role: Role::Player,
            team,
            attachment,
        };
        let ctx = Bytes::new();
        self.apply(Event::Join { seat, occupant, ctx });
    }
}

fn inputs(name: &str) -> &'static [&'static [u8]] {
    match name {
        "arena" => &[&[1, 127, 30], &[2], &[3, 9], &[1, 200, 0], &[7, 7]],
        "duel" => &[br#"{"move":"strike"}"#, br#"{"move":"guard"}"#, b"[]"],
        "village" => &[br#""get coin""#, br#""say hello""#, br#""look""#, br#""north""#],
        _ => &[
            br#"{"n":1}"#,
            br#"{"do":"trap"}"#,
            br#"{"do":"bad_json"}"#,
            br#"{"n":2}"#,
        ],
    }
}

/// The file of a match, as it is read elsewhere, with its component.
fn written(game: &mut Match, component: &'static [u8]) -> Bytes {
    let mut recording = game.take_down().unwrap().record();
    recording.component = Bytes::from_static(component);
    recording.encode()
}

fn played(file: &Bytes) -> Player {
    let mut player = Recording::decode(file).unwrap().play(&engine()).unwrap();
    let mut applied = Applied::default();
    while let Some(played) = player.next(&mut applied) {
        played.unwrap();
    }
    player
}

#[test]
fn a_recording_plays_to_the_same_state_in_another_engine() {
    let engine = engine();
    for (name, component) in [
        ("arena", ARENA),
        ("village", VILLAGE),
        ("duel", DUEL),
        ("hostile", HOSTILE),
    ] {
        let module = engine.compile(component).unwrap();
        for renew_at in [None, Some(0), Some(300)] {
            let mut play = Play::of(&module, 11);
            for step in 0..400 {
                if renew_at == Some(step) {
                    play.game.renew_base();
                }
                play.step(inputs(name));
            }
            assert!(name != "hostile" || play.traps > 10, "{name}: {} traps", play.traps);
            let hash = play.game.state_hash();
            assert!(hash.is_some());
            let file = written(&mut play.game, component);
            let mut player = played(&file);
            assert_eq!(player.finish().unwrap(), hash, "{name}");
            assert_eq!(player.game().part(), play.game.part(), "{name}");
            // Nothing was changed by writing it down.
            assert_eq!(play.game.state_hash(), hash, "{name}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let module = engine().compile(DUEL).unwrap();
    let mut play = Play::of(&module, 3);
    (0..50).for_each(|_| play.step(inputs("duel")));
    let mut recording = play.game.take_down().unwrap().record();
    // Where the component stands a bit is like any other: a short one makes the test short.
    recording.component = Bytes::from_static(b"component");
    let file = recording.encode();
    assert_eq!(Recording::decode(&file).unwrap(), recording);
    for at in 0..file.len() {
        let mut damaged = file.to_vec();
        damaged[at] ^= 1 << (at % 8);
        assert!(Recording::decode(&damaged.into()).is_err(), "byte {at}");
    }
    for len in 0..file.len() {
        assert!(Recording::decode(&file.slice(..len)).is_err(), "cut at {len}");
    }
    assert_eq!(
        Recording::decode(&Bytes::from_static(b"\0asm")),
        Err(RecordingError::NotOne)
    );
}

#[test]
fn what_does_not_belong_together_is_refused_and_what_differs_is_found() {
    let engine = engine();
    let module = engine.compile(DUEL).unwrap();
    let mut play = Play::of(&module, 3);
    (0..50).for_each(|_| play.step(inputs("duel")));
    let mut recording = play.game.take_down().unwrap().record();
    recording.component = Bytes::from_static(ARENA);
    assert!(matches!(
        recording.play(&engine).err(),
        Some(UnplayableError::AnotherModule)
    ));
    recording.component = Bytes::from_static(DUEL);
    let gap = Recording {
        journal: Journal::after(3, 0).encode().into(),
        ..recording.clone()
    };
    assert!(matches!(gap.play(&engine).err(), Some(UnplayableError::Gap)));
    let other = Recording {
        hash: Some(Digest([1; 32])),
        ..recording.clone()
    };
    let mut player = other.play(&engine).unwrap();
    let mut applied = Applied::default();
    while let Some(played) = player.next(&mut applied) {
        played.unwrap();
    }
    assert_eq!(player.finish().unwrap_err().how, Divergence::State);
}

/// A moment of a match, as another machine gets it.
struct Moment {
    event_no: u64,
    part: Bytes,
    image: Vec<u8>,
}

impl Moment {
    fn of(game: &mut Match) -> Moment {
        Moment {
            event_no: game.part().event_no(),
            part: game.encode_part(RingIn::Encoding),
            image: game.image(None).unwrap().encode(),
        }
    }

    fn restored(&self, module: &Module) -> Match {
        let (part, image) = (HostPart::decode(&self.part), Image::decode(&self.image));
        Match::from_image(module, part.unwrap(), &image.unwrap()).unwrap()
    }
}

/// Long enough that bases are renewed many times as an owner renews them. The arena never traps by itself: some of its calls are cut off
/// in their middle.
#[test]
fn a_long_match_with_traps_is_the_same_from_its_start_from_its_base_and_from_any_moment() {
    let (events, one_in) = match std::env::var(SCALE).as_deref() {
        Ok("full") => (1_000_000, 2_000),
        _ => (12_000, 100),
    };
    let module = engine().compile(ARENA).unwrap();
    let mut play = Play::of(&module, 17);
    let (mut bases, mut moment) = (0, None);
    let moment_at = events / 4 + play.below(events / 2);
    while play.tape.events() < events {
        if play.below(one_in) == 0 {
            let host_call = 1 + play.below(3) as u32;
            play.game.cut_off_at(Some(host_call));
        }
        play.step(inputs("arena"));
        play.game.cut_off_at(None);
        // An event takes some microseconds; the machine's own clock would make each run another one.
        if play.game.took(std::time::Duration::from_micros(40)) {
            play.game.renew_base();
            bases += 1;
        }
        if moment.is_none() && play.tape.events() >= moment_at {
            moment = Some(Moment::of(&mut play.game));
        }
    }
    let moment = moment.unwrap();
    assert!(play.traps > 30 && bases > 10, "{} traps, {bases} bases", play.traps);

    let hash = play.game.state_hash();
    assert!(hash.is_some());
    let mut from_base = played(&written(&mut play.game, ARENA));
    assert_eq!(from_base.finish().unwrap(), hash, "from its base");
    let module = engine().compile(ARENA).unwrap();
    let from_start = (0, Match::create(&module, start(&module)).unwrap());
    let from_moment = (moment.event_no, moment.restored(&module));
    for (since, mut again) in [from_start, from_moment] {
        let mut applied = Applied::default();
        for recorded in Records::read(play.tape.encode().into()).unwrap() {
            let recorded: Recorded = recorded.unwrap();
            if recorded.no > since {
                again.replay(recorded, &mut applied).unwrap();
            }
        }
        assert_eq!(again.state_hash(), hash, "from event {since}");
        assert_eq!(again.part(), play.game.part(), "from event {since}");
    }
}
