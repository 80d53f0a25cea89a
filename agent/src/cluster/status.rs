//! What all agents of a cluster say of themselves, and what of it somebody has to know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::agents::{AgentSet, Answer};
use crate::api::proto::{AuditStatus, DriftStatus, Plugin, Status};

/// From which part on, in percent, a map is said to be nearly full.
const NEARLY_FULL: u64 = 90;

/// A whole cluster: `palisade status -o json` where it asks all agents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Whether there is no error.
    pub healthy: bool,
    /// The agents' DaemonSets.
    pub daemon_sets: Vec<AgentSet>,
    /// What the agent of each node says.
    pub nodes: Vec<NodeStatus>,
    /// What is not enforced, and what keeps agents from it; the worst first.
    pub errors: Vec<Finding>,
    /// What does no harm yet.
    pub warnings: Vec<Finding>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// What its agent says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Why it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What somebody has to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Of what: a pod, a map, the agent.
    pub subject: String,
    /// What it is.
    pub message: String,
    /// Which nodes say it; none where nobody's agent does.
    pub nodes: Vec<String>,
}

impl ClusterStatus {
    /// Puts together what is known.
    #[must_use]
    pub fn new(sets: Vec<AgentSet>, answers: Vec<Answer>) -> Self {
        let nodes: Vec<_> = answers.into_iter().map(node).collect();
        let (mut errors, mut warnings) = (Findings::default(), Findings::default());
        // A pod without its policies is worse than all else.
        for (node, status) in heard(&nodes) {
            let pods = status
                .pods
                .iter()
                .filter(|pod| !pod.enforced && !pod.addresses.is_empty());
            for pod in pods {
                let subject = format!("pod {}/{}", pod.namespace, pod.name);
                let why = pod.reason.as_deref().unwrap_or("for an unknown reason");
                errors.add(0, subject, format!("is not enforced: {why}"), node);
            }
        }
        for NodeStatus { node, error, .. } in &nodes {
            if let Some(error) = error {
                errors.add(
                    1,
                    "agent".to_owned(),
                    format!("does not answer: {error}"),
                    node,
                );
            }
        }
        for (node, status) in heard(&nodes) {
            of_agent(node, status, &mut errors, &mut warnings);
        }
        let (mut errors, mut warnings) = (errors.list(), warnings.list());
        errors.extend(
            sets.iter()
                .filter(|set| set.ready < set.desired)
                .map(|set| Finding {
                    subject: format!("DaemonSet {}", set.name),
                    message: format!(
                        "{} of {} nodes have an agent that is ready",
                        set.ready, set.desired
                    ),
                    nodes: Vec::new(),
                }),
        );
        warnings.extend(skew(&nodes));
        if sets.len() > 1 {
            warnings.push(Finding {
                subject: "DaemonSets".to_owned(),
                message: format!(
                    "there are {}; of two agents of a node one waits",
                    sets.len()
                ),
                nodes: Vec::new(),
            });
        }
        Self {
            healthy: errors.is_empty(),
            daemon_sets: sets,
            nodes,
            errors,
            warnings,
        }
    }

    /// How many agents are of each version, or of what else is counted.
    #[must_use]
    pub fn count<'a>(&'a self, of: impl Fn(&'a Status) -> &'a str) -> BTreeMap<&'a str, usize> {
        count(&self.nodes, of)
    }

    /// How many pods have their policies in force, and how many pods there are.
    #[must_use]
    pub fn pods(&self) -> (usize, usize) {
        let pods = heard(&self.nodes).flat_map(|(_, status)| &status.pods);
        let all = pods.clone().count();
        (pods.filter(|pod| pod.enforced).count(), all)
    }

    /// The fullest of all maps of that name, in percent, by name.
    #[must_use]
    pub fn fill(&self) -> BTreeMap<&str, u64> {
        let mut fill = BTreeMap::new();
        for map in heard(&self.nodes).flat_map(|(_, status)| &status.maps) {
            let most = fill.entry(map.name.as_str()).or_default();
            *most = percent(map.entries, map.capacity).max(*most);
        }
        fill
    }
}

fn node(Answer { node, said }: Answer) -> NodeStatus {
    let status = said.and_then(|text| {
        let status = serde_json::from_str::<Status>(&text);
        status.map_err(|error| format!("its answer cannot be read: {error}"))
    });
    match status {
        Ok(status) => NodeStatus {
            node,
            status: Some(status),
            error: None,
        },
        Err(error) => NodeStatus {
            node,
            status: None,
            error: Some(error),
        },
    }
}

fn heard(nodes: &[NodeStatus]) -> impl Iterator<Item = (&str, &Status)> + Clone {
    let heard = nodes.iter();
    heard.filter_map(|node| Some((node.node.as_str(), node.status.as_ref()?)))
}

