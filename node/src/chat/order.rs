//! The lines of one channel on one node, put in order: what comes is delivered once and by number, what comes too early is
//! held, and what does not come is asked of the store. Pure: the caller gives the time and does the reading.
//!
//! Not here: who hears the lines. The invariants: what is delivered are consecutive numbers above the one it was opened at, but
//! for lines that the store has swept; and who comes in is served up to a number and hears every line above it, none of them twice.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, VecDeque};

use rookery_protocol::client::ChatLine;

use crate::store::ChannelView;

/// How long a missing line may be on its way before it is read from the store: commits of two nodes are told by two nodes.
pub(super) const HOLE_MS: u64 = 100;

/// After a read that failed.
pub(super) const AGAIN_MS: u64 = 500;

/// Lines held for one that is missing. The store has those that find no room here.
const HELD_MAX: usize = 1_024;

/// Delivered lines kept for those who join meanwhile: what is told while a joiner's read of the store is under way.
const RECENT_MAX: usize = 128;

/// One channel's lines.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The last number delivered; none until the store has said where the channel stands.
    delivered: Option<u64>,
    held: BTreeMap<u64, ChatLine>,
    recent: VecDeque<ChatLine>,
    /// The highest number known to exist.
    known: u64,
    /// When the hole before what is held is to be read.
    hole_due_ms: Option<u64>,
    reading: bool,
    /// Somebody finds out where the channel stands.
    opening: bool,
}

/// A hole: the lines above `after` up to `through` are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) after: u64,
    pub(super) through: u64,
}

/// How a session comes in: it hears every line above `last`, after those that it missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) last: u64,
    pub(super) missed: Vec<ChatLine>,
}

impl Order {
    /// The last number delivered; none before the channel is open.
    pub(super) fn delivered(&self) -> Option<u64> {
        self.delivered
    }

    /// Whether nobody finds out yet where the channel stands; whoever is told so does.
    pub(super) fn begin_opening(&mut self) -> bool {
        self.delivered.is_none() && !std::mem::replace(&mut self.opening, true)
    }

    /// Lines up to `last` were there before; what was held above is delivered.
    pub(super) fn open(&mut self, now_ms: u64, last: u64, out: &mut Vec<ChatLine>) {
        if self.delivered.is_none() {
            self.delivered = Some(last);
            self.known = self.known.max(last);
            self.held = self.held.split_off(&(last + 1));
            self.advance(now_ms, out);
        }
    }

    /// Takes a line that another node, or this one, has written. What may be delivered goes into `out`.
    pub(super) fn hear(&mut self, now_ms: u64, line: ChatLine, out: &mut Vec<ChatLine>) {
        let number = line.message;
        self.known = self.known.max(number);
        match self.delivered {
            Some(delivered) if number <= delivered => return,
            Some(delivered) if number == delivered + 1 && self.held.is_empty() => {
                self.deliver(line, out);
                self.settle(now_ms);
                return;
            }
            Some(_) | None => {}
        }
        self.held.insert(number, line);
        if self.held.len() > HELD_MAX {
            self.held.pop_last();
        }
        self.advance(now_ms, out);
    }

    /// The store says that lines up to `last` are written. They may be on their way, like any line before an early one.
    pub(super) fn exists(&mut self, now_ms: u64, last: u64) {
        self.known = self.known.max(last);
        self.settle(now_ms);
    }

