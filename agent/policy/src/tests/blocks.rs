//! Blocks and their exceptions.

use super::*;

#[test]
fn a_block_matches_strangers_and_pods_alike() {
    let cluster = Cluster::with([ingress(from(vec![
        block("192.0.2.0/24", &[]),
        block("10.0.1.2/32", &[]),
    ]))]);
    assert_eq!(cluster.reaching("x/a", HTTP), ["y/b", STRANGER]);
    assert!(!cluster.passes("198.51.100.1", "x/a", HTTP));
}

#[test]
fn an_exception_is_out_of_its_block() {
    let cluster = Cluster::with([egress(from(vec![block("10.0.0.0/8", &["10.0.1.0/24"])]))]);
    assert_eq!(cluster.reached("x/a", HTTP), ["x/b", "x/c"]);
}

#[test]
fn an_exception_narrows_its_own_block_only() {
    let rules = vec![
        rule(
            Peers::Of(vec![block("10.0.0.0/8", &["10.0.1.0/24"])]),
            Ports::Any,
        ),
        rule(Peers::Of(vec![pods_of("ns=y", "pod=a")]), ports("80/TCP")),
        rule(Peers::Of(vec![block("10.0.1.3/32", &[])]), ports("81/TCP")),
    ];
    let cluster = Cluster::with([egress(rules)]);
    assert_eq!(cluster.reached("x/a", HTTP), ["x/b", "x/c", "y/a"]);
    assert_eq!(cluster.reached("x/a", tcp(81)), ["x/b", "x/c", "y/c"]);
    assert_eq!(cluster.reached("x/a", PING), ["x/b", "x/c"]);
}

#[test]
fn a_long_prefix_carries_what_the_shorter_ones_allow() {
    let port = |cidr, port| rule(Peers::Of(vec![block(cidr, &[])]), ports(port));
    let cluster = Cluster::with([egress(vec![
        port("192.0.0.0/8", "80/TCP"),
        port("192.0.2.0/24", "81/TCP"),
        port("192.0.2.7/32", "82/TCP"),
    ])]);
    let open = |to| [80, 81, 82].map(|port| cluster.passes("x/a", to, tcp(port)));
    assert_eq!(open("192.0.2.7"), [true, true, true]);
    assert_eq!(open("192.0.2.8"), [true, true, false]);
    assert_eq!(open("192.0.3.1"), [true, false, false]);
    assert_eq!(open("193.0.2.7"), [false, false, false]);
}

#[test]
fn an_exception_of_one_list_may_be_the_block_of_another() {
    let cluster = Cluster::with([
        egress(from(vec![block("0.0.0.0/0", &["192.0.2.0/24"])])),
        Policy {
            egress: Some(vec![rule(
                Peers::Of(vec![block("192.0.2.0/24", &["192.0.2.128/25"])]),
                ports("80/TCP"),
            )]),
            ..policy("x/other", "pod=a")
        },
    ]);
    assert!(cluster.passes("x/a", "192.0.2.7", HTTP));
    assert!(!cluster.passes("x/a", "192.0.2.7", tcp(81)));
    assert!(!cluster.passes("x/a", "192.0.2.200", HTTP));
    assert!(cluster.passes("x/a", "198.51.100.1", tcp(81)));
}

#[test]
fn an_exception_as_large_as_its_block_leaves_nothing() {
    let cluster = Cluster::with([egress(from(vec![
        block("192.0.2.0/24", &["192.0.2.0/24"]),
        block("198.51.100.0/24", &["198.51.0.0/16"]),
    ]))]);
    assert!(!cluster.passes("x/a", "192.0.2.7", HTTP));
    assert!(!cluster.passes("x/a", "198.51.100.1", HTTP));
}

#[test]
fn families_do_not_mix() {
    let v4 = Cluster::with([ingress(from(vec![block("0.0.0.0/0", &[])]))]);
    assert!(v4.passes("192.0.2.7", "x/a", HTTP));
    assert!(!v4.passes("2001:db8::7", "x/a", HTTP));
    assert!(!v4.passes("::ffff:192.0.2.7", "x/a", HTTP));
    let v6 = Cluster::with([ingress(from(vec![block("::/0", &["::ffff:0:0/96"])]))]);
    assert!(v6.passes("2001:db8::7", "x/a", HTTP));
    assert!(!v6.passes("::ffff:192.0.2.7", "x/a", HTTP));
    assert!(!v6.passes("192.0.2.7", "x/a", HTTP));
}

#[test]
fn selectors_hold_for_both_addresses_of_a_pod() {
    let cluster = Cluster::with([ingress(from(vec![own_pods("pod=b")]))]);
    assert!(cluster.passes("fd00:0::2", "x/a", HTTP));
    assert!(!cluster.passes("fd00:0::3", "x/a", HTTP));
}

#[test]
fn host_bits_are_masked() {
    let cluster = Cluster::with([ingress(from(vec![block(
        "192.0.2.7/24",
        &["192.0.2.129/25"],
    )]))]);
    assert!(cluster.passes("192.0.2.1", "x/a", HTTP));
    assert!(!cluster.passes("192.0.2.130", "x/a", HTTP));
    assert!(
        cluster
            .0
            .compiled()
            .blocks
            .contains_key(&"192.0.2.0/24".parse().unwrap())
    );
}

#[test]
fn the_edges_of_the_address_space_are_addresses() {
    let cluster = Cluster::with([ingress(from(vec![
        block("255.255.255.255/32", &[]),
        block("0.0.0.0/32", &[]),
        block("::/128", &[]),
    ]))]);
    for edge in ["255.255.255.255", "0.0.0.0", "::"] {
        assert!(cluster.passes(edge, "x/a", HTTP), "{edge}");
    }
    assert!(!cluster.passes("::1", "x/a", HTTP));
}
