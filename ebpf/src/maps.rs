//! Every map, and typed access to it. Sizes are defaults; the agent may choose others when it loads.

use crate::parse::Packet;
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use palisade_common::{
    Address,
    event::Event,
    family,
    key::{CellKey, FlowKey, FragmentKey},
    limits,
    value::{
        Cell, Config, Counters, EventBudget, Flow, Interface, Peer, PortLeaf, PortSet, Ports,
        REASONS, Slot,
    },
    verdict::Direction,
};

#[cfg(not(target_arch = "bpf"))]
pub(crate) mod host;

#[map]
static PEERS_V4: HashMap<u32, Peer> = HashMap::with_max_entries(limits::PEERS, BPF_F_NO_PREALLOC);
#[map]
static PEERS_V6: HashMap<Address, Peer> =
    HashMap::with_max_entries(limits::PEERS, BPF_F_NO_PREALLOC);
#[map]
static CIDRS_V4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(limits::CIDRS, 0);
#[map]
static CIDRS_V6: LpmTrie<Address, u32> = LpmTrie::with_max_entries(limits::CIDRS, 0);
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(limits::SLOTS, 0);
#[map]
static TABLES: Array<Cell> = Array::with_max_entries(limits::TABLES, 0);
#[map]
static CELLS: HashMap<CellKey, Cell> = HashMap::with_max_entries(limits::CELLS, BPF_F_NO_PREALLOC);
#[map]
static PORT_SETS: Array<PortSet> = Array::with_max_entries(limits::PORT_SETS, 0);
#[map]
static PORT_LEAVES: Array<PortLeaf> = Array::with_max_entries(limits::PORT_LEAVES, 0);
#[map]
static FLOWS_STREAM: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(limits::FLOWS, 0);
#[map]
static FLOWS_DATAGRAM: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(limits::FLOWS, 0);
#[map]
static FLOWS_NEW: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(limits::FLOWS_NEW, 0);
#[map]
static PENDING: LruHashMap<u32, FlowKey> = LruHashMap::with_max_entries(limits::PENDING, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, Ports> =
    LruHashMap::with_max_entries(limits::FRAGMENTS, 0);
#[map]
static INTERFACES: Array<Interface> = Array::with_max_entries(limits::INTERFACES, 0);
#[map]
static INTERFACES_HIGH: HashMap<u32, Interface> =
    HashMap::with_max_entries(limits::INTERFACES_HIGH, BPF_F_NO_PREALLOC);
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(2 * limits::SLOTS, 0);
#[map]
static EVENT_BUDGET: PerCpuArray<EventBudget> =
    PerCpuArray::with_max_entries(2 * limits::SLOTS * REASONS as u32, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENT_BYTES, 0);

/// The packet under way. Not on the stack, which is small; and what is read back from a map is unknown to
/// the verifier, so that it follows one state past the parser instead of one for each kind of packet.
#[map]
static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's packet, emptied. Programs on one CPU do not interrupt each other: they run with bottom
/// halves off.
#[inline(always)]
pub(crate) fn packet() -> Option<&'static mut Packet> {
    let packet = PACKET.get_ptr_mut(0)?;
    // Word by word: what the compiler makes of an assignment is a loop over bytes.
    const { assert!(size_of::<Packet>() == 56 && align_of::<Packet>() == 8) };
    for word in 0..6 {
        let word = packet.cast::<u64>().wrapping_add(word);
        // SAFETY: within the value, whose size and alignment are asserted; zeroes are an empty packet.
        unsafe { word.write_volatile(0) };
    }
    // SAFETY: this CPU's own value, and each run of a program asks once.
    let packet = unsafe { &mut *packet };
    Some(packet)
}

/// The same number, of which the verifier knows nothing any more: the states in which a program arrives
/// here become one. Without it the paths through a program multiply beyond the verifier's patience.
#[inline(always)]
pub(crate) fn forget(packet: &mut Packet, number: u64) -> u64 {
    let cell = &raw mut packet.opaque;
    // SAFETY: a field of this CPU's own value.
    unsafe { cell.write_volatile(number) };
    // SAFETY: as above.
    unsafe { cell.read_volatile() }
}

