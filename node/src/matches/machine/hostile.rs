//! Match logic that means harm. Each case must end with the right kind of failure and a message that its author understands, in
//! bounded time, and leave the process and the matches beside it alive. None of these tests asserts how fast the machine is: a budget
//! that did not work would never end, or take gigabytes.

use bytes::Bytes;
use rookery_protocol::client::Role;

use super::super::event::{Event, Outcome, Topic, TrapKind};
use super::stage::Stage;
use crate::wasm::testing::Guest;

/// A way to use more than there is.
const LOOP: &str = "(loop $again (br $again))";

/// Every export that an event reaches, and how to reach it.
const REACHED: &[&str] = &[
    "start", "join", "leave", "message", "tick", "timer", "receive", "answer", "signal", "resync", "save",
];

/// Plays until the export has been called; the last event is the one that called it.
fn reach(stage: &mut Stage, export: &str) {
    if export == "save" {
        stage.apply(Event::Start);
        let failure = stage.save().expect_err("it was cut off");
        stage.last.failure = Some(failure);
        return;
    }
    stage.apply(Event::Start);
    if export == "start" {
        return;
    }
    let seat = stage.join(1, Role::Player);
    let event = match export {
        "join" => return,
        "leave" => Event::Leave {
            seat,
            reason: rookery_protocol::client::LeaveReason::Left,
        },
        "message" => Event::Message {
            seat,
            n: 1,
            data: Bytes::from_static(b"go"),
        },
        "tick" => Event::Tick { elapsed_ms: 50 },
        "timer" => {
            stage.now_ms = 1;
            Event::Timer { id: 1 }
        }
        "receive" => Event::Receive {
            sender: "m".into(),
            data: Bytes::new(),
            stamp: None,
        },
        "answer" => Event::Answer {
            request: 1,
            effect: None,
            outcome: Err("busy".into()),
        },
        "signal" => Event::Signal {
            topic: Topic::Operator { data: "1".into() },
        },
        "resync" => Event::Resync { seat, attach: None },
        other => panic!("no way to reach {other}"),
    };
    stage.apply(event);
}

/// A guest whose one export does this; a timer is set, so that `timer` can be reached.
fn hostile(export: &'static str, body: &str) -> Guest {
    let guest = Guest::new("hostile")
        .json()
        .ticking(20)
        .on("start", "(call $set_timer (i32.const 1) (i32.const 0)) (call $ok)");
    let returns = matches!(export, "start" | "join" | "save");
    guest.on(
        export,
        if returns {
            format!("{body} (i32.const 0)")
        } else {
            body.to_owned()
        },
    )
}

fn check(export: &'static str, body: &str, kind: TrapKind, message: &str) {
    check_guest(&hostile(export, body), export, kind, message);
}

fn check_guest(guest: &Guest, export: &'static str, kind: TrapKind, message: &str) {
    // Counted budgets are tried with more time than they need: an unoptimised host must not run out of that first.
    let call_cpu_us = if kind == TrapKind::Time { 10_000 } else { 2_000_000 };
    let mut stage = Stage::with(guest, |start| start.limits.call_cpu_us = call_cpu_us);
    reach(&mut stage, export);
    let failure = stage.failure().clone();
    assert_eq!(failure.kind, kind, "{export}: {failure}");
    assert!(failure.message.contains(message), "{export}: {failure}");
    assert!(
        is_shown_to_authors(&failure.to_string()),
        "docs/modding.md does not show: {failure}"
    );
    assert!(!stage.game.is_running());
    if export != "save" {
        assert_eq!(stage.record().outcome, Outcome::Trapped(kind));
    }
    // What comes after a failure does nothing, and does not panic either.
    stage.apply(Event::Tick { elapsed_ms: 1 });
    assert_eq!(stage.record().outcome, Outcome::Stale);
}

/// Whether the page for authors has this message among its exact words.
fn is_shown_to_authors(failure: &str) -> bool {
    let page = include_str!("../../../../docs/modding.md");
    let words = page
        .split("The exact words")
        .nth(1)
        .and_then(|rest| rest.split("```").nth(1));
    let mut lines = words.expect("a block of messages").lines();
    lines.any(|line| match line.strip_suffix("...") {
        Some(beginning) => failure.starts_with(beginning),
        None => failure == line,
    })
}

