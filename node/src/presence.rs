//! Presence: who is online, and who wants to know.

use std::sync::Arc;

use rookery_protocol::client::{PresenceRequest, ServerMessage};
use rookery_protocol::error::{ErrorCode, Refusal};

use crate::session::Session;
use crate::session::hub::Hub;

/// Presence: who is online, and who wants to know.
pub struct Presence {
    _hub: Arc<Hub>,
}

impl Presence {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { _hub: Arc::clone(hub) })
    }

    /// Serves a request of a session: the answer, or none when it was given already.
    ///
    /// # Errors
    /// The refusal that the client is told.
    pub async fn request(
        self: Arc<Self>,
        _session: Arc<Session>,
        _id: Option<i64>,
        _request: PresenceRequest,
    ) -> Result<Option<ServerMessage>, Refusal> {
        Err(Refusal::new(ErrorCode::Unavailable, "not served by this version"))
    }
}
