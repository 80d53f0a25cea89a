//! Policies that allow what is asked for and nothing else.
//!
//! A policy is made for each actor: pods of a namespace with the same stable labels. It has all that the actor may send
//! and be sent, names included, so that each can be applied alone and none waits for another; the policies that deny the
//! rest of a namespace come last. Applied in their order, no prefix of them cuts what is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ipnet::IpNet;

use crate::model::{
    Block, Mode, Name, Operator, Peer, Peers, Policy, Port, PortNumber, Ports, Protocol,
    Requirement, Rule, Selector,
};

pub use self::actors::{Actors, is_stable};

mod actors;

/// Ports by number; none means all of them.
pub type Numbers = BTreeSet<(Protocol, u16)>;

/// Pods that policies speak of as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Actor {
    /// Their namespace.
    pub namespace: Arc<str>,
    /// Their labels.
    pub selector: Selector,
    /// What users call them.
    pub name: Arc<str>,
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// Pods.
    Actor(Actor),
    /// Addresses.
    Block(IpNet),
}

/// What is to pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Who sends.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// At which ports.
    pub ports: Numbers,
}

/// What is to be said beside links.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The DNS servers that whoever sends may ask, and at which ports.
    pub dns: Vec<(Party, Numbers)>,
    /// Namespaces that get policies; actors of others are peers alone.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Whether the rest of those namespaces is denied.
    pub default_deny: bool,
}

/// A policy, and why it is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The policy.
    pub policy: Policy,
    /// A line for each thing that it allows, or one that says what it is for.
    pub reasons: Vec<String>,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Actor(actor) => write!(f, "{}/{}", actor.namespace, actor.name),
            Self::Block(net) => net.fmt(f),
        }
    }
}

/// The policies, in the order in which they are safe to apply.
#[must_use]
pub fn generate(links: &[Link], options: &Options) -> Vec<Generated> {
    let mut subjects: BTreeMap<&Actor, Subject<'_>> = BTreeMap::new();
    let subject = |party: &'_ Party| match party {
        Party::Actor(actor) => options.namespaces.contains(&actor.namespace),
        Party::Block(_) => false,
    };
    for link in links {
        if let Party::Actor(actor) = &link.to
            && subject(&link.to)
        {
            let subject = subjects.entry(actor).or_default();
            subject.from.add(&link.from, &link.ports);
        }
        if let Party::Actor(actor) = &link.from
            && subject(&link.from)
        {
            let subject = subjects.entry(actor).or_default();
            subject.to.add(&link.to, &link.ports);
        }
    }
    let mut taken = BTreeSet::new();
    let mut generated = Vec::new();
    for (actor, mut subject) in subjects {
        // Who sends nothing has no names to ask for.
        if !subject.to.0.is_empty() {
            for (server, ports) in &options.dns {
                subject.to.add(server, ports);
            }
        }
        generated.push(subject.policy(actor, &mut taken));
    }
    if options.default_deny {
        let each = options.namespaces.iter();
        generated.extend(each.map(|namespace| default_deny(namespace, &mut taken)));
    }
    generated
}

fn default_deny(namespace: &Arc<str>, taken: &mut BTreeSet<Name>) -> Generated {
    Generated {
        policy: Policy {
            name: free(namespace, "default-deny", taken),
            selector: Selector::default(),
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
            mode: Mode::Enforce,
        },
        reasons: vec!["denies what no other policy allows; to be applied after those".to_owned()],
    }
}

/// A name that no other policy has.
fn free(namespace: &Arc<str>, wanted: &str, taken: &mut BTreeSet<Name>) -> Name {
    let mut name = Name::new(namespace.clone(), wanted);
    let mut number = 1;
    while !taken.insert(name.clone()) {
        number += 1;
        name = Name::new(namespace.clone(), format!("{wanted}-{number}"));
    }
    name
}

/// What an actor may be sent and send.
#[derive(Default)]
struct Subject<'a> {
    from: Peerings<'a>,
    to: Peerings<'a>,
}

/// The ports for each other end.
#[derive(Default)]
struct Peerings<'a>(BTreeMap<&'a Party, Numbers>);

impl Subject<'_> {
    fn policy(&self, actor: &Actor, taken: &mut BTreeSet<Name>) -> Generated {
        let Self { from, to } = self;
        let sent = from.reasons(|from, ports| format!("{from} may send to it at {ports}"));
        let sends = to.reasons(|to, ports| format!("it may send to {to} at {ports}"));
        Generated {
            policy: Policy {
                name: free(&actor.namespace, &actor.name, taken),
                selector: actor.selector.clone(),
                ingress: Some(from.rules(&actor.namespace)),
                egress: Some(to.rules(&actor.namespace)),
                mode: Mode::Enforce,
            },
            reasons: sent.chain(sends).collect(),
        }
    }
}

impl<'a> Peerings<'a> {
    fn add(&mut self, party: &'a Party, ports: &Numbers) {
        match self.0.get_mut(party) {
            None => {
                self.0.insert(party, ports.clone());
            }
            Some(known) if known.is_empty() || ports.is_empty() => known.clear(),
            Some(known) => known.extend(ports),
        }
    }

    /// A rule for each set of ports, with everybody who has it.
    fn rules(&self, namespace: &Arc<str>) -> Vec<Rule> {
        let mut by_ports: BTreeMap<_, Vec<Peer>> = BTreeMap::new();
        for (party, ports) in &self.0 {
            let peers = by_ports.entry(ports).or_default();
            peers.push(peer(party, namespace));
        }
        let rule = |(ports, peers): (&Numbers, _)| Rule {
            peers: Peers::Of(peers),
            ports: of_numbers(ports),
        };
        by_ports.into_iter().map(rule).collect()
    }

    fn reasons(&self, text: impl Fn(&Party, &str) -> String) -> impl Iterator<Item = String> {
        self.0.iter().map(move |(party, ports)| {
            let numbers = ports
                .iter()
                .map(|(protocol, port)| format!("{port}/{protocol}"));
            let numbers: Vec<_> = numbers.collect();
            match numbers.is_empty() {
                true => text(party, "every port"),
                false => text(party, &numbers.join(", ")),
            }
        })
    }
}

fn peer(party: &Party, namespace: &Arc<str>) -> Peer {
    match party {
        Party::Block(net) => Peer::Block(Block {
            cidr: net.trunc(),
            except: Vec::new(),
        }),
        Party::Actor(actor) => Peer::Pods {
            namespaces: (actor.namespace != *namespace).then(|| of_namespace(&actor.namespace)),
            pods: actor.selector.clone(),
        },
    }
}

/// The namespace of that name alone.
fn of_namespace(name: &Arc<str>) -> Selector {
    Selector::new(vec![Requirement {
        key: "kubernetes.io/metadata.name".into(),
        operator: Operator::In(vec![name.clone()]),
    }])
}

fn of_numbers(ports: &Numbers) -> Ports {
    if ports.is_empty() {
        return Ports::Any;
    }
    let port = |&(protocol, port)| Port {
        protocol,
        number: PortNumber::Range(port, port),
    };
    Ports::Of(ports.iter().map(port).collect())
}

#[cfg(test)]
mod tests;
