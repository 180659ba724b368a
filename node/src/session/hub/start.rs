//! Starting a match whose row names this node: from the row, or, when it has played elsewhere before, from what was saved.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use rookery_gossip::MemberState;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, Down};
use rookery_protocol::{MatchId, NodeName};

use super::{Hub, node_id};
use crate::matches::part::HostPart;
use crate::matches::start;
use crate::metrics::PauseReason;
use crate::modules::{Published, Purpose, unavailable};
use crate::owner::executor::{NewMatch, Origin, Restored};
use crate::owner::room::{Resumption, RoomConfig};
use crate::peer::DOWN;
use crate::store::{Cas, FinalStatus, Finish, MatchKind, MatchRow, Saved};
use crate::wasm::Module;

/// How soon the store is asked again that did not answer.
const STORE_AGAIN: Duration = Duration::from_millis(500);

impl Hub {
    /// Starts a match whose row says that we own it, and lets it speak once the row says `running`.
    ///
    /// # Errors
    /// What the creator is to hear. The row says `failed` then; or `starting` still, when a signature of the module was missing, and the
    /// match is begun again within a second; or, when the store's answer was missing, whatever the store made of it, and the match plays
    /// as soon as it is known that the row says so.
    pub async fn start(self: &Arc<Self>, row: MatchRow, published: Option<Published>) -> Result<(), Refusal> {
        let (target, epoch) = (row.id, row.configuration.epoch);
        let begun = self.begin(&row).await;
        drop(published);
        let saved_at_ms = match begun {
            Ok(saved_at_ms) => saved_at_ms,
            // It is not lost: it goes on once the store answers, or its module is signed.
            Err(refusal) if row.incarnation > 0 && can_wait(&refusal) => return Err(refusal),
            Err(refusal) => {
                self.mark_failed(target, epoch, &refusal).await;
                return Err(refusal);
            }
        };
        match self.store().set_running(target, epoch, self.local()).await {
            Ok(cas) => self.started(&row, saved_at_ms, cas),
            // The row may say `running` already, or will soon: the match stays until that is known.
            Err(error) => {
                if self.unconfirmed().insert((target, epoch)) {
                    self.spawn(Arc::clone(self).confirm(row, saved_at_ms));
                }
                Err(unavailable(&error))
            }
        }
    }

    /// Finds out whether a match that was put on its thread may speak.
    async fn confirm(self: Arc<Self>, row: MatchRow, saved_at_ms: Option<u64>) {
        let (target, epoch) = (row.id, row.configuration.epoch);
        let cas = self.running_until_known(target, epoch).await;
        self.unconfirmed().remove(&(target, epoch));
        match self.started(&row, saved_at_ms, cas) {
            Ok(()) => {
                tracing::info!(%target, epoch, "a match begins after its creator was told that the store is away")
            }
            Err(refusal) => tracing::info!(%target, epoch, %refusal, "a match that did not begin in time is dropped"),
        }
    }

