//! Moving a running match to another version of its module: the new version loads what the old one saved, at an event boundary, and
//! its players notice nothing but what it does differently.
//!
//! Invariants: a version that cannot be used here, refuses, or fails leaves the match as it was. Between the event that put the new
//! version in and the row that says so nobody speaks for the match and it hears nothing, so whoever goes on with it after a crash
//! goes on with the version that its players have heard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{PeerAnswer, PeerRequest};
use rookery_protocol::{Digest, MatchId};

use crate::metrics::PauseReason;
use crate::modules::{Purpose, unavailable};
use crate::session::hub::Hub;
use crate::store::{Cas, MatchRow, MatchStatus, Pin};

/// How long a node that asks for an upgrade waits for the owner, which may have to fetch and compile the component.
const UPGRADE_WITHIN: Duration = Duration::from_secs(30);

/// Between two tries of the store, when a row must be written.
const STORE_AGAIN: Duration = Duration::from_millis(500);

impl Hub {
    /// Has the owner of this live match go on under this version of its module.
    ///
    /// # Errors
    /// Why it goes on as it is: `match.closed`, `match.refused` (with the `reason`), `module.not_found`, `module.invalid`,
    /// `unavailable`.
    pub async fn upgrade_match(self: &Arc<Self>, row: &MatchRow, digest: Digest) -> Result<(), Refusal> {
        if !row.status.is_live() {
            return Err(Refusal::new(ErrorCode::MatchClosed, "the match is over").with("status", row.status.as_str()));
        }
        let order = PeerRequest::Upgrade { target: row.id, digest };
        match self.ask(&row.configuration.owner.name, &order, UPGRADE_WITHIN).await? {
            PeerAnswer::Done => Ok(()),
            PeerAnswer::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::new(
                ErrorCode::Unavailable,
                "the match is not with its owner now; try again",
            )),
        }
    }
}

/// Upgrades a match of this node.
pub async fn upgrade(hub: Arc<Hub>, target: MatchId, digest: Digest) -> PeerAnswer {
    if hub.executor().epoch_of(target).is_none() {
        return PeerAnswer::NotHere;
    }
    // Once begun it comes to its end, whether or not the one who asked still waits.
    let upgrading = Arc::clone(&hub);
    let (told, answer) = tokio::sync::oneshot::channel();
    hub.spawn(async move {
        let upgraded = try_upgrade(&upgrading, target, digest).await;
        if let Err(refusal) = &upgraded {
            let reason = refusal.details.get("reason").and_then(|reason| reason.as_str());
            tracing::warn!(%target, %digest, %refusal, reason, "a match was not upgraded");
        }
        let _ = told.send(upgraded);
    });
    match answer.await {
        Ok(Ok(())) => PeerAnswer::Done,
        Ok(Err(refusal)) => PeerAnswer::Refused(refusal),
        Err(_) => PeerAnswer::NotHere,
    }
}

async fn try_upgrade(hub: &Arc<Hub>, target: MatchId, digest: Digest) -> Result<(), Refusal> {
    // The match plays on while this is fetched and compiled.
    let module = hub.modules().load(digest, Purpose::NewMatch).await?;
    let row = hub.store().read_match(target).await;
    let row = row.map_err(|error| unavailable(&error))?;
    let ours = |row: &MatchRow| row.status == MatchStatus::Running && row.configuration.owner == *hub.local();
    let Some(row) = row.filter(ours) else {
        return Err(Refusal::new(ErrorCode::Unavailable, "the match is not this node's now"));
    };
    if row.digest == digest {
        return Ok(());
    }
    let paused = Instant::now();
    let epoch = hub.executor().upgrade(target, module).await?;
    let pin = Pin {
        id: target,
        epoch,
        from: row.digest,
        to: digest,
    };
    match pin_until_known(hub, &pin).await {
        Cas::Done => {
            hub.executor().thaw(target, epoch);
            hub.metrics().match_paused(PauseReason::Upgrade, paused.elapsed());
            tracing::info!(%target, from = %row.digest, to = %digest, pause_ms = paused.elapsed().as_millis() as u64, "a match was upgraded");
            Ok(())
        }
        Cas::Superseded(_) => {
            hub.executor().drop_match(target, epoch);
            Err(Refusal::new(ErrorCode::Unavailable, "the match has another owner"))
        }
    }
}

/// Nothing was heard of the new version yet, and the match cannot go back to the old one: it waits for its row.
async fn pin_until_known(hub: &Arc<Hub>, pin: &Pin) -> Cas {
    loop {
        match hub.store().pin_match(pin).await {
            Ok(cas) => return cas,
            Err(error) => {
                tracing::warn!(target = %pin.id, error = &error as &dyn std::error::Error, "the store is away: an upgraded match waits");
                tokio::time::sleep(STORE_AGAIN).await;
            }
        }
    }
}
