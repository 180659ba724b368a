//! A WebSocket as a client holds it, and nothing above it: any bytes may be sent, and what comes back is read when asked for.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rookery_protocol::client::Encoding;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::PATIENCE;

/// The subprotocol's name for an encoding.
fn subprotocol(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "rookery.v1.json",
        Encoding::MsgPack => "rookery.v1.msgpack",
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The close code; none if the connection just broke.
    pub code: Option<u16>,
    pub reason: String,
}

/// What a node sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Text(Bytes),
    Binary(Bytes),
    Closed(Closing),
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    encoding: Encoding,
}

impl Socket {
    /// Connects with the subprotocol of the encoding.
    pub async fn connect(address: SocketAddr, encoding: Encoding) -> Self {
        let protocol = Some(subprotocol(encoding));
        Self::try_connect(address, encoding, protocol, &[])
            .await
            .expect("the node takes sockets")
    }

    /// Connects with any subprotocol and headers.
    ///
    /// # Errors
    /// The node refused the handshake.
    pub async fn try_connect(
        address: SocketAddr,
        encoding: Encoding,
        protocol: Option<&str>,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<Error>> {
        let mut request = format!("ws://{address}/v1/ws").into_client_request()?;
        let protocol = protocol.map(|protocol| ("sec-websocket-protocol", protocol));
        for (name, value) in protocol.iter().chain(headers) {
            let value = value.parse().map_err(|_| Error::Utf8(format!("{name}: {value}")))?;
            request.headers_mut().insert(*name, value);
        }
        let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
        stream.set_nodelay(true).map_err(Error::Io)?;
        let (stream, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Self { stream, encoding })
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Sends one frame of the kind that the encoding uses.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), Box<Error>> {
        let message = message_of(self.encoding, frame)?;
        Ok(self.stream.send(message).await?)
    }

    /// Sends any WebSocket message.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn send_message(&mut self, message: Message) -> Result<(), Box<Error>> {
        Ok(self.stream.send(message).await?)
    }

    /// The next frame that is not a ping or a pong.
    ///
    /// # Panics
    /// When none comes within the patience of tests.
    pub async fn next(&mut self) -> Frame {
        self.next_within(PATIENCE)
            .await
            .expect("the node says something or closes")
    }

    /// As [`Socket::next`]; none when nothing comes in time.
    pub async fn next_within(&mut self, within: Duration) -> Option<Frame> {
        tokio::time::timeout(within, self.read()).await.ok()
    }

    async fn read(&mut self) -> Frame {
        loop {
            if let Some(frame) = frame_of(self.stream.next().await) {
                return frame;
            }
        }
    }

    /// The two directions, for a client that sends and hears at the same time.
    pub(super) fn split(self) -> (Sender, Receiver) {
        let (sink, stream) = self.stream.split();
        (
            Sender {
                sink,
                encoding: self.encoding,
            },
            Receiver { stream },
        )
    }
}

fn message_of(encoding: Encoding, frame: Bytes) -> Result<Message, Box<Error>> {
    Ok(match encoding {
        Encoding::Json => Message::Text(Utf8Bytes::try_from(frame).map_err(|error| Error::Utf8(error.to_string()))?),
        Encoding::MsgPack => Message::Binary(frame),
    })
}

/// What a read of the stream means; none for pings and pongs.
fn frame_of(read: Option<Result<Message, Error>>) -> Option<Frame> {
    let broken = |reason: String| Some(Frame::Closed(Closing { code: None, reason }));
    match read {
        Some(Ok(Message::Text(text))) => Some(Frame::Text(text.into())),
        Some(Ok(Message::Binary(bytes))) => Some(Frame::Binary(bytes)),
        Some(Ok(Message::Close(Some(close)))) => Some(Frame::Closed(Closing {
            code: Some(close.code.into()),
            reason: close.reason.to_string(),
        })),
        Some(Ok(Message::Close(None))) => broken("no code".into()),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => None,
        Some(Err(error)) => broken(error.to_string()),
        None => broken("end of stream".into()),
    }
}

/// The way to the node.
#[derive(Debug)]
pub(super) struct Sender {
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    encoding: Encoding,
}

impl Sender {
    pub(super) async fn send(&mut self, frame: Bytes) -> Result<(), Box<Error>> {
        Ok(self.sink.send(message_of(self.encoding, frame)?).await?)
    }
}

/// The way from the node.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: SplitStream<WebSocketStream<TcpStream>>,
}

impl Receiver {
    pub(super) async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = frame_of(self.stream.next().await) {
                return frame;
            }
        }
    }
}
