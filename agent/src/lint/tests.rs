//! What files are said to be.

use std::collections::BTreeSet;

use super::*;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec: {template: {metadata: {labels: {app: api}}, spec: {containers: [{ports: [{containerPort: 8080}]}]}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: broken, namespace: shop}
spec:
  podSelector: {}
  ingress:
  - from: [{ipBlock: {cidr: 192.0.2.0/24, except: [198.51.100.0/24]}}]
    ports: [{port: 90, endPort: 80}]
  - from: [{podSelector: {matchLabels: {app: apj}}}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{port: 80, targetPort: 8081}]}
";

fn report(text: &str, ignored: &[&str]) -> Report {
    let ignored: BTreeSet<_> = ignored.iter().map(|&code| code.to_owned()).collect();
    Report::of(&Objects::from_text("shop.yaml", text), &ignored)
}

fn lines(report: &Report) -> Vec<String> {
    let line = |it: &Finding| {
        let line = it.line.unwrap_or_default();
        format!("{line} {} {} {}", it.severity, it.code, it.text())
    };
    report.findings.iter().map(line).collect()
}

#[test]
fn findings_name_line_object_and_field() {
    assert_eq!(
        lines(&report(SHOP, &[])),
        [
            "22 error PL002 NetworkPolicy shop/broken spec.ingress[0].from[0].ipBlock.except[0]: \
             \"198.51.100.0/24\" is not a strict subset of cidr; it matches nothing",
            "23 error PL003 NetworkPolicy shop/broken spec.ingress[0].ports[0]: endPort before port; it matches nothing",
            "24 warning PL102 NetworkPolicy shop/broken spec.ingress[1].from[0].podSelector: matches no pod; \
             nearest to app=apj is app=api, of shop/api",
            "29 info PL203 Service shop/api spec.ports[0]: no container behind it declares 8081/TCP",
        ]
    );
}

#[test]
fn what_is_ignored_is_left_out() {
    let left = report(SHOP, &["PL002", "end-port-before-port", "PL203"]);
    assert_eq!(left.findings.len(), 1);
    assert!(left.has(Severity::Warning) && !left.has(Severity::Error));
    assert_eq!(left.count(Severity::Warning), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding_of_its_own() {
    let report = report("kind: NetworkPol", &[]);
    let [finding] = &report.findings[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        (finding.code, finding.file.as_deref()),
        ("PL001", Some("shop.yaml"))
    );
    assert!(report.has(Severity::Error));
}

#[test]
fn a_namespace_that_is_not_given_is_named_where_its_labels_matter() {
    let text = |key: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a, namespace: x}}, \
             spec: {{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{{key}: x}}}}}}]}}]}}}}"
        )
    };
    let named = |key: &str| lines(&report(&text(key), &["PL101", "PL102", "PL103"]));
    assert_eq!(
        named("team"),
        [
            "0 info PL005 Namespace x: is not among the objects: of its labels only its name is known"
        ]
    );
    assert_eq!(named("kubernetes.io/metadata.name"), [""; 0]);
}

#[test]
fn every_finding_has_a_rule() {
    let codes: BTreeSet<_> = RULES.iter().map(|rule| rule.code).collect();
    assert_eq!(codes.len(), RULES.len());
    for finding in report(SHOP, &[]).findings {
        let rule = RULES
            .iter()
            .find(|rule| rule.code == finding.code)
            .expect("a rule");
        assert_eq!(rule.name, finding.name);
    }
}

#[test]
fn github_shows_a_finding_beside_its_line() {
    let report = report(SHOP, &["PL002", "PL003", "PL203"]);
    assert_eq!(
        github::commands(&report),
        "::warning file=shop.yaml,line=24,title=PL102 peer-matches-nothing::NetworkPolicy shop/broken \
         spec.ingress[1].from[0].podSelector: matches no pod; nearest to app=apj is app=api, of shop/api\n"
    );
}

#[test]
fn sarif_has_a_rule_and_a_place_for_each_result() {
    let report = report(SHOP, &[]);
    let log = sarif::log(&report);
    let run = &log["runs"][0];
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), report.findings.len());
    for (result, finding) in results.iter().zip(&report.findings) {
        let index =
            usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], finding.code);
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "shop.yaml");
        assert_eq!(place["region"]["startLine"].as_u64(), finding.line);
    }
    assert_eq!(results[0]["level"], "error");
    assert_eq!(results[3]["level"], "note");
}
