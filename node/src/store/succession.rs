//! Who runs a match next: every change of its owner or backup, and what becomes of the matches of an owner that is gone.
//!
//! Each change is one compare-and-swap on the row; any node may ask for any of them, and of several that do one is answered that it
//! was theirs. A match under a lease is touched by nobody else before the lease ran out by the database's clock.

use std::collections::BTreeMap;

use rookery_protocol::{MatchId, NodeName};

use super::matches::{Cas, Configuration, MatchRow, READ, ids, match_row, returning};
use super::nodes::NodeLife;
use super::sql::{Sql, args};
use super::{Store, StoreError};

/// A change of ownership.
#[derive(Debug, Clone)]
pub struct Swap {
    pub id: MatchId,
    pub from: Configuration,
    /// Its epoch is above `from`'s.
    pub to: Configuration,
    /// Whether the match goes on from less than it had released.
    pub new_incarnation: bool,
}

const SWAP: Sql = Sql {
    sqlite: "update matches set epoch = $7, owner = $8, owner_generation = $9, backup = $10, backup_generation = $11,
                 incarnation = incarnation + $12
             where id = $1 and epoch = $2 and owner = $3 and owner_generation = $4 and backup is $5
                 and backup_generation is $6 and ended_at is null
             returning id",
    postgres: "update matches set epoch = $7, owner = $8, owner_generation = $9, backup = $10, backup_generation = $11,
                   incarnation = incarnation + $12
               where id = $1 and epoch = $2 and owner = $3 and owner_generation = $4
                   and backup is not distinct from $5 and backup_generation is not distinct from $6 and ended_at is null
               returning id",
};

/// Matches whose owner holds them under the lease of its node: nobody else may touch them before it ran out.
macro_rules! leased {
    () => {
        "ended_at is null and (kind = 'zone' or name is not null or durability = 'stored')"
    };
}

/// The lease of the owner has run out (by the database's clock), or another life of it is registered.
macro_rules! lease_is_over {
    () => {
        "backup is null and not exists (
             select 1 from nodes n where n.name = matches.owner and n.generation = matches.owner_generation
                 and n.renewed_at > (select now_ms from clock) - $1)"
    };
}

/// What can go on somewhere else: all that was never begun, and what is saved.
macro_rules! can_return {
    () => {
        "(status = 'starting' or kind = 'zone' or durability = 'stored')"
    };
}

const LOSE: Sql = Sql::both(
    "update matches set status = 'lost', reason = 'node_died', ended_at = (select now_ms from clock)
     where owner = $1 and owner_generation <= $2 and status = 'running' and backup is null and ended_at is null
         and kind = 'match' and name is null and durability <> 'stored'
     returning id",
);

/// Named matches of which nothing is saved.
const LOSE_UNLEASED: Sql = Sql::both(concat!(
    "update matches set status = 'lost', reason = 'node_died', ended_at = (select now_ms from clock) where ",
    leased!(),
    " and ",
    lease_is_over!(),
    " and not ",
    can_return!(),
    " returning id"
));

const COUNT_UNLEASED: Sql = Sql::both(concat!(
    "select count(*) as unleased from matches where ",
    leased!(),
    " and ",
    lease_is_over!()
));

