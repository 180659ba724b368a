//! Members: the nodes as this node sees them, in a snapshot that does not change. Not the rules by which they got there
//! (`view.rs`, `suspicion.rs`). A snapshot holds one generation of a node, the highest one seen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::peer::{NodeId, Peer};

/// What a node does at the moment, as it says itself, or as we conclude from its silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// The node has started and takes no work yet.
    Joining,
    /// The node takes work.
    Ready,
    /// The node hands its work over and takes none.
    Draining,
    /// The node has said goodbye.
    Leaving,
    /// The node has not been heard of; it is being probed. A suspicion is no verdict.
    Suspect,
    /// No probe, direct or through others, was answered.
    Dead,
}

impl MemberState {
    /// Every state, in the order of a node's life.
    pub const ALL: [MemberState; 6] = [
        MemberState::Joining,
        MemberState::Ready,
        MemberState::Draining,
        MemberState::Leaving,
        MemberState::Suspect,
        MemberState::Dead,
    ];

    /// Returns the state's name in lower case, as gossip and metrics carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::Joining => "joining",
            MemberState::Ready => "ready",
            MemberState::Draining => "draining",
            MemberState::Leaving => "leaving",
            MemberState::Suspect => "suspect",
            MemberState::Dead => "dead",
        }
    }

    /// Reads a state that a node said about itself; nobody may call itself suspect or dead.
    pub(crate) fn stated(text: &str) -> Option<Self> {
        match text {
            "joining" => Some(MemberState::Joining),
            "ready" => Some(MemberState::Ready),
            "draining" => Some(MemberState::Draining),
            "leaving" => Some(MemberState::Leaving),
            _ => None,
        }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Describes one node: who it is, what it does, and what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The life of the node that this is about.
    pub peer: Peer,
    /// What the node does.
    pub state: MemberState,
    /// What the node said with `set_fact`.
    pub facts: Arc<BTreeMap<String, String>>,
    /// Whether this life is over as far as this node can see: it is `Dead`, or it has said goodbye. A member that is `Leaving` and has
    /// not departed is only about to.
    pub departed: bool,
    /// Up to which version the node understands what the mesh says to itself; 1 for a node that does not say.
    pub mesh_version: u32,
    /// The round trip of the control connection; none for ourselves and for members without a connection.
    pub rtt: Option<Duration>,
}

/// Holds all members at one moment, this node included, each with its highest generation only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    pub(crate) by_node: BTreeMap<NodeId, Member>,
}

impl Members {
    /// Returns the member with this name.
    pub fn get(&self, node: &NodeId) -> Option<&Member> {
        self.by_node.get(node)
    }

    /// Returns all members in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_node.values()
    }

    /// Returns the members that take work.
    pub fn ready(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.state == MemberState::Ready)
    }

    /// Returns how many members are in this state.
    pub fn count(&self, state: MemberState) -> usize {
        self.iter().filter(|member| member.state == state).count()
    }

    /// Returns how many members there are, this node included.
    pub fn len(&self) -> usize {
        self.by_node.len()
    }

    /// Returns whether there is no member, which is so only before the cluster has started.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}
