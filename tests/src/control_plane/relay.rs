//! A relay of TCP connections, which may stop to pass anything on without closing them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::lab::Namespace;

/// How often what does not move is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A relay. New connections are refused when this is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    ended: AtomicBool,
    stalled: AtomicBool,
    accepted: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Listens on the loopback of a namespace and passes on to an address of this one.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn start(namespace: &Namespace, to: SocketAddr) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            to,
            ended: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            while !accepting.ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => accepting.join(stream),
                    Err(_) => thread::sleep(POLL),
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Passes nothing on any more and closes nothing; or does again, on new connections.
    pub fn stall(&self, stalled: bool) {
        self.shared.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Closes all connections.
    pub fn cut(&self) {
        let mut streams = self
            .shared
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for stream in streams.drain(..) {
            // Those that are closed already are.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.cut();
    }
}

impl Shared {
    /// Joins a connection with a new one of its own.
    fn join(self: &Arc<Self>, near: TcpStream) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        // Nobody listens: the connection is closed.
        let Ok(far) = TcpStream::connect(self.to) else {
            return;
        };
        for stream in [&near, &far] {
            if let (Ok(()), Ok(copy)) = (stream.set_nodelay(true), stream.try_clone()) {
                let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                streams.push(copy);
            }
        }
        let ends = near.try_clone().and_then(|one| Ok((one, far.try_clone()?)));
        if let Ok((near_copy, far_copy)) = ends {
            for (from, to) in [(near, far_copy), (far, near_copy)] {
                let shared = self.clone();
                thread::spawn(move || shared.pass(from, to));
            }
        }
    }

    /// Passes on one direction of a connection. One that was stalled once stays so.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        let mut stalled = false;
        if from.set_nonblocking(false).is_err() || from.set_read_timeout(Some(POLL)).is_err() {
            return;
        }
        while !self.ended.load(Ordering::Relaxed) {
            stalled |= self.stalled.load(Ordering::Relaxed);
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) if stalled || self.stalled.load(Ordering::Relaxed) => stalled = true,
                Ok(count) => {
                    if to.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        if !stalled {
            // The other direction may have done so.
            drop(to.shutdown(Shutdown::Both));
        }
    }
}
