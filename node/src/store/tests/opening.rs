//! Opening a database: migrations, builds, those that cannot be reached, and those that fall silent.

use super::*;

suite! {
    nodes_may_open_an_empty_database_at_once,
    an_older_database_is_migrated_and_keeps_its_rows,
    a_newer_database_is_used_until_it_needs_a_newer_build,
    a_writer_that_hangs_does_not_hold_others_up,
    a_closed_store_is_unavailable,
}

async fn nodes_may_open_an_empty_database_at_once(place: &Place) {
    let opens = (0..6).map(|no| {
        let url = place.url.clone();
        async move {
            let store = Store::open(&url, StoreOptions::default()).await.unwrap();
            register(&store, &format!("n{no}")).await;
            store
        }
    });
    let stores = all(opens).await;
    assert_eq!(stores[0].list_nodes().await.unwrap().len(), 6);
    assert!(*stores[0].up().borrow());
    stores[0].ping().await.unwrap();
}

async fn an_older_database_is_migrated_and_keeps_its_rows(place: &Place) {
    let store = place.open().await;
    let id = store.create_match(named("hall")).await.unwrap().id;
    let addition = Sql::both("create table addition (id bigint primary key); insert into addition (id) values (7);");
    let migrations: Vec<Migration> = MIGRATIONS
        .iter()
        .map(|migration| Migration {
            sql: migration.sql,
            min_build: migration.min_build,
        })
        .chain([Migration {
            sql: addition,
            min_build: BUILD + 1,
        }])
        .collect();
    // A build that knows one migration more comes, twice.
    for _ in 0..2 {
        let newer = async |transaction: &mut Transaction| migrate(transaction, &migrations, BUILD + 1).await;
        transact(&store.inner.database, newer).await.unwrap();
    }
    let rows = store
        .inner
        .database
        .rows(&Sql::both("select id from addition"), args![])
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(store.get_match("hall").await.unwrap().unwrap().id, id);
    // It needs its own build from now on.
    match Store::open(&place.url, StoreOptions::default()).await.map(|_| ()) {
        Err(StoreError::TooNew { min_build, build }) => assert_eq!((min_build, build), (BUILD + 1, BUILD)),
        other => panic!("{other:?}"),
    }
}

async fn a_newer_database_is_used_until_it_needs_a_newer_build(place: &Place) {
    let store = place.open().await;
    let set = async |version: u64, min_build: u64| {
        let sql = Sql::both("update meta set schema_version = $1, min_build = $2");
        let update =
            async |transaction: &mut Transaction| transaction.rows(&sql, args![version, min_build]).await.map(|_| ());
        transact(&store.inner.database, update).await.unwrap();
    };
    set(99, BUILD).await;
    place.open().await.create_match(new_match()).await.unwrap();
    set(99, BUILD + 41).await;
    let refusal = Store::open(&place.url, StoreOptions::default())
        .await
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(refusal.contains(&format!("build {}", BUILD + 41)), "{refusal}");
    assert!(refusal.contains(&format!("this is build {BUILD}")), "{refusal}");
    assert!(refusal.contains("upgrade this node"), "{refusal}");
}

async fn a_writer_that_hangs_does_not_hold_others_up(place: &Place) {
    let store = place.open().await;
    let hung = place.open().await;
    let id = store.create_match(new_match()).await.unwrap().id;
    let (held, is_held) = tokio::sync::oneshot::channel();
    let holder = {
        let hung = hung.clone();
        tokio::spawn(async move {
            let hold = async |transaction: &mut Transaction| {
                let lock = Sql::both("update matches set reason = 'held' where id = $1");
                transaction.rows(&lock, args![id.to_string()]).await?;
                held.send(()).unwrap();
                std::future::pending::<Result<(), StoreError>>().await
            };
            transact(&hung.inner.database, hold).await
        })
    };
    is_held.await.unwrap();
    let asked = Instant::now();
    let answer = store.set_running(id, 1, &node("a", 1)).await;
    if place.url.starts_with("postgres") {
        // The server gives up waiting for the lock, or ends the idle transaction; either way it takes less than our deadline.
        assert!(answer.is_ok() || answer.unwrap_err().is_unavailable());
    } else {
        assert!(answer.unwrap_err().is_unavailable());
    }
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    // Reads never wait.
    assert_eq!(row(&store, id).await.reason, None);
    // When the holder is gone, all is well again.
    holder.abort();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match store.set_running(id, 1, &node("a", 1)).await {
            Ok(cas) => break assert_eq!(cas, Cas::Done),
            Err(error) => assert!(error.is_unavailable() && Instant::now() < until, "{error:?}"),
        }
    }
    assert_eq!(row(&store, id).await.reason, None);
}

