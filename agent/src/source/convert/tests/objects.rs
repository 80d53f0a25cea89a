//! Namespaces, nodes, pods and Services.

use std::net::IpAddr;

use palisade_policy::model::{
    Labels, Mode, NamedPort, Namespace, Pod, Protocol, Service, ServicePort, TargetPort,
};
use serde_json::{Value, json};

use super::{super::*, object};

fn pod_with_issues(
    metadata: Value,
    spec: Value,
    status: Value,
) -> Result<(Pod, Vec<String>), Vec<Issue>> {
    let mut document = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "x"}, "spec": spec, "status": status,
    });
    let fields = document["metadata"].as_object_mut().unwrap();
    fields.extend(metadata.as_object().unwrap().clone());
    let mut converted = convert(&document).expect("identified");
    match converted.objects.pop() {
        Some(Object::Pod(pod)) => Ok((
            pod,
            converted
                .issues
                .into_iter()
                .map(|issue| issue.field)
                .collect(),
        )),
        None => {
            assert_eq!(
                converted.refused,
                [Key::new(Kind::Pod, Name::new("x", "a"))]
            );
            Err(converted.issues)
        }
        other => panic!("{other:?}"),
    }
}

fn pod(metadata: Value, spec: Value, status: Value) -> Pod {
    let (pod, issues) = pod_with_issues(metadata, spec, status).expect("not refused");
    assert_eq!(issues, [""; 0]);
    pod
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|&(key, value)| (key.into(), value.into()))
        .collect()
}

#[test]
fn a_namespace_always_has_its_name_label() {
    for (labels_given, expected) in [
        (json!(null), labels(&[("kubernetes.io/metadata.name", "x")])),
        (
            json!({"a": "b", "c": null}),
            labels(&[("a", "b"), ("c", ""), ("kubernetes.io/metadata.name", "x")]),
        ),
        (
            json!({"kubernetes.io/metadata.name": "y"}),
            labels(&[("kubernetes.io/metadata.name", "x")]),
        ),
    ] {
        let document = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": labels_given}});
        let expected = Namespace::new("x".into(), expected);
        assert_eq!(object(&document), (Object::Namespace(expected), vec![]));
    }
}

#[test]
fn annotations_put_a_namespace_in_audit_and_what_cannot_be_read_enforces() {
    let namespace = |annotations: Value| {
        let document = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "x", "annotations": annotations},
        });
        match object(&document) {
            (Object::Namespace(it), issues) => {
                let effects = issues.into_iter().map(|issue| issue.effect).collect();
                ((it.mode, it.pod_modes, it.mode_until), effects)
            }
            other => panic!("{other:?}"),
        }
    };
    let enforced = (Mode::Enforce, false, None);
    for (annotations, expected, effects) in [
        (json!({}), enforced, vec![]),
        (json!({"palisade/mode": "enforce"}), enforced, vec![]),
        (
            json!({"palisade/mode": "audit"}),
            (Mode::Audit, false, None),
            vec![],
        ),
        (
            json!({"palisade/mode": "audit", "palisade/mode-until": "2026-01-02T03:04:05Z"}),
            (Mode::Audit, false, Some(1_767_323_045)),
            vec![],
        ),
        (
            json!({"palisade/mode": "audit", "palisade/mode-until": "2026-01-02T03:04:05.001Z"}),
            (Mode::Audit, false, Some(1_767_323_046)),
            vec![],
        ),
        (
            json!({"palisade/pod-mode": "allowed"}),
            (Mode::Enforce, true, None),
            vec![],
        ),
        (
            json!({"palisade/mode": "Audit"}),
            enforced,
            vec![Effect::Enforced],
        ),
        (
            json!({"palisade/mode": 1}),
            enforced,
            vec![Effect::Enforced],
        ),
        (
            json!({"palisade/pod-mode": "yes"}),
            enforced,
            vec![Effect::Enforced],
        ),
        (
            json!({"palisade/mode": "audit", "palisade/mode-until": "tomorrow"}),
            enforced,
            vec![Effect::Enforced],
        ),
    ] {
        assert_eq!(
            namespace(annotations.clone()),
            (expected, effects),
            "{annotations}"
        );
    }
}

