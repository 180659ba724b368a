//! Who is a member, through restarts, deaths, goodbyes and late news.

use proptest::prelude::*;

use super::*;

fn life(name: &str, generation: u64) -> Life {
    Life {
        node: name.parse().unwrap(),
        generation,
    }
}

fn identity(name: &str, generation: u64) -> Identity {
    Identity {
        peer: Peer {
            node: name.parse().unwrap(),
            generation,
            addr: "10.0.0.9:1".into(),
        },
        gossip_addr: "10.0.0.9:1".parse().unwrap(),
    }
}

fn report(name: &str, generation: u64, live: bool, heard: bool) -> Report {
    Report {
        life: life(name, generation),
        gossip_addr: "10.0.0.9:1".parse().unwrap(),
        live,
        heard,
        stated: None,
    }
}

fn stated(name: &str, generation: u64, pairs: &[(&str, &str)]) -> Report {
    let stated = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Report {
        stated: Some(stated),
        ..report(name, generation, true, true)
    }
}

fn view() -> View {
    View::new(life("self", 5), 1_000)
}

fn step(view: &mut View, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    view.step(Time::ZERO, input, &mut out);
    out
}

fn step_at(view: &mut View, now: Time, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    view.step(now, input, &mut out);
    out
}

fn gossip(view: &mut View, reports: &[Report]) -> Vec<Effect> {
    step(view, Input::Gossip(reports.to_vec()))
}

fn members(view: &View) -> Members {
    let peer = Peer {
        node: "self".parse().unwrap(),
        generation: 5,
        addr: "10.0.0.1:1".into(),
    };
    view.members(Member {
        peer,
        state: MemberState::Ready,
        facts: Arc::default(),
        departed: false,
        mesh_version: 2,
        rtt: None,
    })
}

fn state(view: &View, name: &str) -> Option<MemberState> {
    members(view).get(&name.parse().unwrap()).map(|member| member.state)
}

#[test]
fn who_connects_or_is_heard_of_alive_is_a_member() {
    let mut view = view();
    let a = life("a", 1);
    let arrived = step(&mut view, Input::Connected(identity("a", 1)));
    assert_eq!(
        arrived,
        [
            Effect::Watch(a.clone()),
            Effect::Arrived(identity("a", 1)),
            Effect::Sign(a, Sign::Direct)
        ]
    );
    assert_eq!(state(&view, "a"), Some(MemberState::Joining));
    gossip(
        &mut view,
        &[stated(
            "a",
            1,
            &[("st", "ready"), ("f/load", "7"), ("addr", "a.example:1"), ("mv", "2")],
        )],
    );
    let shown = members(&view);
    let member = shown.get(&"a".parse().unwrap()).unwrap();
    assert_eq!(
        (member.state, member.facts["load"].as_str(), member.peer.addr.as_str()),
        (MemberState::Ready, "7", "a.example:1")
    );
    assert_eq!(member.mesh_version, 2);
    // Gossip's memory of the long dead makes no members.
    assert_eq!(
        gossip(
            &mut view,
            &[report("old", 1, false, false), report("b", 1, true, false)]
        ),
        []
    );
    assert_eq!(state(&view, "old"), None);
    gossip(&mut view, &[report("b", 1, true, true)]);
    assert_eq!(state(&view, "b"), Some(MemberState::Joining));
    assert_eq!(members(&view).len(), 3);
    let silent = members(&view).get(&"b".parse().unwrap()).unwrap().mesh_version;
    assert_eq!(silent, 1, "who does not say is of the first version");
}

#[test]
fn a_newer_life_ends_the_older_one_at_once_and_for_good() {
    let mut view = view();
    step(&mut view, Input::Connected(identity("a", 1)));
    let out = step(&mut view, Input::Connected(identity("a", 2)));
    assert!(out.contains(&Effect::Gone(life("a", 1))), "{out:?}");
    assert!(out.contains(&Effect::Arrived(identity("a", 2))), "{out:?}");
    // What is still on its way about the older life changes nothing.
    assert_eq!(gossip(&mut view, &[report("a", 1, true, true)]), []);
    assert_eq!(step(&mut view, Input::Connected(identity("a", 1))), []);
    assert_eq!(
        step(
            &mut view,
            Input::Disconnected {
                life: life("a", 1),
                parting: Parting::Lost
            }
        ),
        []
    );
    assert_eq!(members(&view).get(&"a".parse().unwrap()).unwrap().peer.generation, 2);
}

