//! A room that goes on from what was saved or handed over: who sits there, what is asked again, and when it is saved. Rooms and
//! gateways in ordinary times are played by `session::simulation`.

use std::sync::OnceLock;

use rookery_protocol::SessionId;
use rookery_protocol::client::JoinRole;
use rookery_protocol::output::Attachment;
use rookery_protocol::peer::{HandedSeat, Item, JoinRequest, Up, UpBody, WirePayload};

use super::*;
use crate::matches::part::{HostPart, StartRecord};
use crate::wasm::testing::Guest;
use crate::wasm::{Engine, EngineConfig, Module};

fn keeper() -> &'static Module {
    static KEEPER: OnceLock<Module> = OnceLock::new();
    KEEPER.get_or_init(|| {
        let guest = Guest::new("keeper")
            .on("message", "(call $claim (i32.const 3) @'throne')")
            .on("save", "(call $bytes @'state')");
        let engine = Engine::new(EngineConfig::default()).unwrap();
        engine.compile(&guest.component()).unwrap()
    })
}

fn life(name: &str) -> NodeLife {
    NodeLife {
        name: name.parse().unwrap(),
        generation: 1,
    }
}

fn config(epoch: u64) -> RoomConfig {
    RoomConfig {
        leased: true,
        save_every_ms: Some(1_000),
        ..RoomConfig::of_tests(life("owner").name, epoch)
    }
}

/// Counts its messages and tells everyone the count; cannot bear `!` in a message, nor a context, nor to be saved.
fn fragile() -> &'static Module {
    static FRAGILE: OnceLock<Module> = OnceLock::new();
    FRAGILE.get_or_init(|| {
        let guest = Guest::new("fragile")
            .on("join", "(if (local.get $len) (then unreachable)) (call $ok)")
            .on(
                "message",
                "(i32.store8 (i32.const 800) (i32.add (i32.load8_u (i32.const 800)) (i32.const 1)))
                 (call $send_all (i32.const 800) (i32.const 1))
                 (if (i32.eq (i32.load8_u (local.get $ptr)) (i32.const 33)) (then unreachable))",
            )
            .on("save", "unreachable");
        let engine = Engine::new(EngineConfig::default()).unwrap();
        engine.compile(&guest.component()).unwrap()
    })
}

/// A running room.
fn room() -> Room {
    room_of(keeper())
}

fn room_of(module: &Module) -> Room {
    let start = StartRecord::new(MatchId::from_u128(7), module, 1, 0);
    let game = Match::create(module, start).unwrap();
    let mut room = Room::new(game, config(1));
    let mut out = Vec::new();
    room.start(0, &mut out).unwrap();
    room.release(0, &mut out);
    room
}

fn attachment(number: u64, node: &str) -> Attachment {
    Attachment {
        number,
        session: SessionId::from_u128(number.into()),
        node: life(node).name,
        generation: 1,
    }
}

fn player(who: u64) -> PlayerId {
    PlayerId::from_u128(who.into())
}

fn say(room: &mut Room, now_ms: u64, from: &str, body: UpBody) -> Vec<RoomEffect> {
    let mut out = Vec::new();
    let up = Up {
        target: room.id(),
        stream: 1,
        body,
    };
    room.up(now_ms, &life(from), up, &mut out);
    out
}

/// Seats a player whose number is also that of the connection, and returns the seat.
fn join(room: &mut Room, from: &str, who: u64) -> Seat {
    let request = JoinRequest {
        req: who,
        player: player(who),
        name: format!("p{who}"),
        role: JoinRole::Player,
        ctx: WirePayload::Absent,
        attachment: attachment(who, from),
        is_following: false,
    };
    say(room, 0, from, UpBody::Join(Box::new(request)));
    room.game().part().seat_of(player(who)).expect("there is room")
}

fn here(room: &mut Room, from: &str, seat: Seat, number: u64, who: u64) {
    let body = UpBody::Here {
        seats: vec![(seat, number)],
        players: vec![(player(who), SessionId::from_u128(number.into()))],
    };
    say(room, 100, from, body);
}

