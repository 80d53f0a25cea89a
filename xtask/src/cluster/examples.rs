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
    shell::run(&mut script(&run, DEMO)?)?;
    shell::run(script(&run, DEMO)?.arg("remove"))
}

/// A script that users can run, with the cluster's own programs.
pub(super) fn script(run: &Run, path: &str) -> Result<Command> {
    let mut script = Command::new(shell::root()?.join(path));
    let usual = std::env::var("PATH").unwrap_or_default();
    script.env("PATH", format!("{}:{usual}", run.path("bin").display()));
    script.env("KUBECONFIG", run.kubeconfig());
    Ok(script)
}
