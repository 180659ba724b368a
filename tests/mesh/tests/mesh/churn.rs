//! Groups that come and go in thousands: what five real nodes pay for it, that nothing is lost on the way, and that nothing stays behind.

use std::collections::BTreeMap;
use std::time::Duration;

use rookery_mesh_tests::{
    Answer, EventKind, Figures, MeshCluster, Order, PATIENCE, Pace, full_scale, now_us, until_within,
};
use tokio::time::sleep;

const NODES: usize = 5;

/// One of so many groups stays.
const STAY_ONE_OF: u64 = 200;

/// Joined a second by each node, and left a second later.
const JOINS_PER_S: u64 = 1_000;

/// The soft budget of keys of a node in gossip.
const KEYS_SOFT: u64 = 200;

/// How long gossip and the directory may take to forget what is over: groups are stated for ten seconds after the last one left, and
/// a withdrawal that was lost is repaired after a refresh and five seconds.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(45);

async fn stats(cluster: &MeshCluster, name: &str) -> Vec<u64> {
    let mut figures = Vec::new();
    for node in cluster.nodes() {
        figures.push(node.report().await.stats[name]);
    }
    figures
}

/// Joins one group after the other on the first node while the others watch, and returns how long each took to be seen by all.
async fn seen_meanwhile(cluster: &MeshCluster, count: usize) -> Vec<u64> {
    let mut times = Vec::new();
    for number in 0..count {
        let group = format!("seen/{number}");
        for other in cluster.others(0) {
            other
                .does(Order::Watch {
                    groups: vec![group.clone()],
                })
                .await;
        }
        let joined_us = cluster.node(0).join([&group]).await;
        let mut last_us = joined_us;
        for other in cluster.others(0) {
            let what = format!("{} sees {group}", other.name());
            let is_seen = |event: &rookery_mesh_tests::Event| match &event.kind {
                EventKind::Group { group: of, nodes } if *of == group && nodes.len() == 1 => Some(event.at_us),
                _ => None,
            };
            let since = joined_us.saturating_sub(1_000_000);
            last_us = last_us.max(other.until_event(PATIENCE, &what, since, is_seen).await);
        }
        times.push(last_us - joined_us);
        for other in cluster.others(0) {
            other
                .does(Order::Unwatch {
                    groups: vec![group.clone()],
                })
                .await;
        }
        cluster.node(0).leave([&group]).await;
    }
    times
}

async fn churn(cluster: &MeshCluster, joins_per_s: u64, lasts: Duration) -> BTreeMap<String, String> {
    let (began_us, mut used_us, mut rss_before) = (now_us(), 0, 0);
    for node in cluster.nodes() {
        let report = node.report().await;
        used_us += report.used_us;
        rss_before = report.rss.max(rss_before);
    }
    let orders: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| {
            node.give(Order::Churn {
                prefix: node.name().to_owned(),
                joins_per_s,
                stay_one_of: STAY_ONE_OF,
                for_ms: lasts.as_millis() as u64,
            })
        })
        .collect();
    sleep(lasts / 4).await;
    let times = seen_meanwhile(cluster, 10).await;
    println!(
        "while groups come and go, a registration until the last of five nodes sees it: {}",
        Figures::of(times)
    );
    let (mut rss, mut held, mut kept, mut keys, mut deleted) = (0, 0, 0, 0, 0);
    for node in cluster.nodes() {
        let report = node.report().await;
        rss = report.rss.max(rss);
        held = report.stats["groups_in_directory"].max(held);
        kept = report.stats["directory_kept"].max(kept);
        keys = report.stats["own_keys"].max(keys);
        deleted = report.stats["own_keys_deleted"].max(deleted);
    }
    let (mut staying, mut joined, mut slowest_us) = (BTreeMap::new(), 0, 0);
    for (node, order) in cluster.nodes().iter().zip(orders) {
        let answer = tokio::time::timeout(lasts + PATIENCE, order).await;
        let Ok(Ok((
            _,
            Answer::Churned {
                joined: count,
                slowest_us: slowest,
                staying: groups,
            },
        ))) = answer
        else {
            panic!("{} did not churn: {answer:?}", node.name());
        };
        joined += count;
        slowest_us = slowest.max(slowest_us);
        staying.extend(groups.into_iter().map(|group| (group, node.name().to_owned())));
    }
    let mut used_after_us = 0;
    for node in cluster.nodes() {
        used_after_us += node.report().await.used_us;
        for (name, max) in [("own_keys", KEYS_SOFT), ("own_keys_deleted", 2 * KEYS_SOFT + 8)] {
            let figure = node.report().await.stats[name];
            assert!(
                figure <= max,
                "{}: {name} is {figure}, at most {max} are allowed",
                node.name()
            );
        }
    }
    let share = (used_after_us - used_us) as f64 / (now_us() - began_us) as f64 / NODES as f64;
    println!(
        "{joined} groups joined and left by {NODES} nodes in {lasts:?}: {:.1} % of a core a node, at most {:.1} MB where \
         it was {:.1}, {keys} keys and {deleted} deleted ones in gossip, {held} groups in the directory and {kept} entries kept, \
         no join or departure took longer than {slowest_us} us",
        share * 100.0,
        rss as f64 / 1e6,
        rss_before as f64 / 1e6,
    );
    staying
}

