//! From a pod's address to the device that carries its packets, by what is true of any CNI.
//!
//! A pod's interface is one half of a pair; the other half lies in the node's namespace and names the
//! pod's: `IFLA_LINK` is the index of the pod's half and `IFLA_LINK_NETNSID` the id of its namespace. So
//! the node's own list of devices leads to every namespace that can hold one of its pods, and only to
//! those: a pod of another node on the same machine is never mistaken for a local one. Each such
//! namespace is asked for its addresses, through its id. A pod not found so is looked up among the
//! routes; the runtime's namespace files then tell why it is not found at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::PathBuf,
};

use crate::{
    link::{
        device::{self, Links},
        files::NamespaceFiles,
    },
    netlink::{Link, LocalAddress, Namespace, NetlinkError, Socket},
};

/// The host-side device of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInterface {
    /// Its index in the node's namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Index of the bridge it is a port of.
    pub bridge: Option<u32>,
    /// Bytes before the IP header of its packets.
    pub link_header: u8,
    /// Id of the pod's network namespace, as the node's numbers it.
    pub namespace: Option<i32>,
    /// Further host-side devices that lead into the same namespace, on which nothing is enforced.
    pub others: Vec<u32>,
    /// How it was found.
    pub found: Found,
}

/// How a pod's interface was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its peer in the pod's namespace holds the pod's address.
    Address,
    /// A route to the pod's address alone leads to it.
    Route,
}

/// Why no host-side device was found for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No namespace holds it.
    Nowhere {
        /// The address.
        address: IpAddr,
    },
    /// A namespace holds it, on a device whose peer is not in the node's namespace.
    Elsewhere {
        /// The namespace's file.
        file: PathBuf,
        /// The device that holds the address.
        device: String,
    },
    /// A namespace holds it, on a device without a host side that programs could be attached to.
    Unpaired {
        /// The namespace's file.
        file: PathBuf,
        /// The device that holds the address.
        device: String,
        /// The kind of that device (`macvlan`, `ipvlan`, …), if it has one.
        kind: Option<String>,
    },
}

impl Inside {
    /// The device of the node that leads to one inside with the address.
    fn host(&self, address: IpAddr) -> Option<u32> {
        let mut held = self.addresses.iter().filter(|it| it.address == address);
        let device = held.find_map(|local| self.pairs.iter().find(|(_, at)| *at == local.index));
        device.map(|&(host, _)| host)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere { address } => write!(f, "no network namespace holds {address}"),
            Self::Elsewhere { file, device } => write!(
                f,
                "the peer of {device} in {} is not in this node's network namespace",
                file.display()
            ),
            Self::Unpaired { file, device, kind } => write!(
                f,
                "{device} in {} is {}, which has no host side",
                file.display(),
                kind.as_deref().unwrap_or("a hardware device")
            ),
        }
    }
}

/// What a look at the node found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// For every wanted address, its device or why there is none.
    pub pods: BTreeMap<IpAddr, Result<PodInterface, Missing>>,
    /// The devices that want `to_wire`.
    pub exits: Vec<device::Exit>,
    /// Indices of the bridges that have a found pod among their ports.
    pub bridges: BTreeSet<u32>,
    /// The XDP programs on devices, by index: the kernel's id. They run before any other program, and may
    /// send a packet past the pod's own.
    pub xdp: BTreeMap<u32, u32>,
    /// Every address of the node itself, link-local ones and those of the loopback device included.
    pub node_addresses: BTreeSet<IpAddr>,
    /// How many other namespaces were read for this.
    pub namespaces_read: usize,
}

impl Scan {
    /// Whether all of these addresses were looked for.
    #[must_use]
    pub fn knows(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        addresses.iter().all(|it| self.pods.contains_key(it))
    }
}

/// Finds pods' interfaces, again and again; what has not changed is not read twice.
///
/// A new address of the node's own devices is announced (see [`Monitor`](crate::netlink::Monitor)), one
/// inside another namespace is not: while a pod is missing, look again every now and then.
#[derive(Debug)]
pub struct Discovery {
    socket: Socket,
    files: NamespaceFiles,
    namespaces: BTreeMap<i32, Inside>,
    /// The namespaces that hold some addresses, by better authority than a look.
    held: BTreeMap<IpAddr, i32>,
}

/// What is known of a namespace that devices of the node lead into.
#[derive(Debug)]
struct Inside {
    /// Those devices: host-side index and index inside. A namespace id may come to name another
    /// namespace, but that has other devices, and the index of a device is not used again.
    pairs: BTreeSet<(u32, u32)>,
    addresses: Vec<LocalAddress>,
}

