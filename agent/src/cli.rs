//! The command line. The names of commands and flags, their defaults and the exit codes are a contract.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use palisade_dataplane::bpffs;

use crate::{
    cni::{install, plugin},
    config::{Config, SOCKET, plugin_folder},
};

mod audit;
mod check;
mod completion;
mod connectivity;
mod explain;
mod flows;
mod generate;
mod lint;
mod names;
mod objects;
mod pause;
mod pods;
mod policies;
mod probe;
mod report;
mod scope;
mod simulate;
mod status;
mod table;
mod uninstall;
mod verify;

/// Kubernetes NetworkPolicy on any CNI, enforced in the kernel.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enforce policy on this node's pods.
    ///
    /// SIGTERM ends the agent and leaves its last state in force; only `palisade uninstall` removes it.
    Agent(Config),
    /// Show what is enforced: by the agent on this node, and where there is none by all agents of a cluster.
    ///
    /// Exits 0 when everything that should be enforced is, 1 when something is not, 3 when no agent can be asked.
    Status(status::Args),
    /// Show pods: whether their policies are in force, which those are, and what became of their packets. On this node, and where
    /// there is no agent in a whole cluster.
    ///
    /// Exits 0, 1 when one that is named is not there, 3 when no agent can be asked.
    Pods(pods::Args),
    /// Show policies: which pods they select, who the peers of their rules are at present, how many flows they allowed and denied, and
    /// what is wrong with them. On this node, and where there is no agent in a whole cluster.
    ///
    /// Exits 0, 1 when one that is named is not there, 3 when no agent can be asked.
    Policies(policies::Args),
    /// Show what was denied or would have been, to whom, and by which policies: on this node, and where there is no agent in a whole
    /// cluster.
    ///
    /// Exits 0, or 3 when no agent can be asked.
    Flows(Box<flows::Args>),
    /// Tell whether packets may pass between two pods or addresses, and which policies decide; with --live also what the kernel
    /// would decide.
    ///
    /// Exits 0 when they may, 1 when they may not (without --port: when any may not), 2 for wrong usage,
    /// 3 when it cannot be told, 4 when the kernel would decide otherwise than policy says.
    Explain(Box<explain::Args>),
    /// Open real connections from a pod of a cluster, and tell which verdicts they met.
    ///
    /// They are opened by an ephemeral container of Palisade's image, which ends with the probe.
    ///
    /// Exits 0 when policy lets all of them pass, 1 when it does not, 2 for wrong usage, 3 when it cannot be told.
    Probe(probe::Args),
    /// Sum up what policies in audit would have cut: each of them, how often, since when, and by whom.
    ///
    /// Exits 0, or 3 when no agent can be asked.
    Audit(audit::Args),
    /// The emergency brake: for a while no policy denies anything on this node, or in a namespace of the cluster. What
    /// would have been denied is told.
    ///
    /// Exits 0 when it is paused, or with --end is not any more, 3 when who is to do so cannot be asked.
    Pause(pause::Args),
    /// Find what is wrong with policies and Services, or probably not meant, in files or a cluster.
    ///
    /// Exits 0 when nothing is found that is as bad as --fail-on says, 1 when something is, 2 for wrong usage, 3 when
    /// the objects cannot be read.
    Lint(lint::Args),
    /// Tell who would lose and who would gain which connection if policies, or other objects, were applied.
    ///
    /// Exits 0 when nothing would that --fail-on names, 1 when something would, 2 for wrong usage, 3 when it cannot be
    /// told.
    Simulate(Box<simulate::Args>),
    /// Make policies that allow what was recorded, or what a service map says, and nothing else.
    ///
    /// Exits 0 when they are made, 1 when something that was recorded could not be said in them, 2 for wrong usage, 3 when
    /// they cannot be made.
    Generate(Box<generate::Args>),
    /// Report on policies for an audit: which pods they cover, which of them are unused, without owner or reason or wide open, and what
    /// has changed, from files or a cluster.
    ///
    /// Exits 0, 2 for wrong usage or an earlier report that is none, 3 when it cannot be made.
    Report(Box<report::Args>),
    /// Hold policies against what a team expects of them, from files or a cluster, without a packet.
    ///
    /// Exits 0 when every expectation holds, 1 when one does not, 2 for wrong usage or a malformed file, 3 when one
    /// cannot be told.
    Verify(verify::Args),
    /// Tell whether this node has what the agent needs, and who else is at work there; nothing is changed.
    ///
    /// Exits 0 when it has, 1 when it has not; what is worth a warning does no harm.
    Check(check::Args),
    /// Try policies in a cluster with real packets.
    Connectivity(connectivity::Args),
    /// Put the network plugin into the runtime's folders, for where the agent may not write; the chart's init container
    /// does.
    ///
    /// Exits 0 when it is there, 1 when it is not.
    InstallPlugin(InstallPlugin),
    /// Remove everything from this node, or with --daemonset from all nodes of a cluster. Policy is in force no
    /// more.
    ///
    /// Exits 0 when nothing is left, 1 when something is, or an agent is at work, or a node was not reached.
    Uninstall(uninstall::Args),
    /// Print what completes commands and flags in a shell.
    ///
    /// For bash: `source <(palisade completion bash)`. For `kubectl palisade`: `palisade completion kubectl`, into a program
    /// `kubectl_complete-palisade` where kubectl finds it.
    Completion(completion::Args),
    /// Mount a bpf filesystem on a folder where there is none; the chart's init container does.
    ///
    /// Exits 0 when there is one, 1 when none can be mounted.
    MountBpffs(MountBpffs),
}

