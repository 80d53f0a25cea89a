//! The maps of a loaded object, by type.

use std::net::IpAddr;

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, RingBuf},
};
use palisade_common::{
    Address,
    key::{CellKey, CidrV4, CidrV6, FlowKey, FragmentKey},
    value::{Cell, Config, Counters, Flow, Interface, Peer, PortLeaf, PortSet, Ports, Slot},
};

macro_rules! maps {
    ($($(#[$doc:meta])* $field:ident: $name:literal, $type:ty;)*) => {
        /// Every map that is written or read from outside the programs. What each holds is said at its
        /// key and value in `palisade_common`.
        pub struct Maps {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Maps {
            /// The maps of an object, which gives them up.
            pub(super) fn take(object: &mut Ebpf) -> (Self, RingBuf<MapData>) {
                let events = object.take_map("EVENTS").expect("EVENTS");
                let maps = Self {
                    $($field: object.take_map($name).expect($name).try_into().expect($name),)*
                };
                (maps, events.try_into().expect("EVENTS"))
            }
        }
    };
}

maps! {
    /// IPv4 addresses that are known by themselves.
    peers_v4: "PEERS_V4", HashMap<MapData, u32, Peer>;
    /// IPv6 addresses that are known by themselves.
    peers_v6: "PEERS_V6", HashMap<MapData, Address, Peer>;
    /// Classes of IPv4 blocks.
    cidrs_v4: "CIDRS_V4", LpmTrie<MapData, CidrV4, u32>;
    /// Classes of IPv6 blocks.
    cidrs_v6: "CIDRS_V6", LpmTrie<MapData, CidrV6, u32>;
    /// Local pods.
    slots: "SLOTS", Array<MapData, Slot>;
    /// Default cells of verdict tables.
    tables: "TABLES", Array<MapData, Cell>;
    /// Cells of verdict tables.
    cells: "CELLS", HashMap<MapData, CellKey, Cell>;
    /// Port sets.
    port_sets: "PORT_SETS", Array<MapData, PortSet>;
    /// Leaves of port sets.
    port_leaves: "PORT_LEAVES", Array<MapData, PortLeaf>;
    /// Answered flows of TCP and SCTP.
    flows_stream: "FLOWS_STREAM", HashMap<MapData, FlowKey, Flow>;
    /// Answered flows of other protocols.
    flows_datagram: "FLOWS_DATAGRAM", HashMap<MapData, FlowKey, Flow>;
    /// Flows without an answer yet.
    flows_new: "FLOWS_NEW", HashMap<MapData, FlowKey, Flow>;
    /// Flows that wait for their exit, by cookie.
    pending: "PENDING", HashMap<MapData, u32, FlowKey>;
    /// Ports of fragmented datagrams.
    fragments: "FRAGMENTS", HashMap<MapData, FragmentKey, Ports>;
    /// Interfaces with programs.
    interfaces: "INTERFACES", Array<MapData, Interface>;
    /// The one configuration.
    config: "CONFIG", Array<MapData, Config>;
    /// Counters per slot and direction.
    counters: "COUNTERS", PerCpuArray<MapData, Counters>;
}

/// An address as maps hold it.
#[must_use]
pub fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()), 0, 0, 0],
        IpAddr::V6(v6) => {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
                *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            words
        }
    }
}
