//! Asks where a player is who was in a match, along the transfers that they made since (`session::trail`).
//!
//! Only an owner knows who sits in its match, so each question goes to one. The directory says where it is sooner than the store, and
//! may be behind: whoever it leads to without finding the match asks the store, as everybody does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_protocol::peer::{PeerAnswer, PeerRequest, Standing};
use rookery_protocol::{MatchId, NodeName, PlayerId};

use super::Hub;
use crate::session::trail::{Found, Next, Trail, Word};

/// Between two questions about a player who is on the way, or about a match that is.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How long an owner may take to answer. It does so from memory; one that stands still may have been followed by another, whom only
/// a later question finds.
const ANSWERED_WITHIN: Duration = Duration::from_millis(400);

impl Hub {
    /// Follows a player who was in this match, until then.
    pub async fn where_player_is(self: &Arc<Self>, first: MatchId, player: PlayerId, by: Instant) -> Found {
        let mut trail = Trail::new(first);
        let following = async {
            loop {
                let word = self.standing(trail.at(), player).await;
                match trail.heard(word) {
                    Next::Ask => {}
                    Next::AskAgain => tokio::time::sleep(ASK_AGAIN).await,
                    Next::Found(found) => return found,
                }
            }
        };
        let followed = tokio::time::timeout_at(by.into(), following).await;
        followed.unwrap_or_else(|_| trail.out_of_time())
    }

    /// What the player is to the match.
    async fn standing(self: &Arc<Self>, target: MatchId, player: PlayerId) -> Word {
        if let Some(standing) = self.executor().standing(target, player).await {
            return Word::Standing(standing);
        }
        let listed = self.services().directory.whereis(target).await;
        if let Some(listed) = &listed
            && let Some(standing) = self.standing_at(&listed.owner.name, target, player).await
        {
            return Word::Standing(standing);
        }
        let row = match self.store().read_match(target).await {
            Ok(row) => row.filter(|row| row.status.is_live()),
            // The directory knew of it a moment ago, and will know more.
            Err(_) if listed.is_some() => return Word::Silence,
            Err(_) => return Word::Nobody,
        };
        let Some(row) = row else { return Word::Over };
        let owner = row.configuration.owner;
        if !self.is_member(&owner) {
            return Word::Nobody;
        }
        let standing = self.standing_at(&owner.name, target, player).await;
        standing.map_or(Word::Silence, Word::Standing)
    }

    async fn standing_at(self: &Arc<Self>, owner: &NodeName, target: MatchId, player: PlayerId) -> Option<Standing> {
        let request = PeerRequest::Standing { target, player };
        match self.ask(owner, &request, ANSWERED_WITHIN).await {
            Ok(PeerAnswer::Standing(standing)) => Some(standing),
            Ok(_) | Err(_) => None,
        }
    }
}
