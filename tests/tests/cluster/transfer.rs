//! Mail between matches on different nodes, and players who are transferred from one to another: in order, once, and nobody is in
//! two places or lost, though connections between the nodes are cut. The courier (tests/guests/courier) writes and carries.

mod corners;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rookery_tests::harness::{Client, Encoding, TestCluster, courier, until_within};
use serde_json::{Value, json};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];

async fn couriers(nodes: usize) -> TestCluster {
    let cluster = TestCluster::builder(nodes).set("ops.faults", true).start().await;
    cluster.ops(0).publish(courier()).await;
    cluster
}

/// A courier on the node with this index, called `name`.
async fn place(cluster: &TestCluster, player: &Client, index: usize, name: &str, params: Value) -> String {
    let wanted = cluster.node(index).name().to_owned();
    until_within(Duration::from_secs(30), "a courier is placed there", async || {
        let wish = json!({"module": "courier", "name": name, "params": params});
        let made = player.create_with(wish).await.unwrap();
        let view = cluster.ops(0).match_view(&made).await;
        if view["owner"] == json!(wanted) {
            return Some(made);
        }
        cluster.ops(0).post(&format!("/v1/matches/{made}/end"), json!({})).await;
        None
    })
    .await
}

async fn data_with(player: &Client, key: &str) -> Value {
    let push = player
        .push_where(key, |push| push["type"] == "match.data" && !push["data"][key].is_null())
        .await;
    push["data"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_crosses_nodes_in_order_by_id_by_name_and_by_claim_and_is_answered_only_when_it_cannot_arrive() {
    let cluster = couriers(2).await;
    for encoding in BOTH {
        let tag = if encoding == Encoding::Json { "json" } else { "msgpack" };
        let ana = cluster.node(0).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let from = place(&cluster, &ana, 0, &format!("from-{tag}"), json!({})).await;
        let name = format!("to-{tag}");
        let claim = format!("shop-{tag}");
        let to = place(&cluster, &ana, 1, &name, json!({"claim": claim})).await;
        ana.join(&from).await.unwrap();
        ben.join(&to).await.unwrap();
        for (round, target) in [to.as_str(), name.as_str(), claim.as_str()].into_iter().enumerate() {
            for n in 0..20 {
                let text = format!("{round}:{n}");
                ana.send_unnumbered(&from, json!({"tell": target, "text": text})).await;
            }
            for n in 0..20 {
                let heard = data_with(&ben, "mail").await;
                assert_eq!(heard, json!({"mail": format!("{round}:{n}"), "from": from}));
            }
        }
        for nowhere in ["nobody-is-called-this", "00000000000000000000000000"] {
            ana.send_unnumbered(&from, json!({"tell": nowhere, "text": "?"})).await;
            assert_eq!(data_with(&ana, "answer").await["error"], "NoTarget", "{nowhere}");
        }
        // What a match says last arrives after its end.
        ana.send_unnumbered(&from, json!({"tell": to, "text": "farewell", "finish": true}))
            .await;
        assert_eq!(data_with(&ben, "mail").await["mail"], "farewell");
        ben.send_unnumbered(&to, json!({"tell": from, "text": "too late"}))
            .await;
        assert_eq!(data_with(&ben, "answer").await["error"], "NoTarget");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_moves_a_player_and_a_refused_one_brings_them_back_with_what_they_carry() {
    let cluster = couriers(3).await;
    for encoding in BOTH {
        let tag = if encoding == Encoding::Json { "json" } else { "msgpack" };
        // The player, the match left and the match entered are on three nodes.
        let ana = cluster.node(2).guest(encoding).await;
        let ben = cluster.node(2).guest(encoding).await;
        let from = place(&cluster, &ana, 0, &format!("mill-{tag}"), json!({})).await;
        let to = place(&cluster, &ana, 1, &format!("well-{tag}"), json!({})).await;
        ana.join(&from).await.unwrap();
        ben.join(&to).await.unwrap();
        assert_eq!(data_with(&ana, "here").await["here"], 0);
        ana.send(&from, 1, json!({"take": 7})).await;
        ana.send(&from, 2, json!({"go": format!("well-{tag}")})).await;
        let moved = ana.push_of("match.moved").await;
        assert_eq!((&moved["match"], &moved["to"]), (&json!(from), &json!(to)));
        assert_eq!((&moved["module"], &moved["n"]), (&json!("courier"), &json!(0)));
        assert_eq!(moved["players"].as_array().unwrap().len(), 2);
        let said = ana.push_of("match.data").await;
        assert_eq!((&said["match"], &said["data"]), (&json!(to), &json!({"here": 7})));
        assert!(said["seq"].as_u64() > moved["seq"].as_u64());
        let heard = ben
            .push_where("the arrival", |push| push["type"] == "match.players")
            .await;
        assert_eq!(heard["joined"][0]["player"], json!(ana.player()));
        let refused = ana
            .ask("match.send", json!({"match": from, "data": {"ask": true}}))
            .await;
        assert_eq!(refused.unwrap_err().code, "match.not_joined");
        // Numbers begin anew with the seat.
        ana.send(&to, 1, json!({"ask": true})).await;
        assert_eq!(data_with(&ana, "held").await["held"], 7);

        // A match that refuses, and none at all: the player is back, with a new seat.
        let picky = place(&cluster, &ana, 2, &format!("picky-{tag}"), json!({"refuse": 1})).await;
        let mut seat = moved["seat"].as_u64().unwrap();
        for (target, error) in [(picky.as_str(), "Refused"), ("nowhere-at-all", "NoTarget")] {
            ana.send(&to, 2, json!({"go": target})).await;
            let back = ana.push_of("match.moved").await;
            assert_eq!((&back["match"], &back["to"]), (&json!(to), &json!(to)), "{target}");
            assert!(back["seat"].as_u64().unwrap() > seat, "the seat is a new one");
            seat = back["seat"].as_u64().unwrap();
            assert_eq!(data_with(&ben, "answer").await["error"], error);
            ana.send_unnumbered(&to, json!({"ask": true})).await;
            assert_eq!(data_with(&ana, "held").await["held"], 7, "{target}");
            // The next seat counts from one again.
            ana.send(&to, 1, json!({})).await;
        }
    }
}

/// A player who has crossed so many borders.
type Traveller = (String, u64);

/// How often each was seen.
type Counted = BTreeMap<Traveller, usize>;

/// What a spectator of a match has heard.
#[derive(Default)]
struct Sightings {
    came: Vec<Traveller>,
    left: Vec<Traveller>,
}

/// Notes who comes and goes until nothing was heard for a while.
async fn watch(spectator: Client) -> Sightings {
    let mut seen = Sightings::default();
    while let Ok(push) = spectator.next_push_within(Duration::from_secs(8)).await {
        let push = push.expect("the node keeps the connection");
        assert_ne!(push["type"], "match.reset", "a spectator missed something");
        let said = &push["data"];
        let hops = said["hops"].as_u64();
        match (said["in"].as_str(), said["out"].as_str(), hops) {
            (Some(player), None, Some(hops)) => seen.came.push((player.to_owned(), hops)),
            (None, Some(player), Some(hops)) => seen.left.push((player.to_owned(), hops)),
            _ => {}
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_players_cross_borders_two_thousand_times_and_nobody_is_lost_or_in_two_places() {
    const PLAYERS: usize = 50;
    const CROSSINGS: usize = 40;
    let cluster = couriers(3).await;
    let host = cluster.node(0).guest(Encoding::Json).await;
    let mut zones = Vec::new();
    let mut watching = tokio::task::JoinSet::new();
    let mut watchers = Vec::new();
    for index in 0..3 {
        // One of the three turns some away.
        let params = json!({"refuse": if index == 2 { 7 } else { 0 }});
        let zone = place(&cluster, &host, index, &format!("zone-{index}"), params).await;
        // Next to the match: what a spectator misses is not what is tested here.
        let spectator = cluster.node(index).guest(Encoding::Json).await;
        let seated = spectator.ask("match.join", json!({"match": zone, "role": "spectator"}));
        seated.await.unwrap();
        watchers.push(spectator.player().to_owned());
        watching.spawn(watch(spectator));
        zones.push(zone);
    }
    let began = Instant::now();
    let mut walking = tokio::task::JoinSet::new();
    for who in 0..PLAYERS {
        let player = cluster.node(who % 3).guest(BOTH[who % 2]).await;
        let zones = zones.clone();
        walking.spawn(async move {
            let mut at = zones[who % 3].clone();
            let mut seat = player.join(&at).await.unwrap();
            let mut refusals = 0;
            for step in 0..CROSSINGS {
                let target = format!("zone-{}", (who + step) % 3);
                let mine = zones.iter().position(|zone| *zone == at).unwrap();
                let target = match target == format!("zone-{mine}") {
                    true => format!("zone-{}", (mine + 1) % 3),
                    false => target,
                };
                // With a number: what has none may be lost with a connection. Whoever comes carries what they had, and one more.
                let n = seat["n"].as_u64().unwrap() + 1;
                player.send(&at, n, json!({"take": 1})).await;
                tokio::time::sleep(Duration::from_millis((who * 7 + step * 131) as u64 % 400)).await;
                player.send(&at, n + 1, json!({"go": target})).await;
                let moved = player.push_of("match.moved").await;
                assert_eq!(moved["match"], json!(at));
                refusals += usize::from(moved["to"] == json!(at));
                at = moved["to"].as_str().unwrap().to_owned();
                seat = moved;
            }
            (player, at, refusals)
        });
    }
    let mut cuts = 0;
    let cutting = async {
        for index in (0..3).cycle() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cluster.ops(index).post("/v1/faults/cut-data-links", json!({})).await;
            cuts += 1;
        }
    };
    let arriving = async {
        let mut arrived = Vec::new();
        while let Some(done) = walking.join_next().await {
            arrived.push(done.unwrap());
        }
        arrived
    };
    let arrived = tokio::select! {
        arrived = arriving => arrived,
        () = cutting => unreachable!("it cuts until all have arrived"),
    };
    let took = began.elapsed();
    let refusals: usize = arrived.iter().map(|(_, _, refusals)| refusals).sum();
    println!(
        "{} crossings in {took:?}, {refusals} refused, {cuts} cuts",
        PLAYERS * CROSSINGS
    );
    assert!(refusals > 0, "some were to be turned away");
    let mut seated = 0;
    for zone in &zones {
        seated += cluster.ops(0).match_view(zone).await["players"].as_u64().unwrap();
    }
    assert_eq!(seated, PLAYERS as u64, "everybody is in one place");
    for (player, at, _) in &arrived {
        player.send_unnumbered(at, json!({"ask": true})).await;
        assert_eq!(
            data_with(player, "held").await["held"],
            CROSSINGS,
            "items are conserved"
        );
    }
    // After each border everybody came to one place, and left it once before the next.
    let (mut came, mut left) = (Counted::new(), Counted::new());
    while let Some(seen) = watching.join_next().await {
        let seen = seen.unwrap();
        seen.came.into_iter().for_each(|who| *came.entry(who).or_default() += 1);
        seen.left.into_iter().for_each(|who| *left.entry(who).or_default() += 1);
    }
    for (player, ..) in &arrived {
        for hops in 0..=CROSSINGS as u64 {
            let who = (player.player().to_owned(), hops);
            let times = (came.remove(&who), left.remove(&who));
            let stays = hops == CROSSINGS as u64;
            assert_eq!(times, (Some(1), (!stays).then_some(1)), "came and left: {who:?}");
        }
    }
    came.retain(|(player, _), _| !watchers.contains(player));
    assert_eq!((came, left), (Counted::new(), Counted::new()));
}
