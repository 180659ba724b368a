//! What an upgrade request must say, and what it is answered. No IO: headers in, verdict out. Compression is not negotiated:
//! an offer of it is simply not taken up.

use axum::http::{HeaderMap, StatusCode, header};
use rookery_protocol::ErrorCode;
use rookery_protocol::client::Encoding;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const JSON: &str = "rookery.v1.json";
const MSGPACK: &str = "rookery.v1.msgpack";

/// Which browser origins are served. Requests without an origin do not come from a browser's page and are not held to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    #[default]
    Any,
    /// Scheme, host and port, as browsers write them.
    Only(Vec<String>),
}

impl Origins {
    /// Reads `listen.origins`: `*` among them allows all.
    pub fn of(list: impl IntoIterator<Item = String>) -> Self {
        let list: Vec<String> = list
            .into_iter()
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
            .collect();
        match list.iter().any(|origin| origin == "*") {
            true => Self::Any,
            false => Self::Only(list),
        }
    }

    /// Whether a request with these headers may be served.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        match (self, headers.get(header::ORIGIN)) {
            (Self::Any, _) | (Self::Only(_), None) => true,
            (Self::Only(list), Some(origin)) => list
                .iter()
                .any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes())),
        }
    }
}

/// An upgrade that may go on.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    pub encoding: Encoding,
    /// The subprotocol to name in the answer; none when the client offered none.
    pub protocol: Option<&'static str>,
    /// `Sec-WebSocket-Accept`.
    pub accept_key: String,
}

/// An upgrade that is refused, before any WebSocket exists.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    pub code: ErrorCode,
    pub message: &'static str,
}

/// Judges the headers of a `GET /v1/ws`.
pub fn negotiate(headers: &HeaderMap, origins: &Origins) -> Result<Accepted, Refused> {
    let refuse = |status, message| {
        Err(Refused {
            status,
            code: ErrorCode::BadMessage,
            message,
        })
    };
    if !has_token(headers, header::CONNECTION, "upgrade") || !has_token(headers, header::UPGRADE, "websocket") {
        return refuse(StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket only");
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return refuse(StatusCode::UPGRADE_REQUIRED, "the WebSocket version must be 13");
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return refuse(StatusCode::BAD_REQUEST, "sec-websocket-key is missing");
    };
    if !origins.admit(headers) {
        return Err(Refused {
            status: StatusCode::FORBIDDEN,
            code: ErrorCode::Forbidden,
            message: "this origin is not served here",
        });
    }
    let accept_key = derive_accept_key(key.as_bytes());
    let mut offered = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok(Accepted {
            encoding: Encoding::Json,
            protocol: None,
            accept_key,
        });
    }
    // The first that we know: the client's order is its preference.
    let known = offered.find_map(|protocol| match protocol {
        JSON => Some((Encoding::Json, JSON)),
        MSGPACK => Some((Encoding::MsgPack, MSGPACK)),
        _ => None,
    });
    match known {
        Some((encoding, protocol)) => Ok(Accepted {
            encoding,
            protocol: Some(protocol),
            accept_key,
        }),
        None => refuse(
            StatusCode::BAD_REQUEST,
            "the subprotocol must be rookery.v1.json or rookery.v1.msgpack",
        ),
    }
}

fn tokens(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests;