#[test]
fn a_pod_is_reduced_to_what_policy_speaks_of() {
    let pod = pod(
        json!({
            "uid": "u1", "labels": {"app": "a", "n": null},
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:06Z",
            "annotations": {"kubernetes.io/config.hash": "h1", "other": 7},
        }),
        json!({
            "nodeName": "n1", "hostNetwork": false,
            "containers": [
                {"name": "c", "ports": [
                    {"name": "http", "containerPort": 80}, {"containerPort": 81},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ]},
                {"name": "d", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]},
                {"name": "e"},
            ],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]},
                {"name": "i", "ports": [{"name": "init", "containerPort": 1}]},
            ],
        }),
        json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
    );
    let port = |name: &str, protocol, port| NamedPort {
        name: name.into(),
        protocol,
        port,
    };
    let addresses: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    assert_eq!(
        pod,
        Pod {
            name: Name::new("x", "a"),
            uid: "u1".into(),
            labels: labels(&[("app", "a"), ("n", "")]),
            node: Some("n1".into()),
            addresses,
            config_hash: Some("h1".into()),
            attached: false,
            host_network: false,
            finished: false,
            terminating: true,
            ports: vec![
                port("dns", Protocol::Udp, 53),
                port("http", Protocol::Tcp, 80),
                port("http", Protocol::Tcp, 8080),
                port("proxy", Protocol::Tcp, 15001),
            ],
            created: 1_767_323_045,
            mode: Mode::Enforce,
        }
    );
}

#[test]
fn a_pod_may_lack_everything_but_its_name() {
    for empty in [json!(null), json!({})] {
        let pod = pod(json!({"labels": null}), empty.clone(), empty.clone());
        assert_eq!((pod.uid.as_ref(), pod.node, pod.created), ("x/a", None, 0));
        assert_eq!(
            (pod.labels, pod.addresses, pod.ports),
            (labels(&[]), vec![], vec![])
        );
        assert!(!pod.host_network && !pod.finished && !pod.terminating);
    }
}

#[test]
fn the_single_address_counts_where_the_list_is_missing() {
    for (status, expected) in [
        (json!({"podIP": "10.0.0.1"}), &["10.0.0.1"][..]),
        (json!({"podIP": "010.0.0.01", "podIPs": []}), &["10.0.0.1"]),
        (json!({"podIP": "10.0.0.1", "podIPs": null}), &["10.0.0.1"]),
        (json!({"podIP": "", "podIPs": []}), &[]),
        (json!({"podIPs": [{"ip": "fd00::1"}]}), &["fd00::1"]),
        (
            json!({"podIPs": [{"ip": "fd00::1"}, {"ip": "fd00::1"}]}),
            &["fd00::1"],
        ),
    ] {
        let pod = pod(json!({}), json!({}), status.clone());
        let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(pod.addresses, expected, "{status}");
    }
}

#[test]
fn phases_end_a_pod() {
    for (phase, finished) in [
        (json!("Pending"), false),
        (json!("Running"), false),
        (json!("Unknown"), false),
        (json!(null), false),
        (json!("Succeeded"), true),
        (json!("Failed"), true),
    ] {
        let pod = pod(
            json!({}),
            json!({"hostNetwork": true}),
            json!({"phase": phase}),
        );
        assert_eq!(pod.finished, finished, "{phase}");
        assert!(pod.host_network);
    }
}

#[test]
fn unreadable_details_of_a_pod_are_left_out() {
    for (metadata, spec, status, field) in [
        (
            json!({"creationTimestamp": "today"}),
            json!({}),
            json!({}),
            "metadata.creationTimestamp",
        ),
        (json!({"uid": 7}), json!({}), json!({}), "metadata.uid"),
        (
            json!({}),
            json!({"nodeName": 1}),
            json!({}),
            "spec.nodeName",
        ),
        (
            json!({}),
            json!({"containers": {}}),
            json!({}),
            "spec.containers",
        ),
        (
            json!({}),
            json!({"containers": [{"ports": 1}]}),
            json!({}),
            "spec.containers[0].ports",
        ),
        (
            json!({}),
            json!({"containers": [{"ports": [null]}]}),
            json!({}),
            "spec.containers[0].ports[0]",
        ),
        (
            json!({}),
            json!({"containers": [{"ports": [{"name": "a"}]}]}),
            json!({}),
            "spec.containers[0].ports[0].containerPort",
        ),
        (
            json!({}),
            json!({"containers": [{"ports": [{"name": "a", "containerPort": 1, "protocol": "X"}]}]}),
            json!({}),
            "spec.containers[0].ports[0].protocol",
        ),
        (
            json!({}),
            json!({}),
            json!({"podIP": "10.0.0"}),
            "status.podIP",
        ),
        (
            json!({}),
            json!({}),
            json!({"podIPs": [{"ip": 1}]}),
            "status.podIPs[0].ip",
        ),
        (
            json!({}),
            json!({}),
            json!({"podIPs": [{}]}),
            "status.podIPs[0]",
        ),
        (
            json!({}),
            json!({}),
            json!({"podIPs": "10.0.0.1"}),
            "status.podIPs",
        ),
        (
            json!({}),
            json!({}),
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
            "status.podIPs[1].ip",
        ),
    ] {
        let (_, issues) = pod_with_issues(metadata, spec, status).expect("not refused");
        assert_eq!(issues, [field]);
    }
}

