//! Records: matches that are over, by whoever played in them. The rows are those of `matches`; who played is a table of its own,
//! written within seconds of the seating and, for the last of them, before the match's end.
//!
//! They go with their match's row, `matches.records_for` after its end.

use std::collections::BTreeMap;

use rookery_protocol::{MatchId, PlayerId};
use serde_json::json;

use super::matches::{MatchRow, columns, match_row};
use super::sql::{Sql, args};
use super::{Store, StoreError};

/// Players named with one record. Others are found by their own records.
pub const RECORD_PLAYERS_MAX: u32 = 256;

/// A match that is over, and who played in it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordRow {
    pub row: MatchRow,
    /// At most [`RECORD_PLAYERS_MAX`], in the order of their ids.
    pub players: Vec<PlayerId>,
}

/// Which records are wanted. Newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordQuery {
    pub player: Option<PlayerId>,
    pub module: Option<String>,
    /// The end and the id of the last record of the page before.
    pub before: Option<(u64, MatchId)>,
    pub limit: u32,
}

/// Each row `[match, player]`. A match that is forgotten already has no players.
const NOTE_PLAYERS: Sql = Sql {
    sqlite: "insert into match_players (match_id, player)
             select m.id, r.value ->> 1 from json_each($1) as r join matches m on m.id = r.value ->> 0 where true
             on conflict do nothing",
    postgres: "insert into match_players (match_id, player)
               select m.id, r.v ->> 1 from jsonb_array_elements($1::jsonb) as r (v) join matches m on m.id = r.v ->> 0
               order by m.id, r.v ->> 1
               on conflict do nothing",
};

const LIST: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    " from matches m
      where m.ended_at is not null and ($1 is null or m.module = $1)
          and (m.ended_at < $2 or (m.ended_at = $2 and m.id < $3))
      order by m.ended_at desc, m.id desc limit $4"
));

const LIST_OF_PLAYER: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    " from match_players p join matches m on m.id = p.match_id
      where p.player = $5 and m.ended_at is not null and ($1 is null or m.module = $1)
          and (m.ended_at < $2 or (m.ended_at = $2 and m.id < $3))
      order by m.ended_at desc, m.id desc limit $4"
));

const PLAYERS: Sql = Sql {
    sqlite: "select match_id, player from (
                 select p.match_id, p.player, row_number() over (partition by p.match_id order by p.player) as no
                 from json_each($1) as r join match_players p on p.match_id = r.value) as numbered
             where no <= $2 order by match_id, player",
    postgres: "select match_id, player from (
                   select p.match_id, p.player, row_number() over (partition by p.match_id order by p.player) as no
                   from jsonb_array_elements_text($1::jsonb) as r (id) join match_players p on p.match_id = r.id) as numbered
               where no <= $2 order by match_id, player",
};

impl Store {
    /// Notes who sat down in which match. Noting it again changes nothing.
    pub async fn note_players(&self, seated: &[(MatchId, PlayerId)]) -> Result<(), StoreError> {
        let rows = json!(seated).to_string();
        self.write("note_players", async |transaction| {
            transaction.rows(&NOTE_PLAYERS, args![rows]).await.map(|_| ())
        })
        .await
    }

    /// Matches that are over, the newest first.
    pub async fn list_records(&self, query: &RecordQuery) -> Result<Vec<RecordRow>, StoreError> {
        let (ended_at, id) = match &query.before {
            Some((ended_at, id)) => (*ended_at, id.to_string()),
            None => (i64::MAX as u64, String::new()),
        };
        let mut args = args![query.module.as_deref(), ended_at, id, query.limit];
        let sql = match query.player {
            None => &LIST,
            Some(player) => {
                args.extend(args![player.to_string()]);
                &LIST_OF_PLAYER
            }
        };
        let rows = self.read("list_records", sql, args).await?;
        let rows: Vec<MatchRow> = rows.iter().map(match_row).collect::<Result<_, _>>()?;
        let ids: Vec<MatchId> = rows.iter().map(|row| row.id).collect();
        let mut players = self.players_of(&ids).await?;
        let record = |row: MatchRow| RecordRow {
            players: players.remove(&row.id).unwrap_or_default(),
            row,
        };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Who played in these matches.
    pub async fn players_of(&self, ids: &[MatchId]) -> Result<BTreeMap<MatchId, Vec<PlayerId>>, StoreError> {
        let mut players: BTreeMap<MatchId, Vec<PlayerId>> = BTreeMap::new();
        if ids.is_empty() {
            return Ok(players);
        }
        let args = args![json!(ids).to_string(), RECORD_PLAYERS_MAX];
        for row in self.read("list_records", &PLAYERS, args).await? {
            players
                .entry(row.parse("match_id")?)
                .or_default()
                .push(row.parse("player")?);
        }
        Ok(players)
    }
}
