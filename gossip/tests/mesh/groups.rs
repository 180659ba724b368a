//! Groups: in gossip while there is room, in the directory beyond, and no caller sees which.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rookery_gossip::{GroupError, MemberState};

use crate::harness::{Node, NodeOptions, eventually, eventually_for, number};

/// So small a budget that most groups go to the directory.
fn tight() -> NodeOptions {
    NodeOptions {
        keys_soft: 4,
        ..NodeOptions::default()
    }
}

fn names(nodes: &[Node]) -> BTreeSet<String> {
    nodes.iter().map(|node| node.name().to_string()).collect()
}

fn nodes_of(node: &Node, group: &str) -> BTreeSet<String> {
    node.cluster.nodes(group).iter().map(ToString::to_string).collect()
}

/// What a node received of a group, by sender.
fn received(node: &Node, group: &str) -> BTreeMap<String, Vec<u64>> {
    let mut received: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (from, name, bytes) in node.inbox.broadcasts() {
        if name == group {
            let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            received.entry(from).or_default().push(number);
        }
    }
    received
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_beyond_the_budget_are_found_and_reached_as_any_other() {
    let nodes = Node::cluster(3, tight()).await;
    let groups: Vec<String> = (0..40).map(|index| format!("room {index}")).collect();
    let memberships: Vec<_> = groups
        .iter()
        .flat_map(|group| nodes[..2].iter().map(|node| node.cluster.join(group).unwrap()))
        .collect();
    for node in &nodes {
        for group in &groups {
            eventually(|| nodes_of(node, group) == names(&nodes[..2])).await;
            let found = node.cluster.find_nodes(group).await;
            assert_eq!(found.len(), 2);
        }
    }
    let stats = nodes[0].cluster.stats();
    assert_eq!(
        (stats.groups_in_gossip, stats.groups_in_directory, stats.own_keys),
        (4, 36, 4)
    );
    // From outside the group and from inside, in order.
    for index in 0..50 {
        for group in &groups {
            assert_eq!(nodes[2].cluster.broadcast(group, &number(index)).copies, 2);
            assert_eq!(nodes[0].cluster.broadcast(group, &number(index)).copies, 1);
        }
    }
    for group in &groups {
        let in_order: Vec<u64> = (0..50).collect();
        eventually(|| received(&nodes[1], group).values().map(Vec::len).sum::<usize>() == 100).await;
        for (_, numbers) in received(&nodes[1], group) {
            assert_eq!(numbers, in_order);
        }
        eventually(|| received(&nodes[0], group).get("n2") == Some(&in_order)).await;
        assert_eq!(received(&nodes[2], group), BTreeMap::new());
    }
    drop(memberships);
    for node in &nodes {
        for group in &groups {
            eventually(|| node.cluster.nodes(group).is_empty()).await;
        }
        // Gossip states an empty group for ten seconds more; the directory nothing.
        eventually_for(Duration::from_secs(20), || {
            let stats = node.cluster.stats();
            (stats.groups_in_gossip, stats.groups_in_directory, stats.directory.kept) == (0, 0, 0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_broadcasts_to_a_group_in_the_directory_wait_and_keep_their_order() {
    let nodes = Node::cluster(3, tight()).await;
    let groups: Vec<String> = (0..30).map(|index| format!("room {index}")).collect();
    let _memberships: Vec<_> = groups
        .iter()
        .map(|group| nodes[0].cluster.join(group).unwrap())
        .collect();
    // It has heard that there are groups in the directory, and asked about none of these.
    eventually(|| nodes[2].cluster.broadcast("nobody's", &number(0)).waiting).await;
    let mut waited = 0;
    for index in 0..200 {
        for group in &groups {
            waited += u64::from(nodes[2].cluster.broadcast(group, &number(index)).waiting);
        }
        if index % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    println!("{waited} of 6,000 broadcasts waited for an answer");
    assert!(waited > 0);
    let in_order: Vec<u64> = (0..200).collect();
    for group in &groups {
        eventually(|| {
            let got = received(&nodes[0], group).remove("n2").unwrap_or_default();
            assert!(
                got.iter().zip(&in_order).all(|(got, sent)| got == sent),
                "{group}: {got:?}"
            );
            got.len() == 200
        })
        .await;
    }
    assert!(nodes[1].inbox.broadcasts().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_in_the_directory_vanish_with_their_node_and_survive_the_death_of_a_home() {
    let nodes = Node::cluster(2, tight()).await;
    let more = |name: &str| {
        let options = NodeOptions {
            seeds: vec![nodes[0].addr()],
            ..tight()
        };
        Node::start_apart(name, options)
    };
    let (staying, victim) = (more("stays"), more("victim"));
    let everybody = |count: usize| nodes.iter().all(|node| node.count(MemberState::Ready) == count);
    eventually(|| everybody(4)).await;
    let groups: Vec<String> = (0..40).map(|index| format!("room {index}")).collect();
    let _memberships: Vec<_> = groups
        .iter()
        .flat_map(|group| [&staying, &victim].map(|node| node.cluster.join(group).unwrap()))
        .collect();
    let both: BTreeSet<String> = ["stays", "victim"].map(str::to_owned).into();
    for node in &nodes {
        for group in &groups {
            eventually(|| nodes_of(node, group) == both).await;
        }
    }
    // It was a holder, and a home of half of all groups.
    victim.kill();
    let left: BTreeSet<String> = [String::from("stays")].into();
    for node in &nodes {
        for group in &groups {
            eventually(|| nodes_of(node, group) == left).await;
        }
    }
    for group in &groups {
        nodes[0].cluster.broadcast(group, &number(7));
    }
    eventually(|| staying.inbox.broadcasts().len() == groups.len()).await;
    staying.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_groups_than_a_node_may_be_in_are_refused() {
    let options = NodeOptions {
        groups_max: 10,
        ..tight()
    };
    let node = Node::start("n0", options).await;
    let mut memberships: Vec<_> = (0..10)
        .map(|index| node.cluster.join(&index.to_string()).unwrap())
        .collect();
    assert!(matches!(
        node.cluster.join("more"),
        Err(GroupError::TooMany { max: 10 })
    ));
    assert!(matches!(node.cluster.join(""), Err(GroupError::Name { .. })));
    assert_eq!(node.cluster.stats().groups_refused_total, 1);
    // What was in the directory makes room as soon as it is left.
    memberships.pop();
    eventually(|| node.cluster.join("more").is_ok()).await;
}

/// A thousand groups a second are joined and left among five nodes, each for a second, and one of fifty stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_leaves_nothing_behind_and_loses_nothing() {
    const SOFT: usize = 20;
    let options = NodeOptions {
        keys_soft: SOFT,
        ..NodeOptions::default()
    };
    let nodes = Node::cluster(5, options).await;
    let began = Instant::now();
    let mut staying = Vec::new();
    let mut passing = std::collections::VecDeque::new();
    let mut index = 0u64;
    while began.elapsed() < Duration::from_secs(2) {
        let due = began.elapsed().as_millis() as u64 / 5;
        while index < due * 5 {
            let (node, group) = (&nodes[index as usize % 5], format!("passing {index}"));
            let membership = node.cluster.join(&group).unwrap();
            if index.is_multiple_of(50) {
                staying.push((group, index as usize % 5, membership));
            } else {
                passing.push_back(membership);
            }
            if passing.len() > 1_000 {
                passing.pop_front();
            }
            index += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(passing);
    for node in &nodes {
        let stats = node.cluster.stats();
        assert!(stats.own_keys <= SOFT as u64, "{} keys", stats.own_keys);
    }
    for (group, owner, _) in &staying {
        for node in &nodes {
            eventually(|| node.cluster.nodes(group) == [nodes[*owner].name()]).await;
        }
    }
    // What remains is what stays, at two homes each.
    eventually_for(Duration::from_secs(40), || {
        let stats: Vec<_> = nodes.iter().map(|node| node.cluster.stats()).collect();
        let held: u64 = stats.iter().map(|stats| stats.groups_in_directory).sum();
        let said: u64 = stats.iter().map(|stats| stats.groups_in_gossip).sum();
        let kept: u64 = stats.iter().map(|stats| stats.directory.kept).sum();
        held + said == staying.len() as u64 && kept == 2 * held
    })
    .await;
    drop(staying);
    eventually_for(Duration::from_secs(40), || {
        nodes.iter().all(|node| {
            let stats = node.cluster.stats();
            (stats.groups_in_gossip, stats.groups_in_directory, stats.directory.kept) == (0, 0, 0)
        })
    })
    .await;
}
