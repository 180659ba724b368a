//! A session: a player's logical connection. It turns a client's requests into work for links and the hub, and holds the way
//! back, the outbox of its socket.
//!
//! It decides nothing about matches: a match's owner does. Requests of one socket are taken in order; those that need the
//! store or another node go on in tasks of their own, so that they do not hold up the inputs behind them.

pub mod host;
pub mod hub;
pub mod inputs;
pub mod link;
pub mod listener;
#[cfg(test)]
mod simulation;
pub mod trail;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rookery_protocol::client::{Encoding, JoinRole, Payload, Request, ServerMessage};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::output::Attachment;
use rookery_protocol::{MatchId, NodeLife, PlayerId, Seat, SessionId};

use tracing::Instrument;

use self::hub::Hub;
use self::link::{JoinAsk, Link};
use self::listener::{Listener, Moved};
use crate::gateway::connection::SessionHandle;
use crate::gateway::outbox::{Close, Outbox};
use crate::metrics::RateClass;
use crate::traces::TARGET;

/// Requests of one session that wait for the store or another node at once.
const SLOW_MAX: usize = 64;

/// Matches that the session's player was transferred from, remembered for inputs that were under way then.
const DEPARTED_MAX: usize = 8;

/// Refusals of inputs that nobody numbered are pushed at most this often.
const COMPLAIN_EVERY_MS: u64 = 1_000;

/// One player's logical connection.
pub struct Session {
    player: PlayerId,
    name: String,
    attachment: Attachment,
    encoding: Encoding,
    outbox: Arc<Outbox>,
    hub: Arc<Hub>,
    matches: Mutex<BTreeMap<MatchId, Sitting>>,
    /// What this session calls matches that it asked for by name.
    names: Mutex<BTreeMap<String, MatchId>>,
    /// The matches from which its player was transferred last. What the client said before it heard of that goes nowhere.
    departed: Mutex<VecDeque<MatchId>>,
    slow: AtomicUsize,
    /// When an input without a request number was last refused aloud; 0 for never.
    complained_ms: AtomicU64,
    closed: AtomicBool,
}

/// A match this session is in, or on its way into.
#[derive(Clone)]
struct Sitting {
    link: Arc<Mutex<Link<Session>>>,
    seat: Option<Seat>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("session", &self.attachment.session)
            .field("player", &self.player)
            .finish()
    }
}

/// A player's session hears from the match itself that they are in it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The match that they left.
    pub from: MatchId,
    pub to: MatchId,
    pub owner: NodeLife,
    pub epoch: u64,
}

/// Who a session speaks for, and through which connection.
#[derive(Debug, Clone)]
pub struct Identity {
    pub player: PlayerId,
    pub name: String,
    pub attachment: Attachment,
}

