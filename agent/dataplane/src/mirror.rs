//! The present: what the kernel's maps hold, in memory, kept up with every write.
//!
//! A successor builds it by reading the maps; nothing else is remembered from one agent to the next.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
    sync::LazyLock,
};

use ipnet::IpNet;
use palisade_common::value::{
    ALL_PORTS, ALLOW_ALL, Cell, Config, NO_PORTS, Peer, PortLeaf, STRANGER, Slot,
};
use palisade_policy::table::{self, PortSet};

use crate::plan::op::Op;

pub use self::{counts::Vacated, dump::Dump};

mod counts;
mod dump;

/// A port set in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSet {
    /// Its ports.
    pub ports: PortSet,
    /// Places and numbers of its leaves, by place.
    pub leaves: Box<[(u8, u32)]>,
}

/// The contents of the maps that hold verdicts.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    peers: HashMap<IpAddr, Peer>,
    blocks: BTreeMap<IpNet, u32>,
    defaults: HashMap<u32, Cell>,
    cells: HashMap<u32, HashMap<u32, Cell>>,
    slots: BTreeMap<u16, Slot>,
    sets: HashMap<u32, StoredSet>,
    leaves: HashMap<u32, PortLeaf>,
    config: Config,
    counts: counts::Counts,
}

static NONE: LazyLock<PortSet> = LazyLock::new(PortSet::none);
static ALL: LazyLock<PortSet> = LazyLock::new(PortSet::all);

impl Mirror {
    /// Takes note of a write that was done.
    pub fn note(&mut self, op: &Op) {
        match op {
            Op::Leaf { leaf, ports } => {
                self.leaves.insert(*leaf, *ports);
            }
            Op::Set { set, ports, leaves } => {
                let stored = StoredSet {
                    ports: ports.clone(),
                    leaves: leaves.clone(),
                };
                self.sets.insert(*set, stored);
            }
            Op::Cell { table, class, cell } => {
                let cells = self.cells.entry(*table).or_default();
                let before = match cell {
                    Some(cell) => cells.insert(*class, *cell),
                    None => cells.remove(class),
                };
                if cells.is_empty() {
                    self.cells.remove(table);
                }
                self.counts.cell(before.as_ref(), cell.as_ref());
            }
            Op::Default { table, cell } => {
                let before = if *cell == Cell::DENY {
                    self.defaults.remove(table)
                } else {
                    self.defaults.insert(*table, *cell)
                };
                self.counts.default(before.as_ref(), cell);
            }
            Op::Peer { address, peer } => {
                let before = match peer {
                    Some(peer) => self.peers.insert(*address, *peer),
                    None => self.peers.remove(address),
                };
                self.counts.peer(
                    address.is_ipv4(),
                    before.map(|peer| peer.class),
                    peer.map(|peer| peer.class),
                );
            }
            Op::Block { net, class } => {
                let before = match class {
                    Some(class) => self.blocks.insert(*net, *class),
                    None => self.blocks.remove(net),
                };
                let v4 = matches!(net, IpNet::V4(_));
                self.counts.block(v4, before, *class);
            }
            Op::Slot { slot, value } => {
                let before = if *value == Slot::default() {
                    self.slots.remove(slot)
                } else {
                    self.slots.insert(*slot, *value)
                };
                self.counts.slot(before.as_ref(), value);
            }
            Op::Config(config) => self.config = *config,
        }
    }

    /// How many entries are other than another mirror has them. Of port sets those count that are read here: nothing
    /// refers to the others.
    #[must_use]
    pub fn differences(&self, other: &Self) -> usize {
        let sets = self
            .sets
            .iter()
            .filter(|(number, set)| other.sets.get(number) != Some(set));
        let leaves = self
            .leaves
            .iter()
            .filter(|(number, leaf)| other.leaves.get(number) != Some(leaf));
        differing(&self.peers, &other.peers)
            + differing(&self.blocks, &other.blocks)
            + differing(&self.defaults, &other.defaults)
            + differing(self.all_cells(), other.all_cells())
            + differing(&self.slots, &other.slots)
            + sets.count()
            + leaves.count()
            + usize::from(self.config != other.config)
    }

    fn all_cells(&self) -> impl Iterator<Item = ((u32, u32), &Cell)> {
        let rows = self.cells.iter();
        rows.flat_map(|(&table, row)| row.iter().map(move |(&class, cell)| ((table, class), cell)))
    }

    /// What is known of an address by itself.
    #[must_use]
    pub fn peer(&self, address: &IpAddr) -> Option<&Peer> {
        self.peers.get(address)
    }

    /// Every address that is known by itself.
    pub fn peers(&self) -> impl Iterator<Item = (&IpAddr, &Peer)> {
        self.peers.iter()
    }

    /// The class of every block.
    #[must_use]
    pub fn blocks(&self) -> &BTreeMap<IpNet, u32> {
        &self.blocks
    }

