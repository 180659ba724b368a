//! One queue's former: holds its lease, reads the pool, has matches formed, claims them, and sees that they begin.
//!
//! The lease keeps nodes out of each other's way, nothing more: if two formed at once, each ticket would still be claimed by one of
//! them. What is claimed and not begun when this node dies is begun by the match's owner, or by whoever takes it over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rookery_gossip::MemberState;
use rookery_protocol::PlayerId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::form::{Formed, Waiting, form};
use super::property::{Properties, Query};
use super::{Matchmaker, Queue};
use crate::matches::part::Invitee;
use crate::modules::Published;
use crate::session::hub::{Hub, node_id};
use crate::store::{Claim, Claimed, FormedPlayer, PoolRow, StoreError};

/// How long the lease is, and how often its holder asks for it again. A holder that dies is missed for this long at most.
const LEASE_MS: u64 = 4_000;
const RENEW_EVERY: Duration = Duration::from_millis(1_200);

/// How often a node that does not hold the lease asks for it.
const ASK_EVERY: Duration = Duration::from_millis(900);

/// How often the pool is looked at. Two who fit wait for half of it on the average, and then for the match to begin.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a player is taken to be there after having been seen.
const SEEN_WITHIN_MS: u64 = 15_000;

/// Tickets looked at together. More wait for those before them.
const POOL_MAX: u32 = 10_000;

/// Matches claimed in one transaction: their rows and tickets are some 10 ms of a SQLite file, which others wait for.
const CLAIMS_MAX: usize = 64;

/// Matches that are being begun at once.
const STARTS_MAX: usize = 128;

/// How often the queue is swept of what is over, and how often what no node forms any more.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_ALL_EVERY: Duration = Duration::from_secs(60);

/// What is swept in other queues has been over for this long: their own formers have the first turn.
const OTHERS_LATE_MS: u64 = 60_000;

/// The longest pause after matches of the queue could not be begun.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What a former remembers from pass to pass.
struct Turn {
    held_until: Option<Instant>,
    ask_at: Instant,
    sweep_at: Instant,
    sweep_all_at: Instant,
    /// Matches that did not begin, one after the other.
    failed: Arc<AtomicU32>,
    starts: Arc<Semaphore>,
}

impl Matchmaker {
    /// Forms the queue's matches whenever this node has its lease, until the node stops.
    pub(super) async fn form(self: Arc<Self>, queue: Arc<Queue>) {
        let now = Instant::now();
        let mut turn = Turn {
            held_until: None,
            ask_at: now,
            sweep_at: now,
            sweep_all_at: now + SWEEP_ALL_EVERY,
            failed: Arc::default(),
            starts: Arc::new(Semaphore::new(STARTS_MAX)),
        };
        let mut away = false;
        loop {
            let began = Instant::now();
            let worked = self.turn(&queue, &mut turn).await;
            if let Err(error) = &worked
                && !std::mem::replace(&mut away, true)
            {
                tracing::warn!(
                    queue = queue.name,
                    error = error as &dyn std::error::Error,
                    "the queue's matches wait for the store"
                );
            }
            away &= worked.is_err();
            // A pass over a large pool is not begun again at once: the others on this node have work to do too.
            let pause = pause_after(turn.failed.load(Ordering::Relaxed));
            tokio::time::sleep(LOOK_EVERY.max(began.elapsed()).max(pause)).await;
        }
    }

    async fn turn(&self, queue: &Arc<Queue>, turn: &mut Turn) -> Result<(), StoreError> {
        if !takes_duties(&self.hub) {
            if turn.held_until.take().is_some() {
                self.stand_down(queue).await?;
            }
            return Ok(());
        }
        let now = Instant::now();
        if now >= turn.ask_at {
            let lease = self
                .hub
                .store()
                .acquire_lease(&queue.lease(), self.hub.local(), LEASE_MS)
                .await?;
            let is_ours = lease.is_held_by(self.hub.local());
            if is_ours && turn.held_until.is_none() {
                tracing::debug!(
                    queue = queue.name,
                    epoch = lease.epoch,
                    "this node forms the queue's matches"
                );
            }
            // Counted from when we asked.
            turn.held_until = is_ours.then(|| now + Duration::from_millis(LEASE_MS));
            turn.ask_at = now + if is_ours { RENEW_EVERY } else { ASK_EVERY };
        }
        if turn.held_until.is_none_or(|until| Instant::now() >= until) {
            turn.held_until = None;
            queue.metrics.tickets.set(0);
            return Ok(());
        }
        if now >= turn.sweep_at {
            turn.sweep_at = now + SWEEP_EVERY;
            self.sweep(queue).await?;
        }
        if now >= turn.sweep_all_at {
            turn.sweep_all_at = now + SWEEP_ALL_EVERY;
            let swept = self
                .hub
                .store()
                .sweep_tickets(None, queue.reserve_ms, OTHERS_LATE_MS)
                .await?;
            self.tell(&swept.iter().map(|(player, _)| *player).collect::<Vec<_>>());
            self.hub.store().sweep_old_tickets().await?;
        }
        self.form_now(queue, turn).await
    }

    /// Gives the lease up before its time, so that another node goes on at once.
    async fn stand_down(&self, queue: &Queue) -> Result<(), StoreError> {
        queue.metrics.tickets.set(0);
        let lease = self.hub.store().read_lease(&queue.lease()).await?;
        if let Some(lease) = lease.filter(|lease| lease.is_held_by(self.hub.local())) {
            self.hub
                .store()
                .release_lease(&queue.lease(), self.hub.local(), lease.epoch)
                .await?;
        }
        Ok(())
    }

