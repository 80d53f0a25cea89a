//! Reading what a lab's wire carried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ether_type;

/// A received packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Protocol, after the extension headers that were there.
    pub protocol: u8,
    /// Offset of a fragment, in bytes.
    pub offset: u16,
    /// What the packet carries, as long as its header says.
    pub payload: Vec<u8>,
}

impl Seen {
    /// Source and destination port, where the payload begins with them.
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        if self.offset != 0 || ![6, 17, 132].contains(&self.protocol) {
            return None;
        }
        let [a, b, c, d] = *self.payload.first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

/// Reads an Ethernet frame; `None` for what is no IP or is cut off.
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Seen> {
    let mut at = 12;
    let mut kind = half(frame, at)?;
    if kind == ether_type::VLAN {
        at += 4;
        kind = half(frame, at)?;
    }
    let packet = frame.get(at + 2..)?;
    match kind {
        ether_type::IPV4 => parse_v4(packet),
        ether_type::IPV6 => parse_v6(packet),
        _ => None,
    }
}

fn parse_v4(packet: &[u8]) -> Option<Seen> {
    let length = usize::from(packet.first()? & 0xf) * 4;
    let total = usize::from(half(packet, 2)?);
    Some(Seen {
        source: Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?).into(),
        destination: Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?).into(),
        protocol: *packet.get(9)?,
        offset: (half(packet, 6)? & 0x1fff) * 8,
        payload: packet.get(length..total)?.to_vec(),
    })
}

fn parse_v6(packet: &[u8]) -> Option<Seen> {
    let mut payload = packet.get(40..40 + usize::from(half(packet, 4)?))?;
    let mut protocol = *packet.get(6)?;
    let mut offset = 0;
    while [0, 43, 44, 60].contains(&protocol) {
        let length = if protocol == 44 {
            offset = half(payload, 2)? & !7;
            8
        } else {
            usize::from(*payload.get(1)?) * 8 + 8
        };
        protocol = *payload.first()?;
        payload = payload.get(length..)?;
        if offset != 0 {
            break;
        }
    }
    Some(Seen {
        source: Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?).into(),
        destination: Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?).into(),
        protocol,
        offset,
        payload: payload.to_vec(),
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
