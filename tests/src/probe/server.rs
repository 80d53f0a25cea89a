//! Everything that is served in a lab, by one thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, epoll, eventfd},
    net::{SocketFlags, acceptfrom_with},
};

use super::{Protocol, socket};
use crate::{
    lab::Endpoint,
    packet::{Ip, Sctp},
};

/// The key of the event that ends the thread.
const END: u64 = 0;

/// Serves ports of endpoints. TCP and UDP are answered with a line that says who serves and whom it
/// sees: `x/a 10.244.1.2:40000`; a GET of HTTP is answered as one.
pub struct Servers {
    shared: Arc<Shared>,
    end: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    epoll: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sockets: BTreeMap<u64, Served>,
    ports: BTreeSet<(String, u16, Protocol)>,
    next: u64,
}

struct Served {
    owner: String,
    socket: OwnedFd,
    kind: Kind,
}

enum Kind {
    Listener,
    Connection {
        peer: String,
    },
    Datagrams,
    /// A raw socket gets the packets of every port.
    Sctp {
        at: SocketAddr,
    },
}

impl Servers {
    /// Starts the thread that serves.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn start() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC)?;
        let key = epoll::EventData::new_u64(END);
        epoll::add(&epoll, &end, key, epoll::EventFlags::IN)?;
        let state = Mutex::new(State {
            next: END + 1,
            ..State::default()
        });
        let shared = Arc::new(Shared { epoll, state });
        let serving = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("lab-servers".into())
            .spawn(move || serving.serve())?;
        Ok(Self {
            shared,
            end,
            thread: Some(thread),
        })
    }

    /// Serves a port at all addresses of an endpoint; what is served already stays so.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn serve(&self, endpoint: &Endpoint, port: u16, protocol: Protocol) -> Result<()> {
        // The kernel itself answers echo.
        let key = (endpoint.name.clone(), port, protocol);
        if protocol == Protocol::Icmp || !self.shared.lock().ports.insert(key) {
            return Ok(());
        }
        let addresses = endpoint.addresses.iter();
        let addresses: Vec<_> = addresses
            .map(|address| SocketAddr::new(*address, port))
            .collect();
        let open = || -> io::Result<Vec<_>> {
            let sockets = addresses.iter();
            sockets.map(|&at| socket::serve(protocol, at)).collect()
        };
        let sockets = endpoint
            .namespace
            .run(open)
            .with_context(|| format!("serving {port}/{protocol} in {}", endpoint.name))?;
        for (socket, at) in sockets.into_iter().zip(addresses) {
            let kind = match protocol {
                Protocol::Tcp => Kind::Listener,
                Protocol::Udp => Kind::Datagrams,
                Protocol::Sctp | Protocol::Icmp => Kind::Sctp { at },
            };
            let owner = endpoint.name.clone();
            let served = Served {
                owner,
                socket,
                kind,
            };
            self.shared.add(&mut self.shared.lock(), served)?;
        }
        Ok(())
    }

    /// Closes all sockets of an endpoint.
    pub fn forget(&self, name: &str) {
        let mut state = self.shared.lock();
        state.sockets.retain(|_, served| served.owner != name);
        state.ports.retain(|(owner, ..)| owner != name);
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.shared.lock().ports).finish()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::write(&self.end, &1_u64.to_ne_bytes()) {
            eprintln!("ending the lab's servers: {error}");
        }
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            eprintln!("the lab's servers panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, state: &mut State, served: Served) -> Result<()> {
        let key = state.next;
        state.next += 1;
        let data = epoll::EventData::new_u64(key);
        epoll::add(&self.epoll, &served.socket, data, epoll::EventFlags::IN)?;
        state.sockets.insert(key, served);
        Ok(())
    }

    fn serve(&self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("waiting for requests: {error}"),
            }
            for event in &events {
                let key = event.data.u64();
                if key == END {
                    return;
                }
                let mut state = self.lock();
                // A client that gave up is no error of the server's.
                if self.answer(&mut state, key).is_err()
                    && let Some(served) = state.sockets.get(&key)
                    && matches!(served.kind, Kind::Connection { .. })
                {
                    state.sockets.remove(&key);
                }
            }
        }
    }

    fn answer(&self, state: &mut State, key: u64) -> Result<()> {
        // Forgotten since the event.
        let Some(served) = state.sockets.get(&key) else {
            return Ok(());
        };
        match &served.kind {
            Kind::Listener => {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let (socket, peer) = acceptfrom_with(&served.socket, flags)?;
                let peer = SocketAddr::try_from(peer.context("no peer")?)?.to_string();
                let owner = served.owner.clone();
                let kind = Kind::Connection { peer };
                self.add(
                    state,
                    Served {
                        owner,
                        socket,
                        kind,
                    },
                )
            }
            Kind::Connection { peer } => match socket::receive(&served.socket)? {
                Some((data, _)) if data.is_empty() => anyhow::bail!("closed by {peer}"),
                Some((data, _)) => {
                    let mut line = format!("{} {peer}\n", served.owner);
                    if data.starts_with(b"GET ") {
                        let length = line.len();
                        line = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{line}");
                    }
                    Ok(socket::say(&served.socket, line.as_bytes())?)
                }
                None => Ok(()),
            },
            Kind::Datagrams => {
                if let Some((_, Some(peer))) = socket::receive(&served.socket)? {
                    let line = format!("{} {peer}\n", served.owner);
                    socket::answer(&served.socket, line.as_bytes(), peer)?;
                }
                Ok(())
            }
            Kind::Sctp { at } => {
                if let Some((packet, Some(peer))) = socket::receive(&served.socket)?
                    && let Some(init) = Sctp::parse(Ip::payload_of_raw(&packet, peer.ip()))
                    && (init.chunk, init.destination) == (Sctp::INIT, at.port())
                    && let Some(tag) = init.own_tag()
                {
                    let kind = Sctp::INIT_ACK;
                    let answer = Sctp::opening(kind, init.destination, init.source, tag, !tag);
                    let peer = SocketAddr::new(peer.ip(), 0);
                    socket::answer(&served.socket, &answer.bytes(), peer)?;
                }
                Ok(())
            }
        }
    }
}
