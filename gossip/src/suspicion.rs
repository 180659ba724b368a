//! When silence becomes a verdict. Pure. Gossip's failure detector and lost connections raise only a *doubt*; a doubt starts a direct
//! probe, then probes through up to three other members, and only when nothing answers for the whole round is the peer dead.
//!
//! This is SWIM (Das, Gupta, Motivala: "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol", DSN 2002)
//! with Lifeguard's refinements (Dadgar, Phillips, Currey: "Lifeguard: Local Health Awareness for More Accurate Failure Detection",
//! DSN-W 2018), on top of the heartbeats of scuttlebutt (van Renesse, Dumitriu, Gough, Thomas: "Efficient Reconciliation and Flow
//! Control for Anti-Entropy Protocols", LADIS 2008). What is taken from where, and what is not:
//! - SWIM's probe of one member after the other is not needed: heartbeats that stop are the first doubt. Its *indirect probe* and
//!   *suspect* are here; verdicts are not spread, since each node sees the silence itself and within the same bound.
//! - A suspect refutes by any sign of life. It needs no incarnation number, because the suspicion of one node binds no other one; but
//!   everything here names the life that it is about, so that no verdict falls on the next one. The direct probe is also how a suspect
//!   hears of the suspicion first (Lifeguard's *buddy system*).
//! - A helper that finds silence says so (Lifeguard's *nack*). One that says nothing is a sign that *we* are out of touch.
//! - Missed nacks, suspicions that proved wrong, and our own lateness are our **local health**, 0 to 8: the worse it is, the longer a
//!   round lasts, within what the profiles promise.
//!
//! A node that finds itself late (its own timer ran more than a second late, so it was paused or starved) or that suspects more than
//! half of its peers at once trusts itself less: every running round starts again, so that no verdict rests on what happened before,
//! and this can put a verdict off by at most 5 s, not counting what was slept away.
//!
//! The invariants: no peer is declared dead within `confirm` of the last sign of life, nor within `confirm` of the moment at which this
//! node woke up; a peer is shown suspect at most four times at once, and then once in 4 s, and one that answers is not shown suspect for
//! longer than that; and what is said of a life that is not watched, or not any more, changes nothing for any other life of its node.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::peer::Life;

/// Time since the mesh started.
pub(crate) type Time = Duration;

/// How often the machine wants to be woken. Its lateness is measured against this.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// This much later than due, and the node's own view is stale.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// This much later than due, and what came meanwhile waits in the socket. It is read within a tick; until then there is no verdict,
/// because an answer may be among it.
const UNREAD_AFTER: Duration = Duration::from_millis(50);

/// This much later than due, and the node is not well.
const SLOW_AFTER: Duration = Duration::from_millis(250);

/// How long self-distrust may put a verdict off.
const POSTPONED_MAX: Duration = Duration::from_secs(5);

/// Through how many others a silent peer is probed.
const HELPERS_MAX: usize = 3;

/// How long after it was asked a helper must have said something, though it be that the suspect is silent. Helpers say so after 400 ms
/// (`control.rs`), so this leaves 200 ms for the way.
const NACK_WITHIN: Duration = Duration::from_millis(600);

/// How often a peer that was declared dead is probed when there are signs that it lives.
const REVIVAL_INTERVAL: Duration = Duration::from_secs(2);

/// How often one of the dead, each in its turn, is probed without any sign; and how long one that has been dead for a minute is left
/// alone. After a partition heals this is what meets again: gossip dials the dead by chance, and backs off for up to 5 s.
const ROLL_CALL_INTERVAL: Duration = Duration::from_secs(1);
const LATELY_DEAD: Duration = Duration::from_secs(60);
const LONG_DEAD_INTERVAL: Duration = Duration::from_secs(10);

/// How often a member that lives, but does not answer us, is probed.
const REACH_INTERVAL: Duration = Duration::from_secs(5);

/// How often in a row a peer may be shown suspect, and how long until it may be so once more. A peer that is doubted more often stays
/// suspect meanwhile, although it answers; so this is the longest for which a view is wrong about it.
const FLAPS_MAX: u32 = 4;
const FLAP_FORGIVEN_AFTER: Duration = Duration::from_secs(4);

