//! Services that lead nowhere.

use std::collections::BTreeMap;

use crate::{
    evaluate::rules,
    explain::ports,
    model::{Key, Name, NamedPort, Service, ServicePort, TargetPort},
    population::{Crowd, Population},
    service::port_at,
    table::{Direction, Traffic},
};

use super::{Finding, nearest, problem::Problem};

pub(super) fn check(
    population: &Population<'_>,
    declared: &BTreeMap<Name, Vec<NamedPort>>,
    findings: &mut Vec<Finding>,
) {
    for service in population.index.services() {
        let Some(selector) = &service.selector else {
            continue;
        };
        let mut add = |field: String, problem| {
            findings.push(Finding {
                object: Key::Service(service.name.clone()),
                field,
                problem,
            });
        };
        let crowds: Vec<_> = population
            .selected(&service.name.namespace, selector)
            .collect();
        if crowds.is_empty() {
            if !leads_to_nodes(population, service) {
                let crowds = population.crowds_of(&service.name.namespace).iter();
                let all = crowds.map(|crowd| (&crowd.group.labels, &crowd.pods[0].name));
                let nearest = nearest::label(selector, all);
                add(
                    "spec.selector".to_owned(),
                    Problem::ServiceSelectsNothing(nearest),
                );
            }
            continue;
        }
        for (at, port) in service.ports.iter().enumerate() {
            if let Some(problem) = problem(port, &crowds, declared) {
                add(format!("spec.ports[{at}]"), problem);
            }
        }
    }
}

/// Whether it selects pods of the host network, which policies do not see.
fn leads_to_nodes(population: &Population<'_>, service: &Service) -> bool {
    crate::service::backends(population.index, service)
        .next()
        .is_some()
}

fn problem(
    port: &ServicePort,
    crowds: &[&Crowd<'_>],
    declared: &BTreeMap<Name, Vec<NamedPort>>,
) -> Option<Problem> {
    let protocol = port.protocol;
    let at = |crowd: &Crowd<'_>| port_at(crowd.pods[0], protocol, &port.target);
    let targets: Vec<_> = crowds
        .iter()
        .filter_map(|crowd| Some((*crowd, at(crowd)?)))
        .collect();
    if let (TargetPort::Named(name), []) = (&port.target, &targets[..]) {
        let all = crowds.iter().flat_map(|crowd| {
            let ports = crowd.group.ports.iter();
            let ports = ports.filter(|it| it.protocol == protocol);
            ports.map(|it| (&*it.name, &crowd.pods[0].name))
        });
        return Some(Problem::UnknownTargetPort {
            name: name.clone(),
            protocol,
            nearest: nearest::name(name, all),
        });
    }
    let open = |(crowd, number): &(&Crowd<'_>, u16)| {
        let policies = crowd.isolating(Direction::Ingress);
        let mut rules = policies
            .iter()
            .flat_map(|policy| rules(policy, Direction::Ingress).unwrap_or_default());
        let traffic = Traffic::Port(protocol, *number);
        policies.is_empty()
            || rules.any(|rule| ports(&rule.ports, Some(crowd.pods[0])).0.allows(traffic))
    };
    let (_, number) = *targets.first()?;
    if !targets.iter().any(open) {
        return Some(Problem::TargetPortNotAllowed {
            port: number,
            protocol,
        });
    }
    // What declares nothing may listen anywhere.
    let mut all = crowds
        .iter()
        .flat_map(|crowd| &crowd.pods)
        .map(|pod| declared.get(&pod.name).map_or(&[][..], Vec::as_slice));
    let known = |ports: &[NamedPort]| {
        let mut ports = ports.iter();
        ports.any(|it| (it.port, it.protocol) == (number, protocol))
    };
    let undeclared = all.all(|ports| !ports.is_empty() && !known(ports));
    undeclared.then_some(Problem::UndeclaredTargetPort {
        port: number,
        protocol,
    })
}
