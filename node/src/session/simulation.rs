//! A small world of one match and the gateways that listen to it, without sockets, clocks or threads: the real room, the real
//! links, and between them a post that delays, loses what is under way when a connection breaks, and is full at times.
//!
//! Each seed is one run; a failing one prints its number, and `ROOKERY_SEED=n` runs just that one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rookery_protocol::client::{Encoding, JoinRole, Payload, Tree};
use rookery_protocol::output::Attachment;
use rookery_protocol::peer::{Down, DownFrame, Up, UpBody, WirePayload};
use rookery_protocol::{MatchId, NodeLife, PlayerId, Seat, SessionId};

use super::link::{JoinAsk, Link, Route, Seating, SendAsk, Uplink};
use super::listener::{Listener, Moved};
use crate::matches::event::EndReason;
use crate::matches::machine::Match;
use crate::matches::part::StartRecord;
use crate::owner::room::{Room, RoomConfig, RoomEffect};
use crate::wasm::{Engine, EngineConfig, Module};

const SEEDS: u64 = 60;
const STEP_MS: u64 = 10;
const INPUTS: u64 = 40;
/// Long enough for everything that is said again after two seconds to be said, answered and acknowledged.
const HEALING_STEPS: u64 = 800;

fn echo() -> &'static Module {
    static ECHO: OnceLock<Module> = OnceLock::new();
    ECHO.get_or_init(|| {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let (_, component) = crate::examples::BUNDLED
            .iter()
            .find(|(name, _)| *name == "echo")
            .unwrap();
        engine.compile(component).unwrap()
    })
}

fn life(name: &str) -> NodeLife {
    NodeLife {
        name: name.parse().unwrap(),
        generation: 1,
    }
}

/// One client: what it was told, and what it has said so far.
struct Client {
    player: PlayerId,
    attachment: Attachment,
    frames: Mutex<Vec<Bytes>>,
    seat: Mutex<Option<Seat>>,
    /// The match may be over from now on.
    over: AtomicBool,
}

impl Listener for Client {
    fn player(&self) -> PlayerId {
        self.player
    }
    fn name(&self) -> &str {
        "client"
    }
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }
    fn encoding(&self) -> Encoding {
        Encoding::Json
    }
    fn is_closed(&self) -> bool {
        false
    }
    fn push(&self, frame: Bytes) {
        self.frames.lock().unwrap().push(frame);
    }
    fn push_latest(&self, _: MatchId, _: Arc<str>, frame: Bytes) {
        self.push(frame);
    }
    fn refuse_input(&self, _: Option<i64>, _: &str, _: u64) {}
    fn seated(&self, _: MatchId, seat: Seat) {
        *self.seat.lock().unwrap() = Some(seat);
    }
    fn forget_match(&self, _: MatchId) {
        assert!(
            self.over.load(Ordering::Relaxed),
            "nobody leaves in this world before its end"
        );
    }
    fn follow(self: &Arc<Self>, _: Moved) {
        panic!("nobody is transferred");
    }
    fn join_refused(&self, _: MatchId) {
        panic!("everybody is let in");
    }
}

/// What a client makes of its frames.
#[derive(Default)]
struct Heard {
    read: usize,
    last_seq: u64,
    next_n: u64,
    acked: u64,
    resets: u64,
    ends: u64,
    from: BTreeMap<String, u64>,
}

impl Heard {
    /// Reads what is new, and checks it: `seq` rises, and nobody's lines are missing, doubled or out of order.
    fn read(&mut self, client: &Client) {
        let frames = client.frames.lock().unwrap();
        for frame in &frames[self.read..] {
            let tree = Tree::read(Encoding::Json, frame).unwrap();
            let int = |key: &str| tree.get(key).and_then(Tree::as_int).unwrap() as u64;
            match tree.get("type").and_then(Tree::as_text).unwrap() {
                "match.data" => {
                    assert!(int("seq") > self.last_seq, "seq does not rise");
                    self.last_seq = int("seq");
                    let line = tree.get("data").unwrap().get("all").and_then(Tree::as_text).unwrap();
                    let mut parts = line.split(':');
                    let (who, n) = (parts.next().unwrap(), parts.next().unwrap().parse::<u64>().unwrap());
                    // Who joined late begins with whatever line comes then.
                    let before = self.from.entry(who.to_owned()).or_insert(n - 1);
                    if self.resets == 0 {
                        assert_eq!(n, *before + 1, "a line of {who} is missing, doubled or out of order");
                    } else {
                        assert!(n > *before, "a line of {who} came twice");
                    }
                    *before = n;
                }
                "match.joined" => {
                    self.last_seq = int("seq");
                    self.next_n = int("n") + 1;
                }
                "match.players" => {
                    assert!(int("seq") > self.last_seq);
                    self.last_seq = int("seq");
                }
                "match.ack" => {
                    assert!(int("n") > self.acked, "an acknowledgement does not rise");
                    self.acked = int("n");
                }
                "match.resend" => self.next_n = int("n"),
                "match.reset" => {
                    assert!(int("seq") >= self.last_seq);
                    self.last_seq = int("seq");
                    self.next_n = int("n") + 1;
                    self.acked = self.acked.max(int("n"));
                    self.resets += 1;
                }
                "match.ended" => self.ends += 1,
                other => panic!("unexpected {other}: {tree:?}"),
            }
        }
        self.read = frames.len();
    }
}

