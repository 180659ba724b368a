//! What a node says when it cannot start, and what must not keep it from starting. Whoever runs a node reads these lines first.

use std::path::Path;
use std::time::Duration;

use rookery_tests::harness::{NodeProcess, NodeSpec, eventually, free_ports};
use sqlx::Connection as _;

/// The promise for a database that cannot be reached.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(10);

/// Wrong configuration is found before anything is opened.
const CHECKED_WITHIN: Duration = Duration::from_secs(10);

const EXIT_USAGE: i32 = 64;

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room for temporary files")
}

#[tokio::test]
async fn a_node_without_any_configuration_runs_alone_on_sqlite() {
    let dir = temporary();
    let mut spec = NodeSpec::bare("unconfigured", dir.path());
    // Only the ports are given, since the defaults may be taken on a machine that runs other nodes.
    for flag in ["--listen-client", "--listen-peer", "--listen-ops"] {
        spec.argument(flag).argument("127.0.0.1:0");
    }
    let mut node = spec.spawn();
    node.ready().await;
    assert!(dir.path().join("rookery-data/rookery.db").exists());
    let (status, text) = node.ops().get_text("/readyz").await.unwrap();
    assert_eq!((status, text.as_str()), (200, "ready\n"));
}

#[tokio::test]
async fn the_variables_that_kubernetes_injects_for_a_service_stop_nobody() {
    let dir = temporary();
    let mut spec = NodeSpec::new("in-a-pod", dir.path());
    spec.variable("ROOKERY_SERVICE_HOST", "10.96.0.17")
        .variable("ROOKERY_SERVICE_PORT", 7700)
        .variable("ROOKERY_SERVICE_PORT_CLIENT", 7700)
        .variable("ROOKERY_PORT", "tcp://10.96.0.17:7700")
        .variable("ROOKERY_PORT_7700_TCP", "tcp://10.96.0.17:7700")
        .variable("ROOKERY_PORT_7700_TCP_PROTO", "tcp")
        .variable("ROOKERY_PORT_7700_TCP_PORT", 7700)
        .variable("ROOKERY_PORT_7700_TCP_ADDR", "10.96.0.17")
        .variable("ROOKERY_CLUSTER__SECRET", "");
    spec.spawn().ready().await;
}

#[tokio::test]
async fn unknown_keys_are_refused_with_the_nearest_known_one() {
    let dir = temporary();
    let file = dir.path().join("rookery.toml");
    std::fs::write(&file, "[cluster]\nnmae = \"x\"\n[limits]\ninputs = \"lots\"\n").unwrap();
    let mut spec = NodeSpec::new("misspelt", dir.path());
    spec.argument("--config").argument(file.display());
    spec.variable("ROOKERY_LISTEN__CLEINT", "127.0.0.1:1");
    let mut node = spec.spawn();
    let status = node.exited(CHECKED_WITHIN).await;
    assert_eq!(status.code(), Some(EXIT_USAGE));
    // All faults at once, each with what was meant.
    said_eventually(&node, &["cluster.nmae", "cluster.name"]).await;
    said_eventually(&node, &["ROOKERY_LISTEN__CLEINT", "ROOKERY_LISTEN__CLIENT"]).await;
    said_eventually(&node, &["limits.inputs", "300/s"]).await;
}

#[tokio::test]
async fn a_secret_that_is_too_short_is_refused() {
    let dir = temporary();
    let mut spec = NodeSpec::new("careless", dir.path());
    spec.set("cluster.secret", "swordfish");
    let mut node = spec.spawn();
    assert_eq!(node.exited(CHECKED_WITHIN).await.code(), Some(EXIT_USAGE));
    said_eventually(&node, &["cluster.secret", "32"]).await;
    assert!(!node.log().contains("swordfish"), "a secret is never printed");
}

#[tokio::test]
async fn an_unreachable_database_is_said_and_ends_the_node() {
    let dir = temporary();
    // Nobody listens on a port that was free a moment ago.
    let closed = format!("127.0.0.1:{}", free_ports(1)[0]);
    let mut spec = NodeSpec::new("cut-off", dir.path());
    spec.set("store.url", format!("postgres://rookery:hush-hush@{closed}/rookery"));
    let mut node = spec.spawn();
    assert_eq!(node.exited(GIVES_UP_WITHIN).await.code(), Some(1));
    said_eventually(&node, &["database", &closed]).await;
    assert!(!node.log().contains("hush-hush"), "a password is never printed");
}

#[tokio::test]
async fn three_nodes_that_start_at_once_on_an_empty_file_become_one_cluster() {
    let dir = temporary();
    let ports = free_ports(3);
    let seeds: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let spawn = |index: usize| {
        let mut spec = NodeSpec::new(&format!("at-once-{index}"), dir.path());
        spec.set(
            "store.url",
            format!("sqlite://{}", dir.path().join("empty.db").display()),
        )
        .set("cluster.secret", "a secret that only these three nodes know")
        .set("cluster.profile", "lan")
        .set("cluster.seeds", seeds.join(","))
        .set("listen.peer", &seeds[index]);
        spec.spawn()
    };
    let mut nodes: Vec<NodeProcess> = (0..3).map(spawn).collect();
    for node in &mut nodes {
        node.ready().await;
    }
    for node in &nodes {
        let ops = node.ops();
        eventually("each sees all three", async || ops.members("ready").await.len() == 3).await;
    }
}

#[tokio::test]
async fn a_newer_database_is_used_unless_it_needs_a_newer_build() {
    let dir = temporary();
    let database = dir.path().join("kept.db");
    let mut spec = NodeSpec::new("kept", dir.path());
    spec.set("store.url", format!("sqlite://{}", database.display()));
    spec.spawn().ready().await.kill();

    set_meta(&database, "schema_version = schema_version + 5").await;
    spec.spawn().ready().await.kill();

    set_meta(&database, "min_build = 1000000").await;
    let mut refused = spec.spawn();
    assert_eq!(refused.exited(GIVES_UP_WITHIN).await.code(), Some(1));
    said_eventually(&refused, &["database", "1000000"]).await;
    assert!(!refused.is_ready());
}

async fn set_meta(database: &Path, change: &str) {
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite://{}", database.display()))
        .await
        .unwrap();
    let changed = sqlx::query(sqlx::AssertSqlSafe(format!("update meta set {change}")))
        .execute(&mut connection)
        .await;
    assert_eq!(changed.unwrap().rows_affected(), 1);
    connection.close().await.unwrap();
}

/// Waits for one line that contains all these words: what a process wrote last is read after it ended.
async fn said_eventually(node: &NodeProcess, words: &[&str]) {
    let what = format!("{} says {words:?} in one line", node.name());
    eventually(&what, async || {
        node.log()
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    })
    .await;
}
