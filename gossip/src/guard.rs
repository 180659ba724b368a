//! Which gossip messages the gossip library may be handed. Pure.
//!
//! Every peer holds the cluster's secret, but it may be another build than ours, and the library trusts what it is sent: a key that does
//! not begin with ASCII, a version that falls, or a state of our own that is newer than we ever made it end its task, and with it the node; a
//! compressed block may unfold to four thousand times its size. So each message is read here first, in the library's own format, and
//! one that breaks a rule is not handed on. The rules leave room for later versions of ours, which may say more, but not otherwise.
#![deny(clippy::disallowed_methods)]

pub(crate) mod lives;

use chitchat::{ChitchatId, Deserializable};

use crate::peer::{Life, NodeId};

/// The longest key and value that are taken, in bytes: twice and four times what this version states.
const KEY_LEN_MAX: usize = 256;
const VALUE_LEN_MAX: usize = 4_096;

/// Nodes that one message may name, the dead of a quarter of an hour among them.
const NODES_MAX: usize = 16_384;

/// What one message may unfold to. Ours carry at most 64 KiB as packed, of text that packs ten times at best.
const UNPACKED_MAX: usize = 4 << 20;

/// The largest block of the library's format.
const BLOCK_LEN_MAX: usize = u16::MAX as usize;

/// The highest version and heartbeat that are taken: a thousand changes a second for a million years.
const VERSION_MAX: u64 = 1 << 55;

/// The library's format: two bytes of magic and one of version, then the kind of message.
const MAGIC: [u8; 2] = 45_139u16.to_le_bytes();
const VERSION: u8 = 0;
const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;
const BAD_CLUSTER: u8 = 3;

/// How the blocks of a delta begin, and the operations in them.
const NO_MORE_BLOCKS: u8 = 0;
const PACKED: u8 = 1;
const PLAIN: u8 = 2;
const NODE: u8 = 0;
const KEY_VALUE: u8 = 1;
const MAX_VERSION: u8 = 2;

/// Why a gossip message is not handed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it cannot be read")]
    Malformed,
    #[error("it names a node {name:?}, which is no node name")]
    NodeName { name: String },
    #[error("it says more than {max} nodes or bytes")]
    TooMuch { max: usize },
    #[error("a key of {node} is empty, too long or not printable ASCII")]
    Key { node: NodeId },
    #[error("the value of {key:?} of {node} has {len} bytes")]
    Value { node: NodeId, key: String, len: usize },
    #[error("a version of {node} falls or is too high")]
    Version { node: NodeId },
    #[error("it says what this node states")]
    Ourselves,
}

/// Says whether the library may take a message; `local` is who we are.
pub(crate) fn check(local: &Life, message: &[u8]) -> Result<(), Refusal> {
    let (head, mut rest) = message.split_at_checked(4).ok_or(Refusal::Malformed)?;
    if head[..2] != MAGIC || head[2] != VERSION {
        return Err(Refusal::Malformed);
    }
    match head[3] {
        SYN => {
            digest(&mut rest)?;
            read::<String>(&mut rest).map(drop)
        }
        SYN_ACK => {
            digest(&mut rest)?;
            delta(local, rest)
        }
        ACK => delta(local, rest),
        BAD_CLUSTER => Ok(()),
        _ => Err(Refusal::Malformed),
    }
}

fn read<T: Deserializable>(bytes: &mut &[u8]) -> Result<T, Refusal> {
    T::deserialize(bytes).map_err(|_| Refusal::Malformed)
}

fn byte(bytes: &mut &[u8]) -> Result<u8, Refusal> {
    let (&first, rest) = bytes.split_first().ok_or(Refusal::Malformed)?;
    *bytes = rest;
    Ok(first)
}

fn node(bytes: &mut &[u8]) -> Result<Life, Refusal> {
    let id: ChitchatId = read(bytes)?;
    let node = id.node_id.parse().map_err(|_| Refusal::NodeName {
        name: id.node_id.chars().take(100).collect(),
    })?;
    Ok(Life {
        node,
        generation: id.generation_id,
    })
}

fn version(bytes: &mut &[u8], node: &NodeId) -> Result<u64, Refusal> {
    let version: u64 = read(bytes)?;
    if version > VERSION_MAX {
        return Err(Refusal::Version { node: node.clone() });
    }
    Ok(version)
}

