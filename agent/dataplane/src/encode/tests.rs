use palisade_policy::table::PortSet;

use super::{FULL, address, from_cidr_v4, from_cidr_v6, from_v4, from_v6, leaves, owner, ports};

fn random_set(seed: &mut u64) -> PortSet {
    let mut next = || {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 48) as u16
    };
    let count = next() % 6;
    PortSet::of((0..count).map(|_| {
        let first = next();
        (first, first.saturating_add(next() >> (next() % 16)))
    }))
}

#[test]
fn port_sets_survive_encoding() {
    let mut seed = 7;
    for _ in 0..2_000 {
        let set = random_set(&mut seed);
        let leaves = leaves(&set);
        assert!(leaves.is_sorted_by_key(|(place, _)| *place));
        assert_eq!(ports(leaves), set);
    }
    assert_eq!(leaves(&PortSet::all()).len(), 256);
    assert!(
        leaves(&PortSet::all())
            .iter()
            .all(|(_, leaf)| *leaf == FULL)
    );
    assert!(leaves(&PortSet::none()).is_empty());
}

#[test]
fn a_bit_of_a_leaf_is_a_port() {
    let leaves = leaves(&PortSet::of([(255, 256), (300, 300), (8080, 8080)]));
    assert_eq!(leaves.len(), 3);
    assert_eq!((leaves[0].0, leaves[0].1.words), (0, [0, 0, 0, 1 << 63]));
    assert_eq!(
        (leaves[1].0, leaves[1].1.words),
        (1, [1 | 1 << 44, 0, 0, 0])
    );
    assert_eq!((leaves[2].0, leaves[2].1.words), (31, [0, 0, 1 << 16, 0]));
}

#[test]
fn addresses_lie_in_network_order() {
    let four = "10.1.2.3".parse().expect("an address");
    let six = "2001:db8::5".parse().expect("an address");
    assert_eq!(address(four)[0].to_ne_bytes(), [10, 1, 2, 3]);
    assert_eq!(address(four)[1..], [0; 3]);
    assert_eq!(from_v4(address(four)[0]), four);
    assert_eq!(from_v6(address(six)), six);
    assert_eq!(address(six)[0].to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8]);
}

#[test]
fn a_prefix_longer_than_an_address_is_none() {
    assert_eq!(
        from_cidr_v4(super::cidr_v4("10.0.0.0/8".parse().expect("a net")), 33),
        None
    );
    assert_eq!(
        from_cidr_v6(super::cidr_v6("2001:db8::/32".parse().expect("a net")), 300),
        None
    );
}

#[test]
fn no_owner_is_nobody() {
    assert_ne!(owner(""), 0);
    assert_ne!(owner("a"), owner("b"));
}
