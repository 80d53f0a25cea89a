//! The flow tables: which packets belong to a flow that policy has allowed.
//!
//! A flow starts in `FLOWS_NEW` and moves to the table of its kind when the other end answers, so that
//! neither a flood nor a crowd of short exchanges evicts a connection.

use palisade_common::{
    Address,
    key::FlowKey,
    protocol,
    value::{Config, Flow, Slot},
    verdict::Direction,
};

use crate::{
    maps::{self, Flows},
    parse::{Packet, tcp},
    skb, verdict,
};

/// What the flow tables say of a packet.
#[derive(Clone, Copy)]
pub(crate) enum Settled {
    /// No flow: to be judged as new.
    Miss,
    /// A flow that waits for its exit. It passes nothing.
    Pending,
    /// A flow that policy allows: its flags, with [`Flow::JUDGED`] where it was judged again. The entry.
    Passes(u8, &'static Flow),
    /// A flow whose permission was withdrawn.
    Revoked,
}

/// The table a flow of this protocol lives in once answered.
#[inline(always)]
fn home(protocol: u8) -> Flows {
    if protocol == protocol::TCP || protocol == protocol::SCTP {
        Flows::Stream
    } else {
        Flows::Datagram
    }
}

/// The entry of a flow, in whichever table it is.
#[inline(always)]
pub(crate) fn connection(key: &FlowKey) -> Option<&'static Flow> {
    let mut found = maps::flow(home(key.protocol), key);
    if found.is_none() {
        found = maps::flow(Flows::New, key);
    }
    found.map(|flow| &*flow)
}

/// Finds the flow of a packet and settles it: ages it, judges it again if the tables have moved since,
/// notes an answer and the end of a connection.
///
/// `by_node`: the node itself made the packet.
#[inline(always)]
pub(crate) fn settle(
    config: &Config,
    now: u32,
    slot: &Slot,
    key: &FlowKey,
    packet: &Packet,
    direction: Direction,
    by_node: bool,
) -> Settled {
    // A segment that opens a connection is judged as new, whatever was there before.
    if packet.opens() {
        return Settled::Miss;
    }
    let home = home(key.protocol);
    // The answer to an opening segment belongs to the newest flow of its key.
    let answer = key.protocol == protocol::TCP && packet.tcp_flags & tcp::SYN != 0;
    let mut table = home;
    let mut found = if answer { None } else { maps::flow(home, key) };
    if found.is_none() {
        table = Flows::New;
        found = maps::flow(Flows::New, key);
    }
    let Some(flow) = found else {
        return Settled::Miss;
    };
    let answered = table != Flows::New;
    let age = now.wrapping_sub(flow.seen);
    if age > Flow::lifetime(key.protocol, answered, flow.tcp).wrapping_mul(config.hz) {
        return Settled::Miss;
    }
    let flags = flow.flags;
    if flags & Flow::PENDING != 0 {
        return Settled::Pending;
    }
    if flags & Flow::NODE != 0 && matches!(direction, Direction::Ingress) && !by_node {
        return Settled::Miss;
    }
    let judged = if flow.revision != config.revision {
        Flow::JUDGED
    } else {
        0
    };
    if flow.revision != config.revision || flags & Flow::REVOKED != 0 {
        if flow.revision != config.revision {
            let allowed = config.flags & Config::KEEP_CONNECTIONS != 0
                && flags & Flow::REVOKED == 0
                || allowed_by((slot.ingress, slot.egress), key, flow);
            flow.flags = if allowed {
                flags & !Flow::REVOKED
            } else {
                flags | Flow::REVOKED
            };
            flow.revision = config.revision;
        }
        if flow.flags & Flow::REVOKED != 0 {
            // Who opened a connection matters for as long as it lives; a datagram opens anew.
            if key.protocol != protocol::TCP {
                maps::forget_flow(table, key);
                return Settled::Miss;
            }
            return Settled::Revoked;
        }
    }
    // Once a second is enough for lifetimes, and spares the cache line.
    if age >= config.hz {
        flow.seen = now;
    }
    let ending = packet.tcp_flags & (tcp::FIN | tcp::RST);
    if ending != 0 && key.protocol == protocol::TCP {
        flow.tcp |= if ending & tcp::RST != 0 {
            Flow::RESET
        } else if matches!(direction, Direction::Egress) {
            Flow::FIN_LOCAL
        } else {
            Flow::FIN_REMOTE
        };
    }
    let flags = flow.flags;
    if !answered && answers(flags, direction) {
        flow.seen = now;
        // The kernel copies one entry into the other; the program's small stack is spared.
        maps::set_flow(home, key, flow);
    }
    Settled::Passes(flags | judged, flow)
}

/// Whether a packet in this direction comes from the end that did not open the flow.
#[inline(always)]
fn answers(flags: u8, direction: Direction) -> bool {
    match direction {
        Direction::Egress => flags & Flow::INGRESS != 0,
        Direction::Ingress => flags & Flow::EGRESS != 0,
    }
}

/// Judges a flow again on the peer it was judged on, in the direction that opened it, by the tables of ingress and of
/// egress.
#[inline(never)]
pub(crate) fn allowed_by((ingress, egress): (u32, u32), key: &FlowKey, flow: &Flow) -> bool {
    if flow.flags & Flow::NODE != 0 {
        return true;
    }
    let peer = verdict::peer(key.family, &flow.peer);
    // A pod always reaches itself; whoever else comes from its address is not the pod.
    let own = peer.slot == key.slot;
    flow.flags & Flow::EGRESS != 0
        && (own || verdict::allows(egress, peer.class, key.protocol, flow.port))
        || flow.flags & Flow::INGRESS != 0
            && verdict::allows(ingress, peer.class, key.protocol, key.local_port)
}

/// An entry for a flow judged now, on that peer and destination port.
#[inline(always)]
pub(crate) fn entry(config: &Config, peer: &Address, port: u16, flags: u8) -> Flow {
    Flow {
        peer: maps::copy(peer),
        revision: config.revision,
        seen: skb::jiffies(),
        port,
        flags,
        tcp: 0,
        reserved: 0,
    }
}

/// Opens a flow that policy allows, or that waits for its exit.
#[inline(always)]
pub(crate) fn open(key: &FlowKey, flow: &Flow) {
    maps::set_flow(Flows::New, key, flow);
}

/// Takes up a connection that is older than its entry.
#[inline(always)]
pub(crate) fn take_up(key: &FlowKey, flow: &Flow) {
    maps::set_flow(home(key.protocol), key, flow);
}
