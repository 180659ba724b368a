//! When sources are asked again and who is dialled.

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn s(seconds: u64) -> Time {
    Duration::from_secs(seconds)
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
    let connected = connected.iter().map(|text| addr(text)).collect();
    discovery.step(now, Input::Wake { alone, connected }, &mut out);
    out
}

fn step(discovery: &mut Discovery, now: Time, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    discovery.step(now, input, &mut out);
    out
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
fn a_node_that_is_alone_asks_every_two_seconds_and_otherwise_at_the_interval() {
    for (alone, from, to) in [(true, 1_600, 2_400), (false, 8_000, 12_000)] {
        let mut discovery = discovery(&["10.0.0.1:1"]);
        let mut asked = Vec::new();
        for ms in (0..60_000).step_by(50) {
            if !wake(&mut discovery, Duration::from_millis(ms), alone, &[]).is_empty() {
                asked.push(ms);
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
fn a_node_that_loses_everyone_does_not_wait_for_the_interval() {
    let mut discovery = discovery(&["10.0.0.1:1"]);
    wake(&mut discovery, s(0), false, &[]);
    assert_eq!(wake(&mut discovery, s(3), false, &[]), []);
    assert_eq!(wake(&mut discovery, s(3), true, &[]).len(), 1);
}

#[test]
fn who_is_connected_and_who_is_ourselves_is_not_dialled() {
    let mut discovery = discovery(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
    let dials = wake(&mut discovery, s(0), true, &["10.0.0.2:1"]);
    let dial = |source, text| Effect::Dial {
        source,
        addr: addr(text),
    };
    assert_eq!(dials, [dial(0, "10.0.0.1:1"), dial(2, "10.0.0.3:1")]);
    step(
        &mut discovery,
        s(1),
        Input::Dialled {
            source: 0,
            addr: addr("10.0.0.1:1"),
            outcome: Outcome::Ourselves,
        },
    );
    assert_eq!(
        wake(&mut discovery, s(10), true, &["10.0.0.2:1"]),
        [dial(2, "10.0.0.3:1")]
    );
    let later = wake(&mut discovery, s(70), true, &["10.0.0.2:1"]);
    assert_eq!(later, [dial(0, "10.0.0.1:1"), dial(2, "10.0.0.3:1")]);
}

#[test]
fn a_look_up_that_is_under_way_is_not_repeated() {
    let mut discovery = discovery(&["host:1"]);
    assert_eq!(wake(&mut discovery, s(0), true, &[]).len(), 1);
    assert_eq!(wake(&mut discovery, s(30), true, &[]), []);
    step(
        &mut discovery,
        s(30),
        Input::Resolved {
            source: 0,
            result: Ok(vec![]),
        },
    );
    assert_eq!(wake(&mut discovery, s(31), true, &[]).len(), 1);
}

#[test]
fn a_failing_source_is_counted_each_time_and_warned_of_once_a_minute() {
    let mut discovery = discovery(&["host:1"]);
    let mut warned = 0;
    let mut counted = 0;
    for second in (0..120).step_by(3) {
        wake(&mut discovery, s(second), true, &[]);
        for effect in step(
            &mut discovery,
            s(second),
            Input::Resolved {
                source: 0,
                result: Err("no such name".into()),
            },
        ) {
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
    assert_eq!(discovery.status()[0].last_error.as_deref(), Some("no such name"));
    assert_eq!(discovery.status()[0].failures, 40);
    wake(&mut discovery, s(130), true, &[]);
    let found = step(
        &mut discovery,
        s(130),
        Input::Resolved {
            source: 0,
            result: Ok(vec![addr("10.0.0.9:1")]),
        },
    );
    assert_eq!(
        found,
        [
            Effect::Recovered {
                source: "host:1".into()
            },
            Effect::Dial {
                source: 0,
                addr: addr("10.0.0.9:1")
            }
        ]
    );
    assert_eq!(discovery.status()[0].last_error, None);
}

#[test]
fn a_seed_that_is_down_is_warned_of_only_while_nobody_is_here() {
    let mut discovery = discovery(&["10.0.0.1:1"]);
    let failed = |discovery: &mut Discovery, now| {
        let outcome = Outcome::Failed("timed out".into());
        step(
            discovery,
            now,
            Input::Dialled {
                source: 0,
                addr: addr("10.0.0.1:1"),
                outcome,
            },
        )
    };
    wake(&mut discovery, s(0), false, &[]);
    assert_eq!(
        failed(&mut discovery, s(0)),
        [Effect::Failed { kind: SourceKind::Seed }]
    );
    wake(&mut discovery, s(20), true, &[]);
    assert!(matches!(
        failed(&mut discovery, s(20))[..],
        [Effect::Failed { .. }, Effect::Warn { .. }]
    ));
    // Asking again is no recovery; an answer is.
    wake(&mut discovery, s(40), true, &[]);
    assert!(discovery.status()[0].last_error.is_some());
    let reached = step(
        &mut discovery,
        s(40),
        Input::Dialled {
            source: 0,
            addr: addr("10.0.0.1:1"),
            outcome: Outcome::Reached,
        },
    );
    assert_eq!(
        reached,
        [Effect::Recovered {
            source: "10.0.0.1:1".into()
        }]
    );
}

#[test]
fn an_added_seed_is_dialled_at_once_and_the_oldest_of_too_many_is_dropped() {
    let mut discovery = discovery(&["10.0.0.1:1"]);
    for index in 0..100u16 {
        let text = format!("10.0.1.1:{}", index + 1);
        let target = Target::parse(&text).unwrap();
        let out = step(
            &mut discovery,
            s(0),
            Input::Add {
                text: text.clone(),
                target,
            },
        );
        assert!(
            out.iter()
                .any(|effect| matches!(effect, Effect::Dial { addr: dialled, .. } if *dialled == addr(&text)))
        );
    }
    let status = discovery.status();
    assert_eq!(status.len(), 1 + ADDED_MAX);
    assert_eq!(status[0].source, "10.0.0.1:1");
    assert_eq!(status.last().unwrap().source, "10.0.1.1:100");
}
