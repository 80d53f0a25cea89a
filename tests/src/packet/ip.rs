//! IPv4 and IPv6 headers, and what goes into them.

use std::net::IpAddr;

use super::{
    checksum,
    transport::{Sctp, Tcp},
};

/// Which piece of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Names the datagram.
    pub id: u32,
    /// Where the piece lies, in bytes; a multiple of eight.
    pub offset: u16,
    /// Whether more follows.
    pub more: bool,
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its number as a next header: 0 hop-by-hop, 43 routing, 60 destination options, 51 authentication …
    pub kind: u8,
    /// What follows its next-header and length bytes; padded with zeros to whole units.
    pub body: Vec<u8>,
}

impl Extension {
    /// A header of that kind, 8 bytes of harmless padding options.
    #[must_use]
    pub fn padding(kind: u8) -> Self {
        Self {
            kind,
            body: vec![1, 4, 0, 0, 0, 0],
        }
    }
}

/// An IP header. [`Self::carry`] and its siblings make packets of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub source: IpAddr,
    /// Destination, of the same family.
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// IPv4 options, padded with zeros to whole words; at most 40 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers, in order; the fragment header comes after them.
    pub extensions: Vec<Extension>,
    /// The piece it is, if it is one.
    pub fragment: Option<Fragment>,
    /// What the length field says instead of the truth.
    pub total_length: Option<u16>,
    /// What the protocol field (of the last header) says instead of the truth.
    pub protocol: Option<u8>,
}

