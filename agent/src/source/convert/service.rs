//! Services.

use std::net::IpAddr;

use palisade_policy::model::Service;

use super::{Effect, Report, address, field::Field};

/// Its addresses. One that is unreadable is left out: packets to it are then judged as addressed.
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
    }
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
