//! Frames as they are: sent and received on a device, past every socket.

use std::{
    ffi::CString,
    io, mem,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
        addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
        bind, recv, send, socket_with,
    },
};

use crate::{
    lab::Namespace,
    packet::{Seen, parse},
};

/// A packet socket on one device. It receives what comes in, not what goes out.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens one on a device of a namespace, `eth0` of a pod, say.
    ///
    /// # Errors
    /// Where there is no such device.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self> {
        namespace.run(|| {
            let every = (libc::ETH_P_ALL as u16).to_be();
            let protocol =
                rustix::net::RawProtocol::new(every.into()).map(rustix::net::Protocol::from_raw);
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)?;
            let name = CString::new(device)?;
            // SAFETY: the name ends with a zero byte.
            let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
            let index = i32::try_from(index)?;
            bind(
                &socket,
                &Device {
                    index,
                    protocol: every,
                },
            )
            .with_context(|| format!("binding to {device}"))?;
            ignore_outgoing(&socket)?;
            Ok(Self { socket })
        })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// Where the device is down or the frame too long.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(&self.socket, frame, SendFlags::empty())?;
        Ok(())
    }

    /// The next frame, if one comes in time.
    ///
    /// # Errors
    /// Where the device is gone.
    pub fn receive(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let patience = Timespec::try_from(patience)?;
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
        if poll(&mut socket, Some(&patience))? == 0 {
            return Ok(None);
        }
        let mut frame = vec![0; 65536];
        let (_, length) = recv(&self.socket, &mut frame[..], RecvFlags::empty())?;
        frame.truncate(length);
        Ok(Some(frame))
    }

    /// The next packet that is wanted, if one comes in time; the others are thrown away.
    ///
    /// # Errors
    /// Where the device is gone.
    pub fn expect(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&Seen) -> bool,
    ) -> Result<Option<Seen>> {
        let deadline = Instant::now() + patience;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let Some(frame) = self.receive(rest)? else {
                return Ok(None);
            };
            match parse(&frame) {
                Some(seen) if wanted(&seen) => return Ok(Some(seen)),
                _ if rest.is_zero() => return Ok(None),
                _ => {}
            }
        }
    }

    /// Throws away what has come in so far.
    ///
    /// # Errors
    /// Where the device is gone.
    pub fn drain(&self) -> Result<()> {
        while self.receive(Duration::ZERO)?.is_some() {}
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Address of a device, as packet(7) wants it.
struct Device {
    index: i32,
    protocol: u16,
}

// SAFETY: the pointer passed on is to a whole `sockaddr_ll` of that length, which lives as long as the call.
unsafe impl SocketAddrArg for Device {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: self.protocol,
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        f(
            ptr::from_ref(&address).cast(),
            mem::size_of_val(&address) as SocketAddrLen,
        )
    }
}

fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is an int, and the length says so.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            ptr::from_ref(&on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
