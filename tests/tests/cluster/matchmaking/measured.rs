//! How fast a crowd is matched. A figure means something only on a machine that does nothing else: scripts/test runs what is called
//! `measured` by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rookery_tests::harness::Builder;
use serde_json::json;
use tokio::task::JoinSet;

use super::{crowded, queue, scaled, sessions};

/// Players that queue in the test of a crowd. `ROOKERY_SCALE` is a percentage of it, for machines that are too small.
const CROWD: usize = 2_000;

/// What a machine with much else to do still keeps: from the answer to `queue.join` to `queue.matched`, of 99 in 100.
const MATCHED_WITHIN: Duration = Duration::from_millis(1_500);

/// Between two of the crowd. 500 come in a second; `ROOKERY_ARRIVAL_US=0` has all come in one instant.
fn arrival() -> Duration {
    let wanted = std::env::var("ROOKERY_ARRIVAL_US").ok().and_then(|us| us.parse().ok());
    Duration::from_micros(wanted.unwrap_or(2_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_three_nodes_is_matched_within_a_second_and_a_half_each_ticket_once() {
    crowd_is_matched(crowded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_three_nodes_is_matched_as_fast_on_postgresql() {
    if let Some(builder) = crowded().postgres() {
        crowd_is_matched(builder).await;
    }
}

async fn crowd_is_matched(builder: Builder) {
    let cluster = builder.start().await;
    cluster.publish("duel").await;
    let count = scaled(CROWD) / 2 * 2;
    let mut playing = JoinSet::new();
    let clients = sessions(&cluster, count).await;
    let (begin, arrival) = (tokio::time::Instant::now(), arrival());
    for (no, client) in clients.into_iter().enumerate() {
        playing.spawn(async move {
            tokio::time::sleep_until(begin + arrival * no as u32).await;
            let asked = Instant::now();
            let ticket = queue(&client, "duel", json!({})).await;
            let waiting = Instant::now();
            let matched = client.push_of("queue.matched").await;
            assert_eq!(matched["ticket"], ticket);
            let target = matched["match"].as_str().unwrap().to_owned();
            (client, ticket, target, waiting - asked, waiting.elapsed())
        });
    }
    let (mut clients, mut answers, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    let mut matches: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(played) = playing.join_next().await {
        let (client, ticket, target, answered, waited) = played.unwrap();
        clients.push(client);
        answers.push(answered);
        waits.push(waited);
        matches.entry(target).or_default().push(ticket);
    }
    answers.sort();
    waits.sort();
    let quantile = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
    eprintln!(
        "{count} tickets: queue.join answered after {:?} p50 {:?} p99, matched {:?} p50 {:?} p99 later",
        quantile(&answers, 50),
        quantile(&answers, 99),
        quantile(&waits, 50),
        quantile(&waits, 99)
    );
    assert_eq!(matches.len(), count / 2);
    assert!(matches.values().all(|tickets| tickets.len() == 2), "{matches:?}");
    let tickets: BTreeSet<&String> = matches.values().flatten().collect();
    assert_eq!(tickets.len(), count, "each ticket is in one match");
    assert!(quantile(&waits, 99) <= MATCHED_WITHIN, "p99 {:?}", quantile(&waits, 99));
    // Nobody hears of it a second time.
    for client in &clients {
        while let Ok(Some(push)) = client.next_push_within(Duration::from_millis(1)).await {
            assert_ne!(push["type"], "queue.matched", "told twice");
        }
    }
}
