//! Serving clients over TLS directly: the certificate chain and key as rustls wants them. Peers have TLS of their own, with
//! other keys; nothing of it is here.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// PEM that makes no server. Nothing was bound yet.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("tls.cert is not a PEM certificate chain")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    #[error("tls.cert has no certificate in it")]
    NoCertificate,
    #[error("tls.key is not a PEM private key")]
    Key(#[source] rustls_pki_types::pem::Error),
    #[error("tls.cert and tls.key do not make a server")]
    Pair(#[from] rustls::Error),
}

/// Reads the texts of `tls.cert` (the chain, leaf first) and `tls.key`.
pub fn server_config(cert_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert_pem)
        .collect::<Result<_, _>>()
        .map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(TlsError::Key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
