//! What nodes say to each other about matches, players and chat. Of each kind: what was read is written, and read again as the same;
//! and written again with the same bytes.

use std::fmt::Debug;

use rookery_fuzz::target::{DECODED_WITHIN, Memory};
use rookery_fuzz::{Shape, Target};
use rookery_protocol::peer::{
    self, ChatWord, ContentNews, Down, Handover, MailWord, PeerAnswer, PeerRequest, PlayersNews, PresenceFact, Up,
    Whereabouts,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::MESSAGE_LEN_MAX;

const MATCH: &str = "01hf7yat000000000000000007";
const PLAYER: &str = "01hf7yat010000000000000008";
const SESSION: &str = "01hf7yat020000000000000009";

pub(super) const fn target(
    name: &'static str,
    about: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8]),
) -> Target {
    Target {
        name,
        about,
        shape: Shape::MsgPack,
        len_max: MESSAGE_LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds,
        run,
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) -> bool {
    let Ok(message) = peer::decode::<T>(input) else {
        return false;
    };
    let written = peer::encode(&message);
    let again: T = peer::decode(&written).expect("it was just written");
    assert_eq!(again, message);
    assert_eq!(peer::encode(&again), written);
    true
}

/// Messages from JSON, as an honest peer writes them.
fn written<T: Serialize + DeserializeOwned>(values: Vec<Value>) -> Vec<Vec<u8>> {
    let write = |value: Value| {
        let message: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error} in {value}"));
        peer::encode(&message).to_vec()
    };
    values.into_iter().map(write).collect()
}

pub(super) fn up(input: &[u8]) {
    round_trip::<Up>(input);
}

pub(super) fn up_seeds() -> Vec<Vec<u8>> {
    let bodies = [
        json!({"Join": {"req": 1, "player": PLAYER, "name": "ana", "role": "player", "ctx": {"Json": [123, 125]},
            "attachment": attachment(), "is_following": true}}),
        json!({"Join": {"req": 1, "player": PLAYER, "name": "", "role": "spectator", "ctx": "Absent", "attachment": attachment()}}),
        json!({"Leave": {"req": 2, "seat": 1, "attachment": 5}}),
        json!({"Input": {"seat": 1, "a": 5, "n": 7, "id": -1, "d": [1, 2, 3]}}),
        json!({"Detach": {"req": 2, "seat": 1, "attachment": 5}}),
        json!({"Here": {"seats": [[1, 5], [2, 6]], "players": [[PLAYER, SESSION]]}}),
        json!({"Resume": {"last": 9}}),
        json!({"Confirm": {"last": u64::MAX}}),
    ];
    written::<Up>(bodies.map(|body| json!({"m": MATCH, "s": 3, "b": body})).into())
}

pub(super) fn down(input: &[u8]) {
    round_trip::<Down>(input);
}

