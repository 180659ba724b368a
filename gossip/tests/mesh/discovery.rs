//! Finding each other by DNS, against a DNS server that the test runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rookery_gossip::{MemberState, SourceKind, SourceStatus};
use tokio::net::UdpSocket;

use crate::harness::{Node, NodeOptions, eventually, eventually_for, log};

/// A DNS server on a loopback port that knows what it is told.
#[derive(Clone, Default)]
struct Zone {
    records: Arc<Mutex<BTreeMap<String, Vec<RData>>>>,
}

impl Zone {
    fn put(&self, name: &str, data: RData) {
        self.records
            .lock()
            .unwrap()
            .entry(name.to_owned())
            .or_default()
            .push(data);
    }

    fn address(&self, name: &str, ip: Ipv4Addr) {
        self.put(name, RData::A(A(ip)));
    }

    async fn serve(&self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1_500];
            loop {
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                let answer = zone.answer(Message::from_vec(&buffer[..len]).unwrap());
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        addr
    }

    fn answer(&self, query: Message) -> Message {
        let mut answer = query.into_response();
        let question = answer.queries[0].clone();
        let name = question.name().to_ascii().to_ascii_lowercase();
        match self.records.lock().unwrap().get(name.trim_end_matches('.')) {
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(records) => {
                for data in records
                    .iter()
                    .filter(|data| data.record_type() == question.query_type())
                {
                    answer.add_answer(Record::from_rdata(question.name().clone(), 60, data.clone()));
                }
            }
        }
        answer.metadata.recursion_available = true;
        answer
    }
}

fn source<'a>(status: &'a [SourceStatus], name: &str) -> &'a SourceStatus {
    status.iter().find(|source| source.source == name).unwrap()
}

