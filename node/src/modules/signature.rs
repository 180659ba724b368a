//! Who answers for a component: ed25519 signatures over its digest, and the keys that a cluster believes.
//!
//! A signature says that the holder of a key wants these very bytes to run. It does not say that they are the newest: whoever can
//! write into the store can make an older signed version its name's newest. It is checked by each node that is about to run the
//! bytes, so a store that somebody else has written into brings no code in.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rookery_protocol::Digest;
use rookery_protocol::error::{ErrorCode, Refusal};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

/// What is signed begins with this, so that a signature made for anything else is none of a module.
const DOMAIN: &[u8] = b"rookery module signature 1\0";

const PUBLIC_KEY_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;

/// The bytes that a signature of the component with this digest covers.
fn message(component: &Digest) -> Vec<u8> {
    [DOMAIN, &component.0].concat()
}

/// A public key of somebody whose modules may run, as `modules.keys` lists it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC_KEY_LEN]);

impl PublicKey {
    pub fn id(&self) -> KeyId {
        let hash = digest(&SHA256, &self.0);
        let (id, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        KeyId(*id)
    }

    fn has_signed(&self, component: &Digest, signature: &Signature) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(&message(component), &signature.0).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = STANDARD
            .decode(text.trim())
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| {
            format!("`{text}` is not an ed25519 public key of 32 bytes in base64, as `rookery module keygen` prints it")
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a key is called for people: the beginning of its SHA-256, in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A signature of a component, by a key that it does not name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; SIGNATURE_LEN]);

impl FromStr for Signature {
    type Err = NotASignature;

    fn from_str(text: &str) -> Result<Self, NotASignature> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| NotASignature)?;
        bytes.try_into().map(Self).map_err(|_| NotASignature)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signature of 64 bytes in base64, as `rookery module sign` prints it")]
pub struct NotASignature;

/// The keys by which modules may be signed; without any, nothing has to be.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<PublicKey>);

impl Keys {
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self(keys)
    }

    /// Whether a module must be signed to run here.
    pub fn are_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether one of the signatures makes the component one that may run here. Returns the key that it is signed by; none where
    /// nobody asks for one.
    pub fn check<'a>(
        &self,
        component: &Digest,
        signatures: impl IntoIterator<Item = &'a Signature>,
    ) -> Result<Option<KeyId>, Untrusted> {
        if !self.are_set() {
            return Ok(None);
        }
        let mut untrusted = Untrusted::Unsigned;
        for signature in signatures {
            if let Some(key) = self.0.iter().find(|key| key.has_signed(component, signature)) {
                return Ok(Some(key.id()));
            }
            untrusted = Untrusted::OtherKey;
        }
        Err(untrusted)
    }
}

/// Why a component may not run where keys are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("the module is not signed, and this cluster runs signed ones only")]
    Unsigned,
    #[error("no signature of the module is by a key of this cluster over these bytes")]
    OtherKey,
    #[error("the module's signature cannot be read")]
    Malformed,
}

impl Untrusted {
    /// What is said of it where it is a detail of a refusal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::OtherKey => "other_key",
            Self::Malformed => "malformed",
        }
    }
}

impl From<Untrusted> for Refusal {
    fn from(untrusted: Untrusted) -> Self {
        let remedy = "publish it with `rookery module publish FILE --key KEY`, by a key of which modules.keys has the public half";
        Refusal::new(ErrorCode::ModuleUnsigned, untrusted.to_string())
            .with("reason", untrusted.as_str())
            .with("remedy", remedy)
    }
}

/// The private half of a key. Only commands have it; a node never does.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new key, as the PEM text that [`SigningKey::from_pem`] reads.
    pub fn generate() -> String {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the system gives random bytes");
        let text = STANDARD.encode(document.as_ref());
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        )
    }

    /// Reads a PKCS#8 key in PEM: ours, or one of `openssl genpkey -algorithm ed25519`.
    pub fn from_pem(text: &[u8]) -> Result<Self, NotASigningKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| NotASigningKey)?;
        // Unchecked: OpenSSL leaves the public half out.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        pair.map(Self).map_err(|_| NotASigningKey)
    }

    pub fn public(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref();
        PublicKey(bytes.try_into().expect("an ed25519 public key has 32 bytes"))
    }

    pub fn sign(&self, component: &Digest) -> Signature {
        let signature = self.0.sign(&message(component));
        Signature(
            signature
                .as_ref()
                .try_into()
                .expect("an ed25519 signature has 64 bytes"),
        )
    }
}

