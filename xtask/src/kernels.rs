//! `cargo xtask kernels`: the programs on Debian's kernels, booted under emulation.
//!
//! Each kernel gets an initramfs of busybox, the modules it needs and one static program,
//! `kernel-check` of `palisade-tests`. That program prints `INSNS program count` for what the
//! verifier looked at, and ends with `KERNEL-CHECK: PASS n checks` or `KERNEL-CHECK: FAIL reason`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    dist::{self, Target},
    setup, workspace,
};

mod archive;
mod console;
mod debian;
mod guest;
mod modules;

use console::{Console, End};
use debian::{Debian, Kernel};

/// Kernel versions and the suites that have them: the floor, and one for each later step.
const VERSIONS: &[(&str, &str)] = &[
    ("5.10", "bullseye"),
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("7.2", "sid"),
];

/// The emulated guest crashes by itself in some boots, whatever runs in it.
const RETRIES: usize = 2;

/// Options of `cargo xtask kernels`.
#[derive(Args)]
pub(crate) struct Options {
    /// The versions, in place of all of them
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    kernel: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut skips = Vec::new();
    let chosen = choose(&options.kernel)?;
    check(&chosen, &mut skips)
}

/// Every kernel; adds what was skipped.
pub(crate) fn check_all(skips: &mut Vec<String>) -> Result<()> {
    check(VERSIONS, skips)
}

fn choose(wanted: &[String]) -> Result<Vec<(&'static str, &'static str)>> {
    if wanted.is_empty() {
        return Ok(VERSIONS.to_vec());
    }
    let known = |wanted: &String| {
        let found = VERSIONS.iter().find(|(version, _)| version == wanted);
        found.copied().with_context(|| {
            let known: Vec<_> = VERSIONS.iter().map(|(version, _)| *version).collect();
            format!("no kernel {wanted}: there are {}", known.join(", "))
        })
    };
    wanted.iter().map(known).collect()
}

fn check(versions: &[(&'static str, &'static str)], skips: &mut Vec<String>) -> Result<()> {
    setup::programs(setup::EMULATOR)?;
    setup::ebpf()?;
    let program = dist::build(Target::X86_64, "palisade-tests", "kernel-check")?;
    let program = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let logs = workspace::target_folder()?.join("kernels");
    fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;

    let mut rows = Vec::new();
    for &(version, suite) in versions {
        let fetched = fetch(version, suite);
        let (kernel, busybox) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                println!("SKIP: kernel {version}: {error:#}");
                skips.push(format!("kernel {version}: {error:#}"));
                rows.push(Row::skipped(version));
                continue;
            }
        };
        let initramfs = logs.join(format!("{version}.cpio"));
        let content = archive::initramfs(&busybox, &kernel, &program)?;
        fs::write(&initramfs, content).with_context(|| format!("write {}", initramfs.display()))?;
        let console = boot(&kernel, &initramfs, &logs.join(format!("{version}.log")))?;
        skips.extend(console.skips.iter().cloned());
        rows.push(Row {
            version,
            release: kernel.release,
            console: Some(console),
        });
    }
    print!("{}", table(&rows));
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| row.failed())
        .map(|row| row.version)
        .collect();
    ensure!(failed.is_empty(), "failed on {}", failed.join(", "));
    Ok(())
}

fn fetch(version: &str, suite: &str) -> Result<(Kernel, PathBuf)> {
    let debian = Debian::new()?;
    Ok((debian.kernel(version, suite)?, debian.busybox()?))
}

/// Boots until the guest does not crash; what a crash printed is shown.
fn boot(kernel: &Kernel, initramfs: &Path, log: &Path) -> Result<Console> {
    let mut attempts = 0;
    loop {
        println!("booting {}", kernel.release);
        let text = guest::boot(kernel, initramfs)?;
        fs::write(log, &text).with_context(|| format!("write {}", log.display()))?;
        let console = Console::read(&text);
        if !matches!(console.end, End::Pass(_)) {
            println!("{}\n(all of it: {})", console::tail(&text), log.display());
        }
        match &console.end {
            End::Crash(line) if attempts < RETRIES => {
                attempts += 1;
                println!("the guest crashed ({line}): once more, {attempts} of {RETRIES}");
            }
            End::Pass(_) | End::Fail(_) | End::Crash(_) => return Ok(console),
        }
    }
}

/// A line of the table that ends the run.
struct Row {
    version: &'static str,
    release: String,
    /// `None` if there was no kernel to boot.
    console: Option<Console>,
}

impl Row {
    fn skipped(version: &'static str) -> Self {
        Self {
            version,
            release: "-".into(),
            console: None,
        }
    }

    fn failed(&self) -> bool {
        let console = self.console.as_ref();
        console.is_some_and(|console| !matches!(console.end, End::Pass(_)))
    }

    fn result(&self) -> String {
        match self.console.as_ref().map(|console| &console.end) {
            None => "SKIP".into(),
            Some(End::Pass(checks)) => format!("PASS {checks}"),
            Some(End::Fail(_)) => "FAIL".into(),
            Some(End::Crash(_)) => "CRASH".into(),
        }
    }

    /// What the verifier of this kernel looked at.
    fn instructions(&self, program: &str) -> String {
        let console = self.console.as_ref();
        let count = console.and_then(|console| console.instructions.get(program));
        count.map_or_else(|| "-".into(), u64::to_string)
    }
}

/// Kernels, results, and the verifier's instructions for each program.
fn table(rows: &[Row]) -> String {
    let mut programs: Vec<_> = rows
        .iter()
        .filter_map(|row| row.console.as_ref())
        .flat_map(|console| console.instructions.keys())
        .collect();
    programs.sort();
    programs.dedup();

    let mut lines = vec![vec!["KERNEL".into(), "RELEASE".into(), "RESULT".into()]];
    lines[0].extend(programs.iter().map(|program| format!("INSNS {program}")));
    for row in rows {
        let mut line = vec![row.version.into(), row.release.clone(), row.result()];
        line.extend(programs.iter().map(|program| row.instructions(program)));
        lines.push(line);
    }
    let mut text = String::new();
    for line in &lines {
        for (column, word) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[column].len()).max();
            text += &format!("{word:<width$}  ", width = width.unwrap_or(0));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_column_for_each_program() {
        let console =
            Console::read("INSNS to_pod 7\nINSNS from_pod 12\nKERNEL-CHECK: PASS 3 checks\n");
        let rows = [
            Row {
                version: "6.1",
                release: "6.1.0-1".into(),
                console: Some(console),
            },
            Row::skipped("7.2"),
        ];
        let expected = "\
KERNEL  RELEASE  RESULT         INSNS from_pod  INSNS to_pod
6.1     6.1.0-1  PASS 3 checks  12              7
7.2     -        SKIP           -               -
";
        assert_eq!(table(&rows), expected);
        assert!(!rows.iter().any(Row::failed));
    }

    #[test]
    fn a_kernel_that_ends_without_a_verdict_has_failed() {
        let row = Row {
            version: "6.1",
            release: "6.1.0-1".into(),
            console: Some(Console::read("hello\n")),
        };
        assert!(row.failed());
    }

    #[test]
    fn an_unknown_kernel_is_refused() -> Result<()> {
        assert!(choose(&["4.19".into()]).is_err());
        assert_eq!(choose(&["6.1".into()])?, [("6.1", "bookworm")]);
        Ok(())
    }
}
