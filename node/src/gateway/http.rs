//! The client listener: accepts sockets, speaks HTTP/1.1 on them, and turns a `GET /v1/ws` into a WebSocket on the bare stream,
//! so that nothing of HTTP stays with an idle connection. All other paths belong to the routes that the caller gives; this file
//! holds them to `listen.origins` and to a deadline, and knows none of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use rookery_protocol::ErrorCode;
use rookery_protocol::error::Refusal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::{self, SessionHost, SocketInfo};
use super::handshake;
use super::outbox::{Close, Outbox};
use super::settings::Settings;

/// The head of a request, and a TLS handshake, must have come within this.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// A request, its body and its answer must be done within this. Sockets are not bound by it.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Accepting fails when file descriptors run out; trying again at once would only burn the processor.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long HTTP requests under way may still take when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// What a preflight's answer is good for.
const PREFLIGHT_SECONDS: &str = "600";

/// Serves clients until `shutdown`, then closes every socket with 1001 and returns when all are closed. Handlers among `routes`
/// find the client's address as `ConnectInfo<SocketAddr>`.
pub async fn serve<H: SessionHost>(
    listener: TcpListener,
    host: Arc<H>,
    routes: Router,
    settings: Settings,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(settings.connections_max.min(Semaphore::MAX_PERMITS)));
    let tls = settings.tls.clone().map(TlsAcceptor::from);
    let sockets = Sockets::new(settings.counters.connections.clone());
    let server = Arc::new(Server {
        host,
        settings: Arc::new(settings),
        routes: TowerToHyperService::new(routes.fallback(nothing_here)),
        sockets,
        tasks: TaskTracker::new(),
        stop: shutdown.clone(),
    });
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            // Said once for each time that it fills up, not once a client.
            if !full {
                warn!(%peer, "clients are turned away: as many connections as allowed are open");
            }
            full = true;
            continue;
        };
        full = false;
        // Frames are written in batches already; waiting for more would only add delay.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "client gone before it was served");
            continue;
        }
        let client = Client {
            peer,
            _permit: Arc::new(permit),
        };
        server
            .tasks
            .spawn(Arc::clone(&server).accepted(stream, tls.clone(), client));
    }
    drop(listener);
    server.sockets.close_all();
    server.tasks.close();
    if timeout(STOP_WITHIN, server.tasks.wait()).await.is_err() {
        warn!(
            connections = server.tasks.len(),
            "stopped with client connections still open"
        );
    }
    Ok(())
}

struct Server<H> {
    host: Arc<H>,
    settings: Arc<Settings>,
    routes: TowerToHyperService<Router>,
    sockets: Sockets,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One accepted stream; its place among `connections_max` is free again when the last clone is gone.
#[derive(Clone)]
struct Client {
    peer: SocketAddr,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl<H: SessionHost> Server<H> {
    async fn accepted(self: Arc<Self>, stream: TcpStream, tls: Option<TlsAcceptor>, client: Client) {
        let Some(tls) = tls else {
            return self.speak_http(stream, client).await;
        };
        match timeout(HEADER_WITHIN, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.speak_http(stream, client).await,
            Ok(Err(error)) => debug!(peer = %client.peer, %error, "TLS handshake failed"),
            Err(_) => debug!(peer = %client.peer, "TLS handshake timed out"),
        }
    }

    async fn speak_http<IO>(self: Arc<Self>, io: IO, client: Client)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stop = self.stop.clone();
        let peer = client.peer;
        let service = PerConnection {
            server: self,
            client,
            io: std::marker::PhantomData::<fn(IO)>,
        };
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_WITHIN)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        let mut served = std::pin::pin!(served);
        let outcome = tokio::select! {
            outcome = served.as_mut() => outcome,
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = outcome {
            debug!(%peer, %error, "HTTP connection ended early");
        }
    }

