//! Chat: channels whose lines are numbered by the store and heard on every node by those who are in them, each once and in order.
//!
//! A line is told when it is committed, never before: to the members here, and one copy to each node that wants to hear the
//! channel. Each node tells every other one what it wants to hear, and answers a client's join when that is known; so nothing is
//! asked of gossip, which would carry every name to everyone and has room for some hundred. What gets lost on the way is found
//! by comparing with the store: after a break, and every five seconds.
//!
//! A `dm:` has no members: its two players hear it wherever they are. Its lines go to the nodes of which the directory says that
//! they have sessions of one of them.
//!
//! Parts: `name`* what channels are called, `order`* lines in order, `crowd`* who is in a channel, `board` what is open here and
//! who wants it, `conversations`* and `conversations/task` where lines of a `dm:` go, `requests` what clients ask, `task` the clock.

mod board;
mod conversations;
mod crowd;
pub(crate) mod name;
mod order;
pub(crate) mod requests;
mod task;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use rookery_protocol::client::{ChannelRequest, ChatLine};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, ChatWord};
use rookery_protocol::{MatchId, NodeLife, NodeName};
use tokio::sync::Notify;

use self::board::{Board, Heard, Wish};
use self::conversations::Talks;
use self::name::ChannelName;
use crate::metrics::RateClass;
use crate::session::Session;
use crate::session::hub::Hub;
use crate::session::listener::Listener;
use crate::store::{Fenced, NewLine, StoreError};

/// Requests of one session that wait for their turn; they are served one after the other.
const WAITING_MAX: usize = 64;

/// A match's line is refused by a channel that is not its own, or that no match may write to.
#[derive(Debug, thiserror::Error)]
pub enum SayError {
    #[error("a match may write to rooms, to worlds and to its own channel")]
    Channel,
    #[error("a line may have {max} bytes, and has characters")]
    Text { max: usize },
    /// The match is somebody else's now.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// Whether it was written is unknown; it may be said again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// See the file.
pub struct Chat {
    hub: Arc<Hub>,
    board: Mutex<Board>,
    talks: Mutex<Talks>,
    /// Another node has learnt what we want to hear.
    known: Notify,
    /// Lines may have been missed: compare with the store before it is time.
    doubt: AtomicBool,
}

impl Chat {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let chat = Arc::new(Self {
            hub: Arc::clone(hub),
            board: Mutex::default(),
            talks: Mutex::default(),
            known: Notify::new(),
            doubt: AtomicBool::new(false),
        });
        task::start(&chat);
        chat
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().expect("no thread panics holding it")
    }

    // Sessions

    /// A session is about to be opened here that was in these channels before, and has the lines up to these numbers. Said before
    /// anything can be delivered to it: of a conversation it hears nothing until it is served what it missed.
    pub fn session_opening(&self, session: &Arc<Session>, channels: Vec<(String, u64)>) {
        // More than it may be in would only be refused one by one.
        let joined_max = self.hub.config().limits.channels_per_session as usize;
        let mut board = self.board();
        for (channel, since) in channels.into_iter().take(joined_max) {
            let (id, since) = (None, Some(since));
            let request = ChannelRequest::Join { channel, since };
            let queued = board.wish(session, Wish { id, request }, joined_max);
            debug_assert!(queued.is_ok(), "there is room for as many as are taken");
        }
    }

    /// The session is open, and can hear what it is served.
    pub fn session_opened(self: &Arc<Self>, session: &Arc<Session>) {
        self.begin(session);
    }

    /// A session's socket is gone.
    pub fn session_closed(&self, session: &Session) {
        self.board().forget_session(&self.hub, session.id());
    }

    /// A session has no seat in a match any more, and is no longer in the match's channel.
    pub fn match_left(&self, session: &Session, target: MatchId) {
        self.board().leave(&self.hub, &ChannelName::Match(target), session);
    }

    /// Serves a request when those that the session made before are served.
    pub fn request(self: &Arc<Self>, session: &Arc<Session>, id: Option<i64>, request: ChannelRequest) {
        if session.is_closed() {
            return;
        }
        let queued = self.board().wish(session, Wish { id, request }, WAITING_MAX);
        match queued {
            Ok(()) => self.begin(session),
            Err(wish) => {
                self.hub.metrics().rate_limited(RateClass::Chat).inc();
                let message = "too many requests to chat are waiting";
                let refusal = Refusal::new(ErrorCode::RateLimited, message).with("retry_ms", 100);
                session.refuse(wish.id, refusal);
            }
        }
    }

    /// Serves what a session wishes, unless a task is at it.
    fn begin(self: &Arc<Self>, session: &Arc<Session>) {
        let begins = self.board().begin(session.id());
        if begins {
            let (chat, session) = (Arc::clone(self), Arc::clone(session));
            self.hub.spawn(async move { chat.serve(session).await });
        }
    }

