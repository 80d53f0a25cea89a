//! The way from audit to enforcement, as `docs/rollout.md` leads it: the script that users can run, in the cluster.

use std::{os::unix::fs::symlink, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{run::Run, suite};
use crate::{
    dist::{self, Target},
    shell,
};

const SCRIPT: &str = "deploy/examples/rollout.sh";

/// In the cluster that is up, with Palisade; an error where a step does not show what it should.
pub(crate) fn run() -> Result<()> {
    let run = Run::here();
    suite::load_images(&run, &suite::programs()?)?;
    let told = shell::run(&mut script(&run)?);
    told.and(shell::run(script(&run)?.arg("remove")))
}

/// The script, with `kubectl` and `palisade` on its path.
fn script(run: &Run) -> Result<Command> {
    let mut script = Command::new(shell::root()?.join(SCRIPT));
    let usual = std::env::var("PATH").unwrap_or_default();
    let bin = run.path("bin");
    program(&bin.join("palisade"))?;
    script.env("PATH", format!("{}:{usual}", bin.display()));
    script.env("KUBECONFIG", run.kubeconfig());
    Ok(script)
}

/// Has the binary of this machine there.
fn program(link: &PathBuf) -> Result<()> {
    let built = dist::program(Target::host()?)?;
    if link.symlink_metadata().is_err() {
        symlink(&built, link).with_context(|| format!("make {}", link.display()))?;
    }
    Ok(())
}
