//! `bpf(2)` for links, by device index. aya attaches by device name, which may pass to another device
//! between its resolution and the call, and does not tell which device a link is on.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::netlink::Hook;

/// What the kernel tells of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// The link's id.
    pub(crate) id: u32,
    /// The id of its program.
    pub(crate) program: u32,
    /// The device it is on; none once that is gone.
    pub(crate) ifindex: Option<u32>,
    /// The hook it is on.
    pub(crate) hook: Hook,
}

/// A program on a TCX hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// The program's id.
    pub(crate) program: u32,
    /// The id of the link that holds it there; 0 without one.
    pub(crate) link: u32,
}

/// Puts a program before all others on a device's TCX hook. It stays while the link lives.
pub(crate) fn create_link(program: impl AsFd, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreate {
        program: program.as_fd().as_raw_fd() as u32,
        ifindex,
        attach_type: attach_type(hook),
        flags: BPF_F_BEFORE,
        ..LinkCreate::default()
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the kernel made this descriptor for the call; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link; every packet meets either the old or the new one.
pub(crate) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link: link.as_fd().as_raw_fd() as u32,
        program: program.as_fd().as_raw_fd() as u32,
        ..LinkUpdate::default()
    };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Takes a link's program off its hook at once, whoever else holds the link.
pub(crate) fn detach_link(link: impl AsFd) -> io::Result<()> {
    let mut attributes = LinkDetach {
        link: link.as_fd().as_raw_fd() as u32,
    };
    bpf(BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// Pins an object.
pub(crate) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Object {
        path: path.as_ptr() as u64,
        fd: object.as_fd().as_raw_fd() as u32,
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Opens a pinned object.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Object {
        path: path.as_ptr() as u64,
        ..Object::default()
    };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: as in `create_link`.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel tells of a TCX link; none of an object that is no such link.
pub(crate) fn link_info(link: impl AsFd) -> io::Result<Option<LinkInfo>> {
    let mut info = Info::default();
    let mut attributes = ObjectInfo {
        fd: link.as_fd().as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let hook = match info.attach_type {
        BPF_TCX_INGRESS => Hook::Ingress,
        BPF_TCX_EGRESS => Hook::Egress,
        _ => return Ok(None),
    };
    Ok((info.kind == BPF_LINK_TYPE_TCX).then_some(LinkInfo {
        id: info.id,
        program: info.program,
        ifindex: (info.ifindex != 0).then_some(info.ifindex),
        hook,
    }))
}

/// The programs on a device's TCX hook in the order in which they run, in the calling thread's network
/// namespace.
pub(crate) fn query(ifindex: u32, hook: Hook) -> io::Result<Vec<Attached>> {
    let mut programs = [0u32; MULTI_PROGRAMS];
    let mut links = [0u32; MULTI_PROGRAMS];
    let mut attributes = Query {
        ifindex,
        attach_type: attach_type(hook),
        programs: programs.as_mut_ptr() as u64,
        count: MULTI_PROGRAMS as u32,
        links: links.as_mut_ptr() as u64,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    Ok(programs
        .into_iter()
        .zip(links)
        .take(attributes.count as usize)
        .map(|(program, link)| Attached { program, link })
        .collect())
}

/// A number that grows with every change of a device's TCX hook.
pub(crate) fn revision(ifindex: u32, hook: Hook) -> io::Result<u64> {
    let mut attributes = Query {
        ifindex,
        attach_type: attach_type(hook),
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    Ok(attributes.revision)
}

/// The call. Pointers inside `attributes` must lead to memory of the size the command expects; every caller
/// is in this file.
fn bpf<T: IntoBytes + FromBytes + Immutable>(
    command: libc::c_int,
    attributes: &mut T,
) -> io::Result<i32> {
    // SAFETY: `attributes` is valid for reads and writes of its size, the kernel accepts any size, taking
    // what is beyond as zero, and any bytes it leaves there are valid.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

const fn attach_type(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => BPF_TCX_INGRESS,
        Hook::Egress => BPF_TCX_EGRESS,
    }
}

// The parts of `union bpf_attr`, and `struct bpf_link_info` (include/uapi/linux/bpf.h).

#[repr(C)]
#[derive(Default, FromBytes, IntoBytes, Immutable)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

#[repr(C)]
#[derive(Default, FromBytes, IntoBytes, Immutable)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
#[derive(Default, FromBytes, IntoBytes, Immutable)]
struct LinkDetach {
    link: u32,
}

#[repr(C)]
#[derive(Default, FromBytes, IntoBytes, Immutable)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default, FromBytes, IntoBytes, Immutable)]
struct ObjectInfo {
    fd: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default, FromBytes, IntoBytes, Immutable)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default, FromBytes, IntoBytes, Immutable)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

/// `BPF_MPROG_MAX`: the kernel takes no more programs on one hook.
const MULTI_PROGRAMS: usize = 64;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_BEFORE: u32 = 1 << 3;
