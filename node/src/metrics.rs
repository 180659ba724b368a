//! What an operator may ask of a running node, as Prometheus text. One flat list: a family, its labels, its help.
//!
//! Labels come from closed sets and are created at 0, so that a rate works from the first event; per-module and per-queue ones
//! are created when a match of the module starts or the queue is configured. Never an id in a label. The registry is a node's
//! own: several nodes in one process (tests) do not share figures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::directory::DirectoryStats;
use crate::matches::event::TrapKind;

/// Calls of match logic: from one microsecond, an empty tick, to 100 ms, ten times the default budget.
const CALL_SECONDS: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1,
];
/// How late ticks begin: from one millisecond, which is on time, to a second.
const LATE_SECONDS: &[f64] = &[
    1e-3, 2e-3, 3e-3, 5e-3, 7.5e-3, 1e-2, 1.5e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0,
];
/// Round trips and statements: from a loopback's 100 µs to the deadline of a statement.
const TRIP_SECONDS: &[f64] = &[
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// What players wait for: pauses of a match, and tickets.
const WAIT_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
];

const MEMBER_STATES: &[&str] = &["joining", "ready", "draining", "leaving", "suspect", "dead"];
const ZONE_STATES: &[&str] = &["running", "moving", "missing"];
const DIRECTIONS: &[&str] = &["in", "out"];
const PROBES: &[&str] = &["direct", "indirect"];
const LOOKUP_ANSWERS: &[&str] = &["hit", "miss"];
const ROLES: &[&str] = &["owner", "backup"];

/// Defines a closed set of label values as an enum.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            const LABELS: &'static [&'static str] = &[$($label),*];

            fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

labels! {
    /// Which limit refused a client.
    RateClass { Inputs = "inputs", Control = "control", Chat = "chat", Accounts = "accounts", }
}
labels! {
    /// Where the session was before it resumed here.
    ResumedFrom { ThisNode = "this_node", OtherNode = "other_node", }
}
labels! {
    /// How a node tried to find others.
    DiscoverySource { Seed = "seed", Dns = "dns", }
}
labels! {
    /// What kept a peer from taking more of the mesh than its share.
    MeshLimit {
        Proved = "proved",
        Busy = "busy",
        TooFast = "too_fast",
        Gossip = "gossip",
        Requests = "requests",
        Slow = "slow",
        Malformed = "malformed",
    }
}
labels! {
    /// Where a group of this node is said.
    GroupPlace { Gossip = "gossip", Directory = "directory", }
}
labels! {
    /// Which of a node's two directories: the mesh's own for groups, or the server's for matches and players.
    DirectoryKind { Groups = "groups", Matches = "matches", }
}
labels! {
    /// Why a match changed its owner while both nodes lived.
    MoveReason { Drain = "drain", Rebalance = "rebalance", Operator = "operator", }
}
labels! {
    /// What became of a match's state on its way into the store.
    SaveOutcome { Written = "written", Refused = "refused", Failed = "failed", }
}
labels! {
    /// Why a match stood still.
    PauseReason { TakeOver = "take_over", Move = "move", Backup = "backup", Store = "store", Upgrade = "upgrade", }
}

labels! {
    /// What came of a component that an operator published here.
    Publishing {
        Taken = "taken",
        TooLarge = "too_large",
        Unsigned = "unsigned",
        Invalid = "invalid",
        TooMany = "too_many",
        Failed = "failed",
    }
}
labels! {
    /// What a module was compiled for.
    ModuleWork { Publication = "publication", Ahead = "ahead", Use = "use", }
}
labels! {
    /// Why a published module could not be used here.
    ModuleFault { Unsigned = "unsigned", Damaged = "damaged", Invalid = "invalid", Unavailable = "unavailable", }
}

/// The mesh's own figures, counted by the mesh since it started and copied here on every scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeshFigures {
    /// How many members are in each state, by its name; a state that is not named has none.
    pub members: BTreeMap<&'static str, u64>,
    pub keys: u64,
    pub gossip_lives: u64,
    pub gossip_bytes: u64,
    pub peer_connections: u64,
    pub messages_in: u64,
    pub messages_out: u64,
    pub queue_dropped: u64,
    pub refused: u64,
    pub certificate_expiry_s: u64,
    pub limited: Vec<(MeshLimit, u64)>,
    pub suspicions: u64,
    pub false_suspicions: u64,
    pub deaths: u64,
    pub self_late: u64,
    pub gossip_ticks: u64,
    /// More than 20 ms.
    pub gossip_ticks_late: u64,
    pub probes_direct: u64,
    pub probes_indirect: u64,
    pub nacks_missed: u64,
    pub local_health: u64,
    pub isolated: bool,
    /// Keys that gossip keeps as deleted.
    pub keys_deleted: u64,
    pub gossip_refused: u64,
    pub groups_in_gossip: u64,
    pub groups_in_directory: u64,
    pub groups_refused: u64,
    pub group_watches: u64,
    pub group_unanswered: u64,
    /// The directory of groups.
    pub directory: DirectoryStats,
    pub seed_failures: u64,
    pub dns_failures: u64,
    /// The last measured round trip of each connected peer.
    pub rtts: Vec<Duration>,
}

