//! Expectations against files.

use super::*;

const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec: {template: {metadata: {labels: {app: api}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}}}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 198.51.100.0/24}}]
    ports: [{port: 8080}]
";

/// The outcome of one expectation, with its reason.
fn outcome(line: &str) -> (Outcome, String) {
    let objects = Objects::from_text("shop.yaml", SHOP);
    let report = judge(&objects, &parse(line).expect(line));
    let [judged] = &report.expectations[..] else {
        panic!("one expectation")
    };
    assert_eq!(report.holds, judged.outcome == Outcome::Holds);
    (judged.outcome, judged.reason.clone().unwrap_or_default())
}

#[test]
fn an_expectation_holds_or_says_why_not() {
    for (line, expected, reason) in [
        ("shop/web -> shop/api:8080 allow", Outcome::Holds, ""),
        ("shop/app=web -> shop/api:8080 allow", Outcome::Holds, ""),
        ("shop/web -> service/shop/api:80 allow", Outcome::Holds, ""),
        ("shop/api -> shop/web allow", Outcome::Holds, ""),
        ("outside -> shop/api deny", Outcome::Holds, ""),
        ("198.51.100.7 -> shop/api:8080 allow", Outcome::Holds, ""),
        (
            "shop/web -> shop/api:8081 allow",
            Outcome::Fails,
            "shop/web -> shop/api 8081/TCP is denied: ingress of shop/api is isolated by api; \
             nearest is api ingress[0]: its ports are TCP 8080",
        ),
        (
            "shop/web -> shop/api deny",
            Outcome::Fails,
            "shop/web -> shop/api is allowed: no policy isolates the egress of shop/web, ingress of shop/api by api ingress[0]",
        ),
        ("shop/* -> shop/*:8080 allow", Outcome::Holds, ""),
        (
            "shop/nobody -> shop/api deny",
            Outcome::Unknown,
            "shop/nobody is no pod and no workload",
        ),
        (
            "shop/web -> service/shop/api:81 deny",
            Outcome::Unknown,
            "the Service shop/api has no such port; it has 80/TCP",
        ),
    ] {
        assert_eq!(outcome(line), (expected, reason.to_owned()), "{line}");
    }
}

#[test]
fn what_hangs_on_an_unknown_address_is_neither_held_nor_failed() {
    let more = "
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: batch}
";
    let objects = Objects::from_text("shop.yaml", SHOP).with(Objects::from_text("more.yaml", more));
    for verdict in ["allow", "deny"] {
        let line = format!("batch/job -> shop/api:8080 {verdict}");
        let report = judge(&objects, &parse(&line).expect("a line"));
        assert_eq!(report.expectations[0].outcome, Outcome::Unknown, "{line}");
    }
    // No block is for that port.
    let report = judge(
        &objects,
        &parse("batch/job -> shop/api:1 deny").expect("a line"),
    );
    assert!(report.holds);
}

#[test]
fn of_several_pods_each_pair_has_to_be_as_expected() {
    let (found, reason) = outcome("shop/* -> shop/* deny");
    assert_eq!(found, Outcome::Fails);
    assert!(
        reason.contains("shop/api -> shop/web is allowed"),
        "{reason}"
    );
}

#[test]
fn in_junit_each_expectation_is_a_case_of_its_file() {
    let judged = |line, outcome, reason: Option<&str>| Judged {
        line,
        expectation: format!("a/b -> c/d:{line} deny"),
        outcome,
        reason: reason.map(ToOwned::to_owned),
    };
    let report = Report::of(vec![
        judged(1, Outcome::Holds, None),
        judged(2, Outcome::Fails, Some("x")),
        judged(3, Outcome::Unknown, Some("z")),
    ]);
    let text = report.junit("e.txt");
    for part in [
        "<testsuite name=\"palisade verify\" tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"0\">",
        "classname=\"e.txt\" name=\"a/b -&gt; c/d:1 deny\" file=\"e.txt\" line=\"1\"/>",
        "file=\"e.txt\" line=\"2\"><failure message=\"x\"/></testcase>",
        "file=\"e.txt\" line=\"3\"><error message=\"z\"/></testcase>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
