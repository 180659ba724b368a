//! The cluster secret: the whole trust boundary of the mesh. Keys are derived from it and it is never sent or printed.

use std::fmt;
use std::sync::Arc;

use ring::signature::KeyPair;
use ring::{digest, hkdf, signature};

use crate::error::SecretError;

/// A server shows its certificate before it sees the client's, so anyone can try secrets against it offline; 32 random bytes leave
/// nothing to try.
const SECRET_LEN_MIN: usize = 32;

/// How many bytes of the digest of the CA key make a fingerprint: enough to tell secrets apart, short enough to read aloud.
pub(crate) const FINGERPRINT_LEN: usize = 8;

/// Holds a cluster secret of at least 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Takes a secret; one that is too short is refused.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, SecretError> {
        let bytes = bytes.as_ref();
        if bytes.len() < SECRET_LEN_MIN {
            return Err(SecretError::TooShort {
                len: bytes.len(),
                min: SECRET_LEN_MIN,
            });
        }
        Ok(Self(bytes.into()))
    }

    /// Returns what may be shown: a part of the digest of the public key that is made from the secret. Two nodes that show the same
    /// fingerprint share the secret.
    pub fn fingerprint(&self) -> String {
        let key = signature::Ed25519KeyPair::from_seed_unchecked(&self.ca_seed()).expect("a seed of 32 bytes is a key");
        let digest = digest::digest(&digest::SHA256, key.public_key().as_ref());
        let short = &digest.as_ref()[..FINGERPRINT_LEN];
        short.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Derives a key for one purpose; keys for different purposes say nothing about each other or about the secret.
    pub fn derive_key(&self, purpose: &str) -> [u8; 32] {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"rookery mesh 1");
        let pseudo_random = salt.extract(&self.0);
        let info = [purpose.as_bytes()];
        let expanded = pseudo_random
            .expand(&info, hkdf::HKDF_SHA256)
            .expect("one block may be asked for");
        let mut key = [0; 32];
        expanded.fill(&mut key).expect("the length is that of the algorithm");
        key
    }

    /// The seed of the certificate authority's ed25519 key.
    pub(crate) fn ca_seed(&self) -> [u8; 32] {
        self.derive_key("ca ed25519")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(Secret::new([7; 31]), Err(SecretError::TooShort { len: 31, min: 32 }));
        assert!(Secret::new([7; 32]).is_ok());
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("correct horse battery staple, and more").unwrap();
        let printed = format!("{secret:?}");
        assert!(!printed.contains("horse"), "{printed}");
        assert!(printed.contains(&secret.fingerprint()), "{printed}");
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_by_secret() {
        let (one, other) = (Secret::new([1; 32]).unwrap(), Secret::new([2; 32]).unwrap());
        assert_eq!(one.derive_key("a"), one.derive_key("a"));
        assert_ne!(one.derive_key("a"), one.derive_key("b"));
        assert_ne!(one.derive_key("a"), other.derive_key("a"));
        assert_ne!(one.fingerprint(), other.fingerprint());
        assert_eq!(one.fingerprint().len(), 16);
    }
}
