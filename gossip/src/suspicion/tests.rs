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
    /// What helpers do that are asked; without a word from them our health suffers.
    helpers_nack: bool,
}

fn ms(ms: u64) -> Time {
    Duration::from_millis(ms)
}

fn life(index: usize) -> Life {
    life_of(index, 1)
}

fn life_of(index: usize, generation: u64) -> Life {
    Life {
        node: format!("n{index}").parse().unwrap(),
        generation,
    }
}

impl World {
    fn new(peers: usize) -> Self {
        let mut world = World {
            suspicion: Suspicion::new(TIMEOUTS),
            now: ms(0),
            said: Vec::new(),
            helpers_nack: true,
        };
        for index in 0..peers {
            world.input(Input::Watch(life(index)));
        }
        world.input(Input::Wake);
        world
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.suspicion.step(self.now, input, &mut out);
        for effect in out {
            self.said.push((self.now, effect.clone()));
            if let (Effect::ProbeThrough { life, helpers }, true) = (effect, self.helpers_nack) {
                for helper in helpers {
                    let suspect = life.clone();
                    self.input(Input::Nack { suspect, helper });
                }
            }
        }
    }

    fn helpers_asked(&self) -> Vec<Vec<Life>> {
        let asked = self.said.iter().filter_map(|(_, effect)| match effect {
            Effect::ProbeThrough { helpers, .. } => Some(helpers.clone()),
            _ => None,
        });
        asked.collect()
    }

