//! Who does not get in, and what is said about it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rookery_gossip::{MemberState, Secret};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::harness::{Node, NodeOptions, ONE, eventually, log, number, secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_secret_is_refused_with_one_line_on_each_side() {
    let ours = Node::start("n0", NodeOptions::default()).await;
    let theirs = NodeOptions {
        secret: secret(0x77),
        seeds: vec![ours.addr()],
        ..NodeOptions::default()
    };
    let intruder = Node::start("n1", theirs.clone()).await;
    let (our_print, their_print) = (secret(1).fingerprint(), secret(0x77).fingerprint());
    let line = |ours: &str, theirs: &str| format!("peer refused: cluster secret differs, ours {ours}, theirs {theirs}");
    eventually(|| log().count(&line(&our_print, &their_print)) == 1).await;
    eventually(|| log().count(&line(&their_print, &our_print)) == 1).await;
    // It tries again every two seconds, and nobody hears of it again.
    eventually(|| ours.cluster.stats().refused_total.secret >= 2 && intruder.cluster.stats().refused_total.secret >= 2)
        .await;
    assert_eq!(log().count(&line(&our_print, &their_print)), 1);
    assert_eq!(
        (ours.members(), intruder.members()),
        (vec!["n0".to_owned()], vec!["n1".to_owned()])
    );
    let status = &intruder.cluster.discovery_status()[0];
    assert!(
        status
            .last_error
            .as_ref()
            .is_some_and(|error| error.contains(&format!("ours {their_print}, theirs {our_print}"))),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_name_is_refused_with_a_line_on_each_side() {
    let ours = Node::start(
        "n0",
        NodeOptions {
            cluster_name: "east",
            ..NodeOptions::default()
        },
    )
    .await;
    let theirs = NodeOptions {
        cluster_name: "west",
        seeds: vec![ours.addr()],
        ..NodeOptions::default()
    };
    let stray = Node::start("n1", theirs).await;
    eventually(|| log().count("peer refused: cluster name differs, ours east, theirs west") == 1).await;
    eventually(|| log().count("peer refused: cluster name differs, ours west, theirs east") == 1).await;
    eventually(|| ours.cluster.stats().refused_total.cluster_name >= 1).await;
    assert_eq!(
        (ours.members(), stray.members()),
        (vec!["n0".to_owned()], vec!["n1".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_rotated_node_by_node() {
    let (old, new) = (secret(0x21), secret(0x22));
    let with = |secret, secret_next, seeds| NodeOptions {
        secret,
        secret_next,
        seeds,
        ..NodeOptions::default()
    };
    let both = Node::start("n0", with(old.clone(), Some(new.clone()), vec![])).await;
    let only_old = Node::start("n1", with(old.clone(), None, vec![both.addr()])).await;
    let only_new = Node::start("n2", with(new.clone(), None, vec![both.addr()])).await;
    eventually(|| both.members().len() == 3).await;
    eventually(|| {
        only_old.cluster.stats().control_connections >= 1 && only_new.cluster.stats().control_connections >= 1
    })
    .await;
    both.cluster.send(&only_new.name(), ONE, number(1)).unwrap();
    only_old.cluster.send(&both.name(), ONE, number(2)).unwrap();
    eventually(|| only_new.inbox.count(ONE) == 1 && both.inbox.count(ONE) == 1).await;
}

/// Every mixture that a rolling change can bring about, and the two that it must not: whoever dials, the two ends meet exactly when they
/// share a secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_meet_when_they_share_a_secret_whatever_else_they_hold_and_whoever_dials() {
    let (old, new) = (secret(0x23), secret(0x24));
    let holdings = [
        (old.clone(), None),
        (old.clone(), Some(new.clone())),
        (new.clone(), Some(old.clone())),
        (new.clone(), None),
    ];
    let options = |held: &(Secret, Option<Secret>)| NodeOptions {
        secret: held.0.clone(),
        secret_next: held.1.clone(),
        ..NodeOptions::default()
    };
    for (index, dialler_holds) in holdings.iter().enumerate() {
        for (other, acceptor_holds) in holdings.iter().enumerate() {
            let dialler = Node::start("n0", options(dialler_holds)).await;
            let acceptor = Node::start("n1", options(acceptor_holds)).await;
            let joined = dialler.cluster.join_peer(&acceptor.addr()).await;
            if index.abs_diff(other) == 3 {
                let (ours, theirs) = (dialler_holds.0.fingerprint(), acceptor_holds.0.fingerprint());
                let error = joined.unwrap_err().to_string();
                assert!(error.contains(&format!("ours {ours}, theirs {theirs}")), "{error}");
                continue;
            }
            assert!(joined.is_ok(), "{dialler_holds:?} {acceptor_holds:?} {joined:?}");
            // The first to send dials the data connection, so each end does it once.
            let (first, second) = if other.is_multiple_of(2) {
                (&dialler, &acceptor)
            } else {
                (&acceptor, &dialler)
            };
            eventually(|| dialler.members().len() == 2 && acceptor.members().len() == 2).await;
            first.cluster.send(&second.name(), ONE, number(1)).unwrap();
            eventually(|| second.inbox.count(ONE) == 1).await;
            assert_eq!(
                first.cluster.stats().refused_total,
                second.cluster.stats().refused_total
            );
            assert_eq!(first.cluster.stats().refused_total.secret, 0);
        }
    }
}

/// Believes everybody.
#[derive(Debug)]
pub(crate) struct Gullible(pub(crate) Arc<CryptoProvider>);

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

/// A QUIC client that is no node of ours: it believes our certificate and shows its own, or none.
struct Stranger {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

impl Stranger {
    fn new(protocol: &str, with_certificate: bool) -> Self {
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
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Self {
            endpoint: quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap(),
            config: quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())),
        }
    }

    /// Connects, tries to talk, and says how it ended. The dial itself may well succeed.
    async fn visit(&self, addr: SocketAddr, server_name: &str) -> String {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), addr, server_name)
            .unwrap();
        match connecting.await {
            Err(error) => error.to_string(),
            Ok(connection) => {
                if let Ok(mut stream) = connection.open_uni().await {
                    let _ = stream.write_all(&[2, 0, 0]).await;
                }
                let heard = connection.accept_uni().await;
                assert!(heard.is_err(), "a stranger was spoken to");
                connection.closed().await.to_string()
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_our_certificate_is_refused_and_never_a_member() {
    for with_certificate in [false, true] {
        let node = Node::start(
            "n0",
            NodeOptions {
                secret: secret(0x31),
                ..NodeOptions::default()
            },
        )
        .await;
        let addr = node.addr().parse().unwrap();
        let stranger = Stranger::new("rookery-control/1", with_certificate);
        let from = stranger.endpoint.local_addr().unwrap();
        let line = format!("peer refused: no certificate of this cluster, from {from}");
        // It may even know our fingerprint, which is no secret.
        let ours = format!("{}.rookery.internal", secret(0x31).fingerprint());
        for (attempt, server_name) in ["localhost", &ours].into_iter().enumerate() {
            let end = stranger.visit(addr, server_name).await;
            assert!(end.contains("aborted by peer"), "{end}");
            eventually(|| node.cluster.stats().refused_total.certificate == attempt as u64 + 1).await;
        }
        assert_eq!(log().count(&line), 1);
        assert_eq!(node.members(), ["n0"]);
        assert_eq!(node.cluster.stats().control_connections, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_protocol_is_refused() {
    let node = Node::start(
        "n0",
        NodeOptions {
            secret: secret(0x32),
            ..NodeOptions::default()
        },
    )
    .await;
    let stranger = Stranger::new("h3", false);
    let end = stranger.visit(node.addr().parse().unwrap(), "localhost").await;
    assert!(end.contains("aborted by peer"), "{end}");
    eventually(|| node.cluster.stats().refused_total.certificate == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_gets_no_answer() {
    let node = Node::start(
        "n0",
        NodeOptions {
            secret: secret(0x33),
            ..NodeOptions::default()
        },
    )
    .await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // A gossip message of the library as it would travel without TLS, and other things that are no QUIC.
    let gossip = [&[0x53, 0xb0, 0, 0][..], &[0; 40]].concat();
    for datagram in [&gossip[..], b"GET / HTTP/1.1\r\n\r\n", b"", &[0x40; 100]] {
        socket.send_to(datagram, node.addr()).unwrap();
    }
    let mut answer = [0; 2_000];
    assert!(socket.recv(&mut answer).is_err(), "plaintext was answered");
    assert!(
        std::net::TcpStream::connect(node.addr()).is_err(),
        "there is nothing on TCP"
    );
    assert_eq!(node.members(), ["n0"]);
}

/// Passes datagrams on between whoever comes first and `to`, and keeps a copy of each.
fn relay(to: SocketAddr, seen: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let front = tokio::net::UdpSocket::from_std(nonblocking());
    let back = tokio::net::UdpSocket::from_std(nonblocking());
    let (front, back) = (front.unwrap(), back.unwrap());
    let addr = front.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut there, mut here) = ([0; 65_536], [0; 65_536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((len, from)) = front.recv_from(&mut there) => {
                    client = Some(from);
                    seen.lock().unwrap().extend_from_slice(&there[..len]);
                    back.send_to(&there[..len], to).await.unwrap();
                }
                Ok((len, _)) = back.recv_from(&mut here) => {
                    seen.lock().unwrap().extend_from_slice(&here[..len]);
                    front.send_to(&here[..len], client.unwrap()).await.unwrap();
                }
            }
        }
    });
    addr
}

fn nonblocking() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_nodes_say_can_be_read_on_the_wire() {
    let marker = "a-fact-that-nobody-else-may-read";
    let (lower, higher) = ("a-node-of-ours", "b-node-of-ours");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = relay(socket.local_addr().unwrap(), seen.clone());
    // Peers reach n1 only through the relay; the other has the lower name, so it is the one that dials.
    let behind = NodeOptions {
        socket: Some(Arc::new(socket)),
        advertise: Some(addr.to_string()),
        ..NodeOptions::default()
    };
    let n1 = Node::start(higher, behind).await;
    let n0 = Node::start(
        lower,
        NodeOptions {
            seeds: vec![addr.to_string()],
            ..NodeOptions::default()
        },
    )
    .await;
    n0.cluster.set_fact("marker", marker).unwrap();
    eventually(|| {
        n1.member(lower)
            .is_some_and(|member| member.facts.contains_key("marker"))
    })
    .await;
    eventually(|| n0.count(MemberState::Ready) == 2).await;
    n0.cluster.send(&n1.name(), ONE, Bytes::from(marker)).unwrap();
    n0.cluster.send(&n1.name(), ONE, number(1)).unwrap();
    eventually(|| n1.inbox.count(ONE) == 2).await;
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 2_000, "the relay was by-passed");
    // Only what is long enough to be in no noise of this length.
    for readable in [marker, "nobody-may-read", lower, higher, "correct horse"] {
        assert!(
            !seen.windows(readable.len()).any(|window| window == readable.as_bytes()),
            "{readable:?} was readable"
        );
    }
}
