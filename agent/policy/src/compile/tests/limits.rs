//! What does not fit denies.

use std::net::IpAddr;

use super::*;
use crate::{
    evaluate::allows,
    issue::Problem,
    model::{Object, Peers, Policy, Ports},
    table::{Cell, Direction, Isolation},
    testing::{address, block, name, namespace, own_pods, pod, policy, ports, rule},
};

fn blocks_of(compiled: &Compiled, v4: bool) -> usize {
    let family = |net: &&ipnet::IpNet| matches!(net, ipnet::IpNet::V4(_)) == v4;
    compiled.blocks.keys().filter(family).count()
}

fn assert_fits(compiled: &Compiled, limits: Limits, context: &str) {
    assert!(blocks_of(compiled, true) <= limits.blocks, "{context}");
    assert!(blocks_of(compiled, false) <= limits.blocks, "{context}");
    let classes = compiled.addresses.values().chain(compiled.blocks.values());
    let mut classes: BTreeSet<_> = classes.collect();
    classes.remove(&ClassId::STRANGER);
    assert!(classes.len() <= limits.classes, "{context}");
    // The one that denies everything is shared, and comes on top.
    assert!(compiled.tables.len() <= limits.tables + 1, "{context}");
}

#[test]
fn no_limit_lets_anything_through_that_the_reference_denies() {
    for seed in 0..clusters() {
        let mut rng = Rng::new(seed ^ 0x11_71);
        let limits = Limits {
            blocks: rng.below(8),
            classes: rng.below(8),
            tables: rng.below(5),
        };
        let mut world = World::random(&mut rng);
        let mut compiler = Compiler::new(NODE, limits);
        let mut copy = Compiled::default();
        let mut events: Vec<_> = world.objects().into_iter().map(Event::Apply).collect();
        for step in 0..10 {
            let context = format!("seed {seed}, step {step}, {limits:?}");
            for event in events {
                event.tell(&mut compiler);
            }
            let change = compiler.take_change();
            let compiled = compiler.compiled();
            mirror(&mut copy, compiled, &change);
            assert_eq!(copy, *compiled, "{context}");
            assert_fits(compiled, limits, &context);
            let index = world.index();
            let mut denied_more = false;
            for (name, listed) in &compiled.pods {
                let pod = index.pod(name).unwrap();
                for (direction, isolation) in [
                    (Direction::Ingress, listed.ingress),
                    (Direction::Egress, listed.egress),
                ] {
                    for peer in addresses() {
                        let cell = compiled.cell(isolation, peer);
                        for traffic in rng.some(&traffic(), 15) {
                            let expected = allows(&index, pod, direction, peer, traffic);
                            let got = cell.allows(traffic);
                            assert!(expected || !got, "{context}: {name} {peer} {traffic}");
                            denied_more |= expected && !got;
                        }
                    }
                }
            }
            let overflow = compiler.issues().iter().any(|issue| {
                matches!(
                    issue.problem,
                    Problem::BlockDoesNotFit(_)
                        | Problem::ClassDoesNotFit(_)
                        | Problem::TableDoesNotFit(_)
                )
            });
            assert!(overflow || !denied_more, "{context}: nobody is told");

            let mut fresh = Compiler::new(NODE, limits);
            let mut objects = world.objects();
            rng.shuffle(&mut objects);
            objects.into_iter().for_each(|object| fresh.apply(object));
            fresh.take_change();
            let nets = compiled.blocks.keys();
            assert!(
                nets.eq(fresh.compiled().blocks.keys()),
                "{context}: order decides"
            );
            events = world.step(&mut rng);
        }
    }
}

/// A policy of x/web for these blocks.
fn to_blocks(name: &str, blocks: &[&str]) -> Policy {
    let peers = blocks.iter().map(|cidr| block(cidr, &[])).collect();
    Policy {
        egress: Some(vec![rule(Peers::Of(peers), Ports::Any)]),
        ..policy(name, "app=web")
    }
}

fn web(limits: Limits) -> Compiler {
    let mut compiler = Compiler::new(NODE, limits);
    compiler.apply(Object::Namespace(namespace("x", "")));
    compiler.apply(Object::Pod(pod("x/web", "app=web", &["10.0.0.1"])));
    compiler
}

fn egress(compiler: &Compiler, peer: &str) -> Cell {
    let peer: IpAddr = address(peer);
    let compiled = compiler.compiled();
    compiled.cell(compiled.pods[&name("x/web")].egress, peer)
}

