//! Between the compiler's values and the kernel's: addresses, prefixes, port sets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use palisade_common::{
    Address,
    key::{CidrV4, CidrV6},
    limits::LEAF_PORTS,
    value::PortLeaf,
};
use palisade_policy::table::PortSet;

pub(crate) mod ledger;
pub(crate) mod numbers;

/// An address as keys and values of maps hold it.
#[must_use]
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => [v4(ip), 0, 0, 0],
        IpAddr::V6(ip) => v6(ip),
    }
}

/// Key of `PEERS_V4`.
pub(crate) fn v4(ip: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(ip.octets())
}

/// Key of `PEERS_V6`.
pub(crate) fn v6(ip: Ipv6Addr) -> Address {
    zerocopy::transmute!(ip.octets())
}

/// The address of a key of `PEERS_V4`.
pub(crate) fn from_v4(key: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(key.to_ne_bytes()))
}

/// The address of a key of `PEERS_V6`.
pub(crate) fn from_v6(key: Address) -> IpAddr {
    let octets: [u8; 16] = zerocopy::transmute!(key);
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// Address part of a key of `CIDRS_V4`.
pub(crate) fn cidr_v4(net: Ipv4Net) -> CidrV4 {
    v4(net.network())
}

/// Address part of a key of `CIDRS_V6`.
pub(crate) fn cidr_v6(net: Ipv6Net) -> CidrV6 {
    v6(net.network())
}

/// The prefix of a key of `CIDRS_V4`; `None` where the length is none of IPv4.
pub(crate) fn from_cidr_v4(key: CidrV4, length: u32) -> Option<IpNet> {
    let net = Ipv4Net::new(
        Ipv4Addr::from(key.to_ne_bytes()),
        u8::try_from(length).ok()?,
    )
    .ok()?;
    Some(IpNet::V4(net))
}

/// The prefix of a key of `CIDRS_V6`; `None` where the length is none of IPv6.
pub(crate) fn from_cidr_v6(key: CidrV6, length: u32) -> Option<IpNet> {
    let octets: [u8; 16] = zerocopy::transmute!(key);
    let net = Ipv6Net::new(octets.into(), u8::try_from(length).ok()?).ok()?;
    Some(IpNet::V6(net))
}

/// What names a pod in [`Slot::owner`](palisade_common::value::Slot::owner): FNV-1a of its UID, never 0.
#[must_use]
pub fn owner(uid: &str) -> u32 {
    let digest = uid.bytes().fold(0x811c_9dc5_u32, |digest, byte| {
        (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    digest.max(1)
}

/// The leaf of no port.
pub(crate) const EMPTY: PortLeaf = PortLeaf { words: [0; 4] };
/// The leaf of all ports.
pub(crate) const FULL: PortLeaf = PortLeaf {
    words: [u64::MAX; 4],
};

/// The leaves of a set that hold any port, with their places.
pub(crate) fn leaves(ports: &PortSet) -> Vec<(u8, PortLeaf)> {
    let mut leaves: Vec<(u8, PortLeaf)> = Vec::new();
    for &(first, last) in ports.ranges() {
        for place in first / LEAF_PORTS as u16..=last / LEAF_PORTS as u16 {
            let base = place * LEAF_PORTS as u16;
            let from = first.max(base) - base;
            let to = last.min(base | (LEAF_PORTS as u16 - 1)) - base;
            if leaves.last().is_none_or(|&(at, _)| u16::from(at) != place) {
                leaves.push((place as u8, EMPTY));
            }
            if let Some((_, leaf)) = leaves.last_mut() {
                fill(leaf, from, to);
            }
        }
    }
    leaves
}

/// The set whose leaves these are.
pub(crate) fn ports(leaves: impl IntoIterator<Item = (u8, PortLeaf)>) -> PortSet {
    let mut runs = Vec::new();
    for (place, leaf) in leaves {
        for (word, low) in leaf.words.into_iter().zip((0u16..).step_by(64)) {
            let base = u16::from(place) * LEAF_PORTS as u16 + low;
            let mut rest = word;
            while rest != 0 {
                let first = rest.trailing_zeros();
                let length = (rest >> first).trailing_ones();
                runs.push((base + first as u16, base + (first + length - 1) as u16));
                rest &= u64::MAX.checked_shl(first + length).unwrap_or(0);
            }
        }
    }
    PortSet::of(runs)
}

fn fill(leaf: &mut PortLeaf, from: u16, to: u16) {
    for (word, low) in leaf.words.iter_mut().zip((0u16..).step_by(64)) {
        let (from, to) = (from.max(low), to.min(low + 63));
        if from <= to {
            *word |= (u64::MAX >> (63 - (to - from))) << (from - low);
        }
    }
}

#[cfg(test)]
mod tests;
