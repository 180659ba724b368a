//! The cluster's services on this node, and the one place where what happens on the node is handed to them: sessions that come
//! and go, nodes that come and go, messages of other nodes' services, requests of clients.
//!
//! No rules here. Each service is a file of its own and hears of what concerns it by a line below; none of them is on the way of
//! a match's messages.

use std::sync::Arc;

use bytes::Bytes;
use rookery_gossip::Channel;
use rookery_protocol::client::Request;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::{MatchId, NodeLife, NodeName};

use crate::chat::Chat;
use crate::config::Service;
use crate::content::Content;
use crate::directory::Directory;
use crate::leader::Leader;
use crate::matchmaker::Matchmaker;
use crate::party::Parties;
use crate::peer::{CHAT, DIRECTORY, MAIL};
use crate::post::Post;
use crate::presence::Presence;
use crate::records::Records;
use crate::session::Session;
use crate::session::hub::Hub;
use crate::session::listener::Listener;
use crate::storage::PlayerStorage;
use crate::worlds::Worlds;

/// All services of a node.
pub struct Services {
    pub directory: Arc<Directory>,
    pub presence: Arc<Presence>,
    pub chat: Arc<Chat>,
    pub leader: Arc<Leader>,
    pub worlds: Arc<Worlds>,
    pub matchmaker: Arc<Matchmaker>,
    pub parties: Arc<Parties>,
    pub content: Arc<Content>,
    pub storage: Arc<PlayerStorage>,
    pub records: Arc<Records>,
    pub post: Arc<Post>,
    without: Vec<Service>,
}

impl Services {
    /// Starts them. The hub is connected already; the node is not ready yet.
    pub fn start(hub: &Arc<Hub>) -> Self {
        Self {
            directory: Directory::start(hub),
            presence: Presence::start(hub),
            chat: Chat::start(hub),
            leader: Leader::start(hub),
            worlds: Worlds::start(hub),
            matchmaker: Matchmaker::start(hub),
            parties: Parties::start(hub),
            content: Content::start(hub),
            storage: PlayerStorage::start(hub),
            records: Records::start(hub),
            post: Post::start(hub),
            without: hub.config().node.without.clone(),
        }
    }

    /// A session is about to be opened here, and nobody finds it yet. `channels`: where the client was before, and the last line that
    /// it saw.
    pub fn session_opening(&self, session: &Arc<Session>, channels: Vec<(String, u64)>) {
        if !self.without.contains(&Service::Chat) {
            self.chat.session_opening(session, channels);
        }
    }

    /// A session was opened here. What is said to the session now is heard after `session.opened`.
    pub fn session_opened(&self, session: &Arc<Session>) {
        self.matchmaker.session_opened(session);
        self.parties.session_opened(session);
        self.chat.session_opened(session);
        self.presence.session_opened(session);
    }

    /// A session's socket is gone.
    pub fn session_closed(&self, session: &Session) {
        self.matchmaker.session_closed(session);
        self.parties.session_closed(session);
        self.chat.session_closed(session);
        self.presence.session_closed(session);
    }

    /// A player of a session here sat down in a match.
    pub fn seated(&self, session: &Session, target: MatchId) {
        self.matchmaker.seated(session.player(), target);
        self.presence.seated(session, target);
    }

    /// A session has no seat in a match any more.
    pub fn match_left(&self, session: &Session, target: MatchId) {
        self.chat.match_left(session, target);
        self.presence.left(session, target);
    }

    /// That life of a node is over.
    pub fn node_gone(&self, node: &NodeLife) {
        self.chat.node_gone(node);
        self.post.node_gone(node);
    }

    /// There is a new connection to a node: what was sent to it before may be lost.
    pub fn link_connected(&self, node: &NodeName) {
        self.chat.link_broken(node);
        self.directory.say_again(node);
        self.post.again();
    }

    /// What was last sent to a node on this channel may be lost.
    pub fn link_lost(&self, node: &NodeName, channel: Channel) {
        if channel == CHAT {
            self.chat.link_broken(node);
        }
        if channel == DIRECTORY {
            self.directory.say_again(node);
        }
        if channel == MAIL {
            self.post.again();
        }
    }