/// The metrics of one module's matches, looked up once when a match starts; cheap to clone and to use on every event.
#[derive(Debug, Clone)]
pub struct ModuleMetrics {
    pub owned: IntGauge,
    pub backed_up: IntGauge,
    pub events: IntCounter,
    pub event_seconds: Histogram,
    pub undo_seconds: Histogram,
    pub ticks_late: IntCounter,
    tick_late_seconds: Histogram,
    pub rest_seconds: Histogram,
    pub log_dropped: IntCounter,
    traps: [IntCounter; TrapKind::ALL.len()],
}

impl ModuleMetrics {
    pub fn trapped(&self, kind: TrapKind) {
        let index = TrapKind::ALL.iter().position(|known| *known == kind);
        self.traps[index.expect("ALL holds every kind")].inc();
    }

    /// A tick began this long after it was due, in whole milliseconds: one that has begun counts, so that none looks earlier than it was.
    pub fn tick_began(&self, late_ms: u64) {
        self.tick_late_seconds.observe((late_ms + 1) as f64 / 1_000.0);
    }

    /// One call of the match's logic is over.
    pub fn event(&self, took: Duration) {
        self.events.inc();
        self.event_seconds.observe(took.as_secs_f64());
    }
}

/// The metrics of one configured queue.
#[derive(Debug, Clone)]
pub struct QueueMetrics {
    pub tickets: IntGauge,
    pub wait_seconds: Histogram,
}

type Collect = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Every family of this node. Plain fields are for those who count; labels go through the methods.
pub struct Metrics {
    registry: Registry,
    /// Every family's description and type, for those that have no sample yet.
    families: Vec<(Desc, &'static str)>,
    collect: Mutex<Vec<Collect>>,

    members: IntGaugeVec,
    gossip_keys: IntGauge,
    gossip_lives: IntGauge,
    gossip_bytes: IntGauge,
    gossip_keys_deleted: IntGauge,
    gossip_refused: IntCounter,
    groups: IntGaugeVec,
    groups_refused: IntCounter,
    group_watches: IntGauge,
    group_entries: IntGauge,
    group_unanswered: IntCounter,
    suspicions: IntCounter,
    false_suspicions: IntCounter,
    mesh_deaths: IntCounter,
    mesh_self_late: IntCounter,
    mesh_gossip_ticks: IntCounter,
    mesh_gossip_ticks_late: IntCounter,
    mesh_probes: IntCounterVec,
    mesh_nacks_missed: IntCounter,
    mesh_local_health: IntGauge,
    mesh_isolated: IntGauge,
    peer_connections: IntGauge,
    peer_messages: IntCounterVec,
    peer_queue_dropped: IntCounter,
    peers_refused: IntCounter,
    mesh_certificate_expiry: IntGauge,
    mesh_limited: IntCounterVec,
    /// Messages of peers that did not decode: another version, or a fault.
    pub peer_undecodable: IntCounter,
    peer_rtt_seconds: Histogram,
    discovery_failures: IntCounterVec,

    /// Open sockets, whether or not a session is open on them.
    pub connections: IntGauge,
    /// Sessions whose socket is on this node.
    pub sessions: IntGauge,
    /// Players with a session on this node.
    pub players_online: IntGauge,
    /// Pairs of a session on this node and a player that it watches.
    pub presence_watches: IntGauge,
    pub directory_entries: IntGauge,
    directory_refused: IntCounter,
    directory_expired: IntCounter,
    directory_lookups: IntCounterVec,
    directory_repairs: IntCounterVec,
    directory_forwards: IntCounterVec,
    pub client_messages_in: IntCounter,
    pub client_messages_out: IntCounter,
    pub client_slow_closed: IntCounter,
    sessions_resumed: IntCounterVec,
    rate_limited: IntCounterVec,

    matches: IntGaugeVec,
    match_events: IntCounterVec,
    match_event_seconds: HistogramVec,
    match_undo_seconds: HistogramVec,
    match_tick_late: IntCounterVec,
    match_tick_late_seconds: HistogramVec,
    match_rest_seconds: HistogramVec,
    match_log_dropped: IntCounterVec,
    match_traps: IntCounterVec,
    matches_moved: IntCounterVec,
    match_saves: IntCounterVec,
    pub matches_taken_over: IntCounter,
    pub matches_lost: IntCounter,
    pub matches_failed: IntCounter,
    pub letters: IntCounter,
    pub mail_undeliverable: IntCounter,
    match_pause_seconds: HistogramVec,
    pub replication_lag_events: IntGauge,
    pub ownership_conflicts: IntCounter,
    /// Inputs and joins that were held while an owner was not known, and that are held now.
    pub held_requests: IntGauge,

    tickets: IntGaugeVec,
    ticket_wait_seconds: HistogramVec,
    publications: IntCounterVec,
    module_faults: IntCounterVec,
    module_compile_seconds: HistogramVec,
    /// Modules that are compiled on this node, in memory.
    pub modules_compiled: IntGauge,
    /// Modules that are still to be compiled ahead of their use.
    pub modules_waiting: IntGauge,

    zones: IntGaugeVec,
    pub zone_moves: IntCounter,
    /// 1 on the node that leads.
    pub leader: IntGauge,

    /// The version of this node's copy of shared content, and how much is in it.
    pub content_version: IntGauge,
    pub content_values: IntGauge,
    pub content_bytes: IntGauge,
    pub content_changes: IntCounter,
    /// Seatings that no record will name: the store was away for too long.
    pub records_dropped: IntCounter,

    /// Lines that this node wrote.
    pub chat_lines: IntCounter,
    /// Lines that this node sent to others.
    pub chat_copies: IntCounter,
    /// Lines that were read from the store because nobody had told of them in time.
    pub chat_healed: IntCounter,
    /// Channels with a member here.
    pub chat_channels: IntGauge,

    store_seconds: HistogramVec,
    pub store_up: IntGauge,
    store_refused: IntCounter,
    trace_exports_failed: IntCounter,
}

/// Registers families, and remembers what each is.
#[derive(Default)]
struct Families {
    registry: Registry,
    described: Vec<(Desc, &'static str)>,
}

impl Families {
    fn add<C: Collector + Clone + 'static>(&mut self, family: prometheus::Result<C>, kind: &'static str) -> C {
        let family = family.expect("names and labels are constants of this file");
        self.described
            .extend(family.desc().into_iter().map(|desc| (desc.clone(), kind)));
        self.registry
            .register(Box::new(family.clone()))
            .expect("each family is registered once");
        family
    }

    fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help), "counter")
    }

    fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels), "counter")
    }

    fn counters_from(&mut self, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
        let family = self.counters(name, help, &[label]);
        values.iter().for_each(|value| drop(family.with_label_values(&[value])));
        family
    }

    fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help), "gauge")
    }

    fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels), "gauge")
    }

    fn gauges_from(&mut self, name: &str, help: &str, label: &str, values: &[&str]) -> IntGaugeVec {
        let family = self.gauges(name, help, &[label]);
        values.iter().for_each(|value| drop(family.with_label_values(&[value])));
        family
    }

    fn histogram(&mut self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options), "histogram")
    }

    fn histograms(&mut self, name: &str, help: &str, buckets: &[f64], label: &str) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, &[label]), "histogram")
    }
}

impl Metrics {
    /// All families, at 0.
    pub fn new() -> Arc<Self> {
        let mut f = Families::default();
        let members = f.gauges_from(
            "rookery_members",
            "Members that this node sees, itself included.",
            "state",
            MEMBER_STATES,
        );
        let gossip_keys = f.gauge("rookery_gossip_keys", "Keys that this node gossips about itself.");
        let gossip_lives = f.gauge(
            "rookery_gossip_lives",
            "Lives of nodes that gossip speaks of; above the number of nodes only for seconds after one died or was started again.",
        );
        let gossip_bytes = f.gauge(
            "rookery_gossip_bytes",
            "Bytes of names, keys and values of all nodes that gossip keeps here.",
        );
        let gossip_keys_deleted = f.gauge(
            "rookery_gossip_keys_deleted",
            "Keys that this node no longer states and that gossip keeps as deleted for a quarter of an hour.",
        );
        let gossip_refused = f.counter(
            "rookery_gossip_refused_total",
            "Gossip messages of peers that broke a rule and were not taken.",
        );
        let groups = f.gauges_from(
            "rookery_groups",
            "Groups that this node has members in, by where that is said.",
            "place",
            GroupPlace::LABELS,
        );
        let groups_refused = f.counter(
            "rookery_groups_refused_total",
            "Joins that were refused because this node is in as many groups as it may be.",
        );
        let group_watches = f.gauge(
            "rookery_group_watches",
            "Groups that this node watches in the directory of groups because it wants to reach them.",
        );
        let group_entries = f.gauge(
            "rookery_group_entries",
            "Entries of the directory of groups that this node keeps as one of their homes.",
        );
        let group_unanswered = f.counter(
            "rookery_group_unanswered_total",
            "Groups whose nodes no home named in time: what was told to them went to every node with groups in the directory.",
        );
        let suspicions = f.counter(
            "rookery_suspicions_total",
            "Members that fell silent and were suspected.",
        );
        let false_suspicions = f.counter(
            "rookery_false_suspicions_total",
            "Suspected members that turned out to be alive.",
        );
        let mesh_deaths = f.counter("rookery_mesh_deaths_total", "Members that were declared dead.");
        let mesh_gossip_ticks = f.counter("rookery_mesh_gossip_ticks_total", "Ticks of gossip on this node.");
        let mesh_gossip_ticks_late = f.counter(
            "rookery_mesh_gossip_ticks_late_total",
            "Ticks of gossip that came more than 20 ms after they were due.",
        );
        let mesh_self_late = f.counter(
            "rookery_mesh_self_late_total",
            "Times that this node was stopped or starved for more than a second and trusted its view of others less.",
        );
        let mesh_probes = f.counters_from(
            "rookery_mesh_probes_total",
            "Probes of silent members, by this node itself and asked of others.",
            "kind",
            PROBES,
        );
        let mesh_nacks_missed = f.counter(
            "rookery_mesh_nacks_missed_total",
            "Members that were asked to probe another one and said nothing: a sign that this node is out of touch.",
        );
        let mesh_local_health = f.gauge(
            "rookery_mesh_local_health",
            "This node's own health as a judge of others: 0 is well, 8 is the worst.",
        );
        let mesh_isolated = f.gauge(
            "rookery_mesh_isolated",
            "1 while this node trusts its view of others less and takes nothing over.",
        );
        let peer_connections = f.gauge("rookery_peer_connections", "Open connections to other nodes.");
        let peer_messages = f.counters_from(
            "rookery_peer_messages_total",
            "Messages between nodes.",
            "direction",
            DIRECTIONS,
        );
        let peer_queue_dropped = f.counter(
            "rookery_peer_queue_dropped_total",
            "Messages refused because a peer's queue was full.",
        );
        let peer_undecodable = f.counter(
            "rookery_peer_undecodable_total",
            "Messages of peers that did not decode.",
        );
        let peers_refused = f.counter(
            "rookery_peers_refused_total",
            "Peers without our secret or authority, of another cluster, or without a certificate that does.",
        );
        let mesh_limited = f.counters_from(
            "rookery_mesh_limited_total",
            "Handshakes, gossip and requests of peers and strangers beyond one's share.",
            "limit",
            MeshLimit::LABELS,
        );
        let mesh_certificate_expiry = f.gauge(
            "rookery_mesh_certificate_expiry_timestamp_seconds",
            "Until when this node's certificate of an operator counts, in Unix seconds; 0 without one.",
        );
        let peer_rtt_seconds = f.histogram(
            "rookery_peer_rtt_seconds",
            "Round trips to connected peers, sampled on every scrape.",
            TRIP_SECONDS,
        );
        let discovery_failures = f.counters_from(
            "rookery_discovery_failures_total",
            "Seeds and names that could not be resolved or reached.",
            "source",
            DiscoverySource::LABELS,
        );

        let connections = f.gauge("rookery_connections", "Open sockets of clients.");
        let sessions = f.gauge("rookery_sessions", "Sessions whose socket is on this node.");
        let players_online = f.gauge("rookery_players_online", "Players with a session on this node.");
        let presence_watches = f.gauge("rookery_presence_watches", "Players that sessions on this node watch.");
        let directory_entries = f.gauge(
            "rookery_directory_entries",
            "Entries of the directory that this node keeps as one of their homes.",
        );
        let directory_refused = f.counter(
            "rookery_directory_refused_total",
            "Entries and watches of the directory that were refused because the tables were full.",
        );
        let directory_expired = f.counter(
            "rookery_directory_expired_total",
            "Entries of the directory whose holder fell silent without being dead.",
        );
        let directory_repairs = f.counters_from(
            "rookery_directory_repairs_total",
            "Buckets of a directory that were gone through because a holder's digest did not agree with what is kept here.",
            "directory",
            DirectoryKind::LABELS,
        );
        let directory_forwards = f.counters_from(
            "rookery_directory_forwards_total",
            "Entries, withdrawals and watches that came to this node by mistake and were passed on to their homes.",
            "directory",
            DirectoryKind::LABELS,
        );
        let directory_lookups = f.counters_from(
            "rookery_directory_lookups_total",
            "Matches that were looked for in the directory, by whether it knew them.",
            "answer",
            LOOKUP_ANSWERS,
        );
        let sessions_resumed = f.counters_from(
            "rookery_sessions_resumed_total",
            "Sessions that came back, by where they were before.",
            "from",
            ResumedFrom::LABELS,
        );
        let client_messages = f.counters_from(
            "rookery_client_messages_total",
            "Frames from and to clients.",
            "direction",
            DIRECTIONS,
        );
        let client_slow_closed = f.counter(
            "rookery_client_slow_closed_total",
            "Sockets closed because the client read too slowly.",
        );
        let rate_limited = f.counters_from(
            "rookery_rate_limited_total",
            "Requests refused for their rate.",
            "class",
            RateClass::LABELS,
        );

        let matches = f.gauges("rookery_matches", "Live matches on this node.", &["module", "role"]);
        let match_events = f.counters("rookery_match_events_total", "Events applied to matches.", &["module"]);
        let match_event_seconds = f.histograms(
            "rookery_match_event_seconds",
            "Time that one event of a match took.",
            CALL_SECONDS,
            "module",
        );
        let match_undo_seconds = f.histograms(
            "rookery_match_undo_seconds",
            "Time that an event took whose call was cut off: the call, the state put back, and what is kept of it.",
            CALL_SECONDS,
            "module",
        );
        let match_tick_late = f.counters(
            "rookery_match_tick_late_total",
            "Ticks that began more than one interval late.",
            &["module"],
        );
        let match_tick_late_seconds = f.histograms(
            "rookery_match_tick_late_seconds",
            "Time between the moment at which a tick was due and the one in which it began, rounded up to a millisecond.",
            LATE_SECONDS,
            "module",
        );
        let match_rest_seconds = f.histograms(
            "rookery_match_rest_seconds",
            "Time for which matches had to rest because calls of theirs that were cut off cost much.",
            TRIP_SECONDS,
            "module",
        );
        let match_log_dropped = f.counters(
            "rookery_match_log_dropped_total",
            "Log lines of matches that were not written because the match writes too many.",
            &["module"],
        );
        let match_traps = f.counters(
            "rookery_match_traps_total",
            "Calls of match logic that were cut off, by kind.",
            &["module", "kind"],
        );
        let matches_moved = f.counters_from(
            "rookery_matches_moved_total",
            "Matches that came to this node from another one, alive.",
            "reason",
            MoveReason::LABELS,
        );
        let match_saves = f.counters_from(
            "rookery_match_saves_total",
            "States of matches that went to the store, by what became of them.",
            "outcome",
            SaveOutcome::LABELS,
        );
        let matches_taken_over = f.counter(
            "rookery_matches_taken_over_total",
            "Matches that this node took over from a dead one.",
        );
        let matches_lost = f.counter(
            "rookery_matches_lost_total",
            "Matches that ended because nothing of them survived their node.",
        );
        let letters = f.counter(
            "rookery_mail_letters_total",
            "Letters and players sent from one match to another, those that were said again included.",
        );
        let mail_undeliverable = f.counter(
            "rookery_mail_undeliverable_total",
            "Look-ups of a match that mail was for and that is over, or never was.",
        );
        let matches_failed = f.counter(
            "rookery_matches_failed_total",
            "Matches that this node ended as failed.",
        );
        let match_pause_seconds = f.histograms(
            "rookery_match_pause_seconds",
            "How long matches stood still.",
            WAIT_SECONDS,
            "reason",
        );
        for reason in PauseReason::LABELS {
            match_pause_seconds.with_label_values(&[reason]);
        }
        let replication_lag_events = f.gauge(
            "rookery_replication_lag_events",
            "Events that backups have not acknowledged.",
        );
        let ownership_conflicts = f.counter(
            "rookery_ownership_conflicts_total",
            "Times this node found that it no longer owned a match.",
        );
        let held_requests = f.gauge(
            "rookery_held_requests",
            "Inputs and joins that wait for an owner to be found.",
        );

        let tickets = f.gauges("rookery_tickets", "Tickets that wait in a queue.", &["queue"]);
        let ticket_wait_seconds = f.histograms(
            "rookery_ticket_wait_seconds",
            "How long tickets waited until they were matched.",
            WAIT_SECONDS,
            "queue",
        );
        let publications = f.counters_from(
            "rookery_publications_total",
            "Modules that operators published through this node, by what came of it.",
            "outcome",
            Publishing::LABELS,
        );
        let module_faults = f.counters_from(
            "rookery_module_faults_total",
            "Times that a published module could not be used on this node, by why.",
            "reason",
            ModuleFault::LABELS,
        );
        let module_compile_seconds = f.histograms(
            "rookery_module_compile_seconds",
            "Time until a module was fetched and compiled, or loaded from the cache on disk, by what it was for.",
            WAIT_SECONDS,
            "for",
        );
        for work in ModuleWork::LABELS {
            module_compile_seconds.with_label_values(&[work]);
        }
        let modules_compiled = f.gauge(
            "rookery_modules_compiled",
            "Modules that this node has compiled in memory.",
        );
        let modules_waiting = f.gauge(
            "rookery_modules_waiting",
            "Modules that this node has still to compile ahead of their use.",
        );
        let zones = f.gauges_from("rookery_zones", "Zones of all worlds, by state.", "state", ZONE_STATES);
        let zone_moves = f.counter(
            "rookery_zone_moves_total",
            "Zones that came to this node from another one, alive.",
        );
        let leader = f.gauge("rookery_leader", "1 while this node leads.");

        let content_version = f.gauge(
            "rookery_content_version",
            "The version of this node's copy of shared content.",
        );
        let content_values = f.gauge("rookery_content_values", "Values of shared content on this node.");
        let content_bytes = f.gauge(
            "rookery_content_bytes",
            "What shared content counts against its limit, content.total.",
        );
        let content_changes = f.counter(
            "rookery_content_changes_total",
            "Values of shared content that changed while this node ran.",
        );
        let records_dropped = f.counter(
            "rookery_records_dropped_total",
            "Players whom the record of a match does not name because the store was away for too long.",
        );

        let chat_lines = f.counter("rookery_chat_lines_total", "Chat lines that this node wrote.");
        let chat_copies = f.counter(
            "rookery_chat_copies_total",
            "Copies of chat lines that this node sent to others: one for each node that wants to hear the channel.",
        );
        let chat_healed = f.counter(
            "rookery_chat_healed_total",
            "Chat lines that this node read from the store because they did not come from the node that wrote them.",
        );
        let chat_channels = f.gauge("rookery_chat_channels", "Chat channels that are open on this node.");

        let store_seconds = f.histograms(
            "rookery_store_seconds",
            "Time of one operation of the store, waiting included.",
            TRIP_SECONDS,
            "operation",
        );
        let store_up = f.gauge("rookery_store_up", "1 while the database answers.");
        let store_refused = f.counter(
            "rookery_store_refused_total",
            "Operations refused because the store's queue was full.",
        );
        let trace_exports_failed = f.counter(
            "rookery_trace_exports_failed_total",
            "Batches of spans that the collector did not take.",
        );
        let build_info = f.gauges(
            "rookery_build_info",
            "Always 1; the labels say which build this is.",
            &["version"],
        );
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        Arc::new(Self {
            registry: f.registry,
            families: f.described,
            collect: Mutex::default(),
            members,
            gossip_keys,
            gossip_lives,
            gossip_bytes,
            gossip_keys_deleted,
            gossip_refused,
            groups,
            groups_refused,
            group_watches,
            group_entries,
            group_unanswered,
            suspicions,
            false_suspicions,
            mesh_deaths,
            mesh_self_late,
            mesh_gossip_ticks,
            mesh_gossip_ticks_late,
            mesh_probes,
            mesh_nacks_missed,
            mesh_local_health,
            mesh_isolated,
            peer_connections,
            peer_messages,
            peer_queue_dropped,
            peers_refused,
            mesh_certificate_expiry,
            mesh_limited,
            peer_undecodable,
            peer_rtt_seconds,
            discovery_failures,
            connections,
            sessions,
            players_online,
            presence_watches,
            directory_entries,
            directory_refused,
            directory_expired,
            directory_lookups,
            directory_repairs,
            directory_forwards,
            client_messages_in: client_messages.with_label_values(&["in"]),
            client_messages_out: client_messages.with_label_values(&["out"]),
            client_slow_closed,
            sessions_resumed,
            rate_limited,
            matches,
            match_events,
            match_event_seconds,
            match_undo_seconds,
            match_tick_late,
            match_tick_late_seconds,
            match_rest_seconds,
            match_log_dropped,
            match_traps,
            matches_moved,
            match_saves,
            matches_taken_over,
            matches_lost,
            matches_failed,
            letters,
            mail_undeliverable,
            match_pause_seconds,
            replication_lag_events,
            ownership_conflicts,
            held_requests,
            tickets,
            ticket_wait_seconds,
            publications,
            module_faults,
            module_compile_seconds,
            modules_compiled,
            modules_waiting,
            zones,
            zone_moves,
            leader,
            content_version,
            content_values,
            content_bytes,
            content_changes,
            records_dropped,
            chat_lines,
            chat_copies,
            chat_healed,
            chat_channels,
            store_seconds,
            store_up,
            store_refused,
            trace_exports_failed,
        })
    }

