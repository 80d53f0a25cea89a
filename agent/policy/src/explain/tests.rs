//! Explanations against the reference, and their reasons.

use super::{Exemption, PeerMiss, PeersView, explain};
use crate::{
    evaluate::{Endpoint, Question, evaluate},
    index::Index,
    model::{Object, Peers, Ports, Protocol, Rule},
    table::Traffic,
    testing::{
        Rng, World, address, addresses, block, name, namespace, own_pods, pod, pods_of, policy,
        ports, rule, traffic,
    },
};

fn index(objects: impl IntoIterator<Item = Object>) -> Index {
    let mut index = Index::default();
    for object in objects {
        index.apply(object);
    }
    index
}

const HTTP: Traffic = Traffic::Port(Protocol::Tcp, 80);

/// A server that lets in what these rules say, a client, and a pod of another namespace.
fn server(rules: Vec<Rule>) -> Index {
    let mut web = policy("x/web", "app=web");
    web.ingress = Some(rules);
    index([
        Object::Namespace(namespace("x", "")),
        Object::Namespace(namespace("y", "team=blue")),
        Object::Pod(pod("x/web", "app=web", &["10.0.0.1", "fd00::1"])),
        Object::Pod(pod("x/client", "app=client", &["10.0.0.2"])),
        Object::Pod(pod("y/client", "app=client", &["10.0.0.3"])),
        Object::Policy(web),
    ])
}

#[test]
fn an_explanation_says_what_the_reference_says() {
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let world = World::random(rng);
        let index = world.index();
        let mut ends: Vec<_> = addresses().into_iter().map(Endpoint::Address).collect();
        ends.extend(index.pods().map(|pod| Endpoint::Pod(pod.name.clone())));
        ends.push(Endpoint::Node);
        for _ in 0..300 {
            let (from, to) = (rng.pick(&ends), rng.pick(&ends));
            let explained = explain(&index, &from, &to, None);
            for traffic in rng.some(&traffic(), 30) {
                let question = Question {
                    from: from.clone(),
                    to: to.clone(),
                    traffic,
                    family: None,
                };
                let expected = evaluate(&index, &question);
                let got = explained.as_ref().map(|explained| {
                    let sides = [&explained.egress, &explained.ingress];
                    for side in sides.into_iter().flatten() {
                        let mut allowing = side.allowing(traffic);
                        let by_rule = allowing.any(|rule| side.enforces(rule));
                        let open = side.isolating == side.audited || by_rule;
                        assert_eq!(side.allowed().allows(traffic), open);
                    }
                    explained.allows(traffic)
                });
                assert_eq!(
                    got.map_err(Clone::clone),
                    expected.map(|answer| answer.allowed()),
                    "seed {seed}: {question:?}"
                );
            }
        }
    }
}

#[test]
fn the_isolating_policies_and_the_allowing_rule_are_named() {
    let index = server(vec![
        rule(Peers::Of(vec![own_pods("app=other")]), Ports::Any),
        rule(Peers::Of(vec![own_pods("app=client")]), ports("80/TCP")),
    ]);
    let [from, to] = ["x/client", "x/web"].map(|pod| Endpoint::Pod(name(pod)));
    let explained = explain(&index, &from, &to, None).unwrap();
    assert!(explained.egress.as_ref().unwrap().isolating.is_empty());
    let ingress = explained.ingress.as_ref().unwrap();
    assert_eq!(ingress.isolating, [name("x/web")]);
    let allowing: Vec<_> = ingress.allowing(HTTP).map(|view| view.rule).collect();
    assert_eq!(allowing, [1]);
    assert_eq!(ingress.rules[1].peers, PeersView::Matched(0));
    assert!(explained.allows(HTTP) && !explained.allows(Traffic::Other));
}

#[test]
fn the_nearest_miss_comes_first() {
    let index = server(vec![
        rule(Peers::Of(vec![block("192.0.2.0/24", &[])]), ports("80/TCP")),
        rule(Peers::Of(vec![pods_of("team=red", "")]), ports("80/TCP")),
        rule(Peers::Of(vec![pods_of("", "app=web")]), ports("80/TCP")),
        rule(
            Peers::Of(vec![block("10.0.0.0/8", &["10.0.0.3/32"])]),
            ports("80/TCP"),
        ),
        rule(Peers::Any, ports("81/TCP")),
        rule(Peers::Of(vec![own_pods("")]), ports("81/TCP")),
    ]);
    let [from, to] = ["y/client", "x/web"].map(|pod| Endpoint::Pod(name(pod)));
    let explained = explain(&index, &from, &to, None).unwrap();
    let ingress = explained.ingress.as_ref().unwrap();
    let misses = ingress.misses(HTTP);
    let order: Vec<_> = misses.iter().map(|view| view.rule).collect();
    assert_eq!(order, [4, 3, 2, 1, 0, 5]);
    let reason = |rule: usize| match &ingress.rules[rule].peers {
        PeersView::Missed(reasons) => reasons[0].clone(),
        matched => panic!("{matched:?}"),
    };
    assert_eq!(
        reason(0),
        PeerMiss::Outside("192.0.2.0/24".parse().unwrap())
    );
    assert!(matches!(reason(1), PeerMiss::NamespaceLabels(failed) if failed.len() == 1));
    assert!(matches!(reason(2), PeerMiss::PodLabels(failed) if failed.len() == 1));
    assert_eq!(
        reason(3),
        PeerMiss::Excepted("10.0.0.3/32".parse().unwrap())
    );
    assert_eq!(reason(5), PeerMiss::OtherNamespace);
}

#[test]
fn a_name_that_the_destination_does_not_have_is_told() {
    let index = server(vec![rule(Peers::Any, ports("http/TCP 443/TCP"))]);
    let [from, to] = [address("192.0.2.1"), address("10.0.0.1")].map(Endpoint::Address);
    let explained = explain(&index, &from, &to, None).unwrap();
    assert_eq!(explained.to.pod, Some(name("x/web")));
    assert_eq!(explained.egress, None);
    let view = &explained.ingress.as_ref().unwrap().rules[0];
    assert_eq!(view.unknown_names, [("http".into(), Protocol::Tcp)]);
    assert!(view.allows(Traffic::Port(Protocol::Tcp, 443)) && !view.allows(HTTP));
}

#[test]
fn what_no_policy_can_forbid_is_exempt() {
    let index = server(vec![]);
    let web = Endpoint::Pod(name("x/web"));
    let itself = explain(&index, &web, &web, None).unwrap();
    assert_eq!(itself.exempt, Some(Exemption::Itself));
    let node = explain(&index, &Endpoint::Node, &web, None).unwrap();
    assert_eq!(node.exempt, Some(Exemption::Node));
    assert!(itself.allows(HTTP) && node.allows(Traffic::Other));
}
