//! Queues and parties over the whole cluster: whoever queues on whichever node, in whichever encoding, is matched once, is told
//! once on each connection, and is not forgotten when a node dies.

use rookery_tests::harness::{Builder, Client, Encoding, TestCluster, eventually};
use serde_json::{Value, json};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];

/// Nodes with a queue of duels.
fn duels(nodes: usize) -> Builder {
    TestCluster::builder(nodes)
        .set("queues.duel.module", "duel")
        .set("queues.duel.match_on", "mode")
}

async fn queue(client: &Client, queue: &str, properties: Value) -> String {
    let joined = client
        .ask("queue.join", json!({"queue": queue, "properties": properties}))
        .await;
    joined.unwrap()["ticket"].as_str().unwrap().to_owned()
}

async fn refused(client: &Client, kind: &str, fields: Value) -> String {
    client.ask(kind, fields).await.unwrap_err().code
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_queue_on_different_nodes_meet() {
    meet(duels(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_queue_on_different_nodes_meet_on_postgresql() {
    if let Some(builder) = duels(2).postgres() {
        meet(builder).await;
    }
}

async fn meet(builder: Builder) {
    let cluster = builder.start().await;
    cluster.publish("duel").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let tickets = [
        queue(&ana, "duel", json!({"mode": "ranked"})).await,
        queue(&ben, "duel", json!({"mode": "ranked"})).await,
    ];
    let mut heard = Vec::new();
    for (client, ticket) in [&ana, &ben].into_iter().zip(&tickets) {
        let matched = client.push_of("queue.matched").await;
        assert_eq!(&matched["ticket"], ticket);
        let mut players: Vec<&str> = matched["players"]
            .as_array()
            .unwrap()
            .iter()
            .map(|player| player["player"].as_str().unwrap())
            .collect();
        players.sort_unstable();
        let mut expected = [ana.player(), ben.player()];
        expected.sort_unstable();
        assert_eq!(players, expected);
        heard.push(matched["match"].as_str().unwrap().to_owned());
    }
    assert_eq!(heard[0], heard[1]);
    for client in [&ana, &ben] {
        let joined = client.join(&heard[0]).await.unwrap();
        assert_eq!(joined["module"], "duel");
    }
    let begin = ana
        .push_where("the duel begins", |push| push["data"]["event"] == "begin")
        .await;
    assert_eq!(begin["match"], heard[0]);
    for (client, ticket) in [&ana, &ben].into_iter().zip(&tickets) {
        let used = async || {
            client
                .ask("queue.status", json!({"ticket": ticket}))
                .await
                .is_err_and(|refused| refused.code == "queue.unknown")
        };
        eventually("the ticket has done its work", used).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_queues_is_answered_or_refused_in_both_encodings() {
    let cluster = duels(2)
        .set("queues.duel.skill.property", "skill")
        .set("queues.duel.skill.window", 100)
        .set("queues.small.module", "duel")
        .set("queues.small.max_waiting", 1)
        .set("queues.none.module", "not-published")
        .start()
        .await;
    cluster.publish("duel").await;
    for encoding in BOTH {
        let ana = cluster.node(0).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let mode = format!("{encoding:?}");
        let ticket = queue(&ana, "duel", json!({"mode": mode, "skill": 1})).await;
        let state = ana.ask("queue.status", json!({"ticket": ticket})).await.unwrap();
        assert_eq!(
            (&state["type"], &state["state"]),
            (&json!("queue.state"), &json!("waiting"))
        );
        assert_eq!((&state["queue"], state["waited_ms"].is_u64()), (&json!("duel"), true));
        let again = ana.ask("queue.join", json!({"queue": "duel"})).await.unwrap_err();
        assert_eq!(
            (again.code.as_str(), &again.details["ticket"]),
            ("queue.already_waiting", &json!(ticket))
        );
        assert_eq!(
            refused(&ana, "queue.join", json!({"queue": "nowhere"})).await,
            "queue.unknown"
        );
        assert_eq!(
            refused(&ana, "queue.join", json!({"queue": "none"})).await,
            "module.not_found"
        );
        for (field, value) in [
            ("properties", json!({"skill": "high"})),
            ("query", json!({"skill": {"most": 1}})),
            ("properties", json!([1])),
            ("properties", json!({"long": "x".repeat(5_000)})),
        ] {
            let asked = json!({"queue": "duel", field: value});
            assert_eq!(refused(&ben, "queue.join", asked).await, "bad_message");
        }
        assert_eq!(
            refused(&ben, "queue.join", json!({"queue": "duel", "party": "NONE"})).await,
            "party.not_found"
        );
        // Others' tickets are nobody's business.
        for kind in ["queue.status", "queue.leave"] {
            assert_eq!(refused(&ben, kind, json!({"ticket": ticket})).await, "queue.unknown");
            assert_eq!(refused(&ben, kind, json!({"ticket": "no id"})).await, "queue.unknown");
        }
        let left = ana.ask("queue.leave", json!({"ticket": ticket})).await.unwrap();
        assert_eq!((&left["type"], &left["ticket"]), (&json!("queue.left"), &json!(ticket)));
        assert_eq!(
            refused(&ana, "queue.status", json!({"ticket": ticket})).await,
            "queue.unknown"
        );
        let only = queue(&ana, "small", json!({})).await;
        assert_eq!(
            refused(&ben, "queue.join", json!({"queue": "small"})).await,
            "queue.full"
        );
        ana.ask("queue.leave", json!({"ticket": only})).await.unwrap();
    }
}