    fn count(&self, wanted: &Effect) -> usize {
        self.said.iter().filter(|(_, effect)| effect == wanted).count()
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

    fn deaths(&self) -> Vec<(Time, Life)> {
        let deaths = self.said.iter().filter_map(|(at, effect)| match effect {
            Effect::Died(life) => Some((*at, life.clone())),
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
    world.input(Input::Doubt(life(2)));
    assert!(world.said(&Effect::Suspected(life(2))));
    assert!(world.said(&Effect::Probe(life(2))));
    world.pass(ms(900));
    assert!(
        !world
            .said
            .iter()
            .any(|(_, effect)| matches!(effect, Effect::ProbeThrough { .. }))
    );
    world.pass(ms(100));
    let helpers = vec![life(3), life(4), life(0)];
    assert!(world.said(&Effect::ProbeThrough { life: life(2), helpers }));
    world.pass(ms(900));
    assert_eq!(world.deaths(), []);
    world.pass(ms(100));
    assert_eq!(world.deaths(), [(ms(2_000), life(2))]);
    world.pass(ms(10_000));
    assert_eq!(world.deaths().len(), 1);
}

#[test]
fn any_answer_clears_a_suspicion() {
    for sign in [Sign::Direct, Sign::Heartbeat] {
        let mut world = World::new(3);
        world.input(Input::Doubt(life(0)));
        world.pass(ms(1_900));
        world.input(Input::Sign(life(0), sign));
        assert!(world.said(&Effect::Cleared(life(0))));
        world.pass(ms(5_000));
        assert_eq!(world.deaths(), []);
    }
}

#[test]
fn the_dead_come_back_only_by_their_own_answer() {
    let mut world = World::new(3);
    world.input(Input::Doubt(life(0)));
    world.pass(ms(3_000));
    assert_eq!(world.deaths().len(), 1);
    world.said.clear();
    for sign in [Sign::Heartbeat, Sign::Vouched] {
        world.input(Input::Sign(life(0), sign));
    }
    assert_eq!(world.said, [], "it has just been probed");
    world.pass(LATELY_DEAD + REVIVAL_INTERVAL + ms(1_000));
    world.said.clear();
    world.input(Input::Sign(life(0), Sign::Heartbeat));
    assert!(matches!(world.said[..], [(_, Effect::Probe(_))]), "{:?}", world.said);
    world.input(Input::Sign(life(0), Sign::Direct));
    assert!(world.said(&Effect::Cleared(life(0))));
}

#[test]
fn the_dead_are_probed_in_turn_for_a_minute_and_then_seldom() {
    let mut world = World::new(5);
    for index in [1, 3] {
        world.input(Input::Doubt(life(index)));
    }
    world.pass(ms(2_000));
    assert_eq!(world.deaths().len(), 2);
    world.said.clear();
    world.pass(ms(10_000));
    let (one, other) = (
        world.count(&Effect::Probe(life(1))),
        world.count(&Effect::Probe(life(3))),
    );
    assert_eq!((one, other), (5, 5));
    world.pass(LATELY_DEAD);
    world.said.clear();
    world.pass(ms(100_000));
    let (one, other) = (
        world.count(&Effect::Probe(life(1))),
        world.count(&Effect::Probe(life(3))),
    );
    assert!((9..=11).contains(&one) && (9..=11).contains(&other), "{one} {other}");
    assert_eq!(world.count(&Effect::Probe(life(0))), 0);
}

#[test]
fn helpers_are_able_and_not_always_the_same() {
    let mut world = World::new(8);
    let doubt_and_clear = |world: &mut World| {
        world.input(Input::Doubt(life(0)));
        world.pass(TIMEOUTS.direct_probe + TICK);
        world.input(Input::Sign(life(0), Sign::Vouched));
        world.helpers_asked().pop().unwrap()
    };
    assert_eq!(doubt_and_clear(&mut world), [life(1), life(2), life(3)]);
    assert_eq!(doubt_and_clear(&mut world), [life(4), life(5), life(6)]);
    // Neither one that does not answer us, nor one that is suspect itself, nor, while there are others, one that said nothing.
    world.input(Input::Doubt(life(1)));
    world.input(Input::Silent(life(1)));
    world.input(Input::Sign(life(1), Sign::Heartbeat));
    assert!(!world.suspicion.is_reachable(&life(1)));
    world.input(Input::Doubt(life(2)));
    world.suspicion.peers.get_mut(&life(3)).unwrap().unhelpful = 1;
    let mut asked = doubt_and_clear(&mut world);
    asked.extend(doubt_and_clear(&mut world));
    for able in [4, 5, 6, 7] {
        assert!(asked.contains(&life(able)), "{asked:?}");
    }
    for unable in [1, 2, 3] {
        assert!(!asked.contains(&life(unable)), "{asked:?}");
    }
}

#[test]
fn helpers_that_say_nothing_speak_against_us_and_lengthen_the_round() {
    let mut world = World::new(5);
    world.helpers_nack = false;
    world.input(Input::Doubt(life(0)));
    world.pass(ms(1_500));
    assert_eq!(world.suspicion.health(), 0);
    world.pass(ms(500));
    assert!(world.said(&Effect::NacksMissed(3)));
    assert_eq!(world.suspicion.health(), 3);
    assert_eq!(world.deaths(), []);
    world.pass(ms(200));
    assert_eq!(world.deaths(), [(ms(2_200), life(0))]);
    // Quiet makes well again.
    world.pass(3 * HEALTH_REGAINED_AFTER);
    assert_eq!(world.suspicion.health(), 0);
}

#[test]
fn a_helper_that_fell_silent_itself_says_nothing_about_us() {
    let mut world = World::new(9);
    world.helpers_nack = false;
    world.input(Input::Doubt(life(0)));
    world.pass(ms(1_100));
    for helper in world.helpers_asked().pop().unwrap() {
        world.input(Input::Doubt(helper));
    }
    world.pass(ms(800));
    assert_eq!(world.suspicion.health(), 0);
}

#[test]
fn our_own_lateness_and_wrong_suspicions_are_our_health() {
    let mut world = World::new(4);
    world.sleep_through(TICK + SLOW_AFTER + ms(10));
    world.input(Input::Wake);
    assert_eq!(world.suspicion.health(), 1);
    world.input(Input::Slept);
    assert_eq!(world.suspicion.health(), 1 + LATE_COST);
    assert!(world.said(&Effect::Late));
    // An answer in time makes better, one that comes after others had to be asked makes worse.
    world.input(Input::Doubt(life(0)));
    world.input(Input::Sign(life(0), Sign::Direct));
    assert_eq!(world.suspicion.health(), LATE_COST);
    world.input(Input::Doubt(life(0)));
    world.pass(TIMEOUTS.confirm - TICK);
    world.input(Input::Sign(life(0), Sign::Direct));
    assert_eq!(world.suspicion.health(), LATE_COST + 1);
    for _ in 0..10 {
        world.input(Input::Slept);
    }
    assert_eq!(world.suspicion.health(), HEALTH_MAX);
    assert_eq!(world.suspicion.health.stretch(), STRETCH_MAX);
}

#[test]
fn a_member_that_only_others_hear_is_probed_until_it_answers_us() {
    let mut world = World::new(4);
    world.input(Input::Doubt(life(2)));
    world.pass(TIMEOUTS.direct_probe);
    world.input(Input::Sign(life(2), Sign::Vouched));
    assert!(world.said(&Effect::Cleared(life(2))));
    assert!(world.suspicion.is_reachable(&life(2)));
    world.input(Input::Silent(life(2)));
    assert!(!world.suspicion.is_reachable(&life(2)));
    world.said.clear();
    world.pass(2 * REACH_INTERVAL);
    assert_eq!(world.count(&Effect::Probe(life(2))), 2);
    world.input(Input::Sign(life(2), Sign::Direct));
    assert!(world.suspicion.is_reachable(&life(2)));
    // The end of a probe that began before says nothing.
    world.input(Input::Silent(life(2)));
    assert!(world.suspicion.is_reachable(&life(2)));
    assert_eq!(world.deaths(), []);
}

#[test]
fn a_member_that_flaps_is_shown_suspect_until_it_is_quiet() {
    let mut world = World::new(4);
    // A doubt every second for a minute, each answered at once.
    for _ in 0..60 {
        world.input(Input::Doubt(life(1)));
        world.input(Input::Sign(life(1), Sign::Direct));
        world.pass(ms(1_000));
    }
    let shown = world.count(&Effect::Suspected(life(1)));
    assert!((15..=19).contains(&shown), "{shown}");
    assert_eq!(world.deaths(), []);
    world.pass(FLAP_FORGIVEN_AFTER);
    assert_eq!(world.count(&Effect::Cleared(life(1))), shown);
    // One bad moment, in which everything that it may be shown suspect for is used up, is over in a few seconds.
    world.pass(FLAPS_MAX * FLAP_FORGIVEN_AFTER);
    let doubted_at = world.now;
    for _ in 0..6 {
        world.input(Input::Doubt(life(1)));
        world.pass(ms(50));
        world.input(Input::Sign(life(1), Sign::Direct));
    }
    let cleared = world.count(&Effect::Cleared(life(1)));
    assert!(world.suspicion.suspected(&life(1)).is_some());
    world.pass((doubted_at + FLAP_FORGIVEN_AFTER + TICK).saturating_sub(world.now));
    assert_eq!(world.suspicion.suspected(&life(1)), None);
    assert_eq!(world.count(&Effect::Cleared(life(1))), cleared + 1);
    assert!(FLAP_FORGIVEN_AFTER < Duration::from_secs(5), "a few seconds");
    // What is held down dies as any other.
    for _ in 0..FLAPS_MAX {
        world.input(Input::Doubt(life(1)));
        world.input(Input::Sign(life(1), Sign::Direct));
    }
    world.input(Input::Doubt(life(1)));
    let doubted_at = world.now;
    world.pass(ms(3_000));
    let (died_at, _) = world.deaths()[0];
    assert!(died_at <= doubted_at + TIMEOUTS.confirm + STRETCH_MAX, "{died_at:?}");
}

#[test]
fn a_node_that_wakes_up_starts_its_probes_again() {
    let mut world = World::new(4);
    world.input(Input::Doubt(life(0)));
    world.sleep_through(ms(4_000));
    // On waking the first thing that it sees is that everybody is silent.
    for index in 1..4 {
        world.input(Input::Doubt(life(index)));
    }
    assert!(world.said(&Effect::Late));
    assert_eq!(world.deaths(), []);
    world.pass(ms(1_900));
    assert_eq!(world.deaths(), []);
    for index in 1..4 {
        world.input(Input::Sign(life(index), Sign::Heartbeat));
    }
    // Being late, and wrong about the others, has cost health, which lengthens the round a little.
    world.pass(ms(400));
    assert_eq!(world.deaths(), [(ms(6_300), life(0))]);
}

#[test]
fn an_answer_that_came_while_this_node_did_not_run_is_read_before_the_verdict() {
    let mut world = World::new(3);
    world.input(Input::Doubt(life(0)));
    world.pass(ms(1_900));
    // Too short even to count as a nap, and the round is over before anything else is heard.
    world.sleep_through(ms(250));
    world.input(Input::Wake);
    assert_eq!(world.deaths(), []);
    world.input(Input::Sign(life(0), Sign::Direct));
    world.pass(ms(1_000));
    assert_eq!(world.deaths(), []);
    // And if there is none, the verdict comes with the next tick.
    world.input(Input::Doubt(life(0)));
    world.pass(ms(1_900));
    world.sleep_through(ms(250));
    world.input(Input::Wake);
    assert_eq!(world.deaths(), []);
    world.pass(ms(100));
    assert_eq!(world.deaths().len(), 1);
}

#[test]
fn lateness_puts_a_verdict_off_by_five_seconds_at_most() {
    let mut world = World::new(3);
    world.input(Input::Doubt(life(0)));
    // Each of these is 1.5 s, of which 0.4 s are slept away: 5 s are up after the fifth.
    for _ in 0..20 {
        world.sleep_through(ms(1_500));
        world.input(Input::Wake);
    }
    let (died_at, _) = world.deaths()[0];
    assert!(died_at >= ms(6_000) && died_at <= ms(10_500), "{died_at:?}");
}

#[test]
fn a_nap_does_not_count_as_silence() {
    let mut world = World::new(3);
    world.input(Input::Doubt(life(0)));
    world.pass(ms(1_000));
    world.sleep_through(ms(1_000));
    world.input(Input::Wake);
    assert!(!world.said(&Effect::Late), "it was too short to begin again");
    world.pass(ms(800));
    assert_eq!(world.deaths(), []);
    world.pass(ms(300));
    assert_eq!(world.deaths().len(), 1);
}

#[test]
fn a_long_sleep_is_no_time_in_which_a_suspect_could_have_answered() {
    let mut world = World::new(3);
    world.input(Input::Doubt(life(0)));
    world.sleep_through(ms(60_000));
    world.input(Input::Wake);
    assert_eq!(world.deaths(), []);
    world.pass(TIMEOUTS.confirm - TICK);
    assert_eq!(world.deaths(), []);
    world.pass(ms(500));
    assert_eq!(world.deaths().len(), 1);
}

#[test]
fn suspecting_most_peers_at_once_starts_the_probes_again() {
    let mut world = World::new(3);
    world.input(Input::Doubt(life(0)));
    world.pass(ms(1_500));
    world.input(Input::Doubt(life(1)));
    world.pass(ms(1_900));
    assert_eq!(world.deaths(), []);
    world.pass(ms(100));
    assert_eq!(world.deaths(), [(ms(3_500), life(0)), (ms(3_500), life(1))]);
}

#[test]
fn the_only_peer_dies_without_delay() {
    let mut world = World::new(1);
    world.input(Input::Doubt(life(0)));
    world.pass(ms(2_000));
    assert_eq!(world.deaths(), [(ms(2_000), life(0))]);
}

#[test]
fn who_is_forgotten_is_not_judged() {
    let mut world = World::new(2);
    world.input(Input::Doubt(life(0)));
    world.input(Input::Forget(life(0)));
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
    world.input(Input::Sign(life(0), Sign::Heartbeat));
    world.input(Input::Sign(life(1), Sign::Direct));
    assert!(world.is_isolated());
    world.input(Input::Sign(life(2), Sign::Heartbeat));
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
    world.input(Input::Doubt(life(0)));
    world.pass(ms(500));
    assert!(!world.is_isolated(), "one of three is a minority");
    world.input(Input::Doubt(life(1)));
    assert!(world.is_isolated());
    world.pass(ms(4_900));
    assert_eq!(world.deaths().len(), 2);
    assert!(world.is_isolated());
    world.pass(ms(100));
    assert!(!world.is_isolated());
    // The last of them is an only peer, by then: isolated until it is judged.
    world.pass(ms(5_000));
    world.input(Input::Doubt(life(2)));
    assert!(world.is_isolated());
    world.pass(ms(2_000));
    assert_eq!(world.deaths().len(), 3);
    assert!(!world.is_isolated());
}

#[test]
fn answers_end_an_isolation_at_once() {
    let mut world = World::new(2);
    world.input(Input::Doubt(life(0)));
    assert!(!world.is_isolated(), "half is no majority");
    world.input(Input::Doubt(life(1)));
    assert!(world.is_isolated());
    world.input(Input::Sign(life(0), Sign::Heartbeat));
    assert!(!world.is_isolated());
}

#[test]
fn the_next_life_of_a_suspect_is_well_whatever_is_said_of_the_one_before() {
    let (old, new) = (life(0), life_of(0, 2));
    let mut world = World::new(4);
    world.input(Input::Doubt(old.clone()));
    world.pass(TIMEOUTS.confirm - TICK);
    world.input(Input::Forget(old.clone()));
    world.input(Input::Watch(new.clone()));
    world.said.clear();
    // The verdict that was due is about nobody, and a doubt of the former life is none of the next one.
    world.input(Input::Doubt(old.clone()));
    world.input(Input::Silent(old.clone()));
    world.input(Input::Sign(old.clone(), Sign::Direct));
    world.pass(2 * TIMEOUTS.confirm);
    assert_eq!(world.said, []);
    assert!(world.suspicion.is_reachable(&new));
    assert_eq!(world.suspicion.heard_at(&new), None);
    // A late answer of the former life does not clear the next one, and to forget the former is not to forget the next.
    world.input(Input::Doubt(new.clone()));
    let doubted_at = world.now;
    world.pass(TIMEOUTS.direct_probe);
    for sign in [Sign::Direct, Sign::Heartbeat, Sign::Vouched] {
        world.input(Input::Sign(old.clone(), sign));
    }
    let helper = life(1);
    let suspect = old.clone();
    world.input(Input::Nack { suspect, helper });
    world.input(Input::Forget(old));
    world.pass(TIMEOUTS.confirm);
    assert_eq!(world.count(&Effect::Cleared(new.clone())), 0);
    assert_eq!(world.deaths(), [(doubted_at + TIMEOUTS.confirm, new)]);
}

#[test]
fn a_helper_that_starts_again_is_not_blamed_for_its_former_silence() {
    let mut world = World::new(4);
    world.helpers_nack = false;
    world.input(Input::Doubt(life(0)));
    world.pass(TIMEOUTS.direct_probe);
    assert_eq!(world.helpers_asked(), [[life(1), life(2), life(3)]]);
    for index in 1..4 {
        world.input(Input::Forget(life(index)));
        world.input(Input::Watch(life_of(index, 2)));
    }
    world.pass(NACK_WITHIN + TICK);
    assert_eq!(world.suspicion.health(), 0);
}

#[derive(Debug, Clone)]
enum Happening {
    Doubt(usize),
    Sign(usize, Sign),
    /// The node's next life is here.
    Restart(usize),
    /// Something is said of the life before.
    OfFormer(usize, Word),
    Pass(u64),
    Sleep(u64),
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Doubt,
    Sign(Sign),
    Silent,
    Forget,
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        Just(Word::Doubt),
        Just(Word::Sign(Sign::Direct)),
        Just(Word::Sign(Sign::Heartbeat)),
        Just(Word::Silent),
        Just(Word::Forget),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..4usize).prop_map(Happening::Doubt),
        (0..4usize, prop_oneof![Just(Sign::Direct), Just(Sign::Heartbeat)])
            .prop_map(|(index, sign)| Happening::Sign(index, sign)),
        (0..4usize).prop_map(Happening::Restart),
        (0..4usize, word()).prop_map(|(index, word)| Happening::OfFormer(index, word)),
        (0..30u64).prop_map(|ticks| Happening::Pass(ticks * 100)),
        (0..5_000u64).prop_map(Happening::Sleep),
    ]
}

proptest! {
    /// The invariants of the file's header, over arbitrary histories; and what is doubted and never answers is dead in the end.
    #[test]
    fn no_verdict_without_a_whole_round_of_silence(happenings in prop::collection::vec(happening(), 1..60)) {
        let mut world = World::new(4);
        let mut last_sign = [ms(0); 4];
        let mut generations = [1; 4];
        let mut last_wake_up = ms(0);
        let mut judged = 0;
        for happening in happenings {
            let said = world.said.len();
            match happening {
                Happening::Doubt(index) => world.input(Input::Doubt(life_of(index, generations[index]))),
                Happening::Sign(index, sign) => {
                    last_sign[index] = world.now;
                    world.input(Input::Sign(life_of(index, generations[index]), sign));
                }
                Happening::Restart(index) => {
                    world.input(Input::Forget(life_of(index, generations[index])));
                    generations[index] += 1;
                    last_sign[index] = ms(0);
                    world.input(Input::Watch(life_of(index, generations[index])));
                }
                Happening::OfFormer(index, word) => {
                    let former = life_of(index, generations[index] - 1);
                    world.input(match word {
                        Word::Doubt => Input::Doubt(former),
                        Word::Sign(sign) => Input::Sign(former, sign),
                        Word::Silent => Input::Silent(former),
                        Word::Forget => Input::Forget(former),
                    });
                    prop_assert_eq!(&world.said[said..], &[], "{:?} of the former life", word);
                }
                Happening::Pass(ms_passed) => world.pass(ms(ms_passed)),
                Happening::Sleep(ms_asleep) => {
                    world.sleep_through(ms(ms_asleep));
                    let due = world.suspicion.next_wake() + LATE_AFTER;
                    let late = world.now > due;
                    let slept_away = world.now.saturating_sub(due);
                    let postponable = world.suspicion.peers.values().all(|watched| match &watched.condition {
                        Condition::Suspect(round) => world.now <= round.suspected_at + slept_away + POSTPONED_MAX,
                        Condition::Well | Condition::HeldDown { .. } | Condition::Dead { .. } => true,
                    });
                    if late && postponable {
                        last_wake_up = world.now;
                    }
                    world.input(Input::Wake);
                }
            }
            for (_, effect) in &world.said[said..] {
                if let Effect::Suspected(life) | Effect::Cleared(life) | Effect::Died(life) | Effect::Probe(life) = effect {
                    let index = (0..4).find(|index| self::life(*index).node == life.node).unwrap();
                    prop_assert_eq!(life.generation, generations[index], "{:?}", effect);
                }
            }
            // Only what this happening brought: a sign of life may come in the instant after a verdict.
            for (at, died) in world.deaths().into_iter().skip(std::mem::replace(&mut judged, world.deaths().len())) {
                if at == world.now {
                    let index = (0..4).find(|index| life_of(*index, generations[*index]) == died).unwrap();
                    prop_assert!(at >= last_sign[index] + TIMEOUTS.confirm || last_sign[index] == ms(0));
                    prop_assert!(at >= last_wake_up + TIMEOUTS.confirm || last_wake_up == ms(0));
                }
            }
        }
        for (index, generation) in generations.into_iter().enumerate() {
            world.input(Input::Doubt(life_of(index, generation)));
        }
        world.pass(TIMEOUTS.confirm + STRETCH_MAX + POSTPONED_MAX + TICK);
        for watched in world.suspicion.peers.values() {
            prop_assert!(watched.is_dead(), "{:?}", watched);
        }
    }
}
