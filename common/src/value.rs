//! Map values.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, abi::abi, limits::SET_LEAVES, protocol, verdict::Direction};

/// Value of `PEERS_V4` and `PEERS_V6`: what the node knows of one address.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Peer {
    /// Its peer class.
    pub class: u32,
    /// The slot of the local pod that owns the address, or 0.
    pub slot: u16,
    /// [`Peer::TRANSLATED`] and others.
    pub flags: u16,
}

impl Peer {
    /// Packets to this address may be translated on their way: a Service address, or an address of
    /// this node. Their egress is decided at the exit.
    pub const TRANSLATED: u16 = 1;
}

/// What a peer class may do against a verdict table; value of `CELLS` and of `TABLES` (the default cell).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Cell {
    /// Port set of TCP: [`NO_PORTS`], [`ALL_PORTS`] or an index into `PORT_SETS`.
    pub tcp: u32,
    /// Port set of UDP.
    pub udp: u32,
    /// Port set of SCTP.
    pub sctp: u32,
    /// [`Cell::ALL_PROTOCOLS`] or 0.
    pub flags: u32,
}

impl Cell {
    /// Every protocol, those without ports included, is allowed.
    pub const ALL_PROTOCOLS: u32 = 1;
    /// Denies everything.
    pub const DENY: Self = Self {
        tcp: NO_PORTS,
        udp: NO_PORTS,
        sctp: NO_PORTS,
        flags: 0,
    };
    /// Allows everything.
    pub const ALLOW: Self = Self {
        tcp: ALL_PORTS,
        udp: ALL_PORTS,
        sctp: ALL_PORTS,
        flags: Self::ALL_PROTOCOLS,
    };
}

/// The port set without a port.
pub const NO_PORTS: u32 = 0;
/// The port set of all ports.
pub const ALL_PORTS: u32 = 1;
/// The table that denies everything.
pub const DENY_ALL: u32 = 0;
/// The table that allows everything: the pod is not isolated in that direction.
pub const ALLOW_ALL: u32 = 1;
/// The class of an address that no peer list matches. It has no cells: every table's default cell is its.
pub const STRANGER: u32 = 0;

/// Value of `PORT_SETS`: for each 256 ports the index of their leaf in `PORT_LEAVES`. Immutable once
/// a cell refers to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PortSet {
    /// Leaf of the ports `256 * i ..= 256 * i + 255`.
    pub leaves: [u32; SET_LEAVES],
}

/// Value of `PORT_LEAVES`: bit `p % 64` of word `p / 64` is port `p` of the leaf.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PortLeaf {
    /// The bits.
    pub words: [u64; 4],
}

/// Value of `SLOTS`: one local pod.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Slot {
    /// Index of the pod's host-side interface; 0 where the slot is free.
    pub ifindex: u32,
    /// Index of the bridge above that interface, or 0.
    pub bridge: u32,
    /// Verdict table of ingress.
    pub ingress: u32,
    /// Verdict table of egress.
    pub egress: u32,
    /// What ingress lets pass, but tells of where this table does not allow it. [`ALLOW_ALL`] or 0: nothing.
    pub audited_ingress: u32,
    /// The same of egress.
    pub audited_egress: u32,
    /// Id of the pod's network namespace, as the node's own namespace numbers it (RTM_GETNSID), or -1.
    pub namespace: i32,
    /// Reserved, 0.
    pub flags: u32,
    /// The pod's IPv4 address, or 0.
    pub v4: u32,
    /// The first 32 bits of a digest of the pod's UID, so that a successor knows whose slot it is.
    pub owner: u32,
    /// The pod's IPv6 address, or 0.
    pub v6: Address,
}

/// Value of `INTERFACES`, an array by interface index, and of `INTERFACES_HIGH`, a hash map for indices beyond it.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Interface {
    /// The pod behind the interface, or 0.
    pub slot: u16,
    /// Length of the link header in bytes: 14 for Ethernet, 0 for devices that have none.
    pub link_header: u8,
    /// [`Interface::KNOWN`], always, and [`Interface::BRIDGE`].
    pub flags: u8,
}

impl Interface {
    /// The interface is a bridge master with pods among its ports.
    pub const BRIDGE: u8 = 1;
    /// The entry is written: of an array every index has one.
    pub const KNOWN: u8 = 2;
}

/// Value of the flow tables.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Flow {
    /// The address that was judged: the backend behind a Service address, the pod behind a masquerade.
    pub peer: Address,
    /// The revision under which the flow was allowed.
    pub revision: u32,
    /// Low 32 bits of the jiffies at the last packet.
    pub seen: u32,
    /// The destination port that was judged: the backend's for a flow opened by the pod, the pod's own else.
    pub port: u16,
    /// Bits of [`Flow::EGRESS`] and its neighbours.
    pub flags: u8,
    /// Bits of [`Flow::FIN_LOCAL`] and its neighbours.
    pub tcp: u8,
    /// Reserved, 0.
    pub reserved: u32,
}

