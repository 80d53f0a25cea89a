//! Addresses for pods whose own are not known, so that what selectors say of them can be told all the same.
//!
//! A manifest has no address, and neither has a pod that waits for one. Their stand-ins come from blocks that are no
//! pod's: 240.0.0.0/4 (RFC 1112, reserved) and 100::/64 (RFC 6666, discard only). Whether a block of a policy holds
//! the address to come is not known, except where it holds every address: so [`keep_out`] takes the stand-ins out of
//! all others, and a rule that they miss for that is one of which nothing can be told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::{Block, Peer, Peers, Policy};

const V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4);
const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64);

/// The stand-ins of one pod, one of each family.
#[must_use]
pub fn addresses(number: u32) -> [IpAddr; 2] {
    // 28 bits: more than a cluster has pods.
    let v4 = V4.network().to_bits() | (number & (u32::MAX >> 4));
    let v6 = V6.network().to_bits() | u128::from(number);
    [
        Ipv4Addr::from_bits(v4).into(),
        Ipv6Addr::from_bits(v6).into(),
    ]
}

/// Whether an address stands for one that is not known.
#[must_use]
pub fn is_standin(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => V4.contains(address),
        IpAddr::V6(address) => V6.contains(address),
    }
}

/// Whether that exception of a block is the one that [`keep_out`] makes.
#[must_use]
pub fn is_kept_out(except: &IpNet) -> bool {
    *except == IpNet::from(V4) || *except == IpNet::from(V6)
}

/// Takes the stand-ins out of the policy's blocks, but not out of those that hold every address.
pub fn keep_out(policy: &mut Policy) {
    let rules = policy
        .ingress
        .iter_mut()
        .chain(&mut policy.egress)
        .flatten();
    for rule in rules {
        let Peers::Of(peers) = &mut rule.peers else {
            continue;
        };
        for peer in peers {
            if let Peer::Block(block) = peer {
                keep_out_of(block);
            }
        }
    }
}

fn keep_out_of(block: &mut Block) {
    let everything = block.cidr.prefix_len() == 0 && block.except.is_empty();
    let standins = match block.cidr {
        IpNet::V4(_) => IpNet::from(V4),
        IpNet::V6(_) => IpNet::from(V6),
    };
    if !everything && block.cidr.contains(&standins) && !block.except.contains(&standins) {
        block.except.push(standins);
        block.except.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Ports,
        testing::{block, policy, rule},
    };

    fn holds(cidr: &str, except: &[&str]) -> bool {
        let mut policy = policy("x/a", "");
        let peers = Peers::Of(vec![block(cidr, except)]);
        policy.egress = Some(vec![rule(peers, Ports::Any)]);
        keep_out(&mut policy);
        let Some([rule]) = policy.egress.as_deref() else {
            panic!("one rule")
        };
        let Peers::Of(peers) = &rule.peers else {
            panic!("a list")
        };
        let [Peer::Block(block)] = &peers[..] else {
            panic!("a block")
        };
        addresses(7).iter().any(|address| block.contains(address))
    }

    #[test]
    fn only_blocks_of_every_address_hold_a_standin() {
        assert!(holds("0.0.0.0/0", &[]) && holds("::/0", &[]));
        for cidr in ["0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "::/1", "fd00::/8"] {
            assert!(!holds(cidr, &[]), "{cidr}");
        }
        assert!(!holds("0.0.0.0/0", &["10.0.0.0/8"]));
        assert!(!holds("::/0", &["fd00::/8"]));
    }

    #[test]
    fn each_pod_has_its_own() {
        let [one, other] = [addresses(1), addresses(0xfff_ffff)];
        assert!(one.iter().chain(&other).all(is_standin));
        assert!(one.iter().all(|address| !other.contains(address)));
        assert!(!is_standin(&IpAddr::from([10, 0, 0, 1])));
    }
}
