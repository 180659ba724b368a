//! One socket of `rookery call`: a guest's account over HTTP, the WebSocket beside it, and a task that hands on what comes. It
//! does not read frames, and does not come back once it is closed.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// Requests that wait for the socket; they are typed or written one after the other.
const OUT_MAX: usize = 16;
/// From `session.close` to the end of the connection.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

pub(super) enum Heard {
    /// As it came.
    Frame(String),
    Closed(String),
}

/// The sending end. The task ends with the connection, or when this is dropped.
pub(super) struct Socket {
    out: mpsc::Sender<String>,
    task: JoinHandle<()>,
}

/// Makes an account, unless there is a token already, and connects. What comes is handed on as the session `index`.
pub(super) async fn connect(
    url: &str,
    name: &str,
    token: Option<String>,
    within: Duration,
    index: usize,
    heard: mpsc::Sender<(usize, Heard)>,
) -> anyhow::Result<(Socket, String)> {
    let host = host(url)?;
    let token = match token {
        Some(token) => token,
        None => {
            let (host, name) = (host.clone(), name.to_owned());
            tokio::task::spawn_blocking(move || guest(&host, &name, within)).await??
        }
    };
    let connecting = async {
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{host}/v1/ws").into_client_request()?;
        let protocol = HeaderValue::from_static("rookery.v1.json");
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        anyhow::Ok(socket)
    };
    let socket = tokio::time::timeout(within, connecting)
        .await
        .with_context(|| format!("no answer from {url}"))?
        .with_context(|| format!("cannot connect to {url}; is a node running, and is this its client listener?"))?;
    let (out, requests) = mpsc::channel(OUT_MAX);
    let task = tokio::spawn(carry(socket, requests, index, heard));
    Ok((Socket { out, task }, token))
}

impl Socket {
    /// Sends a frame. When the connection is gone, its end has been handed on and says why.
    pub(super) async fn send(&self, text: String) {
        let _ = self.out.send(text).await;
    }

    /// Lets what was sent leave, and waits for the other side to close.
    pub(super) async fn finish(self) {
        drop(self.out);
        let _ = tokio::time::timeout(FINISH_WITHIN, self.task).await;
    }
}

async fn carry(
    mut socket: WebSocketStream<TcpStream>,
    mut requests: mpsc::Receiver<String>,
    index: usize,
    heard: mpsc::Sender<(usize, Heard)>,
) {
    let mut open = true;
    let why = loop {
        tokio::select! {
            request = requests.recv(), if open => match request {
                Some(text) => {
                    if let Err(error) = socket.send(Message::text(text)).await {
                        break error.to_string();
                    }
                }
                None => open = false,
            },
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    // Nobody listens to a run that is over.
                    if heard.try_send((index, Heard::Frame(text.to_string()))).is_err_and(|error| is_full(&error)) {
                        break "frames come faster than they can be printed".to_owned();
                    }
                }
                Some(Ok(Message::Close(close))) => {
                    break close.map_or_else(|| "no reason".to_owned(), |close| format!("{} {}", close.code, close.reason));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break error.to_string(),
                None => break "the connection ended".to_owned(),
            },
        }
    };
    let _ = heard.try_send((index, Heard::Closed(why)));
}

fn is_full<T>(error: &mpsc::error::TrySendError<T>) -> bool {
    matches!(error, mpsc::error::TrySendError::Full(_))
}

/// The URL leads to no client listener; nobody was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadUrl {
    #[error("`{0}://` is not spoken here; give ws://host:port of a node's client listener")]
    Scheme(String),
    #[error("`{0}` has no host and port; give ws://host:port of a node's client listener")]
    Host(String),
}

/// `host:port` of a URL as people write it.
fn host(url: &str) -> Result<String, BadUrl> {
    let rest = match url.split_once("://") {
        Some(("ws" | "http", rest)) => rest,
        Some((scheme, _)) => return Err(BadUrl::Scheme(scheme.into())),
        None => url,
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.starts_with(':') {
        return self::host(&format!("127.0.0.1{host}"));
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.parse::<u16>().is_ok() => Ok(host.to_owned()),
        _ => Err(BadUrl::Host(url.into())),
    }
}

fn guest(host: &str, name: &str, within: Duration) -> anyhow::Result<String> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(within))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let account: Value = agent
        .post(format!("http://{host}/v1/auth/guest"))
        .send_json(json!({ "name": name }))
        .with_context(|| format!("no answer from {host}; is a node running, and is this its client listener?"))?
        .body_mut()
        .read_json()?;
    match account["access_token"].as_str() {
        Some(token) => Ok(token.to_owned()),
        None => bail!("{host} makes no guest: {account}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for url in [
            "ws://127.0.0.1:7700",
            "http://127.0.0.1:7700/",
            "127.0.0.1:7700",
            "ws://127.0.0.1:7700/v1/ws",
        ] {
            assert_eq!(host(url).unwrap(), "127.0.0.1:7700", "{url}");
        }
        assert_eq!(host(":7700").unwrap(), "127.0.0.1:7700");
        for url in ["", "wss://a:1", "ws://a", "a:", ":", "a:70000"] {
            assert!(host(url).is_err(), "{url}");
        }
    }
}
