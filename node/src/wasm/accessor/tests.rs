//! What can be captured, what cannot and what its author is told, and that a component with an accessor is valid.

use wasmparser::Validator;

use super::*;
use crate::wasm::testing::Guest;
use crate::wasm::{Engine, EngineConfig};

fn appended(component: &[u8]) -> Result<Layout, NotCapturable> {
    let accessor = append(component)?;
    Validator::new().validate_all(&accessor.component).unwrap();
    Ok(accessor.layout)
}

fn refusal(wat: &str) -> NotCapturable {
    append(&wat::parse_str(wat).unwrap()).err().expect("it can be captured")
}

fn layout(memories: u32, words: u32) -> Layout {
    Layout { memories, words }
}

#[test]
fn every_committed_component_can_be_captured() {
    for (name, component) in crate::examples::BUNDLED {
        let layout = appended(component).unwrap_or_else(|error| panic!("{name}: {error}"));
        // The author's, and two that wit-component adds: one with a table of the imports, and one that fills it afterwards.
        assert_eq!(survey(component).unwrap().modules.len(), 3, "{name}");
        // The stack pointer is the one global that Rust changes.
        assert_eq!((layout.memories, layout.words), (1, 1), "{name}");
    }
}

#[test]
fn all_that_changes_is_counted() {
    assert_eq!(appended(&Guest::new("plain").component()), Ok(layout(1, 2)));
    let more = "(memory $other 1 3) (global $a (mut i64) (i64.const 0)) (global $b (mut f32) (f32.const 0))
        (global $c (mut f64) (f64.const 0)) (global $d (mut v128) (v128.const i64x2 0 0)) (global $e i32 (i32.const 0))";
    assert_eq!(appended(&Guest::new("more").with(more).component()), Ok(layout(2, 7)));
    assert_eq!(appended(&wat::parse_str("(component)").unwrap()), Ok(layout(0, 0)));
    // A module that is instantiated twice, one that is not, and one without anything.
    let twice = "(component
        (core module $state (memory 1) (global (mut i32) (i32.const 0)) (func (export \"f\")))
        (core module $unused (memory 1))
        (core module $empty)
        (core instance $a (instantiate $state))
        (core instance (instantiate $empty))
        (core instance $b (instantiate $state))
        (func (export \"f\") (canon lift (core func $b \"f\"))))";
    assert_eq!(appended(&wat::parse_str(twice).unwrap()), Ok(layout(2, 2)));
    // Imported memories belong to the instance that they come from; and what is imported, comes first in the index space.
    let shared = "(component
        (core module $owner (memory (export \"m\") 1) (global (export \"g\") (mut i32) (i32.const 0)))
        (core module $user (import \"o\" \"m\" (memory 1)) (import \"o\" \"g\" (global (mut i32)))
          (memory 1) (global (mut i64) (i64.const 0)) (data (i32.const 0) \"x\"))
        (core instance $o (instantiate $owner))
        (core instance (instantiate $user (with \"o\" (instance $o)))))";
    assert_eq!(appended(&wat::parse_str(shared).unwrap()), Ok(layout(2, 2)));
}

#[test]
fn what_is_in_a_component_already_is_counted_when_indices_are_given() {
    let crowded = "(component
        (import \"rookery:game/clock@1.0.0\" (instance $clock (export \"now\" (func (result f64)))))
        (type $t (list string))
        (alias export $clock \"now\" (func $now))
        (core func $lowered (canon lower (func $now)))
        (component $adapter (import \"f\" (func $f)) (export \"g\" (func $f)))
        (core module $m (memory (export \"memory\") 1) (global (export \"g\") (mut i32) (i32.const 0)) (func (export \"f\")))
        (core instance $i (instantiate $m))
        (core instance $bundle (export \"now\" (func $lowered)))
        (alias core export $i \"memory\" (core memory $memory))
        (alias core export $i \"g\" (core global $global))
        (func $f (canon lift (core func $i \"f\")))
        (instance $inner (instantiate $adapter (with \"f\" (func $f))))
        (instance $made (export \"f\" (func $f)))
        (export $exported \"f\" (func $f))
        (export \"inner\" (instance $inner))
        (export \"t\" (type $t)))";
    assert_eq!(appended(&wat::parse_str(crowded).unwrap()), Ok(layout(1, 1)));
}

#[test]
fn tables_that_change_while_a_match_runs_are_refused() {
    let table = "(table $t 4 funcref) (elem $e declare func $ok) (elem $s func $ok)";
    for (instruction, body) in [
        ("table.set", "(table.set $t (i32.const 0) (ref.null func))"),
        ("table.grow", "(drop (table.grow $t (ref.null func) (i32.const 1)))"),
        (
            "table.fill",
            "(table.fill $t (i32.const 0) (ref.null func) (i32.const 1))",
        ),
        (
            "table.copy",
            "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 1))",
        ),
        (
            "table.init",
            "(table.init $t $s (i32.const 0) (i32.const 0) (i32.const 1))",
        ),
        ("elem.drop", "(elem.drop $s)"),
    ] {
        let running = Guest::new("running").with(table).on("tick", body);
        let refusal = appended(&running.component()).unwrap_err();
        assert!(
            matches!(refusal, NotCapturable::Table { instruction: found, .. } if found == instruction),
            "{refusal}"
        );
        assert!(refusal.to_string().contains(instruction));
        // By way of a table, of a reference, or of another function.
        let (called, kept) = (format!("{table} (func $f {body})"), "(drop (ref.func $f))");
        for (items, tick) in [
            (format!("{called} (func $g (call $f))"), "(call $g)"),
            (format!("{called} (elem (table $t) (i32.const 0) func $f)"), ""),
            (format!("{called} (elem declare func $f)"), kept),
            (format!("{called} (global funcref (ref.func $f))"), ""),
            (format!("{called} (table 1 funcref (ref.func $f))"), ""),
        ] {
            let guest = Guest::new("reached").with(&items).on("tick", tick);
            assert!(appended(&guest.component()).is_err(), "{items}");
        }
        // What is done while it is instantiated is the same in every instance.
        let early = Guest::new("early").with(&format!("{called} (func $g (call $f)) (start $g)"));
        assert_eq!(appended(&early.component()), Ok(layout(1, 2)), "{instruction}");
    }
}

#[test]
fn data_that_is_dropped_is_refused_and_data_that_is_used_is_not() {
    let items = "(data $d \"abc\")";
    let used = Guest::new("used")
        .with(items)
        .on("tick", "(memory.init $d (i32.const 600) (i32.const 0) (i32.const 3))");
    assert_eq!(appended(&used.component()), Ok(layout(1, 2)));
    let dropped = Guest::new("dropped").with(items).on("tick", "(data.drop $d)");
    assert!(matches!(
        appended(&dropped.component()),
        Err(NotCapturable::DroppedData { .. })
    ));
}

#[test]
fn state_that_an_image_cannot_hold_is_refused() {
    let global = Guest::new("global").with("(global (mut funcref) (ref.null func))");
    assert_eq!(appended(&global.component()), Err(NotCapturable::ReferenceGlobal));
    let instance = |module: &str| format!("(component (core module $m {module}) (core instance (instantiate $m)))");
    for memory in ["(memory 1 1 shared)", "(memory i64 1)"] {
        assert_eq!(refusal(&instance(memory)), NotCapturable::Memory, "{memory}");
    }
    for resource in ["resource.new $r", "resource.drop $r", "resource.rep $r"] {
        let wat = format!("(component (type $r (resource (rep i32))) (core func (canon {resource})))");
        assert_eq!(refusal(&wat), NotCapturable::Resources);
        assert_eq!(refusal(&format!("(component {wat})")), NotCapturable::Resources);
    }
    let nested = format!("(component {})", instance("(memory 1)"));
    assert_eq!(refusal(&nested), NotCapturable::NestedInstances);
    let foreign = "(component $outer (core module $m)
        (component $c (core module $n) (export \"n\" (core module $n)))
        (instance $i (instantiate $c))
        (alias export $i \"n\" (core module $aliased))
        (core instance (instantiate $aliased)))";
    assert_eq!(refusal(foreign), NotCapturable::ForeignModule);
    assert!(matches!(append(b"nonsense"), Err(NotCapturable::Malformed(_))));
    assert!(matches!(append(b"\0asm\x01\0\0\0"), Err(NotCapturable::Malformed(_))));
    let plain = Guest::new("plain").component();
    // Eight bytes are an empty component.
    for len in [0, 7, 9, 100, plain.len() / 2, plain.len() - 1] {
        assert!(
            matches!(append(&plain[..len]), Err(NotCapturable::Malformed(_))),
            "{len}"
        );
    }
}

#[test]
fn the_nodes_own_names_are_refused() {
    for component in [
        "(component (import \"rookery:accessor/host\" (instance)))".to_owned(),
        "(component (instance $i) (export \"rookery:accessor/image\" (instance $i)))".to_owned(),
        "(component (core module (func (export \"rookery:accessor/memory0\"))))".to_owned(),
    ] {
        assert!(
            matches!(refusal(&component), NotCapturable::ReservedName(_)),
            "{component}"
        );
    }
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let import = wat::parse_str("(component (import \"rookery:accessor/host\" (instance)))").unwrap();
    let error = engine.compile(&import).unwrap_err().to_string();
    assert!(error.contains("rookery:accessor/host"), "{error}");
}

#[test]
fn whoever_calls_the_host_while_instantiated_cannot_be_captured() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let early = Guest::new("early").with("(func $early (drop (call $bits))) (start $early)");
    let module = engine.compile(&early.component()).unwrap();
    assert_eq!(module.captures(), Err(&NotCapturable::CallsWhileInstantiated));
}

#[test]
fn a_check_says_what_cannot_be_captured_and_an_author_can_do_without() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let guest = Guest::new("tables")
        .ticking(20)
        .with("(table $t 4 funcref)")
        .on("tick", "(table.set $t (i32.const 0) (ref.null func))");
    let report = engine.check(&guest.component());
    assert!(!report.is_ok());
    assert!(
        report.to_string().contains("error: the node cannot take an image"),
        "{report}"
    );
    assert!(report.to_string().contains("table.set"), "{report}");

    let report = engine.check(&guest.declining_images().component());
    assert!(report.is_ok(), "{report}");
    assert!(
        report
            .to_string()
            .contains("warning: a match lives on by save and load"),
        "{report}"
    );
    let module = engine
        .compile(&Guest::new("plain").declining_images().component())
        .unwrap();
    assert_eq!(module.captures(), Err(&NotCapturable::Declined));
}
