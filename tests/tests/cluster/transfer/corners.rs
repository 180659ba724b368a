//! Transfers in their corners: what is asked and said on the way, players without a socket, targets that are full or end, and nodes
//! that stand still, hand matches over or die at the wrong moment.

use std::collections::BTreeSet;

use rookery_tests::harness::{Account, Client, Encoding, TestCluster, eventually};
use serde_json::{Value, json};

use super::{BOTH, couriers, data_with};

fn tag(encoding: Encoding) -> &'static str {
    if encoding == Encoding::Json { "json" } else { "msgpack" }
}

/// A courier on the node with this index, called `name`: it is moved there if it began elsewhere.
async fn place(cluster: &TestCluster, player: &Client, index: usize, name: &str) -> String {
    let made = player
        .create_with(json!({"module": "courier", "name": name}))
        .await
        .unwrap();
    let wanted = json!(cluster.node(index).name());
    if cluster.ops(index).match_view(&made).await["owner"] != wanted {
        let path = format!("/v1/matches/{made}/move");
        let (status, answer) = cluster.ops(index).post(&path, json!({"to": wanted})).await;
        assert_eq!(status, 200, "{answer}");
    }
    made
}

/// Pushes that have come by now: the node answers a question only after it has said them.
async fn pushes_until_answered(player: &Client) -> Vec<Value> {
    player.ask("session.ping", json!({})).await.unwrap();
    let mut pushes = Vec::new();
    while let Ok(push) = player.next_push_within(std::time::Duration::from_millis(1)).await {
        pushes.push(push.expect("the node keeps the connection"));
    }
    pushes
}

