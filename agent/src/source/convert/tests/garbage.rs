//! Mutated objects: whatever they hold, conversion neither panics nor takes long, lets no policy vanish, and opens no pod.
//! `PALISADE_FUZZ_OBJECTS` says how many.

use palisade_policy::{
    evaluate::allows,
    index::Index,
    model::{Name, Object, Protocol},
    table::{Direction, Traffic},
};
use serde_json::{Value, json};

use super::super::*;
use crate::source::dice::{Dice, MOST, count, taken};

fn scraps() -> Vec<Value> {
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(80),
        json!(65536),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("a"),
        json!("TCP"),
        json!("10.0.0.0/8"),
        json!("0.0.0.0/0"),
        json!("::/0"),
        json!("\u{0}\u{202e}é/1"),
        json!("/"),
        json!(":"),
        json!("999999999999999999999"),
        json!("a".repeat(5000)),
        json!([]),
        json!([null]),
        json!({}),
        json!({"": null}),
        json!([[]]),
        json!({"cidr": "::/0"}),
        json!({"matchLabels": {"": ""}}),
        json!({"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}),
        json!("2026-01-01T00:00:00Z"),
        json!("-9999-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:60Z"),
        deep,
    ]
}

fn whole() -> [Value; 5] {
    let metadata = json!({
        "name": "n", "namespace": "x", "uid": "u", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": null,
    });
    [
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": {
            "podSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 80, "endPort": 90}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": "http", "protocol": "UDP"}]}],
        }}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
            "nodeName": "n", "hostNetwork": false,
            "containers": [{"ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}],
            "initContainers": [{"restartPolicy": "Always", "ports": [{"name": "p", "containerPort": 81}]}],
        }, "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": "10.96.0.1", "externalIPs": ["1.2.3.4"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.5"}]}}}),
        json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}},
        ]}),
    ]
}

/// Changes one place, chosen by a walk from the root.
fn mutate(value: &mut Value, dice: &mut Dice, scraps: &[Value]) {
    let stop = dice.roll(4) == 0;
    match value {
        Value::Object(fields) if !stop && !fields.is_empty() => {
            let key = fields
                .keys()
                .nth(dice.roll(fields.len()))
                .expect("within")
                .clone();
            match dice.roll(10) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert(format!("{key}x"), dice.pick(scraps).clone())),
                _ => mutate(fields.get_mut(&key).expect("its key"), dice, scraps),
            }
        }
        Value::Array(items) if !stop && !items.is_empty() => {
            let index = dice.roll(items.len());
            match dice.roll(10) {
                0 => drop(items.remove(index)),
                1 => items.insert(index, dice.pick(scraps).clone()),
                _ => mutate(&mut items[index], dice, scraps),
            }
        }
        _ => *value = dice.pick(scraps).clone(),
    }
}

#[test]
fn mutated_objects_never_panic_and_policies_never_vanish() {
    let (mut dice, scraps, whole) = (Dice(0x9e37_79b9_7f4a_7c15), scraps(), whole());
    let mut flawed = 0;
    for _ in 0..count(40_000) {
        let mut document = dice.pick(&whole).clone();
        for _ in 0..=dice.roll(4) {
            mutate(&mut document, &mut dice, &scraps);
        }
        let is_policy =
            document["kind"] == "NetworkPolicy" && document["apiVersion"] == "networking.k8s.io/v1";
        let begun = taken();
        let converted = convert(&document);
        let took = taken() - begun;
        assert!(took < MOST, "{took:?}: {document}");
        match converted {
            Ok(converted) => {
                flawed += usize::from(!converted.issues.is_empty());
                for issue in &converted.issues {
                    assert!(issue.problem.to_string().len() < 700, "{issue}");
                }
                assert!(!is_policy || converted.objects.len() == 1, "{document}");
            }
            Err(unidentified) => assert!(!unidentified.to_string().is_empty()),
        }
    }
    assert!(flawed > 1000, "the mutations reach the readers: {flawed}");
}

/// Who asks the pod for what, in which direction: every answer, in one order.
fn answers(index: &Index) -> Vec<bool> {
    let pod = index.pod(&Name::new("x", "n")).expect("the pod");
    let peers = [
        "10.0.0.7",
        "10.0.0.8",
        "10.0.0.9",
        "10.1.0.1",
        "192.0.2.1",
        "fd00::7",
    ];
    let peers = peers.map(|peer| peer.parse().expect("an address"));
    let ports = [0, 79, 80, 85, 90, 91, 443, 65_535];
    let traffic = ports.iter().flat_map(|&port| {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        protocols.map(|protocol| Traffic::Port(protocol, port))
    });
    let traffic: Vec<_> = traffic.chain([Traffic::Other]).collect();
    let mut answers = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        for &peer in &peers {
            for &traffic in &traffic {
                answers.push(allows(index, pod, direction, peer, traffic));
            }
        }
    }
    answers
}

/// A pod that the policy selects, and others; one of another namespace.
fn around() -> Vec<Object> {
    let pod = |name: &str, namespace: &str, ip: &str, labels: Value| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
            "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 80, "protocol": "UDP"}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]}})
    };
    let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let documents = [
        namespace("x", json!({"a": "b"})),
        namespace("y", json!({})),
        pod("n", "x", "10.0.0.1", json!({"a": "b", "k": "v"})),
        pod("like", "x", "10.0.0.7", json!({"a": "b", "k": "v"})),
        pod("unlike", "x", "10.0.0.8", json!({})),
        pod("far", "y", "10.0.0.9", json!({"a": "b"})),
    ];
    let objects = documents.iter().flat_map(|document| {
        let converted = convert(document).expect("whole");
        assert_eq!(converted.issues, [], "{document}");
        converted.objects
    });
    objects
        .filter_map(crate::source::Object::into_model)
        .collect()
}

#[test]
fn what_cannot_be_read_of_a_policy_opens_no_pod() {
    let (mut dice, scraps, [policy, ..]) = (Dice(0x0dd0_b0de_5eed_0001), scraps(), whole());
    let mut index = Index::default();
    for object in around() {
        index.apply(object);
    }
    let with = |index: &mut Index, document: &Value| {
        let converted = convert(document).ok()?;
        let Converted {
            objects, issues, ..
        } = converted;
        let object = objects.into_iter().next()?.into_model()?;
        let Object::Policy(policy) = object else {
            return None;
        };
        // It stands in for the whole one, whatever it is called.
        let policy = palisade_policy::model::Policy {
            name: Name::new("x", "n"),
            ..policy
        };
        index.apply(Object::Policy(policy));
        Some((issues, answers(index)))
    };
    let (issues, whole) = with(&mut index, &policy).expect("a policy");
    assert!(issues.is_empty() && whole.contains(&true) && whole.contains(&false));
    let (mut flawed, mut narrowed) = (0, 0);
    for _ in 0..count(6000) {
        let mut document = policy.clone();
        mutate(&mut document["spec"], &mut dice, &scraps);
        let Some((issues, now)) = with(&mut index, &document) else {
            continue;
        };
        if issues.is_empty() {
            continue;
        }
        flawed += 1;
        narrowed += usize::from(now != whole);
        let opened = now.iter().zip(&whole).any(|(now, whole)| *now && !whole);
        assert!(!opened, "{issues:?}: {document}");
    }
    println!("{flawed} flawed, {narrowed} of them allow less");
    assert!(flawed > 500 && narrowed > 100, "{flawed} {narrowed}");
}
