//! Players' own values, over their sockets.

use std::sync::Arc;

use rookery_protocol::client::{ServerMessage, StorageRequest};
use rookery_protocol::error::{ErrorCode, Refusal};

use crate::session::Session;
use crate::session::hub::Hub;

/// Players' own values, over their sockets.
pub struct PlayerStorage {
    _hub: Arc<Hub>,
}

impl PlayerStorage {
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
        _request: StorageRequest,
    ) -> Result<Option<ServerMessage>, Refusal> {
        Err(Refusal::new(ErrorCode::Unavailable, "not served by this version"))
    }
}
