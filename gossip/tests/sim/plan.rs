//! What goes wrong in one run, and when: drawn from the seed before the run begins, so that the promises can be checked against it.

use std::fmt;
use std::time::Duration;

use rookery_gossip::Profile;
use rookery_gossip::sim::Path;

use crate::entropy;

/// Draws from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (entropy::next(&mut self.0) % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A number from 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        (entropy::next(&mut self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whole milliseconds in a range.
    pub(crate) fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + entropy::next(&mut self.0) % (to - from + 1))
    }
}

#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) nodes: usize,
    /// How many facts and groups each node states in gossip; further groups are in the directory.
    pub(crate) keys_soft: usize,
    /// When each node starts first.
    pub(crate) starts: Vec<Duration>,
    /// Which nodes each node joins through.
    pub(crate) seeds: Vec<Vec<usize>>,
    /// How all paths are that nothing is wrong with.
    pub(crate) calm: Path,
    /// In the order of time.
    pub(crate) steps: Vec<(Duration, Step)>,
    /// From here on nothing goes wrong any more.
    pub(crate) healed_at: Duration,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// The node stands still, as after SIGSTOP.
    Pause(usize),
    Resume(usize),
    /// The node is gone without a word.
    Crash(usize),
    Leave(usize),
    /// The node starts (again), with a higher generation.
    Start(usize, Place),
    /// A newer life of the node starts while the present one stands still, which wakes up later.
    Replace(usize, Place),
    /// The life that was replaced goes on.
    ResumeFormer(usize),
    /// One direction changes.
    Path {
        from: usize,
        to: usize,
        path: Path,
    },
    /// One direction is as all others.
    Reset {
        from: usize,
        to: usize,
    },
    Fact(usize),
    Drain(usize),
    Join(usize, usize),
    Part(usize, usize),
    /// A message over the data connection.
    Send(usize, usize),
    /// A question to another node.
    Ask(usize, usize),
}

/// Where a node starts: addresses are handed out anew, as among containers, and then one may have been another node's before.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Same,
    /// One that is free, counted around.
    Free(usize),
}

/// A kind of fault, for a node or for paths.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Pause,
    Stutter,
    /// A crash, or a node that leaves; it mostly comes back.
    Down,
    /// A newer life takes over somewhere else while the older one only stands still.
    Replaced,
    /// One direction of one pair.
    OneWay,
    Pair,
    /// The node hears nobody.
    Deaf,
    /// Nobody hears the node.
    Mute,
    Alone,
    /// Two sides.
    Split,
    /// About half of all directions.
    Scattered,
}

impl Fault {
    const ALL: [Fault; 11] = [
        Fault::Pause,
        Fault::Stutter,
        Fault::Down,
        Fault::Replaced,
        Fault::OneWay,
        Fault::Pair,
        Fault::Deaf,
        Fault::Mute,
        Fault::Alone,
        Fault::Split,
        Fault::Scattered,
    ];
}

/// Groups that nodes join and leave.
pub(crate) const GROUPS: [&str; 3] = ["harbour", "market", "tower"];

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} nodes, profile {:?}",
            self.seed, self.nodes, self.profile
        )?;
        writeln!(f, "paths: {:?}", self.calm)?;
        for (node, at) in self.starts.iter().enumerate() {
            writeln!(
                f,
                "{:>7} ms start {node}, which joins through {:?}",
                at.as_millis(),
                self.seeds[node]
            )?;
        }
        for (at, step) in &self.steps {
            write!(f, "{:>7} ms ", at.as_millis())?;
            match step {
                Step::Path { from, to, path } if path.is_cut => writeln!(f, "cut {from} -> {to}")?,
                Step::Path { from, to, path } => writeln!(
                    f,
                    "path {from} -> {to}: {} ms, {} ms of jitter, {:.2} lost, {:.2} doubled",
                    path.delay.as_millis(),
                    path.jitter.as_millis(),
                    path.loss,
                    path.doubled
                )?,
                Step::Reset { from, to } => writeln!(f, "calm {from} -> {to}")?,
                other => writeln!(f, "{other:?}")?,
            }
        }
        writeln!(f, "{:>7} ms healed", self.healed_at.as_millis())
    }
}

