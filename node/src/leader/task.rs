//! The driver of the candidacy: asks the store what the machine wants to know, and tells the rest of the node whether it leads.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rookery_gossip::MemberState;
use rookery_protocol::NodeName;
use tokio::sync::Notify;

use super::{Candidacy, Effect, Input, Standing, TTL_MS, Term};
use crate::clock::boot_ms;
use crate::session::hub::{Hub, node_id};
use crate::store::{LeaseRow, StoreError};

/// The name of the lease's row.
const LEASE: &str = "leader";

/// The longest that a candidate waits after another's lease ended.
const PATIENCE_MS_MAX: u64 = 500;

/// How often this node's own state is looked at.
const LOOK_AT_ONESELF: Duration = Duration::from_millis(250);

/// How often records of matches that were over for `matches.records_for` are forgotten (more often when that is short, but not
/// without a pause), and how many of them at once.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_SOONEST: Duration = Duration::from_secs(1);
const SWEPT_AT_ONCE: u32 = 10_000;

/// Whether this node leads, and who does. Shared by all that has duties.
pub struct Leader {
    hub: Arc<Hub>,
    candidacy: Mutex<Candidacy>,
    nudge: Notify,
}

impl Leader {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let patience_ms = rand::random::<u64>() % PATIENCE_MS_MAX;
        let leader = Arc::new(Self {
            hub: Arc::clone(hub),
            candidacy: Mutex::new(Candidacy::new(hub.local().clone(), patience_ms)),
            nudge: Notify::new(),
        });
        hub.spawn(Arc::clone(&leader).run());
        hub.spawn(Arc::clone(&leader).sweep());
        leader
    }

    /// The term in which this node leads at this moment. Ask before each duty, not before all of them.
    pub fn term(&self) -> Option<Term> {
        self.candidacy().term(boot_ms())
    }

    /// Who leads, as this node last heard.
    pub fn name(&self) -> Option<NodeName> {
        self.candidacy().leader(boot_ms()).cloned()
    }

    /// Gives the leadership up, if this node has it, and never takes it again: the node drains or stops. Returns when another
    /// may have it, or when the store does not answer (then the lease runs out).
    pub async fn resign(&self) {
        let mut effects = Vec::new();
        self.candidacy().step(boot_ms(), Input::Resign, &mut effects);
        for effect in effects {
            if let Effect::Release { epoch } = effect {
                self.release(epoch).await;
            }
        }
    }

    fn candidacy(&self) -> std::sync::MutexGuard<'_, Candidacy> {
        self.candidacy.lock().expect("no thread panics holding it")
    }

    async fn run(self: Arc<Self>) {
        loop {
            let eligible = self.is_eligible();
            let mut effects = Vec::new();
            let wake_ms = {
                let mut candidacy = self.candidacy();
                candidacy.step(boot_ms(), Input::Eligible(eligible), &mut effects);
                candidacy.step(boot_ms(), Input::Wake, &mut effects);
                candidacy.next_wake_ms()
            };
            for effect in effects {
                self.perform(effect);
            }
            let wait = Duration::from_millis(wake_ms.saturating_sub(boot_ms())).min(LOOK_AT_ONESELF);
            tokio::select! {
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Asks the store in a task of its own: a question that takes long does not keep us from seeing that our time is over.
    fn perform(self: &Arc<Self>, effect: Effect) {
        let leader = Arc::clone(self);
        self.hub.spawn(async move {
            let store = leader.hub.store();
            let (asked_ms, answer) = match effect {
                Effect::Acquire { asked_ms } => {
                    let row = store.acquire_lease(LEASE, leader.hub.local(), TTL_MS).await;
                    (asked_ms, row.map(standing))
                }
                Effect::Look { asked_ms } => {
                    let row = store.read_lease(LEASE).await;
                    (asked_ms, row.map(|row| row.map_or_else(nobody, standing)))
                }
                Effect::Release { epoch } => return leader.release(epoch).await,
            };
            leader.answered(asked_ms, answer);
        });
    }

    fn answered(self: &Arc<Self>, asked_ms: u64, answer: Result<Standing, StoreError>) {
        let standing = match answer {
            Ok(standing) => Some(standing),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the store did not say who leads");
                None
            }
        };
        let mut effects = Vec::new();
        let (before, after) = {
            let mut candidacy = self.candidacy();
            let now_ms = boot_ms();
            let before = candidacy.term(now_ms);
            candidacy.step(now_ms, Input::Answered { asked_ms, standing }, &mut effects);
            (before, candidacy.term(now_ms))
        };
        match (before, after) {
            (None, Some(term)) => tracing::info!(epoch = term.epoch, "this node leads"),
            (Some(term), None) => tracing::info!(epoch = term.epoch, "this node leads no more"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        for effect in effects {
            self.perform(effect);
        }
        self.nudge.notify_one();
    }

    async fn release(&self, epoch: u64) {
        match self.hub.store().release_lease(LEASE, self.hub.local(), epoch).await {
            Ok(_) => tracing::info!(epoch, "this node gave the leadership up"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the leadership was not given up: it runs out by itself");
            }
        }
    }

    fn is_eligible(&self) -> bool {
        let members = self.hub.cluster().members().borrow().clone();
        let own = node_id(&self.hub.local().name).and_then(|node| members.get(&node).map(|member| member.state));
        self.hub.is_joined() && own == Some(MemberState::Ready)
    }

    /// Forgets records of matches that are over for long enough. Two who do it at once only share the work.
    async fn sweep(self: Arc<Self>) {
        let records_for = self.hub.config().matches.records_for;
        let records_for_ms = records_for.as_millis() as u64;
        loop {
            tokio::time::sleep(records_for.clamp(SWEEP_SOONEST, SWEEP_EVERY)).await;
            if self.term().is_none() {
                continue;
            }
            match self.hub.store().sweep_matches(records_for_ms, SWEPT_AT_ONCE).await {
                Ok(0) => {}
                Ok(swept) => tracing::debug!(swept, "records of old matches were forgotten"),
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "old records were not swept"),
            }
        }
    }
}

fn standing(row: LeaseRow) -> Standing {
    let LeaseRow { holder, epoch, left_ms } = row;
    Standing { holder, epoch, left_ms }
}

fn nobody() -> Standing {
    Standing {
        holder: None,
        epoch: 0,
        left_ms: 0,
    }
}
