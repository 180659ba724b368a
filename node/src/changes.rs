//! Players of whom something changed in the store, until somebody has looked: a set with a bell. Saying twice is saying once.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use rookery_protocol::PlayerId;
use tokio::sync::Notify;

/// Players to look at. It holds no more than the players with a socket here.
#[derive(Debug, Default)]
pub struct Changes {
    players: Mutex<BTreeSet<PlayerId>>,
    bell: Notify,
}

impl Changes {
    pub fn add(&self, players: impl IntoIterator<Item = PlayerId>) {
        let rings = {
            let mut set = self.players();
            set.extend(players);
            !set.is_empty()
        };
        if rings {
            self.bell.notify_one();
        }
    }

    /// Takes at most this many.
    pub fn take(&self, len_max: usize) -> Vec<PlayerId> {
        let mut set = self.players();
        let rest = set.iter().nth(len_max).copied();
        let rest = rest.map(|first| set.split_off(&first)).unwrap_or_default();
        let taken = std::mem::replace(&mut *set, rest).into_iter().collect();
        if !set.is_empty() {
            self.bell.notify_one();
        }
        taken
    }

    /// Waits until there are some.
    pub async fn some(&self) {
        self.bell.notified().await;
    }

    fn players(&self) -> MutexGuard<'_, BTreeSet<PlayerId>> {
        self.players.lock().expect("no thread panics holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_taken_at_once_rings_again() {
        let changes = Changes::default();
        changes.add((1..=5).map(PlayerId::from_u128));
        changes.add([PlayerId::from_u128(3)]);
        let mut taken = Vec::new();
        for _ in 0..3 {
            changes.some().await;
            taken.extend(changes.take(2));
        }
        assert_eq!(taken, (1..=5).map(PlayerId::from_u128).collect::<Vec<_>>());
        assert_eq!(changes.take(2), []);
    }
}
