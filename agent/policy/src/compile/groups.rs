//! Which peer lists match which groups of pods, and what their named ports mean.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    lists::{ListId, Lists, PeerList},
    ports::{NamedPorts, PortName, resolve},
};
use crate::index::{Group, GroupId, Index};

/// The groups that have pods.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<GroupId, State>,
    namespaces: HashMap<Arc<str>, BTreeSet<GroupId>>,
    matched: HashMap<ListId, HashSet<GroupId>>,
    /// The names that egress rules use.
    names: BTreeSet<PortName>,
}

/// What is known of one group.
pub(super) struct State {
    group: Arc<Group>,
    /// The lists whose selectors match it, sorted.
    pub(super) lists: Vec<ListId>,
    /// Its ports under the names that egress rules use.
    pub(super) named: NamedPorts,
}

impl Groups {
    pub(super) fn get(&self, id: GroupId) -> Option<&State> {
        self.groups.get(&id)
    }

    /// The namespaces with pods.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// Adds groups of one namespace.
    pub(super) fn add(
        &mut self,
        index: &Index,
        lists: &Lists,
        namespace: &Arc<str>,
        new: Vec<Arc<Group>>,
    ) {
        let labels = index.namespace(namespace);
        let candidates: Vec<_> = lists
            .speaking_of(namespace)
            .into_iter()
            .filter_map(|id| Some((id, lists.get(id)?)))
            .collect();
        let members = self.namespaces.entry(namespace.clone()).or_default();
        for group in new {
            let matching = candidates
                .iter()
                .filter(|(_, list)| list.matches(&group, labels));
            let matching: Vec<_> = matching.map(|&(id, _)| id).collect();
            for id in &matching {
                self.matched.entry(*id).or_default().insert(group.id);
            }
            members.insert(group.id);
            let named = resolve(&group, |name| self.names.contains(name));
            let state = State {
                lists: matching,
                named,
                group,
            };
            self.groups.insert(state.group.id, state);
        }
    }

    pub(super) fn remove(&mut self, id: GroupId) {
        let Some(state) = self.groups.remove(&id) else {
            return;
        };
        for list in state.lists {
            if let Some(groups) = self.matched.get_mut(&list) {
                groups.remove(&id);
            }
        }
        let namespace = &state.group.namespace;
        if let Some(groups) = self.namespaces.get_mut(namespace) {
            groups.remove(&id);
            if groups.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }

    /// Matches a list against the groups of a namespace, and notes those where it is not as before.
    pub(super) fn reconsider(
        &mut self,
        index: &Index,
        id: ListId,
        list: &PeerList,
        namespace: &Arc<str>,
        moved: &mut BTreeSet<GroupId>,
    ) {
        let labels = index.namespace(namespace);
        for group in self.namespaces.get(namespace).into_iter().flatten() {
            let Some(state) = self.groups.get_mut(group) else {
                continue;
            };
            match (
                list.matches(&state.group, labels),
                state.lists.binary_search(&id),
            ) {
                (true, Err(place)) => {
                    state.lists.insert(place, id);
                    self.matched.entry(id).or_default().insert(*group);
                }
                (false, Ok(place)) => {
                    state.lists.remove(place);
                    if let Some(groups) = self.matched.get_mut(&id) {
                        groups.remove(group);
                    }
                }
                _ => continue,
            }
            moved.insert(*group);
        }
    }

    /// Forgets a list, and notes the groups it matched.
    pub(super) fn forget(&mut self, id: ListId, moved: &mut BTreeSet<GroupId>) {
        for group in self.matched.remove(&id).unwrap_or_default() {
            if let Some(state) = self.groups.get_mut(&group)
                && let Ok(place) = state.lists.binary_search(&id)
            {
                state.lists.remove(place);
                moved.insert(group);
            }
        }
    }

    /// Egress rules use these names. Notes the groups whose ports mean something else by that.
    pub(super) fn use_names(&mut self, names: BTreeSet<PortName>, moved: &mut BTreeSet<GroupId>) {
        if names == self.names {
            return;
        }
        self.names = names;
        for (id, state) in &mut self.groups {
            let named = resolve(&state.group, |name| self.names.contains(name));
            if named != state.named {
                state.named = named;
                moved.insert(*id);
            }
        }
    }
}
