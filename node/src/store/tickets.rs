//! Tickets of the matchmaker: rows that belong to players, wait in a queue, and are matched, expire or are taken back.
//!
//! The row is the notice: whoever was matched or expired reads it from here, however often a node dies in between. Claiming
//! tickets and making their match is one transaction, and a ticket that is gone meanwhile costs its own match and no other. The
//! database's clock says how long a ticket waited and whether its player is here.

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::{MatchId, PartyId, PlayerId, TicketId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::batch::Write;
use super::matches::{self, MatchStatus, NewMatch};
use super::sql::{Row, Sql, Transaction, args};
use super::{Store, StoreError};

/// Players who want to wait in a queue together; all of them or none.
#[derive(Debug, Clone)]
pub struct NewTickets {
    pub queue: String,
    pub party: Option<PartyId>,
    /// JSON objects as text, the same for all of a party.
    pub properties: String,
    pub query: String,
    pub players: Vec<NewTicket>,
    /// Tickets that may wait in the queue.
    pub waiting_max: u64,
    pub expires_ms: u64,
}

/// One player's ticket.
#[derive(Debug, Clone)]
pub struct NewTicket {
    pub id: TicketId,
    pub player: PlayerId,
    pub name: String,
}

/// What became of [`NewTickets`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueOutcome {
    Joined,
    /// This player has a ticket in the queue already. Nothing was written.
    AlreadyWaiting {
        player: PlayerId,
        ticket: TicketId,
    },
    /// As many wait as may. Nothing was written.
    Full,
}

/// Where a ticket stands, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Waiting,
    Matched {
        target: MatchId,
        team: u32,
        players: Vec<FormedPlayer>,
        /// The match's row; none when it is gone.
        status: Option<MatchStatus>,
    },
    Expired,
}

/// Somebody in a match that was formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormedPlayer {
    pub player: PlayerId,
    pub name: String,
    pub team: u32,
}

/// A ticket as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketRow {
    pub id: TicketId,
    pub queue: String,
    pub player: PlayerId,
    pub standing: Standing,
    pub waited_ms: u64,
    /// How long tickets of this queue waited of late.
    pub estimate_ms: Option<u64>,
}

/// A ticket that may be matched now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRow {
    pub id: TicketId,
    pub player: PlayerId,
    pub name: String,
    pub party: Option<PartyId>,
    pub party_size: u32,
    pub properties: String,
    pub query: String,
    pub waited_ms: u64,
}

/// Tickets to claim, and the match to make for them.
#[derive(Debug, Clone)]
pub struct Claim {
    pub game_match: NewMatch,
    /// Each ticket with its team.
    pub tickets: Vec<(TicketId, u32)>,
    pub players: Vec<FormedPlayer>,
}

/// A match that was made, status `starting`, and how long its tickets had waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub created_at_ms: u64,
    pub waited_ms: Vec<u64>,
}

/// What happened to a ticket without its player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// Nobody fitted in time, or the player did not come in time.
    Expired,
    /// Its match could not be started or was lost: it waits again, as long as before.
    Returned,
}

/// How many wait in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DepthRow {
    pub queue: String,
    pub waiting: u64,
    /// How long the first of them has waited.
    pub oldest_ms: u64,
}

/// Tickets that this many milliseconds after they expired were not heard of are forgotten.
const HEARD_WITHIN_MS: u64 = 3_600_000;

/// How much of the estimate the last matches are: a quarter.
const ESTIMATE_WEIGHT: u32 = 4;

const DEPTHS: Sql = Sql::both(
    "select queue, count(*) as waiting, (select now_ms from clock) - min(created_at) as oldest
     from tickets where state = 'waiting' group by queue order by queue",
);

