//! NetworkPolicies: every form of the API, and every way to break one.

use palisade_policy::model::{
    Block, Operator, Peer, Peers, Policy, Port, PortNumber, Ports, Protocol, Requirement, Rule,
    Selector,
};
use serde_json::{Value, json};

use super::{super::*, object};

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
