//! The targets, by whose bytes they read.

mod client;
mod gossip;
mod peer;

use rookery_fuzz::target::{DECODED_WITHIN, Memory};
use rookery_fuzz::{Shape, Target};

/// A frame of a client, as `limits.frame` has it by default.
const FRAME_LEN_MAX: usize = 64 << 10;

/// What is bounded by a megabyte or more is tried up to here; longer inputs bring time and no edges.
const MESSAGE_LEN_MAX: usize = 16 << 10;

/// All targets of this binary.
pub(crate) static ALL: &[Target] = &[
    Target {
        name: "client_json",
        about: "a player's JSON frame, and that MessagePack says the same",
        shape: Shape::Json,
        len_max: FRAME_LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: client::json_seeds,
        run: client::json,
    },
    Target {
        name: "client_msgpack",
        about: "a player's MessagePack frame",
        shape: Shape::MsgPack,
        len_max: FRAME_LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: client::msgpack_seeds,
        run: client::msgpack,
    },
    Target {
        name: "client_payload",
        about: "a player's payload on its way into a module, and ids and digests as text",
        shape: Shape::Text,
        len_max: MESSAGE_LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: client::payload_seeds,
        run: client::payload,
    },
    peer::target(
        "peer_up",
        "joins, leaves and inputs from a gateway",
        peer::up_seeds,
        peer::up,
    ),
    peer::target(
        "peer_down",
        "a stream's frames from an owner",
        peer::down_seeds,
        peer::down,
    ),
    peer::target(
        "peer_request",
        "a question of another node",
        peer::request_seeds,
        peer::request,
    ),
    peer::target(
        "peer_answer",
        "what another node answers",
        peer::answer_seeds,
        peer::answer,
    ),
    peer::target(
        "peer_handover",
        "a match on its way from its owner",
        peer::handover_seeds,
        peer::handover,
    ),
    peer::target(
        "peer_mail",
        "letters and receipts between matches",
        peer::mail_seeds,
        peer::mail,
    ),
    peer::target(
        "peer_chat",
        "lines of chat, and who wants to hear them",
        peer::chat_seeds,
        peer::chat,
    ),
    peer::target(
        "peer_news",
        "what is said to all nodes: content, players, presence",
        peer::news_seeds,
        peer::news,
    ),
    peer::target(
        "directory",
        "a message of another node's directory",
        rookery_gossip::fuzzing::directory_seeds,
        rookery_gossip::fuzzing::directory,
    ),
    gossip::target(
        "gossip_letter",
        "a gossip message, up to the library",
        gossip::letter_seeds,
        gossip::letter,
    ),
    gossip::target(
        "gossip_talk",
        "gossip messages, and the library that hears them",
        gossip::talk_seeds,
        gossip::talk,
    ),
    gossip::statement(
        "gossip_statement",
        "what a node states in gossip",
        rookery_gossip::fuzzing::statement_seeds,
        rookery_gossip::fuzzing::statement,
    ),
    gossip::statement(
        "gossip_names",
        "seeds, DNS names, groups and nodes as text",
        rookery_gossip::fuzzing::names_seeds,
        rookery_gossip::fuzzing::names,
    ),
    gossip::bytes(
        "mesh_frames",
        "the frames of a channel's stream, and a broadcast in one",
        gossip::frames_seeds,
        gossip::frames,
    ),
    gossip::bytes(
        "mesh_certificate",
        "a stranger's certificate, a peer's hello, and requests to probe somebody",
        gossip::certificate_seeds,
        gossip::certificate,
    ),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What was once a finding stays fixed.
    #[test]
    fn the_kept_corpus_runs_through_every_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for target in ALL {
            assert!(target.replay(&corpus) > 0, "{} has nothing to begin with", target.name);
        }
    }
}
