//! What an operator's script relies on over HTTP: shapes, refusals, and who may ask.

use rookery_tests::harness::{Encoding, TestCluster};
use serde_json::{Value, json};

use super::wire::others_are_served;

/// One call by hand, with headers. Returns the status and the body.
async fn call(cluster: &TestCluster, method: &'static str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let url = format!("http://{}{path}", cluster.node(0).ops_address());
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let called = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = agent
            .run(request.body(()).expect("a request"))
            .expect("the node answers");
        (
            response.status().as_u16(),
            response.body_mut().read_to_string().expect("a body"),
        )
    });
    called.await.expect("the call does not panic")
}

/// The body is `{code, message, details}`, with this code.
fn assert_refusal(body: &str, code: &str) {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert_eq!(body["code"], code, "{body}");
    assert!(body["message"].is_string() && body["details"].is_object(), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_mistakes_are_answered_with_a_status_and_a_code() {
    let cluster = TestCluster::start(1).await;
    cluster.publish("echo").await;
    for (method, path, status, code) in [
        ("GET", "/v1/matches/nobody", 404, "match.not_found"),
        ("GET", "/v1/matches/01kaghost0000000000000000a", 404, "match.not_found"),
        ("POST", "/v1/matches/nobody/end", 404, "match.not_found"),
        ("GET", "/v1/matches?cursor=none-of-ours", 400, "bad_message"),
        ("GET", "/v1/matches?limit=many", 400, "bad_message"),
        ("GET", "/v1/nothing", 404, "unknown_type"),
        ("GET", "/", 404, "unknown_type"),
        ("POST", "/v1/cluster", 405, "bad_message"),
        ("DELETE", "/v1/modules", 405, "bad_message"),
        ("POST", "/v1/matches/nobody/kick", 400, "bad_message"),
        ("GET", "/v1/matches/no/body", 404, "match.not_found"),
        ("POST", "/v1/matches/no/body/end", 404, "match.not_found"),
        ("GET", "/v1/records?player=nobody", 400, "bad_message"),
    ] {
        let (answered, body) = call(&cluster, method, path, &[]).await;
        assert_eq!(answered, status, "{method} {path}: {body}");
        assert_refusal(&body, code);
    }
    let ops = cluster.ops(0);
    for component in [&b""[..], b"\0asm\x01\0\0\0", b"not a component", &[0; 100_000]] {
        let (status, body) = ops.put("/v1/modules", component).await;
        assert_eq!((status, &body["code"]), (400, &json!("module.invalid")), "{body}");
    }
    let (status, body) = ops.post("/v1/matches/nobody/kick", json!({"player": 7})).await;
    assert_eq!((status, &body["code"]), (400, &json!("bad_message")), "{body}");
    for peer in ["nowhere", "127.0.0.1", ""] {
        let (status, body) = ops.post("/v1/cluster/join", json!({"peer": peer})).await;
        assert_eq!((status, &body["code"]), (400, &json!("bad_message")), "{peer}: {body}");
    }
    let client = cluster.node(0).guest(Encoding::Json).await;
    let target = client.create("echo").await;
    let (status, body) = ops
        .post(&format!("/v1/matches/{target}/kick"), json!({"player": "nobody"}))
        .await;
    assert_eq!((status, &body["code"]), (400, &json!("bad_message")), "{body}");
    let (status, body) = ops
        .post(
            &format!("/v1/matches/{target}/kick"),
            json!({"player": client.player()}),
        )
        .await;
    assert_eq!((status, &body["code"]), (404, &json!("match.not_joined")), "{body}");
    // Another site's page, and a name that was pointed here.
    for header in [("origin", "https://evil.example"), ("host", "rebound.example")] {
        let (status, body) = call(&cluster, "GET", "/v1/cluster", &[header]).await;
        assert_eq!(status, 403, "{header:?}");
        assert_refusal(&body, "forbidden");
    }
    assert_eq!(call(&cluster, "GET", "/healthz", &[]).await.0, 200);
    assert_eq!(call(&cluster, "GET", "/readyz", &[]).await.0, 200);
    others_are_served(cluster.node(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_only_its_holders_get_more_than_a_sign_of_life() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = rookery_tests::harness::NodeSpec::new("guarded", dir.path())
        .set("ops.token", "open sesame")
        .spawn();
    node.ready().await;
    let base = node.ops_address();
    let ask = |path: &'static str, token: Option<&'static str>| async move {
        let called = tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut request = agent.get(format!("http://{base}{path}"));
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let mut response = request.call().expect("the node answers");
            (
                response.status().as_u16(),
                response.body_mut().read_to_string().expect("a body"),
            )
        });
        called.await.unwrap()
    };
    for path in ["/v1/cluster", "/v1/matches", "/v1/modules", "/metrics", "/v1/nothing"] {
        for token in [
            None,
            Some("Bearer wrong"),
            Some("Bearer "),
            Some("open sesame"),
            Some("Basic open sesame"),
        ] {
            let (status, body) = ask(path, token).await;
            assert_eq!(status, 401, "{path} with {token:?}: {body}");
            assert_refusal(&body, "unauthenticated");
        }
    }
    assert_eq!(ask("/healthz", None).await.0, 200);
    assert_eq!(ask("/readyz", None).await.0, 200);
    assert_eq!(ask("/v1/cluster", Some("Bearer open sesame")).await.0, 200);
    assert_eq!(ask("/metrics", Some("bearer open sesame")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_is_seen_alike_from_every_node_and_stays_findable_when_it_is_over() {
    let cluster = TestCluster::start(2).await;
    let digest = cluster.publish("echo").await;
    let client = cluster.node(0).guest(Encoding::Json).await;
    let target = client
        .create_with(json!({"module": "echo", "name": "seen"}))
        .await
        .unwrap();
    client.join("seen").await.unwrap();
    client
        .ask("match.send", json!({"match": target, "n": 1, "data": 1}))
        .await
        .unwrap();
    let first = cluster.ops(0).match_view(&target).await;
    let expected = [
        ("match", json!(target)),
        ("module", json!("echo")),
        ("digest", json!(digest)),
        ("name", json!("seen")),
        ("backup", json!(null)),
        ("epoch", json!(1)),
        ("status", json!("running")),
        ("players", json!(1)),
        ("durability", json!("memory")),
    ];
    for (field, value) in expected {
        assert_eq!(first[field], value, "{field} in {first}");
    }
    assert!(
        first["owner"].as_str().is_some_and(|owner| owner.starts_with("node-")),
        "{first}"
    );
    let hash = first["state_hash"]
        .as_str()
        .expect("a live match has a state hash")
        .to_owned();
    assert!(hash.len() >= 32, "{first}");
    // By name, and from the other node.
    assert_eq!(cluster.ops(1).match_view("seen").await, first);
    // Something happens: another state, another hash.
    client
        .ask("match.send", json!({"match": target, "n": 2, "data": 2}))
        .await
        .unwrap();
    assert_ne!(cluster.ops(1).match_view(&target).await["state_hash"], hash.as_str());
    for index in 0..2 {
        let (_, page) = cluster.ops(index).get("/v1/matches").await;
        assert_eq!(page["matches"].as_array().map(Vec::len), Some(1), "{page}");
        assert_eq!(page["matches"][0]["match"], target.as_str());
    }
    cluster
        .ops(1)
        .post(&format!("/v1/matches/{target}/end"), json!({}))
        .await;
    client.push_of("match.ended").await;
    rookery_tests::harness::eventually("the match is a record", async || {
        cluster.ops(0).match_view(&target).await["status"] == "ended"
    })
    .await;
    let (status, body) = cluster
        .ops(0)
        .post(&format!("/v1/matches/{target}/end"), json!({}))
        .await;
    assert_eq!((status, &body["code"]), (409, &json!("match.closed")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_one_module_is_full_however_many_matches_others_have() {
    let cluster = TestCluster::start(2).await;
    cluster.publish("echo").await;
    cluster.publish("ticker").await;
    let client = cluster.node(0).guest(Encoding::Json).await;
    let mut wanted = Vec::new();
    for no in 0..12 {
        let module = if no % 4 == 3 { "ticker" } else { "echo" };
        let target = client.create(module).await;
        if module == "ticker" {
            wanted.push(target);
        }
    }
    rookery_tests::harness::eventually("all matches run", async || {
        let (_, page) = cluster.ops(1).get("/v1/matches").await;
        page["matches"].as_array().is_some_and(|matches| matches.len() == 12)
    })
    .await;
    wanted.sort();
    for index in 0..2 {
        let ops = cluster.ops(index);
        let (_, first) = ops.get("/v1/matches?module=ticker&limit=2").await;
        let cursor = first["cursor"].as_str().expect("there is another page");
        let (_, second) = ops
            .get(&format!("/v1/matches?module=ticker&limit=2&cursor={cursor}"))
            .await;
        assert_eq!(second["cursor"], json!(null), "{second}");
        let pages = [&first, &second].map(|page| page["matches"].as_array().expect("a page").clone());
        let found: Vec<&str> = pages
            .iter()
            .flatten()
            .filter_map(|seen| seen["match"].as_str())
            .collect();
        assert_eq!(
            (pages[0].len(), found),
            (2, wanted.iter().map(String::as_str).collect())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_nodes_while_the_database_is_away() {
    let Some(builder) = TestCluster::builder(2).postgres() else {
        return;
    };
    let cluster = builder.set("queues.duel.module", "duel").start().await;
    cluster.publish("duel").await;
    let status = async |json: bool| {
        let ops = format!("http://{}", cluster.node(0).ops_address());
        let mut command = std::process::Command::new(rookery_tests::harness::rookery_binary());
        command.args(["status", "--ops", &ops]);
        command.args(json.then_some("--json"));
        let ran = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
        let output = ran.await.expect("the command does not panic");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    };
    let before = status(false).await;
    assert!(before.contains("QUEUE") && before.contains("duel"), "{before}");
    let outage = cluster.take_store().await;
    rookery_tests::harness::eventually("the nodes notice", async || {
        let (code, why) = cluster.ops(0).get_text("/readyz").await.expect("the node answers");
        let up = cluster.ops(1).metric("rookery_store_up").await;
        (code, why.trim(), up) == (503, "not ready: the store does not answer", Some(0.0))
    })
    .await;
    let text = status(false).await;
    for expected in ["node-1", "node-2", "the store does not answer", "queues: not known now"] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    let shown: Value = serde_json::from_str(&status(true).await).expect("it is JSON");
    assert_eq!(shown["nodes"].as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!(
        (&shown["queues"], &shown["queues_why"]),
        (&json!(null), &json!("the store does not answer"))
    );
    outage.end().await;
    rookery_tests::harness::eventually("all is as before", async || {
        let (code, _) = cluster.ops(0).get_text("/readyz").await.expect("the node answers");
        code == 200 && cluster.ops(0).get("/v1/queues").await.0 == 200
    })
    .await;
    assert!(status(false).await.contains("duel"));
}
