//! Local pods and their slots.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use palisade_common::value::{ALLOW_ALL, DENY_ALL, Slot};
use palisade_policy::{
    model::Name,
    table::{Compiled, Isolation, Layer, LocalPod, Side},
};

use super::{ApplyReport, SlotWanted, SlotsWanted};
use crate::{
    encode::{self, ledger::Ledger},
    mirror::Mirror,
    plan::{
        goal::{Placed, Target},
        tables::table_of,
    },
};

/// The pods that are to have a slot, and which.
#[derive(Debug, Default)]
pub(super) struct Local {
    slots: BTreeMap<Name, u16>,
    placed: BTreeMap<u16, Placed>,
    addresses: BTreeMap<IpAddr, u16>,
    names: BTreeMap<u16, Name>,
}

impl Local {
    /// Finds every wanted pod its slot: the one that bears its UID and interface, else a new one.
    pub(super) fn place(
        &mut self,
        compiled: &Compiled,
        wanted: &SlotsWanted,
        mirror: &Mirror,
        ledger: &mut Ledger,
        report: &mut ApplyReport,
    ) {
        let present: HashMap<(u32, u32), u16> = mirror
            .slots()
            .iter()
            .map(|(&slot, value)| ((value.owner, value.ifindex), slot))
            .collect();
        *self = Self::default();
        for (name, wanted) in wanted {
            let Some(pod) = compiled.pods.get(name) else {
                continue;
            };
            let value = slot_value(pod, wanted);
            let slot = present
                .get(&(value.owner, value.ifindex))
                .copied()
                .or_else(|| {
                    let slot = ledger.slots.take()?;
                    u16::try_from(slot).ok()
                });
            let Some(slot) = slot else {
                report.unplaced.push(name.clone());
                continue;
            };
            for address in &pod.addresses {
                self.addresses.insert(*address, slot);
            }
            self.slots.insert(name.clone(), slot);
            self.names.insert(slot, name.clone());
            let placed = Placed {
                value,
                ingress: target(pod.ingress),
                egress: target(pod.egress),
                audited_ingress: target(pod.audited_ingress),
                audited_egress: target(pod.audited_egress),
            };
            self.placed.insert(slot, placed);
        }
    }

    /// Reports who is denied or keeps an earlier state for want of room.
    pub(super) fn judge(&self, mirror: &Mirror, report: &mut ApplyReport) {
        for (name, slot) in &self.slots {
            let Some((placed, value)) = self.placed.get(slot).zip(mirror.slots().get(slot)) else {
                continue;
            };
            for side in Side::ALL {
                let (target, table) = (placed.target(side), table_of(value, side));
                let empty = match target {
                    Target::Table(id) => report.left_out.port_sets.contains(&id),
                    _ => false,
                };
                if side.layer == Layer::Audited {
                    if empty || target != Target::Allow && table <= ALLOW_ALL {
                        report.unaudited.insert(name.clone());
                    }
                } else if target != Target::Deny && table == DENY_ALL {
                    report.denied.insert(name.clone());
                } else if let Target::Table(id) = target
                    && report.left_out.tables.contains(&id)
                {
                    report.kept.insert(name.clone());
                } else if empty {
                    report.narrowed.insert(name.clone());
                }
            }
        }
    }

    /// Reports which slots are written and which no pod has, and gives back the numbers that were not used.
    pub(super) fn settle(
        &mut self,
        mirror: &Mirror,
        ledger: &mut Ledger,
        report: &mut ApplyReport,
    ) {
        for (name, &slot) in &self.slots {
            if mirror.slots().contains_key(&slot) {
                report.ready.insert(name.clone(), slot);
            } else {
                ledger.slots.give(u32::from(slot));
                report.unplaced.push(name.clone());
            }
        }
        let gone = mirror
            .slots()
            .keys()
            .filter(|&slot| !self.placed.contains_key(slot));
        report.gone = gone.copied().collect();
    }

    /// The slots that are to be, and their pods.
    pub(super) fn placed(&self) -> &BTreeMap<u16, Placed> {
        &self.placed
    }

    /// The addresses of the pods that are to have a slot.
    pub(super) fn addresses(&self) -> BTreeMap<IpAddr, u16> {
        self.addresses.clone()
    }

    /// Whether a wanted pod has the slot.
    pub(super) fn has(&self, slot: u16) -> bool {
        self.placed.contains_key(&slot)
    }

    /// The slot of a pod.
    pub(super) fn slot_of(&self, pod: &Name) -> Option<u16> {
        self.slots.get(pod).copied()
    }

    /// The pod of a slot.
    pub(super) fn pod_of(&self, slot: u16) -> Option<&Name> {
        self.names.get(&slot)
    }
}

fn target(isolation: Isolation) -> Target {
    match isolation {
        Isolation::None => Target::Allow,
        Isolation::Table(table) => Target::Table(table),
    }
}

fn slot_value(pod: &LocalPod, wanted: &SlotWanted) -> Slot {
    let first = |v4: bool| {
        let mut addresses = pod.addresses.iter();
        addresses
            .find(|address| address.is_ipv4() == v4)
            .map_or([0; 4], |address| encode::address(*address))
    };
    Slot {
        ifindex: wanted.ifindex,
        bridge: wanted.bridge,
        namespace: wanted.namespace,
        v4: first(true)[0],
        v6: first(false),
        owner: encode::owner(&pod.uid),
        ..Slot::default()
    }
}
