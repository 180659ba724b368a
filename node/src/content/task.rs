//! What a mirror wants, done: reads of the store, the announcement of writes to the other nodes, and the word to matches that a
//! value they may have read has changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use rookery_gossip::Membership;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, ContentNews};
use tokio::sync::{Notify, watch};

use super::{Copy, Effect, Input, Item, Mirror, PAGE_LEN};
use crate::modules::unavailable;
use crate::session::hub::Hub;
use crate::store::{ContentOutcome, ContentWrite};

/// The group of all nodes: every one keeps a copy.
pub const GROUP: &str = "content";

/// How long a write waits until this node's own copy has it. The write has happened all the same when it gives up.
const OWN_COPY_WITHIN: Duration = Duration::from_secs(2);

/// How often deletions that all nodes have heard of are forgotten, how old they must be, and how many go at once. A node that
/// slept for longer reads everything again.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
const DELETIONS_KEPT: Duration = Duration::from_secs(24 * 3_600);
const SWEPT_AT_ONCE: u32 = 1_000;

/// The node's copy of shared content.
pub struct Content {
    hub: Arc<Hub>,
    mirror: Mutex<Mirror>,
    /// The copy's version; none before it was whole once.
    version: watch::Sender<Option<u64>>,
    /// The highest version that any node announced.
    heard: AtomicU64,
    news: Notify,
    /// Keeps this node in the group; none when the mesh does not take the group, and announcements are missed.
    _group: Option<Membership>,
}

impl Content {
    /// Begins to read. Nothing is served before [`Content::loaded`].
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let group = hub.cluster().join(GROUP).map_err(|error| {
            tracing::warn!(%error, "writes of content will be noticed late");
        });
        let content = Arc::new(Self {
            hub: Arc::clone(hub),
            mirror: Mutex::default(),
            version: watch::Sender::new(None),
            heard: AtomicU64::new(0),
            news: Notify::new(),
            _group: group.ok(),
        });
        hub.spawn(Arc::clone(&content).run());
        hub.spawn(sweep(Arc::clone(hub)));
        content
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().expect("no thread panics holding it")
    }

    /// A value of the copy.
    ///
    /// # Errors
    /// `unavailable` before the copy was whole once.
    pub fn get(&self, collection: &str, key: &str) -> Result<Option<Item>, Refusal> {
        self.read(|copy| copy.get(collection, key).cloned())
    }

    /// A short look at the copy.
    ///
    /// # Errors
    /// `unavailable` before the copy was whole once.
    pub fn read<T>(&self, look: impl FnOnce(&Copy) -> T) -> Result<T, Refusal> {
        let mirror = self.mirror();
        if !mirror.is_loaded() {
            return Err(Refusal::new(ErrorCode::Unavailable, "content has not been read yet"));
        }
        Ok(look(mirror.copy()))
    }

    /// Waits until the copy is whole.
    pub async fn loaded(&self) {
        // It cannot be closed while we are here.
        let _ = self.version.subscribe().wait_for(Option::is_some).await;
    }

    /// Another node has written something.
    pub fn announced(&self, bytes: &Bytes) {
        match peer::decode::<ContentNews>(bytes) {
            Ok(news) => self.hear(news.version),
            Err(_) => self.hub.metrics().peer_undecodable.inc(),
        }
    }

    fn hear(&self, version: u64) {
        self.heard.fetch_max(version, Ordering::AcqRel);
        self.news.notify_one();
    }

    /// Writes or deletes a value for all nodes, and returns its version when this node's copy has it.
    ///
    /// # Errors
    /// `storage.conflict` with the version that stands, `storage.not_found`, `too_large`, `unavailable`.
    pub async fn write(&self, write: &ContentWrite) -> Result<u64, Refusal> {
        let hub = &self.hub;
        let written = hub.store().write_content(write).await;
        let version = match written.map_err(|error| unavailable(&error))? {
            ContentOutcome::Written { version } => version,
            ContentOutcome::Conflict { version: 0 } => {
                return Err(Refusal::new(ErrorCode::StorageConflict, "there is no such value").with("version", 0));
            }
            ContentOutcome::Conflict { version } => {
                return Err(
                    Refusal::new(ErrorCode::StorageConflict, "the value has another version").with("version", version),
                );
            }
            ContentOutcome::NotFound => return Err(Refusal::new(ErrorCode::StorageNotFound, "there is no such value")),
            ContentOutcome::Full { bytes } => {
                let limit = write.bytes_max;
                let message = format!("all content may take {limit} bytes on every node (content.total)");
                return Err(Refusal::new(ErrorCode::TooLarge, message)
                    .with("bytes", bytes)
                    .with("limit", limit));
            }
        };
        // Lost somewhere: that node compares versions within seconds.
        let news = peer::encode(&ContentNews { version });
        let _ = hub.cluster().broadcast(GROUP, &news);
        self.hear(version);
        let mut at = self.version.subscribe();
        let has_it = at.wait_for(|at| at.is_some_and(|at| at >= version));
        // Late: the copy follows by itself, and the value is written.
        let _ = tokio::time::timeout(OWN_COPY_WITHIN, has_it).await;
        Ok(version)
    }

    /// Keeps the copy equal to the store until the node stops.
    async fn run(self: Arc<Self>) {
        let hub = &self.hub;
        let mut effects = Vec::new();
        loop {
            let now_ms = hub.now_ms();
            let due_ms = self.mirror().next_wake_ms().unwrap_or(now_ms);
            let input = tokio::select! {
                () = self.news.notified() => Input::Heard {
                    version: self.heard.load(Ordering::Acquire),
                },
                () = tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(now_ms))) => Input::Wake,
            };
            self.mirror().step(hub.now_ms(), input, &mut effects);
            while !effects.is_empty() {
                let mut answer = None;
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Changed { collection, key } => {
                            hub.metrics().content_changes.inc();
                            hub.executor().content_changed(&collection, &key);
                        }
                        Effect::Read { after } => {
                            answer = Some(match hub.store().read_content(after, PAGE_LEN).await {
                                Ok(page) => Input::Page(page),
                                Err(error) => {
                                    tracing::debug!(
                                        error = &error as &dyn std::error::Error,
                                        "content was not compared"
                                    );
                                    Input::Failed
                                }
                            });
                        }
                    }
                }
                if let Some(answer) = answer {
                    self.mirror().step(hub.now_ms(), answer, &mut effects);
                }
                self.publish();
            }
        }
    }

    /// Says how far the copy is.
    fn publish(&self) {
        let metrics = self.hub.metrics();
        let (version, size) = {
            let mirror = self.mirror();
            if !mirror.is_loaded() {
                return;
            }
            (mirror.copy().version(), mirror.copy().size())
        };
        metrics.content_version.set(version as i64);
        metrics.content_values.set(size.items as i64);
        metrics.content_bytes.set(size.bytes as i64);
        self.version.send_if_modified(|at| at.replace(version) != Some(version));
    }
}

/// Forgets old deletions until the node stops.
async fn sweep(hub: Arc<Hub>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let older_than_ms = DELETIONS_KEPT.as_millis() as u64;
        match hub.store().sweep_content(older_than_ms, SWEPT_AT_ONCE).await {
            Ok(0) => {}
            Ok(swept) => tracing::debug!(swept, "deletions of content were forgotten"),
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "deletions were not swept"),
        }
    }
}
