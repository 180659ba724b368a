//! What each event does to a match, and that the same events always do the same.

use bytes::Bytes;
use proptest::prelude::*;
use rookery_protocol::Seat;
use rookery_protocol::client::{LeaveReason, Role};

use super::super::effect::Effect;
use super::super::event::{EndReason, Entry, Event, Outcome, Topic};
use super::super::output::Body;
use super::super::part::{Admission, HostPart, Invitee};
use super::stage::{Stage, module, occupant, start_record};
use super::{Applied, Ending, Match, RingIn};
use crate::wasm::host::LogLevel;
use crate::wasm::testing::{Guest, SCRATCH};
use rookery_protocol::PlayerId;

/// Sends what it is told to the one who said it.
fn echo() -> Guest {
    Guest::new("echo").on(
        "message",
        "(call $send_one (local.get $seat) (local.get $ptr) (local.get $len))",
    )
}

/// A guest that does this on every message.
fn on_message(body: &str) -> Guest {
    Guest::new("guest").on("message", body)
}

/// What everyone hears after a message to such a guest, with two people seated.
fn heard(guest: &Guest) -> Vec<String> {
    let mut stage = Stage::started(guest);
    let seat = stage.join(1, Role::Player);
    stage.join(2, Role::Spectator);
    stage.say(seat, b"go");
    assert_eq!(stage.record().outcome, Outcome::Applied, "{:?}", stage.last.failure);
    stage.heard()
}

#[test]
fn a_message_comes_back() {
    let mut stage = Stage::started(&echo());
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"hello");
    assert_eq!(stage.heard(), ["1 hello"]);
    let output = &stage.last.outputs[0];
    assert_eq!(output.seq, stage.game.part().last_seq());
    assert_eq!(stage.game.part().since(output.seq - 1).unwrap().count(), 1);
}

#[test]
fn who_joins_is_told_first_then_the_others_then_what_the_guest_says() {
    let guest = Guest::new("welcome").on(
        "join",
        "(call $publish_all @'late' @'v') (call $send_all @'welcome') (call $send_one (local.get $seat) @'psst') (call $ok)",
    );
    let mut stage = Stage::started(&guest);
    stage.join(1, Role::Player);
    let seat = stage.join(2, Role::Player);
    assert_eq!(
        stage.heard(),
        [
            "2 joined n=0 players=[1 2] values=[late=v]",
            "!2 +2:p2",
            "everyone late=v",
            "everyone welcome",
            "2 psst",
        ]
    );
    let state = stage.game.part().seat(seat).unwrap();
    assert_eq!(state.joined_seq, stage.last.outputs[1].seq);
}

#[test]
fn a_refused_player_leaves_no_trace_but_what_was_said_to_others() {
    let guest = Guest::new("bouncer").on(
        "join",
        "(call $send_all @'someone came') (call $send_one (local.get $seat) @'for you')
         (call $publish_one (local.get $seat) @'own' @'v')
         (if (i32.load8_u (i32.const 800))
           (then (call $kick (local.get $seat) @'out'))
           (else (call $transfer (i32.const 1) (local.get $seat) @'elsewhere' @'')))
         (i32.store8 (i32.const 800) (i32.const 1))
         (call $refuse @'members only')",
    );
    let mut stage = Stage::started(&guest);
    stage.join(1, Role::Player);
    assert_eq!(stage.heard(), ["everyone someone came"]);
    assert!(stage.last.follow_ups.is_empty() && stage.last.effects.is_empty());
    let seat = stage.join(1, Role::Player);
    assert_eq!(stage.record().outcome, Outcome::Refused);
    assert_eq!(stage.last.refused.as_deref(), Some("members only"));
    assert_eq!(stage.heard(), ["everyone someone came"]);
    assert!(stage.last.follow_ups.is_empty() && stage.last.effects.is_empty());
    let part = stage.game.part();
    assert!(part.seat(seat).is_none() && part.published(Some(seat), "own").is_none());
    // The guest has seen the number, so nobody else gets it.
    assert!(
        matches!(part.admit(PlayerId::from_u128(2), Role::Player), Admission::Free { seat: next, .. } if next > seat)
    );
}

#[test]
fn a_start_may_be_refused() {
    let mut stage = Stage::of(&Guest::new("picky").on("start", "(call $refuse @'bad params')"));
    stage.apply(Event::Start);
    assert_eq!(stage.record().outcome, Outcome::Refused);
    assert_eq!(stage.last.refused.as_deref(), Some("bad params"));
}

#[test]
fn leaving_empties_the_seat_before_the_guest_hears_of_it() {
    let guest = Guest::new("wake").on(
        "leave",
        "(call $send_one (local.get $seat) @'too late') (call $send_all @'they left')",
    );
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.leave(seat);
    assert_eq!(stage.heard(), ["!1 -1:Left", "everyone they left"]);
    stage.leave(seat);
    assert_eq!(stage.record().outcome, Outcome::Stale);
    assert!(stage.heard().is_empty());
}

#[test]
fn audiences_reach_the_machine_as_the_guest_meant_them() {
    let list = |seats: &[u32]| {
        let stores: String = seats
            .iter()
            .enumerate()
            .map(|(i, seat)| {
                format!(
                    "(i32.store (i32.const {}) (i32.const {seat}))",
                    SCRATCH as usize + 4 * i
                )
            })
            .collect();
        format!(
            "{stores}(call $send (i32.const 4) (i32.const {SCRATCH}) (i32.const {}) @'x')",
            seats.len()
        )
    };
    let send = |kind: u32, seat: u32| format!("(call $send (i32.const {kind}) (i32.const {seat}) (i32.const 0) @'x')");
    let cases = [
        (send(0, 0), vec!["everyone x"]),
        (send(1, 0), vec!["players x"]),
        (send(2, 0), vec!["spectators x"]),
        (send(3, 2), vec!["2 x"]),
        (send(3, 9), vec![]),
        (list(&[2, 9, 1, 2]), vec!["[1, 2] x"]),
        (list(&[9]), vec![]),
        (send(5, 1), vec!["!1 x"]),
    ];
    for (body, expected) in cases {
        assert_eq!(heard(&on_message(&body)), expected, "{body}");
    }
}