#[test]
fn the_blocks_of_the_policy_that_is_last_by_name_give_way_and_come_back() {
    let mut compiler = web(Limits {
        blocks: 2,
        ..Limits::NONE
    });
    compiler.apply(Object::Policy(to_blocks(
        "x/z",
        &["192.0.2.0/24", "198.51.100.0/24"],
    )));
    compiler.take_change();
    assert!(compiler.issues().is_empty() && egress(&compiler, "198.51.100.1") == Cell::allow());

    compiler.apply(Object::Policy(to_blocks("x/a", &["203.0.113.0/24"])));
    compiler.take_change();
    let issues = compiler.issues();
    assert_eq!(issues.len(), 1);
    assert_eq!(issues[0].object.to_string(), "networkpolicy x/z");
    assert_eq!(issues[0].field, "spec.egress[0].to");
    assert_eq!(egress(&compiler, "203.0.113.1"), Cell::allow());
    assert_eq!(egress(&compiler, "192.0.2.1"), Cell::allow());
    assert_eq!(egress(&compiler, "198.51.100.1"), Cell::deny());

    compiler.apply(Object::Policy(to_blocks("x/a", &["192.0.2.0/24"])));
    compiler.take_change();
    assert!(compiler.issues().is_empty());
    assert_eq!(egress(&compiler, "198.51.100.1"), Cell::allow());
}

#[test]
fn a_block_fits_with_all_its_exceptions_or_not_at_all() {
    let mut compiler = web(Limits {
        blocks: 2,
        ..Limits::NONE
    });
    let mut policy = to_blocks("x/web", &[]);
    let peer = block("0.0.0.0/0", &["192.0.2.0/24", "198.51.100.0/24"]);
    policy.egress = Some(vec![rule(Peers::Of(vec![peer]), Ports::Any)]);
    compiler.apply(Object::Policy(policy));
    compiler.take_change();
    assert!(compiler.compiled().blocks.is_empty());
    for peer in ["192.0.2.1", "203.0.113.1"] {
        assert_eq!(egress(&compiler, peer), Cell::deny());
    }
}

#[test]
fn addresses_whose_class_does_not_fit_have_what_everybody_has() {
    let mut compiler = web(Limits {
        classes: 1,
        ..Limits::NONE
    });
    for (at, label) in ["one", "two"].into_iter().enumerate() {
        let client = format!("x/{label}");
        let address = format!("10.0.1.{at}");
        compiler.apply(Object::Pod(pod(
            &client,
            &format!("app={label}"),
            &[&address],
        )));
    }
    let to = |label: &str, port| rule(Peers::Of(vec![own_pods(label)]), ports(port));
    let mut policy = to_blocks("x/web", &[]);
    policy.egress = Some(vec![
        to("app=one", "80/TCP"),
        to("app=two", "80/TCP"),
        rule(Peers::Any, ports("53/UDP")),
    ]);
    compiler.apply(Object::Policy(policy));
    compiler.take_change();
    let everybody = egress(&compiler, "203.0.113.1");
    let cells = ["10.0.1.0", "10.0.1.1"].map(|address| egress(&compiler, address));
    assert_eq!(cells.iter().filter(|cell| **cell == everybody).count(), 1);
    assert_eq!(compiler.issues().len(), 1);

    // Room again: whoever was left out gets in.
    compiler.delete(&crate::model::Key::Pod(name("x/one")));
    compiler.take_change();
    assert_ne!(egress(&compiler, "10.0.1.1"), everybody);
    assert!(compiler.issues().is_empty());
}

#[test]
fn pods_whose_table_does_not_fit_are_denied_everything() {
    let mut compiler = Compiler::new(
        NODE,
        Limits {
            tables: 1,
            ..Limits::NONE
        },
    );
    compiler.apply(Object::Namespace(namespace("x", "")));
    for (at, label) in ["one", "two", "three"].into_iter().enumerate() {
        let address = format!("10.0.0.{at}");
        compiler.apply(Object::Pod(pod(
            &format!("x/{label}"),
            &format!("app={label}"),
            &[&address],
        )));
        let allow = Policy {
            ingress: Some(vec![rule(Peers::Any, Ports::Any)]),
            ..policy(&format!("x/{label}"), &format!("app={label}"))
        };
        compiler.apply(Object::Policy(allow));
        compiler.take_change();
    }
    let compiled = compiler.compiled();
    let cell = |pod: &str| compiled.cell(compiled.pods[&name(pod)].ingress, address("192.0.2.1"));
    assert_eq!(cell("x/one"), Cell::allow(), "who has a table keeps it");
    assert_eq!(cell("x/two"), Cell::deny());
    let [two, three] = ["x/two", "x/three"].map(|pod| compiled.pods[&name(pod)].ingress);
    assert!(two == three && two != Isolation::None);
    assert_eq!(compiler.issues().len(), 2);
}
