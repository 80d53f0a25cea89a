//! Audit: what passes although policy as a whole does not allow it is told of. It is asked only where the packet passes.

use palisade_common::{
    Address,
    key::FlowKey,
    value::{ALLOW_ALL, Config, Flow, Slot},
    verdict::{Direction, Reason},
};

use crate::{events, flows, parse::Packet, skb::Skb, verdict};

/// A packet that is allowed as the first of a flow, or by itself.
pub(crate) struct Allowed<'a> {
    /// Whose policies allow it.
    pub(crate) number: u16,
    pub(crate) direction: Direction,
    /// A connection older than its entry: either direction's permission carries it.
    pub(crate) live: bool,
    /// The peer that was judged, and its class.
    pub(crate) peer: &'a Address,
    pub(crate) class: u32,
}

/// Whether anything of a direction is audited.
#[inline(always)]
pub(crate) fn is_on(slot: &Slot, direction: Direction) -> bool {
    table(slot, direction) > ALLOW_ALL
}

/// The verdict table of what is audited, if anything is.
#[inline(always)]
fn table(slot: &Slot, direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => slot.audited_ingress,
        Direction::Egress => slot.audited_egress,
    }
}

/// Tells of an allowed packet, if it passes because of audit. The call is not made from within the judgement: the stack of
/// all calls under way is small.
#[inline(always)]
pub(crate) fn allowed(skb: Skb, config: &Config, slot: &Slot, packet: &Packet, what: &Allowed<'_>) {
    if is_on(slot, what.direction) && denies(slot, packet, what) {
        let decided = (what.number, what.direction, Reason::Policy);
        events::audit(skb, config, decided, packet, what.peer);
    }
}

#[inline(never)]
fn denies(slot: &Slot, packet: &Packet, what: &Allowed<'_>) -> bool {
    let (own, other) = (what.direction, what.direction.opposite());
    let (to, from) = (packet.destination_port, packet.source_port);
    let carried = what.live
        && (!is_on(slot, other)
            || verdict::allows(table(slot, other), what.class, packet.protocol, from));
    !carried && !verdict::allows(table(slot, own), what.class, packet.protocol, to)
}

/// Tells of a packet that cannot be judged and passes, if it would not where nothing is audited.
#[inline(always)]
pub(crate) fn unreadable(
    skb: Skb,
    config: &Config,
    slot: &Slot,
    decided: (u16, Direction, Reason),
    packet: &Packet,
) {
    if is_on(slot, decided.1) {
        let peer = events::peer_of(packet, decided.1);
        events::audit(skb, config, decided, packet, peer);
    }
}

/// Tells of a flow that was judged again, at a packet that goes that way, and passes, if it passes because of audit.
#[inline(always)]
pub(crate) fn again(
    skb: Skb,
    config: &Config,
    slot: &Slot,
    (packet, way): (&Packet, Direction),
    (key, flow): (&FlowKey, &Flow),
) {
    let on = is_on(slot, Direction::Ingress) || is_on(slot, Direction::Egress);
    if on && denies_again(slot, key, flow) {
        let decided = (key.slot, way, Reason::Revoked);
        events::audit_flow(skb, config, decided, packet, flow);
    }
}

#[inline(always)]
fn denies_again(slot: &Slot, key: &FlowKey, flow: &Flow) -> bool {
    let of = |direction| table(slot, direction).max(ALLOW_ALL);
    !flows::allowed_by((of(Direction::Ingress), of(Direction::Egress)), key, flow)
}
