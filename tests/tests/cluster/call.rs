//! `rookery call`: what a script relies on when it speaks to a cluster as players do.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use rookery_tests::harness::{TestCluster, rookery_binary};

/// Runs a call with one session on each of the nodes.
async fn call(cluster: &TestCluster, nodes: &[usize], arguments: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(rookery_binary());
    command.arg("call");
    for node in nodes {
        let url = format!("ws://{}", cluster.node(*node).client_address());
        command.args(["--url", &url]);
    }
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("the binary starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        pipe.write_all(stdin.as_bytes()).expect("the call reads what is typed");
        drop(pipe);
        child.wait_with_output().expect("the call ends")
    });
    ran.await.expect("the call does not panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_two_nodes_meet_in_one_call() {
    let cluster = TestCluster::start(2).await;
    cluster.publish("village").await;
    let done = call(
        &cluster,
        &[0, 1],
        &[
            "--name",
            "Ana",
            "--name",
            "Ben",
            r#"{"type":"match.create","module":"village"}"#,
            r#"{"type":"match.join","match":"$match"}"#,
            r#"2:{"type":"match.join","match":"$1.match"}"#,
            r#"2:{"type":"match.send","match":"$match","n":1,"data":"say good morning"}"#,
            "wait:Ben says: good morning",
        ],
        "",
    )
    .await;
    let (out, complaints) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{out}\n{complaints}");
    for line in out.lines() {
        let (session, frame) = line.split_once(' ').expect("a session's number");
        assert!(["1", "2"].contains(&session), "{line}");
        assert!(serde_json::from_str::<serde_json::Value>(frame).is_ok(), "{line}");
    }
    assert!(
        out.lines()
            .any(|line| line.starts_with("1 ") && line.contains("Ben says: good morning"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_says_by_its_exit_code_that_something_was_refused_or_did_not_come() {
    let cluster = TestCluster::start(1).await;
    let refused = call(&cluster, &[0], &[r#"{"type":"match.join","match":"nowhere"}"#], "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stdout).contains(r#""code":"match.not_found""#));

    let silent = call(&cluster, &[0], &["--within", "200ms", "wait:godot"], "").await;
    assert_eq!(silent.status.code(), Some(1));
    assert!(text(&silent.stderr).contains("there was not a frame with `godot`"));

    let wrong = call(&cluster, &[0], &["dance"], "").await;
    assert_eq!(wrong.status.code(), Some(64));

    let typed = call(&cluster, &[0], &[], "{\"type\":\"session.ping\",\"t\":7}\n\n").await;
    assert!(typed.status.success(), "{}", text(&typed.stderr));
    assert!(text(&typed.stdout).contains(r#""type":"session.pong""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_runs_without_is_answered_unavailable_and_nothing_else_is() {
    let cluster = TestCluster::builder(1)
        .set(
            "node.without",
            "chat,matchmaker,parties,presence,storage,worlds,content,records",
        )
        .start()
        .await;
    for request in [
        "channel.join channel=room:lobby",
        "queue.join queue=duel",
        "party.create",
        "presence.watch players=[]",
        "storage.get collection=a key=b",
        "world.list",
    ] {
        let done = call(&cluster, &[0], &[request], "").await;
        let out = text(&done.stdout);
        assert!(
            out.contains(r#""code":"unavailable""#) && out.contains("node.without"),
            "{request}: {out}"
        );
        assert_eq!(done.status.code(), Some(1));
    }
    for path in ["/v1/content/items/coin", "/v1/records"] {
        let (status, body) = cluster.ops(0).get(path).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (503, Some("unavailable")),
            "{path}: {body}"
        );
    }
    let served = call(&cluster, &[0], &["session.ping"], "").await;
    assert!(served.status.success(), "{}", text(&served.stdout));
}
