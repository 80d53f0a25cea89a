//! `palisade connectivity connect`: reaches whom its input names, and says what came of it.

use std::{
    collections::HashMap,
    future::Future,
    io::{self, BufRead as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::mpsc,
};

use super::wire::{Answer, Greeting, LINE, Outcome, Protocol, Request, Task, is_unsupported, sctp};

/// How long after a datagram without an answer the next is sent.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers every line of the standard input, each when it is done, until the input ends.
///
/// # Errors
///
/// A line is no request, or nobody hears the answers.
pub async fn connect() -> anyhow::Result<()> {
    let (tell, mut told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let request = line.and_then(|line| Ok(serde_json::from_str::<Request>(&line)?));
            let last = request.is_err();
            if tell.send(request).is_err() || last {
                return;
            }
        }
    });
    let held = Held::default();
    while let Some(request) = told.recv().await {
        let (request, held) = (request?, held.clone());
        tokio::spawn(async move {
            let answer = carry_out(&request, &held).await;
            // Where nobody hears it, the input ends too.
            drop(say(&answer));
        });
    }
    Ok(())
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Connections that were kept, by the numbers of their requests.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<HashMap<u64, Connection>>>);

impl Held {
    fn put(&self, id: u64, connection: Connection) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id, connection);
    }

    fn take(&self, id: u64) -> Option<Connection> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&id)
    }
}

