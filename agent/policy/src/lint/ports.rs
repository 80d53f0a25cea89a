//! Names of ports that nobody has.

use crate::{
    evaluate::rules,
    model::{Key, Peer, Peers, Policy, PortNumber, Ports, Rule},
    population::{Crowd, Population},
    table::Direction,
};

use super::{Finding, nearest, problem::Problem};

pub(super) fn check(population: &Population<'_>, findings: &mut Vec<Finding>) {
    for policy in population.index.policies() {
        for direction in [Direction::Ingress, Direction::Egress] {
            let rules = rules(policy, direction)
                .unwrap_or_default()
                .iter()
                .enumerate();
            for (at, rule) in rules {
                let Ports::Of(ports) = &rule.ports else {
                    continue;
                };
                for (place, port) in ports.iter().enumerate() {
                    let PortNumber::Named(name) = &port.number else {
                        continue;
                    };
                    let destinations = destinations(population, policy, direction, rule);
                    let named = |crowd: &&Crowd<'_>| {
                        let mut ports = crowd.group.ports.iter();
                        ports.any(|it| it.name == *name && it.protocol == port.protocol)
                    };
                    // Where there are none a selector is to blame.
                    if destinations.is_empty() || destinations.iter().any(named) {
                        continue;
                    }
                    let all = destinations.iter().flat_map(|crowd| {
                        let ports = crowd.group.ports.iter();
                        let ports = ports.filter(|it| it.protocol == port.protocol);
                        ports.map(|it| (&*it.name, &crowd.pods[0].name))
                    });
                    findings.push(Finding {
                        object: Key::Policy(policy.name.clone()),
                        field: format!("spec.{direction}[{at}].ports[{place}]"),
                        problem: Problem::UnknownPortName {
                            name: name.clone(),
                            protocol: port.protocol,
                            nearest: nearest::name(name, all),
                        },
                    });
                }
            }
        }
    }
}

/// Whose ports a rule's names are.
fn destinations<'b, 'a>(
    population: &'b Population<'a>,
    policy: &'b Policy,
    direction: Direction,
    rule: &'b Rule,
) -> Vec<&'b Crowd<'a>> {
    if direction == Direction::Ingress {
        return population
            .selected(&policy.name.namespace, &policy.selector)
            .collect();
    }
    let Peers::Of(peers) = &rule.peers else {
        return population.crowds().iter().collect();
    };
    let each = peers.iter().flat_map(|peer| match peer {
        Peer::Pods { namespaces, pods } => population
            .peers(policy, namespaces.as_ref(), pods)
            .collect(),
        Peer::Block(block) => {
            let crowds = population.crowds().iter();
            let inside = |crowd: &&Crowd<'_>| {
                let mut pods = crowd.pods.iter();
                pods.any(|pod| pod.addresses.iter().any(|address| block.contains(address)))
            };
            crowds.filter(inside).collect::<Vec<_>>()
        }
    });
    each.collect()
}
