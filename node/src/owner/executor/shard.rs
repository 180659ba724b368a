//! What others see of one executor thread: its inbox, how it is woken, and the matches that it owns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::Thread;

use rookery_protocol::MatchId;
use tokio::sync::Notify;

use super::Listing;
use super::command::Command;
use crate::owner::debts::Debts;

/// Commands that wait for one thread. A full inbox refuses: a client's input is sent again, a request is answered `unavailable`.
const INBOX_MAX: usize = 65_536;

/// What others see of one thread.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) inbox: Mutex<Vec<Command>>,
    /// Set by the thread before it sleeps, so that the first command wakes it and the others need not.
    pub(super) asleep: AtomicBool,
    pub(super) thread: OnceLock<Thread>,
    /// Rung instead of waking the thread on the spot; see [`ring`].
    bell: Notify,
    listings: Mutex<BTreeMap<MatchId, Listing>>,
    /// Touched when a call was cut off, and when a match is created.
    debts: Mutex<Debts>,
    /// Matches owned, private ones included.
    pub(super) owned: AtomicU64,
    pub(super) stop: AtomicBool,
}

impl Shard {
    pub(super) fn push(&self, command: Command) -> bool {
        let mut inbox = self.inbox.lock().expect("no thread panics holding it");
        if inbox.len() >= INBOX_MAX {
            return false;
        }
        inbox.push(command);
        drop(inbox);
        self.wake();
        true
    }

    /// For what comes once for an effect, a link or a node, and is bounded by their number: it may not be lost.
    pub(super) fn push_always(&self, command: Command) {
        self.inbox.lock().expect("no thread panics holding it").push(command);
        self.wake();
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// Has the thread end, and the task that wakes it.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.notify_one();
        self.unpark();
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(super) fn debts(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().expect("no thread panics holding it")
    }

    pub(super) fn listings(&self) -> MutexGuard<'_, BTreeMap<MatchId, Listing>> {
        self.listings.lock().expect("no thread panics holding it")
    }
}

/// Wakes a thread, but only when the tasks that are ready have had their turn. Woken from within a push, the thread would take the
/// processor from the pusher at once, for one command, and then wait for the lock under which the pusher called: on one core
/// that was a switch of threads for every message, and a fifth of the price of an echo.
pub(super) async fn ring(shard: Arc<Shard>) {
    while !shard.stop.load(Ordering::Acquire) {
        shard.bell.notified().await;
        tokio::task::yield_now().await;
        shard.unpark();
    }
}
