//! How much the maps can hold.

use palisade_common::limits;

/// Entries of each map that holds verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Of `PEERS_V4`.
    pub peers_v4: u32,
    /// Of `PEERS_V6`.
    pub peers_v6: u32,
    /// Of `CIDRS_V4`. One is kept free: kernels before 6.13 refuse to replace a node of a full trie.
    pub cidrs_v4: u32,
    /// Of `CIDRS_V6`; see `cidrs_v4`.
    pub cidrs_v6: u32,
    /// Of `SLOTS`, slot 0 included.
    pub slots: u32,
    /// Of `TABLES`, the two constant ones included.
    pub tables: u32,
    /// Of `CELLS`.
    pub cells: u32,
    /// Of `PORT_SETS`, the two constant ones included.
    pub port_sets: u32,
    /// Of `PORT_LEAVES`, the two constant ones included.
    pub port_leaves: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            peers_v4: limits::PEERS,
            peers_v6: limits::PEERS,
            cidrs_v4: limits::CIDRS,
            cidrs_v6: limits::CIDRS,
            slots: limits::SLOTS,
            tables: limits::TABLES,
            cells: limits::CELLS,
            port_sets: limits::PORT_SETS,
            port_leaves: limits::PORT_LEAVES,
        }
    }
}

impl Capacity {
    /// IPv4 blocks that fit.
    pub(crate) fn nodes_v4(&self) -> u32 {
        self.cidrs_v4.saturating_sub(1)
    }

    /// IPv6 blocks that fit.
    pub(crate) fn nodes_v6(&self) -> u32 {
        self.cidrs_v6.saturating_sub(1)
    }
}
