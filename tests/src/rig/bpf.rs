//! bpf(2), as far as programs of a few instructions and test runs with a context need it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use palisade_dataplane::netlink::Hook;

/// One instruction.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

pub(super) const fn instruction(
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    immediate: i32,
) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

/// A register becomes a map.
pub(super) fn load_map(to: u8, map: &OwnedFd) -> [Instruction; 2] {
    const PSEUDO_MAP_FD: u8 = 1;
    [
        instruction(0x18, to, PSEUDO_MAP_FD, 0, map.as_raw_fd()),
        instruction(0, 0, 0, 0, 0),
    ]
}

/// The code of a call to a helper function.
pub(super) const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct MapElement {
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

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;

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

/// A map with small numbers as keys.
pub(super) fn map(kind: u32, value_size: usize, max_entries: usize) -> io::Result<OwnedFd> {
    bpf(
        MAP_CREATE,
        &mut MapCreate {
            kind,
            key_size: 4,
            value_size: value_size as u32,
            max_entries: max_entries as u32,
        },
    )
    .map(owned)
}

/// An array of values.
pub(super) fn array<T>(entries: usize) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    map(ARRAY, size_of::<T>(), entries)
}

/// Writes an entry of a map made by [`map`] with values as large as this.
pub(super) fn update<T>(map: &OwnedFd, key: u32, value: &T) -> io::Result<()> {
    let mut element = MapElement {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: (&raw const *value) as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &mut element).map(drop)
}

/// A number in an array of them.
pub(super) fn number(map: &OwnedFd, key: u32) -> io::Result<u64> {
    let mut value = 0_u64;
    let mut element = MapElement {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: (&raw mut value) as u64,
        flags: 0,
    };
    bpf(MAP_LOOKUP_ELEM, &mut element)?;
    Ok(value)
}

/// Loads a classifier.
pub(super) fn load_classifier(code: &[Instruction]) -> io::Result<OwnedFd> {
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

/// Where on a TCX hook a program is put.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Before,
    Behind,
}

/// Attaches a classifier at a TCX hook of a device, before or behind all others.
pub(super) fn attach_tcx(
    program: &OwnedFd,
    ifindex: u32,
    hook: Hook,
    place: Place,
) -> io::Result<OwnedFd> {
    const TCX_INGRESS: u32 = 46;
    const TCX_EGRESS: u32 = 47;
    const BEFORE: u32 = 1 << 3;
    bpf(
        LINK_CREATE,
        &mut LinkCreate {
            program: program.as_raw_fd() as u32,
            device: ifindex,
            attach_type: match hook {
                Hook::Ingress => TCX_INGRESS,
                Hook::Egress => TCX_EGRESS,
            },
            flags: match place {
                Place::Before => BEFORE,
                Place::Behind => 0,
            },
            relative: 0,
            padding: 0,
            revision: 0,
        },
    )
    .map(owned)
}

/// Return value and nanoseconds of a run of a classifier on a frame, with a `struct __sk_buff`.
pub(super) fn test_run<T>(
    program: impl AsFd,
    frame: &[u8],
    context: &T,
    repeat: u32,
) -> io::Result<(i32, u32)> {
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
        context_size_in: size_of::<T>() as u32,
        context_size_out: 0,
        context_in: std::ptr::from_ref(context) as u64,
        context_out: 0,
    };
    bpf(PROG_TEST_RUN, &mut test)?;
    Ok((test.returned as i32, test.duration))
}
