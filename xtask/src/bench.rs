//! `cargo xtask bench`: builds what the benchmark needs, released, and becomes it.

use anyhow::Result;
use clap::Args;

use crate::{
    setup,
    shell::{self, command},
    workspace,
};

/// What the benchmark understands itself.
#[derive(Args)]
pub(crate) struct Options {
    /// Passed on: --help tells what there is
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::programs(setup::NETWORK)?;
    setup::ebpf()?;
    shell::run(&mut command("cargo build --release --package palisade"))?;
    shell::run(&mut command(
        "cargo build --release --package palisade-tests --bin bench --features bench",
    ))?;
    let program = workspace::target_folder()?.join("release/bench");
    let program = program.display().to_string();
    shell::become_it(command(&program).args(&options.arguments))
}
