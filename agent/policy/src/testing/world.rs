//! Clusters at random, and what happens to them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{NODE, Rng, address};
use crate::{
    compile::Compiler,
    index::Index,
    model::{
        Block, Key, Labels, Name, NamedPort, Namespace, Object, Objects, Operator, Peer, Peers,
        Pod, Policy, Port, PortNumber, Ports, Protocol, Requirement, Rule, Selector, Service,
    },
    table::Traffic,
};

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object came or changed.
    Apply(Object),
    /// An object went.
    Delete(Key),
    /// A relist found these.
    Reset(Objects),
}

impl Event {
    /// Tells the compiler.
    pub fn tell(self, compiler: &mut Compiler) {
        match self {
            Self::Apply(object) => compiler.apply(object),
            Self::Delete(key) => compiler.delete(&key),
            Self::Reset(objects) => compiler.reset(objects),
        }
    }
}

/// A cluster, as the API server would have it.
#[derive(Clone, Debug, Default)]
pub struct World {
    objects: BTreeMap<Key, Object>,
    /// Pods ever made.
    made: usize,
}

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const KEYS: [&str; 3] = ["app", "tier", "team"];
const VALUES: [&str; 3] = ["1", "2", ""];
const PORT_NAMES: [&str; 3] = ["http", "dns", "metrics"];
const PORTS: [u16; 8] = [0, 53, 80, 81, 443, 8080, 65_534, 65_535];
const V4: [&str; 8] = [
    "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9", "10.0.1.1", "10.1.0.1",
];
const V6: [&str; 6] = [
    "fd00::",
    "fd00::1",
    "fd00::2",
    "fd00::ffff",
    "fd00:1::1",
    "::ffff:10.0.0.1",
];
const BLOCKS: [&str; 24] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/24",
    "10.0.0.0/29",
    "10.0.0.0/30",
    "10.0.0.0/31",
    "10.0.0.2/31",
    "10.0.0.1/32",
    "10.0.0.9/32",
    "10.0.1.0/24",
    "192.0.2.0/24",
    "192.0.2.128/25",
    "255.255.255.255/32",
    "::/0",
    "::ffff:0:0/96",
    "fd00::/8",
    "fd00::/64",
    "fd00::/127",
    "fd00::2/128",
    "fd00:1::/32",
    "2001:db8::/32",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
];

impl World {
    /// A cluster of this seed, grown by some steps.
    pub fn random(rng: &mut Rng) -> Self {
        let mut world = Self::default();
        for name in NAMESPACES {
            if rng.percent(90) {
                world.put(Object::Namespace(namespace(rng, name)));
            }
        }
        for _ in 0..3 + rng.below(12) {
            let pod = world.pod(rng);
            world.put(Object::Pod(pod));
        }
        for _ in 0..rng.below(7) {
            world.put(Object::Policy(policy(rng)));
        }
        world
    }

