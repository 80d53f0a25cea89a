//! The rig: the real programs on frames of one's choice, without a wire.
//!
//! The object is loaded by itself, nothing is pinned and nothing attached. The thread that makes a rig
//! moves to a network namespace of its own, where the devices that the maps speak of are dummies.
//! Frames pass through `BPF_PROG_TEST_RUN`, or are real ones where the kernel's is not enough.

use std::{collections::HashSet, net::IpAddr, os::fd::AsFd as _};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
    programs::SchedClassifier,
};
use palisade_common::{
    event::Event,
    mark,
    verdict::{Direction, Reason, Verdict},
};
use palisade_dataplane::{
    apply::{Store, StoreError},
    link::program::{LoadedProgram, Programs},
    load::{OBJECT, calibrate},
    maps::{Capacity, Maps},
    mirror::Dump,
    plan::op::Op,
};

pub use self::{
    address::address,
    guard::{Foreign, Guard, attach_pod, send, veth},
    node::{Node, Sent},
    reading::{Ends, Read, Reader, Reading, may_be_translated},
    replay::replay,
    scene::{Net, POD, Scene, family_of, peer, tcp, udp},
};
use self::{
    carry::{Carry, Context},
    frames::Frames,
};

mod address;
mod bpf;
mod carry;
mod devices;
mod frames;
mod guard;
mod node;
mod reading;
mod replay;
pub mod samples;
mod scene;
mod state;

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// TC ingress of a pod's interface.
    FromPod,
    /// TC egress of a pod's interface.
    ToPod,
    /// TC egress of a device out of the node.
    ToWire,
    /// Returns at once.
    Empty,
}

impl Program {
    /// Every one that can be run.
    pub const ALL: [Self; 4] = [Self::FromPod, Self::ToPod, Self::ToWire, Self::Empty];

    /// Its name in the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::ToWire => "to_wire",
            Self::Empty => "empty",
        }
    }
}

/// Where a packet is, and where it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Index of the device whose hook the program runs on.
    pub ifindex: u32,
    /// Index of the device the packet came in by; 0 if the node made it.
    pub ingress_ifindex: u32,
    /// `tc_index` before the program.
    pub tc_index: u16,
    /// `hash` before the program.
    pub hash: u32,
}

/// How large the flow tables of a rig are, in entries: small, for the kernel clears them one by one.
const FLOWS: u32 = 16_384;

/// The loaded programs and their maps.
pub struct Rig {
    /// The maps.
    pub maps: Maps,
    /// Jiffies per second of this kernel.
    pub hz: u32,
    events: RingBuf<MapData>,
    carry: Carry,
    frames: Option<Frames>,
    object: Ebpf,
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rig")
    }
}

impl Rig {
    /// Loads the object, in the network namespace that all rigs of this thread share and nobody else.
    ///
    /// # Panics
    /// Where the kernel refuses anything.
    #[must_use]
    pub fn new() -> Self {
        Self::sized(FLOWS)
    }

    /// Loads the object with flow tables of so many entries each.
    ///
    /// # Panics
    /// Where the kernel refuses anything.
    #[must_use]
    pub fn sized(flows: u32) -> Self {
        devices::unshare();
        Self::elsewhere(flows)
    }

    /// Loads the object and leaves the thread where it is: for programs that are to be attached.
    ///
    /// # Panics
    /// Where the kernel refuses anything.
    #[must_use]
    pub fn elsewhere(flows: u32) -> Self {
        let mut object = EbpfLoader::new()
            .map_max_entries("FLOWS_STREAM", flows)
            .map_max_entries("FLOWS_DATAGRAM", flows)
            .map_max_entries("FLOWS_NEW", flows)
            // Kernel types are not used, and reading them takes longer than all the rest.
            .btf(None)
            .load(OBJECT)
            .expect("loading the object");
        for name in Program::ALL.map(Program::name) {
            let program = classifier(&mut object, name);
            program
                .load()
                .unwrap_or_else(|error| panic!("loading {name}: {error:?}"));
        }
        let hz = calibrate(&mut object).expect("the clock").hz();
        let programs = Program::ALL.map(|program| {
            let program: &SchedClassifier = object
                .program(program.name())
                .and_then(|program| program.try_into().ok())
                .expect("loaded above");
            program.fd().expect("loaded above")
        });
        let carry = Carry::new(&programs);
        let mut maps = Maps::take(&mut object).expect("the maps");
        let events = maps.events.take().expect("the event ring");
        Self {
            maps,
            hz,
            events,
            carry,
            frames: None,
            object,
        }
    }

    /// Whether test runs of this kernel can name the device that a packet came in by; those of 5.10 cannot.
    /// Frames do: see [`Rig::with_frames`].
    #[must_use]
    pub fn names_devices(&self) -> bool {
        self.carry.names_devices()
    }

    /// Asks the programs with real frames on veths that carry them, not by test runs. No device may have been
    /// added before.
    ///
    /// # Panics
    /// Where the kernel refuses anything.
    #[must_use]
    pub fn with_frames(self) -> Self {
        Self {
            frames: Some(Frames::new().expect("real frames")),
            ..self
        }
    }

