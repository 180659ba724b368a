//! QUIC connections between nodes: one endpoint on one UDP port, dialling and accepting, up to the point where both ends know who the
//! other one is. What a connection is used for is decided elsewhere (`control.rs`, `link.rs`).
//!
//! The invariant: an [`Established`] connection is to a node that holds our secret, or a certificate of our operator's authority that
//! names it, and that bears our cluster's name. For a dialler that
//! takes a frame of the acceptor: in TLS 1.3 a dial succeeds before the acceptor has seen the dialler's certificate, so a dial that
//! merely succeeded says nothing.

pub(crate) mod hello;
pub(crate) mod name;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::crypto::rustls::HandshakeData;
use quinn::{ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;
use tracing::debug;

use self::hello::Hello;
use self::tls::{Credentials, Mistrust, Sort};
use crate::certificates::{self, Certificates};
use crate::collision::Begun;
use crate::error::StartError;
use crate::listen::Listen;
use crate::peer::{GENERATION_MAX, Identity, NodeId};
use crate::refusal::{Refusal, Refusals};
use crate::secret::Secret;

/// How long a dial may take, the acceptor's first frame included. A handshake takes 2 ms on loopback; quinn's own limit would be the
/// idle timeout.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that is silent for this long is lost. With a keep-alive each second a pause of 2 s is survived.
const IDLE_TIMEOUT_MS: u32 = 3_000;
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The default of 333 ms makes one lost first packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// Streams that a peer may have open at once on a control connection, where gossip and requests use one each for a moment; more than
/// this waits at the peer. QUIC keeps a place in two tables for each of them from the start: 1,024 and 256 took 45 kB a connection.
/// Together with a few streams of our own they stay below 224, which is what a table of 256 places holds before it doubles.
const CONTROL_UNI_STREAMS_MAX: u32 = 16;
const CONTROL_BIDI_STREAMS_MAX: u32 = 192;

/// On a data connection: one for each channel, one to begin with, and a few to spare. Nothing there asks and is answered.
const DATA_UNI_STREAMS_MAX: u32 = 16;
const DATA_BIDI_STREAMS_MAX: u32 = 0;

/// What a peer may have on its way to us before we have read it; this bounds what it can make us keep.
const STREAM_WINDOW: u32 = 4 << 20;
const RECEIVE_WINDOW: u32 = 16 << 20;

/// What we have on its way on one connection. All of it may stand in the receiver's socket, which both connections share: with 4 MiB
/// two nodes that flooded each other answered a probe after 10 ms (p50) and 50 ms (p99), with 512 KiB after 2 ms and 13 ms, and they
/// carried more (330 MB/s rather than 220, two cores beside much else). At a round trip of 10 ms this is still 50 MB/s to each peer.
const SEND_WINDOW: u64 = 512 << 10;

/// What is kept of handshakes that have not been looked at yet: how many, the bytes of one, and of all. More is refused by QUIC itself,
/// whose own bounds are 65,536, 10 MiB and 100 MiB.
const INCOMING_MAX: usize = 1_024;
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 4 << 20;

/// The alerts of TLS by which a peer turns a certificate down (RFC 8446, 6): for its time, which covers "not yet" too, and for its
/// authority.
const ALERT_EXPIRED: u64 = 45;
const ALERT_UNKNOWN_AUTHORITY: u64 = 48;

/// How long an acceptor that refuses a dialler leaves it to read the hello first.
const HELLO_GRACE: Duration = Duration::from_millis(200);

/// The stream of the acceptor which says that it has let the dialler in.
const WELCOME: u8 = 1;

/// The version of everything on these connections; said in the welcome, so that later versions can tell.
const WIRE_VERSION: u8 = 1;

/// Which of the two connections to a peer this is. Bulk data on one shared connection delayed gossip by 300 ms, hence two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Gossip, probes and requests.
    Control,
    /// Channels of messages.
    Data,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Control, Kind::Data];

    pub(crate) fn protocol(self) -> &'static [u8] {
        match self {
            Kind::Control => b"rookery-control/1",
            Kind::Data => b"rookery-data/1",
        }
    }

    /// How many streams of each direction the peer may have open, those of one direction first.
    fn streams_max(self) -> (VarInt, VarInt) {
        let (uni, bidi) = match self {
            Kind::Control => (CONTROL_UNI_STREAMS_MAX, CONTROL_BIDI_STREAMS_MAX),
            Kind::Data => (DATA_UNI_STREAMS_MAX, DATA_BIDI_STREAMS_MAX),
        };
        (VarInt::from_u32(uni), VarInt::from_u32(bidi))
    }
}

