//! What files say, and what is filled in.

use palisade_policy::model::Name;

use super::*;

const SHOP: &str = "
# The shop.
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{ports: [{name: http, containerPort: 8080}, {containerPort: 9090}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {}
  ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]
";

fn api() -> Name {
    Name::new("shop", "api")
}

#[test]
fn an_object_is_found_on_the_line_on_which_it_begins() {
    let objects = Objects::from_text("shop.yaml", SHOP);
    let place = |kind| objects.place(&Key::new(kind, api())).map(Place::to_string);
    assert_eq!(place(Kind::Pod).as_deref(), Some("shop.yaml:4"));
    assert_eq!(place(Kind::Policy).as_deref(), Some("shop.yaml:12"));
}

#[test]
fn what_files_do_not_say_is_filled_in() {
    let objects = Objects::from_text("shop.yaml", SHOP);
    let index = objects.index();
    let labels = index.namespace("shop").expect("assumed");
    assert_eq!(labels.len(), 1);
    // Nobody looks at its labels.
    assert_eq!(objects.doubtful_namespaces().count(), 0);
    let pod = index.pod(&api()).expect("made of the Deployment");
    assert!(pod.addresses.iter().all(standin::is_standin));
    assert_eq!(pod.addresses.len(), 2);
    assert_eq!(objects.container_ports(&api()).len(), 2);
    let bare = objects.bare_index();
    assert!(bare.pod(&api()).expect("made").addresses.is_empty());
}

#[test]
fn pods_of_a_workload_take_the_place_of_its_template() {
    let pod = "
apiVersion: v1
kind: Pod
metadata:
  name: api-5d9c-x
  namespace: shop
  labels: {app: api, pod-template-hash: 5d9c}
  ownerReferences: [{kind: ReplicaSet, name: api-5d9c, controller: true}]
status: {podIP: 10.0.0.1}
";
    let text = format!("{SHOP}---{pod}");
    let objects = Objects::from_text("all.yaml", &text);
    let names: Vec<_> = objects
        .index()
        .pods()
        .map(|pod| pod.name.to_string())
        .collect();
    assert_eq!(names, ["shop/api-5d9c-x"]);
    let real = Name::new("shop", "api-5d9c-x");
    assert_eq!(objects.workload(&real), api());
    for name in [&api(), &real] {
        assert_eq!(objects.pods_named(name), std::slice::from_ref(&real));
    }
}

#[test]
fn a_standin_stays_when_others_are_laid_over() {
    let objects = Objects::from_text("shop.yaml", SHOP);
    let addresses = |objects: &Objects| {
        let index = objects.index();
        index.pod(&api()).expect("made").addresses.clone()
    };
    let before = addresses(&objects);
    let more = "
apiVersion: v1
kind: Pod
metadata: {name: aaa, namespace: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
";
    let both = objects.with(Objects::from_text("more.yaml", more));
    assert_eq!(addresses(&both), before);
    let index = both.index();
    let other = index.pod(&Name::new("shop", "aaa")).expect("laid over");
    assert_ne!(other.addresses, before);
    assert_eq!(index.namespace("shop").map(|labels| labels.len()), Some(2));
}

#[test]
fn an_object_that_is_defined_twice_is_named_with_both_places() {
    let twice = format!("{SHOP}---{}", SHOP.split_once("---").expect("a marker").1);
    let objects = Objects::from_text("shop.yaml", &twice);
    let issues: Vec<_> = objects.issues().iter().map(ToString::to_string).collect();
    assert_eq!(issues.len(), 2, "{issues:?}");
    assert!(issues[0].contains("is defined more than once, in shop.yaml:4, shop.yaml:"));
}

#[test]
fn pods_of_a_workload_take_on_the_template_that_is_laid_over_them() {
    let pod = "
apiVersion: v1
kind: Pod
metadata:
  name: api-5d9c-x
  namespace: shop
  labels: {app: old, pod-template-hash: 5d9c}
  ownerReferences: [{kind: ReplicaSet, name: api-5d9c, controller: true}]
status: {podIP: 10.0.0.1}
";
    let objects = Objects::from_text("pod.yaml", pod).with(Objects::from_text("shop.yaml", SHOP));
    let index = objects.index();
    let pods: Vec<_> = index.pods().collect();
    let [pod] = &pods[..] else { panic!("{pods:?}") };
    assert_eq!(
        pod.group.labels.get("app").map(|value| &**value),
        Some("api")
    );
    assert_eq!(
        (pod.group.ports.len(), pod.addresses[0]),
        (1, [10, 0, 0, 1].into())
    );
    assert_eq!(objects.container_ports(&pod.name).len(), 2);
}

#[test]
fn what_is_in_audit_counts_as_enforced_where_that_is_asked_for() {
    let audited = SHOP.replacen(
        "metadata: {name: api, namespace: shop}\nspec:\n  podSelector",
        "metadata: {name: api, namespace: shop, annotations: {palisade/mode: audit}}\nspec:\n  podSelector",
        1,
    );
    let objects = Objects::from_text("shop.yaml", &audited);
    let modes = |objects: &Objects| {
        objects
            .policies()
            .map(|policy| policy.mode)
            .collect::<Vec<_>>()
    };
    assert_eq!(modes(&objects), [Mode::Audit]);
    assert_eq!(modes(&objects.enforced()), [Mode::Enforce]);
}
