//! Candidates on machines whose clocks do not agree, that stand still, are killed, and lose their store; one table of leases.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::*;

/// The database's row, by the true time.
#[derive(Debug, Default)]
struct Row {
    holder: Option<NodeLife>,
    epoch: u64,
    until_ms: u64,
}

impl Row {
    fn acquire(&mut self, now_ms: u64, me: &NodeLife) {
        let is_mine = self.holder.as_ref() == Some(me) && self.until_ms > now_ms;
        let is_my_earlier_life = self.holder.as_ref().is_some_and(|holder| holder.name == me.name);
        if is_mine {
            self.until_ms = now_ms + TTL_MS;
        } else if self.until_ms <= now_ms || is_my_earlier_life {
            self.holder = Some(me.clone());
            self.epoch += 1;
            self.until_ms = now_ms + TTL_MS;
        }
    }

    fn release(&mut self, me: &NodeLife, epoch: u64) {
        if self.holder.as_ref() == Some(me) && self.epoch == epoch {
            self.until_ms = 0;
        }
    }

    fn standing(&self, now_ms: u64) -> Standing {
        let left_ms = self.until_ms.saturating_sub(now_ms);
        Standing {
            holder: self.holder.clone().filter(|_| left_ms > 0),
            epoch: self.epoch,
            left_ms,
        }
    }
}

/// A node: its candidate, and a clock of its own that is up to 4 % fast or slow.
struct Node {
    candidacy: Candidacy,
    offset_ms: u64,
    rate_percent: u64,
    stands_still: bool,
    life: NodeLife,
}

impl Node {
    fn now_ms(&self, true_ms: u64) -> u64 {
        self.offset_ms + true_ms * self.rate_percent / 100
    }
}

/// What is on its way: to the store, or back.
enum Post {
    Asked { no: usize, generation: u64, effect: Effect },
    Answer { no: usize, generation: u64, input: Input },
}

#[derive(Debug, Clone)]
enum Fault {
    StandStill { no: usize, for_ms: u64 },
    Kill { no: usize },
    StoreAway { for_ms: u64 },
    Resign { no: usize },
}

fn fault() -> impl Strategy<Value = (u64, Fault)> {
    let which = prop_oneof![
        (0..3usize, prop_oneof![Just(1_000u64), Just(20_000), 1..9_000u64])
            .prop_map(|(no, for_ms)| Fault::StandStill { no, for_ms }),
        (0..3usize).prop_map(|no| Fault::Kill { no }),
        prop_oneof![Just(600u64), Just(15_000)].prop_map(|for_ms| Fault::StoreAway { for_ms }),
        (0..3usize).prop_map(|no| Fault::Resign { no }),
    ];
    (0..120_000u64, which)
}

/// Every duty that was done, by its number: a duty is done by a conditional write that names the number before.
#[derive(Default)]
struct Duties {
    last: u64,
    done: BTreeSet<u64>,
}

struct World {
    true_ms: u64,
    nodes: Vec<Node>,
    row: Row,
    store_away_until_ms: u64,
    post: BTreeMap<(u64, u64), Post>,
    sent: u64,
    wakes: BTreeMap<u64, Vec<usize>>,
    duties: Duties,
    /// Writes of duties on their way: when they arrive, and the number that they assume.
    writes: Vec<(u64, u64)>,
    leaderless_since_ms: Option<u64>,
    /// One answer in ten takes seconds.
    is_slow: bool,
    seed: u64,
}

impl World {
    fn new(seed: u64, clocks: &[(u64, u64)]) -> Self {
        let nodes = clocks.iter().enumerate().map(|(no, (offset_ms, rate_percent))| {
            let life = NodeLife {
                name: format!("node-{no}").parse().unwrap(),
                generation: 1,
            };
            Node {
                candidacy: Candidacy::new(life.clone(), 100 * no as u64),
                offset_ms: *offset_ms,
                rate_percent: *rate_percent,
                stands_still: false,
                life,
            }
        });
        Self {
            true_ms: 0,
            nodes: nodes.collect(),
            row: Row::default(),
            store_away_until_ms: 0,
            post: BTreeMap::new(),
            sent: 0,
            wakes: BTreeMap::new(),
            duties: Duties::default(),
            writes: Vec::new(),
            leaderless_since_ms: None,
            is_slow: true,
            seed,
        }
    }

