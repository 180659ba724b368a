//! One run of a target: what it did, and whether that is a finding.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::coverage;
use crate::memory;
use crate::target::Target;

/// So much of a panic's words is kept: two trees that differ would fill a screen.
const WHAT_LEN_MAX: usize = 400;

/// Why a run counts as a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: findings at one place are one finding.
    pub place: String,
    pub what: String,
}

static PANIC: Mutex<Option<Fault>> = Mutex::new(None);

/// Takes note of panics instead of printing them.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "?".to_owned(), ToString::to_string);
        let what = info.payload_as_str().unwrap_or("a panic without words");
        let what = what.chars().take(WHAT_LEN_MAX).collect();
        // The first one of a run is the cause.
        PANIC
            .lock()
            .expect("nothing panics under this lock")
            .get_or_insert(Fault { place, what });
    }));
}

/// Runs an input. The counters tell afterwards which way it went.
pub fn execute(target: &Target, input: &[u8]) -> Result<(), Fault> {
    coverage::clear();
    let began = Instant::now();
    let (outcome, peak) = memory::peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    let took = began.elapsed();
    let panic = PANIC.lock().expect("nothing panics under this lock").take();
    if outcome.is_err() {
        return Err(panic.unwrap_or_else(|| Fault {
            place: "?".into(),
            what: "a panic without a hook".into(),
        }));
    }
    let bound = target.memory.bound(input.len());
    if peak > bound {
        return Err(Fault {
            place: "memory".into(),
            what: format!(
                "took {peak} bytes for an input of {}, at most {bound} are allowed",
                input.len()
            ),
        });
    }
    if took > target.time_max {
        // Perhaps others had the processor: the time of this thread alone decides.
        let began = thread_time();
        let _ = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        let took = thread_time() - began;
        PANIC.lock().expect("nothing panics under this lock").take();
        if took > target.time_max {
            return Err(Fault {
                place: "time".into(),
                what: format!("took {} ms for an input of {} bytes", took.as_millis(), input.len()),
            });
        }
    }
    Ok(())
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Runs one input outside of everything, so that a debugger and a back-trace see it.
pub fn reproduce(target: &Target, file: &Path) -> ExitCode {
    let input = match std::fs::read(file) {
        Ok(input) => input,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::from(64);
        }
    };
    let began = Instant::now();
    let ((), peak) = memory::peak_of(|| (target.run)(&input));
    let bound = target.memory.bound(input.len());
    println!(
        "{} bytes ran through {} in {} µs with {peak} bytes of memory, {bound} are allowed",
        input.len(),
        target.name,
        began.elapsed().as_micros()
    );
    ExitCode::from(u8::from(peak > bound))
}
