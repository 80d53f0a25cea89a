//! What a hostile pod sends to one that takes TCP and UDP of it at one port, and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use palisade_tests::{
    lab::Mac,
    packet::{Extension, Fragment, Ip, Sctp, Tcp, ethernet, frame, tagged},
};

/// The port that policy allows, and one that it does not.
pub(crate) const OPEN: u16 = 9009;
pub(crate) const SHUT: u16 = 9010;
/// The sender's link layer address, by which the frames are known where they arrive.
pub(crate) const FORGED: Mac = [0x0a, 0x66, 6, 6, 6, 6];
const OWN: u16 = 4000;

/// One frame.
pub(crate) struct Try {
    /// Which row of the table it belongs to.
    pub(crate) what: &'static str,
    /// What is sent.
    pub(crate) frame: Vec<u8>,
    /// Whether policy allows it, or it is none of policy's business.
    pub(crate) passes: bool,
}

/// Who is there, of one family.
pub(crate) struct Ends {
    /// The hostile pod.
    pub(crate) from: IpAddr,
    /// Whom it is after.
    pub(crate) to: IpAddr,
    /// Whom that one trusts.
    pub(crate) friend: IpAddr,
    /// An address of their network that no pod has.
    pub(crate) nobody: IpAddr,
    /// Their node.
    pub(crate) node: IpAddr,
    /// The link layer address of `to`.
    pub(crate) mac: Mac,
}

/// All of it; what others have remembered of an earlier round is not what this one is about.
pub(crate) fn tries(ends: &Ends, round: u16) -> Vec<Try> {
    let mut tries = Tries {
        ends,
        round,
        all: Vec::new(),
    };
    tries.plain();
    tries.spoofed();
    tries.fragments();
    if ends.from.is_ipv4() {
        tries.options();
    } else {
        tries.extensions();
    }
    tries.tunnels();
    tries.link();
    tries.cut();
    tries.segments();
    tries.icmp();
    tries.neighbours();
    tries.all
}

struct Tries<'a> {
    ends: &'a Ends,
    round: u16,
    all: Vec<Try>,
}

