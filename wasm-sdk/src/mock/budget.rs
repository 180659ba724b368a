//! What one call of match logic may ask of the node, and what a match may hold: the node's own figures, so that a call that goes
//! over fails in a test as it would on a node. Processor time and memory are not here: natively they mean something else.

use std::cell::Cell;

/// Calls of imports in one call.
pub(crate) const HOST_CALLS_MAX: u32 = 10_000;
/// Bytes given to imports in one call: payloads, keys, mail, log lines.
pub(crate) const BYTES_MAX: usize = 1 << 20;
/// Log lines in one call.
pub(crate) const LOG_LINES_MAX: u32 = 100;
/// One log line; the rest is cut off.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 4_096;
/// Published keys at one time.
pub(crate) const PUBLISHED_KEYS_MAX: usize = 1_024;
/// Published keys and values together.
pub(crate) const PUBLISHED_BYTES_MAX: usize = 1 << 20;
/// Requests that are not answered yet.
pub(crate) const REQUESTS_MAX: usize = 256;
/// What those carry, together.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Timers that are set at one time.
pub(crate) const TIMERS_MAX: usize = 1_024;
/// Seats that the match plays itself.
pub(crate) const BOTS_MAX: usize = 1_000;
/// Keys of the label.
pub(crate) const LABEL_KEYS_MAX: usize = 16;
/// A key or a value of the label.
pub(crate) const LABEL_TEXT_BYTES_MAX: usize = 256;
/// What `save` may return.
pub(crate) const SAVE_BYTES_MAX: usize = 16 << 20;
/// How often in a row a refusal or a leaving may be met by asking for the next one.
pub(crate) const FOLLOW_UP_DEPTH_MAX: u32 = 8;

/// What the running call has used up.
///
/// In cells, because what only reads (the time) is charged too.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    host_calls: Cell<u32>,
    bytes: Cell<usize>,
    log_lines: Cell<u32>,
}

impl Meter {
    /// Every import begins here.
    pub(crate) fn charge(&self, bytes: usize) {
        self.host_calls.update(|calls| calls + 1);
        if self.host_calls.get() > HOST_CALLS_MAX {
            fail(
                "host_calls",
                format_args!("more than {HOST_CALLS_MAX} calls of the host in one call"),
            );
        }
        self.bytes.update(|sum| sum + bytes);
        if self.bytes.get() > BYTES_MAX {
            fail(
                "bytes",
                format_args!("more than {BYTES_MAX} bytes to the host in one call"),
            );
        }
    }

    pub(crate) fn charge_log_line(&self) {
        self.log_lines.update(|lines| lines + 1);
        if self.log_lines.get() > LOG_LINES_MAX {
            fail(
                "log_lines",
                format_args!("more than {LOG_LINES_MAX} log lines in one call"),
            );
        }
    }
}

/// Ends a call as the node would, in the words of the node.
pub(crate) fn fail(kind: &str, message: std::fmt::Arguments<'_>) -> ! {
    panic!("{kind}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The node compares the same page with its own limits.
    #[test]
    fn the_figures_are_those_that_authors_are_told() {
        let page = include_str!("../../../docs/modding.md");
        let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
        for row in [
            format!("| calls of imports | {} |", thousands(HOST_CALLS_MAX as usize)),
            format!(
                "| bytes given to imports (payloads, keys, mail, log lines) | {} |",
                mib(BYTES_MAX)
            ),
            format!(
                "| log lines | {LOG_LINES_MAX}, of {} KiB each |",
                LOG_LINE_BYTES_MAX >> 10
            ),
            format!(
                "| published state of the match | {} keys, {} in all |",
                thousands(PUBLISHED_KEYS_MAX),
                mib(PUBLISHED_BYTES_MAX)
            ),
            format!(
                "| requests not answered yet | {REQUESTS_MAX}, {} in all; further ones are answered `busy` |",
                mib(REQUEST_BYTES_MAX)
            ),
            format!("| timers set | {} |", thousands(TIMERS_MAX)),
            format!("| bots | {} |", thousands(BOTS_MAX)),
            format!("| label | {LABEL_KEYS_MAX} keys, texts of {LABEL_TEXT_BYTES_MAX} bytes |"),
            format!("| what `save` returns | {} |", mib(SAVE_BYTES_MAX)),
        ] {
            assert!(page.contains(&row), "docs/modding.md does not say {row}");
        }
    }

    fn thousands(number: usize) -> String {
        match number {
            0..1_000 => number.to_string(),
            _ => format!("{},{:03}", number / 1_000, number % 1_000),
        }
    }
}
