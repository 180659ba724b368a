//! The journal of a match, as a recording brings it.

use bytes::Bytes;

use crate::matches::event::{Event, Outcome, Record, Topic, TrapKind};
use crate::matches::journal::{Journal, Records};

/// Reads a journal to its end or to the first thing that cannot be; what was read is written, and read again as the same.
pub fn journal(input: &[u8]) {
    drop(Records::read(Bytes::copy_from_slice(input)));
    let Ok(records) = Records::read([&[1], input].concat().into()) else {
        return;
    };
    let (no, at_ms) = records.after();
    let (mut again, mut read) = (Journal::after(no, at_ms), Vec::new());
    for recorded in records.map_while(Result::ok) {
        let record = Record {
            no: recorded.no,
            at_ms: recorded.at_ms,
            event: recorded.event.clone(),
            outcome: recorded.outcome,
            answers: Vec::new(),
        };
        again.push(&record, recorded.sum);
        read.push(recorded);
    }
    let written: Result<Vec<_>, _> = again.records().collect();
    assert_eq!(written.as_ref(), Ok(&read));
}

/// A short match.
pub fn journal_seeds() -> Vec<Vec<u8>> {
    let data = Bytes::from_static(b"{}");
    let topic = Topic::Operator { data: "x".into() };
    let events = [
        (Event::Start, Outcome::Applied, 7),
        (Event::Tick { elapsed_ms: 50 }, Outcome::Applied, 0),
        (
            Event::Message { seat: 1, n: 1, data },
            Outcome::Trapped(TrapKind::Time),
            0,
        ),
        (Event::Signal { topic }, Outcome::Refused, 9),
        (Event::Timer { id: 300 }, Outcome::Stale, 0),
    ];
    let mut journal = Journal::after(0, 0);
    for (index, (event, outcome, sum)) in events.into_iter().enumerate() {
        let record = Record {
            no: index as u64 + 1,
            at_ms: 50 * index as u64,
            event,
            outcome,
            answers: Vec::new(),
        };
        journal.push(&record, sum);
    }
    vec![journal.encode()[1..].to_vec()]
}
