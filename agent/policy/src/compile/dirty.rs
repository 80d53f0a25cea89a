//! What changed in the index.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    index::{Delta, Group, GroupId},
    model::Name,
};

/// What changed in the index since it was last compiled.
#[derive(Default)]
pub(super) struct Dirty {
    pub(super) namespaces: BTreeSet<Arc<str>>,
    pub(super) policies: BTreeSet<Name>,
    /// Pods that are or were of this node.
    pub(super) pods: BTreeSet<Name>,
    pub(super) groups: HashMap<GroupId, Arc<Group>>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) services: Vec<(Vec<IpAddr>, Vec<IpAddr>)>,
    /// The mode of all pods is another.
    pub(super) mode: bool,
}

impl Dirty {
    /// Adds a change; pods of other nodes matter as peers only.
    pub(super) fn note(&mut self, node: &str, delta: Delta) {
        match delta {
            Delta::Namespace(name) => {
                self.namespaces.insert(name);
            }
            Delta::Policy(name) => {
                self.policies.insert(name);
            }
            Delta::Service { old, new } => self.services.push((old, new)),
            Delta::Pod { old, new } => {
                for pod in [old, new].into_iter().flatten() {
                    self.addresses.extend(&pod.addresses);
                    self.groups
                        .entry(pod.group.id)
                        .or_insert_with(|| pod.group.clone());
                    if pod.node.as_deref() == Some(node) {
                        self.pods.insert(pod.name.clone());
                    }
                }
            }
        }
    }
}
