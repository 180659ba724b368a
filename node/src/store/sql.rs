//! The seam between our statements and the two databases: a statement with its two spellings, arguments, rows, and a
//! transaction that is safe to drop at any point.
//!
//! Not here: what the statements say (each subject file has its own, both dialects side by side). Both databases take `$1`, so
//! one text often serves both. A transaction that is dropped half way never returns to the pool: PostgreSQL's connection is
//! cut (the server rolls back), SQLite's is rolled back before the next writer gets it.

use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Decode, PgPool, Postgres, Row as _, Sqlite, SqliteConnection, SqlitePool, Type};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::StoreError;

/// An open database.
pub(super) enum Database {
    /// One connection writes, so that the writers of this process wait in our fair queue and not in SQLite's sleeping busy
    /// handler; readers never wait for it.
    Sqlite {
        write: Arc<Mutex<SqliteConnection>>,
        read: SqlitePool,
    },
    Postgres(PgPool),
}

/// One statement in both dialects.
#[derive(Clone, Copy)]
pub(super) struct Sql {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

impl Sql {
    /// A statement that both databases understand as it is.
    pub(super) const fn both(text: &'static str) -> Self {
        Self {
            sqlite: text,
            postgres: text,
        }
    }
}

/// A bound argument. Absent values keep their type, because PostgreSQL wants to know it.
#[derive(Debug, Clone)]
pub(super) enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
}

macro_rules! arg_from {
    ($($type:ty => |$value:ident| $arg:expr;)*) => {
        $(impl From<$type> for Arg {
            fn from($value: $type) -> Self {
                $arg
            }
        })*
    };
}

arg_from! {
    i64 => |value| Self::Int(Some(value));
    // Numbers of ours that are unsigned stay below 2^63 (generations are milliseconds, epochs count); a seed is its bits.
    u64 => |value| Self::Int(Some(value as i64));
    u32 => |value| Self::Int(Some(value.into()));
    Option<i64> => |value| Self::Int(value);
    Option<u64> => |value| Self::Int(value.map(|value| value as i64));
    String => |value| Self::Text(Some(value));
    &str => |value| Self::Text(Some(value.to_owned()));
    Option<String> => |value| Self::Text(value);
    Option<&str> => |value| Self::Text(value.map(str::to_owned));
    Vec<u8> => |value| Self::Blob(Some(value));
    Option<Vec<u8>> => |value| Self::Blob(value);
}

/// Arguments of a statement, each by its `From`.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::sql::Arg::from($value)),*] };
}
pub(super) use args;

/// One row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of a column; a column that is missing or of another type is a fault of ours or a damaged database.
    pub(super) fn get<T>(&self, column: &str) -> Result<T, StoreError>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(StoreError::from)
    }

    /// A column whose text is one of our types.
    pub(super) fn parse<T: std::str::FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.get::<String>(column)?
            .parse()
            .map_err(|_| StoreError::Damaged { column })
    }

    /// A column that may be null and otherwise is one of our types.
    pub(super) fn parse_opt<T: std::str::FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        match self.get::<Option<String>>(column)? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| StoreError::Damaged { column }),
        }
    }

    /// A column of an unsigned number of ours.
    pub(super) fn unsigned(&self, column: &str) -> Result<u64, StoreError> {
        Ok(self.get::<i64>(column)? as u64)
    }
}

