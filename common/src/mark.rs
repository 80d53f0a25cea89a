//! What `from_pod` writes on a packet for the exit: slot and state in `tc_index`, a cookie in `hash`.
//!
//! `tc_index` (16 bits): the slot in the high 12, the state in the low 4; never 0 once a program has
//! seen the packet. The slot is believed only where `ingress_ifindex` is that slot's interface or the
//! bridge above it: the mark crosses a veth pair into another node's namespace.
//!
//! `hash` (32 bits): the low [`DESTINATION_BITS`] bind slot, protocol and the destination that was
//! decided on; the rest spreads flows, for the kernel picks queues by this hash, and makes the whole a key
//! of `PENDING`.

use crate::Address;

/// What `from_pod` decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Allowed if it leaves for the destination that the cookie binds; else to be judged there.
    Expected = 1,
    /// As `Expected`, and the flow waits in `PENDING` for the exit to confirm it.
    Opening = 2,
    /// The destination may be translated: to be judged at the exit. The flow waits in `PENDING`.
    Undecided = 3,
    /// Belongs to a flow that the other end opened.
    Reply = 4,
    /// An exit has decided; the slot is 0.
    Judged = 5,
}

/// `tc_index` of slot and state.
#[must_use]
#[inline(always)]
pub const fn encode(slot: u16, state: State) -> u16 {
    (slot << 4) | state as u16
}

/// The slot in a `tc_index`; 0 where no pod is named.
#[must_use]
#[inline(always)]
pub const fn slot(tc_index: u16) -> u16 {
    tc_index >> 4
}

/// The number of the [`State`] in a `tc_index`; 0 where no program has written one.
#[must_use]
#[inline(always)]
pub const fn state(tc_index: u16) -> u8 {
    (tc_index & 0xf) as u8
}

/// Bits of the cookie that bind the destination.
pub const DESTINATION_BITS: u32 = 20;
const DESTINATION_MASK: u32 = (1 << DESTINATION_BITS) - 1;

/// A keyed mix of four words; 64-bit multiply and fold, as in wyhash. Its key never leaves the
/// kernel and the agent, and a wrong guess costs a judgement, so it need not be cryptographic.
#[inline(always)]
const fn mix(secret: u64, a: u64, b: u64) -> u64 {
    let mut h = (a ^ secret).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^= h >> 32;
    h = (h ^ b).wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^= h >> 32;
    h = (h ^ secret).wrapping_mul(0xa076_1d64_78bd_642f);
    h ^ (h >> 29)
}

/// The part of the cookie that binds slot, protocol and destination (address and host-order port).
#[must_use]
#[inline(always)]
pub const fn destination_cookie(
    secret: u64,
    slot: u16,
    protocol: u8,
    address: &Address,
    port: u16,
) -> u32 {
    let head = ((slot as u64) << 32) | ((protocol as u64) << 16) | port as u64;
    let low = address[0] as u64 | ((address[1] as u64) << 32);
    let high = address[2] as u64 | ((address[3] as u64) << 32);
    let mut h = mix(secret, low, head);
    if high != 0 {
        h ^= mix(secret, high, head);
    }
    (h >> 24) as u32 & DESTINATION_MASK
}

/// The whole cookie: the destination part, and a part spread by the flow (its source port too).
#[must_use]
#[inline(always)]
pub const fn cookie(secret: u64, destination: u32, source_port: u16) -> u32 {
    let h = mix(secret, destination as u64, source_port as u64);
    ((h >> 16) as u32 & !DESTINATION_MASK) | (destination & DESTINATION_MASK)
}

/// Whether a cookie binds this destination part.
#[must_use]
#[inline(always)]
pub const fn binds(cookie: u32, destination: u32) -> bool {
    cookie & DESTINATION_MASK == destination & DESTINATION_MASK
}
