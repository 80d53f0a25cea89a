//! What the agent needs of the kernel, and may ask of it.

use std::{fs, path::Path};

use palisade_dataplane::{bpffs, caps};

use super::{Finding, Severity, message};

/// The oldest kernel, major and minor number.
const FLOOR: (u32, u32) = (5, 10);
/// From which on maps count against the memory cgroup, and not as locked memory.
const NOT_LOCKED: (u32, u32) = (5, 11);
/// What two sets of maps of the default sizes take, 222 MiB each, with room for programs, in bytes: a new layout
/// is filled beside the old one.
const LOCKED: u64 = 512 << 20;

pub(super) fn check(folder: &Path) -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let memory = locked_memory(caps::kernel_version(release));
    vec![
        Finding::of("kernel", kernel(release)),
        Finding::new(
            "btf",
            Severity::Ok,
            btf(Path::new("/sys/kernel/btf/vmlinux")),
        ),
        Finding::of("capabilities", capabilities()),
        Finding::of("locked-memory", memory),
        Finding::of("bpffs", filesystem(folder)),
        Finding::of("hook", hook()),
    ]
}

fn kernel(release: &str) -> Result<String, String> {
    let (major, minor) = FLOOR;
    match caps::kernel_version(release) {
        Some(version) if version >= FLOOR => Ok(format!("Linux {release}")),
        Some(_) => Err(format!("Linux {release} is older than {major}.{minor}")),
        None => Err(format!("cannot tell how old Linux {release:?} is")),
    }
}

/// The programs are not relocated: they read packets and maps, and no structure of the kernel.
fn btf(file: &Path) -> &'static str {
    match file.exists() {
        true => "the kernel has BTF",
        false => "the kernel has no BTF, and the programs need none",
    }
}

fn capabilities() -> Result<String, String> {
    caps::check_capabilities()
        .map(|()| "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".to_owned())
        .map_err(message)
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

fn filesystem(folder: &Path) -> Result<String, String> {
    bpffs::check(folder)
        .map(|()| folder.display().to_string())
        .map_err(message)
}

fn hook() -> Result<String, String> {
    match caps::has_tcx() {
        Ok(true) => Ok("TCX".to_owned()),
        Ok(false) => Ok("clsact filters (TCX came with Linux 6.6)".to_owned()),
        Err(error) => Err(message(error)),
    }
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
}
