//! Everything a developer types: `cargo xtask --help`.
#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

mod bench;
mod cluster;
mod debian;
mod demo;
mod deploy;
mod dist;
mod fuzz;
mod image;
mod kernels;
mod lint;
mod setup;
mod shell;
mod test;
mod tidy;
mod toolchain;
mod workspace;

/// Developer commands. Each installs what it needs by itself, once.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what any of the commands needs
    Setup,
    /// Check everything: lints, all tests, old and new kernels
    Test(test::Options),
    /// Format, rules of the house, clippy, documentation, licences
    Lint,
    /// The rules of the house that no other tool knows
    Tidy,
    /// Load and run the programs on Debian's kernels, in an emulator
    Kernels(kernels::Options),
    /// Build the static release binary into target/dist
    Dist(dist::Options),
    /// Write the manual pages into target/dist/man
    Man,
    /// Build the image into target/dist, as an archive that every engine loads
    Image(dist::Options),
    /// Write deploy/kustomize anew, from the chart
    Manifests(deploy::Options),
    /// A real Kubernetes on this machine
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Show real policies cutting and passing real connections
    #[command(disable_help_flag = true)]
    Demo(demo::Options),
    /// Measure what a packet and an update cost
    #[command(disable_help_flag = true)]
    Bench(bench::Options),
    /// Let libFuzzer look for what breaks the programs and the readers of objects
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let root = shell::root()?;
    env::set_current_dir(&root).with_context(|| format!("enter {}", root.display()))?;
    match command {
        Command::Setup => setup::run(),
        Command::Test(options) => test::run(&options),
        Command::Lint => lint::run(),
        Command::Tidy => tidy::run(),
        Command::Kernels(options) => kernels::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Man => dist::man(),
        Command::Image(options) => image::run(&options),
        Command::Manifests(options) => deploy::run(&options),
        Command::Cluster(command) => cluster::run(&command),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
