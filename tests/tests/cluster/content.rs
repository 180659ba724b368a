//! Shared content: written through any node, the same on every node.

use std::time::Duration;

use rookery_tests::harness::{Builder, Encoding, Network, Ops, Relays, TestCluster, eventually, until_within};
use serde_json::{Value, json};

/// What all copies must be equal within, once every link is whole again.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// Everything that a node has: its version, and each value with its own.
async fn copy(ops: &Ops) -> Value {
    let (status, summary) = ops.get("/v1/content").await;
    assert_eq!(status, 200, "{summary}");
    let mut values = Vec::new();
    for collection in summary["collections"].as_array().expect("a list") {
        let name = collection["collection"].as_str().expect("a name");
        let mut cursor = String::new();
        loop {
            let (status, page) = ops.get(&format!("/v1/content/{name}?limit=50{cursor}")).await;
            assert_eq!(status, 200, "{page}");
            for entry in page["values"].as_array().expect("a list") {
                let key = entry["key"].as_str().expect("a key");
                let (status, item) = ops.get(&format!("/v1/content/{name}/{key}")).await;
                // Deleted since it was listed: the next look is another one.
                values.push(json!([name, key, status, item["version"], item["value"]]));
            }
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    json!({"version": summary["version"], "values": values})
}

async fn check_basics(cluster: &TestCluster) {
    let (first, second) = (cluster.ops(0), cluster.ops(1));
    let sword = "/v1/content/items/sword";
    assert_eq!(first.get(sword).await.0, 404);
    let (status, written) = first.put(sword, r#"{"damage": 3}"#).await;
    assert_eq!(status, 200, "{written}");
    // Who wrote it reads it at once from the same node, and soon from every other.
    let (status, item) = first.get(sword).await;
    assert_eq!((status, &item["value"]), (200, &json!({"damage": 3})), "{item}");
    assert_eq!(item["version"], written["version"]);
    eventually("the other node has the sword", async || {
        second.get(sword).await.1 == item
    })
    .await;

    // A write that expects another version changes nothing.
    let stale = format!("{sword}?version={}", written["version"].as_u64().unwrap() + 7);
    let (status, refused) = second.put(&stale, "1").await;
    assert_eq!(
        (status, &refused["code"]),
        (409, &json!("storage.conflict")),
        "{refused}"
    );
    assert_eq!(refused["details"]["version"], written["version"]);
    let current = format!("{sword}?version={}", written["version"]);
    let (status, newer) = second.put(&current, "not JSON").await;
    assert_eq!(status, 200, "{newer}");
    eventually("the first node has the newer one", async || {
        let (_, item) = first.get(sword).await;
        item["value"] == "not JSON" && item["version"] == newer["version"]
    })
    .await;

    // Bytes that are neither JSON nor text come back as they were.
    assert_eq!(first.put("/v1/content/pictures/a%2Fb", [0, 255, 1]).await.0, 200);
    let (_, picture) = first.get("/v1/content/pictures/a%2Fb").await;
    assert_eq!(
        (&picture["key"], &picture["value"]),
        (&json!("a/b"), &json!("AP8B")),
        "{picture}"
    );

    let (status, summary) = first.get("/v1/content").await;
    let names: Vec<_> = summary["collections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["collection"])
        .collect();
    assert_eq!((status, names), (200, vec![&json!("items"), &json!("pictures")]));

    for (path, body, status, code) in [
        ("/v1/content/it%20ems/sword", &b"1"[..], 400, "bad_message"),
        ("/v1/content/items/a%0Ab", b"1", 400, "bad_message"),
        ("/v1/content/items/big", &[b'x'; 5_000], 413, "too_large"),
    ] {
        let (found, refused) = first.put(path, body).await;
        assert_eq!((found, &refused["code"]), (status, &json!(code)), "{refused}");
    }
    // All content is limited too.
    let mut refused = Value::Null;
    for no in 0..10 {
        let (status, answer) = first.put(&format!("/v1/content/many/{no}"), vec![b'x'; 4_000]).await;
        if status != 200 {
            refused = json!([status, answer["code"], answer["details"]["limit"]]);
        }
    }
    assert_eq!(refused, json!([413, "too_large", 32 * 1024]));

    assert_eq!(second.delete(sword).await.0, 200);
    assert_eq!(second.get(sword).await.0, 404);
    assert_eq!(second.delete(sword).await.1["code"], "storage.not_found");
    eventually("the sword is gone everywhere", async || first.get(sword).await.0 == 404).await;
    let version = second.get("/v1/content").await.1["version"].as_f64();
    eventually("the metric says the version", async || {
        first.metric("rookery_content_version").await == version
    })
    .await;

    // A node that joins later has everything before it is ready.
    let mut newcomer = cluster.newcomer("newcomer").spawn();
    newcomer.ready().await;
    assert_eq!(copy(&newcomer.ops()).await, copy(&first).await);
}

fn small(builder: Builder) -> Builder {
    builder.set("content.value", "4KiB").set("content.total", "32KiB")
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_written_on_one_node_is_read_on_every_node() {
    check_basics(&small(TestCluster::builder(2)).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_written_on_one_node_is_read_on_every_node_with_postgres() {
    if let Some(builder) = small(TestCluster::builder(2)).postgres() {
        check_basics(&builder.start().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_match_reads_content_and_hears_when_it_changes() {
    let cluster = TestCluster::start(2).await;
    cluster.publish("village").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    // A zone asks how its things look when it starts, before anybody may hear it.
    let zone = json!({"module": "village", "params": {"zone": "square"}});
    let target = ana.create_with(zone).await.unwrap();
    ana.join(&target).await.unwrap();
    let shown = async |what: &str, fits: &dyn Fn(&Value) -> bool| {
        let push = ana
            .push_where(what, |push| push["key"] == "view" && fits(&push["data"]["items"][0]))
            .await;
        push["data"]["items"][0].clone()
    };
    let item = shown("something lies about", &|item| item["id"].is_string()).await;
    let path = format!("/v1/content/items/{}", item["id"].as_str().unwrap());
    // Nobody has said how it looks yet; then one node is told, and another is told better.
    for (node, name) in [(0, "a first look"), (1, "a second look")] {
        let (status, written) = cluster.ops(node).put(&path, json!({"name": name}).to_string()).await;
        assert_eq!(status, 200, "{written}");
        shown(name, &|item| item["name"] == name).await;
    }
}

/// 200 writes from three nodes.
async fn write_much(cluster: &TestCluster) {
    let mut tasks = tokio::task::JoinSet::new();
    for node in 0..3 {
        let ops = cluster.ops(node);
        tasks.spawn(async move {
            for no in 0..67 {
                let path = format!("/v1/content/c{}/k{}", no % 3, (no * 7 + node) % 40);
                let (status, answer) = match rand::random_range(0..5) {
                    0 => ops.delete(&path).await,
                    _ => ops.put(&path, format!("[{node},{no}]")).await,
                };
                assert!(
                    status == 200 || answer["code"] == "storage.not_found",
                    "{path}: {answer}"
                );
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..120))).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("all writes are answered");
    }
}

/// Cuts data connections, and for a while everything between two nodes, until it is dropped.
async fn cut_at_random(cluster: &TestCluster, relays: &Relays) {
    loop {
        let (one, other) = [(0, 1), (0, 2), (1, 2)][rand::random_range(0..3)];
        if rand::random_bool(0.5) {
            relays.cut(one, other);
            tokio::time::sleep(Duration::from_millis(rand::random_range(100..2_500))).await;
            relays.heal(one, other);
        } else {
            let (status, answer) = cluster.ops(one).post("/v1/faults/cut-data-links", json!({})).await;
            assert_eq!(status, 200, "{answer}");
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(5..300))).await;
    }
}

async fn check_healing(builder: Builder) {
    let relays = Relays::start(3).await;
    let cluster = builder.on(&relays).start().await;
    tokio::select! {
        () = write_much(&cluster) => {}
        () = cut_at_random(&cluster, &relays) => {}
    }
    // What is written while a node is cut off for so long that its connections end is not announced to it again.
    relays.cut(0, 2);
    relays.cut(1, 2);
    let (status, last) = cluster.ops(0).put("/v1/content/c0/last", "1").await;
    assert_eq!(status, 200, "{last}");
    eventually("the third node is missed", async || {
        cluster.ops(0).members("ready").await.len() < 3 && cluster.ops(1).members("ready").await.len() < 3
    })
    .await;
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        relays.heal(one, other);
    }
    until_within(HEALED_WITHIN, "all nodes have the same content", async || {
        let copies = [
            copy(&cluster.ops(0)).await,
            copy(&cluster.ops(1)).await,
            copy(&cluster.ops(2)).await,
        ];
        (copies[0] == copies[1] && copies[1] == copies[2]).then_some(())
    })
    .await;
    assert!(relays.dropped() > 0, "the links were cut");
    let version = copy(&cluster.ops(2)).await["version"].clone();
    assert!(version.as_u64() > Some(120), "{version}");
    assert!(version.as_u64() >= last["version"].as_u64(), "{version}");
}

fn faulty() -> Builder {
    TestCluster::builder(3).set("ops.faults", true)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_have_the_same_content_within_ten_seconds_of_cut_links() {
    check_healing(faulty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_have_the_same_content_within_ten_seconds_of_cut_links_with_postgres() {
    if let Some(builder) = faulty().postgres() {
        check_healing(builder).await;
    }
}
