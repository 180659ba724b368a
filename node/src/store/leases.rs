//! Leases: a name that one node at a time holds, for a while, under an epoch that rises whenever the holder changes.
//!
//! The database's clock says when a lease is over. A holder counts from when it *asked* and stops before the end; what it does
//! under the lease carries the epoch, so that what comes late is refused.

use rookery_protocol::{NodeLife, NodeName};

use super::sql::{Row, Sql, args};
use super::{Store, StoreError};

/// A lease as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// None when nobody holds it now.
    pub holder: Option<NodeLife>,
    /// Of the current or the last holding.
    pub epoch: u64,
    /// How long the holder still has it, by the database's clock.
    pub left_ms: u64,
}

impl LeaseRow {
    /// Whether this life of a node holds it.
    pub fn is_held_by(&self, life: &NodeLife) -> bool {
        self.holder.as_ref() == Some(life)
    }
}

/// Taken when it is free, ours already, or over. The epoch rises when the holder changes or had let it lapse.
const ACQUIRE: Sql = Sql {
    sqlite: "insert into leases (name, holder, holder_generation, epoch, until)
             select $1, $2, $3, 1, now_ms + $4 from clock where true
             on conflict (name) do update set
                 epoch = case when leases.holder = excluded.holder
                                   and leases.holder_generation = excluded.holder_generation
                                   and leases.until > (select now_ms from clock)
                              then leases.epoch else leases.epoch + 1 end,
                 holder = excluded.holder, holder_generation = excluded.holder_generation, until = excluded.until
             where leases.until <= (select now_ms from clock)
                or (leases.holder = excluded.holder and leases.holder_generation <= excluded.holder_generation)
             returning name",
    postgres: "insert into leases (name, holder, holder_generation, epoch, until)
               select $1, $2, $3, 1, now_ms + $4 from clock
               on conflict (name) do update set
                   epoch = case when leases.holder = excluded.holder
                                     and leases.holder_generation = excluded.holder_generation
                                     and leases.until > (select now_ms from clock)
                                then leases.epoch else leases.epoch + 1 end,
                   holder = excluded.holder, holder_generation = excluded.holder_generation, until = excluded.until
               where leases.until <= (select now_ms from clock)
                  or (leases.holder = excluded.holder and leases.holder_generation <= excluded.holder_generation)
               returning name",
};

const READ: Sql = Sql::both(
    "select holder, holder_generation, epoch, until - (select now_ms from clock) as left_ms from leases where name = $1",
);

const RELEASE: Sql = Sql::both(
    "update leases set until = 0 where name = $1 and holder = $2 and holder_generation = $3 and epoch = $4
     returning name",
);

impl Store {
    /// Takes a lease for this long, or renews it; answers how it stands then, whoever holds it.
    pub async fn acquire_lease(&self, name: &str, life: &NodeLife, ttl_ms: u64) -> Result<LeaseRow, StoreError> {
        self.write("acquire_lease", async |transaction| {
            let args = args![name, life.name.as_str(), life.generation, ttl_ms];
            transaction.rows(&ACQUIRE, args).await?;
            let row = transaction.row(&READ, args![name]).await?;
            lease_row(&row.ok_or(StoreError::Damaged { column: "leases" })?)
        })
        .await
    }

    /// How a lease stands; none if nobody ever took it.
    pub async fn read_lease(&self, name: &str) -> Result<Option<LeaseRow>, StoreError> {
        let rows = self.read("read_lease", &READ, args![name]).await?;
        rows.first().map(lease_row).transpose()
    }

    /// Gives a lease up before its time. False when it was not held under that epoch any more.
    pub async fn release_lease(&self, name: &str, life: &NodeLife, epoch: u64) -> Result<bool, StoreError> {
        let args = args![name, life.name.as_str(), life.generation, epoch];
        self.write("release_lease", async |transaction| {
            Ok(transaction.row(&RELEASE, args).await?.is_some())
        })
        .await
    }
}

fn lease_row(row: &Row) -> Result<LeaseRow, StoreError> {
    let left_ms = row.get::<i64>("left_ms")?.max(0) as u64;
    let name: NodeName = row.parse("holder")?;
    let holder = (left_ms > 0).then_some(NodeLife {
        name,
        generation: row.unsigned("holder_generation")?,
    });
    Ok(LeaseRow {
        holder,
        epoch: row.unsigned("epoch")?,
        left_ms,
    })
}
