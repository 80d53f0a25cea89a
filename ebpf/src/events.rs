//! Counters and events. The programs know no policy names; user space explains an event.

use palisade_common::{
    Address,
    event::Outcome,
    key::FlowKey,
    value::{Config, Flow, REASONS},
    verdict::{Direction, Reason, Verdict},
};

use crate::{
    flows, maps,
    parse::{Packet, kind},
    skb::{self, Skb},
};

/// Counts a packet that passes.
#[inline(always)]
pub(crate) fn allow(skb: Skb, slot: u16, direction: Direction) -> Verdict {
    if let Some(counters) = maps::counters(slot, direction) {
        counters.allowed_packets += 1;
        counters.allowed_bytes += u64::from(skb.len());
    }
    Verdict::Pass
}

/// Reports the first packet of an allowed flow, where that is asked for.
#[inline(always)]
pub(crate) fn opened(
    skb: Skb,
    config: &Config,
    slot: u16,
    direction: Direction,
    packet: &Packet,
    peer: &Address,
) {
    if config.flags & Config::REPORT_ALLOWED != 0 {
        let told = (slot, direction, Reason::Policy, Outcome::Allowed);
        report(skb, config, told, packet, Ends::of(packet, peer));
    }
}

/// Counts and reports a packet that is dropped.
#[inline(never)]
pub(crate) fn deny(
    skb: Skb,
    config: &Config,
    decided: (u16, Direction, Reason),
    packet: &Packet,
) -> Verdict {
    let (_, direction, _) = decided;
    let ends = Ends::of(packet, peer_of(packet, direction));
    denied(skb, config, decided, packet, ends)
}

/// Counts and reports a packet of a connection whose permission was withdrawn. What denies it is policy of the direction that
/// opened the connection.
#[inline(never)]
pub(crate) fn revoke(
    skb: Skb,
    config: &Config,
    key: &FlowKey,
    way: Direction,
    packet: &Packet,
) -> Verdict {
    let Some(flow) = flows::connection(key) else {
        return deny(skb, config, (key.slot, way, Reason::Revoked), packet);
    };
    let decided = (key.slot, flow.opened(way), Reason::Revoked);
    denied(
        skb,
        config,
        decided,
        packet,
        Ends::of_flow(packet, way, flow),
    )
}

#[inline(always)]
fn denied(
    skb: Skb,
    config: &Config,
    (slot, direction, reason): (u16, Direction, Reason),
    packet: &Packet,
    ends: Ends<'_>,
) -> Verdict {
    if let Some(counters) = maps::counters(slot, direction) {
        counters.denied[maps::reason_index(reason as u8)] += 1;
        counters.denied_bytes += u64::from(skb.len());
    }
    let told = (slot, direction, reason, Outcome::Denied);
    report(skb, config, told, packet, ends);
    Verdict::Drop
}

/// Counts and reports a packet that passes because policy is in audit.
#[inline(never)]
pub(crate) fn audit(
    skb: Skb,
    config: &Config,
    decided: (u16, Direction, Reason),
    packet: &Packet,
    ends: Ends<'_>,
) {
    let (slot, direction, reason) = decided;
    if let Some(counters) = maps::counters(slot, direction) {
        counters.audited += 1;
    }
    let told = (slot, direction, reason, Outcome::Audited);
    report(skb, config, told, packet, ends);
}

/// The other end, as the packet says.
#[inline(always)]
pub(crate) fn peer_of(packet: &Packet, direction: Direction) -> &Address {
    match direction {
        Direction::Ingress => &packet.source,
        Direction::Egress => &packet.destination,
    }
}

/// Between whom.
pub(crate) struct Ends<'a> {
    source: &'a Address,
    destination: &'a Address,
    source_port: u16,
    destination_port: u16,
    /// What was judged as the pod's peer.
    peer: &'a Address,
}

impl<'a> Ends<'a> {
    /// As the packet says.
    #[inline(always)]
    pub(crate) fn of(packet: &'a Packet, peer: &'a Address) -> Self {
        Self {
            source: &packet.source,
            destination: &packet.destination,
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            peer,
        }
    }

    /// As who opened the flow would send a packet, for one that goes that way: to the destination on which it was judged.
    #[inline(always)]
    pub(crate) fn of_flow(packet: &'a Packet, way: Direction, flow: &'a Flow) -> Self {
        let mut ends = Self::of(packet, &flow.peer);
        let opened = flow.opened(way);
        if opened as u8 != way as u8 {
            (ends.source, ends.destination) = (&packet.destination, &packet.source);
            // The identifier of an echo is the source port of either.
            if packet.kind != kind::ECHO_REPLY {
                (ends.source_port, ends.destination_port) =
                    (packet.destination_port, packet.source_port);
            }
        }
        if matches!(opened, Direction::Egress) {
            (ends.destination, ends.destination_port) = (&flow.peer, flow.port);
        }
        ends
    }
}

#[inline(always)]
fn report(
    skb: Skb,
    config: &Config,
    (slot, direction, reason, outcome): (u16, Direction, Reason, Outcome),
    packet: &Packet,
    ends: Ends<'_>,
) {
    // The last budget of a direction is that of allowed flows: there are fewer reasons than budgets.
    let budgeted = match outcome {
        Outcome::Allowed => (REASONS - 1) as u8,
        Outcome::Denied | Outcome::Audited => reason as u8,
    };
    if !within_budget(config, slot, direction, budgeted) {
        return suppressed(slot, direction);
    }
    // Field by field into the ring: the program's stack is small.
    let sent = maps::send(|event| {
        event.time = skb::monotonic();
        event.source = maps::copy(ends.source);
        event.destination = maps::copy(ends.destination);
        event.peer = maps::copy(ends.peer);
        event.source_port = ends.source_port;
        event.destination_port = ends.destination_port;
        event.slot = slot;
        event.reason = reason as u8;
        event.direction = direction as u8;
        event.protocol = packet.protocol;
        event.family = packet.family;
        event.tcp_flags = packet.tcp_flags;
        event.outcome = outcome as u8;
        event.length = skb.len();
    });
    if !sent {
        suppressed(slot, direction);
    }
}

#[inline(always)]
fn within_budget(config: &Config, slot: u16, direction: Direction, reason: u8) -> bool {
    let now = skb::jiffies();
    let Some(budget) = maps::event_budget(slot, direction, reason) else {
        return false;
    };
    if now.wrapping_sub(budget.since) >= config.hz {
        budget.since = now;
        budget.sent = 0;
    }
    budget.sent += 1;
    budget.sent <= config.event_rate
}

#[inline(always)]
fn suppressed(slot: u16, direction: Direction) {
    if let Some(counters) = maps::counters(slot, direction) {
        counters.suppressed += 1;
    }
}
