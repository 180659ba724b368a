//! What became of the members, one transition after the other. Pure; the queues to subscribers are in `changes/feed.rs`.
//!
//! A change is found by comparing two views of the members, never by listening to the rules that led from one to the other. So the
//! stream cannot disagree with [`Members`]: folding it ([`Members::apply`]) gives the later view exactly, and a subscriber that was
//! too slow is served by one more comparison.
//!
//! The invariant, for each node: a life arrives before anything else is said of it, it departs before it or a newer life arrives,
//! and nothing is said twice. As a machine, of which `tests.rs` checks every step:
//!
//! ```text
//! absent --Arrived--> present --Departed{Died, Left}--> departed --Forgotten--> absent
//!                     present --State, Facts--> present
//!                     present --Departed{Superseded, Missed}--> absent      (after Superseded, the newer life arrives next)
//!                                departed --Arrived--> present              (the same life: it was only out of reach)
//!                                departed --Facts--> departed                (it is out of reach for us, and others hear it)
//! absent --Remembered--> departed                                           (it departed before the subscriber looked)
//! ```
#![deny(clippy::disallowed_methods)]

pub(crate) mod feed;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::member::{Member, MemberState, Members};
use crate::peer::Peer;

/// Says what happened to one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The life that it happened to, with its present address.
    pub peer: Peer,
    /// What happened.
    pub kind: ChangeKind,
}

/// Is one transition of one life of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// The life is a member from now on. After `Departed { why: Died }` it is a member *again*: the same process was out of reach, or
    /// stood still, and nothing that it held has been lost on its side. A restarted process has a higher generation.
    Arrived {
        /// What it does.
        state: MemberState,
        /// What it says about itself.
        facts: Arc<BTreeMap<String, String>>,
        /// See [`Member::mesh_version`].
        mesh_version: u32,
    },
    /// What a member does has changed, or a suspicion began or ended.
    State {
        /// What it did before.
        from: MemberState,
        /// What it does now; `Dead` never, which is a departure.
        to: MemberState,
    },
    /// What a member says about itself has changed: its facts, its address, or what it understands. One that has departed and is
    /// still listed may be heard of in this way through others, and that does not make it a member again.
    Facts {
        /// All of them, as they are now.
        facts: Arc<BTreeMap<String, String>>,
        /// See [`Member::mesh_version`].
        mesh_version: u32,
    },
    /// The life is over as far as this node can see.
    Departed {
        /// How that is known.
        why: Departure,
    },
    /// The life had departed before the subscriber looked. It is listed among the members, and that is all.
    Remembered {
        /// `Dead`, or `Leaving`.
        state: MemberState,
        /// What it said about itself.
        facts: Arc<BTreeMap<String, String>>,
        /// See [`Member::mesh_version`].
        mesh_version: u32,
    },
    /// A life that had departed is listed no longer.
    Forgotten,
}

/// Says how it is known that a life is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Departure {
    /// It said goodbye. It will not come back; it stays listed for some seconds.
    Left,
    /// No probe was answered: a verdict, and no proof. It stays listed for a quarter of an hour, and may arrive again.
    Died,
    /// A newer life of the node is here, and arrives next.
    Superseded,
    /// It is not listed any more, and this subscriber was too slow to see how it went.
    Missed,
}

impl Departure {
    /// Returns the name in lower case, as logs carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Departure::Left => "left",
            Departure::Died => "died",
            Departure::Superseded => "superseded",
            Departure::Missed => "missed",
        }
    }
}

