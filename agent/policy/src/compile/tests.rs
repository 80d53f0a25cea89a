//! Compilation of small clusters.

use std::net::IpAddr;

use super::{Compiler, Limits};
use crate::{
    model::{
        Block, Name, Namespace, Object, Operator, Peer, Peers, Pod, Policy, Port, PortNumber,
        Ports, Protocol, Requirement, Rule, Selector,
    },
    table::{Cell, Isolation, PortSet},
};

fn labelled(key: &str, value: &str) -> Selector {
    Selector::new(vec![Requirement {
        key: key.into(),
        operator: Operator::In(vec![value.into()]),
    }])
}

fn pod(namespace: &str, name: &str, address: &str) -> Pod {
    Pod {
        name: Name::new(namespace, name),
        uid: format!("{namespace}-{name}").into(),
        labels: [("app".into(), name.into())].into(),
        node: Some("here".into()),
        addresses: vec![address.parse().unwrap()],
        host_network: false,
        finished: false,
        terminating: false,
        ports: vec![],
        created: 0,
    }
}

fn address(address: &str) -> IpAddr {
    address.parse().unwrap()
}

#[test]
fn a_policy_isolates_the_pod_it_selects_and_allows_its_peers() {
    let mut compiler = Compiler::new("here", Limits::NONE);
    compiler.apply(Object::Namespace(Namespace {
        name: "x".into(),
        labels: [].into(),
    }));
    for (name, ip) in [
        ("web", "10.0.0.1"),
        ("client", "10.0.0.2"),
        ("other", "10.0.0.3"),
    ] {
        compiler.apply(Object::Pod(pod("x", name, ip)));
    }
    compiler.apply(Object::Policy(Policy {
        name: Name::new("x", "web"),
        selector: labelled("app", "web"),
        ingress: Some(vec![Rule {
            peers: Peers::Of(vec![
                Peer::Pods {
                    namespaces: None,
                    pods: labelled("app", "client"),
                },
                Peer::Block(Block {
                    cidr: "192.0.2.0/24".parse().unwrap(),
                    except: vec!["192.0.2.128/25".parse().unwrap()],
                }),
            ]),
            ports: Ports::Of(vec![Port {
                protocol: Protocol::Tcp,
                number: PortNumber::Range(80, 80),
            }]),
        }]),
        egress: None,
    }));
    let change = compiler.take_change();
    assert_eq!(change.pods.len(), 3);
    assert!(compiler.take_change().is_empty());

    let compiled = compiler.compiled();
    let web = &compiled.pods[&Name::new("x", "web")];
    assert_eq!(web.egress, Isolation::None);
    let http = Cell {
        tcp: PortSet::of([(80, 80)]),
        ..Cell::deny()
    };
    for (peer, expected) in [
        ("10.0.0.2", http.clone()),
        ("10.0.0.3", Cell::deny()),
        ("192.0.2.7", http),
        ("192.0.2.130", Cell::deny()),
        ("198.51.100.1", Cell::deny()),
    ] {
        assert_eq!(
            compiled.cell(web.ingress, address(peer)),
            expected,
            "{peer}"
        );
    }
}
