//! Objects with random changes: whatever they hold, conversion neither panics nor takes long, lets no policy vanish, and
//! opens no pod.

use palisade::source::{
    Issue,
    convert::{Converted, convert},
};
use palisade_policy::{
    evaluate::allows,
    index::Index,
    model::{Name, Object, Policy, Protocol},
    table::{Direction, Traffic},
};
use serde_json::{Value, json};

use crate::dice::{Dice, in_time};

/// The node on which the pods of [`around`] are.
pub const NODE: &str = "n";

/// Changes an object as the bytes decide, and converts it.
///
/// # Panics
/// Where that may not be.
pub fn run(bytes: &[u8]) {
    let mut dice = Dice::Bytes(bytes);
    let changes = Changes::new();
    if dice.roll(2) == 0 {
        changes.of_any(&mut dice);
    } else {
        Opening::new().try_one(&changes, &mut dice);
    }
}

/// What objects are made of.
pub struct Changes {
    scraps: Vec<Value>,
    whole: [Value; 5],
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}

impl Changes {
    /// The same every time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scraps: scraps(),
            whole: whole(),
        }
    }

    /// Changes an object of any kind in some places; returns how many problems were found in it.
    ///
    /// # Panics
    /// Where its conversion takes long, tells too much, or lets a policy vanish.
    pub fn of_any(&self, dice: &mut Dice<'_>) -> usize {
        let mut document = dice.pick(&self.whole).clone();
        for _ in 0..=dice.roll(4) {
            mutate(&mut document, dice, &self.scraps);
        }
        let is_policy =
            document["kind"] == "NetworkPolicy" && document["apiVersion"] == "networking.k8s.io/v1";
        match in_time(&document, || convert(&document)) {
            Ok(converted) => {
                for issue in &converted.issues {
                    assert!(issue.problem.to_string().len() < 700, "{issue}");
                }
                assert!(!is_policy || converted.objects.len() == 1, "{document}");
                converted.issues.len()
            }
            Err(unidentified) => {
                assert!(!unidentified.to_string().is_empty());
                0
            }
        }
    }
}

/// What became of a policy that was changed in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is none, or right.
    Readable,
    /// Part of it cannot be read, and it allows what it allowed.
    Flawed,
    /// Part of it cannot be read, and it allows less.
    Narrowed,
}

/// A pod under a policy, and whom it meets.
pub struct Opening {
    index: Index,
    policy: Value,
    /// The answers under the whole policy.
    before: Vec<bool>,
}

impl Default for Opening {
    fn default() -> Self {
        Self::new()
    }
}

impl Opening {
    /// The pod under the whole policy.
    ///
    /// # Panics
    /// Never: the policy is right, and allows some and not all.
    #[must_use]
    pub fn new() -> Self {
        let mut index = Index::default();
        for object in around() {
            index.apply(object);
        }
        let [policy, ..] = whole();
        let mut opening = Self {
            index,
            policy,
            before: Vec::new(),
        };
        let (issues, before) = opening.under(&opening.policy.clone()).expect("a policy");
        assert!(issues.is_empty() && before.contains(&true) && before.contains(&false));
        Self { before, ..opening }
    }

    /// Changes the policy in one place.
    ///
    /// # Panics
    /// Where what cannot be read of it allows something that the whole does not.
    pub fn try_one(&mut self, changes: &Changes, dice: &mut Dice<'_>) -> Changed {
        let mut document = self.policy.clone();
        mutate(&mut document["spec"], dice, &changes.scraps);
        let Some((issues, now)) = self.under(&document) else {
            return Changed::Readable;
        };
        if issues.is_empty() {
            return Changed::Readable;
        }
        let opened = now
            .iter()
            .zip(&self.before)
            .any(|(now, before)| *now && !before);
        assert!(!opened, "{issues:?}: {document}");
        if now == self.before {
            Changed::Flawed
        } else {
            Changed::Narrowed
        }
    }

    /// Who reaches whom under this policy, and what is wrong with it.
    fn under(&mut self, document: &Value) -> Option<(Vec<Issue>, Vec<bool>)> {
        let Converted {
            objects, issues, ..
        } = convert(document).ok()?;
        let object = objects.into_iter().next()?.into_model()?;
        let Object::Policy(policy) = object else {
            return None;
        };
        // It stands in for the whole one, whatever it is called.
        let name = Name::new("x", "n");
        self.index.apply(Object::Policy(Policy { name, ..policy }));
        Some((issues, answers(&self.index)))
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
fn mutate(value: &mut Value, dice: &mut Dice<'_>, scraps: &[Value]) {
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
///
/// # Panics
/// Never: they are right.
#[must_use]
pub fn around() -> Vec<Object> {
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
        .filter_map(palisade::source::Object::into_model)
        .collect()
}

/// Some rolls of the dice.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let rolls = |seed: u8| (0..40).map(move |place: u8| seed.wrapping_mul(place ^ 0x5a));
    (1..=64).map(|seed| rolls(seed).collect()).collect()
}
