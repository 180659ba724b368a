//! The matchmaker: tickets in, matches out.
//!
//! A ticket is a row and belongs to its player; any node takes it, and any node forms: `form`* is the pure rule, `former` holds the
//! queue's lease and claims what the rule has found, `board`* says what each connection is told of its player's tickets, and
//! `watch` reads the rows that it is told from. Here is what clients ask.
//!
//! Nothing that matters is only in memory: a node that dies loses a lease of a few seconds, and the others read what it wrote.

pub mod board;
pub mod form;
mod former;
pub mod property;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rookery_gossip::Membership;
use rookery_protocol::client::{QueueMessage, QueueRequest, ServerMessage};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, PlayersNews};
use rookery_protocol::{MatchId, PlayerId, TicketId};

use self::board::Board;
use self::form::{Rules, Skill};
use self::property::{Properties, PropertyError, Query};
use crate::changes::Changes;
use crate::config;
use crate::metrics::QueueMetrics;
use crate::modules::unavailable;
use crate::ops::view::{QueueView, QueuesView};
use crate::session::Session;
use crate::session::hub::Hub;
use crate::session::listener::Listener;
use crate::store::{NewTicket, NewTickets, PartyRow, QueueOutcome};

/// The group of the nodes that serve queues: news of tickets are told to it.
pub const GROUP: &str = "tickets";

/// Players in one message to other nodes. 500 of them are 14 KB.
const NEWS_MAX: usize = 500;

/// The matchmaker's part on this node.
pub struct Matchmaker {
    hub: Arc<Hub>,
    queues: BTreeMap<String, Arc<Queue>>,
    board: Mutex<Board>,
    changes: Changes,
    /// Who has sat down in a match that was formed, until the store knows. At most one a seat on this node.
    come: Mutex<Vec<(PlayerId, MatchId)>>,
    /// Keeps this node in the group; none when the mesh does not take the group, and news come by reading again.
    _group: Option<Membership>,
}

/// A queue as it is configured.
struct Queue {
    name: String,
    module: String,
    rules: Rules,
    waiting_max: u64,
    expires_ms: u64,
    reserve_ms: u64,
    metrics: QueueMetrics,
}

impl Queue {
    fn of(hub: &Hub, name: &str, queue: &config::Queue) -> Self {
        let skill = &queue.skill;
        Self {
            name: name.to_owned(),
            module: queue.module.clone().unwrap_or_default(),
            rules: Rules {
                min_players: queue.min_players as usize,
                max_players: queue.max_players as usize,
                teams: queue.teams as usize,
                match_on: queue.match_on.clone(),
                skill: skill.property.as_ref().map(|property| Skill {
                    property: property.clone(),
                    window: skill.window.unwrap_or(0.0),
                    widen: skill.widen.unwrap_or(0.0),
                    every_ms: skill.every.map_or(0, |every| every.as_millis() as u64),
                }),
                fill_for_ms: queue.fill_for.as_millis() as u64,
            },
            waiting_max: u64::from(queue.max_waiting),
            expires_ms: queue.expires.as_millis() as u64,
            reserve_ms: hub.config().queues.reserve.as_millis() as u64,
            metrics: hub.metrics().queue(name),
        }
    }

    /// The name of the lease on forming it.
    fn lease(&self) -> String {
        format!("queue/{}", self.name)
    }
}

