//! Attempts to reach somebody, any number at once, by one thread.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    net::sockopt::socket_error,
};

use super::{Protocol, socket};
use crate::{
    lab::Namespace,
    packet::{Ip, Sctp},
};

/// How long after a datagram without an answer the next is sent.
const AGAIN: Duration = Duration::from_millis(100);

/// One attempt to reach somebody.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Where it starts.
    pub from: &'a Namespace,
    /// Where it goes.
    pub to: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// When it gives up.
    pub patience: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The peer answered.
    Answered,
    /// Something said no: a reset, or an ICMP error about the port or protocol.
    Refused,
    /// A router or the own node knows no way.
    Unreachable,
    /// Nothing came back.
    Silent,
}

/// All that is known of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What came of it.
    pub outcome: Outcome,
    /// What the peer said: over TCP and UDP, who it is and whom it saw.
    pub body: String,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Who answered, and the address that it saw.
    #[must_use]
    pub fn answer(&self) -> Option<(&str, SocketAddr)> {
        let (server, client) = self.body.trim_end().split_once(' ')?;
        Some((server, client.parse().ok()?))
    }
}

/// Makes all attempts at once and waits for the last of them.
///
/// # Errors
/// Where sockets cannot be made; that somebody cannot be reached is no error.
pub fn attempt(attempts: &[Attempt<'_>]) -> Result<Vec<Report>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut pending = BTreeMap::new();
    let mut reports = vec![None; attempts.len()];
    let mut places: BTreeMap<&std::path::Path, Vec<usize>> = BTreeMap::new();
    for (number, attempt) in attempts.iter().enumerate() {
        places.entry(attempt.from.path()).or_default().push(number);
    }
    for numbers in places.values() {
        let begin = || -> io::Result<Vec<_>> {
            let attempts = numbers
                .iter()
                .map(|&number| Pending::begin(attempts[number]));
            attempts.collect()
        };
        let begun = attempts[numbers[0]].from.run(begin)?;
        for (&number, begun) in numbers.iter().zip(begun) {
            match begun {
                Ok(begun) => {
                    let key = epoll::EventData::new_u64(number as u64);
                    epoll::add(&epoll, &begun.socket, key, begun.waits_for())?;
                    pending.insert(number, begun);
                }
                Err(outcome) => {
                    reports[number] = Some(report(outcome, String::new(), Instant::now()))
                }
            }
        }
    }
    let mut events = Vec::with_capacity(256);
    while !pending.is_empty() {
        let next = pending.values().map(Pending::next).min();
        let wait = next.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now())
        });
        let wait = Timespec::try_from(wait)?;
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let number = event.data.u64() as usize;
            let Some(attempt) = pending.get_mut(&number) else {
                continue;
            };
            if let Some((outcome, body)) = attempt.proceed() {
                reports[number] = Some(report(outcome, body, attempt.begun));
                pending.remove(&number);
            } else {
                epoll::modify(&epoll, &attempt.socket, event.data, attempt.waits_for())?;
            }
        }
        let now = Instant::now();
        pending.retain(|&number, attempt| {
            let over = attempt.deadline <= now;
            if over {
                reports[number] = Some(report(Outcome::Silent, String::new(), attempt.begun));
            } else if attempt.again <= now {
                attempt.repeat(now);
            }
            !over
        });
    }
    Ok(reports.into_iter().flatten().collect())
}

fn report(outcome: Outcome, body: String, begun: Instant) -> Report {
    Report {
        outcome,
        body,
        took: begun.elapsed(),
    }
}

/// An attempt under way.
struct Pending {
    socket: OwnedFd,
    to: SocketAddr,
    protocol: Protocol,
    begun: Instant,
    deadline: Instant,
    again: Instant,
    /// TCP: the connection stands and the request is sent.
    connected: bool,
    request: Vec<u8>,
    /// SCTP: the own tag, whose upper half is the source port.
    tag: u32,
}

