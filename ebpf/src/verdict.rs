//! What policy says: class, table, cell, port set. The same function for both directions and families.

use palisade_common::{
    Address, protocol,
    value::{ALL_PORTS, ALLOW_ALL, Cell, DENY_ALL, NO_PORTS, Peer, STRANGER},
};

use crate::maps;

/// What is known of an address: its class, and the local pod that owns it.
#[inline(always)]
pub(crate) fn peer(family: u8, address: &Address) -> Peer {
    match maps::peer(family, address) {
        Some(peer) => peer,
        None => Peer {
            class: maps::block_class(family, address).unwrap_or(STRANGER),
            slot: 0,
            flags: 0,
        },
    }
}

/// Whether a table allows a class at a port of a protocol.
#[inline(always)]
pub(crate) fn allows(table: u32, class: u32, protocol: u8, port: u16) -> bool {
    match table {
        ALLOW_ALL => true,
        DENY_ALL => false,
        _ => match maps::cell(table, class) {
            Some(cell) => cell_allows(cell, protocol, port),
            None => false,
        },
    }
}

#[inline(always)]
fn cell_allows(cell: &Cell, protocol: u8, port: u16) -> bool {
    if cell.flags & Cell::ALL_PROTOCOLS != 0 {
        return true;
    }
    let set = match protocol {
        protocol::TCP => cell.tcp,
        protocol::UDP => cell.udp,
        protocol::SCTP => cell.sctp,
        _ => NO_PORTS,
    };
    match set {
        NO_PORTS => false,
        ALL_PORTS => true,
        set => maps::port_in_set(set, port),
    }
}