fn sqlite_arguments(args: Vec<Arg>) -> Result<SqliteArguments, StoreError> {
    let mut bound = SqliteArguments::default();
    for arg in args {
        match arg {
            Arg::Int(value) => bound.add(value),
            Arg::Text(value) => bound.add(value),
            Arg::Blob(value) => bound.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(bound)
}

fn postgres_arguments(args: Vec<Arg>) -> Result<PgArguments, StoreError> {
    let mut bound = PgArguments::default();
    for arg in args {
        match arg {
            Arg::Int(value) => bound.add(value),
            Arg::Text(value) => bound.add(value),
            Arg::Blob(value) => bound.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(bound)
}

/// A PostgreSQL connection that goes back to the pool only when its conversation came to an end.
struct Held(Option<PoolConnection<Postgres>>);

impl Held {
    fn connection(&mut self) -> &mut sqlx::PgConnection {
        self.0.as_mut().expect("held until given back")
    }

    fn give_back(mut self) {
        self.0 = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // An answer may still be on its way. Waiting for it could take as long as the fault that made us give up, and would
        // keep the pool's place taken; the socket is closed instead and the server rolls back.
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// SQLite's writing connection, rolled back when dropped within a transaction.
struct Writer {
    guard: Option<OwnedMutexGuard<SqliteConnection>>,
    open: bool,
}

impl Writer {
    fn connection(&mut self) -> &mut SqliteConnection {
        self.guard.as_mut().expect("held until dropped")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take().filter(|_| self.open) else {
            return;
        };
        // The next writer waits for the guard, hence for the rollback. Without a runtime the process is ending, and SQLite
        // rolls back by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = sqlx::raw_sql("rollback").execute(&mut *guard).await {
                    // A commit that had happened after all leaves nothing to roll back.
                    tracing::debug!(%error, "rollback of a dropped transaction");
                }
            });
        }
    }
}

enum Conversation {
    Sqlite(Writer),
    Postgres(Held),
}

/// One writing transaction. Dropping it without [`commit`](Self::commit) undoes it.
pub(super) struct Transaction(Conversation);

impl Transaction {
    /// Runs a statement and returns its rows.
    pub(super) async fn rows(&mut self, sql: &Sql, args: Vec<Arg>) -> Result<Vec<Row>, StoreError> {
        match &mut self.0 {
            Conversation::Sqlite(writer) => {
                let query = sqlx::query_with(sql.sqlite, sqlite_arguments(args)?);
                let rows = query.fetch_all(writer.connection()).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Conversation::Postgres(held) => {
                let query = sqlx::query_with(sql.postgres, postgres_arguments(args)?);
                let rows = query.fetch_all(held.connection()).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Runs a statement and returns its first row.
    pub(super) async fn row(&mut self, sql: &Sql, args: Vec<Arg>) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Runs a text of several statements without arguments, in this transaction's dialect.
    pub(super) async fn script(&mut self, sql: &Sql) -> Result<(), StoreError> {
        match &mut self.0 {
            Conversation::Sqlite(writer) => sqlx::raw_sql(sql.sqlite)
                .execute(writer.connection())
                .await
                .map(|_| ())?,
            Conversation::Postgres(held) => sqlx::raw_sql(sql.postgres)
                .execute(held.connection())
                .await
                .map(|_| ())?,
        }
        Ok(())
    }

    /// Makes the transaction's writes durable. When this fails, whether they happened is unknown.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        match &mut self.0 {
            Conversation::Sqlite(writer) => {
                sqlx::raw_sql("commit").execute(writer.connection()).await?;
                writer.open = false;
            }
            Conversation::Postgres(held) => {
                sqlx::raw_sql("commit").execute(held.connection()).await?;
            }
        }
        if let Conversation::Postgres(held) = self.0 {
            held.give_back();
        }
        Ok(())
    }

    /// Undoes the transaction and keeps the connection.
    pub(super) async fn rollback(mut self) {
        let undone = match &mut self.0 {
            Conversation::Sqlite(writer) => {
                let undone = sqlx::raw_sql("rollback").execute(writer.connection()).await.map(|_| ());
                writer.open = undone.is_err();
                undone
            }
            Conversation::Postgres(held) => sqlx::raw_sql("rollback").execute(held.connection()).await.map(|_| ()),
        };
        if let (Ok(()), Conversation::Postgres(held)) = (undone, self.0) {
            held.give_back();
        }
    }
}

impl Database {
    /// Begins a writing transaction; on SQLite it has the write lock from its first moment.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite { write, .. } => {
                let guard = write.clone().lock_owned().await;
                let mut writer = Writer {
                    guard: Some(guard),
                    open: true,
                };
                if let Err(error) = sqlx::raw_sql("begin immediate").execute(writer.connection()).await {
                    writer.open = false;
                    return Err(error.into());
                }
                Ok(Transaction(Conversation::Sqlite(writer)))
            }
            Self::Postgres(pool) => {
                let mut held = Held(Some(pool.acquire().await?));
                sqlx::raw_sql("begin").execute(held.connection()).await?;
                Ok(Transaction(Conversation::Postgres(held)))
            }
        }
    }

    /// Reads by one statement, outside any transaction.
    pub(super) async fn rows(&self, sql: &Sql, args: Vec<Arg>) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite { read, .. } => {
                let query = sqlx::query_with(sql.sqlite, sqlite_arguments(args)?);
                let rows = query.fetch_all(read).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(pool) => {
                let mut held = Held(Some(pool.acquire().await?));
                let query = sqlx::query_with(sql.postgres, postgres_arguments(args)?);
                match query.fetch_all(held.connection()).await {
                    Ok(rows) => {
                        held.give_back();
                        Ok(rows.into_iter().map(Row::Postgres).collect())
                    }
                    Err(error) => {
                        // A refused statement ends its conversation as an answered one does.
                        if matches!(error, sqlx::Error::Database(_)) {
                            held.give_back();
                        }
                        Err(error.into())
                    }
                }
            }
        }
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { read, .. } => read.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}