#[test]
fn a_newer_life_is_not_suspected_for_the_silence_of_the_older_one() {
    let mut view = view();
    step(&mut view, Input::Connected(identity("a", 1)));
    gossip(&mut view, &[report("a", 1, true, true)]);
    let effects = gossip(&mut view, &[report("a", 1, false, false), report("a", 2, true, true)]);
    assert!(effects.contains(&Effect::Gone(life("a", 1))), "{effects:?}");
    assert!(!effects.contains(&Effect::Doubt(life("a", 2))), "{effects:?}");
}

#[test]
fn a_verdict_on_a_life_that_is_over_does_not_touch_the_next_one() {
    let (old, new) = (life("a", 1), life("a", 2));
    // Before the next life is here, a verdict is about the one that is.
    let mut view = view();
    step(&mut view, Input::Connected(identity("a", 1)));
    step(&mut view, Input::Suspected(new.clone()));
    assert_eq!(step(&mut view, Input::Died(new.clone())), []);
    assert_eq!(state(&view, "a"), Some(MemberState::Joining));
    step(&mut view, Input::Suspected(old.clone()));
    assert_eq!(step(&mut view, Input::Died(old.clone())), [Effect::Gone(old.clone())]);
    // The same gossip brings heartbeats, by which suspicion comes to its verdict, and the next life.
    let effects = gossip(
        &mut view,
        &[
            report("b", 1, true, true),
            report("a", 1, false, false),
            report("a", 2, true, true),
        ],
    );
    let arrival = [
        Effect::Forget(old.clone()),
        Effect::Watch(new.clone()),
        Effect::Arrived(identity("a", 2)),
        Effect::Sign(new.clone(), Sign::Heartbeat),
    ];
    assert!(effects.ends_with(&arrival), "{effects:?}");
    for late in [
        Input::Suspected(old.clone()),
        Input::Died(old.clone()),
        Input::Cleared(old.clone()),
    ] {
        assert_eq!(step(&mut view, late), []);
        assert_eq!(state(&view, "a"), Some(MemberState::Joining));
    }
    // Nor does a late answer of the older life make the newer one well.
    step(&mut view, Input::Suspected(new.clone()));
    assert_eq!(step(&mut view, Input::Cleared(old.clone())), []);
    assert_eq!(state(&view, "a"), Some(MemberState::Suspect));
    assert_eq!(step(&mut view, Input::Died(new.clone())), [Effect::Gone(new)]);
    assert_eq!(step(&mut view, Input::Cleared(old)), []);
    assert_eq!(state(&view, "a"), Some(MemberState::Dead));
}

#[test]
fn silence_and_lost_connections_are_doubts_and_a_goodbye_is_not() {
    let mut view = view();
    let a = life("a", 1);
    step(&mut view, Input::Connected(identity("a", 1)));
    gossip(&mut view, &[report("a", 1, true, true)]);
    assert_eq!(
        gossip(&mut view, &[report("a", 1, false, false)]),
        [Effect::Doubt(a.clone())]
    );
    step(&mut view, Input::Suspected(a.clone()));
    assert_eq!(state(&view, "a"), Some(MemberState::Suspect));
    step(&mut view, Input::Cleared(a.clone()));
    let lost = Input::Disconnected {
        life: life("a", 1),
        parting: Parting::Lost,
    };
    assert_eq!(step(&mut view, lost), [Effect::Doubt(a.clone())]);
    step(&mut view, Input::Connected(identity("a", 1)));
    let goodbye = Input::Disconnected {
        life: life("a", 1),
        parting: Parting::Goodbye,
    };
    assert_eq!(
        step(&mut view, goodbye),
        [Effect::Gone(life("a", 1)), Effect::Forget(a)]
    );
    assert_eq!(state(&view, "a"), None.or(Some(MemberState::Leaving)));
    // Its last heartbeats still go round; then it is forgotten.
    gossip(&mut view, &[report("a", 1, true, true)]);
    assert_eq!(state(&view, "a"), Some(MemberState::Leaving));
    gossip(&mut view, &[report("a", 1, false, false)]);
    assert_eq!(state(&view, "a"), None);
}