/// Each row `[id, queue, player, name, party, party size, properties, query, expires in ms]`. Who queues alone is here; of a party it
/// is known when each was last seen.
const INSERT: Sql = Sql {
    sqlite: "insert into tickets (id, queue, player, name, party, party_size, properties, query, state, created_at, seen_at,
                 expires_at)
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5, r.value ->> 6,
                 r.value ->> 7, 'waiting', c.now_ms,
                 case when r.value ->> 4 is null then c.now_ms
                     else coalesce((select p.seen_at from party_members p where p.player = r.value ->> 2), c.now_ms) end,
                 c.now_ms + (r.value ->> 8)
             from json_each($1) as r, clock as c where true
             on conflict do nothing returning id",
    postgres: "insert into tickets (id, queue, player, name, party, party_size, properties, query, state, created_at, seen_at,
                   expires_at)
               select r.v ->> 0, r.v ->> 1, r.v ->> 2, r.v ->> 3, r.v ->> 4, (r.v ->> 5)::bigint, r.v ->> 6, r.v ->> 7,
                   'waiting', c.now_ms,
                   case when r.v ->> 4 is null then c.now_ms
                       else coalesce((select p.seen_at from party_members p where p.player = r.v ->> 2), c.now_ms) end,
                   c.now_ms + (r.v ->> 8)::bigint
               from jsonb_array_elements($1::jsonb) as r (v), clock as c
               on conflict do nothing returning id",
};

/// Each row `[queue, player]`.
const HOLDERS: Sql = Sql {
    sqlite: "select t.id, t.queue, t.player from json_each($1) as r join tickets t
                 on t.queue = r.value ->> 0 and t.player = r.value ->> 1 where t.state in ('waiting', 'matched')",
    postgres: "select t.id, t.queue, t.player from jsonb_array_elements($1::jsonb) as r (v) join tickets t
                   on t.queue = r.v ->> 0 and t.player = r.v ->> 1 where t.state in ('waiting', 'matched')",
};

const DELETE: Sql = Sql {
    sqlite: "delete from tickets where id in (select value from json_each($1)) returning id",
    postgres: "delete from tickets where id in (
                   select id from tickets where id in (select v from jsonb_array_elements_text($1::jsonb) as a (v))
                   order by id for update)
               returning id",
};

/// Those that expired and were heard of.
const FORGET: Sql = Sql {
    sqlite: "delete from tickets where state = 'expired' and id in (select value from json_each($1)) returning id",
    postgres: "delete from tickets where id in (
                   select id from tickets where state = 'expired'
                       and id in (select v from jsonb_array_elements_text($1::jsonb) as a (v))
                   order by id for update)
               returning id",
};

macro_rules! ticket {
    ($from:literal) => {
        concat!(
            "select t.id, t.queue, t.player, t.state, t.match_id, t.team, coalesce(t.matched_at, c.now_ms) - t.created_at as waited,
                 m.status, f.players, w.wait_ms
             from ",
            $from,
            " left join matches m on m.id = t.match_id left join formed_matches f on f.match_id = t.match_id
             left join queue_waits w on w.queue = t.queue "
        )
    };
}

const OF_PLAYERS: Sql = Sql {
    sqlite: concat!(
        ticket!("clock as c, json_each($1) as r join tickets t on t.player = r.value"),
        "order by t.player, t.id"
    ),
    postgres: concat!(
        ticket!("clock as c, jsonb_array_elements_text($1::jsonb) as r (player) join tickets t on t.player = r.player"),
        "order by t.player, t.id"
    ),
};

const OF_ID: Sql = Sql::both(concat!(
    ticket!("clock as c, tickets t"),
    "where t.id = $1 and t.player = $2"
));

/// What leaves with a ticket: those of its party that wait.
const LEAVING: Sql = Sql {
    sqlite: "select o.id, o.player, o.state from tickets t
             join tickets o on o.id = t.id or (o.party = t.party and o.queue = t.queue and o.state = 'waiting'
                                               and t.state = 'waiting')
             where t.id = $1 and t.player = $2 order by o.id",
    postgres: "select o.id, o.player, o.state from tickets t
               join tickets o on o.id = t.id or (o.party = t.party and o.queue = t.queue and o.state = 'waiting'
                                                 and t.state = 'waiting')
               where t.id = $1 and t.player = $2 order by o.id for update of o",
};

const LEAVING_OF_PARTY: Sql = Sql {
    sqlite: "select id, player, state from tickets where party = $1 and state = 'waiting' order by id",
    postgres: "select id, player, state from tickets where party = $1 and state = 'waiting' order by id for update",
};

/// Its own player expects the answer; the others of its party hear that theirs have expired.
const EXPIRE: Sql = Sql {
    sqlite: "update tickets set state = 'expired', match_id = null, team = null
             where id in (select value from json_each($1)) and state <> 'expired' returning id",
    postgres: "update tickets set state = 'expired', match_id = null, team = null
               where id in (select v from jsonb_array_elements_text($1::jsonb) as a (v)) and state <> 'expired' returning id",
};

