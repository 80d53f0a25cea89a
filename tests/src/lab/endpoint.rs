//! Whatever has a namespace and addresses: a pod, a node, a host outside.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

use super::{namespace::Namespace, netlink::Mac};

/// Something that can send and be sent to.
#[derive(Debug)]
pub struct Endpoint {
    /// Its name in matrices: `ns/pod`, `node:NAME`, or what a host outside is called.
    pub name: String,
    /// Its addresses, at most one of each family but for nodes.
    pub addresses: Vec<IpAddr>,
    /// Its namespace.
    pub namespace: Namespace,
}

impl Endpoint {
    /// Its first address of a family, 4 or 6.
    #[must_use]
    pub fn address(&self, family: u8) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|address| address.is_ipv4() == (family == 4))
    }
}

/// A link layer address that tells a role and, of IPv4, whose it is.
pub(super) fn mac(role: u8, address: IpAddr) -> Mac {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let mut hasher = DefaultHasher::new();
            address.hash(&mut hasher);
            let [a, b, c, d, ..] = hasher.finish().to_ne_bytes();
            [a, b, c, d]
        }
    };
    [0x0a, role, a, b, c, d]
}
