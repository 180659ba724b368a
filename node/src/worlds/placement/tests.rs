//! Placement on its own, and two leaders at once over one table of zones.

use proptest::prelude::*;

use super::*;

fn name(no: usize) -> NodeName {
    format!("node-{no}").parse().unwrap()
}

fn target(no: u64) -> MatchId {
    MatchId::from_parts(no, 1)
}

/// The store: one live row for each name, and what was done to it.
#[derive(Debug, Default, Clone)]
struct Table {
    rows: BTreeMap<String, (Placed, u64)>,
    next: u64,
    placed: u64,
    moved: u64,
}

impl Table {
    /// Inserts the row unless there is one.
    fn place(&mut self, zone: &str, on: &NodeLife) -> Result<(), String> {
        if self.rows.contains_key(zone) {
            // As the node answers it: somebody else was first, and that is as good.
            return Ok(());
        }
        self.next += 1;
        self.placed += 1;
        let row = Placed {
            target: target(self.next),
            owner: on.clone(),
            is_running: true,
        };
        self.rows.insert(zone.to_owned(), (row, 1));
        Ok(())
    }

    /// The owner moves it, if it is the owner.
    fn relocate(&mut self, zone: &str, target: MatchId, from: &NodeLife, to: &NodeLife) -> Result<(), String> {
        match self.rows.get_mut(zone) {
            Some((row, epoch)) if row.target == target && row.owner == *from => {
                row.owner = to.clone();
                *epoch += 1;
                self.moved += 1;
                Ok(())
            }
            Some(_) | None => Err("not here".into()),
        }
    }

    fn rows(&self) -> BTreeMap<String, Placed> {
        self.rows
            .iter()
            .map(|(zone, (row, _))| (zone.clone(), row.clone()))
            .collect()
    }

    fn counts(&self, nodes: usize) -> Vec<usize> {
        (0..nodes)
            .map(|no| self.rows.values().filter(|(row, _)| row.owner.name == name(no)).count())
            .collect()
    }
}

fn wishes(count: usize) -> BTreeMap<String, Wish> {
    (0..count)
        .map(|no| (format!("world/zone-{no:02}"), Wish { why_not: None }))
        .collect()
}

fn hosts(count: usize) -> BTreeMap<NodeName, Host> {
    let host = Host {
        generation: 1,
        takes_zones: true,
        load: 0,
    };
    (0..count).map(|no| (name(no), host.clone())).collect()
}

/// Looks every second, and does at once what is ordered, for so long. Returns the most moves that were under way at once.
fn run(placement: &mut Placement, table: &mut Table, situation: &Situation, now_ms: &mut u64, seconds: u64) -> usize {
    let mut moves_max = 0;
    for _ in 0..seconds {
        let mut out = Vec::new();
        let look = Situation {
            rows: table.rows(),
            ..situation.clone()
        };
        placement.step(*now_ms, Input::Look(look), &mut out);
        moves_max = moves_max.max(placement.moving().count());
        for order in out {
            let input = match order {
                Order::Place { zone, on } => {
                    let outcome = table.place(&zone, &on);
                    Input::Placed { zone, outcome }
                }
                Order::Move {
                    zone, target, from, to, ..
                } => {
                    let outcome = table.relocate(&zone, target, &from, &to);
                    Input::Moved { zone, outcome }
                }
            };
            placement.step(*now_ms, input, &mut Vec::new());
        }
        *now_ms += 1_000;
    }
    moves_max
}

#[test]
fn missing_zones_go_to_the_nodes_with_the_fewest() {
    let (mut placement, mut table, mut now_ms) = (Placement::default(), Table::default(), 0);
    let situation = Situation {
        zones: wishes(30),
        nodes: hosts(3),
        ..Situation::default()
    };
    run(&mut placement, &mut table, &situation, &mut now_ms, 3);
    assert_eq!(table.counts(3), [10, 10, 10]);
    assert_eq!((table.placed, table.moved), (30, 0));
}

#[test]
fn a_node_that_joins_gets_its_share_a_few_zones_at_a_time_and_not_at_once() {
    let (mut placement, mut table, mut now_ms) = (Placement::default(), Table::default(), 0);
    let mut situation = Situation {
        zones: wishes(30),
        nodes: hosts(3),
        ..Situation::default()
    };
    run(&mut placement, &mut table, &situation, &mut now_ms, 5);
    situation.nodes = hosts(4);
    run(&mut placement, &mut table, &situation, &mut now_ms, 3);
    assert_eq!(table.moved, 0, "another node may be on its way");
    let moves_max = run(&mut placement, &mut table, &situation, &mut now_ms, 10);
    assert_eq!(moves_max, MOVED_AT_ONCE);
    let counts = table.counts(4);
    assert!(counts.iter().all(|count| (7..=8).contains(count)), "{counts:?}");
    assert_eq!(table.moved, 7, "no zone moves twice, and none in vain");
}

