//! The matches' rows: creating them, and every change of who runs them.
//!
//! A match is live until it has ended, and names and quick keys are unique among live ones by index. Every change names the
//! epoch it was decided under and is refused under another; repeating a change that happened is answered like the first, so a
//! caller whose answer was lost may simply ask again.
//!
//! The grouped writes here (`insert`, `set_running`, `finish`) take many rows in one statement, given as one JSON array.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use bytes::Bytes;
use rookery_protocol::{Digest, MatchId, PlayerId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::batch::Write;
use super::nodes::NodeLife;
use super::sql::{Row, Sql, Transaction, args};
use super::{Store, StoreError};

macro_rules! stored_words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word in the database and in answers to operators.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text {
                    $($word => Ok($name::$variant),)*
                    _ => Err(()),
                }
            }
        }
    };
}

stored_words! {
    MatchKind {
        Match = "match",
        Zone = "zone",
    }
}

stored_words! {
    /// What must survive what (match.wit, `durability`).
    Durability {
        Memory = "memory",
        Replicated = "replicated",
        Stored = "stored",
    }
}

stored_words! {
    MatchStatus {
        /// The row exists, its owner has not begun yet, nothing was released.
        Starting = "starting",
        Running = "running",
        Ended = "ended",
        Failed = "failed",
        Lost = "lost",
    }
}

impl MatchStatus {
    pub fn is_live(self) -> bool {
        match self {
            Self::Starting | Self::Running => true,
            Self::Ended | Self::Failed | Self::Lost => false,
        }
    }
}

/// How a match may be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalStatus {
    Ended,
    Failed,
    Lost,
}

impl From<FinalStatus> for MatchStatus {
    fn from(status: FinalStatus) -> Self {
        match status {
            FinalStatus::Ended => Self::Ended,
            FinalStatus::Failed => Self::Failed,
            FinalStatus::Lost => Self::Lost,
        }
    }
}

/// Everything that `start` needs, and who is to run it.
#[derive(Debug, Clone)]
pub struct NewMatch {
    pub id: MatchId,
    pub kind: MatchKind,
    pub name: Option<String>,
    pub module: String,
    pub digest: Digest,
    pub durability: Durability,
    pub params: Bytes,
    pub seed: u64,
    /// The match's limits as JSON text: fixed for its life.
    pub limits: String,
    /// The invited players as JSON text.
    pub invited: String,
    pub creator: Option<PlayerId>,
    pub private: bool,
    pub owner: NodeLife,
    pub backup: Option<NodeLife>,
    /// Unique among live matches: callers of `match.quick` who would make the same match use the same key.
    pub quick_key: Option<String>,
    /// Refuses the match when its creator has this many live ones already.
    pub creator_alive_max: Option<u32>,
}

/// The row that now stands, under epoch 1 and incarnation 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    pub id: MatchId,
    pub epoch: u64,
    pub created_at_ms: u64,
}

/// Why there is no new row. Nothing was written, except when the store did not answer: then asking again with the same id
/// finds the row or makes it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CreateMatchError {
    #[error("the name belongs to match {existing}")]
    NameTaken { existing: MatchId },
    #[error("match {existing} was made for the same quick request")]
    QuickTaken { existing: MatchId },
    #[error("the creator has {alive} live matches")]
    TooMany { alive: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who runs a match, and under which epoch. Ownership changes replace one of these by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    pub epoch: u64,
    pub owner: NodeLife,
    pub backup: Option<NodeLife>,
}

/// The end of a match, as its owner saw it.
#[derive(Debug, Clone)]
pub struct Finish {
    pub id: MatchId,
    pub epoch: u64,
    pub status: FinalStatus,
    pub outcome: Option<Bytes>,
    pub reason: Option<String>,
}

/// What became of a compare-and-swap.
#[derive(Debug, Clone, PartialEq)]
pub enum Cas {
    /// The row says what was asked: by this call or by an earlier one whose answer was lost.
    Done,
    /// The row says something else (or is gone): follow it. Nothing was written.
    Superseded(Option<Box<MatchRow>>),
}

/// A running match goes on under another version of its module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub id: MatchId,
    pub epoch: u64,
    pub from: Digest,
    pub to: Digest,
}