impl Matchmaker {
    /// Starts what serves the configured queues; nothing when there are none.
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let configured = &hub.config().queues.by_name;
        let queues = configured
            .iter()
            .map(|(name, queue)| (name.clone(), Arc::new(Queue::of(hub, name, queue))));
        let queues: BTreeMap<String, Arc<Queue>> = queues.collect();
        let group = (!queues.is_empty()).then(|| hub.cluster().join(GROUP));
        let group = group.transpose().map_err(|error| {
            tracing::warn!(%error, "news of tickets will be noticed late");
        });
        let matchmaker = Arc::new(Self {
            hub: Arc::clone(hub),
            queues,
            board: Mutex::default(),
            changes: Changes::default(),
            come: Mutex::default(),
            _group: group.ok().flatten(),
        });
        if !matchmaker.queues.is_empty() {
            hub.spawn(Arc::clone(&matchmaker).watch());
            for queue in matchmaker.queues.values() {
                hub.spawn(Arc::clone(&matchmaker).form(Arc::clone(queue)));
            }
        }
        matchmaker
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().expect("no thread panics holding it")
    }

    fn come(&self) -> MutexGuard<'_, Vec<(PlayerId, MatchId)>> {
        self.come.lock().expect("no thread panics holding it")
    }

    /// A session was opened here: its player hears how their tickets stand.
    pub fn session_opened(&self, session: &Session) {
        if !self.queues.is_empty() {
            self.board().opened(session.player(), session.id());
            self.changes.add([session.player()]);
        }
    }

    /// A session's socket is gone. Its player's tickets wait on.
    pub fn session_closed(&self, session: &Session) {
        if !self.queues.is_empty() {
            self.board().closed(session.player(), session.id());
        }
    }

    /// A player sat down in a match here. If it was formed for them, the ticket has done its work.
    pub fn seated(&self, player: PlayerId, target: MatchId) {
        if !self.queues.is_empty() && self.board().seated(player, target) {
            self.come().push((player, target));
            self.changes.add([player]);
        }
    }

    /// Another node has changed the tickets of these players.
    pub fn announced(&self, bytes: &bytes::Bytes) {
        match peer::decode::<PlayersNews>(bytes) {
            Ok(news) => self.look_at(&news.players),
            Err(_) => self.hub.metrics().peer_undecodable.inc(),
        }
    }

    /// Tells all nodes, this one included, that the tickets of these players changed.
    pub fn tell(&self, players: &[PlayerId]) {
        if self.queues.is_empty() {
            return;
        }
        self.look_at(players);
        for players in players.chunks(NEWS_MAX) {
            let news = PlayersNews {
                players: players.to_vec(),
            };
            // Lost somewhere: that node reads the rows of its players again within seconds.
            let _ = self.hub.cluster().broadcast(GROUP, &peer::encode(&news));
        }
    }

    fn look_at(&self, players: &[PlayerId]) {
        let here: Vec<PlayerId> = {
            let board = self.board();
            players.iter().copied().filter(|player| board.has(*player)).collect()
        };
        self.changes.add(here);
    }

    /// Serves a request of a session: the answer, or none when it was given already.
    ///
    /// # Errors
    /// The refusal that the client is told.
    pub async fn request(
        self: Arc<Self>,
        session: Arc<Session>,
        id: Option<i64>,
        request: QueueRequest,
    ) -> Result<Option<ServerMessage>, Refusal> {
        match request {
            QueueRequest::Join {
                queue,
                properties,
                query,
                party,
            } => {
                let ask = Ask {
                    queue,
                    properties,
                    query,
                    party,
                };
                self.join(&session, id, ask).await.map(|()| None)
            }
            QueueRequest::Leave { ticket } => self.leave(session.player(), &ticket).await.map(Some),
            QueueRequest::Status { ticket } => self.status(session.player(), &ticket).await.map(Some),
        }
    }

    /// Puts a session's player, or their party, into a queue. Whatever is pushed about the ticket comes after the answer.
    async fn join(&self, session: &Arc<Session>, id: Option<i64>, ask: Ask) -> Result<(), Refusal> {
        self.board().joining(session.player(), session.id());
        let joined = self.enter(session, ask).await;
        let ticket = joined.as_ref().ok().map(|(ticket, _)| *ticket);
        if let Some(ticket) = ticket {
            session.send(id, &ServerMessage::Queue(QueueMessage::Joined { ticket }));
        }
        self.board().answered(session.player(), session.id(), ticket);
        let (_, players) = joined?;
        if players.len() > 1 {
            self.tell(&players);
        } else {
            self.changes.add(players);
        }
        Ok(())
    }

    async fn enter(&self, session: &Arc<Session>, ask: Ask) -> Result<(TicketId, Vec<PlayerId>), Refusal> {
        let Some(queue) = self.queues.get(&ask.queue) else {
            return Err(Refusal::new(
                ErrorCode::QueueUnknown,
                format!("no queue is called {}", ask.queue),
            ));
        };
        queue.check(&ask)?;
        let published = self.hub.modules().resolve(&queue.module).await?;
        if (published.manifest.max_players as usize) < queue.rules.max_players {
            let message = format!("matches of {} take fewer players than the queue forms", queue.module);
            return Err(
                Refusal::new(ErrorCode::ModuleInvalid, message).with("max_players", published.manifest.max_players)
            );
        }
        let ticket_of = |player, name: &str| NewTicket {
            id: TicketId::from_parts(self.hub.unix_ms(), rand::random()),
            player,
            name: name.to_owned(),
        };
        let (party, players) = match ask.party {
            None => (None, vec![ticket_of(session.player(), session.name())]),
            Some(party) => {
                let found = self.hub.store().find_party(&party).await;
                let found = found.map_err(|error| unavailable(&error))?;
                let party = queue.admit(found, session.player())?;
                let players = party
                    .members
                    .iter()
                    .map(|member| ticket_of(member.player, &member.name));
                (Some(party.id), players.collect())
            }
        };
        let ids: Vec<(PlayerId, TicketId)> = players.iter().map(|ticket| (ticket.player, ticket.id)).collect();
        let new = NewTickets {
            queue: queue.name.clone(),
            party,
            properties: ask.properties,
            query: ask.query,
            players,
            waiting_max: queue.waiting_max,
            expires_ms: queue.expires_ms,
        };
        let outcome = self.hub.store().join_queue(new).await;
        match outcome.map_err(|error| unavailable(&error))? {
            QueueOutcome::Joined => {
                let own = ids.iter().find(|(player, _)| *player == session.player());
                let (_, ticket) = own.ok_or_else(|| Refusal::new(ErrorCode::Internal, "the player has no ticket"))?;
                Ok((*ticket, ids.iter().map(|(player, _)| *player).collect()))
            }
            QueueOutcome::AlreadyWaiting { player, ticket } if player == session.player() => Err(Refusal::new(
                ErrorCode::QueueAlreadyWaiting,
                "the player has a ticket in this queue",
            )
            .with("ticket", ticket.to_string())),
            QueueOutcome::AlreadyWaiting { player, .. } => Err(Refusal::new(
                ErrorCode::QueueAlreadyWaiting,
                "somebody of the party has a ticket in this queue",
            )
            .with("player", player.to_string())),
            QueueOutcome::Full => {
                let message = "as many wait in this queue as may";
                Err(Refusal::new(ErrorCode::QueueFull, message).with("max_waiting", queue.waiting_max))
            }
        }
    }

    async fn leave(&self, player: PlayerId, ticket: &str) -> Result<ServerMessage, Refusal> {
        let ticket: TicketId = ticket.parse().map_err(|_| no_ticket())?;
        let left = self.hub.store().leave_queue(ticket, player).await;
        let players = left.map_err(|error| unavailable(&error))?.ok_or_else(no_ticket)?;
        self.board().left(player, ticket);
        self.tell(&players);
        Ok(ServerMessage::Queue(QueueMessage::Left { ticket }))
    }

    async fn status(&self, player: PlayerId, ticket: &str) -> Result<ServerMessage, Refusal> {
        let ticket: TicketId = ticket.parse().map_err(|_| no_ticket())?;
        let row = self.hub.store().read_ticket(ticket, player).await;
        let row = row.map_err(|error| unavailable(&error))?.ok_or_else(no_ticket)?;
        Ok(ServerMessage::Queue(board::state_of(&row)))
    }

    /// The queues as operators see them: those that are configured here.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn view(&self) -> Result<QueuesView, Refusal> {
        let depths = self.hub.store().queue_depths().await;
        let depths = depths.map_err(|error| unavailable(&error))?;
        let mut queues = Vec::new();
        for queue in self.queues.values() {
            let lease = self.hub.store().read_lease(&queue.lease()).await;
            let holder = lease
                .map_err(|error| unavailable(&error))?
                .and_then(|lease| lease.holder);
            let depth = depths.iter().find(|depth| depth.queue == queue.name);
            queues.push(QueueView {
                queue: queue.name.clone(),
                waiting: depth.map_or(0, |depth| depth.waiting),
                oldest_ms: depth.map_or(0, |depth| depth.oldest_ms),
                former: holder.map(|holder| holder.name.to_string()),
            });
        }
        Ok(QueuesView { queues })
    }
}