/// The worst local health; what it adds to a round; how long nothing must have happened for it to be one better. The profiles promise
/// a verdict within 8 s and 4 s, and silence is noticed within 5.6 s and 2.3 s, so 0.4 s is what there is to add to a round.
const HEALTH_MAX: u32 = 8;
const STRETCH_MAX: Duration = Duration::from_millis(400);
const HEALTH_REGAINED_AFTER: Duration = Duration::from_secs(5);

/// What being late costs in health.
const LATE_COST: u32 = 3;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// How long the direct probe has the word alone.
    pub(crate) direct_probe: Duration,
    /// How long a round lasts, in good health.
    pub(crate) confirm: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The peer itself answered or connected.
    Direct,
    /// Its heartbeat came, perhaps through others, and perhaps late.
    Heartbeat,
    /// It answered a helper that we had asked.
    Vouched,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A life is watched from now on. The one before it, if there was one, is forgotten first.
    Watch(Life),
    /// A life is watched no longer: it left, was superseded, or nobody remembers it.
    Forget(Life),
    /// There is reason to think that the peer is gone.
    Doubt(Life),
    /// There is reason to think that it is not.
    Sign(Life, Sign),
    /// A direct probe was given up.
    Silent(Life),
    /// A helper says that the suspect does not answer it.
    Nack { suspect: Life, helper: Life },
    /// This node did not run for a while, and its clock does not show it.
    Slept,
    /// Time has passed.
    Wake,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Suspected(Life),
    /// The suspicion, or the verdict, was wrong.
    Cleared(Life),
    Died(Life),
    /// Ask the peer itself, again and again for as long as a round lasts.
    Probe(Life),
    ProbeThrough {
        life: Life,
        helpers: Vec<Life>,
    },
    /// This node was late.
    Late,
    /// So many helpers said nothing.
    NacksMissed(u64),
    /// From now on this node trusts its own view less, or no longer less.
    Isolated(bool),
}

/// What is known of a suspicion that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspected {
    pub(crate) since: Time,
    /// Direct probes begun, each of which asks again and again.
    pub(crate) probes: u32,
    pub(crate) helpers: u32,
    pub(crate) nacks: u32,
}

