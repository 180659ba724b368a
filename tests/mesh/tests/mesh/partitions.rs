//! A cluster that falls into two parts is two clusters, and one again within seconds of the link's return, with nothing left over.

use std::collections::BTreeMap;
use std::time::Duration;

use rookery_mesh_tests::faults::{Namespaces, Network, Relays};
use rookery_mesh_tests::{
    Answer, EventKind, Figures, MeshCluster, MeshProcess, Order, PATIENCE, Pace, Report, full_scale, now_us,
    until_within,
};
use tokio::time::{Instant, sleep};

const NODES: usize = 5;
const SIDES: [&[usize]; 2] = [&[0, 1, 2], &[3, 4]];

/// After the link's return.
const HEALED_WITHIN: Duration = Duration::from_secs(5);
const AGREED_WITHIN: Duration = Duration::from_secs(10);

/// More groups than ride in gossip, so that some of them are in the directory.
const GROUPS_EACH: usize = 230;

/// How much more memory a node may hold after all partitions than before the first. What it really keeps are some maps; the
/// allocator keeps pages of the busiest moment.
const RSS_MORE_MAX: u64 = 16 << 20;

/// How many tasks more a node may have. Two crossing connections live side by side for a second.
const TASKS_MORE_MAX: u64 = 4;

/// How long it may take until nothing is left over: dials under way end after 2 s, replaced connections after 1 s, and gossip forgets
/// former states after 10 s.
const TIDY_WITHIN: Duration = Duration::from_secs(30);

/// Cuts the cluster in two and heals it, that many times, each time for so long.
async fn falls_apart_and_heals(network: &impl Network, profile: Pace, times: usize, lasts: Duration) {
    let cluster = MeshCluster::start_on(network, profile).await;
    let mut members_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in cluster.nodes() {
        let groups: Vec<String> = (0..GROUPS_EACH)
            .map(|group| format!("{}/{group}", node.name()))
            .chain(["all".into()])
            .collect();
        node.join(&groups).await;
        groups
            .into_iter()
            .for_each(|group| members_of.entry(group).or_default().push(node.name().into()));
    }
    agree(&cluster, &members_of, PATIENCE).await;
    everybody_sends(&cluster).await;
    // What starting left behind has an end, too.
    sleep(Duration::from_secs(5)).await;
    let before = reports(&cluster).await;
    let in_directory = before.iter().all(|report| report.stats["groups_in_directory"] > 0);
    assert!(
        in_directory,
        "some groups of each node are in the directory: {before:#?}"
    );
    let (mut healed, mut agreed) = (Vec::new(), Vec::new());
    for time in 0..times {
        let cut_us = now_us();
        network.partition(&SIDES);
        let cut = Instant::now();
        for (node, other) in across(&cluster) {
            let what = format!("{} sees {} dead", node.name(), other.name());
            node.until_event(PATIENCE, &what, cut_us, |event| {
                is_shown(&event.kind, other, "dead").then_some(())
            })
            .await;
        }
        println!(
            "partition {time} of {profile:?}: every node sees the other side dead after {:.1} s",
            cut.elapsed().as_secs_f64()
        );
        // Both sides go on, and each does what the other has to hear of afterwards.
        for node in [cluster.node(1), cluster.node(4)] {
            let (left, joined) = (
                format!("{}/{}", node.name(), time),
                format!("{}/during{time}", node.name()),
            );
            node.leave([&left]).await;
            node.join([&joined]).await;
            members_of.insert(left, Vec::new());
            members_of.insert(joined, vec![node.name().into()]);
        }
        sleep(lasts.saturating_sub(cut.elapsed())).await;
        let healed_us = now_us();
        network.heal_all();
        for (node, other) in across(&cluster) {
            let what = format!("{} sees {} ready", node.name(), other.name());
            let seen = node.until_event(PATIENCE, &what, healed_us, |event| {
                is_shown(&event.kind, other, "ready").then_some(event.at_us)
            });
            healed.push(seen.await - healed_us);
        }
        agree(&cluster, &members_of, PATIENCE).await;
        agreed.push(now_us() - healed_us);
        cluster.settled(PATIENCE).await;
    }
    let (healed, agreed) = (Figures::of(healed), Figures::of(agreed));
    println!(
        "{times} partitions of {lasts:?}, {profile:?}: from the link's return until a node sees another one ready: {healed}"
    );
    println!("until all groups are the same everywhere: {agreed}");
    assert!(
        healed.max() <= HEALED_WITHIN.as_micros() as u64,
        "the promise is {HEALED_WITHIN:?}"
    );
    assert!(
        agreed.max() <= AGREED_WITHIN.as_micros() as u64,
        "the promise is {AGREED_WITHIN:?}"
    );
    everybody_sends(&cluster).await;
    nothing_is_left(&cluster, &before).await;
}

/// The pairs of nodes that are not on the same side.
fn across(cluster: &MeshCluster) -> impl Iterator<Item = (&MeshProcess, &MeshProcess)> {
    let pairs = SIDES[0]
        .iter()
        .flat_map(|one| SIDES[1].iter().flat_map(move |other| [(*one, *other), (*other, *one)]));
    pairs.map(|(node, other)| (cluster.node(node), cluster.node(other)))
}

fn is_shown(event: &EventKind, node: &MeshProcess, as_state: &str) -> bool {
    matches!(event, EventKind::Member { node: of, state: Some(state), .. } if of == node.name() && state == as_state)
}