#[test]
fn a_draining_node_gives_all_its_zones_away_and_gets_none() {
    let (mut placement, mut table, mut now_ms) = (Placement::default(), Table::default(), 0);
    let mut situation = Situation {
        zones: wishes(9),
        nodes: hosts(3),
        ..Situation::default()
    };
    run(&mut placement, &mut table, &situation, &mut now_ms, 5);
    situation.nodes.get_mut(&name(1)).unwrap().takes_zones = false;
    let moves_max = run(&mut placement, &mut table, &situation, &mut now_ms, 5);
    assert_eq!((table.counts(3), table.moved), (vec![5, 0, 4], 3));
    assert_eq!(moves_max, MOVED_AT_ONCE);

    // The last node that drains keeps them: there is nowhere to go.
    situation.nodes.values_mut().for_each(|host| host.takes_zones = false);
    run(&mut placement, &mut table, &situation, &mut now_ms, 5);
    assert_eq!(table.moved, 3);
}

#[test]
fn what_runs_on_a_dead_node_is_neither_missing_nor_moved() {
    let (mut placement, mut table, mut now_ms) = (Placement::default(), Table::default(), 0);
    let mut situation = Situation {
        zones: wishes(8),
        nodes: hosts(2),
        ..Situation::default()
    };
    run(&mut placement, &mut table, &situation, &mut now_ms, 3);
    situation.nodes.remove(&name(1));
    run(&mut placement, &mut table, &situation, &mut now_ms, 30);
    assert_eq!((table.placed, table.moved, table.counts(2)), (8, 0, vec![4, 4]));

    // The same name in another life does not own them either.
    situation.nodes = hosts(2);
    situation.nodes.get_mut(&name(1)).unwrap().generation = 2;
    situation.nodes.get_mut(&name(1)).unwrap().takes_zones = false;
    run(&mut placement, &mut table, &situation, &mut now_ms, 30);
    assert_eq!(table.moved, 0);
}

#[test]
fn a_zone_without_a_module_waits_and_holds_nobody_up() {
    let (mut placement, mut table, mut now_ms) = (Placement::default(), Table::default(), 0);
    let mut zones = wishes(4);
    zones.get_mut("world/zone-01").unwrap().why_not = Some("no module v is published".into());
    let mut situation = Situation {
        zones,
        nodes: hosts(1),
        ..Situation::default()
    };
    run(&mut placement, &mut table, &situation, &mut now_ms, 3);
    assert_eq!(table.placed, 3);
    situation.nodes = hosts(2);
    run(&mut placement, &mut table, &situation, &mut now_ms, 8);
    assert_eq!(table.moved, 1);
    situation.zones = wishes(4);
    run(&mut placement, &mut table, &situation, &mut now_ms, 1);
    assert_eq!(table.placed, 4, "it comes by itself when it can");
}

#[test]
fn a_zone_that_does_not_start_is_tried_ever_less_often() {
    let mut placement = Placement::default();
    let look = Situation {
        zones: wishes(1),
        nodes: hosts(1),
        ..Situation::default()
    };
    let mut tries = Vec::new();
    for now_ms in (0..400_000).step_by(500) {
        let mut out = Vec::new();
        placement.step(now_ms, Input::Look(look.clone()), &mut out);
        for order in out {
            let Order::Place { zone, .. } = order else {
                panic!("{order:?}")
            };
            tries.push(now_ms);
            let outcome = Err("start refused".to_owned());
            placement.step(now_ms, Input::Placed { zone, outcome }, &mut Vec::new());
        }
    }
    let waits: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let doubled = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000];
    assert_eq!(waits[..8], doubled);
    assert_eq!(
        placement.trouble().collect::<Vec<_>>(),
        [("world/zone-00", "start refused")]
    );
}

#[test]
fn a_zone_that_ends_again_and_again_is_tried_ever_less_often_and_then_in_order() {
    let (mut placement, mut table, mut now_ms) = (Placement::default(), Table::default(), 0);
    let situation = Situation {
        zones: wishes(1),
        nodes: hosts(1),
        ..Situation::default()
    };
    for _ in 0..60 {
        run(&mut placement, &mut table, &situation, &mut now_ms, 1);
        table.rows.clear();
    }
    assert!((4..=7).contains(&table.placed), "{} times in a minute", table.placed);
    assert!(placement.trouble().next().is_some());
    run(&mut placement, &mut table, &situation, &mut now_ms, 150);
    assert!(placement.trouble().next().is_none(), "it has run for a minute");

    // After that a zone that is ended by hand is back at the next look.
    let placed = table.placed;
    table.rows.clear();
    run(&mut placement, &mut table, &situation, &mut now_ms, 1);
    assert_eq!(table.placed, placed + 1);
}

