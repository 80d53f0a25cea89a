//! Maps without an object: for tests of what writes them.

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya_obj::generated::{BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_RINGBUF};
use palisade_common::{limits, value::REASONS};

use super::{Capacity, Maps, handles::Handles};

impl Maps {
    /// New maps that no program uses. Flow tables are of a small size and not of the evicting kind.
    ///
    /// # Errors
    ///
    /// What the kernel says of the first map it refuses.
    pub fn create_standalone(capacity: Capacity) -> Result<Self, MapError> {
        const FLOWS: u32 = 1024;
        let ring = aya_obj::Map::new_from_params(
            BPF_MAP_TYPE_RINGBUF as u32,
            0,
            0,
            limits::EVENT_BYTES,
            0,
        );
        let ring = Map::RingBuf(MapData::create(ring, "EVENTS", None)?);
        Ok(Self {
            peers_v4: HashMap::create(capacity.peers_v4, BPF_F_NO_PREALLOC)?,
            peers_v6: HashMap::create(capacity.peers_v6, BPF_F_NO_PREALLOC)?,
            cidrs_v4: LpmTrie::create(capacity.cidrs_v4, BPF_F_NO_PREALLOC)?,
            cidrs_v6: LpmTrie::create(capacity.cidrs_v6, BPF_F_NO_PREALLOC)?,
            slots: Array::create(capacity.slots, 0)?,
            tables: Array::create(capacity.tables, 0)?,
            cells: HashMap::create(capacity.cells, BPF_F_NO_PREALLOC)?,
            port_sets: Array::create(capacity.port_sets, 0)?,
            port_leaves: Array::create(capacity.port_leaves, 0)?,
            flows_stream: HashMap::create(FLOWS, 0)?,
            flows_datagram: HashMap::create(FLOWS, 0)?,
            flows_new: HashMap::create(FLOWS, 0)?,
            pending: HashMap::create(FLOWS, 0)?,
            fragments: HashMap::create(FLOWS, 0)?,
            interfaces: Array::create(limits::INTERFACES, 0)?,
            interfaces_high: HashMap::create(limits::INTERFACES_HIGH, BPF_F_NO_PREALLOC)?,
            config: Array::create(1, 0)?,
            counters: PerCpuArray::create(2 * capacity.slots, 0)?,
            event_budget: PerCpuArray::create(2 * capacity.slots * REASONS as u32, 0)?,
            events: Some(RingBuf::try_from(ring)?),
            datagrams: FLOWS,
            capacity,
            handles: Handles::default(),
        })
    }
}
