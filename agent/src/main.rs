//! The `palisade` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    palisade::cli::main()
}
