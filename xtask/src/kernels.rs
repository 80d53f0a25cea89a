//! `cargo xtask kernels`: programs and agents on Debian's kernels, booted under emulation.
//!
//! Each kernel gets an initramfs of busybox, nft, the modules it needs and two static programs: the agent, and
//! `kernel-check` of `palisade-tests`, which runs it. `kernel-check` prints `INSNS program count` for what the
//! verifier looked at, and ends with `KERNEL-CHECK: PASS n checks` or `KERNEL-CHECK: FAIL reason`. A guest that
//! crashes has failed: it may be our programs that crashed it.

use std::{
    fs, panic,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    debian::{Debian, Kernel, Program},
    dist::{self, Target},
    setup, workspace,
};

mod archive;
mod console;
mod guest;
mod modules;

use archive::Guest;
use console::{Console, End};
use guest::Machine;

/// A kernel of Debian's.
#[derive(Debug, PartialEq)]
struct Version {
    name: &'static str,
    number: &'static str,
    suite: &'static str,
    target: Target,
}

const fn version(
    name: &'static str,
    number: &'static str,
    suite: &'static str,
    target: Target,
) -> Version {
    Version {
        name,
        number,
        suite,
        target,
    }
}

/// The floor, and one kernel for each later step; then another architecture, which takes a build of its own and is
/// booted if it is named.
const VERSIONS: [Version; 5] = [
    version("5.10", "5.10", "bullseye", Target::X86_64),
    version("6.1", "6.1", "bookworm", Target::X86_64),
    version("6.12", "6.12", "trixie", Target::X86_64),
    version("7.2", "7.2", "sid", Target::X86_64),
    version("6.12-arm64", "6.12", "trixie", Target::Aarch64),
];

/// Options of `cargo xtask kernels`.
#[derive(Args)]
pub(crate) struct Options {
    /// The versions, in place of those of this architecture
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    kernel: Vec<String>,
}

/// How many guests run at once; each keeps one CPU busy.
const AT_ONCE: usize = 2;

pub(crate) fn run(options: &Options) -> Result<()> {
    check(&choose(&options.kernel)?)
}

fn choose(wanted: &[String]) -> Result<Vec<&'static Version>> {
    if wanted.is_empty() {
        let own = VERSIONS.iter();
        return Ok(own.filter(|own| own.target == Target::X86_64).collect());
    }
    let known = |wanted: &String| {
        let found = VERSIONS.iter().find(|version| version.name == wanted);
        found.with_context(|| {
            let known: Vec<_> = VERSIONS.iter().map(|version| version.name).collect();
            format!("no kernel {wanted}: there are {}", known.join(", "))
        })
    };
    wanted.iter().map(known).collect()
}

fn check(versions: &[&'static Version]) -> Result<()> {
    setup::ebpf()?;
    let logs = workspace::target_folder()?.join("kernels");
    fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;

    let mut machines = Vec::new();
    let mut built: Vec<(Target, [PathBuf; 2])> = Vec::new();
    for version in versions {
        let target = version.target;
        setup::programs(&[guest::emulator(target), ("xz", "xz-utils")])?;
        let fetched = match Fetched::of(version) {
            Ok(fetched) => fetched,
            Err(error) => {
                println!("SKIP: kernel {}: {error:#}", version.name);
                machines.push((version.name, None));
                continue;
            }
        };
        if !built.iter().any(|(built, _)| *built == target) {
            let palisade = dist::binary(target)?;
            let check = dist::build(target, "palisade-tests", "kernel-check")?;
            built.push((target, [palisade, check]));
        }
        let programs = built.iter().find(|(built, _)| *built == target);
        let (_, programs) = programs.context("built above")?;
        let initramfs = logs.join(format!("{}.cpio", version.name));
        let machine = fetched.machine(target, programs, initramfs)?;
        machines.push((version.name, Some(machine)));
    }

    let mut rows = Vec::new();
    for beside in machines.chunks(AT_ONCE) {
        rows.extend(boot_all(beside, &logs)?);
    }
    let consoles = rows.iter().filter_map(|row| row.console.as_ref());
    for reason in consoles.flat_map(|console| &console.skips) {
        println!("SKIP: {reason}");
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

/// What of a guest is not ours.
struct Fetched {
    kernel: Kernel,
    busybox: PathBuf,
    nft: Program,
}

impl Fetched {
    fn of(version: &Version) -> Result<Self> {
        let debian = Debian::new(version.target)?;
        Ok(Self {
            kernel: debian.kernel(version.number, version.suite)?,
            busybox: debian.busybox()?,
            nft: debian.nft()?,
        })
    }

    /// Puts all that the guest has into its initramfs.
    fn machine(
        self,
        target: Target,
        [palisade, check]: &[PathBuf; 2],
        initramfs: PathBuf,
    ) -> Result<Machine> {
        let guest = Guest {
            kernel: &self.kernel,
            busybox: &self.busybox,
            nft: &self.nft,
            check,
            palisade,
        };
        let content = guest.initramfs()?;
        fs::write(&initramfs, content).with_context(|| format!("write {}", initramfs.display()))?;
        Ok(Machine {
            target,
            kernel: self.kernel,
            initramfs,
        })
    }
}

/// Boots all of these at once.
fn boot_all(machines: &[(&'static str, Option<Machine>)], logs: &Path) -> Result<Vec<Row>> {
    thread::scope(|scope| {
        let row = |(version, machine): &(&'static str, Option<Machine>)| -> Result<Row> {
            let Some(machine) = machine else {
                return Ok(Row::skipped(version));
            };
            Ok(Row {
                version,
                release: machine.kernel.release.clone(),
                console: Some(boot(machine, &logs.join(format!("{version}.log")))?),
            })
        };
        let boot = |machine| scope.spawn(move || row(machine));
        let threads: Vec<_> = machines.iter().map(boot).collect();
        let rows = threads.into_iter().map(|thread| thread.join());
        rows.map(|row| row.unwrap_or_else(|cause| panic::resume_unwind(cause)))
            .collect()
    })
}

/// Boots, and shows the end of what a guest printed that did not pass.
fn boot(machine: &Machine, log: &Path) -> Result<Console> {
    let release = &machine.kernel.release;
    println!("booting {release}");
    let begun = Instant::now();
    let text = machine.boot()?;
    fs::write(log, &text).with_context(|| format!("write {}", log.display()))?;
    let console = Console::read(&text);
    let seconds = begun.elapsed().as_secs();
    let (what, why) = match &console.end {
        End::Pass(_) => {
            println!("{release} passed in {seconds} s");
            return Ok(console);
        }
        End::Fail(why) => ("did not hold", why),
        End::Crash(why) => ("crashed", why),
    };
    println!(
        "{}\n{release} {what}: {why}\n(all that it printed: {})",
        console::tail(&text),
        log.display()
    );
    Ok(console)
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
        assert_eq!(choose(&["6.1".into()])?[0].suite, "bookworm");
        assert_eq!(choose(&[])?.len(), 4);
        assert_eq!(choose(&["6.12-arm64".into()])?[0].target, Target::Aarch64);
        Ok(())
    }
}
