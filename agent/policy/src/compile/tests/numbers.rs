//! Which numbers stay, and what a change names.

use super::*;
use crate::{
    model::{Key, Namespace, Object, Peers, Policy, Ports},
    table::{Change, Direction, Isolation, TableId},
    testing::{
        address, block, name, named_ports, namespace, own_pods, pod, pods_of, policy, ports, rule,
    },
};

/// Ten clients and a server, which lets in some of them by this policy.
fn cluster() -> (Compiler, Policy) {
    let mut compiler = Compiler::new(NODE, Limits::NONE);
    compiler.apply(Object::Namespace(namespace("x", "")));
    compiler.apply(Object::Pod(pod("x/web", "app=web", &["10.0.0.100"])));
    for at in 0..10 {
        let parity = if at % 5 == 0 { "few" } else { "many" };
        let client = format!("x/client{at}");
        let address = format!("10.0.0.{at}");
        let labels = format!("app=client part={parity}");
        compiler.apply(Object::Pod(pod(&client, &labels, &[&address])));
    }
    let clients = Policy {
        ingress: Some(vec![rule(
            Peers::Of(vec![own_pods("app=client")]),
            ports("80/TCP"),
        )]),
        ..policy("x/web", "app=web")
    };
    compiler.apply(Object::Policy(clients.clone()));
    compiler.take_change();
    (compiler, clients)
}

fn apply(compiler: &mut Compiler, policy: &Policy) -> Change {
    compiler.apply(Object::Policy(policy.clone()));
    compiler.take_change()
}

fn table(compiler: &Compiler, pod: &str, direction: Direction) -> TableId {
    let pod = &compiler.compiled().pods[&name(pod)];
    let isolation = match direction {
        Direction::Ingress => pod.ingress,
        Direction::Egress => pod.egress,
    };
    match isolation {
        Isolation::Table(table) => table,
        Isolation::None => panic!("not isolated"),
    }
}

#[test]
fn an_object_that_says_nothing_new_changes_nothing() {
    let (mut compiler, policy) = cluster();
    compiler.apply(Object::Pod(pod("x/web", "app=web", &["10.0.0.100"])));
    compiler.apply(Object::Namespace(namespace("x", "")));
    assert!(apply(&mut compiler, &policy).is_empty());
}

#[test]
fn what_is_undone_before_it_is_taken_is_no_change() {
    let (mut compiler, policy) = cluster();
    compiler.delete(&Key::Policy(policy.name.clone()));
    compiler.delete(&Key::Pod(name("x/client0")));
    compiler.apply(Object::Pod(pod(
        "x/client0",
        "app=client part=few",
        &["10.0.0.0"],
    )));
    assert!(apply(&mut compiler, &policy).is_empty());
}

#[test]
fn an_edit_of_ports_keeps_the_table_and_changes_only_its_cells() {
    let (mut compiler, mut policy) = cluster();
    let before = table(&compiler, "x/web", Direction::Ingress);
    let class = compiler.compiled().addresses[&address("10.0.0.1")];
    policy.ingress.as_mut().unwrap()[0].ports = ports("81/TCP");
    let change = apply(&mut compiler, &policy);
    assert_eq!(table(&compiler, "x/web", Direction::Ingress), before);
    assert!(change.addresses.is_empty() && change.pods.is_empty());
    let [changed] = &change.tables[..] else {
        panic!("{change:?}")
    };
    assert_eq!((changed.table, changed.default), (before, false));
    assert_eq!(changed.classes, [class]);
}

#[test]
fn other_peers_of_the_same_pods_change_no_address() {
    let (mut compiler, mut policy) = cluster();
    policy.ingress.as_mut().unwrap()[0].peers = Peers::Of(vec![pods_of("", "app=client")]);
    let change = apply(&mut compiler, &policy);
    assert!(change.is_empty(), "{change:?}");
}

#[test]
fn a_policy_that_speaks_of_a_whole_class_changes_no_address() {
    let (mut compiler, _) = cluster();
    let more = Policy {
        ingress: Some(vec![rule(
            Peers::Of(vec![
                own_pods("app=client"),
                block("10.0.0.0/8", &["10.0.0.128/25"]),
            ]),
            Ports::Any,
        )]),
        ..policy("x/more", "app=web")
    };
    let change = apply(&mut compiler, &more);
    // The server's own address lies in the block, and in no class before.
    assert!(change.addresses.is_empty(), "{change:?}");
    assert_eq!(change.blocks.len(), 2);
    assert!(change.pods.is_empty(), "the table follows its pod");
}

