//! Two parts of a cluster that do not hear each other and share the store: each plays on, neither takes what the other owns, and when
//! they hear each other again every input has been applied once.

use std::time::Duration;

use rookery_tests::harness::{Client, Encoding, Network, Relays, TestCluster, eventually, ledger, until};
use serde_json::{Value, json};

/// Longer than a lease: an owner that could not renew it would have lost its match by then.
const PAST_A_LEASE: Duration = Duration::from_secs(13);

/// A ledger on the node with this index.
async fn ledger_on(cluster: &TestCluster, player: &Client, index: usize) -> String {
    let ops = cluster.ops(index);
    until("a ledger is placed there", async || {
        let game_match = player.create("ledger").await;
        (ops.match_view(&game_match).await["owner"] == cluster.node(index).name()).then_some(game_match)
    })
    .await
}

/// Waits until a player has heard these sums of these matches, in any order.
async fn hears(player: &Client, sums: &[(&String, i64)]) {
    let mut missing: Vec<_> = sums.to_vec();
    while !missing.is_empty() {
        let push = player
            .push_where(&format!("{missing:?}"), |push| push["data"].is_object())
            .await;
        let data = &push["data"];
        missing.retain(|(game_match, sum)| {
            push["match"] != **game_match || (data["sum"] != *sum && data["view"]["sum"] != *sum)
        });
    }
}

async fn owner_and_epoch(cluster: &TestCluster, game_match: &str) -> (Value, Value) {
    let shown = cluster.ops(0).match_view(game_match).await;
    (shown["owner"].clone(), shown["epoch"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sides_that_share_the_store_play_on_and_take_nothing_from_each_other() {
    let relays = Relays::start(3).await;
    let cluster = TestCluster::builder(3).on(&relays).start().await;
    cluster.ops(0).publish(ledger()).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(2).guest(Encoding::MsgPack).await;
    let (here, there) = (ledger_on(&cluster, &ana, 0).await, ledger_on(&cluster, &ana, 2).await);
    for player in [&ana, &ben] {
        for game_match in [&here, &there] {
            player.join(game_match).await.unwrap();
        }
    }
    ana.send(&here, 1, json!({"add": 1})).await;
    ben.send(&there, 1, json!({"add": 1})).await;
    for player in [&ana, &ben] {
        hears(player, &[(&here, 1), (&there, 1)]).await;
    }
    let before = [
        owner_and_epoch(&cluster, &here).await,
        owner_and_epoch(&cluster, &there).await,
    ];

    relays.partition(&[&[0, 1], &[2]]);
    // What goes to the other side waits.
    ana.send(&there, 1, json!({"add": 10})).await;
    ben.send(&here, 1, json!({"add": 10})).await;
    eventually("both sides call each other dead", async || {
        cluster.ops(0).members("dead").await == [cluster.node(2).name()]
            && cluster.ops(2).members("dead").await.len() == 2
    })
    .await;
    for (player, own) in [(&ana, &here), (&ben, &there)] {
        player.send(own, 2, json!({"add": 100})).await;
        hears(player, &[(own, 101)]).await;
    }
    tokio::time::sleep(PAST_A_LEASE).await;
    for (player, own) in [(&ana, &here), (&ben, &there)] {
        player.send(own, 3, json!({"add": 1_000})).await;
        hears(player, &[(own, 1_101)]).await;
    }
    let meanwhile = [
        owner_and_epoch(&cluster, &here).await,
        owner_and_epoch(&cluster, &there).await,
    ];
    assert_eq!(meanwhile, before, "an owner that lives keeps its match");
    assert!(relays.dropped() > 0, "the sides were cut off");

    relays.heal_all();
    cluster.settled().await;
    // Both had been given up on the other side. They are told from which input to go on, and nothing that waited is applied twice.
    for (player, other) in [(&ana, &there), (&ben, &here)] {
        let reset = player
            .push_where("where to go on", |push| {
                push["type"] == "match.reset" && push["match"] == **other
            })
            .await;
        if reset["n"] == 0 {
            player.send(other, 1, json!({"add": 10})).await;
        }
    }
    for player in [&ana, &ben] {
        hears(player, &[(&here, 1_111), (&there, 1_111)]).await;
    }
    ana.send(&there, 2, json!({"add": 10_000})).await;
    ben.send(&here, 2, json!({"add": 10_000})).await;
    for player in [&ana, &ben] {
        hears(player, &[(&here, 11_111), (&there, 11_111)]).await;
    }
    let after = [
        owner_and_epoch(&cluster, &here).await,
        owner_and_epoch(&cluster, &there).await,
    ];
    assert_eq!(after, before);
}