/// What another transaction changes just now is seen the next time.
const SEEN: Sql = Sql {
    sqlite: "update tickets set seen_at = (select now_ms from clock)
             where state = 'waiting' and player in (select value from json_each($1)) returning id",
    postgres: "update tickets set seen_at = (select now_ms from clock) where id in (
                   select id from tickets where state = 'waiting'
                       and player in (select v from jsonb_array_elements_text($1::jsonb) as a (v))
                   for update skip locked)
               returning id",
};

const POOL: Sql = Sql::both(
    "select t.id, t.player, t.name, t.party, t.party_size, t.properties, t.query, c.now_ms - t.created_at as waited
     from clock as c, tickets t
     where t.queue = $1 and t.state = 'waiting' and t.seen_at > c.now_ms - $2 and t.expires_at > c.now_ms
     order by t.created_at, t.id limit $3",
);

const STILL_WAITING: Sql = Sql {
    sqlite: "select t.id from json_each($1) as r join tickets t on t.id = r.value where t.state = 'waiting'",
    postgres: "select id from tickets where id in (select v from jsonb_array_elements_text($1::jsonb) as a (v))
                   and state = 'waiting' order by id for update",
};

/// Each row `[ticket, match, team]`.
const MATCH: Sql = Sql {
    sqlite: "update tickets set state = 'matched', match_id = r.value ->> 1, team = r.value ->> 2,
                 matched_at = (select now_ms from clock)
             from json_each($1) as r where tickets.id = r.value ->> 0 and tickets.state = 'waiting'
             returning match_id, matched_at - created_at as waited",
    postgres: "update tickets set state = 'matched', match_id = r.v ->> 1, team = (r.v ->> 2)::bigint,
                   matched_at = (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v) where tickets.id = r.v ->> 0 and tickets.state = 'waiting'
               returning match_id, matched_at - created_at as waited",
};

/// Each row `[match, players]`.
const INSERT_FORMED: Sql = Sql {
    sqlite: "insert into formed_matches (match_id, players, formed_at)
             select r.value ->> 0, r.value ->> 1, (select now_ms from clock) from json_each($1) as r where true
             on conflict do nothing returning match_id",
    postgres: "insert into formed_matches (match_id, players, formed_at)
               select r.v ->> 0, r.v ->> 1, (select now_ms from clock) from jsonb_array_elements($1::jsonb) as r (v)
               on conflict do nothing returning match_id",
};

const NOTE_WAIT: Sql = Sql::both(
    "insert into queue_waits (queue, wait_ms) values ($1, $2)
     on conflict (queue) do update set
         wait_ms = queue_waits.wait_ms + (excluded.wait_ms - queue_waits.wait_ms) / $3
     returning queue",
);

/// Tickets of a queue (of all when it is null) whose time is over, or whose match is.
macro_rules! due {
    () => {
        "select t.id, t.player, t.party, t.state, m.status,
             (select count(*) from match_players p where p.match_id = t.match_id and p.player = t.player) as came
         from clock as c, tickets t left join matches m on m.id = t.match_id
         where t.queue = coalesce($1, t.queue)
             and ((t.state = 'waiting' and t.expires_at + $3 <= c.now_ms)
                  or (t.state = 'matched' and (m.id is null or m.ended_at is not null
                                               or (m.status = 'running' and m.started_at + $2 + $3 <= c.now_ms))))
         order by t.id limit 1000"
    };
}

const IS_DUE: Sql = Sql::both(due!());

const DUE: Sql = Sql {
    sqlite: due!(),
    postgres: concat!(due!(), " for update of t skip locked"),
};

/// Each row `[ticket, party size]`. The time in the match does not count against the ticket.
const RETURN: Sql = Sql {
    sqlite: "update tickets set state = 'waiting', match_id = null, team = null, party_size = r.value ->> 1,
                 expires_at = expires_at + (select now_ms from clock) - matched_at, matched_at = null
             from json_each($1) as r where tickets.id = r.value ->> 0 and tickets.state = 'matched' returning id",
    postgres: "update tickets set state = 'waiting', match_id = null, team = null, party_size = (r.v ->> 1)::bigint,
                   expires_at = expires_at + (select now_ms from clock) - matched_at, matched_at = null
               from jsonb_array_elements($1::jsonb) as r (v) where tickets.id = r.v ->> 0 and tickets.state = 'matched'
               returning id",
};

