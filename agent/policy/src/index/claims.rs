//! Who owns an address.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use super::Pod;

/// The live pods that claim each address. An address is given to a new pod before the API tells that its
/// former owner is gone, and events come in any order: so each pod has a claim of its own, and losing one
/// pod takes away its claim only.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(BTreeMap<IpAddr, Claimants>);

/// Almost every address is claimed once.
#[derive(Clone, Debug)]
enum Claimants {
    One(Arc<Pod>),
    More(Vec<Arc<Pod>>),
}

impl Claims {
    pub(super) fn add(&mut self, address: IpAddr, pod: &Arc<Pod>) {
        match self.0.entry(address) {
            Entry::Vacant(place) => {
                place.insert(Claimants::One(pod.clone()));
            }
            Entry::Occupied(mut place) => match place.get_mut() {
                Claimants::One(first) => {
                    let both = vec![first.clone(), pod.clone()];
                    place.insert(Claimants::More(both));
                }
                Claimants::More(claimants) => claimants.push(pod.clone()),
            },
        }
    }

    pub(super) fn remove(&mut self, address: IpAddr, pod: &Arc<Pod>) {
        let is_other = |claimant: &Arc<Pod>| !Arc::ptr_eq(claimant, pod);
        let keeps = match self.0.get_mut(&address) {
            None => return,
            Some(Claimants::One(claimant)) => is_other(claimant),
            Some(Claimants::More(claimants)) => {
                claimants.retain(is_other);
                !claimants.is_empty()
            }
        };
        if !keeps {
            self.0.remove(&address);
        }
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        match self.0.get(&address)? {
            Claimants::One(claimant) => Some(claimant),
            Claimants::More(claimants) => claimants.iter().max_by_key(|pod| {
                let age = (pod.created, &pod.uid, &pod.name);
                (pod.attached, !pod.terminating, age)
            }),
        }
    }
}