impl Members {
    /// Brings this view of the members up to date with a change. Changes that do not follow from each other are applied as far as
    /// they make sense.
    pub fn apply(&mut self, change: &Change) {
        let node = &change.peer.node;
        match &change.kind {
            ChangeKind::Arrived {
                state,
                facts,
                mesh_version,
            }
            | ChangeKind::Remembered {
                state,
                facts,
                mesh_version,
            } => {
                let member = Member {
                    peer: change.peer.clone(),
                    state: *state,
                    facts: Arc::clone(facts),
                    departed: matches!(change.kind, ChangeKind::Remembered { .. }),
                    mesh_version: *mesh_version,
                    rtt: None,
                };
                self.by_node.insert(node.clone(), member);
            }
            ChangeKind::Departed {
                why: Departure::Superseded | Departure::Missed,
            }
            | ChangeKind::Forgotten => {
                self.by_node.remove(node);
            }
            ChangeKind::State { .. } | ChangeKind::Facts { .. } | ChangeKind::Departed { .. } => {
                let Some(member) = self.by_node.get_mut(node) else {
                    return;
                };
                member.peer = change.peer.clone();
                match &change.kind {
                    ChangeKind::State { to, .. } => member.state = *to,
                    ChangeKind::Facts { facts, mesh_version } => {
                        member.facts = Arc::clone(facts);
                        member.mesh_version = *mesh_version;
                    }
                    ChangeKind::Departed { why } => {
                        member.departed = true;
                        member.state = match why {
                            Departure::Died => MemberState::Dead,
                            Departure::Left | Departure::Superseded | Departure::Missed => MemberState::Leaving,
                        };
                    }
                    ChangeKind::Arrived { .. } | ChangeKind::Remembered { .. } | ChangeKind::Forgotten => {}
                }
            }
        }
    }
}

/// The changes that lead from one view to another, node by node. Facts come before states, so that who hears that a node is ready
/// knows already what it offers.
pub(crate) fn between(before: &Members, after: &Members) -> Vec<Change> {
    let mut changes = Vec::new();
    for (node, old) in &before.by_node {
        match after.by_node.get(node) {
            Some(new) if new.peer.generation == old.peer.generation => same_life(old, new, &mut changes),
            Some(new) => {
                let superseded = new.peer.generation > old.peer.generation;
                ended(
                    old,
                    if superseded {
                        Departure::Superseded
                    } else {
                        Departure::Missed
                    },
                    &mut changes,
                );
                began(new, &mut changes);
            }
            None => ended(old, Departure::Missed, &mut changes),
        }
    }
    for (node, new) in &after.by_node {
        if !before.by_node.contains_key(node) {
            began(new, &mut changes);
        }
    }
    changes
}

fn same_life(old: &Member, new: &Member, changes: &mut Vec<Change>) {
    let mut say = |kind| {
        changes.push(Change {
            peer: new.peer.clone(),
            kind,
        })
    };
    if old.departed && !new.departed {
        say(ChangeKind::Arrived {
            state: new.state,
            facts: Arc::clone(&new.facts),
            mesh_version: new.mesh_version,
        });
        return;
    }
    if old.facts != new.facts || old.peer.addr != new.peer.addr || old.mesh_version != new.mesh_version {
        say(ChangeKind::Facts {
            facts: Arc::clone(&new.facts),
            mesh_version: new.mesh_version,
        });
    }
    if new.departed && !old.departed {
        let why = if new.state == MemberState::Dead {
            Departure::Died
        } else {
            Departure::Left
        };
        say(ChangeKind::Departed { why });
    } else if old.state != new.state {
        say(ChangeKind::State {
            from: old.state,
            to: new.state,
        });
    }
}

/// The last word about a life that is listed no longer.
fn ended(old: &Member, why: Departure, changes: &mut Vec<Change>) {
    let kind = if old.departed {
        ChangeKind::Forgotten
    } else {
        ChangeKind::Departed { why }
    };
    changes.push(Change {
        peer: old.peer.clone(),
        kind,
    });
}

/// The first word about a life.
fn began(new: &Member, changes: &mut Vec<Change>) {
    let (state, facts, mesh_version) = (new.state, Arc::clone(&new.facts), new.mesh_version);
    let kind = if new.departed {
        ChangeKind::Remembered {
            state,
            facts,
            mesh_version,
        }
    } else {
        ChangeKind::Arrived {
            state,
            facts,
            mesh_version,
        }
    };
    changes.push(Change {
        peer: new.peer.clone(),
        kind,
    });
}
