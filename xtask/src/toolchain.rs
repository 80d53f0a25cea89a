//! Where the tools are that the toolchain lacks, and which they are.
//!
//! Shared with the build script of `palisade-dataplane`, which looks for the linker that
//! `cargo xtask setup` installs.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The linker of the BPF target that builds against the LLVM of the pinned toolchain.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// The folder of everything that outlives the target folder.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(path) => PathBuf::from(path),
        None => env::home_dir()
            .context("neither XDG_CACHE_HOME nor HOME is set")?
            .join(".cache"),
    };
    Ok(base.join("palisade"))
}

/// Where the BPF linker of a compiler's release is kept: it links that compiler's own LLVM.
pub(crate) fn bpf_linker(release: &str) -> Result<PathBuf> {
    let root = format!("bpf-linker-{BPF_LINKER}-{release}");
    Ok(cache()?.join(root).join("bin/bpf-linker"))
}

/// A line of `rustc -vV`, by what stands before its colon.
pub(crate) fn rustc_says(rustc: &OsStr, key: &str) -> Result<String> {
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .with_context(|| format!("run {rustc:?} -vV"))?;
    ensure!(output.status.success(), "{rustc:?} -vV: {}", output.status);
    let text = String::from_utf8(output.stdout).context("rustc -vV")?;
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        (name == key).then(|| value.to_owned())
    });
    value.with_context(|| format!("rustc -vV says no {key:?}"))
}
