//! What status can tell.

use super::*;
use crate::{
    issue::Problem,
    model::{Key, Object, Peers, Policy, Protocol, Service},
    testing::{address, name, named_ports, namespace, pod, policy, ports, rule},
};

#[test]
fn an_address_is_a_services_while_some_service_has_it() {
    let mut compiler = Compiler::new(NODE, Limits::NONE);
    let service = |text: &str, addresses: &[&str]| {
        Object::Service(Service {
            name: name(text),
            addresses: addresses.iter().map(|text| address(text)).collect(),
            selector: None,
            ports: Vec::new(),
        })
    };
    compiler.apply(service("x/a", &["10.96.0.1", "192.0.2.1"]));
    compiler.apply(service("x/b", &["192.0.2.1"]));
    let both = ["10.96.0.1", "192.0.2.1"].map(address);
    assert_eq!(compiler.take_change().services, both);
    compiler.apply(service("x/a", &["10.96.0.1"]));
    assert!(compiler.take_change().is_empty());
    compiler.delete(&Key::Service(name("x/b")));
    assert_eq!(compiler.take_change().services, [both[1]]);
    assert_eq!(compiler.compiled().services, [both[0]].into());
}

#[test]
fn a_namespace_that_is_not_known_is_named() {
    let mut compiler = Compiler::new(NODE, Limits::NONE);
    compiler.apply(Object::Pod(pod("x/a", "", &["10.0.0.1"])));
    compiler.take_change();
    let issues = compiler.issues();
    assert_eq!(issues[0].object, Key::Namespace("x".into()));
    assert_eq!(issues[0].problem, Problem::UnknownNamespace);
    compiler.apply(Object::Namespace(namespace("x", "")));
    compiler.take_change();
    assert!(compiler.issues().is_empty());
}

#[test]
fn a_port_name_that_no_selected_pod_has_is_named() {
    let mut compiler = Compiler::new(NODE, Limits::NONE);
    compiler.apply(Object::Namespace(namespace("x", "")));
    compiler.apply(Object::Pod(pod("x/a", "app=a", &["10.0.0.1"])));
    let mut named = pod("x/b", "app=a", &["10.0.0.2"]);
    compiler.apply(Object::Pod(named.clone()));
    compiler.apply(Object::Policy(Policy {
        ingress: Some(vec![
            rule(Peers::Any, ports("80/TCP")),
            rule(Peers::Any, ports("http/TCP")),
        ]),
        ..policy("x/a", "app=a")
    }));
    compiler.take_change();
    let [issue] = &compiler.issues()[..] else {
        panic!("{:?}", compiler.issues())
    };
    assert_eq!(issue.field, "spec.ingress[1].ports");
    let (name, protocol) = ("http".into(), Protocol::Tcp);
    assert_eq!(issue.problem, Problem::UnknownPortName { name, protocol });
    assert_eq!(
        issue.to_string(),
        "networkpolicy x/a, spec.ingress[1].ports: no selected pod of this node has a TCP port named \
         http: it allows nothing here"
    );
    named.ports = named_ports("http=80/TCP");
    compiler.apply(Object::Pod(named));
    compiler.take_change();
    assert!(compiler.issues().is_empty());
}
