//! What an audit asks of the policies of a cluster: which pods they cover, whether each is used, who answers for it and why it is
//! there, what is wide open, and what has changed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use palisade_policy::{audience::audiences, coverage, model::Mode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::usage::Window;
use crate::{
    api::proto::{Policies, PolicyName},
    generate::manifest::spec,
    lint,
    objects::Objects,
};

pub use self::{changes::Change, usage::Use};

mod changes;
pub mod csv;
pub mod markdown;
mod usage;

/// What the form is called; another where a key means something else.
const SCHEMA: &str = "palisade.report/v1";

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The form.
    pub schema: String,
    /// When it was made.
    pub at: Timestamp,
    /// For how many days a policy has to be without a flow to be unused.
    pub unused_days: u32,
    /// The namespaces, by name.
    pub namespaces: Vec<Coverage>,
    /// The policies, by namespace and name.
    pub policies: Vec<Policy>,
    /// What is other than in an earlier report; absent where none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
    /// Nodes that did not answer, and why.
    pub unavailable: BTreeMap<String, String>,
}

/// How many pods of a namespace are isolated by policies that are not in audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// The namespace.
    pub namespace: String,
    /// Its pods, but those of the host network and those that have finished.
    pub pods: usize,
    /// Those whose ingress is isolated.
    pub ingress: usize,
    /// Those whose egress is isolated.
    pub egress: usize,
    /// What is open there, as `palisade lint` finds it.
    pub broad: Vec<String>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Its name.
    #[serde(flatten)]
    pub name: PolicyName,
    /// How many pods of the cluster it selects.
    pub pods: usize,
    /// Whether it is in audit by itself.
    pub audit: bool,
    /// Why it is there, as it says itself.
    pub reason: Option<String>,
    /// Whose it is, as it says itself.
    pub owner: Option<String>,
    /// When it was made, where that is known.
    pub created: Option<Timestamp>,
    /// Whether it decided anything of late.
    pub usage: Use,
    /// What it opens wider than policies should: rules for everybody, and what `palisade lint` finds.
    pub broad: Vec<String>,
    /// What else `palisade lint` finds.
    pub findings: Vec<String>,
    /// What it says.
    pub spec: Value,
}

impl Report {
    /// Judges the objects. `told` is what agents have counted, where any was asked.
    #[must_use]
    pub fn of(objects: &Objects, told: Option<&Policies>, unused_days: u32, at: Timestamp) -> Self {
        let index = objects.bare_index();
        let mut findings = Findings::of(objects);
        let window = Window::new(
            told,
            SignedDuration::from_hours(24 * i64::from(unused_days)),
            at,
        );
        let namespaces = coverage::coverage(&index)
            .into_iter()
            .map(|(name, covered)| {
                let coverage::Coverage {
                    pods,
                    ingress,
                    egress,
                } = covered;
                let broad = findings.take("Namespace", "", &name).broad;
                Coverage {
                    namespace: name.to_string(),
                    pods,
                    ingress,
                    egress,
                    broad,
                }
            });
        let namespaces = namespaces.collect();
        let policies = audiences(&index).into_iter().map(|audience| {
            let policy = audience.policy;
            let name = PolicyName::from(&policy.name);
            let note = objects.note_of(&policy.name);
            let everybody = audience.rules.iter().filter(|rule| rule.everybody);
            let everybody =
                everybody.map(|rule| format!("{}[{}] is for everybody", rule.direction, rule.rule));
            let found = findings.take("NetworkPolicy", &name.namespace, &name.name);
            Policy {
                pods: audience.pods.len(),
                audit: policy.mode == Mode::Audit,
                usage: window.usage(&name, note.created),
                reason: note.reason,
                owner: note.owner,
                created: note.created,
                broad: everybody.chain(found.broad).collect(),
                findings: found.rest,
                spec: spec(policy),
                name,
            }
        });
        Self {
            schema: SCHEMA.to_owned(),
            at,
            unused_days,
            namespaces,
            policies: policies.collect(),
            changes: None,
            unavailable: told
                .map(|told| told.unavailable.clone())
                .unwrap_or_default(),
        }
    }

    /// Reads one that was printed as JSON.
    ///
    /// # Errors
    ///
    /// It is none, or of another form.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let report: Self = serde_json::from_str(text)?;
        anyhow::ensure!(report.schema == SCHEMA, "its form is {}", report.schema);
        Ok(report)
    }

    /// Adds what is other than in an earlier one.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        self.changes = Some(changes::between(earlier, &self));
        self
    }
}

/// What lint finds, by object: what is wide open, and the rest.
struct Findings(BTreeMap<Object, Found>);

/// Kind, namespace and name.
type Object = (String, String, String);

/// What lint finds of one object.
#[derive(Default)]
struct Found {
    broad: Vec<String>,
    rest: Vec<String>,
}

/// What of lint's findings tells that something is wide open.
const BROAD: [&str; 3] = ["PL107", "PL108", "PL109"];

impl Findings {
    fn of(objects: &Objects) -> Self {
        let mut all: BTreeMap<Object, Found> = BTreeMap::new();
        for finding in lint::Report::of(objects, &BTreeSet::new()).findings {
            let Some(object) = finding.object else {
                continue;
            };
            let found = all
                .entry((object.kind, object.namespace, object.name))
                .or_default();
            let field = match finding.field.as_str() {
                "" => String::new(),
                field => format!("{field}: "),
            };
            let text = format!("{field}{} [{}]", finding.message, finding.code);
            match BROAD.contains(&finding.code) {
                true => found.broad.push(text),
                false => found.rest.push(text),
            }
        }
        Self(all)
    }

    fn take(&mut self, kind: &str, namespace: &str, name: &str) -> Found {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.remove(&key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
