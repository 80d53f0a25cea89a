//! `palisade connectivity test`, as users run it: the binary of this machine against the cluster that is up.

use std::fs;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{
    network::{Addresses, NODES},
    node::Node,
    run::Run,
};
use crate::{dist::Target, image, shell};

/// How many tests are tried at once. Most of their time they wait.
const AT_ONCE: &str = "6";

/// What is expected of the cluster.
#[derive(Args, Default)]
#[group(skip)]
pub(crate) struct Options {
    /// Palisade is not in it
    #[arg(long)]
    unenforced: bool,
    /// What else `palisade connectivity test` is given
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl Options {
    /// Of a cluster without Palisade.
    pub(super) fn unenforced() -> Self {
        Self {
            unenforced: true,
            ..Self::default()
        }
    }
}

/// Tries every scenario; an error where one does not end as it should, or something of the test is left. With Palisade asks
/// all agents what they say, too.
pub(crate) fn run(options: &Options) -> Result<()> {
    let run = Run::here();
    // Without an installation nodes may not have the image.
    let (archive, _) = image::build(Target::host()?)?;
    for addresses in NODES {
        Node::find(&run, addresses)?.load(&archive)?;
    }
    let report = run.path("logs").join("connectivity.xml");
    let mut test = run.palisade("connectivity test")?;
    test.args(["--test-concurrency", AT_ONCE]);
    test.arg("--junit-file").arg(&report);
    if options.unenforced {
        // What is let through once is let through always.
        test.args(["--expect-unenforced", "--timeout", "1"]);
    }
    shell::tee(test.args(&options.arguments), |line| {
        if let Some(scenario) = skipped(line) {
            println!("SKIP: connectivity {scenario}");
        }
    })?;
    let cases = fs::read_to_string(&report).context("read what the test wrote")?;
    let file = report.display();
    ensure!(cases.contains("<testcase "), "{file} has no cases");
    let mut left = run.kubectl();
    left.args(["get", "namespaces", "--output", "name"]);
    let left = shell::output(left.args(["--selector", "palisade.test/connectivity"]))?;
    ensure!(left.is_empty(), "the test left {left}");
    if options.unenforced || !options.arguments.is_empty() {
        return Ok(());
    }
    // The agents that the test has restarted tell of themselves, and of what it made them deny.
    shell::run(&mut run.palisade("status --wait --wait-duration 1m")?)?;
    let flows = shell::output(&mut run.palisade("flows --last 100000")?)?;
    for Addresses { node, .. } in NODES {
        let told = flows.contains(&format!(" [{node}]: "));
        ensure!(told, "nothing was denied on {node}:\n{flows}");
    }
    Ok(())
}

/// The scenario that a line says is skipped, and why: `SKIP [1/82] NAME: REASON`.
fn skipped(line: &str) -> Option<&str> {
    let (_, scenario) = line.strip_prefix("SKIP [")?.split_once("] ")?;
    Some(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_is_skipped_is_told_with_its_reason() {
        let line = "SKIP [27/82] ingress-port-sctp: nodes have no SCTP";
        assert_eq!(skipped(line), Some("ingress-port-sctp: nodes have no SCTP"));
        assert_eq!(skipped("pass [28/82] ingress-own-node (1.5 s)"), None);
    }
}
