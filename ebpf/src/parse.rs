//! From bytes to a [`Packet`]. What is unusual is a named outcome, never assumed away.

use palisade_common::{
    Address, family,
    key::{ECHO_BY_LOCAL, ECHO_BY_REMOTE, FlowKey},
    protocol,
    verdict::Direction,
};

use crate::{
    packet::{Bytes, Header},
    skb::Skb,
};

/// EtherTypes as they lie in memory.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
const ARP: u32 = 0x0806_u16.to_be() as u32;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Bytes that are made linear for headers: link, IPv6 with extensions, an ICMP error's quotation.
const HEADERS: u32 = 512;
/// Extension headers walked; more is malformed.
const EXTENSIONS: u32 = 8;

/// TCP flags as on the wire.
pub(crate) mod tcp {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const ACK: u8 = 16;
}

/// What the packet is to a flow.
pub(crate) mod kind {
    /// Identified by its ports, if its protocol has any.
    pub(crate) const PLAIN: u8 = 0;
    /// ICMP echo request; the identifier is `source_port`.
    pub(crate) const ECHO_REQUEST: u8 = 1;
    /// ICMP echo reply; the identifier is `source_port`.
    pub(crate) const ECHO_REPLY: u8 = 2;
    /// An ICMP error, which quotes a packet.
    pub(crate) const ERROR: u8 = 3;
}

/// Which fragment of its datagram the packet is.
pub(crate) mod fragment {
    /// The whole datagram.
    pub(crate) const NONE: u8 = 0;
    /// The first, with the ports.
    pub(crate) const FIRST: u8 = 1;
    /// A later one: no ports.
    pub(crate) const LATER: u8 = 2;
}

/// What a frame turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Parsed {
    /// IPv4 or IPv6, all fields read.
    Ip = 0,
    /// ARP, IPv6 neighbour discovery or multicast listener discovery: always passes.
    Neighbour = 1,
    /// Neither IPv4, IPv6 nor ARP, or VLAN-tagged.
    NotIp = 2,
    /// Headers that cannot be parsed or contradict each other.
    Malformed = 3,
}

/// The fields that decide.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    /// Fragment identification, as it lies in memory.
    pub(crate) identification: u32,
    /// Host order; see [`kind`] for ICMP.
    pub(crate) source_port: u16,
    /// Host order.
    pub(crate) destination_port: u16,
    pub(crate) family: u8,
    pub(crate) protocol: u8,
    pub(crate) tcp_flags: u8,
    /// One of [`kind`].
    pub(crate) kind: u8,
    /// One of [`fragment`].
    pub(crate) fragment: u8,
    pub(crate) reserved: u8,
    /// Offset of the transport header.
    pub(crate) transport: u16,
    /// Where a number is put to be forgotten, see [`crate::maps::forget`].
    pub(crate) opaque: u64,
}

impl Packet {
    /// Nothing read yet.
    pub(crate) const EMPTY: Self = Self {
        source: [0; 4],
        destination: [0; 4],
        identification: 0,
        source_port: 0,
        destination_port: 0,
        family: 0,
        protocol: 0,
        tcp_flags: 0,
        kind: kind::PLAIN,
        fragment: fragment::NONE,
        reserved: 0,
        transport: 0,
        opaque: 0,
    };

    /// The key of its flow at a pod.
    #[inline(always)]
    pub(crate) fn key(&self, slot: u16, direction: Direction) -> FlowKey {
        let (remote, mut local_port, mut remote_port) = match direction {
            Direction::Egress => (&self.destination, self.source_port, self.destination_port),
            Direction::Ingress => (&self.source, self.destination_port, self.source_port),
        };
        if self.kind == kind::ECHO_REQUEST || self.kind == kind::ECHO_REPLY {
            let by_local =
                matches!(direction, Direction::Egress) == (self.kind == kind::ECHO_REQUEST);
            local_port = self.source_port;
            remote_port = if by_local {
                ECHO_BY_LOCAL
            } else {
                ECHO_BY_REMOTE
            };
        }
        FlowKey {
            remote: crate::maps::copy(remote),
            local_port,
            remote_port,
            slot,
            protocol: self.protocol,
            family: self.family,
        }
    }

