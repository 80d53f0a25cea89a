//! The way from audit to enforcement, as `docs/rollout.md` leads it: the script that users can run, in the cluster.

use std::{os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result};

use super::{examples::script, run::Run, suite};
use crate::{
    dist::{self, Target},
    shell,
};

const SCRIPT: &str = "deploy/examples/rollout.sh";

/// In the cluster that is up, with Palisade; an error where a step does not show what it should.
pub(crate) fn run() -> Result<()> {
    let run = Run::here();
    suite::load_images(&run, &suite::programs()?)?;
    program(&run.path("bin/palisade"))?;
    let told = shell::run(&mut script(&run, SCRIPT)?);
    told.and(shell::run(script(&run, SCRIPT)?.arg("remove")))
}

/// Has the binary of this machine there.
fn program(link: &Path) -> Result<()> {
    let built = dist::program(Target::host()?)?;
    if link.symlink_metadata().is_err() {
        symlink(&built, link).with_context(|| format!("make {}", link.display()))?;
    }
    Ok(())
}
