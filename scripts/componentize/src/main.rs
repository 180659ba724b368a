//! `rookery build` without the server around it: `componentize DIR OUT`. It shares the server's code, and is a binary of its own
//! because the server embeds the components that this makes.

use std::path::PathBuf;
use std::process::ExitCode;

#[allow(unreachable_pub, reason = "these are the server's public modules")]
#[path = "../../../node/src/cli/build.rs"]
mod build;
#[allow(unreachable_pub, reason = "these are the server's public modules")]
#[path = "../../../node/src/component.rs"]
mod component;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [dir, out] = arguments.as_slice() else {
        eprintln!("usage: componentize DIR OUT");
        return ExitCode::from(64);
    };
    match build::build(dir, Some(out)) {
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
