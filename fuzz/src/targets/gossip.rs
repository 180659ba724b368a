//! What other nodes send to the mesh. The targets themselves are in `gossip/src/fuzzing.rs`, behind that crate's walls.

use rookery_fuzz::target::{DECODED_WITHIN, Memory};
use rookery_fuzz::{Shape, Target, feature};
use rookery_gossip::fuzzing;

use super::MESSAGE_LEN_MAX;

pub(super) const fn target(
    name: &'static str,
    about: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8]),
) -> Target {
    Target {
        name,
        about,
        shape: Shape::Bytes,
        len_max: MESSAGE_LEN_MAX,
        // Blocks are compressed: 4 MiB of them may come out of any input (`guard.rs`), here and in the library, there as texts.
        memory: Memory {
            per_byte: 64,
            fixed: 64 << 20,
        },
        time_max: DECODED_WITHIN,
        seeds,
        run,
    }
}

pub(super) const fn bytes(
    name: &'static str,
    about: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8]),
) -> Target {
    Target {
        memory: Memory::DECODER,
        ..target(name, about, seeds, run)
    }
}

pub(super) const fn statement(
    name: &'static str,
    about: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8]),
) -> Target {
    Target {
        shape: Shape::Text,
        ..bytes(name, about, seeds, run)
    }
}

pub(super) use fuzzing::{letter_seeds, talk_seeds};

pub(super) fn letter(input: &[u8]) {
    // The library is not counted: what came of it is.
    feature(fuzzing::letter(input).bytes().map(usize::from).sum());
}

pub(super) fn talk(input: &[u8]) {
    let (heard, sent) = fuzzing::talk(input);
    feature(heard.min(40));
    feature(100 + sent.min(40));
}

/// The first byte says which of the two formats follows.
pub(super) fn frames(input: &[u8]) {
    match input.split_first() {
        Some((0, rest)) => fuzzing::broadcast(rest),
        Some((_, rest)) => fuzzing::frames(rest),
        None => {}
    }
}

pub(super) fn frames_seeds() -> Vec<Vec<u8>> {
    tagged(fuzzing::broadcast_seeds(), fuzzing::frames_seeds())
}

pub(super) fn certificate(input: &[u8]) {
    match input.split_first() {
        Some((0, rest)) => fuzzing::probe_for(rest),
        Some((2, rest)) => fuzzing::hello(rest),
        Some((_, rest)) => fuzzing::certificate(rest),
        None => {}
    }
}

pub(super) fn certificate_seeds() -> Vec<Vec<u8>> {
    let hellos = fuzzing::hello_seeds()
        .into_iter()
        .map(|seed| [&[2][..], &seed].concat());
    let mut seeds = tagged(fuzzing::probe_for_seeds(), fuzzing::certificate_seeds());
    seeds.extend(hellos);
    seeds
}

fn tagged(zero: Vec<Vec<u8>>, one: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let tag = |tag: u8| move |seed: Vec<u8>| [&[tag][..], &seed].concat();
    zero.into_iter()
        .map(tag(0))
        .chain(one.into_iter().map(tag(1)))
        .collect()
}
