//! The task that owns the membership: it feeds gossip, connections, probes and look-ups to the machines (`view.rs`, `suspicion.rs`,
//! `discovery.rs`) and does what they say. It holds no rules.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, Heartbeat, NodeState, spawn_chitchat,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, trace, warn};

use super::{Fault, Shared, own_member};
use crate::config::Profile;
use crate::control::{Control, Event, PROBE_PAUSE};
use crate::discovery::{self, Discovery, Outcome, SourceKind, Target};
use crate::error::StartError;
use crate::group::TOMBSTONE_FOR;
use crate::member::{MemberState, Members};
use crate::peer::{Identity, Life, NodeId};
use crate::quic::{CloseCode, DialError};
use crate::reach::{self, Stated};
use crate::report::{ClusterReport, MemberReport, OwnReport, SuspicionReport};
use crate::slept::Slept;
use crate::stats::Counters;
use crate::suspicion::{self, Sign, Suspicion, Time, Timeouts};
use crate::transport::{Carrier, Letter};
use crate::view::{self, Parting, Report, View};

/// How often gossip's state is read. A key's way through the cluster takes several gossip intervals, so this adds little.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often discovery, empty groups and round trips are looked at, in polls.
const SLOW_EVERY: u32 = 4;

/// How long gossip remembers a life that it takes for dead, and speaks of it to everybody. With a quarter of an hour, 200 restarts in a
/// row left 200 lives in every message. Nothing needs it longer: the view remembers who died and suspicion looks for them, and a life
/// that comes back has a higher heartbeat than the one under which it was forgotten, so it is taken up again and states itself anew.
/// It must be long enough for all nodes to have noticed the death before the first forgets it, and they differ by 3 s at most.
const DEAD_GRACE: Duration = Duration::from_secs(5);

/// Heartbeats that the failure detector averages over, and the longest gap between two that still counts, in gossip intervals.
const DETECTOR_WINDOW: usize = 100;
const DETECTOR_GAP_MAX: u32 = 20;

/// To how many peers a change of our own is sent at once, instead of at the next gossip round.
const EAGER_PEERS: usize = 3;

/// Results of probes, look-ups and dials on their way back.
const RESULTS_LEN_MAX: usize = 256;

/// What the handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    AddSeed {
        text: String,
        target: Target,
    },
    Report {
        answer: oneshot::Sender<ClusterReport>,
    },
    Forget {
        node: NodeId,
        answer: oneshot::Sender<bool>,
    },
}

/// What came of something that the task had begun.
enum Done {
    /// The life answered a direct probe.
    Answered(Life),
    /// It answered none while the probe lasted.
    Silent(Life),
    /// It answered a helper.
    Vouched(Life),
    /// A helper says that it does not.
    Nack {
        suspect: Life,
        helper: Life,
    },
    Resolved {
        source: usize,
        result: Result<Vec<SocketAddr>, String>,
    },
    Dialled {
        addr: SocketAddr,
        outcome: Outcome,
    },
}

/// Notices when a task that must not end does, by itself or by a panic.
pub(super) struct Vital {
    shared: Arc<Shared>,
    task: &'static str,
}

impl Vital {
    pub(super) fn new(shared: Arc<Shared>, task: &'static str) -> Self {
        Self { shared, task }
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        self.shared.fail(Fault::Task { task: self.task });
    }
}

/// Starts the gossip library over our control connections. It gets no seeds: finding others is our own business.
pub(super) async fn start_gossip(
    cluster_name: &str,
    profile: Profile,
    local: &Identity,
    keys: Vec<(String, String)>,
    control: Arc<Control>,
    inbox: mpsc::Receiver<Letter>,
    counters: Arc<Counters>,
) -> Result<ChitchatHandle, StartError> {
    let timing = profile.timing();
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new(local.peer.node.as_str(), local.peer.generation, local.gossip_addr),
        cluster_id: cluster_name.to_owned(),
        gossip_interval: timing.gossip_interval,
        listen_addr: local.gossip_addr,
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig::new(
            timing.phi_threshold,
            DETECTOR_WINDOW,
            timing.gossip_interval * DETECTOR_GAP_MAX,
            timing.gossip_interval,
            DEAD_GRACE,
        ),
        marked_for_deletion_grace_period: TOMBSTONE_FOR,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let carrier = Carrier::new(local.peer.life(), control, inbox, counters, timing.gossip_interval);
    spawn_chitchat(config, keys, &carrier)
        .await
        .map_err(|error| StartError::Gossip(error.into()))
}

