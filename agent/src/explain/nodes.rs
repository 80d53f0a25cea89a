//! The addresses of nodes: between a pod and its own node everything passes.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::index::Index;

use crate::source::Node;

/// The addresses of nodes.
#[derive(Debug, Default)]
pub struct Nodes {
    /// Of Node objects, by node.
    objects: HashMap<Arc<str>, Vec<IpAddr>>,
    /// The node that this agent runs on, and all its addresses.
    own: Option<(Arc<str>, BTreeSet<IpAddr>)>,
}

impl Nodes {
    /// Adds the node or replaces the one of its name.
    pub fn apply(&mut self, node: Node) {
        self.objects.insert(node.name, node.addresses);
    }

    /// Removes the node.
    pub fn delete(&mut self, name: &str) {
        self.objects.remove(name);
    }

    /// Tells which node this is, and all its addresses.
    pub fn set_own(&mut self, name: &Arc<str>, addresses: &BTreeSet<IpAddr>) {
        if self
            .own
            .as_ref()
            .is_none_or(|(_, known)| known != addresses)
        {
            self.own = Some((name.clone(), addresses.clone()));
        }
    }

    /// Whether the address is one of that node's: so say its object, its own devices, or a pod of the host
    /// network.
    pub(super) fn has(&self, index: &Index, node: &str, address: IpAddr) -> bool {
        let object = self
            .objects
            .get(node)
            .is_some_and(|all| all.contains(&address));
        let own = self
            .own
            .as_ref()
            .is_some_and(|(name, all)| **name == *node && all.contains(&address));
        let host = |pod: &Arc<palisade_policy::index::Pod>| {
            pod.host_network
                && pod.node.as_deref() == Some(node)
                && pod.addresses.contains(&address)
        };
        object || own || index.pods().any(host)
    }
}
