//! Which life of which node is a member. Pure. Gossip, connections and the verdicts of `suspicion.rs` go in; who arrived, who is gone
//! and who gives reason to doubt comes out.
//!
//! The invariants: of one node there is at most one life, and a higher generation, once seen alive, ends every lower one for good. A
//! verdict touches the life that it names and no other: what comes out is acted upon one after the other, so that a verdict on a life
//! may come in when the same gossip has brought the next one already.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::group;
use crate::member::{Member, MemberState, Members};
use crate::own;
use crate::peer::{GENERATION_MAX, Identity, Life, NodeId, Peer};
use crate::suspicion::{Sign, Time};

/// How long one of the dead is listed, so that operators see whom they miss. It may come back as long as it is, and by its own word
/// later.
const DEAD_LISTED_FOR: Duration = Duration::from_secs(15 * 60);

/// How long after its goodbye a life is not taken for alive, although its last heartbeats come in from others.
const PARTED_FOR: Duration = Duration::from_secs(60);

/// What gossip knows of one life of a node.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) life: Life,
    pub(crate) gossip_addr: SocketAddr,
    /// Gossip's failure detector takes it for alive.
    pub(crate) live: bool,
    /// Its heartbeat has risen since the last report.
    pub(crate) heard: bool,
    /// Everything it states, when that has changed since the last report.
    pub(crate) stated: Option<Vec<(String, String)>>,
}

#[derive(Debug)]
pub(crate) enum Input {
    /// Everything that gossip knows now.
    Gossip(Vec<Report>),
    /// There is a control connection.
    Connected(Identity),
    /// There is none any more.
    Disconnected {
        life: Life,
        parting: Parting,
    },
    /// The life was seen at the other end of a data connection.
    Seen(Life),
    Suspected(Life),
    Cleared(Life),
    Died(Life),
    /// An operator does not want to see the departed life any more.
    Forget(Life),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The peer said goodbye.
    Goodbye,
    /// It broke.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// This life is a member from now on, or again.
    Arrived(Identity),
    /// This life is over: dead, left or superseded.
    Gone(Life),
    /// Suspicion should watch the life, or forget it.
    Watch(Life),
    Forget(Life),
    Doubt(Life),
    Sign(Life, Sign),
    /// A newer life bears our own name.
    Superseded {
        by_generation: u64,
    },
}

/// What is taken of one life: several times what a node of ours may state. How long keys and values are `guard.rs` has seen to.
const KEYS_MAX: usize = 4_096;

/// The longest address, a host name and a port.
const ADDR_LEN_MAX: usize = 260;

#[derive(Debug)]
struct Entry {
    identity: Identity,
    state: MemberState,
    facts: Arc<BTreeMap<String, String>>,
    groups: Vec<String>,
    mesh_version: u32,
    /// It has groups in the directory.
    spills: bool,
    keys: usize,
    /// It has been heard what the life states. A connection admits a life before gossip speaks for it.
    stated: bool,
    live: bool,
    connected: bool,
    condition: Condition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    Suspect,
    Dead { since: Time },
    Left,
}

impl Entry {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            state: MemberState::Joining,
            facts: Arc::default(),
            groups: Vec::new(),
            mesh_version: 1,
            spills: false,
            keys: 0,
            stated: false,
            live: false,
            connected: false,
            condition: Condition::Well,
        }
    }

    fn hear(&mut self, stated: Vec<(String, String)>) {
        let mut facts = BTreeMap::new();
        self.groups.clear();
        self.spills = false;
        self.keys = stated.len();
        self.stated = true;
        for (key, value) in stated.into_iter().take(KEYS_MAX) {
            if key == own::STATE_KEY {
                // A state of a later version reads as the most careful one of ours.
                self.state = MemberState::stated(&value).unwrap_or(MemberState::Joining);
            } else if key == own::ADDR_KEY {
                if value.len() <= ADDR_LEN_MAX && value.bytes().all(|byte| byte.is_ascii_graphic()) {
                    self.identity.peer.addr = value;
                }
            } else if key == own::SPILL_KEY {
                self.spills = true;
            } else if key == own::VERSION_KEY {
                self.mesh_version = value.parse().unwrap_or(1);
            } else if let Some(fact) = key.strip_prefix(own::FACT_PREFIX) {
                facts.insert(fact.to_owned(), value);
            } else if let Some(group) = key.strip_prefix(own::GROUP_PREFIX).and_then(group::decode) {
                // A group that has just become empty is still stated, with no members.
                if value != "0" {
                    self.groups.push(group);
                }
            }
        }
        self.facts = Arc::new(facts);
    }

    /// Neither dead nor gone by its own will.
    fn is_present(&self) -> bool {
        matches!(self.condition, Condition::Well | Condition::Suspect)
    }

    fn shown_state(&self) -> MemberState {
        match self.condition {
            Condition::Well => self.state,
            Condition::Suspect => MemberState::Suspect,
            Condition::Dead { .. } => MemberState::Dead,
            Condition::Left => MemberState::Leaving,
        }
    }
}

