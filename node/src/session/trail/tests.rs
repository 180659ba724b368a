use rookery_protocol::MatchId;
use rookery_protocol::peer::Standing::{OnTheWay, Seated, Unknown, Went};

use super::Word::{Nobody, Over, Silence, Standing};
use super::{Found, HOPS_MAX, Next, Trail, Word};

fn stop(index: usize) -> MatchId {
    MatchId::from_u128(index as u128)
}

/// Follows from stop 0 as far as the words go: which stops were asked, and what is said then.
fn follow(words: &[Word]) -> (Vec<usize>, Found) {
    let mut trail = Trail::new(stop(0));
    let mut asked = Vec::new();
    for (index, word) in words.iter().enumerate() {
        asked.push(trail.at().to_u128() as usize);
        if let Next::Found(found) = trail.heard(*word) {
            assert_eq!(index + 1, words.len(), "it is found before {words:?} are all said");
            return (asked, found);
        }
    }
    (asked, trail.out_of_time())
}

#[test]
fn a_place_is_told_only_when_its_owner_says_that_the_player_sits_there() {
    let went = |to| Standing(Went(stop(to)));
    let elsewhere = |at| Found::Elsewhere(stop(at));
    for (words, asked, found) in [
        (vec![Standing(Seated)], vec![0], Found::There),
        (vec![went(1), Standing(Seated)], vec![0, 1], elsewhere(1)),
        (vec![went(1), went(2), Standing(Seated)], vec![0, 1, 2], elsewhere(2)),
        // Whoever was said to have it has it no longer: it is sought until it is found, and the trail goes on from there.
        (
            vec![went(1), Silence, Silence, went(2), Standing(Seated)],
            vec![0, 1, 1, 1, 2],
            elsewhere(2),
        ),
        (vec![Silence, went(1), Standing(Seated)], vec![0, 0, 1], elsewhere(1)),
        (
            vec![
                Standing(OnTheWay),
                went(1),
                Standing(OnTheWay),
                went(2),
                Standing(Seated),
            ],
            vec![0, 0, 1, 1, 2],
            elsewhere(2),
        ),
        // They came back while they were sought.
        (vec![went(1), went(0), Standing(Seated)], vec![0, 1, 0], Found::There),
        // Without an answer of the last one there is no place to tell.
        (vec![went(1)], vec![0], Found::OnTheWay),
        (vec![went(1), Silence], vec![0, 1], Found::OnTheWay),
        (vec![went(1), Nobody], vec![0, 1], Found::OnTheWay),
        (vec![went(1), went(0), Silence], vec![0, 1, 0], Found::OnTheWay),
        (vec![Standing(OnTheWay)], vec![0], Found::OnTheWay),
        (vec![Standing(OnTheWay), Silence], vec![0, 0], Found::OnTheWay),
        (vec![Standing(OnTheWay), Nobody], vec![0, 0], Found::OnTheWay),
        // Nothing speaks against joining again.
        (vec![], vec![], Found::There),
        (vec![Silence, Silence], vec![0, 0], Found::There),
        (vec![Nobody], vec![0], Found::There),
        (vec![Over], vec![0], Found::There),
        (vec![Standing(Unknown)], vec![0], Found::There),
        (vec![went(1), Over], vec![0, 1], Found::There),
        (vec![went(1), went(2), Standing(Unknown)], vec![0, 1, 2], Found::There),
    ] {
        assert_eq!(follow(&words), (asked, found), "{words:?}");
    }
}

#[test]
fn a_circle_is_left_in_the_end() {
    let mut trail = Trail::new(stop(0));
    for hop in 0..HOPS_MAX {
        assert_eq!(trail.heard(Standing(Went(stop(1 - hop % 2)))), Next::Ask);
    }
    assert_eq!(trail.heard(Standing(Went(stop(1)))), Next::Found(Found::There));
}
