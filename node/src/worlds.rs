//! Worlds: zones that should always exist, and the way into them.

use std::sync::Arc;

use rookery_protocol::client::{ServerMessage, WorldRequest};
use rookery_protocol::error::{ErrorCode, Refusal};

use crate::session::Session;
use crate::session::hub::Hub;

/// Worlds: zones that should always exist, and the way into them.
pub struct Worlds {
    _hub: Arc<Hub>,
}

impl Worlds {
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
        _request: WorldRequest,
    ) -> Result<Option<ServerMessage>, Refusal> {
        Err(Refusal::new(ErrorCode::Unavailable, "not served by this version"))
    }
}
