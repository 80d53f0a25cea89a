//! Who runs before whom on a hook, and how ours get to the front again.

use std::{collections::BTreeMap, fmt, time::Instant};

use super::{AttachError, Attachments, Strategy};
use crate::{
    link::{
        clsact,
        program::{Program, Programs, Role},
        tcx,
    },
    netlink::Hook,
};

/// A program on a hook that is not ours. One that runs before ours can hide packets from it; one that runs
/// after can change them or what was written on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The device.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// Whether it runs before ours.
    pub before: bool,
    /// The kernel's id of it, for a BPF program.
    pub program: Option<u32>,
    /// The name or kind of a filter; TCX gives none without `CAP_SYS_ADMIN`.
    pub name: Option<String>,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.program) {
            (Some(name), Some(id)) => write!(f, "program {id} ({name})"),
            (Some(name), None) => f.write_str(name),
            (None, Some(id)) => write!(f, "program {id}"),
            (None, None) => f.write_str("a program"),
        }
    }
}

/// A hook on which ours run first again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The device.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// Who was overtaken.
    pub overtaken: Vec<Foreign>,
    /// Whether ours are not moved again there for a while.
    pub last: bool,
}

impl Attachments {
    /// The programs of others that run before ours, and can hide packets from it, as the last [`verify`](Self::verify)
    /// found them.
    #[must_use]
    pub fn before(&self) -> &[Foreign] {
        &self.before
    }

    /// Whether ours may run first again on a hook where a look found others before them: where they are held by links, and
    /// the others do not insist.
    #[must_use]
    pub fn may_lead(
        &self,
        programs: &Programs,
        wanted: &BTreeMap<u32, Role>,
        now: Instant,
    ) -> bool {
        self.overtaken(programs, wanted, now).is_some()
    }

    /// Has ours run first again on one of the hooks where they may. `copies` are the same programs, loaded once more. Who was
    /// overtaken is told; none if there is no such hook.
    ///
    /// # Errors
    ///
    /// What a change of the hook fails with. One of ours is on it all the time.
    pub fn lead(
        &mut self,
        programs: &Programs,
        copies: &Programs,
        wanted: &BTreeMap<u32, Role>,
        now: Instant,
    ) -> Result<Option<Lead>, AttachError> {
        let Some((place, program)) = self.overtaken(programs, wanted, now) else {
            return Ok(None);
        };
        let (ifindex, hook) = place;
        let last = self.moves.note(place, now);
        self.tcx()
            .lead(ifindex, hook, programs.fd(program), copies.fd(program))?;
        let (overtaken, rest) = std::mem::take(&mut self.before)
            .into_iter()
            .partition(|other| (other.ifindex, other.hook) == place);
        self.before = rest;
        Ok(Some(Lead {
            ifindex,
            hook,
            overtaken,
            last,
        }))
    }

    /// A hook on which ours may be moved, and the program that is there. What is not as it should be is mended first.
    fn overtaken(
        &self,
        programs: &Programs,
        wanted: &BTreeMap<u32, Role>,
        now: Instant,
    ) -> Option<((u32, Hook), Program)> {
        let attached = self.attached.as_ref()?;
        let mut places = self.before.iter().map(|other| (other.ifindex, other.hook));
        places.find_map(|place| {
            let program = wanted.get(&place.0)?.program(place.1)?;
            let whole = attached.get(&place) == Some(&programs.get(program).id);
            let may = self.strategy == Strategy::Tcx && self.moves.may_move(place, now);
            (whole && may).then_some((place, program))
        })
    }

    /// The programs of others on the hooks of a device that carry one of ours.
    ///
    /// # Errors
    ///
    /// The hooks cannot be read.
    pub fn foreign(&mut self, ifindex: u32, role: Role) -> Result<Vec<Foreign>, AttachError> {
        let mut foreign = Vec::new();
        for hook in [Hook::Ingress, Hook::Egress] {
            if role.program(hook).is_some() {
                let tcx = tcx::foreign(&self.pins, ifindex, hook)?;
                let filters = clsact::foreign(&mut self.socket, ifindex, hook)?;
                // TCX runs before the filters of clsact.
                match self.strategy {
                    Strategy::Tcx => foreign.extend(tcx),
                    Strategy::Clsact => foreign.extend(tcx.into_iter().map(ahead)),
                }
                foreign.extend(filters.into_iter().map(|mut other| {
                    other.before &= self.strategy == Strategy::Clsact;
                    other
                }));
            }
        }
        Ok(foreign)
    }
}

/// A program on TCX where ours are filters: it runs before them.
pub(super) fn ahead(other: Foreign) -> Foreign {
    Foreign {
        before: true,
        ..other
    }
}
