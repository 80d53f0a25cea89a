//! Which peer lists match which groups of pods, and what their named ports mean.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    lists::{Label, ListId, Lists, PeerList},
    ports::{NamedPorts, PortName, resolve},
    sets::{Set, Sets},
};
use crate::index::{Group, GroupId, Index};

/// The groups that have pods.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<GroupId, State>,
    namespaces: HashMap<Arc<str>, BTreeSet<GroupId>>,
    labels: HashMap<Label, BTreeSet<GroupId>>,
    /// The names that egress rules use, and what is found under them.
    names: BTreeSet<PortName>,
    named: HashSet<Arc<NamedPorts>>,
}

/// What is known of one group.
pub(super) struct State {
    group: Arc<Group>,
    /// The lists whose selectors match it.
    pub(super) lists: Set,
    /// Its ports under the names that egress rules use.
    pub(super) named: Arc<NamedPorts>,
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
        sets: &mut Sets,
        namespace: &Arc<str>,
        new: Vec<Arc<Group>>,
    ) {
        let mut matching = matching(index, lists, namespace);
        let members = self.namespaces.entry(namespace.clone()).or_default();
        for group in new {
            members.insert(group.id);
            for (key, value) in &group.labels {
                let label = (key.clone(), value.clone());
                self.labels.entry(label).or_default().insert(group.id);
            }
            let state = State {
                lists: sets.of(&matching(&group)),
                named: resolved(&self.names, &mut self.named, &group),
                group,
            };
            self.groups.insert(state.group.id, state);
        }
    }

    pub(super) fn remove(&mut self, id: GroupId) {
        let Some(State { group, .. }) = self.groups.remove(&id) else {
            return;
        };
        for (key, value) in &group.labels {
            let label = (key.clone(), value.clone());
            if let Some(groups) = self.labels.get_mut(&label) {
                groups.remove(&id);
                if groups.is_empty() {
                    self.labels.remove(&label);
                }
            }
        }
        if let Some(groups) = self.namespaces.get_mut(&group.namespace) {
            groups.remove(&id);
            if groups.is_empty() {
                self.namespaces.remove(&group.namespace);
            }
        }
    }

    /// Namespace selectors select the namespace that did not, or the reverse. Notes the groups that other
    /// lists match than before.
    pub(super) fn relabel(
        &mut self,
        index: &Index,
        lists: &Lists,
        sets: &mut Sets,
        namespace: &Arc<str>,
        moved: &mut BTreeSet<GroupId>,
    ) {
        let mut matching = matching(index, lists, namespace);
        for id in self.namespaces.get(namespace).into_iter().flatten() {
            if let Some(state) = self.groups.get_mut(id) {
                let set = sets.of(&matching(&state.group));
                if set != state.lists {
                    state.lists = set;
                    moved.insert(*id);
                }
            }
        }
    }

    /// The list came. Notes the groups that it matches.
    pub(super) fn admit(
        &mut self,
        index: &Index,
        lists: &Lists,
        sets: &mut Sets,
        (id, list): (ListId, &PeerList),
        moved: &mut BTreeSet<GroupId>,
    ) {
        let mut adding = sets.adding(id);
        for group in self.candidates(lists, list) {
            if let Some(state) = self.groups.get_mut(&group)
                && list.matches(&state.group, index.namespace(&state.group.namespace))
                && adding.apply(&mut state.lists)
            {
                moved.insert(group);
            }
        }
    }

    /// The list went. Notes the groups that it matched.
    pub(super) fn dismiss(
        &mut self,
        lists: &Lists,
        sets: &mut Sets,
        (id, list): (ListId, &PeerList),
        moved: &mut BTreeSet<GroupId>,
    ) {
        let mut removing = sets.removing(id);
        for group in self.candidates(lists, list) {
            if let Some(state) = self.groups.get_mut(&group)
                && removing.apply(&mut state.lists)
            {
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
        self.named.clear();
        for (id, state) in &mut self.groups {
            let named = resolved(&self.names, &mut self.named, &state.group);
            if named != state.named {
                state.named = named;
                moved.insert(*id);
            }
        }
    }

    /// All groups that the list can match.
    fn candidates(&self, lists: &Lists, list: &PeerList) -> BTreeSet<GroupId> {
        let required = list.handles().filter_map(|label| self.labels.get(&label));
        let open = lists.open_namespaces(list);
        let open = open.filter_map(|namespace| self.namespaces.get(namespace));
        required.chain(open).flatten().copied().collect()
    }
}

/// The one copy of what a group has under these names.
fn resolved(
    names: &BTreeSet<PortName>,
    known: &mut HashSet<Arc<NamedPorts>>,
    group: &Group,
) -> Arc<NamedPorts> {
    let named = resolve(group, |name| names.contains(name));
    if let Some(known) = known.get(&named) {
        return known.clone();
    }
    let named = Arc::new(named);
    known.insert(named.clone());
    named
}

/// Finds the lists that match a group of the namespace.
fn matching(
    index: &Index,
    lists: &Lists,
    namespace: &Arc<str>,
) -> impl FnMut(&Group) -> Vec<ListId> {
    let labels = index.namespace(namespace);
    let open = lists.open(namespace);
    move |group| {
        let candidates = lists.requiring(group).chain(open.iter().copied());
        let mut matching: Vec<ListId> = candidates
            .filter(|&id| {
                let list = lists.get(id);
                list.is_some_and(|list| list.matches(group, labels))
            })
            .collect();
        matching.sort_unstable();
        matching.dedup();
        matching
    }
}
