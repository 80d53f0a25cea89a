//! Ports by name.

use super::*;

#[test]
fn an_ingress_name_is_looked_up_on_the_selected_pod() {
    let by_name = Policy {
        ingress: Some(vec![rule(Peers::Any, ports("http/TCP"))]),
        ..policy("x/ingress", "")
    };
    let mut cluster = Cluster::with([by_name]);
    cluster.change("x/a", serves("http=80/TCP"));
    cluster.change("x/b", serves("http=8080/TCP"));
    // The client's own port of that name is nothing to the rule.
    cluster.change("y/a", serves("http=81/TCP"));
    let open = |to, port| cluster.passes("y/a", to, tcp(port));
    assert_eq!(
        [80, 8080, 81].map(|port| open("x/a", port)),
        [true, false, false]
    );
    assert_eq!(
        [80, 8080, 81].map(|port| open("x/b", port)),
        [false, true, false]
    );
    assert_eq!([80, 8080, 81].map(|port| open("x/c", port)), [false; 3]);
}

#[test]
fn a_name_of_several_containers_is_all_their_ports() {
    let mut cluster = Cluster::with([ingress(vec![rule(Peers::Any, ports("http/TCP"))])]);
    cluster.change("x/a", serves("http=80/TCP http=81/TCP"));
    let open = [80, 81, 82].map(|port| cluster.passes("x/b", "x/a", tcp(port)));
    assert_eq!(open, [true, true, false]);
}

#[test]
fn a_name_belongs_to_its_protocol() {
    let mut cluster = Cluster::with([ingress(vec![rule(Peers::Any, ports("dns/UDP"))])]);
    cluster.change("x/a", serves("dns=53/TCP dns=54/UDP"));
    let open = |protocol, port| cluster.passes("x/b", "x/a", Traffic::Port(protocol, port));
    assert!(open(Protocol::Udp, 54));
    assert!(!open(Protocol::Udp, 53) && !open(Protocol::Tcp, 53) && !open(Protocol::Tcp, 54));
}

#[test]
fn an_egress_name_is_looked_up_on_each_destination() {
    let to = Peers::Of(vec![own_pods(""), block("10.0.1.0/24", &[])]);
    let mut cluster = Cluster::with([egress(vec![rule(to, ports("http/TCP 443/TCP"))])]);
    cluster.change("x/b", serves("http=80/TCP"));
    cluster.change("x/c", serves("http=8080/TCP"));
    cluster.change("y/a", serves("http=80/TCP"));
    assert_eq!(cluster.reached("x/a", HTTP), ["x/b", "y/a"]);
    assert_eq!(cluster.reached("x/a", tcp(8080)), ["x/c"]);
    assert_eq!(cluster.reached("x/a", tcp(443)).len(), 5);
}

#[test]
fn an_egress_name_without_peers_is_every_pod_by_its_own_number_and_no_stranger() {
    let mut cluster = Cluster::with([egress(vec![rule(Peers::Any, ports("http/TCP"))])]);
    cluster.change("x/b", serves("http=80/TCP"));
    cluster.change("y/c", serves("http=81/TCP"));
    assert_eq!(cluster.reached("x/a", HTTP), ["x/b"]);
    assert_eq!(cluster.reached("x/a", tcp(81)), ["y/c"]);
}

#[test]
fn a_name_in_a_block_matches_no_address_that_is_no_pod() {
    let to = Peers::Of(vec![block("0.0.0.0/0", &[])]);
    let mut cluster = Cluster::with([egress(vec![rule(to, ports("http/TCP 443/TCP"))])]);
    cluster.change("y/b", serves("http=80/TCP"));
    assert_eq!(cluster.reached("x/a", HTTP), ["y/b"]);
    assert!(cluster.passes("x/a", STRANGER, tcp(443)));
}

#[test]
fn a_name_goes_with_the_last_rule_that_uses_it() {
    let mut cluster = Cluster::with([egress(vec![rule(Peers::Any, ports("http/TCP"))])]);
    cluster.change("x/b", serves("http=80/TCP"));
    assert!(
        cluster
            .0
            .compiled()
            .addresses
            .contains_key(&address("10.0.0.2"))
    );
    cluster.apply(Object::Policy(egress(vec![])));
    assert!(cluster.0.compiled().addresses.is_empty());
    cluster.apply(Object::Policy(egress(vec![rule(
        Peers::Any,
        ports("http/TCP"),
    )])));
    assert_eq!(cluster.reached("x/a", HTTP), ["x/b"]);
}

#[test]
fn a_recreated_pod_is_asked_for_its_ports_again() {
    let mut cluster = Cluster::with([ingress(vec![rule(Peers::Any, ports("http/TCP"))])]);
    cluster.change("x/a", serves("http=80/TCP"));
    cluster.change("x/a", |pod| {
        pod.uid = "another".into();
        pod.ports = named_ports("http=81/TCP");
    });
    assert!(!cluster.passes("x/b", "x/a", HTTP) && cluster.passes("x/b", "x/a", tcp(81)));
}