/// A match that had spoken goes on from less than it had released: a new incarnation. One that had not is only begun elsewhere.
macro_rules! take_over {
    ($lock:literal) => {
        concat!(
            "update matches set owner = $2, owner_generation = $3, epoch = epoch + 1, status = 'starting',
                 incarnation = incarnation + case status when 'running' then 1 else 0 end
             where id in (select id from matches where ",
            leased!(),
            " and ",
            lease_is_over!(),
            " and ",
            can_return!(),
            " order by id limit $4",
            $lock,
            ")",
            returning!()
        )
    };
}

const TAKE_OVER: Sql = Sql {
    sqlite: take_over!(""),
    postgres: take_over!(" for update skip locked"),
};

const RETAKE: Sql = Sql::both(concat!(
    "update matches set epoch = epoch + 1, status = 'starting', incarnation = incarnation + 1
     where id = $1 and epoch = $2 and owner = $3 and owner_generation = $4 and status = 'running' and ended_at is null",
    returning!()
));

const LEASED_BY: Sql = Sql::both(concat!(
    "select id, epoch from matches where owner = $1 and owner_generation = $2 and status = 'running' and ",
    leased!(),
    " order by id"
));

const REASSIGN: Sql = Sql {
    sqlite: concat!(
        "update matches set owner = $3, owner_generation = $4, epoch = epoch + 1, backup = null, backup_generation = null
         where id in (select id from matches where owner = $1 and owner_generation <= $2 and status = 'starting'
                          and ended_at is null order by id limit $5)",
        returning!()
    ),
    postgres: concat!(
        "update matches set owner = $3, owner_generation = $4, epoch = epoch + 1, backup = null, backup_generation = null
         where id in (select id from matches where owner = $1 and owner_generation <= $2 and status = 'starting'
                          and ended_at is null order by id limit $5 for update skip locked)",
        returning!()
    ),
};

impl Store {
    /// Changes who runs a live match, if the row still says `from` in every part.
    pub async fn swap_owner(&self, swap: &Swap) -> Result<Cas, StoreError> {
        let Swap {
            id,
            from,
            to,
            new_incarnation,
        } = swap;
        self.write("swap_owner", async |transaction| {
            let args = args![
                id.to_string(),
                from.epoch,
                from.owner.name.as_str(),
                from.owner.generation,
                from.backup.as_ref().map(|backup| backup.name.as_str()),
                from.backup.as_ref().map(|backup| backup.generation),
                to.epoch,
                to.owner.name.as_str(),
                to.owner.generation,
                to.backup.as_ref().map(|backup| backup.name.as_str()),
                to.backup.as_ref().map(|backup| backup.generation),
                i64::from(*new_incarnation),
            ];
            if transaction.row(&SWAP, args).await?.is_some() {
                return Ok(Cas::Done);
            }
            match transaction.row(&READ, args![id.to_string()]).await? {
                None => Ok(Cas::Superseded(None)),
                Some(row) => {
                    let row = match_row(&row)?;
                    // The new epoch is above the old one, and only one swap can have led there: this was an earlier try of ours.
                    if row.configuration == *to && row.status.is_live() {
                        Ok(Cas::Done)
                    } else {
                        Ok(Cas::Superseded(Some(Box::new(row))))
                    }
                }
            }
        })
        .await
    }

    /// Marks as lost every running match without a backup or a lease (unnamed, no zone, nothing saved) that a dead node owned, up
    /// to this generation of it. Any node may ask; each match is returned to the one that marked it.
    pub async fn lose_matches_of(&self, node: &NodeName, up_to_generation: u64) -> Result<Vec<MatchId>, StoreError> {
        self.write("lose_matches", async |transaction| {
            let rows = transaction.rows(&LOSE, args![node.as_str(), up_to_generation]).await?;
            let ids = ids(&rows)?;
            super::names::free(transaction, &ids).await?;
            Ok(ids)
        })
        .await
    }

    /// How many matches are without an owner that holds a lease.
    pub async fn count_unleased(&self, lease_ms: u64) -> Result<u64, StoreError> {
        let rows = self.read("count_unleased", &COUNT_UNLEASED, args![lease_ms]).await?;
        rows.first().map_or(Ok(0), |row| row.unsigned("unleased"))
    }

    /// Marks as lost the named matches whose owner's lease ran out and of which nothing is saved. Any node may ask; each match is
    /// returned to the one that marked it.
    pub async fn lose_unleased(&self, lease_ms: u64) -> Result<Vec<MatchId>, StoreError> {
        self.write("lose_matches", async |transaction| {
            let rows = transaction.rows(&LOSE_UNLEASED, args![lease_ms]).await?;
            let ids = ids(&rows)?;
            super::names::free(transaction, &ids).await?;
            Ok(ids)
        })
        .await
    }

    /// Makes `to` the owner of matches whose owner's lease ran out, by the database's clock, or who is superseded by a later life
    /// of its node: status `starting` under the next epoch, and under the next incarnation if they had spoken. Any node may ask;
    /// each match is returned to one of them.
    pub async fn take_over_unleased(
        &self,
        to: &NodeLife,
        lease_ms: u64,
        limit: u32,
    ) -> Result<Vec<MatchRow>, StoreError> {
        let args = args![lease_ms, to.name.as_str(), to.generation, limit];
        self.write("take_over", async |transaction| {
            let rows = transaction.rows(&TAKE_OVER, args).await?;
            rows.iter().map(match_row).collect()
        })
        .await
    }

    /// Begins a match anew, from what was saved, that its owner was to run and does not: under the next epoch and incarnation.
    /// None when the row no longer says that it is this owner's under this epoch.
    pub async fn retake_match(
        &self,
        id: MatchId,
        epoch: u64,
        owner: &NodeLife,
    ) -> Result<Option<MatchRow>, StoreError> {
        let args = args![id.to_string(), epoch, owner.name.as_str(), owner.generation];
        self.write("take_over", async |transaction| {
            let row = transaction.row(&RETAKE, args).await?;
            row.as_ref().map(match_row).transpose()
        })
        .await
    }

    /// The running matches that this life of a node holds under its lease, and their epochs.
    pub async fn leased_by(&self, owner: &NodeLife) -> Result<BTreeMap<MatchId, u64>, StoreError> {
        let args = args![owner.name.as_str(), owner.generation];
        let rows = self.read("list_matches", &LEASED_BY, args).await?;
        rows.iter()
            .map(|row| Ok((row.parse("id")?, row.unsigned("epoch")?)))
            .collect()
    }

    /// Gives matches that a dead node (up to this generation) never began to another owner, under the next epoch and without a
    /// backup. Any node may ask; each match is returned to one of them.
    pub async fn reassign_starting(
        &self,
        from: &NodeName,
        up_to_generation: u64,
        to: &NodeLife,
        limit: u32,
    ) -> Result<Vec<MatchRow>, StoreError> {
        let args = args![from.as_str(), up_to_generation, to.name.as_str(), to.generation, limit];
        self.write("reassign_matches", async |transaction| {
            let rows = transaction.rows(&REASSIGN, args).await?;
            rows.iter().map(match_row).collect()
        })
        .await
    }
}
