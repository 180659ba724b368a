//! What waits to be written to one socket. Anybody may push, from any thread, at the price of a short lock; the connection's task
//! takes frames out when its socket has room. Many pushes wake it once.
//!
//! Frames leave in the order in which they came, with one exception: a newer value of a key that still waits replaces the older
//! one and goes to the back. So state never overtakes a frame that was pushed before it, and a slow client skips old states.
//! Reliable frames and states are bounded apart, because the full view of one match is as large as the bound on its states, and
//! a client that just joined is not slow. When a bound is passed the socket is closed: nothing is ever dropped in silence.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use prometheus::IntCounter;
use rookery_protocol::MatchId;
use rookery_protocol::client::{Encoding, ServerMessage};

use crate::matches::ring;

/// How much may wait for one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    pub frames: usize,
    pub bytes: usize,
    /// Keys with a value that waits.
    pub keyed_frames: usize,
    pub keyed_bytes: usize,
}

impl Default for OutboxLimits {
    /// States have room for the full view of several matches (1,024 keys and 1 MiB each, a third more in base64). Reliable frames
    /// have room for all that a match's ring may hold, twice: when a connection between nodes breaks, what was missed comes in
    /// one piece, and with room for 1,024 frames clients that were not slow at all were closed for it.
    fn default() -> Self {
        Self {
            frames: 2 * ring::OUTPUTS_MAX,
            bytes: 1 << 20,
            keyed_frames: 4096,
            keyed_bytes: 4 << 20,
        }
    }
}

/// Why and how the node closes a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: &'static str,
}

impl Close {
    pub const NORMAL: Self = Self { code: 1000, reason: "" };
    pub const GOING_AWAY: Self = Self {
        code: 1001,
        reason: "going_away",
    };
    pub const PROTOCOL: Self = Self {
        code: 1002,
        reason: "protocol",
    };
    pub const NOT_UTF8: Self = Self {
        code: 1007,
        reason: "not_utf8",
    };
    pub const AUTH_TIMEOUT: Self = Self {
        code: 1008,
        reason: "auth_timeout",
    };
    pub const RATE_LIMITED: Self = Self {
        code: 1008,
        reason: "rate_limited",
    };
    pub const REPLACED: Self = Self {
        code: 1008,
        reason: "replaced",
    };
    pub const SLOW_CONSUMER: Self = Self {
        code: 1008,
        reason: "slow_consumer",
    };
    pub const TOO_LARGE: Self = Self {
        code: 1009,
        reason: "too_large",
    };
    pub const INTERNAL: Self = Self {
        code: 1011,
        reason: "internal",
    };
}

/// One socket's queue. Sessions and matches hold it in an `Arc`; it outlives the socket harmlessly.
#[derive(Debug)]
pub struct Outbox {
    encoding: Encoding,
    limits: OutboxLimits,
    slow_closed: IntCounter,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Waiting>,
    /// Bytes of the reliable frames in the queue.
    bytes: usize,
    keyed_frames: usize,
    keyed_bytes: usize,
    close: Option<Close>,
    /// The socket is gone: frames go nowhere.
    gone: bool,
    waker: Option<Waker>,
    /// Whether a frame is worth waking the task for. A task that waits for its socket to drain is woken by nothing but a close.
    hungry: bool,
}

#[derive(Debug)]
struct Waiting {
    frame: Bytes,
    key: Option<(MatchId, Arc<str>)>,
}

/// What the connection's task is to write next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Frame(Bytes),
    Close(Close),
}

impl Outbox {
    pub fn new(encoding: Encoding, limits: OutboxLimits, slow_closed: IntCounter) -> Self {
        Self {
            encoding,
            limits,
            slow_closed,
            state: Mutex::default(),
        }
    }

    /// How frames for this socket are to be encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Encodes a message for this socket and pushes it.
    pub fn say(&self, id: Option<i64>, message: &ServerMessage) {
        self.push(message.encode(id, self.encoding));
    }

