//! Programs on TCX hooks, held there by pinned links.
//!
//! Ours run before all others. At ingress so that they see packets as the pod sent them; at egress
//! because a program that comes before and returns anything but TC_ACT_UNSPEC ends the hook: last in line,
//! a stranger's TC_ACT_OK would let every packet go unjudged.
//!
//! Whoever comes later may go before them, and the kernel moves no link: a second one goes to the front, and
//! takes the first one's place.
//!
//! The kernel waits for a grace period, about 15 ms with the RTNL lock held, whenever a program is added to a
//! hook or taken off; a replacement waits for nothing (0.04 ms). So a device keeps its links for life, and
//! a change of its role replaces their programs.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use crate::{
    link::{
        attach::{AttachError, Foreign, Observed},
        bpf::{self, LinkInfo},
    },
    netlink::Hook,
    pins::Pins,
};

pub(super) struct Tcx<'a> {
    pub(super) pins: &'a Pins,
    pub(super) held: &'a mut Held,
}

/// The links that are pinned, held open: whoever removes a pin takes no program off while this lives.
pub(super) type Held = BTreeMap<(u32, Hook), OwnedFd>;

impl Tcx<'_> {
    /// What the pinned links hold. A link whose device is gone counts as a program with id 0, which no program
    /// has, so that its pin is replaced or taken away. A link that is held and whose pin is gone is not there: it is to be
    /// put, and that pins it again.
    pub(super) fn observe(&mut self) -> Result<Observed, AttachError> {
        let mut observed = Observed::default();
        for (ifindex, hook) in self.pins.links()? {
            let place = (ifindex, hook);
            let live = live(pinned_link(&self.pins.link(ifindex, hook), ifindex)?, place)?;
            let program = match live {
                Some(Live { link, info, before }) => {
                    self.held.insert(place, link);
                    let others = before.into_iter();
                    observed.before.extend(others.map(|program| Foreign {
                        ifindex,
                        hook,
                        before: true,
                        program: Some(program),
                        name: None,
                    }));
                    info.program
                }
                None => 0,
            };
            observed.attached.insert(place, program);
        }
        Ok(observed)
    }

    /// The link that holds a program on a hook: the pinned one, or one whose pin was removed.
    fn live(&self, ifindex: u32, hook: Hook) -> Result<Option<Live>, AttachError> {
        let place = (ifindex, hook);
        let link = pinned_link(&self.pins.link(ifindex, hook), ifindex)?;
        if let Some(live) = live(link, place)? {
            return Ok(Some(live));
        }
        let held = self.held.get(&place).map(OwnedFd::try_clone).transpose();
        live(held.map_err(failure("hold a link", ifindex))?, place)
    }

    pub(super) fn put(
        &mut self,
        ifindex: u32,
        hook: Hook,
        program: BorrowedFd<'_>,
    ) -> Result<(), AttachError> {
        // Until it is pinned the link dies with this process, so an interruption leaves nothing behind.
        let link = match self.live(ifindex, hook)? {
            Some(Live { link, .. }) => {
                bpf::update_link(&link, program).map_err(failure("replace a program", ifindex))?;
                link
            }
            None => bpf::create_link(program, ifindex, hook)
                .map_err(failure("attach a program", ifindex))?,
        };
        let path = self.pins.link(ifindex, hook);
        let pinned = pinned_link(&path, ifindex)?;
        if live(pinned, (ifindex, hook))?.is_none() {
            // A pin in the way holds nothing on this device.
            self.pins.remove_link(ifindex, hook)?;
            self.pins.make_links()?;
            bpf::pin(&link, &path).map_err(failure("pin a link", ifindex))?;
        }
        self.held.insert((ifindex, hook), link);
        Ok(())
    }

    /// Has our program run before all others on a hook again. The kernel takes no program twice on a hook, so a copy of it
    /// goes to the front by a link of its own; that takes the pin, the old link goes, and the copy gives way to the
    /// program. For a moment both run on a packet. That is harmless: the second finds the flow and the mark of the first, and
    /// comes to the same verdict; what passes is counted twice.
    pub(super) fn lead(
        &mut self,
        ifindex: u32,
        hook: Hook,
        program: BorrowedFd<'_>,
        copy: BorrowedFd<'_>,
    ) -> Result<(), AttachError> {
        let Some(Live { link: old, .. }) = self.live(ifindex, hook)? else {
            return Ok(());
        };
        let new =
            bpf::create_link(copy, ifindex, hook).map_err(failure("attach a program", ifindex))?;
        self.pins.make_links()?;
        bpf::pin(&new, &self.pins.new_link(ifindex, hook))
            .map_err(failure("pin a link", ifindex))?;
        self.pins.replace_link(ifindex, hook)?;
        bpf::detach_link(&old).map_err(failure("detach a program", ifindex))?;
        bpf::update_link(&new, program).map_err(failure("replace a program", ifindex))?;
        self.held.insert((ifindex, hook), new);
        Ok(())
    }

    /// Takes away the link of a hook; the kernel's id of it, where it held a program there.
    pub(super) fn remove(&mut self, ifindex: u32, hook: Hook) -> Result<Option<u32>, AttachError> {
        let live = self.live(ifindex, hook)?;
        // Without this the program would run on until the kernel has got round to freeing the link.
        if let Some(Live { link, .. }) = &live {
            bpf::detach_link(link).map_err(failure("detach a program", ifindex))?;
        }
        self.pins.remove_link(ifindex, hook)?;
        self.held.remove(&(ifindex, hook));
        Ok(live.map(|live| live.info.id))
    }

    pub(super) fn remove_all(&mut self) -> Result<(), AttachError> {
        for (ifindex, hook) in self.pins.links()? {
            self.remove(ifindex, hook)?;
        }
        Ok(())
    }
}

