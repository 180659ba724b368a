//! Mail between matches, and players who are transferred.

use std::sync::Arc;

use crate::session::hub::Hub;

/// Mail between matches, and players who are transferred.
pub struct Post {
    _hub: Arc<Hub>,
}

impl Post {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { _hub: Arc::clone(hub) })
    }
}
