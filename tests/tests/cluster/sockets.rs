//! The client listener's promises about sockets: who may open one, in which encoding, what a session is told, and what happens to
//! a client that does not read.

use rookery_tests::harness::{Account, Closing, Encoding, Ops, Socket, TestCluster, eventually};
use serde_json::json;
use tokio_tungstenite::tungstenite::Error;

use super::wire::{BOTH, Wire, others_are_served};

/// What a refused handshake was answered: the status and the code.
async fn refusal(cluster: &TestCluster, protocol: Option<&str>, headers: &[(&'static str, &str)]) -> (u16, String) {
    let dialled = Socket::try_connect(cluster.node(0).client_address(), Encoding::Json, protocol, headers).await;
    match *dialled.expect_err("the handshake is refused") {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body: serde_json::Value = serde_json::from_slice(body).expect("a refusal is JSON");
            assert!(body["message"].is_string() && body["details"].is_object(), "{body}");
            (
                response.status().as_u16(),
                body["code"].as_str().expect("a refusal has a code").to_owned(),
            )
        }
        error => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_origins_and_known_subprotocols_get_a_socket() {
    let cluster = TestCluster::builder(1)
        .set("listen.origins", "https://game.example,http://127.0.0.1:9")
        .start()
        .await;
    cluster.publish("echo").await;
    let address = cluster.node(0).client_address();
    let json = Some("rookery.v1.json");
    assert_eq!(
        refusal(&cluster, json, &[("origin", "https://evil.example")]).await,
        (403, "forbidden".into())
    );
    assert_eq!(
        refusal(&cluster, json, &[("origin", "null")]).await,
        (403, "forbidden".into())
    );
    assert_eq!(
        refusal(&cluster, json, &[("origin", "https://game.example.evil.example")])
            .await
            .0,
        403
    );
    assert_eq!(
        refusal(&cluster, Some("rookery.v9.json"), &[]).await,
        (400, "bad_message".into())
    );
    assert_eq!(refusal(&cluster, Some("mqtt"), &[]).await, (400, "bad_message".into()));
    for headers in [
        &[("origin", "https://game.example")][..],
        &[("origin", "HTTPS://GAME.EXAMPLE")],
        &[],
    ] {
        Socket::try_connect(address, Encoding::Json, json, headers)
            .await
            .expect("the origin is served");
    }
    // Without a subprotocol the socket speaks JSON; of several the first that is known counts.
    let account = Account::guest(address).await;
    for (protocol, encoding) in [
        (None, Encoding::Json),
        (Some("mqtt, rookery.v1.msgpack, rookery.v1.json"), Encoding::MsgPack),
    ] {
        let dialled = Socket::try_connect(address, encoding, protocol, &[]).await;
        let mut wire = match dialled {
            Ok(socket) => Wire { socket },
            Err(error) => panic!("{protocol:?}: {error}"),
        };
        let opened = wire
            .ask(json!({"type": "session.open", "id": 1, "token": account.access_token}))
            .await;
        assert_eq!(opened["type"], "session.opened", "{protocol:?}: {opened}");
    }
    // The account calls of a page are held to the same list.
    let origin = "https://evil.example".to_owned();
    let called = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let call = agent
            .post(format!("http://{address}/v1/auth/guest"))
            .header("origin", origin);
        call.send_empty().expect("the node answers").status().as_u16()
    });
    assert_eq!(called.await.unwrap(), 403);
    // What is no WebSocket at all.
    let (status, answer) = Ops::new(address).get("/v1/ws").await;
    assert_eq!((status, &answer["code"]), (426, &json!("bad_message")));
    others_are_served(cluster.node(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_where_it_is_and_closing_it_gives_its_seats_up_at_once() {
    let cluster = TestCluster::start(2).await;
    cluster.publish("duel").await;
    cluster.publish("echo").await;
    let node = cluster.node(0);
    for encoding in BOTH {
        let account = Account::guest(node.client_address()).await;
        let mut wire = Wire::connect(node, encoding).await;
        let opened = wire
            .ask(json!({"type": "session.open", "id": 1, "token": account.access_token}))
            .await;
        assert_eq!(
            (&opened["player"], &opened["node"]),
            (&json!(account.player), &json!(node.name())),
            "{opened}"
        );
        assert_eq!(opened["nodes"].as_array().map(Vec::len), Some(2), "{opened}");
        assert_eq!(
            (&opened["resumed"], &opened["matches"], &opened["gone"]),
            (&json!(false), &json!([]), &json!([]))
        );
        assert!(
            opened["resume_token"].is_string() && opened["heartbeat_ms"].as_u64() > Some(0),
            "{opened}"
        );

        let pong = wire.ask(json!({"type": "session.ping", "id": 2})).await;
        assert!(
            pong.get("t").is_none() && pong["now"].as_u64() > Some(1_600_000_000_000),
            "{pong}"
        );

        // A duel keeps a seat for 30 s when its socket drops; a session that is closed has given it up.
        let duel = wire
            .ask(json!({"type": "match.create", "id": 3, "module": "duel"}))
            .await["match"]
            .clone();
        assert_eq!(
            wire.ask(json!({"type": "match.join", "id": 4, "match": duel})).await["type"],
            "match.joined"
        );
        let watcher = node.guest(encoding).await;
        let join = json!({"match": duel, "role": "spectator"});
        let joined = watcher.ask("match.join", join).await.unwrap();
        assert_eq!(joined["players"].as_array().map(Vec::len), Some(2), "{joined}");
        let closed = wire.ask(json!({"type": "session.close", "id": 5})).await;
        assert_eq!(closed["type"], "session.closed");
        let (how, _) = wire.closed().await;
        assert_eq!(how.code, Some(1000), "{how:?}");
        let left = watcher.push_where("the player leaves", |push| {
            push["type"] == "match.players" && push["left"].as_array().is_some_and(|left| !left.is_empty())
        });
        assert_eq!(left.await["left"][0]["reason"], "left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_and_told_why_and_the_others_hear_on() {
    let cluster = TestCluster::builder(1)
        .set("limits.inputs", "100000/s burst 100000")
        .start()
        .await;
    cluster.publish("echo").await;
    let node = cluster.node(0);
    let ops = cluster.ops(0);
    let closed = "rookery_client_slow_closed_total";
    for (round, encoding) in BOTH.into_iter().enumerate() {
        let talker = node.guest(encoding).await;
        let target = talker.create("echo").await;
        talker.join(&target).await.unwrap();
        let account = Account::guest(node.client_address()).await;
        let mut slow = Wire::open(node, encoding, &account).await;
        assert_eq!(
            slow.ask(json!({"type": "match.join", "id": 2, "match": target})).await["type"],
            "match.joined"
        );
        // What waits for the slow one fills the kernel's buffers first: several MiB.
        let line = "x".repeat(40_000);
        let mut said = 0;
        while ops.metric(closed).await.unwrap() < round as f64 + 1.0 {
            for _ in 0..20 {
                talker.send_unnumbered(&target, json!({"all": line})).await;
                said += 1;
                assert_eq!(
                    talker.push_of("match.data").await["data"]["all"].as_str().map(str::len),
                    Some(line.len())
                );
            }
            assert!(
                said < 5_000,
                "{} MiB wait for a client that does not read",
                (said * line.len()) >> 20
            );
        }
        let (how, last) = slow.closed().await;
        assert_eq!(
            how,
            Closing {
                code: Some(1008),
                reason: "slow_consumer".into()
            },
            "{encoding:?}"
        );
        assert_eq!(last.expect("it heard what was on its way")["type"], "match.data");
        assert_eq!(
            ops.metric(closed).await,
            Some(round as f64 + 1.0),
            "nobody else was too slow"
        );
        talker.send_unnumbered(&target, json!({"all": "still here"})).await;
        assert_eq!(talker.push_of("match.data").await["data"]["all"], "still here");
    }
    others_are_served(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_who_leaves_is_gone_from_every_count() {
    let cluster = TestCluster::start(1).await;
    cluster.publish("echo").await;
    let ops = cluster.ops(0);
    let clients = [
        cluster.node(0).guest(Encoding::Json).await,
        cluster.node(0).guest(Encoding::MsgPack).await,
    ];
    assert_eq!(ops.metric("rookery_sessions").await, Some(2.0));
    assert_eq!(ops.metric("rookery_connections").await, Some(2.0));
    drop(clients);
    eventually("sessions and sockets are gone", async || {
        ops.metric("rookery_sessions").await == Some(0.0) && ops.metric("rookery_connections").await == Some(0.0)
    })
    .await;
}
