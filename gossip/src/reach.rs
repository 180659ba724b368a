//! Which other nodes have members in a group: as gossip states them, and for groups that are too many for gossip as the directory
//! says. Whoever broadcasts to a group or asks for its nodes comes here and need not know which of the two it was.
//!
//! While no node says that it has groups in the directory, gossip knows all. Otherwise a group that somebody wants to reach is watched in
//! the directory, until nobody has wanted to for a minute; what is known lies ready, so the second broadcast costs two loads of a pointer
//! more than in gossip alone. The first one waits (`audience.rs`) until the homes have answered.
//!
//! The invariant: broadcasts to one group leave in the order in which one caller began them. What waits goes out, and then the group
//! is known, under the one lock that a caller who finds the group unknown takes, and under which it looks again.
//!
//! The lock of `inner` is taken after those of a link's telling and delivering and before those of its state and outbox. No lock of ours
//! is held when the owner is called.

mod task;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

pub(crate) use self::task::{has_elders, run};
use crate::audience::{Asked, Audiences};
use crate::cluster::Broadcast;
use crate::directory::{Directory, Key, Message};
use crate::error::SendError;
use crate::inbound::Channel;
use crate::link::{self, Links};
use crate::own::Own;
use crate::peer::{Life, NodeId};
use crate::stats::Counters;
use crate::suspicion::Time;

/// Entries, and watches, that this node keeps for others as a home: what forty nodes of a thousand groups each say, at two homes.
const KEPT_MAX: usize = 1 << 18;

/// How long a group that nobody wants to reach is still watched.
const WATCHED_FOR: Duration = Duration::from_secs(60);

/// Into how many parts the table of known groups is cut: adding one copies its part.
const PARTS: usize = 64;

/// How long `find` waits for the homes: a little longer than a broadcast does.
const FIND_WITHIN: Duration = Duration::from_millis(1_500);

pub(crate) struct Reach {
    local: Life,
    started_at: Instant,
    own: Arc<Mutex<Own>>,
    counters: Arc<Counters>,
    stated: ArcSwap<Stated>,
    known: Known,
    inner: Mutex<Inner>,
    /// Something was heard, or waits to be said.
    mail: Notify,
    /// Rings when a group has become known.
    answered: Notify,
}

/// What gossip says of groups.
#[derive(Debug, Default)]
pub(crate) struct Stated {
    /// The other nodes with members in each group.
    pub(crate) by_group: BTreeMap<String, Vec<NodeId>>,
    /// The other nodes that have groups in the directory.
    pub(crate) spilling: Vec<NodeId>,
}

struct Inner {
    directory: Directory,
    audiences: Audiences,
}

/// The groups whose nodes are known.
struct Known {
    parts: [ArcSwap<HashMap<String, Arc<Nodes>>>; PARTS],
    hasher: RandomState,
}

/// The other nodes that hold a group in the directory.
struct Nodes {
    nodes: ArcSwap<Vec<NodeId>>,
    /// When somebody last wanted to reach them, in milliseconds since the start.
    used_ms: AtomicU64,
}

impl Known {
    fn part(&self, group: &str) -> &ArcSwap<HashMap<String, Arc<Nodes>>> {
        &self.parts[self.hasher.hash_one(group) as usize % PARTS]
    }

    fn get(&self, group: &str) -> Option<Arc<Nodes>> {
        self.part(group).load().get(group).cloned()
    }

    /// The caller holds the lock, so that no two do this at once.
    fn insert(&self, group: &str, nodes: Arc<Nodes>) {
        let part = self.part(group);
        let mut changed = (**part.load()).clone();
        changed.insert(group.to_owned(), nodes);
        part.store(Arc::new(changed));
    }

    /// Takes out what was not used since; the caller holds the lock.
    fn take_unused(&self, since_ms: u64) -> Vec<String> {
        let mut unused = Vec::new();
        for part in &self.parts {
            let mut changed = (**part.load()).clone();
            let before = changed.len();
            changed.retain(|group, nodes| {
                let stays = nodes.used_ms.load(Ordering::Relaxed) >= since_ms;
                if !stays {
                    unused.push(group.clone());
                }
                stays
            });
            if changed.len() < before {
                part.store(Arc::new(changed));
            }
        }
        unused
    }
}

