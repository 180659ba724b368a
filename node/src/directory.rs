//! Where players, matches and names are, as far as nodes have said so lately.

use std::sync::Arc;

use crate::session::hub::Hub;

/// Where players, matches and names are, as far as nodes have said so lately.
pub struct Directory {
    _hub: Arc<Hub>,
}

impl Directory {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { _hub: Arc::clone(hub) })
    }
}
