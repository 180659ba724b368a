//! Components that were built once and are never built again (tests/kept): what they heard and said then is what they hear and say on
//! this node and on every later one. Nothing here is ever regenerated.

use super::{Candidate, Path, Play, candidate, check, read};
use crate::wasm::module::digest_of;

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/kept/match-1.0.0");

const COMPONENTS: &[(&str, &str)] = &[
    (
        "rust.wasm",
        "e4d038521aa3d55b5d9968ee44a295aa0d6cba8eb1352d51e2e3f7f8b24bd413",
    ),
    (
        "c.wasm",
        "1d0b73cbbb47a3a93698df444f5c043d74da5fcadb0070708a55801f57493ac9",
    ),
];

#[test]
fn what_was_built_against_version_1_0_0_of_the_contract_is_heard_as_it_was() {
    let kept = Path::new(KEPT);
    let conversation = String::from_utf8(read(&kept.join("conversation.txt"))).unwrap();
    assert!(conversation.lines().filter(|line| line.starts_with("> ")).count() > 100);
    for (file, digest) in COMPONENTS {
        let component = read(&kept.join(file));
        assert_eq!(
            &digest_of(&component).to_string(),
            digest,
            "{file} is not what was kept"
        );
        let Candidate { language, module, .. } = candidate(component);
        check(
            &language,
            &Play::of(&module, &module).script(&conversation),
            &conversation,
        );
    }
}