impl Flow {
    /// The pod opened it: its egress was judged. With `INGRESS` too, whoever opened it came before
    /// the agent, and either direction's permission carries it.
    pub const EGRESS: u8 = 1;
    /// The other end opened it: the pod's ingress was judged.
    pub const INGRESS: u8 = 2;
    /// Not yet confirmed by the exit; passes nothing.
    pub const PENDING: u8 = 4;
    /// The other end is the node itself: always allowed, and only packets made by the node belong to it.
    pub const NODE: u8 = 8;
    /// Permission was withdrawn: its packets are dropped until it is allowed again.
    pub const REVOKED: u8 = 16;
    /// The other end is a pod of this node: its egress is to be asked too.
    pub const LOCAL: u8 = 32;
    /// Never stored: it was judged again just now.
    pub const JUDGED: u8 = 64;

    /// The pod has sent a FIN.
    pub const FIN_LOCAL: u8 = 1;
    /// The other end has sent a FIN.
    pub const FIN_REMOTE: u8 = 2;
    /// Either has sent an RST.
    pub const RESET: u8 = 4;

    /// The direction that opened it, as far as that is known; else that one.
    #[inline(always)]
    #[must_use]
    pub const fn opened(&self, else_that: Direction) -> Direction {
        match self.flags & (Self::EGRESS | Self::INGRESS) {
            Self::EGRESS => Direction::Egress,
            Self::INGRESS => Direction::Ingress,
            _ => else_that,
        }
    }

    /// Seconds without a packet after which a flow is over; never shorter than nf_conntrack's defaults
    /// (Documentation/networking/nf_conntrack-sysctl.rst). `answered`: the flow has left `FLOWS_NEW`.
    #[inline(always)]
    #[must_use]
    pub const fn lifetime(protocol: u8, answered: bool, tcp_state: u8) -> u32 {
        match protocol {
            protocol::TCP if tcp_state & Self::RESET != 0 => 10,
            protocol::TCP if tcp_state & (Self::FIN_LOCAL | Self::FIN_REMOTE) != 0 => 120,
            protocol::TCP | protocol::SCTP if answered => 432_000,
            protocol::TCP => 120,
            protocol::SCTP | protocol::UDP if !answered => 30,
            protocol::UDP => 180,
            protocol::ICMP | protocol::ICMPV6 => 30,
            _ => 600,
        }
    }
}

/// Value of `FRAGMENTS`: the ports that the first fragment named.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ports {
    /// Source port, host order.
    pub source: u16,
    /// Destination port, host order.
    pub destination: u16,
    /// Low 32 bits of the jiffies at the first fragment.
    pub seen: u32,
}

/// The single value of `CONFIG`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Config {
    /// Key of the cookies; random, made once per boot.
    pub secret: u64,
    /// Moves after every batch of writes that can change a verdict.
    pub revision: u32,
    /// [`Config::SPOOF_PROTECTION`] and others.
    pub flags: u32,
    /// Jiffies per second.
    pub hz: u32,
    /// Events per second, slot, direction and reason on each CPU; the rest is counted.
    pub event_rate: u32,
}

impl Config {
    /// Drop packets whose source is not the pod's own.
    pub const SPOOF_PROTECTION: u32 = 1;
    /// Leave existing connections alone when policy withdraws their permission.
    pub const KEEP_CONNECTIONS: u32 = 2;
    /// Report the first packet of allowed flows as well.
    pub const REPORT_ALLOWED: u32 = 4;
}

/// Number of reasons a packet can be denied for: the length of [`Counters::denied`].
pub const REASONS: usize = 8;

/// Value of `COUNTERS`, per CPU; index `2 * slot + direction`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Counters {
    /// Packets passed.
    pub allowed_packets: u64,
    /// Bytes passed, link header included.
    pub allowed_bytes: u64,
    /// Packets dropped, by [`crate::verdict::Reason`].
    pub denied: [u64; REASONS],
    /// Events of this slot and direction that were not sent: over the rate, or no room in the ring.
    pub suppressed: u64,
    /// Bytes dropped.
    pub denied_bytes: u64,
    /// Packets told of as audited; of a flow the first, and the next after each change of policy.
    pub audited: u64,
}

/// Value of `EVENT_BUDGET`, per CPU; index `(2 * slot + direction) * REASONS + reason`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct EventBudget {
    /// Low 32 bits of the jiffies at which the present second began.
    pub since: u32,
    /// Events sent in it.
    pub sent: u32,
}

abi! {
    Peer: size 8, align 4;
    Cell: size 16, align 4;
    PortSet: size 1024, align 4;
    PortLeaf: size 32, align 8;
    Slot: size 56, align 4;
    Interface: size 4, align 2;
    Flow: size 32, align 4;
    Ports: size 8, align 4;
    Config: size 24, align 8;
    Counters: size 104, align 8;
    EventBudget: size 8, align 4;
}
