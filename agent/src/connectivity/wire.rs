//! What the test and `connect` in its pods say to each other, and how sockets of each protocol are made.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with},
    net::{bind, listen, sockopt},
};
use serde::{Deserialize, Serialize};

/// What is spoken.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "each is the protocol of that name")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => Err(()),
        }
    }
}

/// A line to `connect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Its number, which the answer has too.
    pub id: u64,
    /// How long to wait for the other end.
    pub patience_ms: u64,
    /// What to do.
    #[serde(flatten)]
    pub task: Task,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "task")]
pub enum Task {
    /// Reach somebody anew.
    Reach {
        /// Whom.
        target: SocketAddr,
        /// By what.
        protocol: Protocol,
        /// Whether the other end is one of ours, which says who it is; of others a connection is enough.
        speaks: bool,
        /// Whether to keep the connection, under the number of this request.
        hold: bool,
    },
    /// Reach whoever that is, and be content with any answer; tell from where it was tried.
    Probe {
        /// Whom.
        target: SocketAddr,
        /// By what.
        protocol: Protocol,
    },
    /// Find the addresses of a name, as programs of the pod do.
    Resolve {
        /// The name.
        name: String,
    },
    /// Say something on a connection that was kept.
    Speak {
        /// The number of the request that opened it.
        connection: u64,
    },
}

/// A line of `connect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The number of the request.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Who answered, and whom it saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting: Option<Greeting>,
    /// From where it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// The addresses of a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// How long it took.
    pub took_ms: u64,
}

impl Answer {
    /// Whether the other end answered.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.outcome == Outcome::Answered
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The other end answered.
    Answered,
    /// Something said no: a reset, or an ICMP error.
    Refused,
    /// A router or the own node knows no way.
    Unreachable,
    /// Nothing came back.
    Silent,
    /// This kernel has no such sockets.
    Unsupported,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Silent => "no answer",
            Self::Unsupported => "not supported by the kernel",
        })
    }
}

/// What one who listens says to whoever speaks to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Who it is.
    pub server: String,
    /// Whom it saw.
    pub client: SocketAddr,
}

/// What a line and its answer hold at most, bytes.
pub(super) const LINE: usize = 1024;

/// Whether a socket cannot be had at all.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    [
        rustix::io::Errno::PROTONOSUPPORT,
        rustix::io::Errno::SOCKTNOSUPPORT,
        rustix::io::Errno::AFNOSUPPORT,
    ]
    .iter()
    .any(|known| error.raw_os_error() == Some(known.raw_os_error()))
}

/// A stream socket of SCTP, which behaves as one of TCP from here on; not blocking.
pub(super) fn sctp(address: IpAddr) -> io::Result<std::net::TcpStream> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::SCTP))?;
    Ok(socket.into())
}

/// One that listens at every address.
pub(super) fn sctp_listener(port: u16) -> io::Result<std::net::TcpListener> {
    let wildcards = [
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
    ];
    let [both, four] = wildcards.map(|address| {
        let socket = sctp(address)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::new(address, port))?;
        listen(&socket, 64)?;
        Ok(std::net::TcpListener::from(std::os::fd::OwnedFd::from(
            socket,
        )))
    });
    both.or(four)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_and_answers_are_lines_of_json() -> serde_json::Result<()> {
        let request = Request {
            id: 7,
            patience_ms: 1000,
            task: Task::Reach {
                target: SocketAddr::from(([10, 0, 0, 1], 80)),
                protocol: Protocol::Udp,
                speaks: true,
                hold: false,
            },
        };
        let line = serde_json::to_value(&request)?;
        assert_eq!(
            line,
            json!({
                "id": 7, "patienceMs": 1000, "task": "reach", "target": "10.0.0.1:80",
                "protocol": "UDP", "speaks": true, "hold": false,
            })
        );
        assert_eq!(serde_json::from_value::<Request>(line)?, request);
        let silent = json!({ "id": 7, "outcome": "silent", "tookMs": 3 });
        let answer: Answer = serde_json::from_value(silent)?;
        assert_eq!((answer.outcome, answer.greeting), (Outcome::Silent, None));
        Ok(())
    }

    #[test]
    fn a_protocol_is_read_as_it_is_written() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!("ICMP".parse::<Protocol>(), Err(()));
    }
}
