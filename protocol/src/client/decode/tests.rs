use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::client::{ChannelRequest, PartyRequest, PresenceRequest, QueueRequest, StorageRequest, Tree, WorldRequest};

const PAYLOADS: [&str; 4] = ["data", "ctx", "params", "value"];

fn json(text: &str) -> Result<Envelope, BadFrame> {
    decode(Encoding::Json, &Bytes::copy_from_slice(text.as_bytes()))
}

/// The MessagePack frame that says what this JSON frame says, payloads as JSON text in `bin`.
fn in_msgpack(text: &str) -> Bytes {
    let mut tree = Tree::read(Encoding::Json, text.as_bytes()).unwrap();
    if let Tree::Map(map) = &mut tree {
        for (key, value) in map.iter_mut() {
            if PAYLOADS.contains(&key.as_str()) {
                *value = Tree::Bytes(value.write(Encoding::Json));
            }
        }
    }
    tree.write(Encoding::MsgPack)
}

fn text_of(value: &str) -> Payload {
    Payload::Json(Bytes::copy_from_slice(value.as_bytes()))
}

/// Every request that is served, in the least and in the fullest form.
fn requests() -> Vec<(&'static str, Envelope)> {
    let with = |id, request| Envelope { id, request };
    let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
    vec![
        (
            r#"{"type":"session.open"}"#,
            with(None, Request::SessionOpen(SessionOpen::default())),
        ),
        (
            r#"{"type":"session.open","id":1,"token":"t","resume":{"token":"r","matches":{"a":5,"b":1099511627776},"channels":{"room:x":3},"more":[]}}"#,
            with(
                Some(1),
                Request::SessionOpen(SessionOpen {
                    token: Some("t".into()),
                    resume: Some(Resume {
                        token: "r".into(),
                        matches: vec![("a".into(), 5), ("b".into(), 1 << 40)],
                        channels: vec![("room:x".into(), 3)],
                    }),
                }),
            ),
        ),
        (
            r#"{"type":"session.ping","id":-2}"#,
            with(Some(-2), Request::SessionPing { t: None }),
        ),
        (
            r#"{"type":"session.ping","t":1.5}"#,
            with(None, Request::SessionPing { t: Some(1.5) }),
        ),
        (r#"{"type":"session.close"}"#, with(None, Request::SessionClose)),
        (
            r#"{"type":"match.create","module":"arena"}"#,
            with(
                None,
                Request::MatchCreate {
                    module: "arena".into(),
                    params: Payload::Absent,
                    private: false,
                    name: None,
                },
            ),
        ),
        (
            r#"{"type":"match.create","id":3,"module":"arena@ab","params":{"size":3},"private":true,"name":"n-1"}"#,
            with(
                Some(3),
                Request::MatchCreate {
                    module: "arena@ab".into(),
                    params: text_of(r#"{"size":3}"#),
                    private: true,
                    name: Some("n-1".into()),
                },
            ),
        ),
        (
            r#"{"type":"match.quick","id":4,"module":"duel","label":{"mode":"ffa","region":"eu"},"params":[1],"ctx":"hi"}"#,
            with(
                Some(4),
                Request::MatchQuick {
                    module: "duel".into(),
                    label: vec![pair("mode", "ffa"), pair("region", "eu")],
                    params: text_of("[1]"),
                    ctx: text_of(r#""hi""#),
                },
            ),
        ),
        (
            r#"{"type":"match.list"}"#,
            with(
                None,
                Request::MatchList {
                    module: None,
                    label: vec![],
                    limit: None,
                    cursor: None,
                },
            ),
        ),
        (
            r#"{"type":"match.list","module":"duel","label":{"a":"b"},"limit":50,"cursor":"c"}"#,
            with(
                None,
                Request::MatchList {
                    module: Some("duel".into()),
                    label: vec![pair("a", "b")],
                    limit: Some(50),
                    cursor: Some("c".into()),
                },
            ),
        ),
        (
            r#"{"type":"match.join","match":"m"}"#,
            with(
                None,
                Request::MatchJoin {
                    target: "m".into(),
                    ctx: Payload::Absent,
                    role: JoinRole::Player,
                    since: None,
                },
            ),
        ),
        (
            r#"{"type":"match.join","id":7,"match":"village/square","ctx":[null],"role":"spectator","since":9}"#,
            with(
                Some(7),
                Request::MatchJoin {
                    target: "village/square".into(),
                    ctx: text_of("[null]"),
                    role: JoinRole::Spectator,
                    since: Some(9),
                },
            ),
        ),
        (
            r#"{"type":"match.leave","id":8,"match":"m"}"#,
            with(Some(8), Request::MatchLeave { target: "m".into() }),
        ),
        (
            r#"{"type":"match.send","match":"m","data":{"x":[1,"\u00e9"]}}"#,
            with(
                None,
                Request::MatchSend {
                    target: "m".into(),
                    data: text_of(r#"{"x":[1,"\u00e9"]}"#),
                    n: None,
                },
            ),
        ),
        (
            r#"{"n":18446744073709551615,"data":false,"more":{"n":1},"match":"a\"b","id":9,"type":"match.send"}"#,
            with(
                Some(9),
                Request::MatchSend {
                    target: "a\"b".into(),
                    data: text_of("false"),
                    n: Some(u64::MAX),
                },
            ),
        ),
    ]
    .into_iter()
    .chain(service_requests())
    .collect()
}

/// Requests to the cluster's services, in the least and in the fullest form.
fn service_requests() -> Vec<(&'static str, Envelope)> {
    let plain = |request| Envelope { id: None, request };
    let text = |text: &str| text.to_owned();
    vec![
        (
            r#"{"type":"queue.join","queue":"duel"}"#,
            plain(Request::Queue(QueueRequest::Join {
                queue: text("duel"),
                properties: text("{}"),
                query: text("{}"),
                party: None,
            })),
        ),
        (
            r#"{"type":"queue.join","id":1,"queue":"duel","properties":{"region":"eu","skill":1500},"query":{"skill":{"max":1.5,"min":-2}},"party":"p"}"#,
            Envelope {
                id: Some(1),
                request: Request::Queue(QueueRequest::Join {
                    queue: text("duel"),
                    properties: text(r#"{"region":"eu","skill":1500}"#),
                    query: text(r#"{"skill":{"max":1.5,"min":-2}}"#),
                    party: Some(text("p")),
                }),
            },
        ),
        (
            r#"{"type":"queue.leave","ticket":"t"}"#,
            plain(Request::Queue(QueueRequest::Leave { ticket: text("t") })),
        ),
        (
            r#"{"type":"queue.status","ticket":"t"}"#,
            plain(Request::Queue(QueueRequest::Status { ticket: text("t") })),
        ),
        (
            r#"{"type":"party.create"}"#,
            plain(Request::Party(PartyRequest::Create)),
        ),
        (
            r#"{"type":"party.join","code":"ABCD"}"#,
            plain(Request::Party(PartyRequest::Join { code: text("ABCD") })),
        ),
        (r#"{"type":"party.leave"}"#, plain(Request::Party(PartyRequest::Leave))),
        (
            r#"{"type":"party.kick","player":"p"}"#,
            plain(Request::Party(PartyRequest::Kick { player: text("p") })),
        ),
        (
            r#"{"type":"channel.join","channel":"room:x"}"#,
            plain(Request::Channel(ChannelRequest::Join {
                channel: text("room:x"),
                since: None,
            })),
        ),
        (
            r#"{"type":"channel.join","channel":"room:x","since":7}"#,
            plain(Request::Channel(ChannelRequest::Join {
                channel: text("room:x"),
                since: Some(7),
            })),
        ),
        (
            r#"{"type":"channel.send","channel":"room:x","text":"hi there"}"#,
            plain(Request::Channel(ChannelRequest::Send {
                channel: text("room:x"),
                text: text("hi there"),
            })),
        ),
        (
            r#"{"type":"channel.history","channel":"room:x"}"#,
            plain(Request::Channel(ChannelRequest::History {
                channel: text("room:x"),
                before: None,
                limit: None,
            })),
        ),
        (
            r#"{"type":"channel.history","channel":"room:x","before":100,"limit":20}"#,
            plain(Request::Channel(ChannelRequest::History {
                channel: text("room:x"),
                before: Some(100),
                limit: Some(20),
            })),
        ),
        (
            r#"{"type":"channel.leave","channel":"room:x"}"#,
            plain(Request::Channel(ChannelRequest::Leave {
                channel: text("room:x"),
            })),
        ),
        (
            r#"{"type":"presence.set"}"#,
            plain(Request::Presence(PresenceRequest::Set { status: None })),
        ),
        (
            r#"{"type":"presence.set","status":"busy"}"#,
            plain(Request::Presence(PresenceRequest::Set {
                status: Some(text("busy")),
            })),
        ),
        (
            r#"{"type":"presence.watch","players":["a","b"]}"#,
            plain(Request::Presence(PresenceRequest::Watch {
                players: vec![text("a"), text("b")],
            })),
        ),
        (
            r#"{"type":"presence.unwatch"}"#,
            plain(Request::Presence(PresenceRequest::Unwatch { players: vec![] })),
        ),
        (
            r#"{"type":"storage.get","collection":"c","key":"k"}"#,
            plain(Request::Storage(StorageRequest::Get {
                collection: text("c"),
                key: text("k"),
                module: None,
            })),
        ),
        (
            r#"{"type":"storage.put","collection":"c","key":"k","value":{"a":[1]},"version":""}"#,
            plain(Request::Storage(StorageRequest::Put {
                collection: text("c"),
                key: text("k"),
                value: text_of(r#"{"a":[1]}"#),
                version: Some(String::new()),
                module: None,
            })),
        ),
        (
            r#"{"type":"storage.delete","collection":"c","key":"k","version":"v","module":"m"}"#,
            plain(Request::Storage(StorageRequest::Delete {
                collection: text("c"),
                key: text("k"),
                version: Some(text("v")),
                module: Some(text("m")),
            })),
        ),
        (
            r#"{"type":"storage.list","collection":"c","key":"p","limit":10,"cursor":"z","module":"m"}"#,
            plain(Request::Storage(StorageRequest::List {
                collection: text("c"),
                key: Some(text("p")),
                limit: Some(10),
                cursor: Some(text("z")),
                module: Some(text("m")),
            })),
        ),
        (r#"{"type":"world.list"}"#, plain(Request::World(WorldRequest::List))),
        (
            r#"{"type":"world.enter","world":"village","zone":"square","ctx":{"a":1}}"#,
            plain(Request::World(WorldRequest::Enter {
                world: text("village"),
                zone: Some(text("square")),
                ctx: text_of(r#"{"a":1}"#),
            })),
        ),
    ]
}

#[test]
fn every_request_is_read_from_json() {
    for (text, expected) in requests() {
        assert_eq!(json(text), Ok(expected), "{text}");
    }
}

/// The same request as a MessagePack frame has it: payload bytes where the JSON frame had a payload's text.
fn as_raw(mut envelope: Envelope) -> Envelope {
    let raw = |payload: &mut Payload| {
        if let Payload::Json(text) = payload {
            let tree = Tree::read(Encoding::Json, text).unwrap();
            *payload = Payload::Raw(tree.write(Encoding::Json));
        }
    };
    match &mut envelope.request {
        Request::MatchCreate { params, .. } => raw(params),
        Request::MatchQuick { params, ctx, .. } => [params, ctx].into_iter().for_each(raw),
        Request::MatchJoin { ctx, .. } => raw(ctx),
        Request::MatchSend { data, .. } => raw(data),
        Request::SessionOpen(_) | Request::SessionPing { .. } | Request::SessionClose => {}
        Request::MatchList { .. } | Request::MatchLeave { .. } => {}
        Request::Storage(StorageRequest::Put { value, .. }) => raw(value),
        Request::World(WorldRequest::Enter { ctx, .. }) => raw(ctx),
        Request::Queue(_) | Request::Party(_) | Request::Channel(_) | Request::Presence(_) => {}
        Request::Storage(_) | Request::World(_) => {}
    }
    envelope
}

#[test]
fn every_request_is_read_from_messagepack_and_from_the_bytes_of_older_clients() {
    let small = |text: &&str| !text.contains("18446744073709551615");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/requests.msgpack.txt");
    if std::env::var_os("ROOKERY_WRITE_GOLDEN").is_some() {
        let hex = |frame: Bytes| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let lines: String = requests()
            .iter()
            .map(|(text, _)| *text)
            .filter(small)
            .map(|text| hex(in_msgpack(text)) + "\n")
            .collect();
        std::fs::write(&path, lines).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let frames: Vec<Bytes> = golden
        .lines()
        .map(|line| {
            (0..line.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap())
                .collect()
        })
        .collect();
    let expected: Vec<_> = requests().into_iter().filter(|(text, _)| small(text)).collect();
    assert_eq!(frames.len(), expected.len());
    for (frame, (text, expected)) in frames.iter().zip(expected) {
        assert_eq!(decode(Encoding::MsgPack, frame), Ok(as_raw(expected.clone())), "{text}");
        assert_eq!(
            decode(Encoding::MsgPack, &in_msgpack(text)),
            Ok(as_raw(expected)),
            "{text}"
        );
    }
}

#[test]
fn a_payload_is_a_slice_of_its_frame() {
    for (encoding, frame) in [
        (
            Encoding::Json,
            Bytes::from_static(br#"{"type":"match.send","match":"m","data":[1, 2]}"#),
        ),
        (
            Encoding::MsgPack,
            in_msgpack(r#"{"type":"match.send","match":"m","data":[1, 2]}"#),
        ),
    ] {
        let Ok(Envelope {
            request:
                Request::MatchSend {
                    data: Payload::Json(data) | Payload::Raw(data),
                    ..
                },
            ..
        }) = decode(encoding, &frame)
        else {
            panic!("not a match.send")
        };
        assert!(frame.as_ptr_range().contains(&data.as_ptr()));
    }
}

#[test]
fn types_that_the_contract_does_not_name_are_unknown() {
    for text in [
        r#"{"type":"match.explode","id":5}"#,
        r#"{"type":"","id":5}"#,
        r#"{"type":"session.opened","id":5}"#,
    ] {
        let bad = json(text).unwrap_err();
        assert_eq!((bad.code, bad.id), (ErrorCode::UnknownType, Some(5)), "{text}");
        assert_eq!(decode(Encoding::MsgPack, &in_msgpack(text)).unwrap_err(), bad);
    }
}

#[test]
fn nonsense_is_bad_message_with_the_number_that_could_be_read() {
    let cases = [
        ("", None),
        ("null", None),
        ("[]", None),
        ("7", None),
        ("{", None),
        (r#"{"id":3"#, Some(3)),
        (r#"{"id":3}"#, Some(3)),
        (r#"{"id":3,"type":7}"#, Some(3)),
        (r#"{"id":3,"type":null}"#, Some(3)),
        (r#"{"id":3,"type":"session.close"} x"#, Some(3)),
        (r#"{"id":3,"type":"session.close"}{}"#, Some(3)),
        (r#"{"id":3,"type":"session.close",}"#, Some(3)),
        (r#"{"id":"3","type":"session.close"}"#, None),
        (r#"{"id":3.5,"type":"session.close"}"#, None),
        (r#"{"id":1e17,"type":"session.close"}"#, None),
        (r#"{"id":9223372036854775808,"type":"session.close"}"#, None),
        (r#"{"id":3,"id":3,"type":"session.close"}"#, Some(3)),
        (r#"{"id":3,"type":"session.close","type":"session.close"}"#, Some(3)),
        (r#"{"id":3,"type":"session.ping","t":"now"}"#, Some(3)),
        (r#"{"id":3,"type":"session.ping","t":1e999}"#, Some(3)),
        (r#"{"id":3,"type":"session.open","token":5}"#, Some(3)),
        (r#"{"id":3,"type":"session.open","resume":"r"}"#, Some(3)),
        (r#"{"id":3,"type":"session.open","resume":{}}"#, Some(3)),
        (
            r#"{"id":3,"type":"session.open","resume":{"token":"r","matches":{"a":-1}}}"#,
            Some(3),
        ),
        (
            r#"{"id":3,"type":"session.open","resume":{"token":"r","matches":{"a":1,"a":2}}}"#,
            Some(3),
        ),
        (r#"{"id":3,"type":"match.create"}"#, Some(3)),
        (
            r#"{"id":3,"type":"match.create","module":"m","private":"yes"}"#,
            Some(3),
        ),
        (r#"{"id":3,"type":"match.create","module":"m","name":[]}"#, Some(3)),
        (r#"{"id":3,"type":"match.quick","module":"m","label":{"a":1}}"#, Some(3)),
        (r#"{"id":3,"type":"match.quick","module":"m","label":["a"]}"#, Some(3)),
        (
            r#"{"id":3,"type":"match.quick","module":"m","label":{"a":"1","a":"2"}}"#,
            Some(3),
        ),
        (r#"{"id":3,"type":"match.list","limit":-1}"#, Some(3)),
        (r#"{"id":3,"type":"match.list","limit":"9"}"#, Some(3)),
        (r#"{"id":3,"type":"match.join"}"#, Some(3)),
        (r#"{"id":3,"type":"match.join","match":7}"#, Some(3)),
        (r#"{"id":3,"type":"match.join","match":"\ud800"}"#, Some(3)),
        (r#"{"id":3,"type":"match.join","match":"m","role":"bot"}"#, Some(3)),
        (r#"{"id":3,"type":"match.join","match":"m","since":1.5}"#, Some(3)),
        (r#"{"id":3,"type":"match.send","match":"m"}"#, Some(3)),
        (r#"{"id":3,"type":"match.send","data":1}"#, Some(3)),
        (r#"{"id":3,"type":"match.send","match":"m","data":1,"n":0}"#, Some(3)),
        (r#"{"id":3,"type":"match.send","match":"m","data":1,"n":-1}"#, Some(3)),
        (r#"{"id":3,"type":"match.send","match":"m","data":1,"n":"1"}"#, Some(3)),
        (r#"{"id":3,"type":"match.send","match":"m","data":01}"#, Some(3)),
        (r#"{"id":3,"type":"match.send","match":"m","data":nul}"#, Some(3)),
    ];
    for (text, id) in cases {
        let bad = json(text).expect_err(text);
        assert_eq!((bad.code, bad.id), (ErrorCode::BadMessage, id), "{text}");
        assert!(!bad.message.is_empty());
        // Trees cannot say the same thing twice, so what is wrong only in its spelling has no twin in MessagePack.
        if text.contains("ud800") || text.contains("1e999") || serde_json::from_str::<serde_json::Value>(text).is_err()
        {
            continue;
        }
        if let Err(bad) = decode(Encoding::MsgPack, &in_msgpack(text)) {
            assert_eq!(bad.code, ErrorCode::BadMessage, "{text}");
        } else {
            assert!(
                text.contains(r#""id":3,"id""#)
                    || text.matches("\"a\"").count() > 1
                    || text.matches("type").count() > 1,
                "{text}"
            );
        }
    }
    assert_eq!(
        decode(Encoding::Json, &Bytes::from_static(b"{\"type\":\"\xff\"}"))
            .unwrap_err()
            .code,
        ErrorCode::BadMessage
    );
}

#[test]
fn a_float_that_is_whole_is_the_integer_that_it_stands_for() {
    for (text, n) in [("7.0", 7), ("7e0", 7), ("0.3e1", 3), ("9007199254740992.0", 1 << 53)] {
        let envelope = json(&format!(
            r#"{{"type":"match.send","id":{text},"match":"m","n":{text},"data":1}}"#
        ))
        .unwrap();
        assert_eq!(envelope.id, Some(n), "{text}");
        let Request::MatchSend { n: read, .. } = envelope.request else {
            panic!("{text} is no input")
        };
        assert_eq!(read, Some(n as u64), "{text}");
    }
    for text in ["7.5", "1e-1", "1e16", "-1.0"] {
        let frame = format!(r#"{{"type":"match.send","id":3,"match":"m","n":{text},"data":1}}"#);
        let bad = json(&frame).unwrap_err();
        assert_eq!((bad.code, bad.id), (ErrorCode::BadMessage, Some(3)), "{text}");
    }
    // 7 as float32 and as float64, as encoders write the numbers of a language that has no other.
    for bytes in [&[0xca, 0x40, 0xe0, 0, 0][..], &[0xcb, 0x40, 0x1c, 0, 0, 0, 0, 0, 0]] {
        let envelope = decode(Encoding::MsgPack, &ping_with(bytes)).unwrap();
        assert_eq!(envelope.id, Some(7), "{bytes:?}");
    }
}

#[test]
fn null_means_not_there() {
    let text = r#"{"type":"match.join","id":null,"match":"m","role":null,"since":null,"ctx":null}"#;
    let expected = Request::MatchJoin {
        target: "m".into(),
        ctx: Payload::Absent,
        role: JoinRole::Player,
        since: None,
    };
    assert_eq!(
        json(text),
        Ok(Envelope {
            id: None,
            request: expected
        })
    );
    let nil = Tree::read(Encoding::Json, text.as_bytes())
        .unwrap()
        .write(Encoding::MsgPack);
    let expected = Request::MatchJoin {
        target: "m".into(),
        ctx: Payload::Absent,
        role: JoinRole::Player,
        since: None,
    };
    assert_eq!(
        decode(Encoding::MsgPack, &nil),
        Ok(Envelope {
            id: None,
            request: expected
        })
    );
}

/// A `session.ping` whose `id` is these bytes.
fn ping_with(id: &[u8]) -> Bytes {
    let head = b"\x82\xa4type\xacsession.ping\xa2id";
    [head, id].concat().into()
}

#[test]
fn integers_of_any_width_are_integers() {
    for (bytes, id) in [
        (&[0x07][..], 7),
        (&[0xcc, 0x07], 7),
        (&[0xcd, 0, 7], 7),
        (&[0xce, 0, 0, 0, 7], 7),
        (&[0xcf, 0, 0, 0, 0, 0, 0, 0, 7], 7),
        (&[0xd0, 7], 7),
        (&[0xd1, 0, 7], 7),
        (&[0xd2, 0, 0, 0, 7], 7),
        (&[0xd3, 0, 0, 0, 0, 0, 0, 0, 7], 7),
        (&[0xff], -1),
        (&[0xd0, 0xff], -1),
        (&[0xd1, 0xff, 0xff], -1),
        (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], i64::MIN),
    ] {
        assert_eq!(
            decode(Encoding::MsgPack, &ping_with(bytes)).map(|envelope| envelope.id),
            Ok(Some(id)),
            "{bytes:?}"
        );
    }
    // Beyond i64, a fraction, a string.
    for bytes in [
        &[0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0][..],
        &[0xca, 0x40, 0xf0, 0, 0],
        b"\xa17",
    ] {
        let bad = decode(Encoding::MsgPack, &ping_with(bytes)).unwrap_err();
        assert_eq!((bad.code, bad.id), (ErrorCode::BadMessage, None), "{bytes:?}");
    }
}

#[test]
fn lengths_that_the_frame_does_not_have_are_refused() {
    for id in [
        &b"\xc6\xff\xff\xff\xff"[..],
        b"\xdb\xff\xff\xff\xffabc",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\xc0",
        b"\xdf\x80\x00\x00\x00\xc0",
        b"\xc1",
        b"\xcf\x00",
        b"",
    ] {
        assert_eq!(
            decode(Encoding::MsgPack, &ping_with(id)).unwrap_err().code,
            ErrorCode::BadMessage,
            "{id:?}"
        );
    }
    let bad = decode(Encoding::MsgPack, &Bytes::from_static(b"\xdf\xff\xff\xff\xff")).unwrap_err();
    assert_eq!(bad.code, ErrorCode::BadMessage);
    let trailing = [&ping_with(b"\x07")[..], b"\xc0"].concat();
    assert_eq!(decode(Encoding::MsgPack, &trailing.into()).unwrap_err().id, Some(7));
}

#[test]
fn nesting_as_deep_as_a_frame_is_long_takes_no_stack() {
    let depth = 30_000;
    let json_frame = format!(
        r#"{{"type":"match.send","match":"m","data":{}{}}}"#,
        "[".repeat(depth),
        "]".repeat(depth)
    );
    assert!(json(&json_frame).is_ok());
    let unknown = [
        b"\x82\xa4type\xacsession.ping\xa1x".to_vec(),
        vec![0x91; depth],
        vec![0xc0],
    ]
    .concat();
    assert!(decode(Encoding::MsgPack, &unknown.into()).is_ok());
    assert!(is_json_text(
        format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes()
    ));
}

#[test]
fn payloads_become_the_bytes_that_the_module_expects() {
    let raw = |bytes: &'static [u8]| Payload::Raw(Bytes::from_static(bytes));
    let check = |payload: Payload, codec, expected: Result<&'static [u8], BadPayload>| {
        assert_eq!(
            payload.clone().into_bytes(codec),
            expected.map(Bytes::from_static),
            "{payload:?}"
        );
    };
    check(Payload::Absent, PayloadCodec::Json, Ok(b""));
    check(Payload::Absent, PayloadCodec::Binary, Ok(b""));
    check(text_of(r#"{"a": 1}"#), PayloadCodec::Json, Ok(br#"{"a": 1}"#));
    check(text_of(r#""AP9+""#), PayloadCodec::Binary, Ok(b"\x00\xff~"));
    check(text_of(r#""YQ==""#), PayloadCodec::Binary, Ok(b"a"));
    check(text_of(r#""YQ""#), PayloadCodec::Binary, Ok(b"a"));
    check(text_of(r#""\u0059Q""#), PayloadCodec::Binary, Ok(b"a"));
    check(text_of(r#""""#), PayloadCodec::Binary, Ok(b""));
    for text in ["7", "null", r#"["YQ"]"#, r#""Y!""#, r#""_-8""#] {
        check(text_of(text), PayloadCodec::Binary, Err(BadPayload::NotBase64));
    }
    check(raw(b" [1] "), PayloadCodec::Json, Ok(b" [1] "));
    for bytes in [&b""[..], b"[1", b"[1] 2", b"\"\xff\"", b"{a:1}", b"NaN"] {
        check(raw(bytes), PayloadCodec::Json, Err(BadPayload::NotJson));
    }
    check(raw(b"\xff\x00"), PayloadCodec::Binary, Ok(b"\xff\x00"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let frame = Bytes::from(bytes);
        let _ = decode(Encoding::Json, &frame);
        let _ = decode(Encoding::MsgPack, &frame);
        let _ = Payload::Json(frame.clone()).into_bytes(PayloadCodec::Binary);
    }

    /// Broken copies of good frames get further in than random bytes.
    #[test]
    fn no_damage_makes_it_panic(which in 0..15_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let (text, _) = requests()[which];
        for (encoding, frame) in [(Encoding::Json, text.as_bytes().to_vec()), (Encoding::MsgPack, in_msgpack(text).to_vec())] {
            let mut frame = frame;
            let at = at.index(frame.len());
            frame[at] = byte;
            if cut {
                frame.truncate(at);
            }
            let _ = decode(encoding, &frame.into());
        }
    }

    /// The order of fields means nothing, in either encoding.
    #[test]
    fn fields_may_come_in_any_order(order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle()) {
        let fields = [r#""type":"match.send""#, r#""match":"m""#, r#""data":{"x":1}"#, r#""n":5"#, r#""id":6"#];
        let text = format!("{{{}}}", order.into_iter().map(|place| fields[place]).collect::<Vec<_>>().join(","));
        let expected = Request::MatchSend { target: "m".into(), data: text_of(r#"{"x":1}"#), n: Some(5) };
        prop_assert_eq!(json(&text), Ok(Envelope { id: Some(6), request: expected }));
    }
}

/// Found by fuzzing: the tree of such an object took 6 MB for a frame of 60 KiB.
#[test]
fn an_object_is_measured_before_it_is_read() {
    let with = |len: usize| {
        let lists = "[],".repeat(len / 3);
        let text = format!(r#"{{"type":"queue.join","queue":"q","query":{{"a":[{lists}0]}}}}"#);
        [decode(Encoding::MsgPack, &in_msgpack(&text)), json(&text)]
    };
    for read in with(6_000) {
        assert!(read.is_ok(), "{read:?}");
    }
    for read in with(24_000) {
        assert_eq!(read.map_err(|fault| fault.code), Err(ErrorCode::BadMessage));
    }
}
