//! What is generated allows what was asked for and nothing else, whatever its prefix.

use super::*;
use crate::{
    index::Index,
    lint::{Severity, lint},
    model::Object,
    simulate::{End, World},
    table::{Cell, PortSet, Traffic},
    testing::{Rng, name, namespace, pod},
};

/// Two namespaces of pods whose labels are alike, with names of revisions among them.
fn cluster() -> Vec<Object> {
    let mut objects: Vec<_> = ["shop", "data", "kube-system"]
        .map(|name| Object::Namespace(namespace(name, "")))
        .into();
    let pods = [
        (
            "shop/web-5d9c-a",
            "app=web pod-template-hash=5d9c",
            "10.0.0.1",
        ),
        (
            "shop/web-5d9c-b",
            "app=web pod-template-hash=5d9c",
            "10.0.0.2",
        ),
        ("shop/api-1", "app=api pod-template-hash=1", "10.0.0.3"),
        ("shop/api-2", "app=api track=canary", "10.0.0.4"),
        ("shop/bare", "", "10.0.0.5"),
        (
            "data/db-0",
            "app=db statefulset.kubernetes.io/pod-name=db-0",
            "10.0.1.1",
        ),
        ("data/web", "app=web", "10.0.1.2"),
        ("kube-system/dns", "k8s-app=kube-dns", "10.0.2.1"),
    ];
    objects.extend(pods.map(|(name, labels, address)| Object::Pod(pod(name, labels, &[address]))));
    objects
}

fn index() -> Index {
    let mut index = Index::default();
    for object in cluster() {
        index.apply(object);
    }
    index
}

/// Connections at random between pods and addresses outside.
fn connections(rng: &mut Rng, pods: &[Name]) -> Vec<(End, End, (Protocol, u16))> {
    let end = |rng: &mut Rng| match rng.below(5) {
        0 => outside(rng.pick(&["192.0.2.1", "192.0.2.2"])),
        _ => End::Pod(rng.pick(pods)),
    };
    let mut connections: Vec<_> = (0..1 + rng.below(12))
        .map(|_| {
            let ports = [
                (Protocol::Tcp, 80),
                (Protocol::Tcp, 443),
                (Protocol::Udp, 80),
            ];
            (end(rng), end(rng), rng.pick(&ports))
        })
        .collect();
    let pod = |end: &End| matches!(end, End::Pod(_));
    connections.retain(|(from, to, _)| from != to && (pod(from) || pod(to)));
    connections
}

fn outside(address: &str) -> End {
    End::Address(address.parse().expect("an address"))
}

fn options() -> Options {
    Options {
        namespaces: ["shop", "data"].map(Arc::from).into(),
        default_deny: true,
        ..Options::default()
    }
}

/// Whom an end is of. All are called alike, so that names do not tell them apart.
fn party(actors: &Actors, index: &Index, end: &End) -> Party {
    match end {
        End::Pod(pod) => {
            let actor = actors.actor(index, pod, &name("x/pods"));
            Party::Actor(actor.expect("a pod"))
        }
        End::Address(address) => Party::Block(IpNet::from(*address)),
    }
}

fn world(generated: &[Generated]) -> World {
    let policies = generated.iter().map(|it| Object::Policy(it.policy.clone()));
    World::of(cluster().into_iter().chain(policies))
}

fn cell<'a>(ports: impl Iterator<Item = &'a (Protocol, u16)>) -> Cell {
    let mut cell = Cell::deny();
    for &(protocol, port) in ports {
        let one = PortSet::of([(port, port)]);
        let set = match protocol {
            Protocol::Tcp => &mut cell.tcp,
            Protocol::Udp => &mut cell.udp,
            Protocol::Sctp => &mut cell.sctp,
        };
        *set = set.union(&one);
    }
    cell
}

