//! The links of this node: one for each match that a session here is in, what owners say to them, and the wish of each to be woken.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rookery_gossip::MemberState;
use rookery_protocol::peer::{self, Down, DownFrame, Up, UpBody};
use rookery_protocol::{MatchId, NodeLife, NodeName};

use super::{Hub, node_id};
use crate::peer::UP;
use crate::session::link::{Link, Route, Uplink};
use crate::session::{Arrival, Session};
use crate::store::{Configuration, StoreError};

/// How often links are woken that have something to do.
const WAKE_EVERY: Duration = Duration::from_millis(50);

/// A node whose clock jumped by this much was not running, and may have been taken for dead: no profile does that sooner.
const MISSED_AFTER: Duration = Duration::from_secs(1);

/// How long after it runs again others may still be writing what they concluded: suspicion's last step, and a grouped write.
const VERDICT_WITHIN: Duration = Duration::from_secs(5);

/// Matches checked between two looks at what there is.
const DROPS_AT_ONCE: usize = 256;

impl Hub {
    pub(super) fn links(&self) -> std::sync::MutexGuard<'_, HashMap<MatchId, Arc<Mutex<Link<Session>>>>> {
        self.links.lock().expect("no thread panics holding it")
    }

    pub(super) fn link(&self, target: MatchId) -> Option<Arc<Mutex<Link<Session>>>> {
        self.links().get(&target).cloned()
    }

    pub(super) fn link_or_insert(&self, target: MatchId, route: Route) -> Arc<Mutex<Link<Session>>> {
        let mut links = self.links();
        let fresh = || {
            let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
            Arc::new(Mutex::new(Link::new(target, stream, route.clone())))
        };
        let link = links.entry(target).or_insert_with(fresh);
        let over = {
            let mut held = lock(link);
            if held.is_over() {
                held.retire();
            }
            held.is_over()
        };
        if over {
            *link = fresh();
        }
        Arc::clone(link)
    }

    pub(super) fn all_links(&self) -> Vec<Arc<Mutex<Link<Session>>>> {
        self.links().values().cloned().collect()
    }

    /// What is kept for owners that do not answer now: they are suspected, gone, or being looked for.
    pub fn held_requests(&self) -> usize {
        let members = self.cluster().members().borrow().clone();
        let answers = |owner: &NodeLife| {
            let member = node_id(&owner.name).and_then(|node| members.get(&node));
            member.is_some_and(|member| match member.state {
                MemberState::Joining | MemberState::Ready | MemberState::Draining | MemberState::Leaving => true,
                MemberState::Suspect | MemberState::Dead => false,
            })
        };
        let held = |link: &Arc<Mutex<Link<Session>>>| {
            let link = lock(link);
            match link.route() {
                Route::Known { owner, .. } if answers(owner) => 0,
                Route::Known { .. } | Route::Looking { .. } => link.unanswered(),
            }
        };
        self.all_links().iter().map(held).sum()
    }

    /// Takes what an owner says.
    pub fn down(self: &Arc<Self>, from: &NodeLife, message: Down) {
        match message {
            Down::Frame(frame) => self.frame(from, frame),
            Down::Here {
                target,
                epoch,
                incarnation,
            } => {
                if let Some(link) = self.link(target) {
                    lock(&link).located(self.now_ms(), from.clone(), epoch, incarnation, &**self);
                }
            }
            Down::Arrived {
                target,
                epoch,
                from: left,
                session,
            } => {
                let owner = from.clone();
                if let Some(session) = self.session(session) {
                    session.has_arrived(Arrival {
                        from: left,
                        to: target,
                        owner,
                        epoch,
                    });
                }
            }
            Down::NotHere { target, stream, epoch } => {
                if let Some(link) = self.link(target) {
                    lock(&link).not_here(from, stream, epoch, &**self);
                }
            }
        }
    }

    fn frame(self: &Arc<Self>, from: &NodeLife, frame: DownFrame) {
        if let Some(link) = self.link(frame.target) {
            lock(&link).frame(self.now_ms(), from, frame, &**self);
        }
    }

    /// Wakes links that have something to do, and drops those that nobody needs, until the node stops.
    pub async fn run(self: Arc<Self>) {
        let mut clock = tokio::time::interval(WAKE_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut woken_ms = self.now_ms();
        loop {
            clock.tick().await;
            let now_ms = self.now_ms();
            let stood_still_ms = now_ms - std::mem::replace(&mut woken_ms, now_ms);
            if Duration::from_millis(stood_still_ms) >= MISSED_AFTER {
                tracing::warn!(
                    stood_still_ms,
                    "this node stood still: others may have taken its matches for lost"
                );
                self.spawn(Arc::clone(&self).drop_lost());
            }
            let mut idle = Vec::new();
            for link in self.all_links() {
                let mut link = lock(&link);
                if link.is_restless() {
                    link.wake(now_ms, &*self);
                }
                if link.is_over() || link.is_idle() {
                    idle.push(link.target());
                }
            }
            if !idle.is_empty() {
                let mut links = self.links();
                for target in idle {
                    if let Some(link) = links.get(&target) {
                        let mut held = lock(link);
                        if held.is_over() || held.is_idle() {
                            held.retire();
                            drop(held);
                            links.remove(&target);
                        }
                    }
                }
            }
        }
    }

    /// Drops the matches that the store says are no longer ours: a node that stood still was taken for dead. Looks twice, since
    /// the others' verdict may still be on its way into the store.
    async fn drop_lost(self: Arc<Self>) {
        for wait in [Duration::ZERO, VERDICT_WITHIN] {
            tokio::time::sleep(wait).await;
            let mut after = None;
            loop {
                let targets = self.executor().ids(after, DROPS_AT_ONCE, |_| true);
                let Some(last) = targets.last().copied() else { break };
                for target in targets {
                    if let Err(error) = self.drop_if_lost(target).await {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the store is away: matches were not checked"
                        );
                        return;
                    }
                }
                after = Some(last);
            }
        }
    }

    pub async fn drop_if_lost(self: &Arc<Self>, target: MatchId) -> Result<(), StoreError> {
        let row = self.store().read_match(target).await?;
        let Some(epoch) = self.executor().epoch_of(target) else {
            return Ok(());
        };
        let is_ours = row.is_some_and(|row| {
            let Configuration {
                epoch: stored, owner, ..
            } = &row.configuration;
            row.status.is_live() && *stored == epoch && owner == self.local()
        });
        if !is_ours {
            tracing::warn!(%target, epoch, "a match is no longer ours, and is dropped");
            self.metrics().ownership_conflicts.inc();
            self.executor().drop_match(target, epoch);
            // Who sits in it through this node hears what became of it.
            if self.link(target).is_some() {
                self.locate(target);
            }
        }
        Ok(())
    }

    /// What was sent to that node may be lost.
    pub fn uplink_lost(self: &Arc<Self>, node: &NodeName) {
        let now_ms = self.now_ms();
        for link in self.all_links() {
            let mut link = lock(&link);
            if link.is_owned_by(node, u64::MAX) {
                link.say_again(now_ms, &**self);
            }
        }
    }

    /// There is a new connection to that node: what came over the one before ends here.
    pub fn link_connected(self: &Arc<Self>, node: &NodeName) {
        self.services().link_connected(node);
        let now_ms = self.now_ms();
        for link in self.all_links() {
            let mut link = lock(&link);
            if link.is_owned_by(node, u64::MAX) {
                link.connected(now_ms, &**self);
            }
        }
    }
}

impl Uplink for Hub {
    fn up(&self, owner: &NodeLife, target: MatchId, stream: u64, body: UpBody) {
        let up = Up { target, stream, body };
        if owner == self.local() {
            // A full inbox: the link says it again.
            self.executor().up(self.local().clone(), up);
        } else if let Some(node) = node_id(&owner.name) {
            // Full or not there: the link says it again when there is a way.
            if let Err(error) = self.cluster().send(&node, UP, peer::encode(&up)) {
                tracing::trace!(%target, %error, "not sent; it will be said again");
            }
        }
    }

    fn locate(&self, target: MatchId) {
        if self.lookups.try_send(target).is_err() {
            tracing::error!(%target, "too many matches are being looked for");
        }
    }
}

pub(super) fn lock(link: &Mutex<Link<Session>>) -> std::sync::MutexGuard<'_, Link<Session>> {
    link.lock().expect("no thread panics holding it")
}
