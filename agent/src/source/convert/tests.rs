use serde_json::json;

use super::*;

mod objects;
mod policies;

fn object(document: &Value) -> (Object, Vec<Issue>) {
    let mut converted = convert(document).expect("identified");
    assert_eq!(converted.refused, []);
    assert_eq!(converted.objects.len(), 1);
    (converted.objects.remove(0), converted.issues)
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
