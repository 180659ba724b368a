//! Until when this node may speak for the matches that it holds under its lease. Read by the executor threads at the moment of
//! release, so that a process that stood still finds it closed before it says another word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::boot_ms;

/// The end of a fence that does not open again.
const SEALED: u64 = 0;

/// One for the node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fence {
    until_ms: Arc<AtomicU64>,
}

impl Default for Fence {
    /// A fence that is closed until it is opened.
    fn default() -> Self {
        Self {
            until_ms: Arc::new(AtomicU64::new(1)),
        }
    }
}

impl Fence {
    /// It stands open until then, on the clock of [`boot_ms`]; unless it was closed for good.
    pub fn open_until(&self, until_ms: u64) {
        let open = |before| (before != SEALED).then_some(until_ms.max(1));
        let _ = self.until_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, open);
    }

    /// Nothing is released any more, ever.
    pub fn seal(&self) {
        self.until_ms.store(SEALED, Ordering::Release);
    }

    /// Whether it was closed for good.
    pub fn is_sealed(&self) -> bool {
        self.until_ms.load(Ordering::Acquire) == SEALED
    }

    /// Whether what happens under the lease may be heard.
    pub fn is_open(&self) -> bool {
        boot_ms() < self.until_ms.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_closes_by_itself() {
        let fence = Fence::default();
        assert!(!fence.is_open());
        fence.open_until(boot_ms() + 60_000);
        assert!(fence.clone().is_open());
        fence.open_until(boot_ms());
        assert!(!fence.is_open());
        fence.seal();
        fence.open_until(boot_ms() + 60_000);
        assert!(!fence.is_open() && fence.is_sealed());
    }
}
