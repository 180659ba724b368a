//! What can be shown without a compiler for the guest; scripts/build-modules shows the rest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Package, TARGET, build, check_crate, find_artifact, has_target, write_whole};

#[test]
fn a_directory_without_a_crate_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let missing = build(&dir.path().join("nothing"), None).unwrap_err().to_string();
    assert!(missing.contains("nothing"), "{missing}");
    let empty = build(dir.path(), None).unwrap_err().to_string();
    assert!(empty.contains("no Cargo.toml"), "{empty}");
}

#[test]
fn the_artifact_is_the_crate_s_own_module_and_not_that_of_a_dependency() {
    let messages = br#"
not json, as a build script may print
{"reason":"compiler-artifact","manifest_path":"/m/serde/Cargo.toml","target":{"name":"serde"},"filenames":["/t/libserde.rlib"]}
{"reason":"compiler-artifact","manifest_path":"/m/other/Cargo.toml","target":{"name":"other"},"filenames":["/t/other.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/m/my_game/Cargo.toml","target":{"name":"my_game"},"filenames":["/t/libmy_game.rlib","/t/my_game.wasm"]}
{"reason":"build-finished","success":true}
"#;
    let artifact = find_artifact(messages, Path::new("/m/my_game/Cargo.toml")).unwrap();
    assert_eq!(
        (artifact.name.as_str(), artifact.file.as_path()),
        ("my-game", Path::new("/t/my_game.wasm"))
    );
    let refused = find_artifact(messages, Path::new("/m/serde/Cargo.toml"))
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("cdylib"), "{refused}");
}

#[test]
fn what_makes_no_module_is_refused_before_it_is_compiled() {
    let packages = r#"[
        {"name": "chess", "manifest_path": "/m/chess/Cargo.toml", "source": null, "targets": [{"crate_types": ["cdylib"]}]},
        {"name": "rules", "manifest_path": "/m/rules/Cargo.toml", "source": null, "targets": [{"crate_types": ["lib"]}]}
    ]"#;
    let packages: Vec<Package> = serde_json::from_str(packages).unwrap();
    let check = |manifest: &str| check_crate(&packages, Path::new(manifest)).map_err(|error| error.to_string());
    assert_eq!(check("/m/chess/Cargo.toml"), Ok(()));
    assert!(check("/m/rules/Cargo.toml").unwrap_err().contains("cdylib"));
    assert!(
        check("/m/Cargo.toml")
            .unwrap_err()
            .ends_with("one of its members: chess")
    );
    assert!(
        check_crate(&packages[1..], Path::new("/m/Cargo.toml"))
            .unwrap_err()
            .to_string()
            .contains("none")
    );
}

#[test]
fn a_crate_that_lost_its_sdk_is_told_how_to_get_it_back() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("Cargo.toml"),
        "[dependencies]\nrookery-sdk = { path = \".rookery/sdk\" }\n",
    )
    .unwrap();
    let lost = build(dir.path(), None).unwrap_err().to_string();
    assert!(lost.contains("`rookery sdk "), "{lost}");
}

#[test]
fn a_compiler_counts_only_when_its_sysroot_has_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let rustc = dir.path().join("rustc");
    fs::write(&rustc, format!("#!/bin/sh\necho {}\n", dir.path().display())).unwrap();
    fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!has_target(&rustc));
    let libraries = dir.path().join("lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&libraries).unwrap();
    assert!(
        !has_target(&rustc),
        "an empty directory is left behind by rustup target remove"
    );
    fs::write(libraries.join("libstd-0123.rlib"), "").unwrap();
    assert!(has_target(&rustc));
    assert!(!has_target(Path::new("/no/such/rustc")));
}

#[test]
fn a_component_replaces_the_old_one_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/game.wasm");
    write_whole(&out, b"one").unwrap();
    write_whole(&out, b"two").unwrap();
    assert_eq!(fs::read(&out).unwrap(), b"two");
    assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1);
}
