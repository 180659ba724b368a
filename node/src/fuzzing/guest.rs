//! Match logic as an author uploads it, and what a guest has in memory as another node hands it over.

use std::sync::OnceLock;

use crate::examples;
use crate::wasm::module::{check_imports, is_spoilt_by_the_accessor};
use crate::wasm::{Engine, EngineConfig, Image};

/// The longest component that is worth its time; those of the examples that are longer have nothing that the others lack.
pub const MODULE_LEN_MAX: usize = 64 << 10;

/// Of so many inputs one is compiled and played; all others end with the checks that come before.
const PLAYED_OF: u128 = 16;

/// Reads an image of a guest; what it says itself is read as the same.
pub fn guest_image(input: &[u8]) {
    drop(Image::decode(input));
    let Ok(image) = Image::decode_unsealed(input) else {
        return;
    };
    let again = Image::decode(&image.encode()).expect("it was just written");
    assert_eq!((again.hash(), &again), (image.hash(), &image));
    assert!(image.bytes() <= 64 * input.len());
}

/// An image with its hash at the end, and one without.
pub fn guest_image_seeds() -> Vec<Vec<u8>> {
    let sealed = Image::sample().encode();
    let unsealed = sealed[..sealed.len() - 32].to_vec();
    vec![sealed, unsealed]
}

/// A component on its way in, as `module check` takes it. Compiling is what costs time, so chance decides which are; chance that the
/// input determines, or a finding could not be shown again.
pub fn module(input: &[u8]) {
    drop(check_imports(input));
    assert!(
        !is_spoilt_by_the_accessor(input),
        "a valid component is not valid any more"
    );
    if xxhash_rust::xxh3::xxh3_128(input).is_multiple_of(PLAYED_OF) {
        drop(engine().check(input).to_string());
    }
}

/// The smaller examples, a component that imports what it may not, and a core module.
pub fn module_seeds() -> Vec<Vec<u8>> {
    let components = examples::BUNDLED.iter().map(|(_, component)| component.to_vec());
    let mut seeds: Vec<_> = components
        .filter(|component| component.len() <= MODULE_LEN_MAX)
        .collect();
    seeds.push(b"\0asm\x0d\0\x01\0\x07\x05\x01\x41\x02\0\0\x0a\x0e\x01\0\x09wasi:io/x\x05\0".to_vec());
    seeds.push(b"\0asm\x01\0\0\0".to_vec());
    seeds
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineConfig::default()).expect("the fuzzer's machine runs WebAssembly"))
}