impl Plan {
    /// Draws a run from its seed. Most have few nodes, as most faults of a protocol need few.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x726f_6f6b_6572_7921);
        let sizes = [3, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 6, 6, 7, 8, 9, 10, 11, 12];
        let nodes = sizes[dice.below(sizes.len())];
        let profile = if dice.one_in(8) { Profile::Default } else { Profile::Lan };
        let calm = Path {
            delay: dice.ms(5, 15),
            jitter: dice.ms(0, 10),
            loss: [0.0, 0.0, 0.01, 0.03][dice.below(4)],
            doubled: [0.0, 0.0, 0.02][dice.below(3)],
            is_cut: false,
        };
        let starts = (0..nodes).map(|_| dice.ms(0, 800)).collect();
        let seeds = (0..nodes)
            .map(|node| {
                let other = dice.below(nodes);
                if other == node || other == 0 {
                    vec![0]
                } else {
                    vec![0, other]
                }
            })
            .collect();
        let trouble_from = dice.ms(300, 3_000);
        let healed_at = trouble_from + dice.ms(6_000, 12_000);
        let mut plan = Self {
            seed,
            profile,
            nodes,
            keys_soft: [200, 200, 1][dice.below(3)],
            starts,
            seeds,
            calm,
            steps: Vec::new(),
            healed_at,
        };
        plan.draw_faults(&mut dice, trouble_from);
        plan.draw_work(&mut dice);
        // Whole milliseconds, as the clocks know them.
        for (at, _) in &mut plan.steps {
            *at = Duration::from_millis(at.as_millis() as u64);
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }

    /// A run of a plan that was written by hand, over paths with nothing wrong.
    pub(crate) fn by_hand(nodes: usize, steps: &[(Duration, Step)]) -> Self {
        Self {
            seed: 0,
            profile: Profile::Lan,
            nodes,
            keys_soft: 200,
            starts: vec![Duration::ZERO; nodes],
            seeds: vec![vec![0]; nodes],
            calm: Path::default(),
            steps: steps.to_vec(),
            healed_at: steps.last().map_or(Duration::ZERO, |(at, _)| *at),
        }
    }

    /// Each run has about half of all kinds of faults: what only shows under one kind, again and again, is otherwise hidden by the rest.
    fn draw_faults(&mut self, dice: &mut Dice, from: Duration) {
        let mut kinds: Vec<Fault> = Fault::ALL.into_iter().filter(|_| dice.one_in(2)).collect();
        if kinds.is_empty() {
            kinds.push(Fault::ALL[dice.below(Fault::ALL.len())]);
        }
        let trouble = self.healed_at - from;
        if dice.one_in(10) {
            // A death and nothing else, so that it can be seen how soon everybody knows.
            let at = from + trouble.max(Duration::from_secs(4)).mul_f64(0.7 + 0.3 * dice.share());
            self.steps.push((at, Step::Crash(1 + dice.below(self.nodes - 1))));
            return;
        }
        let count = 2 + dice.below(3 + self.nodes);
        // A node that is down, leaving or standing still is left alone by further faults of that kind.
        let mut busy_until: Vec<Duration> = self.starts.iter().map(|at| *at + Duration::from_millis(100)).collect();
        for _ in 0..count {
            let at = from + trouble.mul_f64(dice.share());
            let node = dice.below(self.nodes);
            let other = dice.below(self.nodes);
            let is_busy = at < busy_until[node];
            let everybody = 0..self.nodes;
            let pairs: Vec<(usize, usize)> = everybody
                .clone()
                .flat_map(|a| everybody.clone().map(move |b| (a, b)))
                .collect();
            let chosen: Vec<(usize, usize)> = match kinds[dice.below(kinds.len())] {
                Fault::Pause if !is_busy => {
                    busy_until[node] = self.pause(dice, at, node);
                    continue;
                }
                Fault::Stutter if !is_busy => {
                    busy_until[node] = self.stutter(dice, at, node);
                    continue;
                }
                Fault::Down if !is_busy => {
                    busy_until[node] = self.down(dice, at, node);
                    continue;
                }
                Fault::Replaced if !is_busy && node != 0 => {
                    busy_until[node] = self.replaced(dice, at, node);
                    continue;
                }
                Fault::Pause | Fault::Stutter | Fault::Down | Fault::Replaced => continue,
                Fault::OneWay => vec![(node, other)],
                Fault::Pair => vec![(node, other), (other, node)],
                Fault::Deaf => pairs.into_iter().filter(|(_, to)| *to == node).collect(),
                Fault::Mute => pairs.into_iter().filter(|(from, _)| *from == node).collect(),
                Fault::Alone => pairs.into_iter().filter(|(a, b)| *a == node || *b == node).collect(),
                Fault::Split => {
                    let side: Vec<bool> = everybody.map(|_| dice.one_in(2)).collect();
                    pairs.into_iter().filter(|(a, b)| side[*a] != side[*b]).collect()
                }
                Fault::Scattered => pairs.into_iter().filter(|_| dice.one_in(2)).collect(),
            };
            self.worsen(dice, at, &chosen);
        }
    }

