//! Selectors of pods and namespaces.

use super::*;

#[test]
fn an_empty_pod_selector_is_every_pod_of_the_own_namespace() {
    let cluster = Cluster::with([ingress(from(vec![own_pods("")]))]);
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/b", "x/c"]);
}

#[test]
fn an_empty_namespace_selector_is_every_pod_and_no_stranger() {
    let cluster = Cluster::with([ingress(from(vec![pods_of("", "")]))]);
    let pods = ["x/b", "x/c", "y/a", "y/b", "y/c"];
    assert_eq!(cluster.reaching("x/a", PING), pods);
}

#[test]
fn selectors_of_one_peer_must_both_match_and_of_two_either() {
    let one = Cluster::with([ingress(from(vec![pods_of("ns=y", "pod=b")]))]);
    assert_eq!(one.reaching("x/a", HTTP), ["y/b"]);
    let two = Cluster::with([ingress(from(vec![pods_of("ns=y", ""), own_pods("pod=b")]))]);
    assert_eq!(two.reaching("x/a", HTTP), ["x/b", "y/a", "y/b", "y/c"]);
}

#[test]
fn a_peer_without_namespaces_is_of_the_own_namespace_in_each_policy() {
    let same = |name| Policy {
        ingress: Some(from(vec![own_pods("pod=b")])),
        ..policy(name, "pod=a")
    };
    let cluster = Cluster::with([same("x/same"), same("y/same")]);
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/b"]);
    assert_eq!(cluster.reaching("y/a", HTTP), ["y/b"]);
}

#[test]
fn negative_operators_match_pods_without_the_key() {
    let without = |operator| {
        let peer = Peer::Pods {
            namespaces: None,
            pods: requires("tier", operator),
        };
        let mut cluster = Cluster::with([ingress(from(vec![peer]))]);
        cluster.change("x/b", |pod| {
            pod.labels.insert("tier".into(), "gold".into());
        });
        cluster.reaching("x/a", HTTP)
    };
    assert_eq!(without(Operator::NotIn(vec!["gold".into()])), ["x/c"]);
    assert_eq!(without(Operator::NotIn(vec!["tin".into()])), ["x/b", "x/c"]);
    assert_eq!(without(Operator::DoesNotExist), ["x/c"]);
    assert_eq!(without(Operator::Exists), ["x/b"]);
    assert_eq!(
        without(Operator::In(vec!["gold".into(), "tin".into()])),
        ["x/b"]
    );
    assert!(without(Operator::In(vec![])).is_empty());
}

#[test]
fn requirements_of_a_selector_must_all_hold() {
    let both = Selector::new(vec![
        Requirement {
            key: "pod".into(),
            operator: Operator::NotIn(vec!["b".into()]),
        },
        Requirement {
            key: "pod".into(),
            operator: Operator::Exists,
        },
    ]);
    let peer = Peer::Pods {
        namespaces: Some(Selector::default()),
        pods: both,
    };
    let cluster = Cluster::with([ingress(from(vec![peer]))]);
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/c", "y/a", "y/c"]);
}

#[test]
fn a_namespace_is_found_by_the_label_every_namespace_has() {
    let peer = pods_of("kubernetes.io/metadata.name=y", "");
    let cluster = Cluster::with([ingress(from(vec![peer]))]);
    assert_eq!(cluster.reaching("x/a", HTTP), ["y/a", "y/b", "y/c"]);
}

#[test]
fn a_relabelled_namespace_is_another_peer_and_the_same_subject() {
    let mut cluster = Cluster::with([ingress(from(vec![pods_of("team=red", "")]))]);
    assert!(cluster.reaching("x/a", HTTP).is_empty());
    cluster.apply(Object::Namespace(namespace("y", "team=red")));
    assert_eq!(cluster.reaching("x/a", HTTP), ["y/a", "y/b", "y/c"]);
    cluster.apply(Object::Namespace(namespace("x", "team=red")));
    cluster.apply(Object::Namespace(namespace("y", "")));
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/b", "x/c"]);
}

#[test]
fn no_namespace_selector_matches_a_namespace_that_is_not_known() {
    let other = || Peer::Pods {
        namespaces: Some(requires("ns", Operator::NotIn(vec!["x".into()]))),
        pods: Selector::default(),
    };
    let mut cluster = Cluster::with([ingress(from(vec![other(), pods_of("", "pod=b")]))]);
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/b", "y/a", "y/b", "y/c"]);
    cluster.delete(&Key::Namespace("y".into()));
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/b"]);
    cluster.apply(Object::Namespace(namespace("y", "")));
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/b", "y/a", "y/b", "y/c"]);
}

#[test]
fn a_relabelled_pod_is_another_peer_and_another_subject() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("role=client")]))]);
    cluster.change("x/c", |pod| {
        pod.labels.insert("role".into(), "client".into());
    });
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/c"]);
    cluster.change("x/a", |pod| pod.labels.clear());
    assert_eq!(cluster.reaching("x/a", HTTP).len(), 6);
    cluster.change("x/b", |pod| pod.labels = selected());
    assert_eq!(cluster.reaching("x/b", HTTP), ["x/c"]);
}

fn selected() -> crate::model::Labels {
    crate::testing::labels("pod=a")
}

#[test]
fn an_edited_selector_lets_go_of_the_old_and_takes_the_new() {
    let mut cluster = Cluster::with([ingress(vec![])]);
    let moved = Policy {
        selector: selector("pod=b"),
        ..ingress(vec![])
    };
    cluster.apply(Object::Policy(moved));
    assert_eq!(cluster.reaching("x/a", HTTP).len(), 6);
    assert!(cluster.reaching("x/b", HTTP).is_empty());
}
