//! Cases of the corpora, held against the programs.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_common::mark::State;
use palisade_policy::{
    evaluate::{Endpoint, Family, Question, Traffic, evaluate},
    index::Index,
    model::{Name, Object, Protocol},
};

use super::{Node, Sent};
use crate::{
    corpus::{Case, Cluster, Placement},
    lab::Cni,
    probe,
};

/// Where a pod is: index of its node, its name there.
type Places = BTreeMap<String, (usize, Name)>;

/// Takes a case through its steps on nodes called `node1`, `node2` and so on, and holds every cell of every probe
/// against the programs and the reference; returns the number of cells.
///
/// Packets go their whole way, by address and by Service, and so do their answers. Where policies name blocks
/// of IPv4 only the reference knows what they leave of IPv6; of that family the matrix is not asked.
///
/// # Panics
/// Where anything disagrees.
pub fn replay(case: &Case, family: u8, nodes: &mut [Node]) -> usize {
    let placement = Placement::of(case, nodes.len() as u8, Cni::Ptp).expect("a sound case");
    let mut cluster = Cluster::new(case, placement, family).expect("a sound case");
    let mut cells = 0;
    for step in &case.steps {
        cluster.apply(step).expect("a sound case");
        let objects = cluster.model();
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
    evaluate(index, &question).expect("a sound case").allowed()
}

/// A packet of the cell goes its whole way, and its answer back.
fn check(
    nodes: &[Node],
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

/// A pod, and the node it is on.
type Placed = (usize, Name);

/// The answer to `backend` reaches the sender under the address of `asked`.
fn answered(
    nodes: &[Node],
    (sender, receiver): (Option<&Placed>, Option<&Placed>),
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
    nodes: &[Node],
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
