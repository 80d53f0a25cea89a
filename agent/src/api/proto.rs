//! The types that leave the process. What they are called is a promise: keys are added, never renamed.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use jiff::Timestamp;
use palisade_policy::model::Name;
use serde::{Deserialize, Serialize};

use crate::source;

pub use self::{explanation::*, pods::*, policies::*};

mod explanation;
mod pods;
mod policies;

/// What the agent does at present: the answer to `GET /v1/status`, and `palisade status -o json`. An older agent says less.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Whether everything that should be enforced is.
    pub healthy: bool,
    /// The agent's own conditions, in a fixed order.
    pub conditions: Vec<Condition>,
    /// Moves with every batch of writes that can change a verdict.
    pub revision: u32,
    /// How programs are attached: `tcx` or `clsact`.
    pub attach: String,
    /// The pods of this node, by namespace and name.
    pub pods: Vec<PodStatus>,
    /// Other devices by which packets of pods leave, by name.
    pub exits: Vec<DeviceStatus>,
    /// Problems with objects and files; each says what is done about it.
    pub issues: Vec<Issue>,
    /// How full the kernel's maps are.
    pub maps: Vec<MapStatus>,
    /// Programs of others that may hide packets or their marks from ours.
    pub foreign: Vec<Foreign>,
    /// The network plugin that holds pods back until their policies are in force; absent where the agent is not to
    /// install it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Plugin>,
    /// What others have changed of the agent's, and it has mended.
    pub drift: DriftStatus,
    /// What is in audit as a whole.
    pub audit: AuditStatus,
    /// Packets of which no flow tells, though one should.
    pub events_lost: u64,
}

/// What is in audit as a whole; single policies and pods say so themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// Every pod of this node: so the agent was started, or it is paused.
    pub all: bool,
    /// Until when the agent is paused, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<String>,
    /// The namespaces that are.
    pub namespaces: Vec<AuditedNamespace>,
    /// Pods of which, for want of room, not all is told that would be denied.
    pub incomplete: Vec<String>,
}

/// Until when a node is paused: the answer to `POST /v1/pause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// RFC 3339; null where it is not.
    pub until: Option<String>,
}

/// A namespace in audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditedNamespace {
    /// Its name.
    pub namespace: String,
    /// Until when, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What others have changed, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// Programs that were not where they were put.
    pub programs: u64,
    /// Entries of maps that were not what was written.
    pub entries: u64,
    /// Maps that were not pinned where they belong.
    #[serde(default)]
    pub pins: u64,
    /// Hooks on which others ran before the agent's programs.
    #[serde(default)]
    pub positions: u64,
}

impl fmt::Display for DriftStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            programs,
            entries,
            pins,
            positions,
        } = self;
        write!(
            f,
            "{programs} programs, {positions} positions on hooks, {entries} entries and {pins} pins of maps were changed by others, and mended"
        )
    }
}

const fn yes() -> bool {
    true
}

/// The network plugin on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plugin {
    /// Whether it is to be there: it is not where it was switched off. An older agent does not say.
    #[serde(default = "yes")]
    pub wanted: bool,
    /// Whether it is in the list that the runtime reads.
    pub installed: bool,
    /// The list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Why it is not installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One condition of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its name: `source`, `dataplane`, `enforcement`.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One pod of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The host-side device that carries its packets.
    pub interface: Option<String>,
    /// The device's index.
    pub ifindex: Option<u32>,
    /// Indices of further devices that lead to the pod; nothing is enforced there.
    pub others: Vec<u32>,
    /// Its number in the kernel's maps.
    pub slot: Option<u16>,
    /// What is enforced on packets to it.
    pub ingress: DirectionStatus,
    /// What is enforced on packets from it.
    pub egress: DirectionStatus,
    /// Whether its policies are in force.
    pub enforced: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the network plugin held its start until its policies were in force.
    pub held: bool,
    /// Why it was started before that, where it is known that it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unheld: Option<String>,
}

/// One direction of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionStatus {
    /// Whether some policy selects the pod.
    pub isolated: bool,
    /// The names of those that do; they are in the pod's namespace.
    pub policies: Vec<String>,
    /// Those of them that are in audit: what only they deny passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audited: Vec<String>,
}

/// A device that carries a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Whether the program is attached.
    pub attached: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A program on a device that carries one of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// The device's index.
    pub ifindex: u32,
    /// Where it is: `xdp`, `ingress`, `egress`.
    pub hook: String,
    /// Whether it sees packets before ours does.
    pub before: bool,
    /// The kernel's id of it.
    pub program: Option<u32>,
    /// Its name or kind, where the kernel tells.
    pub name: Option<String>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapStatus {
    /// The map.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries that it can hold.
    pub capacity: u64,
}