impl Discovery {
    /// Discovers in the calling thread's network namespace. `folders` are those in which the runtime keeps
    /// its namespace files.
    ///
    /// # Errors
    ///
    /// No netlink socket can be had.
    pub fn new(folders: Vec<PathBuf>) -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open()?,
            files: NamespaceFiles::new(folders),
            namespaces: BTreeMap::new(),
            held: BTreeMap::new(),
        })
    }

    /// Says which namespaces hold some addresses. A pod that gives itself the address of another is not taken for that
    /// one then.
    pub fn hold(&mut self, held: BTreeMap<IpAddr, i32>) {
        self.held = held;
    }

    /// Looks for the devices of pods with these addresses.
    ///
    /// Namespaces whose pod was found before are not read again while their devices stay the same;
    /// [`forget`](Self::forget) drops that trust.
    ///
    /// # Errors
    ///
    /// The node's own devices or addresses cannot be listed. A namespace that vanishes meanwhile is
    /// no error.
    pub fn scan(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<Scan, NetlinkError> {
        let links: Links = self
            .socket
            .links(Namespace::Own)?
            .into_iter()
            .map(|link| (link.index, link))
            .collect();
        let namespaces_read = self.read_namespaces(&links, wanted);
        let hosts = hosts(&self.namespaces);
        let mut pods = BTreeMap::new();
        for &address in wanted {
            let host = match self.held.get(&address) {
                Some(namespace) => self
                    .namespaces
                    .get(namespace)
                    .and_then(|inside| inside.host(address)),
                None => hosts.get(&address).copied(),
            };
            let found = match host.and_then(|host| links.get(&host)) {
                Some(link) => Ok(self.interface(link, &links, Found::Address)),
                None => match self.by_route(address, &links)? {
                    Some(interface) => Ok(interface),
                    None => Err(self.files.explain(&mut self.socket, address)),
                },
            };
            pods.insert(address, found);
        }
        let found = || pods.values().flatten();
        let interfaces = found().map(|interface| interface.ifindex).collect();
        Ok(Scan {
            exits: device::exits(&links, &interfaces),
            xdp: links
                .values()
                .filter_map(|link| Some((link.index, link.xdp?)))
                .collect(),
            bridges: found().filter_map(|interface| interface.bridge).collect(),
            node_addresses: self
                .socket
                .addresses(Namespace::Own)?
                .into_iter()
                .map(|local| local.address)
                .collect(),
            pods,
            namespaces_read,
        })
    }

    /// Reads everything anew at the next scan.
    pub fn forget(&mut self) {
        self.namespaces.clear();
        self.files.forget();
    }

    /// Reads the addresses of every namespace that a device of the node leads into, but for those that are
    /// known, unchanged and hold a wanted address. Tells how many it has read.
    fn read_namespaces(&mut self, links: &Links, wanted: &BTreeSet<IpAddr>) -> usize {
        let mut pairs: BTreeMap<i32, BTreeSet<(u32, u32)>> = BTreeMap::new();
        for (namespace, host, inside) in links.values().filter_map(pair) {
            pairs.entry(namespace).or_default().insert((host, inside));
        }
        self.namespaces
            .retain(|namespace, inside| pairs.get(namespace) == Some(&inside.pairs));
        let held: BTreeSet<IpAddr> = self
            .namespaces
            .values()
            .flat_map(|inside| inside.addresses.iter().map(|local| local.address))
            .collect();
        let complete = wanted.is_subset(&held);
        let mut read = 0;
        for (namespace, pairs) in pairs {
            if let Some(inside) = self.namespaces.get(&namespace) {
                let mut addresses = inside.addresses.iter();
                let settled = complete || addresses.any(|it| wanted.contains(&it.address));
                // Another may pretend to hold what it was said to hold.
                let mut said = self.held.iter().filter(|(_, at)| **at == namespace);
                let lacks = said.any(|(address, _)| inside.host(*address).is_none());
                if settled && !lacks {
                    continue;
                }
            }
            read += 1;
            // A namespace may go at any time; then it holds no pod.
            match self.socket.addresses(Namespace::Id(namespace)) {
                Ok(addresses) => {
                    self.namespaces
                        .insert(namespace, Inside { pairs, addresses });
                }
                Err(error) => {
                    tracing::debug!(namespace, %error, "cannot read a network namespace");
                    self.namespaces.remove(&namespace);
                }
            }
        }
        read
    }

    fn by_route(
        &mut self,
        address: IpAddr,
        links: &Links,
    ) -> Result<Option<PodInterface>, NetlinkError> {
        let Some(ifindex) = self.socket.host_route(address)? else {
            return Ok(None);
        };
        // Other kinds lead to more than one neighbour, whatever a route says: they are no pod's.
        let link = links
            .get(&ifindex)
            .filter(|link| matches!(link.kind.as_deref(), Some("veth" | "netkit" | "tun")));
        Ok(link.map(|link| self.interface(link, links, Found::Route)))
    }

    fn interface(&self, link: &Link, links: &Links, found: Found) -> PodInterface {
        let namespace = pair(link).map(|(namespace, ..)| namespace);
        let inside = namespace.and_then(|namespace| self.namespaces.get(&namespace));
        let siblings = inside.into_iter().flat_map(|inside| &inside.pairs);
        PodInterface {
            ifindex: link.index,
            name: link.name.clone(),
            bridge: device::bridge(links, link),
            link_header: device::link_header(link.link_type).unwrap_or(device::ETHERNET_HEADER),
            namespace,
            others: siblings
                .map(|(host, _)| *host)
                .filter(|host| *host != link.index)
                .collect(),
            found,
        }
    }
}