    /// A TCP segment that asks for a connection.
    #[inline(always)]
    pub(crate) fn opens(&self) -> bool {
        self.protocol == protocol::TCP && self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// A TCP segment that belongs to a connection, or pretends to.
    #[inline(always)]
    pub(crate) fn continues(&self) -> bool {
        self.protocol == protocol::TCP && self.tcp_flags & tcp::SYN == 0
    }

    /// Whether an allowed packet without an entry starts one: an answer without a question and a reset do not.
    #[inline(always)]
    pub(crate) fn starts(&self) -> bool {
        self.kind != kind::ECHO_REPLY
            && self.kind != kind::ERROR
            && !(self.protocol == protocol::TCP && self.tcp_flags & tcp::RST != 0)
    }
}

/// Reads a packet whose link header is `link` bytes long.
#[inline(always)]
pub(crate) fn parse(skb: Skb, link: usize, packet: &mut Packet) -> Parsed {
    if skb.vlan_present() != 0 {
        return Parsed::NotIp;
    }
    let ether_type = skb.protocol();
    if ether_type == IPV4 {
        if common_v4(skb, link, packet) {
            return Parsed::Ip;
        }
        return slow(skb, link, packet, family::V4);
    }
    if ether_type == IPV6 {
        if common_v6(skb, link, packet) {
            return Parsed::Ip;
        }
        return slow(skb, link, packet, family::V6);
    }
    if ether_type == ARP {
        Parsed::Neighbour
    } else {
        Parsed::NotIp
    }
}

/// TCP or UDP over IPv4 without options, not fragmented, all headers linear.
#[inline(always)]
fn common_v4(skb: Skb, link: usize, packet: &mut Packet) -> bool {
    let Some(header) = Bytes::of(skb).at::<{ IPV4_HEADER + 20 }>(link) else {
        return false;
    };
    let (first, total, fragment, protocol) = (
        header.u8::<0>(),
        header.u16::<2>(),
        header.u16::<6>(),
        header.u8::<9>(),
    );
    let total = u32::from(u16::from_be(total));
    if first != 0x45
        || fragment & 0x3fff_u16.to_be() != 0
        || total < (IPV4_HEADER + 20) as u32
        || total + link as u32 > skb.len()
    {
        return false;
    }
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return false;
    }
    packet.source[0] = header.u32::<12>();
    packet.destination[0] = header.u32::<16>();
    packet.source_port = u16::from_be(header.u16::<20>());
    packet.destination_port = u16::from_be(header.u16::<22>());
    if protocol == protocol::TCP {
        packet.tcp_flags = header.u8::<33>();
    }
    packet.family = family::V4;
    packet.protocol = protocol;
    true
}

/// TCP or UDP over IPv6 without extension headers, all headers linear.
#[inline(always)]
fn common_v6(skb: Skb, link: usize, packet: &mut Packet) -> bool {
    let Some(header) = Bytes::of(skb).at::<{ IPV6_HEADER + 20 }>(link) else {
        return false;
    };
    let (first, payload, protocol) = (header.u8::<0>(), header.u16::<4>(), header.u8::<6>());
    let payload = u32::from(u16::from_be(payload));
    if first >> 4 != 6 || payload < 20 || payload + (IPV6_HEADER + link) as u32 > skb.len() {
        return false;
    }
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return false;
    }
    addresses_v6(header, packet);
    packet.source_port = u16::from_be(header.u16::<40>());
    packet.destination_port = u16::from_be(header.u16::<42>());
    if protocol == protocol::TCP {
        packet.tcp_flags = header.u8::<53>();
    }
    packet.family = family::V6;
    packet.protocol = protocol;
    true
}

#[inline(always)]
fn addresses_v6<const LENGTH: usize>(header: Header<LENGTH>, packet: &mut Packet) {
    packet.source = [
        header.u32::<8>(),
        header.u32::<12>(),
        header.u32::<16>(),
        header.u32::<20>(),
    ];
    packet.destination = [
        header.u32::<24>(),
        header.u32::<28>(),
        header.u32::<32>(),
        header.u32::<36>(),
    ];
}

/// Everything else.
#[inline(never)]
fn slow(skb: Skb, link: usize, packet: &mut Packet, family: u8) -> Parsed {
    skb.pull(HEADERS);
    packet.family = family;
    if family == family::V4 {
        slow_v4(skb, link, packet)
    } else {
        slow_v6(skb, link, packet)
    }
}

#[inline(always)]
fn slow_v4(skb: Skb, link: usize, packet: &mut Packet) -> Parsed {
    let Some(header) = Bytes::of(skb).at::<IPV4_HEADER>(link) else {
        return Parsed::Malformed;
    };
    let (first, total, identification, fragment) = (
        header.u8::<0>(),
        header.u16::<2>(),
        header.u16::<4>(),
        header.u16::<6>(),
    );
    packet.protocol = header.u8::<9>();
    packet.source[0] = header.u32::<12>();
    packet.destination[0] = header.u32::<16>();
    let length = usize::from(first & 0xf) * 4;
    let held = skb.len() - link as u32;
    // A large send carries 0 for a total that 16 bits cannot hold.
    let total = match u32::from(u16::from_be(total)) {
        0 if held > 0xffff => held,
        total => total,
    };
    if first >> 4 != 4 || length < IPV4_HEADER || total < length as u32 || total > held {
        return Parsed::Malformed;
    }
    let fragment = u16::from_be(fragment);
    packet.identification = u32::from(identification);
    if fragment & 0x1fff != 0 {
        return later(packet, fragment & 0x1fff);
    }
    if fragment & 0x2000 != 0 {
        packet.fragment = fragment::FIRST;
    }
    transport(skb, link + length, total - length as u32, packet, 0)
}

