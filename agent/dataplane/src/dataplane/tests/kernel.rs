//! A kernel to write to: the maps as the programs read them, and the programs' verdict, written apart from
//! what is tested.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use ipnet::IpNet;
use palisade_common::{
    key::CellKey,
    value::{ALLOW_ALL, Cell, Config, DENY_ALL, Peer, PortLeaf, PortSet, Slot},
};
use palisade_policy::table::{Layer, Side};

use crate::{
    apply::{Store, StoreError},
    encode::ledger::GRACE,
    maps::Capacity,
    mirror::Dump,
    plan::{op::Op, tables::table_of},
};

/// Ports that verdicts are looked at for, of each of TCP, UDP and SCTP.
pub(super) const PORTS: [u16; 10] = [0, 53, 80, 81, 255, 256, 443, 8080, 65_534, 65_535];
/// A verdict for every one of those, and for protocols without ports, as bits.
pub(super) type Verdict = u32;

#[derive(Clone)]
pub(super) struct Kernel {
    pub(super) peers: HashMap<IpAddr, Peer>,
    pub(super) cidrs: HashMap<IpNet, u32>,
    pub(super) tables: Vec<Cell>,
    pub(super) cells: HashMap<CellKey, Cell>,
    pub(super) slots: Vec<Slot>,
    pub(super) sets: Vec<PortSet>,
    pub(super) leaves: Vec<PortLeaf>,
    pub(super) config: Config,
    pub(super) capacity: Capacity,
    pub(super) swept: HashSet<u16>,
    pub(super) flight: Flight,
    decoded: RefCell<HashMap<Cell, Verdict>>,
}

impl Kernel {
    pub(super) fn new(capacity: Capacity) -> Self {
        let none = PortSet { leaves: [0; 256] };
        Self {
            peers: HashMap::new(),
            cidrs: HashMap::new(),
            tables: vec![Cell::default(); capacity.tables as usize],
            cells: HashMap::new(),
            slots: vec![Slot::default(); capacity.slots as usize],
            sets: vec![none; capacity.port_sets as usize],
            leaves: vec![PortLeaf::default(); capacity.port_leaves as usize],
            config: Config::default(),
            capacity,
            swept: HashSet::new(),
            flight: Flight::new(),
            decoded: RefCell::default(),
        }
    }