#[derive(Debug, clap::Args)]
struct MountBpffs {
    /// The folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, clap::Args)]
struct InstallPlugin {
    #[command(flatten)]
    plugin: crate::config::Plugin,
    /// Where the agent listens.
    #[arg(long, value_name = "PATH", env = "PALISADE_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: the documented keys.
    Json,
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Done; the answer is yes.
    Yes = 0,
    /// Failed, or the answer is no.
    No = 1,
    /// What was asked cannot be read.
    Usage = 2,
    /// There is no answer.
    Unknown = 3,
    /// There are two answers.
    Differs = 4,
}

/// All commands and flags.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// The same, called as its user does: under the name `kubectl-palisade` it is a command of kubectl.
fn as_called(program: Option<OsString>) -> clap::Command {
    let program = program.map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name);
    match name.is_some_and(|name| name == "kubectl-palisade") {
        true => command().bin_name("kubectl palisade"),
        false => command(),
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    if let Ok(command) = std::env::var(plugin::COMMAND) {
        return plugin::main(&command);
    }
    let matches = as_called(std::env::args_os().next()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let exit = match cli.command {
        Command::Agent(config) => crate::runtime::run(config).map(|()| Exit::Yes),
        Command::Status(args) => Ok(status::run(&args)),
        Command::Pods(args) => Ok(pods::run(&args)),
        Command::Policies(args) => Ok(policies::run(&args)),
        Command::Flows(args) => Ok(flows::run(&args)),
        Command::Explain(args) => Ok(explain::run(&args)),
        Command::Probe(args) => Ok(probe::run(&args)),
        Command::Audit(args) => Ok(audit::run(&args)),
        Command::Pause(args) => Ok(pause::run(&args)),
        Command::Lint(args) => Ok(lint::run(&args)),
        Command::Simulate(args) => Ok(simulate::run(&args)),
        Command::Generate(args) => Ok(generate::run(&args)),
        Command::Report(args) => Ok(report::run(&args)),
        Command::Verify(args) => Ok(verify::run(&args)),
        Command::Check(args) => Ok(check::run(&args)),
        Command::Connectivity(args) => Ok(connectivity::run(&args)),
        Command::InstallPlugin(args) => install_plugin(&args).map(|()| Exit::Yes),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Completion(args) => Ok(completion::run(&args)),
        Command::MountBpffs(args) => mount_bpffs(&args.folder).map(|()| Exit::Yes),
    };
    let exit = exit.unwrap_or_else(|error| {
        complain(format_args!("{error:#}"));
        Exit::No
    });
    ExitCode::from(exit as u8)
}

fn install_plugin(args: &InstallPlugin) -> anyhow::Result<()> {
    let InstallPlugin { plugin, socket } = args;
    let folders = plugin
        .folders()
        .context("--cni-conf-dir and --cni-bin-dir say where")?;
    if let Some(entry) = plugin.entry(&plugin_folder(socket)) {
        let list = install::once(folders, &entry)?;
        print(&format!("the network plugin is in {}\n", list.display()));
    }
    Ok(())
}

fn mount_bpffs(folder: &Path) -> anyhow::Result<()> {
    let said = match bpffs::mount(folder)? {
        true => "mounted a bpf filesystem on",
        false => "there is a bpf filesystem on",
    };
    print(&format!("{said} {}\n", folder.display()));
    Ok(())
}

/// Prints to standard output. A reader that has gone away is no failure of the answer.
fn print(text: &str) {
    if let Err(error) = io::stdout().write_all(text.as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        complain(format_args!("standard output: {error}"));
    }
}

/// Prints an answer in the form for programs.
fn print_json(answer: &impl serde::Serialize) {
    match serde_json::to_string_pretty(answer) {
        Ok(text) => print(&(text + "\n")),
        Err(error) => complain(format_args!("{error}")),
    }
}

/// Prints to standard error.
fn complain(what: std::fmt::Arguments<'_>) {
    // There is nowhere left to say that standard error is gone.
    drop(writeln!(io::stderr(), "palisade: {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_has_flags_that_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn as_a_plugin_of_kubectl_it_says_so() {
        for (program, name) in [
            ("/usr/local/bin/kubectl-palisade", "kubectl palisade"),
            ("./palisade-x86_64", "palisade-x86_64"),
            ("palisade", "palisade"),
        ] {
            let error = as_called(Some(program.into()))
                .try_get_matches_from([program, "status", "--nonsense"])
                .expect_err("no such flag");
            let usage = format!("Usage: {name} status ");
            assert!(error.to_string().contains(&usage), "{error}");
        }
    }
}