    fn unconfirmed(&self) -> MutexGuard<'_, HashSet<(MatchId, u64)>> {
        self.unconfirmed.lock().expect("no thread panics holding it")
    }

    /// Says that the match runs, as often as it takes.
    async fn running_until_known(&self, target: MatchId, epoch: u64) -> Cas {
        loop {
            tokio::time::sleep(STORE_AGAIN).await;
            match self.store().set_running(target, epoch, self.local()).await {
                Ok(cas) => return cas,
                Err(error) => {
                    tracing::debug!(%target, epoch, error = &error as &dyn std::error::Error, "a match waits for its row to say that it runs");
                }
            }
        }
    }

    /// It is known whether the row says that the match runs here.
    fn started(self: &Arc<Self>, row: &MatchRow, saved_at_ms: Option<u64>, cas: Cas) -> Result<(), Refusal> {
        let (target, epoch) = (row.id, row.configuration.epoch);
        match cas {
            Cas::Done => {
                self.executor().release(target);
                if row.incarnation > 0 {
                    self.metrics().matches_taken_over.inc();
                    let pause = saved_at_ms.map(|at_ms| self.unix_ms().saturating_sub(at_ms));
                    if let Some(pause_ms) = pause {
                        let pause = Duration::from_millis(pause_ms);
                        self.metrics().match_paused(PauseReason::TakeOver, pause);
                    }
                    self.announce(target, epoch, row.incarnation);
                }
                Ok(())
            }
            Cas::Superseded(_) => {
                self.metrics().ownership_conflicts.inc();
                self.executor().drop_match(target, epoch);
                Err(Refusal::new(ErrorCode::Unavailable, "another node started the match"))
            }
        }
    }

    /// Puts the match on its thread. Says when the state was saved from which it goes on.
    async fn begin(self: &Arc<Self>, row: &MatchRow) -> Result<Option<u64>, Refusal> {
        let purpose = match row.incarnation {
            0 => Purpose::NewMatch,
            _ => Purpose::RunningMatch,
        };
        let module = self.modules().load(row.digest, purpose).await?;
        if row.incarnation == 0 {
            let origin = Origin::Start(Box::new(start::record(row, module.manifest())?));
            self.put(row, module, origin).await?;
            return Ok(None);
        }
        let saved = self.store().read_save(row.id).await;
        let saved = saved.map_err(|error| unavailable(&error))?;
        if let Some(saved) = saved {
            let saved_at_ms = saved.saved_at_ms;
            match self.restore(row, &module, saved).await {
                Ok(()) => return Ok(Some(saved_at_ms)),
                Err(refusal) if refusal.code == ErrorCode::Unavailable || row.kind == MatchKind::Match => {
                    return Err(refusal);
                }
                Err(refusal) => {
                    tracing::warn!(target = %row.id, name = row.name, %refusal, "a zone does not go on from what was saved: it begins anew");
                }
            }
        }
        let origin = Origin::Start(Box::new(start::record(row, module.manifest())?));
        self.put(row, module, origin).await?;
        Ok(None)
    }

    async fn restore(self: &Arc<Self>, row: &MatchRow, module: &Module, saved: Saved) -> Result<(), Refusal> {
        let part = HostPart::decode(&saved.part).map_err(|error| {
            tracing::error!(target = %row.id, error = &error as &dyn std::error::Error, "what was saved of a match cannot be read");
            Refusal::new(ErrorCode::Internal, "what was saved of the match cannot be read by this version")
        })?;
        let restored = Restored {
            why: Resumption::Restored,
            saved_by: saved.saved_by,
            state: saved.state,
            part: part.resumed(row.incarnation as u32, self.unix_ms()),
            streams: Vec::new(),
        };
        tracing::info!(target = %row.id, name = row.name, event = saved.event, incarnation = row.incarnation, "a match goes on from what was saved");
        self.put(row, module.clone(), Origin::Saved(Box::new(restored))).await
    }

    /// Puts a match on its thread, as it begins. It says nothing before it is released.
    pub async fn put(&self, row: &MatchRow, module: Module, origin: Origin) -> Result<(), Refusal> {
        let config = self.room_config(row, &module);
        let metrics = self.metrics().module(&row.module);
        self.executor()
            .create(NewMatch {
                module,
                origin,
                config,
                metrics,
            })
            .await
    }

    /// What the room of this row's match is told.
    fn room_config(&self, row: &MatchRow, module: &Module) -> RoomConfig {
        let rules = &self.config().matches;
        RoomConfig {
            epoch: row.configuration.epoch,
            node: self.local().name.clone(),
            empty_after_ms: match row.kind {
                MatchKind::Match => Some(rules.empty_after.as_millis() as u64),
                MatchKind::Zone => None,
            },
            private: row.private,
            reserve_ms: self.config().queues.reserve.as_millis() as u64,
            version: module.manifest().version.as_str().into(),
            leased: row.is_leased(),
            save_every_ms: row.is_saved().then_some(rules.store_every.as_millis() as u64),
        }
    }

    async fn mark_failed(&self, target: MatchId, epoch: u64, refusal: &Refusal) {
        let reason = refusal
            .details
            .get("reason")
            .and_then(|reason| reason.as_str())
            .unwrap_or(&refusal.message);
        let finish = Finish {
            id: target,
            epoch,
            status: FinalStatus::Failed,
            outcome: None,
            reason: Some(reason.to_owned()),
        };
        if let Err(error) = self.store().finish_match(finish).await {
            tracing::warn!(%target, error = &error as &dyn std::error::Error, "a match that did not start could not be marked so");
        }
    }

    /// Starts a match for nobody in particular: a row that waited.
    pub async fn start_quietly(self: Arc<Self>, row: MatchRow) {
        let target = row.id;
        match self.start(row, None).await {
            Ok(()) => {}
            // Said already, once for all matches of the module.
            Err(refusal) if refusal.code == ErrorCode::ModuleUnsigned => {
                tracing::debug!(%target, %refusal, "a match waits for its module to be signed");
            }
            Err(refusal) => tracing::warn!(%target, %refusal, "a waiting match did not start"),
        }
    }

    /// Tells every gateway that the match is here now. Who does not hear it looks the match up when the old owner is gone, or says
    /// that it does not have it.
    pub fn announce(self: &Arc<Self>, target: MatchId, epoch: u64, incarnation: u64) {
        let message = Down::Here {
            target,
            epoch,
            incarnation,
        };
        let bytes = peer::encode(&message);
        let members = self.cluster().members().borrow().clone();
        for member in members.iter() {
            let listens = match member.state {
                MemberState::Ready | MemberState::Draining | MemberState::Joining | MemberState::Suspect => true,
                MemberState::Leaving | MemberState::Dead => false,
            };
            let name = member.peer.node.as_str().parse::<NodeName>().ok();
            let Some(name) = name.filter(|name| listens && *name != self.local().name) else {
                continue;
            };
            if let Some(node) = node_id(&name)
                && let Err(error) = self.cluster().send(&node, DOWN, bytes.clone())
            {
                tracing::debug!(%target, %name, %error, "the match's new owner was not announced");
            }
        }
        self.down(&self.local().clone(), message);
    }
}

/// Whether what keeps a match from going on may pass.
fn can_wait(refusal: &Refusal) -> bool {
    matches!(refusal.code, ErrorCode::Unavailable | ErrorCode::ModuleUnsigned)
}
