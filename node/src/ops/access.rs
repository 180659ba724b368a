//! Who may use the operators' listener: holders of the token, or, without a token, programs on this machine. A browser page of
//! another origin is neither, even when it runs on this machine.

use axum::http::{HeaderMap, header};
use ring::hmac;
use ring::rand::SystemRandom;
use rookery_protocol::ErrorCode;
use rookery_protocol::error::Refusal;

/// Checks requests. It holds no token, only a tag of it under a key made at start: comparing tags takes the same time whatever
/// was presented, its length included.
#[derive(Clone)]
pub(super) struct Access {
    expected: Option<(hmac::Key, hmac::Tag)>,
}

impl Access {
    pub(super) fn new(token: Option<&str>) -> Self {
        let expected = token.map(|token| {
            let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
            let key = key.expect("the system gives random bytes");
            let tag = hmac::sign(&key, token.as_bytes());
            (key, tag)
        });
        Self { expected }
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let Some((key, tag)) = &self.expected else {
            return Self::check_browser(text(header::ORIGIN), text(header::HOST));
        };
        let presented = text(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let Some(presented) = presented else {
            let remedy = "present the operators' token: `--token`, ROOKERY_OPS_TOKEN, or `Authorization: Bearer`";
            return Err(Refusal::new(ErrorCode::Unauthenticated, remedy));
        };
        match hmac::verify(key, presented.as_bytes(), tag.as_ref()) {
            Ok(()) => Ok(()),
            Err(_) => Err(Refusal::new(
                ErrorCode::Unauthenticated,
                "this is not the operators' token",
            )),
        }
    }

    /// Without a token a page that the operator happens to visit could post to loopback: as another origin, or, after DNS
    /// rebinding, under a host name of its own. Commands send no origin and an address.
    fn check_browser(origin: Option<&str>, host: Option<&str>) -> Result<(), Refusal> {
        let host = host.unwrap_or_default();
        let is_same = origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, from)| from == host));
        if is_same && is_address(host) {
            return Ok(());
        }
        let message =
            "without a token the operators' listener serves no other origin and no host name; use its address";
        Err(Refusal::new(ErrorCode::Forbidden, message))
    }
}

/// Whether a `Host` header is an address of its own, not a name that anybody can point here.
fn is_address(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| match port.parse::<u16>() {
            Ok(_) => name,
            Err(_) => host,
        });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.is_empty() || name == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}