/// Who is known, how alive, and up to which version.
fn digest(bytes: &mut &[u8]) -> Result<(), Refusal> {
    let count: u16 = read(bytes)?;
    if usize::from(count) > NODES_MAX {
        return Err(Refusal::TooMuch { max: NODES_MAX });
    }
    for _ in 0..count {
        let life = node(bytes)?;
        for _ in ["heartbeat", "deleted up to", "version"] {
            version(bytes, &life.node)?;
        }
    }
    Ok(())
}

/// What some nodes state, as a stream of operations in blocks.
fn delta(local: &Life, mut bytes: &[u8]) -> Result<(), Refusal> {
    let unpacked = unpack(&mut bytes)?;
    let mut operations = &unpacked[..];
    let mut about: Option<(NodeId, u64)> = None;
    let mut nodes = 0;
    while !operations.is_empty() {
        match (byte(&mut operations)?, &mut about) {
            (NODE, about) => {
                let life = node(&mut operations)?;
                if life == *local {
                    return Err(Refusal::Ourselves);
                }
                version(&mut operations, &life.node)?;
                version(&mut operations, &life.node)?;
                nodes += 1;
                if nodes > NODES_MAX {
                    return Err(Refusal::TooMuch { max: NODES_MAX });
                }
                *about = Some((life.node, 0));
            }
            (KEY_VALUE, Some((node, latest))) => {
                *latest = key_value(&mut operations, node, *latest)?;
            }
            (MAX_VERSION, Some((node, latest))) => {
                let max = version(&mut operations, node)?;
                if max < *latest {
                    return Err(Refusal::Version { node: node.clone() });
                }
                *latest = max;
            }
            _ => return Err(Refusal::Malformed),
        }
    }
    Ok(())
}

/// One key of a node, with a version above the last one's; returns the version.
fn key_value(operations: &mut &[u8], node: &NodeId, latest: u64) -> Result<u64, Refusal> {
    let key: String = read(operations)?;
    if key.is_empty() || key.len() > KEY_LEN_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::Key { node: node.clone() });
    }
    let value: String = read(operations)?;
    if value.len() > VALUE_LEN_MAX {
        let (node, len) = (node.clone(), value.len());
        return Err(Refusal::Value { node, key, len });
    }
    let version = version(operations, node)?;
    if version <= latest {
        return Err(Refusal::Version { node: node.clone() });
    }
    // Whether it is deleted; the library knows which there are.
    byte(operations)?;
    Ok(version)
}

/// The blocks as one piece.
fn unpack(bytes: &mut &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut unpacked = Vec::new();
    loop {
        let kind = byte(bytes)?;
        if kind == NO_MORE_BLOCKS {
            return Ok(unpacked);
        }
        let len = usize::from(read::<u16>(bytes)?);
        let (block, rest) = bytes.split_at_checked(len).ok_or(Refusal::Malformed)?;
        *bytes = rest;
        match kind {
            PACKED => {
                let block = zstd::bulk::decompress(block, BLOCK_LEN_MAX).map_err(|_| Refusal::Malformed)?;
                unpacked.extend_from_slice(&block);
            }
            PLAIN => unpacked.extend_from_slice(block),
            _ => return Err(Refusal::Malformed),
        }
        if unpacked.len() > UNPACKED_MAX {
            return Err(Refusal::TooMuch { max: UNPACKED_MAX });
        }
    }
}

#[cfg(test)]
mod tests {
    use chitchat::{ChitchatMessage, Serializable};
    use proptest::prelude::*;

    use super::*;

    fn local() -> Life {
        Life {
            node: "self".parse().unwrap(),
            generation: 5,
        }
    }

    fn id(name: &str, generation: u64) -> Vec<u8> {
        ChitchatId::new(name, generation, ([127, 0, 0, 1], 1).into()).serialize_to_vec()
    }

    enum Op<'a> {
        Node(&'a str, u64),
        Set(&'a str, &'a str, u64),
        Max(u64),
    }