/// The programs of others on a hook.
pub(super) fn foreign(pins: &Pins, ifindex: u32, hook: Hook) -> Result<Vec<Foreign>, AttachError> {
    let attached = attached(ifindex, hook)?;
    let ours = info(&pins.link(ifindex, hook))
        .map_err(failure("look at a link", ifindex))?
        .map(|info| info.id);
    let position = attached
        .iter()
        .position(|other| Some(other.link) == ours)
        .unwrap_or(0);
    Ok(attached
        .into_iter()
        .enumerate()
        .filter(|(_, other)| Some(other.link) != ours)
        .map(|(place, other)| Foreign {
            ifindex,
            hook,
            before: place < position,
            program: Some(other.program),
            name: None,
        })
        .collect())
}

/// The kernel's id of a pinned link; none if there is no such pin, nor may be.
pub(super) fn pinned(path: &Path, ifindex: u32) -> Result<Option<u32>, AttachError> {
    match info(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        // What is on another filesystem is no pin.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(None),
        info => Ok(info
            .map_err(failure("look at a link", ifindex))?
            .map(|info| info.id)),
    }
}

/// The links on a hook, ours and others'; 0 stands for a program without one.
pub(super) fn links(ifindex: u32, hook: Hook) -> Result<Vec<u32>, AttachError> {
    let attached = attached(ifindex, hook)?;
    Ok(attached.into_iter().map(|program| program.link).collect())
}

/// A number that is another after every change of a hook; 0 where there is no such device, or no TCX.
pub(super) fn revision(ifindex: u32, hook: Hook) -> Result<u64, AttachError> {
    match bpf::revision(ifindex, hook) {
        Err(error) if is_nowhere(&error) => Ok(0),
        revision => revision.map_err(failure("list programs", ifindex)),
    }
}

/// What is on a hook; nothing where there is no TCX, or no such device any more.
fn attached(ifindex: u32, hook: Hook) -> Result<Vec<bpf::Attached>, AttachError> {
    match bpf::query(ifindex, hook) {
        Err(error) if is_nowhere(&error) => Ok(Vec::new()),
        attached => attached.map_err(failure("list programs", ifindex)),
    }
}

/// How the kernel says that there is no such device, or no TCX.
fn is_nowhere(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV))
}

/// What is pinned there.
fn pinned_link(path: &Path, ifindex: u32) -> Result<Option<OwnedFd>, AttachError> {
    match bpf::open(path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure("look at a link", ifindex)(error)),
    }
}

/// A link that holds a program on its hook.
struct Live {
    link: OwnedFd,
    info: LinkInfo,
    /// The programs that run before it.
    before: Vec<u32>,
}

/// The link, if it is on that hook of that device. Its own word is not enough: a device that was
/// moved to another network namespace keeps link and index there.
fn live(link: Option<OwnedFd>, (ifindex, hook): (u32, Hook)) -> Result<Option<Live>, AttachError> {
    let Some(link) = link else {
        return Ok(None);
    };
    let info = bpf::link_info(&link).map_err(failure("look at a link", ifindex))?;
    let Some(info) = info else {
        return Ok(None);
    };
    if info.ifindex != Some(ifindex) || info.hook != hook {
        return Ok(None);
    }
    match bpf::query(ifindex, hook) {
        Ok(attached) => {
            let position = attached.iter().position(|other| other.link == info.id);
            Ok(position.map(|position| Live {
                link,
                info,
                before: attached[..position]
                    .iter()
                    .map(|other| other.program)
                    .collect(),
            }))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(failure("list programs", ifindex)(error)),
    }
}

fn info(path: &Path) -> io::Result<Option<LinkInfo>> {
    match bpf::open(path) {
        Ok(link) => bpf::link_info(link),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn failure(operation: &'static str, ifindex: u32) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::Link {
        operation,
        ifindex,
        source,
    }
}
