//! The objects of a test, kept at an API server.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kube::{
    Api, Client, Error,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use super::ControlPlane;

/// What holds a pod that is to be seen terminating.
const FINALIZER: &str = "palisade.test/hold";

/// Kind, namespace and name.
type Id = (String, String, String);

/// The objects that a test has made. They stay when this is dropped.
#[derive(Debug)]
pub struct Objects<'a> {
    server: &'a ControlPlane,
    made: BTreeMap<Id, Value>,
}

impl<'a> Objects<'a> {
    /// None yet.
    #[must_use]
    pub const fn new(server: &'a ControlPlane) -> Self {
        Self {
            server,
            made: BTreeMap::new(),
        }
    }

    /// Makes these the objects: what is new or different is written first, in order, what is gone is deleted then.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn sync(&mut self, objects: &[Value]) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for object in objects {
            let id = id(object)?;
            self.apply(object)?;
            wanted.insert(id, ());
        }
        let gone = self.made.keys().filter(|id| !wanted.contains_key(*id));
        let mut gone: Vec<_> = gone.cloned().collect();
        // Namespaces last, for nobody empties them.
        gone.sort_by_key(|(kind, ..)| kind == "Namespace");
        for id in gone {
            self.delete(&self.made[&id].clone())?;
        }
        Ok(())
    }

    /// Makes an object, or makes it what it is to be.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn apply(&mut self, object: &Value) -> Result<()> {
        let id = id(object)?;
        let present = self.made.get(&id);
        if present == Some(object) {
            return Ok(());
        }
        let another = present.is_some_and(|present| {
            let immutable = |object: &Value| {
                (object["kind"] == "Pod").then(|| {
                    let metadata = &object["metadata"];
                    (object["spec"].clone(), metadata["uid"].clone())
                })
            };
            immutable(present) != immutable(object)
        });
        if another {
            self.delete(&object.clone())?;
        }
        let written = self.server.run(|client| write(client, object));
        written.with_context(|| format!("applying {id:?}"))?;
        self.made.insert(id, object.clone());
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn delete(&mut self, object: &Value) -> Result<()> {
        let id = id(object)?;
        let deleted = self.server.run(|client| remove(client, object));
        deleted.with_context(|| format!("deleting {id:?}"))?;
        self.made.remove(&id);
        Ok(())
    }
}

async fn write(client: Client, object: &Value) -> Result<()> {
    let mut object = object.clone();
    let metadata = &mut object["metadata"];
    // Those are the server's to give.
    for field in ["uid", "creationTimestamp"] {
        metadata.as_object_mut().map(|it| it.remove(field));
    }
    let terminating = metadata
        .as_object_mut()
        .and_then(|it| it.remove("deletionTimestamp"));
    if terminating.is_some() {
        metadata["finalizers"] = json!([FINALIZER]);
    }
    if let Some(Value::Array(containers)) = object.pointer_mut("/spec/containers") {
        for container in containers {
            container["image"] = json!("none");
        }
    }
    let status = object.as_object_mut().and_then(|it| it.remove("status"));
    let (api, name) = api(client, &object)?;
    let params = PatchParams::apply("palisade-test").force();
    api.patch(&name, &params, &Patch::Apply(&object)).await?;
    if let Some(status) = status {
        object.as_object_mut().map(|it| it.remove("spec"));
        object["status"] = status;
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|field, _| field == "name" || field == "namespace");
        }
        // Applying is refused where a node has two addresses of a type, as one of both families has.
        let (patch, params) = match object["kind"].as_str() {
            Some("Node") => (Patch::Merge(&object), PatchParams::default()),
            _ => (Patch::Apply(&object), params),
        };
        api.patch_status(&name, &params, &patch).await?;
    }
    if terminating.is_some() {
        api.delete(&name, &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn remove(client: Client, object: &Value) -> Result<()> {
    let (api, name) = api(client.clone(), object)?;
    if object["metadata"].get("deletionTimestamp").is_some() {
        let release = json!({"metadata": {"finalizers": null}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(release))
            .await?;
    }
    match api
        .delete(&name, &DeleteParams::default().grace_period(0))
        .await
    {
        Ok(_) => {}
        Err(Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    if object["kind"] == "Namespace" {
        // What the controller of namespaces would do.
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name}, "spec": {"finalizers": []},
        });
        let request = hyper::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&body)?)?;
        client.request::<Value>(request).await?;
    }
    Ok(())
}

fn api(client: Client, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let version = text(&object["apiVersion"]).context("no apiVersion")?;
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let kind = text(&object["kind"]).context("no kind")?;
    let plural = match &*kind {
        "NetworkPolicy" => "networkpolicies".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let of = GroupVersionKind::gvk(group, version, &kind);
    let resource = ApiResource::from_gvk_with_plural(&of, &plural);
    let metadata = &object["metadata"];
    let api = match text(&metadata["namespace"]) {
        Some(namespace) => Api::namespaced_with(client, &namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    Ok((api, text(&metadata["name"]).context("no name")?))
}

fn id(object: &Value) -> Result<Id> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &object["metadata"];
    Ok((
        text(&object["kind"]).context("no kind")?,
        text(&metadata["namespace"]).unwrap_or_default(),
        text(&metadata["name"]).context("no name")?,
    ))
}
