//! When silence becomes a verdict. Pure. Gossip's failure detector and lost connections raise only a *doubt*; a doubt starts a direct
//! probe, then probes through up to three other members, and only when nothing answers for the whole round is the peer dead.
//!
//! A node that finds itself late (its own timer ran more than a second late, so it was paused or starved) or that suspects more than
//! half of its peers at once trusts itself less: every running round starts again, so that no verdict rests on what happened before,
//! and this can put a verdict off by at most 5 s.
//!
//! The invariant: no peer is declared dead within `confirm` of the last sign of life, nor within `confirm` of the moment at which this
//! node woke up.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::peer::NodeId;

/// Time since the mesh started.
pub(crate) type Time = Duration;

/// How often the machine wants to be woken. Its lateness is measured against this.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// This much later than due, and the node's own view is stale.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// How long self-distrust may put a verdict off.
const POSTPONED_MAX: Duration = Duration::from_secs(5);

/// Through how many others a silent peer is probed.
const HELPERS_MAX: usize = 3;

/// How often a peer that was declared dead is probed when there are signs that it lives.
const REVIVAL_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// How long the direct probe has the word alone.
    pub(crate) direct_probe: Duration,
    /// How long a round lasts.
    pub(crate) confirm: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The peer itself answered or connected.
    Direct,
    /// Its heartbeat came, perhaps through others, and perhaps late.
    Heartbeat,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A peer is watched from now on.
    Watch(NodeId),
    /// A peer is watched no longer: it left, or nobody remembers it.
    Forget(NodeId),
    /// There is reason to think that the peer is gone.
    Doubt(NodeId),
    /// There is reason to think that it is not.
    Sign(NodeId, Sign),
    /// Time has passed.
    Wake,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Suspected(NodeId),
    /// The suspicion, or the verdict, was wrong.
    Cleared(NodeId),
    Died(NodeId),
    /// Ask the node itself, again and again for as long as a round lasts.
    Probe(NodeId),
    ProbeThrough {
        node: NodeId,
        helpers: Vec<NodeId>,
    },
    /// This node was late.
    Late,
    /// From now on this node trusts its own view less, or no longer less.
    Isolated(bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Watched {
    Well,
    Suspect(Round),
    Dead { died_at: Time, probed_at: Time },
}

impl Watched {
    fn is_dead(&self) -> bool {
        matches!(self, Watched::Dead { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    suspected_at: Time,
    began_at: Time,
    asked_others: bool,
}

#[derive(Debug)]
pub(crate) struct Suspicion {
    timeouts: Timeouts,
    peers: BTreeMap<NodeId, Watched>,
    woke_at: Option<Time>,
    mostly_suspect: bool,
    isolation: Isolation,
}

/// Why this node trusts its own view less.
#[derive(Debug, Default)]
struct Isolation {
    /// When the node was late last, and who has given no sign of life since.
    late_at: Time,
    unheard: BTreeSet<NodeId>,
    /// Since when most members are suspect, or died lately.
    mostly_silent_since: Option<Time>,
    /// What was said of it.
    is_isolated: bool,
}

impl Suspicion {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            peers: BTreeMap::new(),
            woke_at: None,
            mostly_suspect: false,
            isolation: Isolation::default(),
        }
    }

    /// When `Input::Wake` is due.
    pub(crate) fn next_wake(&self) -> Time {
        self.woke_at.map_or(Time::ZERO, |at| at + TICK)
    }

    pub(crate) fn step(&mut self, now: Time, input: Input, out: &mut Vec<Effect>) {
        self.notice_lateness(now, out);
        match input {
            Input::Watch(node) => {
                self.peers.entry(node).or_insert(Watched::Well);
            }
            Input::Forget(node) => {
                self.isolation.unheard.remove(&node);
                self.peers.remove(&node);
            }
            Input::Doubt(node) => self.doubt(now, node, out),
            Input::Sign(node, sign) => self.sign(now, node, sign, out),
            Input::Wake => self.woke_at = Some(now),
        }
        self.notice_majority(now, out);
        self.judge(now, out);
        self.notice_isolation(now, out);
    }

    fn doubt(&mut self, now: Time, node: NodeId, out: &mut Vec<Effect>) {
        if self.peers.get(&node) != Some(&Watched::Well) {
            return;
        }
        let round = Round {
            suspected_at: now,
            began_at: now,
            asked_others: false,
        };
        out.push(Effect::Suspected(node.clone()));
        out.push(Effect::Probe(node.clone()));
        self.peers.insert(node, Watched::Suspect(round));
    }

    fn sign(&mut self, now: Time, node: NodeId, sign: Sign, out: &mut Vec<Effect>) {
        let Some(watched) = self.peers.get_mut(&node) else {
            return;
        };
        self.isolation.unheard.remove(&node);
        match (&mut *watched, sign) {
            (Watched::Well, _) => {}
            (Watched::Suspect(_), _) | (Watched::Dead { .. }, Sign::Direct) => {
                *watched = Watched::Well;
                out.push(Effect::Cleared(node));
            }
            (Watched::Dead { probed_at, .. }, Sign::Heartbeat) => {
                // The heartbeat may have been on its way through others when the peer died, so it must answer for itself.
                if now >= *probed_at + REVIVAL_INTERVAL {
                    *probed_at = now;
                    out.push(Effect::Probe(node));
                }
            }
        }
    }

    /// A pause of our own makes everybody look silent: what we concluded before it is worth nothing.
    fn notice_lateness(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Some(woke_at) = self.woke_at else {
            return;
        };
        if now <= woke_at + TICK + LATE_AFTER {
            return;
        }
        self.woke_at = Some(now);
        self.isolation.late_at = now;
        let members = self.peers.iter().filter(|(_, watched)| !watched.is_dead());
        self.isolation.unheard = members.map(|(node, _)| node.clone()).collect();
        out.push(Effect::Late);
        self.start_rounds_again(now, out);
    }

    /// When most peers fall silent together, it is more likely us. With a single peer there is no majority to speak of.
    fn notice_majority(&mut self, now: Time, out: &mut Vec<Effect>) {
        let watched = self.peers.values().filter(|watched| !watched.is_dead()).count();
        let suspects = self
            .peers
            .values()
            .filter(|watched| matches!(watched, Watched::Suspect(_)))
            .count();
        let mostly_suspect = watched >= 2 && suspects * 2 > watched;
        if mostly_suspect && !self.mostly_suspect {
            self.start_rounds_again(now, out);
        }
        self.mostly_suspect = mostly_suspect;
    }

    fn start_rounds_again(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (node, watched) in &mut self.peers {
            let Watched::Suspect(round) = watched else {
                continue;
            };
            // Without lateness the verdict would have come at `suspected_at + confirm`.
            if round.began_at == now || now > round.suspected_at + POSTPONED_MAX {
                continue;
            }
            round.began_at = now;
            round.asked_others = false;
            out.push(Effect::Probe(node.clone()));
        }
    }

    fn judge(&mut self, now: Time, out: &mut Vec<Effect>) {
        let mut unanswered = Vec::new();
        for (node, watched) in &mut self.peers {
            let Watched::Suspect(round) = watched else {
                continue;
            };
            if now >= round.began_at + self.timeouts.confirm {
                *watched = Watched::Dead {
                    died_at: now,
                    probed_at: now,
                };
                self.isolation.unheard.remove(node);
                out.push(Effect::Died(node.clone()));
            } else if now >= round.began_at + self.timeouts.direct_probe && !round.asked_others {
                round.asked_others = true;
                unanswered.push(node.clone());
            }
        }
        for node in unanswered {
            let helpers = self.helpers(&node);
            if !helpers.is_empty() {
                out.push(Effect::ProbeThrough { node, helpers });
            }
        }
    }

    fn notice_isolation(&mut self, now: Time, out: &mut Vec<Effect>) {
        let (mut well, mut suspects, mut lately_dead) = (0, 0, 0);
        for watched in self.peers.values() {
            match watched {
                Watched::Well => well += 1,
                Watched::Suspect(_) => suspects += 1,
                Watched::Dead { died_at, .. } if now < *died_at + POSTPONED_MAX => lately_dead += 1,
                Watched::Dead { .. } => {}
            }
        }
        // The only peer has answered nobody but us, so once it is judged there is nothing left to wait for.
        let only_suspect = well + lately_dead == 0 && suspects == 1;
        let members = well + suspects + lately_dead;
        let mostly_silent = only_suspect || (members >= 2 && (suspects + lately_dead) * 2 > members);
        let isolation = &mut self.isolation;
        isolation.mostly_silent_since = mostly_silent.then(|| isolation.mostly_silent_since.unwrap_or(now));
        let silent = isolation
            .mostly_silent_since
            .is_some_and(|since| now < since + POSTPONED_MAX);
        let late = !isolation.unheard.is_empty() && now < isolation.late_at + POSTPONED_MAX;
        if isolation.is_isolated != (silent || late) {
            isolation.is_isolated = silent || late;
            out.push(Effect::Isolated(isolation.is_isolated));
        }
    }

    /// The members after the suspect in the order of names, around the ring: without randomness, and yet not the same three for
    /// every suspect.
    fn helpers(&self, suspect: &NodeId) -> Vec<NodeId> {
        let after = self.peers.range((Bound::Excluded(suspect), Bound::Unbounded));
        let before = self.peers.range(..suspect);
        let well = after.chain(before).filter(|(_, watched)| **watched == Watched::Well);
        well.map(|(node, _)| node.clone()).take(HELPERS_MAX).collect()
    }
}

#[cfg(test)]
mod tests;
