//! Who is meant by a pod: all pods of its namespace with the same stable labels, and nobody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    index::Index,
    model::{Labels, Name, Operator, Requirement, Selector},
};

use super::Actor;

/// Labels that controllers put on pods and that name one revision or one pod, and those that say which release of a
/// program it is. A policy that selects by them selects nothing after the next rollout.
const UNSTABLE: [&str; 14] = [
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "chart",
    "controller-revision-hash",
    "controller-uid",
    "helm.sh/chart",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Whether a label says what a pod is, and not which one, from when, or where.
#[must_use]
pub fn is_stable(key: &str) -> bool {
    !UNSTABLE.contains(&key)
        && !key.starts_with("topology.kubernetes.io/")
        && !key.starts_with("failure-domain.beta.kubernetes.io/")
}

/// The actors of a cluster.
pub struct Actors {
    /// Of each namespace the sets of stable labels that its pods have.
    sets: BTreeMap<Arc<str>, BTreeSet<Labels>>,
}

impl Actors {
    /// Those of the pods that policies can speak of.
    #[must_use]
    pub fn of(index: &Index) -> Self {
        let mut sets: BTreeMap<Arc<str>, BTreeSet<Labels>> = BTreeMap::new();
        for pod in index.pods().filter(|pod| pod.counts()) {
            let of_namespace = sets.entry(pod.name.namespace.clone()).or_default();
            of_namespace.insert(stable(&pod.group.labels));
        }
        Self { sets }
    }

    /// The actor that a pod is of, under what users call it; `None` if policies cannot speak of the pod.
    #[must_use]
    pub fn actor(&self, index: &Index, pod: &Name, called: &Name) -> Option<Actor> {
        let pod = index.pod(pod).filter(|pod| pod.counts())?;
        let labels = stable(&pod.group.labels);
        let others = self.sets.get(&pod.name.namespace);
        Some(Actor {
            namespace: pod.name.namespace.clone(),
            selector: selector(&labels, others.into_iter().flatten()),
            name: called.name.clone(),
        })
    }
}

fn stable(labels: &Labels) -> Labels {
    let stable = labels.iter().filter(|(key, _)| is_stable(key));
    stable
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// All of these labels. Whoever has all of them and more is kept out by a key that is not among them.
fn selector<'a>(labels: &Labels, others: impl Iterator<Item = &'a Labels>) -> Selector {
    let mut requirements: Vec<_> = labels
        .iter()
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.clone()]),
        })
        .collect();
    for other in others {
        let matches = Selector::new(requirements.clone()).matches(other);
        let more = other.keys().find(|key| !labels.contains_key(*key));
        if let Some(key) = more.filter(|_| matches) {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::DoesNotExist,
            });
        }
    }
    Selector::new(requirements)
}
