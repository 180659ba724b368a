//! The operators' HTTP: health, metrics, and what an operator asks or orders, for the whole cluster from any node.
//!
//! It is paths, shapes and refusals. What is done behind them is [`Operations`], which the node implements; nothing here knows
//! a match or a member.

mod access;
pub mod content;
pub mod modules;
pub mod view;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rookery_protocol::ErrorCode;
use rookery_protocol::error::Refusal;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::content::Item;
use crate::metrics::Metrics;
use crate::modules::Publication;
use access::Access;
use content::PutContent;
use view::{
    ClusterView, ContentPage, ContentPageRequest, ContentSummary, DrainOrdered, DrainRequest, JoinPeerRequest,
    KickRequest, MatchPage, MatchView, ModulesView, MoveRequest, Moved, PageRequest, Published, QueuesView, RecordPage,
    RecordRequest, UpgradeRequest, Upgraded, WorldsView,
};

/// The largest other request.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// How many matches a page has when nobody says, and at most.
const PAGE_LEN: u32 = 100;
const PAGE_LEN_MAX: u32 = 1_000;

/// What the node does for its operators. Every method answers for the cluster, whichever node it is called on.
pub trait Operations: Send + Sync + 'static {
    /// Whether players may be sent here; the error says why not, as one line.
    fn ready(&self) -> Result<(), String>;
    fn cluster(&self) -> impl Future<Output = Result<ClusterView, Refusal>> + Send;
    /// A page of live matches. `limit` is set, and between 1 and 1,000.
    fn matches(&self, page: PageRequest) -> impl Future<Output = Result<MatchPage, Refusal>> + Send;
    /// A match by id or name; also one that is over.
    fn match_view(&self, target: &str) -> impl Future<Output = Result<MatchView, Refusal>> + Send;
    /// A recording of a match, live or failed: `rookery match replay` plays it.
    fn recording(&self, target: &str) -> impl Future<Output = Result<Bytes, Refusal>> + Send {
        let message = format!("no recording of match {target} is kept here");
        async { Err(Refusal::new(ErrorCode::MatchNotFound, message)) }
    }
    fn end_match(&self, target: &str) -> impl Future<Output = Result<(), Refusal>> + Send;
    fn kick(&self, target: &str, request: KickRequest) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Moves a live match to another node, alive.
    fn move_match(&self, target: &str, request: MoveRequest) -> impl Future<Output = Result<Moved, Refusal>> + Send;
    /// Has a live match go on under another version of its module.
    fn upgrade_match(
        &self,
        target: &str,
        request: UpgradeRequest,
    ) -> impl Future<Output = Result<Upgraded, Refusal>> + Send;
    /// Counts a node that will not return as dead.
    fn forget_node(&self, name: &str) -> impl Future<Output = Result<(), Refusal>> + Send;
    fn modules(&self) -> impl Future<Output = Result<ModulesView, Refusal>> + Send;
    /// Answers when the module is stored and compiled here.
    fn publish(&self, publication: Publication) -> impl Future<Output = Result<Published, Refusal>> + Send;
    /// Removes a version of a module, `name@digest`, that nothing uses.
    fn remove_module(&self, reference: &str) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Joins through a peer at `host:port`, and fails when it does not answer; it stays a seed and is tried again.
    fn join_peer(&self, peer: &str) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Tells a node to leave the cluster; `*` is the node that is asked. Answers when it begins.
    fn drain(&self, name: &str, request: DrainRequest) -> impl Future<Output = Result<DrainOrdered, Refusal>> + Send;
    /// Closes the data connections to all peers, to see that nothing is lost by it. Refused unless `ops.faults` is set.
    fn cut_data_links(&self) -> Result<(), Refusal>;
    /// A page of matches that are over. `limit` is set, and between 1 and 1,000.
    fn records(&self, request: RecordRequest) -> impl Future<Output = Result<RecordPage, Refusal>> + Send;
    /// What this node's copy of shared content holds.
    fn content(&self) -> Result<ContentSummary, Refusal>;
    /// A page of one collection. `limit` is set, and between 1 and 1,000.
    fn content_list(&self, collection: &str, page: ContentPageRequest) -> Result<ContentPage, Refusal>;
    fn content_get(&self, collection: &str, key: &str) -> Result<Item, Refusal>;
    /// Writes for all nodes; answers with the version when this node's copy has it.
    fn content_put(
        &self,
        collection: &str,
        key: &str,
        put: PutContent,
    ) -> impl Future<Output = Result<u64, Refusal>> + Send;
    fn content_delete(
        &self,
        collection: &str,
        key: &str,
        expect: Option<u64>,
    ) -> impl Future<Output = Result<u64, Refusal>> + Send;
    fn queues(&self) -> impl Future<Output = Result<QueuesView, Refusal>> + Send {
        async { Ok(QueuesView::default()) }
    }
    fn worlds(&self) -> impl Future<Output = Result<WorldsView, Refusal>> + Send {
        async { Ok(WorldsView::default()) }
    }
}

