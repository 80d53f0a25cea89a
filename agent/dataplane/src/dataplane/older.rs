//! Flows that are older than the agent: what the kernel's connection tracking knows of them becomes entries.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use aya::maps::MapError;
use palisade_common::{
    family,
    key::FlowKey,
    protocol,
    value::{Flow, Slot},
};
use palisade_policy::{
    model::Protocol,
    table::{Direction, Traffic},
};

use super::Dataplane;
use crate::{
    encode,
    maps::Maps,
    mirror::Mirror,
    netlink::{Conntrack, Ends, NetlinkError, Tracked},
};

/// Flows that are older than the agent cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum OlderError {
    /// The kernel does not tell of them.
    #[error(transparent)]
    Unknown(#[from] NetlinkError),
    /// An entry cannot be written.
    #[error("cannot write the entry of a flow")]
    Unwritten(#[source] MapError),
}

impl Dataplane<Maps> {
    /// Takes up the UDP flows that the pods with a slot have open, as far as policy allows the ends that opened them: each
    /// entry is one that the programs would have made, and they judge it again at its next packet. To be called once, where
    /// slots and tables are written and no program reads them yet. `seen`: jiffies that have passed. How many entries it
    /// made.
    ///
    /// # Errors
    ///
    /// Nothing is taken up, or not all.
    pub fn take_up_older(&mut self, seen: u32) -> Result<usize, OlderError> {
        let local = self.local.addresses();
        let tracked = Conntrack::open()?.datagrams(|tracked| {
            [tracked.original, tracked.reply]
                .iter()
                .any(|ends| local.contains_key(&ends.source.ip()))
        })?;
        let mirror = &self.mirror;
        let flows = tracked
            .iter()
            .flat_map(|tracked| entries(mirror, &local, tracked, seen));
        self.store.take_up(flows).map_err(OlderError::Unwritten)
    }
}

/// What a pod of this node has of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    key: FlowKey,
    direction: Direction,
    /// Who is judged, and at which port.
    judged: SocketAddr,
}

/// The entries of a flow: of either end that is a pod here. None where any of them does not allow it: between two local
/// pods nothing is open unless both do.
fn entries(
    mirror: &Mirror,
    local: &BTreeMap<IpAddr, u16>,
    tracked: &Tracked,
    seen: u32,
) -> Vec<(FlowKey, Flow)> {
    let sides = sides(local, tracked);
    if !sides.iter().all(|side| allows(mirror, side)) {
        return Vec::new();
    }
    let both = if sides.len() > 1 { Flow::LOCAL } else { 0 };
    sides
        .into_iter()
        .map(|side| {
            let opened = match side.direction {
                Direction::Ingress => Flow::INGRESS,
                Direction::Egress => Flow::EGRESS,
            };
            let flow = Flow {
                peer: encode::address(side.judged.ip()),
                // An older one than that of the tables.
                revision: mirror.config().revision.wrapping_sub(1),
                seen,
                port: side.judged.port(),
                flags: opened | both,
                tcp: 0,
                reserved: 0,
            };
            (side.key, flow)
        })
        .collect()
}

/// The sides of a flow that are pods of this node, as the programs see it there. A pod speaks with itself as it likes.
fn sides(local: &BTreeMap<IpAddr, u16>, tracked: &Tracked) -> Vec<Side> {
    let Tracked { original, reply } = tracked;
    let opener = local.get(&original.source.ip()).copied();
    let server = local.get(&reply.source.ip()).copied();
    if opener == server {
        return Vec::new();
    }
    let mut sides = Vec::new();
    // The pod speaks with the address it asked for, and is judged on who answers.
    sides.extend(opener.map(|slot| Side {
        key: key(slot, original),
        direction: Direction::Egress,
        judged: reply.source,
    }));
    // The pod sees what a masquerade has made of the opener. If that is a pod of this node, it is known all the same.
    sides.extend(server.map(|slot| {
        let ends = opener.map_or(reply.destination, |_| original.source);
        Side {
            key: key(slot, reply),
            direction: Direction::Ingress,
            judged: SocketAddr::new(ends.ip(), reply.source.port()),
        }
    }));
    sides
}

/// The key of a pod's flow, by its packets from the pod.
fn key(slot: u16, ends: &Ends) -> FlowKey {
    FlowKey {
        remote: encode::address(ends.destination.ip()),
        local_port: ends.source.port(),
        remote_port: ends.destination.port(),
        slot,
        protocol: protocol::UDP,
        family: match ends.destination.ip() {
            IpAddr::V4(_) => family::V4,
            IpAddr::V6(_) => family::V6,
        },
    }
}

/// Whether policy allows the end that opened a flow, as the programs ask it.
fn allows(mirror: &Mirror, side: &Side) -> bool {
    let Some(Slot {
        ingress, egress, ..
    }) = mirror.slots().get(&side.key.slot)
    else {
        return false;
    };
    let table = match side.direction {
        Direction::Ingress => *ingress,
        Direction::Egress => *egress,
    };
    let class = mirror.class_of(&side.judged.ip());
    let traffic = Traffic::Port(Protocol::Udp, side.judged.port());
    mirror.cell(table, class).allows(traffic)
}

