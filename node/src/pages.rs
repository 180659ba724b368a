//! The demo page and the playground, as every node serves them: files embedded in the binary, with their entity tags. It is not the
//! data that they show (that comes over the client protocol, from `/v1/demo/cluster` and from `/v1/dev`), and it is no general file
//! server: what is not in a list of [`File`]s does not exist.

pub mod live;
pub mod playground;

use std::sync::Arc;

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

/// Nothing but our own files runs or loads. Connections go anywhere, because the page moves to other nodes of the cluster, whose
/// addresses only the cluster knows.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' http: https: ws: wss:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Browsers keep the files but ask each time: after an upgrade of the node a page made of two versions would not run.
const CACHING: HeaderValue = HeaderValue::from_static("no-cache");

struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($path:literal, $kind:literal, $source:literal;)*) => {
        &[$(File { path: $path, kind: $kind, text: include_str!(concat!("../assets/", $source)) }),*]
    };
}

/// Under paths of its own: a node may serve both.
const PLAYGROUND: &[File] = files! {
    "/dev", "text/html; charset=utf-8", "dev/index.html";
    "/dev/style.css", "text/css; charset=utf-8", "style.css";
    "/dev/playground.css", "text/css; charset=utf-8", "dev/playground.css";
    "/dev/favicon.svg", "image/svg+xml", "favicon.svg";
    "/dev/playground.js", "text/javascript; charset=utf-8", "dev/playground.js";
    "/dev/player.js", "text/javascript; charset=utf-8", "dev/player.js";
    "/dev/payload.js", "text/javascript; charset=utf-8", "dev/payload.js";
    "/dev/account.js", "text/javascript; charset=utf-8", "app/account.js";
    "/dev/connection.js", "text/javascript; charset=utf-8", "app/connection.js";
    "/dev/elements.js", "text/javascript; charset=utf-8", "app/elements.js";
};

const FILES: &[File] = files! {
    "/", "text/html; charset=utf-8", "index.html";
    "/village", "text/html; charset=utf-8", "village.html";
    "/village.js", "text/javascript; charset=utf-8", "village.js";
    "/style.css", "text/css; charset=utf-8", "style.css";
    "/favicon.svg", "image/svg+xml", "favicon.svg";
    "/app.js", "text/javascript; charset=utf-8", "app.js";
    "/app/account.js", "text/javascript; charset=utf-8", "app/account.js";
    "/app/cluster.js", "text/javascript; charset=utf-8", "app/cluster.js";
    "/app/connection.js", "text/javascript; charset=utf-8", "app/connection.js";
    "/app/controls.js", "text/javascript; charset=utf-8", "app/controls.js";
    "/app/duel.js", "text/javascript; charset=utf-8", "app/duel.js";
    "/app/elements.js", "text/javascript; charset=utf-8", "app/elements.js";
    "/app/inputs.js", "text/javascript; charset=utf-8", "app/inputs.js";
    "/app/lobby.js", "text/javascript; charset=utf-8", "app/lobby.js";
    "/app/painter.js", "text/javascript; charset=utf-8", "app/painter.js";
    "/app/places.js", "text/javascript; charset=utf-8", "app/places.js";
    "/app/scores.js", "text/javascript; charset=utf-8", "app/scores.js";
    "/app/visit.js", "text/javascript; charset=utf-8", "app/visit.js";
    "/app/world.js", "text/javascript; charset=utf-8", "app/world.js";
    "/app/zones.js", "text/javascript; charset=utf-8", "app/zones.js";
};

/// The routes of the demo page, for the client listener.
pub fn routes() -> Router {
    routes_of(FILES)
}

fn routes_of(files: &'static [File]) -> Router {
    files.iter().fold(Router::new(), |router, file| {
        let tag = entity_tag(file.text);
        router.route(
            file.path,
            get(move |headers: HeaderMap| async move { serve(file, &tag, &headers) }),
        )
    })
}

fn serve(file: &'static File, tag: &Arc<str>, headers: &HeaderMap) -> Response {
    let tag_value = HeaderValue::from_str(tag).expect("a quoted base64 text is a header value");
    let common = [
        (ETAG, tag_value),
        (CACHE_CONTROL, CACHING),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if is_known(headers, tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = [(CONTENT_TYPE, HeaderValue::from_static(file.kind))];
    (common, kind, file.text).into_response()
}

/// Whether the browser says that it has this version (RFC 9110, 13.1.2: the comparison is weak, `*` is anything).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn entity_tag(text: &str) -> Arc<str> {
    let hash = digest(&SHA256, text.as_bytes());
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..15])).into()
}

#[cfg(test)]
mod tests;
