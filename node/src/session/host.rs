//! Opens sessions for sockets: checks who it is, takes an attachment number, and says where the session stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rookery_protocol::client::{GoneMatch, ServerMessage, SessionOpen};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::output::Attachment;
use rookery_protocol::{MatchId, PlayerId, SessionId};

use super::hub::Hub;
use super::listener::Listener;
use super::trail::Found;
use super::{Identity, Session};
use crate::auth::{self, Accounts, ResumeToken};
use crate::gateway::connection::{SessionHost, SocketInfo};

/// What clients are told of how long a seat is kept; each module's manifest has its own, and this is the SDK's default.
const GRACE: Duration = Duration::from_secs(15);

/// How long the answer to `session.open` may wait to hear where the player is. When the owner of the match that they were in does not
/// answer in time, or is not found, nothing speaks against joining again.
const FOUND_WITHIN: Duration = Duration::from_secs(1);

/// Matches of one `session.open` that are looked for: as many as a session may be in as things are.
const LOOKED_FOR_MAX: usize = 64;

/// What opens this node's sessions.
pub struct Host {
    hub: Arc<Hub>,
    accounts: Arc<Accounts>,
    heartbeat: Duration,
}

impl Host {
    pub fn new(hub: Arc<Hub>, accounts: Arc<Accounts>, heartbeat: Duration) -> Self {
        Self {
            hub,
            accounts,
            heartbeat,
        }
    }

    /// What became of the matches that the client names. Sessions do not outlive their socket yet, so it has a seat in none of them:
    /// it joins again, each where its player is.
    async fn gone(&self, player: PlayerId, named: Vec<(String, u64)>) -> Vec<GoneMatch> {
        let by = Instant::now() + FOUND_WITHIN;
        let mut finding = FuturesOrdered::new();
        for (index, (target, _)) in named.into_iter().enumerate() {
            finding.push_back(async move {
                let known = target.parse::<MatchId>().ok().filter(|_| index < LOOKED_FOR_MAX);
                let found = match known {
                    Some(target) => self.hub.where_player_is(target, player, by).await,
                    None => Found::There,
                };
                let (why, to) = match found {
                    Found::There => ("join_again", None),
                    Found::OnTheWay => ("moving", None),
                    Found::Elsewhere(to) => ("moved", Some(to)),
                };
                let (why, result) = (why.to_owned(), None);
                GoneMatch {
                    target,
                    why,
                    result,
                    to,
                }
            });
        }
        finding.collect().await
    }

    /// Who the token stands for. A valid resume token suffices when the access token has expired.
    async fn identify(&self, open: &SessionOpen) -> Result<(auth::Identity, Option<ResumeToken>), Refusal> {
        let resumed = open
            .resume
            .as_ref()
            .map(|resume| self.accounts.verify_resume(&resume.token))
            .transpose();
        let shown = match &open.token {
            Some(token) => self.accounts.authenticate(token).await,
            None => Err(auth::TokenError::Malformed.into()),
        };
        match (shown, resumed) {
            (Ok(identity), Ok(resumed)) => {
                let same = resumed.filter(|resumed| resumed.identity.player == identity.player);
                Ok((identity, same))
            }
            // A resume token that is void starts a new session, when the access token is good.
            (Ok(identity), Err(_)) => Ok((identity, None)),
            (Err(_), Ok(Some(resumed))) => Ok((resumed.identity.clone(), Some(resumed))),
            (Err(error), _) => Err(error.refusal()),
        }
    }
}

impl SessionHost for Host {
    type Session = Session;

    async fn open(&self, open: SessionOpen, socket: SocketInfo) -> Result<(Arc<Session>, ServerMessage), Refusal> {
        let (identity, resumed) = self.identify(&open).await?;
        let hub = &self.hub;
        let number = resumed
            .as_ref()
            .map_or(0, |resumed| resumed.attachment + 1)
            .max(hub.unix_ms());
        let attachment = Attachment {
            number,
            session: SessionId::from_parts(hub.unix_ms(), rand::random()),
            node: hub.local().name.clone(),
            generation: hub.local().generation,
        };
        let resume_token = self.accounts.resume_token(&ResumeToken {
            session: attachment.session,
            identity: identity.clone(),
            attachment: number,
        });
        let session = Session::new(
            Identity {
                player: identity.player,
                name: identity.name,
                attachment,
            },
            socket.encoding,
            socket.outbox,
            Arc::clone(hub),
        );
        let session = Arc::new(session);
        let resume = open.resume.unwrap_or_default();
        let gone = self.gone(session.player(), resume.matches).await;
        hub.session_opened(&session, resume.channels);
        let opened = ServerMessage::SessionOpened {
            session: session.id(),
            player: session.player(),
            node: hub.local().name.to_string(),
            nodes: hub.urls(),
            resume_token,
            resumed: false,
            matches: Vec::new(),
            gone,
            grace_ms: GRACE.as_millis() as u64,
            heartbeat_ms: self.heartbeat.as_millis() as u64,
        };
        Ok((session, opened))
    }

    fn accepting(&self) -> Result<(), Refusal> {
        if self.hub.draining().is_ordered() {
            let refusal = Refusal::new(ErrorCode::Draining, "the node is leaving the cluster");
            return Err(refusal.with("nodes", self.hub.other_urls()));
        }
        match self.hub.why_not_ready() {
            // Play goes on without the store; only what needs it is refused.
            Some(why) if !self.hub.is_joined() => Err(Refusal::new(ErrorCode::NotReady, why)),
            Some(_) | None => Ok(()),
        }
    }
}
