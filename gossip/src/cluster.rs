//! The handle on the mesh: start it, ask it who is here, and send. What runs behind it is in `cluster/task.rs`.

mod certificates;
#[cfg(test)]
mod hostile;
mod task;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::UnixTime;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::task::Command;
use crate::certificates::Certificates;
use crate::changes::feed::{Changes, Feed};
use crate::config::{CLUSTER_NAME_LEN_MAX, Config};
use crate::control::{self, Control};
use crate::discovery::dns::Resolver;
use crate::discovery::{Discovery, SourceKind, SourceStatus, Target};
use crate::error::{AdvertiseError, FactError, GroupError, JoinPeerError, RequestError, SendError, StartError};
use crate::gate::{Gate, Verdict};
use crate::inbound::{Channel, Inbound};
use crate::link::{self, Links};
use crate::member::{Member, MemberState, Members};
use crate::own::{self, Own};
use crate::peer::{GENERATION_MAX, Identity, NodeId, Peer};
use crate::quic::{CloseCode, DialError, Kind, Quic, Trust};
use crate::reach::{self, Reach};
use crate::refusal::Refusals;
use crate::report::ClusterReport;
use crate::stats::{Counters, Stats};
use crate::suspicion::Time;
use crate::transport;

/// Events and commands on their way to the membership task. Their senders wait when it is full, which no message path does.
const EVENTS_LEN_MAX: usize = 1_024;

/// How long leaving waits for queued messages to arrive, and for the goodbyes to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long joining through a peer waits for a dial that is already under way.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Is the mesh, as one node takes part in it. Cloning is cheap; the mesh runs until `leave`, or until the token that it was started
/// with is cancelled, whatever becomes of the handles.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

/// What the handles and the tasks share.
struct Shared {
    local: Identity,
    started_at: Instant,
    quic: Arc<Quic>,
    control: Arc<Control>,
    links: Links,
    resolver: Resolver,
    counters: Arc<Counters>,
    own: Arc<Mutex<Own>>,
    own_changed: Notify,
    members: watch::Sender<Arc<Members>>,
    changes: Arc<Feed>,
    isolated: watch::Sender<bool>,
    reach: Arc<Reach>,
    /// How the sources fared, and when that was so.
    discovery_status: Mutex<(Time, Vec<SourceStatus>)>,
    commands: mpsc::Sender<Command>,
    fault: watch::Sender<Option<Fault>>,
    keys_soft: usize,
    keys_hard: usize,
    peers_max: usize,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// Says why the mesh ended by itself. A node without its mesh should stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The gossip library's task ended.
    #[error("gossip ended: {why}")]
    Gossip {
        /// What it said.
        why: String,
    },
    /// One of our own tasks ended.
    #[error("the mesh's {task} task ended")]
    Task {
        /// Which.
        task: &'static str,
    },
    /// A newer process bears our name. It is the real one.
    #[error("a newer process bears the name of this node")]
    Superseded,
}

/// Says how far a broadcast got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Broadcast {
    /// Nodes that a copy was queued for.
    pub copies: usize,
    /// Nodes whose queue was full, or one while the group's nodes are not known and too much waits for that; they will not get it.
    pub refused: usize,
    /// The group's nodes are being asked for in the directory: the message goes to them, in order, when they are known.
    pub waiting: bool,
}

/// Keeps this node in a group; dropping it leaves.
pub struct Membership {
    shared: Arc<Shared>,
    group: String,
}

impl Membership {
    /// Returns the group's name.
    pub fn group(&self) -> &str {
        &self.group
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let now = self.shared.now();
        self.shared.with_own(|own| own.leave(now, &self.group));
    }
}

