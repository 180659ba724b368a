//! The ways to misbehave, as a table: what the guest does, in which export, and what becomes of it. `hostile` plays each against a match;
//! written to files, with their components, they are played against a node (`scripts/bench hostile`).
//!
//! The text of a body may say `@out` for the address and length of something outside of memory, and `@huge` for 15 MiB of it.

use crate::matches::event::TrapKind;
use crate::wasm::Durability;
use crate::wasm::testing::Guest;

/// One way to misbehave.
pub(super) struct Case {
    pub(super) name: String,
    /// The export in which it does so.
    pub(super) export: &'static str,
    /// The one that is called from outside for it.
    pub(super) trigger: &'static str,
    pub(super) guest: Guest,
    pub(super) expected: Expected,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// The call is cut off and undone. Of the kind, which is the metric's label, and with a message that has these words in it.
    Undone(TrapKind, &'static str),
    /// The same, but what it has changed cannot be captured: the match ends.
    Fatal(TrapKind, &'static str),
    /// It comes back, and has done no harm.
    Borne,
    /// The same, but not all that it logs is written.
    Unwritten,
    /// It takes as long as it is told to, by the length of what it is sent.
    Slow,
}

impl Expected {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Undone(..) => "undone",
            Fatal(..) => "fatal",
            Borne => "borne",
            Unwritten => "unwritten",
            Slow => "slow",
        }
    }

    /// The kind of failure, and words of its message.
    pub(super) fn failure(self) -> Option<(TrapKind, &'static str)> {
        match self {
            Undone(kind, message) | Fatal(kind, message) => Some((kind, message)),
            Borne | Unwritten | Slow => None,
        }
    }
}

use Expected::{Borne, Fatal, Slow, Undone, Unwritten};

/// Every export that an event reaches.
pub(super) const EXPORTS: &[&str] = &[
    "start", "join", "leave", "message", "tick", "timer", "receive", "answer", "signal", "resync", "save",
];

const LOOP: &str = "(loop $again (br $again))";

