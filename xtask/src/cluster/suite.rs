//! The upstream suite of NetworkPolicy, in the cluster.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{
    components::{self, Component},
    install,
    network::NODES,
    node::Node,
    run::Run,
    up,
};
use crate::{dist::Target, image::archive::Image, shell};

/// The specs of NetworkPolicy.
const FOCUS: &str = r"Netpol|NetworkPolicy";

/// Not every kernel has these sockets.
const SKIP: &str = "SCTP|sctp";

/// Which cluster, and what of the suite.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    cluster: super::Options,
    #[command(flatten)]
    install: install::Options,
    /// Only specs whose names match this regular expression
    #[arg(long, value_name = "REGEX", default_value = FOCUS)]
    focus: String,
    /// Use the cluster that is up
    #[arg(long, conflicts_with_all = ["proxy", "cni", "version", "control_plane"])]
    here: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let tests = Component::kubernetes(components::DEFAULT)?;
    let tests = tests.build(&["agnhost", "e2e.test"])?;
    if !options.here {
        up(&options.cluster)?;
    }
    let run = Run::here();
    load_images(&run, &tests)?;
    install::run(&options.install)?;

    let start = Instant::now();
    let mut report = Report::default();
    let log = run.path("logs").join("e2e.log");
    println!("the suite says more in {}", log.display());
    let mut suite = Command::new(tests.join("e2e.test"));
    suite.arg("--kubeconfig").arg(run.kubeconfig());
    suite.arg(format!("--ginkgo.focus={}", options.focus));
    suite.arg(format!("--ginkgo.skip={SKIP}"));
    suite.args(["--provider=skeleton", "--ginkgo.v", "--ginkgo.no-color"]);
    let passed = follow(&mut suite, &log, &mut report)?;
    println!(
        "{} specs passed, {} failed, in {} s",
        report.passed.len(),
        report.failed.len(),
        start.elapsed().as_secs()
    );
    ensure!(
        report.failed.is_empty(),
        "failed:\n{}",
        report.failed.join("\n")
    );
    ensure!(passed, "the suite failed, see {}", log.display());
    ensure!(
        !report.passed.is_empty(),
        "no spec matches {}",
        options.focus
    );
    Ok(())
}

/// Gives nodes the image that the specs ask for, by the name they use.
fn load_images(run: &Run, tests: &Path) -> Result<()> {
    let names = shell::output(Command::new(tests.join("e2e.test")).arg("--list-images"))?;
    let name = names.lines().find(|name| name.contains("/agnhost:"));
    let name = name.context("the suite names no image of agnhost")?;
    let archive = run.path("images/agnhost.tar");
    Image {
        name,
        architecture: Target::host()?.go_name(),
        program: ("agnhost", &tests.join("agnhost")),
        arguments: &["pause"],
    }
    .write(&archive)?;
    for addresses in NODES {
        Node::find(run, addresses)?.load(&archive)?;
    }
    Ok(())
}

/// Runs the suite, keeps what it says, and tells the end of each spec.
fn follow(suite: &mut Command, log: &Path, report: &mut Report) -> Result<bool> {
    let mut log = File::create(log).with_context(|| format!("write {}", log.display()))?;
    let mut child = suite
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .spawn()
        .context("start the suite")?;
    let output = child.stdout.take().context("no pipe to the suite")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        log.write_all(&line)?;
        log.write_all(b"\n")?;
        if let Some(told) = report.see(&String::from_utf8_lossy(&line)) {
            println!("{told}");
        }
    }
    Ok(child.wait()?.success())
}

/// What the suite has said.
#[derive(Default)]
struct Report {
    /// The name of the spec that is running.
    spec: String,
    /// Whether the next line is its name.
    begins: bool,
    passed: Vec<String>,
    failed: Vec<String>,
}

impl Report {
    /// Takes a line; what it means, if it ends a spec.
    fn see(&mut self, line: &str) -> Option<String> {
        if line.starts_with("----------") {
            self.begins = true;
            return None;
        }
        if std::mem::take(&mut self.begins) {
            self.spec = line.trim().to_owned();
            return None;
        }
        let end = line.strip_prefix("• ")?;
        let failed = end.starts_with("[FAILED]")
            || end.starts_with("[PANICKED]")
            || end.starts_with("[TIMEDOUT]")
            || end.starts_with("[INTERRUPTED]");
        let time = end.rsplit_once('[')?.1.trim_end_matches(" seconds]");
        let (word, list) = match failed {
            true => ("FAIL", &mut self.failed),
            false => ("pass", &mut self.passed),
        };
        list.push(self.spec.clone());
        Some(format!("{word} {time:>7} s  {}", self.spec))
    }
}
