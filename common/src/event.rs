//! Ring buffer records.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Address,
    abi::abi,
    verdict::{Direction, Reason},
};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// It was dropped.
    Denied = 0,
    /// It passed, the first of its flow.
    Allowed = 1,
    /// It passed because policy is in audit.
    Audited = 2,
}

impl Outcome {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Denied, Self::Allowed, Self::Audited];

    /// The name used in logs, metrics and `-o json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Allowed => "allowed",
            Self::Audited => "audited",
        }
    }

    /// The outcome of that number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() {
            Some(Self::ALL[number as usize])
        } else {
            None
        }
    }
}

/// A packet that was dropped or would have been, or the first of an allowed flow. One of a connection whose permission was
/// withdrawn is told of as who opened the connection would have sent it, whichever end did.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Event {
    /// `bpf_ktime_get_ns` at the packet, ns.
    pub time: u64,
    /// Source address.
    pub source: Address,
    /// Destination address; of a connection that was judged at the exit, the real one.
    pub destination: Address,
    /// The address that was judged as the pod's peer.
    pub peer: Address,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// The pod whose policy decided, or 0.
    pub slot: u16,
    /// Number of the [`Reason`]; 0 where it is allowed.
    pub reason: u8,
    /// Number of the [`Direction`] whose policy decided.
    pub direction: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// One of [`crate::family`], or 0 where the packet is not IP.
    pub family: u8,
    /// TCP flags as on the wire.
    pub tcp_flags: u8,
    /// Number of the [`Outcome`].
    pub outcome: u8,
    /// Length of the packet in bytes, link header included.
    pub length: u32,
}

impl Event {
    /// Reads a record; `None` if it is not of this layout.
    #[must_use]
    pub fn decode(record: &[u8]) -> Option<Self> {
        let event = Self::read_from_bytes(record).ok()?;
        Reason::from_number(event.reason)?;
        Outcome::from_number(event.outcome)?;
        (event.direction <= Direction::Egress as u8).then_some(event)
    }
}

abi! {
    Event: size 72, align 8;
}
