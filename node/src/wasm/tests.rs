//! What the sandbox refuses before a match begins, what it remembers of compiled code, and what a check reports.

use super::testing::{Guest, component_of};
use super::*;
use crate::matches::event::TrapKind;

fn engine() -> Engine {
    Engine::new(EngineConfig::default()).unwrap()
}

fn refusal(guest: &Guest) -> String {
    engine().compile(&guest.component()).unwrap_err().to_string()
}

/// A core module with all exports, with something instead of our imports.
fn component_importing(import: &str) -> Vec<u8> {
    wat::parse_str(format!("(component (import \"{import}\" (instance)))")).unwrap()
}

#[test]
fn a_module_describes_itself() {
    let component = Guest::new("plain").ticking(20).component();
    let module = engine().compile(&component).unwrap();
    let manifest = module.manifest();
    assert_eq!(manifest.name, "plain");
    assert_eq!(manifest.tick_hz, 20);
    assert_eq!(manifest.grace_ms, 15_000);
    assert_eq!(manifest.durability, Durability::Memory);
    assert!(manifest.quick_play && manifest.listed);
    assert_eq!(module.digest(), module::digest_of(&component));
}

#[test]
fn foreign_imports_are_refused_by_name() {
    let component = component_importing("wasi:cli/environment@0.2.0");
    let error = engine().compile(&component).unwrap_err();
    assert!(matches!(&error, ModuleError::ForeignImport { import } if import == "wasi:cli/environment@0.2.0"));
    assert!(error.to_string().contains("wasi:cli/environment@0.2.0"), "{error}");
}

#[test]
fn an_interface_that_the_node_lacks_is_refused_by_name() {
    let component =
        wat::parse_str("(component (import \"rookery:game/teleport@1.0.0\" (instance (export \"go\" (func)))))")
            .unwrap();
    let error = engine().compile(&component).unwrap_err();
    assert!(matches!(error, ModuleError::World(_)));
    assert!(error.to_string().contains("rookery:game/teleport"), "{error}");
}

#[test]
fn a_component_without_our_exports_is_refused() {
    let error = engine().compile(&wat::parse_str("(component)").unwrap()).unwrap_err();
    assert!(matches!(error, ModuleError::World(_)));
    assert!(error.to_string().contains("no export `"), "{error}");
}

#[test]
fn what_is_no_component_is_refused_with_a_remedy() {
    let core = wat::parse_str("(module)").unwrap();
    let error = engine().compile(&core).unwrap_err();
    assert!(error.to_string().contains("rookery build"), "{error}");
    for bytes in [&b""[..], b"hello", b"\0asm", &Guest::new("cut").component()[..900]] {
        assert!(matches!(engine().compile(bytes), Err(ModuleError::NotAComponent(_))));
    }
}

#[test]
fn a_component_that_is_not_valid_does_not_compile() {
    let mut component = Guest::new("broken").component();
    let find = component
        .windows(4)
        .position(|bytes| bytes == b"\x7f\x7f\x7f\x7f")
        .unwrap_or(component.len() / 3);
    component[find] ^= 0xff;
    let error = engine().compile(&component).unwrap_err();
    assert!(
        matches!(
            error,
            ModuleError::Compile(_) | ModuleError::NotAComponent(_) | ModuleError::World(_)
        ),
        "{error}"
    );
}

