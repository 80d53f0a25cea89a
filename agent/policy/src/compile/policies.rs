//! Which policies select the pods of this node, and what their rules come down to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    lists::{ListId, Lists, PeerList},
    ports::{PortName, names},
};
use crate::{
    index::{Group, GroupId, Index},
    model::{Name, Peers, Policy, Ports, Rule},
    table::Direction,
};

/// The number of a policy while it selects some pod of this node; edits do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PolicyId(u32);

/// A rule of a policy that matters to this node.
pub(super) struct LiveRule {
    /// Its peers; `None`: everybody.
    pub(super) list: Option<ListId>,
    /// Its ports.
    pub(super) ports: Ports,
}

/// A policy that selects some pod of this node.
pub(super) struct Live {
    pub(super) policy: Arc<Policy>,
    /// The number of groups it selects.
    users: usize,
    rules: LiveRules,
}

/// The rules of a policy; `None` for a direction of which it says nothing.
struct LiveRules {
    ingress: Option<Vec<LiveRule>>,
    egress: Option<Vec<LiveRule>>,
}

impl Live {
    /// The rules of a direction; `None` if the policy says nothing of it.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[LiveRule]> {
        match direction {
            Direction::Ingress => self.rules.ingress.as_deref(),
            Direction::Egress => self.rules.egress.as_deref(),
        }
    }
}

/// A group with pods on this node.
pub(super) struct LocalGroup {
    pub(super) group: Arc<Group>,
    pub(super) pods: BTreeSet<Name>,
    /// The policies that select it.
    pub(super) policies: BTreeSet<PolicyId>,
}

/// The policies that select some pod of this node, and the pods by group.
#[derive(Default)]
pub(super) struct Policies {
    live: HashMap<PolicyId, Live>,
    ids: BTreeMap<Name, PolicyId>,
    created: u32,
    groups: BTreeMap<GroupId, LocalGroup>,
    namespaces: HashMap<Arc<str>, BTreeSet<GroupId>>,
    /// Names that the egress rules use, and how often.
    names: BTreeMap<PortName, usize>,
    /// Policies whose rules are other than before.
    edited: BTreeSet<PolicyId>,
}

impl Policies {
    pub(super) fn get(&self, id: PolicyId) -> Option<&Live> {
        self.live.get(&id)
    }

    /// The policies that select some pod, by name.
    pub(super) fn live(&self) -> impl Iterator<Item = &Live> {
        self.ids.values().filter_map(|id| self.live.get(id))
    }

    /// The groups with pods on this node.
    pub(super) fn groups(&self) -> impl Iterator<Item = (GroupId, &LocalGroup)> {
        self.groups.iter().map(|(&id, group)| (id, group))
    }

