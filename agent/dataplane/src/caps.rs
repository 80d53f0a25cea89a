//! What this process may ask of the kernel, and what the kernel can do.

use std::{fmt, fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{link::bpf, netlink::Hook};

/// Something the agent needs and lacks.
#[derive(Debug, thiserror::Error)]
pub enum CapsError {
    /// Capabilities are not in the effective set.
    #[error("missing capabilities: {missing}")]
    Missing {
        /// Which.
        missing: CapabilityNames,
    },
    /// The capability set cannot be read.
    #[error("cannot read the capabilities of this process")]
    Unreadable(#[source] io::Error),
    /// The kernel does not answer a probe as any known one does.
    #[error("cannot tell whether the kernel has {feature}")]
    Probe {
        /// The feature asked for.
        feature: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// A capability the agent works with (`include/uapi/linux/capability.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Attach to devices, and read other network namespaces through their ids.
    NetAdmin = 12,
    /// Direct packet access at variable offsets; without it the verifier refuses the programs.
    Perfmon = 38,
    /// Create maps and load programs.
    Bpf = 39,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bpf, Self::NetAdmin, Self::Perfmon];
    /// `CAP_SYS_ADMIN` stands for what later became `CAP_BPF` and `CAP_PERFMON`.
    const SYS_ADMIN: u64 = 1 << 21;

    const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }

    const fn held(self, effective: u64) -> bool {
        let by_sys_admin = match self {
            Self::NetAdmin => false,
            Self::Perfmon | Self::Bpf => effective & Self::SYS_ADMIN != 0,
        };
        by_sys_admin || effective & (1 << self as u32) != 0
    }
}

/// Capabilities, shown by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityNames(Vec<Capability>);

impl fmt::Display for CapabilityNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|capability| capability.name()).collect();
        f.write_str(&names.join(", "))
    }
}

/// Checks that the calling thread has every [`Capability`].
///
/// # Errors
///
/// Names those it lacks.
pub fn check_capabilities() -> Result<(), CapsError> {
    let status = fs::read_to_string("/proc/thread-self/status").map_err(CapsError::Unreadable)?;
    let missing = missing(effective(&status).ok_or_else(|| {
        CapsError::Unreadable(io::Error::new(io::ErrorKind::InvalidData, "no CapEff line"))
    })?);
    if missing.0.is_empty() {
        Ok(())
    } else {
        Err(CapsError::Missing { missing })
    }
}

fn effective(status: &str) -> Option<u64> {
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

fn missing(effective: u64) -> CapabilityNames {
    CapabilityNames(
        Capability::ALL
            .into_iter()
            .filter(|capability| !capability.held(effective))
            .collect(),
    )
}

/// Whether the kernel has TCX, the hook of Linux 6.6 that takes BPF links on a device's ingress and egress.
/// Asked of the loopback device, which every namespace has; nothing is attached.
///
/// # Errors
///
/// The kernel gives another answer than one with or one without TCX.
pub fn has_tcx() -> Result<bool, CapsError> {
    const LOOPBACK: u32 = 1;
    match bpf::query(LOOPBACK, Hook::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(source) => Err(CapsError::Probe {
            feature: "TCX",
            source,
        }),
    }
}

/// Lets this process hold as much memory in maps as it needs. Kernels before 5.11 count maps against
/// `RLIMIT_MEMLOCK`; later ones against the memory cgroup, and there this does nothing. Beyond the
/// hard limit it takes `CAP_SYS_RESOURCE`; if maps then cannot be made, loading says so.
pub fn raise_memlock() {
    let hard = getrlimit(Resource::Memlock).maximum;
    for maximum in [None, hard] {
        let wanted = Rlimit {
            current: maximum,
            maximum,
        };
        match setrlimit(Resource::Memlock, wanted) {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, ?wanted, "cannot raise RLIMIT_MEMLOCK"),
        }
    }
}

/// Major and minor number of a kernel's release, as `/proc/sys/kernel/osrelease` has it; none if it does not begin
/// with numbers.
#[must_use]
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// How many bytes this process may lock in memory, if there is a limit.
#[must_use]
pub fn memlock() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_capabilities_are_enough_and_each_is_needed() {
        let all = 1 << 12 | 1 << 38 | 1 << 39;
        assert_eq!(missing(all).to_string(), "");
        assert_eq!(missing(all & !(1 << 12)).to_string(), "CAP_NET_ADMIN");
        assert_eq!(missing(1 << 12).to_string(), "CAP_BPF, CAP_PERFMON");
        assert_eq!(missing(1 << 12 | 1 << 21).to_string(), "");
        assert_eq!(missing(1 << 21).to_string(), "CAP_NET_ADMIN");
    }

    #[test]
    fn the_effective_set_is_read() {
        let status = "Name:\tx\nCapPrm:\t00000000ffffffff\nCapEff:\t000000c000001000\nCapBnd:\t0\n";
        assert_eq!(effective(status), Some(1 << 12 | 1 << 38 | 1 << 39));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