    // Lines

    /// Writes a match's line, once for each effect.
    ///
    /// # Errors
    /// See [`SayError`].
    pub async fn say(self: &Arc<Self>, target: MatchId, channel: &str, line: NewLine) -> Result<(), SayError> {
        let name = ChannelName::parse(channel).ok_or(SayError::Channel)?;
        let may = match &name {
            ChannelName::Room(_) => true,
            ChannelName::World(world) => self.hub.config().worlds.by_name.contains_key(world),
            ChannelName::Match(of) => *of == target,
            ChannelName::Dm(..) => false,
        };
        if !may {
            return Err(SayError::Channel);
        }
        let max = self.hub.config().chat.text_max.as_usize();
        requests::check_text(&line.text, max).map_err(|_| SayError::Text { max })?;
        self.write(&name, line).await??;
        Ok(())
    }

    /// Writes a line and tells everybody of it.
    async fn write(
        self: &Arc<Self>,
        name: &ChannelName,
        line: NewLine,
    ) -> Result<Result<ChatLine, Fenced>, StoreError> {
        let (from, text) = (Arc::from(line.sender.as_str()), Arc::from(line.text.as_str()));
        let written = match self.hub.store().append_line(line).await? {
            Ok(written) => written,
            Err(fenced) => return Ok(Err(fenced)),
        };
        let line = ChatLine {
            message: written.number,
            from,
            text,
            at: written.at_ms,
        };
        if written.is_repeat {
            // Somebody may have told of it already; who was not told finds it by comparing.
            self.compare_soon();
        } else {
            self.hub.metrics().chat_lines.inc();
            self.tell(name, &line);
        }
        Ok(Ok(line))
    }

    /// Tells of a line that is committed: those who listen here, and each node that wants to hear the channel once.
    fn tell(self: &Arc<Self>, name: &ChannelName, line: &ChatLine) {
        self.hear(name, line.clone());
        if name.players().is_some() {
            self.tell_players(name, line);
            return;
        }
        let listeners = self.board().listeners(name);
        if listeners.is_empty() {
            return;
        }
        let word = ChatWord::Lines {
            channel: name.to_string(),
            lines: vec![line.clone()],
        };
        let bytes = peer::encode(&word);
        for node in listeners {
            if board::send(&self.hub, &node, bytes.clone()) {
                self.hub.metrics().chat_copies.inc();
            } else {
                self.board().owe(&node);
            }
        }
    }

    /// Takes a line that is committed.
    fn hear(self: &Arc<Self>, name: &ChannelName, line: ChatLine) {
        let (number, at_ms) = (line.message, line.at);
        let heard = self.board().hear(&self.hub, name, line);
        match heard {
            Heard::Done => {}
            Heard::Opened => {
                let (chat, name) = (Arc::clone(self), name.clone());
                self.hub
                    .spawn(async move { chat.open_conversation(name, number, at_ms).await });
            }
        }
    }

    /// Lines of a `dm:` that another node wrote.
    pub fn lines(self: &Arc<Self>, channel: &str, lines: Vec<ChatLine>) {
        if let Some(name) = ChannelName::parse(channel) {
            lines.into_iter().for_each(|line| self.hear(&name, line));
        }
    }

    // Other nodes

    /// A message of another node's chat.
    pub fn message(self: &Arc<Self>, from: &NodeLife, bytes: &Bytes) {
        let Ok(word) = peer::decode::<ChatWord>(bytes) else {
            self.hub.metrics().peer_undecodable.inc();
            return;
        };
        if !self.board().meet(&self.hub, from) {
            return;
        }
        match word {
            ChatWord::Lines { channel, lines } => self.lines(&channel, lines),
            ChatWord::Check => self.compare_soon(),
            ChatWord::Heard { .. } => {
                self.board().take(&self.hub, &from.name, word);
                self.known.notify_waiters();
            }
            ChatWord::Interest { .. } | ChatWord::Members { .. } => self.board().take(&self.hub, &from.name, word),
        }
    }

    /// There is a new connection to a node, or what was sent over the old one may be lost.
    pub fn link_broken(&self, node: &NodeName) {
        self.board().tell_all(&self.hub, node);
        self.compare_soon();
    }

    /// The queue to a node has room again.
    pub fn link_writable(&self, node: &NodeName) {
        self.board().tell_owed(&self.hub, node);
    }

    /// That life of a node is over; what it wrote last it may not have told.
    pub fn node_gone(&self, node: &NodeLife) {
        self.board().part(&node.name, node.generation);
        self.known.notify_waiters();
        self.compare_soon();
    }

    fn compare_soon(&self) {
        self.doubt.store(true, Ordering::Release);
    }

    /// How many channels are open on this node.
    pub fn open_count(&self) -> usize {
        self.board().open_count()
    }
}
