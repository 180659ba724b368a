//! Single runs that were written by hand: each is one thing that a seed found first.

use std::time::Duration;

use crate::plan::{Place, Plan, Step};
use crate::world::{Outcome, World};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn run(nodes: usize, steps: &[(Duration, Step)]) -> Outcome {
    World::new(Plan::by_hand(nodes, steps)).run()
}

#[test]
fn a_node_at_the_address_of_a_dead_one_is_not_dialled_in_its_place() {
    // Node 2 dies, and node 1 starts again where it was, or where node 2 was.
    let datagrams = |place| {
        let steps = [
            (ms(3_000), Step::Crash(2)),
            (ms(3_100), Step::Crash(1)),
            (ms(3_200), Step::Start(1, place)),
            (ms(20_000), Step::Fact(0)),
        ];
        run(3, &steps).datagrams
    };
    let (same, others) = (datagrams(Place::Same), datagrams(Place::Free(1)));
    // The dead are looked for each second; each dial was a handshake of ten datagrams, and one more connection that was replaced.
    assert!(
        others < same * 5 / 4,
        "{others} datagrams, {same} when nobody is where the dead one was"
    );
}
