//! Matches that are over stay findable: by id, by player, by module, with what came of them.

use rookery_tests::harness::{Builder, Client, Encoding, TestCluster, eventually, hostile, ledger};
use serde_json::{Value, json};

/// All records that fit, over pages of two.
async fn records(cluster: &TestCluster, node: usize, filter: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/records?limit=2{filter}{cursor}");
        let (status, page) = cluster.ops(node).get(&path).await;
        assert_eq!(status, 200, "{path}: {page}");
        all.extend(page["records"].as_array().expect("a list").iter().cloned());
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn of<'a>(records: &'a [Value], target: &str) -> Option<&'a Value> {
    records.iter().find(|record| record["match"] == target)
}

/// Waits until a match is a record that names these players, and returns it.
async fn recorded(cluster: &TestCluster, node: usize, target: &str, players: &[&Client]) -> Value {
    let mut players: Vec<&str> = players.iter().map(|client| client.player()).collect();
    players.sort_unstable();
    let mut last = Value::Null;
    eventually("the match is a record with its players", async || {
        let all = records(cluster, node, &format!("&player={}", players[0])).await;
        last = of(&all, target).cloned().unwrap_or_default();
        last["players"] == json!(players)
    })
    .await;
    last
}

async fn check_records(mut cluster: TestCluster) {
    cluster.publish("duel").await;
    cluster.publish("echo").await;
    cluster.ops(0).publish(hostile()).await;
    cluster.ops(0).publish(ledger()).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(0).guest(Encoding::MsgPack).await;
    let eve = cluster.node(0).guest(Encoding::Json).await;
    assert!(records(&cluster, 1, "").await.is_empty());

    // Lost: the node that has it dies.
    let on_second = async || loop {
        let target = ana.create("echo").await;
        if cluster.ops(0).match_view(&target).await["owner"] == "node-2" {
            break target;
        }
    };
    let (lost, beside) = (on_second().await, on_second().await);
    ana.join(&lost).await.unwrap();
    ben.join(&lost).await.unwrap();

    // Ended: the match says what came of it.
    let ended = ana.create("duel").await;
    ana.join(&ended).await.unwrap();
    ben.join(&ended).await.unwrap();
    // Who watches does not play.
    let watching = json!({"match": ended, "role": "spectator"});
    eve.ask("match.join", watching).await.unwrap();
    ben.ask("match.leave", json!({"match": ended})).await.unwrap();
    let told = ana.push_of("match.ended").await["result"].clone();
    let record = recorded(&cluster, 1, &ended, &[&ana, &ben]).await;
    assert_eq!(
        (&record["status"], &record["module"]),
        (&json!("ended"), &json!("duel")),
        "{record}"
    );
    assert_eq!(
        (&record["outcome"], &record["outcome"]["why"]),
        (&told, &json!("left")),
        "{record}"
    );
    let at = |field: &str| record[field].as_u64().unwrap_or_else(|| panic!("{field} in {record}"));
    assert!(
        at("created_at") <= at("started_at") && at("started_at") <= at("ended_at"),
        "{record}"
    );
    let view = cluster.ops(1).match_view(&ended).await;
    assert_eq!((&view["status"], &view["record"]), (&json!("ended"), &record), "{view}");

    // Failed: its logic was cut off again and again.
    let failed = ana.create("hostile").await;
    ana.join(&failed).await.unwrap();
    for n in 1..=50 {
        ana.send(&failed, n, json!({"do": "trap"})).await;
    }
    ana.push_of("match.failed").await;
    let record = recorded(&cluster, 1, &failed, &[&ana]).await;
    assert_eq!(
        (&record["status"], &record["reason"]),
        (&json!("failed"), &json!("trap")),
        "{record}"
    );

    // Of a match that is stored, the last state is kept with its record.
    let stored = ana.create("ledger").await;
    ana.join(&stored).await.unwrap();
    ana.send(&stored, 1, json!({"add": 5})).await;
    let saves = async || {
        let mut saves = 0.0;
        for node in cluster.nodes() {
            let written = node
                .ops()
                .metric("rookery_match_saves_total{outcome=\"written\"}")
                .await;
            saves += written.unwrap_or_default();
        }
        saves
    };
    let before = saves().await;
    // The one under way may be of the time before the sum.
    eventually("the sum is saved", async || saves().await >= before + 2.0).await;
    ana.send(&stored, 2, json!({"finish": true})).await;
    recorded(&cluster, 1, &stored, &[&ana]).await;
    let view = cluster.ops(1).match_view(&stored).await;
    let saved = &view["saved"];
    assert_eq!(
        (&view["status"], &saved["state"]["sum"]),
        (&json!("ended"), &json!(5)),
        "{view}"
    );
    assert!(
        saved["event"].as_u64() > Some(2) && saved["bytes"].as_u64() > Some(10),
        "{view}"
    );

    // With the end of a match everybody is written who sat down on its node before.
    ana.join(&beside).await.unwrap();
    let (status, answer) = cluster
        .ops(0)
        .post(&format!("/v1/matches/{beside}/end"), json!({}))
        .await;
    assert_eq!(status, 200, "{answer}");
    recorded(&cluster, 0, &beside, &[&ana]).await;
    cluster.node_mut(1).kill();
    ana.push_of("match.lost").await;
    let record = recorded(&cluster, 0, &lost, &[&ana, &ben]).await;
    assert_eq!(record["status"], "lost", "{record}");

    // Newest first, and each filter on its own and together.
    let all = records(&cluster, 0, "").await;
    let ends: Vec<u64> = all.iter().filter_map(|record| record["ended_at"].as_u64()).collect();
    assert!(ends.is_sorted_by(|a, b| a >= b), "{ends:?}");
    assert!(of(&all, &ended).is_some() && of(&all, &failed).is_some() && of(&all, &lost).is_some());
    let of_ben = records(&cluster, 0, &format!("&player={}", ben.player())).await;
    assert!(of(&of_ben, &failed).is_none() && of(&of_ben, &ended).is_some());
    let duels = records(&cluster, 0, &format!("&player={}&module=duel", ben.player())).await;
    assert_eq!(duels.len(), 1, "{duels:?}");
    assert!(
        records(&cluster, 0, &format!("&player={}", eve.player()))
            .await
            .is_empty()
    );
    assert!(records(&cluster, 0, "&module=nothing").await.is_empty());
    for wrong in [
        "player=nobody",
        "cursor=nowhere",
        "cursor=99999999999999999999.x",
        "module=%00",
        "limit=x",
    ] {
        let (status, body) = cluster.ops(0).get(&format!("/v1/records?{wrong}")).await;
        assert_eq!((status, &body["code"]), (400, &json!("bad_message")), "{wrong}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn matches_that_are_over_are_found_by_player_and_module_with_what_came_of_them() {
    check_records(Builder::new(2).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matches_that_are_over_are_found_by_player_and_module_with_what_came_of_them_with_postgres() {
    if let Some(builder) = Builder::new(2).postgres() {
        check_records(builder.start().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_forgotten_when_its_time_has_passed() {
    let cluster = Builder::new(1).set("matches.records_for", "2s").start().await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let target = ana.create("echo").await;
    ana.join(&target).await.unwrap();
    let (status, _) = cluster
        .ops(0)
        .post(&format!("/v1/matches/{target}/end"), json!({}))
        .await;
    assert_eq!(status, 200);
    recorded(&cluster, 0, &target, &[&ana]).await;
    eventually("the record is forgotten", async || {
        cluster.ops(0).get(&format!("/v1/matches/{target}")).await.0 == 404
    })
    .await;
    assert!(records(&cluster, 0, "").await.is_empty());
}
