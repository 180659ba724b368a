//! What one call of match logic may use up, and what a match may hold. Fixed in the match's start record: a replay on another
//! node, under another configuration, must draw the line at the same place.

use serde::{Deserialize, Serialize};

/// The budgets of a match. Those "a call" start anew with each call of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// CPU time of the calling thread a call, in microseconds. Time in which the thread was not scheduled does not count, so a
    /// busy machine cuts nobody off. Raise it for match logic that thinks hard (path finding, chess).
    pub call_cpu_us: u64,
    /// All linear memories of the match together.
    pub memory_bytes: u64,
    /// All tables of the match together.
    pub table_elements: u64,
    /// Core instances, memories and tables, each: a component of one module needs three or four.
    pub instances: u32,
    /// Calls of imports a call.
    pub host_calls: u32,
    /// Bytes that imports take from the guest a call: payloads, keys, log lines, mail. Also what one result may hold.
    pub bytes_out: u64,
    /// What `save` may return.
    pub save_bytes: u64,
    /// Log lines a call.
    pub log_lines: u32,
    /// Published keys at one time.
    pub published_keys: u32,
    /// Published keys and values together.
    pub published_bytes: u64,
    /// Requests to the outside that are not settled yet.
    pub outbox: u32,
    /// What those requests carry, together.
    pub outbox_bytes: u64,
    /// Timers that are set at one time.
    pub timers: u32,
    /// Calls that may be cut off within the window: each is undone and the match goes on, but with this many it fails.
    pub traps_max: u32,
    /// That window, in match time.
    pub traps_window_ms: u64,
    /// Stack of the guest. The engine is compiled for [`super::engine::WASM_STACK_BYTES`]; it is recorded here because where a
    /// recursion ends is something that match logic can observe.
    pub wasm_stack_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_cpu_us: 10_000,
            memory_bytes: 64 << 20,
            table_elements: 100_000,
            instances: 64,
            host_calls: 10_000,
            bytes_out: 1 << 20,
            save_bytes: 16 << 20,
            log_lines: 100,
            published_keys: 1_024,
            published_bytes: 1 << 20,
            outbox: 256,
            outbox_bytes: 4 << 20,
            timers: 1_024,
            traps_max: 50,
            traps_window_ms: 60_000,
            wasm_stack_bytes: super::engine::WASM_STACK_BYTES as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    /// The SDK compares the same page with the budgets of its mock host.
    #[test]
    fn the_page_for_authors_has_these_figures() {
        let page = include_str!("../../../docs/modding.md");
        let limits = Limits::default();
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        for row in [
            format!(
                "| processor time | {} ms (`limits.match_cpu`)",
                limits.call_cpu_us / 1_000
            ),
            format!(
                "| memory of the match | {} (`limits.match_memory`), {} table elements |",
                mib(limits.memory_bytes),
                thousands(limits.table_elements)
            ),
            format!("| stack | {} KiB of the engine's", limits.wasm_stack_bytes >> 10),
            format!("| calls of imports | {} |", thousands(limits.host_calls.into())),
            format!("(payloads, keys, mail, log lines) | {} |", mib(limits.bytes_out)),
            format!("| log lines | {}, of 4 KiB each |", limits.log_lines),
            format!(
                "| published state of the match | {} keys, {} in all |",
                thousands(limits.published_keys.into()),
                mib(limits.published_bytes)
            ),
            format!(
                "| requests not answered yet | {}, {} in all;",
                limits.outbox,
                mib(limits.outbox_bytes)
            ),
            format!("| timers set | {} |", thousands(limits.timers.into())),
            format!("| what `save` returns | {} |", mib(limits.save_bytes)),
        ] {
            assert!(page.contains(&row), "docs/modding.md does not say {row}");
        }
    }

    fn thousands(number: u64) -> String {
        match number {
            0..1_000 => number.to_string(),
            _ => format!("{},{:03}", number / 1_000, number % 1_000),
        }
    }
}
