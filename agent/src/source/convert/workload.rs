//! What makes pods: Deployments and their like. A cluster runs pods, but what users keep in files are workloads; whoever
//! judges files needs the pods that would be made of them.

use std::sync::Arc;

use jiff::Timestamp;
use palisade_policy::model::{Name, NamedPort};
use serde_json::{Map, Value};

use super::{
    Converted, Field, Issue, Key, Kind, Report, Type, Unidentified, field::Fault, pod::declared,
    single, walk,
};

/// The workload that a pod is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its kind.
    pub kind: Arc<str>,
    /// Its name, in the pod's namespace.
    pub name: Arc<str>,
}

/// What policies do not look at, of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNote {
    /// The pod.
    pub pod: Name,
    /// The workload that made it, or from whose template it was made here.
    pub workload: Option<Workload>,
    /// Whether it was made here, and bears the workload's name.
    pub made: bool,
    /// The ports that its containers declare, those without a name too.
    pub ports: Vec<NamedPort>,
}

/// What policy does not look at, of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyNote {
    /// Why it is as it is, as its annotation says.
    pub reason: Option<String>,
    /// Whose it is, as an annotation or a label says.
    pub owner: Option<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// The annotation that says why a policy is as it is.
pub(crate) const REASON: &str = "palisade/reason";
/// The annotations and labels that say whose a policy is; the first that is there holds.
pub(crate) const OWNERS: [&str; 3] = ["palisade/owner", "owner", "team"];

impl PolicyNote {
    fn of(object: Field<'_>) -> Self {
        let metadata = object.get("metadata");
        let said = |part: &str, key: &str| {
            let text = metadata.as_ref()?.value.get(part)?.get(key)?.as_str()?;
            (!text.trim().is_empty()).then(|| text.trim().to_owned())
        };
        let parts = ["annotations", "labels"];
        let mut owners = OWNERS
            .iter()
            .flat_map(|key| parts.map(|part| said(part, key)));
        let created = metadata
            .as_ref()
            .and_then(|it| it.value.get("creationTimestamp")?.as_str());
        Self {
            reason: said("annotations", REASON),
            owner: owners.find_map(|owner| owner),
            created: created.and_then(|text| text.parse().ok()),
        }
    }
}

/// What a document yields, workloads included.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// Its objects; of each workload a pod.
    pub converted: Converted,
    /// Of each of the pods.
    pub pods: Vec<PodNote>,
    /// Of each of the policies.
    pub policies: Vec<(Name, PolicyNote)>,
}

/// Converts a document like [`convert`](super::convert), and makes of each workload the pod of its template.
///
/// # Errors
///
/// When an object cannot be identified.
pub fn describe(document: &Value) -> Result<Described, Unidentified> {
    let mut described = Described::default();
    if !document.is_null() {
        let wanted = |of: Type<'_>| of.known().is_some() || template(of).is_some();
        let take = &mut |object: Field<'_>, of: Type<'_>| described.take(object, of);
        walk(Field::root(document), None, 0, wanted, take)?;
    }
    Ok(described)
}

/// Converts one object of that kind like [`describe`], and which need not name its kind.
///
/// # Errors
///
/// When it has no name.
pub(crate) fn describe_as(kind: Kind, object: &Value) -> Result<Described, Unidentified> {
    let mut described = Described::default();
    described.add(Field::root(object), kind, None)?;
    Ok(described)
}

impl Described {
    fn take(&mut self, object: Field<'_>, of: Type<'_>) -> Result<(), Fault> {
        if let Some(kind) = of.known() {
            return self.add(object, kind, None);
        }
        let made_by_another = owner(object.value).is_some();
        let template = template(of).filter(|_| !made_by_another);
        match template.and_then(|path| pod_of(object, path)) {
            None => Ok(()),
            Some(pod) => self.add(Field::root(&pod), Kind::Pod, Some(of.kind)),
        }
    }

    /// Adds an object; a pod that was made of a workload of that kind, with it.
    fn add(&mut self, object: Field<'_>, kind: Kind, made_of: Option<&str>) -> Result<(), Fault> {
        single(object, kind, &mut self.converted)?;
        if let (Kind::Policy, Some(super::Object::Policy(policy))) =
            (kind, self.converted.objects.last())
        {
            let note = PolicyNote::of(object);
            self.policies.push((policy.name.clone(), note));
        }
        let Some(super::Object::Pod(pod)) = self.converted.objects.last() else {
            return Ok(());
        };
        if kind != Kind::Pod {
            return Ok(());
        }
        let key = Key::new(Kind::Pod, pod.name.clone());
        // Conversion has reported them.
        let mut issues: Vec<Issue> = Vec::new();
        let mut report = Report {
            key: &key,
            issues: &mut issues,
        };
        let spec = object.get("spec");
        let ports = spec.map_or_else(Vec::new, |spec| declared(spec, &mut report));
        self.pods.push(PodNote {
            workload: match made_of {
                Some(kind) => Some(Workload {
                    kind: kind.into(),
                    name: pod.name.name.clone(),
                }),
                None => owner(object.value),
            },
            made: made_of.is_some(),
            pod: pod.name.clone(),
            ports,
        });
        Ok(())
    }
}

