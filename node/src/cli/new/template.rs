//! The crates that `rookery new` begins with: `examples/templates`, which are compiled and tested there, with the name and the SDK of
//! the new crate in place of their own.

use super::Template;
use super::sdk::Dependency;

/// A crate of `examples/templates`, by its files.
struct Source {
    /// The crate's name, which stands nowhere in its files for anything else.
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
}

macro_rules! template {
    ($name:literal, $($path:literal),*) => {
        Source {
            name: concat!("template-", $name),
            files: &[$(($path, include_str!(concat!("../../../../examples/templates/", $name, "/", $path)))),*],
        }
    };
}

const TURN_BASED: Source = template!("turn-based", "Cargo.toml", "README.md", "src/lib.rs", "src/tests.rs");
const REALTIME: Source = template!("realtime", "Cargo.toml", "README.md", "src/lib.rs", "src/tests.rs");
const ZONE: Source = template!(
    "zone",
    "Cargo.toml",
    "README.md",
    "world.toml",
    "src/lib.rs",
    "src/tests.rs"
);

/// Where the templates find the SDK.
const SDK_IN_TEMPLATE: &str = "{ path = \"../../../wasm-sdk\" }";

/// What a crate needs when no workspace is around it. A workspace of its own keeps one further up from claiming it; the profile is
/// that of the templates' workspace.
const ROOT: &str = r#"
# The crate is on its own, also inside of another one's directory.
[workspace]
exclude = [".rookery"]

# Small and fast: a component is compiled again by every node that meets it.
[profile.release]
opt-level = "s"
lto = true
codegen-units = 1
panic = "abort"
strip = true
"#;

/// The versions that the templates were tested with. What a new crate does not need of it, cargo drops when it first writes it.
const LOCK: &str = include_str!("../../../../examples/Cargo.lock");

const IGNORED: &str = "/target\n/*.wasm\n";

/// The files of a new crate, by their paths in it.
pub(super) fn files(template: Template, name: &str, dependency: &Dependency) -> Vec<(&'static str, String)> {
    let source = match template {
        Template::TurnBased => &TURN_BASED,
        Template::Realtime => &REALTIME,
        Template::Zone => &ZONE,
    };
    let render = |(path, text): &(&'static str, &'static str)| {
        let text = text.replace(source.name, name);
        match *path {
            "Cargo.toml" => (*path, text.replace(SDK_IN_TEMPLATE, &dependency.to_toml()) + ROOT),
            "README.md" if *dependency != Dependency::Own => (*path, without_sdk(&text)),
            path => (path, text),
        }
    };
    let mut files: Vec<_> = source.files.iter().map(render).collect();
    files.push((".gitignore", IGNORED.to_owned()));
    files.push(("Cargo.lock", lock(source).replace(source.name, name)));
    files
}

/// The lock file with the template and the SDK, and without the rest of our own workspace. With those two in it nothing is left to
/// choose, and the first build asks no registry what there is.
fn lock(source: &Source) -> String {
    let mut packages = LOCK.split("\n[[package]]\n");
    let head = packages.next().unwrap_or_default().to_owned();
    let is_named = |package: &str, name: &str| package.starts_with(&format!("name = \"{name}\"\n"));
    packages
        .filter(|package| {
            package.contains("\nsource = ") || is_named(package, "rookery-sdk") || is_named(package, source.name)
        })
        .fold(head, |lock, package| lock + "\n[[package]]\n" + package)
}

/// The README without the paragraph on the SDK in the crate, where it is elsewhere.
fn without_sdk(readme: &str) -> String {
    let paragraphs = readme.split("\n\n").filter(|text| !text.starts_with("`.rookery/sdk`"));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_of_a_new_crate_is_that_of_the_templates() {
        let workspace: toml::Table = include_str!("../../../../examples/Cargo.toml").parse().unwrap();
        let root: toml::Table = ROOT.parse().unwrap();
        assert_eq!(root["profile"], workspace["profile"]);
    }

    #[test]
    fn every_file_of_a_template_is_written() {
        let templates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/templates");
        for (kind, source) in [("turn-based", &TURN_BASED), ("realtime", &REALTIME), ("zone", &ZONE)] {
            let mut known: Vec<_> = source.files.iter().map(|(path, _)| (*path).to_owned()).collect();
            known.sort();
            assert_eq!(
                known,
                crate::cli::new::tests::files_below(&templates.join(kind)),
                "{kind}"
            );
        }
    }
}
