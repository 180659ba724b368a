//! What must hold, checked at every step of a run. A breach ends the run with a panic that says when, where and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rookery_gossip::sim::Path;
use rookery_gossip::{Change, LinkEvent, Member, MemberState, Members, NodeId, Profile};

use crate::log::{Finding, FindingKind};
use crate::node::{Heard, name};
use crate::told::Told;

/// A path that loses more, or takes longer, excuses a verdict.
const LOSS_MAX: f64 = 0.05;
const DELAY_MAX: Duration = Duration::from_millis(60);

/// A pause that is shorter may go unnoticed.
const HICCUP: Duration = Duration::from_millis(160);

/// What the promises need to know of a node at one moment.
pub(crate) struct Condition<'a> {
    /// Of the life that runs; none when the node is down or on its way out.
    pub(crate) generation: Option<u64>,
    pub(crate) members: Option<&'a Arc<Members>>,
}

/// What is known from outside about one node.
#[derive(Default)]
struct Outside {
    /// When the life that runs now began.
    began_at: Duration,
    /// From when until when it stood still, the last ones.
    pauses: Vec<(Duration, Duration)>,
    /// The highest generation that was ever started.
    newest: u64,
}

/// What one life of a node has shown so far.
#[derive(Default)]
struct Shown {
    members: Arc<Members>,
    told: Told,
    /// When each life last answered a probe, and when it was last declared dead.
    answered: BTreeMap<(String, u64), Duration>,
    declared_dead: BTreeMap<(String, u64), Duration>,
    generations: BTreeMap<NodeId, u64>,
    /// What was heard of each peer's link, by its generation.
    links: BTreeMap<(NodeId, u64), Link>,
}

#[derive(Default)]
struct Link {
    is_gone: bool,
    last_message: Option<u64>,
}

#[derive(Default, Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) suspicions: u64,
    pub(crate) verdicts: u64,
    /// Verdicts on nodes that lived, where something excused it.
    pub(crate) excused: u64,
    /// Crashes to which nothing else happened, and which everybody knew of in time.
    pub(crate) burials: u64,
    /// Answers to probes that were heard.
    pub(crate) answers: u64,
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Changes of members that were told.
    pub(crate) changes: u64,
}

pub(crate) struct Promises {
    /// How long silence must last at least before it is a verdict, and what goes before.
    window: Duration,
    /// A pause of this length is never taken for death.
    pause_max: Duration,
    confirm: Duration,
    outside: Vec<Outside>,
    shown: Vec<Shown>,
    /// Who crashed and has not come back, when, and which life it was.
    crashed: BTreeMap<usize, (Duration, u64)>,
    /// Within what time of a crash everybody knows.
    known_within: Duration,
    /// When a node crashed or left last.
    ended_at: Option<Duration>,
    /// When a direction was last bad.
    bad_until: BTreeMap<(usize, usize), Duration>,
    pub(crate) counts: Counts,
}

