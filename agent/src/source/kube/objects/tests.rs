use serde_json::json;

use super::*;
use crate::source::Object;

const KINDS: [Kind; 2] = [Kind::Namespace, Kind::Pod];

fn pod(name: &str, version: u64, labels: Value) -> Value {
    json!({"metadata": {
        "namespace": "x", "name": name, "resourceVersion": version.to_string(), "labels": labels,
    }})
}

/// Takes in events of pods and returns what they change: `+name` and `-name`.
fn told(objects: &mut Objects, events: impl IntoIterator<Item = Event<Value>>) -> Vec<String> {
    for event in events {
        objects.take(Kind::Pod, event);
    }
    let batch = objects.batch(Instant::now(), Vec::new());
    let changes = batch.map_or_else(Vec::new, |batch| batch.changes);
    let changes = changes.iter().map(|change| match change {
        Change::Apply(object) => format!("+{}", object.key().name.name),
        Change::Delete(key) => format!("-{}", key.name.name),
    });
    changes.collect()
}

fn listed(names: &[(&str, u64)]) -> Vec<Event<Value>> {
    let items = names
        .iter()
        .map(|(name, version)| Event::InitApply(pod(name, *version, json!({}))));
    let mut events = vec![Event::Init];
    events.extend(items);
    events.push(Event::InitDone);
    events
}

#[test]
fn nothing_is_synced_before_every_kind_was_listed_whole() {
    let mut objects = Objects::new(KINDS);
    objects.take(Kind::Namespace, Event::Init);
    objects.take(Kind::Namespace, Event::InitDone);
    objects.take(Kind::Pod, Event::Init);
    objects.take(Kind::Pod, Event::InitApply(pod("a", 1, json!({}))));
    let batch = objects.batch(Instant::now(), Vec::new()).expect("a pod");
    assert!(!batch.synced && batch.changes.len() == 1);
    objects.take(Kind::Pod, Event::InitDone);
    assert!(
        objects
            .batch(Instant::now(), Vec::new())
            .expect("the end")
            .synced
    );
    assert!(objects.batch(Instant::now(), Vec::new()).is_none());
}

#[test]
fn a_list_replaces_what_was_known_and_nothing_goes_before_its_end() {
    let mut objects = Objects::new(KINDS);
    assert_eq!(
        told(&mut objects, listed(&[("a", 1), ("b", 2), ("c", 3)])),
        ["+a", "+b", "+c"]
    );
    let mut again = listed(&[("b", 2), ("d", 9)]);
    let end = again.pop();
    assert_eq!(told(&mut objects, again), ["+b", "+d"]);
    let mut gone = told(&mut objects, end);
    gone.sort();
    assert_eq!(gone, ["-a", "-c"]);
}

#[test]
fn a_list_that_breaks_off_removes_nothing() {
    let mut objects = Objects::new(KINDS);
    told(&mut objects, listed(&[("a", 1), ("b", 2)]));
    let mut broken = listed(&[("a", 1)]);
    broken.pop();
    assert_eq!(told(&mut objects, broken), ["+a"]);
    assert_eq!(
        told(&mut objects, listed(&[("a", 1), ("b", 2)])),
        ["+a", "+b"]
    );
}

#[test]
fn late_and_repeated_events_change_nothing() {
    let mut objects = Objects::new(KINDS);
    told(&mut objects, listed(&[("a", 5)]));
    let apply = |name, version| Event::Apply(pod(name, version, json!({})));
    assert_eq!(told(&mut objects, [apply("a", 4), apply("a", 5)]), [""; 0]);
    assert_eq!(told(&mut objects, [apply("a", 7), apply("a", 6)]), ["+a"]);
    let delete = |name, version| Event::Delete(pod(name, version, json!({})));
    assert_eq!(
        told(
            &mut objects,
            [delete("a", 8), apply("a", 7), delete("a", 8)]
        ),
        ["-a"]
    );
    assert_eq!(told(&mut objects, [apply("a", 9), delete("a", 8)]), ["+a"]);
}

#[test]
fn a_restored_server_is_believed_whose_versions_begin_anew() {
    let mut objects = Objects::new(KINDS);
    told(&mut objects, listed(&[("a", 500)]));
    assert_eq!(told(&mut objects, listed(&[("a", 3)])), ["+a"]);
    let apply = Event::Apply(pod("a", 4, json!({})));
    assert_eq!(told(&mut objects, [apply]), ["+a"]);
}

#[test]
fn an_unreadable_object_keeps_its_last_good_state_and_is_reported() {
    let mut objects = Objects::new(KINDS);
    told(&mut objects, listed(&[("a", 1)]));
    objects.take(Kind::Pod, Event::Apply(pod("a", 2, json!([]))));
    let batch = objects.batch(Instant::now(), Vec::new()).expect("an issue");
    assert!(batch.changes.is_empty());
    assert_eq!(batch.issues[0].field, "metadata.labels");
    assert_eq!(told(&mut objects, listed(&[("a", 2)])), ["+a"]);
    assert!(objects.told.issues.is_empty());
    objects.take(Kind::Pod, Event::Apply(pod("a", 3, json!([]))));
    objects.take(Kind::Pod, Event::Delete(pod("a", 4, json!([]))));
    let batch = objects.batch(Instant::now(), Vec::new()).expect("it went");
    assert!(batch.issues.is_empty() && batch.changes.len() == 1);
}

#[test]
fn an_invalid_policy_denies() {
    let mut objects = Objects::new([Kind::Policy]);
    let policy = json!({
        "metadata": {"namespace": "x", "name": "a", "resourceVersion": "1"},
        "spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]},
    });
    objects.take(Kind::Policy, Event::Init);
    objects.take(Kind::Policy, Event::InitApply(policy));
    let batch = objects.batch(Instant::now(), Vec::new()).expect("a policy");
    let [Change::Apply(Object::Policy(policy))] = &batch.changes[..] else {
        panic!("{batch:?}");
    };
    assert!(policy.ingress.is_some() && batch.issues.len() == 1);
}

#[test]
fn a_kind_that_cannot_be_watched_makes_the_source_unreachable_until_it_can() {
    let mut objects = Objects::new(KINDS);
    objects.set_fault(Kind::Pod, Some("refused".into()));
    let batch = objects.batch(Instant::now(), Vec::new()).expect("a fault");
    assert_eq!(
        batch.unreachable.as_deref(),
        Some("Pod objects cannot be watched: refused")
    );
    objects.set_fault(Kind::Pod, None);
    let batch = objects.batch(Instant::now(), Vec::new()).expect("no fault");
    assert_eq!(batch.unreachable, None);
}
