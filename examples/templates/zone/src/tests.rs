//! One zone, played natively on the SDK's mock host. The other zones and the store are the test's words.

use super::*;
use mock::Request;

fn square() -> mock::Host<Game> {
    let builder = mock::Host::<Game>::builder().name("world/square");
    builder.params(json!({ "exits": ["mill"] })).start().unwrap()
}

/// Somebody who comes from outside, and whose steps the store knows.
fn visitor(host: &mut mock::Host<Game>, name: &str, steps: u32) -> Seat {
    let seat = host.join(name).unwrap();
    let requests = host.take_requests();
    let [Request::Read { request, owner, .. }] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    assert_eq!(owner.as_deref(), Some(name));
    let entry = Entry {
        key: KEY.to_owned(),
        data: Payload::of_json(&steps),
        version: "1".to_owned(),
    };
    host.answer(*request, Ok(vec![entry]));
    seat
}

#[test]
fn a_zone_knows_its_name_and_shows_who_is_there() {
    let mut host = square();
    host.join("ana").unwrap();
    host.join("ben").unwrap();
    let place = json!({ "zone": "square", "exits": ["mill"], "people": ["ana", "ben"] });
    assert_eq!(host.published_json("place"), Some(place));
}

#[test]
fn what_is_said_is_heard_by_all_and_cut_to_a_length() {
    let mut host = square();
    let (ana, ben) = (visitor(&mut host, "ana", 0), visitor(&mut host, "ben", 0));
    host.message(ana, json!({ "say": "hello" }));
    assert_eq!(
        host.heard_json(ben).last(),
        Some(&json!({ "said": "hello", "by": "ana" }))
    );
    host.message(ana, json!({ "say": "a".repeat(1_000) }));
    let said = host.heard_json(ben).pop().unwrap();
    assert_eq!(said["said"].as_str().unwrap().len(), TEXT_CHARS_MAX);
}

#[test]
fn a_walk_hands_the_person_over_with_what_they_carry() {
    let mut host = square();
    let ana = visitor(&mut host, "ana", 41);
    host.message(ana, json!({ "go": "mill" }));
    let requests = host.take_requests();
    let [Request::Transfer { seat, target, ctx, .. }] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    assert_eq!(
        (*seat, target.as_str(), &**ctx),
        (ana, "world/mill", &br#"{"steps":42}"#[..])
    );
    assert!(host.seats().is_empty(), "they have left");
}

#[test]
fn who_could_not_be_taken_in_comes_back_with_everything() {
    let mut host = square();
    let ana = visitor(&mut host, "ana", 41);
    host.message(ana, json!({ "go": "mill" }));
    let back = host.turn_back("ana", "01MOCKMATCH", json!({ "steps": 42 }));
    assert_eq!(host.heard_json(back), [json!({ "steps": 42 })]);
}

#[test]
fn a_client_cannot_bring_luggage() {
    let mut host = square();
    let eve = host
        .join_as("eve", Role::Player, json!({ "steps": 1_000_000 }))
        .unwrap();
    assert_eq!(host.game().people[&eve].steps, None);
    let dan = host.transfer("dan", "mill", json!({ "steps": 7 })).unwrap();
    assert_eq!(host.game().people[&dan].steps, Some(7));
}

#[test]
fn who_goes_home_is_remembered_unless_the_store_could_not_say() {
    let mut host = square();
    let ana = visitor(&mut host, "ana", 5);
    host.leave(ana, LeaveReason::TimedOut);
    let requests = host.take_requests();
    assert!(
        matches!(&requests[..], [Request::Write { owner: Some(owner), value: Some(value), .. }]
            if owner == "ana" && **value == *b"5"),
        "{requests:?}"
    );
    let ben = host.join("ben").unwrap();
    let requests = host.take_requests();
    let [Request::Read { request, .. }] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    host.answer(*request, Err(Failure::Unavailable));
    host.leave(ben, LeaveReason::Left);
    assert_eq!(host.take_requests(), []);
}

#[test]
fn where_no_way_leads_nobody_goes() {
    let mut host = square();
    let ana = visitor(&mut host, "ana", 0);
    host.message(ana, json!({ "go": "moon" }));
    assert_eq!(
        host.heard_json(ana).last(),
        Some(&json!({ "error": "no way leads to moon" }))
    );
    assert_eq!(host.seats().len(), 1);
}

#[test]
fn a_zone_that_was_saved_goes_on() {
    let mut host = square();
    let ana = visitor(&mut host, "ana", 3);
    host.save_and_load().unwrap();
    host.message(ana, json!({ "go": "mill" }));
    assert_eq!(host.take_requests().len(), 1);
}