#[test]
fn an_endless_loop_in_any_export_runs_out_of_time() {
    for export in REACHED {
        check(
            export,
            LOOP,
            TrapKind::Time,
            "used more than 10 ms of CPU time in one call",
        );
    }
}

#[test]
fn a_trap_in_any_export_is_a_trap() {
    for export in REACHED {
        check(
            export,
            "unreachable",
            TrapKind::Trap,
            "wasm `unreachable` instruction executed",
        );
    }
}

#[test]
fn memory_ends_at_the_limit() {
    // What most languages do when an allocation fails.
    let greedy = "(loop $again
        (if (i32.eq (i32.const -1) (memory.grow (i32.const 16))) (then unreachable)) (br $again))";
    check("message", greedy, TrapKind::Memory, "memory beyond 67108864 bytes");
    // One that does not care is at least no larger.
    let stubborn = "(loop $again (drop (memory.grow (i32.const 16))) (br $again))";
    check("message", stubborn, TrapKind::Time, "");
    let at_once = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 60000))) (then unreachable))";
    check("message", at_once, TrapKind::Memory, "");
}

#[test]
fn a_refused_growth_can_be_lived_with() {
    let guest = hostile("message", "(drop (memory.grow (i32.const 60000)))");
    let mut stage = Stage::of(&guest);
    reach(&mut stage, "message");
    assert_eq!(stage.record().outcome, Outcome::Applied);
}

#[test]
fn tables_end_at_the_limit() {
    let greedy = "(loop $again
        (if (i32.eq (i32.const -1) (table.grow $t (ref.null func) (i32.const 10000))) (then unreachable)) (br $again))";
    check_guest(
        &hostile("tick", greedy).with("(table $t 1 funcref)"),
        "tick",
        TrapKind::Memory,
        "",
    );
}

#[test]
fn unbounded_recursion_ends_at_the_stack() {
    let deep = hostile("message", "(drop (call $down (i32.const 0)))").with(
        "(func $down (param $n i32) (result i32)
           (i32.add (call $down (i32.add (local.get $n) (i32.const 1))) (local.get $n)))",
    );
    check_guest(&deep, "message", TrapKind::Trap, "call stack exhausted");
}

#[test]
fn a_flood_of_host_calls_is_counted() {
    let guest = |body: &str| format!("(loop $again {body} (br $again))");
    for call in [
        "(drop (call $below (i32.const 6)))",
        "(drop (call $now))",
        "(call $set_joinable (i32.const 1))",
    ] {
        check(
            "message",
            &guest(call),
            TrapKind::HostCalls,
            "more than 10000 calls of the host in one call",
        );
    }
    check("message", &guest("(call $send_all @'1')"), TrapKind::HostCalls, "");
    check(
        "message",
        &guest("(call $publish_all @'k' @'1')"),
        TrapKind::HostCalls,
        "",
    );
    check(
        "message",
        &guest("(call $tell (i32.const 1) @'t' @'')"),
        TrapKind::HostCalls,
        "",
    );
}

#[test]
fn refused_requests_do_not_pile_up() {
    // Asks twice whenever it is told that the outbox is full: without an end, each answer would make two more.
    let ask = "(call $claim (i32.const 1) @'a')";
    let flood = format!("(loop $again {ask} (br $again))");
    check("message", &flood, TrapKind::HostCalls, "more than 256 refused requests");
    let guest = Guest::new("nagging")
        .on("message", ask)
        .on("answer", format!("{ask} {ask}"));
    let mut stage = Stage::with(&guest, |start| start.limits.outbox = 8);
    stage.apply(Event::Start);
    let seat = stage.join(1, Role::Player);
    for _ in 0..9 {
        stage.say(seat, b"");
    }
    run_follow_ups(&mut stage);
    assert_eq!(stage.failure().kind, TrapKind::HostCalls);
}

