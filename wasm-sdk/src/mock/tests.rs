//! What a test of match logic may rely on: the mock keeps the order and the refusals of the node.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Host, JoinError, Request};
use crate::context::{Context, If, Level};
use crate::manifest::Manifest;
use crate::matches::Match;
use crate::payload::Payload;
use crate::types::{Entry, Failure, LeaveReason, Notice, Player, Refusal, Role, Seat, Setup, Signal, To};

/// Writes down every call, and does what a message says.
#[derive(Serialize, Deserialize)]
struct Diary {
    calls: Vec<String>,
    rolls: Vec<u32>,
}

impl Match for Diary {
    crate::serde_state!();

    fn manifest() -> Manifest {
        Manifest::json("diary").players(1..=2).spectators(1).tick_hz(60)
    }

    fn start(ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
        match setup.params.json::<Option<String>>()?.as_deref() {
            Some("refuse") => return Err("not today".into()),
            Some("bot") => {
                ctx.add_bot("Rook");
            }
            Some(_) | None => {}
        }
        Ok(Self {
            calls: Vec::new(),
            rolls: Vec::new(),
        })
    }

    fn join(&mut self, ctx: &mut Context, player: &Player, data: Payload) -> Result<(), Refusal> {
        if data.json::<Option<String>>()?.as_deref() == Some("refuse") {
            return Err("not you".into());
        }
        self.note(ctx, format!("join {} {:?} {:?}", player.seat, player.role, player.team));
        if let Some(from) = player.transferred_from() {
            self.note(ctx, format!("from {from}"));
        }
        ctx.send_json(To::Except(player.seat), &player.name);
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context, seat: Seat, reason: LeaveReason) {
        self.note(ctx, format!("leave {seat} {reason:?}"));
        if self.calls.iter().any(|call| call.ends_with(" bots"))
            && let Some(bot) = ctx.add_bot("Rook")
        {
            ctx.kick(bot, "again");
        }
    }

    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let words = input.json::<String>().unwrap_or_default();
        self.note(ctx, format!("message {from} {:?} {words}", ctx.input_number()));
        match words.as_str() {
            "kick me" => ctx.kick(from, "as you wish"),
            "go" => ctx.mail().transfer(1, from, "elsewhere", b"null"),
            "close" => ctx.set_joinable(false),
            "not json" => ctx.send(from, b"{"),
            "end" => ctx.finish_json(&json!({ "by": from })),
            "timers" => {
                ctx.set_timer(1, 10);
                ctx.set_timer(2, 10);
                ctx.set_timer(3, 5);
                ctx.set_timer(3, 20);
                ctx.set_timer(4, 1);
                ctx.cancel_timer(4);
            }
            "roll" => {
                let roll = ctx.random().below(6);
                self.rolls.push(roll);
            }
            "store" => {
                ctx.storage("scores").write_json(7, "best", &3, If::Absent);
                ctx.storage_of("ana", "scores").scan(8, "b", 10);
            }
            "secret" => ctx.publish_json_to(from, "hand", &[1, 2]),
            "panic" => {
                self.rolls.push(99);
                ctx.send_json(from, "never heard");
                ctx.set_timer(9, 1);
                ctx.random().bits();
                panic!("on request");
            }
            "nobody" => ctx.mail().transfer(2, Seat(77), "elsewhere", b"null"),
            "at once" => ctx.set_timer(5, 0),
            "rush" => (0..257).for_each(|request| ctx.mail().claim(request, "a name")),
            "stampede" => (0..513).for_each(|request| ctx.mail().claim(request, "a name")),
            "bots" => {
                if let Some(bot) = ctx.add_bot("Rook") {
                    ctx.kick(bot, "again");
                }
            }
            "calls" => (0..10_001).for_each(|_| ctx.set_joinable(true)),
            "bytes" => (0..3).for_each(|_| ctx.send_json(from, &"b".repeat(400_000))),
            "lines" => (0..101).for_each(|_| ctx.info("again")),
            "keys" => (0..1_025).for_each(|key| ctx.publish_json(&key.to_string(), &1)),
            "timers of all ids" => (0..1_025).for_each(|id| ctx.set_timer(id, 10_000)),
            "label" => ctx.set_label(&[("mode", &"m".repeat(257))]),
            _ => {}
        }
    }

    fn tick(&mut self, ctx: &mut Context, elapsed_ms: u32) {
        if ctx.now_ms() <= 50 {
            self.note(ctx, format!("tick {elapsed_ms}"));
        }
    }

    fn timer(&mut self, ctx: &mut Context, id: u32) {
        self.note(ctx, format!("timer {id}"));
    }

    fn answer(&mut self, ctx: &mut Context, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        self.note(ctx, format!("answer {request} {outcome:?}"));
    }

    fn signal(&mut self, ctx: &mut Context, signal: Signal) {
        self.note(ctx, format!("{:?}", signal.read()));
    }
}

