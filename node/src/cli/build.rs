//! `rookery build`: compiles a Rust crate of match logic for wasm32 and makes the component. It runs the reader's own cargo; it
//! downloads no toolchain, but says how to get one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::component::componentize;

/// What was built.
#[derive(Debug)]
pub struct Built {
    pub component: PathBuf,
    pub size_bytes: usize,
}

const TARGET: &str = "wasm32-unknown-unknown";

/// The guest's stack. The linker's default of 1 MiB would be the larger part of a small match's memory, which snapshots copy;
/// 256 KiB hold serde_json's deepest nesting (128 levels) several times over.
const STACK_BYTES: u32 = 256 * 1024;

/// Where `rookery new` puts the SDK's sources in a crate.
const OWN_SDK: &str = ".rookery/sdk";

const NO_CARGO: &str = "cannot run cargo: is Rust installed (https://rustup.rs)?";

/// Builds the crate in `dir` and writes its component to `out`, or to `<dir>/<crate name>.wasm`.
pub fn build(dir: &Path, out: Option<&Path>) -> anyhow::Result<Built> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("there is no directory {}", dir.display()))?;
    let manifest = dir.join("Cargo.toml");
    let Ok(text) = std::fs::read_to_string(&manifest) else {
        bail!(
            "{} has no Cargo.toml: name the directory of a match-logic crate",
            dir.display()
        );
    };
    if text.contains(OWN_SDK) && !dir.join(OWN_SDK).join("Cargo.toml").is_file() {
        bail!(
            "{} depends on the SDK in {OWN_SDK}, which is not there: `rookery sdk {}` writes it again",
            manifest.display(),
            dir.display()
        );
    }
    let packages = local_packages(&manifest)?;
    check_crate(&packages, &manifest)?;
    let artifact = compile(&manifest, &packages, &guest_rustc()?)?;
    let core_module =
        std::fs::read(&artifact.file).with_context(|| format!("cannot read {}", artifact.file.display()))?;
    let out = match out {
        Some(out) => out.to_owned(),
        None => dir.join(format!("{}.wasm", artifact.name)),
    };
    write_component(&core_module, out)
}

/// Makes the component of a core module that some other compiler made.
pub fn wrap(core_module: &Path, out: &Path) -> anyhow::Result<Built> {
    let bytes = std::fs::read(core_module).with_context(|| format!("cannot read {}", core_module.display()))?;
    write_component(&bytes, out.to_owned())
}

fn write_component(core_module: &[u8], out: PathBuf) -> anyhow::Result<Built> {
    let component = componentize(core_module)?;
    write_whole(&out, &component).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(Built {
        component: out,
        size_bytes: component.len(),
    })
}

struct Artifact {
    name: String,
    file: PathBuf,
}

