use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::lab::{Cni, both};

fn all() -> Vec<Case> {
    let cases = Corpus::ALL.iter().map(|corpus| corpus.cases().unwrap());
    cases.flatten().collect()
}

fn placed(case: &Case, family: u8) -> Cluster {
    let placement = Placement::of(case, 2, Cni::Ptp).unwrap();
    Cluster::new(case, placement, family).unwrap()
}

#[test]
fn every_case_is_read() {
    let counts = Corpus::ALL.map(|corpus| {
        let cases = corpus.cases().unwrap();
        let probes = cases
            .iter()
            .flat_map(|case| &case.steps)
            .flat_map(|step| &step.probes);
        let cells = probes
            .clone()
            .flat_map(|probe| probe.expected.values())
            .map(|row| row.len());
        (cases.len(), probes.count(), cells.sum::<usize>())
    });
    assert_eq!(
        counts,
        [(96, 130, 5186), (230, 1521, 109_956), (18, 26, 548)]
    );
}

#[test]
fn matrices_speak_of_what_is_there() {
    for case in all() {
        let mut cluster = placed(&case, 4);
        for step in &case.steps {
            cluster.apply(step).unwrap();
            for probe in &step.probes {
                let columns = probe.expected.values().flat_map(|row| row.keys());
                for name in probe.expected.keys().chain(columns) {
                    let pod = cluster.pod_address(name, 4).is_some();
                    let mut externals = case.topology.externals.iter();
                    let external = externals.any(|external| external.ip.to_string() == *name);
                    assert!(pod || external, "{}: {name}", case.name);
                }
            }
        }
    }
}

#[test]
fn what_a_suite_states_is_what_is_expected() {
    let mut stated = 0;
    for case in all() {
        for probe in case.steps.iter().flat_map(|step| &step.probes) {
            if probe.stated.is_empty() {
                continue;
            }
            for (from, row) in &probe.expected {
                for (to, expected) in row {
                    let mut says = probe.stated.iter().filter_map(|one| one.says(from, to));
                    assert_eq!(
                        says.next_back().unwrap_or(true),
                        *expected,
                        "{}: {from} -> {to}",
                        case.name
                    );
                    stated += 1;
                }
            }
        }
    }
    assert!(stated > 4000, "{stated}");
}

/// Every string that stands for an address block in the cluster's policies.
fn blocks(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "cidr" => found.push(text.clone()),
                    Value::Array(list) if key == "except" => {
                        found.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    value => blocks(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| blocks(value, found)),
        _ => {}
    }
}

#[test]
fn addresses_take_the_place_of_names_in_either_family() {
    let mut lengths: [BTreeSet<String>; 2] = Default::default();
    for case in all() {
        for (number, family) in [4, 6].into_iter().enumerate() {
            let mut cluster = placed(&case, family);
            for step in &case.steps {
                cluster.apply(step).unwrap();
                let mut found = Vec::new();
                cluster
                    .objects()
                    .iter()
                    .for_each(|object| blocks(object, &mut found));
                for block in found {
                    assert!(
                        block.parse::<ipnet::IpNet>().is_ok(),
                        "{}: {block}",
                        case.name
                    );
                    let length = block.split_once('/').map(|(_, length)| length.to_owned());
                    lengths[number].extend(length);
                }
            }
        }
    }
    // 0.0.0.0/0 and 0.0.0.0/31 are written out.
    assert_eq!(
        lengths[0],
        ["0", "24", "28", "31", "32", "4"].map(str::to_owned).into()
    );
    assert_eq!(
        lengths[1],
        ["0", "120", "124", "128", "31", "4"]
            .map(str::to_owned)
            .into()
    );
}

#[test]
fn a_spread_case_keeps_the_addresses_its_policies_need() {
    for case in Corpus::Cyclonus.cases().unwrap() {
        let cluster = placed(&case, 4);
        for pod in &case.topology.pods {
            assert_eq!(cluster.pod_address(&pod.full_name(), 4), pod.ip);
        }
    }
    for case in all() {
        let plan = Placement::of(&case, 2, Cni::Ptp).unwrap().plan();
        let placement = Placement::of(&case, 2, Cni::Ptp).unwrap();
        let nodes: BTreeSet<_> = case
            .topology
            .pods
            .iter()
            .map(|pod| placement.place(pod).unwrap().node)
            .collect();
        assert_eq!(
            nodes.len(),
            2.min(case.topology.pods.len()),
            "{}",
            case.name
        );
        let mut ranges: Vec<_> = plan.nodes.iter().flat_map(|node| &node.ranges).collect();
        ranges.sort();
        assert!(
            ranges.windows(2).all(|pair| pair[0] != pair[1]),
            "{}",
            case.name
        );
    }
}

#[test]
fn objects_are_those_of_the_step() {
    let cases = Corpus::Cyclonus.cases().unwrap();
    let case = cases
        .iter()
        .find(|case| case.name.contains("Create/delete namespace"))
        .unwrap();
    let mut cluster = placed(case, 4);
    let mut counts = Vec::new();
    for step in &case.steps {
        cluster.apply(step).unwrap();
        let objects = cluster.objects();
        let of = |kind: &str| {
            objects
                .iter()
                .filter(|object| object["kind"] == kind)
                .count()
        };
        counts.push(["Node", "Namespace", "Pod", "Service", "NetworkPolicy"].map(of));
    }
    assert_eq!(
        counts,
        [[2, 3, 9, 9, 1], [2, 4, 11, 11, 1], [2, 3, 9, 9, 1]]
    );
    assert_eq!(cluster.objects_without_services().len(), 2 + 3 + 9 + 1);
    let services = cluster.services();
    assert_eq!(services.len(), 9);
    assert_eq!(services[0].ports.len(), 6);
    assert_eq!(services[0].addresses, both([10, 96, 0, 1].into()));
    assert_eq!(services[0].ports[0].backends.len(), 2, "one of each family");
    let pod = cluster
        .objects()
        .into_iter()
        .find(|object| object["kind"] == "Pod")
        .unwrap();
    assert_eq!(pod["spec"]["nodeName"], "node1");
    assert_eq!(pod["status"]["podIPs"][1]["ip"], "fd00:10:244:1::f8");
    assert_eq!(pod["metadata"]["creationTimestamp"], "2026-01-01T00:00:01Z");
}

#[test]
fn blocks_of_addresses_are_told_from_names() {
    let count = |corpus: Corpus, has: fn(&Case) -> bool| {
        corpus
            .cases()
            .unwrap()
            .iter()
            .filter(|case| has(case))
            .count()
    };
    let counts = [Case::has_blocks, Case::has_literal_blocks]
        .map(|has| Corpus::ALL.map(|corpus| count(corpus, has)));
    assert_eq!(counts, [[6, 46, 0], [0, 8, 0]]);
}
