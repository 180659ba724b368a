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
        ("POST", "/v1/matches/nobody/kick", 415, "bad_message"),
        ("GET", "/v1/records?player=nobody", 400, "bad_message"),
    ] {
        let (answered, body) = call(&cluster, method, path, &[]).await;
        // A body of another type is a mistake in the body like any other.
        let expected = if status == 415 { 400 } else { status };
        assert_eq!(answered, expected, "{method} {path}: {body}");
        assert_refusal(&body, code);
    }
    let ops = cluster.ops(0);
    for component in [&b""[..], b"\0asm\x01\0\0\0", b"not a component", &[0; 100_000]] {
        let (status, body) = ops.put("/v1/modules", component).await;
        assert_eq!((status, &body["code"]), (400, &json!("module.invalid")), "{body}");
    }
    let (status, body) = ops.post("/v1/matches/nobody/kick", json!({"player": 7})).await;
    assert_eq!((status, &body["code"]), (400, &json!("bad_message")), "{body}");
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
