//! The roster: who counts as online, whose status counts, and that a watch is one history without a gap.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn player(number: u128) -> PlayerId {
    PlayerId::from_u128(number)
}

fn session(number: u128) -> SessionId {
    SessionId::from_u128(number)
}

fn game_match(number: u128) -> MatchId {
    MatchId::from_u128(number)
}

fn done(step: impl FnOnce(&mut Vec<Effect>)) -> Vec<Effect> {
    let mut out = Vec::new();
    step(&mut out);
    out
}

fn sighting(attachment: u64, status: Option<&str>, status_at: u64) -> Sighting {
    Sighting {
        attachment,
        fact: PresenceFact {
            status: status.map(str::to_owned),
            status_at,
            ..PresenceFact::default()
        },
    }
}

fn held(effects: &[Effect]) -> &PresenceFact {
    match effects {
        [Effect::Hold { fact, .. }] => fact,
        other => panic!("not one entry: {other:?}"),
    }
}

#[test]
fn a_player_is_let_go_three_seconds_after_the_last_socket_closed() {
    let mut roster = Roster::default();
    let ana = player(1);
    done(|out| roster.opened(ana, session(1), 10, out));
    done(|out| roster.opened(ana, session(2), 11, out));
    assert_eq!(done(|out| roster.closed(1_000, ana, session(1), out)), []);
    assert_eq!(roster.next_wake_ms(), None);
    assert_eq!(done(|out| roster.closed(2_000, ana, session(2), out)), []);
    assert_eq!((roster.players(), roster.next_wake_ms()), (0, Some(2_000 + LINGER_MS)));
    assert_eq!(done(|out| roster.wake(1_999 + LINGER_MS, out)), []);
    assert_eq!(
        done(|out| roster.wake(2_000 + LINGER_MS, out)),
        [Effect::Release { player: ana }]
    );
    assert_eq!(roster.next_wake_ms(), None);
}

#[test]
fn who_comes_back_in_time_was_never_away_and_keeps_the_status() {
    let mut roster = Roster::default();
    let ana = player(1);
    done(|out| roster.opened(ana, session(1), 10, out));
    done(|out| drop(roster.set_status(50, ana, Some("fishing".into()), out)));
    done(|out| roster.closed(1_000, ana, session(1), out));
    let back = done(|out| roster.opened(ana, session(2), 20, out));
    assert_eq!(held(&back).status.as_deref(), Some("fishing"));
    assert_eq!(done(|out| roster.wake(10_000, out)), []);
    assert_eq!(roster.players(), 1);
}

#[test]
fn the_last_match_joined_and_not_left_is_shown() {
    let mut roster = Roster::default();
    let ana = player(1);
    done(|out| roster.opened(ana, session(1), 10, out));
    done(|out| roster.seated(100, ana, session(1), game_match(1), out));
    let second = done(|out| roster.seated(200, ana, session(1), game_match(2), out));
    assert_eq!(
        (held(&second).target, held(&second).target_at),
        (Some(game_match(2)), 200)
    );
    // Said again after a resume: no news.
    assert_eq!(done(|out| roster.seated(300, ana, session(1), game_match(2), out)), []);
    assert_eq!(done(|out| roster.left(ana, session(1), game_match(1), out)), []);
    done(|out| roster.seated(400, ana, session(1), game_match(1), out));
    let back = done(|out| roster.left(ana, session(1), game_match(1), out));
    assert_eq!(held(&back).target, Some(game_match(2)));
    let none = done(|out| roster.left(ana, session(1), game_match(2), out));
    assert_eq!(held(&none).target, None);
}

#[test]
fn the_last_status_set_anywhere_counts_and_is_kept_everywhere() {
    let here = sighting(1, Some("here"), 100);
    let there = sighting(2, Some("there"), 200);
    assert_eq!(
        Standing::of(&[here.clone(), there.clone()]).status.as_deref(),
        Some("there")
    );
    assert_eq!(
        Standing::of(&[there.clone(), here.clone()]).status.as_deref(),
        Some("there")
    );
    assert_eq!(Standing::of(&[here.clone(), sighting(2, None, 300)]).status, None);
    assert!(!Standing::of(&[]).online);

    let mut roster = Roster::default();
    let ana = player(1);
    done(|out| roster.opened(ana, session(1), 1, out));
    done(|out| drop(roster.set_status(100, ana, Some("here".into()), out)));
    let adopted = done(|out| roster.adopt(ana, &[here.clone(), there.clone()], out));
    assert_eq!(
        (held(&adopted).status.as_deref(), held(&adopted).status_at),
        (Some("there"), 200)
    );
    assert_eq!(done(|out| roster.adopt(ana, &[here, there], out)), []);
    // A clock that runs behind the other node's: what is set last counts all the same.
    let set = done(|out| drop(roster.set_status(150, ana, Some("again".into()), out)));
    assert!(held(&set).status_at > 200);
}

