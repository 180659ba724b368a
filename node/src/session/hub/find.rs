//! Joining a match by its id or name, finding one that has room (or making one, and never two), and listing them.

use std::collections::HashSet;
use std::sync::Arc;

use rookery_protocol::MatchId;
use rookery_protocol::client::{JoinRole, ListedMatch, Payload};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{ListQuery, PeerAnswer, PeerRequest, Whereabouts, WirePayload};
use tokio::sync::oneshot;

use super::links::lock;
use super::{CreateWish, Hub};
use crate::modules::{Published, unavailable};
use crate::session::Session;
use crate::session::link::{JoinAsk, Route, Seating};
use crate::session::listener::{Listener, Moved};
use crate::store::Configuration;

/// Rounds in which `match.quick` looks for a match or makes one before it gives up.
const QUICK_ROUNDS: usize = 8;

/// Most matches in one answer to `match.list`.
const LIST_MAX: u32 = 500;

/// What a session wants to find or create.
#[derive(Debug)]
pub struct QuickWish {
    pub module: String,
    pub label: Vec<(String, String)>,
    pub params: Payload,
    pub ctx: WirePayload,
}

impl Hub {
    /// Asks for a seat in a match, by its id or its name. The answer comes through the match's stream.
    ///
    /// # Errors
    /// What is known without asking the owner: `match.not_found`, `match.closed`, `unavailable`.
    pub async fn join(self: &Arc<Self>, target: &str, mut ask: JoinAsk<Session>) -> Result<(), Refusal> {
        let known = target.parse::<MatchId>().ok();
        if let Some(target) = known {
            if let Some(link) = self.link(target).filter(|link| !lock(link).is_over()) {
                match Arc::clone(&ask.session).ask_join(&link, ask) {
                    Ok(()) => return Ok(()),
                    Err(retired) => ask = retired,
                }
            }
            if let Some(epoch) = self.executor().epoch_of(target) {
                let route = Route::Known {
                    owner: self.local().clone(),
                    epoch,
                };
                self.join_at(target, route, ask);
                return Ok(());
            }
            if let Some(found) = self.services().directory.whereis(target).await {
                self.join_at(target, known_at(found), ask);
                return Ok(());
            }
        } else if ask.verdict.is_none()
            && let Some(found) = self.services().directory.whois(target).await
        {
            // The name may belong to another match by now: then this one is over, and the store knows which one has it.
            let (verdict, joined) = oneshot::channel();
            let again = JoinAsk {
                session: Arc::clone(&ask.session),
                id: ask.id,
                seating: ask.seating.clone(),
                verdict: Some(verdict),
            };
            ask.session.call(target, found.target);
            self.join_at(found.target, known_at(found), again);
            match joined.await {
                Err(_) | Ok(Ok(())) => return Ok(()),
                Ok(Err(refusal)) => match refusal.code {
                    ErrorCode::MatchNotFound | ErrorCode::MatchClosed => {}
                    _ => return Err(refusal),
                },
            }
        }
        let row = match self.store().get_match(target).await {
            Ok(Some(row)) => row,
            Ok(None) => return Err(Refusal::new(ErrorCode::MatchNotFound, "there is no such match")),
            Err(error) => return Err(unavailable(&error)),
        };
        if !row.status.is_live() {
            return Err(Refusal::new(ErrorCode::MatchClosed, "the match is over").with("status", row.status.as_str()));
        }
        if known.is_none() {
            ask.session.call(target, row.id);
        }
        let Configuration { epoch, owner, .. } = row.configuration;
        self.join_at(row.id, Route::Known { owner, epoch }, ask);
        Ok(())
    }

    /// A session goes after its player, whom a transfer has brought to another match.
    pub fn follow(self: &Arc<Self>, session: Arc<Session>, moved: Moved) {
        let Moved {
            from,
            to,
            owner,
            epoch,
            role,
        } = moved;
        let ask = JoinAsk {
            session,
            id: None,
            seating: Seating {
                role,
                ctx: WirePayload::Absent,
                moved_from: Some(from),
            },
            verdict: None,
        };
        self.join_at(to, Route::Known { owner, epoch }, ask);
    }

    fn join_at(self: &Arc<Self>, target: MatchId, route: Route, mut ask: JoinAsk<Session>) {
        let session = Arc::clone(&ask.session);
        let link = loop {
            let link = self.link_or_insert(target, route.clone());
            match session.ask_join(&link, ask) {
                Ok(()) => break link,
                // A link that is retired while we take it is replaced by another one.
                Err(retired) => ask = retired,
            }
        };
        if let Route::Known { owner, .. } = &route
            && !self.is_member(owner)
        {
            lock(&link).doubt(owner, &**self);
        }
    }

