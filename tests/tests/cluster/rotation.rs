//! The cluster's secret is replaced by the procedure of docs/operating.md ("Secrets"), node by node, under a player who goes on playing:
//! each time its node is restarted it goes on at another one, let in by its resume token alone, in the same seat, and every input is
//! applied once and in turn. (What was said while it was away is not said again in this version; docs/protocol.md.) Afterwards the old
//! secret opens nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rookery_gossip::Secret;
use rookery_tests::harness::{Account, Client, Encoding, NodeProcess, TestCluster, Trouble, eventually, ledger};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const OLD: &str = "the secret that somebody has published by mistake";
const NEW: &str = "the secret that nobody has published as of yet";

const NODES: usize = 3;

/// How long sessions and matches get to leave a node.
const DEADLINE: Duration = Duration::from_secs(3);

/// A node's deadline, and its last states and its farewell.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// What a node says to who comes while it goes or is not there yet.
const COMES_AND_GOES: [&str; 3] = ["draining", "unavailable", "not_ready"];

/// How often the player acts: well below `limits.inputs`.
const PACE: Duration = Duration::from_millis(20);

/// Inputs that are sent and not yet told of.
const AHEAD_MAX: u64 = 10;

/// What the test sees of the player while they play.
#[derive(Default)]
struct Watch {
    heard: AtomicU64,
    moves: AtomicU64,
    over: AtomicBool,
}

/// Input `n` adds `n`, so that one which is lost, doubled or out of turn shows in every sum after it.
struct Player {
    nodes: Vec<SocketAddr>,
    at: usize,
    client: Client,
    game_match: String,
    seat: Value,
    sent: u64,
    /// How many inputs were applied, as far as it has heard.
    heard: u64,
    /// It has just sat down, and may have missed what was said before.
    is_back: bool,
    /// How often it was told that outputs are gone.
    resets: u64,
    watch: Arc<Watch>,
}

impl Player {
    /// Plays until it is told that all is over; panics at the first thing that is lost, doubled or out of turn.
    async fn play(mut self) -> Self {
        let mut next_at = Instant::now();
        while !self.watch.over.load(Ordering::Relaxed) || self.heard < self.sent {
            let goes_on = !self.watch.over.load(Ordering::Relaxed);
            if goes_on && self.sent - self.heard < AHEAD_MAX && Instant::now() >= next_at {
                next_at = Instant::now() + PACE;
                self.sent += 1;
                self.send_again(self.sent).await;
            }
            match self.client.next_push_within(PACE).await {
                Ok(Some(push)) => self.hear(&push).await,
                Ok(None) => self.go_elsewhere().await,
                Err(_) => {}
            }
        }
        self
    }

    async fn hear(&mut self, push: &Value) {
        match push["type"].as_str().expect("a push has a type") {
            "match.data" if push["data"]["view"].is_object() => self.told(&push["data"]["view"]),
            "match.data" if push["key"].is_null() => self.told(&push["data"]),
            "match.data" | "match.ack" | "match.waiting" | "match.players" => {}
            // Every second time it goes at once, otherwise it waits until the node closes the connection.
            "session.going_away" if self.watch.moves.load(Ordering::Relaxed).is_multiple_of(2) => {
                self.go_elsewhere().await;
            }
            "session.going_away" => {}
            "match.resend" => {
                let from = push["n"].as_u64().expect("it says from where");
                self.send_again(from).await;
            }
            // A node that stood still on a busy machine gave the match up instead of handing it over, and says so.
            "match.reset" => {
                let n = push["n"].as_u64().expect("it says from where");
                assert!(n >= self.heard && n <= self.sent, "{push}");
                self.is_back = true;
                self.resets += 1;
                self.send_again(n + 1).await;
            }
            _ => panic!("nothing else happens: {push}"),
        }
    }

    fn told(&mut self, ledger: &Value) {
        let (adds, sum) = (ledger["adds"].as_u64().unwrap(), ledger["sum"].as_u64().unwrap());
        assert_eq!(sum, adds * (adds + 1) / 2, "each input once and in turn: {ledger}");
        assert!(adds <= self.sent, "{ledger}");
        if !std::mem::take(&mut self.is_back) {
            assert_eq!(adds, self.heard + 1, "each is told: {ledger}");
        }
        self.heard = adds;
        self.watch.heard.store(adds, Ordering::Relaxed);
    }

