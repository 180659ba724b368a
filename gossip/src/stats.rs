//! Counters of the mesh, kept where things happen and read as one snapshot. They count; they decide nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::directory::DirectoryStats;
use crate::peer::NodeId;

/// Counts refused peers by what they lacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusedCounts {
    /// The peer holds another secret.
    pub secret: u64,
    /// The peer's certificate is of another authority, or one of the two has certificates of an operator and the other has none.
    pub authority: u64,
    /// The peer belongs to a cluster of another name.
    pub cluster_name: u64,
    /// The peer has no certificate of this cluster, or one that has expired, names another node or does not do for another reason.
    pub certificate: u64,
    /// A newer life of the peer is known.
    pub superseded: u64,
    /// There were as many peers as there may be.
    pub crowded: u64,
}

/// Counts what was turned away because somebody took more than a share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitedCounts {
    /// Handshakes that had to prove their address before they were taken up. Nothing is lost by it.
    pub proved: u64,
    /// Handshakes that were refused because there were too many under way, of one host or in all.
    pub busy: u64,
    /// Handshakes that were refused because one host began them too fast.
    pub too_fast: u64,
    /// Gossip messages of one node beyond what one node may send.
    pub gossip: u64,
    /// Requests and answers of one node beyond what one node may have under way.
    pub requests: u64,
    /// Requests that did not arrive, and answers that were not fetched, in time.
    pub slow: u64,
    /// Data connections closed because they did not follow the format. Gossip that does not is counted in `gossip_refused_total`.
    pub malformed: u64,
}

/// Holds the figures of the mesh at one moment; what ends in `_total` only rises.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Control connections that are up.
    pub control_connections: u64,
    /// Data connections that are up.
    pub data_connections: u64,
    /// Facts and groups that this node states in gossip.
    pub own_keys: u64,
    /// Keys that this node stated once and that gossip keeps as deleted for a quarter of an hour.
    pub own_keys_deleted: u64,
    /// Groups of this node that gossip states.
    pub groups_in_gossip: u64,
    /// Groups of this node that the directory holds.
    pub groups_in_directory: u64,
    /// Joins that were refused because this node is in as many groups as it may be.
    pub groups_refused_total: u64,
    /// Groups that this node watches in the directory because somebody here wants to reach them.
    pub groups_watched: u64,
    /// Groups that were not watched because too many are.
    pub group_watches_refused_total: u64,
    /// Groups whose nodes no home named in time: their broadcasts went to every node with groups in the directory.
    pub group_unanswered_total: u64,
    /// The mesh's own directory, which holds groups.
    pub directory: DirectoryStats,
    /// Facts and groups of all nodes.
    pub cluster_keys: u64,
    /// Lives of nodes that gossip knows and speaks of, this one and those that it takes for dead included. A node that dies leaves it
    /// within seconds.
    pub gossip_lives: u64,
    /// The bytes of what gossip keeps of them: names, keys and values, deleted keys included.
    pub gossip_bytes: u64,
    /// Until when the operator's certificate of this node counts, in Unix seconds; 0 when it has none.
    pub certificate_expiry_s: u64,
    /// Refused peers.
    pub refused_total: RefusedCounts,
    /// What was turned away from who took more than a share.
    pub limited_total: LimitedCounts,
    /// Messages handed to data connections.
    pub messages_sent_total: u64,
    /// Messages that came from data connections.
    pub messages_received_total: u64,
    /// Sends refused because a queue was full.
    pub queue_full_total: u64,
    /// Messages dropped because their peer was gone, and broadcasts that found a full queue.
    pub dropped_total: u64,
    /// Gossip messages dropped; gossip repairs itself.
    pub gossip_dropped_total: u64,
    /// Ticks of gossip.
    pub gossip_ticks_total: u64,
    /// Ticks of gossip that came more than 20 ms after they were due.
    pub gossip_ticks_late_20ms_total: u64,
    /// Ticks of gossip that came more than a gossip interval after they were due.
    pub gossip_ticks_late_interval_total: u64,
    /// By how much the latest tick of all since the start was late.
    pub gossip_tick_late_max: Duration,
    /// Gossip messages that broke a rule and were not taken.
    pub gossip_refused_total: u64,
    /// Breaks of data connections.
    pub links_lost_total: u64,
    /// Dials that are under way, those that wait for their turn included.
    pub dials_under_way: u64,
    /// Failed attempts to connect.
    pub dial_failures_total: u64,
    /// Failed look-ups of seeds and failed attempts to reach them.
    pub discovery_failures_seed_total: u64,
    /// Failed look-ups of DNS names.
    pub discovery_failures_dns_total: u64,
    /// Members that were suspected.
    pub suspicions_total: u64,
    /// Suspicions that proved wrong.
    pub false_suspicions_total: u64,
    /// Times that this node found itself late and trusted itself less.
    pub self_late_total: u64,
    /// Members that were declared dead.
    pub deaths_total: u64,
    /// Direct probes begun; each asks again until there is an answer or its round is over.
    pub probes_direct_total: u64,
    /// Probes asked of other members.
    pub probes_indirect_total: u64,
    /// Members that were asked for help and said nothing in time, which speaks against this node rather than against the suspect.
    pub nacks_missed_total: u64,
    /// Lifeguard's local health of this node: 0 is well, 8 is the worst.
    pub local_health: u64,
    /// The round trip to each peer with a control connection.
    pub rtt: BTreeMap<NodeId, Duration>,
}

