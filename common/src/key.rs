//! Map keys.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, abi::abi};

/// Key of `CELLS`: what one peer class may do against one verdict table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CellKey {
    /// Number of the verdict table.
    pub table: u32,
    /// Number of the peer class.
    pub class: u32,
}

/// Key of the flow tables. One entry serves both directions of a flow of one pod.
///
/// For ICMP echo `local_port` is the identifier and `remote_port` is [`ECHO_BY_LOCAL`] or
/// [`ECHO_BY_REMOTE`]; for other protocols without ports both are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowKey {
    /// The other end, as the pod addresses it.
    pub remote: Address,
    /// The pod's own port.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
    /// The pod.
    pub slot: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// One of [`crate::family`].
    pub family: u8,
}

/// `remote_port` of an ICMP echo flow whose requests the pod sends.
pub const ECHO_BY_LOCAL: u16 = 1;
/// `remote_port` of an ICMP echo flow whose requests the other end sends.
pub const ECHO_BY_REMOTE: u16 = 2;

/// Key of `FRAGMENTS`: one fragmented datagram at one point of its way.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentKey {
    /// Source address in the packet.
    pub source: Address,
    /// Destination address in the packet.
    pub destination: Address,
    /// Identification field, as it lies in memory.
    pub identification: u32,
    /// Where the fragment was seen: slot, plus [`FragmentKey::TO_POD`] for the way to the pod;
    /// [`FragmentKey::TO_WIRE`] at an exit from the node.
    pub point: u16,
    /// IANA protocol number of the datagram.
    pub protocol: u8,
    /// One of [`crate::family`].
    pub family: u8,
}

impl FragmentKey {
    /// Added to the slot at `to_pod`.
    pub const TO_POD: u16 = 0x4000;
    /// The point of `to_wire`.
    pub const TO_WIRE: u16 = 0x8000;
}

/// Key of the LPM tries `CIDRS_V4` and `CIDRS_V6` is aya's `lpm_trie::Key` over one of these: the
/// address, whose memory is in network order.
pub type CidrV4 = u32;
/// See [`CidrV4`].
pub type CidrV6 = crate::Address;

abi! {
    CellKey: size 8, align 4;
    FlowKey: size 24, align 4;
    FragmentKey: size 40, align 4;
}
