//! Pods.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use palisade_policy::model::{NamedPort, Pod};

use super::{
    Effect, Problem, Report, address,
    field::{Fault, Field},
    labels, mode, policy,
};

/// Refused where labels, host network or phase are unreadable: they decide whether the pod is a peer.
pub(super) fn convert(
    object: Field<'_>,
    metadata: Field<'_>,
    report: &mut Report<'_>,
) -> Result<Pod, Fault> {
    let labels = labels::of_metadata(metadata)?;
    let spec = object.get("spec");
    let status = object.get("status");
    for part in [spec, status].into_iter().flatten() {
        part.object()?;
    }
    let host_network = match spec.as_ref().and_then(|spec| spec.get("hostNetwork")) {
        None => false,
        Some(field) => field.boolean()?,
    };
    let finished = match status.as_ref().and_then(|status| status.get("phase")) {
        None => false,
        Some(phase) => matches!(phase.text()?, "Succeeded" | "Failed"),
    };
    let name = report.key.name.clone();
    let uid = optional_text(metadata, "uid", report);
    let created = match optional_text(metadata, "creationTimestamp", report) {
        None => 0,
        Some(text) => text.parse::<Timestamp>().map_or_else(
            |_error| {
                let field = metadata.child("creationTimestamp", metadata.value);
                report.add(field.invalid(&text, "a time"), Effect::Ignored);
                0
            },
            Timestamp::as_second,
        ),
    };
    Ok(Pod {
        uid: uid.unwrap_or_else(|| name.to_string().into()),
        name,
        labels,
        config_hash: metadata.get("annotations").and_then(|annotations| {
            optional_text(annotations, "kubernetes.io/config.hash", report)
        }),
        node: spec.and_then(|spec| optional_text(spec, "nodeName", report)),
        addresses: status.map_or_else(Vec::new, |status| addresses(status, report)),
        attached: false,
        host_network,
        finished,
        terminating: metadata.get("deletionTimestamp").is_some(),
        ports: spec.map_or_else(Vec::new, |spec| ports(spec, report)),
        created,
        mode: mode::of(metadata, report),
    })
}

/// A text that may be missing; another type is reported and counts as missing.
fn optional_text(object: Field<'_>, key: &str, report: &mut Report<'_>) -> Option<Arc<str>> {
    match object.get(key)?.text() {
        Ok("") => None,
        Ok(text) => Some(text.into()),
        Err(fault) => {
            report.add(fault, Effect::Ignored);
            None
        }
    }
}

/// `podIPs`, or `podIP` where there are none; the first of each family.
fn addresses(status: Field<'_>, report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut add = |field: Field<'_>, report: &mut Report<'_>| match field.text() {
        Ok("") => {}
        Ok(text) => match address::address(text) {
            None => report.add(field.invalid(text, "an address"), Effect::Ignored),
            Some(address) if addresses.contains(&address) => {}
            Some(address)
                if addresses
                    .iter()
                    .any(|other| other.is_ipv4() == address.is_ipv4()) =>
            {
                let problem = Problem::Conflict("a second address of its family");
                report.add(field.fault(problem), Effect::Ignored);
            }
            Some(address) => addresses.push(address),
        },
        Err(fault) => report.add(fault, Effect::Ignored),
    };
    if let Some(list) = status.get("podIPs") {
        match list.list() {
            Ok(entries) => {
                for entry in entries {
                    match entry.get("ip") {
                        Some(ip) => add(ip, report),
                        None => report.add(entry.fault(Problem::Missing), Effect::Ignored),
                    }
                }
            }
            Err(fault) => report.add(fault, Effect::Ignored),
        }
    }
    if let Some(ip) = status.get("podIP") {
        // The server keeps it equal to the first of podIPs.
        let listed = status
            .get("podIPs")
            .and_then(|list| list.list().ok().map(|list| list.len()));
        if listed.unwrap_or(0) == 0 {
            add(ip, report);
        }
    }
    addresses
}

/// The named ports of containers and of sidecars, which are the init containers that are restarted.
fn ports(spec: Field<'_>, report: &mut Report<'_>) -> Vec<NamedPort> {
    let mut ports = declared(spec, report);
    ports.retain(|port| !port.name.is_empty());
    ports
}

/// The ports that containers and sidecars declare; the name is empty where a port has none.
pub(super) fn declared(spec: Field<'_>, report: &mut Report<'_>) -> Vec<NamedPort> {
    let mut ports = Vec::new();
    for kind in ["containers", "initContainers"] {
        let Some(list) = spec.get(kind) else { continue };
        match list.list() {
            Ok(containers) => {
                for container in containers {
                    let sidecar = container
                        .value
                        .get("restartPolicy")
                        .and_then(|policy| policy.as_str());
                    if kind == "initContainers" && sidecar != Some("Always") {
                        continue;
                    }
                    container_ports(container, &mut ports, report);
                }
            }
            Err(fault) => report.add(fault, Effect::Ignored),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn container_ports(container: Field<'_>, ports: &mut Vec<NamedPort>, report: &mut Report<'_>) {
    let Some(list) = container.get("ports") else {
        return;
    };
    let entries = match list.list() {
        Ok(entries) => entries,
        Err(fault) => return report.add(fault, Effect::Ignored),
    };
    for entry in entries {
        match container_port(entry) {
            Ok(port) => ports.extend(port),
            Err(fault) => report.add(fault, Effect::Ignored),
        }
    }
}

/// Policies see a port by its name alone, so what is wrong with one that has none does no harm.
fn container_port(port: Field<'_>) -> Result<Option<NamedPort>, Fault> {
    port.object()?;
    let name = match port.get("name") {
        None => "",
        Some(name) => name.text()?,
    };
    let read = || {
        let number = port.required("containerPort")?;
        Ok(NamedPort {
            name: name.into(),
            protocol: policy::protocol(port)?,
            port: port.child("containerPort", number).port()?,
        })
    };
    if name.is_empty() {
        return Ok(read().ok());
    }
    read().map(Some)
}
