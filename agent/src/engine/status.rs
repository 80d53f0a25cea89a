//! What the engine tells of itself.

use std::sync::Arc;

use jiff::Timestamp;
use palisade_policy::{
    evaluate::enforces,
    index::{Index, Pod},
    model::{Key, Name, Policy},
    table::Direction,
};

use super::{Engine, Summary, pods, seconds};
use crate::{
    api::proto::{
        AuditStatus, Condition, DeviceStatus, DirectionStatus, DriftStatus, Issue, ObjectName,
        PodStatus, Status,
    },
    policies::Facts,
    source::Effect,
};

/// Names that a reason lists at most.
const NAMED: usize = 3;

impl Engine {
    /// Publishes the summary, if it is other than before.
    pub(super) fn publish(&self) {
        // A pod that has just appeared is found in a moment; that is no news.
        let wanted = pods::addresses(self.compiler.compiled());
        if self.placed && !self.kernel.scan().knows(&wanted) {
            return;
        }
        let (enforced, unenforced) = self.pods.count();
        let summary = Summary {
            enforced,
            unenforced: unenforced.len(),
            conditions: self.conditions(&unenforced),
            issues: self.issues.len() + self.left_out.issues.len(),
            maps: self.kernel.maps(),
            left_out: self.left_out.counts,
            slots: self.kernel.highest_slot(),
            before: self.kernel.before(),
            plugin: self
                .plugin
                .as_ref()
                .filter(|plugin| plugin.wanted)
                .map(|plugin| plugin.installed),
            audit: self.modes.audited(seconds()),
        };
        self.summary.send_if_modified(|present| {
            let modified = **present != summary;
            if modified {
                *present = Arc::new(summary);
            }
            modified
        });
    }

    fn conditions(&self, unenforced: &[&Name]) -> Vec<Condition> {
        let unreadable = self
            .issues
            .iter()
            .find(|issue| issue.effect == Effect::FileKept);
        let source = match unreadable {
            _ if self.unreachable.is_some() => self.unreachable.clone(),
            Some(issue) => Some(issue.to_string()),
            None if !self.synced => Some("it has not told every object yet".to_owned()),
            None => None,
        };
        let unenforced = (!unenforced.is_empty()).then(|| {
            let names: Vec<_> = unenforced
                .iter()
                .take(NAMED)
                .map(ToString::to_string)
                .collect();
            let more = if unenforced.len() > NAMED {
                ", …"
            } else {
                ""
            };
            format!(
                "{} pods are not enforced: {}{more}",
                unenforced.len(),
                names.join(", ")
            )
        });
        // Nobody is let in by it, but what policy allows is denied.
        let [addresses, blocks, tables] = self.left_out.counts;
        let left_out = (self.left_out.counts != [0; 3]).then(|| {
            format!(
                "there is no room in the maps for {addresses} addresses, {blocks} blocks and {tables} tables of pods"
            )
        });
        let enforcement: Vec<_> = unenforced.into_iter().chain(left_out).collect();
        let enforcement = (!enforcement.is_empty()).then(|| enforcement.join("; "));
        let of = |name: &str, failure: Option<String>| Condition {
            name: name.to_owned(),
            ok: failure.is_none(),
            reason: failure,
        };
        let updated = match &self.failure {
            _ if !self.synced => None,
            None if !self.settled => Some("no update has ended yet".to_owned()),
            failure => failure.clone(),
        };
        vec![
            of("source", source),
            of("dataplane", updated),
            of("enforcement", enforcement),
        ]
    }

