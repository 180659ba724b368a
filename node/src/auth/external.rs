//! Tokens of another issuer (`auth.registration = "external"`): checked by the operator's key file, a PEM public key or a JWKS.
//!
//! Nothing is fetched: the operator puts the file there. Which algorithms count follows from the key and not from the token.

use std::collections::HashMap;
use std::path::PathBuf;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use super::error::{KeyError, TokenError};
use super::token::TOKEN_LEN_MAX;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Subjects longer than this are refused: they become part of a key in the store.
const SUBJECT_LEN_MAX: usize = 255;

/// Whose tokens count, and by which key.
#[derive(Debug, Clone)]
pub struct ExternalOptions {
    /// `auth.key`: a PEM public key (RSA, P-256, P-384, Ed25519) or a JWKS.
    pub key_file: PathBuf,
    /// `auth.issuer`: what `iss` must say.
    pub issuer: String,
    /// `auth.audience`: what `aud` must hold; without it `aud` is not looked at.
    pub audience: Option<String>,
}

/// What another issuer says of a player.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) name: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    name: Option<String>,
    preferred_username: Option<String>,
}

struct Key {
    key: DecodingKey,
    validation: Validation,
}

/// Another issuer's keys.
pub(super) struct External {
    issuer: String,
    /// By key id; a key without one is under the empty text.
    keys: HashMap<String, Key>,
}

impl External {
    pub(super) fn open(options: &ExternalOptions) -> Result<Self, KeyError> {
        let path = &options.key_file;
        let text = std::fs::read(path).map_err(|cause| KeyError::File {
            path: path.clone(),
            cause,
        })?;
        Self::read(&text, options)
    }

    /// Reads the text of a key file.
    pub(super) fn read(text: &[u8], options: &ExternalOptions) -> Result<Self, KeyError> {
        let found = match serde_json::from_slice::<JwkSet>(text) {
            Ok(set) => from_set(&set),
            Err(_) => from_pem(text).map(|key| vec![(String::new(), key.0, key.1)]),
        };
        let found = found.map_err(|problem| KeyError::External {
            path: options.key_file.clone(),
            problem,
        })?;
        let keys = found.into_iter().map(|(id, key, algorithms)| {
            let mut validation = Validation::new(algorithms[0]);
            validation.algorithms = algorithms.to_vec();
            validation.leeway = 5;
            validation.validate_nbf = true;
            validation.set_issuer(&[&options.issuer]);
            // A claim that must fit must also be there.
            match &options.audience {
                Some(audience) => {
                    validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
                    validation.set_audience(&[audience]);
                }
                None => {
                    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
                    validation.validate_aud = false;
                }
            }
            (id, Key { key, validation })
        });
        Ok(Self {
            issuer: options.issuer.clone(),
            keys: keys.collect(),
        })
    }

    /// Whom a token stands for.
    pub(super) fn check(&self, token: &str) -> Result<Subject, TokenError> {
        use jsonwebtoken::errors::ErrorKind;
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        // A token that names no key is for the only one.
        let key = match &header.kid {
            Some(id) => self.keys.get(id).or_else(|| self.keys.get("")),
            None if self.keys.len() == 1 => self.keys.values().next(),
            None => self.keys.get(""),
        };
        let key = key.ok_or(TokenError::Forged)?;
        let claims =
            jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation).map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::InvalidSignature
                | ErrorKind::InvalidAlgorithm
                | ErrorKind::InvalidIssuer
                | ErrorKind::InvalidAudience => TokenError::Forged,
                _ => TokenError::Malformed,
            })?;
        let Claims {
            sub,
            name,
            preferred_username,
        } = claims.claims;
        if sub.is_empty() || sub.len() > SUBJECT_LEN_MAX {
            return Err(TokenError::Malformed);
        }
        Ok(Subject {
            issuer: self.issuer.clone(),
            subject: sub,
            name: name.or(preferred_username),
        })
    }
}

type Found = (String, DecodingKey, &'static [Algorithm]);

fn from_set(set: &JwkSet) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for jwk in &set.keys {
        let algorithms: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA,
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                EllipticCurve::P521 | EllipticCurve::Ed25519 => continue,
            },
            AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
            // A shared key would let every reader of the file make tokens.
            AlgorithmParameters::OctetKey(_) => continue,
        };
        let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
        found.push((jwk.common.key_id.clone().unwrap_or_default(), key, algorithms));
    }
    if found.is_empty() {
        return Err("the key set holds no public key of RSA, P-256, P-384 or Ed25519".into());
    }
    Ok(found)
}

fn from_pem(text: &[u8]) -> Result<(DecodingKey, &'static [Algorithm]), String> {
    const WANTED: &str = "must be a JWKS or a PEM file with `BEGIN PUBLIC KEY`";
    let info = SubjectPublicKeyInfoDer::from_pem_slice(text).map_err(|_| WANTED.to_owned())?;
    let (algorithm, key) = split_key_info(&info).ok_or("the public key is damaged")?;
    let holds = |oid: &[u8]| algorithm.windows(oid.len()).any(|window| window == oid);
    // rsaEncryption, prime256v1, secp384r1, Ed25519.
    if holds(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]) {
        Ok((DecodingKey::from_rsa_der(key), RSA))
    } else if holds(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]) {
        Ok((DecodingKey::from_ec_der(key), &[Algorithm::ES256]))
    } else if holds(&[0x2b, 0x81, 0x04, 0x00, 0x22]) {
        Ok((DecodingKey::from_ec_der(key), &[Algorithm::ES384]))
    } else if holds(&[0x2b, 0x65, 0x70]) {
        Ok((DecodingKey::from_ed_der(key), &[Algorithm::EdDSA]))
    } else {
        Err("the public key is not of RSA, P-256, P-384 or Ed25519".into())
    }
}

/// The two parts of `SEQUENCE { SEQUENCE { algorithm }, BIT STRING { key } }`. The key types above need nothing more of DER.
fn split_key_info(info: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    let (body, _) = element(info, SEQUENCE)?;
    let (algorithm, rest) = element(body, SEQUENCE)?;
    let (bits, _) = element(rest, BIT_STRING)?;
    // The first byte counts unused bits, of which keys have none.
    let (0, key) = (*bits.first()?, &bits[1..]) else {
        return None;
    };
    Some((algorithm, key))
}

/// The content of the first element, which must have this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, len], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (len, rest) = match len {
        0..=0x7f => (usize::from(len), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), rest.get(2..)?),
        _ => return None,
    };
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests;
