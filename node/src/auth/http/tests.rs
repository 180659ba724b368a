use std::num::NonZeroU32;

use axum::body::Body;
use axum::http::Request;
use governor::Quota;
use serde_json::Value;
use tower::ServiceExt;

use super::super::{AuthOptions, Policy, TokenKeys};
use super::*;
use crate::store::{Store, StoreOptions};

struct Server {
    routes: Router,
    store: Store,
    _directory: tempfile::TempDir,
}

impl Server {
    async fn start(burst: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/rookery.db", directory.path().display());
        let store = Store::open(&url, StoreOptions::default()).await.unwrap();
        let options = AuthOptions {
            keys: TokenKeys::of_cluster(&[3; 32], None),
            policy: Policy::Open,
            quota: Quota::per_second(NonZeroU32::MIN).allow_burst(NonZeroU32::new(burst).unwrap()),
            rate_limited: prometheus::IntCounter::new("refused", "not exported").unwrap(),
        };
        Self {
            routes: routes(Accounts::open(store.clone(), options).await.unwrap()),
            store,
            _directory: directory,
        }
    }

    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn post(&self, call: &str, body: impl Into<Body>) -> (u16, Value) {
        self.send(Request::post(format!("/v1/auth/{call}")).body(body.into()).unwrap())
            .await
    }
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_code() {
    let server = Server::start(1000).await;
    let (status, _) = server
        .post("register", r#"{"name":"Ana","password":"correct horse"}"#)
        .await;
    assert_eq!(status, 200);
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(BODY_LEN_MAX));
    for (call, body, status, code) in [
        ("guest", "{", 400, "bad_message"),
        ("guest", "null", 400, "bad_message"),
        ("guest", r#"["phone","Ana"]"#, 400, "bad_message"),
        ("guest", r#"{"device":7}"#, 400, "bad_message"),
        ("guest", r#"{"device":""}"#, 400, "bad_message"),
        ("guest", r#"{"name":"\u0000"}"#, 400, "bad_message"),
        ("guest", "\u{fffd}\0", 400, "bad_message"),
        ("guest", large.as_str(), 413, "too_large"),
        ("register", "", 400, "bad_message"),
        ("register", r#"{"name":"Bob"}"#, 400, "bad_message"),
        ("register", r#"{"name":"Bob","password":"short"}"#, 400, "bad_message"),
        (
            "register",
            r#"{"name":"  ","password":"correct horse"}"#,
            400,
            "bad_message",
        ),
        (
            "register",
            r#"{"name":"aNA","password":"correct horse"}"#,
            409,
            "name.taken",
        ),
        (
            "login",
            r#"{"name":"Ana","password":"wrong horse"}"#,
            401,
            "unauthenticated",
        ),
        (
            "login",
            r#"{"name":"Bob","password":"correct horse"}"#,
            401,
            "unauthenticated",
        ),
        ("refresh", r#"{}"#, 400, "bad_message"),
        ("refresh", r#"{"refresh_token":"x"}"#, 401, "unauthenticated"),
        ("logout", r#"{}"#, 401, "unauthenticated"),
        ("logout", r#"{"refresh_token":"x"}"#, 401, "unauthenticated"),
    ] {
        let (got, answer) = server.post(call, body.to_owned()).await;
        assert_eq!(
            (got, answer["code"].as_str()),
            (status, Some(code)),
            "{call} {body:.60}: {answer}"
        );
        assert!(
            answer["details"].is_object() && answer["message"].is_string(),
            "{answer}"
        );
    }
    let (status, answer) = server
        .send(Request::get("/v1/auth/guest").body(Body::empty()).unwrap())
        .await;
    assert_eq!((status, answer["code"].as_str()), (405, Some("bad_message")));
}

#[tokio::test]
async fn a_player_signs_in_refreshes_and_signs_out() {
    let server = Server::start(1000).await;
    for body in ["", "{}", r#"{"device":"phone","name":"Ana","later":[1]}"#] {
        let (status, tickets) = server.post("guest", body).await;
        assert_eq!(status, 200, "{tickets}");
        let fields: Vec<_> = tickets.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["access_token", "expires_in", "player", "refresh_token"]);
        assert_eq!(tickets["expires_in"], 3600);
        assert_eq!(tickets["player"].as_str().unwrap().len(), 26);

        let refresh = serde_json::json!({"refresh_token": tickets["refresh_token"]}).to_string();
        let (status, refreshed) = server.post("refresh", refresh).await;
        assert_eq!((status, &refreshed["player"]), (200, &tickets["player"]));
        let access = refreshed["access_token"].as_str().unwrap();
        let logout = Request::post("/v1/auth/logout").header(AUTHORIZATION, format!("Bearer {access}"));
        let (status, answer) = server.send(logout.body(Body::empty()).unwrap()).await;
        assert_eq!((status, answer), (200, serde_json::json!({})));
        let again = serde_json::json!({"refresh_token": refreshed["refresh_token"]}).to_string();
        assert_eq!(server.post("refresh", again).await.0, 401);
    }
}

#[tokio::test]
async fn an_address_that_calls_too_often_is_told_when_to_come_back() {
    let server = Server::start(3).await;
    let call = async |address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let request = Request::post("/v1/auth/guest").extension(ConnectInfo(address));
        server.send(request.body(Body::empty()).unwrap()).await
    };
    for port in 1..4 {
        assert_eq!(call(&format!("10.0.0.1:{port}")).await.0, 200);
    }
    let (status, answer) = call("10.0.0.1:4").await;
    assert_eq!((status, answer["code"].as_str()), (429, Some("rate_limited")));
    let retry_ms = answer["details"]["retry_ms"].as_u64().unwrap();
    assert!((1..=1000).contains(&retry_ms), "{retry_ms}");
    assert_eq!(call("10.0.0.2:1").await.0, 200);
}

#[tokio::test]
async fn without_the_store_accounts_are_unavailable() {
    let server = Server::start(1000).await;
    server.store.close().await;
    let (status, answer) = server.post("guest", "{}").await;
    assert_eq!((status, answer["code"].as_str()), (503, Some("unavailable")));
}
