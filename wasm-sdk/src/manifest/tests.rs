//! The rules of match.wit for a manifest, as the node checks them.

use super::Manifest;

#[test]
fn a_manifest_that_the_node_would_refuse_says_why() {
    let check = |manifest: Manifest, expected: &[&str]| {
        let faults = manifest.faults();
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.contains(expected), "{fault}");
        }
    };
    check(Manifest::json("duel-2_x"), &[]);
    check(Manifest::json("duel").tick_hz(128).players(1..=1), &[]);
    check(Manifest::json(""), &["name"]);
    check(Manifest::json("Duel"), &["name"]);
    check(Manifest::json(&"d".repeat(65)), &["name"]);
    check(Manifest::json("duel").tick_hz(129), &["129 ticks"]);
    check(Manifest::json("duel").players(0..=0), &["without players"]);
    #[allow(clippy::reversed_empty_ranges, reason = "the fault that is to be found")]
    check(Manifest::json("a b").players(3..=2), &["name", "at least 3"]);
}
