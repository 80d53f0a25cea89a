//! A second reading of frames, by slices and from the words of the RFCs, to hold the programs against.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{Net, Program, Scene};

/// What a frame is to the pod under policy of a [`Scene`], whom policy isolates in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// What policy allows, or discovery.
    Allowed,
    /// Well understood, and not allowed.
    Denied,
    /// Not from the address of the pod that sends it.
    Spoofed,
    /// Not to be understood.
    Unreadable,
}

/// The two ends of a flow, as a packet of it says. An echo's ports say the identifier and which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Source address and port.
    pub source: (IpAddr, u32),
    /// Destination address and port.
    pub destination: (IpAddr, u32),
    /// Protocol number.
    pub protocol: u8,
}

impl Ends {
    /// Of a packet the other way.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
        }
    }
}

/// All that is read of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it is to the pod.
    pub read: Read,
    /// The flow it is of, if it is IP and understood.
    pub ends: Option<Ends>,
    /// The flow of the packet that it quotes, if it is an ICMP error.
    pub quoted: Option<Ends>,
}

impl Reading {
    const fn of(read: Read) -> Self {
        Self {
            read,
            ends: None,
            quoted: None,
        }
    }
}

/// Reads the frames that come by one program, and remembers first fragments.
#[derive(Debug)]
pub struct Reader {
    at: Program,
    firsts: HashMap<(IpAddr, IpAddr, u32, u8), Ends>,
}

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
    /// A reader that has seen nothing yet.
    #[must_use]
    pub fn new(at: Program) -> Self {
        Self {
            at,
            firsts: HashMap::new(),
        }
    }

    /// Reads an Ethernet frame.
    pub fn read(&mut self, frame: &[u8]) -> Reading {
        let Some((link, body)) = frame.split_at_checked(14) else {
            return Reading::of(Read::Unreadable);
        };
        let packet = match [link[12], link[13]] {
            [0x08, 0x00] => v4(body),
            [0x86, 0xdd] => v6(body),
            [0x08, 0x06] => return Reading::of(Read::Allowed),
            _ => None,
        };
        match packet {
            Some(packet) => self.judge(&packet),
            None => Reading::of(Read::Unreadable),
        }
    }

    fn judge(&mut self, packet: &Packet<'_>) -> Reading {
        let later = packet.fragment.is_some_and(|(_, offset, _)| offset != 0);
        let own = match packet.source {
            IpAddr::V6(source) if source.segments()[0] & 0xffc0 == 0xfe80 => true,
            source => [Net::V4.pod, Net::V6.pod].contains(&source),
        };
        let outward = self.at != Program::ToPod;
        let spoofed = self.at == Program::FromPod && !own;
        let key = |id| (packet.source, packet.destination, id, packet.protocol);
        let ends = if later {
            let Some((id, offset, _)) = packet.fragment else {
                return Reading::of(Read::Unreadable);
            };
            // RFC 1858: it would overlap the header of the first.
            if packet.protocol == 6 && offset == 1 {
                return Reading::of(Read::Unreadable);
            }
            match self.firsts.get(&key(id)) {
                _ if spoofed => return Reading::of(Read::Spoofed),
                Some(ends) => *ends,
                None => return Reading::of(Read::Unreadable),
            }
        } else {
            match packet.ends() {
                Some(ends) => ends,
                None => return Reading::of(Read::Unreadable),
            }
        };
        if !later && packet.protocol == 58 && !packet.source.is_ipv4() && discovery(packet) {
            return Reading::of(Read::Allowed);
        }
        if spoofed {
            return Reading::of(Read::Spoofed);
        }
        if let Some((id, 0, true)) = packet.fragment {
            self.firsts.insert(key(id), ends);
        }
        let remote = if outward {
            packet.destination
        } else {
            packet.source
        };
        let known = match remote {
            IpAddr::V4(v4) => remote == Net::V4.peer || v4.octets()[..3] == [203, 0, 113],
            IpAddr::V6(v6) => remote == Net::V6.peer || v6.segments()[..4] == [0xfd00, 0, 0, 0x203],
        };
        // Decided where it leaves.
        let put_off = self.at == Program::FromPod && may_be_translated(remote);
        let itself = outward && [Net::V4.pod, Net::V6.pod].contains(&remote);
        let to_port = packet.has_ports() && ends.destination.1 == u32::from(Scene::PORT);
        let read = if known && to_port || put_off || itself {
            Read::Allowed
        } else {
            Read::Denied
        };
        Reading {
            read,
            ends: Some(ends),
            quoted: if later { None } else { packet.quoted() },
        }
    }
}

