//! Objects at random, from small universes of names, labels, ports and addresses.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{NODE, Rng, address};
use crate::{
    model::{
        Block, Labels, Mode, Name, NamedPort, Namespace, Operator, Peer, Peers, Pod, Policy, Port,
        PortNumber, Ports, Protocol, Requirement, Rule, Selector, Service,
    },
    table::Traffic,
};

pub(super) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
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

pub(super) fn name(rng: &mut Rng) -> Name {
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

/// The `number`th pod ever.
pub(super) fn pod(rng: &mut Rng, number: usize) -> Pod {
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
        uid: format!("{number:04}").into(),
        labels: labels(rng),
        node: [Some(NODE), Some(NODE), Some(NODE), Some("there"), None][rng.below(5)]
            .map(Into::into),
        addresses,
        config_hash: None,
        attached: rng.percent(10),
        host_network: rng.percent(5),
        finished: rng.percent(5),
        terminating: rng.percent(12),
        ports,
        created: rng.below(4) as i64,
        mode: mode(rng, 15),
    }
}

pub(super) fn namespace(rng: &mut Rng, name: &str) -> Namespace {
    let mut labels = labels(rng);
    labels.insert("kubernetes.io/metadata.name".into(), name.into());
    Namespace {
        name: name.into(),
        labels,
        mode: mode(rng, 10),
        pod_modes: rng.percent(30),
        mode_until: None,
    }
}

fn mode(rng: &mut Rng, percent: usize) -> Mode {
    if rng.percent(percent) {
        Mode::Audit
    } else {
        Mode::Enforce
    }
}

pub(super) fn service(rng: &mut Rng) -> Service {
    Service {
        name: name(rng),
        addresses: (0..rng.below(3))
            .map(|_| address(rng.pick(&["10.96.0.1", "10.96.0.2", "fd00:96::1", "10.0.0.4"])))
            .collect(),
        selector: None,
        ports: Vec::new(),
    }
}

pub(super) fn policy(rng: &mut Rng) -> Policy {
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
        mode: mode(rng, 15),
    }
}

pub(super) fn rule(rng: &mut Rng) -> Rule {
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
    let keys = match rng.below(10) {
        0..3 => Vec::new(),
        3..6 => return super::selector("app=1"),
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