impl Pending {
    /// Opens a socket, here, and begins; what fails at once is an outcome, too.
    fn begin(attempt: Attempt<'_>) -> io::Result<Result<Self, Outcome>> {
        let Attempt { to, protocol, .. } = attempt;
        let socket = socket::open(protocol, to.ip())?;
        if matches!(protocol, Protocol::Tcp | Protocol::Udp) {
            socket::take_port(&socket, to.ip())?;
        }
        let begun = Instant::now();
        let tag = ephemeral_tag();
        let request = match protocol {
            Protocol::Tcp | Protocol::Udp => b"?\n".to_vec(),
            Protocol::Sctp => {
                Sctp::opening(Sctp::INIT, (tag >> 16) as u16, to.port(), 0, tag).bytes()
            }
            // The kernel fills identifier and checksum in.
            Protocol::Icmp if to.is_ipv4() => vec![8, 0, 0, 0, 0, 0, 0, 1],
            Protocol::Icmp => vec![128, 0, 0, 0, 0, 0, 0, 1],
        };
        let mut pending = Self {
            socket,
            to,
            protocol,
            begun,
            deadline: begun + attempt.patience,
            again: begun + AGAIN,
            connected: false,
            request,
            tag,
        };
        let mut started = socket::begin(&pending.socket, protocol, to);
        if started.is_ok() && protocol != Protocol::Tcp {
            started = socket::say(&pending.socket, &pending.request);
        }
        if protocol == Protocol::Tcp {
            pending.again = pending.deadline;
        }
        Ok(started.map_err(|error| outcome(&error)).map(|()| pending))
    }

    fn waits_for(&self) -> epoll::EventFlags {
        if self.protocol == Protocol::Tcp && !self.connected {
            epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        }
    }

    /// When it is to be looked after if nothing happens.
    fn next(&self) -> Instant {
        self.again.min(self.deadline)
    }

    /// Sends a datagram again.
    fn repeat(&mut self, now: Instant) {
        self.again = now + AGAIN;
        // What stands in the way shows as an event of the socket.
        let _sent = socket::say(&self.socket, &self.request);
    }

    /// Does what the socket is ready for; says so if that was the last.
    fn proceed(&mut self) -> Option<(Outcome, String)> {
        match self.step() {
            Ok(None) => None,
            Ok(Some(body)) => Some((Outcome::Answered, body)),
            Err(error) => Some((outcome(&error), String::new())),
        }
    }

    fn step(&mut self) -> io::Result<Option<String>> {
        if self.protocol == Protocol::Tcp && !self.connected {
            socket_error(&self.socket)??;
            socket::say(&self.socket, &self.request)?;
            self.connected = true;
            return Ok(None);
        }
        let Some((data, from)) = socket::receive(&self.socket)? else {
            return Ok(None);
        };
        match self.protocol {
            Protocol::Tcp if data.is_empty() => Err(io::ErrorKind::ConnectionReset.into()),
            Protocol::Tcp | Protocol::Udp => Ok(Some(String::from_utf8_lossy(&data).into_owned())),
            Protocol::Icmp => Ok(Some(String::new())),
            Protocol::Sctp => {
                let from = from.map_or(self.to.ip(), |from| from.ip());
                let packet = Sctp::parse(Ip::payload_of_raw(&data, from));
                // The socket sees the packets of every association with that peer.
                let own = packet
                    .filter(|packet| packet.source == self.to.port() && packet.tag == self.tag);
                match own.map(|packet| packet.chunk) {
                    Some(Sctp::INIT_ACK) => Ok(Some(String::new())),
                    Some(_) => Err(io::ErrorKind::ConnectionRefused.into()),
                    None => Ok(None),
                }
            }
        }
    }
}

/// A tag that no association of this process has, its upper half a port of its own.
fn ephemeral_tag() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    u32::from(socket::own_port()) << 16 | (number & 0xffff) | 1
}

fn outcome(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::EPERM) => {
            Outcome::Unreachable
        }
        Some(libc::ETIMEDOUT) => Outcome::Silent,
        _ => Outcome::Refused,
    }
}
