//! Cases as the files hold them.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;
use serde_json::Value;

use crate::probe::{Check, Expected, Protocol};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique in its file.
    pub name: String,
    /// The suite it is from.
    pub suite: String,
    /// Where in the suite.
    pub source: Option<String>,
    /// What it is about.
    pub tags: Vec<String>,
    /// Where it needs a remark.
    pub note: Option<String>,
    /// `minimal` or `3x3`, of the end-to-end tests.
    pub variant: Option<String>,
    /// Cyclonus: its number.
    pub number: Option<u32>,
    /// Cyclonus: its number in published results.
    pub default_number: Option<u32>,
    /// Cyclonus: nearly its description there.
    pub description: Option<String>,
    /// How the suite itself addresses the target.
    pub via: String,
    /// What is known of a pod that reaches for itself.
    pub loopback: Loopback,
    /// What there is at first.
    pub topology: Topology,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Case {
    /// Whether a policy of it speaks of addresses: its matrices hold for one family only then.
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        self.policies().any(|text| text.contains(BLOCK))
    }

    /// Whether a policy of it speaks of IPv4 addresses whoever has which: its matrices hold for IPv4 only
    /// then.
    #[must_use]
    pub fn has_literal_blocks(&self) -> bool {
        let literal = |text: String| {
            let mut blocks = text.split(BLOCK).skip(1);
            blocks.any(|block| !block.starts_with("${ip:"))
        };
        self.policies().any(literal)
    }

    fn policies(&self) -> impl Iterator<Item = String> {
        let policies = self.steps.iter().flat_map(|step| &step.apply);
        policies.map(Value::to_string)
    }
}

/// How an ipBlock begins in compact JSON, up to its address.
const BLOCK: &str = "\"cidr\":\"";

/// What a suite says of a pod's way to itself. To its own *address* a pod always gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Loopback {
    /// Nothing.
    #[serde(rename = "ignored")]
    Ignored,
    /// Policy decides of it as of any other, where a Service brings the connection back.
    #[serde(rename = "by-policy")]
    ByPolicy,
    /// The matrix has the cell.
    #[serde(rename = "see expected")]
    SeeExpected,
}

/// What there is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Namespaces.
    pub namespaces: Vec<Labelled>,
    /// Pods.
    pub pods: Vec<PodSpec>,
    /// Nodes, where the case has some of its own.
    #[serde(default)]
    pub nodes: Vec<NodeSpec>,
    /// Addresses that are no pod and no node.
    #[serde(default)]
    pub externals: Vec<External>,
}

/// A namespace, or its new label map.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// Its name.
    pub name: String,
    /// All of its labels.
    pub labels: Labels,
}

/// A pod's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Its namespace.
    pub ns: String,
    /// Its name there.
    pub name: String,
}

/// A pod's new label map.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relabelled {
    /// Its namespace.
    pub ns: String,
    /// Its name there.
    pub name: String,
    /// All of its labels.
    pub labels: Labels,
}

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PodSpec {
    /// Its namespace.
    pub ns: String,
    /// Its name there.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Its addresses.
    pub ips: Option<Vec<IpAddr>>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Name of its ClusterIP Service.
    pub service: Option<String>,
    /// The node it is on.
    pub node: Option<String>,
    /// Whether it is on its node's network.
    #[serde(default)]
    pub host_network: bool,
    /// Its phase; absent: Running.
    pub phase: Option<String>,
    /// Set once it is being deleted.
    pub deletion_timestamp: Option<String>,
}

impl PodSpec {
    /// `ns/pod`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.ns, self.name)
    }

    /// Every port of every container.
    pub fn ports(&self) -> impl Iterator<Item = &ContainerPort> {
        self.containers
            .iter()
            .flat_map(|container| &container.ports)
    }
}

/// A container.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
}

/// A port of a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name.
    pub name: Option<String>,
    /// Its number.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// An address that is no pod and no node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// What it is called.
    pub name: String,
    /// The address, by which the matrices know it.
    pub ip: IpAddr,
}

/// Changes, to be made in the order of the fields, and what holds then.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// New namespaces.
    pub create_namespace: Vec<Labelled>,
    /// New pods.
    pub create_pod: Vec<PodSpec>,
    /// Pods as they now are.
    pub update_pod: Vec<PodSpec>,
    /// Namespaces with new label maps.
    pub relabel_namespace: Vec<Labelled>,
    /// Pods with new label maps.
    pub relabel_pod: Vec<Relabelled>,
    /// NetworkPolicies to create, or to replace by name, as a user would write them.
    pub apply: Vec<Value>,
    /// NetworkPolicies to delete.
    pub delete: Vec<PolicyName>,
    /// Pods to delete.
    pub delete_pod: Vec<Owner>,
    /// Namespaces to delete, with all that is in them.
    pub delete_namespace: Vec<String>,
    /// What holds after these changes.
    pub probes: Vec<Probe>,
}

/// A policy's name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// Who reaches whom on one port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// 4 or 6.
    #[serde(default = "four")]
    pub family: u8,
    /// The whole matrix. A name with a slash is a pod's, `node:NAME` a process on that node's network, any
    /// other an external address.
    pub expected: Expected,
    /// Pods that policy alone would keep from themselves.
    #[serde(default)]
    pub loopback_denied_by_policy: Vec<String>,
    /// What the suite itself says, one after the other, over a table of all allowed.
    #[serde(default)]
    pub stated: Vec<Statement>,
}

impl Probe {
    /// As a check in a lab, over a family.
    #[must_use]
    pub fn check(&self, family: u8) -> Check {
        Check {
            port: self.port,
            protocol: self.protocol,
            family,
            expected: self.expected.clone(),
        }
    }
}

/// One statement of a suite.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Value>")]
pub enum Statement {
    /// Everything to a pod.
    In(String, bool),
    /// Everything from a pod.
    Out(String, bool),
    /// One pair.
    Pair(String, String, bool),
    /// From namespace and pod to namespace and pod; empty is any.
    Peer([String; 4], bool),
}

impl Statement {
    /// Whether it is about this pair, and what it says then.
    #[must_use]
    pub fn says(&self, from: &str, to: &str) -> Option<bool> {
        let fits = |name: &str, namespace: &str, pod: &str| {
            name.split_once('/').is_some_and(|(own, name)| {
                (namespace.is_empty() || namespace == own) && (pod.is_empty() || pod == name)
            })
        };
        let (about, says) = match self {
            Self::In(pod, says) => (to == pod, says),
            Self::Out(pod, says) => (from == pod, says),
            Self::Pair(source, target, says) => (from == source && to == target, says),
            Self::Peer([a, b, c, d], says) => (fits(from, a, b) && fits(to, c, d), says),
        };
        about.then_some(*says)
    }
}

impl TryFrom<Vec<Value>> for Statement {
    type Error = String;

    fn try_from(words: Vec<Value>) -> Result<Self, String> {
        let text = |at: usize| words.get(at).and_then(Value::as_str).map(str::to_owned);
        let statement = || {
            let says = words.last()?.as_bool()?;
            Some(match (text(0)?.as_str(), words.len()) {
                ("in", 3) => Self::In(text(1)?, says),
                ("out", 3) => Self::Out(text(1)?, says),
                ("pair", 4) => Self::Pair(text(1)?, text(2)?, says),
                ("peer", 6) => Self::Peer([text(1)?, text(2)?, text(3)?, text(4)?], says),
                _ => return None,
            })
        };
        statement().ok_or_else(|| format!("not a statement: {words:?}"))
    }
}

fn four() -> u8 {
    4
}
