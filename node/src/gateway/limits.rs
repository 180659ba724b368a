//! How much one connection may ask: a rate for match inputs, one for chat lines, one for everything else, and a count of frames that made no sense.
//! Pure: the caller says what time it is. Limits do not survive a connection; accounts are limited elsewhere, by address.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many a second in the long run, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

/// What a request counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Inputs,
    Control,
    Chat,
}

/// A refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Asking again after this many milliseconds would be admitted, if nothing else is asked before.
    pub retry_ms: u64,
    /// Whether the client has not been told of this class in the last second; refusals without an answer of their own are
    /// pushed at this pace only.
    pub notice: bool,
}

/// The malformed frame with this number within [`BAD_FRAMES_WINDOW`] is one too many.
const BAD_FRAMES_MAX: usize = 20;
const BAD_FRAMES_WINDOW: Duration = Duration::from_secs(60);
const NOTICE_EVERY: Duration = Duration::from_secs(1);

/// One connection's use of its limits.
#[derive(Debug)]
pub struct Limits {
    inputs: Bucket,
    control: Bucket,
    chat: Bucket,
    /// When the last malformed frames came; empty for nearly every connection.
    bad_frames: VecDeque<Instant>,
}

impl Limits {
    pub fn new(inputs: Rate, control: Rate, chat: Rate) -> Self {
        Self {
            inputs: Bucket::new(inputs),
            control: Bucket::new(control),
            chat: Bucket::new(chat),
            bad_frames: VecDeque::new(),
        }
    }

    /// Counts a request of this class, or refuses it without counting it.
    pub fn admit(&mut self, class: Class, now: Instant) -> Result<(), Refused> {
        match class {
            Class::Inputs => self.inputs.admit(now),
            Class::Control => self.control.admit(now),
            Class::Chat => self.chat.admit(now),
        }
    }

    /// Counts a malformed frame; false when it is one too many.
    pub fn bad_frame(&mut self, now: Instant) -> bool {
        while self
            .bad_frames
            .front()
            .is_some_and(|at| now.duration_since(*at) >= BAD_FRAMES_WINDOW)
        {
            self.bad_frames.pop_front();
        }
        self.bad_frames.push_back(now);
        self.bad_frames.len() < BAD_FRAMES_MAX
    }
}

/// A leaky bucket kept as one instant: when it would be empty if nothing more came (the generic cell rate algorithm). 16 bytes
/// of state, where a library's limiter brought its own clock to every connection.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    empty_at: Option<Instant>,
    noticed_at: Option<Instant>,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            empty_at: None,
            noticed_at: None,
        }
    }

    fn admit(&mut self, now: Instant) -> Result<(), Refused> {
        let each = Duration::from_secs(1) / self.rate.per_second.max(1);
        let room = each * self.rate.burst.saturating_sub(1);
        let empty_at = self.empty_at.map_or(now, |at| at.max(now));
        let level = empty_at - now;
        if level <= room {
            self.empty_at = Some(empty_at + each);
            return Ok(());
        }
        let notice = self.noticed_at.is_none_or(|at| now.duration_since(at) >= NOTICE_EVERY);
        if notice {
            self.noticed_at = Some(now);
        }
        let wait = level - room;
        // Rounded up, so that a client which waits exactly this long is not refused again.
        Err(Refused {
            retry_ms: wait.as_nanos().div_ceil(1_000_000) as u64,
            notice,
        })
    }
}

#[cfg(test)]
mod tests;
