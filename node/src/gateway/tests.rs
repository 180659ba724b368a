//! The gateway over real sockets, with a session that only notes what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rookery_protocol::client::{Encoding, Request, ServerMessage, SessionOpen, Tree};
use rookery_protocol::error::Refusal;
use rookery_protocol::{ErrorCode, MatchId, PlayerId, SessionId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;

use super::handshake::Origins;
use super::limits::Rate;
use super::outbox::OutboxLimits;
use super::*;

/// Longer than anything here takes, so that a lost wake-up is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a session was told.
#[derive(Debug, PartialEq)]
enum Told {
    Request(Option<i64>, Request),
    Refused {
        target: String,
        n: Option<u64>,
        retry_ms: u64,
    },
    Closed,
}

/// A host whose token is `good`. While it opens it pushes one frame already, as a match may.
struct Host {
    accepting: AtomicBool,
    told: mpsc::UnboundedSender<Told>,
    outboxes: mpsc::UnboundedSender<Arc<Outbox>>,
}

struct Session {
    told: mpsc::UnboundedSender<Told>,
}

impl SessionHost for Host {
    type Session = Session;

    async fn open(&self, open: SessionOpen, socket: SocketInfo) -> Result<(Arc<Session>, ServerMessage), Refusal> {
        if open.token.as_deref() != Some("good") {
            return Err(Refusal::new(ErrorCode::Unauthenticated, "the token is not good"));
        }
        socket.outbox.say(
            None,
            &ServerMessage::MatchLost {
                target: MatchId::from_u128(1),
            },
        );
        sleep(Duration::from_millis(5)).await;
        let _ = self.outboxes.send(socket.outbox);
        let opened = ServerMessage::SessionOpened {
            session: SessionId::from_u128(1),
            player: PlayerId::from_u128(2),
            node: "n".into(),
            nodes: vec![],
            resume_token: "r".into(),
            resumed: false,
            matches: vec![],
            gone: vec![],
            grace_ms: 0,
            heartbeat_ms: 0,
        };
        Ok((
            Arc::new(Session {
                told: self.told.clone(),
            }),
            opened,
        ))
    }

    fn accepting(&self) -> Result<(), Refusal> {
        match self.accepting.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(Refusal::new(ErrorCode::Draining, "this node drains")),
        }
    }
}

impl SessionHandle for Session {
    fn request(self: &Arc<Self>, id: Option<i64>, request: Request) {
        let _ = self.told.send(Told::Request(id, request));
    }

    fn input_refused(self: &Arc<Self>, target: String, n: Option<u64>, retry_ms: u64) {
        let _ = self.told.send(Told::Refused { target, n, retry_ms });
    }

    fn socket_closed(&self) {
        let _ = self.told.send(Told::Closed);
    }
}

