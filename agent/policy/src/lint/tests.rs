//! What is found, and what is not.

use super::*;
use crate::{
    model::{Object, Peers, Pod, Policy, Ports, Protocol, Service, ServicePort, TargetPort},
    simulate,
    table::Direction,
    testing::{
        Rng, World, block, name, named_ports, namespace, own_pods, pod, pods_of, policy, ports,
        rule, selector,
    },
};

/// A cluster with a DNS server and a shop of two pods, in which nothing is found.
fn shop() -> Index {
    let mut index = Index::default();
    index.apply(Object::Namespace(namespace("kube-system", "")));
    index.apply(Object::Namespace(namespace("shop", "team=a")));
    index.apply(Object::Pod(pod(
        "kube-system/dns",
        "k8s-app=kube-dns",
        &["10.0.0.53"],
    )));
    index.apply(Object::Pod(pod("shop/web", "app=web", &["10.0.0.1"])));
    let mut api = pod("shop/api", "app=api", &["10.0.0.2"]);
    api.ports = named_ports("http=8080/TCP");
    index.apply(Object::Pod(api));
    let mut deny = policy("shop/default-deny", "");
    (deny.ingress, deny.egress) = (Some(vec![]), Some(vec![]));
    index.apply(Object::Policy(deny));
    index
}

fn lines(findings: &[Finding]) -> Vec<String> {
    let line = |it: &Finding| {
        format!(
            "{} {} {}: {}",
            it.problem.code(),
            it.object,
            it.field,
            it.problem
        )
    };
    findings.iter().map(line).collect()
}

/// What is found once these are applied to the shop.
fn found(objects: Vec<Object>) -> Vec<String> {
    let mut index = shop();
    for object in objects {
        index.apply(object);
    }
    lines(&lint(&index, &BTreeMap::new()))
}

fn ingress(name: &str, selects: &str, peers: Peers, ports: Ports) -> Policy {
    let mut policy = policy(name, selects);
    policy.ingress = Some(vec![rule(peers, ports)]);
    policy
}

fn egress(name: &str, selects: &str, peers: Peers, ports: Ports) -> Policy {
    let mut policy = policy(name, selects);
    policy.egress = Some(vec![rule(peers, ports)]);
    policy
}

fn service(selects: &str, target: TargetPort) -> Object {
    Object::Service(Service {
        name: name("shop/api"),
        addresses: Vec::new(),
        selector: Some(selector(selects)),
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target,
        }],
    })
}

fn web() -> Peers {
    Peers::Of(vec![own_pods("app=web")])
}

#[test]
fn nothing_is_found_where_all_is_well() {
    let allow = ingress("shop/api", "app=api", web(), ports("http/TCP"));
    let to = Peers::Of(vec![own_pods("app=api")]);
    let send = egress("shop/web", "app=web", to, ports("http/TCP"));
    let dns = Peers::Of(vec![pods_of(
        "kubernetes.io/metadata.name=kube-system",
        "k8s-app=kube-dns",
    )]);
    let dns = egress("shop/dns", "", dns, ports("53/UDP 53/TCP"));
    let service = service("app=api", TargetPort::Named("http".into()));
    let policies = [allow, send, dns].map(Object::Policy);
    assert_eq!(found([&policies[..], &[service]].concat()), [""; 0]);
}

#[test]
fn a_selector_without_pods_is_told_the_nearest_label() {
    let typo = ingress("shop/a", "app=apj", Peers::Any, Ports::Any);
    assert_eq!(
        found(vec![Object::Policy(typo)]),
        [
            "PL101 networkpolicy shop/a spec.podSelector: selects no pod; nearest to app=apj is app=api, of shop/api"
        ]
    );
    let typo = Peers::Of(vec![own_pods("app=web tier=x"), own_pods("ap=web")]);
    let typo = ingress("shop/a", "app=api", typo, Ports::Any);
    assert_eq!(
        found(vec![Object::Policy(typo)]),
        [
            "PL102 networkpolicy shop/a spec.ingress[0].from[0].podSelector: matches no pod; \
             nearest is shop/web, which fails tier=x alone",
            "PL102 networkpolicy shop/a spec.ingress[0].from[1].podSelector: matches no pod; \
             nearest to ap=web is app=web, of shop/web",
        ]
    );
    let typo = ingress(
        "shop/a",
        "app=api",
        Peers::Of(vec![pods_of("team=b", "")]),
        Ports::Any,
    );
    assert_eq!(
        found(vec![Object::Policy(typo)]),
        [
            "PL103 networkpolicy shop/a spec.ingress[0].from[0].namespaceSelector: matches no namespace; \
          nearest to team=b is team=a, of namespace shop"
        ]
    );
}

