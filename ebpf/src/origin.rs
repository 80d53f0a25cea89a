//! Where a packet at an exit comes from.

use palisade_common::{
    mark::{self, State},
    value::Interface,
};

use crate::{maps, parse::Packet, skb::Skb, verdict};

/// The maker of a packet.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    /// The node itself.
    Node,
    /// Not this node.
    Outside,
    /// The local pod of that slot; `None` where its mark was lost on the way.
    Pod(u16, Option<State>),
}

/// Slot and state, if the mark can be believed: the packet came in by that slot's own interface or the
/// bridge above it. A mark from another node's namespace did not.
#[inline(always)]
pub(crate) fn marked(skb: Skb) -> Option<(u16, State)> {
    let (number, state) = mark::decode(skb.tc_index() as u16)?;
    let ingress = skb.ingress_ifindex();
    if number == 0 || ingress == 0 {
        return None;
    }
    let slot = maps::slot(number)?;
    (slot.ifindex == ingress || slot.bridge == ingress).then_some((number, state))
}

/// Origin of a packet whose mark is not there or not to be believed.
#[inline(always)]
pub(crate) fn unmarked(skb: Skb, packet: &Packet) -> Origin {
    match find(skb, packet) {
        NODE => Origin::Node,
        OUTSIDE => Origin::Outside,
        slot => Origin::Pod(slot as u16, None),
    }
}

/// What `find` says besides slots. A plain number: an enum would leave bits undefined that the verifier
/// sees returned.
const NODE: u32 = 0x1_0000;
const OUTSIDE: u32 = 0x2_0000;

#[inline(never)]
fn find(skb: Skb, packet: &Packet) -> u32 {
    let ingress = skb.ingress_ifindex();
    if ingress == 0 {
        return NODE;
    }
    let Some(interface) = maps::interface(ingress) else {
        return OUTSIDE;
    };
    if interface.slot != 0 {
        return u32::from(interface.slot);
    }
    if interface.flags & Interface::BRIDGE == 0 {
        return OUTSIDE;
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
        Some(slot) if number != 0 && slot.bridge == ingress => u32::from(number),
        _ => OUTSIDE,
    }
}
