use proptest::prelude::*;
use rookery_protocol::client::Role;
use rookery_protocol::output::Attachment;
use rookery_protocol::{PlayerId, SessionId};

use super::super::event::{EndReason, Entry, Occupant, Stamp, Topic, Traveller};
use super::*;

fn record(no: u64, at_ms: u64, event: Event, outcome: Outcome) -> Record {
    Record {
        no,
        at_ms,
        event,
        outcome,
        answers: Vec::new(),
    }
}

fn tick() -> Event {
    Event::Tick { elapsed_ms: 50 }
}

fn attachment() -> Attachment {
    Attachment {
        number: 1_700_000_000_000,
        session: SessionId::from_u128(3),
        node: "rook-1".parse().unwrap(),
        generation: 7,
    }
}

fn player() -> PlayerId {
    PlayerId::from_u128(9)
}

fn traveller() -> Traveller {
    Traveller {
        player: player(),
        name: "Bo".into(),
        role: Role::Player,
        team: Some(1),
        attachment: None,
        is_away: true,
        ctx: Bytes::from_static(b"ctx"),
    }
}

/// One of each kind.
fn every_event() -> Vec<Event> {
    let effect = EffectId {
        incarnation: 1,
        event: 300,
        index: 2,
    };
    let stamp = Stamp {
        from: MatchId::from_u128(4),
        number: 5,
        held: 5,
    };
    let topics = [
        Topic::SeatAway { seat: 1 },
        Topic::Operator { data: "x".into() },
        Topic::ContentChanged {
            collection: "c".into(),
            key: "k".into(),
        },
    ];
    let entry = Entry {
        key: "k".into(),
        data: Bytes::from_static(b"v"),
        version: "1".into(),
    };
    let mut events = vec![
        Event::Start,
        Event::Save,
        tick(),
        Event::Timer { id: u32::MAX },
        Event::Settled { effect },
        Event::Addressed {
            effect,
            to: MatchId::from_u128(u128::MAX),
        },
        Event::Resync { seat: 3, attach: None },
        Event::Resync {
            seat: 3,
            attach: Some(attachment()),
        },
        Event::Load {
            saved_by: "1.0.0".into(),
            state: Bytes::from_static(b"state"),
        },
        Event::Join {
            seat: 1,
            occupant: Occupant {
                player: player(),
                name: "Ana".into(),
                role: Role::Spectator,
                team: None,
                attachment: attachment(),
            },
            ctx: Bytes::new(),
        },
        Event::Message {
            seat: 70_000,
            n: 1 << 40,
            data: Bytes::from_static(&[0, 255, 128]),
        },
        Event::Receive {
            sender: "m".into(),
            data: Bytes::from_static(b"d"),
            stamp: Some(stamp),
        },
        Event::Arrive {
            stamp,
            traveller: traveller(),
        },
        Event::Return { traveller: traveller() },
        Event::Answer {
            request: 1,
            effect: Some(effect),
            outcome: Ok(vec![entry]),
        },
        Event::Answer {
            request: 1,
            effect: None,
            outcome: Err("busy".into()),
        },
        Event::Unreserve { player: player() },
        Event::Kick {
            seat: 2,
            reason: "rude".into(),
        },
        Event::End {
            reason: EndReason::Operator,
        },
    ];
    events.extend(LEAVE_REASONS.map(|reason| Event::Leave { seat: 2, reason }));
    events.extend(topics.map(|topic| Event::Signal { topic }));
    events
}

fn outcomes() -> Vec<Outcome> {
    let trapped = TrapKind::ALL.map(Outcome::Trapped);
    [Outcome::Applied, Outcome::Refused, Outcome::Stale]
        .into_iter()
        .chain(trapped)
        .collect()
}

fn read(journal: &Journal) -> Vec<Recorded> {
    let records = Records::read(journal.encode().into()).unwrap();
    records.collect::<Result<_, _>>().unwrap()
}

#[test]
fn every_kind_of_event_and_outcome_is_read_as_it_was_written() {
    let mut journal = Journal::after(6, 1_000);
    let (mut expected, mut no) = (Vec::new(), 6);
    for event in every_event() {
        for outcome in outcomes() {
            for sum in [0, 1, u64::MAX] {
                no += 1;
                let at_ms = 1_000 + no * no;
                journal.push(&record(no, at_ms, event.clone(), outcome), sum);
                expected.push(Recorded {
                    no,
                    at_ms,
                    event: event.clone(),
                    outcome,
                    sum,
                });
            }
        }
    }
    assert_eq!(read(&journal), expected);
    let here: Vec<Recorded> = journal.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(here, expected);
    assert_eq!(journal.events(), expected.len() as u64);
}

#[test]
fn a_tick_that_says_nothing_takes_three_bytes_and_one_that_speaks_eleven() {
    let mut journal = Journal::after(0, 0);
    journal.push(&record(1, 50, tick(), Outcome::Applied), 0);
    assert_eq!(journal.len(), 3);
    journal.push(&record(2, 100, tick(), Outcome::Applied), 77);
    assert_eq!(journal.len(), 3 + 11);
}

