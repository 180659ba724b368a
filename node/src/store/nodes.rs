//! The nodes' rows: which life of a node is the current one, and when it last said so.
//!
//! A generation is issued here, so that it rises at every start whatever the machine's clock says.

pub use rookery_protocol::NodeLife;
use rookery_protocol::NodeName;

use super::sql::{Row, Sql, args};
use super::{Store, StoreError};

/// What a starting node says of itself.
#[derive(Debug, Clone)]
pub struct Registration {
    pub name: NodeName,
    /// The URL or address that clients are told.
    pub client: String,
    pub peer: String,
    pub version: String,
}

/// A node as the database last heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    pub life: NodeLife,
    pub client: String,
    pub peer: String,
    pub version: String,
    pub registered_at_ms: u64,
    /// How long ago the node renewed its row, by the database's clock.
    pub silent_ms: u64,
}

const REGISTER: Sql = Sql {
    sqlite: "insert into nodes (name, generation, client, peer, version, registered_at, renewed_at)
             select $1, now_ms, $2, $3, $4, now_ms, now_ms from clock where true
             on conflict (name) do update set
                 generation = max(excluded.generation, nodes.generation + 1), client = excluded.client,
                 peer = excluded.peer, version = excluded.version, registered_at = excluded.registered_at,
                 renewed_at = excluded.renewed_at
             returning generation",
    postgres: "insert into nodes (name, generation, client, peer, version, registered_at, renewed_at)
               select $1, now_ms, $2, $3, $4, now_ms, now_ms from clock
               on conflict (name) do update set
                   generation = greatest(excluded.generation, nodes.generation + 1), client = excluded.client,
                   peer = excluded.peer, version = excluded.version, registered_at = excluded.registered_at,
                   renewed_at = excluded.renewed_at
               returning generation",
};

const RENEW: Sql = Sql::both(
    "update nodes set renewed_at = (select now_ms from clock) where name = $1 and generation = $2 returning name",
);

/// The life is over at once: a renewal that is still under way finds it superseded.
const RELEASE: Sql = Sql::both(
    "update nodes set generation = generation + 1, renewed_at = 0 where name = $1 and generation = $2 returning name",
);

/// A life that was never lived takes the place of the last one, which finds itself superseded if it lives after all.
const FORGET: Sql = Sql::both(
    "update nodes set generation = generation + 1, renewed_at = 0 where name = $1 returning generation - 1 as forgotten",
);

const LIST: Sql = Sql::both(
    "select name, generation, client, peer, version, registered_at, (select now_ms from clock) - renewed_at as silent
     from nodes order by name",
);

impl Store {
    /// Begins a new life of a node and returns its generation, which is above every earlier one.
    pub async fn register_node(&self, registration: &Registration) -> Result<u64, StoreError> {
        let Registration {
            name,
            client,
            peer,
            version,
        } = registration;
        let args = args![name.as_str(), client.as_str(), peer.as_str(), version.as_str()];
        self.write("register_node", async |transaction| {
            let row = transaction.row(&REGISTER, args).await?;
            row.ok_or(StoreError::Damaged { column: "generation" })?
                .unsigned("generation")
        })
        .await
    }

    /// Renews a node's row. False when another life of the node is registered (or the row is gone): this one is superseded.
    pub async fn renew_node(&self, life: &NodeLife) -> Result<bool, StoreError> {
        let args = args![life.name.as_str(), life.generation];
        self.write("renew_node", async |transaction| {
            Ok(transaction.row(&RENEW, args).await?.is_some())
        })
        .await
    }

    /// Ends a node's life, and its lease with it: it releases nothing any more, and others may take what it owns.
    pub async fn release_node(&self, life: &NodeLife) -> Result<(), StoreError> {
        let args = args![life.name.as_str(), life.generation];
        self.write("release_node", async |transaction| {
            transaction.row(&RELEASE, args).await.map(|_| ())
        })
        .await
    }

    /// Counts a node as dead, so that its leases need not run out. Returns the generation that was forgotten; none when no such
    /// node ever registered. If it lives after all, its next renewal tells it that it is superseded.
    pub async fn forget_node(&self, name: &NodeName) -> Result<Option<u64>, StoreError> {
        let args = args![name.as_str()];
        self.write("forget_node", async |transaction| {
            let row = transaction.row(&FORGET, args).await?;
            row.map(|row| row.unsigned("forgotten")).transpose()
        })
        .await
    }

    /// Every node that ever registered.
    pub async fn list_nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let rows = self.read("list_nodes", &LIST, args![]).await?;
        rows.iter().map(node_row).collect()
    }
}

fn node_row(row: &Row) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        life: NodeLife {
            name: row.parse("name")?,
            generation: row.unsigned("generation")?,
        },
        client: row.get("client")?,
        peer: row.get("peer")?,
        version: row.get("version")?,
        registered_at_ms: row.unsigned("registered_at")?,
        silent_ms: row.get::<i64>("silent")?.max(0) as u64,
    })
}
