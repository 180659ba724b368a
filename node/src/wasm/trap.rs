//! Why match logic was cut off, in words for its author. Invariant: a failure's kind is a closed set (the metric's label), its
//! message says what ran out and how much there was.

use std::fmt;

use wasmtime::WasmBacktrace;

use crate::matches::event::TrapKind;

/// Frames of a back-trace that are kept: a recursion without end has thousands that are all the same.
const FRAMES_MAX: usize = 32;

/// The most of a function's name that is kept; generic ones are long.
const NAME_CHARS_MAX: usize = 120;

/// A call that did not come back, or that gave something that may not leave the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}", kind = .kind.as_str())]
pub struct Failure {
    pub kind: TrapKind,
    pub message: String,
    /// Where the guest was, innermost first, one line each; empty when it was not running.
    pub backtrace: Vec<String>,
}

impl Failure {
    pub(crate) fn new(kind: TrapKind, message: impl fmt::Display) -> Failure {
        Failure {
            kind,
            message: message.to_string(),
            backtrace: Vec::new(),
        }
    }

    /// What became of a call that wasmtime ended. `cut` is what the host itself objected to; it is the cause of everything after it.
    pub(crate) fn of_call(error: &wasmtime::Error, cut: Option<Failure>, memory_refused: Option<u64>) -> Failure {
        Failure {
            backtrace: error.downcast_ref().map_or(Vec::new(), lines),
            ..Self::cause(error, cut, memory_refused)
        }
    }

    fn cause(error: &wasmtime::Error, cut: Option<Failure>, memory_refused: Option<u64>) -> Failure {
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
        let text = causes(error);
        if text.contains("fuel allocated for hostcalls") {
            return Failure::new(TrapKind::Bytes, "more data at once than the host takes from a module");
        }
        Failure::new(TrapKind::Trap, text)
    }
}

/// What wasmtime says, without the back-trace that it puts before it: an author reads one sentence, and the places beside it. The names in
/// that text are the author's own and may be of any length.
fn causes(error: &wasmtime::Error) -> String {
    let backtrace = usize::from(error.downcast_ref::<WasmBacktrace>().is_some());
    let causes: Vec<String> = error.chain().skip(backtrace).map(ToString::to_string).collect();
    causes.join(": ")
}

fn lines(backtrace: &WasmBacktrace) -> Vec<String> {
    let line = |frame: &wasmtime::FrameInfo| {
        let name: Option<String> = frame
            .func_name()
            .map(|name| name.chars().take(NAME_CHARS_MAX).collect());
        let name = name.unwrap_or_else(|| format!("function {}", frame.func_index()));
        match frame.func_offset() {
            Some(offset) => format!("{name} +{offset:#x}"),
            None => name,
        }
    };
    backtrace.frames().iter().take(FRAMES_MAX).map(line).collect()
}