#[test]
fn published_values_are_kept_newest_first_come_in_key_order_and_leave_with_their_seat() {
    let guest = on_message(
        "(call $publish_all @'b' @'1') (call $publish_all @'a' @'1') (call $publish_all @'b' @'2')
         (call $publish_one (local.get $seat) @'aa' @'mine') (call $publish_one (i32.const 9) @'zz' @'nobody')
         (call $publish_all @'gone' @'1') (call $unpublish @'gone') (call $unpublish @'never')",
    );
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    assert_eq!(
        stage.heard(),
        [
            "everyone b=1",
            "everyone a=1",
            "everyone b=2",
            "1 aa=mine",
            "everyone gone=1",
            "everyone gone=gone"
        ]
    );
    let part = stage.game.part();
    let keys = |seat: Seat| {
        part.visible_values(seat)
            .iter()
            .map(|value| value.key.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(seat), ["a", "aa", "b"]);
    assert_eq!(keys(9), ["a", "b"]);
    let b = part.published(None, "b").unwrap();
    assert_eq!((b.data.as_ref(), b.seq), (&b"2"[..], stage.last.outputs[2].seq));
    // The superseded value is not in the ring, so that a match that publishes its world does not fill it.
    let first = stage.last.outputs[0].seq;
    let kept: Vec<u64> = part
        .since(first - 1)
        .unwrap()
        .map(|output| output.seq - first)
        .collect();
    assert_eq!(kept, [1, 2, 3, 4, 5]);
    stage.leave(seat);
    assert!(stage.game.part().published(Some(seat), "aa").is_none());
}

#[test]
fn a_kick_is_heard_in_its_place_and_followed_by_leaving() {
    let guest = on_message(
        "(call $send_all @'before') (call $kick (i32.const 2) @'rude') (call $kick (i32.const 2) @'again')
        (call $kick (i32.const 99) @'ghost') (call $send_all @'after')",
    );
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.join(2, Role::Player);
    stage.say(seat, b"go");
    assert_eq!(stage.heard(), ["everyone before", "2 kicked: rude", "everyone after"]);
    let follow_ups = std::mem::take(&mut stage.last.follow_ups);
    assert_eq!(
        follow_ups,
        [Event::Leave {
            seat: 2,
            reason: LeaveReason::Kicked
        }]
    );
    stage.apply(follow_ups[0].clone());
    assert_eq!(stage.heard(), ["!2 -2:Kicked"]);
    assert_eq!(stage.game.part().pending().count(), 0);
}

#[test]
fn an_operator_kicks_without_asking_the_guest() {
    let mut stage = Stage::started(&Guest::new("unaware").on("leave", "(call $send_all @'bye')"));
    let seat = stage.join(1, Role::Player);
    stage.apply(Event::Kick {
        seat,
        reason: "cheating".into(),
    });
    assert_eq!(stage.heard(), ["1 kicked: cheating"]);
    assert_eq!(
        stage.last.follow_ups,
        [Event::Leave {
            seat,
            reason: LeaveReason::Kicked
        }]
    );
    stage.apply(Event::Kick {
        seat: 9,
        reason: String::new(),
    });
    assert_eq!(stage.record().outcome, Outcome::Stale);
}

#[test]
fn bots_take_seats_and_give_them_back() {
    let guest = on_message(&format!(
        "(call $add_bot @'Robo' (i32.const {SCRATCH}))
         (call $send_all (i32.const {SCRATCH}) (i32.const 8))
         (call $kick (i32.load (i32.const {})) @'')",
        SCRATCH + 4
    ));
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    let bot = stage.game.part().seat(2).unwrap();
    assert_eq!((bot.role, bot.player, bot.name.as_str()), (Role::Bot, None, "Robo"));
    assert_eq!(stage.heard()[0], "everyone +2:Robo");
    let Body::Players { joined, .. } = &stage.last.outputs[0].body else {
        panic!("not players")
    };
    assert_eq!(joined[0].player, "bot:2");
    assert_eq!(stage.game.part().player_count(), 2);
    assert_eq!(stage.game.part().human_count(), 1);
    // Nobody hears the kick of a bot, but it leaves like everybody else.
    assert_eq!(stage.last.outputs.len(), 2);
    stage.apply(Event::Leave {
        seat: 2,
        reason: LeaveReason::Kicked,
    });
    assert_eq!(stage.heard(), ["!2 -2:Kicked"]);
}

#[test]
fn a_full_match_has_no_seat_for_a_bot() {
    let guest = on_message(&format!(
        "(call $add_bot @'Robo' (i32.const {SCRATCH})) (call $send_all (i32.const {SCRATCH}) (i32.const 1))"
    ));
    let mut guest = guest;
    guest.max_players = 2;
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    assert_eq!(stage.last.outputs.len(), 2);
    stage.say(seat, b"go");
    let Body::Data { data } = &stage.last.outputs[0].body else {
        panic!("not data")
    };
    assert_eq!(data.as_ref(), [0]);
}

#[test]
fn time_is_the_events_time_and_never_runs_back() {
    let guest = on_message(&format!(
        "(f64.store (i32.const {SCRATCH}) (call $now)) (f64.store (i32.const {}) (call $unix))
         (call $send_all (i32.const {SCRATCH}) (i32.const 16))",
        SCRATCH + 8
    ));
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    let mut clock = |now_ms| {
        stage.now_ms = now_ms;
        stage.say(seat, b"go");
        let Body::Data { data } = &stage.last.outputs[0].body else {
            panic!("not data")
        };
        let read = |at: usize| f64::from_le_bytes(data[at..at + 8].try_into().unwrap()) as u64;
        (read(0), read(8), stage.last.record.at_ms)
    };
    assert_eq!(clock(1_500), (1_500, 1_700_000_001_500, 1_500));
    assert_eq!(clock(1_000), (1_500, 1_700_000_001_500, 1_500));
}

#[test]
fn timers_run_once_in_order_and_can_be_moved_and_cancelled() {
    let guest = on_message(
        "(call $set_timer (i32.const 1) (i32.const 300)) (call $set_timer (i32.const 2) (i32.const 100))
         (call $set_timer (i32.const 3) (i32.const 100)) (call $set_timer (i32.const 1) (i32.const 50))
         (call $cancel_timer (i32.const 3)) (call $cancel_timer (i32.const 4))",
    )
    .on(
        "timer",
        "(call $send_all @'ring') (call $set_timer (i32.const 9) (i32.const 1000))",
    );
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.now_ms = 10;
    stage.say(seat, b"go");
    assert_eq!(stage.game.part().next_wake_ms(), Some(60));
    assert_eq!(stage.game.part().due_timer(59), None);
    // Moved to another time: what was made for the old one does nothing.
    stage.apply(Event::Timer { id: 2 });
    assert_eq!(stage.record().outcome, Outcome::Stale);
    stage.now_ms = 200;
    let mut rung = Vec::new();
    while let Some(id) = stage.game.part().due_timer(stage.now_ms) {
        rung.push(id);
        stage.apply(Event::Timer { id });
        assert_eq!(stage.heard(), ["everyone ring"]);
    }
    assert_eq!(rung, [1, 2]);
    assert_eq!(stage.game.part().next_wake_ms(), Some(1_200));
}

#[test]
fn labels_doors_and_backfill_are_kept() {
    let label = SCRATCH;
    let guest = on_message(
        "(call $set_joinable (i32.const 0)) (call $backfill_open (i32.const 3))
         (call $write_label) (call $set_label (i32.const 768) (i32.const 1))",
    )
    .with(&format!(
        "(func $pair (param $k i32) (param $kl i32) (param $v i32) (param $vl i32)
           (i32.store (i32.const {label}) (local.get $k)) (i32.store (i32.const {}) (local.get $kl))
           (i32.store (i32.const {}) (local.get $v)) (i32.store (i32.const {}) (local.get $vl)))
         (func $write_label (call $pair @'mode' @'ranked'))",
        label + 4,
        label + 8,
        label + 12
    ))
    .on("signal", "(call $backfill_close)");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    let part = stage.game.part();
    assert_eq!(part.label(), [("mode".to_owned(), "ranked".to_owned())]);
    assert!(!part.is_joinable());
    assert_eq!(part.backfill(), Some(3));
    assert_eq!(part.admit(PlayerId::from_u128(5), Role::Player), Admission::Closed);
    assert!(matches!(
        part.admit(PlayerId::from_u128(5), Role::Spectator),
        Admission::Free { .. }
    ));
    stage.apply(Event::Signal {
        topic: Topic::Operator { data: "1".into() },
    });
    assert_eq!(stage.game.part().backfill(), None);
}