pub(super) fn spawn(
    shared: Arc<Shared>,
    gossip: ChitchatHandle,
    discovery: Discovery,
    profile: Profile,
    events: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<Command>,
) {
    let timing = profile.timing();
    let (done, results) = mpsc::channel(RESULTS_LEN_MAX);
    let stated = shared.own().keys();
    let task = Task {
        view: View::new(shared.local.peer.life(), shared.peers_max),
        suspicion: Suspicion::new(Timeouts {
            direct_probe: timing.direct_probe,
            confirm: timing.confirm,
        }),
        discovery,
        gossip,
        known: HashMap::new(),
        stated,
        warned_of_keys: false,
        shown: Members::default(),
        sought: None,
        since: BTreeMap::new(),
        changed: true,
        done,
        slept: Slept::default(),
        shared: shared.clone(),
    };
    let tracker = shared.tracker.clone();
    tracker.spawn(async move {
        let _vital = Vital::new(shared, "membership");
        task.run(events, commands, results).await;
    });
}

struct Task {
    shared: Arc<Shared>,
    view: View,
    suspicion: Suspicion,
    discovery: Discovery,
    gossip: ChitchatHandle,
    /// What gossip said of each life when it was last asked.
    known: HashMap<ChitchatId, Known>,
    /// What gossip carries for us.
    stated: BTreeMap<String, String>,
    warned_of_keys: bool,
    shown: Members,
    /// With whom gossip was begun last because it does not hear them.
    sought: Option<NodeId>,
    /// In which state each member is, and since when.
    since: BTreeMap<NodeId, Since>,
    /// The members must be shown anew.
    changed: bool,
    done: mpsc::Sender<Done>,
    slept: Slept,
}

struct Since {
    at: Time,
    generation: u64,
    state: MemberState,
}

#[derive(PartialEq, Eq, Clone, Copy)]
struct Known {
    heartbeat: Heartbeat,
    /// Changes with every key that is set, deleted or forgotten.
    version: (u64, u64, usize),
    live: bool,
    /// What gossip keeps of it.
    bytes: u64,
}

