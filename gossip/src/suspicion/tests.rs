//! A peer's fate under silence, late answers, and a node that is itself late.

use proptest::prelude::*;

use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    direct_probe: Duration::from_secs(1),
    confirm: Duration::from_secs(2),
};

/// The machine with its clock, and all that it ever said.
struct World {
    suspicion: Suspicion,
    now: Time,
    said: Vec<(Time, Effect)>,
}

fn ms(ms: u64) -> Time {
    Duration::from_millis(ms)
}

fn node(index: usize) -> NodeId {
    format!("n{index}").parse().unwrap()
}

impl World {
    fn new(peers: usize) -> Self {
        let mut world = World {
            suspicion: Suspicion::new(TIMEOUTS),
            now: ms(0),
            said: Vec::new(),
        };
        for index in 0..peers {
            world.input(Input::Watch(node(index)));
        }
        world.input(Input::Wake);
        world
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.suspicion.step(self.now, input, &mut out);
        self.said.extend(out.into_iter().map(|effect| (self.now, effect)));
    }

    /// Lets time pass with a wake at every tick.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now + TICK <= end {
            self.now += TICK;
            self.input(Input::Wake);
        }
    }

    /// Lets time pass without anybody being awake.
    fn sleep_through(&mut self, duration: Duration) {
        self.now += duration;
    }

    fn deaths(&self) -> Vec<(Time, NodeId)> {
        let deaths = self.said.iter().filter_map(|(at, effect)| match effect {
            Effect::Died(node) => Some((*at, node.clone())),
            _ => None,
        });
        deaths.collect()
    }

    fn said(&self, wanted: &Effect) -> bool {
        self.said.iter().any(|(_, effect)| effect == wanted)
    }
}

#[test]
fn a_doubt_is_probed_directly_then_through_others_and_then_a_verdict() {
    let mut world = World::new(5);
    world.input(Input::Doubt(node(2)));
    assert!(world.said(&Effect::Suspected(node(2))));
    assert!(world.said(&Effect::Probe(node(2))));
    world.pass(ms(900));
    assert!(
        !world
            .said
            .iter()
            .any(|(_, effect)| matches!(effect, Effect::ProbeThrough { .. }))
    );
    world.pass(ms(100));
    let helpers = vec![node(3), node(4), node(0)];
    assert!(world.said(&Effect::ProbeThrough { node: node(2), helpers }));
    world.pass(ms(900));
    assert_eq!(world.deaths(), []);
    world.pass(ms(100));
    assert_eq!(world.deaths(), [(ms(2_000), node(2))]);
    world.pass(ms(10_000));
    assert_eq!(world.deaths().len(), 1);
}

#[test]
fn any_answer_clears_a_suspicion() {
    for sign in [Sign::Direct, Sign::Heartbeat] {
        let mut world = World::new(3);
        world.input(Input::Doubt(node(0)));
        world.pass(ms(1_900));
        world.input(Input::Sign(node(0), sign));
        assert!(world.said(&Effect::Cleared(node(0))));
        world.pass(ms(5_000));
        assert_eq!(world.deaths(), []);
    }
}

#[test]
fn the_dead_come_back_only_by_their_own_answer() {
    let mut world = World::new(3);
    world.input(Input::Doubt(node(0)));
    world.pass(ms(3_000));
    assert_eq!(world.deaths().len(), 1);
    world.said.clear();
    world.input(Input::Sign(node(0), Sign::Heartbeat));
    assert_eq!(world.said, []);
    world.pass(ms(2_000));
    world.input(Input::Sign(node(0), Sign::Heartbeat));
    assert!(matches!(world.said[..], [(_, Effect::Probe(_))]), "{:?}", world.said);
    world.input(Input::Sign(node(0), Sign::Direct));
    assert!(world.said(&Effect::Cleared(node(0))));
}

#[test]
fn a_node_that_wakes_up_starts_its_probes_again() {
    let mut world = World::new(4);
    world.input(Input::Doubt(node(0)));
    world.sleep_through(ms(4_000));
    // On waking the first thing that it sees is that everybody is silent.
    for index in 1..4 {
        world.input(Input::Doubt(node(index)));
    }
    assert!(world.said(&Effect::Late));
    assert_eq!(world.deaths(), []);
    world.pass(ms(1_900));
    assert_eq!(world.deaths(), []);
    for index in 1..4 {
        world.input(Input::Sign(node(index), Sign::Heartbeat));
    }
    world.pass(ms(100));
    assert_eq!(world.deaths(), [(ms(6_000), node(0))]);
}

#[test]
fn lateness_puts_a_verdict_off_by_five_seconds_at_most() {
    let mut world = World::new(3);
    world.input(Input::Doubt(node(0)));
    for _ in 0..20 {
        world.sleep_through(ms(1_500));
        world.input(Input::Wake);
    }
    let (died_at, _) = world.deaths()[0];
    assert!(died_at >= ms(4_000) && died_at <= ms(8_500), "{died_at:?}");
}

#[test]
fn suspecting_most_peers_at_once_starts_the_probes_again() {
    let mut world = World::new(3);
    world.input(Input::Doubt(node(0)));
    world.pass(ms(1_500));
    world.input(Input::Doubt(node(1)));
    world.pass(ms(1_900));
    assert_eq!(world.deaths(), []);
    world.pass(ms(100));
    assert_eq!(world.deaths(), [(ms(3_500), node(0)), (ms(3_500), node(1))]);
}

