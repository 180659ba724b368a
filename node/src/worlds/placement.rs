//! Where zones run: which are missing and where each of them goes, and which move when nodes come and go.
//!
//! Pure: [`Placement`] is given what there is (zones of the configuration, their rows, the nodes) and says what to do about it, a
//! few things at a time. It is the leader's, and yet nothing here has to be done by one node only: a zone is placed by inserting
//! its row under its unique name, and moved by a compare-and-swap on its epoch.
//!
//! It does not decide what becomes of a dead node's zones: their rows stand, and whoever takes them over goes on from what was
//! saved. A zone is missing only when there is no live row of its name.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use rookery_protocol::{MatchId, NodeLife, NodeName};

/// Zones that are being placed at once. Each is a row, a compiled module and its `start`.
pub const PLACED_AT_ONCE: usize = 16;

/// Zones that are being moved at once: each stands still for a moment.
pub const MOVED_AT_ONCE: usize = 2;

/// Nodes that come and go together are looked at together: nothing is evened out before the nodes were the same for so long.
pub const SETTLED_AFTER_MS: u64 = 3_000;

/// A zone that did not start, or ended soon after, is tried again after this long, and then twice as long each time.
const RETRY_MS_MIN: u64 = 1_000;
const RETRY_MS_MAX: u64 = 60_000;

/// A zone that ran for so long is in order.
const SOUND_AFTER_MS: u64 = 60_000;

/// A zone as it ought to be, by its name `<world>/<zone>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Why it cannot be placed: its module is not published.
    pub why_not: Option<String>,
}

/// A zone as it is: its live row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub target: MatchId,
    pub owner: NodeLife,
    /// Its row says `running`.
    pub is_running: bool,
}

/// A node that zones may be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub generation: u64,
    /// Ready. Others (draining) only give zones away.
    pub takes_zones: bool,
    /// Matches owned, as last heard: of two nodes with as many zones the less loaded one gets the next.
    pub load: u64,
}

/// Everything that placement goes by.
#[derive(Debug, Clone, Default)]
pub struct Situation {
    pub zones: BTreeMap<String, Wish>,
    pub rows: BTreeMap<String, Placed>,
    pub nodes: BTreeMap<NodeName, Host>,
}

/// What the placement hears.
#[derive(Debug)]
pub enum Input {
    /// What there is now; at least once a second while this node leads.
    Look(Situation),
    /// What became of a [`Order::Place`].
    Placed { zone: String, outcome: Result<(), String> },
    /// What became of a [`Order::Move`].
    Moved { zone: String, outcome: Result<(), String> },
    /// Another node leads: what is under way ends without us.
    Deposed,
}

/// What ought to happen. Each is answered, by [`Input::Placed`] or [`Input::Moved`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Place {
        zone: String,
        on: NodeLife,
    },
    Move {
        zone: String,
        target: MatchId,
        from: NodeLife,
        to: NodeLife,
        cause: Cause,
    },
}

/// Why a zone moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its node drains.
    Drain,
    /// Its node has more zones than others.
    Uneven,
}

/// What went wrong with a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    times: u32,
    retry_at_ms: u64,
    why: String,
}

impl Trouble {
    /// One more failure; the wait doubles.
    fn again(before: Option<&Trouble>, now_ms: u64, why: String) -> Self {
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        let wait_ms = RETRY_MS_MIN.saturating_mul(1 << (times - 1).min(16)).min(RETRY_MS_MAX);
        Self {
            times,
            retry_at_ms: now_ms + wait_ms,
            why,
        }
    }
}

/// The leader's view of all zones.
#[derive(Debug, Default)]
pub struct Placement {
    /// Zones being placed, and where.
    placing: BTreeMap<String, NodeName>,
    /// Zones being moved: from where, and where to.
    moving: BTreeMap<String, (NodeName, NodeName)>,
    /// When we placed a zone that is not known to be sound yet.
    begun_ms: BTreeMap<String, u64>,
    trouble: BTreeMap<String, Trouble>,
    move_trouble: BTreeMap<String, Trouble>,
    /// The nodes at the last look, and since when they are the same.
    nodes: BTreeMap<NodeName, (u64, bool)>,
    nodes_since_ms: u64,
}