async fn a_closed_store_is_unavailable(place: &Place) {
    let store = place.open().await;
    store.create_match(new_match()).await.unwrap();
    store.close().await;
    match store.create_match(new_match()).await {
        Err(CreateMatchError::Store(error)) => assert!(error.is_unavailable()),
        other => panic!("{other:?}"),
    }
    assert!(store.list_nodes().await.unwrap_err().is_unavailable());
}

/// Opening must fail within the time that a node has to say so.
async fn refused(url: &str) -> String {
    let asked = Instant::now();
    let options = StoreOptions {
        reach_within: Duration::from_secs(2),
        ..StoreOptions::default()
    };
    let error = Store::open(url, options).await.map(|_| ()).unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    error.to_string()
}

#[tokio::test]
async fn an_unreachable_database_is_named_in_time_and_without_its_password() {
    // A listener that never answers, and a port where nobody listens.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    for port in [port, closed] {
        let message = refused(&format!("postgres://rookery:hunter2@127.0.0.1:{port}/rookery")).await;
        assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
        assert!(message.contains("store.url"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[tokio::test]
async fn a_database_file_that_cannot_be_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let message = refused(&format!("sqlite://{}/rookery.db", file.path().display())).await;
    assert!(message.contains(&file.path().display().to_string()), "{message}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "this is no database, and long enough to be seen as none by its first bytes".repeat(20),
    )
    .unwrap();
    refused(&format!("sqlite://{}", file.path().display())).await;
}

#[tokio::test]
async fn a_url_that_is_none_is_refused() {
    for url in [
        "mysql://x",
        "rookery.db",
        "sqlite://",
        "sqlite://:memory:",
        "sqlite://a.db?mode=ro",
    ] {
        let message = refused(url).await;
        assert!(message.contains("store.url"), "{url}: {message}");
    }
}

/// A way to a server that can be blocked: what was sent stays where it is, as when a cable is pulled.
struct Blockable {
    address: std::net::SocketAddr,
    blocked: watch::Sender<bool>,
}

impl Blockable {
    async fn to(server: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (blocked, is_blocked) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = tokio::net::TcpStream::connect(&server).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, is_blocked.clone()));
                tokio::spawn(forward(from_server, to_client, is_blocked.clone()));
            }
        });
        Self { address, blocked }
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut is_blocked: watch::Receiver<bool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        if is_blocked.wait_for(|blocked| !blocked).await.is_err() || to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}

/// PostgreSQL only: SQLite has no way that could be cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_noticed_and_found_again() {
    let Some(place) = Place::postgres().await else {
        return;
    };
    let (before, rest) = place.url.split_once('@').unwrap();
    let (server, rest) = rest.split_once('/').unwrap();
    let way = Blockable::to(server.to_owned()).await;
    let url = format!("{before}@{}/{rest}", way.address);
    let store = Store::open(&url, StoreOptions::default()).await.unwrap();
    store.create_match(new_match()).await.unwrap();
    let mut up = store.up();

    way.blocked.send_replace(true);
    // Everybody hears in time, those who wait in the queue too.
    let asked = Instant::now();
    let writes = all((0..600).map(|_| {
        let store = store.clone();
        async move { store.create_match(new_match()).await.map(|_| ()) }
    }));
    let (writes, read) = tokio::join!(writes, store.list_nodes());
    assert!(read.unwrap_err().is_unavailable());
    for write in writes {
        match write {
            Err(CreateMatchError::Store(error)) => assert!(error.is_unavailable(), "{error:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let noticed = tokio::time::timeout(Duration::from_secs(5), up.wait_for(|up| !up)).await;
    assert!(noticed.unwrap().is_ok());

    way.blocked.send_replace(false);
    let found = tokio::time::timeout(Duration::from_secs(10), up.wait_for(|up| *up)).await;
    assert!(found.unwrap().is_ok());
    let made = store.create_match(new_match()).await.unwrap().id;
    // What nobody waited for any more was not made up later. The first group was on its way and may have arrived.
    let alive = store.list_live_matches(None, 1000).await.unwrap();
    assert!(alive.iter().any(|row| row.id == made));
    assert!(alive.len() <= 2 + 256, "{}", alive.len());
}
