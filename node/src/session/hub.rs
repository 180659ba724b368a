//! The gateway's centre: the links of all matches that this node's sessions are in, and what sessions ask that concerns more
//! than one match (create, find, list).
//!
//! It owns no rule of a match; those are `link` (here) and `owner::room` (there). Nothing on the message path waits for the
//! store: a look-up happens when a match is first asked for, or is no longer where it was.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rookery_gossip::{Cluster, MemberState, NodeId};
use rookery_protocol::client::{JoinRole, ListedMatch, Payload, ServerMessage};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{
    self, Down, DownFrame, ListQuery, Over, PeerAnswer, PeerRequest, Up, UpBody, WirePayload,
};
use rookery_protocol::{MatchId, NodeLife, NodeName, PlayerId, SessionId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Session;
use super::link::{HOLD_MS, JoinAsk, Link, Route, Seating, Uplink};
use super::listener::Listener;
use crate::config::{Config, Create};
use crate::matches::start;
use crate::metrics::Metrics;
use crate::modules::{Modules, Published, unavailable};
use crate::owner::Executor;
use crate::owner::executor::NewMatch;
use crate::owner::room::RoomConfig;
use crate::peer::UP;
use crate::placement::{self, Candidate};
use crate::services::Services;
use crate::store::{
    Cas, Configuration, CreateMatchError, FinalStatus, Finish, MatchKind, MatchRow, MatchStatus, NewMatch as NewRow,
    Swap,
};
use crate::store::{Store, StoreError};

/// How long a node may take to answer another one's question.
const ASK_WITHIN: Duration = Duration::from_secs(3);

/// How long a node may take to start a match for another: compiling the module on first use is part of it.
const START_WITHIN: Duration = Duration::from_secs(20);

/// Between two looks for a match that is not where the store says it is.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Between two tries of the store while it is away.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// How often links are woken that have something to do.
const WAKE_EVERY: Duration = Duration::from_millis(50);

/// A node whose clock jumped by this much was not running, and may have been taken for dead: no profile does that sooner.
const MISSED_AFTER: Duration = Duration::from_secs(1);

/// How long after it runs again others may still be writing what they concluded: suspicion's last step, and a grouped write.
const VERDICT_WITHIN: Duration = Duration::from_secs(5);

/// Matches checked between two looks at what there is.
const DROPS_AT_ONCE: usize = 256;

/// Matches that wait to be looked for. A node has far fewer links.
const LOOKUPS_MAX: usize = 65_536;

/// Matches looked for at once: each is a read of the store every quarter of a second.
const LOOKUPS_AT_ONCE: usize = 256;

/// Rounds in which `match.quick` looks for a match or makes one before it gives up.
const QUICK_ROUNDS: usize = 8;

/// Most matches in one answer to `match.list`.
const LIST_MAX: u32 = 500;

/// What a session wants to create.
#[derive(Debug)]
pub struct CreateWish {
    pub module: String,
    pub params: Payload,
    pub private: bool,
    pub name: Option<String>,
    pub quick_key: Option<String>,
}

/// What a session wants to find or create.
#[derive(Debug)]
pub struct QuickWish {
    pub module: String,
    pub label: Vec<(String, String)>,
    pub params: Payload,
    pub ctx: WirePayload,
}

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
    executor: OnceLock<Executor>,
    cluster: OnceLock<Cluster>,
    services: OnceLock<Services>,
    links: Mutex<HashMap<MatchId, Arc<Mutex<Link<Session>>>>>,
    sessions: Mutex<Sessions>,
    next_stream: AtomicU64,
    lookups: mpsc::Sender<MatchId>,
    started: Instant,
}