/// What each gateway is told now.
fn frames(room: &mut Room) -> Vec<(NodeName, DownFrame)> {
    let mut frames = Vec::new();
    room.flush(|gateway, frame| {
        frames.push((gateway.name.clone(), frame));
        true
    });
    frames
}

fn saved(out: &[RoomEffect]) -> Option<SavedState> {
    out.iter().find_map(|effect| match effect {
        RoomEffect::Save(saved) => Some((**saved).clone()),
        _ => None,
    })
}

/// The room that another owner makes of what this one saves now.
fn restored(room: &mut Room) -> (Room, Vec<RoomEffect>) {
    let mut out = Vec::new();
    room.save_now(0, &mut out);
    let saved = saved(&out).expect("it is saved");
    let part = HostPart::decode(&saved.part).unwrap().resumed(1, 0);
    let mut next = Room::new(Match::restore(keeper(), part).unwrap(), config(2));
    let mut out = Vec::new();
    next.load(0, Resumption::Restored, "1.0.0".into(), saved.state, &mut out)
        .unwrap();
    assert!(
        frames(&mut next).is_empty() && out.is_empty(),
        "nothing is said before the row is ours"
    );
    next.release(0, &mut out);
    (next, out)
}

#[test]
fn a_gateway_that_says_who_sits_there_is_told_where_they_go_on() {
    let mut room = room();
    let seat = join(&mut room, "a", 1);
    let (mut room, _) = restored(&mut room);
    here(&mut room, "a", seat, 1, 1);
    let (_, frame) = frames(&mut room).remove(0);
    assert!(frame.items.iter().any(|item| {
        matches!(item, Item::Output(output) if output.seq > 1 << 40 && matches!(output.body, rookery_protocol::output::Body::Joined(_)))
    }));
    assert!(room.speaks_for(seat, 1));
}

#[test]
fn a_connection_that_took_the_seat_after_the_save_has_it() {
    let mut room = room();
    let seat = join(&mut room, "a", 1);
    let (mut room, _) = restored(&mut room);
    here(&mut room, "b", seat, 9, 1);
    assert!(room.speaks_for(seat, 9));
    let held = room.game().part().seat(seat).unwrap().attachment.clone().unwrap();
    assert_eq!(held, attachment(9, "b"));
    // The one before it is told that it has not.
    here(&mut room, "a", seat, 1, 1);
    let told = frames(&mut room);
    let old = told.iter().find(|(gateway, _)| *gateway == life("a").name).unwrap();
    assert_eq!(old.1.items, [Item::Replaced { seat, attachment: 1 }]);
}

#[test]
fn a_seat_that_the_state_does_not_know_is_gone_and_whoever_sits_there_now_is_not_disturbed() {
    let mut room = room();
    let (mut room, _) = restored(&mut room);
    let seat = join(&mut room, "b", 2);
    here(&mut room, "a", seat, 1, 1);
    let told = frames(&mut room);
    let old = told.iter().find(|(gateway, _)| *gateway == life("a").name).unwrap();
    assert_eq!(old.1.items, [Item::Gone { seat, attachment: 1 }]);
    assert!(room.speaks_for(seat, 2));
    // A gateway whose stream stands hears there what became of its seats.
    here(&mut room, "b", 77, 5, 5);
    assert!(
        frames(&mut room)
            .iter()
            .all(|(_, frame)| { frame.items.iter().all(|item| !matches!(item, Item::Gone { .. })) })
    );
}

#[test]
fn a_seat_of_which_nobody_says_anything_is_away_after_ten_seconds() {
    let mut room = room();
    let (heard, silent) = (join(&mut room, "a", 1), join(&mut room, "b", 2));
    let (mut room, _) = restored(&mut room);
    here(&mut room, "a", heard, 1, 1);
    let mut out = Vec::new();
    room.wake(HEARD_WITHIN_MS - 1, || true, &mut out);
    let away = |room: &Room, seat| room.game().part().seat(seat).unwrap().away_since_ms.is_some();
    assert!(!away(&room, silent));
    assert!(room.next_wake_ms().unwrap() <= HEARD_WITHIN_MS);
    room.wake(HEARD_WITHIN_MS, || true, &mut out);
    assert!(away(&room, silent) && !away(&room, heard));
}

