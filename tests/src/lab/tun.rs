//! Two nodes joined by a tunnel whose devices have no link header: what the kernel hands to one end, a thread of the
//! lab hands to the other, as a user space WireGuard does.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::OpenOptionsExt,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use super::namespace::Namespace;

/// How often the relay looks whether it is still wanted.
const PERIOD: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// The tunnel; its devices go when it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    over: Arc<AtomicBool>,
    relay: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes a device of that name in each namespace, not up yet.
    ///
    /// # Errors
    /// Where the kernel has no such devices.
    pub fn between(ends: [&Namespace; 2], name: &str) -> Result<Self> {
        let [one, other] = ends.map(|end| end.run(|| device(name)));
        let (one, other) = (one?, other?);
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let relay = thread::Builder::new()
            .name("tunnel".to_owned())
            .spawn(move || relay(&one, &other, &told))?;
        Ok(Self {
            over,
            relay: Some(relay),
        })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(relay) = self.relay.take() {
            // A relay that panicked has nothing left to end.
            drop(relay.join());
        }
    }
}

fn relay(one: &File, other: &File, over: &AtomicBool) {
    let mut packet = vec![0; 1 << 16];
    while !over.load(Ordering::Relaxed) {
        let mut ready = [one, other].map(|end| PollFd::new(end, PollFlags::IN));
        if poll(&mut ready, Some(&PERIOD)).is_err() {
            continue;
        }
        for (mut from, mut to) in [(one, other), (other, one)] {
            while let Ok(length @ 1..) = from.read(&mut packet) {
                // A tunnel loses what its other end does not take.
                drop(to.write(&packet[..length]));
            }
        }
    }
}

/// A `tun` device of the calling thread's namespace, without packet information.
fn device(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/net/tun")
        .context("opening /dev/net/tun")?;
    // `struct ifreq`: a name of 16 bytes, and a union of 24 that begins with the flags.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the request lives during the call, is as long as the kernel reads and writes, and its name ends in a zero.
    let done = unsafe { libc::ioctl(fd, libc::TUNSETIFF as _, request.as_mut_ptr()) };
    if done < 0 {
        return Err(std::io::Error::last_os_error()).context("making a tun device");
    }
    Ok(file)
}
