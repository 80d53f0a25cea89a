//! The programs, as tests on the host run them.

use aya_ebpf::Buffer;
use palisade_common::verdict::Verdict;

pub use crate::maps::host::{MAPS, Maps};
use crate::{from_pod, skb::Skb, to_pod, to_wire};

/// TC ingress of a local pod's host-side interface.
pub fn from_pod(packet: &mut Buffer<'_>) -> Verdict {
    from_pod::judge(Skb::new(packet.context()))
}

/// TC egress of a local pod's host-side interface.
pub fn to_pod(packet: &mut Buffer<'_>) -> Verdict {
    to_pod::judge(Skb::new(packet.context()))
}

/// TC egress of every other device by which pods' packets leave the node.
pub fn to_wire(packet: &mut Buffer<'_>) -> Verdict {
    to_wire::judge(Skb::new(packet.context()))
}
