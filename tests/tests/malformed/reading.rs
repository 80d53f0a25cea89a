//! A second reading of frames, by slices and from the words of the RFCs, to hold the programs against.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use palisade_tests::rig::{Net, Scene};

/// What a frame is to the isolated pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// What policy allows, or discovery.
    Allowed,
    /// Well understood, and not allowed.
    Denied,
    /// Not to be understood.
    Unreadable,
}

/// Reads frames of one direction, and remembers first fragments.
pub(crate) struct Reader {
    outward: bool,
    firsts: HashMap<(IpAddr, IpAddr, u32, u8), Ports>,
}

/// The ports that a first fragment named; none if its protocol has none.
type Ports = Option<u16>;

/// An IP packet's fields, and what its (last) header carries.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hops: u8,
    fragment: Option<(u32, u16, bool)>,
    carried: &'a [u8],
}

impl Reader {
    pub(crate) fn new(outward: bool) -> Self {
        Self {
            outward,
            firsts: HashMap::new(),
        }
    }

    pub(crate) fn read(&mut self, frame: &[u8]) -> Read {
        let body = &frame[14..];
        let packet = match [frame[12], frame[13]] {
            [0x08, 0x00] => v4(body),
            [0x86, 0xdd] => v6(body),
            [0x08, 0x06] => return Read::Allowed,
            _ => None,
        };
        match packet {
            Some(packet) => self.judge(&packet),
            None => Read::Unreadable,
        }
    }

    fn judge(&mut self, packet: &Packet<'_>) -> Read {
        let later = packet.fragment.is_some_and(|(_, offset, _)| offset != 0);
        let own = match packet.source {
            IpAddr::V6(source) if source.segments()[0] & 0xffc0 == 0xfe80 => true,
            source => [Net::V4.pod, Net::V6.pod].contains(&source),
        };
        let key = |id| (packet.source, packet.destination, id, packet.protocol);
        let port = if later {
            let Some((id, offset, _)) = packet.fragment else {
                return Read::Unreadable;
            };
            // RFC 1858: it would overlap the header of the first.
            if packet.protocol == 6 && offset == 1 {
                return Read::Unreadable;
            }
            match self.firsts.get(&key(id)) {
                Some(port) => *port,
                None => return Read::Unreadable,
            }
        } else {
            let needed = match packet.protocol {
                6 => 20,
                17 => 8,
                132 => 12,
                1 if packet.source.is_ipv4() => 8,
                58 if !packet.source.is_ipv4() => 8,
                _ => 0,
            };
            if packet.carried.len() < needed {
                return Read::Unreadable;
            }
            let ports = [6, 17, 132].contains(&packet.protocol);
            ports.then(|| u16::from_be_bytes([packet.carried[2], packet.carried[3]]))
        };
        if !later && packet.protocol == 58 && !packet.source.is_ipv4() && discovery(packet) {
            return Read::Allowed;
        }
        if self.outward && !own {
            return Read::Denied;
        }
        if let Some((id, 0, true)) = packet.fragment {
            self.firsts.insert(key(id), port);
        }
        let remote = if self.outward {
            packet.destination
        } else {
            packet.source
        };
        let known = match remote {
            IpAddr::V4(v4) => remote == Net::V4.peer || v4.octets()[..3] == [203, 0, 113],
            IpAddr::V6(v6) => remote == Net::V6.peer || v6.segments()[..4] == [0xfd00, 0, 0, 0x203],
        };
        // Decided where it leaves.
        let later_decided = |net: Net| [net.service, net.node].contains(&remote);
        let itself = self.outward && [Net::V4.pod, Net::V6.pod].contains(&remote);
        let put_off = self.outward && Net::BOTH.into_iter().any(later_decided);
        if known && port == Some(Scene::PORT) || put_off || itself {
            Read::Allowed
        } else {
            Read::Denied
        }
    }
}

/// RFC 4861: hop limit 255 and code 0. RFC 2710 and RFC 3810: hop limit 1.
fn discovery(packet: &Packet<'_>) -> bool {
    match packet.carried[0] {
        133..=137 => packet.hops == 255 && packet.carried[1] == 0,
        130..=132 | 143 => packet.hops == 1,
        _ => false,
    }
}

/// RFC 791.
fn v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = bytes.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || length < 20 || total < length {
        return None;
    }
    let carried = bytes.get(..total)?.get(length..)?;
    let position = u16::from_be_bytes([header[6], header[7]]);
    let (offset, more) = (position & 0x1fff, position & 0x2000 != 0);
    let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Some(Packet {
        source: address(12).into(),
        destination: address(16).into(),
        protocol: header[9],
        hops: header[8],
        fragment: (offset != 0 || more).then_some((id, offset, more)),
        carried,
    })
}

/// RFC 8200; seven extension headers and no more.
fn v6(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = bytes.first_chunk::<40>()?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 {
        return None;
    }
    let mut rest = bytes[40..].get(..payload)?;
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen");
        IpAddr::from(Ipv6Addr::from(octets))
    };
    let mut packet = Packet {
        source: address(8),
        destination: address(24),
        protocol: header[6],
        hops: header[7],
        fragment: None,
        carried: rest,
    };
    for _ in 0..8 {
        let kind = packet.protocol;
        if ![0, 43, 44, 51, 60, 135, 139, 140].contains(&kind) {
            packet.carried = rest;
            return Some(packet);
        }
        let extension = rest.first_chunk::<8>()?;
        packet.protocol = extension[0];
        let length = match kind {
            44 => {
                let position = u16::from_be_bytes([extension[2], extension[3]]);
                let id = extension[4..].try_into().expect("four");
                let (offset, more) = (position >> 3, position & 1 != 0);
                if offset != 0 {
                    packet.fragment = Some((u32::from_be_bytes(id), offset, more));
                    packet.carried = &rest[8..];
                    return Some(packet);
                }
                if more {
                    packet.fragment = Some((u32::from_be_bytes(id), 0, true));
                }
                8
            }
            43 if extension[3] != 0 => return None,
            51 => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        // A header that ends past the packet: what it claims to carry is not there.
        rest = rest.get(length..).unwrap_or(&[]);
    }
    None
}
