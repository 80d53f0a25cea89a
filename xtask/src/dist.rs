//! `cargo xtask dist`: the static release binary, for this architecture or another.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::{
    setup,
    shell::{self, command},
    workspace,
};

/// For the linker: equal functions are one, and relocations are packed (`DT_RELR`, of the C library since musl 1.2.4).
const SMALLER: &str = "-C link-arg=--icf=all -C link-arg=--pack-dyn-relocs=relr";

/// What the binary may weigh: it is pulled by every node.
const LIMIT: u64 = 20_000_000;

/// An architecture that Palisade runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Target {
    /// The architecture of this machine.
    pub(crate) fn host() -> Result<Self> {
        match ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => bail!("Palisade does not build on {other}"),
        }
    }

    /// The target whose binaries are static.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// As Rust and the kernel call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Go, and with it images, call it.
    pub(crate) fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// A compiler for the C code in dependencies, and the headers that it reads.
    fn c_compiler(self) -> Result<&'static [setup::Program]> {
        Ok(match (self, Self::host()?) {
            (Self::X86_64, Self::X86_64) | (Self::Aarch64, Self::Aarch64) => {
                &[("musl-gcc", "musl-tools")]
            }
            (Self::X86_64, Self::Aarch64) => &[
                ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
                (
                    "/usr/x86_64-linux-gnu/include/stdint.h",
                    "libc6-dev-amd64-cross",
                ),
            ],
            (Self::Aarch64, Self::X86_64) => &[
                ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
                (
                    "/usr/aarch64-linux-gnu/include/stdint.h",
                    "libc6-dev-arm64-cross",
                ),
            ],
        })
    }
}

/// Options of `cargo xtask dist`.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// The architecture; this machine's if not given
    #[arg(long, value_enum)]
    target: Option<Target>,
}

impl Options {
    /// The architecture that is meant.
    pub(crate) fn target(&self) -> Result<Target> {
        self.target.map_or_else(Target::host, Ok)
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    binary(options.target()?)?;
    Ok(())
}

/// Writes a manual page of every command.
pub(crate) fn man() -> Result<()> {
    setup::ebpf()?;
    let pages = folder()?.join("man");
    // A command that is gone has none.
    if pages.exists() {
        fs::remove_dir_all(&pages).with_context(|| format!("remove {}", pages.display()))?;
    }
    let mut write = command("cargo run --quiet --package palisade --example man --");
    shell::run(write.arg(&pages))?;
    println!("man --local-file {}", pages.join("palisade.1").display());
    Ok(())
}

/// Builds Palisade for an architecture, and sees that the binary is as promised; where it is.
pub(crate) fn binary(target: Target) -> Result<PathBuf> {
    setup::ebpf()?;
    let built = build(target, "palisade", "palisade")?;

    let file = program(target)?;
    fs::copy(&built, &file).with_context(|| format!("write {}", file.display()))?;
    let size = check(&file)?;
    println!("{}: {:.1} MB, static", file.display(), size as f64 / 1e6);
    Ok(file)
}

/// Where the binary for an architecture lies.
pub(crate) fn program(target: Target) -> Result<PathBuf> {
    Ok(folder()?.join(format!("palisade-{}", target.name())))
}

/// Where everything lies that is given to others.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = workspace::target_folder()?.join("dist");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// Builds a program, released and static; where it is.
pub(crate) fn build(target: Target, package: &str, program: &str) -> Result<PathBuf> {
    let triple = target.triple();
    setup::target(triple)?;
    let mut cargo = command("cargo build --release");
    cargo.args(["--package", package, "--bin", program, "--target", triple]);
    arrange(&mut cargo, target)?;
    shell::run(&mut cargo)?;
    let folder = workspace::target_folder()?.join(triple).join("release");
    Ok(folder.join(program))
}

/// The toolchain's own linker does for every target; C code needs a compiler.
fn arrange(cargo: &mut Command, target: Target) -> Result<()> {
    let triple = target.triple();
    let variable = triple.replace('-', "_");
    let linker = format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase());
    cargo.env(linker, "rust-lld");
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", variable.to_uppercase());
    cargo.env(flags, SMALLER);
    if workspace::metadata()?
        .packages
        .iter()
        .any(|package| *package.name == "cc")
    {
        let programs = target.c_compiler()?;
        setup::programs(programs)?;
        cargo.env(format!("CC_{variable}"), programs[0].0);
    }
    Ok(())
}

/// The size, if it is as promised.
fn check(file: &Path) -> Result<u64> {
    let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    ensure!(
        is_static(&content).context("not a 64-bit little-endian ELF file")?,
        "{} asks for a dynamic linker",
        file.display()
    );
    let size = content.len() as u64;
    ensure!(
        size < LIMIT,
        "{} has {size} bytes, the limit is {LIMIT}",
        file.display()
    );
    Ok(size)
}

/// Whether no program header of an ELF file is `PT_INTERP`.
fn is_static(elf: &[u8]) -> Option<bool> {
    const INTERPRETER: [u8; 4] = [3, 0, 0, 0];
    let word = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    elf.starts_with(b"\x7fELF\x02\x01").then_some(())?;
    let first = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?);
    let (size, count) = (word(54)?, word(56)?);
    for index in 0..usize::from(count) {
        let at = usize::try_from(first).ok()? + index * usize::from(size);
        if elf.get(at..at + 4)? == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_of_the_host_is_not_static() -> Result<()> {
        let this = fs::read(std::env::current_exe()?)?;
        assert_eq!(is_static(&this), Some(false));
        Ok(())
    }

    #[test]
    fn what_is_cut_short_is_no_program() -> Result<()> {
        let this = fs::read(std::env::current_exe()?)?;
        assert_eq!(is_static(&this[..100]), None);
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
        Ok(())
    }
}
