//! What one node may have under way here: requests, bytes of requests and of answers, and gossip. A node that takes more than its share
//! is refused more, and counted; nobody else waits for it. The shares belong to the node, not to a connection, so that closing one and
//! beginning another gives nothing back before its work is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::peer::NodeId;

/// Requests of one node that are being answered. One connection cannot have as many, so this is only for who begins several.
const REQUESTS_MAX: usize = 256;

/// Bytes of requests that came and of answers that wait to be fetched, of one node, in messages of the longest length. Without this
/// bound 192 streams of 4 MiB could be pinned by a node that writes slowly and reads nothing.
const MESSAGES_MAX: usize = 8;

/// Gossip of one node that waits for the library, of the 256 messages that may wait in all.
const WAITING_MAX: usize = 64;

/// How much gossip one node may send: 8 MiB a second and 16 at once, where each message counts for 2 KiB more than it is long, since
/// it has to be answered. A node of a busy cluster of 100 sends a peer some 20 messages and 100 kB in a second.
const GOSSIP_UNIT: usize = 1 << 10;
const GOSSIP_UNIT_INTERVAL: Duration = Duration::from_micros(122);
const GOSSIP_UNITS_BURST: u32 = 16 << 10;
const GOSSIP_MESSAGE_COST: usize = 2 << 10;

/// How much of a request is read at once.
const READ_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Budget {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    gossip: Mutex<(Bucket, Instant)>,
}

/// Why a request was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotRead {
    TooLong,
    /// Its node has as much under way as it may.
    NoRoom,
    /// The stream or its connection broke.
    Broken,
}

impl Budget {
    fn new(message_bytes_max: usize) -> Self {
        let bytes_max = message_bytes_max
            .saturating_mul(MESSAGES_MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            gossip: Mutex::new((Bucket::new(GOSSIP_UNIT_INTERVAL, GOSSIP_UNITS_BURST), Instant::now())),
        }
    }

    /// A place among the requests that are being answered.
    pub(crate) fn request(&self) -> Option<OwnedSemaphorePermit> {
        self.requests.clone().try_acquire_owned().ok()
    }

    /// Room for this many bytes. More than all of it is never there.
    pub(crate) fn bytes(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        let len = u32::try_from(len).ok()?;
        self.bytes.clone().try_acquire_many_owned(len).ok()
    }

    /// Admits a gossip message of this length, and gives it a place among those that wait.
    pub(crate) fn gossip(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from((len + GOSSIP_MESSAGE_COST) / GOSSIP_UNIT).ok()?;
        {
            let mut gossip = self.gossip.lock().expect("nothing panics under this lock");
            let now = gossip.1.elapsed();
            if !gossip.0.take(now, units) {
                return None;
            }
        }
        self.waiting.clone().try_acquire_owned().ok()
    }

    /// Reads a stream to its end, holding room for what has come. The caller bounds the time.
    pub(crate) async fn read(
        &self,
        stream: &mut RecvStream,
        len_max: usize,
    ) -> Result<(Bytes, OwnedSemaphorePermit), NotRead> {
        let mut room = self.bytes(0).ok_or(NotRead::NoRoom)?;
        let mut whole = BytesMut::new();
        while let Some(chunk) = stream
            .read_chunk(READ_BYTES, true)
            .await
            .map_err(|_: ReadError| NotRead::Broken)?
        {
            if whole.len() + chunk.bytes.len() > len_max {
                return Err(NotRead::TooLong);
            }
            room.merge(self.bytes(chunk.bytes.len()).ok_or(NotRead::NoRoom)?);
            whole.extend_from_slice(&chunk.bytes);
        }
        Ok((whole.freeze(), room))
    }
}

/// The budgets of all nodes that have a connection, or work under way.
#[derive(Debug)]
pub(crate) struct Budgets {
    by_node: Mutex<BTreeMap<NodeId, Weak<Budget>>>,
    message_bytes_max: usize,
}

impl Budgets {
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        Self {
            by_node: Mutex::default(),
            message_bytes_max,
        }
    }

    pub(crate) fn of(&self, node: &NodeId) -> Arc<Budget> {
        let mut budgets = self.by_node.lock().expect("nothing panics under this lock");
        if let Some(budget) = budgets.get(node).and_then(Weak::upgrade) {
            return budget;
        }
        // Once a connection, so that it never grows beyond who is or was just connected.
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Budget::new(self.message_bytes_max));
        budgets.insert(node.clone(), Arc::downgrade(&budget));
        budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_gossip_is_cut_to_its_rate_and_its_places() {
        let budget = Budget::new(1_000);
        let held: Vec<_> = std::iter::from_fn(|| budget.gossip(100)).collect();
        assert_eq!(held.len(), WAITING_MAX, "the places are what is short");
        drop(held);
        let admitted = (0..100_000).filter(|_| budget.gossip(100).is_some()).count();
        let burst = (GOSSIP_UNITS_BURST as usize) / 2;
        assert!(admitted < burst, "{admitted}");
        assert!(budget.gossip(1 << 20).is_none());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = (0..100_000).filter(|_| budget.gossip(100).is_some()).count();
        assert!((4_000..4_200).contains(&again), "{again}");
    }

    #[test]
    fn a_share_is_the_nodes_and_outlives_its_connection_while_work_is_under_way() {
        let budgets = Budgets::new(1_000);
        let all = 8_000;
        let (one, other) = ("n1".parse().unwrap(), "n2".parse().unwrap());
        let budget = budgets.of(&one);
        let place = budget.request().unwrap();
        let full = budget.bytes(all).unwrap();
        assert!(budget.bytes(1).is_none());
        assert!(budgets.of(&other).bytes(all).is_some(), "another node has its own");
        let again = budgets.of(&one);
        assert!(again.bytes(1).is_none());
        drop((budget, again, place, full));
        assert!(budgets.of(&one).bytes(all).is_some());
        assert_eq!(budgets.by_node.lock().unwrap().len(), 1);
    }
}
