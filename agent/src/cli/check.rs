//! `palisade check`: whether a node has what the agent needs, before it is installed.

use std::{fmt::Write as _, fs, path::PathBuf};

use palisade_dataplane::{bpffs, caps};
use serde::Serialize;

use super::{Exit, Output, print, print_json, table::Table};

/// The oldest kernel, major and minor number.
const FLOOR: (u32, u32) = (5, 10);
/// From which on maps count against the memory cgroup, and not as locked memory.
const NOT_LOCKED: (u32, u32) = (5, 11);
/// What two sets of maps of the default sizes take, 222 MiB each, with room for programs, in bytes: a new layout
/// is filled beside the old one.
const LOCKED: u64 = 512 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the pins, in a BPF file system.
    #[arg(long, value_name = "DIR", env = "PALISADE_BPFFS", default_value = crate::config::BPFFS)]
    bpffs: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What came of one check.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    ok: bool,
    message: String,
}

/// The answer, in the form for programs.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Finding>,
}

pub(super) fn run(args: &Args) -> Exit {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let checks = vec![
        finding("kernel", kernel(release)),
        finding("capabilities", capabilities()),
        finding(
            "locked-memory",
            locked_memory(caps::kernel_version(release)),
        ),
        finding("bpffs", bpffs(args)),
        finding("hook", hook()),
    ];
    let report = Report {
        ok: checks.iter().all(|check| check.ok),
        checks,
    };
    match args.output {
        Output::Json => print_json(&report),
        Output::Text => print(&text(&report)),
    }
    if report.ok { Exit::Yes } else { Exit::No }
}

fn finding(name: &'static str, result: Result<String, String>) -> Finding {
    let ok = result.is_ok();
    Finding {
        name,
        ok,
        message: result.unwrap_or_else(|problem| problem),
    }
}

fn kernel(release: &str) -> Result<String, String> {
    let (major, minor) = FLOOR;
    match caps::kernel_version(release) {
        Some(version) if version >= FLOOR => Ok(format!("Linux {release}")),
        Some(_) => Err(format!("Linux {release} is older than {major}.{minor}")),
        None => Err(format!("cannot tell how old Linux {release:?} is")),
    }
}

fn capabilities() -> Result<String, String> {
    caps::check_capabilities()
        .map(|()| "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".to_owned())
        .map_err(|error| error.to_string())
}

/// Before Linux 5.11 maps and programs count against `RLIMIT_MEMLOCK`, which only `CAP_SYS_RESOURCE` may raise
/// beyond its hard limit.
fn locked_memory(version: Option<(u32, u32)>) -> Result<String, String> {
    if version >= Some(NOT_LOCKED) {
        return Ok("maps do not count as locked memory".to_owned());
    }
    caps::raise_memlock();
    match caps::memlock() {
        None => Ok("no limit".to_owned()),
        Some(bytes) if bytes >= LOCKED => Ok(format!("{bytes} bytes")),
        Some(bytes) => Err(format!(
            "maps count as locked memory before Linux 5.11, and RLIMIT_MEMLOCK is {bytes} bytes: \
             add CAP_SYS_RESOURCE (chart: sysResource=true) or raise the limit"
        )),
    }
}

fn bpffs(args: &Args) -> Result<String, String> {
    bpffs::check(&args.bpffs)
        .map(|()| args.bpffs.display().to_string())
        .map_err(|error| error.to_string())
}

fn hook() -> Result<String, String> {
    match caps::has_tcx() {
        Ok(true) => Ok("TCX".to_owned()),
        Ok(false) => Ok("clsact filters (TCX came with Linux 6.6)".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::new(["CHECK", "OK", "FOUND"]);
    for Finding { name, ok, message } in &report.checks {
        let ok = if *ok { "yes" } else { "no" };
        table.row([(*name).to_owned(), ok.to_owned(), message.clone()]);
    }
    let mut text = table.to_string();
    let failed = report.checks.iter().filter(|check| !check.ok).count();
    if failed > 0 {
        writeln!(
            text,
            "\nPalisade cannot run here: {failed} of {}",
            report.checks.len()
        )
        .expect("a String takes every text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_and_those_that_do_not_say_are_refused() {
        assert!(kernel("5.10.0-30-cloud-amd64").is_ok());
        assert!(kernel("6.18.5").is_ok());
        assert!(kernel("10.0").is_ok());
        assert!(kernel("5.9.16").is_err());
        assert!(kernel("4.19.0-27-amd64").is_err());
        assert!(kernel("").is_err());
    }

    #[test]
    fn locked_memory_matters_on_old_kernels_only() {
        assert!(locked_memory(Some((5, 11))).is_ok());
        assert!(locked_memory(Some((6, 1))).is_ok());
    }

    #[test]
    fn the_text_says_what_is_wrong() {
        let report = Report {
            ok: false,
            checks: vec![
                finding("kernel", Ok("Linux 6.1".to_owned())),
                finding("bpffs", Err("no".to_owned())),
            ],
        };
        let expected = "CHECK    OK    FOUND\nkernel   yes   Linux 6.1\nbpffs    no    no\n\
                        \nPalisade cannot run here: 1 of 2\n";
        assert_eq!(text(&report), expected);
    }
}
