//! What a compiled state is held against.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use crate::{
    evaluate::{allows, allows_on},
    index::Index,
    model::Name,
    table::{
        Cell, Change, ClassId, Compiled, Direction, Isolation, Layer, Side, Table, TableId, Traffic,
    },
};

/// Where a compiled state and the reference differ: verdicts of every local pod with these peers, which
/// pods and services are listed, and entries that say nothing. Empty if nowhere.
#[must_use]
pub fn disagreements(
    index: &Index,
    node: &str,
    compiled: &Compiled,
    peers: &[IpAddr],
    traffic: &[Traffic],
) -> Vec<String> {
    let mut found = Vec::new();
    let local: Vec<_> = index
        .pods()
        .filter(|pod| pod.counts() && pod.node.as_deref() == Some(node))
        .filter(|pod| !pod.addresses.is_empty())
        .collect();
    let expected: BTreeSet<&Name> = local.iter().map(|pod| &pod.name).collect();
    let listed: BTreeSet<&Name> = compiled.pods.keys().collect();
    if expected != listed {
        found.push(format!("pods {listed:?} are listed, not {expected:?}"));
        return found;
    }
    for pod in local {
        let listed = &compiled.pods[&pod.name];
        let owned: Vec<_> = pod
            .addresses
            .iter()
            .copied()
            .filter(|&address| {
                crate::evaluate::owner(index, address).map(|p| &p.name) == Some(&pod.name)
            })
            .collect();
        if listed.addresses != owned || listed.uid != pod.uid {
            found.push(format!("{listed:?} is listed for {pod:?}"));
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            let [enforced, audited] = [Layer::Enforced, Layer::Audited]
                .map(|layer| listed.isolation(Side::new(direction, layer)));
            for &peer in peers {
                let cell = compiled.cell(enforced, peer);
                let audit = compiled.cell(audited, peer);
                if cell.all_protocols && cell != Cell::allow() {
                    found.push(format!("half a cell: {cell:?}"));
                }
                for &traffic in traffic {
                    let got = cell.allows(traffic);
                    if got != allows(index, pod, direction, peer, traffic) {
                        found.push(format!(
                            "{direction:?} of {} with {peer} on {traffic}: compiled {got}",
                            pod.name
                        ));
                    }
                    let told = got && !audit.allows(traffic);
                    let denied = !allows_on(index, pod, direction, Layer::Audited, peer, traffic);
                    if told != (got && denied) {
                        found.push(format!(
                            "{direction:?} of {} with {peer} on {traffic}: audited {told}",
                            pod.name
                        ));
                    }
                }
            }
        }
    }
    found.extend(idle_entries(compiled));
    found
}

/// Entries that could be left out, and references to nothing.
fn idle_entries(compiled: &Compiled) -> Vec<String> {
    let mut found = Vec::new();
    let bare = Compiled {
        blocks: compiled.blocks.clone(),
        ..Compiled::default()
    };
    for (&address, &class) in &compiled.addresses {
        if bare.class_of(address) == class {
            found.push(format!("{address} is listed with the class around it"));
        }
    }
    let classes: BTreeSet<ClassId> = compiled
        .addresses
        .values()
        .chain(compiled.blocks.values())
        .copied()
        .collect();
    let used: BTreeSet<TableId> = compiled
        .pods
        .values()
        .flat_map(|pod| Side::ALL.map(|side| pod.isolation(side)))
        .filter_map(|isolation| match isolation {
            Isolation::None => None,
            Isolation::Table(table) => Some(table),
        })
        .collect();
    if used != compiled.tables.keys().copied().collect() {
        found.push(format!("tables {used:?} are used"));
    }
    for (id, table) in &compiled.tables {
        for (class, cell) in &table.cells {
            if *class == ClassId::STRANGER || !classes.contains(class) {
                found.push(format!("{id:?} has a cell of {class:?}, which nobody has"));
            }
            if *cell == table.default {
                found.push(format!("{id:?} has the default cell for {class:?}"));
            }
        }
    }
    found
}

