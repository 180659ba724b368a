//! One run: all nodes of a plan over one simulated network, driven in steps no longer than a datagram takes at least, so that within a
//! step no node can learn of what another one does in it. At the end of each step the promises are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_gossip::sim::Fabric;
use rookery_gossip::{Fault, MemberState, Members};

use crate::log;
use crate::node::{CHANNEL, Life, addr, name};
use crate::plan::{GROUPS, Place, Plan, Step};
use crate::promises::{Condition, Counts, Promises};
use crate::told::Told;

/// How long after the last fault all views must agree. The slowest of 2,000 seeds took 10.5 s: a member that was suspected four times in
/// a row is shown suspect for some seconds although it answers (`suspicion.rs`).
const CONVERGED_WITHIN: Duration = Duration::from_secs(15);

/// How long they must then stay as they are, and how often that is looked at.
const STAYS_FOR: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many tasks a node may have in the end: its own, and for each peer those of two connections and of two channels, both ways.
const TASKS_MAX: usize = 10;
const TASKS_PER_PEER_MAX: usize = 8;

/// What came of a run in which every promise held.
pub(crate) struct Outcome {
    pub(crate) nodes: usize,
    /// The digest of everything that happened; two runs with the same one were the same.
    pub(crate) trace: u64,
    /// How long after the last fault all views agreed.
    pub(crate) converged: Duration,
    pub(crate) lasted: Duration,
    pub(crate) datagrams: u64,
    /// The most tasks of a node in the end.
    pub(crate) tasks: usize,
    pub(crate) counts: Counts,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            suspicions,
            verdicts,
            excused,
            burials,
            answers,
            answered,
            changes,
        } = self.counts;
        let (converged_ms, lasted_ms) = (self.converged.as_millis(), self.lasted.as_millis());
        let Outcome {
            nodes,
            trace,
            datagrams,
            tasks,
            ..
        } = self;
        write!(
            f,
            "trace={trace:016x} nodes={nodes} converged_ms={converged_ms} lasted_ms={lasted_ms} datagrams={datagrams} \
             suspicions={suspicions} verdicts={verdicts} excused={excused} burials={burials} answers={answers} answered={answered} changes={changes} tasks={tasks}"
        )
    }
}

struct Slot {
    generation: u64,
    addr: SocketAddr,
    life: Option<Life>,
    /// A life that was replaced while it stood still, and where it is.
    former: Option<(Life, SocketAddr)>,
    /// Numbers what it sends.
    messages: u64,
}

pub(crate) struct World {
    plan: Plan,
    fabric: Fabric,
    now: Duration,
    slots: Vec<Slot>,
    promises: Promises,
    /// Directions that are not calm.
    worsened: BTreeMap<(usize, usize), rookery_gossip::sim::Path>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let slot = |node| Slot {
            generation: 0,
            addr: addr(node),
            life: None,
            former: None,
            messages: 0,
        };
        Self {
            fabric: Fabric::new(plan.seed, plan.calm),
            now: Duration::ZERO,
            slots: (0..plan.nodes).map(slot).collect(),
            promises: Promises::new(plan.profile, plan.nodes),
            worsened: BTreeMap::new(),
            plan,
        }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Outcome {
        let starts = self.plan.starts.iter().enumerate();
        let mut steps: Vec<(Duration, Step)> = starts.map(|(node, at)| (*at, Step::Start(node, Place::Same))).collect();
        steps.extend(self.plan.steps.iter().cloned());
        steps.sort_by_key(|(at, _)| *at);
        let last_fault = steps.last().map_or(Duration::ZERO, |(at, _)| *at);
        for (at, step) in steps {
            while self.now < at {
                self.advance();
            }
            self.perform(step);
        }
        let mut converged = None;
        loop {
            let looked_at = self.now;
            let difference = self.disagreement();
            match (&difference, converged) {
                (None, None) => converged = Some(self.now),
                (None, Some(since)) if self.now >= since + STAYS_FOR => break,
                (None, Some(_)) => {}
                // What had been agreed upon may change once more while there is time: a node that is gone may be noticed only now.
                (Some(_), _) => converged = None,
            }
            if let Some(difference) = difference {
                assert!(
                    self.now < last_fault + CONVERGED_WITHIN,
                    "{:?} after the last fault: {difference}",
                    self.now - last_fault
                );
            }
            while self.now < looked_at + LOOK_EVERY {
                self.advance();
            }
        }
        self.nothing_leaked();
        Outcome {
            nodes: self.plan.nodes,
            trace: self.fabric.trace(),
            converged: converged.expect("the loop ends when it is") - last_fault.min(self.now),
            lasted: self.now,
            datagrams: self.fabric.carried().sent,
            tasks: self
                .living()
                .map(|life| life.runtime.metrics().num_alive_tasks())
                .max()
                .unwrap_or(0),
            counts: self.promises.counts,
        }
    }

