//! Objects of the API, as JSON.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{
    case::{Labels, PodSpec},
    placement::Place,
};

/// A Namespace.
pub(super) fn namespace(name: &str, labels: &Labels) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "labels": labels },
    })
}

/// A Node.
pub(super) fn node(name: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<_> = addresses
        .iter()
        .map(|address| json!({ "type": "InternalIP", "address": address }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name },
        "status": { "addresses": addresses },
    })
}

/// A Pod; `number` tells it from every other pod that ever was.
pub(super) fn pod(spec: &PodSpec, place: &Place, number: u32) -> Value {
    let mut containers = Vec::new();
    for container in &spec.containers {
        let mut ports = Vec::new();
        for port in &container.ports {
            let mut entry = json!({
                "containerPort": port.container_port,
                "protocol": port.protocol.to_string(),
            });
            if let Some(name) = &port.name {
                entry["name"] = json!(name);
            }
            ports.push(entry);
        }
        containers.push(json!({ "name": container.name, "ports": ports }));
    }
    let addresses: Vec<_> = place
        .addresses
        .iter()
        .map(|ip| json!({ "ip": ip }))
        .collect();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": spec.name,
            "namespace": spec.ns,
            "labels": spec.labels,
            "uid": format!("00000000-0000-4000-8000-{number:012x}"),
            "creationTimestamp": timestamp(number),
        },
        "spec": { "nodeName": place.node, "containers": containers },
        "status": {
            "phase": spec.phase.as_deref().unwrap_or("Running"),
            "podIPs": addresses,
        },
    });
    if let Some(first) = place.addresses.first() {
        pod["status"]["podIP"] = json!(first);
    }
    if let Some(timestamp) = &spec.deletion_timestamp {
        pod["metadata"]["deletionTimestamp"] = json!(timestamp);
    }
    if spec.host_network {
        pod["spec"]["hostNetwork"] = json!(true);
    }
    pod
}

/// The ClusterIP Service of a pod: selector and ports are the pod's at its creation.
pub(super) fn service(name: &str, pod: &PodSpec, addresses: &[IpAddr]) -> Value {
    let mut ports = Map::new();
    for port in pod.ports() {
        let (number, protocol) = (port.container_port, port.protocol.to_string());
        let name = format!("{}-{number}", protocol.to_lowercase());
        let port =
            json!({ "name": name, "port": number, "targetPort": number, "protocol": protocol });
        ports.insert(name, port);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": pod.ns },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addresses.first(),
            "clusterIPs": addresses,
            "selector": pod.labels,
            "ports": ports.into_iter().map(|(_, port)| port).collect::<Vec<_>>(),
        },
    })
}

/// The first day of a year, so many seconds later.
fn timestamp(seconds: u32) -> String {
    let (minutes, second) = (seconds / 60, seconds % 60);
    let (hours, minute) = (minutes / 60, minutes % 60);
    format!(
        "2026-01-{:02}T{:02}:{minute:02}:{second:02}Z",
        1 + hours / 24,
        hours % 24
    )
}