/// Says why a connection was closed on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The node leaves the mesh.
    Leaving,
    /// Another connection is used instead.
    Duplicate,
    /// We dialled ourselves.
    Ourselves,
    /// A newer life of the node is known.
    Superseded,
    /// The cluster's names differ.
    OtherCluster,
    /// The life that this connection belongs to is over for us.
    Gone,
    /// What came did not follow the format.
    Malformed,
    /// Cut by hand, in a test or by an operator.
    Cut,
    /// The certificate does not name the node, or the node holds none of our secrets.
    NotBelieved,
    /// The node has as many peers as it may.
    Crowded,
}

impl CloseCode {
    const ALL: [CloseCode; 10] = [
        CloseCode::Leaving,
        CloseCode::Duplicate,
        CloseCode::Ourselves,
        CloseCode::Superseded,
        CloseCode::OtherCluster,
        CloseCode::Gone,
        CloseCode::Malformed,
        CloseCode::Cut,
        CloseCode::NotBelieved,
        CloseCode::Crowded,
    ];

    /// Codes on the wire start at one: zero is what a dropped connection says by itself.
    fn wire(self) -> VarInt {
        let index = Self::ALL
            .iter()
            .position(|code| *code == self)
            .expect("every code is listed");
        VarInt::from_u32(index as u32 + 1)
    }

    fn from_wire(code: VarInt) -> Option<Self> {
        let index = usize::try_from(code.into_inner()).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Closes a connection with this code.
    pub(crate) fn close(self, connection: &quinn::Connection) {
        connection.close(self.wire(), format!("{self:?}").as_bytes());
    }

    /// The code with which the other end closed a connection on purpose.
    pub(crate) fn of(error: &ConnectionError) -> Option<Self> {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::from_wire(close.error_code),
            _ => None,
        }
    }
}

/// A connection to a node that has proved who it is.
#[derive(Debug, Clone)]
pub(crate) struct Established {
    pub(crate) connection: quinn::Connection,
    pub(crate) identity: Identity,
    pub(crate) kind: Kind,
    pub(crate) begun: Begun,
}

impl Established {
    /// Opens the acceptor's first stream, before anything else can: the dialler takes the first one for the welcome.
    /// None when the dialler does not let us, which one of ours does at once.
    pub(crate) async fn prepare_welcome(&self) -> Option<Welcome> {
        let opening = timeout(DIAL_TIMEOUT, self.connection.open_uni()).await;
        Some(Welcome(opening.ok()?.ok()?))
    }
}

/// The word by which an acceptor lets a dialler in.
pub(crate) struct Welcome(quinn::SendStream);

impl Welcome {
    /// Tells the dialler that it is in. Only then does its dial succeed.
    pub(crate) async fn say(mut self) {
        // An error here is one of the connection, and the task that serves that hears of it. A dialler that does not take it has given
        // itself up: it will not be a peer.
        let _ = timeout(DIAL_TIMEOUT, self.0.write_all(&[WELCOME, WIRE_VERSION])).await;
        let _ = self.0.finish();
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{}", .0.in_short())]
    Refused(Refusal),
    #[error("that is this node itself")]
    Ourselves,
    #[error("the peer closed the connection: {0:?}")]
    Closed(CloseCode),
    #[error("{0}")]
    Failed(String),
    #[error("no answer within {} s", DIAL_TIMEOUT.as_secs())]
    TimedOut,
    #[error("another dial to that address is under way")]
    UnderWay,
}

impl From<ConnectionError> for DialError {
    fn from(error: ConnectionError) -> Self {
        match CloseCode::of(&error) {
            Some(CloseCode::Ourselves) => DialError::Ourselves,
            Some(code) => DialError::Closed(code),
            None => DialError::Failed(error.to_string()),
        }
    }
}

/// What makes a node one of ours.
pub(crate) struct Trust<'a> {
    pub(crate) secret: &'a Secret,
    pub(crate) secret_next: Option<&'a Secret>,
    /// An operator's certificates, instead of those that are made from the secret.
    pub(crate) certificates: Option<Certificates>,
}

