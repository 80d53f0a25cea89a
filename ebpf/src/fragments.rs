//! Fragments: the first remembers the ports for the rest.

use palisade_common::{
    key::FragmentKey,
    protocol,
    value::{Config, Ports},
};

use crate::{
    maps,
    parse::{Packet, fragment},
};

/// Seconds for which a later fragment finds its first; the kernel reassembles for 30 (ipfrag_time), IPv6
/// for 60.
const LIFETIME: u32 = 60;

/// Completes a later fragment's ports from its first, and remembers those of a first. False: a
/// later fragment whose first was not seen at this point.
#[inline(always)]
pub(crate) fn complete(config: &Config, now: u32, packet: &mut Packet, point: u16) -> bool {
    if packet.fragment == fragment::NONE {
        return true;
    }
    complete_fragment(config, now, packet, point)
}

#[inline(never)]
fn complete_fragment(config: &Config, now: u32, packet: &mut Packet, point: u16) -> bool {
    let key = FragmentKey {
        source: maps::copy(&packet.source),
        destination: maps::copy(&packet.destination),
        identification: packet.identification,
        point,
        protocol: packet.protocol,
        family: packet.family,
    };
    // ICMP has no destination port; its place carries what kind of message the first fragment was.
    let icmp = packet.protocol == protocol::ICMP || packet.protocol == protocol::ICMPV6;
    if packet.fragment == fragment::FIRST {
        let destination = if icmp {
            u16::from(packet.kind)
        } else {
            packet.destination_port
        };
        maps::set_fragment(
            &key,
            &Ports {
                source: packet.source_port,
                destination,
                seen: now,
            },
        );
        return true;
    }
    let Some(ports) = maps::fragment(&key) else {
        return false;
    };
    if now.wrapping_sub(ports.seen) > LIFETIME.wrapping_mul(config.hz) {
        return false;
    }
    packet.source_port = ports.source;
    if icmp {
        packet.kind = ports.destination as u8;
    } else {
        packet.destination_port = ports.destination;
    }
    // A later fragment opens nothing: it continues what its first has opened.
    packet.tcp_flags = crate::parse::tcp::ACK;
    true
}
