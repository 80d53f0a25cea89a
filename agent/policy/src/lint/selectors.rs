//! Selectors that match nothing.

use crate::{
    evaluate::rules,
    model::{Key, Peer, Peers, Policy, Selector},
    population::Population,
    table::Direction,
};

use super::{Finding, nearest, problem::Problem};

pub(super) fn check(population: &Population<'_>, findings: &mut Vec<Finding>) {
    for policy in population.index.policies() {
        let mut add = |field: String, problem| {
            findings.push(Finding {
                object: Key::Policy(policy.name.clone()),
                field,
                problem,
            });
        };
        let namespace = &policy.name.namespace;
        if population
            .selected(namespace, &policy.selector)
            .next()
            .is_none()
        {
            let crowds = population.crowds_of(namespace).iter();
            let all = crowds.map(|crowd| (&crowd.group.labels, &crowd.pods[0].name));
            let nearest = nearest::label(&policy.selector, all);
            add(
                "spec.podSelector".to_owned(),
                Problem::SelectsNothing(nearest),
            );
        }
        for (direction, ends) in [(Direction::Ingress, "from"), (Direction::Egress, "to")] {
            let rules = rules(policy, direction)
                .unwrap_or_default()
                .iter()
                .enumerate();
            for (at, rule) in rules {
                let Peers::Of(peers) = &rule.peers else {
                    continue;
                };
                for (place, peer) in peers.iter().enumerate() {
                    if let Peer::Pods { namespaces, pods } = peer
                        && let Some((selector, problem)) =
                            missing(population, policy, namespaces.as_ref(), pods)
                    {
                        let field = format!("spec.{direction}[{at}].{ends}[{place}].{selector}");
                        add(field, problem);
                    }
                }
            }
        }
    }
}

/// Why a peer matches nobody, and which of its selectors is to blame.
fn missing(
    population: &Population<'_>,
    policy: &Policy,
    namespaces: Option<&Selector>,
    pods: &Selector,
) -> Option<(&'static str, Problem)> {
    if population.peers(policy, namespaces, pods).next().is_some() {
        return None;
    }
    let index = population.index;
    if let Some(selector) = namespaces
        && !index
            .namespaces()
            .any(|(_, labels)| selector.matches(labels))
    {
        let all = index
            .namespaces()
            .map(|(name, labels)| (labels, format!("namespace {name}")));
        let nearest = nearest::label(selector, all);
        return Some(("namespaceSelector", Problem::NoSuchNamespace(nearest)));
    }
    let everybody = Selector::default();
    let all = population.peers(policy, namespaces, &everybody);
    let all = all.map(|crowd| (&crowd.group.labels, &crowd.pods[0].name));
    let nearest = nearest::label(pods, all);
    Some(("podSelector", Problem::PeerMatchesNothing(nearest)))
}
