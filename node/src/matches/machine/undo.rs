//! That a match goes on after a call that was cut off as if the match logic had not been asked, and that playing it again from its
//! records gives the same match.

use bytes::Bytes;
use proptest::prelude::*;
use rookery_protocol::client::Role;
use rookery_protocol::{MatchId, PlayerId};

use super::super::event::{Event, Outcome, Stamp, TrapKind, Traveller};
use super::super::journal::{Journal, Recorded, Records};
use super::super::part::StartRecord;
use super::stage::{Stage, module, start_record};
use super::tests::{event_of, happenings, puppet};
use super::{Applied, Diverged, Divergence, GivenUp, Match};
use crate::wasm::Module;
use crate::wasm::testing::Guest;

/// Counts its messages in its own memory, tells the count, and traps after counting when it is told to.
fn counter() -> Guest {
    Guest::new("counter").on(
        "message",
        "(i32.store8 (i32.const 800) (i32.add (i32.load8_u (i32.const 800)) (i32.const 1)))
         (drop (call $bits)) (call $set_timer (i32.const 1) (i32.const 500))
         (if (i32.eq (i32.load8_u (local.get $ptr)) (i32.const 33)) (then unreachable))
         (call $send_all (i32.const 800) (i32.const 1))",
    )
}

fn started(guest: &Guest) -> Stage {
    let mut stage = Stage::remembering(guest);
    stage.apply(Event::Start);
    assert_eq!(stage.record().outcome, Outcome::Applied);
    stage
}

/// A journal as another machine would read it.
fn records(journal: &Journal) -> Vec<Recorded> {
    let records = Records::read(journal.encode().into()).unwrap();
    records.collect::<Result<_, _>>().unwrap()
}

/// Played again from the start.
fn played(module: &Module, start: StartRecord, records: Vec<Recorded>) -> Result<Match, Diverged> {
    let mut again = Match::create(module, start).unwrap();
    let mut applied = Applied::default();
    for recorded in records {
        again.replay(recorded, &mut applied)?;
    }
    Ok(again)
}

/// The match played again from its base.
fn played_again(game: &Match, module: &Module) -> Match {
    let history = game.history().unwrap();
    let mut again = Match::at(module, history.part().clone(), history.image()).unwrap();
    let mut applied = Applied::default();
    for recorded in records(history.journal()) {
        again.replay(recorded, &mut applied).unwrap();
    }
    again
}

#[test]
fn a_call_that_traps_is_undone_and_the_match_goes_on() {
    let mut stage = started(&counter());
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b".");
    assert_eq!(stage.heard(), ["everyone \u{1}"]);
    let random = stage.game.part().random.clone();
    stage.say(seat, b"!");
    assert_eq!(stage.record().outcome, Outcome::Trapped(TrapKind::Trap));
    assert_eq!(stage.last.given_up, None);
    assert!(stage.heard().is_empty() && stage.game.is_running());
    assert_eq!(stage.game.part().random, random);
    assert!(!stage.failure().backtrace.is_empty(), "it says where");
    stage.say(seat, b".");
    assert_eq!(stage.heard(), ["everyone \u{2}"], "the one that trapped did not count");
}

#[test]
fn a_call_that_runs_out_of_time_is_undone_too() {
    let guest = Guest::new("thinker").on(
        "message",
        "(i32.store8 (i32.const 800) (i32.add (i32.load8_u (i32.const 800)) (i32.const 1)))
         (if (i32.eq (i32.load8_u (local.get $ptr)) (i32.const 33)) (then (loop $again (br $again))))
         (call $send_all (i32.const 800) (i32.const 1))",
    );
    let mut stage = started(&guest);
    let seat = stage.join(1, Role::Player);
    for (said, heard) in [
        (b".", "everyone \u{1}"),
        (b"!", ""),
        (b".", "everyone \u{2}"),
        (b"!", ""),
    ] {
        stage.say(seat, said);
        assert_eq!(stage.heard().concat(), heard);
    }
    assert_eq!(stage.record().outcome, Outcome::Trapped(TrapKind::Time));
    assert!(stage.game.is_running());
}

#[test]
fn with_too_many_failures_in_a_while_the_match_fails_and_with_fewer_it_does_not() {
    let play = |every_ms: u64| {
        let mut stage = Stage::with(&counter(), |start| {
            start.limits.traps_max = 3;
            start.limits.traps_window_ms = 1_000;
        });
        stage.game.remember();
        stage.apply(Event::Start);
        let seat = stage.join(1, Role::Player);
        let failures = (1..=20).take_while(|_| {
            stage.now_ms += every_ms;
            stage.say(seat, b"!");
            stage.game.is_running()
        });
        (failures.count(), stage)
    };
    let (undone, stage) = play(300);
    assert_eq!(undone, 2);
    assert_eq!(stage.last.given_up, Some(GivenUp::TooOften));
    assert_eq!(play(600).0, 20);
}

