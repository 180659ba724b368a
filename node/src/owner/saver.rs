//! Writes saved states into the store, in groups, as they come. No match waits for it: a state that could not be written is
//! followed by a newer one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rookery_protocol::MatchId;
use tokio::sync::{Notify, mpsc};

use crate::metrics::SaveOutcome;
use crate::session::hub::Hub;
use crate::store::Save;

/// States that wait. A match has one under way at a time; further ones are refused, and due again an interval later.
const WAITING_MAX: usize = 8_192;

/// States, and bytes of them, in one transaction: on SQLite other writers wait meanwhile.
const GROUP_LEN_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 1 << 20;

/// The way to the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Saver {
    states: mpsc::Sender<Save>,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    waiting: AtomicUsize,
    settled: Notify,
}

/// The other end, for [`run`].
pub struct Waiting {
    states: mpsc::Receiver<Save>,
    progress: Arc<Progress>,
}

impl Saver {
    pub fn new() -> (Self, Waiting) {
        let (sender, states) = mpsc::channel(WAITING_MAX);
        let progress = Arc::new(Progress::default());
        let waiting = Waiting {
            states,
            progress: Arc::clone(&progress),
        };
        (
            Self {
                states: sender,
                progress,
            },
            waiting,
        )
    }

    /// Takes a state; false when too many wait.
    pub fn save(&self, save: Save) -> bool {
        self.progress.waiting.fetch_add(1, Ordering::AcqRel);
        let taken = self.states.try_send(save).is_ok();
        if !taken {
            self.progress.settle(1);
        }
        taken
    }

    /// Waits until everything that was taken is written, or has failed.
    pub async fn settled(&self) {
        loop {
            let settled = self.progress.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.progress.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            settled.await;
        }
    }
}

impl Progress {
    fn settle(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::AcqRel);
        self.settled.notify_waiters();
    }
}

/// Writes until the node stops.
pub async fn run(hub: Arc<Hub>, mut waiting: Waiting) {
    let mut is_failing = false;
    while let Some(first) = waiting.states.recv().await {
        let (mut taken, mut bytes) = (1, size(&first));
        // Of one match the newest counts.
        let mut group = BTreeMap::from([(first.id, first)]);
        while group.len() < GROUP_LEN_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(next) = waiting.states.try_recv() else { break };
            taken += 1;
            bytes += size(&next);
            group.insert(next.id, next);
        }
        let group: Vec<Save> = group.into_values().collect();
        let written = hub.store().save_matches(&group).await;
        waiting.progress.settle(taken);
        match written {
            Ok(refused) => {
                is_failing = false;
                for save in &group {
                    let refused = refused.contains(&save.id);
                    let outcome = if refused {
                        SaveOutcome::Refused
                    } else {
                        SaveOutcome::Written
                    };
                    hub.metrics().match_saved(outcome);
                    hub.executor().saved(save.id, save.epoch, !refused);
                    if refused {
                        tell_refused(&hub, save.id);
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the store is away: matches are not saved");
                }
                for save in &group {
                    hub.metrics().match_saved(SaveOutcome::Failed);
                    hub.executor().saved(save.id, save.epoch, false);
                }
            }
        }
    }
}

/// The store has another epoch for this match, so it is not ours.
fn tell_refused(hub: &Arc<Hub>, target: MatchId) {
    let checking = Arc::clone(hub);
    hub.spawn(async move {
        if let Err(error) = checking.drop_if_lost(target).await {
            tracing::debug!(%target, error = &error as &dyn std::error::Error, "whose the match is could not be read");
        }
    });
}

fn size(save: &Save) -> usize {
    save.state.len() + save.part.len()
}