#[test]
fn a_pod_whose_labels_or_network_are_unreadable_is_refused() {
    for (metadata, spec, status, field) in [
        (
            json!({"labels": {"a": 1}}),
            json!({}),
            json!({}),
            "metadata.labels.a",
        ),
        (
            json!({"labels": {"a": ["b"]}}),
            json!({}),
            json!({}),
            "metadata.labels.a",
        ),
        (
            json!({"labels": "a"}),
            json!({}),
            json!({}),
            "metadata.labels",
        ),
        (
            json!({}),
            json!({"hostNetwork": "true"}),
            json!({}),
            "spec.hostNetwork",
        ),
        (json!({}), json!("x"), json!({}), "spec"),
        (json!({}), json!({}), json!([]), "status"),
        (json!({}), json!({}), json!({"phase": 1}), "status.phase"),
    ] {
        let issues = pod_with_issues(metadata, spec, status).expect_err("refused");
        assert_eq!(issues.len(), 1);
        assert_eq!(
            (issues[0].field.as_str(), issues[0].effect),
            (field, Effect::ObjectKept)
        );
    }
}

#[test]
fn a_service_has_every_address_that_may_be_translated() {
    for (spec, status, expected) in [
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd96::1"]}),
            json!({}),
            &["10.96.0.1", "fd96::1"][..],
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            json!({}),
            &[],
        ),
        (json!({"clusterIP": ""}), json!(null), &[]),
        (
            json!({"type": "ExternalName", "externalName": "example.com"}),
            json!({}),
            &[],
        ),
        (
            json!({"externalIPs": ["192.0.2.1"]}),
            json!({"loadBalancer": {}}),
            &["192.0.2.1"],
        ),
        (
            json!({}),
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "lb"}]}}),
            &["192.0.2.2"],
        ),
        (json!(null), json!(null), &[]),
    ] {
        let document = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "x"}, "spec": spec, "status": status,
        });
        let addresses = expected.iter().map(|ip| ip.parse().unwrap()).collect();
        let expected = Service {
            name: Name::new("x", "s"),
            addresses,
            selector: None,
            ports: Vec::new(),
        };
        assert_eq!(object(&document), (Object::Service(expected), vec![]));
    }
}

#[test]
fn a_service_leads_to_what_it_selects_at_the_same_port_unless_it_says_another() {
    let service = |spec: Value| {
        let document = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "x"}, "spec": spec});
        match object(&document) {
            (Object::Service(service), issues) => (service, issues),
            other => panic!("{other:?}"),
        }
    };
    let (found, issues) = service(json!({"selector": {"app": "a"}, "ports": [
        {"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
        {"port": 443, "targetPort": "https"}, {"port": 81, "targetPort": 0},
    ]}));
    let port = |name: &str, protocol, port, target| ServicePort {
        name: name.into(),
        protocol,
        port,
        target,
    };
    let expected = [
        port("", Protocol::Tcp, 80, TargetPort::Number(80)),
        port("dns", Protocol::Udp, 53, TargetPort::Number(5353)),
        port("", Protocol::Tcp, 443, TargetPort::Named("https".into())),
        port("", Protocol::Tcp, 81, TargetPort::Number(81)),
    ];
    assert_eq!((&found.ports[..], issues), (&expected[..], vec![]));
    assert_eq!(found.selector.map(|it| it.requirements().len()), Some(1));
    let (other, _) = service(json!({"selector": {}, "type": "ClusterIP"}));
    assert_eq!(other.selector, None);
    let (other, _) = service(json!({"selector": {"app": "a"}, "type": "ExternalName"}));
    assert_eq!(other.selector, None);
    let (broken, issues) =
        service(json!({"selector": {"app": 1}, "ports": [{"port": 0}, {"port": 1, "name": 2}]}));
    assert_eq!((broken.ports.len(), issues.len()), (0, 3));
}

#[test]
fn a_node_has_its_addresses_but_not_its_names() {
    let document = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "namespace": "ignored"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "192.168.0.1"}, {"type": "Hostname", "address": "n"},
        {"type": "ExternalIP", "address": "192.0.2.1"}, {"type": "InternalIP", "address": "fd00::1"},
    ]}});
    let addresses = ["192.168.0.1", "192.0.2.1", "fd00::1"]
        .map(|ip| ip.parse().unwrap())
        .to_vec();
    let expected = crate::source::Node {
        name: "n".into(),
        addresses,
    };
    assert_eq!(object(&document), (Object::Node(expected), vec![]));
}
