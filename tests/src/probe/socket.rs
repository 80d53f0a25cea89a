//! Sockets of the four protocols, made by a thread inside the namespace they are to be in.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicU16, Ordering},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, listen,
    recvfrom, send, sendto, socket_with, sockopt,
};

use super::Protocol;

/// A socket for a protocol, non-blocking.
pub(super) fn open(protocol: Protocol, family: IpAddr) -> io::Result<OwnedFd> {
    let domain = match family {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let (kind, number) = match (protocol, family) {
        (Protocol::Tcp, _) => (SocketType::STREAM, ipproto::TCP),
        (Protocol::Udp, _) => (SocketType::DGRAM, ipproto::UDP),
        (Protocol::Sctp, _) => (SocketType::RAW, ipproto::SCTP),
        (Protocol::Icmp, IpAddr::V4(_)) => (SocketType::DGRAM, ipproto::ICMP),
        (Protocol::Icmp, IpAddr::V6(_)) => (SocketType::DGRAM, ipproto::ICMPV6),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(domain, kind, flags, Some(number))?)
}

/// A socket that serves a port at one address.
pub(super) fn serve(protocol: Protocol, at: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(protocol, at.ip())?;
    let at = match protocol {
        // A raw socket's port would be a protocol.
        Protocol::Sctp => SocketAddr::new(at.ip(), 0),
        _ => at,
    };
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &at)?;
    if protocol == Protocol::Tcp {
        listen(&socket, 4096)?;
    }
    Ok(socket)
}

/// A port outside the kernel's range that this process has not used for long.
pub(super) fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000
}

/// Gives a socket such a port. One that the kernel chose may have been another's a moment ago, and a translation that was
/// made for that one would hold for this one too.
pub(super) fn take_port(socket: impl AsFd, to: IpAddr) -> io::Result<()> {
    let any = match to {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    loop {
        match bind(&socket, &SocketAddr::new(any, own_port())) {
            Err(rustix::io::Errno::ADDRINUSE) => {}
            done => return Ok(done?),
        }
    }
}

/// Begins to connect.
pub(super) fn begin(socket: impl AsFd, protocol: Protocol, to: SocketAddr) -> io::Result<()> {
    let to = match protocol {
        Protocol::Sctp | Protocol::Icmp => SocketAddr::new(to.ip(), 0),
        _ => to,
    };
    match connect(socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What waits to be received, `None` if nothing does; and from whom.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Option<SocketAddr>)>> {
    let mut buffer = vec![0; 2048];
    match recvfrom(socket, &mut buffer[..], RecvFlags::empty()) {
        Ok((_, length, from)) => {
            buffer.truncate(length);
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            Ok(Some((buffer, from)))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends on a connected socket.
pub(super) fn say(socket: impl AsFd, data: &[u8]) -> io::Result<()> {
    send(socket, data, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Answers on a socket that is not connected.
pub(super) fn answer(socket: impl AsFd, data: &[u8], to: SocketAddr) -> io::Result<()> {
    sendto(socket, data, SendFlags::NOSIGNAL, &to)?;
    Ok(())
}
