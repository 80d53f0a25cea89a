use std::net::IpAddr;

use palisade_policy::model::{
    Block, Labels, NamedPort, Operator, Peer, Peers, Pod, Policy, Port, PortNumber, Ports,
    Protocol, Requirement, Rule, Selector, Service,
};
use serde_json::json;

use super::*;

fn object(document: &Value) -> (Object, Vec<Issue>) {
    let mut converted = convert(document).expect("identified");
    assert_eq!(converted.refused, []);
    assert_eq!(converted.objects.len(), 1);
    (converted.objects.remove(0), converted.issues)
}

fn policy_with_issues(spec: Value) -> (Policy, Vec<Issue>) {
    let document = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x"}, "spec": spec,
    });
    match object(&document) {
        (Object::Policy(policy), issues) => (policy, issues),
        (other, _) => panic!("{other:?}"),
    }
}

/// A policy that is valid.
fn policy(spec: Value) -> Policy {
    let (policy, issues) = policy_with_issues(spec);
    assert_eq!(issues, []);
    policy
}

/// A policy that is not: the field and the effect of each issue.
fn flawed(spec: Value) -> (Policy, Vec<(String, Effect)>) {
    let (policy, issues) = policy_with_issues(spec);
    let issues = issues
        .into_iter()
        .map(|issue| (issue.field, issue.effect))
        .collect();
    (policy, issues)
}

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

