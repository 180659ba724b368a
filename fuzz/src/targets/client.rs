//! What players send: frames of the client protocol in both encodings, and the payloads in them.

use bytes::Bytes;
use rookery_protocol::client::{Encoding, Envelope, Payload, PayloadCodec, Request, Tree, decode, is_json_text};
use rookery_protocol::{Digest, MatchId, NodeName};

use super::FRAME_LEN_MAX;

/// The requests as they were promised to older clients, one a line in hex.
const GOLDEN: &str = include_str!("../../../protocol/tests/golden/requests.msgpack.txt");

/// The node itself never builds trees: they take three hundred bytes for one, which is beside what is tried here.
const TREE_LEN_MAX: usize = 2 << 10;

/// The fields that are a module's, and of those the ones in which null is a value.
const PAYLOADS: [&str; 4] = ["data", "ctx", "params", "value"];
const NULLABLE: [&str; 2] = ["data", "value"];

/// Reads a JSON frame. What it says in MessagePack is the same request, or refused with the same code.
pub(super) fn json(input: &[u8]) {
    let frame = Bytes::copy_from_slice(input);
    let read = decode(Encoding::Json, &frame);
    if let Ok(envelope) = &read {
        check(envelope, &frame);
    }
    if input.len() > TREE_LEN_MAX {
        return;
    }
    let Ok(tree @ Tree::Map(_)) = Tree::read(Encoding::Json, input) else {
        return;
    };
    // Written anew, so that repeated fields are gone.
    let tree = with_plain_numbers(tree);
    let in_json = tree.write(Encoding::Json);
    let in_msgpack = as_msgpack(tree).write(Encoding::MsgPack);
    if in_msgpack.len() > FRAME_LEN_MAX {
        return;
    }
    let (a, b) = (decode(Encoding::Json, &in_json), decode(Encoding::MsgPack, &in_msgpack));
    match (&a, &b) {
        (Ok(a), Ok(b)) => {
            assert_eq!(a.id, b.id);
            assert_eq!(said(&a.request), said(&b.request));
        }
        (Err(a), Err(b)) => assert_eq!((a.id, a.code), (b.id, b.code), "{} / {}", a.message, b.message),
        (Ok(_), Err(fault)) => panic!("MessagePack alone refuses it: {}", fault.message),
        (Err(fault), Ok(_)) => panic!("JSON alone refuses it: {}", fault.message),
    }
}

/// Reads a MessagePack frame.
pub(super) fn msgpack(input: &[u8]) {
    let frame = Bytes::copy_from_slice(input);
    if let Ok(envelope) = decode(Encoding::MsgPack, &frame) {
        check(&envelope, &frame);
        assert_eq!(
            decode(Encoding::MsgPack, &frame),
            Ok(envelope),
            "reading it again says otherwise"
        );
    }
    // Tools read what others send.
    if input.len() > TREE_LEN_MAX {
        return;
    }
    if let Ok(tree) = Tree::read(Encoding::MsgPack, input) {
        let written = tree.write(Encoding::MsgPack);
        let again = Tree::read(Encoding::MsgPack, &written).expect("it was just written");
        assert_eq!(again.write(Encoding::MsgPack), written);
    }
}