#[test]
fn who_is_neither_connected_nor_heard_of_is_doubted_again_after_each_clearance() {
    let mut view = view();
    let b = life("b", 1);
    gossip(&mut view, &[report("b", 1, true, true)]);
    for _ in 0..2 {
        assert_eq!(
            gossip(&mut view, &[report("b", 1, false, false)]),
            [Effect::Doubt(b.clone())]
        );
        step(&mut view, Input::Suspected(b.clone()));
        assert_eq!(gossip(&mut view, &[report("b", 1, false, false)]), []);
        step(&mut view, Input::Cleared(b.clone()));
    }
    // Nor does it help to be forgotten by gossip.
    gossip(&mut view, &[report("b", 1, true, true)]);
    assert_eq!(gossip(&mut view, &[]), [Effect::Doubt(b)]);
}

#[test]
fn the_dead_are_shown_for_a_quarter_of_an_hour_and_may_come_back() {
    let mut view = view();
    let a = life("a", 1);
    step(&mut view, Input::Connected(identity("a", 1)));
    step(
        &mut view,
        Input::Disconnected {
            life: life("a", 1),
            parting: Parting::Lost,
        },
    );
    step(&mut view, Input::Suspected(a.clone()));
    assert_eq!(step(&mut view, Input::Died(a.clone())), [Effect::Gone(life("a", 1))]);
    gossip(&mut view, &[report("a", 1, false, false)]);
    assert_eq!(state(&view, "a"), Some(MemberState::Dead));
    assert!(view.is_alone());
    assert_eq!(
        step(&mut view, Input::Cleared(a.clone())),
        [Effect::Arrived(identity("a", 1))]
    );
    assert!(!view.is_alone());
    step(&mut view, Input::Died(a.clone()));
    // Whatever gossip remembers of it.
    let almost = DEAD_LISTED_FOR - Duration::from_millis(1);
    assert_eq!(step_at(&mut view, almost, Input::Gossip(Vec::new())), []);
    assert_eq!(state(&view, "a"), Some(MemberState::Dead));
    let reports = vec![report("a", 1, false, false)];
    assert_eq!(
        step_at(&mut view, DEAD_LISTED_FOR, Input::Gossip(reports)),
        [Effect::Forget(a)]
    );
    assert_eq!(state(&view, "a"), None);
}

#[test]
fn a_node_that_said_it_leaves_has_left_although_its_goodbye_was_lost() {
    let leaving = |view: &mut View| {
        step(view, Input::Connected(identity("a", 1)));
        gossip(view, &[stated("a", 1, &[("st", "leaving")])]);
        assert!(!members(view).get(&"a".parse().unwrap()).unwrap().departed);
    };
    let a = life("a", 1);
    let left = [Effect::Gone(life("a", 1)), Effect::Forget(a.clone())];
    // The connection breaks, or there was none and it falls silent.
    let mut view_of_break = view();
    leaving(&mut view_of_break);
    let lost = Input::Disconnected {
        life: life("a", 1),
        parting: Parting::Lost,
    };
    assert_eq!(step(&mut view_of_break, lost), left);
    let mut view_of_silence = view();
    leaving(&mut view_of_silence);
    step(&mut view_of_silence, Input::Suspected(a.clone()));
    assert_eq!(step(&mut view_of_silence, Input::Died(a.clone())), left);
    for view in [&mut view_of_break, &mut view_of_silence] {
        assert_eq!(state(view, "a"), Some(MemberState::Leaving));
        assert!(members(view).get(&a.node).unwrap().departed);
    }
}

#[test]
fn who_has_left_does_not_come_back_by_its_last_heartbeats() {
    let mut view = view();
    step(&mut view, Input::Connected(identity("a", 1)));
    let goodbye = Input::Disconnected {
        life: life("a", 1),
        parting: Parting::Goodbye,
    };
    step(&mut view, goodbye);
    gossip(&mut view, &[report("a", 1, false, false)]);
    assert_eq!(state(&view, "a"), None);
    assert_eq!(gossip(&mut view, &[report("a", 1, true, true)]), []);
    assert_eq!(state(&view, "a"), None);
    // Its next life does; and some time after gossip has forgotten it so have we.
    gossip(&mut view, &[report("a", 1, false, false), report("a", 2, true, true)]);
    assert_eq!(state(&view, "a"), Some(MemberState::Joining));
    let reports = vec![report("a", 2, true, true)];
    step_at(&mut view, PARTED_FOR, Input::Gossip(reports));
    assert!(view.parted.is_empty());
}