/// Every import: how it is called with nonsense, how without end, and what that comes to.
const IMPORTS: &[(&str, &str, &str, Expected)] = &[
    (
        "room.send",
        "(call $send_all @out)",
        "(call $send_all @'1')",
        HOST_CALLS,
    ),
    (
        "room.publish",
        "(call $publish_all @out @'1')",
        "(call $publish_all @'k' @'1')",
        HOST_CALLS,
    ),
    (
        "room.kick",
        "(call $kick (i32.const -1) @out)",
        "(call $kick (i32.const -1) @'')",
        HOST_CALLS,
    ),
    (
        "room.add-bot",
        "(call $add_bot @out (i32.const 800))",
        "(call $add_bot @'b' (i32.const 800))",
        HOST_CALLS,
    ),
    (
        "room.set-joinable",
        "(call $set_joinable (i32.const -1))",
        "(call $set_joinable (i32.const 1))",
        HOST_CALLS,
    ),
    (
        "room.set-label",
        "(call $set_label (i32.const 0x7ffffff0) (i32.const 4))",
        "(call $set_label (i32.const 0) (i32.const 0))",
        HOST_CALLS,
    ),
    ("room.finish", "(call $finish @out)", "(call $finish @'1')", HOST_CALLS),
    ("clock.now", "", "(drop (call $now))", HOST_CALLS),
    ("clock.unix", "", "(drop (call $unix))", HOST_CALLS),
    (
        "clock.set-timer",
        "(call $set_timer (i32.const -1) (i32.const -1))",
        "(call $set_timer (i32.const 7) (i32.const 0))",
        HOST_CALLS,
    ),
    (
        "clock.cancel-timer",
        "(call $cancel_timer (i32.const -1))",
        "(call $cancel_timer (i32.const 7))",
        HOST_CALLS,
    ),
    ("random.bits", "", "(drop (call $bits))", HOST_CALLS),
    (
        "random.below",
        "(drop (call $below (i32.const 0))) (drop (call $below (i32.const -1)))",
        "(drop (call $below (i32.const -1)))",
        HOST_CALLS,
    ),
    ("random.unit", "", "(drop (call $unit))", HOST_CALLS),
    (
        "log.write",
        "(call $log (i32.const 1) @out)",
        "(call $log (i32.const 3) @'x')",
        Undone(TrapKind::LogLines, "more than 100 log lines in one call"),
    ),
    (
        "mail.tell",
        "(call $tell (i32.const 1) @out @'1')",
        "(call $tell (i32.const 1) @'nowhere' @'1')",
        REFUSED_REQUESTS,
    ),
    (
        "mail.transfer",
        "(call $transfer (i32.const 1) (i32.const -1) @out @'1')",
        "(call $transfer (i32.const 1) (i32.const -1) @'nowhere' @'1')",
        REFUSED_REQUESTS,
    ),
    (
        "mail.say",
        "(call $say @out @'x')",
        "(call $say @'room:lobby' @'x')",
        HOST_CALLS,
    ),
    (
        "mail.claim",
        "(call $claim (i32.const 1) @out)",
        "(call $claim (i32.const 1) @'throne')",
        REFUSED_REQUESTS,
    ),
    (
        "mail.release",
        "(call $release @out)",
        "(call $release @'throne')",
        HOST_CALLS,
    ),
    (
        "storage.read",
        "(call $storage_read (i32.const 1) (i32.const 1) @out @'c' @'k')",
        "(call $storage_read (i32.const 1) (i32.const 0) @'' @'c' @'k')",
        REFUSED_REQUESTS,
    ),
    (
        "storage.write",
        "(call $storage_write (i32.const 1) (i32.const 0) @'' @'c' @'k' (i32.const 1) @out (i32.const 0) @'')",
        "(call $storage_write (i32.const 1) (i32.const 0) @'' @'c' @'k' (i32.const 1) @'1' (i32.const 0) @'')",
        REFUSED_REQUESTS,
    ),
    (
        "storage.scan",
        "(call $storage_scan (i32.const 1) (i32.const 0) @'' @'c' @out (i32.const -1))",
        "(call $storage_scan (i32.const 1) (i32.const 0) @'' @'c' @'' (i32.const -1))",
        REFUSED_REQUESTS,
    ),
    (
        "content.read",
        "(call $content_read (i32.const 1) @'c' @out)",
        "(call $content_read (i32.const 1) @'c' @'k')",
        REFUSED_REQUESTS,
    ),
    (
        "backfill.open",
        "(call $backfill_open (i32.const -1))",
        "(call $backfill_open (i32.const -1))",
        HOST_CALLS,
    ),
    ("backfill.close", "", "(call $backfill_close)", HOST_CALLS),
];

const TRAP: Expected = Undone(TrapKind::Trap, "wasm `unreachable` instruction executed");
const HOST_CALLS: Expected = Undone(TrapKind::HostCalls, "more than 10000 calls of the host in one call");
const REFUSED_REQUESTS: Expected = Undone(
    TrapKind::HostCalls,
    "more than 256 refused requests that have not been answered yet",
);
const TOO_MUCH_AT_ONCE: Expected = Undone(TrapKind::Bytes, "more data at once than the host takes from a module");
const OUT_OF_TIME: Expected = Undone(TrapKind::Time, "used more than 10 ms of CPU time in one call");

/// Imports that take bytes or text, each with too much of it. All of it lies in the guest's memory.
const TOO_LARGE: &[(&str, &str)] = &[
    ("room.send", "(call $send_all @huge)"),
    (
        "room.send to a list",
        "(call $send (i32.const 4) (i32.const 0) (i32.const 0x300000) @'1')",
    ),
    ("room.publish", "(call $publish_all @'k' @huge)"),
    ("room.publish, the key", "(call $publish_all @huge @'1')"),
    ("room.kick", "(call $kick (i32.const 1) @huge)"),
    ("room.add-bot", "(call $add_bot @huge (i32.const 800))"),
    ("room.set-label", "(call $set_label (i32.const 0) (i32.const 0x80000))"),
    ("room.finish", "(call $finish @huge)"),
    ("log.write", "(call $log (i32.const 1) @huge)"),
    ("mail.tell", "(call $tell (i32.const 1) @'t' @huge)"),
    (
        "mail.transfer",
        "(call $transfer (i32.const 1) (i32.const 1) @'t' @huge)",
    ),
    ("mail.say", "(call $say @'room:lobby' @huge)"),
    ("mail.claim", "(call $claim (i32.const 1) @huge)"),
    ("mail.release", "(call $release @huge)"),
    (
        "storage.read",
        "(call $storage_read (i32.const 1) (i32.const 0) @'' @'c' @huge)",
    ),
    (
        "storage.write",
        "(call $storage_write (i32.const 1) (i32.const 0) @'' @'c' @'k' (i32.const 1) @huge (i32.const 0) @'')",
    ),
    (
        "storage.scan",
        "(call $storage_scan (i32.const 1) (i32.const 0) @'' @'c' @huge (i32.const 1))",
    ),
    ("content.read", "(call $content_read (i32.const 1) @'c' @huge)"),
];

