//! Takes everything off a node, and looks whether anything is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    bpffs,
    link::{
        attach::{AttachError, Strategy},
        clsact::{self, Clsact},
        tcx::{self, Tcx},
    },
    netlink::{Hook, Namespace, Socket},
    pins::Pins,
};

/// Something of ours on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A program on a hook.
    Program {
        /// The device's name; none if it is gone.
        device: Option<String>,
        /// Its index.
        ifindex: u32,
        /// The hook.
        hook: Hook,
        /// How it is attached.
        strategy: Strategy,
    },
    /// A program on a hook, of which it cannot be told whose it is.
    Unknown {
        /// The device's name.
        device: String,
        /// The hook.
        hook: Hook,
    },
    /// The qdisc that filters stand on.
    Qdisc {
        /// The device's name.
        device: String,
    },
    /// A folder or file: maps, the folder of pins.
    Path(PathBuf),
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program {
                device,
                ifindex,
                hook,
                strategy,
            } => {
                let strategy = match strategy {
                    Strategy::Tcx => "TCX link",
                    Strategy::Clsact => "clsact filter",
                };
                match device {
                    Some(device) => write!(f, "{strategy} at {hook} of {device}"),
                    None => write!(f, "{strategy} at {hook} of device {ifindex}, which is gone"),
                }
            }
            Self::Unknown { device, hook } => write!(
                f,
                "program at {hook} of {device}, of which cannot be told whose it is"
            ),
            Self::Qdisc { device } => write!(f, "clsact qdisc of {device}"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// What [`remove`] took away.
#[derive(Debug, Default)]
pub struct Removed {
    /// All of it, in that order.
    pub traces: Vec<Trace>,
    /// The kernel's ids of the TCX links among it: other names they have not, once they are not pinned.
    pub links: BTreeSet<u32>,
}

/// Takes every program off every device of the calling thread's network namespace, then all maps and the
/// folder: from here on all packets pass.
///
/// # Errors
///
/// What cannot be removed.
pub fn remove(pins: Pins) -> Result<Removed, AttachError> {
    let mut removed = Removed::default();
    let root = pins.root().to_owned();
    let mut socket = Socket::open()?;
    let devices = devices(&mut socket)?;
    let program = |ifindex: u32, hook, strategy| Trace::Program {
        device: devices.get(&ifindex).cloned(),
        ifindex,
        hook,
        strategy,
    };

    let mut tcx = Tcx {
        pins: &pins,
        held: &mut tcx::Held::new(),
    };
    for (ifindex, hook) in pins.links()? {
        removed.links.extend(tcx.remove(ifindex, hook)?);
        let trace = program(ifindex, hook, Strategy::Tcx);
        removed.traces.push(trace);
    }

    let mut clsact = Clsact {
        pins: &pins,
        socket: &mut socket,
    };
    let made = pins.clsacts()?;
    for (ifindex, hook) in clsact.observe()?.attached.into_keys() {
        clsact.remove(ifindex, hook)?;
        let trace = program(ifindex, hook, Strategy::Clsact);
        removed.traces.push(trace);
    }
    clsact.remove_all()?;
    let left: Vec<_> = socket.ingress_qdiscs()?;
    let gone = made
        .iter()
        .filter(|ifindex| !left.iter().any(|(device, _)| device == *ifindex));
    removed.traces.extend(gone.filter_map(|ifindex| {
        let device = devices.get(ifindex)?.clone();
        Some(Trace::Qdisc { device })
    }));

    for set in pins.sets()? {
        let folder = root.join(set.to_string());
        removed.traces.push(Trace::Path(folder));
    }
    pins.remove()?;
    removed.traces.push(Trace::Path(root));
    Ok(removed)
}

/// Looks what is left on the node: the folder, filters, and those of the links that are still on their hooks. Where
/// no bpf filesystem is, nothing tells which links are ours, and all are named.
///
/// # Errors
///
/// Devices or their programs cannot be listed.
pub fn remains(root: &Path, links: &BTreeSet<u32>) -> Result<Vec<Trace>, AttachError> {
    let mut socket = Socket::open()?;
    let mut traces = Vec::new();
    let unknown = bpffs::check(root).is_err();
    for (ifindex, device) in devices(&mut socket)? {
        for hook in [Hook::Ingress, Hook::Egress] {
            let found = tcx::links(ifindex, hook)?;
            let program = |strategy| Trace::Program {
                device: Some(device.clone()),
                ifindex,
                hook,
                strategy,
            };
            if found.iter().any(|link| links.contains(link)) {
                traces.push(program(Strategy::Tcx));
            } else if unknown && !found.is_empty() {
                let device = device.clone();
                traces.push(Trace::Unknown { device, hook });
            }
            if clsact::is_there(&mut socket, ifindex, hook)? {
                traces.push(program(Strategy::Clsact));
            }
        }
    }
    if root.symlink_metadata().is_ok() {
        traces.push(Trace::Path(root.to_owned()));
    }
    Ok(traces)
}

fn devices(socket: &mut Socket) -> Result<BTreeMap<u32, String>, AttachError> {
    let links = socket.links(Namespace::Own)?;
    Ok(links
        .into_iter()
        .map(|link| (link.index, link.name))
        .collect())
}
