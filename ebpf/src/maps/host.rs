//! The maps, as user space has them.

use aya_ebpf::maps::{Array, HashMap, LpmTrie};
use palisade_common::{
    Address,
    key::CellKey,
    value::{Cell, Config, Interface, Peer, PortLeaf, PortSet, Slot},
};

/// Those that user space writes.
#[expect(missing_docs, reason = "each is the map of that name")]
pub struct Maps {
    pub peers_v4: &'static HashMap<u32, Peer>,
    pub peers_v6: &'static HashMap<Address, Peer>,
    pub cidrs_v4: &'static LpmTrie<u32, u32>,
    pub cidrs_v6: &'static LpmTrie<Address, u32>,
    pub slots: &'static Array<Slot>,
    pub tables: &'static Array<Cell>,
    pub cells: &'static HashMap<CellKey, Cell>,
    pub port_sets: &'static Array<PortSet>,
    pub port_leaves: &'static Array<PortLeaf>,
    pub interfaces: &'static Array<Interface>,
    pub config: &'static Array<Config>,
}

/// The maps of this process.
pub const MAPS: Maps = Maps {
    peers_v4: &super::PEERS_V4,
    peers_v6: &super::PEERS_V6,
    cidrs_v4: &super::CIDRS_V4,
    cidrs_v6: &super::CIDRS_V6,
    slots: &super::SLOTS,
    tables: &super::TABLES,
    cells: &super::CELLS,
    port_sets: &super::PORT_SETS,
    port_leaves: &super::PORT_LEAVES,
    interfaces: &super::INTERFACES,
    config: &super::CONFIG,
};

impl Maps {
    /// Empties every map, those too that the programs write.
    pub fn clear(&self) {
        let Self {
            peers_v4,
            peers_v6,
            cidrs_v4,
            cidrs_v6,
            slots,
            tables,
            cells,
            port_sets,
            port_leaves,
            interfaces,
            config,
        } = self;
        peers_v4.clear();
        peers_v6.clear();
        cidrs_v4.clear();
        cidrs_v6.clear();
        slots.clear();
        tables.clear();
        cells.clear();
        port_sets.clear();
        port_leaves.clear();
        interfaces.clear();
        config.clear();
        super::INTERFACES_HIGH.clear();
        for flows in [
            &super::FLOWS_STREAM,
            &super::FLOWS_DATAGRAM,
            &super::FLOWS_NEW,
        ] {
            flows.clear();
        }
        super::PENDING.clear();
        super::FRAGMENTS.clear();
        super::COUNTERS.clear();
        super::EVENT_BUDGET.clear();
        super::PACKET.clear();
    }
}