/// A copy of an address, word by word: of an assignment between maps and stack the compiler makes a loop
/// over bytes.
#[inline(always)]
pub(crate) fn copy(address: &Address) -> Address {
    let word = |index: usize| {
        // SAFETY: a reference to initialised words.
        unsafe { core::ptr::read_volatile(&raw const address[index]) }
    };
    [word(0), word(1), word(2), word(3)]
}

/// The configuration. Copied at the start of a packet: the revision must be read before the tables.
#[inline(always)]
pub(crate) fn config() -> Option<Config> {
    CONFIG.get(0).copied()
}

/// What is known of a device; `None` of one that the agent has not named.
#[inline(always)]
pub(crate) fn interface(ifindex: u32) -> Option<Interface> {
    let interface = match INTERFACES.get(ifindex) {
        Some(interface) => *interface,
        None => high_interface(ifindex)?,
    };
    (interface.flags & Interface::KNOWN != 0).then_some(interface)
}

#[inline(never)]
fn find_high(ifindex: u32) -> u64 {
    // SAFETY: not preallocated; the value is copied at once.
    match unsafe { INTERFACES_HIGH.get(ifindex) } {
        Some(interface) => {
            u64::from(interface.slot)
                | u64::from(interface.link_header) << 16
                | u64::from(interface.flags) << 24
        }
        None => 0,
    }
}

/// A device whose index lies beyond the array: rare, and so kept out of the programs' common path.
#[inline(always)]
fn high_interface(ifindex: u32) -> Option<Interface> {
    let found = find_high(ifindex);
    Some(Interface {
        slot: found as u16,
        link_header: (found >> 16) as u8,
        flags: (found >> 24) as u8,
    })
}

/// A local pod.
#[inline(always)]
pub(crate) fn slot(number: u16) -> Option<&'static Slot> {
    SLOTS.get(u32::from(number))
}

/// What is known of an address by itself.
#[inline(always)]
pub(crate) fn peer(family: u8, address: &Address) -> Option<Peer> {
    if family == family::V4 {
        // SAFETY: as in `interface`.
        unsafe { PEERS_V4.get(address[0]) }.copied()
    } else {
        // SAFETY: as in `interface`.
        unsafe { PEERS_V6.get(address) }.copied()
    }
}

/// The class of the longest block around an address.
#[inline(always)]
pub(crate) fn block_class(family: u8, address: &Address) -> Option<u32> {
    if family == family::V4 {
        CIDRS_V4.get(Key::new(32, address[0])).copied()
    } else {
        CIDRS_V6.get(Key::new(128, *address)).copied()
    }
}

/// The cell of a class against a table, its default included.
#[inline(always)]
pub(crate) fn cell(table: u32, class: u32) -> Option<&'static Cell> {
    if class != palisade_common::value::STRANGER {
        // SAFETY: not preallocated; cells are replaced as a whole.
        if let Some(cell) = unsafe { CELLS.get(CellKey { table, class }) } {
            return Some(cell);
        }
    }
    TABLES.get(table)
}

/// Whether a port is in a set.
#[inline(always)]
pub(crate) fn port_in_set(set: u32, port: u16) -> bool {
    let Some(set) = PORT_SETS.get(set) else {
        return false;
    };
    let leaf = set.leaves[usize::from(port >> 8)];
    let Some(leaf) = PORT_LEAVES.get(leaf) else {
        return false;
    };
    let word = leaf.words[usize::from((port >> 6) & 3)];
    word >> (port & 63) & 1 != 0
}

/// A table of flows.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flows {
    /// TCP and SCTP, answered.
    Stream,
    /// Everything else, answered.
    Datagram,
    /// Not answered yet.
    New,
}

/// The entry of a flow. Another CPU may write it at the same time: its fields are words, and what a torn
/// entry says is caught by the judgement that its next packet gets.
#[inline(always)]
pub(crate) fn flow(table: Flows, key: &FlowKey) -> Option<&'static mut Flow> {
    let entry = match table {
        Flows::Stream => FLOWS_STREAM.get_ptr_mut(key),
        Flows::Datagram => FLOWS_DATAGRAM.get_ptr_mut(key),
        Flows::New => FLOWS_NEW.get_ptr_mut(key),
    }?;
    // SAFETY: map values stay readable and writable while the program runs.
    Some(unsafe { &mut *entry })
}

