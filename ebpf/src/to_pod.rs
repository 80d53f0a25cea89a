//! TC egress of a pod's interface: the pod's ingress, and the exit of other local pods' packets.

use palisade_common::{
    Address, family,
    key::{FlowKey, FragmentKey},
    mark::State,
    value::{ALLOW_ALL, Config, Flow, Interface, Slot},
    verdict::{Direction, Reason, Verdict},
};

use crate::{
    audit::{self, Allowed},
    events, exit,
    flows::{self, Settled},
    fragments, maps,
    origin::{self, Maker},
    parse::{self, Packet, Parsed, kind},
    quoted,
    skb::{self, Skb},
    sockets, verdict,
};

const WAY: Direction = Direction::Ingress;

/// Judges a packet on its way to a pod.
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
    let marked = origin::marked(skb);
    let by_node = marked == Maker::OUTSIDE && skb.ingress_ifindex() == 0;
    let parsed = parse::parse(skb, usize::from(link_header), packet);
    if parsed == Parsed::Neighbour {
        return events::allow(skb, number, WAY);
    }
    if parsed != Parsed::Ip {
        let reason = if parsed == Parsed::NotIp {
            Reason::NotIp
        } else {
            Reason::Malformed
        };
        return unreadable(skb, &config, number, slot, (marked, packet, reason));
    }
    let now = skb::jiffies();
    if !fragments::complete(&config, now, packet, number | FragmentKey::TO_POD) {
        return unreadable(
            skb,
            &config,
            number,
            slot,
            (marked, packet, Reason::Fragment),
        );
    }

    let error = packet.kind == kind::ERROR;
    let key = packet.key(number, WAY);
    let settled = if error {
        Settled::Miss
    } else {
        flows::settle(&config, now, slot, &key, packet, WAY, by_node)
    };
    if let Settled::Passes(flags, flow) = settled
        && flags & Flow::JUDGED != 0
    {
        audit::again(skb, &config, slot, (packet, WAY), (&key, flow));
    }
    let maker = if marked != Maker::OUTSIDE {
        marked
    } else if by_node {
        Maker::NODE
    } else {
        match settled {
            // A flow with the outside: no local pod can have sent this.
            Settled::Passes(flags, _) if flags & Flow::LOCAL == 0 => Maker::OUTSIDE,
            _ => origin::unmarked(skb, packet),
        }
    };
    let scene = maps::forget(packet, Scene::new(maker, settled).0);
    decide(skb, &config, (number, slot), packet, &key, Scene(scene))
}

/// Who made the packet and what the flow tables say of it, as one number that the verifier can forget.
#[derive(Clone, Copy)]
struct Scene(u64);

impl Scene {
    const MISS: u64 = 0;
    const PENDING: u64 = 1;
    const PASSES: u64 = 2;
    const REVOKED: u64 = 3;

    #[inline(always)]
    fn new(maker: Maker, settled: Settled) -> Self {
        let settled = match settled {
            Settled::Miss => Self::MISS,
            Settled::Pending => Self::PENDING,
            Settled::Passes(..) => Self::PASSES,
            Settled::Revoked => Self::REVOKED,
        };
        Self(u64::from(maker.0) | settled << 32)
    }

    #[inline(always)]
    fn maker(self) -> Maker {
        Maker(self.0 as u32)
    }

    #[inline(always)]
    fn settled(self) -> u64 {
        self.0 >> 32
    }
}

#[inline(always)]
fn decide(
    skb: Skb,
    config: &Config,
    (number, slot): (u16, &Slot),
    packet: &Packet,
    key: &FlowKey,
    scene: Scene,
) -> Verdict {
    let maker = scene.maker();
    let sender = maker.slot();
    let mut identity = maps::copy(&packet.source);
    if sender != 0 {
        // A pod always reaches itself, by address or through a Service.
        if sender == number {
            return events::allow(skb, number, WAY);
        }
        let Some(pod) = maps::slot(sender) else {
            return events::deny(skb, config, (number, WAY, Reason::Unknown), packet);
        };
        if !exit::allows(skb, config, (sender, pod), maker.state(), packet) {
            return events::deny(
                skb,
                config,
                (sender, Direction::Egress, Reason::Policy),
                packet,
            );
        }
        // Whatever a masquerade has made of its source, it is that pod.
        if packet.family == family::V4 {
            identity[0] = pod.v4;
        } else {
            identity = maps::copy(&pod.v6);
        }
    }
    match scene.settled() {
        Scene::PASSES => {}
        _ if maker == Maker::NODE => {
            from_node(config, key, packet, scene);
            return events::allow(skb, number, WAY);
        }
        Scene::REVOKED => {
            return events::revoke(skb, config, (number, WAY, Reason::Revoked), packet);
        }
        _ => {
            let related = packet.kind == kind::ERROR && related(skb, config, number, slot, packet);
            if !related && !admits(skb, config, slot, packet, (key, &identity, sender != 0)) {
                return events::deny(skb, config, (number, WAY, Reason::Policy), packet);
            }
        }
    }
    if sender != 0 {
        exit::confirm(skb, config, sender, maker.state(), packet, true);
    }
    events::allow(skb, number, WAY)
}