impl Reach {
    pub(crate) fn new(local: Life, started_at: Instant, own: Arc<Mutex<Own>>, counters: Arc<Counters>) -> Self {
        Self {
            started_at,
            own,
            counters,
            stated: ArcSwap::default(),
            known: Known {
                parts: std::array::from_fn(|_| ArcSwap::default()),
                hasher: RandomState::new(),
            },
            inner: Mutex::new(Inner {
                directory: Directory::new(local.clone(), KEPT_MAX),
                audiences: Audiences::default(),
            }),
            mail: Notify::new(),
            answered: Notify::new(),
            local,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics under this lock")
    }

    fn now(&self) -> Time {
        self.started_at.elapsed()
    }

    /// Whether this node has members in the group: a broadcast may come to a node that has just left, and to one that is merely asked
    /// because the directory did not answer.
    pub(crate) fn is_member(&self, group: &str) -> bool {
        self.own
            .lock()
            .expect("nothing panics under this lock")
            .members_of(group)
            > 0
    }

    /// There are groups of which the directory is to be told.
    pub(crate) fn ring(&self) {
        self.mail.notify_one();
    }

    /// Takes what gossip says now.
    pub(crate) fn state(&self, links: &Links, stated: Stated) {
        let mut inner = self.inner();
        if stated.spilling.is_empty() && !self.stated.load().spilling.is_empty() {
            // From now on nobody asks the directory, and what waits for it must not be overtaken.
            let asking: Vec<Key> = inner.audiences.asking().collect();
            for key in asking {
                self.settle(&mut inner, links, key);
            }
        }
        self.stated.store(Arc::new(stated));
    }

    /// Sends one copy to each other node with members in the group.
    pub(crate) fn broadcast(&self, links: &Links, group: &str, bytes: &Bytes) -> Broadcast {
        match self.nodes_known(group) {
            Some((stated, nodes)) => {
                let targets = targets(&stated, group, nodes.as_deref().map_or(&[], Vec::as_slice));
                self.send(links, targets, || link::write_broadcast(group, bytes))
            }
            None => self.ask_and_wait(links, group, link::write_broadcast(group, bytes)),
        }
    }

    /// What gossip states, and what the directory says of the group; none while it is to be asked.
    #[expect(clippy::type_complexity, reason = "a pair of loaded pointers that nobody else sees")]
    fn nodes_known(&self, group: &str) -> Option<(Arc<Stated>, Option<Arc<Vec<NodeId>>>)> {
        let stated = self.stated.load_full();
        if stated.spilling.is_empty() {
            return Some((stated, None));
        }
        let known = self.known.get(group)?;
        let now_ms = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        known.used_ms.store(now_ms, Ordering::Relaxed);
        Some((stated, Some(known.nodes.load_full())))
    }

    fn ask_and_wait(&self, links: &Links, group: &str, message: Bytes) -> Broadcast {
        let mut inner = self.inner();
        // It may have become known before we held the lock.
        if let Some((stated, nodes)) = self.nodes_known(group) {
            let targets = targets(&stated, group, nodes.as_deref().map_or(&[], Vec::as_slice));
            return self.send(links, targets, || message);
        }
        let Some(key) = self.ask(&mut inner, group) else {
            let stated = self.stated.load();
            return self.send(links, targets(&stated, group, &stated.spilling), || message);
        };
        let mut outcome = Broadcast::default();
        match inner.audiences.wait(group, message) {
            Ok(()) => outcome.waiting = true,
            Err(_) => {
                outcome.refused = 1;
                self.counters.dropped.add(1);
            }
        }
        // Where this node is every home the answer is there at once.
        if inner.directory.unanswered(key) == 0 {
            self.settle(&mut inner, links, key);
        }
        outcome
    }

    /// Sees to it that the directory is asked about a group; none when too many are already.
    fn ask(&self, inner: &mut Inner, group: &str) -> Option<Key> {
        let now = self.now();
        match inner.audiences.ask(now, group) {
            Asked::Now(key) => {
                inner.directory.watch(now, key);
                self.mail.notify_one();
                Some(key)
            }
            Asked::Before => Some(crate::audience::key_of(group)),
            Asked::TooMany => {
                self.counters.group_watches_refused.add(1);
                None
            }
        }
    }

    /// Sends what waited for a group's nodes, and lets further broadcasts go straight to them. When no home has answered, a copy goes to
    /// every node that has groups in the directory; those without members in this one drop it.
    fn settle(&self, inner: &mut Inner, links: &Links, key: Key) {
        let Some(group) = inner.audiences.group(key).map(str::to_owned) else {
            return;
        };
        let Some(waited) = inner.audiences.answered(key) else {
            return;
        };
        let stated = self.stated.load();
        let nodes = if inner.directory.is_known(key) {
            self.holders(inner, key)
        } else {
            self.counters.group_unanswered.add(1);
            stated.spilling.clone()
        };
        for message in waited {
            self.send(links, targets(&stated, &group, &nodes), || message);
        }
        let now_ms = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        let nodes = Nodes {
            nodes: ArcSwap::from_pointee(nodes),
            used_ms: AtomicU64::new(now_ms),
        };
        self.known.insert(&group, Arc::new(nodes));
        self.answered.notify_waiters();
    }

    /// The other nodes that hold a key, as far as its homes have said.
    fn holders(&self, inner: &Inner, key: Key) -> Vec<NodeId> {
        let seen = inner.directory.seen(key).into_iter().map(|entry| entry.holder.node);
        seen.filter(|node| *node != self.local.node).collect()
    }

    fn send<'a>(
        &self,
        links: &Links,
        targets: impl Iterator<Item = &'a NodeId>,
        message: impl FnOnce() -> Bytes,
    ) -> Broadcast {
        let mut outcome = Broadcast::default();
        let mut targets = targets.peekable();
        if targets.peek().is_none() {
            return outcome;
        }
        let message = message();
        for node in targets {
            match links.send(node, Channel::BROADCAST, message.clone()) {
                Ok(()) => outcome.copies += 1,
                Err(SendError::UnknownNode { .. } | SendError::Closed) => {}
                Err(SendError::Full | SendError::TooLarge { .. }) => {
                    outcome.refused += 1;
                    self.counters.dropped.add(1);
                }
            }
        }
        outcome
    }

