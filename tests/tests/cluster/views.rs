//! What an operator sees when something is wrong: `GET /v1/cluster` and `rookery status` say why a seed or a name does not answer, and
//! what became of a node that is silent, and they do not wait for it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rookery_tests::harness::{TestCluster, eventually, free_ports, rookery_binary};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::process::Command;

async fn status(cluster: &TestCluster, more: &[&str]) -> String {
    let ops = format!("http://{}", cluster.node(0).ops_address());
    let output = Command::new(rookery_binary())
        .args(["status", "--ops", &ops])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn node<'a>(view: &'a Value, name: &str) -> &'a Value {
    let mut nodes = view["nodes"].as_array().unwrap().iter();
    nodes.find(|node| node["name"] == name).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_sees_why_somebody_does_not_answer() {
    // A seed that takes everything and says nothing, and a name that nobody can look up.
    let hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let hole = (hole.local_addr().unwrap().to_string(), hole);
    let no_resolver = format!("127.0.0.1:{}", free_ports(1)[0]);
    let mut cluster = TestCluster::builder(3)
        .set("cluster.profile", "lan")
        .set("cluster.poll_interval", "1s")
        .set_on(0, "cluster.seeds", &hole.0)
        .set_on(0, "cluster.dns", "nowhere.test:7701")
        .set_on(0, "cluster.dns_resolver", no_resolver)
        .start()
        .await;

    let ops = cluster.ops(0);
    eventually("both sources say why they do not answer", async || {
        let (_, view) = ops.get("/v1/cluster").await;
        let sources = view["sources"].as_array().unwrap();
        let fails = |source: &Value| source["last_error"].is_string() && source["failures"].as_u64() > Some(0);
        sources.len() == 2 && sources.iter().all(fails)
    })
    .await;
    let (_, view) = ops.get("/v1/cluster").await;
    assert_eq!(view["local"]["name"], "node-1", "{view}");
    let other = node(&view, "node-2");
    assert!(
        other["answered"] == true && other["keys"].as_u64() > Some(0) && other["wire"].as_u64() > Some(0),
        "{other}"
    );
    let said = status(&cluster, &[]).await;
    assert!(
        said.contains(&format!("seed {}: ", hole.0)) && said.contains("dns nowhere.test:7701: "),
        "{said}"
    );
    assert!(said.lines().take(6).all(|line| line.chars().count() <= 80), "{said}");
    assert!(status(&cluster, &["--verbose"]).await.contains("GENERATION"));

    cluster.node_mut(2).stop();
    let ops = cluster.ops(0);
    // The bound is a second; the rest is for a machine that is busy.
    let mut slowest = Duration::ZERO;
    let mut suspected = false;
    eventually("the stopped node is shown suspect, with what was tried", async || {
        let asked_at = Instant::now();
        let (_, view) = ops.get("/v1/cluster").await;
        slowest = slowest.max(asked_at.elapsed());
        let stopped = node(&view, "node-3");
        suspected |= stopped["suspicion"]["probes"].as_u64() > Some(0) && stopped["heard_ms"].as_u64() > Some(0);
        suspected && stopped["state"] == "dead"
    })
    .await;
    assert!(slowest < Duration::from_millis(2_500), "the view took {slowest:?}");
    assert!(status(&cluster, &[]).await.contains("node-3: dead"));

    cluster.node_mut(2).cont();
    let ops = cluster.ops(0);
    eventually("it is ready again", async || {
        let (_, view) = ops.get("/v1/cluster").await;
        let back = node(&view, "node-3");
        back["state"] == "ready" && back["reachable"] == true && back["suspicion"].is_null()
    })
    .await;
}
