//! `POST /v1/auth/*`: the account calls over HTTP. Answers are 200, or `{code, message, details}` with the status of its code.
//!
//! Not here: cross-origin headers, which the listener adds for all its routes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use rookery_protocol::ErrorCode;
use rookery_protocol::error::Refusal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::accounts::{Accounts, Tickets};
use super::error::{AuthError, TokenError};

/// The longest request has a name, a password or a token in it; this is many times as much.
const BODY_LEN_MAX: usize = 16 * 1024;

/// The routes, to be merged into the client listener's. Addresses come from `ConnectInfo`.
pub fn routes(accounts: Arc<Accounts>) -> Router {
    Router::new()
        .route("/v1/auth/guest", post(guest).fallback(wrong_method))
        .route("/v1/auth/register", post(register).fallback(wrong_method))
        .route("/v1/auth/login", post(login).fallback(wrong_method))
        .route("/v1/auth/refresh", post(refresh).fallback(wrong_method))
        .route("/v1/auth/logout", post(logout).fallback(wrong_method))
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(accounts)
}

type Address = Option<Extension<ConnectInfo<SocketAddr>>>;
type Body = Result<Bytes, BytesRejection>;

#[derive(Deserialize, Default)]
pub(super) struct GuestRequest {
    pub(super) device: Option<String>,
    pub(super) name: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct PasswordRequest {
    pub(super) name: String,
    pub(super) password: String,
}

#[derive(Deserialize)]
pub(super) struct RefreshRequest {
    pub(super) refresh_token: String,
}

#[derive(Deserialize)]
pub(super) struct LogoutRequest {
    pub(super) refresh_token: Option<String>,
}

async fn guest(State(accounts): State<Arc<Accounts>>, address: Address, body: Body) -> Result<Response, AuthError> {
    accounts.admit(ip(address))?;
    let request: GuestRequest = read(body)?;
    Ok(answer(
        accounts
            .guest(request.device.as_deref(), request.name.as_deref())
            .await?,
    ))
}

async fn register(State(accounts): State<Arc<Accounts>>, address: Address, body: Body) -> Result<Response, AuthError> {
    accounts.admit(ip(address))?;
    let request: PasswordRequest = read(body)?;
    Ok(answer(accounts.register(&request.name, &request.password).await?))
}

async fn login(State(accounts): State<Arc<Accounts>>, address: Address, body: Body) -> Result<Response, AuthError> {
    accounts.admit(ip(address))?;
    let request: PasswordRequest = read(body)?;
    Ok(answer(accounts.login(&request.name, &request.password).await?))
}

async fn refresh(State(accounts): State<Arc<Accounts>>, address: Address, body: Body) -> Result<Response, AuthError> {
    accounts.admit(ip(address))?;
    let request: RefreshRequest = read(body)?;
    Ok(answer(accounts.refresh(&request.refresh_token).await?))
}

/// By the refresh token in the body, or else by the access token in the header.
async fn logout(
    State(accounts): State<Arc<Accounts>>,
    address: Address,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, AuthError> {
    accounts.admit(ip(address))?;
    let request: LogoutRequest = read(body)?;
    match (request.refresh_token, bearer(&headers)) {
        (Some(token), _) => accounts.logout(&token).await?,
        (None, Some(token)) => accounts.logout_access(token).await?,
        (None, None) => return Err(TokenError::Malformed.into()),
    }
    Ok(Json(json!({})).into_response())
}

async fn wrong_method() -> Response {
    let refusal = Refusal::new(ErrorCode::BadMessage, "account calls are made by POST");
    (StatusCode::METHOD_NOT_ALLOWED, Json(refusal)).into_response()
}

fn ip(address: Address) -> IpAddr {
    // A listener that does not say who called has all its callers share one allowance.
    address.map_or(Ipv4Addr::UNSPECIFIED.into(), |Extension(ConnectInfo(address))| {
        address.ip()
    })
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Reads a request's object. No body at all is an empty object: a guest needs to say nothing.
fn read<T: DeserializeOwned>(body: Body) -> Result<T, AuthError> {
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            AuthError::TooLarge { limit: BODY_LEN_MAX }
        } else {
            AuthError::BadRequest("the request's body could not be read".into())
        }
    })?;
    read_object(&body)
}

pub(super) fn read_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, AuthError> {
    let body = if body.is_empty() { b"{}" } else { body };
    // As an object first, because serde would also take a list for a struct.
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| AuthError::BadRequest(format!("not a JSON object: {error}")))?;
    serde_json::from_value(object.into()).map_err(|error| AuthError::BadRequest(error.to_string()))
}

fn answer(tickets: Tickets) -> Response {
    let body = json!({
        "player": tickets.player.id,
        "access_token": tickets.access_token,
        "refresh_token": tickets.refresh_token,
        "expires_in": tickets.expires_in.as_secs(),
    });
    let mut response = Json(body).into_response();
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        if matches!(self, Self::Store(_) | Self::Hashing) {
            tracing::warn!(error = &self as &dyn std::error::Error, "account call failed");
        }
        let refusal = self.refusal();
        (status(refusal.code), Json(refusal)).into_response()
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadMessage => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NameTaken => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // Account calls are refused with no other code.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
