//! Shared content: the same small values on every node.

use std::sync::Arc;

use crate::session::hub::Hub;

/// Shared content: the same small values on every node.
pub struct Content {
    _hub: Arc<Hub>,
}

impl Content {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { _hub: Arc::clone(hub) })
    }
}
