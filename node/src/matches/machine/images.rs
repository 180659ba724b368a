//! Images of real matches: whatever the guest is written in and whatever has happened to it, a copy made of its image and the host's
//! part goes on exactly as the original does.

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rookery_protocol::client::{LeaveReason, Role};
use rookery_protocol::{Digest, PlayerId};

use super::super::effect::Effect;
use super::super::event::{Entry, Event, Topic};
use super::super::part::{Admission, HostPart};
use super::stage::{attachment, engine, module, occupant, start_record};
use super::*;
use crate::wasm::Module;
use crate::wasm::testing::Guest;

/// A component's name, its bytes, and messages that its clients may send.
type Component = (&'static str, &'static [u8], &'static [&'static [u8]]);

/// Every component that is committed.
const COMPONENTS: &[Component] = &[
    (
        "arena",
        include_bytes!("../../../../examples/arena/arena.wasm"),
        &[&[1, 1, 0], &[1, 255, 1], &[1, 0, 255], &[2], &[3, 77], &[9]],
    ),
    (
        "duel",
        include_bytes!("../../../../examples/duel/duel.wasm"),
        &[
            br#"{"move":"strike"}"#,
            br#"{"move":"heal"}"#,
            br#"{"move":"guard"}"#,
            b"{}",
        ],
    ),
    (
        "village",
        include_bytes!("../../../../examples/village/village.wasm"),
        &[
            br#""look""#,
            br#""n""#,
            br#""south""#,
            br#""take lantern""#,
            br#""drop lantern""#,
            br#""'hello there""#,
            br#""go west""#,
            br#""inventory""#,
            b"7",
        ],
    ),
    (
        "echo",
        include_bytes!("../../../../examples/echo/echo.wasm"),
        &[br#""hello""#, br#""all: hello""#],
    ),
    (
        "ticker",
        include_bytes!("../../../../examples/ticker/ticker.wasm"),
        &[b"{}"],
    ),
    (
        "counter",
        include_bytes!("../../../../tests/guests/counter/counter.wasm"),
        &[br#""what""#, b"3"],
    ),
    (
        "courier",
        include_bytes!("../../../../tests/guests/courier/courier.wasm"),
        &[
            br#"{"take":3}"#,
            br#"{"tell":"elsewhere","text":"hello"}"#,
            br#"{"keep":"hat","value":5}"#,
            br#"{"recall":"hat"}"#,
            br#"{"say":["lobby","hello"]}"#,
            br#"{"go":"elsewhere"}"#,
            br#"{"door":true}"#,
            br#"{"ask":true}"#,
        ],
    ),
    (
        "ledger",
        include_bytes!("../../../../tests/guests/ledger/ledger.wasm"),
        &[br#"{"add":5}"#, br#"{"put":"x"}"#, br#"{"wait":30}"#, b"[]"],
    ),
    (
        "lobby",
        include_bytes!("../../../../tests/guests/lobby/lobby.wasm"),
        &[b"{}"],
    ),
    (
        "hostile",
        include_bytes!("../../../../tests/guests/hostile/hostile.wasm"),
        &[br#"{"do":"calm"}"#, br#"{"do":"slow","rounds":10}"#, b"{}"],
    ),
];

/// What happens next, chosen by chance from what may happen to the match.
struct Play {
    chance: Xoshiro256PlusPlus,
    messages: &'static [&'static [u8]],
    now_ms: u64,
    next_person: u128,
}

impl Play {
    fn new(seed: u64, messages: &'static [&'static [u8]]) -> Play {
        Play {
            chance: Xoshiro256PlusPlus::seed_from_u64(seed),
            messages,
            now_ms: 0,
            next_person: 1,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.chance.next_u64() % limit as u64) as usize
    }

    fn next(&mut self, part: &HostPart) -> (u64, Event) {
        self.now_ms += self.below(20) as u64;
        let event = loop {
            if let Some(event) = self.choose(part) {
                break event;
            }
        };
        (self.now_ms, event)
    }

    fn choose(&mut self, part: &HostPart) -> Option<Event> {
        let seats: Vec<_> = part.seats().map(|(seat, _)| seat).collect();
        let seat = (!seats.is_empty()).then(|| seats[self.below(seats.len())]);
        match self.below(20) {
            0..3 => {
                let due_ms = part.next_tick_ms()?;
                self.now_ms = self.now_ms.max(due_ms);
                let tick = part.due_tick(self.now_ms)?;
                Some(Event::Tick {
                    elapsed_ms: tick.elapsed_ms,
                })
            }
            3 => {
                let id = part.due_timer(self.now_ms)?;
                Some(Event::Timer { id })
            }
            4 | 5 => self.join(part),
            6 => Some(Event::Leave {
                seat: seat?,
                reason: LeaveReason::Left,
            }),
            7 => {
                let seat = seat?;
                let topic = Topic::SeatAway { seat };
                Some(Event::Signal { topic })
            }
            8 => Some(Event::Resync {
                seat: seat?,
                attach: Some(attachment(self.next_person as u64)),
            }),
            9 | 10 => self.answer(part),
            11 => Some(Event::Receive {
                sender: "somewhere".into(),
                data: Bytes::from_static(b"{\"x\":1}"),
                stamp: None,
            }),
            12 => Some(Event::Signal {
                topic: Topic::Operator { data: "7".into() },
            }),
            _ => {
                let data = self.messages[self.below(self.messages.len())];
                Some(Event::Message {
                    seat: seat?,
                    n: 0,
                    data: Bytes::from_static(data),
                })
            }
        }
    }

    fn join(&mut self, part: &HostPart) -> Option<Event> {
        let person = self.next_person;
        self.next_person += 1;
        let role = match self.below(5) {
            0 => Role::Spectator,
            _ => Role::Player,
        };
        let Admission::Free { seat, team } = part.admit(PlayerId::from_u128(person), role) else {
            return None;
        };
        Some(Event::Join {
            seat,
            occupant: occupant(person, role, team),
            ctx: Bytes::new(),
        })
    }

    fn answer(&mut self, part: &HostPart) -> Option<Event> {
        let (effect, what) = part.outbox().iter().next()?;
        let Some(request) = what.request() else {
            return Some(Event::Settled { effect: *effect });
        };
        let outcome = match (what, self.below(2)) {
            (Effect::StorageRead { key, .. }, 0) => Ok(vec![Entry {
                key: key.clone(),
                data: Bytes::from_static(b"5"),
                version: "1".into(),
            }]),
            _ => Err("not_found".into()),
        };
        Some(Event::Answer {
            request,
            effect: Some(*effect),
            outcome,
        })
    }
}

/// A match and whatever became of its last event.
struct Playing {
    game: Match,
    applied: Applied,
}

impl Playing {
    fn of(module: &Module) -> Playing {
        let mut playing = Playing {
            game: Match::create(module, start_record(module)).unwrap(),
            applied: Applied::default(),
        };
        playing.apply(0, Event::Start);
        playing
    }

    /// Made of nothing but bytes, as on another node.
    fn copy(&mut self, module: &Module, image: &Image) -> Playing {
        let image = Image::decode(&image.encode()).unwrap();
        let part = HostPart::decode(&self.game.encode_part(RingIn::Encoding)).unwrap();
        Playing {
            game: Match::from_image(module, part, &image).unwrap(),
            applied: Applied::default(),
        }
    }

    /// One event and all that follows from it; what it did, in words that can be compared.
    fn apply(&mut self, at_ms: u64, event: Event) -> String {
        let mut told = String::new();
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.game.apply(at_ms, event, &mut self.applied);
            assert_eq!(self.applied.failure, None, "{:?}", self.applied.record);
            events.extend(self.applied.follow_ups.iter().cloned());
            told += &format!("{:?}\n", self.applied);
        }
        told
    }

    fn play(&mut self, play: &mut Play, events: usize) {
        for _ in 0..events {
            if !self.game.is_running() {
                return;
            }
            let (at_ms, event) = play.next(self.game.part());
            self.apply(at_ms, event);
        }
    }

    fn hash(&mut self) -> (Digest, Vec<u8>) {
        (self.game.image(None).unwrap().hash(), self.game.part().comparable())
    }
}

fn both_go_on(original: &mut Playing, copy: &mut Playing, play: &mut Play, events: usize) {
    for _ in 0..events {
        if !original.game.is_running() {
            return;
        }
        let (at_ms, event) = play.next(original.game.part());
        let told = original.apply(at_ms, event.clone());
        assert_eq!(told, copy.apply(at_ms, event));
    }
}

#[test]
fn every_committed_component_goes_on_from_its_image_as_if_nothing_had_happened() {
    for (name, component, messages) in COMPONENTS {
        let module = engine().compile(component).unwrap();
        assert_eq!(module.captures(), Ok(()), "{name}");
        for seed in 1..4 {
            let mut original = Playing::of(&module);
            let mut play = Play::new(seed, messages);
            original.play(&mut play, 50 * seed as usize);
            let image = original.game.image(None).unwrap();
            let mut copy = original.copy(&module, &image);
            assert_eq!(copy.hash(), original.hash(), "{name} at once");
            for events in [1, 99, 900] {
                both_go_on(&mut original, &mut copy, &mut play, events);
                assert_eq!(copy.hash(), original.hash(), "{name} after {events} more");
            }
        }
    }
}

#[test]
fn images_change_nothing_and_pages_that_stay_are_shared() {
    for (name, component, messages) in COMPONENTS {
        let module = engine().compile(component).unwrap();
        let mut watched = Playing::of(&module);
        let mut alone = Playing::of(&module);
        let (mut play, mut same) = (Play::new(7, messages), Play::new(7, messages));
        let mut image = watched.game.image(None).unwrap();
        for _ in 0..40 {
            watched.play(&mut play, 5);
            alone.play(&mut same, 5);
            let full = watched.game.image(None).unwrap();
            let next = watched.game.image(Some(&image)).unwrap();
            assert_eq!(next, full, "{name}: incremental and full differ");
            assert_eq!(
                next,
                watched.game.image(Some(&next)).unwrap(),
                "{name}: two in a row differ"
            );
            assert_eq!(next.encode(), full.encode());
            image = next;
        }
        assert_eq!(watched.hash(), alone.hash(), "{name}: taking images was noticed");
    }
}

#[test]
fn memory_that_has_grown_is_part_of_the_image() {
    let component = include_bytes!("../../../../tests/guests/ledger/ledger.wasm");
    let module = engine().compile(component).unwrap();
    let mut original = Playing::of(&module);
    let mut play = Play::new(3, &[b"{}"]);
    original.play(&mut play, 20);
    let before = original.game.image(None).unwrap();
    let Admission::Free { seat, team } = original.game.part().admit(PlayerId::from_u128(1_000), Role::Player) else {
        panic!("no free seat")
    };
    let occupant = occupant(1_000, Role::Player, team);
    let ctx = Bytes::new();
    original.apply(play.now_ms, Event::Join { seat, occupant, ctx });
    let text = format!("{{\"add\":1,\"padding\":\"{}\"}}", "long ".repeat(400_000));
    let data = Bytes::from(text);
    original.apply(play.now_ms, Event::Message { seat, n: 0, data });

    let after = original.game.image(Some(&before)).unwrap();
    assert!(after.wasm_pages() > before.wasm_pages());
    let mut copy = original.copy(&module, &after);
    assert_eq!(copy.hash(), original.hash());
    both_go_on(&mut original, &mut copy, &mut play, 300);
    assert_eq!(copy.hash(), original.hash());
    // What the copy may still take is what the original may.
    let too_little = HostPart::decode(&original.game.encode_part(RingIn::Encoding)).unwrap();
    let mut too_little = too_little;
    too_little.start.limits.memory_bytes = u64::from(before.wasm_pages()) << 16;
    let failure = Match::from_image(&module, too_little, &after).err().unwrap();
    assert_eq!(failure.kind, crate::matches::event::TrapKind::Memory);
}

#[test]
fn a_match_whose_call_failed_has_no_image() {
    let module = module(&Guest::new("fails").on("message", "unreachable"));
    let mut game = Match::create(&module, start_record(&module)).unwrap();
    let mut applied = Applied::default();
    game.apply(0, Event::Start, &mut applied);
    let occupant = occupant(1, Role::Player, None);
    let (seat, ctx, data) = (game.part().next_seat, Bytes::new(), Bytes::new());
    game.apply(0, Event::Join { seat, occupant, ctx }, &mut applied);
    game.image(None).unwrap();
    game.apply(0, Event::Message { seat, n: 0, data }, &mut applied);
    assert!(applied.failure.is_some());
    assert!(game.image(None).is_err());
}
