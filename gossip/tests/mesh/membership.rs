//! Who is here: arriving, leaving, dying, coming back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_gossip::{ChangeKind, FactError, MemberState, Profile, SendError, StartError};

use crate::harness::{Node, NodeOptions, ONE, eventually, number, numbers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_see_each_other_ready_with_facts_and_groups() {
    let nodes = Node::cluster(3, NodeOptions::default()).await;
    let _membership = nodes[0].cluster.join("room:1").unwrap();
    let again = nodes[0].cluster.join("room:1").unwrap();
    nodes[0].cluster.set_fact("load", "7").unwrap();
    for node in &nodes {
        eventually(|| node.count(MemberState::Ready) == 3).await;
        eventually(|| node.cluster.nodes("room:1") == [nodes[0].name()]).await;
        eventually(|| {
            node.member("n0")
                .is_some_and(|member| member.facts.get("load").is_some_and(|load| load == "7"))
        })
        .await;
    }
    assert_eq!(nodes[0].cluster.local_members("room:1"), 2);
    drop(again);
    assert_eq!(nodes[0].cluster.local_members("room:1"), 1);
    let sent = nodes[1].cluster.broadcast("room:1", &Bytes::from_static(b"hello"));
    assert_eq!((sent.copies, sent.refused), (1, 0));
    eventually(|| {
        nodes[0].inbox.broadcasts() == [("n1".to_owned(), "room:1".to_owned(), Bytes::from_static(b"hello"))]
    })
    .await;
    assert_eq!(nodes[2].inbox.broadcasts(), []);
    nodes[0].cluster.remove_fact("load");
    nodes[0].cluster.set_state(MemberState::Draining);
    for node in &nodes {
        eventually(|| {
            node.member("n0")
                .is_some_and(|member| member.facts.is_empty() && member.state == MemberState::Draining)
        })
        .await;
    }
    let stats = nodes[0].cluster.stats();
    assert_eq!(
        (stats.control_connections, stats.suspicions_total, stats.rtt.len()),
        (2, 0, 2)
    );
    eventually(|| nodes[1].member("n0").is_some_and(|member| member.rtt.is_some())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_at_the_same_address_is_noticed_within_a_second() {
    let survivor = Node::start("n0", NodeOptions::default()).await;
    let options = NodeOptions {
        seeds: vec![survivor.addr()],
        ..NodeOptions::default()
    };
    let victim = Node::start_apart("n1", options.clone());
    eventually(|| {
        survivor
            .member("n1")
            .is_some_and(|member| member.state == MemberState::Ready)
    })
    .await;
    survivor.cluster.send(&"n1".parse().unwrap(), ONE, number(1)).unwrap();
    eventually(|| victim.inbox.count(ONE) == 1).await;
    let old = survivor.member("n1").unwrap().peer;
    let port = victim.kill();
    let again = Node::start_apart(
        "n1",
        NodeOptions {
            port,
            generation: old.generation + 1,
            ..options
        },
    );
    let restarted_at = Instant::now();
    eventually(|| {
        survivor
            .member("n1")
            .is_some_and(|member| member.peer.generation > old.generation)
    })
    .await;
    // The bound is a second; the rest is for a busy machine.
    assert!(
        restarted_at.elapsed() < Duration::from_secs(2),
        "{:?}",
        restarted_at.elapsed()
    );
    println!("restart noticed after {:?}", restarted_at.elapsed());
    eventually(|| survivor.inbox.gone() == [old.clone()]).await;
    survivor.cluster.send(&"n1".parse().unwrap(), ONE, number(2)).unwrap();
    eventually(|| numbers(&again.inbox, ONE) == [2]).await;
    let generations = survivor
        .cluster
        .members()
        .borrow()
        .iter()
        .filter(|member| member.peer.node.as_str() == "n1")
        .count();
    assert_eq!(generations, 1);
    again.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_suspected_and_then_dead_on_all_others() {
    for (profile, bound) in [(Profile::Default, 8), (Profile::Lan, 4)] {
        let options = NodeOptions {
            profile,
            ..NodeOptions::default()
        };
        let nodes = Node::cluster(2, options.clone()).await;
        let victim = Node::start_apart(
            "victim",
            NodeOptions {
                seeds: vec![nodes[0].addr()],
                ..options
            },
        );
        for node in &nodes {
            eventually(|| {
                node.member("victim")
                    .is_some_and(|member| member.state == MemberState::Ready)
            })
            .await;
        }
        let peer = nodes[0].member("victim").unwrap().peer;
        nodes[0].cluster.send(&peer.node, ONE, number(1)).unwrap();
        // A while of heartbeats, as in a cluster that has been running.
        tokio::time::sleep(Duration::from_secs(2)).await;
        victim.kill();
        let killed_at = Instant::now();
        for node in &nodes {
            let state = || node.member("victim").map(|member| member.state);
            // A kill that let a goodbye out would be no kill, and is told apart from a verdict that does not come.
            eventually(|| {
                let state = state();
                assert!(
                    !matches!(state, None | Some(MemberState::Leaving)),
                    "{profile:?}: killed, and yet {state:?}"
                );
                state == Some(MemberState::Dead)
            })
            .await;
            assert_eq!(node.inbox.gone(), std::slice::from_ref(&peer));
            assert!(matches!(
                node.cluster.send(&peer.node, ONE, number(2)),
                Err(SendError::UnknownNode { .. })
            ));
        }
        let report = nodes[0].cluster.report().await.unwrap();
        let of = |name: &str| {
            report
                .members
                .iter()
                .find(|member| member.peer.node.as_str() == name)
                .unwrap()
        };
        assert!(!of("victim").reachable && of("victim").departed && of("victim").last_heard.is_some());
        assert!(of("n1").reachable && of("n1").connected && of("n1").rtt.is_some() && of("n1").keys >= 2);
        assert_eq!(
            (report.own.own_keys, report.own.keys_soft, report.own.isolated),
            (0, 200, false)
        );
        let stats = nodes[0].cluster.stats();
        assert_eq!(stats.deaths_total, 1);
        assert!(
            stats.probes_direct_total >= 1 && stats.probes_indirect_total >= 1,
            "{stats:?}"
        );
        assert_eq!(
            stats.nacks_missed_total, 0,
            "the other node says that the victim does not answer it either"
        );
        println!("{profile:?}: dead after {:?}", killed_at.elapsed());
        assert!(
            killed_at.elapsed() < Duration::from_secs(bound) + Duration::from_secs(1),
            "{:?}",
            killed_at.elapsed()
        );
        assert!(nodes.iter().all(|node| node.cluster.stats().suspicions_total >= 1));
        // Whom an operator does not want to see any more is forgotten by all.
        assert!(!nodes[1].cluster.forget(&nodes[0].name()).await, "it is here");
        assert!(nodes[1].cluster.forget(&peer.node).await);
        for node in &nodes {
            eventually(|| node.members() == ["n0", "n1"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_changes_of_a_member_come_each_once_and_in_order() {
    let watcher = Node::start("n0", NodeOptions::default()).await;
    let mut changes = watcher.cluster.changes();
    let seeds = vec![watcher.addr()];
    let options = |generation| NodeOptions {
        generation,
        seeds: seeds.clone(),
        ..NodeOptions::default()
    };
    let ready = |generation| {
        let shown = watcher.member("n1");
        shown.is_some_and(|member| member.state == MemberState::Ready && member.peer.generation == generation)
    };
    let first = Node::start_apart("n1", options(1));
    eventually(|| ready(1)).await;
    let port = first.kill();
    eventually(|| {
        watcher
            .member("n1")
            .is_some_and(|member| member.state == MemberState::Dead)
    })
    .await;
    let second = Node::start_apart("n1", NodeOptions { port, ..options(2) });
    eventually(|| ready(2)).await;
    // The third comes while the second lives, as it seems.
    let port = second.kill();
    let third = Node::start_apart("n1", NodeOptions { port, ..options(3) });
    eventually(|| ready(3)).await;
    third.cluster.leave().await;
    eventually(|| watcher.member("n1").is_none()).await;
    let mut told = Vec::new();
    while let Some(change) = changes.try_next() {
        let word = match change.kind {
            ChangeKind::Arrived { .. } => "arrived".to_owned(),
            ChangeKind::Departed { why } => format!("departed: {}", why.as_str()),
            ChangeKind::Forgotten => "forgotten".to_owned(),
            ChangeKind::Remembered { .. } => "remembered".to_owned(),
            // How many of these there are depends on how gossip comes in.
            ChangeKind::State { .. } | ChangeKind::Facts { .. } => continue,
        };
        if change.peer.node.as_str() == "n1" {
            told.push((change.peer.generation, word));
        }
    }
    let expected = [
        (1, "arrived"),
        (1, "departed: died"),
        (1, "forgotten"),
        (2, "arrived"),
        (2, "departed: superseded"),
        (3, "arrived"),
        (3, "departed: left"),
        (3, "forgotten"),
    ];
    let told: Vec<(u64, &str)> = told
        .iter()
        .map(|(generation, word)| (*generation, word.as_str()))
        .collect();
    assert_eq!(told, expected);
    eventually(|| watcher.agrees(&mut changes)).await;
    eventually(|| watcher.agrees(&mut watcher.cluster.changes())).await;
    assert!(!watcher.cluster.is_isolated());
}

/// Two nodes, and one that can be paused, which has a data link to the first.
async fn with_sleeper(profile: Profile) -> (Vec<Node>, Node) {
    let options = NodeOptions {
        profile,
        ..NodeOptions::default()
    };
    let nodes = Node::cluster(2, options.clone()).await;
    let seeds = vec![nodes[0].addr()];
    let sleeper = Node::start_apart("sleeper", NodeOptions { seeds, ..options });
    eventually(|| nodes.iter().all(|node| node.count(MemberState::Ready) == 3) && sleeper.members().len() == 3).await;
    nodes[0].cluster.send(&sleeper.name(), ONE, number(0)).unwrap();
    // A while of heartbeats, as in a cluster that has been running.
    tokio::time::sleep(Duration::from_secs(1)).await;
    (nodes, sleeper)
}

async fn a_pause_is_no_death(profile: Profile, pause: Duration) {
    let (nodes, sleeper) = with_sleeper(profile).await;
    sleeper.pause(pause);
    tokio::time::sleep(pause + Duration::from_secs(3)).await;
    for node in &nodes {
        assert_eq!(node.inbox.gone(), [], "a pause of {pause:?} was taken for a death");
        eventually(|| node.count(MemberState::Ready) == 3).await;
    }
    nodes[0].cluster.send(&sleeper.name(), ONE, number(1)).unwrap();
    eventually(|| numbers(&sleeper.inbox, ONE).last() == Some(&1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_two_seconds_is_no_death_by_default() {
    a_pause_is_no_death(Profile::Default, Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_one_second_is_no_death_on_a_lan() {
    a_pause_is_no_death(Profile::Lan, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wakes_up_after_being_given_up_declares_nobody_dead_and_is_a_member_again() {
    let (nodes, sleeper) = with_sleeper(Profile::Lan).await;
    let isolation = sleeper.cluster.isolation();
    sleeper.pause(Duration::from_secs(6));
    eventually(|| {
        nodes[0]
            .member("sleeper")
            .is_some_and(|member| member.state == MemberState::Dead)
    })
    .await;
    eventually(|| sleeper.cluster.stats().self_late_total >= 1).await;
    // It trusts its view of the others again when it has heard them.
    eventually(|| isolation.has_changed().unwrap()).await;
    eventually(|| !sleeper.cluster.is_isolated()).await;
    eventually(|| nodes.iter().all(|node| node.count(MemberState::Ready) == 3)).await;
    assert_eq!(sleeper.inbox.gone(), []);
    // Its link begins anew, by the same name and generation.
    assert_eq!(nodes[0].inbox.gone(), [sleeper.cluster.local().clone()]);
    nodes[0].cluster.send(&sleeper.name(), ONE, number(1)).unwrap();
    eventually(|| numbers(&sleeper.inbox, ONE).last() == Some(&1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_gone_at_once_and_its_last_words_arrive() {
    let nodes = Node::cluster(3, NodeOptions::default()).await;
    let last = nodes[2].cluster.clone();
    for index in 0..1_000 {
        last.send(&nodes[0].name(), ONE, number(index)).unwrap();
    }
    let leaving_at = Instant::now();
    last.leave().await;
    let fault = tokio::time::timeout(Duration::from_millis(100), last.closed()).await;
    assert!(fault.is_err(), "leaving is no fault: {fault:?}");
    for node in &nodes[..2] {
        eventually(|| node.inbox.gone() == [last.local().clone()]).await;
        let state = node.member("n2").map(|member| member.state);
        assert!(matches!(state, None | Some(MemberState::Leaving)), "{state:?}");
        assert_eq!(node.cluster.stats().suspicions_total, 0);
    }
    assert!(
        leaving_at.elapsed() < Duration::from_secs(3),
        "{:?}",
        leaving_at.elapsed()
    );
    assert_eq!(numbers(&nodes[0].inbox, ONE), (0..1_000).collect::<Vec<_>>());
    assert_eq!(last.send(&nodes[0].name(), ONE, number(0)), Err(SendError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_namesake_stops_when_a_newer_one_comes() {
    let other = Node::start("n0", NodeOptions::default()).await;
    let seeds = vec![other.addr()];
    let older = Node::start(
        "twin",
        NodeOptions {
            generation: 10,
            seeds: seeds.clone(),
            ..NodeOptions::default()
        },
    )
    .await;
    eventually(|| other.member("twin").is_some()).await;
    let newer = Node::start(
        "twin",
        NodeOptions {
            generation: 11,
            seeds,
            ..NodeOptions::default()
        },
    )
    .await;
    let fault = tokio::time::timeout(Duration::from_secs(20), older.cluster.closed())
        .await
        .unwrap();
    assert_eq!(fault, rookery_gossip::Fault::Superseded);
    eventually(|| other.member("twin").is_some_and(|member| member.peer.generation == 11)).await;
    eventually(|| newer.members() == ["n0", "twin"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_joins_through_a_peer_and_never_dials_itself() {
    let first = Node::start("n0", NodeOptions::default()).await;
    let second = Node::start("n1", NodeOptions::default()).await;
    let peer = second.cluster.join_peer(&first.addr()).await.unwrap();
    assert_eq!(peer, *first.cluster.local());
    eventually(|| first.members().len() == 2 && second.members().len() == 2).await;
    let itself = first.cluster.join_peer(&first.addr()).await.unwrap_err();
    assert!(itself.to_string().contains("this node itself"), "{itself}");
    let nobody = first.cluster.join_peer("127.0.0.1:9").await.unwrap_err();
    assert!(nobody.to_string().contains("no answer from 127.0.0.1:9"), "{nobody}");
    assert!(first.cluster.join_peer("nonsense").await.is_err());
    assert_eq!(first.members(), ["n0", "n1"]);
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let check = |options: NodeOptions| async move { Node::try_start("n0", options).await.map(|_| ()).unwrap_err() };
    let error = check(NodeOptions {
        cluster_name: "",
        ..NodeOptions::default()
    })
    .await;
    assert!(matches!(error, StartError::ClusterName { .. }), "{error}");
    for advertise in ["", "nonsense", "0.0.0.0:7701", "127.0.0.1:0", "[::]:1"] {
        let error = check(NodeOptions {
            advertise: Some(advertise.into()),
            ..NodeOptions::default()
        })
        .await;
        assert!(matches!(error, StartError::Advertise(_)), "{advertise:?}: {error}");
    }
    for seed in ["", "host", "_rookery._udp.example.org"] {
        let error = check(NodeOptions {
            seeds: vec![seed.into()],
            ..NodeOptions::default()
        })
        .await;
        assert!(matches!(error, StartError::Source { .. }), "{seed:?}: {error}");
    }
    let node = Node::start("n0", NodeOptions::default()).await;
    assert_eq!(
        node.cluster.set_fact("schlüssel", "v"),
        Err(FactError::Key { max: 126 })
    );
    assert_eq!(
        node.cluster.set_fact("k", &"v".repeat(70_000)),
        Err(FactError::Value {
            len: 70_000,
            max: 1_000
        })
    );
}