fn equals(key: &str, value: &str) -> Requirement {
    Requirement {
        key: key.into(),
        operator: Operator::In(vec![value.into()]),
    }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

const ANY: Rule = Rule {
    peers: Peers::Any,
    ports: Ports::Any,
};
const NOTHING: Rule = Rule {
    peers: Peers::Of(Vec::new()),
    ports: Ports::Of(Vec::new()),
};

#[test]
fn a_policy_without_types_isolates_ingress_and_where_it_has_rules_egress() {
    for (spec, ingress, egress) in [
        (Value::Null, true, false),
        (json!({}), true, false),
        (json!({"podSelector": {}}), true, false),
        (json!({"egress": []}), true, false),
        (json!({"egress": null}), true, false),
        (json!({"egress": [{}]}), true, true),
        (json!({"policyTypes": null, "egress": [{}]}), true, true),
        (json!({"policyTypes": [], "egress": [{}]}), true, true),
        (json!({"policyTypes": []}), true, false),
        (
            json!({"policyTypes": ["Ingress"], "egress": [{}]}),
            true,
            false,
        ),
        (
            json!({"policyTypes": ["Egress"], "ingress": [{}]}),
            false,
            true,
        ),
        (json!({"policyTypes": ["Egress"]}), false, true),
        (json!({"policyTypes": ["Ingress", "Ingress"]}), true, false),
        (json!({"policyTypes": ["Egress", "Ingress"]}), true, true),
    ] {
        let policy = policy(spec.clone());
        assert_eq!(
            (policy.ingress.is_some(), policy.egress.is_some()),
            (ingress, egress),
            "{spec}"
        );
    }
}

#[test]
fn absent_null_and_empty_selectors_select_everything() {
    for spec in [
        Value::Null,
        json!({}),
        json!({"podSelector": null}),
        json!({"podSelector": {}}),
        json!({"podSelector": {"matchLabels": null}}),
        json!({"podSelector": {"matchLabels": {}, "matchExpressions": null}}),
        json!({"podSelector": {"matchExpressions": []}}),
    ] {
        assert_eq!(policy(spec.clone()).selector, Selector::default(), "{spec}");
    }
}

#[test]
fn absent_null_and_empty_rules_allow_nothing() {
    for spec in [
        json!({"policyTypes": ["Ingress", "Egress"]}),
        json!({"policyTypes": ["Ingress", "Egress"], "ingress": null, "egress": null}),
        json!({"policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []}),
    ] {
        let policy = policy(spec.clone());
        assert_eq!(
            (policy.ingress, policy.egress),
            (Some(vec![]), Some(vec![])),
            "{spec}"
        );
    }
}

#[test]
fn absent_null_and_empty_peers_and_ports_do_not_restrict() {
    for rule in [
        json!({}),
        json!({"from": null, "ports": null}),
        json!({"from": [], "ports": []}),
        json!({"from": null}),
        json!({"ports": []}),
    ] {
        assert_eq!(
            policy(json!({"ingress": [rule.clone()]})).ingress,
            Some(vec![ANY]),
            "{rule}"
        );
    }
    assert_eq!(
        policy(json!({"egress": [{"to": [], "ports": null}]})).egress,
        Some(vec![ANY])
    );
}

fn ports(ports: Value) -> Ports {
    let mut rules = policy(json!({"ingress": [{"ports": ports}]}))
        .ingress
        .unwrap();
    rules.remove(0).ports
}

#[test]
fn ports_have_every_form_of_the_api() {
    let of = |protocol, number| Ports::Of(vec![Port { protocol, number }]);
    use {PortNumber::*, Protocol::*};
    for (given, expected) in [
        (json!([{}]), of(Tcp, All)),
        (
            json!([{"protocol": null, "port": null, "endPort": null}]),
            of(Tcp, All),
        ),
        (json!([{"protocol": "UDP"}]), of(Udp, All)),
        (json!([{"port": 80}]), of(Tcp, Range(80, 80))),
        (
            json!([{"port": 1, "endPort": 65535, "protocol": "SCTP"}]),
            of(Sctp, Range(1, 65535)),
        ),
        (json!([{"port": 80, "endPort": 80}]), of(Tcp, Range(80, 80))),
        (json!([{"port": "http"}]), of(Tcp, Named("http".into()))),
        (
            json!([{"port": "serve-80-tcp", "protocol": "UDP"}]),
            of(Udp, Named("serve-80-tcp".into())),
        ),
    ] {
        assert_eq!(ports(given.clone()), expected, "{given}");
    }
}

#[test]
fn an_unreadable_port_matches_nothing_and_leaves_the_others() {
    for bad in [
        json!(null),
        json!(80),
        json!("http"),
        json!([]),
        json!({"port": 0}),
        json!({"port": 65536}),
        json!({"port": -1}),
        json!({"port": 80.5}),
        json!({"port": "80"}),
        json!({"port": ""}),
        json!({"port": "UPPER"}),
        json!({"port": "a--b"}),
        json!({"port": "sixteen-letters-"}),
        json!({"port": "-a"}),
        json!({"port": true}),
        json!({"port": [80]}),
        json!({"port": {"number": 80}}),
        json!({"protocol": "tcp"}),
        json!({"protocol": ""}),
        json!({"protocol": "ICMP"}),
        json!({"protocol": 6}),
        json!({"endPort": 90}),
        json!({"port": 80, "endPort": 79}),
        json!({"port": 80, "endPort": 0}),
        json!({"port": 80, "endPort": "90"}),
        json!({"port": "http", "endPort": 90}),
        json!({"port": 80, "endport": 90}),
        json!({"port": 18446744073709551616_f64}),
    ] {
        let (policy, issues) = flawed(json!({"ingress": [{"ports": [bad.clone(), {"port": 53}]}]}));
        let kept = Port {
            protocol: Protocol::Tcp,
            number: PortNumber::Range(53, 53),
        };
        assert_eq!(
            policy.ingress.unwrap()[0].ports,
            Ports::Of(vec![kept]),
            "{bad}"
        );
        assert_eq!(issues.len(), 1, "{bad}");
        assert!(
            issues[0].0.starts_with("spec.ingress[0].ports[0]"),
            "{issues:?}"
        );
        assert_eq!(issues[0].1, Effect::MatchesNothing);

        let (policy, _) = flawed(json!({"ingress": [{"ports": [bad.clone()]}]}));
        assert_eq!(
            policy.ingress.unwrap()[0].ports,
            Ports::Of(vec![]),
            "{bad} alone"
        );
    }
}

fn peer(peer: Value) -> Peer {
    let rules = policy(json!({"egress": [{"to": [peer]}]})).egress.unwrap();
    match &rules[0].peers {
        Peers::Of(peers) => peers[0].clone(),
        Peers::Any => panic!("any"),
    }
}

#[test]
fn peers_have_every_form_of_the_api() {
    let all = Selector::default;
    let app = || Selector::new(vec![equals("app", "a")]);
    for (given, namespaces, pods) in [
        (json!({"podSelector": {}}), None, all()),
        (json!({"namespaceSelector": {}}), Some(all()), all()),
        (
            json!({"namespaceSelector": {}, "podSelector": null}),
            Some(all()),
            all(),
        ),
        (
            json!({"podSelector": {"matchLabels": {"app": "a"}}, "ipBlock": null}),
            None,
            app(),
        ),
        (
            json!({"podSelector": {"matchLabels": {"app": "a"}}, "namespaceSelector": {}}),
            Some(all()),
            app(),
        ),
    ] {
        assert_eq!(
            peer(given.clone()),
            Peer::Pods { namespaces, pods },
            "{given}"
        );
    }
    assert_eq!(
        peer(
            json!({"ipBlock": {"cidr": "10.1.2.3/8", "except": ["10.2.0.0/16", "10.1.9.9/16", "10.1.0.0/16"]}})
        ),
        Peer::Block(Block {
            cidr: net("10.0.0.0/8"),
            except: vec![net("10.1.0.0/16"), net("10.2.0.0/16")],
        })
    );
    let block = |cidr| {
        Peer::Block(Block {
            cidr,
            except: vec![],
        })
    };
    assert_eq!(
        peer(json!({"ipBlock": {"cidr": "::ffff:1.2.3.4/120", "except": null}})),
        block(net("::ffff:1.2.3.0/120"))
    );
    assert_eq!(
        peer(json!({"ipBlock": {"cidr": "010.0.0.0/08", "except": []}})),
        block(net("10.0.0.0/8"))
    );
}

#[test]
fn an_unreadable_peer_matches_nothing_and_leaves_the_others() {
    for bad in [
        json!(null),
        json!({}),
        json!("x"),
        json!([]),
        json!({"podSelector": null}),
        json!({"podSelector": []}),
        json!({"podSelector": "app"}),
        json!({"podSelectors": {}}),
        json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
        json!({"podSelector": {}, "unknown": {}}),
        json!({"podSelector": {"matchlabels": {"a": "b"}}}),
        json!({"podSelector": {"matchLabels": {"a": 1}}}),
        json!({"podSelector": {"matchLabels": {"a": true}}}),
        json!({"podSelector": {"matchLabels": {"-": "b"}}}),
        json!({"podSelector": {"matchLabels": {"a": "b c"}}}),
        json!({"podSelector": {"matchLabels": ["a"]}}),
        json!({"podSelector": {"matchExpressions": {}}}),
        json!({"podSelector": {"matchExpressions": [null]}}),
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}}),
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": [null]}]}}),
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "exists"}]}}),
        json!({"podSelector": {"matchExpressions": [{"key": "a"}]}}),
        json!({"podSelector": {"matchExpressions": [{"operator": "Exists"}]}}),
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}),
        json!({"ipBlock": {}}),
        json!({"ipBlock": "10.0.0.0/8"}),
        json!({"ipBlock": {"cidr": "10.0.0.0"}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/33"}}),
        json!({"ipBlock": {"cidr": 10}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["nonsense"]}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": "10.1.0.0/16"}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["0.0.0.0/0"]}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/64"]}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "excepts": ["10.1.0.0/16"]}}),
    ] {
        let (policy, issues) =
            flawed(json!({"ingress": [{"from": [bad.clone(), {"podSelector": {}}]}]}));
        let kept = Peer::Pods {
            namespaces: None,
            pods: Selector::default(),
        };
        assert_eq!(
            policy.ingress.unwrap()[0].peers,
            Peers::Of(vec![kept]),
            "{bad}"
        );
        assert_eq!(issues.len(), 1, "{bad}");
        assert!(
            issues[0].0.starts_with("spec.ingress[0].from[0]"),
            "{issues:?}"
        );
        assert_eq!(issues[0].1, Effect::MatchesNothing);

        let (policy, _) = flawed(json!({"egress": [{"to": [bad.clone()]}]}));
        assert_eq!(
            policy.egress.unwrap()[0].peers,
            Peers::Of(vec![]),
            "{bad} alone"
        );
    }
}

