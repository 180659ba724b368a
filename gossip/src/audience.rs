//! Which groups this node asks the directory about, and what waits to be told to them until the answer has come. Pure.
//!
//! A group is asked about when somebody wants to reach it, and for as long as somebody does. Until the homes of its key have answered,
//! or a deadline has passed, what is to be told waits here in order; both are bounded, and what finds no room is refused.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::directory::Key;
use crate::suspicion::Time;

/// Groups that are asked about at once. Beyond that a broadcast goes to every node that has groups in the directory.
const AUDIENCES_MAX: usize = 16_384;

/// How long an answer is waited for: some round trips, and a lost connection that is dialled again.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What waits for answers: messages of one group, and bytes in all.
const WAITING_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 8 << 20;

/// The kind of thing that a group is in the mesh's own directory.
const GROUP: u8 = 1;

/// The directory's name for a group.
pub(crate) fn key_of(group: &str) -> Key {
    Key::new(GROUP, group.as_bytes())
}

#[derive(Debug, Default)]
pub(crate) struct Audiences {
    table: BTreeMap<Key, Audience>,
    /// Those without an answer, by when they were asked about.
    asking: BTreeSet<(Time, Key)>,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Audience {
    group: String,
    asked_at: Time,
    /// None when the answer has come.
    waiting: Option<VecDeque<Bytes>>,
}

/// What there is to do about a group that somebody wants to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The directory is to be asked.
    Now(Key),
    /// It has been.
    Before,
    /// As many groups as there may be are asked about already.
    TooMany,
}

/// A message that found no room to wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Audiences {
    pub(crate) fn ask(&mut self, now: Time, group: &str) -> Asked {
        let key = key_of(group);
        if self.table.contains_key(&key) {
            return Asked::Before;
        }
        if self.table.len() >= AUDIENCES_MAX {
            return Asked::TooMany;
        }
        let audience = Audience {
            group: group.to_owned(),
            asked_at: now,
            waiting: Some(VecDeque::new()),
        };
        self.table.insert(key, audience);
        self.asking.insert((now, key));
        Asked::Now(key)
    }

    /// Keeps a message until the group's nodes are known.
    pub(crate) fn wait(&mut self, group: &str, message: Bytes) -> Result<(), NoRoom> {
        let audience = self.table.get_mut(&key_of(group)).ok_or(NoRoom)?;
        let waiting = audience.waiting.as_mut().ok_or(NoRoom)?;
        if waiting.len() >= WAITING_MAX || self.waiting_bytes + message.len() > WAITING_BYTES_MAX {
            return Err(NoRoom);
        }
        self.waiting_bytes += message.len();
        waiting.push_back(message);
        Ok(())
    }

    /// The nodes are known: returns what waited for that, in order; none when they were before.
    pub(crate) fn answered(&mut self, key: Key) -> Option<VecDeque<Bytes>> {
        let audience = self.table.get_mut(&key)?;
        let waited = audience.waiting.take()?;
        self.asking.remove(&(audience.asked_at, key));
        self.waiting_bytes -= waited.iter().map(Bytes::len).sum::<usize>();
        Some(waited)
    }

    /// The groups whose answer has not come in time.
    pub(crate) fn late(&self, now: Time) -> Vec<Key> {
        let late = |(asked_at, _): &&(Time, Key)| *asked_at + ANSWER_WITHIN <= now;
        self.asking.iter().take_while(late).map(|(_, key)| *key).collect()
    }

    /// When the first answer is late.
    pub(crate) fn next_late(&self) -> Option<Time> {
        self.asking.first().map(|(asked_at, _)| *asked_at + ANSWER_WITHIN)
    }

    /// The groups without an answer.
    pub(crate) fn asking(&self) -> impl Iterator<Item = Key> {
        self.asking.iter().map(|(_, key)| *key)
    }

    pub(crate) fn is_asking(&self, key: Key) -> bool {
        self.table.get(&key).is_some_and(|audience| audience.waiting.is_some())
    }

    pub(crate) fn group(&self, key: Key) -> Option<&str> {
        self.table.get(&key).map(|audience| audience.group.as_str())
    }

    /// Nobody wants to reach the group any more.
    pub(crate) fn forget(&mut self, key: Key) {
        self.answered(key);
        self.table.remove(&key);
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Bytes {
        vec![0; len].into()
    }

    #[test]
    fn what_waits_comes_out_in_order_and_only_once() {
        let mut audiences = Audiences::default();
        let key = key_of("room");
        assert_eq!(audiences.ask(Time::ZERO, "room"), Asked::Now(key));
        assert_eq!(audiences.ask(Time::ZERO, "room"), Asked::Before);
        for message in [&b"one"[..], b"two"] {
            audiences.wait("room", Bytes::from_static(message)).unwrap();
        }
        assert!(audiences.is_asking(key));
        let waited = audiences.answered(key).unwrap();
        assert_eq!(waited, [&b"one"[..], b"two"]);
        assert_eq!(audiences.answered(key), None);
        assert_eq!(
            audiences.wait("room", bytes(1)),
            Err(NoRoom),
            "it need not wait any more"
        );
        audiences.forget(key);
        assert_eq!(audiences.ask(Time::ZERO, "room"), Asked::Now(key));
    }

    #[test]
    fn an_answer_is_late_after_a_second() {
        let mut audiences = Audiences::default();
        let second = Duration::from_secs(1);
        audiences.ask(Time::ZERO, "a");
        audiences.ask(second / 2, "b");
        assert_eq!(audiences.next_late(), Some(second));
        assert_eq!(audiences.late(second), [key_of("a")]);
        audiences.answered(key_of("a"));
        assert_eq!(audiences.late(second), []);
        assert_eq!(audiences.next_late(), Some(second * 3 / 2));
    }

    #[test]
    fn everything_that_waits_is_bounded() {
        let mut audiences = Audiences::default();
        audiences.ask(Time::ZERO, "room");
        (0..WAITING_MAX).for_each(|_| audiences.wait("room", bytes(1)).unwrap());
        assert_eq!(audiences.wait("room", bytes(1)), Err(NoRoom));
        audiences.ask(Time::ZERO, "other");
        assert_eq!(
            audiences.wait("other", bytes(WAITING_BYTES_MAX - WAITING_MAX + 1)),
            Err(NoRoom)
        );
        audiences.wait("other", bytes(WAITING_BYTES_MAX - WAITING_MAX)).unwrap();
        audiences.forget(key_of("other"));
        audiences.ask(Time::ZERO, "other");
        audiences.wait("other", bytes(1_000)).unwrap();
        (0..AUDIENCES_MAX).for_each(|index| {
            audiences.ask(Time::ZERO, &index.to_string());
        });
        assert_eq!(audiences.ask(Time::ZERO, "one more"), Asked::TooMany);
        assert_eq!(audiences.len(), AUDIENCES_MAX);
    }
}
