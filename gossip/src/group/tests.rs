//! Groups: their places, the bound of what they add to gossip, and the encoding of their names.

use proptest::prelude::*;

use super::*;

const MANY: usize = 1_000;

fn second(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

fn room(keys: usize) -> Room {
    Room { keys, elders: false }
}

fn stated(groups: &Groups) -> Vec<(String, u32)> {
    groups.stated().map(|(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn an_empty_group_is_stated_for_ten_more_seconds() {
    let mut groups = Groups::new(10);
    for _ in 0..2 {
        groups.join(second(0), "room", room(1), MANY).unwrap();
    }
    groups.leave(second(1), "room");
    groups.leave(second(2), "room");
    assert_eq!(groups.members("room"), 0);
    assert!(groups.take_gossip_changed());
    groups.sweep(second(11), room(0));
    assert!(!groups.take_gossip_changed());
    assert_eq!(stated(&groups), [("room".to_owned(), 0)]);
    groups.join(second(11), "room", room(0), MANY).unwrap();
    groups.sweep(second(20), room(0));
    groups.leave(second(20), "room");
    assert_eq!(groups.in_gossip(), 1);
    groups.sweep(second(30), room(0));
    assert_eq!((groups.in_gossip(), groups.in_directory()), (0, 0));
    assert!(groups.take_unsaid().is_empty(), "the directory never heard of it");
}

#[test]
fn the_stated_count_is_coarse() {
    let mut groups = Groups::new(10);
    for _ in 0..99 {
        groups.join(second(0), "room", room(1), MANY).unwrap();
    }
    assert_eq!(stated(&groups), [("room".to_owned(), 10)]);
    groups.take_gossip_changed();
    groups.leave(second(0), "room");
    assert!(!groups.take_gossip_changed(), "nobody hears of one member of 99");
    for _ in 0..2 {
        groups.join(second(0), "room", room(1), MANY).unwrap();
    }
    assert_eq!(stated(&groups), [("room".to_owned(), 100)]);
    assert!(groups.take_gossip_changed());
}

#[test]
fn what_gossip_has_no_room_for_goes_to_the_directory_and_leaves_it_at_once() {
    let mut groups = Groups::new(10);
    groups.join(second(0), "a", room(1), 3).unwrap();
    groups.join(second(0), "b", room(0), 3).unwrap();
    assert!(groups.hint());
    assert_eq!((groups.in_gossip(), groups.in_directory()), (1, 1));
    assert_eq!(groups.take_unsaid(), [("b".to_owned(), Some(1))]);
    assert!(groups.take_unsaid().is_empty());
    // Left and joined before the directory heard of it: it hears of nothing but what is so.
    groups.leave(second(1), "b");
    groups.join(second(1), "b", room(0), 3).unwrap();
    groups.join(second(1), "c", room(0), 3).unwrap();
    groups.leave(second(1), "c");
    assert_eq!(
        groups.join(second(1), "d", room(0), 3),
        Err(TooMany),
        "c is not forgotten yet"
    );
    assert_eq!(
        groups.take_unsaid(),
        [("b".to_owned(), Some(1)), ("c".to_owned(), None)]
    );
    groups.join(second(1), "d", room(0), 3).unwrap();
    groups.leave(second(1), "b");
    groups.leave(second(1), "d");
    assert_eq!(groups.take_unsaid(), [("b".to_owned(), None), ("d".to_owned(), None)]);
    assert_eq!(groups.in_directory(), 0);
    // Not to and fro: the hint stays for a minute.
    groups.sweep(second(2), room(0));
    groups.sweep(second(61), room(0));
    assert!(groups.hint());
    groups.sweep(second(62), room(0));
    assert!(!groups.hint() && groups.take_gossip_changed());
}

#[test]
fn a_group_that_has_settled_moves_into_gossip_and_is_in_both_places_meanwhile() {
    let mut groups = Groups::new(10);
    groups.join(second(0), "room", room(0), MANY).unwrap();
    groups.take_unsaid();
    groups.sweep(second(59), room(5));
    assert_eq!(groups.in_gossip(), 0);
    groups.sweep(second(60), room(5));
    assert_eq!((groups.in_gossip(), groups.in_directory()), (1, 1));
    groups.sweep(second(74), room(5));
    assert!(groups.take_unsaid().is_empty() && groups.in_directory() == 1);
    groups.sweep(second(75), room(5));
    assert_eq!(groups.take_unsaid(), [("room".to_owned(), None)]);
    assert_eq!((groups.in_gossip(), groups.in_directory()), (1, 0));
    assert_eq!(stated(&groups), [("room".to_owned(), 1)]);
}

#[test]
fn while_a_node_of_the_version_before_is_here_gossip_takes_all_that_it_has_room_for() {
    let mut groups = Groups::new(2);
    let elders = Room { keys: 5, elders: true };
    for name in ["a", "b", "c", "d"] {
        groups.join(second(0), name, elders, MANY).unwrap();
    }
    assert_eq!((groups.in_gossip(), groups.hint()), (4, false));
}

/// One thing that happens: who, what, and how much later.
type Happening = (u8, bool, u64);

proptest! {
    /// Whatever comes and goes: every group with members is in gossip or in the directory as that was told, none without is in the
    /// directory, and gossip never carries more keys of groups, deleted ones included, than three times the budget.
    #[test]
    fn every_group_is_said_somewhere_and_what_gossip_carries_is_bounded(
        happenings in prop::collection::vec((0u8..40, any::<bool>(), 0u64..30), 1..600),
    ) {
        const SOFT: usize = 4;
        let mut groups = Groups::new(SOFT);
        let mut now = second(0);
        let mut members: BTreeMap<String, u32> = BTreeMap::new();
        let mut told: BTreeMap<String, u32> = BTreeMap::new();
        // What gossip carries: each key with when it was deleted.
        let mut carried: BTreeMap<String, Option<Time>> = BTreeMap::new();
        let happenings: Vec<Happening> = happenings;
        for (who, joins, later) in happenings {
            now += second(later);
            let name = format!("group {who}");
            let room = |groups: &Groups| room(SOFT.saturating_sub(groups.in_gossip()));
            if joins {
                let room = room(&groups);
                groups.join(now, &name, room, MANY).unwrap();
                *members.entry(name).or_default() += 1;
            } else if let Some(count) = members.get_mut(&name) {
                groups.leave(now, &name);
                *count -= 1;
                if *count == 0 {
                    members.remove(&name);
                }
            }
            let left = room(&groups);
            groups.sweep(now, left);
            for (name, count) in groups.take_unsaid() {
                match count {
                    Some(count) => { told.insert(name, count); }
                    None => { told.remove(&name); }
                }
            }
            let in_gossip: BTreeMap<String, u32> = stated(&groups).into_iter().collect();
            for (name, deleted) in &mut carried {
                if !in_gossip.contains_key(name) {
                    deleted.get_or_insert(now);
                }
            }
            carried.extend(in_gossip.keys().map(|name| (name.clone(), None)));
            carried.retain(|_, deleted| deleted.is_none_or(|deleted| now < deleted + TOMBSTONE_FOR));
            prop_assert!(in_gossip.len() <= SOFT);
            prop_assert!(carried.len() <= 3 * SOFT, "{} keys", carried.len());
            for (name, count) in &members {
                let said = in_gossip.get(name).or(told.get(name));
                prop_assert_eq!(said, Some(&coarse(*count)), "{}", name);
            }
            for name in told.keys() {
                prop_assert!(members.contains_key(name), "{} is left behind", name);
            }
        }
    }

    #[test]
    fn names_survive_encoding(name in ".*") {
        let encoded = encode(&name);
        prop_assert!(encoded.is_ascii());
        prop_assert_eq!(decode(&encoded), Some(name));
    }

    #[test]
    fn what_decodes_is_the_encoding_of_one_name(text in "[ab%0-9A-F/+]{0,8}|.*") {
        if let Some(name) = decode(&text) {
            prop_assert_eq!(encode(&name), text);
        }
    }
}