impl Hub {
    pub fn new(parts: HubParts) -> Arc<Self> {
        let (lookups, wanted) = mpsc::channel(LOOKUPS_MAX);
        let hub = Arc::new(Self {
            joined: AtomicBool::new(false),
            executor: OnceLock::new(),
            cluster: OnceLock::new(),
            services: OnceLock::new(),
            links: Mutex::default(),
            sessions: Mutex::default(),
            // Above those of every earlier life of this node, as long as it opened fewer than a thousand a millisecond.
            next_stream: AtomicU64::new(parts.local.generation << 10),
            lookups,
            started: Instant::now(),
            parts,
        });
        hub.spawn(Arc::clone(&hub).look_up(wanted));
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

    /// Why players should not be sent here; none when they may.
    pub fn why_not_ready(&self) -> Option<String> {
        if !self.is_joined() {
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

    // Sessions

    /// A session was opened. `channels`: those that its client was in, and the last line that it saw of each.
    pub fn session_opened(&self, session: &Arc<Session>, channels: Vec<(String, u64)>) {
        self.sessions().insert(Arc::clone(session));
        self.services().session_opened(session, channels);
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

    // Links

    fn links(&self) -> std::sync::MutexGuard<'_, HashMap<MatchId, Arc<Mutex<Link<Session>>>>> {
        self.links.lock().expect("no thread panics holding it")
    }

    fn link(&self, target: MatchId) -> Option<Arc<Mutex<Link<Session>>>> {
        self.links().get(&target).cloned()
    }

    fn link_or_insert(&self, target: MatchId, route: Route) -> Arc<Mutex<Link<Session>>> {
        let mut links = self.links();
        let fresh = || {
            let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
            Arc::new(Mutex::new(Link::new(target, stream, route.clone())))
        };
        let link = links.entry(target).or_insert_with(fresh);
        let over = {
            let mut held = lock(link);
            if held.is_over() {
                held.retire();
            }
            held.is_over()
        };
        if over {
            *link = fresh();
        }
        Arc::clone(link)
    }

    fn all_links(&self) -> Vec<Arc<Mutex<Link<Session>>>> {
        self.links().values().cloned().collect()
    }

    /// What is kept for owners that do not answer now: they are suspected, gone, or being looked for.
    pub fn held_requests(&self) -> usize {
        let members = self.cluster().members().borrow().clone();
        let answers = |owner: &NodeLife| {
            let member = node_id(&owner.name).and_then(|node| members.get(&node));
            member.is_some_and(|member| match member.state {
                MemberState::Joining | MemberState::Ready | MemberState::Draining | MemberState::Leaving => true,
                MemberState::Suspect | MemberState::Dead => false,
            })
        };
        let held = |link: &Arc<Mutex<Link<Session>>>| {
            let link = lock(link);
            match link.route() {
                Route::Known { owner, .. } if answers(owner) => 0,
                Route::Known { .. } | Route::Looking { .. } => link.unanswered(),
            }
        };
        self.all_links().iter().map(held).sum()
    }

    /// Takes what an owner says.
    pub fn down(self: &Arc<Self>, from: &NodeLife, message: Down) {
        match message {
            Down::Frame(frame) => self.frame(from, frame),
            Down::NotHere { target, stream, epoch } => {
                if let Some(link) = self.link(target) {
                    lock(&link).not_here(from, stream, epoch, &**self);
                }
            }
        }
    }

    fn frame(self: &Arc<Self>, from: &NodeLife, frame: DownFrame) {
        if let Some(link) = self.link(frame.target) {
            lock(&link).frame(self.now_ms(), from, frame, &**self);
        }
    }

    /// Wakes links that have something to do, and drops those that nobody needs, until the node stops.
    pub async fn run(self: Arc<Self>) {
        let mut clock = tokio::time::interval(WAKE_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut woken_ms = self.now_ms();
        loop {
            clock.tick().await;
            let now_ms = self.now_ms();
            let stood_still_ms = now_ms - std::mem::replace(&mut woken_ms, now_ms);
            if Duration::from_millis(stood_still_ms) >= MISSED_AFTER {
                tracing::warn!(
                    stood_still_ms,
                    "this node stood still: others may have taken its matches for lost"
                );
                self.spawn(Arc::clone(&self).drop_lost());
            }
            let mut idle = Vec::new();
            for link in self.all_links() {
                let mut link = lock(&link);
                if link.is_restless() {
                    link.wake(now_ms, &*self);
                }
                if link.is_over() || link.is_idle() {
                    idle.push(link.target());
                }
            }
            if !idle.is_empty() {
                let mut links = self.links();
                for target in idle {
                    if let Some(link) = links.get(&target) {
                        let mut held = lock(link);
                        if held.is_over() || held.is_idle() {
                            held.retire();
                            drop(held);
                            links.remove(&target);
                        }
                    }
                }
            }
        }
    }

    /// Drops the matches that the store says are no longer ours: a node that stood still was taken for dead. Looks twice, since
    /// the others' verdict may still be on its way into the store.
    async fn drop_lost(self: Arc<Self>) {
        for wait in [Duration::ZERO, VERDICT_WITHIN] {
            tokio::time::sleep(wait).await;
            let mut after = None;
            loop {
                let targets = self.executor().ids(after, DROPS_AT_ONCE);
                let Some(last) = targets.last().copied() else { break };
                for target in targets {
                    if let Err(error) = self.drop_if_lost(target).await {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the store is away: matches were not checked"
                        );
                        return;
                    }
                }
                after = Some(last);
            }
        }
    }

    async fn drop_if_lost(self: &Arc<Self>, target: MatchId) -> Result<(), StoreError> {
        let row = self.store().read_match(target).await?;
        let Some(epoch) = self.executor().epoch_of(target) else {
            return Ok(());
        };
        let is_ours = row.is_some_and(|row| {
            let Configuration {
                epoch: stored, owner, ..
            } = &row.configuration;
            row.status.is_live() && *stored == epoch && owner == self.local()
        });
        if !is_ours {
            tracing::warn!(%target, epoch, "a match is no longer ours, and is dropped");
            self.metrics().ownership_conflicts.inc();
            self.executor().drop_match(target);
            // Who sits in it through this node hears what became of it.
            if self.link(target).is_some() {
                self.locate(target);
            }
        }
        Ok(())
    }

    /// What was sent to that node may be lost.
    pub fn uplink_lost(self: &Arc<Self>, node: &NodeName) {
        let now_ms = self.now_ms();
        for link in self.all_links() {
            let mut link = lock(&link);
            if link.is_owned_by(node, u64::MAX) {
                link.say_again(now_ms, &**self);
            }
        }
    }

    /// There is a new connection to that node: what came over the one before ends here.
    pub fn link_connected(self: &Arc<Self>, node: &NodeName) {
        self.services().link_connected(node);
        let now_ms = self.now_ms();
        for link in self.all_links() {
            let mut link = lock(&link);
            if link.is_owned_by(node, u64::MAX) {
                link.connected(now_ms, &**self);
            }
        }
    }

    /// That life of a node is over: its matches are lost, unless the store says otherwise, and what it had not begun goes to us.
    pub fn node_gone(self: &Arc<Self>, node: NodeName, generation: u64) {
        self.executor().gateway_gone(&node, generation);
        self.services().node_gone(&NodeLife {
            name: node.clone(),
            generation,
        });
        let hub = Arc::clone(self);
        self.spawn(async move {
            let mut told = false;
            loop {
                match hub.bury(&node, generation).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(%node, error = &error as &dyn std::error::Error, "the store is away: the dead node's matches wait");
                        if !std::mem::replace(&mut told, true) {
                            hub.links_of(&node, generation).iter().for_each(|link| lock(link).waiting("store"));
                        }
                        tokio::time::sleep(STORE_AGAIN).await;
                    }
                }
            }
            for link in hub.links_of(&node, generation) {
                let target = lock(&link).target();
                hub.locate(target);
            }
        });
    }

    fn links_of(&self, node: &NodeName, generation: u64) -> Vec<Arc<Mutex<Link<Session>>>> {
        let mut links = self.all_links();
        links.retain(|link| lock(link).is_owned_by(node, generation));
        links
    }

    async fn bury(self: &Arc<Self>, node: &NodeName, generation: u64) -> Result<(), StoreError> {
        let lost = self.store().lose_matches_of(node, generation).await?;
        if !lost.is_empty() {
            self.metrics().matches_lost.inc_by(lost.len() as u64);
            tracing::warn!(%node, generation, matches = lost.len(), "matches were lost with their node");
        }
        loop {
            let begun = self
                .store()
                .reassign_starting(node, generation, self.local(), 256)
                .await?;
            let more = begun.len() == 256;
            for row in begun {
                let hub = Arc::clone(self);
                self.spawn(async move { hub.start_quietly(row).await });
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Finds matches that are not where they were, each once at a time.
    async fn look_up(self: Arc<Self>, mut wanted: mpsc::Receiver<MatchId>) {
        let mut finding: tokio::task::JoinSet<MatchId> = tokio::task::JoinSet::new();
        let mut sought = HashSet::new();
        loop {
            tokio::select! {
                Some(target) = wanted.recv(), if finding.len() < LOOKUPS_AT_ONCE => {
                    if sought.insert(target) {
                        let hub = Arc::clone(&self);
                        finding.spawn(async move {
                            hub.find(target).await;
                            target
                        });
                    }
                }
                Some(found) = finding.join_next() => match found {
                    Ok(target) => drop(sought.remove(&target)),
                    Err(error) => tracing::error!(%error, "a look-up ended early"),
                },
            }
        }
    }

    async fn find(self: Arc<Self>, target: MatchId) {
        let began = Instant::now();
        let (mut told, mut warned) = (false, false);
        loop {
            let Some(link) = self.link(target) else { return };
            let (known, over) = {
                let link = lock(&link);
                (link.route().clone(), link.is_over())
            };
            if over {
                return;
            }
            let row = match self.store().read_match(target).await {
                Ok(row) => row,
                Err(_) => {
                    if !std::mem::replace(&mut told, true) {
                        lock(&link).waiting("store");
                    }
                    tokio::time::sleep(STORE_AGAIN).await;
                    continue;
                }
            };
            let Some(row) = row else { return lock(&link).not_found() };
            match row.status {
                MatchStatus::Ended => {
                    return lock(&link).over(&Over::Ended {
                        result: row.outcome.unwrap_or_default(),
                    });
                }
                MatchStatus::Failed => {
                    return lock(&link).over(&Over::Failed {
                        reason: row.reason.unwrap_or_default(),
                    });
                }
                MatchStatus::Lost => return lock(&link).over(&Over::Lost),
                MatchStatus::Starting => {}
                MatchStatus::Running => {
                    let Configuration { epoch, owner, .. } = row.configuration;
                    let (Route::Known { epoch: known, .. } | Route::Looking { epoch: known }) = known;
                    if self.is_gone(&owner) {
                        // Our own verdict on the node did not reach the store yet, or another's did.
                        let _ = self.bury(&owner.name, owner.generation).await;
                    } else if epoch > known || began.elapsed() >= LOOK_AGAIN {
                        lock(&link).located(self.now_ms(), owner, epoch, &*self);
                        return;
                    }
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            if !warned && began.elapsed() > Duration::from_millis(HOLD_MS) {
                warned = true;
                tracing::warn!(%target, "a match is not where the store says it is");
            }
        }
    }

    /// Whether that life of a node is known to be over.
    pub fn is_gone(&self, life: &NodeLife) -> bool {
        if life.name == self.local().name {
            return life.generation < self.local().generation;
        }
        let members = self.cluster().members().borrow().clone();
        node_id(&life.name)
            .and_then(|node| members.get(&node).cloned())
            .is_some_and(|member| {
                member.peer.generation > life.generation
                    || (member.peer.generation == life.generation && member.state == MemberState::Dead)
            })
    }

    // Joining, creating, finding

    /// Asks for a seat in a match, by its id or its name. The answer comes through the match's stream.
    ///
    /// # Errors
    /// What is known without asking the owner: `match.not_found`, `match.closed`, `unavailable`.
    pub async fn join(self: &Arc<Self>, target: &str, mut ask: JoinAsk<Session>) -> Result<(), Refusal> {
        let known = target.parse::<MatchId>().ok();
        if let Some(target) = known {
            if let Some(link) = self.link(target).filter(|link| !lock(link).is_over()) {
                match Arc::clone(&ask.session).ask_join(&link, ask) {
                    Ok(()) => return Ok(()),
                    Err(retired) => ask = retired,
                }
            }
            if let Some(epoch) = self.executor().epoch_of(target) {
                let route = Route::Known {
                    owner: self.local().clone(),
                    epoch,
                };
                self.join_at(target, route, ask);
                return Ok(());
            }
        }
        let row = match self.store().get_match(target).await {
            Ok(Some(row)) => row,
            Ok(None) => return Err(Refusal::new(ErrorCode::MatchNotFound, "there is no such match")),
            Err(error) => return Err(unavailable(&error)),
        };
        if !row.status.is_live() {
            return Err(Refusal::new(ErrorCode::MatchClosed, "the match is over").with("status", row.status.as_str()));
        }
        let Configuration { epoch, owner, .. } = row.configuration;
        self.join_at(row.id, Route::Known { owner, epoch }, ask);
        Ok(())
    }

    fn join_at(self: &Arc<Self>, target: MatchId, route: Route, mut ask: JoinAsk<Session>) {
        let session = Arc::clone(&ask.session);
        // A link that is retired while we take it is replaced by another one.
        while let Err(retired) = session.ask_join(&self.link_or_insert(target, route.clone()), ask) {
            ask = retired;
        }
    }

    /// Creates a match for a player, on the less loaded of two random ready nodes.
    ///
    /// # Errors
    /// `module.not_found`, `forbidden`, `bad_message`, `name.taken`, `match.too_many`, `match.refused`, `module.invalid`,
    /// `unavailable`. When the store did not answer, the match may exist all the same, and ends by itself when nobody comes.
    pub async fn create(self: &Arc<Self>, player: PlayerId, wish: CreateWish) -> Result<MatchId, Refusal> {
        let published = self.modules().resolve(&wish.module).await?;
        let rules = self.config().modules.by_name.get(&published.manifest.name);
        if rules.is_some_and(|rules| rules.create == Create::Server) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "only the server creates matches of this module",
            ));
        }
        if let Some(name) = &wish.name
            && !is_match_name(name)
        {
            let message = "a name is 1 to 64 of a-z, 0-9, '-' and '_'";
            return Err(Refusal::new(ErrorCode::BadMessage, message));
        }
        let params = wish
            .params
            .into_bytes(published.manifest.codec)
            .map_err(|error| Refusal::new(ErrorCode::BadMessage, format!("params: {error}")))?;
        let row = self.new_row(&published, params, Some(player));
        let row = NewRow {
            private: wish.private,
            name: wish.name,
            quick_key: wish.quick_key,
            ..row
        };
        self.create_row(published, row).await
    }

    fn new_row(&self, published: &Published, params: Bytes, creator: Option<PlayerId>) -> NewRow {
        NewRow {
            id: MatchId::from_parts(self.unix_ms(), rand::random()),
            kind: MatchKind::Match,
            name: None,
            module: published.manifest.name.clone(),
            digest: published.row.digest,
            durability: start::stored_durability(published.manifest.durability),
            params,
            seed: rand::random(),
            limits: start::limits_text(self.config()),
            invited: "[]".into(),
            creator,
            private: false,
            owner: self.place(),
            backup: None,
            quick_key: None,
            creator_alive_max: Some(self.config().limits.created_per_player),
        }
    }

    async fn create_row(self: &Arc<Self>, published: Published, row: NewRow) -> Result<MatchId, Refusal> {
        let (target, owner) = (row.id, row.owner.clone());
        let created = self
            .store()
            .create_match(row.clone())
            .await
            .map_err(|error| match error {
                CreateMatchError::NameTaken { existing } => {
                    Refusal::new(ErrorCode::NameTaken, "a live match has this name").with("match", existing.to_string())
                }
                CreateMatchError::QuickTaken { existing } => {
                    Refusal::new(ErrorCode::NameTaken, "the match exists").with("quick", existing.to_string())
                }
                CreateMatchError::TooMany { alive } => Refusal::new(
                    ErrorCode::MatchTooMany,
                    "the player has created as many live matches as allowed",
                )
                .with("alive", alive),
                CreateMatchError::Store(error) => unavailable(&error),
            })?;
        if owner == *self.local() {
            let row = start::row_of(row, created.epoch, created.created_at_ms);
            self.start(row, Some(published)).await?;
            return Ok(target);
        }
        let answer = self
            .ask(&owner.name, &PeerRequest::Start { target }, START_WITHIN)
            .await;
        match answer {
            Ok(PeerAnswer::Done) => Ok(target),
            Ok(PeerAnswer::Refused(refusal)) => Err(refusal),
            // It died or does not answer: we take the match over, unless it has begun after all.
            Ok(_) | Err(_) => self.start_elsewhere(target, &owner).await,
        }
    }

    /// The chosen owner did not answer: start the match here, if the row still allows it.
    async fn start_elsewhere(self: &Arc<Self>, target: MatchId, chosen: &NodeLife) -> Result<MatchId, Refusal> {
        let read = self
            .store()
            .read_match(target)
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(row) = read else {
            return Err(Refusal::new(ErrorCode::Unavailable, "the match was not started"));
        };
        match row.status {
            MatchStatus::Running => return Ok(target),
            MatchStatus::Ended | MatchStatus::Failed | MatchStatus::Lost => {
                return Err(Refusal::new(ErrorCode::MatchClosed, "the match is over"));
            }
            MatchStatus::Starting => {}
        }
        if row.configuration.owner != *chosen {
            return Ok(target);
        }
        let from = row.configuration.clone();
        let to = Configuration {
            epoch: from.epoch + 1,
            owner: self.local().clone(),
            backup: None,
        };
        let swap = Swap {
            id: target,
            from,
            to: to.clone(),
            new_incarnation: false,
        };
        match self
            .store()
            .swap_owner(&swap)
            .await
            .map_err(|error| unavailable(&error))?
        {
            Cas::Done => {
                self.start(
                    MatchRow {
                        configuration: to,
                        ..row
                    },
                    None,
                )
                .await?;
                Ok(target)
            }
            Cas::Superseded(_) => Ok(target),
        }
    }

    /// Starts a match whose row says that we own it, and lets it speak once the row says `running`.
    ///
    /// # Errors
    /// What the creator is to hear. The row says `failed` then.
    pub async fn start(self: &Arc<Self>, row: MatchRow, published: Option<Published>) -> Result<(), Refusal> {
        let (target, epoch) = (row.id, row.configuration.epoch);
        let begun = async {
            let module = self.modules().load(row.digest).await?;
            let config = RoomConfig {
                epoch,
                node: self.local().name.clone(),
                empty_after_ms: match row.kind {
                    MatchKind::Match => Some(self.config().matches.empty_after.as_millis() as u64),
                    MatchKind::Zone => None,
                },
                private: row.private,
            };
            drop(published);
            let start = Box::new(start::record(&row, module.manifest())?);
            let metrics = self.metrics().module(&row.module);
            self.executor()
                .create(NewMatch {
                    module,
                    start,
                    config,
                    metrics,
                })
                .await
        }
        .await;
        if let Err(refusal) = begun {
            let reason = refusal
                .details
                .get("reason")
                .and_then(|reason| reason.as_str())
                .unwrap_or(&refusal.message);
            let finish = Finish {
                id: target,
                epoch,
                status: FinalStatus::Failed,
                outcome: None,
                reason: Some(reason.to_owned()),
            };
            if let Err(error) = self.store().finish_match(finish).await {
                tracing::warn!(%target, error = &error as &dyn std::error::Error, "a match that did not start could not be marked so");
            }
            return Err(refusal);
        }
        match self.store().set_running(target, epoch, self.local()).await {
            Ok(Cas::Done) => {
                self.executor().release(target);
                Ok(())
            }
            Ok(Cas::Superseded(_)) => {
                self.metrics().ownership_conflicts.inc();
                self.executor().drop_match(target);
                Err(Refusal::new(ErrorCode::Unavailable, "another node started the match"))
            }
            Err(error) => {
                self.executor().drop_match(target);
                Err(unavailable(&error))
            }
        }
    }

    /// Starts a match for nobody in particular: a row that waited.
    pub async fn start_quietly(self: Arc<Self>, row: MatchRow) {
        let target = row.id;
        if let Err(refusal) = self.start(row, None).await {
            tracing::warn!(%target, %refusal, "a waiting match did not start");
        }
    }

    /// Of two random ready nodes, the less loaded one; this node when it knows of no other.
    fn place(&self) -> NodeLife {
        let members = self.cluster().members().borrow().clone();
        let candidates: Vec<Candidate> = members
            .ready()
            .filter_map(|member| {
                let name: NodeName = member.peer.node.as_str().parse().ok()?;
                let load = if name == self.local().name {
                    self.executor().owned()
                } else {
                    member.facts.get("load").and_then(|load| load.parse().ok()).unwrap_or(0)
                };
                Some(Candidate {
                    node: NodeLife {
                        name,
                        generation: member.peer.generation,
                    },
                    load,
                })
            })
            .collect();
        let chosen = placement::choose(&candidates, (rand::random(), rand::random()));
        chosen.map_or_else(|| self.local().clone(), |candidate| candidate.node.clone())
    }

    /// Finds the fullest match that takes one more player, or creates one. However many ask at once, on whichever nodes, no two
    /// matches are made where one has room: the store lets one creator through, and the others join its match.
    ///
    /// # Errors
    /// As [`Hub::create`] and [`Hub::join`].
    pub async fn quick(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: Option<i64>,
        wish: QuickWish,
    ) -> Result<(), Refusal> {
        let published = self.modules().resolve(&wish.module).await?;
        if !published.manifest.quick_play {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "matches of this module are not found by match.quick",
            ));
        }
        let seating = Seating {
            role: JoinRole::Player,
            ctx: wish.ctx,
        };
        let mut full = HashSet::new();
        let key = quick_key(&published, &wish.label, &wish.params);
        for _ in 0..QUICK_ROUNDS {
            let query = ListQuery {
                module: Some(published.manifest.name.clone()),
                label: wish.label.clone(),
                after: None,
                limit: LIST_MAX,
                quick: Some(published.row.digest),
            };
            let mut open = self.gather(&query).await;
            open.retain(|listed| !full.contains(&listed.target));
            open.sort_by_key(|listed| (std::cmp::Reverse(listed.players), listed.target));
            if let Some(fullest) = open.first() {
                match self.try_join(session, id, fullest.target, &seating).await {
                    Err(refusal) if is_taken(&refusal) => {
                        full.insert(fullest.target);
                        continue;
                    }
                    joined => return joined,
                }
            }
            let create = CreateWish {
                module: wish.module.clone(),
                params: wish.params.clone(),
                private: false,
                name: None,
                quick_key: Some(key.clone()),
            };
            match self.create(session.player(), create).await {
                Ok(target) => match self.try_join(session, id, target, &seating).await {
                    // So many came at once that the creator found it full.
                    Err(refusal) if is_taken(&refusal) => drop(full.insert(target)),
                    joined => return joined,
                },
                Err(refusal) => {
                    let existing = refusal.details.get("quick").and_then(|existing| existing.as_str());
                    let Some(existing) = existing.and_then(|existing| existing.parse::<MatchId>().ok()) else {
                        return Err(refusal);
                    };
                    if !full.contains(&existing) && self.has_room(existing).await {
                        match self.try_join(session, id, existing, &seating).await {
                            Err(refusal) if is_taken(&refusal) => drop(full.insert(existing)),
                            joined => return joined,
                        }
                    }
                    self.store()
                        .clear_quick_key(existing)
                        .await
                        .map_err(|error| unavailable(&error))?;
                }
            }
        }
        Err(Refusal::new(ErrorCode::Unavailable, "no match could be found or made"))
    }

    /// Joins and waits for the verdict, so that a match that filled up meanwhile can be passed over.
    async fn try_join(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: Option<i64>,
        target: MatchId,
        seating: &Seating,
    ) -> Result<(), Refusal> {
        let (verdict, joined) = oneshot::channel();
        let session = Arc::clone(session);
        self.join(
            &target.to_string(),
            JoinAsk {
                session,
                id,
                seating: seating.clone(),
                verdict: Some(verdict),
            },
        )
        .await?;
        // The session closed: there is nobody to answer.
        joined.await.unwrap_or(Ok(()))
    }

    /// Whether a match that `match.quick` made takes another player: yes while it is starting, and unless its owner says no.
    async fn has_room(self: &Arc<Self>, target: MatchId) -> bool {
        let Ok(Some(row)) = self.store().read_match(target).await else {
            return false;
        };
        match row.status {
            MatchStatus::Starting => return true,
            MatchStatus::Ended | MatchStatus::Failed | MatchStatus::Lost => return false,
            MatchStatus::Running => {}
        }
        let query = ListQuery {
            quick: Some(row.digest),
            module: Some(row.module),
            limit: LIST_MAX,
            ..Default::default()
        };
        self.gather(&query).await.iter().any(|listed| listed.target == target)
    }

    /// Live matches of the whole cluster, in the order of their ids.
    ///
    /// # Errors
    /// `bad_message` for a cursor that is none.
    pub async fn list(
        self: &Arc<Self>,
        module: Option<String>,
        label: Vec<(String, String)>,
        limit: Option<u32>,
        cursor: Option<String>,
    ) -> Result<(Vec<ListedMatch>, Option<String>), Refusal> {
        let after = match cursor {
            None => None,
            Some(cursor) => Some(
                cursor
                    .parse()
                    .map_err(|_| Refusal::new(ErrorCode::BadMessage, "cursor: not one of ours"))?,
            ),
        };
        let limit = limit.unwrap_or(100).clamp(1, LIST_MAX);
        let mut found = self
            .gather(&ListQuery {
                module,
                label,
                after,
                limit,
                quick: None,
            })
            .await;
        found.truncate(limit as usize);
        let cursor = (found.len() == limit as usize)
            .then(|| found.last().map(|last| last.target.to_string()))
            .flatten();
        Ok((found, cursor))
    }

    /// Asks every node for its part of a list. A node that does not answer in time is left out.
    async fn gather(self: &Arc<Self>, query: &ListQuery) -> Vec<ListedMatch> {
        let mut found = self.list_here(query);
        for (_, answer) in self.ask_all(&PeerRequest::List(query.clone())).await {
            if let PeerAnswer::Listed(listed) = answer {
                found.extend(listed);
            }
        }
        found.sort_unstable_by_key(|listed| listed.target);
        found
    }

    /// This node's part of a list.
    pub fn list_here(&self, query: &ListQuery) -> Vec<ListedMatch> {
        let limit = query.limit.min(LIST_MAX) as usize;
        self.executor().list(query.after, limit, |listing| {
            let Some(listed) = &listing.listed else { return false };
            query.module.as_ref().is_none_or(|module| *module == listed.module)
                && query.label.iter().all(|wanted| listed.label.contains(wanted))
                && query
                    .quick
                    .is_none_or(|digest| listing.quick && listed.joinable && listing.digest == digest)
        })
    }

    // Other nodes

    /// Asks another node, or this one.
    ///
    /// # Errors
    /// `unavailable` when there is no answer in time.
    pub async fn ask(
        self: &Arc<Self>,
        node: &NodeName,
        request: &PeerRequest,
        within: Duration,
    ) -> Result<PeerAnswer, Refusal> {
        if *node == self.local().name {
            return Ok(crate::peer::answer(Arc::clone(self), request.clone()).await);
        }
        let none = |problem: &str| Refusal::new(ErrorCode::Unavailable, format!("node {node} {problem}"));
        let id = node_id(node).ok_or_else(|| none("is not a member"))?;
        let answer = self.cluster().request(&id, peer::encode(request), within).await;
        let answer = answer.map_err(|_| none("does not answer"))?;
        peer::decode(&answer).map_err(|_| none("answers in a way that this version does not know"))
    }

    /// Asks every other ready or draining node at once, and returns the answers that came in time.
    pub async fn ask_all(self: &Arc<Self>, request: &PeerRequest) -> Vec<(NodeName, PeerAnswer)> {
        let members = self.cluster().members().borrow().clone();
        let mut asking = tokio::task::JoinSet::new();
        for member in members.iter() {
            let reachable = match member.state {
                MemberState::Ready | MemberState::Draining | MemberState::Joining => true,
                MemberState::Leaving | MemberState::Suspect | MemberState::Dead => false,
            };
            let Ok(name) = member.peer.node.as_str().parse::<NodeName>() else {
                continue;
            };
            if reachable && name != self.local().name {
                let (hub, request) = (Arc::clone(self), request.clone());
                asking.spawn(async move { (name.clone(), hub.ask(&name, &request, ASK_WITHIN).await) });
            }
        }
        let mut answers = Vec::new();
        while let Some(asked) = asking.join_next().await {
            if let Ok((name, Ok(answer))) = asked {
                answers.push((name, answer));
            }
        }
        answers
    }
}

impl Uplink for Hub {
    fn up(&self, owner: &NodeLife, target: MatchId, stream: u64, body: UpBody) {
        let up = Up { target, stream, body };
        if owner == self.local() {
            // A full inbox: the link says it again.
            self.executor().up(self.local().clone(), up);
        } else if let Some(node) = node_id(&owner.name) {
            // Full or not there: the link says it again when there is a way.
            if let Err(error) = self.cluster().send(&node, UP, peer::encode(&up)) {
                tracing::trace!(%target, %error, "not sent; it will be said again");
            }
        }
    }

