//! What the maps say of one pod and one peer, read step by step as the programs do.

use std::net::IpAddr;

use aya::maps::{MapError, lpm_trie::Key};
use palisade_common::{
    key::CellKey,
    value::{ALL_PORTS, ALLOW_ALL, Cell, DENY_ALL, NO_PORTS, Peer, STRANGER, Slot},
};
use palisade_policy::table::{self, Direction, PortSet};

use super::Maps;
use crate::encode;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The pod.
    pub slot: Slot,
    /// The verdict table of the direction.
    pub table: u32,
    /// The class of the peer, and by what it was found.
    pub class: u32,
    /// By what the class was found.
    pub by: Known,
    /// Which cell of the table it was.
    pub cell: Place,
    /// What that lets pass.
    pub passes: table::Cell,
}

/// By what the class of an address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The address itself.
    Address,
    /// The longest block around it.
    Block,
    /// Nothing: no peer list has it.
    Stranger,
}

/// Where a table says what a class may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the table allows all, or denies all.
    Constant,
    /// In a cell of the class.
    Explicit,
    /// In the cell of all that have none.
    Default,
}

impl Maps {
    /// Looks a peer up for the pod of a slot.
    ///
    /// # Errors
    ///
    /// What the kernel says, for a slot past the end of the map as well.
    pub fn look_up(
        &self,
        slot: u16,
        direction: Direction,
        peer: IpAddr,
    ) -> Result<Lookup, MapError> {
        let slot: Slot = self.slots.get(&u32::from(slot), 0)?;
        let table = match direction {
            Direction::Ingress => slot.ingress,
            Direction::Egress => slot.egress,
        };
        let (class, by) = self.class(peer)?;
        let (place, cell) = match table {
            ALLOW_ALL => (Place::Constant, Cell::ALLOW),
            DENY_ALL => (Place::Constant, Cell::DENY),
            _ => self.cell(table, class)?,
        };
        Ok(Lookup {
            slot,
            table,
            class,
            by,
            cell: place,
            passes: self.decode(&cell)?,
        })
    }

    fn class(&self, address: IpAddr) -> Result<(u32, Known), MapError> {
        let peer: Option<Peer> = match address {
            IpAddr::V4(ip) => found(self.peers_v4.get(&encode::v4(ip), 0))?,
            IpAddr::V6(ip) => found(self.peers_v6.get(&encode::v6(ip), 0))?,
        };
        if let Some(peer) = peer {
            return Ok((peer.class, Known::Address));
        }
        let block = match address {
            IpAddr::V4(ip) => found(self.cidrs_v4.get(&Key::new(32, encode::v4(ip)), 0))?,
            IpAddr::V6(ip) => found(self.cidrs_v6.get(&Key::new(128, encode::v6(ip)), 0))?,
        };
        Ok(block.map_or((STRANGER, Known::Stranger), |class| (class, Known::Block)))
    }

    fn cell(&self, table: u32, class: u32) -> Result<(Place, Cell), MapError> {
        if class != STRANGER
            && let Some(cell) = found(self.cells.get(&CellKey { table, class }, 0))?
        {
            return Ok((Place::Explicit, cell));
        }
        // Past the end the programs find nothing, and deny.
        let default = (table < self.tables.len()).then(|| self.tables.get(&table, 0));
        Ok((Place::Default, default.transpose()?.unwrap_or(Cell::DENY)))
    }

    fn decode(&self, cell: &Cell) -> Result<table::Cell, MapError> {
        if cell.flags & Cell::ALL_PROTOCOLS != 0 {
            return Ok(table::Cell::allow());
        }
        Ok(table::Cell {
            tcp: self.ports(cell.tcp)?,
            udp: self.ports(cell.udp)?,
            sctp: self.ports(cell.sctp)?,
            all_protocols: false,
        })
    }

    fn ports(&self, set: u32) -> Result<PortSet, MapError> {
        match set {
            NO_PORTS => return Ok(PortSet::none()),
            ALL_PORTS => return Ok(PortSet::all()),
            set if set >= self.port_sets.len() => return Ok(PortSet::none()),
            _ => {}
        }
        let mut leaves = Vec::new();
        for (place, leaf) in (0..=u8::MAX).zip(self.port_sets.get(&set, 0)?.leaves) {
            if leaf != NO_PORTS && leaf < self.port_leaves.len() {
                leaves.push((place, self.port_leaves.get(&leaf, 0)?));
            }
        }
        Ok(encode::ports(leaves))
    }
}

/// A key that is not there is an answer.
fn found<V>(value: Result<V, MapError>) -> Result<Option<V>, MapError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
