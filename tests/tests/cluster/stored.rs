//! Matches of durability `stored`: they come back with what was saved when their nodes are gone, each once, and their players are
//! told from where they go on. The ledger (tests/guests/ledger) counts what happens to it.

use std::time::Duration;

use rookery_tests::harness::{Client, Encoding, TestCluster, eventually, ledger, until, until_within};
use serde_json::{Value, json};
use tokio::time::Instant;

/// The lease of a dead owner (10 s), a look for matches without an owner, the restore, and slow test machines.
const BACK_WITHIN: Duration = Duration::from_secs(20);

async fn ledger_cluster(nodes: usize) -> TestCluster {
    let cluster = TestCluster::start(nodes).await;
    cluster.ops(0).publish(ledger()).await;
    cluster
}

/// A ledger on the node with this index.
async fn ledger_on(cluster: &TestCluster, player: &Client, index: usize) -> String {
    let ops = cluster.ops(0);
    until("a ledger is placed there", async || {
        let game_match = player.create("ledger").await;
        (ops.match_view(&game_match).await["owner"] == cluster.node(index).name()).then_some(game_match)
    })
    .await
}

/// Adds to the sum by input `n`, and waits until everyone was told.
async fn add(player: &Client, game_match: &str, n: u64, amount: i64) -> Value {
    player.send(game_match, n, json!({"add": amount})).await;
    let told = player
        .push_where("the sum", |push| {
            push["type"] == "match.data" && push["match"] == game_match && push["data"]["sum"].is_number()
        })
        .await;
    told["data"].clone()
}

/// The next view that a seat is sent when it missed something.
async fn view(player: &Client, game_match: &str) -> Value {
    let push = player
        .push_where("the full view", |push| {
            push["match"] == game_match && push["data"]["view"].is_object()
        })
        .await;
    push["data"]["view"].clone()
}

/// Waits until the state that is in the store is this young: what is older than one interval is in it.
async fn saved_after(cluster: &TestCluster, index: usize, saves: f64) {
    let ops = cluster.ops(index);
    eventually("the match is saved", async || {
        ops.metric("rookery_match_saves_total{outcome=\"written\"}")
            .await
            .unwrap_or(0.0)
            >= saves
    })
    .await;
}

