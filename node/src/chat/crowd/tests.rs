use proptest::prelude::*;

use super::*;

fn player(no: u8) -> PlayerId {
    PlayerId::from_u128(u128::from(no))
}

fn node(no: u8) -> NodeName {
    format!("node-{no}").parse().unwrap()
}

#[test]
fn who_comes_and_goes_at_once_is_not_mentioned() {
    let mut crowd = Crowd::default();
    crowd.enter(player(1));
    crowd.enter(player(2));
    crowd.leave(player(2));
    let only_one = Change {
        joined: vec![player(1)],
        left: Vec::new(),
    };
    assert_eq!(crowd.tell(), only_one);
    assert_eq!(crowd.tell_there(), only_one);
    crowd.enter(player(1));
    crowd.leave(player(1));
    assert!(crowd.tell().is_empty() && crowd.tell_there().is_empty());
}

#[test]
fn a_player_is_in_while_any_node_says_so() {
    let mut crowd = Crowd::default();
    crowd.anew(&node(1), [player(1), player(2)]);
    crowd.enter(player(1));
    crowd.tell();
    crowd.forget(&node(1));
    assert_eq!(crowd.tell().left, [player(2)]);
    assert_eq!(crowd.everyone(), [player(1)]);
}

#[test]
fn a_large_crowd_is_listed_up_to_a_bound_and_not_told_of_each() {
    let mut crowd = Crowd::default();
    crowd.anew(&node(1), (0..1_500).map(PlayerId::from_u128));
    assert!(crowd.tell().is_empty());
    assert_eq!(crowd.everyone().len(), LISTED_MAX);
    crowd.enter(PlayerId::from_u128(2_000));
    assert!(crowd.tell().is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u8),
    Leave(u8),
    Anew(u8, Vec<u8>),
    Changed(u8, Vec<u8>, Vec<u8>),
    Forget(u8),
    Tell,
}

fn step() -> impl Strategy<Value = Step> {
    let players = || prop::collection::vec(0..6_u8, 0..4);
    prop_oneof![
        (0..6_u8).prop_map(Step::Enter),
        (0..6_u8).prop_map(Step::Leave),
        (0..3_u8, players()).prop_map(|(node, players)| Step::Anew(node, players)),
        (0..3_u8, players(), players()).prop_map(|(node, joined, left)| Step::Changed(node, joined, left)),
        (0..3_u8).prop_map(Step::Forget),
        Just(Step::Tell),
    ]
}

proptest! {
    #[test]
    fn what_is_told_adds_up_to_who_is_there(steps in prop::collection::vec(step(), 0..60)) {
        let ids = |players: &[u8]| players.iter().copied().map(player).collect::<Vec<_>>();
        let mut crowd = Crowd::default();
        let (mut known, mut known_there) = (BTreeSet::new(), BTreeSet::new());
        for step in steps.into_iter().chain([Step::Tell]) {
            match step {
                Step::Enter(no) => crowd.enter(player(no)),
                Step::Leave(no) => crowd.leave(player(no)),
                Step::Anew(no, players) => crowd.anew(&node(no), ids(&players)),
                Step::Changed(no, joined, left) => {
                    crowd.changed(&node(no), Change { joined: ids(&joined), left: ids(&left) });
                }
                Step::Forget(no) => crowd.forget(&node(no)),
                Step::Tell => {
                    for (change, known) in [(crowd.tell(), &mut known), (crowd.tell_there(), &mut known_there)] {
                        for player in change.joined {
                            prop_assert!(known.insert(player), "told twice of {player}");
                        }
                        for player in change.left {
                            prop_assert!(known.remove(&player), "told of {player}, who was not in");
                        }
                    }
                    prop_assert_eq!(&crowd.everyone(), &known.iter().copied().collect::<Vec<_>>());
                    prop_assert_eq!(&crowd.here(), &known_there.iter().copied().collect::<Vec<_>>());
                }
            }
        }
    }
}