macro_rules! counters {
    ($($name:ident,)*) => {
        /// The counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }
    };
}

counters! {
    certificate_expiry_s,
    control_connections,
    data_connections,
    own_keys,
    cluster_keys,
    own_keys_deleted,
    group_watches_refused,
    group_unanswered,
    gossip_lives,
    gossip_bytes,
    refused_secret,
    refused_authority,
    refused_cluster_name,
    refused_certificate,
    refused_superseded,
    refused_crowded,
    limited_proved,
    limited_busy,
    limited_too_fast,
    limited_gossip,
    limited_requests,
    limited_slow,
    malformed,
    messages_sent,
    messages_received,
    queue_full,
    dropped,
    gossip_dropped,
    gossip_refused,
    gossip_ticks,
    gossip_ticks_late_20ms,
    gossip_ticks_late_interval,
    gossip_tick_late_max_us,
    dials_under_way,
    links_lost,
    dial_failures,
    discovery_failures_seed,
    discovery_failures_dns,
    suspicions,
    false_suspicions,
    self_late,
    deaths,
    probes_direct,
    probes_indirect,
    nacks_missed,
    local_health,
}

/// A number that several tasks count on.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    pub(crate) fn raise_to(&self, count: u64) {
        self.0.fetch_max(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Takes the snapshot.
    pub(crate) fn snapshot(&self, rtt: BTreeMap<NodeId, Duration>) -> Stats {
        Stats {
            control_connections: self.control_connections.get(),
            data_connections: self.data_connections.get(),
            own_keys: self.own_keys.get(),
            own_keys_deleted: self.own_keys_deleted.get(),
            groups_in_gossip: 0,
            groups_in_directory: 0,
            groups_refused_total: 0,
            groups_watched: 0,
            group_watches_refused_total: self.group_watches_refused.get(),
            group_unanswered_total: self.group_unanswered.get(),
            directory: DirectoryStats::default(),
            cluster_keys: self.cluster_keys.get(),
            gossip_lives: self.gossip_lives.get(),
            gossip_bytes: self.gossip_bytes.get(),
            certificate_expiry_s: self.certificate_expiry_s.get(),
            refused_total: RefusedCounts {
                secret: self.refused_secret.get(),
                authority: self.refused_authority.get(),
                cluster_name: self.refused_cluster_name.get(),
                certificate: self.refused_certificate.get(),
                superseded: self.refused_superseded.get(),
                crowded: self.refused_crowded.get(),
            },
            limited_total: LimitedCounts {
                proved: self.limited_proved.get(),
                busy: self.limited_busy.get(),
                too_fast: self.limited_too_fast.get(),
                gossip: self.limited_gossip.get(),
                requests: self.limited_requests.get(),
                slow: self.limited_slow.get(),
                malformed: self.malformed.get(),
            },
            messages_sent_total: self.messages_sent.get(),
            messages_received_total: self.messages_received.get(),
            queue_full_total: self.queue_full.get(),
            dropped_total: self.dropped.get(),
            gossip_dropped_total: self.gossip_dropped.get(),
            gossip_refused_total: self.gossip_refused.get(),
            gossip_ticks_total: self.gossip_ticks.get(),
            gossip_ticks_late_20ms_total: self.gossip_ticks_late_20ms.get(),
            gossip_ticks_late_interval_total: self.gossip_ticks_late_interval.get(),
            gossip_tick_late_max: Duration::from_micros(self.gossip_tick_late_max_us.get()),
            dials_under_way: self.dials_under_way.get(),
            links_lost_total: self.links_lost.get(),
            dial_failures_total: self.dial_failures.get(),
            discovery_failures_seed_total: self.discovery_failures_seed.get(),
            discovery_failures_dns_total: self.discovery_failures_dns.get(),
            suspicions_total: self.suspicions.get(),
            false_suspicions_total: self.false_suspicions.get(),
            self_late_total: self.self_late.get(),
            deaths_total: self.deaths.get(),
            probes_direct_total: self.probes_direct.get(),
            probes_indirect_total: self.probes_indirect.get(),
            nacks_missed_total: self.nacks_missed.get(),
            local_health: self.local_health.get(),
            rtt,
        }
    }
}
