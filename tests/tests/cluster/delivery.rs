//! Two players on nodes A and B in a match on node C: whatever happens to the connections between the nodes, each hears
//! everything once and in order; and when C dies, both are told.

use std::time::{Duration, Instant};

use rookery_tests::harness::{Client, Encoding, TestCluster, until};
use serde_json::json;
use tokio::sync::watch;

/// Numbered inputs of each player.
const INPUTS: u64 = 10_000;

/// Inputs that a player has under way. The gateway keeps 64 KiB of them; this stays below, and refusals are borne anyhow.
const WINDOW: u64 = 256;

/// How far a player talks ahead of what it heard of the other one. So at most 2,256 outputs wait for a player whose connection is
/// cut, which the owner's ring of 4,096 holds: a reset would be a fault. (At full speed the ring lasts for a third of a second.)
const LEAD: u64 = 1_000;

/// The promise: who plays on a dead owner hears so within this.
const LOST_WITHIN: Duration = Duration::from_secs(15);

/// What one player heard: who said it and its number, in the order in which it came.
type Heard = Vec<(String, u64)>;

/// Sends all numbered inputs as a well-behaved client does, and listens until all of both players' have come.
async fn play(client: &Client, game_match: &str, name: &str, progress: &watch::Sender<usize>) -> Heard {
    let (mut next, mut acknowledged, mut last_seq, mut heard_of_other) = (1, 0, 0, 0);
    let mut heard = Heard::new();
    while heard.len() < 2 * INPUTS as usize {
        while next <= INPUTS.min(acknowledged + WINDOW).min(heard_of_other + LEAD) {
            client
                .send(game_match, next, json!({"all": {"from": name, "k": next}}))
                .await;
            next += 1;
        }
        let push = client.expect_push().await;
        let number = |field: &str| push[field].as_u64().unwrap_or_else(|| panic!("{push} has no {field}"));
        match push["type"].as_str().expect("a push has a type") {
            "match.data" => {
                let seq = number("seq");
                assert!(seq > last_seq, "{name} heard seq {seq} after {last_seq}");
                last_seq = seq;
                let said = &push["data"]["all"];
                let from = said["from"].as_str().expect("players say who they are");
                heard_of_other += u64::from(from != name);
                heard.push((
                    from.to_owned(),
                    said["k"].as_u64().expect("players number what they say"),
                ));
                progress.send_replace(heard.len());
            }
            "match.ack" => acknowledged = acknowledged.max(number("n")),
            "match.resend" => next = number("n"),
            "match.players" | "match.waiting" => {}
            "error" => assert_eq!(push["code"], "rate_limited", "{name} was refused: {push}"),
            other => panic!("{name} did not expect {other}: {push}"),
        }
    }
    heard
}

fn assert_all_once_and_in_order(heard: &Heard, of: &str) {
    let numbers = heard.iter().filter(|(from, _)| from == of).map(|(_, number)| *number);
    assert!(
        numbers.eq(1..=INPUTS),
        "not all of {of}'s inputs came once and in order"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_between_nodes_lose_nothing_and_a_dead_owner_is_told() {
    let mut cluster = TestCluster::builder(3)
        .set("ops.faults", true)
        .set("limits.inputs", "100000/s burst 100000")
        .start()
        .await;
    cluster.publish("echo").await;
    let ana = cluster.node(0).guest(Encoding::Json).await;
    let ben = cluster.node(1).guest(Encoding::MsgPack).await;
    let ops = cluster.ops(0);
    let game_match = until("a match is placed on the third node", async || {
        let game_match = ana.create("echo").await;
        (ops.match_view(&game_match).await["owner"] == cluster.node(2).name()).then_some(game_match)
    })
    .await;
    ana.join(&game_match).await.unwrap();
    ben.join(&game_match).await.unwrap();

    let (progress, mut at) = watch::channel(0);
    let (unwatched, _) = watch::channel(0);
    let nodes: Vec<_> = (0..3).map(|index| cluster.ops(index)).collect();
    let cutting = async {
        for cut in 1..=3 {
            let quarter = cut * 2 * INPUTS as usize / 4;
            at.wait_for(|heard| *heard >= quarter)
                .await
                .expect("a player is playing");
            for ops in &nodes {
                let (status, answer) = ops.post("/v1/faults/cut-data-links", json!({})).await;
                assert_eq!(status, 200, "the links are not cut: {answer}");
            }
        }
    };
    let since = Instant::now();
    let (heard_by_ana, heard_by_ben, ()) = tokio::join!(
        play(&ana, &game_match, "ana", &progress),
        play(&ben, &game_match, "ben", &unwatched),
        cutting,
    );
    eprintln!(
        "2 x {INPUTS} inputs heard by both in {:?}, with three cuts",
        since.elapsed()
    );
    for heard in [&heard_by_ana, &heard_by_ben] {
        assert_all_once_and_in_order(heard, "ana");
        assert_all_once_and_in_order(heard, "ben");
    }
    assert!(
        heard_by_ana == heard_by_ben,
        "the match has one order, and both hear it"
    );

    cluster.node_mut(2).kill();
    let since = Instant::now();
    for client in [&ana, &ben] {
        let lost = client.push_of("match.lost").await;
        assert_eq!(lost["match"], game_match.as_str());
        assert!(
            since.elapsed() < LOST_WITHIN,
            "match.lost came after {:?}",
            since.elapsed()
        );
    }
    eprintln!("match.lost was heard by both {:?} after the kill", since.elapsed());
    let view = ops.match_view(&game_match).await;
    assert_eq!(view["status"], "lost", "{view}");
}
