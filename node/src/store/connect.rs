//! Opening a database: the URL, the settings of every connection, and how long to try.
//!
//! Settings say that a stopped process must not hold others up: on PostgreSQL the server ends what waits too long, on SQLite a
//! writer waits at most five seconds for another process.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, PgPool};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::{Outage, StoreError};
use super::migrate;
use super::sql::Database;

/// How long a SQLite writer waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Readers of a SQLite file; each is a thread.
const SQLITE_READERS: u32 = 4;

/// Connections to PostgreSQL for each node: one for the grouped writes, the rest for reads and ownership changes. A hundred,
/// PostgreSQL's default limit, is enough for ten nodes.
const POSTGRES_CONNECTIONS: u32 = 8;

/// A connection that was idle for this long is tried before it is used, so that a restart of the database costs the next
/// caller a reconnect and not an error.
const PROBE_AFTER_IDLE: Duration = Duration::from_secs(1);

/// What PostgreSQL does to a process that stopped: it ends its statements, its waits for locks and its open transactions, and
/// drops its connection when the network has been silent. Sent after connecting rather than with the start-up packet, which
/// poolers refuse.
const POSTGRES_SETTINGS: &str = "
    set statement_timeout = '2s';
    set lock_timeout = '1500ms';
    set idle_in_transaction_session_timeout = '3s';
    set tcp_user_timeout = '5s';
    set tcp_keepalives_idle = '5s';
    set tcp_keepalives_interval = '2s';
    set tcp_keepalives_count = 3;
";

const RETRY_EVERY: Duration = Duration::from_millis(250);

/// Opens and migrates, trying again until `reach_within` has passed while the database cannot be reached.
pub(super) async fn open(url: &str, reach_within: Duration) -> Result<Database, StoreError> {
    let until = Instant::now() + reach_within;
    if let Some(path) = url.strip_prefix("sqlite://") {
        return open_sqlite(path, until).await;
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return open_postgres(url, until).await;
    }
    // The URL may hold a password and is not repeated.
    Err(StoreError::Url {
        problem: "must begin with sqlite:// or postgres://".into(),
    })
}

async fn open_sqlite(path: &str, until: Instant) -> Result<Database, StoreError> {
    if path.is_empty() || path.contains('?') || path == ":memory:" {
        return Err(StoreError::Url {
            problem: "sqlite:// takes the path of a file and nothing else, as in sqlite://rookery-data/rookery.db"
                .into(),
        });
    }
    let path = PathBuf::from(path);
    let place = path.display().to_string();
    let unreachable = |cause: Outage| StoreError::Unreachable {
        place: place.clone(),
        remedy: "the file and its directory must be on a local disk and writable, and no process may hold them",
        cause,
    };

    // Held until the file is in WAL mode and migrated: neither SQLite (for the mode) nor sqlx (for migrations) keeps several
    // starting processes apart.
    let lock = lock_file(&path, until).await.map_err(&unreachable)?;
    let opening = async {
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .disable_statement_logging();
        let write = sqlx::SqliteConnection::connect_with(&options).await?;
        let read = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.pragma("query_only", "on"))
            .await?;
        let database = Database::Sqlite {
            write: Arc::new(Mutex::new(write)),
            read,
        };
        migrate::run(&database).await?;
        Ok(database)
    };
    let opened = match tokio::time::timeout_at(until, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(StoreError::late("open", BUSY_TIMEOUT)),
    };
    drop(lock);
    opened.map_err(|error| match error {
        StoreError::Unavailable { cause } => unreachable(cause),
        error => error,
    })
}

/// Takes the lock file beside the database. The lock goes with the file handle, so a process that dies frees it.
async fn lock_file(database: &Path, until: Instant) -> Result<File, Outage> {
    let path = database.with_extension("lock");
    let fault = |error: std::io::Error| Outage::File {
        path: path.display().to_string(),
        cause: Arc::new(error),
    };
    if let Some(directory) = database.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(fault)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(fault)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(TryLockError::WouldBlock) => return Err(Outage::Locked(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(fault(error)),
        }
    }
}

async fn open_postgres(url: &str, until: Instant) -> Result<Database, StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| StoreError::Url {
            problem: "not a valid postgres:// URL, as in postgres://user:password@host:5432/rookery".into(),
        })?
        .application_name("rookery")
        .disable_statement_logging();
    let place = format!("postgres://{}:{}", options.get_host(), options.get_port());
    let remedy = "check store.url, and that PostgreSQL runs, may be reached from here and knows this user and database";
    let mut last = None;
    while Instant::now() < until {
        let attempt = async {
            let pool = pool(options.clone()).await?;
            let database = Database::Postgres(pool);
            migrate::run(&database).await?;
            Ok::<_, StoreError>(database)
        };
        match tokio::time::timeout_at(until, attempt).await {
            Ok(Ok(database)) => return Ok(database),
            Ok(Err(StoreError::Unavailable { cause })) => last = Some(cause),
            // A wrong password or database does not get better by waiting.
            Ok(Err(StoreError::Statement { cause })) => {
                return Err(StoreError::Unreachable {
                    place,
                    remedy,
                    cause: Outage::Database(cause),
                });
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => break,
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
    Err(StoreError::Unreachable {
        place,
        remedy,
        cause: last.unwrap_or(Outage::Late {
            operation: "connecting",
            deadline: super::POSTGRES_DEADLINE,
        }),
    })
}

async fn pool(options: PgConnectOptions) -> Result<PgPool, StoreError> {
    // One plain attempt first: the pool would try again by itself and report only that it timed out.
    let first = sqlx::PgConnection::connect_with(&options).await?;
    first.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(super::POSTGRES_DEADLINE)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > PROBE_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(POSTGRES_SETTINGS).execute(connection).await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    Ok(pool)
}