/// Every node names exactly the owner of each group that stays, and nobody of those that passed.
async fn all_agree(cluster: &MeshCluster, staying: &BTreeMap<String, String>, joins: u64) {
    let passed: Vec<String> = (0..joins)
        .filter(|number| number % STAY_ONE_OF == 7)
        .flat_map(|number| (0..NODES).map(move |node| format!("n{node}/{number}")))
        .collect();
    let groups: Vec<String> = staying.keys().chain(&passed).cloned().collect();
    for node in cluster.nodes() {
        let what = format!("{} knows exactly who is in {} groups", node.name(), groups.len());
        until_within(PATIENCE, &what, async || {
            let order = Order::Groups { groups: groups.clone() };
            let (_, Answer::Groups { nodes }) = node.tell(order, PATIENCE).await else {
                panic!("{} does not say who is in groups", node.name());
            };
            let right = |(group, nodes): (&String, &Vec<String>)| match staying.get(group) {
                Some(owner) => nodes == std::slice::from_ref(owner),
                None => nodes.is_empty(),
            };
            nodes.iter().all(right).then_some(())
        })
        .await;
    }
}

async fn nothing_is_lost_or_left_behind(joins_per_s: u64, lasts: Duration) {
    let cluster = MeshCluster::start(NODES, Pace::Default).await;
    let staying = churn(&cluster, joins_per_s, lasts).await;
    all_agree(&cluster, &staying, joins_per_s * lasts.as_secs()).await;
    let what = "the directory keeps what stays, twice, and nothing else";
    until_within(FORGOTTEN_WITHIN, what, async || {
        let held: u64 = stats(&cluster, "groups_in_directory").await.iter().sum();
        let said: u64 = stats(&cluster, "groups_in_gossip").await.iter().sum();
        let kept: u64 = stats(&cluster, "directory_kept").await.iter().sum();
        (held + said == staying.len() as u64 && kept == 2 * held).then_some(())
    })
    .await;
    for node in cluster.nodes() {
        let own = staying.iter().filter(|(_, owner)| *owner == node.name());
        node.leave(own.map(|(group, _)| group)).await;
    }
    until_within(FORGOTTEN_WITHIN, "nothing is left when all are left", async || {
        let mut left = 0;
        for name in ["groups_in_directory", "groups_in_gossip", "directory_kept"] {
            left += stats(&cluster, name).await.iter().sum::<u64>();
        }
        (left == 0).then_some(())
    })
    .await;
    let suspicions: u64 = stats(&cluster, "suspicions_total").await.iter().sum();
    println!("suspicions meanwhile: {suspicions}");
}

/// What a machine with much else to do can spend: a fifth of the rate. The promise is under `measured`.
#[tokio::test(flavor = "multi_thread")]
async fn groups_that_come_and_go_leave_nothing_behind_and_none_is_lost() {
    nothing_is_lost_or_left_behind(JOINS_PER_S / 5, Duration::from_secs(4)).await;
}

mod measured {
    use super::*;

    /// 5,000 groups joined and 5,000 left a second; for a minute with `ROOKERY_SCALE=full`.
    #[tokio::test(flavor = "multi_thread")]
    async fn five_thousand_groups_a_second_are_joined_and_left() {
        let lasts = Duration::from_secs(if full_scale() { 60 } else { 10 });
        nothing_is_lost_or_left_behind(JOINS_PER_S, lasts).await;
    }
}
