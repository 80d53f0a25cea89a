//! Objects in few words. What does not parse panics: these are for literals.

use std::net::IpAddr;

use crate::model::{
    Block, Labels, Mode, Name, NamedPort, Namespace, Operator, Peer, Peers, Pod, Policy, Port,
    PortNumber, Ports, Protocol, Requirement, Rule, Selector,
};

/// The node of [`pod`].
pub const NODE: &str = "here";

/// Labels of `key=value` words.
#[must_use]
pub fn labels(words: &str) -> Labels {
    let pairs = words
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    pairs
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// The selector of `key=value` words.
#[must_use]
pub fn selector(words: &str) -> Selector {
    let requirements = labels(words).into_iter().map(|(key, value)| Requirement {
        key,
        operator: Operator::In(vec![value]),
    });
    Selector::new(requirements.collect())
}

/// A namespace; the label that every namespace has is added.
#[must_use]
pub fn namespace(name: &str, words: &str) -> Namespace {
    let mut labels = labels(words);
    labels.insert("kubernetes.io/metadata.name".into(), name.into());
    Namespace::new(name.into(), labels)
}

/// A running pod on [`NODE`], by `namespace/name`, labels and addresses.
#[must_use]
pub fn pod(name: &str, words: &str, addresses: &[&str]) -> Pod {
    Pod {
        name: self::name(name),
        uid: format!("uid-of-{name}").into(),
        labels: labels(words),
        node: Some(NODE.into()),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        config_hash: None,
        attached: false,
        host_network: false,
        finished: false,
        terminating: false,
        ports: Vec::new(),
        created: 0,
        mode: Mode::Enforce,
    }
}

/// A policy without rules and without directions, by `namespace/name` and the labels it selects.
#[must_use]
pub fn policy(name: &str, selects: &str) -> Policy {
    Policy {
        name: self::name(name),
        selector: selector(selects),
        ingress: None,
        egress: None,
        mode: Mode::Enforce,
    }
}

/// A rule.
#[must_use]
pub fn rule(peers: Peers, ports: Ports) -> Rule {
    Rule { peers, ports }
}

/// Pods of the policy's own namespace.
#[must_use]
pub fn own_pods(words: &str) -> Peer {
    Peer::Pods {
        namespaces: None,
        pods: selector(words),
    }
}

/// Pods of the namespaces with these labels.
#[must_use]
pub fn pods_of(namespaces: &str, words: &str) -> Peer {
    Peer::Pods {
        namespaces: Some(selector(namespaces)),
        pods: selector(words),
    }
}

/// A block and its exceptions.
#[must_use]
pub fn block(cidr: &str, except: &[&str]) -> Peer {
    let net = |text: &str| text.parse().unwrap_or_else(|_| panic!("no prefix: {text}"));
    Peer::Block(Block {
        cidr: net(cidr),
        except: except.iter().map(|text| net(text)).collect(),
    })
}

/// Ports of words like `80/TCP`, `80-90/UDP`, `http/TCP`, `*/SCTP`.
#[must_use]
pub fn ports(words: &str) -> Ports {
    Ports::Of(words.split_whitespace().map(port).collect())
}

fn port(word: &str) -> Port {
    let (number, protocol) = word
        .split_once('/')
        .unwrap_or_else(|| panic!("no port: {word}"));
    let number = match number.split_once('-') {
        _ if number == "*" => PortNumber::All,
        Some((first, last)) if first.parse::<u16>().is_ok() => {
            PortNumber::Range(parse_port(first), parse_port(last))
        }
        _ => match number.parse() {
            Ok(number) => PortNumber::Range(number, number),
            Err(_) => PortNumber::Named(number.into()),
        },
    };
    Port {
        protocol: protocol_of(protocol),
        number,
    }
}

/// Named ports of words like `http=80/TCP`.
#[must_use]
pub fn named_ports(words: &str) -> Vec<NamedPort> {
    let named = words.split_whitespace().map(|word| {
        let (name, port) = word
            .split_once('=')
            .unwrap_or_else(|| panic!("no named port: {word}"));
        let (number, protocol) = port
            .split_once('/')
            .unwrap_or_else(|| panic!("no named port: {word}"));
        NamedPort {
            name: name.into(),
            protocol: protocol_of(protocol),
            port: parse_port(number),
        }
    });
    let mut named: Vec<_> = named.collect();
    named.sort();
    named
}

fn parse_port(text: &str) -> u16 {
    text.parse().unwrap_or_else(|_| panic!("no port: {text}"))
}

fn protocol_of(text: &str) -> Protocol {
    let known = Protocol::ALL
        .into_iter()
        .find(|known| known.to_string() == text);
    known.unwrap_or_else(|| panic!("no protocol: {text}"))
}

/// A name of `namespace/name`.
#[must_use]
pub fn name(text: &str) -> Name {
    let (namespace, name) = text
        .split_once('/')
        .unwrap_or_else(|| panic!("no name: {text}"));
    Name::new(namespace, name)
}

/// An address.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("no address: {text}"))
}
