//! The leader: one node at a time, for duties that must happen once.

use std::sync::Arc;

use crate::session::hub::Hub;

/// The leader: one node at a time, for duties that must happen once.
pub struct Leader {
    _hub: Arc<Hub>,
}

impl Leader {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { _hub: Arc::clone(hub) })
    }
}
