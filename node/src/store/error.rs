//! What can go wrong with the store, by what a caller would do about it.

use std::sync::Arc;
use std::time::Duration;

/// A refusal or failure of the store. Refusals that belong to one operation (a name that is taken, a lost swap) are in that
/// operation's own type.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, or not in time. Whether a write happened is unknown; repeating it is safe.
    #[error("the store is unavailable")]
    Unavailable {
        #[source]
        cause: Outage,
    },
    /// The queue of waiting writes is full. Nothing was written.
    #[error("the store is busy")]
    Busy,
    /// Two transactions got in each other's way. Nothing was written; trying again is likely to succeed.
    #[error("the write collided with another one")]
    Collision {
        #[source]
        cause: Arc<sqlx::Error>,
    },
    /// The database refused a statement. Nothing was written.
    #[error("the database refused a statement")]
    Statement {
        #[source]
        cause: Arc<sqlx::Error>,
    },
    /// A row holds what no build of ours writes.
    #[error("column {column} holds a value that this build cannot read")]
    Damaged { column: &'static str },
    /// `store.url` cannot be used as it is written.
    #[error("store.url: {problem}")]
    Url { problem: String },
    /// The database could not be opened within the time for it.
    #[error("cannot open the database at {place}: {remedy}")]
    Unreachable {
        place: String,
        remedy: &'static str,
        #[source]
        cause: Outage,
    },
    /// The database was migrated by a release that this build cannot work beside.
    #[error(
        "the database needs build {min_build} or newer and this is build {build}: upgrade this node, or restore the \
         database from before the upgrade"
    )]
    TooNew { min_build: u64, build: u64 },
}

/// Why the database did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Outage {
    #[error(transparent)]
    Database(Arc<sqlx::Error>),
    #[error("{operation} took longer than {} s", .deadline.as_secs())]
    Late {
        operation: &'static str,
        deadline: Duration,
    },
    #[error("another process holds the lock file {0}")]
    Locked(String),
    #[error("cannot use {path}")]
    File {
        path: String,
        #[source]
        cause: Arc<std::io::Error>,
    },
    #[error("the store was closed")]
    Closed,
}

impl StoreError {
    pub(super) fn closed() -> Self {
        Self::Unavailable { cause: Outage::Closed }
    }

    pub(super) fn late(operation: &'static str, deadline: Duration) -> Self {
        Self::Unavailable {
            cause: Outage::Late { operation, deadline },
        }
    }

    /// Whether the database, not the statement, is the reason.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unreachable { .. })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let class = match &error {
            sqlx::Error::Database(database) => {
                classify(database.code().as_deref().unwrap_or_default(), database.as_ref())
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Class::Outage,
            // The rest are statements or rows of ours that are wrong; sqlx's enum may grow.
            _ => Class::Fault,
        };
        let cause = Arc::new(error);
        match class {
            Class::Outage => Self::Unavailable {
                cause: Outage::Database(cause),
            },
            Class::Collision => Self::Collision { cause },
            Class::Fault => Self::Statement { cause },
        }
    }
}

enum Class {
    Outage,
    Collision,
    Fault,
}

fn classify(code: &str, error: &dyn sqlx::error::DatabaseError) -> Class {
    if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
        return match code {
            // Serialisation failure and deadlock.
            "40001" | "40P01" => Class::Collision,
            // Connection trouble, lack of resources, cancelled or shut down by the operator (which is how a statement timeout
            // looks), a lock not had in time, an idle transaction cut off, a server that became a read-only replica.
            "55P03" | "25P03" | "25006" => Class::Outage,
            code if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) => Class::Outage,
            _ => Class::Fault,
        };
    }
    // SQLite's primary result code is the low byte of the extended one.
    match code.parse::<u32>().unwrap_or(0) & 0xff {
        // BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL: the file, not the statement.
        5 | 6 | 7 | 8 | 10 | 13 | 14 | 15 => Class::Outage,
        _ => Class::Fault,
    }
}
