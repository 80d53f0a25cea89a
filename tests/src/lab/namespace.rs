//! A network namespace: kept alive by a file, entered by threads of its own.

use std::{
    fs::{self, File},
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use rustix::{
    mount::{UnmountFlags, mount_bind, unmount},
    process::{Resource, Rlimit, setrlimit},
    thread::{
        CapabilitySet, LinkNameSpaceType, UnshareFlags, move_into_link_name_space,
        remove_capability_from_bounding_set, unshare_unsafe,
    },
};

use super::netlink::Netlink;

/// Written in every new namespace. Duplicate address detection and its delays are off, for they are
/// most of the time an IPv6 lab would take; reverse path filters are, for masqueraded and asymmetric
/// traffic is what labs are for; redirects are, for a router that sends back where it came from is
/// what a bridge with several ranges is.
const SETTINGS: &[(&str, &str)] = &[
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
];

/// A network namespace with a file that names it, as container runtimes leave one per sandbox.
/// Dropping it removes the file; the kernel takes the rest down once the last socket in it is gone.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    file: Arc<File>,
    netlink: Netlink,
}

impl Namespace {
    /// Makes a namespace and binds it to a new file at `path`.
    ///
    /// # Errors
    /// Where the kernel refuses, most often for want of CAP_SYS_ADMIN.
    pub fn create(path: &Path) -> Result<Self> {
        File::create_new(path).with_context(|| format!("creating {}", path.display()))?;
        let made = in_thread(|| -> Result<(File, Netlink)> {
            // SAFETY: a network namespace of its own changes nothing that another thread relies
            // on, and this thread ends with this closure.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare")?;
            for (name, value) in SETTINGS {
                setting(name, value)?;
            }
            mount_bind("/proc/thread-self/ns/net", path).context("binding the namespace")?;
            let netlink = Netlink::open()?;
            netlink.up("lo")?;
            Ok((File::open(path)?, netlink))
        });
        match made {
            Ok((file, netlink)) => Ok(Self {
                path: path.to_owned(),
                file: Arc::new(file),
                netlink,
            }),
            Err(error) => {
                remove(path);
                Err(error.context(format!("making {}", path.display())))
            }
        }
    }

    /// The file that names it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A netlink socket that speaks of this namespace, from whatever thread.
    #[must_use]
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Runs a closure inside, in a thread of its own, so that no other code ever finds itself in
    /// the wrong place. Sockets made there stay there, whoever uses them.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            // Can fail for want of privilege only, and then the namespace could not be made.
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("entering a namespace of our own");
            inside()
        })
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        let enter = move || {
            let network = Some(LinkNameSpaceType::Network);
            Ok(move_into_link_name_space(file.as_fd(), network)?)
        };
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// The same with a limit of so many bytes of locked memory, and without CAP_SYS_RESOURCE, which could
    /// raise it.
    #[must_use]
    pub fn command_with_memlock(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        bytes: u64,
    ) -> Command {
        let mut command = self.command(program);
        let restrict = move || {
            let limit = Rlimit {
                current: Some(bytes),
                maximum: Some(bytes),
            };
            setrlimit(Resource::Memlock, limit)?;
            // What root gets on exec is what the bounding set leaves.
            Ok(remove_capability_from_bounding_set(
                CapabilitySet::SYS_RESOURCE,
            )?)
        };
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(restrict) };
        command
    }

    /// The same on what is to it a kernel without netlink of netfilter: nobody tells of tracked connections.
    #[must_use]
    pub fn command_without_netfilter(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command(program);
        // SAFETY: between fork and exec only a system call is made.
        unsafe { command.pre_exec(refuse_netfilter) };
        command
    }

    /// Runs a program inside to its end, with `input` on its standard input; returns its output.
    ///
    /// # Errors
    /// Where it cannot start or does not succeed; with what it wrote to standard error.
    pub fn output(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "{program} {arguments:?}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes settings under /proc/sys, as this namespace sees it.
    ///
    /// # Errors
    /// Where one does not exist or refuses the value.
    pub fn settings(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            settings
                .iter()
                .try_for_each(|(name, value)| setting(name, value))
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes the file of a namespace, whether or not a namespace is still bound to it.
pub(super) fn remove(path: &Path) {
    // Several may be stacked where a lab died between two steps; EINVAL says none is left.
    while unmount(path, UnmountFlags::DETACH).is_ok() {}
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("removing {}: {error}", path.display());
    }
}

fn setting(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/{name}"), value).with_context(|| format!("setting {name}={value}"))
}

/// Runs a closure in a thread that ends with it: what it does to its namespaces ends there too.
fn in_thread<T: Send>(inside: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// From now on this process gets no socket of netfilter, by a filter of its system calls.
fn refuse_netfilter() -> std::io::Result<()> {
    // Offsets into `struct seccomp_data`, of the lower halves.
    const NUMBER: u32 = 0;
    const FAMILY: u32 = 16;
    const PROTOCOL: u32 = if cfg!(target_endian = "little") {
        32
    } else {
        36
    };
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const UNLESS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let code = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut filter = [
        code(LOAD, NUMBER, 0),
        code(UNLESS, libc::SYS_socket as u32, 5),
        code(LOAD, FAMILY, 0),
        code(UNLESS, libc::AF_NETLINK as u32, 3),
        code(LOAD, PROTOCOL, 0),
        code(UNLESS, libc::NETLINK_NETFILTER as u32, 1),
        code(
            RETURN,
            libc::SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32,
            0,
        ),
        code(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program leads to the filter, and both outlive the call.
    let set = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
