//! Matches of durability `stored`: they come back with what was saved when their nodes are gone, each once, and their players are
//! told from where they go on. The ledger (tests/guests/ledger) counts what happens to it.

use std::time::Duration;

use rookery_tests::harness::{Client, Encoding, TestCluster, eventually, ledger, until, until_within};
use serde_json::{Value, json};
use tokio::time::Instant;

/// The lease of a dead owner (10 s), a look for matches without an owner, the restore, and slow test machines.
const BACK_WITHIN: Duration = Duration::from_secs(20);

async fn ledger_cluster(nodes: usize) -> TestCluster {
    let cluster = TestCluster::start(nodes).await;
    cluster.ops(0).publish(ledger()).await;
    cluster
}

/// A ledger on the node with this index.
async fn ledger_on(cluster: &TestCluster, player: &Client, index: usize) -> String {
    let ops = cluster.ops(0);
    until("a ledger is placed there", async || {
        let game_match = player.create("ledger").await;
        (ops.match_view(&game_match).await["owner"] == cluster.node(index).name()).then_some(game_match)
    })
    .await
}

/// Adds to the sum by input `n`, and waits until everyone was told.
async fn add(player: &Client, game_match: &str, n: u64, amount: i64) -> Value {
    player.send(game_match, n, json!({"add": amount})).await;
    let told = player
        .push_where("the sum", |push| {
            push["type"] == "match.data" && push["match"] == game_match && push["data"]["sum"].is_number()
        })
        .await;
    told["data"].clone()
}

/// The next view that a seat is sent when it missed something.
async fn view(player: &Client, game_match: &str) -> Value {
    let push = player
        .push_where("the full view", |push| {
            push["match"] == game_match && push["data"]["view"].is_object()
        })
        .await;
    push["data"]["view"].clone()
}

/// Waits until the state that is in the store is this young: what is older than one interval is in it.
async fn saved_after(cluster: &TestCluster, index: usize, saves: f64) {
    let ops = cluster.ops(index);
    eventually("the match is saved", async || {
        ops.metric("rookery_match_saves_total{outcome=\"written\"}")
            .await
            .unwrap_or(0.0)
            >= saves
    })
    .await;
}

async fn saves(cluster: &TestCluster, index: usize) -> f64 {
    let ops = cluster.ops(index);
    let saves = ops.metric("rookery_match_saves_total{outcome=\"written\"}").await;
    saves.expect("the metric is there from the start")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_match_comes_back_elsewhere_and_its_players_go_on_from_what_was_saved() {
    let mut cluster = ledger_cluster(3).await;
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let (ana, ben) = (
            cluster.node(0).guest(encoding).await,
            cluster.node(1).guest(encoding).await,
        );
        let game_match = ledger_on(&cluster, &ana, 2).await;
        let seat = ana.join(&game_match).await.unwrap()["seat"].clone();
        let bens = ben.join(&game_match).await.unwrap()["seat"].clone();
        for n in 1..=5 {
            add(&ana, &game_match, n, 10).await;
        }
        // Two more saves begin after the last input: the ledger ticks all the time, so there is always something to save.
        let before = saves(&cluster, 2).await;
        saved_after(&cluster, 2, before + 2.0).await;
        let epoch = cluster.ops(0).match_view(&game_match).await["epoch"].as_u64().unwrap();

        cluster.node_mut(2).kill();
        let killed = Instant::now();
        let waiting = ana.push_of("match.waiting").await;
        assert_eq!(
            (&waiting["match"], &waiting["why"]),
            (&json!(game_match), &json!("owner"))
        );
        let reset = ana.push_of("match.reset").await;
        assert!(killed.elapsed() < BACK_WITHIN, "it took {:?}", killed.elapsed());
        assert_eq!(reset["n"], 5, "all inputs were saved");
        assert!(reset["seq"].as_u64().unwrap() > 1 << 40, "a new incarnation: {reset}");
        let seen = view(&ana, &game_match).await;
        assert_eq!((&seen["sum"], &seen["resumed"]), (&json!(50), &json!(["restored"])));
        assert_eq!(ben.push_of("match.reset").await["n"], 0);

        // Both go on in the seats that they had.
        assert_eq!(
            add(&ana, &game_match, 6, 1).await,
            json!({"sum": 51, "adds": 6, "by": seat})
        );
        let heard = ben.push_where("ana's step", |push| push["data"]["sum"] == 51).await;
        assert!(heard["seq"].as_u64() > reset["seq"].as_u64());
        assert_eq!(add(&ben, &game_match, 1, 1).await["by"], bens);

        let shown = cluster.ops(1).match_view(&game_match).await;
        assert_ne!(shown["owner"], cluster.node(2).name());
        assert!(shown["epoch"].as_u64().unwrap() > epoch);
        cluster.restart(2).await;
        cluster.settled().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_may_stop_and_start_and_stored_matches_are_there_again() {
    let mut cluster = ledger_cluster(2).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let (here, there) = (ledger_on(&cluster, &ana, 0).await, ledger_on(&cluster, &ana, 1).await);
    for game_match in [&here, &there] {
        ana.join(game_match).await.unwrap();
        add(&ana, game_match, 1, 42).await;
    }
    // A clean end saves a last time: nothing at all is missing.
    for index in 0..2 {
        cluster.node_mut(index).terminate();
    }
    for index in 0..2 {
        cluster.node_mut(index).exited(Duration::from_secs(25)).await;
    }
    cluster.restart(0).await;
    cluster.restart(1).await;
    cluster.settled().await;
    let bob = cluster.node(0).guest(Encoding::MsgPack).await;
    for game_match in [&here, &there] {
        let ops = cluster.ops(1);
        until_within(BACK_WITHIN, "the match runs again", async || {
            (ops.match_view(game_match).await["status"] == "running").then_some(())
        })
        .await;
        bob.join(game_match).await.unwrap();
        assert_eq!(add(&bob, game_match, 1, 1).await["sum"], 43);
    }
}