impl Diary {
    fn note(&mut self, ctx: &mut Context, line: String) {
        self.calls.push(format!("{} {line}", ctx.now_ms()));
        ctx.log(Level::Debug, &line);
    }
}

fn host() -> Host<Diary> {
    Host::start(Payload::default()).unwrap()
}

#[test]
fn seats_are_never_used_again_and_a_known_player_gets_the_own_one_back() {
    let mut host = host();
    let (ana, ben) = (host.join("ana").unwrap(), host.join("ben").unwrap());
    assert_eq!(host.join("ana"), Ok(ana));
    assert_eq!(host.join("cid"), Err(JoinError::Full));
    host.leave(ben, LeaveReason::TimedOut);
    let cid = host.join("cid").unwrap();
    assert!(cid > ben);
    assert_eq!(
        host.watch("dan").map(|seat| seat > cid),
        Ok(true),
        "spectators have seats of their own"
    );
    assert_eq!(host.watch("eva"), Err(JoinError::Full));
    assert_eq!(host.game().calls.iter().filter(|call| call.contains("join")).count(), 4);
}

#[test]
fn a_closed_match_takes_spectators_and_no_players() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.message(ana, json!("close"));
    assert_eq!(host.join("ben"), Err(JoinError::Closed));
    assert!(host.watch("cid").is_ok());
}

#[test]
fn a_refusal_gives_the_seat_back() {
    assert_eq!(Host::<Diary>::start(json!("refuse")).unwrap_err().reason(), "not today");
    let mut host = host();
    let refused = host.join_as("ana", Role::Player, json!("refuse"));
    assert_eq!(refused, Err(JoinError::Refused("not you".to_owned())));
    assert!(
        host.join_as("ana", Role::Player, json!([1])).is_err(),
        "a payload of another shape is refused by `?`"
    );
    assert!(host.seats().is_empty());
}

#[test]
fn leave_follows_a_kick_and_a_transfer_after_the_call_that_asked_for_it() {
    let mut host = host();
    let (ana, ben) = (host.join("ana").unwrap(), host.join("ben").unwrap());
    host.message(ana, json!("kick me"));
    host.message(ben, json!("go"));
    assert_eq!(
        host.game().calls[2..],
        [
            "0 message 1 None kick me",
            "0 leave 1 Kicked",
            "0 message 2 None go",
            "0 leave 2 Transferred"
        ]
    );
    let transfer = Request::Transfer {
        request: 1,
        seat: ben,
        target: "elsewhere".to_owned(),
        ctx: "null".into(),
    };
    assert_eq!(host.take_requests(), [transfer]);
    assert!(host.seats().is_empty());
}

#[test]
fn timers_and_ticks_come_in_the_order_of_their_time() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.message_numbered(ana, 1, json!("timers"));
    host.advance(50);
    let expected = [
        "0 message 1 Some(1) timers",
        "10 timer 1",
        "10 timer 2",
        "16 tick 16",
        "20 timer 3",
        "33 tick 17",
        "50 tick 17",
    ];
    assert_eq!(host.game().calls[1..], expected);
    assert_eq!(host.now_ms(), 50);
    host.advance(950);
    host.tick();
    assert_eq!(host.now_ms(), 1_016, "sixty ticks are a second");
}

#[test]
fn an_output_is_heard_by_whom_it_was_for_when_it_was_made() {
    let mut host = host();
    let (ana, ben) = (host.join("ana").unwrap(), host.join("ben").unwrap());
    assert_eq!(
        (host.heard_json(ana), host.heard_json(ben)),
        (vec![json!("ben")], vec![])
    );
    host.message(ana, json!("secret"));
    assert!(host.published("hand").is_none());
    assert!(host.published_to(ana, "hand").is_some());
    host.leave(ana, LeaveReason::Left);
    assert!(
        host.published_to(ana, "hand").is_none(),
        "what only a seat sees goes with it"
    );
}

#[test]
#[should_panic(expected = "not one JSON text")]
fn an_output_that_is_not_json_fails_as_it_would_on_the_node() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.message(ana, json!("not json"));
}

