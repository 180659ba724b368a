//! Mutual TLS 1.3 between nodes, under an authority of one of two sorts.
//!
//! From the cluster secret: it gives an ed25519 certificate authority, the same on every node; each start mints a leaf whose name carries
//! node, generation and addresses, and the cluster's name. Whoever shows a leaf of our authority holds the secret and is who its name
//! says. Or from an operator's files (`certificates.rs`): whoever shows a certificate of the operator's authority is the node that it
//! names, and says the rest in its hello (`hello.rs`).
//!
//! The secret's authority carries the fingerprint of its key in its name, and the dialler puts the sort and fingerprint of its own into
//! the server name it asks for. So each end can tell, and say, what differs, although neither trusts a byte of the other's certificate.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::{Kind, name};
use crate::certificates::{Certificates, fingerprint, in_words};
use crate::peer::{Identity, Peer};
use crate::secret::Secret;

/// The name in every leaf of the secret, and what every server name that is asked for ends in.
const LEAF_HOST: &str = "rookery.internal";

/// What stands between the fingerprint and the host in a server name when the authority is an operator's.
const OPERATOR_LABEL: &str = "pki";

/// What stands before the fingerprint in the name of an authority.
const AUTHORITY_PREFIX: &str = "rookery mesh ";

/// What stands before an ed25519 seed to make it a private key in PKCS#8.
const PKCS8_ED25519_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where the authority comes from. All nodes of a cluster use the same sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    Secret,
    Operator,
}

/// What this node shows and whom it believes.
pub(crate) struct Credentials {
    provider: Arc<CryptoProvider>,
    shown: Arc<Shown>,
    roots: Arc<RootCertStore>,
}

/// What this node shows: a leaf for each secret that we hold, the current one first, or the operator's certificate.
#[derive(Debug)]
struct Shown {
    sort: Sort,
    leaves: Vec<Leaf>,
    /// The fingerprints of all authorities that we believe, the one of our first leaf first.
    authorities: Vec<String>,
    /// Shown by an acceptor to who names an authority of which we have no leaf. We may believe it all the same.
    to_strangers: Arc<CertifiedKey>,
}

#[derive(Debug)]
struct Leaf {
    fingerprint: String,
    /// The authority's name; none of an operator's, of whom there is one leaf for everybody.
    authority: Option<DistinguishedName>,
    certified: Arc<CertifiedKey>,
}

impl Shown {
    fn current(&self) -> Arc<CertifiedKey> {
        self.leaves.first().expect("there is always a leaf").certified.clone()
    }

    fn believes(&self, fingerprint: &str) -> bool {
        self.authorities.iter().any(|ours| ours == fingerprint)
    }
}

/// What the dialler's check found wrong with the certificate that it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mistrust {
    /// It is of an authority like ours with another key; the fingerprint is not known when the peer did not show the authority.
    OtherAuthority { theirs: String },
    /// It is of an authority of the other sort.
    OtherSort { theirs: String },
    /// It is of no authority that we know.
    Stranger,
    /// It is of our authority, and yet not fit: expired, or not meant for this.
    Unfit { why: String },
}

/// Where the check leaves its finding; TLS itself passes on no more than "bad certificate".
pub(crate) type MistrustSlot = Arc<Mutex<Option<Mistrust>>>;

