//! Nodes die while tickets wait, are matched, and are played: no ticket is lost, and none is in two matches that live.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use rookery_tests::harness::{Account, Builder, Client, Encoding, TestCluster, Trouble};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{BOTH, crowded, duels, hears, queue, scaled};

#[tokio::test(flavor = "multi_thread")]
async fn tickets_of_a_match_that_died_with_its_node_are_matched_again() {
    let mut cluster = duels(3).start().await;
    cluster.publish("duel").await;
    let clients = [
        cluster.node(0).guest(Encoding::Json).await,
        cluster.node(1).guest(Encoding::MsgPack).await,
    ];
    let mut tickets = Vec::new();
    for client in &clients {
        tickets.push(queue(client, "duel", json!({})).await);
    }
    let mut first = String::new();
    for client in &clients {
        first = hears(client, "queue.matched", |_| true).await["match"]
            .as_str()
            .unwrap()
            .to_owned();
    }
    let (_, view) = cluster.ops(2).get(&format!("/v1/matches/{first}")).await;
    let owner = cluster.index_of(view["owner"].as_str().unwrap());
    cluster.node_mut(owner).kill();
    let mut second = BTreeSet::new();
    for (home, (client, ticket)) in clients.into_iter().zip(&tickets).enumerate() {
        // Whoever was on that node comes back on another.
        let client = if home == owner {
            let fields = json!({"resume": {"token": client.opened()["resume_token"]}});
            let address = cluster.node((owner + 1) % 3).client_address();
            Client::open_with(address, client.encoding(), fields).await
        } else {
            client
        };
        let matched = hears(&client, "queue.matched", |matched| matched["match"] != first).await;
        assert_eq!(matched["ticket"], *ticket);
        second.insert(matched["match"].as_str().unwrap().to_owned());
        client.join(matched["match"].as_str().unwrap()).await.unwrap();
    }
    assert_eq!(second.len(), 1);
}

/// How many tickets come in a second at most, how many nodes die meanwhile, and how long after each other. The last ones come as long after
/// the last death.
const TICKETS_PER_SECOND: usize = 200;
const DEATHS: usize = 5;
const DEATH_EVERY: Duration = Duration::from_secs(10);

/// How many accounts are asked for at one time.
const ACCOUNTS_AT_ONCE: usize = 16;

/// Each player queues this often.
const ROUND: Duration = Duration::from_secs(2);

