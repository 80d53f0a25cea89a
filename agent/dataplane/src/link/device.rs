//! What a device of the node is to Palisade. Pure: a list of devices in, an answer out.

use std::collections::{BTreeMap, BTreeSet};

use crate::netlink::Link;

/// The devices of one namespace by index.
pub type Links = BTreeMap<u32, Link>;

/// A device by which packets may leave the node, or pass between pods that are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Bytes before the IP header of its packets at tc egress.
    pub link_header: u8,
    /// Whether `link_header` is a guess, the link type being unknown. The guess is Ethernet: what then
    /// cannot be parsed is dropped for isolated pods, never passed.
    pub guessed: bool,
}

/// Length of an Ethernet header, bytes.
pub const ETHERNET_HEADER: u8 = 14;

/// Every device that wants `to_wire`: all but the pods' own, and those at whose egress a packet is not as
/// it will leave. A bridge master sees packets half translated, an ifb before translation, and what
/// the loopback device carries stays in the node.
#[must_use]
pub fn exits(links: &Links, pods: &BTreeSet<u32>) -> Vec<Exit> {
    links
        .values()
        .filter(|link| !pods.contains(&link.index))
        .filter(|link| link.flags & libc::IFF_LOOPBACK as u32 == 0)
        .filter(|link| !matches!(link.kind.as_deref(), Some("bridge" | "ifb")))
        .map(|link| {
            let known = link_header(link.link_type);
            Exit {
                ifindex: link.index,
                name: link.name.clone(),
                link_header: known.unwrap_or(ETHERNET_HEADER),
                guessed: known.is_none(),
            }
        })
        .collect()
}

/// Bytes before the IP header of a packet at tc egress, by `ARPHRD_*`; none for a type not known.
#[must_use]
pub fn link_header(link_type: u16) -> Option<u8> {
    match link_type {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(ETHERNET_HEADER),
        // tun, wireguard; ipip, ip6tnl, sit, gre, ip6gre; PPP, whose driver adds its header later; raw IP of
        // modems.
        libc::ARPHRD_NONE
        | libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT
        | libc::ARPHRD_IPGRE
        | ARPHRD_IP6GRE
        | libc::ARPHRD_PPP
        | ARPHRD_RAWIP => Some(0),
        _ => None,
    }
}

/// The bridge a device is a port of.
#[must_use]
pub fn bridge(links: &Links, link: &Link) -> Option<u32> {
    let master = links.get(&link.master?)?;
    (master.kind.as_deref() == Some("bridge")).then_some(master.index)
}

const ARPHRD_IP6GRE: u16 = 823;
const ARPHRD_RAWIP: u16 = 519;

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: Option<&str>, link_type: u16) -> Link {
        Link {
            index,
            name: format!("dev{index}"),
            kind: kind.map(str::to_owned),
            link_type,
            flags: 0,
            peer: None,
            peer_namespace: None,
            master: None,
            xdp: None,
        }
    }

    fn table(links: impl IntoIterator<Item = Link>) -> Links {
        links.into_iter().map(|link| (link.index, link)).collect()
    }

    #[test]
    fn every_device_is_an_exit_but_pods_bridges_ifbs_and_the_loopback() {
        let mut lo = link(1, None, libc::ARPHRD_LOOPBACK);
        lo.flags = libc::IFF_LOOPBACK as u32;
        let links = table([
            lo,
            link(2, None, libc::ARPHRD_ETHER),
            link(3, Some("bridge"), libc::ARPHRD_ETHER),
            link(4, Some("veth"), libc::ARPHRD_ETHER),
            link(5, Some("veth"), libc::ARPHRD_ETHER),
            link(6, Some("ifb"), libc::ARPHRD_ETHER),
            link(7, Some("wireguard"), libc::ARPHRD_NONE),
            link(8, Some("ipip"), libc::ARPHRD_TUNNEL),
            link(9, Some("vxlan"), libc::ARPHRD_ETHER),
            link(10, None, libc::ARPHRD_INFINIBAND),
        ]);
        let exits = exits(&links, &BTreeSet::from([4]));
        let seen: Vec<_> = exits
            .iter()
            .map(|exit| (exit.ifindex, exit.link_header, exit.guessed))
            .collect();
        assert_eq!(
            seen,
            [
                (2, 14, false),
                (5, 14, false),
                (7, 0, false),
                (8, 0, false),
                (9, 14, false),
                (10, 14, true)
            ]
        );
    }

    #[test]
    fn only_a_bridge_counts_as_a_bridge_master() {
        let mut port = link(4, Some("veth"), libc::ARPHRD_ETHER);
        port.master = Some(3);
        for (kind, expected) in [("bridge", Some(3)), ("vrf", None), ("bond", None)] {
            let links = table([link(3, Some(kind), libc::ARPHRD_ETHER), port.clone()]);
            assert_eq!(bridge(&links, &port), expected, "{kind}");
        }
        assert_eq!(bridge(&table([]), &port), None);
    }
}
