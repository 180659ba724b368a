//! What a match asks of the world outside itself, as data. An effect waits in the outbox of the host's part until its answer is
//! an event of the match; whoever performs it uses the id to do it once. Nothing here performs anything.

use bytes::Bytes;
use rookery_protocol::client::Role;
use rookery_protocol::output::Attachment;
use rookery_protocol::peer::Traveller;
use rookery_protocol::{PlayerId, Seat};
use serde::{Deserialize, Serialize};

/// Names an effect for ever, together with the match's id. Ordered as the effects were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectId {
    pub incarnation: u32,
    /// The event that made it, [`Record::no`](super::event::Record::no).
    pub event: u64,
    /// Its place among the effects of that event, from 0.
    pub index: u32,
}

/// One request of the guest. Those with a `request` number are answered by an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    Tell {
        request: u32,
        target: String,
        data: Bytes,
    },
    /// The player has left the match already; this is all that is needed to seat them elsewhere, or back here.
    Transfer {
        request: u32,
        seat: Seat,
        player: PlayerId,
        name: String,
        role: Role,
        #[serde(default)]
        team: Option<u32>,
        /// The connection that spoke for the seat.
        #[serde(default)]
        attachment: Option<Attachment>,
        #[serde(default)]
        is_away: bool,
        target: String,
        ctx: Bytes,
    },
    Say {
        channel: String,
        text: String,
    },
    Claim {
        request: u32,
        name: String,
    },
    Release {
        name: String,
    },
    StorageRead {
        request: u32,
        owner: Option<String>,
        collection: String,
        key: String,
    },
    StorageWrite {
        request: u32,
        owner: Option<String>,
        collection: String,
        key: String,
        value: Option<Bytes>,
        version: Option<String>,
    },
    StorageScan {
        request: u32,
        owner: Option<String>,
        collection: String,
        prefix: String,
        limit: u32,
    },
    ContentRead {
        request: u32,
        collection: String,
        key: String,
    },
}

impl Effect {
    /// The number under which the guest expects an answer; none for effects that nobody waits for.
    pub fn request(&self) -> Option<u32> {
        match self {
            Self::Tell { request, .. }
            | Self::Transfer { request, .. }
            | Self::Claim { request, .. }
            | Self::StorageRead { request, .. }
            | Self::StorageWrite { request, .. }
            | Self::StorageScan { request, .. }
            | Self::ContentRead { request, .. } => Some(*request),
            Self::Say { .. } | Self::Release { .. } => None,
        }
    }

    /// Whether it goes to another match, by the post.
    pub fn is_mail(&self) -> bool {
        matches!(self, Self::Tell { .. } | Self::Transfer { .. })
    }

    /// Where it goes to, if it is mail: an id or a name.
    pub fn mail_target(&self) -> Option<&str> {
        match self {
            Self::Tell { target, .. } | Self::Transfer { target, .. } => Some(target),
            Self::Say { .. }
            | Self::Claim { .. }
            | Self::Release { .. }
            | Self::StorageRead { .. }
            | Self::StorageWrite { .. }
            | Self::StorageScan { .. }
            | Self::ContentRead { .. } => None,
        }
    }

    /// The player who is on the way, if it is a transfer.
    pub fn traveller(&self) -> Option<Traveller> {
        match self {
            Self::Transfer {
                player,
                name,
                role,
                team,
                attachment,
                is_away,
                ctx,
                ..
            } => Some(Traveller {
                player: *player,
                name: name.clone(),
                role: *role,
                team: *team,
                attachment: attachment.clone(),
                is_away: *is_away,
                ctx: ctx.clone(),
            }),
            Self::Tell { .. }
            | Self::Say { .. }
            | Self::Claim { .. }
            | Self::Release { .. }
            | Self::StorageRead { .. }
            | Self::StorageWrite { .. }
            | Self::StorageScan { .. }
            | Self::ContentRead { .. } => None,
        }
    }

    /// The bytes it carries.
    pub fn bytes(&self) -> usize {
        let opt = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        match self {
            Self::Tell { target, data, .. } => target.len() + data.len(),
            Self::Transfer { target, ctx, .. } => target.len() + ctx.len(),
            Self::Say { channel, text } => channel.len() + text.len(),
            Self::Claim { name, .. } | Self::Release { name } => name.len(),
            Self::StorageRead {
                owner, collection, key, ..
            } => opt(owner) + collection.len() + key.len(),
            Self::StorageWrite {
                owner,
                collection,
                key,
                value,
                version,
                ..
            } => {
                let value = value.as_ref().map_or(0, Bytes::len);
                opt(owner) + collection.len() + key.len() + value + opt(version)
            }
            Self::StorageScan {
                owner,
                collection,
                prefix,
                ..
            } => opt(owner) + collection.len() + prefix.len(),
            Self::ContentRead { collection, key, .. } => collection.len() + key.len(),
        }
    }
}
