//! Reading how the tickets of the players here stand, and telling them; and telling the store that these players are here.
//!
//! What is read is decided by `changes` (somebody said that something changed) and by the clock (nobody said so, or it was lost);
//! what is said is decided by [`Board`](super::board::Board).

use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::client::ServerMessage;
use rookery_protocol::{PlayerId, TicketId};
use tokio::time::Instant;

use super::Matchmaker;
use super::board::Say;
use crate::session::listener::Listener;
use crate::store::StoreError;

/// How often players with tickets are said to be here, and their tickets read. A ticket is not matched when its player was not
/// seen for 15 s; three times in that span, so that one refusal of the store does not matter.
const SEE_EVERY: Duration = Duration::from_secs(5);

/// Players read about, or said to be here, in one statement.
const PLAYERS_MAX: usize = 1_000;

/// Between two reads, so that a crowd is read about together.
const GATHER_FOR: Duration = Duration::from_millis(20);

/// Between two tries of the store while it is away.
const STORE_AGAIN: Duration = Duration::from_millis(500);

impl Matchmaker {
    /// Until the node stops.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut see_at = Instant::now() + SEE_EVERY;
        loop {
            tokio::select! {
                () = self.changes.some() => tokio::time::sleep(GATHER_FOR).await,
                () = tokio::time::sleep_until(see_at) => {}
            }
            if Instant::now() >= see_at {
                see_at = Instant::now() + SEE_EVERY;
                self.see().await;
            }
            let players = self.changes.take(PLAYERS_MAX);
            if let Err(error) = self.look(&players).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the store is away: tickets were not read"
                );
                tokio::time::sleep(STORE_AGAIN).await;
                self.changes.add(players);
            }
        }
    }

    /// Says that the players with tickets are here, and has those tickets read.
    async fn see(&self) {
        let players = self.board().with_tickets();
        for players in players.chunks(PLAYERS_MAX) {
            if let Err(error) = self.hub.store().see_tickets(players).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the store is away: players were not said to be here"
                );
            }
        }
        self.changes.add(players);
    }

    async fn look(&self, players: &[PlayerId]) -> Result<(), StoreError> {
        let come = std::mem::take(&mut *self.come());
        if !come.is_empty()
            && let Err(error) = self.hub.store().use_tickets(&come).await
        {
            self.come().extend(come);
            return Err(error);
        }
        if players.is_empty() {
            return Ok(());
        }
        let rows = self.hub.store().tickets_of(players).await?;
        let mut out = Vec::new();
        self.board().learn(players, &rows, &mut out);
        let mut heard: Vec<TicketId> = Vec::new();
        for say in out {
            match say {
                Say::Push {
                    player,
                    session,
                    message,
                } => {
                    let message = ServerMessage::Queue(message);
                    let sessions = self.hub.sessions_of(player);
                    for open in sessions.iter().filter(|open| open.id() == session) {
                        open.send(None, &message);
                    }
                }
                Say::Forget { ticket } => heard.push(ticket),
            }
        }
        if !heard.is_empty() {
            self.hub.store().forget_tickets(&heard).await?;
        }
        Ok(())
    }
}