#[test]
fn a_match_hears_of_changes_of_the_collections_that_it_has_read() {
    let guest = on_message("(call $content_read (i32.const 1) @'items' @'sword')")
        .on("signal", "(call $send_all (local.get $ptr) (local.get $len))");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    assert!(!stage.game.part().has_read("items"));
    stage.say(seat, b"go");
    assert!(stage.game.part().has_read("items") && !stage.game.part().has_read("skills"));
    let part = HostPart::decode(&stage.game.part().encode()).unwrap();
    assert!(
        part.has_read("items"),
        "wherever the match goes on, it still hears of them"
    );
    stage.apply(Event::Signal {
        topic: Topic::ContentChanged {
            collection: "items".into(),
            key: "sw\"ord".into(),
        },
    });
    assert_eq!(stage.heard(), [r#"everyone {"collection":"items","key":"sw\"ord"}"#]);
}

#[test]
fn finishing_lets_the_event_speak_first_and_is_the_end() {
    let guest =
        on_message("(call $send_all @'gg') (call $finish @'won') (call $finish @'again') (call $send_all @'bye')");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    assert_eq!(stage.heard(), ["everyone gg", "everyone bye"]);
    assert_eq!(
        stage.last.ended,
        Some(Ending::Finished {
            outcome: Bytes::from_static(b"won")
        })
    );
    assert!(!stage.game.is_running());
    stage.say(seat, b"go");
    assert_eq!(stage.record().outcome, Outcome::Stale);
    assert!(stage.last.ended.is_none() && stage.last.outputs.is_empty());
}

#[test]
fn an_end_from_outside_does_not_ask_the_guest() {
    let mut stage = Stage::started(&echo());
    stage.apply(Event::End {
        reason: EndReason::Empty,
    });
    assert_eq!(stage.last.ended, Some(Ending::Stopped(EndReason::Empty)));
    assert!(!stage.game.is_running());
}

#[test]
fn random_draws_follow_the_seed() {
    let guest = on_message(&format!(
        "(i64.store (i32.const {SCRATCH}) (call $bits)) (f64.store (i32.const {}) (call $unit))
         (i32.store (i32.const {}) (call $below (i32.const 6))) (i32.store (i32.const {}) (call $below (i32.const 0)))
         (call $send_all (i32.const {SCRATCH}) (i32.const 24))",
        SCRATCH + 8,
        SCRATCH + 16,
        SCRATCH + 20
    ));
    let draws = |seed: u64| {
        let mut stage = Stage::with(&guest, |start| start.seed = seed);
        stage.apply(Event::Start);
        let seat = stage.join(1, Role::Player);
        let mut draws = Vec::new();
        for _ in 0..200 {
            stage.say(seat, b"go");
            let Body::Data { data } = &stage.last.outputs[0].body else {
                panic!("not data")
            };
            let unit = f64::from_le_bytes(data[8..16].try_into().unwrap());
            assert!((0.0..1.0).contains(&unit));
            assert!(data[16] < 6 && data[20] == 0);
            draws.push(data.clone());
        }
        draws
    };
    assert_eq!(draws(1), draws(1));
    assert_ne!(draws(1), draws(2));
    let dice: std::collections::BTreeSet<u8> = draws(1).iter().map(|data| data[16]).collect();
    assert_eq!(dice.len(), 6);
    // Golden: another generator, or another way to draw from it, would break every recorded match.
    assert_eq!(draws(1)[0][..8], 0xCFC5_D07F_6F03_C29B_u64.to_le_bytes());
}

#[test]
fn log_lines_come_with_their_level_and_are_cut_to_a_length() {
    let guest =
        on_message("(call $log (i32.const 2) @'careful') (call $log (i32.const 0) (i32.const 1024) (i32.const 5000))");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    assert_eq!(stage.last.log[0], (LogLevel::Warn, "careful".to_owned()));
    assert_eq!(stage.last.log[1].1.len(), 4_096);
}

#[test]
fn requests_become_effects_with_an_id_and_stay_until_they_are_answered() {
    let guest = on_message(
        "(call $tell (i32.const 1) @'other' @'mail') (call $say @'room:lobby' @'hi') (call $claim (i32.const 2) @'shop')
         (call $release @'shop')
         (call $storage_read (i32.const 3) (i32.const 1) @'ana' @'coins' @'gold')
         (call $storage_write (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0) @'coins' @'gold'
            (i32.const 1) @'5' (i32.const 1) @'v1')
         (call $storage_scan (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 0) @'coins' @'g' (i32.const 7))
         (call $content_read (i32.const 6) @'items' @'sword')",
    )
    .on("answer", "(if (local.get $is_error) (then (call $send_all (local.get $ptr) (local.get $len))) (else (call $send_all @'ok')))");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    let effects: Vec<Effect> = stage.last.effects.iter().map(|(_, effect)| effect.clone()).collect();
    let text = |text: &str| text.to_owned();
    assert_eq!(
        effects,
        [
            Effect::Tell {
                request: 1,
                target: text("other"),
                data: "mail".into()
            },
            Effect::Say {
                channel: text("room:lobby"),
                text: text("hi")
            },
            Effect::Claim {
                request: 2,
                name: text("shop")
            },
            Effect::Release { name: text("shop") },
            Effect::StorageRead {
                request: 3,
                owner: Some(text("ana")),
                collection: text("coins"),
                key: text("gold")
            },
            Effect::StorageWrite {
                request: 4,
                owner: None,
                collection: text("coins"),
                key: text("gold"),
                value: Some("5".into()),
                version: Some(text("v1")),
            },
            Effect::StorageScan {
                request: 5,
                owner: None,
                collection: text("coins"),
                prefix: text("g"),
                limit: 7,
            },
            Effect::ContentRead {
                request: 6,
                collection: text("items"),
                key: text("sword")
            },
        ]
    );
    let ids: Vec<_> = stage.last.effects.iter().map(|(id, _)| *id).collect();
    assert!(
        ids.iter()
            .enumerate()
            .all(|(i, id)| (id.event, id.index, id.incarnation) == (3, i as u32, 0))
    );
    assert_eq!(stage.game.part().outbox().len(), 8);

    let answer = |outcome| Event::Answer {
        request: 1,
        effect: Some(ids[0]),
        outcome,
    };
    stage.apply(answer(Err("no_target".into())));
    assert_eq!(stage.heard(), ["everyone no_target"]);
    assert_eq!(stage.game.part().outbox().len(), 7);
    // The same answer again, after a take-over for example.
    stage.apply(answer(Err("no_target".into())));
    assert_eq!(stage.record().outcome, Outcome::Stale);
    let entry = Entry {
        key: "gold".into(),
        data: "5".into(),
        version: "v2".into(),
    };
    stage.apply(Event::Answer {
        request: 3,
        effect: Some(ids[4]),
        outcome: Ok(vec![entry]),
    });
    assert_eq!(stage.heard(), ["everyone ok"]);
    stage.apply(Event::Settled { effect: ids[1] });
    assert_eq!(stage.record().outcome, Outcome::Applied);
    assert!(stage.heard().is_empty());
    stage.apply(Event::Settled { effect: ids[1] });
    assert_eq!(stage.record().outcome, Outcome::Stale);
    assert_eq!(stage.game.part().outbox().len(), 5);
}

#[test]
fn a_full_outbox_answers_busy() {
    let guest = on_message(
        "(call $say @'a' @'b') (call $claim (i32.const 7) @'x') (call $claim (i32.const 8) @'y')
        (call $say @'a' @'dropped')",
    );
    let mut stage = Stage::with(&guest, |start| start.limits.outbox = 2);
    stage.apply(Event::Start);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    assert_eq!(stage.last.effects.len(), 2);
    let busy = Event::Answer {
        request: 8,
        effect: None,
        outcome: Err("busy".into()),
    };
    assert_eq!(stage.last.follow_ups, std::slice::from_ref(&busy));
    assert_eq!(stage.last.log.len(), 1, "the dropped line is logged");
    stage.apply(busy);
    assert_eq!(stage.record().outcome, Outcome::Applied);

    let guest = on_message("(call $tell (i32.const 1) @'t' (i32.const 0) (i32.const 1000))");
    let mut stage = Stage::with(&guest, |start| start.limits.outbox_bytes = 2_500);
    stage.apply(Event::Start);
    let seat = stage.join(1, Role::Player);
    for (round, effects) in [(1, 1), (2, 1), (3, 0)] {
        stage.say(seat, b"go");
        assert_eq!(stage.last.effects.len(), effects, "round {round}");
    }
}

#[test]
fn a_transfer_takes_the_player_out_and_keeps_who_they_are() {
    let guest = on_message("(call $transfer (i32.const 1) (local.get $seat) @'village/mill' @'luggage')
        (call $transfer (i32.const 2) (local.get $seat) @'twice' @'') (call $transfer (i32.const 3) (i32.const 99) @'x' @'')");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    let Effect::Transfer {
        request: 1,
        player,
        name,
        target,
        ctx,
        ..
    } = &stage.last.effects[0].1
    else {
        panic!("{:?}", stage.last.effects)
    };
    assert_eq!((*player, name.as_str()), (PlayerId::from_u128(1), "p1"));
    assert_eq!((target.as_str(), ctx.as_ref()), ("village/mill", &b"luggage"[..]));
    assert_eq!(stage.last.effects.len(), 1);
    let refused = |request| Event::Answer {
        request,
        effect: None,
        outcome: Err("refused".into()),
    };
    assert_eq!(
        stage.last.follow_ups,
        [
            Event::Leave {
                seat,
                reason: LeaveReason::Transferred
            },
            refused(2),
            refused(3)
        ]
    );
}

#[test]
fn mail_and_signals_reach_the_guest() {
    let guest = Guest::new("ears")
        .on("receive", "(call $send_all (local.get $from) (local.get $from_len)) (call $send_all (local.get $ptr) (local.get $len))")
        .on("signal", "(call $send_all (local.get $topic) (local.get $topic_len)) (call $send_all (local.get $ptr) (local.get $len))");
    let mut stage = Stage::started(&guest);
    stage.apply(Event::Receive {
        sender: "shop".into(),
        data: "sold".into(),
        stamp: None,
    });
    assert_eq!(stage.heard(), ["everyone shop", "everyone sold"]);
    let cases = [
        (
            Topic::Operator {
                data: "{\"a\":1}".into(),
            },
            "operator",
            "{\"data\":{\"a\":1}}",
        ),
        (
            Topic::Operator {
                data: "say \"hi\"".into(),
            },
            "operator",
            "{\"data\":\"say \\\"hi\\\"\"}",
        ),
        (
            Topic::MatchResumed {
                reason: "restart".into(),
            },
            "match.resumed",
            "{\"reason\":\"restart\"}",
        ),
        (
            Topic::ContentChanged {
                collection: "items".into(),
                key: "sword".into(),
            },
            "content.changed",
            "{\"collection\":\"items\",\"key\":\"sword\"}",
        ),
    ];
    for (topic, name, data) in cases {
        stage.apply(Event::Signal { topic });
        assert_eq!(stage.heard(), [format!("everyone {name}"), format!("everyone {data}")]);
    }
}

#[test]
fn away_and_back_are_told_in_order() {
    let guest = Guest::new("seats")
        .on("signal", "(call $send_all (local.get $topic) (local.get $topic_len))")
        .on("resync", "(call $send_one (local.get $seat) @'full view')");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.now_ms = 500;
    stage.away(seat);
    assert_eq!(stage.heard(), ["!1 away 1", "everyone seat.away"]);
    assert_eq!(stage.game.part().first_away_since_ms(), Some(500));
    assert_eq!(stage.game.part().first_away_seat(499), None);
    assert_eq!(stage.game.part().first_away_seat(500), Some(seat));
    stage.away(seat);
    assert_eq!(stage.record().outcome, Outcome::Stale);
    stage.resync(seat, 8);
    assert_eq!(
        stage.heard(),
        [
            "1 joined n=0 players=[1] values=[]",
            "!1 back 1",
            "everyone seat.back",
            "1 full view"
        ]
    );
    assert_eq!(stage.game.part().first_away_since_ms(), None);
    assert_eq!(
        stage
            .game
            .part()
            .seat(seat)
            .unwrap()
            .attachment
            .as_ref()
            .unwrap()
            .number,
        8
    );
    stage.resync(seat, 9);
    assert_eq!(stage.heard(), ["1 joined n=0 players=[1] values=[]", "1 full view"]);
    stage.apply(Event::Resync { seat, attach: None });
    assert_eq!(stage.heard(), ["1 full view"]);
    stage.apply(Event::Resync { seat: 9, attach: None });
    assert_eq!(stage.record().outcome, Outcome::Stale);
}

#[test]
fn a_numbered_input_is_used_up_even_when_the_guest_traps_on_it() {
    let mut stage = Stage::started(&on_message(
        "(if (i32.eq (local.get $n) (i32.const 2)) (then unreachable))",
    ));
    let seat = stage.join(1, Role::Player);
    stage.apply(Event::Message {
        seat,
        n: 1,
        data: Bytes::new(),
    });
    assert_eq!(stage.game.part().seat(seat).unwrap().last_n, 1);
    stage.apply(Event::Message {
        seat,
        n: 2,
        data: Bytes::new(),
    });
    assert!(matches!(stage.record().outcome, Outcome::Trapped(_)));
    assert_eq!(stage.game.part().seat(seat).unwrap().last_n, 2);
}

#[test]
fn a_trap_leaves_the_hosts_part_as_if_the_guest_had_not_been_asked() {
    let deeds = format!(
        "(call $publish_all @'old' @'new') (call $publish_all @'fresh' @'1') (call $publish_one (i32.const 1) @'own' @'1')
         (call $unpublish @'doomed')
         (call $set_timer (i32.const 1) (i32.const 5)) (call $set_timer (i32.const 2) (i32.const 5)) (call $cancel_timer (i32.const 3))
         (drop (call $bits)) (drop (call $below (i32.const 10))) (call $set_joinable (i32.const 0))
         (call $set_label (i32.const 0) (i32.const 0)) (call $backfill_open (i32.const 2))
         (call $add_bot @'b1' (i32.const {SCRATCH})) (call $add_bot @'b2' (i32.const {SCRATCH}))
         (call $send_all @'hi') (call $kick (i32.const 1) @'x') (call $finish @'over')
         (call $tell (i32.const 1) @'t' @'d') (call $log (i32.const 1) @'kept')"
    );
    let guest = on_message(&format!("{deeds} unreachable")).on(
        "start",
        "(call $publish_all @'old' @'value') (call $publish_all @'doomed' @'1') (call $set_timer (i32.const 1) (i32.const 70))
         (call $set_timer (i32.const 3) (i32.const 90)) (call $ok)",
    );
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    let before = stage.game.part().clone();
    stage.now_ms = 10;
    stage.say(seat, b"go");
    assert_eq!(stage.failure().kind.as_str(), "trap");
    let applied = &stage.last;
    assert!(applied.outputs.is_empty() && applied.effects.is_empty() && applied.follow_ups.is_empty());
    assert!(applied.ended.is_none());
    assert_eq!(applied.log, [(LogLevel::Info, "kept".to_owned())]);
    let after = stage.game.part();
    assert_eq!(after.comparable(), before.comparable());
    let expected = HostPart {
        event_no: before.event_no + 1,
        now_ms: 10,
        traps: [(stage.failure().kind, 1)].into(),
        traps_at_ms: [10].into(),
        ..before
    };
    assert_eq!(*after, expected);
    assert!(!stage.game.is_running());

    // The same deeds without the trap do change the part, or this test would prove nothing.
    let mut stage = Stage::started(&on_message(&deeds));
    let seat = stage.join(1, Role::Player);
    let before = stage.game.part().comparable();
    stage.say(seat, b"go");
    assert_eq!(stage.record().outcome, Outcome::Applied);
    assert_ne!(stage.game.part().comparable(), before);
}

#[test]
fn the_hosts_share_of_a_trapped_event_stands() {
    let guest = Guest::new("fragile")
        .on("leave", "(call $send_all @'lost') unreachable")
        .on("timer", "unreachable")
        .on("start", "(call $set_timer (i32.const 1) (i32.const 0)) (call $ok)");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.leave(seat);
    assert_eq!(stage.heard(), ["!1 -1:Left"]);
    assert!(stage.game.part().seat(seat).is_none());

    let mut stage = Stage::started(&guest);
    stage.now_ms = 1;
    stage.apply(Event::Timer { id: 1 });
    assert!(matches!(stage.record().outcome, Outcome::Trapped(_)));
    assert_eq!(stage.game.part().due_timer(u64::MAX), None, "it would run for ever");

    let mut stage = Stage::started(&Guest::new("fragile").on("join", "(call $send_all @'x') unreachable"));
    let seat = stage.join(1, Role::Player);
    assert!(stage.heard().is_empty());
    assert!(stage.game.part().seat(seat).is_none());
    assert_eq!(
        stage.game.part().admit(PlayerId::from_u128(1), Role::Player),
        Admission::Free { seat, team: None }
    );
}

#[test]
fn reservations_keep_seats_free() {
    let mut guest = echo();
    guest.max_players = 2;
    let invitee = |person| Invitee {
        player: PlayerId::from_u128(person),
        team: 1,
        party: None,
        properties: "{}".into(),
    };
    let mut stage = Stage::with(&guest, |start| start.invited = vec![invitee(1), invitee(2)]);
    stage.apply(Event::Start);
    assert_eq!(
        stage.game.part().admit(PlayerId::from_u128(3), Role::Player),
        Admission::Full
    );
    let seat = stage.join(1, Role::Player);
    assert_eq!(stage.game.part().seat(seat).unwrap().team, Some(1));
    assert_eq!(
        stage.game.part().admit(PlayerId::from_u128(1), Role::Spectator),
        Admission::Seated { seat }
    );
    stage.apply(Event::Unreserve {
        player: PlayerId::from_u128(2),
    });
    assert_eq!(stage.record().outcome, Outcome::Applied);
    assert!(matches!(
        stage.game.part().admit(PlayerId::from_u128(3), Role::Player),
        Admission::Free { team: None, .. }
    ));
    stage.join(3, Role::Player);
    assert_eq!(
        stage.game.part().admit(PlayerId::from_u128(2), Role::Player),
        Admission::Full
    );
    assert!(!stage.game.part().has_free_seat());
}

#[test]
fn saving_changes_nothing_in_the_hosts_part() {
    let guest = Guest::new("saver").on(
        "save",
        "(call $send_all @'x') (drop (call $bits)) (call $set_timer (i32.const 1) (i32.const 1)) (call $bytes @'state')",
    );
    let mut stage = Stage::started(&guest);
    let before = stage.game.part().clone();
    assert_eq!(stage.save().unwrap(), Bytes::from_static(b"state"));
    let event_no = before.event_no + 1;
    assert_eq!(*stage.game.part(), HostPart { event_no, ..before });
    stage.apply(Event::Signal {
        topic: Topic::MatchResumed { reason: String::new() },
    });
    assert!(stage.heard().is_empty());
}

/// Does whatever the first byte of a message says, with the second as its argument, and counts what it did in its own memory.
pub(super) fn puppet() -> Guest {
    let deeds: &[(&str, &str)] = &[
        ("send its count", "(call $send_all (i32.const 800) (i32.const 8))"),
        (
            "send a draw",
            "(i64.store (i32.const 808) (call $bits)) (call $send_one (local.get $seat) (i32.const 808) (i32.const 8))",
        ),
        ("publish", "(call $publish_all @'k' (local.get $ptr) (local.get $len))"),
        (
            "publish another",
            "(call $publish_all (local.get $ptr) (local.get $len) @'v')",
        ),
        (
            "publish for one",
            "(call $publish_one (local.get $arg) @'own' (local.get $ptr) (local.get $len))",
        ),
        ("remove", "(call $unpublish @'k')"),
        (
            "set a timer",
            "(call $set_timer (local.get $arg) (i32.mul (local.get $arg) (i32.const 3)))",
        ),
        ("cancel a timer", "(call $cancel_timer (local.get $arg))"),
        ("add a bot", "(call $add_bot @'bot' (i32.const 816))"),
        ("kick", "(call $kick (local.get $arg) @'out')"),
        ("ask", "(call $claim (local.get $arg) @'name')"),
        (
            "move",
            "(call $transfer (local.get $arg) (local.get $arg) @'there' @'')",
        ),
        ("close", "(call $set_joinable (i32.and (local.get $arg) (i32.const 1)))"),
        (
            "a float",
            "(f64.store (i32.const 824) (f64.div (call $unit) (f64.const 0))) (call $send_all (i32.const 824) (i32.const 8))",
        ),
        (
            "finish",
            "(if (i32.eq (local.get $arg) (i32.const 0)) (then (call $finish @'done')))",
        ),
        (
            "trap",
            "(if (i32.eq (local.get $arg) (i32.const 1)) (then unreachable))",
        ),
    ];
    let arms: String = deeds
        .iter()
        .enumerate()
        .map(|(op, (_, deed))| format!("(if (i32.eq (local.get $op) (i32.const {op})) (then {deed}))\n"))
        .collect();
    Guest::new("puppet")
        .ticking(20)
        .with(&format!(
            "(func $do (param $seat i32) (param $op i32) (param $arg i32) (param $ptr i32) (param $len i32)
               (i64.store (i32.const 800) (i64.add (i64.load (i32.const 800)) (i64.const 1)))
               {arms})"
        ))
        .on(
            "message",
            "(call $do (local.get $seat) (i32.load8_u (local.get $ptr)) (i32.load8_u (i32.add (local.get $ptr) (i32.const 1)))
               (local.get $ptr) (local.get $len))",
        )
        .on("tick", "(call $do (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 800) (i32.const 8))")
        .on("timer", "(call $do (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 800) (i32.const 8))")
        .on("leave", "(call $do (i32.const 1) (i32.const 2) (i32.const 0) (i32.const 800) (i32.const 8))")
        .on("resync", "(call $do (local.get $seat) (i32.const 1) (i32.const 0) (i32.const 800) (i32.const 8))")
}

