//! Where a match is when it is not where it was: after its owner said so, or died.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rookery_gossip::MemberState;
use rookery_protocol::peer::{MatchHead, Over};
use rookery_protocol::{Digest, MatchId, NodeLife, NodeName};
use tokio::sync::mpsc;

use super::links::lock;
use super::{Hub, node_id};
use crate::modules::Purpose;
use crate::session::Session;
use crate::session::link::{HOLD_MS, Link, Route, Uplink};
use crate::store::{Configuration, MatchStatus, StoreError};

/// Between two looks for a match that is not where the store says it is.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Between two tries of the store while it is away.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// Matches looked for at once: each is a read of the store every quarter of a second.
const LOOKUPS_AT_ONCE: usize = 256;

impl Hub {
    /// That life of a node is over: its matches are lost, unless the store says otherwise, and what it had not begun goes to us. What
    /// is said here of seats, routes and interests is taken back by the node's next connection; what is written into the store is not,
    /// so that it waits until this node trusts its own view.
    pub fn node_gone(self: &Arc<Self>, node: NodeName, generation: u64) {
        self.executor().gateway_gone(&node, generation);
        self.services().node_gone(&NodeLife {
            name: node.clone(),
            generation,
        });
        let hub = Arc::clone(self);
        self.spawn(async move {
            let mut told = false;
            while hub.verdict_stands(&node, generation).await {
                match hub.bury(&node, generation).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(%node, error = &error as &dyn std::error::Error, "the store is away: the dead node's matches wait");
                        if !std::mem::replace(&mut told, true) {
                            hub.links_of(&node, generation).iter().for_each(|link| lock(link).waiting("store"));
                        }
                        tokio::time::sleep(STORE_AGAIN).await;
                    }
                }
            }
            for link in hub.links_of(&node, generation) {
                let target = lock(&link).target();
                hub.locate(target);
            }
        });
    }

    /// Waits while this node trusts its own view less, which is some seconds at most. Whether the life is still over then.
    async fn verdict_stands(&self, node: &NodeName, generation: u64) -> bool {
        let mut isolation = self.cluster().isolation();
        if !*isolation.borrow() {
            return true;
        }
        // An error is the end of the mesh, and of this node with it.
        let trusted = isolation.wait_for(|isolated| !isolated).await.is_ok();
        let life = NodeLife {
            name: node.clone(),
            generation,
        };
        trusted && !self.is_member(&life)
    }

    pub(super) fn links_of(&self, node: &NodeName, generation: u64) -> Vec<Arc<Mutex<Link<Session>>>> {
        let mut links = self.all_links();
        links.retain(|link| lock(link).is_owned_by(node, generation));
        links
    }

    pub(super) async fn bury(self: &Arc<Self>, node: &NodeName, generation: u64) -> Result<(), StoreError> {
        let lost = self.store().lose_matches_of(node, generation).await?;
        if !lost.is_empty() {
            self.metrics().matches_lost.inc_by(lost.len() as u64);
            tracing::warn!(%node, generation, matches = lost.len(), "matches were lost with their node");
        }
        loop {
            let begun = self
                .store()
                .reassign_starting(node, generation, self.local(), 256)
                .await?;
            let more = begun.len() == 256;
            for row in begun {
                let hub = Arc::clone(self);
                self.spawn(async move { hub.start_quietly(row).await });
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Finds matches that are not where they were, each once at a time.
    pub(super) async fn look_up(self: Arc<Self>, mut wanted: mpsc::Receiver<MatchId>) {
        let mut finding: tokio::task::JoinSet<MatchId> = tokio::task::JoinSet::new();
        let mut sought = HashSet::new();
        loop {
            tokio::select! {
                Some(target) = wanted.recv(), if finding.len() < LOOKUPS_AT_ONCE => {
                    if sought.insert(target) {
                        let hub = Arc::clone(&self);
                        finding.spawn(async move {
                            hub.find(target).await;
                            target
                        });
                    }
                }
                Some(found) = finding.join_next() => match found {
                    Ok(target) => drop(sought.remove(&target)),
                    Err(error) => tracing::error!(%error, "a look-up ended early"),
                },
            }
        }
    }

    async fn find(self: Arc<Self>, target: MatchId) {
        let began = Instant::now();
        let (mut told, mut warned) = (false, false);
        loop {
            let Some(link) = self.link(target) else { return };
            let (known, over) = {
                let link = lock(&link);
                (link.route().clone(), link.is_over())
            };
            if over {
                return;
            }
            // Both at once: the directory hears of a new owner first, and the store knows when the match is over.
            let (found, row) = tokio::join!(
                self.services().directory.whereis(target),
                self.store().read_match(target)
            );
            let (Route::Known { epoch: newest, .. } | Route::Looking { epoch: newest }) = &known;
            if let Some(found) = found.filter(|found| found.epoch > *newest) {
                return lock(&link).located(self.now_ms(), found.owner, found.epoch, found.incarnation, &*self);
            }
            let row = match row {
                Ok(row) => row,
                Err(_) => {
                    if !std::mem::replace(&mut told, true) {
                        lock(&link).waiting("store");
                    }
                    tokio::time::sleep(STORE_AGAIN).await;
                    continue;
                }
            };
            let Some(row) = row else { return lock(&link).not_found() };
            match row.status {
                MatchStatus::Ended => {
                    self.describe(&link, row.digest).await;
                    return lock(&link).over(&Over::Ended {
                        result: row.outcome.unwrap_or_default(),
                    });
                }
                MatchStatus::Failed => {
                    return lock(&link).over(&Over::Failed {
                        reason: row.reason.unwrap_or_default(),
                    });
                }
                MatchStatus::Lost => return lock(&link).over(&Over::Lost),
                MatchStatus::Starting => {}
                MatchStatus::Running => {
                    let is_leased = row.is_leased();
                    let incarnation = row.incarnation;
                    let Configuration { epoch, owner, .. } = row.configuration;
                    let (Route::Known { epoch: known, .. } | Route::Looking { epoch: known }) = known;
                    if self.is_gone(&owner) && is_leased {
                        // It comes back elsewhere when its owner's lease is over.
                        if !std::mem::replace(&mut told, true) {
                            lock(&link).waiting("owner");
                        }
                    } else if self.is_gone(&owner) && !self.cluster().is_isolated() {
                        // Our own verdict on the node did not reach the store yet, or another's did.
                        let _ = self.bury(&owner.name, owner.generation).await;
                    } else if epoch > known || began.elapsed() >= LOOK_AGAIN {
                        lock(&link).located(self.now_ms(), owner, epoch, incarnation, &*self);
                        return;
                    }
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            if !warned && began.elapsed() > Duration::from_millis(HOLD_MS) {
                warned = true;
                tracing::warn!(%target, "a match is not where the store says it is");
            }
        }
    }

    /// Tells a link what its match is, if it has never heard: somebody followed their player to a match that is over, and the outcome
    /// is written as the match would have written it.
    async fn describe(&self, link: &Mutex<Link<Session>>, digest: Digest) {
        if lock(link).is_known() {
            return;
        }
        if let Ok(module) = self.modules().load(digest, Purpose::RunningMatch).await {
            let manifest = module.manifest();
            let head = MatchHead {
                module: manifest.name.clone(),
                codec: manifest.codec,
                tick_hz: manifest.tick_hz,
            };
            lock(link).describe(head);
        }
    }

    /// Whether this node is in its cluster and may be given matches.
    pub fn takes_matches(&self) -> bool {
        let members = self.cluster().members().borrow().clone();
        let here = node_id(&self.local().name).and_then(|node| members.get(&node).cloned());
        self.is_joined() && here.is_some_and(|member| member.state == MemberState::Ready)
    }

    /// Whether a node of this name is a member that answers, or that may.
    pub fn is_alive(&self, name: &NodeName) -> bool {
        let members = self.cluster().members().borrow().clone();
        *name == self.local().name
            || node_id(name)
                .and_then(|node| members.get(&node).cloned())
                .is_some_and(|member| match member.state {
                    MemberState::Joining | MemberState::Ready | MemberState::Draining | MemberState::Suspect => true,
                    MemberState::Leaving | MemberState::Dead => false,
                })
    }

    /// Whether that life of a node is a member that may own matches, as far as this node knows.
    pub fn is_member(&self, life: &NodeLife) -> bool {
        if life.name == self.local().name {
            return life == self.local();
        }
        let members = self.cluster().members().borrow().clone();
        let member = node_id(&life.name).and_then(|node| members.get(&node).cloned());
        member.is_some_and(|member| {
            let alive = match member.state {
                MemberState::Joining | MemberState::Ready | MemberState::Draining | MemberState::Suspect => true,
                MemberState::Leaving | MemberState::Dead => false,
            };
            alive && member.peer.generation == life.generation
        })
    }

    /// Whether that life of a node is known to be over.
    pub fn is_gone(&self, life: &NodeLife) -> bool {
        if life.name == self.local().name {
            return life.generation < self.local().generation;
        }
        let members = self.cluster().members().borrow().clone();
        node_id(&life.name)
            .and_then(|node| members.get(&node).cloned())
            .is_some_and(|member| {
                member.peer.generation > life.generation
                    || (member.peer.generation == life.generation && member.departed)
            })
    }
}
