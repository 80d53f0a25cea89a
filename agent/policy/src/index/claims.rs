//! Who owns an address.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::Pod;

/// The live pods that claim each address. An address is given to a new pod before the API tells that its
/// former owner is gone, and events come in any order: so each pod has a claim of its own, and losing one
/// pod takes away its claim only.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<IpAddr, Vec<Arc<Pod>>>);

impl Claims {
    pub(super) fn add(&mut self, address: IpAddr, pod: &Arc<Pod>) {
        let claimants = self
            .0
            .entry(address)
            .or_insert_with(|| Vec::with_capacity(1));
        claimants.push(pod.clone());
    }

    pub(super) fn remove(&mut self, address: IpAddr, pod: &Arc<Pod>) {
        if let Some(claimants) = self.0.get_mut(&address) {
            claimants.retain(|claimant| !Arc::ptr_eq(claimant, pod));
            if claimants.is_empty() {
                self.0.remove(&address);
            }
        }
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.0
            .get(&address)?
            .iter()
            .max_by_key(|pod| (!pod.terminating, pod.created, &pod.uid, &pod.name))
    }
}
