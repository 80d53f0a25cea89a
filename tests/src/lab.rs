//! The lab: nodes, pods and hosts outside, made of network namespaces.
//!
//! ```text
//!   x_a      x_b         y_a          203.0.113.7
//!    |eth0    |           |                |
//!   node1 (ptp)      node2 (bridge)        |
//!    |eth0              |eth0              |
//!    +---- fabric: 172.18.0.0/16 ----------+
//! ```
//!
//! Nothing of it touches the machine's own interfaces, and any number of labs can be up at once.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use self::{
    directory::Directory,
    fabric::Fabric,
    netlink::{Netlink, Via, host},
};
pub use self::{
    endpoint::Endpoint,
    namespace::Namespace,
    netlink::Mac,
    node::Node,
    plan::{Cni, NodePlan, Plan, both, twin, twin_range},
    pod::Pod,
    process::Process,
    proxy::{Service, ServicePort},
    tun::Tunnel,
};
use crate::probe::{Protocol, Servers};

mod directory;
mod endpoint;
mod fabric;
mod namespace;
mod netlink;
mod node;
mod plan;
mod pod;
mod process;
mod proxy;
mod tun;

/// A lab. Everything of it is gone when it is dropped, or when its process ends in any other way.
#[derive(Debug)]
pub struct Lab {
    servers: Servers,
    pods: BTreeMap<String, Pod>,
    outside: BTreeMap<String, Pod>,
    nodes: BTreeMap<String, Node>,
    fabric: Fabric,
    // Last, for it removes the files of all the others.
    directory: Directory,
}

impl Lab {
    /// Makes the nodes of a plan.
    ///
    /// # Errors
    /// Where the process is not root's, or the plan contradicts itself.
    pub fn new(plan: &Plan) -> Result<Self> {
        let directory = Directory::create()?;
        let fabric = Fabric::create(&directory.netns().join("fabric"))?;
        let mut lab = Self {
            servers: Servers::start()?,
            pods: BTreeMap::new(),
            outside: BTreeMap::new(),
            nodes: BTreeMap::new(),
            fabric,
            directory,
        };
        for (number, plan) in plan.nodes.iter().enumerate() {
            let file = lab.directory.netns().join(&plan.name);
            let node = Node::create(&file, plan, &node_addresses(number), &lab.fabric)?;
            ensure!(
                lab.nodes.insert(plan.name.clone(), node).is_none(),
                "two nodes {}",
                plan.name
            );
        }
        for plan in &plan.nodes {
            let ranges = plan.ranges.iter().copied().flat_map(plan::both_ranges);
            lab.route(&ranges.collect::<Vec<_>>(), &plan.name, Netlink::add_route)?;
        }
        Ok(lab)
    }

    /// Removes what crashed labs left. Every process does so before its first lab.
    ///
    /// # Errors
    /// Where something resists.
    pub fn sweep() -> Result<()> {
        directory::sweep()
    }

    /// A folder for files of the test; it goes when the lab goes.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The folder of the namespace files of everything in the lab, for `--netns-dir`.
    #[must_use]
    pub fn netns_dir(&self) -> PathBuf {
        self.directory.netns()
    }

