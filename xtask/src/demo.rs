//! `cargo xtask demo`: builds what the demo needs and becomes it.

use anyhow::Result;
use clap::Args;

use crate::{
    setup,
    shell::{self, command},
    workspace,
};

/// What the demo understands itself.
#[derive(Args)]
pub(crate) struct Options {
    /// Passed on: --help tells what there is
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::programs(setup::NETWORK)?;
    setup::ebpf()?;
    shell::run(&mut command("cargo build --quiet --package palisade"))?;
    shell::run(&mut command(
        "cargo build --quiet --package palisade-tests --bin demo",
    ))?;
    let program = workspace::target_folder()?.join("debug/demo");
    let program = program.display().to_string();
    shell::become_it(command(&program).args(&options.arguments))
}