#[test]
fn a_newer_life_that_gossip_names_ends_the_older_one_before_it_was_heard_itself() {
    let mut view = view();
    step(&mut view, Input::Connected(identity("a", 1)));
    let out = gossip(&mut view, &[report("a", 1, true, true), report("a", 2, false, false)]);
    assert!(out.contains(&Effect::Gone(life("a", 1))), "{out:?}");
    assert!(out.contains(&Effect::Arrived(identity("a", 2))), "{out:?}");
    // Nobody is there to be superseded, so the memory of the dead makes no member.
    step(&mut view, Input::Suspected(life("a", 2)));
    step(&mut view, Input::Died(life("a", 2)));
    assert_eq!(gossip(&mut view, &[report("a", 3, false, false)]), []);
    let shown = members(&view);
    let member = shown.get(&"a".parse().unwrap()).unwrap();
    assert_eq!((member.state, member.peer.generation), (MemberState::Dead, 2));
}

#[test]
fn an_operator_may_have_the_departed_forgotten_and_nobody_else() {
    let mut view = view();
    let a = life("a", 2);
    step(&mut view, Input::Connected(identity("a", 2)));
    assert_eq!(step(&mut view, Input::Forget(life("a", 2))), []);
    step(&mut view, Input::Suspected(a.clone()));
    assert_eq!(step(&mut view, Input::Forget(life("a", 2))), []);
    step(&mut view, Input::Died(a.clone()));
    // What is meant for an earlier life says nothing about this one.
    assert_eq!(step(&mut view, Input::Forget(life("a", 1))), []);
    assert_eq!(
        step(&mut view, Input::Forget(life("a", 2))),
        [Effect::Forget(a.clone())]
    );
    assert_eq!(state(&view, "a"), None);
    gossip(&mut view, &[report("a", 2, true, true)]);
    assert_eq!(state(&view, "a"), Some(MemberState::Joining));
}

#[test]
fn groups_name_the_living_with_members() {
    let mut view = view();
    for name in ["a", "b", "c"] {
        gossip(&mut view, &[stated(name, 1, &[("g/room%3A1", "1"), ("g/empty", "0")])]);
    }
    step(&mut view, Input::Suspected(life("b", 1)));
    step(&mut view, Input::Died(life("c", 1)));
    let expected = BTreeMap::from([("room:1".to_owned(), vec!["a".parse().unwrap(), "b".parse().unwrap()])]);
    assert_eq!(view.groups(), expected);
}

#[test]
fn a_newer_namesake_is_noticed_and_an_older_one_is_not() {
    let mut view = view();
    assert_eq!(gossip(&mut view, &[report("self", 4, true, true)]), []);
    assert_eq!(
        gossip(&mut view, &[report("self", 6, true, true)]),
        [Effect::Superseded { by_generation: 6 }]
    );
    assert_eq!(members(&view).len(), 1);
}

fn input() -> impl Strategy<Value = Input> {
    let name = prop_oneof![Just("a"), Just("b")];
    (name, 1..4u64, any::<bool>(), any::<bool>(), 0..9u8).prop_map(|(name, generation, live, heard, kind)| match kind {
        0 | 1 => Input::Gossip(vec![report(name, generation, live, heard)]),
        2 => Input::Connected(identity(name, generation)),
        3 => Input::Disconnected {
            life: life(name, generation),
            parting: if live { Parting::Lost } else { Parting::Goodbye },
        },
        4 => Input::Seen(life(name, generation)),
        5 => Input::Suspected(life(name, generation)),
        6 => Input::Cleared(life(name, generation)),
        7 => Input::Forget(life(name, generation)),
        _ => Input::Died(life(name, generation)),
    })
}

/// What is shown of every life but one.
fn shown_beside(view: &View, life: &Life) -> Vec<Member> {
    let members = members(view);
    members
        .iter()
        .filter(|member| member.peer.life() != *life)
        .cloned()
        .collect()
}

