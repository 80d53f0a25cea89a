//! Services.

use std::net::IpAddr;

use palisade_policy::model::{Operator, Requirement, Selector, Service, ServicePort, TargetPort};

use super::{
    Effect, Report, address,
    field::{Fault, Field},
    labels, policy,
};

/// Its addresses, and where it leads. An address that is unreadable is left out: packets to it are then judged as
/// addressed.
pub(super) fn convert(object: Field<'_>, report: &mut Report<'_>) -> Service {
    let mut addresses = Vec::new();
    if let Some(spec) = object.get("spec") {
        if let Some(ip) = spec.get("clusterIP") {
            add(ip, &mut addresses, report);
        }
        for list in ["clusterIPs", "externalIPs"] {
            if let Some(list) = spec.get(list) {
                each(list, None, &mut addresses, report);
            }
        }
    }
    if let Some(status) = object.get("status")
        && let Some(balancer) = status.get("loadBalancer")
        && let Some(ingress) = balancer.get("ingress")
    {
        each(ingress, Some("ip"), &mut addresses, report);
    }
    addresses.sort_unstable();
    addresses.dedup();
    Service {
        name: report.key.name.clone(),
        addresses,
        selector: selector(object, report),
        ports: ports(object, report),
    }
}

/// The pods that it selects; `None` where it says nothing, or is another name alone.
fn selector(object: Field<'_>, report: &mut Report<'_>) -> Option<Selector> {
    let spec = object.get("spec")?;
    let external = spec.get("type").and_then(|of| of.value.as_str()) == Some("ExternalName");
    match labels::texts(spec.get("selector")?) {
        Ok(labels) if labels.is_empty() || external => None,
        Ok(labels) => {
            let each = labels.into_iter().map(|(key, value)| Requirement {
                key,
                operator: Operator::In(vec![value]),
            });
            Some(Selector::new(each.collect()))
        }
        Err(fault) => {
            report.add(fault, Effect::Ignored);
            None
        }
    }
}

fn ports(object: Field<'_>, report: &mut Report<'_>) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    if let Some(spec) = object.get("spec")
        && let Some(list) = spec.get("ports")
    {
        match list.list() {
            Ok(entries) => {
                for entry in entries {
                    match port(entry) {
                        Ok(port) => ports.push(port),
                        Err(fault) => report.add(fault, Effect::Ignored),
                    }
                }
            }
            Err(fault) => report.add(fault, Effect::Ignored),
        }
    }
    ports
}

/// A port; without `targetPort`, or with 0 there, it leads to the same number.
fn port(entry: Field<'_>) -> Result<ServicePort, Fault> {
    entry.object()?;
    let port = entry.required("port")?;
    let port = entry.child("port", port).port()?;
    let target = match entry.get("targetPort") {
        None => TargetPort::Number(port),
        Some(target) => match target.value.as_str() {
            Some("") => TargetPort::Number(port),
            Some(name) => TargetPort::Named(name.into()),
            None if target.value.as_u64() == Some(0) => TargetPort::Number(port),
            None => TargetPort::Number(target.port()?),
        },
    };
    let name = entry.get("name").map_or(Ok(""), |name| {
        name.value.as_str().ok_or_else(|| name.mistyped("a string"))
    })?;
    Ok(ServicePort {
        name: name.into(),
        protocol: policy::protocol(entry)?,
        port,
        target,
    })
}

/// Adds the addresses of a list, or of a member of its entries.
fn each(
    list: Field<'_>,
    member: Option<&str>,
    addresses: &mut Vec<IpAddr>,
    report: &mut Report<'_>,
) {
    let entries = match list.list() {
        Ok(entries) => entries,
        Err(fault) => return report.add(fault, Effect::Ignored),
    };
    for entry in entries {
        match member {
            None => add(entry, addresses, report),
            // A load balancer may have a host name alone.
            Some(member) => {
                if let Some(ip) = entry.get(member) {
                    add(ip, addresses, report);
                }
            }
        }
    }
}

fn add(field: Field<'_>, addresses: &mut Vec<IpAddr>, report: &mut Report<'_>) {
    match field.text() {
        Ok("" | "None") => {}
        Ok(text) => match address::address(text) {
            Some(address) => addresses.push(address),
            None => report.add(field.invalid(text, "an address"), Effect::Ignored),
        },
        Err(fault) => report.add(fault, Effect::Ignored),
    }
}
