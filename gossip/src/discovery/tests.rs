//! When sources are asked again and who is dialled.

use proptest::prelude::*;

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn s(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

fn ms(ms: u64) -> Time {
    Duration::from_millis(ms)
}

fn life(node: &str, generation: u64) -> Life {
    Life {
        node: node.parse().unwrap(),
        generation,
    }
}

fn discovery(sources: &[&str]) -> Discovery {
    let mut discovery = Discovery::new(s(10), 7);
    for text in sources {
        discovery.source((*text).into(), SourceKind::Seed, Target::parse(text).unwrap());
    }
    discovery
}

fn wake(discovery: &mut Discovery, now: Time, alone: bool, connected: &[&str]) -> Vec<Effect> {
    let mut out = Vec::new();
    let connected = connected.iter().map(|text| (addr(text), life("peer", 1))).collect();
    discovery.step(now, Input::Wake { alone, connected }, &mut out);
    out
}

fn step(discovery: &mut Discovery, now: Time, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    discovery.step(now, input, &mut out);
    out
}

fn dialled(discovery: &mut Discovery, now: Time, text: &str, outcome: Outcome) -> Vec<Effect> {
    let input = Input::Dialled {
        addr: addr(text),
        outcome,
    };
    step(discovery, now, input)
}

fn resolved(discovery: &mut Discovery, now: Time, source: usize, addresses: &[&str]) -> Vec<Effect> {
    let result = Ok(addresses.iter().map(|text| addr(text)).collect());
    step(discovery, now, Input::Resolved { source, result })
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed(why.into())
}

fn dial(text: &str) -> Effect {
    Effect::Dial(addr(text))
}

fn dials(effects: &[Effect]) -> BTreeSet<SocketAddr> {
    let dial = |effect: &Effect| match effect {
        Effect::Dial(addr) => Some(*addr),
        _ => None,
    };
    effects.iter().filter_map(dial).collect()
}

/// At which moments an address is dialled when every dial has this outcome, until `until`, with a wake each 200 ms.
fn dial_times(discovery: &mut Discovery, alone: bool, outcome: &Outcome, from: Time, until: Time) -> Vec<Time> {
    let mut times = Vec::new();
    let mut now = from;
    while now < until {
        let mut out = wake(discovery, now, alone, &[]);
        while let Some(effect) = out.pop() {
            match effect {
                Effect::Dial(addr) => {
                    times.push(now);
                    let outcome = outcome.clone();
                    out.extend(step(discovery, now, Input::Dialled { addr, outcome }));
                }
                Effect::Resolve { .. } | Effect::Failed { .. } | Effect::Warn { .. } | Effect::Recovered { .. } => {}
            }
        }
        now += ms(200);
    }
    times
}

/// The gaps between dials lie between these, less and more a fifth for jitter and a wake.
fn check_gaps(times: &[Time], expected: &[Duration]) {
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() >= expected.len(), "{gaps:?}");
    let last = expected.last().unwrap();
    for (index, gap) in gaps.iter().enumerate() {
        let expected = expected.get(index).unwrap_or(last);
        let (least, most) = (expected.mul_f64(0.8), expected.mul_f64(1.2) + ms(200));
        assert!(
            (least..=most).contains(gap),
            "gap {index} of {gaps:?}, expected {expected:?}"
        );
    }
}

#[test]
fn sources_are_read_or_refused() {
    let check = |text: &str, expected: Option<Target>| assert_eq!(Target::parse(text), expected, "{text:?}");
    let host = |host: &str, port| {
        Some(Target::Host {
            host: host.into(),
            port,
        })
    };
    check("10.0.0.1:7701", Some(Target::Address(addr("10.0.0.1:7701"))));
    check("[::1]:7701", Some(Target::Address(addr("[::1]:7701"))));
    check("10.0.0.1:007701", Some(Target::Address(addr("10.0.0.1:7701"))));
    check("node-1.example:7701", host("node-1.example", 7701));
    check(
        "_rookery._udp.example.org",
        Some(Target::Service("_rookery._udp.example.org".into())),
    );
    for wrong in [
        "",
        "host",
        "host:",
        ":1",
        "host:0",
        "10.0.0.1:0",
        "host:99999",
        "10.0.0.1:+7701",
        "a b:1",
        "::1:7701:x",
        "_x",
        "_rookery._udp",
        "_a.._b",
    ] {
        check(wrong, None);
    }
}

