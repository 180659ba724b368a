//! The driver of a drain: it says in gossip that this node takes nothing any more, looks at what is still here, and does what
//! the machine says, until the node may stop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rookery_gossip::MemberState;
use rookery_protocol::client::ServerMessage;
use rookery_protocol::peer::MoveCause;
use rookery_protocol::{MatchId, SessionId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Drain, Effect, Facts};
use crate::gateway::outbox::Close;
use crate::matches::event::EndReason;
use crate::session::Session;
use crate::session::hub::Hub;
use crate::session::listener::Listener;

/// How often the node looks at what is still here.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Matches looked at in one step.
const MATCHES_AT_ONCE: usize = 1_000;

/// The longest deadline that may be asked for.
pub const DEADLINE_MAX: Duration = Duration::from_secs(3_600);

/// The order to drain, and whether it is carried out.
#[derive(Debug)]
pub struct Draining {
    /// Within how long; none while the node is not to go.
    ordered: watch::Sender<Option<Duration>>,
    done: CancellationToken,
}

impl Default for Draining {
    fn default() -> Self {
        Self {
            ordered: watch::Sender::new(None),
            done: CancellationToken::new(),
        }
    }
}

impl Draining {
    /// Orders it. Of several orders the first counts.
    pub fn order(&self, within: Duration) {
        self.ordered.send_if_modified(|ordered| {
            let is_first = ordered.is_none();
            ordered.get_or_insert(within.min(DEADLINE_MAX));
            is_first
        });
    }

    /// Whether the node is on its way out.
    pub fn is_ordered(&self) -> bool {
        self.ordered.borrow().is_some()
    }

    /// Waits until nothing is left to wait for.
    pub async fn done(&self) {
        self.done.cancelled().await;
    }
}

/// Waits for the order, and carries it out.
pub async fn run(hub: Arc<Hub>) {
    let mut ordered = hub.draining().ordered.subscribe();
    let within = match ordered.wait_for(Option::is_some).await {
        Ok(ordered) => ordered.unwrap_or_default(),
        Err(_) => return,
    };
    tracing::info!(within_ms = within.as_millis() as u64, "draining");
    // From here on no match is placed here, and duties pass to others: they are for nodes that are ready.
    hub.cluster().set_state(MemberState::Draining);
    let mut drain = Drain::new(hub.now_ms() + within.as_millis() as u64);
    let mut effects = Vec::new();
    let mut moving = JoinSet::new();
    loop {
        while moving.try_join_next().is_some() {}
        let sessions: HashMap<SessionId, Arc<Session>> = hub
            .all_sessions()
            .into_iter()
            .map(|session| (session.id(), session))
            .collect();
        let nodes = hub.other_urls();
        let (matches, movable) = matches_here(&hub).await;
        let mut facts = Facts {
            sessions: sessions.keys().copied().collect(),
            matches,
            movable,
            moving: moving.len(),
            has_others: !nodes.is_empty(),
        };
        facts.sessions.sort_unstable();
        drain.step(hub.now_ms(), &facts, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Tell { session, within_ms } => {
                    let (reason, nodes) = ("draining".into(), nodes.clone());
                    if let Some(session) = sessions.get(&session) {
                        session.send(
                            None,
                            &ServerMessage::SessionGoingAway {
                                reason,
                                within_ms,
                                nodes,
                            },
                        );
                    }
                }
                Effect::Close { session } => {
                    if let Some(session) = sessions.get(&session) {
                        session.outbox().close(Close::GOING_AWAY);
                    }
                }
                Effect::Move { target } => {
                    let hub = Arc::clone(&hub);
                    moving.spawn(async move {
                        match hub.move_match(target, None, MoveCause::Drain).await {
                            Ok(to) => tracing::info!(%target, %to, "a match was moved"),
                            Err(refusal) => tracing::warn!(%target, %refusal, "a match stays until the node stops"),
                        }
                    });
                }
                Effect::End { target } => {
                    tracing::warn!(%target, "a match did not end before the node's deadline");
                    hub.executor().end(target, EndReason::Draining).await;
                }
                Effect::Stop => {
                    tracing::info!(
                        sessions = facts.sessions.len(),
                        matches = hub.executor().owned(),
                        "drained: the node stops"
                    );
                    hub.draining().done.cancel();
                    return;
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The matches that end with this node, and those that can go on elsewhere: zones and stored ones.
async fn matches_here(hub: &Hub) -> (Vec<MatchId>, Vec<MatchId>) {
    let leased = hub.executor().leased();
    let (mut bound, mut movable) = (Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let ids = hub.executor().ids(after, MATCHES_AT_ONCE, |_| true);
        let Some(last) = ids.last().copied() else {
            return (bound, movable);
        };
        for target in ids {
            if !leased.contains_key(&target) {
                bound.push(target);
                continue;
            }
            // Named ones are leased too, and those of no durability end with their owner.
            if let Some(view) = hub.executor().view(target).await {
                let is_zone = view.name.is_some_and(|name| name.contains('/'));
                if is_zone || view.durability == "stored" {
                    movable.push(target);
                } else {
                    bound.push(target);
                }
            }
        }
        after = Some(last);
    }
}
