//! Programs as filters on `clsact` qdiscs: for kernels without TCX.

use std::{collections::BTreeSet, os::fd::BorrowedFd};

use crate::{
    link::{
        attach::{AttachError, Foreign, Observed},
        program::Program,
    },
    netlink::{Filter, Hook, NetlinkError, Socket},
    pins::Pins,
};

/// Our filters' handle on every hook ("pal"), so that a successor finds and replaces them.
const HANDLE: u32 = 0x0070_616c;
/// What their names begin with.
const NAME: &str = "palisade:";
/// The first priority of all. Of several BPF classifiers of one priority the last added runs first.
const FIRST: u16 = 1;

pub(super) struct Clsact<'a> {
    pub(super) pins: &'a Pins,
    pub(super) socket: &'a mut Socket,
}

impl Clsact<'_> {
    pub(super) fn observe(&mut self) -> Result<Observed, AttachError> {
        let mut observed = Observed::default();
        let qdiscs = self.socket.ingress_qdiscs()?;
        for ifindex in self.pins.clsacts()? {
            if !qdiscs.iter().any(|(device, _)| *device == ifindex) {
                self.pins.forget_clsact(ifindex)?;
            }
        }
        for (ifindex, kind) in qdiscs {
            if kind != "clsact" {
                continue;
            }
            for hook in [Hook::Ingress, Hook::Egress] {
                let filters = self.filters(ifindex, hook)?;
                let Some(position) = filters.iter().position(is_ours) else {
                    continue;
                };
                let program = filters[position].program.unwrap_or(0);
                observed.attached.insert((ifindex, hook), program);
                let others = foreign_of(filters, ifindex, hook);
                observed.before.extend(others.take(position));
            }
        }
        Ok(observed)
    }

    pub(super) fn put(
        &mut self,
        ifindex: u32,
        hook: Hook,
        fd: BorrowedFd<'_>,
        program: Program,
    ) -> Result<(), AttachError> {
        let filters = self.filters(ifindex, hook)?;
        let priority = match filters.iter().find(|filter| is_ours(filter)) {
            Some(ours) => ours.priority,
            None => {
                self.make_qdisc(ifindex)?;
                first_free(&filters)
            }
        };
        self.socket
            .put_filter(
                ifindex,
                hook,
                priority,
                HANDLE,
                fd,
                &format!("{NAME}{program}"),
            )
            .map_err(failure(ifindex))
    }

    pub(super) fn remove(&mut self, ifindex: u32, hook: Hook) -> Result<(), AttachError> {
        if let Some(ours) = self.ours(ifindex, hook)? {
            self.socket
                .delete_filter(ifindex, hook, ours.priority, ours.handle)
                .map_err(failure(ifindex))?;
        }
        self.drop_qdisc(ifindex)
    }

    pub(super) fn remove_all(&mut self) -> Result<(), AttachError> {
        for (ifindex, hook) in self.observe()?.attached.into_keys() {
            self.remove(ifindex, hook)?;
        }
        for ifindex in self.pins.clsacts()? {
            self.drop_qdisc(ifindex)?;
        }
        Ok(())
    }

    /// The note that the qdisc is ours precedes the qdisc: an interruption between leaves a note too
    /// many, which is taken back when the device turns out to have had a qdisc before.
    fn make_qdisc(&mut self, ifindex: u32) -> Result<(), AttachError> {
        let noted = self.pins.made_clsact(ifindex);
        self.pins.note_clsact(ifindex)?;
        let added = self.socket.add_clsact(ifindex);
        if !noted && !matches!(added, Ok(true)) {
            self.pins.forget_clsact(ifindex)?;
        }
        if added.map_err(failure(ifindex))? || noted {
            return Ok(());
        }
        let stranger = self
            .socket
            .ingress_qdiscs()?
            .into_iter()
            .any(|(device, kind)| device == ifindex && kind != "clsact");
        if stranger {
            return Err(AttachError::IngressQdisc { ifindex });
        }
        Ok(())
    }

    /// Takes away a qdisc of our making that nobody uses any more.
    fn drop_qdisc(&mut self, ifindex: u32) -> Result<(), AttachError> {
        if !self.pins.made_clsact(ifindex) {
            return Ok(());
        }
        let mut unused = true;
        for hook in [Hook::Ingress, Hook::Egress] {
            unused &= self.filters(ifindex, hook)?.is_empty();
        }
        if unused {
            match self.socket.delete_clsact(ifindex).map_err(failure(ifindex)) {
                Err(error) if !error.device_is_gone() && !is_gone(&error) => return Err(error),
                _ => self.pins.forget_clsact(ifindex)?,
            }
        }
        Ok(())
    }

    fn ours(&mut self, ifindex: u32, hook: Hook) -> Result<Option<Filter>, AttachError> {
        let filters = self.filters(ifindex, hook)?;
        Ok(filters.into_iter().find(is_ours))
    }

    fn filters(&mut self, ifindex: u32, hook: Hook) -> Result<Vec<Filter>, AttachError> {
        filters(self.socket, ifindex, hook)
    }
}

