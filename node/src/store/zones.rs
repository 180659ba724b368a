//! The live rows of zones, by their names: what worlds go by. Creating, moving and ending them is as for every match
//! (`matches.rs`).

use rookery_protocol::{MatchId, NodeLife};
use serde_json::json;

use super::sql::{Row, Sql, args};
use super::{MatchStatus, Store, StoreError};

/// What worlds need to know of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneRow {
    pub name: String,
    pub id: MatchId,
    pub owner: NodeLife,
    pub epoch: u64,
    /// `starting` or `running`.
    pub status: MatchStatus,
}

const ZONES: Sql = Sql {
    sqlite: "select m.name, m.id, m.owner, m.owner_generation, m.epoch, m.status
             from json_each($1) as r join matches m on m.name = r.value and m.ended_at is null
             where m.kind = 'zone' order by m.name",
    postgres: "select m.name, m.id, m.owner, m.owner_generation, m.epoch, m.status
               from jsonb_array_elements_text($1::jsonb) as r (name) join matches m on m.name = r.name and m.ended_at is null
               where m.kind = 'zone' order by m.name",
};

impl Store {
    /// The live rows among zones of these names.
    pub async fn zones(&self, names: &[&str]) -> Result<Vec<ZoneRow>, StoreError> {
        let rows = self.read("list_zones", &ZONES, args![json!(names).to_string()]).await?;
        rows.iter().map(zone_row).collect()
    }
}

fn zone_row(row: &Row) -> Result<ZoneRow, StoreError> {
    Ok(ZoneRow {
        name: row.get("name")?,
        id: row.parse("id")?,
        owner: NodeLife {
            name: row.parse("owner")?,
            generation: row.unsigned("owner_generation")?,
        },
        epoch: row.unsigned("epoch")?,
        status: row.parse("status")?,
    })
}
