//! What is tried: a list, in the words of the API.
//!
//! A scenario is policies and who may reach whom under them. Each is tried without its policies too, before and after:
//! what is denied under them has to be answered then, or the denial would prove nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::probe::{Place, Probe, Target, Way};
use super::wire::Protocol;

/// The list.
const LIST: &str = include_str!("scenarios.yaml");

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Written")]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it claims, in a sentence.
    pub about: String,
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// All policies from here on; absent if they stay.
    pub policies: Option<Vec<Policy>>,
    /// Labels that change, by pod (`x/a`) or namespace (`x`); null takes one away.
    pub labels: BTreeMap<String, BTreeMap<String, Option<String>>>,
    /// Whether the agents of Palisade are ended; the rest is tried while they are away, and they are waited for at its end.
    pub restart_agents: bool,
    /// What is answered.
    pub allowed: Vec<Probe>,
    /// What is not.
    pub denied: Vec<Probe>,
    /// Connections that are kept open from the end of this step on.
    pub hold: Vec<Probe>,
    /// Those of them that still work.
    pub kept: Vec<Probe>,
    /// Those that do not.
    pub cut: Vec<Probe>,
}

/// The `spec` of a policy, and `namespace` if that is not `x`. In an `ipBlock`, `cidr` and `except` name somebody or
/// `any`, see [`super::places`].
pub type Policy = Map<String, Value>;

/// As the list has it: one step may be written without `steps`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    about: String,
    policies: Option<Vec<Policy>>,
    #[serde(default)]
    allowed: Vec<Probe>,
    #[serde(default)]
    denied: Vec<Probe>,
    #[serde(default)]
    steps: Vec<Step>,
}

impl From<Written> for Scenario {
    fn from(it: Written) -> Self {
        let only = Step {
            policies: it.policies,
            allowed: it.allowed,
            denied: it.denied,
            ..Step::default()
        };
        Self {
            name: it.name,
            about: it.about,
            steps: match it.steps.is_empty() {
                true => vec![only],
                false => it.steps,
            },
        }
    }
}

/// All scenarios, in the order in which they are tried.
///
/// # Errors
///
/// The list cannot be read; a test sees to it that it can.
pub fn all() -> anyhow::Result<Vec<Scenario>> {
    read(LIST)
}

fn read(text: &str) -> anyhow::Result<Vec<Scenario>> {
    // Namespaces are called `y`, which older YAML takes for yes.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)?;
    let lists = documents
        .into_iter()
        .map(serde_json::from_value::<Vec<Scenario>>);
    let lists: Vec<_> = lists.collect::<Result<_, _>>()?;
    Ok(lists.into_iter().flatten().collect())
}

impl Scenario {
    /// Whether it fails where nothing enforces policies: something is denied in it.
    #[must_use]
    pub fn needs_enforcement(&self) -> bool {
        let denies = |step: &Step| {
            let alone = step.allowed.iter().any(|probe| probe.by.is_some());
            alone || !step.denied.is_empty() || !step.cut.is_empty()
        };
        self.steps.iter().any(denies)
    }

    /// Whether nothing else may be tried at the same time.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.steps.iter().any(|step| step.restart_agents)
    }

    /// All its probes, each once.
    pub fn probes(&self) -> impl Iterator<Item = &Probe> {
        let mut seen = BTreeSet::new();
        let probes = self.steps.iter().flat_map(|step| {
            let lists = [
                &step.allowed,
                &step.denied,
                &step.hold,
                &step.kept,
                &step.cut,
            ];
            lists.into_iter().flatten()
        });
        probes.filter(move |probe| seen.insert(probe.to_string()))
    }

    /// Those that policies deny, or leave to one of several, at some time: they are the controls.
    pub fn controls(&self) -> impl Iterator<Item = &Probe> {
        let denied = |probe: &Probe| {
            let same = |other: &Probe| other == probe;
            probe.by.is_some()
                || self
                    .steps
                    .iter()
                    .any(|step| step.denied.iter().any(same) || step.cut.iter().any(same))
        };
        self.probes().filter(move |probe| denied(probe))
    }

    /// Everybody who sends or is reached.
    #[must_use]
    pub fn places(&self) -> BTreeSet<Place> {
        let ends = self.probes().flat_map(|probe| {
            let to = match probe.to {
                Target::Spot(place, _) | Target::Service(Way::Node(place), ..) => Some(place),
                _ => None,
            };
            [Some(probe.from), to]
        });
        ends.flatten().collect()
    }

    /// Whether SCTP is spoken.
    #[must_use]
    pub fn speaks_sctp(&self) -> bool {
        self.probes().any(|probe| probe.protocol == Protocol::Sctp)
    }
}

#[cfg(test)]
mod tests;
