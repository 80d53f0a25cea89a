//! `cargo xtask test`: everything that has to hold before a change is good.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    cluster::{self, components},
    dist, kernels, lint, setup,
    shell::{self, command},
    tidy, workspace,
};

/// The highest tier of the inner loop; what is above needs minutes.
const QUICK: u64 = 2;

/// Called by kube-proxy, and by tests to do what others do on a node.
const TOOLS: &[setup::Program] = &[
    ("iptables", "iptables"),
    ("bpftool", "bpftool"),
    ("openssl", "openssl"),
];

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out what takes minutes: documentation, licences, tests of tier 3, the
    /// release binary, other kernels, a cluster
    #[arg(long)]
    quick: bool,
    /// Only the tests of one tier: 0 pure, 1 properties, 2 programs in the kernel, 3 networks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=3))]
    tier: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut report = Report::default();
    if let Some(tier) = options.tier {
        report.step("tests", |tally| tests(tier..=tier, tally));
        return report.finish();
    }
    report.step("format", |_| lint::format());
    report.step("tidy", |_| tidy::run());
    report.step("clippy", |_| lint::clippy());
    report.step("clippy for BPF", |_| lint::clippy_bpf());
    if options.quick {
        report.step("tests", |tally| tests(0..=QUICK, tally));
    } else {
        report.step("documentation", |_| lint::document());
        report.step("chart", |tally| lint::chart(&mut tally.skips));
        report.step("licences", |_| lint::licences());
        report.step("tests", all_tests);
        report.step("release binary", |_| dist::run(&dist::Options::default()));
        report.step("kernels", |tally| kernels::check_all(&mut tally.skips));
        report.step("cluster", |tally| cluster::check(&mut tally.skips));
    }
    report.finish()
}

fn all_tests(tally: &mut Tally) -> Result<()> {
    let assets = prepare()?;
    let mut cargo = lint::host("cargo test");
    run_tests(cargo.arg("--no-fail-fast"), assets.as_deref(), tally)
}

/// The tests of some tiers, package by package: every target is of tier 0 unless
/// `package.metadata.tier` names it.
fn tests(tiers: RangeInclusive<u64>, tally: &mut Tally) -> Result<()> {
    let assets = prepare()?;
    let mut failures = Vec::new();
    for package in workspace::metadata()?.workspace_packages() {
        if *package.name == lint::BPF {
            continue;
        }
        let tier = |name: &str| package.metadata["tier"][name].as_u64().unwrap_or(0);
        let mut chosen = BTreeSet::new();
        for target in package.targets.iter().filter(|target| target.test) {
            if !tiers.contains(&tier(&target.name)) {
                continue;
            }
            match target {
                lib if lib.is_lib() => chosen.insert("--lib".to_owned()),
                bin if bin.is_bin() => chosen.insert(format!("--bin={}", bin.name)),
                test => chosen.insert(format!("--test={}", test.name)),
            };
        }
        if chosen.is_empty() {
            continue;
        }
        let mut cargo = command("cargo test --no-fail-fast --package");
        cargo.arg(package.name.as_str()).args(chosen);
        if let Err(error) = run_tests(&mut cargo, assets.as_deref(), tally) {
            failures.push(format!("{error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// Installs what tests need; the programs of a control plane and kube-proxy, where they can be had.
fn prepare() -> Result<Option<PathBuf>> {
    setup::programs(setup::NETWORK)?;
    setup::programs(TOOLS)?;
    setup::ebpf()?;
    // Tests look for it where it is built.
    if let Err(error) = components::kube_proxy(components::DEFAULT) {
        println!("there is no kube-proxy for tests: {error:#}");
    }
    let assets = components::control_plane(components::DEFAULT);
    Ok(assets
        .inspect_err(|error| println!("there is no control plane for tests: {error:#}"))
        .ok())
}

/// Passing tests show their output too: it says what was skipped.
fn run_tests(cargo: &mut Command, assets: Option<&Path>, tally: &mut Tally) -> Result<()> {
    if let Some(assets) = assets {
        cargo.env(components::ASSETS, assets);
    }
    shell::tee(cargo.args(["--", "--show-output"]), |line| tally.see(line))
}

/// What the tests' output says.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skips: Vec<String>,
}

impl Tally {
    fn see(&mut self, line: &str) {
        if let Some(reason) = line.strip_prefix("SKIP: ") {
            self.skips.push(reason.to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let counts = result.split([';', '.']).filter_map(|part| {
            let (count, what) = part.trim().split_once(' ')?;
            Some((count.parse::<u64>().ok()?, what))
        });
        for (count, what) in counts {
            let sum: Option<&mut u64> = match what {
                "passed" => Some(&mut self.passed),
                "failed" => Some(&mut self.failed),
                "ignored" => Some(&mut self.ignored),
                _ => None,
            };
            if let Some(sum) = sum {
                *sum += count;
            }
        }
    }
}

/// The steps of a run: a failed one does not keep the rest from being tried.
#[derive(Default)]
struct Report {
    tally: Tally,
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    took: Duration,
    error: Option<String>,
}

impl Report {
    fn step(&mut self, name: &'static str, step: impl FnOnce(&mut Tally) -> Result<()>) {
        println!("\n== {name}");
        let start = Instant::now();
        let result = step(&mut self.tally);
        let error = result.err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            println!("FAILED: {error}");
        }
        self.steps.push(Step {
            name,
            took: start.elapsed(),
            error,
        });
    }

    fn finish(self) -> Result<()> {
        println!("\n== summary\n{}", self.summary());
        let steps = self.steps.iter();
        let failed = steps.filter(|step| step.error.is_some());
        let failed: Vec<_> = failed.map(|step| step.name).collect();
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(())
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        for Step { name, took, error } in &self.steps {
            let verdict = error.as_deref().unwrap_or("ok");
            text += &format!("{name:<16} {:>5} s  {verdict}\n", took.as_secs());
        }
        let Tally {
            passed,
            failed,
            ignored,
            skips,
        } = &self.tally;
        text += &format!("tests: {passed} passed, {failed} failed, {ignored} ignored\n");
        text += &format!("skipped: {}", skips.len());
        for (reason, times) in counted(skips) {
            text += &format!("\n  SKIP: {reason} ({times})");
        }
        text
    }
}

fn counted(words: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word.as_str()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let mut tally = Tally::default();
        tally.see("running 3 tests");
        tally.see("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tally.see("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.52s");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (15, 2, 1));
    }

    #[test]
    fn the_same_reason_to_skip_is_told_once() {
        let mut tally = Tally::default();
        for line in ["SKIP: needs root", "SKIP: no IPv6", "SKIP: needs root"] {
            tally.see(line);
        }
        let report = Report {
            tally,
            ..Report::default()
        };
        let expected = "tests: 0 passed, 0 failed, 0 ignored\n\
                        skipped: 3\n  SKIP: needs root (2)\n  SKIP: no IPv6 (1)";
        assert_eq!(report.summary(), expected);
    }

    #[test]
    fn a_failed_step_fails_the_run_and_lets_the_others_go_on() {
        let mut report = Report::default();
        let mut ran = false;
        report.step("first", |_| anyhow::bail!("no"));
        report.step("second", |_| {
            ran = true;
            Ok(())
        });
        assert!(ran);
        assert!(report.finish().is_err());
    }
}
