//! What a link needs of a session: who it is, and the way back to its client. Sessions are one; the simulation of links and
//! rooms has another.

use std::sync::Arc;

use bytes::Bytes;
use rookery_protocol::client::{Encoding, JoinRole, ServerMessage};
use rookery_protocol::error::Refusal;
use rookery_protocol::output::Attachment;
use rookery_protocol::{MatchId, NodeLife, PlayerId, Seat};

/// Where a transfer has brought a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub from: MatchId,
    pub to: MatchId,
    pub owner: NodeLife,
    pub epoch: u64,
    pub role: JoinRole,
}

/// One who sits in matches and hears them. No call blocks, and none calls back into the link.
pub trait Listener: Send + Sync + 'static {
    fn player(&self) -> PlayerId;
    /// The player's display name.
    fn name(&self) -> &str;
    fn attachment(&self) -> &Attachment;
    fn encoding(&self) -> Encoding;
    /// The socket is gone: nobody listens.
    fn is_closed(&self) -> bool;

    /// Queues a frame for the client, reliably and in order.
    fn push(&self, frame: Bytes);
    /// Queues the newest value of a key, instead of an older one that still waits.
    fn push_latest(&self, target: MatchId, key: Arc<str>, frame: Bytes);
    /// Answers an input that was refused as for its rate: with its number, or by a push at most once a second.
    fn refuse_input(&self, id: Option<i64>, message: &str, retry_ms: u64);

    /// Notes the seat that it has in a match.
    fn seated(&self, target: MatchId, seat: Seat);
    /// It is no longer in that match.
    fn forget_match(&self, target: MatchId);
    /// The join was refused: the match is forgotten unless it sits there by an earlier one.
    fn join_refused(&self, target: MatchId);

    /// Its player sits in another match now: it goes there.
    fn follow(self: &Arc<Self>, moved: Moved);

    /// Queues a message for the client, reliably and in order.
    fn send(&self, id: Option<i64>, message: &ServerMessage) {
        self.push(message.encode(id, self.encoding()));
    }

    /// Answers a request with a refusal. A request without a number hears of it by an `error` push.
    fn refuse(&self, id: Option<i64>, refusal: Refusal) {
        self.send(id, &ServerMessage::Error(refusal));
    }
}
