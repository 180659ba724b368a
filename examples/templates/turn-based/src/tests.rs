//! Whole matches, played natively on the SDK's mock host: time, seats and chance are the test's.

use super::*;

/// A match in which the first one of two begins.
fn two_players() -> (mock::Host<Game>, Seat, Seat) {
    let mut host = mock::Host::<Game>::builder().random([0]).start().unwrap();
    let ana = host.join("ana").unwrap();
    let ben = host.join("ben").unwrap();
    (host, ana, ben)
}

/// The two place in turn.
fn play(host: &mut mock::Host<Game>, players: [Seat; 2], cells: &[usize]) {
    for (cell, seat) in cells.iter().zip(players.into_iter().cycle()) {
        host.message(seat, Payload::of_json(&Move { cell: *cell }));
    }
}

#[test]
fn three_in_a_row_win() {
    let (mut host, ana, ben) = two_players();
    play(&mut host, [ana, ben], &[0, 3, 1, 4, 2]);
    assert_eq!(host.outcome_json(), Some(json!({ "winner": ana, "why": "row" })));
}

#[test]
fn a_full_board_is_a_draw() {
    let (mut host, ana, ben) = two_players();
    play(&mut host, [ana, ben], &[0, 1, 2, 4, 3, 5, 7, 6, 8]);
    assert_eq!(host.outcome_json(), Some(json!({ "winner": null, "why": "full" })));
}

#[test]
fn what_the_rules_forbid_changes_nothing_and_only_its_sender_hears_of_it() {
    let (mut host, ana, ben) = two_players();
    let before = host.published_json("board");
    host.message(ben, json!({ "cell": 0 }));
    host.message(ana, json!({ "cell": 9 }));
    host.message(ana, json!("nonsense"));
    assert_eq!(host.published_json("board"), before);
    assert_eq!(host.heard_json(ben), [json!({ "error": "not_your_turn" })]);
    assert_eq!(
        host.heard_json(ana),
        [json!({ "error": "not_a_move" }), json!({ "error": "not_a_move" })]
    );
    host.message(ana, json!({ "cell": 0 }));
    host.message(ben, json!({ "cell": 0 }));
    assert_eq!(host.heard_json(ben).last(), Some(&json!({ "error": "taken" })));
}

#[test]
fn who_thinks_too_long_or_leaves_has_lost() {
    let (mut host, _, ben) = two_players();
    host.advance(u64::from(TURN_MS));
    assert_eq!(host.outcome_json(), Some(json!({ "winner": ben, "why": "time" })));
    let (mut host, ana, ben) = two_players();
    host.leave(ana, LeaveReason::TimedOut);
    assert_eq!(host.outcome_json(), Some(json!({ "winner": ben, "why": "left" })));
}

#[test]
fn a_third_may_watch_and_not_play() {
    let (mut host, _, ben) = two_players();
    assert_eq!(host.join("cid"), Err(mock::JoinError::Full));
    host.watch("cid").unwrap();
    host.advance(u64::from(TURN_MS));
    assert_eq!(host.outcome_json(), Some(json!({ "winner": ben, "why": "time" })));
}

#[test]
fn a_saved_match_goes_on() {
    let (mut host, ana, ben) = two_players();
    play(&mut host, [ana, ben], &[0, 3, 1, 4]);
    host.save_and_load().unwrap();
    host.message(ana, json!({ "cell": 2 }));
    assert_eq!(host.outcome_json(), Some(json!({ "winner": ana, "why": "row" })));
}
