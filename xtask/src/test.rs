//! `cargo xtask test`: everything that has to hold before a change is good.

use std::{env, ops::RangeInclusive, path::PathBuf};

use anyhow::Result;
use clap::Args;

use self::report::{Beside, Group, Report, Tally};
use crate::{
    cluster::{self, components},
    debian::Debian,
    dist::Target,
    lint, setup, tidy,
};

mod programs;
mod report;

/// The highest tier of the inner loop; what is above needs minutes.
const QUICK: u64 = 2;
const HIGHEST: u64 = 3;
/// Says how many random frames are tried each way, and how many a whole run tries: a minute and a half of both processors.
const FRAMES: &str = "PALISADE_FUZZ_FRAMES";
const MANY: &str = "5000000";

/// Called by kube-proxy, by tests to do what others do on a node, and to see that shells take completions.
const TOOLS: &[setup::Program] = &[
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("iptables", "iptables"),
    ("bpftool", "bpftool"),
    ("openssl", "openssl"),
];

/// What builds in folders of its own or waits for most of its time. Clusters and the kernels' guests run the release
/// binary; there is one cluster at a time, and the second waits most.
const BESIDE_LINTS: &[Group] = &[
    &[("release binary", "dist")],
    &[("cluster", "cluster check first")],
];
/// The tests have networks of their own to wait for: two clusters beside them are more than a small machine carries.
const BESIDE_TESTS: &[Group] = &[&[
    ("other cluster", "cluster check second"),
    ("kernels", "kernels"),
]];

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out what takes minutes: documentation, licences, tests of tier 3, the
    /// release binary, other kernels, a cluster
    #[arg(long)]
    quick: bool,
    /// Only the tests of one tier: 0 pure, 2 programs in the kernel, 3 networks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=HIGHEST))]
    tier: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut report = Report::default();
    if let Some(tier) = options.tier {
        report.step("tests", |tally| tests(tier..=tier, tally));
        return report.finish();
    }
    let beside = (!options.quick)
        .then(|| Beside::start(BESIDE_LINTS))
        .transpose()?;
    report.step("format", |_| lint::format());
    report.step("tidy", |_| tidy::run());
    report.step("clippy", |_| lint::clippy());
    report.step("clippy for BPF", |_| lint::clippy_bpf());
    let Some(beside) = beside else {
        report.step("tests", |tally| tests(0..=QUICK, tally));
        return report.finish();
    };
    report.step("documentation", |_| lint::document());
    report.step("chart", |tally| lint::chart(&mut tally.skips));
    report.step("licences", |_| lint::licences());
    // Built before anything runs that looks at the clock.
    report.step("parts of a cluster", |_| cluster::prepare());
    report.step("build of tests", |_| {
        prepare().and_then(|_| programs::build().map(drop))
    });
    report.join(beside);
    let beside = Beside::start(BESIDE_TESTS)?;
    report.step("tests", |tally| tests(0..=HIGHEST, tally));
    report.join(beside);
    report.finish()
}

/// The tests of some tiers.
fn tests(tiers: RangeInclusive<u64>, tally: &mut Tally) -> Result<()> {
    let assets = prepare()?.map(|path| (components::ASSETS, path.into_os_string()));
    let whole = tiers.contains(&0) && tiers.contains(&HIGHEST);
    let frames = (whole && env::var_os(FRAMES).is_none()).then(|| (FRAMES, MANY.into()));
    let environment: Vec<_> = assets.into_iter().chain(frames).collect();
    programs::run(tiers, &environment, tally)
}

/// Installs what tests need; the programs of a control plane and kube-proxy, where they can be had.
fn prepare() -> Result<Option<PathBuf>> {
    setup::programs(setup::NETWORK)?;
    setup::programs(TOOLS)?;
    setup::ebpf()?;
    // Tests look for them where they are built.
    if let Err(error) = components::beside_agents(components::DEFAULT) {
        println!("there are no parts of a node for tests: {error:#}");
    }
    if let Err(error) = Target::host()
        .and_then(Debian::new)
        .and_then(|debian| debian.prometheus())
    {
        println!("there is no Prometheus for tests: {error:#}");
    }
    let assets = components::control_plane(components::DEFAULT);
    Ok(assets
        .inspect_err(|error| println!("there is no control plane for tests: {error:#}"))
        .ok())
}
