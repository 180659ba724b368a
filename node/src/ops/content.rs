//! `/v1/content`: reading shared content from this node's copy, and writing it for all nodes. Paths, headers and shapes; what a
//! write means is `crate::content`.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rookery_protocol::ErrorCode;
use rookery_protocol::error::Refusal;
use serde::Deserialize;

use super::view::{ContentItem, ContentPage, ContentPageRequest, ContentSummary, ContentWritten};
use super::{Answer, Failure, Node, Operations, PAGE_LEN, PAGE_LEN_MAX};
use crate::content::Item;

/// The largest value that any configuration allows; `content.value` is below it.
pub const CONTENT_BYTES_MAX: usize = 16 << 20;

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// What curl and browsers say of a body of which nobody said what it is.
const UNSAID: &str = "application/x-www-form-urlencoded";

const CONTENT_TYPE_LEN_MAX: usize = 128;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutContent {
    pub content_type: String,
    pub value: Bytes,
    /// The version that the value must have; 0: there must be none.
    pub expect: Option<u64>,
}

/// What a write or a reading asks for in the query.
#[derive(Debug, Clone, Default, Deserialize)]
struct Asked {
    version: Option<u64>,
    #[serde(default)]
    raw: bool,
}

/// A collection and a key in it, as the path has them.
type Named = Result<Path<(String, String)>, PathRejection>;

pub(super) fn routes<O: Operations>() -> Router<Arc<O>> {
    Router::new()
        .route("/v1/content", get(summary::<O>))
        .route("/v1/content/{collection}", get(list::<O>))
        .route(
            "/v1/content/{collection}/{key}",
            get(read::<O>)
                .put(write::<O>)
                .delete(delete::<O>)
                .layer(DefaultBodyLimit::max(CONTENT_BYTES_MAX)),
        )
}

async fn summary<O: Operations>(State(node): Node<O>) -> Answer<ContentSummary> {
    Ok(Json(node.content()?))
}

async fn list<O: Operations>(
    State(node): Node<O>,
    collection: Result<Path<String>, PathRejection>,
    page: Result<Query<ContentPageRequest>, QueryRejection>,
) -> Answer<ContentPage> {
    let (Path(collection), Query(mut page)) = (collection?, page?);
    page.limit = Some(page.limit.unwrap_or(PAGE_LEN).clamp(1, PAGE_LEN_MAX));
    Ok(Json(node.content_list(&collection, page)?))
}

async fn read<O: Operations>(
    State(node): Node<O>,
    named: Named,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Failure> {
    let (Path((collection, key)), Query(asked)) = (named?, asked?);
    let item = node.content_get(&collection, &key)?;
    let tag = [(header::ETAG, format!("\"{}\"", item.version))];
    if asked.raw {
        // A page that somebody stored as content is not to run with an operator's rights.
        let headers = [
            (header::CONTENT_TYPE, item.content_type.to_string()),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
            (header::CONTENT_SECURITY_POLICY, "sandbox".into()),
        ];
        return Ok((tag, headers, item.value).into_response());
    }
    Ok((tag, Json(view(collection, key, &item))).into_response())
}

async fn write<O: Operations>(
    State(node): Node<O>,
    named: Named,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer<ContentWritten> {
    let (Path((collection, key)), Query(asked)) = (named?, asked?);
    let value = body?;
    let put = PutContent {
        content_type: content_type(&headers, &value)?,
        value,
        expect: expected(&headers, &asked)?,
    };
    let version = node.content_put(&collection, &key, put).await?;
    Ok(Json(ContentWritten {
        collection,
        key,
        version,
    }))
}

async fn delete<O: Operations>(
    State(node): Node<O>,
    named: Named,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Answer<ContentWritten> {
    let (Path((collection, key)), Query(asked)) = (named?, asked?);
    let version = node
        .content_delete(&collection, &key, expected(&headers, &asked)?)
        .await?;
    Ok(Json(ContentWritten {
        collection,
        key,
        version,
    }))
}

/// A value for people and scripts: JSON and text as they are, anything else in base64.
fn view(collection: String, key: String, item: &Item) -> ContentItem {
    use base64::Engine;
    let json = serde_json::from_slice(&item.value).ok();
    let (encoding, value) = match (json, std::str::from_utf8(&item.value)) {
        (Some(json), _) if *item.content_type == *JSON => ("json", json),
        (_, Ok(text)) => ("text", text.into()),
        (_, Err(_)) => {
            let base64 = base64::engine::general_purpose::STANDARD.encode(&item.value);
            ("base64", base64.into())
        }
    };
    ContentItem {
        collection,
        key,
        version: item.version,
        content_type: item.content_type.to_string(),
        encoding: encoding.into(),
        value,
        updated_at: item.updated_at_ms,
    }
}

/// What the body is: as the request says, or by a look at it.
fn content_type(headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
    let said = text(headers, header::CONTENT_TYPE)?.filter(|said| *said != UNSAID);
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    match said {
        None if is_json() => Ok(JSON.into()),
        None => Ok(BYTES.into()),
        Some(said) if said.len() > CONTENT_TYPE_LEN_MAX => {
            let message = format!("a content type is at most {CONTENT_TYPE_LEN_MAX} bytes long");
            Err(Refusal::new(ErrorCode::BadMessage, message))
        }
        Some(said) if said == JSON || said.starts_with("application/json;") => {
            if is_json() {
                return Ok(JSON.into());
            }
            Err(Refusal::new(
                ErrorCode::BadMessage,
                "the body is not the JSON that its content type says",
            ))
        }
        Some(said) => Ok(said.into()),
    }
}

/// The version that the caller has in mind: `?version=`, `If-Match: "7"`, or `If-None-Match: *` for none.
fn expected(headers: &HeaderMap, asked: &Asked) -> Result<Option<u64>, Refusal> {
    let wrong = |message| Refusal::new(ErrorCode::BadMessage, message);
    if asked.version.is_some() {
        return Ok(asked.version);
    }
    if let Some(none) = text(headers, header::IF_NONE_MATCH)? {
        return match none {
            "*" => Ok(Some(0)),
            _ => Err(wrong(
                "If-None-Match: only `*` is understood, for a value that must not exist",
            )),
        };
    }
    let Some(tag) = text(headers, header::IF_MATCH)? else {
        return Ok(None);
    };
    let version = tag.trim_matches('"').parse();
    version
        .map(Some)
        .map_err(|_| wrong("If-Match: the version of the value in quotes, as its ETag says it"))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let value = headers.get(&name).map(|value| value.to_str());
    value
        .transpose()
        .map_err(|_| Refusal::new(ErrorCode::BadMessage, format!("the header {name} is not plain text")))
}
