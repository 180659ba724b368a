//! Names are found from every node, and however many look for the same match at once, on whichever nodes, they find one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rookery_tests::harness::{Builder, Client, Encoding, Refused, TestCluster, eventually, lobby};
use serde_json::{Value, json};
use sqlx::Connection as _;

const NODES: usize = 3;
const NAMES: usize = 50;
const CALLS: usize = 2_000;
const ASKED_AGAIN_MAX: usize = 20;
/// A database that is busy with these calls is not asked faster for their sake.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(500);

fn builder() -> Builder {
    TestCluster::builder(NODES).set("limits.control", "10000/s burst 10000")
}

async fn publish(cluster: &TestCluster) {
    cluster.ops(0).publish(lobby()).await;
    let client = cluster.node(NODES - 1).guest(Encoding::Json).await;
    eventually("every node can create it", async || {
        client
            .create_with(json!({"module": "lobby", "private": true}))
            .await
            .is_ok()
    })
    .await;
    drop(client);
}

/// Makes all calls at once from sessions on all nodes, and returns which matches were found under each name.
async fn all_at_once<F>(
    cluster: &TestCluster,
    call: impl Fn(Arc<Client>, String) -> F + Copy + Send + 'static,
) -> BTreeMap<String, BTreeSet<String>>
where
    F: Future<Output = Result<Value, Refused>> + Send + 'static,
{
    // Each session asks for every name at once: fifty requests, of which a node lets 64 wait.
    let mut clients = Vec::new();
    for index in 0..CALLS / NAMES {
        let encoding = [Encoding::Json, Encoding::MsgPack][index % 2];
        clients.push(Arc::new(cluster.node(index % NODES).guest(encoding).await));
    }
    let mut calling = tokio::task::JoinSet::new();
    let began = Instant::now();
    let asked_again = Arc::new(AtomicUsize::new(0));
    for number in 0..CALLS {
        let name = format!("room-{}", number % NAMES);
        let client = Arc::clone(&clients[number / NAMES]);
        let asked_again = Arc::clone(&asked_again);
        calling.spawn(async move {
            // `unavailable` says to ask again: a busy database may have been too late with an answer.
            for _ in 0..ASKED_AGAIN_MAX {
                match call(Arc::clone(&client), name.clone()).await {
                    Err(error) if error.code == "unavailable" => {
                        asked_again.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(ASKED_AGAIN_AFTER).await;
                    }
                    answer => return (name, answer),
                }
            }
            let answer = call(client, name.clone()).await;
            (name, answer)
        });
    }
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for (name, answer) in calling.join_all().await {
        match answer {
            Ok(joined) => {
                let game_match = joined["match"].as_str().expect("an id").to_owned();
                found.entry(name).or_default().insert(game_match);
            }
            Err(error) => *refused.entry(format!("{}: {}", error.code, error.message)).or_default() += 1,
        }
    }
    let asked_again = asked_again.load(Ordering::Relaxed);
    println!(
        "{CALLS} calls in {:?}, asked again {asked_again} times",
        began.elapsed()
    );
    assert!(refused.is_empty(), "{refused:?}");
    found
}

/// Every name led to one match, and there are no others.
async fn check(cluster: &TestCluster, found: &BTreeMap<String, BTreeSet<String>>) {
    assert_eq!(found.len(), NAMES);
    assert!(found.values().all(|matches| matches.len() == 1), "{found:?}");
    let expected: BTreeSet<&str> = found.values().flatten().map(String::as_str).collect();
    assert_eq!(expected.len(), NAMES);
    let client = cluster.node(0).guest(Encoding::Json).await;
    let listed = client
        .ask("match.list", json!({"module": "lobby", "limit": 500}))
        .await
        .unwrap();
    let listed: BTreeSet<&str> = listed["matches"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|listed| listed["match"].as_str().expect("an id"))
        .collect();
    assert_eq!(listed, expected);
}

/// Creates the name's match, or joins the one that has it.
async fn create_or_join(client: Arc<Client>, name: String) -> Result<Value, Refused> {
    match client.create_with(json!({"module": "lobby", "name": name})).await {
        Ok(game_match) => client.join(&game_match).await,
        Err(refused) if refused.code == "name.taken" => client.join(&name).await,
        Err(refused) => Err(refused),
    }
}

async fn quick(client: Arc<Client>, name: String) -> Result<Value, Refused> {
    let fields = json!({"module": "lobby", "label": {"room": name}, "params": {"room": name}});
    client.ask("match.quick", fields).await
}

async fn two_thousand_calls_on_fifty_names_make_fifty_matches(builder: Builder) {
    let cluster = builder.start().await;
    publish(&cluster).await;
    let found = all_at_once(&cluster, create_or_join).await;
    check(&cluster, &found).await;
}

