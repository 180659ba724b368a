//! One suite for both databases: each test runs on a SQLite file of its own, and in a PostgreSQL schema of its own when
//! `ROOKERY_TEST_POSTGRES` names a server (scripts/with-postgres starts one).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rookery_protocol::{Digest, MatchId, NodeName, PlayerId};

use self::chat::*;
use super::migrate::{MIGRATIONS, Migration, migrate};
use super::*;

mod chat;

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
    a_match_reads_back_as_it_was_created,
    a_name_is_unique_among_live_matches,
    of_many_quick_creators_one_wins,
    creating_again_with_the_same_id_is_answered_by_the_row,
    a_creator_is_held_to_a_number_of_live_matches,
    a_miss_fails_one_caller_and_not_the_group,
    a_member_that_the_database_refuses_fails_alone,
    what_waits_shares_a_transaction,
    running_needs_the_epoch_and_the_life_of_the_row,
    a_match_ends_once_and_frees_its_name,
    of_two_swaps_from_one_epoch_one_wins,
    a_dead_nodes_matches_are_lost_once_and_only_without_backup,
    what_is_leased_is_not_lost_with_its_node,
    a_match_is_taken_over_once_and_only_after_its_owners_lease,
    a_named_match_that_nothing_saves_is_lost_after_its_owners_lease,
    a_node_that_stops_or_is_forgotten_has_no_lease,
    a_match_that_its_owner_does_not_run_is_begun_anew_once,
    the_newest_state_of_a_match_is_kept_and_an_older_epoch_is_refused,
    a_state_goes_with_its_match,
    matches_that_never_began_go_to_another_owner,
    claims_and_names_are_one_name_space,
    a_module_is_stored_once_and_the_last_published_is_its_names_newest,
    a_device_is_one_player,
    a_registered_name_is_taken_once,
    a_refresh_token_counts_once,
    values_are_written_only_where_expected,
    scans_go_by_prefix_in_key_order,
    an_effect_is_applied_once_and_under_its_epoch_only,
    lines_are_numbered_by_channel_without_gaps,
    one_writers_lines_keep_their_order,
    a_reader_never_sees_a_hole,
    a_channel_is_read_from_either_end,
    a_matchs_line_is_written_once_and_under_its_epoch_only,
    old_lines_are_swept_and_numbers_go_on,
    ended_matches_are_forgotten_in_time,
    nodes_may_open_an_empty_database_at_once,
    an_older_database_is_migrated_and_keeps_its_rows,
    a_newer_database_is_used_until_it_needs_a_newer_build,
    a_writer_that_hangs_does_not_hold_others_up,
    a_closed_store_is_unavailable,
}

mod content;
mod owned;
mod records;
mod tickets;
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

async fn a_match_reads_back_as_it_was_created(place: &Place) {
    let store = place.open().await;
    let creator = player_id();
    let new = NewMatch {
        kind: MatchKind::Zone,
        name: Some("village/square".into()),
        durability: Durability::Stored,
        params: Bytes::from_static(b"\0\xff 'quoted' \x7f"),
        seed: u64::MAX - 1,
        limits: r#"{"memory_bytes":67108864}"#.into(),
        invited: r#"[{"player":"Zoë 🦀"}]"#.into(),
        creator: Some(creator),
        private: true,
        backup: Some(node("b", 5)),
        quick_key: Some("key".into()),
        creator_alive_max: Some(200),
        ..new_match()
    };
    let created = store.create_match(new.clone()).await.unwrap();
    assert_eq!((created.id, created.epoch), (new.id, 1));

    let expected = MatchRow {
        id: new.id,
        kind: new.kind,
        name: new.name,
        module: new.module,
        digest: new.digest,
        durability: new.durability,
        params: new.params,
        seed: new.seed,
        limits: new.limits,
        invited: new.invited,
        creator: Some(creator),
        private: true,
        configuration: Configuration {
            epoch: 1,
            owner: new.owner,
            backup: new.backup,
        },
        incarnation: 0,
        status: MatchStatus::Starting,
        outcome: None,
        reason: None,
        quick_key: new.quick_key,
        created_at_ms: created.created_at_ms,
        started_at_ms: None,
        ended_at_ms: None,
    };
    assert_eq!(row(&store, new.id).await, expected);
    assert_eq!(store.get_match("village/square").await.unwrap(), Some(expected.clone()));
    assert_eq!(
        store.get_match(&new.id.to_string()).await.unwrap(),
        Some(expected.clone())
    );
    assert_eq!(store.get_match("village").await.unwrap(), None);
    let only = [expected];
    assert_eq!(store.starting_of(&node("a", 1), 10).await.unwrap(), only);
    assert_eq!(store.starting_of(&node("a", 2), 10).await.unwrap(), []);
    assert_eq!(store.list_live_matches(None, 10).await.unwrap(), only);
    assert_eq!(store.list_live_matches(Some(new.id), 10).await.unwrap(), []);
    assert_eq!(store.count_alive_created_by(creator).await.unwrap(), 1);

    // A name that looks like an id is still found.
    let looks = named("01arz3ndektsv4rrffq69g5fav");
    store.create_match(looks.clone()).await.unwrap();
    assert_eq!(
        store.get_match("01arz3ndektsv4rrffq69g5fav").await.unwrap().unwrap().id,
        looks.id
    );
}

