//! TC ingress of a pod's interface: the pod's egress, as far as it can be decided here.

use palisade_common::{
    Address, family, mark,
    mark::State,
    value::{ALLOW_ALL, Config, Flow, Interface, Peer, Slot},
    verdict::{Direction, Reason, Verdict},
};

use crate::{
    audit::{self, Allowed},
    events,
    flows::{self, Settled},
    fragments, maps,
    parse::{self, Packet, Parsed, kind},
    quoted,
    skb::{self, Skb},
    sockets, verdict,
};

const WAY: Direction = Direction::Egress;

/// Judges a packet that a pod sends, and marks it for its exit.
#[inline(always)]
pub(crate) fn judge(skb: Skb) -> Verdict {
    let (Some(config), Some(packet)) = (maps::config(), maps::packet()) else {
        return Verdict::Drop;
    };
    let Some(Interface {
        slot: number,
        link_header,
        ..
    }) = maps::interface(skb.ifindex())
    else {
        return events::deny(skb, &config, (0, WAY, Reason::Unknown), packet);
    };
    let Some(slot) = maps::slot(number) else {
        return events::deny(skb, &config, (0, WAY, Reason::Unknown), packet);
    };
    let deny = |packet: &Packet, reason| events::deny(skb, &config, (number, WAY, reason), packet);
    let unreadable = |packet: &Packet, reason| {
        if slot.egress != ALLOW_ALL {
            return deny(packet, reason);
        }
        audit::unreadable(skb, &config, slot, (number, WAY, reason), packet);
        skb.set_mark(number, State::Undecided);
        events::allow(skb, number, WAY)
    };
    match parse::parse(skb, usize::from(link_header), packet) {
        Parsed::Ip => {}
        Parsed::Neighbour => {
            skb.set_mark(number, State::Reply);
            return events::allow(skb, number, WAY);
        }
        Parsed::NotIp => return unreadable(packet, Reason::NotIp),
        Parsed::Malformed => return unreadable(packet, Reason::Malformed),
    }
    if config.flags & Config::SPOOF_PROTECTION != 0 && !own(slot, packet.family, &packet.source) {
        return deny(packet, Reason::Spoofed);
    }
    let now = skb::jiffies();
    if !fragments::complete(&config, now, packet, number) {
        return unreadable(packet, Reason::Fragment);
    }
    if packet.kind == kind::ERROR {
        return error(skb, &config, number, slot, packet);
    }
    let key = packet.key(number, WAY);
    match flows::settle(&config, now, slot, &key, packet, WAY, false) {
        Settled::Passes(flags, flow) => {
            if flags & Flow::JUDGED != 0 {
                audit::again(skb, &config, slot, (packet, WAY), (&key, flow));
            }
            if flags & Flow::INGRESS != 0 {
                skb.set_mark(number, State::Reply);
            } else {
                let expected = destination(&config, number, packet, &flow.peer, flow.port);
                skb.set_cookie(mark::cookie(config.secret, expected, packet.source_port));
                skb.set_mark(number, State::Expected);
            }
            return events::allow(skb, number, WAY);
        }
        Settled::Revoked => {
            let decided = (number, WAY, Reason::Revoked);
            return events::revoke(skb, &config, decided, packet);
        }
        Settled::Pending | Settled::Miss => {}
    }

    let peer = verdict::peer(packet.family, &packet.destination);
    let allowed = peer.slot == number
        || verdict::allows(
            slot.egress,
            peer.class,
            packet.protocol,
            packet.destination_port,
        );
    let translated = peer.flags & Peer::TRANSLATED != 0;
    // A connection older than its entry: who opened it is not known, so either direction's permission
    // carries it.
    let live = packet.continues()
        && (translated
            || !allowed
            || verdict::allows(
                slot.ingress,
                peer.class,
                packet.protocol,
                packet.source_port,
            ))
        && sockets::live(skb, slot.namespace, &packet.source, &key);
    if live
        && (translated || !allowed)
        && verdict::allows(
            slot.ingress,
            peer.class,
            packet.protocol,
            packet.source_port,
        )
    {
        let both = Flow::EGRESS | Flow::INGRESS;
        let flow = flows::entry(&config, &packet.destination, packet.destination_port, both);
        flows::take_up(&key, &flow);
        skb.set_mark(number, State::Reply);
        return events::allow(skb, number, WAY);
    }
    if !allowed && !translated {
        return deny(packet, Reason::Policy);
    }
    // What is translated is judged at the exit.
    if !translated && peer.slot != number {
        let what = Allowed {
            number,
            direction: WAY,
            live,
            peer: &packet.destination,
            class: peer.class,
        };
        audit::allowed(skb, &config, slot, packet, &what);
    }
    let expected = destination(
        &config,
        number,
        packet,
        &packet.destination,
        packet.destination_port,
    );
    let cookie = mark::cookie(config.secret, expected, packet.source_port);
    skb.set_cookie(cookie);
    let mut flags = Flow::EGRESS;
    if live && allowed {
        flags |= Flow::INGRESS;
    }
    // Nothing is opened before the exit where another verdict is still to come: that of the real
    // destination, or of a receiver on this node.
    let state = if translated {
        flags |= Flow::PENDING;
        State::Undecided
    } else if peer.slot != 0 && peer.slot != number {
        flags |= Flow::PENDING | Flow::LOCAL;
        State::Opening
    } else {
        State::Expected
    };
    skb.set_mark(number, state);
    if packet.starts() {
        let flow = flows::entry(&config, &packet.destination, packet.destination_port, flags);
        flows::open(&key, &flow);
        if flags & Flow::PENDING != 0 {
            maps::set_pending(cookie, &key);
        } else {
            events::opened(skb, &config, number, WAY, packet, &packet.destination);
        }
    }
    events::allow(skb, number, WAY)
}

