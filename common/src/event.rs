//! Ring buffer records.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Address,
    abi::abi,
    verdict::{Direction, Reason},
};

/// A packet that was dropped, or the first of an allowed flow.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Event {
    /// `bpf_ktime_get_ns` at the packet, ns.
    pub time: u64,
    /// Source address in the packet.
    pub source: Address,
    /// Destination address in the packet.
    pub destination: Address,
    /// The address that was judged as the pod's peer.
    pub peer: Address,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// The pod whose policy decided, or 0.
    pub slot: u16,
    /// Number of the [`Reason`], or [`Event::ALLOWED`].
    pub reason: u8,
    /// Number of the [`Direction`].
    pub direction: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// One of [`crate::family`], or 0 where the packet is not IP.
    pub family: u8,
    /// TCP flags as on the wire.
    pub tcp_flags: u8,
    /// Reserved, 0.
    pub reserved: u8,
    /// Length of the packet in bytes, link header included.
    pub length: u32,
}

impl Event {
    /// `reason` of an allowed packet.
    pub const ALLOWED: u8 = 0xff;

    /// Reads a record; `None` if it is not of this layout.
    #[must_use]
    pub fn decode(record: &[u8]) -> Option<Self> {
        let event = Self::read_from_bytes(record).ok()?;
        let known = event.reason == Self::ALLOWED || Reason::from_number(event.reason).is_some();
        (known && event.direction <= Direction::Egress as u8).then_some(event)
    }
}

abi! {
    Event: size 72, align 8;
}
