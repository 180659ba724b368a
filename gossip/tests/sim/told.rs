//! What a subscriber to the changes of members was told, folded by rules of its own: not by `Members::apply`, which is under test.

use std::collections::BTreeMap;
use std::sync::Arc;

use rookery_gossip::{Change, ChangeKind, Departure, Member, MemberState, Members, NodeId};

#[derive(Default)]
pub(crate) struct Told {
    by_node: BTreeMap<NodeId, About>,
}

#[derive(Debug)]
struct About {
    generation: u64,
    addr: String,
    /// The last word about its life has been said.
    is_over: bool,
    state: MemberState,
    facts: Arc<BTreeMap<String, String>>,
    mesh_version: u32,
}

impl Told {
    /// Takes the next change. Says what is wrong with it, if it does not follow from what was told before or tells nothing new.
    pub(crate) fn take(&mut self, change: &Change) -> Result<(), String> {
        let Change { peer, kind } = change;
        let about = self.by_node.get_mut(&peer.node);
        let wrong = |about: &dyn std::fmt::Debug| Err(format!("{change:?} after {about:?}"));
        match (kind, about) {
            (
                ChangeKind::Arrived {
                    state,
                    facts,
                    mesh_version,
                },
                about,
            ) => {
                let may = about.as_ref().is_none_or(|about| {
                    about.is_over && about.generation == peer.generation && about.state == MemberState::Dead
                });
                if !may || *state == MemberState::Dead {
                    return wrong(&about);
                }
                let about = About {
                    generation: peer.generation,
                    addr: peer.addr.clone(),
                    is_over: false,
                    state: *state,
                    facts: facts.clone(),
                    mesh_version: *mesh_version,
                };
                self.by_node.insert(peer.node.clone(), about);
            }
            (
                ChangeKind::Remembered {
                    state,
                    facts,
                    mesh_version,
                },
                None,
            ) => {
                let about = About {
                    generation: peer.generation,
                    addr: peer.addr.clone(),
                    is_over: true,
                    state: *state,
                    facts: facts.clone(),
                    mesh_version: *mesh_version,
                };
                self.by_node.insert(peer.node.clone(), about);
            }
            (ChangeKind::Forgotten, Some(about)) if about.is_over && about.generation == peer.generation => {
                self.by_node.remove(&peer.node);
            }
            (ChangeKind::Departed { why }, Some(about)) if !about.is_over && about.generation == peer.generation => {
                about.is_over = true;
                match why {
                    Departure::Left => about.state = MemberState::Leaving,
                    Departure::Died => about.state = MemberState::Dead,
                    Departure::Superseded => {
                        self.by_node.remove(&peer.node);
                    }
                    // Changes are taken at every step, so none can have been missed.
                    Departure::Missed => return wrong(&"a view that was told in full"),
                }
            }
            (ChangeKind::State { from, to }, Some(about))
                if !about.is_over && about.generation == peer.generation && about.state == *from && from != to =>
            {
                about.state = *to;
            }
            (ChangeKind::Facts { facts, mesh_version }, Some(about))
                if about.generation == peer.generation
                    && (about.facts != *facts || about.addr != peer.addr || about.mesh_version != *mesh_version) =>
            {
                about.facts = facts.clone();
                about.addr = peer.addr.clone();
                about.mesh_version = *mesh_version;
            }
            (_, about) => return wrong(&about),
        }
        Ok(())
    }

    /// What was told must be what is shown. Says where it is not.
    pub(crate) fn compare(&self, members: &Members) -> Result<(), String> {
        let told = |member: &Member| {
            self.by_node.get(&member.peer.node).is_some_and(|about| {
                (about.generation, &about.addr, about.is_over, about.state)
                    == (member.peer.generation, &member.peer.addr, member.departed, member.state)
                    && about.facts == member.facts
                    && about.mesh_version == member.mesh_version
            })
        };
        for member in members.iter() {
            if !told(member) {
                let about = self.by_node.get(&member.peer.node);
                return Err(format!("{member:?} is shown, and {about:?} was told"));
            }
        }
        match self.by_node.keys().find(|node| members.get(node).is_none()) {
            Some(node) => Err(format!("{node} was told of, and is not shown")),
            None => Ok(()),
        }
    }
}
