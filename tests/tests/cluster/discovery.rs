//! Nodes that find each other by DNS, against a DNS server that the test runs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{Name, RData, Record};
use rookery_tests::harness::{NodeProcess, NodeSpec, eventually, free_ports};
use tokio::net::UdpSocket;

/// A DNS server on a loopback port that knows what it was told so far.
#[derive(Clone, Default)]
struct Zone {
    records: Arc<Mutex<BTreeMap<String, Vec<RData>>>>,
}

impl Zone {
    fn address(&self, name: &str, address: Ipv4Addr) {
        self.put(name, RData::A(A(address)));
    }

    fn service(&self, name: &str, host: &str, port: u16) {
        let target = Name::from_ascii(format!("{host}.")).unwrap();
        self.put(name, RData::SRV(SRV::new(0, 0, port, target)));
    }

    fn put(&self, name: &str, data: RData) {
        self.records
            .lock()
            .unwrap()
            .entry(name.to_owned())
            .or_default()
            .push(data);
    }

    async fn serve(&self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1_500];
            loop {
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                let answer = zone.answer(Message::from_vec(&buffer[..len]).unwrap());
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    fn answer(&self, query: Message) -> Message {
        let mut answer = query.into_response();
        let question = answer.queries[0].clone();
        let name = question.name().to_ascii().to_ascii_lowercase();
        match self.records.lock().unwrap().get(name.trim_end_matches('.')) {
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(records) => {
                let asked_for = records
                    .iter()
                    .filter(|data| data.record_type() == question.query_type());
                for data in asked_for {
                    answer.add_answer(Record::from_rdata(question.name().clone(), 60, data.clone()));
                }
            }
        }
        answer.metadata.recursion_available = true;
        answer
    }
}

/// A node of one cluster that is to find the others by these names.
fn node(dir: &tempfile::TempDir, name: &str, server: SocketAddr, names: &[String]) -> NodeSpec {
    let mut spec = NodeSpec::new(name, dir.path());
    spec.set(
        "store.url",
        format!("sqlite://{}", dir.path().join("shared.db").display()),
    )
    .set("cluster.secret", "a secret that only the nodes of this name know")
    .set("cluster.profile", "lan")
    .set("cluster.dns_resolver", server)
    .set("cluster.poll_interval", "1s")
    .set("cluster.dns", names.join(","));
    spec
}

async fn all_see(nodes: &[&NodeProcess], names: &[&str]) {
    for node in nodes {
        let ops = node.ops();
        let what = format!("{} sees {names:?} ready", node.name());
        eventually(&what, async || ops.members("ready").await == names).await;
    }
}

const FAILURES: &str = r#"rookery_discovery_failures_total{source="dns"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_two_addresses_leads_to_both_nodes() {
    let (dir, zone) = (tempfile::tempdir().unwrap(), Zone::default());
    let server = zone.serve().await;
    // The whole of 127/8 is loopback, so two nodes can share a port, as behind a headless Service.
    let port = free_ports(1)[0];
    let addresses = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
    let names = [format!("nodes.test:{port}")];
    let mut nodes = Vec::new();
    for (address, name) in addresses.into_iter().zip(["dns-1", "dns-2"]) {
        zone.address("nodes.test", address);
        let mut spec = node(&dir, name, server, &names);
        spec.set("listen.peer", format!("{address}:{port}"));
        nodes.push(spec.spawn());
    }
    // One that is in no record finds both.
    nodes.push(node(&dir, "dns-3", server, &names).spawn());
    for node in &mut nodes {
        node.ready().await;
    }
    all_see(&nodes.iter().collect::<Vec<_>>(), &["dns-1", "dns-2", "dns-3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_name_leads_to_hosts_and_ports() {
    let (dir, zone) = (tempfile::tempdir().unwrap(), Zone::default());
    let server = zone.serve().await;
    let mut nodes = Vec::new();
    for name in ["srv-1", "srv-2"] {
        let mut node = node(&dir, name, server, &[]).spawn();
        let port = node.ready().await.peer_address().port();
        zone.service("_rookery._udp.test", &format!("{name}.test"), port);
        zone.address(&format!("{name}.test"), Ipv4Addr::LOCALHOST);
        nodes.push(node);
    }
    let mut third = node(&dir, "srv-3", server, &["_rookery._udp.test".to_owned()]).spawn();
    third.ready().await;
    nodes.push(third);
    all_see(&nodes.iter().collect::<Vec<_>>(), &["srv-1", "srv-2", "srv-3"]).await;
    assert_eq!(nodes[2].ops().metric(FAILURES).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_never_resolves_is_warned_of_and_one_that_resolves_later_is_found() {
    let (dir, zone) = (tempfile::tempdir().unwrap(), Zone::default());
    let server = zone.serve().await;
    let mut first = node(&dir, "late-1", server, &[]).spawn();
    let port = first.ready().await.peer_address().port();
    let mut second = node(&dir, "late-2", server, &[]);
    second.set("cluster.seeds", first.peer_address());
    let mut second = second.spawn();
    second.ready().await;

    let names = [format!("late.test:{port}"), "never.test:7701".to_owned()];
    let mut third = node(&dir, "late-3", server, &names).spawn();
    // It does not wait for ever for names that lead nowhere.
    third.ready().await;
    all_see(&[&first, &second], &["late-1", "late-2"]).await;
    let ops = third.ops();
    for name in &names {
        let what = format!("the node warns of {name}");
        let line = format!("no peer found source={name}");
        eventually(&what, async || {
            third.log_lines(&line).iter().any(|line| line.contains("WARN"))
        })
        .await;
    }
    eventually("both failures are counted", async || {
        ops.metric(FAILURES).await >= Some(2.0)
    })
    .await;

    zone.address("late.test", Ipv4Addr::LOCALHOST);
    all_see(&[&first, &second, &third], &["late-1", "late-2", "late-3"]).await;
    // The other name goes on failing, and is neither forgotten nor said again and again.
    let counted = ops.metric(FAILURES).await;
    eventually("its failures are still counted", async || {
        ops.metric(FAILURES).await > counted
    })
    .await;
    assert_eq!(third.log_lines("no peer found source=never.test:7701").len(), 1);
}
