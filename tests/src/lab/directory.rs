//! The folder that holds all of a lab that the file system knows, and what removes it when the
//! process that made it cannot.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::namespace;

const RUN: &str = "/run";
const PREFIX: &str = "palisade-lab-";

/// Waits until its input closes, which the end of the lab's process does, however it ends; then
/// removes whatever is still there.
const GUARD: &str = r#"trap '' INT TERM HUP
read -r end
[ -d "$0" ] || exit 0
for file in "$0"/netns/*; do umount -l "$file"; done
umount -l "$0/bpf"
rm -rf "$0""#;

/// `/run/palisade-lab-PID-N`: namespace files, a bpffs, whatever files tests put there.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked as long as the lab lives; the kernel unlocks it when its process ends.
    _lock: File,
    guard: Child,
    guarded: Option<ChildStdin>,
}

impl Directory {
    pub(super) fn create() -> Result<Self> {
        static SWEPT: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEPT.call_once(|| {
            if let Err(error) = sweep() {
                eprintln!("removing what crashed labs left: {error:#}");
            }
        });
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(RUN).join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        let lock = File::create_new(path.join("lock"))?;
        lock.lock()?;
        let mut guard = Command::new("sh")
            .args(["-c", GUARD])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of the reach of a terminal's Ctrl-C.
            .process_group(0)
            .spawn()
            .context("starting the guard")?;
        let guarded = guard.stdin.take();
        let directory = Self {
            path,
            _lock: lock,
            guard,
            guarded,
        };
        fs::create_dir(directory.netns())?;
        fs::create_dir(directory.bpffs())?;
        mount("bpf", directory.bpffs(), "bpf", MountFlags::empty(), None)
            .context("mounting a bpffs")?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn netns(&self) -> PathBuf {
        self.path.join("netns")
    }

    pub(super) fn bpffs(&self) -> PathBuf {
        self.path.join("bpf")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("removing {}: {error:#}", self.path.display());
        }
        drop(self.guarded.take());
        if let Err(error) = self.guard.wait() {
            eprintln!("waiting for the guard: {error}");
        }
    }
}

/// Removes what labs left whose process and guard were both killed.
///
/// # Errors
/// Where something of theirs resists.
pub(super) fn sweep() -> Result<()> {
    for entry in fs::read_dir(RUN)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(pid) = name
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        let abandoned = match File::open(path.join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            // Not locked yet, or half removed.
            Err(_) => !Path::new("/proc").join(pid).exists(),
        };
        if abandoned {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    if let Ok(files) = fs::read_dir(path.join("netns")) {
        for file in files {
            namespace::remove(&file?.path());
        }
    }
    // EINVAL or ENOENT where it was never mounted.
    while unmount(path.join("bpf"), UnmountFlags::DETACH).is_ok() {}
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
