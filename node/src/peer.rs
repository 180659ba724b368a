//! What the mesh hands to this node: the streams of matches, in both directions, and questions of other nodes.
//!
//! Bytes of other nodes are input: what does not decode is dropped, counted and logged once in a while; nothing here trusts a
//! node to be who its message says, since the mesh already knows who sent it.

use std::sync::Arc;

use bytes::Bytes;
use rookery_gossip::{BoxFuture, Channel, Inbound, LinkEvent, Peer};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, Down, NodeSummary, PeerAnswer, PeerRequest, Up, Whereabouts};
use rookery_protocol::{MatchId, NodeLife};

use crate::matches::event::EndReason;
use crate::moving;
use crate::owner::executor::Listing;
use crate::recordings;
use crate::session::hub::Hub;
use crate::store::MatchStatus;
use crate::upgrading;

/// Joins, leaves and inputs, from gateways to owners.
pub const UP: Channel = Channel::new(0);

/// Outputs and answers, from owners to gateways.
pub const DOWN: Channel = Channel::new(1);

/// Of the services: where players, matches and names are, and who is online.
pub const DIRECTORY: Channel = Channel::new(2);

/// Of chat: lines, and who is interested in which channel.
pub const CHAT: Channel = Channel::new(3);

/// Mail between matches, and players on their way.
pub const MAIL: Channel = Channel::new(4);

/// Small hints between services (a ticket was matched, a world changed). What they say can also be read from the store.
pub const NOTICES: Channel = Channel::new(5);

/// The group of all nodes that keep modules: a publication is announced to it.
pub const MODULES_GROUP: &str = "modules";

/// Most matches in one answer to an operator's list.
const VIEWS_MAX: u32 = 1_000;

/// The node's ear on the mesh.
pub struct Ear {
    hub: Arc<Hub>,
}

impl Ear {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    fn undecodable(&self, from: &Peer, what: &str) {
        self.hub.metrics().peer_undecodable.inc();
        tracing::debug!(peer = %from.node, what, "a peer message does not decode");
    }
}

/// The life that a peer is, in the words of the rest of the node.
pub fn life_of(peer: &Peer) -> Option<NodeLife> {
    Some(NodeLife {
        name: peer.node.as_str().parse().ok()?,
        generation: peer.generation,
    })
}

impl Inbound for Ear {
    fn message(&self, from: &Peer, channel: Channel, bytes: Bytes) {
        let Some(life) = life_of(from).filter(|_| self.hub.is_connected()) else {
            return;
        };
        match channel {
            UP => match peer::decode::<Up>(&bytes) {
                // A full inbox: the gateway says it again.
                Ok(up) => drop(self.hub.executor().up(life, up)),
                Err(_) => self.undecodable(from, "up"),
            },
            DOWN => match peer::decode::<Down>(&bytes) {
                Ok(down) => self.hub.down(&life, down),
                Err(_) => self.undecodable(from, "down"),
            },
            _ if self.hub.services().message(&life, channel, bytes) => {}
            _ => self.undecodable(from, "channel"),
        }
    }

    fn request(&self, from: Peer, bytes: Bytes) -> BoxFuture<'static, Bytes> {
        let hub = Arc::clone(&self.hub);
        match peer::decode::<PeerRequest>(&bytes) {
            Ok(_) if !hub.is_connected() => {
                let refusal = Refusal::new(ErrorCode::NotReady, "the node is starting");
                Box::pin(std::future::ready(peer::encode(&PeerAnswer::Refused(refusal))))
            }
            Ok(request) => Box::pin(async move { peer::encode(&answer(hub, request).await) }),
            Err(_) => {
                self.undecodable(&from, "request");
                let refusal = Refusal::new(ErrorCode::UnknownType, "this version does not know the question");
                Box::pin(std::future::ready(peer::encode(&PeerAnswer::Refused(refusal))))
            }
        }
    }

    fn link(&self, peer: &Peer, event: LinkEvent) {
        let Some(NodeLife { name, generation }) = life_of(peer).filter(|_| self.hub.is_connected()) else {
            return;
        };
        match event {
            LinkEvent::Lost { channel } => self.hub.services().link_lost(&name, channel),
            LinkEvent::Writable { channel } => self.hub.services().link_writable(&name, channel),
            LinkEvent::Connected | LinkEvent::Gone => {}
        }
        match event {
            LinkEvent::Connected => self.hub.link_connected(&name),
            LinkEvent::Lost { channel } if channel == UP => self.hub.uplink_lost(&name),
            LinkEvent::Lost { channel } if channel == DOWN => self.hub.executor().link_lost(&name),
            LinkEvent::Writable { channel } if channel == DOWN => self.hub.executor().writable(&name),
            LinkEvent::Writable { channel } if channel == UP => self.hub.uplink_lost(&name),
            LinkEvent::Lost { .. } | LinkEvent::Writable { .. } => {}
            LinkEvent::Gone => self.hub.node_gone(name, generation),
        }
    }

    fn broadcast(&self, from: &Peer, group: &str, bytes: Bytes) {
        let Some(life) = life_of(from).filter(|_| self.hub.is_connected()) else {
            return;
        };
        if group == MODULES_GROUP
            && let Ok(name) = std::str::from_utf8(&bytes)
        {
            self.hub.modules().forget(name);
        }
        self.hub.services().broadcast(&life, group, bytes);
    }
}

