//! Nodes.

use super::{Effect, Report, address, field::Field};
use crate::source::Node;

pub(super) fn convert(object: Field<'_>, report: &mut Report<'_>) -> Node {
    let mut addresses = Vec::new();
    if let Some(status) = object.get("status")
        && let Some(list) = status.get("addresses")
    {
        match list.list() {
            Ok(entries) => {
                for entry in entries {
                    let of = entry.value.get("type").and_then(|of| of.as_str());
                    // The other types are names.
                    if !matches!(of, Some("InternalIP" | "ExternalIP")) {
                        continue;
                    }
                    let Some(field) = entry.get("address") else {
                        continue;
                    };
                    match field.text().map(|text| (text, address::address(text))) {
                        Ok((_, Some(address))) => addresses.push(address),
                        Ok((text, None)) => {
                            report.add(field.invalid(text, "an address"), Effect::Ignored)
                        }
                        Err(fault) => report.add(fault, Effect::Ignored),
                    }
                }
            }
            Err(fault) => report.add(fault, Effect::Ignored),
        }
    }
    Node {
        name: report.key.name.name.clone(),
        addresses,
    }
}