/// What else a message may lead to.
const MESSAGES: &[(&str, &str, Expected)] = &[
    (
        "memory, a little at a time",
        "(loop $again (if (i32.eq (i32.const -1) (memory.grow (i32.const 16))) (then unreachable)) (br $again))",
        Undone(TrapKind::Memory, "gave up after it was refused memory beyond 67108864 bytes"),
    ),
    (
        "memory, all at once",
        "(if (i32.eq (i32.const -1) (memory.grow (i32.const 60000))) (then unreachable))",
        Undone(TrapKind::Memory, "gave up after it was refused memory beyond 67108864 bytes"),
    ),
    (
        "memory, refused and borne",
        "(drop (memory.grow (i32.const 60000)))",
        Borne,
    ),
    (
        "memory, asked for without end",
        "(loop $again (drop (memory.grow (i32.const 16))) (br $again))",
        OUT_OF_TIME,
    ),
    (
        "recursion on the engine's stack",
        "(drop (call $down (i32.const 0)))",
        Undone(TrapKind::Trap, "call stack exhausted"),
    ),
    (
        "recursion on the shadow stack",
        "(call $shadow (i32.const 0))",
        Undone(TrapKind::Trap, "out of bounds memory access"),
    ),
    (
        "a read outside of memory",
        "(drop (i32.load (i32.const -4)))",
        Undone(TrapKind::Trap, "out of bounds memory access"),
    ),
    (
        "a call of what is no function",
        "(call_indirect $t (i32.const 3))",
        Undone(TrapKind::Trap, ""),
    ),
    (
        "a division by zero",
        "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
        Undone(TrapKind::Trap, "integer divide by zero"),
    ),
    (
        "an audience that there is not",
        "(call $send (i32.const 7) (i32.const 0) (i32.const 0) @'1')",
        Undone(TrapKind::Trap, ""),
    ),
    (
        "text that is none",
        "(i32.store (i32.const 800) (i32.const -1)) (call $log (i32.const 1) (i32.const 800) (i32.const 4))",
        Undone(TrapKind::Trap, ""),
    ),
    (
        "JSON that is none",
        "(call $send_all @'{')",
        Undone(TrapKind::BadOutput, "what was sent is not one JSON text"),
    ),
    (
        "an outcome that is no JSON",
        "(call $finish @'won')",
        Undone(TrapKind::BadOutput, "the outcome is not one JSON text"),
    ),
    (
        "many timers",
        "(loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (call $set_timer (local.get $i) (i32.const 60000)) (br $again))",
        Undone(TrapKind::HostCalls, "more than 1024 timers"),
    ),
    (
        "many published keys",
        "(loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (i32.store8 (i32.const 800) (i32.and (local.get $i) (i32.const 63)))
            (i32.store8 (i32.const 801) (i32.and (i32.shr_u (local.get $i) (i32.const 6)) (i32.const 63)))
            (call $publish_all (i32.const 800) (i32.const 2) @'1') (br $again))",
        Undone(TrapKind::Bytes, "more than 1024 published keys"),
    ),
    (
        "many bytes, a little at a time",
        "(memory.fill (i32.const 131072) (i32.const 32) (i32.const 50000)) (i32.store8 (i32.const 131072) (i32.const 49))
         (loop $again (call $send_all (i32.const 131072) (i32.const 50000)) (br $again))",
        Undone(TrapKind::Bytes, "more than 1048576 bytes to the host in one call"),
    ),
    (
        "a label of many keys",
        "(call $set_label (i32.const 131072) (i32.const 17))",
        Undone(TrapKind::Bytes, "a label of more than 16 keys"),
    ),
    (
        "all that may be said in one call",
        "(loop $again (call $send_all @'1') (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 2000))))",
        Borne,
    ),
    (
        "all bots that there is room for",
        "(loop $again (call $add_bot @'b' (i32.const 800)) (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 2000))))",
        Borne,
    ),
];