/// A problem with an object or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issue {
    /// The file that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The object that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectName>,
    /// The field, as `spec.ingress[0].from[1]`; empty where the whole is meant.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What is done about it: a word of [`source::Effect::name`], or `compiled` where the problem says it.
    pub effect: String,
    /// All of it in one line.
    pub message: String,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty where the kind has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<&source::Issue> for Issue {
    fn from(issue: &source::Issue) -> Self {
        Self {
            file: issue.file.as_deref().map(ToOwned::to_owned),
            object: issue.object.as_ref().map(|key| ObjectName {
                kind: key.kind.name().to_owned(),
                namespace: key.name.namespace.to_string(),
                name: key.name.name.to_string(),
            }),
            field: issue.field.clone(),
            problem: issue.problem.to_string(),
            effect: issue.effect.name().to_owned(),
            message: issue.to_string(),
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The reason.
    pub error: String,
}

/// A denied packet, with the names that the kernel does not know: an entry of the answer to `GET /v1/flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Its number, from 1 on since the agent started.
    pub number: u64,
    /// When, in RFC 3339.
    pub time: String,
    /// `denied`; `audited` if it passed only because policy is in audit; `allowed` of the first packet of a flow.
    pub verdict: String,
    /// Why it was or would have been denied, empty else: `policy`, `revoked`, `spoofed`, `malformed`, `fragment`, `not-ip`, `unknown`.
    pub reason: String,
    /// `ingress` or `egress`, as the pod sees it.
    pub direction: String,
    /// The pod whose policies decided.
    pub pod: Party,
    /// The other end, as it was judged.
    pub peer: Party,
    /// Source address of the packet.
    pub source: Option<IpAddr>,
    /// Destination address of the packet.
    pub destination: Option<IpAddr>,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The protocol's name, or its number.
    pub protocol: String,
    /// The policies that isolate the pod in this direction.
    pub policies: Vec<String>,
    /// Those of them that are in audit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audited: Vec<String>,
    /// The rules that allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleName>,
    /// Of their rules the one that comes nearest to allowing it, and why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miss: Option<Miss>,
}

/// A line of the flow log: a flow, and how many packets were like it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowLine {
    /// The packets that the line stands for: those since the last line of such packets.
    pub packets: u64,
    /// In how long a time they came, seconds.
    pub seconds: u64,
    /// The last of them.
    #[serde(flatten)]
    pub flow: Flow,
}

/// How many flows there were since the agent started: the answer to `GET /v1/flows/counts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowCounts {
    /// The number of the newest.
    pub newest: u64,
    /// Packets that were denied and of which no flow tells.
    pub lost: u64,
}

/// Over which time an agent has looked, and what it has missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// The agent's node.
    pub node: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// For how long no agent was there, seconds.
    pub away_seconds: u64,
    /// Flows that were told of.
    pub flows: u64,
    /// Packets of which no flow told.
    pub lost: u64,
    /// Records for which there was no room.
    pub forgotten: u64,
    /// Since when it was told of allowed flows; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_since: Option<Timestamp>,
    /// Allowed flows of which no rule was looked for: too many kinds came at once.
    #[serde(default)]
    pub unattributed: u64,
}

/// Who spoke with whom: flows that are alike, in sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// As of a flow.
    pub verdict: String,
    /// As of a flow.
    pub reason: String,
    /// As of a flow.
    pub direction: String,
    /// The pods of a workload, by namespace and labels.
    pub pod: Party,
    /// Those at the other end, or an address.
    pub peer: Party,
    /// Destination port.
    pub port: u16,
    /// The protocol's name, or its number.
    pub protocol: String,
    /// The policies that isolated the pod at last.
    pub policies: Vec<String>,
    /// Those of them that were in audit.
    pub audited: Vec<String>,
    /// How many flows.
    pub flows: u64,
    /// When the first was seen.
    pub first: Timestamp,
    /// When the last was.
    pub last: Timestamp,
}

/// A policy by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl From<&Name> for PolicyName {
    fn from(name: &Name) -> Self {
        Self {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
        }
    }
}

/// What an agent has seen: the answer to `GET /v1/inventory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// When.
    pub span: Span,
    /// What.
    pub records: Vec<Record>,
    /// Policies that are in audit and select a pod of the node.
    #[serde(default)]
    pub staged: Vec<PolicyName>,
}

/// What the agents of a cluster have seen: what `palisade audit -o json` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// When each of them did.
    pub spans: Vec<Span>,
    /// Policies that are in audit now and select a pod, by name.
    pub staged: Vec<PolicyName>,
    /// What they have seen; of several agents a record each.
    pub records: Vec<Record>,
    /// Nodes that did not answer, and why.
    pub unavailable: BTreeMap<String, String>,
}

impl AuditReport {
    /// Adds what one agent has seen.
    pub fn add(&mut self, inventory: Inventory) {
        let Inventory {
            span,
            records,
            staged,
        } = inventory;
        self.merge(Self {
            spans: vec![span],
            staged,
            records,
            unavailable: BTreeMap::new(),
        });
    }

    /// Adds what others have seen.
    pub fn merge(&mut self, other: Self) {
        self.spans.extend(other.spans);
        self.records.extend(other.records);
        self.staged.extend(other.staged);
        self.staged.sort();
        self.staged.dedup();
        self.unavailable.extend(other.unavailable);
    }
}