#[cfg(test)]
mod tests {
    use palisade_common::value::{ALLOW_ALL, DENY_ALL};

    use super::*;
    use crate::plan::op::Op;

    const CLIENT: &str = "10.1.0.2:4000";
    const SERVICE: &str = "10.96.0.10:53";
    const BACKEND: &str = "10.1.0.9:5353";
    const NODE: &str = "192.0.2.1:61000";
    const REVISION: u32 = 5;

    fn ends([source, destination]: [&str; 2]) -> Ends {
        Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn tracked(original: [&str; 2], reply: [&str; 2]) -> Tracked {
        Tracked {
            original: ends(original),
            reply: ends(reply),
        }
    }

    fn ip(end: &str) -> IpAddr {
        end.parse::<SocketAddr>().unwrap().ip()
    }

    fn local(pods: &[(&str, u16)]) -> BTreeMap<IpAddr, u16> {
        pods.iter().map(|&(end, slot)| (ip(end), slot)).collect()
    }

    fn side(slot: u16, ends: [&str; 2], direction: Direction, judged: &str) -> Side {
        Side {
            key: key(slot, &self::ends(ends)),
            direction,
            judged: judged.parse().unwrap(),
        }
    }

    #[test]
    fn a_client_speaks_with_a_service_and_is_judged_on_its_backend() {
        let flow = tracked([CLIENT, SERVICE], [BACKEND, NODE]);
        let expected = side(1, [CLIENT, SERVICE], Direction::Egress, BACKEND);
        assert_eq!(sides(&local(&[(CLIENT, 1)]), &flow), [expected]);
    }

    #[test]
    fn a_backend_speaks_with_a_masquerade_and_judges_it_at_its_own_port() {
        let flow = tracked([CLIENT, SERVICE], [BACKEND, NODE]);
        let judged = "192.0.2.1:5353";
        let expected = side(2, [BACKEND, NODE], Direction::Ingress, judged);
        assert_eq!(sides(&local(&[(BACKEND, 2)]), &flow), [expected]);
    }

    #[test]
    fn between_pods_of_the_node_a_masquerade_hides_nobody() {
        let flow = tracked([CLIENT, SERVICE], [BACKEND, NODE]);
        let expected = [
            side(1, [CLIENT, SERVICE], Direction::Egress, BACKEND),
            side(2, [BACKEND, NODE], Direction::Ingress, "10.1.0.2:5353"),
        ];
        let pods = local(&[(CLIENT, 1), (BACKEND, 2)]);
        assert_eq!(sides(&pods, &flow), expected);
    }

    #[test]
    fn a_flow_of_others_or_of_a_pod_with_itself_has_no_entry() {
        let flow = tracked([CLIENT, SERVICE], [BACKEND, NODE]);
        assert_eq!(sides(&local(&[(NODE, 1), (SERVICE, 2)]), &flow), []);
        let own = tracked([CLIENT, SERVICE], [CLIENT, NODE]);
        assert_eq!(sides(&local(&[(CLIENT, 1)]), &own), []);
    }

    #[test]
    fn what_either_local_end_denies_has_no_entry_and_the_rest_is_judged_again() {
        let flow = tracked([CLIENT, SERVICE], [BACKEND, NODE]);
        let pods = local(&[(CLIENT, 1), (BACKEND, 2)]);
        for (egress, ingress, entries) in [
            (ALLOW_ALL, ALLOW_ALL, 2),
            (DENY_ALL, ALLOW_ALL, 0),
            (ALLOW_ALL, DENY_ALL, 0),
        ] {
            let mut mirror = Mirror::default();
            for op in mirror.constants() {
                mirror.note(&op);
            }
            let slot = |egress, ingress| Slot {
                ifindex: 7,
                egress,
                ingress,
                ..Slot::default()
            };
            let mut write = |slot, value| mirror.note(&Op::Slot { slot, value });
            // The other direction of either is not asked.
            write(1, slot(egress, DENY_ALL));
            write(2, slot(DENY_ALL, ingress));
            mirror.note(&Op::Config(palisade_common::value::Config {
                revision: REVISION,
                ..Default::default()
            }));
            let found = super::entries(&mirror, &pods, &flow, 9);
            assert_eq!(found.len(), entries);
            for (_, flow) in found {
                assert_eq!((flow.revision, flow.seen), (REVISION - 1, 9));
                assert_ne!(flow.flags & Flow::LOCAL, 0);
            }
            // Of a pod that has no slot after all nothing is known.
            assert_eq!(
                super::entries(&mirror, &local(&[(CLIENT, 3)]), &flow, 9),
                []
            );
        }
    }
}