async fn a_name_is_unique_among_live_matches(place: &Place) {
    let store = place.open().await;
    let first = named("hall");
    store.create_match(first.clone()).await.unwrap();
    match store.create_match(named("hall")).await {
        Err(CreateMatchError::NameTaken { existing }) => assert_eq!(existing, first.id),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.finish_match(end_of(first.id, 1)).await.unwrap(), Cas::Done);
    let second = named("hall");
    store.create_match(second.clone()).await.unwrap();
    assert_eq!(store.get_match("hall").await.unwrap().unwrap().id, second.id);
}

async fn of_many_quick_creators_one_wins(place: &Place) {
    let stores = [place.open().await, place.open().await];
    let attempts = (0..60).map(|no: usize| {
        let store = stores[no % 2].clone();
        let new = NewMatch {
            quick_key: Some("duel ranked".into()),
            ..new_match()
        };
        async move { store.create_match(new).await }
    });
    let mut winners = BTreeSet::new();
    let mut pointed_at = BTreeSet::new();
    for answer in all(attempts).await {
        match answer {
            Ok(created) => assert!(winners.insert(created.id)),
            Err(CreateMatchError::QuickTaken { existing }) => {
                pointed_at.insert(existing);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(pointed_at, winners);

    // A match that is full gives the key up, and lives on.
    let full = *winners.first().unwrap();
    stores[0].clear_quick_key(full).await.unwrap();
    let next = NewMatch {
        quick_key: Some("duel ranked".into()),
        ..new_match()
    };
    stores[1].create_match(next).await.unwrap();
    assert!(row(&stores[0], full).await.status.is_live());
}

async fn creating_again_with_the_same_id_is_answered_by_the_row(place: &Place) {
    let store = place.open().await;
    let new = NewMatch {
        quick_key: Some("key".into()),
        creator: Some(player_id()),
        creator_alive_max: Some(1),
        ..named("hall")
    };
    let first = store.create_match(new.clone()).await.unwrap();
    assert_eq!(store.create_match(new).await.unwrap(), first);
}

async fn a_creator_is_held_to_a_number_of_live_matches(place: &Place) {
    let store = place.open().await;
    let creator = player_id();
    let new = move || NewMatch {
        creator: Some(creator),
        creator_alive_max: Some(5),
        ..new_match()
    };
    let mut made = Vec::new();
    for answer in all((0..20).map(|_| {
        let store = store.clone();
        async move { store.create_match(new()).await }
    }))
    .await
    {
        match answer {
            Ok(created) => made.push(created.id),
            Err(CreateMatchError::TooMany { alive }) => assert!(alive >= 5),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(made.len(), 5);
    assert_eq!(store.count_alive_created_by(creator).await.unwrap(), 5);
    // Others are not held up, and an ended match makes room.
    store.create_match(new_match()).await.unwrap();
    store.finish_match(end_of(made[0], 1)).await.unwrap();
    store.create_match(new()).await.unwrap();
}

async fn a_miss_fails_one_caller_and_not_the_group(place: &Place) {
    let store = place.open().await;
    store.create_match(named("taken")).await.unwrap();
    let answers = all((0..100).map(|no| {
        let store = store.clone();
        async move {
            let new = if no % 10 == 0 { named("taken") } else { new_match() };
            (no, store.create_match(new).await)
        }
    }))
    .await;
    for (no, answer) in answers {
        let is_taken = matches!(answer, Err(CreateMatchError::NameTaken { .. }));
        assert_eq!(is_taken, no % 10 == 0, "{no}: {answer:?}");
        assert_eq!(answer.is_ok(), no % 10 != 0);
    }
}

async fn a_member_that_the_database_refuses_fails_alone(place: &Place) {
    let store = place.open().await;
    let refused = NewAccount {
        player: player_id(),
        name: "nul \0 in a text".into(),
        rename: false,
        credential: None,
        on_existing: OnExisting::Adopt,
        family: None,
    };
    let is_postgres = place.url.starts_with("postgres");
    let answers = all((0..50).map(|no| {
        let store = store.clone();
        let refused = refused.clone();
        async move {
            if no == 25 {
                store.open_account(refused).await.is_ok()
            } else {
                store.create_match(new_match()).await.is_ok()
            }
        }
    }))
    .await;
    for (no, is_ok) in answers.into_iter().enumerate() {
        // PostgreSQL has no NUL in texts; SQLite does not mind.
        assert_eq!(is_ok, no != 25 || !is_postgres, "{no}");
    }
}

async fn what_waits_shares_a_transaction(place: &Place) {
    let groups = Arc::new(AtomicUsize::new(0));
    let counted = groups.clone();
    let options = StoreOptions {
        observe: Some(Arc::new(move |operation, _| {
            if operation == "batch" {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })),
        ..StoreOptions::default()
    };
    let store = Store::open(&place.url, options).await.unwrap();
    let answers = all((0..1000).map(|_| {
        let store = store.clone();
        async move {
            let id = store.create_match(new_match()).await.unwrap().id;
            store.set_running(id, 1, &node("a", 1)).await
        }
    }))
    .await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == Cas::Done));
    let groups = groups.load(Ordering::Relaxed);
    assert!(groups < 500, "2,000 writes took {groups} transactions");
}

async fn running_needs_the_epoch_and_the_life_of_the_row(place: &Place) {
    let store = place.open().await;
    let id = store.create_match(new_match()).await.unwrap().id;
    for (epoch, life) in [(2, node("a", 1)), (1, node("a", 2)), (1, node("b", 1))] {
        match store.set_running(id, epoch, &life).await.unwrap() {
            Cas::Superseded(Some(row)) => assert_eq!(row.status, MatchStatus::Starting),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.set_running(id, 1, &node("a", 1)).await.unwrap(), Cas::Done);
    let started = row(&store, id).await;
    assert_eq!(started.status, MatchStatus::Running);
    assert!(started.started_at_ms.unwrap() >= started.created_at_ms);
    // The answer was lost, the caller asks again.
    assert_eq!(store.set_running(id, 1, &node("a", 1)).await.unwrap(), Cas::Done);
    assert_eq!(
        store.set_running(match_id(), 1, &node("a", 1)).await.unwrap(),
        Cas::Superseded(None)
    );
}

async fn a_match_ends_once_and_frees_its_name(place: &Place) {
    let store = place.open().await;
    let id = store.create_match(named("hall")).await.unwrap().id;
    store.claim_name("smith", id, 1).await.unwrap();
    assert!(matches!(
        store.finish_match(end_of(id, 2)).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
    assert_eq!(store.finish_match(end_of(id, 1)).await.unwrap(), Cas::Done);
    assert_eq!(store.finish_match(end_of(id, 1)).await.unwrap(), Cas::Done);
    let lost = Finish {
        status: FinalStatus::Lost,
        ..end_of(id, 1)
    };
    assert!(matches!(
        store.finish_match(lost).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
    let ended = row(&store, id).await;
    assert_eq!(ended.status, MatchStatus::Ended);
    assert_eq!(ended.outcome.as_deref(), Some(&b"won\0"[..]));
    assert!(ended.ended_at_ms.unwrap() >= ended.created_at_ms);
    assert_eq!(store.get_match("hall").await.unwrap(), None);
    assert_eq!(store.get_match("smith").await.unwrap(), None);
    assert_eq!(store.list_live_matches(None, 10).await.unwrap(), []);
    assert!(matches!(
        store.set_running(id, 1, &node("a", 1)).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
}

async fn of_two_swaps_from_one_epoch_one_wins(place: &Place) {
    let store = place.open().await;
    let new = NewMatch {
        backup: Some(node("b", 1)),
        ..new_match()
    };
    let id = store.create_match(new).await.unwrap().id;
    let from = row(&store, id).await.configuration;
    let to = |owner: &str, backup: Option<&str>| Configuration {
        epoch: 2,
        owner: node(owner, 1),
        backup: backup.map(|backup| node(backup, 1)),
    };
    let swap = |to: Configuration| Swap {
        id,
        from: from.clone(),
        to,
        new_incarnation: true,
    };
    let swaps = [swap(to("b", None)), swap(to("a", Some("c")))];
    let tries = swaps.clone().map(|swap| {
        let store = store.clone();
        async move { store.swap_owner(&swap).await.unwrap() }
    });
    let answers = all(tries).await;
    let winner = answers.iter().position(|answer| *answer == Cas::Done).unwrap();
    let now = row(&store, id).await;
    assert_eq!(now.configuration, swaps[winner].to);
    assert_eq!(now.incarnation, 1);
    assert_eq!(answers[1 - winner], Cas::Superseded(Some(Box::new(now.clone()))));
    // Once more: done already, and not twice.
    assert_eq!(store.swap_owner(&swaps[winner]).await.unwrap(), Cas::Done);
    assert_eq!(row(&store, id).await, now);
    // Every part of the old configuration counts.
    for from in [
        Configuration {
            epoch: 1,
            ..now.configuration.clone()
        },
        Configuration {
            owner: node("z", 1),
            ..now.configuration.clone()
        },
        Configuration {
            owner: node(now.configuration.owner.name.as_str(), 9),
            ..now.configuration.clone()
        },
        Configuration {
            backup: Some(node("z", 1)),
            ..now.configuration.clone()
        },
    ] {
        let swap = Swap {
            id,
            from,
            to: Configuration {
                epoch: 3,
                owner: node("z", 3),
                backup: None,
            },
            new_incarnation: false,
        };
        assert!(matches!(
            store.swap_owner(&swap).await.unwrap(),
            Cas::Superseded(Some(_))
        ));
    }
    // What ran under the old epoch can neither start nor end it.
    assert!(matches!(
        store.finish_match(end_of(id, 1)).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
}

async fn a_dead_nodes_matches_are_lost_once_and_only_without_backup(place: &Place) {
    let store = place.open().await;
    let mut create = Vec::new();
    for (owner, backup, runs) in [
        (node("a", 1), None, true),
        (node("a", 2), None, true),
        (node("a", 3), None, true),
        (node("a", 1), Some(node("b", 1)), true),
        (node("a", 1), None, false),
        (node("b", 1), None, true),
    ] {
        let new = NewMatch {
            owner: owner.clone(),
            backup,
            quick_key: Some(format!("m{}", create.len())),
            ..new_match()
        };
        let id = store.create_match(new).await.unwrap().id;
        if runs {
            assert_eq!(store.set_running(id, 1, &owner).await.unwrap(), Cas::Done);
        }
        create.push(id);
    }
    let asks = (0..4).map(|_| {
        let store = store.clone();
        async move { store.lose_matches_of(&name("a"), 2).await.unwrap() }
    });
    let mut lost: Vec<MatchId> = all(asks).await.concat();
    lost.sort();
    let mut expected = vec![create[0], create[1]];
    expected.sort();
    assert_eq!(lost, expected, "each is returned to exactly one of those who asked");
    assert_eq!(row(&store, create[0]).await.status, MatchStatus::Lost);
    assert_eq!(row(&store, create[0]).await.reason.as_deref(), Some("node_died"));
    assert_eq!(store.list_live_matches(None, 10).await.unwrap().len(), 4);
    let again = NewMatch {
        quick_key: Some("m0".into()),
        ..new_match()
    };
    store.create_match(again).await.unwrap();
}

fn zone(name: &str, owner: &NodeLife) -> NewMatch {
    NewMatch {
        kind: MatchKind::Zone,
        owner: owner.clone(),
        ..named(name)
    }
}

/// Creates a match and says that it runs.
async fn run(store: &Store, new: NewMatch) -> MatchId {
    let owner = new.owner.clone();
    let id = store.create_match(new).await.unwrap().id;
    assert_eq!(store.set_running(id, 1, &owner).await.unwrap(), Cas::Done);
    id
}

async fn life(store: &Store, node_name: &str) -> NodeLife {
    node(node_name, register(store, node_name).await)
}

/// A lease that nobody's is longer than, and one that is over as soon as the clock has moved.
const LONG_MS: u64 = 600_000;
const NO_TIME_MS: u64 = 0;

async fn what_is_leased_is_not_lost_with_its_node(place: &Place) {
    let store = place.open().await;
    let owner = life(&store, "a").await;
    let stored = NewMatch {
        durability: Durability::Stored,
        owner: owner.clone(),
        ..new_match()
    };
    let named = NewMatch {
        owner: owner.clone(),
        ..named("hall")
    };
    for new in [zone("w/square", &owner), stored, named] {
        run(&store, new).await;
    }
    let memory = run(
        &store,
        NewMatch {
            owner: owner.clone(),
            ..new_match()
        },
    )
    .await;
    let lost = store.lose_matches_of(&owner.name, owner.generation).await.unwrap();
    assert_eq!(lost, [memory]);
    assert_eq!(store.leased_by(&owner).await.unwrap().len(), 3);
}

async fn a_match_is_taken_over_once_and_only_after_its_owners_lease(place: &Place) {
    let store = place.open().await;
    let (a, b) = (life(&store, "a").await, life(&store, "b").await);
    let mut zones = BTreeSet::new();
    for number in 0..10 {
        zones.insert(run(&store, zone(&format!("w/{number}"), &a)).await);
    }
    let begun = store.create_match(zone("w/starting", &a)).await.unwrap().id;
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 0);
    assert!(store.take_over_unleased(&b, LONG_MS, 100).await.unwrap().is_empty());

    // A later life of the owner is registered: its leases are over at once.
    let later = life(&store, "a").await;
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 11);
    let takers = [b.clone(), later.clone(), b.clone(), later.clone()];
    let takes = takers.map(|taker| {
        let store = store.clone();
        async move {
            let mut all = Vec::new();
            loop {
                let taken = store.take_over_unleased(&taker, LONG_MS, 3).await.unwrap();
                if taken.is_empty() {
                    return all;
                }
                assert!(taken.iter().all(|row| row.configuration.owner == taker));
                all.extend(taken);
            }
        }
    });
    let taken: Vec<MatchRow> = all(takes).await.concat();
    assert_eq!(taken.len(), 11, "each is taken by exactly one of those who asked");
    for row in taken {
        assert_eq!((row.configuration.epoch, row.status), (2, MatchStatus::Starting));
        let expected = u64::from(row.id != begun);
        assert_eq!(row.incarnation, expected, "only what had spoken is a new incarnation");
        assert!(row.id == begun || zones.contains(&row.id));
        // The old owner's word counts no more, and the new one's does.
        assert!(matches!(
            store.set_running(row.id, 1, &a).await.unwrap(),
            Cas::Superseded(_)
        ));
        let owner = row.configuration.owner.clone();
        assert_eq!(store.set_running(row.id, 2, &owner).await.unwrap(), Cas::Done);
    }
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 0);
}

async fn a_named_match_that_nothing_saves_is_lost_after_its_owners_lease(place: &Place) {
    let store = place.open().await;
    let (a, b) = (life(&store, "a").await, life(&store, "b").await);
    let hall = run(
        &store,
        NewMatch {
            owner: a.clone(),
            ..named("hall")
        },
    )
    .await;
    store.claim_name("throne", hall, 1).await.unwrap();
    assert!(store.lose_unleased(LONG_MS).await.unwrap().is_empty());
    store.release_node(&a).await.unwrap();
    assert!(store.take_over_unleased(&b, LONG_MS, 10).await.unwrap().is_empty());
    assert_eq!(store.lose_unleased(LONG_MS).await.unwrap(), [hall]);
    assert!(store.lose_unleased(LONG_MS).await.unwrap().is_empty());
    assert_eq!(row(&store, hall).await.status, MatchStatus::Lost);
    store.create_match(named("throne")).await.unwrap();
}

async fn a_node_that_stops_or_is_forgotten_has_no_lease(place: &Place) {
    let store = place.open().await;
    let (a, b) = (life(&store, "a").await, life(&store, "b").await);
    run(&store, zone("w/1", &a)).await;
    run(&store, zone("w/2", &b)).await;
    store.release_node(&a).await.unwrap();
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 1);
    assert!(
        !store.renew_node(&a).await.unwrap(),
        "a renewal that was under way changes nothing"
    );
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 1);

    assert_eq!(store.forget_node(&b.name).await.unwrap(), Some(b.generation));
    assert_eq!(store.count_unleased(LONG_MS).await.unwrap(), 2);
    assert!(
        !store.renew_node(&b).await.unwrap(),
        "it lives after all, and is told so"
    );
    assert_eq!(store.forget_node(&name("nobody")).await.unwrap(), None);
    assert!(life(&store, "b").await.generation > b.generation + 1);

    // A lease that is over by the database's clock is over, though its node never said so.
    let c = life(&store, "c").await;
    run(&store, zone("w/3", &c)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.count_unleased(NO_TIME_MS).await.unwrap(), 3);
}

async fn a_match_that_its_owner_does_not_run_is_begun_anew_once(place: &Place) {
    let store = place.open().await;
    let a = life(&store, "a").await;
    let id = run(&store, zone("w/1", &a)).await;
    let row = store.retake_match(id, 1, &a).await.unwrap().unwrap();
    assert_eq!((row.configuration.epoch, row.incarnation), (2, 1));
    assert_eq!(row.status, MatchStatus::Starting);
    assert!(store.retake_match(id, 1, &a).await.unwrap().is_none());
}

fn save(id: MatchId, epoch: u64, event: u64) -> Save {
    Save {
        id,
        epoch,
        incarnation: epoch - 1,
        event,
        saved_by: "1.0.0".into(),
        state: Bytes::from(format!("state {epoch} {event}")),
        part: Bytes::from_static(&[0, 255, 7]),
    }
}

async fn the_newest_state_of_a_match_is_kept_and_an_older_epoch_is_refused(place: &Place) {
    let store = place.open().await;
    let (a, b) = (life(&store, "a").await, life(&store, "b").await);
    let (one, other) = (run(&store, zone("w/1", &a)).await, run(&store, zone("w/2", &a)).await);
    let none = store.save_matches(&[save(one, 1, 5), save(other, 1, 9)]).await.unwrap();
    assert!(none.is_empty());
    // Older than what is there; and in the same group one that is newer.
    let refused = store
        .save_matches(&[save(one, 1, 4), save(other, 1, 10)])
        .await
        .unwrap();
    assert_eq!(refused, BTreeSet::from([one]));
    let kept = store.read_save(one).await.unwrap().unwrap();
    assert_eq!((kept.event, &*kept.state), (5, b"state 1 5".as_slice()));
    assert_eq!((kept.saved_by.as_str(), &*kept.part), ("1.0.0", [0, 255, 7].as_slice()));
    assert_eq!(store.read_save(other).await.unwrap().unwrap().event, 10);

    store.release_node(&a).await.unwrap();
    assert_eq!(store.take_over_unleased(&b, LONG_MS, 10).await.unwrap().len(), 2);
    let refused = store.save_matches(&[save(one, 1, 99)]).await.unwrap();
    assert_eq!(refused, BTreeSet::from([one]), "the old owner's past");
    // The new owner's count may be lower than what the old one had reached.
    assert!(store.save_matches(&[save(one, 2, 3)]).await.unwrap().is_empty());
    let kept = store.read_save(one).await.unwrap().unwrap();
    assert_eq!((kept.epoch, kept.incarnation, kept.event), (2, 1, 3));
    assert!(store.read_save(match_id()).await.unwrap().is_none());
    assert!(store.save_matches(&[save(match_id(), 1, 1)]).await.unwrap().len() == 1);
}

async fn a_state_goes_with_its_match(place: &Place) {
    let store = place.open().await;
    let a = life(&store, "a").await;
    let id = run(&store, zone("w/1", &a)).await;
    store.save_matches(&[save(id, 1, 1)]).await.unwrap();
    store.finish_match(end_of(id, 1)).await.unwrap();
    assert!(
        store.save_matches(&[save(id, 1, 2)]).await.unwrap().is_empty(),
        "the last state of a record"
    );
    assert!(store.read_save(id).await.unwrap().is_some());
    tokio::time::sleep(Duration::from_millis(20)).await;
    store.sweep_matches(0, 10).await.unwrap();
    assert!(store.read_save(id).await.unwrap().is_none());
}

async fn matches_that_never_began_go_to_another_owner(place: &Place) {
    let store = place.open().await;
    let mut starting = BTreeSet::new();
    for _ in 0..10 {
        starting.insert(store.create_match(new_match()).await.unwrap().id);
    }
    let running = store.create_match(new_match()).await.unwrap().id;
    store.set_running(running, 1, &node("a", 1)).await.unwrap();
    let asks = ["b", "c", "d"].map(|to| {
        let store = store.clone();
        async move { store.reassign_starting(&name("a"), 1, &node(to, 1), 4).await.unwrap() }
    });
    let given = all(asks).await.concat();
    let ids: BTreeSet<MatchId> = given.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), given.len(), "no match was given to two owners");
    assert!(ids.is_subset(&starting));
    assert!(
        given
            .iter()
            .all(|row| row.configuration.epoch == 2 && row.configuration.owner.name != name("a"))
    );
    // The old owner comes too late.
    let first = given[0].clone();
    assert!(matches!(
        store.set_running(first.id, 1, &node("a", 1)).await.unwrap(),
        Cas::Superseded(Some(_))
    ));
    assert_eq!(
        store
            .set_running(first.id, 2, &first.configuration.owner)
            .await
            .unwrap(),
        Cas::Done
    );
    assert_eq!(row(&store, running).await.configuration.owner, node("a", 1));
}

async fn claims_and_names_are_one_name_space(place: &Place) {
    let store = place.open().await;
    let hall = store.create_match(named("hall")).await.unwrap().id;
    let other = store.create_match(new_match()).await.unwrap().id;
    store.claim_name("smith", hall, 1).await.unwrap();
    store.claim_name("smith", hall, 1).await.unwrap();
    assert_eq!(store.get_match("smith").await.unwrap().unwrap().id, hall);

    let is_taken =
        |answer: Result<(), ClaimError>| matches!(answer, Err(ClaimError::Taken { existing }) if existing == hall);
    assert!(is_taken(store.claim_name("smith", other, 1).await));
    assert!(is_taken(store.claim_name("hall", other, 1).await));
    match store.create_match(named("smith")).await {
        Err(CreateMatchError::NameTaken { existing }) => assert_eq!(existing, hall),
        answer => panic!("{answer:?}"),
    }
    assert!(matches!(
        store.claim_name("baker", hall, 2).await,
        Err(ClaimError::Fenced)
    ));

    // Only the holder gives up, and then the name is free.
    store.release_name("smith", other).await.unwrap();
    assert!(is_taken(store.claim_name("smith", other, 1).await));
    store.release_name("smith", hall).await.unwrap();
    store.claim_name("smith", other, 1).await.unwrap();

    // The end of a match frees what it claimed.
    store.finish_match(end_of(other, 1)).await.unwrap();
    assert!(matches!(
        store.claim_name("miller", other, 1).await,
        Err(ClaimError::Fenced)
    ));
    store.claim_name("smith", hall, 1).await.unwrap();

    // Of many who want one name at once, by both ways, one gets it.
    let wants = (0..20).map(|no| {
        let store = store.clone();
        async move {
            if no % 2 == 0 {
                store.create_match(named("inn")).await.is_ok()
            } else {
                let id = store.create_match(new_match()).await.unwrap().id;
                store.claim_name("inn", id, 1).await.is_ok()
            }
        }
    });
    assert_eq!(all(wants).await.into_iter().filter(|got| *got).count(), 1);
}

async fn a_module_is_stored_once_and_the_last_published_is_its_names_newest(place: &Place) {
    let store = place.open().await;
    let module = |fill: u8, version: &str| NewModule {
        digest: Digest([fill; 32]),
        name: "duel".into(),
        version: version.into(),
        manifest: r#"{"tick_hz":0}"#.into(),
        component: vec![fill; 300_000].into(),
    };
    let (old, new) = (module(1, "1.0.0"), module(2, "1.1.0"));
    assert!(store.put_module(&old).await.unwrap());
    assert!(!store.put_module(&old).await.unwrap());
    assert!(store.put_module(&new).await.unwrap());
    assert_eq!(store.find_module("duel").await.unwrap().unwrap().digest, new.digest);
    assert_eq!(store.find_module("arena").await.unwrap(), None);
    let by_digest = format!("duel@{}", old.digest);
    let found = store.find_module(&by_digest).await.unwrap().unwrap();
    assert_eq!((found.version.as_str(), found.is_head), ("1.0.0", false));
    assert_eq!(store.find_module(&format!("arena@{}", old.digest)).await.unwrap(), None);
    assert_eq!(store.find_module("duel@beef").await.unwrap(), None);
    let stored = store.get_module(&new.digest).await.unwrap().unwrap();
    assert_eq!(
        (stored.component, stored.module.manifest),
        (new.component, new.manifest)
    );
    assert!(store.get_module(&Digest([9; 32])).await.unwrap().is_none());

    // Going back is publishing the old one again.
    assert!(!store.put_module(&old).await.unwrap());
    let heads: Vec<_> = store
        .list_modules()
        .await
        .unwrap()
        .into_iter()
        .map(|m| (m.digest, m.is_head))
        .collect();
    assert_eq!(heads.len(), 2);
    assert!(heads.contains(&(old.digest, true)) && heads.contains(&(new.digest, false)));
}

fn account(kind: CredentialKind, key: &str, name: &str) -> NewAccount {
    NewAccount {
        player: player_id(),
        name: name.into(),
        rename: false,
        credential: Some(NewCredential {
            kind,
            key: key.into(),
            secret: Some("hash".into()),
        }),
        on_existing: OnExisting::Adopt,
        family: None,
    }
}

fn opened(outcome: AccountOutcome) -> Account {
    match outcome {
        AccountOutcome::Opened(account) => account,
        AccountOutcome::Taken => panic!("taken"),
    }
}

async fn a_device_is_one_player(place: &Place) {
    let stores = [place.open().await, place.open().await];
    let opens = (0..40).map(|no: usize| {
        let store = stores[no % 2].clone();
        async move {
            opened(
                store
                    .open_account(account(CredentialKind::Device, "device", "guest"))
                    .await
                    .unwrap(),
            )
        }
    });
    let accounts = all(opens).await;
    let players: BTreeSet<PlayerId> = accounts.iter().map(|account| account.player.id).collect();
    assert_eq!(players.len(), 1);
    assert_eq!(accounts.iter().filter(|account| account.is_new).count(), 1);
    let id = *players.first().unwrap();
    assert_eq!(stores[0].read_player(id).await.unwrap().unwrap().name, "guest");

    let renamed = NewAccount {
        rename: true,
        ..account(CredentialKind::Device, "device", "Ana")
    };
    let renamed = opened(stores[0].open_account(renamed).await.unwrap());
    assert_eq!(
        (renamed.player.id, renamed.player.name.as_str(), renamed.is_new),
        (id, "Ana", false)
    );
    assert_eq!(stores[1].read_player(id).await.unwrap().unwrap().name, "Ana");

    // Without a credential everybody is somebody else; the same key of another kind too.
    let nobody = NewAccount {
        credential: None,
        ..account(CredentialKind::Device, "", "x")
    };
    assert!(opened(stores[0].open_account(nobody).await.unwrap()).is_new);
    assert!(
        opened(
            stores[0]
                .open_account(account(CredentialKind::External, "device", "x"))
                .await
                .unwrap()
        )
        .is_new
    );
}

async fn a_registered_name_is_taken_once(place: &Place) {
    let store = place.open().await;
    let registration = || NewAccount {
        on_existing: OnExisting::Refuse,
        ..account(CredentialKind::Password, "ana", "Ana")
    };
    let tries = (0..10).map(|_| {
        let (store, registration) = (store.clone(), registration());
        async move { (registration.player, store.open_account(registration).await.unwrap()) }
    });
    let mut winners = all(tries)
        .await
        .into_iter()
        .filter(|(_, outcome)| *outcome != AccountOutcome::Taken);
    let (winner, _) = winners.next().unwrap();
    assert!(winners.next().is_none());
    let found = store
        .find_credential(CredentialKind::Password, "ana")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.player.id, found.secret.as_deref()), (winner, Some("hash")));
    // The answer was lost, the same request comes again.
    let again = NewAccount {
        player: winner,
        ..registration()
    };
    assert_eq!(opened(store.open_account(again).await.unwrap()).player.id, winner);
    assert_eq!(
        store.find_credential(CredentialKind::Password, "bob").await.unwrap(),
        None
    );
}

async fn a_refresh_token_counts_once(place: &Place) {
    let store = place.open().await;
    let family = |family: &str, hash: &str| NewFamily {
        family: family.into(),
        hash: hash.into(),
        expires_in_ms: 60_000,
    };
    let new = NewAccount {
        family: Some(family("f", "h1")),
        ..account(CredentialKind::Device, "d", "guest")
    };
    let player = opened(store.open_account(new).await.unwrap()).player;
    let shown = |hash: &'static str, repeat_within_ms: u64| ShownToken {
        family: "f",
        hash,
        repeat_within_ms,
    };
    assert_eq!(
        store.rotate(&shown("h1", 9_000), &family("f", "h2")).await.unwrap(),
        Rotation::Done(player.clone())
    );
    assert_eq!(
        store.rotate(&shown("h1", 9_000), &family("f", "h2")).await.unwrap(),
        Rotation::Done(player.clone())
    );
    assert_eq!(
        store.rotate(&shown("h2", 9_000), &family("f", "h3")).await.unwrap(),
        Rotation::Done(player.clone())
    );
    assert_eq!(store.revocations_since(0).await.unwrap().families, Vec::<String>::new());

    // Two steps back is a copy: the family ends.
    assert_eq!(
        store.rotate(&shown("h1", 9_000), &family("f", "h2")).await.unwrap(),
        Rotation::Reused
    );
    assert_eq!(
        store.rotate(&shown("h3", 9_000), &family("f", "h4")).await.unwrap(),
        Rotation::Unknown
    );
    let revoked = store.revocations_since(0).await.unwrap();
    assert_eq!(revoked.families, ["f"]);
    assert_eq!(
        store.revocations_since(revoked.as_of_ms + 1).await.unwrap().families,
        Vec::<String>::new()
    );

    // So is a repeat that comes too late.
    store.start_family(player.id, &family("g", "h1")).await.unwrap();
    let shown_g = |repeat_within_ms| ShownToken {
        family: "g",
        hash: "h1",
        repeat_within_ms,
    };
    assert_eq!(
        store.rotate(&shown_g(0), &family("g", "h2")).await.unwrap(),
        Rotation::Done(player.clone())
    );
    assert_eq!(
        store.rotate(&shown_g(0), &family("g", "h2")).await.unwrap(),
        Rotation::Reused
    );

    // An expired token is nobody's, and is swept with revocations that are old enough.
    let expired = NewFamily {
        expires_in_ms: 0,
        ..family("e", "h1")
    };
    store.start_family(player.id, &expired).await.unwrap();
    let shown_e = ShownToken {
        family: "e",
        ..shown("h1", 9_000)
    };
    assert_eq!(
        store.rotate(&shown_e, &family("e", "h2")).await.unwrap(),
        Rotation::Unknown
    );
    store.revoke_family("e").await.unwrap();
    store.revoke_family("e").await.unwrap();
    assert_eq!(store.revocations_since(0).await.unwrap().families.len(), 3);
    tokio::time::sleep(Duration::from_millis(5)).await;
    store.sweep_tokens(0).await.unwrap();
    assert_eq!(store.revocations_since(0).await.unwrap().families.len(), 0);
}

fn value_key(key: &str) -> ValueKey {
    ValueKey {
        module: Some("duel".into()),
        owner: None,
        collection: "c".into(),
        key: key.into(),
    }
}

fn put(key: &str, value: &'static [u8], expect: Expect) -> ValueWrite {
    ValueWrite {
        key: value_key(key),
        value: Some(Bytes::from_static(value)),
        expect,
        effect: None,
        owned_max: None,
    }
}

fn delete(key: &str, expect: Expect) -> ValueWrite {
    ValueWrite {
        value: None,
        ..put(key, b"", expect)
    }
}

async fn write(store: &Store, write: ValueWrite) -> WriteOutcome {
    store.write_value(write).await.unwrap().unwrap()
}

async fn stored(store: &Store, write: ValueWrite) -> String {
    match self::write(store, write).await {
        WriteOutcome::Stored { version } => version,
        other => panic!("{other:?}"),
    }
}

async fn values_are_written_only_where_expected(place: &Place) {
    let store = place.open().await;
    assert_eq!(
        write(&store, put("k", b"x", Expect::Version("0".into()))).await,
        WriteOutcome::Conflict
    );
    assert_eq!(
        write(&store, delete("k", Expect::Anything)).await,
        WriteOutcome::NotFound
    );
    assert_eq!(write(&store, delete("k", Expect::Absent)).await, WriteOutcome::NotFound);
    let first = stored(&store, put("k", b"1\0", Expect::Absent)).await;
    assert_eq!(
        write(&store, put("k", b"2", Expect::Absent)).await,
        WriteOutcome::Conflict
    );
    let read = store.read_value(&value_key("k")).await.unwrap().unwrap();
    assert_eq!((read.value.as_ref(), &read.version), (&b"1\0"[..], &first));
    let second = stored(&store, put("k", b"2", Expect::Version(first.clone()))).await;
    assert_ne!(first, second);
    assert_eq!(
        write(&store, put("k", b"3", Expect::Version(first.clone()))).await,
        WriteOutcome::Conflict
    );
    let third = stored(&store, put("k", b"", Expect::Anything)).await;
    assert_eq!(
        store.read_value(&value_key("k")).await.unwrap().unwrap().value,
        Bytes::new()
    );
    assert_eq!(
        write(&store, delete("k", Expect::Version(second))).await,
        WriteOutcome::Conflict
    );
    assert_eq!(write(&store, delete("k", Expect::Absent)).await, WriteOutcome::Conflict);
    assert_eq!(
        write(&store, delete("k", Expect::Version(third))).await,
        WriteOutcome::Deleted
    );
    assert_eq!(store.read_value(&value_key("k")).await.unwrap(), None);

    // Of many who expect the same version one wins, within a group and across processes.
    let version = stored(&store, put("race", b"0", Expect::Anything)).await;
    let other = place.open().await;
    let tries = (0..40).map(|no| {
        let store = if no % 2 == 0 { store.clone() } else { other.clone() };
        let write = put("race", b"1", Expect::Version(version.clone()));
        async move { store.write_value(write).await.unwrap().unwrap() }
    });
    let won = all(tries)
        .await
        .into_iter()
        .filter(|outcome| *outcome != WriteOutcome::Conflict)
        .count();
    assert_eq!(won, 1);
}

async fn scans_go_by_prefix_in_key_order(place: &Place) {
    let store = place.open().await;
    let owner = player_id();
    for key in ["a", "a/2", "a/10", "a/Z", "a/ü", "a/a", "b", "a%", "a_"] {
        stored(&store, put(key, b"v", Expect::Anything)).await;
        let mut of_player = put(key, b"v", Expect::Anything);
        of_player.key.owner = Some(owner);
        stored(&store, of_player).await;
    }
    let scan = async |prefix: &str, after: Option<&str>, limit: u32| {
        let scan = Scan {
            module: Some("duel"),
            owner: Some(owner),
            collection: "c",
            prefix,
            after,
            limit,
        };
        let rows = store.scan_values(&scan).await.unwrap();
        rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
    };
    assert_eq!(scan("a/", None, 10).await, ["a/10", "a/2", "a/Z", "a/a", "a/ü"]);
    assert_eq!(scan("a/", Some("a/2"), 2).await, ["a/Z", "a/a"]);
    assert_eq!(scan("a%", None, 10).await, ["a%"]);
    assert_eq!(scan("", None, 100).await.len(), 9);
    assert_eq!(scan("c", None, 10).await, Vec::<String>::new());
}

async fn an_effect_is_applied_once_and_under_its_epoch_only(place: &Place) {
    let store = place.open().await;
    let id = store.create_match(new_match()).await.unwrap().id;
    let effect = |event: u64, epoch: u64, write: ValueWrite| ValueWrite {
        effect: Some((
            EffectId {
                match_id: id,
                incarnation: 0,
                event,
                index: 0,
            },
            epoch,
        )),
        ..write
    };
    let first = store
        .write_value(effect(1, 1, put("k", b"1", Expect::Anything)))
        .await
        .unwrap()
        .unwrap();
    let version = stored(&store, put("k", b"changed since", Expect::Anything)).await;
    // The repeat says what the first said and touches nothing.
    let again = store
        .write_value(effect(1, 1, put("k", b"1", Expect::Anything)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(
        store.read_value(&value_key("k")).await.unwrap().unwrap().version,
        version
    );
    // A refusal is an answer, too.
    let refused = store
        .write_value(effect(2, 1, put("k", b"2", Expect::Absent)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refused, WriteOutcome::Conflict);
    write(&store, delete("k", Expect::Anything)).await;
    let refused = store
        .write_value(effect(2, 1, put("k", b"2", Expect::Absent)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refused, WriteOutcome::Conflict);

    // Another epoch is another owner's business.
    assert_eq!(
        store
            .write_value(effect(3, 2, put("k", b"3", Expect::Anything)))
            .await
            .unwrap(),
        Err(Fenced)
    );
    assert_eq!(store.read_value(&value_key("k")).await.unwrap(), None);
    let from = row(&store, id).await.configuration;
    let swap = Swap {
        id,
        to: Configuration {
            epoch: 2,
            ..from.clone()
        },
        from,
        new_incarnation: false,
    };
    assert_eq!(store.swap_owner(&swap).await.unwrap(), Cas::Done);
    assert_eq!(
        store
            .write_value(effect(3, 1, put("k", b"3", Expect::Anything)))
            .await
            .unwrap(),
        Err(Fenced)
    );
    // The new owner sends what the old one may have sent already.
    let again = store
        .write_value(effect(1, 2, put("k", b"1", Expect::Anything)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again, first);
}

async fn ended_matches_are_forgotten_in_time(place: &Place) {
    let store = place.open().await;
    let live = store.create_match(new_match()).await.unwrap().id;
    let over = store.create_match(new_match()).await.unwrap().id;
    store.finish_match(end_of(over, 1)).await.unwrap();
    assert_eq!(store.sweep_matches(60_000, 10).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(store.sweep_matches(0, 10).await.unwrap(), 1);
    assert_eq!(store.read_match(over).await.unwrap(), None);
    assert!(store.read_match(live).await.unwrap().is_some());
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
