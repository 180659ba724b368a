//! Match logic that means harm. Each case of the table is cut off with the kind of failure and the words that the table says, in bounded
//! time, and is undone: the host's part is as if the guest had not been asked, its memory is what it was, and the match goes on. None of
//! these tests asserts how fast the machine is: a budget that did not work would never end, or take gigabytes.

mod cases;

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use rookery_protocol::client::Role;
use serde_json::json;

use super::super::event::{Event, Outcome, Topic, TrapKind};
use super::GivenUp;
use super::stage::{Stage, module, occupant};
use crate::wasm::Module;
use crate::wasm::testing::Guest;
use cases::{Case, EXPORTS};

/// A way to use more than there is.
const LOOP: &str = "(loop $again (br $again))";

/// Plays until the export is about to be called, and returns the event that calls it.
fn approach(stage: &mut Stage, export: &str) -> Event {
    if export == "start" {
        return Event::Start;
    }
    stage.apply(Event::Start);
    if export == "save" {
        return Event::Save;
    }
    if export == "join" {
        return Event::Join {
            seat: stage.game.part().next_seat,
            occupant: occupant(1, Role::Player, None),
            ctx: Bytes::new(),
        };
    }
    let seat = stage.join(1, Role::Player);
    match export {
        "leave" => Event::Leave {
            seat,
            reason: rookery_protocol::client::LeaveReason::Left,
        },
        "message" => Event::Message {
            seat,
            n: 1,
            data: Bytes::from_static(b"\"go\""),
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
    }
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

/// Counted budgets are tried with more time than they need: an unoptimised host must not run out of that first.
fn time_for(kind: Option<TrapKind>) -> u64 {
    match kind {
        Some(TrapKind::Time) => 10_000,
        _ => 5_000_000,
    }
}

fn remembering(guest: &Guest, call_cpu_us: u64) -> Stage {
    let mut stage = Stage::with(guest, |start| start.limits.call_cpu_us = call_cpu_us);
    stage.game.remember();
    stage
}

fn check(export: &'static str, body: &str, kind: TrapKind, message: &str) {
    check_guest(&hostile(export, body), export, kind, message);
}

fn check_guest(guest: &Guest, export: &'static str, kind: TrapKind, message: &str) {
    cut_off(guest, export, kind, message);
}

/// The export is cut off, and the guest's memory is what it was. Returns the match, and what the host kept of it before.
fn cut_off(guest: &Guest, export: &'static str, kind: TrapKind, message: &str) -> (Stage, Vec<u8>) {
    let mut stage = remembering(guest, time_for(Some(kind)));
    let event = approach(&mut stage, export);
    assert!(stage.game.is_running(), "{export}");
    let (image, before) = (stage.game.image(None).ok(), stage.game.part().comparable());
    stage.apply(event);
    let failure = stage.failure().clone();
    assert_eq!(failure.kind, kind, "{export}: {failure}");
    assert!(failure.message.contains(message), "{export}: {failure}");
    assert!(!failure.message.contains('\n'), "one sentence, not {failure}");
    assert!(
        is_shown_to_authors(&failure.to_string()),
        "docs/modding.md does not show: {failure}"
    );
    assert_eq!(stage.record().outcome, Outcome::Trapped(kind));
    match (export, image) {
        // There is nothing to go back to.
        ("start", _) => assert_eq!(stage.last.given_up, Some(GivenUp::AtTheStart)),
        (_, None) => assert!(matches!(stage.last.given_up, Some(GivenUp::Forgetful(_)))),
        (_, Some(image)) => {
            assert_eq!(stage.last.given_up, None, "{export}");
            assert!(stage.game.is_running());
            let after = stage.game.image(None).unwrap();
            assert_eq!(after.hash(), image.hash(), "{export}: its memory is not what it was");
            return (stage, before);
        }
    }
    // What comes after the end does nothing, and does not panic either.
    assert!(!stage.game.is_running());
    stage.apply(Event::Tick { elapsed_ms: 1 });
    assert_eq!(stage.record().outcome, Outcome::Stale);
    (stage, before)
}

/// Plays one case of the table beside a match whose logic does nothing, to which the same happens.
fn play(case: &Case, calm: &Module) {
    let Case {
        name, export, guest, ..
    } = case;
    let Some((kind, message)) = case.expected.failure() else {
        let mut stage = remembering(guest, time_for(None));
        reach(&mut stage, export);
        assert_eq!(stage.last.failure, None, "{name}");
        assert_eq!(stage.record().outcome, Outcome::Applied, "{name}");
        assert!(stage.game.is_running(), "{name}");
        return;
    };
    let (stage, before) = cut_off(guest, export, kind, message);
    let mut beside = Stage::playing(calm);
    reach(&mut beside, export);
    // Whom the guest was to let in, it has not; all else is the host's own.
    let (expected, heard) = match *export {
        "start" | "join" => (before, Vec::new()),
        _ => (beside.game.part().comparable(), beside.heard()),
    };
    assert_eq!(stage.game.part().comparable(), expected, "{name}: the host's part");
    assert_eq!(stage.heard(), heard, "{name}: what was heard");
}

fn reach(stage: &mut Stage, export: &str) {
    let event = approach(stage, export);
    stage.apply(event);
}

#[test]
fn every_case_is_cut_off_as_the_table_says_and_undone() {
    let calm = module(&cases::harmless());
    let cases = cases::all();
    for export in EXPORTS {
        assert!(cases.iter().any(|case| case.export == *export), "{export}");
    }
    // Those in which a match of a node needs more than one event have tests of their own.
    for case in cases
        .iter()
        .filter(|case| case.trigger == case.export && !case.name.contains("to put back"))
    {
        play(case, &calm);
    }
}

/// `ROOKERY_WRITE_HOSTILE` names the directory in which a node's driver looks for them; without it they are written and thrown away.
#[test]
fn the_cases_can_be_written_for_a_node_to_play() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = std::env::var_os("ROOKERY_WRITE_HOSTILE").map_or(scratch.path().to_owned(), PathBuf::from);
    let mut plan = std::fs::File::create(dir.join("plan.jsonl")).unwrap();
    let cases = cases::all();
    for (number, case) in cases.iter().enumerate() {
        let file = format!("{number:03}.wasm");
        std::fs::write(dir.join(&file), case.guest.component()).unwrap();
        let (kind, message) = match case.expected.failure() {
            Some((kind, message)) => (Some(kind.as_str()), message),
            None => (None, ""),
        };
        let line = json!({
            "name": case.name, "file": file, "export": case.export, "trigger": case.trigger,
            "expected": case.expected.as_str(), "kind": kind, "message": message,
        });
        writeln!(plan, "{line}").unwrap();
    }
    let names: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two have one name");
    let lines = std::fs::read_to_string(dir.join("plan.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), cases.len());
}

#[test]
fn a_guest_with_much_in_memory_is_put_back_and_only_so_often() {
    let mut stage = remembering(&cases::hoard(2), 5_000_000);
    stage.apply(Event::Start);
    let seat = stage.join(1, Role::Player);
    for _ in 0..2 {
        stage.say(seat, b"1");
        assert_eq!(stage.record().outcome, Outcome::Applied);
    }
    let full = stage.game.image(None).unwrap();
    for _ in 0..3 {
        stage.say(seat, b"1");
        assert_eq!(stage.failure().kind, TrapKind::Trap);
        assert_eq!(stage.game.image(Some(&full)).unwrap().hash(), full.hash());
    }
    // Its thread has waited for it long enough. What it is given up for is said to the author.
    stage.game.undoing_took(std::time::Duration::from_millis(1_001));
    stage.say(seat, b"1");
    assert_eq!(stage.last.given_up, Some(GivenUp::TooSlow));
    assert!(!stage.game.is_running());
    let said = stage.last.given_up.as_ref().unwrap().to_string();
    assert_eq!(
        said,
        "putting the match back took too long lately: more than 1000 ms within a minute"
    );
}

#[test]
fn time_runs_off_what_putting_back_took() {
    let mut stage = remembering(&cases::hoard(0), 5_000_000);
    stage.apply(Event::Start);
    let seat = stage.join(1, Role::Player);
    stage.game.undoing_took(std::time::Duration::from_millis(1_500));
    stage.now_ms = 31_000;
    stage.say(seat, b"1");
    assert_eq!(stage.last.given_up, None);
    assert!(stage.game.is_running());
}

#[test]
fn there_is_an_end_to_bots() {
    let more = "(loop $again (call $add_bot @'b' (i32.const 800)) (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 700))))
        (call $send_all (i32.const 800) (i32.const 1))";
    let mut guest = Guest::new("crowded").on("message", more);
    guest.max_players = 5_000;
    let mut stage = remembering(&guest, 5_000_000);
    stage.apply(Event::Start);
    let seat = stage.join(1, Role::Player);
    for (bots, last) in [(700, "everyone \u{1}"), (1_000, "everyone \0")] {
        stage.say(seat, b"1");
        assert_eq!(stage.game.part().seats().count(), bots + 1);
        assert_eq!(stage.heard().last().unwrap(), last);
    }
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
fn published_state_is_bounded_in_bytes_too() {
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
    huge("(call $send_all (i32.const 0) (i32.const 1048577))");
    // Many that fit, together too many.
    huge("(loop $again (call $send_all (i32.const 0) (i32.const 100000)) (br $again))");
    huge("(loop $again (call $tell (i32.const 1) @'t' (i32.const 0) (i32.const 100000)) (br $again))");
}

#[test]
fn labels_have_a_size() {
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
        "(call $send_all (i32.const -4) (i32.const 100))",
        "(call $log (i32.const 1) (i32.const 0x40000) (i32.const 1))",
        "(call $publish_all (i32.const -1) (i32.const 2) @'1')",
        "(call $add_bot @'b' (i32.const 0x7ffffff0))",
        // Not a level.
        "(call $log (i32.const 9) @'x')",
    ];
    for body in pointers {
        check("message", body, TrapKind::Trap, "");
    }
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
    // A state just as large as it may be.
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
