//! The runtime's files of network namespaces. They are asked where an address is that no device of the
//! node leads to, so that a pod that is not enforced is listed with the reason.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    bpffs::{self, NSFS},
    link::discover::Missing,
    netlink::{LocalAddress, Namespace, NetlinkError, Socket},
};

/// What is behind the files was read at most this long ago. Pods that wait for their interface are
/// looked for again and again; a reason may be this much late.
const STALE_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct NamespaceFiles {
    folders: Vec<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
    read: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    inode: u64,
    id: Namespace,
    addresses: Vec<LocalAddress>,
}

impl NamespaceFiles {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            folders,
            known: BTreeMap::new(),
            read: None,
        }
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.read = None;
    }

    /// Why an address has no host-side device.
    pub(super) fn explain(&mut self, socket: &mut Socket, address: IpAddr) -> Missing {
        if self.read.is_none_or(|read| read.elapsed() >= STALE_AFTER) {
            self.refresh(socket);
            self.read = Some(Instant::now());
        }
        let holder = self.known.iter().find_map(|(file, known)| {
            let holds = |local: &&LocalAddress| local.address == address;
            let index = known.addresses.iter().find(holds)?.index;
            let links = socket.links(known.id).ok()?;
            let link = links.into_iter().find(|link| link.index == index)?;
            Some((file.clone(), link))
        });
        match holder {
            None => Missing::Nowhere { address },
            Some((file, link)) if matches!(link.kind.as_deref(), Some("veth" | "netkit")) => {
                Missing::Elsewhere {
                    file,
                    device: link.name,
                }
            }
            Some((file, link)) => Missing::Unpaired {
                file,
                device: link.name,
                kind: link.kind,
            },
        }
    }

    fn refresh(&mut self, socket: &mut Socket) {
        let mut known = BTreeMap::new();
        for path in self.folders.iter().flat_map(|folder| files(folder)) {
            match read(socket, &path) {
                Ok(Some(inside)) => {
                    // `/var/run` is often a link to `/run`: the same namespace under two names.
                    if !known
                        .values()
                        .any(|other: &Known| other.inode == inside.inode)
                    {
                        known.insert(path, inside);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(file = %path.display(), %error, "cannot read a network namespace");
                }
            }
        }
        self.known = known;
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(folder = %folder.display(), %error, "cannot list network namespaces");
            }
            Vec::new()
        }
    }
}

/// What is in the namespace a file stands for; none where it stands for no namespace.
fn read(socket: &mut Socket, path: &Path) -> Result<Option<Known>, FileError> {
    // Not blocking: a file in such a folder may be a pipe.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if bpffs::filesystem(&file)? != NSFS {
        return Ok(None);
    }
    let id = match socket.namespace_id(&file) {
        // A namespace of another kind.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        id => Namespace::Id(id?),
    };
    Ok(Some(Known {
        inode: file.metadata()?.ino(),
        addresses: socket.addresses(id)?,
        id,
    }))
}

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
