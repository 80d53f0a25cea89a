//! Policies from recorded flows, a service map or a template, in the words of users. For `palisade generate`.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use palisade_policy::{
    generate::{Actor, Actors, Link, Numbers, Options, Party},
    index::Index,
    model::{Name, Operator, Protocol, Requirement, Selector, is_system},
    service::is_dns,
    simulate::End,
    table::Traffic,
};

use crate::{
    explain::{Nodes, is_node_of},
    objects::Objects,
    recorded::{Connection, Record},
};

pub mod manifest;
pub mod map;
pub mod template;

/// What policies are to be made of.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// What is to pass.
    pub links: Vec<Link>,
    /// What was recorded and cannot be said in a policy, each with the reason.
    pub left_out: Vec<String>,
}

/// What was seen to pass.
#[must_use]
pub fn recorded(record: &Record, objects: &Objects) -> Wanted {
    let cast = Cast::new(objects);
    let mut wanted = Wanted::default();
    let passed = record
        .connections
        .iter()
        .filter(|(_, seen)| seen.passed > 0);
    for (connection, _) in passed {
        match cast.link(connection) {
            Ok(link) => wanted.links.extend(link),
            Err(reason) => wanted.left_out.push(format!("{connection}: {reason}")),
        }
    }
    wanted
}

/// Options for these links: policies for the namespaces that are named, or else for all that have a part in them and are
/// not the cluster's own.
#[must_use]
pub fn options(links: &[Link], objects: &Objects, namespaces: &[String], dns: bool) -> Options {
    let ends = links.iter().flat_map(|link| [&link.from, &link.to]);
    let taking_part = ends.filter_map(|end| match end {
        Party::Actor(actor) => Some(actor.namespace.clone()),
        Party::Block(_) => None,
    });
    let namespaces: BTreeSet<Arc<str>> = match namespaces.is_empty() {
        true => taking_part.filter(|it| !is_system(it)).collect(),
        false => namespaces.iter().map(|it| it.as_str().into()).collect(),
    };
    Options {
        dns: if dns {
            Cast::new(objects).dns()
        } else {
            Vec::new()
        },
        namespaces,
        default_deny: true,
    }
}

/// Who is who among the objects.
pub(crate) struct Cast<'a> {
    objects: &'a Objects,
    index: Index,
    nodes: Nodes,
    actors: Actors,
}

impl<'a> Cast<'a> {
    pub(crate) fn new(objects: &'a Objects) -> Self {
        let index = objects.index();
        Self {
            objects,
            nodes: objects.nodes(),
            actors: Actors::of(&index),
            index,
        }
    }

    /// The actors of all pods that a name means.
    pub(crate) fn named(&self, name: &Name) -> BTreeSet<Actor> {
        let pods = self.objects.pods_named(name);
        pods.iter().filter_map(|pod| self.actor(pod)).collect()
    }

    fn actor(&self, pod: &Name) -> Option<Actor> {
        self.actors
            .actor(&self.index, pod, &self.objects.workload(pod))
    }

    /// What a connection asks for; nothing, where no policy could forbid it.
    fn link(&self, connection: &Connection) -> Result<Option<Link>, String> {
        let Connection { from, to, traffic } = connection;
        let Traffic::Port(protocol, port) = *traffic else {
            return Err("a policy cannot name that protocol".to_owned());
        };
        let own_node = |address: &End, pod: &End| match (address, pod) {
            (End::Address(address), End::Pod(pod)) => {
                is_node_of(&self.index, &self.nodes, *address, pod)
            }
            _ => false,
        };
        if own_node(from, to) || own_node(to, from) {
            return Ok(None);
        }
        Ok(Some(Link {
            from: self.party(from)?,
            to: self.party(to)?,
            ports: [(protocol, port)].into(),
        }))
    }

    fn party(&self, end: &End) -> Result<Party, String> {
        let block = |address| Party::Block(IpNet::from(address));
        let name = match end {
            End::Address(address) => return Ok(block(*address)),
            End::Pod(name) => name,
        };
        if let Some(actor) = self.actor(name) {
            return Ok(Party::Actor(actor));
        }
        // On the host's network it is its node, and has finished or not is no matter of policies.
        let pod = self.index.pod(name).filter(|pod| pod.host_network);
        let address = pod.and_then(|pod| pod.addresses.first().copied());
        address
            .map(block)
            .ok_or_else(|| format!("{name} is no pod that policies can speak of"))
    }

    /// The cluster's DNS servers, and where they listen; kubeadm's where none is known.
    fn dns(&self) -> Vec<(Party, Numbers)> {
        let pods = self.index.pods().filter(|pod| is_dns(&pod.group.labels));
        let mut servers: Vec<_> = pods
            .filter_map(|pod| {
                let named = pod
                    .group
                    .ports
                    .iter()
                    .filter(|port| port.name.contains("dns"));
                let named = named.map(|port| (port.protocol, port.port));
                let ports: Numbers = named.chain(DNS_PORTS).collect();
                Some((Party::Actor(self.actor(&pod.name)?), ports))
            })
            .collect();
        servers.sort();
        servers.dedup_by(|one, other| one.0 == other.0);
        if servers.is_empty() {
            servers.push((Party::Actor(kube_dns()), DNS_PORTS.into()));
        }
        servers
    }
}

const DNS_PORTS: [(Protocol, u16); 2] = [(Protocol::Udp, 53), (Protocol::Tcp, 53)];

/// The DNS servers as kubeadm and most providers label them.
fn kube_dns() -> Actor {
    Actor {
        namespace: "kube-system".into(),
        selector: labelled(&[("k8s-app", "kube-dns")]),
        name: "kube-dns".into(),
    }
}

/// The selector of these labels.
fn labelled(labels: &[(&str, &str)]) -> Selector {
    let requirement = |&(key, value): &(&str, &str)| Requirement {
        key: key.into(),
        operator: Operator::In(vec![value.into()]),
    };
    Selector::new(labels.iter().map(requirement).collect())
}

#[cfg(test)]
mod tests;