#[test]
fn a_request_without_an_answer_is_made_again_under_its_id() {
    let mut room = room();
    let seat = join(&mut room, "a", 1);
    let body = UpBody::Input {
        seat,
        attachment: 1,
        n: 1,
        id: None,
        data: Bytes::new(),
    };
    let out = say(&mut room, 0, "a", body);
    let asked = |out: &[RoomEffect]| -> Vec<EffectId> {
        let ids = out.iter().filter_map(|effect| match effect {
            RoomEffect::Perform { id, .. } => Some(*id),
            _ => None,
        });
        ids.collect()
    };
    let first = asked(&out);
    assert_eq!(first.len(), 1);
    let (_, out) = restored(&mut room);
    assert_eq!(asked(&out), first);
}

#[test]
fn a_room_is_saved_when_it_is_due_and_its_last_state_is_kept() {
    let mut room = room();
    let mut out = Vec::new();
    room.wake(10, || true, &mut out);
    let first = saved(&out).expect("the start is an event");
    room.wake(5_000, || true, &mut out);
    out.clear();
    room.saved(true);
    room.wake(6_000, || true, &mut out);
    assert_eq!(saved(&out), None, "nothing happened since");
    join(&mut room, "a", 1);
    room.end(6_500, EndReason::Operator, &mut out);
    let last = saved(&out).expect("the state of the record");
    assert!(last.event > first.event);
    let over = out.iter().position(|effect| matches!(effect, RoomEffect::Over(_)));
    let save = out.iter().position(|effect| matches!(effect, RoomEffect::Save(_)));
    assert!(save < over, "the state goes before the end");
}

#[test]
fn a_room_that_is_handed_over_goes_on_in_its_streams_where_they_were() {
    let mut room = room();
    let seat = join(&mut room, "a", 1);
    let said = frames(&mut room).remove(0).1;
    say(&mut room, 0, "a", UpBody::Confirm { last: said.last });
    join(&mut room, "b", 2);
    let mut out = Vec::new();
    let handed = room.hand_over(0, &mut out).expect("it runs");
    let stream = handed
        .streams
        .iter()
        .find(|stream| stream.gateway == life("a"))
        .unwrap();
    assert_eq!((stream.number, stream.confirmed), (1, said.last));
    assert!(matches!(stream.seats[..], [HandedSeat { seat: handed, left_at: None, .. }] if handed == seat));

    let part = HostPart::decode(&handed.part).unwrap().resumed(0, 0);
    let mut next = Room::new(Match::restore(keeper(), part).unwrap(), config(2));
    next.take_streams(handed.streams);
    next.load(0, Resumption::Moved, "1.0.0".into(), handed.state, &mut out)
        .unwrap();
    next.release(0, &mut out);
    let told = frames(&mut next);
    let (_, frame) = told.iter().find(|(gateway, _)| *gateway == life("a").name).unwrap();
    assert_eq!((frame.epoch, frame.stream, frame.prev), (2, 1, said.last));
    assert!(
        frame.last > said.last,
        "what the gateway had not confirmed, and what came since"
    );
    assert!(next.speaks_for(seat, 1));
}

#[test]
fn an_upgraded_room_goes_on_in_its_streams_and_is_saved_by_the_new_version() {
    let mut room = room();
    let seat = join(&mut room, "a", 1);
    let said = frames(&mut room).remove(0).1;
    let mut newer = Guest::new("keeper")
        .on("load", "(call $send_all (local.get $ptr) (local.get $len)) (call $ok)")
        .on("save", "(call $bytes @'newer')");
    newer.version = "2.0.0".into();
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let newer = engine.compile(&newer.component()).unwrap();
    let mut out = Vec::new();
    room.upgrade(5_000, &newer, &mut out).unwrap();
    let (_, frame) = frames(&mut room).remove(0);
    assert_eq!((frame.epoch, frame.stream, frame.prev), (1, 1, said.last));
    assert!(frame.items.iter().any(|item| {
        matches!(item, Item::Output(output) if matches!(&output.body, rookery_protocol::output::Body::Data { data } if data == "state"))
    }));
    assert!(room.speaks_for(seat, 1));
    assert_eq!(&*room.config().version, "2.0.0");
    room.wake(6_000, || true, &mut out);
    assert_eq!(saved(&out).expect("an upgrade is an event").state, "newer");
}