/// Where a workload has the template of its pods.
fn template(of: Type<'_>) -> Option<&'static [&'static str]> {
    match (of.group, of.kind) {
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("", "ReplicationController")
        | ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// A pod of the workload's template, under the workload's name.
fn pod_of(object: Field<'_>, template: &[&str]) -> Option<Value> {
    let mut found = object.value;
    for key in template {
        found = found.get(key)?;
    }
    let mut metadata = match found.get("metadata") {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    };
    for key in ["name", "namespace"] {
        let value = object.value.get("metadata")?.get(key);
        metadata.insert(key.to_owned(), value.cloned().unwrap_or_default());
    }
    let spec = found.get("spec").cloned().unwrap_or_default();
    Some(serde_json::json!({ "metadata": metadata, "spec": spec }))
}

/// The workload that made a pod. What stands between a Deployment or CronJob and its pods is named after it.
fn owner(object: &Value) -> Option<Workload> {
    let metadata = object.get("metadata")?;
    let owners = metadata.get("ownerReferences")?.as_array()?;
    let owner = owners
        .iter()
        .find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    let (kind, name) = (owner.get("kind")?.as_str()?, owner.get("name")?.as_str()?);
    let hash = || metadata.get("labels")?.get("pod-template-hash")?.as_str();
    let (kind, name) = match kind {
        "ReplicaSet" => {
            let deployment = hash().and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
            deployment.map_or((kind, name), |deployment| ("Deployment", deployment))
        }
        // A CronJob's Jobs end in the minute for which they were due.
        "Job" => match name.rsplit_once('-') {
            Some((cron, due)) if due.len() >= 8 && due.bytes().all(|it| it.is_ascii_digit()) => {
                ("CronJob", cron)
            }
            _ => (kind, name),
        },
        _ => (kind, name),
    };
    Some(Workload {
        kind: kind.into(),
        name: name.into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::Object;

    fn only(document: &Value) -> (palisade_policy::model::Pod, PodNote) {
        let mut described = describe(document).expect("identified");
        assert_eq!(described.converted.issues, []);
        match (described.converted.objects.pop(), described.pods.pop()) {
            (Some(Object::Pod(pod)), Some(note)) => (pod, note),
            other => panic!("{other:?}"),
        }
    }

    fn workload(note: &PodNote) -> String {
        let workload = note.workload.as_ref().expect("a workload");
        format!("{} {}", workload.kind, workload.name)
    }

    #[test]
    fn a_deployment_is_a_pod_of_its_template_under_its_own_name() {
        let (pod, note) = only(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api", "namespace": "shop", "labels": {"own": "x"}},
            "spec": {"template": {
                "metadata": {"labels": {"app": "api"}},
                "spec": {"containers": [{"ports": [{"containerPort": 9090}, {"name": "http", "containerPort": 8080}]}]},
            }},
        }));
        assert_eq!(pod.name, Name::new("shop", "api"));
        assert_eq!(pod.labels.len(), 1);
        assert_eq!(pod.ports.len(), 1);
        assert_eq!((note.ports.len(), note.made), (2, true));
        assert_eq!(workload(&note), "Deployment api");
    }

    #[test]
    fn a_cron_job_has_its_template_deeper() {
        let (pod, note) = only(&json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "backup", "namespace": "shop"},
            "spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": {"app": "backup"}}}}}},
        }));
        assert_eq!(
            (pod.labels.len(), workload(&note).as_str()),
            (1, "CronJob backup")
        );
    }

    #[test]
    fn a_pod_belongs_to_what_its_owner_was_made_by() {
        for (labels, kind, name, expected) in [
            (
                json!({"pod-template-hash": "5d9c"}),
                "ReplicaSet",
                "api-5d9c",
                "Deployment api",
            ),
            (json!({}), "ReplicaSet", "api-5d9c", "ReplicaSet api-5d9c"),
            (json!({}), "StatefulSet", "db", "StatefulSet db"),
            (json!({}), "Job", "backup-29384720", "CronJob backup"),
            (json!({}), "Job", "backup-once", "Job backup-once"),
        ] {
            let (_, note) = only(&json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": labels, "ownerReferences": [
                    {"kind": "Other", "name": "no", "controller": false},
                    {"kind": kind, "name": name, "controller": true},
                ]},
            }));
            assert_eq!((workload(&note).as_str(), note.made), (expected, false));
        }
    }

    #[test]
    fn a_policy_says_why_it_is_and_whose() {
        let note = |metadata: Value| {
            let mut metadata = metadata;
            metadata["name"] = json!("p");
            let described = describe(&json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata,
            }));
            described.expect("identified").policies.remove(0).1
        };
        assert_eq!(note(json!({})), PolicyNote::default());
        let said = note(json!({
            "annotations": {"palisade/reason": " asked by audit ", "owner": ""}, "labels": {"team": "shop"},
            "creationTimestamp": "2026-01-02T15:04:05Z",
        }));
        assert_eq!(said.reason.as_deref(), Some("asked by audit"));
        assert_eq!(said.owner.as_deref(), Some("shop"));
        assert_eq!(said.created, "2026-01-02T15:04:05Z".parse().ok());
        let both = note(json!({"annotations": {"owner": "a"}, "labels": {"palisade/owner": "b"}}));
        assert_eq!(both.owner.as_deref(), Some("b"));
    }

    #[test]
    fn what_another_workload_made_is_not_counted_twice() {
        let described = describe(&json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSetList", "items": [{
                "metadata": {"name": "api-1", "ownerReferences": [{"kind": "Deployment", "name": "api", "controller": true}]},
                "spec": {"template": {}},
            }],
        }));
        assert_eq!(described.expect("identified").pods, []);
    }
}
