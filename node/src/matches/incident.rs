//! A call of the match logic that was cut off, as it is kept for the author: which event it was, what it brought, and where it ended.
//! It is no part of the match: nobody replays it, and it is gone with the room.

use std::collections::VecDeque;

use rookery_protocol::peer::MatchFailure;

use super::event::{Event, Outcome, Topic};
use super::machine::{Applied, GivenUp};
use super::part::StartRecord;

/// Incidents kept of one match. What the author needs is the latest; what happens often is in the metrics.
const KEPT_MAX: usize = 8;

/// The most that is kept of what the event brought.
const INPUT_BYTES_MAX: usize = 256;

/// The latest incidents of one match, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Incidents {
    kept: VecDeque<MatchFailure>,
}

impl Incidents {
    /// Notes an event whose call was cut off.
    pub fn note(&mut self, start: &StartRecord, applied: &Applied) {
        let Some(failure) = &applied.failure else { return };
        debug_assert!(
            matches!(applied.record.outcome, Outcome::Trapped(_)),
            "a failure is recorded as one"
        );
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        let (call, input) = described(&applied.record.event);
        self.kept.push_back(MatchFailure {
            event: applied.record.no,
            at_ms: applied.record.at_ms,
            call: call.to_owned(),
            input,
            kind: failure.kind.as_str().to_owned(),
            message: failure.message.clone(),
            backtrace: failure.backtrace.clone(),
            digest: start.digest,
            undone: applied.given_up.is_none(),
            why_over: applied.given_up.as_ref().map(GivenUp::to_string),
        });
    }

    pub fn kept(&self) -> impl ExactSizeIterator<Item = &MatchFailure> {
        self.kept.iter()
    }

    pub fn last(&self) -> Option<&MatchFailure> {
        self.kept.back()
    }
}

/// The export that an event calls, and what it is given.
fn described(event: &Event) -> (&'static str, String) {
    match event {
        Event::Start => ("start", String::new()),
        Event::Load { saved_by, state } | Event::Upgrade { saved_by, state, .. } => {
            ("load", format!("{} bytes saved by {saved_by}", state.len()))
        }
        Event::Join { seat, ctx, .. } => ("join", format!("seat {seat} {}", shown(ctx))),
        Event::Arrive { traveller, .. } => ("join", format!("of a transfer {}", shown(&traveller.ctx))),
        Event::Return { traveller } => ("join", format!("of who comes back {}", shown(&traveller.ctx))),
        Event::Leave { seat, reason } => ("leave", format!("seat {seat} {}", reason.as_str())),
        Event::Message { seat, n, data } => ("message", format!("seat {seat} n {n} {}", shown(data))),
        Event::Tick { elapsed_ms } => ("tick", format!("{elapsed_ms} ms")),
        Event::Timer { id } => ("timer", format!("id {id}")),
        Event::Receive { sender, data, .. } => ("receive", format!("from {sender} {}", shown(data))),
        Event::Answer { request, outcome, .. } => match outcome {
            Ok(entries) => ("answer", format!("request {request} {} entries", entries.len())),
            Err(error) => ("answer", format!("request {request} {error}")),
        },
        Event::Signal { topic } => match topic {
            Topic::SeatAway { seat } => ("signal", format!("seat.away {seat}")),
            Topic::SeatBack { seat } => ("signal", format!("seat.back {seat}")),
            Topic::Operator { data } => ("signal", format!("operator {}", shown(data.as_bytes()))),
            Topic::MatchResumed { reason } => ("signal", format!("match.resumed {reason}")),
            Topic::ContentChanged { collection, key } => ("signal", format!("content.changed {collection} {key}")),
        },
        Event::Resync { seat, .. } => ("resync", format!("seat {seat}")),
        Event::Save => ("save", String::new()),
        Event::Addressed { .. }
        | Event::Settled { .. }
        | Event::Unreserve { .. }
        | Event::Kick { .. }
        | Event::End { .. } => ("", String::new()),
    }
}

/// The first bytes of what an event brought: text as it is, anything else escaped.
fn shown(data: &[u8]) -> String {
    let cut = &data[..data.len().min(INPUT_BYTES_MAX)];
    let more = if cut.len() < data.len() { "…" } else { "" };
    match std::str::from_utf8(data) {
        Ok(_) => format!("{}{more}", String::from_utf8_lossy(cut).trim_end_matches('\u{fffd}')),
        Err(_) => format!("{}{more}", cut.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_brought_is_shown_as_text_and_cut_between_characters() {
        assert_eq!(shown(br#"{"x":1}"#), r#"{"x":1}"#);
        assert_eq!(shown(&[0, 255]), r"\x00\xff");
        let long = "é".repeat(200);
        let text = shown(long.as_bytes());
        assert!(
            text.ends_with('…') && text.trim_end_matches('…').chars().all(|c| c == 'é'),
            "{text}"
        );
        let odd = format!("a{long}");
        assert!(!shown(odd.as_bytes()).contains('\u{fffd}'));
    }
}
