//! Zones: matches that nobody created, and that go from node to node by order of the leader.

use std::sync::Arc;

use rookery_protocol::client::Payload;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::{MatchId, NodeLife};

use super::Hub;
use crate::store::{MatchKind, NewMatch as NewRow};

impl Hub {
    /// Creates a zone's match under its name, on this node or another. Of many who do so at once one succeeds.
    ///
    /// # Errors
    /// `module.not_found`, `bad_message` (parameters that the module does not take), `name.taken`, `match.refused`,
    /// `module.invalid`, `unavailable`.
    pub async fn create_zone(
        self: &Arc<Self>,
        name: String,
        module: &str,
        params: Payload,
        on: NodeLife,
    ) -> Result<MatchId, Refusal> {
        let published = self.modules().resolve(module).await?;
        let params = params
            .into_bytes(published.manifest.codec)
            .map_err(|error| Refusal::new(ErrorCode::BadMessage, format!("params: {error}")))?;
        let row = self.new_row(&published, params, None);
        let row = NewRow {
            kind: MatchKind::Zone,
            name: Some(name),
            owner: on,
            creator_alive_max: None,
            ..row
        };
        self.create_row(published, row).await
    }
}