#[test]
fn without_anything_kept_the_first_failure_is_the_end() {
    let mut stage = Stage::started(&counter());
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"!");
    assert!(matches!(stage.last.given_up, Some(GivenUp::Forgetful(_))));
    assert!(!stage.game.is_running());
}

#[test]
fn a_start_that_fails_is_not_undone() {
    let mut stage = Stage::remembering(&Guest::new("stillborn").on("start", "unreachable"));
    stage.apply(Event::Start);
    assert_eq!(stage.last.given_up, Some(GivenUp::AtTheStart));
    assert!(!stage.game.is_running());
}

#[test]
fn a_save_that_fails_leaves_the_match_playing() {
    let guest = counter().on(
        "save",
        "(i32.store8 (i32.const 800) (i32.const 100)) (if (i32.load8_u (i32.const 801)) (then unreachable))
         (i32.store8 (i32.const 801) (i32.const 1)) (call $bytes @'state')",
    );
    let mut stage = started(&guest);
    let seat = stage.join(1, Role::Player);
    assert_eq!(stage.save().unwrap(), Bytes::from_static(b"state"));
    stage.say(seat, b".");
    assert_eq!(stage.heard(), ["everyone e"], "what a save does to the memory stays");
    assert_eq!(stage.save().unwrap_err().kind, TrapKind::Trap);
    assert!(stage.game.is_running());
    stage.say(seat, b".");
    assert_eq!(stage.heard(), ["everyone f"]);
}

#[test]
fn who_is_not_let_in_because_the_match_logic_failed_can_try_again_and_goes_back_where_they_came_from() {
    let guest = Guest::new("fragile").on(
        "join",
        "(drop (call $bits)) (call $add_bot @'b' (i32.const 820)) (call $send_all @'hi')
         (if (i32.eq (local.get $len) (i32.const 1)) (then unreachable)) (call $ok)",
    );
    let mut stage = started(&guest);
    let before = stage.game.part().clone();
    let stamp = Stamp {
        from: MatchId::from_u128(5),
        number: 1,
        held: 1,
    };
    let traveller = |ctx: &'static [u8]| Traveller {
        player: PlayerId::from_u128(1),
        name: "p1".into(),
        role: Role::Player,
        team: None,
        attachment: None,
        is_away: false,
        ctx: Bytes::from_static(ctx),
    };
    stage.apply(Event::Arrive {
        stamp,
        traveller: traveller(b"!"),
    });
    assert!(matches!(stage.record().outcome, Outcome::Trapped(_)));
    let part = stage.game.part();
    assert!(
        part.mark(stamp.from).refused.contains(&1),
        "the sender hears that they were not let in"
    );
    assert_eq!(
        part.admit(PlayerId::from_u128(1), Role::Player),
        before.admit(PlayerId::from_u128(1), Role::Player)
    );
    assert_eq!((part.next_seat, part.last_seq()), (before.next_seat, before.last_seq()));
    // Whoever comes back from a transfer sits, though the match logic does not know: nobody else has them.
    stage.apply(Event::Return {
        traveller: traveller(b"!"),
    });
    assert!(matches!(stage.record().outcome, Outcome::Trapped(_)));
    let seat = stage.game.part().seat_of(PlayerId::from_u128(1)).unwrap();
    assert_eq!(stage.heard(), [format!("!{seat} +{seat}:p1")]);
    assert_eq!(
        stage.last.follow_ups.len(),
        1,
        "they have no connection, so they are away"
    );
    assert!(stage.game.is_running());
}

#[test]
fn a_player_whose_transfer_was_refused_comes_back_though_the_answer_trapped() {
    let guest = Guest::new("sender")
        .on(
            "message",
            "(call $transfer (i32.const 7) (local.get $seat) @'there' @'ctx')",
        )
        .on("answer", "unreachable");
    let mut stage = started(&guest);
    let seat = stage.join(1, Role::Player);
    stage.say(seat, b"");
    let (effect, _) = stage.last.effects[0];
    let leave = stage.last.follow_ups.remove(0);
    stage.apply(leave);
    stage.apply(Event::Answer {
        request: 7,
        effect: Some(effect),
        outcome: Err("refused".into()),
    });
    assert!(matches!(stage.record().outcome, Outcome::Trapped(_)));
    assert!(stage.game.part().outbox().is_empty());
    let back = stage.last.follow_ups.remove(0);
    assert!(matches!(back, Event::Return { .. }));
    stage.apply(back);
    assert!(stage.game.part().seat_of(PlayerId::from_u128(1)).is_some());
    assert!(
        stage
            .game
            .part()
            .pending()
            .all(|event| !matches!(event, Event::Return { .. }))
    );
}