impl Shared {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().expect("nothing panics under this lock")
    }

    /// Changes what this node says, and wakes whoever carries that.
    fn with_own<R>(&self, change: impl FnOnce(&mut Own) -> R) -> R {
        let mut own = self.own();
        let result = change(&mut own);
        let (gossip, directory) = (own.is_changed(), own.has_unsaid());
        drop(own);
        if gossip {
            self.own_changed.notify_one();
        }
        if directory {
            self.reach.ring();
        }
        result
    }

    fn now(&self) -> Time {
        self.started_at.elapsed()
    }

    /// Notes the first fault and stops everything.
    fn fail(&self, fault: Fault) {
        if self.stop.is_cancelled() {
            return;
        }
        self.fault.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(fault);
            first
        });
        self.stop.cancel();
    }
}

impl Cluster {
    /// Starts the mesh on a bound socket. It looks for other nodes from now on; that nobody is found is no error. Cancelling `shutdown`
    /// stops it at once; `leave` does so with a goodbye.
    pub async fn start(
        config: Config,
        inbound: Arc<dyn Inbound>,
        shutdown: CancellationToken,
    ) -> Result<Cluster, StartError> {
        if config.cluster_name.is_empty() || config.cluster_name.len() > CLUSTER_NAME_LEN_MAX {
            return Err(StartError::ClusterName {
                max: CLUSTER_NAME_LEN_MAX,
            });
        }
        if config.generation > GENERATION_MAX {
            return Err(StartError::Generation {
                generation: config.generation,
                max: GENERATION_MAX,
            });
        }
        let mut discovery = discovery(&config)?;
        let certificate_files = match config.certificates {
            Some(files) => {
                let contents = files.read()?;
                Some((files, contents))
            }
            None => None,
        };
        let certificates = certificate_files
            .as_ref()
            .map(|(files, contents)| Certificates::new(files, contents, &config.node, UnixTime::now()))
            .transpose()?;
        let gossip_addr = resolve_advertised(&config.advertise).await?;
        discovery.own(gossip_addr);
        let peer = Peer {
            node: config.node,
            generation: config.generation,
            addr: config.advertise.clone(),
        };
        let local = Identity { peer, gossip_addr };
        let counters = Arc::new(Counters::default());
        if let Some(certificates) = &certificates {
            counters.certificate_expiry_s.set(certificates.not_after_s);
        }
        let quic = Arc::new(Quic::new(
            config.listen,
            Trust {
                secret: &config.secret,
                secret_next: config.secret_next.as_ref(),
                certificates,
            },
            &config.cluster_name,
            local.clone(),
            Refusals::new(counters.clone()),
        )?);
        let started_at = Instant::now();
        let (runtime, tracker, stop) = (Handle::current(), TaskTracker::new(), shutdown.child_token());
        let (events, event_inbox) = mpsc::channel(EVENTS_LEN_MAX);
        let (commands, command_inbox) = mpsc::channel(EVENTS_LEN_MAX);
        let (letters, letter_inbox) = mpsc::channel(transport::INBOX_LEN_MAX);
        let control = Control::new(control::Surroundings {
            quic: quic.clone(),
            counters: counters.clone(),
            inbound: inbound.clone(),
            events,
            gossip_inbox: letters,
            message_bytes_max: config.limits.message_bytes,
            peers_max: config.limits.peers,
            started_at,
            runtime: runtime.clone(),
            tracker: tracker.clone(),
            stop: stop.clone(),
        });
        let own = Own::new(config.advertise, config.limits.clone());
        let keys = own.keys().into_iter().collect();
        let own = Arc::new(Mutex::new(own));
        let reach = Arc::new(Reach::new(local.peer.life(), started_at, own.clone(), counters.clone()));
        let links = Links::new(link::Surroundings {
            quic: quic.clone(),
            control: control.clone(),
            counters: counters.clone(),
            inbound,
            reach: reach.clone(),
            started_at,
            queue_bytes_max: config.limits.queue_bytes,
            message_bytes_max: config.limits.message_bytes,
            peers_max: config.limits.peers,
            runtime,
            tracker: tracker.clone(),
            stop: stop.clone(),
        });
        let gossip = task::start_gossip(
            &config.cluster_name,
            config.profile,
            &local,
            keys,
            control.clone(),
            letter_inbox,
            counters.clone(),
        )
        .await?;
        let shared = Arc::new(Shared {
            members: watch::Sender::new(Arc::new(Members::default())),
            changes: Feed::new(stop.clone()),
            isolated: watch::Sender::new(false),
            local,
            started_at,
            quic,
            control,
            links,
            resolver: Resolver::new(config.dns_server),
            counters,
            own,
            own_changed: Notify::new(),
            reach,
            discovery_status: Mutex::new((Time::ZERO, discovery.status(Time::ZERO))),
            commands,
            fault: watch::Sender::new(None),
            keys_soft: config.limits.keys_soft,
            keys_hard: config.limits.keys_hard,
            peers_max: config.limits.peers,
            tracker,
            stop,
        });
        let itself = own_member(&shared);
        let by_node = BTreeMap::from([(itself.peer.node.clone(), itself)]);
        let members = Members { by_node };
        shared.changes.publish(members.clone());
        shared.members.send_replace(Arc::new(members));
        task::spawn(
            shared.clone(),
            gossip,
            discovery,
            config.profile,
            event_inbox,
            command_inbox,
        );
        shared.tracker.spawn(accept(shared.clone()));
        shared.tracker.spawn(reach_groups(shared.clone()));
        if let Some((files, contents)) = certificate_files {
            shared
                .tracker
                .spawn(certificates::watch(shared.clone(), files, contents));
        }
        Ok(Cluster { shared })
    }

