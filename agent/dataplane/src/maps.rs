//! Typed handles of all pinned maps: the one place where their names are strings.

use std::path::Path;

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use palisade_common::{
    Address,
    key::{CellKey, CidrV4, CidrV6, FlowKey, FragmentKey},
    value::{
        Cell, Config, Counters, EventBudget, Flow, Interface, Peer, PortLeaf, PortSet, Ports, Slot,
    },
};

use self::handles::Handles;
pub use self::{capacity::Capacity, handles::HandlesError};

mod capacity;
mod flows;
mod handles;
mod interfaces;
pub mod lookup;
mod standalone;
mod store;
mod sweep;

/// A map that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// The object has no map of that name.
    #[error("the object has no map {name}")]
    Missing {
        /// The map.
        name: &'static str,
    },
    /// A map of the programs' own cannot be looked at.
    #[error("map {name} cannot be looked at")]
    Private {
        /// The map.
        name: String,
        /// Why not.
        #[source]
        source: MapError,
    },
    /// The map cannot be opened, or is of another layout.
    #[error("map {name} cannot be used")]
    Unusable {
        /// The map.
        name: &'static str,
        /// What the kernel or the check says.
        #[source]
        source: MapError,
    },
}

/// Every map. What each holds is said at its key and value in `palisade_common`.
pub struct Maps {
    /// IPv4 addresses that are known by themselves.
    pub peers_v4: HashMap<MapData, u32, Peer>,
    /// IPv6 addresses that are known by themselves.
    pub peers_v6: HashMap<MapData, Address, Peer>,
    /// Classes of IPv4 blocks.
    pub cidrs_v4: LpmTrie<MapData, CidrV4, u32>,
    /// Classes of IPv6 blocks.
    pub cidrs_v6: LpmTrie<MapData, CidrV6, u32>,
    /// Local pods.
    pub slots: Array<MapData, Slot>,
    /// Default cells of verdict tables.
    pub tables: Array<MapData, Cell>,
    /// Cells of verdict tables.
    pub cells: HashMap<MapData, CellKey, Cell>,
    /// Port sets.
    pub port_sets: Array<MapData, PortSet>,
    /// Leaves of port sets.
    pub port_leaves: Array<MapData, PortLeaf>,
    /// Answered flows of TCP and SCTP.
    pub flows_stream: HashMap<MapData, FlowKey, Flow>,
    /// Answered flows of other protocols.
    pub flows_datagram: HashMap<MapData, FlowKey, Flow>,
    /// Flows without an answer yet.
    pub flows_new: HashMap<MapData, FlowKey, Flow>,
    /// Flows that wait for their exit, by cookie.
    pub pending: HashMap<MapData, u32, FlowKey>,
    /// Ports of fragmented datagrams.
    pub fragments: HashMap<MapData, FragmentKey, Ports>,
    /// Interfaces with programs, by index.
    pub interfaces: Array<MapData, Interface>,
    /// Interfaces whose index is past the end of `interfaces`.
    pub interfaces_high: HashMap<MapData, u32, Interface>,
    /// The one [`Config`].
    pub config: Array<MapData, Config>,
    /// Counters per slot and direction.
    pub counters: PerCpuArray<MapData, Counters>,
    /// Events of the present second.
    pub event_budget: PerCpuArray<MapData, EventBudget>,
    /// The event ring, for whoever takes it to read it.
    pub events: Option<RingBuf<MapData>>,
    /// Entries of `FLOWS_DATAGRAM`.
    datagrams: u32,
    capacity: Capacity,
    handles: Handles,
}

impl Maps {
    /// The maps of a loaded object, which gives them up.
    ///
    /// # Errors
    ///
    /// The first map that is missing or of another layout.
    pub fn take(object: &mut Ebpf) -> Result<Self, MapsError> {
        let mut maps = Self::from_source(|name| {
            let map = object.take_map(name).ok_or(MapsError::Missing { name })?;
            match map {
                Map::Array(data)
                | Map::HashMap(data)
                | Map::LpmTrie(data)
                | Map::LruHashMap(data)
                | Map::PerCpuArray(data)
                | Map::RingBuf(data) => Ok(data),
                _ => Err(MapsError::Missing { name }),
            }
        })?;
        // What the programs alone use is pinned as well.
        for (name, map) in object.maps() {
            if let Map::PerCpuArray(data) | Map::Array(data) = map {
                let added = maps.handles.add(name, data);
                added.map_err(|source| MapsError::Private {
                    name: name.to_owned(),
                    source,
                })?;
            }
        }
        Ok(maps)
    }

