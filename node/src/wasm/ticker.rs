//! The thread that makes running guests look at their budgets: it moves the engine's epoch every millisecond while some call
//! runs, and sleeps when none does, so that an idle node does not wake a thousand times a second. It decides nothing: what a
//! guest has used is judged in the callback, on the guest's own thread.
//!
//! Invariant: while a [`Running`] guard lives, the epoch moves. The guard's count is raised before `parked` is read, and `parked` is
//! set before the counts are read, both sequentially consistent: one of the two sides always sees the other.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::EngineWeak;

/// How often running guests look at their budgets. A call may overrun its budget by this much.
pub const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call before the thread parks: a busy node should not pay for parking between two calls.
const IDLE_TICKS: u32 = 100;

/// Counters are spread so that executor threads do not fight over one cache line.
const SHARDS: usize = 16;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU32);

/// Shared between the ticker's thread and everybody who runs guests.
#[derive(Debug)]
pub struct Ticker {
    running: [Shard; SHARDS],
    parked: AtomicBool,
    ended: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Ticker {
    /// Starts the thread; it ends by itself when the engine is gone.
    pub fn start(engine: EngineWeak) -> std::io::Result<Arc<Ticker>> {
        let ticker = Arc::new(Ticker {
            running: Default::default(),
            parked: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let theirs = ticker.clone();
        let handle = std::thread::Builder::new()
            .name("wasm-ticker".into())
            .stack_size(64 << 10)
            .spawn(move || theirs.tick(engine))?;
        ticker.thread.get_or_init(|| handle.thread().clone());
        Ok(ticker)
    }

    /// Keeps the epoch moving until the guard is dropped.
    pub fn running(&self) -> Running<'_> {
        let shard = shard_of_this_thread();
        self.running[shard].0.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) {
            self.wake();
        }
        Running { ticker: self, shard }
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn is_idle(&self) -> bool {
        self.running.iter().all(|shard| shard.0.load(Ordering::SeqCst) == 0)
    }

    fn tick(&self, engine: EngineWeak) {
        let mut idle_ticks = 0;
        while !self.ended.load(Ordering::SeqCst) {
            std::thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            drop(engine);
            idle_ticks = if self.is_idle() { idle_ticks + 1 } else { 0 };
            if idle_ticks < IDLE_TICKS {
                continue;
            }
            self.parked.store(true, Ordering::SeqCst);
            // A wake-up that comes between the check and `park` makes `park` return at once.
            while self.is_idle() && !self.ended.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.parked.store(false, Ordering::SeqCst);
            idle_ticks = 0;
        }
    }
}

/// A call is running.
#[derive(Debug)]
pub struct Running<'a> {
    ticker: &'a Ticker,
    shard: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.ticker.running[self.shard].0.fetch_sub(1, Ordering::Release);
    }
}

fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    SHARD.with(Cell::get)
}