/// Something that may happen to a match, before it is known where it stands.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Join(u8, bool),
    Leave(u8),
    Say(u8, u8, u8),
    Away(u8),
    Resync(u8, bool),
    Due,
    Answer(u8, bool),
    Settle,
    OperatorKick(u8),
}

pub(super) fn happenings() -> impl Strategy<Value = Vec<(u16, Happening)>> {
    let seat = 0_u8..12;
    let one = prop_oneof![
        2 => (0_u8..12, any::<bool>()).prop_map(|(person, spectates)| Happening::Join(person, spectates)),
        1 => seat.clone().prop_map(Happening::Leave),
        12 => (seat.clone(), 0_u8..16, 0_u8..12).prop_map(|(seat, op, arg)| Happening::Say(seat, op, arg)),
        1 => seat.clone().prop_map(Happening::Away),
        1 => (seat.clone(), any::<bool>()).prop_map(|(seat, attach)| Happening::Resync(seat, attach)),
        4 => Just(Happening::Due),
        1 => (seat.clone(), any::<bool>()).prop_map(|(request, fine)| Happening::Answer(request, fine)),
        1 => Just(Happening::Settle),
        1 => seat.prop_map(Happening::OperatorKick),
    ];
    proptest::collection::vec((0_u16..100, one), 1..60)
}

