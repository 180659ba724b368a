//! Further names that live matches claimed, cluster-wide. A match's own name is a column of its row; both are one name space.
//!
//! A claim counts only while its match lives: rows that a crash left behind are taken over by the next claim.

use rookery_protocol::MatchId;
use serde_json::json;

use super::matches::LOCK_NAMES;
use super::sql::{Sql, Transaction, args};
use super::{Store, StoreError};

/// Why a name was not given. Nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClaimError {
    #[error("the name belongs to match {existing}")]
    Taken { existing: MatchId },
    /// The claiming match is over, or is owned under another epoch.
    #[error("the claim was made under an epoch that is over")]
    Fenced,
    #[error(transparent)]
    Store(#[from] StoreError),
}

const CLAIMANT: Sql = Sql {
    sqlite: "select 1 as one from matches where id = $1 and epoch = $2 and ended_at is null",
    postgres: "select 1::bigint as one from matches where id = $1 and epoch = $2 and ended_at is null for share",
};

const HOLDER: Sql = Sql::both(
    "select id from matches where name = $1 and ended_at is null
     union all
     select m.id from names n join matches m on m.id = n.match_id where n.name = $1 and m.ended_at is null",
);

const CLAIM: Sql = Sql::both(
    "insert into names (name, match_id, claimed_at) values ($1, $2, (select now_ms from clock))
     on conflict (name) do update set match_id = excluded.match_id, claimed_at = excluded.claimed_at",
);

const RELEASE: Sql = Sql::both("delete from names where name = $1 and match_id = $2");

const FREE: Sql = Sql {
    sqlite: "delete from names where match_id in (select value from json_each($1))",
    postgres: "delete from names where match_id in (select v from jsonb_array_elements_text($1::jsonb) as a (v))",
};

impl Store {
    /// Gives a name to a live match under its epoch. A match that has the name already is answered as if it got it now.
    pub async fn claim_name(&self, name: &str, id: MatchId, epoch: u64) -> Result<(), ClaimError> {
        self.write("claim_name", async |transaction| {
            transaction.rows(&LOCK_NAMES, args![json!([name]).to_string()]).await?;
            if transaction
                .row(&CLAIMANT, args![id.to_string(), epoch])
                .await?
                .is_none()
            {
                return Ok(Err(ClaimError::Fenced));
            }
            let holder = transaction.row(&HOLDER, args![name]).await?;
            if let Some(holder) = holder {
                let existing: MatchId = holder.parse("id")?;
                return Ok(if existing == id {
                    Ok(())
                } else {
                    Err(ClaimError::Taken { existing })
                });
            }
            transaction.rows(&CLAIM, args![name, id.to_string()]).await?;
            Ok(Ok(()))
        })
        .await?
    }

    /// Gives a claimed name up. A name that the match does not have stays with whoever has it.
    pub async fn release_name(&self, name: &str, id: MatchId) -> Result<(), StoreError> {
        self.write("release_name", async |transaction| {
            transaction
                .rows(&RELEASE, args![name, id.to_string()])
                .await
                .map(|_| ())
        })
        .await
    }
}

/// Frees all claims of matches that are over.
pub(super) async fn free(transaction: &mut Transaction, over: &[MatchId]) -> Result<(), StoreError> {
    if !over.is_empty() {
        transaction.rows(&FREE, args![json!(over).to_string()]).await?;
    }
    Ok(())
}