    /// Returns this node as its peers know it.
    pub fn local(&self) -> &Peer {
        &self.shared.local.peer
    }

    /// Returns the members and every later change of them. Round trips are refreshed without being announced as a change.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.shared.members.subscribe()
    }

    /// Returns a stream of what becomes of the members, this node included. It begins with what is there (`Arrived` for each member,
    /// `Remembered` for each life that has departed and is still listed), so that no second look at `members` is needed; then every
    /// transition comes once, in order for each node, and what `members` shows is in the stream already. Folding it gives the members
    /// as they are shown, round trips aside.
    ///
    /// A subscriber that is more than 512 changes behind is told the difference between what it was told last and what is so now: no
    /// net effect is lost and nothing wrong is told, but what came and went meanwhile is passed over. Nothing waits for a subscriber.
    pub fn changes(&self) -> Changes {
        self.shared.changes.subscribe()
    }

    /// Returns whether this node trusts its own view less at the moment. A verdict about others (`Dead`, `LinkEvent::Gone`) is then
    /// rather our own fault, and whoever would take something over because of it waits until this is false and looks again. It is so
    /// - after this node was late (its timer ran more than a second late: it was stopped, starved, or its clock jumped), until every
    ///   member has given a sign of life since, or has been judged by probes that began since;
    /// - while, of two members or more, more than half are suspect or died within the last five seconds;
    /// - while the only other member is suspect.
    ///
    /// Each of these counts for at most five seconds from its beginning: then the view stands, right or wrong, because a node that is
    /// left alone must be able to go on. So this is no fence. Whoever takes something over still needs one.
    pub fn is_isolated(&self) -> bool {
        *self.shared.isolated.borrow()
    }

    /// Returns [`is_isolated`](Self::is_isolated) and every later change of it.
    pub fn isolation(&self) -> watch::Receiver<bool> {
        self.shared.isolated.subscribe()
    }

    /// Says what this node does. `Suspect` and `Dead` are verdicts about others and are ignored here.
    pub fn set_state(&self, state: MemberState) {
        if MemberState::stated(state.as_str()).is_some() {
            self.shared.with_own(|own| own.set_state(state));
        }
    }

    /// Says something about this node to all others. Keys are at most 126 printable ASCII characters, values at most 1,000 bytes.
    pub fn set_fact(&self, key: &str, value: &str) -> Result<(), FactError> {
        let now = self.shared.now();
        self.shared.with_own(|own| own.set_fact(now, key, value))
    }

    /// Takes a fact back.
    pub fn remove_fact(&self, key: &str) {
        let now = self.shared.now();
        self.shared.with_own(|own| own.remove_fact(now, key));
    }

    /// Joins through the peer at `addr` (`host:port`) and returns who answered. The address is kept as a seed, whatever happens now.
    pub async fn join_peer(&self, addr: &str) -> Result<Peer, JoinPeerError> {
        let malformed = || JoinPeerError::Malformed { addr: addr.to_owned() };
        let target = match Target::parse(addr).ok_or_else(malformed)? {
            Target::Service(_) => return Err(malformed()),
            target => target,
        };
        let command = Command::AddSeed {
            text: addr.to_owned(),
            target: target.clone(),
        };
        self.shared
            .commands
            .send(command)
            .await
            .map_err(|_| JoinPeerError::Closed)?;
        let unresolved = |why| JoinPeerError::Unresolved {
            addr: addr.to_owned(),
            why,
        };
        let candidates = self.shared.resolver.look_up(&target).await.map_err(unresolved)?;
        let mut why = String::new();
        for candidate in candidates {
            match self.dial(candidate).await {
                Ok(identity) => return Ok(identity.peer),
                Err(error) => why = error.to_string(),
            }
        }
        Err(JoinPeerError::NoAnswer {
            addr: addr.to_owned(),
            why,
        })
    }

    async fn dial(&self, addr: SocketAddr) -> Result<Identity, DialError> {
        let deadline = Instant::now() + JOIN_TIMEOUT;
        loop {
            match self.shared.control.dial(addr).await {
                Err(DialError::UnderWay | DialError::Closed(CloseCode::Duplicate)) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                result => return result,
            }
        }
    }

    /// Joins a group, once more if this node is in it already.
    ///
    /// While this node's facts and groups are within the soft budget, and not too many are new, gossip tells every node; of further
    /// groups the directory tells those who want to reach them. Callers see no difference but in time: a membership is known elsewhere
    /// after one to three gossip intervals in either case, for the directory only by nodes that ask for the group. What others know is
    /// eventually what is so; it goes with this node when that leaves or dies.
    pub fn join(&self, group: &str) -> Result<Membership, GroupError> {
        let now = self.shared.now();
        self.shared.with_own(|own| own.join(now, group))?;
        Ok(Membership {
            shared: self.shared.clone(),
            group: group.to_owned(),
        })
    }

    /// Returns how many memberships this node holds in the group.
    pub fn local_members(&self, group: &str) -> u32 {
        self.shared.own().members_of(group)
    }

    /// Returns the nodes with members in the group, this one included, as far as this node knows now. What other nodes joined a moment ago
    /// may be missing. A group that may be in the directory is looked for by the first call, which returns what gossip states; later
    /// ones know the rest, until nobody has asked for a minute. Never waits; see `find_nodes`.
    pub fn nodes(&self, group: &str) -> Vec<NodeId> {
        let nodes = self.shared.reach.nodes(&self.shared.links, group);
        self.with_itself(nodes, group)
    }

    /// Returns the nodes with members in the group as `nodes` does, but waits for the directory's answer, at most a second and a half; then it
    /// returns what is known. Returns at once when the answer is there already, or when no node has groups in the directory.
    pub async fn find_nodes(&self, group: &str) -> Vec<NodeId> {
        let nodes = self.shared.reach.find(&self.shared.links, group).await;
        self.with_itself(nodes, group)
    }

    fn with_itself(&self, mut nodes: Vec<NodeId>, group: &str) -> Vec<NodeId> {
        if self.local_members(group) > 0 {
            nodes.push(self.shared.local.peer.node.clone());
        }
        nodes
    }

    /// Sends one copy to each other node with members in the group; each gets it by `Inbound::broadcast`. Members on this node are the
    /// caller's business: nothing comes back here.
    ///
    /// Never waits. When the group may be in the directory and this node has not reached it lately, the message is kept until the homes
    /// have answered, at most a second ([`Broadcast::waiting`]); when none answers, every node with groups in the directory gets a copy
    /// and drops it if it has no member. Broadcasts of one group from one node to another keep their order, also those that wait; after a
    /// break of the connection, or when a queue is full, some are missing. None comes twice.
    pub fn broadcast(&self, group: &str, bytes: &Bytes) -> Broadcast {
        self.shared.reach.broadcast(&self.shared.links, group, bytes)
    }

    /// Queues a message to another node. Never waits. Messages on one channel arrive in order and none twice; after a break of the
    /// connection `LinkEvent::Lost` says what may be missing. A node cannot send to itself.
    pub fn send(&self, to: &NodeId, channel: Channel, bytes: Bytes) -> Result<(), SendError> {
        self.shared.links.send(to, channel, bytes)
    }

    /// Asks another node and waits for its answer, at most until the deadline. Requests are not ordered.
    pub async fn request(&self, to: &NodeId, bytes: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        if self.shared.stop.is_cancelled() {
            return Err(RequestError::Closed);
        }
        let unknown = || RequestError::UnknownNode { node: to.clone() };
        let identity = self.shared.links.identity(to).ok_or_else(unknown)?;
        self.shared.control.request(&identity, bytes, deadline).await
    }

    /// Returns the figures for metrics.
    pub fn stats(&self) -> Stats {
        let stats = self.shared.counters.snapshot(self.shared.control.round_trips());
        let (directory, groups_watched) = self.shared.reach.stats();
        let own = self.shared.own();
        let (groups_in_gossip, groups_in_directory, groups_refused_total) = own.group_counts();
        Stats {
            own_keys: own.key_count() as u64,
            groups_in_gossip,
            groups_in_directory,
            groups_refused_total,
            groups_watched,
            directory,
            ..stats
        }
    }

    /// Returns what an operator would ask this node about its mesh; none when the mesh has stopped.
    pub async fn report(&self) -> Option<ClusterReport> {
        let (answer, report) = oneshot::channel();
        self.shared.commands.send(Command::Report { answer }).await.ok()?;
        report.await.ok()
    }

    /// Takes a life of the node that has departed off the list of members, here and on all connected nodes that see it departed as
    /// well. It is listed again if it comes back. Returns whether there was one on this node's list.
    pub async fn forget(&self, node: &NodeId) -> bool {
        let (answer, forgotten) = oneshot::channel();
        let node = node.clone();
        let asked = self.shared.commands.send(Command::Forget { node, answer }).await;
        asked.is_ok() && forgotten.await.unwrap_or(false)
    }

    /// Returns how each seed and DNS name fares.
    pub fn discovery_status(&self) -> Vec<SourceStatus> {
        let (at, mut status) = self
            .shared
            .discovery_status
            .lock()
            .expect("nothing panics under this lock")
            .clone();
        let since = self.shared.now().saturating_sub(at);
        for address in status.iter_mut().flat_map(|source| &mut source.addresses) {
            // One that is connected answers now as well.
            if let Some(ago) = address.answered_ago.as_mut().filter(|ago| !ago.is_zero()) {
                *ago += since;
            }
        }
        status
    }

    /// Waits until the mesh ends by itself, and says why; for ever, when it is stopped on purpose.
    pub async fn closed(&self) -> Fault {
        let mut fault = self.shared.fault.subscribe();
        loop {
            if let Some(fault) = fault.borrow_and_update().clone() {
                return fault;
            }
            if fault.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Says goodbye and stops: what is queued is sent, for at most a second, then all peers see this node leave at once.
    pub async fn leave(&self) {
        self.set_state(MemberState::Leaving);
        // What does not arrive in time is lost; whoever needs more waits for its own confirmation before it leaves.
        let _ = timeout(FLUSH_TIMEOUT, self.shared.links.flush()).await;
        // Before the endpoint is closed, so that no task takes that for a fault.
        self.shared.stop.cancel();
        self.shared.quic.close();
        let _ = timeout(GOODBYE_TIMEOUT, self.shared.quic.drained()).await;
        self.shared.tracker.close();
        let _ = timeout(GOODBYE_TIMEOUT, self.shared.tracker.wait()).await;
    }

    /// Cuts every data connection of this node, as a fault of the network would. For tests and for operators who try what happens;
    /// the connections come back when there is something to send.
    #[doc(hidden)]
    pub fn cut_data_links(&self) {
        self.shared.links.cut();
    }
}

/// Carries what the directory of groups has to say.
async fn reach_groups(shared: Arc<Shared>) {
    let _vital = task::Vital::new(shared.clone(), "groups");
    let members = shared.members.subscribe();
    let carried = reach::run(&shared.reach, &shared.links, members);
    shared.stop.run_until_cancelled(carried).await;
}

/// A handshake that the gate has admitted.
struct Visit {
    gate: Arc<Mutex<Gate>>,
    addr: IpAddr,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.gate
            .lock()
            .expect("nothing panics under this lock")
            .done(self.addr);
    }
}

