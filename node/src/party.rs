//! Parties: players who queue together, on whichever nodes they are.
//!
//! A party is a row and its members (`store::parties`); here is what clients ask, and what they hear when their party changes.
//! Whoever changes it says so to all nodes, and each reads the rows of its players; a message that was lost is made good by
//! reading again every few seconds. A connection hears of each version of its party once, and of none older than the last.
//!
//! Rules: a player is in one party; when the leader leaves, the next in the order of joining leads; who has had no session for
//! five minutes has left; whoever leaves takes the party's waiting tickets out of their queues.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rookery_gossip::Membership;
use rookery_protocol::client::{PartyRequest, PartyState, ServerMessage};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, PlayersNews};
use rookery_protocol::{PartyId, PlayerId, SessionId};
use tokio::time::Instant;

use crate::changes::Changes;
use crate::modules::unavailable;
use crate::session::Session;
use crate::session::hub::Hub;
use crate::session::listener::Listener;
use crate::store::{LeftParty, PartyOutcome, PartyRow, StoreError};

/// The group of all nodes: news of parties are told to it.
pub const GROUP: &str = "parties";

/// The most players in a party. A queue may take fewer: those that fit into a team.
pub const MEMBERS_MAX: usize = 16;

/// Who has had no session for this long is in the party no more.
const UNSEEN_FOR_MS: u64 = 300_000;

/// How often the members here are said to be here, and their parties read.
const SEE_EVERY: Duration = Duration::from_secs(5);

/// How often those are looked for who have been away for too long; and since when this node must have reached the store without
/// a break, so that the others have had the time to say who is here.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Players read about, or said to be here, in one statement.
const PLAYERS_MAX: usize = 1_000;

/// Between two reads, so that a crowd is read about together.
const GATHER_FOR: Duration = Duration::from_millis(20);

/// Between two tries of the store while it is away.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// Letters and digits that are not taken for each other when read aloud.
const CODE_ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const CODE_LEN: usize = 6;

/// Codes tried for a new party. A thousand million are possible, so the second is rarely needed.
const CODES_TRIED: usize = 8;

/// The node's part of the parties.
pub struct Parties {
    hub: Arc<Hub>,
    players: Mutex<BTreeMap<PlayerId, Known>>,
    changes: Changes,
    /// Keeps this node in the group; none when the mesh does not take the group, and news come by reading again.
    _group: Option<Membership>,
}

/// What is known of a player with a session here.
#[derive(Debug, Default)]
struct Known {
    /// The party, as it was last read.
    party: Option<PartyRow>,
    /// What each connection heard last.
    sessions: BTreeMap<SessionId, Option<(PartyId, u64)>>,
}

