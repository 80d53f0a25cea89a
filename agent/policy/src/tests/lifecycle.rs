//! Pods that come and go, and who owns an address.

use super::*;

/// A client whose address is taken over by another pod.
fn lone_client() -> Cluster {
    Cluster::with([ingress(from(vec![own_pods("role=client")]))])
}

fn client(name: &str, labels: &str) -> Pod {
    pod(name, labels, &["10.0.9.9"])
}

#[test]
fn a_pod_of_the_host_network_is_no_subject_and_no_peer() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("")])), egress(vec![])]);
    cluster.change("x/b", |pod| pod.host_network = true);
    assert!(!cluster.passes("10.0.0.2", "x/a", HTTP));
    assert!(cluster.passes("10.0.0.3", "x/a", HTTP));
    cluster.change("x/a", |pod| pod.host_network = true);
    assert!(!cluster.0.compiled().pods.contains_key(&name("x/a")));
    assert!(cluster.passes(STRANGER, "10.0.0.1", HTTP));
}

#[test]
fn a_finished_pod_is_no_subject_and_no_peer() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("pod=b")]))]);
    cluster.change("x/b", |pod| pod.finished = true);
    assert!(!cluster.passes("10.0.0.2", "x/a", HTTP));
    cluster.change("x/a", |pod| pod.finished = true);
    assert!(cluster.passes(STRANGER, "10.0.0.1", HTTP));
}

#[test]
fn a_terminating_pod_counts_until_it_is_gone() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("pod=b")]))]);
    cluster.change("x/b", |pod| pod.terminating = true);
    assert!(cluster.passes("x/b", "x/a", HTTP));
    cluster.change("x/a", |pod| pod.terminating = true);
    assert!(!cluster.passes("x/c", "x/a", HTTP));
    cluster.delete(&Key::Pod(name("x/b")));
    assert!(!cluster.passes("10.0.0.2", "x/a", HTTP));
}

#[test]
fn the_newest_pod_that_claims_an_address_owns_it() {
    let mut cluster = lone_client();
    cluster.apply(Object::Pod(Pod {
        created: 1,
        ..client("x/old", "role=client")
    }));
    assert!(cluster.passes("10.0.9.9", "x/a", HTTP));
    cluster.apply(Object::Pod(Pod {
        created: 2,
        ..client("y/new", "")
    }));
    assert!(!cluster.passes("10.0.9.9", "x/a", HTTP));
    // Its claim alone goes.
    cluster.delete(&Key::Pod(name("y/new")));
    assert!(cluster.passes("10.0.9.9", "x/a", HTTP));
}

#[test]
fn a_late_deletion_of_the_former_owner_takes_nothing_from_the_present_one() {
    let mut cluster = lone_client();
    cluster.apply(Object::Pod(Pod {
        created: 1,
        ..client("y/old", "")
    }));
    cluster.apply(Object::Pod(Pod {
        created: 2,
        ..client("x/new", "role=client")
    }));
    cluster.change("y/old", |pod| pod.finished = true);
    assert!(cluster.passes("10.0.9.9", "x/a", HTTP));
    cluster.delete(&Key::Pod(name("y/old")));
    assert!(cluster.passes("10.0.9.9", "x/a", HTTP));
}

#[test]
fn a_pod_that_is_not_terminating_owns_an_address_before_a_newer_one_that_is() {
    let mut cluster = lone_client();
    cluster.apply(Object::Pod(Pod {
        created: 2,
        terminating: true,
        ..client("y/leaving", "")
    }));
    assert!(!cluster.passes("10.0.9.9", "x/a", HTTP));
    cluster.apply(Object::Pod(Pod {
        created: 1,
        ..client("x/staying", "role=client")
    }));
    assert!(cluster.passes("10.0.9.9", "x/a", HTTP));
    cluster.change("x/staying", |pod| pod.terminating = true);
    assert!(!cluster.passes("10.0.9.9", "x/a", HTTP));
}

#[test]
fn the_pod_that_the_network_plugin_gave_an_address_owns_it_before_a_newer_one() {
    let mut cluster = lone_client();
    cluster.apply(Object::Pod(Pod {
        created: 2,
        ..client("y/newer", "")
    }));
    assert!(!cluster.passes("10.0.9.9", "x/a", HTTP));
    cluster.apply(Object::Pod(Pod {
        created: 1,
        attached: true,
        ..client("x/older", "role=client")
    }));
    assert!(cluster.passes("10.0.9.9", "x/a", HTTP));
    cluster.change("x/older", |pod| pod.attached = false);
    assert!(!cluster.passes("10.0.9.9", "x/a", HTTP));
}

#[test]
fn of_pods_created_in_the_same_second_the_later_uid_owns_the_address() {
    let mut cluster = lone_client();
    for (name, uid, labels) in [("x/one", "2", "role=client"), ("y/two", "1", "")] {
        cluster.apply(Object::Pod(Pod {
            uid: uid.into(),
            ..client(name, labels)
        }));
    }
    assert!(cluster.passes("10.0.9.9", "x/a", HTTP));
}

#[test]
fn a_pod_that_lost_its_address_stays_enforced_without_it() {
    let mut cluster = Cluster::with([ingress(vec![])]);
    cluster.apply(Object::Pod(Pod {
        created: 9,
        ..pod("y/thief", "", &["10.0.0.1"])
    }));
    let pods = &cluster.0.compiled().pods;
    assert_eq!(pods[&name("x/a")].addresses, [address("fd00:0::1")]);
    assert_ne!(pods[&name("x/a")].ingress, Isolation::None);
    assert_eq!(pods[&name("y/thief")].addresses, [address("10.0.0.1")]);
    assert_eq!(cluster.0.issues().len(), 1);
    cluster.delete(&Key::Pod(name("y/thief")));
    assert_eq!(cluster.0.compiled().pods[&name("x/a")].addresses.len(), 2);
}

#[test]
fn a_pod_is_a_subject_once_it_has_an_address() {
    let mut cluster = Cluster::with([ingress(vec![])]);
    cluster.change("x/a", |pod| pod.addresses.clear());
    assert!(!cluster.0.compiled().pods.contains_key(&name("x/a")));
    let waiting: Vec<_> = cluster.0.waiting().cloned().collect();
    assert_eq!(waiting, [name("x/a")]);
    cluster.change("x/a", |pod| pod.addresses = vec![address("10.0.0.77")]);
    assert!(cluster.0.waiting().next().is_none());
    assert!(!cluster.passes("x/b", "x/a", HTTP));
    assert!(cluster.passes("x/b", "10.0.0.1", HTTP));
}

#[test]
fn pods_of_other_nodes_are_peers_and_not_listed() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("pod=b")]))]);
    cluster.change("x/b", |pod| pod.node = Some("there".into()));
    cluster.change("x/c", |pod| pod.node = None);
    assert_eq!(cluster.reaching("x/a", HTTP), ["x/b"]);
    let listed: Vec<_> = cluster.0.compiled().pods.keys().cloned().collect();
    assert_eq!(listed, ["x/a", "y/a", "y/b", "y/c"].map(name));
}

#[test]
fn a_recreated_pod_is_another_one() {
    let mut cluster = Cluster::with([ingress(from(vec![own_pods("pod=b")]))]);
    cluster.change("x/b", |pod| {
        pod.uid = "another".into();
        pod.addresses = vec![address("10.0.0.99")];
    });
    assert!(cluster.passes("10.0.0.99", "x/a", HTTP));
    assert!(!cluster.passes("10.0.0.2", "x/a", HTTP));
    assert_eq!(&*cluster.0.compiled().pods[&name("x/b")].uid, "another");
}