    fn locate(&self, target: MatchId) {
        if self.lookups.try_send(target).is_err() {
            tracing::error!(%target, "too many matches are being looked for");
        }
    }
}

fn lock(link: &Mutex<Link<Session>>) -> std::sync::MutexGuard<'_, Link<Session>> {
    link.lock().expect("no thread panics holding it")
}

/// The mesh's name for a node.
pub fn node_id(name: &NodeName) -> Option<NodeId> {
    name.as_str().parse().ok()
}

/// Whether a client may give a match this name. `/` belongs to worlds.
fn is_match_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

/// Whether the match had no place left for the player, so that another one may be tried.
fn is_taken(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        ErrorCode::MatchFull | ErrorCode::MatchClosed | ErrorCode::MatchNotFound
    )
}

/// What two callers of `match.quick` have in common when they want the same match.
fn quick_key(published: &Published, label: &[(String, String)], params: &Payload) -> String {
    let params: &[u8] = match params {
        Payload::Absent => &[],
        Payload::Json(bytes) | Payload::Raw(bytes) => bytes,
    };
    let mut label = label.to_vec();
    label.sort();
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let label = serde_json::to_vec(&label).expect("pairs of strings");
    for part in [published.row.digest.0.as_slice(), &label, params] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finish().as_ref().try_into().expect("SHA-256 is 32 bytes");
    rookery_protocol::Digest(digest).to_string()
}