    /// The objects, in no particular order of kinds.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        self.objects.values().cloned().collect()
    }

    /// An index of the present objects.
    #[must_use]
    pub fn index(&self) -> Index {
        let mut index = Index::default();
        for object in self.objects() {
            index.apply(object);
        }
        index
    }

    /// A few things happen.
    pub fn step(&mut self, rng: &mut Rng) -> Vec<Event> {
        let most = if rng.percent(25) { 16 } else { 3 };
        (0..=rng.below(most)).map(|_| self.event(rng)).collect()
    }

    fn event(&mut self, rng: &mut Rng) -> Event {
        match rng.below(100) {
            0..12 => {
                let name = rng.pick(&NAMESPACES);
                self.apply(Object::Namespace(namespace(rng, name)))
            }
            12..16 => self.delete_some(rng, |key| matches!(key, Key::Namespace(_))),
            16..32 => {
                let pod = self.pod(rng);
                self.apply(Object::Pod(pod))
            }
            32..52 => self.change_pod(rng),
            52..60 => self.delete_some(rng, |key| matches!(key, Key::Pod(_))),
            60..75 => self.apply(Object::Policy(policy(rng))),
            75..85 => self.edit_policy(rng),
            85..92 => self.delete_some(rng, |key| matches!(key, Key::Policy(_))),
            92..97 => self.apply(Object::Service(service(rng))),
            _ => self.relist(rng),
        }
    }

    fn put(&mut self, object: Object) {
        self.objects.insert(object.key(), object);
    }

    fn apply(&mut self, object: Object) -> Event {
        self.put(object.clone());
        Event::Apply(object)
    }

    fn delete_some(&mut self, rng: &mut Rng, kind: impl Fn(&Key) -> bool) -> Event {
        let keys: Vec<_> = self
            .objects
            .keys()
            .filter(|key| kind(key))
            .cloned()
            .collect();
        // Now and then one that is not there: a watch may tell of what was never seen.
        let key = if keys.is_empty() || rng.percent(5) {
            Key::Pod(name(rng))
        } else {
            rng.pick(&keys)
        };
        self.objects.remove(&key);
        Event::Delete(key)
    }

    /// Something of a pod changes, as little as one field.
    fn change_pod(&mut self, rng: &mut Rng) -> Event {
        let pods = self.objects.values().filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        });
        let pods: Vec<_> = pods.cloned().collect();
        if pods.is_empty() {
            let pod = self.pod(rng);
            return self.apply(Object::Pod(pod));
        }
        let mut pod = rng.pick(&pods);
        let other = self.pod(rng);
        match rng.below(8) {
            0 | 1 => pod.labels = other.labels,
            2 => pod.addresses = other.addresses,
            3 => pod.terminating = true,
            4 => pod.finished = true,
            5 => pod.ports = other.ports,
            6 => pod.addresses.clear(),
            _ => {
                // Recreated under its old name.
                let name = pod.name;
                pod = other;
                pod.name = name;
            }
        }
        self.apply(Object::Pod(pod))
    }

    fn edit_policy(&mut self, rng: &mut Rng) -> Event {
        let policies = self.objects.values().filter_map(|object| match object {
            Object::Policy(policy) => Some(policy),
            _ => None,
        });
        let policies: Vec<_> = policies.cloned().collect();
        let mut policy = policy(rng);
        if !policies.is_empty() {
            let mut old = rng.pick(&policies);
            match rng.below(4) {
                0 => old.selector = policy.selector,
                1 => old.ingress = policy.ingress,
                2 => old.egress = policy.egress,
                _ => {
                    let rules = [&mut old.ingress, &mut old.egress];
                    for rules in rules.into_iter().flatten() {
                        if rng.percent(50) {
                            rules.push(rule(rng));
                        } else {
                            rules.pop();
                        }
                    }
                }
            }
            policy = old;
        }
        self.apply(Object::Policy(policy))
    }

    /// A watch that was lost finds some objects gone and some changed.
    fn relist(&mut self, rng: &mut Rng) -> Event {
        let kind = rng.below(4);
        let lost: Vec<_> = self
            .objects
            .keys()
            .filter(|key| {
                let same = match key {
                    Key::Namespace(_) => kind == 0,
                    Key::Pod(_) => kind == 1,
                    Key::Policy(_) => kind == 2,
                    Key::Service(_) => kind == 3,
                };
                same && rng.percent(20)
            })
            .cloned()
            .collect();
        for key in lost {
            self.objects.remove(&key);
        }
        match kind {
            0 => {}
            1 => {
                let pod = self.pod(rng);
                self.put(Object::Pod(pod));
            }
            2 => self.put(Object::Policy(policy(rng))),
            _ => self.put(Object::Service(service(rng))),
        }
        let objects = self.objects.values().cloned();
        Event::Reset(match kind {
            0 => Objects::Namespaces(
                objects
                    .filter_map(|object| match object {
                        Object::Namespace(namespace) => Some(namespace),
                        _ => None,
                    })
                    .collect(),
            ),
            1 => Objects::Pods(
                objects
                    .filter_map(|object| match object {
                        Object::Pod(pod) => Some(pod),
                        _ => None,
                    })
                    .collect(),
            ),
            2 => Objects::Policies(
                objects
                    .filter_map(|object| match object {
                        Object::Policy(policy) => Some(policy),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => Objects::Services(
                objects
                    .filter_map(|object| match object {
                        Object::Service(service) => Some(service),
                        _ => None,
                    })
                    .collect(),
            ),
        })
    }

    fn pod(&mut self, rng: &mut Rng) -> Pod {
        self.made += 1;
        let mut addresses = Vec::new();
        if rng.percent(90) {
            addresses.push(address(rng.pick(&V4)));
        }
        if rng.percent(50) {
            addresses.push(address(rng.pick(&V6)));
        }
        let mut ports: Vec<_> = (0..rng.below(4).saturating_sub(1))
            .map(|_| NamedPort {
                name: (rng.pick(&PORT_NAMES)).into(),
                protocol: protocol(rng),
                port: rng.pick(&PORTS),
            })
            .collect();
        ports.sort();
        ports.dedup();
        Pod {
            name: name(rng),
            uid: format!("{:04}", self.made).into(),
            labels: labels(rng),
            node: [Some(NODE), Some(NODE), Some("there"), None][rng.below(4)].map(Into::into),
            addresses,
            host_network: rng.percent(8),
            finished: rng.percent(8),
            terminating: rng.percent(12),
            ports,
            created: rng.below(4) as i64,
        }
    }
}

/// Every address that could tell two states apart: those of pods, the edges of blocks, and strangers.
#[must_use]
pub fn addresses() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = V4.iter().chain(&V6).map(|text| address(text)).collect();
    for block in blocks() {
        all.extend([block.network(), block.broadcast()]);
    }
    for stranger in [
        "203.0.113.7",
        "192.0.2.1",
        "9.255.255.255",
        "fe80::1",
        "2002::1",
    ] {
        all.push(address(stranger));
    }
    all.sort();
    all.dedup();
    all
}

/// Traffic that could tell two states apart.
#[must_use]
pub fn traffic() -> Vec<Traffic> {
    let mut all = vec![Traffic::Other];
    for protocol in Protocol::ALL {
        for port in PORTS {
            all.push(Traffic::Port(protocol, port));
        }
    }
    all
}

fn blocks() -> Vec<IpNet> {
    let nets = BLOCKS.iter().filter_map(|text| text.parse().ok());
    nets.collect()
}

fn name(rng: &mut Rng) -> Name {
    Name::new(rng.pick(&NAMESPACES), rng.pick(&NAMES))
}

fn protocol(rng: &mut Rng) -> Protocol {
    rng.pick(&Protocol::ALL)
}

fn labels(rng: &mut Rng) -> Labels {
    // Often the same, so that pods share groups.
    if rng.percent(40) {
        return [("app".into(), "1".into())].into();
    }
    let keys = rng.some(&KEYS, 60).into_iter();
    keys.map(|key| (key.into(), (rng.pick(&VALUES)).into()))
        .collect()
}

fn namespace(rng: &mut Rng, name: &str) -> Namespace {
    let mut labels = labels(rng);
    labels.insert("kubernetes.io/metadata.name".into(), name.into());
    Namespace {
        name: name.into(),
        labels,
    }
}

fn service(rng: &mut Rng) -> Service {
    Service {
        name: name(rng),
        addresses: (0..rng.below(3))
            .map(|_| address(rng.pick(&["10.96.0.1", "10.96.0.2", "fd00:96::1", "10.0.0.4"])))
            .collect(),
    }
}

fn policy(rng: &mut Rng) -> Policy {
    let mut rules = |percent| {
        rng.percent(percent)
            .then(|| (0..rng.below(4)).map(|_| rule(rng)).collect())
    };
    let (ingress, egress) = (rules(75), rules(60));
    Policy {
        name: name(rng),
        selector: selector(rng),
        ingress,
        egress,
    }
}

fn rule(rng: &mut Rng) -> Rule {
    Rule {
        peers: match rng.below(10) {
            0 | 1 => Peers::Any,
            _ => Peers::Of((0..rng.below(4)).map(|_| peer(rng)).collect()),
        },
        ports: match rng.below(10) {
            0..3 => Ports::Any,
            _ => Ports::Of((0..rng.below(4)).map(|_| port(rng)).collect()),
        },
    }
}

fn peer(rng: &mut Rng) -> Peer {
    if rng.percent(50) {
        return Peer::Pods {
            namespaces: rng.percent(60).then(|| namespace_selector(rng)),
            pods: selector(rng),
        };
    }
    let blocks = blocks();
    let cidr = rng.pick(&blocks);
    let inner: Vec<_> = blocks
        .into_iter()
        .filter(|net| cidr.contains(net))
        .collect();
    Peer::Block(Block {
        cidr,
        except: match rng.below(3) {
            0 => Vec::new(),
            _ => rng.some(&inner, 20),
        },
    })
}

fn port(rng: &mut Rng) -> Port {
    Port {
        protocol: protocol(rng),
        number: match rng.below(10) {
            0 => PortNumber::All,
            1..6 => {
                let number = rng.pick(&PORTS);
                PortNumber::Range(number, number)
            }
            6 => PortNumber::Range(rng.pick(&PORTS), rng.pick(&PORTS)),
            _ => PortNumber::Named((rng.pick(&PORT_NAMES)).into()),
        },
    }
}

fn selector(rng: &mut Rng) -> Selector {
    let keys = match rng.below(4) {
        0 => Vec::new(),
        _ => rng.some(&KEYS, 40),
    };
    Selector::new(
        keys.into_iter()
            .map(|key| Requirement {
                key: key.into(),
                operator: operator(rng),
            })
            .collect(),
    )
}

fn namespace_selector(rng: &mut Rng) -> Selector {
    if rng.percent(30) {
        return Selector::new(vec![Requirement {
            key: "kubernetes.io/metadata.name".into(),
            operator: Operator::In(
                rng.some(&NAMESPACES, 50)
                    .into_iter()
                    .map(Into::into)
                    .collect(),
            ),
        }]);
    }
    selector(rng)
}

fn operator(rng: &mut Rng) -> Operator {
    let values: Vec<Arc<str>> = rng.some(&VALUES, 50).into_iter().map(Into::into).collect();
    match rng.below(6) {
        0..3 => Operator::In(values),
        3 => Operator::NotIn(values),
        4 => Operator::Exists,
        _ => Operator::DoesNotExist,
    }
}
