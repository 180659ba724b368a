//! What executor threads hand to the rest of the node: frames to gateways at once; effects and ends to tasks that may wait for
//! the store.

use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::peer::{self, Down};
use rookery_protocol::{MatchId, NodeLife};
use tokio::sync::mpsc;

use super::executor::{EffectOf, Outside};
use super::room::Verdict;
use crate::matches::machine::{Failure, LogLevel};
use crate::peer::DOWN;
use crate::session::hub::{Hub, node_id};
use crate::store::{Cas, FinalStatus, Finish};

/// Effects that wait to be performed, of all matches. Past this a match is answered `busy`.
const EFFECTS_MAX: usize = 16_384;

/// Ends that wait for the store. One for each match that was ever live here at once, so it is never full.
const ENDS_MAX: usize = 1 << 20;

/// Between two tries to write an end.
const END_AGAIN: Duration = Duration::from_millis(500);

/// Ends written at once. The store groups them.
const ENDS_AT_ONCE: usize = 256;

/// A match's end on its way into its row.
#[derive(Debug)]
struct End {
    target: MatchId,
    epoch: u64,
    verdict: Verdict,
}

/// The hands of the executor threads.
pub struct Desk {
    hub: Arc<Hub>,
    effects: mpsc::Sender<EffectOf>,
    ends: mpsc::Sender<End>,
}

impl Desk {
    /// Starts the tasks behind it; they end with the hub's node.
    pub fn start(hub: Arc<Hub>) -> Arc<Self> {
        let (effects, performing) = mpsc::channel(EFFECTS_MAX);
        let (ends, ending) = mpsc::channel(ENDS_MAX);
        hub.spawn(perform(Arc::clone(&hub), performing));
        hub.spawn(write_ends(Arc::clone(&hub), ending));
        Arc::new(Self { hub, effects, ends })
    }
}

impl Outside for Desk {
    fn down(&self, to: &NodeLife, message: Down) -> bool {
        if to == self.hub.local() {
            self.hub.down(to, message);
            return true;
        }
        let Some(node) = node_id(&to.name) else { return true };
        match self.hub.cluster().send(&node, DOWN, peer::encode(&message)) {
            Ok(()) => true,
            Err(rookery_gossip::SendError::Full) => false,
            // Gone: its streams end with the news of it. Too large to send: nobody can be told.
            Err(error) => {
                tracing::debug!(node = %to.name, %error, "a frame went nowhere");
                true
            }
        }
    }

    fn perform(&self, wanted: EffectOf) -> bool {
        self.effects.try_send(wanted).is_ok()
    }

    fn over(&self, target: MatchId, epoch: u64, verdict: Verdict) {
        if self.ends.try_send(End { target, epoch, verdict }).is_err() {
            tracing::error!(%target, "the end of a match cannot be written: too many wait");
        }
    }

    fn logged(&self, target: MatchId, module: &str, level: LogLevel, line: String) {
        match level {
            LogLevel::Debug => tracing::debug!(target: "module", %target, module, "{line}"),
            LogLevel::Info => tracing::info!(target: "module", %target, module, "{line}"),
            LogLevel::Warn => tracing::warn!(target: "module", %target, module, "{line}"),
            LogLevel::Error => tracing::error!(target: "module", %target, module, "{line}"),
        }
    }

    fn failed(&self, target: MatchId, module: &str, failure: &Failure) {
        self.hub.metrics().module(module).trapped(failure.kind);
        self.hub.metrics().matches_failed.inc();
        tracing::warn!(%target, module, kind = failure.kind.as_str(), message = failure.message, "a match failed");
    }
}

/// Writes ends into rows, as often as it takes.
async fn write_ends(hub: Arc<Hub>, mut ending: mpsc::Receiver<End>) {
    let mut writing = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(end) = ending.recv(), if writing.len() < ENDS_AT_ONCE => {
                writing.spawn(write_end(Arc::clone(&hub), end));
            }
            Some(_) = writing.join_next() => {}
            else => return,
        }
    }
}

async fn write_end(hub: Arc<Hub>, end: End) {
    let End { target, epoch, verdict } = end;
    let (status, outcome, reason) = match verdict {
        Verdict::Ended { outcome } => (FinalStatus::Ended, Some(outcome), None),
        Verdict::Failed { reason } => (FinalStatus::Failed, None, Some(reason)),
    };
    let finish = Finish {
        id: target,
        epoch,
        status,
        outcome,
        reason,
    };
    loop {
        match hub.store().finish_match(finish.clone()).await {
            Ok(Cas::Done) => return,
            Ok(Cas::Superseded(_)) => {
                // Somebody else owns the match, or buried it: the row is right and we are not.
                hub.metrics().ownership_conflicts.inc();
                tracing::warn!(%target, epoch, "the end of a match came too late");
                return;
            }
            Err(error) => {
                tracing::debug!(%target, error = &error as &dyn std::error::Error, "the end of a match waits for the store");
                tokio::time::sleep(END_AGAIN).await;
            }
        }
    }
}

/// Performs effects in the order in which they came, and answers them.
async fn perform(hub: Arc<Hub>, mut performing: mpsc::Receiver<EffectOf>) {
    while let Some(wanted) = performing.recv().await {
        let (target, id, request) = (wanted.target, wanted.id, wanted.effect.request());
        let outcome = super::effects::perform(&hub, wanted).await;
        hub.executor()
            .answer(target, id, request.map(|request| (request, outcome)));
    }
}
