//! What membership and groups promise, on ten real processes: how soon a registration is seen, how soon a death, and that a pause is
//! not taken for one.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rookery_mesh_tests::{EventKind, Figures, MeshCluster, MeshProcess, Order, PATIENCE, Pace, full_scale, now_us};
use tokio::time::sleep;

/// What a profile promises.
struct Promise {
    profile: Pace,
    /// Rounds of registrations in every run; 30 make three hundred.
    rounds: usize,
    registration: Duration,
    death: Duration,
    pause: Duration,
    /// How long after a pause a verdict that rests on it would come at the latest.
    verdict: Duration,
}

const LAN: Promise = Promise {
    profile: Pace::Lan,
    rounds: 30,
    registration: Duration::from_secs(1),
    death: Duration::from_secs(4),
    pause: Duration::from_secs(1),
    verdict: Duration::from_millis(2_500),
};

const DEFAULT: Promise = Promise {
    profile: Pace::Default,
    rounds: 8,
    registration: Duration::from_millis(2_500),
    death: Duration::from_secs(8),
    pause: Duration::from_secs(2),
    verdict: Duration::from_secs(4),
};

const NODES: usize = 10;

/// Joins new groups, one on each node at a time, and measures until every other node sees each.
async fn registrations_are_seen(cluster: &MeshCluster, promise: &Promise, rounds: usize, random: &mut StdRng) {
    let mut seen_by_all = Vec::new();
    for round in 0..rounds {
        let groups: Vec<String> = (0..NODES).map(|node| format!("round{round}/of{node}")).collect();
        for node in cluster.nodes() {
            node.does(Order::Watch { groups: groups.clone() }).await;
        }
        let phases: Vec<u64> = (0..NODES).map(|_| random.random_range(0..500)).collect();
        let rounds = cluster
            .nodes()
            .iter()
            .zip(&groups)
            .zip(phases)
            .map(async |((node, group), phase)| {
                sleep(Duration::from_millis(phase)).await;
                let joined_us = node.join([group]).await;
                let mut last_us = joined_us;
                for other in cluster.nodes().iter().filter(|other| other.name() != node.name()) {
                    let what = format!("{} sees {group}", other.name());
                    let seen =
                        other.until_event(
                            PATIENCE,
                            &what,
                            joined_us.saturating_sub(1_000_000),
                            |event| match &event.kind {
                                EventKind::Group { group: of, nodes }
                                    if of == group && nodes.iter().any(|name| name == node.name()) =>
                                {
                                    Some(event.at_us)
                                }
                                _ => None,
                            },
                        );
                    last_us = last_us.max(seen.await);
                }
                last_us - joined_us
            });
        seen_by_all.extend(all(rounds).await);
        for node in cluster.nodes() {
            node.does(Order::Unwatch { groups: groups.clone() }).await;
        }
    }
    let figures = Figures::of(seen_by_all);
    println!(
        "{:?}: a registration until the last of ten nodes sees it: {figures}",
        promise.profile
    );
    assert!(
        figures.at(0.99) <= promise.registration.as_micros() as u64,
        "the promise is {:?} at p99",
        promise.registration
    );
}

/// Runs futures of one task side by side.
async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).map(Some).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if let Some(running) = future
                && let std::task::Poll::Ready(value) = running.as_mut().poll(context)
            {
                *done = Some(value);
                *future = None;
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Kills nodes one after the other and measures until every other node calls them dead.
async fn deaths_are_seen(cluster: &mut MeshCluster, promise: &Promise, kills: usize, random: &mut StdRng) {
    let mut seen = Vec::new();
    for kill in 0..kills {
        let victim = (kill * 7 + 3) % NODES;
        sleep(Duration::from_millis(random.random_range(0..500))).await;
        let killed_us = now_us();
        let name = cluster.node(victim).name().to_owned();
        cluster.node_mut(victim).kill();
        for other in cluster.others(victim) {
            let what = format!("{} sees {name} dead", other.name());
            let at_us = other.until_event(PATIENCE, &what, killed_us, |event| {
                says_dead(&event.kind, &name).then_some(event.at_us)
            });
            seen.push(at_us.await - killed_us);
        }
        cluster.restart(victim).await;
        cluster.settled(PATIENCE).await;
    }
    let figures = Figures::of(seen);
    println!(
        "{:?}: {kills} kills, until each of nine nodes calls the victim dead: {figures}",
        promise.profile
    );
    assert!(
        figures.max() <= promise.death.as_micros() as u64,
        "the promise is {:?} everywhere",
        promise.death
    );
}

fn says_dead(event: &EventKind, name: &str) -> bool {
    matches!(event, EventKind::Member { node, state: Some(state), .. } if node == name && state == "dead")
}

/// Stops nodes for as long as a pause may last, two at a time but not in step; nobody may be called dead, by a woken one neither.
async fn pauses_kill_nobody(cluster: &mut MeshCluster, promise: &Promise, stops: usize, random: &mut StdRng) {
    let began_us = now_us();
    let phases: Vec<u64> = (0..stops).map(|_| random.random_range(0..1_000)).collect();
    let lanes = cluster.nodes_mut().chunks_mut(NODES / 2).zip(phases.chunks(stops / 2));
    let lanes = lanes.map(async |(nodes, phases)| {
        for (stop, phase) in phases.iter().enumerate() {
            let victim = (stop * 3 + 1) % nodes.len();
            sleep(Duration::from_millis(*phase)).await;
            nodes[victim].stop();
            sleep(promise.pause).await;
            nodes[victim].cont();
            // The next one is stopped when this one can no longer have been misjudged by anybody.
            sleep(promise.verdict).await;
        }
    });
    all(lanes).await;
    let verdicts: Vec<String> = cluster
        .nodes()
        .iter()
        .flat_map(|node| verdicts_since(node, began_us))
        .collect();
    let (mut suspicions, mut late) = (0, 0);
    for node in cluster.nodes() {
        let stats = node.report().await.stats;
        suspicions += stats["suspicions_total"];
        late += stats["self_late_total"];
    }
    println!(
        "{:?}: {stops} stops of {:?}: {} verdicts, {suspicions} suspicions and {late} times of self-distrust since the start",
        promise.profile,
        promise.pause,
        verdicts.len()
    );
    assert!(verdicts.is_empty(), "a pause was taken for a death: {verdicts:#?}");
    cluster.settled(PATIENCE).await;
}

fn verdicts_since(node: &MeshProcess, since_us: u64) -> Vec<String> {
    let dead = |event: &rookery_mesh_tests::Event| match &event.kind {
        EventKind::Member { node: of, state, .. } if state.as_deref() == Some("dead") => Some(format!(
            "{} called {of} dead {} ms after the first stop",
            node.name(),
            (event.at_us - since_us) / 1_000
        )),
        _ => None,
    };
    node.events_since(since_us).iter().filter_map(dead).collect()
}

mod measured {
    use super::*;

    async fn check(promise: &Promise) {
        let mut random = StdRng::seed_from_u64(4);
        let mut cluster = MeshCluster::start(NODES, promise.profile).await;
        let full = full_scale();
        registrations_are_seen(&cluster, promise, if full { 50 } else { promise.rounds }, &mut random).await;
        pauses_kill_nobody(&mut cluster, promise, if full { 40 } else { 10 }, &mut random).await;
        deaths_are_seen(&mut cluster, promise, if full { 10 } else { 2 }, &mut random).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ten_processes_keep_the_promises_of_the_lan_profile() {
        check(&LAN).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ten_processes_keep_the_promises_of_the_default_profile() {
        check(&DEFAULT).await;
    }
}