    /// Goes on at the next node that takes it, with nothing but the resume token, and sends again what was not applied.
    async fn go_elsewhere(&mut self) {
        let resume = json!({"token": self.client.opened()["resume_token"], "matches": {}});
        let since = Instant::now();
        let applied = loop {
            assert!(since.elapsed() < Duration::from_secs(20), "no node takes the player");
            self.at = (self.at + 1) % NODES;
            match self.sit(&resume).await {
                Ok(applied) => break applied,
                Err(Trouble::Gone) => {}
                Err(Trouble::Refused(refused)) => {
                    assert!(COMES_AND_GOES.contains(&refused.code.as_str()), "{refused:?}");
                }
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert!(applied >= self.heard && applied <= self.sent);
        self.is_back = true;
        self.watch.moves.fetch_add(1, Ordering::Relaxed);
        self.send_again(applied + 1).await;
    }

    async fn sit(&mut self, resume: &Value) -> Result<u64, Trouble> {
        let fields = json!({"resume": resume});
        let client = Client::try_open_with(self.nodes[self.at], self.client.encoding(), fields).await?;
        let joined = client.attempt("match.join", json!({"match": self.game_match})).await?;
        assert_eq!(joined["seat"], self.seat, "{joined}");
        self.client = client;
        Ok(joined["n"].as_u64().expect("a seat has its n"))
    }

    async fn send_again(&self, from: u64) {
        for n in from..=self.sent {
            self.client.send(&self.game_match, n, json!({"add": n})).await;
        }
    }
}

/// One round of the procedure: each node in turn is drained, started again with these secrets, and seen ready by all.
async fn round(cluster: &mut TestCluster, secret: &str, next: &str, watch: &Watch) {
    for index in 0..NODES {
        let before = watch.heard.load(Ordering::Relaxed);
        cluster.node_mut(index).terminate();
        assert_eq!(cluster.node_mut(index).exited(GONE_WITHIN).await.code(), Some(0));
        let spec = cluster.node_mut(index).next_life();
        spec.set("cluster.secret", secret).set("cluster.secret_next", next);
        cluster.restart(index).await;
        cluster.settled().await;
        eventually("the player goes on", async || {
            watch.heard.load(Ordering::Relaxed) > before
        })
        .await;
    }
    for node in cluster.nodes() {
        for counter in ["rookery_peers_refused_total", "rookery_false_suspicions_total"] {
            assert_eq!(
                node.ops().metric(counter).await,
                Some(0.0),
                "{counter} of {}",
                node.name()
            );
        }
    }
}

async fn says(node: &NodeProcess, line: &str) {
    eventually(&format!("{} says {line}", node.name()), async || {
        !node.log_lines(line).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_replaced_node_by_node_under_a_player() {
    let mut cluster = TestCluster::builder(NODES)
        .set("cluster.secret", OLD)
        .set("drain.deadline", format!("{}s", DEADLINE.as_secs()))
        .start()
        .await;
    cluster.ops(0).publish(ledger()).await;
    let nodes: Vec<SocketAddr> = cluster.nodes().iter().map(NodeProcess::client_address).collect();
    let account = Account::guest(nodes[0]).await;
    let client = Client::open(nodes[0], Encoding::Json, &account).await;
    let first_resume_token = client.opened()["resume_token"].clone();
    let game_match = client.create("ledger").await;
    let seat = client.join(&game_match).await.unwrap()["seat"].clone();
    let watch = Arc::new(Watch::default());
    let player = Player {
        nodes: nodes.clone(),
        at: 0,
        client,
        game_match,
        seat,
        sent: 0,
        heard: 0,
        is_back: false,
        resets: 0,
        watch: Arc::clone(&watch),
    };
    let playing = tokio::spawn(player.play());

    round(&mut cluster, OLD, NEW, &watch).await;
    round(&mut cluster, NEW, OLD, &watch).await;
    round(&mut cluster, NEW, "", &watch).await;
    watch.over.store(true, Ordering::Relaxed);
    let player = playing.await.expect("the player lost nothing");
    let moves = watch.moves.load(Ordering::Relaxed);
    println!(
        "{} inputs, each applied once; {moves} times on another node, {} resets",
        player.sent, player.resets
    );
    assert_eq!(player.heard, player.sent);
    assert!(
        moves >= 3,
        "in each round the player's node was restarted at least once"
    );

    // The old secret opens nothing any more: not the door of the mesh,
    let fingerprint = |secret: &str| Secret::new(secret).unwrap().fingerprint();
    let (old, new) = (fingerprint(OLD), fingerprint(NEW));
    let mut late = cluster.newcomer("late");
    let mut late = late.set("cluster.secret", OLD).spawn();
    late.ready().await;
    let differs = "peer refused: cluster secret differs";
    says(cluster.node(0), &format!("{differs}, ours {new}, theirs {old}")).await;
    says(&late, &format!("{differs}, ours {old}, theirs {new}")).await;
    assert_eq!(cluster.ops(0).members("ready").await.len(), NODES);
    // and no session. The sign-in itself is in the database and goes on.
    for fields in [
        json!({"token": account.access_token}),
        json!({"resume": {"token": first_resume_token, "matches": {}}}),
    ] {
        match Client::try_open_with(nodes[1], Encoding::Json, fields).await {
            Err(Trouble::Refused(refused)) => assert_eq!(refused.code, "unauthenticated"),
            other => panic!("{other:?}"),
        }
    }
    let refresh = json!({"refresh_token": account.refresh_token});
    let (status, tickets) = rookery_tests::harness::Ops::new(nodes[1])
        .post("/v1/auth/refresh", refresh)
        .await;
    assert_eq!((status, &tickets["player"]), (200, &json!(account.player)), "{tickets}");
}
