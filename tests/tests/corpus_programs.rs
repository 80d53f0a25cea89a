//! Every cell of every case of the corpora, and random clusters: compiled, written by the agent's own writer
//! and asked of the programs.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_common::mark::State;
use palisade_policy::{
    evaluate::{Endpoint, Family, Question, Traffic, evaluate},
    index::Index,
    model::{Name, Object, Protocol},
    table::Direction,
    testing::{NODE, Rng, World, addresses, traffic},
};
use palisade_tests::{
    corpus::{Case, Cluster, Corpus, Placement},
    lab::Cni,
    probe,
    rig::{Node, Rig, Sent},
    skip_without_root,
};

#[test]
fn the_programs_agree_with_every_cell_of_the_end_to_end_tests() {
    all_cells(Corpus::E2e, 5186);
}

#[test]
fn the_programs_agree_with_every_cell_of_cyclonus() {
    all_cells(Corpus::Cyclonus, 109_956);
}

#[test]
fn the_programs_agree_with_every_cell_of_the_recipes() {
    all_cells(Corpus::Recipes, 548);
}

fn all_cells(corpus: Corpus, expected: usize) {
    if skip_without_root() {
        return;
    }
    // Whatever the family, half of the pods are on either node.
    for family in [4, 6] {
        let mut nodes = ["node1", "node2"].map(|name| Node::new(name, Rig::new()));
        let mut cells = 0;
        for case in corpus.cases().unwrap() {
            cells += replay(&case, family, &mut nodes);
        }
        // Addresses outside of the cluster are of one family.
        assert!(
            cells == expected || family == 6 && cells * 2 > expected,
            "{cells}"
        );
        println!("{corpus:?}: {cells} cells of IPv{family}");
    }
}

/// Where a pod is: index of its node, its name there.
type Places = BTreeMap<String, (usize, Name)>;

fn replay(case: &Case, family: u8, nodes: &mut [Node; 2]) -> usize {
    let placement = Placement::of(case, 2, Cni::Ptp).unwrap();
    let mut cluster = Cluster::new(case, placement, family).unwrap();
    let mut cells = 0;
    for step in &case.steps {
        cluster.apply(step).unwrap();
        let objects = objects(&cluster);
        let mut index = Index::default();
        for object in &objects {
            index.apply(object.clone());
        }
        for node in nodes.iter_mut() {
            node.reset(&objects);
            node.update();
        }
        let places = places(&objects);
        for probe in step
            .probes
            .iter()
            .filter(|probe| probe.family == family || probe.family == 4)
        {
            let traffic = match probe.protocol {
                probe::Protocol::Tcp => Traffic::Port(Protocol::Tcp, probe.port),
                probe::Protocol::Udp => Traffic::Port(Protocol::Udp, probe.port),
                probe::Protocol::Sctp => Traffic::Port(Protocol::Sctp, probe.port),
                probe::Protocol::Icmp => Traffic::Other,
            };
            for (from, row) in &probe.expected {
                for (to, expected) in row {
                    let Some(ends) = ends(&cluster, family, from, to) else {
                        continue;
                    };
                    let cell = format!("{} {from} -> {to} {traffic} IPv{family}", case.name);
                    let answer = reference(&index, family, [from, to], ends, traffic);
                    // Some policies name blocks of IPv4; what they leave of IPv6 only the reference knows.
                    if family == 4 {
                        assert_eq!(answer, *expected, "the reference: {cell}");
                    }
                    check(nodes, &places, [from, to], ends, traffic, answer, &cell);
                    if let Some(service) = cluster.service_address(to, family) {
                        by_service(
                            nodes,
                            &places,
                            [from, to],
                            (ends, service),
                            traffic,
                            answer,
                            &cell,
                        );
                    }
                    cells += 1;
                }
            }
        }
    }
    cells
}

/// The addresses of two names in the family; an external one is what its name says.
fn ends(cluster: &Cluster, family: u8, from: &str, to: &str) -> Option<[IpAddr; 2]> {
    let address = |name: &str| match name.parse::<IpAddr>() {
        Ok(external) => (external.is_ipv4() == (family == 4)).then_some(external),
        Err(_) => cluster.pod_address(name, family),
    };
    Some([address(from)?, address(to)?])
}

fn objects(cluster: &Cluster) -> Vec<Object> {
    let documents = cluster.objects();
    let converted = documents.iter().flat_map(|document| {
        let converted = palisade::source::convert::convert(document).unwrap();
        assert!(converted.refused.is_empty(), "{:?}", converted.issues);
        converted.objects
    });
    converted
        .filter_map(palisade::source::Object::into_model)
        .collect()
}

fn places(objects: &[Object]) -> Places {
    let mut places = Places::new();
    for object in objects {
        if let Object::Pod(pod) = object {
            let node = usize::from(pod.node.as_deref() == Some("node2"));
            places.insert(pod.name.to_string(), (node, pod.name.clone()));
        }
    }
    places
}

fn reference(
    index: &Index,
    family: u8,
    [from, to]: [&String; 2],
    ends: [IpAddr; 2],
    traffic: Traffic,
) -> bool {
    let endpoint = |name: &str, address| match name.split_once('/') {
        Some((namespace, name)) => Endpoint::Pod(Name::new(namespace, name)),
        None => Endpoint::Address(address),
    };
    let question = Question {
        from: endpoint(from, ends[0]),
        to: endpoint(to, ends[1]),
        traffic,
        family: Some(if family == 4 { Family::V4 } else { Family::V6 }),
    };
    evaluate(index, &question).unwrap().allowed()
}