    /// The pods' slots that are not free.
    #[must_use]
    pub fn slots(&self) -> &BTreeMap<u16, Slot> {
        &self.slots
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The port sets that were ever referred to, by number.
    #[must_use]
    pub fn sets(&self) -> &HashMap<u32, StoredSet> {
        &self.sets
    }

    /// Forgets a port set whose number is free.
    pub(crate) fn forget_set(&mut self, set: u32) -> Option<StoredSet> {
        self.sets.remove(&set)
    }

    /// The leaves those sets refer to, by number.
    #[must_use]
    pub fn leaves(&self) -> &HashMap<u32, PortLeaf> {
        &self.leaves
    }

    /// How many of what there are.
    #[must_use]
    pub fn counts(&self) -> &counts::Counts {
        &self.counts
    }

    /// The numbers whose last reference went since the last call.
    pub fn take_vacated(&mut self) -> Vacated {
        self.counts.take_vacated()
    }

    /// The class of an address, as the programs find it.
    #[must_use]
    pub fn class_of(&self, address: &IpAddr) -> u32 {
        match self.peers.get(address) {
            Some(peer) => peer.class,
            None => crate::plan::nets::around(&self.blocks, *address)
                .map_or(STRANGER, |(_, &class)| class),
        }
    }

    /// The tables that have cells or a default that allows anything.
    pub fn tables(&self) -> impl Iterator<Item = u32> {
        self.cells
            .keys()
            .chain(
                self.defaults
                    .keys()
                    .filter(|table| !self.cells.contains_key(table)),
            )
            .copied()
    }

    /// The explicit cells of a table.
    pub fn cells(&self, table: u32) -> impl Iterator<Item = (u32, &Cell)> {
        self.cells
            .get(&table)
            .into_iter()
            .flat_map(|cells| cells.iter().map(|(&class, cell)| (class, cell)))
    }

    /// The explicit cell of a class against a table.
    #[must_use]
    pub fn explicit(&self, table: u32, class: u32) -> Option<&Cell> {
        self.cells.get(&table)?.get(&class)
    }

    /// The default cell of a table.
    #[must_use]
    pub fn default_cell(&self, table: u32) -> Cell {
        self.defaults.get(&table).copied().unwrap_or(Cell::DENY)
    }

    /// What a class may do against a table.
    #[must_use]
    pub fn cell(&self, table: u32, class: u32) -> table::Cell {
        match self.explicit(table, class) {
            Some(cell) => self.decode(cell),
            None => self.decode(&self.default_cell(table)),
        }
    }

    /// The ports behind the numbers of a cell. A set that is not known holds none.
    #[must_use]
    pub fn decode(&self, cell: &Cell) -> table::Cell {
        if cell.flags & Cell::ALL_PROTOCOLS != 0 {
            return table::Cell {
                tcp: ALL.clone(),
                udp: ALL.clone(),
                sctp: ALL.clone(),
                all_protocols: true,
            };
        }
        table::Cell {
            tcp: self.ports(cell.tcp),
            udp: self.ports(cell.udp),
            sctp: self.ports(cell.sctp),
            all_protocols: false,
        }
    }

    /// The writes that make the constant tables, sets and leaves what they must be.
    #[must_use]
    pub fn constants(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        let full = crate::encode::FULL;
        if self.leaves.get(&ALL_PORTS) != Some(&full) {
            ops.push(Op::Leaf {
                leaf: ALL_PORTS,
                ports: full,
            });
        }
        let places: Box<[(u8, u32)]> = (0..=u8::MAX).map(|place| (place, ALL_PORTS)).collect();
        if self
            .sets
            .get(&ALL_PORTS)
            .is_none_or(|set| set.leaves != places)
        {
            ops.push(Op::Set {
                set: ALL_PORTS,
                ports: ALL.clone(),
                leaves: places,
            });
        }
        if self.default_cell(ALLOW_ALL) != Cell::ALLOW {
            ops.push(Op::Default {
                table: ALLOW_ALL,
                cell: Cell::ALLOW,
            });
        }
        ops
    }

    fn ports(&self, set: u32) -> PortSet {
        match set {
            NO_PORTS => NONE.clone(),
            ALL_PORTS => ALL.clone(),
            _ => self
                .sets
                .get(&set)
                .map_or_else(|| NONE.clone(), |set| set.ports.clone()),
        }
    }
}

/// How many keys have not the same value in both.
fn differing<K: Eq + Hash, V: PartialEq>(
    one: impl IntoIterator<Item = (K, V)>,
    other: impl IntoIterator<Item = (K, V)>,
) -> usize {
    let mut left: HashMap<K, V> = other.into_iter().collect();
    let values = one.into_iter();
    let differing = values.filter(|(key, value)| left.remove(key).as_ref() != Some(value));
    differing.count() + left.len()
}
