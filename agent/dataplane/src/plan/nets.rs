//! Longest prefix match over an ordered map of prefixes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The longest prefix around an address, and its value.
pub(crate) fn around<V>(nets: &BTreeMap<IpNet, V>, address: IpAddr) -> Option<(&IpNet, &V)> {
    longest(nets, IpNet::from(address))
}

/// The longest prefix around a prefix and shorter than it, and its value.
pub(crate) fn above<V>(nets: &BTreeMap<IpNet, V>, net: IpNet) -> Option<(&IpNet, &V)> {
    longest(nets, net.supernet()?)
}

/// Prefixes are ordered by address, then length. So if the last one up to `net` does not lie around it, all
/// that do lie around what the two have in common.
fn longest<V>(nets: &BTreeMap<IpNet, V>, net: IpNet) -> Option<(&IpNet, &V)> {
    let mut bound = net.trunc();
    loop {
        let (found, value) = nets.range(..=bound).next_back()?;
        if found.contains(&bound) {
            return Some((found, value));
        }
        bound = common(*found, bound)?;
    }
}

/// The longest prefix that lies around both; `None` across families.
fn common(a: IpNet, b: IpNet) -> Option<IpNet> {
    let shorter = a.prefix_len().min(b.prefix_len());
    match (a, b) {
        (IpNet::V4(a), IpNet::V4(b)) => {
            let same = (u32::from(a.network()) ^ u32::from(b.network())).leading_zeros() as u8;
            let net = Ipv4Net::new(b.network(), shorter.min(same)).ok()?;
            Some(IpNet::V4(net.trunc()))
        }
        (IpNet::V6(a), IpNet::V6(b)) => {
            let same = (u128::from(a.network()) ^ u128::from(b.network())).leading_zeros() as u8;
            let net = Ipv6Net::new(b.network(), shorter.min(same)).ok()?;
            Some(IpNet::V6(net.trunc()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use ipnet::IpNet;

    use super::{above, around};

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn the_longest_prefix_is_found_among_random_ones() {
        let mut seed = 3_u64;
        let mut next = |bound: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32 % bound
        };
        for _ in 0..200 {
            let mut nets = BTreeMap::new();
            for _ in 0..next(20) {
                let length = next(9);
                let host = (next(256) << 24) & (u32::MAX.checked_shl(32 - length).unwrap_or(0));
                nets.insert(
                    net(&format!("{}/{length}", std::net::Ipv4Addr::from(host))),
                    length,
                );
                nets.insert(
                    net(&format!("{:x}::/{}", next(4) << 14, next(4))).trunc(),
                    99,
                );
            }
            for _ in 0..20 {
                let address = IpAddr::from((next(256) << 24).to_be_bytes());
                let expected = nets
                    .iter()
                    .filter(|(net, _)| net.contains(&address))
                    .max_by_key(|(net, _)| net.prefix_len());
                assert_eq!(around(&nets, address), expected);
            }
            for inner in nets.keys() {
                let expected = nets
                    .iter()
                    .filter(|(net, _)| net.contains(inner) && *net != inner)
                    .max_by_key(|(net, _)| net.prefix_len());
                assert_eq!(above(&nets, *inner), expected);
            }
        }
    }

    #[test]
    fn families_do_not_meet() {
        let nets = BTreeMap::from([(net("0.0.0.0/0"), 4), (net("2001:db8::/32"), 6)]);
        let six: IpAddr = "2001:db9::1".parse().expect("an address");
        assert_eq!(around(&nets, six), None);
        assert_eq!(above(&nets, net("0.0.0.0/0")), None);
    }
}
