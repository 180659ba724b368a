//! What keeps matches alive beyond their owners: this node's lease, the matches of others whose lease ran out, and a clean end
//! that hands over at once. The driver; when a lease holds is decided in `owner::lease`, who may take what by the store's
//! statements.
//!
//! Invariant: whoever takes a match over does so by one compare-and-swap in the store, under the next epoch, and only after the
//! owner's lease is over by the database's clock; the owner has fallen silent by then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::{MatchId, NodeName};
use tokio::task::JoinSet;

use crate::clock::boot_ms;
use crate::modules::unavailable;
use crate::owner::lease::{Effect, Input, LEASE_MS, Lease};
use crate::session::hub::{Hub, node_id};
use crate::store::{MatchRow, StoreError};

/// How often a node looks for matches without an owner, on average.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Every how many looks a node compares what it should run with what it does.
const MISSING_EVERY: u64 = 5;

/// Matches taken over in one step. What is more is for the next one, or for another node.
const TAKEN_AT_ONCE: u64 = 64;

/// Matches restored at once: each reads its state from the store and runs its `load`.
const RESTORED_AT_ONCE: usize = 8;

/// How long the last states of a node that stops may take on their way into the store.
const LAST_SAVES_WITHIN: Duration = Duration::from_secs(5);

/// Keeps the node's row, and with it the lease on what the node owns, until the node stops. `superseded` hears when another life
/// of the node is registered.
pub async fn keep_lease(hub: Arc<Hub>, asked_ms: u64, superseded: impl Fn()) {
    let mut lease = Lease::new(asked_ms);
    hub.fence().open_until(lease.until_ms());
    let mut input = Input::Wake;
    let mut effects = Vec::new();
    while !hub.fence().is_sealed() {
        lease.step(boot_ms(), input, &mut effects);
        input = Input::Wake;
        for effect in effects.drain(..) {
            match effect {
                Effect::Renew { asked_ms } => input = renew(&hub, asked_ms, &superseded).await,
                Effect::Check { asked_ms } => input = check(&hub, asked_ms).await,
                Effect::Open { until_ms } => hub.fence().open_until(until_ms),
                Effect::Lift => {
                    tracing::info!("the lease holds again: matches go on");
                    hub.executor().lifted();
                }
            }
        }
        if let (Input::Wake, Some(wake_ms)) = (input, lease.next_wake_ms()) {
            let wait_ms = wake_ms.saturating_sub(boot_ms());
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}

async fn renew(hub: &Arc<Hub>, asked_ms: u64, superseded: &impl Fn()) -> Input {
    match hub.store().renew_node(hub.local()).await {
        Ok(true) => Input::Renewed { asked_ms },
        Ok(false) => {
            // A node that stops has ended its life in the store by itself.
            if !hub.fence().is_sealed() {
                hub.fence().seal();
                superseded();
            }
            Input::Failed
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "the node's row was not renewed");
            Input::Failed
        }
    }
}

/// The lease had lapsed: whatever was taken meanwhile is dropped. The renewed lease keeps others away from the rest.
async fn check(hub: &Arc<Hub>, asked_ms: u64) -> Input {
    tracing::warn!("this node's lease had lapsed: its matches are compared with the store");
    // Taken before the rows are read: what is begun meanwhile is not to be found in them.
    let held = hub.executor().leased();
    let ours = match hub.store().leased_by(hub.local()).await {
        Ok(ours) => ours,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "the matches under the lease could not be read");
            return Input::Unchecked;
        }
    };
    for (target, epoch) in held {
        if ours.get(&target) != Some(&epoch) {
            tracing::warn!(%target, epoch, "a match was taken over meanwhile, and is dropped");
            hub.metrics().ownership_conflicts.inc();
            hub.executor().drop_match(target, epoch);
        }
    }
    Input::Checked { asked_ms }
}

/// Looks for matches without an owner, until the node stops. Each node takes its share of them, so that they spread.
pub async fn adopt(hub: Arc<Hub>) {
    let mut missing = BTreeMap::new();
    for round in 1_u64.. {
        let jitter = rand::random_range(0.5..1.5);
        tokio::time::sleep(LOOK_EVERY.mul_f64(jitter)).await;
        if !hub.takes_matches() || !hub.fence().is_open() || hub.cluster().is_isolated() {
            continue;
        }
        let taken = match take(&hub).await {
            Ok(mut taken) if round.is_multiple_of(MISSING_EVERY) => match retake(&hub, &mut missing).await {
                Ok(again) => {
                    taken.extend(again);
                    Ok(taken)
                }
                Err(error) => {
                    restore(&hub, taken).await;
                    Err(error)
                }
            },
            taken => taken,
        };
        match taken {
            Ok(taken) => restore(&hub, taken).await,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the store is away: matches without an owner wait"
                );
            }
        }
    }
}