    pub(super) fn class(&self, address: IpAddr) -> u32 {
        if let Some(peer) = self.peers.get(&address) {
            return peer.class;
        }
        self.cidrs
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len())
            .map_or(0, |(_, &class)| class)
    }

    pub(super) fn table(&self, slot: u16, side: Side) -> u32 {
        table_of(&self.slots[usize::from(slot)], side)
    }

    pub(super) fn cell(&self, table: u32, class: u32) -> Verdict {
        let own = (class != 0)
            .then(|| self.cells.get(&CellKey { table, class }))
            .flatten();
        self.decode(own.unwrap_or(&self.tables[table as usize]))
    }

    pub(super) fn verdict(&self, slot: u16, side: Side, class: u32) -> Verdict {
        match self.table(slot, side) {
            // Nothing is audited.
            DENY_ALL if side.layer == Layer::Audited => self.cell(ALLOW_ALL, class),
            table => self.cell(table, class),
        }
    }

    fn decode(&self, cell: &Cell) -> Verdict {
        if let Some(&verdict) = self.decoded.borrow().get(cell) {
            return verdict;
        }
        let mut verdict = 0;
        let mut bit = 0;
        for set in [cell.tcp, cell.udp, cell.sctp] {
            for port in PORTS {
                let leaf = self.sets[set as usize].leaves[usize::from(port >> 8)];
                let word = self.leaves[leaf as usize].words[usize::from((port >> 6) & 3)];
                verdict |= ((word >> (port & 63) & 1) as u32) << bit;
                bit += 1;
            }
        }
        if cell.flags & Cell::ALL_PROTOCOLS != 0 {
            verdict = (1 << (bit + 1)) - 1;
        }
        self.decoded.borrow_mut().insert(*cell, verdict);
        verdict
    }

    fn write(&mut self, op: &Op) -> Result<(), StoreError> {
        match *op {
            Op::Leaf { leaf, ports } => {
                assert!(
                    !self
                        .sets_in_use()
                        .any(|set| self.sets[set as usize].leaves.contains(&leaf)),
                    "a leaf in use is written: {op}"
                );
                self.leaves[leaf as usize] = ports;
                self.decoded.borrow_mut().clear();
            }
            Op::Set {
                set, ref leaves, ..
            } => {
                assert!(
                    !self.sets_in_use().any(|other| other == set),
                    "a set in use is written: {op}"
                );
                let mut value = PortSet { leaves: [0; 256] };
                for &(place, leaf) in leaves {
                    value.leaves[usize::from(place)] = leaf;
                }
                self.sets[set as usize] = value;
                self.decoded.borrow_mut().clear();
            }
            Op::Cell { table, class, cell } => {
                assert_ne!(class, 0, "a stranger gets a cell: {op}");
                assert!(table > 1, "a constant table gets a cell: {op}");
                let key = CellKey { table, class };
                let present = self.cells.contains_key(&key);
                Self::room(self.cells.len(), self.capacity.cells, present, cell)?;
                put(&mut self.cells, key, cell);
            }
            Op::Default { table, cell } => self.tables[table as usize] = cell,
            Op::Peer { address, peer } => {
                let present = self.peers.contains_key(&address);
                let family = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
                let entries = self.peers.keys().filter(family).count();
                let capacity = if address.is_ipv4() {
                    self.capacity.peers_v4
                } else {
                    self.capacity.peers_v6
                };
                Self::room(entries, capacity, present, peer)?;
                if let Some(peer) = peer.filter(|peer| peer.slot != 0) {
                    let slot = &self.slots[usize::from(peer.slot)];
                    assert_ne!(*slot, Slot::default(), "an address names a free slot: {op}");
                }
                put(&mut self.peers, address, peer);
            }
            Op::Block { net, class } => {
                let four = |net: &IpNet| matches!(net, IpNet::V4(_));
                let nodes = self
                    .cidrs
                    .keys()
                    .filter(|other| four(other) == four(&net))
                    .count();
                let capacity = if four(&net) {
                    self.capacity.cidrs_v4
                } else {
                    self.capacity.cidrs_v6
                };
                // A full trie refuses replacements too.
                Self::room(nodes, capacity, false, class)?;
                put(&mut self.cidrs, net, class);
            }
            Op::Slot { slot, value } => self.slots[usize::from(slot)] = value,
            Op::Config(config) => self.config = config,
        }
        Ok(())
    }

    /// What programs can come by.
    fn in_use(&self) -> HashSet<Held> {
        let peers = self.peers.values().map(|peer| peer.class);
        let classes = peers.chain(self.cidrs.values().copied());
        let slots = || self.slots.iter().filter(|slot| **slot != Slot::default());
        let tables = slots().flat_map(|slot| Side::ALL.map(|side| table_of(slot, side)));
        let numbers = self.slots.iter().zip(0u16..);
        classes
            .map(Held::Class)
            .chain(tables.map(Held::Table))
            .chain(self.sets_in_use().map(Held::Set))
            .chain(
                numbers
                    .filter(|(slot, _)| **slot != Slot::default())
                    .map(|(_, number)| Held::Slot(number)),
            )
            .collect()
    }

    /// A program in flight may hold a number that was in use a moment ago. What it finds there must not change.
    fn assert_unseen(&self, op: &Op) {
        let held = |what: Held| self.flight.holds(what);
        match *op {
            Op::Cell { table, class, .. } => {
                let (table, class) = (Held::Table(table), Held::Class(class));
                let used = self.in_use();
                let reach = |what| used.contains(&what) || held(what);
                let known = used.contains(&table) && used.contains(&class);
                assert!(
                    known || !(reach(table) && reach(class)),
                    "a cell that a program may come by is written: {op}"
                );
            }
            Op::Default { table, .. } => {
                assert!(
                    !held(Held::Table(table)),
                    "a table that a program may hold: {op}"
                );
            }
            Op::Set { set, .. } => {
                assert!(!held(Held::Set(set)), "a set that a program may hold: {op}");
            }
            Op::Leaf { leaf, .. } => {
                let mut sets = self.flight.sets();
                assert!(
                    !sets.any(|set| self.sets[set as usize].leaves.contains(&leaf)),
                    "a leaf that a program may hold: {op}"
                );
            }
            Op::Slot { slot, .. } => {
                assert!(
                    !held(Held::Slot(slot)),
                    "a slot that a program may hold: {op}"
                );
            }
            Op::Peer { .. } | Op::Block { .. } | Op::Config(_) => {}
        }
    }

    fn sets_in_use(&self) -> impl Iterator<Item = u32> {
        let cells = self.cells.values().chain(&self.tables);
        cells
            .flat_map(|cell| [cell.tcp, cell.udp, cell.sctp])
            .filter(|&set| set > 1)
    }

    fn room<T>(
        map: usize,
        capacity: u32,
        present: bool,
        value: Option<T>,
    ) -> Result<(), StoreError> {
        if value.is_some() && !present && map >= capacity as usize {
            return Err(StoreError::Full);
        }
        Ok(())
    }
}

