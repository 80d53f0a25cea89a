//! The exit: where a packet's real destination is known. It decides what `from_pod` left undecided,
//! and confirms the flows that wait for it.

use palisade_common::{
    mark::{self, State},
    value::{Config, Flow, Slot},
    verdict::Direction,
};

use crate::{
    audit::{self, Allowed},
    events,
    flows::{self, Settled},
    maps::{self, Flows},
    parse::Packet,
    skb::{self, Skb},
    verdict,
};

/// Whether the sending pod's egress allows the packet to where it really goes. `state` is the number of its
/// mark's state, or 0 where the mark was lost on the way.
#[inline(always)]
pub(crate) fn allows(
    skb: Skb,
    config: &Config,
    (number, sender): (u16, &Slot),
    state: u8,
    packet: &Packet,
) -> bool {
    if state == State::Reply as u8 {
        return true;
    }
    if state == State::Expected as u8 || state == State::Opening as u8 {
        let destination = mark::destination_cookie(
            config.secret,
            number,
            packet.protocol,
            &packet.destination,
            packet.destination_port,
        );
        if mark::binds(skb.hash(), destination) {
            return true;
        }
    }
    if state == 0 && continues(config, number, sender, packet) {
        return true;
    }
    judge(skb, config, number, sender, packet)
}

/// Whether a packet whose mark is lost belongs to a flow of its sender. If it was translated it does not say
/// so, and is judged.
#[inline(never)]
fn continues(config: &Config, number: u16, sender: &Slot, packet: &Packet) -> bool {
    let key = packet.key(number, Direction::Egress);
    let now = skb::jiffies();
    let settled = flows::settle(config, now, sender, &key, packet, Direction::Egress, false);
    matches!(settled, Settled::Passes(..))
}

#[inline(never)]
fn judge(skb: Skb, config: &Config, number: u16, sender: &Slot, packet: &Packet) -> bool {
    let peer = verdict::peer(packet.family, &packet.destination);
    if peer.slot == number {
        return true;
    }
    let port = packet.destination_port;
    let allowed = verdict::allows(sender.egress, peer.class, packet.protocol, port);
    if allowed {
        let what = Allowed {
            number,
            direction: Direction::Egress,
            live: false,
            peer: &packet.destination,
            class: peer.class,
        };
        audit::allowed(skb, config, sender, packet, &what);
    }
    allowed
}

/// Confirms the sender's flow, if it waits: its replies pass from now on, and its further packets may go
/// to this destination. A packet that starts no flow confirms none: with an echo reply that nobody asked for a pod would
/// open its own ingress.
#[inline(always)]
pub(crate) fn confirm(
    skb: Skb,
    config: &Config,
    number: u16,
    state: u8,
    packet: &Packet,
    local: bool,
) {
    let waits = state == State::Opening as u8 || state == State::Undecided as u8;
    if waits && packet.starts() {
        confirm_waiting(skb, config, number, packet, local);
    }
}

#[inline(never)]
fn confirm_waiting(skb: Skb, config: &Config, number: u16, packet: &Packet, local: bool) {
    let key = match maps::pending(skb.hash()) {
        Some(key)
            if key.slot == number
                && key.protocol == packet.protocol
                && key.family == packet.family =>
        {
            key
        }
        // Evicted; without a masquerade the packet still names its flow.
        _ => packet.key(number, Direction::Egress),
    };
    let mut flags = match maps::flow(Flows::New, &key) {
        Some(flow) => flow.flags,
        None => Flow::EGRESS,
    };
    flags &= !Flow::PENDING;
    if local {
        flags |= Flow::LOCAL;
    }
    let flow = flows::entry(config, &packet.destination, packet.destination_port, flags);
    flows::open(&key, &flow);
    let (way, peer) = (Direction::Egress, &packet.destination);
    events::opened(skb, config, number, way, packet, peer);
}
