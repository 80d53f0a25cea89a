//! The contract between the programs in the kernel and the agent in user space.
//!
//! Every type here is a map key, a map value or a ring buffer record, laid out by hand
//! (`#[repr(C)]`, no implicit padding) and proved so at compile time by [`abi!`](crate::abi).
//!
//! # Byte order
//!
//! Addresses are `[u32; 4]` whose *memory* is the address in network order; an IPv4 address
//! is the first word, the others are zero (never `::ffff:a.b.c.d`, which is an IPv6 address of its
//! own). Ports are in host order. Everything else is in host order.
//!
//! # Changing a layout
//!
//! A pinned map outlives the agent that made it. Any change of a type, of its meaning or of a map's
//! kind moves [`LAYOUT_VERSION`], which names the folder the maps are pinned in.
#![no_std]

mod abi;
pub mod event;
pub mod key;
pub mod limits;
pub mod mark;
pub mod value;
pub mod verdict;

/// Version of the layout and meaning of all pinned maps.
pub const LAYOUT_VERSION: u32 = 2;

/// An address as it lies in memory, in network order; an IPv4 address is word 0.
pub type Address = [u32; 4];

/// Address family of a packet, a flow or an address, as a byte of a map key.
pub mod family {
    /// IPv4.
    pub const V4: u8 = 4;
    /// IPv6.
    pub const V6: u8 = 6;
}

/// IANA protocol numbers the programs know by name.
pub mod protocol {
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// RFC 9260.
    pub const SCTP: u8 = 132;
}
