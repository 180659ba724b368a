//! A request over HTTP, whoever sends it: to the operators' listener with a node behind it that only judges, and what clients' says of
//! its headers and bodies. Parsing HTTP itself is hyper's.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use futures_util::FutureExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::auth;
use super::operators::Judge;
use crate::gateway::affinity::Affinity;
use crate::gateway::handshake::{Origins, negotiate};
use crate::metrics::Metrics;
use crate::ops;

struct Listeners {
    open: TowerToHyperService<Router>,
    guarded: TowerToHyperService<Router>,
    pages: TowerToHyperService<Router>,
    origins: Origins,
    affinity: Affinity,
}

static LISTENERS: LazyLock<Listeners> = LazyLock::new(|| {
    let metrics = Metrics::new();
    let router = |token| ops::router(Arc::new(Judge), Arc::clone(&metrics), token);
    Listeners {
        open: TowerToHyperService::new(router(None)),
        guarded: TowerToHyperService::new(router(Some("secret"))),
        pages: TowerToHyperService::new(crate::pages::routes()),
        origins: Origins::of(["https://game.example/".into(), "http://localhost:8080".into()]),
        affinity: Affinity::new("rookery_node", "rook-1", true),
    }
});

/// A first line with method and path, lines of headers, an empty line, a body.
pub fn request(input: &[u8]) {
    let (head, body) = match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let Some((method, uri)) = lines.next().and_then(|line| cut(line, b' ')) else {
        return;
    };
    let Ok(method) = Method::from_bytes(method) else { return };
    let build = || {
        let mut request = Request::builder().method(method.clone()).uri(uri);
        for line in lines.clone() {
            let (name, value) = cut(line, b':')?;
            let name = HeaderName::from_bytes(name).ok()?;
            let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
            request = request.header(name, value);
        }
        request.body(Body::from(body.to_vec())).ok()
    };
    let Some(request) = build() else { return };
    let listeners = &*LISTENERS;
    client(listeners, &request, body);
    answer(&listeners.open, request, &method);
    for listener in [&listeners.guarded, &listeners.pages] {
        if let Some(request) = build() {
            answer(listener, request, &method);
        }
    }
}

/// What the clients' listener makes of it.
fn client(listeners: &Listeners, request: &Request<Body>, body: &[u8]) {
    let headers = request.headers();
    auth::headers(headers);
    auth::body(body);
    let admitted = listeners.origins.admit(headers);
    assert!(Origins::Any.admit(headers));
    match negotiate(headers, &listeners.origins) {
        Ok(accepted) => {
            assert!(admitted, "another origin's page was let in");
            assert_eq!(accepted.accept_key.len(), 28);
            let offered = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
            assert!(offered || accepted.protocol.is_none());
        }
        Err(refused) => assert!(refused.status.is_client_error()),
    }
    let _ = listeners.affinity.answer(headers);
}

/// Sends it. Whatever is refused is refused as the contract has it, and nobody gets past the token.
fn answer(listener: &TowerToHyperService<Router>, request: Request<Body>, method: &Method) {
    let path = request.uri().path().to_owned();
    let answered = listener.call(request).now_or_never();
    let Ok(response): Result<Response<Body>, _> = answered.expect("nothing here waits");
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).now_or_never();
    let body = body.expect("nothing here waits").expect("it is in memory");
    let is_ours = path.starts_with("/v1/") && *method != Method::HEAD;
    if is_ours && !status.is_success() && !body.is_empty() {
        let refusal: serde_json::Value = serde_json::from_slice(&body).expect("a refusal is JSON");
        assert!(
            refusal["code"].is_string() && refusal["message"].is_string(),
            "{refusal}"
        );
    }
    assert!(
        !status.is_server_error() || path == "/readyz" || body.starts_with(b"{"),
        "{status}"
    );
}

fn cut(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == at)?;
    Some((&line[..at], &line[at + 1..]))
}

/// Requests of each kind.
pub fn request_seeds() -> Vec<Vec<u8>> {
    let requests = [
        "GET /v1/cluster\nauthorization: Bearer secret\n\n",
        "GET /v1/cluster\nhost: 127.0.0.1:7702\norigin: http://127.0.0.1:7702\n\n",
        "GET /v1/matches?cursor=01hf7yat000000000000000007&limit=5&module=duel\n\n",
        "GET /v1/matches/village%2Fsquare\n\n",
        "POST /v1/matches/village/square/end\n\n",
        "POST /v1/matches/01hf7yat000000000000000007/kick\n\n{\"player\":\"01hf7yat010000000000000008\",\"reason\":\"spam\"}",
        "POST /v1/matches/duel-1/move\n\n{\"to\":\"rook-2\"}",
        "POST /v1/nodes/rook-1/drain\n\n{\"deadline_ms\":25000}",
        "POST /v1/nodes/rook%2D1/forget\n\n",
        "POST /v1/cluster/join\n\n{\"peer\":\"rook-9:7701\"}",
        "GET /v1/records?player=01hf7yat010000000000000008&cursor=1700000000000.01hf7yat000000000000000007\n\n",
        "PUT /v1/modules\n\n\0asm\r\0\x01\0",
        "PUT /v1/content/items/sword?version=3\ncontent-type: application/json\n\n{\"damage\":3}",
        "PUT /v1/content/items/song\nif-none-match: *\ncontent-type: text/plain; charset=utf-8\n\nla la",
        "DELETE /v1/content/items/sword\nif-match: \"7\"\n\n",
        "GET /v1/content/items/sword?raw=true\n\n",
        "GET /v1/content/items?prefix=s&cursor=sword&limit=9\n\n",
        "GET /\nif-none-match: W/\"x\", *\n\n",
        "GET /readyz\n\n",
        "POST /v1/auth/guest\n\n{\"device\":\"d-1\",\"name\":\"Ana\"}",
        "POST /v1/auth/register\n\n{\"name\":\"Ana\",\"password\":\"correct horse\"}",
        "POST /v1/auth/refresh\n\n{\"refresh_token\":\"AAAAAAAAAAAAAAAAAAAAAA.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"}",
        "GET /v1/ws\nconnection: keep-alive, Upgrade\nupgrade: websocket\nsec-websocket-version: 13\n\
         sec-websocket-key: AAECAwQFBgcICQoLDA0ODw==\nsec-websocket-protocol: other, rookery.v1.msgpack\n\
         origin: https://game.example\ncookie: a=b; rookery_node=rook-1\n\n",
    ];
    requests
        .into_iter()
        .map(|request| request.as_bytes().to_vec())
        .collect()
}
