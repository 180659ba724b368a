use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn session(no: u128) -> SessionId {
    SessionId::from_u128(no)
}

fn match_id(no: u128) -> MatchId {
    MatchId::from_u128(no)
}

fn step(drain: &mut Drain, now_ms: u64, facts: &Facts) -> Vec<Effect> {
    let mut out = Vec::new();
    drain.step(now_ms, facts, &mut out);
    out
}

#[test]
fn sessions_are_told_at_once_and_leave_one_after_the_other() {
    let mut drain = Drain::new(25_000);
    let mut facts = Facts {
        sessions: (1..=23).map(session).collect(),
        matches: vec![match_id(1)],
        movable: Vec::new(),
        moving: 0,
        has_others: true,
    };
    let told = step(&mut drain, 0, &facts);
    assert_eq!(told.len(), 23);
    for (effect, place) in told.iter().zip(1..) {
        let within_ms = place * 1_000;
        let session = session(u128::from(place));
        assert_eq!(*effect, Effect::Tell { session, within_ms });
    }
    assert_eq!(step(&mut drain, 999, &facts), []);
    assert_eq!(step(&mut drain, 1_000, &facts), [Effect::Close { session: session(1) }]);
    facts.sessions.clear();
    assert_eq!(step(&mut drain, 2_000, &facts), [], "a match plays on");
    facts.matches.clear();
    assert_eq!(step(&mut drain, 3_000, &facts), [Effect::Stop]);
    assert_eq!(step(&mut drain, 4_000, &facts), []);
}

#[test]
fn what_does_not_end_in_time_fails_before_the_node_goes() {
    let mut drain = Drain::new(10_000);
    let facts = Facts {
        sessions: Vec::new(),
        matches: vec![match_id(1), match_id(2)],
        has_others: true,
        ..Facts::default()
    };
    assert_eq!(step(&mut drain, 8_999, &facts), []);
    let ends = [match_id(1), match_id(2)].map(|target| Effect::End { target });
    assert_eq!(step(&mut drain, 9_000, &facts), ends);
    assert_eq!(step(&mut drain, 9_499, &facts), []);
    assert_eq!(step(&mut drain, 9_500, &facts), [Effect::Stop]);
}

#[test]
fn a_node_that_is_alone_does_not_wait() {
    let mut drain = Drain::new(25_000);
    let facts = Facts {
        sessions: vec![session(1)],
        matches: vec![match_id(1)],
        movable: Vec::new(),
        moving: 0,
        has_others: false,
    };
    let out = step(&mut drain, 0, &facts);
    assert_eq!(
        out,
        [
            Effect::Tell {
                session: session(1),
                within_ms: 0
            },
            Effect::Close { session: session(1) },
            Effect::End { target: match_id(1) },
        ]
    );
    assert_eq!(
        step(
            &mut drain,
            END_MS,
            &Facts {
                has_others: false,
                ..Facts::default()
            }
        ),
        [Effect::Stop]
    );
}

#[test]
fn what_can_go_on_elsewhere_is_moved_a_few_at_a_time() {
    let mut drain = Drain::new(25_000);
    let mut facts = Facts {
        movable: (1..=6).map(match_id).collect(),
        has_others: true,
        ..Facts::default()
    };
    let moves = |numbers: std::ops::RangeInclusive<u128>| {
        numbers
            .map(|no| Effect::Move { target: match_id(no) })
            .collect::<Vec<_>>()
    };
    assert_eq!(step(&mut drain, 0, &facts), moves(1..=4));
    facts.moving = 4;
    assert_eq!(step(&mut drain, 200, &facts), []);
    // Two have arrived, and one stays: it is not asked again.
    facts.moving = 1;
    facts.movable.drain(..2);
    assert_eq!(step(&mut drain, 400, &facts), moves(5..=6));
    facts.moving = 1;
    facts.movable = vec![match_id(3)];
    assert_eq!(step(&mut drain, 600, &facts), []);
    facts.moving = 0;
    assert_eq!(
        step(&mut drain, 800, &facts),
        [Effect::Stop],
        "the one that stays is handed back"
    );
}

#[test]
fn a_node_that_loses_sight_of_the_others_for_a_moment_ends_nothing() {
    let mut drain = Drain::new(25_000);
    let mut facts = Facts {
        sessions: vec![session(1)],
        matches: vec![match_id(1)],
        movable: Vec::new(),
        moving: 0,
        has_others: true,
    };
    assert_eq!(step(&mut drain, 100, &facts).len(), 1);
    facts.has_others = false;
    assert_eq!(step(&mut drain, 200, &facts), []);
    facts.has_others = true;
    assert_eq!(step(&mut drain, 1_900, &facts), []);
    facts.has_others = false;
    assert_eq!(step(&mut drain, 2_300, &facts), []);
    assert_eq!(step(&mut drain, 4_300, &facts).len(), 2, "it is alone");
}

proptest! {
    /// Sessions come late or never go, matches end by themselves or not, the clock jumps.
    #[test]
    fn nobody_is_closed_untold_and_nothing_outlasts_the_deadline(
        deadline_ms in 0..30_000_u64,
        sessions in prop::collection::vec((0..20_000_u64, any::<bool>()), 0..40),
        matches in prop::collection::vec(0..40_000_u64, 0..10),
        looks in prop::collection::vec(1..1_500_u64, 60..200),
        has_others in any::<bool>(),
    ) {
        let mut drain = Drain::new(deadline_ms);
        let (mut told, mut closed, mut ended) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (mut now_ms, mut stopped) = (0, None);
        for look in looks {
            let here = (0..).zip(&sessions).map(|(no, session)| (self::session(no), session));
            let playing = (0..).zip(&matches).map(|(no, ends_ms)| (match_id(no), ends_ms));
            let facts = Facts {
                // A stubborn one stays until the node is gone.
                sessions: here
                    .filter(|(id, (came_ms, is_stubborn))| *came_ms <= now_ms && (*is_stubborn || !closed.contains(id)))
                    .map(|(id, _)| id)
                    .collect(),
                matches: playing
                    .filter(|(id, ends_ms)| now_ms < **ends_ms && !ended.contains(id))
                    .map(|(id, _)| id)
                    .collect(),
                has_others,
                ..Facts::default()
            };
            for effect in step(&mut drain, now_ms, &facts) {
                prop_assert!(stopped.is_none());
                match effect {
                    Effect::Tell { session, within_ms } => {
                        prop_assert!(now_ms + within_ms <= deadline_ms.max(now_ms));
                        prop_assert_eq!(told.insert(session, now_ms + within_ms), None, "told twice");
                    }
                    Effect::Close { session } => {
                        prop_assert!(told.contains_key(&session), "closed untold");
                        prop_assert!(!has_others || now_ms >= told[&session].min(deadline_ms), "closed before its time");
                        closed.insert(session);
                    }
                    Effect::End { target } => {
                        prop_assert!(!has_others || now_ms + 2 * END_MS >= deadline_ms, "ended early");
                        ended.insert(target);
                    }
                    Effect::Move { .. } => prop_assert!(false, "there is nothing to move"),
                    Effect::Stop => {
                        stopped = Some(now_ms);
                        prop_assert!(facts.sessions.is_empty() || now_ms >= deadline_ms);
                    }
                }
            }
            if now_ms >= deadline_ms {
                prop_assert!(stopped.is_some(), "it is late and the node is still here");
            }
            now_ms += look;
        }
    }
}
