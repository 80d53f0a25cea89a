//! Pods that may send, but not ask for names: what is forgotten most where egress is isolated.

use std::collections::BTreeMap;

use crate::{
    evaluate::rules,
    explain::ports,
    model::{Key, Name, Peer, Peers, Policy, Protocol, Rule},
    population::{Crowd, Population},
    service::is_dns,
    table::{Direction, Traffic},
};

use super::{Finding, problem::Problem};

/// A question for a name.
const DNS: Traffic = Traffic::Port(Protocol::Udp, 53);

pub(super) fn check(population: &Population<'_>, findings: &mut Vec<Finding>) {
    let crowds = population.crowds().iter();
    let servers: Vec<_> = crowds.filter(|crowd| is_dns(&crowd.group.labels)).collect();
    // Once for each first policy that isolates: the pods that it leaves without.
    let mut without: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    for crowd in population.crowds() {
        let policies = crowd.isolating(Direction::Egress);
        let mut rules = policies.iter().flat_map(|policy| {
            let rules = rules(policy, Direction::Egress).unwrap_or_default();
            rules.iter().map(move |rule| (*policy, rule))
        });
        let sends = rules.clone().next().is_some();
        let asks = rules.any(|(policy, rule)| allows(population, &servers, policy, rule));
        if let (Some(policy), true, false) = (policies.first(), sends, asks) {
            let pods = crowd.pods.iter().map(|pod| &pod.name);
            without.entry(&policy.name).or_default().extend(pods);
        }
    }
    findings.extend(without.into_iter().map(|(policy, pods)| Finding {
        object: Key::Policy(policy.clone()),
        field: "spec.egress".to_owned(),
        problem: Problem::NoDns {
            pod: pods[0].clone(),
            pods: pods.len(),
        },
    }));
}

/// Whether a rule lets questions for names out to a server. A block may be that of a cache on the node; where no server is
/// known, whoever is in another namespace may be one.
fn allows(
    population: &Population<'_>,
    servers: &[&Crowd<'_>],
    policy: &Policy,
    rule: &Rule,
) -> bool {
    let at = |crowd: Option<&Crowd<'_>>| {
        let pod = crowd.map(|crowd| &**crowd.pods[0]);
        // A server may listen elsewhere than its Service.
        let listens = pod.into_iter().flat_map(|pod| &pod.group.ports);
        let listens = listens
            .filter(|port| port.protocol == Protocol::Udp && port.name.contains("dns"))
            .map(|port| Traffic::Port(Protocol::Udp, port.port));
        let (cell, _) = ports(&rule.ports, pod);
        [DNS]
            .into_iter()
            .chain(listens)
            .any(|traffic| cell.allows(traffic))
    };
    let Peers::Of(peers) = &rule.peers else {
        return match servers {
            [] => at(None),
            servers => servers.iter().any(|server| at(Some(server))),
        };
    };
    peers.iter().any(|peer| match peer {
        Peer::Block(_) => at(None),
        Peer::Pods { namespaces, .. } if servers.is_empty() => namespaces.is_some() && at(None),
        Peer::Pods { namespaces, pods } => {
            let mut peers = population.peers(policy, namespaces.as_ref(), pods);
            peers.any(|peer| {
                let server = servers
                    .iter()
                    .find(|server| server.group.id == peer.group.id);
                server.is_some_and(|server| at(Some(server)))
            })
        }
    })
}
