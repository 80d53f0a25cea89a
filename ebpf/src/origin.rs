//! Where a packet at an exit comes from.

use palisade_common::{mark, value::Interface};

use crate::{maps, parse::Packet, skb::Skb, verdict};

/// The maker of a packet: a plain number, for an enum would leave bits undefined that the verifier sees
/// moved about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maker(pub(crate) u32);

impl Maker {
    /// Not this node.
    pub(crate) const OUTSIDE: Self = Self(0);
    /// The node itself.
    pub(crate) const NODE: Self = Self(1 << 15);

    /// The local pod of that slot, whose mark has this state; 0 where the mark was lost on the way.
    #[inline(always)]
    fn pod(slot: u16, state: u8) -> Self {
        Self(u32::from(slot) << 16 | u32::from(state))
    }

    /// The slot of the pod, or 0.
    #[inline(always)]
    pub(crate) fn slot(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The number of the mark's [`State`], or 0.
    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        self.0 as u8
    }
}

/// The pod that the mark names, if it can be believed: the packet came in by that slot's own interface or
/// the bridge above it. A mark from another node's namespace did not.
#[inline(always)]
pub(crate) fn marked(skb: Skb) -> Maker {
    let tc_index = skb.tc_index() as u16;
    let ingress = skb.ingress_ifindex();
    let (number, state) = (mark::slot(tc_index), mark::state(tc_index));
    if number == 0 || ingress == 0 {
        return Maker::OUTSIDE;
    }
    match maps::slot(number) {
        Some(slot) if slot.ifindex == ingress || slot.bridge == ingress => {
            Maker::pod(number, state)
        }
        _ => Maker::OUTSIDE,
    }
}

/// The maker of a packet whose mark is not there or not to be believed.
#[inline(never)]
pub(crate) fn unmarked(skb: Skb, packet: &Packet) -> Maker {
    let ingress = skb.ingress_ifindex();
    if ingress == 0 {
        return Maker::NODE;
    }
    let Some(interface) = maps::interface(ingress) else {
        return Maker::OUTSIDE;
    };
    if interface.slot != 0 {
        return Maker::pod(interface.slot, 0);
    }
    if interface.flags & Interface::BRIDGE == 0 {
        return Maker::OUTSIDE;
    }
    // Behind a bridge: the cookie tells a flow that waits; else the source, which spoof protection
    // vouches for.
    let waiting = match maps::pending(skb.hash()) {
        Some(key) if key.protocol == packet.protocol => key.slot,
        _ => 0,
    };
    let number = if waiting != 0 {
        waiting
    } else {
        verdict::peer(packet.family, &packet.source).slot
    };
    match maps::slot(number) {
        Some(slot) if number != 0 && slot.bridge == ingress => Maker::pod(number, 0),
        _ => Maker::OUTSIDE,
    }
}
