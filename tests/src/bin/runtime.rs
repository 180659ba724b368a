//! What match logic costs on one thread: calls, ticks, creating matches, taking images of them and putting these back. Beside each
//! figure stands what an empty call of wasmtime costs in the same run, for a ratio travels to other machines better than a figure
//! does. `scripts/bench runtime` runs it and holds it against our limits.
//!
//!     cargo run --release -p rookery-tests --bin runtime
//!
//! prints one line of JSON. Each figure is the middle one of several rounds. The guest is `tests/guests/crowd`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery::matches::event::{Attachment, Event, Occupant};
use rookery::matches::machine::{Applied, Match, RingIn};
use rookery::matches::part::{HostPart, StartRecord};
use rookery::wasm::{Engine, EngineConfig, Module};
use rookery_protocol::client::Role;
use rookery_protocol::{MatchId, PlayerId, Seat, SessionId};
use wasmtime::component::{Component, Linker};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CROWD: &[u8] = include_bytes!("../../guests/crowd/crowd.wasm");

const TICK_MS: u64 = 100;

/// Matches at one time.
const MATCHES: usize = 10_000;

const ROUNDS: usize = 7;

/// Ticks that each of them has had at least, half of what it may have had: about as many as lie between two bases of its record.
const TICKS_BEHIND: usize = 1_300;

/// What one of `calls` takes: the middle of all rounds.
fn each(calls: u32, mut call: impl FnMut()) -> Duration {
    let round = |_| {
        let began = Instant::now();
        (0..calls).for_each(|_| call());
        began.elapsed() / calls
    };
    middle((0..ROUNDS).map(round).collect())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A match in play, with one player.
struct Playing {
    game: Match,
    applied: Applied,
    now_ms: u64,
    seat: Seat,
}

impl Playing {
    /// One that nothing is kept of.
    fn new(module: &Module, number: u128) -> Playing {
        let mut playing = Self::created(module, number);
        playing.apply(Event::Start);
        playing
    }

    /// One that is recorded and can be put back, as those of a node are.
    fn recorded(module: &Module, number: u128) -> Playing {
        let mut playing = Self::created(module, number);
        playing.game.remember();
        playing.apply(Event::Start);
        playing
    }

    fn created(module: &Module, number: u128) -> Playing {
        let start = StartRecord::new(MatchId::from_u128(number), module, 42, 1_700_000_000_000);
        Playing {
            game: Match::create(module, start).expect("the guest is sound"),
            applied: Applied::default(),
            now_ms: 0,
            seat: 0,
        }
    }

    fn with_player(mut self) -> Playing {
        let occupant = Occupant {
            player: PlayerId::from_u128(1),
            name: "Ana".into(),
            role: Role::Player,
            team: None,
            attachment: Attachment {
                number: 1,
                session: SessionId::from_u128(1),
                node: "bench".parse().expect("a node's name"),
                generation: 1,
            },
        };
        self.seat = 1;
        let (seat, ctx) = (self.seat, Bytes::new());
        self.apply(Event::Join { seat, occupant, ctx });
        assert!(self.game.part().seat(self.seat).is_some());
        self
    }

    fn apply(&mut self, event: Event) {
        self.game.apply(self.now_ms, event, &mut self.applied);
        assert!(self.applied.failure.is_none() && self.applied.refused.is_none());
    }

    fn message(&mut self, data: Bytes) {
        let seat = self.seat;
        self.apply(Event::Message { seat, n: 0, data });
    }

    /// Tells the guest to do something with so many.
    fn order(&mut self, what: u8, number: u32) {
        let mut data = vec![what];
        data.extend_from_slice(&number.to_le_bytes());
        self.message(data.into());
    }

    fn tick(&mut self) {
        self.now_ms += TICK_MS;
        let elapsed_ms = TICK_MS as u32;
        self.apply(Event::Tick { elapsed_ms });
    }

    /// What its owner does after each of its events, which took this long: it is recorded, and now and then that begins anew.
    fn keep_record(&mut self, took: Duration) {
        if self.game.took(took) {
            let began = Instant::now();
            self.game.renew_base();
            self.game.base_took(began.elapsed());
        }
    }

    /// A tick of a match that can be put back, as its owner has it.
    fn recorded_tick(&mut self) {
        let began = Instant::now();
        self.tick();
        self.keep_record(began.elapsed());
    }
}

/// One call of a component that does nothing, in a store like that of a match.
fn empty_call() -> Duration {
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true).concurrency_support(false);
    let engine = wasmtime::Engine::new(&config).expect("this machine runs WebAssembly");
    let wat = r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
        (func (export "f") (canon lift (core func $i "f"))))"#;
    let component = Component::new(&engine, wat::parse_str(wat).expect("it is text")).expect("it is valid");
    let mut store = wasmtime::Store::new(&engine, ());
    store.set_epoch_deadline(u64::MAX / 2);
    let instance = Linker::new(&engine)
        .instantiate(&mut store, &component)
        .expect("it has no imports");
    let empty = instance.get_typed_func::<(), ()>(&mut store, "f").expect("it is there");
    each(200_000, || empty.call(&mut store, ()).expect("it does nothing"))
}