impl Credentials {
    /// Makes them from the cluster secret, and the next one.
    pub(crate) fn of_secret(
        secret: &Secret,
        secret_next: Option<&Secret>,
        cluster_name: &str,
        identity: &Identity,
    ) -> Result<Self, BoxError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let mut leaves = Vec::new();
        for secret in std::iter::once(secret).chain(secret_next) {
            let fingerprint = secret.fingerprint();
            let (authority, root) = authority(secret, &fingerprint)?;
            roots.add(root)?;
            let subject = roots.subjects().pop().expect("a root was just added");
            leaves.push(Leaf {
                certified: Arc::new(leaf(&provider, &authority, cluster_name, identity)?),
                authority: Some(subject),
                fingerprint,
            });
        }
        let shown = Shown {
            sort: Sort::Secret,
            authorities: leaves.iter().map(|leaf| leaf.fingerprint.clone()).collect(),
            to_strangers: leaves[0].certified.clone(),
            leaves,
        };
        Ok(Self {
            provider,
            shown: Arc::new(shown),
            roots: Arc::new(roots),
        })
    }

    /// Makes them from an operator's certificates.
    pub(crate) fn of_operator(certificates: Certificates) -> Self {
        let shown = Shown {
            sort: Sort::Operator,
            leaves: vec![Leaf {
                fingerprint: certificates.authorities[0].clone(),
                authority: None,
                certified: certificates.shown,
            }],
            authorities: certificates.authorities,
            to_strangers: certificates.whole,
        };
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            shown: Arc::new(shown),
            roots: Arc::new(certificates.roots),
        }
    }

    pub(crate) fn sort(&self) -> Sort {
        self.shown.sort
    }

    /// The fingerprint of the authority of what we show: that of the current secret, or of the operator's authority.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.shown.authorities[0]
    }

    /// Whether we believe the authority with this fingerprint.
    pub(crate) fn believes(&self, fingerprint: &str) -> bool {
        self.shown.believes(fingerprint)
    }

    /// The server name that we ask for.
    pub(crate) fn server_name(&self) -> String {
        server_name(self.shown.sort, self.fingerprint())
    }

    pub(crate) fn server_config(&self) -> Result<QuicServerConfig, BoxError> {
        let clients = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone()).build()?;
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = Kind::ALL.iter().map(|kind| kind.protocol().to_vec()).collect();
        // No resumption and no early data: every connection shows the peer's certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(QuicServerConfig::try_from(config)?)
    }

    /// A configuration for one dial, and the slot in which its check leaves what it found.
    pub(crate) fn client_config(&self, kind: Kind) -> Result<(QuicClientConfig, MistrustSlot), BoxError> {
        let slot = MistrustSlot::default();
        let verifier = PeerVerifier {
            provider: self.provider.clone(),
            roots: self.roots.clone(),
            ours: self.shown.clone(),
            slot: slot.clone(),
        };
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![kind.protocol().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok((QuicClientConfig::try_from(config)?, slot))
    }
}

/// The server name that a dialler with this authority asks for.
fn server_name(sort: Sort, fingerprint: &str) -> String {
    match sort {
        Sort::Secret => format!("{fingerprint}.{LEAF_HOST}"),
        Sort::Operator => format!("{fingerprint}.{OPERATOR_LABEL}.{LEAF_HOST}"),
    }
}

/// The authority in a server name; none when the name is not of the mesh.
pub(crate) fn authority_in(server_name: &str) -> Option<(Sort, &str)> {
    let labels = server_name.strip_suffix(LEAF_HOST)?.strip_suffix('.')?;
    let (sort, fingerprint) = match labels.strip_suffix(OPERATOR_LABEL) {
        Some(labels) => (Sort::Operator, labels.strip_suffix('.')?),
        None => (Sort::Secret, labels),
    };
    is_fingerprint(fingerprint).then_some((sort, fingerprint))
}

/// Fingerprints of strangers go into our log, so they must look like one.
pub(crate) fn is_fingerprint(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn authority(
    secret: &Secret,
    fingerprint: &str,
) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>), BoxError> {
    let mut pkcs8 = PKCS8_ED25519_PREFIX.to_vec();
    pkcs8.extend_from_slice(&secret.ca_seed());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{AUTHORITY_PREFIX}{fingerprint}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key)?.der().clone();
    Ok((Issuer::new(params, key), root))
}

/// Mints a leaf with a fresh key. Its validity is left as wide as it can be: nodes with a wrong clock must still find each other, and
/// what ends a leaf is the rotation of the secret.
fn leaf(
    provider: &CryptoProvider,
    authority: &Issuer<'static, KeyPair>,
    cluster_name: &str,
    identity: &Identity,
) -> Result<CertifiedKey, BoxError> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject(identity));
    params.distinguished_name.push(DnType::OrganizationName, cluster_name);
    params.subject_alt_names = vec![SanType::DnsName(LEAF_HOST.try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = false;
    let certificate = params.signed_by(&key, authority)?.der().clone();
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Ok(CertifiedKey::new(
        vec![certificate],
        provider.key_provider.load_private_key(private)?,
    ))
}

fn subject(identity: &Identity) -> String {
    let peer = &identity.peer;
    format!(
        "{}|{}|{}|{}",
        peer.node, peer.generation, identity.gossip_addr, peer.addr
    )
}

/// Reads whom a verified certificate is about: the identity, and the cluster's name.
pub(crate) fn identify(certificate: &[u8]) -> Option<(Identity, String)> {
    let subject = name::read(certificate)?.subject;
    let common_name = subject.common_name?;
    let mut parts = common_name.splitn(4, '|');
    let peer = Peer {
        node: parts.next()?.parse().ok()?,
        generation: parts.next()?.parse().ok()?,
        addr: String::new(),
    };
    let gossip_addr: SocketAddr = parts.next()?.parse().ok()?;
    let identity = Identity {
        peer: Peer {
            addr: parts.next()?.to_owned(),
            ..peer
        },
        gossip_addr,
    };
    Some((identity, subject.organisation?))
}

impl ResolvesServerCert for Shown {
    /// Shows the dialler the leaf of the authority that it names, if we have one.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let theirs = hello.server_name().and_then(authority_in);
        let of_theirs = |leaf: &&Leaf| theirs == Some((self.sort, leaf.fingerprint.as_str()));
        let leaf = self.leaves.iter().find(of_theirs);
        Some(leaf.map_or(&self.to_strangers, |leaf| &leaf.certified).clone())
    }
}