/// Applies follow-ups until there are none or the match is over; there must be an end to them.
fn run_follow_ups(stage: &mut Stage) {
    let mut events = 0;
    while stage.game.is_running() {
        let Some(event) = stage.game.part().pending().next().cloned() else {
            return;
        };
        stage.apply(event);
        events += 1;
        assert!(events < 1_000, "it goes on for ever");
    }
}

#[test]
fn follow_ups_that_cause_follow_ups_come_to_an_end() {
    // Each time the bot is thrown out, another takes its place and is thrown out too.
    let replace = "(call $add_bot @'b' (i32.const 800)) (call $kick (i32.load (i32.const 804)) @'')";
    let guest = Guest::new("revolving").on("message", replace).on("leave", replace);
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"");
    run_follow_ups(&mut stage);
    assert_eq!(stage.failure().kind, TrapKind::HostCalls);
    assert!(stage.failure().message.contains("in a row"), "{}", stage.failure());
    // Throwing out everybody at once is no chain.
    let all = "(loop $again (local.set $i (i32.add (local.get $i) (i32.const 1))) (call $kick (local.get $i) @'')
        (br_if $again (i32.lt_u (local.get $i) (i32.const 20))))";
    let mut stage = Stage::started(&Guest::new("closing").on("message", all));
    for person in 1..=8 {
        stage.join(person, Role::Player);
    }
    stage.say(1, b"");
    run_follow_ups(&mut stage);
    assert!(stage.game.is_running());
    assert_eq!(stage.game.part().human_count(), 0);
}

#[test]
fn a_timer_cannot_stop_time() {
    let again = "(call $set_timer (i32.const 1) (i32.const 0))";
    let guest = Guest::new("eager").on("message", again).on("timer", again);
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"");
    stage.now_ms = 10;
    let mut runs = 0;
    while let Some(id) = stage.game.part().due_timer(stage.now_ms) {
        stage.apply(Event::Timer { id });
        runs += 1;
        assert!(runs < 10, "it goes on for ever");
    }
    assert_eq!((runs, stage.game.part().next_wake_ms()), (1, Some(11)));
}

#[test]
fn a_flood_of_log_lines_is_counted() {
    check(
        "tick",
        "(loop $again (call $log (i32.const 1) @'x') (br $again))",
        TrapKind::LogLines,
        "more than 100 log lines",
    );
}

#[test]
fn a_flood_of_timers_is_counted() {
    let body = "(loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (call $set_timer (local.get $i) (i32.const 1)) (br $again))";
    check("message", body, TrapKind::HostCalls, "more than 1024 timers");
}

#[test]
fn published_state_is_bounded_in_keys_and_bytes() {
    // A new key each time: the counter's own bytes, printable because the high bit is never set.
    let body = "(loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (i32.store8 (i32.const 800) (i32.and (local.get $i) (i32.const 63)))
        (i32.store8 (i32.const 801) (i32.and (i32.shr_u (local.get $i) (i32.const 6)) (i32.const 63)))
        (call $publish_all (i32.const 800) (i32.const 2) @'1') (br $again))";
    check("message", body, TrapKind::Bytes, "more than 1024 published keys");
    // Over several calls, each within what one call may say.
    let guest = Guest::new("hoarder").pages(16).on(
        "message",
        "(i32.store8 (i32.const 800) (i32.load8_u (local.get $ptr)))
         (call $publish_all (i32.const 800) (i32.const 1) (i32.const 0) (i32.const 400000))",
    );
    let mut stage = Stage::started(&guest);
    let seat = stage.join(1, Role::Player);
    for key in [b"a", b"b", b"a"] {
        stage.say(seat, key);
        assert_eq!(stage.record().outcome, Outcome::Applied);
    }
    stage.say(seat, b"c");
    assert_eq!(stage.failure().kind, TrapKind::Bytes);
    assert!(
        stage.failure().message.contains("1048576 bytes of published state"),
        "{}",
        stage.failure()
    );
}