    /// A small generator, so that a seed means the same run everywhere.
    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn send(&mut self, delay_ms: u64, post: Post) {
        self.sent += 1;
        self.post.insert((self.true_ms + delay_ms, self.sent), post);
    }

    fn step(&mut self, no: usize, input: Input) {
        let mut out = Vec::new();
        let node = &mut self.nodes[no];
        let now_ms = node.now_ms(self.true_ms);
        node.candidacy.step(now_ms, input, &mut out);
        let generation = node.life.generation;
        for effect in out {
            // Mostly fast; sometimes as slow as the store's own deadline allows.
            let delay_ms = if self.draw(10) == 0 && self.is_slow {
                self.draw(3_000)
            } else {
                self.draw(30)
            };
            self.send(delay_ms, Post::Asked { no, generation, effect });
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.post.first_entry() {
            if entry.key().0 > self.true_ms {
                return;
            }
            match entry.remove() {
                Post::Asked { no, generation, effect } => self.serve(no, generation, effect),
                Post::Answer { no, generation, input } => {
                    if self.nodes[no].life.generation != generation {
                        continue;
                    }
                    if self.nodes[no].stands_still {
                        // It waits in the socket.
                        self.send(50, Post::Answer { no, generation, input });
                    } else {
                        self.step(no, input);
                    }
                }
            }
        }
    }

    fn serve(&mut self, no: usize, generation: u64, effect: Effect) {
        let life = NodeLife {
            name: self.nodes[no].life.name.clone(),
            generation,
        };
        let is_away = self.true_ms < self.store_away_until_ms;
        // In an outage the write may have been made all the same, and only its answer be lost.
        let is_served = !is_away || self.draw(4) == 0;
        let asked_ms = match effect {
            Effect::Acquire { asked_ms } => {
                if is_served {
                    self.row.acquire(self.true_ms, &life);
                }
                asked_ms
            }
            Effect::Look { asked_ms } => asked_ms,
            Effect::Release { epoch } => {
                if is_served {
                    self.row.release(&life, epoch);
                }
                return;
            }
        };
        let standing = (!is_away).then(|| self.row.standing(self.true_ms));
        let delay_ms = if is_away { 2_000 } else { self.draw(20) };
        let input = Input::Answered { asked_ms, standing };
        self.send(delay_ms, Post::Answer { no, generation, input });
    }

    /// A leader does a duty now and then: it reads the number, and its write, which may come late, assumes that number.
    fn do_duties(&mut self) {
        for no in 0..self.nodes.len() {
            let node = &self.nodes[no];
            let leads = node.candidacy.term(node.now_ms(self.true_ms)).is_some();
            if leads && !node.stands_still && self.draw(5) == 0 {
                let delay_ms = if self.draw(8) == 0 {
                    self.draw(8_000)
                } else {
                    self.draw(40)
                };
                self.writes.push((self.true_ms + delay_ms, self.duties.last));
            }
        }
        let (true_ms, duties) = (self.true_ms, &mut self.duties);
        self.writes.retain(|(at_ms, assumed)| {
            if *at_ms > true_ms {
                return true;
            }
            if *assumed == duties.last {
                duties.last += 1;
                assert!(duties.done.insert(duties.last), "a duty is done twice with effect");
            }
            false
        });
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |no: &usize| {
            let node = &self.nodes[*no];
            node.candidacy.term(node.now_ms(self.true_ms)).is_some()
        };
        (0..self.nodes.len()).filter(leads).collect()
    }

    fn begin(&mut self, fault: &Fault) {
        match fault {
            Fault::StandStill { no, for_ms } => {
                self.nodes[*no].stands_still = true;
                self.wakes.entry(self.true_ms + for_ms).or_default().push(*no);
            }
            Fault::Kill { no } => {
                let down_ms = self.draw(12_000);
                self.nodes[*no].stands_still = true;
                self.nodes[*no].life.generation += 1;
                let life = self.nodes[*no].life.clone();
                self.nodes[*no].candidacy = Candidacy::new(life, 100 * *no as u64);
                self.wakes.entry(self.true_ms + down_ms).or_default().push(*no);
            }
            Fault::StoreAway { for_ms } => self.store_away_until_ms = self.true_ms + for_ms,
            Fault::Resign { no } => {
                if !self.nodes[*no].stands_still {
                    self.step(*no, Input::Resign);
                }
            }
        }
    }

    fn run_until(&mut self, end_ms: u64, faults: &[(u64, Fault)]) {
        let mut coming = faults.iter().peekable();
        while self.true_ms < end_ms {
            self.true_ms += 25;
            while let Some((_, fault)) = coming.next_if(|(at_ms, _)| *at_ms <= self.true_ms) {
                self.begin(fault);
            }
            let due: Vec<u64> = self.wakes.range(..=self.true_ms).map(|(at_ms, _)| *at_ms).collect();
            for at_ms in due {
                for no in self.wakes.remove(&at_ms).unwrap_or_default() {
                    self.nodes[no].stands_still = false;
                }
            }
            self.deliver();
            for no in 0..self.nodes.len() {
                if !self.nodes[no].stands_still {
                    self.step(no, Input::Eligible(true));
                    let node = &self.nodes[no];
                    if node.candidacy.next_wake_ms() <= node.now_ms(self.true_ms) {
                        self.step(no, Input::Wake);
                    }
                }
            }
            self.do_duties();
            let leaders = self.leaders();
            assert!(leaders.len() <= 1, "{leaders:?} lead at {} ms", self.true_ms);
            if leaders.is_empty() {
                self.leaderless_since_ms.get_or_insert(self.true_ms);
            } else {
                self.leaderless_since_ms = None;
            }
        }
    }
}

#[test]
fn at_no_time_do_two_nodes_lead_and_no_duty_is_done_twice() {
    let mut config = Config::with_cases(400);
    if let Some(seed) = std::env::var("ROOKERY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        config.rng_seed = RngSeed::Fixed(seed);
    }
    let clock = (0..1_000_000u64, 96..=104u64);
    let strategy = (
        any::<u64>(),
        prop::collection::vec(clock, 3),
        prop::collection::vec(fault(), 0..25),
    );
    TestRunner::new(config)
        .run(&strategy, |(seed, clocks, mut faults)| {
            faults.sort_by_key(|(at_ms, _)| *at_ms);
            let mut world = World::new(seed, &clocks);
            world.run_until(120_000, &faults);
            // Healed: what was resigned is started again, and within ten seconds there is a leader, who goes on leading.
            world.store_away_until_ms = 0;
            world.is_slow = false;
            for no in 0..world.nodes.len() {
                let node = &mut world.nodes[no];
                node.stands_still = false;
                node.life.generation += 1;
                node.candidacy = Candidacy::new(node.life.clone(), 100 * no as u64);
            }
            world.run_until(130_000, &[]);
            prop_assert!(world.leaders().len() == 1, "nobody leads after ten seconds");
            let done = world.duties.last;
            world.run_until(150_000, &[]);
            prop_assert!(world.leaders().len() == 1 && world.leaderless_since_ms.is_none());
            prop_assert!(world.duties.last > done, "the leader does its duties");
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_killed_leader_has_a_successor_within_ten_seconds() {
    for seed in 0..50 {
        let mut world = World::new(seed, &[(0, 100), (5_000, 98), (70_000, 102)]);
        world.run_until(10_000, &[]);
        let [leader] = world.leaders()[..] else {
            panic!("one node leads")
        };
        world.nodes[leader].stands_still = true;
        world.nodes[leader].candidacy = Candidacy::new(world.nodes[leader].life.clone(), 0);
        world.run_until(20_000, &[]);
        assert_eq!(world.leaders().len(), 1, "seed {seed}");
        assert_ne!(world.leaders()[0], leader);
    }
}

#[test]
fn who_resigns_is_followed_at_once_and_does_not_come_back() {
    let mut world = World::new(7, &[(0, 100), (0, 100), (0, 100)]);
    world.run_until(10_000, &[]);
    let [leader] = world.leaders()[..] else {
        panic!("one node leads")
    };
    world.step(leader, Input::Resign);
    assert!(world.leaders().is_empty(), "it stops before the store hears of it");
    world.run_until(12_500, &[]);
    let [next] = world.leaders()[..] else {
        panic!("another leads within seconds")
    };
    assert_ne!(next, leader);
    world.run_until(60_000, &[]);
    assert_eq!(world.leaders(), [next]);
}

#[test]
fn everybody_knows_who_leads() {
    let mut world = World::new(3, &[(0, 100), (9_000, 97), (0, 103)]);
    world.run_until(10_000, &[]);
    let leader = world.leaders()[0];
    for node in &world.nodes {
        let named = node.candidacy.leader(node.now_ms(world.true_ms));
        assert_eq!(named, Some(&world.nodes[leader].life.name));
    }
}
