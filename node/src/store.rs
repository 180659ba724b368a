//! What must be durable: nodes, matches, modules, players, names, values. One [`Store`] for SQLite and PostgreSQL; the queries
//! sit by subject in `store/`, both dialects side by side, and one suite of tests runs against both.
//!
//! Not here: anything on the message path, and any decision about the game. The database's clock decides about leases; every
//! write that comes in crowds goes through one bounded queue into grouped transactions (`store/batch.rs`); ownership changes
//! are compare-and-swaps whose repeat is answered like the first (`store/matches.rs`).
//!
//! Every operation has a deadline. What it did when the deadline passed is unknown: all writes here may be repeated.

mod batch;
mod chat;
mod connect;
mod content;
mod effects;
mod error;
mod leases;
mod matches;
mod migrate;
mod modules;
mod names;
mod nodes;
mod parties;
mod players;
mod records;
mod saves;
mod sql;
mod succession;
mod tickets;
mod values;
mod zones;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use self::chat::{ChannelView, ChatSweep, NewLine, WrittenLine};
pub use self::content::{ContentHead, ContentOutcome, ContentPage, ContentRow, ContentWrite, cost as content_cost};
pub use self::effects::{EffectId, Fenced};
pub use self::error::{Outage, StoreError};
pub use self::leases::LeaseRow;
pub use self::matches::{
    Cas, Configuration, CreateMatchError, Created, Durability, FinalStatus, Finish, MatchKind, MatchRow, MatchStatus,
    NewMatch, Pin,
};
pub use self::modules::{
    ModuleLimits, ModulePut, ModuleRemoval, ModuleRow, NewModule, NewSignature, StoredModule, StoredSignature,
};
pub use self::names::ClaimError;
pub use self::nodes::{NodeLife, NodeRow, Registration};
pub use self::parties::{LeftParty, PartyMember, PartyOutcome, PartyRow};
pub use self::players::{
    Account, AccountOutcome, CredentialKind, CredentialRow, NewAccount, NewCredential, NewFamily, OnExisting, Player,
    Revocations, Rotation, ShownToken,
};
pub use self::records::{RECORD_PLAYERS_MAX, RecordQuery, RecordRow};
pub use self::saves::{Save, Saved};
pub use self::succession::Swap;
pub use self::tickets::{
    Claim, Claimed, DepthRow, FormedPlayer, NewTicket, NewTickets, PoolRow, QueueOutcome, Standing, Swept, TicketRow,
};
pub use self::values::{Expect, Scan, ValueKey, ValueRow, ValueWrite, WriteOutcome};
pub use self::zones::ZoneRow;

use self::sql::{Database, Sql, Transaction, args};
use crate::traces::TARGET;

/// The number of this build, as `min_build` of a database counts it. It rises with every release that migrates.
pub const BUILD: u64 = 3;

/// An answered ping is this old at most while the store counts as up.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Longer than this, a ping counts as failed; short enough for `/readyz` to follow an outage within three seconds.
const PING_DEADLINE: Duration = Duration::from_secs(2);

/// What a statement may take on PostgreSQL: the server's own `statement_timeout` of 2 s, and the way there and back.
const POSTGRES_DEADLINE: Duration = Duration::from_secs(3);

/// On SQLite a writer may have to wait for another process for the whole busy timeout of 5 s.
const SQLITE_DEADLINE: Duration = Duration::from_secs(6);

/// For the few writes that carry a whole component.
const LARGE_DEADLINE: Duration = Duration::from_secs(30);

/// Hears how long each operation took, by its name. The names are a closed set: [`OPERATIONS`].
pub type Observe = Arc<dyn Fn(&'static str, Duration) + Send + Sync>;

/// Every name that [`Observe`] hears, so that a metric can have all its series from the start.
pub const OPERATIONS: &[&str] = &[
    "acquire_lease",
    "append_line",
    "batch",
    "claim_name",
    "claim_tickets",
    "clear_quick_key",
    "count_matches",
    "count_unleased",
    "create_match",
    "create_party",
    "finish_match",
    "forget_node",
    "join_party",
    "join_queue",
    "last_lines",
    "leave_party",
    "leave_queue",
    "list_matches",
    "list_modules",
    "list_nodes",
    "list_records",
    "list_zones",
    "lose_matches",
    "note_players",
    "open_account",
    "pin_match",
    "ping",
    "put_module",
    "read_content",
    "read_lease",
    "read_lines",
    "read_match",
    "read_module",
    "read_parties",
    "read_player",
    "read_pool",
    "read_save",
    "read_tickets",
    "read_values",
    "reassign_matches",
    "register_node",
    "release_lease",
    "release_name",
    "release_node",
    "remove_module",
    "renew_node",
    "revoke_tokens",
    "rotate_token",
    "save_matches",
    "see_parties",
    "see_tickets",
    "set_running",
    "start_family",
    "swap_owner",
    "sweep",
    "sweep_parties",
    "sweep_tickets",
    "take_over",
    "use_tickets",
    "write_content",
    "write_value",
];

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    pub observe: Option<Observe>,
    /// How long an unreachable or busy database is retried before opening fails. A node must say so and exit within 10 s.
    pub reach_within: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            observe: None,
            reach_within: Duration::from_secs(8),
        }
    }
}