/// Takes whatever connections others begin.
async fn accept(shared: Arc<Shared>) {
    let _vital = task::Vital::new(shared.clone(), "accept");
    let gate = Arc::new(Mutex::new(Gate::default()));
    loop {
        let incoming = tokio::select! {
            incoming = shared.quic.incoming() => incoming,
            () = shared.stop.cancelled() => return,
        };
        let Some(incoming) = incoming else {
            return;
        };
        let (addr, proved) = (incoming.remote_address().ip(), incoming.remote_address_validated());
        let verdict = gate
            .lock()
            .expect("nothing panics under this lock")
            .knock(shared.now(), addr, proved);
        let counters = &shared.counters;
        match verdict {
            Verdict::Admit => {}
            Verdict::Prove => {
                counters.limited_proved.add(1);
                // An address that is not proved may be asked to prove itself.
                let _ = incoming.retry();
                continue;
            }
            Verdict::Busy => {
                counters.limited_busy.add(1);
                incoming.refuse();
                continue;
            }
            Verdict::TooFast => {
                counters.limited_too_fast.add(1);
                incoming.refuse();
                continue;
            }
        }
        let visit = Visit {
            gate: gate.clone(),
            addr,
        };
        let accepting = shared.clone();
        shared.tracker.spawn(async move {
            // Until the welcome is said: who does not take that would otherwise come again and again.
            let _visit = visit;
            let established = accepting.quic.accept(incoming).await;
            match established {
                Some(established) if established.kind == Kind::Control => accepting.control.accept(established).await,
                Some(established) => accepting.links.accept(established).await,
                None => {}
            }
        });
    }
}