struct Gateway {
    address: SocketAddr,
    host: Arc<Host>,
    told: mpsc::UnboundedReceiver<Told>,
    outboxes: mpsc::UnboundedReceiver<Arc<Outbox>>,
    counters: settings::Counters,
    shutdown: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl Gateway {
    async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told_sender, told) = mpsc::unbounded_channel();
        let (outbox_sender, outboxes) = mpsc::unbounded_channel();
        let host = Arc::new(Host {
            accepting: AtomicBool::new(true),
            told: told_sender,
            outboxes: outbox_sender,
        });
        let routes = Router::new().route("/", get(|| async { "page" })).route(
            "/v1/auth/guest",
            post(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }),
        );
        let counters = settings.counters.clone();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, host.clone(), routes, settings, shutdown.clone()));
        Self {
            address,
            host,
            told,
            outboxes,
            counters,
            shutdown,
            served,
        }
    }

    async fn dial(&self, headers: &[(&'static str, &str)]) -> Result<Client<TcpStream>, SocketError> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        Client::upgrade(stream, headers).await
    }

    async fn json(&self) -> Client<TcpStream> {
        self.dial(&[]).await.unwrap()
    }

    /// A client with an open session, and the outbox that leads to it.
    async fn opened(&mut self) -> (Client<TcpStream>, Arc<Outbox>) {
        let mut client = self.json().await;
        client.open().await;
        let outbox = self.outboxes.recv().await.unwrap();
        (client, outbox)
    }

    async fn told(&mut self) -> Told {
        timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap()
    }

    /// One HTTP request as text; the whole answer as text.
    async fn http(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream
            .write_all(format!("{head}\r\nhost: here\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    }
}

struct Client<IO> {
    socket: WebSocketStream<IO>,
    encoding: Encoding,
    answer: axum::http::HeaderMap,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    async fn upgrade(io: IO, headers: &[(&'static str, &str)]) -> Result<Self, SocketError> {
        let mut request = "ws://localhost/v1/ws".into_client_request()?;
        let mut encoding = Encoding::Json;
        for (name, value) in headers {
            if value.contains("msgpack") {
                encoding = Encoding::MsgPack;
            }
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, response) = tokio_tungstenite::client_async(request, io).await?;
        Ok(Self {
            socket,
            encoding,
            answer: response.headers().clone(),
        })
    }

    async fn send(&mut self, text: &str) {
        let frame = match self.encoding {
            Encoding::Json => Message::text(text),
            Encoding::MsgPack => Message::binary(
                Tree::read(Encoding::Json, text.as_bytes())
                    .unwrap()
                    .write(Encoding::MsgPack),
            ),
        };
        self.socket.send(frame).await.unwrap();
    }

    async fn next(&mut self) -> Option<Message> {
        timeout(PATIENCE, self.socket.next())
            .await
            .expect("something comes")
            .map(|message| message.unwrap())
    }

    /// The next message of the protocol.
    async fn hear(&mut self) -> Tree {
        loop {
            match self.next().await.expect("the socket is open") {
                Message::Text(text) if self.encoding == Encoding::Json => {
                    return Tree::read(Encoding::Json, text.as_bytes()).unwrap();
                }
                Message::Binary(bytes) if self.encoding == Encoding::MsgPack => {
                    return Tree::read(Encoding::MsgPack, &bytes).unwrap();
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn hear_error(&mut self, code: &str, id: Option<i64>) -> Tree {
        let tree = self.hear().await;
        assert_eq!(text(&tree, "type"), "error", "{tree:?}");
        assert_eq!(
            (text(&tree, "code"), tree.get("id").and_then(Tree::as_int)),
            (code, id),
            "{tree:?}"
        );
        tree
    }

    async fn open(&mut self) {
        self.send(r#"{"type":"session.open","id":1,"token":"good"}"#).await;
        let opened = self.hear().await;
        assert_eq!(
            (text(&opened, "type"), opened.get("id")),
            ("session.opened", Some(&Tree::Int(1)))
        );
        assert_eq!(text(&self.hear().await, "type"), "match.lost");
    }

    /// Reads on until the node closes the socket, and says how.
    async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match timeout(PATIENCE, self.socket.next())
                .await
                .expect("the socket is closed")
            {
                Some(Ok(Message::Close(frame))) => {
                    return frame.map(|CloseFrame { code, reason }| (code.into(), reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

fn text<'a>(tree: &'a Tree, key: &str) -> &'a str {
    tree.get(key).and_then(Tree::as_text).unwrap_or_default()
}

fn close_is(close: Option<(u16, String)>, expected: Close) {
    assert_eq!(close, Some((expected.code, expected.reason.to_string())));
}

#[tokio::test]
async fn a_client_without_a_subprotocol_speaks_json_and_one_with_msgpack_speaks_that() {
    let gateway = Gateway::start(Settings::default()).await;
    for protocol in [None, Some("rookery.v1.json"), Some("rookery.v1.msgpack")] {
        let headers: Vec<_> = protocol
            .map(|protocol| ("sec-websocket-protocol", protocol))
            .into_iter()
            .collect();
        let mut client = gateway.dial(&headers).await.unwrap();
        let named = client
            .answer
            .get("sec-websocket-protocol")
            .map(|value| value.to_str().unwrap());
        assert_eq!(named, protocol);
        client.open().await;
        client.send(r#"{"type":"session.ping","id":2,"t":5}"#).await;
        let pong = client.hear().await;
        assert_eq!(
            (text(&pong, "type"), pong.get("t"), pong.get("id")),
            ("session.pong", Some(&Tree::Int(5)), Some(&Tree::Int(2)))
        );
        assert!(pong.get("now").and_then(Tree::as_int).unwrap() > 1_700_000_000_000);
    }
}

#[tokio::test]
async fn compression_is_declined_and_unknown_subprotocols_are_refused() {
    let gateway = Gateway::start(Settings::default()).await;
    let client = gateway
        .dial(&[("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")])
        .await
        .unwrap();
    assert!(!client.answer.contains_key("sec-websocket-extensions"));
    match gateway.dial(&[("sec-websocket-protocol", "graphql-ws")]).await {
        Err(SocketError::Http(response)) => assert_eq!(response.status(), 400),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
    let answer = gateway.http("GET /v1/ws HTTP/1.1").await;
    assert!(
        answer.starts_with("HTTP/1.1 426 ") && answer.contains(r#""code":"bad_message""#),
        "{answer}"
    );
    assert!(gateway.http("POST /v1/ws HTTP/1.1").await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn origins_that_are_not_listed_get_nothing() {
    let settings = Settings {
        origins: Origins::of(["https://game.example".to_string()]),
        ..Settings::default()
    };
    let gateway = Gateway::start(settings).await;
    match gateway.dial(&[("origin", "https://evil.example")]).await {
        Err(SocketError::Http(response)) => {
            assert_eq!(response.status(), 403);
            let body = String::from_utf8(response.body().clone().unwrap_or_default()).unwrap();
            assert!(body.is_empty() || body.contains("forbidden"));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
    gateway.dial(&[("origin", "https://game.example")]).await.unwrap();
    gateway.dial(&[]).await.unwrap();

    let evil = gateway
        .http("POST /v1/auth/guest HTTP/1.1\r\norigin: https://evil.example")
        .await;
    assert!(
        evil.starts_with("HTTP/1.1 403 ") && evil.contains(r#""code":"forbidden""#),
        "{evil}"
    );
    let good = gateway
        .http("POST /v1/auth/guest HTTP/1.1\r\norigin: https://game.example")
        .await;
    assert!(
        good.starts_with("HTTP/1.1 200 ") && good.contains("access-control-allow-origin: https://game.example"),
        "{good}"
    );
    assert!(
        good.contains("127.0.0.1:"),
        "the handler knows the client's address: {good}"
    );
    let preflight =
        "OPTIONS /v1/auth/guest HTTP/1.1\r\norigin: https://game.example\r\naccess-control-request-method: POST";
    let preflight = gateway.http(preflight).await;
    assert!(
        preflight.starts_with("HTTP/1.1 204 ") && preflight.contains("access-control-allow-headers: "),
        "{preflight}"
    );
    assert!(gateway.http("GET / HTTP/1.1").await.ends_with("page"));
    assert!(gateway.http("GET /nothing HTTP/1.1").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn before_the_session_is_open_every_request_is_unauthenticated() {
    let mut gateway = Gateway::start(Settings::default()).await;
    let mut client = gateway.json().await;
    for kind in ["session.ping", "session.close", "party.create"] {
        client.send(&format!(r#"{{"type":"{kind}","id":4}}"#)).await;
        client.hear_error("unauthenticated", Some(4)).await;
    }
    client.send(r#"{"type":"match.send","match":"m","data":1}"#).await;
    client.hear_error("unauthenticated", None).await;
    client.send(r#"{"type":"session.open","id":5,"token":"bad"}"#).await;
    client.hear_error("unauthenticated", Some(5)).await;
    gateway.host.accepting.store(false, Ordering::Relaxed);
    client.send(r#"{"type":"session.open","id":6,"token":"good"}"#).await;
    client.hear_error("draining", Some(6)).await;
    assert!(matches!(gateway.dial(&[]).await, Err(SocketError::Http(response)) if response.status() == 503));
    gateway.host.accepting.store(true, Ordering::Relaxed);
    client.open().await;
    client.send(r#"{"type":"session.open","id":7,"token":"good"}"#).await;
    client.hear_error("bad_message", Some(7)).await;
    // No session heard of any of it.
    client.send(r#"{"type":"match.leave","id":8,"match":"m"}"#).await;
    assert_eq!(
        gateway.told().await,
        Told::Request(Some(8), Request::MatchLeave { target: "m".into() })
    );
}

#[tokio::test]
async fn a_socket_that_does_not_open_in_time_is_closed() {
    let gateway = Gateway::start(Settings {
        open_within: Duration::from_secs(1),
        ..Settings::default()
    })
    .await;
    let mut idle = gateway.json().await;
    let started = Instant::now();
    let mut refused = gateway.json().await;
    refused.send(r#"{"type":"session.open","token":"bad"}"#).await;
    let mut opened = gateway.json().await;
    opened.open().await;
    close_is(idle.closed().await, Close::AUTH_TIMEOUT);
    assert!(started.elapsed() >= Duration::from_millis(900));
    close_is(refused.closed().await, Close::AUTH_TIMEOUT);
    opened.send(r#"{"type":"session.ping"}"#).await;
    assert_eq!(text(&opened.hear().await, "type"), "session.pong");
}

#[tokio::test]
async fn nonsense_is_answered_and_the_twentieth_time_ends_it() {
    let mut gateway = Gateway::start(Settings::default()).await;
    let (mut client, _outbox) = gateway.opened().await;
    for place in 0..18 {
        client.send(&format!(r#"{{"id":{place},"type":"match.join"}}"#)).await;
        client.hear_error("bad_message", Some(place)).await;
    }
    client.socket.send(Message::binary(&b"\x80"[..])).await.unwrap();
    client.hear_error("bad_message", None).await;
    // Unknown types are no nonsense.
    for _ in 0..5 {
        client.send(r#"{"id":50,"type":"match.explode"}"#).await;
        client.hear_error("unknown_type", Some(50)).await;
    }
    client.send("{").await;
    client.hear_error("bad_message", None).await;
    close_is(client.closed().await, Close::RATE_LIMITED);
    assert_eq!(gateway.told().await, Told::Closed);
}

#[tokio::test]
async fn text_on_a_messagepack_socket_is_the_wrong_kind() {
    let gateway = Gateway::start(Settings::default()).await;
    let mut client = gateway
        .dial(&[("sec-websocket-protocol", "rookery.v1.msgpack")])
        .await
        .unwrap();
    client
        .socket
        .send(Message::text(r#"{"type":"session.open","id":1,"token":"good"}"#))
        .await
        .unwrap();
    client.hear_error("bad_message", None).await;
    client.open().await;
}

#[tokio::test]
async fn a_message_over_the_limit_closes_the_socket_whole_or_in_parts() {
    let gateway = Gateway::start(Settings {
        frame_bytes_max: 1000,
        ..Settings::default()
    })
    .await;
    let mut client = gateway.json().await;
    client.open().await;
    client.socket.send(Message::text(" ".repeat(1000))).await.unwrap();
    client.hear_error("bad_message", None).await;
    // Far more than fits on the way, so that a socket closed without hearing the client out would be reset under it.
    client.socket.send(Message::text(" ".repeat(8_000_000))).await.unwrap();
    client.hear_error("too_large", None).await;
    close_is(client.closed().await, Close::TOO_LARGE);

    let mut client = gateway.json().await;
    let part = |last| Message::Frame(Frame::message(vec![b' '; 600], OpCode::Data(Data::Text), last));
    client.socket.send(part(false)).await.unwrap();
    let rest = Frame::message(vec![b' '; 600], OpCode::Data(Data::Continue), true);
    client.socket.send(Message::Frame(rest)).await.unwrap();
    close_is(client.closed().await, Close::TOO_LARGE);
}

#[tokio::test]
async fn pings_are_answered_and_a_listening_client_outlives_many_heartbeats() {
    let settings = Settings {
        heartbeat: Duration::from_millis(300),
        ..Settings::default()
    };
    let mut gateway = Gateway::start(settings).await;
    let (mut client, _outbox) = gateway.opened().await;
    client
        .socket
        .send(Message::Ping(Bytes::from_static(b"hello")))
        .await
        .unwrap();
    let started = Instant::now();
    let (mut pings, mut pongs) = (0, 0);
    while started.elapsed() < Duration::from_millis(2000) {
        match client.next().await.expect("the socket stays open") {
            Message::Ping(_) => pings += 1,
            Message::Pong(data) => {
                assert_eq!(data, "hello");
                pongs += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(pings >= 4, "{pings}");
    assert_eq!(pongs, 1);
}

#[tokio::test]
async fn a_silent_client_is_dropped_after_two_heartbeats() {
    let settings = Settings {
        heartbeat: Duration::from_millis(100),
        ..Settings::default()
    };
    let mut gateway = Gateway::start(settings).await;
    let (client, outbox) = gateway.opened().await;
    let started = Instant::now();
    // It is not read from, so it answers no pings.
    assert_eq!(gateway.told().await, Told::Closed);
    assert!(started.elapsed() >= Duration::from_millis(150) && started.elapsed() < Duration::from_secs(5));
    assert!(!outbox.is_open());
    drop(client);
}

#[tokio::test]
async fn inputs_over_the_rate_are_refused_and_the_session_is_told_of_each() {
    let settings = Settings {
        inputs: Rate {
            per_second: 1,
            burst: 3,
        },
        control: Rate {
            per_second: 1,
            burst: 5,
        },
        ..Settings::default()
    };
    let mut gateway = Gateway::start(settings).await;
    let (mut client, _outbox) = gateway.opened().await;
    for n in 1..=6 {
        client
            .send(&format!(r#"{{"type":"match.send","match":"m","data":0,"n":{n}}}"#))
            .await;
    }
    for expected in 1..=3 {
        match gateway.told().await {
            Told::Request(None, Request::MatchSend { n, .. }) => assert_eq!(n, Some(expected)),
            other => panic!("{other:?}"),
        }
    }
    for expected in 4..=6 {
        match gateway.told().await {
            Told::Refused { target, n, retry_ms } => {
                assert_eq!((target.as_str(), n), ("m", Some(expected)));
                assert!((1..=1000).contains(&retry_ms));
            }
            other => panic!("{other:?}"),
        }
    }
    let refusal = client.hear_error("rate_limited", None).await;
    assert!(
        refusal
            .get("details")
            .and_then(|details| details.get("retry_ms"))
            .and_then(Tree::as_int)
            .unwrap()
            >= 1
    );
    // With a number each refusal is answered, and the next thing heard shows that there was one push only.
    for id in [7, 8] {
        client
            .send(&format!(
                r#"{{"type":"match.send","match":"m","data":0,"n":4,"id":{id}}}"#
            ))
            .await;
        client.hear_error("rate_limited", Some(id)).await;
    }
    // Control requests have a limit of their own; one of five went to session.open.
    for id in 10..14 {
        client.send(&format!(r#"{{"type":"session.ping","id":{id}}}"#)).await;
        assert_eq!(text(&client.hear().await, "type"), "session.pong");
    }
    client.send(r#"{"type":"session.ping","id":14}"#).await;
    client.hear_error("rate_limited", Some(14)).await;
    assert_eq!(
        (
            gateway.counters.rate_limited_inputs.get(),
            gateway.counters.rate_limited_control.get()
        ),
        (5, 1)
    );
    sleep(Duration::from_millis(1050)).await;
    client
        .send(r#"{"type":"match.send","match":"m","data":0,"n":4,"id":15}"#)
        .await;
    let told = loop {
        match gateway.told().await {
            Told::Refused { .. } => {}
            told => break told,
        }
    };
    assert!(
        matches!(told, Told::Request(Some(15), Request::MatchSend { n: Some(4), .. })),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_frames_each_way_keep_their_order() {
    let settings = Settings {
        inputs: Rate {
            per_second: 1_000_000,
            burst: 1_000_000,
        },
        ..Settings::default()
    };
    let mut gateway = Gateway::start(settings).await;
    let (mut client, outbox) = gateway.opened().await;
    let pusher = std::thread::spawn(move || {
        for seq in 1..=5000_u64 {
            // The bound is a thousand frames; a session waits for its gateway's room as this thread does.
            while seq % 500 == 0 && outbox.waiting() > 400 {
                std::thread::sleep(Duration::from_millis(1));
            }
            outbox.say(
                None,
                &ServerMessage::MatchResend {
                    target: MatchId::from_u128(1),
                    n: seq,
                },
            );
        }
    });
    for n in 1..=5000 {
        let frame = Message::text(format!(r#"{{"type":"match.send","match":"m","data":0,"n":{n}}}"#));
        client.socket.feed(frame).await.unwrap();
        if n % 1000 == 0 {
            client.socket.flush().await.unwrap();
        }
    }
    for expected in 1..=5000 {
        assert_eq!(client.hear().await.get("n").and_then(Tree::as_int), Some(expected));
    }
    for expected in 1..=5000 {
        match gateway.told().await {
            Told::Request(None, Request::MatchSend { n, .. }) => assert_eq!(n, Some(expected)),
            other => panic!("{other:?}"),
        }
    }
    pusher.join().unwrap();
    drop(client);
    assert_eq!(gateway.told().await, Told::Closed);
    assert_eq!(
        (gateway.counters.messages_in.get(), gateway.counters.slow_closed.get()),
        (5001, 0)
    );
    assert_eq!(gateway.counters.messages_out.get(), 5002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_without_reading_is_read_from_again_when_it_reads() {
    const PINGS: i64 = 100_000;
    let settings = Settings {
        control: Rate {
            per_second: 10_000_000,
            burst: 10_000_000,
        },
        outbox: OutboxLimits {
            frames: 256,
            ..OutboxLimits::default()
        },
        ..Settings::default()
    };
    let mut gateway = Gateway::start(settings).await;
    let (client, outbox) = gateway.opened().await;
    let (mut sink, mut stream) = client.socket.split();
    let sender = tokio::spawn(async move {
        for id in 0..PINGS {
            let frame = format!(r#"{{"type":"session.ping","id":{id},"t":0.12345678901234567}}"#);
            sink.feed(Message::text(frame)).await.unwrap();
        }
        sink.flush().await.unwrap();
        sink
    });
    // Until it is full everywhere: in the socket's buffers, and then before it.
    sleep(Duration::from_millis(700)).await;
    for expected in 0..PINGS {
        let message = timeout(PATIENCE, stream.next())
            .await
            .expect("it goes on")
            .unwrap()
            .unwrap();
        let Message::Text(message) = message else {
            panic!("{message:?}")
        };
        let pong = Tree::read(Encoding::Json, message.as_bytes()).unwrap();
        assert_eq!(pong.get("id").and_then(Tree::as_int), Some(expected));
    }
    let _sink = sender.await.unwrap();
    assert!(outbox.is_open());
    assert_eq!(gateway.counters.slow_closed.get(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_told_why() {
    let mut gateway = Gateway::start(Settings::default()).await;
    let (mut client, outbox) = gateway.opened().await;
    let frame = Bytes::from(format!("\"{}\"", "x".repeat(60_000)));
    let pushing = Instant::now();
    while outbox.is_open() {
        assert!(pushing.elapsed() < PATIENCE);
        outbox.push(frame.clone());
        sleep(Duration::from_millis(1)).await;
    }
    close_is(client.closed().await, Close::SLOW_CONSUMER);
    assert_eq!(gateway.counters.slow_closed.get(), 1);
    assert_eq!(gateway.told().await, Told::Closed);
}

#[tokio::test]
async fn states_that_a_slow_client_missed_are_skipped() {
    let mut gateway = Gateway::start(Settings::default()).await;
    let (mut client, outbox) = gateway.opened().await;
    let value = |value: usize| Bytes::from(format!(r#"{{"value":{value},"fill":"{}"}}"#, "x".repeat(60_000)));
    for place in 0..1000 {
        outbox.push_latest(MatchId::from_u128(1), "k".into(), value(place));
        tokio::task::yield_now().await;
    }
    assert!(outbox.is_open());
    let mut heard = Vec::new();
    while heard.last() != Some(&999) {
        heard.push(client.hear().await.get("value").and_then(Tree::as_int).unwrap());
    }
    assert!(heard.is_sorted(), "{heard:?}");
    assert!(heard.len() < 1000, "nothing was skipped, so the socket was never full");
}

#[tokio::test]
async fn what_was_pushed_before_a_close_is_heard_first() {
    let mut gateway = Gateway::start(Settings::default()).await;
    let (mut client, outbox) = gateway.opened().await;
    outbox.say(None, &ServerMessage::SessionReplaced);
    outbox.close(Close::REPLACED);
    assert_eq!(text(&client.hear().await, "type"), "session.replaced");
    close_is(client.closed().await, Close::REPLACED);
    assert_eq!(gateway.told().await, Told::Closed);
    outbox.say(None, &ServerMessage::SessionReplaced);
}

#[tokio::test]
async fn a_clients_close_is_answered_and_the_session_hears_of_it_once() {
    let mut gateway = Gateway::start(Settings::default()).await;
    let (mut client, _outbox) = gateway.opened().await;
    client
        .socket
        .close(Some(CloseFrame {
            code: 1000.into(),
            reason: "bye".into(),
        }))
        .await
        .unwrap();
    assert_eq!(client.closed().await, Some((1000, "bye".to_string())));
    assert_eq!(gateway.told().await, Told::Closed);
    sleep(Duration::from_millis(50)).await;
    assert!(gateway.told.try_recv().is_err());
}

#[tokio::test]
async fn a_stop_closes_every_socket_and_then_returns() {
    let mut gateway = Gateway::start(Settings::default()).await;
    let (mut client, _outbox) = gateway.opened().await;
    let mut unopened = gateway.json().await;
    let _half_a_request = TcpStream::connect(gateway.address).await.unwrap();
    gateway.shutdown.cancel();
    close_is(client.closed().await, Close::GOING_AWAY);
    close_is(unopened.closed().await, Close::GOING_AWAY);
    timeout(Duration::from_secs(4), gateway.served)
        .await
        .expect("it stops")
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(gateway.address).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_bound_are_turned_away_until_there_is_room() {
    let mut gateway = Gateway::start(Settings {
        connections_max: 2,
        ..Settings::default()
    })
    .await;
    let (first, _outbox) = gateway.opened().await;
    let _second = gateway.json().await;
    assert!(gateway.dial(&[]).await.is_err());
    drop(first);
    assert_eq!(gateway.told().await, Told::Closed);
    let trying = Instant::now();
    while gateway.dial(&[]).await.is_err() {
        assert!(trying.elapsed() < PATIENCE);
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn clients_are_served_over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let tls = tls::server_config(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    let gateway = Gateway::start(Settings {
        tls: Some(tls),
        ..Settings::default()
    })
    .await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    let mut client = Client::upgrade(stream, &[]).await.unwrap();
    client.open().await;

    let plain = gateway.dial(&[]).await;
    assert!(plain.is_err());
    assert!(matches!(
        tls::server_config(b"", b""),
        Err(tls::TlsError::NoCertificate)
    ));
    assert!(tls::server_config(made.cert.pem().as_bytes(), b"no key").is_err());
}

/// The whole of an idle connection is budgeted at 10 KiB, the session's part and 4 KiB of read buffer among it.
#[tokio::test]
async fn a_connections_task_is_small() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let settings = Arc::new(Settings::default());
    let socket = connection::socket(stream, &Bytes::new(), &settings).await;
    let (told, _) = mpsc::unbounded_channel();
    let (outboxes, _) = mpsc::unbounded_channel();
    let host = Arc::new(Host {
        accepting: AtomicBool::new(true),
        told,
        outboxes,
    });
    let outbox = Arc::new(Outbox::new(
        Encoding::Json,
        OutboxLimits::default(),
        settings.counters.slow_closed.clone(),
    ));
    let peer = listener.local_addr().unwrap();
    let task = connection::run(
        socket,
        host,
        settings,
        SocketInfo {
            peer,
            encoding: Encoding::Json,
            outbox,
        },
    );
    let size = std::mem::size_of_val(&task);
    assert!(size <= 2048, "{size} bytes");
}
