//! `cargo xtask fuzz`: libFuzzer on the targets of `tests/fuzz`, with the pinned toolchain.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    setup,
    shell::{self, command},
    toolchain, workspace,
};

/// The package of the targets.
const PACKAGE: &str = "palisade-fuzz";

/// The feature that its targets need, and nothing else.
const FEATURE: &str = "libfuzzer";

/// Compiles libFuzzer.
const COMPILER: &[setup::Program] = &[("g++", "g++")];

/// What libFuzzer asks of a compiler: counters on edges, and calls where something is compared. A number that
/// overflows is a find.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions --cfg=fuzzing";

/// Longest input, in bytes: some frames, or a manifest.
const LONGEST: usize = 2048;

/// Seconds for one input, after which it hangs.
const HANGS: u64 = 10;

/// Options of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Options {
    /// The target; all of them, one after the other, if none is named
    target: Option<String>,
    /// For how long, each
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> = targets
        .iter()
        .filter(|name| options.target.as_ref().is_none_or(|target| target == *name))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "there are these targets: {}",
        targets.join(", ")
    );
    setup::programs(COMPILER)?;
    setup::ebpf()?;
    let folder = workspace::target_folder()?.join("fuzz");
    let triple = toolchain::rustc_says("rustc".as_ref(), "host")?;
    build(&targets, &folder, &triple)?;
    let programs = folder.join(triple).join("release");
    for name in chosen {
        fuzz(name, &programs, &folder, options.minutes * 60)?;
    }
    Ok(())
}

/// The programs of the package that are targets.
fn targets() -> Result<Vec<String>> {
    let packages = workspace::metadata()?.workspace_packages().into_iter();
    let bins = packages
        .filter(|package| package.name.as_str() == PACKAGE)
        .flat_map(|package| &package.targets)
        .filter(|target| target.required_features.iter().any(|it| it == FEATURE));
    let names: Vec<String> = bins.map(|target| target.name.clone()).collect();
    ensure!(!names.is_empty(), "{PACKAGE} has no targets");
    Ok(names)
}

/// In a folder of its own, for nothing else is built like that.
fn build(targets: &[String], folder: &Path, triple: &str) -> Result<()> {
    let mut build = command("cargo build --release --package");
    // Named, for build scripts are not to be built like that.
    build.args([PACKAGE, "--features", FEATURE, "--target", triple]);
    for target in targets {
        build.args(["--bin", target]);
    }
    // Nobody waits for packets here, but for the compiler.
    build.args([
        "--config",
        "profile.release.package.palisade.opt-level=1",
        "--target-dir",
    ]);
    build
        .arg(folder)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none");
    shell::run(&mut build)
}

/// From the corpus as it is committed; afterwards it has what covers more.
fn fuzz(name: &str, programs: &Path, folder: &Path, seconds: u64) -> Result<()> {
    let [found, all, small] =
        ["found", "all", "small"].map(|part| folder.join("corpus").join(name).join(part));
    for part in [&all, &small] {
        if part.exists() {
            fs::remove_dir_all(part).with_context(|| format!("remove {}", part.display()))?;
        }
    }
    for part in [&found, &small] {
        fs::create_dir_all(part).with_context(|| format!("make {}", part.display()))?;
    }
    let program = |name: &str| command(&programs.join(name).display().to_string());
    shell::run(corpus("unpack", name).arg(&all))?;
    let mut fuzz = program(name);
    fuzz.arg(&all)
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-verbosity=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-timeout={HANGS}"));
    shell::run(&mut fuzz)?;
    let mut merge = program(name);
    merge.arg("-merge=1").arg(&small).arg(&all);
    shell::run(&mut merge)?;
    shell::run(corpus("pack", name).arg(&small))
}

/// Between the committed corpus of a target and a folder.
fn corpus(what: &str, target: &str) -> Command {
    let mut corpus = command("cargo run --quiet --package");
    corpus.args([PACKAGE, "--bin", "corpus", "--", what, target]);
    corpus
}
