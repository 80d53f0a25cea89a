//! A small world for tests of single programs: one pod under policy, one without, and whom they meet.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::{Deref, DerefMut},
};

use palisade_common::{
    family,
    mark::{self, State},
    value::{ALLOW_ALL, Cell, Config, Interface, Peer, PortLeaf, Slot},
    verdict::Verdict,
};

use palisade_dataplane::{apply::Store as _, plan::op::Op};
use palisade_policy::table::PortSet;

use super::{At, Program, Rig, address, cookie};
use crate::packet::{Ip, Tcp, ethernet};

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// The pod under policy, of slot [`POD`].
    pub pod: IpAddr,
    /// The other pod of the node, of slot [`Scene::NEIGHBOUR`].
    pub neighbour: IpAddr,
    /// A pod elsewhere, of class [`Scene::PEER`].
    pub peer: IpAddr,
    /// An address of no class of its own, in a block of class [`Scene::BLOCK`].
    pub outside: IpAddr,
    /// An address that nothing knows.
    pub stranger: IpAddr,
    /// An address of a Service.
    pub service: IpAddr,
    /// An address of the node.
    pub node: IpAddr,
}

impl Net {
    /// IPv4.
    pub const V4: Self = Self {
        pod: v4(10, 0, 0, 7),
        neighbour: v4(10, 0, 0, 8),
        peer: v4(10, 1, 0, 9),
        outside: v4(203, 0, 113, 5),
        stranger: v4(192, 168, 3, 9),
        service: v4(10, 96, 0, 1),
        node: v4(172, 18, 0, 2),
    };
    /// IPv6.
    pub const V6: Self = Self {
        pod: v6(0, 7),
        neighbour: v6(0, 8),
        peer: v6(1, 9),
        outside: v6(0x203, 5),
        stranger: v6(0x192, 9),
        service: v6(0x96, 1),
        node: v6(0x18, 2),
    };
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(part: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, part, 0, 0, 0, host))
}

/// Slot of the pod under policy.
pub const POD: u16 = 7;

/// The rig, and where things are in it.
#[derive(Debug)]
pub struct Scene {
    /// The programs and maps.
    pub rig: Rig,
    /// Device of the pod under policy.
    pub pod: u32,
    /// Device of the other pod.
    pub neighbour: u32,
    /// The device out of the node.
    pub uplink: u32,
    /// A bridge above the other pod, once [`Scene::bridge`] has put it there.
    pub above: u32,
}

impl Scene {
    /// Slot of the other pod, which no policy selects at first.
    pub const NEIGHBOUR: u16 = 8;
    /// Class of [`Net::peer`].
    pub const PEER: u32 = 3;
    /// Class of [`Net::outside`].
    pub const BLOCK: u32 = 4;
    /// Class of [`Net::neighbour`].
    pub const LOCAL: u32 = 5;
    /// Ingress table of the pod.
    pub const INGRESS: u32 = 5;
    /// Egress table of the pod.
    pub const EGRESS: u32 = 6;
    /// The one port that [`Scene::PORTS`] holds.
    pub const PORT: u16 = 80;
    /// A port set.
    pub const PORTS: u32 = 2;
    /// Key of the cookies.
    pub const SECRET: u64 = 0x0123_4567_89ab_cdef;
    /// [`Scene::PORT`] of every protocol that has ports.
    pub const CELL: Cell = Cell {
        tcp: Self::PORTS,
        udp: Self::PORTS,
        sctp: Self::PORTS,
        flags: 0,
    };