/// What bodies need beside themselves.
const ITEMS: &str = "
    (table $t 1 funcref)
    (func $spin (param $n i32)
      (if (i32.eqz (local.get $n)) (then (return)))
      (loop $again (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
    (func $down (param $n i32) (result i32)
      (i32.add (call $down (i32.add (local.get $n) (i32.const 1))) (local.get $n)))
    (global $sp (mut i32) (i32.const 65536))
    (func $shadow (param $n i32)
      (global.set $sp (i32.sub (global.get $sp) (i32.const 512)))
      (i32.store (global.get $sp) (local.get $n))
      (call $shadow (i32.load (global.get $sp)))
      (global.set $sp (i32.add (global.get $sp) (i32.const 512))))";

/// Whatever starts, sets a timer, writes itself a letter and asks for something: so `timer`, `receive` and `answer` are reached.
const START: &str = "(call $set_timer (i32.const 1) (i32.const 0))
    (call $tell (i32.const 1) (local.get $id) (local.get $id_len) @'1')
    (call $storage_read (i32.const 2) (i32.const 0) @'' @'c' @'k')";

/// A guest that does no harm, but has everything that others need for theirs.
pub(super) fn harmless() -> Guest {
    let mut guest = Guest::new("hostile").json().ticking(20).pages(4);
    guest.max_players = 5_000;
    guest.with(ITEMS).on("start", format!("{START} (call $ok)"))
}

fn guest(export: &'static str, body: &str) -> Guest {
    let body = body
        .replace("@out", "(i32.const 0x7ffffff0) (i32.const 64)")
        .replace("@huge", "(i32.const 0) (i32.const 0xf00000)");
    let mut guest = harmless();
    if export == "save" {
        guest.durability = Durability::Stored as u8;
    }
    // What a call that comes back has to return.
    guest.on(
        export,
        match export {
            "start" => format!("{START} {body} (call $ok)"),
            "join" => format!("{body} (call $ok)"),
            "save" => format!("{body} (call $bytes (i32.const 0) (i32.const 0))"),
            _ => body,
        },
    )
}

/// All of them.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, export: &'static str, guest: Guest, expected: Expected| {
        cases.push(Case {
            name,
            export,
            trigger: export,
            guest,
            expected,
        });
    };
    for export in EXPORTS {
        add(format!("a loop in {export}"), export, guest(export, LOOP), OUT_OF_TIME);
        add(
            format!("a trap in {export}"),
            export,
            guest(export, "unreachable"),
            TRAP,
        );
    }
    for (import, nonsense, again, flood) in IMPORTS {
        let expected = match nonsense.contains("@out") || nonsense.contains("0x7fff") {
            true => Undone(TrapKind::Trap, "out of bounds"),
            false => Borne,
        };
        if !nonsense.is_empty() {
            add(
                format!("nonsense for {import}"),
                "message",
                guest("message", nonsense),
                expected,
            );
        }
        let body = format!("(loop $again {again} (br $again))");
        add(
            format!("a flood of {import}"),
            "message",
            guest("message", &body),
            *flood,
        );
    }
    for (import, body) in TOO_LARGE {
        let guest = guest("message", body).pages(256);
        add(format!("too much for {import}"), "message", guest, TOO_MUCH_AT_ONCE);
    }
    for (name, body, expected) in MESSAGES {
        add((*name).to_owned(), "message", guest("message", body), *expected);
    }

    let grown = "(loop $again
        (if (i32.eq (i32.const -1) (table.grow $t (ref.null func) (i32.const 10000))) (then unreachable)) (br $again))";
    let refused = "gave up after it was refused memory beyond 67108864 bytes";
    add(
        "a table".into(),
        "tick",
        guest("tick", grown).declining_images(),
        Fatal(TrapKind::Memory, refused),
    );
    let lie = guest("message", "").on("start", format!("{START} (global.set $lie (i32.const 1)) (call $ok)"));
    add("an allocator that lies".into(), "join", lie, Undone(TrapKind::Trap, ""));
    let reason = harmless()
        .pages(64)
        .on("join", "(call $refuse (i32.const 0) (i32.const 0x200000))");
    add("a reason of 2 MiB".into(), "join", reason, TOO_MUCH_AT_ONCE);
    let mut state = harmless()
        .pages(300)
        .on("save", "(call $bytes (i32.const 0) (i32.const 0x1100000))");
    state.durability = Durability::Stored as u8;
    add("a state of 17 MiB".into(), "save", state, TOO_MUCH_AT_ONCE);
    let nowhere = harmless().on("join", "(i32.const 0x7ffffff0)");
    add(
        "a result outside of memory".into(),
        "join",
        nowhere,
        Undone(TrapKind::Trap, ""),
    );
    let copies = "(memory.copy (i32.const 0) (i32.const 1) (i32.const 0x3000000))\n".repeat(200);
    let copier = guest("message", &copies).pages(800);
    add("copies of 48 MiB without a loop".into(), "message", copier, OUT_OF_TIME);

    let lines = "(memory.fill (i32.const 131072) (i32.const 120) (i32.const 4096))
        (loop $again (call $log (i32.const 3) (i32.const 131072) (i32.const 4096))
            (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 100))))";
    add(
        "a hundred long lines in every tick".into(),
        "tick",
        guest("tick", lines),
        Unwritten,
    );
    let slow = format!("(call $spin (i32.mul (local.get $len) (i32.const {SPINS_A_BYTE})))");
    add("as slow as it may be".into(), "message", guest("message", &slow), Slow);
    let storm = "(loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (call $set_timer (i32.add (local.get $i) (i32.const 1)) (i32.const 300)) (br_if $again (i32.lt_u (local.get $i) (i32.const 500))))";
    let storm = guest("start", storm).on("timer", "(call $spin (i32.const 6000000))");
    add("five hundred slow timers at once".into(), "timer", storm, Borne);
    add("fifty megabytes to put back".into(), "message", hoard(48), TRAP);
    add(
        "fifty megabytes written anew without end".into(),
        "message",
        rewriting(48),
        Borne,
    );
    cases.push(Case {
        name: "everybody thrown out, slowly".into(),
        export: "leave",
        trigger: "message",
        guest: thrown_out(6_000_000),
        expected: Borne,
    });
    cases
}

