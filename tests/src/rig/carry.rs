//! Test runs of classifiers that find `tc_index` and `hash` set, which `BPF_PROG_TEST_RUN` has no way to
//! say: a small program copies both from the control block and calls the classifier by a tail call.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya::programs::ProgramFd;

use super::{At, Program};

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

/// One BPF instruction.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

// Offsets into `struct __sk_buff`.
const TC_INDEX: i16 = 44;
const CONTROL_BLOCK: i16 = 48;
const SET_HASH: i32 = 48;
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
        let map = program_array(programs);
        let load = |to, offset| instruction(0x61, to, 6, offset, 0);
        let code = [
            instruction(0xbf, 6, 1, 0, 0),
            load(2, CONTROL_BLOCK),
            instruction(0x63, 6, 2, TC_INDEX, 0),
            load(2, CONTROL_BLOCK + 4),
            instruction(0x85, 0, 0, 0, SET_HASH),
            load(3, CONTROL_BLOCK + 8),
            instruction(0xbf, 1, 6, 0, 0),
            instruction(0x18, 2, 1, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            instruction(0x85, 0, 0, 0, TAIL_CALL),
            // Not reached: no verdict.
            instruction(0xb7, 0, 0, 0, 99),
            instruction(0x95, 0, 0, 0, 0),
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

    /// Return value and nanoseconds of a run.
    pub(super) fn run(
        &self,
        program: Program,
        frame: &[u8],
        context: &Context,
        repeat: u32,
    ) -> (i32, u32) {
        let mut context = *context;
        context.carried[2] = program as u32;
        run(self.program.as_fd(), frame, &context, repeat)
    }
}

impl Carry {
    /// Nanoseconds of each of many runs, called directly.
    pub(super) fn time(
        &self,
        program: Program,
        frame: &[u8],
        context: &Context,
        repeat: u32,
    ) -> u32 {
        run(&self.called[program as usize], frame, context, repeat).1
    }
}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    version: u32,
    flags: u32,
}

#[repr(C)]
struct TestRun {
    program: u32,
    returned: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;

/// bpf(2).
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are those of the command, as wide as they say, and what they point to
    // outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn owned(descriptor: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

fn program_array(programs: &[&ProgramFd]) -> OwnedFd {
    const PROG_ARRAY: u32 = 3;
    let map = bpf(
        MAP_CREATE,
        &mut MapCreate {
            kind: PROG_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: programs.len() as u32,
        },
    );
    let map = owned(map.expect("making the array of programs"));
    for (number, program) in (0_u32..).zip(programs) {
        let value = program.as_fd().as_raw_fd();
        let updated = bpf(
            MAP_UPDATE_ELEM,
            &mut MapUpdate {
                map: map.as_raw_fd() as u32,
                padding: 0,
                key: (&raw const number) as u64,
                value: (&raw const value) as u64,
                flags: 0,
            },
        );
        updated.expect("filling the array of programs");
    }
    map
}

fn load_classifier(code: &[Instruction]) -> io::Result<OwnedFd> {
    const SCHED_CLS: u32 = 3;
    bpf(
        PROG_LOAD,
        &mut Load {
            kind: SCHED_CLS,
            count: code.len() as u32,
            instructions: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 4],
            version: 0,
            flags: 0,
        },
    )
    .map(owned)
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    device: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    revision: u64,
}

const LINK_CREATE: libc::c_long = 28;

/// Attaches a program that returns `TC_ACT_OK` at TCX ingress, behind all others.
pub(super) fn attach_foreign(ifindex: u32, wipes: bool) -> OwnedFd {
    const TCX_INGRESS: u32 = 46;
    const TC_CLASSID: i16 = 72;
    let mut code = vec![instruction(0xb7, 0, 0, 0, 0)];
    if wipes {
        code.push(instruction(0x63, 1, 0, TC_INDEX, 0));
        code.push(instruction(0x63, 1, 0, TC_CLASSID, 0));
    }
    code.push(instruction(0x95, 0, 0, 0, 0));
    let program = load_classifier(&code).expect("loading the foreign program");
    let link = bpf(
        LINK_CREATE,
        &mut LinkCreate {
            program: program.as_raw_fd() as u32,
            device: ifindex,
            attach_type: TCX_INGRESS,
            flags: 0,
            relative: 0,
            padding: 0,
            revision: 0,
        },
    );
    owned(link.expect("attaching the foreign program"))
}

/// Return value and nanoseconds of a run of a classifier.
pub(super) fn run(program: impl AsFd, frame: &[u8], context: &Context, repeat: u32) -> (i32, u32) {
    let program: BorrowedFd<'_> = program.as_fd();
    let mut test = TestRun {
        program: program.as_raw_fd() as u32,
        returned: 0,
        size_in: frame.len() as u32,
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat,
        duration: 0,
        context_size_in: size_of::<Context>() as u32,
        context_size_out: 0,
        context_in: std::ptr::from_ref(context) as u64,
        context_out: 0,
    };
    let ran = bpf(PROG_TEST_RUN, &mut test);
    ran.unwrap_or_else(|error| panic!("a test run of {} bytes: {error}", frame.len()));
    (test.returned as i32, test.duration)
}