    /// Whether pods of this namespace are on this node.
    pub(super) fn has_pods_of(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// The groups that a policy selects.
    pub(super) fn selected(&self, live: &Live) -> impl Iterator<Item = &LocalGroup> {
        let id = self.ids.get(&live.policy.name).copied();
        let groups = self.groups.values();
        groups.filter(move |group| id.is_some_and(|id| group.policies.contains(&id)))
    }

    /// The names that egress rules use.
    pub(super) fn egress_names(&self) -> BTreeSet<PortName> {
        self.names.keys().cloned().collect()
    }

    /// The policies whose rules are other than at the last call.
    pub(super) fn take_edited(&mut self) -> BTreeSet<PolicyId> {
        std::mem::take(&mut self.edited)
    }

    /// A pod of this group came to the node.
    pub(super) fn join(
        &mut self,
        index: &Index,
        lists: &mut Lists,
        group: &Arc<Group>,
        pod: &Name,
    ) {
        if let Some(local) = self.groups.get_mut(&group.id) {
            local.pods.insert(pod.clone());
            return;
        }
        let selecting = index
            .policies_of(&group.namespace)
            .filter(|policy| policy.selector.matches(&group.labels));
        let local = LocalGroup {
            group: group.clone(),
            pods: [pod.clone()].into(),
            policies: selecting.map(|policy| self.select(lists, policy)).collect(),
        };
        self.groups.insert(group.id, local);
        let members = self.namespaces.entry(group.namespace.clone());
        members.or_default().insert(group.id);
    }

    /// A pod of this group left the node.
    pub(super) fn leave(&mut self, lists: &mut Lists, group: &Arc<Group>, pod: &Name) {
        let Some(local) = self.groups.get_mut(&group.id) else {
            return;
        };
        local.pods.remove(pod);
        if !local.pods.is_empty() {
            return;
        }
        for policy in std::mem::take(&mut local.policies) {
            self.deselect(lists, policy);
        }
        self.groups.remove(&group.id);
        if let Some(members) = self.namespaces.get_mut(&group.namespace) {
            members.remove(&group.id);
            if members.is_empty() {
                self.namespaces.remove(&group.namespace);
            }
        }
    }

    /// The policy came, went or is other than before.
    pub(super) fn edit(&mut self, lists: &mut Lists, name: &Name, policy: Option<&Arc<Policy>>) {
        let id = self.ids.get(name).copied();
        if let (Some(id), Some(policy)) = (id, policy) {
            // The new rules take hold of their peer lists before the old ones let go.
            let new = self.compile(lists, policy);
            if let Some(live) = self.live.get_mut(&id) {
                let old = std::mem::replace(&mut live.rules, new);
                live.policy = policy.clone();
                self.edited.insert(id);
                self.let_go(lists, &old);
            }
        }
        let groups = self.namespaces.get(&name.namespace).cloned();
        for group in groups.unwrap_or_default() {
            let Some(local) = self.groups.get(&group) else {
                continue;
            };
            let selected = id.is_some_and(|id| local.policies.contains(&id));
            let selecting = policy.filter(|policy| policy.selector.matches(&local.group.labels));
            match (selecting, id) {
                (Some(policy), _) if !selected => {
                    let id = self.select(lists, policy);
                    if let Some(local) = self.groups.get_mut(&group) {
                        local.policies.insert(id);
                    }
                }
                (None, Some(id)) if selected => {
                    if let Some(local) = self.groups.get_mut(&group) {
                        local.policies.remove(&id);
                    }
                    self.deselect(lists, id);
                }
                _ => {}
            }
        }
    }

    fn select(&mut self, lists: &mut Lists, policy: &Arc<Policy>) -> PolicyId {
        let id = match self.ids.get(&policy.name) {
            Some(&id) => id,
            None => {
                let id = PolicyId(self.created);
                self.created += 1;
                let live = Live {
                    policy: policy.clone(),
                    users: 0,
                    rules: self.compile(lists, policy),
                };
                self.live.insert(id, live);
                self.ids.insert(policy.name.clone(), id);
                id
            }
        };
        if let Some(live) = self.live.get_mut(&id) {
            live.users += 1;
        }
        id
    }

    fn deselect(&mut self, lists: &mut Lists, id: PolicyId) {
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        live.users -= 1;
        if live.users == 0
            && let Some(live) = self.live.remove(&id)
        {
            self.ids.remove(&live.policy.name);
            self.let_go(lists, &live.rules);
        }
    }

    fn compile(&mut self, lists: &mut Lists, policy: &Arc<Policy>) -> LiveRules {
        for rule in policy.egress.iter().flatten() {
            for name in names(&rule.ports) {
                *self.names.entry(name).or_default() += 1;
            }
        }
        let mut compiled = |rules: &Option<Vec<Rule>>| -> Option<Vec<LiveRule>> {
            let rules = rules.as_ref()?.iter().map(|rule| LiveRule {
                list: match &rule.peers {
                    Peers::Any => None,
                    Peers::Of(peers) => {
                        Some(lists.acquire(PeerList::new(&policy.name.namespace, peers)))
                    }
                },
                ports: rule.ports.clone(),
            });
            Some(rules.collect())
        };
        LiveRules {
            ingress: compiled(&policy.ingress),
            egress: compiled(&policy.egress),
        }
    }

    fn let_go(&mut self, lists: &mut Lists, rules: &LiveRules) {
        let all = rules.ingress.iter().chain(&rules.egress).flatten();
        for list in all.filter_map(|rule| rule.list) {
            lists.release(list);
        }
        let egress = rules.egress.iter().flatten();
        for name in egress.flat_map(|rule| names(&rule.ports)) {
            if let Some(uses) = self.names.get_mut(&name) {
                *uses -= 1;
                if *uses == 0 {
                    self.names.remove(&name);
                }
            }
        }
    }
}