/// Whether a packet to that address may go elsewhere in truth: to a Service's, or to the node's.
#[must_use]
pub fn may_be_translated(address: IpAddr) -> bool {
    let nets = Net::BOTH.into_iter();
    nets.flat_map(|net| [net.service, net.node])
        .any(|translated| translated == address)
}

impl Packet<'_> {
    fn has_ports(&self) -> bool {
        [6, 17, 132].contains(&self.protocol)
    }

    fn is_icmp(&self) -> bool {
        self.protocol == if self.source.is_ipv4() { 1 } else { 58 }
    }

    /// `None` where the transport's header is not whole.
    fn ends(&self) -> Option<Ends> {
        let needed = match self.protocol {
            6 => 20,
            17 => 8,
            132 => 12,
            _ if self.is_icmp() => 8,
            _ => 0,
        };
        (self.carried.len() >= needed).then(|| self.ends_of(self.carried))
    }

    /// By a transport header, of which the first eight bytes are there if there is one at all.
    fn ends_of(&self, header: &[u8]) -> Ends {
        let (from, to) = if self.has_ports() {
            let port = |at: usize| u32::from(u16::from_be_bytes([header[at], header[at + 1]]));
            (port(0), port(2))
        } else if self.is_icmp() {
            let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
            let (asks, answers) = (0x1_0000 | id, 0x2_0000 | id);
            match (header[0], self.source.is_ipv4()) {
                (8, true) | (128, false) => (asks, answers),
                (0, true) | (129, false) => (answers, asks),
                _ => (0, 0),
            }
        } else {
            (0, 0)
        };
        Ends {
            source: (self.source, from),
            destination: (self.destination, to),
            protocol: self.protocol,
        }
    }

    /// RFC 792 and RFC 4443: an error goes to who sent the packet that it quotes, and quotes at least eight bytes of
    /// what that carried.
    fn quoted(&self) -> Option<Ends> {
        let error = match (self.carried.first()?, self.source.is_ipv4()) {
            (3 | 11 | 12, true) | (1..=4, false) => self.is_icmp(),
            _ => false,
        };
        let inner = self.carried.get(8..).filter(|_| error)?;
        let (length, protocol) = if self.source.is_ipv4() {
            let header = inner.first_chunk::<20>()?;
            let length = usize::from(header[0] & 0xf) * 4;
            let whole = header[0] >> 4 == 4 && length >= 20;
            let first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
            (whole && first).then_some((length, header[9]))?
        } else {
            (40, inner.first_chunk::<40>()?[6])
        };
        let address = |at: usize| match self.source {
            IpAddr::V4(_) => v4_address(&inner[12 + 4 * at..]),
            IpAddr::V6(_) => v6_address(&inner[8 + 16 * at..]),
        };
        let packet = Packet {
            source: address(0),
            destination: address(1),
            protocol,
            hops: 0,
            fragment: None,
            carried: inner.get(length..).unwrap_or(&[]),
        };
        let speaks = packet.has_ports() || packet.is_icmp();
        let there = !speaks || packet.carried.len() >= 8;
        (there && packet.source == self.destination).then(|| packet.ends_of(packet.carried))
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

fn v4_address(bytes: &[u8]) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(*bytes.first_chunk().expect("four bytes")))
}

fn v6_address(bytes: &[u8]) -> IpAddr {
    let octets: [u8; 16] = *bytes.first_chunk().expect("sixteen bytes");
    IpAddr::from(Ipv6Addr::from(octets))
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
    Some(Packet {
        source: v4_address(&header[12..]),
        destination: v4_address(&header[16..]),
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
    let mut packet = Packet {
        source: v6_address(&header[8..]),
        destination: v6_address(&header[24..]),
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
