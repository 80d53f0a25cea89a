//! The programs of tests: built at once, then run side by side, for most of their time they wait.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    ffi::OsString,
    io::BufReader,
    ops::RangeInclusive,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;

use super::report::{self, Tally};
use crate::{lint, shell, workspace};

/// How many run at once.
const AT_ONCE: usize = 2;

/// A program of tests.
pub(super) struct Program {
    /// Package and target.
    name: String,
    /// The package's folder, where its tests run.
    folder: PathBuf,
    path: PathBuf,
    tier: u64,
}

/// Builds and runs those of some tiers, with that in their environment; every target is of tier 0 unless `package.metadata.tier` names it.
pub(super) fn run(
    tiers: RangeInclusive<u64>,
    environment: &[(&str, OsString)],
    tally: &mut Tally,
) -> Result<()> {
    let mut programs = build()?;
    programs.retain(|program| tiers.contains(&program.tier));
    ensure!(!programs.is_empty(), "no tests of tier {}", tiers.start());
    // What takes long begins first: networks, and of those the corpora.
    programs.sort_by_key(|program| (Reverse(program.tier), !program.name.contains("conformance")));
    let mut failed = Vec::new();
    side_by_side(programs.into(), environment, |ended| {
        let Ended {
            program,
            took,
            output,
        } = ended;
        let name = &program.name;
        let said = String::from_utf8_lossy(&output.stdout);
        println!("\n-- {name} took {:.1} s", took.as_secs_f64());
        for line in said.lines() {
            tally.see(line);
            // The rest of what passing tests say fills pages in which a failure is not found.
            if !output.status.success() || report::counts(line).is_some() {
                println!("{line}");
            }
        }
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stderr));
            failed.push(format!("{name} ({})", output.status));
        }
    })?;
    if tiers.contains(&0) {
        let mut cargo = lint::host("cargo test");
        shell::tee(cargo.arg("--doc"), |line| tally.see(line))?;
    }
    ensure!(failed.is_empty(), "{}", failed.join(", "));
    Ok(())
}

/// Builds all of them.
pub(super) fn build() -> Result<Vec<Program>> {
    let metadata = workspace::metadata()?;
    let mut cargo = lint::host("cargo test");
    cargo.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("run cargo test")?;
    let messages = child.stdout.take().context("no pipe to cargo")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(messages)) {
        let Message::CompilerArtifact(artifact) = message? else {
            continue;
        };
        let Some(path) = artifact.executable.filter(|_| artifact.profile.test) else {
            continue;
        };
        let package = &metadata[&artifact.package_id];
        let target = &artifact.target.name;
        let folder = package.manifest_path.parent();
        programs.push(Program {
            name: format!("{} {target}", package.name),
            folder: folder.context("a package without a folder")?.into(),
            path: path.into(),
            tier: package.metadata["tier"][target].as_u64().unwrap_or(0),
        });
    }
    let status = child.wait().context("wait for cargo")?;
    ensure!(status.success(), "cargo test --no-run: {status}");
    Ok(programs)
}

struct Ended {
    program: Program,
    took: Duration,
    output: Output,
}

/// Runs them, and tells of each once it has ended.
fn side_by_side(
    programs: VecDeque<Program>,
    environment: &[(&str, OsString)],
    mut tell: impl FnMut(Ended),
) -> Result<()> {
    let waiting = Mutex::new(programs);
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    thread::scope(|scope| {
        let (sender, ended) = mpsc::channel();
        for _ in 0..AT_ONCE {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some(program) = next() {
                    let start = Instant::now();
                    let output = command_of(&program, environment).output();
                    let output = output.with_context(|| format!("run {}", program.path.display()));
                    let ended = output.map(|output| Ended {
                        program,
                        took: start.elapsed(),
                        output,
                    });
                    if sender.send(ended).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for ended in ended {
            tell(ended?);
        }
        Ok(())
    })
}

/// As cargo would run it. Passing tests show their output too: it says what was skipped.
fn command_of(program: &Program, environment: &[(&str, OsString)]) -> Command {
    let mut test = Command::new(&program.path);
    test.arg("--show-output")
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    test
}