#[derive(Debug)]
pub(crate) struct View {
    local: Life,
    entries: BTreeMap<NodeId, Entry>,
    /// Lives that said goodbye, and when: their last heartbeats still go round for a while.
    parted: BTreeMap<Life, Time>,
    peers_max: usize,
}

impl View {
    pub(crate) fn new(local: Life, peers_max: usize) -> Self {
        Self {
            local,
            peers_max,
            entries: BTreeMap::new(),
            parted: BTreeMap::new(),
        }
    }

    pub(crate) fn step(&mut self, now: Time, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Gossip(reports) => self.gossip(now, reports, out),
            Input::Connected(identity) => self.connected(identity, out),
            Input::Disconnected { life, parting } => self.disconnected(now, &life, parting, out),
            Input::Seen(life) => {
                if self.entry(&life).is_some() {
                    out.push(Effect::Sign(life, Sign::Direct));
                }
            }
            Input::Suspected(life) => {
                self.turned(&life, Condition::Suspect);
            }
            Input::Cleared(life) => self.cleared(&life, out),
            Input::Died(life) => self.died(now, life, out),
            Input::Forget(life) => self.forget(&life, out),
        }
    }

    /// All members, ourselves as given.
    pub(crate) fn members(&self, own: Member) -> Members {
        let mut by_node: BTreeMap<NodeId, Member> = BTreeMap::new();
        for (node, entry) in &self.entries {
            let member = Member {
                peer: entry.identity.peer.clone(),
                state: entry.shown_state(),
                facts: Arc::clone(&entry.facts),
                departed: !entry.is_present(),
                mesh_version: entry.mesh_version,
                rtt: None,
            };
            by_node.insert(node.clone(), member);
        }
        by_node.insert(own.peer.node.clone(), own);
        Members { by_node }
    }

    /// The other nodes with members in each group. One that is merely suspected still gets what is meant for it.
    pub(crate) fn groups(&self) -> BTreeMap<String, Vec<NodeId>> {
        let mut groups: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
        for (node, entry) in &self.entries {
            if matches!(entry.condition, Condition::Well | Condition::Suspect) {
                for group in &entry.groups {
                    groups.entry(group.clone()).or_default().push(node.clone());
                }
            }
        }
        groups
    }

    /// The other nodes that have groups in the directory.
    pub(crate) fn spilling(&self) -> Vec<NodeId> {
        let spills = |entry: &Entry| entry.spills && entry.is_present();
        let spilling = self.entries.iter().filter(|(_, entry)| spills(entry));
        spilling.map(|(node, _)| node.clone()).collect()
    }

    /// Where to reach a life, if it is its node's present one.
    pub(crate) fn identity(&self, life: &Life) -> Option<&Identity> {
        let entry = self.entries.get(&life.node);
        let identity = entry.map(|entry| &entry.identity);
        identity.filter(|identity| identity.peer.generation == life.generation)
    }

    /// Whether everything that the life states is to be reported, changed or not: what was reported before it became a member
    /// was not kept.
    pub(crate) fn lacks_statement(&self, life: &Life) -> bool {
        self.entries.get(&life.node).is_none_or(|entry| {
            let generation = entry.identity.peer.generation;
            generation < life.generation || (generation == life.generation && !entry.stated)
        })
    }

    /// The next member after `last`, around the ring of names, that is connected and that gossip does not hear.
    pub(crate) fn next_unheard(&self, last: Option<&NodeId>) -> Option<&Identity> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let after = self.entries.range::<NodeId, _>((from, Bound::Unbounded));
        after
            .chain(&self.entries)
            .map(|(_, entry)| entry)
            .find(|entry| entry.connected && !entry.live && entry.is_present())
            .map(|entry| &entry.identity)
    }

    /// Whether there is a control connection to the node, and how many keys it states.
    pub(crate) fn figures(&self, node: &NodeId) -> (bool, usize) {
        self.entries
            .get(node)
            .map_or((false, 0), |entry| (entry.connected, entry.keys))
    }

    /// How many keys the other nodes state.
    pub(crate) fn keys(&self) -> usize {
        self.entries.values().map(|entry| entry.keys).sum()
    }

    /// Whether nobody else is here.
    pub(crate) fn is_alone(&self) -> bool {
        !self
            .entries
            .values()
            .any(|entry| matches!(entry.condition, Condition::Well | Condition::Suspect))
    }

    fn entry(&mut self, life: &Life) -> Option<&mut Entry> {
        self.entries
            .get_mut(&life.node)
            .filter(|entry| entry.identity.peer.generation == life.generation)
    }

    /// Suspects or buries a life that is here, and returns its entry. Verdicts on who is gone already change nothing.
    fn turned(&mut self, life: &Life, condition: Condition) -> Option<&mut Entry> {
        let entry = self.entry(life).filter(|entry| entry.is_present())?;
        entry.condition = condition;
        Some(entry)
    }

    fn died(&mut self, now: Time, life: Life, out: &mut Vec<Effect>) {
        let Some(entry) = self.turned(&life, Condition::Dead { since: now }) else {
            return;
        };
        if entry.state == MemberState::Leaving {
            // Its last word was that it goes; only the goodbye itself was lost.
            self.part(now, &life, out);
        } else {
            out.push(Effect::Gone(life));
        }
    }

    /// Takes leave of a life for good.
    fn part(&mut self, now: Time, life: &Life, out: &mut Vec<Effect>) {
        if let Some(entry) = self.entry(life) {
            entry.condition = Condition::Left;
        }
        self.parted.insert(life.clone(), now);
        out.push(Effect::Gone(life.clone()));
        out.push(Effect::Forget(life.clone()));
    }

    /// A member that is here, as we see it, is not forgotten because another node sees it otherwise.
    fn forget(&mut self, life: &Life, out: &mut Vec<Effect>) {
        let departed = self.entries.get(&life.node).filter(|entry| !entry.is_present());
        let listed = departed.map(|entry| entry.identity.peer.life());
        if let Some(listed) = listed.filter(|listed| listed.generation <= life.generation) {
            self.entries.remove(&listed.node);
            out.push(Effect::Forget(listed));
        }
    }

    fn cleared(&mut self, life: &Life, out: &mut Vec<Effect>) {
        let Some(entry) = self.entry(life) else {
            return;
        };
        match entry.condition {
            Condition::Dead { .. } => {
                entry.condition = Condition::Well;
                out.push(Effect::Arrived(entry.identity.clone()));
            }
            Condition::Suspect => entry.condition = Condition::Well,
            Condition::Well | Condition::Left => {}
        }
    }

    /// Makes the life the node's only one, unless a newer one is known; returns its entry.
    fn admit(&mut self, identity: Identity, out: &mut Vec<Effect>) -> Option<&mut Entry> {
        let life = identity.peer.life();
        if life.node == self.local.node {
            if life.generation > self.local.generation {
                out.push(Effect::Superseded {
                    by_generation: life.generation,
                });
            }
            return None;
        }
        match self
            .entries
            .get(&life.node)
            .map(|entry| (entry.identity.peer.generation, entry.condition))
        {
            Some((generation, _)) if generation > life.generation => return None,
            Some((generation, _)) if generation == life.generation => {}
            present => {
                if let Some((generation, condition)) = present {
                    let former = Life {
                        node: life.node.clone(),
                        generation,
                    };
                    if matches!(condition, Condition::Well | Condition::Suspect) {
                        out.push(Effect::Gone(former.clone()));
                    }
                    out.push(Effect::Forget(former));
                }
                out.push(Effect::Watch(life.clone()));
                out.push(Effect::Arrived(identity.clone()));
                self.entries.insert(life.node.clone(), Entry::new(identity));
            }
        }
        self.entry(&life)
    }

    fn connected(&mut self, identity: Identity, out: &mut Vec<Effect>) {
        let life = identity.peer.life();
        if let Some(entry) = self.admit(identity, out) {
            entry.connected = true;
            out.push(Effect::Sign(life, Sign::Direct));
        }
    }

    fn disconnected(&mut self, now: Time, life: &Life, parting: Parting, out: &mut Vec<Effect>) {
        let Some(entry) = self.entry(life) else {
            return;
        };
        entry.connected = false;
        let says_goodbye = parting == Parting::Goodbye || entry.state == MemberState::Leaving;
        match entry.condition {
            Condition::Left => {}
            Condition::Dead { .. } if says_goodbye => {
                // It is known to be gone already; now it is known that it will not come back.
                entry.condition = Condition::Left;
                self.parted.insert(life.clone(), now);
                out.push(Effect::Forget(life.clone()));
            }
            Condition::Well | Condition::Suspect if says_goodbye => self.part(now, life, out),
            Condition::Well => out.push(Effect::Doubt(life.clone())),
            Condition::Suspect | Condition::Dead { .. } => {}
        }
    }

    fn gossip(&mut self, now: Time, reports: Vec<Report>, out: &mut Vec<Effect>) {
        let remembered: BTreeSet<Life> = reports.iter().map(|report| report.life.clone()).collect();
        let mut fallen_silent = Vec::new();
        self.parted
            .retain(|life, at| remembered.contains(life) || now < *at + PARTED_FOR);
        for report in reports {
            fallen_silent.extend(self.report(report, out));
        }
        // Only now, because the same reports may bring a newer life, which must not be suspected for the silence of the older one.
        for life in fallen_silent {
            if self.entry(&life).is_some() {
                out.push(Effect::Doubt(life));
            }
        }
        self.entries.retain(|_, entry| {
            let life = entry.identity.peer.life();
            entry.live &= remembered.contains(&life);
            match entry.condition {
                // Said again and again, for it may have been answered through others, who see what we do not: then the next silence
                // must not go unnoticed.
                Condition::Well if !entry.live && !entry.connected => out.push(Effect::Doubt(life)),
                Condition::Well | Condition::Suspect => {}
                Condition::Left => return entry.live || entry.connected,
                Condition::Dead { since } if now >= since + DEAD_LISTED_FOR && !entry.connected => {
                    out.push(Effect::Forget(life));
                    return false;
                }
                Condition::Dead { .. } => {}
            }
            true
        });
    }

    /// Returns the life if it has just fallen silent.
    fn report(&mut self, report: Report, out: &mut Vec<Effect>) -> Option<Life> {
        let Report {
            life,
            gossip_addr,
            live,
            heard,
            stated,
        } = report;
        if self.entry(&life).is_none() {
            // Gossip remembers the dead for a while; only who shows signs of life becomes a member, or who proves
            // that the life which we take for present is over.
            let supersedes = self
                .entries
                .get(&life.node)
                .is_some_and(|entry| entry.is_present() && entry.identity.peer.generation < life.generation);
            if self.parted.contains_key(&life) || !(supersedes || live && heard) {
                return None;
            }
            // Whoever holds the secret may state anybody under any number. `Quic::identify` and `Control::adopt` keep the same bounds.
            let is_known = self.entries.contains_key(&life.node);
            if life.generation > GENERATION_MAX || (!is_known && self.entries.len() >= self.peers_max) {
                return None;
            }
            let addr = gossip_addr.to_string();
            let peer = Peer {
                node: life.node.clone(),
                generation: life.generation,
                addr,
            };
            self.admit(Identity { peer, gossip_addr }, out)?;
        }
        let entry = self.entry(&life).expect("it is there or has just been admitted");
        if let Some(stated) = stated {
            entry.hear(stated);
        }
        let fell_silent = entry.live && !live;
        entry.live = live;
        if heard {
            out.push(Effect::Sign(life, Sign::Heartbeat));
            return None;
        }
        (fell_silent && entry.connected && entry.condition == Condition::Well).then_some(life)
    }
}

#[cfg(test)]
mod tests;
