//! Mutual TLS 1.3 from the cluster secret. The secret gives an ed25519 certificate authority, the same on every node; each start
//! mints a leaf whose name carries node, generation and addresses, and the cluster's name. Whoever shows a leaf of our authority holds
//! the secret and is who its name says.
//!
//! The authority's name carries the fingerprint of its key, and the dialler puts the fingerprint of its own into the server name it
//! asks for. So each end can tell, and say, that the secrets differ, although neither trusts a byte of the other's certificate.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::{Kind, name};
use crate::peer::{Identity, Peer};
use crate::secret::Secret;

/// The name in every leaf. Who the peer is stands in the subject; this one only satisfies the verification of a server's name.
const LEAF_HOST: &str = "rookery.internal";

/// What stands before the fingerprint in the name of an authority.
const AUTHORITY_PREFIX: &str = "rookery mesh ";

/// What stands before an ed25519 seed to make it a private key in PKCS#8.
const PKCS8_ED25519_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What this node shows and whom it believes.
pub(crate) struct Credentials {
    provider: Arc<CryptoProvider>,
    fingerprint: String,
    leaves: Arc<Leaves>,
    roots: Arc<RootCertStore>,
    verifier: Arc<WebPkiServerVerifier>,
}

/// A leaf for each secret that we hold, the current one first.
#[derive(Debug)]
struct Leaves(Vec<Leaf>);

#[derive(Debug)]
struct Leaf {
    fingerprint: String,
    authority: DistinguishedName,
    certified: Arc<CertifiedKey>,
}

impl Leaves {
    fn current(&self) -> Arc<CertifiedKey> {
        self.0
            .first()
            .expect("there is always a current secret")
            .certified
            .clone()
    }
}

/// What the dialler's check found wrong with the certificate that it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mistrust {
    /// It is of an authority like ours with another key.
    OtherSecret { theirs: String },
    /// It is of no authority that we know.
    Stranger,
}

/// Where the check leaves its finding; TLS itself passes on no more than "bad certificate".
pub(crate) type MistrustSlot = Arc<Mutex<Option<Mistrust>>>;

impl Credentials {
    pub(crate) fn new(
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
                authority: subject,
                fingerprint,
            });
        }
        let roots = Arc::new(roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        Ok(Self {
            provider,
            fingerprint: leaves[0].fingerprint.clone(),
            leaves: Arc::new(Leaves(leaves)),
            roots,
            verifier,
        })
    }

    /// The fingerprint of the current secret.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether one of our secrets has this fingerprint.
    pub(crate) fn holds(&self, fingerprint: &str) -> bool {
        self.leaves.0.iter().any(|leaf| leaf.fingerprint == fingerprint)
    }

    pub(crate) fn server_config(&self) -> Result<QuicServerConfig, BoxError> {
        let clients = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone()).build()?;
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(self.leaves.clone());
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
            inner: self.verifier.clone(),
            ours: self.leaves.clone(),
            slot: slot.clone(),
        };
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.leaves.clone());
        config.alpn_protocols = vec![kind.protocol().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok((QuicClientConfig::try_from(config)?, slot))
    }
}

/// The server name that a holder of this secret asks for.
pub(crate) fn server_name(fingerprint: &str) -> String {
    format!("{fingerprint}.{LEAF_HOST}")
}

/// The fingerprint in a server name; none when the name is not of the mesh.
pub(crate) fn fingerprint_in(server_name: &str) -> Option<&str> {
    let fingerprint = server_name.strip_suffix(LEAF_HOST)?.strip_suffix('.')?;
    let well_formed = fingerprint.len() == 16 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
    well_formed.then_some(fingerprint)
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

impl ResolvesServerCert for Leaves {
    /// Shows the dialler the leaf of the secret that it holds, if we hold that one too.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let theirs = hello.server_name().and_then(fingerprint_in);
        let leaf = self.0.iter().find(|leaf| Some(leaf.fingerprint.as_str()) == theirs);
        Some(leaf.map_or_else(|| self.current(), |leaf| leaf.certified.clone()))
    }
}

impl ResolvesClientCert for Leaves {
    /// Shows the acceptor a leaf of an authority that it says it believes.
    fn resolve(&self, root_hint_subjects: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let leaf = self
            .0
            .iter()
            .find(|leaf| root_hint_subjects.contains(&leaf.authority.as_ref()));
        Some(leaf.map_or_else(|| self.current(), |leaf| leaf.certified.clone()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks an acceptor's leaf like any other certificate, and takes down why it was refused.
#[derive(Debug)]
struct PeerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    ours: Arc<Leaves>,
    slot: MistrustSlot,
}

impl PeerVerifier {
    fn mistrust(&self, certificate: &[u8]) -> Mistrust {
        let issuer = name::read(certificate).and_then(|names| names.issuer.common_name);
        let theirs = issuer
            .as_deref()
            .and_then(|issuer| issuer.strip_prefix(AUTHORITY_PREFIX));
        match theirs {
            // The fingerprint goes into our log, so it must look like one.
            Some(theirs) if fingerprint_in(&server_name(theirs)).is_some() => {
                let known = self.ours.0.iter().any(|leaf| leaf.fingerprint == theirs);
                if known {
                    Mistrust::Stranger
                } else {
                    Mistrust::OtherSecret {
                        theirs: theirs.to_owned(),
                    }
                }
            }
            Some(_) | None => Mistrust::Stranger,
        }
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name that was asked for carries our fingerprint; what must be in the leaf is the one name of all leaves.
        let host = ServerName::try_from(LEAF_HOST).expect("the constant is a DNS name");
        let verdict = self
            .inner
            .verify_server_cert(end_entity, intermediates, &host, ocsp_response, now);
        verdict.map_err(|_| {
            *self.slot.lock().expect("nothing panics under this lock") = Some(self.mistrust(end_entity));
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
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
        let credentials = Credentials::new(&secret, None, "rookery", &identity()).unwrap();
        let leaf = credentials.leaves.current();
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
    fn the_server_name_carries_the_fingerprint() {
        let fingerprint = Secret::new([1; 32]).unwrap().fingerprint();
        assert_eq!(fingerprint_in(&server_name(&fingerprint)), Some(fingerprint.as_str()));
        for foreign in [
            "",
            "rookery.internal",
            "x.rookery.internal",
            "example.org",
            "0123456789abcde\n.rookery.internal",
        ] {
            assert_eq!(fingerprint_in(foreign), None, "{foreign:?}");
        }
    }
}
