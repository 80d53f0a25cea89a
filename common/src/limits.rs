//! Capacities. What happens at each limit is said where the limit is enforced, and here in short.

/// Slots of a node; slot 0 names nobody. One pod more is not enforced and `status` names it.
pub const SLOTS: u32 = 4096;
/// Default entries of `PEERS_V4` and `PEERS_V6` each. An address that does not fit gets class 0,
/// which only rules without peers match: it is denied more, never less.
pub const PEERS: u32 = 262_144;
/// Default nodes of `CIDRS_V4` and `CIDRS_V6` each. A block that does not fit matches nothing.
pub const CIDRS: u32 = 65_536;
/// Default entries of `CELLS`. A table that does not fit is replaced by deny-all.
pub const CELLS: u32 = 524_288;
/// Entries of `TABLES`; 0 denies all, 1 allows all.
pub const TABLES: u32 = 16_384;
/// Entries of `PORT_SETS`; 0 is no port, 1 every port. A cell whose set does not fit gets set 0.
pub const PORT_SETS: u32 = 8_192;
/// Entries of `PORT_LEAVES`, each 256 ports; 0 is none, 1 all.
pub const PORT_LEAVES: u32 = 65_536;
/// Default entries of `FLOWS_STREAM` and `FLOWS_DATAGRAM` each. The least recently used one goes; a
/// live TCP connection is found again in its pod's own socket table.
pub const FLOWS: u32 = 262_144;
/// Default entries of `FLOWS_NEW`.
pub const FLOWS_NEW: u32 = 131_072;
/// Entries of `PENDING`.
pub const PENDING: u32 = 32_768;
/// Entries of `FRAGMENTS`.
pub const FRAGMENTS: u32 = 16_384;
/// Interface indices that `INTERFACES` holds; an array, for its lookup is on every packet's way.
pub const INTERFACES: u32 = 65_536;
/// Entries of `INTERFACES_HIGH`: devices with an index beyond that.
pub const INTERFACES_HIGH: u32 = 16_384;
/// Bytes of the event ring.
pub const EVENT_BYTES: u32 = 1 << 20;
/// Ports in one leaf of a port set.
pub const LEAF_PORTS: u32 = 256;
/// Leaves of one port set.
pub const SET_LEAVES: usize = 256;
