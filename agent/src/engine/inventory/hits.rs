//! How often policies decided. The kernel counts packets of pods alone, so what is counted are the flows that it tells of.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::proto::{self, Flow, PolicyName};

/// Rules and policies that are counted; of more the one that decided longest ago goes.
const COUNTED: usize = 10_000;

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    #[serde(flatten)]
    policy: PolicyName,
    verdict: String,
    /// The rule that allowed, as `ingress[0]`; empty of what a policy denied.
    rule: String,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Hits(HashMap<Key, proto::Hits>);

/// One of them, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    hits: proto::Hits,
}

impl Hits {
    /// Those that were written down.
    pub(super) fn read(entries: Vec<Entry>) -> Self {
        let entries = entries.into_iter();
        Self(entries.map(|entry| (entry.key, entry.hits)).collect())
    }

    /// All of them, to be written down.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let each = self.0.iter().map(|(key, hits)| Entry {
            key: key.clone(),
            hits: hits.clone(),
        });
        each.collect()
    }

    /// Counts a flow: allowed for each rule that allows it, denied and audited for each policy without which it would not be.
    /// Whether it could be: the rule of an allowed flow is not always looked for.
    pub(super) fn count(&mut self, flow: &Flow, now: Timestamp) -> bool {
        let Some(namespace) = &flow.pod.namespace else {
            return true;
        };
        let decided: Vec<(&str, &str)> = match flow.verdict.as_str() {
            "allowed" => {
                let rules = flow.rules.iter();
                rules
                    .map(|it| (it.policy.as_str(), it.rule.as_str()))
                    .collect()
            }
            "audited" => flow.audited.iter().map(|it| (it.as_str(), "")).collect(),
            _ => flow.policies.iter().map(|it| (it.as_str(), "")).collect(),
        };
        for (policy, rule) in &decided {
            let policy = PolicyName {
                namespace: namespace.clone(),
                name: (*policy).to_owned(),
            };
            let (verdict, rule) = (flow.verdict.clone(), (*rule).to_owned());
            let key = Key {
                policy,
                verdict,
                rule,
            };
            if self.0.len() >= COUNTED && !self.0.contains_key(&key) {
                self.make_room();
            }
            self.0.entry(key).or_default().add(&proto::Hits {
                flows: 1,
                last: Some(now),
            });
        }
        !decided.is_empty() || flow.policies.is_empty()
    }

    /// How often a rule allowed, or with none the policy denied or would have.
    #[must_use]
    pub fn of(&self, policy: &PolicyName, verdict: &str, rule: &str) -> proto::Hits {
        let key = Key {
            policy: policy.clone(),
            verdict: verdict.to_owned(),
            rule: rule.to_owned(),
        };
        self.0.get(&key).cloned().unwrap_or_default()
    }

    /// Forgets a policy that is gone: another of its name is another.
    pub(super) fn forget(&mut self, namespace: &str, name: &str) {
        self.0
            .retain(|key, _| key.policy.namespace != namespace || key.policy.name != name);
    }

    fn make_room(&mut self) {
        let oldest = self.0.iter().min_by_key(|(_, hits)| hits.last);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.0.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::proto::RuleName, engine::inventory::tests::flow};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn name(policy: &str) -> PolicyName {
        PolicyName {
            namespace: "x".to_owned(),
            name: policy.to_owned(),
        }
    }

    fn allowed(rules: &[&str]) -> Flow {
        let rules = rules.iter().map(|&rule| RuleName {
            policy: "p".to_owned(),
            rule: rule.to_owned(),
        });
        Flow {
            rules: rules.collect(),
            ..flow("allowed", "web", "1", 80)
        }
    }

    #[test]
    fn an_allowed_flow_counts_for_its_rules_and_a_denied_one_for_the_policies_that_isolate() {
        let mut hits = Hits::default();
        assert!(hits.count(&allowed(&["ingress[0]", "ingress[2]"]), at(1)));
        assert!(hits.count(&allowed(&["ingress[2]"]), at(2)));
        assert!(hits.count(&flow("denied", "web", "1", 81), at(3)));
        let of = |verdict, rule| {
            let proto::Hits { flows, last } = hits.of(&name("p"), verdict, rule);
            (flows, last)
        };
        assert_eq!(of("allowed", "ingress[0]"), (1, Some(at(1))));
        assert_eq!(of("allowed", "ingress[1]"), (0, None));
        assert_eq!(of("allowed", "ingress[2]"), (2, Some(at(2))));
        assert_eq!(of("denied", ""), (1, Some(at(3))));
        assert_eq!(of("audited", ""), (0, None));
        assert_eq!(hits.of(&name("q"), "denied", "").flows, 0);
        let written = serde_json::to_string(&hits.entries()).expect("JSON");
        let mut read = Hits::read(serde_json::from_str(&written).expect("entries"));
        assert_eq!(read.of(&name("p"), "allowed", "ingress[2]").flows, 2);
        read.forget("x", "p");
        assert!(read.0.is_empty());
    }

    #[test]
    fn a_flow_whose_rule_was_not_looked_for_is_not_counted_and_said_to_be() {
        let mut hits = Hits::default();
        assert!(!hits.count(&allowed(&[]), at(1)));
        let open = Flow {
            policies: Vec::new(),
            ..allowed(&[])
        };
        assert!(hits.count(&open, at(1)), "nobody isolates it");
        assert!(hits.0.is_empty());
    }

    #[test]
    fn they_are_bounded_in_number() {
        let mut hits = Hits::default();
        for number in 0..=COUNTED {
            let rule = format!("ingress[{number}]");
            hits.count(&allowed(&[&rule]), at(number as i64));
        }
        assert_eq!(hits.0.len(), COUNTED);
        assert_eq!(hits.of(&name("p"), "allowed", "ingress[0]").flows, 0);
        assert_eq!(hits.of(&name("p"), "allowed", "ingress[1]").flows, 1);
    }
}