impl Promises {
    pub(crate) fn new(profile: Profile, nodes: usize) -> Self {
        let (window_ms, pause_ms, confirm_ms, known_ms) = match profile {
            Profile::Lan => (6_000, 1_000, 1_200, 4_000),
            Profile::Default => (10_000, 2_000, 2_000, 8_000),
        };
        Self {
            window: Duration::from_millis(window_ms),
            pause_max: Duration::from_millis(pause_ms),
            confirm: Duration::from_millis(confirm_ms),
            outside: (0..nodes).map(|_| Outside::default()).collect(),
            shown: (0..nodes).map(|_| Shown::default()).collect(),
            crashed: BTreeMap::new(),
            known_within: Duration::from_millis(known_ms),
            ended_at: None,
            bad_until: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn started(&mut self, now: Duration, node: usize, generation: u64) {
        self.outside[node].began_at = now;
        self.outside[node].newest = generation;
        self.outside[node].pauses.clear();
        self.shown[node] = Shown::default();
        self.crashed.remove(&node);
    }

    pub(crate) fn left(&mut self, now: Duration) {
        self.ended_at = Some(now);
    }

    pub(crate) fn crashed(&mut self, now: Duration, node: usize, generation: u64) {
        self.crashed.insert(node, (now, generation));
        self.ended_at = Some(now);
    }

    /// Whether there is a crash that everybody should know of by now.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.crashed.values().any(|(at, _)| now >= *at + self.known_within)
    }

    /// Looks whether those who crashed long enough ago are known to be dead by all to whom nothing else has happened.
    pub(crate) fn dead_are_known(&mut self, now: Duration, conditions: &[Condition]) {
        let due = |(_, (at, _)): &(&usize, &(Duration, u64))| now >= *at + self.known_within;
        let Some((node, (at, generation))) = self.crashed.iter().find(due).map(|(node, crash)| (*node, *crash)) else {
            return;
        };
        self.crashed.remove(&node);
        // For a while before it too: who has only just met it does not know its heartbeats.
        let since = at.saturating_sub(Duration::from_secs(3));
        let undisturbed = |other: usize| {
            conditions[other]
                .generation
                .is_none_or(|_| self.outside[other].began_at < since)
                && self.stood_still(other, since).is_zero()
        };
        let nothing_else = self.bad_until.values().all(|until| *until < since)
            && (0..conditions.len()).all(undisturbed)
            && self.ended_at.is_none_or(|ended_at| ended_at < since || ended_at == at);
        if !nothing_else {
            return;
        }
        self.counts.burials += 1;
        for (observer, condition) in conditions.iter().enumerate() {
            let shown = condition
                .members
                .and_then(|members| members.get(&name(node).parse().unwrap()));
            let Some(shown) = shown.filter(|shown| shown.peer.generation == generation) else {
                continue;
            };
            assert!(
                shown.departed,
                "{now:?}: {} shows {} as {}, which crashed at {at:?}",
                name(observer),
                name(node),
                shown.state
            );
        }
    }

    /// Takes note, at every step, of a node that has stood still since then.
    pub(crate) fn stands_still(&mut self, now: Duration, node: usize, since: Duration) {
        let pauses = &mut self.outside[node].pauses;
        match pauses.last_mut() {
            Some((from, until)) if *from == since => *until = now,
            Some(_) | None => pauses.push((since, now)),
        }
    }

    /// Takes note of a direction, at every step at which it is not calm.
    pub(crate) fn path(&mut self, now: Duration, from: usize, to: usize, path: Path) {
        if path.is_cut || path.loss > LOSS_MAX || path.delay + path.jitter > DELAY_MAX {
            self.bad_until.insert((from, to), now);
        }
    }

    /// Nothing was wrong between the two, in either direction, since then.
    fn was_good(&self, a: usize, b: usize, since: Duration) -> bool {
        [(a, b), (b, a)]
            .iter()
            .all(|pair| self.bad_until.get(pair).is_none_or(|until| *until < since))
    }

    /// For how long the node stood still since then.
    fn stood_still(&self, node: usize, since: Duration) -> Duration {
        let within = |(from, until): &(Duration, Duration)| until.saturating_sub((*from).max(since));
        self.outside[node].pauses.iter().map(within).sum()
    }

    /// Looks at what a node found out about another one: no verdict within the confirm time of an answer. After it neither, in the same
    /// instant, if the node had stood still until then: the answer was there, and had not been read.
    pub(crate) fn found(&mut self, finding: &Finding) {
        let Finding {
            at,
            observer,
            node,
            generation,
            kind,
        } = finding;
        let shown = &mut self.shown[*observer];
        let life = (node.clone(), *generation);
        match kind {
            FindingKind::Dead => {
                let answered_at = shown.answered.get(&life);
                assert!(
                    answered_at.is_none_or(|answered_at| *at >= *answered_at + self.confirm),
                    "{at:?}: {} declares {node} dead, which answered a probe at {answered_at:?}",
                    name(*observer)
                );
                shown.declared_dead.insert(life, *at);
            }
            FindingKind::Answered => {
                self.counts.answers += 1;
                let slept = self.outside[*observer].pauses.last();
                let has_slept =
                    slept.is_some_and(|(from, until)| *until - *from >= HICCUP && *at <= *until + HICCUP / 8);
                assert!(
                    !(has_slept && shown.declared_dead.get(&life) == Some(at)),
                    "{at:?}: {} wakes, declares {node} dead, and only then reads its answer",
                    name(*observer)
                );
                shown.answered.insert(life, *at);
            }
            FindingKind::Other => {}
        }
    }

    /// Looks at what a node shows now.
    pub(crate) fn members(&mut self, now: Duration, observer: usize, conditions: &[Condition]) {
        let Some(members) = conditions[observer].members else {
            return;
        };
        let before = std::mem::replace(&mut self.shown[observer].members, members.clone());
        for member in members.iter() {
            let node = index(&member.peer.node);
            let generation = member.peer.generation;
            assert!(
                generation <= self.outside[node].newest,
                "{now:?}: {} shows {} of the future",
                name(observer),
                member.peer
            );
            let highest = self.shown[observer]
                .generations
                .entry(member.peer.node.clone())
                .or_default();
            assert!(
                *highest <= generation,
                "{now:?}: {} shows {} after generation {highest}",
                name(observer),
                member.peer
            );
            *highest = generation;
            let old = before
                .get(&member.peer.node)
                .filter(|old| old.peer.generation == generation);
            self.turned(now, observer, node, old, member, conditions);
        }
    }

    fn turned(
        &mut self,
        now: Duration,
        observer: usize,
        node: usize,
        old: Option<&Member>,
        new: &Member,
        conditions: &[Condition],
    ) {
        let from = old.map(|old| old.state);
        if from == Some(new.state) {
            return;
        }
        if node == observer {
            let is_verdict = matches!(new.state, MemberState::Suspect | MemberState::Dead);
            assert!(!is_verdict, "{now:?}: {} calls itself {}", name(observer), new.state);
        }
        match new.state {
            MemberState::Suspect => self.counts.suspicions += 1,
            MemberState::Dead => {
                self.counts.verdicts += 1;
                self.verdict(now, observer, node, new.peer.generation, conditions);
            }
            MemberState::Joining | MemberState::Ready | MemberState::Draining | MemberState::Leaving => {}
        }
    }

    /// One node declares another one dead: may it?
    fn verdict(&mut self, now: Duration, observer: usize, node: usize, generation: u64, conditions: &[Condition]) {
        let who = format!("{now:?}: {} declares {} dead", name(observer), name(node));
        // A verdict on the life before is none on this one.
        let declared_dead = &self.shown[observer].declared_dead;
        assert!(
            declared_dead.contains_key(&(name(node), generation)),
            "{who} in life {generation}, on which there was no verdict"
        );
        let woke_at = self.outside[observer]
            .pauses
            .iter()
            .filter(|(from, until)| *until - *from > Duration::from_millis(1_200))
            .map(|(_, until)| *until)
            .max();
        assert!(
            woke_at.is_none_or(|woke_at| now >= woke_at + self.confirm),
            "{who}, having slept until {woke_at:?}"
        );
        if conditions[node].generation != Some(generation) {
            return;
        }
        let since = now.saturating_sub(self.window);
        let living = |other: &usize| {
            conditions[*other].generation.is_some()
                && self.outside[*other].began_at < since
                && self.stood_still(*other, since).is_zero()
        };
        let awake = living(&observer) && self.outside[node].began_at < since;
        let node_awake = awake && self.stood_still(node, since) <= self.pause_max;
        assert!(
            !(node_awake && self.was_good(observer, node, since)),
            "{who}, which ran, and nothing was wrong between them since {since:?}"
        );
        // It could not be reached directly, but everybody else could have said that it lives.
        let others: Vec<usize> = (0..conditions.len())
            .filter(|other| *other != observer && *other != node && conditions[*other].generation.is_some())
            .collect();
        let helped = !others.is_empty()
            && others.iter().all(|other| {
                living(other) && self.was_good(observer, *other, since) && self.was_good(*other, node, since)
            });
        assert!(
            !(node_awake && helped),
            "{who}, which ran, and {} others could reach it since {since:?}",
            others.len()
        );
        self.counts.excused += 1;
    }

    /// Looks at the changes that a node was told of since the last step; what they amount to must be what it shows.
    pub(crate) fn changes(&mut self, now: Duration, observer: usize, changes: &[Change], members: &Members) {
        let told = &mut self.shown[observer].told;
        self.counts.changes += changes.len() as u64;
        let taken = changes.iter().try_for_each(|change| told.take(change));
        if let Err(wrong) = taken.and_then(|()| told.compare(members)) {
            panic!("{now:?}: {} was told wrong: {wrong}", name(observer));
        }
    }

    /// Looks at what a node was told of its links.
    pub(crate) fn heard(&mut self, now: Duration, observer: usize, heard: &[Heard]) {
        for heard in heard {
            let peer = match heard {
                Heard::Link(peer, _) | Heard::Message(peer, _) => peer,
                Heard::Request(peer, question) => {
                    assert!(
                        question.len() == 32 && question[..8].repeat(4) == question[..],
                        "{now:?}: {} is asked {question:?} by {peer}",
                        name(observer)
                    );
                    continue;
                }
                Heard::Answer(question, answer) => {
                    self.counts.answered += u64::from(answer.is_ok());
                    let is_right = answer.as_ref().is_ok_and(|answer| answer == question);
                    assert!(
                        is_right || answer.is_err(),
                        "{now:?}: {} asked {question:?} and heard {answer:?}",
                        name(observer)
                    );
                    continue;
                }
            };
            let who = format!("{now:?}: {} hears of {peer}", name(observer));
            let links = &mut self.shown[observer].links;
            let newer = links
                .range((peer.node.clone(), peer.generation + 1)..)
                .next()
                .is_some_and(|((node, _), _)| *node == peer.node);
            let link = links.entry((peer.node.clone(), peer.generation)).or_default();
            match heard {
                Heard::Link(_, LinkEvent::Connected) => {
                    assert!(!newer, "{who}: connected after a newer one");
                    link.is_gone = false;
                }
                Heard::Link(_, event) => {
                    let is_gone = *event == LinkEvent::Gone;
                    assert!(is_gone || !link.is_gone, "{who}: {event:?} after it was gone");
                    link.is_gone = is_gone;
                }
                Heard::Message(_, number) => {
                    assert!(!link.is_gone, "{who}: message {number} after it was gone");
                    assert!(
                        link.last_message.is_none_or(|last| last < *number),
                        "{who}: message {number} after {:?}",
                        link.last_message
                    );
                    link.last_message = Some(*number);
                }
                Heard::Request(..) | Heard::Answer(..) => {}
            }
        }
    }
}

/// Which node bears this name.
pub(crate) fn index(node: &NodeId) -> usize {
    node.as_str()[1..].parse().unwrap()
}