impl Tries<'_> {
    fn frame(&mut self, what: &'static str, passes: bool, frame: Vec<u8>) {
        self.all.push(Try {
            what,
            frame,
            passes,
        });
    }

    fn packet(&mut self, what: &'static str, passes: bool, packet: &[u8]) {
        let mac = self.ends.mac;
        self.frame(what, passes, ethernet(FORGED, mac, packet));
    }

    fn ip(&self) -> Ip {
        Ip::new(self.ends.from, self.ends.to)
    }

    fn syn(&self, port: u16) -> Vec<u8> {
        self.ip().tcp(&Tcp::new(OWN, port, Tcp::SYN))
    }

    /// What the others are measured by.
    fn plain(&mut self) {
        for (port, passes) in [(OPEN, true), (SHUT, false)] {
            let syn = self.syn(port);
            self.packet("plain packets", passes, &syn);
            let datagram = self.ip().udp(OWN, port, b"hostile");
            self.packet("plain packets", passes, &datagram);
            let init = Sctp::opening(Sctp::INIT, OWN, port, 0, 1);
            let init = self.ip().sctp(&init);
            self.packet("plain packets", false, &init);
        }
    }

    fn spoofed(&mut self) {
        const WHAT: &str = "spoofed sources";
        let Ends {
            to, friend, node, ..
        } = *self.ends;
        let special: [IpAddr; 5] = if to.is_ipv4() {
            [[127, 0, 0, 1], [0; 4], [255; 4], [224, 0, 0, 1], [8; 4]]
                .map(|octets| Ipv4Addr::from(octets).into())
        } else {
            ["::1", "::", "ff02::1", "::ffff:10.0.0.1", "2001:db8::1"]
                .map(|text| text.parse::<Ipv6Addr>().expect("an address").into())
        };
        for source in [friend, node, to].into_iter().chain(special) {
            for port in [OPEN, SHUT, 9002] {
                let ip = Ip::new(source, to);
                self.packet(WHAT, false, &ip.udp(OWN, port, b"hostile"));
                for flags in [Tcp::SYN, Tcp::ACK, Tcp::RST] {
                    self.packet(WHAT, false, &ip.tcp(&Tcp::new(OWN, port, flags)));
                }
            }
        }
        if to.is_ipv6() {
            // Each interface makes its own; policy takes it for a stranger's.
            let local = Ip::new("fe80::66".parse().expect("an address"), to);
            self.packet(WHAT, false, &local.udp(OWN, SHUT, b"hostile"));
        }
    }

    fn piece(&self, id: u16, offset: u16, more: bool) -> Ip {
        let id = u32::from(id * 1000 + self.round);
        Ip {
            fragment: Some(Fragment { id, offset, more }),
            ..self.ip()
        }
    }

    fn fragments(&mut self) {
        const WHAT: &str = "fragments";
        let ip = self.ip();
        let [open, shut] = [OPEN, SHUT].map(|port| ip.udp_payload(OWN, port, &[7; 56]));
        let carry = |piece: Ip, payload: &[u8]| piece.carry(17, payload);
        let later = |id, offset| carry(self.piece(id, offset, false), &open[32..]);
        let first = |id, of: &[u8]| carry(self.piece(id, 0, true), &of[..32]);
        let sent = vec![
            // The first is not there, comes late, or not at all.
            (false, later(1, 32)),
            (true, first(1, &open)),
            (true, later(1, 32)),
            (false, later(2, 32)),
            (false, carry(self.piece(2, 64, true), &open[32..])),
            // One that policy denies takes the rest along, whatever came before.
            (false, first(3, &shut)),
            (false, later(3, 32)),
            (true, first(4, &open)),
            (false, first(4, &shut)),
            (false, later(4, 32)),
            // It overlaps: what was judged stays in front.
            (true, first(5, &open)),
            (false, carry(self.piece(5, 0, false), &shut)),
            (true, later(5, 8)),
            // Another protocol's, and a first that says it is whole.
            (true, first(6, &open)),
            (false, self.piece(6, 32, false).carry(6, &open[32..])),
            (false, self.piece(6, 32, false).carry(132, &open[32..])),
            (false, carry(self.piece(7, 0, false), &shut)),
            (true, carry(self.piece(8, 0, false), &open)),
        ];
        for (passes, packet) in sent {
            self.packet(WHAT, passes, &packet);
        }
        // RFC 1858: a TCP header in two pieces, and a second that would write other flags into it.
        let [open, shut] = [OPEN, SHUT].map(|port| ip.tcp_payload(&Tcp::new(OWN, port, Tcp::SYN)));
        for (id, segment) in [(10, &open), (11, &shut)] {
            let tiny = self.piece(id, 0, true).carry(6, &segment[..8]);
            let rest = self.piece(id, 8, false).carry(6, &segment[8..]);
            self.packet(WHAT, false, &tiny);
            self.packet(WHAT, false, &rest);
        }
        let whole = self.piece(12, 0, true).carry(6, &open);
        let flags = self.piece(12, 8, false).carry(6, &open[8..]);
        self.packet(WHAT, true, &whole);
        self.packet(WHAT, false, &flags);
        // Echo in pieces.
        let echo = self
            .piece(13, 0, true)
            .carry(if ip.source.is_ipv4() { 1 } else { 58 }, &[8; 32]);
        self.packet(WHAT, false, &echo);
    }

    /// IPv4: what lies between the header and the ports.
    fn options(&mut self) {
        const WHAT: &str = "options and extension headers";
        let friend = match self.ends.friend {
            IpAddr::V4(friend) => friend.octets(),
            IpAddr::V6(_) => return,
        };
        let route = |kind: u8| [&[kind, 7, 4][..], &friend].concat();
        let many = [
            vec![1; 40],
            vec![7, 39, 4],
            vec![68, 12, 5, 0],
            // A length of zero, and one past the end.
            vec![130, 0, 0, 0],
            vec![130, 99, 0, 0],
            route(131),
            route(137),
        ];
        for options in many {
            let ip = Ip {
                options,
                ..self.ip()
            };
            self.packet(WHAT, false, &ip.udp(OWN, SHUT, b"hostile"));
            self.packet(WHAT, false, &ip.tcp(&Tcp::new(OWN, SHUT, Tcp::SYN)));
        }
        // Ports where they would be without options.
        let ip = Ip {
            options: [OWN.to_be_bytes(), OPEN.to_be_bytes()].concat(),
            ..self.ip()
        };
        self.packet(WHAT, false, &ip.udp(OWN, SHUT, b"hostile"));
    }

    /// IPv6: chains of headers.
    fn extensions(&mut self) {
        const WHAT: &str = "options and extension headers";
        let chain = |kinds: &[u8]| kinds.iter().map(|&kind| Extension::padding(kind)).collect();
        let mut chains: Vec<(bool, Vec<Extension>)> = vec![
            (true, chain(&[60])),
            (true, chain(&[0, 60, 60])),
            (true, chain(&[60; 7])),
            (false, chain(&[60; 8])),
            (false, chain(&[60; 20])),
            (false, chain(&[60, 253])),
            (false, chain(&[59])),
            (true, chain(&[139, 140, 135])),
        ];
        // Segments left: the destination is not where it ends.
        for kind in [0, 2, 4] {
            let body = vec![kind, 1, 0, 0, 0, 0];
            chains.push((false, vec![Extension { kind: 43, body }]));
        }
        // One that says it is longer than the packet.
        for (passes, extensions) in chains {
            let ip = Ip {
                extensions,
                ..self.ip()
            };
            self.packet(WHAT, passes, &ip.udp(OWN, OPEN, b"hostile"));
            self.packet(WHAT, false, &ip.udp(OWN, SHUT, b"hostile"));
            let mut lies = ip.udp(OWN, OPEN, b"hostile");
            lies[41] = 200;
            self.packet(WHAT, false, &lies);
        }
        // A header behind the fragment header hides what the first fragment carries from the later ones.
        let hidden = Ip {
            extensions: vec![
                Extension {
                    kind: 44,
                    body: [&[0, 1][..], &[9, 9, 9, self.round as u8]].concat(),
                },
                Extension::padding(60),
            ],
            ..self.ip()
        };
        self.packet(WHAT, false, &hidden.udp(OWN, SHUT, b"hostile"));
    }

    fn tunnels(&mut self) {
        const WHAT: &str = "IP in IP, GRE, ESP and all other protocols";
        let Ends { to, friend, .. } = *self.ends;
        let inner = Ip::new(friend, to).tcp(&Tcp::new(OWN, 9001, Tcp::SYN));
        let own = self.syn(OPEN);
        for protocol in 0..=255 {
            // TCP and UDP are what the rest is about; these bytes are a chain of headers to IPv6.
            if matches!(protocol, 6 | 17) {
                continue;
            }
            for payload in [&inner, &own] {
                let packet = self.ip().carry(protocol, payload);
                self.packet(WHAT, false, &packet);
            }
        }
        // GRE, VXLAN and Geneve around a packet of the friend's.
        let gre = [&[0, 0, 8, 0][..], &inner].concat();
        let packet = self.ip().carry(47, &gre);
        self.packet(WHAT, false, &packet);
        let inside = ethernet(FORGED, self.ends.mac, &inner);
        for (port, header) in [
            (4789, [8, 0, 0, 0, 0, 0, 1, 0]),
            (6081, [0, 0, 0x65, 0x58, 0, 0, 1, 0]),
        ] {
            let data = [&header[..], &inside].concat();
            let packet = self.ip().udp(OWN, port, &data);
            self.packet(WHAT, false, &packet);
        }
    }

    fn link(&mut self) {
        const WHAT: &str = "VLAN, 802.1ad, MPLS and other frames";
        const KINDS: [u16; 9] = [
            0x88a8, 0x9100, 0x8847, 0x8848, 0x8864, 0x8137, 0x88b5, 0x88e5, 0x0004,
        ];
        let mac = self.ends.mac;
        let packet = self.syn(OPEN);
        let plain = ethernet(FORGED, mac, &packet);
        for vlan in [0, 1, 5, 4095, 0xe005] {
            self.frame(WHAT, false, tagged(&plain, vlan));
            self.frame(WHAT, false, tagged(&tagged(&plain, 5), vlan));
        }
        for kind in KINDS {
            let tag = [0, 5, 8, 0];
            let inside = [&tag[..], &packet].concat();
            self.frame(WHAT, false, frame(FORGED, mac, kind, &inside));
            self.frame(WHAT, false, frame(FORGED, mac, kind, &packet));
        }
        // LLC and SNAP, whose type is the length.
        let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &packet].concat();
        self.frame(WHAT, false, frame(FORGED, mac, snap.len() as u16, &snap));
        // The other family's type.
        let other = if self.ends.to.is_ipv4() {
            0x86dd
        } else {
            0x0800
        };
        self.frame(WHAT, false, frame(FORGED, mac, other, &packet));
    }

    fn cut(&mut self) {
        const WHAT: &str = "truncated and lying headers";
        let mac = self.ends.mac;
        let datagram = self.ip().udp(OWN, OPEN, b"hostile");
        for packet in [self.syn(OPEN), datagram] {
            let whole = ethernet(FORGED, mac, &packet);
            for length in 15..whole.len() {
                self.frame(WHAT, false, whole[..length].to_vec());
            }
            let (field, fixed) = if self.ends.to.is_ipv4() {
                (2, 0)
            } else {
                (4, 40)
            };
            let carried = packet.len() - fixed;
            for length in [0, 1, 7, carried + 1, carried + 100, 0xffff] {
                let mut packet = packet.clone();
                packet[field..field + 2].copy_from_slice(&(length as u16).to_be_bytes());
                self.frame(WHAT, false, ethernet(FORGED, mac, &packet));
            }
            let kind = if self.ends.to.is_ipv4() {
                0x0800
            } else {
                0x86dd
            };
            for version in [0, 1, 5, 7, 15] {
                let mut packet = packet.clone();
                packet[0] = version << 4 | packet[0] & 0xf;
                self.frame(WHAT, false, frame(FORGED, mac, kind, &packet));
            }
            if self.ends.to.is_ipv4() {
                for words in [0, 1, 4, 15] {
                    let mut packet = packet.clone();
                    packet[0] = 0x40 | words;
                    self.frame(WHAT, false, ethernet(FORGED, mac, &packet));
                }
            }
        }
    }

    /// Segments that open nothing, or pretend to belong to something.
    fn segments(&mut self) {
        const WHAT: &str = "segments of no connection";
        for flags in 0..=0x3f {
            let segment = Tcp::new(OWN, SHUT, flags);
            let segment = self.ip().tcp(&segment);
            self.packet(WHAT, false, &segment);
        }
    }

    fn icmp(&mut self) {
        const WHAT: &str = "ICMP, and errors that quote forged flows";
        let Ends {
            from, to, friend, ..
        } = *self.ends;
        let ip = self.ip();
        for packet in [
            ip.echo_request(5, 1, b"hostile"),
            ip.echo_reply(5, 1, b"hostile"),
        ] {
            self.packet(WHAT, false, &packet);
        }
        // Flows of the victim's that never were, and one of somebody else's.
        for peer in [from, friend] {
            let back = Ip::new(to, peer);
            let quotes = [
                back.tcp(&Tcp::new(SHUT, 5000, Tcp::SYN)),
                back.tcp(&Tcp::new(22, 40_000, Tcp::ACK)),
                back.udp(53, 5353, b"hostile"),
                back.echo_request(77, 1, b"hostile"),
                Ip::new(peer, to).udp(5353, 53, b"hostile"),
                Vec::new(),
            ];
            for quote in quotes {
                self.packet(WHAT, false, &ip.port_unreachable(&quote));
                self.packet(WHAT, false, &ip.too_big(576, &quote));
            }
        }
        let redirect = if from.is_ipv4() { 5 } else { 137 };
        let quote = Ip::new(to, friend).udp(9002, OWN, b"hostile");
        self.packet(WHAT, false, &ip.icmp(redirect, 1, [0; 4], &quote));
        for kind in [9, 10, 13, 17, 42, 127, 200] {
            self.packet(WHAT, false, &ip.icmp(kind, 0, [0; 4], &quote));
        }
    }

    /// What the network itself answers for.
    fn neighbours(&mut self) {
        const WHAT: &str = "ARP and neighbour discovery (left to the CNI)";
        let mac = self.ends.mac;
        // Of an address that is nobody's: with the friend's the victim would answer to the hostile pod.
        match (self.ends.nobody, self.ends.to) {
            (IpAddr::V4(nobody), IpAddr::V4(to)) => {
                for operation in [1, 2] {
                    let head = [0, 1, 8, 0, 6, 4, 0, operation];
                    let claim = [&head[..], &FORGED, &nobody.octets(), &mac, &to.octets()];
                    self.frame(WHAT, true, frame(FORGED, mac, 0x0806, &claim.concat()));
                }
            }
            (IpAddr::V6(nobody), _) => {
                let ip = self.ip();
                for kind in [135, 136] {
                    self.packet(WHAT, true, &ip.neighbour(kind, nobody.octets(), FORGED));
                }
                // From beyond the link they are ICMP like any other.
                let far = Ip { ttl: 64, ..ip };
                let target = [&nobody.octets()[..], &[2, 1], &FORGED].concat();
                self.packet(WHAT, false, &far.icmp(136, 0, [0x60, 0, 0, 0], &target));
                self.packet(WHAT, false, &far.icmp(134, 0, [64, 0, 0, 30], &[0; 8]));
            }
            _ => {}
        }
    }
}