#[derive(Debug)]
struct Watched {
    condition: Condition,
    /// It answers us, and not only others.
    reachable: bool,
    heard_at: Option<Time>,
    answered_at: Option<Time>,
    /// When the last direct probe began.
    probed_at: Option<Time>,
    /// Times in a row that it was asked for help and said nothing.
    unhelpful: u32,
    /// Suspicions that were shown and are not forgiven, and since when the next one is being forgiven.
    flaps: u32,
    flaps_since: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Well,
    Suspect(Round),
    /// It answers, and was suspected too often to be shown well already.
    HeldDown {
        suspected_at: Time,
        until: Time,
    },
    Dead {
        died_at: Time,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    suspected_at: Time,
    began_at: Time,
    asked_at: Option<Time>,
    /// Who was asked, and what became of it.
    helpers: BTreeMap<Life, Help>,
    probes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Help {
    Asked,
    Nacked,
    Missed,
}

impl Watched {
    fn new(now: Time) -> Self {
        Self {
            condition: Condition::Well,
            reachable: true,
            heard_at: None,
            answered_at: None,
            probed_at: None,
            unhelpful: 0,
            flaps: 0,
            flaps_since: now,
        }
    }

    fn is_dead(&self) -> bool {
        matches!(self.condition, Condition::Dead { .. })
    }

    fn is_suspect(&self) -> bool {
        matches!(self.condition, Condition::Suspect(_))
    }

    /// Forgives what lies far enough back.
    fn forgive(&mut self, now: Time) {
        while self.flaps > 0 && now >= self.flaps_since + FLAP_FORGIVEN_AFTER {
            self.flaps -= 1;
            self.flaps_since += FLAP_FORGIVEN_AFTER;
        }
    }

    fn count_flap(&mut self, now: Time) {
        self.forgive(now);
        if self.flaps == 0 {
            self.flaps_since = now;
        }
        self.flaps += 1;
    }
}

#[derive(Debug)]
pub(crate) struct Suspicion {
    timeouts: Timeouts,
    peers: BTreeMap<Life, Watched>,
    woke_at: Option<Time>,
    /// Until when something that came while this node did not run may not have been read.
    unread_until: Time,
    mostly_suspect: bool,
    isolation: Isolation,
    health: Health,
    /// Rounds in which others were asked; moves the choice of helpers on.
    rounds: usize,
    /// When one of the dead was probed last, and which.
    roll_call: (Time, Option<Life>),
}

/// Why this node trusts its own view less.
#[derive(Debug, Default)]
struct Isolation {
    /// When the node was late last, and who has given no sign of life since.
    late_at: Time,
    unheard: BTreeSet<Life>,
    /// Since when most members are suspect, or died lately.
    mostly_silent_since: Option<Time>,
    /// What was said of it.
    is_isolated: bool,
}

/// Lifeguard's local health multiplier: 0 is well.
#[derive(Debug, Default)]
struct Health {
    score: u32,
    changed_at: Time,
}

impl Health {
    fn worse(&mut self, now: Time, by: u32) {
        self.score = (self.score + by).min(HEALTH_MAX);
        self.changed_at = now;
    }

    fn better(&mut self, now: Time) {
        self.score = self.score.saturating_sub(1);
        self.changed_at = now;
    }

    /// Probes are rare here, so that quiet counts as success.
    fn pass(&mut self, now: Time) {
        if self.score > 0 && now >= self.changed_at + HEALTH_REGAINED_AFTER {
            self.better(now);
        }
    }

    fn stretch(&self) -> Duration {
        STRETCH_MAX * self.score / HEALTH_MAX
    }
}

impl Suspicion {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            peers: BTreeMap::new(),
            woke_at: None,
            unread_until: Time::ZERO,
            mostly_suspect: false,
            isolation: Isolation::default(),
            health: Health::default(),
            rounds: 0,
            roll_call: (Time::ZERO, None),
        }
    }

    /// When `Input::Wake` is due.
    pub(crate) fn next_wake(&self) -> Time {
        self.woke_at.map_or(Time::ZERO, |at| at + TICK)
    }

    /// Our own health: 0 is well, 8 is the worst.
    pub(crate) fn health(&self) -> u32 {
        self.health.score
    }

    /// How long a direct probe asks.
    pub(crate) fn probe_for(&self) -> Duration {
        self.timeouts.confirm + self.health.stretch()
    }

    /// When the peer last gave a sign of life, by itself or through others.
    pub(crate) fn heard_at(&self, life: &Life) -> Option<Time> {
        self.peers.get(life).and_then(|watched| watched.heard_at)
    }

    /// Whether the peer answers us, as far as we have tried.
    pub(crate) fn is_reachable(&self, life: &Life) -> bool {
        self.peers
            .get(life)
            .is_none_or(|watched| watched.reachable && !watched.is_dead())
    }

    pub(crate) fn suspected(&self, life: &Life) -> Option<Suspected> {
        match &self.peers.get(life)?.condition {
            Condition::Suspect(round) => Some(Suspected {
                since: round.suspected_at,
                probes: round.probes,
                helpers: round.helpers.len() as u32,
                nacks: round.helpers.values().filter(|help| **help == Help::Nacked).count() as u32,
            }),
            Condition::HeldDown { suspected_at, .. } => Some(Suspected {
                since: *suspected_at,
                probes: 0,
                helpers: 0,
                nacks: 0,
            }),
            Condition::Well | Condition::Dead { .. } => None,
        }
    }

