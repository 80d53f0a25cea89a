//! What is other than in an earlier report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Coverage, Policy, Report};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Of what: `NetworkPolicy NAMESPACE/NAME`, or `Namespace NAME`.
    pub subject: String,
    /// What it is.
    pub change: String,
}

/// Namespaces first, each kind by name.
pub(super) fn between(earlier: &Report, later: &Report) -> Vec<Change> {
    let namespaces = |report: &Report| -> BTreeMap<_, _> {
        let all = report.namespaces.iter();
        all.map(|it| (format!("Namespace {}", it.namespace), it.clone()))
            .collect()
    };
    let policies = |report: &Report| -> BTreeMap<_, _> {
        let all = report.policies.iter();
        let subject = |it: &Policy| format!("NetworkPolicy {}/{}", it.name.namespace, it.name.name);
        all.map(|it| (subject(it), it.clone())).collect()
    };
    let mut changes = differing(&namespaces(earlier), &namespaces(later), of_namespace);
    changes.extend(differing(&policies(earlier), &policies(later), of_policy));
    changes
}

fn differing<T>(
    earlier: &BTreeMap<String, T>,
    later: &BTreeMap<String, T>,
    compare: fn(&T, &T) -> Vec<String>,
) -> Vec<Change> {
    let mut all: Vec<&String> = earlier.keys().chain(later.keys()).collect();
    all.sort();
    all.dedup();
    let each = all.into_iter().flat_map(|subject| {
        let changes = match (earlier.get(subject), later.get(subject)) {
            (None, _) => vec!["is new".to_owned()],
            (_, None) => vec!["is gone".to_owned()],
            (Some(earlier), Some(later)) => compare(earlier, later),
        };
        changes.into_iter().map(|change| Change {
            subject: subject.clone(),
            change,
        })
    });
    each.collect()
}

fn of_namespace(earlier: &Coverage, later: &Coverage) -> Vec<String> {
    let text = |direction: &str, before: usize, after: usize| {
        let (all_before, all) = (earlier.pods, later.pods);
        format!(
            "{direction} of {after} of {all} pods is isolated, before of {before} of {all_before}"
        )
    };
    let mut changes = Vec::new();
    // Pods come and go: a change is that another part of them is isolated.
    for (direction, before, after) in [
        ("ingress", earlier.ingress, later.ingress),
        ("egress", earlier.egress, later.egress),
    ] {
        if before * later.pods != after * earlier.pods {
            changes.push(text(direction, before, after));
        }
    }
    changes
}

fn of_policy(earlier: &Policy, later: &Policy) -> Vec<String> {
    let mut changes = Vec::new();
    if earlier.spec != later.spec {
        changes.push("says something else".to_owned());
    }
    match (earlier.audit, later.audit) {
        (false, true) => changes.push("is in audit".to_owned()),
        (true, false) => changes.push("is enforced".to_owned()),
        _ => {}
    }
    for (what, before, after) in [
        ("owner", &earlier.owner, &later.owner),
        ("reason", &earlier.reason, &later.reason),
    ] {
        if before != after {
            let named = |it: &Option<String>| it.clone().unwrap_or_else(|| "none".to_owned());
            changes.push(format!(
                "{what}: {}, before {}",
                named(after),
                named(before)
            ));
        }
    }
    if earlier.usage.state != later.usage.state {
        let (after, before) = (&later.usage.state, &earlier.usage.state);
        changes.push(format!("use: {after}, before {before}"));
    }
    for broad in later.broad.iter().filter(|it| !earlier.broad.contains(it)) {
        changes.push(format!("is wider: {broad}"));
    }
    changes
}
