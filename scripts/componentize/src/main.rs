//! `rookery build` and `rookery module componentize` without the server around them: `componentize DIR OUT` for a Rust crate,
//! `componentize CORE.wasm --out OUT` for a core module. It shares the server's code, and is a binary of its own because the server
//! embeds the components that this makes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[allow(unreachable_pub, reason = "these are the server's public modules")]
#[path = "../../../node/src/cli/build.rs"]
mod build;
#[allow(unreachable_pub, reason = "these are the server's public modules")]
#[path = "../../../node/src/component.rs"]
mod component;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let built = match arguments.as_slice() {
        [dir, out] => build::build(dir, Some(out)),
        [core_module, option, out] if option == Path::new("--out") => build::wrap(core_module, out),
        _ => {
            eprintln!("usage: componentize DIR OUT\n       componentize CORE.wasm --out OUT");
            return ExitCode::from(64);
        }
    };
    match built {
        Ok(built) => {
            println!("{} {} bytes", built.component.display(), built.size_bytes);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
