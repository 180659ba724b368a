//! What happened in a match can be played again elsewhere, and comes to the same.

use std::path::Path;
use std::process::{Command, Output};

use rookery_tests::harness::{Encoding, TestCluster, eventually, hostile, rookery_binary};
use serde_json::{Value, json};

async fn rookery(args: &[&str]) -> Output {
    let mut command = Command::new(rookery_binary());
    command.args(args);
    let ran = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    ran.await.expect("the command does not panic")
}

/// The last line of what a command printed.
fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

async fn export(cluster: &TestCluster, node: usize, target: &str, file: &Path) {
    let ops = format!("http://{}", cluster.node(node).ops_address());
    let file = file.to_str().expect("a plain path");
    let exported = rookery(&["match", "export", target, "--out", file, "--ops", &ops]).await;
    assert!(
        exported.status.success(),
        "{}",
        String::from_utf8_lossy(&exported.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_exports_a_match_and_another_process_plays_it_to_the_same_state() {
    let cluster = TestCluster::start(2).await;
    cluster.publish("echo").await;
    let dir = tempfile::tempdir().expect("a directory");
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let target = ana.create("echo").await;
    ana.join(&target).await.unwrap();
    let mut n = 0;
    for node in 0..2 {
        let path = dir.path().join(format!("{node}.recording"));
        let file = path.to_str().expect("a plain path");
        // A recording goes back to the last base, which may have been made just now: then nothing is said in it.
        eventually("a recording has the last input in it", async || {
            n += 1;
            ana.send(&target, n, json!({"n": n})).await;
            assert_eq!(ana.push_of("match.data").await["data"]["n"], n);
            let view = cluster.ops(0).match_view(&target).await;
            export(&cluster, node, &target, &path).await;
            let replayed = rookery(&["match", "replay", file, "--effects", "--diff"]).await;
            assert!(
                replayed.status.success(),
                "{}",
                String::from_utf8_lossy(&replayed.stderr)
            );
            let line = last_line(&replayed);
            let hash = view["state_hash"].as_str().expect("a live match has one");
            assert!(line.starts_with(&format!("hash {hash} events ")), "{line}");
            let text = String::from_utf8_lossy(&replayed.stdout).into_owned();
            let lines = text.lines().rev().skip(1).map(serde_json::from_str::<Value>);
            let lines: Vec<Value> = lines.collect::<Result<_, _>>().expect("one JSON line each");
            assert!(
                lines.iter().all(|line| line.get("recorded").is_none()),
                "no differences: {text}"
            );
            lines.iter().any(|line| line["said"]["data"]["n"] == n)
        })
        .await;

        let whole = last_line(&rookery(&["match", "replay", file]).await);
        let (_, last) = whole.rsplit_once(' ').expect("the number of the last event");
        let until: u64 = last.parse().expect("a number");
        let some = rookery(&["match", "replay", file, "--until", last]).await;
        assert_eq!(last_line(&some), whole);
        let before = (until - 1).to_string();
        let some = rookery(&["match", "replay", file, "--until", &before]).await;
        assert!(last_line(&some).ends_with(&format!(" events {before}")), "{some:?}");

        let mut damaged = std::fs::read(file).expect("it was written");
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(file, damaged).expect("it can be written");
        let refused = rookery(&["match", "replay", file]).await;
        assert!(!refused.status.success() && refused.stdout.is_empty());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("damaged"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recording_of_a_match_that_failed_for_good_is_kept() {
    let cluster = TestCluster::start(2).await;
    cluster.ops(0).publish(hostile()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let target = ana.create("hostile").await;
    ana.join(&target).await.unwrap();
    for n in 1..=50 {
        ana.send(&target, n, json!({"do": "trap"})).await;
    }
    ana.push_of("match.failed").await;
    let file = dir.path().join("failed.recording");
    // The room of a match that is over goes; what was kept does not.
    for node in [0, 1] {
        eventually("the row says that it failed", async || {
            cluster.ops(node).match_view(&target).await["status"] == "failed"
        })
        .await;
        export(&cluster, node, &target, &file).await;
        let replayed = rookery(&["match", "replay", file.to_str().expect("a plain path")]).await;
        assert!(
            replayed.status.success(),
            "{}",
            String::from_utf8_lossy(&replayed.stderr)
        );
        assert!(last_line(&replayed).starts_with("hash "), "{}", last_line(&replayed));
    }
}
