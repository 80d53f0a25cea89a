//! What is in audit: nothing is denied for it, and the other layer says what would be.

use super::*;
use crate::{model::Mode, table::Isolation};

/// The tables of ingress of a pod: as enforced, as audited.
fn ingress_of(cluster: &Cluster, pod: &str) -> (Isolation, Isolation) {
    let pod = &cluster.0.compiled().pods[&name(pod)];
    (pod.ingress, pod.audited_ingress)
}

fn audited(space: &str, pod_modes: bool) -> Object {
    Object::Namespace(crate::model::Namespace {
        mode: if pod_modes {
            Mode::Enforce
        } else {
            Mode::Audit
        },
        pod_modes,
        ..namespace(space, &format!("ns={space}"))
    })
}

#[test]
fn a_namespace_in_audit_keeps_its_table_and_enforces_nothing() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("pod=b")]))]);
    let (enforced, before) = ingress_of(&cluster, "x/a");
    assert_eq!(before, Isolation::None, "nothing is in audit");
    cluster.apply(audited("x", false));
    assert_eq!(ingress_of(&cluster, "x/a"), (Isolation::None, enforced));
    assert!(cluster.passes("x/c", "x/a", HTTP));
    cluster.apply(Object::Namespace(namespace("x", "ns=x")));
    assert_eq!(ingress_of(&cluster, "x/a"), (enforced, Isolation::None));
    assert!(!cluster.passes("x/c", "x/a", HTTP));
}

#[test]
fn a_staged_policy_neither_denies_nor_allows() {
    let enforced = ingress(from(vec![own_pods("pod=b")]));
    let staged = Policy {
        name: name("x/staged"),
        mode: Mode::Audit,
        ..ingress(from(vec![own_pods("pod=c")]))
    };
    let mut cluster = Cluster::with([staged.clone()]);
    assert!(cluster.passes("x/b", "x/a", HTTP), "as if it were absent");
    let (none, audited) = ingress_of(&cluster, "x/a");
    assert_eq!(none, Isolation::None);
    let cell = cluster.0.compiled().cell(audited, address("10.0.0.2"));
    assert!(!cell.allows(HTTP), "as if it were present");
    cluster.apply(Object::Policy(enforced));
    assert!(!cluster.passes("x/c", "x/a", HTTP), "it opens nothing");
    assert!(cluster.passes("x/b", "x/a", HTTP));
    let (_, audited) = ingress_of(&cluster, "x/a");
    for peer in ["10.0.0.2", "10.0.0.3"] {
        let cell = cluster.0.compiled().cell(audited, address(peer));
        assert!(cell.allows(HTTP), "{peer}: either of both allows");
    }
    let real = Policy {
        mode: Mode::Enforce,
        ..staged
    };
    cluster.apply(Object::Policy(real));
    assert_eq!(ingress_of(&cluster, "x/a").1, Isolation::None);
    assert!(cluster.passes("x/c", "x/a", HTTP));
}

#[test]
fn a_pod_chooses_only_where_its_namespace_lets_it() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("pod=b")]))]);
    cluster.change("x/a", |pod| pod.mode = Mode::Audit);
    assert!(!cluster.passes("x/c", "x/a", HTTP));
    cluster.apply(audited("x", true));
    assert!(cluster.passes("x/c", "x/a", HTTP));
    assert_ne!(ingress_of(&cluster, "x/a").1, Isolation::None);
}

#[test]
fn all_pods_are_in_audit_and_out_of_it_at_once() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("pod=b")]))]);
    let (enforced, _) = ingress_of(&cluster, "x/a");
    cluster.0.set_mode(Mode::Audit);
    assert!(!cluster.0.take_change().pods.is_empty());
    assert_eq!(ingress_of(&cluster, "x/a"), (Isolation::None, enforced));
    cluster.0.set_mode(Mode::Audit);
    assert!(cluster.0.take_change().is_empty());
    cluster.0.set_mode(Mode::Enforce);
    cluster.0.take_change();
    assert_eq!(ingress_of(&cluster, "x/a"), (enforced, Isolation::None));
}