/// Lets cargo compile and say where the module is: its target directory may be anywhere.
fn compile(manifest: &Path, packages: &[Package], rustc: &Path) -> anyhow::Result<Artifact> {
    let output = cargo()
        .args([
            "build",
            "--release",
            "--lib",
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--config")
        .arg(format!("target.{TARGET}.rustflags={:?}", rustflags(packages, rustc)?))
        .env("RUSTC", rustc)
        // A wrapper (sccache, clippy) knows the host's compiler, not this one; flags for the host are not for the guest.
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context(NO_CARGO)?;
    if !output.status.success() {
        bail!("cargo could not compile {}", manifest.display());
    }
    find_artifact(&output.stdout, manifest)
}

/// Picks the crate's own module out of cargo's messages, one JSON object a line.
fn find_artifact(messages: &[u8], manifest: &Path) -> anyhow::Result<Artifact> {
    #[derive(serde::Deserialize)]
    struct Message {
        reason: String,
        manifest_path: Option<PathBuf>,
        target: Option<Made>,
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    #[derive(serde::Deserialize)]
    struct Made {
        name: String,
    }
    for line in messages.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Message>(line) else {
            continue;
        };
        if message.reason != "compiler-artifact" || message.manifest_path.as_deref() != Some(manifest) {
            continue;
        }
        let module = message
            .filenames
            .into_iter()
            .find(|file| file.extension().is_some_and(|kind| kind == "wasm"));
        if let (Some(file), Some(target)) = (module, message.target) {
            return Ok(Artifact {
                name: target.name.replace('_', "-"),
                file,
            });
        }
    }
    bail!("{}", no_module(manifest))
}

fn no_module(manifest: &Path) -> String {
    format!(
        "{} makes no WebAssembly module: its [lib] needs crate-type = [\"cdylib\"]",
        manifest.display()
    )
}

/// Panics carry the paths of their source files. These are shortened, so that a component does not depend on whose machine built
/// it, and tells nobody.
fn rustflags(packages: &[Package], rustc: &Path) -> anyhow::Result<Vec<String>> {
    let mut flags = vec![format!("-Clink-arg=-zstack-size={STACK_BYTES}")];
    let mut remap = |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    for package in packages {
        remap(
            package.manifest_path.parent().unwrap_or(&package.manifest_path),
            &package.name,
        );
    }
    if let Some(registry) = cargo_home().map(|home| home.join("registry").join("src")) {
        for index in std::fs::read_dir(registry).into_iter().flatten().flatten() {
            remap(&index.path(), "crates");
        }
    }
    let sysroot = sysroot(rustc).context("the compiler does not say where its libraries are")?;
    remap(&sysroot.join("lib/rustlib/src/rust"), "/rustc/std");
    Ok(flags)
}

#[derive(serde::Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(serde::Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

impl Package {
    fn makes_module(&self) -> bool {
        let mut kinds = self.targets.iter().flat_map(|target| &target.crate_types);
        kinds.any(|kind| kind == "cdylib")
    }
}

/// Finds what is wrong with the crate before it is compiled for a minute.
fn check_crate(packages: &[Package], manifest: &Path) -> anyhow::Result<()> {
    let Some(package) = packages.iter().find(|package| package.manifest_path == manifest) else {
        let modules = packages.iter().filter(|package| package.makes_module());
        let names: Vec<_> = modules.map(|package| package.name.as_str()).collect();
        let members = match names.as_slice() {
            [] => "none of its members is match logic".to_owned(),
            names => format!("name the directory of one of its members: {}", names.join(", ")),
        };
        bail!("{} is a workspace and no crate; {members}", manifest.display());
    };
    if !package.makes_module() {
        bail!("{}", no_module(manifest));
    }
    Ok(())
}

/// The packages that come from directories and not from a registry: the crate, its neighbours, a vendored SDK. Asking before the
/// compiler's flags are made also lets cargo fetch what is missing, so that the registry's directory exists when it is looked at.
fn local_packages(manifest: &Path) -> anyhow::Result<Vec<Package>> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let output = cargo()
        .args([
            "metadata",
            "--format-version=1",
            "--filter-platform",
            TARGET,
            "--manifest-path",
        ])
        .arg(manifest)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context(NO_CARGO)?;
    if !output.status.success() {
        bail!("cargo cannot read {}", manifest.display());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata is not readable")?;
    Ok(metadata
        .packages
        .into_iter()
        .filter(|package| package.source.is_none())
        .collect())
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn cargo_home() -> Option<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// Finds a compiler that has the guest's standard library: the one named by `GUEST_RUSTC`, the reader's own, or the one that
/// scripts/wasm-target keeps in the cache.
fn guest_rustc() -> anyhow::Result<PathBuf> {
    if let Some(rustc) = std::env::var_os("GUEST_RUSTC").map(PathBuf::from) {
        if !has_target(&rustc) {
            bail!("GUEST_RUSTC is {}, which has no {TARGET}", rustc.display());
        }
        return Ok(rustc);
    }
    let own = PathBuf::from(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let cached = cache_home().map(|cache| cache.join("rookery/wasm-target/bin/rustc"));
    if let Some(rustc) = [Some(own), cached]
        .into_iter()
        .flatten()
        .find(|rustc| has_target(rustc))
    {
        return Ok(rustc);
    }
    bail!(
        "no Rust compiler here can build for {TARGET}.\n\
         With rustup:    rustup target add {TARGET}\n\
         On Debian:      eval \"$(scripts/wasm-target)\"   (in a clone of Rookery)\n\
         Or set GUEST_RUSTC to a rustc that has it."
    )
}

fn cache_home() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value: &OsString| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim_end()))
}

fn has_target(rustc: &Path) -> bool {
    let Some(sysroot) = sysroot(rustc) else {
        return false;
    };
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    std::fs::read_dir(libraries)
        .into_iter()
        .flatten()
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Writes a file so that a reader (a node that watches it) sees the old one or the new one, never a half.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let unfinished = path.with_extension(format!("wasm.{}", std::process::id()));
    std::fs::write(&unfinished, bytes)?;
    std::fs::rename(&unfinished, path)
}

// The path is given because scripts/componentize includes this file from elsewhere.
#[cfg(test)]
#[path = "build/tests.rs"]
mod tests;
