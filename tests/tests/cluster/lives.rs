//! Nodes that come back, leave in order, or stand still: what the others see, and what becomes of their matches.

use std::time::Duration;

use rookery_tests::harness::{Client, Encoding, TestCluster, eventually, until};
use serde_json::json;

/// SIGTERM ends a node within its drain deadline, and a node with nothing to hand over at once.
const ENDS_WITHIN: Duration = Duration::from_secs(25);

/// A match on the node with this index.
async fn match_on(cluster: &TestCluster, player: &Client, index: usize) -> String {
    let ops = cluster.ops(0);
    until("a match is placed there", async || {
        let game_match = player.create("echo").await;
        (ops.match_view(&game_match).await["owner"] == cluster.node(index).name()).then_some(game_match)
    })
    .await
}

async fn generation(cluster: &TestCluster, index: usize) -> u64 {
    let (_, view) = cluster.ops(0).get("/v1/cluster").await;
    let nodes = view["nodes"].as_array().unwrap();
    let node = nodes
        .iter()
        .find(|node| node["name"] == cluster.node(index).name())
        .unwrap();
    node["generation"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_and_started_again_is_a_new_life_whose_old_matches_are_lost() {
    let mut cluster = TestCluster::start(3).await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let game_match = match_on(&cluster, &ana, 2).await;
    ana.join(&game_match).await.unwrap();
    let before = generation(&cluster, 2).await;

    cluster.node_mut(2).kill();
    cluster.restart(2).await;
    assert_eq!(ana.push_of("match.lost").await["match"], game_match.as_str());
    cluster.settled().await;
    assert!(generation(&cluster, 2).await > before);

    // The new life takes part: it owns matches, and its players reach those of others.
    let ben = cluster.node(2).guest(Encoding::MsgPack).await;
    for owner in 0..3 {
        let game_match = match_on(&cluster, &ana, owner).await;
        ana.join(&game_match).await.unwrap();
        ben.join(&game_match).await.unwrap();
        ben.send(&game_match, 1, json!({"all": owner})).await;
        assert_eq!(ana.push_of("match.data").await["data"], json!({"all": owner}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_end_leaves_without_being_suspected() {
    let mut cluster = TestCluster::builder(3).set("drain.deadline", "3s").start().await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let game_match = match_on(&cluster, &ana, 1).await;
    ana.join(&game_match).await.unwrap();

    cluster.node_mut(1).terminate();
    assert_eq!(cluster.node_mut(1).exited(ENDS_WITHIN).await.code(), Some(0));
    let failed = ana.push_of("match.failed").await;
    assert_eq!(
        (&failed["match"], &failed["reason"]),
        (&json!(game_match), &json!("draining"))
    );
    let (one, other) = (cluster.ops(0), cluster.ops(2));
    eventually("the others are two", async || {
        one.members("ready").await == ["node-1", "node-3"] && other.members("ready").await == ["node-1", "node-3"]
    })
    .await;
    for ops in [one, other] {
        assert_eq!(ops.metric("rookery_suspicions_total").await, Some(0.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_with_one_seed_meets_everybody_and_serves_at_once() {
    let cluster = TestCluster::start(3).await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let game_match = match_on(&cluster, &ana, 2).await;
    ana.join(&game_match).await.unwrap();
    let mut newcomer = cluster.newcomer("node-4").spawn();
    newcomer.ready().await;
    let ops = newcomer.ops();
    let all = ["node-1", "node-2", "node-3", "node-4"];
    eventually("it sees everybody", async || ops.members("ready").await == all).await;
    for index in 0..3 {
        let ops = cluster.ops(index);
        eventually("everybody sees it", async || ops.members("ready").await == all).await;
    }
    let ben = newcomer.guest(Encoding::MsgPack).await;
    ben.join(&game_match).await.unwrap();
    ben.send(&game_match, 1, json!("all: hello")).await;
    assert_eq!(ana.push_of("match.data").await["data"], "all: hello");
}