    /// The other nodes with members in the group, as far as is known. A group that may be in the directory is looked for from now on.
    pub(crate) fn nodes(&self, links: &Links, group: &str) -> Vec<NodeId> {
        let known = self.nodes_known(group);
        if known.is_none() {
            let mut inner = self.inner();
            if let Some(key) = self.ask(&mut inner, group)
                && inner.directory.unanswered(key) == 0
            {
                self.settle(&mut inner, links, key);
            }
        }
        let (stated, nodes) = known
            .or_else(|| self.nodes_known(group))
            .unwrap_or_else(|| (self.stated.load_full(), None));
        let targets = targets(&stated, group, nodes.as_deref().map_or(&[], Vec::as_slice));
        // A node that has just left may still be named in the directory.
        targets.filter(|node| links.is_linked(node)).cloned().collect()
    }

    /// As `nodes`, but waits until the homes have answered, for a bounded time.
    pub(crate) async fn find(&self, links: &Links, group: &str) -> Vec<NodeId> {
        let answered = async {
            loop {
                let answered = self.answered.notified();
                tokio::pin!(answered);
                answered.as_mut().enable();
                let nodes = self.nodes(links, group);
                if self.nodes_known(group).is_some() {
                    return nodes;
                }
                answered.await;
            }
        };
        match timeout(FIND_WITHIN, answered).await {
            Ok(nodes) => nodes,
            Err(_) => self.nodes(links, group),
        }
    }

    /// Takes a message of another node's directory; false when it does not decode.
    pub(crate) fn message(&self, from: &Life, bytes: &[u8]) -> bool {
        let Ok(message) = Message::decode(bytes) else {
            return false;
        };
        self.inner().directory.message(self.now(), from, message);
        self.mail.notify_one();
        true
    }

    /// There is a new connection to a node, or what was sent to it may be lost.
    pub(crate) fn say_again(&self, node: &NodeId) {
        self.inner().directory.say_again(self.now(), node);
        self.mail.notify_one();
    }

    /// The directory's figures, and how many groups are watched in it.
    pub(crate) fn stats(&self) -> (crate::directory::DirectoryStats, u64) {
        let inner = self.inner();
        (inner.directory.stats(), inner.audiences.len() as u64)
    }
}

/// The nodes that gossip states for a group, and those of `others` that it does not: a group that moves from the directory into gossip
/// is in both for a while.
fn targets<'a>(stated: &'a Stated, group: &str, others: &'a [NodeId]) -> impl Iterator<Item = &'a NodeId> {
    let by_gossip = stated.by_group.get(group).map_or(&[][..], Vec::as_slice);
    let others = others.iter().filter(|node| !by_gossip.contains(node));
    by_gossip.iter().chain(others)
}
