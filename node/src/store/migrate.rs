//! Migrations: embedded, numbered the same for both databases, and only ever adding.
//!
//! `meta` says how far a database is and which build it needs at least. Older: migrated. Newer: used, because migrations only
//! add. Needing a newer build: refused. All of it is one transaction under a lock, so any number of nodes may start at once.

use super::sql::{Database, Sql, Transaction, args};
use super::{BUILD, StoreError, transact};

/// One step. Its number is its place in the list, counted from 1.
pub(super) struct Migration {
    pub(super) sql: Sql,
    /// The oldest build that can work with the database afterwards. It rises one release after something fell out of use.
    pub(super) min_build: u64,
}

/// The SQL of a migration, in both dialects.
macro_rules! migration {
    ($name:literal) => {
        Sql {
            sqlite: include_str!(concat!("../../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../../migrations/postgres/", $name, ".sql")),
        }
    };
}

pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        sql: migration!("0001_start"),
        min_build: 1,
    },
    Migration {
        sql: migration!("0002_leases"),
        min_build: 1,
    },
    Migration {
        sql: migration!("0003_tickets"),
        min_build: 1,
    },
    Migration {
        sql: migration!("0004_content"),
        min_build: 1,
    },
    Migration {
        sql: migration!("0005_saves"),
        min_build: 1,
    },
    Migration {
        sql: migration!("0006_module_signatures"),
        min_build: 1,
    },
];

/// PostgreSQL: nodes that start at once wait here for each other, longer than a statement may usually take. SQLite's writer
/// has its lock already.
const LOCK: Sql = Sql {
    sqlite: "select 1",
    postgres: "set local statement_timeout = '30s'; set local lock_timeout = '30s'; \
               select pg_advisory_xact_lock(hashtextextended('rookery migrations', 0))",
};

const CREATE_META: Sql = Sql::both(
    "create table if not exists meta (
        one            integer primary key check (one = 1),
        schema_version bigint not null,
        min_build      bigint not null
    )",
);

const READ_META: Sql = Sql {
    sqlite: "select schema_version, min_build from meta",
    postgres: "select schema_version, min_build from meta for update",
};

const WRITE_META: Sql = Sql::both(
    "insert into meta (one, schema_version, min_build) values (1, $1, $2)
     on conflict (one) do update set schema_version = excluded.schema_version, min_build = excluded.min_build",
);

/// Brings the database to this build's schema, or finds it newer and usable, or refuses it.
pub(super) async fn run(database: &Database) -> Result<(), StoreError> {
    transact(database, async |transaction| {
        migrate(transaction, MIGRATIONS, BUILD).await
    })
    .await
}

pub(super) async fn migrate(
    transaction: &mut Transaction,
    migrations: &[Migration],
    build: u64,
) -> Result<(), StoreError> {
    transaction.script(&LOCK).await?;
    transaction.script(&CREATE_META).await?;
    let (version, min_build) = match transaction.row(&READ_META, args![]).await? {
        Some(meta) => (meta.unsigned("schema_version")?, meta.unsigned("min_build")?),
        None => (0, 0),
    };
    if min_build > build {
        return Err(StoreError::TooNew { min_build, build });
    }
    // Nothing is missing from a database that is as far as ours or further.
    let Some(missing) = migrations.get(version as usize..).filter(|missing| !missing.is_empty()) else {
        return Ok(());
    };
    for migration in missing {
        transaction.script(&migration.sql).await?;
    }
    let newest = migrations.len() as u64;
    let min_build = missing
        .iter()
        .map(|migration| migration.min_build)
        .fold(min_build, u64::max);
    transaction.rows(&WRITE_META, args![newest, min_build]).await?;
    tracing::info!(from = version, to = newest, "database migrated");
    Ok(())
}
