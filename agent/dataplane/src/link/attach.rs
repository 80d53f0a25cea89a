//! Puts the programs on the node's devices, and keeps them there.
//!
//! A program that replaces another takes its place in one step: no packet meets neither. What is attached
//! is held by the kernel, not by this process: a TCX link by its pin, a filter by its qdisc.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::Arc,
};

use crate::{
    caps::{self, CapsError},
    link::{
        clsact::Clsact,
        moves::Moves,
        plan::{self, Change, Step},
        program::{Programs, Role},
        tcx::{self, Tcx},
    },
    netlink::{Namespace, NetlinkError, Socket},
    pins::{Pins, PinsError},
};

pub use self::order::{Foreign, Lead};
pub use crate::netlink::Hook;

mod order;

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Pinned TCX links, before all others on the hook. Linux 6.6.
    Tcx,
    /// Filters on a `clsact` qdisc, of the first priority that is free.
    Clsact,
}

impl Strategy {
    /// The best the kernel has.
    ///
    /// # Errors
    ///
    /// The kernel cannot be asked.
    pub fn detect() -> Result<Self, CapsError> {
        Ok(if caps::has_tcx()? {
            Self::Tcx
        } else {
            Self::Clsact
        })
    }
}

/// A program could not be put on a hook, or taken off, or what is there cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A call on a link failed.
    #[error("cannot {operation} on device {ifindex}")]
    Link {
        /// What was tried.
        operation: &'static str,
        /// The device.
        ifindex: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A request about a qdisc or filter failed.
    #[error("device {ifindex}")]
    Filter {
        /// The device.
        ifindex: u32,
        /// Why not.
        #[source]
        source: NetlinkError,
    },
    /// A qdisc of kind `ingress` stands where `clsact` has to be.
    #[error("device {ifindex} has an ingress qdisc, which has no egress side; clsact is needed")]
    IngressQdisc {
        /// The device.
        ifindex: u32,
    },
    /// The folder of pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// What is on the devices cannot be listed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl AttachError {
    /// Whether the device is gone, so that nothing is left to be done.
    pub(super) fn device_is_gone(&self) -> bool {
        let code = match self {
            Self::Link { source, .. } => source.raw_os_error(),
            Self::Filter { source, .. } => source.raw_os_error(),
            _ => None,
        };
        code == Some(libc::ENODEV)
    }
}

/// What [`Attachments::reconcile`] did.
#[derive(Debug, Default)]
pub struct Report {
    /// Programs put on hooks, replacements included.
    pub put: usize,
    /// Programs taken off.
    pub removed: usize,
    /// Hooks that could not be brought to what is wanted. They are tried again at the next call.
    pub failed: Vec<(u32, Hook, AttachError)>,
}

/// A hook that is not as it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The device.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// The id of the program that belongs there, if any does.
    pub wanted: Option<u32>,
    /// The id of the program of ours that is there.
    pub found: Option<u32>,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |id: Option<u32>| id.map_or("none".to_owned(), |id| format!("program {id}"));
        write!(
            f,
            "device {} {:?}: {} instead of {}",
            self.ifindex,
            self.hook,
            show(self.found),
            show(self.wanted)
        )
    }
}

/// What is on the hooks: the id of our program on each.
pub(super) type Attached = BTreeMap<(u32, Hook), u32>;

/// What a look at the hooks shows.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) attached: Attached,
    /// Programs of others that run before ours.
    pub(super) before: Vec<Foreign>,
}

/// The programs on the devices of the calling thread's network namespace.
#[derive(Debug)]
pub struct Attachments {
    pins: Arc<Pins>,
    socket: Socket,
    strategy: Strategy,
    /// What was found or put there; none before the first look and after a failure.
    attached: Option<Attached>,
    held: tcx::Held,
    /// What ran before ours at the last look, and was not overtaken since.
    before: Vec<Foreign>,
    moves: Moves,
}

impl Attachments {
    /// Attaches nothing yet.
    ///
    /// # Errors
    ///
    /// The folder of links cannot be made, or no netlink socket can be had.
    pub fn new(pins: Arc<Pins>, strategy: Strategy) -> Result<Self, AttachError> {
        pins.make_links()?;
        Ok(Self {
            pins,
            socket: Socket::open()?,
            strategy,
            attached: None,
            held: tcx::Held::new(),
            before: Vec::new(),
            moves: Moves::default(),
        })
    }

