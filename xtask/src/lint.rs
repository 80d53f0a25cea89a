//! `cargo xtask lint`: everything that reads the code and does not run it.

use std::process::Command;

use anyhow::Result;

use crate::{
    cluster::components,
    deploy, setup,
    shell::{self, command},
    tidy, workspace,
};

/// The package that is for the BPF target alone.
pub(crate) const BPF: &str = "palisade-ebpf";

pub(crate) fn run() -> Result<()> {
    format()?;
    tidy::run()?;
    clippy()?;
    clippy_bpf()?;
    document()?;
    chart(&mut Vec::new())?;
    licences()
}

/// The chart and the manifests, where helm can be built; adds what was skipped.
pub(crate) fn chart(skips: &mut Vec<String>) -> Result<()> {
    match components::compiler() {
        Ok(_) => deploy::check(),
        Err(error) => {
            let reason = format!("the chart is not checked: {error:#}");
            println!("SKIP: {reason}");
            skips.push(reason);
            Ok(())
        }
    }
}

pub(crate) fn format() -> Result<()> {
    shell::run(&mut command("cargo fmt --all --check"))
}

/// Every target of every package of the host. Nicely, as the others here: of what is built beside them more is waited for.
pub(crate) fn clippy() -> Result<()> {
    setup::ebpf()?;
    let mut clippy = host("nice cargo clippy --features palisade-tests/bench");
    shell::run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
}

pub(crate) fn clippy_bpf() -> Result<()> {
    setup::ebpf()?;
    // A folder of its own: RUSTC_BOOTSTRAP is an input of many build scripts.
    let folder = workspace::target_folder()?.join("bpf");
    let mut clippy = command("nice cargo clippy -Z build-std=core --target bpfel-unknown-none");
    clippy
        .args(["--package", BPF, "--target-dir"])
        .arg(folder)
        .args(["--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1");
    shell::run(&mut clippy)
}

/// Private items too, so that links to them hold.
pub(crate) fn document() -> Result<()> {
    setup::ebpf()?;
    let mut doc = host("nice cargo doc");
    doc.args(["--no-deps", "--document-private-items"]).env(
        "RUSTDOCFLAGS",
        "-D warnings -A rustdoc::private-intra-doc-links",
    );
    shell::run(&mut doc)
}

pub(crate) fn licences() -> Result<()> {
    let deny = setup::deny()?.display().to_string();
    println!("advisories are not checked: their database is fetched from the network");
    shell::run(command(&deny).args(["check", "licenses", "bans", "sources"]))
}

/// A command of cargo for all packages of the host.
pub(crate) fn host(words: &str) -> Command {
    let mut cargo = command(words);
    cargo.args(["--workspace", "--exclude", BPF]);
    cargo
}
