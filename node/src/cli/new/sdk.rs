//! The SDK as a new crate depends on it: the sources of `wasm-sdk` in this binary, a directory, or a version on the registry.

use std::path::{Component, Path, PathBuf};

use super::BadArgument;

/// Where the sources go in a crate. Hidden, because nothing there is the author's to change.
pub(super) const DIR: &str = ".rookery/sdk";

macro_rules! sources {
    ($($path:literal),*) => {
        &[$(($path, include_str!(concat!("../../../../wasm-sdk/", $path)))),*]
    };
}

const SOURCES: &[(&str, &str)] = sources!(
    "README.md",
    "src/context.rs",
    "src/guest.rs",
    "src/guide.rs",
    "src/lib.rs",
    "src/manifest.rs",
    "src/manifest/tests.rs",
    "src/matches.rs",
    "src/mock.rs",
    "src/mock/budget.rs",
    "src/mock/recorder.rs",
    "src/mock/tests.rs",
    "src/payload.rs",
    "src/state.rs",
    "src/types.rs",
    "wit/match.wit"
);

const MANIFEST: &str = include_str!("../../../../wasm-sdk/Cargo.toml");
/// Versions and editions stand once, in the workspace's manifest.
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");

/// How a crate names the SDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dependency {
    /// The sources in the crate.
    Own,
    /// As the new crate sees it.
    Path(PathBuf),
    Version(String),
}

impl Dependency {
    /// What `--sdk` says, for a crate in `dir`.
    pub(super) fn parse(asked: &str, dir: &Path) -> Result<Dependency, BadArgument> {
        let path = Path::new(asked);
        if !path.exists() && asked.starts_with(|c: char| c.is_ascii_digit() || "=^~".contains(c)) {
            return Ok(Dependency::Version(asked.to_owned()));
        }
        let named = |table: &toml::Table| Some(table.get("package")?.get("name")?.as_str()? == "rookery-sdk");
        let manifest = std::fs::read_to_string(path.join("Cargo.toml")).ok();
        match manifest.and_then(|manifest| named(&manifest.parse().ok()?)) {
            Some(true) => Ok(Dependency::Path(seen_from(dir, path))),
            Some(false) | None => Err(BadArgument::NoSdk(asked.to_owned())),
        }
    }

    /// The dependency's value in a `Cargo.toml`.
    pub(super) fn to_toml(&self) -> String {
        let path = |path: &Path| {
            format!(
                "{{ path = {} }}",
                toml::Value::from(path.to_string_lossy().into_owned())
            )
        };
        match self {
            Dependency::Own => path(Path::new(DIR)),
            Dependency::Path(directory) => path(directory),
            Dependency::Version(version) => toml::Value::from(version.as_str()).to_string(),
        }
    }
}

/// A path as it looks from a directory to be made. Two relative ones stay relative, so that both may be moved together.
fn seen_from(dir: &Path, path: &Path) -> PathBuf {
    let goes_down = |path: &Path| {
        path.components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    };
    if path.is_relative() && goes_down(dir) {
        let depth = dir
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .count();
        return PathBuf::from("../".repeat(depth)).join(path);
    }
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The SDK's files, by their paths in [`DIR`].
pub(super) fn files() -> Vec<(&'static str, String)> {
    let mut files: Vec<_> = SOURCES.iter().map(|(path, text)| (*path, (*text).to_owned())).collect();
    files.push(("Cargo.toml", manifest()));
    files
}

/// The manifest, which inherits nothing any more: what it has of the workspace is written out.
fn manifest() -> String {
    let mut sdk: toml::Table = MANIFEST.parse().expect("the SDK's manifest is TOML");
    let workspace: toml::Table = WORKSPACE.parse().expect("the workspace's manifest is TOML");
    let inherited = |section: &str| workspace["workspace"][section].as_table().expect("a table");
    inherit(&mut sdk["package"], inherited("package"));
    inherit(&mut sdk["dependencies"], inherited("dependencies"));
    if let Some(targets) = sdk.get_mut("target").and_then(toml::Value::as_table_mut) {
        for (_, target) in targets.iter_mut() {
            inherit(&mut target["dependencies"], inherited("dependencies"));
        }
    }
    // Lints are for who works on the SDK.
    sdk.remove("lints");
    let head = "# The sources of rookery-sdk, written by `rookery new`. `rookery sdk` replaces all of them.\n\n";
    head.to_owned() + &toml::to_string(&sdk).expect("a manifest is TOML again")
}

fn inherit(section: &mut toml::Value, workspace: &toml::Table) {
    let Some(section) = section.as_table_mut() else { return };
    for (key, value) in section.iter_mut() {
        if value.get("workspace").and_then(toml::Value::as_bool) == Some(true) {
            *value = workspace
                .get(key)
                .expect("the workspace has what its members inherit")
                .clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_of_the_sdk_is_written() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-sdk");
        let mut written: Vec<_> = SOURCES.iter().map(|(path, _)| (*path).to_owned()).collect();
        written.push("Cargo.toml".into());
        written.sort();
        let mut there = crate::cli::new::tests::files_below(&sdk);
        there.retain(|path| !path.starts_with("tests/"));
        assert_eq!(written, there);
    }

    #[test]
    fn the_written_manifest_inherits_nothing() {
        let manifest = manifest();
        assert!(!manifest.contains("workspace"), "{manifest}");
        let manifest: toml::Table = manifest.parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("rookery-sdk"));
        assert_eq!(manifest["package"]["edition"].as_str(), Some("2024"));
        assert!(manifest["dependencies"]["serde"].get("version").is_some());
        let guest = &manifest["target"]["cfg(target_arch = \"wasm32\")"]["dependencies"];
        assert!(guest["wit-bindgen"].get("version").is_some());
    }

    #[test]
    fn the_sdk_is_a_directory_a_version_or_nothing() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-sdk");
        let parse = |asked: &str| Dependency::parse(asked, Path::new("games/chess"));
        assert_eq!(parse("0.1").unwrap().to_toml(), "\"0.1\"");
        assert_eq!(parse("=0.1.3").unwrap().to_toml(), "\"=0.1.3\"");
        let path = parse(sdk.to_str().unwrap()).unwrap();
        assert_eq!(path, Dependency::Path(sdk.canonicalize().unwrap()));
        for wrong in ["nowhere", env!("CARGO_MANIFEST_DIR"), ""] {
            assert_eq!(parse(wrong), Err(BadArgument::NoSdk(wrong.into())));
        }
    }

    #[test]
    fn relative_paths_are_seen_from_the_new_crate() {
        let seen = |dir: &str, path: &str| seen_from(Path::new(dir), Path::new(path));
        assert_eq!(seen("chess", "sdk"), Path::new("../sdk"));
        assert_eq!(
            seen("./games/chess", "../rookery/wasm-sdk"),
            Path::new("../../../rookery/wasm-sdk")
        );
        assert_eq!(seen("chess", "/no/such/sdk"), Path::new("/no/such/sdk"));
    }
}
