//! Peers that hold the cluster's secret and mean harm, and crowds that hold nothing: what they can cost a node is bounded and counted,
//! and its other peers do not notice.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ED25519,
};
use rookery_gossip::{MemberState, RequestError, Secret, SendError};
use rustls::crypto::ring;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::timeout;

use crate::harness::{Node, NodeOptions, ONE, eventually, log, number, secret};
use crate::refusals::Gullible;

const CONTROL: &str = "rookery-control/1";
const DATA: &str = "rookery-data/1";

/// First bytes of streams and datagrams, as a node writes them.
const TAG_GOSSIP: u8 = 2;
const TAG_REQUEST: u8 = 3;
const TAG_CHANNEL: u8 = 6;

/// Somebody who has the secret and a QUIC library, and follows no rule beyond.
struct Holder {
    endpoint: Endpoint,
    secret: Secret,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Holder {
    /// Says that it is this life of this node, reachable where it listens.
    fn new(secret: &Secret, node: &str, generation: u64) -> Self {
        Self::at("127.0.0.1".parse().unwrap(), secret, node, generation)
    }

    fn at(host: IpAddr, secret: &Secret, node: &str, generation: u64) -> Self {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let pkcs8 = [&prefix[..], &secret.derive_key("ca ed25519")].concat();
        let authority_key =
            KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519).unwrap();
        let mut authority = CertificateParams::default();
        authority.distinguished_name = rcgen::DistinguishedName::new();
        let authority_name = format!("rookery mesh {}", secret.fingerprint());
        authority.distinguished_name.push(DnType::CommonName, authority_name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut leaf = CertificateParams::new(vec!["rookery.internal".to_owned()]).unwrap();
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        let subject = format!("{node}|{generation}|{addr}|{addr}");
        leaf.distinguished_name.push(DnType::CommonName, subject);
        leaf.distinguished_name.push(DnType::OrganizationName, "rookery");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = leaf.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut holder = Self {
            endpoint: Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime).unwrap(),
            secret: secret.clone(),
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        };
        holder.listen();
        holder
    }

    /// Answers handshakes, and never says welcome.
    fn listen(&mut self) {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.private())
            .unwrap();
        tls.alpn_protocols = vec![CONTROL.into(), DATA.into()];
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        self.endpoint
            .set_server_config(Some(quinn::ServerConfig::with_crypto(Arc::new(crypto))));
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }

    fn addr(&self) -> String {
        self.endpoint.local_addr().unwrap().to_string()
    }

    async fn connect(&self, to: &Node, protocol: &str, transport: TransportConfig) -> Result<Connection, String> {
        let provider = Arc::new(ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
            .with_client_auth_cert(vec![self.certificate.clone()], self.private())
            .unwrap();
        tls.alpn_protocols = vec![protocol.into()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(transport));
        let server_name = format!("{}.rookery.internal", self.secret.fingerprint());
        let connecting = self
            .endpoint
            .connect_with(config, to.addr().parse().unwrap(), &server_name);
        connecting.unwrap().await.map_err(|error| error.to_string())
    }

    /// Connects and waits until it is in.
    async fn enter(&self, to: &Node, protocol: &str) -> Connection {
        self.enter_with(to, protocol, patient()).await
    }

    async fn enter_with(&self, to: &Node, protocol: &str, transport: TransportConfig) -> Connection {
        let connection = self.connect(to, protocol, transport).await.unwrap();
        let mut welcome = [0; 2];
        connection
            .accept_uni()
            .await
            .unwrap()
            .read_exact(&mut welcome)
            .await
            .unwrap();
        assert_eq!(welcome[0], 1);
        connection
    }
}

/// Keeps its connections alive, as a peer does.
fn patient() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(1)));
    transport
}

async fn two_nodes(secret_byte: u8) -> (Node, Node, Secret) {
    let options = NodeOptions {
        secret: secret(secret_byte),
        ..NodeOptions::default()
    };
    let mut nodes = Node::cluster(2, options).await.into_iter();
    (nodes.next().unwrap(), nodes.next().unwrap(), secret(secret_byte))
}