    /// A channel to a node takes messages again after it was full.
    pub fn link_writable(&self, node: &NodeName, channel: Channel) {
        if channel == CHAT {
            self.chat.link_writable(node);
        }
        if channel == DIRECTORY {
            self.directory.writable();
        }
        if channel == MAIL {
            self.post.again();
        }
    }

    /// A message of another node's services; false when the channel is none of theirs.
    pub fn message(&self, from: &NodeLife, channel: Channel, bytes: Bytes) -> bool {
        match channel {
            CHAT => self.chat.message(from, &bytes),
            DIRECTORY => return self.directory.message(from, &bytes),
            MAIL => return self.post.message(from, &bytes),
            _ => return false,
        }
        true
    }

    /// Something was said to a group.
    pub fn broadcast(&self, _from: &NodeLife, group: &str, bytes: Bytes) {
        if group == crate::content::GROUP {
            self.content.announced(&bytes);
        } else if group == crate::matchmaker::GROUP {
            self.matchmaker.announced(&bytes);
        } else if group == crate::party::GROUP {
            self.parties.announced(&bytes);
        }
        self.worlds.broadcast(group);
    }

    /// Refuses what is asked of a service that this node was told to do without.
    pub fn check(&self, service: Service) -> Result<(), Refusal> {
        if self.without.contains(&service) {
            let message = format!("this node runs without {} (node.without)", service.as_str());
            return Err(Refusal::new(ErrorCode::Unavailable, message));
        }
        Ok(())
    }

    /// Serves a client's request. Requests that belong to matches and sessions never come here.
    pub fn request(&self, session: &Arc<Session>, id: Option<i64>, request: Request) {
        if let Some(Err(refusal)) = service_of(&request).map(|service| self.check(service)) {
            return session.refuse(id, refusal);
        }
        match request {
            Request::Queue(request) => {
                let service = Arc::clone(&self.matchmaker);
                session.slowly(id, |_, session| service.request(session, id, request));
            }
            Request::Party(request) => {
                let service = Arc::clone(&self.parties);
                session.slowly(id, |_, session| service.request(session, id, request));
            }
            Request::Channel(request) => self.chat.request(session, id, request),
            Request::Presence(request) => {
                let service = Arc::clone(&self.presence);
                session.slowly(id, |_, session| service.request(session, id, request));
            }
            Request::Storage(request) => {
                let service = Arc::clone(&self.storage);
                session.slowly(id, |_, session| service.request(session, id, request));
            }
            Request::World(request) => {
                let service = Arc::clone(&self.worlds);
                session.slowly(id, |_, session| service.request(session, id, request));
            }
            Request::SessionOpen(_)
            | Request::SessionPing { .. }
            | Request::SessionClose
            | Request::MatchCreate { .. }
            | Request::MatchQuick { .. }
            | Request::MatchList { .. }
            | Request::MatchJoin { .. }
            | Request::MatchLeave { .. }
            | Request::MatchSend { .. } => unreachable!("the session serves these itself"),
        }
    }
}

/// Which service a client's request is for; none for what belongs to matches and sessions.
fn service_of(request: &Request) -> Option<Service> {
    match request {
        Request::Queue(_) => Some(Service::Matchmaker),
        Request::Party(_) => Some(Service::Parties),
        Request::Channel(_) => Some(Service::Chat),
        Request::Presence(_) => Some(Service::Presence),
        Request::Storage(_) => Some(Service::Storage),
        Request::World(_) => Some(Service::Worlds),
        Request::SessionOpen(_)
        | Request::SessionPing { .. }
        | Request::SessionClose
        | Request::MatchCreate { .. }
        | Request::MatchQuick { .. }
        | Request::MatchList { .. }
        | Request::MatchJoin { .. }
        | Request::MatchLeave { .. }
        | Request::MatchSend { .. } => None,
    }
}
