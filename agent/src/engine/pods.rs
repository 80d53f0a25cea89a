//! The pods of this node: where each one's packets pass, and whether its policies are in force there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_dataplane::{
    dataplane::{SlotWanted, SlotsWanted},
    link::discover::{PodInterface, Scan},
};
use palisade_policy::{
    index::Index,
    model::Name,
    table::{Change, Compiled, LocalPod},
};

use super::kernel::Outcome;

/// The pods that have an address.
#[derive(Debug, Default)]
pub(super) struct Pods(BTreeMap<Name, State>);

/// One of them.
#[derive(Debug)]
pub(super) struct State {
    /// What it was looked for by.
    uid: Arc<str>,
    pub(super) addresses: Vec<IpAddr>,
    /// The device that carries its packets.
    pub(super) interface: Option<PodInterface>,
    /// Its slot, or why it is not enforced.
    pub(super) enforced: Result<u16, String>,
    /// Not all is told that would be denied.
    unaudited: bool,
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
pub(super) fn place(compiled: &Compiled, index: &Index, scan: &Scan, before: &Pods) -> Placement {
    let mut placement = Placement::default();
    let mut taken: BTreeMap<u32, &Name> = BTreeMap::new();
    for (name, pod) in &compiled.pods {
        let (interface, enforced) = match interface(name, pod, index, scan, before) {
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
                uid: pod.uid.clone(),
                addresses: pod.addresses.clone(),
                interface,
                enforced,
                unaudited: false,
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
    before: &Pods,
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
                // It is being looked for; until then it stays where it was.
                None => match before.get(name).filter(|state| state.uid == pod.uid) {
                    Some(State {
                        interface: Some(interface),
                        ..
                    }) => return Ok(interface.clone()),
                    _ => "it has not been looked for yet".to_owned(),
                },
            },
        };
        reason.get_or_insert(missing);
    }
    Err(reason.unwrap_or_else(|| "it has no address".to_owned()))
}

impl Pods {
    /// Whether any of the changed pods has to be looked for; other policies alone move no device.
    pub(super) fn moved(&self, compiled: &Compiled, change: &Change) -> bool {
        change
            .pods
            .iter()
            .any(|name| match (self.0.get(name), compiled.pods.get(name)) {
                (None, None) => false,
                (Some(state), Some(pod)) => {
                    state.interface.is_none()
                        || state.uid != pod.uid
                        || state.addresses != pod.addresses
                }
                _ => true,
            })
    }

    /// Takes note of what an update came to.
    pub(super) fn settle(&mut self, placement: Placement, outcome: &Outcome) {
        let Placement { wanted, mut states } = placement;
        for (name, SlotWanted { ifindex, .. }) in &wanted {
            if let Some(state) = states.get_mut(name) {
                state.enforced = outcome_of(name, *ifindex, outcome);
                state.unaudited = outcome.report.unaudited.contains(name);
            }
        }
        self.0 = states;
    }

    pub(super) fn get(&self, name: &Name) -> Option<&State> {
        self.0.get(name)
    }

    /// The names of those of which not all is told that would be denied.
    pub(super) fn unaudited(&self) -> Vec<String> {
        let unaudited = self.0.iter().filter(|(_, state)| state.unaudited);
        unaudited.map(|(name, _)| name.to_string()).collect()
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
    if report.narrowed.contains(name) {
        return Err(
            "some of its ports do not fit into the kernel's maps: they are denied".to_owned(),
        );
    }
    Ok(slot)
}

#[cfg(test)]
mod tests {
    use palisade_dataplane::link::discover::Found;
    use palisade_policy::table::Isolation;

    use super::*;

    fn compiled(addresses: &[&str]) -> (Compiled, Change) {
        let name = Name::new("x", "a");
        let pod = LocalPod {
            uid: "1".into(),
            addresses: addresses
                .iter()
                .map(|it| it.parse().expect("an address"))
                .collect(),
            ingress: Isolation::None,
            egress: Isolation::None,
            audited_ingress: Isolation::None,
            audited_egress: Isolation::None,
        };
        let change = Change {
            pods: vec![name.clone()],
            ..Change::default()
        };
        let pods = BTreeMap::from([(name, pod)]);
        (
            Compiled {
                pods,
                ..Compiled::default()
            },
            change,
        )
    }

    #[test]
    fn a_pod_that_has_its_interface_is_looked_for_when_its_addresses_change() {
        let (here, change) = compiled(&["10.0.0.1"]);
        let address = "10.0.0.1".parse().expect("an address");
        let mut pods = Pods::default();
        assert!(pods.moved(&here, &change), "it is new");

        let nowhere = place(&here, &Index::default(), &Scan::default(), &pods);
        pods.settle(nowhere, &Outcome::default());
        assert!(pods.moved(&here, &change), "it was not found");

        let interface = PodInterface {
            ifindex: 7,
            name: "veth0".to_owned(),
            bridge: None,
            link_header: 14,
            namespace: Some(1),
            others: Vec::new(),
            found: Found::Address,
        };
        let scan = Scan {
            pods: [(address, Ok(interface))].into(),
            ..Scan::default()
        };
        let found = place(&here, &Index::default(), &scan, &pods);
        pods.settle(found, &Outcome::default());
        assert!(!pods.moved(&here, &change), "only its policies changed");

        let (both, change) = compiled(&["10.0.0.1", "10.0.0.2"]);
        assert!(pods.moved(&both, &change), "it has another address");
        assert!(pods.moved(&Compiled::default(), &change), "it is gone");
    }
}
