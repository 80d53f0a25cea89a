//! The mirror of maps that were read.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use palisade_common::{
    key::CellKey,
    value::{ALL_PORTS, Cell, Config, NO_PORTS, Peer, PortLeaf, PortSet, Slot},
};

use super::Mirror;
use crate::{encode, plan::op::Op};

/// The contents of the maps that hold verdicts, as read. What is all zero in an array may be left out.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// `PEERS_V4` and `PEERS_V6`.
    pub peers: Vec<(IpAddr, Peer)>,
    /// `CIDRS_V4` and `CIDRS_V6`.
    pub blocks: Vec<(IpNet, u32)>,
    /// `TABLES`.
    pub tables: Vec<(u32, Cell)>,
    /// `CELLS`.
    pub cells: Vec<(CellKey, Cell)>,
    /// `SLOTS`.
    pub slots: Vec<(u16, Slot)>,
    /// Those of `PORT_SETS` that cells refer to, and the set of all ports.
    pub sets: Vec<(u32, PortSet)>,
    /// Those of `PORT_LEAVES` that the sets refer to, and the leaf of all ports.
    pub leaves: Vec<(u32, PortLeaf)>,
    /// `CONFIG`.
    pub config: Config,
}

impl Dump {
    /// The sets that the cells refer to.
    pub fn referred_sets(&self) -> impl Iterator<Item = u32> {
        self.cells
            .iter()
            .map(|(_, cell)| cell)
            .chain(self.tables.iter().map(|(_, cell)| cell))
            .flat_map(|cell| [cell.tcp, cell.udp, cell.sctp])
            .filter(|&set| set > ALL_PORTS)
    }
}

impl From<Dump> for Mirror {
    fn from(dump: Dump) -> Self {
        let mut mirror = Self::default();
        let leaves: HashMap<u32, PortLeaf> = dump.leaves.into_iter().collect();
        let mut note = |op: Op| mirror.note(&op);
        for (number, set) in dump.sets {
            let places: Box<[(u8, u32)]> = (0..=u8::MAX)
                .zip(set.leaves)
                .filter(|&(_, leaf)| leaf != NO_PORTS)
                .collect();
            let ports = encode::ports(
                places
                    .iter()
                    .filter_map(|&(place, leaf)| Some((place, *leaves.get(&leaf)?))),
            );
            note(Op::Set {
                set: number,
                ports,
                leaves: places,
            });
        }
        for (leaf, ports) in leaves {
            note(Op::Leaf { leaf, ports });
        }
        for (table, cell) in dump.tables {
            note(Op::Default { table, cell });
        }
        for (CellKey { table, class }, cell) in dump.cells {
            note(Op::Cell {
                table,
                class,
                cell: Some(cell),
            });
        }
        for (address, peer) in dump.peers {
            note(Op::Peer {
                address,
                peer: Some(peer),
            });
        }
        for (net, class) in dump.blocks {
            note(Op::Block {
                net,
                class: Some(class),
            });
        }
        for (slot, value) in dump.slots {
            note(Op::Slot { slot, value });
        }
        note(Op::Config(dump.config));
        mirror
    }
}