/// The filters of others on a hook.
pub(super) fn foreign(
    socket: &mut Socket,
    ifindex: u32,
    hook: Hook,
) -> Result<Vec<Foreign>, AttachError> {
    let filters = filters(socket, ifindex, hook)?;
    Ok(foreign_of(filters, ifindex, hook).collect())
}

/// Those that are not ours, in their order.
fn foreign_of(filters: Vec<Filter>, ifindex: u32, hook: Hook) -> impl Iterator<Item = Foreign> {
    let position = filters.iter().position(is_ours).unwrap_or(0);
    filters
        .into_iter()
        .enumerate()
        .filter(|(_, filter)| !is_ours(filter))
        .map(move |(place, filter)| Foreign {
            ifindex,
            hook,
            before: place < position,
            program: filter.program,
            name: Some(filter.name.unwrap_or(filter.kind)),
        })
}

/// Whether one of ours is on a hook.
pub(super) fn is_there(socket: &mut Socket, ifindex: u32, hook: Hook) -> Result<bool, AttachError> {
    Ok(filters(socket, ifindex, hook)?.iter().any(is_ours))
}

/// The filters of a hook; none where the device or its qdisc is gone.
fn filters(socket: &mut Socket, ifindex: u32, hook: Hook) -> Result<Vec<Filter>, AttachError> {
    match socket.filters(ifindex, hook).map_err(failure(ifindex)) {
        Err(error) if error.device_is_gone() || is_gone(&error) => Ok(Vec::new()),
        filters => filters,
    }
}

fn is_ours(filter: &Filter) -> bool {
    filter.handle == HANDLE
        && filter
            .name
            .as_deref()
            .is_some_and(|name| name.starts_with(NAME))
}

/// The first priority at which a BPF classifier for all protocols can stand: one priority holds filters of
/// one kind.
fn first_free(filters: &[Filter]) -> u16 {
    let taken: BTreeSet<u16> = filters
        .iter()
        .filter(|filter| filter.kind != "bpf")
        .map(|filter| filter.priority)
        .collect();
    (FIRST..u16::MAX)
        .find(|priority| !taken.contains(priority))
        .unwrap_or(u16::MAX)
}

/// How the kernel says that there is no such qdisc.
fn is_gone(error: &AttachError) -> bool {
    matches!(error, AttachError::Filter { source, .. }
        if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)))
}

fn failure(ifindex: u32) -> impl FnOnce(NetlinkError) -> AttachError {
    move |source| AttachError::Filter { ifindex, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(priority: u16, kind: &str) -> Filter {
        Filter {
            priority,
            handle: 1,
            kind: kind.to_owned(),
            name: None,
            program: None,
        }
    }

    #[test]
    fn the_first_priority_is_taken_unless_another_kind_holds_it() {
        assert_eq!(first_free(&[]), 1);
        assert_eq!(first_free(&[filter(1, "bpf")]), 1);
        assert_eq!(first_free(&[filter(1, "flower"), filter(2, "u32")]), 3);
        assert_eq!(first_free(&[filter(49152, "flower")]), 1);
    }
}