/// A link's way to the owner: into the post.
struct Post(Mutex<VecDeque<(u64, Up)>>, Mutex<u64>);

impl Uplink for Post {
    fn up(&self, _: &NodeLife, target: MatchId, stream: u64, body: UpBody) {
        let due_ms = *self.1.lock().unwrap();
        self.0.lock().unwrap().push_back((due_ms, Up { target, stream, body }));
    }
    fn locate(&self, _: MatchId) {}
}

struct GatewayNode {
    life: NodeLife,
    link: Link<Client>,
    clients: Vec<(Arc<Client>, Heard)>,
    post: Post,
    down: VecDeque<(u64, Down)>,
    /// The transport towards this node takes nothing.
    full: bool,
}

struct World {
    rng: Xoshiro256PlusPlus,
    now_ms: u64,
    room: Room,
    gateways: Vec<GatewayNode>,
    line_bytes: usize,
}

impl World {
    fn new(seed: u64, line_bytes: usize) -> Self {
        let target = MatchId::from_u128(7);
        let owner = life("owner");
        let game = Match::create(echo(), StartRecord::new(target, echo(), seed, 0)).unwrap();
        let config = RoomConfig::of_tests(owner.name.clone(), 1);
        let mut room = Room::new(game, config);
        let mut effects = Vec::new();
        room.start(0, &mut effects).unwrap();
        room.release(0, &mut Vec::new());
        let gateways = ["a", "b", "c"].into_iter().zip(1u128..).map(|(name, index)| {
            let life = life(name);
            let mut link = Link::new(
                target,
                1,
                Route::Known {
                    owner: owner.clone(),
                    epoch: 1,
                },
            );
            let post = Post(Mutex::default(), Mutex::default());
            let clients = (0..2u128).map(|which| {
                let bits = index * 10 + which;
                let attachment = Attachment {
                    number: 1,
                    session: SessionId::from_u128(bits),
                    node: life.name.clone(),
                    generation: 1,
                };
                let client = Arc::new(Client {
                    player: PlayerId::from_u128(bits),
                    attachment,
                    frames: Mutex::default(),
                    seat: Mutex::default(),
                    over: AtomicBool::new(false),
                });
                let seating = Seating {
                    role: JoinRole::Player,
                    ctx: WirePayload::Absent,
                    moved_from: None,
                };
                link.join(
                    0,
                    JoinAsk {
                        session: Arc::clone(&client),
                        id: None,
                        seating,
                        verdict: None,
                    },
                    &post,
                );
                (client, Heard::default())
            });
            let clients = clients.collect();
            GatewayNode {
                life,
                link,
                clients,
                post,
                down: VecDeque::new(),
                full: false,
            }
        });
        let gateways = gateways.collect();
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            now_ms: 0,
            room,
            gateways,
            line_bytes,
        }
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.rng.next_u64().is_multiple_of(count)
    }

    fn step(&mut self, faults: bool) {
        self.now_ms += STEP_MS;
        let now_ms = self.now_ms;
        for index in 0..self.gateways.len() {
            if faults {
                self.break_something(index);
            }
            self.speak(index);
            let delay_ms = self.rng.next_u64() % 30;
            let gateway = &mut self.gateways[index];
            *gateway.post.1.lock().unwrap() = now_ms + delay_ms;
            // Ordered: what is due waits for what was sent before it.
            loop {
                let due = gateway
                    .post
                    .0
                    .lock()
                    .unwrap()
                    .pop_front_if(|(due_ms, _)| *due_ms <= now_ms);
                let Some((_, up)) = due else { break };
                let mut effects = Vec::new();
                self.room.up(now_ms, &gateway.life, up, &mut effects);
                self.room.finish_busy(now_ms, &mut effects);
                effects.retain(|effect| !matches!(effect, RoomEffect::Seated { .. }));
                assert!(effects.is_empty(), "{effects:?}");
            }
        }
        let gateways = &mut self.gateways;
        let delay_ms = self.rng.next_u64() % 30;
        self.room.flush(|to, frame| {
            let gateway = gateways.iter_mut().find(|gateway| gateway.life == *to).unwrap();
            if gateway.full {
                return false;
            }
            gateway.down.push_back((now_ms + delay_ms, Down::Frame(frame)));
            true
        });
        let owner = life("owner");
        for gateway in &mut self.gateways {
            while let Some((_, Down::Frame(frame))) = gateway.down.pop_front_if(|(due_ms, _)| *due_ms <= now_ms) {
                gateway.link.frame(now_ms, &owner, frame, &gateway.post);
            }
            if now_ms.is_multiple_of(50) && gateway.link.is_restless() {
                gateway.link.wake(now_ms, &gateway.post);
            }
            for (client, heard) in &mut gateway.clients {
                heard.read(client);
            }
        }
    }

    fn break_something(&mut self, index: usize) {
        let (break_up, break_down, toggle) = (self.one_in(60), self.one_in(60), self.one_in(40));
        let now_ms = self.now_ms;
        let gateway = &mut self.gateways[index];
        if break_up {
            gateway.post.0.lock().unwrap().clear();
            gateway.link.say_again(now_ms, &gateway.post);
        }
        if break_down {
            gateway.down.clear();
            self.room.link_lost(&gateway.life.name);
        }
        if break_up || break_down {
            gateway.link.connected(now_ms, &gateway.post);
        }
        if toggle {
            gateway.full = !gateway.full;
            if !gateway.full {
                self.room.writable(now_ms, &gateway.life.name, &mut Vec::new());
            }
        }
    }

    fn speak(&mut self, index: usize) {
        for which in 0..2 {
            let speaks = self.one_in(4);
            let gateway = &mut self.gateways[index];
            let (client, heard) = &mut gateway.clients[which];
            let Some(seat) = *client.seat.lock().unwrap() else {
                continue;
            };
            let speaks = speaks && !client.over.load(Ordering::Relaxed);
            if speaks && heard.next_n >= 1 && heard.next_n <= INPUTS {
                let n = heard.next_n;
                heard.next_n += 1;
                let line = format!("{{\"all\":\"{}:{n}:{}\"}}", client.player, "x".repeat(self.line_bytes));
                let ask = SendAsk {
                    id: None,
                    n: Some(n),
                    data: Payload::Json(line.into()),
                };
                gateway.link.send(self.now_ms, client, seat, ask, &gateway.post);
            }
        }
    }

    fn heal(&mut self) {
        for index in 0..self.gateways.len() {
            if std::mem::take(&mut self.gateways[index].full) {
                let name = self.gateways[index].life.name.clone();
                self.room.writable(self.now_ms, &name, &mut Vec::new());
            }
        }
        for _ in 0..HEALING_STEPS {
            self.step(false);
        }
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("ROOKERY_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    }
}

/// Runs a world, and says which seed it was if it fails.
fn run(seed: u64, line_bytes: usize) -> World {
    let world = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, line_bytes);
        for _ in 0..600 {
            world.step(true);
        }
        world.heal();
        world
    });
    world.unwrap_or_else(|panic| {
        eprintln!("this was ROOKERY_SEED={seed}");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn broken_and_congested_connections_lose_double_and_reorder_nothing() {
    for seed in seeds() {
        let world = run(seed, 0);
        for gateway in &world.gateways {
            assert!(
                !gateway.link.is_restless(),
                "seed {seed}: the link does not come to rest"
            );
            for (client, heard) in &gateway.clients {
                assert_eq!(heard.resets, 0, "seed {seed}: the ring holds all of this");
                assert_eq!(
                    heard.acked, INPUTS,
                    "seed {seed}: inputs of {} were lost",
                    client.player
                );
                let everyone = world.gateways.iter().flat_map(|gateway| &gateway.clients);
                for (speaker, _) in everyone {
                    let lines = heard.from.get(&speaker.player.to_string());
                    assert_eq!(
                        lines,
                        Some(&INPUTS),
                        "seed {seed}: lines of {} were lost",
                        speaker.player
                    );
                }
            }
        }
    }
}

#[test]
fn a_question_for_what_was_missed_is_asked_again_over_the_next_connection() {
    let mut world = World::new(1, 0);
    for _ in 0..100 {
        world.step(false);
    }
    let asks = |post: &Post| {
        let bodies = post.0.lock().unwrap();
        bodies
            .iter()
            .filter(|(_, up)| matches!(up.body, UpBody::Resume { .. }))
            .count()
    };
    let (owner, now_ms) = (life("owner"), world.now_ms);
    let GatewayNode { link, post, .. } = &mut world.gateways[0];
    post.0.lock().unwrap().clear();
    link.connected(now_ms, post);
    assert_eq!(asks(post), 0, "nothing is missing");
    let (stream, epoch) = (1, 1);
    let ahead = DownFrame {
        target: link.target(),
        stream,
        epoch,
        prev: 1 << 30,
        last: 1 << 30,
        head: None,
        items: vec![],
    };
    link.frame(now_ms, &owner, ahead.clone(), post);
    link.frame(now_ms, &owner, ahead, post);
    assert_eq!(asks(post), 1, "one gap is one question");
    link.connected(now_ms, post);
    assert_eq!(asks(post), 2, "the question may have been lost with the connection");
}

#[test]
fn what_the_ring_no_longer_has_is_never_a_silent_gap() {
    // 240 lines of 12 kB are more than twice what the ring keeps.
    let mut resets = 0;
    for seed in seeds().into_iter().take(20) {
        let world = run(seed, 12_000);
        for gateway in &world.gateways {
            for (client, heard) in &gateway.clients {
                assert_eq!(
                    heard.acked, INPUTS,
                    "seed {seed}: inputs of {} were lost",
                    client.player
                );
                resets += heard.resets;
            }
        }
    }
    assert!(
        resets > 0 || std::env::var("ROOKERY_SEED").is_ok(),
        "no seed was hard enough to need a reset"
    );
}

#[test]
fn everyone_hears_of_the_end_once_whatever_breaks_then() {
    for seed in seeds() {
        let mut world = World::new(seed, 0);
        for _ in 0..100 {
            world.step(false);
        }
        for gateway in &world.gateways {
            gateway
                .clients
                .iter()
                .for_each(|(client, _)| client.over.store(true, Ordering::Relaxed));
        }
        let mut effects = Vec::new();
        world.room.end(world.now_ms, EndReason::Operator, &mut effects);
        assert_eq!(effects.len(), 1, "the row must hear of it: {effects:?}");
        for _ in 0..50 {
            world.step(true);
        }
        world.heal();
        for gateway in &world.gateways {
            for (client, heard) in &gateway.clients {
                assert_eq!(heard.ends, 1, "seed {seed}: {} and the end", client.player);
            }
        }
        // A confirmation that is lost is not said again: the room waits for it, and no longer than this.
        assert!(
            world.room.is_done(world.now_ms + 10_000),
            "seed {seed}: the room waits for ever"
        );
    }
}

#[test]
fn a_gateway_that_was_given_up_and_comes_back_is_told_what_its_players_missed() {
    let mut resets = 0;
    for seed in seeds() {
        let mut world = World::new(seed, 0);
        for step in 0..600 {
            world.step(true);
            if step % 150 == 149 {
                // It stood still; when it wakes up it says who sits there.
                let now_ms = world.now_ms;
                let gateway = &mut world.gateways[step / 150 % 3];
                world.room.gateway_gone(now_ms, &gateway.life.name, 1, &mut Vec::new());
                gateway.down.clear();
                gateway.full = false;
                gateway.link.say_again(now_ms, &gateway.post);
            }
        }
        world.heal();
        for gateway in &world.gateways {
            for (client, heard) in &gateway.clients {
                assert_eq!(
                    heard.acked, INPUTS,
                    "seed {seed}: inputs of {} were lost",
                    client.player
                );
                resets += heard.resets;
            }
        }
    }
    assert!(
        resets > 0 || std::env::var("ROOKERY_SEED").is_ok(),
        "nobody was told of a gap"
    );
}
