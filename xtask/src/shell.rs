//! Commands, run from the top of the workspace and printed as they could be typed.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// A command with these arguments, split at blanks.
pub(crate) fn command(words: &str) -> Command {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    // `cargo run` describes the running package to it; to a build further down that is a change
    // of its inputs.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Prints and runs; an error unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| failed(command))?;
    ensure!(status.success(), "{}: {status}", failed(command));
    Ok(())
}

/// Prints and runs; gives every line of the standard output to `see` as it is passed on.
pub(crate) fn tee(command: &mut Command, mut see: impl FnMut(&str)) -> Result<()> {
    println!("$ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| failed(command))?;
    let output = child.stdout.take().context("no pipe to the command")?;
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        println!("{}", text.trim_end());
        see(text.trim_end());
        line.clear();
    }
    let status = child.wait()?;
    ensure!(status.success(), "{}: {status}", failed(command));
    Ok(())
}

/// Runs without a word; the standard output as text.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    String::from_utf8(bytes(command)?).with_context(|| failed(command))
}

/// Runs without a word; the standard output.
pub(crate) fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| failed(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{said}", failed(command), output.status);
    }
    Ok(output.stdout)
}

/// Prints and becomes the command, so that signals and the terminal are its own.
pub(crate) fn become_it(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let error = command.exec();
    Err(error).with_context(|| failed(command))
}

/// Where a program is, the administrator's folders included.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places
        .map(|place| place.join(program))
        .find(|path| path.is_file())
}

/// Whether this process may administer the machine.
pub(crate) fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").context("read /proc/self")?.uid() == 0)
}

/// The top of the workspace.
pub(crate) fn root() -> Result<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = Path::new(&package).parent();
    Ok(root.context("xtask is not in a workspace")?.to_owned())
}

fn failed(command: &Command) -> String {
    format!("`{}`", shown(command))
}

fn shown(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, quoted(value?))));
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<_> = set.chain(words.map(quoted)).collect();
    words.join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_could_be_typed() {
        let mut command = command("cargo doc");
        command.env("RUSTDOCFLAGS", "-D warnings").arg("it's");
        assert_eq!(
            shown(&command),
            r"RUSTDOCFLAGS='-D warnings' cargo doc 'it'\''s'"
        );
    }

    #[test]
    fn a_failing_command_is_an_error() {
        assert!(run(&mut command("false")).is_err());
        assert!(output(&mut command("false")).is_err());
        assert!(tee(&mut command("false"), |_| {}).is_err());
    }

    #[test]
    fn every_line_is_seen_without_its_end() -> Result<()> {
        let mut seen = Vec::new();
        let mut echo = command("printf");
        tee(echo.arg("one\ntwo\r\nthree"), |line| {
            seen.push(line.to_owned());
        })?;
        assert_eq!(seen, ["one", "two", "three"]);
        Ok(())
    }
}
