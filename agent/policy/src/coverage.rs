//! How many pods of each namespace are isolated.

use std::{collections::BTreeMap, sync::Arc};

use crate::{evaluate::enforces, index::Index, population::Population, table::Direction};

/// Of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Its pods, but those of the host network and those that have finished.
    pub pods: usize,
    /// Those whose ingress some policy isolates that is not in audit.
    pub ingress: usize,
    /// The same of egress.
    pub egress: usize,
}

/// Every namespace that is known or has pods, by name.
#[must_use]
pub fn coverage(index: &Index) -> BTreeMap<Arc<str>, Coverage> {
    let known = index
        .namespaces()
        .map(|(name, _)| (name.clone(), Coverage::default()));
    let mut all: BTreeMap<_, _> = known.collect();
    for crowd in Population::of(index).crowds() {
        let coverage = all.entry(crowd.group.namespace.clone()).or_default();
        let pods = crowd.pods.len();
        coverage.pods += pods;
        for (direction, count) in [
            (Direction::Ingress, &mut coverage.ingress),
            (Direction::Egress, &mut coverage.egress),
        ] {
            let mut isolating = crowd.isolating(direction).iter();
            if isolating.any(|policy| enforces(index, crowd.pods[0], policy)) {
                *count += pods;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Mode, Object},
        testing::{namespace, pod, policy},
    };

    #[test]
    fn a_policy_in_audit_covers_nobody() {
        let mut index = Index::default();
        for name in ["empty", "x"] {
            index.apply(Object::Namespace(namespace(name, "")));
        }
        for (name, labels) in [("x/a", "app=a"), ("x/b", "app=b"), ("x/c", "app=b")] {
            index.apply(Object::Pod(pod(name, labels, &[])));
        }
        let mut enforced = policy("x/p", "app=b");
        enforced.ingress = Some(Vec::new());
        let mut staged = policy("x/q", "");
        (staged.egress, staged.mode) = (Some(Vec::new()), Mode::Audit);
        index.apply(Object::Policy(enforced));
        index.apply(Object::Policy(staged));
        let of = |namespace| coverage(&index).get(namespace).copied();
        assert_eq!(of("empty"), Some(Coverage::default()));
        let (pods, ingress, egress) = (3, 2, 0);
        assert_eq!(
            of("x"),
            Some(Coverage {
                pods,
                ingress,
                egress
            })
        );
    }
}
