//! The matchmaker: tickets in, matches out.

pub mod form;
pub mod property;

use std::sync::Arc;

use rookery_protocol::client::{QueueRequest, ServerMessage};
use rookery_protocol::error::{ErrorCode, Refusal};

use crate::session::Session;
use crate::session::hub::Hub;

/// The matchmaker: tickets in, matches out.
pub struct Matchmaker {
    _hub: Arc<Hub>,
}

impl Matchmaker {
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
        _request: QueueRequest,
    ) -> Result<Option<ServerMessage>, Refusal> {
        Err(Refusal::new(ErrorCode::Unavailable, "not served by this version"))
    }
}