#[test]
fn names_are_looked_up_every_two_seconds_alone_and_otherwise_at_the_interval() {
    for (alone, from, to) in [(true, 1_600, 2_400), (false, 8_000, 12_000)] {
        let mut discovery = discovery(&["host:1"]);
        let mut asked = Vec::new();
        for at in (0..60_000).step_by(50) {
            if !wake(&mut discovery, ms(at), alone, &[]).is_empty() {
                asked.push(at);
                resolved(&mut discovery, ms(at), 0, &[]);
            }
        }
        assert!(asked.len() >= 5, "{asked:?}");
        for pair in asked.windows(2) {
            let gap = pair[1] - pair[0];
            assert!((from..=to + 50).contains(&gap), "alone: {alone}, gap {gap} ms");
        }
    }
}

#[test]
fn a_silent_address_is_left_alone_for_longer_and_longer_but_not_while_nobody_is_here() {
    let silent = failed("no answer within 2 s");
    let mut alone = discovery(&["10.0.0.1:1"]);
    let times = dial_times(&mut alone, true, &silent, s(0), s(60));
    check_gaps(&times, &[s(2)]);

    let mut seed = discovery(&["10.0.0.1:1"]);
    let times = dial_times(&mut seed, false, &silent, s(0), s(120));
    check_gaps(&times, &[s(2), s(4), s(8), s(10)]);

    let mut named = discovery(&[]);
    named.source("host:1".into(), SourceKind::Dns, Target::parse("host:1").unwrap());
    wake(&mut named, s(0), false, &[]);
    let first = dials(&resolved(&mut named, s(0), 0, &["10.0.0.1:1"]));
    assert_eq!(first.len(), 1);
    dialled(&mut named, s(0), "10.0.0.1:1", silent.clone());
    let mut times = vec![s(0)];
    times.extend(dial_times(&mut named, false, &silent, ms(200), s(600)));
    check_gaps(&times, &[s(2), s(4), s(8), s(16), s(32), s(60)]);
    assert_eq!(named.status(s(600))[0].addresses[0].failures, times.len() as u32);
}

#[test]
fn a_node_that_loses_everyone_does_not_wait_for_the_interval() {
    let mut discovery = discovery(&["10.0.0.1:1"]);
    assert_eq!(wake(&mut discovery, s(0), false, &[]), [dial("10.0.0.1:1")]);
    dialled(&mut discovery, s(0), "10.0.0.1:1", Outcome::Reached(None));
    assert_eq!(wake(&mut discovery, s(3), false, &[]), []);
    assert_eq!(wake(&mut discovery, s(3), true, &[]), [dial("10.0.0.1:1")]);
}

