//! A TCP connection that is held open while the world around it changes.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketType, bind, connect, socket, sockopt},
};

use crate::lab::Endpoint;

/// Both ends of an established connection; each speaks on command.
#[derive(Debug)]
pub struct Connection {
    client: TcpStream,
    server: TcpStream,
    sent: u64,
}

impl Connection {
    /// Opens one from an endpoint to a port of another, which must not be served already.
    ///
    /// # Errors
    /// Where it does not stand in time.
    pub fn open(
        from: &Endpoint,
        to: &Endpoint,
        family: u8,
        port: u16,
        patience: Duration,
    ) -> Result<Self> {
        let address = to.address(family).context("no address of that family")?;
        Self::open_through(from, to, SocketAddr::new(address, port), port, patience)
    }

    /// Opens one to an address that leads to a port of an endpoint, a Service's, say.
    ///
    /// # Errors
    /// Where it does not stand in time.
    pub fn open_through(
        from: &Endpoint,
        to: &Endpoint,
        target: SocketAddr,
        port: u16,
        patience: Duration,
    ) -> Result<Self> {
        Self::open_from(from, 0, to, target, port, patience)
    }

    /// Opens one with a source port of the caller's choice.
    ///
    /// # Errors
    /// Where it does not stand in time.
    pub fn open_from(
        from: &Endpoint,
        source: u16,
        to: &Endpoint,
        target: SocketAddr,
        port: u16,
        patience: Duration,
    ) -> Result<Self> {
        let served = to
            .addresses
            .iter()
            .find(|address| address.is_ipv4() == target.is_ipv4())
            .context("no address of that family")?;
        let listener = to.namespace.run(|| TcpListener::bind((*served, port)))?;
        let client = from.namespace.run(|| dial(source, target, patience))?;
        listener.set_nonblocking(true)?;
        wait_for(&listener, patience)?;
        let (server, _) = listener.accept().context("nobody connected")?;
        for end in [&client, &server] {
            end.set_nonblocking(false)?;
            end.set_nodelay(true)?;
        }
        Ok(Self {
            client,
            server,
            sent: 0,
        })
    }

    /// Client and server address, as the client sees them.
    ///
    /// # Errors
    /// Where the client's end is reset.
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.client.local_addr()?, self.client.peer_addr()?))
    }

    /// The client says something; whether the server heard it in time.
    pub fn client_speaks(&mut self, patience: Duration) -> bool {
        self.sent += 1;
        speak(&mut self.client, &mut self.server, self.sent, patience)
    }

    /// The server says something; whether the client heard it in time.
    pub fn server_speaks(&mut self, patience: Duration) -> bool {
        self.sent += 1;
        speak(&mut self.server, &mut self.client, self.sent, patience)
    }

    /// Each says something, the client first; whether both were heard.
    pub fn works(&mut self, patience: Duration) -> bool {
        self.client_speaks(patience) && self.server_speaks(patience)
    }
}

/// Connects within a time, from a port if it is not zero.
fn dial(source: u16, target: SocketAddr, patience: Duration) -> Result<TcpStream> {
    if source == 0 {
        return Ok(TcpStream::connect_timeout(&target, patience)?);
    }
    let (family, any) = match target.ip() {
        IpAddr::V4(_) => (AddressFamily::INET, IpAddr::from([0; 4])),
        IpAddr::V6(_) => (AddressFamily::INET6, IpAddr::from([0; 16])),
    };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    bind(&socket, &SocketAddr::new(any, source))?;
    connect(&socket, &target)?;
    Ok(socket.into())
}

/// Whether `number`, said by one, is the next that the other hears, skipping what was said before and
/// came late.
fn speak(from: &mut TcpStream, to: &mut TcpStream, number: u64, patience: Duration) -> bool {
    let heard = || -> io::Result<bool> {
        to.set_read_timeout(Some(patience))?;
        from.write_all(&number.to_be_bytes())?;
        let mut word = [0; 8];
        loop {
            to.read_exact(&mut word)?;
            if u64::from_be_bytes(word) == number {
                return Ok(true);
            }
        }
    };
    let mut heard = heard;
    heard().unwrap_or(false)
}

fn wait_for(listener: &TcpListener, patience: Duration) -> Result<()> {
    let patience = Timespec::try_from(patience)?;
    if poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience))? == 0 {
        bail!("nobody connected in time");
    }
    Ok(())
}