/// Whether two states are the same but for the numbers of classes and tables.
///
/// # Errors
///
/// What differs.
pub fn same_but_for_numbers(a: &Compiled, b: &Compiled) -> Result<(), String> {
    let mut classes = Pairs::default();
    classes.pair(ClassId::STRANGER, ClassId::STRANGER)?;
    if a.addresses.len() != b.addresses.len() {
        return Err(format!("{:?} and {:?}", a.addresses, b.addresses));
    }
    for (address, &class) in &a.addresses {
        let other = b.addresses.get(address);
        classes.pair(
            class,
            *other.ok_or_else(|| format!("only one has {address}"))?,
        )?;
    }
    if a.blocks.len() != b.blocks.len() {
        return Err(format!("{:?} and {:?}", a.blocks, b.blocks));
    }
    for (net, &class) in &a.blocks {
        let other = b.blocks.get(net);
        classes.pair(class, *other.ok_or_else(|| format!("only one has {net}"))?)?;
    }
    if !a.pods.keys().eq(b.pods.keys()) {
        return Err(format!("{:?} and {:?}", a.pods, b.pods));
    }
    let mut tables = Pairs::default();
    for (mine, other) in a.pods.values().zip(b.pods.values()) {
        if (&mine.uid, &mine.addresses) != (&other.uid, &other.addresses) {
            return Err(format!("{mine:?} and {other:?}"));
        }
        for side in Side::ALL {
            match (mine.isolation(side), other.isolation(side)) {
                (Isolation::None, Isolation::None) => {}
                (Isolation::Table(mine), Isolation::Table(other)) => tables.pair(mine, other)?,
                _ => return Err(format!("{mine:?} and {other:?}")),
            }
        }
    }
    if a.tables.len() != b.tables.len() {
        return Err(format!("{:?} and {:?}", a.tables, b.tables));
    }
    for (id, table) in &a.tables {
        let other = tables.0.get(id).and_then(|other| b.tables.get(other));
        let renumbered = Table {
            default: table.default.clone(),
            cells: table
                .cells
                .iter()
                .filter_map(|(class, cell)| Some((*classes.0.get(class)?, cell.clone())))
                .collect(),
        };
        if other != Some(&renumbered) {
            return Err(format!("{table:?} and {other:?}"));
        }
    }
    if a.services != b.services {
        return Err(format!("{:?} and {:?}", a.services, b.services));
    }
    Ok(())
}

/// A one to one relation, found pair by pair.
struct Pairs<T>(HashMap<T, T>, HashMap<T, T>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(HashMap::new(), HashMap::new())
    }
}

impl<T: Copy + Eq + std::hash::Hash + std::fmt::Debug> Pairs<T> {
    fn pair(&mut self, a: T, b: T) -> Result<(), String> {
        if *self.0.entry(a).or_insert(b) == b && *self.1.entry(b).or_insert(a) == a {
            Ok(())
        } else {
            Err(format!("{a:?} and {b:?} are not each other's only match"))
        }
    }
}

/// Brings a copy up to date with `present`, looking only at what the change names.
pub fn mirror(copy: &mut Compiled, present: &Compiled, change: &Change) {
    for address in &change.addresses {
        match present.addresses.get(address) {
            Some(&class) => copy.addresses.insert(*address, class),
            None => copy.addresses.remove(address),
        };
    }
    for net in &change.blocks {
        match present.blocks.get(net) {
            Some(&class) => copy.blocks.insert(*net, class),
            None => copy.blocks.remove(net),
        };
    }
    for changed in &change.tables {
        let empty = || Table {
            default: Cell::deny(),
            cells: BTreeMap::new(),
        };
        let mut table = copy.tables.remove(&changed.table).unwrap_or_else(empty);
        let now = present.tables.get(&changed.table);
        for class in &changed.classes {
            match now.and_then(|now| now.cells.get(class)) {
                Some(cell) => table.cells.insert(*class, cell.clone()),
                None => table.cells.remove(class),
            };
        }
        if let Some(now) = now {
            if changed.default {
                table.default = now.default.clone();
            }
            copy.tables.insert(changed.table, table);
        } else {
            assert!(table.cells.is_empty(), "cells of a table that is gone");
        }
    }
    for name in &change.pods {
        match present.pods.get(name) {
            Some(pod) => copy.pods.insert(name.clone(), pod.clone()),
            None => copy.pods.remove(name),
        };
    }
    for address in &change.services {
        if present.services.contains(address) {
            copy.services.insert(*address);
        } else {
            copy.services.remove(address);
        }
    }
}
