//! One socket's task: frames in, requests out; the outbox in, frames out; and the clock of both. It counts and limits, answers
//! what needs no session (pings, nonsense, what is not served), and leaves the rest to the session behind [`SessionHandle`].
//!
//! A turn reads all that has come, up to a bound, then writes all that waits and flushes once: a busy socket costs one write call
//! for many frames. A client that does not read is not read from either, once much waits for it. An idle socket keeps its
//! buffers' first pages, one timer and nothing of HTTP.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream};
use rookery_protocol::ErrorCode;
use rookery_protocol::client::{
    self, BadFrame, ChannelRequest, Encoding, Envelope, Request, ServerMessage, SessionOpen,
};
use rookery_protocol::error::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::limits::{Class, Limits, Refused};
use super::outbox::{Close, Next, Outbox};
use super::settings::Settings;

/// What opens sessions.
pub trait SessionHost: Send + Sync + 'static {
    type Session: SessionHandle;

    /// Opens or resumes a session for a socket, and returns the `session.opened` that is written before anything that is pushed
    /// into the socket's outbox meanwhile. The connection waits for this and reads nothing; it must end by itself.
    fn open(
        &self,
        open: SessionOpen,
        socket: SocketInfo,
    ) -> impl Future<Output = Result<(Arc<Self::Session>, ServerMessage), Refusal>> + Send;

    /// Whether sessions may be opened now; `not_ready` or `draining` when not.
    fn accepting(&self) -> Result<(), Refusal>;
}

/// An open session, as its socket sees it. No call may block: answers go to the outbox, and slow ones are somebody's task.
pub trait SessionHandle: Send + Sync + 'static {
    /// Takes a request that was admitted. `session.open` and `session.ping` never come here.
    fn request(self: &Arc<Self>, id: Option<i64>, request: Request);

    /// An input of this match (as the client names it) was refused for its rate and used up nothing; the client has been told.
    /// `match.resend` is due when `retry_ms` have passed; until it comes, higher numbers of that seat are to be dropped.
    fn input_refused(self: &Arc<Self>, target: String, n: Option<u64>, retry_ms: u64);

    /// The socket is gone; its outbox leads nowhere. Called once.
    fn socket_closed(&self);
}

/// A socket, as a session needs to know it.
#[derive(Debug, Clone)]
pub struct SocketInfo {
    pub peer: SocketAddr,
    pub encoding: Encoding,
    pub outbox: Arc<Outbox>,
}

/// Frames read before what they caused is written, and before other tasks have their turn.
const FRAMES_PER_TURN: usize = 64;
/// Small enough for 100,000 idle sockets; a burst of frames is still read dozens at a time.
const READ_BUFFER_BYTES: usize = 4 * 1024;
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// How long a closed socket may take to hear of it.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The WebSocket on an upgraded stream; `read` is what came behind the upgrade request already.
pub(super) async fn socket<IO>(io: IO, read: &Bytes, settings: &Settings) -> WebSocketStream<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(settings.frame_bytes_max))
        .max_frame_size(Some(settings.frame_bytes_max));
    WebSocketStream::from_partially_read(io, read.to_vec(), Role::Server, Some(config)).await
}

/// Serves one socket until it ends.
pub(super) async fn run<IO, H>(socket: WebSocketStream<IO>, host: Arc<H>, settings: Arc<Settings>, info: SocketInfo)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: SessionHost,
{
    let limits = Limits::new(settings.inputs, settings.control, settings.chat);
    let opened_at = Instant::now();
    let mut connection = Connection {
        socket,
        host,
        settings,
        info,
        limits,
        session: None,
        first: None,
        heard_at: opened_at,
        wake_at: opened_at,
        unflushed: false,
        blocked: false,
    };
    connection.wake_at += connection.settings.open_within;
    let ending = connection.live().await;
    let Connection {
        socket, info, session, ..
    } = connection;
    info.outbox.end();
    drop(session);
    if let Ending::Close(close) = ending {
        // A client that does not take the close frame in time finds out by itself.
        let _ = timeout(CLOSE_WITHIN, Box::pin(say_goodbye(socket, close))).await;
    }
}