async fn saves(cluster: &TestCluster, index: usize) -> f64 {
    let ops = cluster.ops(index);
    let saves = ops.metric("rookery_match_saves_total{outcome=\"written\"}").await;
    saves.expect("the metric is there from the start")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_match_comes_back_elsewhere_and_its_players_go_on_from_what_was_saved() {
    let mut cluster = ledger_cluster(3).await;
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let (ana, ben) = (
            cluster.node(0).guest(encoding).await,
            cluster.node(1).guest(encoding).await,
        );
        let game_match = ledger_on(&cluster, &ana, 2).await;
        let seat = ana.join(&game_match).await.unwrap()["seat"].clone();
        let bens = ben.join(&game_match).await.unwrap()["seat"].clone();
        for n in 1..=5 {
            add(&ana, &game_match, n, 10).await;
        }
        // Two more saves begin after the last input: the ledger ticks all the time, so there is always something to save.
        let before = saves(&cluster, 2).await;
        saved_after(&cluster, 2, before + 2.0).await;
        let epoch = cluster.ops(0).match_view(&game_match).await["epoch"].as_u64().unwrap();

        cluster.node_mut(2).kill();
        let killed = Instant::now();
        let waiting = ana.push_of("match.waiting").await;
        assert_eq!(
            (&waiting["match"], &waiting["why"]),
            (&json!(game_match), &json!("owner"))
        );
        let reset = ana.push_of("match.reset").await;
        assert!(killed.elapsed() < BACK_WITHIN, "it took {:?}", killed.elapsed());
        assert_eq!(reset["n"], 5, "all inputs were saved");
        assert!(reset["seq"].as_u64().unwrap() > 1 << 40, "a new incarnation: {reset}");
        let seen = view(&ana, &game_match).await;
        assert_eq!((&seen["sum"], &seen["resumed"]), (&json!(50), &json!(["restored"])));
        assert_eq!(ben.push_of("match.reset").await["n"], 0);

        // Both go on in the seats that they had.
        assert_eq!(
            add(&ana, &game_match, 6, 1).await,
            json!({"sum": 51, "adds": 6, "by": seat})
        );
        let heard = ben.push_where("ana's step", |push| push["data"]["sum"] == 51).await;
        assert!(heard["seq"].as_u64() > reset["seq"].as_u64());
        assert_eq!(add(&ben, &game_match, 1, 1).await["by"], bens);

        let shown = cluster.ops(1).match_view(&game_match).await;
        assert_ne!(shown["owner"], cluster.node(2).name());
        assert!(shown["epoch"].as_u64().unwrap() > epoch);
        cluster.restart(2).await;
        cluster.settled().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_may_stop_and_start_and_stored_matches_are_there_again() {
    let mut cluster = ledger_cluster(2).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let (here, there) = (ledger_on(&cluster, &ana, 0).await, ledger_on(&cluster, &ana, 1).await);
    for game_match in [&here, &there] {
        ana.join(game_match).await.unwrap();
        add(&ana, game_match, 1, 42).await;
    }
    // A clean end saves a last time: nothing at all is missing.
    for index in 0..2 {
        cluster.node_mut(index).terminate();
    }
    for index in 0..2 {
        cluster.node_mut(index).exited(Duration::from_secs(25)).await;
    }
    cluster.restart(0).await;
    cluster.restart(1).await;
    cluster.settled().await;
    let bob = cluster.node(0).guest(Encoding::MsgPack).await;
    for game_match in [&here, &there] {
        let ops = cluster.ops(1);
        until_within(BACK_WITHIN, "the match runs again", async || {
            (ops.match_view(game_match).await["status"] == "running").then_some(())
        })
        .await;
        bob.join(game_match).await.unwrap();
        assert_eq!(add(&bob, game_match, 1, 1).await["sum"], 43);
    }
}

/// Moves a match to the node with this index by the operators' HTTP of another, and returns the status and the answer.
async fn move_to(cluster: &TestCluster, asked: usize, game_match: &str, to: &str) -> (u16, Value) {
    let path = format!("/v1/matches/{game_match}/move");
    cluster.ops(asked).post(&path, json!({ "to": to })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_that_is_moved_keeps_its_players_who_miss_nothing_and_hear_no_reset() {
    let cluster = ledger_cluster(3).await;
    let players = [
        cluster.node(0).guest(Encoding::Json).await,
        cluster.node(1).guest(Encoding::MsgPack).await,
        cluster.node(2).guest(Encoding::Json).await,
    ];
    let game_match = ledger_on(&cluster, &players[0], 0).await;
    let mut seats = Vec::new();
    for player in &players {
        seats.push(player.join(&game_match).await.unwrap()["seat"].clone());
    }
    // A bell that was set before the moves rings after them.
    players[1].send_unnumbered(&game_match, json!({"wait": 6_000})).await;
    let (rounds, inputs) = (9, 20);
    for round in 0..rounds {
        let to = cluster.node((round + 1) % 3).name().to_owned();
        let moving = move_to(&cluster, round % 3, &game_match, &to);
        let playing = async {
            for n in 1..=inputs {
                let n = (round * inputs + n) as u64;
                players[0].send(&game_match, n, json!({"add": 1})).await;
                tokio::task::yield_now().await;
            }
        };
        let ((status, moved), ()) = tokio::join!(moving, playing);
        assert_eq!((status, &moved["owner"]), (200, &json!(to)), "round {round}: {moved}");
        let shown = cluster.ops((round + 2) % 3).match_view(&game_match).await;
        assert_eq!((&shown["owner"], &shown["match"]), (&json!(to), &json!(game_match)));
    }
    // Everyone hears every sum once and in order, whatever node they are on, and the bell.
    let steps = (rounds * inputs) as i64;
    for player in &players {
        let (mut heard, mut rang, mut seq) = (0, false, 0);
        while heard < steps || !rang {
            let push = player.expect_push().await;
            match push["type"].as_str().unwrap() {
                "match.data" if push["key"].is_string() => {}
                "match.data" => {
                    assert!(push["seq"].as_u64().unwrap() > seq, "{push}");
                    seq = push["seq"].as_u64().unwrap();
                    rang |= push["data"]["rang"].is_number();
                    if push["data"]["sum"].is_number() {
                        heard += 1;
                        assert_eq!(push["data"]["sum"], heard, "a step was missed, doubled or out of order");
                    }
                }
                "match.ack" | "match.players" => {}
                other => panic!("{other} has no place here: {push}"),
            }
        }
        assert!(seq < 1 << 40, "the incarnation is the same");
    }
    for (index, player) in players.iter().enumerate() {
        let again = player.join(&game_match).await.unwrap();
        assert_eq!(again["seat"], seats[index], "the same seat");
    }
    let mut moved = 0.0;
    for index in 0..3 {
        let ops = cluster.ops(index);
        moved += ops
            .metric("rookery_matches_moved_total{reason=\"operator\"}")
            .await
            .unwrap();
    }
    assert_eq!(moved, rounds as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_that_cannot_be_moved_stays_and_plays_on() {
    let cluster = ledger_cluster(2).await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let (here, there) = (cluster.node(0).name().to_owned(), cluster.node(1).name().to_owned());
    let game_match = ledger_on(&cluster, &ana, 0).await;
    ana.join(&game_match).await.unwrap();
    ana.send(&game_match, 1, json!({"stubborn": true})).await;
    add(&ana, &game_match, 2, 5).await;

    let (status, refused) = move_to(&cluster, 1, &game_match, &there).await;
    assert_eq!((status, &refused["code"]), (409, &json!("match.refused")), "{refused}");
    assert_eq!(refused["details"]["reason"], "stubborn on purpose");
    assert_eq!(add(&ana, &game_match, 3, 5).await["sum"], 10);
    let shown = cluster.ops(1).match_view(&game_match).await;
    assert_eq!((&shown["owner"], &shown["status"]), (&json!(here), &json!("running")));

    // A module that has no `load` cannot go, and says so.
    let echo = until("an echo is placed there", async || {
        let game_match = ana.create("echo").await;
        let shown = cluster.ops(0).match_view(&game_match).await;
        (shown["owner"] == here).then_some(game_match)
    })
    .await;
    assert_eq!(move_to(&cluster, 0, &echo, &there).await.1["code"], "match.refused");

    let unknown = move_to(&cluster, 0, &game_match, "nobody").await;
    assert_eq!((unknown.0, &unknown.1["code"]), (404, &json!("node.not_found")));
    assert_eq!(move_to(&cluster, 0, "no-such-match", &there).await.0, 404);
    // It is where it is asked to be.
    assert_eq!(move_to(&cluster, 1, &game_match, &here).await.0, 200);
    let (status, refused) = cluster
        .ops(0)
        .post(&format!("/v1/nodes/{there}/forget"), json!({}))
        .await;
    assert_eq!(
        (status, &refused["code"]),
        (403, &json!("forbidden")),
        "a node that lives is not forgotten"
    );
    let (status, _) = cluster.ops(0).post("/v1/nodes/nobody/forget", json!({})).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_who_came_after_the_last_save_is_told_to_come_again() {
    let cluster = TestCluster::builder(2).set("matches.store_every", "1h").start().await;
    let mut cluster = cluster;
    cluster.ops(0).publish(ledger()).await;
    let (ana, ben) = (
        cluster.node(0).guest(Encoding::Json).await,
        cluster.node(0).guest(Encoding::MsgPack).await,
    );
    let game_match = ledger_on(&cluster, &ana, 1).await;
    // The first save, of the empty match, is the only one.
    saved_after(&cluster, 1, 1.0).await;
    ana.join(&game_match).await.unwrap();
    add(&ana, &game_match, 1, 9).await;
    cluster.node_mut(1).kill();
    let kicked = ana.push_of("match.kicked").await;
    assert_eq!(
        (&kicked["match"], &kicked["reason"]),
        (&json!(game_match), &json!("restored"))
    );
    ana.join(&game_match).await.unwrap();
    assert_eq!(
        add(&ana, &game_match, 1, 1).await["sum"],
        1,
        "what was not saved is forgotten"
    );
    ben.join(&game_match).await.unwrap();
    add(&ben, &game_match, 1, 1).await;
}

/// All pushes of a match until one that fits, in order.
async fn pushes_until(player: &Client, game_match: &str, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut heard = Vec::new();
    loop {
        let push = player.expect_push().await;
        if push["match"] == game_match {
            let ends = fits(&push);
            heard.push(push);
            if ends {
                return heard;
            }
        }
    }
}

/// PostgreSQL: a process that stands still can hold SQLite's file, and with it everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_stood_still_past_its_lease_is_not_heard_again() {
    let Some(builder) = TestCluster::builder(3).postgres() else {
        return;
    };
    let cluster = builder.start().await;
    let mut cluster = cluster;
    cluster.ops(0).publish(ledger()).await;
    // One on each of the other nodes, and one on the node that will stand still.
    let players = [
        cluster.node(0).guest(Encoding::Json).await,
        cluster.node(1).guest(Encoding::MsgPack).await,
        cluster.node(2).guest(Encoding::Json).await,
    ];
    let game_match = ledger_on(&cluster, &players[0], 2).await;
    for player in &players {
        player.join(&game_match).await.unwrap();
    }
    add(&players[0], &game_match, 1, 5).await;
    saved_after(&cluster, 2, saves(&cluster, 2).await + 2.0).await;

    cluster.node_mut(2).stop();
    let stopped = Instant::now();
    for player in &players[..2] {
        player.push_of("match.reset").await;
        assert!(stopped.elapsed() < BACK_WITHIN, "it took {:?}", stopped.elapsed());
        assert_eq!(view(player, &game_match).await["sum"], 5);
    }
    add(&players[0], &game_match, 2, 5).await;
    tokio::time::sleep_until(stopped + Duration::from_secs(20)).await;
    cluster.node_mut(2).cont();

    // Nobody hears the old incarnation again, the players of that node included: what they hear next is where it goes on.
    players[0].send(&game_match, 3, json!({"add": 5})).await;
    let is_last = |push: &Value| push["data"]["sum"] == 15;
    for player in &players[..2] {
        let heard = pushes_until(player, &game_match, is_last).await;
        let old = heard
            .iter()
            .find(|push| push["seq"].as_u64().is_some_and(|seq| seq < 1 << 40));
        assert_eq!(old, None, "the old owner was heard");
    }
    let heard = pushes_until(&players[2], &game_match, |push| push["type"] == "match.reset").await;
    let after = heard.iter().skip_while(|push| push["type"] != "match.waiting");
    let old = after
        .clone()
        .find(|push| push["seq"].as_u64().is_some_and(|seq| seq < 1 << 40));
    assert_eq!(old, None, "the old owner was heard");
    let seen = view(&players[2], &game_match).await["sum"].clone();
    assert!(seen == 10 || seen == 15, "before the last step or after it: {seen}");
    let shown = cluster.ops(2).match_view(&game_match).await;
    assert_ne!(shown["owner"], cluster.node(2).name());
}
