//! Seats and matches as players and operators see them from any node: found, kept, given up, and taken away.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use futures_util::future::join_all;
use rookery_tests::harness::{Account, Client, Encoding, TestCluster, eventually};
use serde_json::{Value, json};

async fn guests(cluster: &TestCluster, count: usize) -> Vec<Client> {
    let encodings = [Encoding::Json, Encoding::MsgPack];
    let opening = (0..count).map(|index| cluster.node(index % cluster.nodes().len()).guest(encodings[index % 2]));
    join_all(opening).await
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_players_on_all_nodes_at_once_fill_matches_and_make_none_too_many() {
    let cluster = TestCluster::start(3).await;
    cluster.publish("duel").await;
    cluster.publish("arena").await;
    let players = guests(&cluster, 12).await;
    // A duel has two seats and an arena thirty-two.
    for (module, matches) in [("duel", 6), ("arena", 1)] {
        let joining = players
            .iter()
            .map(|player| player.ask("match.quick", json!({"module": module})));
        let mut seated: BTreeMap<String, usize> = BTreeMap::new();
        for joined in join_all(joining).await {
            let joined = joined.unwrap_or_else(|refused| panic!("no seat in a match of {module}: {refused:?}"));
            *seated.entry(joined["match"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        assert_eq!(seated.len(), matches, "matches of {module}: {seated:?}");
        assert!(
            seated.values().all(|seats| *seats == players.len() / matches),
            "matches of {module}: {seated:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_players_who_would_create_differently_meet_all_the_same() {
    let cluster = TestCluster::start(3).await;
    cluster.publish("arena").await;
    let players = guests(&cluster, 9).await;
    let joining = players.iter().enumerate().map(|(no, player)| {
        let params = base64::engine::general_purpose::STANDARD.encode([no as u8]);
        let params = if no % 3 == 0 { Value::Null } else { json!(params) };
        player.ask("match.quick", json!({"module": "arena", "params": params}))
    });
    let matches: BTreeSet<String> = join_all(joining)
        .await
        .into_iter()
        .map(|joined| joined.unwrap()["match"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(matches.len(), 1, "{matches:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_numbered_input_with_an_id_has_its_answer_out_of_turn_or_repeated() {
    let cluster = TestCluster::start(2).await;
    cluster.publish("echo").await;
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let ana = cluster.node(0).guest(encoding).await;
        let game_match = ana.create("echo").await;
        ana.join(&game_match).await.unwrap();
        let input = |n: u64| json!({"match": game_match, "n": n, "data": n});
        for n in [3, 4] {
            let refused = ana.ask("match.send", input(n)).await.unwrap_err();
            assert_eq!(
                (refused.code.as_str(), &refused.details),
                ("unavailable", &json!({"n": 1}))
            );
        }
        let resend = ana.expect_push().await;
        assert_eq!(resend, json!({"type": "match.resend", "match": game_match, "n": 1}));
        // Both requests of the second input are on their way together.
        ana.ask("match.send", input(1)).await.unwrap();
        let (first, second) = tokio::join!(ana.ask("match.send", input(2)), ana.ask("match.send", input(2)));
        for applied in [first.unwrap(), second.unwrap()] {
            assert_eq!((&applied["type"], &applied["n"]), (&json!("match.applied"), &json!(2)));
        }
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.push(ana.push_of("match.data").await["data"].clone());
        }
        assert_eq!(heard, [json!(1), json!(2)], "each once");
        ana.ask("match.send", input(3)).await.unwrap();
        assert_eq!(ana.push_of("match.data").await["data"], 3, "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_survives_its_socket_and_is_taken_again_from_another_node() {
    let cluster = TestCluster::start(2).await;
    cluster.publish("echo").await;
    let account = Account::guest(cluster.node(0).client_address()).await;
    let ana = Client::open(cluster.node(0).client_address(), Encoding::Json, &account).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let game_match = ana.create("echo").await;
    let seat = ana.join(&game_match).await.unwrap()["seat"].clone();
    ben.join(&game_match).await.unwrap();
    ana.send(&game_match, 1, json!("all: before")).await;
    ben.push_of("match.data").await;

    drop(ana);
    let away = ben
        .push_where("ana is away", |push| push["away"] == json!([seat]))
        .await;
    assert_eq!(
        away["left"].as_array().map_or(0, Vec::len),
        0,
        "the seat is kept: {away}"
    );

    let ana = Client::open(cluster.node(1).client_address(), Encoding::MsgPack, &account).await;
    let joined = ana.join(&game_match).await.unwrap();
    assert_eq!((&joined["seat"], &joined["n"]), (&seat, &json!(1)), "{joined}");
    ben.push_where("ana is back", |push| push["back"] == json!([seat]))
        .await;
    ana.send(&game_match, 2, json!("all: after")).await;
    assert_eq!(ben.push_of("match.data").await["data"], "all: after");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_kick_players_and_end_matches_from_any_node() {
    let cluster = TestCluster::start(3).await;
    cluster.publish("echo").await;
    let players = guests(&cluster, 2).await;
    let [ana, ben] = &players[..] else {
        unreachable!("two were asked for")
    };
    let game_match = ana.create("echo").await;
    ana.join(&game_match).await.unwrap();
    ben.join(&game_match).await.unwrap();
    let ops = cluster.ops(2);

    let kick = json!({"player": ana.player(), "reason": "shouting"});
    let (status, answer) = ops.post(&format!("/v1/matches/{game_match}/kick"), kick).await;
    assert_eq!(status, 200, "{answer}");
    let kicked = ana.push_of("match.kicked").await;
    assert_eq!(
        (&kicked["match"], &kicked["reason"]),
        (&json!(game_match), &json!("shouting"))
    );
    let left = ben
        .push_where("ana has left", |push| push["left"][0]["reason"] == "kicked")
        .await;
    assert_eq!(left["type"], "match.players");
    let refused = ana
        .ask("match.send", json!({"match": game_match, "data": "still here?"}))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "match.not_joined");

    let (status, answer) = ops.post(&format!("/v1/matches/{game_match}/end"), json!({})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(ben.push_of("match.ended").await["match"], game_match.as_str());
    eventually("every node says that the match has ended", async || {
        let views = (0..3).map(|index| cluster.ops(index));
        join_all(views.map(async |ops| ops.match_view(&game_match).await["status"] == "ended"))
            .await
            .iter()
            .all(|over| *over)
    })
    .await;
    assert_eq!(ben.join(&game_match).await.unwrap_err().code, "match.closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_that_nobody_sits_in_ends_and_frees_its_name() {
    let cluster = TestCluster::builder(2).set("matches.empty_after", "1s").start().await;
    cluster.publish("echo").await;
    let players = guests(&cluster, 2).await;
    let [ana, ben] = &players[..] else {
        unreachable!("two were asked for")
    };
    let named = json!({"module": "echo", "name": "the-attic"});
    let first = ana.create_with(named.clone()).await.unwrap();
    assert_eq!(ana.join("the-attic").await.unwrap()["match"], first.as_str());
    assert_eq!(ben.create_with(named.clone()).await.unwrap_err().code, "name.taken");
    // Who came by the name may go on using it; whoever did not, sits nowhere.
    let input = json!({"match": "the-attic", "n": 1, "data": "hello"});
    let applied = ana.ask("match.send", input.clone()).await.unwrap();
    assert_eq!((&applied["match"], &applied["n"]), (&json!(first), &json!(1)));
    assert_eq!(ben.ask("match.send", input).await.unwrap_err().code, "match.not_joined");
    ana.ask("match.leave", json!({"match": "the-attic"})).await.unwrap();
    let ops = cluster.ops(1);
    eventually("the empty match ends", async || {
        ops.match_view(&first).await["status"] == "ended"
    })
    .await;
    let second = ben.create_with(named).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(ops.match_view("the-attic").await["match"], second.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_lists_the_matches_of_all() {
    let cluster = TestCluster::start(3).await;
    cluster.publish("echo").await;
    cluster.publish("ticker").await;
    let players = guests(&cluster, 3).await;
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for index in 0..12 {
        let player = &players[index % 3];
        let target = player.create(["echo", "ticker"][index % 2]).await;
        let owner = cluster.ops(0).match_view(&target).await["owner"]
            .as_str()
            .unwrap()
            .to_owned();
        expected.insert(target, owner);
    }
    let private = players[0]
        .create_with(json!({"module": "echo", "private": true}))
        .await
        .unwrap();
    for player in &players {
        let mut listed: BTreeMap<String, String> = BTreeMap::new();
        let mut cursor = Value::Null;
        loop {
            let mut fields = json!({"limit": 5});
            if !cursor.is_null() {
                fields["cursor"] = cursor;
            }
            let page = player.ask("match.list", fields).await.unwrap();
            for line in page["matches"].as_array().unwrap() {
                let text = |field: &str| line[field].as_str().unwrap().to_owned();
                assert_eq!(
                    listed.insert(text("match"), text("node")),
                    None,
                    "{line} is listed twice"
                );
            }
            cursor = page["cursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(listed, expected);
        let only = player.ask("match.list", json!({"module": "ticker"})).await.unwrap();
        assert!(
            only["matches"]
                .as_array()
                .unwrap()
                .iter()
                .all(|line| line["module"] == "ticker"),
            "{only}"
        );
        assert_eq!(only["matches"].as_array().unwrap().len(), 6);
        assert!(!listed.contains_key(&private));
    }
}
