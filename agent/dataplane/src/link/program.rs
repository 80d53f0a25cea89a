//! The programs, and which device carries which.

use std::{
    fmt,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use crate::netlink::Hook;

/// One of the object's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// At ingress of a pod's interface: what the pod sends.
    FromPod,
    /// At egress of a pod's interface: what the pod receives.
    ToPod,
    /// At egress of every other device.
    ToWire,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FromPod, Self::ToPod, Self::ToWire];

    /// Its name in the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::ToWire => "to_wire",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a device is, and so which programs it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The host-side device of a pod.
    Pod,
    /// A device by which pods' packets may leave.
    Exit,
}

impl Role {
    /// The program a hook of the device carries.
    #[must_use]
    pub const fn program(self, hook: Hook) -> Option<Program> {
        match (self, hook) {
            (Self::Pod, Hook::Ingress) => Some(Program::FromPod),
            (Self::Pod, Hook::Egress) => Some(Program::ToPod),
            (Self::Exit, Hook::Ingress) => None,
            (Self::Exit, Hook::Egress) => Some(Program::ToWire),
        }
    }
}

/// A program in the kernel.
#[derive(Debug)]
pub struct LoadedProgram {
    /// Its descriptor.
    pub fd: OwnedFd,
    /// The kernel's id of it.
    pub id: u32,
}

/// The three programs in the kernel.
#[derive(Debug)]
pub struct Programs {
    /// [`Program::FromPod`].
    pub from_pod: LoadedProgram,
    /// [`Program::ToPod`].
    pub to_pod: LoadedProgram,
    /// [`Program::ToWire`].
    pub to_wire: LoadedProgram,
}

impl Programs {
    /// One of them.
    #[must_use]
    pub const fn get(&self, program: Program) -> &LoadedProgram {
        match program {
            Program::FromPod => &self.from_pod,
            Program::ToPod => &self.to_pod,
            Program::ToWire => &self.to_wire,
        }
    }

    pub(super) fn fd(&self, program: Program) -> BorrowedFd<'_> {
        self.get(program).fd.as_fd()
    }
}
