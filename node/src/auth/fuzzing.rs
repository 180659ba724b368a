//! Doors to the tokens and the account calls for `crate::fuzzing`.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::accounts::{check_password, checked_name};
use super::external::{External, ExternalOptions};
use super::http::{GuestRequest, LogoutRequest, PasswordRequest, RefreshRequest, bearer, read_object};
use super::key::{TokenKeys, derive};
use super::token::{RefreshToken, Tokens};

/// Tokens are checked at this time, Unix seconds.
const NOW_S: u64 = 1_800_000_000;

struct Keys {
    tokens: Tokens,
    access: hmac::Key,
    resume: hmac::Key,
    external: External,
    issuer: Ed25519KeyPair,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let keys = TokenKeys::of_cluster(b"a secret of thirty-two bytes....", None);
    let key = |purpose: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &derive(&keys.current, purpose));
    let issuer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed has 32 bytes");
    let pem = pem_of(issuer.public_key().as_ref());
    Keys {
        access: key(b"access"),
        resume: key(b"resume"),
        tokens: Tokens::new(&keys),
        external: External::read(pem.as_bytes(), &options()).expect("this is a key"),
        issuer,
    }
});

fn options() -> ExternalOptions {
    ExternalOptions {
        key_file: "key.pem".into(),
        issuer: "https://issuer.example".into(),
        audience: Some("game".into()),
    }
}

fn pem_of(ed25519: &[u8]) -> String {
    let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let body = BASE64_STANDARD.encode([&prefix[..], ed25519].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}

/// Any text as each kind of token; and, when it has two lines, a token with these for its header and its claims, signed as it should
/// be: a signature is nothing that mutations find.
pub(crate) fn token(text: &str) {
    let keys = &*KEYS;
    any_token(text);
    let Some((header, claims)) = text.split_once('\n') else {
        return;
    };
    let body = [header, claims]
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let with = |signature: &[u8]| format!("{body}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
    let access = with(hmac::sign(&keys.access, body.as_bytes()).as_ref());
    let resume = with(hmac::sign(&keys.resume, body.as_bytes()).as_ref());
    let external = with(keys.issuer.sign(body.as_bytes()).as_ref());
    if let Ok(identity) = keys.tokens.check_access(&access, NOW_S) {
        let again = keys.tokens.access(&identity, NOW_S);
        assert_eq!(keys.tokens.check_access(&again, NOW_S).ok(), Some(identity));
    }
    if let Ok(resumed) = keys.tokens.check_resume(&resume, NOW_S) {
        let again = keys.tokens.resume(&resumed, NOW_S);
        assert_eq!(keys.tokens.check_resume(&again, NOW_S).ok(), Some(resumed));
    }
    if let Ok(subject) = keys.external.check(&external) {
        assert_eq!(subject.issuer, "https://issuer.example");
        assert!(!subject.subject.is_empty());
    }
    assert!(keys.tokens.check_access(&resume, NOW_S).is_err(), "a key too many");
    assert!(keys.tokens.check_resume(&access, NOW_S).is_err(), "a key too many");
    for foreign in [&access, &resume] {
        assert!(keys.external.check(foreign).is_err(), "a key too many");
    }
}

/// A text that nobody signed.
fn any_token(text: &str) {
    let keys = &*KEYS;
    let checked = (
        keys.tokens.check_access(text, NOW_S).is_ok(),
        keys.tokens.check_resume(text, NOW_S).is_ok(),
    );
    assert_ne!(checked, (true, true), "one token for two purposes");
    drop(keys.external.check(text));
    if let Ok(refresh) = RefreshToken::parse(text) {
        assert_eq!(refresh.to_text(), text);
        let next = keys.tokens.successor(&refresh);
        assert_eq!(RefreshToken::parse(&next.to_text()).ok(), Some(next));
        assert_ne!(refresh.hash(), text);
    }
}

/// Tokens of every kind, as their header and claims, and as their text.
pub(crate) fn token_seeds() -> Vec<String> {
    let ours = r#"{"typ":"JWT","alg":"HS256"}"#;
    let theirs = r#"{"typ":"JWT","alg":"EdDSA","kid":"ed"}"#;
    let (player, session) = ("01hf7yat010000000000000008", "01hf7yat020000000000000009");
    let identity =
        format!(r#""sub":"{player}","name":"Ana","fam":"AAAAAAAAAAAAAAAAAAAAAA","iat":1700000000,"exp":1900000000"#);
    let external = r#"{"iss":"https://issuer.example","aud":["game"],"sub":"u-1","preferred_username":"Ana","nbf":1,"exp":9999999999}"#;
    let refresh = format!("{}.{}", "A".repeat(22), "b".repeat(43));
    vec![
        format!("{ours}\n{{{identity}}}"),
        format!("{ours}\n{{\"sid\":\"{session}\",\"att\":3,{identity}}}"),
        format!("{theirs}\n{external}"),
        refresh,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.AAAA".into(),
    ]
}

/// The body of an account call, as each of them reads it.
pub(crate) fn body(body: &[u8]) {
    let name = |name: &str| {
        if let Ok(checked) = checked_name(name) {
            assert_eq!(checked_name(&checked).ok(), Some(checked));
        }
    };
    if let Ok(request) = read_object::<GuestRequest>(body) {
        request.name.iter().chain(&request.device).for_each(|text| name(text));
    }
    if let Ok(request) = read_object::<PasswordRequest>(body) {
        name(&request.name);
        drop(check_password(&request.password));
    }
    if let Ok(request) = read_object::<RefreshRequest>(body) {
        any_token(&request.refresh_token);
    }
    if let Ok(request) = read_object::<LogoutRequest>(body) {
        request.refresh_token.iter().for_each(|token| any_token(token));
    }
}

/// What an account call may say in its header.
pub(crate) fn headers(headers: &HeaderMap) {
    bearer(headers).into_iter().for_each(any_token);
}

/// An operator's key file.
pub(crate) fn key_file(text: &[u8]) {
    drop(External::read(text, &options()));
}

/// Key files of both kinds.
pub(crate) fn key_file_seeds() -> Vec<String> {
    let public = KEYS.issuer.public_key().as_ref();
    let x = BASE64_URL_SAFE_NO_PAD.encode(public);
    vec![
        pem_of(public),
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"{x}"}}]}}"#),
        r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}]}"#.into(),
    ]
}