    /// A bpffs of the lab's own.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.directory.bpffs()
    }

    /// The node of that name.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .get(name)
            .unwrap_or_else(|| panic!("no node {name}"))
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The pod of that name, `ns/pod`.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods
            .get(name)
            .unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// All pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// The endpoint of that name: `ns/pod`, `node:NAME`, or a host outside.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        if let Some(node) = name.strip_prefix("node:") {
            return self.nodes.get(node).map(|node| &node.endpoint);
        }
        let pod = self.pods.get(name).or_else(|| self.outside.get(name))?;
        Some(&pod.endpoint)
    }

    /// All endpoints: pods, then hosts outside, then nodes.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let pods = self.pods.values().chain(self.outside.values());
        let nodes = self.nodes.values().map(|node| &node.endpoint);
        pods.map(|pod| &pod.endpoint).chain(nodes)
    }

    /// Makes a pod, `ns/pod`, on a node, with the next free addresses of the node's range.
    ///
    /// # Errors
    /// Where the name is taken or the range used up.
    pub fn add_pod(&mut self, name: &str, node: &str) -> Result<&Pod> {
        let taken = self.pods.values().flat_map(|pod| &pod.endpoint.addresses);
        let taken = taken.copied().collect();
        let node = self.nodes.get_mut(node).context("no such node")?;
        let (addresses, node) = (node.next_addresses(&taken)?, node.name.clone());
        self.add_pod_at(name, &node, &addresses)
    }

    /// Makes a pod with these addresses, at most one of each family.
    ///
    /// # Errors
    /// Where the name or an address is taken.
    pub fn add_pod_at(&mut self, name: &str, node: &str, addresses: &[IpAddr]) -> Result<&Pod> {
        ensure!(!self.pods.contains_key(name), "there is a pod {name}");
        // No name in Kubernetes contains an underscore.
        let file = self.directory.netns().join(name.replace('/', "_"));
        let interface = interface_name(name);
        let on = self.nodes.get(node).context("no such node")?;
        let pod = on.plug(&file, name, interface, addresses)?;
        self.route_strays(&pod, Netlink::add_route)?;
        Ok(self.pods.entry(name.to_owned()).or_insert(pod))
    }

    /// Removes a pod; its addresses can be another's at once.
    ///
    /// # Errors
    /// Where there is none.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let pod = self.pods.remove(name).context("no such pod")?;
        self.servers.forget(name);
        self.route_strays(&pod, Netlink::delete_route)?;
        let node = self.nodes.get(&pod.node).context("no such node")?;
        pod.unplug(&node.endpoint.namespace)
    }

    /// Makes a host outside of the cluster, reached through a router, with no translation between.
    ///
    /// # Errors
    /// Where the name or an address is taken.
    pub fn add_outside(&mut self, name: &str, addresses: &[IpAddr]) -> Result<&Pod> {
        ensure!(!self.outside.contains_key(name), "there is a host {name}");
        let number = self.outside.len();
        let file = self.directory.netns().join(format!("outside{number}"));
        let host = self
            .fabric
            .plug(&file, name, format!("outside{number}"), addresses)?;
        Ok(self.outside.entry(name.to_owned()).or_insert(host))
    }

    /// Adds Services on every node, or replaces them.
    ///
    /// # Errors
    /// Where nft is missing or refuses.
    pub fn add_services(&mut self, services: &[Service]) -> Result<()> {
        for node in self.nodes.values_mut() {
            node.proxy.add(services, &node.endpoint.namespace)?;
        }
        Ok(())
    }

    /// Makes these the Services of one node.
    ///
    /// # Errors
    /// Where nft is missing or refuses.
    pub fn set_services(&mut self, node: &str, services: &[Service]) -> Result<()> {
        let node = self.nodes.get_mut(node).context("no such node")?;
        node.proxy.set(services, &node.endpoint.namespace)
    }

    /// Removes Services from every node.
    ///
    /// # Errors
    /// Where nft is missing or refuses.
    pub fn remove_services(&mut self, names: &[&str]) -> Result<()> {
        for node in self.nodes.values_mut() {
            node.proxy.remove(names, &node.endpoint.namespace)?;
        }
        Ok(())
    }

    /// Lets an endpoint serve a port at all of its addresses, from now on.
    ///
    /// # Errors
    /// Where there is no such endpoint.
    pub fn serve(&self, name: &str, port: u16, protocol: Protocol) -> Result<()> {
        let endpoint = self.endpoint(name).with_context(|| format!("no {name}"))?;
        self.servers.serve(endpoint, port, protocol)
    }

    /// Starts a program inside an endpoint; its output goes to a file of that name in the lab's
    /// folder.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start(&self, command: Command, log: &str) -> Result<Process> {
        Process::start(command, &self.path().join(log))
    }

    /// Link layer source and destination of a pod's frames to an address.
    #[must_use]
    pub fn link(&self, pod: &Pod, to: IpAddr) -> (Mac, Mac) {
        let node = self.nodes.get(&pod.node);
        let shared = node.is_some_and(|node| node.bridge.is_some() && node.covers(to));
        let mut neighbours = self.pods.values().filter(|peer| peer.node == pod.node);
        let neighbour = neighbours.find(|peer| peer.endpoint.addresses.contains(&to));
        match neighbour {
            Some(neighbour) if shared => (pod.mac, neighbour.mac),
            _ => (pod.mac, pod.gateway_mac),
        }
    }

    /// Changes the routes to those of a pod's addresses that its node's ranges do not cover.
    fn route_strays(&self, pod: &Pod, change: Change) -> Result<()> {
        let node = self.nodes.get(&pod.node).context("no such node")?;
        let addresses = pod.endpoint.addresses.iter().copied();
        let strays = addresses.filter(|address| !node.covers(*address));
        let strays: Vec<_> = strays.map(host).collect();
        if let Some((bridge, _)) = node.bridge {
            for &stray in &strays {
                change(node.endpoint.namespace.netlink(), stray, Via::Link(bridge))?;
            }
        }
        self.route(&strays, &pod.node, change)
    }

    /// Changes the routes to what lies behind a node, everywhere else.
    fn route(&self, destinations: &[IpNet], behind: &str, change: Change) -> Result<()> {
        let behind = self.nodes.get(behind).context("no such node")?;
        let others = self.nodes.values().filter(|node| node.name != behind.name);
        let others = others.map(|node| (node.endpoint.namespace.netlink(), node.uplink));
        let fabric = (self.fabric.namespace.netlink(), self.fabric.bridge);
        for (netlink, link) in others.chain([fabric]) {
            for &to in destinations {
                let family = if to.addr().is_ipv4() { 4 } else { 6 };
                let router = behind.endpoint.address(family).context("no such family")?;
                change(netlink, to, Via::Router(router, link))?;
            }
        }
        Ok(())
    }
}

/// The addresses of a plan's n-th node, counted from 0.
#[must_use]
pub fn node_addresses(number: usize) -> [IpAddr; 2] {
    // The first on the link is the router's.
    Fabric::nth(number as u8 + 2)
}

/// [`Netlink::add_route`] or [`Netlink::delete_route`].
type Change = fn(&Netlink, IpNet, Via) -> Result<()>;

/// Name of a pod's device on its node: its own as far as 15 bytes allow.
fn interface_name(name: &str) -> String {
    let plain = format!("veth-{}", name.replace('/', "-"));
    if plain.len() <= 15 {
        return plain;
    }
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("veth{:011x}", hash & 0xfff_ffff_ffff)
}