impl ResolvesClientCert for Shown {
    /// Shows the acceptor a leaf of an authority that it says it believes.
    fn resolve(&self, root_hint_subjects: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let believed = |leaf: &&Leaf| {
            let authority = leaf.authority.as_ref();
            authority.is_some_and(|authority| root_hint_subjects.contains(&authority.as_ref()))
        };
        let leaf = self.leaves.iter().find(believed);
        Some(leaf.map_or_else(|| self.current(), |leaf| leaf.certified.clone()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks that an acceptor's certificate is of an authority of ours, and takes down why it was refused. Which node it is about is
/// checked when the connection is there (`Quic::identify`): who dials a seed does not know whom it will meet.
#[derive(Debug)]
struct PeerVerifier {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    ours: Arc<Shown>,
    slot: MistrustSlot,
}

impl PeerVerifier {
    fn mistrust(&self, certificate: &[u8], between: &[CertificateDer<'_>], error: &rustls::Error) -> Mistrust {
        let issuer = name::read(certificate).and_then(|names| names.issuer.common_name);
        let of_secret = issuer
            .as_deref()
            .and_then(|issuer| issuer.strip_prefix(AUTHORITY_PREFIX))
            .filter(|fingerprint| is_fingerprint(fingerprint));
        let of_operator = || fingerprint(between.last().map_or(certificate, |last| last));
        match (self.ours.sort, of_secret) {
            (Sort::Secret, Some(theirs)) if self.ours.believes(theirs) => Mistrust::Stranger,
            (Sort::Secret, Some(theirs)) => Mistrust::OtherAuthority {
                theirs: theirs.to_owned(),
            },
            (Sort::Secret, None) => Mistrust::OtherSort { theirs: of_operator() },
            (Sort::Operator, Some(theirs)) => Mistrust::OtherSort {
                theirs: theirs.to_owned(),
            },
            (Sort::Operator, None) => match error {
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                    let theirs = of_operator();
                    // An acceptor shows its authority only when it sees that ours is another one.
                    if self.ours.believes(&theirs) {
                        Mistrust::Stranger
                    } else {
                        Mistrust::OtherAuthority { theirs }
                    }
                }
                rustls::Error::InvalidCertificate(unfit) => Mistrust::Unfit { why: in_words(unfit) },
                _ => Mistrust::Stranger,
            },
        }
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verdict = ParsedCertificate::try_from(end_entity).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
        });
        match verdict {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => {
                let mistrust = self.mistrust(end_entity, intermediates, &error);
                *self.slot.lock().expect("nothing panics under this lock") = Some(mistrust);
                Err(error)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            peer: Peer {
                node: "node-1".parse().unwrap(),
                generation: 42,
                addr: "host.example:7701".into(),
            },
            gossip_addr: "10.0.0.1:7701".parse().unwrap(),
        }
    }

    #[test]
    fn a_leaf_says_who_shows_it() {
        let secret = Secret::new([1; 32]).unwrap();
        let credentials = Credentials::of_secret(&secret, None, "rookery", &identity()).unwrap();
        let leaf = credentials.shown.current();
        let (read, cluster_name) = identify(leaf.end_entity_cert().unwrap()).unwrap();
        assert_eq!(read, identity());
        assert_eq!(cluster_name, "rookery");
    }

    #[test]
    fn every_node_makes_the_same_authority_from_a_secret() {
        let secret = Secret::new([1; 32]).unwrap();
        let root = || authority(&secret, &secret.fingerprint()).unwrap().1;
        assert_eq!(root(), root());
    }

    #[test]
    fn the_server_name_carries_sort_and_fingerprint() {
        let fingerprint = Secret::new([1; 32]).unwrap().fingerprint();
        for sort in [Sort::Secret, Sort::Operator] {
            let name = server_name(sort, &fingerprint);
            assert_eq!(authority_in(&name), Some((sort, fingerprint.as_str())));
        }
        for foreign in [
            "",
            "rookery.internal",
            "pki.rookery.internal",
            "x.rookery.internal",
            "example.org",
            "0123456789abcde\n.rookery.internal",
            "0123456789abcdef.kip.rookery.internal",
        ] {
            assert_eq!(authority_in(foreign), None, "{foreign:?}");
        }
    }
}
