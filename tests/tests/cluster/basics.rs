//! The harness itself, and the plainest use of a cluster: an echo that crosses nodes.

use rookery_tests::harness::{Builder, Encoding, TestCluster};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn players_on_two_nodes_hear_each_other_in_both_encodings() {
    hear_each_other(TestCluster::builder(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn players_on_two_nodes_hear_each_other_on_postgresql() {
    if let Some(builder) = TestCluster::builder(2).postgres() {
        hear_each_other(builder).await;
    }
}

async fn hear_each_other(builder: Builder) {
    let cluster = builder.start().await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let game_match = ana.create("echo").await;
    ana.join(&game_match).await.unwrap();
    ben.join(&game_match).await.unwrap();
    ana.send(&game_match, 1, json!({"all": "from ana"})).await;
    ben.send(&game_match, 1, json!({"all": "from ben"})).await;
    for client in [&ana, &ben] {
        let mut heard = [
            client.push_of("match.data").await["data"]["all"].clone(),
            client.push_of("match.data").await["data"]["all"].clone(),
        ];
        heard.sort_by_key(|text| text.to_string());
        assert_eq!(heard, [json!("from ana"), json!("from ben")]);
    }
}