    /// When [`Order::hole`] has something.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.hole_due_ms.filter(|_| !self.reading)
    }

    /// The hole that is to be read now. Until [`Order::read`] or [`Order::unread`] says what came of it there is no other.
    pub(super) fn hole(&mut self, now_ms: u64) -> Option<Hole> {
        let after = self.delivered?;
        self.next_wake().filter(|due_ms| *due_ms <= now_ms)?;
        let first_held = self.held.first_key_value().map(|(number, _)| *number - 1);
        let through = first_held.unwrap_or(self.known);
        if through <= after {
            self.hole_due_ms = None;
            return None;
        }
        self.reading = true;
        Some(Hole { after, through })
    }

    /// What the store has of a hole: the read went up to `through`, and numbers that it did not find have been swept.
    pub(super) fn read(&mut self, now_ms: u64, hole: Hole, lines: Vec<ChatLine>, out: &mut Vec<ChatLine>) {
        let Hole { after, through } = hole;
        if self.delivered.is_none_or(|delivered| delivered < after) {
            // The channel was closed meanwhile and opened again further back: what is between is not known from this.
            return;
        }
        self.reading = false;
        for line in lines {
            if self.delivered.is_some_and(|delivered| line.message > delivered) {
                self.deliver(line, out);
            }
        }
        if let Some(delivered) = &mut self.delivered {
            *delivered = (*delivered).max(through);
            self.held = self.held.split_off(&(*delivered + 1));
        }
        self.hole_due_ms = None;
        self.advance(now_ms, out);
        // More than one read's worth: go on at once.
        if let Some(due_ms) = &mut self.hole_due_ms
            && self.held.is_empty()
        {
            *due_ms = now_ms;
        }
    }

    /// The store did not answer.
    pub(super) fn unread(&mut self, now_ms: u64) {
        self.reading = false;
        self.hole_due_ms = Some(now_ms + AGAIN_MS);
    }

    /// Lets a session in that has the lines up to `since`, or wants none of the past. `view`: what the store said a moment ago, with
    /// the lines above `since`. None when more was delivered meanwhile than is kept: read again.
    ///
    /// The store may be ahead, and so may the client, which comes from a node that heard its last line before this one does: such a
    /// line is on its way here, and would be heard again if the session came in where this node stands.
    pub(super) fn enter(&self, since: Option<u64>, view: ChannelView) -> Option<Entry> {
        let delivered = self.delivered?;
        let Some(since) = since else {
            let (last, missed) = (delivered, Vec::new());
            return Some(Entry { last, missed });
        };
        let mut missed = view.lines;
        if delivered > view.last {
            let recent = self.recent_after(view.last)?;
            missed.extend(recent.filter(|line| line.message > since).cloned());
        }
        let last = delivered.max(view.last);
        Some(Entry { last, missed })
    }

    /// The delivered lines above `after` that are still kept.
    pub(super) fn kept_after(&self, after: u64) -> impl Iterator<Item = &ChatLine> {
        self.recent.iter().filter(move |line| line.message > after)
    }

    /// The delivered lines above `after`, if all of them are still kept.
    fn recent_after(&self, after: u64) -> Option<impl Iterator<Item = &ChatLine>> {
        let delivered = self.delivered?;
        let first = self.recent.front().map_or(delivered + 1, |line| line.message);
        (after + 1 >= first).then(|| self.kept_after(after))
    }

    fn advance(&mut self, now_ms: u64, out: &mut Vec<ChatLine>) {
        while let Some(delivered) = self.delivered
            && let Some(line) = self.held.remove(&(delivered + 1))
        {
            self.deliver(line, out);
        }
        self.settle(now_ms);
    }

    fn deliver(&mut self, line: ChatLine, out: &mut Vec<ChatLine>) {
        self.delivered = Some(line.message);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        // A swept stretch makes a gap, which must not look like lines that are kept.
        if self.recent.back().is_some_and(|last| last.message + 1 != line.message) {
            self.recent.clear();
        }
        self.recent.push_back(line.clone());
        out.push(line);
    }

    /// A hole that closed has no wake-up; a new one gets its own.
    fn settle(&mut self, now_ms: u64) {
        match self.delivered {
            Some(delivered) if self.known > delivered => {
                self.hole_due_ms.get_or_insert(now_ms + HOLE_MS);
            }
            Some(_) | None => self.hole_due_ms = None,
        }
    }
}

#[cfg(test)]
mod tests;
