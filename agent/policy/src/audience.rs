//! Whom policies are for at present: the pods that they select, and who the peers of their rules are.

use std::sync::Arc;

use crate::{
    evaluate::rules,
    index::{Index, Pod},
    model::{Block, Peer, Peers, Policy, Rule},
    population::Population,
    table::Direction,
};

/// Whom a policy is for.
#[derive(Clone, Debug)]
pub struct Audience<'a> {
    /// The policy.
    pub policy: &'a Arc<Policy>,
    /// The pods that it selects, by name.
    pub pods: Vec<&'a Arc<Pod>>,
    /// Its rules, those of ingress first.
    pub rules: Vec<RuleAudience<'a>>,
}

/// Who the peers of a rule are.
#[derive(Clone, Debug)]
pub struct RuleAudience<'a> {
    /// The direction.
    pub direction: Direction,
    /// Its place in the policy's list.
    pub rule: usize,
    /// It has no peers: it is for everybody.
    pub everybody: bool,
    /// How many pods its selectors match.
    pub pods: usize,
    /// Its blocks.
    pub blocks: Vec<&'a Block>,
}

/// Every policy, by name.
#[must_use]
pub fn audiences(index: &Index) -> Vec<Audience<'_>> {
    let population = Population::of(index);
    let of = |policy| of_policy(&population, policy);
    index.policies().map(of).collect()
}

fn of_policy<'a>(population: &Population<'a>, policy: &'a Arc<Policy>) -> Audience<'a> {
    let mut pods: Vec<_> = population
        .selected(&policy.name.namespace, &policy.selector)
        .flat_map(|crowd| crowd.pods.iter().copied())
        .collect();
    pods.sort_by(|one, other| one.name.cmp(&other.name));
    let rules = [Direction::Ingress, Direction::Egress]
        .into_iter()
        .flat_map(|direction| {
            let listed = rules(policy, direction).unwrap_or_default();
            let numbered = listed.iter().enumerate();
            numbered.map(move |(at, rule)| (direction, at, rule))
        })
        .map(|(direction, at, rule)| of_rule(population, policy, direction, at, rule));
    Audience {
        policy,
        pods,
        rules: rules.collect(),
    }
}

fn of_rule<'a>(
    population: &Population<'_>,
    policy: &Policy,
    direction: Direction,
    at: usize,
    rule: &'a Rule,
) -> RuleAudience<'a> {
    let peers: &[Peer] = match &rule.peers {
        Peers::Any => &[],
        Peers::Of(peers) => peers,
    };
    // Several peers may match the same pods.
    let mut crowds: Vec<_> = peers
        .iter()
        .filter_map(|peer| match peer {
            Peer::Pods { namespaces, pods } => {
                Some(population.peers(policy, namespaces.as_ref(), pods))
            }
            Peer::Block(_) => None,
        })
        .flatten()
        .map(|crowd| (crowd.group.id, crowd.pods.len()))
        .collect();
    crowds.sort_unstable();
    crowds.dedup();
    RuleAudience {
        direction,
        rule: at,
        everybody: rule.peers == Peers::Any,
        pods: crowds.iter().map(|(_, pods)| pods).sum(),
        blocks: peers
            .iter()
            .filter_map(|peer| match peer {
                Peer::Block(block) => Some(block),
                Peer::Pods { .. } => None,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Object, Ports},
        testing::{block, namespace, pod, policy, rule, selector},
    };

    #[test]
    fn each_pod_counts_once_however_many_peers_match_it() {
        let mut index = Index::default();
        index.apply(Object::Namespace(namespace("x", "")));
        for (name, labels) in [("a", "app=a"), ("b", "app=b"), ("c", "app=b")] {
            let name = format!("x/{name}");
            index.apply(Object::Pod(pod(&name, labels, &[])));
        }
        let pods = |labels: &str| Peer::Pods {
            namespaces: None,
            pods: selector(labels),
        };
        let mut one = policy("x/p", "app=b");
        one.ingress = Some(vec![
            rule(
                Peers::Of(vec![pods("app=b"), pods(""), block("10.0.0.0/8", &[])]),
                Ports::Any,
            ),
            rule(Peers::Any, Ports::Any),
        ]);
        one.egress = Some(vec![rule(Peers::Of(vec![pods("app=z")]), Ports::Any)]);
        index.apply(Object::Policy(one));
        let all = audiences(&index);
        let [audience] = all.as_slice() else {
            panic!("{all:?}");
        };
        let names: Vec<_> = audience.pods.iter().map(|pod| &*pod.name.name).collect();
        assert_eq!(names, ["b", "c"]);
        let rules: Vec<_> = audience
            .rules
            .iter()
            .map(|it| {
                (
                    it.direction,
                    it.rule,
                    it.everybody,
                    it.pods,
                    it.blocks.len(),
                )
            })
            .collect();
        let (ingress, egress) = (Direction::Ingress, Direction::Egress);
        assert_eq!(
            rules,
            [
                (ingress, 0, false, 3, 1),
                (ingress, 1, true, 0, 0),
                (egress, 0, false, 0, 0),
            ]
        );
    }
}