    /// Adds a device and returns its index.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn add_device(&self) -> u32 {
        match &self.frames {
            Some(frames) => frames.add_device(),
            None => devices::add(),
        }
    }

    /// Runs a program on a frame.
    ///
    /// # Panics
    /// Where the program returns anything but one of the two verdicts.
    pub fn run(&self, program: Program, frame: &[u8], at: At) -> Verdict {
        if let Some(frames) = &self.frames {
            return frames.run(&self.carry, program, frame, at);
        }
        match self.carry.run(program, frame, &Context::new(at)) {
            TC_ACT_UNSPEC => Verdict::Pass,
            TC_ACT_SHOT => Verdict::Drop,
            other => panic!("{} returned {other}", program.name()),
        }
    }

    /// Runs a program again and again on the same packet, which has no mark, and returns nanoseconds for each,
    /// the fixed cost of handing a packet over included.
    #[must_use]
    pub fn time(&self, program: Program, frame: &[u8], at: At, repeat: u32) -> u32 {
        self.carry.time(program, frame, &Context::new(at), repeat)
    }

    /// Low 32 bits of the jiffies.
    ///
    /// # Panics
    /// Where the program cannot run.
    pub fn jiffies(&mut self) -> u32 {
        let clock = classifier(&mut self.object, "clock");
        let clock = clock.fd().expect("loaded");
        let ran = bpf::test_run(clock, &[0; 64], &Context::default(), 1);
        ran.expect("a test run").0 as u32
    }

    /// Instructions that the verifier has looked at, where the kernel tells (5.16).
    ///
    /// # Panics
    /// Where the kernel does not know its own program.
    pub fn verified_instructions(&mut self, program: Program) -> Option<u32> {
        let program = classifier(&mut self.object, program.name());
        program.info().expect("info").verified_instruction_count()
    }

    /// The events since the last call.
    ///
    /// # Panics
    /// Where a record is of another layout.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(record) = self.events.next() {
            events.push(Event::decode(&record).expect("an event"));
        }
        events
    }

    /// The programs, to be attached.
    ///
    /// # Panics
    /// Where the kernel does not know them.
    #[must_use]
    pub fn programs(&self) -> Programs {
        let loaded = |name: &str| {
            let program: &SchedClassifier = self
                .object
                .program(name)
                .and_then(|program| program.try_into().ok())
                .expect("a loaded classifier");
            let fd = program.fd().expect("loaded").as_fd();
            LoadedProgram {
                fd: fd.try_clone_to_owned().expect("a descriptor"),
                id: program.info().expect("info").id(),
            }
        };
        Programs {
            from_pod: loaded("from_pod"),
            to_pod: loaded("to_pod"),
            to_wire: loaded("to_wire"),
        }
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    let program = object.program_mut(name);
    let program = program.unwrap_or_else(|| panic!("the object has no program {name}"));
    program.try_into().expect("a classifier")
}

/// The cookie that `from_pod` writes on a packet of a slot to a destination.
#[must_use]
pub fn cookie(
    secret: u64,
    slot: u16,
    protocol: u8,
    (source_port, destination, port): (u16, IpAddr, u16),
) -> u32 {
    let destination = mark::destination_cookie(secret, slot, protocol, &address(destination), port);
    mark::cookie(secret, destination, source_port)
}

/// The counters of one slot and direction that can move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets passed.
    pub allowed: u64,
    /// Packets dropped, by reason.
    pub denied: [u64; Reason::ALL.len()],
    /// Events not sent.
    pub suppressed: u64,
    /// Packets told of as audited.
    pub audited: u64,
}

impl Rig {
    /// The counters of a slot and direction.
    ///
    /// # Panics
    /// Where the map has no such slot.
    #[must_use]
    pub fn counted(&self, slot: u16, direction: Direction) -> Counted {
        let index = 2 * u32::from(slot) + direction as u32;
        let mut counted = Counted::default();
        for value in self.maps.counters.get(&index, 0).expect("counters").iter() {
            counted.allowed += value.allowed_packets;
            counted.suppressed += value.suppressed;
            counted.audited += value.audited;
            for (sum, denied) in counted.denied.iter_mut().zip(value.denied) {
                *sum += denied;
            }
        }
        counted
    }
}

/// What the agent writes goes to the maps.
impl Store for Rig {
    fn perform(&mut self, op: &Op) -> Result<(), StoreError> {
        self.maps.perform(op)
    }

    fn dump(&self) -> Result<Dump, StoreError> {
        self.maps.dump()
    }

    fn sweep(&mut self, slots: &HashSet<u16>) -> Result<(), StoreError> {
        Store::sweep(&mut self.maps, slots)
    }

    fn capacity(&self) -> Capacity {
        *self.maps.capacity()
    }
}

impl AsRef<Self> for Rig {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsMut<Self> for Rig {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}
