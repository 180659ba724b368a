//! The means of breaking a network do what their words say, between real processes.

use std::time::Duration;

use rookery_mesh_tests::faults::{Namespaces, Network, Relays};
use rookery_mesh_tests::{MeshCluster, PATIENCE, Pace, eventually};

/// The states in which a node shows the others, in their order.
async fn sees(cluster: &MeshCluster, node: usize) -> Vec<String> {
    let members = cluster.node(node).report().await.members;
    members.values().map(|seen| seen.state.clone()).collect()
}

async fn check(network: &impl Network) {
    let cluster = MeshCluster::start_on(network, Pace::Lan).await;
    network.isolate(2);
    eventually("the others see the isolated node dead", async || {
        sees(&cluster, 0).await == ["ready", "ready", "dead"] && sees(&cluster, 1).await == ["ready", "ready", "dead"]
    })
    .await;
    eventually("the isolated node sees them dead", async || {
        sees(&cluster, 2).await == ["dead", "dead", "ready"]
    })
    .await;
    network.heal_all();
    cluster.settled(PATIENCE).await;

    network.partition(&[&[0], &[1, 2]]);
    eventually("both sides see each other dead", async || {
        sees(&cluster, 0).await == ["ready", "dead", "dead"] && sees(&cluster, 1).await == ["dead", "ready", "ready"]
    })
    .await;
    network.heal_all();
    cluster.settled(PATIENCE).await;

    // Cut both ways, the two still see each other through the third.
    network.cut(0, 1);
    let millis = Duration::from_millis;
    let tries = cluster.node(0).ask("n1", millis(100), millis(500), millis(3_000)).await;
    assert!(
        tries.last().is_some_and(|one| one.answered_us.is_none()),
        "nothing arrives: {tries:?}"
    );
    assert_eq!(
        sees(&cluster, 0).await.iter().filter(|state| *state == "dead").count(),
        0
    );
    network.heal(0, 1);
    eventually("the two hear each other again", async || {
        cluster.node(0).ask("n1", millis(100), millis(500), millis(10)).await[0]
            .answered_us
            .is_some()
    })
    .await;
    cluster.settled(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_break_what_they_say() {
    check(&Relays::start(3).await).await;
}

#[tokio::test]
async fn namespaces_break_what_they_say() {
    let Some(namespaces) = Namespaces::start(3) else {
        return;
    };
    check(&namespaces).await;
}
