//! Messages, requests and the connections under them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_gossip::{LinkEvent, RequestError, SendError};

use crate::harness::{Node, NodeOptions, ONE, OTHER, eventually, eventually_for, number, numbers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_both_ways_on_each_channel() {
    let nodes = Node::cluster(2, NodeOptions::default()).await;
    let count = 100_000;
    let start = Instant::now();
    for (from, to) in [(0, 1), (1, 0)] {
        let (sender, to) = (nodes[from].cluster.clone(), nodes[to].name());
        std::thread::spawn(move || {
            // From a thread outside the runtime, as executor threads do.
            let send = |channel, message: Bytes| {
                while sender.send(&to, channel, message.clone()) == Err(SendError::Full) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            for index in 0..count {
                send(ONE, number(index));
                if index % 1_000 == 0 {
                    send(OTHER, vec![index as u8; 100_000].into());
                }
            }
        });
    }
    for node in &nodes {
        eventually_for(Duration::from_secs(30), || {
            node.inbox.count(ONE) == count as usize && node.inbox.count(OTHER) == 100
        })
        .await;
        assert_eq!(numbers(&node.inbox, ONE), (0..count).collect::<Vec<_>>());
        let large = node.inbox.messages(OTHER);
        assert!(
            large
                .iter()
                .enumerate()
                .all(|(index, bytes)| bytes[..] == vec![(index * 1_000) as u8; 100_000][..])
        );
        assert_eq!(node.inbox.lost(), BTreeMap::new());
    }
    println!("2 x {count} messages and 2 x 10 MB in {:?}", start.elapsed());
    let connected = |node: &Node| {
        node.inbox
            .events()
            .into_iter()
            .filter(|event| *event == LinkEvent::Connected)
            .count()
    };
    assert!(nodes.iter().all(|node| connected(node) >= 1));
    assert_eq!(nodes[0].cluster.stats().data_connections, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_says_what_is_lost_keeps_the_order_and_doubles_nothing() {
    let nodes = Node::cluster(2, NodeOptions::default()).await;
    let sending: Vec<_> = [(0, 1), (1, 0)]
        .map(|(from, to)| {
            let (sender, to) = (nodes[from].cluster.clone(), nodes[to].name());
            std::thread::spawn(move || {
                for index in 0..300_000 {
                    while sender.send(&to, ONE, number(index)) == Err(SendError::Full) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    if index % 1_000 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            })
        })
        .into();
    while !sending.iter().all(|thread| thread.is_finished()) {
        let before = nodes[1].inbox.count(ONE);
        eventually(|| nodes[1].inbox.count(ONE) > before || sending[0].is_finished()).await;
        nodes[0].cluster.cut_data_links();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    // A last message on each side shows that the links are back and that everything that will come has come.
    for (from, to) in [(0, 1), (1, 0)] {
        nodes[from]
            .cluster
            .send(&nodes[to].name(), ONE, number(u64::MAX))
            .unwrap();
        eventually(|| numbers(&nodes[to].inbox, ONE).last() == Some(&u64::MAX)).await;
    }
    for node in &nodes {
        let got = numbers(&node.inbox, ONE);
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "out of order or doubled");
        let breaks = node.cluster.stats().links_lost_total;
        assert!(breaks >= 3, "only {breaks} breaks");
        let lost = node.inbox.lost();
        assert!((1..=breaks).contains(&lost[&ONE]), "{lost:?} for {breaks} breaks");
        assert_eq!(lost.len(), 1, "only the channel that was written to");
        println!("{breaks} breaks, {} of 300,000 arrived", got.len() - 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_that_is_cut_says_lost_once_and_comes_back_when_there_is_something_to_send() {
    let nodes = Node::cluster(2, NodeOptions::default()).await;
    nodes[0].cluster.send(&nodes[1].name(), ONE, number(1)).unwrap();
    nodes[1].cluster.send(&nodes[0].name(), OTHER, number(1)).unwrap();
    eventually(|| nodes[1].inbox.count(ONE) == 1 && nodes[0].inbox.count(OTHER) == 1).await;
    nodes[1].cluster.cut_data_links();
    eventually(|| nodes[0].inbox.lost() == BTreeMap::from([(ONE, 1)])).await;
    eventually(|| nodes[1].inbox.lost() == BTreeMap::from([(OTHER, 1)])).await;
    assert_eq!(nodes[0].cluster.stats().data_connections, 0);
    nodes[1].cluster.send(&nodes[0].name(), OTHER, number(2)).unwrap();
    eventually(|| numbers(&nodes[0].inbox, OTHER) == [1, 2]).await;
    assert_eq!(nodes[0].inbox.lost(), BTreeMap::from([(ONE, 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_so_and_then_that_it_has_room() {
    let options = NodeOptions {
        queue_bytes: 64 << 10,
        ..NodeOptions::default()
    };
    let nodes = Node::cluster(2, options).await;
    // Dialling takes milliseconds and filling the queue microseconds.
    let mut sent = 0u64;
    let full = loop {
        match nodes[0].cluster.send(&nodes[1].name(), ONE, number(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1_000_000, "a queue without end");
    };
    assert_eq!(full, SendError::Full);
    eventually(|| nodes[0].inbox.events().contains(&LinkEvent::Writable { channel: ONE })).await;
    nodes[0].cluster.send(&nodes[1].name(), ONE, number(sent)).unwrap();
    eventually(|| nodes[1].inbox.count(ONE) as u64 == sent + 1).await;
    assert_eq!(numbers(&nodes[1].inbox, ONE), (0..=sent).collect::<Vec<_>>());
    assert!(nodes[0].cluster.stats().queue_full_total >= 1);
    let too_large = nodes[0]
        .cluster
        .send(&nodes[1].name(), ONE, vec![0; (4 << 20) + 1].into());
    assert_eq!(
        too_large,
        Err(SendError::TooLarge {
            len: (4 << 20) + 1,
            max: 4 << 20
        })
    );
    let largest = nodes[0].cluster.send(&nodes[1].name(), OTHER, vec![0; 4 << 20].into());
    assert_eq!(largest, Ok(()));
    eventually(|| nodes[1].inbox.count(OTHER) == 1).await;
    let nobody = nodes[0].cluster.send(&"nobody".parse().unwrap(), ONE, number(0));
    assert_eq!(
        nobody,
        Err(SendError::UnknownNode {
            node: "nobody".parse().unwrap()
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_or_end_at_their_deadline() {
    let nodes = Node::cluster(2, NodeOptions::default()).await;
    let (asker, other) = (&nodes[0].cluster, nodes[1].name());
    let second = Duration::from_secs(1);
    let answer = asker.request(&other, Bytes::from_static(b"ping"), second * 10).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"ping from n0")));
    let start = Instant::now();
    assert_eq!(
        asker.request(&other, Bytes::from_static(b"never"), second / 2).await,
        Err(RequestError::Deadline)
    );
    assert!(start.elapsed() >= second / 2);
    let large = vec![b'x'; 1 << 20];
    let answer = asker.request(&other, large.into(), second * 10).await.unwrap();
    assert_eq!(answer.len(), (1 << 20) + " from n0".len());
    let too_large = asker.request(&other, vec![0; (4 << 20) + 1].into(), second).await;
    assert_eq!(too_large, Err(RequestError::TooLarge { max: 4 << 20 }));
    let nobody = asker.request(&"nobody".parse().unwrap(), Bytes::new(), second).await;
    assert_eq!(
        nobody,
        Err(RequestError::UnknownNode {
            node: "nobody".parse().unwrap()
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_that_all_dial_each_other_keep_one_connection_a_pair() {
    let nodes = Node::cluster(
        10,
        NodeOptions {
            everyone_is_a_seed: true,
            ..NodeOptions::default()
        },
    )
    .await;
    let ends = |nodes: &[Node]| {
        nodes
            .iter()
            .map(|node| node.cluster.stats().control_connections)
            .sum::<u64>()
    };
    eventually_for(Duration::from_secs(20), || ends(&nodes) == 90).await;
    // Data links all at once, from both ends.
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.name() != from.name()) {
            from.cluster.send(&to.name(), ONE, number(0)).unwrap();
        }
    }
    eventually(|| nodes.iter().all(|node| node.inbox.count(ONE) == 9)).await;
    let data_ends = || {
        nodes
            .iter()
            .map(|node| node.cluster.stats().data_connections)
            .sum::<u64>()
    };
    eventually(|| data_ends() == 90).await;
    assert!(
        nodes.iter().all(|node| node.inbox.lost().is_empty()),
        "crossing dials lost something"
    );
    assert_eq!(ends(&nodes), 90);
    // A connection that loses against a crossing one is no sign that anybody is gone.
    let suspicions: Vec<u64> = nodes.iter().map(|node| node.cluster.stats().suspicions_total).collect();
    assert_eq!(suspicions, [0; 10]);
}