pub(super) fn down_seeds() -> Vec<Vec<u8>> {
    let output =
        |body: Value, audience: Value| json!({"o": {"seq": 4, "at_ms": 9, "audience": audience, "body": body}});
    let players = json!([{"seat": 1, "player": PLAYER, "name": "ana", "role": "player"}]);
    let value = json!({"key": "k", "seq": 3, "at_ms": 8, "data": [1]});
    let joined = json!({"Joined": {"seat": 1, "attachment": attachment(), "role": "player", "n": 2, "players": players,
        "values": [value], "missed": [{"seq": 1, "at_ms": 1, "audience": "Everyone", "body": {"Data": {"data": [1]}}}]}});
    let items = [
        output(json!({"Data": {"data": [1, 2]}}), json!("Everyone")),
        output(
            json!({"Published": {"key": "k", "data": null}}),
            json!({"Some": [1, 2]}),
        ),
        output(
            json!({"Players": {"joined": players, "left": [{"seat": 2, "reason": "left"}], "away": [3], "back": []}}),
            json!({"Except": 1}),
        ),
        output(json!({"Kicked": {"reason": "restored"}}), json!({"One": 1})),
        output(json!("Transferring"), json!("Players")),
        output(joined, json!("Spectators")),
        json!({"a": {"seat": 1, "n": 2, "seq": 3}}),
        json!({"Applied": {"seat": 1, "id": 2}}),
        json!({"Failed": {"seat": 1, "n": 0, "id": 2, "reason": "trap"}}),
        json!({"Resend": {"seat": 1, "n": 2}}),
        json!({"Refused": {"req": 1, "refusal": refusal()}}),
        json!({"Left": {"req": 1, "seat": 2}}),
        json!({"Replaced": {"seat": 1, "attachment": 2}}),
        json!({"Gone": {"seat": 1, "attachment": 2}}),
        json!({"Moved": {"req": 1, "to": MATCH, "owner": life(), "epoch": 3}}),
        json!({"Reset": {"seat": 1, "seq": 2, "n": 3, "values": [value]}}),
        json!({"Over": {"Ended": {"result": [1]}}}),
        json!({"Over": {"Failed": {"reason": "diverged"}}}),
        json!({"Over": "Lost"}),
    ];
    let frame = |items: &[Value]| {
        json!({"Frame": {"m": MATCH, "s": 1, "e": 2, "p": 3, "l": 4,
            "h": {"module": "arena", "codec": "json", "tick_hz": 20}, "i": items}})
    };
    let mut messages: Vec<Value> = items.iter().map(|item| frame(std::slice::from_ref(item))).collect();
    messages.push(frame(&items));
    messages.push(json!({"NotHere": {"target": MATCH, "stream": 1, "epoch": 0}}));
    messages.push(json!({"Here": {"target": MATCH, "epoch": 1, "incarnation": 2}}));
    messages.push(json!({"Arrived": {"target": MATCH, "epoch": 1, "from": MATCH, "session": SESSION}}));
    written::<Down>(messages)
}

pub(super) fn request(input: &[u8]) {
    round_trip::<PeerRequest>(input);
}

pub(super) fn request_seeds() -> Vec<Vec<u8>> {
    let digest = "ab".repeat(32);
    written::<PeerRequest>(vec![
        json!({"Start": {"target": MATCH}}),
        json!({"List": {"module": "duel", "label": [["mode", "ffa"]], "after": MATCH, "limit": 50, "quick": digest}}),
        json!("Summary"),
        json!({"View": {"target": MATCH}}),
        json!({"Views": {"after": null, "limit": 5, "module": "duel"}}),
        json!({"End": {"target": MATCH}}),
        json!({"Move": {"target": MATCH, "to": "n2", "cause": "Drain"}}),
        json!({"Prepare": {"digest": digest}}),
        json!({"Take": {"target": MATCH, "epoch": 2, "piece": 0, "pieces": 1, "bytes": [1, 2, 3]}}),
        json!({"Kick": {"target": MATCH, "player": PLAYER, "reason": "spam"}}),
        json!({"Drain": {"deadline_ms": 25_000}}),
        json!({"Lines": {"channel": "dm:a:b", "lines": [line()]}}),
        json!({"Zones": {"targets": [MATCH], "player": PLAYER}}),
        json!({"Standing": {"target": MATCH, "player": PLAYER}}),
        json!({"WhereIs": {"target": MATCH}}),
        json!({"WhoIs": {"name": "village/square"}}),
        json!("Compiled"),
        json!({"Record": {"target": MATCH}}),
        json!({"RecordPiece": {"ticket": 1, "piece": 0}}),
    ])
}

pub(super) fn answer(input: &[u8]) {
    round_trip::<PeerAnswer>(input);
}

pub(super) fn answer_seeds() -> Vec<Vec<u8>> {
    let digest = "ab".repeat(32);
    let view = json!({"match": MATCH, "module": "duel", "digest": digest, "name": "x", "owner": "n1", "backup": null,
        "epoch": 3, "status": "running", "players": 2, "durability": "memory", "state_hash": "00", "outcome": null});
    written::<PeerAnswer>(vec![
        json!("Done"),
        json!({"Refused": refusal()}),
        json!("NotHere"),
        json!({"Listed": [{"match": MATCH, "module": "duel", "players": 1, "max_players": 2, "label": {"a": "b"},
            "joinable": true, "node": "n1"}]}),
        json!({"Summary": {"sessions": 1, "matches": 2, "players": 3, "players_counted": 4, "version": "1.0", "why": "draining"}}),
        json!({"View": view}),
        json!({"Views": [view, view]}),
        json!({"Zones": {"zones": [{"target": MATCH, "players": 3, "seated": true}], "moving": ["village/square"],
            "trouble": [["village/mill", "no module"]]}}),
        json!({"Whereabouts": whereabouts()}),
        json!({"Standing": {"Went": MATCH}}),
        json!({"Standing": "OnTheWay"}),
        json!({"Compiled": [digest, digest]}),
        json!({"Recorded": {"ticket": 1, "bytes": 300}}),
        json!({"Piece": [1, 2]}),
    ])
}

