//! A match that goes on under another version of its module, and one that cannot.

use bytes::Bytes;
use rookery_protocol::client::Role;

use super::super::event::{Event, Outcome};
use super::stage::{Stage, module};
use super::{Applied, NotUpgraded, RingIn, Saved};
use crate::wasm::testing::Guest;

fn first() -> Guest {
    Guest::new("shop")
        .on(
            "message",
            "(call $send_all @'one') (call $publish_all @'key' @'value') (call $set_timer (i32.const 7) (i32.const 500))",
        )
        .on("save", "(call $bytes @'state')")
}

fn second() -> Guest {
    first()
        .ticking(20)
        .on("message", "(call $send_all @'two')")
        .on(
            "load",
            "(call $send_all (local.get $by) (local.get $by_len)) (call $send_all (local.get $ptr) (local.get $len)) (call $ok)",
        )
        .on(
            "signal",
            "(call $send_all (local.get $topic) (local.get $topic_len)) (call $send_all (local.get $ptr) (local.get $len))",
        )
}

/// As the room does it: what this version saves is an event too.
fn upgrade(stage: &mut Stage, to: &Guest) -> Result<(), NotUpgraded> {
    let state = stage.save().unwrap();
    take_over(stage, to, state)
}

fn take_over(stage: &mut Stage, to: &Guest, state: Bytes) -> Result<(), NotUpgraded> {
    let by = "1.0.0".to_owned();
    stage
        .game
        .upgrade(stage.now_ms, &module(to), Saved { by, state }, &mut stage.last)
}

#[test]
fn a_match_goes_on_under_another_version_with_all_that_the_host_keeps() {
    let mut stage = Stage::started(&first());
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"");
    let (from, event_no, seq) = {
        let part = stage.game.part();
        (part.start().digest, part.event_no(), part.last_seq())
    };
    stage.now_ms = 300;
    upgrade(&mut stage, &second()).unwrap();
    assert_eq!(
        stage.heard(),
        [
            "everyone 1.0.0",
            "everyone state",
            "everyone match.resumed",
            "everyone {\"reason\":\"upgrade\"}"
        ]
    );
    let to = module(&second()).digest();
    assert!(
        matches!(&stage.record().event, Event::Upgrade { from: was, to: is, saved_by, state }
            if *was == from && *is == to && saved_by == "1.0.0" && state == "state")
    );
    let part = stage.game.part();
    assert_eq!((part.start().digest, part.event_no()), (to, event_no + 2));
    assert_eq!(stage.last.outputs[0].seq, seq + 1);
    assert_eq!(part.published(None, "key").unwrap().data, "value");
    assert_eq!((part.due_timer(499), part.due_timer(500)), (None, Some(7)));
    assert!(part.seat(seat).is_some());
    stage.say(seat, b"");
    assert_eq!(stage.heard(), ["everyone two"]);
}

#[test]
fn a_version_with_ticks_makes_up_none_for_the_time_before_it() {
    let mut stage = Stage::started(&first());
    stage.now_ms = 10_000;
    upgrade(&mut stage, &second()).unwrap();
    let due = stage.game.part().due_tick(10_100).expect("it ticks now");
    assert_eq!((due.due_ms, due.elapsed_ms), (10_050, 100));
}

#[test]
fn a_version_that_refuses_or_fails_leaves_the_match_as_it_was() {
    let check = |to: Guest, why: &str| {
        let mut stage = Stage::started(&first());
        let seat = stage.join(1, Role::Player);
        stage.say(seat, b"");
        stage.now_ms = 400;
        let state = stage.save().unwrap();
        let before = stage.game.encode_part(RingIn::Encoding);
        let refused = take_over(&mut stage, &to, state).unwrap_err().to_string();
        assert!(refused.starts_with(why), "{refused}");
        assert_eq!(stage.game.encode_part(RingIn::Encoding), before, "{why}");
        stage.say(seat, b"");
        assert_eq!(stage.heard()[0], "everyone one");
        assert_eq!(stage.record().outcome, Outcome::Applied);
    };
    check(
        second().on("load", "(call $send_all @'ready') (call $refuse @'too old')"),
        "the new version does not go on from what this one saved: too old",
    );
    check(
        second().on("load", "unreachable"),
        "the new version failed: trap: wasm trap: wasm `unreachable`",
    );
    check(
        second().on("load", "(loop $again (br $again)) unreachable"),
        "the new version failed: time: used more than 10 ms",
    );
    check(
        second().on("signal", "unreachable"),
        "the new version failed: trap: wasm trap: wasm `unreachable`",
    );
}

#[test]
fn a_call_of_the_new_version_that_traps_is_undone_under_the_new_version() {
    let mut stage = Stage::remembering(&first());
    stage.apply(Event::Start);
    let seat = stage.join(1, Role::Player);
    let shy = second().on(
        "message",
        "(if (i32.eq (i32.load8_u (local.get $ptr)) (i32.const 33)) (then unreachable)) (call $send_all @'two')",
    );
    upgrade(&mut stage, &shy).unwrap();
    let history = stage.game.history().expect("it remembers as before");
    assert_eq!(
        history.part().start().digest,
        module(&shy).digest(),
        "the journal begins anew"
    );
    stage.say(seat, b"!");
    assert!(stage.last.failure.is_some() && stage.last.given_up.is_none());
    stage.say(seat, b".");
    assert_eq!(stage.heard(), ["everyone two"]);
}

#[test]
fn only_a_version_of_the_same_module_that_promises_the_same_takes_over() {
    let check = |to: Guest, why: &str| {
        let mut stage = Stage::started(&first());
        assert_eq!(upgrade(&mut stage, &to).unwrap_err().to_string(), why);
    };
    let mut named = second();
    named.name = "bank".into();
    check(named, "the match runs shop, and this is a version of bank");
    check(
        second().json(),
        "the new version says another codec: that is for new matches only",
    );
    let mut stored = second();
    stored.durability = 2;
    check(
        stored,
        "the new version says another durability: that is for new matches only",
    );
}

#[test]
fn a_match_that_is_over_stays_with_its_version() {
    let mut stage = Stage::started(&first().on("message", "(call $finish @'done')"));
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"");
    let saved = Saved {
        by: String::new(),
        state: Bytes::new(),
    };
    let refused = stage
        .game
        .upgrade(0, &module(&second()), saved, &mut Applied::default());
    assert_eq!(refused, Err(NotUpgraded::Over));
}