impl Session {
    pub fn new(identity: Identity, encoding: Encoding, outbox: Arc<Outbox>, hub: Arc<Hub>) -> Self {
        Self {
            player: identity.player,
            name: identity.name,
            attachment: identity.attachment,
            encoding,
            outbox,
            hub,
            matches: Mutex::new(BTreeMap::new()),
            names: Mutex::default(),
            departed: Mutex::new(VecDeque::new()),
            slow: AtomicUsize::new(0),
            complained_ms: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> SessionId {
        self.attachment.session
    }

    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Notes that the session is on its way into a match; false if it is in as many as it may be.
    fn joining(&self, target: MatchId, link: &Arc<Mutex<Link<Session>>>) -> bool {
        let joined_max = self.hub.config().limits.matches_per_session as usize;
        let mut matches = self.matches();
        let count = matches.len();
        match matches.get_mut(&target) {
            // A new link after the match was over for us: the seat of the old one is void.
            Some(sitting) if !Arc::ptr_eq(&sitting.link, link) => {
                *sitting = Sitting {
                    link: Arc::clone(link),
                    seat: None,
                };
            }
            Some(_) => {}
            None if count >= joined_max => return false,
            None => {
                matches.insert(
                    target,
                    Sitting {
                        link: Arc::clone(link),
                        seat: None,
                    },
                );
            }
        }
        true
    }

    fn matches(&self) -> std::sync::MutexGuard<'_, BTreeMap<MatchId, Sitting>> {
        self.matches.lock().expect("no thread panics holding it")
    }

    /// Whether the session has a seat in a match.
    pub fn is_seated(&self, target: MatchId) -> bool {
        self.matches()
            .get(&target)
            .is_some_and(|sitting| sitting.seat.is_some())
    }

    /// The session asks for a match by this name, and may go on calling it so.
    pub fn call(&self, name: &str, target: MatchId) {
        let matches = self.matches();
        let mut names = self.names.lock().expect("no thread panics holding it");
        // No more names than matches, and one that is on its way.
        names.retain(|_, called| matches.contains_key(called));
        names.insert(name.to_owned(), target);
    }

    fn named(&self, name: &str) -> Option<MatchId> {
        self.names
            .lock()
            .expect("no thread panics holding it")
            .get(name)
            .copied()
    }

    fn sitting(&self, target: &str) -> Option<(MatchId, Sitting)> {
        let target = target.parse().ok().or_else(|| self.named(target))?;
        self.matches().get(&target).cloned().map(|sitting| (target, sitting))
    }

    fn match_send(self: &Arc<Self>, id: Option<i64>, target: &str, n: Option<u64>, data: Payload) {
        match self.sitting(target) {
            Some((_, Sitting { link, seat: Some(seat) })) => {
                let mut link = link.lock().expect("no thread panics holding it");
                link.send(self.hub.now_ms(), self, seat, link::SendAsk { id, n, data }, &*self.hub);
            }
            Some((_, Sitting { seat: None, .. })) | None => {
                // Said by a client that cannot know yet that its player is elsewhere, and waits for no answer.
                if id.is_some() || !self.has_departed(target) {
                    self.refuse(id, not_joined());
                }
            }
        }
    }

    fn departed(&self) -> std::sync::MutexGuard<'_, VecDeque<MatchId>> {
        self.departed.lock().expect("no thread panics holding it")
    }

    /// Whether the session's player was transferred from that match.
    fn has_departed(&self, target: &str) -> bool {
        let target = target.parse().ok().or_else(|| self.named(target));
        target.is_some_and(|target| self.departed().contains(&target))
    }

    fn match_leave(self: &Arc<Self>, id: Option<i64>, target: &str) {
        let left = self.sitting(target).is_some_and(|(_, sitting)| {
            let mut link = sitting.link.lock().expect("no thread panics holding it");
            link.leave(self.hub.now_ms(), self, id, &*self.hub)
        });
        if !left {
            self.refuse(id, not_joined());
        }
    }

    /// A match says that the session's player has come to it. The session follows if it does not sit there, nor is on its way there,
    /// and has not been seated again where they came from, which may have forgotten that they left.
    pub fn has_arrived(self: &Arc<Self>, arrival: Arrival) {
        let Arrival { from, to, owner, epoch } = arrival;
        let (there, left) = {
            let matches = self.matches();
            (matches.contains_key(&to), matches.get(&from).cloned())
        };
        if there {
            return;
        }
        let mut origin = from;
        if let Some(Sitting { link, .. }) = left {
            let mut held = link.lock().expect("no thread panics holding it");
            match held.stop_following(self) {
                Some(known_as) => origin = known_as,
                None => return,
            }
            drop(held);
            self.forget_match(from);
        }
        let role = JoinRole::Player;
        self.follow(Moved {
            from: origin,
            to,
            owner,
            epoch,
            role,
        });
    }

