//! Fuzz targets of the decoders in `protocol` and `gossip`: what players and other nodes send, before it means anything.

mod targets;

use std::process::ExitCode;

fn main() -> ExitCode {
    rookery_fuzz::main(targets::ALL)
}
