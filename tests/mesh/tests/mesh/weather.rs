//! Loss, delay and reordering are not taken for deaths, and neither is a link that works one way only.

use std::time::Duration;

use rookery_mesh_tests::faults::{Network, Relays, Weather};
use rookery_mesh_tests::{EventKind, MeshCluster, Order, PATIENCE, Pace, full_scale, now_us};
use tokio::time::sleep;

const NODES: usize = 5;

fn nobody_died(cluster: &MeshCluster, since_us: u64) {
    for node in cluster.nodes() {
        let dead: Vec<_> = node
            .events_since(since_us)
            .into_iter()
            .filter(|event| matches!(&event.kind, EventKind::Member { state: Some(state), .. } if state == "dead"))
            .collect();
        assert!(dead.is_empty(), "{} called somebody dead: {dead:?}", node.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_weather_kills_nobody_and_everything_arrives() {
    let seed = std::env::var("ROOKERY_SEED").map_or(1, |seed| seed.parse().expect("a seed is a number"));
    println!("ROOKERY_SEED={seed}");
    let relays = Relays::seeded(NODES, seed).await;
    let cluster = MeshCluster::start_on(&relays, Pace::Lan).await;
    let since_us = now_us();
    relays.weather(Weather {
        loss: 0.1,
        duplicate: 0.05,
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(10),
        reorder: 0.05,
        held: Duration::from_millis(50),
    });
    let rounds = if full_scale() { 60 } else { 10 };
    for round in 0..rounds {
        let joiner = cluster.node(round % NODES);
        let group = format!("round/{round}");
        for other in cluster.others(round % NODES) {
            other
                .does(Order::Watch {
                    groups: vec![group.clone()],
                })
                .await;
        }
        let joined_us = joiner.join([&group]).await;
        for other in cluster.others(round % NODES) {
            let what = format!("{} sees {} in {group}", other.name(), joiner.name());
            other
                .until_event(
                    PATIENCE,
                    &what,
                    joined_us.saturating_sub(1_000_000),
                    |event| match &event.kind {
                        EventKind::Group { group: of, nodes } if *of == group && !nodes.is_empty() => Some(()),
                        _ => None,
                    },
                )
                .await;
        }
        sleep(Duration::from_millis(500)).await;
    }
    assert!(
        relays.dropped() > 100,
        "a tenth of all was lost, {} datagrams",
        relays.dropped()
    );
    nobody_died(&cluster, since_us);
    cluster.settled(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_works_one_way_only_kills_nobody() {
    let relays = Relays::start(NODES).await;
    let cluster = MeshCluster::start_on(&relays, Pace::Lan).await;
    let since_us = now_us();
    relays.cut_one_way(0, 1);
    relays.cut_one_way(3, 0);
    // Three times what it takes to notice a death with this profile.
    sleep(Duration::from_secs(12)).await;
    nobody_died(&cluster, since_us);
    relays.heal_all();
    cluster.settled(PATIENCE).await;
}
