//! The objects as they are at present: what matters of each, interned, and nothing else.
//!
//! Every verb returns what it changed, with the old and the new, so that nobody has to compare states.
//! Nothing is judged here: what objects mean is for `compile` and `evaluate`.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::model::{
    Key, Labels, Mode, Name, NamedPort, Namespace, Object, Objects, Policy, Service,
};

use self::{claims::Claims, groups::Groups, strings::Strings};

mod claims;
mod groups;
mod strings;

/// The number of a group; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// All pods of one namespace with the same labels, the same named ports and the same mode: to every selector and
/// every named port they are one.
#[derive(Debug)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// Their namespace.
    pub namespace: Arc<str>,
    /// Their labels.
    pub labels: Labels,
    /// Their named ports, sorted.
    pub ports: Vec<NamedPort>,
    /// The mode that they ask for.
    pub mode: Mode,
}

/// What is kept of a pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Namespace and name.
    pub name: Name,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Its namespace, labels and named ports, shared with its like.
    pub group: Arc<Group>,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// `status.podIPs`, without duplicates.
    pub addresses: Box<[IpAddr]>,
    /// Whether the node's network plugin has given it the addresses.
    pub attached: bool,
    /// On the host's network.
    pub host_network: bool,
    /// Phase Succeeded or Failed.
    pub finished: bool,
    /// Being deleted.
    pub terminating: bool,
    /// Creation in seconds since the epoch.
    pub created: i64,
}

impl Pod {
    /// Whether policies can speak of it, as subject or as peer: it runs, on a network of its own.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.host_network && !self.finished
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.group, &other.group)
            && self.name == other.name
            && self.uid == other.uid
            && self.node == other.node
            && self.addresses == other.addresses
            && self.attached == other.attached
            && self.host_network == other.host_network
            && self.finished == other.finished
            && self.terminating == other.terminating
            && self.created == other.created
    }
}

/// A pod, found by its name.
#[derive(Clone, Debug)]
struct ByName(Arc<Pod>);

impl Borrow<Name> for ByName {
    fn borrow(&self) -> &Name {
        &self.0.name
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

/// What one verb changed.
#[derive(Clone, Debug)]
pub enum Delta {
    /// The namespace came, went or has other labels or another mode.
    Namespace(Arc<str>),
    /// The pod came, went or is other than before.
    Pod {
        /// As it was.
        old: Option<Arc<Pod>>,
        /// As it is.
        new: Option<Arc<Pod>>,
    },
    /// The policy came, went or is other than before.
    Policy(Name),
    /// The Service came, went or has other addresses.
    Service {
        /// Its addresses before.
        old: Vec<IpAddr>,
        /// Its addresses.
        new: Vec<IpAddr>,
    },
}

/// The objects. A clone shares them: it is for whoever takes long to answer.
#[derive(Clone, Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<Arc<str>, Namespace>,
    pods: BTreeSet<ByName>,
    policies: BTreeMap<Name, Arc<Policy>>,
    services: BTreeMap<Name, Service>,
    groups: Groups,
    claims: Claims,
    strings: Strings,
    /// That of all pods.
    mode: Mode,
}

impl Index {
    /// The mode of all pods.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Puts all pods in audit, or leaves it to namespaces, policies and pods which are. Whether that is new.
    pub fn set_mode(&mut self, mode: Mode) -> bool {
        std::mem::replace(&mut self.mode, mode) != mode
    }

    /// Adds the object or replaces the one of its name. `None` if it says nothing new.
    pub fn apply(&mut self, object: Object) -> Option<Delta> {
        match object {
            Object::Namespace(namespace) => self.apply_namespace(namespace),
            Object::Pod(pod) => self.apply_pod(pod),
            Object::Policy(policy) => self.apply_policy(policy),
            Object::Service(service) => self.apply_service(service),
        }
    }

    /// Removes the object. `None` if there is none.
    pub fn delete(&mut self, key: &Key) -> Option<Delta> {
        match key {
            Key::Namespace(name) => self
                .namespaces
                .remove(name)
                .map(|_| Delta::Namespace(name.clone())),
            Key::Pod(name) => self.pods.take(name).map(|ByName(old)| {
                self.forget(&old);
                Delta::Pod {
                    old: Some(old),
                    new: None,
                }
            }),
            Key::Policy(name) => self
                .policies
                .remove(name)
                .map(|_| Delta::Policy(name.clone())),
            Key::Service(name) => self.services.remove(name).map(|old| Delta::Service {
                old: old.addresses,
                new: Vec::new(),
            }),
        }
    }

    /// Makes these all objects of their kind.
    pub fn reset(&mut self, objects: Objects) -> Vec<Delta> {
        let (objects, present): (Vec<Object>, Vec<Key>) = match objects {
            Objects::Namespaces(objects) => (
                objects.into_iter().map(Object::Namespace).collect(),
                self.namespaces
                    .keys()
                    .cloned()
                    .map(Key::Namespace)
                    .collect(),
            ),
            Objects::Pods(objects) => (
                objects.into_iter().map(Object::Pod).collect(),
                self.pods().map(|pod| Key::Pod(pod.name.clone())).collect(),
            ),
            Objects::Policies(objects) => (
                objects.into_iter().map(Object::Policy).collect(),
                self.policies.keys().cloned().map(Key::Policy).collect(),
            ),
            Objects::Services(objects) => (
                objects.into_iter().map(Object::Service).collect(),
                self.services.keys().cloned().map(Key::Service).collect(),
            ),
        };
        let kept: BTreeSet<Key> = objects.iter().map(Object::key).collect();
        let gone = present.into_iter().filter(|key| !kept.contains(key));
        let mut deltas: Vec<_> = gone.filter_map(|key| self.delete(&key)).collect();
        deltas.extend(objects.into_iter().filter_map(|object| self.apply(object)));
        deltas
    }

