//! Frames made by hand, for test runs of the programs and for the wires of the lab.
//!
//! Everything is right unless told otherwise: lengths, checksums, protocol numbers. What is to be
//! wrong is set explicitly ([`Ip::total_length`], [`Ip::protocol`]) or cut off the finished bytes.

pub use self::{
    ip::{Extension, Fragment, Ip},
    parse::{Seen, parse},
    transport::{Sctp, Tcp, crc32c},
};
use crate::lab::Mac;

mod ip;
mod parse;
mod transport;

/// EtherTypes.
mod ether_type {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const IPV6: u16 = 0x86dd;
}

/// An Ethernet frame around a packet, whose first byte says which IP it is.
#[must_use]
pub fn ethernet(source: Mac, destination: Mac, packet: &[u8]) -> Vec<u8> {
    let kind = match packet.first().map(|byte| byte >> 4) {
        Some(6) => ether_type::IPV6,
        _ => ether_type::IPV4,
    };
    frame(source, destination, kind, packet)
}

/// An Ethernet frame of any EtherType.
#[must_use]
pub fn frame(source: Mac, destination: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&destination, &source, &kind.to_be_bytes()[..], payload].concat()
}

/// The frame with an 802.1Q tag.
#[must_use]
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let (kind, vlan) = (ether_type::VLAN.to_be_bytes(), vlan.to_be_bytes());
    [addresses, &kind, &vlan, rest].concat()
}

/// An ARP request (RFC 826) for `target`, sent to everybody.
#[must_use]
pub fn arp_request(source: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let request = [0, 1, 8, 0, 6, 4, 0, 1];
    let payload = [&request[..], &source, &sender, &[0; 6], &target].concat();
    frame(source, [0xff; 6], ether_type::ARP, &payload)
}

/// The Internet checksum (RFC 1071) of some bytes.
#[must_use]
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests;