/// The node's own packets always pass, and open flows like any other's.
#[inline(never)]
fn from_node(config: &Config, key: &FlowKey, packet: &Packet, scene: Scene) {
    if scene.settled() == Scene::PENDING {
        // The node itself is what the pod's packet came to.
        let flags = Flow::NODE | Flow::EGRESS;
        let flow = flows::entry(config, &packet.source, packet.source_port, flags);
        flows::take_up(key, &flow);
    } else if packet.starts() {
        let flags = Flow::NODE | Flow::INGRESS;
        let flow = flows::entry(config, &packet.source, packet.destination_port, flags);
        flows::open(key, &flow);
    }
}

/// Judges a packet that belongs to no flow yet, and opens one if policy allows it.
#[inline(never)]
fn admits(
    skb: Skb,
    config: &Config,
    slot: &Slot,
    packet: &Packet,
    from: (&FlowKey, &Address, bool),
) -> bool {
    let (key, identity, local) = from;
    let peer = verdict::peer(packet.family, identity);
    let allowed = verdict::allows(
        slot.ingress,
        peer.class,
        packet.protocol,
        packet.destination_port,
    );
    // A connection older than its entry: either direction's permission carries it.
    let live = packet.continues()
        && verdict::allows(slot.egress, peer.class, packet.protocol, packet.source_port)
        && sockets::live(skb, slot.namespace, &packet.destination, key);
    if !allowed && !live {
        return false;
    }
    let what = Allowed {
        number: key.slot,
        direction: WAY,
        live,
        peer: identity,
        class: peer.class,
    };
    audit::allowed(skb, config, slot, packet, &what);
    if !packet.starts() {
        return true;
    }
    let mut flags = if local {
        Flow::INGRESS | Flow::LOCAL
    } else {
        Flow::INGRESS
    };
    let mut port = packet.destination_port;
    if live {
        flags |= Flow::EGRESS;
        port = packet.source_port;
    }
    let flow = flows::entry(config, identity, port, flags);
    if live {
        flows::take_up(key, &flow);
    } else {
        flows::open(key, &flow);
        events::opened(skb, config, key.slot, WAY, packet, identity);
    }
    true
}

/// What cannot be read passes only where nothing isolates: neither the pod, nor the pod that sent it.
/// What the node itself sends always passes.
#[inline(never)]
fn unreadable(
    skb: Skb,
    config: &Config,
    number: u16,
    slot: &Slot,
    what: (Maker, &Packet, Reason),
) -> Verdict {
    let (marked, packet, reason) = what;
    let maker = if marked == Maker::OUTSIDE {
        origin::unmarked(skb, packet)
    } else {
        marked
    };
    let sender = maker.slot();
    if maker == Maker::NODE || sender == number {
        return events::allow(skb, number, WAY);
    }
    if sender != 0 && maker.state() != State::Reply as u8 {
        let isolated = match maps::slot(sender) {
            Some(pod) => pod.egress != ALLOW_ALL,
            None => true,
        };
        if isolated {
            return events::deny(skb, config, (sender, Direction::Egress, reason), packet);
        }
    }
    if slot.ingress != ALLOW_ALL {
        return events::deny(skb, config, (number, WAY, reason), packet);
    }
    audit::unreadable(skb, config, slot, (number, WAY, reason), packet);
    events::allow(skb, number, WAY)
}

/// Whether an ICMP error quotes a packet of a flow of this pod.
#[inline(never)]
fn related(skb: Skb, config: &Config, number: u16, slot: &Slot, packet: &Packet) -> bool {
    let mut inner = Packet::EMPTY;
    if !quoted::parse(skb, packet, &mut inner) {
        return false;
    }
    let key = inner.key(number, Direction::Egress);
    let now = skb::jiffies();
    matches!(
        flows::settle(config, now, slot, &key, &inner, Direction::Egress, false),
        Settled::Passes(..)
    )
}
