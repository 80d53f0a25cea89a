//! `cargo xtask tidy`: the rules of the house that no other tool knows.

use anyhow::{Result, bail};

use crate::workspace;

mod dependencies;
mod modules;
mod sources;

pub(crate) use sources::walk;

pub(crate) fn run() -> Result<()> {
    let metadata = workspace::metadata()?;
    let mut problems = dependencies::check(metadata)?;
    problems.extend(modules::check(metadata)?);
    problems.extend(sources::check(metadata)?);
    if problems.is_empty() {
        return Ok(());
    }
    let root = format!("{}/", metadata.workspace_root);
    for problem in &problems {
        println!("{}", problem.replace(&root, ""));
    }
    bail!("tidy: {} problems", problems.len());
}