impl Task {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut commands: mpsc::Receiver<Command>,
        mut results: mpsc::Receiver<Done>,
    ) {
        let shared = self.shared.clone();
        let terminated = self.gossip.termination_watcher();
        tokio::pin!(terminated);
        let mut polls = interval(POLL_INTERVAL);
        // After a pause there is nothing to be gained from the polls that were missed.
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0u32;
        loop {
            self.show();
            tokio::select! {
                () = shared.stop.cancelled() => break,
                ended = &mut terminated => {
                    let why = ended.err().map_or_else(|| "it stopped".to_owned(), |error| error.to_string());
                    shared.fail(Fault::Gossip { why });
                    break;
                }
                _ = polls.tick() => {
                    count = count.wrapping_add(1);
                    self.poll(count.is_multiple_of(SLOW_EVERY)).await;
                }
                () = shared.own_changed.notified() => self.state_own().await,
                Some(event) = events.recv() => self.event(event),
                Some(command) = commands.recv() => self.command(command),
                Some(done) = results.recv() => self.done(done),
            }
        }
        // A caller that cancels without a goodbye still spares its peers the suspicion.
        shared.quic.close();
        let _ = self.gossip.initiate_shutdown();
    }

    async fn poll(&mut self, slow: bool) {
        // The machine learns of our own lateness before it hears that everybody has been silent.
        if self.slept.look() {
            self.suspicion(suspicion::Input::Slept);
        }
        if self.shared.now() >= self.suspicion.next_wake() {
            self.suspicion(suspicion::Input::Wake);
            self.shared
                .counters
                .local_health
                .set(u64::from(self.suspicion.health()));
        }
        self.read_gossip().await;
        if slow {
            let now = self.shared.now();
            self.shared.with_own(|own| own.sweep(now));
            self.refresh_round_trips();
            self.seek_unheard();
            let input = discovery::Input::Wake {
                alone: self.view.is_alone(),
                connected: self.shared.control.connected(),
            };
            self.discovery(input);
        }
    }

    fn event(&mut self, event: Event) {
        self.changed = true;
        match event {
            Event::Connected(identity) => {
                let addr = identity.gossip_addr;
                self.view(view::Input::Connected(identity));
                self.gossip_with(addr);
            }
            Event::Disconnected { life, parting } => {
                if parting == Parting::Goodbye
                    && let Some(addr) = self.view.identity(&life).map(|identity| identity.gossip_addr)
                {
                    self.discovery(discovery::Input::Departed {
                        addr,
                        life: life.clone(),
                    });
                }
                self.view(view::Input::Disconnected { life, parting });
            }
            Event::Seen(life) => self.view(view::Input::Seen(life)),
            Event::Forget(life) => {
                self.shared.control.free_name(&life);
                self.view(view::Input::Forget(life));
            }
            Event::Superseded { by_generation } => self.superseded(by_generation),
        }
    }

    /// Takes one of the departed off everybody's list.
    fn forget(&mut self, node: &NodeId) -> bool {
        let Some(member) = self.shown.get(node).filter(|member| member.departed) else {
            return false;
        };
        let life = member.peer.life();
        let Some(gossip_addr) = self.view.identity(&life).map(|identity| identity.gossip_addr) else {
            return false;
        };
        self.changed = true;
        self.shared.control.forget_everywhere(&life, gossip_addr);
        self.shared.control.free_name(&life);
        self.view(view::Input::Forget(life));
        true
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::AddSeed { text, target } => self.discovery(discovery::Input::Add { text, target }),
            // Who asked may have gone away.
            Command::Report { answer } => drop(answer.send(self.report())),
            Command::Forget { node, answer } => drop(answer.send(self.forget(&node))),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Answered(life) => self.suspicion(suspicion::Input::Sign(life, Sign::Direct)),
            Done::Silent(life) => self.suspicion(suspicion::Input::Silent(life)),
            Done::Vouched(life) => self.suspicion(suspicion::Input::Sign(life, Sign::Vouched)),
            Done::Nack { suspect, helper } => self.suspicion(suspicion::Input::Nack { suspect, helper }),
            Done::Resolved { source, result } => self.discovery(discovery::Input::Resolved { source, result }),
            Done::Dialled { addr, outcome } => self.discovery(discovery::Input::Dialled { addr, outcome }),
        }
    }

    fn report(&self) -> ClusterReport {
        let now = self.shared.now();
        let round_trips = self.shared.control.round_trips();
        let members = self.shown.iter().map(|member| {
            let (node, life) = (&member.peer.node, member.peer.life());
            let itself = *node == self.shared.local.peer.node;
            let (connected, keys) = if itself {
                (true, self.stated.len())
            } else {
                self.view.figures(node)
            };
            let suspicion = self.suspicion.suspected(&life).map(|suspected| SuspicionReport {
                since: now.saturating_sub(suspected.since),
                probes: suspected.probes,
                helpers: suspected.helpers,
                nacks: suspected.nacks,
            });
            let since = self.since.get(node).map_or(now, |since| since.at);
            MemberReport {
                peer: member.peer.clone(),
                state: member.state,
                departed: member.departed,
                since: now.saturating_sub(since),
                reachable: itself || !member.departed && self.suspicion.is_reachable(&life),
                connected,
                last_heard: self.suspicion.heard_at(&life).map(|at| now.saturating_sub(at)),
                rtt: round_trips.get(node).copied(),
                keys,
                suspicion,
            }
        });
        let own = self.shared.own();
        ClusterReport {
            members: members.collect(),
            own: OwnReport {
                health: self.suspicion.health(),
                isolated: *self.shared.isolated.borrow(),
                own_keys: own.key_count(),
                keys_soft: self.shared.keys_soft,
                keys_hard: self.shared.keys_hard,
                cluster_keys: self.view.keys() + self.stated.len(),
            },
            sources: self.discovery.status(self.shared.now()),
        }
    }

    fn superseded(&mut self, by_generation: Option<u64>) {
        warn!(
            ?by_generation,
            "a newer process bears the name of this node, which stops"
        );
        self.shared.fail(Fault::Superseded);
    }

    /// Starts an exchange with one peer now instead of at the next round.
    fn gossip_with(&self, addr: SocketAddr) {
        // An error means that gossip has ended, which the loop hears of by itself.
        let _ = self.gossip.gossip(addr);
    }

    /// Begins gossip with the next member that is connected and that gossip does not hear, one at a time. The exchange when a connection
    /// comes up is three datagrams, which may be lost, and gossip by itself turns only to those whom it knows: a node whose only
    /// peer had lost one of them was shown `joining` for ever, and nobody else came to know it.
    fn seek_unheard(&mut self) {
        let Some(identity) = self.view.next_unheard(self.sought.as_ref()) else {
            return;
        };
        let (node, addr) = (identity.peer.node.clone(), identity.gossip_addr);
        self.sought = Some(node);
        self.gossip_with(addr);
    }

    async fn read_gossip(&mut self) {
        let gossip = self.gossip.chitchat();
        let mut known = HashMap::with_capacity(self.known.len());
        let mut reports = Vec::new();
        let mut bytes = 0;
        {
            let gossip = gossip.lock().await;
            let live: HashSet<&ChitchatId> = gossip.live_nodes().collect();
            for (id, state) in gossip.node_states() {
                let Ok(node) = id.node_id.parse::<NodeId>() else {
                    continue;
                };
                let life = Life {
                    node,
                    generation: id.generation_id,
                };
                if life == self.shared.local.peer.life() {
                    continue;
                }
                let before = self.known.get(id);
                let version = (state.max_version(), state.last_gc_version(), state.num_key_values());
                let news = before.is_none_or(|before| before.version != version);
                let same = before.filter(|_| !news);
                let now = Known {
                    heartbeat: state.heartbeat(),
                    version,
                    live: live.contains(id),
                    bytes: same.map_or_else(|| size_of_life(id, state), |same| same.bytes),
                };
                bytes += now.bytes;
                let stated = (news || self.view.lacks_statement(&life)).then(|| own_pairs(state.key_values()));
                self.changed |= stated.is_some() || before.is_none_or(|before| before.live != now.live);
                reports.push(Report {
                    life,
                    gossip_addr: id.gossip_advertise_addr,
                    live: now.live,
                    heard: before.is_some_and(|before| now.heartbeat > before.heartbeat),
                    stated,
                });
                known.insert(id.clone(), now);
            }
        }
        self.known = known;
        self.shared.counters.gossip_lives.set(self.known.len() as u64 + 1);
        self.shared.counters.gossip_bytes.set(bytes + self.stated_bytes());
        self.view(view::Input::Gossip(reports));
    }

    fn stated_bytes(&self) -> u64 {
        let stated: usize = self.stated.iter().map(|(key, value)| key.len() + value.len()).sum();
        stated as u64
    }

    /// Brings what gossip carries for us up to date.
    async fn state_own(&mut self) {
        let wanted = {
            let mut own = self.shared.own();
            if !own.take_changed() {
                return;
            }
            own.keys()
        };
        self.changed = true;
        if wanted == self.stated {
            return;
        }
        let gossip = self.gossip.chitchat();
        {
            let mut gossip = gossip.lock().await;
            let state = gossip.self_node_state();
            for key in self.stated.keys().filter(|key| !wanted.contains_key(*key)) {
                state.delete(key);
            }
            for (key, value) in wanted
                .iter()
                .filter(|(key, value)| self.stated.get(*key) != Some(value))
            {
                state.set(key, value);
            }
            let deleted = state
                .key_values_including_deleted()
                .filter(|(_, value)| value.is_deleted());
            self.shared.counters.own_keys_deleted.set(deleted.count() as u64);
        }
        self.stated = wanted;
        let peers = self.shared.control.gossip_addrs();
        for addr in peers.into_iter().take(EAGER_PEERS) {
            self.gossip_with(addr);
        }
        self.warn_of_keys();
    }

    fn warn_of_keys(&mut self) {
        let (keys, soft) = (self.shared.own().key_count(), self.shared.keys_soft);
        if keys > soft && !self.warned_of_keys {
            warn!(
                keys,
                soft, "this node states many facts and groups, and every node keeps them all"
            );
        }
        self.warned_of_keys = keys > soft;
    }

    fn view(&mut self, input: view::Input) {
        let mut effects = Vec::new();
        self.view.step(self.shared.now(), input, &mut effects);
        // Lives come and go one at a time: each is shown, although it may be over before the next turn of the loop.
        let turned = effects
            .iter()
            .any(|effect| matches!(effect, view::Effect::Arrived(_) | view::Effect::Gone(_)));
        for effect in effects {
            // A sign of life changes nothing that is shown unless suspicion says so.
            self.changed |= !matches!(effect, view::Effect::Sign(..));
            match effect {
                view::Effect::Arrived(identity) => {
                    info!(peer = %identity.peer, addr = %identity.peer.addr, "member arrived");
                    self.shared.control.note_arrival(&identity);
                    self.shared.links.ensure(&identity);
                }
                view::Effect::Gone(life) => {
                    info!(node = %life.node, generation = life.generation, "member gone");
                    self.shared.links.retire(&life);
                    self.shared.control.retire(&life);
                }
                view::Effect::Watch(life) => self.suspicion(suspicion::Input::Watch(life)),
                view::Effect::Forget(life) => self.suspicion(suspicion::Input::Forget(life)),
                view::Effect::Doubt(life) => self.suspicion(suspicion::Input::Doubt(life)),
                view::Effect::Sign(life, sign) => self.suspicion(suspicion::Input::Sign(life, sign)),
                view::Effect::Superseded { by_generation } => self.superseded(Some(by_generation)),
            }
        }
        if turned {
            self.show();
        }
    }

    fn suspicion(&mut self, input: suspicion::Input) {
        let mut effects = Vec::new();
        self.suspicion.step(self.shared.now(), input, &mut effects);
        for effect in effects {
            self.changed = true;
            match effect {
                suspicion::Effect::Suspected(life) => {
                    info!(node = %life.node, generation = life.generation, "member suspected");
                    self.shared.counters.suspicions.add(1);
                    self.view(view::Input::Suspected(life));
                }
                suspicion::Effect::Cleared(life) => {
                    info!(node = %life.node, generation = life.generation, "suspicion cleared");
                    self.shared.counters.false_suspicions.add(1);
                    self.view(view::Input::Cleared(life));
                }
                suspicion::Effect::NacksMissed(missed) => self.shared.counters.nacks_missed.add(missed),
                suspicion::Effect::Died(life) => {
                    warn!(node = %life.node, generation = life.generation, "member dead");
                    self.shared.counters.deaths.add(1);
                    self.view(view::Input::Died(life));
                }
                suspicion::Effect::Probe(life) => self.probe(life),
                suspicion::Effect::ProbeThrough { life, helpers } => self.probe_through(&life, &helpers),
                suspicion::Effect::Isolated(isolated) => {
                    if isolated {
                        warn!("this node hears from too few others, or was late, and trusts its view less");
                    } else {
                        info!("this node trusts its view again");
                    }
                    self.shared.isolated.send_replace(isolated);
                }
                suspicion::Effect::Late => {
                    warn!("this node was paused or starved for more than a second and trusts its view less");
                    self.shared.counters.self_late.add(1);
                }
            }
        }
    }

    /// Runs a piece of work whose result comes back to this task.
    fn begin(&self, work: impl Future<Output = Option<Done>> + Send + 'static) {
        let done = self.done.clone();
        self.run_beside(async move {
            if let Some(result) = work.await {
                // The task has stopped: nobody waits for the result.
                let _ = done.send(result).await;
            }
        });
    }

    fn run_beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared
            .tracker
            .spawn(self.shared.stop.clone().run_until_cancelled_owned(work));
    }

    fn probe(&self, life: Life) {
        let Some(addr) = self.view.identity(&life).map(|identity| identity.gossip_addr) else {
            return;
        };
        self.shared.counters.probes_direct.add(1);
        let (shared, round) = (self.shared.clone(), self.suspicion.probe_for());
        self.begin(async move {
            let answered = async {
                while !shared.control.probe(&life, addr).await {
                    sleep(PROBE_PAUSE).await;
                }
            };
            Some(match timeout(round, answered).await {
                Ok(()) => {
                    trace!(node = %life.node, generation = life.generation, "a probe was answered");
                    Done::Answered(life)
                }
                Err(_) => Done::Silent(life),
            })
        });
    }

    fn probe_through(&self, life: &Life, helpers: &[Life]) {
        let Some(addr) = self.view.identity(life).map(|identity| identity.gossip_addr) else {
            return;
        };
        for helper in helpers.iter().filter_map(|helper| self.view.identity(helper)) {
            self.shared.counters.probes_indirect.add(1);
            let (helper, shared, done) = (helper.clone(), self.shared.clone(), self.done.clone());
            let (life, round) = (life.clone(), self.suspicion.probe_for());
            let asking = async move {
                let asked = shared.control.probe_through(&helper, &life, addr);
                let Some(mut helped) = asked.await else {
                    return;
                };
                while let Some(alive) = helped.next().await {
                    let suspect = life.clone();
                    let word = if alive {
                        trace!(node = %life.node, generation = life.generation, "a probe through another was answered");
                        Done::Vouched(suspect)
                    } else {
                        let helper = helper.peer.life();
                        Done::Nack { suspect, helper }
                    };
                    // The task has stopped: nobody waits for the word.
                    let _ = done.send(word).await;
                }
            };
            self.run_beside(async move {
                // What has not been said by then comes too late for the round.
                let _ = timeout(round, asking).await;
            });
        }
    }

    fn discovery(&mut self, input: discovery::Input) {
        let mut effects = Vec::new();
        let now = self.shared.now();
        self.discovery.step(now, input, &mut effects);
        if self.discovery.take_changed() {
            *self
                .shared
                .discovery_status
                .lock()
                .expect("nothing panics under this lock") = (now, self.discovery.status(now));
        }
        for effect in effects {
            match effect {
                discovery::Effect::Resolve { source, target } => {
                    let shared = self.shared.clone();
                    self.begin(async move {
                        let result = shared.resolver.look_up(&target).await;
                        Some(Done::Resolved { source, result })
                    });
                }
                discovery::Effect::Dial(addr) => {
                    let shared = self.shared.clone();
                    self.begin(async move {
                        let outcome = match shared.control.dial(addr).await {
                            Ok(identity) => Outcome::Reached(Some(identity.peer.life())),
                            // When both ends dial at once, the other one's connection is as good.
                            Err(DialError::Closed(CloseCode::Duplicate)) => Outcome::Reached(None),
                            Err(DialError::UnderWay) => Outcome::Elsewhere,
                            Err(DialError::Ourselves) => Outcome::Ourselves,
                            Err(error) => Outcome::Failed(error.to_string()),
                        };
                        debug!(peer_addr = %addr, ?outcome, "dialled");
                        Some(Done::Dialled { addr, outcome })
                    });
                }
                discovery::Effect::Failed { kind: SourceKind::Seed } => {
                    self.shared.counters.discovery_failures_seed.add(1)
                }
                discovery::Effect::Failed { kind: SourceKind::Dns } => {
                    self.shared.counters.discovery_failures_dns.add(1)
                }
                discovery::Effect::Warn { source, why } => warn!(%source, %why, "no peer found"),
                discovery::Effect::Recovered { source } => info!(%source, "the source works again"),
            }
        }
    }

    /// Shows the members to whoever watches, if they have changed.
    fn show(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        self.shared
            .counters
            .cluster_keys
            .set((self.view.keys() + self.stated.len()) as u64);
        let stated = Stated {
            by_group: self.view.groups(),
            spilling: self.view.spilling(),
        };
        self.shared.reach.state(&self.shared.links, stated);
        let members = self.view.members(own_member(&self.shared));
        if members != self.shown {
            self.note_states(&members);
            self.shared.own().set_elders(reach::has_elders(&members));
            self.shown = members.clone();
            self.shared.changes.publish(members.clone());
            self.shared
                .members
                .send_replace(Arc::new(self.with_round_trips(members)));
        }
    }

    fn note_states(&mut self, members: &Members) {
        let now = self.shared.now();
        self.since.retain(|node, _| members.get(node).is_some());
        for member in members.iter() {
            let since = Since {
                at: now,
                generation: member.peer.generation,
                state: member.state,
            };
            match self.since.get(&member.peer.node) {
                Some(known) if known.generation == since.generation && known.state == since.state => {}
                _ => drop(self.since.insert(member.peer.node.clone(), since)),
            }
        }
    }

    /// Round trips change all the time, so nobody is woken for them.
    fn refresh_round_trips(&self) {
        if !self.shown.is_empty() {
            let members = Arc::new(self.with_round_trips(self.shown.clone()));
            self.shared.members.send_if_modified(|shown| {
                *shown = members;
                false
            });
        }
    }

    fn with_round_trips(&self, mut members: Members) -> Members {
        for (node, rtt) in self.shared.control.round_trips() {
            if let Some(member) = members.by_node.get_mut(&node) {
                member.rtt = Some(rtt);
            }
        }
        members
    }
}

/// The bytes of a life's name, and of its keys and values, the deleted ones too.
fn size_of_life(id: &ChitchatId, state: &NodeState) -> u64 {
    let pairs = state.key_values_including_deleted();
    let stated: usize = pairs.map(|(key, versioned)| key.len() + versioned.value.len()).sum();
    (id.node_id.len() + stated) as u64
}

fn own_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