    /// Answers `GET /v1/ws` and, when the answer is 101, starts the socket's task, which takes the stream when HTTP lets go of it.
    fn upgrade<IO>(self: &Arc<Self>, mut request: Request<Incoming>, client: &Client) -> Response<Body>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if request.method() != Method::GET {
            return refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                &Refusal::new(ErrorCode::BadMessage, "only GET is served here"),
            );
        }
        let accepted = match handshake::negotiate(request.headers(), &self.settings.origins) {
            Ok(accepted) => accepted,
            Err(refused) => return refusal(refused.status, &Refusal::new(refused.code, refused.message)),
        };
        if let Err(refused) = self.host.accepting() {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, &refused);
        }
        let affinity = self.settings.affinity.as_ref();
        let cookie = affinity.and_then(|affinity| affinity.answer(request.headers()));
        let upgrade = hyper::upgrade::on(&mut request);
        let server = Arc::clone(self);
        let client = client.clone();
        self.tasks.spawn(async move {
            let Ok(Ok(upgraded)) = timeout(HEADER_WITHIN, upgrade).await else {
                return;
            };
            let socket = {
                let Ok(parts) = upgraded.downcast::<TokioIo<IO>>() else {
                    unreachable!("the stream comes back as what hyper was given")
                };
                // `read_buf` keeps all of hyper's buffer alive, even when it is empty: it must not live as long as the socket.
                connection::socket(parts.io.into_inner(), &parts.read_buf, &server.settings).await
            };
            let Server { host, settings, .. } = &*server;
            let outbox = Arc::new(Outbox::new(
                accepted.encoding,
                settings.outbox,
                settings.counters.slow_closed.clone(),
            ));
            let listed = server.sockets.list(&outbox);
            if server.stop.is_cancelled() {
                outbox.close(Close::GOING_AWAY);
            }
            let info = SocketInfo {
                peer: client.peer,
                encoding: accepted.encoding,
                outbox,
            };
            connection::run(socket, Arc::clone(host), Arc::clone(settings), info).await;
            drop((listed, client));
        });
        let mut response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, accepted.accept_key);
        if let Some(protocol) = accepted.protocol {
            response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        if let Some(cookie) = cookie {
            response = response.header(header::SET_COOKIE, cookie);
        }
        response.body(Body::empty()).expect("all headers are plain text")
    }
}

/// The service that hyper calls for the requests of one stream of type `IO`.
struct PerConnection<H, IO> {
    server: Arc<Server<H>>,
    client: Client,
    io: std::marker::PhantomData<fn(IO)>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, std::convert::Infallible>> + Send>>;

impl<H, IO> Service<Request<Incoming>> for PerConnection<H, IO>
where
    H: SessionHost,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        if request.uri().path() == "/v1/ws" {
            let response = self.server.upgrade::<IO>(request, &self.client);
            return Box::pin(std::future::ready(Ok(response)));
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let api = request.uri().path().starts_with("/v1/");
        if api && !self.server.settings.origins.admit(request.headers()) {
            let refused = Refusal::new(ErrorCode::Forbidden, "this origin is not served here");
            return Box::pin(std::future::ready(Ok(refusal(StatusCode::FORBIDDEN, &refused))));
        }
        let origin = origin.filter(|_| api);
        if let Some(origin) = &origin
            && request.method() == Method::OPTIONS
        {
            return Box::pin(std::future::ready(Ok(preflight(origin))));
        }
        request.extensions_mut().insert(ConnectInfo(self.client.peer));
        let answer = self.server.routes.call(request);
        Box::pin(async move {
            let Ok(answered) = timeout(ANSWER_WITHIN, answer).await else {
                let late = Refusal::new(ErrorCode::Unavailable, "this took too long");
                return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, &late));
            };
            let Ok(mut response) = answered;
            if let Some(origin) = &origin {
                share(&mut response, origin);
            }
            Ok(response)
        })
    }
}

/// Lets the page of this origin, which was admitted, read the answer.
fn share(response: &mut Response<Body>, origin: &HeaderValue) {
    response
        .headers_mut()
        .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    response
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("origin"));
}

fn preflight(origin: &HeaderValue) -> Response<Body> {
    let mut response = Response::builder()
        .status(StatusCode::NO_CONTENT)
        .header(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST")
        .header(header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type")
        .header(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS)
        .body(Body::empty())
        .expect("all headers are plain text");
    share(&mut response, origin);
    response
}

async fn nothing_here() -> Response<Body> {
    let refused = Refusal::new(ErrorCode::UnknownType, "there is nothing at this path");
    refusal(StatusCode::NOT_FOUND, &refused)
}

/// An error as the contract has it on HTTP: `{code, message, details}`.
fn refusal(status: StatusCode, refusal: &Refusal) -> Response<Body> {
    let body = serde_json::to_vec(refusal).expect("a refusal is plain values");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::UPGRADE_REQUIRED {
        response
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}

/// The sockets that are open, to be closed all at once. A token that each task polls would be one lock for all of them.
struct Sockets {
    next: AtomicU64,
    open: Arc<Mutex<BTreeMap<u64, Weak<Outbox>>>>,
    count: IntGauge,
}

/// A socket's place in the list, until dropped.
struct Listed {
    number: u64,
    open: Arc<Mutex<BTreeMap<u64, Weak<Outbox>>>>,
    count: IntGauge,
}

impl Sockets {
    fn new(count: IntGauge) -> Self {
        Self {
            next: AtomicU64::new(0),
            open: Arc::default(),
            count,
        }
    }

    fn list(&self, outbox: &Arc<Outbox>) -> Listed {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&self.open);
        open.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, Arc::downgrade(outbox));
        self.count.inc();
        Listed {
            number,
            open,
            count: self.count.clone(),
        }
    }

    fn close_all(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        open.values()
            .filter_map(Weak::upgrade)
            .for_each(|outbox| outbox.close(Close::GOING_AWAY));
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.count.dec();
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}