/// `queue.join`, as it came.
struct Ask {
    queue: String,
    properties: String,
    query: String,
    party: Option<String>,
}

impl Queue {
    /// Checks what a ticket says and asks.
    fn check(&self, ask: &Ask) -> Result<(), Refusal> {
        let bad = |field: &str, error: PropertyError| {
            let message = format!("{field}: {error}");
            Refusal::new(ErrorCode::BadMessage, message)
        };
        let properties = Properties::read(&ask.properties).map_err(|error| bad("properties", error))?;
        Query::read(&ask.query).map_err(|error| bad("query", error))?;
        if let Some(skill) = &self.rules.skill
            && properties.has(&skill.property)
            && properties.number(&skill.property).is_none()
        {
            let message = format!("properties: `{}` is not a number", skill.property);
            return Err(Refusal::new(ErrorCode::BadMessage, message));
        }
        Ok(())
    }

    /// Checks that this party may be queued by this player.
    fn admit(&self, party: Option<PartyRow>, player: PlayerId) -> Result<PartyRow, Refusal> {
        let Some(party) = party else {
            return Err(Refusal::new(ErrorCode::PartyNotFound, "there is no such party"));
        };
        if party.leader != player {
            return Err(Refusal::new(ErrorCode::Forbidden, "only the party's leader queues it"));
        }
        let members_max = self.rules.party_max();
        if party.members.len() > members_max {
            let message = "the party is larger than a team of this queue";
            return Err(Refusal::new(ErrorCode::PartyFull, message).with("members_max", members_max));
        }
        Ok(party)
    }
}

fn no_ticket() -> Refusal {
    Refusal::new(ErrorCode::QueueUnknown, "the player has no such ticket")
}