proptest! {
    /// Whatever happens: generations only rise while a node is remembered, and every life that arrives is told gone exactly once
    /// before it, or a newer one, arrives again. One life of a node is watched at a time, doubts and signs are about that one, and a
    /// verdict changes nothing for any life but the one that it names.
    #[test]
    fn lives_arrive_and_go_in_turn(inputs in prop::collection::vec(input(), 0..80)) {
        let mut view = view();
        let mut present: BTreeMap<NodeId, Option<u64>> = BTreeMap::new();
        let mut watched: BTreeMap<NodeId, Life> = BTreeMap::new();
        for input in inputs {
            let before: BTreeMap<NodeId, u64> = members(&view).iter().map(|m| (m.peer.node.clone(), m.peer.generation)).collect();
            let judged = match &input {
                Input::Suspected(life) | Input::Cleared(life) | Input::Died(life) => Some((life.clone(), shown_beside(&view, life))),
                _ => None,
            };
            let effects = step(&mut view, input);
            if let Some((judged, beside)) = judged {
                prop_assert_eq!(shown_beside(&view, &judged), beside, "a verdict on {:?}", judged);
            }
            for effect in effects {
                match effect {
                    Effect::Arrived(identity) => {
                        let slot = present.entry(identity.peer.node.clone()).or_default();
                        prop_assert_eq!(*slot, None, "{} arrived twice", identity.peer);
                        *slot = Some(identity.peer.generation);
                    }
                    Effect::Gone(life) => {
                        let slot = present.entry(life.node.clone()).or_default();
                        prop_assert_eq!(*slot, Some(life.generation), "{:?} went without being here", life);
                        *slot = None;
                    }
                    Effect::Watch(life) => {
                        let former = watched.insert(life.node.clone(), life.clone());
                        prop_assert_eq!(former, None, "{:?} is watched beside it", life);
                    }
                    Effect::Forget(life) => {
                        let forgotten = watched.remove(&life.node);
                        prop_assert!(forgotten.is_none_or(|forgotten| forgotten == life), "{:?}", life);
                    }
                    Effect::Doubt(life) => prop_assert_eq!(watched.get(&life.node), Some(&life)),
                    // One that has left may still be heard.
                    Effect::Sign(life, _) => prop_assert!(watched.get(&life.node).is_none_or(|watched| *watched == life)),
                    Effect::Superseded { .. } => {}
                }
            }
            for member in members(&view).iter() {
                if let Some(before) = before.get(&member.peer.node) {
                    prop_assert!(member.peer.generation >= *before);
                }
            }
        }
    }
}

#[test]
fn a_life_that_connected_lacks_its_statement_until_gossip_brings_it() {
    let mut view = view();
    // Gossip through a third node may speak of a life before it connects; what it said then was not kept.
    gossip(
        &mut view,
        &[Report {
            heard: false,
            ..stated("a", 1, &[("st", "ready")])
        }],
    );
    step(&mut view, Input::Connected(identity("a", 1)));
    assert_eq!(state(&view, "a"), Some(MemberState::Joining));
    assert!(view.lacks_statement(&life("a", 1)));
    gossip(&mut view, &[stated("a", 1, &[("st", "ready")])]);
    assert_eq!(state(&view, "a"), Some(MemberState::Ready));
    assert!(!view.lacks_statement(&life("a", 1)));
    assert!(view.lacks_statement(&life("a", 2)), "a new life states everything anew");
}

#[test]
fn whom_gossip_does_not_hear_is_sought_in_turn_while_connected() {
    let mut view = view();
    let next = |view: &View, last: Option<&str>| {
        let last = last.map(|name| name.parse().unwrap());
        let found = view.next_unheard(last.as_ref());
        found.map(|identity| identity.peer.node.to_string())
    };
    assert_eq!(next(&view, None), None);
    for name in ["a", "b", "c"] {
        step(&mut view, Input::Connected(identity(name, 1)));
    }
    gossip(&mut view, &[report("b", 1, true, true)]);
    assert_eq!(next(&view, None).as_deref(), Some("a"));
    assert_eq!(next(&view, Some("a")).as_deref(), Some("c"));
    assert_eq!(next(&view, Some("c")).as_deref(), Some("a"));
    // Gossip takes one for dead, has forgotten the other one, and hears the third.
    gossip(&mut view, &[report("a", 1, true, true), report("c", 1, false, false)]);
    assert_eq!(next(&view, Some("a")).as_deref(), Some("b"));
    assert_eq!(next(&view, Some("b")).as_deref(), Some("c"));
    // Who is not connected, or has left, is not dialled for it.
    for (name, parting) in [("b", Parting::Lost), ("c", Parting::Goodbye)] {
        let life = life(name, 1);
        step(&mut view, Input::Disconnected { life, parting });
    }
    assert_eq!(next(&view, None), None);
}
