//! Certificates of an operator's own authority, as the alternative to those that nodes make from the cluster secret: read from three
//! files, and checked as peers will check them before they are used. Not how a connection uses them (`quic/tls.rs`), nor when the files
//! are looked at again (`cluster/certificates.rs`).
//!
//! The invariant: what is made here would be let in by a node with the same files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError as Unfit, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::error::CertificateError;
use crate::peer::NodeId;
use crate::quic::name;
use crate::secret::FINGERPRINT_LEN;

/// Names the files, in PEM, by which a node shows that it belongs to a cluster with an authority of its own.
///
/// A node is who its certificate says: its name must be among the certificate's DNS names, or be its common name. The certificate
/// must be good for servers and for clients, because either end may dial. There are no revocation lists: what takes a node's right
/// away is the end of its certificate, or another authority in `ca`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The authorities that are believed, one or several: with two of them, the authority changes node by node.
    pub ca: PathBuf,
    /// This node's certificate, followed by those between it and the authority.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Reads the files and says what keeps this node from using them. Nothing is kept.
    pub fn check(&self, node: &NodeId) -> Result<(), CertificateError> {
        Certificates::new(self, &self.read()?, node, UnixTime::now()).map(|_| ())
    }

    pub(crate) fn read(&self) -> Result<Contents, CertificateError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| CertificateError::Unreadable {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Contents {
            ca: read(&self.ca)?,
            cert: read(&self.cert)?,
            key: read(&self.key)?,
        })
    }
}

/// What stands in the files. Has no `Debug`: one of them is a private key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// The files' meaning, checked.
pub(crate) struct Certificates {
    pub(crate) roots: RootCertStore,
    /// The fingerprints of all authorities that are believed; the one of our own certificate stands first.
    pub(crate) authorities: Vec<String>,
    pub(crate) shown: Arc<CertifiedKey>,
    /// The same with the authority behind it. Shown to who names another authority, so that it can say which one this is; to all
    /// others it would only be bytes.
    pub(crate) whole: Arc<CertifiedKey>,
    /// Until when the node's certificate counts, in Unix seconds.
    pub(crate) not_after_s: u64,
}

impl Certificates {
    pub(crate) fn new(
        files: &CertificateFiles,
        contents: &Contents,
        node: &NodeId,
        now: UnixTime,
    ) -> Result<Self, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authorities = certificates(&files.ca, &contents.ca)?;
        let chain = certificates(&files.cert, &contents.cert)?;
        let malformed = |path: &Path, why: &dyn std::fmt::Display| CertificateError::Malformed {
            path: path.to_owned(),
            why: why.to_string(),
        };
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| malformed(&files.key, &error))?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| malformed(&files.key, &error))?;
        let shown = CertifiedKey::new(chain.clone(), key.clone());
        match shown.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(CertificateError::OtherKey {
                    cert: files.cert.clone(),
                    key: files.key.clone(),
                });
            }
            Err(error) => return Err(malformed(&files.cert, &error)),
        }
        let mut roots = RootCertStore::empty();
        let mut unfit = None;
        let mut issuer = None;
        for (index, authority) in authorities.iter().enumerate() {
            let mut alone = RootCertStore::empty();
            for store in [&mut roots, &mut alone] {
                store
                    .add(authority.clone())
                    .map_err(|error| malformed(&files.ca, &error))?;
            }
            match verify(&provider, alone, &chain, now) {
                Ok(()) => issuer = issuer.or(Some(index)),
                // Of several authorities the one that issued the certificate says the most.
                Err(Unfit::UnknownIssuer) => unfit = unfit.or(Some(Unfit::UnknownIssuer)),
                Err(error) => unfit = Some(error),
            }
        }
        let Some(issuer) = issuer else {
            return Err(CertificateError::Unfit {
                cert: files.cert.clone(),
                ca: files.ca.clone(),
                why: unfit.map_or_else(|| "there is no authority".to_owned(), |unfit| in_words(&unfit)),
            });
        };
        if !names(&chain[0], node) {
            return Err(CertificateError::OtherName {
                cert: files.cert.clone(),
                node: node.clone(),
            });
        }
        let not_after_s = name::read(&chain[0]).and_then(|names| names.not_after_s);
        let not_after_s = not_after_s.ok_or_else(|| malformed(&files.cert, &"its end cannot be read"))?;
        let mut fingerprints: Vec<String> = authorities.iter().map(|authority| fingerprint(authority)).collect();
        fingerprints.swap(0, issuer);
        let whole = [&chain[..], &authorities[issuer..=issuer]].concat();
        Ok(Self {
            roots,
            authorities: fingerprints,
            shown: Arc::new(shown),
            whole: Arc::new(CertifiedKey::new(whole, key)),
            not_after_s,
        })
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let malformed = |why: String| CertificateError::Malformed {
        path: path.to_owned(),
        why,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() {
        return Err(malformed("it holds no certificate in PEM".to_owned()));
    }
    Ok(found)
}

/// Checks a chain as both an acceptor's and a dialler's.
fn verify(
    provider: &Arc<CryptoProvider>,
    roots: RootCertStore,
    chain: &[CertificateDer<'static>],
    now: UnixTime,
) -> Result<(), Unfit> {
    let unfit = |error: rustls::Error| match error {
        rustls::Error::InvalidCertificate(unfit) => unfit,
        _ => Unfit::BadEncoding,
    };
    let (leaf, between) = chain.split_first().expect("a chain has a leaf");
    let parsed = ParsedCertificate::try_from(leaf).map_err(unfit)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, between, now, algorithms).map_err(unfit)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|_| Unfit::UnknownIssuer)?;
    clients.verify_client_cert(leaf, between, now).map_err(unfit)?;
    Ok(())
}

/// What an operator reads instead of an error of TLS.
pub(crate) fn in_words(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Expired | Unfit::ExpiredContext { .. } => "it has expired".to_owned(),
        Unfit::NotValidYet | Unfit::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        Unfit::UnknownIssuer | Unfit::BadSignature => "no authority that is believed issued it".to_owned(),
        Unfit::InvalidPurpose | Unfit::InvalidPurposeContext { .. } => {
            "it must be good for both servers and clients".to_owned()
        }
        other => other.to_string(),
    }
}

/// Whether a certificate that has been verified names this node. A DNS name counts as TLS counts it, wildcards included; what cannot be
/// a DNS name can only be the common name.
pub(crate) fn names(certificate: &CertificateDer<'_>, node: &NodeId) -> bool {
    let by_dns_name = || {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let name = ServerName::try_from(node.as_str()).ok()?;
        rustls::client::verify_server_name(&parsed, &name).ok()
    };
    let by_common_name = || {
        let common_name = name::read(certificate)?.subject.common_name?;
        (common_name == node.as_str()).then_some(())
    };
    by_dns_name().or_else(by_common_name).is_some()
}

/// What may be shown of an authority: the beginning of the digest that `openssl x509 -fingerprint -sha256` prints.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    let short = &digest.as_ref()[..FINGERPRINT_LEN];
    short.iter().map(|byte| format!("{byte:02x}")).collect()
}
