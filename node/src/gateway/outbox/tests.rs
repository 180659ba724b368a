use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use proptest::prelude::*;

use super::*;

const LIMITS: OutboxLimits = OutboxLimits {
    frames: 8,
    bytes: 100,
    keyed_frames: 4,
    keyed_bytes: 100,
};

/// A task that counts how often it was woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Fixture {
    outbox: Outbox,
    task: Arc<Task>,
    slow_closed: IntCounter,
}

impl Fixture {
    fn new(limits: OutboxLimits) -> Self {
        let slow_closed = IntCounter::new("slow_closed", "of this test").unwrap();
        Self {
            outbox: Outbox::new(Encoding::Json, limits, slow_closed.clone()),
            task: Arc::default(),
            slow_closed,
        }
    }

    fn next(&self) -> Poll<Next> {
        let waker = Waker::from(self.task.clone());
        self.outbox.poll_next(&mut Context::from_waker(&waker))
    }

    fn given_up(&self) -> Poll<Close> {
        let waker = Waker::from(self.task.clone());
        self.outbox.poll_given_up(&mut Context::from_waker(&waker))
    }

    fn push(&self, text: &str) {
        self.outbox.push(Bytes::copy_from_slice(text.as_bytes()));
    }

    fn latest(&self, of: u128, key: &str, text: &str) {
        self.outbox.push_latest(
            MatchId::from_u128(of),
            key.into(),
            Bytes::copy_from_slice(text.as_bytes()),
        );
    }

    fn drain(&self) -> Vec<String> {
        std::iter::from_fn(|| match self.next() {
            Poll::Ready(Next::Frame(frame)) => Some(String::from_utf8(frame.to_vec()).unwrap()),
            Poll::Ready(Next::Close(_)) | Poll::Pending => None,
        })
        .collect()
    }

    fn wakes(&self) -> usize {
        self.task.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_newer_value_replaces_the_waiting_one_and_goes_to_the_back() {
    let fixture = Fixture::new(LIMITS);
    fixture.latest(1, "hp", "hp=1");
    fixture.push("a");
    fixture.latest(1, "mp", "mp=1");
    fixture.latest(2, "hp", "other hp=1");
    fixture.latest(1, "hp", "hp=2");
    fixture.push("b");
    assert_eq!(fixture.drain(), ["a", "mp=1", "other hp=1", "hp=2", "b"]);
    // What has left is not replaced.
    fixture.latest(1, "hp", "hp=3");
    assert_eq!(fixture.drain(), ["hp=3"]);
}

#[test]
fn many_pushes_wake_the_task_once() {
    let fixture = Fixture::new(LIMITS);
    assert!(fixture.next().is_pending());
    for text in ["a", "b", "c"] {
        fixture.push(text);
    }
    fixture.latest(1, "k", "v");
    assert_eq!(fixture.wakes(), 1);
    assert_eq!(fixture.drain(), ["a", "b", "c", "v"]);
    fixture.push("d");
    assert_eq!(fixture.wakes(), 2);
}

#[test]
fn an_awake_task_is_not_woken() {
    let fixture = Fixture::new(LIMITS);
    assert!(fixture.next().is_pending());
    fixture.outbox.awake();
    fixture.push("a");
    assert_eq!(fixture.wakes(), 0);
    assert_eq!(fixture.drain(), ["a"]);
}

#[test]
fn a_task_that_waits_for_its_socket_is_woken_by_a_close_only() {
    let fixture = Fixture::new(LIMITS);
    assert!(fixture.given_up().is_pending());
    fixture.push("a");
    assert_eq!(fixture.wakes(), 0);
    fixture.outbox.close(Close::REPLACED);
    assert_eq!(fixture.wakes(), 1);
    assert_eq!(fixture.given_up(), Poll::Ready(Close::REPLACED));
}

#[test]
fn what_waits_is_written_before_a_close_and_nothing_after_it() {
    let fixture = Fixture::new(LIMITS);
    fixture.push("a");
    fixture.outbox.close(Close::GOING_AWAY);
    fixture.push("b");
    fixture.outbox.close(Close::INTERNAL);
    assert!(!fixture.outbox.is_open());
    assert_eq!(fixture.drain(), ["a"]);
    assert_eq!(fixture.next(), Poll::Ready(Next::Close(Close::GOING_AWAY)));
    assert_eq!(fixture.slow_closed.get(), 0);
}

fn overflows(limits: OutboxLimits, fill: impl Fn(&Fixture, usize), room: usize) {
    let fixture = Fixture::new(limits);
    assert!(fixture.given_up().is_pending());
    for place in 0..room {
        fill(&fixture, place);
        assert!(fixture.outbox.is_open(), "{place}");
    }
    assert_eq!(fixture.slow_closed.get(), 0);
    fill(&fixture, room);
    fill(&fixture, room + 1);
    assert_eq!((fixture.slow_closed.get(), fixture.wakes()), (1, 1));
    assert_eq!(fixture.next(), Poll::Ready(Next::Close(Close::SLOW_CONSUMER)));
}

#[test]
fn every_bound_closes_the_socket_when_it_is_passed() {
    overflows(LIMITS, |fixture, _| fixture.push("x"), 8);
    overflows(LIMITS, |fixture, _| fixture.push(&"x".repeat(25)), 4);
    overflows(LIMITS, |fixture, place| fixture.latest(1, &format!("k{place}"), "x"), 4);
    overflows(
        LIMITS,
        |fixture, place| fixture.latest(1, &format!("k{place}"), &"x".repeat(50)),
        2,
    );
}

#[test]
fn states_and_reliable_frames_have_room_of_their_own() {
    let fixture = Fixture::new(LIMITS);
    for place in 0..8 {
        fixture.push("x");
        fixture.latest(1, &format!("k{}", place % 4), &"y".repeat(25));
    }
    assert!(fixture.outbox.is_open());
    assert_eq!(fixture.drain().len(), 12);
}

#[test]
fn a_gone_socket_swallows_everything() {
    let fixture = Fixture::new(LIMITS);
    fixture.push("a");
    fixture.outbox.end();
    for _ in 0..100 {
        fixture.push("b");
        fixture.latest(1, "k", "v");
    }
    assert!(!fixture.outbox.is_open());
    assert!(fixture.drain().is_empty());
    assert_eq!(fixture.slow_closed.get(), 0);
}

proptest! {
    /// Against the obvious model: a list, from which an older value is taken when a newer one comes.
    #[test]
    fn frames_leave_as_the_model_says(steps in proptest::collection::vec((0..5_u8, any::<bool>()), 0..300)) {
        let fixture = Fixture::new(OutboxLimits { frames: 1000, bytes: 1 << 20, keyed_frames: 4, keyed_bytes: 1 << 20 });
        let mut model: Vec<(Option<u8>, String)> = Vec::new();
        for (place, (key, pop)) in steps.into_iter().enumerate() {
            let text = place.to_string();
            if key == 4 {
                fixture.push(&text);
                model.push((None, text));
            } else {
                fixture.latest(u128::from(key % 2), &key.to_string(), &text);
                model.retain(|(waiting, _)| *waiting != Some(key));
                model.push((Some(key), text));
            }
            if pop {
                let expected = model.remove(0).1;
                prop_assert_eq!(fixture.next(), Poll::Ready(Next::Frame(Bytes::from(expected))));
            }
        }
        let expected: Vec<String> = model.into_iter().map(|(_, text)| text).collect();
        prop_assert_eq!(fixture.drain(), expected);
        let state = fixture.outbox.lock();
        prop_assert_eq!((state.bytes, state.keyed_frames, state.keyed_bytes), (0, 0, 0));
    }
}