/// A match as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchRow {
    pub id: MatchId,
    pub kind: MatchKind,
    pub name: Option<String>,
    pub module: String,
    pub digest: Digest,
    pub durability: Durability,
    pub params: Bytes,
    pub seed: u64,
    pub limits: String,
    pub invited: String,
    pub creator: Option<PlayerId>,
    pub private: bool,
    pub configuration: Configuration,
    pub incarnation: u64,
    pub status: MatchStatus,
    pub outcome: Option<Bytes>,
    pub reason: Option<String>,
    pub quick_key: Option<String>,
    pub created_at_ms: u64,
    pub started_at_ms: Option<u64>,
    pub ended_at_ms: Option<u64>,
}

impl MatchRow {
    /// Whether the owner speaks for it only while its node's lease holds, and others leave it alone as long.
    pub fn is_leased(&self) -> bool {
        self.is_saved() || self.name.is_some()
    }

    /// Whether it is saved, and goes on elsewhere from that.
    pub fn is_saved(&self) -> bool {
        self.kind == MatchKind::Zone || self.durability == Durability::Stored
    }
}

/// The order of values in [`INSERT`] and of columns wherever whole rows are read.
macro_rules! columns {
    () => {
        "m.id, m.kind, m.name, m.module, m.digest, m.durability, m.params, m.seed, m.limits, m.invited, m.creator, m.private,
         m.owner, m.owner_generation, m.backup, m.backup_generation, m.epoch, m.incarnation, m.status, m.outcome, m.reason,
         m.quick_key, m.created_at, m.started_at, m.ended_at"
    };
}

pub(super) use columns;

macro_rules! returning {
    () => {
        " returning id, kind, name, module, digest, durability, params, seed, limits, invited, creator, private, owner,
          owner_generation, backup, backup_generation, epoch, incarnation, status, outcome, reason, quick_key, created_at,
          started_at, ended_at"
    };
}
pub(super) use returning;

const INSERT: Sql = Sql {
    sqlite: "insert into matches (id, kind, name, module, digest, durability, params, seed, limits, invited, creator, private,
                 owner, owner_generation, backup, backup_generation, epoch, incarnation, status, quick_key, created_at)
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5,
                 unhex(r.value ->> 6), r.value ->> 7, r.value ->> 8, r.value ->> 9, r.value ->> 10, r.value ->> 11,
                 r.value ->> 12, r.value ->> 13, r.value ->> 14, r.value ->> 15, 1, 0, 'starting', r.value ->> 16,
                 (select now_ms from clock)
             from json_each($1) as r
             where (r.value ->> 2 is null or not exists (
                     select 1 from names n join matches m on m.id = n.match_id
                     where n.name = r.value ->> 2 and m.ended_at is null))
                 and (r.value ->> 17 is null or r.value ->> 17 > (
                     select count(*) from matches m where m.creator = r.value ->> 10 and m.ended_at is null))
             on conflict do nothing
             returning id, created_at",
    postgres: "insert into matches (id, kind, name, module, digest, durability, params, seed, limits, invited, creator, private,
                   owner, owner_generation, backup, backup_generation, epoch, incarnation, status, quick_key, created_at)
               select r.v ->> 0, r.v ->> 1, r.v ->> 2, r.v ->> 3, r.v ->> 4, r.v ->> 5, decode(r.v ->> 6, 'hex'),
                   (r.v ->> 7)::bigint, r.v ->> 8, r.v ->> 9, r.v ->> 10, (r.v ->> 11)::boolean, r.v ->> 12,
                   (r.v ->> 13)::bigint, r.v ->> 14, (r.v ->> 15)::bigint, 1, 0, 'starting', r.v ->> 16,
                   (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v)
               where (r.v ->> 2 is null or not exists (
                       select 1 from names n join matches m on m.id = n.match_id
                       where n.name = r.v ->> 2 and m.ended_at is null))
                   and (r.v ->> 17 is null or (r.v ->> 17)::bigint > (
                       select count(*) from matches m where m.creator = r.v ->> 10 and m.ended_at is null))
               on conflict do nothing
               returning id, created_at",
};