/// The destination part of the cookie.
#[inline(always)]
fn destination(config: &Config, number: u16, packet: &Packet, address: &Address, port: u16) -> u32 {
    mark::destination_cookie(config.secret, number, packet.protocol, address, port)
}

/// Whether a source address is the pod's own. Link-local addresses are each interface's own to make, and
/// never identify a pod.
#[inline(always)]
fn own(slot: &Slot, family: u8, source: &Address) -> bool {
    if family == family::V4 {
        source[0] == slot.v4 && slot.v4 != 0
    } else {
        let v6 = &slot.v6;
        let same = source[0] == v6[0]
            && source[1] == v6[1]
            && source[2] == v6[2]
            && source[3] == v6[3]
            && (v6[0] | v6[1] | v6[2] | v6[3]) != 0;
        same || u32::from_be(source[0]) & 0xffc0_0000 == 0xfe80_0000
    }
}

/// An ICMP error that the pod sends: passes if what it quotes belongs to a known flow, else it is judged.
#[inline(never)]
fn error(skb: Skb, config: &Config, number: u16, slot: &Slot, packet: &Packet) -> Verdict {
    let mut inner = Packet::EMPTY;
    let related = quoted::parse(skb, packet, &mut inner) && {
        let key = inner.key(number, Direction::Ingress);
        let now = skb::jiffies();
        matches!(
            flows::settle(config, now, slot, &key, &inner, Direction::Ingress, true),
            Settled::Passes(..)
        )
    };
    if related {
        skb.set_mark(number, State::Reply);
        return events::allow(skb, number, WAY);
    }
    let peer = verdict::peer(packet.family, &packet.destination);
    let translated = peer.flags & Peer::TRANSLATED != 0;
    let own = peer.slot == number;
    if !translated && !own && !verdict::allows(slot.egress, peer.class, packet.protocol, 0) {
        return events::deny(skb, config, (number, WAY, Reason::Policy), packet);
    }
    // Undecided: the exit judges it, and audits it.
    skb.set_mark(number, State::Undecided);
    events::allow(skb, number, WAY)
}
