//! The nodes of these tests do what they are told and say what they see.

use std::time::Duration;

use rookery_mesh_tests::{Answer, EventKind, MeshCluster, Order, PATIENCE, Pace, eventually};

#[tokio::test]
async fn a_mesh_node_does_what_it_is_told() {
    let mut cluster = MeshCluster::start(3, Pace::Lan).await;
    let (a, b) = (cluster.node(0), cluster.node(1));

    let groups = vec!["room".to_owned()];
    b.does(Order::Watch { groups }).await;
    let joined_us = a.join(["room", "room", "hall"]).await;
    let seen_us = b
        .until_event(PATIENCE, "b sees a in the room", joined_us, |event| match &event.kind {
            EventKind::Group { group, nodes } if group == "room" && nodes == &["n0"] => Some(event.at_us),
            _ => None,
        })
        .await;
    assert!(
        seen_us >= joined_us,
        "one clock for both: joined at {joined_us}, seen at {seen_us}"
    );
    a.leave(["room"]).await;
    assert_eq!(a.nodes("room").await, ["n0"], "one membership is left");
    a.leave(["room"]).await;
    assert!(a.nodes("room").await.is_empty());
    let refused = a
        .tell(
            Order::Leave {
                groups: vec!["room".into()],
            },
            PATIENCE,
        )
        .await
        .1;
    assert!(matches!(refused, Answer::Refused { .. }), "{refused:?}");

    b.join(["hall"]).await;
    eventually("a hears that b is in the hall", async || {
        a.nodes("hall").await == ["n0", "n1"]
    })
    .await;
    let order = Order::Broadcast {
        group: "hall".into(),
        count: 10,
        bytes: 100,
    };
    let sent = a.tell(order, PATIENCE).await.1;
    assert!(matches!(sent, Answer::Broadcast { copies: 10, refused: 0 }), "{sent:?}");
    let order = Order::Bulk {
        to: "n1".into(),
        channels: vec![0, 7],
        bytes: 1_000,
        for_ms: 200,
        bytes_per_s: Some(1_000_000),
    };
    let Answer::Bulk { messages, .. } = a.tell(order, PATIENCE).await.1 else {
        panic!("bulk is answered with what was sent");
    };
    assert!(messages > 20, "200 ms at 1 MB/s are some 200 messages, not {messages}");
    eventually("everything arrives, in order", async || {
        let received = b.report().await.received;
        let whole = |stream: &str| {
            received
                .get(stream)
                .is_some_and(|tally| tally.jumps == 0 && tally.last + 1 == tally.count)
        };
        let count = |stream: &str| received.get(stream).map_or(0, |tally| tally.count);
        whole("n0/hall")
            && count("n0/hall") == 10
            && whole("n0/0")
            && whole("n0/7")
            && count("n0/0") + count("n0/7") == messages
    })
    .await;

    let millis = Duration::from_millis;
    let tries = a.ask("n1", millis(10), millis(2_000), millis(100)).await;
    assert!(
        tries.iter().all(|one| one.generation == Some(b.generation())),
        "{tries:?}"
    );
    a.does(Order::Fact {
        key: "colour".into(),
        value: "green".into(),
    })
    .await;
    eventually("b hears the fact", async || {
        b.report().await.members["n0"].facts.get("colour").map(String::as_str) == Some("green")
    })
    .await;
    let report = b.report().await;
    assert_eq!(report.stats["control_connections"], 2);
    assert!(report.rss > 1 << 20 && report.fds > 3 && report.tasks > 3 && report.threads > 1 && report.used_us > 0);

    let first = cluster.node(2).generation();
    cluster.restart(2).await;
    assert!(cluster.node(2).generation() > first);
    cluster.settled(PATIENCE).await;
    cluster.node(2).does(Order::Goodbye).await;
    let left_us = rookery_mesh_tests::now_us();
    let gone = cluster
        .node(0)
        .until_event(PATIENCE, "a goodbye is heard", 0, |event| match &event.kind {
            EventKind::Member { node, state, .. } if node == "n2" && state.as_deref() == Some("leaving") => {
                Some(event.at_us)
            }
            _ => None,
        });
    assert!(gone.await < left_us + 10_000_000);
    eventually("the process ended", async || {
        cluster.node_mut(2).try_exited().is_some_and(|status| status.success())
    })
    .await;
}
