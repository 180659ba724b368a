//! The binary under test: `ROOKERY_BIN` if it is set, else this workspace's, built once a test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Returns the path of the `rookery` binary, and builds it first unless `ROOKERY_BIN` names one.
pub fn rookery_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("ROOKERY_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    // `target/<profile>/deps/cluster-…`: the node is built with the profile that the test was built with.
    let profile_dir = own
        .ancestors()
        .nth(2)
        .expect("cargo puts tests two levels below the profile");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("ROOKERY_BIN is not set: building the node (cargo build -p rookery --bin rookery --profile {profile})");
    let built = Command::new(cargo)
        .args(["build", "-p", "rookery", "--bin", "rookery", "--profile", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.expect("cargo runs").success(), "the node does not build");
    profile_dir.join("rookery")
}
