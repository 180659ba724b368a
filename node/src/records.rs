//! Who played which match, on its way into the store: noted when they sit down, written in groups within seconds, and for the
//! last of them before the match's end, so that the record of a match that is over names its players.
//!
//! Nothing waits for it but the end of a match. What cannot be kept while the store is away for long is dropped and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rookery_protocol::{MatchId, PlayerId};
use tokio::sync::Semaphore;

use crate::session::hub::Hub;
use crate::store::StoreError;

/// How often those who sat down are written. A match that is lost with its node lacks at most those of this time.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// Those who wait to be written. At 1,000 seatings a second it is a minute of the store's absence.
const WAITING_MAX: usize = 65_536;

/// How many are written at once.
const NOTED_AT_ONCE: usize = 500;

/// Who sat down and is not written yet.
#[derive(Debug, Default)]
struct Waiting {
    by_match: BTreeMap<MatchId, BTreeSet<PlayerId>>,
    count: usize,
}

impl Waiting {
    /// False when there is no room.
    fn add(&mut self, target: MatchId, player: PlayerId) -> bool {
        if self.count >= WAITING_MAX {
            return false;
        }
        if self.by_match.entry(target).or_default().insert(player) {
            self.count += 1;
        }
        true
    }

    fn take(&mut self, target: MatchId) -> Vec<(MatchId, PlayerId)> {
        let players = self.by_match.remove(&target).unwrap_or_default();
        self.count -= players.len();
        players.into_iter().map(|player| (target, player)).collect()
    }

    fn take_some(&mut self) -> Vec<(MatchId, PlayerId)> {
        let mut taken = Vec::new();
        while taken.len() < NOTED_AT_ONCE
            && let Some(target) = self.by_match.keys().next().copied()
        {
            taken.extend(self.take(target));
        }
        taken
    }
}

/// The players of this node's matches, on their way into the store.
pub struct Records {
    hub: Arc<Hub>,
    waiting: Mutex<Waiting>,
    /// Whose turn it is to write. Of many matches that end at once the first one writes for all, and the others wait for it.
    turn: Semaphore,
}

impl Records {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let records = Arc::new(Self {
            hub: Arc::clone(hub),
            waiting: Mutex::default(),
            turn: Semaphore::new(1),
        });
        let noting = Arc::clone(&records);
        hub.spawn(async move {
            loop {
                tokio::time::sleep(NOTE_EVERY).await;
                if let Err(error) = noting.write_all().await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "who played is not written yet"
                    );
                }
            }
        });
        records
    }

    /// A player sat down in a match of this node.
    pub fn seated(&self, target: MatchId, player: PlayerId) {
        if !self.waiting().add(target, player) {
            self.hub.metrics().records_dropped.inc();
        }
    }

    /// Writes who sat down in this match, and others while it is at it; the match's end is written next.
    ///
    /// # Errors
    /// The store's. They wait on.
    pub async fn write_players_of(&self, target: MatchId) -> Result<(), StoreError> {
        let _turn = self.turn.acquire().await;
        let mut players = self.waiting().take(target);
        if !players.is_empty() {
            players.extend(self.waiting().take_some());
        }
        self.write(players).await
    }

    /// Writes everything that waits.
    ///
    /// # Errors
    /// The store's. What is not written waits on.
    pub async fn write_all(&self) -> Result<(), StoreError> {
        loop {
            let _turn = self.turn.acquire().await;
            let players = self.waiting().take_some();
            if players.is_empty() {
                return Ok(());
            }
            self.write(players).await?;
        }
    }

    async fn write(&self, players: Vec<(MatchId, PlayerId)>) -> Result<(), StoreError> {
        if players.is_empty() {
            return Ok(());
        }
        let written = self.hub.store().note_players(&players).await;
        if written.is_err() {
            players
                .into_iter()
                .for_each(|(target, player)| self.seated(target, player));
        }
        written
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no thread panics holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_taken_once() {
        let (mut waiting, target) = (Waiting::default(), MatchId::from_parts(1, 1));
        for no in 0..WAITING_MAX as u128 {
            assert!(waiting.add(MatchId::from_parts(no as u64 / 64, 2), PlayerId::from_u128(no)));
        }
        assert!(
            !waiting.add(target, PlayerId::from_u128(1)),
            "there is no room for more"
        );
        let mut taken = BTreeSet::new();
        loop {
            let some = waiting.take_some();
            if some.is_empty() {
                break;
            }
            assert!(some.len() < 2 * NOTED_AT_ONCE);
            taken.extend(some);
        }
        assert_eq!((taken.len(), waiting.count), (WAITING_MAX, 0));

        // Who sits down again is one player.
        assert!(waiting.add(target, PlayerId::from_u128(1)) && waiting.add(target, PlayerId::from_u128(1)));
        assert_eq!(waiting.take(target), [(target, PlayerId::from_u128(1))]);
        assert_eq!((waiting.take(target).len(), waiting.count), (0, 0));
    }
}
