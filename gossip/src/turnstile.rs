//! Paces the handshakes that this node begins. A handshake costs both ends together some 2.5 ms of a processor, so a node that dials a
//! hundred peers at once spends a quarter of a second before the first of them is done; a hundred nodes on few machines that did so
//! together ran into each other's timeouts, tried again, and never came to an end. It does not decide who is dialled, nor when again.
//!
//! Who waits comes to its turn at random. Whoever sends to all members does so in the order of their names, and so do all other nodes
//! at the same moment: in turn they would all come to the first one together, then all to the second one.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// From when on a clock that should have rung is a sign that this process gets no processor time, in parts of the patience.
const STARVED_AFTER: f64 = 1.5;

/// Lets so many dials begin, and one more whenever one has ended or has been without an answer for long enough.
#[derive(Debug)]
pub(crate) struct Turnstile {
    state: Mutex<State>,
    /// A dial that takes longer than this waits for a peer and not for a processor: it goes on, and another one may begin. Unless this
    /// process is starved: then everything takes longer, and further dials would only run into their timeouts.
    patience: Duration,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// As many as there are peers or addresses being dialled, which are bounded where they are kept.
    waiting: Vec<oneshot::Sender<Turn>>,
}

/// The right to dial. It goes to somebody else when it is dropped, also on its way to someone who no longer waits for it.
#[derive(Debug)]
pub(crate) struct Turn {
    turnstile: Arc<Turnstile>,
}

impl Turnstile {
    pub(crate) fn new(turns: usize, patience: Duration) -> Arc<Self> {
        let state = State {
            free: turns,
            waiting: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            patience,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Waits for a turn.
    pub(crate) async fn enter(self: &Arc<Self>) -> Turn {
        let turn = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Turn {
                    turnstile: self.clone(),
                };
            }
            let (give, turn) = oneshot::channel();
            // Those that were cancelled while they waited would pile up while nobody leaves.
            state.waiting.retain(|waiting| !waiting.is_closed());
            state.waiting.push(give);
            turn
        };
        turn.await.expect("a turn is given to everybody who waits, some day")
    }
}

impl Turn {
    /// Dials.
    pub(crate) async fn spend<T>(self, dial: impl Future<Output = T>) -> T {
        tokio::pin!(dial);
        let (began, patience) = (Instant::now(), self.turnstile.patience);
        if let Ok(result) = timeout(patience, &mut dial).await {
            return result;
        }
        if began.elapsed() < patience.mul_f64(STARVED_AFTER) {
            drop(self);
        }
        dial.await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.turnstile.state();
            state.waiting.retain(|waiting| !waiting.is_closed());
            if state.waiting.is_empty() {
                state.free += 1;
                return;
            }
            let index = rand::random_range(0..state.waiting.len());
            state.waiting.swap_remove(index)
        };
        let turn = Turn {
            turnstile: self.turnstile.clone(),
        };
        // One that has just stopped waiting hands it on by dropping it.
        let _ = next.send(turn);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::sleep;

    use super::*;

    /// Ten dials of this length through two turns with 100 ms of patience: how long they take, and how many ran at once.
    async fn ten(length: Duration) -> (Duration, usize) {
        let turnstile = Turnstile::new(2, Duration::from_millis(100));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let began = Instant::now();
        let mut dials = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (turnstile, running, most) = (turnstile.clone(), running.clone(), most.clone());
            dials.spawn(async move {
                let dial = async {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(length).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                turnstile.enter().await.spend(dial).await;
            });
        }
        dials.join_all().await;
        (began.elapsed(), most.load(Ordering::SeqCst))
    }

    fn waits(turnstile: Arc<Turnstile>) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let turn = turnstile.enter().await;
            turn.spend(std::future::pending::<()>()).await;
        })
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_dials_run_at_once() {
        let (took, most) = ten(Duration::from_millis(10)).await;
        assert_eq!((took.as_millis(), most), (50, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_waiting_takes_no_turn_away() {
        let turnstile = Turnstile::new(1, Duration::from_millis(100));
        let first = turnstile.enter().await;
        let mut given_up = waits(turnstile.clone());
        let mut patient = waits(turnstile.clone());
        tokio::task::yield_now().await;
        // Cancelled while it waits, and cancelled when the turn is on its way already.
        given_up.abort();
        drop(first);
        patient.abort();
        let _ = (&mut given_up).await;
        let _ = (&mut patient).await;
        timeout(Duration::from_secs(1), turnstile.enter())
            .await
            .expect("the turn is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_answer_holds_the_others_up_for_a_moment_only() {
        let (took, most) = ten(Duration::from_secs(2)).await;
        // The fifth pair begins after four times 100 ms.
        assert_eq!((took.as_millis(), most), (2_400, 10));
    }
}
