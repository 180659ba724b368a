//! How many of a match's log lines are written, and that each is one line. A line is formatted and written by the thread that runs the
//! matches, onto a pipe that somebody else reads: a match that writes without end would hold up all the others. It decides nothing
//! about the lines within one call, which are the match's own budget.
//!
//! Invariant: warnings and errors are not kept back on account of lines that mostly nobody has asked for.

#![deny(clippy::disallowed_methods)]

use std::borrow::Cow;

use crate::matches::machine::LogLevel;

/// Lines that a match may write at once: two calls that use up their budget of them.
const AT_ONCE: u64 = 200;

/// Lines that it may write all the time.
pub const A_SECOND: u64 = 20;

/// What one match may still write.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    serious: Bucket,
    other: Bucket,
    /// Kept back since the last one that was written.
    dropped: u64,
}

/// Lines that were written, as far as they still count, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    written_milli: u64,
    at_ms: u64,
}

impl Bucket {
    fn takes(&mut self, now_ms: u64) -> bool {
        let run_off = now_ms.saturating_sub(self.at_ms).saturating_mul(A_SECOND);
        self.written_milli = self.written_milli.saturating_sub(run_off);
        self.at_ms = self.at_ms.max(now_ms);
        if self.written_milli + 1_000 > AT_ONCE * 1_000 {
            return false;
        }
        self.written_milli += 1_000;
        true
    }
}

impl Lines {
    /// Whether a line is to be written, and how many before it were not.
    pub fn takes(&mut self, now_ms: u64, level: LogLevel) -> Option<u64> {
        let bucket = match level {
            LogLevel::Debug | LogLevel::Info => &mut self.other,
            LogLevel::Warn | LogLevel::Error => &mut self.serious,
        };
        if !bucket.takes(now_ms) {
            self.dropped += 1;
            return None;
        }
        Some(std::mem::take(&mut self.dropped))
    }
}

/// The line without what would end it, or tell a terminal to do something: the log says what a match says, and nothing in its place.
pub fn one_line(line: &str) -> Cow<'_, str> {
    let ends = |c: char| c.is_control() && c != '\t';
    if !line.contains(ends) {
        return Cow::Borrowed(line);
    }
    let mut escaped = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        match ends(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_look_like_several() {
        assert_eq!(one_line("Ana\tmoved to é4"), "Ana\tmoved to é4");
        assert_eq!(
            one_line("a\r\n2026 ERROR b\u{1b}[2J\u{9b}c"),
            r"a\r\n2026 ERROR b\u{1b}[2J\u{9b}c"
        );
    }

    #[test]
    fn a_flood_of_lines_comes_to_what_may_be_written_and_says_how_many_were_not() {
        let mut lines = Lines::default();
        let mut written = |now_ms: u64, wanted: u64, level: LogLevel| {
            let taken = (0..wanted).filter_map(|_| lines.takes(now_ms, level));
            taken.fold((0, 0), |(written, dropped), before| (written + 1, dropped + before))
        };
        assert_eq!(written(0, 1_000, LogLevel::Info), (AT_ONCE, 0));
        // Errors are heard all the same, and say what is missing.
        assert_eq!(written(0, 10, LogLevel::Error), (10, 800));
        assert_eq!(written(1_000, 100, LogLevel::Info), (A_SECOND, 0));
        assert_eq!(written(2_000, 100, LogLevel::Info), (A_SECOND, 80));
        assert_eq!(written(60_000, 1_000, LogLevel::Debug), (AT_ONCE, 80));
    }

    #[test]
    fn time_that_runs_back_gives_nothing() {
        let mut lines = Lines::default();
        assert!((0..AT_ONCE).all(|_| lines.takes(5_000, LogLevel::Warn).is_some()));
        assert_eq!(lines.takes(4_000, LogLevel::Warn), None);
        assert_eq!(lines.takes(5_049, LogLevel::Warn), None);
        assert_eq!(lines.takes(5_050, LogLevel::Warn), Some(2));
    }
}
