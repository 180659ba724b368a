//! The rule for two connections between the same two nodes. Pure. Both ends apply it to what they see and come to the same
//! connection: the one begun by the node with the lower name, unless a dial shows that the other end has lost that one.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use crate::peer::{Life, NodeId};

/// How old a connection must be before a further dial by the peer proves that the peer has lost it. A dial that was under way when
/// the connection came up is over after the dial timeout (2 s), and half a second is left for the two ends' clocks of it.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_millis(2_500);

/// Which end began a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// We dialled.
    ByUs,
    /// The peer dialled.
    ByThem,
}

/// The connection that is in use.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    pub(crate) generation: u64,
    pub(crate) begun: Begun,
    pub(crate) age: Duration,
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It is used; the present one, if any, is closed.
    Use,
    /// It is a duplicate and is closed.
    Duplicate,
    /// It belongs to a life that is over.
    Superseded,
}

/// Decides about a new connection to `peer`.
pub(crate) fn rule(local: &NodeId, peer: &Life, present: Option<&Present>, begun: Begun) -> Ruling {
    let Some(present) = present else {
        return Ruling::Use;
    };
    if peer.generation != present.generation {
        return if peer.generation > present.generation {
            Ruling::Use
        } else {
            Ruling::Superseded
        };
    }
    let preferred = if *local < peer.node { Begun::ByUs } else { Begun::ByThem };
    if begun == present.begun || begun == preferred {
        // The same end dials again only when it has lost the first one.
        return Ruling::Use;
    }
    match begun {
        Begun::ByThem if present.age >= SETTLED_AFTER => Ruling::Use,
        Begun::ByThem | Begun::ByUs => Ruling::Duplicate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(local: &str, peer: &str, present: Option<(u64, Begun, u64)>, new: (u64, Begun), expected: Ruling) {
        let present = present.map(|(generation, begun, age_ms)| Present {
            generation,
            begun,
            age: Duration::from_millis(age_ms),
        });
        let life = Life {
            node: peer.parse().unwrap(),
            generation: new.0,
        };
        let ruling = rule(&local.parse().unwrap(), &life, present.as_ref(), new.1);
        assert_eq!(ruling, expected, "{local} -> {peer}: {present:?}, new {new:?}");
    }

    #[test]
    fn the_lower_node_s_connection_wins_and_a_higher_generation_always() {
        use Begun::{ByThem, ByUs};
        check("a", "b", None, (1, ByThem), Ruling::Use);
        check("a", "b", Some((1, ByUs, 0)), (1, ByThem), Ruling::Duplicate);
        check("b", "a", Some((1, ByThem, 0)), (1, ByUs), Ruling::Duplicate);
        check("b", "a", Some((1, ByUs, 0)), (1, ByThem), Ruling::Use);
        check("a", "b", Some((1, ByThem, 0)), (1, ByUs), Ruling::Use);
        check("a", "b", Some((1, ByUs, 0)), (2, ByThem), Ruling::Use);
        check("a", "b", Some((2, ByThem, 9_000)), (1, ByUs), Ruling::Superseded);
    }

    #[test]
    fn a_late_dial_means_that_the_peer_has_lost_the_connection() {
        check(
            "a",
            "b",
            Some((1, Begun::ByUs, 2_499)),
            (1, Begun::ByThem),
            Ruling::Duplicate,
        );
        check("a", "b", Some((1, Begun::ByUs, 2_500)), (1, Begun::ByThem), Ruling::Use);
        check("a", "b", Some((1, Begun::ByThem, 0)), (1, Begun::ByThem), Ruling::Use);
    }

    #[test]
    fn both_ends_keep_the_same_one_of_two_crossing_dials() {
        // Each end sees the two connections in one of two orders; whatever the orders, both must end with the one begun by "a".
        for first_at_a in [Begun::ByUs, Begun::ByThem] {
            for first_at_b in [Begun::ByUs, Begun::ByThem] {
                let kept = |local: &str, peer: &str, first: Begun| {
                    let second = if first == Begun::ByUs {
                        Begun::ByThem
                    } else {
                        Begun::ByUs
                    };
                    let life = Life {
                        node: peer.parse().unwrap(),
                        generation: 1,
                    };
                    let present = Present {
                        generation: 1,
                        begun: first,
                        age: Duration::ZERO,
                    };
                    match rule(&local.parse().unwrap(), &life, Some(&present), second) {
                        Ruling::Use => second,
                        Ruling::Duplicate | Ruling::Superseded => first,
                    }
                };
                assert_eq!(kept("a", "b", first_at_a), Begun::ByUs);
                assert_eq!(kept("b", "a", first_at_b), Begun::ByThem);
            }
        }
    }
}