/// The file holds no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an ed25519 private key in PEM (PKCS#8), as `rookery module keygen` writes it")]
pub struct NotASigningKey;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(SigningKey::generate().as_bytes()).unwrap()
    }

    #[test]
    fn a_component_runs_when_one_of_its_signatures_is_by_one_of_the_keys_over_its_digest() {
        let (ours, next, others) = (key(), key(), key());
        let (component, another) = (Digest([1; 32]), Digest([2; 32]));
        let both = Keys::new(vec![ours.public(), next.public()]);
        let by = |key: &SigningKey| Ok(Some(key.public().id()));
        let (unsigned, other_key) = (Err(Untrusted::Unsigned), Err(Untrusted::OtherKey));
        let cases: [(&[Signature], _); 7] = [
            (&[], unsigned),
            (&[ours.sign(&component)], by(&ours)),
            (&[next.sign(&component)], by(&next)),
            (&[others.sign(&component)], other_key),
            (&[ours.sign(&another)], other_key),
            (
                &[others.sign(&component), ours.sign(&another), next.sign(&component)],
                by(&next),
            ),
            (&[Signature([0; SIGNATURE_LEN])], other_key),
        ];
        for (signatures, expected) in cases {
            assert_eq!(both.check(&component, signatures), expected, "{signatures:?}");
            assert_eq!(
                Keys::default().check(&component, signatures),
                Ok(None),
                "{signatures:?}"
            );
        }
        // A key that was rotated out signs nothing any more.
        let rotated = Keys::new(vec![next.public()]);
        assert_eq!(rotated.check(&component, &[ours.sign(&component)]), other_key);
    }

    #[test]
    fn a_signature_over_the_bare_digest_is_none() {
        let key = key();
        let component = Digest([1; 32]);
        let bare = Signature(key.0.sign(&component.0).as_ref().try_into().unwrap());
        let keys = Keys::new(vec![key.public()]);
        assert_eq!(keys.check(&component, &[bare]), Err(Untrusted::OtherKey));
    }

    /// What is signed must never change: modules would have to be signed again.
    #[test]
    fn a_known_key_signs_a_known_digest_as_it_always_has() {
        let key = SigningKey(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());
        assert_eq!(key.public().to_string(), "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=");
        assert_eq!(key.public().id().to_string(), "fe812c12f3ab4ce6");
        let signature = key.sign(&Digest([1; 32]));
        assert_eq!(
            signature.to_string(),
            "URFlOrt1p3C35lvj1KyTFO5dXdxZnO2gY8JVLwHK4nsL9g8ES4eeTM5OGQOZ6rChRBCTrUk0MPJ/EloP+IgBDA=="
        );
    }

    #[test]
    fn keys_and_signatures_read_what_they_print() {
        let key = key();
        let public = key.public();
        assert_eq!(public.to_string().parse(), Ok(public));
        let signature = key.sign(&Digest([1; 32]));
        assert_eq!(format!(" {signature}\n").parse(), Ok(signature));
        for text in ["", "=", "AAAA", &public.to_string(), "not base64 at all"] {
            assert_eq!(text.parse::<Signature>(), Err(NotASignature), "{text}");
        }
        for text in ["", "AAAA", &signature.to_string(), "key"] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "key",
        ] {
            assert!(SigningKey::from_pem(text.as_bytes()).is_err(), "{text}");
        }
    }

    /// OpenSSL writes the first version of PKCS#8, without the public half.
    #[test]
    fn a_key_as_openssl_writes_it_signs_too() {
        let prefix = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let text = STANDARD.encode([&prefix[..], &[7; 32]].concat());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let key = SigningKey::from_pem(pem.as_bytes()).unwrap();
        let seeded = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        assert_eq!(key.public(), SigningKey(seeded).public());
    }
}
