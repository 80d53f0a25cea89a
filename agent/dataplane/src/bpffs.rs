//! The bpf filesystem that pins lie in.

use std::{
    ffi::CStr,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::fstatfs,
    mount::{MountFlags, mount as mount_at},
};

/// There is no bpf filesystem where one has to be.
#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    /// The folder is on another filesystem.
    #[error(
        "{} is not on a bpf filesystem: mount one on the node (mount -t bpf bpf /sys/fs/bpf), \
         or let the chart do it (bpf.autoMount.enabled=true)",
        folder.display()
    )]
    Missing {
        /// The folder, or the nearest one above it that exists.
        folder: PathBuf,
    },
    /// The folder cannot be looked at.
    #[error("cannot look at {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// None can be mounted.
    #[error("cannot mount a bpf filesystem on {}", folder.display())]
    Mount {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Checks that a folder is, or once made will be, on a bpf filesystem.
///
/// # Errors
///
/// Says where it is instead, or why it cannot be told.
pub fn check(folder: &Path) -> Result<(), BpffsError> {
    let mut folder = folder;
    let file = loop {
        match File::open(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder = folder.parent().unwrap_or(Path::new("."));
            }
            file => break file,
        }
    };
    let fail = |source| BpffsError::Folder {
        folder: folder.to_owned(),
        source,
    };
    if filesystem(&file.map_err(fail)?).map_err(fail)? == BPFFS {
        Ok(())
    } else {
        Err(BpffsError::Missing {
            folder: folder.to_owned(),
        })
    }
}

/// Mounts a bpf filesystem on a folder that is not on one. `false` where it was on one already.
///
/// # Errors
///
/// There is no such folder, or nothing may be mounted: it takes `CAP_SYS_ADMIN`.
pub fn mount(folder: &Path) -> Result<bool, BpffsError> {
    let look = File::open(folder).and_then(|file| filesystem(&file));
    let kind = look.map_err(|source| BpffsError::Folder {
        folder: folder.to_owned(),
        source,
    })?;
    if kind == BPFFS {
        return Ok(false);
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    mount_at("bpf", folder, "bpf", flags, MODE).map_err(|source| BpffsError::Mount {
        folder: folder.to_owned(),
        source: source.into(),
    })?;
    check(folder)?;
    Ok(true)
}

/// As systemd mounts it: for root alone.
const MODE: &CStr = c"mode=700";
/// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`; all of them have 32 bits).
const BPFFS: u32 = 0xcafe_4a11;
/// `NSFS_MAGIC`: namespaces as files.
pub(crate) const NSFS: u32 = 0x6e73_6673;

/// The magic number of the filesystem a file is on.
pub(crate) fn filesystem(file: &File) -> io::Result<u32> {
    Ok(fstatfs(file)?.f_type as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_elsewhere_is_no_bpffs() {
        let error = check(Path::new("/proc/no/such/folder")).unwrap_err();
        assert!(matches!(error, BpffsError::Missing { folder } if folder == Path::new("/proc")));
    }

    #[test]
    fn nothing_is_mounted_where_there_is_no_folder() {
        let error = mount(Path::new("/proc/no/such/folder")).unwrap_err();
        assert!(matches!(error, BpffsError::Folder { .. }));
    }
}