enum Connection {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

async fn carry_out(request: &Request, held: &Held) -> Answer {
    let begun = Instant::now();
    let patience = Duration::from_millis(request.patience_ms);
    let (mut local, mut addresses) = (None, Vec::new());
    let said = match request.task {
        Task::Probe { target, protocol } => {
            let tried = probe(target, protocol, &mut local);
            within(patience, tried).await.map(|()| None)
        }
        Task::Resolve { ref name } => match within(patience, resolve(name)).await {
            Ok(found) => {
                addresses = found;
                Ok(None)
            }
            Err(outcome) => Err(outcome),
        },
        Task::Reach {
            target,
            protocol,
            speaks,
            hold,
        } => match within(patience, open(target, protocol)).await {
            Ok(mut connection) => {
                let left = patience.saturating_sub(begun.elapsed());
                let said = match speaks {
                    true => within(left, connection.speak()).await.map(Some),
                    false => Ok(None),
                };
                if hold {
                    held.put(request.id, connection);
                }
                said
            }
            Err(outcome) => Err(outcome),
        },
        Task::Speak { connection: id } => match held.take(id) {
            Some(mut connection) => {
                let said = within(patience, connection.speak()).await;
                held.put(id, connection);
                said.map(Some)
            }
            None => Err(Outcome::Refused),
        },
    };
    let (outcome, greeting) = match said {
        Ok(greeting) => (Outcome::Answered, greeting),
        Err(outcome) => (outcome, None),
    };
    Answer {
        id: request.id,
        outcome,
        greeting,
        local,
        addresses,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

async fn within<T>(
    patience: Duration,
    attempt: impl Future<Output = io::Result<T>>,
) -> Result<T, Outcome> {
    match tokio::time::timeout(patience, attempt).await {
        Ok(done) => done.map_err(|error| outcome(&error)),
        Err(_elapsed) => Err(Outcome::Silent),
    }
}

fn outcome(error: &io::Error) -> Outcome {
    let is = |known: Errno| error.raw_os_error() == Some(known.raw_os_error());
    match () {
        () if is_unsupported(error) => Outcome::Unsupported,
        () if is(Errno::TIMEDOUT) => Outcome::Silent,
        () if [
            Errno::HOSTUNREACH,
            Errno::NETUNREACH,
            Errno::ACCESS,
            Errno::PERM,
        ]
        .into_iter()
        .any(is) =>
        {
            Outcome::Unreachable
        }
        () => Outcome::Refused,
    }
}

async fn open(target: SocketAddr, protocol: Protocol) -> io::Result<Connection> {
    Ok(match protocol {
        Protocol::Tcp => Connection::Stream(TcpStream::connect(target).await?),
        Protocol::Sctp => {
            let socket = TcpSocket::from_std_stream(sctp(target.ip())?);
            Connection::Stream(socket.connect(target).await?)
        }
        Protocol::Udp => Connection::Datagrams(datagrams(target).await?),
    })
}

async fn datagrams(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(any_port(target)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Any address and any port of the target's family.
fn any_port(target: SocketAddr) -> SocketAddr {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(any, 0)
}

/// Reaches whoever that is. By UDP any answer counts, also to what is said again and again. From where is known before
/// anything is sent.
async fn probe(
    target: SocketAddr,
    protocol: Protocol,
    local: &mut Option<SocketAddr>,
) -> io::Result<()> {
    let socket = match protocol {
        Protocol::Udp => {
            let socket = datagrams(target).await?;
            *local = Some(socket.local_addr()?);
            let mut buffer = [0; LINE];
            loop {
                socket.send(b"?\n").await?;
                if let Ok(received) = tokio::time::timeout(AGAIN, socket.recv(&mut buffer)).await {
                    return received.map(drop);
                }
            }
        }
        Protocol::Tcp if target.is_ipv4() => TcpSocket::new_v4()?,
        Protocol::Tcp => TcpSocket::new_v6()?,
        Protocol::Sctp => TcpSocket::from_std_stream(sctp(target.ip())?),
    };
    socket.bind(any_port(target))?;
    *local = Some(socket.local_addr()?);
    let stream = socket.connect(target).await?;
    *local = Some(stream.local_addr()?);
    Ok(())
}

/// The addresses of a name, as the pod's own resolver has them.
async fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

impl Connection {
    /// Says something, and hears who answers.
    async fn speak(&mut self) -> io::Result<Greeting> {
        let mut buffer = [0; LINE];
        let length = match self {
            Self::Stream(stream) => {
                stream.write_all(b"?\n").await?;
                stream.read(&mut buffer).await?
            }
            Self::Datagrams(socket) => loop {
                socket.send(b"?\n").await?;
                if let Ok(received) = tokio::time::timeout(AGAIN, socket.recv(&mut buffer)).await {
                    break received?;
                }
            },
        };
        if length == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        // Answers to what was said before, and lost on the way, may come with it.
        let line = buffer[..length].split(|byte| *byte == b'\n').next();
        Ok(serde_json::from_slice(line.unwrap_or_default())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::serve::serve;

    /// A port that nobody serves at this moment.
    fn free_port() -> io::Result<u16> {
        Ok(std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port())
    }

    fn reach(id: u64, port: u16, protocol: Protocol, hold: bool) -> Request {
        Request {
            id,
            patience_ms: 5000,
            task: Task::Reach {
                target: SocketAddr::from(([127, 0, 0, 1], port)),
                protocol,
                speaks: true,
                hold,
            },
        }
    }

    #[tokio::test]
    async fn whoever_listens_tells_who_it_is_and_whom_it_sees() -> anyhow::Result<()> {
        let port = free_port()?;
        let server = tokio::spawn(async move { serve("x/b", &[port]).await });
        let held = Held::default();
        // It may take a moment to listen.
        while carry_out(&reach(0, port, Protocol::Tcp, false), &held)
            .await
            .outcome
            != Outcome::Answered
        {
            anyhow::ensure!(!server.is_finished(), "the server has ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (id, protocol) in [(1, Protocol::Tcp), (2, Protocol::Udp)] {
            let first = carry_out(&reach(id, port, protocol, true), &held).await;
            let speak = Request {
                id: id + 10,
                patience_ms: 5000,
                task: Task::Speak { connection: id },
            };
            let second = carry_out(&speak, &held).await;
            let first = first.greeting.expect("an answer");
            assert_eq!(
                (first.server.as_str(), first.client.ip().is_loopback()),
                ("x/b", true)
            );
            // The same connection: the server sees the same port.
            assert_eq!(second.greeting, Some(first), "{protocol}");
        }
        server.abort();
        Ok(())
    }

    #[tokio::test]
    async fn where_nobody_listens_the_attempt_is_refused() -> anyhow::Result<()> {
        let port = free_port()?;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let answer = carry_out(&reach(1, port, protocol, false), &Held::default()).await;
            assert_eq!(answer.outcome, Outcome::Refused, "{protocol}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_probe_tells_from_where_it_was_tried() -> anyhow::Result<()> {
        let port = free_port()?;
        let task = |protocol| Task::Probe {
            target: SocketAddr::from(([127, 0, 0, 1], port)),
            protocol,
        };
        let probe = async |protocol| {
            let request = Request {
                id: 1,
                patience_ms: 300,
                task: task(protocol),
            };
            carry_out(&request, &Held::default()).await
        };
        let refused = probe(Protocol::Tcp).await;
        assert_eq!(refused.outcome, Outcome::Refused);
        assert!(refused.local.is_some_and(|local| local.port() > 0));
        // One that listens, and says nothing.
        let _server = (
            std::net::TcpListener::bind(("127.0.0.1", port))?,
            std::net::UdpSocket::bind(("127.0.0.1", port))?,
        );
        let answered = probe(Protocol::Tcp).await;
        assert_eq!(answered.outcome, Outcome::Answered);
        assert!(answered.local.is_some_and(|local| local.ip().is_loopback()));
        let silent = probe(Protocol::Udp).await;
        assert_eq!(silent.outcome, Outcome::Silent);
        assert!(silent.local.is_some_and(|local| local.port() > 0));
        Ok(())
    }

    #[tokio::test]
    async fn a_name_has_the_addresses_that_the_resolver_knows() {
        let resolve = async |name: &str| {
            let request = Request {
                id: 1,
                patience_ms: 5000,
                task: Task::Resolve {
                    name: name.to_owned(),
                },
            };
            carry_out(&request, &Held::default()).await
        };
        let found = resolve("localhost").await;
        assert!(found.addresses.iter().all(IpAddr::is_loopback));
        assert!(!found.addresses.is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_is_not_held_cannot_be_spoken_on() {
        let speak = Request {
            id: 1,
            patience_ms: 10,
            task: Task::Speak { connection: 9 },
        };
        let answer = carry_out(&speak, &Held::default()).await;
        assert_eq!(answer.outcome, Outcome::Refused);
    }
}