#[test]
fn an_unreadable_rule_matches_nothing_and_keeps_its_place() {
    for bad in [
        json!(null),
        json!("all"),
        json!([]),
        json!({"form": []}),
        json!({"to": []}),
        json!({"port": 80}),
    ] {
        let (policy, issues) = flawed(json!({"ingress": [bad.clone(), {}]}));
        assert_eq!(policy.ingress, Some(vec![NOTHING, ANY]), "{bad}");
        assert_eq!(issues.len(), 1);
        assert!(issues[0].0.starts_with("spec.ingress[0]"));
        assert_eq!(issues[0].1, Effect::MatchesNothing);
    }
    for bad in [json!("x"), json!({}), json!(1), json!({"podSelector": {}})] {
        for field in ["from", "ports"] {
            let (policy, issues) = flawed(json!({"ingress": [{field: bad.clone()}]}));
            let rule = &policy.ingress.unwrap()[0];
            assert!(
                rule.peers == Peers::Of(vec![]) || rule.ports == Ports::Of(vec![]),
                "{field}: {bad}"
            );
            assert_eq!(
                issues,
                [(format!("spec.ingress[0].{field}"), Effect::MatchesNothing)]
            );
        }
    }
}

#[test]
fn unreadable_rules_isolate_and_allow_nothing() {
    for bad in [json!({}), json!("x"), json!(7), json!(true)] {
        let (policy, issues) = flawed(json!({"ingress": bad, "egress": bad}));
        assert_eq!(
            (policy.ingress, policy.egress),
            (Some(vec![]), Some(vec![])),
            "{bad}"
        );
        assert_eq!(
            issues,
            [
                ("spec.ingress".to_owned(), Effect::AllowsNothing),
                ("spec.egress".to_owned(), Effect::AllowsNothing)
            ]
        );
    }
}