    fn pause(&mut self, dice: &mut Dice, at: Duration, node: usize) -> Duration {
        let length = match dice.below(3) {
            0 => dice.ms(50, 1_000),
            1 => dice.ms(1_000, 3_000),
            _ => dice.ms(3_000, 8_000),
        };
        let until = (at + length).min(self.healed_at);
        self.steps.push((at, Step::Pause(node)));
        self.steps.push((until, Step::Resume(node)));
        until
    }

    /// Stands still for a moment, again and again, as a starved process does.
    fn stutter(&mut self, dice: &mut Dice, at: Duration, node: usize) -> Duration {
        let mut at = at;
        for _ in 0..3 + dice.below(8) {
            let until = (at + dice.ms(50, 1_500)).min(self.healed_at);
            self.steps.push((at, Step::Pause(node)));
            self.steps.push((until, Step::Resume(node)));
            at = until + dice.ms(20, 600);
            if at >= self.healed_at {
                break;
            }
        }
        at
    }

    /// Node 0 is everybody's seed and always comes back: without it two halves might never hear of each other.
    fn down(&mut self, dice: &mut Dice, at: Duration, node: usize) -> Duration {
        let leaves = dice.one_in(3);
        self.steps
            .push((at, if leaves { Step::Leave(node) } else { Step::Crash(node) }));
        if node != 0 && dice.one_in(5) {
            return Duration::MAX;
        }
        let least_ms = if leaves { 1_600 } else { 5 };
        let most_ms = [200 + least_ms, 5_000][dice.below(2)];
        let until = at + dice.ms(least_ms, most_ms);
        let place = place(dice, node);
        self.steps.push((until, Step::Start(node, place)));
        until + Duration::from_millis(200)
    }

    fn replaced(&mut self, dice: &mut Dice, at: Duration, node: usize) -> Duration {
        let replaced_at = at + dice.ms(5, 4_000);
        let woken_at = (replaced_at + dice.ms(5, 6_000)).min(self.healed_at.max(replaced_at));
        self.steps.push((at, Step::Pause(node)));
        self.steps
            .push((replaced_at, Step::Replace(node, Place::Free(dice.below(100)))));
        self.steps.push((woken_at, Step::ResumeFormer(node)));
        woken_at + Duration::from_millis(200)
    }

    fn worsen(&mut self, dice: &mut Dice, at: Duration, pairs: &[(usize, usize)]) {
        let path = match dice.below(4) {
            0 | 1 => Path {
                is_cut: true,
                ..self.calm
            },
            2 => Path {
                loss: 0.1 + 0.6 * dice.share(),
                ..self.calm
            },
            _ => Path {
                delay: dice.ms(50, 400),
                jitter: dice.ms(0, 400),
                doubled: 0.2 * dice.share(),
                ..self.calm
            },
        };
        let until = (at + dice.ms(200, 7_000)).min(self.healed_at);
        for (from, to) in pairs.iter().copied().filter(|(from, to)| from != to) {
            self.steps.push((at, Step::Path { from, to, path }));
            self.steps.push((until, Step::Reset { from, to }));
        }
    }

    /// What nodes do meanwhile, so that views have something to agree about.
    fn draw_work(&mut self, dice: &mut Dice) {
        for _ in 0..2 + dice.below(4 * self.nodes) {
            let at = self.healed_at.mul_f64(dice.share());
            let node = dice.below(self.nodes);
            let group = dice.below(GROUPS.len());
            let step = match dice.below(10) {
                0 | 1 => Step::Fact(node),
                2 => Step::Drain(node),
                3 | 4 => Step::Join(node, group),
                5 => Step::Part(node, group),
                6 | 7 => Step::Ask(node, dice.below(self.nodes)),
                _ => Step::Send(node, dice.below(self.nodes)),
            };
            self.steps.push((at, step));
        }
    }
}

fn place(dice: &mut Dice, node: usize) -> Place {
    // Node 0 stays where everybody looks for it.
    if node != 0 && dice.one_in(3) {
        Place::Free(dice.below(100))
    } else {
        Place::Same
    }
}
