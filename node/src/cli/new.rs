//! `rookery new` and `rookery sdk`: write a crate of match logic that builds and passes its own tests, and the SDK that it depends on.
//! What is written is in `new/template.rs` and `new/sdk.rs`; here is where it goes, and what is refused.
//!
//! The SDK is on no registry yet. Its sources are in this binary and are written into the crate, so that the crate builds on any
//! machine and anywhere it is copied to, with the contract of exactly this version; a path into a clone would name one machine's
//! directory, and a git dependency needs a network and a server that is up.

mod sdk;
mod template;

#[cfg(test)]
mod tests;

use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::say;
use sdk::Dependency;

/// Write a new crate of match logic, which builds and passes its own tests.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  rookery new chess --template turn-based\n\nThe templates are in Rust. The same match in C, \
                        AssemblyScript, JavaScript and Python is in examples/languages\nof the repository, each a directory to copy."
)]
pub(super) struct New {
    /// The directory to make; its last part is the name of the crate and of the module: a-z, 0-9, '-', '_'.
    #[arg(value_name = "NAME")]
    path: PathBuf,
    /// What kind of match it begins as.
    #[arg(long, value_enum, default_value_t)]
    template: Template,
    /// The SDK to depend on instead of the one in this binary: the directory of its sources, or a version on the registry.
    #[arg(long, value_name = "PATH|VERSION")]
    sdk: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Template {
    /// Two players take turns; JSON.
    #[default]
    TurnBased,
    /// Many move at once, 20 ticks a second; MessagePack.
    Realtime,
    /// A place of a world that players walk through; JSON.
    Zone,
}

/// Replace the SDK's sources in a crate with those of this binary.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  rookery sdk chess")]
pub(super) struct Sdk {
    /// The crate's directory.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// What the command line says and cannot be done.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BadArgument {
    #[error("{0:?} cannot be a name: 1 to 64 of a-z, 0-9, '-', '_', the first one a letter")]
    Characters(String),
    #[error("{0:?} cannot be a name: it is a word of the language or a crate that match logic uses; try {0}-game")]
    Taken(String),
    #[error(
        "there is no SDK in {0}: --sdk takes the directory that has the Cargo.toml of rookery-sdk, or a version such as 0.1"
    )]
    NoSdk(String),
}

impl New {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let name = name_of(&self.path)?;
        let dependency = match &self.sdk {
            Some(asked) => Dependency::parse(asked, &self.path)?,
            None => Dependency::Own,
        };
        create(&self.path, &name, self.template, &dependency)?;
        let kind = self.template.to_possible_value().expect("no variant is hidden");
        say(format!("{} is a {} match. Next:", self.path.display(), kind.get_name()));
        say(format!("  cd {}", self.path.display()));
        say("  cargo test       plays it natively");
        say(format!("  rookery build    makes {name}.wasm"));
        say(format!("  rookery dev {name}.wasm --watch    plays it in a browser"));
        Ok(ExitCode::SUCCESS)
    }
}

impl Sdk {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if !self.dir.join("Cargo.toml").is_file() {
            bail!(
                "{} has no Cargo.toml: name the directory of a match-logic crate",
                self.dir.display()
            );
        }
        let sdk = self.dir.join(sdk::DIR);
        // What an older version had and this one lacks must not stay.
        match std::fs::remove_dir_all(&sdk) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", sdk.display()));
            }
            Ok(()) | Err(_) => {}
        }
        for (path, text) in sdk::files() {
            write(&sdk.join(path), &text)?;
        }
        say(format!(
            "{} is that of rookery {}",
            sdk.display(),
            env!("CARGO_PKG_VERSION")
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the crate. A directory that has something in it is left as it is.
fn create(dir: &Path, name: &str, template: Template, dependency: &Dependency) -> anyhow::Result<()> {
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is there already and not empty; nothing was written", dir.display());
    }
    for (path, text) in template::files(template, name, dependency) {
        write(&dir.join(path), &text)?;
    }
    if *dependency == Dependency::Own {
        for (path, text) in sdk::files() {
            write(&dir.join(sdk::DIR).join(path), &text)?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The last part of the path, if a module and a crate may both be called so.
fn name_of(path: &Path) -> Result<String, BadArgument> {
    let last = match path.components().next_back() {
        Some(Component::Normal(last)) => last.to_string_lossy().into_owned(),
        _ => return Err(BadArgument::Characters(path.display().to_string())),
    };
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
    if last.len() > 64 || !last.starts_with(|c: char| c.is_ascii_lowercase()) || !last.chars().all(allowed) {
        return Err(BadArgument::Characters(last));
    }
    match NOT_NAMES.contains(&last.as_str()) {
        true => Err(BadArgument::Taken(last)),
        false => Ok(last),
    }
}

/// Cargo takes no keyword for a library, and two crates of one name make a dependency of itself.
const NOT_NAMES: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "rmp-serde",
    "rookery-sdk",
    "rookery_sdk",
    "self",
    "serde",
    "serde_json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "thiserror",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "wit-bindgen",
    "yield",
];
