//! A node that is killed and started again at its address is there again at once, however often.

use std::time::Duration;

use rookery_mesh_tests::{Answer, EventKind, Figures, MeshCluster, Order, PATIENCE, Pace, Report, full_scale, now_us};
use tokio::time::{Instant, sleep};

const NODES: usize = 5;

/// How soon a new life is to be known and to answer, for every other node.
const AGAIN_WITHIN: Duration = Duration::from_secs(1);

/// How long the others may take to forget former lives: gossip takes up to 2.5 s to call them dead and remembers them for 5 s, on a
/// machine that has time for it.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(30);

fn gossip_bytes(report: &Report) -> u64 {
    report.stats["gossip_bytes"]
}

fn gossip_lives(report: &Report) -> u64 {
    report.stats["gossip_lives"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_a_row_leave_nothing_in_gossip() {
    let restarts = if full_scale() { 200 } else { 40 };
    let mut cluster = MeshCluster::start(NODES, Pace::Lan).await;
    let mut before = Vec::new();
    for node in cluster.nodes() {
        node.join((0..10).map(|group| format!("{}/{group}", node.name()))).await;
    }
    sleep(Duration::from_secs(2)).await;
    for node in &cluster.nodes()[..NODES - 1] {
        before.push(node.report().await);
    }
    let victim = NODES - 1;
    let (mut lives, mut bytes) = (0, 0);
    let began = Instant::now();
    for _ in 0..restarts {
        cluster.restart(victim).await;
        let (name, generation) = (
            cluster.node(victim).name().to_owned(),
            cluster.node(victim).generation(),
        );
        cluster
            .node(victim)
            .join((0..10).map(|group| format!("{name}/{group}")))
            .await;
        cluster
            .node(0)
            .until_event(PATIENCE, "the new life is noticed", 0, |event| match &event.kind {
                EventKind::Member { generation: of, .. } if *of == generation => Some(()),
                _ => None,
            })
            .await;
        let report = cluster.node(0).report().await;
        (lives, bytes) = (lives.max(gossip_lives(&report)), bytes.max(gossip_bytes(&report)));
    }
    let took = began.elapsed();
    let ended = Instant::now();
    for (node, before) in cluster.others(victim).zip(&before) {
        loop {
            let after = node.report().await;
            if gossip_bytes(&after) <= 2 * gossip_bytes(before) && gossip_lives(&after) <= 2 * gossip_lives(before) {
                println!(
                    "{}: {} lives and {} bytes of gossip before, {} and {} {:.1} s after {restarts} restarts in {:.0} s; at most {lives} and {bytes} meanwhile; memory {} KiB before, {} after",
                    node.name(),
                    gossip_lives(before),
                    gossip_bytes(before),
                    gossip_lives(&after),
                    gossip_bytes(&after),
                    ended.elapsed().as_secs_f64(),
                    took.as_secs_f64(),
                    before.rss / 1_024,
                    after.rss / 1_024,
                );
                break;
            }
            assert!(
                ended.elapsed() < FORGOTTEN_WITHIN,
                "{} still keeps {after:#?}",
                node.name()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
    cluster.settled(PATIENCE).await;
}

mod measured {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_restarted_at_its_address_answers_everybody_within_a_second() {
        let restarts = if full_scale() { 30 } else { 10 };
        let mut cluster = MeshCluster::start(NODES, Pace::Default).await;
        let (mut noticed, mut answering, mut since_kill) = (Vec::new(), Vec::new(), Vec::new());
        for restart in 0..restarts {
            let victim = restart % NODES;
            let name = cluster.node(victim).name().to_owned();
            let asked: Vec<_> = cluster
                .others(victim)
                .map(|other| {
                    let order = Order::Ask {
                        to: name.clone(),
                        every_ms: 10,
                        deadline_ms: 1_000,
                        for_ms: 1_500,
                    };
                    (other.name().to_owned(), other.give(order))
                })
                .collect();
            sleep(Duration::from_millis(200)).await;
            let killed_us = now_us();
            cluster.restart(victim).await;
            let generation = cluster.node(victim).generation();
            let ready_us = cluster.node(victim).ready_us();
            for (asker, answer) in asked {
                let Ok((_, Answer::RoundTrips { tries })) = answer.await else {
                    panic!("{asker} did not ask");
                };
                let first = tries
                    .iter()
                    .filter(|one| one.generation == Some(generation))
                    .filter_map(|one| one.answered_us)
                    .min();
                let first = first.unwrap_or_else(|| panic!("{asker} had no answer of the new life: {tries:?}"));
                answering.push(first.saturating_sub(ready_us));
                since_kill.push(first - killed_us);
            }
            for other in cluster.others(victim) {
                let seen = other.until_event(PATIENCE, "the new life is noticed", killed_us, |event| {
                    match &event.kind {
                        EventKind::Member {
                            node,
                            generation: of,
                            state: Some(_),
                        } if *node == name && *of == generation => Some(event.at_us),
                        _ => None,
                    }
                });
                noticed.push(seen.await.saturating_sub(ready_us));
            }
            cluster.settled(PATIENCE).await;
        }
        let (noticed, answering) = (Figures::of(noticed), Figures::of(answering));
        println!(
            "{restarts} restarts, each of four peers, from the new process's readiness until it was noticed: {noticed}"
        );
        println!("until it answered: {answering}");
        println!("from the kill until it answered: {}", Figures::of(since_kill));
        let limit = AGAIN_WITHIN.as_micros() as u64;
        assert!(
            noticed.max() <= limit && answering.max() <= limit,
            "the promise is {AGAIN_WITHIN:?}"
        );
    }
}
