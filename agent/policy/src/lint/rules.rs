//! Rules that others swallow. Told from what is written and not from who is there, so that it stays true.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    evaluate::rules,
    explain::ports,
    index::Index,
    model::{
        Block, Key, Mode, Operator, Peer, Peers, Policy, PortNumber, Ports, Requirement, Rule,
        Selector,
    },
    table::Direction,
};

use super::{Finding, problem::Problem};

pub(super) fn check(index: &Index, findings: &mut Vec<Finding>) {
    // A selector covers another only if the other speaks of its first key too, so that few are compared.
    let mut by_first: HashMap<(&str, Option<&str>), Vec<&Arc<Policy>>> = HashMap::new();
    for policy in index.policies() {
        let first = policy.selector.requirements().first();
        let first = first.map(|requirement| &*requirement.key);
        let key = (&*policy.name.namespace, first);
        by_first.entry(key).or_default().push(policy);
    }
    for policy in index.policies() {
        let namespace = &*policy.name.namespace;
        let requirements = policy.selector.requirements().iter();
        let keys: BTreeSet<_> = requirements.map(|requirement| &*requirement.key).collect();
        let wider: Vec<_> = [None]
            .into_iter()
            .chain(keys.into_iter().map(Some))
            .filter_map(|first| by_first.get(&(namespace, first)))
            .flatten()
            .filter(|wider| covers_selector(&wider.selector, &policy.selector))
            // What is staged allows nothing yet.
            .filter(|wider| counts_for(wider, policy))
            .collect();
        for direction in [Direction::Ingress, Direction::Egress] {
            let own = rules(policy, direction).unwrap_or_default();
            for (at, rule) in own.iter().enumerate() {
                // What is wrong with one that could not be read has been said.
                if rule.peers == Peers::Of(Vec::new()) || rule.ports == Ports::Of(Vec::new()) {
                    continue;
                }
                let swallowing = wider.iter().find_map(|other| {
                    let theirs = rules(other, direction).unwrap_or_default();
                    let same = other.name == policy.name;
                    let place = theirs.iter().enumerate().position(|(place, wide)| {
                        let is_it = same && place == at;
                        // Of two that swallow each other the later one is named.
                        let later = (&other.name, place) < (&policy.name, at);
                        let mutual = || {
                            counts_for(policy, other)
                                && covers_selector(&policy.selector, &other.selector)
                                && covers_rule(rule, wide)
                        };
                        !is_it && covers_rule(wide, rule) && (later || !mutual())
                    })?;
                    Some((other.name.clone(), place))
                });
                if let Some((name, place)) = swallowing {
                    findings.push(Finding {
                        object: Key::Policy(policy.name.clone()),
                        field: format!("spec.{direction}[{at}]"),
                        problem: Problem::Swallowed {
                            policy: name,
                            direction,
                            rule: place,
                        },
                    });
                }
            }
        }
    }
}

/// Whether what a policy allows is allowed wherever the other is asked: a staged one is asked beside staged ones alone.
fn counts_for(policy: &Policy, other: &Policy) -> bool {
    policy.mode == Mode::Enforce || other.mode == Mode::Audit
}

/// Whether whoever matches the narrow one matches the wide one.
fn covers_selector(wide: &Selector, narrow: &Selector) -> bool {
    let implied = |one: &Requirement| {
        narrow.requirements().iter().any(|other| {
            other == one
                || (other.key == one.key
                    && match (&one.operator, &other.operator) {
                        (Operator::In(wide), Operator::In(narrow)) => {
                            narrow.iter().all(|value| wide.contains(value))
                        }
                        (Operator::Exists, Operator::In(_)) => true,
                        (Operator::NotIn(wide), Operator::In(narrow)) => {
                            !narrow.iter().any(|value| wide.contains(value))
                        }
                        (Operator::NotIn(_), Operator::DoesNotExist) => true,
                        _ => false,
                    })
        })
    };
    wide.requirements().iter().all(implied)
}

fn covers_rule(wide: &Rule, narrow: &Rule) -> bool {
    covers_peers(&wide.peers, &narrow.peers) && covers_ports(&wide.ports, &narrow.ports)
}

fn covers_peers(wide: &Peers, narrow: &Peers) -> bool {
    match (wide, narrow) {
        (Peers::Any, _) => true,
        (Peers::Of(_), Peers::Any) => false,
        (Peers::Of(wide), Peers::Of(narrow)) => narrow
            .iter()
            .all(|narrow| wide.iter().any(|wide| covers_peer(wide, narrow))),
    }
}

fn covers_peer(wide: &Peer, narrow: &Peer) -> bool {
    match (wide, narrow) {
        (Peer::Block(wide), Peer::Block(narrow)) => covers_block(wide, narrow),
        (
            Peer::Pods {
                namespaces: wide_of,
                pods: wide,
            },
            Peer::Pods {
                namespaces: narrow_of,
                pods: narrow,
            },
        ) => {
            let covers_namespaces = match (wide_of, narrow_of) {
                (None, None) => true,
                (None, Some(_)) => false,
                (Some(wide), None) => wide.requirements().is_empty(),
                (Some(wide), Some(narrow)) => covers_selector(wide, narrow),
            };
            covers_namespaces && covers_selector(wide, narrow)
        }
        _ => false,
    }
}

fn covers_block(wide: &Block, narrow: &Block) -> bool {
    let outside = |hole: &ipnet::IpNet| {
        !hole.contains(&narrow.cidr)
            && (!narrow.cidr.contains(hole) || narrow.except.iter().any(|net| net.contains(hole)))
    };
    wide.cidr.contains(&narrow.cidr) && wide.except.iter().all(outside)
}

fn covers_ports(wide: &Ports, narrow: &Ports) -> bool {
    let (Ports::Of(wide_list), Ports::Of(narrow_list)) = (wide, narrow) else {
        return *wide == Ports::Any;
    };
    // What names come down to is the destination's matter: each has to be there, or every port.
    let names = narrow_list
        .iter()
        .filter(|port| matches!(port.number, PortNumber::Named(_)));
    let mut names = names.filter(|port| {
        let all =
            |it: &&crate::model::Port| it.protocol == port.protocol && it.number == PortNumber::All;
        !wide_list.contains(port) && !wide_list.iter().any(|it| all(&it))
    });
    names.next().is_none() && ports(narrow, None).0.is_subset(&ports(wide, None).0)
}