/// The endpoint and what it needs to tell friend from stranger.
pub(crate) struct Quic {
    endpoint: Endpoint,
    /// Replaced when an operator's files change; a handshake uses what it began with.
    credentials: ArcSwap<Credentials>,
    control_transport: Arc<TransportConfig>,
    data_transport: Arc<TransportConfig>,
    cluster_name: String,
    local: Identity,
    /// What we say where the certificates do not say it.
    hello: Hello,
    refusals: Refusals,
}

impl Quic {
    pub(crate) fn new(
        listen: Listen,
        trust: Trust<'_>,
        cluster_name: &str,
        local: Identity,
        refusals: Refusals,
    ) -> Result<Self, StartError> {
        let credentials = match trust.certificates {
            Some(certificates) => Credentials::of_operator(certificates),
            None => Credentials::of_secret(trust.secret, trust.secret_next, cluster_name, &local)
                .map_err(StartError::Certificates)?,
        };
        let control_transport = Arc::new(transport_config(Kind::Control));
        let data_transport = Arc::new(transport_config(Kind::Data));
        let server = server_config(&credentials, &data_transport).map_err(StartError::Certificates)?;
        let config = endpoint_config(trust.secret, &local);
        let endpoint = listen
            .into_socket()
            .and_then(|socket| Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime)))
            .map_err(StartError::Socket)?;
        let secrets = std::iter::once(trust.secret).chain(trust.secret_next);
        let secrets = secrets.map(Secret::fingerprint).collect();
        Ok(Self {
            endpoint,
            credentials: ArcSwap::from_pointee(credentials),
            control_transport,
            data_transport,
            cluster_name: cluster_name.to_owned(),
            hello: Hello::new(&local, cluster_name, secrets),
            local,
            refusals,
        })
    }

    /// Shows and believes other certificates of an operator from now on. Connections that are there stay.
    pub(crate) fn replace(&self, certificates: Certificates) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let credentials = Credentials::of_operator(certificates);
        let server = server_config(&credentials, &self.data_transport)?;
        self.credentials.store(Arc::new(credentials));
        self.endpoint.set_server_config(Some(server));
        Ok(())
    }

    /// Who we are to our peers.
    pub(crate) fn local(&self) -> &Identity {
        &self.local
    }

    /// The next connection that somebody begins; none when the endpoint is closed.
    pub(crate) async fn incoming(&self) -> Option<quinn::Incoming> {
        self.endpoint.accept().await
    }

    /// Closes everything, telling the peers that we leave.
    pub(crate) fn close(&self) {
        self.endpoint.close(CloseCode::Leaving.wire(), b"leaving");
    }

    /// Waits until the goodbyes have been sent.
    pub(crate) async fn drained(&self) {
        self.endpoint.wait_idle().await;
    }

    /// Connects to whoever is at `addr`.
    pub(crate) async fn dial(&self, addr: SocketAddr, kind: Kind) -> Result<Established, DialError> {
        timeout(DIAL_TIMEOUT, self.dial_unbounded(addr, kind))
            .await
            .unwrap_or(Err(DialError::TimedOut))
    }

    async fn dial_unbounded(&self, addr: SocketAddr, kind: Kind) -> Result<Established, DialError> {
        let failed = |error: &dyn std::fmt::Display| DialError::Failed(error.to_string());
        let credentials = self.credentials.load_full();
        let (crypto, slot) = credentials.client_config(kind).map_err(|error| failed(&error))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(match kind {
            Kind::Control => self.control_transport.clone(),
            Kind::Data => self.data_transport.clone(),
        });
        let connecting = self
            .endpoint
            .connect_with(config, addr, &credentials.server_name())
            .map_err(|error| failed(&error))?;
        let connection = match connecting.await {
            Ok(connection) => connection,
            Err(error) => {
                let mistrust = slot.lock().expect("nothing panics under this lock").take();
                return Err(match mistrust {
                    Some(mistrust) => self.mistrusted(&credentials, addr, mistrust),
                    None => self.ended(&credentials, addr, error),
                });
            }
        };
        let identity = match self.identify(&credentials, &connection).await {
            Ok(identity) => identity,
            Err(DialError::Refused(refusal)) => {
                self.refusals.note(addr, &refusal);
                match refusal {
                    // The acceptor comes to the same conclusion and closes; when we closed first it might not get to say so in its log.
                    Refusal::ClusterName { .. } | Refusal::Secret { .. } => drop(connection.closed().await),
                    _ => CloseCode::NotBelieved.close(&connection),
                }
                return Err(DialError::Refused(refusal));
            }
            Err(error) => {
                let reason = connection.close_reason();
                return Err(reason.map_or(error, |reason| self.ended(&credentials, addr, reason)));
            }
        };
        if identity.peer.life() == self.local.peer.life() {
            CloseCode::Ourselves.close(&connection);
            return Err(DialError::Ourselves);
        }
        let mut stream = match connection.accept_uni().await {
            Ok(stream) => stream,
            Err(error) => return Err(self.ended(&credentials, addr, error)),
        };
        let mut welcome = [0; 2];
        match stream.read_exact(&mut welcome).await {
            Ok(()) if welcome[0] == WELCOME => {}
            Ok(()) => {
                CloseCode::Malformed.close(&connection);
                return Err(DialError::Failed("the peer did not say welcome".into()));
            }
            Err(error) => {
                let reason = connection.close_reason();
                return Err(reason.map_or_else(|| failed(&error), |reason| self.ended(&credentials, addr, reason)));
            }
        }
        Ok(Established {
            connection,
            identity,
            kind,
            begun: Begun::ByUs,
        })
    }

    /// Takes note of a peer for whom there is no room.
    pub(crate) fn note_crowded(&self, established: &Established, max: usize) {
        let refusal = Refusal::Crowded {
            node: established.identity.peer.node.clone(),
            max,
        };
        self.refusals.note(established.connection.remote_address(), &refusal);
    }

    /// Takes note of a connection that did not follow the format.
    pub(crate) fn note_malformed(&self, connection: &quinn::Connection, node: &NodeId, why: String) {
        let refusal = Refusal::Malformed {
            node: node.clone(),
            why,
        };
        self.refusals.note(connection.remote_address(), &refusal);
    }

    fn mistrusted(&self, credentials: &Credentials, addr: SocketAddr, mistrust: Mistrust) -> DialError {
        let ours = credentials.fingerprint().to_owned();
        let refusal = match (mistrust, credentials.sort()) {
            (Mistrust::OtherAuthority { theirs }, Sort::Secret) => Refusal::Secret { ours, theirs },
            (Mistrust::OtherAuthority { theirs }, Sort::Operator) => Refusal::Authority { ours, theirs },
            (Mistrust::OtherSort { theirs }, sort) => Refusal::Sort {
                ours: (sort, ours),
                theirs,
            },
            (Mistrust::Stranger, _) => Refusal::Certificate { from: addr },
            (Mistrust::Unfit { why }, _) => Refusal::Unfit { why, from: addr },
        };
        self.refusals.note(addr, &refusal);
        DialError::Refused(refusal)
    }

    /// Why a connection that we began is over. An acceptor looks at our certificate when for us the connection is there already.
    fn ended(&self, credentials: &Credentials, by: SocketAddr, error: ConnectionError) -> DialError {
        let alert = match &error {
            ConnectionError::ConnectionClosed(close) => tls_alert(close.error_code.into()),
            _ => None,
        };
        let why = match (credentials.sort(), alert) {
            (Sort::Operator, Some(ALERT_EXPIRED)) => "it has expired or is not valid yet".to_owned(),
            (Sort::Operator, Some(ALERT_UNKNOWN_AUTHORITY)) => {
                format!("its authority {} is not believed there", credentials.fingerprint())
            }
            (Sort::Operator | Sort::Secret, _) => return error.into(),
        };
        let refusal = Refusal::Ours { why, by };
        self.refusals.note(by, &refusal);
        DialError::Refused(refusal)
    }

    /// Completes a connection that somebody began; none when it came to nothing, which has then been noted. The caller must still say
    /// welcome, or close it.
    pub(crate) async fn accept(&self, incoming: quinn::Incoming) -> Option<Established> {
        let from = incoming.remote_address();
        match timeout(DIAL_TIMEOUT, self.accept_unbounded(incoming)).await {
            Ok(Ok(established)) => Some(established),
            Ok(Err(Some(refusal))) => {
                self.refusals.note(from, &refusal);
                None
            }
            Ok(Err(None)) => None,
            Err(_) => {
                debug!(peer_addr = %from, "a handshake was not completed in time");
                None
            }
        }
    }

    async fn accept_unbounded(&self, incoming: quinn::Incoming) -> Result<Established, Option<Refusal>> {
        let from = incoming.remote_address();
        let credentials = self.credentials.load_full();
        let mut connecting = incoming
            .accept()
            .map_err(|error| self.turned_away(&credentials, from, None, &error))?;
        let mut server_name = None;
        let mut kind = None;
        let handshake = connecting
            .handshake_data()
            .await
            .map_err(|error| self.turned_away(&credentials, from, None, &error))?;
        if let Ok(data) = handshake.downcast::<HandshakeData>() {
            kind = Kind::ALL
                .into_iter()
                .find(|kind| data.protocol.as_deref() == Some(kind.protocol()));
            server_name = data.server_name;
        }
        let connection = connecting
            .await
            .map_err(|error| self.turned_away(&credentials, from, server_name.as_deref(), &error))?;
        let identity = match self.identify(&credentials, &connection).await {
            Ok(identity) => identity,
            Err(DialError::Refused(refusal)) => {
                let code = match refusal {
                    Refusal::ClusterName { .. } | Refusal::Certificate { .. } => CloseCode::OtherCluster,
                    _ => CloseCode::NotBelieved,
                };
                if credentials.sort() == Sort::Operator {
                    // A connection that is closed drops what it has not sent yet, and the dialler is to hear our hello and judge it too.
                    let _ = timeout(HELLO_GRACE, connection.closed()).await;
                }
                code.close(&connection);
                return Err(Some(refusal));
            }
            Err(error) => {
                debug!(peer_addr = %from, %error, "a peer did not say who it is");
                CloseCode::Malformed.close(&connection);
                return Err(None);
            }
        };
        let Some(kind) = kind else {
            CloseCode::Malformed.close(&connection);
            return Err(None);
        };
        if identity.peer.life() == self.local.peer.life() {
            CloseCode::Ourselves.close(&connection);
            return Err(None);
        }
        let (uni, bidi) = kind.streams_max();
        connection.set_max_concurrent_uni_streams(uni);
        connection.set_max_concurrent_bi_streams(bidi);
        Ok(Established {
            connection,
            identity,
            kind,
            begun: Begun::ByThem,
        })
    }

    /// Why a handshake that somebody began came to nothing; none when it was the network's fault.
    fn turned_away(
        &self,
        credentials: &Credentials,
        from: SocketAddr,
        server_name: Option<&str>,
        error: &ConnectionError,
    ) -> Option<Refusal> {
        let (by_them, alert) = match error {
            ConnectionError::TransportError(error) => (false, tls_alert(error.code.into())),
            ConnectionError::ConnectionClosed(close) => (true, tls_alert(close.error_code.into())),
            // One that hung up by itself has looked at our certificate and gone away.
            ConnectionError::ApplicationClosed(_) => (true, None),
            _ => (true, None),
        };
        let Some(alert) = alert else {
            debug!(peer_addr = %from, %error, "a handshake was not completed");
            return None;
        };
        let (sort, ours) = (credentials.sort(), credentials.fingerprint().to_owned());
        Some(match server_name.and_then(tls::authority_in) {
            Some((theirs_sort, theirs)) if theirs_sort != sort => Refusal::Sort {
                ours: (sort, ours),
                theirs: theirs.to_owned(),
            },
            Some((Sort::Secret, theirs)) if !credentials.believes(theirs) => Refusal::Secret {
                ours,
                theirs: theirs.to_owned(),
            },
            Some((Sort::Operator, theirs)) if !credentials.believes(theirs) => Refusal::Authority {
                ours,
                theirs: theirs.to_owned(),
            },
            Some((Sort::Operator, _)) => match (by_them, alert) {
                (false, ALERT_EXPIRED) => Refusal::Unfit {
                    why: "it has expired or is not valid yet".to_owned(),
                    from,
                },
                (true, ALERT_EXPIRED) => Refusal::Ours {
                    why: "it has expired or is not valid yet".to_owned(),
                    by: from,
                },
                (true, ALERT_UNKNOWN_AUTHORITY) => Refusal::Ours {
                    why: format!("its authority {ours} is not believed there"),
                    by: from,
                },
                _ => Refusal::Certificate { from },
            },
            Some((Sort::Secret, _)) | None => Refusal::Certificate { from },
        })
    }

    /// Finds out who is at the other end of a connection whose certificate has been verified: from the certificate itself, or from the
    /// hello of who shows one of an operator's. The caller bounds the time.
    async fn identify(&self, credentials: &Credentials, connection: &quinn::Connection) -> Result<Identity, DialError> {
        let from = connection.remote_address();
        let stranger = || DialError::Refused(Refusal::Certificate { from });
        let chain = connection
            .peer_identity()
            .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = chain.as_deref().and_then(|chain| chain.first()).ok_or_else(stranger)?;
        let (identity, cluster_name) = match credentials.sort() {
            Sort::Secret => tls::identify(leaf).ok_or_else(stranger)?,
            Sort::Operator => {
                let hello = hello::exchange(connection, &self.hello).await?;
                let identity = hello
                    .identity()
                    .ok_or_else(|| DialError::Failed("the peer's hello makes no sense".into()))?;
                if !certificates::names(leaf, &identity.peer.node) {
                    let node = identity.peer.node;
                    return Err(DialError::Refused(Refusal::Node { node, from }));
                }
                // It would be let in, and the players' tokens that it signs would not.
                let shares_secret = hello.secrets.iter().any(|theirs| self.hello.secrets.contains(theirs));
                if !shares_secret {
                    return Err(DialError::Refused(Refusal::Secret {
                        ours: self.hello.secrets[0].clone(),
                        theirs: hello.secrets.first().cloned().unwrap_or_else(|| "none".to_owned()),
                    }));
                }
                (identity, hello.cluster)
            }
        };
        if cluster_name != self.cluster_name {
            return Err(DialError::Refused(Refusal::ClusterName {
                ours: self.cluster_name.clone(),
                theirs: cluster_name,
            }));
        }
        if identity.peer.generation > GENERATION_MAX {
            return Err(DialError::Refused(Refusal::Generation {
                node: identity.peer.node,
                generation: identity.peer.generation,
            }));
        }
        Ok(identity)
    }
}