#[test]
fn payloads_and_lists_are_bounded_before_they_are_copied() {
    let huge = |body: &str| {
        let guest = Guest::new("huge").pages(256).ticking(20).on("message", body);
        check_guest(&guest, "message", TrapKind::Bytes, "");
    };
    huge("(call $send_all (i32.const 0) (i32.const 0xff0000))");
    huge("(call $send_all (i32.const 0) (i32.const 1048577))");
    huge("(call $log (i32.const 1) (i32.const 0x100000) (i32.const 0xe00000))");
    huge("(call $set_label (i32.const 0) (i32.const 0x80000))");
    huge("(call $send (i32.const 4) (i32.const 0) (i32.const 0x300000) @'x')");
    huge("(call $tell (i32.const 1) @'t' (i32.const 0) (i32.const 0xff0000))");
    // Many that fit, together too many.
    huge("(loop $again (call $send_all (i32.const 0) (i32.const 100000)) (br $again))");
    huge("(loop $again (call $tell (i32.const 1) @'t' (i32.const 0) (i32.const 100000)) (br $again))");
}

#[test]
fn labels_have_a_size() {
    let guest = Guest::new("label")
        .ticking(20)
        .on("message", "(call $set_label (i32.const 131072) (i32.const 17))");
    check_guest(&guest, "message", TrapKind::Bytes, "a label of more than 16 keys");
    let long = "(i32.store (i32.const 800) (i32.const 131072)) (i32.store (i32.const 804) (i32.const 257))
        (i32.store (i32.const 808) (i32.const 0)) (i32.store (i32.const 812) (i32.const 0))
        (call $set_label (i32.const 800) (i32.const 1))";
    check(
        "message",
        long,
        TrapKind::Bytes,
        "a label's text of more than 256 bytes",
    );
}

#[test]
fn pointers_outside_memory_are_traps() {
    let pointers = [
        "(call $send_all (i32.const 0x7fffffff) (i32.const 10))",
        "(call $send_all (i32.const -4) (i32.const 100))",
        "(call $log (i32.const 1) (i32.const 0x40000) (i32.const 1))",
        "(call $publish_all (i32.const -1) (i32.const 2) @'1')",
        "(call $add_bot @'b' (i32.const 0x7ffffff0))",
        // Not a level, not an audience.
        "(call $log (i32.const 9) @'x')",
        "(call $send (i32.const 7) (i32.const 0) (i32.const 0) @'1')",
        // Not text.
        "(i32.store (i32.const 800) (i32.const -1)) (call $log (i32.const 1) (i32.const 800) (i32.const 4))",
        "(drop (i32.load (i32.const -4)))",
        "(call_indirect $t (i32.const 5))",
        "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
    ];
    for body in pointers {
        let guest = hostile("message", body).with("(table $t 1 funcref)");
        check_guest(&guest, "message", TrapKind::Trap, "");
    }
}

#[test]
fn an_allocator_that_lies_is_a_trap() {
    // The host writes arguments to where `cabi_realloc` says; one that points outside must not be believed.
    let guest = hostile("message", "").on("start", "(global.set $lie (i32.const 1)) (call $ok)");
    check_guest(&guest, "join", TrapKind::Trap, "");
}

#[test]
fn results_are_read_with_care() {
    for (export, body) in [
        (
            "start",
            "(i32.store8 (i32.const 256) (i32.const 7))  (drop (call $ok)) (i32.store8 (i32.const 256) (i32.const 7))",
        ),
        ("join", "(drop (call $refuse (i32.const 0x7fff0000) (i32.const 100)))"),
    ] {
        let guest = hostile("message", "").on(export, format!("{body} (i32.const 256)"));
        check_guest(&guest, export, TrapKind::Trap, "");
    }
    // The address of the result itself is outside.
    check_guest(
        &hostile("message", "").on("join", "(i32.const 0x7ffffff0)"),
        "join",
        TrapKind::Trap,
        "",
    );
    // A reason of 2 MiB, and a state of 17 MiB.
    let reason = "(drop (call $refuse (i32.const 0) (i32.const 0x200000))) (i32.const 256)";
    check_guest(
        &hostile("message", "").pages(64).on("join", reason),
        "join",
        TrapKind::Bytes,
        "",
    );
    let state = "(call $bytes (i32.const 0) (i32.const 0x1100000))";
    check_guest(
        &hostile("message", "").pages(300).on("save", state),
        "save",
        TrapKind::Bytes,
        "",
    );
    let fine = Guest::new("fine")
        .pages(300)
        .on("save", "(call $bytes (i32.const 0) (i32.const 0x1000000))");
    assert_eq!(Stage::started(&fine).save().unwrap().len(), 16 << 20);
}