#[test]
fn a_replay_says_where_it_differs() {
    let guest = counter();
    let mut stage = started(&guest);
    let mut journal = Journal::after(0, 0);
    let mut note = |stage: &Stage| journal.push(stage.record(), stage.last.sum().value());
    note(&stage);
    let seat = stage.join(1, Role::Player);
    note(&stage);
    for said in [b".", b"!", b"."] {
        stage.say(seat, said);
        note(&stage);
    }
    let module = module(&guest);
    let good = records(&journal);
    let play = |records: Vec<Recorded>| played(&module, start_record(&module), records);
    let mut again = play(good.clone()).unwrap();
    assert_eq!(again.state_hash(), stage.game.state_hash());
    let changed = |change: &dyn Fn(&mut Vec<Recorded>)| {
        let mut records = good.clone();
        change(&mut records);
        play(records).err().unwrap()
    };
    let outputs = changed(&|records| records[4].sum ^= 4);
    assert_eq!((outputs.event, outputs.how), (5, Divergence::Outputs));
    let applied = changed(&|records| records[3].outcome = Outcome::Applied);
    assert_eq!(applied.event, 4);
    assert!(matches!(applied.how, Divergence::Outcome { .. }), "{applied}");
    let undone = changed(&|records| records[2].outcome = Outcome::Trapped(TrapKind::Trap));
    assert_eq!((undone.event, undone.how), (3, Divergence::Outputs));
    let missing = changed(&|records| drop(records.remove(2)));
    assert_eq!((missing.event, missing.how), (4, Divergence::Order));
}

/// The same guest with its traps taken out: told to trap, it returns before it has done anything.
fn harmless() -> Guest {
    puppet().on(
        "message",
        "(if (i32.and (i32.eq (i32.load8_u (local.get $ptr)) (i32.const 15))
                      (i32.eq (i32.load8_u (i32.add (local.get $ptr) (i32.const 1))) (i32.const 1))) (then return))
         (call $do (local.get $seat) (i32.load8_u (local.get $ptr)) (i32.load8_u (i32.add (local.get $ptr) (i32.const 1)))
               (local.get $ptr) (local.get $len))",
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// What happens is random, and some of it traps.
    #[test]
    fn a_match_with_traps_is_that_without_the_guests_share_and_its_replay_is_the_same(
        seed in any::<u64>(),
        script in happenings(),
        new_base_at in 0_usize..60,
    ) {
        thread_local! {
            static MODULES: (Module, Module) = (module(&puppet()), module(&harmless()));
        }
        MODULES.with(|(module, harmless)| {
            let start = |module: &Module| {
                let mut start = start_record(module);
                start.seed = seed;
                start.limits.traps_max = u32::MAX;
                start
            };
            let create = |module: &Module| {
                let mut game = Match::create(module, start(module)).unwrap();
                game.remember();
                game
            };
            let (mut game, mut other) = (create(module), create(harmless));
            let mut journal = Journal::after(0, 0);
            let (mut applied, mut elsewhere) = (Applied::default(), Applied::default());
            let mut now_ms = 0;
            let mut pending: std::collections::VecDeque<Event> = [Event::Start].into();
            for (index, (later_ms, happening)) in script.into_iter().enumerate() {
                now_ms += u64::from(later_ms);
                if index == new_base_at {
                    game.renew_base();
                }
                pending.extend(event_of(&happening, game.part(), now_ms));
                while let Some(event) = pending.pop_front() {
                    game.apply(now_ms, event.clone(), &mut applied);
                    other.apply(now_ms, event, &mut elsewhere);
                    journal.push(&applied.record, applied.sum().value());
                    // The host cuts off some things by itself, in both.
                    prop_assert!(applied.given_up.is_none(), "{:?}", applied.given_up);
                    prop_assert_eq!(&applied.outputs, &elsewhere.outputs);
                    prop_assert_eq!(&applied.effects, &elsewhere.effects);
                    prop_assert_eq!(game.part().comparable(), other.part().comparable());
                    pending.extend(applied.follow_ups.drain(..));
                }
            }
            let hash = game.state_hash();
            prop_assert!(hash.is_some());
            let mut from_start = played(module, start(module), records(&journal)).unwrap();
            for again in [&mut played_again(&game, module), &mut from_start] {
                prop_assert_eq!(again.part(), game.part());
                prop_assert_eq!(again.state_hash(), hash);
                prop_assert_eq!(again.is_running(), game.is_running());
            }
            Ok(())
        })?;
    }
}
