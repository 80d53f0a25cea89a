//! Notice of changes. It says what to look at again, never what has changed: the lists are read anew, so a
//! lost notice costs nothing but a reading.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use zerocopy::FromBytes as _;

use super::{
    NetlinkError,
    wire::{Messages, RouteHeader},
};

/// What may have changed since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Devices, or the ids of the namespaces they lead to.
    pub links: bool,
    /// Addresses of the node.
    pub addresses: bool,
    /// Routes to one single address.
    pub host_routes: bool,
    /// Filters or qdiscs were taken off devices.
    pub filters: bool,
    /// Notices were lost: everything above may have changed, and is set.
    pub overrun: bool,
}

impl Changes {
    /// Whether there is anything to look at.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Takes up what another look found.
    pub fn merge(&mut self, other: Self) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.host_routes |= other.host_routes;
        self.filters |= other.filters;
        self.overrun |= other.overrun;
    }
}

/// A socket that becomes readable when devices, addresses, host routes or namespace ids of its
/// network namespace change.
#[derive(Debug)]
pub struct Monitor {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Listens in the calling thread's network namespace. Changes made after this returns are noticed.
    ///
    /// # Errors
    ///
    /// The system call that failed.
    pub fn open() -> Result<Self, NetlinkError> {
        let fail = |source| NetlinkError::new("listen for changes", source);
        let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE).map_err(fail)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(fail)?;
        socket.set_non_blocking(true).map_err(fail)?;
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_NSID,
            libc::RTNLGRP_TC,
        ] {
            socket.add_membership(group).map_err(fail)?;
        }
        Ok(Self {
            socket,
            buffer: vec![0; super::RECEIVE_BYTES],
        })
    }

    /// Reads every notice that waits, without blocking.
    ///
    /// # Errors
    ///
    /// The system call that failed.
    pub fn drain(&mut self) -> Result<Changes, NetlinkError> {
        let mut changes = Changes::default();
        loop {
            match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Ok(length) => match self.buffer.get(..length) {
                    Some(datagram) => note(&mut changes, datagram),
                    None => overrun(&mut changes),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => overrun(&mut changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::new("read changes", error)),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::os::fd::AsRawFd for Monitor {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

fn overrun(changes: &mut Changes) {
    *changes = Changes {
        links: true,
        addresses: true,
        host_routes: true,
        filters: true,
        overrun: true,
    };
}

fn note(changes: &mut Changes, datagram: &[u8]) {
    for message in Messages::new(datagram) {
        let Some((header, payload)) = message else {
            return overrun(changes);
        };
        match header.kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWNSID | libc::RTM_DELNSID => {
                changes.links = true;
            }
            libc::RTM_DELTFILTER | libc::RTM_DELQDISC => changes.filters = true,
            libc::RTM_NEWADDR | libc::RTM_DELADDR => changes.addresses = true,
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                // A node may carry a whole routing table that has nothing to do with its pods.
                let single = RouteHeader::read_from_prefix(payload).is_ok_and(|(route, _)| {
                    let whole = if i32::from(route.family) == libc::AF_INET {
                        32
                    } else {
                        128
                    };
                    route.destination_length == whole && route.kind == libc::RTN_UNICAST
                });
                changes.host_routes |= single;
            }
            _ => {}
        }
    }
}
