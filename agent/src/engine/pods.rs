//! The pods of this node: where each one's packets pass, and whether its policies are in force there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_dataplane::{
    dataplane::{SlotWanted, SlotsWanted},
    link::discover::{PodInterface, Scan},
};
use palisade_policy::{
    index::Index,
    model::Name,
    table::{Compiled, LocalPod},
};

use super::kernel::Outcome;

/// The pods that have an address.
#[derive(Debug, Default)]
pub(super) struct Pods(BTreeMap<Name, State>);

/// One of them.
#[derive(Debug)]
pub(super) struct State {
    /// The device that carries its packets.
    pub(super) interface: Option<PodInterface>,
    /// Its slot, or why it is not enforced.
    pub(super) enforced: Result<u16, String>,
}

/// Which pods are to have a slot, and where.
#[derive(Debug, Default)]
pub(super) struct Placement {
    pub(super) wanted: SlotsWanted,
    states: BTreeMap<Name, State>,
}

/// The addresses of all pods of this node.
pub(super) fn addresses(compiled: &Compiled) -> BTreeSet<IpAddr> {
    compiled
        .pods
        .values()
        .flat_map(|pod| &pod.addresses)
        .copied()
        .collect()
}

/// Finds each pod its interface.
pub(super) fn place(compiled: &Compiled, index: &Index, scan: &Scan) -> Placement {
    let mut placement = Placement::default();
    let mut taken: BTreeMap<u32, &Name> = BTreeMap::new();
    for (name, pod) in &compiled.pods {
        let (interface, enforced) = match interface(name, pod, index, scan) {
            Err(reason) => (None, Err(reason)),
            Ok(interface) => match taken.get(&interface.ifindex) {
                Some(other) => {
                    let reason = format!("its interface {} is that of pod {other}", interface.name);
                    (Some(interface), Err(reason))
                }
                None => {
                    taken.insert(interface.ifindex, name);
                    let wanted = SlotWanted {
                        ifindex: interface.ifindex,
                        bridge: interface.bridge.unwrap_or(0),
                        namespace: interface.namespace.unwrap_or(-1),
                    };
                    placement.wanted.insert(name.clone(), wanted);
                    (Some(interface), Ok(0))
                }
            },
        };
        placement.states.insert(
            name.clone(),
            State {
                interface,
                enforced,
            },
        );
    }
    placement
}

/// The interface that holds one of the pod's addresses; of addresses that a newer pod claims, that one's.
fn interface(
    name: &Name,
    pod: &LocalPod,
    index: &Index,
    scan: &Scan,
) -> Result<PodInterface, String> {
    let mut reason = None;
    for &address in &pod.addresses {
        let missing = match index.owner(address) {
            Some(owner) if owner.name != *name => {
                format!("{address} is claimed by the newer pod {}", owner.name)
            }
            _ => match scan.pods.get(&address) {
                Some(Ok(interface)) => return Ok(interface.clone()),
                Some(Err(missing)) => missing.to_string(),
                None => "it has not been looked for yet".to_owned(),
            },
        };
        reason.get_or_insert(missing);
    }
    Err(reason.unwrap_or_else(|| "it has no address".to_owned()))
}

impl Pods {
    /// Takes note of what an update came to.
    pub(super) fn settle(&mut self, placement: Placement, outcome: &Outcome) {
        let Placement { wanted, mut states } = placement;
        for (name, SlotWanted { ifindex, .. }) in &wanted {
            if let Some(state) = states.get_mut(name) {
                state.enforced = outcome_of(name, *ifindex, outcome);
            }
        }
        self.0 = states;
    }

    pub(super) fn get(&self, name: &Name) -> Option<&State> {
        self.0.get(name)
    }

    /// How many are enforced, and the names of those that are not.
    pub(super) fn count(&self) -> (usize, Vec<&Name>) {
        let unenforced: Vec<_> = self
            .0
            .iter()
            .filter(|(_, state)| state.enforced.is_err())
            .map(|(name, _)| name)
            .collect();
        (self.0.len() - unenforced.len(), unenforced)
    }
}

fn outcome_of(name: &Name, ifindex: u32, outcome: &Outcome) -> Result<u16, String> {
    let report = &outcome.report;
    let Some(&slot) = report.ready.get(name) else {
        return Err("there is no slot left for it".to_owned());
    };
    if let Some(reason) = outcome.unattached.get(&ifindex) {
        return Err(reason.clone());
    }
    if report.denied.contains(name) {
        return Err(
            "its state does not fit into the kernel's maps: everything is denied".to_owned(),
        );
    }
    if report.kept.contains(name) {
        return Err(
            "its new state does not fit into the kernel's maps: an earlier one stays".to_owned(),
        );
    }
    Ok(slot)
}