/// Each row `[player, match]`.
const COME: Sql = Sql {
    sqlite: "delete from tickets where state = 'matched' and (player, match_id) in (
                 select value ->> 0, value ->> 1 from json_each($1)) returning id",
    postgres: "delete from tickets where id in (
                   select id from tickets where state = 'matched' and (player, match_id) in (
                       select v ->> 0, v ->> 1 from jsonb_array_elements($1::jsonb) as r (v))
                   order by id for update)
               returning id",
};

const SWEEP_UNHEARD: Sql = Sql {
    sqlite: "delete from tickets where state = 'expired' and expires_at < (select now_ms from clock) - $1 returning id",
    postgres: "delete from tickets where id in (
                   select id from tickets where state = 'expired' and expires_at < (select now_ms from clock) - $1
                   for update skip locked)
               returning id",
};

const SWEEP_FORMED: Sql = Sql::both(
    "delete from formed_matches where formed_at < (select now_ms from clock) - 60000
         and not exists (select 1 from tickets t where t.match_id = formed_matches.match_id)
     returning match_id",
);

impl Store {
    /// Puts players into a queue.
    pub async fn join_queue(&self, new: NewTickets) -> Result<QueueOutcome, StoreError> {
        self.submit("join_queue", |reply| Write::Tickets(Box::new(new), reply))
            .await
    }

    /// Takes a player's ticket out of its queue, and with one that waits those of its party: they have expired then. Returns the
    /// players concerned, this one first; none if there is no such ticket of theirs.
    pub async fn leave_queue(&self, ticket: TicketId, player: PlayerId) -> Result<Option<Vec<PlayerId>>, StoreError> {
        self.write("leave_queue", async |transaction| {
            let rows = transaction
                .rows(&LEAVING, args![ticket.to_string(), player.to_string()])
                .await?;
            if rows.is_empty() {
                return Ok(None);
            }
            let (mut others, mut players) = (Vec::new(), vec![player]);
            for row in &rows {
                let id: TicketId = row.parse("id")?;
                if id != ticket {
                    others.push(id);
                    players.push(row.parse("player")?);
                }
            }
            transaction.rows(&DELETE, args![json!([ticket]).to_string()]).await?;
            if !others.is_empty() {
                transaction.rows(&EXPIRE, args![json!(others).to_string()]).await?;
            }
            Ok(Some(players))
        })
        .await
    }

    /// Everything that these players have in queues, and what they were not told yet, in the order of players.
    pub async fn tickets_of(&self, players: &[PlayerId]) -> Result<Vec<TicketRow>, StoreError> {
        let rows = self
            .read("read_tickets", &OF_PLAYERS, args![json!(players).to_string()])
            .await?;
        rows.iter().map(ticket_row).collect()
    }

    /// A player's ticket.
    pub async fn read_ticket(&self, ticket: TicketId, player: PlayerId) -> Result<Option<TicketRow>, StoreError> {
        let args = args![ticket.to_string(), player.to_string()];
        let rows = self.read("read_tickets", &OF_ID, args).await?;
        rows.first().map(ticket_row).transpose()
    }

    /// These players are connected now: their tickets may be matched.
    pub async fn see_tickets(&self, players: &[PlayerId]) -> Result<(), StoreError> {
        let args = args![json!(players).to_string()];
        self.write("see_tickets", async |transaction| {
            transaction.rows(&SEEN, args).await.map(|_| ())
        })
        .await
    }

    /// The tickets of a queue whose players were connected within this time, the oldest first.
    pub async fn ticket_pool(&self, queue: &str, seen_within_ms: u64, limit: u32) -> Result<Vec<PoolRow>, StoreError> {
        let rows = self
            .read("read_pool", &POOL, args![queue, seen_within_ms, limit])
            .await?;
        let pool = rows.iter().map(|row| {
            Ok(PoolRow {
                id: row.parse("id")?,
                player: row.parse("player")?,
                name: row.get("name")?,
                party: row.parse_opt("party")?,
                party_size: row.unsigned("party_size")? as u32,
                properties: row.get("properties")?,
                query: row.get("query")?,
                waited_ms: row.get::<i64>("waited")?.max(0) as u64,
            })
        });
        pool.collect()
    }

