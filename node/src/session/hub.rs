//! The gateway's centre: what a node is made of, its sessions, and in files of their own the links of all matches that these
//! sessions are in (`links`, `lookup`), what sessions ask that concerns more than one match (`create`, `start`, `find`, `player`), and
//! questions to other nodes (`peers`).
//!
//! It owns no rule of a match; those are `link` (here) and `owner::room` (there). Nothing on the message path waits for the
//! store: a look-up happens when a match is first asked for, or is no longer where it was.

mod create;
mod find;
mod links;
mod lookup;
mod peers;
mod player;
mod start;
mod zone;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rookery_gossip::{Cluster, NodeId};
use rookery_protocol::client::ServerMessage;
use rookery_protocol::{MatchId, NodeLife, NodeName, PlayerId, SessionId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::create::CreateWish;
pub use self::find::QuickWish;
use super::Session;
use super::link::Link;
use super::listener::Listener;
use crate::config::Config;
use crate::drain::task::Draining;
use crate::metrics::Metrics;
use crate::modules::Modules;
use crate::moving::Incoming;
use crate::owner::Executor;
use crate::owner::fence::Fence;
use crate::owner::saver::{self, Saver};
use crate::recordings::Recordings;
use crate::services::Services;
use crate::store::{Store, StoreError};

/// Matches that wait to be looked for. A node has far fewer links.
const LOOKUPS_MAX: usize = 65_536;

/// Everything a hub stands on.
pub struct HubParts {
    pub local: NodeLife,
    pub config: Arc<Config>,
    pub store: Store,
    pub modules: Modules,
    pub metrics: Arc<Metrics>,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

/// The sessions with a socket here.
#[derive(Default)]
struct Sessions {
    by_id: HashMap<SessionId, Arc<Session>>,
    by_player: BTreeSet<(PlayerId, SessionId)>,
}

impl Sessions {
    fn insert(&mut self, session: Arc<Session>) {
        self.by_player.insert((session.player(), session.id()));
        self.by_id.insert(session.id(), session);
    }

    fn remove(&mut self, session: &Session) {
        self.by_player.remove(&(session.player(), session.id()));
        self.by_id.remove(&session.id());
    }

    fn of_player(&self, player: PlayerId) -> impl Iterator<Item = &Arc<Session>> {
        let (first, last) = (SessionId::from_u128(0), SessionId::from_u128(u128::MAX));
        self.by_player
            .range((player, first)..=(player, last))
            .filter_map(|(_, session)| self.by_id.get(session))
    }
}

/// The gateway's centre. Shared by all its sessions.
pub struct Hub {
    parts: HubParts,
    joined: AtomicBool,
    draining: Draining,
    executor: OnceLock<Executor>,
    cluster: OnceLock<Cluster>,
    services: OnceLock<Services>,
    links: Mutex<HashMap<MatchId, Arc<Mutex<Link<Session>>>>>,
    sessions: Mutex<Sessions>,
    next_stream: AtomicU64,
    /// Matches here of which it is being found out whether their row says that they run, with their epochs.
    unconfirmed: Mutex<HashSet<(MatchId, u64)>>,
    lookups: mpsc::Sender<MatchId>,
    saver: Saver,
    fence: Fence,
    incoming: Incoming,
    recordings: Arc<Recordings>,
    started: Instant,
}

impl Hub {
    pub fn new(parts: HubParts) -> Arc<Self> {
        let (lookups, wanted) = mpsc::channel(LOOKUPS_MAX);
        let (saver, saves) = Saver::new();
        let hub = Arc::new(Self {
            joined: AtomicBool::new(false),
            draining: Draining::default(),
            executor: OnceLock::new(),
            cluster: OnceLock::new(),
            services: OnceLock::new(),
            links: Mutex::default(),
            sessions: Mutex::default(),
            unconfirmed: Mutex::default(),
            // Above those of every earlier life of this node, as long as it opened fewer than a thousand a millisecond.
            next_stream: AtomicU64::new(parts.local.generation << 10),
            lookups,
            saver,
            fence: Fence::default(),
            incoming: Incoming::default(),
            recordings: Arc::new(Recordings::new(&parts.config.node.data_dir)),
            started: Instant::now(),
            parts,
        });
        hub.spawn(Arc::clone(&hub).look_up(wanted));
        hub.spawn(saver::run(Arc::clone(&hub), saves));
        hub
    }

    /// Gives the hub what could not be there before it.
    pub fn connect(&self, executor: Executor, cluster: Cluster) {
        let first = self.executor.set(executor).is_ok() && self.cluster.set(cluster).is_ok();
        assert!(first, "a hub is connected once");
    }

    /// Gives the hub the services, which stand on it.
    pub fn serve(&self, services: Services) {
        let first = self.services.set(services).is_ok();
        assert!(first, "the services are started once");
    }

    /// Whether the hub has all it needs. What comes from peers before is not for it.
    pub fn is_connected(&self) -> bool {
        self.services.get().is_some()
    }

    /// The node is in its cluster: a peer answered, or nobody did in time.
    pub fn set_joined(&self) {
        self.joined.store(true, Ordering::Release);
    }

    pub fn is_joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }

    /// The order to leave the cluster.
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// Why players should not be sent here; none when they may.
    pub fn why_not_ready(&self) -> Option<String> {
        if self.draining.is_ordered() {
            Some("draining".into())
        } else if !self.is_joined() {
            Some("joining the cluster".into())
        } else if !*self.store().up().borrow() {
            Some("the store does not answer".into())
        } else {
            None
        }
    }

    /// Where clients reach the nodes that take them, this one first.
    pub fn urls(&self) -> Vec<String> {
        let members = self.cluster().members().borrow().clone();
        let url = |member: &rookery_gossip::Member| member.facts.get("ep").cloned();
        let here = node_id(&self.local().name).and_then(|node| members.get(&node).and_then(url));
        let others = members
            .ready()
            .filter(|member| member.peer.node.as_str() != self.local().name.as_str());
        here.into_iter().chain(others.filter_map(url)).collect()
    }

    /// Where clients reach the other nodes.
    pub fn other_urls(&self) -> Vec<String> {
        let mut urls = self.urls();
        urls.drain(..urls.len().min(1));
        urls
    }

    /// What an earlier life of this node left behind is over.
    ///
    /// # Errors
    /// The store's.
    pub async fn bury_earlier_life(self: &Arc<Self>) -> Result<(), StoreError> {
        let NodeLife { name, generation } = self.local();
        self.bury(name, generation - 1).await
    }

    pub fn executor(&self) -> &Executor {
        self.executor
            .get()
            .expect("the hub is connected before sessions and peers are let in")
    }

    pub fn cluster(&self) -> &Cluster {
        self.cluster
            .get()
            .expect("the hub is connected before sessions and peers are let in")
    }

    pub fn services(&self) -> &Services {
        self.services
            .get()
            .expect("the services are started before sessions and peers are let in")
    }

    pub fn local(&self) -> &NodeLife {
        &self.parts.local
    }

    pub fn config(&self) -> &Config {
        &self.parts.config
    }

    pub fn store(&self) -> &Store {
        &self.parts.store
    }

    pub fn modules(&self) -> &Modules {
        &self.parts.modules
    }

    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// The way of matches' states into the store.
    pub fn saver(&self) -> &Saver {
        &self.saver
    }

    /// Matches on their way to this node.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// What this node has of recordings.
    pub fn recordings(&self) -> &Arc<Recordings> {
        &self.recordings
    }

    /// Until when this node speaks for what it holds under its lease.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Milliseconds since the node started; never runs back.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub fn unix_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }

    /// Runs something that ends with the node.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.parts.shutdown.clone();
        self.parts.tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// A session was opened. `channels`: those that its client was in, and the last line that it saw of each.
    pub fn session_opened(&self, session: &Arc<Session>, channels: Vec<(String, u64)>) {
        self.services().session_opening(session, channels);
        self.sessions().insert(Arc::clone(session));
        self.services().session_opened(session);
    }

    /// A session's socket is gone.
    pub fn session_closed(&self, session: &Session) {
        self.sessions().remove(session);
        self.services().session_closed(session);
    }

    /// Sessions with a socket here.
    pub fn session_count(&self) -> usize {
        self.sessions().by_id.len()
    }

    /// Every session with a socket here.
    pub fn all_sessions(&self) -> Vec<Arc<Session>> {
        self.sessions().by_id.values().cloned().collect()
    }

    /// The session with this id, while its socket is here.
    pub fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions().by_id.get(&id).cloned()
    }

    /// The sessions of a player that have a socket here.
    pub fn sessions_of(&self, player: PlayerId) -> Vec<Arc<Session>> {
        self.sessions().of_player(player).cloned().collect()
    }

    /// Says something to every session of a player that has a socket here; whether there was one.
    pub fn notify(&self, player: PlayerId, message: &ServerMessage) -> bool {
        let sessions = self.sessions_of(player);
        sessions.iter().for_each(|session| session.send(None, message));
        !sessions.is_empty()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().expect("no thread panics holding it")
    }
}

/// The mesh's name for a node.
pub fn node_id(name: &NodeName) -> Option<NodeId> {
    name.as_str().parse().ok()
}
