//! The binary under test: `ROOKERY_BIN` if it is set, else this workspace's, built once a test process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rookery_mesh_tests::workspace_binary;

/// Returns the path of the `rookery` binary, and builds it first unless `ROOKERY_BIN` names one.
pub fn rookery_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("ROOKERY_BIN") {
        Some(path) => path.into(),
        None => {
            eprintln!("ROOKERY_BIN is not set: building the node");
            workspace_binary("rookery", "rookery")
        }
    })
}
