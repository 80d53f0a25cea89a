//! The upstream suite of NetworkPolicy, in the cluster.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
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

/// Some of them, by what they are about.
const SOME: &str = "Netpol.*(LinuxOnly|except clause|updated pod|deleted)";

/// Not every kernel has these sockets.
const SKIP: &str = "SCTP|sctp";

const PROCESSES: u8 = 3;

/// Which cluster, and what of the suite.
#[derive(Args)]
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    cluster: super::Options,
    #[command(flatten)]
    install: install::Options,
    /// Only specs whose names match this regular expression
    #[arg(long, value_name = "REGEX", default_value = FOCUS)]
    focus: String,
    /// How many specs run at once: most of their time they wait
    #[arg(long, value_name = "N", default_value_t = PROCESSES)]
    procs: u8,
    /// Use the cluster that is up
    #[arg(long, conflicts_with_all = ["proxy", "cni", "version"])]
    here: bool,
}

impl Options {
    /// Some specs of each kind, in another cluster.
    pub(super) fn some(cluster: super::Options) -> Self {
        Self {
            cluster,
            focus: SOME.to_owned(),
            ..Self::default()
        }
    }

    /// What the cluster is made of, in a word.
    pub(super) fn pair(&self) -> String {
        let super::Options { proxy, cni, .. } = &self.cluster;
        format!("{}-{}", cni.name(), proxy.name())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: super::Options::default(),
            install: install::Options::default(),
            focus: FOCUS.to_owned(),
            procs: PROCESSES,
            here: false,
        }
    }
}

/// Builds what runs the suite, and what runs in its pods; the folder.
pub(super) fn programs() -> Result<PathBuf> {
    let newest = Component::kubernetes(components::DEFAULT)?;
    newest.build(&["agnhost", "e2e.test", "ginkgo"])
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let tests = programs()?;
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
    let mut suite = Command::new(tests.join("ginkgo"));
    suite.arg(format!("--procs={}", options.procs));
    suite.arg(format!("--focus={}", options.focus));
    suite.arg(format!("--skip={SKIP}"));
    suite.args(["-v", "--no-color", "--keep-going"]);
    suite.arg(tests.join("e2e.test"));
    suite.args(["--", "--provider=skeleton", "--kubeconfig"]);
    suite.arg(run.kubeconfig());
    let passed = follow(&mut suite, &log, &mut report)?;
    println!(
        "{} specs passed, {} failed, {} skipped, in {} s",
        report.passed.len(),
        report.failed.len(),
        report.skipped.len(),
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

/// Gives nodes the image that the specs ask for, by the names they use.
pub(super) fn load_images(run: &Run, tests: &Path) -> Result<()> {
    let names = shell::output(Command::new(tests.join("e2e.test")).arg("--list-images"))?;
    let names = names.lines().filter(|name| name.contains("/agnhost:"));
    let names: Vec<_> = names.collect();
    ensure!(!names.is_empty(), "the suite names no image of agnhost");
    let archive = run.path("images/agnhost.tar");
    Image {
        names: &names,
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
    /// What was said of the present spec.
    block: Block,
    passed: Vec<String>,
    failed: Vec<String>,
    skipped: Vec<String>,
}

/// Between two rulers Ginkgo says the name of a spec and how it ended: in this order where it runs one at a
/// time, in the other where it runs several.
#[derive(Default)]
enum Block {
    #[default]
    Nothing,
    Begun,
    Name(String),
    End(String),
}

impl Report {
    /// Takes a line of Ginkgo's verbose report; what it means, once a spec's name and end are known.
    fn see(&mut self, line: &str) -> Option<String> {
        if line.starts_with("----------") {
            self.block = Block::Begun;
            return None;
        }
        let end = line.starts_with("• ") || line.starts_with("S [SKIPPED] ");
        match std::mem::take(&mut self.block) {
            Block::Begun if end => self.block = Block::End(line.to_owned()),
            Block::Begun => self.block = Block::Name(line.trim().to_owned()),
            Block::Name(name) if end => return self.tell(line, name),
            Block::End(end) => return self.tell(&end, line.trim().to_owned()),
            other => self.block = other,
        }
        None
    }

    fn tell(&mut self, end: &str, spec: String) -> Option<String> {
        let (state, time) = end.rsplit_once('[')?;
        let (word, list) = match state {
            "• " => ("pass", &mut self.passed),
            "S [SKIPPED] " => ("skip", &mut self.skipped),
            _ => ("FAIL", &mut self.failed),
        };
        let time = time.trim_end_matches(" seconds]");
        let told = format!("{word} {time:>7} s  {spec}");
        list.push(spec);
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Running Suite: Kubernetes e2e suite
------------------------------
[sig] one should pass
a.go:7
  STEP: waiting @ 10:00
• [5.250 seconds]
------------------------------
[sig] two should fail
a.go:8
• [FAILED] [35.125 seconds]
[sig] two [It] should fail
a.go:8

  [FAILED] timed out
------------------------------
[sig] three cannot run
a.go:9
S [SKIPPED] [0.001 seconds]
[sig] three [It] cannot run
------------------------------
";

    const AT_ONCE: &str = "\
------------------------------
SSSSSSSSSSSS
------------------------------
• [5.250 seconds]
[sig] one should pass
a.go:7
------------------------------
SSS
------------------------------
• [FAILED] [35.125 seconds]
[sig] two [It] should fail
a.go:8

  [FAILED] timed out
------------------------------
S [SKIPPED] [0.001 seconds]
[sig] three cannot run
------------------------------
";

    fn told(text: &str) -> (Vec<String>, Report) {
        let mut report = Report::default();
        let told = text.lines().filter_map(|line| report.see(line)).collect();
        (told, report)
    }

    #[test]
    fn every_spec_ends_in_one_of_three_ways() {
        let (told, report) = told(TEXT);
        let expected = [
            "pass   5.250 s  [sig] one should pass",
            "FAIL  35.125 s  [sig] two should fail",
            "skip   0.001 s  [sig] three cannot run",
        ];
        assert_eq!(told, expected);
        assert_eq!(report.passed, ["[sig] one should pass"]);
        assert_eq!(report.failed, ["[sig] two should fail"]);
        assert_eq!(report.skipped, ["[sig] three cannot run"]);
    }

    #[test]
    fn of_specs_at_once_the_end_is_told_first() {
        let (told, report) = told(AT_ONCE);
        let expected = [
            "pass   5.250 s  [sig] one should pass",
            "FAIL  35.125 s  [sig] two [It] should fail",
            "skip   0.001 s  [sig] three cannot run",
        ];
        assert_eq!(told, expected);
        assert_eq!(report.failed.len(), 1);
    }
}
