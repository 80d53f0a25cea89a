//! Writes and readings of the real maps.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use aya::maps::{Array, MapError, lpm_trie::Key};
use ipnet::IpNet;
use palisade_common::value::{ALL_PORTS, Cell, PortLeaf, PortSet, Slot};

use super::{Capacity, Maps};
use crate::{
    apply::{Store, StoreError},
    encode,
    mirror::Dump,
    plan::op::Op,
};

impl Store for Maps {
    fn perform(&mut self, op: &Op) -> Result<(), StoreError> {
        self.write(op).map_err(StoreError::from)
    }

    fn dump(&self) -> Result<Dump, StoreError> {
        self.read().map_err(StoreError::from)
    }

    fn sweep(&mut self, slots: &HashSet<u16>) -> Result<(), StoreError> {
        Self::sweep(self, slots).map_err(StoreError::from)
    }

    fn capacity(&self) -> Capacity {
        *self.capacity()
    }
}

impl From<MapError> for StoreError {
    fn from(error: MapError) -> Self {
        let code = match &error {
            MapError::SyscallError(error) => error.io_error.raw_os_error(),
            MapError::IoError(error) => error.raw_os_error(),
            _ => None,
        };
        match code {
            // Full: a hash map says E2BIG, a trie ENOSPC.
            Some(libc::E2BIG | libc::ENOSPC) => Self::Full,
            Some(libc::ENOMEM) => Self::Memory,
            _ => Self::Other(Box::new(error)),
        }
    }
}

impl Maps {
    fn write(&mut self, op: &Op) -> Result<(), MapError> {
        match op {
            Op::Leaf { leaf, ports } => self.port_leaves.set(*leaf, ports, 0),
            Op::Set { set, leaves, .. } => {
                let mut value = PortSet {
                    leaves: [0; palisade_common::limits::SET_LEAVES],
                };
                for &(place, leaf) in leaves {
                    value.leaves[usize::from(place)] = leaf;
                }
                self.port_sets.set(*set, value, 0)
            }
            Op::Cell { table, class, cell } => {
                let key = palisade_common::key::CellKey {
                    table: *table,
                    class: *class,
                };
                match cell {
                    Some(cell) => self.cells.insert(key, cell, 0),
                    None => absent_is_removed(self.cells.remove(&key)),
                }
            }
            Op::Default { table, cell } => self.tables.set(*table, cell, 0),
            Op::Peer { address, peer } => match (address, peer) {
                (IpAddr::V4(ip), Some(peer)) => self.peers_v4.insert(encode::v4(*ip), peer, 0),
                (IpAddr::V6(ip), Some(peer)) => self.peers_v6.insert(encode::v6(*ip), peer, 0),
                (IpAddr::V4(ip), None) => absent_is_removed(self.peers_v4.remove(&encode::v4(*ip))),
                (IpAddr::V6(ip), None) => absent_is_removed(self.peers_v6.remove(&encode::v6(*ip))),
            },
            Op::Block { net, class } => {
                let length = u32::from(net.prefix_len());
                match (net, class) {
                    (IpNet::V4(net), Some(class)) => {
                        let key = Key::new(length, encode::cidr_v4(*net));
                        self.cidrs_v4.insert(&key, class, 0)
                    }
                    (IpNet::V6(net), Some(class)) => {
                        let key = Key::new(length, encode::cidr_v6(*net));
                        self.cidrs_v6.insert(&key, class, 0)
                    }
                    (IpNet::V4(net), None) => {
                        let key = Key::new(length, encode::cidr_v4(*net));
                        absent_is_removed(self.cidrs_v4.remove(&key))
                    }
                    (IpNet::V6(net), None) => {
                        let key = Key::new(length, encode::cidr_v6(*net));
                        absent_is_removed(self.cidrs_v6.remove(&key))
                    }
                }
            }
            Op::Slot { slot, value } => self.slots.set(u32::from(*slot), value, 0),
            Op::Config(config) => self.config.set(0, config, 0),
        }
    }

    fn read(&self) -> Result<Dump, MapError> {
        let mut dump = Dump {
            config: self.config.get(&0, 0)?,
            ..Dump::default()
        };
        for entry in self.peers_v4.iter() {
            let (key, peer) = entry?;
            dump.peers.push((encode::from_v4(key), peer));
        }
        for entry in self.peers_v6.iter() {
            let (key, peer) = entry?;
            dump.peers.push((encode::from_v6(key), peer));
        }
        for entry in self.cidrs_v4.iter() {
            let (key, class) = entry?;
            let net = encode::from_cidr_v4(key.data(), key.prefix_len());
            dump.blocks.extend(net.map(|net| (net, class)));
        }
        for entry in self.cidrs_v6.iter() {
            let (key, class) = entry?;
            let net = encode::from_cidr_v6(key.data(), key.prefix_len());
            dump.blocks.extend(net.map(|net| (net, class)));
        }
        for entry in self.cells.iter() {
            dump.cells.push(entry?);
        }
        dump.tables = entries(&self.tables, |cell: &Cell| *cell != Cell::DENY)?;
        dump.slots = entries(&self.slots, |slot: &Slot| *slot != Slot::default())?
            .into_iter()
            .map(|(slot, value)| (slot as u16, value))
            .collect();
        let sets: BTreeSet<u32> = dump.referred_sets().chain([ALL_PORTS]).collect();
        let mut leaves = BTreeSet::from([ALL_PORTS]);
        for set in sets.into_iter().filter(|&set| set < self.port_sets.len()) {
            let value = self.port_sets.get(&set, 0)?;
            leaves.extend(value.leaves.iter().filter(|&&leaf| leaf != 0));
            dump.sets.push((set, value));
        }
        for leaf in leaves
            .into_iter()
            .filter(|&leaf| leaf < self.port_leaves.len())
        {
            let ports: PortLeaf = self.port_leaves.get(&leaf, 0)?;
            dump.leaves.push((leaf, ports));
        }
        Ok(dump)
    }
}

fn entries<V: aya::Pod>(
    array: &Array<aya::maps::MapData, V>,
    keep: impl Fn(&V) -> bool,
) -> Result<Vec<(u32, V)>, MapError> {
    let mut entries = Vec::new();
    for index in 0..array.len() {
        let value = array.get(&index, 0)?;
        if keep(&value) {
            entries.push((index, value));
        }
    }
    Ok(entries)
}

/// Removing what is not there is no failure.
pub(super) fn absent_is_removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        result => result,
    }
}
