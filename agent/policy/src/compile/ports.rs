//! Ports of rules as sets of numbers.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    index::Group,
    model::{PortNumber, Ports, Protocol},
    table::{Cell, PortSet},
};

/// A name that a rule gives for a port; the protocol is part of it.
pub(super) type PortName = (Arc<str>, Protocol);

/// The numbers behind names on some pod. Several containers may use one name, so a name has a set.
pub(super) type NamedPorts = BTreeMap<PortName, PortSet>;

/// What the pods of a group have under the names that are asked for.
pub(super) fn resolve(group: &Group, asked: impl Fn(&PortName) -> bool) -> NamedPorts {
    let mut named = NamedPorts::new();
    for port in &group.ports {
        let name = (port.name.clone(), port.protocol);
        if asked(&name) {
            let numbers = named.entry(name).or_insert_with(PortSet::none);
            *numbers = numbers.union(&PortSet::of([(port.port, port.port)]));
        }
    }
    named
}

/// The names in a rule's ports.
pub(super) fn names(ports: &Ports) -> impl Iterator<Item = PortName> {
    let ports = match ports {
        Ports::Any => [].as_slice(),
        Ports::Of(ports) => ports,
    };
    ports.iter().filter_map(|port| match &port.number {
        PortNumber::Named(name) => Some((name.clone(), port.protocol)),
        PortNumber::All | PortNumber::Range(..) => None,
    })
}

/// What a rule's ports allow where the names mean this; a name that means nothing allows nothing.
pub(super) fn cell(ports: &Ports, named: &NamedPorts) -> Cell {
    let Ports::Of(ports) = ports else {
        return Cell::allow();
    };
    let mut ranges: BTreeMap<Protocol, Vec<(u16, u16)>> = BTreeMap::new();
    for port in ports {
        let ranges = ranges.entry(port.protocol).or_default();
        match &port.number {
            PortNumber::All => ranges.push((0, u16::MAX)),
            PortNumber::Range(first, last) => ranges.push((*first, *last)),
            PortNumber::Named(name) => {
                if let Some(numbers) = named.get(&(name.clone(), port.protocol)) {
                    ranges.extend(numbers.ranges());
                }
            }
        }
    }
    let mut set = |protocol| PortSet::of(ranges.remove(&protocol).unwrap_or_default());
    Cell {
        tcp: set(Protocol::Tcp),
        udp: set(Protocol::Udp),
        sctp: set(Protocol::Sctp),
        all_protocols: false,
    }
}

/// Adds ports of one protocol to a cell.
pub(super) fn widen(cell: &mut Cell, protocol: Protocol, numbers: &PortSet) {
    let ports = match protocol {
        Protocol::Tcp => &mut cell.tcp,
        Protocol::Udp => &mut cell.udp,
        Protocol::Sctp => &mut cell.sctp,
    };
    *ports = ports.union(numbers);
}
