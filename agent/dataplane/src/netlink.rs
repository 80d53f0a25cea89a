//! A synchronous rtnetlink client: what the agent asks of the kernel about devices, addresses and
//! namespaces, and no more.
//!
//! Of each message only the attributes named here are decoded, so that a kernel which knows more
//! of them, or longer ones, is read all the same. Nothing here enters a network namespace: another one
//! is read through its id, with `CAP_NET_ADMIN` alone (`IFLA_TARGET_NETNSID`, Linux 4.20).

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd as _},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use zerocopy::FromBytes as _;

use self::wire::{AddressHeader, Attributes, LinkHeader, Messages, Request, RouteHeader};
pub use self::{
    conntrack::{Conntrack, Ends, Tracked},
    device::{Link, LocalAddress},
    monitor::{Changes, Monitor},
    nft::{Chain, Netfilter},
    tc::{Filter, Hook},
};

mod conntrack;
mod device;
mod monitor;
mod nft;
mod tc;
mod wire;

/// A request the kernel did not fulfil.
#[derive(Debug, thiserror::Error)]
#[error("netlink: {operation}{detail}")]
pub struct NetlinkError {
    operation: &'static str,
    detail: String,
    source: io::Error,
}

impl NetlinkError {
    fn new(operation: &'static str, source: io::Error) -> Self {
        Self {
            operation,
            detail: String::new(),
            source,
        }
    }

    fn malformed(operation: &'static str) -> Self {
        Self::new(
            operation,
            io::Error::new(io::ErrorKind::InvalidData, "unreadable answer"),
        )
    }

    /// The kernel's error number, where it is the kernel that refused.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// A network namespace as the socket's own one names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The one the socket was opened in.
    Own,
    /// The one with this id.
    Id(i32),
}

