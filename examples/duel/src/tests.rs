//! Duels played on the mock host.

use rookery_sdk::mock::{Host, JoinError};
use rookery_sdk::prelude::*;

use super::Duel;
use super::round::{Fighter, Move, clash};

type Duels = (Host<Duel>, Seat, Seat);

fn duel(params: serde_json::Value) -> Duels {
    let mut host = Host::<Duel>::start(params).unwrap();
    let (ana, ben) = (host.join("ana").unwrap(), host.join("ben").unwrap());
    host.take_outputs();
    (host, ana, ben)
}

fn play(host: &mut Host<Duel>, moves: [(Seat, &str); 2]) {
    for (seat, chosen) in moves {
        host.message(seat, json!({ "move": chosen }));
    }
}

fn health(host: &Host<Duel>) -> Vec<i32> {
    host.game()
        .duellists
        .iter()
        .map(|duellist| duellist.fighter.health)
        .collect()
}

#[test]
fn each_pair_of_moves_has_its_result_whoever_is_left_or_right() {
    let cases = [
        (Move::Strike, Move::Strike, 3, 3),
        (Move::Strike, Move::Guard, 4, 5),
        (Move::Strike, Move::Heal, 5, 2),
        (Move::Guard, Move::Guard, 5, 5),
        (Move::Guard, Move::Heal, 5, 7),
        (Move::Heal, Move::Heal, 7, 7),
    ];
    for (left_move, right_move, left_health, right_health) in cases {
        let (mut left, mut right) = (Fighter::new(5), Fighter::new(5));
        clash(&mut left, left_move, &mut right, right_move, 10);
        assert_eq!(
            (left.health, right.health),
            (left_health, right_health),
            "{left_move:?} and {right_move:?}"
        );
        let (mut left, mut right) = (Fighter::new(5), Fighter::new(5));
        clash(&mut left, right_move, &mut right, left_move, 10);
        assert_eq!(
            (left.health, right.health),
            (right_health, left_health),
            "{right_move:?} and {left_move:?}"
        );
    }
}

#[test]
fn a_duel_is_fought_until_one_has_no_health_left() {
    let (mut host, ana, ben) = duel(json!({ "health": 4, "mode": "quick" }));
    assert_eq!(host.label("mode"), Some("quick"));
    play(&mut host, [(ana, "strike"), (ben, "heal")]);
    assert_eq!(health(&host), [4, 1]);
    assert_eq!(host.outcome(), None);
    play(&mut host, [(ben, "strike"), (ana, "guard")]);
    let outcome = host.outcome_json().unwrap();
    assert_eq!(outcome["winner"], json!(ana));
    assert_eq!(outcome["why"], "health");
}

#[test]
fn a_choice_is_a_secret_until_both_have_chosen() {
    let (mut host, ana, ben) = duel(json!(null));
    host.message(ana, json!({ "move": "strike" }));
    host.resync(ben);
    let told = serde_json::Value::from(host.heard_json(ben)).to_string();
    assert!(told.contains("\"chosen\"") && !told.contains("strike"), "{told}");
    host.resync(ana);
    assert_eq!(
        host.heard_json(ana).last().unwrap()["choice"],
        "strike",
        "one's own choice is in one's view"
    );
    host.message(ben, json!({ "move": "guard" }));
    assert!(
        serde_json::Value::from(host.heard_json(ben))
            .to_string()
            .contains("strike")
    );
}

#[test]
fn what_the_rules_forbid_is_answered_to_its_sender_alone_and_changes_nothing() {
    let (mut host, ana, ben) = duel(json!(null));
    let cid = host.watch("cid").unwrap();
    let refused = |host: &mut Host<Duel>, seat: Seat, input: serde_json::Value, code: &str| {
        host.take_outputs();
        let before = serde_json::to_value(host.game()).unwrap();
        host.message(seat, input);
        assert_eq!(host.heard_json(seat), [json!({ "event": "error", "code": code })]);
        assert_eq!(host.take_outputs().len(), 1);
        assert_eq!(serde_json::to_value(host.game()).unwrap(), before);
    };
    refused(&mut host, ana, json!({ "move": "flee" }), "not_a_move");
    refused(&mut host, ana, json!([1, 2]), "not_a_move");
    refused(&mut host, cid, json!({ "move": "strike" }), "only_watching");
    for _ in 0..3 {
        play(&mut host, [(ana, "heal"), (ben, "guard")]);
    }
    refused(&mut host, ana, json!({ "move": "heal" }), "no_heals_left");
    host.message(ana, json!({ "move": "guard" }));
    refused(&mut host, ana, json!({ "move": "strike" }), "already_chosen");

    let mut alone = Host::<Duel>::start(json!(null)).unwrap();
    let dan = alone.join("dan").unwrap();
    refused(&mut alone, dan, json!({ "move": "strike" }), "not_begun");
}