#[test]
fn a_name_that_no_port_has_is_told_the_nearest() {
    let typo = ingress("shop/a", "app=api", web(), ports("htpp/TCP"));
    assert_eq!(
        found(vec![Object::Policy(typo)]),
        [
            "PL104 networkpolicy shop/a spec.ingress[0].ports[0]: no pod at the destination has a TCP port named htpp; \
          nearest to htpp is http, of shop/api"
        ]
    );
    // The name is the destination's.
    let dns = ports("http/TCP 53/UDP");
    let other = egress("shop/a", "app=api", web(), dns);
    let found = found(vec![Object::Policy(other)]);
    assert!(found[0].starts_with("PL105"), "{found:?}");
    assert!(
        found[1].contains("spec.egress[0].ports[0]: no pod at the destination"),
        "{found:?}"
    );
}

#[test]
fn pods_that_may_send_need_names() {
    let api = || Peers::Of(vec![own_pods("app=api")]);
    let send = egress("shop/web", "app=web", api(), ports("8080/TCP"));
    assert_eq!(
        found(vec![Object::Policy(send.clone())]),
        [
            "PL105 networkpolicy shop/default-deny spec.egress: shop/web may send, but not to port 53/UDP of the cluster's \
          DNS: names cannot be resolved"
        ]
    );
    for peers in [
        Peers::Any,
        Peers::Of(vec![pods_of("", "k8s-app=kube-dns")]),
        // A cache on the node.
        Peers::Of(vec![block("169.254.20.10/32", &[])]),
    ] {
        let dns = egress("shop/dns", "", peers, ports("53/UDP"));
        let policies = [send.clone(), dns].map(Object::Policy);
        assert_eq!(found(policies.into()), [""; 0]);
    }
    let dns = egress(
        "shop/dns",
        "",
        Peers::Of(vec![pods_of("", "k8s-app=kube-dns")]),
        ports("53/TCP"),
    );
    assert_eq!(found([send, dns].map(Object::Policy).into()).len(), 1);
}

#[test]
fn of_two_rules_the_swallowed_one_is_named() {
    let narrow = || ingress("shop/narrow", "app=api", web(), ports("8080/TCP http/TCP"));
    let wide = ingress("shop/a-wide", "", web(), ports("8000-9000/TCP http/TCP"));
    assert_eq!(
        found([narrow(), wide].map(Object::Policy).into()),
        [
            "PL106 networkpolicy shop/narrow spec.ingress[0]: shop/a-wide ingress[0] allows all of this already, \
          to the same pods or more"
        ]
    );
    for other in [
        ingress("shop/z", "app=web", Peers::Any, Ports::Any),
        ingress("shop/z", "", web(), ports("8080/TCP")),
        ingress(
            "shop/z",
            "",
            Peers::Of(vec![own_pods("app=web x=y")]),
            Ports::Any,
        ),
    ] {
        let found = found([narrow(), other].map(Object::Policy).into());
        assert!(!found.iter().any(|it| it.starts_with("PL106")), "{found:?}");
    }
    let twin = ingress("shop/twin", "app=api", web(), ports("http/TCP 8080/TCP"));
    let found = found([narrow(), twin].map(Object::Policy).into());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("shop/twin spec.ingress[0]: shop/narrow ingress[0]"),
        "{found:?}"
    );
}

#[test]
fn blocks_swallow_blocks_but_for_their_holes() {
    let of = |cidr: &str, except: &[&str]| Peers::Of(vec![block(cidr, except)]);
    let swallowed = |wide: Peers, narrow: Peers| {
        let wide = ingress("shop/a-wide", "", wide, Ports::Any);
        let narrow = ingress("shop/narrow", "", narrow, Ports::Any);
        let found = found([wide, narrow].map(Object::Policy).into());
        found
            .iter()
            .any(|it| it.starts_with("PL106 networkpolicy shop/narrow"))
    };
    assert!(swallowed(of("192.0.2.0/24", &[]), of("192.0.2.0/25", &[])));
    assert!(swallowed(
        of("192.0.2.0/24", &["192.0.2.128/25"]),
        of("192.0.2.0/25", &[])
    ));
    assert!(!swallowed(
        of("192.0.2.0/24", &["192.0.2.0/26"]),
        of("192.0.2.0/25", &[])
    ));
    assert!(swallowed(
        of("192.0.2.0/24", &["192.0.2.0/26"]),
        of("192.0.2.0/25", &["192.0.2.0/26"])
    ));
    assert!(!swallowed(of("192.0.2.0/25", &[]), of("192.0.2.0/24", &[])));
}

#[test]
fn a_namespace_without_a_default_says_how_many_are_open() {
    let mut index = shop();
    index.delete(&Key::Policy(name("shop/default-deny")));
    index.apply(Object::Policy(ingress(
        "shop/api",
        "app=api",
        web(),
        ports("http/TCP"),
    )));
    let found = lines(&lint(&index, &BTreeMap::new()));
    assert_eq!(
        found,
        [
            "PL107 namespace shop : no policy isolates the ingress of all pods; of its 2 1 are open to everything",
            "PL108 namespace shop : no policy isolates the egress of all pods; of its 2 2 are open to everything",
        ]
    );
}

