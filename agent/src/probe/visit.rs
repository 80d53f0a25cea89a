//! The container that opens connections in a pod. It ends when nobody speaks with it any more; its entry in the pod stays,
//! for Kubernetes takes none out.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use kube::api::{Patch, PatchParams};
use palisade_policy::model::Name;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Kind, exec::Container, reason},
    connectivity::session::Session,
};

/// How often is looked whether it runs.
const LOOK: Duration = Duration::from_millis(200);
/// How long it may take to start: an image may have to be pulled.
const START: Duration = Duration::from_secs(60);

/// Starts one, and begins to speak with it.
///
/// # Errors
///
/// The API server does not let us, or it does not start; why.
pub(super) async fn start(cluster: &Cluster, pod: &Name, image: &str) -> Result<Session> {
    let name = format!("palisade-probe-{:x}", RandomState::new().hash_one(()));
    let patch = json!({ "spec": { "ephemeralContainers": [container(&name, image)] } });
    let pods = cluster.pods(&pod.namespace);
    let patched = pods
        .patch_ephemeral_containers(&pod.name, &PatchParams::default(), &Patch::Strategic(patch))
        .await;
    if let Err(error) = patched {
        bail!("no container can be added: {}", reason(&error));
    }
    let end = Instant::now() + START;
    let api = cluster.objects(Kind::Pod, Some(&pod.namespace));
    loop {
        let object = api
            .get(&pod.name)
            .await
            .map_err(|error| anyhow::anyhow!(reason(&error)))?;
        match state(&object.data["status"], &name) {
            Ok(()) => break,
            Err((why, lost)) => ensure!(
                !lost && Instant::now() < end,
                "the container {name} of image {image} does not start: {why}"
            ),
        }
        tokio::time::sleep(LOOK).await;
    }
    let place = Container {
        namespace: pod.namespace.to_string(),
        pod: pod.name.to_string(),
        container: name,
    };
    Session::attach(cluster, &place).await
}

/// One that keeps to the strictest of the standards for pods.
fn container(name: &str, image: &str) -> Value {
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["palisade"],
        "args": ["connectivity", "connect"],
        "stdin": true,
        "stdinOnce": true,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "runAsNonRoot": true,
            "runAsUser": 65534,
            "runAsGroup": 65534,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

/// Whether the container runs; why not, and whether it never will.
fn state(status: &Value, name: &str) -> Result<(), (String, bool)> {
    let all = status["ephemeralContainerStatuses"].as_array();
    let found = all.into_iter().flatten().find(|it| it["name"] == name);
    let Some(found) = found else {
        return Err(("the kubelet has not taken it up".to_owned(), false));
    };
    let state = &found["state"];
    if state["running"].is_object() {
        return Ok(());
    }
    let said = |of: &Value| {
        let words = ["reason", "message"].map(|key| of[key].as_str().unwrap_or_default());
        words.join(" ").trim().to_owned()
    };
    if state["terminated"].is_object() {
        return Err((said(&state["terminated"]), true));
    }
    let waiting = &state["waiting"];
    let reason = waiting["reason"].as_str().unwrap_or_default();
    let never = [
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImagePullBackOff",
        "CreateContainerConfigError",
    ];
    Err((said(waiting), never.contains(&reason)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_cannot_start_is_not_waited_for() {
        let status = |state: Value| json!({ "ephemeralContainerStatuses": [{ "name": "p", "state": state }] });
        let of = |state: Value| super::state(&status(state), "p");
        assert_eq!(of(json!({ "running": {} })), Ok(()));
        let waits = of(json!({ "waiting": { "reason": "ContainerCreating" } }));
        assert_eq!(waits, Err(("ContainerCreating".to_owned(), false)));
        let never =
            of(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } }));
        assert_eq!(
            never,
            Err(("ImagePullBackOff no such image".to_owned(), true))
        );
        let ended = of(json!({ "terminated": { "reason": "Error" } }));
        assert_eq!(ended, Err(("Error".to_owned(), true)));
        assert!(super::state(&json!({}), "p").is_err_and(|(_, lost)| !lost));
    }
}