/// A message that comes back, to a match that is not recorded and to one that is, in turns: what the record costs is the difference.
fn echo(plain: &mut Playing, recorded: &mut Playing) -> (Duration, Duration) {
    const MESSAGES: u32 = 50_000;
    let data = Bytes::from_static(&[7; 64]);
    for game in [&mut *plain, &mut *recorded] {
        game.message(data.clone());
        assert_eq!(game.applied.outputs.len(), 1, "it comes back");
    }
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..3 * ROUNDS {
        let began = Instant::now();
        (0..MESSAGES).for_each(|_| plain.message(data.clone()));
        let between = Instant::now();
        (0..MESSAGES).for_each(|_| recorded.message(data.clone()));
        times.0.push((between - began) / MESSAGES);
        times.1.push(between.elapsed() / MESSAGES);
        // So many at once: the time of each is not asked for.
        recorded.keep_record(between.elapsed());
    }
    (middle(times.0), middle(times.1))
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.expect("every process has it") << 10
}

fn main() {
    let engine = Engine::new(EngineConfig::default()).expect("this machine runs WebAssembly");
    let module = engine.compile(CROWD).expect("it is committed");
    let (us, ms) = (
        |time: Duration| time.as_secs_f64() * 1e6,
        |time: Duration| time.as_secs_f64() * 1e3,
    );
    let mut figures = Vec::new();
    let mut figure = |name: &str, value: f64| figures.push(format!("\"{name}\":{value:.4}"));
    figure("empty_call_us", us(empty_call()));

    let (plain, recorded) = echo(
        &mut Playing::new(&module, 1).with_player(),
        &mut Playing::recorded(&module, 1).with_player(),
    );
    figure("message_us", us(plain));
    figure("message_with_journal_us", us(recorded));

    let mut ticking = Playing::new(&module, 1);
    figure("tick_us", us(each(20_000, || ticking.tick())));
    let mut number = 0;
    figure(
        "create_us",
        us(each(200, || {
            number += 1;
            drop(black_box(Playing::new(&module, number)));
        })),
    );

    // A megabyte that the guest keeps, of which every page is changed, sixteen, or none.
    let mut keeping = Playing::new(&module, 1).with_player();
    keeping.order(b'h', 1_024);
    let full = each(20, || {
        drop(black_box(keeping.game.image(None).expect("it can be captured")))
    });
    figure("image_full_ms", ms(full));
    let mut image = keeping.game.image(None).expect("it can be captured");
    figure("image_kib", image.bytes() as f64 / 1_024.0);
    let mut times = Vec::new();
    for _ in 0..100 {
        keeping.order(b't', 16);
        let began = Instant::now();
        image = keeping.game.image(Some(&image)).expect("it can be captured");
        times.push(began.elapsed());
    }
    figure("image_incremental_ms", ms(middle(times)));
    let part = keeping.game.encode_part(RingIn::Encoding);
    let restore = each(20, || {
        let part = HostPart::decode(&part).expect("it was just written");
        drop(black_box(
            Match::from_image(&module, part, &image).expect("it was just taken"),
        ));
    });
    figure("restore_ms", ms(restore));

    // Last, for they take all the memory.
    let before = resident_bytes();
    let mut matches: Vec<Playing> = (0..MATCHES)
        .map(|number| Playing::recorded(&module, number as u128))
        .collect();
    // Each at another place between two of its bases: two to four minutes of ticks behind it.
    for (number, playing) in matches.iter_mut().enumerate() {
        (0..TICKS_BEHIND + number % TICKS_BEHIND).for_each(|_| playing.recorded_tick());
    }
    figure(
        "kib_per_match",
        (resident_bytes() - before) as f64 / 1_024.0 / MATCHES as f64,
    );
    let round = each(1, || matches.iter_mut().for_each(Playing::recorded_tick));
    figure("core_for_10000_at_10_hz", round.as_secs_f64() * 10.0);
    println!("{{{}}}", figures.join(","));
}
