//! Who is online, heard on every node: changes within a second, nobody missing, and no ghosts of a dead node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rookery_tests::harness::{Account, Client, Encoding, TestCluster, eventually, until_within};
use serde_json::{Value, json};

/// CONTRACT, guarantees: `online` falls so long after the last socket closed.
const LINGER: Duration = Duration::from_secs(3);

/// Messages travel, and this machine does other things meanwhile.
const SLACK: Duration = Duration::from_secs(1);

/// How soon a crash is a verdict in the profile `lan`.
const FAILURE_BOUND: Duration = Duration::from_secs(4);

/// The presence of these players, as one client is told.
async fn watch(client: &Client, players: &[&str]) -> BTreeMap<String, Value> {
    let state = client.ask("presence.watch", json!({"players": players})).await;
    states(&state.expect("the players are watched"))
}

fn states(answer: &Value) -> BTreeMap<String, Value> {
    assert_eq!(answer["type"], "presence.state");
    let players = answer["players"].as_array().expect("a list of players");
    players
        .iter()
        .map(|state| (state["player"].as_str().expect("an id").to_owned(), state.clone()))
        .collect()
}

/// The next change of a player that a client hears of.
async fn change_of(client: &Client, player: &str) -> Value {
    let what = format!("a change of {player}");
    client
        .push_where(&what, |push| {
            push["type"] == "presence.changed" && push["player"] == player
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_match_of_a_player_are_seen_from_other_nodes_in_both_encodings() {
    let cluster = TestCluster::start(3).await;
    cluster.publish("echo").await;
    for (encoding, other) in [(Encoding::Json, Encoding::MsgPack), (Encoding::MsgPack, Encoding::Json)] {
        let ana = cluster.node(0).guest(encoding).await;
        let ben = cluster.node(1).guest(other).await;
        let cid = cluster.node(2).guest(encoding).await;
        let nobody = "00000000000000000000000000";
        for watcher in [&ben, &cid] {
            let seen = watch(watcher, &[ana.player(), nobody]).await;
            assert_eq!(
                seen[ana.player()],
                json!({"player": ana.player(), "online": true, "status": null})
            );
            assert_eq!(seen[nobody], json!({"player": nobody, "online": false, "status": null}));
        }

        let own = ana.ask("presence.set", json!({"status": "fishing"})).await.unwrap();
        assert_eq!(
            own["players"],
            json!([{"player": ana.player(), "online": true, "status": "fishing"}])
        );
        for watcher in [&ben, &cid] {
            let change = change_of(watcher, ana.player()).await;
            let expected =
                json!({"type": "presence.changed", "player": ana.player(), "online": true, "status": "fishing"});
            assert_eq!(change, expected);
        }
        let game_match = ana.create("echo").await;
        ana.join(&game_match).await.unwrap();
        eventually("the match is seen", async || {
            watch(&ben, &[ana.player()]).await[ana.player()]["match"] == game_match.as_str()
        })
        .await;
        ana.ask("match.leave", json!({"match": game_match})).await.unwrap();
        eventually("the match is no longer seen", async || {
            watch(&ben, &[ana.player()]).await[ana.player()].get("match").is_none()
        })
        .await;

        // Clearing the status is a change; whoever has stopped watching hears nothing of it.
        let rest = ben
            .ask("presence.unwatch", json!({"players": [ana.player()]}))
            .await
            .unwrap();
        assert_eq!(states(&rest).into_keys().collect::<Vec<_>>(), [nobody]);
        let rest = ben.ask("presence.unwatch", json!({})).await.unwrap();
        assert!(states(&rest).is_empty());
        ana.ask("presence.set", json!({})).await.unwrap();
        assert_eq!(change_of(&cid, ana.player()).await["status"], Value::Null);
        assert!(ben.next_push_within(Duration::from_millis(200)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_presence_refuses_it_says_and_nothing_changes() {
    let cluster = TestCluster::builder(1).set("limits.presence_watches", 3).start().await;
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let ana = cluster.node(0).guest(encoding).await;
        let long = ana
            .ask("presence.set", json!({"status": "é".repeat(129)}))
            .await
            .unwrap_err();
        assert_eq!((long.code.as_str(), &long.details["max"]), ("too_large", &json!(128)));
        let own = ana
            .ask("presence.set", json!({"status": "é".repeat(128)}))
            .await
            .unwrap();
        assert_eq!(own["players"][0]["status"], "é".repeat(128));

        let odd = ana
            .ask("presence.watch", json!({"players": ["nobody"]}))
            .await
            .unwrap_err();
        assert_eq!(odd.code, "bad_message");
        let odd = ana
            .ask("presence.unwatch", json!({"players": ["nobody"]}))
            .await
            .unwrap_err();
        assert_eq!(odd.code, "bad_message");
        let none = ana.ask("presence.watch", json!({})).await.unwrap_err();
        assert_eq!(none.code, "bad_message");
        let ids: Vec<String> = (0..4)
            .map(|number| format!("0000000000000000000000000{number}"))
            .collect();
        let many = ana.ask("presence.watch", json!({"players": ids})).await.unwrap_err();
        assert_eq!((many.code.as_str(), &many.details["max"]), ("too_large", &json!(3)));
        let three = ana.ask("presence.watch", json!({"players": ids[..3]})).await.unwrap();
        assert_eq!(states(&three).len(), 3);
        let fourth = ana
            .ask("presence.watch", json!({"players": ids[3..]}))
            .await
            .unwrap_err();
        assert_eq!(fourth.code, "too_large");
        ana.ask("presence.unwatch", json!({"players": ids[..1]})).await.unwrap();
        let fourth = ana.ask("presence.watch", json!({"players": ids[3..]})).await.unwrap();
        assert_eq!(states(&fourth).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_reconnect_shows_nothing_and_the_last_session_counts() {
    let cluster = TestCluster::start(3).await;
    let account = Account::guest(cluster.node(0).client_address()).await;
    let open = async |index: usize| Client::open(cluster.node(index).client_address(), Encoding::Json, &account).await;
    let watcher = cluster.node(2).guest(Encoding::MsgPack).await;
    let ana = account.player.as_str();

    let first = open(0).await;
    assert_eq!(watch(&watcher, &[ana]).await[ana]["online"], true);
    first.ask("presence.set", json!({"status": "one"})).await.unwrap();
    assert_eq!(change_of(&watcher, ana).await["status"], "one");
    // Gone, and back on another node well within the three seconds: the status came along.
    drop(first);
    let second = open(1).await;
    let quiet = watcher.next_push_within(LINGER + SLACK).await;
    assert!(quiet.is_err(), "a reconnect was heard: {quiet:?}");
    assert_eq!(
        watch(&watcher, &[ana]).await[ana],
        json!({"player": ana, "online": true, "status": "one"})
    );

    // Two sessions on two nodes: the last one to set the status counts, and it outlives that session.
    let third = open(0).await;
    third.ask("presence.set", json!({"status": "two"})).await.unwrap();
    assert_eq!(change_of(&watcher, ana).await["status"], "two");
    drop(third);
    let quiet = watcher.next_push_within(LINGER + SLACK).await;
    assert!(quiet.is_err(), "one of two sessions was heard to close: {quiet:?}");
    let (status, view) = cluster.ops(2).get("/v1/cluster").await;
    assert_eq!((status, &view["players"]), (200, &json!(2)), "{view}");

    let closed_at = Instant::now();
    drop(second);
    let gone = change_of(&watcher, ana).await;
    assert_eq!(
        gone,
        json!({"type": "presence.changed", "player": ana, "online": false, "status": null})
    );
    let took = closed_at.elapsed();
    assert!(
        took >= LINGER - SLACK && took <= LINGER + SLACK + SLACK,
        "offline after {took:?}"
    );
    assert_eq!(cluster.ops(1).get("/v1/cluster").await.1["players"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_heard_on_other_nodes_within_a_second() {
    const PLAYERS: usize = 30;
    const WATCHERS: usize = 4;
    const CHANGES: usize = 20;
    let cluster = TestCluster::start(3).await;
    let mut players = Vec::new();
    let mut watchers = Vec::new();
    for index in 0..PLAYERS {
        players.push(cluster.node(index % 3).guest(Encoding::Json).await);
    }
    let ids: Vec<String> = players.iter().map(|player| player.player().to_owned()).collect();
    for index in 0..3 * WATCHERS {
        let watcher = cluster.node(index % 3).guest(Encoding::MsgPack).await;
        let seen = watch(&watcher, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(seen.values().all(|state| state["online"] == true), "{seen:?}");
        watchers.push(watcher);
    }
    let began = Instant::now();
    let since = move || began.elapsed().as_micros() as u64;
    let mut listening = tokio::task::JoinSet::new();
    for watcher in watchers {
        listening.spawn(async move {
            let mut took = Vec::new();
            let mut last: BTreeMap<String, String> = BTreeMap::new();
            while last
                .values()
                .filter(|status| status.starts_with(&format!("{} ", CHANGES - 1)))
                .count()
                < PLAYERS
            {
                let push = watcher.push_of("presence.changed").await;
                let status = push["status"].as_str().expect("each has a status").to_owned();
                let sent: u64 = status.split(' ').nth(1).expect("number, time").parse().expect("a time");
                took.push(since() - sent);
                last.insert(push["player"].as_str().expect("an id").to_owned(), status);
            }
            took
        });
    }
    for number in 0..CHANGES {
        for player in &players {
            let status = format!("{number} {}", since());
            player.ask("presence.set", json!({"status": status})).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut took: Vec<u64> = listening.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    let quantile = |share: f64| Duration::from_micros(took[((took.len() - 1) as f64 * share) as usize]);
    let (median, p99) = (quantile(0.5), quantile(0.99));
    println!("{} changes heard, median {median:?}, p99 {p99:?}", took.len());
    // Of a player who changes twice in a moment the newer state is enough, so some may be fewer.
    assert!(
        took.len() >= PLAYERS * 3 * WATCHERS * CHANGES / 2,
        "{} changes heard",
        took.len()
    );
    assert!(p99 <= Duration::from_secs(1), "p99 {p99:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_s_players_go_offline_within_the_failure_bound_and_leave_no_ghosts() {
    const PLAYERS: usize = 20;
    let mut cluster = TestCluster::start(3).await;
    let mut doomed = Vec::new();
    for _ in 0..PLAYERS {
        doomed.push(cluster.node(2).guest(Encoding::Json).await);
    }
    // One of them has a session elsewhere, too, and one comes back.
    let survivor = cluster.node(2).guest(Encoding::Json).await;
    let ids: Vec<&str> = doomed.iter().map(Client::player).chain([survivor.player()]).collect();
    let watchers = [
        cluster.node(0).guest(Encoding::Json).await,
        cluster.node(1).guest(Encoding::MsgPack).await,
    ];
    for watcher in &watchers {
        assert!(watch(watcher, &ids).await.values().all(|state| state["online"] == true));
    }
    let account = Account::guest(cluster.node(0).client_address()).await;
    let here = Client::open(cluster.node(0).client_address(), Encoding::Json, &account).await;
    let there = Client::open(cluster.node(2).client_address(), Encoding::Json, &account).await;
    for watcher in &watchers {
        assert_eq!(
            watch(watcher, &[&account.player]).await[&account.player]["online"],
            true
        );
    }

    let killed_at = Instant::now();
    cluster.node_mut(2).kill();
    for watcher in &watchers {
        let mut gone: BTreeMap<String, Duration> = BTreeMap::new();
        while gone.len() < ids.len() {
            let push = watcher.push_of("presence.changed").await;
            assert_eq!(push["online"], false, "{push}");
            let player = push["player"].as_str().expect("an id").to_owned();
            assert_ne!(player, account.player, "a player with another session is online");
            assert!(gone.insert(player, killed_at.elapsed()).is_none(), "told twice: {push}");
        }
        let last = gone.values().max().copied().unwrap_or_default();
        println!("the last of {} was offline after {last:?}", gone.len());
        assert!(last <= FAILURE_BOUND + SLACK, "offline after {last:?}");
    }
    for (index, watcher) in watchers.iter().enumerate() {
        let ops = cluster.ops(index);
        // The two watchers and the player with a session here.
        until_within(
            Duration::from_secs(30),
            "nobody of the dead node is counted",
            async || (ops.get("/v1/cluster").await.1["players"] == 3).then_some(()),
        )
        .await;
        let seen = watch(watcher, &ids).await;
        assert!(seen.values().all(|state| state["online"] == false), "a ghost: {seen:?}");
        assert_eq!(
            watch(watcher, &[&account.player]).await[&account.player]["online"],
            true
        );
    }
    drop((here, there, doomed));
}
