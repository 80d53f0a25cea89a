//! Real frames in place of test runs, which on older kernels (5.10) cannot name the device a packet came in by.
//!
//! ```text
//!   ingress of a device      egress of a device
//!   1 the order              1 the order
//!   2 the program            2 the program
//!   3 the witness            3 the witness
//! ```
//!
//! All devices are veths, and a frame sent into the far end of one comes in by the near end. There the order marks
//! it and sends it on to the device whose egress is asked, or leaves it to the program here. What a program passes
//! meets the witness, which counts and drops it. Each frame is followed by one of ARP, which every program passes:
//! when that has been counted, the frame before it has been decided. The thread stays on one CPU, so that
//! none overtakes another.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use palisade_common::verdict::Verdict;
use palisade_dataplane::netlink::{Hook, Socket};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use super::{
    At, Program,
    bpf::{Instruction, array, call, instruction, load_classifier, load_map, number, update},
    carry::{Carry, PROTOCOL, SET_HASH, TC_INDEX},
    devices::{self, PacketSocket},
};
use crate::packet::arp_request;

/// How long a frame may be under way.
const PATIENCE: Duration = Duration::from_secs(5);
/// Priorities of the filters.
const ORDER: u16 = 1;
const PROGRAM: u16 = 2;
const WITNESS: u16 = 3;
/// Entries of the witness's counts.
const ASKED: u32 = 0;
const FOLLOWING: u32 = 1;

/// What happens to the frames that come now.
#[repr(C)]
struct Order {
    /// The device to which ingress sends them on, or 0.
    target: u32,
    tc_index: u32,
    hash: u32,
}

/// Devices on which programs meet real frames.
pub(super) struct Frames {
    orders: OwnedFd,
    counts: OwnedFd,
    /// At ingress: marks, and sends on.
    entry: OwnedFd,
    /// At egress: marks.
    exit: OwnedFd,
    witness: OwnedFd,
    packets: PacketSocket,
    netlink: RefCell<Socket>,
    /// The far end of each near one.
    far: RefCell<BTreeMap<u32, u32>>,
    programs: RefCell<BTreeMap<(u32, Hook), Program>>,
}

impl Frames {
    /// In the namespace of the calling thread, which stays on its CPU from now on.
    pub(super) fn new() -> io::Result<Self> {
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here)?;
        devices::silence()?;
        let orders = array::<Order>(1)?;
        let counts = array::<u64>(2)?;
        Ok(Self {
            entry: load_classifier(&order(&orders, true))?,
            exit: load_classifier(&order(&orders, false))?,
            witness: load_classifier(&witness(&counts))?,
            orders,
            counts,
            packets: PacketSocket::open()?,
            netlink: RefCell::new(Socket::open().map_err(io::Error::other)?),
            far: RefCell::default(),
            programs: RefCell::default(),
        })
    }

    /// Makes a device, and returns its index.
    pub(super) fn add_device(&self) -> u32 {
        let [near, far] = devices::add_pair();
        let added = self.netlink.borrow_mut().add_clsact(near);
        added.expect("a clsact qdisc");
        for (hook, order) in [(Hook::Ingress, &self.entry), (Hook::Egress, &self.exit)] {
            self.put(near, hook, ORDER, order);
            self.put(near, hook, WITNESS, &self.witness);
        }
        self.far.borrow_mut().insert(near, far);
        near
    }

    fn put(&self, ifindex: u32, hook: Hook, priority: u16, program: &OwnedFd) {
        let mut netlink = self.netlink.borrow_mut();
        let put = netlink.put_filter(ifindex, hook, priority, 1, program, "rig");
        put.expect("a filter");
    }

    /// Lets a program decide a frame.
    pub(super) fn run(&self, carry: &Carry, program: Program, frame: &[u8], at: At) -> Verdict {
        let hook = match program {
            Program::FromPod => Hook::Ingress,
            Program::ToPod | Program::ToWire | Program::Empty => Hook::Egress,
        };
        let there = self
            .programs
            .borrow_mut()
            .insert((at.ifindex, hook), program);
        if there != Some(program) {
            self.put(at.ifindex, hook, PROGRAM, carry.program(program));
        }
        let (device, target) = match (hook, at.ingress_ifindex) {
            (Hook::Ingress, _) => (self.far(at.ifindex), 0),
            // The node itself sends.
            (Hook::Egress, 0) => (at.ifindex, 0),
            (Hook::Egress, ingress) => (self.far(ingress), at.ifindex),
        };
        let order = Order {
            target,
            tc_index: at.tc_index.into(),
            hash: at.hash,
        };
        update(&self.orders, 0, &order).expect("an order");
        let passed = self.send(device, frame).expect("sending a frame");
        match passed {
            true => Verdict::Pass,
            false => Verdict::Drop,
        }
    }

    fn far(&self, near: u32) -> u32 {
        self.far.borrow()[&near]
    }

    /// Whether a frame came as far as to a witness.
    fn send(&self, device: u32, frame: &[u8]) -> io::Result<bool> {
        let asked = number(&self.counts, ASKED)?;
        let following = number(&self.counts, FOLLOWING)?;
        self.packets.send(device, frame)?;
        let behind = arp_request([2; 6], [0; 4], [0; 4]);
        self.packets.send(device, &behind)?;
        let deadline = Instant::now() + PATIENCE;
        while number(&self.counts, FOLLOWING)? == following {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::yield_now();
        }
        Ok(number(&self.counts, ASKED)? > asked)
    }
}

