//! Where a player is who was in a match: there still, or in another one to which matches have transferred them since.
//!
//! It asks the owners, one after the other, and never the store for what only an owner knows. What cannot be found out in time is
//! not known: the caller says nothing then that it would not say without asking.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::peer::{PeerAnswer, PeerRequest, Standing};
use rookery_protocol::{MatchId, NodeName, PlayerId};

use super::Hub;

/// Transfers after which the trail is given up.
const HOPS_MAX: usize = 8;

/// Between two questions about a player who is on the way.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Where a player is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// In that match, or in none as far as is known.
    There,
    /// They are being transferred.
    OnTheWay,
    /// They sit in this one.
    Elsewhere(MatchId),
}

impl Hub {
    /// Follows a player who was in this match, until then.
    pub async fn where_player_is(self: &Arc<Self>, first: MatchId, player: PlayerId, by: Instant) -> Found {
        let (mut at, mut hops) = (first, 0);
        loop {
            let found = match at == first {
                true => Found::There,
                false => Found::Elsewhere(at),
            };
            let asking = tokio::time::timeout_at(by.into(), self.standing(at, player, by));
            match asking.await.ok().flatten() {
                Some(Standing::Went(to)) if hops < HOPS_MAX => (at, hops) = (to, hops + 1),
                Some(Standing::OnTheWay) if Instant::now() + ASK_AGAIN < by => tokio::time::sleep(ASK_AGAIN).await,
                Some(Standing::OnTheWay) => return Found::OnTheWay,
                // Where they went last they have no seat any more: nobody can say that they are there.
                Some(Standing::Unknown) => return Found::There,
                Some(Standing::Seated | Standing::Went(_)) | None => return found,
            }
        }
    }

    /// What the player is to the match, if its owner is found and answers.
    async fn standing(self: &Arc<Self>, target: MatchId, player: PlayerId, by: Instant) -> Option<Standing> {
        if let Some(standing) = self.executor().standing(target, player).await {
            return Some(standing);
        }
        let owner = self.owner_of(target).await?;
        let within = by.saturating_duration_since(Instant::now());
        match self
            .ask(&owner, &PeerRequest::Standing { target, player }, within)
            .await
        {
            Ok(PeerAnswer::Standing(standing)) => Some(standing),
            Ok(_) | Err(_) => None,
        }
    }

    async fn owner_of(&self, target: MatchId) -> Option<NodeName> {
        if let Some(found) = self.services().directory.whereis(target).await {
            return Some(found.owner.name);
        }
        let row = self.store().read_match(target).await.ok().flatten()?;
        row.status.is_live().then_some(row.configuration.owner.name)
    }
}