    /// Runs before every scrape: for gauges that are read, not counted. It must not block.
    pub fn on_collect(&self, collect: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.collect
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(collect));
    }

    /// The metrics of one module's matches, which exist from now on.
    pub fn module(&self, module: &str) -> ModuleMetrics {
        let role = |role| self.matches.with_label_values(&[module, role]);
        ModuleMetrics {
            owned: role(ROLES[0]),
            backed_up: role(ROLES[1]),
            events: self.match_events.with_label_values(&[module]),
            event_seconds: self.match_event_seconds.with_label_values(&[module]),
            undo_seconds: self.match_undo_seconds.with_label_values(&[module]),
            ticks_late: self.match_tick_late.with_label_values(&[module]),
            tick_late_seconds: self.match_tick_late_seconds.with_label_values(&[module]),
            rest_seconds: self.match_rest_seconds.with_label_values(&[module]),
            log_dropped: self.match_log_dropped.with_label_values(&[module]),
            traps: TrapKind::ALL.map(|kind| self.match_traps.with_label_values(&[module, kind.as_str()])),
        }
    }

    /// The metrics of one configured queue, which exist from now on.
    pub fn queue(&self, queue: &str) -> QueueMetrics {
        QueueMetrics {
            tickets: self.tickets.with_label_values(&[queue]),
            wait_seconds: self.ticket_wait_seconds.with_label_values(&[queue]),
        }
    }

    /// Requests of this class that were refused for their rate.
    pub fn rate_limited(&self, class: RateClass) -> IntCounter {
        self.rate_limited.with_label_values(&[class.label()])
    }

    pub fn session_resumed(&self, from: ResumedFrom) {
        self.sessions_resumed.with_label_values(&[from.label()]).inc();
    }

    pub fn match_moved(&self, reason: MoveReason) {
        self.matches_moved.with_label_values(&[reason.label()]).inc();
    }

    pub fn publishing(&self, outcome: Publishing) {
        self.publications.with_label_values(&[outcome.label()]).inc();
    }

    pub fn module_fault(&self, fault: ModuleFault) {
        self.module_faults.with_label_values(&[fault.label()]).inc();
    }

    pub fn module_compiled(&self, work: ModuleWork, took: Duration) {
        let seconds = self.module_compile_seconds.with_label_values(&[work.label()]);
        seconds.observe(took.as_secs_f64());
    }

    pub fn match_saved(&self, outcome: SaveOutcome) {
        self.match_saves.with_label_values(&[outcome.label()]).inc();
    }

    pub fn match_paused(&self, reason: PauseReason, pause: Duration) {
        self.match_pause_seconds
            .with_label_values(&[reason.label()])
            .observe(pause.as_secs_f64());
    }

    /// Creates the store's operations at 0, so that each is present before its first use.
    pub fn store_operations(&self, operations: &[&'static str]) {
        for operation in operations {
            self.store_seconds.with_label_values(&[operation]);
        }
    }

    /// One operation of the store is over, well or not.
    pub fn store_operation(&self, operation: &'static str, took: Duration) {
        self.store_seconds
            .with_label_values(&[operation])
            .observe(took.as_secs_f64());
    }

    /// A match was looked for in the directory.
    pub fn directory_lookup(&self, known: bool) -> IntCounter {
        self.directory_lookups
            .with_label_values(&[if known { "hit" } else { "miss" }])
    }

    /// What the directory has counted since it began.
    pub fn directory(&self, stats: &DirectoryStats) {
        self.directory_entries.set(stats.kept as i64);
        raise(&self.directory_refused, stats.refused_total);
        raise(&self.directory_expired, stats.expired_total);
        self.directory_repairs(DirectoryKind::Matches, stats);
    }

    fn directory_repairs(&self, kind: DirectoryKind, stats: &DirectoryStats) {
        let of = |counters: &IntCounterVec| counters.with_label_values(&[kind.label()]);
        raise(&of(&self.directory_repairs), stats.repaired_total);
        raise(&of(&self.directory_forwards), stats.forwarded_total);
    }

    /// Copies how many batches of spans the collector did not take.
    pub fn trace_failures(&self, counted: u64) {
        raise(&self.trace_exports_failed, counted);
    }

    /// Copies how many writes the store's queue has refused since the node started.
    pub fn store_refusals(&self, counted: u64) {
        raise(&self.store_refused, counted);
    }

    /// How many zones are in each state, by its name.
    pub fn zones(&self, by_state: &BTreeMap<&'static str, u64>) {
        set_states(&self.zones, ZONE_STATES, by_state);
    }

    /// Copies what the mesh counted.
    pub fn mesh(&self, figures: &MeshFigures) {
        set_states(&self.members, MEMBER_STATES, &figures.members);
        self.gossip_keys.set(as_gauge(figures.keys));
        self.gossip_lives.set(as_gauge(figures.gossip_lives));
        self.gossip_bytes.set(as_gauge(figures.gossip_bytes));
        self.gossip_keys_deleted.set(as_gauge(figures.keys_deleted));
        let groups = |place: GroupPlace| self.groups.with_label_values(&[place.label()]);
        groups(GroupPlace::Gossip).set(as_gauge(figures.groups_in_gossip));
        groups(GroupPlace::Directory).set(as_gauge(figures.groups_in_directory));
        self.group_watches.set(as_gauge(figures.group_watches));
        self.group_entries.set(as_gauge(figures.directory.kept));
        self.directory_repairs(DirectoryKind::Groups, &figures.directory);
        self.peer_connections.set(as_gauge(figures.peer_connections));
        self.mesh_local_health.set(as_gauge(figures.local_health));
        self.mesh_isolated.set(i64::from(figures.isolated));
        self.mesh_certificate_expiry.set(as_gauge(figures.certificate_expiry_s));
        for (limit, counted) in &figures.limited {
            raise(&self.mesh_limited.with_label_values(&[limit.label()]), *counted);
        }
        let failures = |source: DiscoverySource| self.discovery_failures.with_label_values(&[source.label()]);
        for (counter, counted) in [
            (&self.peer_messages.with_label_values(&["in"]), figures.messages_in),
            (&self.peer_messages.with_label_values(&["out"]), figures.messages_out),
            (&self.peer_queue_dropped, figures.queue_dropped),
            (&self.peers_refused, figures.refused),
            (&self.gossip_refused, figures.gossip_refused),
            (&self.groups_refused, figures.groups_refused),
            (&self.group_unanswered, figures.group_unanswered),
            (&self.suspicions, figures.suspicions),
            (&self.false_suspicions, figures.false_suspicions),
            (&self.mesh_deaths, figures.deaths),
            (&self.mesh_self_late, figures.self_late),
            (&self.mesh_gossip_ticks, figures.gossip_ticks),
            (&self.mesh_gossip_ticks_late, figures.gossip_ticks_late),
            (&self.mesh_probes.with_label_values(&["direct"]), figures.probes_direct),
            (
                &self.mesh_probes.with_label_values(&["indirect"]),
                figures.probes_indirect,
            ),
            (&self.mesh_nacks_missed, figures.nacks_missed),
            (&failures(DiscoverySource::Seed), figures.seed_failures),
            (&failures(DiscoverySource::Dns), figures.dns_failures),
        ] {
            raise(counter, counted);
        }
        for rtt in &figures.rtts {
            self.peer_rtt_seconds.observe(rtt.as_secs_f64());
        }
    }

    /// The Prometheus text format, with every family, also those that have no sample yet.
    pub fn render(&self) -> String {
        for collect in self.collect.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            collect(self);
        }
        let gathered = self.registry.gather();
        let mut text = Vec::with_capacity(32 * 1024);
        TextEncoder::new()
            .encode(&gathered, &mut text)
            .expect("a vector takes everything that is written");
        let mut text = String::from_utf8(text).expect("names, labels and numbers are text");
        let with_samples: Vec<&str> = gathered.iter().map(|family| family.name()).collect();
        for (desc, kind) in &self.families {
            if !with_samples.contains(&desc.fq_name.as_str()) {
                let (name, help) = (&desc.fq_name, &desc.help);
                writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes everything");
            }
        }
        text
    }
}

/// Brings a counter up to what was counted elsewhere. It never goes back, even if two scrapes overtake each other.
fn raise(counter: &IntCounter, counted: u64) {
    counter.inc_by(counted.saturating_sub(counter.get()));
}

fn set_states(family: &IntGaugeVec, states: &[&str], counts: &BTreeMap<&'static str, u64>) {
    for state in states {
        let count = counts.get(state).copied().unwrap_or_default();
        family.with_label_values(&[state]).set(as_gauge(count));
    }
}

fn as_gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
