//! A database of one test cluster on the PostgreSQL server that the tests were given, gone when it is dropped.
//!
//! It starts no server: `scripts/with-postgres` does, and says where it is.

use sqlx::Connection;

/// Where the server is, as `postgres://user:password@host:port/database`.
const SERVER: &str = "ROOKERY_TEST_POSTGRES";

/// The server; none, said aloud, when the tests were not given one.
///
/// # Panics
/// In CI, where it has to be there.
pub(super) fn server() -> Option<String> {
    let server = std::env::var(SERVER).ok();
    if server.is_none() {
        let message = "not run on PostgreSQL: start the tests by scripts/with-postgres";
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{message}");
        eprintln!("{message}");
    }
    server
}

/// A database that nobody else uses.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
    url: String,
}

impl Database {
    pub(super) async fn create(server: &str) -> Self {
        let name = format!("t{:032x}", rand::random::<u128>());
        run(server, format!("create database {name}")).await;
        let (place, _) = server.rsplit_once('/').expect("the server's address names a database");
        Self {
            server: server.into(),
            url: format!("{place}/{name}"),
            name,
        }
    }

    /// What `store.url` is set to.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Refuses every connection, and ends those that there are.
    pub(super) async fn close(&self) {
        run(
            &self.server,
            format!("alter database {} with allow_connections false", self.name),
        )
        .await;
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname";
        run(&self.server, format!("{end} = '{}'", self.name)).await;
    }

    pub(super) async fn open(&self) {
        run(
            &self.server,
            format!("alter database {} with allow_connections true", self.name),
        )
        .await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The nodes are killed, but the server may not have noticed; and a test's own runtime may not be blocked here.
        let drop = format!("drop database if exists {} with (force)", self.name);
        let server = self.server.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(run(&server, drop));
        });
        // A server that is gone took the database with it.
        let _ = dropping.join();
    }
}

async fn run(server: &str, statement: String) {
    let mut connection = sqlx::PgConnection::connect(server)
        .await
        .expect("the PostgreSQL of the tests answers");
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut connection)
        .await;
    done.expect("the PostgreSQL of the tests does as it is told");
}
