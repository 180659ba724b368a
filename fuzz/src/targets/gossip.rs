//! What other nodes send to the mesh. The targets themselves are in `gossip/src/fuzzing.rs`, behind that crate's walls.

use rookery_fuzz::target::Memory;
use rookery_fuzz::{Shape, Target};
use rookery_gossip::fuzzing;

use super::MESSAGE_LEN_MAX;

pub(super) const fn bytes(
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
        memory: Memory::DECODER,
        seeds,
        run,
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
