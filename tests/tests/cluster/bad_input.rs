//! Whatever a client sends, it gets the code of the contract, its connection goes on where the contract says so, and nobody
//! else feels it.

use rookery::auth::{Identity, ResumeToken, TokenKeys, Tokens};
use rookery_protocol::{PlayerId, SessionId};
use rookery_tests::harness::{Account, Closing, Encoding, Ops, Socket, TestCluster, hostile};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::wire::{BOTH, Wire, others_are_served};

/// The secret of these tests' nodes, so that a test can make tokens of its own.
const SECRET: &str = "a secret under which tests make tokens";

async fn one_node() -> TestCluster {
    let cluster = TestCluster::builder(1).set("cluster.secret", SECRET).start().await;
    cluster.publish("echo").await;
    cluster
}

fn closing(code: u16, reason: &str) -> Closing {
    Closing {
        code: Some(code),
        reason: reason.into(),
    }
}

/// Says each on a fresh session, hears `code`, and finds the connection as good as before.
async fn check_frames(cluster: &TestCluster, encoding: Encoding, code: &str, frames: &[&[u8]]) {
    let account = Account::guest(cluster.node(0).client_address()).await;
    for frame in frames {
        let what = format!(
            "{encoding:?}: {}",
            frame
                .iter()
                .take(60)
                .map(|byte| byte.escape_ascii().to_string())
                .collect::<String>()
        );
        let mut wire = Wire::open(cluster.node(0), encoding, &account).await;
        wire.socket
            .send(frame.to_vec().into())
            .await
            .expect("the socket is open");
        let answer = wire.hear().await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!(code)),
            "{what}: {answer}"
        );
        assert!(
            answer["details"].is_object() && answer["message"].is_string(),
            "{what}: {answer}"
        );
        wire.is_served(&what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_no_message_is_answered_bad_message_and_the_connection_goes_on() {
    let cluster = one_node().await;
    let deep = format!(r#"{{"type":"session.ping","t":{}"#, "[".repeat(50_000));
    let json: [&[u8]; 20] = [
        b"",
        b" ",
        b"{",
        b"nul",
        b"null",
        b"[]",
        br#"["session.ping"]"#,
        br#""session.ping""#,
        b"7",
        b"{}",
        br#"{"type":"session.ping""#,
        br#"{"type":"session.ping"} {}"#,
        br#"{"type":"session.ping",}"#,
        br#"{'type':'session.ping'}"#,
        br#"{"type":7}"#,
        br#"{"type":null}"#,
        br#"{"type":"session.ping","type":"session.ping"}"#,
        br#"{"type":"session.ping","t":NaN}"#,
        br#"{"type":"\ud800"}"#,
        deep.as_bytes(),
    ];
    check_frames(&cluster, Encoding::Json, "bad_message", &json).await;

    let nested = [vec![0x81, 0xa1, b't'], vec![0x91; 50_000]].concat();
    let twice = b"\x82\xa4type\xacsession.ping\xa4type\xacsession.ping";
    let msgpack: [&[u8]; 18] = [
        b"",
        b"\xc1",
        b"\xc0",
        b"\x07",
        b"\x90",
        b"\xa4ping",
        b"\x80",
        b"\x81",
        b"\x81\xa4type",
        b"\x81\xa4type\xacsession",
        b"\x81\xa4type\x07",
        b"\x81\xa4type\xc4\x0csession.ping",
        b"\x81\x01\xacsession.ping",
        b"\x81\xa4type\xacsession.ping\xc0",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        twice,
        &nested,
    ];
    check_frames(&cluster, Encoding::MsgPack, "bad_message", &msgpack).await;
    others_are_served(cluster.node(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_kind_of_frame_is_a_bad_message_and_text_that_is_not_utf8_ends_the_socket() {
    let cluster = one_node().await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;
    for (encoding, wrong) in [
        (Encoding::Json, Message::binary(&br#"{"type":"session.ping"}"#[..])),
        (Encoding::MsgPack, Message::text(r#"{"type":"session.ping"}"#)),
    ] {
        let mut wire = Wire::open(node, encoding, &account).await;
        wire.socket.send_message(wrong).await.unwrap();
        assert_eq!(wire.hear().await["code"], "bad_message");
        wire.is_served("after the wrong kind of frame").await;
    }
    let mut wire = Wire::open(node, Encoding::Json, &account).await;
    let broken = RawFrame::message(&b"{\"type\":\"\xff\"}"[..], OpCode::Data(Data::Text), true);
    wire.socket.send_message(Message::Frame(broken)).await.unwrap();
    assert_eq!(wire.closed().await.0.code, Some(1007));
    others_are_served(node).await;
}

/// A request that is well-formed and wrong, and the code that it gets. Its `id` comes back.
fn wrong_requests() -> Vec<(Value, &'static str)> {
    let (join, send) = ("match.join", "match.send");
    let nowhere = "01kaghost0000000000000000a";
    let long = "x".repeat(65);
    let mut table = vec![
        (json!({"type": "match.fly"}), "unknown_type"),
        (json!({"type": ""}), "unknown_type"),
        (json!({"type": "SESSION.PING"}), "unknown_type"),
        (json!({"type": "error", "code": "internal"}), "unknown_type"),
        (json!({"type": "match.joined", "match": nowhere}), "unknown_type"),
        (json!({"type": "x".repeat(5_000)}), "unknown_type"),
        (json!({"type": ["session.ping"]}), "bad_message"),
        (json!({"type": "session.ping", "t": "now"}), "bad_message"),
        (json!({"type": "session.ping", "t": {}}), "bad_message"),
        (json!({"type": "session.open", "token": "again"}), "bad_message"),
        (json!({"type": join}), "bad_message"),
        (json!({"type": join, "match": null}), "bad_message"),
        (json!({"type": join, "match": 7}), "bad_message"),
        (json!({"type": join, "match": ["a"]}), "bad_message"),
        (json!({"type": join, "match": nowhere, "role": "king"}), "bad_message"),
        (json!({"type": join, "match": nowhere, "role": 1}), "bad_message"),
        (json!({"type": join, "match": nowhere, "since": -1}), "bad_message"),
        (json!({"type": join, "match": nowhere, "since": "1"}), "bad_message"),
        (json!({"type": join, "match": nowhere, "since": 1.5}), "bad_message"),
        (json!({"type": join, "match": nowhere}), "match.not_found"),
        (json!({"type": join, "match": ""}), "match.not_found"),
        (
            json!({"type": join, "match": "nobody-has-this-name"}),
            "match.not_found",
        ),
        (json!({"type": join, "match": "village/square"}), "match.not_found"),
        (
            json!({"type": join, "match": "'; drop table matches; --"}),
            "match.not_found",
        ),
        (json!({"type": join, "match": "\u{0}"}), "match.not_found"),
        (json!({"type": join, "match": "m".repeat(50_000)}), "match.not_found"),
        (json!({"type": "match.leave"}), "bad_message"),
        (json!({"type": "match.leave", "match": 7}), "bad_message"),
        (json!({"type": "match.leave", "match": nowhere}), "match.not_joined"),
        (json!({"type": "match.leave", "match": "not an id"}), "match.not_joined"),
        (json!({"type": send, "match": nowhere}), "bad_message"),
        (json!({"type": send, "data": 1}), "bad_message"),
        (
            json!({"type": send, "match": nowhere, "data": 1, "n": 0}),
            "bad_message",
        ),
        (
            json!({"type": send, "match": nowhere, "data": 1, "n": -1}),
            "bad_message",
        ),
        (
            json!({"type": send, "match": nowhere, "data": 1, "n": 1.5}),
            "bad_message",
        ),
        (
            json!({"type": send, "match": nowhere, "data": 1, "n": "1"}),
            "bad_message",
        ),
        (
            json!({"type": send, "match": nowhere, "data": 1, "n": 1}),
            "match.not_joined",
        ),
        (json!({"type": send, "match": nowhere, "data": 1}), "match.not_joined"),
        (
            json!({"type": send, "match": "not an id", "data": 1}),
            "match.not_joined",
        ),
        (json!({"type": "match.create"}), "bad_message"),
        (json!({"type": "match.create", "module": 7}), "bad_message"),
        (
            json!({"type": "match.create", "module": "echo", "private": "yes"}),
            "bad_message",
        ),
        (
            json!({"type": "match.create", "module": "echo", "name": 7}),
            "bad_message",
        ),
        (
            json!({"type": "match.create", "module": "echo", "name": ""}),
            "bad_message",
        ),
        (
            json!({"type": "match.create", "module": "echo", "name": "Big Letters"}),
            "bad_message",
        ),
        (
            json!({"type": "match.create", "module": "echo", "name": "a/b"}),
            "bad_message",
        ),
        (
            json!({"type": "match.create", "module": "echo", "name": "ä"}),
            "bad_message",
        ),
        (
            json!({"type": "match.create", "module": "echo", "name": long}),
            "bad_message",
        ),
        (json!({"type": "match.create", "module": ""}), "module.not_found"),
        (
            json!({"type": "match.create", "module": "nobody-published-this"}),
            "module.not_found",
        ),
        (json!({"type": "match.create", "module": "echo@"}), "module.not_found"),
        (
            json!({"type": "match.create", "module": "echo@1234"}),
            "module.not_found",
        ),
        (
            json!({"type": "match.create", "module": format!("echo@{}", "0".repeat(64))}),
            "module.not_found",
        ),
        (
            json!({"type": "match.create", "module": "m".repeat(50_000)}),
            "module.not_found",
        ),
        (json!({"type": "match.quick"}), "bad_message"),
        (
            json!({"type": "match.quick", "module": "echo", "label": "red"}),
            "bad_message",
        ),
        (
            json!({"type": "match.quick", "module": "echo", "label": {"colour": 7}}),
            "bad_message",
        ),
        (
            json!({"type": "match.quick", "module": "nobody-published-this"}),
            "module.not_found",
        ),
        // The module does not let itself be found.
        (json!({"type": "match.quick", "module": "echo"}), "forbidden"),
        (json!({"type": "match.list", "limit": "all"}), "bad_message"),
        (json!({"type": "match.list", "limit": -1}), "bad_message"),
        (json!({"type": "match.list", "cursor": 7}), "bad_message"),
        (json!({"type": "match.list", "cursor": ""}), "bad_message"),
        (
            json!({"type": "match.list", "cursor": "not one of ours"}),
            "bad_message",
        ),
        (json!({"type": "match.list", "label": ["red"]}), "bad_message"),
        (json!({"type": "match.list", "module": 7}), "bad_message"),
    ];
    // Each of these lacks a field that it needs.
    for kind in [
        "queue.join",
        "queue.leave",
        "queue.status",
        "party.join",
        "party.kick",
        "channel.join",
        "channel.send",
        "channel.history",
        "channel.leave",
        "presence.watch",
        "storage.get",
        "storage.put",
        "storage.delete",
        "storage.list",
        "world.enter",
    ] {
        table.push((json!({"type": kind}), "bad_message"));
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_request_gets_its_code_and_its_number_back() {
    let cluster = one_node().await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;
    for encoding in BOTH {
        for (mut request, code) in wrong_requests() {
            let mut wire = Wire::open(node, encoding, &account).await;
            let what = format!(
                "{encoding:?}: {}",
                request.to_string().chars().take(100).collect::<String>()
            );
            request["id"] = 7.into();
            wire.say(request.clone()).await;
            let answer = wire.hear().await;
            assert_eq!(
                (&answer["type"], &answer["code"]),
                (&json!("error"), &json!(code)),
                "{what}: {answer}"
            );
            assert_eq!(answer["id"], 7, "{what}: {answer}");
            assert!(answer["details"].is_object(), "{what}: {answer}");
            wire.is_served(&what).await;
            // Without a number the refusal is a push, and says the same.
            request.as_object_mut().unwrap().remove("id");
            wire.say(request).await;
            let push = wire.hear().await;
            assert_eq!((&push["code"], push.get("id")), (&json!(code), None), "{what}: {push}");
        }
        let mut wire = Wire::open(node, encoding, &account).await;
        for id in [json!("7"), json!(1.5), json!([7]), json!(true)] {
            wire.say(json!({"type": "session.ping", "id": id})).await;
            let answer = wire.hear().await;
            assert_eq!(
                (&answer["code"], answer.get("id")),
                (&json!("bad_message"), None),
                "id {id}: {answer}"
            );
        }
        wire.is_served("numbers that are none").await;
    }
    others_are_served(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_its_modules_codec_does_not_know_is_a_bad_message() {
    let cluster = one_node().await;
    cluster.publish("arena").await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;

    // A binary module: one base64 string in JSON.
    let mut wire = Wire::open(node, Encoding::Json, &account).await;
    for params in [json!({"size": 7}), json!(7), json!("not*base64"), json!([1, 2])] {
        let refused = wire
            .ask(json!({"type": "match.create", "id": 2, "module": "arena", "params": params}))
            .await;
        assert_eq!(refused["code"], "bad_message", "{params}: {refused}");
    }
    let arena = wire
        .ask(json!({"type": "match.create", "id": 3, "module": "arena"}))
        .await["match"]
        .clone();
    let refused = wire
        .ask(json!({"type": "match.join", "id": 4, "match": arena, "ctx": {"name": "ana"}}))
        .await;
    assert_eq!(refused["code"], "bad_message", "{refused}");
    let joined = wire.ask(json!({"type": "match.join", "id": 5, "match": arena})).await;
    assert_eq!(joined["type"], "match.joined", "{joined}");
    wire.say(json!({"type": "match.send", "id": 6, "match": arena, "n": 1, "data": {"left": true}}))
        .await;
    assert_eq!(wire.hear_where(|answer| answer["id"] == 6).await["code"], "bad_message");
    // The refused input did not use up its number.
    let applied = wire
        .ask(json!({"type": "match.send", "id": 7, "match": arena, "n": 1, "data": "AA=="}))
        .await;
    assert_eq!(
        (&applied["type"], &applied["n"]),
        (&json!("match.applied"), &json!(1)),
        "{applied}"
    );

    // A JSON module: the text of one JSON value in MessagePack.
    let mut wire = Wire::open(node, Encoding::MsgPack, &account).await;
    let echo = wire
        .ask(json!({"type": "match.create", "id": 2, "module": "echo"}))
        .await["match"]
        .clone();
    wire.ask(json!({"type": "match.join", "id": 3, "match": echo})).await;
    let send = |data: &[u8]| {
        use rookery_protocol::client::Tree;
        let mut tree: Tree =
            serde_json::from_value(json!({"type": "match.send", "id": 4, "match": echo, "n": 1})).unwrap();
        if let Tree::Map(entries) = &mut tree {
            entries.insert("data".into(), Tree::Bytes(data.to_vec().into()));
        }
        tree.write(Encoding::MsgPack)
    };
    for data in [&b""[..], b"{", b"1 2", b"\xff", b"nul"] {
        wire.socket.send(send(data)).await.unwrap();
        let refused = wire.hear_where(|answer| answer["id"] == 4).await;
        assert_eq!(refused["code"], "bad_message", "{data:?}: {refused}");
    }
    wire.socket.send(send(b"{\"k\": 1}")).await.unwrap();
    assert_eq!(
        wire.hear_where(|answer| answer["id"] == 4).await["type"],
        "match.applied"
    );
    others_are_served(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_session_open_nothing_is_served_and_only_a_good_token_opens() {
    let cluster = one_node().await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;
    let player: PlayerId = account.player.parse().unwrap();
    let identity = Identity {
        player,
        name: "ana".into(),
        family: None,
    };
    let ours = Tokens::new(&TokenKeys::of_cluster(SECRET.as_bytes(), None));
    let theirs = Tokens::new(&TokenKeys::of_cluster(b"a secret of another cluster altogether", None));
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let resume = ResumeToken {
        session: SessionId::from_u128(1),
        identity: identity.clone(),
        attachment: 1,
    };
    let good = ours.access(&identity, now_s);
    let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("a token has three parts")
    };
    let unsigned = base64::Engine::encode(
        &base64::prelude::BASE64_URL_SAFE_NO_PAD,
        br#"{"alg":"none","typ":"JWT"}"#,
    );
    let other_player = theirs.access(
        &Identity {
            player: PlayerId::from_u128(5),
            ..identity.clone()
        },
        now_s,
    );
    let tokens = [
        ("empty", String::new()),
        ("nonsense", "nonsense".into()),
        ("three parts of nonsense", "a.b.c".into()),
        ("expired", ours.access(&identity, now_s - 2 * 3_600)),
        ("forged", theirs.access(&identity, now_s)),
        (
            "another's claims under our signature",
            format!("{head}.{}.{signature}", other_player.split('.').nth(1).unwrap()),
        ),
        ("unsigned", format!("{unsigned}.{claims}.")),
        ("without its signature", format!("{head}.{claims}")),
        ("a resume token", ours.resume(&resume, now_s)),
        ("a refresh token", account.refresh_token.clone()),
        ("very long", "x".repeat(50_000)),
    ];
    for encoding in BOTH {
        let mut wire = Wire::connect(node, encoding).await;
        for request in [
            json!({"type": "session.ping"}),
            json!({"type": "session.close"}),
            json!({"type": "match.create", "module": "echo"}),
            json!({"type": "match.quick", "module": "echo"}),
            json!({"type": "match.list"}),
            json!({"type": "match.join", "match": "m"}),
            json!({"type": "match.leave", "match": "m"}),
            json!({"type": "match.send", "match": "m", "data": 1, "n": 1}),
            json!({"type": "channel.join", "channel": "room:a"}),
            json!({"type": "session.open"}),
        ] {
            let what = format!("{encoding:?}: {request}");
            let mut request = request;
            request["id"] = 3.into();
            let answer = wire.ask(request).await;
            assert_eq!(answer["code"], "unauthenticated", "{what}: {answer}");
        }
        for (what, token) in &tokens {
            let answer = wire.ask(json!({"type": "session.open", "id": 4, "token": token})).await;
            assert_eq!(answer["code"], "unauthenticated", "{encoding:?}: {what}: {answer}");
            let resume = json!({"token": token, "matches": {}});
            // A resume token is good for resuming, and nothing else is.
            if *what != "a resume token" {
                let answer = wire
                    .ask(json!({"type": "session.open", "id": 5, "resume": resume}))
                    .await;
                assert_eq!(
                    answer["code"], "unauthenticated",
                    "{encoding:?}: resume with {what}: {answer}"
                );
            }
        }
        // Before the session is open even what nobody knows is first of all that.
        assert_eq!(
            wire.ask(json!({"type": "match.fly", "id": 6})).await["code"],
            "unauthenticated"
        );
        for wrong in [
            json!({"token": 7}),
            json!({"resume": 7}),
            json!({"resume": {}}),
            json!({"resume": {"token": 1}}),
        ] {
            let mut request = wrong.clone();
            request["type"] = "session.open".into();
            request["id"] = 7.into();
            assert_eq!(wire.ask(request).await["code"], "bad_message", "{wrong}");
        }
        // After all that the same socket opens.
        let opened = wire.ask(json!({"type": "session.open", "id": 8, "token": good})).await;
        assert_eq!(
            (&opened["type"], &opened["player"]),
            (&json!("session.opened"), &json!(account.player)),
            "{opened}"
        );
        wire.is_served("after bad tokens").await;
    }
    others_are_served(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_over_the_limit_is_too_large_and_closes_the_socket_whole_or_in_parts() {
    let cluster = one_node().await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;
    for encoding in BOTH {
        let data = match encoding {
            Encoding::Json => Data::Text,
            Encoding::MsgPack => Data::Binary,
        };
        // At the limit it is a message like any other.
        let mut wire = Wire::open(node, encoding, &account).await;
        let empty = wire.bytes(&json!({"type": "session.ping", "id": 2, "x": ""})).len();
        let room = 64 * 1024 - empty - if encoding == Encoding::MsgPack { 4 } else { 0 };
        let full = wire.bytes(&json!({"type": "session.ping", "id": 2, "x": "x".repeat(room)}));
        assert!((64 * 1024 - 8..=64 * 1024).contains(&full.len()), "{}", full.len());
        wire.socket.send(full).await.unwrap();
        assert_eq!(wire.hear().await["type"], "session.pong");

        let whole = vec![RawFrame::message(vec![b' '; 64 * 1024 + 1], OpCode::Data(data), true)];
        let part = |opcode, is_final| RawFrame::message(vec![b' '; 40 * 1024], OpCode::Data(opcode), is_final);
        let parts = vec![part(data, false), part(Data::Continue, true)];
        for frames in [whole, parts] {
            let mut wire = Wire::open(node, encoding, &account).await;
            for frame in frames {
                // It may be closed before the last part.
                let _ = wire.socket.send_message(Message::Frame(frame)).await;
            }
            let (how, last) = wire.closed().await;
            assert_eq!(how, closing(1009, "too_large"), "{encoding:?}");
            assert_eq!(last.expect("it is told why")["code"], "too_large", "{encoding:?}");
        }
    }
    others_are_served(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_twentieth_malformed_frame_in_a_minute_ends_the_connection() {
    let cluster = one_node().await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;
    for encoding in BOTH {
        let mut wire = Wire::open(node, encoding, &account).await;
        for _ in 0..19 {
            wire.socket.send("\u{1}".into()).await.unwrap();
            assert_eq!(wire.hear().await["code"], "bad_message");
        }
        // What is well-formed and wrong does not count.
        for _ in 0..5 {
            assert_eq!(
                wire.ask(json!({"type": "match.fly", "id": 2})).await["code"],
                "unknown_type"
            );
        }
        wire.is_served("after nineteen").await;
        wire.socket.send("\u{1}".into()).await.unwrap();
        let (how, last) = wire.closed().await;
        assert_eq!(how, closing(1008, "rate_limited"), "{encoding:?}");
        assert_eq!(last.expect("the twentieth is answered too")["code"], "bad_message");
    }
    others_are_served(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_does_not_open_in_ten_seconds_is_closed() {
    let cluster = one_node().await;
    let mut wire = Wire::connect(cluster.node(0), Encoding::Json).await;
    let since = std::time::Instant::now();
    assert_eq!(
        wire.ask(json!({"type": "session.ping", "id": 2})).await["code"],
        "unauthenticated"
    );
    assert_eq!(wire.closed().await.0, closing(1008, "auth_timeout"));
    assert!(since.elapsed().as_secs() >= 9, "closed after {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_served_is_answered_like_every_other_refusal() {
    let cluster = one_node().await;
    let http = Ops::new(cluster.node(0).client_address());
    for path in ["/", "/v1/nothing", "/v1/auth/nothing"] {
        let (status, answer) = http.get(path).await;
        assert_eq!(
            (status, &answer["code"]),
            (404, &json!("unknown_type")),
            "{path}: {answer}"
        );
        assert!(
            answer["message"].is_string() && answer["details"] == json!({}),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn null_and_whole_floats_are_read_as_what_their_writers_mean() {
    let cluster = one_node().await;
    cluster.publish("arena").await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;
    for encoding in BOTH {
        let mut wire = Wire::open(node, encoding, &account).await;
        wire.say(json!({
            "type": "match.create", "id": 2.0, "module": "arena", "params": null, "private": null, "name": null,
        }))
        .await;
        let created = wire.hear().await;
        assert_eq!(
            (&created["type"], &created["id"]),
            (&json!("match.created"), &json!(2)),
            "{created}"
        );
        let join = json!({
            "type": "match.join", "id": 3, "match": created["match"], "ctx": null, "role": null, "since": 0.0,
        });
        let joined = wire.ask(join).await;
        assert_eq!(joined["type"], "match.joined", "{joined}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_that_is_full_over_or_unwilling_says_which() {
    let cluster = one_node().await;
    let node = cluster.node(0);
    cluster.publish("duel").await;
    cluster.publish("arena").await;
    cluster.ops(0).publish(hostile()).await;
    for encoding in BOTH {
        let ana = node.guest(encoding).await;
        let code = |result: Result<Value, rookery_tests::harness::Refused>| result.expect_err("it is refused").code;

        // Full: nobody holds the door shut, all seats are taken.
        let arena = ana.create("arena").await;
        let mut seated = Vec::new();
        let full = loop {
            let player = node.guest(encoding).await;
            match player.join(&arena).await {
                Ok(_) => seated.push(player),
                Err(refused) => break refused,
            }
            assert!(seated.len() <= 32, "an arena has 32 seats");
        };
        assert_eq!((full.code.as_str(), seated.len()), ("match.full", 32));
        drop(seated);

        // Closed: two are fighting, and the module takes no third.
        let duel = ana.create("duel").await;
        let (ben, eve) = (node.guest(encoding).await, node.guest(encoding).await);
        ana.join(&duel).await.unwrap();
        ben.join(&duel).await.unwrap();
        assert_eq!(code(eve.join(&duel).await), "match.closed");
        // Over: an operator ended it; and then it is a record.
        let (status, _) = cluster.ops(0).post(&format!("/v1/matches/{duel}/end"), json!({})).await;
        assert_eq!(status, 200);
        ana.push_of("match.ended").await;
        // A node that has just heard the end says the same as one that asks the store.
        for player in [&ana, &eve] {
            let refused = player.join(&duel).await.expect_err("it is over");
            assert_eq!(
                (refused.code.as_str(), &refused.details["status"]),
                ("match.closed", &json!("ended"))
            );
        }
        assert_eq!(
            code(
                ana.ask("match.send", json!({"match": duel, "data": {"move": "guard"}}))
                    .await
            ),
            "match.not_joined"
        );
        assert_eq!(
            code(ana.ask("match.leave", json!({"match": duel})).await),
            "match.not_joined"
        );

        // Unwilling: the module's own words are in the details, and only there.
        let wish = json!({"module": "hostile", "params": {"do": "refuse", "in": "join"}});
        let hostile = ana.create_with(wish).await.unwrap();
        let refused = ana.join(&hostile).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), &refused.details["reason"]),
            ("match.refused", &json!("refused on purpose"))
        );
        assert!(!refused.message.contains("on purpose"), "{refused:?}");
        assert_eq!(
            code(
                ana.ask("match.send", json!({"match": hostile, "data": 1, "n": 1}))
                    .await
            ),
            "match.not_joined"
        );
        let wish = json!({"module": "hostile", "params": {"do": "refuse", "in": "start"}});
        let refused = ana.create_with(wish).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), &refused.details["reason"]),
            ("match.refused", &json!("refused on purpose"))
        );
        let wish = json!({"module": "duel", "params": {"health": 0}});
        assert_eq!(ana.create_with(wish).await.unwrap_err().code, "match.refused");

        // Taken: until the match with the name is over.
        let named = json!({"module": "echo", "name": "the-echo"});
        let echo = ana.create_with(named.clone()).await.unwrap();
        let refused = ben.create_with(named.clone()).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), &refused.details["match"]),
            ("name.taken", &json!(echo))
        );
        ben.join("the-echo").await.unwrap();
        cluster.ops(0).post("/v1/matches/the-echo/end", json!({})).await;
        ben.push_of("match.ended").await;
        rookery_tests::harness::eventually("the name is free again", async || {
            match ben.create_with(named.clone()).await {
                Ok(again) => {
                    cluster
                        .ops(0)
                        .post(&format!("/v1/matches/{again}/end"), json!({}))
                        .await;
                    true
                }
                Err(refused) => {
                    assert_eq!(refused.code, "name.taken");
                    false
                }
            }
        })
        .await;
        rookery_tests::harness::eventually("the name is free for the next round", async || {
            cluster.ops(0).get("/v1/matches/the-echo").await.1["status"] != "running"
        })
        .await;
    }
    others_are_served(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_player_has_so_many_matches_and_no_more_however_fast_they_ask() {
    let cluster = TestCluster::builder(1)
        .set("limits.matches_per_session", 3)
        .set("limits.created_per_player", 5)
        .start()
        .await;
    cluster.publish("echo").await;
    let node = cluster.node(0);
    for encoding in BOTH {
        let account = Account::guest(node.client_address()).await;
        let mut wire = Wire::open(node, encoding, &account).await;
        // All at once: what is bounded is bounded however many requests are under way.
        for id in 100..112 {
            wire.say(json!({"type": "match.create", "id": id, "module": "echo"}))
                .await;
        }
        let mut created = Vec::new();
        for _ in 0..12 {
            let answer = wire.hear().await;
            match answer["type"].as_str() {
                Some("match.created") => created.push(answer["match"].clone()),
                _ => assert_eq!(answer["code"], "match.too_many", "{answer}"),
            }
        }
        assert_eq!(created.len(), 5);
        for (index, target) in created.iter().enumerate() {
            wire.say(json!({"type": "match.join", "id": 200 + index, "match": target}))
                .await;
        }
        let mut joined = Vec::new();
        let mut refused = 0;
        while joined.len() + refused < 5 {
            let answer = wire.hear().await;
            match answer["type"].as_str() {
                Some("match.joined") => joined.push(answer["match"].clone()),
                Some("error") => {
                    assert_eq!(answer["code"], "match.too_many", "{answer}");
                    refused += 1;
                }
                _ => {}
            }
        }
        assert_eq!((joined.len(), refused), (3, 2));
        // Who sits already keeps the seat; who leaves one has room for another.
        let again = wire
            .ask(json!({"type": "match.join", "id": 300, "match": joined[0]}))
            .await;
        assert_eq!(again["type"], "match.joined", "{again}");
        assert_eq!(
            wire.ask(json!({"type": "match.leave", "id": 301, "match": joined[0]}))
                .await["type"],
            "match.left"
        );
        let other = created.iter().find(|target| !joined.contains(target)).unwrap();
        let more = wire.ask(json!({"type": "match.join", "id": 302, "match": other})).await;
        assert_eq!(more["type"], "match.joined", "{more}");
        // An ended match no longer counts for its creator.
        let ended = joined[1].as_str().unwrap();
        cluster
            .ops(0)
            .post(&format!("/v1/matches/{ended}/end"), json!({}))
            .await;
        rookery_tests::harness::eventually("a sixth match may be created", async || {
            let answer = wire
                .ask(json!({"type": "match.create", "id": 303, "module": "echo"}))
                .await;
            answer["type"] == "match.created"
        })
        .await;
    }
}

/// Numbered inputs of the flood.
const INPUTS: u64 = 10_000;

/// How many a client sends again before it looks whether they came.
const WINDOW: u64 = 250;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rapid_inputs_are_refused_by_rate_and_applied_in_order_once_sent_again() {
    let cluster = TestCluster::builder(1)
        .set("limits.inputs", "1000/s burst 300")
        .start()
        .await;
    cluster.publish("echo").await;
    let node = cluster.node(0);
    let (json, msgpack) = tokio::join!(flood(&cluster, Encoding::Json), flood(&cluster, Encoding::MsgPack));
    let counted = cluster
        .ops(0)
        .metric("rookery_rate_limited_total{class=\"inputs\"}")
        .await
        .unwrap();
    assert!(
        counted as u64 >= json.0 + msgpack.0,
        "{counted} counted, {json:?} and {msgpack:?} told"
    );
    eprintln!("refusals told and inputs sent: JSON {json:?}, MessagePack {msgpack:?}; refused {counted}");
    others_are_served(node).await;
}

/// Returns how many refusals were told, and how many inputs it took.
async fn flood(cluster: &TestCluster, encoding: Encoding) -> (u64, u64) {
    let client = cluster.node(0).guest(encoding).await;
    let target = client.create("echo").await;
    client.join(&target).await.unwrap();
    for n in 1..=INPUTS {
        client.send(&target, n, json!({"n": n})).await;
    }
    let (mut heard, mut acked, mut refused, mut sent) = (0, 0, 0, INPUTS);
    // The end of the window that was sent last.
    let mut upto = 0;
    while heard < INPUTS || acked < INPUTS {
        let push = client.next_push().await.expect("the connection stays open");
        match push["type"].as_str() {
            Some("match.data") => {
                heard += 1;
                assert_eq!(
                    push["data"],
                    json!({"n": heard}),
                    "inputs are applied in order and once"
                );
            }
            Some("match.ack") => {
                assert!(push["n"].as_u64().unwrap() > acked, "acknowledgements rise: {push}");
                acked = push["n"].as_u64().unwrap();
            }
            Some("error") => {
                assert_eq!(push["code"], "rate_limited", "{push}");
                assert!(push["details"]["retry_ms"].as_u64().is_some_and(|ms| ms > 0), "{push}");
                refused += 1;
            }
            Some("match.resend") => {
                let from = push["n"].as_u64().unwrap();
                assert!(from > heard && from <= INPUTS, "asked for {from} after {heard}");
                upto = (from + WINDOW - 1).min(INPUTS);
                for n in from..=upto {
                    client.send(&target, n, json!({"n": n})).await;
                }
                sent += upto + 1 - from;
            }
            Some("match.players") => {}
            _ => panic!("unexpected: {push}"),
        }
        if heard == upto && upto > 0 && upto < INPUTS {
            let from = upto + 1;
            upto = (upto + WINDOW).min(INPUTS);
            for n in from..=upto {
                client.send(&target, n, json!({"n": n})).await;
            }
            sent += upto + 1 - from;
        }
    }
    assert!(refused >= 1, "ten thousand at once are too many");
    // With a number of its own each refusal is answered, and the session is as good as new afterwards.
    let applied = client
        .ask(
            "match.send",
            json!({"match": target, "n": INPUTS + 1, "data": {"n": "last"}}),
        )
        .await;
    assert_eq!(applied.unwrap()["n"], INPUTS + 1);
    (refused, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_rate_are_refused_with_the_time_to_wait() {
    let cluster = TestCluster::builder(1)
        .set("limits.control", "5/s burst 10")
        .set("limits.accounts", "1/s burst 5")
        .start()
        .await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;
    let ops = cluster.ops(0);
    for encoding in BOTH {
        let mut wire = Wire::open(node, encoding, &account).await;
        let mut refused = 0;
        for id in 10..50 {
            let answer = wire.ask(json!({"type": "match.list", "id": id})).await;
            if answer["code"] == "rate_limited" {
                let retry_ms = answer["details"]["retry_ms"].as_u64().unwrap();
                assert!((1..=200).contains(&retry_ms), "{answer}");
                refused += 1;
            } else {
                assert_eq!(answer["type"], "match.listed", "{answer}");
            }
        }
        assert!(refused > 0, "{encoding:?}");
        // After the time that it says, the answer is another one.
        rookery_tests::harness::eventually("requests are served again", async || {
            wire.ask(json!({"type": "match.list", "id": 51})).await["type"] == "match.listed"
        })
        .await;
    }
    assert!(
        ops.metric("rookery_rate_limited_total{class=\"control\"}")
            .await
            .unwrap()
            >= 2.0
    );

    let http = Ops::new(node.client_address());
    let mut refusals = 0;
    for _ in 0..20 {
        let (status, answer) = http.post("/v1/auth/guest", json!({})).await;
        if status == 429 {
            assert_eq!(answer["code"], "rate_limited", "{answer}");
            assert!(answer["details"]["retry_ms"].as_u64().is_some(), "{answer}");
            refusals += 1;
        }
    }
    assert!(refusals > 0);
    let counted = ops
        .metric("rookery_rate_limited_total{class=\"accounts\"}")
        .await
        .unwrap();
    assert_eq!(counted as u64, refusals);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_vanish_in_the_middle_of_anything_leave_nothing_behind() {
    let cluster = one_node().await;
    let node = cluster.node(0);
    let account = Account::guest(node.client_address()).await;
    for encoding in BOTH {
        for round in 0..20 {
            let mut wire = Wire::open(node, encoding, &account).await;
            wire.say(json!({"type": "match.create", "id": 2, "module": "echo", "name": format!("brief-{round}")}))
                .await;
            wire.say(json!({"type": "match.join", "id": 3, "match": format!("brief-{round}")}))
                .await;
            wire.say(json!({"type": "match.list", "id": 4})).await;
            if round % 2 == 0 {
                wire.hear().await;
            }
        }
        // Half a handshake, too.
        let half = tokio::net::TcpStream::connect(node.client_address()).await.unwrap();
        half.try_write(b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpg").unwrap();
        drop(half);
        drop(Socket::connect(node.client_address(), encoding).await);
    }
    let ops = cluster.ops(0);
    rookery_tests::harness::eventually("no socket and no session is left", async || {
        ops.metric("rookery_connections").await == Some(0.0) && ops.metric("rookery_sessions").await == Some(0.0)
    })
    .await;
    others_are_served(node).await;
}