#[test]
fn of_a_class_that_splits_the_larger_part_keeps_the_number() {
    let (mut compiler, mut policy) = cluster();
    let rules = policy.ingress.as_mut().unwrap();
    rules.push(rule(Peers::Of(vec![own_pods("part=few")]), ports("81/TCP")));
    let few = ["10.0.0.0", "10.0.0.5"].map(address);
    assert_eq!(apply(&mut compiler, &policy).addresses, few);
    // The other way round: the larger part means something new, and keeps the number all the same.
    let rules = policy.ingress.as_mut().unwrap();
    rules[1].peers = Peers::Of(vec![own_pods("part=many")]);
    assert!(apply(&mut compiler, &policy).addresses.is_empty());
    policy.ingress.as_mut().unwrap().pop();
    assert_eq!(apply(&mut compiler, &policy).addresses, few);
}

#[test]
fn a_relabelled_namespace_whose_pods_are_a_class_changes_no_address() {
    let (mut compiler, mut policy) = cluster();
    let change = compiler.take_change();
    assert!(change.is_empty());
    let peers = Peers::Of(vec![pods_of("team=red", "app=client")]);
    policy
        .ingress
        .as_mut()
        .unwrap()
        .push(rule(peers, ports("81/TCP")));
    apply(&mut compiler, &policy);
    let red: Namespace = namespace("x", "team=red");
    compiler.apply(Object::Namespace(red));
    let change = compiler.take_change();
    assert!(change.addresses.is_empty());
    assert_eq!(change.tables.len(), 1);
}

#[test]
fn pods_that_the_same_policies_select_share_a_table() {
    let (mut compiler, mut policy) = cluster();
    compiler.apply(Object::Pod(pod(
        "x/web2",
        "app=web more=labels",
        &["10.0.0.101"],
    )));
    compiler.take_change();
    let first = table(&compiler, "x/web", Direction::Ingress);
    assert_eq!(table(&compiler, "x/web2", Direction::Ingress), first);
    // A name that means something else on each makes two of it, and one again.
    let mut by_name = pod("x/web2", "app=web more=labels", &["10.0.0.101"]);
    by_name.ports = named_ports("http=80/TCP");
    compiler.apply(Object::Pod(by_name));
    policy.ingress.as_mut().unwrap()[0].ports = ports("http/TCP");
    apply(&mut compiler, &policy);
    assert_ne!(
        table(&compiler, "x/web", Direction::Ingress),
        table(&compiler, "x/web2", Direction::Ingress)
    );
    policy.ingress.as_mut().unwrap()[0].ports = ports("80/TCP");
    apply(&mut compiler, &policy);
    assert_eq!(
        table(&compiler, "x/web", Direction::Ingress),
        table(&compiler, "x/web2", Direction::Ingress)
    );
    assert_eq!(compiler.compiled().tables.len(), 1);
}

#[test]
fn a_further_policy_changes_the_table_in_place() {
    let (mut compiler, _) = cluster();
    let before = table(&compiler, "x/web", Direction::Ingress);
    let deny = Policy {
        ingress: Some(vec![rule(Peers::Any, ports("443/TCP"))]),
        ..policy("x/deny", "app=web")
    };
    let change = apply(&mut compiler, &deny);
    assert_eq!(table(&compiler, "x/web", Direction::Ingress), before);
    assert!(change.pods.is_empty() && change.tables.len() == 1);
}

#[test]
fn a_pod_that_no_policy_speaks_of_costs_no_entry() {
    let (mut compiler, _) = cluster();
    compiler.apply(Object::Pod(pod("x/other", "app=other", &["10.0.0.200"])));
    let change = compiler.take_change();
    assert_eq!(change.pods, [name("x/other")]);
    assert!(change.addresses.is_empty() && change.tables.is_empty());
}

#[test]
fn policies_that_select_no_pod_of_the_node_cost_nothing() {
    let (mut compiler, _) = cluster();
    let elsewhere = Policy {
        egress: Some(vec![rule(
            Peers::Of(vec![block("192.0.2.0/24", &[]), own_pods("")]),
            ports("http/TCP"),
        )]),
        ..policy("x/elsewhere", "app=elsewhere")
    };
    assert!(apply(&mut compiler, &elsewhere).is_empty());
}