#[test]
fn a_block_that_holds_pods_is_named_unless_it_leaves_them_out() {
    let with = |cidr: &str, except: &[&str]| {
        let peers = Peers::Of(vec![block(cidr, except)]);
        found(vec![Object::Policy(ingress(
            "shop/a",
            "app=api",
            peers,
            ports("http/TCP"),
        ))])
    };
    assert_eq!(
        with("10.0.0.0/8", &["10.0.0.1/32"]),
        [
            "PL109 networkpolicy shop/a spec.ingress[0].from[0].ipBlock: 10.0.0.0/8 holds the address of shop/api and 1 more of \
          pods; blocks are for what is outside of the cluster, and pods change addresses"
        ]
    );
    assert_eq!(with("0.0.0.0/0", &["10.0.0.0/8", "10.0.0.0/16"]), [""; 0]);
    assert_eq!(with("192.0.2.0/24", &[]), [""; 0]);
    let everybody = Problem::BlockHoldsPods {
        cidr: "::/0".parse().expect("a block"),
        pod: name("x/a"),
        addresses: 1,
    };
    assert_eq!(everybody.severity(), Severity::Info);
}

#[test]
fn a_service_that_leads_nowhere_says_why() {
    let named = |name: &str| TargetPort::Named(name.into());
    assert_eq!(
        found(vec![service("app=apl", named("http"))]),
        [
            "PL201 service shop/api spec.selector: selects no pod; nearest to app=apl is app=api, of shop/api"
        ]
    );
    assert_eq!(
        found(vec![service("app=api", named("htp"))]),
        [
            "PL202 service shop/api spec.ports[0]: no pod behind it has a TCP port named htp; nearest to htp is http, of shop/api"
        ]
    );
    assert_eq!(
        found(vec![service("app=api", named("http"))]),
        [
            "PL204 service shop/api spec.ports[0]: every pod behind it is isolated, and no rule is for 8080/TCP: nobody reaches it"
        ]
    );
    let mut index = shop();
    index.apply(service("app=api", TargetPort::Number(8081)));
    index.apply(Object::Policy(ingress(
        "shop/a",
        "app=api",
        web(),
        Ports::Any,
    )));
    let declared = |words: &str| BTreeMap::from([(name("shop/api"), named_ports(words))]);
    assert_eq!(
        lines(&lint(&index, &declared("http=8080/TCP"))),
        ["PL203 service shop/api spec.ports[0]: no container behind it declares 8081/TCP"]
    );
    assert_eq!(lint(&index, &declared("http=8081/TCP")), []);
    assert_eq!(lint(&index, &declared("")), []);
}

#[test]
fn pods_that_policies_do_not_see_are_passed_over() {
    let hosted = |pod: Pod| {
        Object::Pod(Pod {
            host_network: true,
            ..pod
        })
    };
    let host = hosted(pod("other/host", "app=host", &["192.0.2.1"]));
    let block = Peers::Of(vec![block("192.0.2.0/24", &[])]);
    let block = ingress("shop/a", "app=api", block, Ports::Any);
    assert_eq!(found(vec![host, Object::Policy(block)]), [""; 0]);
}

/// The policy without that rule, which stays in its place as one that matches nobody.
fn without(policy: &Policy, direction: Direction, place: usize) -> Policy {
    let mut policy = policy.clone();
    let rules = match direction {
        Direction::Ingress => &mut policy.ingress,
        Direction::Egress => &mut policy.egress,
    };
    rules.as_mut().expect("a direction")[place] = rule(Peers::Of(Vec::new()), Ports::Any);
    policy
}

#[test]
fn a_swallowed_rule_can_go_and_nothing_changes() {
    let mut tried = 0;
    for seed in 0..400 {
        let random = World::random(&mut Rng::new(seed)).objects();
        let before = simulate::World::of(random.clone());
        let index = before.index();
        // The API server has the namespace of each pod.
        if index
            .pods()
            .any(|pod| index.namespace(&pod.name.namespace).is_none())
        {
            continue;
        }
        for finding in lint(index, &BTreeMap::new()) {
            let Problem::Swallowed { direction, .. } = finding.problem else {
                continue;
            };
            let Key::Policy(name) = &finding.object else {
                panic!("{finding:?}")
            };
            let place = finding.field.split(['[', ']']).nth(1).expect("a place");
            let place = place.parse().expect("a number");
            let policy = index.policy(name).expect("known");
            let less = Object::Policy(without(policy, direction, place));
            let after = simulate::World::of(random.iter().cloned().chain([less]));
            assert_eq!(
                simulate::compare(&before, &after),
                [],
                "seed {seed}: {finding:?}"
            );
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}
