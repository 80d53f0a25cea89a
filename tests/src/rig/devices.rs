//! Devices in a namespace that nobody else sees.

use std::{
    cell::Cell,
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
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
    let made = kinds
        .into_iter()
        .any(|kind| add_link(up(&name), vec![LinkInfo::Kind(kind)]).is_ok());
    assert!(made, "the kernel has none of dummy, veth and bridge");
    index(&name)
}

/// Makes a veth pair in the thread's own namespace, both ends up, and returns their indices.
pub(super) fn add_pair() -> [u32; 2] {
    let number = DEVICES.get().expect("the thread has a namespace") + 1;
    DEVICES.set(Some(number));
    let names = [format!("near{number}"), format!("far{number}")];
    let peer = InfoData::Veth(InfoVeth::Peer(named(&names[1])));
    let kind = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)];
    add_link(named(&names[0]), kind).expect("a veth pair");
    // Neither end goes up before the pair is whole.
    names.map(|name| {
        request(up(&name), 0).expect("setting a device up");
        index(&name)
    })
}

/// Keeps the devices that are made from now on in the thread's own namespace from sending of themselves.
pub(super) fn silence() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
}

/// Sends frames on devices of the thread's own namespace. To close it takes the kernel a grace period.
#[derive(Debug)]
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    pub(super) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers are passed.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    pub(super) fn send(&self, device: u32, frame: &[u8]) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: device as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // SAFETY: frame and address are as long as is said.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn index(name: &str) -> u32 {
    let name = CString::new(name).expect("no zero in it");
    // SAFETY: the name ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn up(name: &str) -> LinkMessage {
    let mut link = named(name);
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn add_link(mut link: LinkMessage, kind: Vec<LinkInfo>) -> io::Result<()> {
    link.attributes.push(LinkAttribute::LinkInfo(kind));
    request(link, NLM_F_CREATE | NLM_F_EXCL)
}

fn request(link: LinkMessage, flags: u16) -> io::Result<()> {
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
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
