//! Pods and what became of their packets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PodStatus;

/// The pods of a node, or of many: the answer to `GET /v1/pods`, and `palisade pods -o json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pods {
    /// By namespace and name.
    pub pods: Vec<Pod>,
    /// Nodes that did not answer, and why.
    pub unavailable: BTreeMap<String, String>,
}

impl Pods {
    /// Adds those of others.
    pub fn merge(&mut self, other: Self) {
        self.pods.extend(other.pods);
        let name = |pod: &Pod| (pod.status.namespace.clone(), pod.status.name.clone());
        self.pods.sort_by_key(name);
        self.unavailable.extend(other.unavailable);
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// The node that it is on.
    pub node: String,
    /// What is enforced.
    #[serde(flatten)]
    pub status: PodStatus,
    /// What became of its packets; absent where it has no slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Packets>,
    /// How many live flows it has; absent where they were not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_flows: Option<u64>,
}

/// What became of the packets of a pod, since it has its slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Packets {
    /// Of those to it.
    pub ingress: DirectionPackets,
    /// Of those from it.
    pub egress: DirectionPackets,
}

/// What became of the packets of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionPackets {
    /// How many passed.
    pub allowed: u64,
    /// How many of them were told of as audited: of a flow the first, and the next after each change of policy.
    pub audited: u64,
    /// How many were dropped, by reason; reasons of none are left out.
    pub denied: BTreeMap<String, u64>,
    /// Bytes that passed, link header included.
    pub allowed_bytes: u64,
    /// Bytes that were dropped.
    pub denied_bytes: u64,
}