/// Sends the close frame and then reads on, without looking, until the client hangs up: closing a socket that still has unread
/// bytes resets it, and the client would lose the frame that says why.
async fn say_goodbye<IO>(mut socket: WebSocketStream<IO>, close: Close) -> Result<(), SocketError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    socket
        .send(Message::Close(Some(CloseFrame {
            code: close.code.into(),
            reason: close.reason.into(),
        })))
        .await?;
    let io = socket.get_mut();
    io.shutdown().await?;
    let mut discarded = [0; 1024];
    while io.read(&mut discarded).await? > 0 {}
    Ok(())
}

struct Connection<IO, H: SessionHost> {
    socket: WebSocketStream<IO>,
    host: Arc<H>,
    settings: Arc<Settings>,
    info: SocketInfo,
    limits: Limits,
    session: Option<Attached<H::Session>>,
    /// `session.opened`, which goes before all that the outbox has.
    first: Option<Bytes>,
    heard_at: Instant,
    /// When the timer is due: the end of the time to open, later the next heartbeat.
    wake_at: Instant,
    /// Something was written and not yet flushed.
    unflushed: bool,
    /// The socket took nothing more at the last turn; its task is woken when it does.
    blocked: bool,
}

/// The session's tie to its socket: cut exactly once, also when the task is dropped in the middle.
struct Attached<S: SessionHandle>(Arc<S>);

impl<S: SessionHandle> Drop for Attached<S> {
    fn drop(&mut self) {
        self.0.socket_closed();
    }
}

/// How a turn ended.
enum Turn {
    /// Nothing more to do until woken.
    Rest,
    /// There may be more to read; others first.
    Again,
    /// The client asks for a session; nothing is read until it is answered.
    Open(Option<i64>, SessionOpen),
    End(Ending),
}