#[test]
fn a_session_may_watch_so_many_and_what_is_too_much_changes_nothing() {
    let mut roster = Roster::default();
    let many: BTreeSet<PlayerId> = (1..=4).map(player).collect();
    let mut out = Vec::new();
    assert_eq!(roster.watch(session(1), &many, 3, &mut out), Err(TooMany { max: 3 }));
    assert_eq!((out.len(), roster.watches()), (0, 0));
    let three: BTreeSet<PlayerId> = (1..=3).map(player).collect();
    assert_eq!(roster.watch(session(1), &three, 3, &mut out), Ok(three.clone()));
    assert_eq!(
        roster.watch(session(1), &three, 3, &mut out),
        Ok(BTreeSet::new()),
        "the same again costs nothing"
    );
    assert_eq!(out.len(), 3);
    assert_eq!(
        roster.watch(session(2), &many, 4, &mut out).unwrap().len(),
        4,
        "each session has its own limit"
    );
    assert_eq!(out.len(), 4, "one watch a player, however many sessions watch");
    out.clear();
    let rest = roster.unwatch(session(1), Some(&BTreeSet::from([player(1), player(9)])), &mut out);
    assert_eq!((rest.len(), out.len()), (2, 0));
    assert!(roster.unwatch(session(2), None, &mut out).is_empty());
    assert_eq!(
        out,
        [
            Effect::Unwatch { player: player(1) },
            Effect::Unwatch { player: player(4) }
        ]
    );
    roster.closed(0, player(7), session(1), &mut out);
    assert_eq!(roster.watches(), 0);
}

fn standing(online: bool, status: Option<&str>) -> Standing {
    Standing {
        online,
        status: status.map(str::to_owned),
        target: None,
    }
}

#[test]
fn a_session_hears_nothing_before_its_answer_and_everything_after() {
    let mut roster = Roster::default();
    let (ana, one) = (player(1), BTreeSet::from([player(1)]));
    done(|out| drop(roster.watch(session(1), &one, 10, out)));
    assert_eq!(done(|out| roster.heard(ana, standing(true, None), out)), []);
    let told = done(|out| {
        let told = roster.answer(session(1), vec![(ana, standing(true, Some("a")))], out);
        assert_eq!(told, [(ana, standing(true, Some("a")))]);
    });
    assert_eq!(told, [], "the answer says it already");
    // The second watcher's answer is news to the first.
    done(|out| drop(roster.watch(session(2), &one, 10, out)));
    let news = done(|out| drop(roster.answer(session(2), vec![(ana, standing(true, Some("b")))], out)));
    let push = |sessions: &[u128], standing| Effect::Push {
        player: ana,
        sessions: sessions.iter().map(|number| session(*number)).collect(),
        standing,
    };
    assert_eq!(news, [push(&[1], standing(true, Some("b")))]);
    // Another match is no news; the same again is none either.
    let moved = Standing {
        target: Some(game_match(5)),
        ..standing(true, Some("b"))
    };
    assert_eq!(done(|out| roster.heard(ana, moved, out)), []);
    assert_eq!(
        done(|out| roster.heard(ana, standing(false, None), out)),
        [push(&[1, 2], standing(false, None))]
    );
}

proptest! {
    /// Whatever happens in whatever order: what a session was told last of a player that it watches is what was heard last.
    #[test]
    fn a_watch_is_one_history(steps in prop::collection::vec((0u8..5, 0u128..3, 0u128..3, 0u8..4), 1..120)) {
        let mut roster = Roster::default();
        // What the directory knows, and what each session believes by what it was told.
        let mut known: BTreeMap<PlayerId, Standing> = BTreeMap::new();
        let mut believes: BTreeMap<(SessionId, PlayerId), Standing> = BTreeMap::new();
        let mut asked: BTreeSet<(SessionId, PlayerId)> = BTreeSet::new();
        for (kind, who, whom, value) in steps {
            let (who, whom) = (session(who), player(whom));
            let one = BTreeSet::from([whom]);
            let mut out = Vec::new();
            match kind {
                0 => {
                    roster.watch(who, &one, 10, &mut out).unwrap();
                    asked.insert((who, whom));
                }
                1 if asked.contains(&(who, whom)) => {
                    let now = known.get(&whom).cloned().unwrap_or_default();
                    for (whom, standing) in roster.answer(who, vec![(whom, now)], &mut out) {
                        believes.insert((who, whom), standing);
                    }
                }
                2 => {
                    roster.unwatch(who, Some(&one), &mut out);
                    asked.remove(&(who, whom));
                    believes.remove(&(who, whom));
                }
                3 => {
                    roster.closed(0, player(99), who, &mut out);
                    asked.retain(|(session, _)| *session != who);
                    believes.retain(|(session, _), _| *session != who);
                }
                _ => {
                    let now = standing(value > 0, [None, None, Some("a"), Some("b")][usize::from(value)]);
                    known.insert(whom, now.clone());
                    roster.heard(whom, now, &mut out);
                }
            }
            for effect in out {
                if let Effect::Push { player, sessions, standing } = effect {
                    for session in sessions {
                        prop_assert!(believes.contains_key(&(session, player)), "told before it was answered");
                        let before = believes.insert((session, player), standing.clone());
                        prop_assert_ne!(before, Some(standing.clone()), "told twice");
                    }
                }
            }
            for ((_, player), believed) in &believes {
                prop_assert_eq!(believed, &known.get(player).cloned().unwrap_or_default());
            }
            prop_assert_eq!(roster.watches(), asked.len());
        }
    }
}
