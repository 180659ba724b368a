//! Who is in one channel, over all nodes, and what is to be said of who came and went. Pure.
//!
//! Each node tells the others who is in the channel there; a player is in it while any node says so. Changes are collected and
//! said together, and what came to nothing in between is not said at all.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::{NodeName, PlayerId};

/// Members that one node names, and that a client is told when it joins.
pub(super) const LISTED_MAX: usize = 1_000;

/// In a larger crowd nobody is told who comes and goes: each change would be said to all of them.
pub(super) const TOLD_MAX: usize = 200;

/// Who came and who went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) joined: Vec<PlayerId>,
    pub(super) left: Vec<PlayerId>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty()
    }

    /// The change as somebody hears it who came with it.
    pub(super) fn without(&self, player: PlayerId) -> Self {
        let others = |players: &[PlayerId]| players.iter().copied().filter(|other| *other != player).collect();
        Self {
            joined: others(&self.joined),
            left: others(&self.left),
        }
    }
}

/// The members of one channel.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Players in it through this node, with the number of their sessions.
    here: BTreeMap<PlayerId, u32>,
    elsewhere: BTreeMap<NodeName, BTreeSet<PlayerId>>,
    /// Whom the clients here know to be in it.
    told: BTreeSet<PlayerId>,
    /// Those of whom that may be wrong.
    doubtful: BTreeSet<PlayerId>,
    /// Those of this node's of whom the other nodes may know something wrong, and whether they were in it when that was told.
    doubtful_there: BTreeMap<PlayerId, bool>,
}

impl Crowd {
    /// One more session of a player here.
    pub(super) fn enter(&mut self, player: PlayerId) {
        let sessions = self.here.entry(player).or_default();
        *sessions += 1;
        if *sessions == 1 {
            self.doubtful.insert(player);
            self.doubtful_there.entry(player).or_insert(false);
        }
    }

    /// One session less.
    pub(super) fn leave(&mut self, player: PlayerId) {
        if let Some(sessions) = self.here.get_mut(&player) {
            *sessions -= 1;
            if *sessions == 0 {
                self.here.remove(&player);
                self.doubtful.insert(player);
                self.doubtful_there.entry(player).or_insert(true);
            }
        }
    }

    /// All that a node has in the channel.
    pub(super) fn anew(&mut self, node: &NodeName, players: impl IntoIterator<Item = PlayerId>) {
        let players: BTreeSet<_> = players.into_iter().take(LISTED_MAX).collect();
        let before = self.elsewhere.insert(node.clone(), players.clone()).unwrap_or_default();
        self.doubtful.extend(before.symmetric_difference(&players));
    }

    /// Who came and went on a node.
    pub(super) fn changed(&mut self, node: &NodeName, change: Change) {
        let players = self.elsewhere.entry(node.clone()).or_default();
        for player in change.left {
            if players.remove(&player) {
                self.doubtful.insert(player);
            }
        }
        for player in change.joined {
            if players.len() < LISTED_MAX && players.insert(player) {
                self.doubtful.insert(player);
            }
        }
    }

    /// A node has nobody in it any more.
    pub(super) fn forget(&mut self, node: &NodeName) {
        self.doubtful.extend(self.elsewhere.remove(node).unwrap_or_default());
    }

    /// Who is in it here, as other nodes are told.
    pub(super) fn here(&self) -> Vec<PlayerId> {
        self.here.keys().copied().take(LISTED_MAX).collect()
    }

    /// Who is in it, as somebody is told who joins.
    pub(super) fn everyone(&self) -> Vec<PlayerId> {
        let elsewhere = self.elsewhere.values().flatten();
        let players: BTreeSet<_> = self.here.keys().chain(elsewhere).copied().collect();
        players.into_iter().take(LISTED_MAX).collect()
    }

    /// What the clients here are to be told; nothing in a crowd that is too large to hear of each.
    pub(super) fn tell(&mut self) -> Change {
        let was_large = self.told.len() > TOLD_MAX;
        let mut change = Change::default();
        for player in std::mem::take(&mut self.doubtful) {
            let is_in = self.is_in(player);
            if is_in && self.told.insert(player) {
                change.joined.push(player);
            } else if !is_in && self.told.remove(&player) {
                change.left.push(player);
            }
        }
        if was_large || self.told.len() > TOLD_MAX {
            return Change::default();
        }
        change
    }

    /// What the other nodes are to be told of this one.
    pub(super) fn tell_there(&mut self) -> Change {
        let mut change = Change::default();
        for (player, was_in) in std::mem::take(&mut self.doubtful_there) {
            match (was_in, self.here.contains_key(&player)) {
                (false, true) => change.joined.push(player),
                (true, false) => change.left.push(player),
                (true, true) | (false, false) => {}
            }
        }
        change
    }

    fn is_in(&self, player: PlayerId) -> bool {
        self.here.contains_key(&player) || self.elsewhere.values().any(|players| players.contains(&player))
    }
}

#[cfg(test)]
mod tests;
