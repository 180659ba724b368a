use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

/// An issuer with one key.
struct Issuer {
    algorithm: Algorithm,
    sign: EncodingKey,
    pem: String,
    jwk: Value,
}

fn pem(prefix: &[u8], key: &[u8]) -> String {
    let body = BASE64_STANDARD.encode([prefix, key].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}

fn ed25519() -> Issuer {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let public = pair.public_key().as_ref();
    Issuer {
        algorithm: Algorithm::EdDSA,
        sign: EncodingKey::from_ed_der(document.as_ref()),
        pem: pem(
            &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00],
            public,
        ),
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": BASE64_URL_SAFE_NO_PAD.encode(public)}),
    }
}

fn p256() -> Issuer {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
    let public = pair.public_key().as_ref();
    let prefix = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    Issuer {
        algorithm: Algorithm::ES256,
        sign: EncodingKey::from_ec_der(document.as_ref()),
        pem: pem(&prefix, public),
        jwk: json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": BASE64_URL_SAFE_NO_PAD.encode(&public[1..33]),
            "y": BASE64_URL_SAFE_NO_PAD.encode(&public[33..])}),
    }
}

impl Issuer {
    fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.sign).unwrap()
    }
}

fn open(key_file: &str, audience: Option<&str>) -> Result<External, KeyError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key_file).unwrap();
    External::open(&ExternalOptions {
        key_file: file.path().to_owned(),
        issuer: "https://id.example".into(),
        audience: audience.map(str::to_owned),
    })
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "sub": "u-17", "name": "Ana", "exp": 4_000_000_000u64, "aud": "rookery"})
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

#[test]
fn a_token_of_the_issuer_counts_by_pem_and_by_key_set() {
    for issuer in [ed25519(), p256()] {
        let set = json!({"keys": [issuer.jwk]}).to_string();
        for (file, kid) in [
            (&issuer.pem, None),
            (&issuer.pem, Some("any")),
            (&set, None),
            (&set, issuer.jwk["kid"].as_str()),
        ] {
            let keys = open(file, Some("rookery")).unwrap();
            let subject = keys.check(&issuer.token(kid, &claims())).unwrap();
            assert_eq!(
                (subject.subject.as_str(), subject.name.as_deref()),
                ("u-17", Some("Ana"))
            );
        }
    }
}

#[test]
fn a_key_set_is_searched_by_key_id() {
    let (ed, ec) = (ed25519(), p256());
    let keys = open(&json!({"keys": [ed.jwk, ec.jwk]}).to_string(), None).unwrap();
    assert!(keys.check(&ed.token(Some("ed"), &claims())).is_ok());
    assert!(keys.check(&ec.token(Some("ec"), &claims())).is_ok());
    for token in [
        ec.token(Some("ed"), &claims()),
        ec.token(Some("new"), &claims()),
        ec.token(None, &claims()),
    ] {
        assert_eq!(keys.check(&token), Err(TokenError::Forged));
    }
}

#[test]
fn what_another_issuer_did_not_say_is_refused() {
    let issuer = ed25519();
    let keys = open(&issuer.pem, Some("rookery")).unwrap();
    let refused = |claims: &Value| keys.check(&issuer.token(None, claims)).unwrap_err();
    assert_eq!(refused(&with("exp", json!(1_000_000_000))), TokenError::Expired);
    assert_eq!(
        refused(&with("iss", json!("https://other.example"))),
        TokenError::Forged
    );
    assert_eq!(refused(&with("aud", json!("chess"))), TokenError::Forged);
    assert_eq!(refused(&with("sub", json!(""))), TokenError::Malformed);
    assert_eq!(refused(&with("sub", json!("x".repeat(300)))), TokenError::Malformed);
    for missing in ["exp", "iss", "sub", "aud"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(missing);
        keys.check(&issuer.token(None, &claims)).unwrap_err();
    }
    assert_eq!(keys.check(&ed25519().token(None, &claims())), Err(TokenError::Forged));
    // The public key is no shared secret, whatever the token's header says.
    let public = EncodingKey::from_secret(issuer.pem.as_bytes());
    let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &public).unwrap();
    assert_eq!(keys.check(&forged), Err(TokenError::Forged));
}

#[test]
fn a_key_file_that_holds_no_public_key_is_named() {
    let shared = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "s"}]}).to_string();
    let private = ed25519().pem.replace("PUBLIC", "PRIVATE");
    let damaged = pem(&[0x30, 0x2a, 0x30, 0x05], b"");
    for file in [
        "",
        "no key",
        "{}",
        r#"{"keys":[]}"#,
        shared.as_str(),
        private.as_str(),
        damaged.as_str(),
    ] {
        match open(file, None).map(|_| ()) {
            Err(KeyError::External { problem, .. }) => assert!(!problem.is_empty()),
            other => panic!("{file}: {other:?}"),
        }
    }
}