pub(super) fn handover(input: &[u8]) {
    round_trip::<Handover>(input);
}

pub(super) fn handover_seeds() -> Vec<Vec<u8>> {
    let seat = json!({"seat": 1, "role": "player", "req": 2, "since": 3, "left_at": 4, "left_n": 5});
    let stream = json!({"gateway": life(), "number": 1, "confirmed": 2, "seats": [seat]});
    written::<Handover>(vec![
        json!({"target": MATCH, "epoch": 1, "saved_by": "1.0.0", "state": [], "part": [1, 129], "streams": []}),
        json!({"target": MATCH, "epoch": 1, "saved_by": "", "state": [1], "part": [1], "streams": [stream], "cause": "Rebalance"}),
    ])
}

pub(super) fn mail(input: &[u8]) {
    round_trip::<MailWord>(input);
}

pub(super) fn mail_seeds() -> Vec<Vec<u8>> {
    let traveller = json!({"player": PLAYER, "name": "ana", "role": "player", "team": 1, "attachment": attachment(),
        "is_away": true, "ctx": [1]});
    let letter = |body: Value| json!({"Letter": {"f": MATCH, "t": MATCH, "n": 5, "a": 4, "h": 3, "b": body}});
    written::<MailWord>(vec![
        letter(json!({"Tell": {"data": [1, 2]}})),
        letter(json!({"Player": traveller})),
        json!({"Receipt": {"f": MATCH, "t": MATCH, "l": 5, "r": [4], "o": true, "e": 2}}),
        json!({"NotHere": {"target": MATCH, "sender": MATCH, "number": 5}}),
    ])
}

pub(super) fn chat(input: &[u8]) {
    round_trip::<ChatWord>(input);
}

pub(super) fn chat_seeds() -> Vec<Vec<u8>> {
    written::<ChatWord>(vec![
        json!({"Interest": {"s": 3, "n": true, "m": false, "a": ["room:a"], "d": ["room:b"]}}),
        json!({"Heard": {"s": 3}}),
        json!({"Lines": {"c": "room:a", "l": [line()]}}),
        json!({"Members": {"c": "room:a", "n": true, "j": [PLAYER], "l": [PLAYER]}}),
        json!("Check"),
    ])
}

pub(super) fn news(input: &[u8]) {
    // Small maps without a tag: where they come from says which it is.
    round_trip::<ContentNews>(input);
    round_trip::<PlayersNews>(input);
    round_trip::<PresenceFact>(input);
    round_trip::<Whereabouts>(input);
}

pub(super) fn news_seeds() -> Vec<Vec<u8>> {
    let mut seeds = written::<ContentNews>(vec![json!({"version": 7})]);
    seeds.extend(written::<PlayersNews>(vec![json!({"players": [PLAYER, PLAYER]})]));
    seeds.extend(written::<PresenceFact>(vec![
        json!({"s": "away", "t": 1, "m": MATCH, "j": 2}),
        json!({}),
    ]));
    seeds.extend(written::<Whereabouts>(vec![whereabouts()]));
    seeds
}

fn attachment() -> Value {
    json!({"number": 5, "session": SESSION, "node": "n1", "generation": 7})
}

fn life() -> Value {
    json!({"name": "n1", "generation": 7})
}

fn refusal() -> Value {
    json!({"code": "match.full", "message": "no room", "details": {"retry_ms": 5, "list": [1, null, "x"]}})
}

fn line() -> Value {
    json!({"n": 7, "f": PLAYER, "t": "hi", "a": 9})
}

fn whereabouts() -> Value {
    json!({"target": MATCH, "owner": life(), "epoch": 2, "incarnation": 3})
}
