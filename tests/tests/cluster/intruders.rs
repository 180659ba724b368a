//! Who does not get into a cluster, what is said about it, and that whoever listens on the wire reads nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rookery_gossip::Secret;
use rookery_tests::harness::{Encoding, NodeProcess, NodeSpec, bundled, eventually, free_ports, until};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::json;
use tokio::net::UdpSocket;

const OURS: &str = "the secret of the cluster that is broken into";
const THEIRS: &str = "the secret of somebody else's cluster";

/// A node with a database of its own, so that the mesh alone decides who is in.
fn node(dir: &tempfile::TempDir, name: &str, secret: &str) -> NodeSpec {
    let mut spec = NodeSpec::new(name, dir.path());
    spec.set("cluster.secret", secret).set("cluster.profile", "lan");
    spec
}

/// Waits for the one line by which a node says that it refused a peer.
async fn refuses(node: &NodeProcess, why: &str) {
    let line = format!("peer refused: {why}");
    eventually(&format!("{} says {line}", node.name()), async || {
        !node.log_lines(&line).is_empty()
    })
    .await;
}

/// Waits until it has refused at least twice, and checks that it said so once.
async fn refuses_aloud_once(node: &NodeProcess, why: &str) {
    refuses(node, why).await;
    let ops = node.ops();
    let refused = async || ops.metric("rookery_peers_refused_total").await >= Some(2.0);
    eventually(&format!("{} refuses again", node.name()), refused).await;
    // Discovery may mention it beside, as why its seed is of no use.
    assert_eq!(node.log_lines("refusal: peer refused: ").len(), 1, "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_secret_is_refused_with_one_line_on_each_side() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = node(&dir, "home", OURS).spawn();
    let seed = home.ready().await.peer_address();
    let mut intruder = node(&dir, "intruder", THEIRS).set("cluster.seeds", seed).spawn();
    intruder.ready().await;
    let fingerprint = |secret: &str| Secret::new(secret).unwrap().fingerprint();
    let (ours, theirs) = (fingerprint(OURS), fingerprint(THEIRS));
    refuses_aloud_once(&home, &format!("cluster secret differs, ours {ours}, theirs {theirs}")).await;
    refuses_aloud_once(
        &intruder,
        &format!("cluster secret differs, ours {theirs}, theirs {ours}"),
    )
    .await;
    assert_eq!(home.ops().members("ready").await, ["home"]);
    assert_eq!(intruder.ops().members("ready").await, ["intruder"]);
    for secret in [OURS, THEIRS] {
        assert!(
            !home.log().contains(secret) && !intruder.log().contains(secret),
            "a secret is never printed"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_name_is_refused_with_a_line_on_each_side() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = node(&dir, "home", OURS).set("cluster.name", "east").spawn();
    let seed = home.ready().await.peer_address();
    let mut stray = node(&dir, "stray", OURS)
        .set("cluster.name", "west")
        .set("cluster.seeds", seed)
        .spawn();
    stray.ready().await;
    refuses(&home, "cluster name differs, ours east, theirs west").await;
    refuses(&stray, "cluster name differs, ours west, theirs east").await;
    assert_eq!(home.ops().members("ready").await, ["home"]);
    assert_eq!(stray.ops().members("ready").await, ["stray"]);
}

/// Believes every server.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Visits a node over QUIC as one who knows the protocol's name, with a certificate of its own or none, and says how it ended.
async fn visit(node: SocketAddr, with_certificate: bool) -> String {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
    let mut tls = if with_certificate {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec!["rookery.internal".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        builder
            .with_client_auth_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap()
    } else {
        builder.with_no_client_auth()
    };
    tls.alpn_protocols = vec![b"rookery-control/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    // In TLS 1.3 a dial may succeed before the server has seen the client's certificate.
    match endpoint.connect_with(config, node, "localhost").unwrap().await {
        Err(error) => error.to_string(),
        Ok(connection) => {
            assert!(connection.accept_uni().await.is_err(), "a stranger was spoken to");
            connection.closed().await.to_string()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quic_client_without_our_certificate_is_refused_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = node(&dir, "home", OURS).spawn();
    let address = home.ready().await.peer_address();
    for with_certificate in [false, true] {
        let end = visit(address, with_certificate).await;
        assert!(end.contains("aborted by peer"), "{end}");
    }
    refuses_aloud_once(&home, "no certificate of this cluster, from 127.0.0.1:").await;
    assert_eq!(home.ops().members("ready").await, ["home"]);
}

/// An operator's authority, and what it gives to nodes.
struct Operator {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pem: String,
    /// The beginning of what `openssl x509 -fingerprint -sha256` prints.
    fingerprint: String,
}

impl Operator {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate.der());
        let digest = digest.as_ref();
        Self {
            pem: certificate.pem(),
            fingerprint: digest[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    /// Writes what a node of this name needs, good until the beginning of that year.
    fn issue(&self, dir: &std::path::Path, name: &str, year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        for (file, text) in [
            ("ca", &self.pem),
            ("cert", &certificate.pem()),
            ("key", &key.serialize_pem()),
        ] {
            std::fs::write(dir.join(format!("{name}.{file}")), text).unwrap();
        }
    }
}

/// A node that shows a certificate instead of one that is made from the secret.
fn certified(dir: &tempfile::TempDir, name: &str) -> NodeSpec {
    let mut spec = node(dir, name, OURS);
    for file in ["ca", "cert", "key"] {
        spec.set(
            &format!("cluster.{file}"),
            dir.path().join(format!("{name}.{file}")).display(),
        );
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_certificates_of_an_operator_are_a_cluster_and_change_them_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Operator::new("ours"), Operator::new("theirs"));
    ours.issue(dir.path(), "home", 2080);
    ours.issue(dir.path(), "second", 2081);
    theirs.issue(dir.path(), "stranger", 2081);
    let mut home = certified(&dir, "home").spawn();
    let seed = home.ready().await.peer_address();
    let mut second = certified(&dir, "second").set("cluster.seeds", seed).spawn();
    second.ready().await;
    for node in [&home, &second] {
        eventually("both are members", async || {
            node.ops().members("ready").await == ["home", "second"]
        })
        .await;
    }
    let mut stranger = certified(&dir, "stranger").set("cluster.seeds", seed).spawn();
    stranger.ready().await;
    let line = |ours: &Operator, theirs: &Operator| {
        format!(
            "certificate authority differs, ours {}, theirs {}",
            ours.fingerprint, theirs.fingerprint
        )
    };
    refuses_aloud_once(&home, &line(&ours, &theirs)).await;
    refuses_aloud_once(&stranger, &line(&theirs, &ours)).await;

    let expiry = "rookery_mesh_certificate_expiry_timestamp_seconds";
    assert_eq!(home.ops().metric(expiry).await, Some(3_471_292_800.0));
    ours.issue(dir.path(), "home", 2090);
    eventually("the new certificate is in use", async || {
        home.ops().metric(expiry).await == Some(3_786_912_000.0)
    })
    .await;
    // A key that is another one's: said, and not used; a node that starts with it does not.
    std::fs::copy(dir.path().join("second.key"), dir.path().join("home.key")).unwrap();
    eventually("the broken pair is said", async || {
        !home.log_lines("home.key is not the key of").is_empty()
    })
    .await;
    assert_eq!(home.ops().members("ready").await, ["home", "second"]);
    home.kill();
    let mut broken = certified(&dir, "home").spawn();
    assert_eq!(broken.exited(Duration::from_secs(10)).await.code(), Some(64));
    assert!(broken.log().contains("cluster.key: "), "{}", broken.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_gets_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = node(&dir, "home", OURS).spawn();
    let address = home.ready().await.peer_address();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // A message of the gossip library as it would travel without TLS, and other things that are no QUIC.
    let gossip = [&[0x53, 0xb0, 0, 0][..], &[0; 40]].concat();
    for datagram in [&gossip[..], b"GET / HTTP/1.1\r\n\r\n", b"", &[0x40; 100], b"rookery"] {
        socket.send_to(datagram, address).await.unwrap();
    }
    let mut answer = [0; 2_000];
    let answered = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await;
    assert!(answered.is_err(), "plaintext was answered");
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "there is nothing on TCP"
    );
    assert_eq!(home.ops().members("ready").await, ["home"]);
}

/// Everything that passed a relay.
type Tape = Arc<Mutex<Vec<u8>>>;

/// Passes datagrams on to `to` and back, whoever sends them, and keeps a copy of each.
async fn relay(to: SocketAddr, tape: Tape) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut datagram = [0; 65_536];
        // An error is a port that is not open yet; the sender says it again.
        loop {
            let Ok((len, from)) = front.recv_from(&mut datagram).await else {
                continue;
            };
            tape.lock().unwrap().extend_from_slice(&datagram[..len]);
            let way = match ways.get(&from) {
                Some(way) => Arc::clone(way),
                None => {
                    let way = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    tokio::spawn(back(Arc::clone(&way), Arc::clone(&front), from, Arc::clone(&tape)));
                    ways.insert(from, Arc::clone(&way));
                    way
                }
            };
            let _ = way.send_to(&datagram[..len], to).await;
        }
    });
    address
}

async fn back(way: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, tape: Tape) {
    let mut datagram = [0; 65_536];
    loop {
        let Ok(len) = way.recv(&mut datagram).await else {
            continue;
        };
        tape.lock().unwrap().extend_from_slice(&datagram[..len]);
        let _ = front.send_to(&datagram[..len], to).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_nodes_say_can_be_read_on_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let tape = Tape::default();
    let mut nodes = Vec::new();
    let mut seed = None;
    for (name, port) in ["whisperer", "confidant"].into_iter().zip(free_ports(2)) {
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        // Each is reached through a relay only: neither knows the other's true address.
        let advertised = relay(listen, Arc::clone(&tape)).await;
        let mut spec = node(&dir, name, OURS);
        spec.set(
            "store.url",
            format!("sqlite://{}", dir.path().join("shared.db").display()),
        )
        .set("listen.peer", listen)
        .set("advertise.peer", advertised);
        if let Some(seed) = seed.replace(advertised) {
            spec.set("cluster.seeds", seed);
        }
        let mut node = spec.spawn();
        node.ready().await;
        nodes.push(node);
    }
    for node in &nodes {
        let ops = node.ops();
        eventually("both are members", async || {
            ops.members("ready").await == ["confidant", "whisperer"]
        })
        .await;
    }

    // Match traffic crosses too: what a player says on one node is heard from a match on the other.
    nodes[0].ops().publish(bundled("echo")).await;
    let ana = nodes[0].guest(Encoding::Json).await;
    let game_match = until("a match is placed on the other node", async || {
        let game_match = ana.create("echo").await;
        (nodes[0].ops().match_view(&game_match).await["owner"] == "confidant").then_some(game_match)
    })
    .await;
    ana.join(&game_match).await.unwrap();
    let spoken = "words-for-one-ear-only";
    for n in 1..=20 {
        ana.send(&game_match, n, json!({"said": spoken})).await;
        assert_eq!(ana.push_of("match.data").await["data"]["said"], spoken);
    }

    let tape = tape.lock().unwrap();
    let http = format!("http://{}", nodes[0].client_address());
    assert!(tape.len() > 10_000, "the relays were by-passed: {} bytes", tape.len());
    for readable in [
        spoken,
        "said",
        "whisperer",
        "confidant",
        "joining",
        "echo",
        &game_match,
        ana.player(),
        &http,
        OURS,
    ] {
        let found = tape.windows(readable.len()).any(|window| window == readable.as_bytes());
        // Four letters come by chance once in 4e9 bytes.
        assert!(!found, "{readable:?} was readable");
    }
}