impl Placement {
    /// Takes one input and says what ought to happen.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Order>) {
        match input {
            Input::Look(situation) => self.look(now_ms, &situation, out),
            Input::Placed { zone, outcome } => {
                if self.placing.remove(&zone).is_none() {
                    return;
                }
                match outcome {
                    Ok(()) => drop(self.begun_ms.insert(zone, now_ms)),
                    Err(why) => {
                        let trouble = Trouble::again(self.trouble.get(&zone), now_ms, why);
                        self.trouble.insert(zone, trouble);
                    }
                }
            }
            Input::Moved { zone, outcome } => {
                if self.moving.remove(&zone).is_none() {
                    return;
                }
                match outcome {
                    Ok(()) => drop(self.move_trouble.remove(&zone)),
                    Err(why) => {
                        let trouble = Trouble::again(self.move_trouble.get(&zone), now_ms, why);
                        self.move_trouble.insert(zone, trouble);
                    }
                }
            }
            Input::Deposed => *self = Self::default(),
        }
    }

    /// Whether we are moving a zone.
    pub fn is_moving(&self, zone: &str) -> bool {
        self.moving.contains_key(zone)
    }

    /// The zones that are being moved.
    pub fn moving(&self) -> impl Iterator<Item = &str> {
        self.moving.keys().map(String::as_str)
    }

    /// What is wrong with zones that do not run: each zone and why.
    pub fn trouble(&self) -> impl Iterator<Item = (&str, &str)> {
        self.trouble
            .iter()
            .map(|(zone, trouble)| (zone.as_str(), trouble.why.as_str()))
    }

    fn look(&mut self, now_ms: u64, situation: &Situation, out: &mut Vec<Order>) {
        let nodes: BTreeMap<NodeName, (u64, bool)> = situation
            .nodes
            .iter()
            .map(|(name, host)| (name.clone(), (host.generation, host.takes_zones)))
            .collect();
        if nodes != self.nodes {
            self.nodes = nodes;
            self.nodes_since_ms = now_ms;
        }
        self.note_ends(now_ms, situation);
        let mut counts = self.counts(situation);
        self.place_missing(now_ms, situation, &mut counts, out);
        self.move_away(now_ms, situation, &mut counts, out);
        self.even_out(now_ms, situation, &mut counts, out);
    }

    /// Notes zones that ended soon after we placed them, and those that by now are in order.
    fn note_ends(&mut self, now_ms: u64, situation: &Situation) {
        let is_known = |zone: &String| situation.zones.contains_key(zone);
        self.trouble.retain(|zone, _| is_known(zone));
        self.move_trouble.retain(|zone, _| situation.rows.contains_key(zone));
        let begun = std::mem::take(&mut self.begun_ms);
        for (zone, begun_ms) in begun.into_iter().filter(|(zone, _)| is_known(zone)) {
            let is_live = situation.rows.contains_key(&zone);
            if now_ms >= begun_ms + SOUND_AFTER_MS {
                if is_live {
                    self.trouble.remove(&zone);
                }
            } else if is_live {
                self.begun_ms.insert(zone, begun_ms);
            } else {
                let why = "it ended soon after it began".to_owned();
                let trouble = Trouble::again(self.trouble.get(&zone), now_ms, why);
                self.trouble.insert(zone, trouble);
            }
        }
    }

    /// How many zones each node has, or is about to have.
    fn counts(&self, situation: &Situation) -> BTreeMap<NodeName, u64> {
        let mut counts: BTreeMap<NodeName, u64> = situation.nodes.keys().map(|name| (name.clone(), 0)).collect();
        let mut add = |name: &NodeName| {
            if let Some(count) = counts.get_mut(name) {
                *count += 1;
            }
        };
        for (zone, row) in &situation.rows {
            match self.moving.get(zone) {
                // It counts where it will be, wherever its row says that it is by now.
                Some((_, to)) => add(to),
                None => add(&row.owner.name),
            }
        }
        for (zone, on) in &self.placing {
            if !situation.rows.contains_key(zone) {
                add(on);
            }
        }
        counts
    }

    fn place_missing(
        &mut self,
        now_ms: u64,
        situation: &Situation,
        counts: &mut BTreeMap<NodeName, u64>,
        out: &mut Vec<Order>,
    ) {
        for (zone, wish) in &situation.zones {
            let waits = self
                .trouble
                .get(zone)
                .is_some_and(|trouble| now_ms < trouble.retry_at_ms);
            let is_there = situation.rows.contains_key(zone) || self.placing.contains_key(zone);
            if is_there || wish.why_not.is_some() || waits {
                continue;
            }
            if self.placing.len() >= PLACED_AT_ONCE {
                return;
            }
            let Some(on) = emptiest(situation, counts) else { return };
            *counts.entry(on.name.clone()).or_default() += 1;
            self.placing.insert(zone.clone(), on.name.clone());
            out.push(Order::Place { zone: zone.clone(), on });
        }
    }

    /// Zones leave nodes that take none.
    fn move_away(
        &mut self,
        now_ms: u64,
        situation: &Situation,
        counts: &mut BTreeMap<NodeName, u64>,
        out: &mut Vec<Order>,
    ) {
        for (zone, row) in &situation.rows {
            let leaves = situation
                .nodes
                .get(&row.owner.name)
                .is_some_and(|host| !host.takes_zones);
            if !leaves || !self.may_move(now_ms, situation, zone, row) {
                continue;
            }
            if self.moving.len() >= MOVED_AT_ONCE {
                return;
            }
            let Some(to) = emptiest(situation, counts) else { return };
            self.move_zone((zone, row), to, Cause::Drain, counts, out);
        }
    }

    /// No node has two zones more than another.
    fn even_out(
        &mut self,
        now_ms: u64,
        situation: &Situation,
        counts: &mut BTreeMap<NodeName, u64>,
        out: &mut Vec<Order>,
    ) {
        // What is missing or being started goes where there is least: that may even things out by itself.
        let all_run = situation
            .zones
            .iter()
            .filter(|(_, wish)| wish.why_not.is_none())
            .all(|(zone, _)| {
                let runs = situation.rows.get(zone).is_some_and(|row| row.is_running);
                runs || self.trouble.contains_key(zone)
            });
        if !all_run || !self.placing.is_empty() || now_ms < self.nodes_since_ms + SETTLED_AFTER_MS {
            return;
        }
        while self.moving.len() < MOVED_AT_ONCE {
            let takes = |name: &&NodeName| situation.nodes.get(*name).is_some_and(|host| host.takes_zones);
            let most = counts.keys().filter(takes).map(|name| counts[name]).max().unwrap_or(0);
            let Some(to) = emptiest(situation, counts) else { return };
            let least = counts.get(&to.name).copied().unwrap_or(0);
            if most < least + 2 {
                return;
            }
            let candidate = situation.rows.iter().find(|(zone, row)| {
                let from = &row.owner.name;
                counts.get(from) == Some(&most) && takes(&from) && self.may_move(now_ms, situation, zone, row)
            });
            let Some((zone, row)) = candidate else { return };
            self.move_zone((zone, row), to, Cause::Uneven, counts, out);
        }
    }

    fn may_move(&self, now_ms: u64, situation: &Situation, zone: &str, row: &Placed) -> bool {
        let owner_lives = situation
            .nodes
            .get(&row.owner.name)
            .is_some_and(|host| host.generation == row.owner.generation);
        let waits = self
            .move_trouble
            .get(zone)
            .is_some_and(|trouble| now_ms < trouble.retry_at_ms);
        row.is_running && owner_lives && !waits && !self.moving.contains_key(zone)
    }

    fn move_zone(
        &mut self,
        (zone, row): (&str, &Placed),
        to: NodeLife,
        cause: Cause,
        counts: &mut BTreeMap<NodeName, u64>,
        out: &mut Vec<Order>,
    ) {
        let from = row.owner.clone();
        if let Some(count) = counts.get_mut(&from.name) {
            *count = count.saturating_sub(1);
        }
        *counts.entry(to.name.clone()).or_default() += 1;
        self.moving
            .insert(zone.to_owned(), (from.name.clone(), to.name.clone()));
        out.push(Order::Move {
            zone: zone.to_owned(),
            target: row.target,
            from,
            to,
            cause,
        });
    }
}

/// The node with the fewest zones, and of several the one with the least load.
fn emptiest(situation: &Situation, counts: &BTreeMap<NodeName, u64>) -> Option<NodeLife> {
    let hosts = situation.nodes.iter().filter(|(_, host)| host.takes_zones);
    let (name, host) = hosts.min_by_key(|(name, host)| (counts.get(*name).copied().unwrap_or(0), host.load, *name))?;
    Some(NodeLife {
        name: name.clone(),
        generation: host.generation,
    })
}

#[cfg(test)]
mod tests;