/// The events that a happening comes to in this state.
pub(super) fn event_of(happening: &Happening, part: &HostPart, now_ms: u64) -> Option<Event> {
    Some(match happening {
        Happening::Join(person, spectates) => {
            let role = if *spectates { Role::Spectator } else { Role::Player };
            let Admission::Free { seat, team } = part.admit(PlayerId::from_u128((*person).into()), role) else {
                return None;
            };
            Event::Join {
                seat,
                occupant: occupant((*person).into(), role, team),
                ctx: Bytes::new(),
            }
        }
        Happening::Leave(seat) => Event::Leave {
            seat: (*seat).into(),
            reason: LeaveReason::Left,
        },
        Happening::Say(seat, op, arg) => {
            let seat = Seat::from(*seat);
            let n = part.seat(seat).map_or(0, |state| state.last_n + 1);
            Event::Message {
                seat,
                n,
                data: Bytes::copy_from_slice(&[*op, *arg, 7]),
            }
        }
        Happening::Away(seat) => Event::Signal {
            topic: Topic::SeatAway { seat: (*seat).into() },
        },
        Happening::Resync(seat, attach) => Event::Resync {
            seat: (*seat).into(),
            attach: attach.then(|| super::stage::attachment(3)),
        },
        Happening::Due => match part.due_timer(now_ms) {
            Some(id) => Event::Timer { id },
            None => Event::Tick {
                elapsed_ms: part.due_tick(now_ms)?.elapsed_ms,
            },
        },
        Happening::Answer(request, fine) => {
            let entry = Entry {
                key: "k".into(),
                data: "v".into(),
                version: "1".into(),
            };
            let (id, _) = part
                .outbox()
                .iter()
                .find(|(_, effect)| effect.request() == Some((*request).into()))?;
            let outcome = if *fine { Ok(vec![entry]) } else { Err("taken".into()) };
            Event::Answer {
                request: (*request).into(),
                effect: Some(*id),
                outcome,
            }
        }
        Happening::Settle => Event::Settled {
            effect: *part.outbox().keys().next()?,
        },
        Happening::OperatorKick(seat) => Event::Kick {
            seat: (*seat).into(),
            reason: "rules".into(),
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The promise that replay and take-over stand on.
    #[test]
    fn the_same_events_do_the_same(seed in any::<u64>(), script in happenings()) {
        thread_local! {
            static MODULE: crate::wasm::Module = module(&puppet());
        }
        let create = || MODULE.with(|module| {
            let mut start = start_record(module);
            start.seed = seed;
            start.incarnation = 1;
            Match::create(module, start).unwrap()
        });
        let (mut first, mut second) = (create(), create());
        let (mut one, mut two) = (Applied::default(), Applied::default());
        let mut now_ms = 0;
        let mut last_seq = first.part().last_seq();
        let mut pending: std::collections::VecDeque<Event> = [Event::Start].into();
        for (later_ms, happening) in script {
            now_ms += u64::from(later_ms);
            pending.extend(event_of(&happening, first.part(), now_ms));
            while let Some(event) = pending.pop_front() {
                first.apply(now_ms, event.clone(), &mut one);
                second.apply(now_ms, event, &mut two);
                prop_assert_eq!(&one.record, &two.record);
                prop_assert_eq!(&one.outputs, &two.outputs);
                prop_assert_eq!(&one.effects, &two.effects);
                prop_assert_eq!(&one.follow_ups, &two.follow_ups);
                prop_assert_eq!(first.part(), second.part());
                for output in &one.outputs {
                    prop_assert!(output.seq > last_seq, "numbers rise");
                    last_seq = output.seq;
                }
                pending.extend(one.follow_ups.drain(..));

                let part = first.part();
                let decoded = HostPart::decode(&part.encode()).unwrap();
                prop_assert_eq!(&decoded, part);
                prop_assert_eq!(decoded.comparable(), part.comparable());
                prop_assert_eq!(decoded.next_wake_ms(), part.next_wake_ms());
                prop_assert_eq!(decoded.first_away_since_ms(), part.first_away_since_ms());
                prop_assert_eq!(decoded.player_count(), part.player_count());
                prop_assert!(part.player_count() <= part.start().max_players as usize);
                prop_assert!(part.since(part.last_seq()).is_some());
                for value in part.visible_values(1) {
                    prop_assert!(value.seq > 0 && value.seq <= part.last_seq(), "every value is numbered");
                }
            }
        }
    }
}

#[test]
fn a_match_goes_on_from_what_it_saved_as_a_new_incarnation_and_its_clock_stood_still() {
    let guest = Guest::new("keeper")
        .on(
            "message",
            "(call $set_timer (i32.const 7) (i32.const 500)) (call $publish_all @'key' @'value') (call $claim (i32.const 3) @'throne')",
        )
        .on("save", "(call $bytes @'state')")
        .on("load", "(call $send_all (local.get $ptr) (local.get $len)) (call $ok)");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.now_ms = 1_000;
    stage.game.apply(
        stage.now_ms,
        Event::Message {
            seat,
            n: 4,
            data: Bytes::new(),
        },
        &mut stage.last,
    );
    let (asked, _) = stage.last.effects[0].clone();
    let state = stage.save().unwrap();
    let part = stage.game.encode_part(RingIn::Nowhere);
    let heard_before = stage.game.part().last_seq();
    assert!(stage.game.part().since(0).is_some(), "the running match keeps its ring");

    let unix_now_ms = 1_700_000_900_000;
    let part = HostPart::decode(&part).unwrap().resumed(1, unix_now_ms);
    assert_eq!(
        part.start().unix_start_ms + part.now_ms(),
        unix_now_ms,
        "it knows the time of day"
    );
    let mut game = Match::restore(&module(&guest), part).unwrap();
    let mut applied = Applied::default();
    let load = Event::Load {
        saved_by: "1.0.0".into(),
        state,
    };
    game.apply(1_000, load, &mut applied);
    assert_eq!(applied.record.outcome, Outcome::Applied);
    assert!(matches!(&applied.outputs[0].body, Body::Data { data } if data == "state"));
    let seq = applied.outputs[0].seq;
    assert_eq!(seq, (1 << 40) + 1);
    assert!(
        game.part().since(heard_before).is_none(),
        "what the last incarnation said is gone"
    );
    assert_eq!(game.part().seat(seat).map(|seated| seated.last_n), Some(4));
    assert_eq!(game.part().due_timer(1_499), None);
    assert_eq!(game.part().due_timer(1_500), Some(7));
    assert_eq!(game.part().published(None, "key").unwrap().data, "value");
    assert_eq!(
        game.part().outbox().keys().collect::<Vec<_>>(),
        [&asked],
        "a request keeps its id"
    );
}

#[test]
fn a_match_that_moves_keeps_its_numbers_and_what_it_said() {
    let guest = Guest::new("mover").on("message", "(call $send_all @'hello')");
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"go");
    let (state, last) = (stage.save().unwrap(), stage.game.part().last_seq());
    let part = HostPart::decode(&stage.game.encode_part(RingIn::Encoding)).unwrap();
    let mut game = Match::restore(&module(&guest), part.resumed(0, 0)).unwrap();
    let load = Event::Load {
        saved_by: "1.0.0".into(),
        state,
    };
    game.apply(0, load, &mut stage.last);
    assert_eq!(game.part().since(0).unwrap().count() as u64, last);
    let again = Event::Message {
        seat,
        n: 0,
        data: Bytes::new(),
    };
    game.apply(0, again, &mut stage.last);
    assert_eq!(stage.last.outputs[0].seq, last + 1);
}

#[test]
fn a_load_that_refuses_or_traps_says_so() {
    let refuses = Guest::new("stubborn").on("load", "(call $refuse @'no')");
    let traps = Guest::new("broken").on("load", "unreachable");
    for (guest, outcome) in [
        (refuses, Outcome::Refused),
        (traps, Outcome::Trapped(super::super::event::TrapKind::Trap)),
    ] {
        let mut stage = Stage::of(&guest);
        stage.apply(Event::Load {
            saved_by: String::new(),
            state: Bytes::new(),
        });
        assert_eq!(stage.record().outcome, outcome);
    }
}

#[test]
fn what_is_said_to_nobody_is_not_kept_and_who_was_thrown_out_can_still_be_told() {
    let guest = Guest::new("talker")
        .ticking(20)
        .on("tick", "(call $send_all @'tick')")
        .on("message", "(call $kick (local.get $seat) @'go')");
    let mut stage = Stage::started(&guest);
    let tick = |stage: &mut Stage, at_ms: u64| {
        stage.now_ms = at_ms;
        assert_eq!(stage.apply(Event::Tick { elapsed_ms: 50 }).outputs.len(), 1);
        stage.game.part().recent().count()
    };
    assert_eq!(tick(&mut stage, 50), 0);
    let seat = stage.join(1, Role::Player);
    let joined = stage.game.part().last_seq();
    let kept = tick(&mut stage, 100);
    assert!(kept > 0 && stage.game.part().since(joined).unwrap().count() == 1);
    stage.say(seat, b"");
    let out = stage.game.part().pending().next().cloned().unwrap();
    stage.apply(out);
    assert_eq!(stage.game.part().human_count(), 0);
    let kept = stage.game.part().since(joined).unwrap().count();
    assert_eq!(kept, stage.game.part().last_seq() as usize - joined as usize);
    // For a while; and what is said now is not among it.
    tick(&mut stage, 60_000);
    assert_eq!(stage.game.part().since(joined).unwrap().count(), kept);
    assert_eq!(tick(&mut stage, 61_000), 0);
    assert!(stage.game.part().since(joined).is_none());
    // The next one who comes hears everything from there on.
    let seat = stage.join(2, Role::Player);
    let joined = stage.game.part().seat(seat).unwrap().joined_seq;
    tick(&mut stage, 61_050);
    assert!(stage.game.part().since(joined).unwrap().count() > 0);
}
