//! The demo policies, as the pages for kind and minikube show them.

use std::process::Command;

use anyhow::Result;

use super::{install, run::Run, suite};
use crate::shell;

const DEMO: &str = "deploy/examples/demo.sh";

/// Installs Palisade and shows them; an error where one is not in force.
pub(super) fn run() -> Result<()> {
    let run = Run::here();
    suite::load_images(&run, &suite::programs()?)?;
    install::run(&install::Options::default())?;
    shell::run(&mut demo(&run)?)?;
    shell::run(demo(&run)?.arg("remove"))
}

/// The script, with the cluster's own `kubectl`.
fn demo(run: &Run) -> Result<Command> {
    let mut demo = Command::new(shell::root()?.join(DEMO));
    let usual = std::env::var("PATH").unwrap_or_default();
    demo.env("PATH", format!("{}:{usual}", run.path("bin").display()));
    demo.env("KUBECONFIG", run.kubeconfig());
    Ok(demo)
}