    /// An ACK with these operations, in packed blocks or plain ones.
    fn ack(operations: &[Op<'_>], packed: bool) -> Vec<u8> {
        let mut plain = Vec::new();
        for operation in operations {
            match operation {
                Op::Node(name, generation) => {
                    plain.push(NODE);
                    plain.extend(id(name, *generation));
                    0u64.serialize(&mut plain);
                    0u64.serialize(&mut plain);
                }
                Op::Set(key, value, version) => {
                    plain.push(KEY_VALUE);
                    key.serialize(&mut plain);
                    value.serialize(&mut plain);
                    version.serialize(&mut plain);
                    plain.push(0);
                }
                Op::Max(version) => {
                    plain.push(MAX_VERSION);
                    version.serialize(&mut plain);
                }
            }
        }
        let mut message = [&MAGIC[..], &[VERSION, ACK]].concat();
        for block in plain.chunks(30_000) {
            let block = if packed {
                zstd::bulk::compress(block, 0).unwrap()
            } else {
                block.to_vec()
            };
            message.push(if packed { PACKED } else { PLAIN });
            (block.len() as u16).serialize(&mut message);
            message.extend(block);
        }
        message.push(NO_MORE_BLOCKS);
        message
    }

    #[test]
    fn what_the_library_says_is_taken_and_what_would_end_its_task_is_not() {
        let a: NodeId = "a".parse().unwrap();
        let key = || Err(Refusal::Key { node: a.clone() });
        let version = || Err(Refusal::Version { node: a.clone() });
        let long_key = "k".repeat(257);
        let long_value = "v".repeat(4_097);
        let value = || {
            Err(Refusal::Value {
                node: a.clone(),
                key: "f/k".into(),
                len: 4_097,
            })
        };
        let name = |name: &str| Err(Refusal::NodeName { name: name.into() });
        use Op::{Max, Node, Set};
        let cases: [(&[Op<'_>], Result<(), Refusal>); 16] = [
            (&[], Ok(())),
            (&[Node("a", 1), Set("st", "ready", 1), Set("f/load", "ä\0", 7)], Ok(())),
            (&[Node("a", 1), Max(9), Node("self", 4), Set("k", "", 1)], Ok(())),
            (&[Node("a", 1), Set("of a later version!", "v", 1)], key()),
            (&[Node("a", 1), Set("ä", "v", 1)], key()),
            (&[Node("a", 1), Set("\u{7f}", "v", 1)], key()),
            (&[Node("a", 1), Set("", "v", 1)], key()),
            (&[Node("a", 1), Set(&long_key, "v", 1)], key()),
            (&[Node("a", 1), Set("f/k", &long_value, 1)], value()),
            (&[Node("a", 1), Set("k", "v", 2), Set("l", "v", 2)], version()),
            (&[Node("a", 1), Set("k", "v", 2), Max(1)], version()),
            (&[Node("a", 1), Max(u64::MAX)], version()),
            (&[Node("self", 5), Set("st", "leaving", 99)], Err(Refusal::Ourselves)),
            (&[Node("a b", 1)], name("a b")),
            (&[Node("", 1)], name("")),
            (&[Set("k", "v", 1)], Err(Refusal::Malformed)),
        ];
        for (operations, expected) in cases {
            for packed in [false, true] {
                let bytes = ack(operations, packed);
                assert_eq!(check(&local(), &bytes), expected);
                if expected.is_ok() {
                    ChitchatMessage::deserialize(&mut &bytes[..]).unwrap();
                }
            }
        }
        assert_eq!(check(&local(), &ChitchatMessage::BadCluster.serialize_to_vec()), Ok(()));
    }

    #[test]
    fn a_message_that_unfolds_to_too_much_is_refused_before_it_has() {
        let block = zstd::bulk::compress(&[0; BLOCK_LEN_MAX], 0).unwrap();
        let mut message = [&MAGIC[..], &[VERSION, ACK]].concat();
        for _ in 0..10_000 {
            message.push(PACKED);
            (block.len() as u16).serialize(&mut message);
            message.extend(&block);
        }
        message.push(NO_MORE_BLOCKS);
        assert!(message.len() < 1 << 20, "{} bytes come in one message", message.len());
        assert_eq!(check(&local(), &message), Err(Refusal::TooMuch { max: UNPACKED_MAX }));
    }

    proptest! {
        /// Whatever passes, the library reads; whatever comes, nothing panics.
        #[test]
        fn any_bytes_are_refused_or_read(
            kind in 0u8..5,
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..400,
            flipped in 0usize..400,
        ) {
            let raw = [&MAGIC[..], &[VERSION, kind], &bytes].concat();
            let operations = [Op::Node("a", 1), Op::Set("st", "ready", 1), Op::Set("g/x", "1", 2), Op::Max(3)];
            let mut damaged = ack(&operations, flipped % 2 == 0);
            damaged.truncate(cut);
            if let Some(byte) = damaged.get_mut(flipped) {
                *byte ^= 1 << (cut % 8);
            }
            for message in [raw, damaged] {
                if check(&local(), &message).is_ok() {
                    // What it refuses beyond this it refuses without harm.
                    let _ = ChitchatMessage::deserialize(&mut &message[..]);
                }
            }
        }
    }
}
