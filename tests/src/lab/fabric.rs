//! What lies between the nodes and around them.

use std::{net::IpAddr, path::Path};

use anyhow::Result;
use ipnet::IpNet;

use super::{
    endpoint::mac,
    namespace::Namespace,
    netlink::End,
    plan::both,
    pod::{Pod, Socket},
};

/// Settings of whatever forwards.
pub(super) const FORWARDING: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
];

/// What lies between the nodes: one link they share, and a router to the hosts outside.
#[derive(Debug)]
pub(super) struct Fabric {
    pub(super) namespace: Namespace,
    /// Index of the link the nodes share.
    pub(super) bridge: u32,
}

impl Fabric {
    pub(super) fn create(file: &Path) -> Result<Self> {
        let namespace = Namespace::create(file)?;
        namespace.settings(FORWARDING)?;
        let [address, _] = Self::addresses();
        let bridge = namespace.netlink().add_bridge(End {
            name: "lan",
            mac: mac(0x62, address.addr()),
        })?;
        for address in Self::addresses() {
            namespace.netlink().add_address(bridge, address)?;
        }
        Ok(Self { namespace, bridge })
    }

    /// Its own addresses on the link, with the link's prefix.
    pub(super) fn addresses() -> [IpNet; 2] {
        let [v4, v6] = Self::nth(1);
        [IpNet::new_assert(v4, 16), IpNet::new_assert(v6, 64)]
    }

    /// The n-th address on the link.
    pub(super) fn nth(n: u8) -> [IpAddr; 2] {
        both([172, 18, 0, n].into())
    }

    /// Makes a host outside.
    pub(super) fn plug(
        &self,
        file: &Path,
        name: &str,
        interface: String,
        addresses: &[IpAddr],
    ) -> Result<Pod> {
        let socket = Socket {
            holder: &self.namespace,
            bridge: None,
            gateways: &["169.254.1.1".parse()?, "fe80::1".parse()?],
            on_link: &[],
        };
        Pod::plug(file, name, "", interface, addresses, &socket)
    }
}
