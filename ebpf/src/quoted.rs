//! The packet that an ICMP error quotes.

use palisade_common::{family, protocol};

use crate::{
    packet::Bytes,
    parse::{Packet, icmp_kind, kind},
    skb::Skb,
};

/// Reads the quotation of `error` into `quoted`: addresses, protocol, ports or identifier. False if it
/// is too short, a later fragment, or if the error does not go to the quoted packet's sender, as it must.
#[inline(never)]
pub(crate) fn parse(skb: Skb, error: &Packet, quoted: &mut Packet) -> bool {
    let offset = usize::from(error.transport) + 8;
    if offset > 2048 {
        return false;
    }
    let length;
    quoted.family = error.family;
    if error.family == family::V4 {
        let Some(header) = Bytes::of(skb).at::<20>(offset) else {
            return false;
        };
        let (first, fragment) = (header.u8::<0>(), header.u16::<6>());
        length = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || length < 20 || fragment & 0x1fff_u16.to_be() != 0 {
            return false;
        }
        quoted.protocol = header.u8::<9>();
        quoted.source[0] = header.u32::<12>();
        quoted.destination[0] = header.u32::<16>();
        if quoted.source[0] != error.destination[0] {
            return false;
        }
    } else {
        let Some(header) = Bytes::of(skb).at::<40>(offset) else {
            return false;
        };
        quoted.protocol = header.u8::<6>();
        quoted.source = [
            header.u32::<8>(),
            header.u32::<12>(),
            header.u32::<16>(),
            header.u32::<20>(),
        ];
        quoted.destination = [
            header.u32::<24>(),
            header.u32::<28>(),
            header.u32::<32>(),
            header.u32::<36>(),
        ];
        length = 40;
        if quoted.source != error.destination {
            return false;
        }
    }
    let icmp = if error.family == family::V4 {
        protocol::ICMP
    } else {
        protocol::ICMPV6
    };
    match quoted.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {}
        other if other == icmp => {}
        _ => return true,
    }
    let Some(header) = Bytes::of(skb).at::<8>(offset + length) else {
        return false;
    };
    if quoted.protocol == icmp {
        let (number, identifier) = (header.u8::<0>(), header.u16::<4>());
        quoted.kind = icmp_kind(quoted.family, number);
        quoted.source_port = u16::from_be(identifier);
        return quoted.kind == kind::ECHO_REQUEST || quoted.kind == kind::ECHO_REPLY;
    }
    quoted.source_port = u16::from_be(header.u16::<0>());
    quoted.destination_port = u16::from_be(header.u16::<2>());
    true
}
