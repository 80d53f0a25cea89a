//! Writes a manual page of every command into a folder; `cargo xtask man` runs it.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let folder = env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("into which folder?"))?;
    fs::create_dir_all(&folder)?;
    clap_mangen::generate_to(palisade::cli::command(), folder)
}