#[test]
fn unreadable_policy_types_isolate_both_directions() {
    for bad in [
        json!(["ingress"]),
        json!(["Ingress", "Both"]),
        json!("Ingress"),
        json!([null]),
        json!([1]),
        json!({}),
        json!(["Ingress", "Egress", "Egress"]),
    ] {
        let (policy, issues) = flawed(json!({"policyTypes": bad, "ingress": [{}]}));
        assert_eq!(
            (policy.ingress, policy.egress),
            (Some(vec![ANY]), Some(vec![])),
            "{bad}"
        );
        assert_eq!(issues.len(), 1);
        assert!(issues[0].0.starts_with("spec.policyTypes"));
        assert_eq!(issues[0].1, Effect::IsolatesBoth);
    }
}

#[test]
fn an_unknown_field_of_the_spec_isolates_both_directions() {
    let (policy, issues) =
        flawed(json!({"policyTypes": ["Ingress"], "egres": [{}], "podselector": null}));
    assert_eq!(
        (policy.ingress, policy.egress),
        (Some(vec![]), Some(vec![]))
    );
    assert_eq!(issues, [("spec.egres".to_owned(), Effect::IsolatesBoth)]);
}

#[test]
fn an_unreadable_selector_selects_every_pod() {
    for bad in [
        json!("app=a"),
        json!([]),
        json!({"labels": {"a": "b"}}),
        json!({"matchLabels": {"a": ["b"]}}),
    ] {
        let (policy, issues) = flawed(json!({"podSelector": bad, "policyTypes": ["Egress"]}));
        assert_eq!(policy.selector, Selector::default(), "{bad}");
        assert_eq!((policy.ingress, policy.egress), (None, Some(vec![])));
        assert_eq!(issues.len(), 1);
        assert_eq!(issues[0].1, Effect::SelectsAll);
    }
}

#[test]
fn a_spec_that_is_no_object_denies_the_namespace() {
    for bad in [json!("x"), json!([]), json!(0), json!(true)] {
        let (policy, issues) = flawed(bad.clone());
        assert_eq!(policy.selector, Selector::default());
        assert_eq!(
            (policy.ingress, policy.egress),
            (Some(vec![]), Some(vec![])),
            "{bad}"
        );
        let effects: Vec<_> = issues.iter().map(|issue| issue.1).collect();
        assert_eq!(effects, [Effect::SelectsAll, Effect::IsolatesBoth]);
    }
}

#[test]
fn selectors_take_labels_and_expressions_together() {
    let policy = policy(json!({"podSelector": {
        "matchLabels": {"app": "a", "example.com/none": null, "empty": ""},
        "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["z", "y", "z"]},
            {"key": "x", "operator": "Exists", "values": null},
            {"key": "y", "operator": "DoesNotExist", "values": []},
            {"key": "w", "operator": "In", "values": ["1"]},
        ],
    }}));
    let of = |key: &str, operator| Requirement {
        key: key.into(),
        operator,
    };
    assert_eq!(
        policy.selector,
        Selector::new(vec![
            equals("app", "a"),
            equals("example.com/none", ""),
            equals("empty", ""),
            of("tier", Operator::NotIn(vec!["y".into(), "z".into()])),
            of("x", Operator::Exists),
            of("y", Operator::DoesNotExist),
            equals("w", "1"),
        ])
    );
}

