//! Why match logic was cut off, in words for its author. Invariant: a failure's kind is a closed set (the metric's label), its
//! message says what ran out and how much there was.

use std::fmt;

use crate::matches::event::TrapKind;

/// A call that did not come back, or that gave something that may not leave the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}", kind = .kind.as_str())]
pub struct Failure {
    pub kind: TrapKind,
    pub message: String,
}

impl Failure {
    pub(crate) fn new(kind: TrapKind, message: impl fmt::Display) -> Failure {
        Failure {
            kind,
            message: message.to_string(),
        }
    }

    /// What became of a call that wasmtime ended. `cut` is what the host itself objected to; it is the cause of everything after it.
    pub(crate) fn of_call(error: &wasmtime::Error, cut: Option<Failure>, memory_refused: Option<u64>) -> Failure {
        if let Some(cut) = cut {
            return cut;
        }
        let trap = error.downcast_ref::<wasmtime::Trap>();
        // Most languages answer a refused allocation with `unreachable`; wasmtime itself refuses to start with too large a memory.
        if let Some(limit) = memory_refused
            && trap.is_none_or(|trap| *trap == wasmtime::Trap::UnreachableCodeReached)
        {
            return Failure::new(
                TrapKind::Memory,
                format!("gave up after it was refused memory beyond {limit} bytes"),
            );
        }
        if let Some(trap) = trap {
            return Failure::new(TrapKind::Trap, trap);
        }
        // wasmtime keeps this error's type to itself; its text is the only way to tell it from a malformed pointer.
        let text = format!("{error:#}");
        if text.contains("fuel allocated for hostcalls") {
            return Failure::new(TrapKind::Bytes, "more data at once than the host takes from a module");
        }
        Failure::new(TrapKind::Trap, text)
    }
}