/// Why rows of an insert are missing: each row `[number, id, name, quick key, creator]`.
const WHY_NOT: Sql = Sql {
    sqlite: "with r as (select value ->> 0 as no, value ->> 1 as id, value ->> 2 as name, value ->> 3 as quick_key,
                            value ->> 4 as creator from json_each($1))
             select no, 'same' as why, m.id as id, m.created_at as number from r join matches m on m.id = r.id
             union all
             select no, 'name', m.id, 0 from r join matches m on m.name = r.name and m.ended_at is null
             union all
             select no, 'name', m.id, 0 from r join names n on n.name = r.name join matches m on m.id = n.match_id
                 where m.ended_at is null
             union all
             select no, 'quick', m.id, 0 from r join matches m on m.quick_key = r.quick_key and m.ended_at is null
             union all
             select no, 'many', '', (select count(*) from matches m where m.creator = r.creator and m.ended_at is null) from r",
    postgres: "with r as (select (v ->> 0)::bigint as no, v ->> 1 as id, v ->> 2 as name, v ->> 3 as quick_key,
                              v ->> 4 as creator from jsonb_array_elements($1::jsonb) as a (v))
               select no, 'same' as why, m.id as id, m.created_at as number from r join matches m on m.id = r.id
               union all
               select no, 'name', m.id, 0 from r join matches m on m.name = r.name and m.ended_at is null
               union all
               select no, 'name', m.id, 0 from r join names n on n.name = r.name join matches m on m.id = n.match_id
                   where m.ended_at is null
               union all
               select no, 'quick', m.id, 0 from r join matches m on m.quick_key = r.quick_key and m.ended_at is null
               union all
               select no, 'many', '', (select count(*) from matches m where m.creator = r.creator and m.ended_at is null)
               from r",
};

/// Each row `[id, epoch, owner, owner generation]`.
const SET_RUNNING: Sql = Sql {
    sqlite: "update matches set status = 'running', started_at = (select now_ms from clock)
             from json_each($1) as r
             where matches.id = r.value ->> 0 and matches.epoch = r.value ->> 1 and matches.owner = r.value ->> 2
                 and matches.owner_generation = r.value ->> 3 and matches.status = 'starting'
             returning id",
    postgres: "update matches set status = 'running', started_at = (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v)
               where matches.id = r.v ->> 0 and matches.epoch = (r.v ->> 1)::bigint and matches.owner = r.v ->> 2
                   and matches.owner_generation = (r.v ->> 3)::bigint and matches.status = 'starting'
               returning id",
};

/// Each row `[id, epoch, status, outcome in hex, reason]`.
const FINISH: Sql = Sql {
    sqlite: "update matches set status = r.value ->> 2, outcome = unhex(r.value ->> 3), reason = r.value ->> 4,
                 ended_at = (select now_ms from clock)
             from json_each($1) as r
             where matches.id = r.value ->> 0 and matches.epoch = r.value ->> 1 and matches.ended_at is null
             returning id",
    postgres: "update matches set status = r.v ->> 2, outcome = decode(r.v ->> 3, 'hex'), reason = r.v ->> 4,
                   ended_at = (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v)
               where matches.id = r.v ->> 0 and matches.epoch = (r.v ->> 1)::bigint and matches.ended_at is null
               returning id",
};

const PIN: Sql = Sql::both(
    "update matches set digest = $4
     where id = $1 and epoch = $2 and digest in ($3, $4) and status = 'running' and ended_at is null
     returning id",
);

const READ_MANY: Sql = Sql {
    sqlite: concat!(
        "select ",
        columns!(),
        " from json_each($1) as r join matches m on m.id = r.value"
    ),
    postgres: concat!(
        "select ",
        columns!(),
        " from jsonb_array_elements_text($1::jsonb) as r (id) join matches m on m.id = r.id"
    ),
};

pub(super) const READ: Sql = Sql::both(concat!("select ", columns!(), " from matches m where m.id = $1"));

const FIND_NAME: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    " from matches m where m.name = $1 and m.ended_at is null union all select ",
    columns!(),
    " from names n join matches m on m.id = n.match_id where n.name = $1 and m.ended_at is null limit 1"
));

const LIST_LIVE: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    " from matches m where m.ended_at is null and m.id > $1 order by m.id limit $2"
));

const STARTING_OF: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    " from matches m where m.owner = $1 and m.owner_generation = $2 and m.status = 'starting' and m.ended_at is null
      order by m.id limit $3"
));

const COUNT_ALIVE: Sql = Sql::both("select count(*) as alive from matches where creator = $1 and ended_at is null");

const CLEAR_QUICK_KEY: Sql = Sql::both("update matches set quick_key = null where id = $1 returning id");

const SWEEP: Sql = Sql::both(
    "delete from matches where id in (
         select id from matches where ended_at is not null and ended_at < (select now_ms from clock) - $1
         order by ended_at limit $2)
     returning id",
);

