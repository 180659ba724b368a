//! Where a new match goes: of two random ready nodes, the less loaded one.
//!
//! Pure: the caller gives the candidates and the random numbers. Two choices keep nodes nearly as even as knowing all loads
//! exactly would, without herding everyone onto the one node that looked empty a second ago (Mitzenmacher, "The Power of Two
//! Choices in Randomized Load Balancing", 2001).

#![deny(clippy::disallowed_methods)]

use rookery_protocol::NodeLife;

/// A node that may own matches, and how much it owns already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeLife,
    /// Matches owned, as last heard.
    pub load: u64,
}

/// Picks one of the candidates; none only when there are none. `draws` are two uniform random numbers.
pub fn choose(candidates: &[Candidate], draws: (u64, u64)) -> Option<&Candidate> {
    let count = candidates.len() as u64;
    if count == 0 {
        return None;
    }
    let first = draws.0 % count;
    // The second is another one, wherever there is another one.
    let second = if count > 1 {
        (first + 1 + draws.1 % (count - 1)) % count
    } else {
        first
    };
    let (first, second) = (&candidates[first as usize], &candidates[second as usize]);
    Some(if second.load < first.load { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, load: u64) -> Candidate {
        Candidate {
            node: NodeLife {
                name: name.parse().unwrap(),
                generation: 1,
            },
            load,
        }
    }

    #[test]
    fn the_less_loaded_of_two_different_nodes_is_chosen() {
        let candidates = [candidate("a", 5), candidate("b", 0), candidate("c", 9)];
        for draws in 0..9 {
            let chosen = choose(&candidates, (draws / 3, draws)).unwrap();
            assert_ne!(chosen.node.name.as_str(), "c", "c is the most loaded of any pair");
        }
        assert_eq!(choose(&candidates[..1], (7, 3)).unwrap().node.name.as_str(), "a");
        assert!(choose(&[], (0, 0)).is_none());
    }

    #[test]
    fn even_nodes_stay_even() {
        let mut candidates = [
            candidate("a", 0),
            candidate("b", 0),
            candidate("c", 0),
            candidate("d", 0),
        ];
        let mut state = 1u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for _ in 0..1_000 {
            let chosen = choose(&candidates, (draw(), draw())).unwrap().node.clone();
            candidates
                .iter_mut()
                .find(|candidate| candidate.node == chosen)
                .unwrap()
                .load += 1;
        }
        let loads: Vec<u64> = candidates.iter().map(|candidate| candidate.load).collect();
        assert!(
            loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 8,
            "{loads:?}"
        );
    }
}
