//! What a report says of a cluster.

use super::*;
use crate::api::proto::{self, Hits, PolicyRule, Span};

const SHOP: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {apiVersion: v1, kind: Namespace, metadata: {name: open}}
- {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}}
- {apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: api}}}
- {apiVersion: v1, kind: Pod, metadata: {name: free, namespace: open}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata:
    {name: web, namespace: shop, annotations: {palisade/reason: the shop is public}, labels: {team: web}, creationTimestamp: 2026-01-01T00:00:00Z}
  spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: api, namespace: shop, creationTimestamp: 2026-03-01T00:00:00Z}
  spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {}}]}]}
";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn now() -> Timestamp {
    time("2026-03-11T12:00:00Z")
}

fn objects(text: &str) -> Objects {
    Objects::from_text("shop.yaml", text)
}

fn hits(last: Option<&str>) -> Hits {
    Hits {
        flows: last.iter().len() as u64,
        last: last.map(time),
    }
}

/// What an agent says that has looked since the year began, and of whose policy `shop/web` a rule allowed a flow then.
fn told(last: Option<&str>) -> Policies {
    let since = time("2026-01-01T00:00:00Z");
    Policies {
        policies: vec![proto::Policy {
            name: PolicyName {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
            },
            pods: 1,
            isolates: Vec::new(),
            audit: false,
            rules: vec![PolicyRule {
                rule: "ingress[0]".to_owned(),
                everybody: true,
                peers: 0,
                blocks: Vec::new(),
                allowed: Some(hits(last)),
            }],
            denied: hits(None),
            audited: hits(None),
            warnings: Vec::new(),
        }],
        spans: vec![Span {
            node: "n1".to_owned(),
            since,
            until: now(),
            away_seconds: 60,
            flows: 1,
            lost: 0,
            forgotten: 0,
            allowed_since: Some(since),
            unattributed: 0,
        }],
        ..Policies::default()
    }
}

/// What is said of the use of `shop/web` in the last 30 days.
fn usage(told: Option<&Policies>) -> (String, Option<String>) {
    let report = Report::of(&objects(SHOP), told, 30, now());
    let [_, web] = report.policies.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(web.name.name, "web");
    (web.usage.state.clone(), web.usage.why.clone())
}

#[test]
fn it_tells_what_is_covered_whose_policies_are_and_what_is_wide_open() {
    let report = Report::of(&objects(SHOP), None, 30, now());
    let covered: Vec<_> = report
        .namespaces
        .iter()
        .map(|it| {
            (
                it.namespace.as_str(),
                it.pods,
                it.ingress,
                it.egress,
                it.broad.len(),
            )
        })
        .collect();
    // The namespace without policies lacks a default deny of either direction, the other one of egress.
    assert_eq!(covered, [("open", 1, 0, 0, 2), ("shop", 2, 2, 0, 2)]);
    let [api, web] = report.policies.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(
        (web.owner.as_deref(), web.reason.as_deref()),
        (Some("web"), Some("the shop is public"))
    );
    assert_eq!((&api.owner, &api.reason), (&None, &None));
    assert_eq!(web.broad, ["ingress[0] is for everybody"]);
    assert_eq!(api.broad, [""; 0]);
    let text = markdown::text(&report);
    assert!(
        text.contains("| shop | 2 | 2 (100 %) | 0 (0 %) |\n"),
        "{text}"
    );
    assert!(
        text.contains("## Without an owner: 1 of 2 policies\n\n- shop/api\n"),
        "{text}"
    );
    assert!(
        text.contains("Not known of 2 policies: no agent was asked.\n"),
        "{text}"
    );
    let csv = csv::text(&report);
    assert!(csv.contains("\r\nshop,web,1,false,web,the shop is public,2026-01-01T00:00:00Z,unknown: no agent was asked,0,,"), "{csv}");
}

#[test]
fn only_what_is_known_for_certain_is_called_unused() {
    let unknown = |why: &str| ("unknown".to_owned(), Some(why.to_owned()));
    let known = |state: &str| (state.to_owned(), None);
    assert_eq!(usage(None), unknown("no agent was asked"));
    assert_eq!(
        usage(Some(&told(Some("2026-03-01T00:00:00Z")))),
        known("used")
    );
    assert_eq!(
        usage(Some(&told(Some("2026-01-05T00:00:00Z")))),
        known("unused")
    );
    assert_eq!(usage(Some(&told(None))), known("unused"));
    let doubtful = |change: fn(&mut Policies)| {
        let mut told = told(None);
        change(&mut told);
        usage(Some(&told)).1.expect("a doubt")
    };
    let why = doubtful(|told| told.spans[0].allowed_since = None);
    assert_eq!(why, "n1 is not told of allowed flows (--allowed-flows off)");
    let why = doubtful(|told| told.spans[0].allowed_since = Some(time("2026-03-01T00:00:00Z")));
    assert_eq!(why, "n1 counts since 2026-03-01T00:00:00Z only");
    assert_eq!(
        doubtful(|told| told.spans[0].lost = 2),
        "on n1 2 flows are not known"
    );
    let why = doubtful(|told| told.spans[0].away_seconds = 10 * 86_400);
    assert_eq!(why, "on n1 no agent was there for 864000 s");
    let why = doubtful(|told| drop(told.unavailable.insert("n2".to_owned(), "gone".to_owned())));
    assert_eq!(why, "node n2 does not answer");
    // What is known is known all the same.
    let mut told = told(Some("2026-03-01T00:00:00Z"));
    told.spans[0].allowed_since = None;
    assert_eq!(usage(Some(&told)), known("used"));
    let report = Report::of(&objects(SHOP), Some(&self::told(None)), 30, now());
    assert_eq!(
        report.policies[0].usage.why.as_deref(),
        Some("it is younger than that")
    );
}

#[test]
fn it_tells_what_has_changed_since_an_earlier_one() {
    let earlier = Report::of(&objects(SHOP), None, 30, now());
    let written = serde_json::to_string(&earlier).expect("JSON");
    let earlier = Report::read(&written).expect("a report");
    let same = Report::of(&objects(SHOP), None, 30, now()).since(&earlier);
    assert_eq!(same.changes, Some(Vec::new()));
    let changed = SHOP
        .replace("port: 80", "port: 81")
        .replace("labels: {team: web}", "labels: {team: shop}")
        .replace(
            "name: api, namespace: shop, creation",
            "name: gate, namespace: shop, creation",
        )
        .replace("matchLabels: {app: api}", "matchLabels: {app: gate}");
    let later = Report::of(&objects(&changed), None, 30, now()).since(&earlier);
    let changes = later.changes.expect("compared");
    let lines: Vec<_> = changes
        .iter()
        .map(|it| format!("{} {}", it.subject, it.change))
        .collect();
    assert_eq!(
        lines,
        [
            "Namespace shop ingress of 1 of 2 pods is isolated, before of 2 of 2",
            "NetworkPolicy shop/api is gone",
            "NetworkPolicy shop/gate is new",
            "NetworkPolicy shop/web says something else",
            "NetworkPolicy shop/web owner: shop, before web",
        ]
    );
    assert!(Report::read("{}").is_err());
    let other = written.replace(SCHEMA, "palisade.report/v9");
    assert!(Report::read(&other).is_err(), "another form");
}
