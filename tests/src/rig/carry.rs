//! Test runs of classifiers that find `tc_index` and `hash` set, which `BPF_PROG_TEST_RUN` has no way to
//! say: a small program copies both from the control block and calls the classifier by a tail call.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::programs::ProgramFd;
use palisade_dataplane::netlink::Hook;

use super::{
    At, Program,
    bpf::{
        Instruction, Place, attach_tcx, call, instruction, load_classifier, load_map, map,
        test_run, update,
    },
};

/// What of a `struct __sk_buff` (include/uapi/linux/bpf.h) a test run may set, in its place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    length: u32,
    packet_type: u32,
    /// `skb->mark`.
    mark: u32,
    unused: [u32; 5],
    /// `skb->priority`.
    priority: u32,
    /// Index of the device the packet came in by.
    ingress_ifindex: u32,
    /// Index of the device whose hook the program runs on.
    ifindex: u32,
    tc_index: u32,
    /// The control block.
    carried: [u32; 5],
    hash: u32,
    tc_classid: u32,
    data: u32,
    data_end: u32,
    rest: [u32; 27],
}

impl Context {
    pub(super) fn new(at: At) -> Self {
        Self {
            ifindex: at.ifindex,
            ingress_ifindex: at.ingress_ifindex,
            carried: [u32::from(at.tc_index), at.hash, 0, 0, 0],
            ..Self::default()
        }
    }
}

const _: () = assert!(size_of::<Context>() == 192);

// Offsets into `struct __sk_buff`.
pub(super) const PROTOCOL: i16 = 16;
pub(super) const TC_INDEX: i16 = 44;
const CONTROL_BLOCK: i16 = 48;
// Helpers.
pub(super) const SET_HASH: i32 = 48;
const TAIL_CALL: i32 = 12;

/// The programs of an object, callable with a mark.
#[derive(Debug)]
pub(super) struct Carry {
    program: OwnedFd,
    called: Vec<OwnedFd>,
    // The tail calls go by it.
    _programs: OwnedFd,
}

impl Carry {
    pub(super) fn new(programs: &[&ProgramFd; Program::ALL.len()]) -> Self {
        let map = program_array(programs).expect("an array of programs");
        let load = |to, offset| instruction(0x61, to, 6, offset, 0);
        let [low, high] = load_map(2, &map);
        let code = [
            instruction(0xbf, 6, 1, 0, 0),
            load(2, CONTROL_BLOCK),
            instruction(0x63, 6, 2, TC_INDEX, 0),
            load(2, CONTROL_BLOCK + 4),
            call(SET_HASH),
            load(3, CONTROL_BLOCK + 8),
            instruction(0xbf, 1, 6, 0, 0),
            low,
            high,
            call(TAIL_CALL),
            // Not reached: no verdict.
            instruction(0xb7, 0, 0, 0, 99),
            EXIT,
        ];
        // A register that a helper call clobbers is loaded again above; the context stays in r6.
        Self {
            program: load_classifier(&code).expect("loading the carrier"),
            called: programs
                .iter()
                .map(|program| program.as_fd().try_clone_to_owned().expect("a descriptor"))
                .collect(),
            _programs: map,
        }
    }

    /// A program, to be attached.
    pub(super) fn program(&self, program: Program) -> &OwnedFd {
        &self.called[program as usize]
    }

    /// Whether test runs of this kernel can name a device that the packet came in by.
    pub(super) fn names_devices(&self) -> bool {
        const LOOPBACK: u32 = 1;
        let at = At {
            ingress_ifindex: LOOPBACK,
            ..At::default()
        };
        self.try_run(Program::Empty, &[0; 64], &Context::new(at))
            .is_ok()
    }

    /// Return value of a run.
    pub(super) fn run(&self, program: Program, frame: &[u8], context: &Context) -> i32 {
        let ran = self.try_run(program, frame, context);
        ran.unwrap_or_else(|error| panic!("a test run of {} bytes: {error}", frame.len()))
    }

    fn try_run(&self, program: Program, frame: &[u8], context: &Context) -> io::Result<i32> {
        let mut context = *context;
        context.carried[2] = program as u32;
        Ok(test_run(&self.program, frame, &context, 1)?.0)
    }

    /// Nanoseconds of each of many runs, called directly.
    pub(super) fn time(
        &self,
        program: Program,
        frame: &[u8],
        context: &Context,
        repeat: u32,
    ) -> u32 {
        let ran = test_run(&self.called[program as usize], frame, context, repeat);
        ran.expect("a test run").1
    }
}

fn program_array(programs: &[&ProgramFd; Program::ALL.len()]) -> io::Result<OwnedFd> {
    const PROG_ARRAY: u32 = 3;
    let map = map(PROG_ARRAY, size_of::<u32>(), programs.len())?;
    for (number, program) in (0_u32..).zip(programs) {
        update(&map, number, &program.as_fd().as_raw_fd())?;
    }
    Ok(map)
}

/// Attaches a program that returns `TC_ACT_OK` at TCX ingress, behind all others.
pub(super) fn attach_foreign(ifindex: u32, wipes: bool) -> OwnedFd {
    const TC_CLASSID: i16 = 72;
    let mut code = vec![instruction(0xb7, 0, 0, 0, 0)];
    if wipes {
        code.push(instruction(0x63, 1, 0, TC_INDEX, 0));
        code.push(instruction(0x63, 1, 0, TC_CLASSID, 0));
    }
    code.push(EXIT);
    attach(&code, ifindex, Hook::Ingress, Place::Behind)
}

/// Attaches a program before any other, which ends the hook with `TC_ACT_OK` or goes on with `TC_ACT_UNSPEC`.
pub(super) fn attach_before(ifindex: u32, hook: Hook, ends: bool) -> OwnedFd {
    let action = if ends { 0 } else { -1 };
    let code = [instruction(0xb7, 0, 0, 0, action), EXIT];
    attach(&code, ifindex, hook, Place::Before)
}

/// Attaches a program at TCX egress that writes a mark of ours on every packet, and passes it on.
pub(super) fn attach_forger(ifindex: u32, tc_index: u16, hash: u32) -> OwnedFd {
    const MARK: i16 = 8;
    const PRIORITY: i16 = 32;
    let code = [
        instruction(0xbf, 6, 1, 0, 0),
        instruction(0xb7, 2, 0, 0, i32::from(tc_index)),
        instruction(0x63, 6, 2, TC_INDEX, 0),
        instruction(0x63, 6, 2, MARK, 0),
        instruction(0x63, 6, 2, PRIORITY, 0),
        instruction(0xb4, 2, 0, 0, hash.cast_signed()),
        call(SET_HASH),
        // On to the device: TC_ACT_UNSPEC.
        instruction(0xb7, 0, 0, 0, -1),
        EXIT,
    ];
    attach(&code, ifindex, Hook::Egress, Place::Behind)
}

const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

fn attach(code: &[Instruction], ifindex: u32, hook: Hook, place: Place) -> OwnedFd {
    let program = load_classifier(code).expect("loading the foreign program");
    attach_tcx(&program, ifindex, hook, place).expect("attaching the foreign program")
}