#[test]
fn a_zone_that_cannot_move_does_not_keep_others_from_moving() {
    let (mut placement, mut table, mut now_ms) = (Placement::default(), Table::default(), 0);
    let mut situation = Situation {
        zones: wishes(6),
        nodes: hosts(1),
        ..Situation::default()
    };
    run(&mut placement, &mut table, &situation, &mut now_ms, 2);
    situation.nodes = hosts(2);
    for _ in 0..20 {
        let mut out = Vec::new();
        let look = Situation {
            rows: table.rows(),
            ..situation.clone()
        };
        placement.step(now_ms, Input::Look(look), &mut out);
        for order in out {
            let Order::Move {
                zone, target, from, to, ..
            } = order
            else {
                panic!("{order:?}")
            };
            let outcome = match zone.as_str() {
                "world/zone-00" | "world/zone-01" => Err("these rules do not carry their state".to_owned()),
                _ => table.relocate(&zone, target, &from, &to),
            };
            placement.step(now_ms, Input::Moved { zone, outcome }, &mut Vec::new());
        }
        now_ms += 1_000;
    }
    assert_eq!(table.counts(2), [3, 3]);
}

/// What happens in the world of two leaders: each sees the table late, and its orders arrive late.
#[derive(Debug, Clone)]
enum Happening {
    /// A leader looks, at the table as it was `late` steps ago; what it orders arrives after these delays.
    Look {
        leader: usize,
        late: usize,
        delay: u64,
    },
    /// A zone ends (or an operator ends it).
    End {
        zone: usize,
    },
    Drain {
        node: usize,
        takes_zones: bool,
    },
    /// A leader stands still: what it ordered is on its way, and it starts again from nothing.
    Depose {
        leader: usize,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..2usize, 0..4usize, 0..12u64).prop_map(|(leader, late, delay)| Happening::Look { leader, late, delay }),
        1 => (0..8usize).prop_map(|zone| Happening::End { zone }),
        1 => (0..4usize, any::<bool>()).prop_map(|(node, takes_zones)| Happening::Drain { node, takes_zones }),
        1 => (0..2usize).prop_map(|leader| Happening::Depose { leader }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn two_leaders_at_once_do_nothing_twice(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut leaders = [Placement::default(), Placement::default()];
        let mut past = vec![Table::default()];
        let mut situation = Situation { zones: wishes(8), nodes: hosts(4), ..Situation::default() };
        let mut post: Vec<(u64, usize, Order)> = Vec::new();
        let mut ended = 0;
        for (step, happening) in happenings.into_iter().enumerate() {
            let now_ms = step as u64 * 500;
            let mut table = past.last().unwrap().clone();
            match happening {
                Happening::Look { leader, late, delay } => {
                    let seen = &past[past.len().saturating_sub(1 + late)];
                    let look = Situation { rows: seen.rows(), ..situation.clone() };
                    let mut out = Vec::new();
                    leaders[leader].step(now_ms, Input::Look(look), &mut out);
                    prop_assert!(leaders[leader].moving().count() <= MOVED_AT_ONCE);
                    post.extend(out.into_iter().map(|order| (step as u64 + delay, leader, order)));
                }
                Happening::End { zone } => ended += u64::from(table.rows.remove(&format!("world/zone-{zone:02}")).is_some()),
                Happening::Drain { node, takes_zones } => {
                    situation.nodes.get_mut(&name(node)).unwrap().takes_zones = takes_zones;
                }
                Happening::Depose { leader } => leaders[leader].step(now_ms, Input::Deposed, &mut Vec::new()),
            }
            let (due, waiting) = post.into_iter().partition(|(at, _, _)| *at <= step as u64);
            post = waiting;
            for (_, leader, order) in due {
                let before = (table.placed, table.moved, table.rows.len());
                let input = match order {
                    Order::Place { zone, on } => {
                        let outcome = table.place(&zone, &on);
                        Input::Placed { zone, outcome }
                    }
                    Order::Move { zone, target, from, to, .. } => {
                        let epoch = table.rows.get(&zone).map(|(_, epoch)| *epoch);
                        let outcome = table.relocate(&zone, target, &from, &to);
                        if outcome.is_ok() {
                            prop_assert_eq!(table.rows[&zone].1, epoch.unwrap() + 1);
                        }
                        Input::Moved { zone, outcome }
                    }
                };
                prop_assert!(table.placed + table.moved - before.0 - before.1 <= 1);
                leaders[leader].step(now_ms, input, &mut Vec::new());
            }
            // Each vacancy was filled once: whatever two leaders ordered.
            prop_assert_eq!(table.placed, table.rows.len() as u64 + ended);
            past.push(table);
        }
        // Healed, with one leader: all zones are there, nobody has two more than another, and then nothing moves any more.
        let mut table = past.pop().unwrap();
        situation.nodes = hosts(4);
        let mut now_ms = 1_000_000;
        leaders[1].step(now_ms, Input::Deposed, &mut Vec::new());
        run(&mut leaders[1], &mut table, &situation, &mut now_ms, 60);
        prop_assert_eq!(table.counts(4), [2, 2, 2, 2]);
        let moved = table.moved;
        run(&mut leaders[1], &mut table, &situation, &mut now_ms, 60);
        prop_assert_eq!(table.moved, moved);
    }
}