    /// The labels of a namespace, if it is known.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name).map(|namespace| &namespace.labels)
    }

    /// The known namespaces and their labels.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, &Labels)> {
        let namespaces = self.namespaces.iter();
        namespaces.map(|(name, namespace)| (name, &namespace.labels))
    }

    /// The pod of that name.
    #[must_use]
    pub fn pod(&self, name: &Name) -> Option<&Arc<Pod>> {
        self.pods.get(name).map(|ByName(pod)| pod)
    }

    /// All pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().map(|ByName(pod)| pod)
    }

    /// The pods of one namespace, by name.
    pub fn pods_of(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> + use<'_> {
        let namespace = Arc::<str>::from(namespace);
        self.pods
            .range(Name::new(namespace.clone(), "")..)
            .map(|ByName(pod)| pod)
            .take_while(move |pod| pod.name.namespace == namespace)
    }

    /// The policy of that name.
    #[must_use]
    pub fn policy(&self, name: &Name) -> Option<&Arc<Policy>> {
        self.policies.get(name)
    }

    /// All policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// The policies of one namespace, by name.
    pub fn policies_of(&self, namespace: &str) -> impl Iterator<Item = &Arc<Policy>> {
        let first = Name::new(namespace, "");
        self.policies
            .range(first..)
            .map(|(_, policy)| policy)
            .take_while(move |policy| *policy.name.namespace == *namespace)
    }

    /// The Service of that name.
    #[must_use]
    pub fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(name)
    }

    /// All Services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The pod that owns the address: of the live pods that claim it the one that the network plugin gave it, else
    /// the newest that is not terminating, or the newest if all are.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.claims.owner(address)
    }

    /// Whether some pod is of this very group (not of one of the same content that came later).
    #[must_use]
    pub fn has_group(&self, group: &Arc<Group>) -> bool {
        self.groups.has(group)
    }

    /// The mode of a group's pods: that of all, else the namespace's, or their own where the namespace lets them choose.
    #[must_use]
    pub fn mode_of(&self, group: &Group) -> Mode {
        match self.namespaces.get(&group.namespace) {
            _ if self.mode == Mode::Audit => Mode::Audit,
            Some(namespace) if namespace.mode == Mode::Audit => Mode::Audit,
            Some(namespace) if namespace.pod_modes => group.mode,
            _ => Mode::Enforce,
        }
    }

    /// The groups that have pods, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.iter()
    }

    fn apply_namespace(&mut self, namespace: Namespace) -> Option<Delta> {
        let name = namespace.name.clone();
        if self.namespaces.get(&name) == Some(&namespace) {
            return None;
        }
        self.namespaces.insert(name.clone(), namespace);
        Some(Delta::Namespace(name))
    }

    fn apply_pod(&mut self, pod: crate::model::Pod) -> Option<Delta> {
        let group = self.groups.join(
            &mut self.strings,
            pod.name.namespace,
            pod.labels,
            pod.ports,
            pod.mode,
        );
        let mut addresses: Vec<IpAddr> = Vec::with_capacity(pod.addresses.len());
        for address in pod.addresses {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let new = Arc::new(Pod {
            name: Name {
                namespace: group.namespace.clone(),
                name: pod.name.name,
            },
            uid: pod.uid,
            group,
            node: pod.node.map(|node| self.strings.share(node)),
            addresses: addresses.into(),
            attached: pod.attached,
            host_network: pod.host_network,
            finished: pod.finished,
            terminating: pod.terminating,
            created: pod.created,
        });
        let old = self.pods.replace(ByName(new.clone()));
        let old = old.map(|ByName(old)| old);
        if let Some(old) = &old {
            self.forget(old);
        }
        if new.counts() {
            for &address in &new.addresses {
                self.claims.add(address, &new);
            }
        }
        if old.as_ref().is_some_and(|old| old.same(&new)) {
            return None;
        }
        Some(Delta::Pod {
            old,
            new: Some(new),
        })
    }

    fn apply_policy(&mut self, policy: Policy) -> Option<Delta> {
        let name = policy.name.clone();
        if self.policies.get(&name).is_some_and(|old| **old == policy) {
            return None;
        }
        self.policies.insert(name.clone(), Arc::new(policy));
        Some(Delta::Policy(name))
    }

    fn apply_service(&mut self, service: Service) -> Option<Delta> {
        let new = service.addresses.clone();
        let old = self
            .services
            .insert(service.name.clone(), service)
            .map(|old| old.addresses)
            .unwrap_or_default();
        (old != new).then_some(Delta::Service { old, new })
    }

    /// Takes back the claims of a pod that is no longer there, and its place in its group.
    fn forget(&mut self, old: &Arc<Pod>) {
        if old.counts() {
            for &address in &old.addresses {
                self.claims.remove(address, old);
            }
        }
        self.groups.leave(&old.group);
    }
}