/// The routes of the operators' listener. `/healthz` and `/readyz` need no token: supervisors have none.
pub fn router<O: Operations>(operations: Arc<O>, metrics: Arc<Metrics>, token: Option<&str>) -> Router {
    let access = Access::new(token);
    let guarded = Router::new()
        .route("/v1/cluster", get(cluster::<O>))
        .route("/v1/cluster/join", post(join_peer::<O>))
        .route("/v1/matches", get(matches::<O>))
        .route("/v1/matches/{target}", get(match_view::<O>))
        .route("/v1/matches/{target}/recording", get(recording::<O>))
        .route("/v1/matches/{target}/end", post(end_match::<O>))
        .route("/v1/matches/{target}/kick", post(kick::<O>))
        .route("/v1/matches/{target}/move", post(move_match::<O>))
        .route("/v1/matches/{target}/upgrade", post(upgrade_match::<O>))
        // A zone's name has a slash, which not everybody writes as %2F.
        .route("/v1/matches/{target}/{zone}", get(match_view::<O>))
        .route("/v1/matches/{target}/{zone}/recording", get(recording::<O>))
        .route("/v1/matches/{target}/{zone}/end", post(end_match::<O>))
        .route("/v1/matches/{target}/{zone}/kick", post(kick::<O>))
        .route("/v1/matches/{target}/{zone}/move", post(move_match::<O>))
        .route("/v1/matches/{target}/{zone}/upgrade", post(upgrade_match::<O>))
        .route("/v1/queues", get(queues::<O>))
        .route("/v1/worlds", get(worlds::<O>))
        .route("/v1/faults/cut-data-links", post(cut_data_links::<O>))
        .route("/v1/nodes/{name}/forget", post(forget_node::<O>))
        .route("/v1/nodes/{name}/drain", post(drain::<O>))
        .route("/v1/records", get(records::<O>))
        .merge(content::routes::<O>())
        .merge(modules::routes::<O>())
        .route("/console/", get(not_served))
        .with_state(operations.clone())
        .route("/metrics", get(move || async move { render(&metrics) }))
        .fallback(async || Failure(Refusal::new(ErrorCode::UnknownType, "there is nothing at this path")))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let allowed = access.check(request.headers());
            async move {
                match allowed {
                    Ok(()) => next.run(request).await,
                    Err(refusal) => Failure(refusal).into_response(),
                }
            }
        }));
    let open = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready::<O>));
    open.with_state(operations).merge(guarded)
}

/// Serves the routes until the shutdown; requests under way are finished.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

/// A refusal as an HTTP answer: `{"code", "message", "details"}` under the status that fits the code.
struct Failure(Refusal);

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        Self::of_body(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self(Refusal::new(ErrorCode::BadMessage, rejection.body_text()))
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self(Refusal::new(ErrorCode::BadMessage, rejection.body_text()))
    }
}

impl Failure {
    fn of_body(status: StatusCode, message: String) -> Self {
        let code = match status {
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
            _ => ErrorCode::BadMessage,
        };
        Self(Refusal::new(code, message))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (status_of(self.0.code), Json(self.0)).into_response()
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadMessage | ErrorCode::ModuleInvalid | ErrorCode::ChannelInvalid => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::ChannelForbidden | ErrorCode::ModuleUnsigned => StatusCode::FORBIDDEN,
        ErrorCode::UnknownType
        | ErrorCode::MatchNotFound
        | ErrorCode::MatchNotJoined
        | ErrorCode::ModuleNotFound
        | ErrorCode::QueueUnknown
        | ErrorCode::PartyNotFound
        | ErrorCode::StorageNotFound
        | ErrorCode::WorldNotFound
        | ErrorCode::NodeNotFound => StatusCode::NOT_FOUND,
        ErrorCode::MatchFull
        | ErrorCode::MatchClosed
        | ErrorCode::MatchRefused
        | ErrorCode::MatchTooMany
        | ErrorCode::MatchInputFailed
        | ErrorCode::ModuleTooMany
        | ErrorCode::ModuleInUse
        | ErrorCode::NameTaken
        | ErrorCode::QueueFull
        | ErrorCode::QueueAlreadyWaiting
        | ErrorCode::PartyFull
        | ErrorCode::ChannelTooMany
        | ErrorCode::StorageConflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge | ErrorCode::StorageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::NotReady | ErrorCode::Draining | ErrorCode::Unavailable | ErrorCode::WorldNotOnline => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

type Answer<T> = Result<Json<T>, Failure>;
type Node<O> = State<Arc<O>>;

/// The match that a path names, by id or name: one segment, or two for a zone whose slash is written as it is.
struct Target(String);

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(segments) = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        let segments: Vec<String> = segments.into_iter().map(|(_, segment)| segment).collect();
        Ok(Self(segments.join("/")))
    }
}