    /// Asks a link for a seat, unless the session is in as many matches as it may be.
    ///
    /// # Errors
    /// The wish itself, when the link is no longer in use: ask another one.
    #[allow(
        clippy::result_large_err,
        reason = "the wish itself comes back, and only when a link was retired"
    )]
    pub fn ask_join(&self, link: &Arc<Mutex<Link<Session>>>, ask: JoinAsk<Session>) -> Result<(), JoinAsk<Session>> {
        let mut held = link.lock().expect("no thread panics holding it");
        if held.is_retired() {
            return Err(ask);
        }
        if self.is_closed() {
            return Ok(());
        }
        if self.joining(held.target(), link) {
            held.join(self.hub.now_ms(), ask, &*self.hub);
        } else {
            ask.refuse(Refusal::new(
                ErrorCode::MatchTooMany,
                "the session is in as many matches as it may be",
            ));
        }
        Ok(())
    }

    /// Runs a request that has to wait for others, unless too many wait already.
    pub fn slowly<F>(self: &Arc<Self>, id: Option<i64>, work: impl FnOnce(Arc<Hub>, Arc<Session>) -> F)
    where
        F: Future<Output = Result<Option<ServerMessage>, Refusal>> + Send + 'static,
    {
        if self.slow.fetch_add(1, Ordering::AcqRel) >= SLOW_MAX {
            self.slow.fetch_sub(1, Ordering::AcqRel);
            self.hub.metrics().rate_limited(RateClass::Control).inc();
            let refusal = Refusal::new(
                ErrorCode::RateLimited,
                "too many requests of this session are under way",
            )
            .with("retry_ms", 100);
            return self.refuse(id, refusal);
        }
        let session = Arc::clone(self);
        let work = work(Arc::clone(&self.hub), Arc::clone(self));
        let answering = async move {
            match work.await {
                Ok(Some(answer)) => session.send(id, &answer),
                Ok(None) => {}
                Err(refusal) => session.refuse(id, refusal),
            }
            session.slow.fetch_sub(1, Ordering::AcqRel);
        };
        self.hub.spawn(answering.in_current_span());
    }

    /// Gives up every seat at once.
    fn leave_all(self: &Arc<Self>) {
        let sittings: Vec<Sitting> = self.matches().values().cloned().collect();
        for sitting in sittings {
            let mut link = sitting.link.lock().expect("no thread panics holding it");
            link.leave(self.hub.now_ms(), self, None, &*self.hub);
        }
    }
}

fn not_joined() -> Refusal {
    Refusal::new(ErrorCode::MatchNotJoined, "this session has no seat in that match")
}