/// How long a player goes on waiting when no more tickets come: a take-over, and the next pass over the queue.
const LAST_WAIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn no_ticket_is_lost_and_none_matched_twice_while_nodes_die() {
    tickets_outlive_nodes(crowded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_ticket_is_lost_on_postgresql_while_nodes_die() {
    if let Some(builder) = crowded().postgres() {
        tickets_outlive_nodes(builder).await;
    }
}

/// What all players together have seen.
#[derive(Default)]
struct Seen {
    issued: BTreeSet<String>,
    /// Tickets that had nobody to play with when all others had.
    left_over: BTreeSet<String>,
    /// The matches that each ticket was told of, and how many were told before it.
    matches: BTreeMap<String, Vec<String>>,
}

async fn tickets_outlive_nodes(builder: Builder) {
    let mut cluster = builder
        .set("queues.duel.expires", "10m")
        .set("queues.reserve", "5m")
        .set("matches.empty_after", "40s")
        .start()
        .await;
    cluster.publish("duel").await;
    let addresses: Arc<[SocketAddr]> = cluster.nodes().iter().map(|node| node.client_address()).collect();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let (close, closed) = watch::channel(None);
    let players = scaled(TICKETS_PER_SECOND) * ROUND.as_secs() as usize;
    // A disk that is slow need not be waited for by each of them.
    let players: Vec<Player> = stream::iter(0..players)
        .map(async |no| Player {
            account: Account::guest(addresses[no % addresses.len()]).await,
            addresses: Arc::clone(&addresses),
            encoding: BOTH[no % 2],
            seen: Arc::clone(&seen),
            closed: closed.clone(),
            client: None,
        })
        .buffered(ACCOUNTS_AT_ONCE)
        .collect()
        .await;
    let mut playing: JoinSet<()> = players.into_iter().map(Player::play).collect();
    for _ in 0..DEATHS {
        tokio::time::sleep(DEATH_EVERY).await;
        let victim = rand::rng().random_range(0..cluster.nodes().len());
        cluster.node_mut(victim).kill();
        cluster.restart(victim).await;
    }
    tokio::time::sleep(DEATH_EVERY).await;
    close.send_replace(Some(Instant::now()));
    while let Some(played) = playing.join_next().await {
        played.unwrap();
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    verify(&cluster, seen).await;
}

async fn verify(cluster: &TestCluster, seen: Seen) {
    let Seen {
        issued,
        left_over,
        matches,
    } = seen;
    let lost: Vec<&String> = issued
        .iter()
        .filter(|ticket| !matches.contains_key(*ticket) && !left_over.contains(*ticket))
        .collect();
    assert_eq!(lost, Vec::<&String>::new(), "tickets were lost");
    assert!(left_over.len() <= 1, "these could have played together: {left_over:?}");
    let mut together: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    let mut again = 0;
    for (ticket, heard) in &matches {
        for target in heard {
            together.entry(target).or_default().insert(ticket);
        }
        for earlier in &heard[..heard.len() - 1] {
            again += 1;
            let (_, view) = cluster.ops(0).get(&format!("/v1/matches/{earlier}")).await;
            let over = view["status"] == "lost" || view["status"] == "failed";
            assert!(
                over,
                "ticket {ticket} is in {heard:?}, and of those {earlier} is {view}"
            );
        }
    }
    assert!(
        together.values().all(|tickets| tickets.len() <= 2),
        "more than two in a match"
    );
    eprintln!(
        "{} tickets, {} matches, {DEATHS} nodes died; {again} tickets were matched again after their match was lost",
        issued.len(),
        together.len()
    );
    assert!(!issued.is_empty());
}

/// Somebody who queues again and again, on whichever node is there.
struct Player {
    account: Account,
    addresses: Arc<[SocketAddr]>,
    encoding: Encoding,
    seen: Arc<Mutex<Seen>>,
    /// Since when no more tickets come.
    closed: watch::Receiver<Option<Instant>>,
    client: Option<Client>,
}

impl Player {
    async fn play(mut self) {
        while !self.is_closed() {
            let next = Instant::now() + ROUND;
            let Some(ticket) = self.queue().await else { return };
            if self.wait(&ticket).await {
                self.give_up(&ticket).await;
            }
            tokio::time::sleep_until(next).await;
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// An open session, on this node or another.
    async fn client(&mut self) -> &Client {
        loop {
            if let Some(client) = self.client.take_if(|client| client.is_open()) {
                return self.client.insert(client);
            }
            self.client = None;
            let address = self.addresses[rand::rng().random_range(0..self.addresses.len())];
            let fields = json!({"token": self.account.access_token});
            match Client::try_open_with(address, self.encoding, fields).await {
                Ok(client) => return self.client.insert(client),
                // The node is dead or starting.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Queues; an answer that was lost with its node is asked for again.
    async fn queue(&mut self) -> Option<String> {
        loop {
            let joined = self
                .client()
                .await
                .attempt("queue.join", json!({"queue": "duel"}))
                .await;
            let ticket = match joined {
                Ok(joined) => joined["ticket"].clone(),
                Err(Trouble::Refused(refused)) if refused.code == "queue.already_waiting" => {
                    refused.details["ticket"].clone()
                }
                Err(_) if self.is_closed() => return None,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let ticket = ticket.as_str().unwrap().to_owned();
            self.seen.lock().unwrap().issued.insert(ticket.clone());
            return Some(ticket);
        }
    }

    /// Waits until the ticket is matched; false when nobody was there to play with.
    async fn wait(&mut self, ticket: &str) -> bool {
        loop {
            let push = self.client().await.next_push_within(Duration::from_millis(500)).await;
            if let Ok(Some(push)) = push {
                if push["ticket"] != ticket {
                    continue;
                }
                assert_ne!(push["type"], "queue.expired", "{push}");
                if push["type"] == "queue.matched" {
                    self.note(ticket, &push);
                    return true;
                }
            } else if self.closed.borrow().is_some_and(|since| since.elapsed() > LAST_WAIT) {
                let left = self
                    .client()
                    .await
                    .attempt("queue.leave", json!({"ticket": ticket}))
                    .await;
                assert!(left.is_ok(), "the ticket is gone: {left:?}");
                self.seen.lock().unwrap().left_over.insert(ticket.to_owned());
                return false;
            }
        }
    }

    fn note(&self, ticket: &str, matched: &Value) {
        let players: Vec<&str> = matched["players"]
            .as_array()
            .unwrap()
            .iter()
            .map(|player| player["player"].as_str().unwrap())
            .collect();
        assert!(
            players.len() == 2 && players.contains(&self.account.player.as_str()),
            "{matched}"
        );
        let target = matched["match"].as_str().unwrap().to_owned();
        let mut seen = self.seen.lock().unwrap();
        let heard = seen.matches.entry(ticket.to_owned()).or_default();
        if !heard.contains(&target) {
            heard.push(target);
        }
    }

    /// Uses the ticket up, so that the player may queue again. Other matches that it is told of meanwhile are noted.
    async fn give_up(&mut self, ticket: &str) {
        loop {
            match self
                .client()
                .await
                .attempt("queue.leave", json!({"ticket": ticket}))
                .await
            {
                Ok(_) => break,
                Err(Trouble::Refused(refused)) if refused.code == "queue.unknown" => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        while let Some(client) = &self.client
            && let Ok(Some(push)) = client.next_push_within(Duration::from_millis(1)).await
        {
            if push["type"] == "queue.matched" && push["ticket"] == ticket {
                self.note(ticket, &push);
            }
        }
    }
}