#[test]
fn nothing_is_played_after_the_end() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.message(ana, json!("end"));
    assert_eq!(host.outcome_json(), Some(json!({ "by": ana })));
    let calls = host.game().calls.len();
    host.advance(1_000);
    assert_eq!(host.game().calls.len(), calls);
}

#[test]
fn chance_is_the_seed_s_unless_a_test_decides() {
    let rolls = |seed: u64, scripted: Vec<u64>| {
        let mut host = Host::<Diary>::builder().seed(seed).start().unwrap();
        let ana = host.join("ana").unwrap();
        host.script_random(scripted);
        for _ in 0..20 {
            host.message(ana, json!("roll"));
        }
        host.game().rolls.clone()
    };
    assert_eq!(rolls(1, vec![]), rolls(1, vec![]));
    assert_ne!(rolls(1, vec![]), rolls(2, vec![]));
    assert_eq!(rolls(1, vec![5, 0, 3])[..3], [5, 0, 3]);
    assert!(rolls(3, vec![]).iter().all(|roll| *roll < 6));
}

#[test]
fn requests_are_written_down_and_answered_by_the_test() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.message(ana, json!("store"));
    let requests = host.take_requests();
    let expected = Request::Write {
        request: 7,
        owner: None,
        collection: "scores".to_owned(),
        key: "best".to_owned(),
        value: Some("3".into()),
        version: Some(String::new()),
    };
    assert_eq!(requests[0], expected);
    assert!(matches!(&requests[1], Request::Scan { request: 8, owner: Some(owner), limit: 10, .. } if owner == "ana"));
    host.answer(7, Err(Failure::from("conflict")));
    host.answer(8, Err(Failure::from("on fire")));
    let calls = &host.game().calls;
    assert!(calls[calls.len() - 2].ends_with("answer 7 Err(Conflict)"));
    assert!(calls[calls.len() - 1].ends_with("answer 8 Err(Other(\"on fire\"))"));
}

#[test]
fn a_saved_match_goes_on_and_hears_that_it_was_resumed() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.save_and_load().unwrap();
    assert!(
        host.game()
            .calls
            .last()
            .unwrap()
            .contains("Resumed { reason: \"upgrade\" }")
    );
    host.message(ana, json!("still here"));
    assert_eq!(host.game().calls.len(), 3);
}

