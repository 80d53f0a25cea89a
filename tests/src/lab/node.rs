//! A node: the namespace in which the agent runs, an uplink, and what its pods are plugged into.

use std::{collections::BTreeSet, net::IpAddr, os::fd::AsFd, path::Path};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::{
    endpoint::{Endpoint, mac},
    fabric::{FORWARDING, Fabric},
    namespace::Namespace,
    netlink::{End, Mac, Via, everywhere},
    plan::{Cni, NodePlan, both_ranges, gateways, nth},
    pod::{Pod, Socket},
    proxy::Proxy,
};

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its namespace and the addresses of its uplink.
    pub endpoint: Endpoint,
    /// Its name; that of the endpoint is `node:` and this.
    pub name: String,
    /// Its plan.
    pub plan: NodePlan,
    /// Index of its uplink, `eth0`.
    pub uplink: u32,
    /// Index and link layer address of `cni0` where it has one.
    pub bridge: Option<(u32, Mac)>,
    pub(super) proxy: Proxy,
    gateways: Vec<IpAddr>,
    next: u8,
}

impl Node {
    /// Makes a node and connects it to the fabric's bridge.
    pub(super) fn create(
        file: &Path,
        plan: &NodePlan,
        addresses: &[IpAddr],
        fabric: &Fabric,
    ) -> Result<Self> {
        let namespace = Namespace::create(file)?;
        namespace.settings(FORWARDING)?;
        let first = *addresses.first().context("a node without addresses")?;
        let port = fabric.namespace.netlink().add_veth(
            End {
                name: &plan.name,
                mac: mac(0x61, first),
            },
            End {
                name: "eth0",
                mac: mac(0x60, first),
            },
            namespace.as_fd(),
        )?;
        fabric
            .namespace
            .netlink()
            .enslave(port, fabric.bridge, false)?;
        let netlink = namespace.netlink();
        let uplink = netlink.up("eth0")?;
        for (&address, router) in addresses.iter().zip(Fabric::addresses()) {
            netlink.add_address(uplink, IpNet::new(address, router.prefix_len())?)?;
            netlink.add_route(everywhere(address), Via::Router(router.addr(), uplink))?;
        }
        let range = *plan.ranges.first().context("a node without a range")?;
        let mut node = Self {
            endpoint: Endpoint {
                name: format!("node:{}", plan.name),
                addresses: addresses.to_vec(),
                namespace,
            },
            name: plan.name.clone(),
            plan: plan.clone(),
            uplink,
            bridge: None,
            proxy: Proxy::default(),
            gateways: gateways(range).to_vec(),
            next: 0,
        };
        if let Cni::Bridge { netfilter } = plan.cni {
            node.add_bridge(netfilter)?;
        }
        Ok(node)
    }

    fn add_bridge(&mut self, netfilter: bool) -> Result<()> {
        let switch = if netfilter { "1" } else { "0" };
        let settings =
            ["iptables", "ip6tables"].map(|of| (format!("net/bridge/bridge-nf-call-{of}"), switch));
        // Without br_netfilter in the kernel there is nothing to switch off.
        if netfilter || Path::new("/proc/sys/net/bridge").exists() {
            let settings = settings.each_ref().map(|(name, value)| (&**name, *value));
            let set = self.endpoint.namespace.settings(&settings);
            set.context("netfilter does not see bridges: modprobe br_netfilter")?;
        }
        let netlink = self.endpoint.namespace.netlink();
        let mac = mac(0x5a, self.gateways[0]);
        let bridge = netlink.add_bridge(End { name: "cni0", mac })?;
        for &range in &self.plan.ranges {
            for (gateway, range) in gateways(range).into_iter().zip(both_ranges(range)) {
                netlink.add_address(bridge, IpNet::new(gateway, range.prefix_len())?)?;
            }
        }
        self.bridge = Some((bridge, mac));
        Ok(())
    }

    /// The next addresses of its first range, over and over, that no pod has.
    pub(super) fn next_addresses(&mut self, taken: &BTreeSet<IpAddr>) -> Result<[IpAddr; 2]> {
        for _ in 1..254 {
            self.next = self.next % 253 + 1;
            let addresses = nth(self.plan.ranges[0], self.next);
            if !addresses.iter().any(|address| taken.contains(address)) {
                return Ok(addresses);
            }
        }
        bail!("the range of {} is used up", self.name)
    }

    /// Whether routes to the node's ranges lead to an address.
    pub(super) fn covers(&self, address: IpAddr) -> bool {
        let mut ranges = self.plan.ranges.iter().copied().flat_map(both_ranges);
        ranges.any(|range| range.contains(&address))
    }

    /// Makes a pod on this node.
    pub(super) fn plug(
        &self,
        file: &Path,
        name: &str,
        interface: String,
        addresses: &[IpAddr],
    ) -> Result<Pod> {
        let ranges: Vec<IpNet> = match self.plan.cni {
            Cni::Ptp => Vec::new(),
            Cni::Bridge { .. } => {
                let ranges = self.plan.ranges.iter().copied();
                ranges.flat_map(both_ranges).collect()
            }
        };
        let socket = Socket {
            holder: &self.endpoint.namespace,
            bridge: self.bridge,
            gateways: &self.gateways,
            on_link: &ranges,
        };
        Pod::plug(file, name, &self.name, interface, addresses, &socket)
    }
}