/// A request socket, bound to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// The kernel fills at most this much at once (`NLMSG_GOODSIZE` grows with the reader's buffer up to 32
/// KiB); larger than any single message asked for here.
const RECEIVE_BYTES: usize = 64 * 1024;
/// A dump that a change interrupts is asked again this often before it is an error.
const DUMP_ATTEMPTS: usize = 8;

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// The system call that failed.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::of(NETLINK_ROUTE)
    }

    fn of(protocol: isize) -> Result<Self, NetlinkError> {
        let fail = |source| NetlinkError::new("open a socket", source);
        let mut socket = netlink_sys::Socket::new(protocol).map_err(fail)?;
        socket.bind_auto().map_err(fail)?;
        socket.set_netlink_get_strict_chk(true).map_err(fail)?;
        socket.set_ext_ack(true).map_err(fail)?;
        socket.set_cap_ack(true).map_err(fail)?;
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE_BYTES],
            sequence: 0,
        })
    }

    /// Every device of a namespace.
    ///
    /// # Errors
    ///
    /// What the kernel says; `ENODEV`-like ones where no namespace has that id any more.
    pub fn links(&mut self, namespace: Namespace) -> Result<Vec<Link>, NetlinkError> {
        const OPERATION: &str = "list devices";
        let mut request = Request::new(
            libc::RTM_GETLINK,
            NLM_F_REQUEST | NLM_F_DUMP,
            &LinkHeader::default(),
        );
        request.attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        if let Namespace::Id(id) = namespace {
            request.attribute(IFLA_TARGET_NETNSID, &id.to_ne_bytes());
        }
        self.dump(OPERATION, request, |kind, payload| {
            (kind == libc::RTM_NEWLINK)
                .then(|| Link::read(payload).ok_or_else(|| NetlinkError::malformed(OPERATION)))
                .transpose()
        })
    }

    /// Every address of every device of a namespace, both families.
    ///
    /// # Errors
    ///
    /// As [`links`](Self::links).
    pub fn addresses(&mut self, namespace: Namespace) -> Result<Vec<LocalAddress>, NetlinkError> {
        const OPERATION: &str = "list addresses";
        let mut request = Request::new(
            libc::RTM_GETADDR,
            NLM_F_REQUEST | NLM_F_DUMP,
            &AddressHeader::default(),
        );
        if let Namespace::Id(id) = namespace {
            request.attribute(IFA_TARGET_NETNSID, &id.to_ne_bytes());
        }
        self.dump(OPERATION, request, |kind, payload| {
            (kind == libc::RTM_NEWADDR)
                .then(|| {
                    LocalAddress::read(payload).ok_or_else(|| NetlinkError::malformed(OPERATION))
                })
                .transpose()
        })
    }

    /// The device to which a route of the namespace delivers this one address and no other, on the
    /// link: how a routed CNI reaches a local pod. None where the best route is of another sort.
    ///
    /// # Errors
    ///
    /// What the kernel says, but for "no route".
    pub fn host_route(&mut self, address: IpAddr) -> Result<Option<u32>, NetlinkError> {
        const OPERATION: &str = "look up the route of an address";
        let (family, length) = match address {
            IpAddr::V4(_) => (libc::AF_INET, 32),
            IpAddr::V6(_) => (libc::AF_INET6, 128),
        };
        let header = RouteHeader {
            family: family as u8,
            destination_length: length,
            flags: RTM_F_FIB_MATCH,
            ..RouteHeader::default()
        };
        let mut request = Request::new(libc::RTM_GETROUTE, NLM_F_REQUEST | NLM_F_ACK, &header);
        match address {
            IpAddr::V4(address) => request.attribute(libc::RTA_DST, &address.octets()),
            IpAddr::V6(address) => request.attribute(libc::RTA_DST, &address.octets()),
        }
        let mut device = None;
        let answer = self.exchange(OPERATION, request, |kind, payload| {
            if kind == libc::RTM_NEWROUTE {
                let (header, rest) = RouteHeader::read_from_prefix(payload)
                    .map_err(|_short| NetlinkError::malformed(OPERATION))?;
                let attributes = Attributes::new(rest);
                let on_link = header.kind == libc::RTN_UNICAST
                    && header.destination_length == length
                    && attributes.find(libc::RTA_GATEWAY).is_none()
                    && attributes.find(RTA_VIA).is_none();
                if on_link {
                    device = attributes.u32(libc::RTA_OIF);
                }
            }
            Ok(())
        });
        match answer {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ESRCH | libc::EINVAL)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(device),
        }
    }

    /// The id by which the socket's namespace knows the one behind an open namespace file; assigned if
    /// it has none yet.
    ///
    /// # Errors
    ///
    /// `EINVAL` where the file is no network namespace.
    pub fn namespace_id(&mut self, file: impl AsFd) -> Result<i32, NetlinkError> {
        const OPERATION: &str = "ask for a namespace's id";
        let fd = file.as_fd().as_raw_fd() as u32;
        // Another process may assign the id between question and assignment; then asking again finds it.
        for _ in 0..2 {
            if let Some(id) = self.assigned_id(OPERATION, fd)? {
                return Ok(id);
            }
            let mut request = Request::new(
                libc::RTM_NEWNSID,
                NLM_F_REQUEST | NLM_F_ACK,
                &[0u8; GENERIC_HEADER],
            );
            request.attribute(NETNSA_FD, &fd.to_ne_bytes());
            request.attribute(NETNSA_NSID, &ANY_ID.to_ne_bytes());
            match self.exchange("assign a namespace id", request, |_, _| Ok(())) {
                Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
                _ => {}
            }
        }
        self.assigned_id(OPERATION, fd)?
            .ok_or_else(|| NetlinkError::malformed(OPERATION))
    }

    fn assigned_id(
        &mut self,
        operation: &'static str,
        fd: u32,
    ) -> Result<Option<i32>, NetlinkError> {
        let mut request = Request::new(
            libc::RTM_GETNSID,
            NLM_F_REQUEST | NLM_F_ACK,
            &[0u8; GENERIC_HEADER],
        );
        request.attribute(NETNSA_FD, &fd.to_ne_bytes());
        let mut id = None;
        self.exchange(operation, request, |kind, payload| {
            if kind == libc::RTM_NEWNSID {
                let attributes = payload.get(GENERIC_HEADER..).unwrap_or_default();
                id = Attributes::new(attributes).u32(NETNSA_NSID);
            }
            Ok(())
        })?;
        Ok(id.map(|id| id as i32).filter(|id| *id >= 0))
    }

    /// A dump, asked again where a change interrupted it: such an answer may lack an entry.
    fn dump<T>(
        &mut self,
        operation: &'static str,
        request: Request,
        mut read: impl FnMut(u16, &[u8]) -> Result<Option<T>, NetlinkError>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let consistent = self.exchange(operation, request.clone(), |kind, payload| {
                found.extend(read(kind, payload)?);
                Ok(())
            })?;
            if consistent {
                return Ok(found);
            }
        }
        Err(NetlinkError::new(
            operation,
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the list changed each time it was read",
            ),
        ))
    }

    /// Sends a request and hands every message of its answer to `receive`. `false` where the kernel says
    /// that a dump was interrupted by a change.
    fn exchange(
        &mut self,
        operation: &'static str,
        request: Request,
        mut receive: impl FnMut(u16, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<bool, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let fail = |source| NetlinkError::new(operation, source);
        self.socket
            .send(&request.finish(self.sequence), 0)
            .map_err(fail)?;
        let mut consistent = true;
        // An answer is read to its end even after an error, lest the rest meet the next question.
        let mut result = Ok(());
        loop {
            let length = match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                length => length.map_err(fail)?,
            };
            let datagram = self
                .buffer
                .get(..length)
                .ok_or_else(|| NetlinkError::malformed(operation))?;
            for message in Messages::new(datagram) {
                let (header, payload) =
                    message.ok_or_else(|| NetlinkError::malformed(operation))?;
                if header.sequence != self.sequence {
                    continue;
                }
                consistent &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.kind {
                    NLMSG_DONE => {
                        result?;
                        // Its payload is the error that ended a dump early, or 0.
                        check(operation, payload, header.flags)?;
                        return Ok(consistent);
                    }
                    NLMSG_ERROR => {
                        result?;
                        check(operation, payload, header.flags)?;
                        return Ok(consistent);
                    }
                    kind => {
                        if result.is_ok() {
                            result = receive(kind, payload);
                        }
                    }
                }
            }
        }
    }
}

/// Reads the error number at the start of `NLMSG_ERROR` or `NLMSG_DONE`, and the kernel's own words.
fn check(operation: &'static str, payload: &[u8], flags: u16) -> Result<(), NetlinkError> {
    let Ok((code, rest)) = i32::read_from_prefix(payload) else {
        return Ok(());
    };
    if code == 0 {
        return Ok(());
    }
    let mut error = NetlinkError::new(operation, io::Error::from_raw_os_error(-code));
    if flags & NLM_F_ACK_TLVS != 0 {
        // After the error come the header of the request (its payload is capped) and attributes.
        let attributes = Attributes::new(rest.get(wire::MESSAGE_HEADER..).unwrap_or_default());
        if let Some(words) = attributes.text(NLMSGERR_ATTR_MSG) {
            error.detail = format!(" ({words})");
        }
    }
    Err(error)
}

// Numbers of include/uapi/linux that libc does not name.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFA_TARGET_NETNSID: u16 = 10;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
const RTA_VIA: u16 = 18;
const RTM_F_FIB_MATCH: u32 = 0x2000;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `struct rtgenmsg`, padded.
const GENERIC_HEADER: usize = 4;
/// Asks the kernel to choose an id.
const ANY_ID: i32 = -1;