#[inline(always)]
fn slow_v6(skb: Skb, link: usize, packet: &mut Packet) -> Parsed {
    let Some(header) = Bytes::of(skb).at::<IPV6_HEADER>(link) else {
        return Parsed::Malformed;
    };
    let (first, payload, mut next, hops) = (
        header.u8::<0>(),
        header.u16::<4>(),
        header.u8::<6>(),
        header.u8::<7>(),
    );
    addresses_v6(header, packet);
    let held = skb.len() - link as u32;
    let total = match u32::from(u16::from_be(payload)) {
        0 if held > 0xffff => held,
        payload => payload + IPV6_HEADER as u32,
    };
    if first >> 4 != 6 || total > held {
        return Parsed::Malformed;
    }
    let end = link as u32 + total;
    let mut offset = link + IPV6_HEADER;
    for _ in 0..EXTENSIONS {
        // RFC 8200 section 4, RFC 4302, RFC 6275, RFC 7401, RFC 5533.
        let authentication = next == 51;
        match next {
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => {}
            _ => {
                packet.protocol = next;
                // A header can end past the packet only if it lied; `transport` sees nothing left.
                let left = end.saturating_sub(offset as u32);
                return transport(skb, offset, left, packet, hops);
            }
        }
        if offset > 1024 || offset as u32 + 8 > end {
            return Parsed::Malformed;
        }
        let Some(extension) = Bytes::of(skb).at::<8>(offset) else {
            return Parsed::Malformed;
        };
        let (following, length, third, word) = (
            extension.u8::<0>(),
            usize::from(extension.u8::<1>()),
            extension.u8::<3>(),
            extension.u16::<2>(),
        );
        if next == 44 {
            packet.identification = extension.u32::<4>();
            let word = u16::from_be(word);
            if word & 0xfff8 != 0 {
                packet.protocol = following;
                return later(packet, word >> 3);
            }
            if word & 1 != 0 {
                packet.fragment = fragment::FIRST;
            }
            offset += 8;
        } else if next == 43 && third != 0 {
            // A routing header with segments left: the destination is not where it ends.
            return Parsed::Malformed;
        } else if authentication {
            offset += (length + 2) * 4;
        } else {
            offset += (length + 1) * 8;
        }
        next = following;
    }
    Parsed::Malformed
}

/// A fragment after the first. One that starts within a TCP header would rewrite the flags that were
/// judged (RFC 1858).
#[inline(always)]
fn later(packet: &mut Packet, offset: u16) -> Parsed {
    if packet.protocol == protocol::TCP && offset == 1 {
        return Parsed::Malformed;
    }
    packet.fragment = fragment::LATER;
    Parsed::Ip
}

/// The transport header at `offset`, of which `left` bytes belong to the packet. `hops` is the hop limit
/// of an IPv6 packet.
#[inline(always)]
fn transport(skb: Skb, offset: usize, left: u32, packet: &mut Packet, hops: u8) -> Parsed {
    let icmp = if packet.family == family::V4 {
        protocol::ICMP
    } else {
        protocol::ICMPV6
    };
    let needed = match packet.protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        protocol::SCTP => 12,
        other if other == icmp => 8,
        _ => return Parsed::Ip,
    };
    if left < needed || offset > 2048 {
        return Parsed::Malformed;
    }
    packet.transport = offset as u16;
    if packet.protocol == protocol::TCP {
        let Some(header) = Bytes::of(skb).at::<20>(offset) else {
            return Parsed::Malformed;
        };
        packet.tcp_flags = header.u8::<13>();
    }
    let Some(header) = Bytes::of(skb).at::<8>(offset) else {
        return Parsed::Malformed;
    };
    if packet.protocol != icmp {
        packet.source_port = u16::from_be(header.u16::<0>());
        packet.destination_port = u16::from_be(header.u16::<2>());
        return Parsed::Ip;
    }
    let (kind, code, identifier) = (header.u8::<0>(), header.u8::<1>(), header.u16::<4>());
    // Discovery never leaves the link: hop limit 255 (RFC 4861), or 1 for listeners (RFC 3810).
    if packet.family == family::V6
        && ((133..=137).contains(&kind) && hops == 255 && code == 0
            || (matches!(kind, 130..=132) || kind == 143) && hops == 1)
    {
        return Parsed::Neighbour;
    }
    packet.kind = icmp_kind(packet.family, kind);
    if packet.kind == kind::ECHO_REQUEST || packet.kind == kind::ECHO_REPLY {
        packet.source_port = u16::from_be(identifier);
    }
    Parsed::Ip
}

/// RFC 792 and RFC 4443. A redirect is no error of a flow: it is judged like any ICMP.
#[inline(always)]
pub(crate) fn icmp_kind(family: u8, number: u8) -> u8 {
    if family == family::V4 {
        match number {
            8 => kind::ECHO_REQUEST,
            0 => kind::ECHO_REPLY,
            3 | 11 | 12 => kind::ERROR,
            _ => kind::PLAIN,
        }
    } else {
        match number {
            128 => kind::ECHO_REQUEST,
            129 => kind::ECHO_REPLY,
            1..=4 => kind::ERROR,
            _ => kind::PLAIN,
        }
    }
}
