//! Binaries of this workspace that tests start, built when they are first asked for.

use std::path::PathBuf;
use std::process::Command;

/// Returns the path of a binary of the workspace, and builds it first with the profile that the test was built with.
///
/// # Panics
/// When it does not build.
pub fn workspace_binary(package: &str, binary: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    // `target/<profile>/deps/cluster-…`, or `target/<profile>/…` for a program.
    let profile_dir = own.ancestors().find(|dir| dir.join("deps").is_dir());
    let profile_dir = profile_dir.expect("cargo keeps dependencies below the profile");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(profile) => profile,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", package, "--bin", binary, "--profile", profile]);
    // What cargo tells a test of its package would reach the build scripts of this build, and `ring`, which looks at it, would be
    // built anew each time, and everything that stands on it.
    for (key, _) in std::env::vars_os() {
        let of_the_test = |key: &str| key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_");
        if key.to_str().is_some_and(of_the_test) {
            cargo.env_remove(key);
        }
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.expect("cargo runs").success(), "{binary} does not build");
    profile_dir.join(binary)
}