impl Ip {
    /// A header without options.
    ///
    /// # Panics
    /// Where the families differ.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one family");
        Self {
            source,
            destination,
            ttl: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            total_length: None,
            protocol: None,
        }
    }

    /// The header of what comes back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self::new(self.destination, self.source)
    }

    /// The packet that carries a payload of a protocol.
    #[must_use]
    pub fn carry(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let protocol = self.protocol.unwrap_or(protocol);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.carry_v4(source.octets(), destination.octets(), protocol, payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.carry_v6(source.octets(), destination.octets(), protocol, payload)
            }
            _ => unreachable!("checked when made"),
        }
    }

    fn carry_v4(
        &self,
        source: [u8; 4],
        destination: [u8; 4],
        protocol: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let length = 20 + options.len();
        let total = self.total_length.unwrap_or((length + payload.len()) as u16);
        let (id, position) = self.fragment.map_or((0, 0x4000), |fragment| {
            let more = if fragment.more { 0x2000 } else { 0 };
            (fragment.id as u16, more | (fragment.offset / 8))
        });
        let mut header = vec![0x40 | (length / 4) as u8, 0];
        header.extend(total.to_be_bytes());
        header.extend(id.to_be_bytes());
        header.extend(position.to_be_bytes());
        header.extend([self.ttl, protocol, 0, 0]);
        header.extend(source);
        header.extend(destination);
        header.extend(options);
        let sum = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header.extend(payload);
        header
    }

    fn carry_v6(
        &self,
        source: [u8; 16],
        destination: [u8; 16],
        protocol: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        if let Some(fragment) = self.fragment {
            let position = fragment.offset | u16::from(fragment.more);
            let body = [&position.to_be_bytes()[..], &fragment.id.to_be_bytes()].concat();
            extensions.push(Extension {
                kind: FRAGMENT,
                body,
            });
        }
        let mut chain = Vec::new();
        let mut next = extensions
            .iter()
            .map(|extension| extension.kind)
            .chain([protocol]);
        let first = next.next().unwrap_or(protocol);
        for (extension, next) in extensions.iter().zip(next) {
            let mut header = vec![next, 0];
            header.extend(&extension.body);
            header.resize(header.len().next_multiple_of(8), 0);
            header[1] = match extension.kind {
                FRAGMENT => 0,
                // RFC 4302: in words, less two.
                AUTHENTICATION => (header.len() / 4 - 2) as u8,
                _ => (header.len() / 8 - 1) as u8,
            };
            chain.extend(header);
        }
        let length = (chain.len() + payload.len()) as u16;
        let length = self.total_length.unwrap_or(length).to_be_bytes();
        [
            &[0x60, 0, 0, 0, length[0], length[1], first, self.ttl][..],
            &source,
            &destination,
            &chain,
            payload,
        ]
        .concat()
    }

    /// A TCP segment.
    #[must_use]
    pub fn tcp(&self, segment: &Tcp) -> Vec<u8> {
        self.carry(6, &self.tcp_payload(segment))
    }

    /// A TCP segment without its packet, to be carried in pieces.
    #[must_use]
    pub fn tcp_payload(&self, segment: &Tcp) -> Vec<u8> {
        let mut bytes = segment.bytes();
        let sum = self.pseudo_checksum(6, &bytes).to_be_bytes();
        bytes[16..18].copy_from_slice(&sum);
        bytes
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(&self, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
        self.carry(17, &self.udp_payload(source, destination, data))
    }

    /// A UDP datagram without its packet, to be carried in pieces.
    #[must_use]
    pub fn udp_payload(&self, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
        let length = (8 + data.len()) as u16;
        let fields = [source, destination, length, 0].map(u16::to_be_bytes);
        let mut bytes = [&fields.concat(), data].concat();
        let sum = match self.pseudo_checksum(17, &bytes) {
            // RFC 768: zero says that there is none.
            0 => 0xffff,
            sum => sum,
        };
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// An SCTP packet.
    #[must_use]
    pub fn sctp(&self, packet: &Sctp) -> Vec<u8> {
        self.carry(132, &packet.bytes())
    }

    /// An ICMP or, between IPv6 addresses, ICMPv6 message; `rest` is the second word of its header.
    #[must_use]
    pub fn icmp(&self, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        let mut bytes = [&[kind, code, 0, 0][..], &rest, data].concat();
        let (protocol, sum) = match self.source {
            IpAddr::V4(_) => (1, checksum(&[&bytes])),
            IpAddr::V6(_) => (58, self.pseudo_checksum(58, &bytes)),
        };
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        self.carry(protocol, &bytes)
    }

    /// An echo request.
    #[must_use]
    pub fn echo_request(&self, id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { 8 } else { 128 };
        self.icmp(kind, 0, echo(id, sequence), data)
    }

    /// An echo reply.
    #[must_use]
    pub fn echo_reply(&self, id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { 0 } else { 129 };
        self.icmp(kind, 0, echo(id, sequence), data)
    }

    /// The error "port unreachable", quoting the packet that caused it.
    #[must_use]
    pub fn port_unreachable(&self, quoted: &[u8]) -> Vec<u8> {
        let (kind, code) = if self.source.is_ipv4() {
            (3, 3)
        } else {
            (1, 4)
        };
        self.icmp(kind, code, [0; 4], quoted)
    }

    /// The error "fragmentation needed" or "packet too big", quoting the packet that caused it.
    #[must_use]
    pub fn too_big(&self, mtu: u16, quoted: &[u8]) -> Vec<u8> {
        let [high, low] = mtu.to_be_bytes();
        let (kind, code) = if self.source.is_ipv4() {
            (3, 4)
        } else {
            (2, 0)
        };
        self.icmp(kind, code, [0, 0, high, low], quoted)
    }

    /// A neighbour solicitation (kind 135) or advertisement (136) for a target, with the sender's link
    /// layer address.
    #[must_use]
    pub fn neighbour(&self, kind: u8, target: [u8; 16], mac: [u8; 6]) -> Vec<u8> {
        let (flags, option) = if kind == 135 { (0, 1) } else { (0x60, 2) };
        let data = [&target[..], &[option, 1], &mac].concat();
        // RFC 4861: anything else than 255 came through a router and is void.
        let header = Self {
            ttl: 255,
            ..self.clone()
        };
        header.icmp(kind, 0, [flags, 0, 0, 0], &data)
    }

    /// The payload of what a raw socket received from a peer: over IPv4 it comes with the header.
    #[must_use]
    pub fn payload_of_raw(packet: &[u8], peer: IpAddr) -> &[u8] {
        let header = match (peer, packet.first()) {
            (IpAddr::V4(_), Some(first)) => usize::from(first & 0xf) * 4,
            _ => 0,
        };
        packet.get(header..).unwrap_or_default()
    }

    /// The packets that carry a payload in pieces of at most `size` bytes, a multiple of eight.
    #[must_use]
    pub fn fragments(&self, id: u32, protocol: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let pieces = payload.chunks(size).enumerate();
        let packet = |(number, piece): (usize, &[u8])| {
            let offset = number * size;
            let fragment = Fragment {
                id,
                offset: offset as u16,
                more: offset + piece.len() < payload.len(),
            };
            let header = Self {
                fragment: Some(fragment),
                ..self.clone()
            };
            header.carry(protocol, piece)
        };
        pieces.map(packet).collect()
    }

    /// The checksum of a payload with the pseudo header before it.
    fn pseudo_checksum(&self, protocol: u8, payload: &[u8]) -> u16 {
        let length = (payload.len() as u32).to_be_bytes();
        let protocol = [0, protocol];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => checksum(&[
                &source.octets(),
                &destination.octets(),
                &protocol,
                &length,
                payload,
            ]),
            (IpAddr::V6(source), IpAddr::V6(destination)) => checksum(&[
                &source.octets(),
                &destination.octets(),
                &length,
                &protocol,
                payload,
            ]),
            _ => unreachable!("checked when made"),
        }
    }
}

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

fn echo(id: u16, sequence: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
    [a, b, c, d]
}
