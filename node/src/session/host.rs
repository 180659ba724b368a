//! Opens sessions for sockets: checks who it is, takes an attachment number, and says where the session stands.

use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::SessionId;
use rookery_protocol::client::{GoneMatch, ServerMessage, SessionOpen};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::output::Attachment;

use super::hub::Hub;
use super::listener::Listener;
use super::{Identity, Session};
use crate::auth::{self, Accounts, ResumeToken};
use crate::gateway::connection::{SessionHost, SocketInfo};

/// What clients are told of how long a seat is kept; each module's manifest has its own, and this is the SDK's default.
const GRACE: Duration = Duration::from_secs(15);

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
            // Sessions do not outlive their socket yet: what was resumed is answered in `gone`, and joined again.
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
        hub.session_opened(&session, resume.channels);
        let gone = resume.matches.into_iter().map(|(target, _)| GoneMatch {
            target,
            why: "join_again".into(),
            result: None,
        });
        let opened = ServerMessage::SessionOpened {
            session: session.id(),
            player: session.player(),
            node: hub.local().name.to_string(),
            nodes: hub.urls(),
            resume_token,
            resumed: false,
            matches: Vec::new(),
            gone: gone.collect(),
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