    /// Claims tickets and makes their matches, in one transaction. A match of which a ticket does not wait any more is not made;
    /// the others are.
    pub async fn claim_tickets(&self, queue: &str, claims: &[Claim]) -> Result<Vec<Option<Claimed>>, StoreError> {
        self.write("claim_tickets", async |transaction| {
            claim(transaction, queue, claims).await
        })
        .await
    }

    /// Players have come to the matches that were formed for them: their tickets have done their work.
    pub async fn use_tickets(&self, come: &[(PlayerId, MatchId)]) -> Result<(), StoreError> {
        let args = args![json!(come).to_string()];
        self.write("use_tickets", async |transaction| {
            transaction.rows(&COME, args).await.map(|_| ())
        })
        .await
    }

    /// Their players have heard that these expired.
    pub async fn forget_tickets(&self, heard: &[TicketId]) -> Result<(), StoreError> {
        let args = args![json!(heard).to_string()];
        self.write("use_tickets", async |transaction| {
            transaction.rows(&FORGET, args).await.map(|_| ())
        })
        .await
    }

    /// Expires what has waited its time or was not come for within `reserve_ms`, and gives back what was matched to a match that
    /// failed or was lost; all of it `late_ms` after its time. What has done its work (its player sat down) is deleted. `queue`: that
    /// one, or all. Returns whose tickets expired or were given back.
    pub async fn sweep_tickets(
        &self,
        queue: Option<&str>,
        reserve_ms: u64,
        late_ms: u64,
    ) -> Result<Vec<(PlayerId, Swept)>, StoreError> {
        // Mostly nothing is due, and a look is cheaper than a transaction.
        let due = self
            .read("read_pool", &IS_DUE, args![queue, reserve_ms, late_ms])
            .await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        self.write("sweep_tickets", async |transaction| {
            let due = transaction.rows(&DUE, args![queue, reserve_ms, late_ms]).await?;
            sweep(transaction, &due).await
        })
        .await
    }

    /// Forgets what nobody came to hear, and who was matched with whom where no ticket asks any more.
    pub async fn sweep_old_tickets(&self) -> Result<(), StoreError> {
        self.write("sweep_tickets", async |transaction| {
            transaction.rows(&SWEEP_UNHEARD, args![HEARD_WITHIN_MS]).await?;
            transaction.rows(&SWEEP_FORMED, args![]).await?;
            Ok(())
        })
        .await
    }

    /// How many wait in each queue; queues in which nobody waits are not named.
    pub async fn queue_depths(&self) -> Result<Vec<DepthRow>, StoreError> {
        let rows = self.read("read_pool", &DEPTHS, args![]).await?;
        let depths = rows.iter().map(|row| {
            Ok(DepthRow {
                queue: row.get("queue")?,
                waiting: row.unsigned("waiting")?,
                oldest_ms: row.get::<i64>("oldest")?.max(0) as u64,
            })
        });
        depths.collect()
    }
}

/// Takes all waiting tickets of a party out of their queues; their players hear that they expired.
pub(super) async fn leave_with_party(
    transaction: &mut Transaction,
    party: PartyId,
) -> Result<Vec<PlayerId>, StoreError> {
    let rows = transaction.rows(&LEAVING_OF_PARTY, args![party.to_string()]).await?;
    let ids: Vec<TicketId> = rows.iter().map(|row| row.parse("id")).collect::<Result<_, _>>()?;
    if !ids.is_empty() {
        transaction.rows(&EXPIRE, args![json!(ids).to_string()]).await?;
    }
    rows.iter().map(|row| row.parse("player")).collect()
}

