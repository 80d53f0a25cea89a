//! Pods and hosts outside: a namespace with an `eth0` whose other end somebody else holds.

use std::{net::IpAddr, path::Path};

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::{
    endpoint::{Endpoint, mac},
    namespace::Namespace,
    netlink::{End, Mac, Via, everywhere, host},
};

/// A pod, or a host that is connected like one.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace and addresses.
    pub endpoint: Endpoint,
    /// The node it is on; for a host outside, nothing.
    pub node: String,
    /// Name of the device in its node's namespace.
    pub interface: String,
    /// Index of that device.
    pub index: u32,
    /// Link layer address of its `eth0`.
    pub mac: Mac,
    /// Link layer address of its gateway.
    pub gateway_mac: Mac,
}

/// What a pod's veth is plugged into.
pub(super) struct Socket<'a> {
    /// The namespace of the other end.
    pub(super) holder: &'a Namespace,
    /// The bridge the other end becomes a port of, and its link layer address.
    pub(super) bridge: Option<(u32, Mac)>,
    /// Gateway addresses, one of each family.
    pub(super) gateways: &'a [IpAddr],
    /// Ranges whose addresses are reached without the gateway.
    pub(super) on_link: &'a [IpNet],
}

impl Pod {
    /// Makes a namespace of that name and plugs it in.
    pub(super) fn plug(
        file: &Path,
        name: &str,
        node: &str,
        interface: String,
        addresses: &[IpAddr],
        socket: &Socket<'_>,
    ) -> Result<Self> {
        let first = *addresses.first().context("a pod without addresses")?;
        let namespace = Namespace::create(file)?;
        let (near, far) = (mac(0x59, first), mac(0x58, first));
        let holder = socket.holder.netlink();
        let index = holder.add_veth(
            End {
                name: &interface,
                mac: near,
            },
            End {
                name: "eth0",
                mac: far,
            },
            std::os::fd::AsFd::as_fd(&namespace),
        )?;
        let pod = Self {
            endpoint: Endpoint {
                name: name.to_owned(),
                addresses: addresses.to_vec(),
                namespace,
            },
            node: node.to_owned(),
            interface,
            index,
            mac: far,
            gateway_mac: socket.bridge.map_or(near, |(_, mac)| mac),
        };
        match socket.bridge {
            Some((bridge, _)) => holder.enslave(index, bridge, true)?,
            None => pod.route_to(socket)?,
        }
        pod.address(socket)?;
        Ok(pod)
    }

    /// The holder's side of a routed pod.
    fn route_to(&self, socket: &Socket<'_>) -> Result<()> {
        let holder = socket.holder.netlink();
        for gateway in socket.gateways {
            holder.add_address(self.index, host(*gateway))?;
        }
        for address in &self.endpoint.addresses {
            holder.add_route(host(*address), Via::Link(self.index))?;
        }
        Ok(())
    }

    /// The pod's side.
    fn address(&self, socket: &Socket<'_>) -> Result<()> {
        let netlink = self.endpoint.namespace.netlink();
        let eth0 = netlink.up("eth0")?;
        for &address in &self.endpoint.addresses {
            let range = socket.on_link.iter().find(|range| range.contains(&address));
            let length = range.map_or(host(address), |range| {
                IpNet::new_assert(address, range.prefix_len())
            });
            netlink.add_address(eth0, length)?;
            let gateway = socket
                .gateways
                .iter()
                .find(|gateway| gateway.is_ipv4() == address.is_ipv4())
                .context("no gateway of that family")?;
            if range.is_none_or(|range| !range.contains(gateway)) {
                netlink.add_route(host(*gateway), Via::Link(eth0))?;
            }
            netlink.add_route(everywhere(address), Via::Router(*gateway, eth0))?;
        }
        Ok(())
    }

    /// Sends whatever the gateway resolves into void unless the pod is there: removes its device.
    pub(super) fn unplug(&self, holder: &Namespace) -> Result<()> {
        holder.netlink().delete_link(self.index)
    }
}