/// What an order says, as JSON whatever type it claims to be: `curl -d` claims that it is a form. Nothing is an empty object.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    let body = body?;
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let wrong = |error: serde_json::Error| Refusal::new(ErrorCode::BadMessage, error.to_string());
    Ok(serde_json::from_slice(text).map_err(wrong)?)
}

async fn ready<O: Operations>(State(node): Node<O>) -> Response {
    match node.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

fn render(metrics: &Metrics) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.render(),
    )
        .into_response()
}

async fn cluster<O: Operations>(State(node): Node<O>) -> Answer<ClusterView> {
    Ok(Json(node.cluster().await?))
}

async fn drain<O: Operations>(
    State(node): Node<O>,
    name: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<DrainOrdered> {
    let Path(name) = name?;
    let request: DrainRequest = read(body)?;
    Ok(Json(node.drain(&name, request).await?))
}

async fn join_peer<O: Operations>(
    State(node): Node<O>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<serde_json::Value> {
    let request: JoinPeerRequest = read(body)?;
    node.join_peer(&request.peer).await?;
    Ok(Json(json!({})))
}

async fn matches<O: Operations>(
    State(node): Node<O>,
    page: Result<Query<PageRequest>, QueryRejection>,
) -> Answer<MatchPage> {
    let Query(mut page) = page?;
    page.limit = Some(page.limit.unwrap_or(PAGE_LEN).clamp(1, PAGE_LEN_MAX));
    Ok(Json(node.matches(page).await?))
}

async fn match_view<O: Operations>(State(node): Node<O>, Target(target): Target) -> Answer<MatchView> {
    Ok(Json(node.match_view(&target).await?))
}

async fn recording<O: Operations>(State(node): Node<O>, Target(target): Target) -> Result<Response, Failure> {
    let file = node.recording(&target).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], file).into_response())
}

async fn records<O: Operations>(
    State(node): Node<O>,
    request: Result<Query<RecordRequest>, QueryRejection>,
) -> Answer<RecordPage> {
    let Query(mut request) = request?;
    request.limit = Some(request.limit.unwrap_or(PAGE_LEN).clamp(1, PAGE_LEN_MAX));
    Ok(Json(node.records(request).await?))
}

async fn end_match<O: Operations>(State(node): Node<O>, Target(target): Target) -> Answer<serde_json::Value> {
    node.end_match(&target).await?;
    Ok(Json(json!({})))
}

async fn kick<O: Operations>(
    State(node): Node<O>,
    Target(target): Target,
    body: Result<Bytes, BytesRejection>,
) -> Answer<serde_json::Value> {
    let request: KickRequest = read(body)?;
    node.kick(&target, request).await?;
    Ok(Json(json!({})))
}

async fn move_match<O: Operations>(
    State(node): Node<O>,
    Target(target): Target,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Moved> {
    let request: MoveRequest = read(body)?;
    Ok(Json(node.move_match(&target, request).await?))
}

async fn upgrade_match<O: Operations>(
    State(node): Node<O>,
    Target(target): Target,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Upgraded> {
    let request: UpgradeRequest = read(body)?;
    Ok(Json(node.upgrade_match(&target, request).await?))
}

async fn forget_node<O: Operations>(
    State(node): Node<O>,
    name: Result<Path<String>, PathRejection>,
) -> Answer<serde_json::Value> {
    let Path(name) = name?;
    node.forget_node(&name).await?;
    Ok(Json(json!({})))
}

async fn queues<O: Operations>(State(node): Node<O>) -> Answer<QueuesView> {
    Ok(Json(node.queues().await?))
}

async fn worlds<O: Operations>(State(node): Node<O>) -> Answer<WorldsView> {
    Ok(Json(node.worlds().await?))
}

async fn cut_data_links<O: Operations>(State(operations): State<Arc<O>>) -> Result<Json<serde_json::Value>, Failure> {
    operations.cut_data_links()?;
    Ok(Json(json!({})))
}

/// Paths of the contract whose capability this version does not have.
async fn not_served() -> Failure {
    Failure(Refusal::new(ErrorCode::Unavailable, "not served by this version"))
}

async fn method_not_allowed() -> Response {
    let refusal = Refusal::new(ErrorCode::BadMessage, "this path has no such method");
    (StatusCode::METHOD_NOT_ALLOWED, Json(refusal)).into_response()
}
