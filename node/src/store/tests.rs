//! One suite for both databases: each test runs on a SQLite file of its own, and in a PostgreSQL schema of its own when
//! `ROOKERY_TEST_POSTGRES` names a server (scripts/with-postgres starts one).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rookery_protocol::{Digest, MatchId, NodeName, PlayerId};

use super::migrate::{MIGRATIONS, Migration, migrate};
use super::*;

/// Where one test keeps its database.
struct Place {
    url: String,
    _directory: Option<tempfile::TempDir>,
}

impl Place {
    fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite://{}/new/rookery.db", directory.path().display()),
            _directory: Some(directory),
        }
    }

    /// None when there is no server here, which in CI is a failure.
    async fn postgres() -> Option<Self> {
        let Ok(server) = std::env::var("ROOKERY_TEST_POSTGRES") else {
            let message = "not run on PostgreSQL: start the tests by scripts/with-postgres";
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{message}");
            eprintln!("{message}");
            return None;
        };
        let schema = format!("t{:032x}", rand::random::<u128>());
        let pool = sqlx::PgPool::connect(&server).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("create schema {schema}"));
        sqlx::raw_sql(create).execute(&pool).await.unwrap();
        pool.close().await;
        Some(Self {
            url: format!("{server}?options[search_path]={schema}"),
            _directory: None,
        })
    }

    async fn open(&self) -> Store {
        let options = StoreOptions {
            observe: Some(Arc::new(|operation, _| {
                assert!(OPERATIONS.contains(&operation), "{operation}")
            })),
            ..StoreOptions::default()
        };
        Store::open(&self.url, options).await.unwrap()
    }
}

/// Each name is a test on both databases.
macro_rules! suite {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&super::Place::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(place) = super::Place::postgres().await {
                    super::$name(&place).await;
                }
            })*
        }
    };
}

suite! {
    a_lease_has_one_holder_and_a_new_epoch_for_each_holding,
    generations_rise_at_every_start,
    a_superseded_life_cannot_renew,
}

mod chat;
mod content;
mod matches;
mod modules;
mod opening;
mod owned;
mod players;
mod records;
mod succession;
mod tickets;
mod values;
mod zones;

fn node(name: &str, generation: u64) -> NodeLife {
    NodeLife {
        name: name.parse().unwrap(),
        generation,
    }
}

fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn match_id() -> MatchId {
    MatchId::from_parts(1_700_000_000_000, rand::random())
}

fn player_id() -> PlayerId {
    PlayerId::from_parts(1_700_000_000_000, rand::random())
}

fn new_match() -> NewMatch {
    NewMatch {
        id: match_id(),
        kind: MatchKind::Match,
        name: None,
        module: "duel".into(),
        digest: Digest([7; 32]),
        durability: Durability::Memory,
        params: Bytes::new(),
        seed: 1,
        limits: "{}".into(),
        invited: "[]".into(),
        creator: None,
        private: false,
        owner: node("a", 1),
        backup: None,
        quick_key: None,
        creator_alive_max: None,
    }
}

fn named(name: &str) -> NewMatch {
    NewMatch {
        name: Some(name.into()),
        ..new_match()
    }
}

fn end_of(id: MatchId, epoch: u64) -> Finish {
    Finish {
        id,
        epoch,
        status: FinalStatus::Ended,
        outcome: Some(Bytes::from_static(b"won\0")),
        reason: None,
    }
}

async fn row(store: &Store, id: MatchId) -> MatchRow {
    store.read_match(id).await.unwrap().unwrap()
}

/// Runs all at once and returns the results in order.
async fn all<T: Send + 'static>(work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let tasks: Vec<_> = work.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn register(store: &Store, node: &str) -> u64 {
    let registration = Registration {
        name: name(node),
        client: "http://127.0.0.1:7700".into(),
        peer: "127.0.0.1:7701".into(),
        version: "0.1.0".into(),
    };
    store.register_node(&registration).await.unwrap()
}

async fn generations_rise_at_every_start(place: &Place) {
    let store = place.open().await;
    let mut generations = Vec::new();
    for _ in 0..20 {
        generations.push(register(&store, "a").await);
    }
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    assert!(
        generations[0] > 1_700_000_000_000,
        "a generation begins at the time of the start"
    );

    // A machine whose clock ran ahead must not be able to start with a lower one.
    let ahead = Sql::both("update nodes set generation = 9000000000000");
    store
        .write("renew_node", async |transaction| {
            transaction.rows(&ahead, args![]).await.map(|_| ())
        })
        .await
        .unwrap();
    assert_eq!(register(&store, "a").await, 9_000_000_000_001);
}

async fn a_superseded_life_cannot_renew(place: &Place) {
    let store = place.open().await;
    let first = register(&store, "a").await;
    assert!(store.renew_node(&node("a", first)).await.unwrap());
    let second = register(&store, "a").await;
    register(&store, "b").await;
    assert!(!store.renew_node(&node("a", first)).await.unwrap());
    assert!(store.renew_node(&node("a", second)).await.unwrap());
    assert!(!store.renew_node(&node("c", 1)).await.unwrap());

    let nodes = store.list_nodes().await.unwrap();
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[0].life, node("a", second));
    assert_eq!(nodes[0].peer, "127.0.0.1:7701");
    assert!(nodes[0].silent_ms < 10_000);
}

async fn a_lease_has_one_holder_and_a_new_epoch_for_each_holding(place: &Place) {
    let store = place.open().await;
    let life = |name: &str, generation| NodeLife {
        name: name.parse().unwrap(),
        generation,
    };
    let (ana, bo) = (life("ana", 5), life("bo", 5));
    assert_eq!(store.read_lease("leader").await.unwrap(), None);
    let first = store.acquire_lease("leader", &ana, 60_000).await.unwrap();
    assert!(
        first.is_held_by(&ana) && first.epoch == 1 && first.left_ms > 55_000,
        "{first:?}"
    );
    let again = store.acquire_lease("leader", &ana, 60_000).await.unwrap();
    assert_eq!(
        (again.epoch, again.is_held_by(&ana)),
        (1, true),
        "a renewal is the same holding"
    );
    let refused = store.acquire_lease("leader", &bo, 60_000).await.unwrap();
    assert!(refused.is_held_by(&ana) && refused.epoch == 1, "{refused:?}");

    assert!(!store.release_lease("leader", &bo, 1).await.unwrap());
    assert!(!store.release_lease("leader", &ana, 2).await.unwrap());
    assert!(store.release_lease("leader", &ana, 1).await.unwrap());
    assert_eq!(store.read_lease("leader").await.unwrap().unwrap().holder, None);
    let taken = store.acquire_lease("leader", &bo, 1).await.unwrap();
    assert_eq!(taken.epoch, 2);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let lapsed = store.acquire_lease("leader", &bo, 60_000).await.unwrap();
    assert_eq!(lapsed.epoch, 3, "a holding that lapsed is over, whoever comes next");

    let restarted = life("bo", 6);
    let own = store.acquire_lease("leader", &restarted, 60_000).await.unwrap();
    assert!(own.is_held_by(&restarted) && own.epoch == 4, "{own:?}");
    let late = store.acquire_lease("leader", &bo, 60_000).await.unwrap();
    assert!(late.is_held_by(&restarted), "an earlier life gets nothing: {late:?}");
    assert_eq!(store.acquire_lease("queue/duel", &ana, 60_000).await.unwrap().epoch, 1);
}
