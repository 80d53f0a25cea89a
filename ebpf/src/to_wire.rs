//! TC egress of a device by which packets leave the node: the exit of pods' packets to elsewhere.

use palisade_common::{
    key::FragmentKey,
    mark::{self, State},
    value::{ALLOW_ALL, Config, Slot},
    verdict::{Direction, Reason, Verdict},
};

use crate::{
    events, exit, fragments, maps,
    origin::{self, Maker},
    parse::{self, Packet, Parsed},
    skb::{self, Skb},
};

const WAY: Direction = Direction::Egress;

/// Judges a packet that leaves the node, if it is a pod's.
#[inline(always)]
pub(crate) fn judge(skb: Skb) -> Verdict {
    let mark = skb.tc_index() as u16;
    if mark == 0 && skb.ingress_ifindex() == 0 {
        return Verdict::Pass;
    }
    // Also the outer packet of a tunnel, whose inner one was judged.
    if mark::state(mark) == State::Judged as u8 {
        return Verdict::Pass;
    }
    let (Some(config), Some(packet)) = (maps::config(), maps::packet()) else {
        return Verdict::Pass;
    };
    let Some(interface) = maps::interface(skb.ifindex()) else {
        return Verdict::Pass;
    };
    let parsed = parse::parse(skb, usize::from(interface.link_header), packet);
    let marked = origin::marked(skb);
    let maker = if marked == Maker::OUTSIDE {
        origin::unmarked(skb, packet)
    } else {
        marked
    };
    let (number, state) = (maker.slot(), maker.state());
    if number == 0 {
        return Verdict::Pass;
    }
    let Some(sender) = maps::slot(number) else {
        return events::deny(skb, &config, (number, WAY, Reason::Unknown), packet);
    };
    match parsed {
        Parsed::Ip => {}
        Parsed::Neighbour => return Verdict::Pass,
        Parsed::NotIp => return unreadable(skb, &config, (number, Reason::NotIp), sender, packet),
        Parsed::Malformed => {
            return unreadable(skb, &config, (number, Reason::Malformed), sender, packet);
        }
    }
    let now = skb::jiffies();
    if !fragments::complete(&config, now, packet, FragmentKey::TO_WIRE) {
        // Its ports are not known here, but a reply needs none.
        if state != State::Reply as u8 {
            return unreadable(skb, &config, (number, Reason::Fragment), sender, packet);
        }
    } else {
        if !exit::allows(skb, &config, (number, sender), state, packet) {
            return events::deny(skb, &config, (number, WAY, Reason::Policy), packet);
        }
        exit::confirm(skb, &config, number, state, packet, false);
    }
    // Decided: neither a device below nor another node's namespace shall see the slot.
    skb.set_mark(0, State::Judged);
    Verdict::Pass
}

#[inline(always)]
fn unreadable(
    skb: Skb,
    config: &Config,
    decided: (u16, Reason),
    sender: &Slot,
    packet: &Packet,
) -> Verdict {
    if sender.egress != ALLOW_ALL {
        return events::deny(skb, config, (decided.0, WAY, decided.1), packet);
    }
    // Where it came in it was told of already.
    skb.set_mark(0, State::Judged);
    Verdict::Pass
}