async fn players(cluster: &TestCluster, ops: usize, target: &str) -> u64 {
    cluster.ops(ops).match_view(target).await["players"]
        .as_u64()
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_sends_its_player_away_is_applied_and_what_is_said_on_the_way_is_not() {
    let mut cluster = couriers(3).await;
    for encoding in BOTH {
        let tag = tag(encoding);
        let ana = cluster.node(2).guest(encoding).await;
        let from = place(&cluster, &ana, 0, &format!("shore-{tag}")).await;
        let to = place(&cluster, &ana, 1, &format!("isle-{tag}")).await;
        let mut at = ana.join(&from).await.unwrap();
        for numbered in [false, true] {
            let (here, there) = match at["to"] == json!(to) {
                true => (&to, &from),
                false => (&from, &to),
            };
            // Whoever takes the player in stands still: they are on the way until it goes on.
            let taker = if there == &to { 1 } else { 0 };
            cluster.node_mut(taker).stop();
            let n = at["n"].as_u64().unwrap() + 1;
            let go = match numbered {
                true => json!({"match": here, "n": n, "data": {"go": there}}),
                false => json!({"match": here, "data": {"go": there}}),
            };
            let applied = ana.ask("match.send", go).await.unwrap();
            assert_eq!(
                (&applied["type"], &applied["match"]),
                (&json!("match.applied"), &json!(here))
            );
            assert_eq!(applied["n"], if numbered { json!(n) } else { Value::Null });
            // Nothing of this is applied anywhere.
            ana.send(here, n, json!({"take": 100})).await;
            ana.send(here, n + 1, json!({"take": 100})).await;
            ana.send_unnumbered(here, json!({"take": 100})).await;
            for data in [
                json!({"match": here, "data": {"take": 100}}),
                json!({"match": here, "n": n + 2, "data": {"take": 100}}),
            ] {
                assert_eq!(ana.ask("match.send", data).await.unwrap_err().code, "match.not_joined");
            }
            let refused = ana.join(here).await.unwrap_err();
            assert_eq!(refused.code, "unavailable");
            assert!(refused.details["retry_ms"].is_u64(), "{refused:?}");
            cluster.node_mut(taker).cont();
            // Nobody complains of what wanted no answer.
            let moved = loop {
                let push = ana.expect_push().await;
                assert_ne!(push["type"], "error", "{push}");
                assert_ne!(push["type"], "match.resend", "{push}");
                if push["type"] == "match.moved" {
                    break push;
                }
            };
            assert_eq!((&moved["match"], &moved["to"]), (&json!(here), &json!(there)));
            // A client may have said this before it heard.
            ana.send(here, n + 1, json!({"take": 100})).await;
            ana.send_unnumbered(here, json!({"take": 100})).await;
            let pushes = pushes_until_answered(&ana).await;
            assert!(pushes.iter().all(|push| push["type"] != "error"), "{pushes:?}");
            ana.send(there, 1, json!({"ask": true})).await;
            assert_eq!(data_with(&ana, "held").await["held"], 0);
            at = moved;
            at["n"] = json!(1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_arrived_is_found_though_the_match_they_left_is_moved_before_their_node_asks() {
    let mut cluster = couriers(3).await;
    for encoding in BOTH {
        let tag = tag(encoding);
        let ana = cluster.node(2).guest(encoding).await;
        let ben = cluster.node(0).guest(encoding).await;
        let from = place(&cluster, &ben, 0, &format!("ford-{tag}")).await;
        let to = place(&cluster, &ben, 1, &format!("bank-{tag}")).await;
        let seat = ana.join(&from).await.unwrap()["seat"].clone();
        ben.join(&from).await.unwrap();
        cluster.node_mut(2).stop();
        ben.send_unnumbered(&from, json!({"go": to, "who": seat, "take": 3}))
            .await;
        eventually("she has arrived", async || players(&cluster, 1, &to).await == 1).await;
        let wish = json!({"to": cluster.node(1).name()});
        let (status, answer) = cluster.ops(0).post(&format!("/v1/matches/{from}/move"), wish).await;
        assert_eq!(status, 200, "{answer}");
        cluster.node_mut(2).cont();
        let told = ana
            .push_where("where she is", |push| {
                push["type"] == "match.moved" || push["type"] == "match.kicked"
            })
            .await;
        assert_eq!(
            (&told["type"], &told["to"]),
            (&json!("match.moved"), &json!(to)),
            "{told}"
        );
        ana.send(&to, 1, json!({"ask": true})).await;
        assert_eq!(data_with(&ana, "held").await["held"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_sent_on_by_a_match_that_ends_at_once_is_told_where_they_are() {
    let cluster = couriers(2).await;
    for encoding in BOTH {
        let tag = tag(encoding);
        for round in 0..5 {
            // Next to each other, and far from their player: the end overtakes whatever she asks.
            let ana = cluster.node(1).guest(encoding).await;
            let ben = cluster.node(1).guest(encoding).await;
            let from = place(&cluster, &ana, 0, &format!("quay-{tag}-{round}")).await;
            let to = place(&cluster, &ana, 0, &format!("ship-{tag}-{round}")).await;
            ana.join(&from).await.unwrap();
            ben.join(&from).await.unwrap();
            let last = json!({"match": from, "data": {"go": to, "take": 2, "finish": true}});
            assert_eq!(ana.ask("match.send", last).await.unwrap()["type"], "match.applied");
            let told = ana
                .push_where("where she is", |push| {
                    push["type"] == "match.moved" || push["type"] == "match.ended"
                })
                .await;
            assert_eq!(
                (&told["type"], &told["to"]),
                (&json!("match.moved"), &json!(to)),
                "{told}"
            );
            assert_eq!(ben.push_of("match.ended").await["match"], json!(from));
            ana.send(&to, 1, json!({"ask": true})).await;
            assert_eq!(data_with(&ana, "held").await["held"], 2);
            let pushes = pushes_until_answered(&ana).await;
            assert!(pushes.iter().all(|push| push["type"] != "match.ended"), "{pushes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_match_sends_players_and_spectators_back_and_a_spectator_stays_one() {
    let cluster = couriers(3).await;
    cluster.publish("duel").await;
    for encoding in BOTH {
        let tag = tag(encoding);
        let ana = cluster.node(2).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let from = place(&cluster, &ana, 0, &format!("yard-{tag}")).await;
        let to = place(&cluster, &ana, 1, &format!("hall-{tag}")).await;
        ana.join(&from).await.unwrap();
        ben.join(&from).await.unwrap();

        // Both seats of a duel are taken.
        let duel = ana.create("duel").await;
        let mut duellists = Vec::new();
        for index in 0..2 {
            let duellist = cluster.node(index).guest(encoding).await;
            duellist.join(&duel).await.unwrap();
            duellists.push(duellist);
        }
        ana.send_unnumbered(&from, json!({"go": duel, "take": 4})).await;
        let back = ana.push_of("match.moved").await;
        assert_eq!((&back["match"], &back["to"]), (&json!(from), &json!(from)));
        assert_eq!(data_with(&ben, "answer").await["error"], "Refused");
        assert_eq!(players(&cluster, 0, &duel).await, 2);

        // A spectator is taken along as one, until no more may watch.
        let watches = json!({"match": from, "role": "spectator"});
        let mut watchers = Vec::new();
        for round in 0..6 {
            let watcher = cluster.node(round % 3).guest(encoding).await;
            let seat = watcher.ask("match.join", watches.clone()).await.unwrap()["seat"].clone();
            ben.send_unnumbered(&from, json!({"go": to, "who": seat})).await;
            let moved = watcher.push_of("match.moved").await;
            let fits = round < 5;
            assert_eq!(moved["to"], json!(if fits { &to } else { &from }), "{round}: {moved}");
            let mine = moved["players"].as_array().unwrap().iter();
            let me = mine.filter(|who| who["player"] == json!(watcher.player()));
            assert!(me.clone().all(|who| who["role"] == "spectator"), "{moved}");
            assert_eq!(me.count(), 1, "{moved}");
            watchers.push(watcher);
        }
        assert_eq!(data_with(&ben, "answer").await["error"], "Refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_sent_on_without_a_socket_hears_where_they_are_when_they_come_back_on_any_node() {
    let cluster = couriers(3).await;
    for encoding in BOTH {
        let tag = tag(encoding);
        let account = Account::guest(cluster.node(0).client_address()).await;
        let ana = Client::open(cluster.node(0).client_address(), encoding, &account).await;
        let ben = cluster.node(1).guest(encoding).await;
        let mut stops = Vec::new();
        for index in 0..3 {
            let name = format!("stop-{index}-{tag}");
            stops.push(place(&cluster, &ben, index, &name).await);
        }
        let aside = place(&cluster, &ben, 1, &format!("aside-{tag}")).await;
        let joined = ana.join(&stops[0]).await.unwrap();
        let stays = ana.join(&aside).await.unwrap();
        for stop in &stops {
            ben.join(stop).await.unwrap();
        }
        let token = ana.opened()["resume_token"].clone();
        drop(ana);
        ben.push_where("ana is away", |push| push["away"] == json!([joined["seat"]]))
            .await;
        // On, and on again: nobody follows her.
        ben.send_unnumbered(&stops[0], json!({"go": stops[1], "who": joined["seat"], "take": 6}))
            .await;
        let arrived = ben
            .push_where("ana comes", |push| {
                push["match"] == json!(stops[1]) && push["joined"][0]["player"] == json!(account.player)
            })
            .await;
        let seat = &arrived["joined"][0]["seat"];
        ben.send_unnumbered(&stops[1], json!({"go": stops[2], "who": seat}))
            .await;
        ben.push_where("ana comes", |push| {
            push["match"] == json!(stops[2]) && push["joined"][0]["player"] == json!(account.player)
        })
        .await;
        let named = json!({stops[0].clone(): joined["seq"], aside.clone(): stays["seq"]});
        let open = json!({"token": account.access_token, "resume": {"token": token, "matches": named}});
        let ana = Client::open_with(cluster.node(2).client_address(), encoding, open).await;
        let gone = ana.opened()["gone"].as_array().unwrap().clone();
        let there = json!({"match": stops[0], "why": "moved", "to": stops[2]});
        let again = json!({"match": aside, "why": "join_again"});
        assert!(
            gone.len() == 2 && gone.contains(&there) && gone.contains(&again),
            "{gone:?}"
        );
        // Her seats are kept, and what she carries.
        let back = ana.join(&stops[2]).await.unwrap();
        ana.send(&stops[2], back["n"].as_u64().unwrap() + 1, json!({"ask": true}))
            .await;
        assert_eq!(data_with(&ana, "held").await["held"], 6);
        assert_eq!(ana.join(&aside).await.unwrap()["seat"], stays["seat"]);
        for (stop, count) in stops.iter().zip([1, 1, 2]) {
            assert_eq!(
                players(&cluster, 0, stop).await,
                count,
                "ben is everywhere, and ana at the last"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_hears_where_they_are_though_the_match_they_left_was_moved_only_just_now() {
    let cluster = couriers(3).await;
    for encoding in BOTH {
        let tag = tag(encoding);
        let account = Account::guest(cluster.node(0).client_address()).await;
        let ana = Client::open(cluster.node(0).client_address(), encoding, &account).await;
        let ben = cluster.node(1).guest(encoding).await;
        let from = place(&cluster, &ben, 0, &format!("berth-{tag}")).await;
        let to = place(&cluster, &ben, 1, &format!("reef-{tag}")).await;
        let joined = ana.join(&from).await.unwrap();
        for stop in [&from, &to] {
            ben.join(stop).await.unwrap();
        }
        let token = ana.opened()["resume_token"].clone();
        drop(ana);
        ben.push_where("ana is away", |push| push["away"] == json!([joined["seat"]]))
            .await;
        ben.send_unnumbered(&from, json!({"go": to, "who": joined["seat"]}))
            .await;
        eventually("she has arrived", async || players(&cluster, 1, &to).await == 2).await;
        // The directory hears of each new owner some 30 ms later, and until then leads to one that has the match no longer.
        for (round, owner) in [2, 1, 0, 2, 1, 0].into_iter().enumerate() {
            let wish = json!({"to": cluster.node(owner).name()});
            let (status, answer) = cluster.ops(0).post(&format!("/v1/matches/{from}/move"), wish).await;
            assert_eq!(status, 200, "{answer}");
            let resume = json!({"token": token, "matches": {from.clone(): joined["seq"]}});
            let open = json!({"token": account.access_token, "resume": resume});
            let ana = Client::open_with(cluster.node(round % 3).client_address(), encoding, open).await;
            let there = json!([{"match": from, "why": "moved", "to": to}]);
            assert_eq!(ana.opened()["gone"], there, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_that_ends_when_its_player_has_come_and_their_node_has_not_says_so() {
    let mut cluster = couriers(3).await;
    for encoding in BOTH {
        let tag = tag(encoding);
        let ana = cluster.node(2).guest(encoding).await;
        let ben = cluster.node(0).guest(encoding).await;
        let from = place(&cluster, &ben, 0, &format!("path-{tag}")).await;
        let to = place(&cluster, &ben, 1, &format!("pit-{tag}")).await;
        let seat = ana.join(&from).await.unwrap()["seat"].clone();
        ben.join(&from).await.unwrap();
        cluster.node_mut(2).stop();
        ben.send_unnumbered(&from, json!({"go": to, "who": seat})).await;
        eventually("she has arrived", async || players(&cluster, 1, &to).await == 1).await;
        let (status, answer) = cluster.ops(1).post(&format!("/v1/matches/{to}/end"), json!({})).await;
        assert_eq!(status, 200, "{answer}");
        cluster.node_mut(2).cont();
        // She hears that she is out of the one and that the other is over, in whatever words say how far she came.
        let mut left = BTreeSet::new();
        while left.len() < 2 {
            let push = ana.expect_push().await;
            match push["type"].as_str().unwrap() {
                "match.moved" | "match.kicked" => left.insert(push["match"].as_str().unwrap().to_owned()),
                "match.ended" => left.insert(push["match"].as_str().unwrap().to_owned()),
                _ => false,
            };
        }
        assert_eq!(left, BTreeSet::from([from.clone(), to.clone()]));
        for over in [&from, &to] {
            let refused = ana.ask("match.send", json!({"match": over, "data": {}})).await;
            assert_eq!(refused.unwrap_err().code, "match.not_joined");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_that_ends_while_a_player_is_on_the_way_takes_them_in_or_sends_them_back() {
    let cluster = couriers(3).await;
    let (mut back, mut out) = (0, 0);
    for round in 0..8 {
        let ana = cluster.node(2).guest(BOTH[round % 2]).await;
        let from = place(&cluster, &ana, 0, &format!("rim-{round}")).await;
        let to = place(&cluster, &ana, 1, &format!("gap-{round}")).await;
        ana.join(&from).await.unwrap();
        let (end, ops) = (format!("/v1/matches/{to}/end"), cluster.ops(1));
        let going = ana.send_unnumbered(&from, json!({"go": to, "take": 1}));
        tokio::join!(going, ops.post(&end, json!({})));
        let mut is_in = None;
        loop {
            let push = ana.expect_push().await;
            match push["type"].as_str().unwrap() {
                "match.moved" if push["to"] == json!(from) => break is_in = Some(&from),
                "match.ended" if push["match"] == json!(to) => break,
                _ => {}
            }
        }
        match is_in {
            Some(home) => {
                back += 1;
                ana.send(home, 1, json!({"ask": true})).await;
                assert_eq!(data_with(&ana, "held").await["held"], 1);
            }
            None => {
                out += 1;
                assert_eq!(players(&cluster, 0, &from).await, 0, "she is nowhere");
            }
        }
    }
    println!("{back} came back, {out} were there at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_taken_in_before_the_match_they_left_was_lost_is_told_where_they_are_and_is_nowhere_else() {
    for encoding in BOTH {
        let mut cluster = couriers(3).await;
        let ana = cluster.node(2).guest(encoding).await;
        let ben = cluster.node(1).guest(encoding).await;
        let from = place(&cluster, &ben, 0, "raft").await;
        let to = place(&cluster, &ben, 1, "rock").await;
        let seat = ana.join(&from).await.unwrap()["seat"].clone();
        ben.join(&from).await.unwrap();
        cluster.node_mut(2).stop();
        ben.send_unnumbered(&from, json!({"go": to, "who": seat, "take": 5}))
            .await;
        eventually("she has arrived", async || players(&cluster, 1, &to).await == 1).await;
        // With it goes all that was known of where she went.
        cluster.node_mut(0).kill();
        cluster.node_mut(2).cont();
        let moved = ana.push_of("match.moved").await;
        assert_eq!((&moved["match"], &moved["to"]), (&json!(from), &json!(to)));
        ana.send(&to, 1, json!({"ask": true})).await;
        assert_eq!(data_with(&ana, "held").await["held"], 5);
        assert_eq!(ben.push_of("match.lost").await["match"], json!(from));
        assert_eq!(players(&cluster, 1, &to).await, 1);
        let refused = ana.ask("match.send", json!({"match": from, "data": {}})).await;
        assert_eq!(refused.unwrap_err().code, "match.not_joined");
    }
}
