//! `palisade completion`.

use clap::ValueEnum;
use clap_complete::{Shell, generate};

use super::{Exit, command, print};

/// What kubectl runs to complete `kubectl palisade`, with the words that follow: it asks bash, and answers in the form of
/// kubectl's own commands. A last line of `:4` says that names of files are no answer, `:0` that they are.
const KUBECTL: &str = r#"#!/usr/bin/env bash
eval "$(kubectl-palisade completion bash)"
COMP_WORDS=(palisade "$@")
COMP_CWORD=$#
COMPREPLY=()
_palisade palisade "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
if [ "${#COMPREPLY[@]}" -eq 0 ]; then
    echo ":0"
else
    printf '%s\n' "${COMPREPLY[@]}" ":4"
fi
"#;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell.
    #[arg(value_enum)]
    shell: Completed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Completed {
    Bash,
    Zsh,
    Fish,
    /// `kubectl palisade`, in whatever shell kubectl is completed.
    Kubectl,
}

pub(super) fn run(args: &Args) -> Exit {
    let shell = match args.shell {
        Completed::Bash => Shell::Bash,
        Completed::Zsh => Shell::Zsh,
        Completed::Fish => Shell::Fish,
        Completed::Kubectl => {
            print(KUBECTL);
            return Exit::Yes;
        }
    };
    let mut script = Vec::new();
    generate(shell, &mut command(), "palisade", &mut script);
    print(&String::from_utf8_lossy(&script));
    Exit::Yes
}