#[test]
fn signals_are_read_by_topic_and_what_is_unknown_is_harmless() {
    let read = |topic: &str, data: &str| {
        Signal {
            topic: topic.to_owned(),
            data: data.to_owned(),
        }
        .read()
    };
    assert_eq!(read("seat.away", r#"{"seat": 3}"#), Notice::Away(Seat(3)));
    assert_eq!(read("seat.back", r#"{"seat": 3, "more": 1}"#), Notice::Back(Seat(3)));
    assert_eq!(read("operator", r#"{"data": [1]}"#), Notice::Operator(json!([1])));
    let changed = Notice::ContentChanged {
        collection: "items".to_owned(),
        key: "axe".to_owned(),
    };
    assert_eq!(
        read("content.changed", r#"{"collection": "items", "key": "axe"}"#),
        changed
    );
    for (topic, data) in [("seat.away", "{}"), ("seat.away", "["), ("moon.full", "{}"), ("", "")] {
        assert_eq!(read(topic, data), Notice::Unknown, "{topic} {data}");
    }
}

#[test]
fn a_bot_takes_a_player_s_seat() {
    let mut host = Host::<Diary>::start(json!("bot")).unwrap();
    host.join("ana").unwrap();
    assert_eq!(host.join("ben"), Err(JoinError::Full));
    assert_eq!(host.seats(), [(Seat(1), Role::Bot), (Seat(2), Role::Player)]);
}

#[test]
fn an_invited_player_hears_of_the_team() {
    let mut host = Host::<Diary>::builder().invite("ana", 4).start().unwrap();
    host.join("ana").unwrap();
    assert!(host.game().calls[0].ends_with("Some(4)"));
}

#[test]
fn a_player_who_is_transferred_comes_from_a_match_and_nobody_else_does() {
    let mut host = Host::<Diary>::start(json!(null)).unwrap();
    host.join_as("eve", Role::Player, json!("from mill")).unwrap();
    assert_eq!(host.game().calls, ["0 join 1 Player None"]);
    host.leave(Seat(1), LeaveReason::Left);
    host.transfer("ana", "mill", json!("luggage")).unwrap();
    assert_eq!(host.game().calls.last().unwrap(), "0 from mill");
    assert_eq!(
        host.transfer("ben", "mill", json!("refuse")),
        Err(JoinError::Refused("not you".into()))
    );
    host.message(Seat(2), json!("go"));
    assert_eq!(host.turn_back("ana", "elsewhere", json!("luggage")), Seat(4));
    assert_eq!(host.game().calls.last().unwrap(), "0 from elsewhere");
}

#[test]
fn a_call_over_a_budget_fails_in_the_words_of_the_node_and_has_not_happened() {
    let check = |word: &str, expected: &str| {
        let mut host = host();
        let ana = host.join("ana").unwrap();
        let calls = host.game().calls.clone();
        let words = host.undone(|host| host.message(ana, json!(word)));
        assert_eq!(words, expected);
        assert_eq!(host.game().calls, calls, "{word}");
        assert!(host.heard(ana).is_empty() && host.published("0").is_none(), "{word}");
    };
    check("calls", "host_calls: more than 10000 calls of the host in one call");
    check("bytes", "bytes: more than 1048576 bytes to the host in one call");
    check("lines", "log_lines: more than 100 log lines in one call");
    check("keys", "bytes: more than 1024 published keys");
    check("timers of all ids", "host_calls: more than 1024 timers");
    check(
        "stampede",
        "host_calls: more than 256 refused requests that have not been answered yet",
    );
    check("label", "bytes: a label's text of more than 256 bytes");
    check(
        "bots",
        "host_calls: more than 8 times in a row it met a refusal or a leaving with the next one",
    );
    check("panic", "on request");
}

#[test]
fn a_match_goes_on_after_an_undone_call_as_if_it_had_not_been_called() {
    let play = |with_failure: bool| {
        let mut host = Host::<Diary>::builder().seed(5).random([4]).start().unwrap();
        let ana = host.join("ana").unwrap();
        host.message(ana, json!("roll"));
        host.advance(20);
        host.take_outputs();
        if with_failure {
            assert_eq!(host.undone(|host| host.message(ana, json!("panic"))), "on request");
            let words = host.undone(|host| {
                host.message(ana, json!("roll"));
                host.message(ana, json!("not json"));
            });
            assert!(
                words.starts_with("bad_output: what was sent is not one JSON text"),
                "{words}"
            );
        } else {
            host.message(ana, json!("roll"));
        }
        host.message(ana, json!("roll"));
        host.join("ben").unwrap();
        host.advance(100);
        (
            host.game().calls.clone(),
            host.game().rolls.clone(),
            host.heard(ana),
            host.now_ms(),
        )
    };
    assert_eq!(play(true), play(false));
    assert_eq!(play(true).1[0], 4, "chance can be decided from the start");
}

#[test]
#[should_panic(expected = "nothing failed")]
fn what_should_have_failed_and_did_not_is_told() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.undone(|host| host.message(ana, json!("roll")));
}

#[test]
fn a_request_too_many_is_busy_and_one_for_nobody_is_refused() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.message(ana, json!("rush"));
    assert_eq!(host.take_requests().len(), 256);
    assert!(host.game().calls.last().unwrap().ends_with("answer 256 Err(Busy)"));
    host.message(ana, json!("nobody"));
    assert!(host.take_requests().is_empty());
    assert!(host.game().calls.last().unwrap().ends_with("answer 2 Err(Refused)"));
}

#[test]
fn a_timer_for_at_once_is_due_a_millisecond_later() {
    let mut host = host();
    let ana = host.join("ana").unwrap();
    host.message(ana, json!("at once"));
    host.advance(1);
    assert_eq!(host.game().calls.last().unwrap(), "1 timer 5");
}

#[test]
fn units_can_be_decided_too() {
    struct Weather(Vec<f64>);
    impl Match for Weather {
        fn manifest() -> Manifest {
            Manifest::binary("weather").tick_hz(1)
        }
        fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
            Ok(Self(Vec::new()))
        }
        fn tick(&mut self, ctx: &mut Context, _elapsed_ms: u32) {
            self.0.push(ctx.random().unit());
            ctx.publish_msgpack("unix", &ctx.unix_ms());
        }
    }
    let mut host = Host::<Weather>::builder().unix_ms(5_000).start().unwrap();
    host.script_units([0.25, 0.0, 0.999]);
    (0..3).for_each(|_| host.tick());
    assert_eq!(host.game().0, [0.25, 0.0, 0.999]);
    assert_eq!(host.published_msgpack("unix"), Some(8_000));
}
