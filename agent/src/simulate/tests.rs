//! What files are said to change.

use std::path::Path;

use super::*;

const SHOP: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}, ownerReferences: [{kind: StatefulSet, name: web, controller: true}]}
spec: {nodeName: n1}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web}, ownerReferences: [{kind: StatefulSet, name: web, controller: true}]}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {nodeName: n1}
status: {podIP: 10.0.0.3}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
";

const CANDIDATE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]
";

fn flow(verdict: &str, peer: &str, port: u16) -> String {
    serde_json::json!({
        "number": 1, "time": "2026-01-02T03:04:05Z", "verdict": verdict, "reason": "", "direction": "ingress",
        "pod": {"namespace": "shop", "pod": "api", "address": "10.0.0.3"}, "peer": match peer.parse::<IpAddr>() {
            Ok(address) => serde_json::json!({"address": address}),
            Err(_) => serde_json::json!({"namespace": "shop", "pod": peer}),
        },
        "sourcePort": 40000, "destinationPort": port, "protocol": "TCP", "policies": [],
    })
    .to_string()
}

fn states() -> (Objects, Objects) {
    let before = Objects::from_text("shop.yaml", SHOP);
    let after = before
        .clone()
        .with(Objects::from_text("candidate.yaml", CANDIDATE));
    (before, after)
}

#[test]
fn workloads_are_named_and_not_their_pods() {
    let (before, after) = states();
    let report = simulate(&before, &after, None);
    let lines: Vec<_> = report
        .connections
        .iter()
        .map(|it| {
            format!(
                "{} -> {} {:?} {}",
                it.from, it.to, it.lost.tcp, it.lost.other
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            r#"outside -> shop/api ["0-65535"] true"#,
            r#"shop/web -> shop/api ["0-79", "81-65535"] true"#,
        ]
    );
    assert!(report.loses() && !report.gains());
    let back = simulate(&after, &before, None);
    assert!(!back.loses() && back.gains());
    assert_eq!(simulate(&after, &after, None).connections, []);
}

#[test]
fn recorded_traffic_that_would_be_cut_is_named() {
    let (before, after) = states();
    let lines = [
        flow("allowed", "web-1", 80),
        flow("allowed", "web-2", 90),
        flow("audited", "web-2", 90),
        flow("allowed", "192.0.2.1", 80),
        // The pod's own node always passes.
        flow("allowed", "192.168.0.1", 80),
        flow("denied", "web-1", 91),
    ];
    let mut record = Record::default();
    record
        .take(&lines.join("\n"), Path::new("flows"), &after)
        .expect("flows");
    let flows = simulate(&before, &after, Some(&record))
        .flows
        .expect("asked");
    let text = |all: &[Recorded]| -> Vec<String> {
        all.iter()
            .map(|it| format!("{} {}", it.connection, it.count))
            .collect()
    };
    assert_eq!(
        text(&flows.cut),
        [
            "shop/web-2 -> shop/api 90/TCP 2",
            "192.0.2.1 -> shop/api 80/TCP 1"
        ]
    );
    assert_eq!(text(&flows.opened), [""; 0]);
    let back = simulate(&after, &before, Some(&record))
        .flows
        .expect("asked");
    assert_eq!(text(&back.opened), ["shop/web-1 -> shop/api 91/TCP 1"]);
    assert_eq!(back.cut, []);
}
