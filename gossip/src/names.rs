//! Names: the newest life of each node that was seen here, and how long it counts. Pure.
//!
//! The rule: a newer life ends every older one for as long as it is here, and for 15 minutes after. It is not for ever, and no generation
//! is refused for lying in the future: of two clocks that differ nobody can say which one is wrong, and a node that was started once
//! with a wrong one would have lost its name. A node whose generations come from a store that outlives it (as ours do) exceeds its own
//! wrong one at the next start anyway; one that has lost its store has its name back after the 15 minutes. So has the rightful owner of
//! a name that somebody with the cluster's secret claimed under the highest generation there is: the secret does not say who is who,
//! an operator's certificates do.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::peer::{Life, NodeId};
use crate::suspicion::Time;

/// As long as gossip remembers the dead.
pub(crate) const FREE_AFTER: Duration = Duration::from_secs(15 * 60);

/// How many names of nodes that are gone are remembered; the one that has been gone for longest is forgotten first.
const GONE_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Names {
    newest: BTreeMap<NodeId, Newest>,
}

#[derive(Debug)]
struct Newest {
    generation: u64,
    /// None while it is here.
    gone_at: Option<Time>,
}

impl Names {
    /// The life is here.
    pub(crate) fn here(&mut self, life: &Life) {
        let newest = self.newest.entry(life.node.clone()).or_insert(Newest {
            generation: life.generation,
            gone_at: None,
        });
        if life.generation >= newest.generation {
            *newest = Newest {
                generation: life.generation,
                gone_at: None,
            };
        }
    }

    /// The life is here no more: it died, left, or was never let in after all.
    pub(crate) fn gone(&mut self, now: Time, life: &Life) {
        if let Some(newest) = self.newest.get_mut(&life.node)
            && newest.generation == life.generation
        {
            newest.gone_at.get_or_insert(now);
        }
        if self.newest.len() > GONE_MAX {
            self.forget(now);
        }
    }

    /// An operator has counted the life as dead: its name is free.
    pub(crate) fn free(&mut self, life: &Life) {
        let is_gone = |newest: &&Newest| newest.generation == life.generation && newest.gone_at.is_some();
        if self.newest.get(&life.node).filter(is_gone).is_some() {
            self.newest.remove(&life.node);
        }
    }

    /// Whether this life is over because a newer one counts.
    pub(crate) fn is_over(&self, now: Time, life: &Life) -> bool {
        self.newest
            .get(&life.node)
            .is_some_and(|newest| newest.generation > life.generation && newest.counts(now))
    }

    /// Whether there is or was a node of this name.
    pub(crate) fn knows(&self, node: &NodeId) -> bool {
        self.newest.contains_key(node)
    }

    fn forget(&mut self, now: Time) {
        self.newest.retain(|_, newest| newest.counts(now));
        let gone = self
            .newest
            .iter()
            .filter_map(|(node, newest)| Some((newest.gone_at?, node)));
        let (count, oldest) = gone.fold((0, None), |(count, oldest), next| {
            (
                count + 1,
                Some(oldest.map_or(next, |oldest: (Time, &NodeId)| oldest.min(next))),
            )
        });
        if let Some(oldest) = oldest.filter(|_| count > GONE_MAX).map(|(_, node)| node.clone()) {
            self.newest.remove(&oldest);
        }
    }
}

impl Newest {
    fn counts(&self, now: Time) -> bool {
        self.gone_at.is_none_or(|at| now < at + FREE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(node: &str, generation: u64) -> Life {
        Life {
            node: node.parse().unwrap(),
            generation,
        }
    }

    const START: Time = Duration::from_secs(1_000);

    #[test]
    fn a_wrong_clock_at_one_start_does_not_doom_a_name() {
        let mut names = Names::default();
        let far = life("n1", u64::MAX);
        names.here(&far);
        let right = life("n1", 1_795_261_356_000);
        // As long as it is here, and for a while after.
        assert!(names.is_over(START + 10 * FREE_AFTER, &right));
        names.gone(START, &far);
        assert!(names.is_over(START + FREE_AFTER - Duration::from_millis(1), &right));
        assert!(!names.is_over(START + FREE_AFTER, &right));
        names.here(&right);
        assert!(
            names.is_over(START, &life("n1", right.generation - 1)),
            "the rule goes on from there"
        )
    }

    #[test]
    fn a_newer_life_ends_the_older_one_and_the_end_of_that_changes_nothing() {
        let mut names = Names::default();
        names.here(&life("n1", 5));
        names.here(&life("n1", 7));
        names.here(&life("n1", 6));
        assert!(names.is_over(START, &life("n1", 6)) && !names.is_over(START, &life("n1", 7)));
        names.gone(START, &life("n1", 5));
        names.gone(START, &life("n1", 7));
        // It is back, and its earlier farewell does not count.
        names.here(&life("n1", 7));
        assert!(names.is_over(START + 2 * FREE_AFTER, &life("n1", 6)));
    }

    #[test]
    fn an_operator_frees_the_name_of_a_life_that_is_gone_and_no_other() {
        let mut names = Names::default();
        names.here(&life("n1", 9));
        names.free(&life("n1", 9));
        assert!(names.is_over(START, &life("n1", 8)), "it is here");
        names.gone(START, &life("n1", 9));
        names.free(&life("n1", 7));
        assert!(names.is_over(START, &life("n1", 8)));
        names.free(&life("n1", 9));
        assert!(!names.is_over(START, &life("n1", 8)));
    }

    #[test]
    fn names_of_those_who_are_gone_do_not_pile_up() {
        let mut names = Names::default();
        names.here(&life("stays", 1));
        for n in 0..GONE_MAX + 100 {
            let life = life(&format!("n{n}"), 1);
            names.here(&life);
            names.gone(START + Duration::from_millis(n as u64), &life);
        }
        assert_eq!(names.newest.len(), GONE_MAX + 1);
        assert!(names.knows(&"stays".parse().unwrap()) && !names.knows(&"n0".parse().unwrap()));
        let late = life("late", 1);
        names.here(&late);
        names.gone(START + 2 * FREE_AFTER, &late);
        assert_eq!(names.newest.len(), 2);
    }
}