impl Parties {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let group = hub.cluster().join(GROUP).map_err(|error| {
            tracing::warn!(%error, "changes of parties will be noticed late");
        });
        let parties = Arc::new(Self {
            hub: Arc::clone(hub),
            players: Mutex::default(),
            changes: Changes::default(),
            _group: group.ok(),
        });
        hub.spawn(Arc::clone(&parties).watch());
        parties
    }

    fn players(&self) -> MutexGuard<'_, BTreeMap<PlayerId, Known>> {
        self.players.lock().expect("no thread panics holding it")
    }

    /// A session was opened here: its player hears of their party.
    pub fn session_opened(&self, session: &Session) {
        let mut players = self.players();
        let known = players.entry(session.player()).or_default();
        known.sessions.insert(session.id(), None);
        drop(players);
        self.changes.add([session.player()]);
    }

    /// A session's socket is gone.
    pub fn session_closed(&self, session: &Session) {
        let mut players = self.players();
        if let Some(known) = players.get_mut(&session.player()) {
            known.sessions.remove(&session.id());
            if known.sessions.is_empty() {
                players.remove(&session.player());
            }
        }
    }

    /// Another node has changed the party of these players.
    pub fn announced(&self, bytes: &bytes::Bytes) {
        match peer::decode::<PlayersNews>(bytes) {
            Ok(news) => self.look_at(&news.players),
            Err(_) => self.hub.metrics().peer_undecodable.inc(),
        }
    }

    fn look_at(&self, players: &[PlayerId]) {
        let here: Vec<PlayerId> = {
            let known = self.players();
            players
                .iter()
                .copied()
                .filter(|player| known.contains_key(player))
                .collect()
        };
        self.changes.add(here);
    }

    fn tell(&self, players: Vec<PlayerId>) {
        self.look_at(&players);
        let news = PlayersNews { players };
        // Lost somewhere: that node reads the parties of its players again within seconds.
        let _ = self.hub.cluster().broadcast(GROUP, &peer::encode(&news));
    }

    /// Serves a request of a session: the answer, or none when it was given already.
    ///
    /// # Errors
    /// The refusal that the client is told.
    pub async fn request(
        self: Arc<Self>,
        session: Arc<Session>,
        id: Option<i64>,
        request: PartyRequest,
    ) -> Result<Option<ServerMessage>, Refusal> {
        let party = match request {
            PartyRequest::Create => self.create(&session).await?,
            PartyRequest::Join { code } => self.join(&session, &code).await?,
            PartyRequest::Leave => {
                let left = self.hub.store().leave_party(session.player()).await;
                let left = left.map_err(|error| unavailable(&error))?.ok_or_else(not_in_one)?;
                self.left(&left);
                left.party
            }
            PartyRequest::Kick { player } => self.kick(&session, &player).await?,
        };
        // What was answered is not pushed as well.
        self.heard(&session, &party);
        session.send(id, &ServerMessage::Party(state_of(&party)));
        self.tell(party.members.iter().map(|member| member.player).collect());
        Ok(None)
    }

    async fn create(&self, session: &Session) -> Result<PartyRow, Refusal> {
        for _ in 0..CODES_TRIED {
            let id = PartyId::from_parts(self.hub.unix_ms(), rand::random());
            let (store, player) = (self.hub.store(), session.player());
            let created = store
                .create_party(id, &new_code(rand::random()), player, session.name())
                .await;
            if let Some(party) = created.map_err(|error| unavailable(&error))? {
                return Ok(party);
            }
        }
        Err(Refusal::new(ErrorCode::Unavailable, "no code is free"))
    }

    async fn join(&self, session: &Session, code: &str) -> Result<PartyRow, Refusal> {
        let (store, player) = (self.hub.store(), session.player());
        let joined = store.join_party(code, player, session.name(), MEMBERS_MAX).await;
        match joined.map_err(|error| unavailable(&error))? {
            PartyOutcome::Joined { party, left } => {
                if let Some(left) = left {
                    self.left(&left);
                }
                Ok(party)
            }
            PartyOutcome::NotFound => Err(Refusal::new(ErrorCode::PartyNotFound, "no party has that code")),
            PartyOutcome::Full => {
                Err(Refusal::new(ErrorCode::PartyFull, "the party is full").with("members_max", MEMBERS_MAX))
            }
        }
    }

    async fn kick(&self, session: &Session, player: &str) -> Result<PartyRow, Refusal> {
        let own = self.hub.store().parties_of(&[session.player()]).await;
        let own = own.map_err(|error| unavailable(&error))?.into_iter().next();
        let own = own.ok_or_else(not_in_one)?;
        if own.leader != session.player() {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "only the party's leader takes players out of it",
            ));
        }
        let nobody = || Refusal::new(ErrorCode::PartyNotFound, "that player is not in the party");
        let player: PlayerId = player.parse().map_err(|_| nobody())?;
        let left = self.hub.store().kick_from_party(own.id, player).await;
        let left = left.map_err(|error| unavailable(&error))?.ok_or_else(nobody)?;
        self.left(&left);
        Ok(left.party)
    }

    /// Somebody left: those who were in it hear so, and that their tickets are gone.
    fn left(&self, left: &LeftParty) {
        self.tell(left.players.clone());
        self.hub.services().matchmaker.tell(&left.players);
    }

    fn heard(&self, session: &Session, party: &PartyRow) {
        let mut players = self.players();
        if let Some(known) = players.get_mut(&session.player())
            && let Some(heard) = known.sessions.get_mut(&session.id())
        {
            *heard = Some((party.id, party.version));
        }
    }

    /// Reads the parties of the players here when they have changed, and says that these players are here, until the node stops.
    async fn watch(self: Arc<Self>) {
        let mut see_at = Instant::now() + SEE_EVERY;
        let mut sweep_at = Instant::now() + SWEEP_EVERY;
        loop {
            tokio::select! {
                () = self.changes.some() => tokio::time::sleep(GATHER_FOR).await,
                () = tokio::time::sleep_until(see_at) => {}
            }
            let now = Instant::now();
            let players = self.changes.take(PLAYERS_MAX);
            let worked = async {
                if now >= see_at {
                    see_at = now + SEE_EVERY;
                    self.see().await?;
                }
                if now >= sweep_at {
                    sweep_at = now + SWEEP_EVERY;
                    for left in self.hub.store().sweep_parties(UNSEEN_FOR_MS).await? {
                        self.left(&left);
                    }
                }
                self.look(&players).await
            };
            if let Err(error) = worked.await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the store is away: parties were not read"
                );
                sweep_at = Instant::now() + SWEEP_EVERY;
                tokio::time::sleep(STORE_AGAIN).await;
                self.changes.add(players);
            }
        }
    }

    async fn see(&self) -> Result<(), StoreError> {
        let members: Vec<PlayerId> = {
            let players = self.players();
            let members = players.iter().filter(|(_, known)| known.party.is_some());
            members.map(|(player, _)| *player).collect()
        };
        for members in members.chunks(PLAYERS_MAX) {
            self.hub.store().see_party_members(members).await?;
        }
        self.changes.add(members);
        Ok(())
    }

    async fn look(&self, players: &[PlayerId]) -> Result<(), StoreError> {
        if players.is_empty() {
            return Ok(());
        }
        let parties = self.hub.store().parties_of(players).await?;
        for player in players {
            let party = match parties.iter().find(|party| party.has(*player)) {
                Some(party) => Some(party.clone()),
                None => self.left_behind(*player).await?,
            };
            self.learn(*player, party);
        }
        Ok(())
    }

    /// The party that a player was in and is in no more, as it is now; none if they were in none.
    async fn left_behind(&self, player: PlayerId) -> Result<Option<PartyRow>, StoreError> {
        let was = self.players().get(&player).and_then(|known| known.party.clone());
        let Some(was) = was else { return Ok(None) };
        let now = self.hub.store().find_party(&was.id.to_string()).await?;
        Ok(Some(now.unwrap_or(PartyRow {
            members: Vec::new(),
            version: was.version + 1,
            ..was
        })))
    }

    /// Notes a player's party as it was just read, and tells the connections that have not heard of it.
    fn learn(&self, player: PlayerId, party: Option<PartyRow>) {
        let mut news = Vec::new();
        {
            let mut players = self.players();
            let Some(known) = players.get_mut(&player) else { return };
            if let Some(party) = &party {
                for (session, heard) in &mut known.sessions {
                    let is_news = match heard {
                        // A party that somebody was never told of, and is not in, is nothing to them.
                        None => party.has(player),
                        Some((id, version)) if *id == party.id => *version < party.version,
                        Some(_) => party.has(player),
                    };
                    if is_news {
                        *heard = Some((party.id, party.version));
                        news.push(*session);
                    }
                }
            }
            known.party = party.clone().filter(|party| party.has(player));
        }
        if let Some(party) = party.filter(|_| !news.is_empty()) {
            let message = ServerMessage::Party(state_of(&party));
            let sessions = self.hub.sessions_of(player);
            for session in sessions.iter().filter(|session| news.contains(&session.id())) {
                session.send(None, &message);
            }
        }
    }
}

fn state_of(party: &PartyRow) -> PartyState {
    PartyState {
        party: party.id,
        code: party.code.clone(),
        leader: party.leader,
        members: party.members.iter().map(|member| member.player).collect(),
    }
}

fn not_in_one() -> Refusal {
    Refusal::new(ErrorCode::PartyNotFound, "the player is in no party")
}

fn new_code(random: u64) -> String {
    let letter = |place: usize| char::from(CODE_ALPHABET[(random >> (place * 5)) as usize % CODE_ALPHABET.len()]);
    (0..CODE_LEN).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_short_and_use_what_can_be_read_aloud() {
        assert_eq!(new_code(0), "AAAAAA");
        assert_eq!(new_code(u64::MAX), "999999");
        let code = new_code(0x1234_5678_9abc_def0);
        assert!(code.len() == CODE_LEN && code.bytes().all(|letter| CODE_ALPHABET.contains(&letter)));
    }
}
