//! What an operator asks a node about its mesh, in one answer. Figures as they are at one moment; they decide nothing.

use std::time::Duration;

use crate::discovery::SourceStatus;
use crate::member::MemberState;
use crate::peer::Peer;

/// Holds how the mesh looks from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterReport {
    /// All members in the order of their names, this node included.
    pub members: Vec<MemberReport>,
    /// This node itself.
    pub own: OwnReport,
    /// How each seed and DNS name fares.
    pub sources: Vec<SourceStatus>,
}

/// Describes one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReport {
    /// Which life of which node this is.
    pub peer: Peer,
    /// What it does.
    pub state: MemberState,
    /// Whether its life is over; see [`Member::departed`](crate::Member::departed).
    pub departed: bool,
    /// How long it has been in this state.
    pub since: Duration,
    /// Whether it answers this node, as far as this node has tried: false for a member that only others can reach, and for the dead.
    pub reachable: bool,
    /// Whether there is a control connection to it. One may be missing for a moment after a member arrived.
    pub connected: bool,
    /// How long ago it gave a sign of life, by itself or through others; none for this node, and before the first.
    pub last_heard: Option<Duration>,
    /// The round trip of the control connection, smoothed over the last packets.
    pub rtt: Option<Duration>,
    /// How many keys it states in gossip.
    pub keys: usize,
    /// The suspicion that is under way.
    pub suspicion: Option<SuspicionReport>,
}

/// Describes a suspicion that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuspicionReport {
    /// How long the member has been suspected.
    pub since: Duration,
    /// Direct probes begun; each asks again until there is an answer or the round is over. None for a member that answers, and that was
    /// suspected too often lately to be shown well already.
    pub probes: u32,
    /// Other members that were asked to probe it in this round.
    pub helpers: u32,
    /// Those of them that said that it does not answer them either.
    pub nacks: u32,
}

/// Describes the node that reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnReport {
    /// Lifeguard's local health: 0 is well, 8 is the worst. It rises when this node is late, when members that it asks for help say
    /// nothing, and when its suspicions prove wrong.
    pub health: u32,
    /// Whether this node trusts its own view less; see [`Cluster::is_isolated`](crate::Cluster::is_isolated).
    pub isolated: bool,
    /// Facts and groups that this node states in gossip.
    pub own_keys: usize,
    /// From how many of them on it warns.
    pub keys_soft: usize,
    /// How many of them it may state.
    pub keys_hard: usize,
    /// Keys that all nodes state together.
    pub cluster_keys: usize,
}