#[test]
fn another_version_and_anything_cut_off_are_refused() {
    let mut journal = Journal::after(0, 0);
    for (index, event) in every_event().into_iter().enumerate() {
        journal.push(&record(index as u64 + 1, 10, event, Outcome::Applied), 5);
    }
    let whole = journal.encode();
    let mut newer = whole.clone();
    newer[0] = 2;
    assert_eq!(
        Records::read(newer.into()).unwrap_err(),
        JournalError::Version { found: 2 }
    );
    assert!(Records::read(Bytes::new()).is_err());
    let events = journal.events() as usize;
    for len in 3..whole.len() {
        let records = Records::read(Bytes::copy_from_slice(&whole[..len])).unwrap();
        let read: Vec<_> = records.collect();
        let good = read.iter().filter(|record| record.is_ok()).count();
        assert!(good < events, "cut at {len}");
        assert!(read.len() <= good + 1, "nothing is read after an error");
    }
}

#[test]
fn what_no_match_comes_to_is_refused() {
    let named = |event: &Event| {
        let body = rmp_serde::to_vec_named(event).unwrap();
        let mut bytes = vec![1, 0, 0, tag::NAMED | SILENT, 0];
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes
    };
    let far = Event::Kick {
        seat: u32::MAX,
        reason: String::new(),
    };
    let huge = [
        vec![1, 0, 0, tag::MESSAGE | SILENT, 0, 1, 1],
        vec![0xff, 0xff, 0xff, 0xff, 0x0f],
    ]
    .concat();
    let late = [vec![1, 0, 0, tag::START | SILENT], vec![0xff; 9], vec![1]].concat();
    for (bytes, what) in [
        (named(&far), "a seat"),
        (named(&tick()), "an event in another's encoding"),
        (huge, "a length beyond the end"),
        (late, "a time beyond all times"),
        (vec![1, 0, 0, 31, 0], "an unknown kind"),
    ] {
        let mut records = Records::read(bytes.into()).unwrap();
        assert!(records.next().is_some_and(|record| record.is_err()), "{what}");
        assert!(records.next().is_none(), "{what}");
    }
}

#[test]
fn a_sum_tells_outputs_and_effects_apart_and_not_connections() {
    let output = |seq, audience: Audience, body: Body| Output {
        seq,
        at_ms: 5,
        audience,
        body,
    };
    let data = |text: &'static str| Body::Data {
        data: Bytes::from_static(text.as_bytes()),
    };
    let sum = |outputs: &[Output]| {
        let mut sum = Sum::NOTHING;
        outputs.iter().for_each(|output| sum.output(output));
        sum.value()
    };
    let published = |data: Option<&'static str>| Body::Published {
        key: "k".into(),
        data: data.map(|data| Bytes::from_static(data.as_bytes())),
    };
    let sums = [
        sum(&[]),
        sum(&[output(1, Audience::Everyone, data("a"))]),
        sum(&[output(2, Audience::Everyone, data("a"))]),
        sum(&[output(1, Audience::Players, data("a"))]),
        sum(&[output(1, Audience::One(1), data("a"))]),
        sum(&[output(1, Audience::Except(1), data("a"))]),
        sum(&[output(1, Audience::Some([1].into()), data("a"))]),
        sum(&[output(1, Audience::Everyone, data("b"))]),
        sum(&[output(1, Audience::Everyone, published(Some("a")))]),
        sum(&[output(1, Audience::Everyone, published(Some("")))]),
        sum(&[output(1, Audience::Everyone, published(None))]),
        sum(&[
            output(1, Audience::Everyone, data("a")),
            output(2, Audience::Everyone, data("a")),
        ]),
    ];
    assert_eq!(sums[0], 0);
    for (index, one) in sums.iter().enumerate() {
        assert!(index == 0 || *one != 0);
        assert!(sums[index + 1..].iter().all(|other| other != one), "{index}");
    }
    let transfer = |attachment| Effect::Transfer {
        request: 1,
        seat: 1,
        player: player(),
        name: "Bo".into(),
        role: Role::Player,
        team: None,
        attachment,
        is_away: false,
        target: "inn".into(),
        ctx: Bytes::new(),
    };
    let sum = |effect: &Effect| {
        let mut sum = Sum::NOTHING;
        sum.effect(effect);
        sum.value()
    };
    assert_eq!(sum(&transfer(None)), sum(&transfer(Some(attachment()))));
    let say = Effect::Say {
        channel: "a".into(),
        text: "b".into(),
    };
    assert_ne!(sum(&transfer(None)), sum(&say));
}

proptest! {
    /// Whatever stands there, reading ends, and what was read can be written and is read again as the same.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_any(bytes)?;
    }

    #[test]
    fn a_damaged_journal_is_read_or_refused(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut journal = Journal::after(0, 0);
        for (index, event) in every_event().into_iter().enumerate() {
            journal.push(&record(index as u64 + 1, 10, event, Outcome::Refused), 5);
        }
        let mut bytes = journal.encode();
        let at = at.index(bytes.len());
        bytes[at] = to;
        check_any(bytes)?;
    }
}

fn check_any(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let Ok(records) = Records::read(bytes.into()) else {
        return Ok(());
    };
    let (no, at_ms) = records.after();
    let mut again = Journal::after(no, at_ms);
    let read: Vec<Recorded> = records.map_while(Result::ok).collect();
    for recorded in &read {
        let Recorded {
            no,
            at_ms,
            event,
            outcome,
            sum,
        } = recorded.clone();
        again.push(&record(no, at_ms, event, outcome), sum);
    }
    let written: Vec<Recorded> = again.records().collect::<Result<_, _>>().unwrap();
    prop_assert_eq!(written, read);
    Ok(())
}