#[test]
fn a_turn_ends_by_the_clock_and_who_misses_three_in_a_row_has_lost() {
    let (mut host, ana, ben) = duel(json!({ "turn_ms": 1_000 }));
    host.advance(999);
    assert_eq!(host.game().round, 1);
    host.message(ana, json!({ "move": "strike" }));
    host.advance(1);
    assert_eq!(
        (host.game().round, health(&host)),
        (2, vec![9, 10]),
        "who did not choose stood on guard"
    );
    for _ in 0..2 {
        host.message(ana, json!({ "move": "guard" }));
        host.advance(1_000);
    }
    let outcome = host.outcome_json().unwrap();
    assert_eq!((&outcome["winner"], &outcome["why"]), (&json!(ana), &json!("idle")));
    assert_ne!(ana, ben);
}

#[test]
fn a_round_that_ends_early_gives_the_next_one_its_whole_time() {
    let (mut host, ana, ben) = duel(json!({ "turn_ms": 1_000 }));
    host.advance(900);
    play(&mut host, [(ana, "guard"), (ben, "guard")]);
    host.advance(999);
    assert_eq!(host.game().round, 2);
    host.advance(1);
    assert_eq!(host.game().round, 3);
}

#[test]
fn two_players_and_any_spectators_find_a_place_until_somebody_leaves_for_good() {
    let mut host = Host::<Duel>::start(json!(null)).unwrap();
    let ana = host.join("ana").unwrap();
    assert!(host.is_joinable());
    host.leave(ana, LeaveReason::Left);
    assert_eq!(host.outcome(), None, "before the second player came nothing was lost");
    host.join("ben").unwrap();
    host.join("cid").unwrap();
    assert!(!host.is_joinable());
    assert_eq!(host.join("dan"), Err(JoinError::Full));
    let eva = host.watch("eva").unwrap();
    assert_eq!(host.heard_json(eva)[0]["event"], "view");
    let ben = host.seats()[0].0;
    host.leave(ben, LeaveReason::TimedOut);
    assert_eq!(host.outcome_json().unwrap()["why"], "left");
}

#[test]
fn the_last_round_is_decided_by_health_and_may_be_a_draw() {
    for (moves, winner) in [(["strike", "guard"], 1), (["guard", "guard"], usize::MAX)] {
        let (mut host, ana, ben) = duel(json!({ "rounds_max": 1 }));
        play(&mut host, [(ana, moves[0]), (ben, moves[1])]);
        let outcome = host.outcome_json().unwrap();
        assert_eq!(outcome["why"], "rounds");
        assert_eq!(outcome["winner"], json!([ana, ben].get(winner)));
    }
}

#[test]
fn a_duel_goes_on_from_its_saved_state_with_its_clock() {
    let (mut host, ana, ben) = duel(json!({ "turn_ms": 1_000 }));
    play(&mut host, [(ana, "strike"), (ben, "strike")]);
    host.message(ana, json!({ "move": "strike" }));
    host.save_and_load().unwrap();
    host.message(ben, json!({ "move": "heal" }));
    assert_eq!(health(&host), [8, 5]);
    host.advance(1_000);
    assert_eq!(host.game().round, 4);
}

#[test]
fn params_that_make_no_duel_are_refused() {
    for params in [
        json!({ "health": 0 }),
        json!({ "turn_ms": 0 }),
        json!({ "healths": 3 }),
        json!("fast"),
    ] {
        let shown = params.to_string();
        assert!(Host::<Duel>::start(params).is_err(), "{shown}");
    }
}
