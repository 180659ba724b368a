//! Played natively on the SDK's mock host: a second of the match is 20 calls, and no waiting.

use super::*;

/// A match in which each player stands where the test says.
fn standing(places: &[(f64, f64)]) -> (mock::Host<Game>, Vec<Seat>) {
    let mut host = mock::Host::<Game>::start(json!(null)).unwrap();
    let mut seats = Vec::new();
    for (number, (x, y)) in places.iter().enumerate() {
        host.script_units([x / f64::from(SIDE), y / f64::from(SIDE)]);
        seats.push(host.join(&format!("player {number}")).unwrap());
    }
    (host, seats)
}

fn steer(host: &mut mock::Host<Game>, seat: Seat, x: f32, y: f32) {
    host.message(seat, Payload::of_msgpack(&Input::Steer { x, y }));
}

fn place_of(host: &mock::Host<Game>, seat: Seat) -> (f32, f32) {
    let field = host.published_msgpack::<Field>("field").unwrap();
    let (_, x, y) = *field.movers.iter().find(|(mover, _, _)| *mover == seat).unwrap();
    (x, y)
}

#[test]
fn a_mover_goes_where_it_is_steered_and_stays_on_the_field() {
    let (mut host, seats) = standing(&[(10.0, 10.0)]);
    steer(&mut host, seats[0], 1.0, 0.0);
    host.advance(1_000);
    let (x, y) = place_of(&host, seats[0]);
    assert!((x - 30.0).abs() < 0.01 && (y - 10.0).abs() < 0.01, "{x} {y}");
    steer(&mut host, seats[0], -50.0, 0.0);
    host.advance(10_000);
    assert_eq!(
        place_of(&host, seats[0]).0,
        0.0,
        "no faster than others, and not beyond the edge"
    );
}

#[test]
fn whoever_is_it_tags_by_touching_and_then_there_is_a_rest() {
    let (mut host, seats) = standing(&[(10.0, 10.0), (20.0, 10.0)]);
    steer(&mut host, seats[0], 1.0, 0.0);
    host.advance(400);
    let tagged = Tagged {
        by: seats[0],
        seat: seats[1],
    };
    assert_eq!(host.heard_msgpack::<Tagged>(seats[1]), [tagged]);
    assert_eq!(host.game().it, Some(seats[1]));
    assert_eq!(host.game().movers[&seats[0]].tags, 1);
    host.advance(500);
    assert_eq!(host.heard(seats[1]).len(), 1, "nobody is tagged back at once");
}

#[test]
fn a_tick_in_which_nothing_happens_says_nothing() {
    let (mut host, _) = standing(&[(10.0, 10.0), (90.0, 90.0)]);
    let before = host.publishes();
    host.advance(1_000);
    assert_eq!(host.publishes(), before);
}

#[test]
fn what_clients_make_up_does_no_harm() {
    let (mut host, seats) = standing(&[(10.0, 10.0)]);
    steer(&mut host, seats[0], f32::NAN, 1.0);
    steer(&mut host, seats[0], f32::INFINITY, 1.0);
    host.message(seats[0], *b"not MessagePack");
    host.message(seats[0], Payload::default());
    host.advance(100);
    assert_eq!(host.game().movers[&seats[0]].heading, (0.0, 0.0));
}

#[test]
fn when_it_leaves_somebody_else_is_it() {
    let (mut host, seats) = standing(&[(10.0, 10.0), (90.0, 90.0)]);
    host.leave(seats[0], LeaveReason::TimedOut);
    assert_eq!(host.game().it, Some(seats[1]));
    host.leave(seats[1], LeaveReason::Left);
    assert_eq!(host.game().it, None);
}

#[test]
fn a_saved_match_goes_on_where_it_was() {
    let (mut host, seats) = standing(&[(10.0, 10.0)]);
    steer(&mut host, seats[0], 0.0, 1.0);
    host.advance(100);
    let before = host.game().movers.clone();
    host.save_and_load().unwrap();
    assert_eq!(host.game().movers, before);
}