/// Named matches and claims of names are kept apart by one lock for each name, because they are unique in different tables.
/// SQLite has one writer anyway.
pub(super) const LOCK_NAMES: Sql = Sql {
    sqlite: "select 1",
    postgres: "select pg_advisory_xact_lock(h) from (
                   select distinct hashtextextended(v, 1) as h from jsonb_array_elements_text($1::jsonb) as a (v) order by h
               ) as names",
};

impl Store {
    /// Writes the row of a new match, status `starting`. Asking again with the same id answers the row that stands.
    pub async fn create_match(&self, new: NewMatch) -> Result<Created, CreateMatchError> {
        self.submit("create_match", |reply| Write::Create(Box::new(new), reply))
            .await?
    }

    /// Says that the owner has begun: only under the epoch and the life that the row names. Nothing may be released before.
    pub async fn set_running(&self, id: MatchId, epoch: u64, owner: &NodeLife) -> Result<Cas, StoreError> {
        let running = SetRunning {
            id,
            epoch,
            owner: owner.clone(),
        };
        self.submit("set_running", |reply| Write::SetRunning(running, reply))
            .await
    }

    /// Pins a running match to another version of its module, under its epoch. Asking again is answered like the first time.
    pub async fn pin_match(&self, pin: &Pin) -> Result<Cas, StoreError> {
        self.write("pin_match", async |transaction| {
            let args = args![pin.id.to_string(), pin.epoch, pin.from.to_string(), pin.to.to_string()];
            if transaction.row(&PIN, args).await?.is_some() {
                return Ok(Cas::Done);
            }
            let row = transaction.row(&READ, args![pin.id.to_string()]).await?;
            let row = row.as_ref().map(match_row).transpose()?;
            Ok(Cas::Superseded(row.map(Box::new)))
        })
        .await
    }

    /// Ends a match under its epoch; its names and its quick key become free.
    pub async fn finish_match(&self, finish: Finish) -> Result<Cas, StoreError> {
        self.submit("finish_match", |reply| Write::Finish(Box::new(finish), reply))
            .await
    }

    /// A match by its id, over or not.
    pub async fn read_match(&self, id: MatchId) -> Result<Option<MatchRow>, StoreError> {
        let rows = self.read("read_match", &READ, args![id.to_string()]).await?;
        rows.first().map(match_row).transpose()
    }

    /// A match by its id or, for a live one, by its own name or one that it claimed.
    pub async fn get_match(&self, id_or_name: &str) -> Result<Option<MatchRow>, StoreError> {
        // A name may look like an id, hence the second try.
        if let Ok(id) = id_or_name.parse()
            && let Some(row) = self.read_match(id).await?
        {
            return Ok(Some(row));
        }
        let rows = self.read("read_match", &FIND_NAME, args![id_or_name]).await?;
        rows.first().map(match_row).transpose()
    }

    /// Live matches in the order of their ids, after this one.
    pub async fn list_live_matches(&self, after: Option<MatchId>, limit: u32) -> Result<Vec<MatchRow>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.list(&LIST_LIVE, args![after, limit]).await
    }

    /// What this life of a node is to start: the message that said so is only a hint.
    pub async fn starting_of(&self, owner: &NodeLife, limit: u32) -> Result<Vec<MatchRow>, StoreError> {
        self.list(&STARTING_OF, args![owner.name.as_str(), owner.generation, limit])
            .await
    }

    /// How many live matches a player created.
    pub async fn count_alive_created_by(&self, player: PlayerId) -> Result<u64, StoreError> {
        let rows = self
            .read("list_matches", &COUNT_ALIVE, args![player.to_string()])
            .await?;
        rows.first().map_or(Ok(0), |row| row.unsigned("alive"))
    }

    /// Lets the next `match.quick` make another match beside this one, which is full or closed.
    pub async fn clear_quick_key(&self, id: MatchId) -> Result<(), StoreError> {
        self.write("clear_quick_key", async |transaction| {
            transaction
                .rows(&CLEAR_QUICK_KEY, args![id.to_string()])
                .await
                .map(|_| ())
        })
        .await
    }

    /// Forgets matches that have been over for longer than this; at most `limit` of them, and how many it were.
    pub async fn sweep_matches(&self, over_for_ms: u64, limit: u32) -> Result<usize, StoreError> {
        self.write("sweep", async |transaction| {
            Ok(transaction.rows(&SWEEP, args![over_for_ms, limit]).await?.len())
        })
        .await
    }

    async fn list(&self, sql: &Sql, args: Vec<super::sql::Arg>) -> Result<Vec<MatchRow>, StoreError> {
        let rows = self.read("list_matches", sql, args).await?;
        rows.iter().map(match_row).collect()
    }
}

