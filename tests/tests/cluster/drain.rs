//! Draining: a node leaves without dropping anybody, by SIGTERM and by the operators' call, and comes back; and a rolling restart
//! by the procedure of docs/operating.md, under players.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt;
use rookery_protocol::client::Tree;
use rookery_tests::harness::{
    Account, Client, Encoding, Frame, Refused, Socket, TestCluster, Trouble, eventually, ledger,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Error as SocketError;

/// Generous: what ends a node is its deadline, and then its last states and its farewell.
const GONE_WITHIN: Duration = Duration::from_secs(40);

/// What a player may hear while nodes come and go (docs/operating.md).
const DOCUMENTED: [&str; 4] = ["draining", "unavailable", "match.closed", "match.not_joined"];

/// Where a node of `nodes` listens.
fn address_of(url: &Value) -> SocketAddr {
    let url = url.as_str().expect("a URL is text");
    url.rsplit("//")
        .next()
        .unwrap()
        .parse()
        .expect("the URL has an address")
}

/// How a node answers who wants a session over this socket.
async fn open_over(mut socket: Socket, account: &Account) -> Value {
    let encoding = socket.encoding();
    let open = json!({"type": "session.open", "id": 1, "token": account.access_token});
    let tree: Tree = serde_json::from_value(open).unwrap();
    socket.send(tree.write(encoding)).await.unwrap();
    match socket.next().await {
        Frame::Text(frame) | Frame::Binary(frame) => {
            serde_json::to_value(Tree::read(encoding, &frame).unwrap()).unwrap()
        }
        Frame::Closed(how) => panic!("closed: {how:?}"),
    }
}

/// How a node answers who wants a socket.
async fn handshake_refusal(address: SocketAddr, encoding: Encoding) -> (u16, Value) {
    let refused = Socket::try_connect(address, encoding, None, &[]).await;
    match refused.map_err(|error| *error) {
        Err(SocketError::Http(answer)) => {
            let body = answer.body().as_deref().expect("it says why");
            (answer.status().as_u16(), serde_json::from_slice(body).unwrap())
        }
        other => panic!("no refusal but {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_drains_when_it_is_asked_and_comes_back() {
    let mut cluster = TestCluster::start(3).await;
    cluster.publish("echo").await;
    let ops = cluster.ops(1);
    for (round, encoding) in [Encoding::Json, Encoding::MsgPack].into_iter().enumerate() {
        let account = Account::guest(cluster.node(0).client_address()).await;
        let mut players = Vec::new();
        for _ in 0..4 {
            players.push(cluster.node(0).guest(encoding).await);
        }
        let early = Socket::connect(cluster.node(0).client_address(), encoding).await;
        let (status, answer) = ops.post("/v1/nodes/node-9/drain", json!({})).await;
        assert_eq!((status, &answer["code"]), (404, &json!("node.not_found")));
        let (status, answer) = ops.post("/v1/nodes/node-1/drain", json!({"deadline_ms": 6_000})).await;
        assert_eq!(
            (status, &answer["node"], &answer["deadline_ms"]),
            (200, &json!("node-1"), &json!(6_000)),
            "{answer}"
        );
        let began = Instant::now();
        // Every session is told at once, each with a time of its own, and where to go.
        let others: BTreeSet<SocketAddr> = [1, 2].map(|node| cluster.node(node).client_address()).into();
        let mut times = Vec::new();
        for player in &players {
            let told = player.push_of("session.going_away").await;
            assert_eq!(told["reason"], "draining");
            let nodes: BTreeSet<SocketAddr> = told["nodes"].as_array().unwrap().iter().map(address_of).collect();
            assert_eq!(nodes, others);
            times.push(told["within_ms"].as_u64().unwrap());
        }
        assert!(began.elapsed() < Duration::from_secs(1), "told at once");
        times.sort_unstable();
        assert!(
            times.windows(2).all(|pair| pair[0] < pair[1]) && *times.last().unwrap() <= 6_000,
            "{times:?}"
        );
        // Not ready, no new sessions, and everybody sees why.
        let (status, why) = cluster.ops(0).get_text("/readyz").await.unwrap();
        assert_eq!((status, why.trim()), (503, "not ready: draining"));
        let refused = open_over(early, &account).await;
        assert_eq!(
            (&refused["type"], &refused["code"]),
            (&json!("error"), &json!("draining")),
            "{refused}"
        );
        let (status, refused) = handshake_refusal(cluster.node(0).client_address(), encoding).await;
        assert_eq!((status, &refused["code"]), (503, &json!("draining")));
        assert_eq!(refused["details"]["nodes"].as_array().unwrap().len(), 2, "{refused}");
        eventually("others see that it drains", async || {
            ops.members("draining").await == ["node-1"]
        })
        .await;
        for player in &players {
            let closed = player.closed().await;
            assert_eq!((closed.code, closed.reason.as_str()), (Some(1001), "going_away"));
        }
        assert_eq!(cluster.node_mut(0).exited(GONE_WITHIN).await.code(), Some(0));
        eventually("the others are two", async || {
            ops.members("ready").await == ["node-2", "node-3"]
        })
        .await;
        assert_eq!(
            ops.metric("rookery_suspicions_total").await,
            Some(0.0),
            "it said goodbye"
        );
        // The next life takes part at once. It keeps its address: the others are seeded with it.
        cluster.restart(0).await;
        cluster.settled().await;
        let back = cluster.node(0).guest(encoding).await;
        let game_match = back.create("echo").await;
        back.join(&game_match).await.unwrap();
        assert!(round < 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_fails_at_the_deadline_and_a_second_signal_does_not_wait() {
    let mut cluster = TestCluster::builder(2).set("drain.deadline", "4s").start().await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let game_match = loop {
        let game_match = ana.create("echo").await;
        if cluster.ops(0).match_view(&game_match).await["owner"] == "node-2" {
            break game_match;
        }
    };
    ana.join(&game_match).await.unwrap();
    cluster.node_mut(1).terminate();
    let began = Instant::now();
    // It plays on meanwhile, through the other node.
    eventually("the node drains", async || {
        cluster.ops(0).members("draining").await == ["node-2"]
    })
    .await;
    ana.send(&game_match, 1, json!({"all": "still here"})).await;
    assert_eq!(ana.push_of("match.data").await["data"], json!({"all": "still here"}));
    for _ in 0..20 {
        // Nothing new comes to a node that leaves.
        let created = ana.create("echo").await;
        assert_eq!(cluster.ops(0).match_view(&created).await["owner"], "node-1");
    }
    let failed = ana.push_of("match.failed").await;
    assert_eq!(
        (&failed["match"], &failed["reason"]),
        (&json!(game_match), &json!("draining"))
    );
    assert!(
        began.elapsed() > Duration::from_millis(2_500),
        "it had until the deadline: {:?}",
        began.elapsed()
    );
    assert_eq!(cluster.node_mut(1).exited(GONE_WITHIN).await.code(), Some(0));

    cluster.restart(1).await;
    cluster.settled().await;
    let long = cluster
        .ops(1)
        .post("/v1/nodes/*/drain", json!({"deadline_ms": 600_000}))
        .await;
    assert_eq!((long.0, &long.1["node"]), (200, &json!("node-2")));
    let _stays = cluster.node(0).guest(Encoding::Json).await;
    let waits = loop {
        // A match that began before keeps it.
        if cluster.ops(0).members("draining").await == ["node-2"] {
            break Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    cluster.node_mut(1).terminate();
    cluster.node_mut(1).terminate();
    cluster.node_mut(1).exited(Duration::from_secs(10)).await;
    assert!(waits.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_match_goes_on_elsewhere_and_its_players_hear_no_end() {
    let mut cluster = TestCluster::start(2).await;
    cluster.ops(0).publish(ledger()).await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let game_match = loop {
        let game_match = ana.create("ledger").await;
        if cluster.ops(0).match_view(&game_match).await["owner"] == "node-2" {
            break game_match;
        }
    };
    ana.join(&game_match).await.unwrap();
    let (status, answer) = cluster
        .ops(0)
        .post("/v1/nodes/node-2/drain", json!({"deadline_ms": 20_000}))
        .await;
    assert_eq!(status, 200, "{answer}");
    let began = Instant::now();
    assert_eq!(cluster.node_mut(1).exited(GONE_WITHIN).await.code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "there was nothing to wait for"
    );
    let shown = cluster.ops(0).match_view(&game_match).await;
    assert_eq!(
        (&shown["owner"], &shown["status"]),
        (&json!("node-1"), &json!("running"))
    );
    while let Ok(Some(push)) = ana.next_push_within(Duration::from_millis(100)).await {
        let kind = push["type"].as_str().unwrap();
        assert!(
            !matches!(kind, "match.failed" | "match.lost" | "match.ended" | "match.reset"),
            "{push}"
        );
    }
}

/// The answer to a request; none when the node closes the connection instead.
async fn asked(client: &Client, kind: &str, fields: Value) -> Option<Result<Value, Refused>> {
    match client.attempt(kind, fields).await {
        Ok(answer) => Some(Ok(answer)),
        Err(Trouble::Refused(refused)) => Some(Err(refused)),
        Err(Trouble::Gone) => None,
    }
}

/// What all players share.
struct Round {
    /// The match of each table, and a lock so that one makes the next.
    tables: Vec<tokio::sync::Mutex<String>>,
    errors: Mutex<BTreeMap<String, u64>>,
    /// Matches that failed, and when.
    failed: Mutex<BTreeMap<String, Instant>>,
    moved: AtomicU64,
    heard: AtomicU64,
    over: AtomicBool,
}

impl Round {
    fn refused(&self, code: &str) {
        *self.errors.lock().unwrap().entry(code.to_owned()).or_default() += 1;
    }

    /// Takes the player to its table, and makes a new match when the one there is over. The match, and the last input that it has
    /// of the player; none when the node closes the connection.
    async fn sit(&self, client: &Client, table: usize) -> Option<(String, u64)> {
        loop {
            let mut current = self.tables[table].lock().await;
            match asked(client, "match.join", json!({"match": *current})).await? {
                Ok(joined) => return Some((current.clone(), joined["n"].as_u64().expect("a seat has its n"))),
                Err(refused) => {
                    self.refused(&refused.code);
                    if matches!(refused.code.as_str(), "match.closed" | "match.not_found") {
                        match asked(client, "match.create", json!({"module": "echo"})).await? {
                            Ok(created) => *current = created["match"].as_str().unwrap().to_owned(),
                            Err(refused) => self.refused(&refused.code),
                        }
                    }
                }
            }
            drop(current);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// One player: plays, and moves on when its node goes away.
    async fn play(&self, account: Account, mut address: SocketAddr, encoding: Encoding, table: usize) {
        while !self.over.load(Ordering::Relaxed) {
            let client = Client::open(address, encoding, &account).await;
            let mut visit = Visit::default();
            self.visit(&client, table, &mut visit).await;
            if client.is_closed() {
                // What it was told before is still to be read.
                while let Some(push) = client.next_push().await {
                    self.hear(&push, &mut visit);
                }
                let closed = client.closed().await;
                assert!(visit.next.is_some(), "closed without notice: {closed:?}");
                assert_eq!(closed.code, Some(1001), "{closed:?}");
            }
            if let Some((next, _)) = visit.next {
                address = next;
                self.moved.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Plays on one node, until the player goes, the node closes the connection, or all is over.
    async fn visit(&self, client: &Client, table: usize, visit: &mut Visit) {
        loop {
            let Some((game_match, mut n)) = self.sit(client, table).await else {
                return;
            };
            visit.game_match = game_match.clone();
            while visit.game_match == game_match {
                // Half of the players go at once, the others stay until they are sent away.
                let is_gone = visit.next.is_some_and(|(_, leaves)| Instant::now() >= leaves);
                if self.over.load(Ordering::Relaxed) || is_gone {
                    return;
                }
                n += 1;
                client.send(&game_match, n, json!({"me": n})).await;
                let pause = Instant::now() + Duration::from_millis(800);
                while let Ok(push) = client
                    .next_push_within(pause.saturating_duration_since(Instant::now()))
                    .await
                {
                    match push {
                        Some(push) => self.hear(&push, visit),
                        None => return,
                    }
                }
            }
        }
    }

    fn hear(&self, push: &Value, visit: &mut Visit) {
        match push["type"].as_str().unwrap() {
            "session.going_away" => {
                assert_eq!(push["reason"], "draining");
                let nodes = push["nodes"].as_array().unwrap();
                assert!(!nodes.is_empty(), "there is somewhere to go");
                let choice = rand::rng().random_range(0..nodes.len());
                let within = Duration::from_millis(push["within_ms"].as_u64().unwrap());
                let patience = if rand::rng().random_bool(0.5) {
                    within / 4
                } else {
                    within * 2
                };
                visit.next = Some((address_of(&nodes[choice]), Instant::now() + patience));
            }
            "match.failed" => {
                assert_eq!(push["reason"], "draining", "{push}");
                let failed = push["match"].as_str().unwrap().to_owned();
                self.failed.lock().unwrap().entry(failed).or_insert_with(Instant::now);
                visit.game_match.clear();
            }
            "match.lost" | "match.ended" => panic!("a match ended early: {push}"),
            "error" => self.refused(push["code"].as_str().unwrap()),
            "match.data" => drop(self.heard.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

/// A player on one node.
#[derive(Default)]
struct Visit {
    /// Empty when it failed: the player looks for another one.
    game_match: String,
    /// Where to go, and when.
    next: Option<(SocketAddr, Instant)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_drops_nobody() {
    const TABLES: usize = 20;
    const PLAYERS: usize = 200;
    const DEADLINE: Duration = Duration::from_secs(8);
    let mut cluster = TestCluster::builder(3)
        .set("limits.accounts", "100000/s burst 100000")
        .start()
        .await;
    cluster.publish("echo").await;
    let first = cluster.node(0).guest(Encoding::Json).await;
    let mut tables = Vec::new();
    for _ in 0..TABLES {
        tables.push(tokio::sync::Mutex::new(first.create("echo").await));
    }
    drop(first);
    let round = Arc::new(Round {
        tables,
        errors: Mutex::default(),
        failed: Mutex::default(),
        moved: AtomicU64::new(0),
        heard: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let accounts = join_all((0..PLAYERS).map(|no| Account::guest(cluster.node(no % 3).client_address()))).await;
    let mut playing = Vec::new();
    for (no, account) in accounts.into_iter().enumerate() {
        let (round, address) = (Arc::clone(&round), cluster.node(no % 3).client_address());
        let encoding = [Encoding::Json, Encoding::MsgPack][no % 2];
        playing.push(tokio::spawn(async move {
            round.play(account, address, encoding, no % TABLES).await
        }));
    }
    eventually("all play", async || {
        round.heard.load(Ordering::Relaxed) > 2 * PLAYERS as u64
    })
    .await;

    // The procedure: drain a node, wait until it is gone, start it again, wait until it is ready and all see it; the next.
    let mut ordered = BTreeMap::new();
    for node in 0..3 {
        let asked = cluster.ops((node + 1) % 3);
        let path = format!("/v1/nodes/{}/drain", cluster.node(node).name());
        let (status, answer) = asked
            .post(&path, json!({"deadline_ms": DEADLINE.as_millis() as u64}))
            .await;
        assert_eq!(status, 200, "{answer}");
        ordered.insert(node, Instant::now());
        assert_eq!(cluster.node_mut(node).exited(GONE_WITHIN).await.code(), Some(0));
        cluster.restart(node).await;
        cluster.settled().await;
    }
    let heard = round.heard.load(Ordering::Relaxed);
    eventually("all play on", async || {
        round.heard.load(Ordering::Relaxed) > heard + 2 * PLAYERS as u64
    })
    .await;
    round.over.store(true, Ordering::Relaxed);
    for played in join_all(playing).await {
        played.expect("a player was dropped");
    }
    let errors = round.errors.lock().unwrap().clone();
    let failed = round.failed.lock().unwrap().clone();
    let moved = round.moved.load(Ordering::Relaxed);
    println!(
        "{moved} sessions were sent away, players heard of {} failed matches, errors {errors:?}",
        failed.len()
    );
    assert!(moved >= PLAYERS as u64, "everybody was on a node that left");
    for code in errors.keys() {
        assert!(DOCUMENTED.contains(&code.as_str()), "{code} is not documented");
    }
    for (game_match, at) in failed {
        let latest = ordered
            .values()
            .filter(|order| **order <= at)
            .max()
            .expect("after an order");
        assert!(
            at - *latest >= DEADLINE - Duration::from_millis(1_500),
            "{game_match} ended {:?} after the order",
            at - *latest
        );
    }
}