    /// How programs are attached.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Brings every hook to what is wanted: adopts what a predecessor left, replaces its programs, attaches
    /// what is missing, and takes away what no device wants any more.
    ///
    /// First every exit carries its program, then every pod's ingress; only then is anything taken off. So no
    /// packet that `from_pod` leaves undecided meets an exit where nobody decides. A device that turns
    /// from exit to pod, or back, changes its egress program in one step.
    ///
    /// # Errors
    ///
    /// What is attached cannot be read. A hook that cannot be changed is in the report.
    pub fn reconcile(
        &mut self,
        programs: &Programs,
        wanted: &BTreeMap<u32, Role>,
    ) -> Result<Report, AttachError> {
        let first_look = self.attached.is_none();
        let mut attached = match self.attached.take() {
            Some(attached) => attached,
            None => self.observe()?.attached,
        };
        let mut report = Report::default();
        let mut failed = BTreeSet::new();
        for step in plan::plan(&attached, wanted, |program| programs.get(program).id) {
            let Step {
                ifindex,
                hook,
                change,
            } = step;
            // A program is taken off only where those that are to stay are in their place.
            if change == Change::Remove && failed.contains(&ifindex) {
                continue;
            }
            match self.perform(step, programs) {
                Ok(()) => match change {
                    Change::Put(program) => {
                        attached.insert((ifindex, hook), programs.get(program).id);
                        report.put += 1;
                    }
                    Change::Remove => {
                        attached.remove(&(ifindex, hook));
                        report.removed += 1;
                    }
                },
                Err(error) if error.device_is_gone() => {}
                Err(error) => {
                    failed.insert(ifindex);
                    report.failed.push((ifindex, hook, error));
                }
            }
        }
        if first_look && failed.is_empty() {
            self.leave_other_strategy()?;
        }
        if failed.is_empty() {
            self.attached = Some(attached);
        }
        Ok(report)
    }

    /// Reads what is on the hooks, and names those that differ from what is wanted. The next
    /// [`reconcile`](Self::reconcile) mends them. A device that is gone has taken its programs along, and differs from nothing.
    ///
    /// # Errors
    ///
    /// What is attached cannot be read.
    pub fn verify(
        &mut self,
        programs: &Programs,
        wanted: &BTreeMap<u32, Role>,
    ) -> Result<Vec<Drift>, AttachError> {
        let Observed {
            attached,
            mut before,
        } = self.observe()?;
        if self.strategy == Strategy::Clsact {
            for &(ifindex, hook) in attached.keys() {
                before.extend(
                    tcx::foreign(&self.pins, ifindex, hook)?
                        .into_iter()
                        .map(order::ahead),
                );
            }
        }
        before.retain(|other| {
            let role = wanted.get(&other.ifindex);
            role.is_some_and(|role| role.program(other.hook).is_some())
        });
        self.before = before;
        let drift = plan::plan(&attached, wanted, |program| programs.get(program).id)
            .into_iter()
            .map(|step| Drift {
                ifindex: step.ifindex,
                hook: step.hook,
                wanted: match step.change {
                    Change::Put(program) => Some(programs.get(program).id),
                    Change::Remove => None,
                },
                found: attached.get(&(step.ifindex, step.hook)).copied(),
            })
            .collect::<Vec<_>>();
        self.attached = Some(attached);
        if drift.is_empty() {
            return Ok(drift);
        }
        let links = self.socket.links(Namespace::Own)?;
        let there: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        let drift = drift.into_iter();
        Ok(drift
            .filter(|drift| there.contains(&drift.ifindex))
            .collect())
    }

    fn observe(&mut self) -> Result<Observed, AttachError> {
        match self.strategy {
            Strategy::Tcx => self.tcx().observe(),
            Strategy::Clsact => self.clsact().observe(),
        }
    }

    fn perform(&mut self, step: Step, programs: &Programs) -> Result<(), AttachError> {
        let Step {
            ifindex,
            hook,
            change,
        } = step;
        match (self.strategy, change) {
            (Strategy::Tcx, Change::Put(program)) => {
                self.tcx().put(ifindex, hook, programs.fd(program))
            }
            (Strategy::Tcx, Change::Remove) => self.tcx().remove(ifindex, hook).map(drop),
            (Strategy::Clsact, Change::Put(program)) => {
                self.clsact()
                    .put(ifindex, hook, programs.fd(program), program)
            }
            (Strategy::Clsact, Change::Remove) => self.clsact().remove(ifindex, hook),
        }
    }

    /// Takes away what an agent with the other strategy left, once this one's programs are in place.
    fn leave_other_strategy(&mut self) -> Result<(), AttachError> {
        match self.strategy {
            Strategy::Tcx => self.clsact().remove_all(),
            Strategy::Clsact => self.tcx().remove_all(),
        }
    }

    fn tcx(&mut self) -> Tcx<'_> {
        Tcx {
            pins: &self.pins,
            held: &mut self.held,
        }
    }

    fn clsact(&mut self) -> Clsact<'_> {
        Clsact {
            pins: &self.pins,
            socket: &mut self.socket,
        }
    }
}