#[test]
fn a_component_out_of_all_proportion_is_not_compiled() {
    let globals = "(global (mut i64) (i64.const 0))".repeat(10_000);
    let instances = "(core instance (instantiate $m))".repeat(60);
    let component = wat::parse_str(format!("(component (core module $m {globals}) {instances})")).unwrap();
    let error = engine().compile(&component).unwrap_err();
    assert!(matches!(error, ModuleError::OutOfBounds(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("the component is not compiled: each match of it would take 9600000 bytes of the host"),
        "{text}"
    );
}

#[test]
fn all_faults_of_a_manifest_are_reported_together() {
    let mut guest = Guest::new("Not A Name").ticking(129);
    guest.version = String::new();
    guest.max_players = 0;
    guest.max_spectators = u32::MAX;
    let text = refusal(&guest);
    for fault in [
        "Not A Name",
        "version",
        "tick-hz 129",
        "max-players 0",
        "min-players 1",
        "max-spectators",
    ] {
        assert!(text.contains(fault), "{fault} is missing in: {text}");
    }
    for name in ["", &"a".repeat(65)] {
        assert!(refusal(&Guest::new(name)).contains("must be 1 to 64"));
    }
    assert!(
        engine()
            .compile(&Guest::new(&"a-z_0".repeat(12)).ticking(128).component())
            .is_ok()
    );
}

#[test]
fn a_describe_that_fails_says_why() {
    let loops = Guest::new("loops").on("describe", "(loop $again (br $again)) (i32.const 0)");
    let Err(ModuleError::Describe(failure)) = engine().compile(&loops.component()) else {
        panic!("accepted")
    };
    assert_eq!(failure.kind, TrapKind::Time);
    assert_eq!(failure.message, "used more than 10 ms of CPU time in one call");

    let nowhere = Guest::new("nowhere").on("describe", "(i32.const 0x7ffffff0)");
    let Err(ModuleError::Describe(failure)) = engine().compile(&nowhere.component()) else {
        panic!("accepted")
    };
    assert_eq!(failure.kind, TrapKind::Trap);

    // A name of 2 MiB, all of it inside the guest's memory.
    let giant =
        "(i32.store (i32.const 512) (i32.const 0)) (i32.store (i32.const 516) (i32.const 0x200000)) (i32.const 512)";
    let giant = Guest::new("giant").pages(64).on("describe", giant);
    let Err(ModuleError::Describe(failure)) = engine().compile(&giant.component()) else {
        panic!("accepted")
    };
    assert_eq!(failure.kind, TrapKind::Bytes);
}

#[test]
fn a_start_function_has_budgets_too() {
    let guest = Guest::new("early").with("(func $spin (loop $again (br $again))) (start $spin)");
    let Err(ModuleError::Describe(failure)) = engine().compile(&guest.component()) else {
        panic!("accepted")
    };
    assert_eq!(failure.kind, TrapKind::Time);
}

#[test]
fn more_memory_than_allowed_is_refused_at_the_start() {
    let Err(ModuleError::Describe(failure)) = engine().compile(&Guest::new("fat").pages(1_025).component()) else {
        panic!("accepted")
    };
    assert_eq!(failure.kind, TrapKind::Memory);
}

#[test]
fn a_table_beyond_the_limit_is_refused() {
    let guest = Guest::new("wide").with("(table 100001 funcref)");
    assert!(matches!(
        engine().compile(&guest.component()),
        Err(ModuleError::Describe(_))
    ));
    assert!(
        engine()
            .compile(&Guest::new("narrow").with("(table 1000 funcref)").component())
            .is_ok()
    );
}

#[test]
fn threads_and_relaxed_simd_do_not_exist() {
    let shared = Guest::new("shared").with("(memory $other 1 1 shared)");
    let core_is_refused = std::panic::catch_unwind(|| engine().compile(&shared.component()));
    assert!(!matches!(core_is_refused, Ok(Ok(_))));
    let relaxed = Guest::new("relaxed").on(
        "tick",
        "(drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))",
    );
    assert!(matches!(
        engine().compile(&relaxed.component()),
        Err(ModuleError::Compile(_))
    ));
}

#[test]
fn compiled_code_is_kept_and_damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = || {
        Engine::new(EngineConfig {
            cache_dir: Some(dir.path().join("modules")),
        })
        .unwrap()
    };
    let component = Guest::new("kept").component();
    let digest = engine().compile(&component).unwrap().digest();
    let path = || {
        let files: Vec<_> = std::fs::read_dir(dir.path().join("modules"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    };
    let whole = std::fs::read(path()).unwrap();
    assert!(
        path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(&digest.to_string())
    );

    // A second start reads it: proved by putting another module's code under this digest.
    let other = Engine::new(EngineConfig {
        cache_dir: Some(dir.path().join("other")),
    })
    .unwrap();
    other.compile(&Guest::new("other").component()).unwrap();
    let foreign = std::fs::read_dir(dir.path().join("other"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::copy(foreign, path()).unwrap();
    assert_eq!(engine().compile(&component).unwrap().manifest().name, "other");

    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(path(), bytes).unwrap();
        assert_eq!(engine().compile(&component).unwrap().manifest().name, "kept");
        assert_eq!(
            std::fs::read(path()).unwrap().len(),
            whole.len(),
            "it was not written anew"
        );
    };
    damaged(&|bytes| bytes.truncate(bytes.len() / 2));
    damaged(&|bytes| *bytes.last_mut().unwrap() ^= 1);
    damaged(&|bytes| bytes[0] ^= 1);
    damaged(&|bytes| bytes.clear());
    // Whole by its checksum, but not code of this build.
    damaged(&|bytes| {
        let code = b"not what wasmtime wrote";
        *bytes = ring::digest::digest(&ring::digest::SHA256, code).as_ref().to_vec();
        bytes.extend_from_slice(code);
    });
}

#[test]
fn a_directory_that_cannot_be_written_costs_only_the_cache() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let engine = Engine::new(EngineConfig {
        cache_dir: Some(file.path().to_owned()),
    })
    .unwrap();
    assert!(engine.compile(&Guest::new("plain").component()).is_ok());
}

#[test]
fn a_sound_module_passes_the_check() {
    let guest = Guest::new("sound")
        .json()
        .ticking(20)
        .on("message", "(call $send_one (local.get $seat) @'{}')");
    let report = engine().check(&guest.component());
    assert!(report.is_ok(), "{report}");
    assert_eq!(report.findings, []);
    assert!(report.to_string().starts_with("sound 1.0.0\ndigest "), "{report}");
    let summary =
        "json, 1 to 8 players, 20 ticks a second, 2 spectators, 15 s of grace, durability memory, quick play, listed";
    assert!(report.to_string().contains(summary), "{report}");
}

#[test]
fn a_check_finds_what_breaks_in_play() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "start",
            "(call $refuse @'params wanted')",
            "error: start was refused without any params: params wanted",
        ),
        ("join", "unreachable", "error: join failed, trap: "),
        (
            "message",
            "(call $send_all @'{')",
            "error: message failed, bad_output: what was sent is not one JSON text",
        ),
        (
            "tick",
            "(loop $again (br $again))",
            "error: tick failed, time: used more than 10 ms",
        ),
        ("leave", "unreachable", "error: leave failed, trap: "),
        (
            "tick",
            "(call $log (i32.const 3) @'nobody sits there') unreachable",
            "; its log says: nobody sits there",
        ),
        ("save", "unreachable", "error: save failed, trap: "),
        (
            "join",
            "(call $refuse @'members only')",
            "warning: join was refused without any params: members only",
        ),
    ];
    for (export, body, finding) in cases {
        let guest = Guest::new("flawed").json().ticking(20).on(export, *body);
        let report = engine().check(&guest.component());
        assert!(report.to_string().contains(finding), "{export}: {report}");
        assert_eq!(report.is_ok(), finding.starts_with("warning"), "{report}");
    }
    let report = engine().check(b"nonsense");
    assert!(!report.is_ok() && report.manifest.is_none(), "{report}");
}

#[test]
fn the_engine_gets_by_without_its_ticker_between_calls() {
    let engine = engine();
    engine.compile(&Guest::new("first").component()).unwrap();
    // Long enough for the ticker to park; it must wake for the next call, or this would never end.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let loops = Guest::new("loops").on("describe", "(loop $again (br $again)) (i32.const 0)");
    assert!(matches!(
        engine.compile(&loops.component()),
        Err(ModuleError::Describe(_))
    ));
}

#[test]
fn a_core_module_of_the_right_shape_becomes_a_component() {
    // The helper itself must not accept everything, or the other tests prove nothing.
    let empty = wat::parse_str("(module)").unwrap();
    assert!(std::panic::catch_unwind(|| component_of(empty)).is_err());
}