    /// Puts a frame behind all others. After a close it goes nowhere.
    pub fn push(&self, frame: Bytes) {
        let mut state = self.lock();
        if state.is_shut() {
            return;
        }
        let reliable = state.queue.len() - state.keyed_frames;
        if reliable >= self.limits.frames || state.bytes + frame.len() > self.limits.bytes {
            return self.overflow(state);
        }
        state.bytes += frame.len();
        state.queue.push_back(Waiting { frame, key: None });
        wake(state);
    }

    /// Puts the newest value of a match's key behind all other frames, instead of an older value that still waits.
    pub fn push_latest(&self, target: MatchId, key: Arc<str>, frame: Bytes) {
        let mut state = self.lock();
        if state.is_shut() {
            return;
        }
        state.forget(target, &key);
        if state.keyed_frames >= self.limits.keyed_frames || state.keyed_bytes + frame.len() > self.limits.keyed_bytes {
            return self.overflow(state);
        }
        state.keyed_frames += 1;
        state.keyed_bytes += frame.len();
        state.queue.push_back(Waiting {
            frame,
            key: Some((target, key)),
        });
        wake(state);
    }

    /// Closes the socket once what waits is written. The first close counts.
    pub fn close(&self, close: Close) {
        let mut state = self.lock();
        if state.is_shut() {
            return;
        }
        state.close = Some(close);
        state.hungry = true;
        wake(state);
    }

    /// Whether the socket still takes frames.
    pub fn is_open(&self) -> bool {
        !self.lock().is_shut()
    }

    /// How many frames wait.
    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// The next thing to write. When nothing waits the task is woken by the next push.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut state = self.lock();
        if let Some(Waiting { frame, key }) = state.queue.pop_front() {
            state.forgot(&frame, key.is_some());
            return Poll::Ready(Next::Frame(frame));
        }
        if let Some(close) = state.close {
            return Poll::Ready(Next::Close(close));
        }
        state.hungry = true;
        state.remember(cx);
        Poll::Pending
    }

    /// For a task whose socket takes nothing now: ready when the client is to be given up, deaf to frames.
    pub(super) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut state = self.lock();
        match state.close {
            Some(close) => Poll::Ready(close),
            None => {
                state.hungry = false;
                state.remember(cx);
                Poll::Pending
            }
        }
    }

    /// The task is awake and will look by itself: pushes need not wake it. Says whether so much waits that no more requests
    /// should be read.
    pub(super) fn awake(&self) -> bool {
        let mut state = self.lock();
        state.hungry = false;
        state.queue.len() - state.keyed_frames > self.limits.frames / 2 || state.bytes > self.limits.bytes / 2
    }

    /// The socket is gone; so is what waited for it.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        *state = State {
            gone: true,
            close: state.close,
            ..State::default()
        };
    }

    /// Gives back the room that a burst took; for quiet moments.
    pub(super) fn trim(&self) {
        self.lock().queue.shrink_to_fit();
    }

    /// What waits is worth nothing to a client that is sent away for not reading it.
    fn overflow(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        *state = State {
            close: Some(Close::SLOW_CONSUMER),
            ..State::default()
        };
        drop(state);
        self.slow_closed.inc();
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the task if it waits for this, after the lock is given back: it would only run into it.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = if state.hungry { state.waker.take() } else { None };
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}

impl State {
    fn is_shut(&self) -> bool {
        self.gone || self.close.is_some()
    }

    /// Takes an older value of this key out of the queue. Values come round in the order of their ticks, so an old one is near
    /// the front, where taking one out moves little.
    fn forget(&mut self, target: MatchId, key: &str) {
        if self.keyed_frames == 0 {
            return;
        }
        let same = |waiting: &Waiting| matches!(&waiting.key, Some((of, name)) if *of == target && **name == *key);
        if let Some(place) = self.queue.iter().position(same) {
            let old = self.queue.remove(place).expect("it was just found there");
            self.forgot(&old.frame, true);
        }
    }

    fn forgot(&mut self, frame: &Bytes, keyed: bool) {
        if keyed {
            self.keyed_frames -= 1;
            self.keyed_bytes -= frame.len();
        } else {
            self.bytes -= frame.len();
        }
    }

    fn remember(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }
}

#[cfg(test)]
mod tests;