/// A packet of the cell goes its whole way, and its answer back.
fn check(
    nodes: &[Node; 2],
    places: &Places,
    [from, to]: [&String; 2],
    [source, destination]: [IpAddr; 2],
    traffic: Traffic,
    expected: bool,
    cell: &str,
) {
    let (sender, receiver) = (places.get(from), places.get(to));
    let sent = nodes[0].packet(source, destination, traffic);
    let packet = sent.packet();
    let together = matches!((sender, receiver), (Some((a, _)), Some((b, _))) if a == b);
    let mut passes = true;
    if let Some((node, name)) = sender {
        passes &= nodes[*node].from_pod(name, &packet);
        // A node's exit says the same of what was allowed as addressed.
        if !together && passes {
            passes &= nodes[*node].leaves(name, State::Expected, &sent, None, &packet);
        }
    }
    if let (true, Some((node, name))) = (passes, receiver) {
        passes &= match sender {
            Some((_, sender)) if together => {
                nodes[*node].leaves(sender, State::Opening, &sent, Some(name), &packet)
            }
            _ => nodes[*node].from_outside(name, &packet),
        };
    }
    assert_eq!(passes, expected, "the programs: {cell}");
    if passes {
        answered(nodes, (sender, receiver), &sent, &sent, cell);
    }
}

/// The answer to `backend` reaches the sender under the address of `asked`.
fn answered(
    nodes: &[Node; 2],
    (sender, receiver): (Option<&(usize, Name)>, Option<&(usize, Name)>),
    asked: &Sent,
    backend: &Sent,
    cell: &str,
) {
    if let Some((node, name)) = receiver {
        let passes = nodes[*node].from_pod(name, &backend.answer());
        assert!(passes, "the answer out: {cell}");
    }
    if let Some((node, name)) = sender {
        let answer = asked.answer();
        let passes = match receiver {
            Some((other, receiver)) if other == node && receiver != name => {
                nodes[*node].leaves(receiver, State::Reply, backend, Some(name), &answer)
            }
            Some((_, receiver)) if receiver == name => true,
            _ => nodes[*node].from_outside(name, &answer),
        };
        assert!(passes, "the answer in: {cell}");
    }
}

/// The same cell by the address of a Service: it leaves undecided and is judged where the backend is known.
fn by_service(
    nodes: &[Node; 2],
    places: &Places,
    [from, to]: [&String; 2],
    ([source, destination], service): ([IpAddr; 2], IpAddr),
    traffic: Traffic,
    expected: bool,
    cell: &str,
) {
    let (Some((node, name)), Some((other, receiver))) = (places.get(from), places.get(to)) else {
        return;
    };
    let sent = nodes[0].packet(source, service, traffic);
    let translated = sent.to(destination);
    let packet = translated.packet();
    assert!(
        nodes[*node].from_pod(name, &sent.packet()),
        "undecided: {cell}"
    );
    let state = State::Undecided;
    let passes = if node == other {
        nodes[*node].leaves(name, state, &sent, Some(receiver), &packet)
    } else {
        nodes[*node].leaves(name, state, &sent, None, &packet)
            && nodes[*other].from_outside(receiver, &packet)
    };
    assert_eq!(passes, expected, "by its Service: {cell}");
    if passes && name != receiver {
        let ends = (places.get(from), places.get(to));
        answered(nodes, ends, &sent, &translated, cell);
    }
}

/// Changes of each random cluster.
const STEPS: usize = 12;

#[test]
fn the_programs_equal_the_reference_after_every_change_of_random_clusters() {
    if skip_without_root() {
        return;
    }
    let mut node = Node::new(NODE, Rig::new());
    let mut asked = 0;
    for seed in 0..12 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut world = World::random(&mut rng);
        node.reset(&world.objects());
        for step in 0..STEPS {
            node.update();
            asked += compare(&node, &world.index(), &format!("seed {seed}, step {step}"));
            for event in world.step(&mut rng) {
                event.tell(&mut node.compiler);
            }
        }
    }
    println!("{asked} verdicts");
    assert!(asked > 100_000);
}

/// Holds the verdict of every local pod with every address against the reference.
fn compare(node: &Node, index: &Index, context: &str) -> usize {
    let mut asked = 0;
    let pods = node.compiler.compiled().pods.clone();
    for (name, local) in pods {
        let pod = index.pod(&name).expect("a compiled pod is known");
        for own in &local.addresses {
            let peers = addresses()
                .into_iter()
                .filter(|peer| peer.is_ipv4() == own.is_ipv4() && !local.addresses.contains(peer));
            for peer in peers {
                for traffic in traffic() {
                    let expected = |direction| {
                        palisade_policy::evaluate::allows(index, pod, direction, peer, traffic)
                    };
                    let inward = node.packet(peer, *own, traffic);
                    let passes = node.from_outside(&name, &inward.packet());
                    let cell = format!("{name} with {peer} on {traffic}: {context}");
                    assert_eq!(passes, expected(Direction::Ingress), "ingress of {cell}");
                    let outward = node.packet(*own, peer, traffic);
                    let packet = outward.packet();
                    let mut passes = node.from_pod(&name, &packet);
                    if node.compiler.compiled().services.contains(&peer) {
                        assert!(passes, "undecided: {cell}");
                        passes = node.leaves(&name, State::Undecided, &outward, None, &packet);
                    }
                    assert_eq!(passes, expected(Direction::Egress), "egress of {cell}");
                    asked += 2;
                }
            }
        }
    }
    asked
}