/// What is in audit as a whole: nothing is denied there.
fn of_audit(node: &str, audit: &AuditStatus, warnings: &mut Findings) {
    let until = |until: &Option<String>| {
        let until = until.as_ref().map(|until| format!(" until {until}"));
        until.unwrap_or_default()
    };
    if audit.all {
        let paused = until(&audit.paused_until);
        let message = format!("every pod is in audit{paused}: nothing is denied");
        warnings.add(0, "audit".to_owned(), message, node);
    }
    for namespace in &audit.namespaces {
        let subject = format!("namespace {}", namespace.namespace);
        let message = format!("in audit{}: nothing is denied", until(&namespace.until));
        warnings.add(1, subject, message, node);
    }
}

/// What an agent says of itself and its node.
fn of_agent(node: &str, status: &Status, errors: &mut Findings, warnings: &mut Findings) {
    for condition in status.conditions.iter().filter(|condition| !condition.ok) {
        let why = condition.reason.as_deref().unwrap_or("failed");
        errors.add(2, condition.name.clone(), why.to_owned(), node);
    }
    for exit in status.exits.iter().filter(|exit| !exit.attached) {
        let why = exit.reason.as_deref().unwrap_or_default();
        errors.add(
            3,
            format!("device {}", exit.name),
            format!("not attached: {why}"),
            node,
        );
    }
    of_audit(node, &status.audit, warnings);
    for map in &status.maps {
        let fill = percent(map.entries, map.capacity);
        if fill >= NEARLY_FULL {
            let message = format!("{fill} % full ({} of {})", map.entries, map.capacity);
            warnings.add(0, format!("map {}", map.name), message, node);
        }
    }
    for pod in &status.pods {
        if let Some(unheld) = &pod.unheld {
            let subject = format!("pod {}/{}", pod.namespace, pod.name);
            let message = format!("started before its policies were in force: {unheld}");
            warnings.add(1, subject, message, node);
        }
    }
    for issue in &status.issues {
        let subject = match (&issue.object, &issue.file) {
            (Some(object), _) if object.namespace.is_empty() => {
                format!("{} {}", object.kind, object.name)
            }
            (Some(object), _) => format!("{} {}/{}", object.kind, object.namespace, object.name),
            (None, Some(file)) => format!("file {file}"),
            (None, None) => "objects".to_owned(),
        };
        let message = match issue.field.is_empty() {
            true => issue.problem.clone(),
            false => format!("{}: {}", issue.field, issue.problem),
        };
        warnings.add(2, subject, message, node);
    }
    let missing = |plugin: &&Plugin| plugin.wanted && !plugin.installed;
    if let Some(plugin) = status.plugin.as_ref().filter(missing) {
        let why = plugin.reason.as_deref().unwrap_or_default();
        warnings.add(
            3,
            "plugin".to_owned(),
            format!("not installed: {why}"),
            node,
        );
    }
    if status.drift != DriftStatus::default() {
        let message = status.drift.to_string();
        warnings.add(4, "drift".to_owned(), message, node);
    }
    if status.events_lost > 0 {
        let message = format!("of {} denied packets no flow tells", status.events_lost);
        warnings.add(5, "flows".to_owned(), message, node);
    }
    for foreign in &status.foreign {
        let name = foreign.name.as_deref().unwrap_or("a program");
        let order = if foreign.before { "before" } else { "after" };
        let message = format!("{name} at {} runs {order} ours", foreign.hook);
        warnings.add(6, "programs of others".to_owned(), message, node);
    }
}

fn skew(nodes: &[NodeStatus]) -> Option<Finding> {
    let versions = count(nodes, |status| status.version.as_str());
    let several = versions.len() > 1;
    several.then(|| Finding {
        subject: "versions".to_owned(),
        message: format!("agents are of several: {}", counted(&versions)),
        nodes: Vec::new(),
    })
}

/// Counts as text: `0.1.0 (2), 0.2.0 (1)`.
#[must_use]
pub fn counted(counts: &BTreeMap<&str, usize>) -> String {
    let each = counts
        .iter()
        .map(|(what, count)| format!("{what} ({count})"));
    each.collect::<Vec<_>>().join(", ")
}

fn count<'a>(
    nodes: &'a [NodeStatus],
    of: impl Fn(&'a Status) -> &'a str,
) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for (_, status) in heard(nodes) {
        *counts.entry(of(status)).or_default() += 1;
    }
    counts
}

fn percent(entries: u64, capacity: u64) -> u64 {
    (entries * 100).checked_div(capacity).unwrap_or(0)
}

/// Findings by rank; what several nodes say is said once.
#[derive(Default)]
struct Findings(BTreeMap<(u8, String, String), Vec<String>>);

impl Findings {
    fn add(&mut self, rank: u8, subject: String, message: String, node: &str) {
        let nodes = self.0.entry((rank, subject, message)).or_default();
        if nodes.last().is_none_or(|last| last != node) {
            nodes.push(node.to_owned());
        }
    }

    fn list(self) -> Vec<Finding> {
        let findings = self.0.into_iter();
        findings
            .map(|((_, subject, message), nodes)| Finding {
                subject,
                message,
                nodes,
            })
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