/// A number that a program can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Held {
    Class(u32),
    Table(u32),
    Set(u32),
    Slot(u16),
}

/// What went out of use less than a grace period ago.
#[derive(Clone)]
pub(super) struct Flight {
    pub(super) now: Instant,
    since: HashMap<Held, Instant>,
}

impl Flight {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            since: HashMap::new(),
        }
    }

    fn left(&mut self, before: &HashSet<Held>, after: &HashSet<Held>) {
        for held in before.difference(after) {
            self.since.insert(*held, self.now);
        }
        for held in after {
            self.since.remove(held);
        }
    }

    fn holds(&self, what: Held) -> bool {
        let since = self.since.get(&what);
        since.is_some_and(|since| self.now.duration_since(*since) < GRACE)
    }

    fn sets(&self) -> impl Iterator<Item = u32> {
        self.since.keys().filter_map(|held| match held {
            Held::Set(set) if self.holds(*held) => Some(*set),
            _ => None,
        })
    }
}

fn put<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl Store for Kernel {
    fn perform(&mut self, op: &Op) -> Result<(), StoreError> {
        self.assert_unseen(op);
        let before = self.in_use();
        self.write(op)?;
        let after = self.in_use();
        self.flight.left(&before, &after);
        Ok(())
    }

    fn dump(&self) -> Result<Dump, StoreError> {
        let numbered = |index: usize| u32::try_from(index).expect("a small number");
        let sets: HashSet<u32> = self.sets_in_use().chain([1]).collect();
        let sets: Vec<(u32, PortSet)> = sets
            .into_iter()
            .map(|set| (set, self.sets[set as usize]))
            .collect();
        let leaves: HashSet<u32> = sets
            .iter()
            .flat_map(|(_, set)| set.leaves)
            .filter(|&leaf| leaf != 0)
            .chain([1])
            .collect();
        Ok(Dump {
            peers: self
                .peers
                .iter()
                .map(|(&address, &peer)| (address, peer))
                .collect(),
            blocks: self
                .cidrs
                .iter()
                .map(|(&net, &class)| (net, class))
                .collect(),
            tables: (self.tables.iter().enumerate())
                .filter(|(_, cell)| **cell != Cell::DENY)
                .map(|(table, &cell)| (numbered(table), cell))
                .collect(),
            cells: self.cells.iter().map(|(&key, &cell)| (key, cell)).collect(),
            slots: (self.slots.iter().enumerate())
                .filter(|(_, slot)| **slot != Slot::default())
                .map(|(slot, &value)| (slot as u16, value))
                .collect(),
            leaves: leaves
                .into_iter()
                .map(|leaf| (leaf, self.leaves[leaf as usize]))
                .collect(),
            sets,
            config: self.config,
        })
    }

    fn sweep(&mut self, slots: &HashSet<u16>) -> Result<(), StoreError> {
        self.swept.extend(slots);
        Ok(())
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }
}