#[test]
fn the_server_of_the_test_answers_by_record_type() {
    let zone = Zone::default();
    zone.address("a.test", Ipv4Addr::LOCALHOST);
    let ask = |name: &str, kind| {
        let mut query = Message::query();
        query.add_query(hickory_proto::op::Query::query(Name::from_ascii(name).unwrap(), kind));
        let answer = zone.answer(query);
        (answer.metadata.response_code, answer.answers.len())
    };
    assert_eq!(ask("a.test.", RecordType::A), (ResponseCode::NoError, 1));
    assert_eq!(ask("a.test.", RecordType::AAAA), (ResponseCode::NoError, 0));
    assert_eq!(ask("b.test.", RecordType::A), (ResponseCode::NXDomain, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_two_addresses_leads_to_both() {
    let zone = Zone::default();
    let server = zone.serve().await;
    // The whole of 127/8 is loopback, so two nodes can share a port.
    let first = Arc::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = first.local_addr().unwrap().port();
    let second = Arc::new(std::net::UdpSocket::bind(("127.0.0.2", port)).unwrap());
    zone.address("nodes.test", Ipv4Addr::new(127, 0, 0, 1));
    zone.address("nodes.test", Ipv4Addr::new(127, 0, 0, 2));
    let by_name = NodeOptions {
        dns: vec![format!("nodes.test:{port}")],
        dns_server: Some(server),
        ..NodeOptions::default()
    };
    let n0 = Node::start(
        "n0",
        NodeOptions {
            socket: Some(first),
            ..by_name.clone()
        },
    )
    .await;
    let n1 = Node::start(
        "n1",
        NodeOptions {
            socket: Some(second),
            ..by_name.clone()
        },
    )
    .await;
    // One that is in no record finds both, and each finds the other while never meeting itself.
    let n2 = Node::start("n2", by_name).await;
    for node in [&n0, &n1, &n2] {
        eventually(|| node.members() == ["n0", "n1", "n2"]).await;
    }
    let status = n2.cluster.discovery_status();
    let ips: Vec<IpAddr> = status[0].addresses.iter().map(|address| address.addr.ip()).collect();
    assert_eq!(ips, [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])]);
    assert_eq!(
        (status[0].kind, status[0].last_error.as_deref()),
        (SourceKind::Dns, None)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_name_leads_to_hosts_and_ports() {
    let zone = Zone::default();
    let server = zone.serve().await;
    let n0 = Node::start("n0", NodeOptions::default()).await;
    let n1 = Node::start("n1", NodeOptions::default()).await;
    for (node, host) in [(&n0, "a.hosts.test"), (&n1, "b.hosts.test")] {
        let port = node.addr().parse::<SocketAddr>().unwrap().port();
        let target = Name::from_ascii(format!("{host}.")).unwrap();
        zone.put("_rookery._udp.test", RData::SRV(SRV::new(0, 0, port, target)));
        zone.address(host, Ipv4Addr::LOCALHOST);
    }
    // A record whose host does not exist spoils nothing.
    zone.put(
        "_rookery._udp.test",
        RData::SRV(SRV::new(0, 0, 1, Name::from_ascii("nowhere.test.").unwrap())),
    );
    let dns = vec!["_rookery._udp.test".to_owned()];
    let n2 = Node::start(
        "n2",
        NodeOptions {
            dns,
            dns_server: Some(server),
            ..NodeOptions::default()
        },
    )
    .await;
    for node in [&n0, &n1, &n2] {
        eventually(|| node.members() == ["n0", "n1", "n2"]).await;
    }
    assert_eq!(n2.cluster.discovery_status()[0].addresses.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_never_resolves_is_warned_of_and_counted_and_one_that_resolves_later_is_found() {
    let zone = Zone::default();
    let server = zone.serve().await;
    let n0 = Node::start("n0", NodeOptions::default()).await;
    let port = n0.addr().parse::<SocketAddr>().unwrap().port();
    let (late, never) = (format!("late.test:{port}"), "never.test:1".to_owned());
    let dns = vec![late.clone(), never.clone()];
    let n1 = Node::start(
        "n1",
        NodeOptions {
            dns,
            dns_server: Some(server),
            ..NodeOptions::default()
        },
    )
    .await;
    eventually(|| n1.cluster.stats().discovery_failures_dns_total >= 2).await;
    for name in [&late, &never] {
        assert!(source(&n1.cluster.discovery_status(), name).last_error.is_some());
        eventually(|| log().count(&format!("no peer found source={name}")) == 1).await;
    }
    assert_eq!(n1.members(), ["n1"]);
    zone.address("late.test", Ipv4Addr::LOCALHOST);
    eventually_for(Duration::from_secs(20), || {
        n1.members() == ["n0", "n1"] && n0.members() == ["n0", "n1"]
    })
    .await;
    eventually(|| source(&n1.cluster.discovery_status(), &late).last_error.is_none()).await;
    assert!(source(&n1.cluster.discovery_status(), &never).last_error.is_some());
    assert_eq!(n1.cluster.stats().discovery_failures_seed_total, 0);
}

/// A port that swallows everything, as a firewall does.
fn black_hole() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn dials_failed(node: &Node) -> u64 {
    node.cluster.stats().dial_failures_total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_black_holes_among_four_seeds_hold_neither_the_others_nor_gossip_up() {
    let holes = [black_hole(), black_hole()];
    let sockets: Vec<_> = (0..2).map(|_| Arc::new(black_hole())).collect();
    let seeds: Vec<String> = holes
        .iter()
        .chain(sockets.iter().map(|socket| &**socket))
        .map(|socket| socket.local_addr().unwrap().to_string())
        .collect();
    let mut nodes = Vec::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        let options = NodeOptions {
            socket: Some(socket),
            seeds: seeds.clone(),
            ..NodeOptions::default()
        };
        nodes.push(Node::start(&format!("n{index}"), options).await);
    }
    for node in &nodes {
        eventually(|| node.count(MemberState::Ready) == 2).await;
        // A few dials have come to nothing by then.
        eventually(|| dials_failed(node) >= 4).await;
        let stats = node.cluster.stats();
        assert!(stats.gossip_ticks_total > 10);
        // Whoever dialled in the midst of gossip would stand still for the 2 s of a dial. How late ticks are on a quiet machine is
        // measured in tests/mesh.
        assert!(
            stats.gossip_tick_late_max < Duration::from_millis(1_500),
            "a tick was late by {:?}",
            stats.gossip_tick_late_max
        );
        for seed in &seeds[..2] {
            let address = source(&node.cluster.discovery_status(), seed).addresses[0].clone();
            assert!(address.failures > 0 && address.last_error.is_some() && address.answered_by.is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_says_of_each_address_who_answers_there() {
    let n0 = Node::start("n0", NodeOptions::default()).await;
    let own = Arc::new(black_hole());
    let seeds = vec![n0.addr(), own.local_addr().unwrap().to_string()];
    let n1 = Node::start(
        "n1",
        NodeOptions {
            seeds: seeds.clone(),
            socket: Some(own),
            ..NodeOptions::default()
        },
    )
    .await;
    eventually(|| n1.members() == ["n0", "n1"]).await;
    let status = || source(&n1.cluster.discovery_status(), &seeds[0]).addresses[0].clone();
    eventually(|| status().answered_ago == Some(Duration::ZERO)).await;
    assert_eq!(status().answered_by.map(|life| life.node), Some(n0.name()));
    let own = source(&n1.cluster.discovery_status(), &seeds[1]).addresses[0].clone();
    assert!(own.is_ourselves && own.failures == 0);
    n0.cluster.leave().await;
    eventually(|| status().last_error.is_some_and(|why| why.contains("goodbye"))).await;
    eventually(|| {
        status()
            .answered_ago
            .is_some_and(|ago| ago > Duration::from_millis(100))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_said_goodbye_is_not_dialled_by_gossip_and_a_lone_seed_is_found_again() {
    // Nobody knows the address of n2 but by gossip; n0 is everybody's only seed and knows nobody.
    let n0 = Node::start("n0", NodeOptions::default()).await;
    let (addr, port) = (n0.addr(), n0.addr().parse::<SocketAddr>().unwrap().port());
    let joining = NodeOptions {
        seeds: vec![addr],
        ..NodeOptions::default()
    };
    let n1 = Node::start("n1", joining.clone()).await;
    let n2 = Node::start("n2", joining).await;
    for node in [&n0, &n1, &n2] {
        eventually(|| node.members() == ["n0", "n1", "n2"]).await;
    }
    n2.cluster.leave().await;
    drop(n2);
    eventually(|| {
        n1.member("n2")
            .is_none_or(|member| member.state == MemberState::Leaving)
    })
    .await;
    let before = dials_failed(&n1);
    n0.cluster.leave().await;
    drop(n0);
    // Gossip would have dialled both of them a dozen times meanwhile; discovery looks after its seed now and then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let failed = dials_failed(&n1) - before;
    assert!(failed <= 2, "{failed} dials to nodes that said goodbye");
    let n0 = Node::start(
        "n0",
        NodeOptions {
            port,
            generation: 2,
            ..NodeOptions::default()
        },
    )
    .await;
    for node in [&n0, &n1] {
        eventually(|| node.count(MemberState::Ready) == 2).await;
    }
    eventually(|| source(&n1.cluster.discovery_status(), &n0.addr()).last_error.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_on_ipv6_is_one_like_any_other() {
    let Ok(socket) = std::net::UdpSocket::bind("[::1]:0") else {
        // Loopback without IPv6: there is nothing to show.
        return;
    };
    let n0 = Node::start(
        "n0",
        NodeOptions {
            socket: Some(Arc::new(socket)),
            ..NodeOptions::default()
        },
    )
    .await;
    let joining = NodeOptions {
        socket: Some(Arc::new(std::net::UdpSocket::bind("[::1]:0").unwrap())),
        seeds: vec![n0.addr(), "nowhere.invalid:1".into()],
        dns_server: Some(Zone::default().serve().await),
        ..NodeOptions::default()
    };
    assert!(n0.addr().starts_with("[::1]:"));
    let n1 = Node::start("n1", joining).await;
    for node in [&n0, &n1] {
        eventually(|| node.count(MemberState::Ready) == 2).await;
    }
    let unresolvable = || {
        source(&n1.cluster.discovery_status(), "nowhere.invalid:1")
            .last_error
            .is_some()
    };
    eventually(unresolvable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_does_not_answer_holds_nobody_up() {
    let holes = [black_hole(), black_hole()];
    let n0 = Node::start("n0", NodeOptions::default()).await;
    let mut seeds: Vec<String> = holes
        .iter()
        .map(|hole| hole.local_addr().unwrap().to_string())
        .collect();
    seeds.push(n0.addr());
    let n1 = Node::start(
        "n1",
        NodeOptions {
            seeds: seeds.clone(),
            ..NodeOptions::default()
        },
    )
    .await;
    eventually(|| n1.members() == ["n0", "n1"]).await;
    // Each dial ends by itself, so one failure says nothing about the other.
    for seed in &seeds[..2] {
        let says_why = |why: &String| why.contains("no answer");
        eventually(|| {
            source(&n1.cluster.discovery_status(), seed)
                .last_error
                .as_ref()
                .is_some_and(says_why)
        })
        .await;
    }
    let status = n1.cluster.discovery_status();
    assert_eq!(source(&status, &seeds[2]).last_error, None);
    assert!(n1.cluster.stats().discovery_failures_seed_total >= 1);
}
