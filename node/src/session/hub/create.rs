//! Creating a match: its row, and which node it goes to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_protocol::client::Payload;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{PeerAnswer, PeerRequest};
use rookery_protocol::{MatchId, NodeLife, NodeName, PlayerId};

use super::Hub;
use crate::config::Create;
use crate::matches::part::Invitee;
use crate::matches::start;
use crate::modules::{Published, unavailable};
use crate::placement::{self, Candidate};
use crate::store::{Cas, Configuration, CreateMatchError, MatchKind, MatchRow, MatchStatus, NewMatch as NewRow, Swap};

/// How long a node may take to start a match for another: compiling the module on first use is part of it.
const START_WITHIN: Duration = Duration::from_secs(20);

/// What a session wants to create.
#[derive(Debug)]
pub struct CreateWish {
    pub module: String,
    pub params: Payload,
    pub private: bool,
    pub name: Option<String>,
    pub quick_key: Option<String>,
}

impl Hub {
    /// Creates a match for a player, on the less loaded of two random ready nodes.
    ///
    /// # Errors
    /// `module.not_found`, `forbidden`, `bad_message`, `name.taken`, `match.too_many`, `match.refused`, `module.invalid`,
    /// `unavailable`. When the store did not answer, the match may exist all the same, and ends by itself when nobody comes.
    pub async fn create(self: &Arc<Self>, player: PlayerId, wish: CreateWish) -> Result<MatchId, Refusal> {
        let published = self.modules().resolve(&wish.module).await?;
        let rules = self.config().modules.by_name.get(&published.manifest.name);
        if rules.is_some_and(|rules| rules.create == Create::Server) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "only the server creates matches of this module",
            ));
        }
        if let Some(name) = &wish.name
            && !is_match_name(name)
        {
            let message = "a name is 1 to 64 of a-z, 0-9, '-' and '_'";
            return Err(Refusal::new(ErrorCode::BadMessage, message));
        }
        let params = wish
            .params
            .into_bytes(published.manifest.codec)
            .map_err(|error| Refusal::new(ErrorCode::BadMessage, format!("params: {error}")))?;
        let row = self.new_row(&published, params, Some(player));
        let row = NewRow {
            private: wish.private,
            name: wish.name,
            quick_key: wish.quick_key,
            ..row
        };
        self.create_row(published, row).await
    }

    pub(super) fn new_row(&self, published: &Published, params: Bytes, creator: Option<PlayerId>) -> NewRow {
        NewRow {
            id: MatchId::from_parts(self.unix_ms(), rand::random()),
            kind: MatchKind::Match,
            name: None,
            module: published.manifest.name.clone(),
            digest: published.row.digest,
            durability: start::stored_durability(published.manifest.durability),
            params,
            seed: rand::random(),
            limits: start::limits_text(self.config()),
            invited: "[]".into(),
            creator,
            private: false,
            owner: self.place(),
            backup: None,
            quick_key: None,
            creator_alive_max: Some(self.config().limits.created_per_player),
        }
    }

    /// The row of a match that the matchmaker has formed.
    pub fn formed_row(&self, published: &Published, invited: &[Invitee]) -> NewRow {
        NewRow {
            invited: serde_json::to_string(invited).expect("names and numbers"),
            creator_alive_max: None,
            ..self.new_row(published, Bytes::new(), None)
        }
    }

    pub(super) async fn create_row(self: &Arc<Self>, published: Published, row: NewRow) -> Result<MatchId, Refusal> {
        let created = self
            .store()
            .create_match(row.clone())
            .await
            .map_err(|error| match error {
                CreateMatchError::NameTaken { existing } => {
                    Refusal::new(ErrorCode::NameTaken, "a live match has this name").with("match", existing.to_string())
                }
                CreateMatchError::QuickTaken { existing } => {
                    Refusal::new(ErrorCode::NameTaken, "the match exists").with("quick", existing.to_string())
                }
                CreateMatchError::TooMany { alive } => Refusal::new(
                    ErrorCode::MatchTooMany,
                    "the player has created as many live matches as allowed",
                )
                .with("alive", alive),
                CreateMatchError::Store(error) => unavailable(&error),
            })?;
        self.begin_new(published, row, created.epoch, created.created_at_ms)
            .await
    }

    /// Has the match of a row that was just written started by its owner, or by this node when the owner does not answer.
    ///
    /// # Errors
    /// `match.refused`, `module.invalid`, `unavailable`: the row says `failed`, or it is still to be started.
    pub async fn begin_new(
        self: &Arc<Self>,
        published: Published,
        row: NewRow,
        epoch: u64,
        created_at_ms: u64,
    ) -> Result<MatchId, Refusal> {
        let (target, owner) = (row.id, row.owner.clone());
        if owner == *self.local() {
            let row = start::row_of(row, epoch, created_at_ms);
            self.start(row, Some(published)).await?;
            return Ok(target);
        }
        let answer = self
            .ask(&owner.name, &PeerRequest::Start { target }, START_WITHIN)
            .await;
        match answer {
            Ok(PeerAnswer::Done) => Ok(target),
            Ok(PeerAnswer::Refused(refusal)) => Err(refusal),
            // It died or does not answer: we take the match over, unless it has begun after all.
            Ok(_) | Err(_) => self.start_elsewhere(target, &owner).await,
        }
    }

    /// The chosen owner did not answer: start the match here, if the row still allows it.
    async fn start_elsewhere(self: &Arc<Self>, target: MatchId, chosen: &NodeLife) -> Result<MatchId, Refusal> {
        let read = self
            .store()
            .read_match(target)
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(row) = read else {
            return Err(Refusal::new(ErrorCode::Unavailable, "the match was not started"));
        };
        match row.status {
            MatchStatus::Running => return Ok(target),
            MatchStatus::Ended | MatchStatus::Failed | MatchStatus::Lost => {
                return Err(Refusal::new(ErrorCode::MatchClosed, "the match is over"));
            }
            MatchStatus::Starting => {}
        }
        if row.configuration.owner != *chosen {
            return Ok(target);
        }
        let from = row.configuration.clone();
        let to = Configuration {
            epoch: from.epoch + 1,
            owner: self.local().clone(),
            backup: None,
        };
        let swap = Swap {
            id: target,
            from,
            to: to.clone(),
            new_incarnation: false,
        };
        match self
            .store()
            .swap_owner(&swap)
            .await
            .map_err(|error| unavailable(&error))?
        {
            Cas::Done => {
                self.start(
                    MatchRow {
                        configuration: to,
                        ..row
                    },
                    None,
                )
                .await?;
                Ok(target)
            }
            Cas::Superseded(_) => Ok(target),
        }
    }

    /// Of two random ready nodes, the less loaded one; this node when it knows of no other.
    fn place(&self) -> NodeLife {
        let candidates = self.candidates();
        let chosen = placement::choose(&candidates, (rand::random(), rand::random()));
        chosen.map_or_else(|| self.local().clone(), |candidate| candidate.node.clone())
    }

    /// The same among the nodes other than this one.
    pub fn place_beside(&self, node: &NodeName) -> Option<NodeName> {
        let mut candidates = self.candidates();
        candidates.retain(|candidate| candidate.node.name != *node);
        let chosen = placement::choose(&candidates, (rand::random(), rand::random()));
        chosen.map(|candidate| candidate.node.name.clone())
    }

    fn candidates(&self) -> Vec<Candidate> {
        let members = self.cluster().members().borrow().clone();
        let candidates = members.ready().filter_map(|member| {
            let name: NodeName = member.peer.node.as_str().parse().ok()?;
            let load = if name == self.local().name {
                self.executor().owned()
            } else {
                member.facts.get("load").and_then(|load| load.parse().ok()).unwrap_or(0)
            };
            Some(Candidate {
                node: NodeLife {
                    name,
                    generation: member.peer.generation,
                },
                load,
            })
        });
        candidates.collect()
    }
}

/// Whether a client may give a match this name. `/` belongs to worlds.
fn is_match_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}