/// Puts the players of each member of the group into their queues.
pub(super) async fn insert(
    transaction: &mut Transaction,
    new: &[Box<NewTickets>],
) -> Result<Vec<QueueOutcome>, StoreError> {
    let mut waiting: BTreeMap<String, u64> = BTreeMap::new();
    for row in transaction.rows(&DEPTHS, args![]).await? {
        waiting.insert(row.get("queue")?, row.unsigned("waiting")?);
    }
    let mut rows = Vec::new();
    let mut admitted = Vec::new();
    for new in new {
        let waiting = waiting.entry(new.queue.clone()).or_default();
        let size = new.players.len() as u64;
        let fits = *waiting + size <= new.waiting_max;
        admitted.push(fits);
        if fits {
            *waiting += size;
            rows.extend(new.players.iter().map(|ticket| {
                json!([
                    ticket.id,
                    new.queue,
                    ticket.player,
                    ticket.name,
                    new.party,
                    size,
                    new.properties,
                    new.query,
                    new.expires_ms
                ])
            }));
        }
    }
    let mut written: BTreeSet<TicketId> = BTreeSet::new();
    for row in transaction.rows(&INSERT, args![json!(rows).to_string()]).await? {
        written.insert(row.parse("id")?);
    }
    let missing = |new: &NewTickets| -> Vec<PlayerId> {
        let mut players = new.players.iter().filter(|ticket| !written.contains(&ticket.id));
        players.by_ref().map(|ticket| ticket.player).collect()
    };
    let (mut undone, mut asked) = (Vec::new(), Vec::new());
    for (new, _) in new.iter().zip(&admitted).filter(|(_, admitted)| **admitted) {
        let missing = missing(new);
        if !missing.is_empty() {
            asked.extend(missing.iter().map(|player| json!([new.queue, player])));
            let half = new
                .players
                .iter()
                .map(|ticket| ticket.id)
                .filter(|id| written.contains(id));
            undone.extend(half);
        }
    }
    let mut holders: BTreeMap<(String, PlayerId), TicketId> = BTreeMap::new();
    if !asked.is_empty() {
        for row in transaction.rows(&HOLDERS, args![json!(asked).to_string()]).await? {
            holders.insert((row.get("queue")?, row.parse("player")?), row.parse("id")?);
        }
    }
    if !undone.is_empty() {
        transaction.rows(&DELETE, args![json!(undone).to_string()]).await?;
    }
    let outcomes = new.iter().zip(admitted).map(|(new, admitted)| {
        if !admitted {
            return Ok(QueueOutcome::Full);
        }
        let Some(player) = missing(new).first().copied() else {
            return Ok(QueueOutcome::Joined);
        };
        // Whatever stood in the way was there within this transaction.
        let ticket = holders.get(&(new.queue.clone(), player)).copied();
        let ticket = ticket.ok_or(StoreError::Damaged { column: "tickets.id" })?;
        Ok(QueueOutcome::AlreadyWaiting { player, ticket })
    });
    outcomes.collect()
}

async fn claim(
    transaction: &mut Transaction,
    queue: &str,
    claims: &[Claim],
) -> Result<Vec<Option<Claimed>>, StoreError> {
    let wanted: Vec<TicketId> = claims
        .iter()
        .flat_map(|claim| claim.tickets.iter().map(|(id, _)| *id))
        .collect();
    let mut waiting: BTreeSet<TicketId> = BTreeSet::new();
    for row in transaction
        .rows(&STILL_WAITING, args![json!(wanted).to_string()])
        .await?
    {
        waiting.insert(row.parse("id")?);
    }
    let whole: Vec<&Claim> = claims
        .iter()
        .filter(|claim| claim.tickets.iter().all(|(id, _)| waiting.contains(id)))
        .collect();
    let mut claimed: BTreeMap<MatchId, Claimed> = BTreeMap::new();
    if !whole.is_empty() {
        let new: Vec<Box<NewMatch>> = whole.iter().map(|claim| Box::new(claim.game_match.clone())).collect();
        for created in matches::insert(transaction, &new).await? {
            // Its id is new and it has no name, so nothing can stand in its way but the store.
            let created = created.map_err(|error| match error {
                super::CreateMatchError::Store(error) => error,
                _ => StoreError::Busy,
            })?;
            let (created_at_ms, waited_ms) = (created.created_at_ms, Vec::new());
            claimed.insert(
                created.id,
                Claimed {
                    created_at_ms,
                    waited_ms,
                },
            );
        }
        let marks: Vec<_> = whole
            .iter()
            .flat_map(|claim| {
                let target = claim.game_match.id;
                claim.tickets.iter().map(move |(id, team)| json!([id, target, team]))
            })
            .collect();
        let marked = transaction.rows(&MATCH, args![json!(marks).to_string()]).await?;
        if marked.len() != marks.len() {
            // Cannot be, since they were locked; but a match without its players must not be.
            return Err(StoreError::Busy);
        }
        for row in &marked {
            if let Some(claimed) = claimed.get_mut(&row.parse("match_id")?) {
                claimed.waited_ms.push(row.get::<i64>("waited")?.max(0) as u64);
            }
        }
        let formed: Vec<_> = whole
            .iter()
            .map(|claim| {
                let players = serde_json::to_string(&claim.players).expect("names and numbers");
                json!([claim.game_match.id, players])
            })
            .collect();
        transaction
            .rows(&INSERT_FORMED, args![json!(formed).to_string()])
            .await?;
        let waits: Vec<u64> = claimed
            .values()
            .flat_map(|claimed| claimed.waited_ms.iter().copied())
            .collect();
        let mean = waits.iter().sum::<u64>() / waits.len().max(1) as u64;
        transaction
            .rows(&NOTE_WAIT, args![queue, mean, ESTIMATE_WEIGHT])
            .await?;
    }
    Ok(claims
        .iter()
        .map(|claim| claimed.remove(&claim.game_match.id))
        .collect())
}