/// How a connection ends.
enum Ending {
    /// Nobody is there to hear why.
    Gone,
    Close(Close),
}

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: SessionHost,
{
    async fn live(&mut self) -> Ending {
        let mut timer = pin!(sleep_until(self.wake_at));
        loop {
            let turn = poll_fn(|cx| match self.turn(cx, timer.as_mut()) {
                Turn::Rest => Poll::Pending,
                Turn::Again => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                turn @ (Turn::Open(..) | Turn::End(_)) => Poll::Ready(turn),
            });
            match turn.await {
                Turn::Open(id, open) => self.open(id, open).await,
                Turn::End(ending) => return ending,
                Turn::Rest | Turn::Again => {}
            }
        }
    }

    async fn open(&mut self, id: Option<i64>, open: SessionOpen) {
        // Boxed, so that the room it takes is given back when the session is open.
        match Box::pin(self.host.open(open, self.info.clone())).await {
            Ok((session, opened)) => {
                self.session = Some(Attached(session));
                self.first = Some(opened.encode(id, self.info.encoding));
                self.heard_at = Instant::now();
                self.wake_at = self.heard_at + self.settings.heartbeat;
            }
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Turn {
        let crowded = self.info.outbox.awake();
        if timer.deadline() != self.wake_at {
            timer.as_mut().reset(self.wake_at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if let Some(ending) = self.on_time() {
                return Turn::End(ending);
            }
            timer.as_mut().reset(self.wake_at);
        }
        // What much waits for is not read from: its answers would only wait behind.
        let read = if crowded { Turn::Rest } else { self.read(cx) };
        match (read, self.write(cx)) {
            (Turn::End(ending), _) | (_, Some(ending)) => Turn::End(ending),
            // Nothing would wake the task for what there is to read: the socket was not asked.
            (Turn::Rest, None) if crowded && !self.blocked => Turn::Again,
            (read, None) => read,
        }
    }

    fn on_time(&mut self) -> Option<Ending> {
        let now = Instant::now();
        if self.session.is_none() {
            return Some(Ending::Close(Close::AUTH_TIMEOUT));
        }
        if now.duration_since(self.heard_at) >= 2 * self.settings.heartbeat {
            return Some(Ending::Gone);
        }
        self.wake_at = now + self.settings.heartbeat;
        self.info.outbox.trim();
        // If the socket is full then what fills it will tell whether the client is there. A write that fails is found by the
        // next read.
        if Pin::new(&mut self.socket)
            .start_send(Message::Ping(Bytes::new()))
            .is_ok()
        {
            self.unflushed = true;
        }
        None
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Turn {
        let mut taken = 0;
        let mut messages: u64 = 0;
        let turn = loop {
            if taken == FRAMES_PER_TURN {
                break Turn::Again;
            }
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(error))) => break self.failed(&error),
                Poll::Ready(None) => break Turn::End(Ending::Gone),
                Poll::Pending => break Turn::Rest,
            };
            if taken == 0 {
                self.heard_at = Instant::now();
            }
            taken += 1;
            messages += u64::from(message.is_text() || message.is_binary());
            match self.message(message) {
                Turn::Rest => {}
                turn @ (Turn::Again | Turn::Open(..) | Turn::End(_)) => break turn,
            }
        };
        if messages > 0 {
            self.settings.counters.messages_in.inc_by(messages);
        }
        turn
    }

    fn failed(&mut self, error: &SocketError) -> Turn {
        Turn::End(match error {
            SocketError::Capacity(_) => {
                let message = format!("a message may have {} bytes", self.settings.frame_bytes_max);
                self.refuse(None, Refusal::new(ErrorCode::TooLarge, message));
                Ending::Close(Close::TOO_LARGE)
            }
            SocketError::Utf8(_) => Ending::Close(Close::NOT_UTF8),
            SocketError::Protocol(_) => Ending::Close(Close::PROTOCOL),
            _ => Ending::Gone,
        })
    }

    fn message(&mut self, message: Message) -> Turn {
        match (message, self.info.encoding) {
            (Message::Text(text), Encoding::Json) => self.frame(&Bytes::from(text)),
            (Message::Binary(bytes), Encoding::MsgPack) => self.frame(&bytes),
            (Message::Text(_), Encoding::MsgPack) => self.wrong_kind("binary frames"),
            (Message::Binary(_), Encoding::Json) => self.wrong_kind("text frames"),
            // Pings and closes are answered by the WebSocket layer; a close ends the stream of messages.
            (Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_), _) => Turn::Rest,
        }
    }

    fn wrong_kind(&mut self, wanted: &str) -> Turn {
        let message = format!("this subprotocol has {wanted}");
        self.bad(BadFrame {
            id: None,
            code: ErrorCode::BadMessage,
            message,
        })
    }

    fn frame(&mut self, frame: &Bytes) -> Turn {
        match client::decode(self.info.encoding, frame) {
            Ok(Envelope { id, request }) => self.request(id, request),
            Err(bad) => self.bad(bad),
        }
    }

    /// Nonsense is answered and counted; an unknown type is no nonsense, only a newer or a mistaken client, and before a session
    /// is open a request like any other.
    fn bad(&mut self, bad: BadFrame) -> Turn {
        if bad.code == ErrorCode::UnknownType && self.session.is_none() {
            self.refuse(bad.id, unopened());
            return Turn::Rest;
        }
        let nonsense = bad.code == ErrorCode::BadMessage;
        self.refuse(bad.id, bad.into_refusal());
        if nonsense && !self.limits.bad_frame(self.heard_at.into_std()) {
            return Turn::End(Ending::Close(Close::RATE_LIMITED));
        }
        Turn::Rest
    }

    fn request(&mut self, id: Option<i64>, request: Request) -> Turn {
        let Some(Attached(session)) = &self.session else {
            return self.request_unopened(id, request);
        };
        let class = class_of(&request);
        if let Err(refused) = self.limits.admit(class, self.heard_at.into_std()) {
            let session = Arc::clone(session);
            self.limited(id, class, refused);
            if let Request::MatchSend { target, n, .. } = request {
                session.input_refused(target, n, refused.retry_ms);
            }
            return Turn::Rest;
        }
        match request {
            Request::SessionPing { t } => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |now| now.as_millis() as u64);
                self.info.outbox.say(id, &ServerMessage::SessionPong { t, now });
            }
            Request::SessionOpen(_) => {
                self.refuse(id, Refusal::new(ErrorCode::BadMessage, "the session is open already"));
            }
            request @ (Request::SessionClose
            | Request::MatchCreate { .. }
            | Request::MatchQuick { .. }
            | Request::MatchList { .. }
            | Request::MatchJoin { .. }
            | Request::MatchLeave { .. }
            | Request::MatchSend { .. }
            | Request::Queue(_)
            | Request::Party(_)
            | Request::Channel(_)
            | Request::Presence(_)
            | Request::Storage(_)
            | Request::World(_)) => session.request(id, request),
        }
        Turn::Rest
    }

    fn request_unopened(&mut self, id: Option<i64>, request: Request) -> Turn {
        if let Err(refused) = self.limits.admit(Class::Control, self.heard_at.into_std()) {
            self.limited(id, Class::Control, refused);
            return Turn::Rest;
        }
        let Request::SessionOpen(open) = request else {
            self.refuse(id, unopened());
            return Turn::Rest;
        };
        match self.host.accepting() {
            Ok(()) => Turn::Open(id, open),
            Err(refusal) => {
                self.refuse(id, refusal);
                Turn::Rest
            }
        }
    }

    /// Tells of a refusal for rate: every time to those who gave a number, else at a measured pace. What happens to a line is always
    /// said: nobody sends it again on their own, as they do inputs.
    fn limited(&self, id: Option<i64>, class: Class, refused: Refused) {
        let (counter, what) = match class {
            Class::Inputs => (&self.settings.counters.rate_limited_inputs, "too many inputs"),
            Class::Control => (&self.settings.counters.rate_limited_control, "too many requests"),
            Class::Chat => (&self.settings.counters.rate_limited_chat, "too many lines"),
        };
        counter.inc();
        if id.is_some() || refused.notice || class == Class::Chat {
            self.refuse(
                id,
                Refusal::new(ErrorCode::RateLimited, what).with("retry_ms", refused.retry_ms),
            );
        }
    }

    fn refuse(&self, id: Option<i64>, refusal: Refusal) {
        self.info.outbox.say(id, &ServerMessage::Error(refusal));
    }

    /// Writes what waits, as far as the socket takes it, and flushes once.
    fn write(&mut self, cx: &mut Context<'_>) -> Option<Ending> {
        let mut written: u64 = 0;
        let ending = loop {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => break Some(Ending::Gone),
                Poll::Pending => {
                    self.blocked = true;
                    break self.given_up(cx);
                }
            }
            self.blocked = false;
            let frame = match self.first.take() {
                Some(first) => first,
                None => match self.info.outbox.poll_next(cx) {
                    Poll::Ready(Next::Frame(frame)) => frame,
                    Poll::Ready(Next::Close(close)) => break Some(Ending::Close(close)),
                    Poll::Pending => break None,
                },
            };
            // A raw frame: as a message, text would be checked for UTF-8 once more for every receiver of a broadcast.
            let kind = match self.info.encoding {
                Encoding::Json => Data::Text,
                Encoding::MsgPack => Data::Binary,
            };
            let message = Message::Frame(Frame::message(frame, OpCode::Data(kind), true));
            if Pin::new(&mut self.socket).start_send(message).is_err() {
                break Some(Ending::Gone);
            }
            self.unflushed = true;
            written += 1;
        };
        if written > 0 {
            self.settings.counters.messages_out.inc_by(written);
        }
        if ending.is_some() || !self.unflushed {
            return ending;
        }
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                None
            }
            Poll::Ready(Err(_)) => Some(Ending::Gone),
            Poll::Pending => None,
        }
    }

    /// What to do while the socket takes nothing: wait for it, unless the client is given up.
    fn given_up(&self, cx: &mut Context<'_>) -> Option<Ending> {
        match self.info.outbox.poll_given_up(cx) {
            Poll::Ready(close) => Some(Ending::Close(close)),
            Poll::Pending => None,
        }
    }
}

fn unopened() -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, "the first message must be session.open")
}

fn class_of(request: &Request) -> Class {
    match request {
        Request::MatchSend { .. } => Class::Inputs,
        Request::SessionOpen(_) | Request::SessionPing { .. } | Request::SessionClose => Class::Control,
        Request::MatchCreate { .. } | Request::MatchQuick { .. } | Request::MatchList { .. } => Class::Control,
        Request::MatchJoin { .. } | Request::MatchLeave { .. } => Class::Control,
        Request::Channel(ChannelRequest::Send { .. }) => Class::Chat,
        Request::Queue(_) | Request::Party(_) | Request::Channel(_) => Class::Control,
        Request::Presence(_) | Request::Storage(_) | Request::World(_) => Class::Control,
    }
}