#[test]
fn the_only_peer_dies_without_delay() {
    let mut world = World::new(1);
    world.input(Input::Doubt(node(0)));
    world.pass(ms(2_000));
    assert_eq!(world.deaths(), [(ms(2_000), node(0))]);
}

#[test]
fn who_is_forgotten_is_not_judged() {
    let mut world = World::new(2);
    world.input(Input::Doubt(node(0)));
    world.input(Input::Forget(node(0)));
    world.pass(ms(5_000));
    assert_eq!(world.deaths(), []);
}

impl World {
    fn is_isolated(&self) -> bool {
        let said = self.said.iter().rev().find_map(|(_, effect)| match effect {
            Effect::Isolated(isolated) => Some(*isolated),
            _ => None,
        });
        assert_eq!(said.unwrap_or(false), self.suspicion.isolation.is_isolated);
        said.unwrap_or(false)
    }
}

#[test]
fn a_node_that_was_late_is_isolated_until_everybody_was_heard() {
    let mut world = World::new(3);
    world.sleep_through(ms(2_000));
    world.input(Input::Wake);
    assert!(world.is_isolated());
    world.input(Input::Sign(node(0), Sign::Heartbeat));
    world.input(Input::Sign(node(1), Sign::Direct));
    assert!(world.is_isolated());
    world.input(Input::Sign(node(2), Sign::Heartbeat));
    assert!(!world.is_isolated());
    // Who is never heard holds it up for five seconds.
    world.sleep_through(ms(2_000));
    world.input(Input::Wake);
    world.pass(ms(4_900));
    assert!(world.is_isolated());
    world.pass(ms(100));
    assert!(!world.is_isolated());
}

#[test]
fn a_node_that_misses_most_others_is_isolated_for_five_seconds_whatever_the_verdicts() {
    let mut world = World::new(3);
    world.input(Input::Doubt(node(0)));
    world.pass(ms(500));
    assert!(!world.is_isolated(), "one of three is a minority");
    world.input(Input::Doubt(node(1)));
    assert!(world.is_isolated());
    world.pass(ms(4_900));
    assert_eq!(world.deaths().len(), 2);
    assert!(world.is_isolated());
    world.pass(ms(100));
    assert!(!world.is_isolated());
    // The last of them is an only peer, by then: isolated until it is judged.
    world.pass(ms(5_000));
    world.input(Input::Doubt(node(2)));
    assert!(world.is_isolated());
    world.pass(ms(2_000));
    assert_eq!(world.deaths().len(), 3);
    assert!(!world.is_isolated());
}

#[test]
fn answers_end_an_isolation_at_once() {
    let mut world = World::new(2);
    world.input(Input::Doubt(node(0)));
    assert!(!world.is_isolated(), "half is no majority");
    world.input(Input::Doubt(node(1)));
    assert!(world.is_isolated());
    world.input(Input::Sign(node(0), Sign::Heartbeat));
    assert!(!world.is_isolated());
}

#[derive(Debug, Clone)]
enum Happening {
    Doubt(usize),
    Sign(usize, Sign),
    Pass(u64),
    Sleep(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..4usize).prop_map(Happening::Doubt),
        (0..4usize, prop_oneof![Just(Sign::Direct), Just(Sign::Heartbeat)])
            .prop_map(|(index, sign)| Happening::Sign(index, sign)),
        (0..30u64).prop_map(|ticks| Happening::Pass(ticks * 100)),
        (0..5_000u64).prop_map(Happening::Sleep),
    ]
}

proptest! {
    /// The invariant of the file's header, over arbitrary histories; and what is doubted and never answers is dead in the end.
    #[test]
    fn no_verdict_without_a_whole_round_of_silence(happenings in prop::collection::vec(happening(), 1..60)) {
        let mut world = World::new(4);
        let mut last_sign = [ms(0); 4];
        let mut last_wake_up = ms(0);
        let mut judged = 0;
        for happening in happenings {
            match happening {
                Happening::Doubt(index) => world.input(Input::Doubt(node(index))),
                Happening::Sign(index, sign) => {
                    last_sign[index] = world.now;
                    world.input(Input::Sign(node(index), sign));
                }
                Happening::Pass(ms_passed) => world.pass(ms(ms_passed)),
                Happening::Sleep(ms_asleep) => {
                    world.sleep_through(ms(ms_asleep));
                    let late = world.now > world.suspicion.next_wake() + LATE_AFTER;
                    let postponable = world.suspicion.peers.values().all(|watched| match watched {
                        Watched::Suspect(round) => world.now <= round.suspected_at + POSTPONED_MAX,
                        Watched::Well | Watched::Dead { .. } => true,
                    });
                    if late && postponable {
                        last_wake_up = world.now;
                    }
                    world.input(Input::Wake);
                }
            }
            // Only what this happening brought: a sign of life may come in the instant after a verdict.
            for (at, died) in world.deaths().into_iter().skip(std::mem::replace(&mut judged, world.deaths().len())) {
                if at == world.now {
                    let index = (0..4).find(|index| node(*index) == died).unwrap();
                    prop_assert!(at >= last_sign[index] + TIMEOUTS.confirm || last_sign[index] == ms(0));
                    prop_assert!(at >= last_wake_up + TIMEOUTS.confirm || last_wake_up == ms(0));
                }
            }
        }
        for index in 0..4 {
            world.input(Input::Doubt(node(index)));
        }
        world.pass(TIMEOUTS.confirm + POSTPONED_MAX + TICK);
        for watched in world.suspicion.peers.values() {
            let dead = matches!(watched, Watched::Dead { .. });
            prop_assert!(dead, "{:?}", watched);
        }
    }
}