#[test]
fn a_room_whose_new_version_fails_hears_why_in_the_words_of_its_log() {
    let mut room = room();
    let broken = Guest::new("keeper").on("load", "(call $log (i32.const 3) @'no gold field') unreachable");
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let broken = engine.compile(&broken.component()).unwrap();
    let mut out = Vec::new();
    let why = room.upgrade(5_000, &broken, &mut out).unwrap_err();
    assert!(
        why.starts_with("the new version failed: trap: ") && why.ends_with("; its log says: no gold field"),
        "{why}"
    );
    assert!(out.is_empty() && room.verdict().is_none());
    join(&mut room, "a", 1);
}

/// Says something with a number, and returns what came of it.
fn input(room: &mut Room, from: &str, seat: Seat, n: u64, id: Option<i64>, data: &'static [u8]) -> Vec<RoomEffect> {
    let body = UpBody::Input {
        seat,
        attachment: u64::from(seat),
        n,
        id,
        data: Bytes::from_static(data),
    };
    say(room, 0, from, body)
}

/// What is said in these frames, but for outputs as a whole.
fn items(frames: &[(NodeName, DownFrame)], gateway: &str) -> Vec<Item> {
    let of_it = frames.iter().filter(|(name, _)| *name == life(gateway).name);
    of_it.flat_map(|(_, frame)| frame.items.clone()).collect()
}

fn data(items: &[Item]) -> Vec<Bytes> {
    let said = items.iter().filter_map(|item| match item {
        Item::Output(output) => match &output.body {
            rookery_protocol::output::Body::Data { data } => Some(data.clone()),
            _ => None,
        },
        _ => None,
    });
    said.collect()
}

fn failures(out: &[RoomEffect]) -> Vec<&MatchFailure> {
    let failures = out.iter().filter_map(|effect| match effect {
        RoomEffect::Failure(failure) => Some(&**failure),
        _ => None,
    });
    failures.collect()
}

#[test]
fn an_input_on_which_the_match_logic_fails_is_used_up_and_only_its_sender_hears_of_it() {
    let mut room = room_of(fragile());
    let (ana, ben) = (join(&mut room, "a", 1), join(&mut room, "b", 2));
    frames(&mut room);
    let out = input(&mut room, "a", ana, 1, Some(7), b"!");
    assert!(failures(&out)[0].undone);
    let told = frames(&mut room);
    let seq = room.game().part().last_seq();
    let failed = Item::Failed {
        seat: ana,
        n: 1,
        id: None,
        reason: "trap".into(),
    };
    let acked = Item::Ack { seat: ana, n: 1, seq };
    assert_eq!(items(&told, "a"), [failed.clone(), acked.clone()]);
    assert_eq!(items(&told, "b"), []);

    // Said again, because the gateway missed the answer, it is answered so again.
    input(&mut room, "a", ana, 1, Some(7), b"!");
    assert_eq!(items(&frames(&mut room), "a"), [failed, acked]);

    // One without a number has its own answer, and none when it asked for none.
    input(&mut room, "a", ana, 0, Some(8), b"!");
    input(&mut room, "a", ana, 0, None, b"!");
    let failed = Item::Failed {
        seat: ana,
        n: 0,
        id: Some(8),
        reason: "trap".into(),
    };
    assert_eq!(items(&frames(&mut room), "a"), [failed]);

    // Everybody plays on, and the counting did not notice.
    input(&mut room, "b", ben, 1, None, b".");
    let told = frames(&mut room);
    for gateway in ["a", "b"] {
        assert_eq!(data(&items(&told, gateway)), [&[1][..]]);
    }
    assert_eq!(room.view().failures.len(), 3);
}

