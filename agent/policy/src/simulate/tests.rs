//! What a simulation says is what the reference says of both states.

use super::*;
use crate::{
    evaluate::{Endpoint, Question, evaluate},
    model::{Peers, Policy},
    testing::{self, Rng, block, own_pods, pod, policy, ports, rule},
};

fn text(change: &Change) -> String {
    let role = |role: &Role| match role {
        Role::Pods(pods) => pods
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("+"),
        Role::Outside(nets) => nets
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("+"),
    };
    let ports = |ports: &Ports| {
        format!(
            "{:?}{}",
            ports.tcp.ranges(),
            if ports.other { "*" } else { "" }
        )
    };
    format!(
        "{} -> {}: -{} +{}",
        role(&change.from),
        role(&change.to),
        ports(&change.lost),
        ports(&change.gained)
    )
}

fn admits(peers: Peers, allowed: &str) -> Policy {
    let mut policy = policy("shop/api", "app=api");
    policy.ingress = Some(vec![rule(peers, ports(allowed))]);
    policy
}

fn shop(policy: Option<Policy>) -> World {
    let pods = [
        pod("shop/api", "app=api", &["10.0.0.1"]),
        pod("shop/web-1", "app=web", &["10.0.0.2"]),
        pod("shop/web-2", "app=web", &["10.0.0.3"]),
    ];
    let pods = pods.into_iter().map(Object::Pod);
    World::of(pods.chain(policy.map(Object::Policy)))
}

#[test]
fn who_loses_what_is_named_by_role() {
    let web = || Peers::Of(vec![own_pods("app=web")]);
    let before = shop(Some(admits(web(), "80/TCP 90/TCP")));
    let after = shop(Some(admits(web(), "80/TCP 81/TCP")));
    let changes: Vec<_> = compare(&before, &after).iter().map(text).collect();
    assert_eq!(
        changes,
        ["shop/web-1+shop/web-2 -> shop/api: -[(90, 90)] +[(81, 81)]"]
    );
    assert_eq!(compare(&before, &before), []);
}

#[test]
fn what_is_outside_is_told_by_block() {
    let before = shop(None);
    let peers = Peers::Of(vec![block("192.0.2.0/24", &["192.0.2.128/25"])]);
    let after = shop(Some(admits(peers, "80/TCP")));
    let changes: Vec<_> = compare(&before, &after).iter().map(text).collect();
    assert_eq!(
        changes,
        [
            "shop/web-1+shop/web-2 -> shop/api: -[(0, 65535)]* +[]",
            "0.0.0.0/0+192.0.2.128/25 -> shop/api: -[(0, 65535)]* +[]",
            "192.0.2.0/24 -> shop/api: -[(0, 79), (81, 65535)]* +[]",
        ]
    );
}

#[test]
fn a_world_answers_as_the_reference_does() {
    for seed in 0..60 {
        let random = testing::World::random(&mut Rng::new(seed));
        let world = World::of(random.objects());
        let index = world.index();
        let owned = |pod: &crate::index::Pod| {
            let mut addresses = pod.addresses.iter();
            addresses.all(|&it| index.owner(it).is_some_and(|owner| owner.name == pod.name))
        };
        let ends: Vec<_> = index
            .pods()
            .filter(|pod| pod.counts() && !pod.addresses.is_empty() && owned(pod))
            .map(|pod| pod.name.clone())
            .collect();
        let has_v4 = |name: &Name| {
            let pod = index.pod(name).expect("listed");
            pod.addresses.iter().any(|address| address.is_ipv4())
        };
        for from in &ends {
            for to in &ends {
                for traffic in [
                    Traffic::Port(crate::model::Protocol::Tcp, 80),
                    Traffic::Other,
                ] {
                    let question = Question {
                        from: Endpoint::Pod(from.clone()),
                        to: Endpoint::Pod(to.clone()),
                        traffic,
                        family: (has_v4(from) && has_v4(to)).then_some(Family::V4),
                    };
                    let Ok(expected) = evaluate(index, &question) else {
                        continue;
                    };
                    let ends = (End::Pod(from.clone()), End::Pod(to.clone()));
                    let found = world.allows(&ends.0, &ends.1, traffic);
                    assert_eq!(
                        found,
                        Some(expected.allowed()),
                        "seed {seed}: {from} -> {to} {traffic}"
                    );
                }
            }
        }
    }
}