/// Begins matches anew that the store says we run and that were not here twice in a row: whatever lost them, nobody else would find
/// them. One that has just ended is not here either, but its row says so by the second time.
async fn retake(hub: &Arc<Hub>, missing: &mut BTreeMap<MatchId, u64>) -> Result<Vec<MatchRow>, StoreError> {
    let ours = hub.store().leased_by(hub.local()).await?;
    let here = hub.executor().leased();
    let absent: BTreeMap<MatchId, u64> = ours
        .into_iter()
        .filter(|(target, _)| !here.contains_key(target))
        .collect();
    let before = std::mem::replace(missing, absent.clone());
    let mut again = Vec::new();
    for (target, epoch) in absent {
        if before.get(&target) == Some(&epoch)
            && let Some(row) = hub.store().retake_match(target, epoch, hub.local()).await?
        {
            tracing::warn!(%target, epoch, "a match that this node should run was not here: it begins anew");
            hub.metrics().ownership_conflicts.inc();
            again.push(row);
        }
    }
    Ok(again)
}

async fn take(hub: &Arc<Hub>) -> Result<Vec<MatchRow>, StoreError> {
    let unleased = hub.store().count_unleased(LEASE_MS).await?;
    if unleased == 0 {
        return Ok(Vec::new());
    }
    let lost = hub.store().lose_unleased(LEASE_MS).await?;
    if !lost.is_empty() {
        hub.metrics().matches_lost.inc_by(lost.len() as u64);
        tracing::warn!(matches = lost.len(), "named matches were lost with their node");
    }
    let nodes = hub.cluster().members().borrow().ready().count().max(1) as u64;
    let share = unleased.div_ceil(nodes).min(TAKEN_AT_ONCE);
    hub.store()
        .take_over_unleased(hub.local(), LEASE_MS, share as u32)
        .await
}

async fn restore(hub: &Arc<Hub>, taken: Vec<MatchRow>) {
    if !taken.is_empty() {
        tracing::warn!(matches = taken.len(), "matches are taken over from nodes that are gone");
    }
    let mut restoring = JoinSet::new();
    for row in taken {
        if restoring.len() >= RESTORED_AT_ONCE {
            restoring.join_next().await;
        }
        restoring.spawn(Arc::clone(hub).start_quietly(row));
    }
    while restoring.join_next().await.is_some() {}
}

/// Hands back what is left when the node stops: its matches fall silent, are saved a last time, and others may take them at once.
pub async fn hand_back(hub: &Arc<Hub>) -> Result<(), StoreError> {
    hub.fence().seal();
    let last = async {
        let saves = hub.executor().save_all().await;
        hub.saver().settled().await;
        saves
    };
    match tokio::time::timeout(LAST_SAVES_WITHIN, last).await {
        Ok(saves) => tracing::info!(saves, "matches were saved a last time"),
        Err(_) => tracing::warn!("not every match could be saved a last time"),
    }
    hub.store().release_node(hub.local()).await
}

/// Counts a node that will not return as dead, so that its leases need not run out.
///
/// # Errors
/// `node.not_found`, `forbidden` for a node that lives, `unavailable`.
pub async fn forget(hub: &Arc<Hub>, name: &NodeName) -> Result<(), Refusal> {
    if hub.is_alive(name) {
        let message = format!("node {name} is alive: drain it, or stop it first");
        return Err(Refusal::new(ErrorCode::Forbidden, message));
    }
    let forgotten = hub
        .store()
        .forget_node(name)
        .await
        .map_err(|error| unavailable(&error))?;
    let Some(generation) = forgotten else {
        let message = format!("no node has ever been called {name}");
        return Err(Refusal::new(ErrorCode::NodeNotFound, message));
    };
    tracing::warn!(%name, generation, "a node was counted as dead by an operator");
    hub.node_gone(name.clone(), generation);
    if let Some(node) = node_id(name) {
        hub.cluster().forget(&node).await;
    }
    Ok(())
}
