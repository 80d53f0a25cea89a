//! What compilation yields: peer classes, verdict tables and who uses them; kernel-neutral.
//!
//! The verdict of a packet between a pod and a peer address is
//! `table(pod, direction).cell(class_of(address))`; see [`Compiled`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::model::{Name, Protocol};

pub use self::ports::PortSet;

mod ports;

/// The way of a packet as seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// A protocol with ports, and the destination port.
    Port(Protocol, u16),
    /// Any other protocol, ICMP for one.
    Other,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(protocol, port) => write!(f, "{port}/{protocol}"),
            Self::Other => f.write_str("other protocols"),
        }
    }
}

/// What one peer class may do against one verdict table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Allowed destination ports of TCP.
    pub tcp: PortSet,
    /// Of UDP.
    pub udp: PortSet,
    /// Of SCTP.
    pub sctp: PortSet,
    /// Every protocol is allowed, those without ports too; the port sets are then all full.
    pub all_protocols: bool,
}

impl Cell {
    /// Nothing.
    #[must_use]
    pub fn deny() -> Self {
        let none = PortSet::none();
        Self {
            tcp: none.clone(),
            udp: none.clone(),
            sctp: none,
            all_protocols: false,
        }
    }

    /// Everything.
    #[must_use]
    pub fn allow() -> Self {
        let all = PortSet::all();
        Self {
            tcp: all.clone(),
            udp: all.clone(),
            sctp: all,
            all_protocols: true,
        }
    }

    /// The port set of a protocol.
    #[must_use]
    pub fn ports(&self, protocol: Protocol) -> &PortSet {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Sctp => &self.sctp,
        }
    }

    /// Whether this is allowed.
    #[must_use]
    pub fn allows(&self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Port(protocol, port) => self.ports(protocol).contains(port),
            Traffic::Other => self.all_protocols,
        }
    }

    /// What both allow.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self {
            tcp: self.tcp.intersection(&other.tcp),
            udp: self.udp.intersection(&other.udp),
            sctp: self.sctp.intersection(&other.sctp),
            all_protocols: self.all_protocols && other.all_protocols,
        }
    }

    /// What either allows.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self {
            tcp: self.tcp.union(&other.tcp),
            udp: self.udp.union(&other.udp),
            sctp: self.sctp.union(&other.sctp),
            all_protocols: self.all_protocols || other.all_protocols,
        }
    }

    /// Whether `other` allows all that this one allows.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.intersection(other) == *self
    }
}

/// A peer class: the set of all addresses that exactly the same peer lists match (and, where egress rules
/// name ports, that have the same named ports). Ids are stable while the class lives, and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

impl ClassId {
    /// The class of an address that no peer list matches; every table gives it its default cell.
    pub const STRANGER: Self = Self(0);
}

/// A verdict table. Ids are stable while some pod uses the table, and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

/// Verdicts of one pod and direction, by peer class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The cell of every class that has none of its own: what rules without peers allow.
    pub default: Cell,
    /// The cells that differ from the default.
    pub cells: BTreeMap<ClassId, Cell>,
}

impl Table {
    /// The cell of a class.
    #[must_use]
    pub fn cell(&self, class: ClassId) -> &Cell {
        self.cells.get(&class).unwrap_or(&self.default)
    }
}

/// Which of a pod's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// What is denied.
    Enforced,
    /// What would be denied if nothing were in audit. Asked only where the first allows.
    Audited,
}

/// A direction, as it is enforced or as it is audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side {
    /// The direction.
    pub direction: Direction,
    /// Enforced or audited.
    pub layer: Layer,
}

impl Side {
    /// Every one.
    pub const ALL: [Self; 4] = [
        Self::new(Direction::Ingress, Layer::Enforced),
        Self::new(Direction::Egress, Layer::Enforced),
        Self::new(Direction::Ingress, Layer::Audited),
        Self::new(Direction::Egress, Layer::Audited),
    ];

    /// The side of these.
    #[must_use]
    pub const fn new(direction: Direction, layer: Layer) -> Self {
        Self { direction, layer }
    }
}

/// How one direction of a local pod is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isolation {
    /// No policy selects the pod in this direction: everything is allowed.
    None,
    /// By this table.
    Table(TableId),
}

/// A local pod to be enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Those of its addresses that no newer pod claims. Where another pod has taken them all the pod is
    /// still listed, so that what it has stays enforced.
    pub addresses: Vec<IpAddr>,
    /// Ingress.
    pub ingress: Isolation,
    /// Egress.
    pub egress: Isolation,
    /// What is told of ingress, and passes: nothing, or what this does not allow.
    pub audited_ingress: Isolation,
    /// Of egress.
    pub audited_egress: Isolation,
}

impl LocalPod {
    /// That of a side.
    #[must_use]
    pub const fn isolation(&self, side: Side) -> Isolation {
        match (side.direction, side.layer) {
            (Direction::Ingress, Layer::Enforced) => self.ingress,
            (Direction::Egress, Layer::Enforced) => self.egress,
            (Direction::Ingress, Layer::Audited) => self.audited_ingress,
            (Direction::Egress, Layer::Audited) => self.audited_egress,
        }
    }
}

/// The whole desired state. Kept up to date by the compiler; [`Change`] names what moved since it was last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The class of each address that differs from the class of the longest block around it.
    pub addresses: HashMap<IpAddr, ClassId>,
    /// The nodes of the trie of all cidr and except prefixes, and the class of the addresses in each
    /// that are in no longer node and not in `addresses`.
    pub blocks: BTreeMap<IpNet, ClassId>,
    /// The tables in use.
    pub tables: HashMap<TableId, Table>,
    /// The local pods that are on a network of their own and have an address.
    pub pods: BTreeMap<Name, LocalPod>,
    /// Addresses of Services: packets to them are decided where they leave, on their real destination.
    pub services: HashSet<IpAddr>,
}

impl Compiled {
    /// The class of an address: its own, or that of the longest block around it.
    #[must_use]
    pub fn class_of(&self, address: IpAddr) -> ClassId {
        if let Some(&class) = self.addresses.get(&address) {
            return class;
        }
        let whole = IpNet::from(address);
        (0..=whole.max_prefix_len())
            .rev()
            .filter_map(|length| IpNet::new(address, length).ok())
            .find_map(|net| self.blocks.get(&net.trunc()).copied())
            .unwrap_or(ClassId::STRANGER)
    }

    /// What a peer at the address may do to a pod (or the pod to it) in this direction.
    #[must_use]
    pub fn cell(&self, isolation: Isolation, peer: IpAddr) -> Cell {
        match isolation {
            Isolation::None => Cell::allow(),
            Isolation::Table(table) => match self.tables.get(&table) {
                Some(table) => table.cell(self.class_of(peer)).clone(),
                None => Cell::deny(),
            },
        }
    }
}

/// What of [`Compiled`] changed: keys whose value is new, other, or gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Blocks.
    pub blocks: Vec<IpNet>,
    /// Tables, with the classes whose cell is other than before; a change of the default cell is named
    /// by `default`.
    pub tables: Vec<TableChange>,
    /// Local pods.
    pub pods: Vec<Name>,
    /// Addresses of Services that came or went.
    pub services: Vec<IpAddr>,
}

/// One changed table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChange {
    /// The table.
    pub table: TableId,
    /// The default cell is other than before, or the table is new or gone.
    pub default: bool,
    /// The classes whose explicit cell is new, other or gone.
    pub classes: Vec<ClassId>,
}

impl Change {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
            && self.blocks.is_empty()
            && self.tables.is_empty()
            && self.pods.is_empty()
            && self.services.is_empty()
    }
}