/// Writes a flow's entry. The table makes room by itself; a failure under contention costs the
/// flow a judgement at its next packet.
#[inline(always)]
pub(crate) fn set_flow(table: Flows, key: &FlowKey, flow: &Flow) {
    let (Ok(()) | Err(_)) = match table {
        Flows::Stream => FLOWS_STREAM.insert(key, flow, 0),
        Flows::Datagram => FLOWS_DATAGRAM.insert(key, flow, 0),
        Flows::New => FLOWS_NEW.insert(key, flow, 0),
    };
}

/// Removes a flow's entry, if it is there.
#[inline(always)]
pub(crate) fn forget_flow(table: Flows, key: &FlowKey) {
    let (Ok(()) | Err(_)) = match table {
        Flows::Stream => FLOWS_STREAM.remove(key),
        Flows::Datagram => FLOWS_DATAGRAM.remove(key),
        Flows::New => FLOWS_NEW.remove(key),
    };
}

/// The flow that waits under a cookie for its exit.
#[inline(always)]
pub(crate) fn pending(cookie: u32) -> Option<FlowKey> {
    // SAFETY: preallocated, so the key may be another flow's; the reader compares slot and protocol, and
    // what it confirms is the destination it has judged itself.
    unsafe { PENDING.get(cookie) }.copied()
}

/// Lets a flow wait under a cookie.
#[inline(always)]
pub(crate) fn set_pending(cookie: u32, key: &FlowKey) {
    let (Ok(()) | Err(_)) = PENDING.insert(cookie, key, 0);
}

/// The ports of a fragmented datagram.
#[inline(always)]
pub(crate) fn fragment(key: &FragmentKey) -> Option<Ports> {
    // SAFETY: preallocated, so the value may be another datagram's that took its place this instant; its
    // ports were judged at the same point.
    unsafe { FRAGMENTS.get(key) }.copied()
}

/// Remembers the ports of a fragmented datagram.
#[inline(always)]
pub(crate) fn set_fragment(key: &FragmentKey, ports: &Ports) {
    let (Ok(()) | Err(_)) = FRAGMENTS.insert(key, ports, 0);
}

/// This CPU's counters of a pod and direction.
#[inline(always)]
pub(crate) fn counters(slot: u16, direction: Direction) -> Option<&'static mut Counters> {
    let counters = COUNTERS.get_ptr_mut(2 * u32::from(slot) + direction as u32)?;
    // SAFETY: this CPU's own value, borrowed by one statement at a time.
    Some(unsafe { &mut *counters })
}

/// This CPU's event budget of a pod, direction and reason.
#[inline(always)]
pub(crate) fn event_budget(
    slot: u16,
    direction: Direction,
    reason: u8,
) -> Option<&'static mut EventBudget> {
    let index = (2 * u32::from(slot) + direction as u32) * REASONS as u32 + u32::from(reason);
    let budget = EVENT_BUDGET.get_ptr_mut(index)?;
    // SAFETY: this CPU's own value, borrowed once a packet.
    Some(unsafe { &mut *budget })
}

/// Sends the event that `fill` writes; false if the ring is full.
#[inline(always)]
pub(crate) fn send(fill: impl FnOnce(&mut Event)) -> bool {
    let Some(mut record) = EVENTS.reserve::<Event>(0) else {
        return false;
    };
    // SAFETY: the ring has reserved a whole event, every field of which `fill` writes: any bytes are an event.
    fill(unsafe { &mut *record.as_mut_ptr() });
    record.submit(0);
    true
}

/// A number below [`REASONS`], as the verifier can see: the compiler, which knows it already, would leave
/// the check out.
#[inline(always)]
pub(crate) fn reason_index(reason: u8) -> usize {
    // SAFETY: a local variable.
    let reason = unsafe { core::ptr::read_volatile(&raw const reason) };
    usize::from(reason) % REASONS
}