async fn sweep(transaction: &mut Transaction, due: &[Row]) -> Result<Vec<(PlayerId, Swept)>, StoreError> {
    let (mut expired, mut returned, mut used) = (Vec::new(), Vec::new(), Vec::new());
    let mut parties: BTreeMap<PartyId, usize> = BTreeMap::new();
    let mut swept = Vec::new();
    for row in due {
        let (id, player): (TicketId, PlayerId) = (row.parse("id")?, row.parse("player")?);
        if row.unsigned("came")? > 0 {
            // The node that was to say so is gone.
            used.push(id);
            continue;
        }
        let status: Option<MatchStatus> = row.parse_opt("status")?;
        let what = match status {
            Some(MatchStatus::Failed | MatchStatus::Lost) => Swept::Returned,
            None | Some(MatchStatus::Starting | MatchStatus::Running | MatchStatus::Ended) => Swept::Expired,
        };
        match what {
            Swept::Expired => expired.push(id),
            Swept::Returned => {
                let party: Option<PartyId> = row.parse_opt("party")?;
                if let Some(party) = party {
                    *parties.entry(party).or_default() += 1;
                }
                returned.push((id, party));
            }
        }
        swept.push((player, what));
    }
    if !used.is_empty() {
        transaction.rows(&DELETE, args![json!(used).to_string()]).await?;
    }
    if !expired.is_empty() {
        transaction.rows(&EXPIRE, args![json!(expired).to_string()]).await?;
    }
    if !returned.is_empty() {
        // Those of a party that had come to the lost match are not waited for.
        let size = |party: Option<PartyId>| party.and_then(|party| parties.get(&party).copied()).unwrap_or(1);
        let rows: Vec<_> = returned.iter().map(|(id, party)| json!([id, size(*party)])).collect();
        transaction.rows(&RETURN, args![json!(rows).to_string()]).await?;
    }
    Ok(swept)
}

fn ticket_row(row: &Row) -> Result<TicketRow, StoreError> {
    let standing = match row.get::<String>("state")?.as_str() {
        "waiting" => Standing::Waiting,
        "matched" => {
            let players = row.get::<Option<String>>("players")?.unwrap_or_else(|| "[]".into());
            Standing::Matched {
                target: row.parse("match_id")?,
                team: row.unsigned("team")? as u32,
                players: serde_json::from_str(&players).map_err(|_| StoreError::Damaged { column: "players" })?,
                status: row.parse_opt("status")?,
            }
        }
        "expired" => Standing::Expired,
        _ => {
            return Err(StoreError::Damaged {
                column: "tickets.state",
            });
        }
    };
    Ok(TicketRow {
        id: row.parse("id")?,
        queue: row.get("queue")?,
        player: row.parse("player")?,
        standing,
        waited_ms: row.get::<i64>("waited")?.max(0) as u64,
        estimate_ms: row.get::<Option<i64>>("wait_ms")?.map(|wait_ms| wait_ms.max(0) as u64),
    })
}