/// Answers a question that another node, or an operator through this one, asks this node.
pub async fn answer(hub: Arc<Hub>, request: PeerRequest) -> PeerAnswer {
    match request {
        PeerRequest::Start { target } => start(&hub, target).await,
        PeerRequest::List(query) => PeerAnswer::Listed(hub.list_here(&query)),
        PeerRequest::Summary => PeerAnswer::Summary(NodeSummary {
            sessions: hub.session_count() as u64,
            matches: hub.executor().owned(),
            players: hub.services().presence.players() as u64,
            players_counted: hub.services().directory.players_counted(),
            version: env!("CARGO_PKG_VERSION").into(),
            why: hub.why_not_ready(),
        }),
        PeerRequest::View { target } => match hub.executor().view(target).await {
            Some(view) => PeerAnswer::View(Box::new(view)),
            None => PeerAnswer::NotHere,
        },
        PeerRequest::Views { after, limit, module } => {
            let mut views = Vec::new();
            let wanted = |listing: &Listing| module.as_ref().is_none_or(|module| *module == listing.module);
            let limit = limit.min(VIEWS_MAX) as usize;
            for target in hub.executor().ids(after, limit, wanted) {
                views.extend(hub.executor().view(target).await);
            }
            PeerAnswer::Views(views)
        }
        PeerRequest::Move { target, to, cause } => moving::hand_over(hub, target, to, cause).await,
        PeerRequest::Prepare { digest } => moving::prepare(&hub, digest).await,
        PeerRequest::Upgrade { target, digest } => upgrading::upgrade(hub, target, digest).await,
        PeerRequest::Take {
            target,
            epoch,
            piece,
            pieces,
            bytes,
        } => moving::take(&hub, target, epoch, (piece, pieces), &bytes).await,
        PeerRequest::Record { target } => recordings::offer(&hub, target).await,
        PeerRequest::RecordPiece { ticket, piece } => match hub.recordings().piece(ticket, piece) {
            Some(bytes) => PeerAnswer::Piece(bytes),
            None => PeerAnswer::NotHere,
        },
        PeerRequest::End { target } => found(hub.executor().end(target, EndReason::Operator).await),
        PeerRequest::Drain { deadline_ms } => {
            hub.draining().order(std::time::Duration::from_millis(deadline_ms));
            PeerAnswer::Done
        }
        PeerRequest::Lines { channel, lines } => {
            hub.services().chat.lines(&channel, lines);
            PeerAnswer::Done
        }
        PeerRequest::WhereIs { target } => whereabouts(hub.services().directory.whereis_here(target)),
        PeerRequest::WhoIs { name } => whereabouts(hub.services().directory.whois_here(&name)),
        PeerRequest::Kick { target, player, reason } => {
            if hub.executor().epoch_of(target).is_none() {
                return PeerAnswer::NotHere;
            }
            if hub.executor().kick(target, player, reason).await {
                return PeerAnswer::Done;
            }
            PeerAnswer::Refused(Refusal::new(
                ErrorCode::MatchNotJoined,
                "the player has no seat in that match",
            ))
        }
        PeerRequest::Standing { target, player } => match hub.executor().standing(target, player).await {
            Some(standing) => PeerAnswer::Standing(standing),
            None => PeerAnswer::NotHere,
        },
        PeerRequest::Compiled => PeerAnswer::Compiled(hub.modules().compiled_digests()),
        PeerRequest::Zones { targets, player } => {
            let here = hub.services().worlds.here(targets, player).await;
            PeerAnswer::Zones(Box::new(here))
        }
    }
}

fn whereabouts(known: Option<Whereabouts>) -> PeerAnswer {
    known.map_or(PeerAnswer::NotHere, PeerAnswer::Whereabouts)
}

fn found(found: bool) -> PeerAnswer {
    if found { PeerAnswer::Done } else { PeerAnswer::NotHere }
}

/// Starts a match whose row names us, if it still does.
async fn start(hub: &Arc<Hub>, target: MatchId) -> PeerAnswer {
    let row = match hub.store().read_match(target).await {
        Ok(Some(row)) => row,
        Ok(None) => return PeerAnswer::NotHere,
        Err(error) => return PeerAnswer::Refused(crate::modules::unavailable(&error)),
    };
    match row.status {
        MatchStatus::Starting if row.configuration.owner == *hub.local() => match hub.start(row, None).await {
            Ok(()) => PeerAnswer::Done,
            Err(refusal) => PeerAnswer::Refused(refusal),
        },
        MatchStatus::Running => PeerAnswer::Done,
        MatchStatus::Starting | MatchStatus::Ended | MatchStatus::Failed | MatchStatus::Lost => PeerAnswer::NotHere,
    }
}
