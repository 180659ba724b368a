//! Every transition is legal, none is told twice, and the fold of all of them is what is shown.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::peer::{Life, NodeId};

/// One member of a view: which node, which generation, and which of [`STATES`].
pub(crate) type Shown = (usize, u64, usize);

/// States with whether the life has departed.
const STATES: [(MemberState, bool); 7] = [
    (MemberState::Joining, false),
    (MemberState::Ready, false),
    (MemberState::Draining, false),
    (MemberState::Suspect, false),
    (MemberState::Leaving, false),
    (MemberState::Leaving, true),
    (MemberState::Dead, true),
];

/// Any view of up to four nodes; views follow each other without reason, as they do to whoever sees only some of them.
pub(crate) fn random_view() -> impl Strategy<Value = Vec<Shown>> {
    prop::collection::vec((0..4usize, 1..4u64, 0..STATES.len()), 0..5)
}

pub(crate) fn members(view: &[Shown]) -> Members {
    let mut by_node = BTreeMap::new();
    for (index, generation, state) in view {
        let node: NodeId = format!("n{index}").parse().unwrap();
        let (state, departed) = STATES[*state];
        let member = Member {
            peer: Peer {
                node: node.clone(),
                generation: *generation,
                addr: format!("10.0.0.{state}:1"),
            },
            state,
            facts: Arc::new(BTreeMap::from([("load".to_owned(), (generation % 2).to_string())])),
            departed,
            mesh_version: 1 + u32::from(state != MemberState::Joining),
            rtt: None,
        };
        by_node.insert(node, member);
    }
    Members { by_node }
}

/// The machine of the file's header.
#[derive(Default)]
pub(crate) struct Steps(BTreeMap<NodeId, (Life, bool, Option<MemberState>)>);

impl Steps {
    pub(crate) fn check(&mut self, change: &Change) -> Result<(), TestCaseError> {
        let (life, node) = (change.peer.life(), change.peer.node.clone());
        let before = self.0.get(&node).cloned();
        if let (Some((before, ..)), false) = (&before, matches!(change.kind, ChangeKind::Arrived { .. })) {
            prop_assert_eq!(before, &life, "{:?}", change);
        }
        let after = match (&change.kind, before) {
            (ChangeKind::Arrived { state, .. }, None) => Some((life, true, Some(*state))),
            (ChangeKind::Arrived { state, .. }, Some((before, false, _))) => {
                prop_assert_eq!(before, life.clone(), "the earlier life was not forgotten");
                Some((life, true, Some(*state)))
            }
            (ChangeKind::Remembered { state, .. }, None) => Some((life, false, Some(*state))),
            (ChangeKind::Facts { .. }, Some(before)) => Some(before),
            (ChangeKind::State { from, to }, Some((_, present, state))) => {
                prop_assert_eq!(Some(*from), state);
                prop_assert_ne!(from, to);
                Some((life, present, Some(*to)))
            }
            (ChangeKind::Departed { why }, Some((_, true, _))) => match why {
                Departure::Died => Some((life, false, Some(MemberState::Dead))),
                Departure::Left => Some((life, false, Some(MemberState::Leaving))),
                Departure::Superseded | Departure::Missed => None,
            },
            (ChangeKind::Forgotten, Some((_, false, _))) => None,
            (kind, before) => {
                return Err(TestCaseError::fail(format!("{kind:?} after {before:?}")));
            }
        };
        match after {
            Some(after) => self.0.insert(node, after),
            None => self.0.remove(&node),
        };
        Ok(())
    }
}

fn kinds(before: &[Shown], after: &[Shown]) -> Vec<(u64, ChangeKind)> {
    between(&members(before), &members(after))
        .into_iter()
        .map(|change| (change.peer.generation, change.kind))
        .collect()
}

#[test]
fn a_newer_life_arrives_after_the_older_one_has_departed() {
    let facts = |load: &str| Arc::new(BTreeMap::from([("load".to_owned(), load.to_owned())]));
    let arrived = |state, load| ChangeKind::Arrived {
        state,
        facts: facts(load),
        mesh_version: 1 + u32::from(state != MemberState::Joining),
    };
    let superseded = ChangeKind::Departed {
        why: Departure::Superseded,
    };
    assert_eq!(
        kinds(&[(0, 1, 1)], &[(0, 2, 0)]),
        [(1, superseded), (2, arrived(MemberState::Joining, "0"))]
    );
    // One that had died already does not depart twice.
    assert_eq!(
        kinds(&[(0, 1, 6)], &[(0, 2, 0)]),
        [(1, ChangeKind::Forgotten), (2, arrived(MemberState::Joining, "0"))]
    );
    // The same life again was only out of reach.
    assert_eq!(
        kinds(&[(0, 1, 6)], &[(0, 1, 1)]),
        [(1, arrived(MemberState::Ready, "1"))]
    );
}

#[test]
fn a_departure_says_why() {
    let why = |before: &[Shown], after: &[Shown]| {
        let found = kinds(before, after).into_iter().find_map(|(_, kind)| match kind {
            ChangeKind::Departed { why } => Some(why),
            _ => None,
        });
        found.unwrap()
    };
    assert_eq!(why(&[(0, 1, 3)], &[(0, 1, 6)]), Departure::Died);
    assert_eq!(why(&[(0, 1, 4)], &[(0, 1, 5)]), Departure::Left);
    assert_eq!(why(&[(0, 1, 1)], &[(0, 2, 1)]), Departure::Superseded);
    assert_eq!(why(&[(0, 1, 1)], &[]), Departure::Missed);
}

proptest! {
    #[test]
    fn the_fold_is_what_is_shown(views in prop::collection::vec(random_view(), 1..30)) {
        let mut folded = Members::default();
        let mut steps = Steps::default();
        let mut before = Members::default();
        for view in &views {
            let after = members(view);
            for change in between(&before, &after) {
                steps.check(&change)?;
                folded.apply(&change);
            }
            prop_assert_eq!(&folded, &after);
            prop_assert_eq!(between(&after, &after), []);
            before = after;
        }
    }
}
