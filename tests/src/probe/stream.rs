//! Datagrams at a steady rate, each accounted for.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::net::sockopt;

use crate::lab::Endpoint;

/// How long the last datagrams may be on their way.
const DRAIN: Duration = Duration::from_millis(200);

/// Bytes of datagrams that may wait for the receiver: some ten seconds' of a thousand a second.
const QUEUE: usize = 8 << 20;

/// From which ports a stream is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// One: the whole stream is one flow.
    One,
    /// One each: every datagram opens a flow and is judged as new.
    Fresh,
}

/// Numbered datagrams from one endpoint to another, until it is stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<io::Result<Vec<(u64, Instant)>>>,
}

/// What became of a stream.
#[derive(Clone, Debug)]
pub struct Loss {
    /// When each datagram was sent.
    pub sent: Vec<Instant>,
    /// When it arrived, if it did.
    pub arrived: Vec<Option<Instant>>,
}

impl Stream {
    /// Sends `rate` datagrams a second to a port, which must not be served already.
    ///
    /// # Errors
    /// Where sockets cannot be made.
    pub fn start(
        from: &Endpoint,
        to: &Endpoint,
        family: u8,
        port: u16,
        rate: u32,
        ports: Ports,
    ) -> Result<Self> {
        let address = to.address(family).context("no address of that family")?;
        Self::start_through(from, to, SocketAddr::new(address, port), port, rate, ports)
    }

    /// The same, to an address that leads to the port.
    ///
    /// # Errors
    /// Where sockets cannot be made.
    pub fn start_through(
        from: &Endpoint,
        to: &Endpoint,
        target: SocketAddr,
        port: u16,
        rate: u32,
        ports: Ports,
    ) -> Result<Self> {
        let family = if target.is_ipv4() { 4 } else { 6 };
        let served = to.address(family).context("no address of that family")?;
        let source = from.address(family).context("no address of that family")?;
        let server = to.namespace.run(|| UdpSocket::bind((served, port)))?;
        server.set_read_timeout(Some(Duration::from_millis(20)))?;
        // What waits for a busy machine is not lost.
        sockopt::set_socket_recv_buffer_size_force(&server, QUEUE)?;
        // Made inside, used from here: sockets stay where they were made.
        let sockets: Vec<_> = from.namespace.run(|| {
            let count = if ports == Ports::One { 1 } else { FRESH };
            let sockets = (0..count).map(|_| UdpSocket::bind((source, 0)));
            sockets.collect::<io::Result<_>>()
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let interval = Duration::from_secs(1) / rate.max(1);
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || send(&sockets, target, interval, &stopped));
        let stopped = Arc::clone(&stop);
        let receiver = thread::spawn(move || receive(&server, &stopped));
        Ok(Self {
            stop,
            sender,
            receiver,
        })
    }

    /// Stops it and counts.
    ///
    /// # Errors
    /// Where a socket failed other than by a packet that was lost.
    pub fn stop(self) -> Result<Loss> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = joined(self.sender);
        let received = joined(self.receiver)?;
        let mut arrived = vec![None; sent.len()];
        for (number, when) in received {
            let slot = arrived.get_mut(usize::try_from(number)?);
            *slot.context("a datagram that was never sent")? = Some(when);
        }
        Ok(Loss { sent, arrived })
    }
}

impl Loss {
    /// How many did not arrive.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.arrived.iter().filter(|when| when.is_none()).count()
    }

    /// How many did.
    #[must_use]
    pub fn leaked(&self) -> usize {
        self.arrived.len() - self.lost()
    }

    /// When the first of those arrived that were sent after a moment.
    #[must_use]
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        let pairs = self.sent.iter().zip(&self.arrived);
        pairs
            .filter(|(sent, _)| **sent >= moment)
            .find_map(|(_, arrived)| *arrived)
    }

    /// When the last of those that arrived was sent.
    #[must_use]
    pub fn last_leak(&self) -> Option<Instant> {
        let mut pairs = self.sent.iter().zip(&self.arrived).rev();
        pairs.find_map(|(sent, arrived)| arrived.map(|_| *sent))
    }

    /// Of those sent between two moments: how many, and how many arrived.
    #[must_use]
    pub fn between(&self, begin: Instant, end: Instant) -> (usize, usize) {
        let pairs = self.sent.iter().zip(&self.arrived);
        let mut sent = pairs
            .filter(|(sent, _)| (begin..end).contains(*sent))
            .peekable();
        let mut counts = (0, 0);
        for (_, arrived) in sent.by_ref() {
            counts.0 += 1;
            counts.1 += usize::from(arrived.is_some());
        }
        counts
    }
}

/// Sockets of a stream whose datagrams come from a port each; they take turns, so the ports of the last
/// few seconds differ.
const FRESH: usize = 4096;

fn send(
    sockets: &[UdpSocket],
    target: SocketAddr,
    interval: Duration,
    stop: &AtomicBool,
) -> Vec<Instant> {
    let begun = Instant::now();
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = begun + interval * u32::try_from(sent.len()).unwrap_or(u32::MAX);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let number = (sent.len() as u64).to_be_bytes();
        let socket = &sockets[sent.len() % sockets.len()];
        sent.push(Instant::now());
        // A full queue, or no way: the datagram is lost, and counts as that.
        let _sent = socket.send_to(&number, target);
    }
    sent
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<Vec<(u64, Instant)>> {
    let mut received = Vec::new();
    let mut until = None;
    let mut word = [0; 8];
    loop {
        if until.is_none() && stop.load(Ordering::Relaxed) {
            until = Some(Instant::now() + DRAIN);
        }
        if until.is_some_and(|until| Instant::now() > until) {
            return Ok(received);
        }
        match socket.recv_from(&mut word) {
            Ok((8, _)) => received.push((u64::from_be_bytes(word), Instant::now())),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