#[test]
fn who_is_connected_and_who_is_ourselves_is_not_dialled() {
    let mut discovery = discovery(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"]);
    discovery.own(addr("10.0.0.4:1"));
    let begun = wake(&mut discovery, s(0), true, &["10.0.0.2:1"]);
    assert_eq!(dials(&begun), [addr("10.0.0.1:1"), addr("10.0.0.3:1")].into());
    dialled(&mut discovery, s(0), "10.0.0.1:1", Outcome::Ourselves);
    let status = discovery.status(s(0));
    let ourselves: Vec<bool> = status.iter().map(|source| source.addresses[0].is_ourselves).collect();
    assert_eq!(ourselves, [true, false, false, true]);
    assert_eq!(status[1].addresses[0].answered_by, Some(life("peer", 1)));
    assert_eq!(status[0].last_error, None);
}

#[test]
fn an_alias_of_ours_is_tried_ever_more_rarely_because_it_may_lead_elsewhere() {
    let mut discovery = discovery(&["10.0.0.1:1"]);
    let times = dial_times(&mut discovery, true, &Outcome::Ourselves, s(0), s(400));
    check_gaps(&times, &[s(2), s(4), s(8), s(16), s(32), s(60)]);
    // The virtual address leads to another node for once.
    wake(&mut discovery, s(500), true, &[]);
    dialled(
        &mut discovery,
        s(500),
        "10.0.0.1:1",
        Outcome::Reached(Some(life("b", 1))),
    );
    let address = &discovery.status(s(501))[0].addresses[0];
    assert_eq!((address.is_ourselves, address.answered_ago), (false, Some(s(1))));
}

#[test]
fn a_look_up_that_is_under_way_is_not_repeated() {
    let mut discovery = discovery(&["host:1"]);
    assert_eq!(wake(&mut discovery, s(0), true, &[]).len(), 1);
    assert_eq!(wake(&mut discovery, s(30), true, &[]), []);
    resolved(&mut discovery, s(30), 0, &[]);
    assert_eq!(wake(&mut discovery, s(31), true, &[]).len(), 1);
}

#[test]
fn a_dial_that_is_under_way_is_not_repeated_and_two_sources_share_it() {
    let mut discovery = discovery(&["10.0.0.1:1", "host:1"]);
    wake(&mut discovery, s(0), true, &[]);
    assert_eq!(resolved(&mut discovery, s(0), 1, &["10.0.0.1:1"]), []);
    assert_eq!(dials(&wake(&mut discovery, s(30), true, &[])), [].into());
    let out = dialled(&mut discovery, s(30), "10.0.0.1:1", failed("no"));
    assert_eq!(
        out.iter()
            .filter(|effect| matches!(effect, Effect::Failed { .. }))
            .count(),
        2
    );
}

#[test]
fn a_failing_source_is_counted_each_time_and_warned_of_once_a_minute() {
    let mut discovery = discovery(&["host:1"]);
    let mut warned = 0;
    let mut counted = 0;
    for second in (0..120).step_by(3) {
        wake(&mut discovery, s(second), true, &[]);
        let result = Err("no such name".into());
        for effect in step(&mut discovery, s(second), Input::Resolved { source: 0, result }) {
            match effect {
                Effect::Warn { source, why } => {
                    assert_eq!((source.as_str(), why.as_str()), ("host:1", "no such name"));
                    warned += 1;
                }
                Effect::Failed { kind } => {
                    assert_eq!(kind, SourceKind::Seed);
                    counted += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((warned, counted), (2, 40));
    let status = discovery.status(s(120));
    assert_eq!(status[0].last_error.as_deref(), Some("no such name"));
    assert_eq!(status[0].failures, 40);
    wake(&mut discovery, s(130), true, &[]);
    let found = resolved(&mut discovery, s(130), 0, &["10.0.0.9:1"]);
    let recovered = Effect::Recovered {
        source: "host:1".into(),
    };
    assert_eq!(found, [recovered, dial("10.0.0.9:1")]);
    assert_eq!(discovery.status(s(130))[0].last_error, None);
}

#[test]
fn what_a_name_stood_for_is_still_dialled_when_it_cannot_be_looked_up() {
    let mut discovery = discovery(&["host:1"]);
    wake(&mut discovery, s(0), true, &[]);
    resolved(&mut discovery, s(0), 0, &["10.0.0.1:1"]);
    dialled(&mut discovery, s(0), "10.0.0.1:1", failed("no"));
    wake(&mut discovery, s(5), true, &[]);
    let result = Err("the server is down".into());
    step(&mut discovery, s(5), Input::Resolved { source: 0, result });
    dialled(&mut discovery, s(5), "10.0.0.1:1", failed("no"));
    assert_eq!(
        dials(&wake(&mut discovery, s(9), true, &[])),
        [addr("10.0.0.1:1")].into()
    );
    assert_eq!(
        discovery.status(s(9))[0].last_error.as_deref(),
        Some("the server is down")
    );
}

#[test]
fn a_name_whose_records_change_leads_to_the_new_ones_while_the_old_ones_still_answer() {
    let mut discovery = discovery(&["host:1"]);
    wake(&mut discovery, s(0), true, &[]);
    assert_eq!(resolved(&mut discovery, s(0), 0, &["10.0.0.1:1"]), [dial("10.0.0.1:1")]);
    dialled(&mut discovery, s(0), "10.0.0.1:1", Outcome::Reached(Some(life("a", 1))));
    let asked = wake(&mut discovery, s(13), false, &["10.0.0.1:1"]);
    assert!(matches!(asked[..], [Effect::Resolve { .. }]));
    assert_eq!(
        resolved(&mut discovery, s(13), 0, &["10.0.0.2:1"]),
        [dial("10.0.0.2:1")]
    );
    let addresses = &discovery.status(s(13))[0].addresses;
    assert_eq!(
        addresses.iter().map(|address| address.addr).collect::<Vec<_>>(),
        [addr("10.0.0.2:1")]
    );
}

#[test]
fn one_address_that_answers_is_enough_for_a_source() {
    let mut discovery = discovery(&["host:1"]);
    wake(&mut discovery, s(0), true, &[]);
    resolved(&mut discovery, s(0), 0, &["10.0.0.1:1", "10.0.0.2:1"]);
    let out = dialled(&mut discovery, s(0), "10.0.0.1:1", failed("no route"));
    assert!(out.iter().any(|effect| matches!(effect, Effect::Warn { .. })));
    let why = discovery.status(s(0))[0].last_error.clone();
    assert_eq!(why.as_deref(), Some("no answer from 10.0.0.1:1: no route"));
    let out = dialled(&mut discovery, s(0), "10.0.0.2:1", Outcome::Reached(Some(life("b", 3))));
    let recovered = Effect::Recovered {
        source: "host:1".into(),
    };
    assert_eq!(out, [recovered]);
    let status = &discovery.status(s(4))[0];
    assert_eq!(status.last_error, None);
    // And for each address it is still known how it fares.
    assert_eq!(status.addresses[0].last_error.as_deref(), Some("no route"));
    assert_eq!(status.addresses[1].answered_by, Some(life("b", 3)));
    assert_eq!(status.addresses[1].answered_ago, Some(s(4)));
}

#[test]
fn a_seed_that_is_down_is_warned_of_only_while_nobody_is_here() {
    let mut discovery = discovery(&["10.0.0.1:1"]);
    wake(&mut discovery, s(0), false, &[]);
    assert_eq!(
        dialled(&mut discovery, s(0), "10.0.0.1:1", failed("timed out")),
        [Effect::Failed { kind: SourceKind::Seed }]
    );
    wake(&mut discovery, s(20), true, &[]);
    assert!(matches!(
        dialled(&mut discovery, s(20), "10.0.0.1:1", failed("timed out"))[..],
        [Effect::Failed { .. }, Effect::Warn { .. }]
    ));
    // Asking again is no recovery; an answer is.
    wake(&mut discovery, s(40), true, &[]);
    assert!(discovery.status(s(40))[0].last_error.is_some());
    let recovered = Effect::Recovered {
        source: "10.0.0.1:1".into(),
    };
    assert_eq!(
        dialled(&mut discovery, s(40), "10.0.0.1:1", Outcome::Reached(None)),
        [recovered]
    );
}

#[test]
fn who_said_goodbye_is_left_alone_until_another_life_answers_there() {
    let gone = life("a", 5);
    let goodbye = || Input::Departed {
        addr: addr("10.0.0.1:1"),
        life: gone.clone(),
    };
    let mut discovery = discovery(&["10.0.0.1:1"]);
    wake(&mut discovery, s(0), true, &[]);
    dialled(&mut discovery, s(0), "10.0.0.1:1", Outcome::Reached(Some(gone.clone())));
    step(&mut discovery, s(100), goodbye());
    assert_eq!(wake(&mut discovery, s(101), false, &[]), []);
    let status = discovery.status(s(101));
    assert_eq!(status[0].addresses[0].last_error.as_deref(), Some("a said goodbye"));
    // It is still closing: the same life answers, and that is no answer.
    let again = Outcome::Reached(Some(gone.clone()));
    let times = dial_times(&mut discovery, false, &again, s(101), s(160));
    check_gaps(&times, &[s(4), s(8), s(10)]);
    assert!(discovery.status(s(160))[0].last_error.is_some());
    // Even when it says goodbye once more.
    step(&mut discovery, s(160), goodbye());
    assert_eq!(dials(&wake(&mut discovery, s(167), false, &[])), [].into());
    wake(&mut discovery, s(175), false, &[]);
    dialled(
        &mut discovery,
        s(175),
        "10.0.0.1:1",
        Outcome::Reached(Some(life("a", 6))),
    );
    let status = discovery.status(s(175));
    assert_eq!(
        (status[0].addresses[0].failures, status[0].last_error.as_deref()),
        (0, None)
    );
}

#[test]
fn a_lone_seed_that_restarts_is_found_again_within_a_poll_interval() {
    for (alone, most) in [(true, ms(4_800 + 200)), (false, ms(12_000 + 200))] {
        for down_for in 1..120 {
            let mut discovery = discovery(&["10.0.0.1:1"]);
            wake(&mut discovery, s(0), true, &[]);
            dialled(&mut discovery, s(0), "10.0.0.1:1", Outcome::Reached(Some(life("a", 1))));
            let input = Input::Departed {
                addr: addr("10.0.0.1:1"),
                life: life("a", 1),
            };
            step(&mut discovery, s(1), input);
            let back_at = s(1 + down_for);
            dial_times(&mut discovery, alone, &failed("refused"), ms(1_200), back_at);
            let found = dial_times(
                &mut discovery,
                alone,
                &Outcome::Reached(Some(life("a", 2))),
                back_at,
                s(200),
            );
            let after = *found.first().expect("it is dialled") - back_at;
            assert!(
                after <= most,
                "alone: {alone}, down for {down_for} s, found after {after:?}"
            );
        }
    }
}

#[test]
fn of_thousands_of_addresses_a_bounded_number_is_kept_and_each_of_them_is_dialled() {
    let many: Vec<String> = (0..4_000)
        .map(|index| format!("10.1.{}.{}:1", index / 250, index % 250))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut discovery = discovery(&["host:1"]);
    wake(&mut discovery, s(0), true, &[]);
    let mut pending = resolved(&mut discovery, s(0), 0, &many);
    assert_eq!(discovery.status(s(0))[0].addresses.len(), ADDRESSES_MAX);
    let mut tried = BTreeSet::new();
    let mut now = s(0);
    while now < s(40) {
        assert!(dials(&pending).len() <= DIALS_ALONE);
        for addr in dials(&pending) {
            tried.insert(addr);
            let outcome = failed("no");
            step(&mut discovery, now, Input::Dialled { addr, outcome });
        }
        now += ms(200);
        pending = wake(&mut discovery, now, true, &[]);
    }
    assert_eq!(tried.len(), ADDRESSES_MAX);
    // At the next look-up others come in, and those that answer stay.
    let kept: Vec<SocketAddr> = tried.iter().copied().take(3).collect();
    for addr in &kept {
        let outcome = Outcome::Reached(None);
        step(&mut discovery, now, Input::Dialled { addr: *addr, outcome });
    }
    resolved(&mut discovery, now, 0, &many);
    let second: BTreeSet<SocketAddr> = discovery.status(now)[0]
        .addresses
        .iter()
        .map(|address| address.addr)
        .collect();
    assert!(kept.iter().all(|addr| second.contains(addr)));
    assert!(second.difference(&tried).count() > ADDRESSES_MAX / 2);
}

#[test]
fn in_a_cluster_dials_are_spread_and_seeds_come_first() {
    let mut discovery = discovery(&["10.0.0.1:1"]);
    discovery.source("host:1".into(), SourceKind::Dns, Target::parse("host:1").unwrap());
    wake(&mut discovery, s(0), false, &["10.0.0.1:1"]);
    let many: Vec<String> = (0..100).map(|index| format!("10.1.0.{index}:1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    resolved(&mut discovery, s(0), 1, &many);
    // The seed is lost, and is dialled before all the others.
    assert_eq!(wake(&mut discovery, s(1), false, &[]), [dial("10.0.0.1:1")]);
    for index in 1..20 {
        assert_eq!(
            dials(&wake(&mut discovery, s(1) + ms(200 * index), false, &[])).len(),
            1
        );
    }
}

#[test]
fn an_added_seed_is_dialled_at_once_and_the_oldest_of_too_many_is_dropped() {
    let mut discovery = discovery(&["10.0.0.1:1"]);
    wake(&mut discovery, s(0), false, &[]);
    for index in 0..100u16 {
        let text = format!("10.0.1.1:{}", index + 1);
        let target = Target::parse(&text).unwrap();
        let input = Input::Add {
            text: text.clone(),
            target,
        };
        assert_eq!(step(&mut discovery, s(0), input), [dial(&text)]);
    }
    let status = discovery.status(s(0));
    assert_eq!(status.len(), 1 + ADDED_MAX);
    assert_eq!(status[0].source, "10.0.0.1:1");
    assert_eq!(status.last().unwrap().source, "10.0.1.1:100");
    // Adding one that is there dials it once more.
    dialled(&mut discovery, s(0), "10.0.1.1:100", failed("no"));
    let text = "10.0.1.1:100".to_owned();
    let target = Target::parse(&text).unwrap();
    assert_eq!(
        step(&mut discovery, s(1), Input::Add { text, target }),
        [dial("10.0.1.1:100")]
    );
}

/// What lives behind an address in the simulation.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    Nobody,
    Ourselves,
    /// A node; after it said goodbye it answers for a while with the same life.
    Node {
        life: Life,
        closing: bool,
    },
}

/// A small world: names and seeds, places that change, look-ups and dials that take their time.
struct World {
    random: u64,
    now: Time,
    discovery: Discovery,
    places: BTreeMap<SocketAddr, Place>,
    names_work: bool,
    under_way: Vec<(Time, Input)>,
    connected: BTreeMap<SocketAddr, Life>,
    /// What it was told at the last wake.
    alone: bool,
    dialled_at: BTreeMap<SocketAddr, Vec<Time>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut discovery = Discovery::new(s(10), seed);
        discovery.own(addr("10.0.0.0:1"));
        for text in ["10.0.0.0:1", "10.0.0.1:1", "10.0.0.2:1"] {
            discovery.source(text.into(), SourceKind::Seed, Target::parse(text).unwrap());
        }
        for text in ["a:1", "_x._udp.b"] {
            discovery.source(text.into(), SourceKind::Dns, Target::parse(text).unwrap());
        }
        let places = (0..10).map(|index| (addr(&format!("10.0.0.{index}:1")), Place::Nobody));
        Self {
            random: seed,
            now: Time::ZERO,
            discovery,
            places: places.collect(),
            names_work: true,
            under_way: Vec::new(),
            connected: BTreeMap::new(),
            alone: true,
            dialled_at: BTreeMap::new(),
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        draw(&mut self.random) < probability
    }

    fn below(&mut self, bound: usize) -> usize {
        (draw(&mut self.random) * bound as f64) as usize
    }

    fn step(&mut self, input: Input) {
        if let Input::Wake { alone, .. } = &input {
            self.alone = *alone;
        }
        let mut out = Vec::new();
        self.discovery.step(self.now, input, &mut out);
        assert!(dials(&out).len() <= DIALS_ALONE);
        for effect in out {
            match effect {
                Effect::Resolve { target, source } => {
                    let first = if target == Target::Service("_x._udp.b".into()) {
                        5
                    } else {
                        1
                    };
                    let found = (first..first + 5)
                        .map(|index| addr(&format!("10.0.0.{index}:1")))
                        .collect();
                    let result = if self.names_work {
                        Ok(found)
                    } else {
                        Err("no such name".to_owned())
                    };
                    let at = self.now + ms(1 + self.below(3_000) as u64);
                    self.under_way.push((at, Input::Resolved { source, result }));
                }
                Effect::Dial(addr) => {
                    assert_ne!(addr, self.discovery.own.unwrap(), "our own address is never dialled");
                    assert!(!self.connected.contains_key(&addr), "{addr} is connected");
                    let repeated = |(_, input): &(Time, Input)| matches!(input, Input::Dialled { addr: other, .. } if *other == addr);
                    assert!(!self.under_way.iter().any(repeated), "{addr} is being dialled");
                    let times = self.dialled_at.entry(addr).or_default();
                    if let Some(last) = times.last() {
                        assert!(self.now - *last >= ms(1_600), "{addr} is dialled again too soon");
                    }
                    times.push(self.now);
                    let (outcome, took) = match &self.places[&addr] {
                        Place::Nobody => (failed("silent"), 2_000),
                        Place::Ourselves => (Outcome::Ourselves, 3),
                        Place::Node { life, .. } => (Outcome::Reached(Some(life.clone())), 5),
                    };
                    self.under_way
                        .push((self.now + ms(took), Input::Dialled { addr, outcome }));
                }
                // Of a name that cannot be looked up at any time, of silence only while nobody is here.
                Effect::Warn { why, .. } => assert!(self.alone || why == "no such name", "warned of: {why}"),
                Effect::Failed { .. } | Effect::Recovered { .. } => {}
            }
        }
    }

    /// Lets 200 ms pass, with everything that comes to its end in them.
    fn run(&mut self) {
        self.now += ms(200);
        self.under_way.sort_by_key(|(at, _)| *at);
        while self.under_way.first().is_some_and(|(at, _)| *at <= self.now) {
            let (_, input) = self.under_way.remove(0);
            if let Input::Dialled {
                addr,
                outcome: Outcome::Reached(Some(life)),
            } = &input
                && matches!(&self.places[addr], Place::Node { life: there, closing: false } if there == life)
            {
                self.connected.insert(*addr, life.clone());
            }
            self.step(input);
        }
        let input = Input::Wake {
            alone: self.connected.is_empty(),
            connected: self.connected.clone(),
        };
        self.step(input);
    }

    fn trouble(&mut self) {
        let index = self.below(self.places.len());
        let addr = *self.places.keys().nth(index).unwrap();
        let generation = 1 + self.now.as_millis() as u64;
        let node = format!("n{index}");
        let before = self.places[&addr].clone();
        let place = match (self.below(6), before) {
            (0, Place::Node { life, closing: false }) => {
                self.connected.remove(&addr);
                self.step(Input::Departed {
                    addr,
                    life: life.clone(),
                });
                Place::Node { life, closing: true }
            }
            (0 | 1, _) => Place::Nobody,
            (2, _) => Place::Ourselves,
            _ => Place::Node {
                life: life(&node, generation),
                closing: false,
            },
        };
        if !matches!((&place, self.connected.get(&addr)), (Place::Node { life, .. }, Some(there)) if life == there) {
            self.connected.remove(&addr);
        }
        self.places.insert(addr, place);
        if self.chance(0.2) {
            self.names_work = !self.names_work;
        }
    }
}

/// Whatever happens, what can be found is found soon after things have come to rest, and nothing is dialled too often on the way.
fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..300 {
        if world.chance(0.15) {
            world.trouble();
        }
        world.run();
    }
    // It heals: at every place there is a node, in a life of its own.
    world.names_work = true;
    let own = world.discovery.own.unwrap();
    for (index, place) in world.places.values_mut().enumerate() {
        if !matches!(place, Place::Node { closing: false, .. }) {
            *place = Place::Node {
                life: life(&format!("n{index}"), 1_000_000),
                closing: false,
            };
        }
    }
    // A named address that failed often is left alone for a minute and a fifth at the most, a look-up may take 3 s more.
    for _ in 0..(80 * 5) {
        world.run();
    }
    let missing: Vec<_> = world
        .places
        .keys()
        .filter(|addr| **addr != own && !world.connected.contains_key(*addr))
        .collect();
    assert!(missing.is_empty(), "seed {seed}: {missing:?} were not found");
    for source in world.discovery.status(world.now) {
        assert_eq!(source.last_error, None, "seed {seed}: {}", source.source);
    }
}

#[test]
fn simulation_of_places_that_come_and_go() {
    if let Ok(seed) = std::env::var("ROOKERY_SEED") {
        return simulate(seed.parse().unwrap());
    }
    for seed in 0..500 {
        simulate(seed);
    }
}

proptest! {
    /// Whatever text is configured is read or refused, and what is read stands for what was written.
    #[test]
    fn any_text_is_a_source_or_none(text in "[a-z0-9_.:\\[\\]-]{0,24}") {
        match Target::parse(&text) {
            Some(Target::Address(addr)) => prop_assert!(addr.port() != 0),
            Some(Target::Host { host, port }) => prop_assert_eq!(format!("{host}:{port}").len(), text.len() - leading_zeros(&text)),
            Some(Target::Service(name)) => prop_assert_eq!(name, text),
            None => {}
        }
    }
}

/// Zeros in front of a port are no part of the number.
fn leading_zeros(text: &str) -> usize {
    let port = text.rsplit_once(':').map_or("", |(_, port)| port);
    let port = port.strip_prefix('+').unwrap_or(port);
    port.len() - port.trim_start_matches('0').len()
}