/// Gossip, requests and messages between the two still get through, and neither has taken the other for dead. (On a starved machine one
/// may be suspected for a moment.)
async fn unharmed(n0: &Node, n1: &Node, mark: &str) {
    n1.cluster.set_fact("mark", mark).unwrap();
    eventually(|| {
        n0.member("n1")
            .is_some_and(|n1| n1.facts.get("mark").is_some_and(|fact| fact == mark))
    })
    .await;
    let began = Instant::now();
    let answer = n1
        .cluster
        .request(&n0.name(), Bytes::from_static(b"you?"), Duration::from_secs(5))
        .await;
    assert_eq!(answer.unwrap(), "you? from n1");
    let before = n1.inbox.count(ONE);
    n0.cluster.send(&n1.name(), ONE, number(1)).unwrap();
    eventually(|| n1.inbox.count(ONE) > before).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for (node, other) in [(n0, "n1"), (n1, "n0")] {
        eventually(|| {
            node.member(other)
                .is_some_and(|member| member.state == MemberState::Ready)
        })
        .await;
        assert!(node.inbox.gone().iter().all(|peer| peer.node.as_str() != other));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_too_long_closes_its_connection_and_is_said_once() {
    let (n0, n1, secret) = two_nodes(0x81).await;
    let holder = Holder::new(&secret, "evil-frames", 1);
    for attempt in 1..=3 {
        let data = holder.enter(&n0, DATA).await;
        let mut stream = data.open_uni().await.unwrap();
        stream
            .write_all(&[TAG_CHANNEL, 0, 0xff, 0xff, 0xff, 0x7f])
            .await
            .unwrap();
        let end = timeout(Duration::from_secs(10), data.closed())
            .await
            .unwrap()
            .to_string();
        assert!(end.contains("Malformed"), "{end}");
        assert_eq!(n0.cluster.stats().limited_total.malformed, attempt);
    }
    assert_eq!(
        log().count("peer refused: what node evil-frames sends does not follow the format: a frame of"),
        1
    );
    unharmed(&n0, &n1, "after frames").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_version_has_said_yet_is_ignored() {
    let (n0, n1, secret) = two_nodes(0x82).await;
    let holder = Holder::new(&secret, "evil-tags", 1);
    let control = holder.enter(&n0, CONTROL).await;
    let data = holder.enter(&n0, DATA).await;
    for connection in [&control, &data] {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[99, 1, 2, 3]).await.unwrap();
        let _ = stream.finish();
    }
    // An asker of something unknown hears at once that there will be no answer.
    let (mut send, mut receive) = control.open_bi().await.unwrap();
    send.write_all(&[99]).await.unwrap();
    let answer = timeout(Duration::from_secs(10), receive.read_to_end(10)).await.unwrap();
    assert!(answer.is_err());
    control.send_datagram(Bytes::from_static(&[99, 1])).unwrap();
    unharmed(&n0, &n1, "after tags").await;
    assert!(
        control.close_reason().is_none() && data.close_reason().is_none(),
        "that is no fault"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_cannot_be_given_is_not_taken_for_an_empty_one() {
    let (n0, n1, _) = two_nodes(0x8c).await;
    // The answer is a little longer than the question, which is as long as may be.
    let longest = Bytes::from(vec![1; 4 << 20]);
    let answer = n1.cluster.request(&n0.name(), longest, Duration::from_secs(10)).await;
    assert_eq!(answer, Err(RequestError::Lost));
    unharmed(&n0, &n1, "after a long answer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_never_end_are_few_and_hold_nobody_else_up() {
    let (n0, n1, secret) = two_nodes(0x83).await;
    let holder = Holder::new(&secret, "evil-loris", 1);
    let control = holder.enter(&n0, CONTROL).await;
    let mut held = Vec::new();
    let mut opened = 0;
    // Gossip that never comes to its end: as many as a peer may have open, and no more.
    while let Ok(stream) = timeout(Duration::from_millis(300), control.open_uni()).await {
        let mut stream = stream.unwrap();
        stream.write_all(&[TAG_GOSSIP, 0]).await.unwrap();
        held.push(stream);
        opened += 1;
        assert!(opened <= 16);
    }
    assert!(opened > 0);
    // Requests that are long and never whole: all together they are let have what eight of the longest are.
    let piece = vec![0; 1 << 20];
    let mut asked = Vec::new();
    for _ in 0..64 {
        let (mut send, receive) = control.open_bi().await.unwrap();
        send.write_all(&[TAG_REQUEST]).await.unwrap();
        // It may be stopped half-way: there is no more room.
        let _ = timeout(Duration::from_secs(10), send.write_all(&piece)).await;
        asked.push((send, receive));
    }
    eventually(|| n0.cluster.stats().limited_total.requests > 0).await;
    unharmed(&n0, &n1, "after loris").await;
    let refused = n0.cluster.stats().limited_total.requests;
    assert!((24..=40).contains(&refused), "about half of 64 MiB had room: {refused}");
    drop(control);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_never_fetched_take_no_more_than_their_share() {
    let (n0, n1, secret) = two_nodes(0x84).await;
    let holder = Holder::new(&secret, "evil-asker", 1);
    let mut closed = patient();
    // Credit for next to nothing: answers stay where they are.
    closed
        .stream_receive_window(VarInt::from_u32(16))
        .receive_window(VarInt::from_u32(64));
    let control = holder.enter_with(&n0, CONTROL, closed).await;
    let question = [&[TAG_REQUEST][..], &vec![7; 2 << 20]].concat();
    let mut asked = Vec::new();
    for _ in 0..24 {
        let (mut send, receive) = control.open_bi().await.unwrap();
        let _ = timeout(Duration::from_secs(10), send.write_all(&question)).await;
        let _ = send.finish();
        asked.push(receive);
    }
    // Each answer is a little longer than its question, so 15 of them fit into 32 MiB; a question needs room as well.
    eventually(|| n0.cluster.stats().limited_total.requests >= 8).await;
    unharmed(&n0, &n1, "after answers").await;
    // Whoever comes back has no new share while the old one is taken.
    let again = Holder::new(&secret, "evil-asker", 2);
    let second = again.enter(&n0, CONTROL).await;
    let (mut send, mut receive) = second.open_bi().await.unwrap();
    send.write_all(&[TAG_REQUEST, b'?']).await.unwrap();
    let _ = send.finish();
    let answer = timeout(Duration::from_secs(30), receive.read_to_end(100))
        .await
        .unwrap();
    assert_eq!(answer.unwrap(), b"? from evil-asker", "a small one still fits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_gossip_is_cut_to_its_share_and_what_others_say_is_heard() {
    let (n0, n1, secret) = two_nodes(0x85).await;
    let holder = Holder::new(&secret, "evil-flood", 1);
    let control = holder.enter(&n0, CONTROL).await;
    let flooding = tokio::spawn({
        let control = control.clone();
        async move {
            for round in 0..60_000u32 {
                let bytes = [&[TAG_GOSSIP][..], &round.to_le_bytes(), &[0xff; 200]].concat();
                if control.send_datagram_wait(bytes.into()).await.is_err() {
                    break;
                }
            }
        }
    });
    eventually(|| n0.cluster.stats().limited_total.gossip > 100).await;
    unharmed(&n0, &n1, "under flood").await;
    flooding.abort();
    let stats = n0.cluster.stats();
    assert!(stats.gossip_refused_total > 0, "{stats:?}");
    let lines = log().count("a gossip message is refused");
    assert!(lines <= 10, "one in ten seconds and node, of other tests too: {lines}");
    unharmed(&n0, &n1, "after flood").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_the_secret_may_claim_any_name_and_the_higher_generation_has_it() {
    let (n0, n1, secret) = two_nodes(0x86).await;
    let generation = n1.cluster.local().generation;
    // A lower one is turned away and changes nothing,
    let lower = Holder::new(&secret, "n1", generation - 1);
    let control = lower.connect(&n0, CONTROL, patient()).await.unwrap();
    let end = timeout(Duration::from_secs(10), control.closed())
        .await
        .unwrap()
        .to_string();
    assert!(end.contains("Superseded"), "{end}");
    unharmed(&n0, &n1, "after the lower one").await;
    // one that no later life could exceed is refused, with a line,
    let highest = Holder::new(&secret, "n1", u64::MAX);
    let control = highest.connect(&n0, CONTROL, patient()).await.unwrap();
    let end = timeout(Duration::from_secs(10), control.closed())
        .await
        .unwrap()
        .to_string();
    assert!(end.contains("NotBelieved"), "{end}");
    let line = format!(
        "peer refused: generation {} of node n1 is none that a later life could exceed",
        u64::MAX
    );
    assert_eq!(log().count(&line), 1);
    unharmed(&n0, &n1, "after the highest one").await;
    // and a higher one has the name: the secret does not say who is who.
    let higher = Holder::new(&secret, "n1", generation + 1);
    let _control = higher.enter(&n0, CONTROL).await;
    eventually(|| n0.member("n1").is_some_and(|n1| n1.peer.addr == higher.addr())).await;
    let fault = timeout(Duration::from_secs(10), n1.cluster.closed()).await.unwrap();
    assert_eq!(fault, rookery_gossip::Fault::Superseded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_welcome_that_never_comes_and_one_that_is_never_taken_end_in_time() {
    let (n0, n1, secret) = two_nodes(0x87).await;
    let holder = Holder::new(&secret, "evil-host", 1);
    let accepting = holder.endpoint.clone();
    let mut accepted = tokio::spawn(async move { accepting.accept().await.unwrap().await.unwrap() });
    let began = Instant::now();
    let error = n0.cluster.join_peer(&holder.addr()).await.unwrap_err().to_string();
    assert!(error.contains("no answer within 2 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drop((&mut accepted).await);
    // The other way round: no stream is allowed, so the welcome cannot be said.
    let mut closed = patient();
    closed.max_concurrent_uni_streams(VarInt::from_u32(0));
    let control = holder.connect(&n0, CONTROL, closed).await.unwrap();
    timeout(Duration::from_secs(10), control.closed())
        .await
        .expect("it is given up");
    assert!(n0.member("evil-host").is_none());
    unharmed(&n0, &n1, "after no welcome").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_reading_costs_its_queue_and_delays_nobody() {
    let (n0, n1, secret) = two_nodes(0x88).await;
    let holder = Holder::new(&secret, "evil-reader", 1);
    let _control = holder.enter(&n0, CONTROL).await;
    let mut closed = patient();
    closed
        .stream_receive_window(VarInt::from_u32(16))
        .receive_window(VarInt::from_u32(64));
    let _data = holder.enter_with(&n0, DATA, closed).await;
    let name = "evil-reader".parse().unwrap();
    let message = Bytes::from(vec![1; 64 << 10]);
    let (mut taken, mut refused) = (0, 0);
    // Refused a hundred times in a row: while QUIC still takes from the queue, there is room again.
    while refused < 100 {
        match n0.cluster.send(&name, ONE, message.clone()) {
            Ok(()) => (taken, refused) = (taken + message.len(), 0),
            Err(error) => {
                assert_eq!(error, SendError::Full);
                refused += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        assert!(taken < 64 << 20, "there is no bound");
        tokio::task::yield_now().await;
    }
    // The queue of 8 MiB, and what QUIC had taken to send.
    assert!(taken <= 16 << 20, "{taken}");
    let before = n0.cluster.stats().queue_full_total;
    for _ in 0..100 {
        assert_eq!(n0.cluster.send(&name, ONE, message.clone()), Err(SendError::Full));
    }
    assert!(n0.cluster.stats().queue_full_total >= before + 100);
    unharmed(&n0, &n1, "beside a stuck peer").await;
}

/// Passes what comes on to the node, and never brings an answer: to the node, somebody who begins handshakes and goes away.
fn one_way(to: SocketAddr) -> SocketAddr {
    let (front, back) = (
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    let addr = front.local_addr().unwrap();
    front.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 65_536];
        while let Ok((len, _)) = front.recv_from(&mut datagram) {
            let _ = back.send_to(&datagram[..len], to);
        }
    });
    addr
}

fn tourist(protocol: &str) -> quinn::ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.into()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_begun_and_left_do_not_keep_a_node_out() {
    let options = NodeOptions {
        secret: secret(0x89),
        ..NodeOptions::default()
    };
    let n0 = Node::start("n0", options.clone()).await;
    let lost = one_way(n0.addr().parse().unwrap());
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = tourist(CONTROL);
    let left: Vec<_> = (0..300)
        .map(|_| endpoint.connect_with(config.clone(), lost, "localhost").unwrap())
        .collect();
    eventually(|| n0.cluster.stats().limited_total.proved > 100).await;
    let joining = NodeOptions {
        seeds: vec![n0.addr()],
        ..options
    };
    let n1 = Node::start("n1", joining).await;
    eventually(|| n0.count(MemberState::Ready) == 2 && n1.count(MemberState::Ready) == 2).await;
    assert_eq!(
        n0.cluster.stats().limited_total.busy,
        0,
        "those who prove their address have the other places"
    );
    drop(left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_that_knocks_without_end_is_slowed_down_and_others_get_in() {
    let options = NodeOptions {
        secret: secret(0x8a),
        ..NodeOptions::default()
    };
    let n0 = Node::start("n0", options.clone()).await;
    let to: SocketAddr = n0.addr().parse().unwrap();
    // All of 127/8 is this machine, and to the node another host.
    let endpoint = Endpoint::client("127.0.0.2:0".parse().unwrap()).unwrap();
    let knocking = tokio::spawn(async move {
        let config = tourist(CONTROL);
        loop {
            let visits = (0..32).map(|_| endpoint.connect_with(config.clone(), to, "localhost").unwrap());
            for visit in visits.collect::<Vec<_>>() {
                if let Ok(connection) = visit.await {
                    connection.closed().await;
                }
            }
        }
    });
    crate::harness::eventually_for(Duration::from_secs(60), || {
        n0.cluster.stats().limited_total.too_fast > 20
    })
    .await;
    let joining = NodeOptions {
        seeds: vec![n0.addr()],
        ..options
    };
    let n1 = Node::start("n1", joining).await;
    eventually(|| n0.count(MemberState::Ready) == 2 && n1.count(MemberState::Ready) == 2).await;
    assert!(log().count("peer refused: no certificate of this cluster, from 127.0.0.2") <= 1);
    knocking.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_has_as_many_peers_as_it_may_and_refuses_the_next() {
    let options = NodeOptions {
        secret: secret(0x8b),
        peers: 2,
        ..NodeOptions::default()
    };
    let nodes = Node::cluster(3, options.clone()).await;
    let n0 = &nodes[0];
    let holder = Holder::new(&secret(0x8b), "n-too-many", 1);
    for protocol in [CONTROL, DATA] {
        let connection = holder.connect(n0, protocol, patient()).await.unwrap();
        let end = timeout(Duration::from_secs(10), connection.closed())
            .await
            .unwrap()
            .to_string();
        assert!(end.contains("Crowded"), "{end}");
    }
    assert_eq!(n0.cluster.stats().refused_total.crowded, 2);
    assert_eq!(
        log().count("peer refused: there are 2 peers, as many as may be, before node n-too-many"),
        1
    );
    // A node that states itself by gossip is not shown either.
    let late = NodeOptions {
        seeds: vec![n0.addr()],
        peers: 10,
        ..options
    };
    let late = Node::start("n9", late).await;
    eventually(|| n0.cluster.stats().refused_total.crowded > 3).await;
    assert!(nodes.iter().all(|node| node.members() == ["n0", "n1", "n2"]));
    assert_eq!(late.members(), ["n9"]);
    // Those who are in come back after a break.
    n0.cluster.cut_data_links();
    n0.cluster.send(&nodes[1].name(), ONE, number(1)).unwrap();
    eventually(|| nodes[1].inbox.count(ONE) == 1).await;
}
