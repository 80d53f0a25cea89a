//! What a lab is to look like: its nodes, their network plugins and their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How a node connects its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cni {
    /// Each pod is routed to over a veth of its own, as the ptp plugin does it.
    Ptp,
    /// The pods' veths are ports of `cni0`, as the bridge plugin does it. All namespaces share the machine's
    /// neighbour table (`gc_thresh3`, 1024 entries): about thirty pods on a bridge can speak each with
    /// each within seconds.
    Bridge {
        /// Whether netfilter sees what crosses the bridge (`bridge-nf-call-iptables`). Where it
        /// does not, a Service whose backend is on the client's own node and in its range does not
        /// work: the answer crosses the bridge with the backend's address.
        netfilter: bool,
    },
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Its name.
    pub name: String,
    /// Its network plugin.
    pub cni: Cni,
    /// Ranges of its pods, each a /24 and its [twin](twin_range); the gateway's address is the
    /// 254th. A pod may have an address outside them all; it is routed to alone then.
    pub ranges: Vec<Ipv4Net>,
}

/// A lab.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its nodes.
    pub nodes: Vec<NodePlan>,
}

impl Plan {
    /// So many nodes, `node1` and on, with one range each, 10.244.1.0/24 and on.
    #[must_use]
    pub fn of(nodes: u8, cni: Cni) -> Self {
        let nodes = (1..=nodes).map(|number| NodePlan {
            name: format!("node{number}"),
            cni,
            ranges: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 244, number, 0), 24)],
        });
        Self {
            nodes: nodes.collect(),
        }
    }
}

/// The IPv6 address that goes with an IPv4 address: `fd00:10:244:1::4d` with 10.244.1.77.
/// Two such addresses share a /120 exactly where the IPv4 ones share a /24, and a /124 where they
/// share a /28.
#[must_use]
pub fn twin(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets();
    // Groups are read like the decimal number they look like.
    let group = |octet: u8| {
        let octet = u16::from(octet);
        octet / 100 * 0x100 + octet / 10 % 10 * 0x10 + octet % 10
    };
    Ipv6Addr::new(0xfd00, group(a), group(b), group(c), 0, 0, 0, u16::from(d))
}

/// The /64 in which the twins of a /24 lie.
#[must_use]
pub fn twin_range(range: Ipv4Net) -> Ipv6Net {
    Ipv6Net::new_assert(twin(range.network()), 64).trunc()
}

/// An IPv4 address and its twin.
#[must_use]
pub fn both(address: Ipv4Addr) -> [IpAddr; 2] {
    [address.into(), twin(address).into()]
}

/// Both ranges of a node's range.
#[must_use]
pub(super) fn both_ranges(range: Ipv4Net) -> [IpNet; 2] {
    [range.into(), twin_range(range).into()]
}

/// The gateway's addresses in a range.
pub(super) fn gateways(range: Ipv4Net) -> [IpAddr; 2] {
    nth(range, 254)
}

/// The n-th address of a range and its twin.
#[must_use]
pub(super) fn nth(range: Ipv4Net, n: u8) -> [IpAddr; 2] {
    let [a, b, c, _] = range.network().octets();
    both(Ipv4Addr::new(a, b, c, n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_share_prefixes_as_their_addresses_do() {
        let plan: [Ipv4Addr; 3] =
            [[10, 244, 3, 212], [10, 244, 3, 210], [10, 244, 3, 68]].map(Into::into);
        let [a, b, c] = plan.map(twin);
        assert_eq!(a.to_string(), "fd00:10:244:3::d4");
        let share = |x: Ipv6Addr, y: Ipv6Addr, length| Ipv6Net::new_assert(x, length).contains(&y);
        assert!(share(a, b, 124) && !share(a, c, 124) && share(a, c, 120));
        assert_eq!(
            twin_range("10.244.3.0/24".parse().unwrap()).to_string(),
            "fd00:10:244:3::/64"
        );
    }
}
