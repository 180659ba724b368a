//! What `rookery new` writes, without compiling it: that is scripts/templates-test.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// The files below a directory but those that a build makes, as sorted paths from there.
pub(super) fn files_below(root: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with("target") => {}
                true => walk(root, &path, found),
                false => found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.retain(|path| path != "Cargo.lock" && !path.ends_with(".wasm"));
    found.sort();
    found
}

fn written(template: Template, dependency: &Dependency) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my-game");
    create(&path, "my-game", template, dependency).unwrap();
    let read = |file: String| {
        let text = std::fs::read_to_string(path.join(&file)).unwrap();
        (file, text)
    };
    let mut files: BTreeMap<_, _> = files_below(&path).into_iter().map(read).collect();
    files.extend([read("Cargo.lock".into())]);
    files
}

#[test]
fn a_new_crate_has_its_name_and_its_sdk_and_nothing_of_the_template_s() {
    for template in Template::value_variants() {
        let files = written(*template, &Dependency::Own);
        for (path, text) in &files {
            let own = !path.starts_with(".rookery") && path != "Cargo.lock";
            assert!(!own || !text.contains("template-"), "{path} of {template:?}: {text}");
            assert!(!own || !text.contains("wasm-sdk"), "{path} of {template:?}: {text}");
        }
        let manifest: toml::Table = files["Cargo.toml"].parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-game"));
        let sdk = &manifest["dependencies"]["rookery-sdk"];
        assert_eq!(sdk["path"].as_str(), Some(".rookery/sdk"));
        assert!(files.contains_key(".rookery/sdk/wit/match.wit") && files.contains_key(".gitignore"));
        assert!(files["README.md"].starts_with("# my-game\n") && files["README.md"].contains("my-game.wasm"));
        let lock: toml::Table = files["Cargo.lock"].parse().unwrap();
        let locked = lock["package"].as_array().unwrap();
        let local = locked.iter().filter(|package| package.get("source").is_none());
        let local: Vec<_> = local.filter_map(|package| package["name"].as_str()).collect();
        assert!(
            local.len() == 2 && local.contains(&"rookery-sdk") && local.contains(&"my-game"),
            "{local:?}"
        );
        assert!(
            locked
                .iter()
                .any(|package| package["name"].as_str() == Some("wit-bindgen"))
        );
    }
}

#[test]
fn a_crate_with_an_sdk_elsewhere_gets_no_sources_of_it() {
    let files = written(Template::Zone, &Dependency::Version("0.1".into()));
    assert!(
        files["Cargo.toml"].contains("rookery-sdk = \"0.1\"\n"),
        "{}",
        files["Cargo.toml"]
    );
    assert!(files.keys().all(|path| !path.starts_with(".rookery")));
    assert!(!files["README.md"].contains(".rookery") && files["README.md"].contains("world.toml"));
}

#[test]
fn what_is_there_already_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes"), "mine").unwrap();
    let refused = create(dir.path(), "notes", Template::TurnBased, &Dependency::Own).unwrap_err();
    assert!(refused.to_string().contains("nothing was written"), "{refused}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_name_is_one_that_a_module_and_a_crate_may_have() {
    let name = |path: &str| name_of(Path::new(path));
    for good in ["chess", "four-in_a-row2", "./games/chess", "games/chess/"] {
        assert!(name(good).is_ok(), "{good}");
    }
    assert_eq!(name("games/chess/"), Ok("chess".into()));
    for bad in ["Chess", "4wins", "a b", "", "/", "..", "-x", "schach♟", &"a".repeat(65)] {
        assert!(matches!(name(bad), Err(BadArgument::Characters(_))), "{bad}");
    }
    for taken in ["match", "test", "serde", "rookery-sdk"] {
        assert_eq!(name(taken), Err(BadArgument::Taken(taken.into())));
    }
}

#[test]
fn the_sdk_of_a_crate_is_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let renew = || {
        Sdk {
            dir: dir.path().to_owned(),
        }
        .run()
    };
    assert!(renew().unwrap_err().to_string().contains("no Cargo.toml"));
    std::fs::write(dir.path().join("Cargo.toml"), "").unwrap();
    let old = dir.path().join(sdk::DIR).join("src/old.rs");
    write(&old, "gone with its version").unwrap();
    renew().unwrap();
    assert!(!old.exists());
    assert_eq!(files_below(&dir.path().join(sdk::DIR)).len(), sdk::files().len());
}