#[test]
fn issues_name_object_field_problem_and_effect() {
    let (_, issues) = policy_with_issues(json!({"ingress": [{}, {"from": [
        {"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0/8"}},
    ]}]}));
    assert_eq!(
        issues[0].to_string(),
        "NetworkPolicy x/p: spec.ingress[1].from[1].ipBlock.cidr: \"10.0.0/8\" is not a CIDR; it matches nothing"
    );
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
        let expected = Namespace {
            name: "x".into(),
            labels: expected,
        };
        assert_eq!(object(&document), (Object::Namespace(expected), vec![]));
    }
}

#[test]
fn a_pod_is_reduced_to_what_policy_speaks_of() {
    let pod = pod(
        json!({
            "uid": "u1", "labels": {"app": "a", "n": null},
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:06Z",
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
        };
        assert_eq!(object(&document), (Object::Service(expected), vec![]));
    }
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

#[test]
fn a_missing_namespace_is_default() {
    for namespace in [json!(null), json!("")] {
        let document = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": namespace}});
        assert_eq!(
            object(&document).0.key(),
            Key::new(Kind::Pod, Name::new("default", "a"))
        );
    }
}

fn keys(document: &Value) -> Vec<String> {
    let converted = convert(document).expect("identified");
    converted
        .objects
        .iter()
        .map(|object| object.key().to_string())
        .collect()
}

#[test]
fn lists_yield_their_items() {
    let pod = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
    let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "items": items});
    assert_eq!(
        keys(&list(json!([pod("a"), list(json!([pod("b")]))]))),
        ["Pod default/a", "Pod default/b"]
    );
    assert_eq!(keys(&list(json!(null))), [""; 0]);
    let typed = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList", "items": [{"metadata": {"name": "p"}}]});
    assert_eq!(keys(&typed), ["NetworkPolicy default/p"]);
    let typed =
        json!({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "p"}}]});
    assert_eq!(keys(&typed), ["Pod default/p"]);
    let other =
        json!({"apiVersion": "v1", "kind": "SecretList", "items": [{"metadata": {"name": "p"}}]});
    assert_eq!(keys(&other), [""; 0]);
}

#[test]
fn other_kinds_and_groups_are_passed_over() {
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("v1", "Secret"),
        ("serving.knative.dev/v1", "Service"),
        ("crd.projectcalico.org/v1", "NetworkPolicy"),
        ("metrics.k8s.io/v1beta1", "Pod"),
    ] {
        let document = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}});
        assert_eq!(keys(&document), [""; 0], "{kind}");
    }
    assert_eq!(keys(&Value::Null), [""; 0]);
}

#[test]
fn a_document_without_identity_is_an_error() {
    let mut deep = json!({"apiVersion": "v1", "kind": "List", "items": []});
    for _ in 0..=MAX_DEPTH {
        deep = json!({"apiVersion": "v1", "kind": "List", "items": [deep]});
    }
    for (document, field) in [
        (json!("text"), ""),
        (json!([]), ""),
        (json!({}), "kind"),
        (json!({"kind": 1, "apiVersion": "v1"}), "kind"),
        (json!({"kind": "Pod"}), "apiVersion"),
        (json!({"kind": "Pod", "apiVersion": ""}), "apiVersion"),
        (json!({"kind": "Pod", "apiVersion": "v1"}), "metadata"),
        (
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": []}),
            "metadata",
        ),
        (
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}}),
            "metadata.name",
        ),
        (
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": ""}}),
            "metadata.name",
        ),
        (
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": 1}}),
            "metadata.namespace",
        ),
        (
            json!({"kind": "List", "apiVersion": "v1", "items": {}}),
            "items",
        ),
        (
            json!({"kind": "List", "apiVersion": "v1", "items": [null]}),
            "items[0]",
        ),
        (
            json!({"kind": "List", "apiVersion": "v1", "items": [{"kind": "Pod"}]}),
            "items[0].apiVersion",
        ),
    ] {
        assert_eq!(
            convert(&document).expect_err("unidentified").field,
            field,
            "{document}"
        );
    }
    assert!(convert(&deep).is_err());
}

mod garbage;
