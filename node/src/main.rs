//! The `rookery` binary: a command line around the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rookery::cli::main()
}