#[test]
fn a_join_on_which_the_match_logic_fails_is_refused_and_the_seat_is_free() {
    let mut room = room_of(fragile());
    let request = JoinRequest {
        req: 5,
        player: player(1),
        name: "p1".into(),
        role: JoinRole::Player,
        ctx: WirePayload::Raw(Bytes::from_static(b"x")),
        attachment: attachment(1, "a"),
        is_following: false,
    };
    let before = room.game().part().last_seq();
    let out = say(&mut room, 0, "a", UpBody::Join(Box::new(request)));
    assert_eq!(failures(&out)[0].call, "join");
    match &items(&frames(&mut room), "a")[..] {
        [Item::Refused { req: 5, refusal }] => assert_eq!(refusal.code, ErrorCode::MatchInputFailed),
        other => panic!("{other:?}"),
    }
    assert_eq!(room.game().part().last_seq(), before);
    assert_eq!(join(&mut room, "a", 1), 1);
}

#[test]
fn a_room_whose_save_fails_plays_on_and_is_not_asked_again_at_once() {
    let mut room = room_of(fragile());
    let seat = join(&mut room, "a", 1);
    let mut out = Vec::new();
    room.wake(10, || true, &mut out);
    assert_eq!(failures(&out)[0].call, "save");
    assert!(saved(&out).is_none());
    out.clear();
    room.wake(5_000, || true, &mut out);
    assert!(failures(&out).is_empty());
    frames(&mut room);
    input(&mut room, "a", seat, 1, None, b".");
    assert_eq!(data(&items(&frames(&mut room), "a")), [&[1][..]]);
}

#[test]
fn timers_of_one_moment_run_as_far_as_there_is_time_and_the_others_stay_due() {
    let set = |id: u32| format!("(call $set_timer (i32.const {id}) (i32.const 50))");
    let guest = Guest::new("alarms")
        .ticking(20)
        .on("start", format!("{} {} {} (call $ok)", set(1), set(2), set(3)))
        .on(
            "timer",
            "(i32.store8 (i32.const 800) (local.get $id)) (call $send_all (i32.const 800) (i32.const 1))",
        )
        .on("tick", "(call $send_all @'tick')");
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut room = room_of(&engine.compile(&guest.component()).unwrap());
    join(&mut room, "a", 1);
    frames(&mut room);
    let mut heard = |has_time: bool| {
        room.wake(50, || has_time, &mut Vec::new());
        let due_ms = room.next_wake_ms().unwrap();
        (data(&items(&frames(&mut room), "a")), due_ms)
    };
    let bytes = |said: &'static [&'static [u8]]| said.iter().map(|said| Bytes::from_static(said)).collect::<Vec<_>>();
    // The tick does not wait for timers that there is no time for.
    assert_eq!(heard(false), (bytes(&[&[1], b"tick"]), 50));
    assert_eq!(heard(false), (bytes(&[&[2]]), 50));
    let (said, due_ms) = heard(true);
    assert_eq!(said, bytes(&[&[3]]));
    assert!(due_ms > 50);
    assert_eq!(room.take_counts().tick_late_ms, Some(0));
}

#[test]
fn a_room_whose_call_was_cut_off_for_its_time_rests() {
    let guest = Guest::new("looper")
        .ticking(20)
        .on("message", "(loop $again (br $again))")
        .on("tick", "(call $send_all @'tick')");
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut room = room_of(&engine.compile(&guest.component()).unwrap());
    let seat = join(&mut room, "a", 1);
    frames(&mut room);
    let out = input(&mut room, "a", seat, 1, None, b".");
    assert_eq!(failures(&out)[0].kind, "time");
    let rests_until_ms = room.rests_until_ms();
    assert!((600..=5_000).contains(&rests_until_ms), "{rests_until_ms}");
    assert_eq!(room.next_wake_ms(), Some(rests_until_ms));
    frames(&mut room);
    room.wake(rests_until_ms - 1, || true, &mut Vec::new());
    assert_eq!(data(&items(&frames(&mut room), "a")), Vec::<Bytes>::new());
    room.wake(rests_until_ms, || true, &mut Vec::new());
    assert_eq!(data(&items(&frames(&mut room), "a")), [&b"tick"[..]]);
    assert!(!room.rests(rests_until_ms));
}

