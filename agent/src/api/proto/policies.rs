//! Policies and how often they decided.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PolicyName, Span};

/// The policies as an agent knows them, or many do: the answer to `GET /v1/policies`, and `palisade policies -o json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policies {
    /// By namespace and name.
    pub policies: Vec<Policy>,
    /// Over which time each agent has counted.
    pub spans: Vec<Span>,
    /// Nodes that did not answer, and why.
    pub unavailable: BTreeMap<String, String>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Its name.
    #[serde(flatten)]
    pub name: PolicyName,
    /// How many pods it selects on the nodes that were asked.
    pub pods: u64,
    /// In which directions it isolates them: `ingress`, `egress`.
    pub isolates: Vec<String>,
    /// Whether it is in audit by itself.
    pub audit: bool,
    /// Its rules, those of ingress first.
    pub rules: Vec<PolicyRule>,
    /// The flows that it denied, as one of those that isolate the pod.
    pub denied: Hits,
    /// Those that it would have denied but for audit.
    pub audited: Hits,
    /// What is wrong with it, or probably not meant.
    pub warnings: Vec<String>,
}

/// A rule, and who its peers are at present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// Its place, as `ingress[0]`.
    pub rule: String,
    /// It names no peers: it is for everybody.
    pub everybody: bool,
    /// How many pods of the cluster its selectors match.
    pub peers: u64,
    /// Its blocks, with their exceptions.
    pub blocks: Vec<String>,
    /// The flows that it allowed; null where no agent that was asked is told of allowed flows.
    pub allowed: Option<Hits>,
}

/// How often something decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hits {
    /// Flows that were told of; of others nothing is known.
    pub flows: u64,
    /// When the last was.
    pub last: Option<Timestamp>,
}

impl Hits {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.last = self.last.max(other.last);
    }
}

impl Policies {
    /// Adds what others say of the same cluster.
    pub fn merge(&mut self, other: Self) {
        let all = std::mem::take(&mut self.policies);
        let mut all: BTreeMap<_, _> = all.into_iter().map(|it| (it.name.clone(), it)).collect();
        for policy in other.policies {
            match all.get_mut(&policy.name) {
                Some(known) => known.add(policy),
                None => drop(all.insert(policy.name.clone(), policy)),
            }
        }
        self.policies = all.into_values().collect();
        self.spans.extend(other.spans);
        self.unavailable.extend(other.unavailable);
    }
}

impl Policy {
    /// Adds what another agent says of it. Both know the same objects, but for what is under way.
    fn add(&mut self, other: Self) {
        self.pods += other.pods;
        self.denied.add(&other.denied);
        self.audited.add(&other.audited);
        for rule in other.rules {
            match self.rules.iter_mut().find(|known| known.rule == rule.rule) {
                None => self.rules.push(rule),
                Some(known) => {
                    known.peers = known.peers.max(rule.peers);
                    match (&mut known.allowed, rule.allowed) {
                        (Some(known), Some(other)) => known.add(&other),
                        (known @ None, other) => *known = other,
                        (Some(_), None) => {}
                    }
                }
            }
        }
        for warning in other.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(node: &str, pods: u64, allowed: Option<u64>) -> Policies {
        let at = |second| Timestamp::from_second(second).ok();
        let hits = |flows| Hits {
            flows,
            last: at(flows as i64),
        };
        Policies {
            policies: vec![Policy {
                name: PolicyName {
                    namespace: "x".to_owned(),
                    name: "p".to_owned(),
                },
                pods,
                isolates: vec!["ingress".to_owned()],
                audit: false,
                rules: vec![PolicyRule {
                    rule: "ingress[0]".to_owned(),
                    everybody: false,
                    peers: 4,
                    blocks: Vec::new(),
                    allowed: allowed.map(hits),
                }],
                denied: hits(1),
                audited: Hits::default(),
                warnings: vec!["of all".to_owned(), format!("of {node}")],
            }],
            ..Policies::default()
        }
    }

    #[test]
    fn what_agents_counted_is_added_and_what_they_know_alike_is_not() {
        let mut all = of("a", 2, None);
        all.merge(of("b", 3, Some(5)));
        all.merge(of("c", 0, Some(7)));
        let [policy] = all.policies.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!((policy.pods, policy.rules[0].peers), (5, 4));
        let allowed = policy.rules[0].allowed.as_ref().expect("known");
        assert_eq!(
            (allowed.flows, allowed.last),
            (12, Timestamp::from_second(7).ok())
        );
        assert_eq!(policy.denied.flows, 3);
        assert_eq!(policy.warnings, ["of all", "of a", "of b", "of c"]);
    }
}
