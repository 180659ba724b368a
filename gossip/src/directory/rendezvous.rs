//! Which two nodes are the homes of a key: those with the highest weight of (node, key) among the nodes that take work. When a node
//! comes or goes, only the keys that it wins or had won change a home.
#![deny(clippy::disallowed_methods)]

use std::cmp::Reverse;

use super::Key;
use crate::member::{Member, MemberState, Members};
use crate::peer::NodeId;

/// How many nodes keep each entry.
const HOMES: usize = 2;

#[derive(Debug, Clone)]
pub(super) struct Rendezvous {
    local: NodeId,
    nodes: Vec<(NodeId, u64)>,
}

impl Rendezvous {
    pub(super) fn new(local: &NodeId) -> Self {
        Self {
            local: local.clone(),
            nodes: Vec::new(),
        }
    }

    /// Takes the nodes that take work; a suspect one that did stays, since a suspicion is no verdict and moving is not free. Says
    /// whether anything has changed.
    pub(super) fn update(&mut self, members: &Members) -> bool {
        let was = |node: &NodeId| self.nodes.iter().any(|(known, _)| known == node);
        let takes = |member: &&Member| match member.state {
            MemberState::Ready => true,
            MemberState::Suspect => was(&member.peer.node),
            MemberState::Joining | MemberState::Draining | MemberState::Leaving | MemberState::Dead => false,
        };
        let named = |member: &Member| (member.peer.node.clone(), name_hash(&member.peer.node));
        let mut nodes: Vec<(NodeId, u64)> = members.iter().filter(takes).map(named).collect();
        if nodes.is_empty() {
            // The last ones are on their way out, and still have players.
            let drains = |member: &&Member| member.state == MemberState::Draining;
            nodes = members.iter().filter(drains).map(named).collect();
        }
        let changed = nodes != self.nodes;
        self.nodes = nodes;
        changed
    }

    /// The homes of a key, the heavier one first; the node itself while nobody takes work.
    pub(super) fn homes(&self, key: Key) -> Vec<NodeId> {
        if self.nodes.is_empty() {
            return vec![self.local.clone()];
        }
        let mut best: [Option<(u64, &NodeId)>; HOMES] = [None; HOMES];
        for (node, hash) in &self.nodes {
            let mut candidate = Some((weight(*hash, key), node));
            for place in &mut best {
                // Reverse, so that of two equal weights the first name wins, on every node alike.
                let wins = match (&candidate, &place) {
                    (Some((weight, node)), Some((held, holder))) => {
                        (*weight, Reverse(*node)) > (*held, Reverse(*holder))
                    }
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if wins {
                    std::mem::swap(place, &mut candidate);
                }
            }
        }
        best.into_iter().flatten().map(|(_, node)| node.clone()).collect()
    }

    /// Whether a node is one of a key's homes.
    pub(super) fn is_home(&self, key: Key, node: &NodeId) -> bool {
        self.homes(key).contains(node)
    }

    /// The node whose view this is.
    pub(super) fn local(&self) -> &NodeId {
        &self.local
    }

    /// The homes of a key that were none before.
    pub(super) fn homes_not_in(&self, key: Key, before: &Rendezvous) -> Vec<NodeId> {
        let mut homes = self.homes(key);
        let former = before.homes(key);
        homes.retain(|home| !former.contains(home));
        homes
    }
}

/// FNV-1a of the node's name: every version and platform must find the same homes, so the hash is spelled out here.
fn name_hash(node: &NodeId) -> u64 {
    node.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of splitmix64 over both: keys are as good as random already, names are not.
fn weight(name: u64, key: Key) -> u64 {
    let bytes = key.bytes();
    let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
    let mut mixed = name ^ half(0) ^ half(8).rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