/// A payload and its module's codec, in all four combinations; and what clients write as text.
pub(super) fn payload(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if is_json_text(input) {
        for codec in [PayloadCodec::Json, PayloadCodec::Binary] {
            let read = Payload::Json(bytes.clone()).into_bytes(codec);
            assert!(read.is_ok() || codec == PayloadCodec::Binary);
        }
    }
    let raw = Payload::Raw(bytes.clone()).into_bytes(PayloadCodec::Json);
    assert_eq!(raw.is_ok(), is_json_text(input));
    assert_eq!(Payload::Raw(bytes.clone()).into_bytes(PayloadCodec::Binary), Ok(bytes));
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(id) = text.parse::<MatchId>() {
        assert_eq!(id.to_string().parse::<MatchId>().ok(), Some(id));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(node) = text.parse::<NodeName>() {
        assert_eq!(node.as_str(), text);
    }
}

pub(super) fn msgpack_seeds() -> Vec<Vec<u8>> {
    GOLDEN.lines().filter_map(from_hex).collect()
}

pub(super) fn json_seeds() -> Vec<Vec<u8>> {
    let in_json = |frame: Vec<u8>| {
        let tree = Tree::read(Encoding::MsgPack, &frame).ok()?;
        Some(as_json(tree).write(Encoding::Json).to_vec())
    };
    msgpack_seeds().into_iter().filter_map(in_json).collect()
}

pub(super) fn payload_seeds() -> Vec<Vec<u8>> {
    let digest = "ab".repeat(32);
    [
        r#"{"x":[1,-2.5e3,"\u00e9",null,true]}"#,
        r#""AAEC""#,
        r#""AAE=""#,
        "01hf7yat000000000000000007",
        &digest,
        "node-1.example",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// What holds of every request that was read: its payloads are pieces of the frame.
fn check(envelope: &Envelope, frame: &Bytes) {
    let within = |payload: &Payload| match payload {
        Payload::Absent => true,
        Payload::Json(bytes) => frame.as_ptr_range().contains(&bytes.as_ptr()) && is_json_text(bytes),
        Payload::Raw(bytes) => bytes.is_empty() || frame.as_ptr_range().contains(&bytes.as_ptr()),
    };
    let all = match &envelope.request {
        Request::MatchCreate { params, .. } => within(params),
        Request::MatchQuick { params, ctx, .. } => within(params) && within(ctx),
        Request::MatchJoin { ctx, .. } => within(ctx),
        Request::MatchSend { data, n, .. } => within(data) && *n != Some(0),
        Request::SessionOpen(_) | Request::SessionPing { .. } | Request::SessionClose => true,
        Request::MatchList { .. } | Request::MatchLeave { .. } => true,
        Request::Queue(_) | Request::Party(_) | Request::Channel(_) => true,
        Request::Presence(_) | Request::Storage(_) | Request::World(_) => true,
    };
    assert!(all, "a payload is no piece of its frame: {envelope:?}");
}

/// Floats that are read the same whatever they are written as: JSON's reader may be off by the last bit of others.
fn with_plain_numbers(tree: Tree) -> Tree {
    match tree {
        Tree::Float(float) if (float * 8.0).fract() == 0.0 && float.abs() < 1e9 => Tree::Float(float),
        Tree::Float(_) => Tree::Float(0.5),
        Tree::List(items) => Tree::List(items.into_iter().map(with_plain_numbers).collect()),
        Tree::Map(map) => Tree::Map(
            map.into_iter()
                .map(|(key, value)| (key, with_plain_numbers(value)))
                .collect(),
        ),
        other @ (Tree::Null | Tree::Bool(_) | Tree::Int(_) | Tree::Text(_) | Tree::Bytes(_)) => other,
    }
}

/// What a request says, whichever encoding said it: payloads of JSON frames and those of MessagePack frames are the same text here.
fn said(request: &Request) -> String {
    format!("{request:?}").replace("Json(b\"", "Raw(b\"")
}

/// The same frame in MessagePack: payloads are the text of their values, in `bin`.
fn as_msgpack(tree: Tree) -> Tree {
    change_payloads(tree, |key, value| match value {
        Tree::Null if !NULLABLE.contains(&key) => Tree::Null,
        value => Tree::Bytes(value.write(Encoding::Json)),
    })
}

/// The same frame in JSON.
fn as_json(tree: Tree) -> Tree {
    change_payloads(tree, |_, value| match value {
        Tree::Bytes(bytes) => Tree::read(Encoding::Json, &bytes).unwrap_or_default(),
        value => value,
    })
}

fn change_payloads(tree: Tree, change: impl Fn(&str, Tree) -> Tree) -> Tree {
    let Tree::Map(map) = tree else { return tree };
    let change = |(key, value): (String, Tree)| match PAYLOADS.contains(&key.as_str()) {
        true => (key.clone(), change(&key, value)),
        false => (key, value),
    };
    Tree::Map(map.into_iter().map(change).collect())
}

fn from_hex(line: &str) -> Option<Vec<u8>> {
    line.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