    pub(crate) fn step(&mut self, now: Time, input: Input, out: &mut Vec<Effect>) {
        self.notice_lateness(now, out);
        match input {
            Input::Watch(life) => {
                self.peers.entry(life).or_insert_with(|| Watched::new(now));
            }
            Input::Forget(life) => {
                self.isolation.unheard.remove(&life);
                self.peers.remove(&life);
            }
            Input::Doubt(life) => self.doubt(now, life, out),
            Input::Sign(life, sign) => self.sign(now, life, sign, out),
            Input::Silent(life) => self.silent(&life),
            Input::Nack { suspect, helper } => self.nack(&suspect, &helper),
            Input::Slept => self.late(now, out),
            Input::Wake => self.wake(now, out),
        }
        self.notice_majority(now, out);
        self.judge(now, out);
        self.notice_isolation(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        let late_by = self.woke_at.map(|woke_at| now.saturating_sub(woke_at + TICK));
        self.woke_at = Some(now);
        self.health.pass(now);
        if let Some(late_by) = late_by.filter(|late_by| *late_by > SLOW_AFTER) {
            self.health.worse(now, 1);
            self.put_off(now, late_by);
        }
        for (life, watched) in &mut self.peers {
            match watched.condition {
                Condition::HeldDown { until, .. } if now >= until => {
                    watched.condition = Condition::Well;
                    out.push(Effect::Cleared(life.clone()));
                }
                Condition::Well | Condition::HeldDown { .. }
                    if !watched.reachable && watched.probed_at.is_none_or(|at| now >= at + REACH_INTERVAL) =>
                {
                    watched.probed_at = Some(now);
                    out.push(Effect::Probe(life.clone()));
                }
                Condition::Well | Condition::HeldDown { .. } | Condition::Suspect(_) | Condition::Dead { .. } => {}
            }
        }
        self.call_the_roll(now, out);
    }

    /// A short nap is no reason to begin again, but in it nobody could be heard.
    fn put_off(&mut self, now: Time, by: Duration) {
        for watched in self.peers.values_mut() {
            if let Condition::Suspect(round) = &mut watched.condition
                && now <= round.suspected_at + POSTPONED_MAX
            {
                round.began_at += by;
                round.asked_at = round.asked_at.map(|at| at + by);
            }
        }
    }

    /// Probes the next of the dead.
    fn call_the_roll(&mut self, now: Time, out: &mut Vec<Effect>) {
        let (called_at, last) = &self.roll_call;
        if now < *called_at + ROLL_CALL_INTERVAL {
            return;
        }
        let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let after = self.peers.range::<Life, _>((from, Bound::Unbounded));
        let is_due = |watched: &Watched| match watched.condition {
            Condition::Dead { died_at } => {
                now < died_at + LATELY_DEAD || watched.probed_at.is_none_or(|at| now >= at + LONG_DEAD_INTERVAL)
            }
            Condition::Well | Condition::HeldDown { .. } | Condition::Suspect(_) => false,
        };
        let next = after.chain(&self.peers).find(|(_, watched)| is_due(watched));
        if let Some(life) = next.map(|(life, _)| life.clone()) {
            self.roll_call = (now, Some(life.clone()));
            if let Some(watched) = self.peers.get_mut(&life) {
                watched.probed_at = Some(now);
            }
            out.push(Effect::Probe(life));
        }
    }

    fn doubt(&mut self, now: Time, life: Life, out: &mut Vec<Effect>) {
        let Some(watched) = self.peers.get_mut(&life) else {
            return;
        };
        let suspected_at = match watched.condition {
            Condition::Well => {
                watched.count_flap(now);
                out.push(Effect::Suspected(life.clone()));
                now
            }
            // It is shown suspect already, but this is a new suspicion.
            Condition::HeldDown { .. } => now,
            Condition::Suspect(_) | Condition::Dead { .. } => return,
        };
        watched.condition = Condition::Suspect(Round {
            suspected_at,
            began_at: now,
            asked_at: None,
            helpers: BTreeMap::new(),
            probes: 1,
        });
        watched.probed_at = Some(now);
        out.push(Effect::Probe(life));
    }

    fn sign(&mut self, now: Time, life: Life, sign: Sign, out: &mut Vec<Effect>) {
        let Some(watched) = self.peers.get_mut(&life) else {
            return;
        };
        self.isolation.unheard.remove(&life);
        watched.heard_at = Some(now);
        if sign == Sign::Direct {
            watched.answered_at = Some(now);
            watched.reachable = true;
        }
        match (&watched.condition, sign) {
            (Condition::Well | Condition::HeldDown { .. }, _) => {}
            (Condition::Suspect(round), _) => {
                match (round.asked_at, sign) {
                    // It lives, and yet it did not answer us in time: that may be our fault.
                    (Some(_), _) => self.health.worse(now, 1),
                    (None, Sign::Direct) => self.health.better(now),
                    (None, Sign::Heartbeat | Sign::Vouched) => {}
                }
                let suspected_at = round.suspected_at;
                watched.forgive(now);
                if watched.flaps >= FLAPS_MAX {
                    watched.condition = Condition::HeldDown {
                        suspected_at,
                        until: watched.flaps_since + FLAP_FORGIVEN_AFTER,
                    };
                } else {
                    watched.condition = Condition::Well;
                    out.push(Effect::Cleared(life));
                }
            }
            (Condition::Dead { .. }, Sign::Direct) => {
                watched.condition = Condition::Well;
                out.push(Effect::Cleared(life));
            }
            (Condition::Dead { .. }, Sign::Heartbeat | Sign::Vouched) => {
                // The heartbeat may have been on its way through others when the peer died, so it must answer for itself.
                if watched.probed_at.is_none_or(|at| now >= at + REVIVAL_INTERVAL) {
                    watched.probed_at = Some(now);
                    out.push(Effect::Probe(life));
                }
            }
        }
    }

    /// A direct probe ended without an answer. Should others hear the peer all the same, it is a member that we cannot reach.
    fn silent(&mut self, life: &Life) {
        if let Some(watched) = self.peers.get_mut(life)
            && watched.answered_at < watched.probed_at
        {
            watched.reachable = false;
        }
    }

    fn nack(&mut self, suspect: &Life, helper: &Life) {
        if let Some(watched) = self.peers.get_mut(helper) {
            watched.unhelpful = 0;
        }
        if let Some(Condition::Suspect(round)) = self.peers.get_mut(suspect).map(|watched| &mut watched.condition)
            && let Some(help) = round.helpers.get_mut(helper)
        {
            *help = Help::Nacked;
        }
    }

    /// A pause of our own makes everybody look silent: what we concluded before it is worth nothing.
    fn notice_lateness(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Some(woke_at) = self.woke_at else {
            return;
        };
        if now > woke_at + TICK + UNREAD_AFTER {
            self.unread_until = now + TICK;
        }
        let due = woke_at + TICK + LATE_AFTER;
        if now <= due {
            return;
        }
        self.woke_at = Some(now);
        // What was slept away does not count against the time by which verdicts may be put off; but the second that makes us late does,
        // so that a node which is late for ever comes to a verdict all the same.
        for watched in self.peers.values_mut() {
            if let Condition::Suspect(round) = &mut watched.condition {
                round.suspected_at += now - due;
            }
        }
        self.late(now, out);
    }

    fn late(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.health.worse(now, LATE_COST);
        self.isolation.late_at = now;
        let members = self.peers.iter().filter(|(_, watched)| !watched.is_dead());
        self.isolation.unheard = members.map(|(life, _)| life.clone()).collect();
        out.push(Effect::Late);
        self.start_rounds_again(now, out);
    }

    /// When most peers fall silent together, it is more likely us. With a single peer there is no majority to speak of.
    fn notice_majority(&mut self, now: Time, out: &mut Vec<Effect>) {
        let watched = self.peers.values().filter(|watched| !watched.is_dead()).count();
        let suspects = self.peers.values().filter(|watched| watched.is_suspect()).count();
        let mostly_suspect = watched >= 2 && suspects * 2 > watched;
        if mostly_suspect && !self.mostly_suspect {
            self.start_rounds_again(now, out);
        }
        self.mostly_suspect = mostly_suspect;
    }

    fn start_rounds_again(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (life, watched) in &mut self.peers {
            let Condition::Suspect(round) = &mut watched.condition else {
                continue;
            };
            // Without lateness the verdict would have come at `suspected_at + confirm`.
            if round.began_at == now || now > round.suspected_at + POSTPONED_MAX {
                continue;
            }
            round.began_at = now;
            round.asked_at = None;
            round.helpers.clear();
            round.probes += 1;
            watched.probed_at = Some(now);
            out.push(Effect::Probe(life.clone()));
        }
    }

    fn judge(&mut self, now: Time, out: &mut Vec<Effect>) {
        // Half of the stretch goes to the peer and half to the helpers.
        let stretch = self.health.stretch();
        let direct_probe = self.timeouts.direct_probe + stretch / 2;
        let confirm = self.timeouts.confirm + stretch;
        let (mut unanswered, mut silent_helpers) = (Vec::new(), Vec::new());
        for (life, watched) in &mut self.peers {
            let Condition::Suspect(round) = &mut watched.condition else {
                continue;
            };
            let unread = now < self.unread_until;
            if !unread && round.asked_at.is_some_and(|at| now >= at + NACK_WITHIN) {
                for (helper, help) in &mut round.helpers {
                    if *help == Help::Asked {
                        *help = Help::Missed;
                        silent_helpers.push(helper.clone());
                    }
                }
            }
            if now >= round.began_at + confirm {
                if unread && now <= round.suspected_at + POSTPONED_MAX {
                    continue;
                }
                watched.condition = Condition::Dead { died_at: now };
                self.isolation.unheard.remove(life);
                out.push(Effect::Died(life.clone()));
            } else if now >= round.began_at + direct_probe && round.asked_at.is_none() {
                round.asked_at = Some(now);
                unanswered.push(life.clone());
            }
        }
        self.count_missed_nacks(now, silent_helpers, out);
        for life in unanswered {
            self.ask_others(life, out);
        }
    }

    fn count_missed_nacks(&mut self, now: Time, silent_helpers: Vec<Life>, out: &mut Vec<Effect>) {
        let mut missed = 0;
        for helper in silent_helpers {
            // One that has fallen silent itself says nothing about us.
            if let Some(watched) = self.peers.get_mut(&helper)
                && watched.condition == Condition::Well
            {
                watched.unhelpful += 1;
                self.health.worse(now, 1);
                missed += 1;
            }
        }
        if missed > 0 {
            out.push(Effect::NacksMissed(missed));
        }
    }

    fn ask_others(&mut self, life: Life, out: &mut Vec<Effect>) {
        let helpers = self.helpers(&life);
        if helpers.is_empty() {
            return;
        }
        self.rounds += 1;
        if let Some(Condition::Suspect(round)) = self.peers.get_mut(&life).map(|watched| &mut watched.condition) {
            round.helpers = helpers.iter().map(|helper| (helper.clone(), Help::Asked)).collect();
        }
        out.push(Effect::ProbeThrough { life, helpers });
    }

    /// Members that answer us, and that did not let us down the last time; around the ring of names from the suspect on, and moved on
    /// with every round, so that without chance it is not always the same three.
    fn helpers(&self, suspect: &Life) -> Vec<Life> {
        let after = self
            .peers
            .range::<Life, _>((Bound::Excluded(suspect), Bound::Unbounded));
        let before = self.peers.range::<Life, _>(..suspect);
        let mut able: Vec<(&Life, &Watched)> = after
            .chain(before)
            .filter(|(_, watched)| watched.condition == Condition::Well && watched.reachable)
            .collect();
        if !able.is_empty() {
            let turn = self.rounds * HELPERS_MAX % able.len();
            able.rotate_left(turn);
        }
        able.sort_by_key(|(_, watched)| watched.unhelpful);
        able.truncate(HELPERS_MAX);
        able.into_iter().map(|(life, _)| life.clone()).collect()
    }

    fn notice_isolation(&mut self, now: Time, out: &mut Vec<Effect>) {
        let (mut well, mut suspects, mut lately_dead) = (0, 0, 0);
        for watched in self.peers.values() {
            match watched.condition {
                Condition::Well | Condition::HeldDown { .. } => well += 1,
                Condition::Suspect(_) => suspects += 1,
                Condition::Dead { died_at } if now < died_at + POSTPONED_MAX => lately_dead += 1,
                Condition::Dead { .. } => {}
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
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