    async fn sweep(&self, queue: &Queue) -> Result<(), StoreError> {
        let swept = self
            .hub
            .store()
            .sweep_tickets(Some(&queue.name), queue.reserve_ms, 0)
            .await?;
        if !swept.is_empty() {
            tracing::debug!(
                queue = queue.name,
                swept = swept.len(),
                "tickets expired or were given back"
            );
            self.tell(&swept.iter().map(|(player, _)| *player).collect::<Vec<_>>());
        }
        let depths = self.hub.store().queue_depths().await?;
        let depth = depths.iter().find(|depth| depth.queue == queue.name);
        queue.metrics.tickets.set(depth.map_or(0, |depth| depth.waiting as i64));
        Ok(())
    }

    async fn form_now(&self, queue: &Arc<Queue>, turn: &Turn) -> Result<(), StoreError> {
        let rows = self
            .hub
            .store()
            .ticket_pool(&queue.name, SEEN_WITHIN_MS, POOL_MAX)
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        // Not published, or the store is away: the tickets wait, and the next pass asks again.
        let Ok(published) = self.hub.modules().resolve(&queue.module).await else {
            return Ok(());
        };
        let (rules, pool) = (queue.rules.clone(), waiting_of(&rows));
        // Thousands of tickets are tens of milliseconds, in which sockets are not to wait.
        let formed = tokio::task::spawn_blocking(move || form(&rules, &pool)).await;
        let Ok(mut formed) = formed else { return Ok(()) };
        // The last match did not begin: one is enough to see whether the next one does.
        if turn.failed.load(Ordering::Relaxed) > 0 {
            formed.truncate(1);
        }
        for formed in formed.chunks(CLAIMS_MAX) {
            if turn.held_until.is_none_or(|until| Instant::now() >= until) {
                return Ok(());
            }
            let claims: Vec<Claim> = formed
                .iter()
                .map(|formed| self.claim_of(&published, &rows, formed))
                .collect();
            let claimed = self.hub.store().claim_tickets(&queue.name, &claims).await?;
            for (claim, claimed) in claims.into_iter().zip(claimed) {
                if let Some(claimed) = claimed {
                    self.begin(queue, turn, &published, claim, claimed).await;
                }
            }
        }
        Ok(())
    }

    fn claim_of(&self, published: &Published, rows: &[PoolRow], formed: &Formed) -> Claim {
        let members = || formed.members.iter().map(|(place, team)| (&rows[*place], *team));
        let invited: Vec<Invitee> = members()
            .map(|(row, team)| Invitee {
                player: row.player,
                team,
                party: row.party.map(|party| party.to_string()),
                properties: row.properties.clone(),
            })
            .collect();
        let players = members().map(|(row, team)| FormedPlayer {
            player: row.player,
            name: row.name.clone(),
            team,
        });
        Claim {
            game_match: self.hub.formed_row(published, &invited),
            tickets: members().map(|(row, team)| (row.id, team)).collect(),
            players: players.collect(),
        }
    }

    /// Has a claimed match begun, and its players told. Whoever dies meanwhile, its row says what is left to do.
    async fn begin(&self, queue: &Arc<Queue>, turn: &Turn, published: &Published, claim: Claim, claimed: Claimed) {
        for waited_ms in &claimed.waited_ms {
            queue.metrics.wait_seconds.observe(*waited_ms as f64 / 1_000.0);
        }
        // Closed only with the node.
        let Ok(permit) = Arc::clone(&turn.starts).acquire_owned().await else {
            return;
        };
        let (hub, queue, failed, published) = (
            Arc::clone(&self.hub),
            Arc::clone(queue),
            Arc::clone(&turn.failed),
            published.clone(),
        );
        self.hub.spawn(async move {
            let target = claim.game_match.id;
            let begun = hub
                .begin_new(published, claim.game_match, 1, claimed.created_at_ms)
                .await;
            drop(permit);
            let players: Vec<PlayerId> = claim.players.iter().map(|player| player.player).collect();
            match begun {
                Ok(_) => {
                    failed.store(0, Ordering::Relaxed);
                    hub.services().matchmaker.tell(&players);
                }
                Err(refusal) => {
                    // Its row says that it failed, or that it is still to begin; in both cases the sweep or the owner goes on.
                    failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(queue = queue.name, %target, %refusal, "a match that was formed did not begin");
                }
            }
        });
    }
}

/// After so many failures in a row: a module that cannot start a match is not asked a thousand times a second.
fn pause_after(failed: u32) -> Duration {
    match failed {
        0 => Duration::ZERO,
        failed => Duration::from_secs(1 << failed.min(6)).min(PAUSE_MAX),
    }
}

/// Whether this node takes on what another could do as well.
fn takes_duties(hub: &Hub) -> bool {
    let members = hub.cluster().members().borrow().clone();
    let own = node_id(&hub.local().name).and_then(|node| members.get(&node).map(|member| member.state));
    hub.is_joined() && own == Some(MemberState::Ready)
}

fn waiting_of(rows: &[PoolRow]) -> Vec<Waiting> {
    let waiting = rows.iter().map(|row| Waiting {
        ticket: row.id,
        party: row.party.map(|party| (party, row.party_size as usize)),
        waited_ms: row.waited_ms,
        // They were checked when the ticket was taken; what another version took and this one cannot read asks nothing.
        properties: Properties::read(&row.properties).unwrap_or_default(),
        query: Query::read(&row.query).unwrap_or_default(),
    });
    waiting.collect()
}