/// A start waiting for its group.
#[derive(Debug, Clone)]
pub(super) struct SetRunning {
    pub(super) id: MatchId,
    pub(super) epoch: u64,
    pub(super) owner: NodeLife,
}

/// Inserts the rows that can be, and says of each other one why not.
pub(super) async fn insert(
    transaction: &mut Transaction,
    new: &[Box<NewMatch>],
) -> Result<Vec<Result<Created, CreateMatchError>>, StoreError> {
    let named: Vec<&str> = new.iter().filter_map(|new| new.name.as_deref()).collect();
    if !named.is_empty() {
        transaction.rows(&LOCK_NAMES, args![json!(named).to_string()]).await?;
    }

    // The count of live matches is taken as of the statement's beginning: earlier rows of the same creator in this group are
    // added here.
    let mut earlier = BTreeMap::new();
    let rows: Vec<_> = new
        .iter()
        .map(|new| {
            let room = new.creator.zip(new.creator_alive_max).map(|(creator, max)| {
                let before: &mut i64 = earlier.entry(creator).or_default();
                *before += 1;
                i64::from(max) - (*before - 1)
            });
            json!([
                new.id,
                new.kind,
                new.name,
                new.module,
                new.digest,
                new.durability,
                hex(&new.params),
                new.seed as i64,
                new.limits,
                new.invited,
                new.creator,
                new.private,
                new.owner.name,
                new.owner.generation,
                new.backup.as_ref().map(|backup| &backup.name),
                new.backup.as_ref().map(|backup| backup.generation),
                new.quick_key,
                room,
            ])
        })
        .collect();
    let rows = transaction.rows(&INSERT, args![json!(rows).to_string()]).await?;
    let mut created = BTreeMap::new();
    for row in &rows {
        created.insert(row.parse::<MatchId>("id")?, row.unsigned("created_at")?);
    }

    let missing: Vec<_> = new
        .iter()
        .enumerate()
        .filter(|(_, new)| !created.contains_key(&new.id))
        .map(|(no, new)| json!([no, new.id, new.name, new.quick_key, new.creator]))
        .collect();
    let mut why: BTreeMap<u64, Result<Created, CreateMatchError>> = BTreeMap::new();
    if !missing.is_empty() {
        let rows = transaction.rows(&WHY_NOT, args![json!(missing).to_string()]).await?;
        // A repeat of our own row explains every other conflict with it, hence the order.
        for reason in ["same", "name", "quick", "many"] {
            for row in &rows {
                let no = row.unsigned("no")?;
                if row.get::<String>("why")? != reason || why.contains_key(&no) {
                    continue;
                }
                let wanted = new.get(no as usize).ok_or(StoreError::Damaged { column: "no" })?;
                if let Some(answer) = why_not(wanted, reason, row)? {
                    why.insert(no, answer);
                }
            }
        }
    }

    let answers = new.iter().enumerate().map(|(no, new)| match created.get(&new.id) {
        Some(&created_at_ms) => Ok(Created {
            id: new.id,
            epoch: 1,
            created_at_ms,
        }),
        // What stood in the way is gone by now (it ended between the two statements): trying again will do.
        None => why
            .remove(&(no as u64))
            .unwrap_or(Err(CreateMatchError::Store(StoreError::Busy))),
    });
    Ok(answers.collect())
}

/// What one row of [`WHY_NOT`] means for the match that was not inserted; nothing when it does not explain it.
fn why_not(
    wanted: &NewMatch,
    reason: &str,
    row: &Row,
) -> Result<Option<Result<Created, CreateMatchError>>, StoreError> {
    let number = row.unsigned("number")?;
    Ok(match reason {
        "same" => Some(Ok(Created {
            id: wanted.id,
            epoch: 1,
            created_at_ms: number,
        })),
        "name" => Some(Err(CreateMatchError::NameTaken {
            existing: row.parse("id")?,
        })),
        "quick" => Some(Err(CreateMatchError::QuickTaken {
            existing: row.parse("id")?,
        })),
        _ if wanted.creator_alive_max.is_some_and(|max| number >= max.into()) => {
            Some(Err(CreateMatchError::TooMany { alive: number }))
        }
        _ => None,
    })
}