    /// The pod may speak with peers and blocks at [`Scene::PORT`] in both directions, and with
    /// nobody else.
    ///
    /// # Panics
    /// Where the kernel refuses anything.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Rig::new())
    }

    /// The same in a rig that is there already.
    ///
    /// # Panics
    /// Where the kernel refuses anything.
    #[must_use]
    pub fn with(rig: Rig) -> Self {
        let [pod, neighbour, uplink, above] = [0; 4].map(|_| rig.add_device());
        let mut scene = Self {
            rig,
            pod,
            neighbour,
            uplink,
            above,
        };
        for write in Self::writes([pod, neighbour], scene.rig.hz) {
            scene.rig.perform(&write).expect("a write");
        }
        scene.interface(pod, POD, 0);
        scene.interface(neighbour, Self::NEIGHBOUR, 0);
        scene.interface(uplink, 0, 0);
        scene
    }

    /// What the maps hold, but for devices; those of the two pods are told. The kernel has so many jiffies a second.
    ///
    /// # Panics
    /// Never: the blocks are prefixes.
    #[must_use]
    pub fn writes([pod, neighbour]: [u32; 2], hz: u32) -> Vec<Op> {
        let mut leaf = PortLeaf::default();
        leaf.words[usize::from(Self::PORT / 64)] |= 1 << (Self::PORT % 64);
        let mut writes = vec![
            Op::Config(Config {
                secret: Self::SECRET,
                revision: 1,
                flags: Config::SPOOF_PROTECTION,
                hz,
                event_rate: 1_000_000,
            }),
            Op::Leaf {
                leaf: Self::PORTS,
                ports: leaf,
            },
            Op::Set {
                set: Self::PORTS,
                ports: PortSet::of([(Self::PORT, Self::PORT)]),
                leaves: [(0, Self::PORTS)].into(),
            },
            Op::Default {
                table: ALLOW_ALL,
                cell: Cell::ALLOW,
            },
        ];
        for table in [Self::INGRESS, Self::EGRESS] {
            let cell = Cell::DENY;
            writes.push(Op::Default { table, cell });
            for class in [Self::PEER, Self::BLOCK] {
                let cell = Some(Self::CELL);
                writes.push(Op::Cell { table, class, cell });
            }
        }
        let pods = [
            (POD, pod, (Self::INGRESS, Self::EGRESS)),
            (Self::NEIGHBOUR, neighbour, (ALLOW_ALL, ALLOW_ALL)),
        ];
        for (slot, ifindex, (ingress, egress)) in pods {
            let value = Slot {
                ifindex,
                ingress,
                egress,
                ..at_home(slot)
            };
            writes.push(Op::Slot { slot, value });
        }
        for net in Net::BOTH {
            let peers = [
                (net.pod, peer(0, POD, 0)),
                (net.neighbour, peer(Self::LOCAL, Self::NEIGHBOUR, 0)),
                (net.peer, peer(Self::PEER, 0, 0)),
                (net.service, peer(0, 0, Peer::TRANSLATED)),
                (net.node, peer(0, 0, Peer::TRANSLATED)),
            ];
            writes.extend(peers.map(|(address, peer)| Op::Peer {
                address,
                peer: Some(peer),
            }));
        }
        let blocks = ["203.0.113.0/24", "fd00:0:0:203::/64"];
        writes.extend(blocks.map(|block| Op::Block {
            net: block.parse().expect("a prefix"),
            class: Some(Self::BLOCK),
        }));
        writes
    }

    /// Runs `to_pod` of the pod on a packet from outside the node.
    pub fn to_pod(&self, packet: &[u8]) -> Verdict {
        self.at(Program::ToPod, self.pod, self.uplink, packet)
    }

    /// Runs `from_pod` of the pod.
    pub fn from_pod(&self, packet: &[u8]) -> Verdict {
        self.at(Program::FromPod, self.pod, 0, packet)
    }

    /// Runs `to_pod` of the pod on a packet that the node has made.
    pub fn from_node(&self, packet: &[u8]) -> Verdict {
        self.at(Program::ToPod, self.pod, 0, packet)
    }

    /// Runs a program on a packet in an Ethernet frame, without a mark.
    pub fn at(
        &self,
        program: Program,
        ifindex: u32,
        ingress_ifindex: u32,
        packet: &[u8],
    ) -> Verdict {
        self.frame(
            program,
            ifindex,
            ingress_ifindex,
            &ethernet(POD_MAC, NODE_MAC, packet),
        )
    }

    /// Runs a program on a frame, without a mark.
    pub fn frame(
        &self,
        program: Program,
        ifindex: u32,
        ingress_ifindex: u32,
        frame: &[u8],
    ) -> Verdict {
        let at = At {
            ifindex,
            ingress_ifindex,
            ..At::default()
        };
        self.rig.run(program, frame, at)
    }

    /// Runs a program on a packet that `from_pod` of a slot has marked.
    pub fn marked(
        &self,
        program: Program,
        ifindex: u32,
        (slot, state, hash): (u16, State, u32),
        packet: &[u8],
    ) -> Verdict {
        let ingress_ifindex = self.slot(slot).ifindex;
        let at = At {
            ifindex,
            ingress_ifindex,
            tc_index: mark::encode(slot, state),
            hash,
        };
        self.rig
            .run(program, &ethernet(POD_MAC, NODE_MAC, packet), at)
    }

    /// The cookie of a packet of a slot to a destination.
    #[must_use]
    pub fn cookie(&self, slot: u16, protocol: u8, from: u16, to: IpAddr, port: u16) -> u32 {
        cookie(Self::SECRET, slot, protocol, (from, to, port))
    }

    /// Tells what a device is, and the slot which device it has.
    ///
    /// # Panics
    /// Where the map cannot be written.
    pub fn interface(&mut self, ifindex: u32, number: u16, flags: u8) {
        let interface = Interface {
            slot: number,
            link_header: 14,
            flags: flags | Interface::KNOWN,
        };
        let interfaces = &mut self.rig.maps.interfaces;
        interfaces.set(ifindex, interface, 0).expect("INTERFACES");
        if number == 0 {
            return;
        }
        let Slot {
            namespace, v4, v6, ..
        } = at_home(number);
        let slot = Slot {
            ifindex,
            namespace,
            v4,
            v6,
            ..self.slot(number)
        };
        self.set_slot(number, slot);
    }

    /// Puts both pods behind a bridge.
    pub fn bridge(&mut self) {
        self.interface(self.above, 0, Interface::BRIDGE);
        for number in [POD, Self::NEIGHBOUR] {
            let bridge = self.above;
            let slot = self.slot(number);
            self.set_slot(number, Slot { bridge, ..slot });
        }
    }
}

impl Deref for Scene {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Rig {
        &mut self.rig
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

/// A pod's slot with its addresses, and without a network namespace that could be asked for sockets.
fn at_home(number: u16) -> Slot {
    let mine = |net: Net| {
        if number == POD {
            net.pod
        } else {
            net.neighbour
        }
    };
    Slot {
        namespace: -1,
        v4: address(mine(Net::V4))[0],
        v6: address(mine(Net::V6)),
        ..Slot::default()
    }
}

/// The value of an address.
#[must_use]
pub fn peer(class: u32, slot: u16, flags: u16) -> Peer {
    Peer { class, slot, flags }
}

/// Number of an address's family.
#[must_use]
pub fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        family::V4
    } else {
        family::V6
    }
}

const POD_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 7];
const NODE_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 1];

/// A TCP segment with these ports and flags, and no data.
#[must_use]
pub fn tcp(from: IpAddr, to: IpAddr, (source, destination): (u16, u16), flags: u8) -> Vec<u8> {
    Ip::new(from, to).tcp(&Tcp::new(source, destination, flags))
}

/// A UDP datagram with these ports.
#[must_use]
pub fn udp(from: IpAddr, to: IpAddr, (source, destination): (u16, u16)) -> Vec<u8> {
    Ip::new(from, to).udp(source, destination, b"datagram")
}