impl Listener for Session {
    fn player(&self) -> PlayerId {
        self.player
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn push(&self, frame: Bytes) {
        self.outbox.push(frame);
    }

    fn push_latest(&self, target: MatchId, key: Arc<str>, frame: Bytes) {
        self.outbox.push_latest(target, key, frame);
    }

    fn refuse_input(&self, id: Option<i64>, message: &str, retry_ms: u64) {
        self.hub.metrics().rate_limited(RateClass::Inputs).inc();
        let now_ms = self.hub.now_ms();
        let last_ms = self.complained_ms.load(Ordering::Relaxed);
        let due = last_ms == 0 || now_ms >= last_ms + COMPLAIN_EVERY_MS;
        if id.is_none() && due {
            self.complained_ms.store(now_ms.max(1), Ordering::Relaxed);
        }
        if id.is_some() || due {
            self.refuse(
                id,
                Refusal::new(ErrorCode::RateLimited, message).with("retry_ms", retry_ms),
            );
        }
    }

    fn seated(&self, target: MatchId, seat: Seat) {
        if let Some(sitting) = self.matches().get_mut(&target) {
            sitting.seat = Some(seat);
        }
        self.hub.services().seated(self, target);
    }

    fn forget_match(&self, target: MatchId) {
        self.matches().remove(&target);
        self.hub.services().match_left(self, target);
    }

    fn follow(self: &Arc<Self>, moved: Moved) {
        let mut departed = self.departed();
        if !departed.contains(&moved.from) {
            if departed.len() >= DEPARTED_MAX {
                departed.pop_front();
            }
            departed.push_back(moved.from);
        }
        drop(departed);
        let (hub, session) = (Arc::clone(&self.hub), Arc::clone(self));
        // In a task: whoever says so holds the lock of one link, and this takes another's.
        self.hub.spawn(async move { hub.follow(session, moved) });
    }

    fn join_refused(&self, target: MatchId) {
        let mut matches = self.matches();
        if matches.get(&target).is_some_and(|sitting| sitting.seat.is_none()) {
            matches.remove(&target);
        }
    }
}

impl SessionHandle for Session {
    fn request(self: &Arc<Self>, id: Option<i64>, request: Request) {
        if let Request::MatchSend { target, data, n } = request {
            return self.match_send(id, &target, n, data);
        }
        let span = tracing::info_span!(target: TARGET, "request", kind = request.kind());
        let _traced = span.entered();
        match request {
            Request::MatchSend { target, data, n } => self.match_send(id, &target, n, data),
            Request::SessionPing { t } => {
                self.send(
                    id,
                    &ServerMessage::SessionPong {
                        t,
                        now: self.hub.unix_ms(),
                    },
                );
            }
            Request::SessionOpen(_) => {
                self.refuse(
                    id,
                    Refusal::new(ErrorCode::BadMessage, "the session of this connection is open already"),
                );
            }
            Request::SessionClose => {
                self.leave_all();
                self.send(id, &ServerMessage::SessionClosed);
                self.outbox.close(Close::NORMAL);
            }
            Request::MatchLeave { target } => self.match_leave(id, &target),
            Request::MatchJoin {
                target,
                ctx,
                role,
                since: _,
            } => {
                self.slowly(id, |hub, session| async move {
                    let seating = link::Seating {
                        role,
                        ctx: ctx.into(),
                        moved_from: None,
                    };
                    let ask = JoinAsk {
                        session: Arc::clone(&session),
                        id,
                        seating,
                        verdict: None,
                    };
                    hub.join(&target, ask).await.map(|()| None)
                });
            }
            Request::MatchCreate {
                module,
                params,
                private,
                name,
            } => {
                self.slowly(id, |hub, session| async move {
                    let wish = hub::CreateWish {
                        module,
                        params,
                        private,
                        name,
                        quick_key: None,
                    };
                    let target = hub.create(session.player(), wish).await?;
                    Ok(Some(ServerMessage::MatchCreated { target }))
                });
            }
            Request::MatchQuick {
                module,
                label,
                params,
                ctx,
            } => {
                self.slowly(id, |hub, session| async move {
                    hub.quick(
                        &session,
                        id,
                        hub::QuickWish {
                            module,
                            label,
                            params,
                            ctx: ctx.into(),
                        },
                    )
                    .await?;
                    Ok(None)
                });
            }
            Request::MatchList {
                module,
                label,
                limit,
                cursor,
            } => {
                self.slowly(id, |hub, _| async move {
                    let (matches, cursor) = hub.list(module, label, limit, cursor).await?;
                    Ok(Some(ServerMessage::MatchListed { matches, cursor }))
                });
            }
            Request::Queue(_)
            | Request::Party(_)
            | Request::Channel(_)
            | Request::Presence(_)
            | Request::Storage(_)
            | Request::World(_) => self.hub.services().request(self, id, request),
        }
    }

    fn input_refused(self: &Arc<Self>, target: String, n: Option<u64>, retry_ms: u64) {
        if n.is_none() {
            return;
        }
        if let Some((_, sitting)) = self.sitting(&target) {
            let mut link = sitting.link.lock().expect("no thread panics holding it");
            link.input_refused(self.hub.now_ms(), self, retry_ms);
        }
    }

    fn socket_closed(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let sittings = std::mem::take(&mut *self.matches());
        for (_, sitting) in sittings {
            let mut link = sitting.link.lock().expect("no thread panics holding it");
            link.detach(self.hub.now_ms(), self, &*self.hub);
        }
        self.hub.session_closed(self);
    }
}