/// The device of the node whose peer holds an address, for every address so held. Where several do, the
/// newest: the address has passed from a pod that is going to a pod that has come.
fn hosts(namespaces: &BTreeMap<i32, Inside>) -> BTreeMap<IpAddr, u32> {
    let mut hosts = BTreeMap::new();
    for inside in namespaces.values() {
        for &(host, index) in &inside.pairs {
            for local in inside.addresses.iter().filter(|local| local.index == index) {
                let newest = hosts.entry(local.address).or_insert(host);
                *newest = host.max(*newest);
            }
        }
    }
    hosts
}

/// If a device is one half of a pair whose other half is in another namespace: that namespace's id, the
/// device's own index, and the index of the other half.
fn pair(link: &Link) -> Option<(i32, u32, u32)> {
    // A macvlan, VLAN or tunnel names the device it stands on in the same two attributes.
    matches!(link.kind.as_deref(), Some("veth" | "netkit"))
        .then(|| Some((link.peer_namespace?, link.index, link.peer?)))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: &str, peer: Option<u32>, peer_namespace: Option<i32>) -> Link {
        Link {
            index,
            name: format!("dev{index}"),
            kind: Some(kind.to_owned()),
            link_type: libc::ARPHRD_ETHER,
            flags: 0,
            peer,
            peer_namespace,
            master: None,
            xdp: None,
        }
    }

    #[test]
    fn only_halves_of_pairs_that_lead_elsewhere_are_pairs() {
        assert_eq!(pair(&link(7, "veth", Some(2), Some(0))), Some((0, 7, 2)));
        assert_eq!(pair(&link(7, "netkit", Some(2), Some(3))), Some((3, 7, 2)));
        // Both halves in the node's namespace; a device that stands on one of another namespace.
        assert_eq!(pair(&link(7, "veth", Some(8), None)), None);
        assert_eq!(pair(&link(7, "macvlan", Some(2), Some(0))), None);
        assert_eq!(pair(&link(7, "vlan", Some(2), Some(0))), None);
    }

    #[test]
    fn an_address_leads_to_the_host_side_of_its_own_device() {
        let inside = |pairs: &[(u32, u32)], addresses: &[(u32, &str)]| Inside {
            pairs: pairs.iter().copied().collect(),
            addresses: addresses
                .iter()
                .map(|(index, address)| LocalAddress {
                    index: *index,
                    address: address.parse().unwrap(),
                })
                .collect(),
        };
        let namespaces = BTreeMap::from([
            // Two devices; one address is on the loopback device, which leads nowhere.
            (
                0,
                inside(
                    &[(10, 2), (11, 3)],
                    &[(1, "127.0.0.1"), (2, "10.0.0.1"), (3, "10.0.0.2")],
                ),
            ),
            // An older and a newer holder of the same address.
            (1, inside(&[(20, 2)], &[(2, "10.0.0.9")])),
            (2, inside(&[(15, 2)], &[(2, "10.0.0.9")])),
        ]);
        let expected = [("10.0.0.1", 10), ("10.0.0.2", 11), ("10.0.0.9", 20)];
        assert_eq!(
            hosts(&namespaces),
            expected
                .map(|(address, host)| (address.parse().unwrap(), host))
                .into()
        );
    }
}