    /// The whole state.
    pub(super) fn status(&mut self) -> Status {
        let (_, unenforced) = self.pods.count();
        let conditions = self.conditions(&unenforced);
        let pods = self.local_pods();
        let exits = self.kernel.scan().exits.iter().map(|exit| {
            let reason = self.kernel.unattached(exit.ifindex).map(ToOwned::to_owned);
            DeviceStatus {
                name: exit.name.clone(),
                ifindex: exit.ifindex,
                attached: reason.is_none(),
                reason,
            }
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.to_string(),
            healthy: conditions.iter().all(|condition| condition.ok),
            conditions,
            revision: self.revision,
            attach: self.kernel.strategy().to_owned(),
            pods,
            exits: exits.collect(),
            issues: self.all_issues(),
            maps: self.kernel.maps(),
            foreign: self.kernel.foreign(),
            plugin: self.plugin.clone(),
            drift: DriftStatus {
                programs: self.drift.programs,
                entries: self.drift.entries,
                pins: self.drift.pins,
                positions: self.drift.positions,
            },
            audit: AuditStatus {
                incomplete: self.pods.unaudited(),
                ..self.modes.status(seconds())
            },
            // The server knows it.
            events_lost: 0,
        }
    }

    /// What is wrong with objects and files.
    fn all_issues(&self) -> Vec<Issue> {
        let issues = self.issues.iter().map(Issue::from);
        let mut compiled = self.compiler.issues();
        compiled.extend(self.left_out.issues.iter().cloned());
        issues.chain(compiled.iter().map(Issue::from)).collect()
    }

    /// What is known of policies.
    pub(super) fn facts(&mut self) -> Facts {
        self.inventory.lost((self.lost)());
        Facts {
            index: self.compiler.index().clone(),
            issues: self.all_issues(),
            hits: self.inventory.hits().clone(),
            span: self.inventory.span(Timestamp::now()),
        }
    }

    /// The pods of this node, by name.
    pub(super) fn local_pods(&self) -> Vec<PodStatus> {
        let pods = self
            .compiler
            .compiled()
            .pods
            .keys()
            .chain(self.compiler.waiting());
        let mut pods: Vec<_> = pods.map(|name| self.pod(name)).collect();
        pods.sort_by(|one, other| {
            (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
        });
        pods
    }

    fn pod(&self, name: &Name) -> PodStatus {
        let index = self.compiler.index();
        let pod = index.pod(name);
        let direction = |direction| match pod {
            None => DirectionStatus::default(),
            Some(pod) => {
                let policies: Vec<_> = isolating(index, pod, direction).collect();
                let audited = policies
                    .iter()
                    .filter(|policy| !enforces(index, pod, policy));
                DirectionStatus {
                    isolated: !policies.is_empty(),
                    audited: audited.map(|policy| policy.name.name.to_string()).collect(),
                    policies: policies
                        .iter()
                        .map(|policy| policy.name.name.to_string())
                        .collect(),
                }
            }
        };
        let state = self.pods.get(name);
        let interface = state.and_then(|state| state.interface.as_ref());
        let enforced = match state {
            None if pod.is_some_and(|pod| pod.addresses.is_empty()) => {
                Err("it has no address yet".to_owned())
            }
            None => Err("its update is under way".to_owned()),
            Some(state) => state.enforced.clone(),
        };
        let (held, unheld) = self.attached.start(name);
        PodStatus {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            addresses: pod.map(|pod| pod.addresses.to_vec()).unwrap_or_default(),
            interface: interface.map(|interface| interface.name.clone()),
            ifindex: interface.map(|interface| interface.ifindex),
            others: interface
                .map(|interface| interface.others.clone())
                .unwrap_or_default(),
            slot: enforced.as_ref().ok().copied(),
            ingress: direction(Direction::Ingress),
            egress: direction(Direction::Egress),
            enforced: enforced.is_ok(),
            reason: enforced.err(),
            held,
            unheld: unheld.map(ToOwned::to_owned),
        }
    }
}

/// The policies that isolate a pod in a direction.
pub(super) fn isolating<'a>(
    index: &'a Index,
    pod: &'a Pod,
    direction: Direction,
) -> impl Iterator<Item = &'a Arc<Policy>> {
    index
        .policies_of(&pod.name.namespace)
        .filter(move |policy| {
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            rules.is_some() && policy.selector.matches(&pod.group.labels)
        })
}

impl From<&palisade_policy::issue::Issue> for Issue {
    fn from(issue: &palisade_policy::issue::Issue) -> Self {
        let (kind, namespace, name) = match &issue.object {
            Key::Namespace(name) => ("Namespace", "", &**name),
            Key::Pod(name) => ("Pod", &*name.namespace, &*name.name),
            Key::Policy(name) => ("NetworkPolicy", &*name.namespace, &*name.name),
            Key::Service(name) => ("Service", &*name.namespace, &*name.name),
        };
        Self {
            file: None,
            object: Some(ObjectName {
                kind: kind.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            field: issue.field.clone(),
            problem: issue.problem.to_string(),
            effect: "compiled".to_owned(),
            message: issue.to_string(),
        }
    }
}
