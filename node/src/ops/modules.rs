//! `/v1/modules`: listing what is published, publishing, removing. Paths, headers and shapes; what a publication means, and whose
//! signature counts, is `crate::modules`.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName};
use axum::routing::{delete, get};
use serde_json::json;

use super::view::{ModulesView, Published};
use super::{Answer, Node, Operations};
use crate::modules::Publication;

/// The largest component that any configuration allows; `limits.module` is what this one does. It is read whole before it is
/// looked at, so that whoever sends too much hears how much would do.
pub const MODULE_BYTES_MAX: u64 = 256 << 20;

/// The signature of the component in the body.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-rookery-signature");

pub(super) fn routes<O: Operations>() -> Router<Arc<O>> {
    Router::new()
        .route(
            "/v1/modules",
            get(list::<O>)
                .put(publish::<O>)
                .layer(DefaultBodyLimit::max(MODULE_BYTES_MAX as usize)),
        )
        .route("/v1/modules/{reference}", delete(remove::<O>))
}

async fn list<O: Operations>(State(node): Node<O>) -> Answer<ModulesView> {
    Ok(Json(node.modules().await?))
}

async fn publish<O: Operations>(
    State(node): Node<O>,
    headers: HeaderMap,
    component: Result<Bytes, BytesRejection>,
) -> Answer<Published> {
    // What is no text is no signature either, and is refused as one.
    let signature = headers
        .get(SIGNATURE)
        .map(|value| value.to_str().unwrap_or("?").to_owned());
    let publication = Publication {
        component: component?,
        signature,
    };
    Ok(Json(node.publish(publication).await?))
}

async fn remove<O: Operations>(
    State(node): Node<O>,
    reference: Result<Path<String>, PathRejection>,
) -> Answer<serde_json::Value> {
    let Path(reference) = reference?;
    node.remove_module(&reference).await?;
    Ok(Json(json!({})))
}