    /// The maps pinned in a folder, each under its name.
    ///
    /// # Errors
    ///
    /// The first map that is missing or of another layout.
    pub fn open(folder: &Path) -> Result<Self, MapsError> {
        Self::from_source(|name| {
            MapData::from_pin(folder.join(name))
                .map_err(|source| MapsError::Unusable { name, source })
        })
    }

    /// Pins those maps again that are not under their names in a folder; how many those were.
    ///
    /// # Errors
    ///
    /// What cannot be looked at, removed or pinned.
    pub fn pin_again(&self, folder: &Path) -> Result<u64, HandlesError> {
        self.handles.pin_again(folder)
    }

    /// Whether both lead to the same maps of the kernel.
    #[must_use]
    pub fn are(&self, others: &Self) -> bool {
        self.handles.are(&others.handles)
    }

    /// How much the maps can hold.
    #[must_use]
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    fn from_source(
        mut source: impl FnMut(&'static str) -> Result<MapData, MapsError>,
    ) -> Result<Self, MapsError> {
        let mut handles = Handles::default();
        let mut sized = |name| -> Result<(MapData, u32), MapsError> {
            let data = source(name)?;
            let entries = handles
                .add(name, &data)
                .map_err(|source| MapsError::Unusable { name, source })?;
            Ok((data, entries))
        };
        macro_rules! open {
            ($kind:ident, $name:literal) => {{
                let (data, entries) = sized($name)?;
                let map = Map::$kind(data)
                    .try_into()
                    .map_err(|source| MapsError::Unusable {
                        name: $name,
                        source,
                    })?;
                (map, entries)
            }};
        }
        let (peers_v4, v4) = open!(HashMap, "PEERS_V4");
        let (peers_v6, v6) = open!(HashMap, "PEERS_V6");
        let (cidrs_v4, nodes_v4) = open!(LpmTrie, "CIDRS_V4");
        let (cidrs_v6, nodes_v6) = open!(LpmTrie, "CIDRS_V6");
        let (slots, slot_count) = open!(Array, "SLOTS");
        let (tables, table_count) = open!(Array, "TABLES");
        let (cells, cell_count) = open!(HashMap, "CELLS");
        let (port_sets, set_count) = open!(Array, "PORT_SETS");
        let (port_leaves, leaf_count) = open!(Array, "PORT_LEAVES");
        let (flows_datagram, datagrams) = open!(HashMap, "FLOWS_DATAGRAM");
        Ok(Self {
            peers_v4,
            peers_v6,
            cidrs_v4,
            cidrs_v6,
            slots,
            tables,
            cells,
            port_sets,
            port_leaves,
            flows_stream: open!(HashMap, "FLOWS_STREAM").0,
            flows_datagram,
            flows_new: open!(HashMap, "FLOWS_NEW").0,
            pending: open!(HashMap, "PENDING").0,
            fragments: open!(HashMap, "FRAGMENTS").0,
            interfaces: open!(Array, "INTERFACES").0,
            interfaces_high: open!(HashMap, "INTERFACES_HIGH").0,
            config: open!(Array, "CONFIG").0,
            counters: open!(PerCpuArray, "COUNTERS").0,
            event_budget: open!(PerCpuArray, "EVENT_BUDGET").0,
            events: Some(open!(RingBuf, "EVENTS").0),
            datagrams,
            capacity: Capacity {
                peers_v4: v4,
                peers_v6: v6,
                cidrs_v4: nodes_v4,
                cidrs_v6: nodes_v6,
                slots: slot_count,
                tables: table_count,
                cells: cell_count,
                port_sets: set_count,
                port_leaves: leaf_count,
            },
            handles,
        })
    }
}