/// Waits until every node says the same of every group.
async fn agree(cluster: &MeshCluster, members_of: &BTreeMap<String, Vec<String>>, within: Duration) {
    for node in cluster.nodes() {
        let since = Instant::now();
        loop {
            let groups = members_of.keys().cloned().collect();
            let Answer::Groups { nodes } = node.tell(Order::Groups { groups }, PATIENCE).await.1 else {
                panic!("groups are answered with groups");
            };
            let wrong = nodes
                .iter()
                .find(|(group, nodes)| members_of.get(*group) != Some(nodes));
            let Some((group, nodes)) = wrong else { break };
            let expected = members_of.get(group);
            assert!(
                since.elapsed() < within,
                "{} sees {nodes:?} in {group}, not {expected:?}",
                node.name()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Has every node send to every other one, so that all data connections are there.
async fn everybody_sends(cluster: &MeshCluster) {
    for node in cluster.nodes() {
        for other in cluster.nodes().iter().filter(|other| other.name() != node.name()) {
            let order = Order::Bulk {
                to: other.name().into(),
                channels: vec![0],
                bytes: 100,
                for_ms: 10,
                bytes_per_s: Some(10_000),
            };
            let sent = node.tell(order, PATIENCE).await.1;
            assert!(matches!(sent, Answer::Bulk { messages: 1.., .. }), "{sent:?}");
        }
    }
}

async fn reports(cluster: &MeshCluster) -> Vec<Report> {
    let mut reports = Vec::new();
    for node in cluster.nodes() {
        reports.push(node.report().await);
    }
    reports
}

/// What a partition could leave behind is as it was.
async fn nothing_is_left(cluster: &MeshCluster, before: &[Report]) {
    for (node, before) in cluster.nodes().iter().zip(before) {
        let exactly = ["control_connections", "data_connections", "gossip_lives"];
        let mut differs = String::new();
        let since = Instant::now();
        let after = loop {
            let after = node.report().await;
            let mut faults = Vec::new();
            let mut compare = |name: &str, before: u64, after: u64, more_max: u64| {
                if after > before + more_max || (more_max == 0 && after != before) {
                    faults.push(format!("{name}: {before} before, {after} after"));
                }
            };
            for name in exactly {
                compare(name, before.stats[name], after.stats[name], 0);
            }
            // As many groups as before, but deleted keys are kept for a while.
            compare("own_keys", before.stats["own_keys"], after.stats["own_keys"], 2);
            compare(
                "cluster_keys",
                before.stats["cluster_keys"],
                after.stats["cluster_keys"],
                10,
            );
            compare("fds", before.fds, after.fds, 0);
            compare("threads", before.threads, after.threads, 0);
            compare("tasks", before.tasks, after.tasks, TASKS_MORE_MAX);
            compare("rss", before.rss, after.rss, RSS_MORE_MAX);
            if faults.is_empty() {
                break after;
            }
            differs = faults.join("; ");
            assert!(
                since.elapsed() < TIDY_WITHIN,
                "{} keeps something: {differs}",
                node.name()
            );
            sleep(Duration::from_millis(100)).await;
        };
        let kib = |report: &Report| report.rss / 1_024;
        println!(
            "{}: tidy after {:.1} s{}; {} and {} KiB, {} and {} tasks, {} and {} keys of the cluster before and after",
            node.name(),
            since.elapsed().as_secs_f64(),
            if differs.is_empty() {
                String::new()
            } else {
                format!(" (last: {differs})")
            },
            kib(before),
            kib(&after),
            before.tasks,
            after.tasks,
            before.stats["cluster_keys"],
            after.stats["cluster_keys"],
        );
    }
}

fn scale() -> (usize, Duration) {
    if full_scale() {
        (4, Duration::from_secs(30))
    } else {
        (1, Duration::from_secs(14))
    }
}

mod measured {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_sides_cut_by_relays_heal_and_leave_nothing() {
        let (times, lasts) = scale();
        falls_apart_and_heals(&Relays::start(NODES).await, Pace::Lan, times, lasts).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_sides_on_two_switches_heal_and_leave_nothing() {
        let (times, lasts) = scale();
        let Some(namespaces) = Namespaces::start(NODES) else {
            return;
        };
        falls_apart_and_heals(&namespaces, Pace::Default, times, lasts).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_whose_link_was_down_is_a_member_again_within_five_seconds() {
        let Some(namespaces) = Namespaces::start(3) else {
            return;
        };
        let cluster = MeshCluster::start_on(&namespaces, Pace::Default).await;
        // The first node has no seeds: nothing but the roll call of the dead finds the others for it.
        namespaces.link_down(0);
        until_within(PATIENCE, "both sides see each other dead", async || {
            let alone = cluster.node(0).report().await.members;
            let others = cluster.node(1).report().await.members;
            (alone["n1"].state == "dead" && alone["n2"].state == "dead" && others["n0"].state == "dead").then_some(())
        })
        .await;
        sleep(Duration::from_secs(if full_scale() { 30 } else { 5 })).await;
        namespaces.link_up(0);
        let since = Instant::now();
        cluster.settled(HEALED_WITHIN).await;
        println!("healed {:.1} s after the link came up", since.elapsed().as_secs_f64());
    }
}
