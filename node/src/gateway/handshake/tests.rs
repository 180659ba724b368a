use axum::http::HeaderValue;

use super::*;

/// The headers of the WebSocket standard's own example, and more.
fn headers(more: &[(&'static str, &'static str)]) -> HeaderMap {
    let standard = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in standard.iter().chain(more) {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn the_first_known_subprotocol_is_taken() {
    let check = |offers: &[&'static str], expected: Option<(Encoding, Option<&'static str>)>| {
        let offers: Vec<_> = offers.iter().map(|offer| ("sec-websocket-protocol", *offer)).collect();
        match (negotiate(&headers(&offers), &Origins::Any), expected) {
            (Ok(accepted), Some(expected)) => {
                assert_eq!((accepted.encoding, accepted.protocol), expected);
                assert_eq!(accepted.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            }
            (Err(refused), None) => assert_eq!(refused.status, StatusCode::BAD_REQUEST),
            (verdict, expected) => panic!("{offers:?}: {verdict:?}, not {expected:?}"),
        }
    };
    check(&[], Some((Encoding::Json, None)));
    check(&["rookery.v1.json"], Some((Encoding::Json, Some(JSON))));
    check(&["rookery.v1.msgpack"], Some((Encoding::MsgPack, Some(MSGPACK))));
    check(
        &["rookery.v2.json, rookery.v1.msgpack ,rookery.v1.json"],
        Some((Encoding::MsgPack, Some(MSGPACK))),
    );
    check(
        &["rookery.v9.json", "rookery.v1.json"],
        Some((Encoding::Json, Some(JSON))),
    );
    check(&["graphql-ws"], None);
    check(&["ROOKERY.V1.JSON"], None);
}

#[test]
fn what_is_no_upgrade_is_refused() {
    for name in ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key"] {
        let mut without = headers(&[]);
        without.remove(name);
        assert!(negotiate(&without, &Origins::Any).is_err(), "{name}");
    }
    let mut old = headers(&[]);
    old.insert("sec-websocket-version", HeaderValue::from_static("8"));
    assert_eq!(
        negotiate(&old, &Origins::Any).unwrap_err().status,
        StatusCode::UPGRADE_REQUIRED
    );
}

#[test]
fn origins_are_held_to_the_list() {
    let only = Origins::of(["https://game.example".to_string(), "http://localhost:8080/".to_string()]);
    let check = |origins: &Origins, origin: Option<&'static str>, admitted: bool| {
        let more: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        let verdict = negotiate(&headers(&more), origins);
        assert_eq!(verdict.is_ok(), admitted, "{origin:?}");
        if let Err(refused) = verdict {
            assert_eq!(
                (refused.status, refused.code),
                (StatusCode::FORBIDDEN, ErrorCode::Forbidden)
            );
        }
    };
    check(&only, None, true);
    check(&only, Some("https://game.example"), true);
    check(&only, Some("HTTPS://Game.Example"), true);
    check(&only, Some("http://localhost:8080"), true);
    check(&only, Some("http://game.example"), false);
    check(&only, Some("https://game.example.evil.example"), false);
    check(&only, Some("null"), false);
    check(&Origins::of(["*".to_string()]), Some("https://evil.example"), true);
    check(&Origins::default(), Some("https://evil.example"), true);
}