    fn perform(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Start(node, place) => self.start(node, place),
            Step::Replace(node, place) => {
                // Something else may have ended the life that was to stand still.
                let slot = &mut self.slots[node];
                if slot.life.as_ref().is_some_and(|life| life.is_paused) {
                    let former = slot.life.take().map(|life| (life, slot.addr));
                    if let Some((_, addr)) = std::mem::replace(&mut slot.former, former) {
                        self.fabric.unplug(addr);
                    }
                    self.start(node, place);
                }
            }
            Step::ResumeFormer(node) => {
                if let Some((life, _)) = &mut self.slots[node].former {
                    life.is_paused = false;
                }
            }
            Step::Crash(node) => {
                self.fabric.unplug(self.slots[node].addr);
                if let Some(life) = self.slots[node].life.take() {
                    self.promises.crashed(now, node, life.generation);
                }
            }
            Step::Path { from, to, path } => {
                self.fabric.set_path(self.slots[from].addr, self.slots[to].addr, path);
                self.worsened.insert((from, to), path);
            }
            Step::Reset { from, to } => {
                self.fabric.reset_path(self.slots[from].addr, self.slots[to].addr);
                self.worsened.remove(&(from, to));
            }
            Step::Pause(node) => self.with(node, |life| life.is_paused = true),
            Step::Resume(node) => {
                if let Some(life) = &mut self.slots[node].life {
                    life.is_paused = false;
                }
            }
            Step::Leave(node) => {
                self.promises.left(now);
                self.with(node, Life::leave);
            }
            Step::Drain(node) => self.with(node, |life| life.set_state(MemberState::Draining)),
            Step::Fact(node) => self.with(node, |life| life.set_fact(format!("{}", now.as_millis()))),
            Step::Join(node, group) => self.with(node, |life| life.join(group)),
            Step::Part(node, group) => self.with(node, |life| life.part(group)),
            Step::Ask(node, to) => {
                self.slots[node].messages += 1;
                let number = self.slots[node].messages;
                self.with(node, |life| life.ask(to, number));
            }
            Step::Send(node, to) => {
                self.slots[node].messages += 1;
                let number = Bytes::copy_from_slice(&self.slots[node].messages.to_le_bytes());
                // To a node that is not known yet, or is this one, nothing can be sent.
                self.with(node, |life| {
                    let _ = life.cluster.send(&name(to).parse().unwrap(), CHANNEL, number);
                });
            }
        }
    }

    /// Starts the next life of a node.
    fn start(&mut self, node: usize, place: Place) {
        let others = self.slots.iter().enumerate().filter(|(other, _)| *other != node);
        let mut taken: BTreeSet<SocketAddr> = others
            .filter(|(_, slot)| slot.life.is_some())
            .map(|(_, slot)| slot.addr)
            .collect();
        let formers = self
            .slots
            .iter()
            .filter_map(|slot| slot.former.as_ref().map(|(_, addr)| *addr));
        taken.extend(formers);
        // Where all look for node 0 no other one goes.
        taken.insert(addr(0));
        // Two more than are in use, so that there is always a free one, and often one that was another node's.
        let free: Vec<SocketAddr> = (0..taken.len() + 2)
            .map(addr)
            .filter(|addr| !taken.contains(addr))
            .collect();
        let at = match place {
            Place::Same if node == 0 || free.contains(&self.slots[node].addr) => self.slots[node].addr,
            Place::Same => free[0],
            Place::Free(pick) => free[pick % free.len()],
        };
        if at != self.slots[node].addr {
            self.move_paths(node, at);
        }
        let slot = &mut self.slots[node];
        slot.addr = at;
        slot.generation += 1;
        slot.life = None;
        slot.life = Some(Life::start(
            &self.plan,
            &self.fabric,
            node,
            slot.generation,
            at,
            self.now,
        ));
        self.promises.started(self.now, node, slot.generation);
    }

    /// What is wrong with a node's paths goes with it to its new address.
    fn move_paths(&mut self, node: usize, at: SocketAddr) {
        for ((from, to), path) in &self.worsened {
            let (old_from, old_to) = (self.slots[*from].addr, self.slots[*to].addr);
            if *from == node {
                self.fabric.reset_path(old_from, old_to);
                self.fabric.set_path(at, old_to, *path);
            } else if *to == node {
                self.fabric.reset_path(old_from, old_to);
                self.fabric.set_path(old_from, at, *path);
            }
        }
    }

    /// Acts for a node, unless it is down, on its way out, or stands still.
    fn with(&mut self, node: usize, act: impl FnOnce(&mut Life)) {
        let life = self.slots[node].life.as_mut();
        if let Some(life) = life.filter(|life| !life.is_leaving() && !life.is_paused) {
            act(life);
        }
    }

    /// Runs every node for one step, and checks the promises.
    fn advance(&mut self) {
        self.now += self.plan.calm.delay;
        let now = self.now;
        for (node, slot) in self.slots.iter_mut().enumerate() {
            if let Some((former, _)) = slot.former.as_mut().filter(|(former, _)| !former.is_paused) {
                let slept = now - self.plan.calm.delay - former.clock();
                former.run(now, slept);
            }
            let Some(life) = &mut slot.life else {
                continue;
            };
            if life.is_paused {
                self.promises.stands_still(now, node, life.clock());
                continue;
            }
            let slept = now - self.plan.calm.delay - life.clock();
            life.run(now, slept);
            self.promises.heard(now, node, &life.ear.take());
            if life.has_left() {
                self.fabric.unplug(slot.addr);
                slot.life = None;
            }
        }
        for ((from, to), path) in &self.worsened {
            self.promises.path(now, *from, *to, *path);
        }
        self.look();
    }

    fn look(&mut self) {
        for finding in log::findings() {
            self.promises.found(&finding);
        }
        let changed: Vec<usize> = self
            .slots
            .iter_mut()
            .enumerate()
            .filter_map(|(node, slot)| slot.life.as_mut().map(|life| (node, life)))
            .filter_map(|(node, life)| {
                let changes = life.changes();
                let has_changed = life.members.has_changed().unwrap_or(false);
                if has_changed || !changes.is_empty() {
                    let members = life.members.borrow_and_update().clone();
                    self.promises.changes(self.now, node, &changes, &members);
                }
                has_changed.then_some(node)
            })
            .collect();
        if changed.is_empty() && !self.promises.is_due(self.now) {
            return;
        }
        let views: Vec<Option<Arc<Members>>> = self
            .slots
            .iter()
            .map(|slot| slot.life.as_ref().map(|life| life.members.borrow().clone()))
            .collect();
        let conditions: Vec<Condition> = self
            .slots
            .iter()
            .zip(&views)
            .map(|(slot, members)| Condition {
                generation: slot
                    .life
                    .as_ref()
                    .filter(|life| !life.is_leaving())
                    .map(|life| life.generation),
                members: members.as_ref(),
            })
            .collect();
        self.promises.dead_are_known(self.now, &conditions);
        for node in changed {
            self.promises.members(self.now, node, &conditions);
        }
    }

    /// The first way in which a view differs from what is so.
    fn disagreement(&self) -> Option<String> {
        let living: BTreeMap<String, &Life> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(node, slot)| slot.life.as_ref().map(|life| (name(node), life)))
            .collect();
        for (node, slot) in self.slots.iter().enumerate() {
            let former = slot.former.as_ref().filter(|_| slot.life.is_some());
            if former.is_some_and(|(former, _)| former.fault() != Some(Fault::Superseded)) {
                return Some(format!(
                    "{} does not know that a newer process bears its name",
                    name(node)
                ));
            }
        }
        for (observer, life) in &living {
            if life.cluster.is_isolated() {
                return Some(format!("{observer} takes itself for isolated"));
            }
            let connections = life.cluster.stats().control_connections;
            if connections != living.len() as u64 - 1 {
                return Some(format!(
                    "{observer} has {connections} control connections, and {} peers",
                    living.len() - 1
                ));
            }
            let members = life.cluster.members().borrow().clone();
            for (node, other) in &living {
                let Some(member) = members.get(&node.parse().unwrap()) else {
                    return Some(format!("{observer} does not show {node}"));
                };
                let shown = (member.peer.generation, member.state, &*member.facts);
                let so = (other.generation, other.state, &other.facts);
                if shown != so {
                    return Some(format!("{observer} shows {node} as {shown:?}, which is {so:?}"));
                }
            }
            for member in members.iter() {
                let is_over = matches!(member.state, MemberState::Dead | MemberState::Leaving);
                if !is_over && !living.contains_key(member.peer.node.as_str()) {
                    return Some(format!("{observer} shows {} as {}", member.peer, member.state));
                }
            }
            for group in GROUPS {
                let shown: BTreeSet<String> = life.cluster.nodes(group).iter().map(ToString::to_string).collect();
                let so: BTreeSet<String> = living
                    .iter()
                    .filter(|(_, other)| other.is_in(group))
                    .map(|(node, _)| node.clone())
                    .collect();
                if shown != so {
                    return Some(format!("{observer} shows {shown:?} in {group}, where {so:?} are"));
                }
            }
        }
        None
    }

    fn living(&self) -> impl Iterator<Item = &Life> {
        self.slots.iter().filter_map(|slot| slot.life.as_ref())
    }

    /// What is left behind, and what somebody hears who asks for changes only now.
    fn nothing_leaked(&self) {
        let living: Vec<&Life> = self.living().collect();
        for life in &living {
            let (mut told, mut changes) = (Told::default(), life.cluster.changes());
            let taken = std::iter::from_fn(|| changes.try_next()).try_for_each(|change| told.take(&change));
            let compared = taken.and_then(|()| told.compare(&life.cluster.members().borrow()));
            assert_eq!(compared, Ok(()), "a late subscriber of {}", life.cluster.local());
            let stats = life.cluster.stats();
            // The dead are looked for, so they cost a task or two as well.
            let peers = self.plan.nodes as u64 - 1;
            let tasks = life.runtime.metrics().num_alive_tasks();
            assert!(
                tasks <= TASKS_MAX + TASKS_PER_PEER_MAX * peers as usize,
                "{tasks} tasks of {} with {peers} peers",
                life.cluster.local()
            );
            assert!(
                stats.data_connections <= peers,
                "{} data connections of {}",
                stats.data_connections,
                life.cluster.local()
            );
        }
    }
}