    /// Finds the fullest match that takes one more player, or creates one. However many ask at once, on whichever nodes, no two
    /// matches are made where one has room: the store lets one creator through, and the others join its match.
    ///
    /// # Errors
    /// As [`Hub::create`] and [`Hub::join`].
    pub async fn quick(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: Option<i64>,
        wish: QuickWish,
    ) -> Result<(), Refusal> {
        let published = self.modules().resolve(&wish.module).await?;
        if !published.manifest.quick_play {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "matches of this module are not found by match.quick",
            ));
        }
        let seating = Seating {
            role: JoinRole::Player,
            ctx: wish.ctx,
            moved_from: None,
        };
        let mut full = HashSet::new();
        let key = quick_key(&published, &wish.label);
        for _ in 0..QUICK_ROUNDS {
            let query = ListQuery {
                module: Some(published.manifest.name.clone()),
                label: wish.label.clone(),
                after: None,
                limit: LIST_MAX,
                quick: Some(published.row.digest),
            };
            let mut open = self.gather(&query).await;
            open.retain(|listed| !full.contains(&listed.target));
            open.sort_by_key(|listed| (std::cmp::Reverse(listed.players), listed.target));
            if let Some(fullest) = open.first() {
                match self.try_join(session, id, fullest.target, &seating).await {
                    Err(refusal) if is_taken(&refusal) => {
                        full.insert(fullest.target);
                        continue;
                    }
                    joined => return joined,
                }
            }
            let create = CreateWish {
                module: wish.module.clone(),
                params: wish.params.clone(),
                private: false,
                name: None,
                quick_key: Some(key.clone()),
            };
            match self.create(session.player(), create).await {
                Ok(target) => match self.try_join(session, id, target, &seating).await {
                    // So many came at once that the creator found it full.
                    Err(refusal) if is_taken(&refusal) => drop(full.insert(target)),
                    joined => return joined,
                },
                Err(refusal) => {
                    let existing = refusal.details.get("quick").and_then(|existing| existing.as_str());
                    let Some(existing) = existing.and_then(|existing| existing.parse::<MatchId>().ok()) else {
                        return Err(refusal);
                    };
                    // Whether it has room only its owner knows: a list that does not show it (yet) proves nothing.
                    if !full.contains(&existing) {
                        match self.try_join(session, id, existing, &seating).await {
                            Err(refusal) if is_taken(&refusal) => drop(full.insert(existing)),
                            joined => return joined,
                        }
                    }
                    self.store()
                        .clear_quick_key(existing)
                        .await
                        .map_err(|error| unavailable(&error))?;
                }
            }
        }
        Err(Refusal::new(ErrorCode::Unavailable, "no match could be found or made"))
    }

    /// Joins and waits for the verdict, so that a match that filled up meanwhile can be passed over.
    async fn try_join(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: Option<i64>,
        target: MatchId,
        seating: &Seating,
    ) -> Result<(), Refusal> {
        let (verdict, joined) = oneshot::channel();
        let session = Arc::clone(session);
        self.join(
            &target.to_string(),
            JoinAsk {
                session,
                id,
                seating: seating.clone(),
                verdict: Some(verdict),
            },
        )
        .await?;
        // The session closed: there is nobody to answer.
        joined.await.unwrap_or(Ok(()))
    }

    /// Live matches of the whole cluster, in the order of their ids.
    ///
    /// # Errors
    /// `bad_message` for a cursor that is none.
    pub async fn list(
        self: &Arc<Self>,
        module: Option<String>,
        label: Vec<(String, String)>,
        limit: Option<u32>,
        cursor: Option<String>,
    ) -> Result<(Vec<ListedMatch>, Option<String>), Refusal> {
        let after = match cursor {
            None => None,
            Some(cursor) => Some(
                cursor
                    .parse()
                    .map_err(|_| Refusal::new(ErrorCode::BadMessage, "cursor: not one of ours"))?,
            ),
        };
        let limit = limit.unwrap_or(100).clamp(1, LIST_MAX);
        let mut found = self
            .gather(&ListQuery {
                module,
                label,
                after,
                limit,
                quick: None,
            })
            .await;
        found.truncate(limit as usize);
        let cursor = (found.len() == limit as usize)
            .then(|| found.last().map(|last| last.target.to_string()))
            .flatten();
        Ok((found, cursor))
    }

    /// Asks every node for its part of a list. A node that does not answer in time is left out.
    pub(super) async fn gather(self: &Arc<Self>, query: &ListQuery) -> Vec<ListedMatch> {
        let mut found = self.list_here(query);
        for (_, answer) in self.ask_all(&PeerRequest::List(query.clone())).await {
            if let PeerAnswer::Listed(listed) = answer {
                found.extend(listed);
            }
        }
        found.sort_unstable_by_key(|listed| listed.target);
        found
    }

    /// This node's part of a list.
    pub fn list_here(&self, query: &ListQuery) -> Vec<ListedMatch> {
        let limit = query.limit.min(LIST_MAX) as usize;
        self.executor().list(query.after, limit, |listing| {
            let Some(listed) = &listing.listed else { return false };
            query.module.as_ref().is_none_or(|module| *module == listed.module)
                && query.label.iter().all(|wanted| listed.label.contains(wanted))
                && query
                    .quick
                    .is_none_or(|digest| listing.quick && listed.joinable && listing.digest == digest)
        })
    }
}

fn known_at(found: Whereabouts) -> Route {
    Route::Known {
        owner: found.owner,
        epoch: found.epoch,
    }
}

/// Whether the match had no place left for the player, so that another one may be tried.
fn is_taken(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        ErrorCode::MatchFull | ErrorCode::MatchClosed | ErrorCode::MatchNotFound
    )
}

/// What two callers of `match.quick` have in common when they want the same match. What they would create it with is not looked at,
/// as it is not when there is one already.
fn quick_key(published: &Published, label: &[(String, String)]) -> String {
    let mut label = label.to_vec();
    label.sort();
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let label = serde_json::to_vec(&label).expect("pairs of strings");
    for part in [published.row.digest.0.as_slice(), &label] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finish().as_ref().try_into().expect("SHA-256 is 32 bytes");
    rookery_protocol::Digest(digest).to_string()
}