#[test]
fn a_json_module_may_only_say_json() {
    let bad = [
        "(call $send_all @'')",
        "(call $send_all @'{')",
        "(call $send_all @'{} {}')",
        "(call $send_all @'nul')",
        "(call $publish_all @'k' @'[1,]')",
        "(call $finish @'won')",
        "(call $storage_write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) @'c' @'k' (i32.const 1) @'x' (i32.const 0) (i32.const 0) (i32.const 0))",
        // A string with a byte that is no UTF-8.
        "(i32.store (i32.const 800) (i32.const 0x0022ff22)) (call $send_all (i32.const 800) (i32.const 3))",
    ];
    for body in bad {
        check("message", body, TrapKind::BadOutput, "is not one JSON text");
    }
    for body in [
        "(call $send_all @' {\"a\":[1,2]} ')",
        "(call $send_all @'null')",
        "(call $finish @'1e3')",
    ] {
        let mut stage = Stage::of(&hostile("message", body));
        reach(&mut stage, "message");
        assert_eq!(stage.record().outcome, Outcome::Applied, "{body}");
    }
    // Depth is no way in either.
    let guest = Guest::new("deep").json().pages(16).on(
        "message",
        "(memory.fill (i32.const 131072) (i32.const 91) (i32.const 500000)) (call $send_all (i32.const 131072) (i32.const 500000))",
    );
    check_guest(&guest.ticking(20), "message", TrapKind::BadOutput, "");
    let nested = |depth: u32| {
        Guest::new("nested").json().ticking(20).pages(16).on(
            "message",
            format!(
                "(memory.fill (i32.const 131072) (i32.const 91) (i32.const {depth}))
                 (memory.fill (i32.const {}) (i32.const 93) (i32.const {depth}))
                 (call $send_all (i32.const 131072) (i32.const {}))",
                131_072 + depth,
                2 * depth
            ),
        )
    };
    check_guest(&nested(128), "message", TrapKind::BadOutput, "deeper than 127 levels");
    check_guest(
        &nested(250_000),
        "message",
        TrapKind::BadOutput,
        "deeper than 127 levels",
    );
    let mut stage = Stage::of(&nested(127));
    reach(&mut stage, "message");
    assert_eq!(stage.record().outcome, Outcome::Applied);
}

#[test]
fn a_binary_module_may_say_anything() {
    let mut stage = Stage::started(&Guest::new("raw").on("message", "(call $send_all @'{')"));
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"");
    assert_eq!(stage.heard(), ["everyone {"]);
}

#[test]
fn the_matches_beside_a_hostile_one_play_on() {
    let calm = Guest::new("calm").ticking(20).on("tick", "(call $send_all @'tick')");
    let mut beside = Stage::started(&calm);
    std::thread::scope(|scope| {
        let troublemakers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..5 {
                        check("message", LOOP, TrapKind::Time, "");
                    }
                })
            })
            .collect();
        while !troublemakers.iter().all(|thread| thread.is_finished()) {
            beside.now_ms += 50;
            beside.apply(Event::Tick { elapsed_ms: 50 });
            assert_eq!(beside.heard(), ["everyone tick"]);
        }
        for thread in troublemakers {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_long_copy_is_interrupted() {
    // Straight-line code without a loop of its own: each copy takes milliseconds.
    let copies = "(memory.copy (i32.const 0) (i32.const 1) (i32.const 0x3f00000))\n".repeat(400);
    let guest = Guest::new("copier").pages(1_023).ticking(20).on("message", copies);
    check_guest(&guest, "message", TrapKind::Time, "");
}
