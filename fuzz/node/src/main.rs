//! Fuzz targets of the decoders in the server itself. They are few and broad, since each takes its time in CI, and a binary of
//! their own, since this one takes longer to build. The targets are in `node/src/fuzzing.rs`, behind that crate's walls.

use std::process::ExitCode;
use std::time::Duration;

use rookery::fuzzing;
use rookery_fuzz::target::{DECODED_WITHIN, Memory};
use rookery_fuzz::{Shape, Target};

/// Longer inputs bring time and no edges.
const LEN_MAX: usize = 8 << 10;

/// What compiling takes, with the tables of the engine itself.
const COMPILER: Memory = Memory {
    per_byte: 4 << 10,
    fixed: 64 << 20,
};

/// What it takes to compile a component of the longest, and to play it: some 120 ms here.
const COMPILED_WITHIN: Duration = Duration::from_secs(1);

static ALL: &[Target] = &[
    Target {
        name: "node_token",
        about: "a player's token: access, resume, refresh, another issuer's",
        shape: Shape::Text,
        len_max: LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: fuzzing::token_seeds,
        run: fuzzing::token,
    },
    Target {
        name: "node_request",
        about: "an HTTP request of an operator or a client: path, headers, body",
        shape: Shape::Text,
        len_max: LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: fuzzing::request_seeds,
        run: fuzzing::request,
    },
    Target {
        name: "node_image",
        about: "the host's part of a match that another node hands over",
        shape: Shape::MsgPack,
        len_max: LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: fuzzing::image_seeds,
        run: fuzzing::image,
    },
    Target {
        name: "node_guest",
        about: "what a match's guest has in memory, from another node or the store",
        shape: Shape::Bytes,
        len_max: LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: fuzzing::guest_image_seeds,
        run: fuzzing::guest_image,
    },
    Target {
        name: "node_module",
        about: "match logic that an author publishes: every input is checked, some are compiled and played",
        shape: Shape::Bytes,
        len_max: fuzzing::MODULE_LEN_MAX,
        memory: COMPILER,
        time_max: COMPILED_WITHIN,
        seeds: fuzzing::module_seeds,
        run: fuzzing::module,
    },
    Target {
        name: "node_journal",
        about: "the records of a match, in a recording",
        shape: Shape::Bytes,
        len_max: LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: fuzzing::journal_seeds,
        run: fuzzing::journal,
    },
    Target {
        name: "node_text",
        about: "names, cursors, tickets, manifests, configuration",
        shape: Shape::Text,
        len_max: LEN_MAX,
        memory: Memory::DECODER,
        time_max: DECODED_WITHIN,
        seeds: fuzzing::text_seeds,
        run: fuzzing::text,
    },
];

fn main() -> ExitCode {
    rookery_fuzz::main(ALL)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What was once a finding stays fixed.
    #[test]
    fn the_kept_corpus_runs_through_every_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
        for target in ALL {
            assert!(target.replay(&corpus) > 0, "{} has nothing to begin with", target.name);
        }
    }
}
