//! Mutated objects: whatever they hold, conversion neither panics nor lets a policy vanish.

use serde_json::{Value, json};

use super::super::*;

/// Xorshift; a fixed seed, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("less than sides")
    }

    fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.roll(among.len())]
    }
}

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
    for _ in 0..40_000 {
        let mut document = dice.pick(&whole).clone();
        for _ in 0..=dice.roll(4) {
            mutate(&mut document, &mut dice, &scraps);
        }
        let is_policy =
            document["kind"] == "NetworkPolicy" && document["apiVersion"] == "networking.k8s.io/v1";
        match convert(&document) {
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
