//! Builds the BPF programs of the `ebpf` crate into `OUT_DIR/palisade-ebpf`.
//!
//! One toolchain compiles both sides: `RUSTC_BOOTSTRAP` lets the pinned stable one build `core`
//! for the BPF target.

use std::{
    env,
    ffi::OsString,
    path::Path,
    process::{Command, exit},
};

use anyhow::{Context, Result};
use aya_build::{Package, Toolchain};

#[path = "../../xtask/src/toolchain.rs"]
mod toolchain;

/// Set in the second run of this script.
const ARRANGED: &str = "PALISADE_EBPF_ENVIRONMENT";

fn main() -> Result<()> {
    if let Some(toolchain) = env::var_os(ARRANGED) {
        return build(&toolchain);
    }
    let rustc = env::var_os("RUSTC").context("RUSTC is not set")?;
    let release = toolchain::rustc_says(&rustc, "release")?;
    let linker = toolchain::bpf_linker(&release)?;

    println!("cargo::rerun-if-env-changed=XDG_CACHE_HOME");
    println!("cargo::rerun-if-changed={}", linker.display());
    // The sources of `ebpf` itself are named by `aya_build`.
    for input in [
        "Cargo.lock",
        "Cargo.toml",
        "common/Cargo.toml",
        "common/src",
    ] {
        println!("cargo::rerun-if-changed=../../{input}");
    }
    if !linker.exists() {
        let linker = linker.display();
        println!("cargo::error=there is no {linker}: run `cargo xtask setup`");
        exit(1);
    }
    arrange(&linker, &release)
}

/// Runs this script again in the environment that the inner build is to inherit: to change
/// one's own is unsafe.
fn arrange(linker: &Path, release: &str) -> Result<()> {
    let script = env::current_exe().context("find the build script")?;
    let toolchain = env::var_os("RUSTUP_TOOLCHAIN").unwrap_or_else(|| release.into());
    let status = Command::new(script)
        .env(ARRANGED, toolchain)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_TARGET_BPFEB_UNKNOWN_NONE_LINKER", linker)
        // Each line of progress would become a warning.
        .env("CARGO_TERM_QUIET", "true")
        .status()
        .context("run the build script again")?;
    exit(status.code().unwrap_or(1))
}

fn build(toolchain: &OsString) -> Result<()> {
    let toolchain = toolchain.to_str().context("the name of the toolchain")?;
    let package = Package {
        name: "palisade-ebpf",
        root_dir: "../../ebpf",
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(toolchain))
}
