//! Namespaces in which what nobody spoke of is allowed.

use std::collections::BTreeMap;

use crate::{
    evaluate::rules,
    model::{Key, is_system},
    population::Population,
    table::Direction,
};

use super::{Finding, problem::Problem};

pub(super) fn check(population: &Population<'_>, findings: &mut Vec<Finding>) {
    // Of each namespace: its pods, and those that nothing isolates, by direction.
    let mut namespaces: BTreeMap<_, (usize, [usize; 2])> = BTreeMap::new();
    for crowd in population.crowds() {
        let pods = crowd.pods.len();
        let counted = namespaces.entry(&crowd.group.namespace).or_default();
        counted.0 += pods;
        for (open, direction) in counted.1.iter_mut().zip(DIRECTIONS) {
            if crowd.isolating(direction).is_empty() {
                *open += pods;
            }
        }
    }
    for (namespace, (pods, open)) in namespaces {
        if is_system(namespace) {
            continue;
        }
        for (open, direction) in open.into_iter().zip(DIRECTIONS) {
            let mut policies = population.index.policies_of(namespace);
            let isolates_all = policies.any(|policy| {
                policy.selector.requirements().is_empty() && rules(policy, direction).is_some()
            });
            if !isolates_all {
                findings.push(Finding {
                    object: Key::Namespace(namespace.clone()),
                    field: String::new(),
                    problem: Problem::NoDefaultDeny {
                        direction,
                        open,
                        pods,
                    },
                });
            }
        }
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];