/// Turns of a loop for each byte of a message to the guest that is as slow as it is told to be: some hundred bytes are a call's time.
const SPINS_A_BYTE: u32 = 65_536;

/// Fills a megabyte of its memory with what no image makes small.
const FILL: &str = "
    (global $filled (mut i32) (i32.const 0))
    (global $noise (mut i64) (i64.const 88172645463325252))
    (func $fill (param $mib i32) (local $at i32)
      (local.set $at (i32.shl (i32.add (local.get $mib) (i32.const 1)) (i32.const 20)))
      (loop $again
        (global.set $noise (i64.xor (global.get $noise) (i64.shl (global.get $noise) (i64.const 13))))
        (global.set $noise (i64.xor (global.get $noise) (i64.shr_u (global.get $noise) (i64.const 7))))
        (global.set $noise (i64.xor (global.get $noise) (i64.shl (global.get $noise) (i64.const 17))))
        (i64.store (local.get $at) (global.get $noise))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $again (i32.and (local.get $at) (i32.const 0xfffff)))))";

/// Fills its memory, a megabyte a message, and traps from then on.
pub(super) fn hoard(mib: u32) -> Guest {
    let fill = format!(
        "(if (i32.ge_u (global.get $filled) (i32.const {mib})) (then unreachable))
         (call $fill (global.get $filled)) (global.set $filled (i32.add (global.get $filled) (i32.const 1)))"
    );
    guest("message", &fill).pages(16 * (mib + 2)).with(FILL)
}

/// Fills six megabytes a message, and begins anew after as many as this.
fn rewriting(mib: u32) -> Guest {
    let fill = format!(
        "(loop $again (call $fill (global.get $filled))
           (global.set $filled (i32.rem_u (i32.add (global.get $filled) (i32.const 1)) (i32.const {mib})))
           (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 6))))"
    );
    guest("message", &fill).pages(16 * (mib + 2)).with(FILL)
}

/// Fills its seats with bots at a message, and throws all of them out; each leaving takes so many turns of a loop.
fn thrown_out(spins: u32) -> Guest {
    let all = "(loop $again (call $add_bot @'b' (i32.const 800)) (call $kick (i32.load (i32.const 804)) @'')
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 400))))";
    guest("message", all).on("leave", format!("(call $spin (i32.const {spins}))"))
}