#[test]
fn a_room_whose_every_tick_is_cut_off_frees_seats_and_ends_when_it_is_empty() {
    let guest = Guest::new("looper").ticking(20).on("tick", "(loop $again (br $again))");
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut room = room_of(&engine.compile(&guest.component()).unwrap());
    room.config.empty_after_ms = Some(1_000);
    let seat = join(&mut room, "a", 1);
    room.go_away(0, seat, &mut Vec::new());
    let mut failed = 0;
    // Fewer than would end it for failing too often.
    while room.verdict().is_none() && failed < 40 {
        let mut out = Vec::new();
        room.wake(room.next_wake_ms().unwrap() + 2_000, || true, &mut out);
        failed += failures(&out).len();
    }
    assert!(failed > 0);
    assert_eq!(room.game().part().human_count(), 0);
    assert!(
        matches!(room.verdict(), Some(Verdict::Ended { .. })),
        "{:?}",
        room.verdict()
    );
}

#[test]
fn what_one_event_leads_to_is_done_in_turns() {
    let all = "(loop $again (call $add_bot @'b' (i32.const 800)) (call $kick (i32.load (i32.const 804)) @'')
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 10))))";
    let mut guest = Guest::new("bouncer").on("message", all).on(
        "leave",
        "(i32.store8 (i32.const 800) (local.get $seat)) (call $send_all (i32.const 800) (i32.const 1))",
    );
    guest.max_players = 20;
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut room = room_of(&engine.compile(&guest.component()).unwrap());
    let seat = join(&mut room, "a", 1);
    frames(&mut room);
    let left = |room: &mut Room| {
        data(&items(&frames(room), "a"))
            .iter()
            .map(|data| data[0])
            .collect::<Vec<_>>()
    };
    input(&mut room, "a", seat, 1, None, b".");
    assert_eq!(left(&mut room), [2]);
    assert!(room.is_busy());
    assert_eq!(room.next_wake_ms(), Some(0));
    room.wake(0, || false, &mut Vec::new());
    assert_eq!(left(&mut room), [3]);
    room.wake(0, || true, &mut Vec::new());
    assert_eq!(left(&mut room), [4, 5, 6, 7, 8, 9, 10, 11]);
    assert!(!room.is_busy());
    // Who cannot wait has all of it done at once.
    input(&mut room, "a", seat, 2, None, b".");
    room.finish_busy(0, &mut Vec::new());
    assert_eq!(left(&mut room).len(), 10);
}

#[test]
fn a_room_that_logs_without_end_is_written_of_in_measure() {
    let guest = Guest::new("talker").on(
        "message",
        "(loop $again (call $log (i32.const 3) @'x') (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $i) (i32.const 90))))",
    );
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut room = room_of(&engine.compile(&guest.component()).unwrap());
    let seat = join(&mut room, "a", 1);
    let lines = |out: &[RoomEffect]| {
        out.iter()
            .filter(|effect| matches!(effect, RoomEffect::Log { .. }))
            .count()
    };
    for (n, written) in [(1, 90), (2, 90), (3, 20), (4, 0)] {
        assert_eq!(lines(&input(&mut room, "a", seat, n, None, b".")), written, "{n}");
    }
    assert_eq!(room.take_counts().log_dropped, 160);
}

#[test]
fn a_room_that_fails_too_often_is_over_and_what_led_to_it_is_kept() {
    let mut room = room_of(fragile());
    let seat = join(&mut room, "a", 1);
    let traps_max = u64::from(room.game().part().start().limits.traps_max);
    for n in 1..traps_max {
        let out = input(&mut room, "a", seat, n, None, b"!");
        assert!(failures(&out)[0].undone && room.verdict().is_none());
    }
    let out = input(&mut room, "a", seat, traps_max, None, b"!");
    assert!(!failures(&out)[0].undone);
    assert!(matches!(room.verdict(), Some(Verdict::Failed { reason }) if reason == "trap"));
    let kept = out.iter().filter(|effect| matches!(effect, RoomEffect::Keep(_)));
    assert_eq!(kept.count(), 1);
    assert_eq!(room.view().failures.len(), 8, "the latest");
}