/// The handle: cheap to clone, usable from any task.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Arc<Database>,
    batch: batch::Queue,
    observe: Option<Observe>,
    refused_total: AtomicU64,
    up: watch::Receiver<bool>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Store {
    /// Opens `sqlite://<path>` or `postgres://…` and migrates it. Any number of processes may do so at the same time.
    pub async fn open(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let database = Arc::new(connect::open(url, options.reach_within).await?);
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let batch = batch::start(database.clone(), options.observe.clone(), closing.clone(), &tasks);
        let (set_up, up) = watch::channel(true);
        tasks.spawn(watch_database(
            database.clone(),
            options.observe.clone(),
            set_up,
            closing.clone(),
        ));
        tasks.close();
        Ok(Self {
            inner: Arc::new(Inner {
                database,
                batch,
                observe: options.observe,
                refused_total: AtomicU64::new(0),
                up,
                closing,
                tasks,
            }),
        })
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), StoreError> {
        ping(&self.inner.database, self.inner.observe.as_ref()).await
    }

    /// Whether the last ping, at most a few seconds ago, was answered.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.inner.up.clone()
    }

    /// Writes refused because the queue was full.
    pub fn refused_total(&self) -> u64 {
        self.inner.refused_total.load(Ordering::Relaxed)
    }

    /// Writes what is still waiting and closes all connections. Later calls answer `unavailable`.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.wait().await;
        self.inner.database.close().await;
    }

    fn deadline(&self) -> Duration {
        deadline(&self.inner.database)
    }

    /// Runs one operation under its name, its deadline and the observer.
    async fn timed<T>(
        &self,
        operation: &'static str,
        deadline: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.inner.closing.is_cancelled() {
            return Err(StoreError::closed());
        }
        timed(self.inner.observe.as_ref(), operation, deadline, work).await
    }

    /// One read by one statement.
    async fn read(&self, operation: &'static str, sql: &Sql, args: Vec<sql::Arg>) -> Result<Vec<sql::Row>, StoreError> {
        self.timed(operation, self.deadline(), self.inner.database.rows(sql, args))
            .await
    }

    /// One writing transaction of its own, for what does not come in crowds.
    async fn write<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        F: AsyncFnOnce(&mut Transaction) -> Result<T, StoreError>,
    {
        self.timed(operation, self.deadline(), transact(&self.inner.database, work))
            .await
    }
}

/// Runs `work` in a transaction: all of it or nothing.
async fn transact<T, F>(database: &Database, work: F) -> Result<T, StoreError>
where
    F: AsyncFnOnce(&mut Transaction) -> Result<T, StoreError>,
{
    let mut transaction = database.begin().await?;
    match work(&mut transaction).await {
        Ok(value) => {
            transaction.commit().await?;
            Ok(value)
        }
        Err(error) => {
            // With the connection gone there is nobody to ask for a rollback; dropping it is one.
            if error.is_unavailable() {
                drop(transaction);
            } else {
                transaction.rollback().await;
            }
            Err(error)
        }
    }
}

fn deadline(database: &Database) -> Duration {
    match database {
        Database::Sqlite { .. } => SQLITE_DEADLINE,
        Database::Postgres(_) => POSTGRES_DEADLINE,
    }
}

async fn timed<T>(
    observe: Option<&Observe>,
    operation: &'static str,
    deadline: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let asked = Instant::now();
    // A look whether the database is there is no part of what anybody asked for.
    let span = match operation {
        "ping" => tracing::Span::none(),
        _ => tracing::info_span!(target: TARGET, "store", operation),
    };
    let work = work.instrument(span);
    let result = match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::late(operation, deadline)),
    };
    if let Some(observe) = observe {
        observe(operation, asked.elapsed());
    }
    result
}

async fn ping(database: &Database, observe: Option<&Observe>) -> Result<(), StoreError> {
    const PING: Sql = Sql::both("select min_build from meta");
    timed(observe, "ping", PING_DEADLINE, database.rows(&PING, args![])).await?;
    Ok(())
}

/// Keeps `up` true to the database's state, and says once when it changes.
async fn watch_database(
    database: Arc<Database>,
    observe: Option<Observe>,
    up: watch::Sender<bool>,
    closing: CancellationToken,
) {
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
        let answered = ping(&database, observe.as_ref()).await;
        let changed = up.send_if_modified(|up| std::mem::replace(up, answered.is_ok()) != answered.is_ok());
        match answered {
            Ok(()) if changed => tracing::info!("store is back"),
            Err(error) if changed => {
                tracing::warn!(error = &error as &dyn std::error::Error, "store does not answer")
            }
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
