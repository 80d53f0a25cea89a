//! Counters and events. The programs know no policy names; user space explains an event.

use palisade_common::{
    Address,
    event::Outcome,
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
        report(skb, config, told, packet, &Sent { packet, peer });
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
    let peer = peer_of(packet, direction);
    denied(skb, config, decided, packet, &Sent { packet, peer })
}

/// Counts and reports a packet of a connection whose permission was withdrawn. What denies it is policy of the direction that
/// opened the connection; `decided` has the way of the packet. The connection is looked for again: the stack of all calls under
/// way is small, and the callers' have no room to hold it.
#[inline(never)]
pub(crate) fn revoke(
    skb: Skb,
    config: &Config,
    decided: (u16, Direction, Reason),
    packet: &Packet,
) -> Verdict {
    let (slot, way, reason) = decided;
    let key = packet.key(slot, way);
    let Some(flow) = flows::connection(&key) else {
        return deny(skb, config, decided, packet);
    };
    let decided = (slot, flow.opened(way), reason);
    let ends = Opened { packet, way, flow };
    denied(skb, config, decided, packet, &ends)
}

#[inline(always)]
fn denied(
    skb: Skb,
    config: &Config,
    (slot, direction, reason): (u16, Direction, Reason),
    packet: &Packet,
    ends: &impl Ends,
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
    peer: &Address,
) {
    audited(skb, config, decided, packet, &Sent { packet, peer });
}

/// Counts and reports a packet of a flow that goes on because policy is in audit, in the direction that opened the flow.
/// `decided` has the way of the packet: five registers hold the arguments of a call.
#[inline(never)]
pub(crate) fn audit_flow(
    skb: Skb,
    config: &Config,
    decided: (u16, Direction, Reason),
    packet: &Packet,
    flow: &Flow,
) {
    let (slot, way, reason) = decided;
    let decided = (slot, flow.opened(way), reason);
    let ends = Opened { packet, way, flow };
    audited(skb, config, decided, packet, &ends);
}

#[inline(always)]
fn audited(
    skb: Skb,
    config: &Config,
    (slot, direction, reason): (u16, Direction, Reason),
    packet: &Packet,
    ends: &impl Ends,
) {
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

/// Between whom. Told only once it is to be written: what a caller holds until then is on its small stack.
trait Ends {
    fn source(&self) -> (&Address, u16);
    fn destination(&self) -> (&Address, u16);
    /// What was judged as the pod's peer.
    fn peer(&self) -> &Address;
}

/// As the packet says.
struct Sent<'a> {
    packet: &'a Packet,
    peer: &'a Address,
}

impl Ends for Sent<'_> {
    #[inline(always)]
    fn source(&self) -> (&Address, u16) {
        (&self.packet.source, self.packet.source_port)
    }

    #[inline(always)]
    fn destination(&self) -> (&Address, u16) {
        (&self.packet.destination, self.packet.destination_port)
    }

    #[inline(always)]
    fn peer(&self) -> &Address {
        self.peer
    }
}

/// As who opened the flow would send a packet, for one that goes that way: to the destination on which it was judged.
struct Opened<'a> {
    packet: &'a Packet,
    way: Direction,
    flow: &'a Flow,
}

impl Opened<'_> {
    #[inline(always)]
    fn direction(&self) -> Direction {
        self.flow.opened(self.way)
    }

    #[inline(always)]
    fn is_answer(&self) -> bool {
        self.direction() as u8 != self.way as u8
    }

    /// The identifier of an echo is the source port of either.
    #[inline(always)]
    fn ports(&self) -> (u16, u16) {
        let (source, destination) = (self.packet.source_port, self.packet.destination_port);
        if self.is_answer() && self.packet.kind != kind::ECHO_REPLY {
            (destination, source)
        } else {
            (source, destination)
        }
    }
}

impl Ends for Opened<'_> {
    #[inline(always)]
    fn source(&self) -> (&Address, u16) {
        let source = if self.is_answer() {
            &self.packet.destination
        } else {
            &self.packet.source
        };
        (source, self.ports().0)
    }

    #[inline(always)]
    fn destination(&self) -> (&Address, u16) {
        if matches!(self.direction(), Direction::Egress) {
            return (&self.flow.peer, self.flow.port);
        }
        let destination = if self.is_answer() {
            &self.packet.source
        } else {
            &self.packet.destination
        };
        (destination, self.ports().1)
    }

    #[inline(always)]
    fn peer(&self) -> &Address {
        &self.flow.peer
    }
}

#[inline(always)]
fn report(
    skb: Skb,
    config: &Config,
    (slot, direction, reason, outcome): (u16, Direction, Reason, Outcome),
    packet: &Packet,
    ends: &impl Ends,
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
        let ((source, from), (destination, to)) = (ends.source(), ends.destination());
        event.source = maps::copy(source);
        event.destination = maps::copy(destination);
        event.peer = maps::copy(ends.peer());
        event.source_port = from;
        event.destination_port = to;
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
