//! The changes on their way to subscribers: one bounded queue that all of them read, each at its own pace. It compares nothing
//! itself (`changes.rs` does).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use super::{Change, between};
use crate::member::Members;

/// Changes that wait for the slowest subscriber. A hundred nodes that start together bring about four hundred; whoever is further
/// behind is told the difference instead.
const CHANGES_LEN_MAX: usize = 512;

/// Where the membership puts what it shows.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Held while a view's changes are queued, so that a subscriber begins before all of them or after.
    shown: Mutex<Members>,
    queue: broadcast::Sender<Change>,
    stop: CancellationToken,
}

impl Feed {
    pub(crate) fn new(stop: CancellationToken) -> Arc<Self> {
        Self::with_room(CHANGES_LEN_MAX, stop)
    }

    fn with_room(len_max: usize, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            shown: Mutex::default(),
            queue: broadcast::Sender::new(len_max),
            stop,
        })
    }

    fn shown(&self) -> MutexGuard<'_, Members> {
        self.shown.lock().expect("nothing panics under this lock")
    }

    /// Shows the members as they are now.
    pub(crate) fn publish(&self, members: Members) {
        let mut shown = self.shown();
        for change in between(&shown, &members) {
            // Nobody has subscribed: the next one to do so begins with what is shown.
            let _ = self.queue.send(change);
        }
        *shown = members;
    }

    pub(crate) fn subscribe(self: &Arc<Self>) -> Changes {
        let shown = self.shown();
        let known = Members::default();
        Changes {
            feed: Arc::clone(self),
            queue: self.queue.subscribe(),
            first: between(&known, &shown).into(),
            known,
        }
    }
}

/// Is a stream of what becomes of the members, this node included; see [`Cluster::changes`](crate::Cluster::changes).
#[derive(Debug)]
pub struct Changes {
    feed: Arc<Feed>,
    queue: broadcast::Receiver<Change>,
    /// What is told before the queue: what was there at first, or the difference after a lag. At most three for each member.
    first: VecDeque<Change>,
    known: Members,
}

impl Changes {
    /// Waits for the next change; none when the mesh has stopped and everything has been told. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Change> {
        let stop = self.feed.stop.clone();
        loop {
            if let Some(change) = self.try_next() {
                return Some(change);
            }
            tokio::select! {
                biased;
                received = self.queue.recv() => match received {
                    Ok(change) => return Some(self.told(change)),
                    Err(RecvError::Lagged(_)) => self.catch_up(),
                    Err(RecvError::Closed) => return None,
                },
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Returns the next change if there is one already.
    pub fn try_next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.first.pop_front() {
                return Some(self.told(change));
            }
            match self.queue.try_recv() {
                Ok(change) => return Some(self.told(change)),
                Err(TryRecvError::Lagged(_)) => self.catch_up(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// Returns the members as the changes told so far make them; without round trips.
    pub fn members(&self) -> &Members {
        &self.known
    }

    fn told(&mut self, change: Change) -> Change {
        self.known.apply(&change);
        change
    }

    /// Too much has happened for the queue: what is left to tell is the difference between what was told and what is so now.
    fn catch_up(&mut self) {
        let shown = self.feed.shown();
        self.queue = self.feed.queue.subscribe();
        self.first = between(&self.known, &shown).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::tests::{members, random_view};

    use proptest::prelude::*;

    proptest! {
        /// Whatever happens, and however slowly it is read: what has been told is what is shown, and only legal steps were told.
        #[test]
        fn a_subscriber_that_lags_loses_no_net_effect(
            views in prop::collection::vec((random_view(), 0..6usize), 1..40),
            joined_after in 0..5usize,
        ) {
            let feed = Feed::with_room(4, CancellationToken::new());
            let mut changes = None;
            let mut steps = crate::changes::tests::Steps::default();
            for (at, (view, read)) in views.iter().enumerate() {
                feed.publish(members(view));
                if at >= joined_after {
                    let changes = changes.get_or_insert_with(|| feed.subscribe());
                    for _ in 0..*read {
                        if let Some(change) = changes.try_next() {
                            steps.check(&change)?;
                        }
                    }
                }
            }
            let mut changes = changes.unwrap_or_else(|| feed.subscribe());
            while let Some(change) = changes.try_next() {
                steps.check(&change)?;
            }
            let (last, _) = views.last().unwrap();
            prop_assert_eq!(changes.members(), &members(last));
        }
    }

    #[tokio::test]
    async fn the_stream_ends_with_the_mesh_when_everything_has_been_told() {
        let stop = CancellationToken::new();
        let feed = Feed::new(stop.clone());
        let mut changes = feed.subscribe();
        feed.publish(members(&[(0, 1, 1)]));
        stop.cancel();
        assert!(changes.next().await.is_some());
        assert_eq!(changes.next().await, None);
    }
}