async fn two_thousand_quick_calls_for_fifty_labels_make_fifty_matches(builder: Builder) {
    let cluster = builder.start().await;
    publish(&cluster).await;
    let found = all_at_once(&cluster, quick).await;
    check(&cluster, &found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_calls_on_fifty_names_make_fifty_matches_on_sqlite() {
    two_thousand_calls_on_fifty_names_make_fifty_matches(builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_calls_on_fifty_names_make_fifty_matches_on_postgres() {
    if let Some(builder) = builder().postgres() {
        two_thousand_calls_on_fifty_names_make_fifty_matches(builder).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_quick_calls_make_fifty_matches_on_sqlite() {
    two_thousand_quick_calls_for_fifty_labels_make_fifty_matches(builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_quick_calls_make_fifty_matches_on_postgres() {
    if let Some(builder) = builder().postgres() {
        two_thousand_quick_calls_for_fifty_labels_make_fifty_matches(builder).await;
    }
}

/// On which the store says `running` of a match after its deadline of 3 s, but does: each statement stays below the server's own 2 s.
const SLOW: &str = "
    create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(1.7); return new; end $$;
    create trigger slow before update on matches for each row
        when (old.status = 'starting' and new.status = 'running') execute function slow();
    create constraint trigger slow_to_commit after update on matches deferrable initially deferred for each row
        when (old.status = 'starting' and new.status = 'running') execute function slow();";

#[tokio::test(flavor = "multi_thread")]
async fn a_match_of_which_the_store_says_too_late_that_it_runs_is_played() {
    let Some(builder) = TestCluster::builder(NODES).postgres() else {
        return;
    };
    let cluster = builder.start().await;
    publish(&cluster).await;
    let mut store = sqlx::PgConnection::connect(cluster.store_url()).await.unwrap();
    sqlx::raw_sql(SLOW).execute(&mut store).await.unwrap();
    let mut players = Vec::new();
    for index in 0..NODES {
        players.push(Arc::new(cluster.node(index).guest(Encoding::Json).await));
    }
    let refused = quick(Arc::clone(&players[0]), "late".into()).await.unwrap_err();
    assert_eq!(refused.code, "unavailable");
    let mut found = BTreeSet::new();
    for player in players {
        eventually("the match plays", async || {
            match quick(Arc::clone(&player), "late".into()).await {
                Ok(joined) => {
                    found.insert(joined["match"].as_str().unwrap().to_owned());
                    true
                }
                Err(refused) => {
                    assert_eq!(refused.code, "unavailable");
                    false
                }
            }
        })
        .await;
    }
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_leads_to_its_match_from_every_node_and_then_to_the_next_one() {
    let cluster = TestCluster::builder(NODES)
        .set("matches.empty_after", "500ms")
        .start()
        .await;
    publish(&cluster).await;
    for (encoding, other) in [(Encoding::Json, Encoding::MsgPack), (Encoding::MsgPack, Encoding::Json)] {
        let ana = cluster.node(0).guest(encoding).await;
        let fields = json!({"module": "lobby", "name": "square"});
        let first = ana.create_with(fields.clone()).await.unwrap();
        let mut players = Vec::new();
        for index in 0..NODES {
            let player = cluster.node(index).guest(other).await;
            assert_eq!(player.join("square").await.unwrap()["match"], first.as_str());
            players.push(player);
        }
        let taken = players[1].create_with(fields.clone()).await.unwrap_err();
        assert_eq!(
            (taken.code.as_str(), &taken.details["match"]),
            ("name.taken", &json!(first))
        );
        let none = players[2].join("circle").await.unwrap_err();
        assert_eq!(none.code, "match.not_found");

        // The match ends when all have left; the name passes on to the next one, at once and everywhere.
        for player in &players {
            player.ask("match.leave", json!({"match": first})).await.unwrap();
        }
        let mut second = String::new();
        eventually("the name is free", async || {
            match ana.create_with(fields.clone()).await {
                Ok(game_match) => {
                    second = game_match;
                    true
                }
                Err(refused) => {
                    assert_eq!(refused.code, "name.taken");
                    false
                }
            }
        })
        .await;
        for player in &players {
            assert_eq!(player.join("square").await.unwrap()["match"], second.as_str());
        }
        for player in &players {
            player.ask("match.leave", json!({"match": second})).await.unwrap();
        }
        eventually("the match is over", async || {
            cluster.ops(1).match_view(&second).await["status"] == "ended"
        })
        .await;
        assert_eq!(ana.join("square").await.unwrap_err().code, "match.not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn matches_are_found_through_the_directory() {
    let cluster = TestCluster::start(NODES).await;
    publish(&cluster).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let mut matches = Vec::new();
    for number in 0..12 {
        let name = format!("room-{number}");
        matches.push((
            ana.create_with(json!({"module": "lobby", "name": name})).await.unwrap(),
            name,
        ));
    }
    // Every match and name at two homes, and the player.
    let entries = 2 * (2 * matches.len() + 1);
    eventually("everything is registered", async || {
        let mut kept = 0.0;
        for index in 0..NODES {
            kept += cluster.ops(index).metric("rookery_directory_entries").await.unwrap();
        }
        kept >= entries as f64
    })
    .await;
    let hits = async |index: usize| {
        let sample = "rookery_directory_lookups_total{answer=\"hit\"}";
        cluster.ops(index).metric(sample).await.unwrap()
    };
    for index in 0..NODES {
        let before = hits(index).await;
        let player = cluster.node(index).guest(Encoding::MsgPack).await;
        for (game_match, name) in &matches {
            assert_eq!(player.join(name).await.unwrap()["match"], game_match.as_str());
        }
        assert_eq!(hits(index).await - before, matches.len() as f64, "every name was known");
        let again = cluster.node(index).guest(Encoding::Json).await;
        for (game_match, _) in &matches {
            assert_eq!(again.join(game_match).await.unwrap()["match"], game_match.as_str());
        }
    }
}
