//! Devices that carry nothing, in a namespace that nobody else sees.

use std::{cell::Cell, ffi::CString, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

thread_local! {
    static DEVICES: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Moves the calling thread to a network namespace of its own, the first time.
pub(super) fn unshare() {
    if DEVICES.get().is_some() {
        return;
    }
    // SAFETY: no other thread relies on the namespace of this one.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", io::Error::last_os_error());
    DEVICES.set(Some(0));
}

/// Makes a device of a kind that the kernel has, in the thread's own namespace, and returns its index.
pub(super) fn add() -> u32 {
    let number = DEVICES.get().expect("the thread has a namespace") + 1;
    DEVICES.set(Some(number));
    let name = format!("dev{number}");
    let kinds = [InfoKind::Dummy, InfoKind::Veth, InfoKind::Bridge];
    let made = kinds.into_iter().any(|kind| request(&name, kind).is_ok());
    assert!(made, "the kernel has none of dummy, veth and bridge");
    let name = CString::new(name).expect("no zero in it");
    // SAFETY: the name ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

fn request(name: &str, kind: InfoKind) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
    ];
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&buffer, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
    match answer.map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