/// Marks a frame as ordered; redirects it if asked.
fn order(orders: &OwnedFd, redirects: bool) -> Vec<Instruction> {
    const MAP_LOOKUP: i32 = 1;
    const REDIRECT: i32 = 23;
    const TC_ACT_UNSPEC: i32 = -1;
    let field = |to, offset| instruction(0x61, to, 7, offset, 0);
    let [low, high] = load_map(1, orders);
    let mut code = vec![
        instruction(0xbf, 6, 1, 0, 0),
        // The key, 0, below the frame pointer.
        instruction(0x62, 10, 0, -4, 0),
        low,
        high,
        instruction(0xbf, 2, 10, 0, 0),
        instruction(0x07, 2, 0, 0, -4),
        call(MAP_LOOKUP),
        instruction(0xbf, 7, 0, 0, 0),
        instruction(0xb7, 0, 0, 0, TC_ACT_UNSPEC),
        instruction(0x55, 7, 0, 1, 0),
        instruction(0x95, 0, 0, 0, 0),
        field(2, 4),
        instruction(0x63, 6, 2, TC_INDEX, 0),
        field(2, 8),
        instruction(0xbf, 1, 6, 0, 0),
        call(SET_HASH),
    ];
    if redirects {
        code.extend([
            field(1, 0),
            instruction(0x15, 1, 0, 3, 0),
            instruction(0xb7, 2, 0, 0, 0),
            call(REDIRECT),
            instruction(0x95, 0, 0, 0, 0),
        ]);
    }
    code.extend([
        instruction(0xb7, 0, 0, 0, TC_ACT_UNSPEC),
        instruction(0x95, 0, 0, 0, 0),
    ]);
    code
}

/// Counts a frame and drops it.
fn witness(counts: &OwnedFd) -> Vec<Instruction> {
    const MAP_LOOKUP: i32 = 1;
    const ARP: i32 = 0x0806_u16.to_be() as i32;
    const TC_ACT_SHOT: i32 = 2;
    let [low, high] = load_map(1, counts);
    vec![
        instruction(0x61, 6, 1, PROTOCOL, 0),
        instruction(0x62, 10, 0, -4, ASKED as i32),
        instruction(0x55, 6, 0, 1, ARP),
        instruction(0x62, 10, 0, -4, FOLLOWING as i32),
        low,
        high,
        instruction(0xbf, 2, 10, 0, 0),
        instruction(0x07, 2, 0, 0, -4),
        call(MAP_LOOKUP),
        instruction(0x15, 0, 0, 2, 0),
        instruction(0xb7, 1, 0, 0, 1),
        // An atomic addition of 64 bits.
        instruction(0xdb, 0, 1, 0, 0),
        instruction(0xb7, 0, 0, 0, TC_ACT_SHOT),
        instruction(0x95, 0, 0, 0, 0),
    ]
}
