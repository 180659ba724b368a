//! The example village on real nodes: what its players carry goes with them from zone to zone, and nobody makes things up.

use rookery_tests::harness::{Client, Encoding, TestCluster, eventually};
use serde_json::{Value, json};

/// Enters the village; the answer, and the first view that follows.
async fn enter(client: &Client, fields: Value) -> (Value, Value) {
    let joined = client.ask("world.enter", fields).await.expect("the village is online");
    let view = view_where(client, |_| true).await;
    (joined, view)
}

async fn view_where(client: &Client, fits: impl Fn(&Value) -> bool) -> Value {
    let is_view = |push: &Value| push["type"] == "match.data" && push["key"] == "view" && fits(&push["data"]);
    client.push_where("a view", is_view).await["data"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_carries_a_thing_to_a_zone_of_another_node_and_a_client_cannot_claim_to() {
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let cluster = TestCluster::builder(2)
            .set("worlds.village.zones.square", "village")
            .set("worlds.village.zones.chapel", "village")
            .start()
            .await;
        cluster.publish("village").await;
        let ops = cluster.ops(0);
        eventually("the village is online", async || {
            ops.get("/v1/worlds").await.1["worlds"][0]["online"] == json!(true)
        })
        .await;
        let world = ops.get("/v1/worlds").await.1["worlds"][0].clone();
        assert_ne!(world["zones"][0]["owner"], world["zones"][1]["owner"], "{world}");

        let ana = cluster.node(0).guest(encoding).await;
        let (joined, view) = enter(&ana, json!({"world": "village", "zone": "square"})).await;
        assert_eq!((&view["zone"], &view["carried"]), (&json!("square"), &json!([])));
        let square = joined["match"].as_str().expect("a match").to_owned();
        ana.send(&square, 1, json!("get coin")).await;
        ana.send(&square, 2, json!("go north")).await;
        let moved = ana.push_of("match.moved").await;
        assert_eq!(moved["match"], json!(square));
        let view = view_where(&ana, |view| view["zone"] == "chapel").await;
        assert_eq!(view["carried"][0]["id"], "coin", "{view}");

        let forged = json!({
            "from": {"zone": "square", "room": "green"}, "to": {"zone": "chapel", "room": "nave"}, "carried": ["crown"],
        });
        let eve = cluster.node(1).guest(encoding).await;
        let (_, view) = enter(&eve, json!({"world": "village", "zone": "chapel", "ctx": forged})).await;
        assert_eq!(
            (&view["carried"], &view["room"]),
            (&json!([]), &json!("yard")),
            "{view}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_of_any_name_comes_online() {
    let cluster = TestCluster::builder(1)
        .set("worlds.village.zones.square", "village")
        .set("worlds.village.zones.well", "village")
        .start()
        .await;
    cluster.publish("village").await;
    let ops = cluster.ops(0);
    eventually("the village is online", async || {
        ops.get("/v1/worlds").await.1["worlds"][0]["online"] == json!(true)
    })
    .await;
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let ana = cluster.node(0).guest(encoding).await;
        let (joined, view) = enter(&ana, json!({"world": "village", "zone": "well"})).await;
        assert_eq!(view["exits"][0]["zone"], "square", "{view}");
        let well = joined["match"].as_str().expect("a match").to_owned();
        ana.send(&well, 1, json!("go back")).await;
        assert_eq!(ana.push_of("match.moved").await["match"], json!(well));
        assert_eq!(view_where(&ana, |_| true).await["zone"], "square");
    }
}
