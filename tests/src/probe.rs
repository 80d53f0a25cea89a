//! Who reaches whom, found out with real packets.

use std::fmt;

use serde::Deserialize;

pub use self::{
    client::{Attempt, Outcome, Report, attempt},
    connection::Connection,
    matrix::{Expected, Matrix, Mismatch},
    server::Servers,
    stream::{Loss, Ports, Stream},
    survey::{Check, Patience},
    wire::Wire,
};

mod client;
mod connection;
mod matrix;
mod server;
mod socket;
mod stream;
mod survey;
mod wire;

/// What a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// A connection, a line and its answer.
    Tcp,
    /// A datagram and its answer.
    Udp,
    /// INIT and INIT-ACK; the kernel need not know the protocol.
    Sctp,
    /// Echo, of the family's ICMP; the port does not matter and the kernel answers.
    Icmp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        })
    }
}