fn discovery(config: &Config) -> Result<Discovery, StartError> {
    let mut discovery = Discovery::new(config.poll_interval, rand::random());
    let seeds = config.seeds.iter().map(|text| (SourceKind::Seed, text));
    let names = config.dns.iter().map(|text| (SourceKind::Dns, text));
    for (kind, text) in seeds.chain(names) {
        let target =
            Target::parse(text).filter(|target| kind == SourceKind::Dns || !matches!(target, Target::Service(_)));
        let target = target.ok_or_else(|| StartError::Source { text: text.clone() })?;
        discovery.source(text.clone(), kind, target);
    }
    Ok(discovery)
}

/// The one address under which gossip knows us.
async fn resolve_advertised(advertise: &str) -> Result<SocketAddr, AdvertiseError> {
    let addr = || advertise.to_owned();
    let well_formed = advertise
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !well_formed {
        return Err(AdvertiseError::Malformed { addr: addr() });
    }
    let mut found = tokio::net::lookup_host(advertise)
        .await
        .map_err(|source| AdvertiseError::Unresolved { addr: addr(), source })?;
    match found.next() {
        Some(found) if found.port() != 0 && !found.ip().is_unspecified() => Ok(found),
        _ => Err(AdvertiseError::Unreachable { addr: addr() }),
    }
}

/// This node as its own member list shows it.
fn own_member(shared: &Shared) -> Member {
    let own = shared.own();
    Member {
        peer: shared.local.peer.clone(),
        state: own.state(),
        facts: Arc::clone(own.facts()),
        departed: false,
        mesh_version: own::MESH_VERSION,
        rtt: None,
    }
}
