//! Saved states of matches: one row a match, the newest that its owner wrote under the epoch of the match's row.
//!
//! An older epoch is refused, so that an owner that was replaced cannot put its past in the place of the new owner's present.

use std::collections::BTreeSet;

use bytes::Bytes;
use rookery_protocol::MatchId;
use serde_json::json;

use super::matches::hex;
use super::sql::{Sql, args};
use super::{Store, StoreError};

/// A state on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    pub id: MatchId,
    /// The epoch under which the writer owns the match.
    pub epoch: u64,
    pub incarnation: u64,
    /// The last event that is in it.
    pub event: u64,
    /// The version of the module that saved it.
    pub saved_by: String,
    /// What the match logic saved.
    pub state: Bytes,
    /// What the host keeps for the match, encoded.
    pub part: Bytes,
}

/// A state as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    pub epoch: u64,
    pub incarnation: u64,
    pub event: u64,
    pub saved_by: String,
    pub state: Bytes,
    pub part: Bytes,
    pub saved_at_ms: u64,
}

/// Each row `[id, epoch, incarnation, event, saved by, state in hex, part in hex]`. The match's row is held still meanwhile.
const WRITE: Sql = Sql {
    sqlite: "insert into saves (match_id, epoch, incarnation, event, saved_by, state, part, saved_at)
             select m.id, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, unhex(r.value ->> 5),
                 unhex(r.value ->> 6), (select now_ms from clock)
             from json_each($1) as r join matches m on m.id = r.value ->> 0
             where m.epoch = r.value ->> 1
             on conflict (match_id) do update set
                 epoch = excluded.epoch, incarnation = excluded.incarnation, event = excluded.event,
                 saved_by = excluded.saved_by, state = excluded.state, part = excluded.part, saved_at = excluded.saved_at
             where excluded.epoch > saves.epoch or (excluded.epoch = saves.epoch and excluded.event >= saves.event)
             returning match_id",
    postgres: "insert into saves (match_id, epoch, incarnation, event, saved_by, state, part, saved_at)
               select m.id, (r.v ->> 1)::bigint, (r.v ->> 2)::bigint, (r.v ->> 3)::bigint, r.v ->> 4,
                   decode(r.v ->> 5, 'hex'), decode(r.v ->> 6, 'hex'), (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v) join matches m on m.id = r.v ->> 0
               where m.epoch = (r.v ->> 1)::bigint
               order by m.id
               for share of m
               on conflict (match_id) do update set
                   epoch = excluded.epoch, incarnation = excluded.incarnation, event = excluded.event,
                   saved_by = excluded.saved_by, state = excluded.state, part = excluded.part, saved_at = excluded.saved_at
               where excluded.epoch > saves.epoch or (excluded.epoch = saves.epoch and excluded.event >= saves.event)
               returning match_id",
};

const READ: Sql =
    Sql::both("select epoch, incarnation, event, saved_by, state, part, saved_at from saves where match_id = $1");

impl Store {
    /// Writes the states of these matches in one transaction, and returns those that were refused: the match belongs to
    /// another epoch, or a newer state is there already.
    pub async fn save_matches(&self, saves: &[Save]) -> Result<BTreeSet<MatchId>, StoreError> {
        let rows: Vec<_> = saves
            .iter()
            .map(|save| {
                json!([
                    save.id,
                    save.epoch,
                    save.incarnation,
                    save.event,
                    save.saved_by,
                    hex(&save.state),
                    hex(&save.part)
                ])
            })
            .collect();
        let rows = json!(rows).to_string();
        let written = self
            .write("save_matches", async |transaction| {
                let rows = transaction.rows(&WRITE, args![rows]).await?;
                rows.iter()
                    .map(|row| row.parse("match_id"))
                    .collect::<Result<BTreeSet<MatchId>, _>>()
            })
            .await?;
        Ok(saves
            .iter()
            .map(|save| save.id)
            .filter(|id| !written.contains(id))
            .collect())
    }

    /// The newest state of a match.
    pub async fn read_save(&self, id: MatchId) -> Result<Option<Saved>, StoreError> {
        let rows = self.read("read_save", &READ, args![id.to_string()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Saved {
            epoch: row.unsigned("epoch")?,
            incarnation: row.unsigned("incarnation")?,
            event: row.unsigned("event")?,
            saved_by: row.get("saved_by")?,
            state: row.get::<Vec<u8>>("state")?.into(),
            part: row.get::<Vec<u8>>("part")?.into(),
            saved_at_ms: row.unsigned("saved_at")?,
        }))
    }
}
