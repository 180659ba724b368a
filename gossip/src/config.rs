//! How a mesh is started. Every figure that an operator never sees is a constant beside the code that uses it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::certificates::CertificateFiles;
use crate::listen::Listen;
use crate::peer::NodeId;
use crate::secret::Secret;

/// The longest cluster name, in bytes.
pub(crate) const CLUSTER_NAME_LEN_MAX: usize = 64;

/// Describes this node and how it finds the others.
#[derive(Debug)]
pub struct Config {
    /// This node's name, unique in the cluster.
    pub node: NodeId,
    /// Which life of the node this is; must be higher than at every start before.
    pub generation: u64,
    /// Nodes of another cluster name are refused, even with the same secret.
    pub cluster_name: String,
    /// The secret that all nodes of the cluster share.
    pub secret: Secret,
    /// A second secret that is accepted too, so that a rotation is a rolling change: node by node the new secret becomes the next one,
    /// then the first one with the old one as the next, then the only one.
    pub secret_next: Option<Secret>,
    /// An operator's certificates, by which nodes know each other instead of by those that they make from the secret. All nodes have
    /// them or none. The files are looked at every few seconds, and what is new in them is used from the next handshake on. The secret
    /// is still what everything else is derived from, so two nodes that share none refuse each other all the same.
    pub certificates: Option<CertificateFiles>,
    /// The bound socket. All traffic between nodes goes through this one port.
    pub listen: Listen,
    /// Where peers reach us, `host:port`. A host name is resolved once, at the start.
    pub advertise: String,
    /// Nodes to join through, `host:port`.
    pub seeds: Vec<String>,
    /// Names to join through: `host:port` (A and AAAA records) or `_service._udp.name` (SRV records).
    pub dns: Vec<String>,
    /// How often seeds and names are looked up again; every 2 s while this node is alone.
    pub poll_interval: Duration,
    /// How fast gossip runs and how soon silence is a suspicion.
    pub profile: Profile,
    /// Asks this DNS server instead of the system's.
    pub dns_server: Option<SocketAddr>,
    /// Sizes.
    pub limits: Limits,
}

/// Chooses between noticing a crash early and tolerating long pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// A crash is noticed within 8 s; a pause of 2 s is never taken for one.
    #[default]
    Default,
    /// A crash is noticed within 4 s; a pause of 1 s is never taken for one. For networks without long pauses.
    Lan,
}

/// The figures behind a profile; where they come from is said beside each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) gossip_interval: Duration,
    /// Multiples of the mean gap between heartbeats after which gossip calls a node silent.
    pub(crate) phi_threshold: f64,
    /// How long a direct probe may take before others are asked to probe.
    pub(crate) direct_probe: Duration,
    /// How long a suspicion lasts before it is a verdict.
    pub(crate) confirm: Duration,
}

impl Profile {
    pub(crate) fn timing(self) -> Timing {
        match self {
            // Simulated with 3 to 50 nodes: silent 2.5 to 5.6 s after a crash, never after a pause of 2 s. With 2 s to confirm, a
            // verdict comes after 4.5 to 7.6 s.
            Profile::Default => Timing {
                gossip_interval: Duration::from_millis(500),
                phi_threshold: 12.0,
                direct_probe: Duration::from_secs(1),
                confirm: Duration::from_secs(2),
            },
            // Silent 0.9 to 2.3 s after a crash; a pause of 1 s may be suspected, and ends before the suspicion is a verdict.
            Profile::Lan => Timing {
                gossip_interval: Duration::from_millis(200),
                phi_threshold: 12.0,
                direct_probe: Duration::from_millis(500),
                confirm: Duration::from_millis(1200),
            },
        }
    }
}

/// Bounds what is queued and what one node may say.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many bytes wait for one peer on one channel before `send` says `Full`.
    pub queue_bytes: usize,
    /// The longest message, request and answer.
    pub message_bytes: usize,
    /// How many facts and groups this node states in gossip, which copies all of them to every node; further groups go to the
    /// directory, and of further facts it warns.
    pub keys_soft: usize,
    /// How many facts this node may state, beside the groups that gossip carries.
    pub keys_hard: usize,
    /// How many groups this node may be in, wherever they are said.
    pub groups_max: usize,
    /// How many other nodes there may be. Those beyond are refused and not shown.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_bytes: 8 << 20,
            message_bytes: 4 << 20,
            keys_soft: 200,
            keys_hard: 1_000,
            groups_max: 100_000,
            peers: 1_000,
        }
    }
}
