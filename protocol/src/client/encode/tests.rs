use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::client::{
    ChannelMessage, ChatLine, LeaveReason, MatchedPlayer, PartyState, PlayerPresence, PresenceMessage, QueueMessage,
    Role, StorageMessage, StoredValue, TicketState, Tree, WorldMessage, WorldState, ZoneState,
};
use crate::error::ErrorCode;
use crate::{PartyId, PlayerId, SessionId, TicketId};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MsgPack];

fn json_data(text: &'static str) -> PayloadOut {
    PayloadOut {
        codec: PayloadCodec::Json,
        bytes: Bytes::from_static(text.as_bytes()),
    }
}

fn binary_data(bytes: &'static [u8]) -> PayloadOut {
    PayloadOut {
        codec: PayloadCodec::Binary,
        bytes: Bytes::from_static(bytes),
    }
}

/// Every message at least once, and every optional field with and without.
fn messages() -> Vec<(&'static str, Option<i64>, ServerMessage)> {
    let target = MatchId::from_parts(1_700_000_000_000, 7);
    let ana = PlayerInfo {
        seat: 1,
        player: PlayerId::from_parts(1_700_000_000_001, 8).to_string(),
        name: "Ana \"Ã\"".into(),
        role: Role::Player,
    };
    let bot = PlayerInfo {
        seat: 300,
        player: "bot:300".into(),
        name: "Hob".into(),
        role: Role::Bot,
    };
    let refusal = Refusal::new(ErrorCode::MatchRefused, "the module refused")
        .with("reason", "no\nroom")
        .with("numbers", json!([0, -1, 1.5, 4_294_967_296_u64, null, true]));
    vec![
        ("error", Some(7), ServerMessage::Error(refusal)),
        (
            "error_push",
            None,
            ServerMessage::Error(Refusal::new(ErrorCode::BadMessage, "what?")),
        ),
        (
            "session_opened",
            Some(1),
            ServerMessage::SessionOpened {
                session: SessionId::from_parts(1_700_000_000_002, 9),
                player: PlayerId::from_parts(1_700_000_000_001, 8),
                node: "n1".into(),
                nodes: vec!["ws://127.0.0.1:7700/v1/ws".into(), "ws://127.0.0.1:7710/v1/ws".into()],
                resume_token: "abc.def".into(),
                resumed: true,
                matches: vec![ResumedMatch {
                    target,
                    seat: 1,
                    seq: 1 << 40,
                    n: 5,
                    codec: PayloadCodec::Binary,
                }],
                gone: vec![
                    GoneMatch {
                        target: "duel-1".into(),
                        why: "ended".into(),
                        result: Some(json_data(r#"{"won":1}"#)),
                        to: None,
                    },
                    GoneMatch {
                        target: "duel-2".into(),
                        why: "lost".into(),
                        result: None,
                        to: None,
                    },
                    GoneMatch {
                        target: "duel-3".into(),
                        why: "moved".into(),
                        result: None,
                        to: Some(target),
                    },
                ],
                grace_ms: 30_000,
                heartbeat_ms: 15_000,
            },
        ),
        (
            "session_pong",
            Some(2),
            ServerMessage::SessionPong {
                t: Some(12.0),
                now: 1_700_000_000_000,
            },
        ),
        (
            "session_pong_fraction",
            None,
            ServerMessage::SessionPong {
                t: Some(0.5),
                now: 1_700_000_000_000,
            },
        ),
        (
            "session_pong_bare",
            Some(-2),
            ServerMessage::SessionPong { t: None, now: 0 },
        ),
        ("session_closed", Some(3), ServerMessage::SessionClosed),
        (
            "session_going_away",
            None,
            ServerMessage::SessionGoingAway {
                reason: "draining".into(),
                within_ms: 9_000,
                nodes: vec![],
            },
        ),
        ("session_replaced", None, ServerMessage::SessionReplaced),
        ("match_created", Some(4), ServerMessage::MatchCreated { target }),
        (
            "match_listed",
            Some(5),
            ServerMessage::MatchListed {
                matches: vec![ListedMatch {
                    target,
                    module: "arena".into(),
                    players: 3,
                    max_players: 16,
                    label: vec![("mode".into(), "ffa".into()), ("região".into(), "sul\"".into())],
                    joinable: true,
                    node: "n1".into(),
                }],
                cursor: Some("c2".into()),
            },
        ),
        (
            "match_listed_none",
            Some(6),
            ServerMessage::MatchListed {
                matches: vec![],
                cursor: None,
            },
        ),
        (
            "match_joined",
            Some(8),
            ServerMessage::MatchJoined(MatchJoined {
                target,
                module: "arena".into(),
                seat: 1,
                seq: 70_000,
                n: 255,
                at: 65_535,
                players: vec![ana.clone(), bot],
                codec: PayloadCodec::Json,
                tick_hz: 20,
            }),
        ),
        ("match_left", Some(9), ServerMessage::MatchLeft { target }),
        (
            "match_applied",
            Some(10),
            ServerMessage::MatchApplied {
                target,
                n: Some(1),
                data: Some(json_data("[1,2]")),
            },
        ),
        (
            "match_applied_bare",
            Some(11),
            ServerMessage::MatchApplied {
                target,
                n: None,
                data: None,
            },
        ),
        (
            "match_data_json",
            None,
            ServerMessage::MatchData {
                target,
                seq: 1,
                at: 50,
                data: Some(json_data(r#"{"x":"é"}"#)),
                key: None,
                removed: false,
            },
        ),
        (
            "match_data_binary",
            None,
            ServerMessage::MatchData {
                target,
                seq: 128,
                at: 256,
                data: Some(binary_data(b"\x00\xff~")),
                key: None,
                removed: false,
            },
        ),
        (
            "match_data_key",
            None,
            ServerMessage::MatchData {
                target,
                seq: 65_536,
                at: 4_294_967_296,
                data: Some(binary_data(b"")),
                key: Some("p/1".into()),
                removed: false,
            },
        ),
        (
            "match_data_removed",
            None,
            ServerMessage::MatchData {
                target,
                seq: 2,
                at: 3,
                data: None,
                key: Some("p/\"1\"".into()),
                removed: true,
            },
        ),
        (
            "match_players",
            None,
            ServerMessage::MatchPlayers {
                target,
                seq: 9,
                joined: vec![ana],
                left: vec![Departure {
                    seat: 2,
                    reason: LeaveReason::TimedOut,
                }],
                away: vec![3],
                back: vec![4, 5],
            },
        ),
        (
            "match_kicked",
            None,
            ServerMessage::MatchKicked {
                target,
                seq: 10,
                reason: "cheating".into(),
            },
        ),
        ("match_resend", None, ServerMessage::MatchResend { target, n: 4 }),
        (
            "match_waiting",
            None,
            ServerMessage::MatchWaiting {
                target,
                why: "owner".into(),
            },
        ),
        ("match_ack", None, ServerMessage::MatchAck { target, n: 4, seq: 11 }),
        (
            "match_reset",
            None,
            ServerMessage::MatchReset {
                target,
                seq: (1 << 53) - 1,
                n: 12,
            },
        ),
        (
            "match_ended",
            None,
            ServerMessage::MatchEnded {
                target,
                result: json_data(r#"{"winner":1}"#),
            },
        ),
        (
            "match_ended_empty",
            None,
            ServerMessage::MatchEnded {
                target,
                result: json_data(""),
            },
        ),
        ("match_lost", None, ServerMessage::MatchLost { target }),
        (
            "match_failed",
            None,
            ServerMessage::MatchFailed {
                target,
                reason: "trap".into(),
            },
        ),
    ]
    .into_iter()
    .chain(service_messages())
    .collect()
}

/// What the cluster's services say.
fn service_messages() -> Vec<(&'static str, Option<i64>, ServerMessage)> {
    let target = MatchId::from_parts(1_700_000_000_000, 7);
    let (ana, bo) = (PlayerId::from_parts(1_700_000_000_001, 8), PlayerId::from_u128(9));
    let ticket = TicketId::from_u128(5);
    let line = |message| ChatLine {
        message,
        from: ana.to_string().into(),
        text: "hey \"you\"".into(),
        at: 1_700_000_000_003,
    };
    let value = |data| StoredValue {
        key: "k".into(),
        value: data,
        version: "v1".into(),
    };
    vec![
        (
            "match_moved",
            None,
            ServerMessage::MatchMoved {
                from: MatchId::from_u128(4),
                joined: MatchJoined {
                    target,
                    module: "village".into(),
                    seat: 3,
                    seq: 9,
                    n: 0,
                    at: 5,
                    players: vec![],
                    codec: PayloadCodec::Json,
                    tick_hz: 2,
                },
            },
        ),
        (
            "queue_joined",
            Some(1),
            ServerMessage::Queue(QueueMessage::Joined { ticket }),
        ),
        (
            "queue_left",
            Some(1),
            ServerMessage::Queue(QueueMessage::Left { ticket }),
        ),
        (
            "queue_state",
            Some(1),
            ServerMessage::Queue(QueueMessage::State {
                ticket,
                queue: "duel".into(),
                state: TicketState::Waiting,
                waited_ms: 1_500,
                estimate_ms: Some(3_000),
            }),
        ),
        (
            "queue_state_matched",
            Some(1),
            ServerMessage::Queue(QueueMessage::State {
                ticket,
                queue: "duel".into(),
                state: TicketState::Matched,
                waited_ms: 1,
                estimate_ms: None,
            }),
        ),
        (
            "queue_matched",
            None,
            ServerMessage::Queue(QueueMessage::Matched {
                ticket,
                target,
                team: 1,
                players: vec![
                    MatchedPlayer {
                        player: ana,
                        name: "Ana".into(),
                        team: 0,
                    },
                    MatchedPlayer {
                        player: bo,
                        name: "Bo".into(),
                        team: 1,
                    },
                ],
            }),
        ),
        (
            "queue_expired",
            None,
            ServerMessage::Queue(QueueMessage::Expired { ticket }),
        ),
        (
            "party_state",
            Some(2),
            ServerMessage::Party(PartyState {
                party: PartyId::from_u128(6),
                code: "AB12".into(),
                leader: ana,
                members: vec![ana, bo],
            }),
        ),
        (
            "channel_joined",
            Some(3),
            ServerMessage::Channel(ChannelMessage::Joined {
                channel: "room:x".into(),
                last: 7,
                members: vec![ana.to_string()],
                truncated: false,
            }),
        ),
        (
            "channel_joined_truncated",
            Some(3),
            ServerMessage::Channel(ChannelMessage::Joined {
                channel: "room:x".into(),
                last: 7_000,
                members: vec![],
                truncated: true,
            }),
        ),
        (
            "channel_sent",
            Some(3),
            ServerMessage::Channel(ChannelMessage::Sent {
                channel: "room:x".into(),
                message: 8,
                at: 1_700_000_000_003,
            }),
        ),
        (
            "channel_messages",
            Some(3),
            ServerMessage::Channel(ChannelMessage::History {
                channel: "room:x".into(),
                messages: vec![line(7), line(8)],
            }),
        ),
        (
            "channel_left",
            Some(3),
            ServerMessage::Channel(ChannelMessage::Left {
                channel: "room:x".into(),
            }),
        ),
        (
            "channel_message",
            None,
            ServerMessage::Channel(ChannelMessage::Line {
                channel: "room:x".into(),
                line: line(8),
            }),
        ),
        (
            "channel_members",
            None,
            ServerMessage::Channel(ChannelMessage::Members {
                channel: "room:x".into(),
                joined: vec![ana.to_string()],
                left: vec![bo.to_string()],
            }),
        ),
        (
            "presence_state",
            Some(4),
            ServerMessage::Presence(PresenceMessage::State {
                players: vec![
                    PlayerPresence {
                        player: ana,
                        online: true,
                        status: Some("busy".into()),
                        target: Some(target),
                    },
                    PlayerPresence {
                        player: bo,
                        online: false,
                        status: None,
                        target: None,
                    },
                ],
            }),
        ),
        (
            "presence_changed",
            None,
            ServerMessage::Presence(PresenceMessage::Changed {
                player: ana,
                online: true,
                status: None,
            }),
        ),
        (
            "storage_value",
            Some(5),
            ServerMessage::Storage(StorageMessage::Value {
                collection: "c".into(),
                entry: value(json_data(r#"{"a":1}"#)),
            }),
        ),
        (
            "storage_value_binary",
            Some(5),
            ServerMessage::Storage(StorageMessage::Value {
                collection: "c".into(),
                entry: value(binary_data(&[0, 255])),
            }),
        ),
        (
            "storage_stored",
            Some(5),
            ServerMessage::Storage(StorageMessage::Stored { version: "v2".into() }),
        ),
        (
            "storage_deleted",
            Some(5),
            ServerMessage::Storage(StorageMessage::Deleted),
        ),
        (
            "storage_listed",
            Some(5),
            ServerMessage::Storage(StorageMessage::Listed {
                collection: "c".into(),
                values: vec![value(json_data("1"))],
                cursor: Some("k".into()),
            }),
        ),
        (
            "world_listed",
            Some(6),
            ServerMessage::World(WorldMessage::Listed {
                worlds: vec![
                    WorldState {
                        world: "village".into(),
                        online: true,
                        why: None,
                        zones: vec![ZoneState {
                            zone: "square".into(),
                            target: Some(target),
                            state: "running".into(),
                            players: 3,
                            neighbours: Vec::new(),
                        }],
                    },
                    WorldState {
                        world: "moor".into(),
                        online: false,
                        why: Some("module moor is not published".into()),
                        zones: vec![ZoneState {
                            zone: "bog".into(),
                            target: None,
                            state: "missing".into(),
                            players: 0,
                            neighbours: Vec::new(),
                        }],
                    },
                ],
            }),
        ),
        (
            "world_listed_neighbours",
            Some(6),
            ServerMessage::World(WorldMessage::Listed {
                worlds: vec![WorldState {
                    world: "village".into(),
                    online: true,
                    why: None,
                    zones: vec![ZoneState {
                        zone: "square".into(),
                        target: Some(target),
                        state: "running".into(),
                        players: 3,
                        neighbours: vec!["mill".into(), "well".into()],
                    }],
                }],
            }),
        ),
    ]
}

/// What stands in the golden file for this message: the text, or the bytes in hex.
fn shown(encoding: Encoding, frame: &[u8]) -> String {
    match encoding {
        Encoding::Json => String::from_utf8(frame.to_vec()).expect("JSON is text"),
        Encoding::MsgPack => frame.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[test]
fn every_message_has_the_bytes_that_clients_were_promised() {
    for (encoding, file) in BOTH.into_iter().zip(["messages.json.txt", "messages.msgpack.txt"]) {
        let written: String = messages()
            .iter()
            .map(|(name, id, message)| format!("{name} {}\n", shown(encoding, &message.encode(*id, encoding))))
            .collect();
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(file);
        if std::env::var_os("ROOKERY_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        for (golden, written) in golden.lines().zip(written.lines()) {
            assert_eq!(
                golden, written,
                "in {file}; if this is meant, run with ROOKERY_WRITE_GOLDEN=1 and read the difference"
            );
        }
        assert_eq!(golden.lines().count(), written.lines().count());
    }
}

/// The payload of a frame as the module wrote it, which is the one thing that the encodings write differently.
fn unwrap_payloads(tree: &mut Tree, codec: PayloadCodec) {
    match tree {
        Tree::Map(map) => {
            for (key, value) in map.iter_mut() {
                let payload = matches!(key.as_str(), "data" | "result" | "value");
                match value {
                    Tree::Bytes(bytes) if codec == PayloadCodec::Json => {
                        *value = Tree::read(Encoding::Json, bytes).unwrap()
                    }
                    Tree::Text(text) if payload && codec == PayloadCodec::Binary => {
                        *value = Tree::Bytes(Bytes::from(STANDARD.decode(text.as_str()).unwrap()));
                    }
                    value => unwrap_payloads(value, codec),
                }
            }
        }
        Tree::List(items) => items.iter_mut().for_each(|item| unwrap_payloads(item, codec)),
        Tree::Null | Tree::Bool(_) | Tree::Int(_) | Tree::Float(_) | Tree::Text(_) | Tree::Bytes(_) => {}
    }
}

#[test]
fn both_encodings_say_the_same() {
    for (name, id, message) in messages() {
        let [json, msgpack] = BOTH.map(|encoding| {
            let mut tree = Tree::read(encoding, &message.encode(id, encoding)).unwrap();
            let codec = if name.contains("binary") || name == "match_data_key" {
                PayloadCodec::Binary
            } else {
                PayloadCodec::Json
            };
            unwrap_payloads(&mut tree, codec);
            tree
        });
        assert_eq!(json, msgpack, "{name}");
        assert_eq!(json.get("type").and_then(Tree::as_text), Some(message.kind()), "{name}");
        assert_eq!(json.get("id").and_then(Tree::as_int), id, "{name}");
    }
}

#[test]
fn every_kind_of_message_is_among_the_golden_ones() {
    let kinds: std::collections::BTreeSet<_> = messages().iter().map(|(_, _, message)| message.kind()).collect();
    assert_eq!(kinds.len(), 41);
}

#[test]
fn lists_and_maps_longer_than_a_short_head_are_read_back() {
    for len in [15, 16, 255, 256, 65_535, 65_536] {
        let nodes: Vec<String> = (0..len).map(|place| format!("n{place}")).collect();
        let details = (0..len.min(300))
            .map(|place| (format!("k{place}"), json!(place)))
            .collect();
        let refusal = Refusal {
            code: ErrorCode::Internal,
            message: "m".repeat(len),
            details,
        };
        for encoding in BOTH {
            let message = ServerMessage::SessionGoingAway {
                reason: String::new(),
                within_ms: 0,
                nodes: nodes.clone(),
            };
            let tree = Tree::read(encoding, &message.encode(None, encoding)).unwrap();
            assert!(matches!(tree.get("nodes"), Some(Tree::List(items)) if items.len() == len));
            let tree = Tree::read(encoding, &ServerMessage::Error(refusal.clone()).encode(None, encoding)).unwrap();
            assert!(matches!(tree.get("details"), Some(Tree::Map(map)) if map.len() == len.min(300)));
            assert_eq!(tree.get("message").and_then(Tree::as_text).map(str::len), Some(len));
        }
    }
}

proptest! {
    #[test]
    fn any_text_and_any_numbers_arrive_as_they_were(
        reason in ".*",
        key in ".*",
        id in any::<i64>(),
        seq in 0..i64::MAX as u64,
        data in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let target = MatchId::from_u128(seq.into());
        let data = PayloadOut { codec: PayloadCodec::Binary, bytes: Bytes::from(data) };
        for encoding in BOTH {
            let frame = ServerMessage::MatchKicked { target, seq, reason: reason.clone() }.encode(Some(id), encoding);
            let tree = Tree::read(encoding, &frame).unwrap();
            prop_assert_eq!(tree.get("reason").and_then(Tree::as_text), Some(reason.as_str()));
            prop_assert_eq!(tree.get("id").and_then(Tree::as_int), Some(id));
            prop_assert_eq!(tree.get("seq").and_then(Tree::as_int), Some(seq as i64));

            let frame = encode_match_data(encoding, target, seq, 1, Some(&key), Some(&data), false);
            let mut tree = Tree::read(encoding, &frame).unwrap();
            unwrap_payloads(&mut tree, PayloadCodec::Binary);
            prop_assert_eq!(tree.get("key").and_then(Tree::as_text), Some(key.as_str()));
            prop_assert_eq!(tree.get("data"), Some(&Tree::Bytes(data.bytes.clone())));
            let target = target.to_string();
            prop_assert_eq!(tree.get("match").and_then(Tree::as_text), Some(target.as_str()));
        }
    }

    #[test]
    fn any_float_of_a_ping_comes_back(t in any::<f64>().prop_filter("JSON has no others", |t| t.is_finite())) {
        let frame = ServerMessage::SessionPong { t: Some(t), now: 0 }.encode(None, Encoding::MsgPack);
        let back = match Tree::read(Encoding::MsgPack, &frame).unwrap().get("t") {
            Some(Tree::Int(int)) => *int as f64,
            Some(Tree::Float(float)) => *float,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(back, t);
        // Read by the standard library: serde_json's reader is off by the last bit for some.
        let frame = ServerMessage::SessionPong { t: Some(t), now: 0 }.encode(None, Encoding::Json);
        let text = std::str::from_utf8(&frame).unwrap();
        let text = text.split_once(r#""t":"#).and_then(|(_, rest)| rest.split_once(',')).unwrap().0;
        prop_assert_eq!(text.parse(), Ok(t));
    }
}
