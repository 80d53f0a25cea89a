//! Isolation, directions, and empty forms.

use super::*;

const ALL: [&str; 6] = ["x/b", "x/c", "y/a", "y/b", "y/c", STRANGER];

#[test]
fn without_policies_everything_passes() {
    let cluster = Cluster::new();
    assert_eq!(cluster.reaching("x/a", PING), ALL);
    assert_eq!(cluster.reached("x/a", PING), ALL);
}

#[test]
fn an_empty_ingress_list_denies_all_to_what_it_selects_alone() {
    let cluster = Cluster::with([ingress(vec![])]);
    assert!(cluster.reaching("x/a", HTTP).is_empty());
    assert!(cluster.reaching("x/a", PING).is_empty());
    assert_eq!(cluster.reached("x/a", HTTP), ALL);
    assert_eq!(cluster.reaching("x/b", HTTP).len(), 6);
}

#[test]
fn an_empty_egress_list_denies_all_from_what_it_selects_alone() {
    let cluster = Cluster::with([egress(vec![])]);
    assert!(cluster.reached("x/a", DNS).is_empty());
    assert_eq!(cluster.reaching("x/a", DNS), ALL);
}

#[test]
fn an_empty_rule_allows_everything_from_everybody() {
    let cluster = Cluster::with([ingress(vec![rule(Peers::Any, Ports::Any)])]);
    for traffic in [HTTP, DNS, PING, Traffic::Port(Protocol::Sctp, 0)] {
        assert_eq!(cluster.reaching("x/a", traffic), ALL);
    }
}

#[test]
fn a_policy_of_no_direction_isolates_nothing() {
    let cluster = Cluster::with([policy("x/none", "pod=a")]);
    assert_eq!(cluster.reaching("x/a", HTTP), ALL);
    assert_eq!(cluster.reached("x/a", HTTP), ALL);
}

#[test]
fn an_empty_selector_selects_the_whole_namespace_and_no_other() {
    let deny = Policy {
        ingress: Some(vec![]),
        ..policy("x/deny", "")
    };
    let cluster = Cluster::with([deny]);
    assert!(cluster.reaching("x/b", HTTP).is_empty());
    assert_eq!(cluster.reaching("y/b", HTTP).len(), 6);
}

#[test]
fn what_could_not_be_understood_matches_nothing() {
    let nobody = rule(Peers::Of(vec![]), Ports::Any);
    let nothing = rule(Peers::Any, Ports::Of(vec![]));
    let cluster = Cluster::with([ingress(vec![nobody, nothing])]);
    for traffic in [HTTP, PING] {
        assert!(cluster.reaching("x/a", traffic).is_empty());
    }
}

#[test]
fn a_port_without_number_is_every_port_of_its_protocol_only() {
    let cluster = Cluster::with([ingress(vec![rule(Peers::Any, ports("*/TCP"))])]);
    assert_eq!(cluster.reaching("x/a", HTTP), ALL);
    assert_eq!(cluster.reaching("x/a", tcp(0)), ALL);
    assert!(cluster.reaching("x/a", DNS).is_empty());
    assert!(cluster.reaching("x/a", PING).is_empty());
}

#[test]
fn every_port_of_every_protocol_is_not_every_protocol() {
    let cluster = Cluster::with([ingress(vec![rule(Peers::Any, ports("*/TCP */UDP */SCTP"))])]);
    assert_eq!(cluster.reaching("x/a", DNS), ALL);
    assert!(cluster.reaching("x/a", PING).is_empty());
}

#[test]
fn a_rule_for_one_protocol_isolates_from_the_others() {
    let cluster = Cluster::with([ingress(vec![rule(Peers::Any, ports("80/SCTP"))])]);
    assert!(cluster.reaching("x/a", HTTP).is_empty());
    assert_eq!(
        cluster.reaching("x/a", Traffic::Port(Protocol::Sctp, 80)),
        ALL
    );
}

#[test]
fn both_ends_of_a_range_are_in_it() {
    let cluster = Cluster::with([ingress(vec![rule(
        Peers::Any,
        ports("80-90/TCP 443-443/TCP"),
    )])]);
    let open = |port| !cluster.reaching("x/a", tcp(port)).is_empty();
    assert_eq!([79, 80, 90, 91].map(open), [false, true, true, false]);
    assert_eq!([442, 443, 444].map(open), [false, true, false]);
}

#[test]
fn ranges_of_different_peers_do_not_mix() {
    let cluster = Cluster::with([ingress(vec![
        rule(Peers::Of(vec![own_pods("pod=b")]), ports("80-90/TCP")),
        rule(Peers::Of(vec![own_pods("pod=c")]), ports("85-95/TCP")),
    ])]);
    assert_eq!(cluster.reaching("x/a", tcp(80)), ["x/b"]);
    assert_eq!(cluster.reaching("x/a", tcp(90)), ["x/b", "x/c"]);
    assert_eq!(cluster.reaching("x/a", tcp(95)), ["x/c"]);
}

#[test]
fn policies_and_rules_add_up() {
    let other = Policy {
        ingress: Some(vec![rule(Peers::Any, ports("81/TCP"))]),
        ..policy("x/other", "")
    };
    let cluster = Cluster::with([
        ingress(vec![
            rule(Peers::Of(vec![own_pods("pod=b")]), ports("80/TCP")),
            rule(Peers::Of(vec![own_pods("pod=c")]), Ports::Any),
        ]),
        other,
    ]);
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/b", "x/c"]);
    assert_eq!(cluster.reaching("x/a", tcp(81)), ALL);
    assert_eq!(cluster.reaching("x/a", PING), ["x/c"]);
}

#[test]
fn both_ends_must_allow() {
    let cluster = Cluster::with([
        egress(from(vec![pods_of("ns=y", "")])),
        Policy {
            ingress: Some(from(vec![pods_of("ns=x", "pod=a")])),
            ..policy("y/ingress", "pod=a")
        },
        Policy {
            ingress: Some(vec![]),
            ..policy("y/deny", "pod=b")
        },
    ]);
    assert_eq!(cluster.reached("x/a", HTTP), ["y/a", "y/c"]);
    assert_eq!(cluster.reaching("y/a", HTTP), ["x/a"]);
}

#[test]
fn a_pod_reaches_itself_whatever_the_policies() {
    let cluster = Cluster::with([ingress(vec![]), egress(vec![])]);
    assert!(cluster.passes("x/a", "x/a", HTTP));
    assert!(cluster.passes("x/a", "10.0.0.1", PING));
}

#[test]
fn policies_of_one_name_in_two_namespaces_are_two() {
    let deny = |name| Policy {
        ingress: Some(vec![]),
        ..policy(name, "pod=a")
    };
    let mut cluster = Cluster::with([deny("x/deny"), deny("y/deny")]);
    cluster.delete(&Key::Policy(name("x/deny")));
    assert_eq!(cluster.reaching("x/a", HTTP), ALL);
    assert!(cluster.reaching("y/a", HTTP).is_empty());
}