#[test]
fn what_was_seen_passes_at_every_step_and_nothing_else_does_at_the_end() {
    let index = index();
    let actors = Actors::of(&index);
    let pods: Vec<_> = index.pods().map(|pod| pod.name.clone()).collect();
    for seed in 0..40 {
        let seen = connections(&mut Rng::new(seed), &pods);
        let links: Vec<_> = seen
            .iter()
            .map(|(from, to, port)| Link {
                from: party(&actors, &index, from),
                to: party(&actors, &index, to),
                ports: [*port].into(),
            })
            .collect();
        let generated = generate(&links, &options());
        for step in 0..=generated.len() {
            let world = world(&generated[..step]);
            for (from, to, (protocol, port)) in &seen {
                let passes = world.allows(from, to, Traffic::Port(*protocol, *port));
                assert_eq!(
                    passes,
                    Some(true),
                    "seed {seed}, step {step}: {from:?} -> {to:?}"
                );
            }
        }
        let world = world(&generated);
        let strangers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(outside);
        let ends: Vec<_> = pods
            .iter()
            .cloned()
            .map(End::Pod)
            .chain(strangers)
            .collect();
        let isolated =
            |end: &End| matches!(end, End::Pod(name) if *name.namespace != *"kube-system");
        for from in &ends {
            for to in ends.iter().filter(|to| *to != from) {
                if !isolated(from) && !isolated(to) {
                    continue;
                }
                let (sender, receiver) = (party(&actors, &index, from), party(&actors, &index, to));
                let asked = links
                    .iter()
                    .filter(|it| it.from == sender && it.to == receiver);
                let expected = cell(asked.flat_map(|link| &link.ports));
                assert_eq!(
                    world.cell(from, to),
                    Some(expected),
                    "seed {seed}: {from:?} -> {to:?}"
                );
            }
        }
        let mut found = lint(world.index(), &BTreeMap::new());
        // Whether names are asked for is the caller's matter.
        found.retain(|it| it.problem.code() != "PL105" && it.problem.severity() > Severity::Info);
        assert_eq!(found, [], "seed {seed}");
    }
}

#[test]
fn an_actor_is_told_by_its_stable_labels_alone() {
    let index = index();
    let actors = Actors::of(&index);
    let selector = |pod: &str| {
        let actor = actors.actor(&index, &name(pod), &name(pod)).expect("a pod");
        let each = actor.selector.requirements().iter();
        each.map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    assert_eq!(selector("shop/web-5d9c-a"), "app=web");
    assert_eq!(selector("shop/api-1"), "app=api,!track");
    assert_eq!(selector("shop/api-2"), "app=api,track=canary");
    assert_eq!(selector("shop/bare"), "!app");
    assert_eq!(selector("data/db-0"), "app=db");
    assert!(!is_stable("topology.kubernetes.io/zone") && is_stable("app.kubernetes.io/name"));
}

#[test]
fn who_sends_may_ask_for_names_and_who_does_not_may_not() {
    let index = index();
    let actors = Actors::of(&index);
    let actor = |pod: &str| {
        let actor = actors.actor(&index, &name(pod), &name(pod));
        Party::Actor(actor.expect("a pod"))
    };
    let link = Link {
        from: actor("shop/web-5d9c-a"),
        to: actor("shop/api-1"),
        ports: [(Protocol::Tcp, 80)].into(),
    };
    let options = Options {
        dns: vec![(actor("kube-system/dns"), [(Protocol::Udp, 53)].into())],
        ..options()
    };
    let generated = generate(&[link], &options);
    let world = world(&generated);
    let asks = |from: &str| {
        let (from, to) = (End::Pod(name(from)), End::Pod(name("kube-system/dns")));
        world.allows(&from, &to, Traffic::Port(Protocol::Udp, 53))
    };
    assert_eq!(asks("shop/web-5d9c-b"), Some(true));
    assert_eq!(asks("shop/api-1"), Some(false));
    let names: Vec<_> = generated
        .iter()
        .map(|it| it.policy.name.to_string())
        .collect();
    let expected = [
        "shop/api-1",
        "shop/web-5d9c-a",
        "data/default-deny",
        "shop/default-deny",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        generated[0].reasons,
        ["shop/web-5d9c-a may send to it at 80/TCP"]
    );
}
