//! What policies come to at present: whom they select, who their peers are, how often they decided, what is wrong with them.
//!
//! It takes long where there are many: the engine hands out a copy of what it knows, and goes on.

use std::collections::BTreeMap;

use palisade_policy::{
    audience::{Audience, RuleAudience, audiences},
    index::Index,
    lint::lint,
    model::{Block, Key, Mode, Name},
    table::Direction,
};

use crate::{
    api::proto::{Issue, Policies, Policy, PolicyName, PolicyRule, Span},
    engine::inventory::Hits,
};

/// What an agent knows.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The objects.
    pub index: Index,
    /// What is wrong with them.
    pub issues: Vec<Issue>,
    /// How often policies decided.
    pub hits: Hits,
    /// Over which time, and on which node.
    pub span: Span,
}

impl Facts {
    /// What the policies come to.
    #[must_use]
    pub fn policies(&self) -> Policies {
        let mut warnings = self.warnings();
        let policies = audiences(&self.index).into_iter().map(|audience| {
            let warnings = warnings.remove(&audience.policy.name).unwrap_or_default();
            self.policy(&audience, warnings)
        });
        Policies {
            policies: policies.collect(),
            spans: vec![self.span.clone()],
            unavailable: BTreeMap::new(),
        }
    }

    /// What is wrong with policies, or probably not meant, each in a line.
    fn warnings(&self) -> BTreeMap<Name, Vec<String>> {
        let mut warnings: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for issue in &self.issues {
            if let Some(object) = issue
                .object
                .as_ref()
                .filter(|it| it.kind == "NetworkPolicy")
            {
                let name = Name::new(object.namespace.as_str(), object.name.as_str());
                warnings
                    .entry(name)
                    .or_default()
                    .push(issue.message.clone());
            }
        }
        // Ports that containers declare matter for Services alone.
        for finding in lint(&self.index, &BTreeMap::new()) {
            if let Key::Policy(name) = finding.object {
                let (problem, code) = (&finding.problem, finding.problem.code());
                let text = format!("{}: {problem} [{code}]", finding.field);
                warnings.entry(name).or_default().push(text);
            }
        }
        warnings
    }

    fn policy(&self, audience: &Audience<'_>, warnings: Vec<String>) -> Policy {
        let policy = audience.policy;
        let name = PolicyName::from(&policy.name);
        let here = |node: Option<&str>| node == Some(self.span.node.as_str());
        let pods = audience.pods.iter();
        let isolates = [
            (Direction::Ingress, policy.ingress.is_some()),
            (Direction::Egress, policy.egress.is_some()),
        ];
        Policy {
            pods: pods.filter(|pod| here(pod.node.as_deref())).count() as u64,
            isolates: isolates
                .into_iter()
                .filter(|(_, isolates)| *isolates)
                .map(|(direction, _)| direction.to_string())
                .collect(),
            audit: policy.mode == Mode::Audit,
            rules: audience
                .rules
                .iter()
                .map(|rule| self.rule(&name, rule))
                .collect(),
            denied: self.hits.of(&name, "denied", ""),
            audited: self.hits.of(&name, "audited", ""),
            warnings,
            name,
        }
    }

    fn rule(&self, policy: &PolicyName, audience: &RuleAudience<'_>) -> PolicyRule {
        let rule = format!("{}[{}]", audience.direction, audience.rule);
        let told = self.span.allowed_since.is_some();
        PolicyRule {
            everybody: audience.everybody,
            peers: audience.pods as u64,
            blocks: audience.blocks.iter().map(|block| text(block)).collect(),
            allowed: told.then(|| self.hits.of(policy, "allowed", &rule)),
            rule,
        }
    }
}

/// A block with its exceptions.
fn text(block: &Block) -> String {
    let except: Vec<_> = block.except.iter().map(ToString::to_string).collect();
    match except.is_empty() {
        true => block.cidr.to_string(),
        false => format!("{} except {}", block.cidr, except.join(", ")),
    }
}
