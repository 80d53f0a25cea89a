//! What is made of the tree of commands: completions and manual pages.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, ErrorKind},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A folder with the program under both of its names, and what completes it for kubectl; gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> io::Result<Self> {
        let folder = env::temp_dir().join(format!("palisade-{name}-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let folder = Self(folder);
        for name in ["palisade", "kubectl-palisade"] {
            symlink(env!("CARGO_BIN_EXE_palisade"), folder.0.join(name))?;
        }
        let script = folder.run("palisade completion kubectl")?;
        let file = folder.0.join("kubectl_complete-palisade");
        fs::write(&file, script.stdout)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    /// Runs a line of bash.
    fn run(&self, line: &str) -> io::Result<Output> {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.0.display());
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", line]).env("PATH", path);
        bash.output()
    }

    /// The lines that it prints.
    fn lines(&self, line: &str) -> io::Result<Vec<String>> {
        let output = self.run(line)?;
        assert!(output.status.success(), "{line}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("a folder of our own");
    }
}

/// Whether a program is missing; says so if it is.
fn skip_without(program: &str) -> bool {
    let missing = Command::new(program).arg("--version").output().is_err();
    if missing {
        println!("SKIP: no {program}");
    }
    missing
}

#[test]
fn bash_completes_commands_flags_and_values() -> io::Result<()> {
    if skip_without("bash") {
        return Ok(());
    }
    let folder = Folder::new("bash")?;
    let complete = |words: &str| {
        folder.lines(&format!(
            "source <(palisade completion bash)
             COMP_WORDS=(palisade {words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _palisade palisade \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\" 2>/dev/null
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        ))
    };
    assert_eq!(complete("sim")?, ["simulate"]);
    assert_eq!(complete("flows --foll")?, ["--follow"]);
    assert_eq!(complete("connectivity te")?, ["test"]);
    assert_eq!(complete("agent --on-overflow k")?, ["keep"]);
    Ok(())
}

#[test]
fn kubectl_is_answered_in_its_own_form() -> io::Result<()> {
    if skip_without("bash") {
        return Ok(());
    }
    let folder = Folder::new("kubectl")?;
    let complete = |words: &str| folder.lines(&format!("kubectl_complete-palisade {words}"));
    assert_eq!(complete("sim")?, ["simulate", ":4"]);
    assert_eq!(complete("flows --foll")?, ["--follow", ":4"]);
    assert_eq!(complete("nonsense-that-is-no-command")?, [":0"]);
    if !skip_without("kubectl") {
        // As the completion of every shell asks.
        let all = folder.lines("kubectl __complete palisade sim 2>/dev/null")?;
        assert_eq!(all, ["simulate", ":4"]);
    }
    Ok(())
}

#[test]
fn as_a_plugin_of_kubectl_help_speaks_of_kubectl() -> io::Result<()> {
    if skip_without("bash") {
        return Ok(());
    }
    let folder = Folder::new("plugin")?;
    let usage = folder.lines("kubectl-palisade flows --help | grep ^Usage:")?;
    assert_eq!(usage, ["Usage: kubectl palisade flows [OPTIONS]"]);
    let usage = folder.lines("palisade flows --help | grep ^Usage:")?;
    assert_eq!(usage, ["Usage: palisade flows [OPTIONS]"]);
    Ok(())
}

#[test]
fn every_shell_that_is_there_reads_its_completions() -> io::Result<()> {
    let folder = Folder::new("shells")?;
    for (shell, name) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let script = folder.run(&format!("palisade completion {name}"))?.stdout;
        let text = String::from_utf8_lossy(&script);
        for command in palisade::cli::command().get_subcommands() {
            assert!(
                text.contains(command.get_name()),
                "{name}: {}",
                command.get_name()
            );
        }
        if skip_without(shell) {
            continue;
        }
        let file = folder.0.join(format!("script.{name}"));
        fs::write(&file, &script)?;
        let output = Command::new(shell).arg("-n").arg(&file).output()?;
        assert!(output.status.success(), "{output:?}");
    }
    Ok(())
}

#[test]
fn every_command_has_a_manual_page_that_tells_of_every_flag() -> io::Result<()> {
    let folder = env::temp_dir().join(format!("palisade-man-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let mut command = palisade::cli::command();
    let made = clap_mangen::generate_to(command.clone(), &folder);
    command.build();
    let checked = made.and_then(|()| check(&command, &folder, "palisade"));
    fs::remove_dir_all(&folder)?;
    checked
}

fn check(command: &clap::Command, folder: &Path, name: &str) -> io::Result<()> {
    let page = folder.join(format!("{name}.1"));
    let text = fs::read_to_string(&page)
        .map_err(|error| io::Error::new(ErrorKind::NotFound, format!("{name}: {error}")))?;
    // Hyphens are escaped.
    let text = text.replace('\\', "");
    let flags: BTreeSet<_> = command
        .get_arguments()
        .filter_map(|it| it.get_long())
        .collect();
    for flag in flags {
        assert!(text.contains(&format!("--{flag}")), "{name}: --{flag}");
    }
    for below in command
        .get_subcommands()
        .filter(|it| it.get_name() != "help")
    {
        check(below, folder, &format!("{name}-{}", below.get_name()))?;
    }
    Ok(())
}
