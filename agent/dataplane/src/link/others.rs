//! The programs of others on the devices of a node, before an agent is there.

use std::{collections::BTreeSet, fmt, path::Path};

use crate::{
    link::{attach::AttachError, clsact, tcx},
    netlink::{Hook, Namespace, Socket},
    pins,
};

/// A program that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The device's name.
    pub device: String,
    /// Where it is.
    pub place: Place,
    /// What it is called; TCX and XDP give no name without `CAP_SYS_ADMIN`.
    pub name: Option<String>,
}

/// Where a program may be on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Before everything else.
    Xdp,
    /// TCX.
    Tcx(Hook),
    /// A filter.
    Clsact(Hook),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xdp => f.write_str("XDP"),
            Self::Tcx(hook) => write!(f, "TCX {hook}"),
            Self::Clsact(hook) => write!(f, "clsact {hook}"),
        }
    }
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.device, self.place)?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// The programs of others on all devices of the calling thread's network namespace: those that are no filters of ours,
/// and held by no link that is pinned in this folder.
///
/// # Errors
///
/// Devices or their programs cannot be listed.
pub fn others(root: &Path) -> Result<Vec<Other>, AttachError> {
    let mut socket = Socket::open()?;
    let mut others = Vec::new();
    for link in socket.links(Namespace::Own)? {
        let mut found = |place, name| {
            others.push(Other {
                device: link.name.clone(),
                place,
                name,
            });
        };
        if link.xdp.is_some() {
            found(Place::Xdp, None);
        }
        for hook in [Hook::Ingress, Hook::Egress] {
            let ours = tcx::pinned(&pins::link(root, link.index, hook), link.index)?;
            let attached: BTreeSet<_> = tcx::links(link.index, hook)?.into_iter().collect();
            for _ in attached.into_iter().filter(|link| Some(*link) != ours) {
                found(Place::Tcx(hook), None);
            }
            for filter in clsact::foreign(&mut socket, link.index, hook)? {
                found(Place::Clsact(hook), filter.name);
            }
        }
    }
    Ok(others)
}