/// Moves rows from `starting` to `running`.
pub(super) async fn set_running(transaction: &mut Transaction, starts: &[SetRunning]) -> Result<Vec<Cas>, StoreError> {
    let rows: Vec<_> = starts
        .iter()
        .map(|start| json!([start.id, start.epoch, start.owner.name, start.owner.generation]))
        .collect();
    let rows = transaction.rows(&SET_RUNNING, args![json!(rows).to_string()]).await?;
    answer_changes(
        transaction,
        &rows,
        starts,
        |start| start.id,
        |start, row| {
            row.status == MatchStatus::Running
                && row.configuration.epoch == start.epoch
                && row.configuration.owner == start.owner
        },
    )
    .await
}

/// Ends matches and frees their names.
pub(super) async fn finish(transaction: &mut Transaction, ends: &[Box<Finish>]) -> Result<Vec<Cas>, StoreError> {
    let rows: Vec<_> = ends
        .iter()
        .map(|end| {
            let status = MatchStatus::from(end.status);
            json!([
                end.id,
                end.epoch,
                status,
                end.outcome.as_ref().map(|outcome| hex(outcome)),
                end.reason
            ])
        })
        .collect();
    let rows = transaction.rows(&FINISH, args![json!(rows).to_string()]).await?;
    super::names::free(transaction, &ids(&rows)?).await?;
    answer_changes(
        transaction,
        &rows,
        ends,
        |end| end.id,
        |end, row| row.status == end.status.into() && row.configuration.epoch == end.epoch,
    )
    .await
}

/// Done for the changed rows and for repeats; the others' rows are read and handed back.
async fn answer_changes<T>(
    transaction: &mut Transaction,
    changed: &[Row],
    asked: &[T],
    id: impl Fn(&T) -> MatchId,
    is_repeat: impl Fn(&T, &MatchRow) -> bool,
) -> Result<Vec<Cas>, StoreError> {
    let changed: BTreeSet<MatchId> = ids(changed)?.into_iter().collect();
    let missed: Vec<MatchId> = asked.iter().map(&id).filter(|id| !changed.contains(id)).collect();
    let mut found = BTreeMap::new();
    if !missed.is_empty() {
        for row in transaction.rows(&READ_MANY, args![json!(missed).to_string()]).await? {
            let row = match_row(&row)?;
            found.insert(row.id, row);
        }
    }
    let answers = asked.iter().map(|asked| match found.remove(&id(asked)) {
        _ if changed.contains(&id(asked)) => Cas::Done,
        Some(row) if is_repeat(asked, &row) => Cas::Done,
        row => Cas::Superseded(row.map(Box::new)),
    });
    Ok(answers.collect())
}

pub(super) fn ids(rows: &[Row]) -> Result<Vec<MatchId>, StoreError> {
    rows.iter().map(|row| row.parse("id")).collect()
}

pub(super) fn match_row(row: &Row) -> Result<MatchRow, StoreError> {
    let backup = match row.parse_opt("backup")? {
        None => None,
        Some(name) => Some(NodeLife {
            name,
            generation: row.unsigned("backup_generation")?,
        }),
    };
    Ok(MatchRow {
        id: row.parse("id")?,
        kind: row.parse("kind")?,
        name: row.get("name")?,
        module: row.get("module")?,
        digest: row.parse("digest")?,
        durability: row.parse("durability")?,
        params: row.get::<Vec<u8>>("params")?.into(),
        seed: row.unsigned("seed")?,
        limits: row.get("limits")?,
        invited: row.get("invited")?,
        creator: row.parse_opt("creator")?,
        private: row.get("private")?,
        configuration: Configuration {
            epoch: row.unsigned("epoch")?,
            owner: NodeLife {
                name: row.parse("owner")?,
                generation: row.unsigned("owner_generation")?,
            },
            backup,
        },
        incarnation: row.unsigned("incarnation")?,
        status: row.parse("status")?,
        outcome: row.get::<Option<Vec<u8>>>("outcome")?.map(Bytes::from),
        reason: row.get("reason")?,
        quick_key: row.get("quick_key")?,
        created_at_ms: row.unsigned("created_at")?,
        started_at_ms: row.get::<Option<i64>>("started_at")?.map(|at| at as u64),
        ended_at_ms: row.get::<Option<i64>>("ended_at")?.map(|at| at as u64),
    })
}

/// Bytes as both databases read them from JSON text.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}