/// The alert in a QUIC error code, if it is one of TLS (RFC 9001, 4.8).
fn tls_alert(code: u64) -> Option<u64> {
    (0x100..0x200).contains(&code).then(|| code - 0x100)
}

fn server_config(
    credentials: &Credentials,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(credentials.server_config()?));
    // An acceptor learns the kind during the handshake, and then allows what a control connection needs beyond this.
    server
        .transport_config(transport.clone())
        .migration(false)
        // Handshakes are taken up or turned away at once (`gate.rs`), so what waits for that is little.
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    Ok(server)
}

fn transport_config(kind: Kind) -> TransportConfig {
    let (uni, bidi) = kind.streams_max();
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_uni_streams(uni)
        .max_concurrent_bidi_streams(bidi)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW);
    config
}

/// With keys that depend only on secret and node, a restarted node recognises the connections of its former life and resets them: the
/// peers notice in 22 ms, and otherwise only after the idle timeout.
fn endpoint_config(secret: &Secret, local: &Identity) -> EndpointConfig {
    let reset_key = secret.derive_key(&format!("stateless reset {}", local.peer.node));
    let id_key = secret.derive_key(&format!("connection id {}", local.peer.node));
    let id_key = u64::from_le_bytes(*id_key.first_chunk().expect("a key has 32 bytes"));
    let mut config = EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset_key)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_survive_the_wire() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_wire(code.wire()), Some(code));
        }
        assert_eq!(CloseCode::from_wire(VarInt::from_u32(0)), None);
        assert_eq!(CloseCode::from_wire(VarInt::MAX), None);
    }
}
